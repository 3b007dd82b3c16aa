/* What the cache promises: the same bytes every time, one changed object costs its own parts, endpoints touch nothing else, what proxies
 * share is made once, and what nobody uses is forgotten. */
#include "world.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void entry(struct world *w, unsigned i, unsigned target)
{
        char text[512];

        snprintf(text, sizeof(text),
                 "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e%u, namespace: default}\n"
                 "spec: {hosts: [h%u.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP, targetPort: %u}, "
                 "{number: 443, name: tls, protocol: TLS}]}\n",
                 i, i, target);
        world_apply(w, text);
}

static void assert_same(const struct translate_config *a, const struct translate_config *b)
{
        for (int t = 0; t < TRANSLATE_TYPES; t++) {
                assert_int_equal(a->of[t].n, b->of[t].n);
                assert_true(a->of[t].hash == b->of[t].hash);
                for (size_t i = 0; i < a->of[t].n; i++) {
                        assert_true(str_eq(a->of[t].v[i]->name, b->of[t].v[i]->name));
                        assert_true(str_eq(a->of[t].v[i]->bytes, b->of[t].v[i]->bytes));
                        assert_true(a->of[t].v[i]->hash == b->of[t].v[i]->hash);
                }
        }
}

static void test_same_input_same_bytes(void **state)
{
        struct world x, y;
        struct translate_config *a, *b;

        world_init(&x, false);
        world_init(&y, false);
        for (unsigned i = 0; i < 50; i++)
                entry(&x, i, 80);
        for (unsigned i = 50; i-- > 0;)
                entry(&y, i, 80); /* another order of arrival */
        a = world_build(&x, &x.sidecar);
        b = world_build(&y, &y.sidecar);
        assert_same(a, b);
        translate_config_unref(a);
        translate_config_unref(b);
        world_fini(&x);
        world_fini(&y);
}

static void test_a_change_costs_itself(void **state)
{
        struct world w, fresh;
        struct translator_stats before, after;
        struct translate_config *a, *b, *c;

        world_init(&w, false);
        for (unsigned i = 0; i < 200; i++)
                entry(&w, i, 80);
        a = world_build(&w, &w.sidecar);
        entry(&w, 77, 8080);
        translator_get_stats(w.translator, &before);
        b = world_build(&w, &w.sidecar);
        translator_get_stats(w.translator, &after);
        /* Two clusters, a virtual host, a filter chain, and the listener they are joined into; the route table's bytes are the same. */
        assert_in_range(after.parts_made - before.parts_made, 1, 6);
        assert_true(a->of[TRANSLATE_ENDPOINTS].hash == b->of[TRANSLATE_ENDPOINTS].hash);
        assert_true(a->of[TRANSLATE_ROUTES].hash == b->of[TRANSLATE_ROUTES].hash); /* the port behind a cluster is not in it */
        assert_true(a->of[TRANSLATE_CLUSTERS].hash != b->of[TRANSLATE_CLUSTERS].hash);
        world_init(&fresh, false);
        for (unsigned i = 0; i < 200; i++)
                entry(&fresh, i, i == 77 ? 8080 : 80);
        c = world_build(&fresh, &fresh.sidecar);
        assert_same(b, c); /* made piece by piece or at once: no difference */
        translate_config_unref(a);
        translate_config_unref(b);
        translate_config_unref(c);
        world_fini(&w);
        world_fini(&fresh);
}

static void test_endpoints_touch_only_endpoints(void **state)
{
        struct world w;
        struct translate_config *a, *b;
        static const enum translate_type same[] = { TRANSLATE_CLUSTERS, TRANSLATE_LISTENERS, TRANSLATE_ROUTES };

        world_init(&w, false);
        a = world_build(&w, &w.sidecar);
        world_apply(&w, "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
                        "metadata: {name: curl-1, namespace: curl, labels: {kubernetes.io/service-name: curl}}\n"
                        "ports: [{name: http, port: 80}]\nendpoints: [{addresses: [10.244.0.8]}, {addresses: [10.244.0.9]}]\n");
        b = world_build(&w, &w.sidecar);
        for (size_t i = 0; i < ARRAY_LEN(same); i++) {
                assert_int_equal(a->of[same[i]].n, b->of[same[i]].n);
                for (size_t k = 0; k < a->of[same[i]].n; k++)
                        assert_ptr_equal(a->of[same[i]].v[k], b->of[same[i]].v[k]);
        }
        assert_true(a->of[TRANSLATE_ENDPOINTS].hash != b->of[TRANSLATE_ENDPOINTS].hash);
        translate_config_unref(a);
        translate_config_unref(b);
        world_fini(&w);
}

static void test_proxies_share(void **state)
{
        struct world w;
        struct translate_proxy other;
        struct translate_config *a, *b;
        struct mesh_label labels[] = { { STR("app"), STR("curl") }, { STR("statefulset.kubernetes.io/pod-name"), STR("curl-2") } };

        world_init(&w, false);
        for (unsigned i = 0; i < 20; i++)
                entry(&w, i, 80);
        other = w.sidecar;
        other.id = STR("curl-2.curl");
        other.ip = STR("10.244.0.99");
        other.labels = (struct mesh_labels){ labels, 2 }; /* nothing selects by the second one */
        a = world_build(&w, &w.sidecar);
        b = world_build(&w, &other);
        for (int t = 0; t < TRANSLATE_TYPES; t++) {
                assert_int_equal(a->of[t].n, b->of[t].n);
                for (size_t k = 0; k < a->of[t].n; k++)
                        assert_ptr_equal(a->of[t].v[k], b->of[t].v[k]);
        }
        translate_config_unref(a);
        translate_config_unref(b);
        world_fini(&w);
}

