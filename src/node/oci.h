/* An OCI runtime configuration (config.json, runtime-spec 1.0) from a container's description. Strings are borrowed for the call. */
#ifndef NODE_OCI_H
#define NODE_OCI_H

#include "base/buf.h"

struct oci_mount {
        const char *to, *from; /* absolute */
        bool read_only;
};

struct oci_container {
        const char *rootfs; /* absolute */
        const char *hostname;
        const char *netns_path;
        const char *cgroup; /* "/postern/NAME/UID/container" */
        const char *const *args;
        size_t nargs;
        const char *const *env; /* "NAME=value" */
        size_t nenv;
        const char *cwd;
        uint32_t uid, gid;
        const uint32_t *groups;
        size_t ngroups;
        const char *const *caps; /* "CAP_NET_ADMIN": all that it gets */
        size_t ncaps;
        const struct oci_mount *mounts;
        size_t nmounts;
        bool read_only_root, new_privileges, tty, unconfined /* no seccomp filter */;
        int64_t memory_bytes; /* 0: no limit */
        int64_t cpu_quota_us; /* per 100 ms; 0: no limit */
        int64_t cpu_shares;   /* 0: leave */
        int64_t pids_max;     /* 0: leave */
        int oom_score_adj;
        bool no_cgroup; /* this machine has no cgroup that we may use */
};

void oci_config(const struct oci_container *c, struct buf *json);
/* A process for `runc exec --process`: the container's user, environment and rights with another command. */
void oci_process(const struct oci_container *c, const char *const *args, size_t nargs, bool tty, struct buf *json);

/* "NET_ADMIN" or "CAP_NET_ADMIN" to a static "CAP_NET_ADMIN". NULL: unknown, or one that would hand over the host (*refused true). */
const char *oci_capability(struct str name, bool *refused);

#endif
