/* Retry policies (envoy.config.route.v3.RetryPolicy and the x-envoy-retry-* headers): which outcomes are worth another attempt, and
 * when it is made. */
#ifndef PROXY_RETRY_H
#define PROXY_RETRY_H

#include "proxy/match.h"

struct Xds__RetryPolicy;

enum {
        RETRY_5XX = 1 << 0,
        RETRY_GATEWAY_ERROR = 1 << 1,
        RETRY_CONNECT_FAILURE = 1 << 2,
        RETRY_4XX = 1 << 3,
        RETRY_REFUSED_STREAM = 1 << 4,
        RETRY_GRPC_CANCELLED = 1 << 5,
        RETRY_GRPC_DEADLINE_EXCEEDED = 1 << 6,
        RETRY_GRPC_RESOURCE_EXHAUSTED = 1 << 7,
        RETRY_GRPC_UNAVAILABLE = 1 << 8,
        RETRY_GRPC_INTERNAL = 1 << 9,
        RETRY_STATUS_CODES = 1 << 10,
        RETRY_RESET = 1 << 11,
        RETRY_HEADERS = 1 << 12,
        RETRY_ENVOY_RATELIMITED = 1 << 13,
        RETRY_RESET_BEFORE_REQUEST = 1 << 14,
        RETRY_HTTP3_POST_CONNECT_FAILURE = 1 << 15,
};

struct retry_reset_header {
        struct str name;
        bool unix_timestamp;
};

struct retry_policy {
        uint32_t on;
        unsigned num;                /* default 1 */
        uint64_t per_try_timeout_ms; /* 0: none */
        uint64_t per_try_idle_timeout_ms;
        uint64_t base_ms, max_ms; /* back-off */
        uint16_t *codes;
        size_t ncodes;
        struct header_matches headers;         /* of the response */
        struct header_matches request_headers; /* only requests that match are retried; none: all */
        bool previous_hosts;
        unsigned host_attempts; /* host_selection_retry_max_attempts */
        struct retry_reset_header *reset;
        size_t nreset;
        uint64_t reset_max_ms;
};

/* NULL with diagnostics. */
struct retry_policy *retry_policy_build(struct config_mem *m, const struct Xds__RetryPolicy *p, const struct diag_at *at, struct diags *d);

/* One request's state. */
struct retry_state {
        const struct retry_policy *policy; /* NULL: only headers asked */
        uint32_t on;
        unsigned left;
        uint64_t interval_ms; /* of the next back-off */
        uint64_t after_ms;    /* from a rate-limit header; 0: none */
        struct str codes;     /* x-envoy-retriable-status-codes */
        struct str headers;   /* x-envoy-retriable-header-names */
        bool enabled;
};

/* Reads and removes the request's headers. */
void retry_begin(struct retry_state *r, const struct retry_policy *p, struct http_head *req);
/* Would a response with this head be retried? */
bool retry_wants_response(struct retry_state *r, const struct http_head *resp);

enum retry_reset { RETRY_BY_CONNECT_FAILURE, RETRY_BY_RESET, RETRY_BY_REFUSED, RETRY_BY_OVERFLOW, RETRY_BY_PER_TRY_TIMEOUT };

/* Would this failure? `sent`: some of the request had been sent. */
bool retry_wants_reset(const struct retry_state *r, enum retry_reset why, bool sent);
/* How long to wait before the next attempt; grows with each call. */
uint64_t retry_backoff_ms(struct retry_state *r);

#endif
