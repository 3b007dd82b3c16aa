/* Loggers built from configuration: a filter, a format, a sink. */
#include "proxy/access_log.h"

#include "base/hash.h"
#include "base/mem.h"
#include "http/http.h"
#include "proxy/ext.h"
#include "proxy/format.h"
#include "proxy/log_sink.h"
#include "proxy/server.h"
#include "proxy/worker.h"

#include "envoy/access_loggers_file.pb-c.h"
#include "envoy/access_loggers_stream.pb-c.h"
#include "envoy/accesslog.pb-c.h"
#include "envoy/core.pb-c.h"
#include "google/any.pb-c.h"

#include <stdlib.h>

static const char default_text[] =
        "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% "
        "%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" "
        "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

enum filter_kind {
        FILTER_STATUS,
        FILTER_DURATION,
        FILTER_NOT_HEALTH_CHECK,
        FILTER_FLAGS,
        FILTER_GRPC,
        FILTER_AND,
        FILTER_OR,
        FILTER_SAMPLE
};

struct filter {
        enum filter_kind kind;
        int op; /* XDS__COMPARISON_FILTER__OP__* */
        uint64_t value;
        uint32_t flags; /* FLAGS: 0 means any; GRPC: bit set of statuses */
        bool exclude;
        double share; /* SAMPLE */
        struct filter *sub;
        size_t nsub;
};

struct logger {
        struct filter *filter;
        struct format *text;
        struct format_json *json;
        struct log_sink *sink;
};

struct access_logs {
        struct arena arena;
        struct logger *v;
        size_t n;
};

static bool filter_build(struct access_logs *l, struct filter *f, const Xds__AccessLogFilter *p, const struct diag_at *at, struct diags *d);

static bool filter_list(struct access_logs *l, struct filter *f, Xds__AccessLogFilter *const *v, size_t n, const char *field,
                        const struct diag_at *at, struct diags *d)
{
        bool ok = true;

        if (n < 2) {
                diag_add(d, DIAG_ERROR, NULL, at, "%s needs at least two filters", field);
                return false;
        }
        f->sub = arena_zalloc(&l->arena, n * sizeof(*f->sub));
        f->nsub = n;
        for (size_t i = 0; i < n; i++) {
                struct diag_at sub = at_path(&l->arena, at, ".%s.filters[%zu]", field, i);

                ok = filter_build(l, &f->sub[i], v[i], &sub, d) && ok;
        }
        return ok;
}

static bool comparison(struct filter *f, const Xds__ComparisonFilter *c, const char *field, const struct diag_at *at, struct diags *d)
{
        if (!c || !c->value) {
                diag_add(d, DIAG_ERROR, NULL, at, "%s.comparison.value is missing", field);
                return false;
        }
        f->op = (int)c->op;
        f->value = c->value->default_value;
        return true;
}

static bool filter_flags(struct filter *f, const Xds__ResponseFlagFilter *p, const struct diag_at *at, struct diags *d)
{
        for (size_t i = 0; i < p->n_flags; i++) {
                uint32_t bit;

                if (!response_flag_parse(str_of(p->flags[i]), &bit)) {
                        diag_add(d, DIAG_ERROR, NULL, at, "response_flag_filter.flags[%zu]: there is no response flag \"%s\"", i,
                                 p->flags[i]);
                        return false;
                }
                f->flags |= bit;
        }
        return true;
}

static double percent_share(const Xds__FractionalPercent *p)
{
        static const double over[] = { 100, 10000, 1000000 };

        return p ? (double)p->numerator / over[p->denominator < 3 ? p->denominator : 0] : 1;
}

static bool filter_build(struct access_logs *l, struct filter *f, const Xds__AccessLogFilter *p, const struct diag_at *at, struct diags *d)
{
        static const char *const unsupported[] = {
                [XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_TRACEABLE_FILTER] = "traceable_filter",
                [XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_HEADER_FILTER] = "header_filter",
                [XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_EXTENSION_FILTER] = "extension_filter",
                [XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_METADATA_FILTER] = "metadata_filter",
                [XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_LOG_TYPE_FILTER] = "log_type_filter",
        };

        switch (p->filter_specifier_case) {
        case XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_STATUS_CODE_FILTER:
                f->kind = FILTER_STATUS;
                return comparison(f, p->status_code_filter->comparison, "status_code_filter", at, d);
        case XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_DURATION_FILTER:
                f->kind = FILTER_DURATION;
                return comparison(f, p->duration_filter->comparison, "duration_filter", at, d);
        case XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_NOT_HEALTH_CHECK_FILTER:
                f->kind = FILTER_NOT_HEALTH_CHECK;
                return true;
        case XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_RESPONSE_FLAG_FILTER:
                f->kind = FILTER_FLAGS;
                return filter_flags(f, p->response_flag_filter, at, d);
        case XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_GRPC_STATUS_FILTER:
                f->kind = FILTER_GRPC;
                f->exclude = p->grpc_status_filter->exclude;
                for (size_t i = 0; i < p->grpc_status_filter->n_statuses; i++)
                        f->flags |= 1u << (p->grpc_status_filter->statuses[i] & 31);
                return true;
        case XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_RUNTIME_FILTER:
                f->kind = FILTER_SAMPLE;
                f->share = percent_share(p->runtime_filter->percent_sampled);
                return true;
        case XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_AND_FILTER:
                f->kind = FILTER_AND;
                return filter_list(l, f, p->and_filter->filters, p->and_filter->n_filters, "and_filter", at, d);
        case XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_OR_FILTER:
                f->kind = FILTER_OR;
                return filter_list(l, f, p->or_filter->filters, p->or_filter->n_filters, "or_filter", at, d);
        default:
                if ((size_t)p->filter_specifier_case < ARRAY_LEN(unsupported) && unsupported[p->filter_specifier_case])
                        diag_add(d, DIAG_ERROR, NULL, at, "%s is not supported", unsupported[p->filter_specifier_case]);
                else
                        diag_add(d, DIAG_ERROR, NULL, at, "is empty: say which filter");
                return false;
        }
}

