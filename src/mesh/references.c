/* What an object names and the mesh does not have. Objects arrive in any order, so this never refuses anything; it saves somebody an
 * evening. */
#include "mesh/check.h"

#include <stdio.h>

struct context {
        struct check check; /* only its reporting is used */
        const struct mesh_snapshot *s;
        const struct pb_node *object;
        struct str ns;
};

static struct mesh_service *service_of(struct context *c, struct str name, struct str *full)
{
        *full = mesh_host_resolve(name, c->ns, c->s->config->domain, &c->check.scratch);
        return mesh_service_find(c->s, *full, c->ns);
}

static void near_host(struct context *c, struct str full, struct str *near)
{
        unsigned best = 4;

        for (size_t i = 0; i < c->s->nservices; i++) {
                unsigned d = str_distance(c->s->services[i]->host, full, 3);

                if (d < best) {
                        best = d;
                        *near = c->s->services[i]->host;
                }
        }
}

static void unknown_host(struct context *c, const struct pb_node *at, const char *path, struct str full)
{
        struct str near = { 0 };

        near_host(c, full, &near);
        if (near.n)
                check_warn(&c->check, at, path,
                           "no Service or ServiceEntry has host " STR_FMT " (did you mean " STR_FMT "?): requests get 503", STR_ARG(full),
                           STR_ARG(near));
        else
                check_warn(&c->check, at, path,
                           "no Service or ServiceEntry has host " STR_FMT " yet: until one is applied, requests get 503", STR_ARG(full));
}

static void destination(void *arg, const struct pb_node *n, const struct pb_node *parent, const char *path)
{
        struct context *c = arg;
        struct str full, subset = read_str(&c->check.scratch, n, "subset");
        struct mesh_service *svc = service_of(c, read_str(&c->check.scratch, n, "host"), &full);
        uint32_t port = read_u32(read_field(n, "port"), "number");
        static const struct mesh_labels none = { 0 };
        bool has = !port;

        if (!svc) {
                unknown_host(c, read_field(n, "host"), path, full);
                return;
        }
        for (size_t i = 0; i < svc->nports; i++)
                has |= svc->ports[i].number == port;
        if (!has)
                check_warn(&c->check, n, path, STR_FMT " has no port %u: requests get 503", STR_ARG(full), port);
        if (subset.n && !mesh_subset_find(mesh_dr_find(c->s, full, svc->ns, c->ns, &none), subset))
                check_warn(&c->check, n, path,
                           "no DestinationRule that clients in namespace " STR_FMT " see gives " STR_FMT " a subset \"" STR_FMT
                           "\": requests get 503. They look in their own namespace, in " STR_FMT " and in " STR_FMT,
                           STR_ARG(c->ns), STR_ARG(full), STR_ARG(subset), STR_ARG(svc->ns), STR_ARG(c->s->config->root_ns));
}

static void gateway(void *arg, const struct pb_node *n, const struct pb_node *parent, const char *path)
{
        struct context *c = arg;
        ptrdiff_t slash = str_chr(n->text, '/');
        struct str ns = slash < 0 || (slash == 1 && n->text.p[0] == '.') ? c->ns : str_sub(n->text, 0, (size_t)slash);
        struct str name = slash < 0 ? n->text : str_sub(n->text, (size_t)slash + 1, n->text.n);

        if (str_eqc(n->text, "mesh"))
                return;
        for (size_t i = 0; i < c->s->ngateways; i++)
                if (str_eq(c->s->gateways[i]->meta.ns, ns) && str_eq(c->s->gateways[i]->meta.name, name))
                        return;
        check_warn(&c->check, n, path,
                   "there is no Gateway " STR_FMT "/" STR_FMT " yet: until one is applied, these routes are used nowhere by it",
                   STR_ARG(ns), STR_ARG(name));
}

static void rule(struct context *c)
{
        struct str full;
        const struct pb_node *at = pb_get_path(c->object, "spec.host");
        struct mesh_service *svc;

        if (!at || str_starts(at->text, STR("*")))
                return;
        svc = service_of(c, at->text, &full);
        if (!svc)
                unknown_host(c, at, "spec.host", full);
        else if (!str_eq(svc->ns, c->ns) && !str_eq(c->s->config->root_ns, c->ns))
                check_warn(&c->check, at, "spec.host",
                           "only clients in namespace " STR_FMT " use this rule: others look in their own namespace, in " STR_FMT
                           " and in " STR_FMT,
                           STR_ARG(c->ns), STR_ARG(svc->ns), STR_ARG(c->s->config->root_ns));
}

static void selector(struct context *c, const char *path, bool any_namespace)
{
        const struct pb_node *n = pb_get_path(c->object, path);
        struct mesh_labels want = read_labels(&c->check.scratch, n);

        if (!want.n)
                return;
        for (size_t i = 0; i < c->s->npods; i++)
                if ((any_namespace || str_eq(c->s->pods[i]->meta.ns, c->ns)) && mesh_labels_match(&want, &c->s->pods[i]->labels))
                        return;
        for (size_t i = 0; i < c->s->nworkloads; i++)
                if (str_eq(c->s->workloads[i]->meta.ns, c->ns) && mesh_labels_match(&want, &c->s->workloads[i]->endpoint.labels))
                        return;
        check_warn(&c->check, n, path, "no pod has these labels (" STR_FMT "=" STR_FMT "%s) yet", STR_ARG(want.v[0].key),
                   STR_ARG(want.v[0].value), want.n > 1 ? ", …" : "");
}

void mesh_references(const struct mesh_snapshot *s, const struct pb_node *object, struct str file, struct diags *d)
{
        static const char *const destinations[] = { "spec.http[].route[].destination", "spec.tls[].route[].destination",
                                                    "spec.tcp[].route[].destination" };
        struct str kind = pb_get_str(object, "kind", STR(""));
        struct context c = { .s = s, .object = object, .check = { .d = d, .file = file } };

        arena_init(&c.check.scratch, 1024);
        c.check.resource = walk_resource(&c.check.scratch, object);
        c.ns = pb_get_str(object, "metadata.namespace", STR("default"));
        if (str_eqc(kind, "VirtualService")) {
                for (size_t i = 0; i < 3; i++)
                        walk(object, destinations[i], false, destination, &c);
                walk(object, "spec.gateways[]", false, gateway, &c);
        } else if (str_eqc(kind, "DestinationRule")) {
                rule(&c);
        } else if (str_eqc(kind, "Gateway") && str_starts(pb_get_str(object, "apiVersion", STR("")), STR("networking.istio.io/"))) {
                selector(&c, "spec.selector", true);
        } else if (str_eqc(kind, "ServiceEntry")) {
                selector(&c, "spec.workloadSelector.labels", false);
        }
        arena_fini(&c.check.scratch);
}
