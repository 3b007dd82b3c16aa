/* Clusters: one a host, port and subset that a proxy sees, and Istio's fixed ones. */
#include "translate/internal.h"

#include "envoy/http_protocol_options.pb-c.h"

#include "base/mem.h"

char *cluster_name(struct arena *a, const char *direction, uint32_t port, struct str subset, struct str host)
{
        return (char *)arena_printf(a, "%s|%u|" STR_FMT "|" STR_FMT, direction, port, STR_ARG(subset), STR_ARG(host)).p;
}

static Xds__Cluster *cluster_new(const struct build *b, struct arena *a, const char *name, Xds__Cluster__DiscoveryType type, bool limits)
{
        Xds__Cluster *c = MAKE(a, xds__cluster);

        c->name = (char *)name;
        /* Istio ends the name of the statistics by ";", so that a tag extractor can tell it from what follows. */
        c->alt_stat_name = (char *)arena_printf(a, "%s;", name).p;
        c->cluster_discovery_type_case = XDS__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE;
        c->type = type;
        c->connect_timeout = make_us(a, b->config->connect_timeout_us);
        if (limits)
                c->circuit_breakers = b->common->no_limits;
        return c;
}

/* --- Traffic policy -------------------------------------------------------------------------------------------------------------- */

static Gp__UInt32Value *limit(struct arena *a, int64_t v)
{
        return make_u32(a, v < 0 ? UINT32_MAX : (uint32_t)v);
}

static void limits(const struct build *b, struct arena *a, Xds__Cluster *c, const struct mesh_policy *p)
{
        Xds__CircuitBreakers__Thresholds *t;

        if (p->max_connections < 0 && p->max_pending < 0 && p->max_requests < 0 && p->max_retries < 0) {
                c->circuit_breakers = b->common->no_limits;
                return;
        }
        t = MAKE(a, xds__circuit_breakers__thresholds);
        t->max_connections = limit(a, p->max_connections);
        t->max_pending_requests = limit(a, p->max_pending);
        t->max_requests = limit(a, p->max_requests);
        t->max_retries = limit(a, p->max_retries);
        c->circuit_breakers = MAKE(a, xds__circuit_breakers);
        c->circuit_breakers->thresholds = MAKE_LIST(a, 1);
        c->circuit_breakers->thresholds[0] = t;
        c->circuit_breakers->n_thresholds = 1;
}

static void keepalive(const struct build *b, struct arena *a, Xds__Cluster *c, const struct mesh_policy *p)
{
        bool own = p->keepalive;
        int64_t probes = own ? p->keepalive_probes : b->config->keepalive_probes;
        int64_t time_s = own ? p->keepalive_time_s : b->config->keepalive_time_s;
        int64_t interval_s = own ? p->keepalive_interval_s : b->config->keepalive_interval_s;
        Xds__TcpKeepalive *k;

        if (!own && !b->config->tcp_keepalive)
                return;
        k = MAKE(a, xds__tcp_keepalive);
        if (probes >= 0)
                k->keepalive_probes = make_u32(a, (uint32_t)probes);
        if (time_s >= 0)
                k->keepalive_time = make_u32(a, (uint32_t)time_s);
        if (interval_s >= 0)
                k->keepalive_interval = make_u32(a, (uint32_t)interval_s);
        c->upstream_connection_options = MAKE(a, xds__upstream_connection_options);
        c->upstream_connection_options->tcp_keepalive = k;
}

static void set_http_options(struct arena *a, Xds__Cluster *c, XdsUp__HttpProtocolOptions *o)
{
        Xds__Cluster__TypedExtensionProtocolOptionsEntry *e = MAKE(a, xds__cluster__typed_extension_protocol_options_entry);

        e->key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        e->value = make_any(a, o);
        c->typed_extension_protocol_options = MAKE_LIST(a, 1);
        c->typed_extension_protocol_options[0] = e;
        c->n_typed_extension_protocol_options = 1;
}

static Xds__HttpProtocolOptions *http_common(struct arena *a, const struct mesh_policy *p)
{
        Xds__HttpProtocolOptions *h;

        if (p->http_idle_us < 0 && p->max_requests_per_connection <= 0)
                return NULL;
        h = MAKE(a, xds__http_protocol_options);
        if (p->http_idle_us >= 0)
                h->idle_timeout = make_us(a, p->http_idle_us);
        if (p->max_requests_per_connection > 0)
                h->max_requests_per_connection = make_u32(a, (uint32_t)p->max_requests_per_connection);
        return h;
}

