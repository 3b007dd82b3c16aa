/* Outbound listeners of a sidecar.
 *
 * Traffic arrives at virtualOutbound (15001) and is handed to the listener of its original destination: one for a virtual IP and port where
 * a service that is not HTTP has such an address, else the one of the port on any address, which HTTP shares, and where TLS services are
 * told apart by server name. What none of them takes ends in the default chain. */
#include "translate/internal.h"

#include "base/mem.h"

#include <stdio.h>

const char *any_address(const struct build *b)
{
        return b->proxy->ipv4 ? "0.0.0.0" : "::";
}

void also_ipv6(const struct build *b, struct arena *a, Xds__Listener *l, uint32_t port)
{
        if (!b->proxy->ipv4 || !b->proxy->ipv6)
                return;
        l->additional_addresses = MAKE_LIST(a, 1);
        l->additional_addresses[0] = MAKE(a, xds__additional_address);
        l->additional_addresses[0]->address = make_address(a, STR("::"), port);
        l->n_additional_addresses = 1;
}

/* One listener while it is collected. */
struct collect {
        const char *address;
        uint32_t port;
        bool any_address;
        const struct seen *http, *sniffed; /* somebody speaks HTTP here; of unknown protocol on an address of its own */
        bool tcp;                          /* a chain that takes everything is there already */
        bool sni;                          /* some chain asks for a server name */
        struct parts chains;
        struct strmap claims; /* matches that VirtualServices took: Envoy refuses two equal ones */
};

Xds__FilterChain *chain_new(struct arena *a)
{
        Xds__FilterChain *c = MAKE(a, xds__filter_chain);

        c->transport_socket_connect_timeout = make_s(a, 15);
        return c;
}

void chain_match(struct arena *a, Xds__FilterChain *c, const struct str *sni, size_t nsni, const struct str *ranges, size_t nranges)
{
        Xds__FilterChainMatch *m;

        if (!nsni && !nranges)
                return;
        m = c->filter_chain_match = MAKE(a, xds__filter_chain_match);
        m->server_names = MAKE_LIST(a, nsni);
        for (size_t i = 0; i < nsni; i++)
                m->server_names[m->n_server_names++] = arena_cstr(a, sni[i]);
        m->prefix_ranges = MAKE_LIST(a, nranges);
        for (size_t i = 0; i < nranges; i++) {
                Xds__CidrRange *r = make_cidr(a, ranges[i]);

                if (r)
                        m->prefix_ranges[m->n_prefix_ranges++] = r;
        }
}

static void http_chain_match(struct arena *a, Xds__FilterChain *c)
{
        static char *protocols[] = { "http/1.1", "h2c" };

        c->filter_chain_match = MAKE(a, xds__filter_chain_match);
        c->filter_chain_match->transport_protocol = "raw_buffer";
        c->filter_chain_match->application_protocols = protocols;
        c->filter_chain_match->n_application_protocols = 2;
}

/* --- Chains of VirtualServices ------------------------------------------------------------------------------------------------------ */

/* Takes a match; false when an earlier chain of this listener has it. */
static bool take(struct collect *l, const struct str *names, size_t n, const struct str *ranges, size_t nranges)
{
        struct buf k = BUF_INIT;
        bool fresh = true;

        for (size_t i = 0; i < (n ? n : 1); i++) {
                k.n = 0;
                if (n)
                        buf_str(&k, names[i]);
                buf_char(&k, ' ');
                for (size_t j = 0; j < nranges; j++) {
                        buf_str(&k, ranges[j]);
                        buf_char(&k, ',');
                }
                fresh &= strmap_set(&l->claims, buf_view(&k), (void *)1) == NULL;
        }
        buf_fini(&k);
        return fresh;
}

