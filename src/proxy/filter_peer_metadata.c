/* Istio's metadata exchange over HTTP headers (io.istio.http.peer_metadata.Config).
 *
 * Towards the upstream a proxy says who it is; from the downstream it learns who calls, and answers in kind. What was learnt is taken out
 * of the message, so that applications do not see it. Discovery by workload or baggage has no source here: with istio_headers beside it, as
 * Istio configures it, nothing is lost. */
#include "envoy/core.pb-c.h"
#include "envoy/istio_peer_metadata.pb-c.h"
#include "google/struct.pb-c.h"
#include "proxy/ext.h"
#include "proxy/hcm.h"
#include "proxy/peer_info.h"

struct exchange {
        bool downstream_discovery, upstream_discovery, downstream_propagation, upstream_propagation;
        bool skip_external_downstream, skip_external_upstream;
        struct str id, value;
};

struct exchange_state {
        bool got_id, got_metadata;
};

static bool has_headers(struct XdsPeer__Config__DiscoveryMethod *const *v, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (v[i]->method_specifier_case == XDS_PEER__CONFIG__DISCOVERY_METHOD__METHOD_SPECIFIER_ISTIO_HEADERS)
                        return true;
        return false;
}

static bool propagates(struct XdsPeer__Config__PropagationMethod *const *v, size_t n, bool *skip)
{
        for (size_t i = 0; i < n; i++)
                if (v[i]->method_specifier_case == XDS_PEER__CONFIG__PROPAGATION_METHOD__METHOD_SPECIFIER_ISTIO_HEADERS) {
                        *skip = v[i]->istio_headers->skip_external_clusters;
                        return true;
                }
        return false;
}

static void *exchange_build(struct server *s, struct config_mem *m, const ProtobufCMessage *config, const struct diag_at *at,
                            struct diags *d)
{
        const struct XdsPeer__Config *p = (const struct XdsPeer__Config *)config;
        struct exchange *x = ARENA_NEW(&m->arena, struct exchange);

        x->downstream_discovery = has_headers(p->downstream_discovery, p->n_downstream_discovery);
        x->upstream_discovery = has_headers(p->upstream_discovery, p->n_upstream_discovery);
        x->downstream_propagation = propagates(p->downstream_propagation, p->n_downstream_propagation, &x->skip_external_downstream);
        x->upstream_propagation = propagates(p->upstream_propagation, p->n_upstream_propagation, &x->skip_external_upstream);
        x->id = arena_str(&m->arena, str_of(s->node ? s->node->id : NULL));
        x->value = peer_metadata_encode(s, &m->arena);
        if (p->n_additional_labels)
                diag_add(d, DIAG_INFO, NULL, at, "additional_labels: all labels of the node are exchanged");
        return x;
}

/* A cluster outside of the mesh, by what Istio writes on it. */
static bool external(struct hcm_stream *s)
{
        const struct cluster *c = s->cluster;
        const struct Gp__Struct *istio;
        const struct Gp__Value *v;

        if (!c)
                return false;
        if (str_eqc(c->info->name, "PassthroughCluster"))
                return true;
        istio = metadata_struct(c->info->metadata, "istio");
        v = istio ? struct_value(istio, STR("external")) : NULL;
        return v && v->kind_case == GP__VALUE__KIND_BOOL_VALUE && v->bool_value;
}

/* Decoding is left to whoever wants to know (filter_istio_stats.c). */
static struct str learn(struct http_head *m, bool *got_id, bool *got_metadata)
{
        struct http_hdr *id = http_get(m, HN_X_ENVOY_PEER_METADATA_ID), *v = http_get(m, HN_X_ENVOY_PEER_METADATA);
        struct str p = v ? v->value : str_make("", 0);

        *got_id = id != NULL;
        *got_metadata = v != NULL;
        if (id)
                http_remove(m, HN_X_ENVOY_PEER_METADATA_ID);
        if (v)
                http_remove(m, HN_X_ENVOY_PEER_METADATA);
        return p;
}

static enum filter_step on_request(const void *config, struct hcm_stream *s, void *state)
{
        const struct exchange *x = config;
        struct exchange_state *st = state;

        if (x->downstream_discovery)
                s->downstream_peer = learn(s->req, &st->got_id, &st->got_metadata);
        if (x->upstream_propagation && !(x->skip_external_upstream && external(s))) {
                if (x->id.n)
                        http_set(s->req, HN_X_ENVOY_PEER_METADATA_ID, x->id);
                if (x->value.n)
                        http_set(s->req, HN_X_ENVOY_PEER_METADATA, x->value);
        }
        return FILTER_CONTINUE;
}

static void on_response(const void *config, struct hcm_stream *s, void *state, struct http_head *resp)
{
        const struct exchange *x = config;
        struct exchange_state *st = state;
        bool id, metadata;

        if (x->upstream_discovery)
                s->upstream_peer = learn(resp, &id, &metadata);
        if (!x->downstream_propagation || (x->skip_external_downstream && external(s)))
                return;
        if (st->got_id && x->id.n)
                http_set(resp, HN_X_ENVOY_PEER_METADATA_ID, x->id);
        if (st->got_metadata && x->value.n)
                http_set(resp, HN_X_ENVOY_PEER_METADATA, x->value);
}

const struct http_filter http_filter_peer_metadata = {
        .type = "io.istio.http.peer_metadata.Config",
        .state_bytes = sizeof(struct exchange_state),
        .build = exchange_build,
        .on_request = on_request,
        .on_response = on_response,
};
