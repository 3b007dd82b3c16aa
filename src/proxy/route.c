/* See route.h: searching a built table. Building is route_build.c, what is done to a message on its way is route_apply.c. */
#include "proxy/route.h"

#include "base/mem.h"
#include "proxy/path.h"

#include <stdlib.h>

struct route_table *route_table_ref(const struct route_table *t)
{
        struct route_table *m = (struct route_table *)t;

        atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
        return m;
}

static void domains_fini(struct route_domains *d, size_t n)
{
        for (size_t i = 0; i < n; i++)
                strmap_fini(&d[i].map);
}

void route_table_unref(const struct route_table *t)
{
        struct route_table *m = (struct route_table *)t;

        if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
                return;
        strmap_fini(&m->exact);
        domains_fini(m->suffix, m->nsuffix);
        domains_fini(m->prefix, m->nprefix);
        config_mem_fini(&m->mem);
        free(m);
}

enum { HOST_MAX = 512 }; /* a longer authority can only match "*" */

const struct route_vhost *route_table_vhost(const struct route_table *t, struct str host)
{
        char lower[HOST_MAX];
        unsigned port;
        void *v;

        if (!t->exact.live && !t->nsuffix && !t->nprefix)
                return t->any;
        if (t->ignore_port)
                host = host_without_port(host, &port);
        if (host.n > sizeof(lower))
                return t->any;
        for (size_t i = 0; i < host.n; i++)
                lower[i] = ascii_lower(host.p[i]);
        host.p = lower;
        v = strmap_get(&t->exact, host);
        if (v)
                return v;
        for (size_t i = 0; i < t->nsuffix; i++) {
                const struct route_domains *d = &t->suffix[i];

                if (d->len < host.n && (v = strmap_get(&d->map, str_make(host.p + host.n - d->len, d->len))))
                        return v;
        }
        for (size_t i = 0; i < t->nprefix; i++) {
                const struct route_domains *d = &t->prefix[i];

                if (d->len < host.n && (v = strmap_get(&d->map, str_make(host.p, d->len))))
                        return v;
        }
        return t->any;
}

static struct str without_parameters(struct str path, struct arena *a)
{
        char *out;
        size_t n = 0;
        bool skip = false;

        if (str_chr(path, ';') < 0)
                return path;
        out = arena_alloc(a, path.n + 1);
        for (size_t i = 0; i < path.n; i++) {
                if (path.p[i] == '/')
                        skip = false;
                else if (path.p[i] == ';')
                        skip = true;
                if (!skip)
                        out[n++] = path.p[i];
        }
        return str_make(out, n);
}

static bool path_matches(const struct route *r, struct str path)
{
        switch (r->path_kind) {
        case ROUTE_PREFIX:
                return r->ignore_case ? str_starts_nocase(path, r->path) : str_starts(path, r->path);
        case ROUTE_PATH:
                return r->ignore_case ? str_eq_nocase(path, r->path) : str_eq(path, r->path);
        case ROUTE_SEPARATED_PREFIX:
                return (r->ignore_case ? str_starts_nocase(path, r->path) : str_starts(path, r->path)) &&
                       (path.n == r->path.n || path.p[r->path.n] == '/');
        case ROUTE_REGEX:
                return regex_full_match(r->regex, path);
        case ROUTE_CONNECT:
                return false;
        }
        return false;
}

bool http_is_grpc(const struct http_head *m)
{
        const struct http_hdr *h = http_get(m, HN_CONTENT_TYPE);
        const size_t n = sizeof("application/grpc") - 1;

        return h && h->value.n >= n && memcmp(h->value.p, "application/grpc", n) == 0 && (h->value.n == n || h->value.p[n] == '+');
}

