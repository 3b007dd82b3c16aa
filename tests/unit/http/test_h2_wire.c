/* The HTTP/2 server against frames made by hand: broken messages, and floods that must end in a closed connection, not in memory. */
#include "exchange.h"

#include <nghttp2/nghttp2.h>

static void frame(struct buf *b, int type, int flags, uint32_t id, const void *p, size_t n)
{
        unsigned char h[9] = { (unsigned char)(n >> 16),  (unsigned char)(n >> 8),  (unsigned char)n,
                               (unsigned char)type,       (unsigned char)flags,     (unsigned char)(id >> 24),
                               (unsigned char)(id >> 16), (unsigned char)(id >> 8), (unsigned char)id };

        buf_append(b, h, 9);
        buf_append(b, p, n);
}

/* A literal field without indexing; names and values below 127 bytes. */
static void field(struct buf *b, const char *name, const char *value)
{
        buf_char(b, 0);
        buf_char(b, (char)strlen(name));
        buf_cstr(b, name);
        buf_char(b, (char)strlen(value));
        buf_cstr(b, value);
}

static void request_fields(struct buf *b, const char *path)
{
        field(b, ":method", "GET");
        field(b, ":scheme", "http");
        field(b, ":authority", "a");
        field(b, ":path", path);
}

static void request(struct buf *b, uint32_t id, const char *path, int flags)
{
        struct buf f = BUF_INIT;

        request_fields(&f, path);
        frame(b, NGHTTP2_HEADERS, flags | NGHTTP2_FLAG_END_HEADERS, id, f.p, f.n);
        buf_fini(&f);
}

