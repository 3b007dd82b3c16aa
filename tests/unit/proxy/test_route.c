/* Route tables from YAML: domain search order, every matcher, what is refused. */
#include "envoy/route.pb-c.h"
#include "pb/pb.h"
#include "proxy/route.h"
#include "proxy/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct route_table *build(const char *yaml, struct diags *d)
{
        static struct server server;
        struct diag_at at = { 0 };
        struct pb_node **docs;
        struct route_table *t = NULL;
        ProtobufCMessage *m;
        struct arena a;
        size_t n;

        arena_init(&a, 0);
        diags_init(d);
        if (pb_parse_yaml(str_of(yaml), STR("r.yaml"), &a, &docs, &n, d) && n == 1 &&
            (m = pb_from_node(&xds__route_configuration__descriptor, docs[0], 0, &at, &a, d)))
                t = route_table_build(&server, (const struct Xds__RouteConfiguration *)m, &at, d);
        arena_fini(&a);
        return t;
}

static struct route_table *built(const char *yaml)
{
        struct diags d;
        struct route_table *t = build(yaml, &d);

        if (!t) {
                struct buf b = BUF_INIT;

                diags_format(&d, &b);
                fail_msg("%s", buf_z(&b));
        }
        diags_fini(&d);
        return t;
}

static const char domains[] = "virtual_hosts:\n"
                              "- {name: exact, domains: [a.example.com, 'A.Example.NET']}\n"
                              "- {name: suffix, domains: ['*.example.com']}\n"
                              "- {name: longer, domains: ['*.b.example.com', '*-c.example.com']}\n"
                              "- {name: prefix, domains: ['www.*']}\n"
                              "- {name: any, domains: ['*']}\n"
                              "ignore_port_in_host_matching: true\n";

static const struct {
        const char *host, *vhost;
} hosts[] = {
        { "a.example.com", "exact" },
        { "A.EXAMPLE.com:8080", "exact" },
        { "a.example.net", "exact" },
        { "x.example.com", "suffix" },
        { "x.b.example.com", "longer" },
        { "b.example.com", "suffix" },
        { "x-c.example.com", "longer" },
        { ".example.com", "any" },
        { "example.com", "any" },
        { "www.example.org", "prefix" },
        { "www.", "any" },
        { "www.example.com", "suffix" },
        { "", "any" },
        { "[::1]:80", "any" },
};

static void search_order(void **state)
{
        struct route_table *t = built(domains);

        for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
                const struct route_vhost *v = route_table_vhost(t, str_of(hosts[i].host));

                if (!v || !str_eqc(v->name, hosts[i].vhost))
                        fail_msg("%s -> " STR_FMT ", not %s", hosts[i].host, STR_ARG(v ? v->name : STR("none")), hosts[i].vhost);
        }
        route_table_unref(t);
}

static const char matchers[] =
        "virtual_hosts:\n"
        "- name: v\n"
        "  domains: ['*']\n"
        "  routes:\n"
        "  - {name: path, match: {path: /exact}, direct_response: {status: 200}}\n"
        "  - {name: nocase, match: {prefix: /NoCase, case_sensitive: false}, direct_response: {status: 200}}\n"
        "  - {name: sep, match: {path_separated_prefix: /sep}, direct_response: {status: 200}}\n"
        "  - {name: regex, match: {safe_regex: {regex: '/re/[0-9]+|/rx'}}, direct_response: {status: 200}}\n"
        "  - {name: connect, match: {connect_matcher: {}}, direct_response: {status: 200}}\n"
        "  - {name: exact, match: {prefix: /h, headers: [{name: X-E, string_match: {exact: v}}]}, direct_response: {status: 200}}\n"
        "  - {name: nocaseh, match: {prefix: /h, headers: [{name: x-n, string_match: {exact: V, ignore_case: true}}]}, direct_response: "
        "{status: 200}}\n"
        "  - {name: range, match: {prefix: /h, headers: [{name: x-r, range_match: {start: -1, end: 5}}]}, direct_response: {status: 200}}\n"
        "  - {name: contains, match: {prefix: /h, headers: [{name: x-c, contains_match: mid}]}, direct_response: {status: 200}}\n"
        "  - {name: hregex, match: {prefix: /h, headers: [{name: x-x, safe_regex_match: {regex: 'a.*z'}}]}, direct_response: {status: "
        "200}}\n"
        "  - {name: method, match: {prefix: /m, headers: [{name: ':method', exact_match: PUT}]}, direct_response: {status: 200}}\n"
        "  - {name: absent, match: {prefix: /m, headers: [{name: x-q, present_match: true, invert_match: true}]}, direct_response: "
        "{status: 200}}\n"
        "  - {name: empty, match: {prefix: /o, headers: [{name: x-o, exact_match: z, invert_match: true, treat_missing_header_as_empty: "
        "true}]}, direct_response: {status: 200}}\n"
        "  - {name: query, match: {prefix: /q, query_parameters: [{name: a, string_match: {exact: '1'}}]}, direct_response: {status: "
        "200}}\n"
        "  - {name: grpc, match: {prefix: /g, grpc: {}}, direct_response: {status: 200}}\n"
        "  - {name: never, match: {prefix: /, runtime_fraction: {default_value: {numerator: 0}}}, direct_response: {status: 200}}\n"
        "  - {name: rest, match: {prefix: /}, direct_response: {status: 200}}\n";

