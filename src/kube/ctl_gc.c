/* What goes when something else goes: dependents by ownerReferences, and the content of namespaces. Also what every namespace has. */
#include "kube/ctl.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>

/* ---- finalizers and owner references ---- */

static bool has_finalizer(const struct kobj *o, const char *name)
{
        const struct pb_node *l = pb_get_path(o->node, "metadata.finalizers");

        for (size_t i = 0; l && l->kind == PB_LIST && i < l->n; i++)
                if (str_eqc(l->v[i]->text, name))
                        return true;
        return false;
}

static void remove_from(struct pb_node *list, size_t i)
{
        memmove(list->v + i, list->v + i + 1, (list->n - 1 - i) * sizeof(*list->v));
        list->n--;
}

static void drop_finalizer(struct kube_controllers *c, struct kobj *o, const char *name)
{
        struct pb_node *n = pb_clone(c->a, o->node), *l = pb_get_path(n, "metadata.finalizers");

        for (size_t i = l ? l->n : 0; i-- > 0;)
                if (str_eqc(l->v[i]->text, name))
                        remove_from(l, i);
        if (l && !l->n)
                pb_del(pb_get(n, "metadata"), "finalizers");
        kube_api_update(c->api, o, n, c->a);
}

static void drop_reference(struct kube_controllers *c, struct kobj *o, struct str uid)
{
        struct pb_node *n = pb_clone(c->a, o->node), *l = pb_get_path(n, "metadata.ownerReferences");

        for (size_t i = l ? l->n : 0; i-- > 0;)
                if (str_eq(pb_get_str(l->v[i], "uid", STR("")), uid))
                        remove_from(l, i);
        if (l && !l->n)
                pb_del(pb_get(n, "metadata"), "ownerReferences");
        kube_api_update(c->api, o, n, c->a);
}

/* The reference of `o` to `uid`, and whether another owner still lives. */
static const struct pb_node *reference(struct kube_controllers *c, const struct kobj *o, struct str uid, bool *other)
{
        const struct pb_node *l = o->nowners ? pb_get_path(o->node, "metadata.ownerReferences") : NULL, *mine = NULL;

        *other = false;
        for (size_t i = 0; l && i < l->n; i++) {
                struct str u = pb_get_str(l->v[i], "uid", STR(""));
                const struct kobj *owner = kube_store_by_uid(c->api->store, u);

                if (str_eq(u, uid))
                        mine = l->v[i];
                else if (owner && !ctl_deleting(owner))
                        *other = true;
        }
        return mine;
}

/* One dependent of an owner that is gone or going. True: it still blocks the owner's end. */
static bool dependent(struct kube_controllers *c, struct kobj *o, struct str uid, const char *how)
{
        bool other;
        const struct pb_node *ref = reference(c, o, uid, &other);

        if (!ref)
                return false;
        if (!strcmp(how, "orphan") || other) {
                drop_reference(c, o, uid);
                return false;
        }
        bool blocks = kube_bool(ref, "blockOwnerDeletion", false), foreground = !strcmp(how, "foreground");
        if (!ctl_deleting(o))
                kube_api_delete(c->api, o, foreground && kube_store_has_dependents(c->api->store, o->uid) ? "Foreground" : "Background", -1,
                                c->a);
        return blocks && kube_store_get(c->api->store, o->bucket, o->ns, o->name) != NULL;
}

static bool all_dependents(struct kube_controllers *c, struct str uid, const char *how)
{
        bool blocked = false;

        for (unsigned b = 0; b < kube_buckets_n() && kube_store_has_dependents(c->api->store, uid); b++) {
                struct kobj **v;
                size_t n = kube_store_list(c->api->store, b, (struct str){ NULL, 0 }, &v);

                for (size_t i = 0; i < n; i++)
                        if (v[i]->nowners)
                                blocked |= dependent(c, v[i], uid, how);
                kube_store_list_free(v, n);
        }
        return blocked;
}

