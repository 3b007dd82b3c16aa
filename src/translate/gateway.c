/* Listeners and routes of a gateway (a proxy of type router): what the Gateway resources that select it say, bound to VirtualServices.
 *
 * Servers of several Gateways may share a port. They listen where the gateway's own Service sends that port (80 -> 8080), because that is
 * where its clients arrive. */
#include "translate/internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

struct bound { /* one server of one Gateway, on the port where it listens */
        const struct mesh_gateway *gw;
        const struct mesh_gateway_server *server;
        struct str name; /* "namespace/name" of the Gateway */
        uint32_t listen;
        size_t order;
};

struct bounds {
        struct bound *v;
        size_t n, cap;
        struct arena arena;
};

enum serves { SERVES_NOTHING, SERVES_HTTP, SERVES_TLS, SERVES_TCP };

static enum serves what_serves(const struct mesh_gateway_server *s)
{
        if (mesh_protocol_http(s->port.protocol))
                return SERVES_HTTP;
        if (mesh_protocol_tls(s->port.protocol))
                return s->tls == MESH_TLS_PASSTHROUGH ? SERVES_TLS : SERVES_NOTHING;
        return s->port.protocol == MESH_TCP && s->tls == MESH_TLS_NONE ? SERVES_TCP : SERVES_NOTHING;
}

static uint32_t listen_port(const struct build *b, uint32_t port)
{
        for (size_t i = 0; i < b->snap->nservices; i++) {
                const struct mesh_service *svc = b->snap->services[i];

                if (svc->from_entry || !svc->has_selector || !str_eq(svc->ns, b->proxy->ns) ||
                    !mesh_labels_match(&svc->selector, &b->proxy->labels))
                        continue;
                for (size_t j = 0; j < svc->nports; j++)
                        if (svc->ports[j].number == port)
                                return own_target(b, &svc->ports[j]);
        }
        return port;
}

static int by_listen(const void *x, const void *y)
{
        const struct bound *a = x, *b = y;

        if (a->listen != b->listen)
                return a->listen < b->listen ? -1 : 1;
        return (a->order > b->order) - (a->order < b->order);
}

static void bind_server(const struct build *b, struct bounds *out, const struct mesh_gateway *gw, size_t index)
{
        const struct mesh_gateway_server *s = &gw->servers[index];
        struct bound x = { .gw = gw, .server = s };
        char path[64];

        snprintf(path, sizeof(path), "spec.servers[%zu]", index);
        if (what_serves(s) == SERVES_NOTHING) {
                build_warn(b, &gw->meta, path,
                           "a server that ends TLS needs certificates, which are not in this release: it does not listen");
                return;
        }
        x.listen = listen_port(b, s->port.number);
        if (!x.listen) {
                build_warn(b, &gw->meta, path, "port %u: the gateway's Service sends it to a port name that no container has",
                           s->port.number);
                return;
        }
        if (x.listen < 1024) {
                build_warn(b, &gw->meta, path,
                           "port %u: no port of the gateway's Service leads to it, and a gateway cannot listen below 1024 itself: "
                           "add it to the Service",
                           s->port.number);
                return;
        }
        x.name = arena_printf(&out->arena, STR_FMT "/" STR_FMT, STR_ARG(gw->meta.ns), STR_ARG(gw->meta.name));
        x.order = out->n;
        VEC_PUSH(out->v, out->n, out->cap) = x;
}

static void bounds_make(const struct build *b, struct bounds *out)
{
        *out = (struct bounds){ 0 };
        arena_init(&out->arena, 1024);
        for (size_t i = 0; i < b->snap->ngateways; i++) {
                const struct mesh_gateway *gw = b->snap->gateways[i];

                if (!mesh_labels_match(&gw->selector, &b->proxy->labels))
                        continue;
                for (size_t j = 0; j < gw->nservers; j++)
                        bind_server(b, out, gw, j);
        }
        if (out->n)
                qsort(out->v, out->n, sizeof(*out->v), by_listen);
}

static void bounds_fini(struct bounds *x)
{
        free(x->v);
        arena_fini(&x->arena);
}

/* How many of v[0..n) listen on the port of v[0]. */
static size_t same_port(const struct bound *v, size_t n)
{
        size_t k = 1;

        while (k < n && v[k].listen == v[0].listen)
                k++;
        return k;
}

static bool binds(const struct build *b, const struct mesh_vs *vs, const struct bound *x)
{
        return mesh_export_visible(&vs->export_to, vs->meta.ns, b->proxy->ns) && gateway_listed(vs->gateways, vs->ngateways, x->name);
}

