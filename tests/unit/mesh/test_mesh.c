/* The model: names, selection rules, snapshots, and what one object means beside others. */
#include "mesh/read.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct fixture {
        struct mesh *m;
        struct arena a;
        struct diags d;
};

static void fixture_init(struct fixture *f)
{
        f->m = mesh_new();
        arena_init(&f->a, 4096);
        diags_init(&f->d);
}

static void fixture_fini(struct fixture *f)
{
        mesh_free(f->m);
        diags_fini(&f->d);
        arena_fini(&f->a);
}

static enum mesh_result apply(struct fixture *f, const char *yaml)
{
        struct pb_node **docs;
        size_t n;
        enum mesh_result r = MESH_IGNORED;

        assert_true(pb_parse_yaml(str_of(yaml), STR("x.yaml"), &f->a, &docs, &n, &f->d));
        for (size_t i = 0; i < n; i++)
                r = mesh_set(f->m, docs[i], &f->d);
        return r;
}

#define OBJ(kind, ns, name, spec) \
        "apiVersion: networking.istio.io/v1\nkind: " kind "\nmetadata: {name: " name ", namespace: " ns "}\nspec: " spec "\n---\n"
#define ENTRY(ns, name, host, more) \
        OBJ("ServiceEntry", ns, name, "{hosts: [" host "], ports: [{number: 80, name: http, protocol: HTTP}]" more "}")

static void test_hosts(void **state)
{
        static const struct {
                const char *pattern, *host;
                bool covers;
        } rows[] = {
                { "a.b", "a.b", true },        { "a.b", "x.a.b", false }, { "*.a.b", "x.a.b", true }, { "*.a.b", "x.y.a.b", true },
                { "*.a.b", "a.b", false },     { "*", "anything", true }, { "*.a.b", "*.a.b", true }, { "*.a.b", "*.x.a.b", true },
                { "*.x.a.b", "*.a.b", false }, { "a.b", "*.a.b", false }, { "*.a.b", "*", false },    { "", "a", false },
        };
        struct arena a;

        for (size_t i = 0; i < ARRAY_LEN(rows); i++)
                if (mesh_host_covers(str_of(rows[i].pattern), str_of(rows[i].host)) != rows[i].covers)
                        fail_msg("%s covers %s?", rows[i].pattern, rows[i].host);
        arena_init(&a, 0);
        assert_true(str_eqc(mesh_host_resolve(STR("curl"), STR("ns"), STR("cluster.local"), &a), "curl.ns.svc.cluster.local"));
        assert_true(str_eqc(mesh_host_resolve(STR("curl.ns"), STR("ns"), STR("cluster.local"), &a), "curl.ns"));
        assert_true(str_eqc(mesh_host_resolve(STR("*"), STR("ns"), STR("cluster.local"), &a), "*"));
        arena_fini(&a);
}

static void test_durations(void **state)
{
        static const struct {
                const char *text;
                int64_t us; /* -1: refused */
        } rows[] = {
                { "1s", 1000000 }, { "1.5s", 1500000 }, { "100ms", 100000 }, { "1h2m3s", 3723000000 },
                { "0", 0 },        { "0s", 0 },         { "5us", 5 },        { "", -1 },
                { "s", -1 },       { "5", -1 },         { "1x", -1 },        { "1s ", -1 },
                { "1..5s", -1 },   { "ten", -1 },       { "9e9s", -1 },
        };

        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
                int64_t us = -1;
                bool ok = read_duration_parse(str_of(rows[i].text), &us);

                if (ok != (rows[i].us >= 0) || (ok && us != rows[i].us))
                        fail_msg("\"%s\": %d %lld", rows[i].text, ok, (long long)us);
        }
}

static void test_snapshots_are_immutable_and_shared(void **state)
{
        struct fixture f;
        struct mesh_snapshot *a, *b, *c;

        fixture_init(&f);
        assert_int_equal(apply(&f, ENTRY("n", "e1", "a.example", "")), MESH_CHANGED);
        assert_int_equal(apply(&f, ENTRY("n", "e1", "a.example", "")), MESH_UNCHANGED);
        a = mesh_snapshot(f.m);
        b = mesh_snapshot(f.m);
        assert_ptr_equal(a, b);
        apply(&f, OBJ("Gateway", "n", "g", "{selector: {a: b}, servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}]}"));
        c = mesh_snapshot(f.m);
        assert_ptr_not_equal(a, c);
        assert_ptr_equal(a->services, c->services); /* what did not change is shared */
        assert_int_equal(a->ngateways, 0);
        assert_int_equal(c->ngateways, 1);
        assert_int_equal(mesh_delete(f.m, STR("ServiceEntry"), STR("n"), STR("e1")), MESH_CHANGED);
        assert_int_equal(mesh_delete(f.m, STR("ServiceEntry"), STR("n"), STR("e1")), MESH_UNCHANGED);
        assert_int_equal(mesh_delete(f.m, STR("Nothing"), STR("n"), STR("e1")), MESH_IGNORED);
        assert_non_null(mesh_service_find(a, STR("a.example"), STR("n")));
        fixture_fini(&f);
        assert_true(str_eqc(c->services[0]->host, "a.example")); /* snapshots outlive the mesh */
        mesh_snapshot_unref(a);
        mesh_snapshot_unref(b);
        mesh_snapshot_unref(c);
}

