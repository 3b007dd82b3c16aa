/* OpenAPI: what kubectl validates against before it sends, explains from, and computes patches by. Schemas come from the descriptors
 * (pb/schema.h); the paths say which kinds can be patched how, and that they take fieldValidation and dryRun, which kubectl looks for.
 *
 * Documents are made at the first request and kept: they depend on nothing but the program. */
#include "kube/openapi.h"

#include "base/hash.h"
#include "base/mem.h"
#include "pb/schema.h"

#include <stdio.h>
#include <stdlib.h>

enum { DOCS_MAX = 24 };

struct openapi_cache {
        struct buf v2_json, v2_pb;
        struct {
                const struct kube_resource *first; /* stands for its group and version */
                struct buf json;
                uint64_t hash;
        } v3[DOCS_MAX];
        unsigned nv3;
};

void kube_openapi_free(struct openapi_cache *c)
{
        if (!c)
                return;
        buf_fini(&c->v2_json);
        buf_fini(&c->v2_pb);
        for (unsigned i = 0; i < c->nv3; i++)
                buf_fini(&c->v3[i].json);
        free(c);
}

static struct openapi_cache *cache(struct kube_api *api)
{
        if (!api->openapi)
                api->openapi = MEM_NEW(struct openapi_cache);
        return api->openapi;
}

/* ---- schemas ---- */

/* How lists merge, for clients that compute strategic patches from the schema. */
static void patch_extensions(void *arg, const ProtobufCMessageDescriptor *t, const ProtobufCFieldDescriptor *f, const char *json_name,
                             struct buf *out)
{
        const struct kube_patch_rule *r = kube_patch_rule(t, str_of(json_name));

        if (!r)
                return;
        if (r->merge && *r->merge_key)
                buf_printf(out, ",\"x-kubernetes-patch-merge-key\":\"%s\"", r->merge_key);
        buf_printf(out, ",\"x-kubernetes-patch-strategy\":\"%s%s%s\"", r->merge ? "merge" : "", r->merge && r->retain_keys ? "," : "",
                   r->retain_keys ? "retainKeys" : "");
}

static struct pb_schema_object object_of(const struct kube_resource *r)
{
        return (struct pb_schema_object){ r->group, r->version, r->kind, r->desc, r->shape == KUBE_CUSTOM };
}

static void named(struct buf *out, const struct pb_schema_object *ob, bool list, bool *first)
{
        buf_cstr(out, *first ? "\"" : ",\"");
        *first = false;
        pb_schema_object_name(ob, list, out);
        buf_cstr(out, "\":");
}

/* A group version, or everything with group NULL. */
static bool covers(const struct kube_resource *r, const struct kube_resource *only)
{
        return r->desc && (!only || (!strcmp(r->group, only->group) && !strcmp(r->version, only->version)));
}

static bool is_root(const ProtobufCMessageDescriptor *t, const struct kube_resource *only)
{
        for (unsigned i = 0; i < kube_resources_n; i++)
                if (covers(&kube_resources[i], only) && kube_resources[i].shape == KUBE_BUILTIN && kube_resources[i].desc == t)
                        return true;
        return false;
}

static void schemas(struct buf *out, const struct kube_resource *only, const struct pb_schema_opts *o)
{
        const ProtobufCMessageDescriptor **roots = mem_calloc(kube_resources_n, sizeof(*roots));
        size_t n = 0, n_all;
        bool first = true;

        for (unsigned i = 0; i < kube_resources_n; i++) {
                const struct kube_resource *r = &kube_resources[i];
                struct pb_schema_object ob = object_of(r);

                if (!covers(r, only))
                        continue;
                roots[n++] = r->desc;
                named(out, &ob, false, &first);
                pb_schema_object_json(&ob, o, out);
                if (!(r->verbs & KUBE_LIST))
                        continue;
                named(out, &ob, true, &first);
                pb_schema_list_json(&ob, o, out);
        }
        const ProtobufCMessageDescriptor **all = pb_schema_closure(roots, n, &n_all);
        for (size_t i = 0; i < n_all; i++) {
                if (is_root(all[i], only))
                        continue;
                buf_cstr(out, first ? "\"" : ",\"");
                first = false;
                pb_schema_name(all[i], out);
                buf_cstr(out, "\":");
                pb_schema_json(all[i], o, out);
        }
        free(all);
        free(roots);
}

/* ---- paths ---- */

static const char *const patch_types[] = { "application/json-patch+json", "application/merge-patch+json",
                                           "application/strategic-merge-patch+json" };

struct op {
        const struct kube_resource *r;
        bool v3;
        const char *ref_prefix;
};

static void query_parameter(struct buf *b, bool v3, const char *name, const char *text, bool comma)
{
        buf_printf(b, "%s{\"name\":\"%s\",\"in\":\"query\",\"description\":\"%s\",", comma ? "," : "", name, text);
        buf_cstr(b, v3 ? "\"schema\":{\"type\":\"string\",\"uniqueItems\":true}}" : "\"type\":\"string\",\"uniqueItems\":true}");
}

