/* gunicorn knows no HTTP/2, so HTTPS is ours: a request is handed on over HTTP/1.1 to gunicorn's port, header for header, with nothing
 * added, because httpbin shows its caller what arrived. The caller's address goes along in a PROXY line (which gunicorn takes from
 * 127.0.0.1 only), so that httpbin's /ip is right too.
 *
 * gunicorn runs as nobody. The listening socket on port 80 is ours and is inherited: while gunicorn starts (a second), connections wait in
 * the backlog instead of being refused. */
#include "node/inetserver.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/simple.h"
#include "net/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { NOBODY = 65534, GUNICORN_RESTART_MS = 500, RELAY_HIGH_BYTES = 1 << 20, RELAY_CONNECT_MS = 30000 };

struct inetserver {
        struct loop *loop;
        struct http_service *https;
        struct tls_ctx *tls;
        struct addr backend;
        int http_fd;
        pid_t gunicorn;
        struct loop_child *child;
        struct loop_timer restart;
};

/* ---- one request on its way through ---- */

struct relay {
        struct inetserver *s;
        struct http_stream *down, *up; /* NULL when closed */
        struct http_conn *up_http;
        struct conn *up_conn;   /* until up_http takes it over */
        struct http_head *head; /* the request's; lives in down's arena */
        struct chain body;      /* that came before the connection was up */
        bool ended, answered;
        struct loop_task end;
};

static void relay_check(struct relay *r)
{
        if (!r->down && !r->up && !r->up_http && !r->up_conn)
                loop_defer(r->s->loop, &r->end);
}

static void on_relay_end(struct loop_task *t)
{
        struct relay *r = t->arg;

        chain_fini(&r->body);
        free(r);
}

static void relay_fail(struct relay *r, const char *why)
{
        if (!r->down)
                return;
        if (r->answered)
                http_reset(r->down, HTTP_RESET_LOCAL);
        else
                http_answer(r->down, 502, "text/plain", str_of(why));
        r->answered = true;
}

static void up_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct relay *r = arg;

        (void)s;
        if (!r->down)
                return;
        r->answered = r->answered || m->status >= 200;
        http_send_head(r->down, m, end);
}

static void up_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        struct relay *r = arg;

        if (!r->down) {
                chain_drop(data, data->n);
                return;
        }
        http_send_data(r->down, data, end);
        if (http_send_blocked(r->down))
                http_pause(s);
}

static void up_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        struct relay *r = arg;

        (void)s;
        if (r->down)
                http_send_trailers(r->down, t);
}

static void up_drain(struct http_stream *s, void *arg)
{
        struct relay *r = arg;

        (void)s;
        if (r->down)
                http_resume(r->down);
}

static void up_close(struct http_stream *s, void *arg, enum http_reset reset)
{
        struct relay *r = arg;

        (void)s;
        r->up = NULL;
        if (reset != HTTP_RESET_NONE)
                relay_fail(r, "the web server ended early\n");
        if (r->up_http)
                http_conn_close(r->up_http);
        relay_check(r);
}

static const struct http_stream_ops up_ops = { up_head, up_data, up_trailers, up_drain, up_close };

static void up_conn_closed(struct http_conn *c, void *arg)
{
        struct relay *r = arg;

        (void)c;
        r->up_http = NULL;
        relay_check(r);
}

static const struct http_conn_ops up_conn_ops = { .on_close = up_conn_closed };

static void relay_begin(struct relay *r)
{
        bool end = r->ended && r->body.n == 0;

        r->up = http_client_stream(r->up_http, &up_ops, r);
        if (!r->up) {
                relay_fail(r, "the web server takes no request\n");
                http_conn_close(r->up_http);
                return;
        }
        http_send_head(r->up, r->head, end);
        if (r->body.n)
                http_send_data(r->up, &r->body, r->ended);
        if (!r->ended)
                http_resume(r->down);
}

static void on_up_connect(struct conn *c, void *arg, int err)
{
        struct relay *r = arg;
        char from[ADDR_TEXT_MAX], to[ADDR_TEXT_MAX], line[256];
        size_t sent;

        if (err || !r->down) {
                relay_fail(r, "the web server cannot be reached\n");
                r->up_conn = NULL;
                conn_close(c, false);
                relay_check(r);
                return;
        }
        struct conn *client = http_conn_io(http_stream_conn(r->down));
        const struct addr *peer = conn_peer(client), *local = conn_local(client);
        addr_ip_text(peer, from);
        addr_ip_text(local, to);
        struct iovec v = { line, (size_t)snprintf(line, sizeof(line), "PROXY TCP4 %s %s %u %u\r\n", from, to, addr_port(peer),
                                                  addr_port(local)) };
        r->up_conn = NULL;
        if (conn_writev(c, &v, 1, &sent) != IO_OK || sent != v.iov_len) {
                conn_close(c, true);
                relay_fail(r, "the web server cannot be reached\n");
                relay_check(r);
                return;
        }
        r->up_http = http_client_h1(c, NULL, &up_conn_ops, r);
        relay_begin(r);
}

static void down_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        struct relay *r = arg;

        r->ended = end;
        if (!r->up) {
                chain_move(&r->body, data);
                if (r->body.n > RELAY_HIGH_BYTES)
                        http_pause(s);
                return;
        }
        http_send_data(r->up, data, end);
        if (http_send_blocked(r->up))
                http_pause(s);
}

static void down_drain(struct http_stream *s, void *arg)
{
        struct relay *r = arg;

        (void)s;
        if (r->up)
                http_resume(r->up);
}

static void down_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        struct relay *r = arg;
        struct chain none = CHAIN_INIT;

        (void)s;
        (void)t;
        r->ended = true; /* gunicorn does not show trailers to httpbin */
        if (r->up)
                http_send_data(r->up, &none, true);
}