static bool add_routed_chain(struct build *b, struct collect *l, const struct mesh_vs *vs, const struct mesh_l4_route *r,
                             size_t route_index, size_t match_index, const struct str *sni, size_t nsni, const struct str *ranges,
                             size_t nranges, uint32_t port)
{
        struct key k;
        Xds__FilterChain *c;
        struct arena *a = &b->scratch;

        if (!take(l, sni, nsni, ranges, nranges)) {
                build_warn(b, &vs->meta, nsni ? "spec.tls" : "spec.tcp",
                           "port %u: an earlier route has the same match (" STR_FMT "): this one is left out", port,
                           STR_ARG(nsni ? sni[0] : STR("all connections")));
                return false;
        }
        key_init(&k, 'r');
        key_u64(&k, route_index << 32 | match_index << 16 | (nsni ? 1 : 0));
        key_u64(&k, port);
        key_u64(&k, b->config->version);
        for (size_t i = 0; i < nranges; i++)
                key_str(&k, ranges[i]);
        key_destinations(b, &k, vs);
        if (cache_get(b->t, &k, &l->chains))
                return true;
        c = chain_new(a);
        chain_match(a, c, sni, nsni, ranges, nranges);
        make_origin(a, &c->metadata, vs->meta.config);
        filter_list(a, c, filter_tcp_routed(b, a, r->route, r->nroute, port, &vs->meta), NULL);
        cache_put(b->t, &k, "", c, &l->chains);
        arena_reset(a);
        return true;
}

/* The address ranges that tell a service's connections apart on a listener for any address: those of a ServiceEntry that are whole
 * networks. */
static size_t ranges_of(const struct mesh_service *svc, const struct str **v)
{
        for (size_t i = 0; i < svc->naddresses; i++)
                if (str_chr(svc->addresses[i], '/') >= 0) {
                        *v = svc->addresses;
                        return svc->naddresses;
                }
        return 0;
}

/* The tls routes of the VirtualService of a host, on one port; false when there is none that applies. */
static bool tls_routes(struct build *b, struct collect *l, const struct seen *x, uint32_t port)
{
        const struct route_query q = { STR("mesh"), port };
        bool any = false;

        for (size_t i = 0; x->vs && i < x->vs->ntls; i++) {
                const struct mesh_l4_route *r = &x->vs->tls[i];

                for (size_t j = 0; j < r->nmatch; j++) {
                        const struct mesh_l4_match *m = &r->match[j];
                        const struct str *ranges = m->subnets;
                        size_t nranges = m->nsubnets;

                        if (!l4_match_applies(b, m, &q))
                                continue;
                        if (!nranges && l->any_address)
                                nranges = ranges_of(x->svc, &ranges);
                        add_routed_chain(b, l, x->vs, r, i, j, m->sni, m->nsni, ranges, nranges, port);
                        l->sni = any = true;
                }
        }
        return any;
}

static bool tcp_routes(struct build *b, struct collect *l, const struct seen *x, uint32_t port)
{
        const struct route_query q = { STR("mesh"), port };
        bool any = false;

        for (size_t i = 0; x->vs && i < x->vs->ntcp; i++) {
                const struct mesh_l4_route *r = &x->vs->tcp[i];
                const struct str *ranges = NULL;
                size_t nranges = l->any_address ? ranges_of(x->svc, &ranges) : 0;

                for (size_t j = 0; j < (r->nmatch ? r->nmatch : 1); j++) {
                        const struct mesh_l4_match *m = r->nmatch ? &r->match[j] : NULL;

                        if (m && !l4_match_applies(b, m, &q))
                                continue;
                        if (m && m->nsubnets)
                                add_routed_chain(b, l, x->vs, r, i, j, NULL, 0, m->subnets, m->nsubnets, port);
                        else
                                l->tcp |= add_routed_chain(b, l, x->vs, r, i, j, NULL, 0, ranges, nranges, port) && !nranges;
                        any = true;
                        if (!m)
                                return any;
                }
        }
        return any;
}

/* --- Chains of services ------------------------------------------------------------------------------------------------------------- */

