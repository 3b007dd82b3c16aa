/* The verbs on stored kinds: get, list, create, update, patch, delete. Everything happens within one call, on one thread, so a patch reads,
 * merges and writes without anyone in between; the only conflict is the resource version that a client itself names. */
#include "kube/rest.h"

#include "base/log.h"
#include "base/mem.h"
#include "kube/wire.h"

#include <stdio.h>

/* ---- bodies ---- */

static bool media_is(struct str type, const char *want)
{
        ptrdiff_t semi = str_chr(type, ';');

        return str_eq_nocase(str_trim(semi < 0 ? type : str_sub(type, 0, (size_t)semi)), str_of(want));
}

static struct pb_node *parse_failed(struct kube_req *r, struct diags *d, const char *what)
{
        struct buf b = BUF_INIT;

        for (size_t i = 0; i < d->n && i < 3; i++) {
                if (i)
                        buf_cstr(&b, "; ");
                diag_format(&d->v[i], &b);
        }
        kube_req_error(r, 400, "BadRequest", "error decoding the request's %s: " STR_FMT, what, STR_ARG(buf_view(&b)));
        buf_fini(&b);
        diags_fini(d);
        return NULL;
}

static struct pb_node *parse_body(struct kube_req *r, bool yaml)
{
        struct pb_node *root = NULL, **docs = NULL;
        size_t ndocs = 0;
        struct diags d;

        diags_init(&d);
        if (yaml ? !pb_parse_yaml(r->body, STR("body"), r->a, &docs, &ndocs, &d) : !pb_parse_json(r->body, STR("body"), r->a, &root, &d))
                return parse_failed(r, &d, yaml ? "YAML" : "JSON");
        diags_fini(&d);
        if (yaml && ndocs == 1)
                root = docs[0];
        if (!root)
                kube_req_error(r, 400, "BadRequest", "the request's body must be exactly one document");
        return root;
}

/* Newer kubectls create built-in kinds with protobuf. What a sub-resource takes is another message than the kind's. */
static struct pb_node *wire_body(struct kube_req *r)
{
        static const struct {
                const char *sub, *type;
        } takes[] = { { "token", "k8s.io.api.authentication.v1.TokenRequest" },
                      { "eviction", "k8s.io.api.policy.v1.Eviction" },
                      { "scale", "k8s.io.api.autoscaling.v1.Scale" } };
        const ProtobufCMessageDescriptor *type = r->res->desc;
        struct str why;

        if (r->verb == KUBE_DELETE || r->verb == KUBE_DELETE_COLLECTION)
                type = pb_type(STR("k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions"));
        for (size_t i = 0; i < ARRAY_LEN(takes); i++)
                if (str_eqc(r->path.sub, takes[i].sub))
                        type = pb_type(str_of(takes[i].type));
        struct pb_node *n = kube_wire_decode(r->body, type, r->a, &why);
        if (!n)
                kube_req_error(r, 400, "BadRequest", "error decoding the request's protobuf: " STR_FMT, STR_ARG(why));
        return n;
}

struct pb_node *kube_rest_body(struct kube_req *r)
{
        struct str t = r->content_type;

        if (media_is(t, "application/vnd.kubernetes.protobuf") && r->res->shape == KUBE_BUILTIN)
                return wire_body(r);
        bool json = !t.n || media_is(t, "application/json") || media_is(t, "*/*"),
             yaml = media_is(t, "application/yaml") || media_is(t, "application/x-yaml");

        if (!json && !yaml) {
                kube_req_error(r, 415, "UnsupportedMediaType",
                               "the body of the request was in an unknown format - accepted media types include: application/json, "
                               "application/yaml");
                return NULL;
        }
        struct pb_node *n = parse_body(r, yaml);
        if (n && n->kind != PB_MAP) {
                kube_req_error(r, 400, "BadRequest", "the request's body must be an object");
                return NULL;
        }
        return n;
}

/* apiVersion and kind of the body must be those of the path; what is missing is taken from there. */
static bool check_type(struct kube_req *r, struct pb_node *o)
{
        struct str v = pb_get_str(o, "apiVersion", STR("")), k = pb_get_str(o, "kind", STR(""));

        if (v.n && !str_eqc(v, kube_api_version(r->res)))
                return kube_req_error(r, 400, "BadRequest",
                                      "the API version in the data (" STR_FMT ") does not match the expected API version (%s)", STR_ARG(v),
                                      kube_api_version(r->res));
        if (k.n && !str_eqc(k, r->res->kind))
                return kube_req_error(r, 400, "BadRequest", "the kind in the data (" STR_FMT ") does not match the expected kind (%s)",
                                      STR_ARG(k), r->res->kind);
        return true;
}

/* What is stored carries the storage version's apiVersion. */
static void to_storage(struct kube_req *r, struct pb_node *o)
{
        static const char *const omitted[] = { "labels", "annotations", "finalizers", "ownerReferences" }; /* when empty */
        const struct kube_resource *st = kube_bucket_resource(r->res->bucket_id);
        struct pb_node *meta = pb_get(o, "metadata");

        for (size_t i = 0; i < ARRAY_LEN(omitted); i++) {
                const struct pb_node *v = pb_get(meta, omitted[i]);

                if (v && (v->kind == PB_MAP || v->kind == PB_LIST) && !v->n)
                        pb_del(meta, omitted[i]);
        }

        pb_put_str(r->a, o, "apiVersion", str_of(kube_api_version(st)));
        pb_put_str(r->a, o, "kind", str_of(st->kind));
}

