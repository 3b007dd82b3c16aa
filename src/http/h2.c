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
#include "http/codec.h"
#include "http/h1.h"
#include "http/simple.h"

#include "base/log.h"
#include "base/mem.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>

enum {
        READ_BYTES = CHAIN_SLAB_BYTES,
        READS_A_TURN = 8,
        OUT_MAX = 128 * 1024,       /* bytes framed ahead of the socket */
        COPY_BYTES = 2048,          /* smaller DATA is copied, so that it does not pin a slab */
        FRAMES_QUEUED_MAX = 10000,  /* Envoy's max_outbound_frames */
        EMPTY_FRAMES_MAX = 100,     /* in a row */
        PRIORITIES_A_STREAM = 100,  /* Envoy's max_inbound_priority_frames_per_stream */
        WINDOW_UPDATES_A_DATA = 10, /* Envoy's max_inbound_window_update_frames_per_data_frame_sent */
        RESETS_BURST = 1000,        /* rapid reset (CVE-2023-44487) */
        RESETS_A_SECOND = 33,
        CONTINUATIONS_MAX = 8,
        INTERIMS_MAX = 32,
        COOKIES_MAX_BYTES = 64 * 1024,
};

struct h2_stream {
        struct http_stream base;
        struct h2_stream *next, **pprev; /* of the connection's streams, or of its closed ones */
        struct h2_stream *next_ready;
        struct http_head *head, *trailers; /* received */
        struct chain in, out;
        struct http_head *tx_trailers;
        struct str protocol; /* client: of the upgrade asked for */
        size_t head_bytes;
        unsigned head_fields;
        uint8_t why; /* enum http_reset, once closed */
        uint8_t interims;
        bool listed_ready;
        bool announced;              /* server: on_stream was called */
        bool head_ready, head_given; /* given: the final one */
        bool rx_end, end_given;
        bool tx_head, tx_end, tx_done; /* done: END_STREAM is framed */
        bool deferred;                 /* nghttp2 waits for nghttp2_session_resume_data() */
        bool paused, blocked, drained;
        bool closed; /* nghttp2 knows it no more */
        bool remote_reset;
        bool method_head, upgrade;
        bool overflow;
};

struct h2_conn {
        struct http_conn base;
        nghttp2_session *session;
        struct chain in, out;
        struct loop_task task;
        struct h2_stream *streams, *closed, *ready, **ready_end;
        unsigned nstreams;
        uint32_t opened, data_sent, priorities, window_updates, empties;
        bool dead, receiving, connecting, eof;
        bool goaway; /* client: no new streams */
        bool draining, drain_final;
        bool drains; /* some stream's on_drain is due */
};

static struct h2_conn *h2_of(struct http_conn *c)
{
        return (struct h2_conn *)c;
}

static struct h2_stream *h2_stream_of(struct http_stream *s)
{
        return (struct h2_stream *)s;
}

static void schedule(struct h2_conn *c)
{
        loop_defer(c->base.loop, &c->task);
}

static void kill(struct h2_conn *c, const char *error)
{
        if (c->dead)
                return;
        c->dead = true;
        if (!c->base.error)
                c->base.error = error;
        schedule(c);
}

/* Ends the session with a GOAWAY that says why. */
static void violate(struct h2_conn *c, uint32_t code, const char *error)
{
        if (!c->base.error)
                c->base.error = error;
        nghttp2_session_terminate_session(c->session, code);
        schedule(c);
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

static struct h2_stream *stream_new(struct h2_conn *c)
{
        struct h2_stream *s = h2_stream_of(http_stream_get(&c->base, 1, sizeof(*s)));

        link_to(&c->streams, s);
        c->nstreams++;
        return s;
}

static void set_ready(struct h2_conn *c, struct h2_stream *s)
{
        if (s->listed_ready)
                return;
        s->listed_ready = true;
        s->next_ready = NULL;
        *c->ready_end = s;
        c->ready_end = &s->next_ready;
}

/* nghttp2 is done with it, or we with nghttp2: it closes at the end of the turn. */
static void close_stream(struct h2_conn *c, struct h2_stream *s, enum http_reset why)
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
        schedule(c);
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

static void abort_stream(struct h2_conn *c, struct h2_stream *s, enum http_reset why)
{
        if (s->closed)
                return;
        if (s->base.id)
                nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, (int32_t)s->base.id, reset_code(c, why));
        close_stream(c, s, why);
}