static void down_close(struct http_stream *s, void *arg, enum http_reset reset)
{
        struct relay *r = arg;

        (void)s;
        r->down = NULL;
        if (r->up && reset != HTTP_RESET_NONE)
                http_reset(r->up, HTTP_RESET_LOCAL);
        relay_check(r);
}

static const struct http_stream_ops down_ops = {
        .on_data = down_data, .on_trailers = down_trailers, .on_drain = down_drain, .on_close = down_close
};

static void on_request(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        static const struct conn_ops connect_ops = { .on_connect = on_up_connect };
        struct inetserver *server = arg;
        struct relay *r = MEM_NEW(struct relay);
        struct conn_connect_opts o = { .timeout_ms = RELAY_CONNECT_MS };

        *r = (struct relay){ .s = server, .down = s, .head = m, .ended = end, .end = { .fn = on_relay_end, .arg = r } };
        http_stream_set_ops(s, &down_ops, r);
        r->up_conn = conn_connect(server->loop, &server->backend, &o, &connect_ops, r);
}

/* ---- gunicorn ---- */

static void gunicorn_start(struct inetserver *s);

static void on_gunicorn_exit(void *arg, pid_t pid, int status)
{
        struct inetserver *s = arg;

        (void)pid;
        s->child = NULL;
        s->gunicorn = 0;
        LOG(LOG_WARN, "internet", "gunicorn ended (status %d); starting it again", status);
        loop_timer_arm(s->loop, &s->restart, GUNICORN_RESTART_MS);
}

static void on_restart(struct loop_timer *t)
{
        gunicorn_start(t->arg);
}

static void gunicorn_exec(struct inetserver *s, pid_t parent)
{
        static char *const env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent", "LC_ALL=C.UTF-8",
                                     "PYTHONDONTWRITEBYTECODE=1", NULL };
        char bind_to[32];
        sigset_t none;

        snprintf(bind_to, sizeof(bind_to), "fd://%d", s->http_fd);
        fcntl(s->http_fd, F_SETFD, 0);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        if (chdir("/") < 0 || setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
                _exit(126);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
                _exit(0);
        /* Since 20.1 gunicorn leaves its version out of the Server header, which clients of httpbin.org see. */
        static const char run[] =
                "import gunicorn.http.wsgi as w; w.SERVER = w.SERVER_SOFTWARE; from gunicorn.app.wsgiapp import run; run()";
        execle("/usr/bin/python3", "python3", "-c", run, "--bind", bind_to, "--worker-class", "gthread", "--workers", "1", "--threads",
               "32", "--keep-alive", "75", "--timeout", "120", "--worker-tmp-dir", "/dev/shm", "--proxy-protocol", "--proxy-allow-from",
               "127.0.0.1", "--log-level", "warning", "httpbin:app", (char *)NULL, env);
        _exit(127);
}

static void gunicorn_start(struct inetserver *s)
{
        pid_t parent = getpid(), pid = fork();

        if (pid == 0)
                gunicorn_exec(s, parent);
        if (pid < 0) {
                LOG(LOG_ERROR, "internet", "fork: %s", strerror(errno));
                loop_timer_arm(s->loop, &s->restart, GUNICORN_RESTART_MS);
                return;
        }
        s->gunicorn = pid;
        s->child = loop_child_new(s->loop, pid, on_gunicorn_exit, s);
}

/* ---- */

static bool listen_tls(struct inetserver *s, const struct inetserver_opts *o, struct diags *d)
{
        struct str alpn[] = { STR("h2"), STR("http/1.1") };
        struct tls_ctx_opts tls = {
                .server = true, .cert_pem = o->cert_pem, .key_pem = o->key_pem, .alpn = alpn, .nalpn = ARRAY_LEN(alpn)
        };
        struct addr any;
        int err = 0;

        addr_parse_ip(&any, STR("0.0.0.0"), o->https_port ? o->https_port : 443);
        s->tls = tls_ctx_new(&tls, d);
        if (!s->tls)
                return false;
        struct http_service_opts so = { .listen = &any, .tls = s->tls };
        s->https = http_service_new_streaming(s->loop, &so, on_request, s, &err);
        if (!s->https)
                diag_add(d, DIAG_ERROR, NULL, NULL, "port %u: %s", addr_port(&any), strerror(-err));
        return s->https != NULL;
}

struct inetserver *inetserver_new(struct loop *l, const struct inetserver_opts *o, struct diags *d)
{
        struct inetserver *s = MEM_NEW(struct inetserver);
        struct sock_listen_opts lo = { .backlog = 1024 };
        struct addr any;

        *s = (struct inetserver){ .loop = l, .http_fd = -1, .restart = { .fn = on_restart, .arg = s } };
        addr_parse_ip(&any, STR("0.0.0.0"), o->http_port ? o->http_port : 80);
        addr_parse_ip(&s->backend, STR("127.0.0.1"), addr_port(&any));
        s->http_fd = sock_listen(&any, &lo);
        if (s->http_fd < 0)
                diag_add(d, DIAG_ERROR, NULL, NULL, "port %u: %s", addr_port(&any), strerror(-s->http_fd));
        if (s->http_fd < 0 || !listen_tls(s, o, d)) {
                inetserver_free(s);
                return NULL;
        }
        gunicorn_start(s);
        return s;
}

void inetserver_free(struct inetserver *s)
{
        if (s->child)
                loop_child_forget(s->child);
        if (s->gunicorn)
                kill(s->gunicorn, SIGTERM);
        loop_timer_stop(s->loop, &s->restart);
        if (s->https)
                http_service_free(s->https);
        tls_ctx_unref(s->tls);
        if (s->http_fd >= 0)
                close(s->http_fd);
        free(s);
}
