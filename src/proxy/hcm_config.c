/* HttpConnectionManager -> struct hcm_config. Defaults are Envoy's. Fields are honoured or refused by name. */
#include "proxy/hcm.h"

#include "base/mem.h"
#include "envoy/core.pb-c.h"
#include "envoy/hcm.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "envoy/request_id_uuid.pb-c.h"
#include "envoy/route.pb-c.h"
#include "envoy/trace.pb-c.h"
#include "envoy/type.pb-c.h"
#include "google/any.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "proxy/cluster_manager.h"
#include "proxy/ext.h"
#include "proxy/hcm_options.h"
#include "proxy/listener.h"

#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>

enum {
        STREAM_IDLE_MS = 300000,
        CONN_IDLE_MS = 3600000,
        DRAIN_MS = 5000,
        MAX_HEAD_KB = 60,
        MAX_HEAD_KB_LIMIT = 8192,
        BUFFER_BYTES = 1 << 20,
};

static const struct stat_def hcm_stat_defs[] = {
#define C(id, name)              { name, STAT_COUNTER, NULL, NULL, NULL },
#define G(id, name)              { name, STAT_GAUGE, NULL, NULL, NULL },
#define X(id, name, prom, value) { name, STAT_COUNTER, prom, "envoy.response_code_class", value },
#define H(id, name)              { name, STAT_HISTOGRAM, NULL, NULL, NULL },
#include "proxy/hcm_stats.def"
#undef C
#undef G
#undef X
#undef H
};

typedef const struct Xds__HttpConnectionManager hcm_proto;

static void refuse(struct filter_build *b, bool present, const char *field)
{
        struct diag_at here;

        if (!present)
                return;
        here = filter_path(b, ".%s", field);
        diag_add(b->diags, DIAG_ERROR, NULL, &here, "%s is not supported", field);
}

static struct str keep(struct hcm_config *c, const char *s)
{
        return s && *s ? arena_str(&c->mem.arena, str_of(s)) : str_make("", 0);
}

static uint64_t ms(struct filter_build *b, const struct Gp__Duration *v, uint64_t otherwise, const char *field)
{
        struct diag_at here;

        if (!v)
                return otherwise;
        here = filter_path(b, ".%s", field);
        return duration_ms(v, otherwise, &here, b->diags);
}

static struct str local_address(struct hcm_config *c)
{
        struct ifaddrs *all, *i;
        struct str v = STR("127.0.0.1");

        if (getifaddrs(&all))
                return v;
        for (i = all; i; i = i->ifa_next) {
                char text[ADDR_TEXT_MAX];
                struct addr a = { .len = sizeof(struct sockaddr_in) };

                if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET)
                        continue;
                memcpy(&a.v4, i->ifa_addr, sizeof(a.v4));
                if (addr_is_loopback(&a))
                        continue;
                v = arena_str(&c->mem.arena, str_make(text, addr_ip_text(&a, text)));
                break;
        }
        freeifaddrs(all);
        return v;
}

