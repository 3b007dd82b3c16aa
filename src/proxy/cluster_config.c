/* Cluster messages to cluster_info: everything that is decided once, when the configuration arrives. */
#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/cluster_private.h"
#include "proxy/ext.h"
#include "proxy/format.h"
#include "proxy/server.h"
#include "proxy/support.h"

#include "envoy/cluster.pb-c.h"
#include "envoy/cluster_dns.pb-c.h"
#include "envoy/core.pb-c.h"
#include "envoy/http_protocol_options.pb-c.h"
#include "envoy/istio_metadata_exchange.pb-c.h"
#include "envoy/lb_cluster_provided.pb-c.h"
#include "envoy/lb_least_request.pb-c.h"
#include "envoy/lb_random.pb-c.h"
#include "envoy/lb_round_robin.pb-c.h"
#include "envoy/raw_buffer.pb-c.h"
#include "google/any.pb-c.h"
#include "google/struct.pb-c.h"
#include "google/wrappers.pb-c.h"

#include <stdlib.h>

#define C(id, name)              { name, STAT_COUNTER },
#define G(id, name)              { name, STAT_GAUGE },
#define T(id, name, kind)        { name, kind },
#define X(id, name, prom, value) { name, STAT_COUNTER, prom, "envoy.response_code_class", value },
#define H(id, name)              { name, STAT_HISTOGRAM },
static const struct stat_def cluster_defs[CS_COUNT] = {
#include "proxy/cluster_stats.def"
};
#undef C
#undef G
#undef T
#undef X
#undef H

enum { CLEANUP_MAX_MS = 3600 * 1000 }; /* "never" (Istio's inbound clusters) would be a leak of hosts */

struct build {
        struct server *server;
        struct cluster_shared *c;
        struct arena *a;
        const struct diag_at *at;
        struct diags *d;
};

__attribute__((format(printf, 3, 4))) static bool refuse(struct build *b, const char *field, const char *fmt, ...)
{
        struct diag_at sub = at_path(b->a, b->at, ".%s", field);
        va_list ap;
        struct str text;

        va_start(ap, fmt);
        text = arena_vprintf(b->a, fmt, ap);
        va_end(ap);
        diag_add(b->d, DIAG_ERROR, NULL, &sub, STR_FMT, STR_ARG(text));
        return false;
}

static uint64_t ms_field(struct build *b, const char *field, const Gp__Duration *v, uint64_t otherwise)
{
        struct diag_at sub = at_path(b->a, b->at, ".%s", field);

        return duration_ms(v, otherwise, &sub, b->d);
}

static bool read_type(struct build *b, const Xds__Cluster *p)
{
        static const struct {
                int wire;
                enum cluster_type t;
        } types[] = {
                { XDS__CLUSTER__DISCOVERY_TYPE__STATIC, CLUSTER_STATIC },
                { XDS__CLUSTER__DISCOVERY_TYPE__STRICT_DNS, CLUSTER_STRICT_DNS },
                { XDS__CLUSTER__DISCOVERY_TYPE__LOGICAL_DNS, CLUSTER_LOGICAL_DNS },
                { XDS__CLUSTER__DISCOVERY_TYPE__EDS, CLUSTER_EDS },
                { XDS__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST, CLUSTER_ORIGINAL_DST },
        };
        int wire = XDS__CLUSTER__DISCOVERY_TYPE__STATIC;

        if (p->cluster_discovery_type_case == XDS__CLUSTER__CLUSTER_DISCOVERY_TYPE_CLUSTER_TYPE) {
                struct diag_at sub = at_path(b->a, b->at, ".cluster_type.typed_config");
                struct ext e;

                if (!ext_read(p->cluster_type->typed_config, b->a, &sub, b->d, &e))
                        return false;
                if (e.msg->descriptor != &xds__dns_cluster__descriptor)
                        return refuse(b, "cluster_type", "\"" STR_FMT "\" is not supported", STR_ARG(e.type));
                b->c->info.type = ((const Xds__DnsCluster *)e.msg)->all_addresses_in_single_endpoint ? CLUSTER_LOGICAL_DNS
                                                                                                     : CLUSTER_STRICT_DNS;
                return true;
        }
        if (p->cluster_discovery_type_case == XDS__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE)
                wire = (int)p->type;
        for (size_t i = 0; i < ARRAY_LEN(types); i++)
                if (types[i].wire == wire) {
                        b->c->info.type = types[i].t;
                        return true;
                }
        return refuse(b, "type", "%d is not a discovery type", wire);
}

