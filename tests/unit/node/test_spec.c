/* From a PodSpec to a process: quantities, variables, rights, and what is refused with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "node/quantity.h"
#include "node/spec.h"

#include <stdlib.h>

static void test_quantity(void **state)
{
        static const struct {
                const char *text;
                bool ok;
                int64_t milli;
        } t[] = {
                { "1", true, 1000 },
                { "250m", true, 250 },
                { "1.5", true, 1500 },
                { "0.1", true, 100 },
                { ".5", true, 500 },
                { "2e3", true, 2000000 },
                { "1E2", true, 100000 },
                { "1k", true, 1000000 },
                { "128Mi", true, 134217728000 },
                { "1Gi", true, 1073741824000 },
                { "1n", true, 1 }, /* rounded up */
                { "1001u", true, 2 },
                { "-1", true, -1000 },
                { "9E", true, INT64_MAX }, /* clamped */
                { "99999999999999999999999999999999", false, 0 },
                { "", false, 0 },
                { "Mi", false, 0 },
                { "1Mo", false, 0 },
                { "1 Mi", false, 0 },
                { "1e99", false, 0 },
                { "1.2.3", false, 0 },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                int64_t v = 0;
                if (quantity_parse(str_of(t[i].text), &v) != t[i].ok)
                        fail_msg("\"%s\": wrongly %s", t[i].text, t[i].ok ? "refused" : "taken");
                if (t[i].ok && v != t[i].milli)
                        fail_msg("\"%s\": %lld, not %lld", t[i].text, (long long)v, (long long)t[i].milli);
        }
}

static void test_expand(void **state)
{
        static const char *const vars[] = { "A=1", "AB=two", "EMPTY=", "P=$(A)" };
        static const char *const t[][2] = {
                { "plain", "plain" },     { "$(A)", "1" },     { "x$(A)y$(AB)z", "x1ytwoz" },
                { "$(NONE)", "$(NONE)" }, { "$$(A)", "$(A)" }, { "$", "$" },
                { "$(", "$(" },           { "$(A", "$(A" },    { "$(EMPTY)|", "|" },
                { "$(P)", "$(A)" },       { "$$$$", "$$" },    { "$()", "$()" },
        };
        struct arena a;

        (void)state;
        arena_init(&a, 0);
        for (size_t i = 0; i < ARRAY_LEN(t); i++)
                assert_string_equal(spec_expand(str_of(t[i][0]), vars, ARRAY_LEN(vars), &a).p, t[i][1]);
        arena_fini(&a);
}

static void test_base64(void **state)
{
        static const struct {
                const char *text, *want; /* want NULL: refused */
        } t[] = { { "", "" }, { "aGk=", "hi" }, { "aGkh", "hi!" }, { "aA==", "h" }, { "a*k=", NULL }, { "a", NULL }, { "a GI=", NULL } };

        (void)state;
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct buf b = BUF_INIT;
                bool ok = spec_base64(str_of(t[i].text), &b);
                assert_int_equal(ok, t[i].want != NULL);
                if (ok)
                        assert_string_equal(buf_z(&b), t[i].want);
                buf_fini(&b);
        }
}

static void test_capability(void **state)
{
        bool refused;

        (void)state;
        assert_string_equal(oci_capability(STR("NET_ADMIN"), &refused), "CAP_NET_ADMIN");
        assert_string_equal(oci_capability(STR("CAP_NET_RAW"), &refused), "CAP_NET_RAW");
        assert_null(oci_capability(STR("SYS_ADMIN"), &refused));
        assert_true(refused);
        assert_null(oci_capability(STR("ALL"), &refused));
        assert_true(refused);
        assert_null(oci_capability(STR("NET_ADMON"), &refused));
        assert_false(refused);
}

/* ---- whole containers ---- */

struct world {
        struct arena a;
        struct pb_node *configmap, *secret;
};

static struct pb_node *json(struct arena *a, const char *text)
{
        struct pb_node *n = NULL;
        struct diags d;

        diags_init(&d);
        assert_true(pb_parse_json(str_of(text), STR("test"), a, &n, &d));
        diags_fini(&d);
        return n;
}

static const struct pb_node *find_object(void *arg, const char *kind, struct str name)
{
        struct world *w = arg;

        if (strcmp(kind, "ConfigMap") == 0 && str_eqc(name, "settings"))
                return w->configmap;
        return strcmp(kind, "Secret") == 0 && str_eqc(name, "keys") ? w->secret : NULL;
}

static void services(void *arg, void (*add)(void *out, struct str name, struct str value), void *out)
{
        (void)arg;
        add(out, STR("KUBERNETES_SERVICE_HOST"), STR("10.96.0.1"));
}

