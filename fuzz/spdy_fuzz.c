/* SPDY/3.1 framing, with the header compressor's state kept from block to block. */
#include "kube/streams_spdy.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static bool on_stream(void *arg, uint32_t id, const struct spdy_header *h, unsigned n)
{
        size_t *sum = arg;

        for (unsigned i = 0; i < n; i++)
                for (size_t k = 0; k < h[i].value.n; k++)
                        *sum += (unsigned char)h[i].value.p[k];
        return n & 1;
}

static void on_data(void *arg, uint32_t id, struct str data, bool fin)
{
        size_t *sum = arg;

        for (size_t i = 0; i < data.n; i++)
                *sum += (unsigned char)data.p[i];
}

static void on_reset(void *arg, uint32_t id)
{
}

static void on_goaway(void *arg)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        static const struct spdy_ops ops = { on_stream, on_data, on_reset, on_goaway };
        struct chain out = CHAIN_INIT, in = CHAIN_INIT;
        struct spdy s;
        size_t sum = 0, half = n / 2;

        spdy_init(&s, &out);
        chain_append(&in, p, half);
        if (spdy_feed(&s, &in, &ops, &sum)) {
                chain_append(&in, p + half, n - half);
                spdy_feed(&s, &in, &ops, &sum);
        }
        spdy_fini(&s);
        chain_fini(&out);
        chain_fini(&in);
        return (int)(sum & 0);
}
