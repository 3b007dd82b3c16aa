/* The Kubernetes controllers that a one-machine cluster needs, working on the store directly: Deployments and ReplicaSets, scheduling onto
 * the node, Endpoints and EndpointSlices, default ServiceAccounts, garbage collection, namespaces, node health, events. */
#ifndef KUBE_CONTROLLERS_H
#define KUBE_CONTROLLERS_H

#include "kube/api.h"

struct kube_controllers;

struct kube_controllers *kube_controllers_new(struct loop *l, struct kube_api *api);
void kube_controllers_free(struct kube_controllers *c);
/* Something was committed: look at it at the end of this turn. */
void kube_controllers_kick(struct kube_controllers *c);
/* Works off everything that is known now. For tests; a server never calls it. */
void kube_controllers_settle(struct kube_controllers *c);

/* Says something about an object, as an Event; the same thing said again is counted. type: "Normal" or "Warning". */
void kube_event(struct kube_api *api, const struct kobj *about, const char *type, const char *reason, const char *source, const char *fmt,
                ...) __attribute__((format(printf, 6, 7)));

#endif
