/* Deployments and ReplicaSets. A Deployment owns one ReplicaSet per version of its pod template, and a rolling update moves replicas from
 * the old ones to the new one within maxSurge and maxUnavailable; a ReplicaSet keeps its number of pods. kubectl's rollout commands live on
 * the revision annotations, the conditions and observedGeneration written here. */
#include "kube/ctl.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define REVISION     "deployment.kubernetes.io/revision"
#define DESIRED      "deployment.kubernetes.io/desired-replicas"
#define MAX_REPLICAS "deployment.kubernetes.io/max-replicas"
#define HASH_LABEL   "pod-template-hash"

/* ---- ReplicaSets ---- */

enum { BURST = 100 }; /* pods made or deleted in one step */

struct counts {
        int64_t all, labelled, ready, available;
        int64_t soonest_s; /* until the next pod becomes available; 0: none */
};

static size_t pods_of(struct kube_controllers *c, const struct kobj *rs, struct kobj ***out)
{
        struct kobj **v;
        size_t n = kube_store_list(c->api->store, kube_b.pods, rs->ns, &v), k = 0;

        for (size_t i = 0; i < n; i++)
                if (ctl_controlled_by(v[i], rs->uid) && ctl_pod_active(v[i]))
                        v[k++] = v[i];
                else
                        kobj_unref(v[i]);
        *out = v;
        return k;
}

static struct counts count_pods(struct kube_controllers *c, const struct kobj *rs, struct kobj **v, size_t n)
{
        struct counts k = { .all = (int64_t)n };
        struct kube_selector s;
        int64_t min_ready = kube_int(rs->node, "spec.minReadySeconds", 0);

        kube_labels_from_map(pb_get_path(rs->node, "spec.template.metadata.labels"), c->a, &s);
        for (size_t i = 0; i < n; i++) {
                int64_t since = ctl_pod_ready_for(c->api, v[i]->node);

                k.labelled += kube_labels_match(&s, pb_get_path(v[i]->node, "metadata.labels"));
                k.ready += since >= 0;
                k.available += since >= min_ready && since >= 0;
                if (since >= 0 && since < min_ready)
                        k.soonest_s = 1;
        }
        return k;
}

static bool create_pod(struct kube_controllers *c, const struct kobj *rs)
{
        struct pb_node *o = pb_new(c->a, PB_MAP, STR("")), *meta = kube_map(c->a, o, "metadata");
        const struct pb_node *t = pb_get_path(rs->node, "spec.template");
        static const char *const copied[] = { "labels", "annotations", "finalizers" };
        struct str why = STR("");

        pb_put_str(c->a, o, "apiVersion", STR("v1"));
        pb_put_str(c->a, o, "kind", STR("Pod"));
        pb_put_str(c->a, meta, "generateName", arena_printf(c->a, STR_FMT "-", STR_ARG(rs->name)));
        pb_put_str(c->a, meta, "namespace", rs->ns);
        for (size_t i = 0; i < ARRAY_LEN(copied); i++)
                if (pb_get(pb_get(t, "metadata"), copied[i]))
                        pb_put(c->a, meta, str_of(copied[i]), pb_clone(c->a, pb_get(pb_get(t, "metadata"), copied[i])));
        pb_put(c->a, o, STR("spec"), pb_clone(c->a, pb_get(t, "spec")));
        ctl_owner_reference(c->a, o, rs);
        struct kobj *pod = kube_api_create(c->api, kube_b.pods, o, c->a, &why);
        if (pod)
                kube_event(c->api, rs, "Normal", "SuccessfulCreate", "replicaset-controller", "Created pod: " STR_FMT, STR_ARG(pod->name));
        else
                kube_event(c->api, rs, "Warning", "FailedCreate", "replicaset-controller", "Error creating: " STR_FMT, STR_ARG(why));
        return pod != NULL;
}