static void limits(struct filter_build *b, struct hcm_config *c, hcm_proto *p)
{
        const struct Xds__HttpProtocolOptions *o = p->common_http_protocol_options;
        size_t kb = p->max_request_headers_kb ? p->max_request_headers_kb->value : MAX_HEAD_KB;
        struct diag_at here;

        if (!kb || kb > MAX_HEAD_KB_LIMIT) {
                here = filter_path(b, ".max_request_headers_kb");
                diag_add(b->diags, DIAG_ERROR, NULL, &here, "must be from 1 to %d", MAX_HEAD_KB_LIMIT);
        }
        c->opts.max_head_bytes = kb * 1024;
        c->opts.high_mark = BUFFER_BYTES;
        c->opts.low_mark = BUFFER_BYTES / 2;
        c->opts.absolute_url = true;
        c->stream_idle_ms = ms(b, p->stream_idle_timeout, STREAM_IDLE_MS, "stream_idle_timeout");
        c->request_ms = ms(b, p->request_timeout, 0, "request_timeout");
        c->request_headers_ms = ms(b, p->request_headers_timeout, 0, "request_headers_timeout");
        c->drain_ms = ms(b, p->drain_timeout, DRAIN_MS, "drain_timeout");
        c->idle_ms = CONN_IDLE_MS;
        if (o) {
                c->idle_ms = ms(b, o->idle_timeout, CONN_IDLE_MS, "common_http_protocol_options.idle_timeout");
                c->max_connection_ms = ms(b, o->max_connection_duration, 0, "common_http_protocol_options.max_connection_duration");
                c->max_stream_ms = ms(b, o->max_stream_duration, 0, "common_http_protocol_options.max_stream_duration");
                c->max_requests_per_connection = o->max_requests_per_connection ? o->max_requests_per_connection->value : 0;
                c->underscores = (enum hcm_underscores)o->headers_with_underscores_action;
                hcm_common_options(&c->opts, o);
                refuse(b, o->max_response_headers_kb != NULL, "common_http_protocol_options.max_response_headers_kb");
        }
        if (p->http_protocol_options) {
                here = filter_path(b, ".http_protocol_options");
                hcm_h1_options(&c->opts, p->http_protocol_options, &here, b->diags, b->arena);
                c->h1_trailers = p->http_protocol_options->enable_trailers;
        }
        if (p->http2_protocol_options) {
                here = filter_path(b, ".http2_protocol_options");
                hcm_h2_options(&c->opts, p->http2_protocol_options, &here, b->diags, b->arena);
        }
}

static void addresses(struct filter_build *b, struct hcm_config *c, hcm_proto *p)
{
        const struct Xds__HttpConnectionManager__InternalAddressConfig *i = p->internal_address_config;

        c->server_address = local_address(c);
        c->use_remote_address = p->use_remote_address && p->use_remote_address->value;
        c->skip_xff_append = p->skip_xff_append;
        c->append_x_forwarded_port = p->append_x_forwarded_port;
        c->xff_trusted_hops = p->xff_num_trusted_hops;
        /* Envoy trusts no address unless told (since 1.33); Istio's proxies have always taken private addresses for the inside. */
        c->internal_private = !i && b->server->opts.istio_role;
        if (!i)
                return;
        c->internal_unix = i->unix_sockets;
        c->internal = arena_zalloc(&c->mem.arena, (i->n_cidr_ranges + 1) * sizeof(*c->internal));
        for (size_t k = 0; k < i->n_cidr_ranges; k++) {
                const struct Xds__CidrRange *r = i->cidr_ranges[k];

                if (!cidr_make(&c->internal[c->ninternal++], str_of(r->address_prefix), r->prefix_len ? r->prefix_len->value : 0)) {
                        struct diag_at here = filter_path(b, ".internal_address_config.cidr_ranges[%zu]", k);

                        diag_add(b->diags, DIAG_ERROR, NULL, &here, "\"%s\" is not an address prefix",
                                 r->address_prefix ? r->address_prefix : "");
                }
        }
}