static void test_a_bad_object_leaves_the_last_good_one(void **state)
{
        struct fixture f;
        struct mesh_snapshot *s;

        fixture_init(&f);
        apply(&f, ENTRY("n", "e1", "a.example", ""));
        assert_int_equal(apply(&f, ENTRY("n", "e1", "'*'", "")), MESH_REFUSED);
        assert_true(f.d.errors > 0);
        s = mesh_snapshot(f.m);
        assert_non_null(mesh_service_find(s, STR("a.example"), STR("n")));
        mesh_snapshot_unref(s);
        fixture_fini(&f);
}

static void test_who_answers_to_a_host(void **state)
{
        struct fixture f;
        struct mesh_snapshot *s;

        fixture_init(&f);
        apply(&f, ENTRY("b", "later", "a.example", "") ENTRY("a", "mine", "a.example", ", exportTo: ['.']")
                          ENTRY("c", "some", "c.example", ", exportTo: [a]"));
        s = mesh_snapshot(f.m);
        assert_true(str_eqc(mesh_service_find(s, STR("a.example"), STR("a"))->ns, "a")); /* one's own namespace first */
        assert_true(str_eqc(mesh_service_find(s, STR("a.example"), STR("x"))->ns, "b")); /* private ones are not seen */
        assert_non_null(mesh_service_find(s, STR("c.example"), STR("a")));
        assert_null(mesh_service_find(s, STR("c.example"), STR("x")));
        assert_null(mesh_service_find(s, STR("none.example"), STR("a")));
        mesh_snapshot_unref(s);
        fixture_fini(&f);
}

static void test_which_rule_applies(void **state)
{
        static const struct mesh_labels none = { 0 };
        struct fixture f;
        struct mesh_snapshot *s;
        struct mesh_dr *d;

        fixture_init(&f);
        apply(&f, OBJ("DestinationRule", "client", "own", "{host: a.example}") OBJ("DestinationRule", "service", "svc", "{host: a.example}")
                          OBJ("DestinationRule", "istio-system", "root", "{host: '*.example'}")
                                  OBJ("DestinationRule", "elsewhere", "no", "{host: a.example}")
                                          OBJ("DestinationRule", "m", "one", "{host: m.example, subsets: [{name: v1, labels: {v: '1'}}]}")
                                                  OBJ("DestinationRule", "m", "two",
                                                      "{host: m.example, trafficPolicy: {loadBalancer: {simple: RANDOM}}, "
                                                      "subsets: [{name: v2, labels: {v: '2'}}]}"));
        s = mesh_snapshot(f.m);
#define NAME_FOR(ns) mesh_dr_find(s, STR("a.example"), STR("service"), STR(ns), &none)->meta.name
        assert_true(str_eqc(NAME_FOR("client"), "own"));
        assert_true(str_eqc(NAME_FOR("x"), "svc"));
        assert_true(str_eqc(mesh_dr_find(s, STR("b.example"), STR("service"), STR("x"), &none)->meta.name, "root"));
        assert_null(mesh_dr_find(s, STR("b.other"), STR("service"), STR("x"), &none));
        d = mesh_dr_find(s, STR("m.example"), STR("m"), STR("x"), &none);
        assert_int_equal(d->nsubsets, 2); /* two rules of one namespace for one host are one */
        assert_int_equal(d->policy.all.lb, MESH_LB_RANDOM);
        assert_non_null(mesh_subset_find(d, STR("v1")));
        assert_null(mesh_subset_find(d, STR("v3")));
        mesh_snapshot_unref(s);
        fixture_fini(&f);
}

