/* Upstream connections that speak HTTP: one pool a host, worker and protocol.
 *
 * HTTP/1.1: a connection carries one request at a time; idle ones wait on a stack, so that the warmest is used first and the rest may time
 * out. HTTP/2: a connection carries as many as the peer allows. Requests that find no room wait in a queue whose length the cluster's
 * circuit breaker bounds; connections are made as the queue needs them. */
#ifndef PROXY_HTTP_POOL_H
#define PROXY_HTTP_POOL_H

#include "http/http.h"
#include "proxy/cluster.h"

struct http_pool;
struct worker;

/* How a cluster speaks HTTP: built from its HttpProtocolOptions (cluster_http.c). */
struct cluster_http {
        enum { CLUSTER_HTTP1, CLUSTER_HTTP2, CLUSTER_HTTP_DOWNSTREAM } protocol;
        struct http_opts h1, h2;
        bool h1_trailers;
        uint64_t idle_ms;           /* default 1 h; 0: none */
        uint64_t max_connection_ms; /* 0: none */
        uint64_t max_stream_ms;     /* 0: none */
        uint32_t max_requests;      /* 0: no limit */
        uint32_t h2_max_streams;    /* own limit; the peer's counts too */
};

const struct cluster_http *cluster_http_of(const struct cluster_info *c);
extern const struct cluster_http_hooks cluster_http_hooks;

struct pool_conn {
        struct http_pool *pool;          /* NULL: the host is gone, the connection ends with its last request */
        struct pool_conn *next, **pprev; /* the list of its state */
        enum { POOL_CONNECTING, POOL_IDLE, POOL_BUSY, POOL_DRAINING } state;
        struct host *host; /* referenced */
        struct conn *io;
        struct http_conn *http;
        struct worker *worker;
        enum http_version version;
        uint32_t requests;
        uint64_t started_us, idle_since_ms;
        uint64_t connect_us, connected_us; /* moments; for the first request's US_CX_BEG and US_CX_END */
        bool breaker, closing_local, was_up;
        uint64_t id;
        struct loop_timer idle, max_duration;
        struct addr local;
};

enum pool_result { POOL_READY, POOL_WAITING, POOL_OVERFLOW };
enum pool_failure { POOL_CONNECT_FAILED, POOL_CONNECT_TIMEOUT, POOL_HOST_GONE, POOL_FULL };

/* Someone who waits for a connection. In the caller's memory. */
struct pool_wait {
        struct pool_wait *next, **pprev;
        struct http_pool *pool;
        enum priority priority;
        void (*ready)(struct pool_wait *w, struct pool_conn *c); /* open the stream now */
        void (*failed)(struct pool_wait *w, enum pool_failure why, struct str text);
        void *arg;
};

/* READY: *c takes a request now (http_client_stream() on c->http). WAITING: w is queued; ready or failed follows, not from inside this
 * call. */
enum pool_result http_pool_get(struct host *h, enum http_version version, enum priority p, struct pool_wait *w, struct pool_conn **c);
void http_pool_cancel(struct pool_wait *w);
/* A request begins on c: to be called with http_client_stream(). */
struct http_stream *http_pool_stream(struct pool_conn *c, const struct http_stream_ops *ops, void *arg);
/* The owner's on_close of a stream of c: one more may begin. */
void http_pool_closed(struct pool_conn *c);
/* A stream that is complete both ways, or soon will be: it ends without its owner. */
void http_pool_let_go(struct pool_conn *c, struct http_stream *us);
/* Resets a stream whose owner goes, and swallows what still comes. */
void http_pool_discard(struct pool_conn *c, struct http_stream *us);

#endif