static bool least_request(struct build *b, const Gp__UInt32Value *choices, const Xds__RuntimeDouble *bias)
{
        struct cluster_info *c = &b->c->info;

        if (choices)
                c->choice_count = choices->value;
        if (bias)
                c->active_request_bias = bias->default_value;
        if (c->choice_count < 2)
                return refuse(b, "least_request_lb_config.choice_count", "must be 2 or more");
        if (c->active_request_bias < 0)
                return refuse(b, "least_request_lb_config.active_request_bias", "must be 0 or more");
        return true;
}

/* The first policy that we know counts, as in Envoy. */
static bool read_lb_policy_list(struct build *b, const Xds__LoadBalancingPolicy *lp)
{
        for (size_t i = 0; i < lp->n_policies; i++) {
                const Xds__TypedExtensionConfig *t = lp->policies[i]->typed_extension_config;
                struct diag_at sub = at_path(b->a, b->at, ".load_balancing_policy.policies[%zu].typed_extension_config", i);
                struct ext e;

                if (!t || !t->typed_config || !pb_type_url(str_of(t->typed_config->type_url)))
                        continue;
                if (!ext_read(t->typed_config, b->a, &sub, b->d, &e))
                        return false;
                if (e.msg->descriptor == &xds__round_robin__descriptor) {
                        b->c->info.lb = LB_ROUND_ROBIN;
                        return true;
                }
                if (e.msg->descriptor == &xds__random__descriptor) {
                        b->c->info.lb = LB_RANDOM;
                        return true;
                }
                if (e.msg->descriptor == &xds__cluster_provided__descriptor) {
                        b->c->info.lb = LB_CLUSTER_PROVIDED;
                        return true;
                }
                if (e.msg->descriptor == &xds__least_request__descriptor) {
                        const Xds__LeastRequest *lr = (const Xds__LeastRequest *)e.msg;

                        b->c->info.lb = LB_LEAST_REQUEST;
                        return least_request(b, lr->choice_count, lr->active_request_bias);
                }
        }
        return refuse(b, "load_balancing_policy",
                      "holds no policy that is supported (round_robin, least_request, random, cluster_provided)");
}

static bool read_lb(struct build *b, const Xds__Cluster *p)
{
        struct cluster_info *c = &b->c->info;

        c->choice_count = 2;
        c->active_request_bias = 1;
        if (p->load_balancing_policy)
                return read_lb_policy_list(b, p->load_balancing_policy);
        switch (p->lb_policy) {
        case XDS__CLUSTER__LB_POLICY__ROUND_ROBIN:
                c->lb = LB_ROUND_ROBIN;
                break;
        case XDS__CLUSTER__LB_POLICY__LEAST_REQUEST:
                c->lb = LB_LEAST_REQUEST;
                if (p->lb_config_case == XDS__CLUSTER__LB_CONFIG_LEAST_REQUEST_LB_CONFIG)
                        return least_request(b, p->least_request_lb_config->choice_count, p->least_request_lb_config->active_request_bias);
                break;
        case XDS__CLUSTER__LB_POLICY__RANDOM:
                c->lb = LB_RANDOM;
                break;
        case XDS__CLUSTER__LB_POLICY__CLUSTER_PROVIDED:
                c->lb = LB_CLUSTER_PROVIDED;
                break;
        default:
                return refuse(b, "lb_policy", "%s is not supported",
                              protobuf_c_enum_descriptor_get_value(&xds__cluster__lb_policy__descriptor, p->lb_policy)
                                      ? protobuf_c_enum_descriptor_get_value(&xds__cluster__lb_policy__descriptor, p->lb_policy)->name
                                      : "this number");
        }
        if ((c->type == CLUSTER_ORIGINAL_DST) != (c->lb == LB_CLUSTER_PROVIDED))
                return refuse(b, "lb_policy", "CLUSTER_PROVIDED and type ORIGINAL_DST go together: neither is possible without the other");
        return true;
}

