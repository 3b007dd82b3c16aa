/* What each field of Istio's resources becomes: a resource in, a piece of JSON out. (The whole of the output is compared by
 * test_reference.) */
#include "envoy.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define VS(body) "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: curl}\nspec:\n" body
#define SE(body) "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s, namespace: default}\nspec:\n" body
#define DR(body) "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d, namespace: curl}\nspec:\n" body
#define GW(body)                                                                                                               \
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: curl}\nspec:\n  selector: {istio: " \
        "egressgateway}\n" body
#define SIDECAR(body) "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: c, namespace: curl}\nspec:\n" body
#define TO_CURL       "    route: [{destination: {host: curl}}]\n"
#define WEB                                                                                                                           \
        SE("  hosts: [web.example]\n  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]\n  " \
           "resolution: DNS\n")

enum who { SIDECAR_, GATEWAY };

static const struct feature {
        const char *title, *yaml[3];
        enum who who;
        enum translate_type type;
        const char *name;
        const char *want[6]; /* each must be there; "!x": must not; name NULL: the resource must not exist */
} features[] = {
        /* clang-format off */
        /* --- matches --- */
        { "uri, method, headers, query",
          { VS("  hosts: [curl]\n  http:\n  - match:\n    - uri: {exact: /a}\n      method: {exact: GET}\n      headers: {x: {prefix: p}, y: {}}\n"
               "      withoutHeaders: {z: {regex: r.*}}\n      queryParams: {q: {exact: '1'}}\n      ignoreUriCase: true\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80",
          { "\"path\":\"/a\"", "{\"name\":\":method\",\"stringMatch\":{\"exact\":\"GET\"}}",
            "{\"name\":\"x\",\"stringMatch\":{\"prefix\":\"p\"}},{\"name\":\"y\",\"presentMatch\":true}",
            "{\"name\":\"z\",\"invertMatch\":true,\"stringMatch\":{\"safeRegex\":{\"regex\":\"r.*\"}},\"treatMissingHeaderAsEmpty\":true}",
            "\"queryParameters\":[{\"name\":\"q\",\"stringMatch\":{\"exact\":\"1\"}}]", "\"caseSensitive\":false" } },
        { "uri prefix and regex, scheme, authority",
          { VS("  hosts: [curl]\n  http:\n  - match:\n    - uri: {prefix: /p}\n      scheme: {exact: https}\n    - uri: {regex: /r+}\n"
               "      authority: {prefix: c}\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80",
          { "\"prefix\":\"/p\"", "{\"name\":\":scheme\",\"stringMatch\":{\"exact\":\"https\"}}", "\"safeRegex\":{\"regex\":\"/r+\"}",
            "{\"name\":\":authority\",\"stringMatch\":{\"prefix\":\"c\"}}" } },
        { "a match for another port is left out",
          { VS("  hosts: [curl]\n  http:\n  - match: [{port: 81, uri: {prefix: /no}}]\n" TO_CURL "  - match: [{port: 80, uri: {prefix: /yes}}]\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "\"/yes\"", "!\"/no\"" } },
        { "a match for another gateway is left out",
          { VS("  hosts: [curl]\n  gateways: [mesh, g]\n  http:\n  - match: [{gateways: [g], uri: {prefix: /no}}]\n" TO_CURL
               "  - match: [{gateways: [mesh], uri: {prefix: /yes}}]\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "\"/yes\"", "!\"/no\"" } },
        { "matches on the source are decided here",
          { VS("  hosts: [curl]\n  http:\n  - match: [{sourceLabels: {app: other}, uri: {prefix: /no}}]\n" TO_CURL
               "  - match: [{sourceNamespace: curl, sourceLabels: {app: curl}, uri: {prefix: /yes}}]\n" TO_CURL
               "  - match: [{sourceNamespace: other, uri: {prefix: /neither}}]\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "\"/yes\"", "!\"/no\"", "!\"/neither\"" } },
        { "nothing behind a catch-all",
          { VS("  hosts: [curl]\n  http:\n  - name: first\n" TO_CURL "  - name: second\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "\"name\":\"first\"", "!\"name\":\"second\"" } },
        { "none that applies: as if there were no VirtualService",
          { VS("  hosts: [curl]\n  http:\n  - match: [{port: 81}]\n    directResponse: {status: 418}\n") },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "\"outbound|80||curl.curl.svc.cluster.local\"", "!418" } },
        /* --- actions --- */
        { "redirect",
          { VS("  hosts: [curl]\n  http:\n  - redirect: {uri: /new, authority: other.example, scheme: https, port: 8443, redirectCode: 308}\n") },
          SIDECAR_, TRANSLATE_ROUTES, "80",
          { "\"redirect\":{\"hostRedirect\":\"other.example\",\"pathRedirect\":\"/new\",\"responseCode\":\"PERMANENT_REDIRECT\","
            "\"schemeRedirect\":\"https\",\"portRedirect\":8443}" } },
        { "direct response",
          { VS("  hosts: [curl]\n  http:\n  - directResponse: {status: 418, body: {string: short}}\n") },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "\"directResponse\":{\"status\":418,\"body\":{\"inlineString\":\"short\"}}" } },
        { "rewrite",
          { VS("  hosts: [curl]\n  http:\n  - match: [{uri: {prefix: /a}}]\n    rewrite: {uri: /b, authority: c.example}\n" TO_CURL
               "  - rewrite: {uriRegexRewrite: {match: ^/x, rewrite: /y}}\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80",
          { "\"prefixRewrite\":\"/b\"", "\"hostRewriteLiteral\":\"c.example\"",
            "\"regexRewrite\":{\"pattern\":{\"regex\":\"^/x\"},\"substitution\":\"/y\"}" } },
        { "timeout and retries",
          { VS("  hosts: [curl]\n  http:\n  - timeout: 1.5s\n    retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'connect-failure,503', backoff: 30ms}\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80",
          { "\"timeout\":\"1.500s\"", "\"maxGrpcTimeout\":\"1.500s\"", "\"retryOn\":\"connect-failure,retriable-status-codes\",\"numRetries\":3,\"perTryTimeout\":\"2s\"",
            "\"retriableStatusCodes\":[503]", "\"baseInterval\":\"0.030s\"" } },
        { "retries off",
          { VS("  hosts: [curl]\n  http:\n  - retries: {attempts: 0}\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "{\"cluster\":\"outbound|80||curl.curl.svc.cluster.local\",\"timeout\":\"0s\",\"maxGrpcTimeout\":\"0s\"}" } },
        { "weights, subsets, headers of a destination",
          { VS("  hosts: [curl]\n  http:\n  - route:\n    - {destination: {host: curl, subset: v1}, weight: 75, headers: {request: {set: {a: b}}}}\n"
               "    - {destination: {host: curl, subset: v2}, weight: 25}\n    - {destination: {host: curl}, weight: 0}\n") },
          SIDECAR_, TRANSLATE_ROUTES, "80",
          { "{\"name\":\"outbound|80|v1|curl.curl.svc.cluster.local\",\"weight\":75,\"requestHeadersToAdd\":[{\"header\":{\"key\":\"a\",\"value\":\"b\"},"
            "\"appendAction\":\"OVERWRITE_IF_EXISTS_OR_ADD\"}]}",
            "{\"name\":\"outbound|80|v2|curl.curl.svc.cluster.local\",\"weight\":25}", "!\"weight\":0", "\"operation\":\"v:80/*\"" } },
        { "headers of a route; Host is a rewrite",
          { VS("  hosts: [curl]\n  http:\n  - headers: {request: {set: {Host: h.example, k: v}, add: {m: n}, remove: [x]}, response: {remove: [server]}}\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80",
          { "\"requestHeadersToAdd\":[{\"header\":{\"key\":\"k\",\"value\":\"v\"},\"appendAction\":\"OVERWRITE_IF_EXISTS_OR_ADD\"},"
            "{\"header\":{\"key\":\"m\",\"value\":\"n\"}}]",
            "\"requestHeadersToRemove\":[\"x\"]", "\"responseHeadersToRemove\":[\"server\"]", "\"hostRewriteLiteral\":\"h.example\"" } },
        { "cors",
          { VS("  hosts: [curl]\n  http:\n  - corsPolicy: {allowOrigins: [{exact: 'https://o'}], allowMethods: [GET, PUT], maxAge: 24h, allowCredentials: true}\n" TO_CURL) },
          SIDECAR_, TRANSLATE_ROUTES, "80",
          { "\"envoy.filters.http.cors\"", "\"allowMethods\":\"GET,PUT\"", "\"maxAge\":\"86400\"", "\"allowCredentials\":true", "{\"exact\":\"https://o\"}" } },
        /* --- hosts --- */
        { "short names in the own namespace, long ones elsewhere",
          { NULL },
          SIDECAR_, TRANSLATE_ROUTES, "80",
          { "[\"curl.curl.svc.cluster.local\",\"curl.curl.svc.cluster.local.\",\"curl\",\"curl.curl.svc\",\"curl.curl\",\"10.96.0.30\"]",
            "[\"istio-egressgateway.istio-system.svc.cluster.local\",\"istio-egressgateway.istio-system.svc.cluster.local.\","
            "\"istio-egressgateway.istio-system\",\"istio-egressgateway.istio-system.svc\",\"10.96.0.20\"]" } },
        { "a wildcard VirtualService routes the hosts it covers",
          { WEB, VS("  hosts: ['*.example']\n  http:\n  - directResponse: {status: 200}\n") },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "\"name\":\"web.example:80\"", "\"directResponse\":{\"status\":200}" } },
        { "a VirtualService for a host that nobody declares",
          { VS("  hosts: [nobody.example]\n  http:\n  - directResponse: {status: 200}\n") },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "\"name\":\"nobody.example:80\"" } },
        { "one that is not exported is not seen",
          { "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s, namespace: default}\nspec: {hosts: [hid.example], exportTo: ['.'], "
            "resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}\n" },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "!hid.example" } },
        { "why nothing is there, by host and port",
          { WEB },
          SIDECAR_, TRANSLATE_ROUTES, "80",
          { "\"postern\":{\"reason\":\"no ServiceEntry or Service admits %REQ(:AUTHORITY)%:80 and meshConfig.outboundTrafficPolicy.mode is REGISTRY_ONLY: add a "
            "ServiceEntry for it\"}" } },
        /* --- listeners --- */
        { "a ServiceEntry with an address listens on it",
          { SE("  hosts: [db.example]\n  addresses: [192.0.2.7]\n  ports: [{number: 5432, name: db, protocol: TCP}]\n  resolution: DNS\n") },
          SIDECAR_, TRANSLATE_LISTENERS, "192.0.2.7_5432", { "\"cluster\":\"outbound|5432||db.example\"", "!defaultFilterChain" } },
        { "one with a network shares the port",
          { SE("  hosts: [net.example]\n  addresses: [192.0.2.0/24]\n  ports: [{number: 5432, name: db, protocol: TCP}]\n") },
          SIDECAR_, TRANSLATE_LISTENERS, "0.0.0.0_5432", { "\"prefixRanges\":[{\"addressPrefix\":\"192.0.2.0\",\"prefixLen\":24}]", "\"cluster\":\"BlackHoleCluster\"" } },
        { "several TLS hosts on a port, a wildcard among them",
          { WEB, "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: w, namespace: default}\nspec: {hosts: ['*.wild.example'], "
                 "ports: [{number: 443, name: tls, protocol: TLS}]}\n" },
          SIDECAR_, TRANSLATE_LISTENERS, "0.0.0.0_443", { "[\"web.example\"]", "[\"*.wild.example\"]", "tls_inspector", "!http_inspector",
                                                           "%REQUESTED_SERVER_NAME%:443 (%DOWNSTREAM_LOCAL_ADDRESS%)" } },
        { "tls routes with weights",
          { WEB, VS("  hosts: [web.example]\n  tls:\n  - match: [{port: 443, sniHosts: [web.example]}]\n    route:\n"
                    "    - {destination: {host: web.example, port: {number: 443}}, weight: 9}\n    - {destination: {host: curl, port: {number: 80}}, weight: 1}\n") },
          SIDECAR_, TRANSLATE_LISTENERS, "0.0.0.0_443",
          { "\"statPrefix\":\"v.curl\"", "{\"name\":\"outbound|443||web.example\",\"weight\":9},{\"name\":\"outbound|80||curl.curl.svc.cluster.local\",\"weight\":1}",
            "virtual-service/v" } },
        { "a port of unknown protocol: HTTP if it looks like it, else TCP",
          { "apiVersion: v1\nkind: Service\nmetadata: {name: any, namespace: curl}\nspec: {clusterIP: 10.96.0.50, ports: [{name: x, port: 9000}]}\n" },
          SIDECAR_, TRANSLATE_LISTENERS, "10.96.0.50_9000",
          { "\"applicationProtocols\":[\"http/1.1\",\"h2c\"]", "\"routeConfigName\":\"any.curl.svc.cluster.local:9000\"",
            "\"cluster\":\"outbound|9000||any.curl.svc.cluster.local\"", "http_inspector" } },
        { "its route table takes any host",
          { "apiVersion: v1\nkind: Service\nmetadata: {name: any, namespace: curl}\nspec: {clusterIP: 10.96.0.50, ports: [{name: x, port: 9000}]}\n" },
          SIDECAR_, TRANSLATE_ROUTES, "any.curl.svc.cluster.local:9000", { "\"domains\":[\"*\"]", "!block_all" } },
        { "a headless TCP service listens on its pods",
          { "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: curl}\nspec: {clusterIP: None, ports: [{name: tcp-db, port: 5432}]}\n",
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: db-1, namespace: curl, labels: {kubernetes.io/service-name: db}}\n"
            "ports: [{name: tcp-db, port: 5432}]\nendpoints: [{addresses: [10.244.0.40]}]\n" },
          SIDECAR_, TRANSLATE_LISTENERS, "10.244.0.40_5432", { "\"cluster\":\"outbound|5432||db.curl.svc.cluster.local\"" } },
        { "appProtocol wins over the port's name",
          { "apiVersion: v1\nkind: Service\nmetadata: {name: g, namespace: curl}\nspec: {clusterIP: 10.96.0.51, ports: [{name: tcp-x, port: 9001, appProtocol: grpc}]}\n" },
          SIDECAR_, TRANSLATE_CLUSTERS, "outbound|9001||g.curl.svc.cluster.local", { "\"http2ProtocolOptions\":{}" } },
        /* --- clusters --- */
        { "resolution NONE",
          { SE("  hosts: ['*.wild.example']\n  ports: [{number: 443, name: tls, protocol: TLS}]\n") },
          SIDECAR_, TRANSLATE_CLUSTERS, "outbound|443||*.wild.example", { "\"type\":\"ORIGINAL_DST\"", "\"lbPolicy\":\"CLUSTER_PROVIDED\"" } },
        { "resolution DNS_ROUND_ROBIN, targetPort",
          { SE("  hosts: [web.example]\n  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]\n  resolution: DNS_ROUND_ROBIN\n") },
          SIDECAR_, TRANSLATE_CLUSTERS, "outbound|80||web.example", { "\"type\":\"LOGICAL_DNS\"", "\"address\":\"web.example\",\"portValue\":8080" } },
        { "resolution STATIC by endpoints",
          { SE("  hosts: [web.example]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: STATIC\n"
               "  endpoints: [{address: 192.0.2.1, weight: 3, locality: r/z}, {address: 192.0.2.2, ports: {http: 8080}}]\n") },
          SIDECAR_, TRANSLATE_ENDPOINTS, "outbound|80||web.example",
          { "{\"region\":\"r\",\"zone\":\"z\"}", "\"loadBalancingWeight\":3", "\"address\":\"192.0.2.2\",\"portValue\":8080" } },
        { "workloadSelector",
          { SE("  hosts: [vm.example]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: STATIC\n  workloadSelector: {labels: {app: vm}}\n"),
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: vm1, namespace: default}\nspec: {address: 192.0.2.9, labels: {app: vm}}\n" },
          SIDECAR_, TRANSLATE_ENDPOINTS, "outbound|80||vm.example", { "\"address\":\"192.0.2.9\"", "vm1;default" } },
        { "connection pool",
          { DR("  host: curl\n  trafficPolicy:\n    loadBalancer: {simple: ROUND_ROBIN}\n    connectionPool:\n"
               "      tcp: {maxConnections: 7, connectTimeout: 3s, tcpKeepalive: {time: 60s, probes: 4}}\n"
               "      http: {http1MaxPendingRequests: 8, http2MaxRequests: 9, maxRetries: 1, maxRequestsPerConnection: 5, idleTimeout: 20s, h2UpgradePolicy: UPGRADE}\n") },
          SIDECAR_, TRANSLATE_CLUSTERS, "outbound|80||curl.curl.svc.cluster.local",
          { "{\"maxConnections\":7,\"maxPendingRequests\":8,\"maxRequests\":9,\"maxRetries\":1}", "\"connectTimeout\":\"3s\"",
            "\"tcpKeepalive\":{\"keepaliveProbes\":4,\"keepaliveTime\":60}", "\"idleTimeout\":\"20s\"", "\"maxRequestsPerConnection\":5", "\"http2ProtocolOptions\":{}" } },
        { "subsets are clusters and endpoints of their own",
          { DR("  host: curl\n  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]\n") },
          SIDECAR_, TRANSLATE_ENDPOINTS, "outbound|80|v1|curl.curl.svc.cluster.local", { "10.244.0.8" } },
        { "a subset that no pod is in",
          { DR("  host: curl\n  subsets: [{name: v2, labels: {version: v2}}]\n") },
          SIDECAR_, TRANSLATE_ENDPOINTS, "outbound|80|v2|curl.curl.svc.cluster.local", { "!10.244.0.8" } },
        { "port level settings replace those of the host",
          { DR("  host: curl\n  trafficPolicy:\n    connectionPool: {tcp: {maxConnections: 7}}\n    portLevelSettings:\n"
               "    - {port: {number: 80}, connectionPool: {http: {http2MaxRequests: 9}}}\n") },
          SIDECAR_, TRANSLATE_CLUSTERS, "outbound|80||curl.curl.svc.cluster.local", { "{\"maxConnections\":4294967295,\"maxPendingRequests\":4294967295,\"maxRequests\":9" } },
        { "a rule of another namespace does not apply",
          { "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d, namespace: default}\nspec: {host: curl.curl.svc.cluster.local, "
            "trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}\n" },
          SIDECAR_, TRANSLATE_CLUSTERS, "outbound|80||curl.curl.svc.cluster.local", { "!\"maxConnections\":7" } },
        { "TLS that cannot be done is not replaced by clear text",
          { WEB, DR("  host: web.example\n  trafficPolicy: {tls: {mode: SIMPLE}}\n") },
          SIDECAR_, TRANSLATE_CLUSTERS, "outbound|443||web.example", { "\"type\":\"STATIC\"", "!loadAssignment", "nothing is sent in clear text instead" } },
        /* --- Sidecar --- */
        { "a Sidecar's egress hosts hide the rest",
          { WEB, SIDECAR("  egress: [{hosts: ['./*']}]\n") },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "curl.curl.svc.cluster.local:80", "!web.example", "!istio-egressgateway" } },
        { "a Sidecar's policy overrides the mesh's",
          { SIDECAR("  outboundTrafficPolicy: {mode: ALLOW_ANY}\n") },
          SIDECAR_, TRANSLATE_ROUTES, "80", { "allow_any", "PassthroughCluster", "!block_all" } },
        /* --- gateways --- */
        { "several hosts and gateways on one port",
          { WEB, GW("  servers:\n  - {port: {number: 80, name: a, protocol: HTTP}, hosts: ['*.example']}\n  - {port: {number: 80, name: b, protocol: HTTP}, hosts: [other.test]}\n"),
            VS("  hosts: [web.example, other.test, not.here]\n  gateways: [g]\n  http: [{route: [{destination: {host: web.example}}]}]\n") },
          GATEWAY, TRANSLATE_ROUTES, "http.8080", { "\"name\":\"other.test:80\"", "\"name\":\"web.example:80\"", "!not.here" } },
        { "httpsRedirect",
          { GW("  servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [web.example], tls: {httpsRedirect: true}}]\n") },
          GATEWAY, TRANSLATE_ROUTES, "http.8080", { "\"domains\":[\"web.example\"]", "\"requireTls\":\"ALL\"" } },
        { "a gateway port without any route answers 404",
          { GW("  servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [web.example]}]\n") },
          GATEWAY, TRANSLATE_ROUTES, "http.8080", { "\"name\":\"blackhole:8080\"", "\"domains\":[\"*\"]" } },
        { "hosts of a server in one namespace only",
          { GW("  servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [other/web.example]}]\n"),
            VS("  hosts: [web.example]\n  gateways: [g]\n  http: [{directResponse: {status: 200}}]\n") },
          GATEWAY, TRANSLATE_ROUTES, "http.8080", { "blackhole", "!directResponse" } },
        { "TCP through a gateway",
          { GW("  servers: [{port: {number: 443, name: t, protocol: TCP}, hosts: ['*']}]\n"),
            VS("  hosts: ['*']\n  gateways: [g]\n  tcp: [{match: [{port: 443}], route: [{destination: {host: curl.curl.svc.cluster.local, port: {number: 80}}}]}]\n") },
          GATEWAY, TRANSLATE_LISTENERS, "0.0.0.0_8443", { "outbound|80||curl.curl.svc.cluster.local", "!tls_inspector", "!filterChainMatch" } },
        /* clang-format on */
};

static void check(const struct feature *f, const char *json)
{
        for (size_t i = 0; i < 6 && f->want[i]; i++) {
                bool absent = f->want[i][0] == '!';

                if ((strstr(json, f->want[i] + absent) != NULL) == absent)
                        fail_msg("%s: %s%s\nin %s", f->title, absent ? "unwanted: " : "missing: ", f->want[i] + absent, json);
        }
}

static void test_feature(void **state)
{
        const struct feature *f = *state;
        struct buf json = BUF_INIT;
        struct world w;
        struct translate_config *c;
        ProtobufCMessage *m;

        world_init(&w, false);
        for (size_t i = 0; i < 3 && f->yaml[i]; i++)
                world_apply(&w, f->yaml[i]);
        c = world_build(&w, f->who == GATEWAY ? &w.gateway : &w.sidecar);
        m = world_get(&w, c, f->type, f->name);
        if (!m)
                fail_msg("%s: no %s", f->title, f->name);
        pb_to_json(m, 0, &json);
        check(f, buf_z(&json));
        buf_fini(&json);
        if (envoy_path())
                envoy_validates(&w, c, f->title);
        translate_config_unref(c);
        world_fini(&w);
}

int main(void)
{
        static struct CMUnitTest tests[ARRAY_LEN(features)];

        for (size_t i = 0; i < ARRAY_LEN(features); i++) {
                tests[i].name = features[i].title;
                tests[i].test_func = test_feature;
                tests[i].initial_state = (void *)&features[i];
        }
        return cmocka_run_group_tests(tests, NULL, NULL);
}
