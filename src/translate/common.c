/* The messages that every other message holds: access logs, Istio's filters, defaults. Made once per mesh configuration. */
#include "translate/internal.h"

#include "envoy/access_loggers_file.pb-c.h"
#include "envoy/cluster_filter.pb-c.h"
#include "envoy/dns_cares.pb-c.h"
#include "envoy/filter_cors.pb-c.h"
#include "envoy/filter_fault.pb-c.h"
#include "envoy/filter_grpc_stats.pb-c.h"
#include "envoy/filter_router.pb-c.h"
#include "envoy/http_inspector.pb-c.h"
#include "envoy/istio_alpn.pb-c.h"
#include "envoy/istio_stats.pb-c.h"
#include "envoy/previous_hosts.pb-c.h"
#include "envoy/tls_inspector.pb-c.h"

#include "base/mem.h"

#include <stdlib.h>

/* --- Access log ------------------------------------------------------------------------------------------------------------------ */

/* Istio's members of a JSON line. */
static const struct {
        const char *key, *value;
} json_default[] = {
        { "authority", "%REQ(:AUTHORITY)%" },
        { "bytes_received", "%BYTES_RECEIVED%" },
        { "bytes_sent", "%BYTES_SENT%" },
        { "connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%" },
        { "downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%" },
        { "downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%" },
        { "duration", "%DURATION%" },
        { "method", "%REQ(:METHOD)%" },
        { "path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%" },
        { "protocol", "%PROTOCOL%" },
        { "request_id", "%REQ(X-REQUEST-ID)%" },
        { "requested_server_name", "%REQUESTED_SERVER_NAME%" },
        { "response_code", "%RESPONSE_CODE%" },
        { "response_code_details", "%RESPONSE_CODE_DETAILS%" },
        { "response_flags", "%RESPONSE_FLAGS%" },
        { "route_name", "%ROUTE_NAME%" },
        { "start_time", "%START_TIME%" },
        { "upstream_cluster", "%UPSTREAM_CLUSTER_RAW%" },
        { "upstream_host", "%UPSTREAM_HOST%" },
        { "upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%" },
        { "upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%" },
        { "upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%" },
        { "user_agent", "%REQ(USER-AGENT)%" },
        { "x_forwarded_for", "%REQ(X-FORWARDED-FOR)%" },
};

static Gp__Struct *json_format(struct arena *a, const struct mesh_config *c)
{
        Gp__Struct *s = MAKE(a, gp__struct);
        const struct pb_node *own = c->access_log_json_format;

        for (size_t i = 0; own && own->kind == PB_MAP && i < own->n; i++)
                make_put(a, s, arena_cstr(a, own->keys[i]), make_text(a, own->v[i]->text));
        for (size_t i = 0; !s->n_fields && i < ARRAY_LEN(json_default); i++)
                make_put(a, s, json_default[i].key, make_text(a, str_of(json_default[i].value)));
        return s;
}

static Xds__AccessLog *access_log(struct arena *a, const struct mesh_config *c, bool no_route_only)
{
        Xds__FileAccessLog *file = MAKE(a, xds__file_access_log);
        Xds__SubstitutionFormatString *f = MAKE(a, xds__substitution_format_string);
        Xds__AccessLog *log = MAKE(a, xds__access_log);

        file->path = arena_cstr(a, c->access_log_file);
        file->access_log_format_case = XDS__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT;
        file->log_format = f;
        if (c->access_log_json) {
                f->format_case = XDS__SUBSTITUTION_FORMAT_STRING__FORMAT_JSON_FORMAT;
                f->json_format = json_format(a, c);
        } else {
                f->format_case = XDS__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT_SOURCE;
                f->text_format_source = MAKE(a, xds__data_source);
                f->text_format_source->specifier_case = XDS__DATA_SOURCE__SPECIFIER_INLINE_STRING;
                f->text_format_source->inline_string = arena_cstr(a, c->access_log_format);
        }
        log->name = "envoy.access_loggers.file";
        log->config_type_case = XDS__ACCESS_LOG__CONFIG_TYPE_TYPED_CONFIG;
        log->typed_config = make_any(a, file);
        if (no_route_only) { /* a listener logs what no filter chain took */
                log->filter = MAKE(a, xds__access_log_filter);
                log->filter->filter_specifier_case = XDS__ACCESS_LOG_FILTER__FILTER_SPECIFIER_RESPONSE_FLAG_FILTER;
                log->filter->response_flag_filter = MAKE(a, xds__response_flag_filter);
                log->filter->response_flag_filter->flags = MAKE_LIST(a, 1);
                log->filter->response_flag_filter->flags[0] = "NR";
                log->filter->response_flag_filter->n_flags = 1;
        }
        return log;
}

/* --- Istio's filters ------------------------------------------------------------------------------------------------------------- */

