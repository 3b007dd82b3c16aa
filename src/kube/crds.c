/* The CustomResourceDefinitions of the custom kinds, so that `kubectl get crd` and tools that wait for a definition find them. They are
 * made from the table of resources at every start, and nobody can change them. */
#include "kube/api.h"

#include "base/mem.h"

#include <stdio.h>

static void words(struct arena *a, struct pb_node *map, const char *key, const char *text)
{
        struct str rest = str_of(text), part;

        while (*text && str_next(&rest, ' ', &part))
                pb_push(a, kube_list_at(a, map, key), pb_new(a, PB_STRING, part));
}

static struct pb_node *version_of(struct arena *a, const struct kube_resource *r)
{
        struct pb_node *v = pb_new(a, PB_MAP, STR("")), *schema = kube_map(a, kube_map(a, v, "schema"), "openAPIV3Schema");

        pb_put_str(a, v, "name", str_of(r->version));
        kube_put_bool(a, v, "served", true);
        kube_put_bool(a, v, "storage", r->storage);
        kube_map(a, kube_map(a, v, "subresources"), "status");
        pb_put_str(a, schema, "type", STR("object"));
        kube_put_bool(a, schema, "x-kubernetes-preserve-unknown-fields", true);
        return v;
}

static struct pb_node *definition(struct arena *a, const struct kube_resource *r)
{
        struct pb_node *o = pb_new(a, PB_MAP, STR("")), *spec = kube_map(a, o, "spec"), *names = kube_map(a, spec, "names"),
                       *st = kube_map(a, o, "status");
        static const char *const conditions[][3] = { { "NamesAccepted", "NoConflicts", "no conflicts found" },
                                                     { "Established", "InitialNamesAccepted", "the initial names have been accepted" } };

        pb_put_str(a, o, "apiVersion", STR("apiextensions.k8s.io/v1"));
        pb_put_str(a, o, "kind", STR("CustomResourceDefinition"));
        pb_put_str(a, kube_map(a, o, "metadata"), "name", str_of(r->bucket));
        pb_put_str(a, spec, "group", str_of(r->group));
        pb_put_str(a, spec, "scope", STR("Namespaced"));
        pb_put_str(a, names, "plural", str_of(r->plural));
        pb_put_str(a, names, "singular", str_of(r->singular));
        pb_put_str(a, names, "kind", str_of(r->kind));
        pb_put_str(a, names, "listKind", arena_printf(a, "%sList", r->kind));
        words(a, names, "shortNames", r->short_names);
        words(a, names, "categories", r->categories);
        for (unsigned i = 0; i < kube_resources_n; i++)
                if (kube_resources[i].desc && !strcmp(kube_resources[i].bucket, r->bucket))
                        pb_push(a, kube_list_at(a, spec, "versions"), version_of(a, &kube_resources[i]));
        for (size_t i = 0; i < ARRAY_LEN(conditions); i++) {
                struct pb_node *c = pb_new(a, PB_MAP, STR(""));

                pb_put_str(a, c, "type", str_of(conditions[i][0]));
                pb_put_str(a, c, "status", STR("True"));
                pb_put_str(a, c, "reason", str_of(conditions[i][1]));
                pb_put_str(a, c, "message", str_of(conditions[i][2]));
                pb_push(a, kube_list_at(a, st, "conditions"), c);
        }
        pb_put(a, st, STR("acceptedNames"), pb_clone(a, names));
        pb_push(a, kube_list_at(a, st, "storedVersions"), pb_new(a, PB_STRING, str_of(r->version)));
        return o;
}

void kube_crds_install(struct kube_api *api)
{
        int bucket = kube_bucket_find(STR("customresourcedefinitions.apiextensions.k8s.io"));
        const struct kube_resource *crd = kube_bucket_resource((unsigned)bucket);
        struct arena a;

        arena_init(&a, 16384);
        for (unsigned i = 0; i < kube_resources_n; i++) {
                const struct kube_resource *r = &kube_resources[i];

                if (r->shape != KUBE_CUSTOM || !r->desc || !r->storage)
                        continue;
                struct pb_node *o = definition(&a, r);
                const struct kobj *old = kube_store_get(api->store, (unsigned)bucket, STR(""), str_of(r->bucket));
                if (old && pb_node_eq(pb_get(old->node, "spec"), pb_get(o, "spec")))
                        continue;
                kube_meta_create(api, crd, o, &a);
                kube_store_put(api->store, (unsigned)bucket, STR(""), str_of(r->bucket), o, &a);
                arena_reset(&a);
        }
        arena_fini(&a);
}
