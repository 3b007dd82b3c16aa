/* Whole requests, without sockets: what kubectl would be told. */
#include "kubetest.h"

#include "base/mem.h"

#define NS "{\"metadata\":{\"name\":\"n\"}}"
#define POD(extra)                                                                                                                     \
        "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"p\",\"labels\":{\"app\":\"p\"}},\"spec\":{\"containers\":[{" \
        "\"name\":\"c\",\"image\":\"i\"" extra "}]}}"
#define PODS "/api/v1/namespaces/n/pods"

static int setup(void **state)
{
        struct world *w = world_new();

        *state = w;
        return ask(w, "POST", "/api/v1/namespaces", NS).status == 201 ? 0 : -1;
}

static int teardown(void **state)
{
        world_free(*state);
        return 0;
}

static void life(void **state)
{
        struct world *w = *state;
        struct reply r = ask(w, "POST", PODS, POD(""));

        assert_int_equal(r.status, 201);
        assert_string_equal(at(w, r, "metadata.namespace"), "n");
        assert_string_equal(at(w, r, "spec.restartPolicy"), "Always");
        assert_string_equal(at(w, r, "status.phase"), "Pending");
        assert_true(strlen(at(w, r, "metadata.uid")) == 36);
        assert_int_equal(ask(w, "POST", PODS, POD("")).status, 409);
        r = ask(w, "GET", PODS "/p", NULL);
        assert_int_equal(r.status, 200);
        assert_string_equal(at(w, r, "kind"), "Pod");
        r = ask(w, "GET", PODS "?labelSelector=app%3Dp&fieldSelector=status.phase%3DPending", NULL);
        assert_int_equal(pb_get(r.node, "items")->n, 1);
        r = ask(w, "GET", PODS "?labelSelector=app%3Dq", NULL);
        assert_int_equal(pb_get(r.node, "items")->n, 0);
        r = ask_as(w, "PATCH", PODS "/p", "application/strategic-merge-patch+json", "",
                   "{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"j\"}]}}");
        assert_int_equal(r.status, 200);
        assert_int_equal(ask(w, "DELETE", PODS "/p", NULL).status, 200);
        r = ask(w, "GET", PODS "/p", NULL);
        assert_int_equal(r.status, 404);
        assert_string_equal(at(w, r, "message"), "pods \"p\" not found");
        assert_string_equal(at(w, r, "reason"), "NotFound");
        assert_string_equal(at(w, r, "details.name"), "p");
}