static Gp__Any *peer_exchange(struct arena *a)
{
        Gp__Struct *s = MAKE(a, gp__struct);

        make_put(a, s, "enable_discovery", make_flag(a, true));
        make_put(a, s, "protocol", make_text(a, STR("istio-peer-exchange")));
        return make_typed_struct(a, "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange", s);
}

static Gp__Value *named_empty(struct arena *a, const char *name)
{
        Gp__Struct *s = MAKE(a, gp__struct);

        make_put(a, s, name, make_object(a, MAKE(a, gp__struct)));
        return make_object(a, s);
}

/* Who is at the other end, over HTTP headers: outbound looks at the upstream's answer and tells the upstream who we are. */
static Gp__Any *peer_metadata(struct arena *a, bool outbound)
{
        Gp__Struct *s = MAKE(a, gp__struct);
        Gp__Value **discovery = MAKE_LIST(a, 2), **propagation = MAKE_LIST(a, 1);

        discovery[0] = named_empty(a, "istio_headers");
        discovery[1] = named_empty(a, "workload_discovery");
        propagation[0] = named_empty(a, "istio_headers");
        make_put(a, s, outbound ? "upstream_discovery" : "downstream_discovery", make_array(a, discovery, 2));
        make_put(a, s, outbound ? "upstream_propagation" : "downstream_propagation", make_array(a, propagation, 1));
        return make_typed_struct(a, "type.googleapis.com/io.istio.http.peer_metadata.Config", s);
}

static Gp__Any *alpn(struct arena *a)
{
        static const struct {
                XdsAlpn__FilterConfig__Protocol protocol;
                const char *names[3];
        } table[] = {
                { XDS_ALPN__FILTER_CONFIG__PROTOCOL__HTTP10, { "istio-http/1.0", "istio", "http/1.0" } },
                { XDS_ALPN__FILTER_CONFIG__PROTOCOL__HTTP11, { "istio-http/1.1", "istio", "http/1.1" } },
                { XDS_ALPN__FILTER_CONFIG__PROTOCOL__HTTP2, { "istio-h2", "istio", "h2" } },
        };
        XdsAlpn__FilterConfig *m = MAKE(a, xds_alpn__filter_config);

        m->n_alpn_override = ARRAY_LEN(table);
        m->alpn_override = MAKE_LIST(a, ARRAY_LEN(table));
        for (size_t i = 0; i < ARRAY_LEN(table); i++) {
                XdsAlpn__FilterConfig__AlpnOverride *o = MAKE(a, xds_alpn__filter_config__alpn_override);

                o->has_upstream_protocol = table[i].protocol != 0;
                o->upstream_protocol = table[i].protocol;
                o->n_alpn_override = 3;
                o->alpn_override = arena_dup(a, table[i].names, sizeof(table[i].names));
                m->alpn_override[i] = o;
        }
        return make_any(a, m);
}

static Gp__Any *grpc_stats(struct arena *a)
{
        XdsGrpcStats__FilterConfig *m = MAKE(a, xds_grpc_stats__filter_config);

        m->has_emit_filter_state = m->emit_filter_state = true;
        m->per_method_stat_specifier_case = XDS_GRPC_STATS__FILTER_CONFIG__PER_METHOD_STAT_SPECIFIER_STATS_FOR_ALL_METHODS;
        m->stats_for_all_methods = make_bool(a, false);
        return make_any(a, m);
}

static Xds__HttpFilter **http_filters(struct arena *a, const struct mesh_config *config, bool outbound, size_t *n)
{
        const struct {
                const char *name;
                Gp__Any *config;
                bool here;
        } table[] = {
                { "istio.metadata_exchange", peer_metadata(a, outbound), true },
                { "envoy.filters.http.grpc_stats", grpc_stats(a), true },
                { "istio.alpn", alpn(a), outbound },
                { "envoy.filters.http.fault", make_any(a, MAKE(a, xds__httpfault)), true },
                { "envoy.filters.http.cors", make_any(a, MAKE(a, xds_cors__cors)), true },
                { "istio.stats", make_any(a, MAKE(a, xds_istio_stats__plugin_config)), config->metrics },
                { "envoy.filters.http.router", make_any(a, MAKE(a, xds__router)), true },
        };
        Xds__HttpFilter **v = MAKE_LIST(a, ARRAY_LEN(table));

        *n = 0;
        for (size_t i = 0; i < ARRAY_LEN(table); i++) {
                if (!table[i].here)
                        continue;
                v[*n] = MAKE(a, xds__http_filter);
                v[*n]->name = (char *)table[i].name;
                v[*n]->config_type_case = XDS__HTTP_FILTER__CONFIG_TYPE_TYPED_CONFIG;
                v[(*n)++]->typed_config = table[i].config;
        }
        return v;
}

