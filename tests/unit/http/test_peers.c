/* Against programs that nobody here wrote: curl, nghttp and h2load as clients, nghttpd and Python's server as servers. A peer that is not
 * installed is said and skipped. */
#include "exchange.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct loop *loop;
static struct http_service *service;
static char url[64 + ADDR_TEXT_MAX], dir[] = "/tmp/postern-peers-XXXXXX";
static char out_path[64], big_path[64];

static void e_data(struct http_stream *s, void *arg, struct chain *d, bool end)
{
        http_send_data(s, d, end);
        if (http_send_blocked(s))
                http_pause(s);
}

static void e_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        http_send_trailers(s, t);
}

static void e_drain(struct http_stream *s, void *arg)
{
        http_resume(s);
}

static const struct http_stream_ops echo_ops = { .on_data = e_data, .on_trailers = e_trailers, .on_drain = e_drain };

static void serve(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct http_head h;

        if (!str_eqc(m->path, "/echo")) {
                http_answer(s, 200, "text/plain", STR("hello"));
                return;
        }
        http_head_init(&h, http_stream_arena(s));
        if (http_get(m, HN_EXPECT)) {
                h.status = 100;
                http_send_head(s, &h, false);
        }
        h.status = 200;
        http_stream_set_ops(s, &echo_ops, NULL);
        http_send_head(s, &h, end);
}

static void on_exit_(void *arg, pid_t pid, int status)
{
        *(int *)arg = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* Runs a shell command while the loop turns; its exit code. Its output is in out_path. */
static int run(const char *fmt, ...)
{
        char *cmd, *full;
        va_list ap;
        int code = -1;

        va_start(ap, fmt);
        assert_true(vasprintf(&cmd, fmt, ap) > 0);
        va_end(ap);
        assert_true(asprintf(&full, "exec >%s 2>&1; %s", out_path, cmd) > 0);
        pid_t pid = fork();

        if (pid == 0) {
                execl("/bin/sh", "sh", "-c", full, (char *)NULL);
                _exit(127);
        }
        assert_true(pid > 0);
        assert_non_null(loop_child_new(loop, pid, on_exit_, &code));
        while (code < 0)
                loop_turn(loop, 1000);
        free(cmd);
        free(full);
        return code;
}

static bool have(const char *program)
{
        if (run("command -v %s", program) == 0)
                return true;
        print_message("skipped: %s is not installed\n", program);
        return false;
}

static struct buf output(void)
{
        struct buf b = BUF_INIT;

        assert_int_equal(buf_read_file(&b, out_path, 64 * 1024 * 1024), 0);
        buf_z(&b);
        return b;
}

static void expect(const char *text)
{
        struct buf b = output();

        if (!strstr(buf_z(&b), text))
                fail_msg("'%s' is not in:\n%s", text, b.p);
        buf_fini(&b);
}

static int setup(void **state)
{
        struct addr any;
        char text[ADDR_TEXT_MAX];
        int err;

        loop = loop_new();
        assert_non_null(mkdtemp(dir));
        snprintf(out_path, sizeof(out_path), "%s/out", dir);
        snprintf(big_path, sizeof(big_path), "%s/big", dir);
        addr_parse(&any, STR("127.0.0.1:0"));
        service = http_service_new_streaming(loop, &(struct http_service_opts){ .listen = &any }, serve, NULL, &err);
        assert_non_null(service);
        addr_text(http_service_addr(service), text);
        snprintf(url, sizeof(url), "http://%s", text);
        return run("head -c 5000000 /dev/urandom > %s", big_path);
}

static int teardown(void **state)
{
        http_service_free(service);
        for (int i = 0; i < 10; i++)
                loop_turn(loop, 0);
        run("rm -rf %s", dir);
        loop_free(loop);
        http_thread_fini();
        chain_thread_fini();
        rmdir(dir);
        return 0;
}

static void test_curl(void **state)
{
        static const char *const versions[] = { "--http1.1", "--http2-prior-knowledge" };

        if (!have("curl"))
                return;
        for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
                const char *v = versions[i];

                assert_int_equal(run("curl -sS %s %s/a", v, url), 0);
                expect("hello");
                assert_int_equal(run("curl -sSI %s %s/a", v, url), 0);
                expect("content-length: 5");
                assert_int_equal(run("curl -sS %s --data-binary @%s %s/echo | cmp - %s", v, big_path, url, big_path), 0);
                assert_int_equal(run("curl -sS %s -T - %s/echo < %s | cmp - %s", v, url, big_path, big_path), 0);
                assert_int_equal(run("curl -sSv %s -H 'Expect: 100-continue' --data-binary @%s -o /dev/null %s/echo", v, big_path, url), 0);
                expect("100");
                assert_int_equal(run("curl -sS --limit-rate 4M %s --data-binary @%s %s/echo | cmp - %s", v, big_path, url, big_path), 0);
        }
        /* Not over HTTP/2: curl 7.88 trips over its own reuse there, with any server. */
        assert_int_equal(run("curl -sS --http1.1 %s/a %s/b", url, url), 0);
        expect("hellohello");
        assert_int_equal(run("curl -sS --http1.0 %s/a", url), 0);
        expect("hello");
}