/* The host that a VirtualService and a server have in common: the more specific one; empty when there is none. */
static struct str common_host(const struct mesh_gateway_server *s, size_t i, const struct mesh_vs *vs, struct str host)
{
        if (!str_eqc(s->hosts[i].ns, "*") && !str_eq(s->hosts[i].ns, vs->meta.ns))
                return (struct str){ 0 };
        if (mesh_host_covers(s->hosts[i].host, host))
                return host;
        if (mesh_host_covers(host, s->hosts[i].host))
                return s->hosts[i].host;
        return (struct str){ 0 };
}

/* --- Routes -------------------------------------------------------------------------------------------------------------------------- */

struct gw_host {
        struct str host;
        bool redirect; /* to https */
        uint32_t port; /* of the server, which is what matches and names say */
        struct {
                const struct mesh_vs *vs;
                struct str gateway;
        } * v;
        size_t n, cap;
};

static void host_add(struct strmap *hosts, struct str host, const struct bound *x, const struct mesh_vs *vs)
{
        struct gw_host *h = strmap_get(hosts, host);

        if (!h) {
                h = MEM_NEW(struct gw_host);
                h->host = host;
                h->port = x->server->port.number;
                strmap_set(hosts, host, h);
        }
        h->redirect |= x->server->https_redirect;
        if (!vs)
                return;
        for (size_t i = 0; i < h->n; i++)
                if (h->v[i].vs == vs && str_eq(h->v[i].gateway, x->name))
                        return;
        if (h->n == h->cap)
                mem_grow((void **)&h->v, &h->cap, h->n + 1, sizeof(*h->v));
        h->v[h->n].vs = vs;
        h->v[h->n++].gateway = x->name;
}

static void hosts_of(const struct build *b, const struct bound *x, struct strmap *hosts)
{
        for (size_t i = 0; i < b->snap->nvs; i++) {
                const struct mesh_vs *vs = b->snap->vs[i];

                if (!vs->nhttp || !binds(b, vs, x))
                        continue;
                for (size_t j = 0; j < vs->nhosts; j++) {
                        for (size_t k = 0; k < x->server->nhosts; k++) {
                                struct str host = common_host(x->server, k, vs, vs->hosts[j]);

                                if (host.n)
                                        host_add(hosts, host, x, vs);
                        }
                }
        }
        for (size_t k = 0; x->server->https_redirect && k < x->server->nhosts; k++)
                host_add(hosts, x->server->hosts[k].host, x, NULL);
}

static void add_gateway_vhost(struct build *b, const struct gw_host *h, struct parts *parts)
{
        struct arena *a = &b->scratch;
        const char *name = arena_printf(a, STR_FMT ":%u", STR_ARG(h->host), h->port).p;
        struct key k;
        Xds__VirtualHost *v;

        key_init(&k, 'g');
        key_str(&k, h->host);
        key_u64(&k, h->port | (uint64_t)h->redirect << 32);
        key_u64(&k, b->config->version);
        for (size_t i = 0; i < h->n; i++) {
                key_destinations(b, &k, h->v[i].vs);
                key_str(&k, h->v[i].gateway);
        }
        if (!cache_get(b->t, &k, parts)) {
                struct str domain = h->host;

                v = vhost_make(a, name, &domain, 1);
                v->routes = MAKE_LIST(a, ROUTES_MAX);
                for (size_t i = 0; i < h->n; i++)
                        v->n_routes += routes_of(b, a, h->v[i].vs, &(struct route_query){ h->v[i].gateway, h->port },
                                                 v->routes + v->n_routes, ROUTES_MAX - v->n_routes);
                v->has_require_tls = h->redirect;
                v->require_tls = h->redirect ? XDS__VIRTUAL_HOST__TLS_REQUIREMENT_TYPE__ALL : 0;
                cache_put(b->t, &k, name, v, parts);
        }
        arena_reset(a);
}

/* A port that serves HTTP and no host yet answers 404 to everything. */
static void add_blackhole(struct build *b, uint32_t port, struct parts *parts)
{
        static struct str all[] = { { "*", 1 } };
        struct arena *a = &b->scratch;
        const char *name = arena_printf(a, "blackhole:%u", port).p;
        struct key k;

        key_init(&k, 'b');
        key_u64(&k, port);
        if (!cache_get(b->t, &k, parts)) {
                Xds__VirtualHost *v = vhost_make(a, name, all, 1);

                v->has_include_request_attempt_count = v->include_request_attempt_count = false;
                cache_put(b->t, &k, name, v, parts);
        }
        arena_reset(a);
}

