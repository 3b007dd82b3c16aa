/* exec and port-forward as kubectl speaks them: raw bytes on one end of a socket pair, the session on the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kube/streams.h"
#include "kube/streams_spdy.h"
#include "kube/streams_spdy_dict.h"
#include "kube/streams_ws.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct world {
        struct loop *loop;
        int fd; /* the client's end */
        enum kube_streams_kind kind;
        struct kube_exec_opts opts;
        struct kube_exec *exec;
        struct buf got, in; /* from the server; what the process read */
        unsigned columns, rows, ready, closed;
        bool in_end, lost, conn_closed, eof;
        uint16_t port;
        z_stream deflate;
};

static void on_ready(struct kube_exec *e, void *arg)
{
        ((struct world *)arg)->ready++;
}

static void take(struct buf *to, struct chain *data)
{
        buf_reserve(to, data->n);
        to->n += chain_peek(data, to->p + to->n, data->n);
        chain_fini(data);
}

static void on_stdin(struct kube_exec *e, void *arg, struct chain *data, bool end)
{
        struct world *w = arg;

        take(&w->in, data);
        w->in_end |= end;
}

static void on_resize(struct kube_exec *e, void *arg, unsigned columns, unsigned rows)
{
        struct world *w = arg;

        w->columns = columns;
        w->rows = rows;
}

static void on_exec_drain(struct kube_exec *e, void *arg)
{
}

static void on_exec_close(struct kube_exec *e, void *arg, bool lost)
{
        struct world *w = arg;

        w->closed++;
        w->lost = lost;
}

static void on_conn_data(struct kube_forward_conn *c, void *arg, struct chain *data, bool end)
{
        struct world *w = arg;
        struct chain echo = CHAIN_INIT;

        take(&w->in, data);
        chain_append(&echo, w->in.p, w->in.n);
        kube_forward_conn_send(c, &echo, end);
}

static void on_conn_drain(struct kube_forward_conn *c, void *arg)
{
}

static void on_conn_close(struct kube_forward_conn *c, void *arg)
{
        ((struct world *)arg)->conn_closed = true;
}

static void on_connection(struct kube_forward *f, void *arg, struct kube_forward_conn *c, uint16_t port)
{
        static const struct kube_forward_conn_ops ops = { on_conn_data, on_conn_drain, on_conn_close };
        struct world *w = arg;

        w->port = port;
        kube_forward_conn_set_ops(c, &ops, w);
        if (port == 81)
                kube_forward_conn_fail(c, STR("refused"));
}

static void on_forward_close(struct kube_forward *f, void *arg)
{
        ((struct world *)arg)->closed++;
}

static void on_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        static const struct kube_exec_ops exec_ops = { on_ready, on_stdin, on_resize, on_exec_drain, on_exec_close };
        static const struct kube_forward_ops forward_ops = { on_connection, on_forward_close };
        struct world *w = arg;
        struct kube_streams_choice choice;
        struct http_head answer;

        http_head_init(&answer, http_stream_arena(s));
        if (!kube_streams_negotiate(m, w->kind, &answer, &choice)) {
                http_send_head(s, &answer, true);
                return;
        }
        http_send_head(s, &answer, false);
        if (w->kind == KUBE_EXEC)
                w->exec = kube_exec_new(s, &choice, &w->opts, &exec_ops, w);
        else
                kube_forward_new(s, &choice, &forward_ops, w);
}

static void no_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        chain_fini(data);
}

static void no_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
}

static void no_drain(struct http_stream *s, void *arg)
{
}

static void no_close(struct http_stream *s, void *arg, enum http_reset reset)
{
}

static void on_http_stream(struct http_conn *c, void *arg, struct http_stream *s)
{
        static const struct http_stream_ops ops = { on_head, no_data, no_trailers, no_drain, no_close };

        http_stream_set_ops(s, &ops, arg);
}

static void ignore_conn(struct http_conn *c, void *arg)
{
}

static void turn(struct world *w)
{
        char t[4096];
        ssize_t n;

        for (int i = 0; i < 10; i++) {
                loop_turn(w->loop, 2);
                while ((n = recv(w->fd, t, sizeof(t), MSG_DONTWAIT)) > 0)
                        buf_append(&w->got, t, (size_t)n);
                w->eof |= n == 0;
        }
}

static void say(struct world *w, const void *p, size_t n)
{
        assert_int_equal(send(w->fd, p, n, MSG_NOSIGNAL), n);
        turn(w);
}

static void world_open(struct world *w, enum kube_streams_kind kind, bool tty, const char *head)
{
        static const struct http_conn_ops ops = {
                .on_stream = on_http_stream, .on_goaway = ignore_conn, .on_idle = ignore_conn, .on_close = ignore_conn
        };
        static const struct conn_ops none;
        static const struct http_opts o;
        int sv[2];

        *w = (struct world){ .loop = loop_new(), .kind = kind, .opts = { .in = true, .out = true, .err = !tty, .tty = tty } };
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
        w->fd = sv[0];
        http_server_h1(conn_accepted(w->loop, sv[1], NULL, NULL, &none, NULL), &o, &ops, w, NULL);
        deflateInit(&w->deflate, 9);
        deflateSetDictionary(&w->deflate, spdy_dict, sizeof(spdy_dict));
        say(w, head, strlen(head));
}