static bool check_namespace(struct kube_req *r, struct pb_node *o)
{
        struct pb_node *meta = kube_map(r->a, o, "metadata");
        struct str ns = pb_get_str(meta, "namespace", STR(""));

        if (!r->res->namespaced) {
                pb_del(meta, "namespace");
                return true;
        }
        if (ns.n && !str_eq(ns, r->path.ns))
                return kube_req_error(r, 400, "BadRequest",
                                      "the namespace of the provided object does not match the namespace sent on the request");
        pb_put_str(r->a, meta, "namespace", r->path.ns);
        return true;
}

static bool namespace_open(struct kube_req *r)
{
        const struct kobj *ns = r->res->namespaced ? kube_store_get(r->api->store, kube_b.namespaces, STR(""), r->path.ns) : NULL;

        if (!r->res->namespaced)
                return true;
        if (!ns) {
                kube_req_error(r, 404, "NotFound", "namespaces \"" STR_FMT "\" not found", STR_ARG(r->path.ns));
                r->err.name = r->path.ns;
                r->err.kind = STR("namespaces");
                return false;
        }
        if (!pb_get_path(ns->node, "metadata.deletionTimestamp"))
                return true;
        kube_req_error(r, 403, "Forbidden",
                       "%s \"" STR_FMT "\" is forbidden: unable to create new content in namespace " STR_FMT
                       " because it is being terminated",
                       kube_qualified(r->res), STR_ARG(r->path.name), STR_ARG(r->path.ns));
        kube_error_cause(&r->err, r->a, "NamespaceTerminating", STR("metadata.namespace"),
                         arena_printf(r->a, "namespace " STR_FMT " is being terminated", STR_ARG(r->path.ns)));
        return false;
}

/* ---- admission ---- */

static bool denied(struct kube_req *r, const struct kube_admission *h, const struct diags *d)
{
        struct buf b = BUF_INIT;

        for (size_t i = 0; i < d->n; i++) {
                const struct diag *g = &d->v[i];

                if (g->severity == DIAG_ERROR)
                        buf_printf(&b, "%s" STR_FMT "%s" STR_FMT, b.n ? "; " : "", STR_ARG(g->path), g->path.n ? ": " : "",
                                   STR_ARG(g->text));
                else if (g->severity == DIAG_WARNING)
                        kube_req_warn(r, STR_FMT "%s" STR_FMT, STR_ARG(g->path), g->path.n ? ": " : "", STR_ARG(g->text));
        }
        if (d->errors)
                kube_req_error(r, 400, "BadRequest", "admission webhook \"%s\" denied the request: " STR_FMT, h->name,
                               STR_ARG(buf_view(&b)));
        buf_fini(&b);
        return d->errors > 0;
}

static bool admit(struct kube_req *r, const char *operation, struct pb_node *o, const struct pb_node *old, bool mutate)
{
        const struct kobj *ns = r->res->namespaced ? kube_store_get(r->api->store, kube_b.namespaces, STR(""), r->path.ns) : NULL;
        struct kube_admission_req q = {
                .operation = operation,
                .group = str_of(r->res->group),
                .version = str_of(r->res->version),
                .kind = str_of(r->res->kind),
                .resource = str_of(r->res->plural),
                .subresource = r->path.sub,
                .ns = r->path.ns,
                .user = r->user.name,
                .dry_run = r->dry_run,
                .arena = r->a,
                .object = o,
                .old = old,
                .ns_object = ns ? ns->node : NULL,
                .view = &r->api->view,
                .name = pb_get_str(o ? o : old, "metadata.name", STR("")),
                .ns_labels = ns ? pb_get_path(ns->node, "metadata.labels") : NULL,
        };
        bool ok = true;

        for (unsigned i = 0; ok && i < r->api->nadmission; i++) {
                const struct kube_admission *h = &r->api->admission[i];
                struct diags d;

                if (mutate ? !h->mutate : !h->validate)
                        continue;
                diags_init(&d);
                if (mutate)
                        h->mutate(h->arg, &q, &d);
                else
                        h->validate(h->arg, &q, &d);
                ok = !denied(r, h, &d);
                diags_fini(&d);
        }
        return ok;
}

/* Accepted, but without effect on one machine: said, not swallowed. */
static void warn_unused(struct kube_req *r, const struct pb_node *o)
{
        static const char *const of_pods[] = { "affinity",          "topologySpreadConstraints",
                                               "priorityClassName", "runtimeClassName",
                                               "overhead",          "resourceClaims" };
        const struct pb_node *spec = pb_get(o, "spec");
        const char *base = "spec";

        if (r->res->bucket_id == kube_b.deployments || r->res->bucket_id == kube_b.replicasets) {
                spec = pb_get_path(o, "spec.template.spec");
                base = "spec.template.spec";
        } else if (r->res->bucket_id == kube_b.services) {
                struct str type = pb_get_str(spec, "type", STR(""));

                if (str_eqc(type, "LoadBalancer") || str_eqc(type, "NodePort"))
                        kube_req_warn(r,
                                      "spec.type: " STR_FMT
                                      " is served like ClusterIP on this one-machine cluster: there is no load balancer and no "
                                      "node port; use kubectl port-forward to reach it from the host",
                                      STR_ARG(type));
                return;
        } else if (r->res->bucket_id != kube_b.pods) {
                return;
        }
        for (size_t i = 0; i < ARRAY_LEN(of_pods); i++)
                if (pb_get(spec, of_pods[i]))
                        kube_req_warn(r, "%s.%s: has no effect on this one-machine cluster", base, of_pods[i]);
}

/* ---- answers ---- */

