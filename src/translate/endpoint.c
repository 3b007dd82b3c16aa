/* The hosts behind a cluster, from EndpointSlices and Pods, or from ServiceEntries and the workloads they select. */
#include "translate/internal.h"

#include "base/mem.h"

#include <stdlib.h>

struct group { /* one locality */
        struct str locality;
        Xds__LbEndpoint **v;
        size_t n, cap;
        uint32_t weight;
};

struct gather {
        const struct build *b;
        struct arena *a;
        const struct mesh_service *svc;
        const struct mesh_port *port;
        const struct mesh_subset *subset;
        bool health; /* EDS says HEALTHY; an inline assignment says nothing */
        struct group *groups;
        size_t n, cap;
};

static struct str first_of(const struct mesh_labels *l, const char *const *names)
{
        for (; *names; names++) {
                struct str v = mesh_labels_get(l, *names);

                if (v.n)
                        return v;
        }
        return (struct str){ 0 };
}

/* "workload;namespace;canonical service;canonical revision;cluster": what telemetry knows of a host that it has not talked to yet. */
static Xds__Metadata *host_metadata(struct gather *g, struct str workload, struct str ns, const struct mesh_labels *labels)
{
        static const char *const service[] = { "service.istio.io/canonical-name", "app.kubernetes.io/name", "app", NULL };
        static const char *const revision[] = { "service.istio.io/canonical-revision", "app.kubernetes.io/version", "version", NULL };
        struct str name = first_of(labels, service), tls = mesh_labels_get(labels, "security.istio.io/tlsMode");
        Xds__Metadata *m = NULL;

        if (!name.n)
                name = workload;
        if (tls.n)
                make_put(g->a, make_metadata(g->a, &m, "envoy.transport_socket_match"), "tlsMode", make_text(g->a, tls));
        make_put(g->a, make_metadata(g->a, &m, "istio"), "workload",
                 make_text(g->a, arena_printf(g->a, STR_FMT ";" STR_FMT ";" STR_FMT ";" STR_FMT ";" STR_FMT, STR_ARG(workload), STR_ARG(ns),
                                              STR_ARG(name), STR_ARG(first_of(labels, revision)), STR_ARG(g->b->config->cluster_id))));
        return m;
}

static void add_host(struct gather *g, struct str locality, struct str address, uint32_t port, uint32_t weight, Xds__Metadata *metadata)
{
        Xds__LbEndpoint *e = MAKE(g->a, xds__lb_endpoint);
        struct group *to = NULL;

        e->host_identifier_case = XDS__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT;
        e->endpoint = MAKE(g->a, xds__endpoint);
        e->endpoint->address = make_address(g->a, address, port);
        e->metadata = metadata;
        e->has_health_status = g->health;
        e->health_status = XDS__HEALTH_STATUS__HEALTHY;
        e->load_balancing_weight = make_u32(g->a, weight ? weight : 1);
        for (size_t i = 0; i < g->n; i++)
                if (str_eq(g->groups[i].locality, locality))
                        to = &g->groups[i];
        if (!to) {
                to = &VEC_PUSH(g->groups, g->n, g->cap);
                *to = (struct group){ .locality = locality };
        }
        VEC_PUSH(to->v, to->n, to->cap) = e;
        to->weight += weight ? weight : 1;
}

static Xds__Locality *locality(struct arena *a, struct str text)
{
        Xds__Locality *l = MAKE(a, xds__locality);
        struct str part;
        char **fields[] = { &l->region, &l->zone, &l->sub_zone };

        for (size_t i = 0; i < 3 && text.n && str_next(&text, '/', &part); i++)
                if (part.n)
                        *fields[i] = arena_cstr(a, part);
        return l;
}

static void assemble(struct gather *g, Xds__ClusterLoadAssignment *out)
{
        out->endpoints = MAKE_LIST(g->a, g->n);
        for (size_t i = 0; i < g->n; i++) {
                struct group *from = &g->groups[i];
                Xds__LocalityLbEndpoints *l = MAKE(g->a, xds__locality_lb_endpoints);

                l->locality = locality(g->a, from->locality);
                l->lb_endpoints = arena_dup(g->a, from->v, from->n * sizeof(*from->v));
                l->n_lb_endpoints = from->n;
                l->load_balancing_weight = make_u32(g->a, from->weight);
                out->endpoints[out->n_endpoints++] = l;
                free(from->v);
        }
        free(g->groups);
}

/* --- Services of the cluster ------------------------------------------------------------------------------------------------------ */

static uint32_t slice_port(const struct mesh_slice *s, const struct mesh_port *port)
{
        for (size_t i = 0; i < s->nports; i++)
                if (str_eq(s->ports[i].name, port->name))
                        return s->ports[i].number;
        return 0;
}

static void from_slices(struct gather *g)
{
        static const struct mesh_labels none = { 0 };
        size_t n;
        struct mesh_slice **v = mesh_slices_of(g->b->snap, g->svc, &n);

        for (size_t i = 0; i < n; i++) {
                uint32_t port = slice_port(v[i], g->port);

                for (size_t j = 0; port && j < v[i]->n; j++) {
                        const struct mesh_pod *pod = mesh_pod_find(g->b->snap, g->svc->ns, v[i]->v[j].pod);
                        const struct mesh_labels *labels = pod ? &pod->labels : &none;

                        if (!v[i]->v[j].ready || (g->subset && !mesh_labels_match(&g->subset->labels, labels)))
                                continue;
                        add_host(g, STR(""), v[i]->v[j].address, port, 1,
                                 host_metadata(g, pod ? pod->workload : g->svc->name, g->svc->ns, labels));
                }
        }
}

/* --- ServiceEntries -------------------------------------------------------------------------------------------------------------- */

