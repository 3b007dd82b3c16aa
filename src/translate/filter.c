/* The network filters at the end of a chain: tcp_proxy and the HTTP connection manager. And the sentences that say why nothing is there. */
#include "translate/internal.h"

#include "envoy/request_id_uuid.pb-c.h"
#include "envoy/trace.pb-c.h"
#include "envoy/tracing.pb-c.h"

#include "base/mem.h"

static Xds__Filter *network_filter(struct arena *a, const char *name, const void *config)
{
        Xds__Filter *f = MAKE(a, xds__filter);

        f->name = (char *)name;
        f->config_type_case = XDS__FILTER__CONFIG_TYPE_TYPED_CONFIG;
        f->typed_config = make_any(a, config);
        return f;
}

void filter_list(struct arena *a, Xds__FilterChain *c, Xds__Filter *first, Xds__Filter *second)
{
        c->filters = MAKE_LIST(a, 2);
        c->filters[0] = first;
        c->filters[1] = second;
        c->n_filters = second ? 2 : 1;
}

static Xds__TcpProxy *tcp_proxy(const struct build *b, struct arena *a, const char *stat_prefix, bool log, int64_t idle_us)
{
        Xds__TcpProxy *p = MAKE(a, xds__tcp_proxy);

        p->stat_prefix = (char *)stat_prefix;
        if (log) {
                p->access_log = b->common->access_log;
                p->n_access_log = b->common->naccess_log;
        }
        if (idle_us >= 0)
                p->idle_timeout = make_us(a, idle_us);
        return p;
}

Xds__Filter *filter_tcp(const struct build *b, struct arena *a, const char *stat_prefix, const char *cluster, bool log, int64_t idle_us)
{
        Xds__TcpProxy *p = tcp_proxy(b, a, stat_prefix, log, idle_us);

        p->cluster_specifier_case = XDS__TCP_PROXY__CLUSTER_SPECIFIER_CLUSTER;
        p->cluster = (char *)cluster;
        return network_filter(a, "envoy.filters.network.tcp_proxy", p);
}

static char *destination_cluster(const struct build *b, struct arena *a, const struct mesh_destination *d, uint32_t listen_port)
{
        return cluster_name(a, "outbound", destination_port(b, d, listen_port), d->subset, d->host);
}

static int64_t destination_idle(const struct build *b, const struct mesh_destination *d, uint32_t listen_port)
{
        const struct seen *x = scope_find(b->scope, d->host);
        const struct mesh_dr *dr;
        struct mesh_policy p;

        dr = x ? mesh_dr_find(b->snap, d->host, x->svc->ns, b->proxy->ns, &b->proxy->labels) : NULL;
        mesh_policy_for(dr, mesh_subset_find(dr, d->subset), destination_port(b, d, listen_port), &p);
        return p.tcp_idle_us;
}

Xds__Filter *filter_tcp_routed(const struct build *b, struct arena *a, const struct mesh_destination *d, size_t n, uint32_t listen_port,
                               const struct mesh_meta *from)
{
        Xds__TcpProxy *p;
        Xds__TcpProxy__WeightedCluster *w;

        if (n == 1) {
                char *cluster = destination_cluster(b, a, d, listen_port);

                return filter_tcp(b, a, cluster, cluster, true, destination_idle(b, d, listen_port));
        }
        p = tcp_proxy(b, a, arena_printf(a, STR_FMT "." STR_FMT, STR_ARG(from->name), STR_ARG(from->ns)).p, true, -1);
        w = MAKE(a, xds__tcp_proxy__weighted_cluster);
        w->clusters = MAKE_LIST(a, n);
        for (size_t i = 0; i < n; i++) {
                Xds__TcpProxy__WeightedCluster__ClusterWeight *c;

                if (!d[i].weight)
                        continue;
                c = MAKE(a, xds__tcp_proxy__weighted_cluster__cluster_weight);
                c->name = destination_cluster(b, a, &d[i], listen_port);
                c->has_weight = true;
                c->weight = d[i].weight;
                w->clusters[w->n_clusters++] = c;
        }
        p->cluster_specifier_case = XDS__TCP_PROXY__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS;
        p->weighted_clusters = w;
        return network_filter(a, "envoy.filters.network.tcp_proxy", p);
}

