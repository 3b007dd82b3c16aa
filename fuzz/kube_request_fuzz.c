/* The words of a request: a path, a query, and the selectors in it. The first line is the path, the second the query. */
#include "kube/request.h"
#include "kube/selector.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct str all = str_make((const char *)data, n), path = STR(""), why = STR("");
        struct kube_selector s;
        struct kube_path p;
        struct arena a;

        arena_init(&a, 0);
        struct kube_query *q = ARENA_NEW(&a, struct kube_query);
        str_next(&all, '\n', &path);
        if (kube_path_parse(path, &a, &p))
                for (unsigned i = 0; i < p.nseg; i++) /* nothing that could lead elsewhere ever comes out */
                        if (!p.seg[i].n || str_chr(p.seg[i], '/') >= 0 || str_eqc(p.seg[i], "..") || str_chr(p.seg[i], 0) >= 0)
                                abort();
        if (kube_query_parse(all, &a, q))
                for (unsigned i = 0; i < q->n; i++) {
                        if (!kube_labels_parse(q->v[i].value, &a, &s, &why) && !why.n)
                                abort();
                        if (!kube_fields_parse(q->v[i].value, "spec.nodeName status.phase", &a, &s, &why) && !why.n)
                                abort();
                }
        arena_fini(&a);
        return 0;
}
