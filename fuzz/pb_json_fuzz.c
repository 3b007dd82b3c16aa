/* JSON: what is read prints, and what was printed reads back as the same tree. */
#include "pb/pb.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct pb_node *root, *again;
        struct buf out = BUF_INIT;
        struct diags d;
        struct arena a;

        arena_init(&a, 0);
        diags_init(&d);
        if (pb_parse_json(str_make((const char *)data, n), STR("f"), &a, &root, &d)) {
                pb_node_json_indent(root, 1, &out);
                if (!pb_parse_json(buf_view(&out), STR("f"), &a, &again, &d) || !pb_node_eq(root, again) ||
                    !pb_node_eq(root, pb_clone(&a, root)))
                        abort();
        } else if (!d.errors) {
                abort();
        }
        buf_fini(&out);
        diags_fini(&d);
        arena_fini(&a);
        return 0;
}
