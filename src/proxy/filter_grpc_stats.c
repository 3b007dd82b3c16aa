/* gRPC statistics: how many messages went each way in a call. The counts are kept for Istio's statistics (istio_request_messages_total,
 * istio_response_messages_total) and, with emit_filter_state, for %FILTER_STATE(envoy.filters.http.grpc_stats)%. */
#include "envoy/filter_grpc_stats.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "proxy/ext.h"
#include "proxy/hcm.h"

struct grpc_stats {
        bool emit_filter_state;
};

/* Length-prefixed messages (gRPC over HTTP/2): one byte of flags, four of length. */
struct frame_count {
        uint64_t messages;
        uint32_t left;   /* bytes of the current message still to come */
        unsigned prefix; /* bytes of the prefix seen */
        uint32_t length;
};

struct grpc_stats_state {
        struct frame_count request, response;
        struct stream_kv kv;
};

static void *grpc_stats_build(struct server *s, struct config_mem *m, const ProtobufCMessage *config, const struct diag_at *at,
                              struct diags *d)
{
        const struct XdsGrpcStats__FilterConfig *p = (const struct XdsGrpcStats__FilterConfig *)config;
        struct grpc_stats *g = ARENA_NEW(&m->arena, struct grpc_stats);
        bool all = p->per_method_stat_specifier_case == XDS_GRPC_STATS__FILTER_CONFIG__PER_METHOD_STAT_SPECIFIER_STATS_FOR_ALL_METHODS &&
                   p->stats_for_all_methods->value;

        g->emit_filter_state = p->emit_filter_state;
        if (all ||
            p->per_method_stat_specifier_case ==
                    XDS_GRPC_STATS__FILTER_CONFIG__PER_METHOD_STAT_SPECIFIER_INDIVIDUAL_METHOD_STATS_ALLOWLIST ||
            p->enable_upstream_stats)
                diag_add(d, DIAG_WARNING, NULL, at,
                         "statistics by gRPC method are not kept: only message counts for filter state and Istio's metrics");
        return g;
}

static void count_bytes(struct frame_count *f, const unsigned char *p, size_t len)
{
        while (len) {
                size_t k;

                if (f->left) {
                        k = len < f->left ? len : f->left;
                        f->left -= (uint32_t)k;
                        p += k;
                        len -= k;
                        continue;
                }
                if (f->prefix)
                        f->length = f->length << 8 | *p;
                p++;
                len--;
                if (++f->prefix == 5) {
                        f->messages++;
                        f->left = f->length;
                        f->prefix = 0;
                        f->length = 0;
                }
        }
}

static void count(struct frame_count *f, const struct chain *data)
{
        struct chain view = CHAIN_INIT;

        if (!data->n)
                return;
        chain_share(&view, data, 0);
        while (view.n) {
                struct str s = chain_front(&view);

                count_bytes(f, (const unsigned char *)s.p, s.n);
                chain_drop(&view, s.n);
        }
}

static void on_request_data(const void *config, struct hcm_stream *s, void *state, const struct chain *data, bool end)
{
        struct grpc_stats_state *st = state;

        if (s->grpc)
                count(&st->request, data);
}

static void on_response_data(const void *config, struct hcm_stream *s, void *state, const struct chain *data, bool end)
{
        struct grpc_stats_state *st = state;

        if (s->grpc)
                count(&st->response, data);
}

static void on_log(const void *config, struct hcm_stream *s, void *state)
{
        const struct grpc_stats *g = config;
        struct grpc_stats_state *st = state;

        if (!s->grpc)
                return;
        s->grpc_request_messages = st->request.messages;
        s->grpc_response_messages = st->response.messages;
        if (!g->emit_filter_state)
                return;
        st->kv.name = STR("envoy.filters.http.grpc_stats");
        st->kv.text = arena_printf(s->arena, "%llu,%llu", (unsigned long long)st->request.messages,
                                   (unsigned long long)st->response.messages);
        st->kv.next = s->si.filter_state;
        s->si.filter_state = &st->kv;
}

const struct http_filter http_filter_grpc_stats = {
        .type = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        .state_bytes = sizeof(struct grpc_stats_state),
        .build = grpc_stats_build,
        .on_request_data = on_request_data,
        .on_response_data = on_response_data,
        .on_log = on_log,
};
