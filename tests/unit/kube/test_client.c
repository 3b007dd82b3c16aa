/* The client and its informers against a scripted API server on the same loop. */
#include "base/mem.h"
#include "http/simple.h"
#include "kube/client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { LOG_MAX = 128 };

struct server {
        struct loop *l;
        struct http_service *s;
        char url[ADDR_TEXT_MAX + 16];
        char *log[LOG_MAX]; /* "GET /path" */
        unsigned nlog, lists, watches;
        struct http_stream *watch; /* the open one */
        const char *list[8];       /* what the lists answer, in turn; NULL: 500 */
        bool too_old;              /* answer the next watch with 410 */
        bool drop_next;            /* close the connection instead of answering */
        char authorization[64];
};

static void on_stream_close(struct http_stream *s, void *arg, enum http_reset reset)
{
        struct server *v = arg;

        if (v->watch == s)
                v->watch = NULL;
}

static const struct http_stream_ops watch_ops = { .on_close = on_stream_close };

static void open_watch(struct server *v, struct http_stream *s)
{
        struct http_head r;

        http_stream_set_ops(s, &watch_ops, v);
        http_head_init(&r, http_stream_arena(s));
        r.status = 200;
        r.content_length = -1;
        http_send_head(s, &r, false);
        v->watch = s;
}

static void on_body(struct http_stream *s, void *arg, struct http_head *m, struct str body)
{
        struct http_head r;
        struct chain c = CHAIN_INIT;

        http_head_init(&r, http_stream_arena(s));
        http_add_name(&r, STR("warning"), STR("299 - \"first \\\"quoted\\\"\""));
        http_add_name(&r, STR("warning"), STR("299 - \"second\""));
        chain_str(&c, body);
        http_answer_head(s, &r, 201, "application/json", &c);
}

static void on_request(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct server *v = arg;
        struct http_hdr *h = http_get(m, HN_AUTHORIZATION);

        assert_true(v->nlog < LOG_MAX);
        v->log[v->nlog++] = mem_printf("%.*s %.*s", (int)m->method.n, m->method.p, (int)m->path.n, m->path.p);
        snprintf(v->authorization, sizeof(v->authorization), "%.*s", h ? (int)h->value.n : 0, h ? h->value.p : "");
        if (v->drop_next) {
                v->drop_next = false;
                http_conn_close(http_stream_conn(s));
        } else if (str_find(m->path, STR("watch=true")) >= 0) {
                v->watches++;
                if (v->too_old)
                        http_answer(s, 410, "application/json", STR("{\"kind\":\"Status\",\"code\":410,\"message\":\"too old\"}"));
                else
                        open_watch(v, s);
                v->too_old = false;
        } else if (str_starts(m->path, STR("/list"))) {
                const char *body = v->list[v->lists++];

                http_answer(s, body ? 200 : 500, "application/json", str_of(body ? body : "{\"kind\":\"Status\",\"message\":\"boom\"}"));
        } else if (str_starts(m->path, STR("/absent"))) {
                http_answer(s, 404, "text/plain", STR("404 page not found"));
        } else if (str_eqc(m->method, "GET")) {
                http_answer(s, 200, "application/json", STR("{\"hello\":1}"));
        } else {
                http_collect(s, m, end, 1000, on_body, v);
        }
}

static void server_start(struct server *v)
{
        char text[ADDR_TEXT_MAX];
        struct addr a;
        int err = 0;

        *v = (struct server){ .l = loop_new() };
        assert_true(addr_parse(&a, STR("127.0.0.1:0")));
        v->s = http_service_new_streaming(v->l, &(struct http_service_opts){ .listen = &a }, on_request, v, &err);
        assert_non_null(v->s);
        addr_text(http_service_addr(v->s), text);
        snprintf(v->url, sizeof(v->url), "http://%s", text);
}

static void settle(struct server *v)
{
        for (int i = 0; i < 8; i++)
                loop_turn(v->l, 0);
}

static void server_stop(struct server *v)
{
        http_service_free(v->s);
        settle(v);
        loop_free(v->l);
        for (unsigned i = 0; i < v->nlog; i++)
                free(v->log[i]);
        chain_thread_fini();
}

static struct kube_client *client_of(struct server *v, const char *token)
{
        struct kube_client_config cfg = { .server = str_of(v->url), .token = str_of(token) };
        struct diags d;

        diags_init(&d);
        struct kube_client *c = kube_client_new(v->l, &cfg, &d);
        assert_non_null(c);
        diags_fini(&d);
        return c;
}

static void run(struct server *v, const unsigned *what, unsigned until)
{
        while (*what < until)
                loop_turn(v->l, -1);
}

/* ---- requests ---- */

struct answer {
        unsigned calls;
        int status;
        char body[64], error[200], warnings[200];
};

