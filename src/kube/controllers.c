/* The controllers' frame: changes of the store mark keys as dirty, and a task at the end of the loop's turn works them off. The work writes
 * to the store, which brings new changes after the commit; an unchanged write is no write, so that it comes to rest. */
#include "kube/ctl.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>

enum { TICK_MS = 1000, EVENTS_EVERY_TICKS = 30, KEYS_A_TURN = 2000 };

static void (*const work[CTL_QUEUES])(struct kube_controllers *c, struct str ns, struct str name) = {
        [CTL_DEPLOYMENT] = ctl_deployment, [CTL_REPLICASET] = ctl_replicaset, [CTL_SERVICE] = ctl_service, [CTL_POD] = ctl_pod,
        [CTL_NAMESPACE] = ctl_namespace,   [CTL_OWNER] = ctl_owner,           [CTL_NODE] = ctl_node,
};

static void mark_in(struct strmap *m, struct arena *a, struct str ns, struct str name)
{
        strmap_set(m, arena_printf(a, STR_FMT "/" STR_FMT, STR_ARG(ns), STR_ARG(name)), m);
}

void ctl_mark(struct kube_controllers *c, enum ctl_queue q, struct str ns, struct str name)
{
        struct arena a;

        arena_init(&a, 512);
        mark_in(&c->dirty[q], &a, ns, name);
        arena_fini(&a);
}

void ctl_again(struct kube_controllers *c, enum ctl_queue q, struct str ns, struct str name)
{
        struct arena a;

        arena_init(&a, 512);
        mark_in(&c->later[q], &a, ns, name);
        arena_fini(&a);
}

/* ---- facts about objects ---- */

bool ctl_deleting(const struct kobj *o)
{
        return pb_get_path(o->node, "metadata.deletionTimestamp") != NULL;
}

struct str ctl_controller_uid(const struct kobj *o, struct str *kind, struct str *name)
{
        const struct pb_node *refs = o->nowners ? pb_get_path(o->node, "metadata.ownerReferences") : NULL;

        for (size_t i = 0; refs && i < refs->n; i++) {
                if (!kube_bool(refs->v[i], "controller", false))
                        continue;
                if (kind)
                        *kind = pb_get_str(refs->v[i], "kind", STR(""));
                if (name)
                        *name = pb_get_str(refs->v[i], "name", STR(""));
                return pb_get_str(refs->v[i], "uid", STR(""));
        }
        return STR("");
}

bool ctl_controlled_by(const struct kobj *o, struct str uid)
{
        return str_eq(ctl_controller_uid(o, NULL, NULL), uid);
}

void ctl_owner_reference(struct arena *a, struct pb_node *o, const struct kobj *owner)
{
        struct pb_node *r = pb_new(a, PB_MAP, STR(""));

        pb_put_str(a, r, "apiVersion", pb_get_str(owner->node, "apiVersion", STR("")));
        pb_put_str(a, r, "kind", pb_get_str(owner->node, "kind", STR("")));
        pb_put_str(a, r, "name", owner->name);
        pb_put_str(a, r, "uid", owner->uid);
        kube_put_bool(a, r, "controller", true);
        kube_put_bool(a, r, "blockOwnerDeletion", true);
        pb_push(a, kube_list_at(a, kube_map(a, o, "metadata"), "ownerReferences"), r);
}

static const struct pb_node *condition(const struct pb_node *o, const char *type)
{
        const struct pb_node *cs = pb_get_path(o, "status.conditions");

        for (size_t i = 0; cs && cs->kind == PB_LIST && i < cs->n; i++)
                if (str_eqc(pb_get_str(cs->v[i], "type", STR("")), type))
                        return cs->v[i];
        return NULL;
}

bool ctl_pod_ready(const struct pb_node *pod)
{
        return str_eqc(pb_get_str(condition(pod, "Ready"), "status", STR("")), "True");
}

int64_t ctl_seconds_since(struct kube_api *api, struct str rfc3339)
{
        uint64_t then;

        if (!clock_parse_rfc3339(rfc3339, &then))
                return 0;
        uint64_t now = api->now_us();
        return now > then ? (int64_t)((now - then) / 1000000) : 0;
}

int64_t ctl_pod_ready_for(struct kube_api *api, const struct pb_node *pod)
{
        return ctl_pod_ready(pod) ? ctl_seconds_since(api, pb_get_str(condition(pod, "Ready"), "lastTransitionTime", STR(""))) : -1;
}

bool ctl_pod_active(const struct kobj *pod)
{
        struct str phase = pb_get_str(pod->node, "status.phase", STR(""));

        return !ctl_deleting(pod) && !str_eqc(phase, "Succeeded") && !str_eqc(phase, "Failed");
}