static bool read_breakers(struct build *b, const Xds__Cluster *p)
{
        for (unsigned i = 0; i < PRIO_COUNT; i++) {
                struct breakers *k = &b->c->breaker[i];

                k->max[BREAKER_CX] = k->max[BREAKER_PENDING] = k->max[BREAKER_RQ] = 1024;
                k->max[BREAKER_RETRIES] = 3;
                k->max[BREAKER_CX_POOLS] = UINT32_MAX;
                k->retry_budget_percent = -1;
                k->retry_budget_min = 3;
        }
        b->c->info.breakers = b->c->breaker;
        for (size_t i = 0; p->circuit_breakers && i < p->circuit_breakers->n_thresholds; i++) {
                const Xds__CircuitBreakers__Thresholds *t = p->circuit_breakers->thresholds[i];

                if ((unsigned)t->priority >= PRIO_COUNT)
                        return refuse(b, "circuit_breakers.thresholds", "there is no priority %d", (int)t->priority);
                struct breakers *k = &b->c->breaker[t->priority];

                if (t->max_connections)
                        k->max[BREAKER_CX] = t->max_connections->value;
                if (t->max_pending_requests)
                        k->max[BREAKER_PENDING] = t->max_pending_requests->value;
                if (t->max_requests)
                        k->max[BREAKER_RQ] = t->max_requests->value;
                if (t->max_retries)
                        k->max[BREAKER_RETRIES] = t->max_retries->value;
                if (t->max_connection_pools)
                        k->max[BREAKER_CX_POOLS] = t->max_connection_pools->value;
                k->track_remaining = t->track_remaining;
                if (t->retry_budget) {
                        k->retry_budget_percent = t->retry_budget->budget_percent ? t->retry_budget->budget_percent->value : 20;
                        if (t->retry_budget->min_retry_concurrency)
                                k->retry_budget_min = t->retry_budget->min_retry_concurrency->value;
                }
        }
        return true;
}

static bool is_raw_buffer(struct build *b, const Xds__TransportSocket *ts, const struct diag_at *at)
{
        struct ext e;

        if (!ts || !ts->config_type_case) {
                if (ts && ts->name && strcmp(ts->name, "envoy.transport_sockets.raw_buffer") == 0)
                        return true;
                diag_add(b->d, DIAG_ERROR, NULL, at, "typed_config is missing");
                return false;
        }
        struct diag_at sub = at_path(b->a, at, ".typed_config");

        if (!ext_read(ts->typed_config, b->a, &sub, b->d, &e))
                return false;
        if (e.msg->descriptor == &xds__raw_buffer__descriptor)
                return true;
        diag_add(b->d, DIAG_ERROR, NULL, at, "\"" STR_FMT "\" is not supported: this version connects to upstreams in clear text only",
                 STR_ARG(e.type));
        return false;
}

static bool read_transport(struct build *b, const Xds__Cluster *p)
{
        bool ok = true;
        struct diag_at sub;

        if (p->transport_socket) {
                sub = at_path(b->a, b->at, ".transport_socket");
                ok = is_raw_buffer(b, p->transport_socket, &sub);
        }
        for (size_t i = 0; i < p->n_transport_socket_matches; i++) {
                sub = at_path(b->a, b->at, ".transport_socket_matches[%zu].transport_socket", i);
                ok = is_raw_buffer(b, p->transport_socket_matches[i]->transport_socket, &sub) && ok;
        }
        return ok;
}

static bool read_upstream_filters(struct build *b, const Xds__Cluster *p)
{
        for (size_t i = 0; i < p->n_filters; i++) {
                struct diag_at sub = at_path(b->a, b->at, ".filters[%zu]", i);
                struct diag_at cfg = at_path(b->a, &sub, ".typed_config");
                struct ext e;

                if (!ext_read(p->filters[i]->typed_config, b->a, &cfg, b->d, &e))
                        return false;
                if (e.msg->descriptor != &xds_peer__metadata_exchange__descriptor) {
                        diag_add(b->d, DIAG_ERROR, NULL, &sub, "upstream filter \"" STR_FMT "\" is not supported", STR_ARG(e.type));
                        return false;
                }
                /* It speaks only where ALPN chose istio-peer-exchange, which takes TLS: nothing is lost on a clear connection. */
        }
        return true;
}

