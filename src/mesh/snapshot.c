/* Snapshots of the store, and looking things up in them. All lists are sorted, so nearly everything is a binary search. */
#include "mesh/store.h"

#include "base/mem.h"

#include <stdlib.h>

static int cmp_pod_ip(const void *a, const void *b)
{
        const struct mesh_pod *const *x = a, *const *y = b;
        int c = str_cmp((*x)->ip, (*y)->ip);

        return c ? c : mesh_cmp_age(&(*x)->meta, &(*y)->meta);
}

/* DestinationRules of one namespace for one host act as one: subsets together, the oldest traffic policy. (Those for some workloads only
 * stay apart.) */
static void merge_rules(struct frozen *f)
{
        size_t out = 0;

        for (size_t i = 0; i < f->n; i++) {
                struct mesh_dr *d = f->v[i], *prev = out ? f->v[out - 1] : NULL, *both;

                if (!prev || prev->has_selector || d->has_selector || !str_eq(prev->host, d->host) || !str_eq(prev->meta.ns, d->meta.ns)) {
                        f->v[out++] = d;
                        continue;
                }
                both = arena_dup(&f->arena, prev, sizeof(*prev));
                both->meta.version = hash_bytes(&d->meta.version, sizeof(uint64_t), prev->meta.version) | 1;
                both->subsets = arena_alloc(&f->arena, (prev->nsubsets + d->nsubsets) * sizeof(*both->subsets));
                if (prev->nsubsets)
                        memcpy(both->subsets, prev->subsets, prev->nsubsets * sizeof(*both->subsets));
                for (size_t j = 0; j < d->nsubsets; j++)
                        if (!mesh_subset_find(prev, d->subsets[j].name))
                                both->subsets[both->nsubsets++] = d->subsets[j];
                if (!prev->has_policy && d->has_policy) {
                        both->policy = d->policy;
                        both->has_policy = true;
                }
                f->v[out - 1] = both;
        }
        f->n = out;
}

static struct frozen *freeze(struct list_now *l, enum list which)
{
        struct frozen *f;

        if (l->frozen) {
                l->frozen->refs++;
                return l->frozen;
        }
        f = MEM_NEW(struct frozen);
        f->refs = 2; /* the list's and the caller's */
        f->version = l->version;
        f->n = f->nowners = l->n;
        f->v = mem_alloc((l->n + 1) * sizeof(*f->v));
        f->owners = mem_alloc((l->n + 1) * sizeof(*f->owners));
        arena_init(&f->arena, 0);
        for (size_t i = 0; i < l->n; i++) {
                f->v[i] = l->v[i].p;
                f->owners[i] = l->v[i].owner;
                f->owners[i]->refs++;
        }
        if (which == L_DR)
                merge_rules(f);
        if (which == L_PODS) {
                f->by_ip = mem_alloc((f->n + 1) * sizeof(*f->by_ip));
                if (f->n)
                        memcpy(f->by_ip, f->v, f->n * sizeof(*f->by_ip));
                qsort(f->by_ip, f->n, sizeof(*f->by_ip), cmp_pod_ip);
        }
        l->frozen = f;
        return f;
}

struct mesh_snapshot *mesh_snapshot(struct mesh *m)
{
        struct mesh_snapshot *s;
        struct frozen **f;

        if (m->last && m->last->version == m->version)
                return mesh_snapshot_ref(m->last);
        s = MEM_NEW(struct mesh_snapshot);
        s->refs = 1;
        s->version = m->version;
        s->store = MEM_NEW(struct mesh_store);
        f = s->store->list;
        for (int i = 0; i < LISTS; i++)
                f[i] = freeze(&m->list[i], (enum list)i);
        s->config = m->config ? (const struct mesh_config *)m->config->items : &mesh_config_default;
        if (m->config)
                m->config->refs++;
        s->store->config_owner = m->config;
#define TAKE(field, which)              \
        s->field = (void *)f[which]->v; \
        s->n##field = f[which]->n
        TAKE(services, L_SERVICES);
        TAKE(vs, L_VS);
        TAKE(gateways, L_GATEWAYS);
        TAKE(dr, L_DR);
        TAKE(sidecars, L_SIDECARS);
        TAKE(pods, L_PODS);
        TAKE(slices, L_SLICES);
        TAKE(workloads, L_WORKLOADS);
#undef TAKE
        s->services_version = f[L_SERVICES]->version;
        s->vs_version = f[L_VS]->version;
        s->gateways_version = f[L_GATEWAYS]->version;
        s->dr_version = f[L_DR]->version;
        s->sidecars_version = f[L_SIDECARS]->version;
        s->endpoints_version = f[L_SLICES]->version > f[L_PODS]->version ? f[L_SLICES]->version : f[L_PODS]->version;
        if (f[L_WORKLOADS]->version > s->endpoints_version)
                s->endpoints_version = f[L_WORKLOADS]->version;
        mesh_snapshot_unref(m->last);
        m->last = mesh_snapshot_ref(s);
        return s;
}

struct mesh_snapshot *mesh_snapshot_ref(struct mesh_snapshot *s)
{
        s->refs++;
        return s;
}

void mesh_snapshot_unref(struct mesh_snapshot *s)
{
        if (!s || --s->refs)
                return;
        for (int i = 0; i < LISTS; i++)
                mesh_frozen_unref(s->store->list[i]);
        mesh_obj_unref(s->store->config_owner);
        free(s->store);
        free(s);
}

