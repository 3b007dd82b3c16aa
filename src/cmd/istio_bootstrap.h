/* What pilot-agent does before it starts Envoy: from a pod's environment to a bootstrap and the options to run it with. Pure: the
 * environment comes in by a function. */
#ifndef CMD_ISTIO_BOOTSTRAP_H
#define CMD_ISTIO_BOOTSTRAP_H

#include "base/diag.h"

struct istio_env {
        const char *(*get)(void *arg, const char *name); /* an environment variable, or NULL */
        const char *(*at)(void *arg, unsigned i);        /* "NAME=value" of the i-th, or NULL behind the last */
        void *arg;
        struct str labels, annotations; /* the downward API's files ("key=\"value\"" lines); may be empty */
};

struct istio_bootstrap {
        struct str json; /* the bootstrap */
        struct str node_id, service_cluster;
        unsigned concurrency;
        unsigned drain_s, termination_drain_s;
};

/* `role`: "sidecar" or "router". Everything lives in `a`. False with diagnostics that name the variable. */
bool istio_bootstrap_make(const char *role, const char *domain, const char *service_cluster, const struct istio_env *env, struct arena *a,
                          struct istio_bootstrap *out, struct diags *d);

#endif
