/* The three kinds of patch on a pod. The input is {"original":…,"patch":…}. The original must stay as it was. */
#include "kube/patch.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct pb_node *in = NULL;
        struct diags d;
        struct arena a;

        kube_kinds_init();
        arena_init(&a, 0);
        diags_init(&d);
        if (pb_parse_json(str_make((const char *)data, n), STR("f"), &a, &in, &d) && pb_get(in, "original") && pb_get(in, "patch")) {
                struct pb_node *original = pb_get(in, "original"), *patch = pb_get(in, "patch"), *before = pb_clone(&a, original);
                struct str why = STR("");

                kube_patch_merge(original, patch, &a);
                if (!kube_patch_json(original, patch, &a, &why) && !why.n)
                        abort();
                why = STR("");
                if (!kube_patch_strategic(original, patch, pb_type(STR("k8s.io.api.core.v1.Pod")), &a, &why) && !why.n)
                        abort();
                if (!pb_node_eq(original, before))
                        abort();
        }
        diags_fini(&d);
        arena_fini(&a);
        return 0;
}