/* Which HTTP a cluster speaks: that of the port; whatever came in for a port of unknown protocol; what the rule says. */
static void http_options(struct arena *a, Xds__Cluster *c, enum mesh_protocol protocol, const struct mesh_policy *p)
{
        bool as_downstream = p->use_client_protocol == 1 || protocol == MESH_AUTO;
        bool http2 = mesh_protocol_http2(protocol) || (protocol == MESH_HTTP && p->h2_upgrade == 1);
        Xds__HttpProtocolOptions *common = http_common(a, p);
        Xds__Http2ProtocolOptions *h2;
        XdsUp__HttpProtocolOptions *o;

        if (!as_downstream && !http2 && !common)
                return;
        o = MAKE(a, xds_up__http_protocol_options);
        h2 = MAKE(a, xds__http2_protocol_options);
        if (p->max_streams > 0)
                h2->max_concurrent_streams = make_u32(a, (uint32_t)p->max_streams);
        o->common_http_protocol_options = common;
        if (as_downstream) {
                o->upstream_protocol_options_case = XDS_UP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_USE_DOWNSTREAM_PROTOCOL_CONFIG;
                o->use_downstream_protocol_config = MAKE(a, xds_up__http_protocol_options__use_downstream_http_config);
                o->use_downstream_protocol_config->http_protocol_options = MAKE(a, xds__http1_protocol_options);
                o->use_downstream_protocol_config->http2_protocol_options = h2;
        } else {
                XdsUp__HttpProtocolOptions__ExplicitHttpConfig *e = MAKE(a, xds_up__http_protocol_options__explicit_http_config);

                o->upstream_protocol_options_case = XDS_UP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_EXPLICIT_HTTP_CONFIG;
                o->explicit_http_config = e;
                if (http2) {
                        e->protocol_config_case =
                                XDS_UP__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP2_PROTOCOL_OPTIONS;
                        e->http2_protocol_options = h2;
                } else {
                        e->protocol_config_case =
                                XDS_UP__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP_PROTOCOL_OPTIONS;
                        e->http_protocol_options = MAKE(a, xds__http1_protocol_options);
                }
        }
        set_http_options(a, c, o);
}

static void balance(Xds__Cluster *c, const struct mesh_policy *p)
{
        static const Xds__Cluster__LbPolicy names[] = {
                [MESH_LB_UNSET] = XDS__CLUSTER__LB_POLICY__LEAST_REQUEST,
                [MESH_LB_ROUND_ROBIN] = XDS__CLUSTER__LB_POLICY__ROUND_ROBIN,
                [MESH_LB_LEAST_REQUEST] = XDS__CLUSTER__LB_POLICY__LEAST_REQUEST,
                [MESH_LB_RANDOM] = XDS__CLUSTER__LB_POLICY__RANDOM,
                [MESH_LB_PASSTHROUGH] = XDS__CLUSTER__LB_POLICY__CLUSTER_PROVIDED,
        };

        if (p->lb == MESH_LB_PASSTHROUGH) { /* to wherever the client was going */
                c->type = XDS__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST;
                c->eds_cluster_config = NULL;
                c->load_assignment = NULL;
        }
        c->lb_policy = c->type == XDS__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST ? XDS__CLUSTER__LB_POLICY__CLUSTER_PROVIDED : names[p->lb];
        c->has_lb_policy = c->lb_policy != XDS__CLUSTER__LB_POLICY__ROUND_ROBIN;
}

/* --- Outbound -------------------------------------------------------------------------------------------------------------------- */

static void dns(const struct build *b, struct arena *a, Xds__Cluster *c)
{
        const struct translate_proxy *p = b->proxy;

        c->dns_refresh_rate = make_us(a, b->config->dns_refresh_us);
        c->dns_jitter = make_us(a, 100000);
        c->has_respect_dns_ttl = c->respect_dns_ttl = true;
        c->has_dns_lookup_family = true;
        c->dns_lookup_family = !p->ipv6   ? XDS__CLUSTER__DNS_LOOKUP_FAMILY__V4_ONLY
                               : !p->ipv4 ? XDS__CLUSTER__DNS_LOOKUP_FAMILY__V6_ONLY
                                          : XDS__CLUSTER__DNS_LOOKUP_FAMILY__ALL;
        c->typed_dns_resolver_config = b->common->dns_resolver;
}

