/* Adding and removing headers: *_headers_to_add and *_headers_to_remove of routes, virtual hosts, route configurations, weighted clusters
 * and local replies. Compiled once; values may hold format operators. */
#ifndef PROXY_HEADER_OPS_H
#define PROXY_HEADER_OPS_H

#include "http/http.h"
#include "proxy/config_mem.h"
#include "proxy/stream_info.h"

struct header_op;
struct Xds__HeaderValueOption;

struct header_ops {
        struct header_op *add;
        size_t nadd;
        struct str *remove;
        uint16_t *remove_id;
        size_t nremove;
};

/* `field` names the pair in diagnostics: "request_headers" gives ".request_headers_to_add[0]". False with diagnostics. */
bool header_ops_build(struct config_mem *m, struct header_ops *o, struct Xds__HeaderValueOption *const *add, size_t nadd,
                      char *const *remove, size_t nremove, const char *field, const struct diag_at *at, struct diags *d);
/* Removes, then overwrites, then adds; values see the headers as they were before. */
void header_ops_apply(const struct header_ops *o, struct http_head *m, const struct stream_info *si);

#endif