static void add_service_chain(struct build *b, struct collect *l, const struct mesh_service *svc, size_t index, bool by_name)
{
        const struct mesh_port *port = &svc->ports[index];
        const struct mesh_dr *dr = mesh_dr_find(b->snap, svc->host, svc->ns, b->proxy->ns, &b->proxy->labels);
        const struct str *ranges = NULL;
        size_t nranges = l->any_address ? ranges_of(svc, &ranges) : 0, nsni = by_name && !str_eqc(svc->host, "*") ? 1 : 0;
        struct arena *a = &b->scratch;
        struct mesh_policy p;
        struct key k;
        Xds__FilterChain *c;
        char *cluster;

        l->sni |= nsni;
        key_init(&k, 't');
        key_u64(&k, svc->version);
        key_u64(&k, index << 2 | nsni << 1 | l->any_address);
        key_u64(&k, b->config->version);
        key_u64(&k, dr ? dr->meta.version : 0);
        if (cache_get(b->t, &k, &l->chains))
                return;
        mesh_policy_for(dr, NULL, port->number, &p);
        c = chain_new(a);
        chain_match(a, c, &svc->host, nsni, ranges, nranges);
        cluster = cluster_name(a, "outbound", port->number, STR(""), svc->host);
        filter_list(a, c, filter_tcp(b, a, cluster, cluster, true, p.tcp_idle_us), NULL);
        cache_put(b->t, &k, "", c, &l->chains);
        arena_reset(a);
}

static void add_http_chain(struct build *b, struct collect *l)
{
        struct arena *a = &b->scratch;
        Xds__FilterChain *c = chain_new(a);
        struct key k;
        const char *stat = arena_printf(a, "outbound_%s_%u;", l->address, l->port).p, *rds = arena_printf(a, "%u", l->port).p;

        if (l->sniffed && !l->any_address)
                rds = arena_printf(a, STR_FMT ":%u", STR_ARG(l->sniffed->svc->host), l->port).p;
        key_init(&k, 'h');
        key_u64(&k, b->config->version);
        key_str(&k, str_of(stat));
        key_str(&k, str_of(rds));
        key_identity(&k, b->proxy);
        if (!cache_get(b->t, &k, &l->chains)) {
                http_chain_match(a, c);
                filter_list(a, c, filter_hcm(b, a, HCM_OUTBOUND, stat, rds, NULL), NULL);
                cache_put(b->t, &k, "", c, &l->chains);
        }
        arena_reset(a);
}

/* --- Whole listeners ---------------------------------------------------------------------------------------------------------------- */

static Xds__FilterChain *catch_all(const struct build *b, struct arena *a, const char *name, uint32_t port, bool by_name)
{
        Xds__FilterChain *c = MAKE(a, xds__filter_chain);
        const char *cluster = b->scope->allow_any ? "PassthroughCluster" : "BlackHoleCluster";

        filter_list(a, c, filter_tcp(b, a, cluster, cluster, true, -1), NULL);
        c->name = (char *)name;
        if (!b->scope->allow_any)
                make_reason(a, &c->metadata, reason_tcp(b, a, port, by_name));
        return c;
}

static void listener_tail(const struct build *b, struct arena *a, struct collect *l, Xds__Listener *tail)
{
        if (l->any_address) {
                also_ipv6(b, a, tail, l->port);
                tail->default_filter_chain = catch_all(b, a, "PassthroughFilterChain", l->port, l->sni);
                tail->default_filter_chain->filter_chain_match = MAKE(a, xds__filter_chain_match);
        }
        tail->listener_filters = MAKE_LIST(a, 2);
        if (l->sni)
                tail->listener_filters[tail->n_listener_filters++] = b->common->tls_inspector;
        if (l->http || l->sniffed)
                tail->listener_filters[tail->n_listener_filters++] = b->common->http_inspector;
        tail->listener_filters_timeout = make_us(a, b->config->protocol_detection_us);
        tail->has_continue_on_listener_filters_timeout = tail->continue_on_listener_filters_timeout = true;
        tail->has_traffic_direction = true;
        tail->traffic_direction = XDS__TRAFFIC_DIRECTION__OUTBOUND;
        tail->bind_to_port = make_bool(a, false);
}

