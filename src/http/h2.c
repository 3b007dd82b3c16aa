/* HTTP/2 on nghttp2, which does framing, HPACK, flow control arithmetic and the message rules of RFC 9113 §8; this file does memory,
 * back-pressure and the floods that a library cannot judge.
 *
 * nghttp2's callbacks only record: received heads, data, ends and resets wait in their streams, on the list of `ready` ones, until the
 * bytes that were read are all parsed. Only then is the owner called, so that its calls into nghttp2 never come from inside nghttp2,
 * several DATA frames arrive in one on_data, and a request that was reset in the same packet costs nothing upstream. Windows are given back
 * when the owner takes the data, on both levels: what a connection can make us hold is its window.
 *
 * An upgrade looks the same as in HTTP/1.1: extended CONNECT (RFC 8441) is presented as GET with `protocol`, its 2xx as 101, and the
 * reverse. */
#include "http/h2.h"

#include "base/mem.h"
#include "http/h1.h"

#include <stdlib.h>

enum {
        READ_BYTES = CHAIN_SLAB_BYTES,
        READS_A_TURN = 8,
        OUT_MAX = 128 * 1024,      /* bytes framed ahead of the socket */
        FRAMES_QUEUED_MAX = 10000, /* Envoy's max_outbound_frames */
        RESETS_BURST = 1000,       /* rapid reset (CVE-2023-44487) */
        RESETS_A_SECOND = 33,
        CONTINUATIONS_MAX = 8,
};

void h2_schedule(struct h2_conn *c)
{
        loop_defer(c->base.loop, &c->task);
}

void h2_kill(struct h2_conn *c, const char *error)
{
        if (c->dead)
                return;
        c->dead = true;
        if (!c->base.error)
                c->base.error = error;
        h2_schedule(c);
}

/* ---- streams ---- */

static void link_to(struct h2_stream **list, struct h2_stream *s)
{
        s->next = *list;
        s->pprev = list;
        if (s->next)
                s->next->pprev = &s->next;
        *list = s;
}

static void unlink_from(struct h2_stream *s)
{
        *s->pprev = s->next;
        if (s->next)
                s->next->pprev = s->pprev;
}

struct h2_stream *h2_stream_new(struct h2_conn *c)
{
        struct h2_stream *s = h2_stream_of(http_stream_get(&c->base, 1, sizeof(*s)));

        link_to(&c->streams, s);
        c->nstreams++;
        return s;
}

void h2_set_ready(struct h2_conn *c, struct h2_stream *s)
{
        if (s->listed_ready)
                return;
        s->listed_ready = true;
        s->next_ready = NULL;
        *c->ready_end = s;
        c->ready_end = &s->next_ready;
}

/* nghttp2 is done with it, or we with nghttp2: it closes at the end of the turn. */
void h2_close_stream(struct h2_conn *c, struct h2_stream *s, enum http_reset why)
{
        if (s->closed)
                return;
        s->closed = true;
        s->why = (uint8_t)why;
        if (s->base.id)
                nghttp2_session_set_stream_user_data(c->session, (int32_t)s->base.id, NULL);
        unlink_from(s);
        link_to(&c->closed, s);
        c->nstreams--;
        chain_fini(&s->out);
        if (why != HTTP_RESET_NONE && s->in.n) {
                nghttp2_session_consume_connection(c->session, s->in.n);
                chain_fini(&s->in);
        }
        h2_schedule(c);
}

static void stream_free(struct h2_conn *c, struct h2_stream *s)
{
        if (s->listed_ready) {
                struct h2_stream **p = &c->ready;

                while (*p != s)
                        p = &(*p)->next_ready;
                *p = s->next_ready;
                if (c->ready_end == &s->next_ready)
                        c->ready_end = p;
        }
        unlink_from(s);
        chain_fini(&s->in);
        chain_fini(&s->out);
        http_stream_put(&s->base, 1);
}

static uint32_t reset_code(const struct h2_conn *c, enum http_reset why)
{
        switch (why) {
        case HTTP_RESET_REFUSED:
                return NGHTTP2_REFUSED_STREAM;
        case HTTP_RESET_PROTOCOL:
                return NGHTTP2_PROTOCOL_ERROR;
        case HTTP_RESET_OVERFLOW:
                return NGHTTP2_ENHANCE_YOUR_CALM;
        case HTTP_RESET_NONE:
                return NGHTTP2_NO_ERROR;
        default:
                return c->base.server ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_CANCEL;
        }
}