static void answer(struct kube_req *r, int status, const struct kobj *o)
{
        r->status = status;
        kube_view_object(&r->view, r->api, o, &r->out);
}

/* The answer to a dry run: an object that is not stored. */
static void answer_node(struct kube_req *r, int status, struct pb_node *o)
{
        struct kobj tmp = { .refs = 1, .bucket = r->res->bucket_id, .node = o };
        struct buf b = BUF_INIT;

        tmp.ns = pb_get_str(o, "metadata.namespace", STR(""));
        tmp.name = pb_get_str(o, "metadata.name", STR(""));
        pb_del(o, "apiVersion");
        pb_del(o, "kind");
        pb_node_json(o, &b);
        tmp.rest = arena_str(r->a, str_sub(buf_view(&b), 1, b.n));
        buf_fini(&b);
        answer(r, status, &tmp);
}

static bool store_failed(struct kube_req *r)
{
        return kube_req_error(r, kube_store_full(r->api->store) ? 507 : 500, "InternalError", "%s", kube_store_error(r->api->store));
}

static bool forbidden_change(struct kube_req *r, const char *why)
{
        return kube_req_error(r, 403, "Forbidden", "%s \"" STR_FMT "\" is forbidden: %s", kube_qualified(r->res), STR_ARG(r->path.name),
                              why);
}

/* ---- create ---- */

static bool reset_status(const struct kube_resource *res)
{
        return (res->subs & KUBE_SUB_STATUS) && res->bucket_id != kube_b.nodes && res->bucket_id != kube_b.namespaces;
}

/* What depends on nothing but the object: metadata, defaults, the fields that the server fills in. */
static void prepare_new(struct kube_api *api, const struct kube_resource *res, struct pb_node *o, struct arena *a)
{
        if (reset_status(res))
                pb_del(o, "status");
        kube_meta_create(api, res, o, a);
        kube_defaults(api, res, o, a);
}

static bool assign_service_ip(struct kube_req *r, struct kube_api *api, struct pb_node *o, struct arena *a)
{
        struct pb_node *spec = pb_get(o, "spec");

        if (pb_get_str(spec, "clusterIP", STR("")).n || str_eqc(pb_get_str(spec, "type", STR("")), "ExternalName"))
                return true;
        struct str ip = kube_service_ip_allocate(api, a);
        if (!ip.n)
                return r ? kube_req_error(r, 500, "InternalError", "Internal error occurred: failed to allocate a serviceIP: range is full")
                         : false;
        pb_put_str(a, spec, "clusterIP", ip);
        struct pb_node *ips = pb_new(a, PB_LIST, STR(""));
        pb_push(a, ips, pb_new(a, PB_STRING, ip));
        pb_put(a, spec, STR("clusterIPs"), ips);
        return true;
}

static bool exists_already(struct kube_req *r, struct str name)
{
        kube_req_error(r, 409, "AlreadyExists", "%s \"" STR_FMT "\" already exists", kube_qualified(r->res), STR_ARG(name));
        r->err.name = name;
        r->err.group = str_of(r->res->group);
        r->err.kind = str_of(r->res->plural);
        return false;
}

static bool service_account_exists(struct kube_req *r, const struct pb_node *o)
{
        struct str sa = pb_get_str(o, "spec.serviceAccountName", STR("default"));

        /* "default" comes with the namespace, by a controller: not to be waited for. */
        if (r->res->bucket_id != kube_b.pods || str_eqc(sa, "default") ||
            kube_store_get(r->api->store, kube_b.serviceaccounts, r->path.ns, sa))
                return true;
        return kube_req_error(r, 403, "Forbidden",
                              "pods \"" STR_FMT "\" is forbidden: error looking up service account " STR_FMT "/" STR_FMT
                              ": serviceaccount \"" STR_FMT "\" not found",
                              STR_ARG(pb_get_str(o, "metadata.name", STR(""))), STR_ARG(r->path.ns), STR_ARG(sa), STR_ARG(sa));
}

/* Everything between a parsed body and the store. */
static bool admit_new(struct kube_req *r, struct pb_node *o)
{
        prepare_new(r->api, r->res, o, r->a);
        if (!service_account_exists(r, o) || !admit(r, "CREATE", o, NULL, true))
                return false;
        kube_defaults(r->api, r->res, o, r->a);
        if (r->res->bucket_id == kube_b.pods)
                kube_pod_token_volume(r->api, o, r->a);
        struct str name = pb_get_str(o, "metadata.name", STR(""));
        if (name.n && kube_store_get(r->api->store, r->res->bucket_id, r->path.ns, name))
                return exists_already(r, name);
        if (!kube_validate(r->api, r->res, o, NULL, r->a, &r->err) || !admit(r, "CREATE", o, NULL, false))
                return false;
        warn_unused(r, o);
        return true;
}

static void create(struct kube_req *r)
{
        struct pb_node *o = kube_rest_body(r);

        if (!o || !check_type(r, o) || !check_namespace(r, o))
                return;
        if (pb_get_str(o, "metadata.resourceVersion", STR("")).n) {
                kube_req_error(r, 400, "BadRequest", "resourceVersion should not be set on objects to be created");
                return;
        }
        r->path.name = pb_get_str(o, "metadata.name", STR(""));
        if (!kube_validate_shape(r, r->res, o) || !namespace_open(r))
                return;
        if (!admit_new(r, o))
                return;
        to_storage(r, o);
        if (r->dry_run) {
                answer_node(r, 201, o);
                return;
        }
        if (r->res->bucket_id == kube_b.services && !assign_service_ip(r, r->api, o, r->a))
                return;
        struct kobj *k = kube_store_put(r->api->store, r->res->bucket_id, r->path.ns, pb_get_str(o, "metadata.name", STR("")), o, r->a);
        if (!k) {
                store_failed(r);
                return;
        }
        r->wrote = true;
        answer(r, 201, k);
}

