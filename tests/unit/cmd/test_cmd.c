/* Installation options, sidecar injection and the kubeconfig. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cmd/kubeconfig.h"
#include "cmd/operator.h"
#include "cmd/proxypod.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_set(void **state)
{
        const char *sets[] = { "profile=minimal",
                               "components.egressGateways[0].name=istio-egressgateway",
                               "components.egressGateways[0].enabled=true",
                               "meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY",
                               "meshConfig.accessLogFile=/dev/stdout",
                               "components.egressGateways[0].label.a\\.b=c" };
        struct operator_input in = { .sets = sets, .nsets = ARRAY_LEN(sets) };
        struct operator_spec out;
        struct arena a;
        struct diags d;

        (void)state;
        arena_init(&a, 0);
        diags_init(&d);
        assert_true(operator_load(&in, &a, &out, &d));
        assert_int_equal(out.spec->components->n_egress_gateways, 1);
        assert_string_equal(out.spec->components->egress_gateways[0]->name, "istio-egressgateway");
        assert_true(out.spec->components->egress_gateways[0]->enabled);
        assert_string_equal(out.spec->components->egress_gateways[0]->label[0]->key, "a.b");
        assert_true(str_eqc(pb_get_str(out.mesh_config, "outboundTrafficPolicy.mode", STR("")), "REGISTRY_ONLY"));
        diags_fini(&d);
        arena_fini(&a);
}

static void test_bad_set(void **state)
{
        static const struct {
                const char *set, *says;
        } t[] = {
                { "meshConfig.outboundTrafficPolcy.mode=REGISTRY_ONLY", "outboundTrafficPolicy" },
                { "components.egressGateway[0].enabled=true", "egressGateways" },
                { "profile=tiny", "minimal" },
                { "meshConfig.outboundTrafficPolicy.mode=REGISTRY", "REGISTRY_ONLY" },
                { "components.egressGateways[0].enabled=maybe", "enabled" },
                { "components.egressGateways[99999].enabled=true", "64" },
                { "x", "PATH=VALUE" },
                { "components.ztunnel.enabled=true", "ambient" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct operator_input in = { .sets = &t[i].set, .nsets = 1 };
                struct operator_spec out;
                struct arena a;
                struct diags d;
                struct buf b = BUF_INIT;

                arena_init(&a, 0);
                diags_init(&d);
                assert_false(operator_load(&in, &a, &out, &d));
                diags_format(&d, &b);
                if (!strstr(buf_z(&b), t[i].says))
                        fail_msg("%s: \"%s\" does not say \"%s\"", t[i].set, buf_z(&b), t[i].says);
                buf_fini(&b);
                diags_fini(&d);
                arena_fini(&a);
        }
}

static struct pb_node *json(const char *text, struct arena *a)
{
        struct pb_node *n;
        struct diags d;

        diags_init(&d);
        assert_true(pb_parse_json(str_of(text), STR(""), a, &n, &d));
        diags_fini(&d);
        return n;
}

static void test_inject_wanted(void **state)
{
        static const struct {
                const char *ns, *ns_labels, *pod;
                bool installed, want;
        } t[] = {
                { "curl", "{\"istio-injection\":\"enabled\"}", "{\"metadata\":{\"name\":\"p\"}}", true, true },
                { "curl", "{\"istio-injection\":\"enabled\"}", "{\"metadata\":{\"name\":\"p\"}}", false, false },
                { "curl", "{}", "{\"metadata\":{\"name\":\"p\"}}", true, false },
                { "curl", "{\"istio.io/rev\":\"default\"}", "{\"metadata\":{\"name\":\"p\"}}", true, true },
                { "curl", "{}", "{\"metadata\":{\"labels\":{\"sidecar.istio.io/inject\":\"true\"}}}", true, true },
                { "curl", "{\"istio-injection\":\"enabled\"}", "{\"metadata\":{\"labels\":{\"sidecar.istio.io/inject\":\"false\"}}}", true,
                  false },
                { "curl", "{\"istio-injection\":\"enabled\"}", "{\"metadata\":{\"annotations\":{\"sidecar.istio.io/inject\":\"false\"}}}",
                  true, false },
                { "curl", "{\"istio-injection\":\"disabled\"}", "{\"metadata\":{\"labels\":{\"sidecar.istio.io/inject\":\"true\"}}}", true,
                  false },
                { "kube-system", "{\"istio-injection\":\"enabled\"}", "{}", true, false },
                { "curl", "{\"istio-injection\":\"enabled\"}", "{\"spec\":{\"hostNetwork\":true}}", true, false },
                { "curl", "{\"istio-injection\":\"enabled\"}", "{\"metadata\":{\"annotations\":{\"sidecar.istio.io/status\":\"{}\"}}}",
                  true, false },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct arena a;

                arena_init(&a, 0);
                struct inject_input in = { .values = t[i].installed ? STR("{\"global\":{}}") : STR(""),
                                           .namespace_labels = json(t[i].ns_labels, &a) };

                if (inject_wanted(json(t[i].pod, &a), str_of(t[i].ns), &in) != t[i].want)
                        fail_msg("case %zu", i);
                arena_fini(&a);
        }
}

static void test_inject(void **state)
{
        struct arena a;
        struct diags d;
        struct inject_input in = { .values = STR("{\"global\":{\"proxy\":{\"logLevel\":\"info\"}}}"),
                                   .mesh = STR("defaultConfig:\n  concurrency: 1\n") };

        (void)state;
        arena_init(&a, 0);
        diags_init(&d);
        struct pb_node *pod = json("{\"metadata\":{\"name\":\"curl\",\"labels\":{\"app\":\"curl\",\"version\":\"v1\"}},"
                                   "\"spec\":{\"containers\":[{\"name\":\"curl\",\"ports\":[{\"containerPort\":80}]}]}}",
                                   &a);

        assert_true(inject_pod(pod, STR("curl"), &in, &a, &d));
        struct pb_node *c = pb_get_path(pod, "spec.containers");

        assert_int_equal(c->n, 2);
        assert_true(str_eqc(pb_get_str(c->v[0], "name", STR("")), "istio-proxy"));
        assert_true(str_eqc(pb_get_str(c->v[1], "name", STR("")), "curl"));
        assert_int_equal(pb_get_path(pod, "spec.volumes")->n, 2);
        struct pb_node *labels = pb_get_path(pod, "metadata.labels"), *env = pb_get(c->v[0], "env");

        assert_true(str_eqc(pb_get(labels, "service.istio.io/canonical-name")->text, "curl"));
        assert_true(str_eqc(pb_get(labels, "service.istio.io/canonical-revision")->text, "v1"));
        bool owner = false, config = false;

        for (size_t i = 0; i < env->n; i++) {
                struct str name = pb_get_str(env->v[i], "name", STR("")), value = pb_get_str(env->v[i], "value", STR(""));

                owner |= str_eqc(name, "ISTIO_META_OWNER") && str_eqc(value, "kubernetes://apis/v1/namespaces/curl/pods/curl");
                config |= str_eqc(name, "PROXY_CONFIG") && str_find(value, STR("concurrency")) >= 0;
        }
        assert_true(owner && config);
        assert_false(inject_wanted(pod, STR("curl"), &in));

        pod = json("{\"metadata\":{\"name\":\"p\",\"annotations\":{\"sidecar.istio.io/"
                   "logLevel\":\"loud\"}},\"spec\":{\"containers\":[{\"name\":\"x\"}]}}",
                   &a);
        assert_false(inject_pod(pod, STR("curl"), &in, &a, &d));
        assert_int_equal(d.errors, 1);
        pod = json("{\"metadata\":{\"name\":\"p\",\"annotations\":{\"proxy.istio.io/config\":\"concurency: "
                   "1\"}},\"spec\":{\"containers\":[{\"name\":\"x\"}]}}",
                   &a);
        assert_false(inject_pod(pod, STR("curl"), &in, &a, &d));
        diags_fini(&d);
        arena_fini(&a);
}

static char dir[] = "/tmp/postern-test-XXXXXX";

static char *read_all(const char *path)
{
        struct buf b = BUF_INIT;

        assert_int_equal(buf_read_file(&b, path, 1 << 20), 0);
        return buf_take(&b);
}

static void write_all(const char *path, const char *text)
{
        struct buf b = BUF_INIT;

        buf_cstr(&b, text);
        assert_int_equal(buf_write_file(&b, path, 0600), 0);
        buf_fini(&b);
}

static void test_kubeconfig(void **state)
{
        struct kubeconfig_entry e = { STR("postern-a"), STR("https://127.0.0.1:1"), STR("CA"), STR("CERT"), STR("KEY") };
        struct diags d;

        (void)state;
        assert_non_null(mkdtemp(dir));
        char *path = mem_printf("%s/sub/config", dir), *text;
        struct stat st;

        setenv("KUBECONFIG", path, 1);
        diags_init(&d);
        assert_true(kubeconfig_merge(str_of(path), &e, &d));
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        text = read_all(path);
        assert_non_null(strstr(text, "current-context: postern-a"));
        assert_non_null(strstr(text, "certificate-authority-data: Q0E="));
        free(text);

        /* what is there stays, whatever it is */
        write_all(path, "apiVersion: v1\nkind: Config\ncurrent-context: work\nextensions:\n- name: mine\n  extension: {a: [1, \"2\", no]}\n"
                        "contexts:\n- context: {cluster: work, user: me, namespace: \"yes\"}\n  name: work\n"
                        "clusters:\n- cluster: {server: 'https://work.example:6443'}\n  name: work\nusers:\n- name: me\n  user: {token: "
                        "\"0123\"}\n");
        assert_true(kubeconfig_merge(str_of(path), &e, &d));
        e.server = STR("https://127.0.0.1:2");
        assert_true(kubeconfig_merge(str_of(path), &e, &d));
        text = read_all(path);
        assert_non_null(strstr(text, "https://work.example:6443"));
        assert_non_null(strstr(text, "\"0123\""));
        assert_non_null(strstr(text, "\"yes\""));
        assert_non_null(strstr(text, "127.0.0.1:2"));
        assert_null(strstr(text, "127.0.0.1:1"));
        free(text);
        assert_true(kubeconfig_remove(STR("postern-a"), &d));
        text = read_all(path);
        assert_null(strstr(text, "postern-a"));
        assert_non_null(strstr(text, "https://work.example:6443"));
        free(text);

        /* what is no kubeconfig is left alone */
        write_all(path, "- a\n- list\n");
        assert_false(kubeconfig_merge(str_of(path), &e, &d));
        text = read_all(path);
        assert_string_equal(text, "- a\n- list\n");
        free(text);
        assert_true(d.errors > 0);
        unlink(path);
        char *sub = mem_printf("%s/sub", dir);

        rmdir(sub);
        rmdir(dir);
        free(sub);
        free(path);
        diags_fini(&d);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_set),    cmocka_unit_test(test_bad_set),    cmocka_unit_test(test_inject_wanted),
                cmocka_unit_test(test_inject), cmocka_unit_test(test_kubeconfig),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
