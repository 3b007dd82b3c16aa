/* Network filters: what a filter chain does with a connection once the listener filters have looked at it.
 *
 * A chain is zero or more observers and one terminal filter (tcp_proxy, HTTP connection manager), which owns the connection. The table
 * of filters is static. A filter's configuration is built on the main thread, checked whole, immutable, and shared by all workers. */
#ifndef PROXY_NETWORK_FILTER_H
#define PROXY_NETWORK_FILTER_H

#include "base/chain.h"
#include "base/diag.h"
#include "net/conn.h"
#include "proxy/stream_info.h"

#include <protobuf-c/protobuf-c.h>

struct server;
struct worker;
struct filter_chain;
struct listener_config;
struct listener_worker;
struct rds_slot;

/* An accepted connection in the hands of its filter chain. */
struct downstream {
        struct worker *worker;
        struct listener_worker *listener;
        const struct filter_chain *chain; /* referenced: configuration lives as long as its last connection */
        struct conn *conn;
        struct conn_info info;
        struct stream_info stream; /* the connection as a whole: TCP sessions and the listener's own access log */
        void *session;             /* the terminal filter's */
        bool draining;             /* the listener is being replaced, removed or drained */
        bool done;
        uint64_t close_at_ms;             /* draining: when it is closed at the latest */
        struct addr *original_dst;        /* owned; NULL when the connection was not redirected */
        char *strings;                    /* what info.sni and info.alpn point into */
        struct downstream *next, **pprev; /* the listener's list */
        struct loop_task reap;
};

/* What a build function may use. */
struct filter_build {
        struct server *server;
        struct diags *diags;
        struct diag_at at;                      /* path of the typed_config; extend with filter_path() */
        struct arena *arena;                    /* lives as long as the filter chain */
        const struct listener_config *listener; /* during the build only: a chain outlives the listener that brought it */
        struct str stat_prefix;
        /* RDS slots that the configuration depends on: the listener warms until each has its first answer. */
        struct rds_slot **needs;
        size_t nneeds, needs_cap;
};

/* "filter_chains[0].filters[1].typed_config" + ".route_config": in b->arena. */
struct diag_at filter_path(struct filter_build *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct network_filter {
        const char *name; /* "envoy.filters.network.tcp_proxy" */
        const char *type; /* "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": the typed_config's type, or
                           * that of the message inside a TypedStruct: `config` is then that message */
        bool terminal;
        /* NULL with diagnostics on error; a filter without configuration returns any non-NULL pointer. */
        void *(*build)(struct filter_build *b, const ProtobufCMessage *config);
        void (*free)(void *config); /* any thread, after the last connection */
        /* Terminal: takes d->conn. `first` are bytes read by inspection and not yet consumed; take them (chain_move). The filter ends with
         * downstream_done() after conn_close(). */
        void (*open)(void *config, struct downstream *d, struct chain *first);
        /* Terminal: the listener drains. HTTP: GOAWAY, Connection: close on the next response. May be NULL. */
        void (*drain)(void *config, struct downstream *d);
        /* Terminal: close now (the drain time is over, or the worker ends), then downstream_done(). */
        void (*close)(void *config, struct downstream *d);
        /* Observers: see the connection when it begins and when it is done (d->stream complete). May be NULL. */
        void (*on_open)(void *config, struct downstream *d);
        void (*on_done)(void *config, struct downstream *d);
};

extern const struct network_filter *const network_filters[]; /* NULL ends; the table is in filter_chain.c */
extern const struct network_filter network_filter_tcp_proxy;
extern const struct network_filter network_filter_hcm;                                           /* the HTTP room's */
extern const struct network_filter network_filter_metadata_exchange, network_filter_istio_stats; /* istio_network.c */

/* The connection is over: observers and the listener's access log run, counters settle, memory goes at the end of the turn. d->conn must be
 * closed before. */
void downstream_done(struct downstream *d);

#endif
