/* WebSocket framing: whole, and a byte at a time; both must see the same messages. */
#include "base/hash.h"
#include "kube/streams_ws.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void on_message(void *arg, enum ws_opcode op, struct str payload)
{
        uint64_t *sum = arg;

        *sum = hash_bytes(payload.p, payload.n, *sum + op);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        struct ws a = { 0 }, b = { 0 };
        uint64_t sum_a = 0, sum_b = 0;
        struct chain c = CHAIN_INIT;
        int rc_a, rc_b = 0;

        chain_append(&c, p, n);
        rc_a = ws_feed(&a, &c, on_message, &sum_a);
        for (size_t i = 0; i < n && !rc_b; i++) {
                chain_append(&c, p + i, 1);
                rc_b = ws_feed(&b, &c, on_message, &sum_b);
        }
        if (rc_a != rc_b || sum_a != sum_b)
                abort();
        ws_fini(&a);
        ws_fini(&b);
        return 0;
}