static void world_close(struct world *w)
{
        close(w->fd);
        for (int i = 0; i < 10; i++)
                loop_turn(w->loop, 1);
        deflateEnd(&w->deflate);
        buf_fini(&w->got);
        buf_fini(&w->in);
        loop_free(w->loop);
        chain_thread_fini();
}

static void say_ws(struct world *w, unsigned op, const char *payload, size_t n) /* masked, as a client must */
{
        unsigned char f[256] = { (unsigned char)(0x80 | op), (unsigned char)(0x80 | n), 1, 2, 3, 4 };

        assert_true(n < 126);
        for (size_t i = 0; i < n; i++)
                f[6 + i] = (unsigned char)(payload[i] ^ f[2 + (i & 3)]);
        say(w, f, 6 + n);
}

static bool got(const struct world *w, const void *p, size_t n)
{
        return str_find(buf_view(&w->got), str_make(p, n)) >= 0;
}

#define WS_HEAD(proto)                                                                                             \
        "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" \
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: " proto "\r\n\r\n"
#define SPDY_HEAD(version)                                                                                                      \
        "POST /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: " version "\r\n" \
        "Content-Length: 0\r\n\r\n"

static void test_exec_websocket(void **state)
{
        struct world w;
        struct chain out = CHAIN_INIT;

        world_open(&w, KUBE_EXEC, false, WS_HEAD("v5.channel.k8s.io"));
        assert_true(got(&w, "101", 3));
        assert_true(got(&w, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28)); /* the example of RFC 6455 */
        assert_true(got(&w, "v5.channel.k8s.io", 17));
        assert_int_equal(w.ready, 1);
        say_ws(&w, WS_BINARY, "\0hello", 6);
        assert_true(str_eqc(buf_view(&w.in), "hello"));
        say_ws(&w, WS_BINARY, "\xff\0", 2);
        assert_true(w.in_end);
        say_ws(&w, WS_PING, "hi", 2);
        assert_true(got(&w, "\x8a\x02hi", 4));
        chain_str(&out, STR("answer"));
        kube_exec_write(w.exec, 1, &out);
        chain_str(&out, STR("trouble"));
        kube_exec_write(w.exec, 2, &out);
        kube_exec_finish(w.exec, 3);
        turn(&w);
        assert_true(got(&w,
                        "\x82\x07\x01"
                        "answer",
                        9));
        assert_true(got(&w,
                        "\x82\x08\x02"
                        "trouble",
                        10));
        assert_true(got(&w, "\"reason\":\"ExitCode\",\"message\":\"3\"", 33));
        say_ws(&w, WS_CLOSE, "\x03\xe8", 2);
        world_close(&w);
        assert_int_equal(w.closed, 1);
        assert_false(w.lost);
}

struct bytes {
        const char *p;
        size_t n;
};

static void each_wrong(const struct bytes *t, size_t n, const char *head)
{
        for (size_t i = 0; i < n; i++) {
                struct world w;

                world_open(&w, KUBE_EXEC, false, head);
                say(&w, t[i].p, t[i].n);
                if (!w.eof)
                        fail_msg("case %zu was accepted", i);
                world_close(&w);
                assert_int_equal(w.closed, 1);
        }
}

static void test_wrong(void **state)
{
        static const struct bytes ws[] = {
                { "\x82\x01\x00", 3 },                        /* not masked */
                { "\xc2\x81\1\2\3\4\0", 7 },                  /* reserved bit */
                { "\x80\x81\1\2\3\4\0", 7 },                  /* continues nothing */
                { "\x09\x80\1\2\3\4", 6 },                    /* a fragmented ping */
                { "\x82\xff\x7f\0\0\0\0\0\0\0\1\2\3\4", 14 }, /* far too long */
        };
        static const struct bytes spdy[] = {
                { "\x80\x02\0\1\0\0\0\0", 8 },       /* another version */
                { "\x80\x03\0\1\0\xff\xff\xff", 8 }, /* a huge control frame */
                { "\x80\x03\0\1\0\0\0\1x", 9 },      /* a SYN_STREAM without room for its fields */
                { "\x80\x03\0\1\0\0\0\x0e"
                  "aaaabbbbccdddd",
                  22 },                                  /* headers that do not inflate */
                { "\x7f\xff\xff\xff\0\xff\xff\xff", 8 }, /* a huge data frame */
        };

        each_wrong(ws, ARRAY_LEN(ws), WS_HEAD("v4.channel.k8s.io"));
        each_wrong(spdy, ARRAY_LEN(spdy), SPDY_HEAD("v4.channel.k8s.io"));
}

static void test_refused(void **state)
{
        static const char *const heads[] = {
                WS_HEAD("chat"),
                "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
                "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: short\r\n\r\n",
                SPDY_HEAD("v9.channel.k8s.io"),
        };

        for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
                struct world w;

                world_open(&w, KUBE_EXEC, false, heads[i]);
                assert_true(got(&w, "HTTP/1.1 40", 11));
                world_close(&w);
        }
}

