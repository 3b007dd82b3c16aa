/* Sub-resources that are not the object itself: scale, token, eviction; and kinds that only exist as a question and its answer. */
#include "kube/auth.h"
#include "kube/rest.h"

#include "base/mem.h"

/* ---- scale ---- */

static struct pb_node *scale_of(struct kube_req *r, const struct kobj *o)
{
        struct pb_node *n = pb_new(r->a, PB_MAP, STR("")), *meta = kube_map(r->a, n, "metadata");
        static const char *const keep[] = { "name", "namespace", "uid", "resourceVersion", "creationTimestamp" };
        struct buf sel = BUF_INIT;
        const struct pb_node *labels = pb_get_path(o->node, "spec.selector.matchLabels");

        pb_put_str(r->a, n, "kind", STR("Scale"));
        pb_put_str(r->a, n, "apiVersion", STR("autoscaling/v1"));
        for (size_t i = 0; i < ARRAY_LEN(keep); i++)
                if (pb_get(pb_get(o->node, "metadata"), keep[i]))
                        pb_put_str(r->a, meta, keep[i], pb_get_str(pb_get(o->node, "metadata"), keep[i], STR("")));
        kube_put_int(r->a, kube_map(r->a, n, "spec"), "replicas", kube_int(o->node, "spec.replicas", 0));
        kube_put_int(r->a, kube_map(r->a, n, "status"), "replicas", kube_int(o->node, "status.replicas", 0));
        for (size_t i = 0; labels && labels->kind == PB_MAP && i < labels->n; i++)
                buf_printf(&sel, "%s" STR_FMT "=" STR_FMT, i ? "," : "", STR_ARG(labels->keys[i]), STR_ARG(labels->v[i]->text));
        pb_put_str(r->a, kube_map(r->a, n, "status"), "selector", arena_str(r->a, buf_view(&sel)));
        buf_fini(&sel);
        return n;
}

static void write_scale(struct kube_req *r, struct kobj *o, const struct pb_node *scale)
{
        struct str rv = pb_get_str(scale, "metadata.resourceVersion", STR(""));
        int64_t want = kube_int(scale, "spec.replicas", 0);
        uint64_t v;

        if (rv.n && (!str_u64(rv, &v) || v != o->rv)) {
                kube_req_error(r, 409, "Conflict",
                               "Operation cannot be fulfilled on %s \"" STR_FMT
                               "\": the object has been modified; please apply your changes to the latest version and try again",
                               kube_qualified(r->res), STR_ARG(o->name));
                return;
        }
        if (want < 0 || want > INT32_MAX) {
                kube_req_error(r, 422, "Invalid",
                               "Scale.autoscaling \"" STR_FMT
                               "\" is invalid: spec.replicas: Invalid value: %lld: must be greater than or equal to 0",
                               STR_ARG(o->name), (long long)want);
                return;
        }
        struct pb_node *n = pb_clone(r->a, o->node);
        kube_put_int(r->a, kube_map(r->a, n, "spec"), "replicas", want);
        struct kobj *k = r->dry_run ? o : kube_api_update(r->api, o, n, r->a);
        if (!k) {
                kube_req_error(r, 500, "InternalError", "%s", kube_store_error(r->api->store));
                return;
        }
        r->wrote = k != o;
        pb_node_json(scale_of(r, k), &r->out);
}

static void scale(struct kube_req *r)
{
        struct kobj *o = kube_store_get(r->api->store, r->res->bucket_id, r->path.ns, r->path.name);
        struct pb_node *now, *want;

        if (!o) {
                kube_req_not_found(r, r->res, r->path.name);
                return;
        }
        now = scale_of(r, o);
        if (r->verb == KUBE_GET) {
                pb_node_json(now, &r->out);
                return;
        }
        want = r->verb == KUBE_PATCH ? kube_rest_patch(r, now, pb_type(STR("k8s.io.api.autoscaling.v1.Scale"))) : kube_rest_body(r);
        if (!want)
                return;
        const struct pb_node *n = pb_get_path(want, "spec.replicas");
        int64_t v;
        if (n && (n->kind != PB_NUMBER || !str_i64(n->text, &v))) {
                kube_req_error(r, 400, "BadRequest",
                               "Scale in version \"v1\" cannot be handled as a Scale: spec.replicas must be a whole number");
                return;
        }
        write_scale(r, o, want);
}

/* ---- tokens ---- */

enum { TOKEN_MIN_S = 600, TOKEN_MAX_S = 86400 * 365, AUDIENCES_MAX = 16 };

