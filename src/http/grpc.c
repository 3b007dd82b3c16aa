/* gRPC calls over streams of either side. A message is five bytes (a flag, a length) and its payload; they are gathered in one buffer a
 * call, which holds at most one message more than what was delivered. The status that ends a call comes from trailers, from a response that
 * is trailers only, or is made up from what happened to the stream (gRPC over HTTP/2, "HTTP to gRPC status code mapping"). */
#include "http/grpc.h"

#include "http/simple.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

enum { PREFIX_BYTES = 5, DEFAULT_MAX_BYTES = 64 * 1024 * 1024, TEXT_MAX = 512 };

struct grpc_call {
        struct http_stream *s;
        const struct grpc_ops *ops;
        void *arg;
        struct loop_timer deadline;
        struct loop_task resume;
        struct http_head *head; /* received */
        struct chain in;        /* bytes of incomplete or held-back messages */
        size_t max_bytes;
        int status; /* client: the server's; -1: not come */
        char text[TEXT_MAX];
        bool server;
        bool paused, delivering;
        bool rx_end; /* the peer sends no more */
        bool half_close_told;
        bool finished; /* server: our status is out. Client: cancelled, or broken */
        bool tx_end;
};

const char *grpc_status_name(int status)
{
        static const char *names[] = {
                "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
                "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
                "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
                "DATA_LOSS", "UNAUTHENTICATED",
        };

        return status >= 0 && status < (int)ARRAY_LEN(names) ? names[status] : "UNKNOWN";
}

static struct loop *loop_of(const struct grpc_call *g)
{
        return conn_loop(http_conn_io(http_stream_conn(g->s)));
}

static void set_status(struct grpc_call *g, int status, struct str text)
{
        size_t n = text.n < TEXT_MAX - 1 ? text.n : TEXT_MAX - 1;

        g->status = status;
        if (n)
                memcpy(g->text, text.p, n);
        g->text[n] = '\0';
}

/* Ends the call from our side with a status of our own making. */
static void give_up(struct grpc_call *g, int status, struct str text)
{
        if (g->finished)
                return;
        if (g->server) {
                grpc_finish(g, status, text);
                return;
        }
        g->finished = true;
        set_status(g, status, text);
        chain_fini(&g->in);
        http_reset(g->s, HTTP_RESET_LOCAL);
}

/* ---- receiving ---- */

/* The next whole message of g->in, or false. */
static bool next_message(struct grpc_call *g, char **p, size_t *n)
{
        unsigned char h[PREFIX_BYTES];

        if (chain_peek(&g->in, h, PREFIX_BYTES) < PREFIX_BYTES)
                return false;
        *n = (size_t)h[1] << 24 | (size_t)h[2] << 16 | (size_t)h[3] << 8 | h[4];
        if (h[0]) {
                give_up(g, GRPC_INTERNAL, STR("compressed message, although no compression was offered"));
                return false;
        }
        if (*n > g->max_bytes) {
                char t[96];
                int k = snprintf(t, sizeof(t), "message of %zu bytes is larger than the limit of %zu", *n, g->max_bytes);

                give_up(g, GRPC_RESOURCE_EXHAUSTED, str_make(t, (size_t)k));
                return false;
        }
        if (g->in.n - PREFIX_BYTES < *n)
                return false;
        chain_drop(&g->in, PREFIX_BYTES);
        *p = mem_alloc(*n + 1);
        chain_peek(&g->in, *p, *n);
        (*p)[*n] = '\0';
        chain_drop(&g->in, *n);
        return true;
}

static void deliver(struct grpc_call *g)
{
        size_t n;
        char *p;

        if (g->delivering)
                return;
        g->delivering = true;
        while (!g->paused && !g->finished && next_message(g, &p, &n)) {
                if (g->ops->on_message)
                        g->ops->on_message(g, g->arg, str_make(p, n));
                free(p);
        }
        g->delivering = false;
        if (!g->rx_end || g->paused || g->finished)
                return;
        if (g->in.n) {
                give_up(g, GRPC_INTERNAL, STR("the stream ended in the middle of a message"));
        } else if (g->server && !g->half_close_told) {
                g->half_close_told = true;
                if (g->ops->on_half_close)
                        g->ops->on_half_close(g, g->arg);
        }
}