void h2_abort_stream(struct h2_conn *c, struct h2_stream *s, enum http_reset why)
{
        if (s->closed)
                return;
        if (s->base.id)
                nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, (int32_t)s->base.id, reset_code(c, why));
        h2_close_stream(c, s, why);
}

/* ---- the end of the turn ---- */

static void flush(struct h2_conn *c)
{
        if (c->dead || c->connecting || c->eof)
                return;
        for (;;) {
                while (c->out.n < OUT_MAX) {
                        const uint8_t *p;
                        ssize_t n = nghttp2_session_mem_send(c->session, &p);

                        if (n < 0) {
                                h2_kill(c, nghttp2_strerror((int)n));
                                return;
                        }
                        if (n == 0)
                                break;
                        chain_append(&c->out, p, (size_t)n);
                }
                if (!c->out.n)
                        return;
                enum io_result r = conn_write_chain(c->base.io, &c->out);

                if (r == IO_ERROR)
                        h2_kill(c, conn_error_text(c->base.io));
                if (r != IO_OK)
                        return;
        }
}

static void call_drains(struct h2_conn *c)
{
        struct h2_stream *next;

        if (!c->drains)
                return;
        c->drains = false;
        for (struct h2_stream *s = c->streams; s; s = next) {
                next = s->next;
                if (!s->drained)
                        continue;
                s->drained = false;
                if (s->base.ops->on_drain && !s->tx_end)
                        s->base.ops->on_drain(&s->base, s->base.arg);
                /* The owner may have closed any stream, the next one too; the lists change only by moving to `closed`. */
                if (next && next->closed)
                        next = c->streams;
        }
}

static const char *refusal(const struct h2_stream *s)
{
        return s->overflow ? "http2.headers_too_large" : "http2.violation.of.messaging.rule";
}

/* on_close for what is closed and told. False when there was none. */
static bool bury_streams(struct h2_conn *c, bool all)
{
        struct h2_stream *next;
        bool any = false;

        for (struct h2_stream *s = c->closed; s; s = next) {
                next = s->next;
                if (!h2_all_told(s)) {
                        if (!all)
                                continue; /* paused: the rest is still to be taken */
                        s->why = HTTP_RESET_CONN_CLOSED;
                }
                if (c->base.server && !s->head_given && (s->why == HTTP_RESET_PROTOCOL || s->why == HTTP_RESET_OVERFLOW)) {
                        h2_announce(c, s);
                        if (c->base.ops->on_refused)
                                c->base.ops->on_refused(&c->base, c->base.arg, &s->base, 0, refusal(s));
                }
                if ((s->announced || !c->base.server) && s->base.ops->on_close)
                        s->base.ops->on_close(&s->base, s->base.arg, (enum http_reset)s->why);
                stream_free(c, s);
                any = true;
                next = c->closed; /* the owner may have closed others */
        }
        return any;
}

static void bury(struct h2_conn *c)
{
        while (c->streams) {
                struct h2_stream *s = c->streams;
                bool failed = c->base.error && !c->eof;

                h2_close_stream(c, s,
                                s->base.id || !s->tx_head ? (failed ? HTTP_RESET_CONN_FAILED : HTTP_RESET_CONN_CLOSED) : HTTP_RESET_LOCAL);
        }
        bury_streams(c, true);
        if (c->base.ops->on_close)
                c->base.ops->on_close(&c->base, c->base.arg);
        loop_undefer(c->base.loop, &c->task);
        if (c->out.n && !c->connecting)
                conn_write_chain(c->base.io, &c->out);
        nghttp2_session_del(c->session);
        chain_fini(&c->in);
        chain_fini(&c->out);
        conn_close(c->base.io, false);
        c->base.magic = 0;
        free(c);
}

static bool idle_ends(const struct h2_conn *c)
{
        if (c->nstreams || c->closed)
                return false;
        return c->base.server ? c->drain_final && !c->out.n && !nghttp2_session_want_write(c->session) : c->goaway || c->draining;
}

/* Feeds what is in c->in to nghttp2, piece by piece, then tells the owners. */
static void feed(struct h2_conn *c)
{
        while (c->in.n && !c->dead) {
                struct str piece = chain_front(&c->in);
                size_t before = c->in.n;
                ssize_t n = nghttp2_session_mem_recv(c->session, (const uint8_t *)piece.p, piece.n);

                if (n < 0) {
                        if (!c->base.error)
                                c->base.error = nghttp2_strerror((int)n);
                        flush(c);
                        h2_kill(c, NULL);
                        break;
                }
                /* Data that was moved out has taken the bytes before it along. */
                chain_drop(&c->in, (size_t)n - (before - c->in.n));
                if (nghttp2_session_get_outbound_queue_size(c->session) > FRAMES_QUEUED_MAX + c->nstreams) {
                        h2_kill(c, "too many frames to answer");
                        break;
                }
        }
        h2_deliver_all(c);
        h2_schedule(c);
}

