/* Whole answers, and request bodies as one piece. */
#include "http/simple.h"

const char *http_reason(int status)
{
        static const struct {
                int status;
                const char *text;
        } reasons[] = {
                { 200, "OK" },
                { 404, "Not Found" },
                { 100, "Continue" },
                { 101, "Switching Protocols" },
                { 102, "Processing" },
                { 103, "Early Hints" },
                { 201, "Created" },
                { 202, "Accepted" },
                { 203, "Non-Authoritative Information" },
                { 204, "No Content" },
                { 205, "Reset Content" },
                { 206, "Partial Content" },
                { 207, "Multi-Status" },
                { 208, "Already Reported" },
                { 226, "IM Used" },
                { 300, "Multiple Choices" },
                { 301, "Moved Permanently" },
                { 302, "Found" },
                { 303, "See Other" },
                { 304, "Not Modified" },
                { 305, "Use Proxy" },
                { 307, "Temporary Redirect" },
                { 308, "Permanent Redirect" },
                { 400, "Bad Request" },
                { 401, "Unauthorized" },
                { 402, "Payment Required" },
                { 403, "Forbidden" },
                { 405, "Method Not Allowed" },
                { 406, "Not Acceptable" },
                { 407, "Proxy Authentication Required" },
                { 408, "Request Timeout" },
                { 409, "Conflict" },
                { 410, "Gone" },
                { 411, "Length Required" },
                { 412, "Precondition Failed" },
                { 413, "Payload Too Large" },
                { 414, "URI Too Long" },
                { 415, "Unsupported Media Type" },
                { 416, "Range Not Satisfiable" },
                { 417, "Expectation Failed" },
                { 421, "Misdirected Request" },
                { 422, "Unprocessable Entity" },
                { 423, "Locked" },
                { 424, "Failed Dependency" },
                { 425, "Too Early" },
                { 426, "Upgrade Required" },
                { 428, "Precondition Required" },
                { 429, "Too Many Requests" },
                { 431, "Request Header Fields Too Large" },
                { 451, "Unavailable For Legal Reasons" },
                { 500, "Internal Server Error" },
                { 501, "Not Implemented" },
                { 502, "Bad Gateway" },
                { 503, "Service Unavailable" },
                { 504, "Gateway Timeout" },
                { 505, "HTTP Version Not Supported" },
                { 506, "Variant Also Negotiates" },
                { 507, "Insufficient Storage" },
                { 508, "Loop Detected" },
                { 510, "Not Extended" },
                { 511, "Network Authentication Required" },
        };

        for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
                if (reasons[i].status == status)
                        return reasons[i].text;
        return "Unknown";
}

void http_answer_head(struct http_stream *s, struct http_head *m, int status, const char *type, struct chain *body)
{
        size_t n = body ? body->n : 0;

        m->status = status;
        m->content_length = (int64_t)n;
        if (type)
                http_set(m, HN_CONTENT_TYPE, str_of(type));
        http_send_head(s, m, n == 0);
        if (n)
                http_send_data(s, body, true);
}

void http_answer(struct http_stream *s, int status, const char *type, struct str body)
{
        struct http_head m;
        struct chain c = CHAIN_INIT;

        http_head_init(&m, http_stream_arena(s));
        chain_append(&c, body.p, body.n);
        http_answer_head(s, &m, status, type, &c);
}

/* ---- collecting a body ---- */

struct collector {
        struct http_head *m;
        http_body_fn *fn;
        void *arg;
        struct chain body;
        size_t max;
};

static void collected(struct http_stream *s, struct collector *k)
{
        size_t n = k->body.n;
        char *p = arena_alloc(http_stream_arena(s), n + 1);

        chain_peek(&k->body, p, n);
        p[n] = '\0';
        chain_fini(&k->body);
        http_stream_set_ops(s, &http_ops_ignore, NULL);
        k->fn(s, k->arg, k->m, str_make(p, n));
}

static void refuse_large(struct http_stream *s, struct collector *k)
{
        struct str text = arena_printf(http_stream_arena(s), "request body larger than %zu bytes\n", k->max);

        chain_fini(&k->body);
        http_stream_set_ops(s, &http_ops_ignore, NULL);
        http_answer(s, 413, "text/plain", text);
}

static void on_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        struct collector *k = arg;
        struct iovec v[8];
        unsigned n;

        if (data->n > k->max - k->body.n) {
                refuse_large(s, k);
                return;
        }
        while (data->n) { /* copied: small pieces would pin a slab each */
                size_t took = 0;

                n = chain_iov(data, v, 8);
                for (unsigned i = 0; i < n; i++) {
                        chain_append(&k->body, v[i].iov_base, v[i].iov_len);
                        took += v[i].iov_len;
                }
                chain_drop(data, took);
        }
        if (end)
                collected(s, k);
}

static void on_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        collected(s, arg);
}

static void on_close(struct http_stream *s, void *arg, enum http_reset why)
{
        struct collector *k = arg;

        chain_fini(&k->body);
}

static const struct http_stream_ops collector_ops = { .on_data = on_data, .on_trailers = on_trailers, .on_close = on_close };

void http_collect(struct http_stream *s, struct http_head *m, bool end, size_t max_bytes, http_body_fn *fn, void *arg)
{
        struct collector *k = ARENA_NEW(http_stream_arena(s), struct collector);

        *k = (struct collector){ .m = m, .fn = fn, .arg = arg, .max = max_bytes };
        if (end) {
                collected(s, k);
                return;
        }
        if (m->content_length > 0 && (uint64_t)m->content_length > max_bytes) {
                refuse_large(s, k);
                return;
        }
        const struct http_hdr *expect = http_get(m, HN_EXPECT);

        http_stream_set_ops(s, &collector_ops, k);
        if (expect && str_eq_nocase(expect->value, STR("100-continue"))) {
                struct http_head go;

                http_head_init(&go, http_stream_arena(s));
                go.status = 100;
                http_send_head(s, &go, false);
        }
}
