/* Validation needs the other objects too: a route to a host that nobody declares is worth a warning. The model of them is kept here between
 * requests and brought up to date by comparing resource versions, so that applying ten thousand objects does not read a hundred million. */
#include "cmd/admission.h"

#include "base/hash.h"
#include "base/mem.h"
#include "cmd/proxypod.h"
#include "mesh/mesh.h"

#include <stdlib.h>

#define MESH_NS STR("istio-system")

static const struct {
        const char *resource, *kind;
} model_kinds[] = {
        { "configmaps", "ConfigMap" },
        { "namespaces", "Namespace" },
        { "pods", "Pod" }, /* selectors of Gateways and workloads look at their labels */
        { "services", "Service" },
        { "serviceentries.networking.istio.io", "ServiceEntry" },
        { "gateways.networking.istio.io", "Gateway" },
        { "destinationrules.networking.istio.io", "DestinationRule" },
        { "virtualservices.networking.istio.io", "VirtualService" },
        { "workloadentries.networking.istio.io", "WorkloadEntry" },
        { "sidecars.networking.istio.io", "Sidecar" },
};

struct known {
        char *version;
        uint64_t round;
};

struct admission {
        struct kube_admission hooks[2];
        struct mesh *mesh;
        struct strmap known; /* "kind/ns/name" -> struct known */
        uint64_t round;
};

struct sync {
        struct admission *a;
        size_t kind;
};

static bool sync_one(void *arg, const struct pb_node *object)
{
        struct sync *s = arg;
        struct str ns = pb_get_str(object, "metadata.namespace", STR("")), name = pb_get_str(object, "metadata.name", STR(""));
        struct str version = pb_get_str(object, "metadata.resourceVersion", STR(""));
        char *key = mem_printf("%s/" STR_FMT "/" STR_FMT, model_kinds[s->kind].kind, STR_ARG(ns), STR_ARG(name));
        struct known *k = strmap_get(&s->a->known, str_of(key));
        struct diags ignored;

        if (!k) {
                k = MEM_NEW(struct known);
                strmap_set(&s->a->known, str_of(key), k);
        }
        free(key);
        k->round = s->a->round;
        if (k->version && str_eqc(version, k->version))
                return true;
        free(k->version);
        k->version = str_dup(version);
        diags_init(&ignored);
        mesh_set(s->a->mesh, object, &ignored);
        diags_fini(&ignored);
        return true;
}

static void forget_deleted(struct admission *a)
{
        STRMAP_EACH (&a->known, e) {
                struct known *k = e->value;

                if (k->round == a->round)
                        continue;
                struct str rest = e->key, kind, ns;

                str_next(&rest, '/', &kind);
                str_next(&rest, '/', &ns);
                mesh_delete(a->mesh, kind, ns, rest);
                free(k->version);
                free(k);
                strmap_del(&a->known, e->key);
        }
}

static void sync_model(struct admission *a, const struct kube_view *v)
{
        a->round++;
        for (size_t i = 0; i < ARRAY_LEN(model_kinds); i++) {
                struct sync s = { a, i };

                v->each(v, model_kinds[i].resource, str_eqc(str_of(model_kinds[i].kind), "ConfigMap") ? MESH_NS : STR(""), sync_one, &s);
        }
        forget_deleted(a);
}

static struct str config_text(const struct kube_view *v, const char *name, const char *key)
{
        const struct pb_node *map = v->get(v, "configmaps", MESH_NS, str_of(name));
        const struct pb_node *value = map ? pb_get(pb_get(map, "data"), key) : NULL;

        return value ? value->text : STR("");
}

static void mutate(void *arg, struct kube_admission_req *r, struct diags *d)
{
        (void)arg;
        if (!str_eqc(r->kind, "Pod") || r->group.n || r->subresource.n || strcmp(r->operation, "CREATE") != 0)
                return;
        struct inject_input in = {
                .values = config_text(r->view, "istio-sidecar-injector", "values"),
                .mesh = config_text(r->view, "istio", "mesh"),
                .namespace_labels = r->ns_labels,
        };

        if (inject_wanted(r->object, r->ns, &in))
                inject_pod(r->object, r->ns, &in, r->arena, d);
}

static bool ours(const struct kube_admission_req *r)
{
        if (str_ends(r->group, STR("istio.io")))
                return true;
        return !r->group.n && str_eqc(r->kind, "ConfigMap") && str_eq(r->ns, MESH_NS) && str_eqc(r->name, "istio");
}

static void validate(void *arg, const struct kube_admission_req *r, struct diags *d)
{
        struct admission *a = arg;

        if (!ours(r) || r->subresource.n || !r->object || strcmp(r->operation, "DELETE") == 0)
                return;
        if (!mesh_validate(r->object, STR(""), d))
                return;
        mesh_unsupported(r->object, STR(""), d);
        sync_model(a, r->view);
        struct mesh_snapshot *s = mesh_snapshot(a->mesh);

        mesh_references(s, r->object, STR(""), d);
        mesh_snapshot_unref(s);
}

struct admission *admission_new(void)
{
        struct admission *a = MEM_NEW(struct admission);

        a->mesh = mesh_new();
        a->hooks[0] = (struct kube_admission){ .name = "sidecar-injector.postern", .mutate = mutate, .arg = a };
        a->hooks[1] = (struct kube_admission){ .name = "validation.postern", .validate = validate, .arg = a };
        return a;
}

void admission_free(struct admission *a)
{
        if (!a)
                return;
        STRMAP_EACH (&a->known, e) {
                struct known *k = e->value;

                free(k->version);
                free(k);
        }
        strmap_fini(&a->known);
        mesh_free(a->mesh);
        free(a);
}

const struct kube_admission *admission_hooks(const struct admission *a, unsigned *n)
{
        *n = ARRAY_LEN(a->hooks);
        return a->hooks;
}