/* Those to delete first: not scheduled, not running, not ready, then the newest. */
static int worse_first(const void *x, const void *y)
{
        const struct kobj *a = *(struct kobj *const *)x, *b = *(struct kobj *const *)y;
        int ka[3] = { pb_get_str(a->node, "spec.nodeName", STR("")).n > 0, str_eqc(pb_get_str(a->node, "status.phase", STR("")), "Running"),
                      ctl_pod_ready(a->node) };
        int kb[3] = { pb_get_str(b->node, "spec.nodeName", STR("")).n > 0, str_eqc(pb_get_str(b->node, "status.phase", STR("")), "Running"),
                      ctl_pod_ready(b->node) };

        for (int i = 0; i < 3; i++)
                if (ka[i] != kb[i])
                        return ka[i] - kb[i];
        return str_cmp(pb_get_str(b->node, "metadata.creationTimestamp", STR("")),
                       pb_get_str(a->node, "metadata.creationTimestamp", STR("")));
}

/* False: some could not be made; the status says so and it is tried again. */
static bool adjust(struct kube_controllers *c, const struct kobj *rs, struct kobj **v, size_t n, int64_t want)
{
        int64_t missing = want - (int64_t)n;
        bool ok = true;

        for (int64_t i = 0; i < missing && i < BURST && ok; i++)
                ok = create_pod(c, rs);
        if (missing > BURST)
                ctl_again(c, CTL_REPLICASET, rs->ns, rs->name);
        if (missing < 0)
                qsort(v, n, sizeof(*v), worse_first);
        for (int64_t i = 0; i < -missing && i < BURST; i++)
                if (kube_api_delete(c->api, v[i], NULL, -1, c->a))
                        kube_event(c->api, rs, "Normal", "SuccessfulDelete", "replicaset-controller", "Deleted pod: " STR_FMT,
                                   STR_ARG(v[i]->name));
        return ok;
}

static void put_count(struct kube_controllers *c, struct pb_node *st, const char *key, int64_t v, bool always)
{
        if (v || always)
                kube_put_int(c->a, st, key, v);
        else
                pb_del(st, key);
}

static void remove_condition(struct pb_node *o, const char *type)
{
        struct pb_node *l = pb_get_path(o, "status.conditions");

        for (size_t i = l ? l->n : 0; i-- > 0;)
                if (str_eqc(pb_get_str(l->v[i], "type", STR("")), type)) {
                        memmove(l->v + i, l->v + i + 1, (l->n - 1 - i) * sizeof(*l->v));
                        l->n--;
                }
        if (l && !l->n)
                pb_del(pb_get(o, "status"), "conditions");
}

void ctl_replicaset(struct kube_controllers *c, struct str ns, struct str name)
{
        struct kobj *rs = kube_store_get(c->api->store, kube_b.replicasets, ns, name), **v;

        if (!rs)
                return;
        kobj_ref(rs);
        size_t n = pods_of(c, rs, &v);
        bool ok = ctl_deleting(rs) || adjust(c, rs, v, n, kube_int(rs->node, "spec.replicas", 1));
        kube_store_list_free(v, n);
        n = pods_of(c, rs, &v);
        struct counts k = count_pods(c, rs, v, n);
        kube_store_list_free(v, n);

        struct pb_node *o = pb_clone(c->a, rs->node), *st = kube_map(c->a, o, "status");
        put_count(c, st, "replicas", k.all, true);
        put_count(c, st, "fullyLabeledReplicas", k.labelled, false);
        put_count(c, st, "readyReplicas", k.ready, false);
        put_count(c, st, "availableReplicas", k.available, false);
        kube_put_int(c->a, st, "observedGeneration", kube_int(o, "metadata.generation", 1));
        if (ok)
                remove_condition(o, "ReplicaFailure");
        else
                ctl_condition(c, o, "ReplicaFailure", "True", "FailedCreate", STR("pods could not be created: see the events"));
        kube_api_update(c->api, rs, o, c->a);
        if (!ok || k.soonest_s)
                ctl_again(c, CTL_REPLICASET, ns, name);
        kobj_unref(rs);
}