static bool compare(const struct filter *f, uint64_t v)
{
        switch (f->op) {
        case XDS__COMPARISON_FILTER__OP__EQ:
                return v == f->value;
        case XDS__COMPARISON_FILTER__OP__GE:
                return v >= f->value;
        case XDS__COMPARISON_FILTER__OP__NE:
                return v != f->value;
        default:
                return v <= f->value;
        }
}

static unsigned grpc_status_of(const struct stream_info *si)
{
        const struct http_hdr *h = NULL;
        uint64_t n;

        if (si->response_trailers)
                h = http_get(si->response_trailers, HN_GRPC_STATUS);
        if (!h && si->response)
                h = http_get(si->response, HN_GRPC_STATUS);
        return h && str_u64(h->value, &n) && n < 17 ? (unsigned)n : 2;
}

static bool filter_pass(const struct filter *f, const struct stream_info *si)
{
        switch (f->kind) {
        case FILTER_STATUS:
                return compare(f, (uint64_t)si->response_code);
        case FILTER_DURATION:
                return compare(f, stream_us(si, ST_START, ST_END) / 1000);
        case FILTER_NOT_HEALTH_CHECK:
                return !si->health_check;
        case FILTER_FLAGS:
                return f->flags ? (si->flags & f->flags) != 0 : si->flags != 0;
        case FILTER_GRPC:
                return ((f->flags >> grpc_status_of(si) & 1) != 0) != f->exclude;
        case FILTER_SAMPLE:
                return rand_unit() < f->share;
        case FILTER_AND:
                for (size_t i = 0; i < f->nsub; i++)
                        if (!filter_pass(&f->sub[i], si))
                                return false;
                return true;
        default:
                for (size_t i = 0; i < f->nsub; i++)
                        if (filter_pass(&f->sub[i], si))
                                return true;
                return false;
        }
}

/* Formats. */

static bool formatters_known(const Xds__SubstitutionFormatString *f, const struct diag_at *at, struct diags *d)
{
        static const char *const known[] = { "envoy.extensions.formatter.metadata.v3.Metadata",
                                             "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery" };

        for (size_t i = 0; i < f->n_formatters; i++) {
                const Gp__Any *any = f->formatters[i]->typed_config;
                struct str url = any && any->type_url ? str_of(any->type_url) : STR("");
                bool ok = false;

                for (unsigned k = 0; k < ARRAY_LEN(known); k++)
                        ok = ok || str_ends(url, str_of(known[k]));
                if (!ok) {
                        diag_add(d, DIAG_ERROR, NULL, at, "formatters[%zu]: \"%s\" is not supported", i,
                                 f->formatters[i]->name ? f->formatters[i]->name : "");
                        return false;
                }
        }
        return true;
}

static bool format_string(struct access_logs *l, struct logger *g, const Xds__SubstitutionFormatString *f, const struct diag_at *at,
                          struct diags *d)
{
        struct diag_at sub;
        struct str text;

        if (!f) {
                g->text = format_compile(str_of(default_text), false, at, d);
                return g->text != NULL;
        }
        if (!formatters_known(f, at, d))
                return false;
        switch (f->format_case) {
        case XDS__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT:
                sub = at_path(&l->arena, at, ".text_format");
                g->text = format_compile(str_of(f->text_format), f->omit_empty_values, &sub, d);
                return g->text != NULL;
        case XDS__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT_SOURCE:
                sub = at_path(&l->arena, at, ".text_format_source");
                if (!data_source_read(f->text_format_source, &l->arena, &sub, d, &text))
                        return false;
                g->text = format_compile(text, f->omit_empty_values, &sub, d);
                return g->text != NULL;
        case XDS__SUBSTITUTION_FORMAT_STRING__FORMAT_JSON_FORMAT:
                sub = at_path(&l->arena, at, ".json_format");
                g->json = format_json_compile(f->json_format, f->omit_empty_values, true, &sub, d);
                return g->json != NULL;
        default:
                diag_add(d, DIAG_ERROR, NULL, at, "is empty: give text_format_source or json_format");
                return false;
        }
}

