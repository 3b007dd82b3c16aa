/* Writing HTTP/1.1 messages into the connection's chain of outgoing bytes. Nothing is written to the socket here: the end of the loop's
 * turn does that, so that a head and the body behind it leave together. */
#include "http/h1.h"
#include "http/simple.h"

#include "base/mem.h"

#include <stdlib.h>

enum {
        COPY_BYTES = 2048, /* body pieces below this are copied, so that they do not each pin a slab */
        HEAD_SLACK = 256,  /* status or request line, framing fields */
};

/* ---- a head ---- */

struct out {
        char *p;
};

static inline void put(struct out *o, const char *p, size_t n)
{
        memcpy(o->p, p, n);
        o->p += n;
}

#define PUT(o, lit) put((o), "" lit, sizeof(lit) - 1)

static void put_u64(struct out *o, uint64_t v)
{
        char t[20];
        size_t n = 0;

        do
                t[n++] = (char)('0' + v % 10);
        while (v /= 10);
        while (n)
                *o->p++ = t[--n];
}

static void put_name(struct out *o, struct str name, bool title)
{
        char *p = o->p;

        put(o, name.p, name.n);
        if (!title)
                return;
        for (size_t i = 0; i < name.n; i++)
                if ((i == 0 || p[i - 1] == '-') && p[i] >= 'a' && p[i] <= 'z')
                        p[i] = (char)(p[i] - 32);
}

static bool sendable(const struct http_hdr *h)
{
        if (http_name_is_hop(h->id))
                return false;
        return h->id != HN_TE || str_eq_nocase(h->value, STR("trailers"));
}

static size_t fields_bytes(const struct http_head *m)
{
        size_t n = 0;

        for (unsigned i = 0; i < m->n; i++)
                n += m->h[i].name.n + m->h[i].value.n + 4;
        return n;
}

static void put_field(struct out *o, struct str name, struct str value, bool title)
{
        put_name(o, name, title);
        PUT(o, ": ");
        put(o, value.p ? value.p : "", value.n);
        PUT(o, "\r\n");
}

static void put_fields(struct out *o, const struct http_head *m, bool title)
{
        for (unsigned i = 0; i < m->n; i++)
                if (sendable(&m->h[i]))
                        put_field(o, m->h[i].name, m->h[i].value, title);
}

/* Room for a head of at most `bytes`: in the last slab when it fits there, else in `heap`. */
static struct out room(struct h1_conn *c, size_t bytes, char **heap)
{
        *heap = NULL;
        if (bytes <= CHAIN_SLAB_BYTES)
                return (struct out){ chain_reserve(&c->out, bytes).iov_base };
        *heap = mem_alloc(bytes);
        return (struct out){ *heap };
}

static void room_used(struct h1_conn *c, const char *start, const char *end, char *heap)
{
        size_t n = (size_t)(end - start);

        if (heap)
                chain_append(&c->out, heap, n);
        else
                chain_commit(&c->out, n);
        free(heap);
}

static void mark_blocked(struct h1_conn *c, struct h1_stream *s)
{
        if (c->out.n > c->base.o.high_mark)
                s->blocked = true;
}

/* How our message ends, decided with its head. */
static void choose_framing(struct h1_conn *c, struct h1_stream *s, const struct http_head *m, bool end, bool may_have_body)
{
        s->no_body = !may_have_body;
        if (end || !may_have_body) {
                s->tx = end ? TX_DONE : TX_LENGTH;
                s->tx_left = 0;
        } else if (m->content_length >= 0) {
                s->tx = TX_LENGTH;
                s->tx_left = (uint64_t)m->content_length;
        } else if (c->base.server && s->http_10) {
                s->tx = TX_UNTIL_CLOSE;
                c->close_after = true;
        } else {
                s->tx = TX_CHUNKED;
        }
}

static void put_framing(struct out *o, const struct h1_stream *s, bool title, int64_t length)
{
        if (s->tx == TX_CHUNKED) {
                put_field(o, STR("transfer-encoding"), STR("chunked"), title);
        } else if (length >= 0) {
                put_name(o, STR("content-length"), title);
                PUT(o, ": ");
                put_u64(o, (uint64_t)length);
                PUT(o, "\r\n");
        }
}