static void hello(struct buf *b)
{
        buf_cstr(b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frame(b, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
}

static void open_server(struct pair *p, struct buf *b)
{
        pair_open_server(p, 1);
        hello(b);
}

static void send_all(struct pair *p, struct buf *b)
{
        raw_send(p, b->p, b->n);
        buf_fini(b);
}

/* Looks for a frame of this type on this stream in what came back; returns its first payload word, or -1. */
static int64_t find_frame(const struct buf *b, int type, uint32_t id)
{
        for (size_t i = 0; i + 9 <= b->n;) {
                const unsigned char *h = (const unsigned char *)b->p + i;
                size_t n = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
                uint32_t s = (uint32_t)h[5] << 24 | (uint32_t)h[6] << 16 | (uint32_t)h[7] << 8 | h[8];

                if (h[3] == type && s == id && i + 13 <= b->n)
                        return (int64_t)h[9] << 24 | h[10] << 16 | h[11] << 8 | h[12];
                i += 9 + n;
        }
        return -1;
}

static const struct {
        const char *name[3], *value[3]; /* behind a complete request's pseudo-headers */
        const char *path;
} malformed[] = {
        { { "X-Upper" }, { "a" }, "/hello" },
        { { "connection" }, { "close" }, "/hello" },
        { { "transfer-encoding" }, { "chunked" }, "/hello" },
        { { "upgrade" }, { "x" }, "/hello" },
        { { "te" }, { "gzip" }, "/hello" },
        { { "x y" }, { "a" }, "/hello" },
        { { "x" }, { "a\nb" }, "/hello" },
        { { "x" }, { "a\rb" }, "/hello" },
        { { ":path" }, { "/again" }, "/hello" },
        { { "x", ":method" }, { "a", "GET" }, "/hello" },
        { { ":unknown" }, { "a" }, "/hello" },
        { { ":status" }, { "200" }, "/hello" },
        { { "content-length" }, { "5" }, "/hello" }, /* END_STREAM follows at once */
        { { "content-length", "content-length" }, { "0", "0" }, "/hello" },
        { { "content-length" }, { "-1" }, "/hello" },
        { { ":protocol" }, { "websocket" }, "/hello" }, /* not enabled */
        { { NULL }, { NULL }, "no-slash" },
        { { NULL }, { NULL }, "" },
};

static void test_malformed(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(malformed); i++) {
                struct pair p = { 0 };
                struct buf b = BUF_INIT, f = BUF_INIT, got = BUF_INIT;

                open_server(&p, &b);
                request_fields(&f, malformed[i].path);
                for (int k = 0; k < 3 && malformed[i].name[k]; k++)
                        field(&f, malformed[i].name[k], malformed[i].value[k]);
                frame(&b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 1, f.p, f.n);
                buf_fini(&f);
                request(&b, 3, "/hello", NGHTTP2_FLAG_END_STREAM);
                send_all(&p, &b);
                raw_read(&p, &got);
                if (find_frame(&got, NGHTTP2_RST_STREAM, 1) <= 0 || find_frame(&got, NGHTTP2_HEADERS, 1) >= 0)
                        fail_msg("case %zu was not reset", i);
                if (find_frame(&got, NGHTTP2_HEADERS, 3) < 0)
                        fail_msg("case %zu took the connection along", i);
                assert_int_equal(p.refused, 1);
                buf_fini(&got);
                pair_close(&p);
        }
}

/* Sends `unit` until the server closes, or `max` times; returns whether it closed. The answers are not read, unless `reads`. */
static bool flood(struct pair *p, const struct buf *unit, unsigned max, bool reads)
{
        char t[65536];

        for (unsigned i = 0; i < max && p->server; i++) {
                size_t n = unit->n;
                const char *w = unit->p;

                for (int tries = 0; n && p->server && tries < 100;) {
                        ssize_t k = send(p->raw, w, n, MSG_NOSIGNAL);

                        if (k <= 0) {
                                loop_turn(p->loop, 0);
                                tries++;
                                if (reads && recv(p->raw, t, sizeof(t), 0) == 0)
                                        return true;
                                continue;
                        }
                        w += k;
                        n -= (size_t)k;
                }
                if (i % 16 == 0)
                        loop_turn(p->loop, 0);
                if (reads)
                        while (recv(p->raw, t, sizeof(t), 0) > 0)
                                ;
        }
        pair_settle(p);
        if (reads)
                while (p->server && recv(p->raw, t, sizeof(t), 0) > 0)
                        pair_settle(p);
        return !p->server;
}

static void unit_of(struct buf *b, int kind, unsigned i)
{
        static const unsigned char eight[8], five[5] = { 0, 0, 0, 0, 15 }, one[4] = { 0, 0, 0, 1 }, setting[6] = { 0, 4, 0, 1, 0, 0 };

        switch (kind) {
        case 0:
                frame(b, NGHTTP2_PING, 0, 0, eight, 8);
                break;
        case 1:
                frame(b, NGHTTP2_SETTINGS, 0, 0, setting, 6);
                break;
        case 2:
                frame(b, NGHTTP2_DATA, 0, 1, NULL, 0);
                break;
        case 3:
                frame(b, NGHTTP2_PRIORITY, 0, 1, five, 5);
                break;
        case 4:
                frame(b, NGHTTP2_WINDOW_UPDATE, 0, 0, one, 4);
                break;
        case 5:
                frame(b, NGHTTP2_CONTINUATION, 0, 3, NULL, 0);
                break;
        default:
                break;
        }
}

static void test_floods(void **state)
{
        static const struct {
                int kind;
                bool reads;
        } t[] = { { 0, false }, { 1, false }, { 2, true }, { 3, true }, { 4, true }, { 5, true } };

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct pair p = { 0 };
                struct buf b = BUF_INIT, u = BUF_INIT;

                open_server(&p, &b);
                request(&b, 1, "/hang", 0);
                if (t[i].kind == 5)
                        frame(&b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM, 3, NULL, 0);
                send_all(&p, &b);
                for (int k = 0; k < 64; k++)
                        unit_of(&u, t[i].kind, 0);
                if (!flood(&p, &u, 3000, t[i].reads))
                        fail_msg("flood %d is endless", t[i].kind);
                buf_fini(&u);
                pair_close(&p);
        }
}