static Gp__Value *service_object(struct arena *a, const struct mesh_service *svc)
{
        Gp__Struct *s = MAKE(a, gp__struct);

        make_put(a, s, "host", make_text(a, svc->host));
        make_put(a, s, "name", make_text(a, svc->name));
        make_put(a, s, "namespace", make_text(a, svc->ns));
        return make_object(a, s);
}

static void cluster_metadata(struct arena *a, Xds__Cluster *c, const struct mesh_service *svc, const struct mesh_dr *dr,
                             const struct mesh_subset *subset)
{
        Gp__Struct *s = make_metadata(a, &c->metadata, "istio");
        Gp__Value **services = MAKE_LIST(a, 1);

        services[0] = service_object(a, svc);
        make_put(a, s, "services", make_array(a, services, 1));
        if (svc->external)
                make_put(a, s, "external", make_flag(a, true));
        if (dr)
                make_put(a, s, "config", make_text(a, dr->meta.config));
        if (subset)
                make_put(a, s, "subset", make_text(a, subset->name));
}

static Xds__Cluster__DiscoveryType discovery_of(const struct mesh_service *svc)
{
        switch (svc->resolution) {
        case MESH_RES_EDS:
        case MESH_RES_STATIC:
                return XDS__CLUSTER__DISCOVERY_TYPE__EDS;
        case MESH_RES_DNS:
                return XDS__CLUSTER__DISCOVERY_TYPE__STRICT_DNS;
        case MESH_RES_DNS_ROUND_ROBIN:
                return XDS__CLUSTER__DISCOVERY_TYPE__LOGICAL_DNS;
        default:
                return XDS__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST;
        }
}

static void discovery(const struct build *b, struct arena *a, Xds__Cluster *c, const struct mesh_service *svc, const struct mesh_port *port,
                      const struct mesh_subset *subset)
{
        switch (c->type) {
        case XDS__CLUSTER__DISCOVERY_TYPE__EDS:
                c->eds_cluster_config = MAKE(a, xds__cluster__eds_cluster_config);
                c->eds_cluster_config->eds_config = b->common->ads;
                c->eds_cluster_config->service_name = c->name;
                break;
        case XDS__CLUSTER__DISCOVERY_TYPE__STRICT_DNS:
        case XDS__CLUSTER__DISCOVERY_TYPE__LOGICAL_DNS:
                c->load_assignment = endpoints_inline(b, a, c->name, svc, port, subset);
                dns(b, a, c);
                break;
        default:
                break;
        }
}

/* A rule that asks for TLS this release cannot do must not fall back to clear text: the cluster exists, has no hosts, and says why. */
static bool refuse_tls(const struct build *b, struct arena *a, Xds__Cluster *c, const struct mesh_dr *dr, const struct mesh_policy *p)
{
        static const char *const names[] = {
                [MESH_TLS_SIMPLE] = "SIMPLE", [MESH_TLS_MUTUAL] = "MUTUAL", [MESH_TLS_ISTIO_MUTUAL] = "ISTIO_MUTUAL"
        };

        if (p->tls != MESH_TLS_SIMPLE && p->tls != MESH_TLS_MUTUAL && p->tls != MESH_TLS_ISTIO_MUTUAL)
                return false;
        c->type = XDS__CLUSTER__DISCOVERY_TYPE__STATIC;
        c->eds_cluster_config = NULL;
        c->load_assignment = NULL;
        make_reason(a, &c->metadata,
                    arena_printf(a,
                                 "DestinationRule " STR_FMT "/" STR_FMT
                                 " asks for tls.mode %s, which needs certificates and is not in this release; "
                                 "nothing is sent in clear text instead",
                                 STR_ARG(dr->meta.ns), STR_ARG(dr->meta.name), names[p->tls]));
        build_warn(b, &dr->meta, "spec.trafficPolicy.tls.mode", "%s needs certificates, not in this release: cluster %s has no hosts",
                   names[p->tls], c->name);
        return true;
}

