/* Statistics as text, JSON and Prometheus exposition. Prometheus wants all series of a name together, so its printer collects (name,
 * labels, slot) first and sorts; the others go scope by scope. */
#include "base/arena.h"
#include "base/mem.h"
#include "proxy/stats_registry.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const double quantiles[] = { 0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100 };

struct row {
        struct str name;   /* text name, or Prometheus name */
        struct str labels; /* Prometheus: without braces */
        enum stat_kind kind;
        stat_id id;
};

struct rows {
        struct arena arena;
        struct row *v;
        size_t n, cap;
};

struct hist {
        uint64_t bucket[STAT_BUCKETS + 1], sum, count;
};

static void hist_read(const struct stats *s, stat_id id, struct hist *h)
{
        h->count = 0;
        for (unsigned i = 0; i <= STAT_BUCKETS; i++) {
                h->bucket[i] = stats_read_locked(s, id + i);
                h->count += h->bucket[i];
        }
        h->sum = stats_read_locked(s, id + STAT_BUCKETS + 1);
}

/* Linear within a bucket. The last, open bucket answers its lower bound. */
static double hist_quantile(const struct hist *h, double q)
{
        double want = (double)h->count * q / 100, seen = 0;

        for (unsigned i = 0; i <= STAT_BUCKETS; i++) {
                double lo = i ? stat_bucket_bounds[i - 1] : 0;

                if (!h->bucket[i])
                        continue;
                if (i == STAT_BUCKETS)
                        return lo;
                if (seen + (double)h->bucket[i] >= want)
                        return lo + (stat_bucket_bounds[i] - lo) * fmax(0, want - seen) / (double)h->bucket[i];
                seen += (double)h->bucket[i];
        }
        return 0;
}

static bool wanted_kind(const struct stats_print *o, enum stat_kind k)
{
        switch (o->type) {
        case STATS_COUNTERS:
                return k == STAT_COUNTER;
        case STATS_GAUGES:
                return k == STAT_GAUGE;
        case STATS_HISTOGRAMS:
                return k == STAT_HISTOGRAM;
        default:
                return true;
        }
}

static bool used(const struct stats *s, enum stat_kind k, stat_id id)
{
        struct hist h;

        if (k != STAT_HISTOGRAM)
                return stats_read_locked(s, id) != 0;
        hist_read(s, id, &h);
        return h.count != 0;
}

static bool wanted(const struct stats *s, const struct stats_print *o, struct str name, enum stat_kind k, stat_id id)
{
        return wanted_kind(o, k) && (!o->used_only || used(s, k, id)) && (!o->match || o->match(o->arg, name));
}

static int row_cmp(const void *a, const void *b)
{
        const struct row *x = a, *y = b;
        int c = str_cmp(x->name, y->name);

        return c ? c : str_cmp(x->labels, y->labels);
}

static struct str series_text_name(struct arena *a, const struct stats_series *se)
{
        struct buf b = BUF_INIT;
        struct str r;

        buf_cstr(&b, se->family->name);
        for (unsigned i = 0; i < se->family->nlabels; i++)
                buf_printf(&b, ".%s." STR_FMT, se->family->labels[i], STR_ARG(se->values[i]));
        r = arena_str(a, buf_view(&b));
        buf_fini(&b);
        return r;
}

static void rows_text(struct stats *s, const struct stats_print *o, struct rows *r)
{
        STRMAP_EACH (&s->scopes, it) {
                const struct stats_entry *e = it->value;

                for (unsigned i = 0; i < e->scope.n; i++) {
                        stat_id id = stat_of(&e->scope, i);

                        if (!wanted_kind(o, e->defs[i].kind) || (o->used_only && !used(s, e->defs[i].kind, id)))
                                continue;
                        struct str name = arena_printf(&r->arena, "%s%s", e->name, e->defs[i].name);

                        if (!o->match || o->match(o->arg, name))
                                VEC_PUSH(r->v, r->n, r->cap) = (struct row){ name, { 0 }, e->defs[i].kind, id };
                }
        }
        STRMAP_EACH (&s->dynamic, it) {
                const struct stats_entry *e = it->value;

                if (wanted(s, o, str_of(e->name), e->dynamic_kind, e->scope.base))
                        VEC_PUSH(r->v, r->n, r->cap) = (struct row){ str_of(e->name), { 0 }, e->dynamic_kind, e->scope.base };
        }
        STRMAP_EACH (&s->series, it) {
                const struct stats_series *se = it->value;
                struct str name = series_text_name(&r->arena, se);

                if (wanted(s, o, name, se->family->kind, se->id))
                        VEC_PUSH(r->v, r->n, r->cap) = (struct row){ name, { 0 }, se->family->kind, se->id };
        }
        if (r->n)
                qsort(r->v, r->n, sizeof(*r->v), row_cmp);
}

static void rows_fini(struct rows *r)
{
        free(r->v);
        arena_fini(&r->arena);
}

