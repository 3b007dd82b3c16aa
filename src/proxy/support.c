/* The table, and a walk over the descriptors. */
#include "proxy/support.h"

#include "base/mem.h"
#include "proxy/ext.h"

#include "envoy/bootstrap.pb-c.h"
#include "envoy/cluster.pb-c.h"
#include "envoy/core.pb-c.h"
#include "envoy/endpoint.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "envoy/tcp_proxy.pb-c.h"

struct row {
        const ProtobufCMessageDescriptor *type;
        const char *honoured; /* field names between spaces, with one in front and behind */
        const char *harmless;
};

static const struct row rows[] = {
        { &xds__listener__descriptor,
          " name address filter_chains use_original_dst per_connection_buffer_limit_bytes metadata drain_type listener_filters transparent "
          "freebind listener_filters_timeout traffic_direction continue_on_listener_filters_timeout access_log tcp_backlog_size "
          "default_filter_chain bind_to_port stat_prefix enable_reuse_port reuse_port additional_addresses "
          "max_connections_to_accept_per_socket_event ignore_global_conn_limit ",
          " tcp_fast_open_queue_length connection_balance_config bypass_overload_manager enable_mptcp " },
        { &xds__additional_address__descriptor, " address ", "" },
        { &xds__filter_chain__descriptor, " filter_chain_match filters metadata transport_socket name transport_socket_connect_timeout ",
          "" },
        { &xds__filter_chain_match__descriptor,
          " prefix_ranges source_prefix_ranges source_ports destination_port transport_protocol application_protocols server_names "
          "source_type "
          "direct_source_prefix_ranges ",
          "" },
        { &xds__filter__descriptor, " name typed_config ", "" },
        { &xds__listener_filter__descriptor, " name typed_config filter_disabled ", "" },
        { &xds__cluster__descriptor,
          " name type cluster_type eds_cluster_config connect_timeout per_connection_buffer_limit_bytes lb_policy "
          "max_requests_per_connection "
          "circuit_breakers http_protocol_options http2_protocol_options dns_refresh_rate dns_lookup_family cleanup_interval "
          "upstream_bind_config original_dst_lb_config least_request_lb_config round_robin_lb_config transport_socket metadata "
          "common_lb_config alt_stat_name common_http_protocol_options upstream_connection_options load_assignment "
          "typed_extension_protocol_options respect_dns_ttl filters load_balancing_policy transport_socket_matches "
          "dns_failure_refresh_rate use_tcp_for_dns_lookups wait_for_warm_on_init typed_dns_resolver_config dns_jitter protocol_selection ",
          " track_timeout_budgets track_cluster_stats preconnect_policy close_connections_on_host_health_failure "
          "ignore_health_on_host_removal lrs_server lrs_report_endpoint_metrics " },
        { &xds__cluster__eds_cluster_config__descriptor, " eds_config service_name ", "" },
        { &xds__cluster__common_lb_config__descriptor, " healthy_panic_threshold zone_aware_lb_config locality_weighted_lb_config ",
          " update_merge_window ignore_new_hosts_until_first_hc consistent_hashing_lb_config " },
        { &xds__cluster__least_request_lb_config__descriptor, " choice_count active_request_bias ", "" },
        { &xds__cluster__round_robin_lb_config__descriptor, " ", "" },
        { &xds__cluster__original_dst_lb_config__descriptor, " use_http_header http_header_name upstream_port_override ", "" },
        { &xds__circuit_breakers__descriptor, " thresholds ", "" },
        { &xds__upstream_connection_options__descriptor, " tcp_keepalive ", " happy_eyeballs_config " },
        { &xds__bind_config__descriptor, " source_address ", " freebind " },
        { &xds__cluster_load_assignment__descriptor, " cluster_name endpoints policy ", "" },
        { &xds__cluster_load_assignment__policy__descriptor, " overprovisioning_factor ", " endpoint_stale_after " },
        { &xds__locality_lb_endpoints__descriptor, " locality lb_endpoints load_balancing_weight priority metadata ", " proximity " },
        { &xds__lb_endpoint__descriptor, " endpoint health_status metadata load_balancing_weight ", "" },
        { &xds__endpoint__descriptor, " address hostname health_check_config ", " additional_addresses " },
        { &xds__tcp_proxy__descriptor,
          " stat_prefix cluster weighted_clusters idle_timeout access_log max_connect_attempts max_downstream_connection_duration "
          "access_log_flush_interval flush_access_log_on_connected access_log_options "
          "max_downstream_connection_duration_jitter_percentage ",
          " hash_policy backoff_options " },
        { &xds__tcp_proxy__weighted_cluster__cluster_weight__descriptor, " name weight ", "" },
        { &xds__bootstrap__descriptor,
          " node static_resources dynamic_resources admin cluster_manager stats_config stats_flush_interval node_context_params "
          "default_config_source default_socket_interface layered_runtime ",
          " overload_manager stats_sinks watchdog watchdogs header_prefix stats_server_version_override use_tcp_for_dns_lookups "
          "bootstrap_extensions enable_dispatcher_stats hds_config flags_path tracing typed_dns_resolver_config dns_resolution_config "
          "application_log_config deferred_stat_options grpc_async_client_manager_config stats_flush_on_admin inline_headers "
          "perf_tracing_file_path "
          "default_regex_engine xds_delegate_extension xds_config_tracker_extension listener_manager memory_allocator_manager " },
};

