/* `postern install`: what `istioctl install` is to Istio. It makes the namespace, the mesh configuration, the control plane and the
 * gateways that the specification names, then waits until they run. Run again, it changes what the new values say and nothing else: the
 * mesh configuration is merged into what is there, a gateway goes only when it is set to enabled=false. */
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "cmd/kubesync.h"
#include "cmd/operator.h"
#include "cmd/proxypod.h"
#include "cmd/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern const char embed_base_yaml[], embed_istiod_yaml[], embed_gateway_yaml[];

enum { REQUEST_TIMEOUT_MS = 10000 };

struct install {
        struct arena a;
        struct diags d;
        struct kubesync *k;
        struct operator_spec op;
        struct str values; /* the injector's values, JSON */
        bool dry_run;
        long timeout_s;
        unsigned created, changed, unchanged;
};

static int fail(struct install *in, const char *what)
{
        fflush(stdout);
        cmd_error("%s", what);
        cmd_diags(&in->d);
        return CMD_FAILED;
}

static int fail_answer(struct install *in, struct str object, const struct kubesync_answer *r)
{
        fflush(stdout);
        (void)in;
        return cmd_error(STR_FMT ": " STR_FMT, STR_ARG(object), STR_ARG(r->text));
}

static struct str quoted(struct arena *a, struct str s)
{
        return pb_node_json_str(pb_new(a, PB_STRING, s), a);
}

/* Makes one object what `want` says, leaving what it does not say. */
static int apply(struct install *in, struct pb_node *want)
{
        struct kubesync_answer r;
        struct str path = kubesync_path(want, true, &in->a);
        struct str label = arena_printf(&in->a, STR_FMT "/" STR_FMT, STR_ARG(pb_get_str(want, "kind", STR(""))),
                                        STR_ARG(pb_get_str(want, "metadata.name", STR(""))));
        const char *dry = in->dry_run ? "?dryRun=All" : "";

        if (!kubesync_do(in->k, "GET", path, NULL, NULL, REQUEST_TIMEOUT_MS, &in->a, &r) && r.status != 404)
                return fail_answer(in, label, &r);
        if (r.status == 404) {
                if (!kubesync_do(in->k, "POST", arena_printf(&in->a, STR_FMT "%s", STR_ARG(kubesync_path(want, false, &in->a)), dry),
                                 "application/json", want, REQUEST_TIMEOUT_MS, &in->a, &r)) {
                        /* a dry run cannot put objects into a namespace that it did not make */
                        if (in->dry_run && r.status == 404) {
                                printf("  would create " STR_FMT "\n", STR_ARG(label));
                                return CMD_OK;
                        }
                        return fail_answer(in, label, &r);
                }
                in->created++;
                if (in->dry_run)
                        printf("  would create " STR_FMT "\n", STR_ARG(label));
                return CMD_OK;
        }
        struct str before = pb_get_str(r.body, "metadata.resourceVersion", STR(""));
        struct pb_node *old = r.body;

        if (!kubesync_do(in->k, "PATCH", arena_printf(&in->a, STR_FMT "%s", STR_ARG(path), dry), "application/strategic-merge-patch+json",
                         want, REQUEST_TIMEOUT_MS, &in->a, &r))
                return fail_answer(in, label, &r);
        bool same = str_eq(before, pb_get_str(r.body, "metadata.resourceVersion", STR("?"))) && (!in->dry_run || pb_node_eq(old, r.body));

        *(same ? &in->unchanged : &in->changed) += 1;
        if (in->dry_run && !same)
                printf("  would change " STR_FMT "\n", STR_ARG(label));
        return CMD_OK;
}

static int apply_text(struct install *in, const struct buf *text)
{
        struct pb_node **docs;
        size_t n;

        if (!pb_parse_yaml(arena_str(&in->a, buf_view(text)), STR("(built-in manifest)"), &in->a, &docs, &n, &in->d))
                return fail(in, "a built-in manifest cannot be read; this is a bug");
        for (size_t i = 0; i < n; i++) {
                int rc = apply(in, docs[i]);

                if (rc != CMD_OK)
                        return rc;
        }
        return CMD_OK;
}

static const char mesh_defaults[] = "accessLogFile: \"\"\n"
                                    "defaultProviders:\n"
                                    "  metrics:\n"
                                    "  - prometheus\n"
                                    "defaultConfig:\n"
                                    "  discoveryAddress: istiod.istio-system.svc:15010\n"
                                    "rootNamespace: istio-system\n"
                                    "trustDomain: cluster.local\n";

