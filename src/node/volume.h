/* A pod's volumes: made before its first container, kept up to date while it runs. emptyDir (also in memory), configMap, secret,
 * downwardAPI, projected (those and service account tokens). Every other kind is refused by its name: there is nothing behind it on one
 * machine, and a hostPath would show the host. */
#ifndef NODE_VOLUME_H
#define NODE_VOLUME_H

#include "node/spec.h"

struct volume_ctx {
        const char *disk_dir;   /* STATE/pods/UID/volumes: emptyDirs */
        const char *memory_dir; /* RUN/volumes/UID: what must not touch a disk: secrets, tokens */
        const struct spec_env *env;
        /* A token for the pod's service account. False: not here yet (ask again when it came), or `error` was filled. */
        bool (*token)(void *arg, struct str audience, int64_t expiration_s, struct str *token, struct buf *error);
        void *arg;
};

enum volume_result { VOLUME_READY, VOLUME_WAIT, VOLUME_FAILED };

/* Makes what is missing and brings the contents up to date. FAILED: `error` says which volume and why; ask again when something changed. */
enum volume_result volume_sync(const struct pb_node *pod, const struct volume_ctx *x, struct buf *error);
/* The mounts of container `c`. False: `error`. Appends to *v (arena). */
bool volume_mounts(const struct pb_node *pod, const struct pb_node *c, const struct volume_ctx *x, const char *const *vars, size_t nvars,
                   struct arena *a, struct oci_mount **v, size_t *n, struct spec_error *error);
/* Does any volume (or env of a container) use this ConfigMap or Secret? */
bool volume_uses(const struct pb_node *pod, const char *kind, struct str name);
/* Unmounts and removes both folders. */
void volume_remove(const char *disk_dir, const char *memory_dir);

#endif
