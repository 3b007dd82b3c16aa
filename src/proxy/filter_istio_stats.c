/* Istio's standard metrics for HTTP: istio_requests_total, istio_request_duration_milliseconds, istio_request_bytes, istio_response_bytes
 * and, for gRPC, istio_request_messages_total and istio_response_messages_total, with Istio's labels. Written when a request is over. */
#include "proxy/hcm.h"

#include "base/mem.h"
#include "envoy/core.pb-c.h"
#include "envoy/istio_stats.pb-c.h"
#include "google/struct.pb-c.h"
#include "proxy/ext.h"
#include "proxy/peer_info.h"

#define LABELS(X)                                                           \
        X(REPORTER, "reporter")                                             \
        X(SOURCE_WORKLOAD, "source_workload")                               \
        X(SOURCE_CANONICAL_SERVICE, "source_canonical_service")             \
        X(SOURCE_CANONICAL_REVISION, "source_canonical_revision")           \
        X(SOURCE_WORKLOAD_NAMESPACE, "source_workload_namespace")           \
        X(SOURCE_PRINCIPAL, "source_principal")                             \
        X(SOURCE_APP, "source_app")                                         \
        X(SOURCE_VERSION, "source_version")                                 \
        X(SOURCE_CLUSTER, "source_cluster")                                 \
        X(DESTINATION_WORKLOAD, "destination_workload")                     \
        X(DESTINATION_WORKLOAD_NAMESPACE, "destination_workload_namespace") \
        X(DESTINATION_PRINCIPAL, "destination_principal")                   \
        X(DESTINATION_APP, "destination_app")                               \
        X(DESTINATION_VERSION, "destination_version")                       \
        X(DESTINATION_SERVICE, "destination_service")                       \
        X(DESTINATION_CANONICAL_SERVICE, "destination_canonical_service")   \
        X(DESTINATION_CANONICAL_REVISION, "destination_canonical_revision") \
        X(DESTINATION_SERVICE_NAME, "destination_service_name")             \
        X(DESTINATION_SERVICE_NAMESPACE, "destination_service_namespace")   \
        X(DESTINATION_CLUSTER, "destination_cluster")                       \
        X(REQUEST_PROTOCOL, "request_protocol")                             \
        X(RESPONSE_CODE, "response_code")                                   \
        X(GRPC_RESPONSE_STATUS, "grpc_response_status")                     \
        X(RESPONSE_FLAGS, "response_flags")                                 \
        X(CONNECTION_SECURITY_POLICY, "connection_security_policy")

enum {
#define X(id, name) L_##id,
        LABELS(X)
#undef X
                L_COUNT
};

static const char *const label_names[L_COUNT] = {
#define X(id, name) name,
        LABELS(X)
#undef X
};

static const struct stat_family requests_total = { "istio_requests_total", STAT_COUNTER, label_names, L_COUNT };
static const struct stat_family request_duration = { "istio_request_duration_milliseconds", STAT_HISTOGRAM, label_names, L_COUNT };
static const struct stat_family request_bytes = { "istio_request_bytes", STAT_HISTOGRAM, label_names, L_COUNT };
static const struct stat_family response_bytes = { "istio_response_bytes", STAT_HISTOGRAM, label_names, L_COUNT };
static const struct stat_family request_messages = { "istio_request_messages_total", STAT_COUNTER, label_names, L_COUNT };
static const struct stat_family response_messages = { "istio_response_messages_total", STAT_COUNTER, label_names, L_COUNT };

struct istio_stats {
        const struct peer_info *self;
        bool gateway; /* reporter SERVER_GATEWAY */
        bool no_host_fallback;
        bool removed[L_COUNT]; /* tags_to_remove of every metric */
};

static void *istio_stats_build(struct server *s, struct config_mem *m, const ProtobufCMessage *config, const struct diag_at *at,
                               struct diags *d)
{
        const struct XdsIstioStats__PluginConfig *p = (const struct XdsIstioStats__PluginConfig *)config;
        struct istio_stats *c = ARENA_NEW(&m->arena, struct istio_stats);