static const struct {
        const char *method, *path, *header, *value, *route;
} requests[] = {
        { "GET", "/exact?q", NULL, NULL, "path" },
        { "GET", "/exact/", NULL, NULL, "rest" },
        { "GET", "/nocaseX", NULL, NULL, "nocase" },
        { "GET", "/sep", NULL, NULL, "sep" },
        { "GET", "/sep/x", NULL, NULL, "sep" },
        { "GET", "/separate", NULL, NULL, "rest" },
        { "GET", "/re/12?x", NULL, NULL, "regex" },
        { "GET", "/re/12a", NULL, NULL, "rest" },
        { "GET", "/rx", NULL, NULL, "regex" },
        { "CONNECT", NULL, NULL, NULL, "connect" },
        { "GET", "/h", "x-e", "v", "exact" },
        { "GET", "/h", "x-e", "w", "rest" },
        { "GET", "/h", "x-n", "v", "nocaseh" },
        { "GET", "/h", "x-r", "-1", "range" },
        { "GET", "/h", "x-r", "5", "rest" },
        { "GET", "/h", "x-r", "4x", "rest" },
        { "GET", "/h", "x-c", "amidb", "contains" },
        { "GET", "/h", "x-x", "abz", "hregex" },
        { "GET", "/h", "x-x", "abzc", "rest" },
        { "PUT", "/m", "x-q", "1", "method" },
        { "GET", "/m", NULL, NULL, "absent" },
        { "GET", "/m", "x-q", "1", "rest" },
        { "GET", "/o", NULL, NULL, "empty" },
        { "GET", "/o", "x-o", "z", "rest" },
        { "GET", "/q?b=2&a=1", NULL, NULL, "query" },
        { "GET", "/q?a=12", NULL, NULL, "rest" },
        { "GET", "/q?a=1#a", NULL, NULL, "query" },
        { "POST", "/g", "content-type", "application/grpc", "grpc" },
        { "POST", "/g", "content-type", "application/grpc+proto", "grpc" },
        { "POST", "/g", "content-type", "application/grpc-web", "rest" },
};

static void matching(void **state)
{
        struct route_table *t = built(matchers);
        struct arena a;

        arena_init(&a, 0);
        for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
                struct http_head m;
                struct route_input in = { .head = &m };
                struct route_pick p;

                http_head_init(&m, &a);
                m.method = str_of(requests[i].method);
                m.path = str_of(requests[i].path);
                m.authority = STR("h");
                if (requests[i].header)
                        http_add_name(&m, str_of(requests[i].header), str_of(requests[i].value));
                if (!route_table_pick(t, &in, &p) || !str_eqc(p.route->name, requests[i].route))
                        fail_msg("%s %s %s -> " STR_FMT ", not %s", requests[i].method, requests[i].path ? requests[i].path : "",
                                 requests[i].value ? requests[i].value : "", STR_ARG(p.route ? p.route->name : STR("none")),
                                 requests[i].route);
        }
        arena_fini(&a);
        route_table_unref(t);
}

static void weights(void **state)
{
        struct route_table *t = built("virtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n"
                                      "  - match: {prefix: /}\n    route: {weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, "
                                      "weight: 0}, {name: c, weight: 3}]}}\n");
        unsigned seen[3] = { 0 };
        struct http_head m;
        struct arena a;

        arena_init(&a, 0);
        http_head_init(&m, &a);
        m.path = STR("/");
        m.method = STR("GET");
        for (uint64_t i = 0; i < 400; i++) {
                struct route_input in = { .head = &m, .random = i };
                struct route_pick p;

                assert_true(route_table_pick(t, &in, &p));
                seen[p.cluster.p[0] - 'a']++;
        }
        assert_int_equal(seen[0], 100);
        assert_int_equal(seen[1], 0);
        assert_int_equal(seen[2], 300);
        arena_fini(&a);
        route_table_unref(t);
}

#define ROUTE(text) "virtual_hosts: [{name: v, domains: ['*'], routes: [" text "]}]"

