/* Kubernetes' protobuf bodies, as kubectl creates with them: bytes of anybody into a tree of the kind. */
#include "kube/kinds.h"
#include "kube/wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct arena a;
        struct str why = STR("");

        kube_kinds_init();
        arena_init(&a, 0);
        struct pb_node *o = kube_wire_decode(str_make((const char *)data, n), pb_type(STR("k8s.io.api.apps.v1.Deployment")), &a, &why);
        if (o ? o->kind != PB_MAP : !why.n)
                abort();
        arena_fini(&a);
        return 0;
}
