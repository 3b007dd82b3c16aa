/* Bytes of a type (by the first byte): what unpacks, packs, compares, prints and differs from nothing; protobuf-c agrees on what we packed.
 */
#include "fuzz_types.h"
#include "pb/pb.h"

#include <stdlib.h>

static void no_difference(void *arg, struct str path)
{
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct buf wire = BUF_INIT, again = BUF_INIT, json = BUF_INIT;
        struct diags d;
        struct arena a;

        if (n < 1)
                return 0;
        const ProtobufCMessageDescriptor *t = pb_type(str_of(fuzz_types[data[0] % FUZZ_TYPES_N]));

        if (!t)
                abort();
        arena_init(&a, 0);
        diags_init(&d);
        ProtobufCMessage *m = pb_unpack(t, data + 1, n - 1, &a, &d);

        if (m) {
                pb_pack(m, &wire);
                ProtobufCMessage *back = pb_unpack(t, wire.p, wire.n, &a, NULL);

                if (!back)
                        abort();
                pb_pack(back, &again);
                if (!str_eq(buf_view(&wire), buf_view(&again)) || pb_hash(m) != pb_hash(back))
                        abort();
                ProtobufCMessage *theirs = protobuf_c_message_unpack(t, NULL, wire.n, (const uint8_t *)wire.p);

                if (!theirs || !pb_equal(back, theirs))
                        abort();
                protobuf_c_message_free_unpacked(theirs, NULL);
                pb_diff(back, pb_clone_message(back, &a), no_difference, NULL);
                pb_to_json(m, 2, &json);
        } else if (!d.errors) {
                abort();
        }
        buf_fini(&wire);
        buf_fini(&again);
        buf_fini(&json);
        diags_fini(&d);
        arena_fini(&a);
        return 0;
}
