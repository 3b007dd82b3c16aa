/* The strict parser, case by case. Each head is fed whole and then byte by byte: the verdict must be the same. */
#include "base/arena.h"
#include "base/mem.h"
#include "http/h1_parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct h1_limits limits = { .max_bytes = 60 * 1024, .max_headers = 100 };

struct got {
        enum h1_result r;
        int answer;
        const char *details;
        struct h1_parser p;
        struct http_head m;
};

/* Feeds `wire` in steps of `step` bytes. */
static struct got parse(struct arena *a, enum h1_kind kind, const char *wire, size_t n, size_t step, const struct h1_limits *l,
                        bool absolute)
{
        struct got g = { .r = H1_MORE };
        char *run = arena_dup(a, wire, n);

        h1_parser_init(&g.p, kind);
        http_head_init(&g.m, a);
        for (size_t have = step < n ? step : n; g.r == H1_MORE; have = have + step < n ? have + step : n) {
                /* A copy of exactly this many bytes, so that a read beyond them shows. */
                char *exact = mem_dup(run, have);

                g.r = h1_parse(&g.p, l, exact, have, &g.m);
                memcpy(run, exact, have);
                free(exact);
                if (have == n)
                        break;
        }
        if (g.r == H1_DONE) {
                char *base = arena_dup(a, run, g.p.at);

                if (!h1_parser_finish(&g.p, base, &g.m, absolute, false))
                        g.r = H1_FAIL;
        }
        g.answer = g.p.answer;
        g.details = g.p.details;
        return g;
}

#define CRLF   "\r\n"
#define OKHEAD "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST   "POST / HTTP/1.1\r\nHost: a\r\n"

