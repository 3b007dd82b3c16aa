/* An HTTP/1.1 connection: one exchange at a time, in a stream object that is pooled by the thread, so that an idle connection is this
 * small struct and nothing else.
 *
 * Callbacks from the socket only read, parse and tell the owner; what must not happen under an owner's feet (writing, ending a stream,
 * beginning the next request, freeing) is done by turn(), once, at the end of the loop's turn. The traps: a server must not parse the
 * next request before the response to this one is complete, but must keep reading a little to notice that the client has gone; and a
 * connection whose request was broken or not read to its end must not be closed while the answer is in flight, or the kernel's reset
 * takes the answer with it: it lingers. */
#include "http/h1.h"
#include "http/simple.h"

#include "base/mem.h"

#include <stdlib.h>

enum {
        READ_BYTES = CHAIN_SLAB_BYTES,
        BODY_READ_BYTES = 4 * CHAIN_SLAB_BYTES,
        READS_A_TURN = 8,
        PIPELINED_MAX = CHAIN_SLAB_BYTES, /* bytes read ahead while a response is pending */
        LINGER_MS = 1000,                 /* Envoy's delayed_close_timeout */
        LINGER_BYTES = 256 * 1024,
};

static const struct conn_ops h1_io_ops;
static const struct http_codec h1_codec;

struct h1_stream *h1_stream_new(struct h1_conn *c)
{
        struct h1_stream *s = h1_stream_of(http_stream_get(&c->base, 0, sizeof(*s)));

        h1_parser_init(&s->p, c->base.server ? H1_REQUEST : H1_RESPONSE);
        return s;
}

static void stream_free(struct h1_stream *s)
{
        buf_fini(&s->partial);
        chain_fini(&s->held);
        http_stream_put(&s->base, 0);
}

/* ---- telling the owner ---- */

void h1_schedule(struct h1_conn *c)
{
        loop_defer(c->base.loop, &c->task);
}

/* The end of everything: the stream, if there is one, closes with `why`. */
void h1_kill(struct h1_conn *c, enum http_reset why, const char *error)
{
        if (c->dead)
                return;
        c->dead = true;
        if (!c->base.error)
                c->base.error = error;
        if (c->s && !c->s->failed) {
                c->s->failed = true;
                c->s->reset = (uint8_t)why;
        }
        h1_schedule(c);
}

/* ---- reading ---- */

static bool wants_read(const struct h1_conn *c)
{
        const struct h1_stream *s = c->s;

        if (c->dead)
                return false;
        if (!s || s->rx == RX_HEAD)
                return true;
        if (s->paused)
                return false;
        return (s->rx != RX_DONE && s->rx != RX_WAIT_UPGRADE) || c->in.n < PIPELINED_MAX;
}

/* Is there nothing left to do for the stream? */
static bool stream_over(const struct h1_conn *c, const struct h1_stream *s)
{
        if (s->failed)
                return true;
        if (c->base.server) /* the response decides: what is left of the request is not read */
                return s->tx == TX_DONE && !c->out.n && (s->rx != RX_TUNNEL || c->eof);
        return s->rx == RX_DONE && (s->tx != TX_TUNNEL && (s->tx != TX_DONE || !c->out.n));
}

static void on_eof(struct h1_conn *c)
{
        struct h1_stream *s = c->s;

        c->eof = true;
        if (!s) {
                h1_kill(c, HTTP_RESET_NONE, NULL);
                return;
        }
        if (s->rx == RX_TUNNEL || s->rx == RX_UNTIL_CLOSE) {
                h1_give_end(s);
                h1_schedule(c);
                return;
        }
        if (c->out.n)
                conn_write_chain(c->base.io, &c->out);
        if (stream_over(c, s)) {
                c->close_after = true;
                h1_schedule(c);
                return;
        }
        h1_kill(c, HTTP_RESET_CONN_CLOSED, "connection closed by the peer in the middle of an exchange");
}

static void linger_read(struct h1_conn *c)
{
        struct chain d = CHAIN_INIT;
        enum io_result r;
        size_t n;

        while ((r = conn_read_chain(c->base.io, &d, READ_BYTES, &n)) == IO_OK) {
                chain_fini(&d);
                if (n >= c->linger->budget) {
                        r = IO_ERROR;
                        break;
                }
                c->linger->budget -= n;
        }
        chain_fini(&d);
        if (r != IO_AGAIN)
                h1_kill(c, HTTP_RESET_NONE, NULL);
}

static void on_readable(struct conn *io, void *arg)
{
        struct h1_conn *c = arg;

        if (c->dead)
                return;
        if (c->linger) {
                linger_read(c);
                return;
        }
        for (unsigned i = 0; i < READS_A_TURN; i++) {
                size_t n, max = c->s && c->s->rx != RX_HEAD && c->s->rx != RX_DONE ? BODY_READ_BYTES : READ_BYTES;
                enum io_result r;

                if (!wants_read(c)) {
                        conn_pause_read(io);
                        c->read_paused = true;
                        return;
                }
                r = conn_read_chain(io, &c->in, max, &n);
                if (r == IO_OK) {
                        if (!h1_process(c))
                                return;
                        continue;
                }
                if (r == IO_EOF)
                        on_eof(c);
                else if (r == IO_ERROR)
                        h1_kill(c, HTTP_RESET_CONN_FAILED, conn_error_text(io));
                return;
        }
        if (!c->dead)
                conn_resume_read(io); /* others first: it comes back in the next turn */
}

