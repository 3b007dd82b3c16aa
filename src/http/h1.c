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
        INTERIMS_MAX = 32,
};

static const struct conn_ops h1_io_ops;
static const struct http_codec h1_codec;

static struct h1_stream *stream_new(struct h1_conn *c)
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

static void give_data(struct h1_stream *s, struct chain *d, bool end)
{
        if (end) {
                s->rx = RX_DONE;
                h1_schedule(h1_of(s->base.c));
        }
        if (s->base.ops->on_data)
                s->base.ops->on_data(&s->base, s->base.arg, d, end);
        chain_fini(d);
}

static void give_end(struct h1_stream *s)
{
        struct chain none = CHAIN_INIT;

        give_data(s, &none, true);
}

/* A request that cannot be understood: the owner hears of it, and may answer; then the connection ends. */
static void refuse(struct h1_conn *c, struct h1_stream *s, int status, const char *details)
{
        if (!c->base.server || s->tx != TX_HEAD) {
                h1_kill(c, HTTP_RESET_PROTOCOL, details);
                return;
        }
        s->rx = RX_DONE;
        s->reset = status == 431 ? HTTP_RESET_OVERFLOW : HTTP_RESET_PROTOCOL;
        c->close_after = true;
        c->base.error = details;
        if (c->base.ops->on_refused)
                c->base.ops->on_refused(&c->base, c->base.arg, &s->base, status, details);
        if (s->tx == TX_HEAD && !c->dead)
                http_answer(&s->base, status, "text/plain", str_of(http_reason(status)));
        h1_schedule(c);
}

/* ---- receiving: heads ---- */

static struct h1_limits limits(const struct h1_conn *c)
{
        const struct http_opts *o = &c->base.o;

        return (struct h1_limits){ o->max_head_bytes, o->max_headers, o->accept_http_10, o->custom_methods };
}

/* Feeds the parser from c->in: straight from the piece that was read, or, when a head comes in several, from s->partial. On DONE the
 * head's bytes have been copied to the arena (*base) and taken out of c->in. */
static enum h1_result parse_head(struct h1_conn *c, struct h1_stream *s, char **base)
{
        struct h1_limits l = limits(c);
        enum h1_result r;

        do {
                struct str piece = chain_front(&c->in);
                char *p = (char *)(uintptr_t)piece.p; /* the slab is ours to write: names are lower-cased in place */
                size_t before = s->partial.n, n = piece.n;

                if (before) {
                        /* No more than the limit and a slab behind it is ever gathered. */
                        buf_append(&s->partial, p, n);
                        p = s->partial.p;
                        n = s->partial.n;
                }
                r = h1_parse(&s->p, &l, p, n, s->head);
                if (r == H1_DONE) {
                        *base = arena_dup(&s->base.arena, p, s->p.at);
                        chain_drop(&c->in, s->p.at - before);
                        buf_fini(&s->partial);
                } else if (r == H1_MORE) {
                        if (!before)
                                buf_append(&s->partial, p, n);
                        chain_drop(&c->in, piece.n);
                }
        } while (r == H1_MORE && c->in.n);
        return r;
}

static void new_head(struct h1_stream *s)
{
        s->head = arena_alloc(&s->base.arena, sizeof(*s->head));
        http_head_init(s->head, &s->base.arena);
}

static void set_body(struct h1_stream *s, enum h1_rx rx, uint64_t left)
{
        s->rx = (uint8_t)rx;
        s->rx_left = left;
        s->chunk = (struct h1_chunk){ 0 };
}

static void give_head(struct h1_stream *s, bool end)
{
        s->head->no_body = end;
        if (s->base.ops->on_head)
                s->base.ops->on_head(&s->base, s->base.arg, s->head, end);
}

static void got_request(struct h1_conn *c, struct h1_stream *s)
{
        const struct h1_parser *p = &s->p;
        bool end = false;

        s->http_10 = p->version == HTTP_1_0;
        s->method_head = str_eq(s->head->method, STR("HEAD"));
        s->method_connect = str_eq(s->head->method, STR("CONNECT"));
        if (p->close || (s->http_10 && !p->keep_alive))
                c->close_after = true;
        if (p->chunked)
                set_body(s, RX_CHUNKED, 0);
        else if (p->content_length > 0 && !s->method_connect)
                set_body(s, RX_LENGTH, (uint64_t)p->content_length);
        else if (s->method_connect || s->head->protocol.n)
                set_body(s, RX_WAIT_UPGRADE, 0);
        else
                end = true;
        /* A request with a body and an upgrade is a plain request: there would be no telling where the body ends and the tunnel begins. */
        if (s->rx == RX_CHUNKED || s->rx == RX_LENGTH) {
                if (s->method_connect) {
                        refuse(c, s, 400, "http1.codec_error");
                        return;
                }
                s->head->protocol = STR("");
        }
        if (end)
                s->rx = RX_DONE;
        give_head(s, end);
}

