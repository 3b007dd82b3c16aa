/* A listener whose connections are HTTP and whose requests go to one function. Every wait is bounded: a connection without a request, a
 * request whose head or body does not come. The number of connections is bounded by not accepting: more wait in the kernel's backlog. */
#include "http/simple.h"

#include "base/mem.h"
#include "net/sock.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { DEFAULT_BODY_BYTES = 1024 * 1024, DEFAULT_IDLE_MS = 60000, DEFAULT_HEAD_MS = 30000, DEFAULT_CONNS = 1024, ACCEPTS_A_TURN = 64 };

struct service_conn {
        struct service_conn *next, **pprev;
        struct http_service *sv;
        struct conn *io; /* before the handshake's end; then http owns it */
        struct http_conn *http;
        struct loop_timer timer; /* idle */
        unsigned pending;        /* requests whose head or body is awaited */
};

/* One request until its owner takes over. */
struct service_req {
        struct service_conn *k;
        struct loop_timer timer;
        bool counted;
};

struct http_service {
        struct loop *loop;
        struct loop_watch watch;
        struct addr addr;
        struct tls_ctx *tls;
        struct http_opts http;
        struct service_conn *conns;
        unsigned nconns, max_conns, idle_ms, head_ms;
        size_t max_body;
        http_body_fn *body_fn;
        http_head_fn *head_fn;
        void *arg;
        bool full, draining;
};

static void accept_some(struct http_service *sv);

static void conn_gone(struct service_conn *k)
{
        struct http_service *sv = k->sv;

        loop_timer_stop(sv->loop, &k->timer);
        *k->pprev = k->next;
        if (k->next)
                k->next->pprev = k->pprev;
        free(k);
        sv->nconns--;
        if (sv->full && !sv->draining) {
                sv->full = false;
                accept_some(sv);
        }
}

static void arm_idle(struct service_conn *k)
{
        loop_timer_arm(k->sv->loop, &k->timer, k->sv->idle_ms);
}

/* ---- requests ---- */

static void req_timeout(struct loop_timer *t)
{
        struct service_req *q = t->arg;

        http_conn_close(q->k->http);
}

static void req_arrived(struct service_req *q)
{
        loop_timer_stop(q->k->sv->loop, &q->timer);
}

static void on_body(struct http_stream *s, void *arg, struct http_head *m, struct str body)
{
        struct service_req *q = arg;
        struct http_service *sv = q->k->sv;

        req_arrived(q);
        sv->body_fn(s, sv->arg, m, body);
}

static void on_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct service_req *q = arg;
        struct http_service *sv = q->k->sv;

        if (sv->head_fn) {
                req_arrived(q);
                http_stream_set_ops(s, &http_ops_ignore, NULL);
                sv->head_fn(s, sv->arg, m, end);
        } else {
                http_collect(s, m, end, sv->max_body, on_body, q);
        }
}

static void on_req_close(struct http_stream *s, void *arg, enum http_reset why)
{
        req_arrived(arg);
}

static const struct http_stream_ops req_ops = { .on_head = on_head, .on_close = on_req_close };

static void on_stream(struct http_conn *c, void *arg, struct http_stream *s)
{
        struct service_conn *k = arg;
        struct service_req *q = ARENA_NEW(http_stream_arena(s), struct service_req);

        loop_timer_stop(k->sv->loop, &k->timer);
        q->k = k;
        q->timer.fn = req_timeout;
        q->timer.arg = q;
        loop_timer_arm(k->sv->loop, &q->timer, k->sv->head_ms);
        http_stream_set_ops(s, &req_ops, q);
}

static void on_idle(struct http_conn *c, void *arg)
{
        arm_idle(arg);
}

static void on_conn_close(struct http_conn *c, void *arg)
{
        conn_gone(arg);
}

static const struct http_conn_ops service_ops = { .on_stream = on_stream, .on_idle = on_idle, .on_close = on_conn_close };

/* ---- connections ---- */

static void idle_timeout(struct loop_timer *t)
{
        struct service_conn *k = t->arg;

        if (k->http) {
                http_conn_close(k->http);
                return;
        }
        conn_close(k->io, false);
        conn_gone(k);
}

static void begin_http(struct service_conn *k)
{
        struct conn *io = k->io;

        k->io = NULL;
        k->http = http_server_auto(io, &k->sv->http, &service_ops, k, NULL);
}

static void on_handshake(struct conn *io, void *arg, int err)
{
        struct service_conn *k = arg;

        if (!err) {
                begin_http(k);
                return;
        }
        conn_close(io, false);
        conn_gone(k);
}

static void on_early(struct conn *io, void *arg)
{
}

static const struct conn_ops handshake_ops = { .on_connect = on_handshake, .on_readable = on_early, .on_writable = on_early };

