/* Parsing what was read: heads, bodies, chunks, tunnels, and the owner told of each. Reading and ending are h1.c's. */
#include "base/mem.h"
#include "http/h1.h"
#include "http/simple.h"

enum { INTERIMS_MAX = 32 };

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

void h1_give_end(struct h1_stream *s)
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

void h1_new_head(struct h1_stream *s)
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
        h1_new_head(s);
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
        h1_new_head(s);
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
                h1_give_end(s);
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
        struct h1_stream *s = c->s = h1_stream_new(c);

        h1_new_head(s);
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

bool h1_process(struct h1_conn *c)
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
                                return c->base.codec->version == HTTP_1_1;
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