/* The upgrade or CONNECT was granted: what the owner sent meanwhile goes out. */
static void client_tunnel(struct h1_conn *c, struct h1_stream *s)
{
        set_body(s, RX_TUNNEL, 0);
        s->tx = TX_TUNNEL;
        c->close_after = true;
        chain_move(&c->out, &s->held);
        if (s->held_end) {
                s->tx = TX_DONE;
                c->shut_wanted = true;
        }
}

static void got_interim(struct h1_conn *c, struct h1_stream *s)
{
        if (++s->interims > INTERIMS_MAX) {
                h1_kill(c, HTTP_RESET_PROTOCOL, "too many interim responses");
                return;
        }
        give_head(s, false);
        h1_parser_init(&s->p, H1_RESPONSE);
        new_head(s);
}

static void got_response(struct h1_conn *c, struct h1_stream *s)
{
        const struct h1_parser *p = &s->p;
        int status = p->status;
        bool granted = status == 101 || (s->method_connect && status >= 200 && status < 300);

        if (status >= 100 && status < 200 && status != 101) {
                got_interim(c, s);
                return;
        }
        if (granted && (s->tx != TX_WAIT_UPGRADE || (status == 101 && (s->method_connect || !s->head->protocol.n)))) {
                h1_kill(c, HTTP_RESET_PROTOCOL, "upgrade that was not asked for");
                return;
        }
        bool leaves = p->close || (p->version == HTTP_1_0 && !p->keep_alive);
        bool end = false;

        if (granted) {
                client_tunnel(c, s);
        } else {
                if (s->tx == TX_WAIT_UPGRADE) {
                        chain_fini(&s->held);
                        s->tx = TX_DONE;
                }
                if (s->method_head || status == 204 || status == 304)
                        end = true;
                else if (p->chunked)
                        set_body(s, RX_CHUNKED, 0);
                else if (p->content_length > 0)
                        set_body(s, RX_LENGTH, (uint64_t)p->content_length);
                else if (p->content_length == 0)
                        end = true;
                else
                        set_body(s, RX_UNTIL_CLOSE, 0);
        }
        if (end)
                s->rx = RX_DONE;
        if (leaves || s->rx == RX_UNTIL_CLOSE || granted) {
                c->close_after = true;
                if (c->base.ops->on_goaway)
                        c->base.ops->on_goaway(&c->base, c->base.arg);
        }
        if (!c->dead)
                give_head(s, end);
        h1_schedule(c);
}

static bool rx_head(struct h1_conn *c, struct h1_stream *s)
{
        char *base;

        if (!c->in.n)
                return false;
        if (!c->base.server && s->tx == TX_HEAD) {
                /* An answer before the question: whoever sent it had another exchange in mind. */
                h1_kill(c, HTTP_RESET_PROTOCOL, "response without a request");
                return false;
        }
        enum h1_result r = parse_head(c, s, &base);

        if (r == H1_MORE)
                return false;
        if (r == H1_DONE && !h1_parser_finish(&s->p, base, s->head, c->base.o.absolute_url, conn_is_tls(c->base.io)))
                r = H1_FAIL;
        if (r == H1_FAIL) {
                if (!c->base.server)
                        h1_kill(c, s->p.answer == 431 ? HTTP_RESET_OVERFLOW : HTTP_RESET_PROTOCOL, s->p.details);
                else
                        refuse(c, s, s->p.answer, s->p.details);
                return false;
        }
        if (c->base.server)
                got_request(c, s);
        else
                got_response(c, s);
        return true;
}

/* ---- receiving: bodies ---- */

static bool rx_length(struct h1_conn *c, struct h1_stream *s)
{
        struct chain d = CHAIN_INIT;
        size_t n = c->in.n;

        if (!n)
                return false;
        if (n > s->rx_left)
                n = (size_t)s->rx_left;
        chain_move_n(&d, &c->in, n);
        s->rx_left -= n;
        give_data(s, &d, s->rx_left == 0);
        return true;
}

static void begin_trailers(struct h1_stream *s)
{
        s->rx = RX_TRAILERS;
        h1_parser_init(&s->p, H1_TRAILERS);
        new_head(s);
}