static void headers(struct filter_build *b, struct hcm_config *c, hcm_proto *p)
{
        c->server_name = p->server_name && *p->server_name ? keep(c, p->server_name) : STR("envoy");
        c->server_header = (enum hcm_server_header)p->server_header_transformation;
        c->via = keep(c, p->via);
        if (p->add_user_agent && p->add_user_agent->value)
                c->user_agent = arena_str(&c->mem.arena, str_of(b->server->node ? b->server->node->cluster : NULL));
        c->proxy_100_continue = p->proxy_100_continue;
        c->generate_request_id = !p->generate_request_id || p->generate_request_id->value;
        c->preserve_external_request_id = p->preserve_external_request_id;
        c->request_id_in_response = p->always_set_request_id_in_response;
        c->normalize_path = p->normalize_path && p->normalize_path->value;
        c->merge_slashes = p->merge_slashes;
        c->strip_matching_port = p->strip_matching_host_port;
        c->strip_any_port = p->strip_port_mode_case == XDS__HTTP_CONNECTION_MANAGER__STRIP_PORT_MODE_STRIP_ANY_HOST_PORT &&
                            p->strip_any_host_port;
        c->strip_trailing_dot = p->strip_trailing_host_dot;
        switch (p->path_with_escaped_slashes_action) {
        case XDS__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__REJECT_REQUEST:
                c->slashes = HCM_SLASHES_REJECT;
                break;
        case XDS__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__UNESCAPE_AND_REDIRECT:
                c->slashes = HCM_SLASHES_REDIRECT;
                break;
        case XDS__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__UNESCAPE_AND_FORWARD:
                c->slashes = HCM_SLASHES_FORWARD;
                break;
        default:
                c->slashes = HCM_SLASHES_KEEP;
        }
        if (p->scheme_header_transformation) {
                if (p->scheme_header_transformation->transformation_case ==
                    XDS__SCHEME_HEADER_TRANSFORMATION__TRANSFORMATION_SCHEME_TO_OVERWRITE)
                        c->scheme_overwrite = keep(c, p->scheme_header_transformation->scheme_to_overwrite);
                refuse(b, p->scheme_header_transformation->match_upstream, "scheme_header_transformation.match_upstream");
        }
        if (p->request_id_extension && p->request_id_extension->typed_config) {
                struct diag_at here = filter_path(b, ".request_id_extension.typed_config");
                struct ext e;

                if (ext_read(p->request_id_extension->typed_config, &c->mem.scratch, &here, b->diags, &e) &&
                    !str_eqc(e.type, "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"))
                        diag_add(b->diags, DIAG_ERROR, NULL, &here, "request ID extension \"" STR_FMT "\" is not supported",
                                 STR_ARG(e.type));
        }
        for (size_t i = 0; i < p->n_upgrade_configs; i++) {
                const struct Xds__HttpConnectionManager__UpgradeConfig *u = p->upgrade_configs[i];
                char field[64];

                if (!c->upgrades)
                        c->upgrades = arena_zalloc(&c->mem.arena, p->n_upgrade_configs * sizeof(*c->upgrades));
                c->upgrades[c->nupgrades++] = (struct route_upgrade){ keep(c, u->upgrade_type), !u->enabled || u->enabled->value };
                snprintf(field, sizeof(field), "upgrade_configs[%zu].filters", i);
                refuse(b, u->n_filters != 0, field);
        }
}

static double percent(const struct Xds__Percent *p)
{
        return p ? p->value : 100.0;
}

static void tracing(struct filter_build *b, struct hcm_config *c, hcm_proto *p)
{
        const struct Xds__HttpConnectionManager__Tracing *t = p->tracing;

        if (!t)
                return;
        c->tracing = t->provider ? HCM_TRACING_PROPAGATE : HCM_TRACING_DECORATE;
        c->trace_client = percent(t->client_sampling);
        c->trace_random = percent(t->random_sampling);
        c->trace_overall = percent(t->overall_sampling);
        c->tracing_egress = b->listener->outbound;
        refuse(b, t->spawn_upstream_span && t->spawn_upstream_span->value, "tracing.spawn_upstream_span");
        if (t->provider) {
                struct diag_at here = filter_path(b, ".tracing.provider.typed_config");
                struct ext e;

                if (t->provider->config_type_case != XDS_TRACE__TRACING__HTTP__CONFIG_TYPE_TYPED_CONFIG ||
                    !ext_read(t->provider->typed_config, &c->mem.scratch, &here, b->diags, &e))
                        return;
                if (!str_eqc(e.type, "envoy.config.trace.v3.ZipkinConfig"))
                        diag_add(b->diags, DIAG_ERROR, NULL, &here,
                                 "tracer \"" STR_FMT "\" is not supported: a ZipkinConfig makes and passes on B3 and W3C context",
                                 STR_ARG(e.type));
                else
                        diag_add(b->diags, DIAG_INFO, NULL, &here, "trace context is made and passed on; spans are not reported");
        }
}

