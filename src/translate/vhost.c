/* Virtual hosts of a sidecar: one a host that speaks HTTP on a port, and what catches the rest. */
#include "translate/internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

Xds__VirtualHost *vhost_make(struct arena *a, const char *name, struct str *domains, size_t n)
{
        Xds__VirtualHost *v = MAKE(a, xds__virtual_host);

        v->name = (char *)name;
        v->domains = MAKE_LIST(a, n);
        for (size_t i = 0; i < n; i++)
                v->domains[v->n_domains++] = arena_cstr(a, domains[i]);
        v->has_include_request_attempt_count = v->include_request_attempt_count = true;
        return v;
}

Xds__RouteConfiguration *route_config_tail(struct arena *a)
{
        Xds__RouteConfiguration *r = MAKE(a, xds__route_configuration);

        r->validate_clusters = make_bool(a, false);
        r->max_direct_response_body_size_bytes = make_u32(a, 1048576);
        r->has_ignore_port_in_host_matching = r->ignore_port_in_host_matching = true;
        return r;
}

struct host_list {
        struct str v[24];
        size_t n;
};

/* Other names of a service may collide with those of another one in the same port's table, which Envoy refuses: a real host wins, then the
 * first in order. */
static void claim(const struct build *b, struct strmap *claims, struct host_list *l, struct str name)
{
        if (l->n == ARRAY_LEN(l->v) || strmap_has(claims, name) || scope_find(b->scope, name))
                return;
        strmap_set(claims, name, (void *)1);
        l->v[l->n++] = name;
}

static void domains_of(const struct build *b, struct arena *a, const struct mesh_service *svc, struct strmap *claims, struct host_list *l)
{
        l->v[l->n++] = svc->host;
        if (svc->host.p[0] != '*')
                l->v[l->n++] = arena_printf(a, STR_FMT ".", STR_ARG(svc->host));
        if (!svc->from_entry) {
                if (str_eq(svc->ns, b->proxy->ns)) {
                        claim(b, claims, l, svc->name);
                        claim(b, claims, l, arena_printf(a, STR_FMT "." STR_FMT ".svc", STR_ARG(svc->name), STR_ARG(svc->ns)));
                        claim(b, claims, l, arena_printf(a, STR_FMT "." STR_FMT, STR_ARG(svc->name), STR_ARG(svc->ns)));
                } else {
                        claim(b, claims, l, arena_printf(a, STR_FMT "." STR_FMT, STR_ARG(svc->name), STR_ARG(svc->ns)));
                        claim(b, claims, l, arena_printf(a, STR_FMT "." STR_FMT ".svc", STR_ARG(svc->name), STR_ARG(svc->ns)));
                }
                if (svc->headless)
                        claim(b, claims, l, arena_printf(a, "*." STR_FMT, STR_ARG(svc->host)));
        }
        for (size_t i = 0; i < svc->naddresses; i++) {
                if (str_chr(svc->addresses[i], '/') >= 0)
                        continue;
                claim(b, claims, l,
                      str_chr(svc->addresses[i], ':') >= 0 ? arena_printf(a, "[" STR_FMT "]", STR_ARG(svc->addresses[i]))
                                                           : svc->addresses[i]);
        }
}

static void add_vhost(struct build *b, const struct seen *x, uint32_t port, const struct host_list *l, bool any_domain, struct parts *parts)
{
        static const struct str all[] = { { "*", 1 } };
        struct key k;
        const char *name;
        Xds__VirtualHost *v;

        key_init(&k, 'v');
        key_u64(&k, x->svc->version);
        key_u64(&k, port | (uint64_t)any_domain << 32 | (uint64_t)l->n << 40);
        key_u64(&k, b->config->version);
        for (size_t i = x->svc->host.p[0] == '*' ? 1 : 2; i < l->n; i++)
                key_str(&k, l->v[i]);
        if (x->vs)
                key_destinations(b, &k, x->vs);
        if (cache_get(b->t, &k, parts))
                return;
        name = arena_printf(&b->scratch, STR_FMT ":%u", STR_ARG(x->svc->host), port).p;
        v = vhost_make(&b->scratch, name, any_domain ? (struct str *)all : (struct str *)l->v, any_domain ? 1 : l->n);
        v->routes = MAKE_LIST(&b->scratch, x->vs ? ROUTES_MAX : 1);
        if (x->vs)
                v->n_routes = routes_of(b, &b->scratch, x->vs, &(struct route_query){ STR("mesh"), port }, v->routes, ROUTES_MAX);
        /* None of its routes is for this port, gateway and proxy: as if there were no VirtualService. */
        if (!v->n_routes)
                v->routes[v->n_routes++] = route_default(b, &b->scratch, x->svc, port);
        cache_put(b->t, &k, name, v, parts);
        arena_reset(&b->scratch);
}