static void finish(struct build *b, struct collect *l)
{
        struct arena *a = &b->scratch;

        if (l->chains.n) {
                Xds__Listener *head = MAKE(a, xds__listener), *tail = MAKE(a, xds__listener);

                head->name = (char *)arena_printf(a, "%s_%u", l->address, l->port).p;
                head->address = make_address(a, str_of(l->address), l->port);
                listener_tail(b, a, l, tail);
                cache_join(b->t, head->name, head, 3, &l->chains, tail, &b->scope->res[TRANSLATE_LISTENERS]);
                arena_reset(a);
        }
        keep_parts(&b->scope->parts[TRANSLATE_LISTENERS], &l->chains);
        strmap_fini(&l->claims);
}

/* A service of unknown protocol on its own address: HTTP when it looks like it, else as TCP. */
static void on_address(struct build *b, const struct seen *x, size_t index, struct str address)
{
        const struct mesh_port *port = &x->svc->ports[index];
        char text[64];
        struct collect l = { .address = text, .port = port->number };
        bool routed;

        snprintf(text, sizeof(text), STR_FMT, STR_ARG(address));
        if (port->protocol == MESH_AUTO) {
                l.sniffed = x;
                add_http_chain(b, &l);
        }
        routed = tls_routes(b, &l, x, port->number);
        routed |= !mesh_protocol_tls(port->protocol) && tcp_routes(b, &l, x, port->number);
        if (!routed)
                add_service_chain(b, &l, x->svc, index, false);
        finish(b, &l);
}

/* A headless service has no virtual IP; its clients dial the pods. */
static void on_endpoints(struct build *b, const struct seen *x, size_t index, struct strmap *done)
{
        size_t n;
        struct mesh_slice **v = mesh_slices_of(b->snap, x->svc, &n);
        char key[80];

        for (size_t i = 0; i < n; i++) {
                for (size_t j = 0; j < v[i]->n; j++) {
                        snprintf(key, sizeof(key), STR_FMT "_%u", STR_ARG(v[i]->v[j].address), x->svc->ports[index].number);
                        if (!v[i]->v[j].ready || strmap_set(done, str_of(key), (void *)1))
                                continue;
                        on_address(b, x, index, v[i]->v[j].address);
                }
        }
}

bool listens_apart(const struct mesh_service *svc, enum mesh_protocol p)
{
        const struct str *ranges;

        return !mesh_protocol_http(p) && (svc->headless || (svc->naddresses && !ranges_of(svc, &ranges)));
}

static void on_any_address(struct build *b, struct collect *l, const struct seen *x, size_t index)
{
        const struct mesh_port *port = &x->svc->ports[index];
        bool by_name = mesh_protocol_tls(port->protocol), routed;
        const struct str *ranges;

        if (mesh_protocol_http(port->protocol) || port->protocol == MESH_AUTO) {
                l->http = x;
                if (port->protocol != MESH_AUTO)
                        return;
        }
        routed = tls_routes(b, l, x, port->number);
        if (!by_name)
                routed |= tcp_routes(b, l, x, port->number);
        if (routed)
                return;
        if (by_name) {
                char claim[300];

                snprintf(claim, sizeof(claim), STR_FMT " ", STR_ARG(x->svc->host));
                if (!l->claims.live || !strmap_has(&l->claims, str_of(claim)))
                        add_service_chain(b, l, x->svc, index, true);
                return;
        }
        if (!ranges_of(x->svc, &ranges)) {
                if (l->tcp) {
                        build_warn(b, x->svc->meta, "spec.ports",
                                   "port %u of " STR_FMT
                                   " is %s without an address, and another host has it already: give one of them addresses, or "
                                   "protocol TLS",
                                   port->number, STR_ARG(x->svc->host), mesh_protocol_name(port->protocol));
                        return;
                }
                l->tcp = true;
        }
        add_service_chain(b, l, x->svc, index, false);
}