/* want 0: accepted; otherwise the status of the answer. */
static const struct {
        const char *wire;
        int want;
        const char *details;
} requests[] = {
        { OKHEAD CRLF, 0, NULL },
        { "\r\n\r\n" OKHEAD CRLF, 0, NULL },
        { "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 0, NULL },
        { "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 0, NULL },
        { "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", 0, NULL },
        { "GET / HTTP/1.1\r\nHost:\r\n\r\n", 0, NULL },
        { OKHEAD "X:\t y \t\r\n\r\n", 0, NULL },
        { OKHEAD "X: \x80\xff\r\n\r\n", 0, NULL },
        { OKHEAD "X_y!#$%&'*+-.^`|~9: c\r\n\r\n", 0, NULL },
        { POST "Content-Length: 0\r\n\r\n", 0, NULL },
        { POST "Content-Length: 3\r\n\r\n", 0, NULL },
        { POST "Transfer-Encoding: CHUNKED\r\n\r\n", 0, NULL },
        { "GET /a\"<>{}|\\^` HTTP/1.1\r\nHost: a\r\n\r\n", 0, NULL },
        /* start lines */
        { "GARBAGE\r\n\r\n", 400, "http1.codec_error" },
        { "GET /\r\n", 426, "low_version" },
        { "GET / HTTP/1.0\r\nHost: a\r\n\r\n", 426, "low_version" },
        { "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 426, "low_version" },
        { "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 426, "low_version" },
        { "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 426, "low_version" },
        { "GET / http/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET / HTTP/11\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET / HTTP/1.1\nHost: a\n\n", 400, "http1.codec_error" },
        { "GET / HTTP/1.1\r\rHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET /a\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        /* targets and authorities */
        { "GET b.com/x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.invalid_url" },
        { "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.invalid_url" },
        { "GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.invalid_scheme" },
        { "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.invalid_url" },
        { "CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.invalid_url" },
        { "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.invalid_url" },
        { "CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.invalid_url" },
        { "CONNECT a:70000 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.invalid_url" },
        { "CONNECT u@a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http1.invalid_url" },
        { "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "http.invalid_authority" },
        { "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "http.invalid_authority" },
        { "GET / HTTP/1.1\r\n\r\n", 400, "missing_host_header" },
        { "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "http1.codec_error" },
        { "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "http1.codec_error" },
        /* field lines */
        { OKHEAD "X : b\r\n\r\n", 400, "http1.codec_error" },
        { OKHEAD "X\t: b\r\n\r\n", 400, "http1.codec_error" },
        { OKHEAD ": b\r\n\r\n", 400, "http1.codec_error" },
        { OKHEAD "abc\r\n\r\n", 400, "http1.codec_error" },
        { OKHEAD "X(y: c\r\n\r\n", 400, "http1.codec_error" },
        { OKHEAD "X\x80: c\r\n\r\n", 400, "http1.codec_error" },
        { OKHEAD "X: b\r\n c\r\n\r\n", 400, "http1.codec_error" },
        { OKHEAD "X: b\r\n\tc\r\n\r\n", 400, "http1.codec_error" },
        { OKHEAD " X: b\r\n\r\n", 400, "http1.codec_error" },
        { "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "http1.codec_error" },
        { OKHEAD "X: b\n\r\n", 400, "http1.codec_error" },
        { OKHEAD "X: b\r\n\n", 400, "http1.codec_error" },
        { OKHEAD "X: b\rc\r\n\r\n", 400, "http1.invalid_characters" },
        { OKHEAD "X: b\r\rc\r\n\r\n", 400, "http1.invalid_characters" },
        { OKHEAD "X: b\x01"
                 "c\r\n\r\n",
          400, "http1.invalid_characters" },
        { OKHEAD "X: b\x7f"
                 "c\r\n\r\n",
          400, "http1.invalid_characters" },
        { OKHEAD "X: 0123456789abcdef0123456789abcdef\x02\r\n\r\n", 400, "http1.invalid_characters" },
        /* framing */
        { POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "http1.content_length_and_chunked_not_allowed" },
        { POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400, "http1.content_length_and_chunked_not_allowed" },
        { POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", 400, "http1.codec_error" },
        { POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", 400, "http1.codec_error" },
        { POST "Content-Length: 3, 3\r\n\r\n", 400, "http1.codec_error" },
        { POST "Content-Length: +3\r\n\r\n", 400, "http1.codec_error" },
        { POST "Content-Length: -3\r\n\r\n", 400, "http1.codec_error" },
        { POST "Content-Length: 0x3\r\n\r\n", 400, "http1.codec_error" },
        { POST "Content-Length: 3 4\r\n\r\n", 400, "http1.codec_error" },
        { POST "Content-Length:\r\n\r\n", 400, "http1.codec_error" },
        { POST "Content-Length: 1e3\r\n\r\n", 400, "http1.codec_error" },
        { POST "Content-Length: 99999999999999999999\r\n\r\n", 400, "http1.codec_error" },
        { POST "Transfer-Encoding: gzip\r\n\r\n", 501, "http1.invalid_transfer_encoding" },
        { POST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "http1.invalid_transfer_encoding" },
        { POST "Transfer-Encoding: chunked, identity\r\n\r\n", 501, "http1.invalid_transfer_encoding" },
        { POST "Transfer-Encoding: identity\r\n\r\n", 501, "http1.invalid_transfer_encoding" },
        { POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501, "http1.invalid_transfer_encoding" },
        { POST "Transfer-Encoding: xchunked\r\n\r\n", 501, "http1.invalid_transfer_encoding" },
        { POST "Transfer-Encoding: \"chunked\"\r\n\r\n", 501, "http1.invalid_transfer_encoding" },
        { POST "Transfer-Encoding: chunked;q=1\r\n\r\n", 501, "http1.invalid_transfer_encoding" },
        { POST "Transfer-Encoding:\r\n\r\n", 501, "http1.invalid_transfer_encoding" },
        { POST "Transfer-Encoding: \x0b"
               "chunked\r\n\r\n",
          400, "http1.invalid_characters" },
        { "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 426, "low_version" },
};

static void check_request(const char *wire, size_t n, size_t step, int want, const char *details)
{
        struct arena a;

        arena_init(&a, 0);
        struct got g = parse(&a, H1_REQUEST, wire, n, step, &limits, true);

        if (want == 0 && g.r != H1_DONE)
                fail_msg("refused (%d %s), step %zu: %s", g.answer, g.details ? g.details : "?", step, wire);
        if (want && (g.r != H1_FAIL || g.answer != want || (details && strcmp(g.details, details))))
                fail_msg("result %d, answer %d %s instead of %d %s, step %zu: %s", g.r, g.answer, g.details ? g.details : "?", want,
                         details, step, wire);
        arena_fini(&a);
}

static void test_requests(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
                size_t n = strlen(requests[i].wire);

                check_request(requests[i].wire, n, n, requests[i].want, requests[i].details);
                check_request(requests[i].wire, n, 1, requests[i].want, requests[i].details);
                check_request(requests[i].wire, n, 7, requests[i].want, requests[i].details);
        }
        static const char nul[] = OKHEAD "X: a\0b\r\n\r\n", nul_target[] = "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n";

        check_request(nul, sizeof(nul) - 1, 1, 400, "http1.invalid_characters");
        check_request(nul_target, sizeof(nul_target) - 1, 1, 400, "http1.codec_error");
}

/* Every control byte, everywhere it may not be. */
static void test_controls(void **state)
{
        for (int c = 0; c < 256; c++) {
                char wire[64];
                bool in_value = c == '\t' || (c >= 0x20 && c != 0x7f);
                int n = snprintf(wire, sizeof(wire), OKHEAD "X: aaaaaaaaaaaaaaaaaa?b\r\n\r\n");

                *strchr(wire, '?') = (char)c;
                check_request(wire, (size_t)n, (size_t)n, in_value ? 0 : 400, NULL);
                n = snprintf(wire, sizeof(wire), "GET /? HTTP/1.1\r\nHost: a\r\n\r\n");
                *strchr(wire, '?') = (char)c;
                bool in_target = c > 0x20 && c < 0x7f;

                if (c != ' ')
                        check_request(wire, (size_t)n, (size_t)n, in_target ? 0 : 400, NULL);
        }
}

static void test_fields(void **state)
{
        static const char wire[] =
                "POST http://b.example:81?q HTTP/1.1\r\nHOST: a\r\nX-Request-ID:  one two \t\r\nFoo-Bar:\r\nCONTENT-LENGTH: 42\r\n"
                "Connection: keep-alive, Foo-Bar , X-Forwarded-For\r\nX-Forwarded-For: 1.2.3.4\r\n\r\nbody";
        struct arena a;

        arena_init(&a, 0);
        struct got g = parse(&a, H1_REQUEST, wire, sizeof(wire) - 1, 1, &limits, true);

        assert_int_equal(g.r, H1_DONE);
        assert_int_equal(g.p.at, sizeof(wire) - 1 - 4);
        assert_true(str_eqc(g.m.method, "POST"));
        assert_true(str_eqc(g.m.scheme, "http"));
        assert_true(str_eqc(g.m.authority, "b.example:81"));
        assert_true(str_eqc(g.m.path, "/?q"));
        assert_int_equal(g.m.content_length, 42);
        assert_null(http_get(&g.m, HN_HOST));
        assert_true(str_eqc(http_get(&g.m, HN_X_REQUEST_ID)->value, "one two"));
        assert_true(str_eqc(http_get(&g.m, HN_X_REQUEST_ID)->name, "x-request-id"));
        assert_null(http_get_name(&g.m, STR("foo-bar")));                           /* nominated */
        assert_true(str_eqc(http_get(&g.m, HN_X_FORWARDED_FOR)->value, "1.2.3.4")); /* cannot be nominated */
        assert_true(g.p.keep_alive);
        arena_fini(&a);
}

static void test_limits(void **state)
{
        struct h1_limits l = { .max_bytes = 200, .max_headers = 3 };
        char wire[512];
        struct arena a;

        arena_init(&a, 0);
        int n = snprintf(wire, sizeof(wire), OKHEAD "X: %0250d\r\n\r\n", 1);
        struct got g = parse(&a, H1_REQUEST, wire, (size_t)n, 1, &l, true);

        assert_int_equal(g.r, H1_FAIL);
        assert_int_equal(g.answer, 431);
        assert_string_equal(g.details, "http1.headers_too_large");
        g = parse(&a, H1_REQUEST, wire, (size_t)n, (size_t)n, &l, true);
        assert_int_equal(g.answer, 431);
        n = snprintf(wire, sizeof(wire), "GET /%0250d", 1);
        g = parse(&a, H1_REQUEST, wire, (size_t)n, 1, &l, true);
        assert_int_equal(g.answer, 431);
        n = snprintf(wire, sizeof(wire), OKHEAD "A: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n");
        g = parse(&a, H1_REQUEST, wire, (size_t)n, (size_t)n, &l, true);
        assert_int_equal(g.answer, 431);
        assert_string_equal(g.details, "http1.too_many_headers");
        arena_fini(&a);
}

static void test_http_10(void **state)
{
        struct h1_limits l = { .max_bytes = 1000, .max_headers = 30, .accept_http_10 = true, .custom_methods = true };
        struct arena a;
        static const char plain[] = "FOO / HTTP/1.0\r\n\r\n", te[] = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";

        arena_init(&a, 0);
        struct got g = parse(&a, H1_REQUEST, plain, sizeof(plain) - 1, 1, &l, true);

        assert_int_equal(g.r, H1_DONE);
        assert_int_equal(g.m.version, HTTP_1_0);
        g = parse(&a, H1_REQUEST, te, sizeof(te) - 1, 1, &l, true);
        assert_int_equal(g.r, H1_FAIL);
        arena_fini(&a);
}

static const struct {
        const char *wire;
        int status; /* 0: refused */
} responses[] = {
        { "HTTP/1.1 200 OK\r\n\r\n", 200 },
        { "HTTP/1.1 200\r\n\r\n", 200 },
        { "HTTP/1.1 200 \r\n\r\n", 200 },
        { "HTTP/1.0 404 Not \x80 Found\r\nA: b\r\n\r\n", 404 },
        { "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 0 },
        { "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 0 },
        { "HTTP/1.1 200 OK\n\n", 0 },
        { "HTTP/1.1 2000 OK\r\n\r\n", 0 },
        { "HTTP/1.1 20 OK\r\n\r\n", 0 },
        { "HTTP/1.1  200 OK\r\n\r\n", 0 },
        { "HTTP/1.1 000 OK\r\n\r\n", 0 },
        { "HTTP/2 200 OK\r\n\r\n", 0 },
        { "\r\nHTTP/1.1 200 OK\r\n\r\n", 0 },
        { "ICY 200 OK\r\n\r\n", 0 },
        { "HTTP/1.1 200 O\rK\r\n\r\n", 0 },
};

static void test_responses(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(responses); i++) {
                for (size_t step = 1; step < 100; step += 98) {
                        struct arena a;

                        arena_init(&a, 0);
                        struct got g = parse(&a, H1_RESPONSE, responses[i].wire, strlen(responses[i].wire), step, &limits, false);

                        if (responses[i].status ? g.r != H1_DONE || g.m.status != responses[i].status : g.r != H1_FAIL)
                                fail_msg("result %d status %d: %s", g.r, g.m.status, responses[i].wire);
                        arena_fini(&a);
                }
        }
}

static void test_trailers(void **state)
{
        static const struct {
                const char *wire;
                bool ok;
        } t[] = {
                { "\r\n", true },
                { "Grpc-Status: 0\r\n\r\n", true },
                { "Content-Length: 3\r\n\r\n", false },
                { "Transfer-Encoding: chunked\r\n\r\n", false },
                { "Host: a\r\n\r\n", false },
                { "A: b\n\r\n", false },
                { " A: b\r\n\r\n", false },
        };

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct arena a;

                arena_init(&a, 0);
                struct got g = parse(&a, H1_TRAILERS, t[i].wire, strlen(t[i].wire), 1, &limits, false);

                assert_int_equal(g.r, t[i].ok ? H1_DONE : H1_FAIL);
                arena_fini(&a);
        }
}

/* Runs a chunked body through in steps; the data in `out`. */
static enum h1_chunk_event dechunk(const char *wire, size_t n, size_t step, char *out, size_t *consumed)
{
        struct h1_chunk k = { 0 };
        size_t at = 0, used;

        for (;;) {
                size_t have = n - at < step ? n - at : step;
                enum h1_chunk_event e = h1_chunk_feed(&k, wire + at, have, &used);

                at += used;
                if (e == H1_CHUNK_DATA) {
                        size_t take = n - at < k.left ? n - at : (size_t)k.left;

                        if (!take)
                                return H1_CHUNK_MORE;
                        memcpy(out, wire + at, take);
                        out += take;
                        *out = '\0';
                        at += take;
                        k.left -= take;
                } else if (e != H1_CHUNK_MORE || at == n) {
                        *consumed = at;
                        return e;
                }
        }
}

static void test_chunks(void **state)
{
        static const struct {
                const char *wire;
                enum h1_chunk_event want;
                const char *data;
        } t[] = {
                { "3\r\nabc\r\n0\r\n", H1_CHUNK_LAST, "abc" },
                { "3\r\nabc\r\n00002\r\nde\r\n000\r\n", H1_CHUNK_LAST, "abcde" },
                { "3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n", H1_CHUNK_LAST, "abc" },
                { "A\r\n0123456789\r\n0\r\n", H1_CHUNK_LAST, "0123456789" },
                { "a\r\n0123456789\r\n", H1_CHUNK_MORE, "0123456789" },
                { "\r\nabc", H1_CHUNK_FAIL, "" },
                { ";a\r\nabc", H1_CHUNK_FAIL, "" },
                { "x\r\nabc", H1_CHUNK_FAIL, "" },
                { "0x3\r\nabc", H1_CHUNK_FAIL, "" },
                { "+3\r\nabc", H1_CHUNK_FAIL, "" },
                { "-3\r\nabc", H1_CHUNK_FAIL, "" },
                { " 3\r\nabc", H1_CHUNK_FAIL, "" },
                { "3 \r\nabc", H1_CHUNK_FAIL, "" },
                { "3\nabc", H1_CHUNK_FAIL, "" },
                { "3\r\rabc", H1_CHUNK_FAIL, "" },
                { "3\r\nabcd\r\n", H1_CHUNK_FAIL, "abc" },
                { "3\r\nabc\n0\r\n", H1_CHUNK_FAIL, "abc" },
                { "3\r\nabc0\r\n", H1_CHUNK_FAIL, "abc" },
                { "3;a\nb\r\nabc", H1_CHUNK_FAIL, "" },
                { "3;a\x01\r\nabc", H1_CHUNK_FAIL, "" },
                { "ffffffffffffffff\r\n", H1_CHUNK_FAIL, "" },
                { "10000000000000003\r\nabc", H1_CHUNK_FAIL, "" },
                { "0000000000000003\r\nabc", H1_CHUNK_FAIL, "" },
        };

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                for (size_t step = 1; step < 50; step += 24) {
                        char out[64] = "";
                        size_t used;
                        enum h1_chunk_event e = dechunk(t[i].wire, strlen(t[i].wire), step, out, &used);

                        if (e != t[i].want || strcmp(out, t[i].data))
                                fail_msg("event %d data '%s': %s", e, out, t[i].wire);
                }
        }
        /* Extensions are bounded over the whole message. */
        struct h1_chunk k = { 0 };
        enum h1_chunk_event e = H1_CHUNK_MORE;
        size_t used, n = 0;

        while (e != H1_CHUNK_FAIL && n++ < 10000) {
                e = h1_chunk_feed(&k, "1;abcdefgh\r\nx\r\n", 12, &used);
                if (e == H1_CHUNK_DATA) {
                        k.left--;
                        e = h1_chunk_feed(&k, "\r\n", 2, &used);
                }
        }
        assert_int_equal(e, H1_CHUNK_FAIL);
        assert_in_range(n, 400, 600);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_requests), cmocka_unit_test(test_controls), cmocka_unit_test(test_fields),
                cmocka_unit_test(test_limits),   cmocka_unit_test(test_http_10),  cmocka_unit_test(test_responses),
                cmocka_unit_test(test_trailers), cmocka_unit_test(test_chunks),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