struct kobj *kube_api_create(struct kube_api *api, unsigned bucket, struct pb_node *object, struct arena *a, struct str *why)
{
        struct kube_query none = { .n = 0 };
        struct kube_req r = { .api = api,
                              .a = a,
                              .query = &none,
                              .res = kube_bucket_resource(bucket),
                              .user = { .name = STR("system:kube-controller-manager") } };

        r.path.ns = r.res->namespaced ? pb_get_str(object, "metadata.namespace", STR("")) : STR("");
        r.path.name = pb_get_str(object, "metadata.name", STR(""));
        struct kobj *k = NULL;
        if (namespace_open(&r) && admit_new(&r, object) && (bucket != kube_b.services || assign_service_ip(&r, api, object, a))) {
                to_storage(&r, object);
                k = kube_store_put(api->store, bucket, r.path.ns, pb_get_str(object, "metadata.name", STR("")), object, a);
                if (!k)
                        store_failed(&r);
        }
        *why = r.err.message;
        return k;
}

/* ---- update ---- */

/* The fields that the server owns stay what they were. */
static void keep_meta(struct arena *a, struct pb_node *o, const struct pb_node *old)
{
        static const char *const owned[] = { "uid",        "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
                                             "generation", "namespace" };
        struct pb_node *meta = kube_map(a, o, "metadata");

        pb_del(meta, "managedFields");
        pb_del(meta, "selfLink");
        for (size_t i = 0; i < ARRAY_LEN(owned); i++) {
                const struct pb_node *v = pb_get(pb_get(old, "metadata"), owned[i]);

                pb_del(meta, owned[i]);
                if (v)
                        pb_put(a, meta, str_of(owned[i]), pb_clone(a, v));
        }
}

static void keep(struct arena *a, struct pb_node *o, const struct pb_node *old, const char *key)
{
        const struct pb_node *v = pb_get(old, key);

        pb_del(o, key);
        if (v)
                pb_put(a, o, str_of(key), pb_clone(a, v));
}

static bool equal_part(const struct pb_node *a, const struct pb_node *b, const char *key)
{
        const struct pb_node *x = pb_get(a, key), *y = pb_get(b, key);

        return x && y ? pb_node_eq(x, y) : x == y;
}

static void bump_generation(struct arena *a, struct pb_node *o, const struct pb_node *old)
{
        int64_t g = kube_int(old, "metadata.generation", 0);

        if (g && !equal_part(o, old, "spec"))
                kube_put_int(a, pb_get(o, "metadata"), "generation", g + 1);
}

/* Is a deletion under way that nothing holds up any more? */
static bool finished(const struct pb_node *o)
{
        const struct pb_node *fin = pb_get_path(o, "metadata.finalizers"), *spec = pb_get_path(o, "spec.finalizers");

        if (!pb_get_path(o, "metadata.deletionTimestamp") || (fin && fin->kind == PB_LIST && fin->n))
                return false;
        if (str_eqc(pb_get_str(o, "kind", STR("")), "Namespace"))
                return !spec || spec->kind != PB_LIST || !spec->n;
        return kube_int(o, "metadata.deletionGracePeriodSeconds", 0) == 0;
}

static struct kobj *put_or_finish(struct kube_api *api, const struct kobj *old, struct pb_node *o, struct arena *a)
{
        const struct pb_node *rv = pb_get_path(old->node, "metadata.resourceVersion");

        pb_put(a, pb_get(o, "metadata"), STR("resourceVersion"), pb_clone(a, rv));
        if (pb_node_eq(o, old->node))
                return (struct kobj *)old;
        struct kobj *k = kube_store_put(api->store, old->bucket, old->ns, old->name, o, a);
        if (k && finished(o))
                k = kube_store_delete(api->store, k->bucket, k->ns, k->name);
        return k;
}

struct kobj *kube_api_update(struct kube_api *api, const struct kobj *old, struct pb_node *object, struct arena *a)
{
        bump_generation(a, object, old->node);
        return put_or_finish(api, old, object, a);
}

static bool conflict(struct kube_req *r)
{
        kube_req_error(r, 409, "Conflict",
                       "Operation cannot be fulfilled on %s \"" STR_FMT
                       "\": the object has been modified; please apply your changes to the latest version and try again",
                       kube_qualified(r->res), STR_ARG(r->path.name));
        r->err.name = r->path.name;
        r->err.group = str_of(r->res->group);
        r->err.kind = str_of(r->res->plural);
        return false;
}

static bool check_version(struct kube_req *r, const struct pb_node *o, const struct kobj *old)
{
        struct str rv = pb_get_str(o, "metadata.resourceVersion", STR("")), uid = pb_get_str(o, "metadata.uid", STR(""));
        uint64_t v;

        if (uid.n && !str_eq(uid, old->uid)) {
                kube_req_error(r, 409, "Conflict",
                               "Operation cannot be fulfilled on %s \"" STR_FMT "\": Precondition failed: UID in precondition: " STR_FMT
                               ", UID in object meta: " STR_FMT,
                               kube_qualified(r->res), STR_ARG(r->path.name), STR_ARG(uid), STR_ARG(old->uid));
                return false;
        }
        if (!rv.n || str_eqc(rv, "0"))
                return true;
        if (!str_u64(rv, &v))
                return kube_req_error(r, 400, "BadRequest",
                                      "metadata.resourceVersion: Invalid value: \"" STR_FMT "\": must be the version that the server gave",
                                      STR_ARG(rv));
        return v == old->rv || conflict(r);
}

