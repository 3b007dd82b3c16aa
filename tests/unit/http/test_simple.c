/* Services and fetches over real sockets of the loopback: bodies, limits, both protocols, failures in words. */
#include "exchange.h"

#include <arpa/inet.h>

struct answer {
        bool done;
        int status;
        char body[4096], error[256], type[64];
};

static void on_answer(void *arg, const struct http_head *m, struct str body, const char *error)
{
        struct answer *a = arg;

        assert_false(a->done);
        a->done = true;
        if (m) {
                struct http_hdr *t = http_get(m, HN_CONTENT_TYPE);

                a->status = m->status;
                snprintf(a->body, sizeof(a->body), STR_FMT, STR_ARG(body));
                snprintf(a->type, sizeof(a->type), STR_FMT, STR_ARG(t ? t->value : STR("")));
        } else {
                snprintf(a->error, sizeof(a->error), "%s", error);
        }
}

static void serve(struct http_stream *s, void *arg, struct http_head *m, struct str body)
{
        struct str t = arena_printf(http_stream_arena(s), STR_FMT " " STR_FMT " " STR_FMT, STR_ARG(m->method), STR_ARG(m->path),
                                    STR_ARG(body));

        if (!str_eqc(m->path, "/never"))
                http_answer(s, 200, "text/plain", t);
}

static void fetch(struct loop *l, struct answer *a, const struct http_fetch_opts *o)
{
        *a = (struct answer){ 0 };
        http_fetch(l, o, on_answer, a);
        for (int i = 0; i < 1000 && !a->done; i++)
                loop_turn(l, 1000);
        assert_true(a->done);
}

static void test_service(void **state)
{
        struct loop *l = loop_new();
        struct addr any;
        int err;
        struct answer a;

        assert_true(addr_parse(&any, STR("127.0.0.1:0")));
        struct http_service *sv = http_service_new(l, &(struct http_service_opts){ .listen = &any, .max_body_bytes = 1000 }, serve, NULL,
                                                   &err);

        assert_non_null(sv);
        for (int h2 = 0; h2 < 2; h2++) {
                struct http_fetch_opts o = { .to = http_service_addr(sv), .h2 = h2 };
                char large[2000];

                memset(large, 'x', sizeof(large));
                o.path = STR("/a?b");
                fetch(l, &a, &o);
                assert_int_equal(a.status, 200);
                assert_string_equal(a.body, "GET /a?b ");
                assert_string_equal(a.type, "text/plain");
                o.method = "POST";
                o.body = STR("the body");
                fetch(l, &a, &o);
                assert_string_equal(a.body, "POST /a?b the body");
                o.body = str_make(large, sizeof(large));
                fetch(l, &a, &o);
                assert_int_equal(a.status, 413);
                o.body = STR("");
                o.max_body_bytes = 3;
                fetch(l, &a, &o);
                assert_string_equal(a.error, "response larger than 3 bytes");
                o.max_body_bytes = 0;
                o.path = STR("/never");
                o.timeout_ms = 20;
                fetch(l, &a, &o);
                assert_string_equal(a.error, "timed out after 20 ms");
                struct http_fetch *f = http_fetch(l, &o, on_answer, &a);

                loop_turn(l, 0);
                http_fetch_cancel(f);
        }
        struct addr to = *http_service_addr(sv);

        http_service_free(sv);
        for (int i = 0; i < 20; i++)
                loop_turn(l, 0);
        fetch(l, &a, &(struct http_fetch_opts){ .to = &to });
        assert_non_null(strstr(a.error, "refused"));
        for (int i = 0; i < 5; i++)
                loop_turn(l, 0);
        loop_free(l);
        http_thread_fini();
        chain_thread_fini();
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_service) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
