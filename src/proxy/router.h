/* The router: the last HTTP filter. It picks a cluster and a host, takes a stream from a pool, passes the request on and the response back,
 * and tries again where the route's policy says so. One attempt is under way at a time. */
#ifndef PROXY_ROUTER_H
#define PROXY_ROUTER_H

#include "base/chain.h"
#include "proxy/http_pool.h"
#include "proxy/retry.h"

struct hcm_stream;
struct cluster;
struct cluster_http;
struct host;

struct router_config {
        bool dynamic_stats;
        bool suppress_envoy_headers;
        bool respect_expected_rq_timeout;
};

enum { ROUTER_TRIED_MAX = 32 };

/* One attempt. */
struct attempt {
        struct host *host; /* referenced */
        struct pool_wait wait;
        bool waiting;
        struct pool_conn *conn; /* while `us` is open */
        struct http_stream *us; /* NULL: none yet, or gone */
        bool head_sent, end_sent, got_head, got_end, us_paused;
        size_t sent; /* bytes of router.body that went to this attempt */
        uint64_t started_us;
};

struct router {
        struct hcm_stream *s;
        struct cluster *cluster; /* the stream's; NULL: not routing */
        const struct cluster_http *http;
        enum http_version protocol;
        struct attempt a;
        struct retry_state retry;
        bool retry_slot; /* holds BREAKER_RETRIES */
        bool retried;
        unsigned attempts;
        struct chain body; /* waiting for the upstream, and, while a retry is possible, kept behind */
        bool keep_body;
        bool req_end;
        bool interim_sent;
        bool started; /* a response went downstream */
        struct http_head *trailers;
        uint64_t timeout_ms, per_try_ms, per_try_idle_ms;
        uint64_t req_done_us;
        bool timeout_204; /* x-envoy-upstream-rq-timeout-alt-response */
        struct loop_timer timeout, per_try, per_try_idle, backoff, max_duration;
        const struct addr *tried[ROUTER_TRIED_MAX];
        unsigned ntried;
        struct addr local, remote; /* si.upstream_local, upstream_remote */
        uint64_t body_limit;
        bool upgrade_h1_h2, upgrade_h2_h1; /* RFC 8441 translation between the two sides */
        struct str upgrade_protocol;
        int upstream_status;
};

/* The head is complete and the filters have passed it. `s->pick` says where to. */
void router_start(struct hcm_stream *s, bool end);
void router_data(struct hcm_stream *s, struct chain *data, bool end);
void router_trailers(struct hcm_stream *s, struct http_head *t);
/* The downstream can take more. */
void router_downstream_drained(struct hcm_stream *s);
/* The response is over, however it ended, or the downstream is gone: lets go of everything. Idempotent. */
void router_end(struct hcm_stream *s);

/* router_upstream.c, for router.c */
void router_attempt(struct hcm_stream *s);
void router_attempt_send(struct hcm_stream *s);
void router_attempt_drop(struct hcm_stream *s);
bool router_attempt_protocol_is_h2(const struct hcm_stream *s);

enum router_failure {
        ROUTER_CONNECT_FAILURE, /* remote connection failure */
        ROUTER_CONNECT_TIMEOUT,
        ROUTER_CONNECTION_TERMINATION,
        ROUTER_REMOTE_RESET,
        ROUTER_REMOTE_REFUSED,
        ROUTER_LOCAL_RESET,
        ROUTER_OVERFLOW,
        ROUTER_PROTOCOL_ERROR,
};

/* router.c, for router_upstream.c */
void router_on_ready(struct hcm_stream *s);
void router_on_head(struct hcm_stream *s, struct http_head *m, bool end);
void router_on_failure(struct hcm_stream *s, enum router_failure why, struct str transport_reason);
void router_on_complete(struct hcm_stream *s);

#endif
