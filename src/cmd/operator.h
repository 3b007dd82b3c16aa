/* What the user asked `postern install` for: a profile, an IstioOperator file and --set values, checked and merged into one specification.
 */
#ifndef CMD_OPERATOR_H
#define CMD_OPERATOR_H

#include "istio/operator.pb-c.h"
#include "pb/pb.h"

struct operator_input {
        struct str file;         /* path of an IstioOperator YAML; empty: none */
        const char *const *sets; /* "path=value", in order */
        size_t nsets;
};

struct operator_spec {
        IstioOp__IstioOperatorSpec *spec; /* profile defaults filled in */
        struct pb_node *mesh_config;      /* what was given for meshConfig, as a map; or NULL */
        struct str profile;
};

/* False with diagnostics: an unknown path names the nearest known one, what Postern does not do is refused by its path. Lives in `a`. */
bool operator_load(const struct operator_input *in, struct arena *a, struct operator_spec *out, struct diags *d);

#endif
