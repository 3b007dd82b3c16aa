/* What the proxies of a scope see: which service answers to each host, and which VirtualService routes it. */
#include "translate/internal.h"

#include "base/mem.h"

#include <stdlib.h>

static bool egress_admits(const struct mesh_sidecar *sc, struct str ns, struct str host)
{
        if (!sc || !sc->negress)
                return true;
        for (size_t i = 0; i < sc->negress; i++) {
                for (size_t j = 0; j < sc->egress[i].nhosts; j++) {
                        struct str want = sc->egress[i].hosts[j].ns;

                        if (str_eqc(want, "~"))
                                continue;
                        if ((str_eqc(want, "*") || str_eq(want, ns)) && mesh_host_covers(sc->egress[i].hosts[j].host, host))
                                return true;
                }
        }
        return false;
}

/* Own namespace first, then the order of the snapshot: the cluster's own Service, then the oldest ServiceEntry. */
static struct mesh_service *pick(struct mesh_service **v, size_t n, struct str ns, const struct mesh_sidecar *sc)
{
        struct mesh_service *found = NULL;

        for (size_t i = 0; i < n; i++) {
                if (!mesh_export_visible(&v[i]->export_to, v[i]->ns, ns) || !egress_admits(sc, v[i]->ns, v[i]->host))
                        continue;
                if (str_eq(v[i]->ns, ns))
                        return v[i];
                if (!found)
                        found = v[i];
        }
        return found;
}

static void see_services(struct build *b, const struct mesh_sidecar *sc)
{
        struct scope *s = b->scope;
        const struct mesh_snapshot *m = b->snap;

        s->seen = arena_alloc(&s->view_arena, (m->nservices + 1) * sizeof(*s->seen));
        s->nseen = 0;
        for (size_t i = 0; i < m->nservices;) {
                size_t n = 1;
                struct mesh_service *svc;

                while (i + n < m->nservices && str_eq(m->services[i + n]->host, m->services[i]->host))
                        n++;
                svc = pick(&m->services[i], n, b->proxy->ns, sc);
                if (svc)
                        s->seen[s->nseen++] = (struct seen){ svc, NULL };
                i += n;
        }
}

struct seen *scope_find(const struct scope *s, struct str host)
{
        size_t lo = 0, hi = s->nseen;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;
                int c = str_cmp(s->seen[mid].svc->host, host);

                if (c == 0)
                        return &s->seen[mid];
                if (c < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return NULL;
}

/* A VirtualService's wildcard host routes every service that it covers and that no more specific host routes. */
static void see_wildcard(struct scope *s, const struct mesh_vs *vs, struct str host, struct strmap *specificity)
{
        for (size_t i = 0; i < s->nseen; i++) {
                struct str name = s->seen[i].svc->host;
                size_t have = (size_t)(uintptr_t)strmap_get(specificity, name);

                if (!mesh_host_covers(host, name) || (s->seen[i].vs && have >= host.n))
                        continue;
                s->seen[i].vs = vs;
                strmap_set(specificity, name, (void *)(uintptr_t)host.n);
        }
}

static void see_virtual_services(struct build *b, const struct mesh_sidecar *sc)
{
        struct scope *s = b->scope;
        struct strmap specificity = STRMAP_INIT, lone = STRMAP_INIT;
        size_t total = 0;

        for (size_t i = 0; i < b->snap->nvs; i++)
                total += b->snap->vs[i]->nhosts;
        s->lone = arena_alloc(&s->view_arena, (total + 1) * sizeof(*s->lone));
        s->lone_host = arena_alloc(&s->view_arena, (total + 1) * sizeof(*s->lone_host));
        s->nlone = 0;
        for (size_t i = 0; i < b->snap->nvs; i++) {
                const struct mesh_vs *vs = b->snap->vs[i];

                if (!vs->on_mesh || !mesh_export_visible(&vs->export_to, vs->meta.ns, b->proxy->ns))
                        continue;
                for (size_t j = 0; j < vs->nhosts; j++) {
                        struct str host = vs->hosts[j];
                        struct seen *x = scope_find(s, host);

                        if (!egress_admits(sc, vs->meta.ns, host))
                                continue;
                        if (x && (!x->vs || (size_t)(uintptr_t)strmap_get(&specificity, host) < host.n)) {
                                x->vs = vs;
                                strmap_set(&specificity, host, (void *)(uintptr_t)host.n);
                        }
                        if (host.p[0] == '*') {
                                see_wildcard(s, vs, host, &specificity);
                        } else if (!x && !strmap_has(&lone, host)) {
                                strmap_set(&lone, host, (void *)vs);
                                s->lone[s->nlone] = vs;
                                s->lone_host[s->nlone++] = host;
                        }
                }
        }
        strmap_fini(&specificity);
        strmap_fini(&lone);
}

static int by_port(const void *a, const void *b)
{
        const struct use *x = a, *y = b;

        if (x->port != y->port)
                return x->port < y->port ? -1 : 1;
        if (x->seen != y->seen)
                return x->seen < y->seen ? -1 : 1;
        return (x->index > y->index) - (x->index < y->index);
}

static void see_ports(struct scope *s)
{
        size_t total = 0;

        for (size_t i = 0; i < s->nseen; i++)
                total += s->seen[i].svc->nports;
        s->uses = arena_alloc(&s->view_arena, (total + 1) * sizeof(*s->uses));
        s->nuses = 0;
        s->by_endpoints = false;
        for (size_t i = 0; i < s->nseen; i++) {
                const struct mesh_service *svc = s->seen[i].svc;

                for (size_t j = 0; j < svc->nports; j++) {
                        if (svc->ports[j].protocol == MESH_UDP)
                                continue;
                        s->uses[s->nuses++] = (struct use){ svc->ports[j].number, (uint32_t)i, (uint32_t)j };
                        s->by_endpoints |= svc->headless && !mesh_protocol_http(svc->ports[j].protocol);
                }
        }
        qsort(s->uses, s->nuses, sizeof(*s->uses), by_port);
}

void scope_view(struct build *b)
{
        struct scope *s = b->scope;
        const struct mesh_sidecar *sc = NULL;

        arena_fini(&s->view_arena);
        arena_init(&s->view_arena, 65536);
        if (s->proxy.role == TRANSLATE_SIDECAR)
                sc = mesh_sidecar_find(b->snap, s->proxy.ns, &s->proxy.labels);
        s->allow_any = sc && sc->has_policy ? sc->allow_any : b->config->allow_any;
        s->policy = STR("meshConfig.outboundTrafficPolicy.mode");
        if (sc && sc->has_policy)
                s->policy = arena_printf(&s->view_arena, "outboundTrafficPolicy.mode of Sidecar " STR_FMT "/" STR_FMT, STR_ARG(sc->meta.ns),
                                         STR_ARG(sc->meta.name));
        see_services(b, sc);
        see_virtual_services(b, sc);
        see_ports(s);
}

bool gateway_listed(const struct str *names, size_t n, struct str name)
{
        for (size_t i = 0; i < n; i++)
                if (str_eq(names[i], name))
                        return true;
        return n == 0;
}
