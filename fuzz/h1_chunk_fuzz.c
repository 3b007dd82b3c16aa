/* Chunked bodies, whole and byte by byte: the same data, the same end. */
#include "http/h1_parse.h"

#include "base/buf.h"

#include <stdlib.h>

static enum h1_chunk_event run(const char *d, size_t n, size_t step, struct buf *out, size_t *consumed)
{
        struct h1_chunk k = { 0 };
        size_t at = 0, used;

        for (;;) {
                size_t have = n - at < step ? n - at : step;
                enum h1_chunk_event e = h1_chunk_feed(&k, d + at, have, &used);

                if (used > have)
                        abort();
                at += used;
                *consumed = at;
                if (e == H1_CHUNK_DATA) {
                        size_t take = n - at < k.left ? n - at : (size_t)k.left;

                        if (!take)
                                return H1_CHUNK_MORE;
                        buf_append(out, d + at, take);
                        at += take;
                        k.left -= take;
                } else if (e != H1_CHUNK_MORE || at == n) {
                        return e;
                }
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct buf a = BUF_INIT, b = BUF_INIT;
        size_t na, nb;
        enum h1_chunk_event ea = run((const char *)data, n, n ? n : 1, &a, &na), eb = run((const char *)data, n, 1, &b, &nb);

        if (ea != eb || na != nb || !str_eq(buf_view(&a), buf_view(&b)))
                abort();
        buf_fini(&a);
        buf_fini(&b);
        return 0;
}
