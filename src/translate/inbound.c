/* virtualInbound (15006): everything that reaches the pod. A chain or two a port of its own services, and chains that pass the rest on.
 * The chains that terminate the mesh's own TLS wait for workload certificates. */
#include "translate/internal.h"

#include "envoy/original_dst.pb-c.h"

#include "base/mem.h"

static Xds__RouteConfiguration *inbound_routes(struct arena *a, const char *name, const char *cluster, uint32_t port, const char *operation)
{
        static char *all[] = { "*" };
        Xds__RouteConfiguration *rc = MAKE(a, xds__route_configuration);
        Xds__VirtualHost *v = MAKE(a, xds__virtual_host);
        Xds__Route *r = MAKE(a, xds__route);
        Xds__RetryPolicy *retry = MAKE(a, xds__retry_policy);

        r->name = "default";
        r->match = MAKE(a, xds__route_match);
        r->match->path_specifier_case = XDS__ROUTE_MATCH__PATH_SPECIFIER_PREFIX;
        r->match->prefix = "/";
        r->action_case = XDS__ROUTE__ACTION_ROUTE;
        r->route = MAKE(a, xds__route_action);
        r->route->cluster_specifier_case = XDS__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER;
        r->route->cluster = (char *)cluster;
        r->route->timeout = make_us(a, 0);
        retry->retry_on = "reset-before-request";
        retry->num_retries = make_u32(a, 2);
        r->route->retry_policy = retry;
        r->route->max_stream_duration = MAKE(a, xds__route_action__max_stream_duration);
        r->route->max_stream_duration->max_stream_duration = make_us(a, 0);
        r->route->max_stream_duration->grpc_timeout_header_max = make_us(a, 0);
        r->decorator = MAKE(a, xds__decorator);
        r->decorator->operation = (char *)operation;
        v->name = (char *)arena_printf(a, "inbound|http|%u", port).p;
        v->domains = all;
        v->n_domains = 1;
        v->routes = MAKE_LIST(a, 1);
        v->routes[0] = r;
        v->n_routes = 1;
        rc->name = (char *)name;
        rc->virtual_hosts = MAKE_LIST(a, 1);
        rc->virtual_hosts[0] = v;
        rc->n_virtual_hosts = 1;
        rc->validate_clusters = make_bool(a, false);
        return rc;
}

/* `port` 0: any. */
static Xds__FilterChain *chain(struct arena *a, const char *name, uint32_t port, const char *transport, bool http_only)
{
        static char *protocols[] = { "http/1.1", "h2c" };
        Xds__FilterChain *c = MAKE(a, xds__filter_chain);

        c->name = (char *)name;
        c->filter_chain_match = MAKE(a, xds__filter_chain_match);
        if (port)
                c->filter_chain_match->destination_port = make_u32(a, port);
        c->filter_chain_match->transport_protocol = (char *)transport;
        if (http_only) {
                c->filter_chain_match->application_protocols = protocols;
                c->filter_chain_match->n_application_protocols = 2;
        }
        return c;
}

struct chains {
        Xds__FilterChain **v;
        size_t n;
};

static void add_tcp(const struct build *b, struct arena *a, struct chains *out, const char *name, uint32_t port, const char *transport,
                    const char *cluster)
{
        Xds__FilterChain *c = chain(a, name, port, transport, false);

        filter_list(a, c, b->common->peer_exchange, filter_tcp(b, a, cluster, cluster, true, -1));
        out->v[out->n++] = c;
}

static void add_http(const struct build *b, struct arena *a, struct chains *out, const char *name, uint32_t port, bool http_only,
                     const char *stat_prefix, Xds__RouteConfiguration *rc)
{
        Xds__FilterChain *c = chain(a, name, port, "raw_buffer", http_only);

        filter_list(a, c, b->common->peer_exchange, filter_hcm(b, a, HCM_INBOUND, stat_prefix, NULL, rc));
        out->v[out->n++] = c;
}

static void catch_alls(const struct build *b, struct arena *a, struct chains *out)
{
        Xds__FilterChain *self = chain(a, "virtualInbound-blackhole", 15006, NULL, false);

        filter_list(a, self, b->common->peer_exchange, filter_tcp(b, a, "BlackHoleCluster", "BlackHoleCluster", false, -1));
        make_reason(a, &self->metadata, STR("the connection was made to port 15006 itself: it has no destination of its own"));
        out->v[out->n++] = self;
        add_http(b, a, out, "virtualInbound-catchall-http", 0, true, "InboundPassthroughCluster;",
                 inbound_routes(a, "InboundPassthroughCluster", "InboundPassthroughCluster", 0, ":0/*"));
        add_tcp(b, a, out, "virtualInbound", 0, "raw_buffer", "InboundPassthroughCluster");
        add_tcp(b, a, out, "virtualInbound", 0, "tls", "InboundPassthroughCluster");
}

