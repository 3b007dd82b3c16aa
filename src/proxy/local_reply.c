/* Answers that the proxy makes itself: local replies, direct responses, redirects, and HCM's local_reply_config. The shape is Envoy's:
 * text/plain with a length, or for gRPC a 200 whose trailers-in-headers carry the status (gRPC over HTTP/2, HTTP to gRPC status mapping).
 */
#include "proxy/hcm.h"

#include "base/mem.h"
#include "envoy/core.pb-c.h"
#include "envoy/hcm.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "proxy/ext.h"
#include "proxy/format.h"

static const struct {
        int status;
        const char *text;
} reasons[] = {
        { 400, "Bad Request" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 408, "Request Timeout" },
        { 413, "Payload Too Large" },
        { 426, "Upgrade Required" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
};

const char *hcm_status_text(int status)
{
        for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
                if (reasons[i].status == status)
                        return reasons[i].text;
        return "";
}

static unsigned grpc_status(int http)
{
        switch (http) {
        case 400:
                return 13; /* INTERNAL */
        case 401:
                return 16; /* UNAUTHENTICATED */
        case 403:
                return 7; /* PERMISSION_DENIED */
        case 404:
                return 12; /* UNIMPLEMENTED */
        case 429:
        case 502:
        case 503:
        case 504:
                return 14; /* UNAVAILABLE */
        default:
                return 2; /* UNKNOWN */
        }
}

/* Percent-encoding of grpc-message: everything but printable ASCII, and "%". */
static struct str grpc_message(struct arena *a, struct str s)
{
        char *out = arena_alloc(a, s.n * 3 + 1);
        size_t n = 0;

        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];

                if (c < 0x20 || c >= 0x7f || c == '%') {
                        out[n++] = '%';
                        out[n++] = "0123456789ABCDEF"[c >> 4];
                        out[n++] = "0123456789ABCDEF"[c & 15];
                } else {
                        out[n++] = (char)c;
                }
        }
        return str_make(out, n);
}

static void grpc_reply(struct hcm_stream *s, struct http_head *m, int status, struct str body)
{
        m->status = 200;
        http_remove(m, HN_CONTENT_LENGTH);
        http_set(m, HN_CONTENT_TYPE, STR("application/grpc"));
        http_set(m, HN_GRPC_STATUS, arena_printf(s->arena, "%u", grpc_status(status)));
        if (body.n)
                http_set(m, HN_GRPC_MESSAGE, grpc_message(s->arena, body));
        hcm_send_head(s, m, true);
}

static void plain_reply(struct hcm_stream *s, struct http_head *m, struct str body, struct str type)
{
        struct chain data = CHAIN_INIT;

        m->content_length = (int64_t)body.n;
        if (body.n) {
                http_set(m, HN_CONTENT_LENGTH, arena_printf(s->arena, "%zu", body.n));
                if (type.n || !http_get(m, HN_CONTENT_TYPE))
                        http_set(m, HN_CONTENT_TYPE, type.n ? type : STR("text/plain"));
        } else {
                http_remove(m, HN_CONTENT_LENGTH);
                http_remove(m, HN_CONTENT_TYPE);
        }
        if (!body.n || s->head_method) {
                hcm_send_head(s, m, true);
                return;
        }
        hcm_send_head(s, m, false);
        chain_str(&data, body);
        hcm_send_data(s, &data, true);
}

void hcm_local_reply(struct hcm_stream *s, int status, struct str body, struct str details, uint32_t flags,
                     void (*extra)(struct hcm_stream *s, struct http_head *resp))
{
        struct http_head *m;
        struct str type = { "", 0 };

        if (s->resp_started) {
                if (!s->resp_end)
                        hcm_reset(s, details, flags);
                return;
        }
        s->si.flags |= flags;
        s->si.response_code_details = details;
        s->si.response_code = status;
        m = ARENA_NEW(s->arena, struct http_head);
        http_head_init(m, s->arena);
        m->status = status;
        if (extra)
                extra(s, m);
        s->state = HCM_ANSWERED;
        if (s->cfg->local_reply)
                local_reply_apply(s->cfg->local_reply, s, m, &body, &type);
        m->status = status;
        if (s->grpc && status != 200)
                grpc_reply(s, m, status, body);
        else
                plain_reply(s, m, body, type);
}

