/* Listeners: configuration (immutable, shared), the main thread's management of them, and a worker's sockets and connections. */
#ifndef PROXY_LISTENER_H
#define PROXY_LISTENER_H

#include "base/hash.h"
#include "net/addr.h"
#include "proxy/network_filter.h"
#include "proxy/stats.h"

struct access_logs;
struct chain_match;
struct Xds__FilterChain;
struct Xds__Listener;
struct Xds__ListenerFilterChainMatchPredicate;

enum {
        LS_DOWNSTREAM_CX_DESTROY,
        LS_DOWNSTREAM_CX_OVERFLOW,
        LS_DOWNSTREAM_CX_OVERLOAD_REJECT,
        LS_DOWNSTREAM_CX_TOTAL,
        LS_DOWNSTREAM_CX_TRANSPORT_SOCKET_CONNECT_TIMEOUT,
        LS_DOWNSTREAM_GLOBAL_CX_OVERFLOW,
        LS_DOWNSTREAM_LISTENER_FILTER_ERROR,
        LS_DOWNSTREAM_LISTENER_FILTER_REMOTE_CLOSE,
        LS_DOWNSTREAM_PRE_CX_TIMEOUT,
        LS_NO_FILTER_CHAIN_MATCH,
        LS_DOWNSTREAM_CX_ACTIVE,
        LS_DOWNSTREAM_PRE_CX_ACTIVE,
        LS_DOWNSTREAM_CX_LENGTH_MS,
        LS_COUNT
};

struct chain_filter {
        const struct network_filter *def;
        void *config;
};

/* One filter chain, built. Shared by all workers; lives until the last connection that uses it is gone, whatever became of its listener. */
struct filter_chain {
        _Atomic unsigned refs;
        struct arena arena;
        struct str name;
        struct chain_filter *filters; /* the last is terminal */
        unsigned nfilters;
        uint64_t hash; /* of its message: an equal chain is kept over a listener update */
        const struct Xds__FilterChain *proto;
        struct format *reason;   /* metadata "postern".reason */
        struct rds_slot **needs; /* referenced */
        size_t nneeds;
};

struct filter_chain *filter_chain_build(struct server *s, const struct listener_config *l, const struct Xds__FilterChain *p,
                                        struct str stat_prefix, const struct diag_at *at, struct diags *d);
struct filter_chain *filter_chain_ref(const struct filter_chain *c);
void filter_chain_unref(const struct filter_chain *c);

/* The match tree. Holds no references: the listener's list of chains does. */
struct chain_match *chain_match_new(void);
void chain_match_free(struct chain_match *m);
/* Adds a chain under its filter_chain_match. False with a diagnostic: bad criteria, or the same as another chain's. */
bool chain_match_add(struct chain_match *m, const struct filter_chain *c, const struct diag_at *at, struct diags *d);

/* What a connection is matched by. */
struct chain_lookup {
        const struct addr *local, *remote, *direct_remote;
        struct str sni, transport; /* transport "" is "raw_buffer" */
        const struct str *alpn;
        unsigned nalpn;
};

/* NULL: none (the default filter chain, if there is one, is the caller's). Envoy's order, without backtracking: port, address, server
 * name, transport protocol, application protocol, direct source, source type, source address, source port. */
const struct filter_chain *chain_match_find(const struct chain_match *m, const struct chain_lookup *q);

enum listener_filter_kind { LF_ORIGINAL_DST, LF_TLS_INSPECTOR, LF_HTTP_INSPECTOR };

struct listener_filter {
        enum listener_filter_kind kind;
        const struct Xds__ListenerFilterChainMatchPredicate *disabled; /* NULL: never */
        size_t max_hello;                                              /* tls_inspector */
        bool close_on_bad_hello;
};

enum { LISTENER_ADDRESSES_MAX = 8 };

/* Connections of one listener over all workers and versions; only where there is a limit. */
struct conn_count {
        _Atomic unsigned refs;
        _Atomic uint64_t n;
};

