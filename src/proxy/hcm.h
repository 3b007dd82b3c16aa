/* The HTTP connection manager: a connection's requests, from the first byte to the access log line. Shared by the room's own files.
 *
 *   hcm_config.c    HttpConnectionManager -> struct hcm_config
 *   hcm_conn.c      a downstream connection: codec, idle and maximum times, draining
 *   hcm_stream.c    a request: filters, routing, local replies, the response's way back, timeouts
 *   hcm_headers.c   what is done to a request's and a response's headers at the edge
 *   router*.c       the upstream side
 *
 * A stream lives in its downstream stream's arena and dies with it: when the downstream is closed, whatever the upstream still does is
 * cut loose. */
#ifndef PROXY_HCM_H
#define PROXY_HCM_H

#include "http/http.h"
#include "proxy/access_log.h"
#include "proxy/cluster.h"
#include "proxy/filter.h"
#include "proxy/route.h"
#include "proxy/router.h"
#include "proxy/server.h"
#include "proxy/worker.h"

enum {
#define C(id, name)              HCM_##id,
#define G(id, name)              HCM_##id,
#define X(id, name, prom, value) HCM_##id,
#define H(id, name)              HCM_##id,
#include "proxy/hcm_stats.def"
#undef C
#undef G
#undef X
#undef H
        HCM_STAT_COUNT
};

enum hcm_codec { HCM_AUTO, HCM_HTTP1, HCM_HTTP2 };
enum hcm_server_header { HCM_SERVER_OVERWRITE, HCM_SERVER_APPEND_IF_ABSENT, HCM_SERVER_PASS_THROUGH };
enum hcm_slashes { HCM_SLASHES_KEEP, HCM_SLASHES_REJECT, HCM_SLASHES_REDIRECT, HCM_SLASHES_FORWARD };
enum hcm_underscores { HCM_UNDERSCORES_ALLOW, HCM_UNDERSCORES_REJECT, HCM_UNDERSCORES_DROP };
enum hcm_tracing { HCM_TRACING_NONE, HCM_TRACING_DECORATE /* configured, but no tracer: only decorators */, HCM_TRACING_PROPAGATE };

struct hcm_filter {
        const struct http_filter *filter;
        struct str name;
        void *config;
        size_t state_at; /* offset in the stream's filter state */
        bool disabled;
};

struct local_reply_config;
struct peer_info;

struct hcm_config {
        struct config_mem mem;
        struct server *server;
        struct stat_scope *stats;
        struct str stat_prefix;
        enum hcm_codec codec;
        struct http_opts opts;
        struct rds_slot *rds; /* or an inline table */
        struct route_table *table;
        struct hcm_filter *filters; /* without the router */
        size_t nfilters;
        size_t filter_state_bytes;
        struct router_config router;
        struct access_logs *logs;
        bool log_on_new_request;

        struct str server_name, via, user_agent;
        struct str server_address; /* what x-forwarded-for says for clients on the loopback: a local address */
        enum hcm_server_header server_header;
        bool use_remote_address, skip_xff_append, append_x_forwarded_port, proxy_100_continue, generate_request_id;
        bool preserve_external_request_id, request_id_in_response;
        unsigned xff_trusted_hops;
        bool internal_explicit; /* internal_address_config was given */
        bool internal_unix;
        bool internal_private; /* RFC 1918 and RFC 4193 count as internal */
        struct cidr *internal;
        size_t ninternal;
        bool normalize_path, merge_slashes, strip_matching_port, strip_any_port, strip_trailing_dot;
        enum hcm_slashes slashes;
        enum hcm_underscores underscores;
        struct str scheme_overwrite;
        bool h1_trailers;
        struct route_upgrade *upgrades;
        size_t nupgrades;
        enum hcm_tracing tracing;
        bool tracing_egress;                              /* the listener's traffic_direction is OUTBOUND */
        double trace_client, trace_random, trace_overall; /* percent */
        uint64_t stream_idle_ms, request_ms, request_headers_ms, idle_ms, max_connection_ms, max_stream_ms, drain_ms;
        uint32_t max_requests_per_connection;
        struct local_reply_config *local_reply;
        unsigned listener_port;
};

struct hcm_conn {
        struct downstream *d;
        const struct hcm_config *cfg;
        struct worker *worker;
        struct http_conn *http;
        struct loop_timer idle, max_duration, drain;
        bool draining, closing, seen_protocol, by_peer;
        uint32_t requests;
        uint64_t opened_us;
        enum http_version version;
        struct hcm_stream *last; /* the stream that began last, until its head is complete */
};

enum hcm_state { HCM_READING_HEAD, HCM_FILTERING, HCM_ROUTING, HCM_ANSWERED };