/* --- Look-ups -------------------------------------------------------------------------------------------------------------------- */

struct mesh_service **mesh_services_of(const struct mesh_snapshot *s, struct str host, size_t *n)
{
        size_t lo = 0, hi = s->nservices;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;

                if (str_cmp(s->services[mid]->host, host) < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        for (*n = 0; lo + *n < s->nservices && str_eq(s->services[lo + *n]->host, host);)
                ++*n;
        return *n ? &s->services[lo] : NULL;
}

struct mesh_service *mesh_service_find(const struct mesh_snapshot *s, struct str host, struct str ns)
{
        size_t n;
        struct mesh_service **v = mesh_services_of(s, host, &n), *found = NULL;

        for (size_t i = 0; i < n; i++) {
                if (!mesh_export_visible(&v[i]->export_to, v[i]->ns, ns))
                        continue;
                if (str_eq(v[i]->ns, ns))
                        return v[i];
                if (!found)
                        found = v[i];
        }
        return found;
}

struct mesh_pod *mesh_pod_by_ip(const struct mesh_snapshot *s, struct str ip)
{
        struct mesh_pod **v = s->store->list[L_PODS]->by_ip;
        size_t lo = 0, hi = s->npods;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;

                if (str_cmp(v[mid]->ip, ip) < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return ip.n && lo < s->npods && str_eq(v[lo]->ip, ip) ? v[lo] : NULL;
}

struct mesh_pod *mesh_pod_find(const struct mesh_snapshot *s, struct str ns, struct str name)
{
        struct mesh_meta key = { .ns = ns, .name = name };
        size_t lo = 0, hi = s->npods;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;

                if (mesh_cmp_name(&s->pods[mid]->meta, &key) < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return lo < s->npods && mesh_cmp_name(&s->pods[lo]->meta, &key) == 0 ? s->pods[lo] : NULL;
}

struct mesh_slice **mesh_slices_of(const struct mesh_snapshot *s, const struct mesh_service *svc, size_t *n)
{
        size_t lo = 0, hi = s->nslices;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;
                int c = str_cmp(s->slices[mid]->meta.ns, svc->ns);

                if (!c)
                        c = str_cmp(s->slices[mid]->service, svc->name);
                if (c < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        for (*n = 0; lo + *n < s->nslices; ++*n) {
                const struct mesh_slice *x = s->slices[lo + *n];

                if (!str_eq(x->meta.ns, svc->ns) || !str_eq(x->service, svc->name) || x->legacy != s->slices[lo]->legacy)
                        break;
        }
        return *n ? &s->slices[lo] : NULL;
}

/* The most specific rule of `ns` for `host` that a client in `client_ns` may use. */
static struct mesh_dr *rule_in(const struct mesh_snapshot *s, struct str host, struct str ns, struct str client_ns,
                               const struct mesh_labels *labels)
{
        struct mesh_dr *best = NULL;
        size_t lo = 0, hi = s->ndr;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;

                if (str_cmp(s->dr[mid]->host, host) < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        for (size_t pass = 0; pass < 2; pass++) {
                /* Exact hosts first; then the wildcards, which sort before everything else. */
                for (size_t i = pass ? 0 : lo; i < s->ndr; i++) {
                        struct mesh_dr *d = s->dr[i];

                        if (pass ? d->host.p[0] != '*' : !str_eq(d->host, host))
                                break;
                        if (!str_eq(d->meta.ns, ns) || !mesh_export_visible(&d->export_to, ns, client_ns) ||
                            !mesh_host_covers(d->host, host))
                                continue;
                        if (d->has_selector && (!str_eq(ns, client_ns) || !mesh_labels_match(&d->selector, labels)))
                                continue;
                        if (!best || d->host.n > best->host.n || (d->has_selector && !best->has_selector && str_eq(d->host, best->host)))
                                best = d;
                }
                if (best)
                        break;
        }
        return best;
}

struct mesh_dr *mesh_dr_find(const struct mesh_snapshot *s, struct str host, struct str service_ns, struct str ns,
                             const struct mesh_labels *labels)
{
        struct mesh_dr *d;

        if (!s->ndr || !host.n)
                return NULL;
        d = rule_in(s, host, ns, ns, labels);
        if (!d)
                d = rule_in(s, host, service_ns, ns, labels);
        return d ? d : rule_in(s, host, s->config->root_ns, ns, labels);
}

struct mesh_sidecar *mesh_sidecar_find(const struct mesh_snapshot *s, struct str ns, const struct mesh_labels *labels)
{
        struct mesh_sidecar *for_ns = NULL, *for_mesh = NULL;

        for (size_t i = 0; i < s->nsidecars; i++) {
                struct mesh_sidecar *c = s->sidecars[i];

                if (str_eq(c->meta.ns, ns) && c->has_selector && mesh_labels_match(&c->selector, labels))
                        return c;
                if (str_eq(c->meta.ns, ns) && !c->has_selector && !for_ns)
                        for_ns = c;
                if (str_eq(c->meta.ns, s->config->root_ns) && !c->has_selector && !for_mesh)
                        for_mesh = c;
        }
        return for_ns ? for_ns : for_mesh;
}
