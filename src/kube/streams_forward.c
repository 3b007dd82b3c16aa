/* Port-forward: each connection to kubectl's local port is a pair of SPDY streams with one requestID, "error" and "data". All share one TCP
 * connection, so one that is held back holds back the others of its session. */
#include "base/mem.h"
#include "kube/streams_private.h"

#include <stdlib.h>

struct kube_forward_conn {
        struct kube_forward_conn *next;
        struct kube_forward *f;
        const struct kube_forward_conn_ops *ops;
        void *arg;
        struct str request_id;
        uint16_t port;
        uint32_t data_id, error_id;
        bool opened; /* the owner knows it */
        bool in_ended, out_ended, paused, closing;
        struct loop_task close;
};

struct kube_forward {
        struct pipe pipe;
        const struct kube_forward_ops *ops;
        void *arg;
        struct kube_forward_conn *conns;
        unsigned nconns, npaused;
        bool closed; /* the pipe is gone; the last connection ends the session */
};

static void end_session(struct kube_forward *f)
{
        if (!f->closed || f->conns)
                return;
        f->ops->on_close(f, f->arg);
        free(f);
}

static void on_conn_close(struct loop_task *t)
{
        struct kube_forward_conn *c = t->arg;
        struct kube_forward *f = c->f;

        for (struct kube_forward_conn **p = &f->conns; *p; p = &(*p)->next) {
                if (*p == c) {
                        *p = c->next;
                        break;
                }
        }
        f->nconns--;
        kube_forward_conn_resume(c);
        if (c->opened && c->ops)
                c->ops->on_close(c, c->arg);
        free((char *)c->request_id.p);
        free(c);
        end_session(f);
}

static void conn_end(struct kube_forward_conn *c, struct loop *l)
{
        if (c->closing)
                return;
        c->closing = true;
        loop_defer(l, &c->close);
}

static void maybe_done(struct kube_forward_conn *c)
{
        if (c->in_ended && c->out_ended && !c->f->closed)
                conn_end(c, c->f->pipe.loop);
}

static struct kube_forward_conn *by_stream(struct kube_forward *f, uint32_t id)
{
        for (struct kube_forward_conn *c = f->conns; c; c = c->next)
                if (id && (c->data_id == id || c->error_id == id))
                        return c;
        return NULL;
}

static struct kube_forward_conn *by_request(struct kube_forward *f, struct str request_id, uint16_t port)
{
        for (struct kube_forward_conn *c = f->conns; c; c = c->next)
                if (str_eq(c->request_id, request_id) && c->port == port)
                        return c;
        if (f->nconns >= SPDY_STREAMS_MAX)
                return NULL;
        struct kube_forward_conn *c = MEM_NEW(struct kube_forward_conn);

        c->f = f;
        c->request_id = str_make(str_dup(request_id), request_id.n);
        c->port = port;
        c->close = (struct loop_task){ .fn = on_conn_close, .arg = c };
        c->next = f->conns;
        f->conns = c;
        f->nconns++;
        return c;
}

static bool on_stream(void *arg, uint32_t id, const struct spdy_header *h, unsigned n)
{
        struct kube_forward *f = arg;
        struct str type = STR(""), port_text = STR(""), request_id = STR("");
        uint64_t port;

        for (unsigned i = 0; i < n; i++) {
                if (str_eqc(h[i].name, "streamtype"))
                        type = h[i].value;
                else if (str_eqc(h[i].name, "port"))
                        port_text = h[i].value;
                else if (str_eqc(h[i].name, "requestid"))
                        request_id = h[i].value;
        }
        bool data = str_eqc(type, "data");

        if ((!data && !str_eqc(type, "error")) || !str_u64(port_text, &port) || !port || port > 65535)
                return false;
        struct kube_forward_conn *c = by_request(f, request_id, (uint16_t)port);

        if (!c || c->closing || (data ? c->data_id : c->error_id))
                return false;
        *(data ? &c->data_id : &c->error_id) = id;
        if (c->data_id && c->error_id && !c->opened) {
                c->opened = true;
                f->ops->on_connection(f, f->arg, c, c->port);
        }
        return true;
}

