/* Heads, data and trailers on their way out: submitted to nghttp2, which asks for the data when windows allow; it goes from the stream's
 * chain to the connection's without being copied, unless it is small. */
#include "http/h2.h"

#include "base/mem.h"

#include <stdlib.h>

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

void h2_send_head(struct http_stream *hs, const struct http_head *m, bool end)
{
        struct h2_stream *s = h2_stream_of(hs);
        struct h2_conn *c = h2_of(hs->c);

        if (c->dead || s->closed || s->tx_head)
                return;
        nghttp2_nv *v = mem_alloc((m->n + 8) * sizeof(*v));
        int r = c->base.server ? send_response(c, s, m, end, v) : send_request(c, s, m, end, v);

        free(v);
        if (r < 0)
                h2_close_stream(c, s, HTTP_RESET_LOCAL);
        h2_schedule(c);
}

static void wake_data(struct h2_conn *c, struct h2_stream *s)
{
        if (s->deferred) {
                s->deferred = false;
                nghttp2_session_resume_data(c->session, (int32_t)s->base.id);
        }
        h2_schedule(c);
}

void h2_send_data(struct http_stream *hs, struct chain *data, bool end)
{
        struct h2_stream *s = h2_stream_of(hs);
        struct h2_conn *c = h2_of(hs->c);

        if (c->dead || s->closed || !s->tx_head || s->tx_end)
                return;
        s->tx_end = end;
        if (c->base.server && s->method_head)
                chain_fini(data);
        if (data->n >= H2_COPY_BYTES) {
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

void h2_send_trailers(struct http_stream *hs, const struct http_head *t)
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
        if (n < H2_COPY_BYTES) {
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
                h2_abort_stream(c, s, HTTP_RESET_NONE);
        return 0;
}

static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *f, int code, void *arg)
{
        struct h2_conn *c = arg;
        struct h2_stream *s = f->hd.type == NGHTTP2_HEADERS ? nghttp2_session_get_stream_user_data(session, f->hd.stream_id) : NULL;

        if (s)
                h2_abort_stream(c, s, code == NGHTTP2_ERR_START_STREAM_NOT_ALLOWED ? HTTP_RESET_REFUSED : HTTP_RESET_LOCAL);
        return 0;
}

void h2_send_callbacks(nghttp2_session_callbacks *cb)
{
        nghttp2_session_callbacks_set_send_data_callback(cb, send_data);
        nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
        nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_send);
}