/* A VirtualService for a host that nobody declares: on port 80, as in Istio. */
static void add_lone(struct build *b, size_t i, struct parts *parts)
{
        struct arena *a = &b->scratch;
        struct str domains[2] = { b->scope->lone_host[i], arena_printf(a, STR_FMT ".", STR_ARG(b->scope->lone_host[i])) };
        const char *name = arena_printf(a, STR_FMT ":80", STR_ARG(domains[0])).p;
        struct key k;
        Xds__VirtualHost *v;

        key_init(&k, 'l');
        key_str(&k, domains[0]);
        key_u64(&k, b->config->version);
        key_destinations(b, &k, b->scope->lone[i]);
        if (!cache_get(b->t, &k, parts)) {
                v = vhost_make(a, name, domains, 2);
                v->routes = MAKE_LIST(a, ROUTES_MAX);
                v->n_routes = routes_of(b, a, b->scope->lone[i], &(struct route_query){ STR("mesh"), 80 }, v->routes, ROUTES_MAX);
                if (v->n_routes)
                        cache_put(b->t, &k, name, v, parts);
        }
        arena_reset(a);
}

static void add_catch_all(struct build *b, uint32_t port, struct parts *parts)
{
        static struct str all[] = { { "*", 1 } };
        struct arena *a = &b->scratch;
        Xds__VirtualHost *v = vhost_make(a, b->scope->allow_any ? "allow_any" : "block_all", all, 1);
        Xds__Route *r;
        struct key k;

        key_init(&k, 'a');
        key_u64(&k, b->scope->allow_any);
        key_u64(&k, port == 80);
        key_str(&k, b->scope->policy);
        if (!cache_get(b->t, &k, parts)) {
                r = b->scope->allow_any ? route_all_to(b, a, v->name, "PassthroughCluster") : route_all_refused(a, v->name, 502);
                if (!b->scope->allow_any)
                        make_reason(a, &r->metadata, reason_http(b, a, port));
                v->routes = MAKE_LIST(a, 1);
                v->routes[0] = r;
                v->n_routes = 1;
                cache_put(b->t, &k, v->name, v, parts);
        }
        arena_reset(a);
}

static int by_vhost_name(const void *x, const void *y)
{
        return str_cmp((*(struct translate_resource *const *)x)->name, (*(struct translate_resource *const *)y)->name);
}

static void join_routes(struct build *b, const char *name, struct parts *vhosts)
{
        struct scope *s = b->scope;
        Xds__RouteConfiguration *head = MAKE(&b->scratch, xds__route_configuration), *tail = route_config_tail(&b->scratch);
        struct parts *keep = &s->parts[TRANSLATE_ROUTES];

        head->name = (char *)name;
        cache_join(b->t, name, head, 2, vhosts, tail, &s->res[TRANSLATE_ROUTES]);
        keep_parts(keep, vhosts);
        arena_reset(&b->scratch);
}

/* A port whose protocol is found out connection by connection, on an address of its own, has a table of its own. */
static void routes_sniffed(struct build *b, const struct seen *x, uint32_t port)
{
        struct parts vhosts = { 0 };
        struct host_list l = { .n = 0 };
        struct strmap claims = STRMAP_INIT;
        struct arena a;

        arena_init(&a, 1024);
        domains_of(b, &a, x->svc, &claims, &l);
        add_vhost(b, x, port, &l, true, &vhosts);
        join_routes(b, arena_printf(&a, STR_FMT ":%u", STR_ARG(x->svc->host), port).p, &vhosts);
        strmap_fini(&claims);
        arena_fini(&a);
}

static void routes_of_port(struct build *b, const struct use *u, size_t n)
{
        struct scope *s = b->scope;
        struct parts vhosts = { 0 };
        struct strmap claims = STRMAP_INIT;
        struct arena a;
        uint32_t port = u[0].port;
        char name[16];

        arena_init(&a, 4096);
        for (size_t i = 0; i < n; i++) {
                const struct seen *x = &s->seen[u[i].seen];
                enum mesh_protocol p = x->svc->ports[u[i].index].protocol;
                struct host_list l = { .n = 0 };

                if (!mesh_protocol_http(p) && p != MESH_AUTO)
                        continue;
                if (i && u[i - 1].seen == u[i].seen)
                        continue; /* the same number twice */
                domains_of(b, &a, x->svc, &claims, &l);
                add_vhost(b, x, port, &l, false, &vhosts);
                if (p == MESH_AUTO && listens_apart(x->svc, p))
                        routes_sniffed(b, x, port);
                arena_reset(&a);
        }
        for (size_t i = 0; port == 80 && i < s->nlone; i++)
                if (!strmap_has(&claims, s->lone_host[i]))
                        add_lone(b, i, &vhosts);
        if (vhosts.n) {
                qsort(vhosts.v, vhosts.n, sizeof(*vhosts.v), by_vhost_name);
                add_catch_all(b, port, &vhosts);
                snprintf(name, sizeof(name), "%u", port);
                join_routes(b, name, &vhosts);
        }
        strmap_fini(&claims);
        arena_fini(&a);
}

void routes_outbound(struct build *b)
{
        const struct scope *s = b->scope;
        bool port_80 = false;

        for (size_t i = 0; i < s->nuses;) {
                size_t n = 1;

                while (i + n < s->nuses && s->uses[i + n].port == s->uses[i].port)
                        n++;
                port_80 |= s->uses[i].port == 80;
                routes_of_port(b, &s->uses[i], n);
                i += n;
        }
        if (!port_80 && s->nlone) {
                struct use none = { .port = 80 };

                routes_of_port(b, &none, 0);
        }
}