static void turn(struct h2_conn *c)
{
        if (c->in.n && !c->dead)
                feed(c);
        h2_deliver_all(c);
        flush(c);
        call_drains(c);
        if (!c->dead && bury_streams(c, false) && !c->nstreams && !c->closed && !c->dead && c->base.ops->on_idle)
                c->base.ops->on_idle(&c->base, c->base.arg);
        if (!c->dead && !c->connecting && !c->closed && !nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session) &&
            !c->out.n)
                h2_kill(c, NULL);
        if (!c->dead && c->eof && !c->closed)
                h2_kill(c, NULL);
        if (!c->dead && idle_ends(c))
                h2_kill(c, NULL);
        if (c->dead)
                bury(c);
}

static void on_task(struct loop_task *t)
{
        turn(t->arg);
}

/* ---- the socket ---- */

/* What is complete and waits for a paused owner is still delivered; the rest is over. */
static void on_eof(struct h2_conn *c)
{
        c->eof = c->goaway = true;
        if (c->nstreams && !c->base.error)
                c->base.error = "connection closed by the peer";
        while (c->streams)
                h2_close_stream(c, c->streams, HTTP_RESET_CONN_CLOSED);
        h2_schedule(c);
}

static void on_readable(struct conn *io, void *arg)
{
        struct h2_conn *c = arg;

        if (c->eof)
                return;
        for (unsigned i = 0; i < READS_A_TURN && !c->dead; i++) {
                size_t n;
                enum io_result r = conn_read_chain(io, &c->in, READ_BYTES, &n);

                if (r == IO_AGAIN)
                        return;
                if (r == IO_EOF) {
                        on_eof(c);
                        return;
                }
                if (r == IO_ERROR) {
                        h2_kill(c, conn_error_text(io));
                        return;
                }
                feed(c);
        }
        if (!c->dead)
                conn_resume_read(io);
}

static void on_writable(struct conn *io, void *arg)
{
        turn(arg);
}

static void on_connect(struct conn *io, void *arg, int err)
{
        struct h2_conn *c = arg;

        c->connecting = false;
        if (c->dead)
                return;
        if (err)
                c->base.error = conn_error_text(io);
        if (c->base.ops->on_connect)
                c->base.ops->on_connect(&c->base, c->base.arg, err);
        if (err)
                h2_kill(c, NULL);
        h2_schedule(c);
}

static const struct conn_ops h2_io_ops = { .on_connect = on_connect, .on_readable = on_readable, .on_writable = on_writable };

/* ---- the owner's calls ---- */

static void h2_reset(struct http_stream *hs, enum http_reset why)
{
        struct h2_conn *c = h2_of(hs->c);

        if (!c->dead)
                h2_abort_stream(c, h2_stream_of(hs), why == HTTP_RESET_NONE ? HTTP_RESET_LOCAL : why);
}

static void h2_pause(struct http_stream *hs, bool on)
{
        struct h2_stream *s = h2_stream_of(hs);
        struct h2_conn *c = h2_of(hs->c);

        s->paused = on;
        if (!on && !c->dead) {
                h2_set_ready(c, s);
                h2_schedule(c);
        }
}

static size_t h2_unsent(const struct http_stream *hs)
{
        return ((const struct h2_stream *)hs)->out.n;
}

static bool h2_blocked(const struct http_stream *hs)
{
        return ((const struct h2_stream *)hs)->blocked;
}

static bool h2_can_stream(const struct http_conn *hc)
{
        const struct h2_conn *c = (const struct h2_conn *)hc;

        return !c->dead && !c->eof && !c->goaway && !c->draining &&
               c->nstreams < nghttp2_session_get_remote_settings(c->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS) &&
               nghttp2_session_check_request_allowed(c->session);
}

static struct http_stream *h2_new_stream(struct http_conn *hc)
{
        return h2_can_stream(hc) ? &h2_stream_new(h2_of(hc))->base : NULL;
}

static unsigned h2_streams(const struct http_conn *hc)
{
        return ((const struct h2_conn *)hc)->nstreams;
}

/* Server: a GOAWAY with the highest id stops new streams without refusing those under way; the peer's PING answer shows that it has seen
 * it, and then the real last id is told (RFC 9113 §6.8). */