static Xds__ListenerFilter *listener_filter(struct arena *a, const char *name, Gp__Any *config)
{
        Xds__ListenerFilter *f = MAKE(a, xds__listener_filter);

        f->name = (char *)name;
        f->config_type_case = XDS__LISTENER_FILTER__CONFIG_TYPE_TYPED_CONFIG;
        f->typed_config = config;
        return f;
}

/* --- Defaults -------------------------------------------------------------------------------------------------------------------- */

static Xds__CircuitBreakers *no_limits(struct arena *a)
{
        Xds__CircuitBreakers *c = MAKE(a, xds__circuit_breakers);
        Xds__CircuitBreakers__Thresholds *t = MAKE(a, xds__circuit_breakers__thresholds);

        t->max_connections = t->max_pending_requests = t->max_requests = t->max_retries = make_u32(a, UINT32_MAX);
        c->thresholds = MAKE_LIST(a, 1);
        c->thresholds[0] = t;
        c->n_thresholds = 1;
        return c;
}

static Xds__TypedExtensionConfig *dns_resolver(struct arena *a)
{
        Xds__TypedExtensionConfig *t = MAKE(a, xds__typed_extension_config);
        Xds__CaresDnsResolverConfig *c = MAKE(a, xds__cares_dns_resolver_config);

        c->udp_max_queries = make_u32(a, 100);
        t->name = "envoy.network.dns_resolver.cares";
        t->typed_config = make_any(a, c);
        return t;
}

static Xds__RetryPolicy *default_retry(struct arena *a)
{
        Xds__RetryPolicy *r = MAKE(a, xds__retry_policy);
        Xds__RetryPolicy__RetryHostPredicate *p = MAKE(a, xds__retry_policy__retry_host_predicate);

        r->retry_on = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
        r->num_retries = make_u32(a, 2);
        p->name = "envoy.retry_host_predicates.previous_hosts";
        p->config_type_case = XDS__RETRY_POLICY__RETRY_HOST_PREDICATE__CONFIG_TYPE_TYPED_CONFIG;
        p->typed_config = make_any(a, MAKE(a, xds__previous_hosts_predicate));
        r->retry_host_predicate = MAKE_LIST(a, 1);
        r->retry_host_predicate[0] = p;
        r->n_retry_host_predicate = 1;
        r->has_host_selection_retry_max_attempts = true;
        r->host_selection_retry_max_attempts = 5;
        return r;
}

static Xds__ConfigSource *ads(struct arena *a)
{
        Xds__ConfigSource *s = MAKE(a, xds__config_source);

        s->config_source_specifier_case = XDS__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS;
        s->ads = MAKE(a, xds__aggregated_config_source);
        s->initial_fetch_timeout = make_us(a, 0);
        s->has_resource_api_version = true;
        s->resource_api_version = XDS__API_VERSION__V3;
        return s;
}

struct common *common_new(const struct mesh_config *config)
{
        struct common *c = MEM_NEW(struct common);
        struct arena *a = &c->arena;
        Xds__TlsInspector *tls;

        arena_init(a, 16384);
        c->version = config->version;
        if (config->access_log_file.n) {
                c->naccess_log = 1;
                c->access_log = MAKE_LIST(a, 1);
                c->access_log[0] = access_log(a, config, false);
                c->nr_access_log = MAKE_LIST(a, 1);
                c->nr_access_log[0] = access_log(a, config, true);
        }
        c->peer_exchange = MAKE(a, xds__filter);
        c->peer_exchange->name = "istio.metadata_exchange";
        c->peer_exchange->config_type_case = XDS__FILTER__CONFIG_TYPE_TYPED_CONFIG;
        c->peer_exchange->typed_config = peer_exchange(a);
        c->upstream_filters = MAKE_LIST(a, 1);
        c->upstream_filters[0] = MAKE(a, xds_c__filter);
        c->upstream_filters[0]->name = "istio.metadata_exchange";
        c->upstream_filters[0]->typed_config = peer_exchange(a);
        c->no_limits = no_limits(a);
        c->dns_resolver = dns_resolver(a);
        c->retry = default_retry(a);
        c->ads = ads(a);
        c->http_out = http_filters(a, config, true, &c->nhttp_out);
        c->http_in = http_filters(a, config, false, &c->nhttp_in);
        tls = MAKE(a, xds__tls_inspector);
        tls->initial_read_buffer_size = make_u32(a, 512);
        c->tls_inspector = listener_filter(a, "envoy.filters.listener.tls_inspector", make_any(a, tls));
        c->http_inspector = listener_filter(a, "envoy.filters.listener.http_inspector", make_any(a, MAKE(a, xds__http_inspector)));
        return c;
}

void common_free(struct common *c)
{
        if (!c)
                return;
        arena_fini(&c->arena);
        free(c);
}