static void world_init(struct world *w, struct spec_env *env)
{
        arena_init(&w->a, 0);
        w->configmap = json(&w->a, "{\"data\":{\"MODE\":\"fast\",\"level\":\"7\"}}");
        w->secret = json(&w->a, "{\"data\":{\"password\":\"aHVudGVyMg==\"}}");
        *env = (struct spec_env){ .arg = w,
                                  .object = find_object,
                                  .services = services,
                                  .node_name = STR("n1"),
                                  .host_ip = STR("10.244.0.1"),
                                  .pod_ip = STR("10.244.0.9"),
                                  .node_cpu_milli = 2000,
                                  .node_memory_bytes = 1 << 30 };
}

static const char *variable(const struct oci_container *c, const char *name)
{
        size_t n = strlen(name);

        for (size_t i = 0; i < c->nenv; i++)
                if (strncmp(c->env[i], name, n) == 0 && c->env[i][n] == '=')
                        return c->env[i] + n + 1;
        return NULL;
}

static void test_container(void **state)
{
        struct oci_container c = { 0 };
        struct spec_error e = { 0 };
        struct spec_env env;
        struct world w;

        (void)state;
        world_init(&w, &env);
        struct pb_node *pod = json(
                &w.a, "{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\",\"uid\":\"u1\",\"labels\":{\"app\":\"web\",\"a.b/c\":\"d\"}},"
                      "\"spec\":{\"nodeName\":\"n1\",\"serviceAccountName\":\"sa\",\"securityContext\":{\"runAsUser\":5,\"fsGroup\":77,"
                      "\"supplementalGroups\":[9]},"
                      "\"containers\":[{\"name\":\"c\",\"image\":\"x\",\"command\":[\"/bin/"
                      "echo\",\"$(GREETING)\"],\"args\":[\"$(MODE)\",\"$$(MODE)\"],"
                      "\"workingDir\":\"/"
                      "srv\",\"envFrom\":[{\"configMapRef\":{\"name\":\"settings\"}},{\"prefix\":\"P_\",\"configMapRef\":{\"name\":"
                      "\"settings\"}},"
                      "{\"secretRef\":{\"name\":\"absent\",\"optional\":true}}],"
                      "\"env\":[{\"name\":\"WHO\",\"value\":\"you\"},{\"name\":\"GREETING\",\"value\":\"hi $(WHO)\"},"
                      "{\"name\":\"IP\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"status.podIP\"}}},"
                      "{\"name\":\"LABEL\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.labels['a.b/c']\"}}},"
                      "{\"name\":\"PASSWORD\",\"valueFrom\":{\"secretKeyRef\":{\"name\":\"keys\",\"key\":\"password\"}}},"
                      "{\"name\":\"CPUS\",\"valueFrom\":{\"resourceFieldRef\":{\"resource\":\"limits.cpu\"}}},"
                      "{\"name\":\"MEM\",\"valueFrom\":{\"resourceFieldRef\":{\"resource\":\"limits.memory\",\"divisor\":\"1Mi\"}}}],"
                      "\"resources\":{\"limits\":{\"cpu\":\"1500m\",\"memory\":\"64Mi\"},\"requests\":{\"cpu\":\"500m\"}},"
                      "\"securityContext\":{\"runAsUser\":6,\"readOnlyRootFilesystem\":true,\"capabilities\":{\"add\":[\"NET_ADMIN\"],"
                      "\"drop\":[\"ALL\"]}}}]}}");
        if (!spec_container(pod, pb_get_path(pod, "spec.containers")->v[0], &env, &w.a, &c, &e))
                fail_msg("%s", buf_z(&e.text));
        assert_int_equal(c.nargs, 4);
        assert_string_equal(c.args[1], "hi you");
        assert_string_equal(c.args[2], "fast");
        assert_string_equal(c.args[3], "$(MODE)");
        assert_string_equal(variable(&c, "P_level"), "7");
        assert_string_equal(variable(&c, "IP"), "10.244.0.9");
        assert_string_equal(variable(&c, "LABEL"), "d");
        assert_string_equal(variable(&c, "PASSWORD"), "hunter2");
        assert_string_equal(variable(&c, "CPUS"), "2");
        assert_string_equal(variable(&c, "MEM"), "64");
        assert_string_equal(variable(&c, "HOSTNAME"), "web");
        assert_string_equal(variable(&c, "KUBERNETES_SERVICE_HOST"), "10.96.0.1");
        assert_int_equal(c.uid, 6);
        assert_int_equal(c.ngroups, 2);
        assert_int_equal(c.ncaps, 1);
        assert_true(c.read_only_root);
        assert_false(c.new_privileges);
        assert_int_equal(c.memory_bytes, 64 << 20);
        assert_int_equal(c.cpu_quota_us, 150000);
        assert_int_equal(c.cpu_shares, 512);
        assert_string_equal(c.cwd, "/srv");
        arena_fini(&w.a);
}