/* Requests that must be refused, and the words. */
static void refused(void **state)
{
        static const struct {
                const char *method, *path, *type, *body;
                int status;
                const char *says;
        } t[] = {
                { "POST", PODS, "application/json", "{", 400, "JSON" },
                { "POST", PODS, "application/json", "[]", 400, "object" },
                { "POST", PODS, "application/yaml", "a: b\n---\nc: d\n", 400, "one document" },
                { "POST", PODS, "text/plain", POD(""), 415, "unknown format" },
                { "POST", PODS, "application/json", "{\"apiVersion\":\"v2\",\"kind\":\"Pod\"}", 400, "API version" },
                { "POST", PODS, "application/json", "{\"apiVersion\":\"v1\",\"kind\":\"Node\"}", 400, "kind" },
                { "POST", PODS, "application/json", "{\"metadata\":{\"name\":\"p\",\"namespace\":\"other\"}}", 400, "namespace" },
                { "POST", "/api/v1/namespaces/none/pods", "application/json", POD(""), 404, "namespaces \\\"none\\\" not found" },
                { "POST", PODS "?fieldValidation=Strict", "application/json", POD(",\"imag\":1"), 400,
                  "strict decoding error: unknown field \\\"spec.containers[0].imag\\\"" },
                { "POST", PODS "?fieldValidation=Frob", "application/json", POD(""), 422, "fieldValidation" },
                { "POST", PODS, "application/json", POD(",\"tty\":\"yes\""), 400, "cannot be handled as a Pod: spec.containers[0].tty" },
                { "POST", PODS, "application/json", "{\"metadata\":{\"name\":\"P_\"},\"spec\":{}}", 422,
                  "spec.containers: Required value" },
                { "POST", PODS, "application/json", "{\"metadata\":{\"name\":\"P_\"},\"spec\":{}}", 422,
                  "metadata.name: Invalid value: \\\"P_\\\"" },
                { "POST", PODS, "application/json", POD(",\"ports\":[{\"containerPort\":70000}]"), 422,
                  "must be between 1 and 65535, inclusive" },
                { "POST", PODS, "application/json", POD(",\"volumeMounts\":[{\"name\":\"v\",\"mountPath\":\"/x\"}]"), 422,
                  "volumeMounts[0].name: Not found" },
                { "POST", PODS, "application/json",
                  "{\"metadata\":{\"name\":\"p\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}],\"volumes\":[{\"name\":\"v\","
                  "\"hostPath\":{\"path\":\"/\"}}]}}",
                  422, "spec.volumes[0].hostPath: Forbidden" },
                { "POST", PODS, "application/json",
                  "{\"metadata\":{\"name\":\"p\"},\"spec\":{\"serviceAccountName\":\"no\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]"
                  "}}",
                  403, "serviceaccount" },
                { "POST", "/api/v1/namespaces/n/services", "application/json",
                  "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"ports\":[{\"port\":0}]}}", 422, "Service \\\"s\\\" is invalid: " },
                { "POST", "/api/v1/namespaces/n/services", "application/json",
                  "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"ports\":[{\"port\":80}],\"type\":\"X\"}}", 422,
                  "Unsupported value: \\\"X\\\"" },
                { "POST", "/api/v1/namespaces/n/services", "application/json",
                  "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"ports\":[{\"port\":80}],\"clusterIP\":\"1.2.3.4\"}}", 422,
                  "not in the valid range" },
                { "POST", "/apis/apps/v1/namespaces/n/deployments", "application/json",
                  "{\"metadata\":{\"name\":\"d\"},\"spec\":{\"selector\":{\"matchLabels\":{\"a\":\"b\"}},\"template\":{\"spec\":{"
                  "\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}",
                  422, "`selector` does not match template `labels`" },
                { "POST", "/api/v1/namespaces/n/configmaps", "application/json", "{\"metadata\":{\"name\":\"c\"},\"data\":{\"a b\":\"\"}}",
                  422, "valid config key" },
                { "POST", "/apis/networking.istio.io/v1/namespaces/n/serviceentries", "application/json",
                  "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"hosts\":[\"a\"],\"ports\":[{\"number\":\"x\"}]}}", 422,
                  "spec.ports[0].number: Invalid value" },
                { "GET", PODS "?labelSelector=a%3D%3D%3D", "", NULL, 400, "unable to parse requirement" },
                { "GET", PODS "?fieldSelector=spec.foo%3D1", "", NULL, 400, "field label not supported: spec.foo" },
                { "GET", PODS "?limit=x", "", NULL, 400, "limit" },
                { "GET", PODS "?continue=frob", "", NULL, 400, "continue" },
                { "GET", PODS "/..", "", NULL, 400, "path" },
                { "GET", "/api/v1/frobs", "", NULL, 404, "could not find the requested resource" },
                { "GET", "/apis/x/v1", "", NULL, 404, "could not find" },
                { "POST", "/api/v1/pods", "application/json", POD(""), 405, "method" },
                { "PUT", PODS, "application/json", POD(""), 405, "method" },
                { "PATCH", PODS "/p", "application/apply-patch+yaml", "{}", 415, "server-side apply is not supported" },
                { "PATCH", PODS "/nosuch", "application/merge-patch+json", "{}", 404, "not found" },
                { "DELETE", "/api/v1/namespaces/default", "", NULL, 404, "not found" },
                { "POST", PODS "?dryRun=Some", "application/json", POD(""), 422, "dryRun" },
        };
        struct world *w = *state;

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct reply r = ask_as(w, t[i].method, t[i].path, t[i].type, "", t[i].body);

                if (r.status != t[i].status || !strstr(r.text, t[i].says))
                        fail_msg("%s %s %s: %d %s", t[i].method, t[i].path, t[i].body ? t[i].body : "", r.status, r.text);
                if (!r.node || strcmp(at(w, r, "kind"), "Status") || strcmp(at(w, r, "status"), "Failure"))
                        fail_msg("%s %s: not a Status: %s", t[i].method, t[i].path, r.text);
        }
        assert_int_equal(ask(w, "GET", PODS "/p", NULL).status, 404);
}