/* ---- Deployments ---- */

struct rollout {
        struct kube_controllers *c;
        struct kobj *d;
        struct kobj **rs; /* all of its ReplicaSets */
        size_t n;
        struct kobj *fresh; /* the one of the present template */
        int64_t want, surge, unavailable;
};

static struct str annotation(const struct pb_node *o, const char *key)
{
        const struct pb_node *n = pb_get(pb_get_path(o, "metadata.annotations"), key);

        return n ? n->text : STR("");
}

static int64_t revision(const struct kobj *rs)
{
        int64_t v = 0;

        str_i64(annotation(rs->node, REVISION), &v);
        return v;
}

/* "25%" of the wanted replicas, or a number. */
static int64_t share(const struct pb_node *n, int64_t of, bool up, int64_t otherwise)
{
        struct str s = n ? n->text : STR("");
        int64_t v;

        if (!str_ends(s, STR("%")))
                return str_i64(s, &v) ? v : otherwise;
        s.n--;
        return str_i64(s, &v) ? (v * of + (up ? 99 : 0)) / 100 : otherwise;
}

static struct pb_node *template_without_hash(struct kube_controllers *c, const struct pb_node *o)
{
        struct pb_node *t = pb_clone(c->a, pb_get_path(o, "spec.template")), *labels = pb_get_path(t, "metadata.labels");

        if (labels)
                pb_del(labels, HASH_LABEL);
        return t;
}

static struct kobj *find_fresh(struct rollout *r)
{
        struct pb_node *want = template_without_hash(r->c, r->d->node);
        struct kobj *found = NULL;

        for (size_t i = 0; i < r->n; i++)
                if (!ctl_deleting(r->rs[i]) && pb_node_eq(template_without_hash(r->c, r->rs[i]->node), want) &&
                    (!found || revision(r->rs[i]) > revision(found)))
                        found = r->rs[i];
        return found;
}

static void find_replicasets(struct rollout *r)
{
        struct kobj **v;
        size_t n = kube_store_list(r->c->api->store, kube_b.replicasets, r->d->ns, &v);

        r->rs = v;
        r->n = 0;
        for (size_t i = 0; i < n; i++)
                if (ctl_controlled_by(v[i], r->d->uid))
                        r->rs[r->n++] = v[i];
                else
                        kobj_unref(v[i]);
        r->fresh = find_fresh(r);
}

static void again_find(struct rollout *r)
{
        kube_store_list_free(r->rs, r->n);
        find_replicasets(r);
}

static int64_t spec_replicas(const struct kobj *rs)
{
        return kube_int(rs->node, "spec.replicas", 0);
}

static int64_t total(const struct rollout *r, bool old_only)
{
        int64_t n = 0;

        for (size_t i = 0; i < r->n; i++)
                if (!old_only || r->rs[i] != r->fresh)
                        n += spec_replicas(r->rs[i]);
        return n;
}

static int64_t total_status(const struct rollout *r, const char *path)
{
        int64_t n = 0;

        for (size_t i = 0; i < r->n; i++)
                n += kube_int(r->rs[i]->node, path, 0);
        return n;
}

static void set_annotation(struct kube_controllers *c, struct pb_node *o, const char *key, int64_t v)
{
        pb_put_str(c->a, kube_map(c->a, kube_map(c->a, o, "metadata"), "annotations"), key, arena_printf(c->a, "%lld", (long long)v));
}