/* The text of a ConfigMap's key as a map: what is there now, else `otherwise`. NULL with an error printed. */
static struct pb_node *current_map(struct install *in, const char *config_map, const char *key, const char *otherwise)
{
        struct kubesync_answer r;
        struct str path = arena_printf(&in->a, "/api/v1/namespaces/istio-system/configmaps/%s", config_map);
        struct pb_node **docs = NULL;
        struct str text = str_of(otherwise);
        size_t n = 0;

        if (kubesync_do(in->k, "GET", path, NULL, NULL, REQUEST_TIMEOUT_MS, &in->a, &r)) {
                struct pb_node *data = pb_get(r.body, "data"), *v = pb_get(data, key);

                if (v && v->kind == PB_STRING)
                        text = v->text;
        } else if (r.status != 404) {
                fail_answer(in, str_of(config_map), &r);
                return NULL;
        }
        if (!pb_parse_yaml(text, arena_printf(&in->a, "configmap/%s %s", config_map, key), &in->a, &docs, &n, &in->d) ||
            (n && docs[0]->kind != PB_MAP)) {
                fail(in, "the configuration that is installed cannot be read; correct or delete it first");
                return NULL;
        }
        return n ? docs[0] : pb_new(&in->a, PB_MAP, STR(""));
}

static struct pb_node *given_values(struct install *in)
{
        const IstioOp__IstioOperatorSpec *s = in->op.spec;
        struct pb_node *values = pb_new(&in->a, PB_MAP, STR(""));

        if (s->values)
                pb_merge(&in->a, values, pb_to_node(&s->values->base, &in->a));
        if (s->hub || s->tag) {
                struct pb_node *g = pb_get(values, "global");

                if (!g) {
                        g = pb_new(&in->a, PB_MAP, STR(""));
                        pb_put(&in->a, values, STR("global"), g);
                }
                if (s->hub)
                        pb_put_str(&in->a, g, "hub", str_of(s->hub));
                if (s->tag)
                        pb_put_str(&in->a, g, "tag", str_of(s->tag));
        }
        return values;
}

static int install_base(struct install *in)
{
        struct pb_node *mesh = current_map(in, "istio", "mesh", mesh_defaults);
        struct pb_node *values = mesh ? current_map(in, "istio-sidecar-injector", "values", "{\"global\":{}}") : NULL;

        if (!values)
                return CMD_FAILED;
        pb_merge(&in->a, mesh, in->op.mesh_config);
        pb_merge(&in->a, values, given_values(in));
        in->values = pb_node_json_str(values, &in->a);

        struct buf mesh_yaml = BUF_INIT, out = BUF_INIT;

        pb_node_yaml(mesh, &mesh_yaml);
        struct template_var vars[] = {
                { "mesh", quoted(&in->a, buf_view(&mesh_yaml)) },
                { "injector", quoted(&in->a, in->values) },
        };

        template_fill(embed_base_yaml, vars, ARRAY_LEN(vars), &out);
        int rc = apply_text(in, &out);

        buf_fini(&mesh_yaml);
        buf_fini(&out);
        return rc;
}

static struct str int_text(struct arena *a, int64_t v)
{
        return arena_printf(a, "%lld", (long long)v);
}

static int install_istiod(struct install *in)
{
        const IstioOp__Component *c = in->op.spec->components ? in->op.spec->components->pilot : NULL;
        const IstioOp__Global *g = in->op.spec->values ? in->op.spec->values->global : NULL;
        struct template_var vars[] = {
                { "replicas", int_text(&in->a, c && c->k8s && c->k8s->has_replica_count ? c->k8s->replica_count : 1) },
                { "image", quoted(&in->a, proxypod_image(in->values, "pilot", &in->a)) },
                { "binary", quoted(&in->a, STR(PROXYPOD_BINARY)) },
                { "log_level", g && g->logging && g->logging->level ? str_of(g->logging->level) : STR("info") },
        };
        struct buf out = BUF_INIT;

        template_fill(embed_istiod_yaml, vars, ARRAY_LEN(vars), &out);
        int rc = apply_text(in, &out);

        buf_fini(&out);
        return rc;
}