static void test_h2load(void **state)
{
        if (!have("h2load"))
                return;
        assert_int_equal(run("h2load -n 2000 -c 10 -m 10 %s/a", url), 0);
        expect("2000 succeeded, 0 failed, 0 errored, 0 timeout");
        assert_int_equal(run("h2load --h1 -n 2000 -c 10 %s/a", url), 0);
        expect("2000 succeeded, 0 failed, 0 errored, 0 timeout");
        assert_int_equal(run("h2load -n 20 -c 2 -m 4 -d %s %s/echo", big_path, url), 0);
        expect("20 succeeded, 0 failed, 0 errored, 0 timeout");
}

static void test_nghttp(void **state)
{
        if (!have("nghttp"))
                return;
        assert_int_equal(run("nghttp -v -H ':method: POST' --trailer 'x-sum: 7' -d /bin/ls %s/echo | grep -a x-sum", url), 0);
        expect("x-sum: 7");
}

struct answer {
        bool done;
        int status;
        size_t n;
        char error[128];
};

static void on_answer(void *arg, const struct http_head *m, struct str body, const char *error)
{
        struct answer *a = arg;

        a->done = true;
        a->status = m ? m->status : 0;
        a->n = body.n;
        snprintf(a->error, sizeof(a->error), "%s", error ? error : "");
}

static void fetch(struct answer *a, const char *to, bool h2)
{
        struct addr ad;
        struct http_fetch_opts o = { .to = &ad, .path = STR("/big"), .h2 = h2, .max_body_bytes = 8 * 1024 * 1024 };

        addr_parse(&ad, str_of(to));
        *a = (struct answer){ 0 };
        http_fetch(loop, &o, on_answer, a);
        while (!a->done)
                loop_turn(loop, 1000);
}

static void test_servers(void **state)
{
        static const struct {
                const char *program, *cmd, *to;
                bool h2;
        } t[] = {
                { "nghttpd", "exec nghttpd --no-tls -d %s -a 127.0.0.1 18931", "127.0.0.1:18931", true },
                { "python3", "exec python3 -m http.server -b 127.0.0.1 -d %s 18932", "127.0.0.1:18932", false },
        };

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                char *cmd;
                struct answer a = { 0 };

                if (!have(t[i].program))
                        continue;
                assert_true(asprintf(&cmd, t[i].cmd, dir) > 0);
                pid_t pid = fork();

                if (pid == 0) {
                        int null = open("/dev/null", 2);

                        dup2(null, 1);
                        dup2(null, 2);
                        execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
                        _exit(127);
                }
                for (int tries = 0; tries < 200 && a.status == 0; tries++) { /* until it listens */
                        fetch(&a, t[i].to, t[i].h2);
                        if (a.status == 0)
                                loop_turn(loop, 50);
                }
                if (a.status != 200 || a.n != 5000000)
                        fail_msg("%s: status %d, %zu bytes, %s", t[i].program, a.status, a.n, a.error);
                kill(pid, SIGKILL);
                waitpid(pid, NULL, 0);
                free(cmd);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_curl),
                cmocka_unit_test(test_h2load),
                cmocka_unit_test(test_nghttp),
                cmocka_unit_test(test_servers),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