static void routes_of_listener(struct build *b, const struct bound *v, size_t n)
{
        struct strmap hosts = STRMAP_INIT;
        struct parts parts = { 0 };
        struct arena *a = &b->scratch;
        Xds__RouteConfiguration *head;
        bool http = false;

        for (size_t i = 0; i < n; i++) {
                if (what_serves(v[i].server) != SERVES_HTTP)
                        continue;
                http = true;
                hosts_of(b, &v[i], &hosts);
        }
        strmap_sort(&hosts);
        STRMAP_EACH (&hosts, e) {
                struct gw_host *h = e->value;

                add_gateway_vhost(b, h, &parts);
                free(h->v);
                free(h);
        }
        strmap_fini(&hosts);
        if (!http)
                return;
        if (!parts.n)
                add_blackhole(b, v[0].listen, &parts);
        head = MAKE(a, xds__route_configuration);
        head->name = (char *)arena_printf(a, "http.%u", v[0].listen).p;
        cache_join(b->t, head->name, head, 2, &parts, route_config_tail(a), &b->scope->res[TRANSLATE_ROUTES]);
        keep_parts(&b->scope->parts[TRANSLATE_ROUTES], &parts);
        arena_reset(a);
}

void routes_gateway(struct build *b)
{
        struct bounds x;
        struct diags *diags = b->diags;

        b->diags = NULL; /* listeners_gateway() reports the same */
        bounds_make(b, &x);
        b->diags = diags;
        for (size_t i = 0, n; i < x.n; i += n) {
                n = same_port(&x.v[i], x.n - i);
                routes_of_listener(b, &x.v[i], n);
        }
        bounds_fini(&x);
}

/* --- Listeners ----------------------------------------------------------------------------------------------------------------------- */

struct gw_listener {
        uint32_t port;
        struct parts chains;
        struct strmap claims; /* server names taken */
        bool http, sni;
};

static bool server_has(const struct mesh_gateway_server *s, const struct mesh_vs *vs, struct str host)
{
        for (size_t i = 0; i < s->nhosts; i++)
                if (common_host(s, i, vs, host).n)
                        return true;
        return false;
}

static void add_chain(struct build *b, struct gw_listener *l, const struct bound *x, const struct mesh_vs *vs,
                      const struct mesh_l4_route *r, const struct str *sni, size_t nsni, const struct str *ranges, size_t nranges)
{
        struct arena *a = &b->scratch;
        uint32_t port = x->server->port.number;
        Xds__FilterChain *c;
        struct key k;

        key_init(&k, 'w');
        key_u64(&k, (uint64_t)(r - (nsni ? vs->tls : vs->tcp)) << 32 | port);
        key_u64(&k, b->config->version);
        key_destinations(b, &k, vs);
        for (size_t i = 0; i < nsni; i++)
                key_str(&k, sni[i]);
        for (size_t i = 0; i < nranges; i++)
                key_str(&k, ranges[i]);
        if (!cache_get(b->t, &k, &l->chains)) {
                c = chain_new(a);
                chain_match(a, c, sni, nsni, ranges, nranges);
                filter_list(a, c, filter_tcp_routed(b, a, r->route, r->nroute, port, &vs->meta), NULL);
                cache_put(b->t, &k, "", c, &l->chains);
        }
        arena_reset(a);
}

/* Takes a server name (or "": any) together with the address ranges of a match; false when an earlier chain has it. */
static bool claim(struct gw_listener *l, struct str name, const struct mesh_l4_match *m)
{
        struct buf k = BUF_INIT;
        bool fresh;

        buf_str(&k, name);
        for (size_t i = 0; m && i < m->nsubnets; i++) {
                buf_char(&k, ' ');
                buf_str(&k, m->subnets[i]);
        }
        fresh = strmap_set(&l->claims, buf_view(&k), (void *)1) == NULL;
        buf_fini(&k);
        return fresh;
}

/* The server names of a match that this server has and no earlier chain took. */
static size_t free_names(const struct build *b, struct gw_listener *l, const struct bound *x, const struct mesh_vs *vs,
                         const struct mesh_l4_match *m, struct str *out)
{
        size_t n = 0;

        for (size_t i = 0; i < m->nsni; i++) {
                if (!server_has(x->server, vs, m->sni[i]))
                        continue;
                if (!claim(l, m->sni[i], m))
                        build_warn(b, &vs->meta, "spec.tls", "server name " STR_FMT " is routed on port %u already: this route is left out",
                                   STR_ARG(m->sni[i]), l->port);
                else
                        out[n++] = m->sni[i];
        }
        return n;
}

static void tls_chains(struct build *b, struct gw_listener *l, const struct bound *x, const struct mesh_vs *vs)
{
        const struct route_query q = { x->name, x->server->port.number };

        for (size_t i = 0; i < vs->ntls; i++) {
                for (size_t j = 0; j < vs->tls[i].nmatch; j++) {
                        const struct mesh_l4_match *m = &vs->tls[i].match[j];
                        struct str *names;
                        size_t n;

                        if (!l4_match_applies(b, m, &q))
                                continue;
                        names = mem_alloc((m->nsni + 1) * sizeof(*names));
                        n = free_names(b, l, x, vs, m, names);
                        if (n) {
                                add_chain(b, l, x, vs, &vs->tls[i], names, n, m->subnets, m->nsubnets);
                                l->sni = true;
                        }
                        free(names);
                }
        }
}

