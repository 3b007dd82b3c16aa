/* The main thread's side of clusters: what is configured, which hosts each has, when each is ready, and the posts to the workers.
 *
 * A new or changed cluster warms (first DNS answer, first EDS assignment, or its time-out) before it takes its place; until then the old
 * one of that name serves on. */
#ifndef PROXY_CLUSTER_MANAGER_H
#define PROXY_CLUSTER_MANAGER_H

#include "base/diag.h"
#include "base/hash.h"
#include "proxy/cluster.h"

struct cluster_manager;
struct host_list;
struct Xds__Cluster;
struct Xds__ClusterLoadAssignment;

struct cluster_main {
        struct cluster_manager *manager;
        struct cluster_info *info; /* referenced */
        bool dynamic;              /* from CDS */
        char *version;             /* CDS version_info */
        uint64_t updated_us;
        bool ready;
        struct host_list *list; /* current; NULL before the first */
        uint64_t list_version;
        struct str eds_name; /* EDS: service_name, or the cluster's name; in info's arena */
        bool eds_heard;
        struct dns_cluster *dns;
        struct loop_timer init_timer; /* EDS: initial_fetch_timeout */
        void *eds_sub;                /* the subscription, the link's */
};

struct cluster_manager *cluster_manager_new(struct server *s);
void cluster_manager_free(struct cluster_manager *m);

/* Adds or replaces. An equal message changes nothing. False with diagnostics: nothing changed. */
bool cluster_manager_set(struct cluster_manager *m, const struct Xds__Cluster *proto, bool dynamic, struct str version,
                         const struct diag_at *at, struct diags *d);
/* A dynamic cluster leaves. False when there is none of that name (or it is static). */
bool cluster_manager_remove(struct cluster_manager *m, struct str name);
/* Posts a new snapshot to the workers if something changed since the last one. Clusters that become ready are published at the end of the
 * turn at the latest; what refers to them and is posted before that calls this first. */
void cluster_manager_publish(struct cluster_manager *m);

/* EDS. `cla` NULL: the management server says there is none. False with diagnostics: the old list stays. */
bool cluster_manager_assign(struct cluster_main *c, const struct Xds__ClusterLoadAssignment *cla, const struct diag_at *at,
                            struct diags *d);

struct cluster_main *cluster_manager_get(struct cluster_manager *m, struct str name); /* active, or NULL */
struct strmap *cluster_manager_active(struct cluster_manager *m);                     /* name -> struct cluster_main */
struct strmap *cluster_manager_warming(struct cluster_manager *m);
bool cluster_manager_ready(const struct cluster_manager *m); /* nothing warms */
/* Called once whenever the last warming cluster became ready. */
void cluster_manager_on_ready(struct cluster_manager *m, void (*fn)(void *arg), void *arg);
/* How an EDS cluster finds its assignments; NULL functions: EDS is not available (validation, no control plane). */
struct eds_hooks {
        bool (*subscribe)(void *arg, struct cluster_main *c, const struct diag_at *at, struct diags *d);
        void (*unsubscribe)(void *arg, struct cluster_main *c);
};
void cluster_manager_eds(struct cluster_manager *m, const struct eds_hooks *hooks, void *arg);
/* Gauges that are derived (circuit breakers), before a scrape. */
void cluster_manager_refresh_stats(struct cluster_manager *m);
struct snapshot *cluster_manager_snapshot(struct cluster_manager *m); /* a reference to the current one */

/* For dns_cluster.c. */
void cluster_main_set_hosts(struct cluster_main *c, struct host_list *l); /* takes the reference */
void cluster_main_ready(struct cluster_main *c);
struct host_desc *cluster_main_desc(struct cluster_main *c, const struct addr *a); /* new; slots shared with the current list */
struct dns;
struct dns *cluster_manager_dns(struct cluster_manager *m, const struct Xds__Cluster *p, const struct diag_at *at, struct diags *d);
struct loop *cluster_manager_loop(struct cluster_manager *m);
struct server *cluster_manager_server(struct cluster_manager *m);

struct Xds__LocalityLbEndpoints;
struct Xds__LbEndpoint;
/* Weight, priority, health, locality, metadata of one endpoint. */
void host_desc_fill(struct host_desc *h, const struct Xds__LocalityLbEndpoints *loc, const struct Xds__LbEndpoint *ep);

struct dns_cluster *dns_cluster_new(struct cluster_main *c, const struct diag_at *at, struct diags *d);
void dns_cluster_start(struct dns_cluster *dc);
void dns_cluster_free(struct dns_cluster *dc);

#endif
