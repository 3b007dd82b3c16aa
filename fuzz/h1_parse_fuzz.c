/* Heads of any shape, whole and in pieces: the verdict and the fields must not depend on how the bytes arrive. The first byte chooses the
 * kind of head and the size of the pieces. */
#include "http/h1_parse.h"

#include "base/mem.h"

#include <stdlib.h>

struct result {
        enum h1_result r;
        struct h1_parser p;
        struct http_head m;
};

static void run(struct result *g, struct arena *a, enum h1_kind kind, const char *d, size_t n, size_t step)
{
        static const struct h1_limits l = { .max_bytes = 8192, .max_headers = 20, .accept_http_10 = true, .custom_methods = true };
        char *copy = arena_dup(a, d, n);

        h1_parser_init(&g->p, kind);
        http_head_init(&g->m, a);
        g->r = H1_MORE;
        for (size_t have = 0; g->r == H1_MORE && have < n;) {
                have = n - have < step ? n : have + step;
                char *exact = mem_dup(copy, have); /* so that a read too far is seen */

                g->r = h1_parse(&g->p, &l, exact, have, &g->m);
                memcpy(copy, exact, have);
                free(exact);
        }
        if (g->r == H1_DONE && !h1_parser_finish(&g->p, arena_dup(a, copy, g->p.at), &g->m, true, false))
                g->r = H1_FAIL;
}

static void must(bool ok)
{
        if (!ok)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct result whole, pieces;
        struct arena a;

        if (n < 2 || n > 20000)
                return 0;
        arena_init(&a, 0);
        const char *d = (const char *)data + 1;
        enum h1_kind kind = (enum h1_kind)(data[0] % 3);

        n--;
        run(&whole, &a, kind, d, n, n);
        run(&pieces, &a, kind, d, n, 1 + data[0] / 3 % 40 + (n > 2000 ? n / 50 : 0));
        /* A line that has not ended may be refused sooner or later; what is accepted, and as what, must be the same. */
        must((whole.r == H1_DONE) == (pieces.r == H1_DONE) || whole.p.answer == 431 || pieces.p.answer == 431);
        if (whole.r == H1_DONE && pieces.r == H1_DONE) {
                must(whole.p.at == pieces.p.at && whole.m.n == pieces.m.n && whole.m.content_length == pieces.m.content_length);
                for (unsigned i = 0; i < whole.m.n; i++) {
                        struct http_hdr *x = &whole.m.h[i], *y = &pieces.m.h[i];

                        must(str_eq(x->name, y->name) && str_eq(x->value, y->value));
                        for (size_t k = 0; k < x->value.n; k++)
                                must((unsigned char)x->value.p[k] >= 0x20 || x->value.p[k] == '\t');
                        for (size_t k = 0; k < x->name.n; k++)
                                must(x->name.p[k] > 0x20 && x->name.p[k] < 0x7f && x->name.p[k] != ':');
                }
                must(!(whole.p.chunked && whole.p.content_length >= 0));
        }
        arena_fini(&a);
        return 0;
}