static void scale(struct rollout *r, struct kobj *rs, int64_t to)
{
        int64_t from = spec_replicas(rs);
        struct pb_node *o;

        if (to < 0)
                to = 0;
        if (from == to)
                return;
        o = pb_clone(r->c->a, rs->node);
        kube_put_int(r->c->a, pb_get(o, "spec"), "replicas", to);
        set_annotation(r->c, o, DESIRED, r->want);
        set_annotation(r->c, o, MAX_REPLICAS, r->want + r->surge);
        if (kube_api_update(r->c->api, rs, o, r->c->a))
                kube_event(r->c->api, r->d, "Normal", "ScalingReplicaSet", "deployment-controller",
                           "Scaled %s replica set " STR_FMT " from %lld to %lld", to > from ? "up" : "down", STR_ARG(rs->name),
                           (long long)from, (long long)to);
        again_find(r);
}

/* A short name for a template, in the alphabet of generated names. */
static struct str template_hash(struct kube_controllers *c, const struct kobj *d, unsigned salt)
{
        static const char alphabet[] = "bcdfghjklmnpqrstvwxz2456789";
        struct buf b = BUF_INIT;
        char *out = arena_alloc(c->a, 11);

        pb_node_json(pb_get_path(d->node, "spec.template"), &b);
        uint64_t h = hash_bytes(b.p, b.n, salt);
        buf_fini(&b);
        for (unsigned i = 0; i < 10; i++, h /= sizeof(alphabet) - 1)
                out[i] = alphabet[h % (sizeof(alphabet) - 1)];
        out[10] = 0;
        return str_make(out, 10);
}

static int64_t newest_revision(const struct rollout *r)
{
        int64_t v = 0;

        for (size_t i = 0; i < r->n; i++)
                v = revision(r->rs[i]) > v ? revision(r->rs[i]) : v;
        return v;
}

static void copy_annotations(struct kube_controllers *c, struct pb_node *o, const struct kobj *d)
{
        const struct pb_node *from = pb_get_path(d->node, "metadata.annotations");

        for (size_t i = 0; from && from->kind == PB_MAP && i < from->n; i++)
                if (!str_starts(from->keys[i], STR("deployment.kubernetes.io/")) &&
                    !str_eqc(from->keys[i], "kubectl.kubernetes.io/last-applied-configuration"))
                        pb_put(c->a, kube_map(c->a, kube_map(c->a, o, "metadata"), "annotations"), from->keys[i],
                               pb_clone(c->a, from->v[i]));
}

static void create_fresh(struct rollout *r, bool recreate)
{
        struct kube_controllers *c = r->c;
        struct arena *a = c->a;
        struct str hash, name, why = STR("");
        unsigned salt = (unsigned)kube_int(r->d->node, "status.collisionCount", 0);

        do {
                hash = template_hash(c, r->d, salt++);
                name = arena_printf(a, STR_FMT "-" STR_FMT, STR_ARG(r->d->name), STR_ARG(hash));
        } while (kube_store_get(c->api->store, kube_b.replicasets, r->d->ns, name));
        struct pb_node *o = pb_new(a, PB_MAP, STR("")), *meta = kube_map(a, o, "metadata"), *spec = kube_map(a, o, "spec");
        struct pb_node *t = pb_clone(a, pb_get_path(r->d->node, "spec.template")),
                       *sel = pb_clone(a, pb_get_path(r->d->node, "spec.selector"));
        pb_put_str(a, o, "apiVersion", STR("apps/v1"));
        pb_put_str(a, o, "kind", STR("ReplicaSet"));
        pb_put_str(a, meta, "name", name);
        pb_put_str(a, meta, "namespace", r->d->ns);
        pb_put_str(a, kube_map(a, kube_map(a, t, "metadata"), "labels"), HASH_LABEL, hash);
        pb_put_str(a, kube_map(a, sel, "matchLabels"), HASH_LABEL, hash);
        pb_put(a, meta, STR("labels"), pb_clone(a, pb_get_path(t, "metadata.labels")));
        pb_put(a, spec, STR("template"), t);
        pb_put(a, spec, STR("selector"), sel);
        if (pb_get_path(r->d->node, "spec.minReadySeconds"))
                kube_put_int(a, spec, "minReadySeconds", kube_int(r->d->node, "spec.minReadySeconds", 0));
        int64_t room = r->want + r->surge - total(r, true), n = room < r->want ? room : r->want;
        kube_put_int(a, spec, "replicas", recreate ? r->want : n < 0 ? 0 : n);
        copy_annotations(c, o, r->d);
        set_annotation(c, o, REVISION, newest_revision(r) + 1);
        set_annotation(c, o, DESIRED, r->want);
        set_annotation(c, o, MAX_REPLICAS, r->want + r->surge);
        ctl_owner_reference(a, o, r->d);
        if (kube_api_create(c->api, kube_b.replicasets, o, a, &why)) {
                if (kube_int(o, "spec.replicas", 0))
                        kube_event(c->api, r->d, "Normal", "ScalingReplicaSet", "deployment-controller",
                                   "Scaled up replica set " STR_FMT " from 0 to %lld", STR_ARG(name),
                                   (long long)kube_int(o, "spec.replicas", 0));
        } else {
                kube_event(c->api, r->d, "Warning", "ReplicaSetCreateError", "deployment-controller",
                           "Failed to create new replica set \"" STR_FMT "\": " STR_FMT, STR_ARG(name), STR_ARG(why));
                ctl_again(c, CTL_DEPLOYMENT, r->d->ns, r->d->name);
        }
        again_find(r);
}