static struct str default_ports(bool egress)
{
        return egress ? STR("[{\"name\":\"http2\",\"port\":80,\"protocol\":\"TCP\",\"targetPort\":8080},"
                            "{\"name\":\"https\",\"port\":443,\"protocol\":\"TCP\",\"targetPort\":8443}]")
                      : STR("[{\"name\":\"status-port\",\"port\":15021,\"protocol\":\"TCP\",\"targetPort\":15021},"
                            "{\"name\":\"http2\",\"port\":80,\"protocol\":\"TCP\",\"targetPort\":8080},"
                            "{\"name\":\"https\",\"port\":443,\"protocol\":\"TCP\",\"targetPort\":8443}]");
}

static struct str ports_json(struct install *in, const IstioOp__Component *c, bool egress)
{
        struct pb_node *list = pb_new(&in->a, PB_LIST, STR(""));

        if (!c->k8s || !c->k8s->service || !c->k8s->service->n_ports)
                return default_ports(egress);
        for (size_t i = 0; i < c->k8s->service->n_ports; i++) {
                struct pb_node *p = pb_to_node(&c->k8s->service->ports[i]->base, &in->a);

                if (!pb_get(p, "protocol"))
                        pb_put_str(&in->a, p, "protocol", STR("TCP"));
                pb_push(&in->a, list, p);
        }
        return pb_node_json_str(list, &in->a);
}

static int gateway(struct install *in, const IstioOp__Component *c, bool egress)
{
        struct arena *a = &in->a;
        struct str name = str_of(c->name ? c->name : egress ? "istio-egressgateway" : "istio-ingressgateway");
        struct str ns = str_of(c->namespace_ ? c->namespace_ : "istio-system");
        struct proxypod_gateway g = { .name = name, .namespace_ = ns, .egress = egress, .values = in->values };

        for (size_t i = 0; i < c->n_label; i++)
                proxypod_gateway_label(&g, str_of(c->label[i]->key), str_of(c->label[i]->value), a);
        struct pb_node *env = proxypod_env_gateway(&g, a);

        for (size_t i = 0; c->k8s && i < c->k8s->n_env; i++)
                pb_push(a, env, pb_to_node(&c->k8s->env[i]->base, a));
        struct pb_node *annotations = pb_new(a, PB_MAP, STR(""));

        for (size_t i = 0; c->k8s && i < c->k8s->n_pod_annotations; i++)
                pb_put_str(a, annotations, c->k8s->pod_annotations[i]->key, str_of(c->k8s->pod_annotations[i]->value));
        pb_put_str(a, annotations, "sidecar.istio.io/inject", STR("false"));
        struct template_var vars[] = {
                { "name", name },
                { "namespace", ns },
                { "labels", pb_node_json_str(proxypod_gateway_labels(&g, PROXYPOD_OBJECT, a), a) },
                { "selector", pb_node_json_str(proxypod_gateway_labels(&g, PROXYPOD_SELECTOR, a), a) },
                { "pod_labels", pb_node_json_str(proxypod_gateway_labels(&g, PROXYPOD_POD, a), a) },
                { "pod_annotations", pb_node_json_str(annotations, a) },
                { "ports", ports_json(in, c, egress) },
                { "replicas", int_text(a, c->k8s && c->k8s->has_replica_count ? c->k8s->replica_count : 1) },
                { "image", quoted(a, proxypod_image(in->values, "proxyv2", a)) },
                { "binary", quoted(a, STR(PROXYPOD_BINARY)) },
                { "log_level", proxypod_log_level(in->values, a) },
                { "env", pb_node_json_str(env, a) },
                { "resources", c->k8s && c->k8s->resources ? pb_node_json_str(pb_to_node(&c->k8s->resources->base, a), a) : STR("{}") },
        };
        struct buf out = BUF_INIT;

        template_fill(embed_gateway_yaml, vars, ARRAY_LEN(vars), &out);
        int rc = apply_text(in, &out);

        buf_fini(&out);
        return rc;
}