        c->self = peer_info_self(s, &m->arena);
        c->gateway = p->reporter == XDS_ISTIO_STATS__REPORTER__SERVER_GATEWAY;
        c->no_host_fallback = p->disable_host_header_fallback;
        for (size_t i = 0; i < p->n_metrics; i++) {
                const struct XdsIstioStats__MetricConfig *q = p->metrics[i];
                struct diag_at here = at_path(&m->scratch, at, ".metrics[%zu]", i);

                if (q->n_dimensions || q->drop || (q->match && *q->match) || (q->name && *q->name)) {
                        diag_add(d, DIAG_ERROR, NULL, &here,
                                 "only tags_to_remove for all metrics is supported: no name, match, dimensions or drop");
                        return NULL;
                }
                for (size_t k = 0; k < q->n_tags_to_remove; k++)
                        for (size_t l = 0; l < L_COUNT; l++)
                                c->removed[l] |= strcmp(q->tags_to_remove[k], label_names[l]) == 0;
        }
        if (p->n_definitions) {
                struct diag_at here = at_path(&m->scratch, at, ".definitions");

                diag_add(d, DIAG_ERROR, NULL, &here, "definitions of new metrics are not supported");
                return NULL;
        }
        return c;
}

static struct str or_unknown(struct str s)
{
        return s.n ? s : STR("unknown");
}

static void peer_labels(struct str *v, const struct peer_info *p, bool source)
{
        static const struct peer_info nobody;

        if (!p)
                p = &nobody;
        v[source ? L_SOURCE_WORKLOAD : L_DESTINATION_WORKLOAD] = or_unknown(p->workload);
        v[source ? L_SOURCE_WORKLOAD_NAMESPACE : L_DESTINATION_WORKLOAD_NAMESPACE] = or_unknown(p->namespace);
        v[source ? L_SOURCE_CANONICAL_SERVICE : L_DESTINATION_CANONICAL_SERVICE] = or_unknown(p->canonical_name);
        v[source ? L_SOURCE_CANONICAL_REVISION : L_DESTINATION_CANONICAL_REVISION] = or_unknown(p->canonical_revision);
        v[source ? L_SOURCE_APP : L_DESTINATION_APP] = or_unknown(p->app);
        v[source ? L_SOURCE_VERSION : L_DESTINATION_VERSION] = or_unknown(p->version);
        v[source ? L_SOURCE_CLUSTER : L_DESTINATION_CLUSTER] = or_unknown(p->cluster);
}

/* metadata.filter_metadata["istio"].services[0] of the cluster; else its name or the request's host. */
static void service_labels(struct str *v, const struct istio_stats *c, struct hcm_stream *s)
{
        const struct cluster_info *info = s->si.cluster;
        const struct Gp__Struct *istio = info ? metadata_struct(info->metadata, "istio") : NULL;
        const struct Gp__Value *list = istio ? struct_value(istio, STR("services")) : NULL;

        v[L_DESTINATION_SERVICE] = v[L_DESTINATION_SERVICE_NAME] = v[L_DESTINATION_SERVICE_NAMESPACE] = STR("unknown");
        if (list && list->kind_case == GP__VALUE__KIND_LIST_VALUE && list->list_value->n_values &&
            list->list_value->values[0]->kind_case == GP__VALUE__KIND_STRUCT_VALUE) {
                const struct Gp__Struct *svc = list->list_value->values[0]->struct_value;

                v[L_DESTINATION_SERVICE] = or_unknown(struct_str(svc, "host"));
                v[L_DESTINATION_SERVICE_NAME] = or_unknown(struct_str(svc, "name"));
                v[L_DESTINATION_SERVICE_NAMESPACE] = or_unknown(struct_str(svc, "namespace"));
                return;
        }
        if (!c->no_host_fallback && s->req->authority.n)
                v[L_DESTINATION_SERVICE] = s->req->authority;
        if (info && (str_eqc(info->name, "PassthroughCluster") || str_eqc(info->name, "BlackHoleCluster") ||
                     str_eqc(info->name, "InboundPassthroughCluster")))
                v[L_DESTINATION_SERVICE_NAME] = info->name;
        else if (s->pick.route && str_eqc(s->si.route_name, "block_all"))
                v[L_DESTINATION_SERVICE_NAME] = STR("BlackHoleCluster");
        else if (s->pick.route && str_eqc(s->si.route_name, "allow_any"))
                v[L_DESTINATION_SERVICE_NAME] = STR("PassthroughCluster");
        else
                v[L_DESTINATION_SERVICE_NAME] = v[L_DESTINATION_SERVICE];
}

