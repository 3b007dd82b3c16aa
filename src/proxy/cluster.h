/* Clusters and hosts.
 *
 * Three parts. struct cluster_info is what the configuration says: immutable, shared by all threads, reference-counted. The main
 * thread alone finds out which hosts there are (static, DNS, EDS) and posts the list to the workers. struct cluster and struct host are a
 * worker's own: load-balancing state, active counts, pools; they are made when a worker first asks for the cluster.
 *
 * A host that leaves the list is drained: its pool is told, and the object lives until the last reference is dropped. A host that stays
 * (same address) keeps its object, so its pool and its counts, whatever else changed. A cluster whose configuration did not change keeps
 * its struct cluster through any number of updates. */
#ifndef PROXY_CLUSTER_H
#define PROXY_CLUSTER_H

#include "base/arena.h"
#include "base/diag.h"
#include "net/conn.h"
#include "net/sock.h"
#include "proxy/stats.h"
#include "proxy/stream_info.h"

struct format;
struct server;
struct worker;
struct Xds__Cluster;
struct XdsUp__HttpProtocolOptions;
struct Xds__Metadata;

enum {
#define C(id, name)              CS_##id,
#define G(id, name)              CS_##id,
#define T(id, name, kind)        CS_##id,
#define X(id, name, prom, value) CS_##id,
#define H(id, name)              CS_##id,
#include "proxy/cluster_stats.def"
#undef C
#undef G
#undef T
#undef X
#undef H
        CS_COUNT
};

enum host_stat {
        HS_CX_ACTIVE,
        HS_CX_CONNECT_FAIL,
        HS_CX_TOTAL,
        HS_RQ_ACTIVE,
        HS_RQ_ERROR,
        HS_RQ_SUCCESS,
        HS_RQ_TIMEOUT,
        HS_RQ_TOTAL,
        HS_COUNT
};

enum cluster_type { CLUSTER_STATIC, CLUSTER_STRICT_DNS, CLUSTER_LOGICAL_DNS, CLUSTER_EDS, CLUSTER_ORIGINAL_DST };
enum lb_policy { LB_ROUND_ROBIN, LB_LEAST_REQUEST, LB_RANDOM, LB_CLUSTER_PROVIDED };
enum health { HEALTH_HEALTHY, HEALTH_DEGRADED, HEALTH_UNHEALTHY };

/* Circuit breakers count over all workers (Envoy's meaning), so these are shared atomics; a kind without a limit is not counted. */
enum breaker_kind { BREAKER_CX, BREAKER_PENDING, BREAKER_RQ, BREAKER_RETRIES, BREAKER_CX_POOLS, BREAKER_KINDS };
enum priority { PRIO_DEFAULT, PRIO_HIGH, PRIO_COUNT };

struct breakers {
        uint32_t max[BREAKER_KINDS]; /* UINT32_MAX: no limit */
        bool track_remaining;
        double retry_budget_percent; /* < 0: no budget; then BREAKER_RETRIES counts */
        uint32_t retry_budget_min;
        _Atomic uint32_t now[BREAKER_KINDS];
};

struct cluster_info {
        _Atomic unsigned refs;
        unsigned index; /* slot of this incarnation, the same in every worker */
        struct str name;
        struct str alt_stat_name; /* as given, or the name: UPSTREAM_CLUSTER and the stats prefix */
        enum cluster_type type;
        enum lb_policy lb;
        unsigned connect_timeout_ms;          /* default 5 s */
        uint32_t buffer_limit_bytes;          /* per_connection_buffer_limit_bytes; default 1 MiB */
        uint32_t max_requests_per_connection; /* 0: no limit */
        double panic_threshold;               /* percent; default 50 */
        unsigned choice_count;                /* least request; default 2 */
        double active_request_bias;           /* least request; default 1.0 */
        unsigned overprovisioning;            /* percent; default 140 */
        bool use_http_header;                 /* ORIGINAL_DST: x-envoy-original-dst-host */
        struct str http_header_name;          /* ... or another name */
        uint16_t upstream_port_override;      /* ORIGINAL_DST; 0: none */
        bool close_on_host_failure;           /* close_connections_on_host_health_failure */
        bool drain_on_host_removal;           /* ignore_health_on_host_removal */
        struct sock_keepalive keepalive;
        bool has_source;
        struct addr source;                            /* upstream_bind_config */
        const struct Xds__Cluster *proto;              /* in the info's arena */
        const struct XdsUp__HttpProtocolOptions *http; /* NULL: HTTP/1.1 with defaults */
        const struct Xds__Metadata *metadata;
        struct format *reason;     /* metadata "postern".reason, or NULL */
        struct stat_scope *stats;  /* CS_* */
        struct breakers *breakers; /* [PRIO_COUNT] */
        void *http_options;        /* what the HTTP room built from `http` (http_cluster_hooks); NULL before */
        struct cluster_main *main; /* main thread only */
};

