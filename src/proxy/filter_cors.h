/* Cross-origin resource sharing (https://fetch.spec.whatwg.org/#http-cors-protocol): the policy that routes carry. */
#ifndef PROXY_FILTER_CORS_H
#define PROXY_FILTER_CORS_H

#include "proxy/match.h"

struct cors_policy;
struct Xds__CorsPolicy;

/* NULL with diagnostics. */
struct cors_policy *cors_policy_build(struct config_mem *m, const struct Xds__CorsPolicy *p, const struct diag_at *at, struct diags *d);

#endif
