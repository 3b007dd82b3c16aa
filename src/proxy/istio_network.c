/* Istio's network filters, as far as a mesh without certificates needs them. metadata_exchange talks only where ALPN chose
 * istio-peer-exchange, which takes mutual TLS: on a clear connection it has nothing to do, in Istio as here. stats counts TCP sessions as
 * istio_tcp_*. */
#include "base/mem.h"
#include "proxy/cluster.h"
#include "proxy/ext.h"
#include "proxy/network_filter.h"
#include "proxy/server.h"
#include "proxy/worker.h"

#include "envoy/core.pb-c.h"
#include "envoy/istio_stats.pb-c.h"
#include "google/any.pb-c.h"
#include "google/struct.pb-c.h"

#include <stdlib.h>

static void *exchange_build(struct filter_build *b, const ProtobufCMessage *m)
{
        return (void *)m;
}

const struct network_filter network_filter_metadata_exchange = {
        .name = "istio.metadata_exchange",
        .type = "envoy.tcp.metadataexchange.config.MetadataExchange",
        .build = exchange_build,
};

/* The labels of Istio's standard TCP metrics. */
enum {
        L_REPORTER,
        L_SOURCE_WORKLOAD,
        L_SOURCE_CANONICAL_SERVICE,
        L_SOURCE_CANONICAL_REVISION,
        L_SOURCE_WORKLOAD_NAMESPACE,
        L_SOURCE_PRINCIPAL,
        L_SOURCE_APP,
        L_SOURCE_VERSION,
        L_SOURCE_CLUSTER,
        L_DESTINATION_WORKLOAD,
        L_DESTINATION_WORKLOAD_NAMESPACE,
        L_DESTINATION_PRINCIPAL,
        L_DESTINATION_APP,
        L_DESTINATION_VERSION,
        L_DESTINATION_SERVICE,
        L_DESTINATION_CANONICAL_SERVICE,
        L_DESTINATION_CANONICAL_REVISION,
        L_DESTINATION_SERVICE_NAME,
        L_DESTINATION_SERVICE_NAMESPACE,
        L_DESTINATION_CLUSTER,
        L_REQUEST_PROTOCOL,
        L_RESPONSE_FLAGS,
        L_CONNECTION_SECURITY_POLICY,
        L_COUNT
};

static const char *const labels[L_COUNT] = {
        "reporter",
        "source_workload",
        "source_canonical_service",
        "source_canonical_revision",
        "source_workload_namespace",
        "source_principal",
        "source_app",
        "source_version",
        "source_cluster",
        "destination_workload",
        "destination_workload_namespace",
        "destination_principal",
        "destination_app",
        "destination_version",
        "destination_service",
        "destination_canonical_service",
        "destination_canonical_revision",
        "destination_service_name",
        "destination_service_namespace",
        "destination_cluster",
        "request_protocol",
        "response_flags",
        "connection_security_policy",
};

static const struct stat_family tcp_opened = { "istio_tcp_connections_opened_total", STAT_COUNTER, labels, L_COUNT };
static const struct stat_family tcp_closed = { "istio_tcp_connections_closed_total", STAT_COUNTER, labels, L_COUNT };
static const struct stat_family tcp_sent = { "istio_tcp_sent_bytes_total", STAT_COUNTER, labels, L_COUNT };
static const struct stat_family tcp_received = { "istio_tcp_received_bytes_total", STAT_COUNTER, labels, L_COUNT };

struct stats_config {
        struct server *server;
        bool client; /* an outbound listener: this workload is the source */
};

static void *stats_build(struct filter_build *b, const ProtobufCMessage *m)
{
        const XdsIstioStats__PluginConfig *p = (const XdsIstioStats__PluginConfig *)m;
        struct stats_config *c;

        if (p->n_metrics || p->n_definitions) {
                struct diag_at at = filter_path(b, p->n_metrics ? ".metrics" : ".definitions");

                diag_add(b->diags, DIAG_ERROR, NULL, &at, "is not supported: the standard metrics cannot be changed");
                return NULL;
        }
        c = arena_zalloc(b->arena, sizeof(*c));
        c->server = b->server;
        return c;
}

static struct str or_unknown(struct str s)
{
        return s.n ? s : STR("unknown");
}