static void on_answer(void *arg, const struct kube_response *r)
{
        struct answer *a = arg;

        a->calls++;
        a->status = r->status;
        snprintf(a->body, sizeof(a->body), "%.*s", (int)r->body.n, r->body.n ? r->body.p : "");
        snprintf(a->error, sizeof(a->error), "%s", r->error ? r->error : "");
        for (unsigned i = 0; i < r->nwarnings; i++) {
                size_t n = strlen(a->warnings);

                snprintf(a->warnings + n, sizeof(a->warnings) - n, "%.*s;", (int)r->warnings[i].n, r->warnings[i].p);
        }
}

static void test_requests(void **state)
{
        struct server v;
        struct answer a = { 0 }, b = { 0 }, c = { 0 };

        server_start(&v);
        struct kube_client *k = client_of(&v, "secret");
        kube_request(k, "GET", STR("/x?y=1"), STR(""), STR(""), on_answer, &a);
        assert_int_equal(a.calls, 0);
        run(&v, &a.calls, 1);
        assert_int_equal(a.status, 200);
        assert_string_equal(a.body, "{\"hello\":1}");
        assert_string_equal(v.log[0], "GET /x?y=1");
        assert_string_equal(v.authorization, "Bearer secret");
        kube_request(k, "POST", STR("/y"), STR("application/json"), STR("{\"a\":1}"), on_answer, &b);
        run(&v, &b.calls, 1);
        assert_int_equal(b.status, 201);
        assert_string_equal(b.body, "{\"a\":1}");
        assert_string_equal(b.warnings, "first \"quoted\";second;");
        assert_int_equal(http_service_conns(v.s), 1); /* kept alive */
        /* The server closes the kept connection on a request: asked once more, on a new one. */
        v.drop_next = true;
        kube_request(k, "GET", STR("/z"), STR(""), STR(""), on_answer, &c);
        run(&v, &c.calls, 1);
        assert_int_equal(c.status, 200);
        assert_int_equal(v.nlog, 4);
        kube_client_free(k);
        server_stop(&v);
}

static void test_many(void **state)
{
        struct server v;
        struct answer a = { 0 };

        server_start(&v);
        struct kube_client *k = client_of(&v, "");
        for (int i = 0; i < 50; i++)
                kube_request(k, "GET", STR("/x"), STR(""), STR(""), on_answer, &a);
        run(&v, &a.calls, 50);
        assert_true(http_service_conns(v.s) <= 16);
        assert_string_equal(v.authorization, "");
        for (int i = 0; i < 30; i++)
                kube_request(k, "GET", STR("/x"), STR(""), STR(""), on_answer, &a);
        loop_turn(v.l, 0);
        kube_client_free(k); /* no callback for those */
        settle(&v);
        assert_int_equal(a.calls, 50);
        server_stop(&v);
}

static void test_no_server(void **state)
{
        struct server v;
        struct answer a = { 0 };

        server_start(&v);
        struct kube_client *k = client_of(&v, "");
        http_service_free(v.s);
        v.s = NULL;
        kube_request(k, "GET", STR("/x"), STR(""), STR(""), on_answer, &a);
        run(&v, &a.calls, 1);
        assert_int_equal(a.status, 0);
        assert_string_equal(a.error, "connection refused");
        kube_client_free(k);
        server_stop(&v);
}

/* ---- informers ---- */

struct seen {
        char text[2000];
        unsigned events, syncs, troubles;
        struct kube_informer *free_on_event;
};

static void on_set(void *arg, struct kube_object *now, struct kube_object *before)
{
        struct seen *s = arg;
        size_t n = strlen(s->text);
        struct str kind = pb_get_str(now->node, "kind", STR("?"));

        s->events++;
        snprintf(s->text + n, sizeof(s->text) - n, "%s%.*s %.*s/%.*s@%.*s ", before ? "~" : "+", (int)kind.n, kind.p,
                 (int)now->namespace_.n, now->namespace_.p, (int)now->name.n, now->name.p, (int)now->resource_version.n,
                 now->resource_version.p);
        if (s->free_on_event)
                kube_informer_free(s->free_on_event);
}

static void on_delete(void *arg, struct kube_object *last)
{
        struct seen *s = arg;
        size_t n = strlen(s->text);

        s->events++;
        snprintf(s->text + n, sizeof(s->text) - n, "-%.*s ", (int)last->name.n, last->name.p);
}

static void on_synced(void *arg)
{
        struct seen *s = arg;

        s->syncs++;
        strcat(s->text, "synced ");
}

static void on_trouble(void *arg, const char *why)
{
        ((struct seen *)arg)->troubles++;
}

static const struct kube_informer_ops informer_ops = { on_set, on_delete, on_synced, on_trouble };

