/* Exchanges between our client and our server, HTTP/1.1 and HTTP/2 alike. */
#include "exchange.h"

#define BOTH(name)                                       \
        { #name " h1", name, NULL, NULL, (void *)0 },    \
        {                                                \
#name " h2", name, NULL, NULL, (void *)1 \
        }

static bool is_h2(void **state)
{
        return *state != NULL;
}

static void simple(struct pair *p, const char *method, const char *path, int status, const char *body)
{
        struct call c;

        call_begin(p, &c, method, path, -1, true, NULL, NULL);
        pair_until(p, &c.closed);
        assert_int_equal(c.reset, HTTP_RESET_NONE);
        assert_int_equal(c.status, status);
        assert_true(c.end);
        assert_string_equal(buf_z(&c.body), body);
        call_free(&c);
}

static void test_simple(void **state)
{
        struct pair p = { 0 };

        pair_open(&p, is_h2(state));
        simple(&p, "GET", "/hello", 200, "hello");
        simple(&p, "GET", "/chunked", 200, "hello");
        simple(&p, "GET", "/empty", 200, "");
        simple(&p, "GET", "/204", 204, "");
        simple(&p, "GET", "/304", 304, "");
        simple(&p, "HEAD", "/hello", 200, "");
        simple(&p, "HEAD", "/chunked", 200, "");
        simple(&p, "POST", "/empty", 200, "");
        simple(&p, "GET", "/nowhere", 404, "no");
        simple(&p, "GET", "/hello", 200, "hello");
        pair_settle(&p);
        assert_int_equal(p.idle, 10);
        assert_int_equal(p.client_closed, 0);
        assert_int_equal(p.server_streams, 10);
        pair_close(&p);
}

static void test_interim(void **state)
{
        struct pair p = { 0 };
        struct call c;

        pair_open(&p, is_h2(state));
        call_begin(&p, &c, "GET", "/interim", -1, true, NULL, NULL);
        pair_until(&p, &c.closed);
        assert_int_equal(c.interims, 2);
        assert_int_equal(c.status, 200);
        assert_string_equal(buf_z(&c.body), "after");
        call_free(&c);
        pair_close(&p);
}

static void test_echo(void **state)
{
        struct pair p = { 0 };
        struct call c;

        pair_open(&p, is_h2(state));
        call_begin(&p, &c, "POST", "/echo", is_h2(state) ? 6 : -1, false, NULL, NULL);
        pair_settle(&p);
        assert_int_equal(c.status, 200); /* the response begins before the request ends */
        call_send(&c, "abc", false);
        pair_settle(&p);
        assert_string_equal(buf_z(&c.body), "abc");
        call_send(&c, "def", true);
        pair_until(&p, &c.closed);
        assert_int_equal(c.reset, HTTP_RESET_NONE);
        assert_string_equal(buf_z(&c.body), "abcdef");
        call_free(&c);
        pair_close(&p);
}

static void test_trailers(void **state)
{
        struct pair p = { 0 };
        struct call c;
        struct arena a;
        struct http_head t;

        arena_init(&a, 0);
        pair_open(&p, is_h2(state));
        call_begin(&p, &c, "POST", "/echo", -1, false, "te", "trailers");
        call_send(&c, "abc", false);
        http_head_init(&t, &a);
        http_add_name(&t, STR("x-sum"), STR("9"));
        http_add(&t, HN_GRPC_STATUS, STR("0"));
        http_send_trailers(c.s, &t);
        pair_until(&p, &c.closed);
        assert_int_equal(c.reset, HTTP_RESET_NONE);
        assert_true(c.has_trailers);
        assert_string_equal(buf_z(&c.body), "abc");
        assert_string_equal(buf_z(&c.trailers), "x-sum: 9\ngrpc-status: 0\n");
        call_free(&c);
        pair_close(&p);
        arena_fini(&a);
}

/* 3 MiB through 1 MiB marks: the server is stopped and started again; a paused client holds everything up. */
static void test_back_pressure(void **state)
{
        struct pair p = { .opts = { .high_mark = 65536 } };
        struct call c;

        pair_open(&p, is_h2(state));
        call_begin(&p, &c, "GET", "/big", -1, true, NULL, NULL);
        http_pause(c.s);
        pair_settle(&p);
        size_t before = c.body.n;

        pair_settle(&p);
        assert_int_equal(c.body.n, before);
        assert_true(before < 1024 * 1024);
        http_resume(c.s);
        pair_until(&p, &c.closed);
        assert_int_equal(c.reset, HTTP_RESET_NONE);
        assert_int_equal(c.body.n, 3 * 1024 * 1024);
        call_free(&c);
        pair_close(&p);
}

/* The same the other way: the server's owner is paused, so the client's sends are blocked and drain later. */
static void test_upload_blocked(void **state)
{
        struct pair p = { .opts = { .high_mark = 65536, .h2_initial_window = 65536 }, .server_paused = true };
        char *mib = mem_zalloc(1024 * 1024);
        struct call c;
        struct chain d = CHAIN_INIT;

        memset(mib, 'u', 1024 * 1024);
        pair_open(&p, is_h2(state));
        call_begin(&p, &c, "POST", "/hang", 2 * 1024 * 1024, false, NULL, NULL);
        chain_append(&d, mib, 1024 * 1024);
        http_send_data(c.s, &d, false);
        pair_settle(&p);
        assert_true(http_send_blocked(c.s));
        assert_true(p.server_got == 0);
        assert_int_equal(c.drains, 0);
        http_resume(p.server_stream);
        for (int i = 0; i < 2000 && p.server_got < 1024 * 1024; i++)
                loop_turn(p.loop, 100);
        assert_int_equal(p.server_got, 1024 * 1024);
        assert_int_equal(c.drains, 1);
        assert_false(http_send_blocked(c.s));
        http_reset(c.s, HTTP_RESET_LOCAL);
        pair_until(&p, &c.closed);
        assert_int_equal(c.reset, HTTP_RESET_LOCAL);
        call_free(&c);
        pair_close(&p);
        free(mib);
}

static void test_resets(void **state)
{
        static const char *paths[] = { "/reset", "/half" };

        for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
                struct pair p = { 0 };
                struct call c;

                pair_open(&p, is_h2(state));
                call_begin(&p, &c, "GET", paths[i], -1, true, NULL, NULL);
                pair_until(&p, &c.closed);
                assert_int_not_equal(c.reset, HTTP_RESET_NONE);
                if (is_h2(state))
                        assert_int_equal(c.reset, HTTP_RESET_REMOTE);
                else
                        assert_int_equal(c.reset, HTTP_RESET_CONN_CLOSED);
                assert_int_equal(p.server_reset, HTTP_RESET_LOCAL);
                call_free(&c);
                pair_close(&p);
        }
}

