/* YAML: what is read prints as JSON; a tree that came from JSON survives being printed as YAML. */
#include "pb/pb.h"

#include <stdlib.h>

static void round_trip(struct arena *a, struct diags *d, const struct pb_node *n)
{
        struct buf json = BUF_INIT, yaml = BUF_INIT;
        struct pb_node *plain, **docs;
        size_t ndocs;

        pb_node_json(n, &json);
        if (!pb_parse_json(buf_view(&json), STR("j"), a, &plain, d))
                abort(); /* a key twice cannot be: the reader refused it */
        pb_node_yaml(plain, &yaml);
        if (!pb_parse_yaml(buf_view(&yaml), STR("y"), a, &docs, &ndocs, d) || ndocs != 1 || !pb_node_eq(plain, docs[0]))
                abort();
        buf_fini(&json);
        buf_fini(&yaml);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct pb_node **docs;
        struct diags d;
        struct arena a;
        size_t ndocs;

        arena_init(&a, 0);
        diags_init(&d);
        if (pb_parse_yaml(str_make((const char *)data, n), STR("f"), &a, &docs, &ndocs, &d)) {
                for (size_t i = 0; i < ndocs; i++)
                        round_trip(&a, &d, docs[i]);
        } else if (!d.errors) {
                abort();
        }
        diags_fini(&d);
        arena_fini(&a);
        return 0;
}