static bool rx_chunked(struct h1_conn *c, struct h1_stream *s)
{
        struct chain d = CHAIN_INIT;
        bool more = true;

        /* As many chunks as are here go to the owner in one call. */
        while (c->in.n && more) {
                struct str piece = chain_front(&c->in);
                size_t used;
                enum h1_chunk_event e = h1_chunk_feed(&s->chunk, piece.p, piece.n, &used);

                chain_drop(&c->in, used);
                if (e == H1_CHUNK_DATA) {
                        size_t n = c->in.n < s->chunk.left ? c->in.n : (size_t)s->chunk.left;

                        chain_move_n(&d, &c->in, n);
                        s->chunk.left -= n;
                } else if (e == H1_CHUNK_LAST) {
                        begin_trailers(s);
                        more = false;
                } else if (e == H1_CHUNK_FAIL) {
                        chain_fini(&d);
                        refuse(c, s, 400, "http1.codec_error");
                        return false;
                }
        }
        if (d.n)
                give_data(s, &d, false);
        return s->rx == RX_TRAILERS;
}

static bool rx_trailers(struct h1_conn *c, struct h1_stream *s)
{
        char *base;

        if (!c->in.n)
                return false;
        enum h1_result r = parse_head(c, s, &base);

        if (r == H1_MORE)
                return false;
        if (r == H1_FAIL) {
                refuse(c, s, s->p.answer, s->p.details);
                return false;
        }
        h1_parser_finish(&s->p, base, s->head, false, false);
        if (!s->head->n || !s->base.ops->on_trailers) {
                give_end(s);
                return true;
        }
        s->rx = RX_DONE;
        h1_schedule(c);
        s->base.ops->on_trailers(&s->base, s->base.arg, s->head);
        return true;
}

static bool rx_raw(struct h1_conn *c, struct h1_stream *s)
{
        struct chain d = CHAIN_INIT;

        if (!c->in.n)
                return false;
        chain_move(&d, &c->in);
        give_data(s, &d, false);
        return true;
}

static bool step(struct h1_conn *c, struct h1_stream *s)
{
        switch ((enum h1_rx)s->rx) {
        case RX_HEAD:
                return rx_head(c, s);
        case RX_LENGTH:
                return rx_length(c, s);
        case RX_CHUNKED:
                return rx_chunked(c, s);
        case RX_TRAILERS:
                return rx_trailers(c, s);
        case RX_UNTIL_CLOSE:
        case RX_TUNNEL:
                return rx_raw(c, s);
        case RX_WAIT_UPGRADE:
        case RX_DONE:
                return false;
        }
        return false;
}

/* Server: the first byte of a request. */
static struct h1_stream *begin_request(struct h1_conn *c)
{
        struct h1_stream *s = c->s = stream_new(c);

        new_head(s);
        if (c->base.ops->on_stream)
                c->base.ops->on_stream(&c->base, c->base.arg, &s->base);
        return s;
}

/* Looks for the HTTP/2 preface. False: more bytes are needed, or the connection is HTTP/2 now and c is no longer what it was. */
static bool sniffed_h1(struct h1_conn *c)
{
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        char got[sizeof(preface) - 1];
        size_t n = chain_peek(&c->in, got, sizeof(got));

        if (memcmp(got, preface, n)) {
                c->sniff = false;
                return true;
        }
        if (n < sizeof(got))
                return false;
        struct http_conn b = c->base;
        struct chain first = c->in;

        loop_undefer(b.loop, &c->task);
        memset(c, 0, sizeof(*c));
        h2_server_begin(c, b.io, &b.o, b.ops, b.arg, &first);
        return false;
}

/* Parses what has been read. False: c became an HTTP/2 connection. */
static bool process(struct h1_conn *c)
{
        while (!c->dead && !c->linger) {
                struct h1_stream *s = c->s;

                if (!s) {
                        if (!c->in.n)
                                break;
                        if (!c->base.server) {
                                h1_kill(c, HTTP_RESET_PROTOCOL, "bytes without a request");
                                break;
                        }
                        if (c->sniff && !sniffed_h1(c))
                                return c->base.codec == &h1_codec;
                        if (c->close_after)
                                break;
                        s = begin_request(c);
                        continue;
                }
                if (s->paused && s->rx != RX_HEAD)
                        break;
                if (!step(c, s))
                        break;
        }
        return true;
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
                give_end(s);
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
                        if (!process(c))
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
                                give_end(s);
                        continue;
                }
                if (s && stream_over(c, s)) {
                        end_stream(c);
                        if (c->dead)
                                continue;
                }
                if (c->in.n && !c->linger) {
                        size_t before = c->in.n;

                        if (!process(c))
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
        c->s = stream_new(c);
        new_head(c->s);
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