static void test_protocols(void **state)
{
        static const struct {
                const char *port;
                enum mesh_protocol want;
        } rows[] = {
                { "name: http", MESH_HTTP },
                { "name: http-web", MESH_HTTP },
                { "name: http2", MESH_HTTP2 },
                { "name: grpc-web-x", MESH_GRPC_WEB },
                { "name: grpc-api", MESH_GRPC },
                { "name: https-x", MESH_HTTPS },
                { "name: tls", MESH_TLS },
                { "name: tcp-db", MESH_TCP },
                { "name: mysql", MESH_TCP },
                { "name: web", MESH_AUTO },
                { "name: x, protocol: UDP", MESH_UDP },
                { "name: tcp, appProtocol: kubernetes.io/h2c", MESH_HTTP2 },
                { "name: x, appProtocol: https", MESH_HTTPS },
        };

        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
                struct fixture f;
                struct mesh_snapshot *s;
                char yaml[256];

                fixture_init(&f);
                snprintf(yaml, sizeof(yaml),
                         "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: n}\nspec: {clusterIP: 10.96.0.9, ports: [{port: "
                         "80, %s}]}\n",
                         rows[i].port);
                apply(&f, yaml);
                s = mesh_snapshot(f.m);
                if (s->services[0]->ports[0].protocol != rows[i].want)
                        fail_msg("%s: %s", rows[i].port, mesh_protocol_name(s->services[0]->ports[0].protocol));
                mesh_snapshot_unref(s);
                fixture_fini(&f);
        }
}

static void test_workload_names(void **state)
{
        struct fixture f;
        struct mesh_snapshot *s;

        fixture_init(&f);
        apply(&f, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-5d4f8c7b9-abcde\n  namespace: n\n  labels: {pod-template-hash: "
                  "5d4f8c7b9}\n"
                  "  ownerReferences: [{kind: ReplicaSet, name: web-5d4f8c7b9, controller: true}]\nstatus: {podIP: 10.1.1.1}\n");
        s = mesh_snapshot(f.m);
        assert_true(str_eqc(mesh_pod_by_ip(s, STR("10.1.1.1"))->workload, "web"));
        assert_ptr_equal(mesh_pod_find(s, STR("n"), STR("web-5d4f8c7b9-abcde")), mesh_pod_by_ip(s, STR("10.1.1.1")));
        assert_null(mesh_pod_by_ip(s, STR("10.1.1.2")));
        mesh_snapshot_unref(s);
        fixture_fini(&f);
}

static void references(const char *world, const char *yaml, const char *want)
{
        struct fixture f;
        struct mesh_snapshot *s;
        struct pb_node **docs;
        size_t n;
        struct buf b = BUF_INIT;

        fixture_init(&f);
        apply(&f, world);
        s = mesh_snapshot(f.m);
        diags_clear(&f.d);
        assert_true(pb_parse_yaml(str_of(yaml), STR("x.yaml"), &f.a, &docs, &n, &f.d));
        mesh_references(s, docs[0], STR(""), &f.d);
        diags_format(&f.d, &b);
        assert_int_equal(f.d.errors, 0);
        if (want ? !strstr(buf_z(&b), want) : f.d.n > 0)
                fail_msg("wanted: %s\nsaid: %s", want ? want : "nothing", buf_z(&b));
        buf_fini(&b);
        mesh_snapshot_unref(s);
        fixture_fini(&f);
}

static void test_references(void **state)
{
#define WORLD       ENTRY("n", "e1", "a.example", "")
#define ROUTE_TO(d) OBJ("VirtualService", "n", "v", "{hosts: [a.example], http: [{route: [{destination: " d "}]}]}")
        references(WORLD, ROUTE_TO("{host: a.example, port: {number: 80}}"), NULL);
        references(WORLD, ROUTE_TO("{host: b.exampel}"), "no Service or ServiceEntry has host b.exampel");
        references(WORLD, ROUTE_TO("{host: a.exampel}"), "(did you mean a.example?)");
        references(WORLD, ROUTE_TO("{host: a.example, port: {number: 81}}"), "a.example has no port 81");
        references(WORLD, ROUTE_TO("{host: a.example, subset: v1}"), "gives a.example a subset \"v1\"");
        references(WORLD, OBJ("VirtualService", "n", "v", "{hosts: [a.example], gateways: [g], http: [{directResponse: {status: 200}}]}"),
                   "there is no Gateway n/g yet");
        references(WORLD, OBJ("DestinationRule", "other", "d", "{host: a.example}"), "only clients in namespace other use this rule");
        references(WORLD, OBJ("DestinationRule", "n", "d", "{host: a.example}"), NULL);
        references(WORLD, OBJ("Gateway", "n", "g", "{selector: {istio: none}, servers: []}"), "no pod has these labels (istio=none) yet");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_hosts),
                cmocka_unit_test(test_durations),
                cmocka_unit_test(test_protocols),
                cmocka_unit_test(test_snapshots_are_immutable_and_shared),
                cmocka_unit_test(test_references),
                cmocka_unit_test(test_a_bad_object_leaves_the_last_good_one),
                cmocka_unit_test(test_workload_names),
                cmocka_unit_test(test_who_answers_to_a_host),
                cmocka_unit_test(test_which_rule_applies),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