/* A rollback finds the old ReplicaSet again: it becomes the newest revision. */
static void renew_revision(struct rollout *r)
{
        int64_t newest = newest_revision(r);

        for (size_t i = 0; i < r->n; i++) {
                if (r->rs[i] == r->fresh || revision(r->rs[i]) < revision(r->fresh))
                        continue;
                struct pb_node *o = pb_clone(r->c->a, r->fresh->node);
                set_annotation(r->c, o, REVISION, newest + 1);
                kube_api_update(r->c->api, r->fresh, o, r->c->a);
                again_find(r);
                return;
        }
}

static void scale_old_down(struct rollout *r)
{
        int64_t fresh_down = r->fresh ? spec_replicas(r->fresh) - kube_int(r->fresh->node, "status.availableReplicas", 0) : 0;
        int64_t min_available = r->want - r->unavailable, may;

        if (fresh_down < 0)
                fresh_down = 0;
        may = total(r, false) - min_available - fresh_down;
        if (may <= 0)
                return; /* what statuses still call available may be on its way out already */
        /* First the pods of old versions that are of no use anyway. */
        for (size_t i = 0; i < r->n && may > 0; i++) {
                struct kobj *rs = r->rs[i];
                int64_t sick = spec_replicas(rs) - kube_int(rs->node, "status.availableReplicas", 0);

                if (rs == r->fresh || sick <= 0)
                        continue;
                if (sick > may)
                        sick = may;
                may -= sick;
                scale(r, rs, spec_replicas(rs) - sick);
                i = (size_t)-1; /* the list was read again: each pass takes away what it finds */
        }
        may = total_status(r, "status.availableReplicas") - min_available;
        for (size_t i = 0; i < r->n && may > 0; i++) {
                int64_t n = spec_replicas(r->rs[i]);

                if (r->rs[i] == r->fresh || !n)
                        continue;
                int64_t cut = n < may ? n : may;
                may -= cut;
                scale(r, r->rs[i], n - cut);
                i = (size_t)-1;
        }
}

static void roll(struct rollout *r)
{
        if (!r->fresh)
                create_fresh(r, false);
        else
                renew_revision(r);
        if (!r->fresh)
                return;
        int64_t have = spec_replicas(r->fresh);
        if (have > r->want) {
                scale(r, r->fresh, r->want);
        } else if (have < r->want) {
                int64_t room = r->want + r->surge - total(r, false), add = r->want - have;

                if (room > 0)
                        scale(r, r->fresh, have + (room < add ? room : add));
        }
        if (total(r, true))
                scale_old_down(r);
}