void ctl_owner(struct kube_controllers *c, struct str ns, struct str uid)
{
        struct kobj *owner = kube_store_by_uid(c->api->store, uid);

        if (!owner) {
                all_dependents(c, uid, "background");
                return;
        }
        if (!ctl_deleting(owner))
                return;
        kobj_ref(owner);
        if (has_finalizer(owner, "orphan")) {
                all_dependents(c, uid, "orphan");
                drop_finalizer(c, owner, "orphan");
        } else if (has_finalizer(owner, "foregroundDeletion") && !all_dependents(c, uid, "foreground")) {
                drop_finalizer(c, owner, "foregroundDeletion");
        }
        kobj_unref(owner);
}

/* ---- namespaces ---- */

static void ensure(struct kube_controllers *c, unsigned bucket, struct str ns, const char *name, struct str json)
{
        struct pb_node *o = NULL;
        struct diags d;
        struct str why = STR("");

        if (kube_store_get(c->api->store, bucket, ns, str_of(name)))
                return;
        diags_init(&d);
        if (!pb_parse_json(json, STR("built-in"), c->a, &o, &d) || !kube_api_create(c->api, bucket, o, c->a, &why)) {
                LOG(LOG_WARN, "controllers", "cannot make %s in namespace " STR_FMT ": " STR_FMT, name, STR_ARG(ns), STR_ARG(why));
                ctl_again(c, CTL_NAMESPACE, STR(""), ns);
        }
        diags_fini(&d);
}

static void defaults(struct kube_controllers *c, struct str ns)
{
        struct buf b = BUF_INIT;

        ensure(c, kube_b.serviceaccounts, ns, "default",
               arena_printf(c->a,
                            "{\"apiVersion\":\"v1\",\"kind\":\"ServiceAccount\",\"metadata\":{\"name\":\"default\",\"namespace\":\"" STR_FMT
                            "\"}}",
                            STR_ARG(ns)));
        if (!c->api->ca_pem.n)
                return;
        buf_printf(&b,
                   "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"kube-root-ca.crt\",\"namespace\":\"" STR_FMT
                   "\",\"annotations\":"
                   "{\"kubernetes.io/description\":\"The certificate authority of this cluster's API server.\"}},\"data\":{\"ca.crt\":",
                   STR_ARG(ns));
        buf_json(&b, c->api->ca_pem);
        buf_cstr(&b, "}}");
        ensure(c, kube_b.configmaps, ns, "kube-root-ca.crt", buf_view(&b));
        buf_fini(&b);
}

/* Deletes what is left in the namespace; how much still is. */
static size_t empty(struct kube_controllers *c, struct str ns)
{
        size_t left = 0;

        for (unsigned b = 0; b < kube_buckets_n(); b++) {
                struct kobj **v;

                if (!kube_bucket_resource(b)->namespaced)
                        continue;
                size_t n = kube_store_list(c->api->store, b, ns, &v);
                for (size_t i = 0; i < n; i++) {
                        if (!ctl_deleting(v[i]))
                                kube_api_delete(c->api, v[i], "Background", -1, c->a);
                        left += kube_store_get(c->api->store, b, v[i]->ns, v[i]->name) != NULL;
                }
                kube_store_list_free(v, n);
        }
        return left;
}

void ctl_namespace(struct kube_controllers *c, struct str unused, struct str name)
{
        struct kobj *ns = kube_store_get(c->api->store, kube_b.namespaces, STR(""), name);

        if (!ns)
                return;
        if (!ctl_deleting(ns)) {
                defaults(c, name);
                return;
        }
        if (empty(c, name))
                return; /* the last one's end wakes us */
        ns = kube_store_get(c->api->store, kube_b.namespaces, STR(""), name);
        if (!ns)
                return;
        struct pb_node *n = pb_clone(c->a, ns->node), *l = pb_get_path(n, "spec.finalizers");
        for (size_t i = l ? l->n : 0; i-- > 0;)
                if (str_eqc(l->v[i]->text, "kubernetes"))
                        remove_from(l, i);
        kube_api_update(c->api, ns, n, c->a);
}
