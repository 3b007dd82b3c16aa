/* What nghttp2 reports is recorded in the streams here, and told to their owners once the bytes that were read are all parsed. The frames
 * that cost their sender nothing are counted. */
#include "http/h2.h"

enum {
        EMPTY_FRAMES_MAX = 100,     /* in a row */
        PRIORITIES_A_STREAM = 100,  /* Envoy's max_inbound_priority_frames_per_stream */
        WINDOW_UPDATES_A_DATA = 10, /* Envoy's max_inbound_window_update_frames_per_data_frame_sent */
        INTERIMS_MAX = 32,
        COOKIES_MAX_BYTES = 64 * 1024,
};

/* Ends the session with a GOAWAY that says why. */
static void violate(struct h2_conn *c, uint32_t code, const char *error)
{
        if (!c->base.error)
                c->base.error = error;
        nghttp2_session_terminate_session(c->session, code);
        h2_schedule(c);
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
                s = h2_stream_new(c);
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
                        h2_abort_stream(c, s, HTTP_RESET_PROTOCOL);
                        return;
                }
        } else if (s->upgrade && m->status >= 200 && m->status < 300) {
                m->status = 101;
                m->protocol = s->protocol;
        }
        s->head_ready = true;
        h2_set_ready(c, s);
}

static void got_headers(struct h2_conn *c, const nghttp2_frame *f)
{
        struct h2_stream *s = nghttp2_session_get_stream_user_data(c->session, f->hd.stream_id);

        if (!s)
                return;
        if (f->hd.flags & NGHTTP2_FLAG_END_STREAM)
                s->rx_end = true;
        if (s->trailers)
                h2_set_ready(c, s);
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
        h2_schedule(c);
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
                        h2_set_ready(c, s);
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
        if (n < H2_COPY_BYTES) {
                chain_append(&s->in, p, n);
        } else {
                /* p lies in the front piece of c->in, which is what nghttp2 is reading: the bytes before it are done with. */
                chain_drop(&c->in, (size_t)((const char *)p - chain_front(&c->in).p));
                chain_move_n(&s->in, &c->in, n);
        }
        h2_set_ready(c, s);
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
        h2_close_stream(c, s, why);
        return 0;
}

/* ---- telling the owner ---- */

void h2_announce(struct h2_conn *c, struct h2_stream *s)
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
                h2_abort_stream(c, s, HTTP_RESET_PROTOCOL);
                return;
        }
        h2_announce(c, s);
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
bool h2_all_told(const struct h2_stream *s)
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

void h2_deliver_all(struct h2_conn *c)
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

void h2_recv_callbacks(nghttp2_session_callbacks *cb)
{
        nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback2(cb, on_header);
        nghttp2_session_callbacks_set_on_invalid_header_callback2(cb, on_invalid_header);
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
        nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
        nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
}
