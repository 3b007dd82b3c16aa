/* Field errors in the words of Kubernetes' own validation, which users search the web for. Internal to the validate*.c files. */
#ifndef KUBE_VALIDATE_H
#define KUBE_VALIDATE_H

#include "kube/api.h"

struct check {
        struct kube_api *api;
        struct arena *a;
        struct kube_error *e;
};

/* A path: `PATH(c, "%s.ports[%zu]", base, i)`. Lives in the arena. */
#define PATH(c, ...) (arena_printf((c)->a, __VA_ARGS__).p)

void check_required(struct check *c, const char *path, const char *detail); /* detail may be "" */
void check_invalid(struct check *c, const char *path, const struct pb_node *value, const char *detail);
void check_invalid_text(struct check *c, const char *path, struct str value, const char *detail);
void check_unsupported(struct check *c, const char *path, struct str value, const char *allowed); /* allowed: space-separated */
void check_duplicate(struct check *c, const char *path, struct str value);
void check_forbidden(struct check *c, const char *path, const char *detail);
void check_not_found(struct check *c, const char *path, struct str value);
void check_too_long(struct check *c, const char *path, size_t max);

/* Common shapes; each says nothing when the value is absent, unless `required`. */
void check_enum(struct check *c, const struct pb_node *map, const char *base, const char *key, const char *allowed);
void check_port(struct check *c, const struct pb_node *map, const char *base, const char *key, bool required);
void check_port_or_name(struct check *c, const struct pb_node *map, const char *base, const char *key, bool required);
void check_not_negative(struct check *c, const struct pb_node *map, const char *base, const char *key);
void check_labels(struct check *c, const struct pb_node *labels, const char *path);
const char *check_port_name(struct str s); /* IANA service name: NULL when fine */
bool check_is_ip(struct str s);
void check_string(struct check *c, const struct pb_node *map, const char *base, const char *key, const char *(*shape)(struct str),
                  bool required);

/* A list of maps that is tolerably shaped, or NULL. */
const struct pb_node *check_list(const struct pb_node *map, const char *key);

void validate_pod_spec(struct check *c, const struct pb_node *spec, const char *base);
void validate_pod_update(struct check *c, const struct pb_node *now, const struct pb_node *old);
void validate_service(struct check *c, const struct pb_node *o, const struct pb_node *old);
void validate_workload(struct check *c, const struct pb_node *o, const struct pb_node *old, bool deployment);
void validate_config(struct check *c, const struct pb_node *o, const struct pb_node *old, bool secret);
void validate_endpoints(struct check *c, const struct pb_node *o);
void validate_endpointslice(struct check *c, const struct pb_node *o, const struct pb_node *old);

#endif