static void recreate(struct rollout *r)
{
        int64_t left = 0;

        for (size_t i = 0; i < r->n; i++)
                if (r->rs[i] != r->fresh && spec_replicas(r->rs[i])) {
                        scale(r, r->rs[i], 0);
                        i = (size_t)-1;
                }
        for (size_t i = 0; i < r->n; i++) {
                struct kobj *const *pods;
                size_t n = kube_store_range(r->c->api->store, kube_b.pods, r->d->ns, &pods);

                for (size_t k = 0; r->rs[i] != r->fresh && k < n; k++)
                        left += ctl_controlled_by(pods[k], r->rs[i]->uid);
        }
        if (left)
                return;
        if (!r->fresh)
                create_fresh(r, true);
        else
                renew_revision(r);
        if (r->fresh)
                scale(r, r->fresh, r->want);
}

static int older_first(const void *x, const void *y)
{
        int64_t a = revision(*(struct kobj *const *)x), b = revision(*(struct kobj *const *)y);

        return a < b ? -1 : a > b;
}

static void forget_history(struct rollout *r)
{
        int64_t keep = kube_int(r->d->node, "spec.revisionHistoryLimit", 10), idle = 0;

        qsort(r->rs, r->n, sizeof(*r->rs), older_first);
        for (size_t i = 0; i < r->n; i++)
                idle += r->rs[i] != r->fresh && !spec_replicas(r->rs[i]) && !kube_int(r->rs[i]->node, "status.replicas", 0) &&
                        !ctl_deleting(r->rs[i]);
        for (size_t i = 0; i < r->n && idle > keep; i++)
                if (r->rs[i] != r->fresh && !spec_replicas(r->rs[i]) && !kube_int(r->rs[i]->node, "status.replicas", 0) &&
                    !ctl_deleting(r->rs[i])) {
                        kube_api_delete(r->c->api, r->rs[i], "Background", -1, r->c->a);
                        idle--;
                }
}

static const struct pb_node *progressing(const struct pb_node *o)
{
        const struct pb_node *cs = pb_get_path(o, "status.conditions");

        for (size_t i = 0; cs && cs->kind == PB_LIST && i < cs->n; i++)
                if (str_eqc(pb_get_str(cs->v[i], "type", STR("")), "Progressing"))
                        return cs->v[i];
        return NULL;
}

/* Progressing: complete, moving, or stuck for longer than the deadline. */
static void progress(struct rollout *r, struct pb_node *o, int64_t updated, int64_t all, int64_t available)
{
        struct kube_controllers *c = r->c;
        const struct pb_node *was = progressing(r->d->node), *before = pb_get(r->d->node, "status");
        struct str name = r->fresh ? r->fresh->name : r->d->name;
        bool complete = updated == r->want && all == r->want && available == r->want && r->fresh;
        bool moved = updated != kube_int(before, "updatedReplicas", 0) || available > kube_int(before, "availableReplicas", 0) ||
                     kube_int(before, "observedGeneration", 0) != kube_int(o, "metadata.generation", 0);

        if (kube_bool(o, "spec.paused", false)) {
                ctl_condition(c, o, "Progressing", "Unknown", "DeploymentPaused", STR("Deployment is paused"));
                return;
        }
        if (complete) {
                ctl_condition(c, o, "Progressing", "True", "NewReplicaSetAvailable",
                              arena_printf(c->a, "ReplicaSet \"" STR_FMT "\" has successfully progressed.", STR_ARG(name)));
                return;
        }
        int64_t deadline = kube_int(o, "spec.progressDeadlineSeconds", 600);
        if (was && !moved && str_eqc(pb_get_str(was, "reason", STR("")), "ProgressDeadlineExceeded"))
                return;
        if (was && !moved && !str_eqc(pb_get_str(was, "reason", STR("")), "NewReplicaSetAvailable") &&
            ctl_seconds_since(c->api, pb_get_str(was, "lastUpdateTime", STR(""))) > deadline) {
                ctl_condition(c, o, "Progressing", "False", "ProgressDeadlineExceeded",
                              arena_printf(c->a, "ReplicaSet \"" STR_FMT "\" has timed out progressing.", STR_ARG(name)));
                return;
        }
        ctl_condition(
                c, o, "Progressing", "True", r->fresh && was ? "ReplicaSetUpdated" : "NewReplicaSetCreated",
                arena_printf(c->a,
                             r->fresh && was ? "ReplicaSet \"" STR_FMT "\" is progressing." : "Created new replica set \"" STR_FMT "\"",
                             STR_ARG(name)));
        if (moved && was)
                pb_put_str(c->a, (struct pb_node *)progressing(o), "lastUpdateTime", kube_now_text(c->api, c->a));
        ctl_again(c, CTL_DEPLOYMENT, r->d->ns, r->d->name); /* the deadline passes without a change */
}

