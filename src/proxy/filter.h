/* HTTP filters: what an HTTP connection manager does with a request between reading its head and handing it to the router, and with the
 * response on its way back. The table of filters is static (filter.c); one that is not in it is refused by name.
 *
 * A filter's configuration is built on the main thread and immutable; its per-request state is a zeroed block in the request's arena.
 * Requests pass the filters in order, responses (local replies too) in reverse. */
#ifndef PROXY_FILTER_H
#define PROXY_FILTER_H

#include "proxy/config_mem.h"
#include "proxy/network_filter.h"
#include "proxy/route.h"

struct hcm_stream;
struct Gp__Any;

enum filter_step {
        FILTER_CONTINUE,
        FILTER_STOP, /* the filter answered, or it waits and will call hcm_continue() */
};

struct http_filter {
        const char *type;       /* of its typed_config */
        const char *route_type; /* of its typed_per_filter_config; NULL: it has none */
        size_t state_bytes;
        /* NULL with diagnostics. What needs release is registered with m. */
        void *(*build)(struct server *s, struct config_mem *m, const ProtobufCMessage *config, const struct diag_at *at, struct diags *d);
        void *(*build_route)(struct server *s, struct config_mem *m, const ProtobufCMessage *config, const struct diag_at *at,
                             struct diags *d);
        /* Each may be NULL. */
        enum filter_step (*on_request)(const void *config, struct hcm_stream *s, void *state);
        void (*on_request_data)(const void *config, struct hcm_stream *s, void *state, const struct chain *data, bool end);
        void (*on_response)(const void *config, struct hcm_stream *s, void *state, struct http_head *resp);
        void (*on_response_data)(const void *config, struct hcm_stream *s, void *state, const struct chain *data, bool end);
        void (*on_response_trailers)(const void *config, struct hcm_stream *s, void *state, struct http_head *trailers);
        void (*on_log)(const void *config, struct hcm_stream *s, void *state); /* the stream_info is complete */
        void (*on_end)(const void *config, struct hcm_stream *s, void *state); /* stop timers; the stream goes */
};

/* By the type in a typed_config; NULL: none. */
const struct http_filter *http_filter_find(struct str type);
/* Reads one value of typed_per_filter_config. False with diagnostics, or without when it is to be left out (is_optional). */
bool http_filter_route_config(struct server *s, struct config_mem *m, const struct Gp__Any *any, struct route_filter_config *out,
                              const struct diag_at *at, struct diags *d);

extern const struct http_filter http_filter_router, http_filter_fault, http_filter_cors, http_filter_grpc_stats, http_filter_istio_alpn,
        http_filter_peer_metadata, http_filter_istio_stats;

#endif