static void add_endpoint(struct gather *g, const struct mesh_endpoint *e)
{
        uint64_t port = g->port->target;

        if (g->subset && !mesh_labels_match(&g->subset->labels, &e->labels))
                return;
        for (size_t i = 0; i < e->nports; i++)
                if (str_eq(e->ports[i].key, g->port->name))
                        str_u64(e->ports[i].value, &port);
        add_host(g, e->locality, e->address.n ? e->address : g->svc->host, (uint32_t)port, e->weight,
                 host_metadata(g, e->workload, g->svc->ns, &e->labels));
}

static void from_selected(struct gather *g)
{
        const struct mesh_snapshot *s = g->b->snap;

        for (size_t i = 0; i < s->nworkloads; i++) {
                const struct mesh_workload *w = s->workloads[i];

                if (str_eq(w->meta.ns, g->svc->ns) && mesh_labels_match(&g->svc->selector, &w->endpoint.labels))
                        add_endpoint(g, &w->endpoint);
        }
        for (size_t i = 0; i < s->npods; i++) {
                const struct mesh_pod *p = s->pods[i];

                if (!p->ip.n || !str_eq(p->meta.ns, g->svc->ns) || !mesh_labels_match(&g->svc->selector, &p->labels) ||
                    (g->subset && !mesh_labels_match(&g->subset->labels, &p->labels)))
                        continue;
                add_host(g, STR(""), p->ip, g->port->target, 1, host_metadata(g, p->workload, p->meta.ns, &p->labels));
        }
}

static void from_entry(struct gather *g)
{
        for (size_t i = 0; i < g->svc->nendpoints; i++)
                add_endpoint(g, &g->svc->endpoints[i]);
        if (g->svc->has_selector)
                from_selected(g);
        /* By DNS, without endpoints: the host itself. */
        if (!g->svc->nendpoints && !g->svc->has_selector && g->svc->host.p[0] != '*' &&
            (g->svc->resolution == MESH_RES_DNS || g->svc->resolution == MESH_RES_DNS_ROUND_ROBIN)) {
                struct mesh_endpoint self = { .workload = g->svc->meta->name };

                add_endpoint(g, &self);
        }
}

Xds__ClusterLoadAssignment *endpoints_inline(const struct build *b, struct arena *a, const char *name, const struct mesh_service *svc,
                                             const struct mesh_port *port, const struct mesh_subset *subset)
{
        struct gather g = { .b = b, .a = a, .svc = svc, .port = port, .subset = subset };
        Xds__ClusterLoadAssignment *out = MAKE(a, xds__cluster_load_assignment);

        out->cluster_name = (char *)name;
        g.health = svc->resolution == MESH_RES_EDS || svc->resolution == MESH_RES_STATIC;
        if (svc->from_entry)
                from_entry(&g);
        else
                from_slices(&g);
        assemble(&g, out);
        return out;
}

/* --- Resources ------------------------------------------------------------------------------------------------------------------- */

/* What the endpoints of a service depend on: its own slices and their pods; for a ServiceEntry that selects workloads, all of them. */
static uint64_t endpoints_state(const struct build *b, const struct mesh_service *svc)
{
        uint64_t h = 1;
        size_t n = 0;
        struct mesh_slice **v;

        if (svc->from_entry)
                return svc->has_selector ? b->snap->endpoints_version : 0;
        v = mesh_slices_of(b->snap, svc, &n);
        for (size_t i = 0; i < n; i++) {
                h = hash_bytes(&v[i]->meta.version, sizeof(uint64_t), h);
                for (size_t j = 0; j < v[i]->n; j++) {
                        const struct mesh_pod *pod = mesh_pod_find(b->snap, svc->ns, v[i]->v[j].pod);
                        uint64_t version = pod ? pod->meta.version : 0;

                        h = hash_bytes(&version, sizeof(version), h);
                }
        }
        return h;
}

static void add_assignment(struct build *b, const struct mesh_service *svc, size_t index, const struct mesh_dr *dr,
                           const struct mesh_subset *subset, uint64_t state)
{
        struct parts *res = &b->scope->res[TRANSLATE_ENDPOINTS];
        struct key k;
        const char *name;

        key_init(&k, 'e');
        key_u64(&k, svc->version);
        key_u64(&k, index);
        key_u64(&k, b->config->version);
        key_u64(&k, subset ? dr->meta.version : 0);
        key_u64(&k, subset ? (uint64_t)(subset - dr->subsets) + 1 : 0);
        key_u64(&k, state);
        if (cache_get(b->t, &k, res))
                return;
        name = cluster_name(&b->scratch, "outbound", svc->ports[index].number, subset ? subset->name : STR(""), svc->host);
        cache_put(b->t, &k, name, endpoints_inline(b, &b->scratch, name, svc, &svc->ports[index], subset), res);
        arena_reset(&b->scratch);
}

void endpoints_outbound(struct build *b)
{
        for (size_t i = 0; i < b->scope->nseen; i++) {
                const struct mesh_service *svc = b->scope->seen[i].svc;
                const struct mesh_dr *dr;
                uint64_t state;

                if (svc->resolution != MESH_RES_EDS && svc->resolution != MESH_RES_STATIC)
                        continue;
                dr = mesh_dr_find(b->snap, svc->host, svc->ns, b->proxy->ns, &b->proxy->labels);
                state = endpoints_state(b, svc);
                for (size_t j = 0; j < svc->nports; j++) {
                        if (svc->ports[j].protocol == MESH_UDP)
                                continue;
                        add_assignment(b, svc, j, dr, NULL, state);
                        for (size_t k = 0; dr && k < dr->nsubsets; k++)
                                add_assignment(b, svc, j, dr, &dr->subsets[k], state);
                }
        }
}