static int remove_gateway(struct install *in, const IstioOp__Component *c, bool egress)
{
        const char *name = c->name ? c->name : egress ? "istio-egressgateway" : "istio-ingressgateway";
        const char *ns = c->namespace_ ? c->namespace_ : "istio-system";
        static const struct {
                const char *prefix, *plural, *suffix;
        } t[] = { { "/apis/apps/v1", "deployments", "" },
                  { "/api/v1", "services", "" },
                  { "/api/v1", "serviceaccounts", "-service-account" } };

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct kubesync_answer r;
                struct str path = arena_printf(&in->a, "%s/namespaces/%s/%s/%s%s%s", t[i].prefix, ns, t[i].plural, name, t[i].suffix,
                                               in->dry_run ? "?dryRun=All" : "");

                if (!kubesync_do(in->k, "DELETE", path, NULL, NULL, REQUEST_TIMEOUT_MS, &in->a, &r) && r.status != 404)
                        return fail_answer(in, str_of(name), &r);
                if (r.status != 404)
                        in->changed++;
        }
        return CMD_OK;
}

/* Waits until a Deployment's newest pods are available. */
static int wait_ready(struct install *in, struct str ns, struct str name)
{
        struct str path = arena_printf(&in->a, "/apis/apps/v1/namespaces/" STR_FMT "/deployments/" STR_FMT, STR_ARG(ns), STR_ARG(name));
        uint64_t until = clock_mono_ms() + (uint64_t)in->timeout_s * 1000;
        struct kubesync_answer r;

        while (clock_mono_ms() < until) {
                struct arena turn;
                uint64_t generation = 0, seen = 0, want = 1, updated = 0, available = 0;

                arena_init(&turn, 0);
                if (!kubesync_do(in->k, "GET", path, NULL, NULL, REQUEST_TIMEOUT_MS, &turn, &r)) {
                        int rc = fail_answer(in, name, &r);

                        arena_fini(&turn);
                        return rc;
                }
                str_u64(pb_get_str(r.body, "metadata.generation", STR("0")), &generation);
                str_u64(pb_get_str(r.body, "status.observedGeneration", STR("0")), &seen);
                str_u64(pb_get_str(r.body, "spec.replicas", STR("1")), &want);
                str_u64(pb_get_str(r.body, "status.updatedReplicas", STR("0")), &updated);
                str_u64(pb_get_str(r.body, "status.availableReplicas", STR("0")), &available);
                arena_fini(&turn);
                if (seen >= generation && updated >= want && available >= want)
                        return CMD_OK;
                kubesync_pause(in->k, 30);
        }
        return cmd_error("deployment " STR_FMT " in " STR_FMT " is not ready after %ld s; \"kubectl describe pods -n " STR_FMT
                         "\" says why",
                         STR_ARG(name), STR_ARG(ns), in->timeout_s, STR_ARG(ns));
}

static int each_gateway(struct install *in, IstioOp__Component **v, size_t n, bool egress)
{
        unsigned made = 0;

        for (size_t i = 0; i < n; i++) {
                bool on = v[i]->has_enabled && v[i]->enabled;
                int rc = on ? gateway(in, v[i], egress) : v[i]->has_enabled ? remove_gateway(in, v[i], egress) : CMD_OK;

                if (rc != CMD_OK)
                        return rc;
                made += on;
        }
        for (size_t i = 0; i < n && !in->dry_run; i++) {
                if (!v[i]->has_enabled || !v[i]->enabled)
                        continue;
                int rc = wait_ready(in, str_of(v[i]->namespace_ ? v[i]->namespace_ : "istio-system"),
                                    str_of(v[i]->name ? v[i]->name
                                           : egress   ? "istio-egressgateway"
                                                      : "istio-ingressgateway"));

                if (rc != CMD_OK)
                        return rc;
        }
        if (made && !in->dry_run)
                printf("✔ %s gateways installed\n", egress ? "Egress" : "Ingress");
        return CMD_OK;
}

static bool confirmed(struct install *in, bool yes)
{
        char line[16] = "";
        const IstioOp__Components *c = in->op.spec->components;

        if (yes || in->dry_run || !isatty(STDIN_FILENO))
                return true;
        printf("This will install the Istio-compatible control plane of Postern " POSTERN_VERSION ", profile \"" STR_FMT
               "\" (Core, Istiod%s%s), into the cluster. Proceed? (y/N) ",
               STR_ARG(in->op.profile), c && c->n_ingress_gateways ? ", Ingress gateways" : "",
               c && c->n_egress_gateways ? ", Egress gateways" : "");
        fflush(stdout);
        if (!fgets(line, sizeof(line), stdin) || (line[0] != 'y' && line[0] != 'Y')) {
                puts("Cancelled.");
                return false;
        }
        return true;
}

