/* gRPC calls between our client and our server. */
#include "exchange.h"

#include "http/grpc.h"

struct side {
        struct grpc_call *g;
        struct buf got;
        unsigned messages;
        bool half, ended;
        int status;
        char text[128];
        const char *mode;
};

static struct side srv;
static struct grpc_opts srv_opts;

static void s_message(struct grpc_call *g, void *arg, struct str m)
{
        srv.messages++;
        buf_str(&srv.got, m);
        if (!strcmp(srv.mode, "/t.S/Echo"))
                grpc_send(g, m);
        if (!strcmp(srv.mode, "/t.S/Fail"))
                grpc_finish(g, GRPC_NOT_FOUND, STR("no \"such\" thing: 100%\n"));
}

static void s_half(struct grpc_call *g, void *arg)
{
        srv.half = true;
        if (!strcmp(srv.mode, "/t.S/Silent"))
                return;
        grpc_finish(g, GRPC_OK, STR(""));
}

static void note_end(struct side *s, int status, struct str text)
{
        assert_false(s->ended);
        s->ended = true;
        s->g = NULL;
        s->status = status;
        snprintf(s->text, sizeof(s->text), STR_FMT, STR_ARG(text));
}

static void s_end(struct grpc_call *g, void *arg, int status, struct str text)
{
        note_end(&srv, status, text);
}

static const struct grpc_ops s_ops = { s_message, s_half, NULL, s_end };

static void s_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        static char path[64];

        snprintf(path, sizeof(path), STR_FMT, STR_ARG(m->path));
        srv.mode = path;
        srv.g = grpc_accept(s, m, end, &srv_opts, &s_ops, NULL);
}

static const struct http_stream_ops accept_ops = { .on_head = s_head };

static void on_stream(struct http_conn *c, void *arg, struct http_stream *s)
{
        http_stream_set_ops(s, &accept_ops, NULL);
}

static struct http_conn *client_conn, *server_conn;

static void closed(struct http_conn *c, void *arg)
{
        *(struct http_conn **)arg = NULL;
}

static const struct http_conn_ops server_ops = { .on_stream = on_stream, .on_close = closed }, client_ops = { .on_close = closed };
static const struct conn_ops no_ops;

static void c_message(struct grpc_call *g, void *arg, struct str m)
{
        struct side *c = arg;

        c->messages++;
        buf_str(&c->got, m);
}

static void c_end(struct grpc_call *g, void *arg, int status, struct str text)
{
        note_end(arg, status, text);
}

static const struct grpc_ops c_ops = { .on_message = c_message, .on_end = c_end };

static struct loop *loop;

static void turns(void)
{
        for (int i = 0; i < 30; i++)
                loop_turn(loop, 0);
}

static void open_both(void)
{
        int fds[2];

        loop = loop_new();
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        server_conn = http_server_h2(conn_accepted(loop, fds[0], NULL, NULL, &no_ops, NULL), NULL, &server_ops, &server_conn, NULL);
        client_conn = http_client_h2(conn_accepted(loop, fds[1], NULL, NULL, &no_ops, NULL), NULL, &client_ops, &client_conn);
        srv = (struct side){ 0 };
        srv_opts = (struct grpc_opts){ 0 };
}

static void close_both(void)
{
        if (client_conn)
                http_conn_close(client_conn);
        turns();
        assert_null(server_conn);
        buf_fini(&srv.got);
        loop_free(loop);
        http_thread_fini();
        chain_thread_fini();
}

static void begin(struct side *c, const char *path, const struct grpc_opts *o)
{
        *c = (struct side){ 0 };
        c->g = grpc_call_new(client_conn, STR("a"), str_of(path), o, &c_ops, c);
        assert_non_null(c->g);
}

static void test_echo(void **state)
{
        struct side c;
        char *large = mem_zalloc(300000);

        open_both();
        begin(&c, "/t.S/Echo", NULL);
        grpc_send(c.g, STR("one"));
        turns();
        assert_int_equal(c.messages, 1);
        grpc_send(c.g, STR(""));
        grpc_send(c.g, STR("two"));
        memset(large, 'z', 300000);
        grpc_send(c.g, str_make(large, 300000));
        turns();
        assert_int_equal(c.messages, 4);
        assert_int_equal(c.got.n, 300006);
        assert_false(c.ended);
        grpc_call_half_close(c.g);
        turns();
        assert_true(srv.half && srv.ended && c.ended);
        assert_int_equal(c.status, GRPC_OK);
        assert_int_equal(srv.status, GRPC_OK);
        buf_fini(&c.got);
        close_both();
        free(large);
}

static void test_status(void **state)
{
        struct side c;

        open_both();
        begin(&c, "/t.S/Fail", NULL);
        grpc_send(c.g, STR("x"));
        turns();
        assert_true(c.ended);
        assert_int_equal(c.status, GRPC_NOT_FOUND);
        assert_string_equal(c.text, "no \"such\" thing: 100%\n");
        buf_fini(&c.got);
        close_both();
}

static void test_limits(void **state)
{
        struct side c;

        open_both();
        srv_opts.max_message_bytes = 10;
        begin(&c, "/t.S/Echo", NULL);
        grpc_send(c.g, STR("more than ten bytes"));
        turns();
        assert_true(c.ended);
        assert_int_equal(c.status, GRPC_RESOURCE_EXHAUSTED);
        assert_int_equal(c.messages, 0);
        close_both();
}

static void test_pause(void **state)
{
        struct side c;

        open_both();
        begin(&c, "/t.S/Echo", NULL);
        grpc_send(c.g, STR("1"));
        turns();
        grpc_pause(c.g);
        for (int i = 0; i < 5; i++)
                grpc_send(c.g, STR("2"));
        turns();
        assert_int_equal(c.messages, 1);
        grpc_resume(c.g);
        turns();
        assert_int_equal(c.messages, 6);
        grpc_cancel(c.g);
        turns();
        assert_true(c.ended && srv.ended);
        assert_int_equal(c.status, GRPC_CANCELLED);
        assert_int_equal(srv.status, GRPC_CANCELLED);
        buf_fini(&c.got);
        close_both();
}

static void test_lost(void **state)
{
        struct side c;

        open_both();
        begin(&c, "/t.S/Silent", NULL);
        grpc_send(c.g, STR("1"));
        turns();
        http_conn_close(server_conn);
        turns();
        assert_true(c.ended);
        assert_int_equal(c.status, GRPC_UNAVAILABLE);
        buf_fini(&c.got);
        close_both();
}

static void test_deadline(void **state)
{
        struct side c;

        open_both();
        begin(&c, "/t.S/Silent", &(struct grpc_opts){ .timeout_ms = 10 });
        grpc_call_half_close(c.g);
        for (int i = 0; i < 100 && !c.ended; i++)
                loop_turn(loop, 100);
        assert_true(c.ended);
        assert_int_equal(c.status, GRPC_DEADLINE_EXCEEDED);
        close_both();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_echo),  cmocka_unit_test(test_status), cmocka_unit_test(test_limits),
                cmocka_unit_test(test_pause), cmocka_unit_test(test_lost),   cmocka_unit_test(test_deadline),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
