/* One request on a connection of its own. Everything ends in done(), which is deferred and comes once: an answer, or words on why not. */
#include "http/simple.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

enum { DEFAULT_BODY_BYTES = 1024 * 1024, DEFAULT_TIMEOUT_MS = 10000 };

struct http_fetch {
        struct loop *loop;
        struct conn *io; /* until http owns it */
        struct http_conn *http;
        struct http_stream *s;
        struct loop_timer timer;
        struct loop_task task;
        struct arena arena; /* the request, and the response's head */
        struct http_head req, *resp;
        struct str body; /* to send */
        struct buf got;
        size_t max_body;
        unsigned timeout_ms;
        bool h2, over, complete;
        http_fetch_fn *fn;
        void *arg;
        char error[256];
};

static void fetch_free(struct http_fetch *f)
{
        loop_timer_stop(f->loop, &f->timer);
        loop_undefer(f->loop, &f->task);
        buf_fini(&f->got);
        arena_fini(&f->arena);
        free(f);
}

/* Lets go of the network: nothing of it calls f again. */
static void disconnect(struct http_fetch *f)
{
        if (f->s)
                http_stream_set_ops(f->s, &http_ops_ignore, NULL);
        f->s = NULL;
        if (f->io)
                conn_close(f->io, false);
        f->io = NULL;
        if (f->http)
                http_conn_close(f->http); /* on_close is its last word; the task waits for it */
}

static void finish(struct http_fetch *f, const char *error)
{
        if (f->over)
                return;
        f->over = true;
        if (error)
                snprintf(f->error, sizeof(f->error), "%s", error);
        disconnect(f);
        loop_defer(f->loop, &f->task);
}

static void done(struct loop_task *t)
{
        struct http_fetch *f = t->arg;

        if (f->http) { /* its on_close comes first */
                loop_defer(f->loop, t);
                return;
        }
        http_fetch_fn *fn = f->fn;

        if (fn && f->complete && !f->error[0])
                fn(f->arg, f->resp, str_make(buf_z(&f->got), f->got.n), NULL);
        else if (fn)
                fn(f->arg, NULL, STR(""), f->error);
        fetch_free(f);
}

static void on_timeout(struct loop_timer *t)
{
        struct http_fetch *f = t->arg;
        char e[64];

        snprintf(e, sizeof(e), "timed out after %u ms", f->timeout_ms);
        finish(f, e);
}

/* ---- the response ---- */

static void on_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct http_fetch *f = arg;

        if (m->status < 200)
                return;
        /* Kept beyond the stream: its arena goes with it. */
        f->resp = ARENA_NEW(&f->arena, struct http_head);
        http_head_init(f->resp, &f->arena);
        f->resp->status = m->status;
        f->resp->version = m->version;
        f->resp->content_length = m->content_length;
        for (unsigned i = 0; i < m->n; i++)
                http_add_name(f->resp, arena_str(&f->arena, m->h[i].name), arena_str(&f->arena, m->h[i].value));
        f->complete = end;
        if (end)
                finish(f, NULL);
}

static void on_data(struct http_stream *s, void *arg, struct chain *d, bool end)
{
        struct http_fetch *f = arg;

        if (d->n > f->max_body - f->got.n) {
                char e[64];

                snprintf(e, sizeof(e), "response larger than %zu bytes", f->max_body);
                finish(f, e);
                return;
        }
        while (d->n) {
                struct str p = chain_front(d);

                buf_str(&f->got, p);
                chain_drop(d, p.n);
        }
        f->complete = end;
        if (end)
                finish(f, NULL);
}

static void on_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        struct http_fetch *f = arg;

        f->complete = true;
        finish(f, NULL);
}

static void on_close(struct http_stream *s, void *arg, enum http_reset why)
{
        struct http_fetch *f = arg;
        const char *e = http_conn_error(http_stream_conn(s));

        f->s = NULL;
        if (!f->complete)
                finish(f, e[0]                       ? e
                          : why == HTTP_RESET_REMOTE ? "stream reset by the server"
                                                     : "connection closed before the answer was complete");
}