/* `o` is a whole new object in r->a; writes it over `old`. */
static void replace(struct kube_req *r, struct pb_node *o, struct kobj *old)
{
        bool status = str_eqc(r->path.sub, "status"), finalize = str_eqc(r->path.sub, "finalize");

        if (!check_version(r, o, old))
                return;
        to_storage(r, o);
        keep_meta(r->a, o, old->node);
        if (status) {
                struct pb_node *st = pb_get(o, "status");

                o = pb_clone(r->a, old->node);
                pb_del(o, "status");
                if (st)
                        pb_put(r->a, o, STR("status"), st);
        } else if (finalize) {
                struct pb_node *fin = pb_get_path(o, "spec.finalizers");

                o = pb_clone(r->a, old->node);
                pb_put(r->a, kube_map(r->a, o, "spec"), STR("finalizers"), fin ? fin : pb_new(r->a, PB_LIST, STR("")));
        } else {
                if (r->res->subs & KUBE_SUB_STATUS)
                        keep(r->a, o, old->node, "status");
                if (r->res->bucket_id == kube_b.namespaces)
                        keep(r->a, o, old->node, "spec");
                if (r->res->bucket_id == kube_b.services && !pb_get_str(o, "spec.clusterIP", STR("")).n &&
                    !str_eqc(pb_get_str(o, "spec.type", STR("")), "ExternalName")) {
                        struct pb_node *spec = kube_map(r->a, o, "spec");

                        keep(r->a, spec, pb_get(old->node, "spec"), "clusterIP");
                        keep(r->a, spec, pb_get(old->node, "spec"), "clusterIPs");
                }
                kube_defaults(r->api, r->res, o, r->a);
                if (!admit(r, "UPDATE", o, old->node, true))
                        return;
                if (!kube_validate(r->api, r->res, o, old->node, r->a, &r->err))
                        return;
                bump_generation(r->a, o, old->node);
                if (r->res->bucket_id == kube_b.services && !r->dry_run && !assign_service_ip(r, r->api, o, r->a))
                        return;
        }
        if (!admit(r, "UPDATE", o, old->node, false))
                return;
        if (!status)
                warn_unused(r, o);
        if (r->dry_run) {
                answer_node(r, 200, o);
                return;
        }
        kobj_ref(old);
        struct kobj *k = put_or_finish(r->api, old, o, r->a);
        if (!k) {
                store_failed(r);
        } else {
                r->wrote = k != old;
                answer(r, 200, k);
        }
        kobj_unref(old);
}

static struct kobj *current(struct kube_req *r)
{
        struct kobj *k = kube_store_get(r->api->store, r->res->bucket_id, r->path.ns, r->path.name);

        if (!k)
                kube_req_not_found(r, r->res, r->path.name);
        return k;
}

static void update(struct kube_req *r)
{
        struct pb_node *o = kube_rest_body(r);

        if (!o || !check_type(r, o) || !check_namespace(r, o))
                return;
        struct str name = pb_get_str(o, "metadata.name", STR(""));
        if (!str_eq(name, r->path.name)) {
                kube_req_error(r, 400, "BadRequest",
                               "the name of the object (" STR_FMT ") does not match the name on the URL (" STR_FMT ")", STR_ARG(name),
                               STR_ARG(r->path.name));
                return;
        }
        if (!kube_validate_shape(r, r->res, o))
                return;
        struct kobj *old = current(r);
        if (!old)
                return;
        if (r->res->shape == KUBE_CUSTOM && !pb_get_str(o, "metadata.resourceVersion", STR("")).n) {
                kube_error_cause(&r->err, r->a, "FieldValueInvalid", STR("metadata.resourceVersion"),
                                 STR("Invalid value: 0x0: must be specified for an update"));
                kube_invalid(&r->err, r->res, name, r->a);
                return;
        }
        replace(r, o, old);
}

/* ---- patch ---- */

enum patch_kind { PATCH_JSON, PATCH_MERGE, PATCH_STRATEGIC, PATCH_NONE };

static enum patch_kind patch_kind(struct kube_req *r)
{
        struct str t = r->content_type;

        if (media_is(t, "application/json-patch+json"))
                return PATCH_JSON;
        if (media_is(t, "application/merge-patch+json"))
                return PATCH_MERGE;
        if (media_is(t, "application/strategic-merge-patch+json") && r->res->shape == KUBE_BUILTIN)
                return PATCH_STRATEGIC;
        const char *accepted = r->res->shape == KUBE_BUILTIN
                                       ? "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json"
                                       : "application/json-patch+json, application/merge-patch+json";
        if (media_is(t, "application/apply-patch+yaml") || media_is(t, "application/apply-patch+cbor"))
                kube_req_error(r, 415, "UnsupportedMediaType",
                               "server-side apply is not supported by this server: use kubectl apply without --server-side; "
                               "accepted media types include: %s",
                               accepted);
        else
                kube_req_error(r, 415, "UnsupportedMediaType",
                               "the body of the request was in an unknown format - accepted media types include: %s", accepted);
        return PATCH_NONE;
}

struct pb_node *kube_rest_patch(struct kube_req *r, const struct pb_node *from, const ProtobufCMessageDescriptor *type)
{
        enum patch_kind kind = patch_kind(r);
        struct pb_node *patch = kind == PATCH_NONE ? NULL : parse_body(r, false), *to;
        struct str why = STR("");