static void reference(struct buf *b, const struct op *o, bool list)
{
        struct pb_schema_object ob = object_of(o->r);

        buf_printf(b, "{\"$ref\":\"%s", o->ref_prefix);
        pb_schema_object_name(&ob, list, b);
        buf_cstr(b, "\"}");
}

static void response(struct buf *b, const struct op *o, bool list)
{
        buf_cstr(b, "\"responses\":{\"200\":{\"description\":\"OK\",");
        if (o->v3)
                buf_cstr(b, "\"content\":{\"application/json\":{");
        buf_cstr(b, "\"schema\":");
        reference(b, o, list);
        buf_cstr(b, o->v3 ? "}}}}" : "}}");
}

static void operation(struct buf *b, const struct op *o, const char *method, const char *action, bool list, bool *first)
{
        bool patch = !strcmp(method, "patch"), writes = strcmp(method, "get") && strcmp(method, "delete");
        unsigned ntypes = o->r->shape == KUBE_BUILTIN ? 3 : 2;

        buf_printf(b, "%s\"%s\":{\"operationId\":\"%s%s%s%s\",", *first ? "" : ",", method, action, o->r->group, o->r->version, o->r->kind);
        *first = false;
        if (patch && !o->v3) {
                buf_cstr(b, "\"consumes\":[");
                for (unsigned i = 0; i < ntypes; i++)
                        buf_printf(b, "%s\"%s\"", i ? "," : "", patch_types[i]);
                buf_cstr(b, "],");
        } else if (!o->v3) {
                buf_cstr(b, "\"consumes\":[\"*/*\"],");
        }
        if (writes || !strcmp(method, "delete")) {
                buf_cstr(b, "\"parameters\":[");
                query_parameter(b, o->v3, "dryRun", "All: check everything and store nothing", false);
                if (writes)
                        query_parameter(b, o->v3, "fieldValidation", "What to do with unknown fields: Ignore, Warn or Strict", true);
                buf_cstr(b, "],");
        }
        if (writes && o->v3) {
                buf_cstr(b, "\"requestBody\":{\"content\":{");
                for (unsigned i = 0; i < (patch ? ntypes : 1); i++) {
                        buf_printf(b, "%s\"%s\":{\"schema\":", i ? "," : "", patch ? patch_types[i] : "application/json");
                        if (patch)
                                buf_cstr(b, "{\"type\":\"object\"}");
                        else
                                reference(b, o, false);
                        buf_char(b, '}');
                }
                buf_cstr(b, "}},");
        }
        response(b, o, list);
        buf_printf(b,
                   ",\"x-kubernetes-action\":\"%s\",\"x-kubernetes-group-version-kind\":{\"group\":\"%s\",\"kind\":\"%s\",\"version\":\"%"
                   "s\"}}",
                   action, o->r->group, o->r->kind, o->r->version);
}

static void path_parameter(struct buf *b, bool v3, const char *name, bool comma)
{
        buf_printf(b, "%s{\"name\":\"%s\",\"in\":\"path\",\"required\":true,", comma ? "," : "", name);
        buf_cstr(b, v3 ? "\"schema\":{\"type\":\"string\",\"uniqueItems\":true}}" : "\"type\":\"string\",\"uniqueItems\":true}");
}

static void one_path(struct buf *b, const struct op *o, bool item, bool *first_path)
{
        static const struct {
                unsigned verb;
                bool item;
                const char *method, *action;
        } ops[] = { { KUBE_LIST, false, "get", "list" },
                    { KUBE_CREATE, false, "post", "post" },
                    { KUBE_DELETE_COLLECTION, false, "delete", "deletecollection" },
                    { KUBE_GET, true, "get", "get" },
                    { KUBE_UPDATE, true, "put", "put" },
                    { KUBE_PATCH, true, "patch", "patch" },
                    { KUBE_DELETE, true, "delete", "delete" } };
        const struct kube_resource *r = o->r;
        bool first = true;

        buf_printf(b, "%s\"/%s%s%s/%s/%s%s%s\":{", *first_path ? "" : ",", *r->group ? "apis/" : "api", r->group, "", r->version,
                   r->namespaced ? "namespaces/{namespace}/" : "", r->plural, item ? "/{name}" : "");
        *first_path = false;
        for (size_t i = 0; i < ARRAY_LEN(ops); i++)
                if (ops[i].item == item && (r->verbs & ops[i].verb))
                        operation(b, o, ops[i].method, ops[i].action, ops[i].verb == KUBE_LIST, &first);
        if (item || r->namespaced) {
                buf_printf(b, "%s\"parameters\":[", first ? "" : ",");
                if (item)
                        path_parameter(b, o->v3, "name", false);
                if (r->namespaced)
                        path_parameter(b, o->v3, "namespace", item);
                buf_char(b, ']');
        }
        buf_char(b, '}');
}

static void paths(struct buf *b, const struct kube_resource *only, bool v3, const char *ref_prefix)
{
        bool first = true;

        for (unsigned i = 0; i < kube_resources_n; i++) {
                struct op o = { &kube_resources[i], v3, ref_prefix };

                if (!covers(o.r, only))
                        continue;
                one_path(b, &o, false, &first);
                if (o.r->verbs & KUBE_GET)
                        one_path(b, &o, true, &first);
        }
}