/* Routes that answer themselves */

static void direct_headers(struct hcm_stream *s, struct http_head *m)
{
        const struct route *r = s->pick.route;

        if (r->action == ROUTE_REDIRECT || m->status == 201 || m->status / 100 == 3)
                http_add(m, HN_LOCATION, route_redirect_uri(r, s->req));
        if (r->direct_content_type.n)
                http_set(m, HN_CONTENT_TYPE, r->direct_content_type);
        route_finalize_response(s->table, &s->pick, m, &s->si);
}

static struct str render(struct hcm_stream *s, const struct format *f, bool newline)
{
        struct buf b = BUF_INIT;
        struct str v;

        format_render(f, &s->si, &b);
        if (newline)
                buf_char(&b, '\n');
        v = arena_str(s->arena, buf_view(&b));
        buf_fini(&b);
        return v;
}

void hcm_direct_response(struct hcm_stream *s)
{
        const struct route *r = s->pick.route;
        struct str body = r->direct_body;

        if (r->action == ROUTE_REDIRECT) {
                hcm_stat(s, HCM_RQ_REDIRECT);
                hcm_local_reply(s, r->redirect.status, STR(""), STR("direct_response"), 0, direct_headers);
                return;
        }
        hcm_stat(s, HCM_RQ_DIRECT_RESPONSE);
        if (r->direct_format)
                body = render(s, r->direct_format, false);
        if (r->reason) {
                s->si.upstream_failure = render(s, r->reason, false);
                if (!body.n)
                        body = arena_printf(s->arena, STR_FMT "\n", STR_ARG(s->si.upstream_failure));
        }
        hcm_local_reply(s, r->direct_status, body, STR("direct_response"), 0, direct_headers);
}

/* local_reply_config: one body format for all. Mappers are refused by name. */

struct local_reply_config {
        struct format *format;
        struct str content_type;
};

static void free_format(void *p)
{
        format_free(p);
}

struct local_reply_config *local_reply_build(struct config_mem *m, const struct Xds__LocalReplyConfig *p, const struct diag_at *at,
                                             struct diags *d)
{
        struct local_reply_config *c = ARENA_NEW(&m->arena, struct local_reply_config);
        const struct Xds__SubstitutionFormatString *f = p->body_format;
        struct diag_at here = at_path(&m->scratch, at, ".body_format");
        struct str text = { "", 0 };
        size_t before = d->errors;

        if (p->n_mappers) {
                struct diag_at sub = at_path(&m->scratch, at, ".mappers");

                diag_add(d, DIAG_ERROR, NULL, &sub, "mappers are not supported: only body_format is");
        }
        if (f) {
                c->content_type = f->content_type && *f->content_type ? arena_str(&m->arena, str_of(f->content_type)) : STR("text/plain");
                if (f->format_case == XDS__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT)
                        text = str_of(f->text_format);
                else if (f->format_case == XDS__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT_SOURCE &&
                         f->text_format_source->specifier_case == XDS__DATA_SOURCE__SPECIFIER_INLINE_STRING)
                        text = str_of(f->text_format_source->inline_string);
                else
                        diag_add(d, DIAG_ERROR, NULL, &here,
                                 "only text_format and an inline text_format_source are supported in local replies");
                c->format = format_compile(text, f->omit_empty_values, &here, d);
                if (c->format)
                        config_mem_on_free(m, free_format, c->format);
        }
        return d->errors == before ? c : NULL;
}

void local_reply_apply(const struct local_reply_config *c, struct hcm_stream *s, struct http_head *resp, struct str *body,
                       struct str *content_type)
{
        s->si.response = resp;
        if (!c->format)
                return;
        *body = render(s, c->format, false);
        *content_type = c->content_type;
}
