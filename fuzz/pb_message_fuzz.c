/* A type (by the first byte) from YAML text: a message that was read has a printed form that reads as an equal message, packs, and comes
 * back from its bytes. */
#include "fuzz_types.h"
#include "pb/pb.h"

#include <stdlib.h>

static void check(const ProtobufCMessageDescriptor *t, const ProtobufCMessage *m, struct arena *a)
{
        struct buf json = BUF_INIT, wire = BUF_INIT, wire2 = BUF_INIT;
        struct pb_node *n;
        struct diags d;

        diags_init(&d);
        pb_to_json(m, 0, &json);
        if (!pb_parse_json(buf_view(&json), STR("j"), a, &n, &d))
                abort();
        /* A printed enum of no known name or an unknown Any may be refused; what is taken must be the same. */
        ProtobufCMessage *again = pb_from_node(t, n, 0, NULL, a, &d);

        if (again) {
                struct buf json2 = BUF_INIT;

                pb_to_json(again, 0, &json2);
                if (!str_eq(buf_view(&json), buf_view(&json2)))
                        abort();
                buf_fini(&json2);
        }
        pb_pack(m, &wire);
        ProtobufCMessage *back = pb_unpack(t, wire.p, wire.n, a, &d);

        if (!back)
                abort();
        pb_pack(back, &wire2);
        if (!str_eq(buf_view(&wire), buf_view(&wire2)) || !pb_equal(back, pb_clone_message(back, a)))
                abort();
        buf_fini(&json);
        buf_fini(&wire);
        buf_fini(&wire2);
        diags_fini(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct pb_node **docs;
        struct diags d;
        struct arena a;
        size_t ndocs;

        if (n < 1)
                return 0;
        const ProtobufCMessageDescriptor *t = pb_type(str_of(fuzz_types[data[0] % FUZZ_TYPES_N]));

        if (!t)
                abort();
        arena_init(&a, 0);
        diags_init(&d);
        if (pb_parse_yaml(str_make((const char *)data + 1, n - 1), STR("f"), &a, &docs, &ndocs, &d) && ndocs) {
                struct diag_at at = { .file = STR("f"), .path = STR("spec") };
                size_t errors = d.errors;
                ProtobufCMessage *m = pb_from_node(t, docs[0], data[0] & 0x80 ? PB_UNKNOWN_WARN : 0, &at, &a, &d);

                if (m)
                        check(t, m, &a);
                else if (d.errors == errors)
                        abort(); /* refused without a word */
        }
        diags_fini(&d);
        arena_fini(&a);
        return 0;
}