static int install_all(struct install *in)
{
        const IstioOp__Components *c = in->op.spec->components;
        bool core = !str_eqc(in->op.profile, "empty");
        int rc = install_base(in);

        if (rc != CMD_OK)
                return rc;
        if (!in->dry_run)
                puts("✔ Istio core installed");
        if (core && !(c && c->pilot && c->pilot->has_enabled && !c->pilot->enabled)) {
                if ((rc = install_istiod(in)) != CMD_OK ||
                    (!in->dry_run && (rc = wait_ready(in, STR("istio-system"), STR("istiod"))) != CMD_OK))
                        return rc;
                if (!in->dry_run)
                        puts("✔ Istiod installed");
        }
        if (c && (rc = each_gateway(in, c->ingress_gateways, c->n_ingress_gateways, false)) != CMD_OK)
                return rc;
        return c ? each_gateway(in, c->egress_gateways, c->n_egress_gateways, true) : CMD_OK;
}

static int run_install(struct cmd_args *args)
{
        struct install in = { .timeout_s = 60, .dry_run = cmd_flag(args, "dry-run") };
        const char *sets[CMD_MAX_VALUES];
        struct operator_input op = { .file = str_of(cmd_value(args, "filename", "")), .sets = sets };
        int rc = CMD_FAILED;

        if (!cmd_number(args, "readiness-timeout", 1, 3600, &in.timeout_s))
                return CMD_USAGE;
        for (const char *s; (s = cmd_nth(args, "set", (unsigned)op.nsets));)
                sets[op.nsets++] = s;
        arena_init(&in.a, 0);
        diags_init(&in.d);
        setvbuf(stdout, NULL, _IOLBF, 0);
        if (!operator_load(&op, &in.a, &in.op, &in.d)) {
                fail(&in, "the installation options are not right; nothing was changed");
                goto out;
        }
        in.k = kubesync_new(str_of(cmd_value(args, "kubeconfig", "")), str_of(cmd_value(args, "context", "")), &in.d);
        if (!in.k) {
                fail(&in, "no cluster: start one with \"postern up\" (kind create cluster), or name one by --context or --kubeconfig");
                goto out;
        }
        if (!confirmed(&in, cmd_flag(args, "skip-confirmation")))
                goto out;
        rc = install_all(&in);
        if (rc != CMD_OK)
                goto out;
        if (in.dry_run)
                printf("dry run: %u to create, %u to change, %u as they are; nothing was changed\n", in.created, in.changed, in.unchanged);
        else if (!in.created && !in.changed)
                puts("✔ Installation complete: everything was as asked already");
        else
                puts("✔ Installation complete");
out:
        kubesync_free(in.k);
        diags_fini(&in.d);
        arena_fini(&in.a);
        return rc;
}

static const struct cmd_opt opts[] = {
        { "set", 's', "PATH=VALUE",
          "set one value of the IstioOperator specification, as components.egressGateways[0].enabled=true; may be repeated", true },
        { "filename", 'f', "FILE", "read an IstioOperator from a YAML file; --set wins over it", false },
        { "skip-confirmation", 'y', NULL, "do not ask (it asks only on a terminal)", false },
        { "dry-run", 0, NULL, "say what would be made or changed, and change nothing", false },
        { "readiness-timeout", 0, "SECONDS", "how long to wait for the pods (60)", false },
        { "kubeconfig", 'c', "FILE", "the kubeconfig to use", false },
        { "context", 0, "NAME", "the context to use", false },
        { 0 },
};

static const char *const examples[] = {
        "postern install --set profile=minimal --set 'components.egressGateways[0].name=istio-egressgateway' --set "
        "'components.egressGateways[0].enabled=true'",
        "the control plane and an egress gateway",
        "postern install --set meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY",
        "change one value of the mesh configuration of what is installed",
        NULL,
};

const struct cmd cmd_install = {
        .name = "install",
        .summary = "install the control plane and gateways into the cluster",
        .operands = "",
        .description = "Installs the control plane (Deployment istiod), the mesh configuration (ConfigMap istio) and gateways into the "
                       "namespace istio-system of the "
                       "current cluster, and waits until they are ready. It takes istioctl install's options.\n\nRun again, it changes "
                       "what the given values say and "
                       "nothing else. A gateway is removed by setting its enabled to false. An unknown path is an error that names the "
                       "nearest known one.",
        .opts = opts,
        .examples = examples,
        .run = run_install,
        .max_operands = 0,
};