/* --- The HTTP connection manager -------------------------------------------------------------------------------------------------- */

static Xds__Percent *percent(struct arena *a, double v)
{
        Xds__Percent *p = MAKE(a, xds__percent);

        p->has_value = v != 0;
        p->value = v;
        return p;
}

static Xds__CustomTag *literal_tag(struct arena *a, const char *tag, struct str value, const char *otherwise)
{
        Xds__CustomTag *t = MAKE(a, xds__custom_tag);

        t->tag = (char *)tag;
        t->type_case = XDS__CUSTOM_TAG__TYPE_LITERAL;
        t->literal = MAKE(a, xds__custom_tag__literal);
        t->literal->value = value.n ? arena_cstr(a, value) : (char *)otherwise;
        return t;
}

static Xds__CustomTag *rbac_tag(struct arena *a, const char *tag, const char *key)
{
        Xds__CustomTag *t = MAKE(a, xds__custom_tag);
        Xds__MetadataKey__PathSegment *segment = MAKE(a, xds__metadata_key__path_segment);

        t->tag = (char *)tag;
        t->type_case = XDS__CUSTOM_TAG__TYPE_METADATA;
        t->metadata = MAKE(a, xds__custom_tag__metadata);
        t->metadata->kind = MAKE(a, xds__metadata_kind);
        t->metadata->kind->kind_case = XDS__METADATA_KIND__KIND_REQUEST;
        t->metadata->kind->request = MAKE(a, xds__metadata_kind__request);
        segment->segment_case = XDS__METADATA_KEY__PATH_SEGMENT__SEGMENT_KEY;
        segment->key = (char *)key;
        t->metadata->metadata_key = MAKE(a, xds__metadata_key);
        t->metadata->metadata_key->key = "envoy.filters.http.rbac";
        t->metadata->metadata_key->path = MAKE_LIST(a, 1);
        t->metadata->metadata_key->path[0] = segment;
        t->metadata->metadata_key->n_path = 1;
        return t;
}

void key_identity(struct key *k, const struct translate_proxy *p)
{
        key_str(k, p->ns);
        key_str(k, p->mesh_id);
        key_str(k, p->cluster_id);
        key_str(k, mesh_labels_get(&p->labels, LABEL_CANONICAL_NAME));
        key_str(k, mesh_labels_get(&p->labels, LABEL_CANONICAL_REVISION));
}

static void custom_tags(const struct translate_proxy *p, struct arena *a, Xds__HttpConnectionManager__Tracing *t)
{
        struct str service = mesh_labels_get(&p->labels, LABEL_CANONICAL_NAME);
        struct str revision = mesh_labels_get(&p->labels, LABEL_CANONICAL_REVISION);
        static const struct {
                const char *tag, *key;
        } rbac[] = {
                { "istio.authorization.dry_run.allow_policy.name", "istio_dry_run_allow_shadow_effective_policy_id" },
                { "istio.authorization.dry_run.allow_policy.result", "istio_dry_run_allow_shadow_engine_result" },
                { "istio.authorization.dry_run.deny_policy.name", "istio_dry_run_deny_shadow_effective_policy_id" },
                { "istio.authorization.dry_run.deny_policy.result", "istio_dry_run_deny_shadow_engine_result" },
        };

        t->custom_tags = MAKE_LIST(a, ARRAY_LEN(rbac) + 5);
        for (size_t i = 0; i < ARRAY_LEN(rbac); i++)
                t->custom_tags[t->n_custom_tags++] = rbac_tag(a, rbac[i].tag, rbac[i].key);
        t->custom_tags[t->n_custom_tags++] = literal_tag(a, "istio.canonical_revision", revision, "latest");
        t->custom_tags[t->n_custom_tags++] = literal_tag(a, "istio.canonical_service", service, "unknown");
        t->custom_tags[t->n_custom_tags++] = literal_tag(a, "istio.cluster_id", p->cluster_id, "Kubernetes");
        t->custom_tags[t->n_custom_tags++] = literal_tag(a, "istio.mesh_id", p->mesh_id, "unknown");
        t->custom_tags[t->n_custom_tags++] = literal_tag(a, "istio.namespace", p->ns, "default");
}

