/* How a configuration comes about: find the scope (all proxies that see the same), bring its outbound resources up to date as far as their
 * inputs changed, add what is the proxy's own. */
#include "translate/internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

const char *const translate_type_url[TRANSLATE_TYPES] = {
        [TRANSLATE_CLUSTERS] = "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        [TRANSLATE_ENDPOINTS] = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        [TRANSLATE_LISTENERS] = "type.googleapis.com/envoy.config.listener.v3.Listener",
        [TRANSLATE_ROUTES] = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
};

int translate_type_of(struct str type_url)
{
        for (int i = 0; i < TRANSLATE_TYPES; i++)
                if (str_eqc(type_url, translate_type_url[i]))
                        return i;
        return -1;
}

void build_warn(const struct build *b, const struct mesh_meta *about, const char *path, const char *fmt, ...)
{
        struct diag_at at = { .path = str_of(path) };
        char resource[512], text[1024];
        va_list ap;

        if (!b->diags)
                return;
        snprintf(resource, sizeof(resource), STR_FMT " " STR_FMT "/" STR_FMT, STR_ARG(about->kind), STR_ARG(about->ns),
                 STR_ARG(about->name));
        at.resource = str_of(resource);
        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        diag_add(b->diags, DIAG_WARNING, "PST0410", &at, "%s", text);
}

struct translator *translator_new(void)
{
        return MEM_NEW(struct translator);
}

static void scope_free(struct scope *s)
{
        for (int i = 0; i < TRANSLATE_TYPES; i++) {
                parts_fini(&s->res[i]);
                parts_fini(&s->parts[i]);
        }
        mesh_snapshot_unref(s->snap);
        arena_fini(&s->view_arena);
        arena_fini(&s->arena);
        free(s);
}

void translator_free(struct translator *t)
{
        if (!t)
                return;
        STRMAP_EACH (&t->scopes, e)
                scope_free(e->value);
        strmap_fini(&t->scopes);
        STRMAP_EACH (&t->cache, e)
                translate_resource_unref(e->value);
        strmap_fini(&t->cache);
        common_free(t->common);
        buf_fini(&t->buf);
        free(t);
}

/* --- Scopes ---------------------------------------------------------------------------------------------------------------------- */

static void key_part(struct buf *b, struct str s)
{
        buf_u64(b, s.n);
        buf_char(b, ':');
        buf_str(b, s);
}

/* Labels of a proxy that its resources depend on: all of them when some resource selects proxies by label (a gateway's always do), else
 * those that it says about itself. Replicas that differ in others ("statefulset.kubernetes.io/pod-name") then share a scope. */
static bool label_counts(const struct translator *t, const struct translate_proxy *p, const struct mesh_label *l)
{
        return t->by_labels || p->role == TRANSLATE_ROUTER || str_eqc(l->key, LABEL_CANONICAL_NAME) ||
               str_eqc(l->key, LABEL_CANONICAL_REVISION);
}

static void look_for_selectors(struct translator *t, const struct mesh_snapshot *m)
{
        uint64_t versions[] = { m->vs_version, m->dr_version, m->sidecars_version };
        uint64_t stamp = hash_bytes(versions, sizeof(versions), 0) | 1;

        if (t->label_stamp == stamp)
                return;
        t->label_stamp = stamp;
        t->by_labels = false;
        for (size_t i = 0; i < m->nvs; i++)
                t->by_labels |= m->vs[i]->by_source;
        for (size_t i = 0; i < m->ndr; i++)
                t->by_labels |= m->dr[i]->has_selector;
        for (size_t i = 0; i < m->nsidecars; i++)
                t->by_labels |= m->sidecars[i]->has_selector;
}

