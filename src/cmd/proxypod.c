#include "cmd/proxypod.h"

#include "base/mem.h"
#include "cmd/template.h"

#include <assert.h>
#include <stdio.h>

extern const char embed_sidecar_yaml[];

static struct pb_node *map_new(struct arena *a)
{
        return pb_new(a, PB_MAP, STR(""));
}

static struct pb_node *parse(struct arena *a, struct str json)
{
        struct pb_node *n = NULL;
        struct diags d;

        diags_init(&d);
        if (!json.n || !pb_parse_json(json, STR(""), a, &n, &d))
                n = map_new(a);
        diags_fini(&d);
        return n;
}

struct str proxypod_image(struct str values, const char *which, struct arena *a)
{
        struct pb_node *v = parse(a, values);

        return arena_printf(a, STR_FMT "/%s:" STR_FMT, STR_ARG(pb_get_str(v, "global.hub", STR("docker.io/istio"))), which,
                            STR_ARG(pb_get_str(v, "global.tag", STR("postern-" POSTERN_VERSION))));
}

struct str proxypod_log_level(struct str values, struct arena *a)
{
        return pb_get_str(parse(a, values), "global.proxy.logLevel", STR("warning"));
}

void proxypod_gateway_label(struct proxypod_gateway *g, struct str key, struct str value, struct arena *a)
{
        if (g->nlabels == ARRAY_LEN(g->label_keys))
                return;
        g->label_keys[g->nlabels] = arena_str(a, key);
        g->label_values[g->nlabels++] = arena_str(a, value);
}

struct pb_node *proxypod_gateway_labels(const struct proxypod_gateway *g, enum proxypod_labels which, struct arena *a)
{
        struct pb_node *m = map_new(a);

        pb_put_str(a, m, "app", g->name);
        pb_put_str(a, m, "istio", g->egress ? STR("egressgateway") : STR("ingressgateway"));
        for (unsigned i = 0; i < g->nlabels; i++)
                pb_put_str(a, m, g->label_keys[i].p, g->label_values[i]);
        if (which == PROXYPOD_SELECTOR)
                return m;
        pb_put_str(a, m, "install.operator.istio.io/owning-resource", STR("unknown"));
        pb_put_str(a, m, "istio.io/rev", STR("default"));
        pb_put_str(a, m, "operator.istio.io/component", g->egress ? STR("EgressGateways") : STR("IngressGateways"));
        pb_put_str(a, m, "release", STR("istio"));
        if (which == PROXYPOD_OBJECT)
                return m;
        pb_put_str(a, m, "chart", STR("gateways"));
        pb_put_str(a, m, "heritage", STR("Tiller"));
        pb_put_str(a, m, "service.istio.io/canonical-name", g->name);
        pb_put_str(a, m, "service.istio.io/canonical-revision", STR("latest"));
        pb_put_str(a, m, "sidecar.istio.io/inject", STR("false"));
        return m;
}

static void env_add(struct arena *a, struct pb_node *list, const char *name, struct str value)
{
        struct pb_node *e = map_new(a);

        pb_put_str(a, e, "name", str_of(name));
        pb_put_str(a, e, "value", value);
        pb_push(a, list, e);
}

static void env_field(struct arena *a, struct pb_node *list, const char *name, const char *field)
{
        struct pb_node *e = map_new(a), *from = map_new(a), *ref = map_new(a);

        pb_put_str(a, ref, "fieldPath", str_of(field));
        pb_put(a, from, STR("fieldRef"), ref);
        pb_put_str(a, e, "name", str_of(name));
        pb_put(a, e, STR("valueFrom"), from);
        pb_push(a, list, e);
}

static struct pb_node *env_common(struct arena *a, struct str values, struct str workload, struct str owner)
{
        struct pb_node *l = pb_new(a, PB_LIST, STR("")), *v = parse(a, values);