/* With meshConfig.enableTracing: trace context is made and passed on, as B3 and as W3C traceparent; spans go nowhere. A tracer that any
 * Envoy knows says so: Zipkin's, collecting into the black hole. */
static XdsTrace__Tracing__Http *tracer(struct arena *a)
{
        XdsTrace__Tracing__Http *p = MAKE(a, xds_trace__tracing__http);
        XdsTrace__ZipkinConfig *z = MAKE(a, xds_trace__zipkin_config);

        z->collector_cluster = "BlackHoleCluster";
        z->collector_endpoint = "/api/v2/spans";
        z->has_trace_id_128bit = z->trace_id_128bit = true;
        z->shared_span_context = make_bool(a, false);
        z->has_collector_endpoint_version = true;
        z->collector_endpoint_version = XDS_TRACE__ZIPKIN_CONFIG__COLLECTOR_ENDPOINT_VERSION__HTTP_JSON;
        z->has_trace_context_option = true;
        z->trace_context_option = XDS_TRACE__ZIPKIN_CONFIG__TRACE_CONTEXT_OPTION__USE_B3_WITH_W3C_PROPAGATION;
        p->name = "envoy.tracers.zipkin";
        p->config_type_case = XDS_TRACE__TRACING__HTTP__CONFIG_TYPE_TYPED_CONFIG;
        p->typed_config = make_any(a, z);
        return p;
}

static void tracing(const struct build *b, struct arena *a, Xds__HttpConnectionManager *h)
{
        Xds__HttpConnectionManager__Tracing *t = MAKE(a, xds__http_connection_manager__tracing);

        t->client_sampling = percent(a, 100);
        t->random_sampling = percent(a, b->config->sampling);
        t->overall_sampling = percent(a, 100);
        custom_tags(b->proxy, a, t);
        if (b->config->enable_tracing)
                t->provider = tracer(a);
        h->tracing = t;
}

static void peer_certificate(struct arena *a, Xds__HttpConnectionManager *h, enum hcm_side side)
{
        Xds__HttpConnectionManager__SetCurrentClientCertDetails *s;

        if (side == HCM_OUTBOUND)
                return;
        s = MAKE(a, xds__http_connection_manager__set_current_client_cert_details);
        s->subject = make_bool(a, true);
        s->has_dns = s->dns = true;
        s->has_uri = s->uri = true;
        s->has_cert = s->cert = side == HCM_GATEWAY;
        h->set_current_client_cert_details = s;
        h->has_forward_client_cert_details = true;
        h->forward_client_cert_details = side == HCM_GATEWAY ? XDS__HTTP_CONNECTION_MANAGER__FORWARD_CLIENT_CERT_DETAILS__SANITIZE_SET
                                                             : XDS__HTTP_CONNECTION_MANAGER__FORWARD_CLIENT_CERT_DETAILS__APPEND_FORWARD;
}

static void paths(const struct build *b, struct arena *a, Xds__HttpConnectionManager *h)
{
        h->normalize_path = make_bool(a, b->config->normalize_path);
        h->has_merge_slashes = h->merge_slashes = b->config->merge_slashes;
        h->has_path_with_escaped_slashes_action = true;
        h->path_with_escaped_slashes_action = b->config->unescape_slashes
                                                      ? XDS__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__UNESCAPE_AND_FORWARD
                                                      : XDS__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__KEEP_UNCHANGED;
}

