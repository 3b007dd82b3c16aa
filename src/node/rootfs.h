/* What a container sees as its disk: the host's /usr, read-only, and around it a root of its own: a clean /etc, /tmp, /var, /home, /root.
 * Nothing else of the host is in it: no home, no key, no password file, no data.
 *
 *      base  made once a start of the node: what all containers share read-only (the CA bundle, the linker's cache, /etc/alternatives,
 *            our own binary at /opt/postern/bin/postern)
 *      root  made for each start of a container: directories and small files that it may write to, gone with it */
#ifndef NODE_ROOTFS_H
#define NODE_ROOTFS_H

#include "base/buf.h"
#include "node/oci.h"

#define ROOTFS_POSTERN "/opt/postern/bin/postern"

struct rootfs_base {
        char *dir;                /* STATE/base */
        struct oci_mount *mounts; /* what each container gets of it */
        size_t nmounts, cap_mounts;
};

/* `binary`: the running executable; `extra_ca_pem`: more roots for the pods' CA bundle, or empty. 0, or -errno with a sentence. */
int rootfs_base_make(struct rootfs_base *b, const char *dir, const char *binary, struct str extra_ca_pem, struct buf *error);
void rootfs_base_free(struct rootfs_base *b);

struct rootfs_opts {
        const char *hostname;
        struct str hosts; /* whole text of /etc/hosts */
        struct str resolv_conf;
        uint32_t uid, gid; /* the container's user: named in /etc/passwd, owner of /tmp's like */
};

/* Makes the tree at `dir`, which must not exist. */
int rootfs_make(const char *dir, const struct rootfs_opts *o, struct buf *error);
/* Removes a tree, never leaving its file system or following a link. Absent: 0. */
int rootfs_remove(const char *dir);

/* mkdir -p. 0, or -errno. */
int rootfs_mkdirs(const char *dir, unsigned mode);

#endif
