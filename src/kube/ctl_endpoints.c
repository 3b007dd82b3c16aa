/* Endpoints and EndpointSlices: the addresses behind each Service that has a selector. Pods that resolve a named port differently land in
 * different subsets and slices. */
#include "kube/ctl.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

enum { SLICE_MAX = 1000 };

/* Pods that have the same ports. */
struct group {
        struct str key;        /* the ports as text */
        struct pb_node *ports; /* in the form of Endpoints: name, port, protocol */
        struct kobj **pods;
        size_t n, cap;
};

struct work {
        struct kube_controllers *c;
        struct kobj *svc;
        struct group *g;
        size_t n, cap;
        bool unready_too; /* publishNotReadyAddresses */
};

/* The number behind a targetPort in this pod; 0: the pod has no port of that name. */
static int64_t resolve(const struct kobj *pod, const struct pb_node *sp)
{
        const struct pb_node *target = pb_get(sp, "targetPort"), *cs = pb_get_path(pod->node, "spec.containers");
        struct str protocol = pb_get_str(sp, "protocol", STR("TCP"));
        int64_t v;

        if (!target || target->kind == PB_NUMBER || str_i64(target->text, &v))
                return kube_int(sp, target ? "targetPort" : "port", 0);
        for (size_t i = 0; cs && i < cs->n; i++) {
                const struct pb_node *ps = pb_get(cs->v[i], "ports");

                for (size_t k = 0; ps && ps->kind == PB_LIST && k < ps->n; k++)
                        if (str_eq(pb_get_str(ps->v[k], "name", STR("")), target->text) &&
                            str_eq(pb_get_str(ps->v[k], "protocol", STR("TCP")), protocol))
                                return kube_int(ps->v[k], "containerPort", 0);
        }
        return 0;
}

static struct pb_node *ports_of(struct work *w, const struct kobj *pod)
{
        const struct pb_node *sps = pb_get_path(w->svc->node, "spec.ports");
        struct pb_node *out = pb_new(w->c->a, PB_LIST, STR(""));
        static const char *const copied[] = { "name", "protocol", "appProtocol" };

        for (size_t i = 0; sps && i < sps->n; i++) {
                int64_t port = resolve(pod, sps->v[i]);

                if (!port)
                        continue;
                struct pb_node *p = pb_new(w->c->a, PB_MAP, STR(""));
                for (size_t k = 0; k < ARRAY_LEN(copied); k++)
                        if (pb_get(sps->v[i], copied[k]))
                                pb_put_str(w->c->a, p, copied[k], pb_get_str(sps->v[i], copied[k], STR("")));
                kube_put_int(w->c->a, p, "port", port);
                pb_push(w->c->a, out, p);
        }
        return out;
}

static void add_pod(struct work *w, struct kobj *pod)
{
        struct pb_node *ports = ports_of(w, pod);
        struct buf b = BUF_INIT;
        struct group *g = NULL;

        pb_node_json(ports, &b);
        for (size_t i = 0; i < w->n && !g; i++)
                if (str_eq(w->g[i].key, buf_view(&b)))
                        g = &w->g[i];
        if (!g) {
                g = &VEC_PUSH(w->g, w->n, w->cap);
                *g = (struct group){ .key = arena_str(w->c->a, buf_view(&b)), .ports = ports };
        }
        buf_fini(&b);
        VEC_PUSH(g->pods, g->n, g->cap) = pod;
}

static bool counts(const struct kobj *pod)
{
        struct str phase = pb_get_str(pod->node, "status.phase", STR(""));

        return pb_get_str(pod->node, "status.podIP", STR("")).n && !str_eqc(phase, "Succeeded") && !str_eqc(phase, "Failed");
}

static bool is_ready(const struct work *w, const struct kobj *pod)
{
        return w->unready_too || (ctl_pod_ready(pod->node) && !ctl_deleting(pod));
}

static struct pb_node *target_ref(struct arena *a, const struct kobj *pod)
{
        struct pb_node *r = pb_new(a, PB_MAP, STR(""));

        pb_put_str(a, r, "kind", STR("Pod"));
        pb_put_str(a, r, "namespace", pod->ns);
        pb_put_str(a, r, "name", pod->name);
        pb_put_str(a, r, "uid", pod->uid);
        return r;
}

/* ---- Endpoints ---- */

static struct pb_node *subset(struct work *w, const struct group *g)
{
        struct arena *a = w->c->a;
        struct pb_node *s = pb_new(a, PB_MAP, STR(""));

