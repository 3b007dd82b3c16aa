/* What bad input gets: each row is an object and the sentence that a person reads. */
#include "base/mem.h"
#include "mesh/mesh.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define OBJ(kind, spec) "apiVersion: networking.istio.io/v1\nkind: " kind "\nmetadata: {name: x, namespace: ns}\nspec: " spec "\n"
#define VS(spec)        OBJ("VirtualService", "{hosts: [a.example], " spec "}")
#define ROUTE           "route: [{destination: {host: b}}]"
#define SE(spec)        OBJ("ServiceEntry", "{hosts: [a.example], ports: [{number: 80, name: http, protocol: HTTP}], " spec "}")
#define DR(spec)        OBJ("DestinationRule", "{host: a.example, " spec "}")
#define GW(server)      OBJ("Gateway", "{selector: {a: b}, servers: [" server "]}")
#define MESH(text)      "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: \"" text "\"}\n"

static const struct row {
        const char *yaml;
        const char *error;   /* a part of it; NULL: none */
        const char *warning; /* likewise */
} rows[] = {
        /* clang-format off */
        /* good ones */
        { SE("resolution: DNS"), NULL, NULL },
        { VS("http: [{" ROUTE "}]"), NULL, NULL },
        { DR("trafficPolicy: {loadBalancer: {simple: RANDOM}}"), NULL, NULL },
        { GW("{port: {number: 443, name: a, protocol: TLS}, hosts: ['*/a.example'], tls: {mode: PASSTHROUGH}}"), NULL, NULL },
        { OBJ("Sidecar", "{egress: [{hosts: ['./*', 'istio-system/*', '~/*']}]}"), NULL, NULL },
        { MESH("accessLogFile: /dev/stdout"), NULL, NULL },
        /* ServiceEntry */
        { OBJ("ServiceEntry", "{ports: [{number: 80, name: a, protocol: HTTP}]}"), "spec.hosts: hosts is required", NULL },
        { OBJ("ServiceEntry", "{hosts: ['*'], ports: [{number: 80, name: a, protocol: HTTP}]}"), "spec.hosts[0]: \"*\" alone is not allowed", NULL },
        { OBJ("ServiceEntry", "{hosts: ['a..b'], ports: [{number: 80, name: a, protocol: HTTP}]}"), "spec.hosts[0]: \"a..b\" is not a host", NULL },
        { OBJ("ServiceEntry", "{hosts: [a.b], ports: [{number: 0, name: a, protocol: HTTP}]}"), "spec.ports[0].number: a port must be between 1 and 65535, not 0", NULL },
        { OBJ("ServiceEntry", "{hosts: [a.b], ports: [{number: 70000, name: a, protocol: HTTP}]}"), "must be between 1 and 65535, not 70000", NULL },
        { OBJ("ServiceEntry", "{hosts: [a.b], ports: [{number: 80, protocol: HTTP}]}"), "spec.ports[0].name: name is required", NULL },
        { OBJ("ServiceEntry", "{hosts: [a.b], ports: [{number: 80, name: a, protocol: HTTPX}]}"), "\"HTTPX\" is not a protocol", NULL },
        { OBJ("ServiceEntry", "{hosts: [a.b], ports: [{number: 80, name: a, protocol: HTTP}, {number: 80, name: b, protocol: HTTP}]}"), "\"80\" is there twice", NULL },
        { OBJ("ServiceEntry", "{hosts: [a.b], ports: [{number: 80, name: a, protocol: TCP}]}"), NULL, "without spec.addresses" },
        { OBJ("ServiceEntry", "{hosts: [a.b]}"), NULL, "no port: nothing is admitted" },
        { SE("resolution: DNZ"), "(did you mean \"DNS\"?)", NULL },
        { SE("resolution: STATIC"), "resolution STATIC needs endpoints", NULL },
        { SE("resolution: STATIC, endpoints: [{address: b.example}]"), "is no IP address, which resolution STATIC needs", NULL },
        { SE("endpoints: [{address: 192.0.2.1}]"), "endpoints are not used with resolution NONE", NULL },
        { SE("resolution: STATIC, endpoints: [{address: 192.0.2.1, ports: {httpp: 80}}]"), "names \"httpp\", which spec.ports does not have", NULL },
        { SE("resolution: DNS, addresses: [192.0.2.0/33]"), "is not an IP address or a network", NULL },
        { SE("resolution: DNS, addresses: [192.0.2.0/24]"), "is for resolution NONE or STATIC only", NULL },
        { SE("resolution: DNS_ROUND_ROBIN, endpoints: [{address: a.b}, {address: c.d}]"), "at most one endpoint", NULL },
        { OBJ("ServiceEntry", "{hosts: ['*.a.b'], resolution: DNS, ports: [{number: 80, name: a, protocol: HTTP}]}"), "cannot be resolved by DNS", NULL },
        { SE("exportTo: ['a b']"), "is not a namespace", NULL },
        /* Gateway */
        { OBJ("Gateway", "{selector: {a: b}}"), "spec.servers: servers is required", NULL },
        { GW("{port: {number: 80, name: a, protocol: HTTP}}"), "spec.servers[0].hosts: hosts is required", NULL },
        { GW("{port: {number: 80, name: a}, hosts: ['*']}"), "protocol is required", NULL },
        { GW("{port: {number: 443, name: a, protocol: TLS}, hosts: ['*']}"), "needs tls", NULL },
        { GW("{port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE}}"), "needs credentialName", NULL },
        { GW("{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*'], tls: {mode: PASSTHROUGH}}"), "has no meaning for protocol HTTP", NULL },
        { GW("{port: {number: 80, name: a, protocol: HTTP}, hosts: ['a/b/c']}"), "is not a host", NULL },
        { GW("{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}, {port: {number: 81, name: a, protocol: HTTP}, hosts: ['*']}"), "must differ", NULL },
        /* VirtualService */
        { OBJ("VirtualService", "{http: [{" ROUTE "}], gateways: [g]}"), "spec.hosts: at least one host is needed", NULL },
        { OBJ("VirtualService", "{hosts: ['*'], http: [{" ROUTE "}]}"), "\"*\" cannot be bound to \"mesh\"", NULL },
        { OBJ("VirtualService", "{hosts: [a.example]}"), "http, tls or tcp routes are needed", NULL },
        { OBJ("VirtualService", "{hosts: [a.example, a.example], http: [{" ROUTE "}]}"), "is there twice", NULL },
        { VS("http: [{}]"), "a route, a redirect, a directResponse or a delegate is needed", NULL },
        { VS("http: [{" ROUTE ", redirect: {uri: /}}]"), "exclude each other", NULL },
        { VS("http: [{route: [{destination: {}}]}]"), "destination is required", NULL },
        { VS("http: [{route: [{destination: {subset: a}}]}]"), "host is required", NULL },
        { VS("http: [{route: [{destination: {host: b, port: {number: 70000}}}]}]"), "not 70000", NULL },
        { VS("http: [{timeout: -1s, " ROUTE "}]"), "at least 0s is needed here, not -1s", NULL },
        { VS("http: [{timeout: soon, " ROUTE "}]"), "\"soon\" is not a duration: write it like 500ms", NULL },
        { VS("http: [{timeout: 999999999999h, " ROUTE "}]"), "longer than ten thousand years", NULL },
        { VS("http: [{timeout: 87600h, " ROUTE "}]"), NULL, "more than a year: is the unit right?" },
        { VS("http: [{retries: {attempts: -1}, " ROUTE "}]"), "whole number from 0", NULL },
        { VS("http: [{retries: {attempts: 1, retryOn: 'gateway-error,6xx'}, " ROUTE "}]"), "\"6xx\" is neither a retry condition nor a status code", NULL },
        { VS("http: [{route: [{destination: {host: b}}, {destination: {host: c}}]}]"), "no destination has a weight", NULL },
        { VS("http: [{route: [{destination: {host: b}, weight: 1}, {destination: {host: c}}]}]"), NULL, "gets nothing" },
        { VS("http: [{redirect: {redirectCode: 200, uri: /}}]"), "must be 301, 302, 303, 307 or 308, not 200", NULL },
        { VS("http: [{redirect: {}}]"), "would never end", NULL },
        { VS("http: [{directResponse: {status: 99}}]"), "a status must be between 200 and 599", NULL },
        { VS("http: [{match: [{uri: {exact: /, prefix: /}}], " ROUTE "}]"), "only one of exact, prefix and regex", NULL },
        { VS("http: [{match: [{gateways: [other]}], " ROUTE "}]"), NULL, "is not in spec.gateways" },
        { VS("http: [{" ROUTE "}, {" ROUTE "}]"), NULL, "spec.http[1]: never reached" },
        { VS("tls: [{" ROUTE "}]"), "match is required", NULL },
        { VS("tls: [{match: [{port: 443}], " ROUTE "}]"), "sniHosts is required", NULL },
        { VS("tls: [{match: [{sniHosts: [other.example]}], " ROUTE "}]"), "\"other.example\" is not covered by spec.hosts", NULL },
        /* DestinationRule */
        { OBJ("DestinationRule", "{}"), "host is required", NULL },
        { DR("trafficPolicy: {loadBalancer: {simple: LEAST_REQEST}}"), "(did you mean \"LEAST_REQUEST\"?)", NULL },
        { DR("trafficPolicy: {connectionPool: {tcp: {connectTimeout: 0s}}}"), "at least 1ms", NULL },
        { DR("trafficPolicy: {connectionPool: {tcp: {maxConnections: -5}}}"), "not -5", NULL },
        { DR("trafficPolicy: {portLevelSettings: [{port: {}}]}"), "number is required", NULL },
        { DR("trafficPolicy: {tls: {mode: MUTUAL}}"), "mode MUTUAL needs credentialName", NULL },
        { DR("subsets: [{name: a}, {name: a}]"), "\"a\" is there twice", "a subset without labels" },
        /* Sidecar, mesh configuration */
        { OBJ("Sidecar", "{egress: [{hosts: [a.example]}]}"), "must be written namespace/host", NULL },
        { OBJ("Sidecar", "{workloadSelector: {labels: {a: b}}}"), "says nothing", NULL },
        { MESH("outboundTrafficPolicy: {mode: REGISTRY}"), "outboundTrafficPolicy.mode", NULL },
        { MESH("acessLogFile: /dev/stdout"), "(did you mean \\\"accessLogFile\\\"?)", NULL },
        { MESH("a: [b"), "data.mesh", NULL },
        /* clang-format on */
};