static const struct row *row_of(const ProtobufCMessageDescriptor *t)
{
        for (size_t i = 0; i < ARRAY_LEN(rows); i++)
                if (rows[i].type == t)
                        return &rows[i];
        return NULL;
}

static bool listed(const char *list, const char *name)
{
        size_t n = strlen(name);

        for (const char *p = strstr(list, name); p; p = strstr(p + 1, name))
                if (p > list && p[-1] == ' ' && p[n] == ' ')
                        return true;
        return false;
}

/* Set to something other than what absence means. A scalar at its default asks for nothing. */
static bool is_set(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        const char *p = (const char *)m + f->offset, *q = (const char *)m + f->quantifier_offset;

        if (f->label == PROTOBUF_C_LABEL_REPEATED)
                return *(const size_t *)q != 0;
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
                if (*(const uint32_t *)q != f->id)
                        return false;
                return f->type == PROTOBUF_C_TYPE_MESSAGE ? *(void *const *)p != NULL : true;
        }
        switch (f->type) {
        case PROTOBUF_C_TYPE_MESSAGE:
                return *(void *const *)p != NULL;
        case PROTOBUF_C_TYPE_STRING:
                return *(char *const *)p && **(char *const *)p;
        case PROTOBUF_C_TYPE_BYTES:
                return ((const ProtobufCBinaryData *)p)->len != 0;
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_SINT64:
        case PROTOBUF_C_TYPE_SFIXED64:
        case PROTOBUF_C_TYPE_UINT64:
        case PROTOBUF_C_TYPE_FIXED64:
        case PROTOBUF_C_TYPE_DOUBLE:
                return *(const uint64_t *)p != 0;
        default:
                return *(const uint32_t *)p != 0;
        }
}

static bool child_check(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct diag_at *at, struct arena *a,
                        struct diags *d)
{
        const char *p = (const char *)m + f->offset;
        bool ok = true;

        if (f->type != PROTOBUF_C_TYPE_MESSAGE || !row_of(f->descriptor))
                return true;
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
                struct diag_at sub = at_path(a, at, ".%s", f->name);

                return support_check(*(ProtobufCMessage *const *)p, &sub, a, d);
        }
        ProtobufCMessage *const *v = *(ProtobufCMessage *const *const *)p;
        size_t n = *(const size_t *)((const char *)m + f->quantifier_offset);

        for (size_t i = 0; i < n; i++) {
                struct diag_at sub = at_path(a, at, ".%s[%zu]", f->name, i);

                ok = support_check(v[i], &sub, a, d) && ok;
        }
        return ok;
}

bool support_check(const ProtobufCMessage *m, const struct diag_at *at, struct arena *a, struct diags *d)
{
        const struct row *row = row_of(m->descriptor);
        bool ok = true;

        if (!row)
                return true;
        for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
                const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];

                if (!is_set(m, f))
                        continue;
                if (listed(row->honoured, f->name)) {
                        ok = child_check(m, f, at, a, d) && ok;
                        continue;
                }
                struct diag_at sub = at_path(a, at, ".%s", f->name);

                if (listed(row->harmless, f->name)) {
                        diag_add(d, DIAG_WARNING, NULL, &sub, "is not supported and has no effect");
                        continue;
                }
                diag_add(d, DIAG_ERROR, NULL, &sub, "is not supported");
                ok = false;
        }
        return ok;
}
