/* The node: runs the pods that are bound to it, gives Services their virtual addresses, answers DNS, serves exec, logs and port-forward.
 * One loop, one thread; containers run by runc, each beside a shim (shim.h), so that this process may end and start again without them. */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "base/diag.h"
#include "kube/client.h"
#include "net/loop.h"

struct node;

struct node_opts {
        struct str name;      /* of the cluster */
        struct str node_name; /* "": NAME-control-plane */
        struct kube_client_config api;
        struct str run_dir, state_dir;     /* "": /run/postern/NAME, /var/lib/postern/NAME */
        struct str pod_cidr, service_cidr; /* "": 10.244.0.0/16, 10.96.0.0/16 */
        struct str cluster_domain;         /* "": cluster.local */
        struct str binary;                 /* path of the running executable */
        bool offline;
        void (*on_ready)(void *arg); /* network up, registered, first lists in; once */
        void *arg;
};

/* Makes the network and starts. NULL with diagnostics. */
struct node *node_new(struct loop *l, const struct node_opts *o, struct diags *d);
/* Stops working; pods go on (a later node_new() takes them over). */
void node_free(struct node *n);

/* Removes everything that nodes of this cluster made: processes of pods and of the offline Internet, namespaces, links, tables, mounts,
 * folders. Needs no running process of the cluster and no API server; works after a crash at any point. False with diagnostics when
 * something is left. */
bool node_teardown(struct str name, struct diags *d);

#endif