struct listener_config {
        _Atomic unsigned refs;
        struct arena arena;
        struct server *server;
        struct str name;
        struct addr addr[LISTENER_ADDRESSES_MAX];
        unsigned naddr;
        bool bind, use_original_dst, reuse_port, transparent, freebind;
        bool inbound, outbound;
        bool modify_only; /* drain_type MODIFY_ONLY: healthcheck/fail does not drain it */
        bool continue_on_timeout;
        bool ignore_global_limit;
        unsigned filters_timeout_ms; /* 0: none */
        unsigned accept_max;         /* a socket event */
        int backlog;
        uint32_t buffer_limit_bytes;
        uint64_t max_connections; /* runtime envoy.resource_limits.listener.<name>.connection_limit; 0: none */
        struct conn_count *count; /* shared with the version before; NULL without a limit */
        struct listener_filter *filters;
        unsigned nfilters;
        struct filter_chain **chains; /* referenced */
        size_t nchains;
        struct filter_chain *fallback; /* default_filter_chain; referenced, or NULL */
        struct chain_match *match;
        struct access_logs *logs;
        struct stat_scope *stats; /* LS_* */
        const struct Xds__Listener *proto;
        uint64_t hash;            /* of the whole message */
        uint64_t hash_but_chains; /* of the message without its filter chains: equal means an update in place */
};

/* Chains that `before` (may be NULL) has too are taken over from it. NULL with diagnostics. Main thread. */
struct listener_config *listener_config_build(struct server *s, const struct Xds__Listener *p, const struct listener_config *before,
                                              const struct diag_at *at, struct diags *d);
struct listener_config *listener_config_ref(const struct listener_config *c);
void listener_config_unref(const struct listener_config *c);

/* A worker's listener. An update in place (only filter chains differ) keeps the object; any other makes a new one, and the old lives on,
 * retired, until its last connection is gone. */
struct listener_worker {
        struct listener_worker *next, **pprev;
        struct worker *worker;
        struct listener_config *config; /* referenced */
        struct str name;                /* owned: connections point to it, configurations come and go */
        struct stat_scope *stats;       /* the config's */
        bool retired;
        struct loop_watch watch[LISTENER_ADDRESSES_MAX];
        unsigned nwatch;
        struct downstream *conns;      /* with a filter chain */
        struct pending_conn *pending;  /* in the listener filters */
        size_t nconns;                 /* both */
        unsigned burst;                /* how many to accept at the next event: follows what came */
        struct loop_timer pause_timer; /* out of descriptors: not accepting for a moment */
        struct loop_timer drain_timer;
        struct loop_task reap;
};

/* On the worker's thread. Takes the reference to c. `fds` (c->naddr of them, owned from now on): what to accept on; NULL: those of the
 * listener of that name, or none when it does not bind. */
void listener_worker_set(struct worker *w, struct listener_config *c, const int *fds);
/* Stops accepting, closes the sockets; connections drain. */
void listener_worker_remove(struct worker *w, struct str name);
/* /drain_listeners, SIGTERM: every connection is told, no listener stops. inbound: only those with that traffic direction. */
void worker_listeners_drain(struct worker *w, bool inbound_only);
void worker_listeners_stop(struct worker *w, bool inbound_only); /* stops accepting */
void worker_listeners_fini(struct worker *w);                    /* closes everything */
size_t worker_connections(const struct worker *w);

/* Where a connection with this destination belongs: exact address, then the wildcard of that port (use_original_dst). NULL: nowhere. */
struct listener_worker *listener_for_address(struct worker *w, const struct addr *a);

/* listener_filters.c: runs a connection through the listener filters and on to its filter chain. Takes the fd. */
void pending_conn_new(struct listener_worker *l, int fd, const struct addr *peer);
void pending_conns_close(struct listener_worker *l);

/* The connection came to the listener, or left it (either list). */
void listener_worker_joined(struct listener_worker *l);
void listener_worker_left(struct listener_worker *l);

/* Everything that was found out before the filter chain. The pointers are copied. */
struct inspected {
        struct conn *conn;
        struct chain *first;
        bool restored;
        struct addr original_dst;
        struct str sni, transport;
        const struct str *alpn;
        unsigned nalpn;
        uint64_t id, start_real_us, start_us;
};

/* Finds the chain and hands the connection to it; without one, logs and closes. */
void downstream_new(struct listener_worker *l, struct inspected *in);

#endif
