/* The proxy's container: what sidecar injection adds to a pod and what a gateway's Deployment is made of. Pure functions over node trees.
 */
#ifndef CMD_PROXYPOD_H
#define CMD_PROXYPOD_H

#include "base/diag.h"
#include "pb/pb.h"

/* Where every pod finds the program (the node mounts it there). */
#define PROXYPOD_BINARY "/opt/postern/bin/postern"

/* `values` everywhere: the JSON of ConfigMap istio-sidecar-injector's key "values". */
struct str proxypod_image(struct str values, const char *which, struct arena *a); /* a label only: "docker.io/istio/proxyv2:…" */
struct str proxypod_log_level(struct str values, struct arena *a);

struct proxypod_gateway {
        struct str name, namespace_;
        bool egress;
        struct str values;
        struct str label_keys[16], label_values[16]; /* the user's */
        unsigned nlabels;
};

enum proxypod_labels { PROXYPOD_SELECTOR, PROXYPOD_OBJECT, PROXYPOD_POD };

void proxypod_gateway_label(struct proxypod_gateway *g, struct str key, struct str value, struct arena *a);
struct pb_node *proxypod_gateway_labels(const struct proxypod_gateway *g, enum proxypod_labels which, struct arena *a);
struct pb_node *proxypod_env_gateway(const struct proxypod_gateway *g, struct arena *a);

struct inject_input {
        struct str values;                      /* empty: no control plane is installed, so nothing is injected */
        struct str mesh;                        /* the mesh configuration, YAML */
        const struct pb_node *namespace_labels; /* may be NULL */
};

/* Does this pod get a sidecar? Namespace label istio-injection=enabled (or istio.io/rev=default), overridden by the pod's label (or
 * annotation) sidecar.istio.io/inject; never with hostNetwork, never twice. */
bool inject_wanted(const struct pb_node *pod, struct str ns, const struct inject_input *in);

/* Adds the proxy to the pod in place. False with a diagnostic when an annotation is not right. */
bool inject_pod(struct pb_node *pod, struct str ns, const struct inject_input *in, struct arena *a, struct diags *d);

#endif
