/* What the controllers share. Each works on one key at a time, reads the present state and moves it one step towards what is wanted; what
 * it writes comes back as a change and wakes whoever it concerns. Nothing is remembered that the store does not say. */
#ifndef KUBE_CTL_H
#define KUBE_CTL_H

#include "kube/controllers.h"
#include "net/loop.h"

enum ctl_queue { CTL_DEPLOYMENT, CTL_REPLICASET, CTL_SERVICE, CTL_POD, CTL_NAMESPACE, CTL_OWNER, CTL_NODE, CTL_QUEUES };

struct kube_controllers {
        struct loop *loop;
        struct kube_api *api;
        struct arena *a;                 /* of the key that is being worked on */
        struct strmap dirty[CTL_QUEUES]; /* "ns/name", or a uid for CTL_OWNER */
        struct strmap later[CTL_QUEUES]; /* looked at again at the next tick */
        uint64_t pos;                    /* in the store's history */
        struct loop_task task;
        struct loop_timer tick;
        struct arena arena;
};

void ctl_mark(struct kube_controllers *c, enum ctl_queue q, struct str ns, struct str name);
/* At the next tick: after a failure, or when time itself must pass. */
void ctl_again(struct kube_controllers *c, enum ctl_queue q, struct str ns, struct str name);

void ctl_deployment(struct kube_controllers *c, struct str ns, struct str name);
void ctl_replicaset(struct kube_controllers *c, struct str ns, struct str name);
void ctl_service(struct kube_controllers *c, struct str ns, struct str name);
void ctl_pod(struct kube_controllers *c, struct str ns, struct str name);
void ctl_namespace(struct kube_controllers *c, struct str ns, struct str name);
void ctl_owner(struct kube_controllers *c, struct str ns, struct str uid);
void ctl_node(struct kube_controllers *c, struct str ns, struct str name);
void ctl_expire_events(struct kube_controllers *c);

/* Is `o` controlled by the object with this uid? */
bool ctl_controlled_by(const struct kobj *o, struct str uid);
struct str ctl_controller_uid(const struct kobj *o, struct str *kind, struct str *name);
void ctl_owner_reference(struct arena *a, struct pb_node *o, const struct kobj *owner);
bool ctl_pod_ready(const struct pb_node *pod);
/* Seconds since the pod became ready; -1 when it is not. */
int64_t ctl_pod_ready_for(struct kube_api *api, const struct pb_node *pod);
bool ctl_pod_active(const struct kobj *pod); /* neither ended nor being deleted */
bool ctl_deleting(const struct kobj *o);
/* Sets a condition in o.status.conditions; lastTransitionTime moves when `status` does. True when anything changed. */
bool ctl_condition(struct kube_controllers *c, struct pb_node *o, const char *type, const char *status, const char *reason,
                   struct str message);
int64_t ctl_seconds_since(struct kube_api *api, struct str rfc3339);

#endif