static void test_refusals(void **state)
{
        static const struct {
                const char *container, *says;
        } t[] = {
                { "{\"name\":\"c\",\"image\":\"nginx\"}", "set command" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"securityContext\":{\"privileged\":true}}", "privileged is not offered" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"securityContext\":{\"capabilities\":{\"add\":[\"SYS_ADMIN\"]}}}",
                  "reaches beyond the pod" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"securityContext\":{\"capabilities\":{\"add\":[\"FLY\"]}}}",
                  "is not a capability" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"securityContext\":{\"runAsNonRoot\":true}}", "set securityContext.runAsUser" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"env\":[{\"name\":\"V\",\"valueFrom\":{\"configMapKeyRef\":{\"name\":\"no\","
                  "\"key\":\"k\"}}}]}",
                  "configmap \"no\" not found" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"env\":[{\"name\":\"V\",\"valueFrom\":{\"secretKeyRef\":{\"name\":\"keys\",\"key\":"
                  "\"k\"}}}]}",
                  "couldn't find key k in Secret keys" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"env\":[{\"name\":\"V\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"spec."
                  "volumes\"}}}]}",
                  "fieldPath \"spec.volumes\" is not supported" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"env\":[{\"name\":\"A=B\",\"value\":\"\"}]}", "cannot name a variable" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"resources\":{\"limits\":{\"memory\":\"lots\"}}}", "is not a quantity" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"resources\":{\"limits\":{\"memory\":\"1\"}}}", "at least 6Mi" },
                { "{\"name\":\"c\",\"command\":[\"x\"],\"workingDir\":\"srv\"}", "not an absolute path" },
        };
        struct spec_env env;
        struct world w;

        (void)state;
        world_init(&w, &env);
        struct pb_node *pod = json(&w.a, "{\"metadata\":{\"name\":\"p\",\"namespace\":\"n\"},\"spec\":{}}");
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct oci_container c = { 0 };
                struct spec_error e = { 0 };
                assert_false(spec_container(pod, json(&w.a, t[i].container), &env, &w.a, &c, &e));
                assert_string_equal(e.reason, "CreateContainerConfigError");
                if (!strstr(buf_z(&e.text), t[i].says))
                        fail_msg("%s\nsays: %s", t[i].container, buf_z(&e.text));
                buf_fini(&e.text);
        }
        arena_fini(&w.a);
}

static void test_unsupported(void **state)
{
        static const struct {
                const char *pod, *says; /* says NULL: fine */
        } t[] = {
                { "{\"spec\":{\"containers\":[{\"name\":\"c\"}]}}", NULL },
                { "{\"spec\":{\"hostNetwork\":true}}", "spec.hostNetwork" },
                { "{\"spec\":{\"hostPID\":true}}", "spec.hostPID" },
                { "{\"spec\":{\"containers\":[{\"livenessProbe\":{\"grpc\":{\"port\":1}}}]}}", "spec.containers[0].livenessProbe.grpc" },
        };
        struct arena a;

        (void)state;
        arena_init(&a, 0);
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct buf why = BUF_INIT;
                assert_int_equal(spec_supported(json(&a, t[i].pod), &why), t[i].says == NULL);
                if (t[i].says)
                        assert_non_null(strstr(buf_z(&why), t[i].says));
                buf_fini(&why);
        }
        arena_fini(&a);
}

/* The configuration must be JSON whatever the strings hold. */
static void test_config(void **state)
{
        static const char *const args[] = { "sh", "-c", "echo \"a\\b\"\n\x01 \xff" }, *const env[] = { "Q=\"" },
                                 *const caps[] = { "CAP_NET_RAW" };
        static const struct oci_mount mounts[] = { { "/a b", "/x\"y", true } };
        struct oci_container c = { .rootfs = "/r",
                                   .hostname = "h",
                                   .netns_path = "/run/netns/x",
                                   .cgroup = "/postern/a",
                                   .args = args,
                                   .nargs = 3,
                                   .env = env,
                                   .nenv = 1,
                                   .cwd = "/",
                                   .uid = 1000,
                                   .caps = caps,
                                   .ncaps = 1,
                                   .mounts = mounts,
                                   .nmounts = 1,
                                   .memory_bytes = 1 << 26,
                                   .cpu_quota_us = 50000 };
        struct buf b = BUF_INIT;
        struct pb_node *root = NULL;
        struct arena a;
        struct diags d;

        (void)state;
        arena_init(&a, 0);
        diags_init(&d);
        oci_config(&c, &b);
        assert_true(pb_parse_json(buf_view(&b), STR("config.json"), &a, &root, &d));
        assert_true(str_eqc(spec_str(root, "linux.resources.cpu.quota"), "50000"));
        assert_int_equal(spec_list(root, "process.capabilities.ambient")->n, 1);
        assert_true(spec_bool(root, "process.noNewPrivileges", false));
        assert_true(str_eqc(spec_str(spec_list(root, "mounts")->v[7], "source"), "/x\"y"));
        diags_fini(&d);
        arena_fini(&a);
        buf_fini(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_quantity),    cmocka_unit_test(test_expand),    cmocka_unit_test(test_base64),
                cmocka_unit_test(test_capability),  cmocka_unit_test(test_container), cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_unsupported), cmocka_unit_test(test_config),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
