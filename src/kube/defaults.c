/* What a real API server fills in. Users see these values in `kubectl get -o yaml`, controllers and the node rely on them, and kubectl's
 * three-way apply counts on them being the server's. */
#include "kube/api.h"

#include "base/mem.h"

static void def_str(struct arena *a, struct pb_node *m, const char *key, const char *value)
{
        struct pb_node *n = pb_get(m, key);

        if (!n || n->kind == PB_NULL || (n->kind == PB_STRING && !n->text.n))
                pb_put_str(a, m, key, str_of(value));
}

static void def_int(struct arena *a, struct pb_node *m, const char *key, int64_t value)
{
        struct pb_node *n = pb_get(m, key);

        if (!n || n->kind == PB_NULL)
                kube_put_int(a, m, key, value);
}

static void def_bool(struct arena *a, struct pb_node *m, const char *key, bool value)
{
        struct pb_node *n = pb_get(m, key);

        if (!n || n->kind == PB_NULL)
                kube_put_bool(a, m, key, value);
}

static struct pb_node *map_of(struct pb_node *n)
{
        return n && n->kind == PB_MAP ? n : NULL;
}

#define EACH(list, it)                                                                             \
        for (size_t it##_i = 0; (list) && (list)->kind == PB_LIST && it##_i < (list)->n; it##_i++) \
                for (struct pb_node *it = map_of((list)->v[it##_i]); it; it = NULL)

/* ---- pods ---- */

static void probe(struct arena *a, struct pb_node *p)
{
        struct pb_node *http = p ? map_of(pb_get(p, "httpGet")) : NULL;

        if (!p)
                return;
        def_int(a, p, "timeoutSeconds", 1);
        def_int(a, p, "periodSeconds", 10);
        def_int(a, p, "successThreshold", 1);
        def_int(a, p, "failureThreshold", 3);
        if (http) {
                def_str(a, http, "path", "/");
                def_str(a, http, "scheme", "HTTP");
        }
        struct pb_node *grpc = map_of(pb_get(p, "grpc"));
        if (grpc && !pb_get(grpc, "service"))
                pb_put_str(a, grpc, "service", STR(""));
}

static void lifecycle(struct arena *a, struct pb_node *l)
{
        static const char *const hooks[] = { "postStart", "preStop" };

        for (size_t i = 0; l && i < ARRAY_LEN(hooks); i++) {
                struct pb_node *http = map_of(pb_get_path(l, i ? "preStop.httpGet" : "postStart.httpGet"));

                if (http) {
                        def_str(a, http, "path", "/");
                        def_str(a, http, "scheme", "HTTP");
                }
        }
}

/* ":latest" or no tag: Always; a tag or digest: IfNotPresent. */
static const char *pull_policy(struct str image)
{
        ptrdiff_t slash = str_rchr(image, '/');
        struct str last = str_sub(image, (size_t)(slash + 1), image.n);

        if (str_chr(last, '@') >= 0)
                return "IfNotPresent";
        ptrdiff_t colon = str_chr(last, ':');
        return colon < 0 || str_eqc(str_sub(last, (size_t)colon + 1, last.n), "latest") ? "Always" : "IfNotPresent";
}

/* A limit without a request is the request too. */
static void resources(struct arena *a, struct pb_node *c)
{
        struct pb_node *r = kube_map(a, c, "resources"), *limits = map_of(pb_get(r, "limits"));

        for (size_t i = 0; limits && i < limits->n; i++) {
                struct pb_node *requests = kube_map(a, r, "requests");

                if (!pb_get(requests, arena_cstr(a, limits->keys[i])))
                        pb_put(a, requests, limits->keys[i], pb_clone(a, limits->v[i]));
        }
}

static void container(struct arena *a, struct pb_node *c)
{
        struct pb_node *env = pb_get(c, "env"), *ports = pb_get(c, "ports");

        def_str(a, c, "terminationMessagePath", "/dev/termination-log");
        def_str(a, c, "terminationMessagePolicy", "File");
        def_str(a, c, "imagePullPolicy", pull_policy(pb_get_str(c, "image", STR(""))));
        resources(a, c);
        EACH(ports, p)
        def_str(a, p, "protocol", "TCP");
        EACH(env, e)
        {
                struct pb_node *ref = map_of(pb_get_path(e, "valueFrom.fieldRef"));

                if (ref)
                        def_str(a, ref, "apiVersion", "v1");
        }
        probe(a, map_of(pb_get(c, "livenessProbe")));
        probe(a, map_of(pb_get(c, "readinessProbe")));
        probe(a, map_of(pb_get(c, "startupProbe")));
        lifecycle(a, map_of(pb_get(c, "lifecycle")));
}

static void downward_items(struct arena *a, struct pb_node *items)
{
        EACH(items, item)
        {
                struct pb_node *ref = map_of(pb_get(item, "fieldRef"));

                if (ref)
                        def_str(a, ref, "apiVersion", "v1");
        }
}

static void volume(struct arena *a, struct pb_node *v)
{
        static const char *const with_mode[] = { "configMap", "secret", "downwardAPI", "projected" };
        bool any = false;

        for (size_t i = 0; i < v->n; i++)
                any |= !str_eqc(v->keys[i], "name");
        if (!any)
                kube_map(a, v, "emptyDir");
        for (size_t i = 0; i < ARRAY_LEN(with_mode); i++) {
                struct pb_node *s = map_of(pb_get(v, with_mode[i]));

                if (s)
                        def_int(a, s, "defaultMode", 420);
        }
        downward_items(a, pb_get_path(v, "downwardAPI.items"));
        struct pb_node *sources = pb_get_path(v, "projected.sources");
        EACH(sources, s)
        {
                struct pb_node *token = map_of(pb_get(s, "serviceAccountToken"));

                if (token)
                        def_int(a, token, "expirationSeconds", 3600);
                downward_items(a, pb_get_path(s, "downwardAPI.items"));
        }
}

static void pod_spec(struct arena *a, struct pb_node *s)
{
        static const char *const lists[] = { "initContainers", "containers" };
        struct pb_node *volumes = pb_get(s, "volumes");

        def_str(a, s, "restartPolicy", "Always");
        def_str(a, s, "dnsPolicy", "ClusterFirst");
        def_str(a, s, "schedulerName", "default-scheduler");
        def_int(a, s, "terminationGracePeriodSeconds", 30);
        kube_map(a, s, "securityContext");
        for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
                struct pb_node *l = pb_get(s, lists[i]);

                EACH(l, c)
                container(a, c);
        }
        EACH(volumes, v)
        volume(a, v);
        /* The old name of the field is kept in step. */
        struct str sa = pb_get_str(s, "serviceAccountName", STR("")), old = pb_get_str(s, "serviceAccount", STR(""));
        if (!sa.n && old.n)
                pb_put_str(a, s, "serviceAccountName", old);
        else if (sa.n)
                pb_put_str(a, s, "serviceAccount", sa);
}

/* Guaranteed: every container has equal limits and requests of cpu and memory; BestEffort: none has any. */
static const char *qos_class(const struct pb_node *spec)
{
        const struct pb_node *cs = pb_get(spec, "containers");
        bool any = false, guaranteed = true;

        EACH(cs, c)
        {
                const struct pb_node *l = pb_get_path(c, "resources.limits"), *q = pb_get_path(c, "resources.requests");

                any |= (l && l->n) || (q && q->n);
                for (int k = 0; k < 2; k++) {
                        const struct pb_node *lim = pb_get(l, k ? "cpu" : "memory"), *req = pb_get(q, k ? "cpu" : "memory");

                        guaranteed &= lim && req && str_eq(lim->text, req->text);
                }
        }
        return !any ? "BestEffort" : guaranteed ? "Guaranteed" : "Burstable";
}

static void toleration(struct arena *a, struct pb_node *list, const char *key)
{
        EACH(list, t)
        if (str_eqc(pb_get_str(t, "key", STR("")), key) || !pb_get_str(t, "key", STR("")).n)
                return;
        struct pb_node *t = pb_new(a, PB_MAP, STR(""));
        pb_put_str(a, t, "key", str_of(key));
        pb_put_str(a, t, "operator", STR("Exists"));
        pb_put_str(a, t, "effect", STR("NoExecute"));
        kube_put_int(a, t, "tolerationSeconds", 300);
        pb_push(a, list, t);
}

static void pod(struct kube_api *api, struct pb_node *o, struct arena *a)
{
        struct pb_node *spec = kube_map(a, o, "spec"), *status = kube_map(a, o, "status");

        pod_spec(a, spec);
        def_str(a, spec, "serviceAccountName", "default");
        def_str(a, spec, "serviceAccount", arena_cstr(a, pb_get_str(spec, "serviceAccountName", STR("default"))));
        def_bool(a, spec, "enableServiceLinks", true);
        def_int(a, spec, "priority", 0);
        def_str(a, spec, "preemptionPolicy", "PreemptLowerPriority");
        struct pb_node *tolerations = kube_list_at(a, spec, "tolerations");
        toleration(a, tolerations, "node.kubernetes.io/not-ready");
        toleration(a, tolerations, "node.kubernetes.io/unreachable");
        def_str(a, status, "phase", "Pending");
        def_str(a, status, "qosClass", qos_class(spec));
}

/* ---- services ---- */

static void service(struct arena *a, struct pb_node *o)
{
        struct pb_node *s = kube_map(a, o, "spec"), *ports = pb_get(s, "ports");

        def_str(a, s, "type", "ClusterIP");
        def_str(a, s, "sessionAffinity", "None");
        struct str type = pb_get_str(s, "type", STR(""));
        EACH(ports, p)
        {
                struct pb_node *target = pb_get(p, "targetPort"), *port = pb_get(p, "port");

                def_str(a, p, "protocol", "TCP");
                if (port && (!target || (target->kind == PB_STRING && !target->text.n) ||
                             (target->kind == PB_NUMBER && str_eqc(target->text, "0"))))
                        pb_put(a, p, STR("targetPort"), pb_clone(a, port));
        }
        if (!str_eqc(type, "ExternalName")) {
                def_str(a, s, "internalTrafficPolicy", "Cluster");
                def_str(a, s, "ipFamilyPolicy", "SingleStack");
                struct pb_node *families = kube_list_at(a, s, "ipFamilies");
                if (!families->n)
                        pb_push(a, families, pb_new(a, PB_STRING, STR("IPv4")));
        }
        if (str_eqc(type, "LoadBalancer") || str_eqc(type, "NodePort"))
                def_str(a, s, "externalTrafficPolicy", "Cluster");
        if (str_eqc(type, "LoadBalancer"))
                def_bool(a, s, "allocateLoadBalancerNodePorts", true);
        if (str_eqc(pb_get_str(s, "sessionAffinity", STR("")), "ClientIP")) {
                struct pb_node *c = kube_map(a, kube_map(a, s, "sessionAffinityConfig"), "clientIP");

                def_int(a, c, "timeoutSeconds", 10800);
        }
        struct pb_node *ips = pb_get(s, "clusterIPs");
        struct str ip = pb_get_str(s, "clusterIP", STR(""));
        if (ip.n && (!ips || ips->kind != PB_LIST || !ips->n))
                pb_push(a, kube_list_at(a, s, "clusterIPs"), pb_new(a, PB_STRING, ip));
        else if (!ip.n && ips && ips->kind == PB_LIST && ips->n)
                pb_put_str(a, s, "clusterIP", ips->v[0]->text);
        struct pb_node *status = kube_map(a, o, "status");
        kube_map(a, status, "loadBalancer");
}

/* ---- the others ---- */

static void workload(struct arena *a, struct pb_node *o, bool deployment)
{
        struct pb_node *s = kube_map(a, o, "spec"), *template = kube_map(a, s, "template");
        struct pb_node *meta = kube_map(a, template, "metadata");

        def_int(a, s, "replicas", 1);
        if (!pb_get(meta, "creationTimestamp"))
                pb_put(a, meta, STR("creationTimestamp"), pb_new(a, PB_NULL, STR("null")));
        pod_spec(a, kube_map(a, template, "spec"));
        if (!deployment)
                return;
        struct pb_node *strategy = kube_map(a, s, "strategy");
        def_str(a, strategy, "type", "RollingUpdate");
        if (str_eqc(pb_get_str(strategy, "type", STR("")), "RollingUpdate")) {
                struct pb_node *r = kube_map(a, strategy, "rollingUpdate");

                if (!pb_get(r, "maxUnavailable"))
                        pb_put_str(a, r, "maxUnavailable", STR("25%"));
                if (!pb_get(r, "maxSurge"))
                        pb_put_str(a, r, "maxSurge", STR("25%"));
        }
        def_int(a, s, "revisionHistoryLimit", 10);
        def_int(a, s, "progressDeadlineSeconds", 600);
}

static void namespace(struct arena *a, struct pb_node *o)
{
        struct pb_node *labels = kube_map(a, kube_map(a, o, "metadata"), "labels"),
                       *finalizers = kube_list_at(a, kube_map(a, o, "spec"), "finalizers");

        pb_put_str(a, labels, "kubernetes.io/metadata.name", pb_get_str(o, "metadata.name", STR("")));
        if (!finalizers->n && !pb_get_path(o, "metadata.deletionTimestamp"))
                pb_push(a, finalizers, pb_new(a, PB_STRING, STR("kubernetes")));
        def_str(a, kube_map(a, o, "status"), "phase", "Active");
}

static void secret(struct arena *a, struct pb_node *o)
{
        struct pb_node *plain = map_of(pb_get(o, "stringData"));

        def_str(a, o, "type", "Opaque");
        for (size_t i = 0; plain && i < plain->n; i++)
                pb_put_str(a, kube_map(a, o, "data"), arena_cstr(a, plain->keys[i]), kube_base64(plain->v[i]->text, a));
        pb_del(o, "stringData");
}

static void endpoints(struct arena *a, struct pb_node *o)
{
        struct pb_node *subsets = pb_get(o, "subsets"), *ports = pb_get(o, "ports");

        EACH(subsets, s)
        {
                struct pb_node *sp = pb_get(s, "ports");

                EACH(sp, p)
                def_str(a, p, "protocol", "TCP");
        }
        EACH(ports, p)
        { /* EndpointSlice */
                def_str(a, p, "protocol", "TCP");
                if (!pb_get(p, "name"))
                        pb_put_str(a, p, "name", STR(""));
        }
}

void kube_defaults(struct kube_api *api, const struct kube_resource *res, struct pb_node *o, struct arena *a)
{
        if (res->bucket_id == kube_b.pods)
                pod(api, o, a);
        else if (res->bucket_id == kube_b.services)
                service(a, o);
        else if (res->bucket_id == kube_b.deployments || res->bucket_id == kube_b.replicasets)
                workload(a, o, res->bucket_id == kube_b.deployments);
        else if (res->bucket_id == kube_b.namespaces)
        namespace(a, o);
        else if (res->bucket_id == kube_b.secrets) secret(a, o);
        else if (res->bucket_id == kube_b.endpoints || res->bucket_id == kube_b.endpointslices) endpoints(a, o);
}

/* ---- service-account tokens in pods ---- */

#define TOKEN_PATH "/var/run/secrets/kubernetes.io/serviceaccount"

static const struct pb_node *token_volume_json(struct arena *a, struct str name)
{
        static const char shape[] = "{\"name\":\"%.*s\",\"projected\":{\"defaultMode\":420,\"sources\":["
                                    "{\"serviceAccountToken\":{\"expirationSeconds\":3607,\"path\":\"token\"}},"
                                    "{\"configMap\":{\"name\":\"kube-root-ca.crt\",\"items\":[{\"key\":\"ca.crt\",\"path\":\"ca.crt\"}]}},"
                                    "{\"downwardAPI\":{\"items\":[{\"path\":\"namespace\",\"fieldRef\":{\"apiVersion\":\"v1\","
                                    "\"fieldPath\":\"metadata.namespace\"}}]}}]}}";
        struct pb_node *n = NULL;
        struct diags d;

        diags_init(&d);
        pb_parse_json(arena_printf(a, shape, (int)name.n, name.p), STR(""), a, &n, &d);
        diags_fini(&d);
        return n;
}

static bool mounts_token(const struct pb_node *c)
{
        const struct pb_node *mounts = pb_get(c, "volumeMounts");

        EACH(mounts, m)
        if (str_eqc(pb_get_str(m, "mountPath", STR("")), TOKEN_PATH))
                return true;
        return false;
}

static bool wants_token(struct kube_api *api, const struct pb_node *o)
{
        const struct pb_node *own = pb_get_path(o, "spec.automountServiceAccountToken");

        if (own && own->kind == PB_BOOL)
                return str_eqc(own->text, "true");
        const struct kobj *sa = kube_store_get(api->store, kube_b.serviceaccounts, pb_get_str(o, "metadata.namespace", STR("")),
                                               pb_get_str(o, "spec.serviceAccountName", STR("default")));
        return !sa || kube_bool(sa->node, "automountServiceAccountToken", true);
}

static bool is_token_volume(const struct pb_node *v)
{
        return str_starts(pb_get_str(v, "name", STR("")), STR("kube-api-access-")) && pb_get(v, "projected");
}

void kube_pod_token_volume(struct kube_api *api, struct pb_node *o, struct arena *a)
{
        static const char *const lists[] = { "initContainers", "containers" };
        struct pb_node *spec = kube_map(a, o, "spec");
        struct str name = { NULL, 0 };

        if (!wants_token(api, o))
                return;
        struct pb_node *volumes = kube_list_at(a, spec, "volumes");
        EACH(volumes, v)
        if (is_token_volume(v))
                name = pb_get_str(v, "name", STR(""));
        bool have = name.p != NULL, used = false;
        if (!have)
                name = arena_printf(a, "kube-api-access-" STR_FMT, STR_ARG(kube_random_suffix(a, 5)));
        for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
                struct pb_node *cs = pb_get(spec, lists[i]);

                EACH(cs, c)
                {
                        if (mounts_token(c))
                                continue;
                        struct pb_node *m = pb_new(a, PB_MAP, STR(""));
                        pb_put_str(a, m, "name", name);
                        kube_put_bool(a, m, "readOnly", true);
                        pb_put_str(a, m, "mountPath", STR(TOKEN_PATH));
                        pb_push(a, kube_list_at(a, c, "volumeMounts"), m);
                        used = true;
                }
        }
        if (used && !have)
                pb_push(a, volumes, pb_clone(a, token_volume_json(a, name)));
        if (!volumes->n)
                pb_del(spec, "volumes");
}
