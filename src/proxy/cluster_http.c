/* envoy.extensions.upstreams.http.v3.HttpProtocolOptions -> struct cluster_http. */
#include "base/mem.h"
#include "envoy/core.pb-c.h"
#include "envoy/http_protocol_options.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "proxy/config_mem.h"
#include "proxy/ext.h"
#include "proxy/hcm_options.h"
#include "proxy/http_pool.h"

#include <stdlib.h>

enum { UPSTREAM_IDLE_MS = 3600000 };

static const struct cluster_http plain = { .protocol = CLUSTER_HTTP1, .idle_ms = UPSTREAM_IDLE_MS };

const struct cluster_http *cluster_http_of(const struct cluster_info *c)
{
        return c->http_options ? c->http_options : &plain;
}

static void common_build(struct cluster_http *h, const struct Xds__HttpProtocolOptions *p, struct arena *a, const struct diag_at *at,
                         struct diags *d)
{
        struct diag_at here = at_path(a, at, ".common_http_protocol_options");
        struct diag_at idle = at_path(a, &here, ".idle_timeout");

        h->idle_ms = duration_ms(p->idle_timeout, UPSTREAM_IDLE_MS, &idle, d);
        h->max_connection_ms = duration_ms(p->max_connection_duration, 0, &here, d);
        h->max_stream_ms = duration_ms(p->max_stream_duration, 0, &here, d);
        h->max_requests = p->max_requests_per_connection ? p->max_requests_per_connection->value : 0;
        hcm_common_options(&h->h1, p);
        hcm_common_options(&h->h2, p);
        if (p->max_response_headers_kb)
                h->h1.max_head_bytes = h->h2.max_head_bytes = (size_t)p->max_response_headers_kb->value * 1024;
        if (p->headers_with_underscores_action)
                diag_add(d, DIAG_WARNING, NULL, &here, "headers_with_underscores_action is for downstream connections: ignored");
}

static void *cluster_http_build(const struct cluster_info *c, const struct diag_at *at, struct diags *d)
{
        const struct XdsUp__HttpProtocolOptions *p = c->http;
        const struct Xds__Http1ProtocolOptions *h1 = NULL;
        const struct Xds__Http2ProtocolOptions *h2 = NULL;
        struct cluster_http *h = MEM_NEW(struct cluster_http);
        size_t before = d->errors;
        struct arena a;
        struct diag_at here;

        *h = plain;
        h->h1.high_mark = h->h2.high_mark = c->buffer_limit_bytes;
        h->h1.low_mark = h->h2.low_mark = c->buffer_limit_bytes / 2;
        if (!p)
                return h;
        arena_init(&a, 0);
        if (p->common_http_protocol_options)
                common_build(h, p->common_http_protocol_options, &a, at, d);
        switch (p->upstream_protocol_options_case) {
        case XDS_UP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_EXPLICIT_HTTP_CONFIG:
                if (p->explicit_http_config->protocol_config_case ==
                    XDS_UP__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP2_PROTOCOL_OPTIONS) {
                        h->protocol = CLUSTER_HTTP2;
                        h2 = p->explicit_http_config->http2_protocol_options;
                } else if (p->explicit_http_config->protocol_config_case ==
                           XDS_UP__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP_PROTOCOL_OPTIONS) {
                        h1 = p->explicit_http_config->http_protocol_options;
                }
                break;
        case XDS_UP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_USE_DOWNSTREAM_PROTOCOL_CONFIG:
                h->protocol = CLUSTER_HTTP_DOWNSTREAM;
                h1 = p->use_downstream_protocol_config->http_protocol_options;
                h2 = p->use_downstream_protocol_config->http2_protocol_options;
                break;
        case XDS_UP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_AUTO_CONFIG:
                here = at_path(&a, at, ".auto_config");
                diag_add(d, DIAG_ERROR, NULL, &here,
                         "auto_config chooses by ALPN, which needs TLS to the upstream: use explicit_http_config or "
                         "use_downstream_protocol_config");
                break;
        default:
                here = at_path(&a, at, ".upstream_protocol_options");
                diag_add(d, DIAG_ERROR, NULL, &here, "give one of explicit_http_config and use_downstream_protocol_config");
        }
        if (h1) {
                here = at_path(&a, at, ".http_protocol_options");
                hcm_h1_options(&h->h1, h1, &here, d, &a);
                h->h1_trailers = h1->enable_trailers;
        }
        if (h2) {
                here = at_path(&a, at, ".http2_protocol_options");
                hcm_h2_options(&h->h2, h2, &here, d, &a);
                h->h2_max_streams = h2->max_concurrent_streams ? h2->max_concurrent_streams->value : 0;
        }
        h->h2.h2_connect_protocol = true;
        for (size_t i = 0; i < p->n_http_filters; i++) {
                here = at_path(&a, at, ".http_filters[%zu]", i);
                if (!p->http_filters[i]->name || strcmp(p->http_filters[i]->name, "envoy.filters.http.upstream_codec") != 0)
                        diag_add(d, DIAG_ERROR, NULL, &here, "upstream HTTP filter \"%s\" is not supported",
                                 p->http_filters[i]->name ? p->http_filters[i]->name : "");
        }
        if (p->header_validation_config || p->outlier_detection || p->n_request_mirror_policies || p->retry_policy)
                diag_add(d, DIAG_ERROR, NULL, at,
                         "header_validation_config, outlier_detection, request_mirror_policies and retry_policy are not supported here");
        arena_fini(&a);
        if (d->errors == before)
                return h;
        free(h);
        return NULL;
}

static void cluster_http_free(void *p)
{
        free(p);
}

const struct cluster_http_hooks cluster_http_hooks = { .build = cluster_http_build, .free = cluster_http_free };