static void workload(const struct server *s, struct str *v, bool source)
{
        struct str app = server_node_meta(s, "LABELS.app"), version = server_node_meta(s, "LABELS.version");
        /* Keys with dots in them: looked up in the labels' struct itself. */
        const Gp__Value *labels_value = s->node && s->node->metadata ? struct_value(s->node->metadata, STR("LABELS")) : NULL;
        const Gp__Struct *l = labels_value && labels_value->kind_case == GP__VALUE__KIND_STRUCT_VALUE ? labels_value->struct_value : NULL;
        struct str name = struct_str(l, "service.istio.io/canonical-name"), revision = struct_str(l, "service.istio.io/canonical-revision");
        struct str wl = server_node_meta(s, "WORKLOAD_NAME"), ns = server_node_meta(s, "NAMESPACE"),
                   cluster = server_node_meta(s, "CLUSTER_ID");

        v[source ? L_SOURCE_WORKLOAD : L_DESTINATION_WORKLOAD] = or_unknown(wl);
        v[source ? L_SOURCE_WORKLOAD_NAMESPACE : L_DESTINATION_WORKLOAD_NAMESPACE] = or_unknown(ns);
        v[source ? L_SOURCE_APP : L_DESTINATION_APP] = or_unknown(app);
        v[source ? L_SOURCE_VERSION : L_DESTINATION_VERSION] = or_unknown(version);
        v[source ? L_SOURCE_CANONICAL_SERVICE : L_DESTINATION_CANONICAL_SERVICE] = or_unknown(name.n ? name : app.n ? app : wl);
        v[source ? L_SOURCE_CANONICAL_REVISION : L_DESTINATION_CANONICAL_REVISION] = revision.n  ? revision
                                                                                     : version.n ? version
                                                                                                 : STR("latest");
        v[source ? L_SOURCE_CLUSTER : L_DESTINATION_CLUSTER] = or_unknown(cluster);
}

/* What the cluster's Istio metadata says of the service (filter_metadata.istio.services[0]). */
static void service(const struct cluster_info *c, struct str *v)
{
        const Gp__Value *list = c ? struct_value(metadata_struct(c->metadata, "istio"), STR("services")) : NULL;

        if (list && list->kind_case == GP__VALUE__KIND_LIST_VALUE && list->list_value->n_values &&
            list->list_value->values[0]->kind_case == GP__VALUE__KIND_STRUCT_VALUE) {
                const Gp__Struct *s = list->list_value->values[0]->struct_value;

                v[L_DESTINATION_SERVICE] = or_unknown(struct_str(s, "host"));
                v[L_DESTINATION_SERVICE_NAME] = or_unknown(struct_str(s, "name"));
                v[L_DESTINATION_SERVICE_NAMESPACE] = or_unknown(struct_str(s, "namespace"));
        } else if (c) {
                v[L_DESTINATION_SERVICE_NAME] = c->name;
        }
}

static void stats_done(void *config, struct downstream *d)
{
        struct stats_config *c = config;
        struct stats_local *l = d->worker->stats;
        struct str v[L_COUNT];
        struct buf flags = BUF_INIT;

        for (unsigned i = 0; i < L_COUNT; i++)
                v[i] = STR("unknown");
        v[L_REPORTER] = d->info.inbound ? STR("destination") : STR("source");
        workload(c->server, v, !d->info.inbound);
        service(d->stream.cluster, v);
        v[L_REQUEST_PROTOCOL] = STR("tcp");
        v[L_CONNECTION_SECURITY_POLICY] = d->info.inbound ? STR("none") : STR("unknown");
        for (unsigned i = 0; i < RF_COUNT; i++)
                if (d->stream.flags & (1u << i))
                        buf_printf(&flags, "%s%s", flags.n ? "," : "", response_flag_short[i]);
        v[L_RESPONSE_FLAGS] = flags.n ? buf_view(&flags) : STR("-");
        stat_inc(l, stats_series(l, &tcp_opened, v));
        stat_inc(l, stats_series(l, &tcp_closed, v));
        stat_add(l, stats_series(l, &tcp_sent, v), d->stream.bytes_sent);
        stat_add(l, stats_series(l, &tcp_received, v), d->stream.bytes_received);
        buf_fini(&flags);
}

const struct network_filter network_filter_istio_stats = {
        .name = "istio.stats",
        .type = "stats.PluginConfig",
        .build = stats_build,
        .on_done = stats_done,
};
