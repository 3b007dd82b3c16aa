/* One request: from its words to the function that answers it. */
#include "kube/api.h"

#include "base/clock.h"
#include "base/mem.h"

static const struct pb_node *view_get(const struct kube_view *v, const char *resource, struct str ns, struct str name)
{
        int id = kube_bucket_find(str_of(resource));
        const struct kobj *o = id < 0 ? NULL : kube_store_get(v->ctx, (unsigned)id, ns, name);

        return o ? o->node : NULL;
}

static void view_each(const struct kube_view *v, const char *resource, struct str ns, bool (*fn)(void *arg, const struct pb_node *object),
                      void *arg)
{
        int id = kube_bucket_find(str_of(resource));
        struct kobj *const *all;
        size_t n = id < 0 ? 0 : kube_store_range(v->ctx, (unsigned)id, ns.n ? ns : (struct str){ NULL, 0 }, &all);

        for (size_t i = 0; i < n; i++)
                if (!fn(arg, all[i]->node))
                        return;
}

void kube_api_init(struct kube_api *api, struct kube_store *store)
{
        memset(api, 0, sizeof(*api));
        api->store = store;
        api->view = (struct kube_view){ view_get, view_each, store };
        api->now_us = clock_real_us;
        api->service_base = 0x0a600000; /* 10.96.0.0/16 */
        api->service_mask = 0xffff0000;
        api->cluster_domain = STR("cluster.local");
}

void kube_api_fini(struct kube_api *api)
{
        kube_openapi_free(api->openapi);
        api->openapi = NULL;
}

bool kube_user_in_group(const struct kube_user *u, const char *group)
{
        for (unsigned i = 0; i < u->ngroups; i++)
                if (str_eqc(u->groups[i], group))
                        return true;
        return false;
}

bool kube_req_error(struct kube_req *r, int code, const char *reason, const char *fmt, ...)
{
        va_list ap;

        r->err.code = code;
        r->err.reason = reason;
        va_start(ap, fmt);
        r->err.message = arena_vprintf(r->a, fmt, ap);
        va_end(ap);
        return false;
}

bool kube_req_not_found(struct kube_req *r, const struct kube_resource *res, struct str name)
{
        kube_req_error(r, 404, "NotFound", "%s \"" STR_FMT "\" not found", kube_qualified(res), STR_ARG(name));
        r->err.name = name;
        r->err.group = str_of(res->group);
        r->err.kind = str_of(res->plural);
        return false;
}

void kube_req_warn(struct kube_req *r, const char *fmt, ...)
{
        va_list ap;

        if (r->nwarnings == KUBE_WARNINGS_MAX)
                return;
        va_start(ap, fmt);
        r->warnings[r->nwarnings++] = arena_vprintf(r->a, fmt, ap);
        va_end(ap);
}

void kube_req_fail(struct kube_req *r)
{
        r->status = r->err.code;
        r->type = "application/json";
        r->out.n = 0;
        r->wrote = false;
        kube_error_json(&r->err, &r->out);
}

/* ---- what is asked ---- */

static const struct {
        const char *name;
        unsigned sub;
        unsigned verbs;
        bool proxied;
} sub_resources[] = {
        { "status", KUBE_SUB_STATUS, KUBE_GET | KUBE_UPDATE | KUBE_PATCH, false },
        { "scale", KUBE_SUB_SCALE, KUBE_GET | KUBE_UPDATE | KUBE_PATCH, false },
        { "finalize", KUBE_SUB_FINALIZE, KUBE_UPDATE, false },
        { "token", KUBE_SUB_TOKEN, KUBE_CREATE, false },
        { "eviction", KUBE_SUB_POD, KUBE_CREATE, false },
        { "log", KUBE_SUB_POD, KUBE_GET, true },
        { "exec", KUBE_SUB_POD, KUBE_GET | KUBE_CREATE, true },
        { "attach", KUBE_SUB_POD, KUBE_GET | KUBE_CREATE, true },
        { "portforward", KUBE_SUB_POD, KUBE_GET | KUBE_CREATE, true },
};

static int sub_find(const struct kube_resource *res, struct str sub)
{
        for (size_t i = 0; i < ARRAY_LEN(sub_resources); i++)
                if (str_eqc(sub, sub_resources[i].name) && (res->subs & sub_resources[i].sub))
                        return (int)i;
        return -1;
}

static const char *verb_name(unsigned verb)
{
        static const char *const names[] = { "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection" };

        for (unsigned i = 0; i < ARRAY_LEN(names); i++)
                if (verb == 1u << i)
                        return names[i];
        return "unknown";
}