static void listeners_of_port(struct build *b, const struct use *u, size_t n, struct strmap *done)
{
        struct scope *s = b->scope;
        struct collect l = { .address = any_address(b), .port = u[0].port, .any_address = true };

        /* VirtualServices first: what they match is theirs, whatever order the hosts come in. */
        for (int pass = 0; pass < 2; pass++) {
                for (size_t i = 0; i < n; i++) {
                        const struct seen *x = &s->seen[u[i].seen];
                        enum mesh_protocol p = x->svc->ports[u[i].index].protocol;

                        if (!listens_apart(x->svc, p) && (x->vs != NULL) == (pass == 0))
                                on_any_address(b, &l, x, u[i].index);
                }
        }
        for (size_t i = 0; i < n; i++) {
                const struct seen *x = &s->seen[u[i].seen];
                enum mesh_protocol p = x->svc->ports[u[i].index].protocol;
                char key[80];

                if (!listens_apart(x->svc, p))
                        continue;
                if (x->svc->headless)
                        on_endpoints(b, x, u[i].index, done);
                for (size_t j = 0; j < x->svc->naddresses; j++) {
                        snprintf(key, sizeof(key), STR_FMT "_%u", STR_ARG(x->svc->addresses[j]), u[i].port);
                        if (!strmap_set(done, str_of(key), (void *)1))
                                on_address(b, x, u[i].index, x->svc->addresses[j]);
                }
        }
        if (l.http)
                add_http_chain(b, &l);
        finish(b, &l);
}

/* --- 15001 -------------------------------------------------------------------------------------------------------------------------- */

static void virtual_outbound(struct build *b)
{
        struct parts *res = &b->scope->res[TRANSLATE_LISTENERS];
        struct arena *a = &b->scratch;
        Xds__Listener *l;
        Xds__FilterChain *self;
        struct key k;

        key_init(&k, 'o');
        key_u64(&k, b->config->version);
        key_u64(&k, (uint64_t)b->scope->allow_any << 2 | (uint64_t)b->proxy->ipv6 << 1 | b->proxy->ipv4);
        key_str(&k, b->scope->policy);
        if (cache_get(b->t, &k, res))
                return;
        l = MAKE(a, xds__listener);
        l->name = "virtualOutbound";
        l->address = make_address(a, str_of(any_address(b)), 15001);
        also_ipv6(b, a, l, 15001);
        self = MAKE(a, xds__filter_chain);
        self->name = "virtualOutbound-blackhole";
        self->filter_chain_match = MAKE(a, xds__filter_chain_match);
        self->filter_chain_match->destination_port = make_u32(a, 15001);
        filter_list(a, self, filter_tcp(b, a, "BlackHoleCluster", "BlackHoleCluster", false, -1), NULL);
        make_reason(a, &self->metadata, STR("the connection was made to port 15001 itself: it has no destination of its own"));
        l->filter_chains = MAKE_LIST(a, 2);
        l->filter_chains[0] = self;
        l->filter_chains[1] = catch_all(b, a, "virtualOutbound-catchall-tcp", 0, false);
        l->n_filter_chains = 2;
        l->use_original_dst = make_bool(a, true);
        l->has_traffic_direction = true;
        l->traffic_direction = XDS__TRAFFIC_DIRECTION__OUTBOUND;
        l->access_log = b->common->nr_access_log;
        l->n_access_log = b->common->naccess_log;
        l->max_connections_to_accept_per_socket_event = make_u32(a, 1);
        cache_put(b->t, &k, l->name, l, res);
        arena_reset(a);
}

void listeners_outbound(struct build *b)
{
        const struct scope *s = b->scope;
        struct strmap done = STRMAP_INIT;

        for (size_t i = 0; i < s->nuses;) {
                size_t n = 1;

                while (i + n < s->nuses && s->uses[i + n].port == s->uses[i].port)
                        n++;
                listeners_of_port(b, &s->uses[i], n, &done);
                i += n;
        }
        strmap_fini(&done);
        virtual_outbound(b);
}