/* The last filter is the router, and only the last. */
static void filters(struct filter_build *b, struct hcm_config *c, hcm_proto *p)
{
        c->filters = arena_zalloc(&c->mem.arena, (p->n_http_filters + 1) * sizeof(*c->filters));
        if (!p->n_http_filters) {
                struct diag_at here = filter_path(b, ".http_filters");

                diag_add(b->diags, DIAG_ERROR, NULL, &here, "is empty: the last HTTP filter must be the router");
        }
        for (size_t i = 0; i < p->n_http_filters; i++) {
                const struct Xds__HttpFilter *q = p->http_filters[i];
                struct diag_at outer = filter_path(b, ".http_filters[%zu]", i), here = filter_path(b, ".http_filters[%zu].typed_config", i);
                struct hcm_filter *f = &c->filters[c->nfilters];
                const struct http_filter *type;
                bool last = i + 1 == p->n_http_filters;
                struct ext e;
                void *config;

                if (q->config_type_case == XDS__HTTP_FILTER__CONFIG_TYPE_CONFIG_DISCOVERY) {
                        diag_add(b->diags, DIAG_ERROR, NULL, &outer, "config_discovery is not supported: give the filter's typed_config");
                        continue;
                }
                if (!ext_read(q->config_type_case ? q->typed_config : NULL, &c->mem.scratch, &here, b->diags, &e))
                        continue;
                type = http_filter_find(e.type);
                if (!type) {
                        if (q->is_optional)
                                diag_add(b->diags, DIAG_WARNING, NULL, &outer,
                                         "optional HTTP filter \"%s\" (" STR_FMT ") is not supported: left out", q->name ? q->name : "",
                                         STR_ARG(e.type));
                        else
                                diag_add(b->diags, DIAG_ERROR, NULL, &outer, "HTTP filter \"%s\" (" STR_FMT ") is not supported",
                                         q->name ? q->name : "", STR_ARG(e.type));
                        continue;
                }
                if ((type == &http_filter_router) != last) {
                        diag_add(b->diags, DIAG_ERROR, NULL, &outer,
                                 last ? "the last HTTP filter must be the router" : "the router must be the last HTTP filter");
                        continue;
                }
                config = type->build(b->server, &c->mem, e.msg, &here, b->diags);
                if (!config)
                        continue;
                if (last) {
                        c->router = *(struct router_config *)config;
                        continue;
                }
                f->filter = type;
                f->name = keep(c, q->name);
                f->config = config;
                f->disabled = q->disabled;
                f->state_at = c->filter_state_bytes;
                c->filter_state_bytes += (type->state_bytes + 7) & ~(size_t)7;
                c->nfilters++;
        }
}

struct cluster_check {
        struct filter_build *b;
        struct diag_at at;
};

static void check_cluster(void *arg, struct str cluster, const struct route *r)
{
        struct cluster_check *c = arg;
        struct cluster_manager *m = c->b->server->clusters;

        if (cluster_manager_get(m, cluster) || strmap_get(cluster_manager_warming(m), cluster))
                return;
        diag_add(c->b->diags, DIAG_ERROR, NULL, &c->at, "virtual host \"" STR_FMT "\": route: unknown cluster '" STR_FMT "'",
                 STR_ARG(r->vhost->name), STR_ARG(cluster));
}

/* Inline routes name clusters that exist (validate_clusters, whose default they are for). */
static void check_clusters(struct filter_build *b, const struct route_table *t, const struct diag_at *at)
{
        struct cluster_check c = { b, *at };

        if (!t->validate_clusters_set || t->validate_clusters)
                route_table_each_cluster(t, check_cluster, &c);
}

static void routes(struct filter_build *b, struct hcm_config *c, hcm_proto *p)
{
        struct diag_at here;

        switch (p->route_specifier_case) {
        case XDS__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_RDS:
                here = filter_path(b, ".rds");
                c->rds = rds_slot_get(b->server, p->rds, &here, b->diags);
                if (c->rds)
                        VEC_PUSH(b->needs, b->nneeds, b->needs_cap) = c->rds;
                break;
        case XDS__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_ROUTE_CONFIG:
                here = filter_path(b, ".route_config");
                c->table = route_table_build(b->server, p->route_config, &here, b->diags);
                if (c->table)
                        check_clusters(b, c->table, &here);
                break;
        case XDS__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_SCOPED_ROUTES:
                refuse(b, true, "scoped_routes");
                break;
        default:
                diag_add(b->diags, DIAG_ERROR, NULL, &b->at, "give one of rds and route_config");
        }
}