static unsigned verb_of(const struct kube_req *r)
{
        bool one = r->path.name.n > 0;

        if (str_eqc(r->method, "GET") || str_eqc(r->method, "HEAD"))
                return kube_query_bool(r->query, "watch") && !r->path.sub.n ? KUBE_WATCH : one ? KUBE_GET : KUBE_LIST;
        if (str_eqc(r->method, "POST"))
                return one && !r->path.sub.n ? 0 : KUBE_CREATE;
        if (str_eqc(r->method, "PUT"))
                return one ? KUBE_UPDATE : 0;
        if (str_eqc(r->method, "PATCH"))
                return one ? KUBE_PATCH : 0;
        if (str_eqc(r->method, "DELETE"))
                return one ? KUBE_DELETE : KUBE_DELETE_COLLECTION;
        return 0;
}

static bool no_such_path(struct kube_req *r)
{
        return kube_req_error(r, 404, "NotFound", "the server could not find the requested resource");
}

static bool method_not_allowed(struct kube_req *r)
{
        return kube_req_error(r, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
}

static bool find_resource(struct kube_req *r)
{
        r->res = kube_resource_find(r->path.group, r->path.version, r->path.resource);
        if (!r->res || (r->path.has_ns && !r->res->namespaced))
                return no_such_path(r);
        r->view.res = r->res;
        r->verb = verb_of(r);
        if (!r->verb)
                return method_not_allowed(r);
        if (r->path.sub.n) {
                int s = sub_find(r->res, r->path.sub);

                if (s < 0)
                        return no_such_path(r);
                return (r->verb & sub_resources[s].verbs) ? true : method_not_allowed(r);
        }
        if (!(r->res->verbs & r->verb))
                return method_not_allowed(r);
        if (r->res->namespaced && !r->path.has_ns && r->verb != KUBE_LIST && r->verb != KUBE_WATCH)
                return method_not_allowed(r);
        return true;
}

static bool read_dry_run(struct kube_req *r)
{
        struct str dry = kube_query_get(r->query, "dryRun");

        if (!dry.n)
                return true;
        if (!str_eqc(dry, "All"))
                return kube_req_error(r, 422, "Invalid", "dryRun: Unsupported value: \"" STR_FMT "\": supported values: \"All\"",
                                      STR_ARG(dry));
        r->dry_run = true;
        return true;
}

static bool authorise(struct kube_req *r)
{
        const char *verb = verb_name(r->verb);

        if (kube_may(r->api, &r->user, verb, r->path.group, r->path.resource, r->path.sub, r->path.ns, r->path.name))
                return true;
        struct str scope = r->path.has_ns ? arena_printf(r->a, " in the namespace \"" STR_FMT "\"", STR_ARG(r->path.ns))
                                          : STR(" at the cluster scope");
        kube_req_error(r, 403, "Forbidden",
                       "%s%s" STR_FMT "%s is forbidden: User \"" STR_FMT "\" cannot %s resource \"%s%s" STR_FMT "\" in API group \"" STR_FMT
                       "\"" STR_FMT,
                       kube_qualified(r->res), r->path.name.n ? " \"" : "", STR_ARG(r->path.name), r->path.name.n ? "\"" : "",
                       STR_ARG(r->user.name), verb, r->res->plural, r->path.sub.n ? "/" : "", STR_ARG(r->path.sub), STR_ARG(r->path.group),
                       STR_ARG(scope));
        r->err.name = r->path.name;
        r->err.group = r->path.group;
        r->err.kind = r->path.resource;
        return false;
}

bool kube_req_prepare(struct kube_req *r)
{
        r->type = "application/json";
        r->query = ARENA_NEW(r->a, struct kube_query);
        if (!kube_path_parse(r->path_text, r->a, &r->path))
                return kube_req_error(r, 400, "BadRequest",
                                      "the request's path is not valid: it has an empty, relative or badly escaped segment");
        if (!kube_query_parse(r->query_text, r->a, r->query))
                return kube_req_error(r, 400, "BadRequest",
                                      "the request's query is not valid: a broken %%-escape, or more than %d parameters", KUBE_QUERY_MAX);
        if (!r->path.resource_path)
                return true;
        return find_resource(r) && authorise(r) && read_dry_run(r) && kube_view_parse_accept(r);
}

bool kube_req_is_watch(const struct kube_req *r)
{
        return r->res && r->verb == KUBE_WATCH;
}

bool kube_req_is_proxy(const struct kube_req *r)
{
        int s = r->res && r->path.sub.n ? sub_find(r->res, r->path.sub) : -1;

        return s >= 0 && sub_resources[s].proxied;
}

void kube_req_handle(struct kube_req *r)
{
        r->status = 200;
        if (!r->path.resource_path) {
                if (!kube_discovery(r) && !kube_openapi(r))
                        no_such_path(r);
        } else if (!*r->res->bucket) {
                kube_virtual_create(r);
        } else if (!kube_subresource(r)) {
                kube_rest(r);
        }
        if (r->err.code)
                kube_req_fail(r);
}
