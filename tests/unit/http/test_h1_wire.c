/* The HTTP/1.1 codec against bytes: what a server answers, word for word, and what a client makes of broken servers. */
#include "exchange.h"

#define HEAD(status) "HTTP/1.1 " status "\r\nx-served: yes\r\n"
#define BAD          "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 11\r\nconnection: close\r\n\r\nBad Request"
#define GET(path)    "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define HELLO        HEAD("200 OK") "content-length: 5\r\n\r\nhello"

/* What comes back for what is sent, and whether the server has ended its side then. */
static const struct {
        const char *send, *want;
        bool ends;
} wire[] = {
        { GET("/hello"), HELLO, false },
        { GET("/hello") GET("/204") GET("/chunked"),
          HELLO HEAD("204 No Content") "\r\n" HEAD("200 OK") "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false },
        { GET("/empty"), HEAD("200 OK") "content-length: 0\r\n\r\n", false },
        { GET("/304"), HEAD("304 Not Modified") "content-length: 77\r\n\r\n", false },
        { "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n", HEAD("200 OK") "content-length: 5\r\n\r\n", false },
        { "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" GET("/hello"),
          HEAD("200 OK") "content-length: 5\r\nconnection: close\r\n\r\nhello", true },
        { GET("/interim"),
          "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" HEAD("200 OK") "content-length: 5\r\n\r\nafter",
          false },
        /* The response is complete before the request: no next one is read. */
        { "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nabc",
          HEAD("200 OK") "content-length: 5\r\nconnection: close\r\n\r\nhello", true },
        { "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nX-T: v\r\n\r\n",
          HEAD("200 OK") "transfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\nx-t: v\r\n\r\n", true },
        /* Refusals. */
        { "GARBAGE\r\n\r\n", BAD, true },
        { "GET / HTTP/1.0\r\n\r\n",
          "HTTP/1.1 426 Upgrade Required\r\ncontent-type: text/plain\r\ncontent-length: 16\r\nconnection: close\r\n\r\nUpgrade Required",
          true },
        { GET("/hello") "GARBAGE\r\n\r\n", HELLO BAD, true },
        { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" GET("/hello"), BAD, true },
        { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
          "HTTP/1.1 501 Not Implemented\r\ncontent-type: text/plain\r\ncontent-length: 15\r\nconnection: close\r\n\r\nNot Implemented",
          true },
        { "POST /hang HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", BAD, true },
        { "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nraw bytes", HEAD("200 OK") "\r\nraw bytes", false },
        { "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo, bar\r\n\r\nraw",
          "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\nraw", false },
        /* An upgrade that is not granted: what follows is a request. */
        { "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n" GET("/empty"),
          HELLO HEAD("200 OK") "content-length: 0\r\n\r\n", false },
        { "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" GET(
                  "/empty"),
          HEAD("404 Not Found") "content-length: 2\r\n\r\nno" HEAD("200 OK") "content-length: 0\r\n\r\n", false },
        /* With a body it is no upgrade. */
        { "POST /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 1\r\n\r\nx",
          HEAD("404 Not Found") "content-length: 2\r\nconnection: close\r\n\r\nno", true },
};

static bool ended(struct pair *p)
{
        char c;

        pair_settle(p);
        return recv(p->raw, &c, 1, MSG_PEEK) == 0;
}

static void test_server(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(wire); i++) {
                for (int step = 0; step < 3; step++) { /* whole; byte by byte; through protocol detection */
                        struct pair p = { 0 };
                        struct buf b = BUF_INIT;

                        pair_open_server(&p, step == 2 ? 2 : 0);
                        if (step == 1) {
                                /* Byte by byte some answers come earlier; the bytes are the same. "Early" ones aside. */
                                if (wire[i].ends && strstr(wire[i].want, "200 OK") &&
                                    strstr(wire[i].send, "/hello HTTP/1.1\r\nHost: a\r\nConn") == NULL) {
                                        pair_close(&p);
                                        continue;
                                }
                                for (size_t k = 0; wire[i].send[k]; k++)
                                        raw_send(&p, wire[i].send + k, 1);
                        } else {
                                raw_send(&p, wire[i].send, strlen(wire[i].send));
                        }
                        raw_read(&p, &b);
                        if (step != 1 && strcmp(buf_z(&b), wire[i].want))
                                fail_msg("case %zu step %d: sent\n%s\ngot\n%s\nwant\n%s", i, step, wire[i].send, buf_z(&b), wire[i].want);
                        if (step == 1 && !strstr(wire[i].want, "raw") && strcmp(buf_z(&b), wire[i].want))
                                fail_msg("case %zu bytewise: got\n%s\nwant\n%s", i, buf_z(&b), wire[i].want);
                        if (ended(&p) != wire[i].ends)
                                fail_msg("case %zu step %d: the connection %s", i, step, wire[i].ends ? "stays open" : "ended");
                        buf_fini(&b);
                        close(p.raw);
                        p.raw = -1;
                        pair_settle(&p);
                        assert_int_equal(p.server_closed, 1);
                        pair_close(&p);
                }
        }
}

static void test_http_10(void **state)
{
        static const struct {
                const char *send, *want;
        } t[] = {
                { "GET /hello HTTP/1.0\r\n\r\n",
                  "HTTP/1.0 200 OK\r\nx-served: yes\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello" },
                { "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                  "HTTP/1.0 200 OK\r\nx-served: yes\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\nhello" },
                { "GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                  "HTTP/1.0 200 OK\r\nx-served: yes\r\nconnection: close\r\n\r\nhello" },
                { "GET /interim HTTP/1.0\r\n\r\n",
                  "HTTP/1.0 200 OK\r\nx-served: yes\r\ncontent-length: 5\r\nconnection: close\r\n\r\nafter" },
        };

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct pair p = { .opts = { .accept_http_10 = true } };
                struct buf b = BUF_INIT;

                pair_open_server(&p, 0);
                raw_send(&p, t[i].send, strlen(t[i].send));
                raw_read(&p, &b);
                assert_string_equal(buf_z(&b), t[i].want);
                assert_int_equal(ended(&p), strstr(t[i].want, "close") != NULL);
                buf_fini(&b);
                pair_close(&p);
        }
}

/* A client that ends its side while the answer is awaited is gone, as Envoy has it. */
static void test_half_close(void **state)
{
        struct pair p = { 0 };

        pair_open_server(&p, 0);
        raw_send(&p, GET("/hang"), strlen(GET("/hang")));
        assert_non_null(p.server_stream);
        shutdown(p.raw, SHUT_WR);
        pair_settle(&p);
        assert_null(p.server_stream);
        assert_int_equal(p.server_reset, HTTP_RESET_CONN_CLOSED);
        assert_int_equal(p.server_closed, 1);
        pair_close(&p);
}

/* Pipelining is bounded: requests behind one that hangs are not parsed, and beyond a slab not even read. */
static void test_pipeline_bound(void **state)
{
        struct pair p = { 0 };
        size_t sent = 0;

        pair_open_server(&p, 0);
        for (int i = 0; i < 200000; i++) {
                ssize_t n = send(p.raw, GET("/hang"), strlen(GET("/hang")), MSG_NOSIGNAL);

                if (n <= 0)
                        break;
                sent += (size_t)n;
                if (i % 64 == 0)
                        pair_settle(&p);
        }
        assert_true(sent < 4 * 1024 * 1024); /* the socket filled up */
        assert_int_equal(p.server_streams, 1);
        close(p.raw);
        p.raw = -1;
        http_conn_close(p.server);
        pair_close(&p);
}

static void test_limits(void **state)
{
        struct pair p = { 0 };
        struct buf b = BUF_INIT, w = BUF_INIT;

        pair_open_server(&p, 0);
        buf_cstr(&w, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
        for (int i = 0; i < 70000; i++)
                buf_char(&w, 'a');
        raw_send(&p, w.p, w.n);
        raw_read(&p, &b);
        assert_non_null(strstr(buf_z(&b), "HTTP/1.1 431 Request Header Fields Too Large\r\n"));
        assert_int_equal(p.refused_status, 431);
        assert_string_equal(p.refused_details, "http1.headers_too_large");
        assert_int_equal(p.server_reset, HTTP_RESET_OVERFLOW);
        buf_fini(&b);
        buf_fini(&w);
        pair_close(&p);
}

/* After a refusal the answer must survive: bytes that are still coming are read away, the connection then ends by itself. */
static void test_linger(void **state)
{
        struct pair p = { 0 };

        pair_open_server(&p, 0);
        raw_send(&p, "BAD\r\n\r\n", 7);
        assert_int_equal(p.server_closed, 0);
        assert_true(p.server_ended == 1);
        for (int i = 0; i < 8; i++)
                raw_send(&p, "more of it", 10);
        assert_int_equal(p.server_closed, 0);
        for (int i = 0; i < 100 && !p.server_closed; i++)
                loop_turn(p.loop, 1000);
        assert_int_equal(p.server_closed, 1);
        pair_close(&p);
}

/* What a client makes of a server's bytes. status 0: no head. */
static const struct {
        const char *send;
        bool eof;
        int status;
        const char *body;
        enum http_reset reset;
        bool reusable;
} answers[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", HTTP_RESET_NONE, true },
        { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", HTTP_RESET_NONE, true },
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", false, 200, "ok", HTTP_RESET_NONE, false },
        { "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", HTTP_RESET_NONE, false },
        { "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", false, 200, "ok", HTTP_RESET_NONE, true },
        { "HTTP/1.1 200 OK\r\n\r\nuntil the end", true, 200, "until the end", HTTP_RESET_NONE, false },
        { "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false, 204, "", HTTP_RESET_NONE, true },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, 200, "ok", HTTP_RESET_NONE, true },
        /* lies */
        { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", true, 200, "ok", HTTP_RESET_CONN_CLOSED, false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", true, 200, "ok", HTTP_RESET_CONN_CLOSED, false },
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, 200, "ok", HTTP_RESET_NONE,
          false },
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", false, 0, "", HTTP_RESET_PROTOCOL, false },
        { "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", false, 0, "", HTTP_RESET_PROTOCOL, false },
        { "garbage\r\n\r\n", false, 0, "", HTTP_RESET_PROTOCOL, false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false, 200, "", HTTP_RESET_PROTOCOL, false },
        { "", true, 0, "", HTTP_RESET_CONN_CLOSED, false },
};

static void test_client(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
                struct pair p = { 0 };
                struct call c;
                struct buf b = BUF_INIT;

                pair_open_client(&p, false);
                call_begin(&p, &c, "GET", "/x?y", -1, true, "x-a", "b");
                raw_read(&p, &b);
                assert_string_equal(buf_z(&b), "GET /x?y HTTP/1.1\r\nhost: test.example\r\nx-a: b\r\n\r\n");
                raw_send(&p, answers[i].send, strlen(answers[i].send));
                if (answers[i].eof) {
                        shutdown(p.raw, SHUT_WR);
                        pair_settle(&p);
                }
                if (!c.closed || c.reset != answers[i].reset || c.status != answers[i].status || strcmp(buf_z(&c.body), answers[i].body))
                        fail_msg("case %zu: closed %d reset %d status %d body '%s'", i, c.closed, c.reset, c.status, buf_z(&c.body));
                if (answers[i].reusable != (p.client && http_client_can_stream(p.client)))
                        fail_msg("case %zu: reusable is %d", i, !answers[i].reusable);
                buf_fini(&b);
                call_free(&c);
                pair_close(&p);
        }
}

/* A server that speaks first, or between requests, is not trusted with a request. */
static void test_unasked(void **state)
{
        struct pair p = { 0 };

        pair_open_client(&p, false);
        raw_send(&p, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 38);
        assert_int_equal(p.client_closed, 1);
        pair_close(&p);
}

static void test_early_response(void **state)
{
        struct pair p = { 0 };
        struct call c;

        pair_open_client(&p, false);
        call_begin(&p, &c, "POST", "/", 100, false, NULL, NULL);
        call_send(&c, "part", false);
        raw_send(&p, "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n", 53);
        assert_true(c.closed);
        assert_int_equal(c.status, 413);
        assert_int_equal(c.reset, HTTP_RESET_NONE);
        assert_int_equal(p.client_closed, 1); /* half a request is on it */
        call_free(&c);
        pair_close(&p);
}

/* Title-Case on the way out; connection-specific fields never. */
static void test_sending(void **state)
{
        struct pair p = { .opts = { .keep_header_case = true } };
        struct buf b = BUF_INIT;
        struct call c = { 0 };
        struct http_head m;

        pair_open_client(&p, false);
        c.s = http_client_stream(p.client, &http_ops_ignore, NULL);
        http_head_init(&m, http_stream_arena(c.s));
        m.method = STR("PUT");
        m.authority = STR("a");
        m.path = STR("/");
        m.content_length = 3;
        http_add_name(&m, STR("x-request-id"), STR("1"));
        http_add(&m, HN_CONNECTION, STR("close"));
        http_add(&m, HN_KEEP_ALIVE, STR("1"));
        http_add(&m, HN_TRANSFER_ENCODING, STR("gzip"));
        http_add(&m, HN_CONTENT_LENGTH, STR("7"));
        http_add(&m, HN_HOST, STR("b"));
        http_add(&m, HN_TE, STR("gzip"));
        http_add(&m, HN_UPGRADE, STR("x"));
        http_send_head(c.s, &m, false);
        call_send(&c, "abc", true);
        raw_read(&p, &b);
        assert_string_equal(buf_z(&b), "PUT / HTTP/1.1\r\nHost: a\r\nX-Request-Id: 1\r\nContent-Length: 3\r\n\r\nabc");
        buf_fini(&b);
        pair_close(&p);
}

/* The preface turns a detecting server into HTTP/2; something that only begins like it does not. */
static void test_sniff(void **state)
{
        struct pair p = { 0 };
        struct buf b = BUF_INIT;
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";

        pair_open_server(&p, 2);
        assert_int_equal(http_conn_version(p.server), HTTP_1_1);
        for (size_t i = 0; i < sizeof(preface) - 1; i++)
                raw_send(&p, preface + i, 1);
        assert_int_equal(http_conn_version(p.server), HTTP_2);
        raw_read(&p, &b);
        assert_true(b.n > 9 && b.p[3] == 4); /* SETTINGS */
        buf_fini(&b);
        pair_close(&p);

        p = (struct pair){ 0 };
        pair_open_server(&p, 2);
        raw_send(&p, "PRI * HTTP/1.1\r\n\r\n", 18);
        raw_read(&p, &b);
        assert_string_equal(buf_z(&b), BAD);
        buf_fini(&b);
        pair_close(&p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_server),         cmocka_unit_test(test_http_10), cmocka_unit_test(test_half_close),
                cmocka_unit_test(test_pipeline_bound), cmocka_unit_test(test_limits),  cmocka_unit_test(test_linger),
                cmocka_unit_test(test_client),         cmocka_unit_test(test_unasked), cmocka_unit_test(test_early_response),
                cmocka_unit_test(test_sending),        cmocka_unit_test(test_sniff),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