static bool file_log(struct server *s, struct access_logs *l, struct logger *g, const Xds__FileAccessLog *f, const struct diag_at *at,
                     struct diags *d)
{
        struct diag_at sub = *at;
        bool ok;

        switch (f->access_log_format_case) {
        case XDS__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_FORMAT:
                sub = at_path(&l->arena, at, ".format");
                g->text = format_compile(f->format[0] ? str_of(f->format) : str_of(default_text), false, &sub, d);
                ok = g->text != NULL;
                break;
        case XDS__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_JSON_FORMAT:
        case XDS__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_TYPED_JSON_FORMAT:
                sub = at_path(&l->arena, at, ".json_format");
                g->json = format_json_compile(f->json_format, false, true, &sub, d);
                ok = g->json != NULL;
                break;
        default:
                if (f->access_log_format_case == XDS__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT)
                        sub = at_path(&l->arena, at, ".log_format");
                ok = format_string(l, g,
                                   f->access_log_format_case == XDS__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT ? f->log_format : NULL,
                                   &sub, d);
        }
        if (!f->path || !f->path[0]) {
                diag_add(d, DIAG_ERROR, NULL, at, "path is missing");
                return false;
        }
        sub = at_path(&l->arena, at, ".path");
        if (ok && s->opts.mode == SERVER_SERVE)
                g->sink = log_sink_get(s->sinks, f->path, &sub, d);
        return ok && (g->sink || s->opts.mode != SERVER_SERVE);
}

static bool stream_log(struct server *s, struct access_logs *l, struct logger *g, const Xds__SubstitutionFormatString *f, const char *path,
                       const struct diag_at *at, struct diags *d)
{
        struct diag_at sub = at_path(&l->arena, at, ".log_format");

        if (!format_string(l, g, f, &sub, d))
                return false;
        if (s->opts.mode == SERVER_SERVE)
                g->sink = log_sink_get(s->sinks, path, at, d);
        return g->sink || s->opts.mode != SERVER_SERVE;
}

static bool logger_build(struct server *s, struct access_logs *l, struct logger *g, const Xds__AccessLog *p, const struct diag_at *at,
                         struct diags *d)
{
        struct diag_at sub = at_path(&l->arena, at, ".typed_config");
        struct ext e;

        if (p->filter) {
                struct diag_at fat = at_path(&l->arena, at, ".filter");

                g->filter = arena_zalloc(&l->arena, sizeof(*g->filter));
                if (!filter_build(l, g->filter, p->filter, &fat, d))
                        return false;
        }
        if (!ext_read(p->config_type_case == XDS__ACCESS_LOG__CONFIG_TYPE_TYPED_CONFIG ? p->typed_config : NULL, &l->arena, &sub, d, &e))
                return false;
        if (e.msg->descriptor == &xds__file_access_log__descriptor)
                return file_log(s, l, g, (const Xds__FileAccessLog *)e.msg, &sub, d);
        if (e.msg->descriptor == &xds__stdout_access_log__descriptor) {
                const Xds__StdoutAccessLog *o = (const Xds__StdoutAccessLog *)e.msg;

                return stream_log(s, l, g, o->access_log_format_case ? o->log_format : NULL, "/dev/stdout", &sub, d);
        }
        if (e.msg->descriptor == &xds__stderr_access_log__descriptor) {
                const Xds__StderrAccessLog *o = (const Xds__StderrAccessLog *)e.msg;

                return stream_log(s, l, g, o->access_log_format_case ? o->log_format : NULL, "/dev/stderr", &sub, d);
        }
        diag_add(d, DIAG_ERROR, NULL, &sub, "access logger \"" STR_FMT "\" is not supported", STR_ARG(e.type));
        return false;
}

struct access_logs *access_logs_build(struct server *s, struct Xds__AccessLog *const *v, size_t n, const struct diag_at *at,
                                      struct diags *d)
{
        struct access_logs *l;
        bool ok = true;

        if (!n)
                return NULL;
        l = MEM_NEW(struct access_logs);
        arena_init(&l->arena, 1024);
        l->v = mem_calloc(n, sizeof(*l->v));
        l->n = n;
        for (size_t i = 0; i < n; i++) {
                struct diag_at sub = at_path(&l->arena, at, "[%zu]", i);

                ok = logger_build(s, l, &l->v[i], v[i], &sub, d) && ok;
        }
        if (!ok) {
                access_logs_free(l);
                return NULL;
        }
        return l;
}

void access_logs_free(struct access_logs *l)
{
        if (!l)
                return;
        for (size_t i = 0; i < l->n; i++) {
                format_free(l->v[i].text);
                format_json_free(l->v[i].json);
        }
        free(l->v);
        arena_fini(&l->arena);
        free(l);
}

void access_logs_write(const struct access_logs *l, struct worker *w, const struct stream_info *si)
{
        for (size_t i = 0; l && i < l->n; i++) {
                const struct logger *g = &l->v[i];
                struct buf *b;

                if (g->filter && !filter_pass(g->filter, si))
                        continue;
                b = log_buffer(w, g->sink);
                if (g->text)
                        format_render(g->text, si, b);
                else
                        format_json_render(g->json, si, b);
        }
}