static const struct http_stream_ops fetch_ops = {
        .on_head = on_head, .on_data = on_data, .on_trailers = on_trailers, .on_close = on_close
};

/* ---- the request ---- */

static void on_conn_close(struct http_conn *c, void *arg)
{
        struct http_fetch *f = arg;

        f->http = NULL;
        finish(f, "connection closed");
}

static const struct http_conn_ops conn_ops = { .on_close = on_conn_close };

static void ask(struct http_fetch *f)
{
        const struct tls_info *t = conn_tls_info(f->io);
        struct conn *io = f->io;

        f->io = NULL;
        if (f->h2 || (t && str_eq(t->alpn, STR("h2"))))
                f->http = http_client_h2(io, NULL, &conn_ops, f);
        else
                f->http = http_client_h1(io, NULL, &conn_ops, f);
        f->s = http_client_stream(f->http, &fetch_ops, f);
        if (!f->s) {
                finish(f, "no stream could be opened");
                return;
        }
        f->req.content_length = f->body.n ? (int64_t)f->body.n : -1;
        f->req.scheme = t ? STR("https") : STR("http");
        http_send_head(f->s, &f->req, !f->body.n);
        if (f->body.n) {
                struct chain d = CHAIN_INIT;

                chain_str(&d, f->body);
                http_send_data(f->s, &d, true);
        }
}

static void on_connect(struct conn *io, void *arg, int err)
{
        struct http_fetch *f = arg;

        if (err)
                finish(f, conn_error_text(io));
        else
                ask(f);
}

static void on_early(struct conn *io, void *arg)
{
}

static const struct conn_ops connect_ops = { .on_connect = on_connect, .on_readable = on_early, .on_writable = on_early };

struct http_fetch *http_fetch(struct loop *l, const struct http_fetch_opts *o, http_fetch_fn *fn, void *arg)
{
        struct http_fetch *f = MEM_NEW(struct http_fetch);
        char text[ADDR_TEXT_MAX];

        f->loop = l;
        f->fn = fn;
        f->arg = arg;
        f->h2 = o->h2;
        f->max_body = o->max_body_bytes ? o->max_body_bytes : DEFAULT_BODY_BYTES;
        f->timeout_ms = o->timeout_ms ? o->timeout_ms : DEFAULT_TIMEOUT_MS;
        f->task.fn = done;
        f->task.arg = f;
        f->timer.fn = on_timeout;
        f->timer.arg = f;
        arena_init(&f->arena, 1024);
        http_head_init(&f->req, &f->arena);
        f->req.method = arena_str(&f->arena, str_of(o->method ? o->method : "GET"));
        f->req.path = o->path.n ? arena_str(&f->arena, o->path) : STR("/");
        if (o->authority.n)
                f->req.authority = arena_str(&f->arena, o->authority);
        else if (o->to->sa.sa_family == AF_UNIX)
                f->req.authority = STR("localhost");
        else
                f->req.authority = arena_str(&f->arena, str_make(text, addr_text(o->to, text)));
        for (unsigned i = 0; i < o->nheaders; i++)
                http_add_name(&f->req, arena_str(&f->arena, o->headers[i].name), arena_str(&f->arena, o->headers[i].value));
        f->body = arena_str(&f->arena, o->body);
        loop_timer_arm(l, &f->timer, f->timeout_ms);
        struct conn_connect_opts co = { .timeout_ms = f->timeout_ms, .tls = o->tls, .sni = o->sni };

        f->io = conn_connect(l, o->to, &co, &connect_ops, f);
        return f;
}

void http_fetch_cancel(struct http_fetch *f)
{
        if (!f)
                return;
        f->fn = NULL;
        finish(f, "cancelled");
}