/* CVE-2023-44487: requests that are reset at once reach the owner only while the budget lasts. */
static void test_rapid_reset(void **state)
{
        static const unsigned char cancel[4] = { 0, 0, 0, 8 };
        struct pair p = { 0 };
        struct buf b = BUF_INIT, u = BUF_INIT;
        uint32_t id = 1;
        bool over = false;

        open_server(&p, &b);
        send_all(&p, &b);
        for (unsigned i = 0; i < 400 && !over; i++) {
                u.n = 0;
                for (int k = 0; k < 50; k++, id += 2) {
                        request(&u, id, "/hang", NGHTTP2_FLAG_END_STREAM);
                        frame(&u, NGHTTP2_RST_STREAM, 0, id, cancel, 4);
                }
                over = flood(&p, &u, 1, true);
        }
        assert_true(over);
        assert_true(id < 2 * 4000);
        buf_fini(&u);
        pair_close(&p);
}

/* A small block that names one large dynamic entry thousands of times. */
static void test_hpack_bomb(void **state)
{
        struct pair p = { 0 };
        struct buf b = BUF_INIT, f = BUF_INIT, got = BUF_INIT;

        open_server(&p, &b);
        request_fields(&f, "/hello");
        buf_append(&f, "\x40\x01x\x7f\xb1\x1d", 6); /* literal with indexing, name "x", value of 3888 bytes */
        for (int i = 0; i < 3888; i++)
                buf_char(&f, 'v');
        for (int i = 0; i < 12000; i++)
                buf_char(&f, (char)0xbe); /* index 62: the newest entry */
        frame(&b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 1, f.p, f.n);
        buf_fini(&f);
        request(&b, 3, "/hello", NGHTTP2_FLAG_END_STREAM);
        send_all(&p, &b);
        raw_read(&p, &got);
        assert_true(find_frame(&got, NGHTTP2_RST_STREAM, 1) > 0);
        assert_int_equal(p.refused, 1);
        assert_string_equal(p.refused_details, "http2.headers_too_large");
        assert_true(find_frame(&got, NGHTTP2_HEADERS, 3) >= 0); /* the connection goes on */
        buf_fini(&got);
        pair_close(&p);
}

static void test_max_streams(void **state)
{
        struct pair p = { .opts = { .h2_max_streams = 10 } };
        struct buf b = BUF_INIT, got = BUF_INIT;

        open_server(&p, &b);
        frame(&b, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL, 0);
        send_all(&p, &b);
        for (uint32_t i = 0; i < 20; i++)
                request(&b, 1 + 2 * i, "/hang", NGHTTP2_FLAG_END_STREAM);
        send_all(&p, &b);
        raw_read(&p, &got);
        if (p.server) {
                assert_int_equal(http_conn_streams(p.server), 10);
                assert_int_equal(find_frame(&got, NGHTTP2_RST_STREAM, 21), NGHTTP2_REFUSED_STREAM);
        }
        assert_int_equal(p.server_streams, 10);
        buf_fini(&got);
        pair_close(&p);
}

static void test_bad_preface(void **state)
{
        struct pair p = { 0 };

        pair_open_server(&p, 1);
        raw_send(&p, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27);
        pair_settle(&p);
        assert_int_equal(p.server_closed, 1);
        pair_close(&p);
}

/* A client that goes away with requests under way and their data unread. */
static void test_gone(void **state)
{
        struct pair p = { .server_paused = true };
        struct buf b = BUF_INIT;
        static const char data[5000];

        open_server(&p, &b);
        for (uint32_t i = 0; i < 5; i++) {
                request(&b, 1 + 2 * i, "/hang", 0);
                frame(&b, NGHTTP2_DATA, i & 1 ? NGHTTP2_FLAG_END_STREAM : 0, 1 + 2 * i, data, sizeof(data));
        }
        send_all(&p, &b);
        assert_int_equal(p.server_streams, 5);
        close(p.raw);
        p.raw = -1;
        pair_settle(&p);
        assert_int_equal(p.server_ended, 5);
        pair_close(&p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_malformed),  cmocka_unit_test(test_floods),      cmocka_unit_test(test_rapid_reset),
                cmocka_unit_test(test_hpack_bomb), cmocka_unit_test(test_max_streams), cmocka_unit_test(test_bad_preface),
                cmocka_unit_test(test_gone),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