static int hex_digit(char c)
{
        c = ascii_lower(c);
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* grpc-message is percent-encoded. */
static void take_status(struct grpc_call *g, const struct http_head *m)
{
        struct http_hdr *h = http_get(m, HN_GRPC_STATUS), *t = http_get(m, HN_GRPC_MESSAGE);
        uint64_t v = GRPC_UNKNOWN;
        size_t k = 0;

        if (!h || g->finished)
                return;
        if (!str_u64(h->value, &v) || v > GRPC_UNAUTHENTICATED)
                v = GRPC_UNKNOWN;
        g->status = (int)v;
        for (size_t i = 0; t && i < t->value.n && k < TEXT_MAX - 1; i++) {
                struct str s = t->value;

                if (s.p[i] == '%' && i + 2 < s.n && hex_digit(s.p[i + 1]) >= 0 && hex_digit(s.p[i + 2]) >= 0) {
                        g->text[k++] = (char)(hex_digit(s.p[i + 1]) << 4 | hex_digit(s.p[i + 2]));
                        i += 2;
                } else {
                        g->text[k++] = s.p[i];
                }
        }
        g->text[k] = '\0';
}

static int status_of_http(int http)
{
        switch (http) {
        case 400:
                return GRPC_INTERNAL;
        case 401:
                return GRPC_UNAUTHENTICATED;
        case 403:
                return GRPC_PERMISSION_DENIED;
        case 404:
                return GRPC_UNIMPLEMENTED;
        case 429:
        case 502:
        case 503:
        case 504:
                return GRPC_UNAVAILABLE;
        default:
                return GRPC_UNKNOWN;
        }
}

static bool is_grpc(const struct http_head *m)
{
        struct http_hdr *t = http_get(m, HN_CONTENT_TYPE);

        if (!t || !str_starts(t->value, STR("application/grpc")))
                return false;
        return t->value.n == 16 || t->value.p[16] == '+' || t->value.p[16] == ';';
}

static void on_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct grpc_call *g = arg;

        if (m->status < 200)
                return;
        g->head = m;
        take_status(g, m);
        if (g->status < 0 && (m->status != 200 || !is_grpc(m))) {
                char t[96];
                int k = snprintf(t, sizeof(t), "HTTP status %d, and not a gRPC response", m->status);

                give_up(g, status_of_http(m->status), str_make(t, (size_t)k));
        }
        if (end) {
                g->rx_end = true;
                deliver(g);
        }
}

static void on_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        struct grpc_call *g = arg;

        if (g->finished)
                return;
        chain_move(&g->in, data);
        g->rx_end = g->rx_end || end;
        deliver(g);
}

static void on_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        struct grpc_call *g = arg;

        if (!g->server)
                take_status(g, t);
        g->rx_end = true;
        deliver(g);
}

static void on_drain(struct http_stream *s, void *arg)
{
        struct grpc_call *g = arg;

        if (g->ops->on_drain && !g->finished)
                g->ops->on_drain(g, g->arg);
}

static void conclude(struct grpc_call *g, enum http_reset why)
{
        if (g->server) {
                set_status(g, g->finished && why == HTTP_RESET_NONE ? GRPC_OK : GRPC_CANCELLED, STR(""));
        } else if (g->status < 0) {
                if (why == HTTP_RESET_NONE)
                        set_status(g, GRPC_INTERNAL, STR("the stream ended without a status"));
                else if (why == HTTP_RESET_LOCAL)
                        set_status(g, GRPC_CANCELLED, STR("cancelled"));
                else if (why == HTTP_RESET_PROTOCOL || why == HTTP_RESET_OVERFLOW)
                        set_status(g, GRPC_INTERNAL, STR("the server broke the protocol"));
                else
                        set_status(g, GRPC_UNAVAILABLE,
                                   why == HTTP_RESET_REFUSED  ? STR("stream refused")
                                   : why == HTTP_RESET_REMOTE ? STR("stream reset by the server")
                                                              : STR("connection lost"));
        }
}

static void on_close(struct http_stream *s, void *arg, enum http_reset why)
{
        struct grpc_call *g = arg;

        loop_timer_stop(loop_of(g), &g->deadline);
        loop_undefer(loop_of(g), &g->resume);
        conclude(g, why);
        if (g->ops->on_end)
                g->ops->on_end(g, g->arg, g->status, str_of(g->text));
        chain_fini(&g->in);
        free(g);
}

static const struct http_stream_ops call_ops = { on_head, on_data, on_trailers, on_drain, on_close };

/* ---- making calls ---- */

static void on_resume(struct loop_task *t)
{
        deliver(t->arg);
}

static struct grpc_call *call_alloc(struct http_stream *s, bool server, const struct grpc_opts *o, const struct grpc_ops *ops, void *arg)
{
        struct grpc_call *g = MEM_NEW(struct grpc_call);

        g->s = s;
        g->server = server;
        g->ops = ops;
        g->arg = arg;
        g->status = -1;
        g->resume.fn = on_resume;
        g->resume.arg = g;
        g->max_bytes = o && o->max_message_bytes ? o->max_message_bytes : DEFAULT_MAX_BYTES;
        return g;
}

static void on_deadline(struct loop_timer *t)
{
        give_up(t->arg, GRPC_DEADLINE_EXCEEDED, STR("deadline exceeded"));
}