        for (size_t i = 0; i < g->n; i++) {
                struct kobj *pod = g->pods[i];

                if (ctl_deleting(pod) && !w->unready_too)
                        continue;
                struct pb_node *e = pb_new(a, PB_MAP, STR(""));
                pb_put_str(a, e, "ip", pb_get_str(pod->node, "status.podIP", STR("")));
                if (pb_get_path(pod->node, "spec.hostname") && pb_get_path(pod->node, "spec.subdomain"))
                        pb_put_str(a, e, "hostname", pb_get_str(pod->node, "spec.hostname", STR("")));
                pb_put_str(a, e, "nodeName", pb_get_str(pod->node, "spec.nodeName", STR("")));
                pb_put(a, e, STR("targetRef"), target_ref(a, pod));
                pb_push(a, kube_list_at(a, s, is_ready(w, pod) ? "addresses" : "notReadyAddresses"), e);
        }
        if (!s->n)
                return NULL;
        if (g->ports->n)
                pb_put(a, s, STR("ports"), pb_clone(a, g->ports));
        return s;
}

static void copy_labels(struct work *w, struct pb_node *o)
{
        const struct pb_node *from = pb_get_path(w->svc->node, "metadata.labels");

        for (size_t i = 0; from && from->kind == PB_MAP && i < from->n; i++)
                pb_put(w->c->a, kube_map(w->c->a, kube_map(w->c->a, o, "metadata"), "labels"), from->keys[i],
                       pb_clone(w->c->a, from->v[i]));
}

static struct pb_node *skeleton(struct work *w, const char *version, const char *kind, struct str name)
{
        struct arena *a = w->c->a;
        struct pb_node *o = pb_new(a, PB_MAP, STR("")), *meta = kube_map(a, o, "metadata");

        pb_put_str(a, o, "apiVersion", str_of(version));
        pb_put_str(a, o, "kind", str_of(kind));
        pb_put_str(a, meta, "name", name);
        pb_put_str(a, meta, "namespace", w->svc->ns);
        return o;
}

/* Creates, or replaces what differs but for what the server keeps in metadata. */
static void write(struct work *w, unsigned bucket, struct str name, struct pb_node *o)
{
        struct kobj *old = kube_store_get(w->c->api->store, bucket, w->svc->ns, name);
        struct arena *a = w->c->a;
        struct str why;

        if (!old) {
                if (!kube_api_create(w->c->api, bucket, o, a, &why))
                        ctl_again(w->c, CTL_SERVICE, w->svc->ns, w->svc->name);
                return;
        }
        struct pb_node *meta = pb_clone(a, pb_get(old->node, "metadata")), *labels = pb_get_path(o, "metadata.labels");
        if (labels)
                pb_put(a, meta, STR("labels"), labels);
        pb_put(a, o, STR("metadata"), meta);
        kube_api_update(w->c->api, old, o, a);
}

static void write_endpoints(struct work *w)
{
        struct pb_node *o = skeleton(w, "v1", "Endpoints", w->svc->name);

        copy_labels(w, o);
        for (size_t i = 0; i < w->n; i++) {
                struct pb_node *s = subset(w, &w->g[i]);

                if (s)
                        pb_push(w->c->a, kube_list_at(w->c->a, o, "subsets"), s);
        }
        write(w, kube_b.endpoints, w->svc->name, o);
}

/* ---- EndpointSlices ---- */

static struct pb_node *slice_endpoint(struct work *w, const struct kobj *pod)
{
        struct arena *a = w->c->a;
        struct pb_node *e = pb_new(a, PB_MAP, STR("")), *cond = kube_map(a, e, "conditions");

        pb_push(a, kube_list_at(a, e, "addresses"), pb_new(a, PB_STRING, pb_get_str(pod->node, "status.podIP", STR(""))));
        kube_put_bool(a, cond, "ready", is_ready(w, pod));
        kube_put_bool(a, cond, "serving", ctl_pod_ready(pod->node));
        kube_put_bool(a, cond, "terminating", ctl_deleting(pod));
        if (pb_get_path(pod->node, "spec.hostname") && pb_get_path(pod->node, "spec.subdomain"))
                pb_put_str(a, e, "hostname", pb_get_str(pod->node, "spec.hostname", STR("")));
        pb_put_str(a, e, "nodeName", pb_get_str(pod->node, "spec.nodeName", STR("")));
        pb_put(a, e, STR("targetRef"), target_ref(a, pod));
        return e;
}

static struct str slice_name(struct work *w, unsigned index)
{
        static const char alphabet[] = "bcdfghjklmnpqrstvwxz2456789";
        uint64_t h = hash_bytes(w->svc->uid.p, w->svc->uid.n, index);
        char tail[6] = { 0 };

        for (unsigned i = 0; i < 5; i++, h /= sizeof(alphabet) - 1)
                tail[i] = alphabet[h % (sizeof(alphabet) - 1)];
        return arena_printf(w->c->a, STR_FMT "-%s", STR_ARG(w->svc->name), tail);
}