static bool read_http_options(struct build *b, const Xds__Cluster *p)
{
        static const char key[] = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

        for (size_t i = 0; i < p->n_typed_extension_protocol_options; i++) {
                const Xds__Cluster__TypedExtensionProtocolOptionsEntry *e = p->typed_extension_protocol_options[i];
                struct diag_at sub = at_path(b->a, b->at, ".typed_extension_protocol_options[\"%s\"]", e->key);
                struct ext x;

                if (strcmp(e->key, key) != 0) {
                        diag_add(b->d, DIAG_ERROR, NULL, &sub, "is not supported");
                        return false;
                }
                if (!ext_read(e->value, b->a, &sub, b->d, &x))
                        return false;
                if (x.msg->descriptor != &xds_up__http_protocol_options__descriptor) {
                        diag_add(b->d, DIAG_ERROR, NULL, &sub, "must be a %s", key);
                        return false;
                }
                b->c->info.http = (const XdsUp__HttpProtocolOptions *)x.msg;
        }
        if (b->server->cluster_http) {
                b->c->info.http_options = b->server->cluster_http->build(&b->c->info, b->at, b->d);
                return b->c->info.http_options != NULL;
        }
        return true;
}

static bool read_sockets(struct build *b, const Xds__Cluster *p)
{
        struct cluster_info *c = &b->c->info;
        const Xds__TcpKeepalive *k = p->upstream_connection_options ? p->upstream_connection_options->tcp_keepalive : NULL;

        if (k) {
                c->keepalive.on = true;
                c->keepalive.time_s = k->keepalive_time ? k->keepalive_time->value : 0;
                c->keepalive.interval_s = k->keepalive_interval ? k->keepalive_interval->value : 0;
                c->keepalive.probes = k->keepalive_probes ? k->keepalive_probes->value : 0;
        }
        if (p->upstream_bind_config && p->upstream_bind_config->source_address) {
                Xds__Address a = XDS__ADDRESS__INIT;
                struct diag_at sub = at_path(b->a, b->at, ".upstream_bind_config.source_address");

                a.address_case = XDS__ADDRESS__ADDRESS_SOCKET_ADDRESS;
                a.socket_address = p->upstream_bind_config->source_address;
                if (!address_read(&a, &c->source, &sub, b->d))
                        return false;
                c->has_source = true;
        }
        return true;
}

static bool read_rest(struct build *b, const Xds__Cluster *p)
{
        struct cluster_info *c = &b->c->info;
        struct str reason;
        uint64_t cleanup;

        c->connect_timeout_ms = (unsigned)ms_field(b, "connect_timeout", p->connect_timeout, 5000);
        if (p->connect_timeout && !c->connect_timeout_ms)
                return refuse(b, "connect_timeout", "must be more than 0");
        c->buffer_limit_bytes = p->per_connection_buffer_limit_bytes ? p->per_connection_buffer_limit_bytes->value : 1 << 20;
        c->max_requests_per_connection = p->max_requests_per_connection ? p->max_requests_per_connection->value : 0;
        c->overprovisioning = 140;
        c->panic_threshold = 50;
        if (p->common_lb_config && p->common_lb_config->healthy_panic_threshold)
                c->panic_threshold = p->common_lb_config->healthy_panic_threshold->value;
        b->c->locality_weighted = p->common_lb_config &&
                                  p->common_lb_config->locality_config_specifier_case ==
                                          XDS__CLUSTER__COMMON_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_LOCALITY_WEIGHTED_LB_CONFIG;
        cleanup = ms_field(b, "cleanup_interval", p->cleanup_interval, 5000);
        b->c->cleanup_ms = cleanup < CLEANUP_MAX_MS ? (unsigned)cleanup : CLEANUP_MAX_MS;
        if (p->lb_config_case == XDS__CLUSTER__LB_CONFIG_ORIGINAL_DST_LB_CONFIG) {
                const Xds__Cluster__OriginalDstLbConfig *o = p->original_dst_lb_config;

                c->use_http_header = o->use_http_header;
                c->http_header_name = o->http_header_name && o->http_header_name[0] ? str_of(o->http_header_name)
                                                                                    : STR("x-envoy-original-dst-host");
                c->upstream_port_override = o->upstream_port_override ? (uint16_t)o->upstream_port_override->value : 0;
        }
        c->metadata = p->metadata;
        reason = struct_str(metadata_struct(p->metadata, "postern"), "reason");
        if (reason.n) {
                struct diag_at sub = at_path(b->a, b->at, ".metadata.filter_metadata[\"postern\"].reason");

                c->reason = format_compile(reason, false, &sub, b->d);
                if (!c->reason)
                        return false;
        }
        if (c->type == CLUSTER_EDS && !p->eds_cluster_config)
                return refuse(b, "eds_cluster_config", "is missing: a cluster of type EDS needs it");
        if (c->type == CLUSTER_ORIGINAL_DST && p->load_assignment)
                return refuse(b, "load_assignment", "has no place in a cluster of type ORIGINAL_DST");
        return true;
}