bool ctl_condition(struct kube_controllers *c, struct pb_node *o, const char *type, const char *status, const char *reason,
                   struct str message)
{
        struct pb_node *list = kube_list_at(c->a, kube_map(c->a, o, "status"), "conditions"), *k = (struct pb_node *)condition(o, type);
        bool moved = !k || !str_eqc(pb_get_str(k, "status", STR("")), status);
        bool same = !moved && str_eqc(pb_get_str(k, "reason", STR("")), reason) && str_eq(pb_get_str(k, "message", STR("")), message);

        if (same)
                return false;
        if (!k) {
                k = pb_new(c->a, PB_MAP, STR(""));
                pb_push(c->a, list, k);
        }
        pb_put_str(c->a, k, "type", str_of(type));
        pb_put_str(c->a, k, "status", str_of(status));
        pb_put_str(c->a, k, "reason", str_of(reason));
        pb_put_str(c->a, k, "message", message);
        if (str_eqc(pb_get_str(o, "kind", STR("")), "Deployment"))
                pb_put_str(c->a, k, "lastUpdateTime", kube_now_text(c->api, c->a));
        if (moved)
                pb_put_str(c->a, k, "lastTransitionTime", kube_now_text(c->api, c->a));
        return true;
}

/* ---- who is concerned by a change ---- */

static void mark_owners(struct kube_controllers *c, const struct kobj *o)
{
        struct str kind, name;

        if (!ctl_controller_uid(o, &kind, &name).n)
                return;
        if (str_eqc(kind, "ReplicaSet"))
                ctl_mark(c, CTL_REPLICASET, o->ns, name);
        else if (str_eqc(kind, "Deployment"))
                ctl_mark(c, CTL_DEPLOYMENT, o->ns, name);
}

static void mark_services(struct kube_controllers *c, struct str ns)
{
        struct kobj *const *v;
        size_t n = kube_store_range(c->api->store, kube_b.services, ns, &v);

        for (size_t i = 0; i < n; i++)
                ctl_mark(c, CTL_SERVICE, v[i]->ns, v[i]->name);
}

static void mark_unscheduled(struct kube_controllers *c)
{
        struct kobj *const *v;
        size_t n = kube_store_range(c->api->store, kube_b.pods, (struct str){ NULL, 0 }, &v);

        for (size_t i = 0; i < n; i++)
                if (!pb_get_str(v[i]->node, "spec.nodeName", STR("")).n)
                        ctl_mark(c, CTL_POD, v[i]->ns, v[i]->name);
}

static void mark_owner_uids(struct kube_controllers *c, const struct kobj *o)
{
        const struct pb_node *refs = o->nowners ? pb_get_path(o->node, "metadata.ownerReferences") : NULL;

        for (size_t i = 0; refs && i < refs->n; i++)
                ctl_mark(c, CTL_OWNER, STR(""), pb_get_str(refs->v[i], "uid", STR("")));
}

/* A label by its key, which may hold dots. */
static struct str label(const struct kobj *o, const char *key, struct str otherwise)
{
        const struct pb_node *n = pb_get(pb_get_path(o->node, "metadata.labels"), key);

        return n ? n->text : otherwise;
}

static void mark_by_kind(struct kube_controllers *c, const struct kobj *o)
{
        if (o->bucket == kube_b.pods) {
                ctl_mark(c, CTL_POD, o->ns, o->name);
                mark_services(c, o->ns);
        } else if (o->bucket == kube_b.replicasets) {
                ctl_mark(c, CTL_REPLICASET, o->ns, o->name);
        } else if (o->bucket == kube_b.deployments) {
                ctl_mark(c, CTL_DEPLOYMENT, o->ns, o->name);
        } else if (o->bucket == kube_b.services) {
                ctl_mark(c, CTL_SERVICE, o->ns, o->name);
        } else if (o->bucket == kube_b.endpoints) {
                /* Endpoints of no Service are the user's, perhaps made before it. */
                if (kube_store_get(c->api->store, kube_b.services, o->ns, o->name))
                        ctl_mark(c, CTL_SERVICE, o->ns, o->name);
        } else if (o->bucket == kube_b.endpointslices) {
                ctl_mark(c, CTL_SERVICE, o->ns, label(o, "kubernetes.io/service-name", o->name));
        } else if (o->bucket == kube_b.namespaces) {
                ctl_mark(c, CTL_NAMESPACE, STR(""), o->name);
        } else if (o->bucket == kube_b.nodes) {
                ctl_mark(c, CTL_NODE, STR(""), o->name);
                mark_unscheduled(c);
        }
}

static void look(struct kube_controllers *c, const struct kube_change *ch)
{
        const struct kobj *o = ch->now;
        bool gone = ch->type == KUBE_DELETED;

        mark_by_kind(c, o);
        mark_owners(c, o);
        if (ch->before && ch->before->nowners && ch->before != o)
                mark_owners(c, ch->before);
        if (o->nowners && (gone || ch->type == KUBE_ADDED))
                mark_owner_uids(c, o);
        if ((gone && kube_store_has_dependents(c->api->store, o->uid)) || (!gone && ctl_deleting(o)))
                ctl_mark(c, CTL_OWNER, STR(""), o->uid);
        /* A namespace waits for its content to go, and its default objects come back. */
        if (gone && o->ns.n)
                ctl_mark(c, CTL_NAMESPACE, STR(""), o->ns);
}