static void accepted(struct http_service *sv, int fd, const struct addr *peer)
{
        struct service_conn *k = MEM_NEW(struct service_conn);

        k->sv = sv;
        k->timer.fn = idle_timeout;
        k->timer.arg = k;
        k->next = sv->conns;
        k->pprev = &sv->conns;
        if (k->next)
                k->next->pprev = &k->next;
        sv->conns = k;
        sv->nconns++;
        arm_idle(k);
        k->io = conn_accepted(sv->loop, fd, peer, sv->tls, &handshake_ops, k);
        if (!sv->tls)
                begin_http(k);
}

static void accept_some(struct http_service *sv)
{
        for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
                struct addr peer;

                if (sv->nconns >= sv->max_conns) {
                        sv->full = true;
                        loop_watch_change(sv->loop, &sv->watch, 0);
                        return;
                }
                int fd = sock_accept(sv->watch.fd, &peer);

                if (fd < 0)
                        break;
                accepted(sv, fd, &peer);
        }
        loop_watch_change(sv->loop, &sv->watch, LOOP_READ | LOOP_LEVEL);
}

static void on_listen(struct loop_watch *w, unsigned ready)
{
        accept_some(w->arg);
}

static struct http_service *service_new(struct loop *l, const struct http_service_opts *o, int *err)
{
        struct sock_listen_opts so = { .unix_mode = o->unix_mode };
        int fd = sock_listen(o->listen, &so);

        *err = fd < 0 ? fd : 0;
        if (fd < 0)
                return NULL;
        struct http_service *sv = MEM_NEW(struct http_service);

        sv->loop = l;
        sv->tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
        if (o->http)
                sv->http = *o->http;
        else
                sv->http.accept_http_10 = sv->http.absolute_url = true;
        sv->max_body = o->max_body_bytes ? o->max_body_bytes : DEFAULT_BODY_BYTES;
        sv->idle_ms = o->idle_ms ? o->idle_ms : DEFAULT_IDLE_MS;
        sv->head_ms = o->head_ms ? o->head_ms : DEFAULT_HEAD_MS;
        sv->max_conns = o->max_conns ? o->max_conns : DEFAULT_CONNS;
        sv->watch.fd = -1;
        if (!sock_local(fd, &sv->addr))
                sv->addr = *o->listen;
        *err = loop_watch(l, &sv->watch, fd, LOOP_READ | LOOP_LEVEL, on_listen, sv);
        if (*err < 0) {
                close(fd);
                tls_ctx_unref(sv->tls);
                free(sv);
                return NULL;
        }
        return sv;
}

struct http_service *http_service_new(struct loop *l, const struct http_service_opts *o, http_body_fn *fn, void *arg, int *err)
{
        struct http_service *sv = service_new(l, o, err);

        if (sv) {
                sv->body_fn = fn;
                sv->arg = arg;
        }
        return sv;
}

struct http_service *http_service_new_streaming(struct loop *l, const struct http_service_opts *o, http_head_fn *fn, void *arg, int *err)
{
        struct http_service *sv = service_new(l, o, err);

        if (sv) {
                sv->head_fn = fn;
                sv->arg = arg;
        }
        return sv;
}

static void stop_listening(struct http_service *sv)
{
        int fd = sv->watch.fd;

        sv->draining = true;
        if (fd < 0)
                return;
        loop_unwatch(sv->loop, &sv->watch);
        sv->watch.fd = -1;
        close(fd);
        if (sv->addr.sa.sa_family == AF_UNIX && sv->addr.un.sun_path[0])
                unlink(sv->addr.un.sun_path);
}

void http_service_drain(struct http_service *sv)
{
        struct service_conn *next;

        stop_listening(sv);
        for (struct service_conn *k = sv->conns; k; k = next) {
                next = k->next;
                if (k->http) {
                        http_conn_drain(k->http);
                } else {
                        conn_close(k->io, false);
                        conn_gone(k);
                }
        }
}

/* The codec tells of a connection's end at the end of the turn, when the service is gone: each is handed to a service that only counts it
 * down. */
static void orphan_close(struct http_service *sv)
{
        struct service_conn *next;

        for (struct service_conn *k = sv->conns; k; k = next) {
                next = k->next;
                loop_timer_stop(sv->loop, &k->timer);
                if (k->http) {
                        http_conn_close(k->http);
                } else {
                        conn_close(k->io, false);
                        conn_gone(k);
                }
        }
}

static void reap(struct loop_task *t)
{
        struct http_service *sv = t->arg;

        if (sv->nconns) {
                loop_defer(sv->loop, t);
                return;
        }
        tls_ctx_unref(sv->tls);
        free(sv);
        free(t);
}

void http_service_free(struct http_service *sv)
{
        if (!sv)
                return;
        stop_listening(sv);
        orphan_close(sv);
        struct loop_task *t = MEM_NEW(struct loop_task);

        t->fn = reap;
        t->arg = sv;
        loop_defer(sv->loop, t);
}

unsigned http_service_conns(const struct http_service *sv)
{
        return sv->nconns;
}

const struct addr *http_service_addr(const struct http_service *sv)
{
        return &sv->addr;
}