struct cluster_info *cluster_info_build(struct server *s, const struct Xds__Cluster *proto, const struct diag_at *at, struct diags *d)
{
        struct cluster_shared *c = MEM_NEW(struct cluster_shared);
        struct build b = { s, c, &c->arena, at, d };
        const Xds__Cluster *p;
        size_t errors = d->errors;

        arena_init(&c->arena, 1024);
        pthread_mutex_init(&c->lock, NULL);
        c->server = s;
        c->info.refs = 1;
        c->info.index = cluster_index_take(s->clusters);
        p = (const Xds__Cluster *)pb_clone_message(&proto->base, &c->arena);
        c->hash = pb_hash(&p->base);
        c->info.proto = p;
        c->info.name = str_of(p->name);
        c->info.alt_stat_name = p->alt_stat_name && p->alt_stat_name[0] ? str_of(p->alt_stat_name) : c->info.name;
        if (!c->info.name.n)
                refuse(&b, "name", "is missing");
        support_check(&p->base, at, &c->arena, d);
        if (d->errors == errors && read_type(&b, p)) {
                read_lb(&b, p);
                read_breakers(&b, p);
                read_transport(&b, p);
                read_upstream_filters(&b, p);
                read_sockets(&b, p);
                read_rest(&b, p);
        }
        if (d->errors == errors) {
                struct str shown = c->info.alt_stat_name;
                struct stat_tag tag = { "envoy.cluster_name", shown };

                /* Istio ends alternative names with ';' to mark where its tag expression stops. */
                if (shown.n > 1 && shown.p[shown.n - 1] == ';')
                        tag.value.n--;
                struct str prefix = arena_printf(&c->arena, "cluster." STR_FMT ".", STR_ARG(c->info.alt_stat_name));

                c->info.stats = stats_scope(s->stats, prefix, STR("cluster."), &tag, 1, cluster_defs, CS_COUNT);
                read_http_options(&b, p);
        }
        if (d->errors != errors) {
                cluster_info_unref(&c->info);
                return NULL;
        }
        return &c->info;
}

struct cluster_info *cluster_info_ref(const struct cluster_info *c)
{
        struct cluster_info *m = (struct cluster_info *)c;

        atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
        return m;
}

void cluster_info_unref(const struct cluster_info *ci)
{
        struct cluster_shared *c;

        if (!ci)
                return;
        c = cluster_shared(ci);
        if (atomic_fetch_sub_explicit(&c->info.refs, 1, memory_order_acq_rel) != 1)
                return;
        if (c->info.http_options && c->server->cluster_http)
                c->server->cluster_http->free(c->info.http_options);
        host_list_unref(c->server, c->latest);
        cluster_index_give(c->server->clusters, c->info.index);
        stats_scope_unref(c->server->stats, c->info.stats);
        format_free(c->info.reason);
        pthread_mutex_destroy(&c->lock);
        arena_fini(&c->arena);
        free(c);
}
