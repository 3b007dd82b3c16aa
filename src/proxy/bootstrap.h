/* Reading a bootstrap: an Envoy bootstrap file, text merged over it, and the node's identity from the command line. */
#ifndef PROXY_BOOTSTRAP_H
#define PROXY_BOOTSTRAP_H

#include "base/diag.h"
#include "proxy/server.h"

struct Xds__Bootstrap;

/* NULL with diagnostics. The message lives in `a`. */
struct Xds__Bootstrap *bootstrap_load(const struct server_opts *o, struct arena *a, struct diags *d);

/* runtime.c: a number in the bootstrap's static runtime layers ("overload.global_downstream_max_connections"); later layers win. */
bool runtime_number(const struct Xds__Bootstrap *b, const char *key, uint64_t *v);
/* Warnings for keys that nothing here reads. */
void runtime_check(const struct Xds__Bootstrap *b, struct diags *d);

#endif
