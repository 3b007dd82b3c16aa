/* The store of objects and its snapshots.
 *
 * A snapshot must cost what changed, not what there is: with 10,000 ServiceEntries and a change a second, copying and sorting everything
 * would be most of the controller's work. So each kind keeps its objects in a sorted array at all times (one binary search and one memmove
 * a change), and a snapshot shares the frozen copy of every kind that did not change since the last one. */
#include "mesh/store.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

static const struct {
        const char *kind, *group, *path; /* path: as Istio writes it in filter_metadata, or NULL */
        int list;                        /* -1: none */
} kinds[KINDS] = {
        [K_SERVICE] = { "Service", "v1", NULL, L_SERVICES },
        [K_ENTRY] = { "ServiceEntry", "networking.istio.io/", "service-entry", L_SERVICES },
        [K_VS] = { "VirtualService", "networking.istio.io/", "virtual-service", L_VS },
        [K_GATEWAY] = { "Gateway", "networking.istio.io/", "gateway", L_GATEWAYS },
        [K_DR] = { "DestinationRule", "networking.istio.io/", "destination-rule", L_DR },
        [K_SIDECAR] = { "Sidecar", "networking.istio.io/", "sidecar", L_SIDECARS },
        [K_POD] = { "Pod", "v1", NULL, L_PODS },
        [K_SLICE] = { "EndpointSlice", "discovery.k8s.io/", NULL, L_SLICES },
        [K_ENDPOINTS] = { "Endpoints", "v1", NULL, L_SLICES },
        [K_WORKLOAD] = { "WorkloadEntry", "networking.istio.io/", "workload-entry", L_WORKLOADS },
        [K_CONFIG] = { "ConfigMap", "v1", NULL, -1 },
        [K_NAMESPACE] = { "Namespace", "v1", NULL, -1 },
};

void mesh_obj_unref(struct mesh_obj *o)
{
        if (!o || --o->refs)
                return;
        arena_fini(&o->arena);
        free(o);
}

void mesh_frozen_unref(struct frozen *f)
{
        if (!f || --f->refs)
                return;
        for (size_t i = 0; i < f->nowners; i++)
                mesh_obj_unref(f->owners[i]);
        free(f->owners);
        free(f->v);
        free(f->by_ip);
        arena_fini(&f->arena);
        free(f);
}

/* --- Order ----------------------------------------------------------------------------------------------------------------------- */

int mesh_cmp_age(const struct mesh_meta *a, const struct mesh_meta *b)
{
        int c;

        if (a->created_us != b->created_us)
                return a->created_us < b->created_us ? -1 : 1;
        c = str_cmp(a->ns, b->ns);
        return c ? c : str_cmp(a->name, b->name);
}

int mesh_cmp_name(const struct mesh_meta *a, const struct mesh_meta *b)
{
        int c = str_cmp(a->ns, b->ns);

        return c ? c : str_cmp(a->name, b->name);
}

static int cmp_services(const void *a, const void *b)
{
        const struct mesh_service *x = a, *y = b;
        int c = str_cmp(x->host, y->host);

        if (!c)
                c = x->from_entry - y->from_entry; /* the cluster's own Service first */
        if (!c)
                c = mesh_cmp_age(x->meta, y->meta);
        return c ? c : (x->version > y->version) - (x->version < y->version);
}

static int cmp_by_age(const void *a, const void *b) /* everything that starts with a struct mesh_meta */
{
        return mesh_cmp_age(a, b);
}

static int cmp_by_name(const void *a, const void *b)
{
        return mesh_cmp_name(a, b);
}

static int cmp_drs(const void *a, const void *b)
{
        const struct mesh_dr *x = a, *y = b;
        int c = str_cmp(x->host, y->host);

        if (!c)
                c = str_cmp(x->meta.ns, y->meta.ns);
        return c ? c : mesh_cmp_age(&x->meta, &y->meta);
}