struct hcm_stream {
        struct hcm_conn *hc;
        const struct hcm_config *cfg;
        struct worker *worker;
        struct http_stream *ds;
        struct arena *arena;
        struct http_head *req, *resp;
        struct stream_info si;
        struct addr remote;        /* si.remote's memory, from x-forwarded-for */
        struct route_table *table; /* referenced */
        struct route_pick pick;
        struct cluster *cluster; /* what pick.cluster names; referenced, or NULL */
        uint64_t random;
        unsigned at; /* next filter */
        char *filter_state;
        enum hcm_state state;
        bool req_end; /* all of the request was received */
        bool resp_started, resp_end;
        bool upgraded; /* asks for an upgrade that is allowed */
        bool grpc, head_method;
        bool internal, edge;
        bool waits; /* a filter stopped and will continue */
        bool request_id_in_response;
        bool decorated, decorated_propagate; /* pick.route->decorator applies to the response too */
        bool sampled;
        struct chain held; /* body that arrived while a filter waited */
        bool held_end;
        struct http_head *held_trailers;
        bool ds_paused;
        uint64_t idle_ms;
        struct loop_timer idle, request_timer, max_timer;
        struct router router;
        uint64_t grpc_request_messages, grpc_response_messages; /* filter_grpc_stats.c, in time for the log */
        /* What the metadata exchange found out, for statistics (filter_peer_metadata.c). */
        struct str downstream_peer, upstream_peer; /* x-envoy-peer-metadata as it came; "" none */
};

/* hcm_config.c */
void *hcm_config_build(struct filter_build *b, const ProtobufCMessage *config);
void hcm_config_free(void *config);

/* hcm_conn.c */
void hcm_conn_drain(struct hcm_conn *c);
bool hcm_conn_should_close(const struct hcm_conn *c); /* the connection or its listener drains */

/* hcm_stream.c */
void hcm_stream_new(struct hcm_conn *c, struct http_stream *ds);
/* The codec refuses the request: counts it and answers in our way. */
void hcm_stream_refused(struct hcm_conn *c, struct http_stream *ds, int status, const char *details);
void hcm_continue(struct hcm_stream *s); /* a filter that stopped goes on; not from inside its own callback */
/* Re-reads the route (a filter changed what matching looks at). False: none. */
bool hcm_stream_route(struct hcm_stream *s);
/* Answers in the upstream's stead; after the response has begun it resets the stream. `extra` may be NULL: called on the head before it is
 * sent. */
void hcm_local_reply(struct hcm_stream *s, int status, struct str body, struct str details, uint32_t flags,
                     void (*extra)(struct hcm_stream *s, struct http_head *resp));
/* The router's ways back. */
void hcm_send_interim(struct hcm_stream *s, struct http_head *m);
void hcm_send_head(struct hcm_stream *s, struct http_head *m, bool end);
void hcm_send_data(struct hcm_stream *s, struct chain *data, bool end);
void hcm_send_trailers(struct hcm_stream *s, struct http_head *t);
void hcm_reset(struct hcm_stream *s, struct str details, uint32_t flags);
void hcm_pause(struct hcm_stream *s);
void hcm_resume(struct hcm_stream *s);
bool hcm_blocked(const struct hcm_stream *s);

static inline void hcm_stat(const struct hcm_stream *s, unsigned row)
{
        stat_inc(s->worker->stats, stat_of(s->cfg->stats, row));
}

/* hcm_headers.c */
enum hcm_verdict { HCM_GO_ON, HCM_ANSWER };
/* Everything that is done to a request's head before routing. HCM_ANSWER: a local reply was sent. */
enum hcm_verdict hcm_request_headers(struct hcm_stream *s);
void hcm_response_headers(struct hcm_stream *s, struct http_head *m, bool interim);
struct http_head *hcm_copy_head(struct arena *a, const struct http_head *m);

/* http_worker.c: what a worker keeps for HTTP */
struct str hcm_http_date(struct hcm_stream *s);
const struct peer_info *hcm_peer_info(struct hcm_stream *s, struct str metadata); /* decoded, cached; NULL: none */

/* tracing.c */
void hcm_trace_begin(struct hcm_stream *s);
void hcm_trace_response(struct hcm_stream *s, struct http_head *resp);

/* local_reply.c */
const char *hcm_status_text(int status);
void hcm_direct_response(struct hcm_stream *s); /* a route that redirects or answers */
struct Xds__LocalReplyConfig;
struct local_reply_config *local_reply_build(struct config_mem *m, const struct Xds__LocalReplyConfig *p, const struct diag_at *at,
                                             struct diags *d);
/* The body in the configured format. */
void local_reply_apply(const struct local_reply_config *l, struct hcm_stream *s, struct http_head *resp, struct str *body,
                       struct str *content_type);

#endif