static void test_client_gone(void **state)
{
        struct pair p = { 0 };
        struct call c;

        pair_open(&p, is_h2(state));
        call_begin(&p, &c, "GET", "/hang", -1, true, NULL, NULL);
        pair_settle(&p);
        assert_non_null(p.server_stream);
        http_reset(c.s, HTTP_RESET_LOCAL);
        pair_settle(&p);
        assert_null(p.server_stream);
        assert_int_equal(p.server_reset, is_h2(state) ? HTTP_RESET_REMOTE : HTTP_RESET_CONN_CLOSED);
        call_free(&c);
        pair_close(&p);
}

static void test_upgrade(void **state)
{
        struct pair p = { .opts = { .h2_connect_protocol = true } };
        struct call c;

        pair_open(&p, is_h2(state));
        pair_settle(&p);
        call_begin(&p, &c, "GET", "/upgrade", -1, false, ":protocol", "websocket");
        call_send(&c, "early ", false);
        pair_settle(&p);
        assert_int_equal(c.status, 101);
        assert_string_equal(c.protocol, "websocket");
        call_send(&c, "bytes", false);
        pair_settle(&p);
        assert_string_equal(buf_z(&c.body), "early bytes");
        call_send(&c, "!", true);
        pair_until(&p, &c.closed);
        assert_int_equal(c.reset, HTTP_RESET_NONE);
        assert_string_equal(buf_z(&c.body), "early bytes!");
        call_free(&c);
        pair_close(&p);
}

static void test_upgrade_refused(void **state)
{
        struct pair p = { .opts = { .h2_connect_protocol = true } };
        struct call c;

        pair_open(&p, is_h2(state));
        pair_settle(&p);
        call_begin(&p, &c, "GET", "/hello", -1, false, ":protocol", "websocket");
        if (!is_h2(state))
                call_send(&c, "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n", false);
        pair_until(&p, &c.closed);
        assert_int_equal(c.status, is_h2(state) ? 501 : 200); /* there a 2xx would be a grant */
        assert_int_equal(p.server_streams, 1);
        call_free(&c);
        pair_settle(&p);
        pair_close(&p);
}