static void request_id(struct arena *a, Xds__HttpConnectionManager *h)
{
        Xds__UuidRequestIdConfig *u = MAKE(a, xds__uuid_request_id_config);

        u->use_request_id_for_trace_sampling = make_bool(a, true);
        h->request_id_extension = MAKE(a, xds__request_idextension);
        h->request_id_extension->typed_config = make_any(a, u);
}

static void upgrades(struct arena *a, Xds__HttpConnectionManager *h)
{
        h->upgrade_configs = MAKE_LIST(a, 1);
        h->upgrade_configs[0] = MAKE(a, xds__http_connection_manager__upgrade_config);
        h->upgrade_configs[0]->upgrade_type = "websocket";
        h->n_upgrade_configs = 1;
}

Xds__Filter *filter_hcm(const struct build *b, struct arena *a, enum hcm_side side, const char *stat_prefix, const char *rds,
                        Xds__RouteConfiguration *routes)
{
        Xds__HttpConnectionManager *h = MAKE(a, xds__http_connection_manager);
        bool out = side != HCM_INBOUND;

        h->stat_prefix = (char *)stat_prefix;
        if (rds) {
                h->route_specifier_case = XDS__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_RDS;
                h->rds = MAKE(a, xds__rds);
                h->rds->config_source = b->common->ads;
                h->rds->route_config_name = (char *)rds;
        } else {
                h->route_specifier_case = XDS__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_ROUTE_CONFIG;
                h->route_config = routes;
        }
        h->http_filters = out ? b->common->http_out : b->common->http_in;
        h->n_http_filters = out ? b->common->nhttp_out : b->common->nhttp_in;
        tracing(b, a, h);
        if (side == HCM_GATEWAY)
                h->http_protocol_options = MAKE(a, xds__http1_protocol_options);
        if (side != HCM_OUTBOUND)
                h->server_name = "istio-envoy";
        h->stream_idle_timeout = make_us(a, 0);
        h->access_log = b->common->access_log;
        h->n_access_log = b->common->naccess_log;
        h->use_remote_address = make_bool(a, side == HCM_GATEWAY);
        peer_certificate(a, h, side);
        h->has_proxy_100_continue = h->proxy_100_continue = true;
        upgrades(a, h);
        paths(b, a, h);
        request_id(a, h);
        return network_filter(a, "envoy.filters.network.http_connection_manager", h);
}

/* --- Reasons --------------------------------------------------------------------------------------------------------------------- */

/* The texts hold access-log operators, which the proxy fills in per request or connection. */
struct str reason_tcp(const struct build *b, struct arena *a, uint32_t port, bool by_name)
{
        if (by_name)
                return arena_printf(
                        a,
                        "no ServiceEntry or Service admits %%REQUESTED_SERVER_NAME%%:%u (%%DOWNSTREAM_LOCAL_ADDRESS%%) and " STR_FMT
                        " is REGISTRY_ONLY: add a ServiceEntry for it",
                        port, STR_ARG(b->scope->policy));
        return arena_printf(a,
                            "no ServiceEntry or Service admits %%DOWNSTREAM_LOCAL_ADDRESS%% and " STR_FMT
                            " is REGISTRY_ONLY: add a ServiceEntry for it",
                            STR_ARG(b->scope->policy));
}

struct str reason_http(const struct build *b, struct arena *a, uint32_t port)
{
        /* Clients leave the port out of the authority when it is 80, and only then. */
        return arena_printf(
                a, "no ServiceEntry or Service admits %%REQ(:AUTHORITY)%%%s and " STR_FMT " is REGISTRY_ONLY: add a ServiceEntry for it",
                port == 80 ? ":80" : "", STR_ARG(b->scope->policy));
}