/* The Content-Length of a response: what an end without a number means depends on whether a body was possible. */
static int64_t response_length(const struct h1_stream *s, const struct http_head *m, bool end, bool may_have_body)
{
        if (m->status == 204 || m->status < 200)
                return -1;
        if (!may_have_body) /* HEAD, 304: what a GET would have told */
                return m->content_length >= 0 ? m->content_length : -1;
        if (end)
                return 0;
        return s->tx == TX_LENGTH ? m->content_length : -1;
}

static void put_status(struct out *o, const struct h1_stream *s, int status)
{
        const char *reason = http_reason(status);

        if (s->http_10)
                PUT(o, "HTTP/1.0 ");
        else
                PUT(o, "HTTP/1.1 ");
        put_u64(o, (uint64_t)status);
        PUT(o, " ");
        put(o, reason, strlen(reason));
        PUT(o, "\r\n");
}

static void put_upgrade(struct out *o, struct str protocol, bool title)
{
        put_field(o, STR("connection"), STR("upgrade"), title);
        put_field(o, STR("upgrade"), protocol, title);
}

static void tunnel(struct h1_conn *c, struct h1_stream *s)
{
        s->tx = TX_TUNNEL;
        s->rx = RX_TUNNEL;
        c->close_after = true;
        h1_schedule(c); /* bytes behind the request may be waiting */
}

static void send_response(struct h1_conn *c, struct h1_stream *s, const struct http_head *m, bool end)
{
        bool title = c->base.o.keep_header_case;
        bool interim = m->status >= 100 && m->status < 200 && m->status != 101;
        bool grants = (m->status == 101 && m->protocol.n) || (s->method_connect && m->status >= 200 && m->status < 300);
        bool may_have_body = !s->method_head && m->status != 204 && m->status != 304 && m->status != 101 && !interim;
        char *heap;

        if (interim && s->http_10)
                return; /* RFC 9110 §15.2: HTTP/1.0 knows none */
        struct out o = room(c, fields_bytes(m) + m->protocol.n + HEAD_SLACK, &heap);
        char *start = o.p;

        put_status(&o, s, m->status);
        put_fields(&o, m, title);
        if (grants) {
                if (m->status == 101)
                        put_upgrade(&o, m->protocol, title);
                tunnel(c, s);
                if (end) {
                        s->tx = TX_DONE;
                        c->shut_wanted = true;
                }
        } else if (!interim) {
                if (s->rx == RX_WAIT_UPGRADE) {
                        s->rx = RX_DONE;
                        s->end_owed = true;
                }
                /* Whatever is left of the request would have to be read before the next one: Envoy closes instead. */
                if (s->rx != RX_DONE || c->draining)
                        c->close_after = true;
                choose_framing(c, s, m, end, may_have_body);
                put_framing(&o, s, title, response_length(s, m, end, may_have_body));
                if (c->close_after)
                        put_field(&o, STR("connection"), STR("close"), title);
                else if (s->http_10)
                        put_field(&o, STR("connection"), STR("keep-alive"), title);
        }
        PUT(&o, "\r\n");
        room_used(c, start, o.p, heap);
}

static bool expects_body(struct str method)
{
        static const struct str none[] = { STR("GET"), STR("HEAD"), STR("DELETE"), STR("OPTIONS"), STR("TRACE"), STR("CONNECT") };

        for (size_t i = 0; i < ARRAY_LEN(none); i++)
                if (str_eq(none[i], method))
                        return false;
        return true;
}

static void send_request(struct h1_conn *c, struct h1_stream *s, const struct http_head *m, bool end)
{
        bool title = c->base.o.keep_header_case;
        char *heap;
        struct out o = room(c, fields_bytes(m) + m->method.n + m->path.n + 2 * m->authority.n + m->protocol.n + HEAD_SLACK, &heap);
        char *start = o.p;
        int64_t length = -1;

        s->method_head = str_eq(m->method, STR("HEAD"));
        s->method_connect = str_eq(m->method, STR("CONNECT"));
        put(&o, m->method.p, m->method.n);
        PUT(&o, " ");
        if (s->method_connect)
                put(&o, m->authority.p, m->authority.n);
        else
                put(&o, m->path.p, m->path.n);
        PUT(&o, " HTTP/1.1\r\n");
        put_field(&o, STR("host"), m->authority, title);
        put_fields(&o, m, title);
        if (s->method_connect || (m->protocol.n && m->content_length <= 0)) {
                if (!s->method_connect)
                        put_upgrade(&o, m->protocol, title);
                s->tx = TX_WAIT_UPGRADE;
                s->held_end = end;
        } else {
                choose_framing(c, s, m, end, true);
                if (s->tx == TX_LENGTH)
                        length = m->content_length;
                else if (end && expects_body(m->method))
                        length = 0;
        }
        put_framing(&o, s, title, length);
        PUT(&o, "\r\n");
        room_used(c, start, o.p, heap);
}