static int cmp_slices(const void *a, const void *b)
{
        const struct mesh_slice *x = a, *y = b;
        int c = str_cmp(x->meta.ns, y->meta.ns);

        if (!c)
                c = str_cmp(x->service, y->service);
        if (!c)
                c = x->legacy - y->legacy;
        if (!c)
                c = str_cmp(x->meta.name, y->meta.name);
        return c ? c : (x > y) - (x < y);
}

static int (*const list_cmp[LISTS])(const void *, const void *) = {
        [L_SERVICES] = cmp_services, [L_VS] = cmp_by_age,    [L_GATEWAYS] = cmp_by_age, [L_DR] = cmp_drs,
        [L_SIDECARS] = cmp_by_age,   [L_PODS] = cmp_by_name, [L_SLICES] = cmp_slices,   [L_WORKLOADS] = cmp_by_name,
};

static size_t list_at(const struct list_now *l, int (*cmp)(const void *, const void *), const void *item)
{
        size_t lo = 0, hi = l->n;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;

                if (cmp(l->v[mid].p, item) < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return lo;
}

static void list_changed(struct mesh *m, enum list which)
{
        struct list_now *l = &m->list[which];

        l->version = m->version;
        mesh_frozen_unref(l->frozen);
        l->frozen = NULL;
}

static void list_add(struct mesh *m, struct mesh_obj *o)
{
        int which = kinds[o->kind].list;
        struct list_now *l = &m->list[which];

        for (size_t i = 0; i < o->nitems; i++) {
                void *p = o->items + i * o->size;
                size_t at = list_at(l, list_cmp[which], p);

                if (l->n == l->cap)
                        mem_grow((void **)&l->v, &l->cap, l->n + 1, sizeof(*l->v));
                memmove(&l->v[at + 1], &l->v[at], (l->n - at) * sizeof(*l->v));
                l->v[at] = (struct item){ p, o };
                l->n++;
        }
        list_changed(m, (enum list)which);
}

static void list_remove(struct mesh *m, struct mesh_obj *o)
{
        int which = kinds[o->kind].list;
        struct list_now *l = &m->list[which];

        for (size_t i = 0; i < o->nitems; i++) {
                void *p = o->items + i * o->size;
                size_t at = list_at(l, list_cmp[which], p);

                while (at < l->n && l->v[at].p != p)
                        at++;
                assert(at < l->n);
                memmove(&l->v[at], &l->v[at + 1], (l->n - at - 1) * sizeof(*l->v));
                l->n--;
        }
        list_changed(m, (enum list)which);
}

/* --- Objects in ------------------------------------------------------------------------------------------------------------------ */

static uint64_t hash_node(const struct pb_node *n, uint64_t h)
{
        if (!n)
                return hash_bytes("-", 1, h);
        h = hash_bytes(&n->kind, sizeof(n->kind), h + 1);
        h = hash_bytes(n->text.p, n->text.n, h);
        for (size_t i = 0; i < n->n; i++) {
                if (n->kind == PB_MAP)
                        h = hash_bytes(n->keys[i].p, n->keys[i].n, h);
                h = hash_node(n->v[i], h);
        }
        return h;
}

/* What counts as content: status, resourceVersion, managedFields and most annotations change all the time and mean nothing here. */
static uint64_t content_hash(const struct pb_node *object)
{
        static const char *const paths[] = { "metadata.labels",
                                             "metadata.creationTimestamp",
                                             "metadata.ownerReferences",
                                             "spec",
                                             "data",
                                             "subsets",
                                             "endpoints",
                                             "ports",
                                             "status.podIP" };
        const struct pb_node *annotations = pb_get_path(object, "metadata.annotations");
        uint64_t h = 0;

        for (size_t i = 0; i < ARRAY_LEN(paths); i++)
                h = hash_node(pb_get_path(object, paths[i]), h);
        return hash_node(annotations ? pb_get(annotations, "networking.istio.io/exportTo") : NULL, h);
}

static int kind_of(const struct pb_node *object)
{
        struct str kind = pb_get_str(object, "kind", STR("")), version = pb_get_str(object, "apiVersion", STR(""));

        for (int k = 0; k < KINDS; k++)
                if (str_eqc(kind, kinds[k].kind) && (!version.n || str_starts(version, str_of(kinds[k].group))))
                        return k;
        return -1;
}

static struct str object_key(struct arena *a, enum kind k, struct str ns, struct str name)
{
        return arena_printf(a, "%s/" STR_FMT "/" STR_FMT, kinds[k].kind, STR_ARG(ns), STR_ARG(name));
}

static void *one_item(struct mesh_obj *o, size_t size)
{
        void *p = arena_zalloc(&o->arena, size);

        o->items = p;
        o->nitems = 1;
        o->size = size;
        memcpy(p, &o->meta, sizeof(o->meta)); /* every such struct starts with its meta */
        return p;
}

static void read_items(struct mesh_obj *o, const struct pb_node *object, struct str domain)
{
        struct arena *a = &o->arena;

        switch (o->kind) {
        case K_SERVICE:
                o->items = (char *)read_service(a, object, &o->meta, domain);
                o->nitems = o->items != NULL;
                o->size = sizeof(struct mesh_service);
                break;
        case K_ENTRY:
                o->items = (char *)read_service_entry(a, object, &o->meta, &o->nitems);
                o->size = sizeof(struct mesh_service);
                break;
        case K_VS:
                read_virtual_service(a, object, domain, one_item(o, sizeof(struct mesh_vs)));
                break;
        case K_GATEWAY:
                read_gateway(a, object, one_item(o, sizeof(struct mesh_gateway)));
                break;
        case K_DR:
                read_destination_rule(a, object, domain, one_item(o, sizeof(struct mesh_dr)));
                break;
        case K_SIDECAR:
                read_sidecar(a, object, one_item(o, sizeof(struct mesh_sidecar)));
                break;
        case K_POD:
                read_pod(a, object, one_item(o, sizeof(struct mesh_pod)));
                break;
        case K_SLICE:
                o->items = (char *)read_endpoint_slice(a, object, &o->meta);
                o->nitems = 1;
                o->size = sizeof(struct mesh_slice);
                break;
        case K_ENDPOINTS:
                o->items = (char *)read_endpoints(a, object, &o->meta, &o->nitems);
                o->size = sizeof(struct mesh_slice);
                break;
        case K_WORKLOAD: {
                struct mesh_workload *w = one_item(o, sizeof(*w));

                w->endpoint = read_workload(a, read_field(object, "spec"), &o->meta);
                break;
        }
        default:
                break;
        }
}

static struct mesh_obj *obj_new(struct mesh *m, enum kind k, const struct pb_node *object, struct str ns, struct str name, uint64_t content)
{
        struct mesh_obj *o = MEM_NEW(struct mesh_obj);
        struct str created = pb_get_str(object, "metadata.creationTimestamp", STR(""));
        uint64_t us = 0;

        o->refs = 1;
        o->kind = k;
        o->content = content;
        arena_init(&o->arena, 2048);
        if (created.n)
                clock_parse_rfc3339(created, &us);
        o->meta.kind = str_of(kinds[k].kind);
        o->meta.ns = arena_str(&o->arena, ns);
        o->meta.name = arena_str(&o->arena, name);
        o->meta.created_us = (int64_t)us;
        o->meta.version = ++m->version;
        if (kinds[k].path)
                o->meta.config = arena_printf(&o->arena, "/apis/networking.istio.io/v1/namespaces/" STR_FMT "/%s/" STR_FMT, STR_ARG(ns),
                                              kinds[k].path, STR_ARG(name));
        return o;
}

static enum mesh_result set_config(struct mesh *m, const struct pb_node *object, struct mesh_obj *o, struct diags *d)
{
        struct mesh_config *c = arena_zalloc(&o->arena, sizeof(*c));

        if (!read_mesh_config(&o->arena, object, STR(""), c, d)) {
                mesh_obj_unref(o);
                return MESH_REFUSED;
        }
        c->version = o->meta.version;
        o->items = (char *)c;
        mesh_obj_unref(m->config);
        m->config = o;
        return MESH_CHANGED;
}

static bool is_mesh_config(struct str ns, struct str name)
{
        return str_eqc(ns, "istio-system") && str_eqc(name, "istio");
}

static enum mesh_result set_checked(struct mesh *m, const struct pb_node *object, struct diags *d)
{
        int k = kind_of(object);
        struct str ns = pb_get_str(object, "metadata.namespace", STR("default")), name = pb_get_str(object, "metadata.name", STR(""));
        uint64_t content = content_hash(object);
        struct arena scratch;
        struct mesh_obj *o, *before;
        struct str key;

        if (k < 0 || k == K_NAMESPACE || (k == K_CONFIG && !is_mesh_config(ns, name)))
                return MESH_IGNORED;
        if (k == K_CONFIG && m->config && m->config->content == content)
                return MESH_UNCHANGED;
        if (!mesh_validate(object, STR(""), d))
                return MESH_REFUSED;
        if (k == K_CONFIG)
                return set_config(m, object, obj_new(m, K_CONFIG, object, ns, name, content), d);
        arena_init(&scratch, 512);
        key = object_key(&scratch, (enum kind)k, ns, name);
        before = strmap_get(&m->objects, key);
        if (before && before->content == content) {
                arena_fini(&scratch);
                return MESH_UNCHANGED;
        }
        o = obj_new(m, (enum kind)k, object, ns, name, content);
        read_items(o, object, mesh_config_default.domain);
        if (before) {
                list_remove(m, before);
                mesh_obj_unref(before);
        }
        strmap_set(&m->objects, key, o);
        list_add(m, o);
        arena_fini(&scratch);
        return MESH_CHANGED;
}

enum mesh_result mesh_set(struct mesh *m, const struct pb_node *object, struct diags *d)
{
        struct diags local;
        enum mesh_result r;

        if (d)
                return set_checked(m, object, d);
        diags_init(&local);
        r = set_checked(m, object, &local);
        diags_fini(&local);
        return r;
}

enum mesh_result mesh_delete(struct mesh *m, struct str kind, struct str ns, struct str name)
{
        struct arena scratch;
        struct mesh_obj *o;
        int k;

        for (k = 0; k < KINDS; k++)
                if (str_eqc(kind, kinds[k].kind))
                        break;
        if (k == KINDS)
                return MESH_IGNORED;
        if (k == K_CONFIG) {
                if (!is_mesh_config(ns, name) || !m->config)
                        return MESH_IGNORED;
                m->version++;
                mesh_obj_unref(m->config);
                m->config = NULL;
                return MESH_CHANGED;
        }
        arena_init(&scratch, 512);
        o = strmap_del(&m->objects, object_key(&scratch, (enum kind)k, ns, name));
        arena_fini(&scratch);
        if (!o)
                return MESH_UNCHANGED;
        m->version++;
        list_remove(m, o);
        mesh_obj_unref(o);
        return MESH_CHANGED;
}

struct mesh *mesh_new(void)
{
        struct mesh *m = MEM_NEW(struct mesh);

        m->version = 1;
        return m;
}

void mesh_free(struct mesh *m)
{
        if (!m)
                return;
        mesh_snapshot_unref(m->last);
        for (int i = 0; i < LISTS; i++) {
                mesh_frozen_unref(m->list[i].frozen);
                free(m->list[i].v);
        }
        STRMAP_EACH (&m->objects, e)
                mesh_obj_unref(e->value);
        strmap_fini(&m->objects);
        mesh_obj_unref(m->config);
        free(m);
}