static void on_spdy_data(void *arg, uint32_t id, struct str data, bool fin)
{
        struct kube_forward_conn *c = by_stream(arg, id);
        struct chain bytes = CHAIN_INIT;

        if (!c || id == c->error_id || c->in_ended || c->closing)
                return;
        c->in_ended = fin;
        chain_str(&bytes, data);
        if (c->opened && c->ops)
                c->ops->on_data(c, c->arg, &bytes, fin);
        chain_fini(&bytes);
        maybe_done(c);
}

static void on_spdy_reset(void *arg, uint32_t id)
{
        struct kube_forward *f = arg;
        struct kube_forward_conn *c = by_stream(f, id);

        if (c)
                conn_end(c, f->pipe.loop);
}

static void on_goaway(void *arg)
{
        (void)arg;
}

static void on_drain(void *arg)
{
        struct kube_forward *f = arg;

        for (struct kube_forward_conn *c = f->conns, *next; c; c = next) {
                next = c->next;
                if (c->opened && c->ops && !c->closing && !c->out_ended)
                        c->ops->on_drain(c, c->arg);
        }
}

static void on_lost(void *arg)
{
        struct kube_forward *f = arg;

        pipe_end(&f->pipe);
}

static void on_pipe_close(void *arg)
{
        struct kube_forward *f = arg;

        f->closed = true;
        while (f->conns) {
                struct kube_forward_conn *c = f->conns;

                c->closing = true;
                loop_undefer(f->pipe.loop, &c->close);
                f->conns = c->next;
                f->nconns--;
                if (c->opened && c->ops)
                        c->ops->on_close(c, c->arg);
                free((char *)c->request_id.p);
                free(c);
        }
        end_session(f);
}

struct kube_forward *kube_forward_new(struct http_stream *s, const struct kube_streams_choice *c, const struct kube_forward_ops *ops,
                                      void *arg)
{
        static const struct spdy_ops spdy = { on_stream, on_spdy_data, on_spdy_reset, on_goaway };
        static const struct pipe_ops pipe = { NULL, &spdy, on_drain, on_lost, on_pipe_close };
        struct kube_forward *f = MEM_NEW(struct kube_forward);

        f->ops = ops;
        f->arg = arg;
        pipe_start(&f->pipe, s, c->transport, &pipe, f);
        return f;
}

void kube_forward_abort(struct kube_forward *f)
{
        pipe_abort(&f->pipe);
}

void kube_forward_conn_set_ops(struct kube_forward_conn *c, const struct kube_forward_conn_ops *ops, void *arg)
{
        c->ops = ops;
        c->arg = arg;
}

void kube_forward_conn_send(struct kube_forward_conn *c, struct chain *data, bool end)
{
        struct kube_forward *f = c->f;

        if (f->closed || c->closing || c->out_ended || !f->pipe.stream) {
                chain_fini(data);
                return;
        }
        if (data->n || end)
                spdy_data(&f->pipe.spdy, c->data_id, data, end);
        if (end) { /* the client waits for the error stream's end too */
                spdy_data(&f->pipe.spdy, c->error_id, NULL, true);
                c->out_ended = true;
        }
        pipe_flush(&f->pipe);
        maybe_done(c);
}

bool kube_forward_conn_blocked(const struct kube_forward_conn *c)
{
        return c->f->pipe.stream && http_send_blocked(c->f->pipe.stream);
}

void kube_forward_conn_pause(struct kube_forward_conn *c)
{
        if (c->paused || c->f->closed)
                return;
        c->paused = true;
        if (c->f->npaused++ == 0 && c->f->pipe.stream)
                http_pause(c->f->pipe.stream);
}

void kube_forward_conn_resume(struct kube_forward_conn *c)
{
        if (!c->paused)
                return;
        c->paused = false;
        if (--c->f->npaused == 0 && c->f->pipe.stream)
                http_resume(c->f->pipe.stream);
}

void kube_forward_conn_fail(struct kube_forward_conn *c, struct str message)
{
        struct kube_forward *f = c->f;
        struct chain text = CHAIN_INIT;

        if (f->closed || c->closing || c->out_ended || !f->pipe.stream)
                return;
        chain_str(&text, message);
        spdy_data(&f->pipe.spdy, c->error_id, &text, true);
        spdy_data(&f->pipe.spdy, c->data_id, NULL, true);
        c->out_ended = true;
        pipe_flush(&f->pipe);
        conn_end(c, f->pipe.loop);
}
