/* Scheduling onto the node, the node's health, and the age limit of events. */
#include "kube/ctl.h"

#include "base/mem.h"

#include <stdlib.h>

enum { NODE_STALE_S = 40, EVENT_TTL_S = 3600 };

static const struct pb_node *ready_condition(const struct kobj *node)
{
        const struct pb_node *cs = pb_get_path(node->node, "status.conditions");

        for (size_t i = 0; cs && cs->kind == PB_LIST && i < cs->n; i++)
                if (str_eqc(pb_get_str(cs->v[i], "type", STR("")), "Ready"))
                        return cs->v[i];
        return NULL;
}

static bool node_ready(const struct kobj *node)
{
        return str_eqc(pb_get_str(ready_condition(node), "status", STR("")), "True");
}

/* NULL when the pod may go there; else why not, as the scheduler says it. */
static const char *unfit(struct kube_controllers *c, const struct kobj *node, const struct kobj *pod)
{
        struct kube_selector s;

        if (!node_ready(node))
                return "node(s) were not ready";
        if (kube_bool(node->node, "spec.unschedulable", false))
                return "node(s) were unschedulable";
        kube_labels_from_map(pb_get_path(pod->node, "spec.nodeSelector"), c->a, &s);
        return kube_labels_match(&s, pb_get_path(node->node, "metadata.labels")) ? NULL
                                                                                 : "node(s) didn't match Pod's node affinity/selector";
}

static void bind_pod(struct kube_controllers *c, const struct kobj *pod, const struct kobj *node)
{
        struct pb_node *n = pb_clone(c->a, pod->node);
        struct str target = arena_str(c->a, node->name);

        pb_put_str(c->a, pb_get(n, "spec"), "nodeName", target);
        ctl_condition(c, n, "PodScheduled", "True", "", STR(""));
        struct kobj *now = kube_api_update(c->api, pod, n, c->a);
        if (now)
                kube_event(c->api, now, "Normal", "Scheduled", "default-scheduler",
                           "Successfully assigned " STR_FMT "/" STR_FMT " to " STR_FMT, STR_ARG(now->ns), STR_ARG(now->name),
                           STR_ARG(target));
        else
                ctl_again(c, CTL_POD, pod->ns, pod->name);
}

void ctl_pod(struct kube_controllers *c, struct str ns, struct str name)
{
        struct kobj *pod = kube_store_get(c->api->store, kube_b.pods, ns, name), *const * nodes;
        const struct pb_node *gates = pod ? pb_get_path(pod->node, "spec.schedulingGates") : NULL;
        const char *why = "no nodes are available";

        if (!pod || pb_get_str(pod->node, "spec.nodeName", STR("")).n || ctl_deleting(pod) || (gates && gates->n))
                return;
        size_t n = kube_store_range(c->api->store, kube_b.nodes, (struct str){ NULL, 0 }, &nodes);
        for (size_t i = 0; i < n; i++) {
                why = unfit(c, nodes[i], pod);
                if (!why) {
                        bind_pod(c, kobj_ref(pod), nodes[i]);
                        kobj_unref(pod);
                        return;
                }
        }
        struct str message = n ? arena_printf(c->a, "0/%zu nodes are available: %zu %s.", n, n, why)
                               : STR("no nodes available to schedule pods");
        struct pb_node *o = pb_clone(c->a, pod->node);
        if (!ctl_condition(c, o, "PodScheduled", "False", "Unschedulable", message))
                return;
        struct kobj *now = kube_api_update(c->api, pod, o, c->a);
        if (now)
                kube_event(c->api, now, "Warning", "FailedScheduling", "default-scheduler", STR_FMT, STR_ARG(message));
}

/* ---- nodes ---- */

void ctl_node(struct kube_controllers *c, struct str ns, struct str name)
{
        struct kobj *node = kube_store_get(c->api->store, kube_b.nodes, STR(""), name);
        const struct pb_node *ready = node ? ready_condition(node) : NULL;

        if (!ready || str_eqc(pb_get_str(ready, "status", STR("")), "Unknown") ||
            ctl_seconds_since(c->api, pb_get_str(ready, "lastHeartbeatTime", STR(""))) <= NODE_STALE_S)
                return;
        struct pb_node *o = pb_clone(c->a, node->node);
        ctl_condition(c, o, "Ready", "Unknown", "NodeStatusUnknown", STR("the node's agent stopped reporting"));
        struct kobj *now = kube_api_update(c->api, node, o, c->a);
        if (now)
                kube_event(c->api, now, "Normal", "NodeNotReady", "node-controller", "Node " STR_FMT " status is now: NodeNotReady",
                           STR_ARG(now->name));
}

/* ---- events ---- */

void ctl_expire_events(struct kube_controllers *c)
{
        struct kobj **v;
        size_t n = kube_store_list(c->api->store, kube_b.events, (struct str){ NULL, 0 }, &v);

        for (size_t i = 0; i < n; i++) {
                struct str at = pb_get_str(v[i]->node, "lastTimestamp", STR(""));

                if (!at.n)
                        at = pb_get_str(v[i]->node, "metadata.creationTimestamp", STR(""));
                if (ctl_seconds_since(c->api, at) > EVENT_TTL_S)
                        kube_store_delete(c->api->store, kube_b.events, v[i]->ns, v[i]->name);
        }
        kube_store_list_free(v, n);
}