#define OBJ(name, rv)                                                                                               \
        "{\"metadata\":{\"namespace\":\"n\",\"name\":\"" name "\",\"resourceVersion\":\"" rv "\",\"uid\":\"u-" name \
        "\",\"managedFields\":[1]}}"
#define LIST(rv, more, items) \
        "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"" rv "\"" more "},\"items\":[" items "]}"
#define EVENT(type, obj) "{\"type\":\"" type "\",\"object\":" obj "}\n"

static void event(struct server *v, const char *text)
{
        struct chain c = CHAIN_INIT;

        chain_append(&c, text, strlen(text));
        http_send_data(v->watch, &c, false);
}

static void wait_watch(struct server *v)
{
        while (!v->watch)
                loop_turn(v->l, -1);
}

static void test_informer(void **state)
{
        struct server v;
        struct seen s = { 0 };

        server_start(&v);
        v.list[0] = LIST("10", "", OBJ("a", "5") "," OBJ("b", "6"));
        struct kube_client *k = client_of(&v, "");
        struct kube_informer *i = kube_informer_new(k, STR("/list"), STR("labelSelector=x"), &informer_ops, &s);
        wait_watch(&v);
        assert_string_equal(s.text, "+Pod n/a@5 +Pod n/b@6 synced ");
        assert_string_equal(v.log[0], "GET /list?limit=500&labelSelector=x");
        assert_non_null(strstr(v.log[1], "resourceVersion=10&labelSelector=x"));
        struct kube_object *o = kube_informer_get(i, STR("n"), STR("a"));
        assert_non_null(o);
        assert_null(pb_get_path(o->node, "metadata.managedFields"));
        assert_null(kube_informer_get(i, STR("n"), STR("c")));
        s.text[0] = '\0';
        /* Events in pieces, and two in one piece. */
        event(&v, "{\"type\":\"MODIFIED\",\"obj");
        settle(&v);
        event(&v, "ect\":" OBJ("a", "11") "}\n" EVENT("DELETED", OBJ("b", "12")) EVENT("ADDED", OBJ("c", "13")));
        run(&v, &s.events, 5);
        assert_string_equal(s.text, "~? n/a@11 -b +? n/c@13 ");
        s.text[0] = '\0';
        /* A bookmark moves the version; the watch ends and goes on from there. */
        event(&v, EVENT("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"20\"}}"));
        struct chain none = CHAIN_INIT;
        http_send_data(v.watch, &none, true);
        v.watch = NULL;
        wait_watch(&v);
        assert_non_null(strstr(v.log[2], "resourceVersion=20&"));
        /* Too old: listed again, and only the differences are told. */
        v.list[1] = LIST("30", "", OBJ("a", "11") "," OBJ("d", "29"));
        event(&v, EVENT("ERROR", "{\"kind\":\"Status\",\"code\":410,\"message\":\"too old\"}"));
        run(&v, &s.events, 7);
        assert_string_equal(s.text, "+Pod n/d@29 -c ");
        assert_int_equal(s.syncs, 1);
        kube_informer_free(i);
        kube_client_free(k);
        server_stop(&v);
}

/* Errors on the way: 500 to the list, 410 as the watch's status, garbage in a watch; the client freed before its informer. */
static void test_informer_trouble(void **state)
{
        struct server v;
        struct seen s = { 0 };

        server_start(&v);
        v.list[1] = LIST("10", "", OBJ("a", "5"));
        v.too_old = true;
        v.list[2] = LIST("12", "", OBJ("a", "5") "," OBJ("b", "11"));
        struct kube_client *k = client_of(&v, "");
        struct kube_informer *i = kube_informer_new(k, STR("/list"), STR(""), &informer_ops, &s);
        wait_watch(&v);
        assert_int_equal(s.troubles, 1);
        assert_string_equal(s.text, "+Pod n/a@5 synced +Pod n/b@11 ");
        http_conn_close(http_stream_conn(v.watch)); /* cut off: goes on where it was */
        v.watch = NULL;
        wait_watch(&v);
        assert_int_equal(s.troubles, 2);
        if (!strstr(v.log[v.nlog - 1], "resourceVersion=12"))
                fail_msg("%s", v.log[v.nlog - 1]);
        v.list[3] = LIST("13", "", OBJ("b", "11"));
        event(&v, "{\"type\":\"ADDED\"}\n");
        run(&v, &s.events, 3);
        assert_non_null(strstr(s.text, "-a"));
        kube_client_free(k);
        assert_non_null(kube_informer_get(i, STR("n"), STR("b")));
        kube_informer_free(i);
        server_stop(&v);
}