static size_t read_audiences(const struct pb_node *list, struct str *out)
{
        size_t n = 0;

        for (size_t i = 0; list && list->kind == PB_LIST && i < list->n && n < AUDIENCES_MAX; i++)
                out[n++] = list->v[i]->text;
        return n;
}

static bool bound_pod(struct kube_req *r, const struct pb_node *ref, const struct kobj **pod)
{
        struct str name = pb_get_str(ref, "name", STR("")), uid = pb_get_str(ref, "uid", STR(""));

        *pod = NULL;
        if (!ref || ref->kind != PB_MAP)
                return true;
        if (!str_eqc(pb_get_str(ref, "kind", STR("")), "Pod"))
                return kube_req_error(r, 400, "BadRequest", "spec.boundObjectRef.kind: only Pod is supported");
        *pod = kube_store_get(r->api->store, kube_b.pods, r->path.ns, name);
        if (!*pod)
                return kube_req_not_found(r, kube_bucket_resource(kube_b.pods), name);
        if (uid.n && !str_eq(uid, (*pod)->uid))
                return kube_req_error(r, 409, "Conflict",
                                      "the UID in the bound object reference (" STR_FMT ") does not match the UID in record (" STR_FMT ")",
                                      STR_ARG(uid), STR_ARG((*pod)->uid));
        if (!str_eq(pb_get_str((*pod)->node, "spec.serviceAccountName", STR("")), r->path.name))
                return kube_req_error(r, 400, "BadRequest", "the pod \"" STR_FMT "\" runs as another service account", STR_ARG(name));
        return true;
}

static void token(struct kube_req *r)
{
        const struct kobj *sa = kube_store_get(r->api->store, kube_b.serviceaccounts, r->path.ns, r->path.name);
        struct str audiences[AUDIENCES_MAX];
        struct kube_token_req q = { .account = sa, .audiences = audiences };

        if (!sa) {
                kube_req_not_found(r, r->res, r->path.name);
                return;
        }
        if (!r->api->tokens) {
                kube_req_error(r, 501, "InternalError", "this server has no key to sign tokens with");
                return;
        }
        struct pb_node *o = kube_rest_body(r);
        if (!o || !bound_pod(r, pb_get_path(o, "spec.boundObjectRef"), &q.pod))
                return;
        q.naudiences = read_audiences(pb_get_path(o, "spec.audiences"), audiences);
        q.ttl_s = kube_int(o, "spec.expirationSeconds", 3600);
        if (q.ttl_s < TOKEN_MIN_S) {
                kube_req_error(r, 422, "Invalid",
                               "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: %lld: "
                               "may not specify a duration less than 10 minutes",
                               (long long)q.ttl_s);
                return;
        }
        if (q.ttl_s > TOKEN_MAX_S)
                q.ttl_s = TOKEN_MAX_S;
        struct str t = kube_tokens_issue(r->api->tokens, r->api, &q, r->a);
        if (!t.n) {
                kube_req_error(r, 500, "InternalError", "the token could not be signed");
                return;
        }
        char until[40];
        size_t len = clock_rfc3339(r->api->now_us() + (uint64_t)q.ttl_s * 1000000, 0, until);
        struct pb_node *st = pb_new(r->a, PB_MAP, STR(""));
        pb_put_str(r->a, st, "token", t);
        pb_put_str(r->a, st, "expirationTimestamp", str_make(until, len));
        pb_put_str(r->a, o, "kind", STR("TokenRequest"));
        pb_put_str(r->a, o, "apiVersion", STR("authentication.k8s.io/v1"));
        pb_put(r->a, o, STR("status"), st);
        kube_map(r->a, o, "metadata");
        pb_node_json(o, &r->out);
        r->status = 201;
}

/* ---- eviction ---- */

static void evict(struct kube_req *r)
{
        const struct kobj *pod = kube_store_get(r->api->store, kube_b.pods, r->path.ns, r->path.name);
        struct pb_node *o = kube_rest_body(r);

        if (!o)
                return;
        if (!pod) {
                kube_req_not_found(r, r->res, r->path.name);
                return;
        }
        const struct pb_node *dry = pb_get_path(o, "deleteOptions.dryRun");
        if (!r->dry_run && !(dry && dry->kind == PB_LIST && dry->n) &&
            !kube_api_delete(r->api, pod, NULL, kube_int(o, "deleteOptions.gracePeriodSeconds", -1), r->a)) {
                kube_req_error(r, 500, "InternalError", "%s", kube_store_error(r->api->store));
                return;
        }
        r->wrote = true;
        r->status = 201;
        buf_cstr(&r->out, "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Success\",\"code\":201}\n");
}