static void h2_drain(struct http_conn *hc)
{
        static const uint8_t mark[8] = "drain";
        struct h2_conn *c = h2_of(hc);

        if (c->draining || c->dead)
                return;
        c->draining = true;
        if (c->base.server) {
                nghttp2_submit_shutdown_notice(c->session);
                nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, mark);
        }
        h2_schedule(c);
}

static void h2_close(struct http_conn *hc)
{
        struct h2_conn *c = h2_of(hc);

        if (!c->dead && !c->connecting) {
                while (c->streams)
                        h2_close_stream(c, c->streams, HTTP_RESET_LOCAL);
                nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR);
                flush(c);
        }
        h2_kill(c, NULL);
}

static const struct http_codec h2_codec = {
        .send_head = h2_send_head,
        .send_data = h2_send_data,
        .send_trailers = h2_send_trailers,
        .reset = h2_reset,
        .pause = h2_pause,
        .unsent = h2_unsent,
        .blocked = h2_blocked,
        .new_stream = h2_new_stream,
        .can_stream = h2_can_stream,
        .streams = h2_streams,
        .drain = h2_drain,
        .close = h2_close,
        .version = HTTP_2,
};

/* ---- making one ---- */

static nghttp2_session *session_new(struct h2_conn *c)
{
        nghttp2_session_callbacks *cb;
        nghttp2_session *session = NULL;
        nghttp2_option *opt;

        if (nghttp2_session_callbacks_new(&cb) || nghttp2_option_new(&opt))
                abort();
        h2_recv_callbacks(cb);
        h2_send_callbacks(cb);
        nghttp2_option_set_no_auto_window_update(opt, 1);
        nghttp2_option_set_no_closed_streams(opt, 1);
        nghttp2_option_set_max_outbound_ack(opt, 1000);
        nghttp2_option_set_max_settings(opt, 32);
        nghttp2_option_set_peer_max_concurrent_streams(opt, 100);
        nghttp2_option_set_max_send_header_block_length(opt, 256 * 1024);
        nghttp2_option_set_stream_reset_rate_limit(opt, RESETS_BURST, RESETS_A_SECOND);
        nghttp2_option_set_max_continuations(opt, CONTINUATIONS_MAX);
        int r = c->base.server ? nghttp2_session_server_new2(&session, cb, c, opt) : nghttp2_session_client_new2(&session, cb, c, opt);

        if (r)
                abort();
        nghttp2_option_del(opt);
        nghttp2_session_callbacks_del(cb);
        return session;
}

static void greet(struct h2_conn *c)
{
        const struct http_opts *o = &c->base.o;
        nghttp2_settings_entry e[5];
        size_t n = 0;

        e[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, o->h2_initial_window };
        if (c->base.server)
                e[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, o->h2_max_streams };
        else
                e[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 };
        if (c->base.server && o->h2_connect_protocol)
                e[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 };
        if (o->max_head_bytes <= UINT32_MAX)
                e[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)o->max_head_bytes };
        nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, e, n);
        nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, (int32_t)o->h2_conn_window);
}

static void begin(struct h2_conn *c, struct conn *io, bool server, const struct http_opts *o, const struct http_conn_ops *ops, void *arg,
                  struct chain *first)
{
        http_conn_init(&c->base, &h2_codec, io, server, o, ops, arg);
        c->task.fn = on_task;
        c->task.arg = c;
        c->ready_end = &c->ready;
        c->session = session_new(c);
        greet(c);
        if (first)
                chain_move(&c->in, first);
        conn_set_ops(io, &h2_io_ops, c);
        h2_schedule(c); /* which also feeds `first`: not from inside the owner's call */
}

size_t h2_conn_bytes(void)
{
        return sizeof(struct h2_conn);
}

void h2_server_begin(void *mem, struct conn *io, const struct http_opts *o, const struct http_conn_ops *ops, void *arg, struct chain *first)
{
        begin(mem, io, true, o, ops, arg, first);
}

struct http_conn *http_server_h2(struct conn *io, const struct http_opts *o, const struct http_conn_ops *ops, void *arg,
                                 struct chain *first)
{
        struct h2_conn *c = MEM_NEW(struct h2_conn);

        begin(c, io, true, o, ops, arg, first);
        return &c->base;
}

struct http_conn *http_client_h2(struct conn *io, const struct http_opts *o, const struct http_conn_ops *ops, void *arg)
{
        struct h2_conn *c = MEM_NEW(struct h2_conn);

        begin(c, io, false, o, ops, arg, NULL);
        c->connecting = !http_io_open(io);
        return &c->base;
}