static const struct {
        const char *yaml, *says;
} refused[] = {
        { ROUTE("{match: {prefix: /}}"), "routes[0]: a route needs one of" },
        { ROUTE("{match: {}, direct_response: {status: 200}}"), "routes[0].match: a route match needs" },
        { ROUTE("{match: {prefix: /}, route: {cluster: ''}}"), "route.cluster: the cluster's name is empty" },
        { ROUTE("{match: {prefix: /}, route: {cluster: a, request_mirror_policies: [{cluster: b}]}}"),
          "request_mirror_policies is not supported" },
        { ROUTE("{match: {prefix: /}, direct_response: {status: 99}}"), "direct_response.status: 99" },
        { ROUTE("{match: {prefix: /}, redirect: {port_redirect: 70000}}"), "redirect.port_redirect: 70000" },
        { ROUTE("{match: {safe_regex: {regex: '('}}, direct_response: {status: 200}}"), "safe_regex.regex: bad regular expression" },
        { ROUTE("{match: {safe_regex: {regex: '(?=a)'}}, direct_response: {status: 200}}"), "look-around" },
        { ROUTE("{match: {safe_regex: {regex: '(a)\\1'}}, direct_response: {status: 200}}"), "back-reference" },
        { ROUTE("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}]}}}"), "the sum of the weights" },
        { ROUTE("{match: {prefix: /}, route: {cluster: a, timeout: -1s}}"), "route.timeout" },
        { ROUTE("{match: {prefix: /}, route: {cluster: a}, request_headers_to_add: [{header: {key: host, value: b}}]}"),
          "request_headers_to_add[0].header" },
        { ROUTE("{match: {prefix: /}, route: {cluster: a}, request_headers_to_add: [{header: {key: a, value: '%NOPE%'}}]}"), "NOPE" },
        { ROUTE("{match: {prefix: /}, route: {cluster: a}, request_headers_to_add: [{header: {key: 'a b', value: c}}]}"),
          "not a header name" },
        { ROUTE("{match: {prefix: /}, route: {cluster: a, retry_policy: {retry_priority: {name: x}}}}"), "retry_priority" },
        { "virtual_hosts: [{name: a, domains: ['*']}, {name: b, domains: ['*']}]", "only a single wildcard domain" },
        { "virtual_hosts: [{name: a, domains: [x.y]}, {name: b, domains: [X.Y]}]", "only unique values for domains" },
        { "virtual_hosts: [{name: a}]", "needs at least one domain" },
};

static void refuses(void **state)
{
        for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
                struct diags d;
                struct route_table *t = build(refused[i].yaml, &d);
                struct buf b = BUF_INIT;

                diags_format(&d, &b);
                if (t || !strstr(buf_z(&b), refused[i].says))
                        fail_msg("%s: %s; not \"%s\"", refused[i].yaml, buf_z(&b), refused[i].says);
                buf_fini(&b);
                diags_fini(&d);
        }
}

static void apply(void **state)
{
        struct route_table *t = built(
                "request_headers_to_add: [{header: {key: x-who, value: table}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]\n"
                "virtual_hosts:\n- name: v\n  domains: ['*']\n"
                "  request_headers_to_remove: [x-old]\n"
                "  routes:\n"
                "  - match: {prefix: /a/}\n    route: {cluster: c, prefix_rewrite: /b/, host_rewrite_literal: up}\n"
                "    request_headers_to_add:\n"
                "    - {header: {key: x-who, value: route}}\n"
                "    - {header: {key: x-new, value: '1'}, append_action: ADD_IF_ABSENT}\n"
                "    - {header: {key: x-have, value: '2'}, append_action: ADD_IF_ABSENT}\n"
                "    - {header: {key: x-none, value: '3'}, append_action: OVERWRITE_IF_EXISTS}\n");
        struct stream_info si = { 0 };
        struct http_head m;
        struct route_input in = { .head = &m };
        struct route_pick p;
        struct arena a;

        arena_init(&a, 0);
        http_head_init(&m, &a);
        m.method = STR("GET");
        m.authority = STR("old");
        m.path = STR("/a/x?y");
        http_add_name(&m, STR("x-old"), STR("1"));
        http_add_name(&m, STR("x-have"), STR("0"));
        assert_true(route_table_pick(t, &in, &p));
        route_finalize_request(t, &p, &m, &si, true);
        assert_true(str_eqc(m.path, "/b/x?y"));
        assert_true(str_eqc(m.authority, "up"));
        assert_true(str_eqc(http_get(&m, HN_X_ENVOY_ORIGINAL_PATH)->value, "/a/x?y"));
        assert_null(http_get_name(&m, STR("x-old")));
        assert_null(http_get_name(&m, STR("x-none")));
        assert_true(str_eqc(http_get_name(&m, STR("x-have"))->value, "0"));
        assert_true(str_eqc(http_get_name(&m, STR("x-new"))->value, "1"));
        assert_true(str_eqc(http_get_name(&m, STR("x-who"))->value, "table"));
        arena_fini(&a);
        route_table_unref(t);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(search_order), cmocka_unit_test(matching), cmocka_unit_test(weights),
                cmocka_unit_test(refuses),      cmocka_unit_test(apply),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