        if (!patch)
                return NULL;
        if (kind != PATCH_JSON && patch->kind != PB_MAP) {
                kube_req_error(r, 400, "BadRequest", "a merge patch must be an object");
                return NULL;
        }
        to = kind == PATCH_JSON    ? kube_patch_json(from, patch, r->a, &why)
             : kind == PATCH_MERGE ? kube_patch_merge(from, patch, r->a)
                                   : kube_patch_strategic(from, patch, type, r->a, &why);
        if (!to)
                kube_req_error(r, kind == PATCH_JSON ? 422 : 400, kind == PATCH_JSON ? "Invalid" : "BadRequest", STR_FMT, STR_ARG(why));
        else if (to->kind != PB_MAP)
                to = kube_req_error(r, 422, "Invalid", "the patched object must be an object") ? to : NULL;
        return to;
}

static void patch(struct kube_req *r)
{
        struct kobj *old = patch_kind(r) == PATCH_NONE ? NULL : current(r);

        if (!old)
                return;
        /* The patch sees the object in the version that it was sent to. */
        struct pb_node *from = pb_clone(r->a, old->node);
        pb_put_str(r->a, from, "apiVersion", str_of(kube_api_version(r->res)));
        struct pb_node *to = kube_rest_patch(r, from, r->res->desc);
        if (!to || !check_type(r, to) || !check_namespace(r, to) || !kube_validate_shape(r, r->res, to))
                return;
        struct str name = pb_get_str(to, "metadata.name", STR(""));
        if (!str_eq(name, r->path.name)) {
                kube_error_cause(&r->err, r->a, "FieldValueInvalid", STR("metadata.name"),
                                 arena_printf(r->a, "Invalid value: \"" STR_FMT "\": field is immutable", STR_ARG(name)));
                kube_invalid(&r->err, r->res, r->path.name, r->a);
                return;
        }
        replace(r, to, old);
}

/* ---- delete ---- */

struct delete_opts {
        const char *policy; /* NULL: the kind's default */
        int64_t grace_s;    /* -1: the object's default */
        struct str uid, rv;
        bool dry_run;
};

static bool delete_policy(struct kube_req *r, struct str policy, const struct pb_node *orphan, struct delete_opts *o)
{
        static const char *const names[] = { "Background", "Foreground", "Orphan" };

        if (orphan && orphan->kind == PB_BOOL)
                o->policy = str_eqc(orphan->text, "true") ? "Orphan" : "Background";
        if (!policy.n)
                return true;
        o->policy = NULL;
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
                if (str_eqc(policy, names[i]))
                        o->policy = names[i];
        if (o->policy)
                return true;
        return kube_req_error(r, 422, "Invalid",
                              "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"" STR_FMT
                              "\": supported values: \"Background\", \"Foreground\", \"Orphan\"",
                              STR_ARG(policy));
}

static bool delete_options(struct kube_req *r, struct delete_opts *o)
{
        struct str grace = kube_query_get(r->query, "gracePeriodSeconds"), policy = kube_query_get(r->query, "propagationPolicy");
        struct pb_node *body = NULL, *orphan = NULL;

        *o = (struct delete_opts){ .grace_s = -1, .dry_run = r->dry_run };
        if (r->body.n && !(body = kube_rest_body(r)))
                return false;
        if (body) {
                if (str_eqc(pb_get_str(body, "kind", STR("DeleteOptions")), "DeleteOptions") == false)
                        return kube_req_error(r, 400, "BadRequest", "the body of a deletion is DeleteOptions");
                o->grace_s = kube_int(body, "gracePeriodSeconds", -1);
                o->uid = pb_get_str(body, "preconditions.uid", STR(""));
                o->rv = pb_get_str(body, "preconditions.resourceVersion", STR(""));
                if (!policy.n)
                        policy = pb_get_str(body, "propagationPolicy", STR(""));
                orphan = pb_get(body, "orphanDependents");
                const struct pb_node *dry = pb_get(body, "dryRun");
                o->dry_run |= dry && dry->kind == PB_LIST && dry->n;
        }
        if (grace.n && !str_i64(grace, &o->grace_s))
                return kube_req_error(r, 400, "BadRequest", "gracePeriodSeconds: Invalid value: \"" STR_FMT "\": must be a number",
                                      STR_ARG(grace));
        return delete_policy(r, policy, orphan, o);
}

static void add_finalizer(struct arena *a, struct pb_node *meta, const char *name)
{
        struct pb_node *list = kube_list_at(a, meta, "finalizers");

        for (size_t i = 0; i < list->n; i++)
                if (str_eqc(list->v[i]->text, name))
                        return;
        pb_push(a, list, pb_new(a, PB_STRING, str_of(name)));
}

/* Seconds a pod gets to end by itself. Nobody runs an unscheduled or finished one: those go at once. */
static int64_t pod_grace(const struct kobj *o, int64_t asked)
{
        struct str phase = pb_get_str(o->node, "status.phase", STR(""));

        if (!pb_get_str(o->node, "spec.nodeName", STR("")).n || str_eqc(phase, "Succeeded") || str_eqc(phase, "Failed"))
                return 0;
        int64_t g = asked >= 0 ? asked : kube_int(o->node, "spec.terminationGracePeriodSeconds", 30);
        int64_t already = pb_get_path(o->node, "metadata.deletionTimestamp") ? kube_int(o->node, "metadata.deletionGracePeriodSeconds", g)
                                                                             : g;
        return g < already ? g : already; /* it can be shortened, never made longer */
}

