/* Decorators and trace context. Without a tracer only the decorator's operation is passed between proxies (x-envoy-decorator-operation);
 * with one, a trace is continued or begun, and passed on as B3 (x-b3-*) and as W3C Trace Context (traceparent). Spans are not reported
 * anywhere. */
#include "proxy/hcm.h"

#include "base/hash.h"

struct trace {
        uint64_t hi, lo, span, parent;
        bool sampled, decided;
};

static char *put_hex64(char *p, uint64_t v)
{
        for (int i = 60; i >= 0; i -= 4)
                *p++ = "0123456789abcdef"[(v >> i) & 15];
        return p;
}

static uint64_t rand_id(void)
{
        uint64_t v;

        do
                v = rand_u64();
        while (!v);
        return v;
}

/* x-b3-traceid (64 or 128 bits), x-b3-spanid, x-b3-sampled. */
static bool read_b3(const struct http_head *m, struct trace *t)
{
        struct http_hdr *id = http_get(m, HN_X_B3_TRACEID), *span = http_get(m, HN_X_B3_SPANID), *sampled = http_get(m, HN_X_B3_SAMPLED);

        if (sampled) {
                t->decided = true;
                t->sampled = str_eqc(sampled->value, "1") || str_eqc(sampled->value, "true");
        }
        if (!id || !span || span->value.n > 16 || !str_hex64(span->value, &t->parent))
                return false;
        if (id->value.n == 32)
                return str_hex64(str_sub(id->value, 0, 16), &t->hi) && str_hex64(str_sub(id->value, 16, 16), &t->lo);
        return id->value.n && id->value.n <= 16 && str_hex64(id->value, &t->lo);
}

/* "00-<trace id>-<parent id>-<flags>" (W3C Trace Context §3.2). */
static bool read_w3c(const struct http_head *m, struct trace *t)
{
        struct http_hdr *h = http_get(m, HN_TRACEPARENT);
        struct str v = h ? h->value : str_make("", 0);
        uint64_t version, flags;

        if (v.n < 55 || v.p[2] != '-' || v.p[35] != '-' || v.p[52] != '-' || !str_hex64(str_sub(v, 0, 2), &version) || version == 0xff ||
            (version == 0 && v.n != 55))
                return false;
        if (!str_hex64(str_sub(v, 3, 16), &t->hi) || !str_hex64(str_sub(v, 19, 16), &t->lo) || !str_hex64(str_sub(v, 36, 16), &t->parent) ||
            !str_hex64(str_sub(v, 53, 2), &flags) || !(t->hi | t->lo) || !t->parent)
                return false;
        t->decided = true;
        t->sampled = flags & 1;
        return true;
}

static void write_context(struct hcm_stream *s, const struct trace *t)
{
        char *p = arena_alloc(s->arena, 32 + 16 + 16 + 55), *id = p, *span, *parent, *w3c;

        p = put_hex64(put_hex64(p, t->hi), t->lo);
        span = p;
        p = put_hex64(p, t->span);
        parent = p;
        p = put_hex64(p, t->parent);
        w3c = p;
        memcpy(p, "00-", 3);
        memcpy(p + 3, id, 32);
        p[35] = '-';
        memcpy(p + 36, span, 16);
        memcpy(p + 52, t->sampled ? "-01" : "-00", 3);
        http_set(s->req, HN_X_B3_TRACEID, str_make(id, 32));
        http_set(s->req, HN_X_B3_SPANID, str_make(span, 16));
        if (t->parent)
                http_set(s->req, HN_X_B3_PARENTSPANID, str_make(parent, 16));
        http_set(s->req, HN_X_B3_SAMPLED, t->sampled ? STR("1") : STR("0"));
        http_set(s->req, HN_TRACEPARENT, str_make(w3c, 55));
}

static void propagate(struct hcm_stream *s)
{
        struct trace t = { 0 };

        if (!read_b3(s->req, &t) && !read_w3c(s->req, &t)) {
                bool decided = t.decided, sampled = t.sampled;

                t = (struct trace){ .hi = rand_id(), .lo = rand_id(), .decided = decided, .sampled = sampled };
        }
        t.span = rand_id();
        if (!t.decided)
                t.sampled = s->sampled;
        write_context(s, &t);
}

/* The digit of a request id that says why it is traced (Envoy's pack_trace_reason): 4 is not traced, 9 is sampled. */
static void sample(struct hcm_stream *s)
{
        struct http_hdr *id = http_get(s->req, HN_X_REQUEST_ID);
        const struct hcm_config *c = s->cfg;
        char *copy;

        if (!id || id->value.n != 36)
                return;
        if (id->value.p[14] == '4') {
                s->sampled = rand_unit() * 100 < c->trace_random && rand_unit() * 100 < c->trace_overall;
                if (!s->sampled)
                        return;
                copy = arena_dup(s->arena, id->value.p, 36);
                copy[14] = '9';
                id->value.p = copy;
                s->si.stream_id = id->value;
        } else {
                s->sampled = true;
        }
}

void hcm_trace_begin(struct hcm_stream *s)
{
        const struct route *r = s->pick.route;
        struct http_hdr *h;

        sample(s);
        if (s->cfg->tracing == HCM_TRACING_PROPAGATE)
                propagate(s);
        if (s->cfg->tracing_egress) {
                if (r && r->decorator.n && r->decorator_propagate)
                        http_set(s->req, HN_X_ENVOY_DECORATOR_OPERATION, r->decorator);
                return;
        }
        s->decorated = r && r->decorator.n && r->decorator_propagate;
        h = http_get(s->req, HN_X_ENVOY_DECORATOR_OPERATION);
        if (!h)
                return;
        if (h->value.n)
                s->decorated = false;
        http_remove(s->req, HN_X_ENVOY_DECORATOR_OPERATION);
}

void hcm_trace_response(struct hcm_stream *s, struct http_head *resp)
{
        if (s->cfg->tracing_egress)
                http_remove(resp, HN_X_ENVOY_DECORATOR_OPERATION);
        else if (s->decorated)
                http_set(resp, HN_X_ENVOY_DECORATOR_OPERATION, s->pick.route->decorator);
}