static void unknown_fields(void **state)
{
        struct world *w = *state;
        struct reply r = ask(w, "POST", PODS, POD(",\"imag\":1"));

        assert_int_equal(r.status, 201); /* as Kubernetes: warned of, and dropped */
        assert_non_null(strstr(r.warnings, "unknown field \"spec.containers[0].imag\""));
        assert_null(strstr(r.text, "\"imag\""));
        r = ask(w, "POST", "/apis/networking.istio.io/v1beta1/namespaces/n/gateways",
                "{\"metadata\":{\"name\":\"g\"},\"spec\":{\"selectr\":{}}}");
        assert_int_equal(r.status, 201);
        assert_non_null(strstr(r.warnings, "spec.selectr"));
        assert_string_equal(at(w, r, "apiVersion"), "networking.istio.io/v1beta1");
        r = ask(w, "GET", "/apis/networking.istio.io/v1/namespaces/n/gateways/g", NULL);
        assert_string_equal(at(w, r, "apiVersion"), "networking.istio.io/v1");
}

static void concurrency(void **state)
{
        struct world *w = *state;
        char body[256];
        struct reply r = ask(w, "POST", "/api/v1/namespaces/n/configmaps", "{\"metadata\":{\"name\":\"c\"},\"data\":{\"a\":\"1\"}}");

        snprintf(body, sizeof(body), "{\"metadata\":{\"name\":\"c\",\"resourceVersion\":\"%s\"},\"data\":{\"a\":\"2\"}}",
                 at(w, r, "metadata.resourceVersion"));
        assert_int_equal(ask(w, "PUT", "/api/v1/namespaces/n/configmaps/c", body).status, 200);
        r = ask(w, "PUT", "/api/v1/namespaces/n/configmaps/c", body);
        assert_int_equal(r.status, 409);
        assert_string_equal(at(w, r, "reason"), "Conflict");
        /* nothing changed: no new version */
        r = ask(w, "GET", "/api/v1/namespaces/n/configmaps/c", NULL);
        const char *rv = at(w, r, "metadata.resourceVersion");
        r = ask_as(w, "PATCH", "/api/v1/namespaces/n/configmaps/c", "application/merge-patch+json", "", "{\"data\":{\"a\":\"2\"}}");
        assert_string_equal(at(w, r, "metadata.resourceVersion"), rv);
        r = ask(w, "POST", "/api/v1/namespaces/n/configmaps?dryRun=All", "{\"metadata\":{\"name\":\"dry\"}}");
        assert_int_equal(r.status, 201);
        assert_int_equal(ask(w, "GET", "/api/v1/namespaces/n/configmaps/dry", NULL).status, 404);
        r = ask(w, "DELETE", "/api/v1/namespaces/n/configmaps/c", "{\"preconditions\":{\"uid\":\"other\"}}");
        assert_int_equal(r.status, 409);
}

static void immutable(void **state)
{
        struct world *w = *state;

        ask(w, "POST", "/api/v1/namespaces/n/services", "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"ports\":[{\"port\":80}]}}");
        struct reply r = ask_as(w, "PATCH", "/api/v1/namespaces/n/services/s", "application/merge-patch+json", "",
                                "{\"spec\":{\"clusterIP\":\"10.96.9.9\"}}");
        assert_int_equal(r.status, 422);
        assert_non_null(strstr(r.text, "may not change once set"));
        assert_int_equal(ask(w, "POST", PODS, POD("")).status, 201);
        r = ask_as(w, "PATCH", PODS "/p", "application/strategic-merge-patch+json", "",
                   "{\"spec\":{\"containers\":[{\"name\":\"c\",\"command\":[\"x\"]}]}}");
        assert_int_equal(r.status, 422);
        assert_non_null(strstr(r.text, "pod updates may not change fields other than"));
}