struct grpc_call *grpc_call_new(struct http_conn *c, struct str authority, struct str path, const struct grpc_opts *o,
                                const struct grpc_ops *ops, void *arg)
{
        struct http_stream *s = http_client_stream(c, NULL, NULL);
        struct http_head m;

        if (!s)
                return NULL;
        struct grpc_call *g = call_alloc(s, false, o, ops, arg);

        http_stream_set_ops(s, &call_ops, g);
        http_head_init(&m, http_stream_arena(s));
        m.method = STR("POST");
        m.scheme = conn_is_tls(http_conn_io(c)) ? STR("https") : STR("http");
        m.authority = authority;
        m.path = path;
        http_add(&m, HN_CONTENT_TYPE, STR("application/grpc"));
        http_add(&m, HN_TE, STR("trailers"));
        http_add(&m, HN_USER_AGENT, STR("postern/" POSTERN_VERSION));
        for (unsigned i = 0; o && i < o->nheaders; i++)
                http_add_name(&m, o->headers[i].name, o->headers[i].value);
        if (o && o->timeout_ms) {
                http_add(&m, HN_GRPC_TIMEOUT, arena_printf(http_stream_arena(s), "%um", o->timeout_ms));
                g->deadline.fn = on_deadline;
                g->deadline.arg = g;
                loop_timer_arm(conn_loop(http_conn_io(c)), &g->deadline, o->timeout_ms);
        }
        http_send_head(s, &m, false);
        return g;
}

void grpc_call_half_close(struct grpc_call *g)
{
        struct chain none = CHAIN_INIT;

        if (g->server || g->tx_end)
                return;
        g->tx_end = true;
        http_send_data(g->s, &none, true);
}

struct grpc_call *grpc_accept(struct http_stream *s, const struct http_head *m, bool end, const struct grpc_opts *o,
                              const struct grpc_ops *ops, void *arg)
{
        if (!str_eq(m->method, STR("POST")) || !is_grpc(m)) {
                http_stream_set_ops(s, &http_ops_ignore, NULL);
                if (!is_grpc(m))
                        http_answer(s, 415, "text/plain", STR("this port speaks gRPC (content-type application/grpc)\n"));
                else
                        http_answer(s, 405, "text/plain", STR("gRPC requests are POST\n"));
                return NULL;
        }
        struct grpc_call *g = call_alloc(s, true, o, ops, arg);
        struct http_head h;

        g->head = (struct http_head *)m;
        http_stream_set_ops(s, &call_ops, g);
        http_head_init(&h, http_stream_arena(s));
        h.status = 200;
        http_add(&h, HN_CONTENT_TYPE, STR("application/grpc"));
        http_send_head(s, &h, false);
        if (end) {
                /* A client that sends nothing at all: its end is told after the owner has its pointer. */
                g->rx_end = true;
                grpc_resume(g);
        }
        return g;
}

void grpc_finish(struct grpc_call *g, int status, struct str text)
{
        struct http_head t;
        struct buf b = BUF_INIT;

        if (!g->server || g->finished)
                return;
        g->finished = g->tx_end = true;
        chain_fini(&g->in);
        http_head_init(&t, http_stream_arena(g->s));
        http_add(&t, HN_GRPC_STATUS, arena_printf(t.arena, "%d", status));
        for (size_t i = 0; i < text.n && i < TEXT_MAX; i++) {
                unsigned char c = (unsigned char)text.p[i];

                if (c < 0x20 || c > 0x7e || c == '%')
                        buf_printf(&b, "%%%02X", c);
                else
                        buf_char(&b, (char)c);
        }
        if (b.n)
                http_add(&t, HN_GRPC_MESSAGE, arena_str(t.arena, buf_view(&b)));
        buf_fini(&b);
        http_send_trailers(g->s, &t);
        http_resume(g->s);
}

/* ---- using them ---- */

void grpc_send(struct grpc_call *g, struct str msg)
{
        struct chain d = CHAIN_INIT;
        unsigned char h[PREFIX_BYTES] = { 0, (unsigned char)(msg.n >> 24), (unsigned char)(msg.n >> 16), (unsigned char)(msg.n >> 8),
                                          (unsigned char)msg.n };

        if (g->finished || g->tx_end)
                return;
        chain_append(&d, h, PREFIX_BYTES);
        chain_append(&d, msg.p, msg.n);
        http_send_data(g->s, &d, false);
}

bool grpc_blocked(const struct grpc_call *g)
{
        return http_send_blocked(g->s);
}

size_t grpc_unsent(const struct grpc_call *g)
{
        return http_unsent(g->s);
}

void grpc_pause(struct grpc_call *g)
{
        g->paused = true;
        http_pause(g->s);
}

/* What is held back is told from the loop, not from inside the owner's call. */
void grpc_resume(struct grpc_call *g)
{
        g->paused = false;
        http_resume(g->s);
        loop_defer(loop_of(g), &g->resume);
}

void grpc_cancel(struct grpc_call *g)
{
        if (g->server) {
                g->finished = true;
                http_reset(g->s, HTTP_RESET_LOCAL);
        } else {
                give_up(g, GRPC_CANCELLED, STR("cancelled"));
        }
}

struct http_hdr *grpc_metadata(const struct grpc_call *g, struct str lower_name)
{
        return g->head ? http_get_name(g->head, lower_name) : NULL;
}

struct http_conn *grpc_conn(const struct grpc_call *g)
{
        return http_stream_conn(g->s);
}