static void scope_key(const struct translator *t, const struct translate_proxy *p, struct buf *b)
{
        b->n = 0;
        buf_char(b, p->role == TRANSLATE_ROUTER ? 'r' : 's');
        buf_char(b, (char)('0' + p->ipv4 + 2 * p->ipv6));
        key_part(b, p->ns);
        key_part(b, p->cluster_id);
        key_part(b, p->mesh_id);
        for (size_t i = 0; i < p->labels.n; i++) {
                if (!label_counts(t, p, &p->labels.v[i]))
                        continue;
                key_part(b, p->labels.v[i].key);
                key_part(b, p->labels.v[i].value);
        }
}

static void copy_proxy(const struct translator *t, struct arena *a, const struct translate_proxy *p, struct translate_proxy *to)
{
        *to = *p;
        to->ns = arena_str(a, p->ns);
        to->cluster_id = arena_str(a, p->cluster_id);
        to->mesh_id = arena_str(a, p->mesh_id);
        to->labels.v = p->labels.n ? arena_alloc(a, p->labels.n * sizeof(*p->labels.v)) : NULL;
        to->labels.n = 0;
        for (size_t i = 0; i < p->labels.n; i++)
                if (label_counts(t, p, &p->labels.v[i]))
                        to->labels.v[to->labels.n++] = (struct mesh_label){ arena_str(a, p->labels.v[i].key),
                                                                            arena_str(a, p->labels.v[i].value) };
        to->id = to->ip = to->domain = to->service_account = (struct str){ 0 };
}

static struct scope *scope_for(struct translator *t, const struct translate_proxy *p)
{
        struct scope *s;

        scope_key(t, p, &t->buf);
        s = strmap_get(&t->scopes, buf_view(&t->buf));
        if (!s) {
                s = MEM_NEW(struct scope);
                arena_init(&s->arena, 512);
                arena_init(&s->view_arena, 0);
                copy_proxy(t, &s->arena, p, &s->proxy);
                strmap_set(&t->scopes, buf_view(&t->buf), s);
        }
        s->round = t->round;
        return s;
}

/* Scopes that no proxy has asked for in a while: workloads that are gone, or labels of an earlier rollout. */
enum { SCOPE_ROUNDS = 8 };

void translator_sweep(struct translator *t)
{
        struct strmap kept = STRMAP_INIT;
        bool dropped = false;

        t->round++;
        STRMAP_EACH (&t->scopes, e) {
                struct scope *s = e->value;

                if (t->round - s->round <= SCOPE_ROUNDS) {
                        strmap_set(&kept, e->key, s);
                        continue;
                }
                scope_free(s);
                dropped = true;
        }
        strmap_fini(&t->scopes);
        t->scopes = kept;
        cache_sweep(t, dropped);
}

static uint64_t mix(const uint64_t *v, size_t n)
{
        return hash_bytes(v, n * sizeof(*v), 0) | 1; /* never 0: that is "never built" */
}

static int by_name(const void *a, const void *b)
{
        return str_cmp((*(struct translate_resource *const *)a)->name, (*(struct translate_resource *const *)b)->name);
}

typedef void make_fn(struct build *b);

/* Makes one type again if what it depends on is not what it was. The old parts are released only afterwards, so that what did not change is
 * still in the cache. */
static void refresh(struct build *b, enum translate_type type, uint64_t stamp, make_fn *make)
{
        struct scope *s = b->scope;
        struct parts old_res = s->res[type], old_parts = s->parts[type];

        if (s->stamp[type] == stamp)
                return;
        s->res[type] = s->parts[type] = (struct parts){ 0 };
        if (make)
                make(b);
        if (s->res[type].n)
                qsort(s->res[type].v, s->res[type].n, sizeof(*s->res[type].v), by_name);
        s->stamp[type] = stamp;
        parts_fini(&old_res);
        parts_fini(&old_parts);
}