/* ---- working ---- */

static bool any_dirty(const struct kube_controllers *c)
{
        for (unsigned q = 0; q < CTL_QUEUES; q++)
                if (c->dirty[q].live)
                        return true;
        return false;
}

static void read_changes(struct kube_controllers *c)
{
        const struct kube_change *ch;

        while (c->pos < kube_store_head(c->api->store)) {
                ch = kube_store_change(c->api->store, c->pos++);
                if (ch)
                        look(c, ch);
        }
}

static void run_queue(struct kube_controllers *c, unsigned q, unsigned *budget)
{
        struct strmap now = c->dirty[q];

        c->dirty[q] = (struct strmap)STRMAP_INIT;
        STRMAP_EACH (&now, it) {
                ptrdiff_t slash = str_chr(it->key, '/');
                struct str ns = str_sub(it->key, 0, (size_t)slash), name = str_sub(it->key, (size_t)slash + 1, it->key.n);

                if (!*budget) { /* the loop has others to serve: the rest comes in its next turn */
                        strmap_set(&c->dirty[q], it->key, &c->dirty[q]);
                        continue;
                }
                --*budget;
                arena_reset(&c->arena);
                work[q](c, ns, name);
        }
        strmap_fini(&now);
}

static void turn(struct kube_controllers *c)
{
        unsigned budget = KEYS_A_TURN;

        read_changes(c);
        for (unsigned q = 0; q < CTL_QUEUES; q++)
                run_queue(c, q, &budget);
}

static void on_task(struct loop_task *t)
{
        struct kube_controllers *c = t->arg;

        turn(c);
        if (any_dirty(c))
                kube_controllers_kick(c);
}

void kube_controllers_kick(struct kube_controllers *c)
{
        loop_defer(c->loop, &c->task);
}

void kube_controllers_settle(struct kube_controllers *c)
{
        for (unsigned i = 0; i < 1000; i++) {
                turn(c);
                kube_store_commit(c->api->store);
                if (!any_dirty(c) && c->pos == kube_store_head(c->api->store))
                        return;
        }
}

static void retry(struct kube_controllers *c)
{
        for (unsigned q = 0; q < CTL_QUEUES; q++) {
                struct strmap later = c->later[q];

                c->later[q] = (struct strmap)STRMAP_INIT;
                STRMAP_EACH (&later, it)
                        strmap_set(&c->dirty[q], it->key, &c->dirty[q]);
                strmap_fini(&later);
        }
}

static void on_tick(struct loop_timer *t)
{
        struct kube_controllers *c = t->arg;
        struct kobj *const *v;
        static const unsigned every = EVENTS_EVERY_TICKS;

        retry(c);
        size_t n = kube_store_range(c->api->store, kube_b.nodes, (struct str){ NULL, 0 }, &v);
        for (size_t i = 0; i < n; i++)
                ctl_mark(c, CTL_NODE, STR(""), v[i]->name);
        if (loop_now_ms(c->loop) / TICK_MS % every == 0)
                ctl_expire_events(c);
        if (any_dirty(c))
                kube_controllers_kick(c);
        loop_timer_arm(c->loop, t, TICK_MS);
}

/* ---- life ---- */

static void mark_everything(struct kube_controllers *c)
{
        for (unsigned b = 0; b < kube_buckets_n(); b++) {
                struct kobj *const *v;
                size_t n = kube_store_range(c->api->store, b, (struct str){ NULL, 0 }, &v);

                for (size_t i = 0; i < n; i++) {
                        mark_by_kind(c, v[i]);
                        mark_owner_uids(c, v[i]);
                        if (ctl_deleting(v[i]))
                                ctl_mark(c, CTL_OWNER, STR(""), v[i]->uid);
                }
        }
}

struct kube_controllers *kube_controllers_new(struct loop *l, struct kube_api *api)
{
        struct kube_controllers *c = MEM_NEW(struct kube_controllers);

        c->loop = l;
        c->api = api;
        c->a = &c->arena;
        arena_init(&c->arena, 65536);
        c->pos = kube_store_head(api->store);
        c->task = (struct loop_task){ .fn = on_task, .arg = c };
        c->tick = (struct loop_timer){ .fn = on_tick, .arg = c };
        mark_everything(c);
        if (l) {
                loop_timer_arm(l, &c->tick, TICK_MS);
                kube_controllers_kick(c);
        }
        return c;
}

void kube_controllers_free(struct kube_controllers *c)
{
        if (!c)
                return;
        if (c->loop) {
                loop_timer_stop(c->loop, &c->tick);
                loop_undefer(c->loop, &c->task);
        }
        for (unsigned q = 0; q < CTL_QUEUES; q++) {
                strmap_fini(&c->dirty[q]);
                strmap_fini(&c->later[q]);
        }
        arena_fini(&c->arena);
        free(c);
}