/* Marks as being deleted. */
static struct kobj *mark(struct kube_api *api, const struct kobj *o, int64_t grace_s, const char *finalizer, struct arena *a)
{
        struct pb_node *n = pb_clone(a, o->node), *meta = pb_get(n, "metadata");

        bool first = !pb_get(meta, "deletionTimestamp");
        if (first || kube_int(meta, "deletionGracePeriodSeconds", 0) != grace_s) {
                struct kube_api later = *api;
                char text[40];
                size_t len = clock_rfc3339(later.now_us() + (uint64_t)grace_s * 1000000, 0, text);

                pb_put_str(a, meta, "deletionTimestamp", arena_str(a, str_make(text, len)));
                kube_put_int(a, meta, "deletionGracePeriodSeconds", grace_s);
        }
        if (finalizer)
                add_finalizer(a, meta, finalizer);
        if (first && kube_int(n, "metadata.generation", 0))
                kube_put_int(a, meta, "generation", kube_int(n, "metadata.generation", 0) + 1);
        if (o->bucket == kube_b.namespaces)
                pb_put_str(a, kube_map(a, n, "status"), "phase", STR("Terminating"));
        if (pb_node_eq(n, o->node))
                return (struct kobj *)o;
        return kube_store_put(api->store, o->bucket, o->ns, o->name, n, a);
}

/* Deletes or begins to. *gone: it is removed. Returns the state to show, or NULL when the store refused. */
static struct kobj *delete_one(struct kube_api *api, const struct kobj *o, const struct delete_opts *opts, struct arena *a, bool *gone)
{
        const struct pb_node *fin = pb_get_path(o->node, "metadata.finalizers");
        const char *finalizer = NULL;
        int64_t grace = o->bucket == kube_b.pods ? pod_grace(o, opts->grace_s) : 0;

        if (opts->policy && !strcmp(opts->policy, "Orphan") && kube_store_has_dependents(api->store, o->uid))
                finalizer = "orphan";
        else if (opts->policy && !strcmp(opts->policy, "Foreground") && kube_store_has_dependents(api->store, o->uid))
                finalizer = "foregroundDeletion";
        bool held = finalizer || (fin && fin->kind == PB_LIST && fin->n) || o->bucket == kube_b.namespaces;
        *gone = !held && grace == 0;
        return *gone ? kube_store_delete(api->store, o->bucket, o->ns, o->name) : mark(api, o, grace, finalizer, a);
}

bool kube_api_delete(struct kube_api *api, const struct kobj *o, const char *policy, int64_t grace_s, struct arena *a)
{
        struct delete_opts opts = { .policy = policy, .grace_s = grace_s };
        struct kobj *keep_it = kobj_ref((struct kobj *)o);
        bool gone, ok = delete_one(api, o, &opts, a, &gone) != NULL;

        kobj_unref(keep_it);
        return ok;
}

static bool preconditions(struct kube_req *r, const struct delete_opts *o, const struct kobj *k)
{
        uint64_t rv;
        const char *what = o->uid.n && !str_eq(o->uid, k->uid)                ? "UID"
                           : o->rv.n && (!str_u64(o->rv, &rv) || rv != k->rv) ? "ResourceVersion"
                                                                              : NULL;

        if (!what)
                return true;
        kube_req_error(r, 409, "Conflict",
                       "Operation cannot be fulfilled on %s \"" STR_FMT "\": the %s in the precondition (" STR_FMT
                       ") does not match the %s in record (" STR_FMT "). The object might have been deleted and then recreated",
                       kube_qualified(r->res), STR_ARG(r->path.name), what, STR_ARG(*what == 'U' ? o->uid : o->rv), what,
                       STR_ARG(*what == 'U' ? k->uid : pb_get_str(k->node, "metadata.resourceVersion", STR(""))));
        r->err.name = r->path.name;
        r->err.group = str_of(r->res->group);
        r->err.kind = str_of(r->res->plural);
        return false;
}

static bool may_be_deleted(struct kube_req *r, const struct kobj *k)
{
        static const char *const kept[] = { "default", "kube-system", "kube-public" };

        for (size_t i = 0; k->bucket == kube_b.namespaces && i < ARRAY_LEN(kept); i++)
                if (str_eqc(k->name, kept[i]))
                        return forbidden_change(r, "this namespace may not be deleted");
        return true;
}

static void delete_answer(struct kube_req *r, const struct kobj *k, bool gone)
{
        r->status = 200;
        if (!gone || k->bucket == kube_b.pods || k->bucket == kube_b.services || k->bucket == kube_b.serviceaccounts) {
                answer(r, 200, k);
                return;
        }
        kube_success_json(k->name, str_of(r->res->group), str_of(r->res->plural), k->uid, &r->out);
}

static void delete_(struct kube_req *r)
{
        struct delete_opts opts;
        struct kobj *k = current(r), *result;
        bool gone = false;

        if (!k || !delete_options(r, &opts) || !preconditions(r, &opts, k) || !may_be_deleted(r, k) ||
            !admit(r, "DELETE", NULL, k->node, false))
                return;
        if (opts.dry_run) {
                delete_answer(r, k, true);
                return;
        }
        kobj_ref(k);
        result = delete_one(r->api, k, &opts, r->a, &gone);
        if (!result) {
                store_failed(r);
        } else {
                r->wrote = result != k;
                delete_answer(r, result, gone);
        }
        kobj_unref(k);
}

/* ---- reading ---- */

static void get(struct kube_req *r)
{
        const struct kobj *k = current(r);

        if (k)
                answer(r, 200, k);
}