        env_field(a, l, "POD_NAME", "metadata.name");
        env_field(a, l, "POD_NAMESPACE", "metadata.namespace");
        env_field(a, l, "INSTANCE_IP", "status.podIP");
        env_field(a, l, "SERVICE_ACCOUNT", "spec.serviceAccountName");
        env_field(a, l, "HOST_IP", "status.hostIP");
        env_field(a, l, "ISTIO_META_NODE_NAME", "spec.nodeName");
        env_add(a, l, "ISTIO_META_CLUSTER_ID", pb_get_str(v, "global.multiCluster.clusterName", STR("Kubernetes")));
        env_add(a, l, "ISTIO_META_MESH_ID", pb_get_str(v, "global.meshID", STR("cluster.local")));
        env_add(a, l, "TRUST_DOMAIN", STR("cluster.local"));
        env_add(a, l, "ISTIO_META_WORKLOAD_NAME", workload);
        env_add(a, l, "ISTIO_META_OWNER", owner);
        return l;
}

struct pb_node *proxypod_env_gateway(const struct proxypod_gateway *g, struct arena *a)
{
        struct str owner = arena_printf(a, "kubernetes://apis/apps/v1/namespaces/" STR_FMT "/deployments/" STR_FMT, STR_ARG(g->namespace_),
                                        STR_ARG(g->name));
        struct pb_node *l = env_common(a, g->values, g->name, owner);

        env_add(a, l, "PROXY_CONFIG", STR("{}"));
        env_add(a, l, "ISTIO_META_UNPRIVILEGED_POD", STR("true"));
        return l;
}

bool inject_wanted(const struct pb_node *pod, struct str ns, const struct inject_input *in)
{
        struct pb_node *labels = pb_get_path(pod, "metadata.labels"), *annotations = pb_get_path(pod, "metadata.annotations");
        struct pb_node *choice = pb_get(labels, "sidecar.istio.io/inject");
        bool ns_on = false;
        struct pb_node *inj = in->namespace_labels ? pb_get(in->namespace_labels, "istio-injection") : NULL;

        if (in->namespace_labels) {
                struct pb_node *rev = pb_get(in->namespace_labels, "istio.io/rev");

                ns_on = rev && str_eqc(rev->text, "default");
        }
        if (inj)
                ns_on = str_eqc(inj->text, "enabled");
        if (!in->values.n || str_eqc(ns, "kube-system") || str_eqc(ns, "kube-public") || str_eqc(ns, "istio-system"))
                return false;
        if (str_eqc(pb_get_str(pod, "spec.hostNetwork", STR("")), "true") ||
            (annotations && pb_get(annotations, "sidecar.istio.io/status")))
                return false;
        if (!choice)
                choice = pb_get(annotations, "sidecar.istio.io/inject");
        if (inj && str_eqc(inj->text, "disabled"))
                return false;
        if (choice)
                return str_eqc(choice->text, "true");
        return ns_on;
}

static struct pb_node *child_map(struct arena *a, struct pb_node *m, const char *key)
{
        struct pb_node *c = pb_get(m, key);

        if (!c || c->kind != PB_MAP) {
                c = map_new(a);
                pb_put(a, m, str_of(key), c);
        }
        return c;
}

static struct pb_node *child_list(struct arena *a, struct pb_node *m, const char *key)
{
        struct pb_node *c = pb_get(m, key);

        if (!c || c->kind != PB_LIST) {
                c = pb_new(a, PB_LIST, STR(""));
                pb_put(a, m, str_of(key), c);
        }
        return c;
}

static struct pb_node *yaml_map(struct str text, struct arena *a)
{
        struct pb_node **docs;
        struct diags d;
        size_t n = 0;

        diags_init(&d);
        bool ok = pb_parse_yaml(text, STR(""), a, &docs, &n, &d);

        diags_fini(&d);
        return ok && n && docs[0]->kind == PB_MAP ? docs[0] : map_new(a);
}

