/* The embedded Kubernetes API server: what an unmodified kubectl and our own controller and node talk to.
 *
 * One loop, one thread. Objects are JSON trees (struct pb_node), held in memory and kept in SQLite; every answer to a write is sent after
 * the write is on disk. The Kubernetes controllers that a one-machine cluster needs (Deployments, Endpoints, garbage collection, ...) run
 * in the same process on the same store. */
#ifndef KUBE_APISERVER_H
#define KUBE_APISERVER_H

#include "base/diag.h"
#include "net/loop.h"
#include "pb/pb.h"

struct kube_apiserver;

/* A look at stored objects for admission hooks: `resource` is "configmaps" or "gateways.networking.istio.io". */
struct kube_view {
        const struct pb_node *(*get)(const struct kube_view *v, const char *resource, struct str ns, struct str name); /* or NULL */
        /* Calls fn for each object (ns "": of all namespaces) until it returns false. */
        void (*each)(const struct kube_view *v, const char *resource, struct str ns, bool (*fn)(void *arg, const struct pb_node *object),
                     void *arg);
        void *ctx;
};

struct kube_admission_req {
        const char *operation; /* "CREATE", "UPDATE", "DELETE" */
        struct str group, version, kind, resource, subresource;
        struct str ns, name;
        struct str user;
        bool dry_run;
        struct arena *arena;             /* of the request: new nodes go here */
        struct pb_node *object;          /* mutate: change it in place; NULL on DELETE */
        const struct pb_node *old;       /* NULL on CREATE */
        const struct pb_node *ns_object; /* the Namespace, or NULL for cluster-scoped kinds */
        const struct pb_node *ns_labels; /* its labels map, or NULL */
        const struct kube_view *view;
};

/* Registered by the caller, so that this folder needs to know nothing of meshes. Each may be NULL. An error in `d` refuses the request with
 * `admission webhook "NAME" denied the request: ...`; warnings become Warning: headers, which kubectl prints. */
struct kube_admission {
        const char *name; /* "injection.postern" */
        void (*mutate)(void *arg, struct kube_admission_req *r, struct diags *d);
        void (*validate)(void *arg, const struct kube_admission_req *r, struct diags *d);
        void *arg;
};

struct kube_apiserver_opts {
        struct str state_dir;         /* store.db lives here */
        struct str pki_dir;           /* made on the first start: see kube/pki.h */
        struct str listen;            /* "127.0.0.1:0"; "": none */
        struct str unix_path;         /* "": none; its peers of our own uid are system:masters */
        struct str node_netns;        /* path of another network namespace, or "" */
        struct str node_listen;       /* an address in it: "10.244.0.1:6443" */
        struct str node_socket;       /* Unix socket of the node's kubelet-like API; "": none */
        struct str service_cidr;      /* "": 10.96.0.0/16 */
        struct str cluster_domain;    /* "": cluster.local */
        const struct str *extra_sans; /* names and addresses for the server certificate */
        unsigned nextra_sans;
        bool no_controllers;                    /* for tests of the server alone */
        const struct kube_admission *admission; /* in order */
        unsigned nadmission;
};

/* Opens the store, makes the pki, listens. NULL with diagnostics. */
struct kube_apiserver *kube_apiserver_new(struct loop *l, const struct kube_apiserver_opts *o, struct diags *d);
void kube_apiserver_free(struct kube_apiserver *s);
/* The port that `listen` got. */
uint16_t kube_apiserver_port(const struct kube_apiserver *s);
/* Ends watches and connections gracefully; `done` is called when nothing is open, or after `grace_ms`. */
void kube_apiserver_drain(struct kube_apiserver *s, unsigned grace_ms, void (*done)(void *arg), void *arg);

#endif
