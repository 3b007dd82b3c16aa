/* The proxy process: the main thread's loop, configuration, xDS, admin, and the workers. Only the main thread touches this, but for what
 * is marked const after start. */
#ifndef PROXY_SERVER_H
#define PROXY_SERVER_H

#include "base/arena.h"
#include "base/diag.h"
#include "net/loop.h"
#include "proxy/stats.h"

#include <stdatomic.h>

struct worker;
struct Xds__Bootstrap;
struct Xds__Node;

enum server_mode { SERVER_SERVE, SERVER_VALIDATE };

struct server_opts {
        struct str config_path; /* -c */
        struct str config_yaml; /* --config-yaml: merged over the file */
        struct str config_name; /* what diagnostics call a configuration made in memory */
        enum server_mode mode;
        unsigned concurrency; /* 0: one a CPU */
        struct str service_node, service_cluster, service_zone;
        unsigned drain_time_s; /* default 600 */
        unsigned parent_shutdown_time_s;
        unsigned shutdown_drain_s; /* Istio's mode: from SIGTERM to the end, at most */
        bool drain_immediately;    /* --drain-strategy immediate */
        struct str state_path;     /* last known good configuration from the control plane; empty: not kept */
        const char *istio_role;    /* "sidecar", "router", or NULL: not in Istio's mode */
};

struct server {
        struct server_opts opts;
        struct loop *loop;                      /* main */
        struct arena arena;                     /* bootstrap */
        const struct Xds__Bootstrap *bootstrap; /* const after start */
        const struct Xds__Node *node;           /* const after start: id, cluster, metadata, locality */
        struct stats *stats;
        struct stats_local *stats_main;
        struct worker **workers; /* const after start */
        unsigned nworkers;
        struct log_sinks *sinks;
        struct inspectors *inspectors; /* const after start */
        struct str hostname;           /* HOSTNAME */
        struct cluster_manager *clusters;
        struct listener_manager *listeners;
        struct rds_manager *rds;
        struct admin *admin;
        struct xds_link *xds;
        uint64_t started_real_us;
        uint64_t max_connections;     /* runtime overload.global_downstream_max_connections; 0: no limit. const after start */
        _Atomic uint64_t connections; /* downstream, all workers */
        bool live;                    /* initialised: PRE_INITIALIZING, INITIALIZING -> LIVE */
        bool draining, stopping;
        struct stat_scope *scope;
        struct loop_signal *signals;
        struct loop_timer drain_timer;
        uint64_t drain_until_ms;
        bool health_failed;
        const struct cluster_http_hooks *cluster_http; /* the HTTP room's; NULL: none linked in */
        int exit_status;
};

/* Runs until it is told to stop. The exit status. Diagnostics of a bad configuration go to the log. */
int server_run(const struct server_opts *o);

/* Main thread: clusters, listeners and subscriptions may all be ready now: then the server is LIVE. */
void server_check_live(struct server *s);

/* The HTTP room's: sets server.cluster_http and whatever else it needs, before any configuration is read. */
void proxy_http_init(struct server *s);

/* SIGTERM, /quitquitquit: ends the process, in Istio's mode after draining. */
void server_shutdown(struct server *s);
/* Gauges that are derived, before a scrape. */
void server_refresh_stats(struct server *s);

/* Node metadata as text ("NAMESPACE", "LABELS.app"), for filters that need the workload's identity; "" when absent. */
struct str server_node_meta(const struct server *s, const char *dotted);

#endif