static void scope_update(struct build *b)
{
        const struct mesh_snapshot *m = b->snap;
        struct scope *s = b->scope;
        bool router = s->proxy.role == TRANSLATE_ROUTER;
        uint64_t config = m->config->version;
        uint64_t view[] = { config, m->services_version, m->vs_version, m->sidecars_version };
        uint64_t clusters[] = { config, m->services_version, m->sidecars_version, m->dr_version };
        uint64_t endpoints[] = { config, m->services_version, m->sidecars_version, m->dr_version, m->endpoints_version };
        uint64_t rest[] = {
                config, m->services_version, m->sidecars_version, m->dr_version, m->vs_version, router ? m->gateways_version : 0, 0
        };

        if (s->view_stamp != mix(view, ARRAY_LEN(view))) {
                scope_view(b);
                s->view_stamp = mix(view, ARRAY_LEN(view));
        }
        refresh(b, TRANSLATE_CLUSTERS, mix(clusters, ARRAY_LEN(clusters)), clusters_outbound);
        refresh(b, TRANSLATE_ENDPOINTS, mix(endpoints, ARRAY_LEN(endpoints)), endpoints_outbound);
        refresh(b, TRANSLATE_ROUTES, mix(rest, ARRAY_LEN(rest)), router ? routes_gateway : routes_outbound);
        if (s->by_endpoints || router)
                rest[ARRAY_LEN(rest) - 1] = m->endpoints_version;
        refresh(b, TRANSLATE_LISTENERS, mix(rest, ARRAY_LEN(rest)), router ? listeners_gateway : listeners_outbound);
        if (s->snap != b->snap) {
                mesh_snapshot_unref(s->snap);
                s->snap = mesh_snapshot_ref(b->snap);
        }
}

/* --- One proxy ------------------------------------------------------------------------------------------------------------------- */

static int by_target(const void *a, const void *b)
{
        const struct own_port *x = a, *y = b;

        return (x->target > y->target) - (x->target < y->target);
}

uint32_t own_target(const struct build *b, const struct mesh_port *port)
{
        const struct mesh_pod *pod;
        ptrdiff_t dot = str_rchr(b->proxy->id, '.');

        if (port->target)
                return port->target;
        pod = dot > 0 ? mesh_pod_find(b->snap, b->proxy->ns, str_sub(b->proxy->id, 0, (size_t)dot)) : NULL;
        if (!pod)
                pod = mesh_pod_by_ip(b->snap, b->proxy->ip);
        /* A scope has no pod of its own: any with the same labels. */
        for (size_t i = 0; !pod && i < b->snap->npods; i++)
                if (str_eq(b->snap->pods[i]->meta.ns, b->proxy->ns) && mesh_labels_match(&b->proxy->labels, &b->snap->pods[i]->labels))
                        pod = b->snap->pods[i];
        for (size_t i = 0; pod && i < pod->nports; i++)
                if (str_eq(pod->ports[i].name, port->target_name))
                        return pod->ports[i].number;
        return 0;
}

/* By the labels of the proxy rather than by endpoints: a pod is no endpoint before it is ready, and it is not ready before its proxy is. */
struct own_port *own_ports(const struct build *b, struct arena *a, size_t *n)
{
        struct own_port *v = NULL;
        size_t cap = 0;

        *n = 0;
        for (size_t i = 0; i < b->snap->nservices; i++) {
                struct mesh_service *svc = b->snap->services[i];

                if (!svc->has_selector || !svc->selector.n || !str_eq(svc->ns, b->proxy->ns) ||
                    !mesh_labels_match(&svc->selector, &b->proxy->labels))
                        continue;
                for (size_t j = 0; j < svc->nports; j++) {
                        uint32_t target = svc->ports[j].protocol == MESH_UDP ? 0 : own_target(b, &svc->ports[j]);
                        struct own_port *same = NULL;

                        if (!target)
                                continue;
                        for (size_t k = 0; k < *n; k++)
                                if (v[k].target == target)
                                        same = &v[k];
                        if (!same) {
                                VEC_PUSH(v, *n, cap) = (struct own_port){ .svc = svc, .port = &svc->ports[j], .target = target };
                                same = &v[*n - 1];
                        }
                        if (same->nall && same->all[same->nall - 1] == svc)
                                continue;
                        if ((same->nall & (same->nall - 1)) == 0) { /* 0, 1, 2, 4, …: full */
                                struct mesh_service **all = arena_alloc(a, (same->nall ? same->nall * 2 : 1) * sizeof(*all));

                                if (same->nall)
                                        memcpy(all, same->all, same->nall * sizeof(*all));
                                same->all = all;
                        }
                        same->all[same->nall++] = svc;
                }
        }
        if (*n)
                qsort(v, *n, sizeof(*v), by_target);
        if (v) {
                struct own_port *kept = arena_dup(a, v, *n * sizeof(*v));

                free(v);
                return kept;
        }
        return NULL;
}