bool kube_rest_selectors(struct kube_req *r, struct kube_selector *labels, struct kube_selector *fields)
{
        struct str why = STR(""), l = kube_query_get(r->query, "labelSelector"), f = kube_query_get(r->query, "fieldSelector");

        if (!kube_labels_parse(l.p ? l : STR(""), r->a, labels, &why) ||
            !kube_fields_parse(f.p ? f : STR(""), r->res->fields, r->a, fields, &why))
                return kube_req_error(r, 400, "BadRequest", STR_FMT, STR_ARG(why));
        return true;
}

/* "RV/ns/name" in base64url would hide nothing: the token is the plain text, which a query may carry. */
static bool read_continue(struct kube_req *r, uint64_t *rv, struct str *ns, struct str *name)
{
        struct str token = kube_query_get(r->query, "continue"), part;

        *rv = 0;
        if (!token.n)
                return true;
        struct str rest = token;
        if (!str_next(&rest, '/', &part) || !str_u64(part, rv) || !str_next(&rest, '/', ns) || !str_next(&rest, '/', name) || rest.p)
                return kube_req_error(r, 400, "BadRequest", "continue key is not valid: it must be one that this server gave");
        if (*rv < kube_store_oldest_rv(r->api->store))
                return kube_req_error(r, 410, "Expired",
                                      "The provided continue parameter is too old to display a consistent list result. "
                                      "You must start a new list without the continue parameter.");
        return true;
}

static bool list_range(struct kube_req *r, struct kobj *const **v, size_t *n, uint64_t *rv)
{
        struct str ns = r->path.has_ns ? r->path.ns : (struct str){ NULL, 0 }, from_ns = STR(""), from_name = STR("");
        size_t i = 0;

        if (!read_continue(r, rv, &from_ns, &from_name))
                return false;
        *n = kube_store_range(r->api->store, r->res->bucket_id, ns, v);
        while (*rv && i < *n) {
                int c = str_cmp((*v)[i]->ns, from_ns);

                if (c > 0 || (!c && str_cmp((*v)[i]->name, from_name) > 0))
                        break;
                i++;
        }
        *v += i;
        *n -= i;
        return true;
}

static void list(struct kube_req *r)
{
        struct kube_selector labels, fields;
        struct kobj *const *v;
        struct kobj **picked;
        size_t n, k = 0, left = 0;
        uint64_t rv, limit = 0;
        struct str lim = kube_query_get(r->query, "limit");

        if (!kube_rest_selectors(r, &labels, &fields))
                return;
        if (lim.n && !str_u64(lim, &limit)) {
                kube_req_error(r, 400, "BadRequest", "limit: Invalid value: \"" STR_FMT "\": must be a number", STR_ARG(lim));
                return;
        }
        if (!list_range(r, &v, &n, &rv))
                return;
        if (!rv)
                rv = kube_store_rv(r->api->store);
        picked = arena_alloc(r->a, (n + 1) * sizeof(*picked));
        for (size_t i = 0; i < n; i++) {
                if (!kube_labels_match(&labels, pb_get_path(v[i]->node, "metadata.labels")) || !kube_fields_match(&fields, v[i]->node))
                        continue;
                if (limit && k == limit)
                        left++;
                else
                        picked[k++] = v[i];
        }
        struct buf meta = BUF_INIT;
        buf_printf(&meta, "{\"resourceVersion\":\"%llu\"", (unsigned long long)rv);
        if (left) {
                buf_printf(&meta, ",\"continue\":\"%llu/" STR_FMT "/" STR_FMT "\"", (unsigned long long)rv, STR_ARG(picked[k - 1]->ns),
                           STR_ARG(picked[k - 1]->name));
                if (!labels.n && !fields.n)
                        buf_printf(&meta, ",\"remainingItemCount\":%zu", left);
        }
        buf_char(&meta, '}');
        r->status = 200;
        kube_view_list(r, picked, k, buf_view(&meta), &r->out);
        buf_fini(&meta);
}

static void delete_collection(struct kube_req *r)
{
        struct kube_selector labels, fields;
        struct delete_opts opts;
        struct kobj **v;

        if (!kube_rest_selectors(r, &labels, &fields) || !delete_options(r, &opts))
                return;
        size_t n = kube_store_list(r->api->store, r->res->bucket_id, r->path.has_ns ? r->path.ns : (struct str){ NULL, 0 }, &v), k = 0;
        for (size_t i = 0; i < n && !r->err.code; i++) {
                bool gone;

                if (!kube_labels_match(&labels, pb_get_path(v[i]->node, "metadata.labels")) || !kube_fields_match(&fields, v[i]->node))
                        continue;
                if (!admit(r, "DELETE", NULL, v[i]->node, false))
                        break;
                if (!opts.dry_run && !delete_one(r->api, v[i], &opts, r->a, &gone))
                        store_failed(r);
                k++;
        }
        r->wrote = k && !opts.dry_run;
        r->status = 200;
        if (!r->err.code)
                kube_success_json(STR(""), str_of(r->res->group), str_of(r->res->plural), STR(""), &r->out);
        kube_store_list_free(v, n);
}

void kube_rest(struct kube_req *r)
{
        static const struct {
                unsigned verb;
                void (*fn)(struct kube_req *r);
        } verbs[] = { { KUBE_GET, get },
                      { KUBE_LIST, list },
                      { KUBE_CREATE, create },
                      { KUBE_UPDATE, update },
                      { KUBE_PATCH, patch },
                      { KUBE_DELETE, delete_ },
                      { KUBE_DELETE_COLLECTION, delete_collection } };

        for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
                if (verbs[i].verb == r->verb)
                        verbs[i].fn(r);
}