static void pages(void **state)
{
        struct world *w = *state;
        struct reply r;
        size_t seen = 0;
        char path[256] = "/api/v1/namespaces/n/configmaps?limit=3";

        for (int i = 0; i < 8; i++)
                ask(w, "POST", "/api/v1/namespaces/n/configmaps", arena_printf(&w->a, "{\"metadata\":{\"name\":\"c%d\"}}", i).p);
        for (int page = 0; page < 4; page++) {
                r = ask(w, "GET", path, NULL);
                seen += pb_get(r.node, "items")->n;
                const char *more = at(w, r, "metadata.continue");
                if (!*more)
                        break;
                snprintf(path, sizeof(path), "/api/v1/namespaces/n/configmaps?limit=3&continue=%s", more);
        }
        assert_int_equal(seen, 8);
}

static void tables(void **state)
{
        static const char accept[] =
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        struct world *w = *state;

        ask(w, "POST", PODS, POD(""));
        struct reply r = ask_as(w, "GET", PODS, "", accept, NULL);
        assert_string_equal(at(w, r, "kind"), "Table");
        assert_string_equal(text_of(&w->a, pb_get(pb_get(r.node, "rows")->v[0], "cells")),
                            "[\"p\",\"0/1\",\"Pending\",\"0\",\"0s\",\"<none>\",\"<none>\",\"<none>\",\"<none>\"]");
        ask(w, "POST", "/apis/networking.istio.io/v1/namespaces/n/serviceentries",
            "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"hosts\":[\"a.example\"],\"resolution\":\"DNS\",\"ports\":[{\"number\":80,\"name\":"
            "\"http\"}]}}");
        r = ask_as(w, "GET", "/apis/networking.istio.io/v1/serviceentries", "", accept, NULL);
        assert_string_equal(text_of(&w->a, pb_get(pb_get(r.node, "rows")->v[0], "cells")),
                            "[\"s\",\"[\\\"a.example\\\"]\",\"\",\"DNS\",\"0s\"]");
        r = ask_as(w, "GET", PODS, "", "application/vnd.kubernetes.protobuf", NULL);
        assert_int_equal(r.status, 406);
}