/* `shared` is sorted already; the few of `own` are merged in. */
static void fill(struct translate_config *c, enum translate_type type, const struct parts *shared, struct parts *own)
{
        size_t n = shared->n + (own ? own->n : 0), i = 0, j = 0;
        struct translate_resource **v = mem_alloc((n + 1) * sizeof(*v));
        uint64_t h = type;

        if (own && own->n)
                qsort(own->v, own->n, sizeof(*own->v), by_name);
        for (size_t k = 0; k < n; k++) {
                if (!own || j == own->n || (i < shared->n && by_name(&shared->v[i], &own->v[j]) <= 0))
                        v[k] = shared->v[i++];
                else
                        v[k] = own->v[j++];
                v[k]->refs++;
                h = hash_bytes(&v[k]->hash, sizeof(uint64_t), h);
        }
        c->of[type].v = v;
        c->of[type].n = n;
        c->of[type].hash = h;
}

struct translate_config *translate_build(struct translator *t, struct mesh_snapshot *snap, const struct translate_proxy *p, struct diags *d)
{
        struct build b = { .t = t, .snap = snap, .config = snap->config, .diags = d };
        struct translate_config *c = MEM_NEW(struct translate_config);
        struct parts clusters = { 0 }, listeners = { 0 };

        if (!t->common || t->common->version != snap->config->version) {
                common_free(t->common);
                t->common = common_new(snap->config);
        }
        look_for_selectors(t, snap);
        b.common = t->common;
        b.scope = scope_for(t, p);
        b.proxy = &b.scope->proxy;
        arena_init(&b.scratch, 32768);
        scope_update(&b);
        b.proxy = p;
        if (p->role == TRANSLATE_SIDECAR) {
                struct arena a;
                size_t n;
                struct own_port *own;

                arena_init(&a, 0);
                own = own_ports(&b, &a, &n);
                clusters_inbound(&b, own, n, &clusters);
                listener_inbound(&b, own, n, &listeners);
                arena_fini(&a);
        }
        c->refs = 1;
        fill(c, TRANSLATE_CLUSTERS, &b.scope->res[TRANSLATE_CLUSTERS], &clusters);
        fill(c, TRANSLATE_ENDPOINTS, &b.scope->res[TRANSLATE_ENDPOINTS], NULL);
        fill(c, TRANSLATE_LISTENERS, &b.scope->res[TRANSLATE_LISTENERS], &listeners);
        fill(c, TRANSLATE_ROUTES, &b.scope->res[TRANSLATE_ROUTES], NULL);
        parts_fini(&clusters);
        parts_fini(&listeners);
        arena_fini(&b.scratch);
        return c;
}

void translate_config_unref(struct translate_config *c)
{
        if (!c || --c->refs)
                return;
        for (int i = 0; i < TRANSLATE_TYPES; i++) {
                for (size_t k = 0; k < c->of[i].n; k++)
                        translate_resource_unref(c->of[i].v[k]);
                free(c->of[i].v);
        }
        free(c);
}

struct translate_resource *translate_find(const struct translate_config *c, enum translate_type type, struct str name)
{
        size_t lo = 0, hi = c->of[type].n;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;
                int cmp = str_cmp(c->of[type].v[mid]->name, name);

                if (cmp == 0)
                        return c->of[type].v[mid];
                if (cmp < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return NULL;
}