/* ---- documents ---- */

static const struct buf *v2_json(struct kube_api *api)
{
        static const struct pb_schema_opts opts = { PB_SCHEMA_V2, "#/definitions/", patch_extensions, NULL };
        struct buf *b = &cache(api)->v2_json;

        if (b->n)
                return b;
        buf_cstr(b, "{\"swagger\":\"2.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":\"" KUBE_VERSION_GIT "\"},\"paths\":{");
        paths(b, NULL, false, opts.ref_prefix);
        buf_cstr(b, "},\"definitions\":{");
        schemas(b, NULL, &opts);
        buf_cstr(b, "}}\n");
        return b;
}

static const struct buf *v2_pb(struct kube_api *api)
{
        struct buf *b = &cache(api)->v2_pb;
        struct arena a;
        struct diags d;
        struct pb_node *doc;

        if (b->n)
                return b;
        arena_init(&a, 1 << 20);
        diags_init(&d);
        if (pb_parse_json(buf_view(v2_json(api)), STR("openapi"), &a, &doc, &d))
                openapi_gnostic(doc, b);
        diags_fini(&d);
        arena_fini(&a);
        return b;
}

static int v3_doc(struct kube_api *api, const struct kube_resource *first)
{
        static const struct pb_schema_opts opts = { PB_SCHEMA_V3, "#/components/schemas/", patch_extensions, NULL };
        struct openapi_cache *c = cache(api);

        for (unsigned i = 0; i < c->nv3; i++)
                if (c->v3[i].first == first)
                        return (int)i;
        if (c->nv3 == DOCS_MAX)
                return -1;
        struct buf *b = &c->v3[c->nv3].json;
        buf_cstr(b, "{\"openapi\":\"3.0.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":\"" KUBE_VERSION_GIT "\"},\"paths\":{");
        paths(b, first, true, opts.ref_prefix);
        buf_cstr(b, "},\"components\":{\"schemas\":{");
        schemas(b, first, &opts);
        buf_cstr(b, "}}}\n");
        c->v3[c->nv3].first = first;
        c->v3[c->nv3].hash = hash_bytes(b->p, b->n, 0);
        return (int)c->nv3++;
}

/* The first resource of each group version, which stands for it. */
static const struct kube_resource *group_version(unsigned i)
{
        for (unsigned k = 0; k < i; k++)
                if (covers(&kube_resources[k], &kube_resources[i]))
                        return NULL;
        return kube_resources[i].desc ? &kube_resources[i] : NULL;
}

static void v3_index(struct kube_req *r)
{
        bool first = true;

        buf_cstr(&r->out, "{\"paths\":{");
        for (unsigned i = 0; i < kube_resources_n; i++) {
                const struct kube_resource *g = group_version(i);
                int doc = g ? v3_doc(r->api, g) : -1;
                char path[128];

                if (doc < 0)
                        continue;
                snprintf(path, sizeof(path), "%s%s/%s", *g->group ? "apis/" : "api", g->group, g->version);
                buf_printf(&r->out, "%s\"%s\":{\"serverRelativeURL\":\"/openapi/v3/%s?hash=%016llX\"}", first ? "" : ",", path, path,
                           (unsigned long long)r->api->openapi->v3[doc].hash);
                first = false;
        }
        buf_cstr(&r->out, "}}\n");
}

static bool v3_one(struct kube_req *r)
{
        bool core = r->path.nseg == 4 && str_eqc(r->path.seg[2], "api"), named_group = r->path.nseg == 5 && str_eqc(r->path.seg[2], "apis");
        struct str group = core ? STR("") : r->path.seg[3], version = r->path.seg[core ? 3 : 4];

        if (!core && !named_group)
                return false;
        for (unsigned i = 0; i < kube_resources_n; i++) {
                const struct kube_resource *g = group_version(i);

                if (!g || !str_eqc(group, g->group) || !str_eqc(version, g->version))
                        continue;
                int doc = v3_doc(r->api, g);
                if (doc < 0)
                        return false;
                buf_str(&r->out, buf_view(&r->api->openapi->v3[doc].json));
                return true;
        }
        return false;
}

bool kube_openapi(struct kube_req *r)
{
        bool get = str_eqc(r->method, "GET") || str_eqc(r->method, "HEAD");

        if (!get || r->path.nseg < 2 || !str_eqc(r->path.seg[0], "openapi"))
                return false;
        if (r->path.nseg == 2 && str_eqc(r->path.seg[1], "v2")) {
                bool pb = str_find(r->accept, STR("application/com.github.proto-openapi.spec.v2")) >= 0;

                r->type = pb ? "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" : "application/json";
                buf_str(&r->out, buf_view(pb ? v2_pb(r->api) : v2_json(r->api)));
                return true;
        }
        if (!str_eqc(r->path.seg[1], "v3"))
                return false;
        if (r->path.nseg == 2) {
                v3_index(r);
                return true;
        }
        return v3_one(r);
}
