/* The node's network: one namespace that routes, one more a pod, and the ways out.
 *
 *      pod namespace                   node namespace postern-NAME              host
 *      eth0 10.244.0.7/32 ----veth---- pv… route 10.244.0.7   uplink ---veth--- pst…  -> NAT by table ip postern_NAME
 *      default via 10.244.0.1          lo  10.244.0.1         inet0  ---veth--- postern-NAME.inet (--offline)
 *                                      lo  10.96.0.10
 *
 * There is no bridge: each pod hangs on an interface of its own, with a host route, so whatever it sends is routed by the node. That is
 * what makes Service addresses work between neighbours (on a bridge, netfilter may or may not see their frames, depending on a module that
 * somebody else loads), and it lets the kernel drop packets with a source that is not the pod's (strict reverse path). */
#ifndef NODE_NETWORK_H
#define NODE_NETWORK_H

#include "base/buf.h"
#include "node/netns.h"

struct network {
        char *cluster;    /* NAME */
        char *netns;      /* "postern-NAME" */
        char *inet_netns; /* "postern-NAME.inet" */
        char *run_dir;    /* /run/postern/NAME */
        struct cidr pods, services;
        struct addr gateway, dns; /* 10.244.0.1, 10.96.0.10: first and tenth of the two ranges */
        bool offline;
};

/* Fills in names and addresses; nothing is made. False: `error` says which range is unusable. */
bool network_init(struct network *n, const char *cluster, const char *run_dir, struct str pod_cidr, struct str service_cidr, bool offline,
                  struct buf *error);
void network_fini(struct network *n);

/* Makes what is missing; mends what a crash left half made. 0; or -errno with a sentence in `error`. */
int network_up(struct network *n, struct buf *error);

/* A pod's namespace: "postern-NAME.pod-xxxxxxxx" by its uid. */
void network_pod_netns(const struct network *n, struct str uid, char out[NETNS_PATH_MAX]);
/* Makes it, with eth0 carrying `ip` and a default route. 0 also when it is there already. */
int network_pod_add(struct network *n, struct str uid, const struct addr *ip, struct buf *error);
int network_pod_del(struct network *n, struct str uid);
/* The IPv6 twin of a pod's address: fd00:244:: and the host part of `ip`. */
void network_pod_v6(const struct network *n, const struct addr *ip, struct addr *v6);

/* Addresses of 198.18.0.0/15 on the offline Internet's interface. */
int network_inet_address(struct network *n, const struct addr *ip);

/* Removes every namespace, link, table and setting of cluster `cluster` that is outside of its namespaces. */
void network_down(const char *cluster, const char *run_dir);

#endif