static Xds__Cluster *outbound(const struct build *b, struct arena *a, const char *name, const struct mesh_service *svc,
                              const struct mesh_port *port, const struct mesh_dr *dr, const struct mesh_subset *subset)
{
        Xds__Cluster *c = cluster_new(b, a, name, discovery_of(svc), false);
        struct mesh_policy p;

        mesh_policy_for(dr, subset, port->number, &p);
        discovery(b, a, c, svc, port, subset);
        if ((c->type == XDS__CLUSTER__DISCOVERY_TYPE__STRICT_DNS || c->type == XDS__CLUSTER__DISCOVERY_TYPE__LOGICAL_DNS) &&
            !c->load_assignment->n_endpoints)
                return NULL; /* a wildcard host with nothing to resolve */
        if (p.connect_timeout_us > 0)
                c->connect_timeout = make_us(a, p.connect_timeout_us);
        cluster_metadata(a, c, svc, dr, subset);
        refuse_tls(b, a, c, dr, &p);
        balance(c, &p);
        limits(b, a, c, &p);
        keepalive(b, a, c, &p);
        http_options(a, c, port->protocol, &p);
        c->common_lb_config = MAKE(a, xds__cluster__common_lb_config);
        c->common_lb_config->locality_config_specifier_case = 0;
        c->common_lb_config->healthy_panic_threshold = MAKE(a, xds__percent);
        c->filters = b->common->upstream_filters;
        c->n_filters = 1;
        return c;
}

static void add_outbound(struct build *b, const struct mesh_service *svc, size_t index, const struct mesh_dr *dr,
                         const struct mesh_subset *subset)
{
        struct parts *res = &b->scope->res[TRANSLATE_CLUSTERS];
        const struct mesh_port *port = &svc->ports[index];
        struct key k;
        const char *name;
        Xds__Cluster *c;

        key_init(&k, 'c');
        key_u64(&k, svc->version);
        key_u64(&k, index << 2 | (b->proxy->ipv4 ? 1 : 0) | (b->proxy->ipv6 ? 2 : 0));
        key_u64(&k, b->config->version);
        key_u64(&k, dr ? dr->meta.version : 0);
        key_u64(&k, subset ? (uint64_t)(subset - dr->subsets) + 1 : 0);
        if (cache_get(b->t, &k, res))
                return;
        name = cluster_name(&b->scratch, "outbound", port->number, subset ? subset->name : STR(""), svc->host);
        c = outbound(b, &b->scratch, name, svc, port, dr, subset);
        if (c)
                cache_put(b->t, &k, name, c, res);
        else
                build_warn(b, svc->meta, "spec.resolution",
                           "host " STR_FMT " is a wildcard and cannot be resolved by DNS: use resolution NONE, or list endpoints",
                           STR_ARG(svc->host));
        arena_reset(&b->scratch);
}

static void fixed_cluster(const struct build *b, struct parts *res, Xds__Cluster *c)
{
        struct key k;

        key_init(&k, 'f');
        key_str(&k, str_of(c->name));
        key_u64(&k, b->config->version);
        key_u64(&k, (uint64_t)b->scope->allow_any << 2 | (uint64_t)b->proxy->role << 1 | b->proxy->ipv4);
        key_str(&k, b->scope->policy);
        if (!cache_get(b->t, &k, res))
                cache_put(b->t, &k, c->name, c, res);
}

/* To wherever the client was going, in whatever HTTP it speaks. */
static Xds__Cluster *passthrough(const struct build *b, struct arena *a, const char *name)
{
        Xds__Cluster *c = cluster_new(b, a, name, XDS__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST, true);
        XdsUp__HttpProtocolOptions *o = MAKE(a, xds_up__http_protocol_options);

        c->alt_stat_name = "PassthroughCluster;";
        c->has_lb_policy = true;
        c->lb_policy = XDS__CLUSTER__LB_POLICY__CLUSTER_PROVIDED;
        o->common_http_protocol_options = MAKE(a, xds__http_protocol_options);
        o->common_http_protocol_options->idle_timeout = make_s(a, 300);
        o->upstream_protocol_options_case = XDS_UP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_USE_DOWNSTREAM_PROTOCOL_CONFIG;
        o->use_downstream_protocol_config = MAKE(a, xds_up__http_protocol_options__use_downstream_http_config);
        o->use_downstream_protocol_config->http_protocol_options = MAKE(a, xds__http1_protocol_options);
        o->use_downstream_protocol_config->http2_protocol_options = MAKE(a, xds__http2_protocol_options);
        set_http_options(a, c, o);
        return c;
}