/* The first owner of kind Deployment's ReplicaSet names the workload "x" for a pod "x-<hash>-<suffix>"; a bare pod names itself. */
static void workload_of(const struct pb_node *pod, struct str ns, struct arena *a, struct str *name, struct str *owner)
{
        struct pb_node *owners = pb_get_path(pod, "metadata.ownerReferences");
        struct str pod_name = pb_get_str(pod, "metadata.name", STR(""));
        struct str hash = pb_get_str(pb_get_path(pod, "metadata.labels"), "pod-template-hash", STR(""));

        *name = pod_name;
        *owner = arena_printf(a, "kubernetes://apis/v1/namespaces/" STR_FMT "/pods/" STR_FMT, STR_ARG(ns), STR_ARG(pod_name));
        for (size_t i = 0; owners && i < owners->n; i++) {
                struct str kind = pb_get_str(owners->v[i], "kind", STR("")), of = pb_get_str(owners->v[i], "name", STR(""));
                struct str tail = arena_printf(a, "-" STR_FMT, STR_ARG(hash));

                if (!str_eqc(kind, "ReplicaSet"))
                        continue;
                bool deployed = hash.n && str_ends(of, tail);

                *name = deployed ? str_sub(of, 0, of.n - tail.n) : of;
                *owner = arena_printf(a, "kubernetes://apis/apps/v1/namespaces/" STR_FMT "/%s/" STR_FMT, STR_ARG(ns),
                                      deployed ? "deployments" : "replicasets", STR_ARG(*name));
                return;
        }
}

static struct str app_containers(const struct pb_node *pod, struct arena *a)
{
        struct pb_node *l = pb_get_path(pod, "spec.containers");
        struct buf b = BUF_INIT;

        for (size_t i = 0; l && i < l->n; i++)
                buf_printf(&b, "%s" STR_FMT, i ? "," : "", STR_ARG(pb_get_str(l->v[i], "name", STR(""))));
        struct str s = arena_str(a, buf_view(&b));

        buf_fini(&b);
        return s;
}

static struct str app_ports(const struct pb_node *pod, struct arena *a)
{
        struct pb_node *l = pb_get_path(pod, "spec.containers"), *out = pb_new(a, PB_LIST, STR(""));

        for (size_t i = 0; l && i < l->n; i++) {
                struct pb_node *ports = pb_get(l->v[i], "ports");

                for (size_t k = 0; ports && k < ports->n; k++)
                        pb_push(a, out, ports->v[k]);
        }
        return pb_node_json_str(out, a);
}

/* The mesh's defaultConfig with the pod's proxy.istio.io/config annotation over it, as JSON for PROXY_CONFIG. */
static bool proxy_config(const struct pb_node *pod, struct str mesh, struct arena *a, struct str *out, struct diags *d)
{
        struct pb_node *config = pb_get(yaml_map(mesh, a), "defaultConfig");
        struct pb_node *annotation = pb_get(pb_get_path(pod, "metadata.annotations"), "proxy.istio.io/config");
        struct pb_node *merged = config && config->kind == PB_MAP ? pb_clone(a, config) : map_new(a), **docs;
        size_t n = 0;
        struct diag_at at = { .path = STR("metadata.annotations[proxy.istio.io/config]") };

        if (annotation) {
                if (!pb_parse_yaml(annotation->text, STR("proxy.istio.io/config"), a, &docs, &n, d))
                        return false;
                if (n && !pb_from_node(pb_type(STR("istio.mesh.v1alpha1.ProxyConfig")), docs[0], 0, &at, a, d))
                        return false;
                for (size_t i = 0; n && i < docs[0]->n; i++)
                        pb_put(a, merged, docs[0]->keys[i], docs[0]->v[i]);
        }
        *out = pb_node_json_str(merged, a);
        return true;
}

static void prepend(struct arena *a, struct pb_node *list, struct pb_node *first)
{
        struct pb_node *all = pb_new(a, PB_LIST, STR(""));

        pb_push(a, all, first);
        for (size_t i = 0; i < list->n; i++)
                pb_push(a, all, list->v[i]);
        list->v = all->v;
        list->n = all->n;
}