static void test_sweep_forgets(void **state)
{
        struct world w;
        struct translator_stats full, swept;
        struct translate_config *c;

        world_init(&w, false);
        for (unsigned i = 0; i < 1000; i++)
                entry(&w, i, 80);
        translate_config_unref(world_build(&w, &w.sidecar));
        translate_config_unref(world_build(&w, &w.gateway)); /* once, and never again */
        translator_get_stats(w.translator, &full);
        for (unsigned i = 0; i < 1000; i++) {
                char name[16];

                snprintf(name, sizeof(name), "e%u", i);
                assert_int_equal(mesh_delete(w.mesh, STR("ServiceEntry"), STR("default"), str_of(name)), MESH_CHANGED);
        }
        c = world_build(&w, &w.sidecar);
        assert_null(translate_find(c, TRANSLATE_CLUSTERS, STR("outbound|80||h1.example")));
        for (unsigned i = 0; i < 10; i++) {
                translate_config_unref(world_build(&w, &w.sidecar));
                translator_sweep(w.translator);
        }
        translator_get_stats(w.translator, &swept);
        assert_true(full.parts_kept > 4000);
        assert_true(swept.parts_kept < 40);
        translate_config_unref(c);
        world_fini(&w);
}

static void test_config_outlives_everything(void **state)
{
        struct world w;
        struct translate_config *c;

        world_init(&w, false);
        c = world_build(&w, &w.sidecar);
        world_fini(&w);
        assert_true(c->of[TRANSLATE_CLUSTERS].v[0]->bytes.n > 0);
        assert_non_null(translate_find(c, TRANSLATE_LISTENERS, STR("virtualInbound")));
        translate_config_unref(c);
}

static void test_mesh_config_takes_effect(void **state)
{
        struct world w;
        struct translate_config *c;
        struct buf json = BUF_INIT;

        world_init(&w, false);
        world_apply(&w, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n"
                        "    accessLogFile: /dev/stdout\n    accessLogEncoding: JSON\n    enableTracing: true\n"
                        "    defaultConfig: {tracing: {sampling: 50}}\n    pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}\n");
        c = world_build(&w, &w.sidecar);
        pb_to_json(world_get(&w, c, TRANSLATE_LISTENERS, "0.0.0.0_80"), 0, &json);
        assert_non_null(strstr(buf_z(&json), "\"jsonFormat\":{"));
        assert_non_null(strstr(buf_z(&json), "USE_B3_WITH_W3C_PROPAGATION"));
        assert_non_null(strstr(buf_z(&json), "\"randomSampling\":{\"value\":50}"));
        assert_non_null(strstr(buf_z(&json), "\"mergeSlashes\":true"));
        assert_non_null(strstr(buf_z(&json), "UNESCAPE_AND_FORWARD"));
        assert_non_null(strstr(buf_z(&json), "PassthroughCluster")); /* ALLOW_ANY is the default */
        buf_fini(&json);
        translate_config_unref(c);
        world_fini(&w);
}

static void test_both_families(void **state)
{
        static const char *const names[] = { "virtualOutbound", "virtualInbound", "0.0.0.0_80" };
        struct world w;
        struct translate_config *c;

        world_init(&w, false);
        w.sidecar.ipv6 = true;
        entry(&w, 1, 80);
        c = world_build(&w, &w.sidecar);
        for (size_t i = 0; i < ARRAY_LEN(names); i++) {
                struct buf json = BUF_INIT;

                pb_to_json(world_get(&w, c, TRANSLATE_LISTENERS, names[i]), 0, &json);
                assert_non_null(strstr(buf_z(&json), "\"additionalAddresses\":[{\"address\":{\"socketAddress\":{\"address\":\"::\""));
                buf_fini(&json);
        }
        translate_config_unref(c);
        world_fini(&w);
}

static void test_node_ids(void **state)
{
        static const struct {
                const char *id;
                bool good;
        } ids[] = {
                { "sidecar~10.0.0.1~a.b~b.svc.cluster.local", true },
                { "router~10.0.0.1~a.b~b.svc.cluster.local", true },
                { "", false },
                { "sidecar", false },
                { "waypoint~10.0.0.1~a.b~d", false },
                { "sidecar~10.0.0.1~a~d", false },
                { "sidecar~~~", false },
        };

        for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
                Xds__Node node = XDS__NODE__INIT;
                struct translate_proxy p;
                struct arena a;
                struct diags d;

                arena_init(&a, 0);
                diags_init(&d);
                node.id = (char *)ids[i].id;
                assert_int_equal(translate_proxy_parse(&node, &a, &p, &d), ids[i].good);
                assert_int_equal(d.errors, !ids[i].good);
                diags_fini(&d);
                arena_fini(&a);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_same_input_same_bytes),
                cmocka_unit_test(test_a_change_costs_itself),
                cmocka_unit_test(test_endpoints_touch_only_endpoints),
                cmocka_unit_test(test_proxies_share),
                cmocka_unit_test(test_sweep_forgets),
                cmocka_unit_test(test_config_outlives_everything),
                cmocka_unit_test(test_mesh_config_takes_effect),
                cmocka_unit_test(test_both_families),
                cmocka_unit_test(test_node_ids),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