/* ---- receiving: nghttp2's callbacks ---- */

static void deliver(struct h2_conn *c, struct h2_stream *s);

static void begin_head(struct h2_stream *s, struct http_head **m)
{
        *m = arena_alloc(&s->base.arena, sizeof(**m));
        http_head_init(*m, &s->base.arena);
        (*m)->version = HTTP_2;
        s->head_bytes = 0;
        s->head_fields = 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
        struct h2_conn *c = arg;
        struct h2_stream *s = nghttp2_session_get_stream_user_data(session, f->hd.stream_id);

        if (c->base.server && f->headers.cat == NGHTTP2_HCAT_REQUEST) {
                s = stream_new(c);
                s->base.id = (uint32_t)f->hd.stream_id;
                c->opened++;
                nghttp2_session_set_stream_user_data(session, f->hd.stream_id, s);
        }
        if (!s)
                return 0;
        if (s->head_ready) /* interim heads in one packet: each gets its turn */
                deliver(c, s);
        if (s->closed)
                return 0;
        begin_head(s, s->head_given ? &s->trailers : &s->head);
        return 0;
}

static struct str in_arena(struct h2_stream *s, nghttp2_vec v)
{
        return arena_str(&s->base.arena, str_make((const char *)v.base, v.len));
}

/* A pseudo-header: nghttp2 has checked that it may be here and comes once. */
static void pseudo(struct h2_stream *s, nghttp2_vec name, nghttp2_vec value)
{
        struct str n = { (const char *)name.base, name.len };
        struct http_head *m = s->head;
        uint64_t v;

        if (str_eq(n, STR(":method")))
                m->method = in_arena(s, value);
        else if (str_eq(n, STR(":path")))
                m->path = in_arena(s, value);
        else if (str_eq(n, STR(":authority")))
                m->authority = in_arena(s, value);
        else if (str_eq(n, STR(":scheme")))
                m->scheme = in_arena(s, value);
        else if (str_eq(n, STR(":protocol")))
                m->protocol = in_arena(s, value);
        else if (str_eq(n, STR(":status")) && str_u64(str_make((const char *)value.base, value.len), &v))
                m->status = (int)v;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *f, nghttp2_rcbuf *rname, nghttp2_rcbuf *rvalue, uint8_t flags,
                     void *arg)
{
        struct h2_conn *c = arg;
        struct h2_stream *s = nghttp2_session_get_stream_user_data(session, f->hd.stream_id);
        nghttp2_vec name = nghttp2_rcbuf_get_buf(rname), value = nghttp2_rcbuf_get_buf(rvalue);

        if (!s)
                return 0;
        s->head_bytes += name.len + value.len;
        if (s->head_bytes > c->base.o.max_head_bytes || ++s->head_fields > c->base.o.max_headers + 5) {
                s->overflow = true;
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
        struct http_head *m = s->head_given ? s->trailers : s->head;

        if (name.len && name.base[0] == ':') {
                pseudo(s, name, value);
                return 0;
        }
        struct str n = { (const char *)name.base, name.len };
        enum http_name id = http_name_id(n);

        if (id == HN_HOST) { /* :authority wins (RFC 9113 §8.3.1) */
                if (!m->authority.n)
                        m->authority = in_arena(s, value);
                return 0;
        }
        if (id)
                http_add(m, id, in_arena(s, value));
        else
                http_add_name(m, in_arena(s, name), in_arena(s, value));
        if (flags & NGHTTP2_NV_FLAG_NO_INDEX)
                m->h[m->n - 1].flags |= HTTP_HDR_NEVER_INDEX;
        return 0;
}

/* nghttp2 would drop a field with forbidden bytes and carry on: such a message is refused instead. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *f, nghttp2_rcbuf *name, nghttp2_rcbuf *value, uint8_t flags,
                             void *arg)
{
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *f, int code, void *arg)
{
        struct h2_conn *c = arg;

        if (!f->hd.stream_id && !c->base.error)
                c->base.error = nghttp2_strerror(code);
        return 0;
}

/* RFC 9113 §8.2.3: Cookie fields that were split for compression become one. */
static void join_cookies(struct http_head *m)
{
        size_t n = 0, fields = 0;

        for (unsigned i = 0; i < m->n; i++)
                if (m->h[i].id == HN_COOKIE) {
                        n += m->h[i].value.n + 2;
                        fields++;
                }
        if (fields < 2 || n > COOKIES_MAX_BYTES)
                return;
        char *p = arena_alloc(m->arena, n), *q = p;

        for (unsigned i = 0; i < m->n; i++) {
                if (m->h[i].id != HN_COOKIE)
                        continue;
                if (q > p) {
                        memcpy(q, "; ", 2);
                        q += 2;
                }
                memcpy(q, m->h[i].value.p, m->h[i].value.n);
                q += m->h[i].value.n;
        }
        http_set(m, HN_COOKIE, str_make(p, (size_t)(q - p)));
}

static void got_head(struct h2_conn *c, struct h2_stream *s)
{
        struct http_head *m = s->head;
        struct http_hdr *cl = http_get(m, HN_CONTENT_LENGTH);
        uint64_t v;

        if (cl && str_u64(cl->value, &v) && v <= INT64_MAX)
                m->content_length = (int64_t)v;
        if (c->base.server) {
                s->method_head = str_eq(m->method, STR("HEAD"));
                join_cookies(m);
                if (m->protocol.n) {
                        s->upgrade = true;
                        m->method = STR("GET");
                }
                if (!http_authority_ok(m->authority)) {
                        abort_stream(c, s, HTTP_RESET_PROTOCOL);
                        return;
                }
        } else if (s->upgrade && m->status >= 200 && m->status < 300) {
                m->status = 101;
                m->protocol = s->protocol;
        }
        s->head_ready = true;
        set_ready(c, s);
}

static void got_headers(struct h2_conn *c, const nghttp2_frame *f)
{
        struct h2_stream *s = nghttp2_session_get_stream_user_data(c->session, f->hd.stream_id);

        if (!s)
                return;
        if (f->hd.flags & NGHTTP2_FLAG_END_STREAM)
                s->rx_end = true;
        if (s->trailers)
                set_ready(c, s);
        else
                got_head(c, s);
}

/* Frames that cost their sender nothing are counted against what it asked of us. */
static void count_frame(struct h2_conn *c, const nghttp2_frame *f)
{
        bool empty = (f->hd.type == NGHTTP2_DATA || f->hd.type == NGHTTP2_HEADERS) && !f->hd.length &&
                     !(f->hd.flags & NGHTTP2_FLAG_END_STREAM);

        if (f->hd.type == NGHTTP2_DATA || f->hd.type == NGHTTP2_HEADERS)
                c->empties = empty ? c->empties + 1 : 0;
        if (c->empties > EMPTY_FRAMES_MAX)
                violate(c, NGHTTP2_ENHANCE_YOUR_CALM, "too many empty frames");
        if (f->hd.type == NGHTTP2_PRIORITY && ++c->priorities > (uint64_t)PRIORITIES_A_STREAM * (1 + c->opened))
                violate(c, NGHTTP2_ENHANCE_YOUR_CALM, "too many PRIORITY frames");
        if (f->hd.type == NGHTTP2_WINDOW_UPDATE &&
            ++c->window_updates > 5 + 2 * ((uint64_t)c->opened + (uint64_t)WINDOW_UPDATES_A_DATA * c->data_sent))
                violate(c, NGHTTP2_ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames");
}

static void got_goaway(struct h2_conn *c)
{
        if (c->goaway)
                return;
        c->goaway = true;
        if (c->base.ops->on_goaway)
                c->base.ops->on_goaway(&c->base, c->base.arg);
        schedule(c);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
        struct h2_conn *c = arg;
        struct h2_stream *s;

        count_frame(c, f);
        switch (f->hd.type) {
        case NGHTTP2_HEADERS:
                got_headers(c, f);
                break;
        case NGHTTP2_DATA:
                s = nghttp2_session_get_stream_user_data(session, f->hd.stream_id);
                if (s && (f->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
                        s->rx_end = true;
                        set_ready(c, s);
                }
                break;
        case NGHTTP2_RST_STREAM:
                s = nghttp2_session_get_stream_user_data(session, f->hd.stream_id);
                if (s)
                        s->remote_reset = true;
                break;
        case NGHTTP2_GOAWAY:
                got_goaway(c);
                break;
        case NGHTTP2_PING:
                if ((f->hd.flags & NGHTTP2_FLAG_ACK) && c->draining && !c->drain_final) {
                        c->drain_final = true;
                        nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session),
                                              NGHTTP2_NO_ERROR, NULL, 0);
                }
                break;
        default:
                break;
        }
        return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
        struct h2_conn *c = arg;
        struct h2_stream *s = nghttp2_session_get_stream_user_data(session, id);

        if (!s) {
                nghttp2_session_consume(session, id, n);
                return 0;
        }
        if (n < COPY_BYTES) {
                chain_append(&s->in, p, n);
        } else {
                /* p lies in the front piece of c->in, which is what nghttp2 is reading: the bytes before it are done with. */
                chain_drop(&c->in, (size_t)((const char *)p - chain_front(&c->in).p));
                chain_move_n(&s->in, &c->in, n);
        }
        set_ready(c, s);
        return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
        struct h2_conn *c = arg;
        struct h2_stream *s = nghttp2_session_get_stream_user_data(session, id);
        enum http_reset why;

        if (!s)
                return 0;
        if (s->rx_end && (s->tx_end || code == NGHTTP2_NO_ERROR))
                why = code == NGHTTP2_NO_ERROR ? HTTP_RESET_NONE : HTTP_RESET_REMOTE;
        else if (code == NGHTTP2_REFUSED_STREAM)
                why = HTTP_RESET_REFUSED;
        else if (s->overflow)
                why = HTTP_RESET_OVERFLOW;
        else
                why = s->remote_reset ? HTTP_RESET_REMOTE : HTTP_RESET_PROTOCOL;
        close_stream(c, s, why);
        return 0;
}

/* ---- telling the owner ---- */

static void announce(struct h2_conn *c, struct h2_stream *s)
{
        if (!c->base.server || s->announced)
                return;
        s->announced = true;
        if (c->base.ops->on_stream)
                c->base.ops->on_stream(&c->base, c->base.arg, &s->base);
}

static void deliver_head(struct h2_conn *c, struct h2_stream *s)
{
        struct http_head *m = s->head;
        bool interim = !c->base.server && m->status < 200 && m->status != 101;
        bool end = s->rx_end && !s->in.n && !s->trailers;

        s->head_ready = false;
        s->head_given = !interim;
        m->no_body = end && !interim;
        if (interim && ++s->interims > INTERIMS_MAX) {
                abort_stream(c, s, HTTP_RESET_PROTOCOL);
                return;
        }
        announce(c, s);
        if (end && !interim)
                s->end_given = true;
        if (s->base.ops->on_head)
                s->base.ops->on_head(&s->base, s->base.arg, m, end && !interim);
}

static void deliver_body(struct h2_conn *c, struct h2_stream *s)
{
        struct chain d = CHAIN_INIT;
        bool end = s->rx_end && !s->trailers;
        size_t n = s->in.n;

        if (!n && !end)
                return;
        chain_move(&d, &s->in);
        if (n) {
                if (s->closed)
                        nghttp2_session_consume_connection(c->session, n);
                else
                        nghttp2_session_consume(c->session, (int32_t)s->base.id, n);
        }
        s->end_given = end;
        if (s->base.ops->on_data)
                s->base.ops->on_data(&s->base, s->base.arg, &d, end);
        chain_fini(&d);
}

/* Has the owner been told all there is? A reset cuts it short. */
static bool all_told(const struct h2_stream *s)
{
        return s->why != HTTP_RESET_NONE || s->end_given || !s->rx_end;
}

static void deliver(struct h2_conn *c, struct h2_stream *s)
{
        bool over = s->closed && s->why != HTTP_RESET_NONE;

        if (s->head_ready && !over)
                deliver_head(c, s);
        over = s->closed && s->why != HTTP_RESET_NONE;
        if (over || s->paused || !s->head_given || s->end_given)
                return;
        deliver_body(c, s);
        over = s->closed && s->why != HTTP_RESET_NONE;
        if (over || s->paused || s->end_given || !s->trailers || !s->rx_end)
                return;
        s->end_given = true;
        if (s->base.ops->on_trailers) {
                s->base.ops->on_trailers(&s->base, s->base.arg, s->trailers);
        } else if (s->base.ops->on_data) {
                struct chain none = CHAIN_INIT;

                s->base.ops->on_data(&s->base, s->base.arg, &none, true);
        }
}

static void deliver_all(struct h2_conn *c)
{
        while (c->ready && !c->dead) {
                struct h2_stream *s = c->ready;

                c->ready = s->next_ready;
                if (!c->ready)
                        c->ready_end = &c->ready;
                s->listed_ready = false;
                deliver(c, s);
        }
}

/* ---- sending ---- */

static ssize_t read_data(nghttp2_session *session, int32_t id, uint8_t *buf, size_t max, uint32_t *flags, nghttp2_data_source *src,
                         void *arg);

static void nv_set(nghttp2_nv *v, struct str name, struct str value, uint8_t flags)
{
        *v = (nghttp2_nv){ (uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)(value.p ? value.p : ""), name.n, value.n, flags };
}

static bool sendable(const struct http_hdr *h)
{
        if (http_name_is_hop(h->id))
                return false;
        return h->id != HN_TE || str_eq_nocase(h->value, STR("trailers"));
}

/* Fields of m behind the first `n` of v. */
static size_t nv_fields(nghttp2_nv *v, size_t n, const struct http_head *m)
{
        for (unsigned i = 0; i < m->n; i++) {
                const struct http_hdr *h = &m->h[i];

                if (sendable(h))
                        nv_set(&v[n++], h->name, h->value,
                               (uint8_t)((h->flags & HTTP_HDR_NEVER_INDEX ? NGHTTP2_NV_FLAG_NO_INDEX : 0) |
                                         (h->id ? NGHTTP2_NV_FLAG_NO_COPY_NAME : 0)));
        }
        return n;
}

static size_t nv_length(nghttp2_nv *v, size_t n, const struct http_head *m, char text[24])
{
        if (m->content_length < 0)
                return n;
        size_t k = 24;
        uint64_t x = (uint64_t)m->content_length;

        do
                text[--k] = (char)('0' + x % 10);
        while (x /= 10);
        nv_set(&v[n], STR("content-length"), str_make(text + k, 24 - k), NGHTTP2_NV_FLAG_NO_COPY_NAME);
        return n + 1;
}

static int send_response(struct h2_conn *c, struct h2_stream *s, const struct http_head *m, bool end, nghttp2_nv *v)
{
        nghttp2_data_provider src = { .source.ptr = s, .read_callback = read_data };
        /* To the peer of an extended CONNECT every 2xx means granted: an owner that answers without granting must not be taken so. */
        int status = m->status == 101 ? 200 : s->upgrade && m->status >= 200 && m->status < 300 ? 501 : m->status;
        char text[24], digits[3] = { (char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10), (char)('0' + status % 10) };
        bool interim = status < 200, bodiless = status == 204 || m->status == 101;
        size_t n = 0;

        nv_set(&v[n++], STR(":status"), str_make(digits, 3), NGHTTP2_NV_FLAG_NO_COPY_NAME);
        n = nv_fields(v, n, m);
        if (!interim && !bodiless && (!end || s->method_head || status == 304 || m->content_length == 0))
                n = nv_length(v, n, m, text);
        if (interim)
                return nghttp2_submit_headers(c->session, NGHTTP2_FLAG_NONE, (int32_t)s->base.id, NULL, v, n, NULL);
        s->tx_head = true;
        s->tx_end = end;
        return nghttp2_submit_response(c->session, (int32_t)s->base.id, v, n, end ? NULL : &src);
}

static int send_request(struct h2_conn *c, struct h2_stream *s, const struct http_head *m, bool end, nghttp2_nv *v)
{
        nghttp2_data_provider src = { .source.ptr = s, .read_callback = read_data };
        bool connect = str_eq(m->method, STR("CONNECT")), upgrade = m->protocol.n > 0;
        char text[24];
        size_t n = 0;

        s->method_head = str_eq(m->method, STR("HEAD"));
        s->upgrade = upgrade;
        s->protocol = arena_str(&s->base.arena, m->protocol);
        nv_set(&v[n++], STR(":method"), upgrade ? STR("CONNECT") : m->method, NGHTTP2_NV_FLAG_NO_COPY_NAME);
        if (upgrade)
                nv_set(&v[n++], STR(":protocol"), m->protocol, NGHTTP2_NV_FLAG_NO_COPY_NAME);
        if (upgrade || !connect) {
                nv_set(&v[n++], STR(":scheme"), m->scheme.n ? m->scheme : STR("http"), NGHTTP2_NV_FLAG_NO_COPY_NAME);
                nv_set(&v[n++], STR(":path"), m->path.n ? m->path : STR("/"), NGHTTP2_NV_FLAG_NO_COPY_NAME);
        }
        nv_set(&v[n++], STR(":authority"), m->authority, NGHTTP2_NV_FLAG_NO_COPY_NAME);
        n = nv_fields(v, n, m);
        if (!upgrade && !connect && (!end || m->content_length == 0))
                n = nv_length(v, n, m, text);
        s->tx_head = true;
        s->tx_end = end;
        int id = nghttp2_submit_request(c->session, NULL, v, n, end ? NULL : &src, s);

        if (id > 0) {
                s->base.id = (uint32_t)id;
                c->opened++;
        }
        return id < 0 ? id : 0;
}

static void h2_send_head(struct http_stream *hs, const struct http_head *m, bool end)
{
        struct h2_stream *s = h2_stream_of(hs);
        struct h2_conn *c = h2_of(hs->c);

        if (c->dead || s->closed || s->tx_head)
                return;
        nghttp2_nv *v = mem_alloc((m->n + 8) * sizeof(*v));
        int r = c->base.server ? send_response(c, s, m, end, v) : send_request(c, s, m, end, v);

        free(v);
        if (r < 0)
                close_stream(c, s, HTTP_RESET_LOCAL);
        schedule(c);
}

static void wake_data(struct h2_conn *c, struct h2_stream *s)
{
        if (s->deferred) {
                s->deferred = false;
                nghttp2_session_resume_data(c->session, (int32_t)s->base.id);
        }
        schedule(c);
}

static void h2_send_data(struct http_stream *hs, struct chain *data, bool end)
{
        struct h2_stream *s = h2_stream_of(hs);
        struct h2_conn *c = h2_of(hs->c);

        if (c->dead || s->closed || !s->tx_head || s->tx_end)
                return;
        s->tx_end = end;
        if (c->base.server && s->method_head)
                chain_fini(data);
        if (data->n >= COPY_BYTES) {
                chain_move(&s->out, data);
        } else {
                struct iovec v[8];
                unsigned k;

                while ((k = chain_iov(data, v, ARRAY_LEN(v))) > 0) {
                        size_t took = 0;

                        for (unsigned i = 0; i < k; i++) {
                                chain_append(&s->out, v[i].iov_base, v[i].iov_len);
                                took += v[i].iov_len;
                        }
                        chain_drop(data, took);
                }
        }
        if (s->out.n > c->base.o.high_mark)
                s->blocked = true;
        wake_data(c, s);
}

static void h2_send_trailers(struct http_stream *hs, const struct http_head *t)
{
        struct h2_stream *s = h2_stream_of(hs);
        struct h2_conn *c = h2_of(hs->c);

        if (c->dead || s->closed || !s->tx_head || s->tx_end)
                return;
        struct http_head *k = arena_alloc(&s->base.arena, sizeof(*k));

        http_head_init(k, &s->base.arena);
        for (unsigned i = 0; i < t->n; i++)
                if (sendable(&t->h[i]))
                        http_add_name(k, arena_str(&s->base.arena, t->h[i].name), arena_str(&s->base.arena, t->h[i].value));
        s->tx_trailers = k->n ? k : NULL;
        s->tx_end = true;
        wake_data(c, s);
}

static void submit_trailers(struct h2_conn *c, struct h2_stream *s)
{
        nghttp2_nv *v = mem_alloc((s->tx_trailers->n + 1) * sizeof(*v));
        size_t n = nv_fields(v, 0, s->tx_trailers);

        nghttp2_submit_trailer(c->session, (int32_t)s->base.id, v, n);
        free(v);
}

static ssize_t read_data(nghttp2_session *session, int32_t id, uint8_t *buf, size_t max, uint32_t *flags, nghttp2_data_source *src,
                         void *arg)
{
        struct h2_conn *c = arg;
        struct h2_stream *s = nghttp2_session_get_stream_user_data(session, id);

        if (!s) /* reset meanwhile: the RST_STREAM is queued behind */
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        size_t n = s->out.n < max ? s->out.n : max;

        if (!n && !s->tx_end) {
                s->deferred = true;
                return NGHTTP2_ERR_DEFERRED;
        }
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        if (n == s->out.n && s->tx_end) {
                *flags |= NGHTTP2_DATA_FLAG_EOF;
                if (s->tx_trailers) {
                        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
                        submit_trailers(c, s);
                }
        }
        return (ssize_t)n;
}

/* A DATA frame with its payload from the stream's chain. */
static int send_data(nghttp2_session *session, nghttp2_frame *f, const uint8_t *head, size_t n, nghttp2_data_source *src, void *arg)
{
        struct h2_conn *c = arg;
        struct h2_stream *s = nghttp2_session_get_stream_user_data(session, f->hd.stream_id);

        if (!s)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        chain_append(&c->out, head, 9);
        if (n < COPY_BYTES) {
                struct iovec v[8];

                for (size_t left = n; left;) {
                        unsigned k = chain_iov(&s->out, v, ARRAY_LEN(v));
                        size_t took = 0;

                        for (unsigned i = 0; i < k && took < left; i++) {
                                size_t m = v[i].iov_len < left - took ? v[i].iov_len : left - took;

                                chain_append(&c->out, v[i].iov_base, m);
                                took += m;
                        }
                        chain_drop(&s->out, took);
                        left -= took;
                }
        } else {
                chain_move_n(&c->out, &s->out, n);
        }
        c->data_sent++;
        if (s->blocked && s->out.n <= c->base.o.low_mark) {
                s->blocked = false;
                s->drained = c->drains = true;
        }
        return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
        struct h2_conn *c = arg;
        bool end = (f->hd.type == NGHTTP2_HEADERS || f->hd.type == NGHTTP2_DATA) && (f->hd.flags & NGHTTP2_FLAG_END_STREAM);
        struct h2_stream *s = end ? nghttp2_session_get_stream_user_data(session, f->hd.stream_id) : NULL;

        if (!s)
                return 0;
        s->tx_done = true;
        /* The response is complete while the request is not: the rest is not wanted (RFC 9113 §8.1). */
        if (c->base.server && !s->rx_end)
                abort_stream(c, s, HTTP_RESET_NONE);
        return 0;
}

static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *f, int code, void *arg)
{
        struct h2_conn *c = arg;
        struct h2_stream *s = f->hd.type == NGHTTP2_HEADERS ? nghttp2_session_get_stream_user_data(session, f->hd.stream_id) : NULL;

        if (s)
                abort_stream(c, s, code == NGHTTP2_ERR_START_STREAM_NOT_ALLOWED ? HTTP_RESET_REFUSED : HTTP_RESET_LOCAL);
        return 0;
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
                                kill(c, nghttp2_strerror((int)n));
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
                        kill(c, conn_error_text(c->base.io));
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
                if (!all_told(s)) {
                        if (!all)
                                continue; /* paused: the rest is still to be taken */
                        s->why = HTTP_RESET_CONN_CLOSED;
                }
                if (c->base.server && !s->head_given && (s->why == HTTP_RESET_PROTOCOL || s->why == HTTP_RESET_OVERFLOW)) {
                        announce(c, s);
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

                close_stream(c, s,
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
                        kill(c, NULL);
                        break;
                }
                /* Data that was moved out has taken the bytes before it along. */
                chain_drop(&c->in, (size_t)n - (before - c->in.n));
                if (nghttp2_session_get_outbound_queue_size(c->session) > FRAMES_QUEUED_MAX + c->nstreams) {
                        kill(c, "too many frames to answer");
                        break;
                }
        }
        deliver_all(c);
        schedule(c);
}