static bool bad_log_level(struct str s)
{
        static const char *const known[] = { "trace", "debug", "info", "warning", "warn", "error", "critical", "off" };

        for (size_t i = 0; i < ARRAY_LEN(known); i++)
                if (str_eqc(s, known[i]))
                        return false;
        return true;
}

bool inject_pod(struct pb_node *pod, struct str ns, const struct inject_input *in, struct arena *a, struct diags *d)
{
        struct pb_node *meta = child_map(a, pod, "metadata"), *spec = child_map(a, pod, "spec");
        struct pb_node *labels = child_map(a, meta, "labels"), *annotations = child_map(a, meta, "annotations");
        struct str level, workload, owner, config;
        struct pb_node *own_level = pb_get(annotations, "sidecar.istio.io/logLevel");
        size_t errors = d->errors;

        level = own_level ? own_level->text : proxypod_log_level(in->values, a);
        if (bad_log_level(level))
                diag_add(d, DIAG_ERROR, NULL, &(struct diag_at){ .path = STR("metadata.annotations[sidecar.istio.io/logLevel]") },
                         "\"" STR_FMT "\" is no log level: use trace, debug, info, warning, error, critical or off", STR_ARG(level));
        if (!proxy_config(pod, in->mesh, a, &config, d) || d->errors > errors)
                return false;
        workload_of(pod, ns, a, &workload, &owner);

        struct pb_node *env = env_common(a, in->values, workload, owner);

        env_add(a, env, "PROXY_CONFIG", config);
        env_add(a, env, "ISTIO_META_APP_CONTAINERS", app_containers(pod, a));
        env_add(a, env, "ISTIO_META_POD_PORTS", app_ports(pod, a));
        env_add(a, env, "ISTIO_META_INTERCEPTION_MODE", STR("REDIRECT"));
        struct pb_node *resources = pb_get_path(parse(a, in->values), "global.proxy.resources");
        struct template_var vars[] = {
                { "image", pb_node_json_str(pb_new(a, PB_STRING, proxypod_image(in->values, "proxyv2", a)), a) },
                { "binary", STR("\"" PROXYPOD_BINARY "\"") },
                { "log_level", level },
                { "env", pb_node_json_str(env, a) },
                { "resources", resources ? pb_node_json_str(resources, a) : STR("{}") },
        };
        struct buf text = BUF_INIT;

        template_fill(embed_sidecar_yaml, vars, ARRAY_LEN(vars), &text);
        struct pb_node *add = yaml_map(arena_str(a, buf_view(&text)), a);

        buf_fini(&text);
        assert(pb_get(add, "containers"));
        prepend(a, child_list(a, spec, "containers"), pb_get(add, "containers")->v[0]);
        struct pb_node *volumes = child_list(a, spec, "volumes"), *more = pb_get(add, "volumes");

        for (size_t i = 0; i < more->n; i++)
                pb_push(a, volumes, more->v[i]);
        struct pb_node *app = pb_get(labels, "app");
        struct pb_node *version = pb_get(labels, "version");

        pb_put_str(a, labels, "security.istio.io/tlsMode", STR("istio"));
        if (!pb_get(labels, "service.istio.io/canonical-name"))
                pb_put_str(a, labels, "service.istio.io/canonical-name", app ? app->text : workload);
        if (!pb_get(labels, "service.istio.io/canonical-revision"))
                pb_put_str(a, labels, "service.istio.io/canonical-revision", version ? version->text : STR("latest"));
        pb_put_str(a, annotations, "sidecar.istio.io/status",
                   STR("{\"containers\":[\"istio-proxy\"],\"volumes\":[\"istio-podinfo\",\"istio-data\"],\"revision\":\"default\"}"));
        struct pb_node *apps = pb_get(spec, "containers");

        /* exec and logs without -c mean the application, not the proxy that comes first */
        if (apps->n > 1 && !pb_get(annotations, "kubectl.kubernetes.io/default-container"))
                pb_put_str(a, annotations, "kubectl.kubernetes.io/default-container", pb_get_str(apps->v[1], "name", STR("")));
        return true;
}