struct cluster_info *cluster_info_ref(const struct cluster_info *c);
void cluster_info_unref(const struct cluster_info *c); /* any thread */

/* What the HTTP room makes of a cluster's protocol options, once, on the main thread. server.cluster_http points to the table; the HTTP
 * room sets it in proxy_http_init(), before any configuration is read. */
struct cluster_http_hooks {
        void *(*build)(const struct cluster_info *c, const struct diag_at *at, struct diags *d); /* NULL with diagnostics on error */
        void (*free)(void *options);
};

/* One host of one cluster in one worker. */
struct host {
        unsigned refs;                /* this worker's */
        struct cluster *cluster;      /* valid while a reference is held */
        const struct host_desc *desc; /* what the main thread said; shared, immutable */
        const struct addr *addr;      /* = &desc->addr */
        uint32_t weight;
        unsigned priority;
        enum health health;
        bool removed;                  /* left the list: no new work */
        unsigned rq_active, cx_active; /* this worker's; least request looks at rq_active */
        stat_id stats;                 /* HS_*: base slot */
        /* Pools by protocol, owned by the HTTP room. When the host leaves, drain(pool) is called once: it finishes what runs, closes the
         * rest, drops its host reference and must not be found again. */
        void *http_pool;
        void (*http_pool_drain)(void *pool);
};

struct host_desc {
        _Atomic unsigned refs;
        struct addr addr;
        struct str hostname; /* for auto_host_rewrite and /clusters; the DNS name, or "" */
        uint32_t weight;
        unsigned priority;
        enum health health;
        bool failed_eds_health;
        struct str region, zone, sub_zone;
        uint32_t locality_weight; /* 0: none */
        const struct Xds__Metadata *metadata;
        struct arena *metadata_arena;  /* holds it; NULL: none */
        stat_id stats;                 /* HS_*: base slot; 0: not counted */
        struct stat_owner *stat_owner; /* keeps the slots of this address while any list names it */
};

struct host *host_ref(struct host *h);
void host_unref(struct host *h);

/* A worker's view of a cluster. */
struct cluster {
        unsigned refs;
        struct worker *worker;
        const struct cluster_info *info;
        bool removed;
        struct lb *lb;
        struct host **hosts;
        size_t nhosts;
        uint64_t hosts_version;
        void *http; /* the HTTP room's per-worker, per-cluster state (retry budgets, ...) */
        void (*http_free)(void *);
};

/* By name, in the worker's current snapshot. NULL: no such cluster (flag NC). Borrowed: valid until the end of the turn unless
 * cluster_ref()ed. */
struct cluster *cluster_get(struct worker *w, struct str name);
struct cluster *cluster_ref(struct cluster *c);
void cluster_unref(struct cluster *c);

struct lb_ctx {
        const struct conn_info *downstream; /* ORIGINAL_DST: where the client wanted to go; may be NULL */
        struct str original_dst_header;     /* value of x-envoy-original-dst-host, when the cluster uses it */
        /* Retry predicates: asks for another host, at most `attempts` times (host_selection_retry_max_attempts). NULL: none. */
        bool (*reject)(void *arg, const struct host *h);
        void *arg;
        unsigned attempts;
        /* Priorities tried before (retry_priority previous_priorities); bit p. 0: none. */
        uint32_t tried_priorities;
};

/* The next host by the cluster's policy, with one reference for the caller, or NULL: none is healthy (flag UH; the counter
 * upstream_cx_none_healthy is the caller's). */
struct host *cluster_pick_host(struct cluster *c, const struct lb_ctx *ctx);
/* True while the list of a DNS or EDS cluster has not been found out for the first time. */
bool cluster_is_warming(const struct cluster *c);

/* Starts a connection to a host with the cluster's options (timeout, keepalive, source address, transport socket): counts
 * upstream_cx_total, upstream_cx_active and the host's. BREAKER_CX is the caller's to take before and to release.
 * Report the end of the attempt and of the connection: */
struct conn *host_connect(struct host *h, const struct conn_ops *ops, void *arg);
void host_connect_done(struct host *h, struct conn *c, int err, uint64_t started_us); /* from on_connect: cx_connect_fail/timeout/ms */
void host_conn_closed(struct host *h, struct conn *c, bool by_peer, bool active_rq, uint64_t started_us); /* before conn_close() */

/* Request counts on a host: rq_active, rq_total; at the end success (by Envoy's rule: not 5xx) or error. */
void host_rq_begin(struct host *h);
void host_rq_end(struct host *h, bool ok);

/* Circuit breakers. take: false when at the limit (the caller counts overflow and flags UO). */
bool breaker_take(const struct cluster_info *c, enum priority p, enum breaker_kind k);
void breaker_release(const struct cluster_info *c, enum priority p, enum breaker_kind k);
bool breaker_open(const struct cluster_info *c, enum priority p, enum breaker_kind k);

static inline stat_id cluster_stat(const struct cluster_info *c, unsigned row)
{
        return stat_of(c->stats, row);
}

#endif
