/* Reading a pod's JSON: small getters, and the description of one container as the runtime wants it. */
#ifndef NODE_SPEC_H
#define NODE_SPEC_H

#include "base/arena.h"
#include "node/oci.h"
#include "pb/pb.h"

/* ---- getters; a missing or mistyped field gives `otherwise` ---- */
int64_t spec_int(const struct pb_node *n, const char *dotted, int64_t otherwise);
bool spec_bool(const struct pb_node *n, const char *dotted, bool otherwise);
struct str spec_str(const struct pb_node *n, const char *dotted); /* "" when absent */
/* The list at `dotted`, or an empty one. */
const struct pb_node *spec_list(const struct pb_node *n, const char *dotted);
/* A value of the map at `dotted` whose key may hold dots ("metadata.annotations", "sidecar.istio.io/status"); p NULL when absent. */
struct str spec_map_str(const struct pb_node *n, const char *dotted, struct str key);

/* ---- what a container's description needs from outside ---- */
struct spec_env {
        void *arg;
        /* Data of a ConfigMap or Secret: kind "ConfigMap" or "Secret". NULL: there is none of that name. */
        const struct pb_node *(*object)(void *arg, const char *kind, struct str name);
        /* Appends NAME=value variables of the Services that the pod sees. */
        void (*services)(void *arg, void (*add)(void *out, struct str name, struct str value), void *out);
        struct str node_name, host_ip, pod_ip;
        int64_t node_cpu_milli, node_memory_bytes;
};

/* Why a container cannot be made; `reason` is a waiting reason ("CreateContainerConfigError"). */
struct spec_error {
        const char *reason;
        struct buf text;
};

/* Fills user, groups, arguments, environment, working directory, capabilities, limits of `out` from container `c` of `pod`. Mounts, paths
 * and cgroup are the caller's. Strings live in `a`. */
bool spec_container(const struct pb_node *pod, const struct pb_node *c, const struct spec_env *env, struct arena *a,
                    struct oci_container *out, struct spec_error *error);
/* What this node does not offer, by name: "spec.hostNetwork: …". False with the text in `error`. */
bool spec_supported(const struct pb_node *pod, struct buf *error);

/* A pod field as the downward API shows it ("metadata.labels['app']"). False: not such a field. */
bool spec_field(const struct pb_node *pod, const struct spec_env *env, struct str path, struct arena *a, struct str *value);
/* "limits.cpu" of container `c`, divided by `divisor` ("" for 1). */
bool spec_resource(const struct pb_node *c, const struct spec_env *env, struct str resource, struct str divisor, struct arena *a,
                   struct str *value);
/* RFC 4648 base64 of a Secret's data. False: not base64. */
bool spec_base64(struct str text, struct buf *out);

/* $(NAME) with the variables of `vars` ("NAME=value"); $$ is $; an unknown name stays as written. */
struct str spec_expand(struct str text, const char *const *vars, size_t n, struct arena *a);

#endif