/* ---- the end of the turn ---- */

static void flush(struct h1_conn *c)
{
        struct h1_stream *s = c->s;

        if (c->dead || c->connecting)
                return;
        if (c->out.n && conn_write_chain(c->base.io, &c->out) == IO_ERROR) {
                h1_kill(c, HTTP_RESET_CONN_FAILED, conn_error_text(c->base.io));
                return;
        }
        if (!c->out.n && c->shut_wanted && !c->shut_done) {
                enum io_result r = conn_shutdown_write(c->base.io);

                if (r == IO_ERROR) {
                        h1_kill(c, HTTP_RESET_CONN_FAILED, conn_error_text(c->base.io));
                        return;
                }
                c->shut_done = r == IO_OK;
        }
        if (s && s->blocked && c->out.n <= c->base.o.low_mark && s->tx != TX_WAIT_UPGRADE) {
                s->blocked = false;
                if (s->base.ops->on_drain && s->tx != TX_DONE) {
                        s->base.ops->on_drain(&s->base, s->base.arg);
                        h1_schedule(c);
                }
        }
}

static void linger_over(struct loop_timer *t)
{
        h1_kill(t->arg, HTTP_RESET_NONE, NULL);
}

/* The last exchange is over. When the peer may still be sending, its bytes are read away for a while before the socket is closed. */
static void end_conn(struct h1_conn *c, bool all_read)
{
        if (c->eof || !c->base.server || (all_read && !c->in.n)) {
                h1_kill(c, HTTP_RESET_NONE, NULL);
                return;
        }
        chain_fini(&c->in);
        if (conn_shutdown_write(c->base.io) == IO_ERROR) {
                h1_kill(c, HTTP_RESET_NONE, NULL);
                return;
        }
        c->linger = MEM_NEW(struct h1_linger);
        c->linger->budget = LINGER_BYTES;
        c->linger->timer.fn = linger_over;
        c->linger->timer.arg = c;
        loop_timer_arm(c->base.loop, &c->linger->timer, LINGER_MS);
        c->read_paused = false;
        conn_resume_read(c->base.io);
}

static void end_stream(struct h1_conn *c)
{
        struct h1_stream *s = c->s;
        bool all_read = s->rx == RX_DONE && !s->reset, early = !c->base.server && s->tx != TX_DONE;
        enum http_reset why = (enum http_reset)s->reset;

        c->s = NULL;
        if (s->failed || early)
                c->close_after = true;
        if (s->base.ops->on_close)
                s->base.ops->on_close(&s->base, s->base.arg, why);
        stream_free(s);
        if (c->dead)
                return;
        if (c->close_after || c->draining) {
                end_conn(c, all_read);
                return;
        }
        if (c->base.ops->on_idle)
                c->base.ops->on_idle(&c->base, c->base.arg);
}

static void bury(struct h1_conn *c)
{
        struct h1_stream *s = c->s;

        c->s = NULL;
        if (s) {
                enum http_reset why = s->failed || s->reset ? (enum http_reset)s->reset : HTTP_RESET_CONN_CLOSED;

                if (s->base.ops->on_close)
                        s->base.ops->on_close(&s->base, s->base.arg, why);
                stream_free(s);
        }
        if (c->base.ops->on_close)
                c->base.ops->on_close(&c->base, c->base.arg);
        if (c->linger) {
                loop_timer_stop(c->base.loop, &c->linger->timer);
                free(c->linger);
        }
        loop_undefer(c->base.loop, &c->task);
        if (c->out.n && !c->io_reset && !c->connecting) /* what the kernel takes at once still goes */
                conn_write_chain(c->base.io, &c->out);
        chain_fini(&c->in);
        chain_fini(&c->out);
        conn_close(c->base.io, c->io_reset);
        c->base.magic = 0;
        free(c);
}

static void turn(struct h1_conn *c)
{
        for (;;) {
                flush(c);
                if (c->dead) {
                        bury(c);
                        return;
                }
                struct h1_stream *s = c->s;

                if (s && s->end_owed) {
                        s->end_owed = false;
                        if (s->tx != TX_DONE)
                                h1_give_end(s);
                        continue;
                }
                if (s && stream_over(c, s)) {
                        end_stream(c);
                        if (c->dead)
                                continue;
                }
                if (c->in.n && !c->linger) {
                        size_t before = c->in.n;

                        if (!h1_process(c))
                                return;
                        if (c->in.n != before || c->dead)
                                continue;
                }
                break;
        }
        if (c->read_paused && wants_read(c)) {
                c->read_paused = false;
                conn_resume_read(c->base.io);
        }
}

static void on_task(struct loop_task *t)
{
        turn(t->arg);
}