static struct pb_node *parse(const char *yaml, struct arena *a, struct diags *d)
{
        struct pb_node **docs = NULL;
        size_t n = 0;

        if (!pb_parse_yaml(str_of(yaml), STR("x.yaml"), a, &docs, &n, d)) {
                struct buf b = BUF_INIT;

                diags_format(d, &b);
                fail_msg("%s\nin %s", buf_z(&b), yaml);
        }
        return docs[0];
}

static bool said(const struct diags *d, enum diag_severity sev, const char *part)
{
        bool found = false;

        for (size_t i = 0; i < d->n && !found; i++) {
                struct buf b = BUF_INIT;
                char *plain = strdup(part), *to = plain;

                for (const char *c = part; *c; c++)
                        if (*c != '\\')
                                *to++ = *c;
                *to = 0;
                diag_format(&d->v[i], &b);
                found = d->v[i].severity == sev && strstr(buf_z(&b), plain) != NULL;
                free(plain);
                buf_fini(&b);
        }
        return found;
}

static void test_rows(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
                struct arena a;
                struct diags d;
                struct buf b = BUF_INIT;
                bool ok;

                arena_init(&a, 4096);
                diags_init(&d);
                ok = mesh_validate(parse(rows[i].yaml, &a, &d), STR("x.yaml"), &d);
                diags_format(&d, &b);
                if (ok != !rows[i].error || (d.errors > 0) != (rows[i].error != NULL))
                        fail_msg("%s\n%s: %s", rows[i].yaml, ok ? "accepted" : "refused", buf_z(&b));
                if (rows[i].error && !said(&d, DIAG_ERROR, rows[i].error))
                        fail_msg("%s\nwanted: %s\nsaid: %s", rows[i].yaml, rows[i].error, buf_z(&b));
                if (rows[i].warning ? !said(&d, DIAG_WARNING, rows[i].warning) : !rows[i].error && d.n)
                        fail_msg("%s\nwanted: %s\nsaid: %s", rows[i].yaml, rows[i].warning ? rows[i].warning : "nothing", buf_z(&b));
                buf_fini(&b);
                diags_fini(&d);
                arena_fini(&a);
        }
}