void h1_send_head(struct http_stream *hs, const struct http_head *m, bool end)
{
        struct h1_stream *s = h1_stream_of(hs);
        struct h1_conn *c = h1_of(hs->c);

        if (c->dead || s->failed || s->tx != TX_HEAD)
                return;
        if (c->base.server)
                send_response(c, s, m, end);
        else
                send_request(c, s, m, end);
        mark_blocked(c, s);
        h1_schedule(c);
}

/* ---- a body ---- */

static void out_chain(struct h1_conn *c, struct chain *data)
{
        if (data->n >= COPY_BYTES) {
                chain_move(&c->out, data);
                return;
        }
        struct iovec v[8];
        unsigned n;

        while (data->n) {
                size_t took = 0;

                n = chain_iov(data, v, ARRAY_LEN(v));
                for (unsigned i = 0; i < n; i++) {
                        chain_append(&c->out, v[i].iov_base, v[i].iov_len);
                        took += v[i].iov_len;
                }
                chain_drop(data, took);
        }
}

static void out_chunk(struct h1_conn *c, struct chain *data)
{
        char t[20];
        size_t n = sizeof(t), v = data->n;

        t[--n] = '\n';
        t[--n] = '\r';
        do
                t[--n] = "0123456789abcdef"[v & 15];
        while (v >>= 4);
        chain_append(&c->out, t + n, sizeof(t) - n);
        out_chain(c, data);
        chain_append(&c->out, "\r\n", 2);
}

static void message_sent(struct h1_conn *c, struct h1_stream *s)
{
        if (s->tx == TX_TUNNEL || s->tx == TX_UNTIL_CLOSE)
                c->shut_wanted = s->tx == TX_TUNNEL;
        s->tx = TX_DONE;
}

void h1_send_data(struct http_stream *hs, struct chain *data, bool end)
{
        struct h1_stream *s = h1_stream_of(hs);
        struct h1_conn *c = h1_of(hs->c);

        if (c->dead || s->failed || s->tx == TX_DONE || s->tx == TX_HEAD)
                return;
        if (s->tx == TX_WAIT_UPGRADE) {
                chain_move(&s->held, data);
                s->held_end = s->held_end || end;
                s->blocked = s->held.n > c->base.o.high_mark;
                return;
        }
        if (s->no_body) {
                chain_fini(data);
        } else if (s->tx == TX_LENGTH) {
                if (data->n > s->tx_left || (end && data->n < s->tx_left)) {
                        /* The owner promised another length: the peer must not take this for the whole, nor for more than it. */
                        h1_kill(c, HTTP_RESET_LOCAL, "body does not match its content-length");
                        return;
                }
                s->tx_left -= data->n;
                out_chain(c, data);
        } else if (s->tx == TX_CHUNKED) {
                if (data->n)
                        out_chunk(c, data);
                if (end)
                        chain_append(&c->out, "0\r\n\r\n", 5);
        } else {
                out_chain(c, data);
        }
        if (end)
                message_sent(c, s);
        mark_blocked(c, s);
        h1_schedule(c);
}

void h1_send_trailers(struct http_stream *hs, const struct http_head *t)
{
        struct h1_stream *s = h1_stream_of(hs);
        struct h1_conn *c = h1_of(hs->c);

        if (c->dead || s->failed || s->tx != TX_CHUNKED || s->no_body) {
                /* Only chunks have room for trailers (RFC 9112 §7.1.2); the message ends without them. */
                struct chain none = CHAIN_INIT;

                h1_send_data(hs, &none, true);
                return;
        }
        char *heap;
        struct out o = room(c, fields_bytes(t) + HEAD_SLACK, &heap);
        char *start = o.p;

        PUT(&o, "0\r\n");
        put_fields(&o, t, c->base.o.keep_header_case);
        PUT(&o, "\r\n");
        room_used(c, start, o.p, heap);
        message_sent(c, s);
        h1_schedule(c);
}