static void test_connect(void **state)
{
        struct pair p = { 0 };
        struct call c;

        pair_open(&p, is_h2(state));
        p.opts = (struct http_opts){ 0 };
        c = (struct call){ 0 };
        call_begin(&p, &c, "CONNECT", "", -1, false, NULL, NULL);
        pair_settle(&p);
        if (!is_h2(state)) { /* test.example has no port: authority-form wants one */
                assert_int_equal(c.status, 400);
        } else {
                assert_int_equal(c.status, 200);
                call_send(&c, "ping", true);
                pair_until(&p, &c.closed);
                assert_string_equal(buf_z(&c.body), "ping");
        }
        call_free(&c);
        pair_close(&p);
}

/* Draining: what is under way ends well, nothing new begins, the connection closes. */
static void test_drain(void **state)
{
        struct pair p = { 0 };
        struct call c;

        pair_open(&p, is_h2(state));
        call_begin(&p, &c, "POST", "/echo", -1, false, NULL, NULL);
        pair_settle(&p);
        http_conn_drain(p.server);
        pair_settle(&p);
        assert_false(c.closed);
        assert_false(http_client_can_stream(p.client));
        call_send(&c, "last", true);
        pair_until(&p, &c.closed);
        assert_int_equal(c.reset, HTTP_RESET_NONE);
        assert_string_equal(buf_z(&c.body), "last");
        pair_settle(&p);
        assert_int_equal(p.client_closed, 1);
        assert_int_equal(p.server_closed, 1);
        call_free(&c);
        pair_close(&p);
}

/* The owner promises ten bytes and sends five: the peer must see a broken message, not a short one. */
static void test_wrong_length(void **state)
{
        struct pair p = { 0 };
        struct call c;

        pair_open(&p, is_h2(state));
        call_begin(&p, &c, "GET", "/lie", -1, true, NULL, NULL);
        pair_until(&p, &c.closed);
        assert_int_not_equal(c.reset, HTTP_RESET_NONE);
        call_free(&c);
        pair_close(&p);
}

/* A whole answer that a paused client has not taken yet survives the connection's end. */
static void test_paused_over_end(void **state)
{
        struct pair p = { 0 };
        struct call c;

        pair_open(&p, is_h2(state));
        call_begin(&p, &c, "GET", "/hello", -1, true, NULL, NULL);
        http_pause(c.s);
        pair_settle(&p);
        http_conn_close(p.server);
        pair_settle(&p);
        assert_int_equal(p.server_closed, 1);
        assert_false(c.closed);
        assert_int_equal(c.status, 200);
        http_resume(c.s);
        pair_until(&p, &c.closed);
        assert_int_equal(c.reset, HTTP_RESET_NONE);
        assert_string_equal(buf_z(&c.body), "hello");
        pair_settle(&p);
        assert_int_equal(p.client_closed, 1);
        call_free(&c);
        pair_close(&p);
}

static void test_many(void **state)
{
        struct pair p = { 0 };
        struct call c[40];

        pair_open(&p, true);
        for (size_t i = 0; i < ARRAY_LEN(c); i++)
                call_begin(&p, &c[i], "GET", i % 3 ? "/hello" : "/big", -1, true, NULL, NULL);
        for (size_t i = 0; i < ARRAY_LEN(c); i++) {
                pair_until(&p, &c[i].closed);
                assert_int_equal(c[i].reset, HTTP_RESET_NONE);
                assert_int_equal(c[i].body.n, i % 3 ? 5 : 3 * 1024 * 1024);
                call_free(&c[i]);
        }
        pair_close(&p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                BOTH(test_simple),          BOTH(test_interim),         BOTH(test_echo),
                BOTH(test_trailers),        BOTH(test_back_pressure),   BOTH(test_upload_blocked),
                BOTH(test_resets),          BOTH(test_client_gone),     BOTH(test_upgrade),
                BOTH(test_upgrade_refused), BOTH(test_connect),         BOTH(test_drain),
                BOTH(test_wrong_length),    BOTH(test_paused_over_end), cmocka_unit_test(test_many),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