static void number(struct buf *out, double v)
{
        char t[40];

        snprintf(t, sizeof(t), "%.15g", v);
        buf_cstr(out, t);
}

void stats_print_text(struct stats *s, const struct stats_print *o, struct buf *out)
{
        struct rows r = { 0 };

        arena_init(&r.arena, 65536);
        pthread_mutex_lock(&s->lock);
        rows_text(s, o, &r);
        for (size_t i = 0; i < r.n; i++)
                if (r.v[i].kind != STAT_HISTOGRAM) {
                        uint64_t v = stats_read_locked(s, r.v[i].id);

                        /* A gauge may dip below zero for an instant while threads move a count between them. */
                        buf_printf(out, STR_FMT ": %llu\n", STR_ARG(r.v[i].name),
                                   (unsigned long long)(r.v[i].kind == STAT_GAUGE && (int64_t)v < 0 ? 0 : v));
                }
        for (size_t i = 0; i < r.n; i++)
                if (r.v[i].kind == STAT_HISTOGRAM) {
                        struct hist h;

                        hist_read(s, r.v[i].id, &h);
                        buf_printf(out, STR_FMT ": ", STR_ARG(r.v[i].name));
                        if (!h.count)
                                buf_cstr(out, "No recorded values");
                        for (unsigned q = 0; h.count && q < ARRAY_LEN(quantiles); q++) {
                                buf_printf(out, "%sP%g(nan,", q ? " " : "", quantiles[q]);
                                number(out, hist_quantile(&h, quantiles[q]));
                                buf_char(out, ')');
                        }
                        buf_char(out, '\n');
                }
        pthread_mutex_unlock(&s->lock);
        rows_fini(&r);
}

void stats_print_json(struct stats *s, const struct stats_print *o, struct buf *out)
{
        struct rows r = { 0 };
        bool first = true, hists = false;

        arena_init(&r.arena, 65536);
        pthread_mutex_lock(&s->lock);
        rows_text(s, o, &r);
        buf_cstr(out, "{\"stats\":[");
        for (size_t i = 0; i < r.n; i++) {
                hists = hists || r.v[i].kind == STAT_HISTOGRAM;
                if (r.v[i].kind == STAT_HISTOGRAM)
                        continue;
                uint64_t v = stats_read_locked(s, r.v[i].id);

                buf_cstr(out, first ? "{\"name\":" : ",{\"name\":");
                first = false;
                buf_json(out, r.v[i].name);
                buf_printf(out, ",\"value\":%llu}", (unsigned long long)(r.v[i].kind == STAT_GAUGE && (int64_t)v < 0 ? 0 : v));
        }
        if (hists) {
                buf_cstr(out, first ? "" : ",");
                buf_cstr(out, "{\"histograms\":{\"supported_quantiles\":[");
                for (unsigned q = 0; q < ARRAY_LEN(quantiles); q++)
                        buf_printf(out, "%s%g", q ? "," : "", quantiles[q]);
                buf_cstr(out, "],\"computed_quantiles\":[");
                first = true;
                for (size_t i = 0; i < r.n; i++) {
                        struct hist h;

                        if (r.v[i].kind != STAT_HISTOGRAM)
                                continue;
                        hist_read(s, r.v[i].id, &h);
                        buf_cstr(out, first ? "{\"name\":" : ",{\"name\":");
                        first = false;
                        buf_json(out, r.v[i].name);
                        buf_cstr(out, ",\"values\":[");
                        for (unsigned q = 0; q < ARRAY_LEN(quantiles); q++) {
                                buf_cstr(out, q ? ",{\"interval\":null,\"cumulative\":" : "{\"interval\":null,\"cumulative\":");
                                if (h.count)
                                        number(out, hist_quantile(&h, quantiles[q]));
                                else
                                        buf_cstr(out, "null");
                                buf_char(out, '}');
                        }
                        buf_cstr(out, "]}");
                }
                buf_cstr(out, "]}}");
        }
        buf_cstr(out, "]}");
        pthread_mutex_unlock(&s->lock);
        rows_fini(&r);
}

/* Prometheus. */

static void prom_ident(struct buf *b, struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                char c = s.p[i];
                bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == ':';

                buf_char(b, ok ? c : '_');
        }
}

static void prom_label(struct buf *b, struct str name, struct str value, bool istio)
{
        if (b->n)
                buf_char(b, ',');
        if (istio && str_starts(name, STR("envoy.")))
                name = str_sub(name, 6, name.n);
        prom_ident(b, name);
        buf_cstr(b, "=\"");
        for (size_t i = 0; i < value.n; i++) {
                char c = value.p[i];

                if (c == '\n')
                        buf_cstr(b, "\\n");
                else if (c == '"' || c == '\\')
                        buf_append(b, (char[]){ '\\', c }, 2);
                else
                        buf_char(b, c);
        }
        buf_char(b, '"');
}