static void write_status(struct rollout *r)
{
        struct kube_controllers *c = r->c;
        struct kobj *d = kube_store_get(c->api->store, kube_b.deployments, r->d->ns, r->d->name);

        if (!d)
                return;
        struct pb_node *o = pb_clone(c->a, d->node), *st = kube_map(c->a, o, "status");
        int64_t all = total_status(r, "status.replicas"), ready = total_status(r, "status.readyReplicas");
        int64_t available = total_status(r, "status.availableReplicas"),
                updated = r->fresh ? kube_int(r->fresh->node, "status.replicas", 0) : 0;
        int64_t missing = total(r, false) - available;

        put_count(c, st, "replicas", all, false);
        put_count(c, st, "updatedReplicas", updated, false);
        put_count(c, st, "readyReplicas", ready, false);
        put_count(c, st, "availableReplicas", available, false);
        put_count(c, st, "unavailableReplicas", missing < 0 ? 0 : missing, false);
        if (available >= r->want - r->unavailable)
                ctl_condition(c, o, "Available", "True", "MinimumReplicasAvailable", STR("Deployment has minimum availability."));
        else
                ctl_condition(c, o, "Available", "False", "MinimumReplicasUnavailable",
                              STR("Deployment does not have minimum availability."));
        progress(r, o, updated, all, available);
        kube_put_int(c->a, st, "observedGeneration", kube_int(o, "metadata.generation", 1));
        if (r->fresh)
                set_annotation(c, o, REVISION, revision(r->fresh));
        kube_api_update(c->api, d, o, c->a);
}

void ctl_deployment(struct kube_controllers *c, struct str ns, struct str name)
{
        struct rollout r = { .c = c, .d = kobj_ref(kube_store_get(c->api->store, kube_b.deployments, ns, name)) };
        const struct pb_node *ru = r.d ? pb_get_path(r.d->node, "spec.strategy.rollingUpdate") : NULL;

        if (!r.d)
                return;
        r.want = kube_int(r.d->node, "spec.replicas", 1);
        bool rolling = str_eqc(pb_get_str(r.d->node, "spec.strategy.type", STR("RollingUpdate")), "RollingUpdate");
        if (rolling) {
                r.surge = share(pb_get(ru, "maxSurge"), r.want, true, 1);
                r.unavailable = share(pb_get(ru, "maxUnavailable"), r.want, false, 0);
                if (!r.surge && !r.unavailable)
                        r.unavailable = 1;
                if (r.unavailable > r.want)
                        r.unavailable = r.want;
        }
        find_replicasets(&r);
        if (!ctl_deleting(r.d)) {
                if (kube_bool(r.d->node, "spec.paused", false)) {
                        if (r.fresh)
                                scale(&r, r.fresh, r.want - total(&r, true));
                } else if (rolling) {
                        roll(&r);
                } else {
                        recreate(&r);
                }
                write_status(&r);
                forget_history(&r);
        }
        kube_store_list_free(r.rs, r.n);
        kobj_unref(r.d);
}