static void documents(void **state)
{
        struct world *w = *state;
        struct reply r = ask(w, "GET", "/openapi/v2", NULL);

        assert_int_equal(r.status, 200);
        assert_non_null(pb_get(pb_get(r.node, "definitions"), "io.k8s.api.core.v1.Pod"));
        const struct pb_node *spec = pb_get(pb_get(pb_get(pb_get(r.node, "definitions"), "io.k8s.api.core.v1.PodSpec"), "properties"),
                                            "containers");
        assert_string_equal(arena_cstr(&w->a, pb_get_str(spec, "x-kubernetes-patch-merge-key", STR(""))), "name");
        r = ask(w, "GET", "/openapi/v3", NULL);
        assert_non_null(pb_get(pb_get(r.node, "paths"), "apis/apps/v1"));
        assert_int_equal(ask(w, "GET", "/openapi/v3/apis/apps/v1?hash=X", NULL).status, 200);
        assert_int_equal(ask(w, "GET", "/openapi/v3/apis/frob/v1", NULL).status, 404);
        r = ask_as(w, "GET", "/openapi/v2", "", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", NULL);
        assert_int_equal(r.status, 200);
        assert_int_equal(r.text[0], 0x0a); /* field 1, the "2.0" */
        r = ask_as(w, "GET", "/apis", "", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", NULL);
        assert_string_equal(at(w, r, "kind"), "APIGroupDiscoveryList");
        assert_string_equal(at(w, ask(w, "GET", "/api/v1", NULL), "kind"), "APIResourceList");
}

/* ---- controllers ---- */

static void settle(struct world *w, struct kube_controllers **c)
{
        if (!*c)
                *c = kube_controllers_new(NULL, &w->api);
        kube_controllers_settle(*c);
}

static void make_ready(struct world *w)
{
        struct kobj *const *v;
        size_t n = kube_store_range(w->store, kube_b.pods, STR("n"), &v);
        const char *names[64];

        for (size_t i = 0; i < n && i < 64; i++)
                names[i] = arena_cstr(&w->a, v[i]->name);
        for (size_t i = 0; i < n && i < 64; i++)
                ask_as(w, "PATCH", arena_printf(&w->a, PODS "/%s/status", names[i]).p, "application/merge-patch+json", "",
                       arena_printf(&w->a,
                                    "{\"status\":{\"phase\":\"Running\",\"podIP\":\"10.244.0.%zu\",\"conditions\":[{\"type\":\"Ready\","
                                    "\"status\":\"True\","
                                    "\"lastTransitionTime\":\"2020-01-01T00:00:00Z\"}]}}",
                                    i + 5)
                               .p);
}

#define NODE "{\"metadata\":{\"name\":\"node\"},\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}"
#define DEPLOYMENT                                                                                                                         \
        "{\"metadata\":{\"name\":\"d\"},\"spec\":{\"replicas\":3,\"selector\":{\"matchLabels\":{\"app\":\"d\"}},\"template\":{"            \
        "\"metadata\":{\"labels\":"                                                                                                        \
        "{\"app\":\"d\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\",\"ports\":[{\"name\":\"web\",\"containerPort\":8080}]" \
        "}]}}}}"

static void deployment(void **state)
{
        struct world *w = *state;
        struct kube_controllers *c = NULL;
        struct kobj *const *v;
        struct reply r;

        ask(w, "POST", "/api/v1/nodes", NODE);
        ask(w, "POST", "/api/v1/namespaces/n/services",
            "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"selector\":{\"app\":\"d\"},\"ports\":[{\"port\":80,\"targetPort\":\"web\"}]}}");
        assert_int_equal(ask(w, "POST", "/apis/apps/v1/namespaces/n/deployments", DEPLOYMENT).status, 201);
        settle(w, &c);
        assert_int_equal(kube_store_range(w->store, kube_b.pods, STR("n"), &v), 3);
        assert_true(str_eqc(pb_get_str(v[0]->node, "spec.nodeName", STR("")), "node"));
        make_ready(w);
        settle(w, &c);
        r = ask(w, "GET", "/apis/apps/v1/namespaces/n/deployments/d", NULL);
        assert_string_equal(at(w, r, "status.availableReplicas"), "3");
        assert_string_equal(at(w, r, "status.observedGeneration"), "1");
        r = ask(w, "GET", "/api/v1/namespaces/n/endpoints/s", NULL);
        assert_non_null(strstr(r.text, "\"port\":8080"));
        assert_int_equal(pb_get(pb_get(r.node, "subsets")->v[0], "addresses")->n, 3);

        /* a rolling update never has fewer than 3 - 25 % available, nor more than 3 + 25 % in all */
        ask_as(w, "PATCH", "/apis/apps/v1/namespaces/n/deployments/d", "application/strategic-merge-patch+json", "",
               "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"j\"}]}}}}");
        for (int step = 0; step < 10; step++) {
                settle(w, &c);
                size_t n = kube_store_range(w->store, kube_b.pods, STR("n"), &v), ready = 0, alive = 0;
                for (size_t i = 0; i < n; i++) {
                        bool going = pb_get_path(v[i]->node, "metadata.deletionTimestamp") != NULL;

                        alive += !going;
                        ready += !going && str_eqc(pb_get_str(v[i]->node, "status.phase", STR("")), "Running");
                }
                if (alive > 4 || ready < 3)
                        fail_msg("step %d: %zu pods, %zu ready", step, alive, ready);
                for (size_t i = n; i-- > 0;) /* the node lets go of those that are to end */
                        if (pb_get_path(v[i]->node, "metadata.deletionTimestamp")) {
                                ask(w, "DELETE", arena_printf(&w->a, PODS "/" STR_FMT "?gracePeriodSeconds=0", STR_ARG(v[i]->name)).p,
                                    NULL);
                                n = kube_store_range(w->store, kube_b.pods, STR("n"), &v);
                        }
                make_ready(w);
        }
        r = ask(w, "GET", "/apis/apps/v1/namespaces/n/deployments/d", NULL);
        assert_string_equal(at(w, r, "status.updatedReplicas"), "3");
        assert_string_equal(at(w, r, "status.replicas"), "3");
        assert_string_equal(
                arena_cstr(&w->a, pb_get(pb_get_path(r.node, "metadata.annotations"), "deployment.kubernetes.io/revision")->text), "2");

        /* its end takes everything with it */
        ask(w, "DELETE", "/apis/apps/v1/namespaces/n/deployments/d", NULL);
        settle(w, &c);
        assert_int_equal(kube_store_range(w->store, kube_b.replicasets, STR("n"), &v), 0);
        size_t n = kube_store_range(w->store, kube_b.pods, STR("n"), &v);
        for (size_t i = 0; i < n; i++)
                assert_non_null(pb_get_path(v[i]->node, "metadata.deletionTimestamp"));
        kube_controllers_free(c);
}

static void namespaces(void **state)
{
        struct world *w = *state;
        struct kube_controllers *c = NULL;

        settle(w, &c);
        assert_int_equal(ask(w, "GET", "/api/v1/namespaces/n/serviceaccounts/default", NULL).status, 200);
        ask(w, "POST", PODS, POD(""));
        struct reply r = ask(w, "DELETE", "/api/v1/namespaces/n", NULL);
        assert_string_equal(at(w, r, "status.phase"), "Terminating");
        r = ask(w, "POST", "/api/v1/namespaces/n/configmaps", "{\"metadata\":{\"name\":\"late\"}}");
        assert_int_equal(r.status, 403);
        assert_non_null(strstr(r.text, "being terminated"));
        settle(w, &c);
        assert_int_equal(ask(w, "GET", "/api/v1/namespaces/n", NULL).status, 404);
        kube_controllers_free(c);
}

static void graceful(void **state)
{
        struct world *w = *state;
        struct kube_controllers *c = NULL;

        ask(w, "POST", "/api/v1/nodes", NODE);
        ask(w, "POST", PODS, POD(""));
        settle(w, &c);
        struct reply r = ask(w, "DELETE", PODS "/p", NULL);
        assert_string_equal(at(w, r, "metadata.deletionGracePeriodSeconds"), "30");
        assert_int_equal(ask(w, "GET", PODS "/p", NULL).status, 200);
        ask_as(w, "PATCH", PODS "/p/status", "application/merge-patch+json", "", "{\"status\":{\"phase\":\"Failed\"}}");
        assert_int_equal(ask(w, "GET", PODS "/p", NULL).status, 200);
        assert_int_equal(ask(w, "DELETE", PODS "/p", "{\"gracePeriodSeconds\":0}").status, 200);
        assert_int_equal(ask(w, "GET", PODS "/p", NULL).status, 404);
        kube_controllers_free(c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(life, setup, teardown),
                cmocka_unit_test_setup_teardown(refused, setup, teardown),
                cmocka_unit_test_setup_teardown(unknown_fields, setup, teardown),
                cmocka_unit_test_setup_teardown(concurrency, setup, teardown),
                cmocka_unit_test_setup_teardown(immutable, setup, teardown),
                cmocka_unit_test_setup_teardown(pages, setup, teardown),
                cmocka_unit_test_setup_teardown(tables, setup, teardown),
                cmocka_unit_test_setup_teardown(documents, setup, teardown),
                cmocka_unit_test_setup_teardown(deployment, setup, teardown),
                cmocka_unit_test_setup_teardown(namespaces, setup, teardown),
                cmocka_unit_test_setup_teardown(graceful, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
