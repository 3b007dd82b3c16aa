/* Shared by the validation of the kinds. */
#ifndef MESH_CHECK_H
#define MESH_CHECK_H

#include "mesh/walk.h"

struct check {
        struct diags *d;
        struct str file, resource;
        struct arena scratch;
        size_t errors;
};

/* `n` gives the line (may be NULL), `path` the field. */
void check_error(struct check *c, const struct pb_node *n, const char *path, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void check_warn(struct check *c, const struct pb_node *n, const char *path, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

enum rule {
        RULE_PRESENT, /* required: not absent, not empty */
        RULE_PORT,    /* 1..65535 */
        RULE_PORT_OR_0,
        RULE_HOST,         /* a name, "*" or "*.name" */
        RULE_HOST_NOT_ALL, /* not "*" alone */
        RULE_GATEWAY_HOST, /* [namespace/]host */
        RULE_SIDECAR_HOST, /* namespace/host */
        RULE_ADDRESS,      /* IP or CIDR */
        RULE_DURATION,     /* >= 0 */
        RULE_DURATION_MS,  /* >= 1ms */
        RULE_COUNT,        /* >= 0 */
        RULE_COUNT_1,      /* >= 1 */
        RULE_ENUM,         /* one of `arg`, separated by "|" */
        RULE_PROTOCOL,
        RULE_STATUS,       /* 200..599 */
        RULE_LABEL,        /* a DNS label */
        RULE_NAMESPACE,    /* exportTo */
        RULE_GATEWAY_NAME, /* mesh, name, namespace/name */
        RULE_HEADER_NAME,
        RULE_REGEX,
        RULE_PERCENT,
        RULE_ABSOLUTE_PATH,
};

struct rule_at {
        const char *pattern;
        enum rule rule;
        const char *arg;
};

void check_rules(struct check *c, const struct pb_node *object, const struct rule_at *rules, size_t n);
bool check_host(struct str h, bool wildcard);
bool check_ip(struct str s);
/* Two elements of a list with the same value of `field` (NULL: the elements themselves) are an error. */
void check_unique(struct check *c, const struct pb_node *list, const char *path, const char *field);

/* One a kind, in check_*.c: what rules in a table cannot say. */
void check_virtual_service(struct check *c, const struct pb_node *spec);
void check_gateway(struct check *c, const struct pb_node *spec);
void check_service_entry(struct check *c, const struct pb_node *spec);
void check_destination_rule(struct check *c, const struct pb_node *spec);
void check_sidecar(struct check *c, const struct pb_node *spec);
void check_mesh_config(struct check *c, const struct pb_node *object);

#endif