static void turn(struct h2_conn *c)
{
        if (c->in.n && !c->dead)
                feed(c);
        deliver_all(c);
        flush(c);
        call_drains(c);
        if (!c->dead && bury_streams(c, false) && !c->nstreams && !c->closed && !c->dead && c->base.ops->on_idle)
                c->base.ops->on_idle(&c->base, c->base.arg);
        if (!c->dead && !c->connecting && !c->closed && !nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session) &&
            !c->out.n)
                kill(c, NULL);
        if (!c->dead && c->eof && !c->closed)
                kill(c, NULL);
        if (!c->dead && idle_ends(c))
                kill(c, NULL);
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
                close_stream(c, c->streams, HTTP_RESET_CONN_CLOSED);
        schedule(c);
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
                        kill(c, conn_error_text(io));
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
                kill(c, NULL);
        schedule(c);
}

static const struct conn_ops h2_io_ops = { .on_connect = on_connect, .on_readable = on_readable, .on_writable = on_writable };

/* ---- the owner's calls ---- */

static void h2_reset(struct http_stream *hs, enum http_reset why)
{
        struct h2_conn *c = h2_of(hs->c);

        if (!c->dead)
                abort_stream(c, h2_stream_of(hs), why == HTTP_RESET_NONE ? HTTP_RESET_LOCAL : why);
}

static void h2_pause(struct http_stream *hs, bool on)
{
        struct h2_stream *s = h2_stream_of(hs);
        struct h2_conn *c = h2_of(hs->c);

        s->paused = on;
        if (!on && !c->dead) {
                set_ready(c, s);
                schedule(c);
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
        return h2_can_stream(hc) ? &stream_new(h2_of(hc))->base : NULL;
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
        schedule(c);
}

static void h2_close(struct http_conn *hc)
{
        struct h2_conn *c = h2_of(hc);

        if (!c->dead && !c->connecting) {
                while (c->streams)
                        close_stream(c, c->streams, HTTP_RESET_LOCAL);
                nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR);
                flush(c);
        }
        kill(c, NULL);
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
        nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback2(cb, on_header);
        nghttp2_session_callbacks_set_on_invalid_header_callback2(cb, on_invalid_header);
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
        nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
        nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
        nghttp2_session_callbacks_set_send_data_callback(cb, send_data);
        nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
        nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_send);
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
        schedule(c); /* which also feeds `first`: not from inside the owner's call */
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