static void own_chains(const struct build *b, struct arena *a, struct chains *out, const struct own_port *o)
{
        const char *cluster = cluster_name(a, "inbound", o->target, STR(""), STR(""));
        const char *name = arena_printf(a, "%s_%u", any_address(b), o->target).p;
        enum mesh_protocol p = o->port->protocol;

        if (mesh_protocol_http(p) || p == MESH_AUTO)
                add_http(b, a, out, name, o->target, p == MESH_AUTO, arena_printf(a, "inbound_%s;", name).p,
                         inbound_routes(a, cluster, cluster, o->port->number,
                                        arena_printf(a, STR_FMT ":%u/*", STR_ARG(o->svc->host), o->port->number).p));
        if (mesh_protocol_http(p))
                return;
        add_tcp(b, a, out, name, o->target, "raw_buffer", cluster);
        add_tcp(b, a, out, name, o->target, "tls", cluster);
}

/* --- Listener filters ---------------------------------------------------------------------------------------------------------------- */

static Xds__ListenerFilterChainMatchPredicate *on_port(struct arena *a, uint32_t port)
{
        Xds__ListenerFilterChainMatchPredicate *p = MAKE(a, xds__listener_filter_chain_match_predicate);

        p->rule_case = XDS__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_DESTINATION_PORT_RANGE;
        p->destination_port_range = MAKE(a, xds__int32_range);
        p->destination_port_range->has_start = p->destination_port_range->has_end = true;
        p->destination_port_range->start = (int32_t)port;
        p->destination_port_range->end = (int32_t)port + 1;
        return p;
}

/* Ports whose protocol is declared need no guess, and a server that speaks first must not wait for one. */
static Xds__ListenerFilterChainMatchPredicate *declared_ports(struct arena *a, const struct own_port *own, size_t n)
{
        Xds__ListenerFilterChainMatchPredicate *p, **v = MAKE_LIST(a, n + 1);
        size_t k = 0;

        for (size_t i = 0; i < n; i++)
                if (own[i].port->protocol != MESH_AUTO)
                        v[k++] = on_port(a, own[i].target);
        v[k++] = on_port(a, 15006);
        if (k == 1)
                return v[0];
        p = MAKE(a, xds__listener_filter_chain_match_predicate);
        p->rule_case = XDS__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_OR_MATCH;
        p->or_match = MAKE(a, xds__listener_filter_chain_match_predicate__match_set);
        p->or_match->rules = v;
        p->or_match->n_rules = k;
        return p;
}

static Xds__ListenerFilter *except(struct arena *a, const Xds__ListenerFilter *f, Xds__ListenerFilterChainMatchPredicate *disabled)
{
        Xds__ListenerFilter *copy = arena_dup(a, f, sizeof(*f));

        copy->filter_disabled = disabled;
        return copy;
}

static void inspectors(const struct build *b, struct arena *a, Xds__Listener *l, const struct own_port *own, size_t n)
{
        Xds__ListenerFilter *original = MAKE(a, xds__listener_filter);

        original->name = "envoy.filters.listener.original_dst";
        original->config_type_case = XDS__LISTENER_FILTER__CONFIG_TYPE_TYPED_CONFIG;
        original->typed_config = make_any(a, MAKE(a, xds__original_dst));
        l->listener_filters = MAKE_LIST(a, 3);
        l->listener_filters[0] = original;
        l->listener_filters[1] = except(a, b->common->tls_inspector, on_port(a, 15006));
        l->listener_filters[2] = except(a, b->common->http_inspector, declared_ports(a, own, n));
        l->n_listener_filters = 3;
}

void listener_inbound(struct build *b, const struct own_port *own, size_t n, struct parts *res)
{
        struct arena *a = &b->scratch;
        struct chains chains = { .n = 0 };
        Xds__Listener *l;
        struct key k;

        key_init(&k, 'n');
        key_u64(&k, b->config->version);
        key_u64(&k, (uint64_t)b->proxy->ipv6 << 1 | b->proxy->ipv4);
        key_identity(&k, b->proxy);
        for (size_t i = 0; i < n; i++) {
                key_u64(&k, own[i].svc->version);
                key_u64(&k, own[i].target | (uint64_t)(own[i].port - own[i].svc->ports) << 32);
        }
        if (cache_get(b->t, &k, res))
                return;
        chains.v = MAKE_LIST(a, 4 + 3 * n);
        catch_alls(b, a, &chains);
        for (size_t i = 0; i < n; i++)
                own_chains(b, a, &chains, &own[i]);
        l = MAKE(a, xds__listener);
        l->name = "virtualInbound";
        l->address = make_address(a, str_of(any_address(b)), 15006);
        also_ipv6(b, a, l, 15006);
        l->filter_chains = chains.v;
        l->n_filter_chains = chains.n;
        inspectors(b, a, l, own, n);
        l->listener_filters_timeout = make_us(a, b->config->protocol_detection_us);
        l->has_continue_on_listener_filters_timeout = l->continue_on_listener_filters_timeout = true;
        l->has_traffic_direction = true;
        l->traffic_direction = XDS__TRAFFIC_DIRECTION__INBOUND;
        l->access_log = b->common->nr_access_log;
        l->n_access_log = b->common->naccess_log;
        l->max_connections_to_accept_per_socket_event = make_u32(a, 1);
        cache_put(b->t, &k, l->name, l, res);
        arena_reset(a);
}
