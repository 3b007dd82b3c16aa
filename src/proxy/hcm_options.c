/* See hcm_options.h. */
#include "proxy/hcm_options.h"

#include "envoy/core.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "proxy/ext.h"

void hcm_common_options(struct http_opts *o, const struct Xds__HttpProtocolOptions *p)
{
        if (p->max_headers_count)
                o->max_headers = p->max_headers_count->value;
}

static void refuse(const struct diag_at *at, struct diags *d, struct arena *a, bool present, const char *field)
{
        struct diag_at here;

        if (!present)
                return;
        here = at_path(a, at, ".%s", field);
        diag_add(d, DIAG_ERROR, NULL, &here, "%s is not supported", field);
}

void hcm_h1_options(struct http_opts *o, const struct Xds__Http1ProtocolOptions *p, const struct diag_at *at, struct diags *d,
                    struct arena *a)
{
        o->absolute_url = !p->allow_absolute_url || p->allow_absolute_url->value;
        o->accept_http_10 = p->accept_http_10;
        o->custom_methods = p->allow_custom_methods;
        if (p->header_key_format) {
                refuse(at, d, a,
                       p->header_key_format->header_format_case ==
                               XDS__HTTP1_PROTOCOL_OPTIONS__HEADER_KEY_FORMAT__HEADER_FORMAT_STATEFUL_FORMATTER,
                       "header_key_format.stateful_formatter");
                o->keep_header_case = p->header_key_format->header_format_case ==
                                      XDS__HTTP1_PROTOCOL_OPTIONS__HEADER_KEY_FORMAT__HEADER_FORMAT_PROPER_CASE_WORDS;
        }
        refuse(at, d, a, p->allow_chunked_length, "allow_chunked_length");
        refuse(at, d, a, p->default_host_for_http_10 && *p->default_host_for_http_10, "default_host_for_http_10");
        refuse(at, d, a, p->send_fully_qualified_url, "send_fully_qualified_url");
        refuse(at, d, a, p->n_ignore_http_11_upgrade, "ignore_http_11_upgrade");
        refuse(at, d, a, p->override_stream_error_on_invalid_http_message && p->override_stream_error_on_invalid_http_message->value,
               "override_stream_error_on_invalid_http_message");
}

void hcm_h2_options(struct http_opts *o, const struct Xds__Http2ProtocolOptions *p, const struct diag_at *at, struct diags *d,
                    struct arena *a)
{
        struct diag_at here;

        if (p->max_concurrent_streams) {
                o->h2_max_streams = p->max_concurrent_streams->value;
                if (!o->h2_max_streams || o->h2_max_streams > INT32_MAX) {
                        here = at_path(a, at, ".max_concurrent_streams");
                        diag_add(d, DIAG_ERROR, NULL, &here, "must be from 1 to 2147483647");
                }
        }
        if (p->initial_stream_window_size) {
                o->h2_initial_window = p->initial_stream_window_size->value;
                if (o->h2_initial_window < 65535 || o->h2_initial_window > INT32_MAX) {
                        here = at_path(a, at, ".initial_stream_window_size");
                        diag_add(d, DIAG_ERROR, NULL, &here, "must be from 65535 to 2147483647");
                }
        }
        if (p->initial_connection_window_size) {
                o->h2_conn_window = p->initial_connection_window_size->value;
                if (o->h2_conn_window < 65535 || o->h2_conn_window > INT32_MAX) {
                        here = at_path(a, at, ".initial_connection_window_size");
                        diag_add(d, DIAG_ERROR, NULL, &here, "must be from 65535 to 2147483647");
                }
        }
        o->h2_connect_protocol = p->allow_connect;
        refuse(at, d, a, p->allow_metadata, "allow_metadata");
        refuse(at, d, a, p->n_custom_settings_parameters, "custom_settings_parameters");
        refuse(at, d, a, p->connection_keepalive != NULL, "connection_keepalive");
        refuse(at, d, a, p->override_stream_error_on_invalid_http_message && p->override_stream_error_on_invalid_http_message->value,
               "override_stream_error_on_invalid_http_message");
        if (p->max_outbound_frames || p->max_outbound_control_frames || p->max_consecutive_inbound_frames_with_empty_payload ||
            p->max_inbound_priority_frames_per_stream || p->max_inbound_window_update_frames_per_data_frame_sent || p->hpack_table_size)
                diag_add(d, DIAG_WARNING, NULL, at, "the HTTP/2 flood limits and hpack_table_size are fixed: the values given are ignored");
}