static void tcp_chains(struct build *b, struct gw_listener *l, const struct bound *x, const struct mesh_vs *vs)
{
        const struct route_query q = { x->name, x->server->port.number };

        for (size_t i = 0; i < vs->ntcp; i++) {
                const struct mesh_l4_route *r = &vs->tcp[i];

                for (size_t j = 0; j < (r->nmatch ? r->nmatch : 1); j++) {
                        const struct mesh_l4_match *m = r->nmatch ? &r->match[j] : NULL;

                        if (m && !l4_match_applies(b, m, &q))
                                continue;
                        if (claim(l, STR(""), m))
                                add_chain(b, l, x, vs, r, NULL, 0, m ? m->subnets : NULL, m ? m->nsubnets : 0);
                        else
                                build_warn(b, &vs->meta, "spec.tcp", "port %u is routed already: this route is left out", l->port);
                }
        }
}

static void l4_chains(struct build *b, struct gw_listener *l, const struct bound *x, bool tls)
{
        for (size_t i = 0; i < b->snap->nvs; i++) {
                const struct mesh_vs *vs = b->snap->vs[i];
                bool hosts = false;

                if (!binds(b, vs, x))
                        continue;
                for (size_t j = 0; j < vs->nhosts; j++)
                        hosts |= server_has(x->server, vs, vs->hosts[j]);
                if (hosts && tls)
                        tls_chains(b, l, x, vs);
                else if (hosts)
                        tcp_chains(b, l, x, vs);
        }
}

static void add_gateway_http(struct build *b, struct gw_listener *l)
{
        struct arena *a = &b->scratch;
        const char *stat = arena_printf(a, "outbound_%s_%u;", any_address(b), l->port).p;
        const char *rds = arena_printf(a, "http.%u", l->port).p;
        struct key k;

        key_init(&k, 'p');
        key_u64(&k, b->config->version);
        key_str(&k, str_of(stat));
        key_identity(&k, b->proxy);
        if (!cache_get(b->t, &k, &l->chains)) {
                Xds__FilterChain *c = chain_new(a);

                filter_list(a, c, filter_hcm(b, a, HCM_GATEWAY, stat, rds, NULL), NULL);
                cache_put(b->t, &k, "", c, &l->chains);
        }
        arena_reset(a);
}

static void finish_gateway(struct build *b, struct gw_listener *l)
{
        struct arena *a = &b->scratch;

        if (l->chains.n) {
                Xds__Listener *head = MAKE(a, xds__listener), *tail = MAKE(a, xds__listener);
                const char *any = any_address(b);

                head->name = (char *)arena_printf(a, "%s_%u", any, l->port).p;
                head->address = make_address(a, str_of(any), l->port);
                also_ipv6(b, a, tail, l->port);
                if (l->sni) {
                        tail->listener_filters = MAKE_LIST(a, 1);
                        tail->listener_filters[tail->n_listener_filters++] = b->common->tls_inspector;
                }
                tail->has_traffic_direction = true;
                tail->traffic_direction = XDS__TRAFFIC_DIRECTION__OUTBOUND;
                tail->access_log = b->common->nr_access_log;
                tail->n_access_log = b->common->naccess_log;
                tail->max_connections_to_accept_per_socket_event = make_u32(a, 1);
                cache_join(b->t, head->name, head, 3, &l->chains, tail, &b->scope->res[TRANSLATE_LISTENERS]);
                arena_reset(a);
        }
        keep_parts(&b->scope->parts[TRANSLATE_LISTENERS], &l->chains);
        strmap_fini(&l->claims);
}

static void listener_of(struct build *b, const struct bound *v, size_t n)
{
        struct gw_listener l = { .port = v[0].listen };
        enum serves first = what_serves(v[0].server);

        for (size_t i = 0; i < n; i++) {
                enum serves s = what_serves(v[i].server);

                if ((s == SERVES_TLS) != (first == SERVES_TLS) || (s == SERVES_TCP) != (first == SERVES_TCP)) {
                        build_warn(b, &v[i].gw->meta, "spec.servers",
                                   "port %u: another server on this port has a different kind of protocol; this one is left out",
                                   v[i].server->port.number);
                        continue;
                }
                if (s == SERVES_HTTP)
                        l.http = true;
                else
                        l4_chains(b, &l, &v[i], s == SERVES_TLS);
        }
        if (l.http)
                add_gateway_http(b, &l);
        finish_gateway(b, &l);
}

void listeners_gateway(struct build *b)
{
        struct bounds x;

        bounds_make(b, &x);
        for (size_t i = 0, n; i < x.n; i += n) {
                n = same_port(&x.v[i], x.n - i);
                listener_of(b, &x.v[i], n);
        }
        bounds_fini(&x);
}