static void test_places(void **state)
{
        struct arena a;
        struct diags d;
        struct buf b = BUF_INIT;

        arena_init(&a, 4096);
        diags_init(&d);
        mesh_validate(parse("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x, namespace: ns}\nspec:\n  hosts: "
                            "[a.b]\n"
                            "  http:\n  - timeout: soon\n    route: [{destination: {host: b}}]\n",
                            &a, &d),
                      STR("vs.yaml"), &d);
        diag_format(&d.v[0], &b);
        assert_non_null(strstr(buf_z(&b), "vs.yaml:7:14: "));
        assert_non_null(strstr(buf_z(&b), "spec.http[0].timeout"));
        buf_fini(&b);
        diags_fini(&d);
        arena_fini(&a);
}

static const struct {
        const char *yaml, *path, *text;
} unsupported[] = {
        { VS("http: [{mirror: {host: c}, " ROUTE "}]"), "spec.http[0].mirror", "mirror is not in this release: requests are not mirrored" },
        { VS("http: [{fault: {abort: {httpStatus: 500}}, " ROUTE "}]"), "spec.http[0].fault", "no fault is injected" },
        { DR("trafficPolicy: {outlierDetection: {interval: 1s}}"), "spec.trafficPolicy.outlierDetection", "no host is ejected" },
        { DR("subsets: [{name: a, trafficPolicy: {tls: {mode: SIMPLE}}}]"), "spec.subsets[0].trafficPolicy.tls.mode",
          "mode SIMPLE is not in this release" },
        { GW("{port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}"),
          "spec.servers[0].tls.mode", "the server does not listen" },
        { SE("resolution: DYNAMIC_DNS"), "spec.resolution", "it is treated as NONE" },
        { OBJ("Sidecar", "{ingress: [{port: {number: 80}}]}"), "spec.ingress", "inbound listeners follow the Services" },
        { MESH("h2UpgradePolicy: UPGRADE"), "h2UpgradePolicy", "it has no effect" },
        { "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {}\n", "", "nothing is denied by it" },
        { VS("http: [{" ROUTE "}]"), NULL, NULL },
        { DR("trafficPolicy: {tls: {mode: DISABLE}}"), NULL, NULL },
        { MESH("accessLogFile: /dev/stdout"), NULL, NULL },
};

static void test_unsupported(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(unsupported); i++) {
                struct arena a;
                struct diags d;

                arena_init(&a, 4096);
                diags_init(&d);
                mesh_unsupported(parse(unsupported[i].yaml, &a, &d), STR(""), &d);
                assert_int_equal(d.n, unsupported[i].text ? 1 : 0);
                if (unsupported[i].text) {
                        assert_int_equal(d.v[0].severity, DIAG_WARNING);
                        assert_true(str_eqc(d.v[0].path, unsupported[i].path));
                        assert_true(str_find(d.v[0].text, str_of(unsupported[i].text)) >= 0);
                }
                diags_fini(&d);
                arena_fini(&a);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_rows), cmocka_unit_test(test_places),
                                            cmocka_unit_test(test_unsupported) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