static struct str flags_text(struct hcm_stream *s)
{
        struct buf b = BUF_INIT;
        struct str v;

        if (!s->si.flags)
                return STR("-");
        for (unsigned i = 0; i < RF_COUNT; i++)
                if (s->si.flags & 1u << i) {
                        if (b.n)
                                buf_char(&b, ',');
                        buf_cstr(&b, response_flag_short[i]);
                }
        v = arena_str(s->arena, buf_view(&b));
        buf_fini(&b);
        return v;
}

static struct str grpc_status(struct hcm_stream *s)
{
        struct http_hdr *h = s->si.response_trailers ? http_get(s->si.response_trailers, HN_GRPC_STATUS) : NULL;

        if (!h && s->resp)
                h = http_get(s->resp, HN_GRPC_STATUS);
        return s->grpc ? (h ? h->value : STR("2")) : str_make("", 0);
}

static void on_log(const void *config, struct hcm_stream *s, void *state)
{
        const struct istio_stats *c = config;
        bool outbound = s->hc->d->info.outbound && !c->gateway;
        struct stats_local *st = s->worker->stats;
        const struct peer_info *peer;
        struct str v[L_COUNT];

        peer = hcm_peer_info(s, outbound ? s->upstream_peer : s->downstream_peer);
        v[L_REPORTER] = outbound ? STR("source") : c->gateway ? STR("gateway") : STR("destination");
        peer_labels(v, outbound ? c->self : peer, true);
        peer_labels(v, outbound ? peer : c->self, false);
        service_labels(v, c, s);
        v[L_SOURCE_PRINCIPAL] = v[L_DESTINATION_PRINCIPAL] = STR("unknown");
        v[L_REQUEST_PROTOCOL] = s->grpc ? STR("grpc") : STR("http");
        v[L_RESPONSE_CODE] = arena_printf(s->arena, "%d", s->si.response_code);
        v[L_GRPC_RESPONSE_STATUS] = grpc_status(s);
        v[L_RESPONSE_FLAGS] = flags_text(s);
        v[L_CONNECTION_SECURITY_POLICY] = outbound ? STR("unknown") : s->hc->d->info.tls ? STR("mutual_tls") : STR("none");
        for (size_t i = 0; i < L_COUNT; i++)
                if (c->removed[i])
                        v[i] = str_make("", 0);
        stat_inc(st, stats_series(st, &requests_total, v));
        stat_record(st, stats_series(st, &request_duration, v), stream_us(&s->si, ST_START, ST_END) / 1000);
        stat_record(st, stats_series(st, &request_bytes, v), s->si.bytes_received);
        stat_record(st, stats_series(st, &response_bytes, v), s->si.bytes_sent);
        if (s->grpc) {
                stat_add(st, stats_series(st, &request_messages, v), s->grpc_request_messages);
                stat_add(st, stats_series(st, &response_messages, v), s->grpc_response_messages);
        }
}

const struct http_filter http_filter_istio_stats = {
        .type = "stats.PluginConfig",
        .build = istio_stats_build,
        .on_log = on_log,
};