static void on_writable(struct conn *io, void *arg)
{
        turn(arg);
}

static void on_connect(struct conn *io, void *arg, int err)
{
        struct h1_conn *c = arg;

        c->connecting = false;
        if (c->dead)
                return;
        if (err)
                c->base.error = conn_error_text(io);
        if (c->base.ops->on_connect)
                c->base.ops->on_connect(&c->base, c->base.arg, err);
        if (err)
                h1_kill(c, HTTP_RESET_CONN_FAILED, conn_error_text(io));
        h1_schedule(c);
}

static const struct conn_ops h1_io_ops = { .on_connect = on_connect, .on_readable = on_readable, .on_writable = on_writable };

/* ---- the owner's calls ---- */

static void h1_reset(struct http_stream *hs, enum http_reset why)
{
        struct h1_conn *c = h1_of(hs->c);

        /* A FIN would pass for the end of a body that only the connection's end ends. */
        c->io_reset = c->io_reset || h1_stream_of(hs)->tx == TX_UNTIL_CLOSE;
        h1_kill(c, why, NULL);
}

static void h1_pause(struct http_stream *hs, bool on)
{
        struct h1_stream *s = h1_stream_of(hs);

        if (s->paused == on)
                return;
        s->paused = on;
        if (!on)
                h1_schedule(h1_of(hs->c));
}

static size_t h1_unsent(const struct http_stream *hs)
{
        const struct h1_stream *s = (const struct h1_stream *)hs;

        return ((const struct h1_conn *)hs->c)->out.n + s->held.n;
}

static bool h1_blocked(const struct http_stream *hs)
{
        return ((const struct h1_stream *)hs)->blocked;
}

static bool h1_can_stream(const struct http_conn *hc)
{
        const struct h1_conn *c = (const struct h1_conn *)hc;

        return !c->dead && !c->s && !c->close_after && !c->draining && !c->eof && !c->in.n;
}

static struct http_stream *h1_new_stream(struct http_conn *hc)
{
        struct h1_conn *c = h1_of(hc);

        if (!h1_can_stream(hc))
                return NULL;
        c->s = h1_stream_new(c);
        h1_new_head(c->s);
        return &c->s->base;
}

static unsigned h1_streams(const struct http_conn *hc)
{
        return ((const struct h1_conn *)hc)->s ? 1 : 0;
}

static void h1_drain(struct http_conn *hc)
{
        struct h1_conn *c = h1_of(hc);

        c->draining = true;
        if (!c->s && !c->in.n)
                h1_kill(c, HTTP_RESET_NONE, NULL);
}

static void h1_close(struct http_conn *hc)
{
        h1_kill(h1_of(hc), HTTP_RESET_LOCAL, NULL);
}

static const struct http_codec h1_codec = {
        .send_head = h1_send_head,
        .send_data = h1_send_data,
        .send_trailers = h1_send_trailers,
        .reset = h1_reset,
        .pause = h1_pause,
        .unsent = h1_unsent,
        .blocked = h1_blocked,
        .new_stream = h1_new_stream,
        .can_stream = h1_can_stream,
        .streams = h1_streams,
        .drain = h1_drain,
        .close = h1_close,
        .version = HTTP_1_1,
};

static struct http_conn *begin(size_t bytes, struct conn *io, bool server, const struct http_opts *o, const struct http_conn_ops *ops,
                               void *arg, struct chain *first)
{
        struct h1_conn *c = mem_zalloc(bytes);

        http_conn_init(&c->base, &h1_codec, io, server, o, ops, arg);
        c->task.fn = on_task;
        c->task.arg = c;
        if (first)
                chain_move(&c->in, first);
        conn_set_ops(io, &h1_io_ops, c);
        if (c->in.n)
                h1_schedule(c);
        return &c->base;
}

struct http_conn *http_server_h1(struct conn *io, const struct http_opts *o, const struct http_conn_ops *ops, void *arg,
                                 struct chain *first)
{
        return begin(sizeof(struct h1_conn), io, true, o, ops, arg, first);
}

struct http_conn *http_server_auto(struct conn *io, const struct http_opts *o, const struct http_conn_ops *ops, void *arg,
                                   struct chain *first)
{
        const struct tls_info *t = conn_tls_info(io);

        if (t && str_eq(t->alpn, STR("h2")))
                return http_server_h2(io, o, ops, arg, first);
        if (t && t->alpn.n)
                return http_server_h1(io, o, ops, arg, first);
        size_t n = sizeof(struct h1_conn) > h2_conn_bytes() ? sizeof(struct h1_conn) : h2_conn_bytes();
        struct http_conn *c = begin(n, io, true, o, ops, arg, first);

        h1_of(c)->sniff = true;
        return c;
}

struct http_conn *http_client_h1(struct conn *io, const struct http_opts *o, const struct http_conn_ops *ops, void *arg)
{
        struct http_conn *c = begin(sizeof(struct h1_conn), io, false, o, ops, arg, NULL);

        h1_of(c)->connecting = !http_io_open(io);
        return c;
}