bool route_matches(const struct route_table *t, const struct route *r, const struct route_input *in)
{
        const struct http_head *head = in->head;

        if (r->path_kind == ROUTE_CONNECT) {
                if (!str_eqc(head->method, "CONNECT"))
                        return false;
        } else {
                struct str path = path_only(head->path);

                if (!head->path.p)
                        return false;
                if (t->ignore_path_parameters)
                        path = without_parameters(path, head->arena);
                if (!path_matches(r, path))
                        return false;
        }
        if (r->runtime.denominator && !fraction_hit(r->runtime, in->random))
                return false;
        if (r->grpc && !http_is_grpc(head))
                return false;
        if (r->headers.n && !header_matches_all(&r->headers, head))
                return false;
        if (r->query.n && !query_matches_all(&r->query, head->path))
                return false;
        if (r->tls_presented >= 0 && (!in->tls || in->tls_presented != (r->tls_presented == 1)))
                return false;
        if (r->tls_validated >= 0 && (!in->tls || in->tls_validated != (r->tls_validated == 1)))
                return false;
        return true;
}

static struct str header_cluster(const struct http_head *head, struct str name)
{
        struct str v;

        return header_value(head, name, http_name_id(name), head->arena, &v) ? v : str_make("", 0);
}

static void pick_cluster(const struct route *r, const struct route_input *in, struct route_pick *out)
{
        uint64_t at = in->random;
        struct str v;

        switch (r->cluster_kind) {
        case ROUTE_CLUSTER:
                out->cluster = r->cluster;
                return;
        case ROUTE_CLUSTER_HEADER:
                out->cluster = header_cluster(in->head, r->cluster);
                return;
        case ROUTE_CLUSTER_WEIGHTED:
                if (r->weight_header.n) {
                        v = header_cluster(in->head, r->weight_header);
                        str_u64(v, &at);
                }
                at %= r->weight_total;
                for (size_t i = 0; i < r->nweighted; i++)
                        if (at < r->weighted[i].upto) {
                                out->weighted = &r->weighted[i];
                                break;
                        }
                out->cluster = out->weighted->from_header ? header_cluster(in->head, out->weighted->cluster) : out->weighted->cluster;
                return;
        }
}

bool route_table_pick(const struct route_table *t, const struct route_input *in, struct route_pick *out)
{
        const struct route_vhost *vh = route_table_vhost(t, in->head->authority);

        memset(out, 0, sizeof(*out));
        out->cluster = str_make("", 0);
        if (!vh)
                return false;
        if (vh->require_tls != ROUTE_TLS_NONE && !(vh->require_tls == ROUTE_TLS_EXTERNAL_ONLY && in->internal)) {
                const struct http_hdr *p = http_get(in->head, HN_X_FORWARDED_PROTO);

                if (!p || !str_eqc(p->value, "https")) {
                        out->route = vh->tls_redirect;
                        return true;
                }
        }
        for (size_t i = 0; i < vh->nroutes; i++) {
                if (!route_matches(t, vh->routes[i], in))
                        continue;
                out->route = vh->routes[i];
                if (out->route->action == ROUTE_FORWARD)
                        pick_cluster(out->route, in, out);
                return true;
        }
        return false;
}

static const struct route_filter_config *config_in(const struct route_filter_configs *c, struct str name)
{
        for (size_t i = 0; i < c->n; i++)
                if (str_eq(c->v[i].name, name))
                        return &c->v[i];
        return NULL;
}

const struct route_filter_config *route_filter_config(const struct route_table *t, const struct route_pick *p, struct str name)
{
        const struct route_filter_config *c = NULL;

        if (p->weighted && p->weighted->filters.n)
                c = config_in(&p->weighted->filters, name);
        if (!c && p->route && p->route->filters.n)
                c = config_in(&p->route->filters, name);
        if (!c && p->route && p->route->vhost->filters.n)
                c = config_in(&p->route->vhost->filters, name);
        if (!c && t && t->filters.n)
                c = config_in(&t->filters, name);
        return c;
}

void route_table_each_cluster(const struct route_table *t, void (*fn)(void *arg, struct str cluster, const struct route *r), void *arg)
{
        for (size_t i = 0; i < t->nvhosts; i++)
                for (size_t j = 0; j < t->vhosts[i]->nroutes; j++) {
                        const struct route *r = t->vhosts[i]->routes[j];

                        if (r->action != ROUTE_FORWARD)
                                continue;
                        if (r->cluster_kind == ROUTE_CLUSTER)
                                fn(arg, r->cluster, r);
                        for (size_t k = 0; k < r->nweighted; k++)
                                if (!r->weighted[k].from_header)
                                        fn(arg, r->weighted[k].cluster, r);
                }
}