static void refuse_rest(struct filter_build *b, hcm_proto *p)
{
        const struct {
                bool present;
                const char *name;
        } v[] = {
                { p->codec_type == XDS__HTTP_CONNECTION_MANAGER__CODEC_TYPE__HTTP3, "codec_type HTTP3" },
                { p->represent_ipv4_remote_address_as_ipv4_mapped_ipv6, "represent_ipv4_remote_address_as_ipv4_mapped_ipv6" },
                { p->stream_error_on_invalid_http_message && p->stream_error_on_invalid_http_message->value,
                  "stream_error_on_invalid_http_message" },
                { p->n_original_ip_detection_extensions != 0, "original_ip_detection_extensions" },
                { p->proxy_status_config != NULL, "proxy_status_config" },
                { p->typed_header_validation_config != NULL, "typed_header_validation_config" },
                { p->n_early_header_mutation_extensions != 0, "early_header_mutation_extensions" },
                { p->append_local_overload, "append_local_overload" },
                { p->flush_access_log_on_new_request, "flush_access_log_on_new_request" },
                { p->access_log_flush_interval != NULL, "access_log_flush_interval" },
                { p->access_log_options != NULL, "access_log_options" },
                { p->http1_safe_max_connection_duration, "http1_safe_max_connection_duration" },
                { p->stream_flush_timeout != NULL, "stream_flush_timeout" },
        };

        for (size_t i = 0; i < ARRAY_LEN(v); i++)
                refuse(b, v[i].present, v[i].name);
}

static struct stat_scope *stats(struct filter_build *b, struct hcm_config *c)
{
        char prefix[1024];
        int n = snprintf(prefix, sizeof(prefix), "http." STR_FMT ".", STR_ARG(c->stat_prefix));
        struct stat_tag tag = { "envoy.http_conn_manager_prefix", c->stat_prefix };

        if (n >= (int)sizeof(prefix))
                n = sizeof(prefix) - 1;
        return stats_scope(b->server->stats, str_make(prefix, (size_t)n), STR("http."), &tag, 1, hcm_stat_defs, ARRAY_LEN(hcm_stat_defs));
}

void hcm_config_free(void *config)
{
        struct hcm_config *c = config;

        if (!c)
                return;
        if (c->rds)
                rds_slot_unref(c->rds);
        if (c->table)
                route_table_unref(c->table);
        access_logs_free(c->logs);
        stats_scope_unref(c->server->stats, c->stats);
        config_mem_fini(&c->mem);
        free(c);
}

void *hcm_config_build(struct filter_build *b, const ProtobufCMessage *config)
{
        hcm_proto *p = (hcm_proto *)config;
        struct hcm_config *c = MEM_NEW(struct hcm_config);
        size_t before = b->diags->errors;
        struct diag_at here;

        config_mem_init(&c->mem);
        c->server = b->server;
        c->stat_prefix = keep(c, p->stat_prefix);
        if (!c->stat_prefix.n) {
                here = filter_path(b, ".stat_prefix");
                diag_add(b->diags, DIAG_ERROR, NULL, &here, "is empty: give the prefix of this connection manager's statistics");
        }
        c->stats = stats(b, c);
        c->codec = p->codec_type == XDS__HTTP_CONNECTION_MANAGER__CODEC_TYPE__HTTP1   ? HCM_HTTP1
                   : p->codec_type == XDS__HTTP_CONNECTION_MANAGER__CODEC_TYPE__HTTP2 ? HCM_HTTP2
                                                                                      : HCM_AUTO;
        limits(b, c, p);
        addresses(b, c, p);
        headers(b, c, p);
        tracing(b, c, p);
        filters(b, c, p);
        routes(b, c, p);
        refuse_rest(b, p);
        if (p->local_reply_config) {
                here = filter_path(b, ".local_reply_config");
                c->local_reply = local_reply_build(&c->mem, p->local_reply_config, &here, b->diags);
        }
        if (p->n_access_log) {
                here = filter_path(b, ".access_log");
                c->logs = access_logs_build(b->server, p->access_log, p->n_access_log, &here, b->diags);
        }
        config_mem_built(&c->mem);
        if (b->diags->errors == before)
                return c;
        /* What the slot's list names must not outlive the slot. */
        if (c->rds && b->nneeds && b->needs[b->nneeds - 1] == c->rds)
                b->nneeds--;
        hcm_config_free(c);
        return NULL;
}
