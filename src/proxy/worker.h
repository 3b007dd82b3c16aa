/* A worker: one thread with its own loop, listeners, clusters, pools and counters. Nothing here is touched by another thread, but
 * through loop_post() (worker_post). */
#ifndef PROXY_WORKER_H
#define PROXY_WORKER_H

#include "net/loop.h"
#include "proxy/snapshot.h"
#include "proxy/stats.h"

#include <pthread.h>

struct server;
struct cluster;
struct listener_worker;
struct log_buffers;
struct route_table;

enum { WORKER_RELAY_BYTES = 65536 };

struct worker {
        struct server *server;
        unsigned index; /* from 0 */
        pthread_t thread;
        bool running;
        struct loop *loop;
        struct stats_local *stats;
        struct snapshot *snapshot; /* current; new streams take it */
        struct cluster **clusters; /* by cluster_info.index; NULL: not used by this worker yet */
        size_t nclusters;
        const struct route_table **routes; /* by rds_slot index */
        size_t nroutes;
        struct listener_worker *listeners;
        struct strmap listener_by_addr; /* address text -> struct listener_worker */
        unsigned char *scratch;         /* for inspectors; made when first needed */
        struct log_buffers *logs;
        struct pipe_pool *pipes; /* for splice(2) */
        char *relay;             /* WORKER_RELAY_BYTES to read into, for bytes that are written on at once */
        uint64_t next_conn;
        bool draining;      /* /drain_listeners, SIGTERM: answer with Connection: close */
        bool health_failed; /* /healthcheck/fail */
        void *http;         /* the HTTP room's per-worker state; NULL until it makes it */
        void (*http_free)(void *);
};

uint64_t worker_conn_id(struct worker *w); /* unique in the process */
void worker_post(struct worker *w, void (*fn)(void *arg), void *arg);

#endif