static void test_informer_edges(void **state)
{
        struct server v;
        struct seen s = { 0 }, t = { 0 }, u = { 0 };

        server_start(&v);
        struct kube_client *k = client_of(&v, "");
        struct kube_informer *i = kube_informer_new(k, STR("/absent"), STR(""), &informer_ops, &s);
        run(&v, &s.troubles, 1);
        assert_string_equal(s.text, "synced ");
        assert_true(kube_informer_synced(i));
        kube_informer_free(i);
        /* Freed by its own callback, in the middle of a list. */
        v.list[0] = LIST("10", "", OBJ("a", "5") "," OBJ("b", "6"));
        i = kube_informer_new(k, STR("/list"), STR(""), &informer_ops, &t);
        t.free_on_event = i;
        run(&v, &t.events, 1);
        settle(&v);
        assert_string_equal(t.text, "+Pod n/a@5 ");
        /* Pages. */
        v.list[1] = LIST("7", ",\"continue\":\"a/b=\"", OBJ("a", "1"));
        v.list[2] = LIST("7", "", OBJ("b", "2"));
        i = kube_informer_new(k, STR("/list"), STR(""), &informer_ops, &u);
        wait_watch(&v);
        assert_string_equal(v.log[v.nlog - 2], "GET /list?limit=500&continue=a%2Fb%3D");
        assert_string_equal(u.text, "+Pod n/a@1 +Pod n/b@2 synced ");
        kube_informer_free(i);
        kube_client_free(k);
        server_stop(&v);
}

/* ---- configuration ---- */

static void write_text(const char *path, const char *text)
{
        struct buf b = BUF_INIT;

        buf_cstr(&b, text);
        assert_int_equal(buf_write_file(&b, path, 0600), 0);
        buf_fini(&b);
}

static void test_kubeconfig(void **state)
{
        static const char head[] =
                "apiVersion: v1\nkind: Config\ncurrent-context: one\ncontexts:\n- {name: one, context: {cluster: c1, user: u1}}\n"
                "- {name: three, context: {cluster: c1, user: nobody}}\n";
        static const struct {
                const char *cluster, *user, *context, *error; /* error NULL: works */
        } t[] = {
                { "server: 'https://h:1', certificate-authority-data: QUJD", "token: t", "", NULL },
                { "server: 'https://h:1', certificate-authority: ca.pem", "token: t", "", NULL },
                { "server: 'https://h:1', certificate-authority: nope.pem", "", "", "cannot read" },
                { "server: 'https://h:1', certificate-authority-data: '!!'", "", "", "not base64" },
                { "server: 'https://h:1', insecure-skip-tls-verify: true", "", "", "not supported" },
                { "", "", "", "missing" },
                { "server: x", "exec: {command: a}", "", "not supported" },
                { "server: x", "client-certificate-data: QUJD", "", "needs its key" },
                { "server: x", "", "three", "no user \"nobody\"" },
                { "server: x", "", "four", "no context \"four\"" },
        };
        char dir[] = "/tmp/postern-test-XXXXXX";

        assert_non_null(mkdtemp(dir));
        char *path = mem_printf("%s/config", dir), *ca = mem_printf("%s/ca.pem", dir);
        write_text(ca, "ABC");
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                char *text = mem_printf("%sclusters:\n- {name: c1, cluster: {%s}}\nusers:\n- {name: u1, user: {%s}}\n", head, t[i].cluster,
                                        t[i].user);
                struct kube_client_config c;
                struct arena a;
                struct diags d;

                arena_init(&a, 0);
                diags_init(&d);
                write_text(path, text);
                bool ok = kube_client_config_load(str_of(path), str_of(t[i].context), &a, &c, &d);
                if (ok != !t[i].error || (!ok && !strstr(d.v[0].text.p, t[i].error)))
                        fail_msg("%zu: %s", i, d.n ? d.v[0].text.p : "taken");
                if (ok)
                        assert_true(str_eqc(c.server, "https://h:1") && str_eqc(c.ca_pem, "ABC") && str_eqc(c.token, "t"));
                diags_fini(&d);
                arena_fini(&a);
                free(text);
        }
        unlink(path);
        unlink(ca);
        rmdir(dir);
        free(path);
        free(ca);
}

static void test_bad_servers(void **state)
{
        static const char *const t[] = {
                "", "h:1", "ftp://h", "https://", "https://h:0", "https://h:70000", "https://h/path", "https://u@h", "unix:"
        };
        struct loop *l = loop_new();

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct kube_client_config c = { .server = str_of(t[i]) };
                struct diags d;

                diags_init(&d);
                if (kube_client_new(l, &c, &d) || d.errors != 1)
                        fail_msg("\"%s\" was taken", t[i]);
                diags_fini(&d);
        }
        loop_turn(l, 0);
        loop_free(l);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_requests),         cmocka_unit_test(test_many),
                cmocka_unit_test(test_no_server),        cmocka_unit_test(test_informer),
                cmocka_unit_test(test_informer_trouble), cmocka_unit_test(test_informer_edges),
                cmocka_unit_test(test_kubeconfig),       cmocka_unit_test(test_bad_servers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