static void put32(unsigned char *p, uint32_t v)
{
        for (int i = 0; i < 4; i++)
                p[i] = (unsigned char)(v >> 8 * (3 - i));
}

static void syn(struct world *w, uint32_t id, const char *const *headers, unsigned n)
{
        unsigned char plain[512], f[1024] = { 0x80, 3, 0, 1 };
        size_t at = 4;

        put32(plain, n);
        for (unsigned i = 0; i < 2 * n; i++) {
                size_t len = strlen(headers[i]);

                put32(plain + at, (uint32_t)len);
                memcpy(plain + at + 4, headers[i], len);
                at += 4 + len;
        }
        put32(f + 8, id);
        w->deflate.next_in = plain;
        w->deflate.avail_in = (uInt)at;
        w->deflate.next_out = f + 18;
        w->deflate.avail_out = sizeof(f) - 18;
        assert_int_equal(deflate(&w->deflate, Z_SYNC_FLUSH), Z_OK);
        size_t total = sizeof(f) - w->deflate.avail_out;

        put32(f + 4, (uint32_t)total - 8);
        say(w, f, total);
}

static void spdy_say(struct world *w, uint32_t id, const char *text, bool fin)
{
        unsigned char f[256];

        put32(f, id);
        put32(f + 4, (uint32_t)strlen(text));
        f[4] = fin;
        memcpy(f + 8, text, strlen(text));
        say(w, f, 8 + strlen(text));
}

static void test_exec_spdy(void **state)
{
        static const char *const types[] = { "error", "stdin", "stdout", "stderr" };
        struct world w;
        struct chain out = CHAIN_INIT;

        world_open(&w, KUBE_EXEC, false, SPDY_HEAD("v4.channel.k8s.io"));
        assert_true(got(&w, "101", 3));
        for (uint32_t i = 0; i < ARRAY_LEN(types); i++) {
                const char *h[] = { "streamtype", types[i] };

                assert_int_equal(w.ready, 0);
                syn(&w, 2 * i + 1, h, 1);
        }
        assert_int_equal(w.ready, 1);
        spdy_say(&w, 3, "in", false);
        spdy_say(&w, 3, "put", true);
        assert_true(str_eqc(buf_view(&w.in), "input") && w.in_end);
        chain_str(&out, STR("out"));
        kube_exec_write(w.exec, 1, &out);
        kube_exec_finish(w.exec, 0);
        turn(&w);
        assert_true(got(&w, "\0\0\0\5\0\0\0\3out", 11));
        assert_true(got(&w, "\"status\":\"Success\"", 18));
        assert_true(got(&w, "\0\0\0\5\1\0\0\0", 8));
        world_close(&w);
        assert_int_equal(w.closed, 1);
        assert_false(w.lost);
}

static void test_exec_terminal(void **state)
{
        static const char *const types[] = { "error", "stdin", "stdout", "resize" };
        struct world w;

        world_open(&w, KUBE_EXEC, true, SPDY_HEAD("v4.channel.k8s.io"));
        for (uint32_t i = 0; i < ARRAY_LEN(types); i++) {
                const char *h[] = { "streamtype", types[i] };

                syn(&w, 2 * i + 1, h, 1);
        }
        assert_int_equal(w.ready, 1);
        spdy_say(&w, 7, "{\"Width\":120,", false);
        spdy_say(&w, 7, "\"Height\":40}\n", false);
        assert_int_equal(w.columns, 120);
        assert_int_equal(w.rows, 40);
        kube_exec_abort(w.exec);
        turn(&w);
        world_close(&w);
        assert_int_equal(w.closed, 1);
        assert_true(w.lost && w.in_end);
}

static void test_forward(void **state)
{
        const char *error[] = { "streamtype", "error", "port", "80", "requestid", "0" },
                   *data[] = { "streamtype", "data", "port", "80", "requestid", "0" };
        const char *error1[] = { "streamtype", "error", "port", "81", "requestid", "1" },
                   *data1[] = { "streamtype", "data", "port", "81", "requestid", "1" };
        struct world w;

        world_open(&w, KUBE_PORT_FORWARD, false, SPDY_HEAD("portforward.k8s.io"));
        syn(&w, 1, error, 3);
        syn(&w, 3, data, 3);
        assert_int_equal(w.port, 80);
        spdy_say(&w, 3, "ping", true);
        assert_true(got(&w, "\0\0\0\3\1\0\0\4ping", 12));
        assert_true(w.conn_closed);
        syn(&w, 5, error1, 3);
        syn(&w, 7, data1, 3);
        assert_true(got(&w, "\0\0\0\5\1\0\0\7refused", 15));
        world_close(&w);
        assert_int_equal(w.closed, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_exec_websocket), cmocka_unit_test(test_wrong),         cmocka_unit_test(test_refused),
                cmocka_unit_test(test_exec_spdy),      cmocka_unit_test(test_exec_terminal), cmocka_unit_test(test_forward),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
