/* What the files of the cluster room share: the shared part of a cluster, host lists, and the main thread's side. */
#ifndef PROXY_CLUSTER_PRIVATE_H
#define PROXY_CLUSTER_PRIVATE_H

#include "base/arena.h"
#include "base/hash.h"
#include "net/dns.h"
#include "proxy/cluster.h"
#include "proxy/snapshot.h"

#include <pthread.h>

/* An immutable list of hosts; a worker takes it over when it arrives. */
struct host_list {
        _Atomic unsigned refs;
        uint64_t version; /* grows with each list of one cluster */
        struct host_desc **v;
        size_t n;
};

struct host_list *host_list_new(size_t n);
struct host_list *host_list_ref(struct host_list *l);
void host_list_unref(struct server *s, struct host_list *l);

/* The slots of one address, shared by all descriptions of it, so that counts survive a new description. */
struct stat_owner {
        _Atomic unsigned refs;
        stat_id base;
};

struct host_desc *host_desc_new(void); /* one reference; strings are malloc'd copies */
struct host_desc *host_desc_ref(struct host_desc *h);
void host_desc_unref(struct server *s, struct host_desc *h);

/* struct cluster_info with what only this room sees. */
struct cluster_shared {
        struct cluster_info info;
        struct arena arena;
        struct server *server;
        pthread_mutex_t lock;
        struct host_list *latest; /* the lock's; NULL: never found out */
        struct breakers breaker[PRIO_COUNT];
        bool locality_weighted;
        unsigned cleanup_ms; /* ORIGINAL_DST: idle hosts are forgotten */
        uint64_t hash;       /* of the message: an equal update changes nothing */
};

static inline struct cluster_shared *cluster_shared(const struct cluster_info *c)
{
        return CONTAINER_OF(c, struct cluster_shared, info);
}

/* Numbers of slots in the workers' arrays; a number is free again when the last reference to its cluster_info is gone. Any thread. */
struct cluster_manager;
unsigned cluster_index_take(struct cluster_manager *m);
void cluster_index_give(struct cluster_manager *m, unsigned index);

struct host_list *cluster_latest(const struct cluster_info *c); /* a reference, or NULL */

/* Builds the immutable part. NULL with diagnostics. Main thread. */
struct cluster_info *cluster_info_build(struct server *s, const struct Xds__Cluster *proto, const struct diag_at *at, struct diags *d);

/* Load balancing over a worker's hosts. */
struct lb *lb_new(const struct cluster_info *info);
void lb_free(struct lb *l);
void lb_update(struct lb *l, struct host *const *hosts, size_t n);
struct host *lb_pick(struct lb *l, struct cluster *c, const struct lb_ctx *ctx); /* borrowed; NULL: none */

/* Worker side of the main thread's posts. */
void cluster_hosts_apply(struct worker *w, const struct cluster_info *info, struct host_list *l);
void worker_snapshot_set(struct worker *w, struct snapshot *s); /* takes the reference */
void worker_clusters_fini(struct worker *w);

#endif