bool kube_subresource(struct kube_req *r)
{
        static const struct {
                const char *name;
                void (*fn)(struct kube_req *r);
        } table[] = { { "scale", scale }, { "token", token }, { "eviction", evict } };

        for (size_t i = 0; i < ARRAY_LEN(table); i++)
                if (str_eqc(r->path.sub, table[i].name)) {
                        table[i].fn(r);
                        return true;
                }
        return false;
}

/* ---- questions ---- */

static struct pb_node *user_node(struct kube_req *r, const struct kube_user *u)
{
        struct pb_node *n = pb_new(r->a, PB_MAP, STR("")), *groups = kube_list_at(r->a, n, "groups");

        pb_put_str(r->a, n, "username", u->name);
        if (u->uid.n)
                pb_put_str(r->a, n, "uid", u->uid);
        for (unsigned i = 0; i < u->ngroups; i++)
                pb_push(r->a, groups, pb_new(r->a, PB_STRING, u->groups[i]));
        if (u->pod_name.n) {
                struct pb_node *extra = kube_map(r->a, n, "extra");

                pb_push(r->a, kube_list_at(r->a, extra, "authentication.kubernetes.io/pod-name"), pb_new(r->a, PB_STRING, u->pod_name));
                pb_push(r->a, kube_list_at(r->a, extra, "authentication.kubernetes.io/pod-uid"), pb_new(r->a, PB_STRING, u->pod_uid));
        }
        return n;
}

static void token_review(struct kube_req *r, struct pb_node *o, struct pb_node *st)
{
        struct str audiences[AUDIENCES_MAX], why;
        size_t n = read_audiences(pb_get_path(o, "spec.audiences"), audiences);
        struct kube_user u;
        bool ok = kube_tokens_verify(r->api->tokens, r->api, pb_get_str(o, "spec.token", STR("")), audiences, n, r->a, &u, &why);

        kube_put_bool(r->a, st, "authenticated", ok);
        if (!ok) {
                pb_put_str(r->a, st, "error", why);
                return;
        }
        pb_put(r->a, st, STR("user"), user_node(r, &u));
        struct pb_node *aud = kube_list_at(r->a, st, "audiences");
        for (size_t i = 0; i < n; i++)
                pb_push(r->a, aud, pb_new(r->a, PB_STRING, audiences[i]));
        if (!n)
                pb_push(r->a, aud, pb_new(r->a, PB_STRING, kube_tokens_issuer(r->api->tokens)));
}

static void access_review(struct kube_req *r, struct pb_node *o, struct pb_node *st, bool self)
{
        const struct pb_node *q = pb_get_path(o, "spec.resourceAttributes");
        struct kube_user u = r->user;

        if (!self) {
                const struct pb_node *groups = pb_get_path(o, "spec.groups");

                memset(&u, 0, sizeof(u));
                u.name = pb_get_str(o, "spec.user", STR(""));
                for (size_t i = 0; groups && groups->kind == PB_LIST && i < groups->n && i < ARRAY_LEN(u.groups); i++)
                        u.groups[u.ngroups++] = groups->v[i]->text;
        }
        const char *verb = arena_cstr(r->a, pb_get_str(q, "verb", STR("")));
        bool ok = q ? kube_may(r->api, &u, verb, pb_get_str(q, "group", STR("")), pb_get_str(q, "resource", STR("")),
                               pb_get_str(q, "subresource", STR("")), pb_get_str(q, "namespace", STR("")), pb_get_str(q, "name", STR("")))
                    : pb_get_path(o, "spec.nonResourceAttributes") != NULL;
        kube_put_bool(r->a, st, "allowed", ok);
}

void kube_virtual_create(struct kube_req *r)
{
        struct pb_node *o = kube_rest_body(r);

        if (!o)
                return;
        if (!kube_validate_shape(r, r->res, o))
                return;
        struct pb_node *st = pb_new(r->a, PB_MAP, STR(""));
        if (!strcmp(r->res->plural, "tokenreviews"))
                token_review(r, o, st);
        else if (!strcmp(r->res->plural, "selfsubjectreviews"))
                pb_put(r->a, st, STR("userInfo"), user_node(r, &r->user));
        else
                access_review(r, o, st, !strcmp(r->res->plural, "selfsubjectaccessreviews"));
        pb_put_str(r->a, o, "kind", str_of(r->res->kind));
        pb_put_str(r->a, o, "apiVersion", str_of(kube_api_version(r->res)));
        kube_map(r->a, o, "metadata");
        pb_put(r->a, o, STR("status"), st);
        pb_node_json(o, &r->out);
        r->status = 201;
}
