/* The parsers that look at a connection's first bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "proxy/http_inspector.h"
#include "proxy/tls_inspector.h"

#include <stdlib.h>

static unsigned char scratch[TLS_HELLO_MAX];

static void u(struct buf *b, unsigned bytes, size_t v)
{
        while (bytes--)
                buf_char(b, (char)(v >> (8 * bytes)));
}

static void vec(struct buf *b, unsigned bytes, const struct buf *v)
{
        u(b, bytes, v->n);
        buf_append(b, v->p, v->n);
}

/* A ClientHello message (without records) with this SNI ("" none) and these protocols. */
static void hello(struct buf *out, const char *sni, const char *const *alpn, unsigned nalpn)
{
        struct buf body = BUF_INIT, exts = BUF_INIT, e = BUF_INIT, list = BUF_INIT;

        u(&body, 2, 0x0303);
        for (unsigned i = 0; i < 32; i++)
                buf_char(&body, (char)i);
        u(&body, 1, 0);
        u(&body, 2, 2);
        u(&body, 2, 0x1301);
        u(&body, 1, 1);
        u(&body, 1, 0);
        if (*sni) {
                u(&list, 1, 0);
                u(&list, 2, strlen(sni));
                buf_cstr(&list, sni);
                vec(&e, 2, &list);
                u(&exts, 2, 0);
                vec(&exts, 2, &e);
        }
        if (nalpn) {
                e.n = list.n = 0;
                for (unsigned i = 0; i < nalpn; i++) {
                        u(&list, 1, strlen(alpn[i]));
                        buf_cstr(&list, alpn[i]);
                }
                vec(&e, 2, &list);
                u(&exts, 2, 16);
                vec(&exts, 2, &e);
        }
        vec(&body, 2, &exts);
        u(out, 1, 1);
        u(out, 3, body.n);
        buf_append(out, body.p, body.n);
        buf_fini(&body);
        buf_fini(&exts);
        buf_fini(&e);
        buf_fini(&list);
}

static void records(struct buf *out, struct str msg, size_t size)
{
        for (size_t i = 0; i < msg.n; i += size) {
                struct str piece = str_sub(msg, i, size);

                u(out, 1, 22);
                u(out, 2, 0x0301);
                u(out, 2, piece.n);
                buf_str(out, piece);
        }
}

static void test_hello_in_any_pieces(void **state)
{
        static const char *const alpn[] = { "h2", "http/1.1" };
        static const size_t sizes[] = { 1, 2, 3, 5, 17, 64, 100, 16384 };
        struct buf msg = BUF_INIT;

        hello(&msg, "WWW.Example.org", alpn, 2);
        for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
                struct buf wire = BUF_INIT;
                struct tls_hello h;

                records(&wire, buf_view(&msg), sizes[k]);
                for (size_t n = 0; n < wire.n; n++)
                        assert_int_equal(tls_hello_parse(wire.p, n, TLS_HELLO_MAX, scratch, &h), TLS_HELLO_MORE);
                assert_int_equal(tls_hello_parse(wire.p, wire.n, TLS_HELLO_MAX, scratch, &h), TLS_HELLO_OK);
                assert_true(str_eqc(str_make(h.sni, h.sni_len), "www.example.org"));
                assert_int_equal(h.nalpn, 2);
                assert_string_equal(h.alpn[0], "h2");
                assert_string_equal(h.alpn[1], "http/1.1");
                buf_fini(&wire);
        }
        buf_fini(&msg);
}

static void test_no_sni(void **state)
{
        struct buf msg = BUF_INIT, wire = BUF_INIT;
        struct tls_hello h;

        hello(&msg, "", NULL, 0);
        records(&wire, buf_view(&msg), 16384);
        assert_int_equal(tls_hello_parse(wire.p, wire.n, TLS_HELLO_MAX, scratch, &h), TLS_HELLO_OK);
        assert_int_equal(h.sni_len, 0);
        assert_int_equal(h.nalpn, 0);
        buf_fini(&msg);
        buf_fini(&wire);
}