void clusters_outbound(struct build *b)
{
        struct parts *res = &b->scope->res[TRANSLATE_CLUSTERS];
        struct arena a;
        Xds__Cluster *c;

        for (size_t i = 0; i < b->scope->nseen; i++) {
                const struct mesh_service *svc = b->scope->seen[i].svc;
                const struct mesh_dr *dr = mesh_dr_find(b->snap, svc->host, svc->ns, b->proxy->ns, &b->proxy->labels);

                for (size_t j = 0; j < svc->nports; j++) {
                        if (svc->ports[j].protocol == MESH_UDP)
                                continue;
                        add_outbound(b, svc, j, dr, NULL);
                        for (size_t k = 0; dr && k < dr->nsubsets; k++)
                                add_outbound(b, svc, j, dr, &dr->subsets[k]);
                }
        }
        arena_init(&a, 8192);
        c = cluster_new(b, &a, "BlackHoleCluster", XDS__CLUSTER__DISCOVERY_TYPE__STATIC, false);
        if (!b->scope->allow_any && b->proxy->role == TRANSLATE_SIDECAR)
                make_reason(&a, &c->metadata, reason_tcp(b, &a, 0, false));
        fixed_cluster(b, res, c);
        if (b->proxy->role == TRANSLATE_SIDECAR) {
                c = passthrough(b, &a, "PassthroughCluster");
                c->filters = b->common->upstream_filters;
                c->n_filters = 1;
                fixed_cluster(b, res, c);
        }
        arena_fini(&a);
}

/* --- Inbound --------------------------------------------------------------------------------------------------------------------- */

/* Istio's sentinel source address: connections from it are not redirected into the proxy again. */
static void bind_inbound(const struct build *b, struct arena *a, Xds__Cluster *c)
{
        c->upstream_bind_config = MAKE(a, xds__bind_config);
        c->upstream_bind_config->source_address = MAKE(a, xds__socket_address);
        c->upstream_bind_config->source_address->address = b->proxy->ipv4 ? "127.0.0.6" : "::6";
        c->upstream_bind_config->source_address->port_specifier_case = XDS__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE;
}

static Xds__Cluster *inbound(const struct build *b, struct arena *a, const struct own_port *o)
{
        const char *name = cluster_name(a, "inbound", o->target, STR(""), STR(""));
        Xds__Cluster *c = cluster_new(b, a, name, XDS__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST, true);
        Gp__Value **services = MAKE_LIST(a, o->nall);
        struct mesh_policy p;

        mesh_policy_for(NULL, NULL, 0, &p);
        c->has_lb_policy = true;
        c->lb_policy = XDS__CLUSTER__LB_POLICY__CLUSTER_PROVIDED;
        /* Hosts of this cluster are the pod itself: never forgotten. (As long as fits into nanoseconds.) */
        c->cleanup_interval = make_s(a, 9223372035);
        bind_inbound(b, a, c);
        http_options(a, c, o->port->protocol, &p);
        c->common_lb_config = MAKE(a, xds__cluster__common_lb_config);
        for (size_t i = 0; i < o->nall; i++)
                services[i] = service_object(a, o->all[i]);
        make_put(a, make_metadata(a, &c->metadata, "istio"), "services", make_array(a, services, o->nall));
        return c;
}

void clusters_inbound(struct build *b, const struct own_port *own, size_t n, struct parts *res)
{
        struct arena a;
        Xds__Cluster *c;

        for (size_t i = 0; i < n; i++) {
                struct key k;
                const char *name;

                key_init(&k, 'i');
                key_u64(&k, b->config->version);
                key_u64(&k, own[i].target | (uint64_t)own[i].port->protocol << 32 | (b->proxy->ipv4 ? (uint64_t)1 << 40 : 0));
                for (size_t j = 0; j < own[i].nall; j++)
                        key_u64(&k, own[i].all[j]->version);
                if (cache_get(b->t, &k, res))
                        continue;
                name = cluster_name(&b->scratch, "inbound", own[i].target, STR(""), STR(""));
                cache_put(b->t, &k, name, inbound(b, &b->scratch, &own[i]), res);
                arena_reset(&b->scratch);
        }
        arena_init(&a, 4096);
        c = passthrough(b, &a, "InboundPassthroughCluster");
        bind_inbound(b, &a, c);
        fixed_cluster(b, res, c);
        arena_fini(&a);
}