static void prom_add(struct rows *r, const struct stats_print *o, const struct stats_entry *e, struct str name, const struct stat_def *d,
                     enum stat_kind kind, stat_id id)
{
        struct buf n = BUF_INIT, l = BUF_INIT;

        buf_cstr(&n, "envoy_");
        prom_ident(&n, str_of(e->prom_prefix));
        prom_ident(&n, name);
        if (d && d->tag)
                prom_label(&l, str_of(d->tag), str_of(d->tag_value), o->istio);
        for (unsigned i = 0; i < e->ntags; i++)
                prom_label(&l, str_of(e->tags[i].name), e->tags[i].value, o->istio);
        VEC_PUSH(r->v, r->n, r->cap) = (struct row){ arena_str(&r->arena, buf_view(&n)), arena_str(&r->arena, buf_view(&l)), kind, id };
        buf_fini(&n);
        buf_fini(&l);
}

static void rows_prom(struct stats *s, const struct stats_print *o, struct rows *r)
{
        STRMAP_EACH (&s->scopes, it) {
                const struct stats_entry *e = it->value;

                for (unsigned i = 0; i < e->scope.n; i++) {
                        const struct stat_def *d = &e->defs[i];
                        stat_id id = stat_of(&e->scope, i);
                        struct str text;

                        if (!wanted_kind(o, d->kind) || (o->used_only && !used(s, d->kind, id)))
                                continue;
                        if (o->match) {
                                text = arena_printf(&r->arena, "%s%s", e->name, d->name);
                                if (!o->match(o->arg, text))
                                        continue;
                        }
                        prom_add(r, o, e, str_of(d->prom_name ? d->prom_name : d->name), d, d->kind, id);
                }
        }
        STRMAP_EACH (&s->dynamic, it) {
                const struct stats_entry *e = it->value;

                if (wanted(s, o, str_of(e->name), e->dynamic_kind, e->scope.base))
                        prom_add(r, o, e, (struct str){ 0 }, NULL, e->dynamic_kind, e->scope.base);
        }
        STRMAP_EACH (&s->series, it) {
                const struct stats_series *se = it->value;
                struct buf l = BUF_INIT;

                if (wanted(s, o, str_of(se->family->name), se->family->kind, se->id)) {
                        for (unsigned i = 0; i < se->family->nlabels; i++)
                                prom_label(&l, str_of(se->family->labels[i]), se->values[i], false);
                        VEC_PUSH(r->v, r->n, r->cap) = (struct row){ str_of(se->family->name), arena_str(&r->arena, buf_view(&l)),
                                                                     se->family->kind, se->id };
                }
                buf_fini(&l);
        }
        if (r->n)
                qsort(r->v, r->n, sizeof(*r->v), row_cmp);
}

static void prom_hist(const struct stats *s, const struct row *row, struct buf *out)
{
        const char *comma = row->labels.n ? "," : "";
        struct hist h;
        uint64_t sum = 0;

        hist_read(s, row->id, &h);
        for (unsigned i = 0; i <= STAT_BUCKETS; i++) {
                sum += h.bucket[i];
                buf_printf(out, STR_FMT "_bucket{" STR_FMT "%sle=\"", STR_ARG(row->name), STR_ARG(row->labels), comma);
                if (i < STAT_BUCKETS)
                        number(out, stat_bucket_bounds[i]);
                else
                        buf_cstr(out, "+Inf");
                buf_printf(out, "\"} %llu\n", (unsigned long long)sum);
        }
        buf_printf(out, STR_FMT "_sum{" STR_FMT "} %llu\n", STR_ARG(row->name), STR_ARG(row->labels), (unsigned long long)h.sum);
        buf_printf(out, STR_FMT "_count{" STR_FMT "} %llu\n", STR_ARG(row->name), STR_ARG(row->labels), (unsigned long long)h.count);
}

void stats_print_prometheus(struct stats *s, const struct stats_print *o, struct buf *out)
{
        static const char *const kinds[] = { "counter", "gauge", "histogram" };
        struct rows r = { 0 };
        struct str last = { 0 };

        arena_init(&r.arena, 65536);
        pthread_mutex_lock(&s->lock);
        rows_prom(s, o, &r);
        for (size_t i = 0; i < r.n; i++) {
                const struct row *row = &r.v[i];

                if (!str_eq(row->name, last))
                        buf_printf(out, "# TYPE " STR_FMT " %s\n", STR_ARG(row->name), kinds[row->kind]);
                last = row->name;
                if (row->kind == STAT_HISTOGRAM) {
                        prom_hist(s, row, out);
                        continue;
                }
                uint64_t v = stats_read_locked(s, row->id);

                buf_printf(out, STR_FMT "{" STR_FMT "} %llu\n", STR_ARG(row->name), STR_ARG(row->labels),
                           (unsigned long long)(row->kind == STAT_GAUGE && (int64_t)v < 0 ? 0 : v));
        }
        pthread_mutex_unlock(&s->lock);
        rows_fini(&r);
}