/* Every byte of a good hello changed: whatever comes out, nothing is read or written out of bounds (ASan), and a length that grew is never
 * OK with bytes that are not there. */
static void test_damaged(void **state)
{
        static const char *const alpn[] = { "h2" };
        struct buf msg = BUF_INIT, wire = BUF_INIT;
        struct tls_hello h;

        hello(&msg, "a.example", alpn, 1);
        records(&wire, buf_view(&msg), 40);
        for (size_t i = 0; i < wire.n; i++)
                for (unsigned bit = 0; bit < 8; bit++) {
                        unsigned char *copy = mem_dup(wire.p, wire.n);

                        copy[i] ^= (unsigned char)(1u << bit);
                        tls_hello_parse(copy, wire.n, TLS_HELLO_MAX, scratch, &h);
                        free(copy);
                }
        buf_fini(&msg);
        buf_fini(&wire);
}

static void test_not_tls(void **state)
{
        static const struct {
                const char *p;
                size_t n;
                enum tls_hello_result want;
        } cases[] = {
                { "", 0, TLS_HELLO_MORE },
                { "GET /", 5, TLS_HELLO_NOT_TLS },
                { "\x16\x02", 2, TLS_HELLO_NOT_TLS },
                { "\x16\x03\x01\x00\x05\x02", 6, TLS_HELLO_NOT_TLS },
                { "\x16\x03\x01\x00\x00\x01", 6, TLS_HELLO_BAD },             /* an empty record */
                { "\x16\x03\x01\xff\xff\x01", 6, TLS_HELLO_BAD },             /* a record beyond 2^14 */
                { "\x16\x03\x01\x00\x08\x01\xff\xff\xff", 9, TLS_HELLO_BAD }, /* a message of 16 MiB */
        };
        struct tls_hello h;

        for (size_t i = 0; i < ARRAY_LEN(cases); i++)
                assert_int_equal(tls_hello_parse(cases[i].p, cases[i].n, TLS_HELLO_MAX, scratch, &h), cases[i].want);
}

static void test_http(void **state)
{
        static const struct {
                const char *seen;
                enum http_inspect want;
        } cases[] = {
                { "", HTTP_INSPECT_MORE },
                { "G", HTTP_INSPECT_MORE },
                { "GET", HTTP_INSPECT_MORE },
                { "GET /very/long", HTTP_INSPECT_MORE },
                { "GET / HTTP/1.1\r\n", HTTP_INSPECT_11 },
                { "\r\nGET / HTTP/1.1\r\n", HTTP_INSPECT_11 },
                { "POST /a?b HTTP/1.0\r\nx", HTTP_INSPECT_10 },
                { "GET / HTTP/1.1\n", HTTP_INSPECT_11 },
                { "PRI * HTTP/2.0\r\n\r\nS", HTTP_INSPECT_MORE },
                { "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxx", HTTP_INSPECT_2 },
                { "GET /\r\n", HTTP_INSPECT_OTHER },
                { "get / HTTP/1.1\r\n", HTTP_INSPECT_OTHER },
                { "SSH-2.0", HTTP_INSPECT_OTHER },
                { "\x16\x03", HTTP_INSPECT_OTHER },
                { "GET \x01 HTTP/1.1\r\n", HTTP_INSPECT_OTHER },
                { "X", HTTP_INSPECT_OTHER },
        };
        struct buf b = BUF_INIT;

        for (size_t i = 0; i < ARRAY_LEN(cases); i++)
                assert_int_equal(http_inspect(str_of(cases[i].seen)), cases[i].want);
        buf_cstr(&b, "GET /");
        while (b.n < HTTP_INSPECT_MAX)
                buf_char(&b, 'a');
        assert_int_equal(http_inspect(buf_view(&b)), HTTP_INSPECT_OTHER);
        buf_fini(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_hello_in_any_pieces),
                cmocka_unit_test(test_no_sni),
                cmocka_unit_test(test_damaged),
                cmocka_unit_test(test_not_tls),
                cmocka_unit_test(test_http),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