static struct pb_node *slice(struct work *w, struct str name)
{
        struct arena *a = w->c->a;
        struct pb_node *o = skeleton(w, "discovery.k8s.io/v1", "EndpointSlice", name), *labels;

        copy_labels(w, o);
        labels = kube_map(a, kube_map(a, o, "metadata"), "labels");
        pb_put_str(a, labels, "kubernetes.io/service-name", w->svc->name);
        pb_put_str(a, labels, "endpointslice.kubernetes.io/managed-by", STR("endpointslice-controller.k8s.io"));
        ctl_owner_reference(a, o, w->svc);
        pb_put_str(a, o, "addressType", STR("IPv4"));
        kube_list_at(a, o, "endpoints");
        return o;
}

static unsigned write_slices(struct work *w)
{
        struct arena *a = w->c->a;
        unsigned index = 0;

        for (size_t i = 0; i < w->n || (!w->n && !index); i++) {
                size_t n = w->n ? w->g[i].n : 0, from = 0;

                do {
                        struct str name = slice_name(w, index++);
                        struct pb_node *o = slice(w, name), *eps = pb_get(o, "endpoints");

                        for (; from < n && eps->n < SLICE_MAX; from++)
                                pb_push(a, eps, slice_endpoint(w, w->g[i].pods[from]));
                        pb_put(a, o, STR("ports"), w->n ? pb_clone(a, w->g[i].ports) : pb_new(a, PB_LIST, STR("")));
                        struct pb_node *ports = pb_get(o, "ports");
                        for (size_t k = 0; k < ports->n; k++)
                                if (!pb_get(ports->v[k], "name"))
                                        pb_put_str(a, ports->v[k], "name", STR(""));
                        write(w, kube_b.endpointslices, name, o);
                } while (from < n);
        }
        return index;
}

/* Slices of ours that are not among the first `keep`. */
static void drop_slices(struct kube_controllers *c, struct work *w, struct str ns, struct str svc, unsigned keep)
{
        struct kobj **v;
        size_t n = kube_store_list(c->api->store, kube_b.endpointslices, ns, &v);

        for (size_t i = 0; i < n; i++) {
                const struct pb_node *labels = pb_get_path(v[i]->node, "metadata.labels"),
                                     *by = pb_get(labels, "endpointslice.kubernetes.io/managed-by");
                const struct pb_node *of = pb_get(labels, "kubernetes.io/service-name");
                bool kept = false;

                if (!by || !of || !str_eq(of->text, svc) || !str_eqc(by->text, "endpointslice-controller.k8s.io"))
                        continue;
                for (unsigned k = 0; w && k < keep; k++)
                        kept |= str_eq(v[i]->name, slice_name(w, k));
                if (!kept)
                        kube_store_delete(c->api->store, kube_b.endpointslices, ns, v[i]->name);
        }
        kube_store_list_free(v, n);
}

void ctl_service(struct kube_controllers *c, struct str ns, struct str name)
{
        struct work w = { .c = c, .svc = kube_store_get(c->api->store, kube_b.services, ns, name) };
        const struct pb_node *selector = w.svc ? pb_get_path(w.svc->node, "spec.selector") : NULL;
        struct kube_selector s;

        if (!w.svc) {
                drop_slices(c, NULL, ns, name, 0);
                if (kube_store_get(c->api->store, kube_b.endpoints, ns, name))
                        kube_store_delete(c->api->store, kube_b.endpoints, ns, name);
                return;
        }
        if (ctl_deleting(w.svc) || !selector || !selector->n || str_eqc(pb_get_str(w.svc->node, "spec.type", STR("")), "ExternalName"))
                return; /* somebody else looks after its endpoints, if it has any */
        const struct kobj *nso = kube_store_get(c->api->store, kube_b.namespaces, STR(""), ns);
        if (!nso || ctl_deleting(nso))
                return;
        kobj_ref(w.svc);
        w.unready_too = kube_bool(w.svc->node, "spec.publishNotReadyAddresses", false);
        kube_labels_from_map(selector, c->a, &s);
        struct kobj **pods;
        size_t n = kube_store_list(c->api->store, kube_b.pods, ns, &pods);
        for (size_t i = 0; i < n; i++)
                if (counts(pods[i]) && kube_labels_match(&s, pb_get_path(pods[i]->node, "metadata.labels")))
                        add_pod(&w, pods[i]);
        write_endpoints(&w);
        drop_slices(c, &w, ns, name, write_slices(&w));
        for (size_t i = 0; i < w.n; i++)
                free(w.g[i].pods);
        free(w.g);
        kube_store_list_free(pods, n);
        kobj_unref(w.svc);
}
