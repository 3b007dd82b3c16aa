#include "test.h"

#include <pthread.h>

#define CLUSTER  "envoy.config.cluster.v3.Cluster"
#define LISTENER "envoy.config.listener.v3.Listener"
#define VS       "istio.networking.v1alpha3.VirtualService"
#define POD      "k8s.io.api.core.v1.Pod"

/* text of a type -> its JSON, or what is said about it */
static const struct {
        const char *type, *text, *want, *error;
} cases[] = {
        { CLUSTER, "name: a\nconnect_timeout: 0.25s\ntype: STRICT_DNS\n",
          "{\"name\":\"a\",\"type\":\"STRICT_DNS\",\"connectTimeout\":\"0.250s\"}", NULL },
        { CLUSTER, "name: no\n", "{\"name\":\"no\"}", NULL },
        { CLUSTER, "name: 80\n", "{\"name\":\"80\"}", NULL },
        { CLUSTER, "{\"name\": true}", NULL, "t:1:10: name: expected a string, got a boolean \"true\"\n" },
        { CLUSTER, "{\"name\": 80}", NULL, "t:1:10: name: expected a string, got a number \"80\"\n" },
        { CLUSTER, "nam: a\n", NULL, "t:1:1: nam: unknown field (did you mean \"name\"?)\n" },
        { CLUSTER, "Connect-Timeout: 1s\n", NULL, "t:1:1: Connect-Timeout: unknown field (did you mean \"connectTimeout\"?)\n" },
        { CLUSTER, "zzzzz: a\n", NULL, "t:1:1: zzzzz: unknown field of Cluster\n" },
        { CLUSTER, "type: strict_dns\n", NULL, "t:1:7: type: unknown value \"strict_dns\" (did you mean \"STRICT_DNS\"?)\n" },
        { CLUSTER, "type: 2\n", "{\"type\":\"LOGICAL_DNS\"}", NULL },
        { CLUSTER, "type: 77\n", NULL,
          "t:1:7: type: unknown value \"77\": it is one of STATIC, STRICT_DNS, LOGICAL_DNS, EDS, ORIGINAL_DST\n" },
        { CLUSTER, "connect_timeout: 1h\n", NULL,
          "t:1:18: connect_timeout: expected a duration in seconds such as \"5s\" or \"0.250s\", got \"1h\"\n" },
        { CLUSTER, "connect_timeout: 1s\nconnectTimeout: 1s\n", NULL,
          "t:2:1: connectTimeout: this field is there twice, by its two names: remove one\n" },
        { CLUSTER, "name:\nconnectTimeout: null\n", "{}", NULL },
        { CLUSTER, "[1]", NULL, "t:1:1: expected an object (Cluster), got a list\n" },
        { CLUSTER, "{\"loadAssignment\":{\"endpoints\":[{\"lbEndpoints\":{}}]}}", NULL,
          "t:1:48: loadAssignment.endpoints[0].lbEndpoints: expected a list, got an object (is a \"- \" missing?)\n" },
        { LISTENER, "address: {socketAddress: {address: 0.0.0.0, portValue: 80, namedPort: http}}\n", NULL,
          "t:1:71: address.socketAddress.namedPort: only one of \"portValue\" and \"namedPort\" can be set\n" },
        { LISTENER, "address: {socketAddress: {address: 0.0.0.0, portValue: -1}}\n", NULL,
          "t:1:56: address.socketAddress.portValue: out of range: -1 is not between 0 and 4294967295\n" },
        { LISTENER, "address: {socketAddress: {portValue: 1.5}}\n", NULL,
          "t:1:38: address.socketAddress.portValue: expected a whole number, got a number \"1.5\"\n" },
        { LISTENER, "use_original_dst: yes\n", "{\"useOriginalDst\":true}", NULL },
        { LISTENER, "{\"useOriginalDst\": \"true\"}", NULL, "t:1:20: useOriginalDst: expected true or false, got a string \"true\"\n" },
        { "google.protobuf.Struct", "{\"a\":{\"b\":[1,0.1,\"x\",false,null]},\"c\":1e21}",
          "{\"a\":{\"b\":[1,0.1,\"x\",false,null]},\"c\":1e+21}", NULL },
        { "google.protobuf.Value", "[null]", "[null]", NULL },
        { "google.protobuf.BytesValue", "\"_-8\"", "\"/+8=\"", NULL },
        { "google.protobuf.Int64Value", "\"-9223372036854775808\"", "\"-9223372036854775808\"", NULL },
        { "google.protobuf.UInt32Value", "\"4294967296\"", NULL, "t:1:1: out of range: 4294967296 is not between 0 and 4294967295\n" },
        { "google.protobuf.DoubleValue", "\"-Infinity\"", "\"-Infinity\"", NULL },
        { "google.protobuf.Duration", "\"-1.000000001s\"", "\"-1.000000001s\"", NULL },
        { "google.protobuf.Duration", "\"315576000001s\"", NULL,
          "t:1:1: expected a duration in seconds such as \"5s\" or \"0.250s\", got \"315576000001s\"\n" },
        { "google.protobuf.Timestamp", "\"2024-02-29T23:59:60.5+01:00\"", "\"2024-02-29T23:00:00.500Z\"", NULL },
        { "google.protobuf.Timestamp", "\"2023-02-29T00:00:00Z\"", NULL,
          "t:1:1: expected a time such as \"2026-11-24T06:05:00Z\", got \"2023-02-29T00:00:00Z\"\n" },
        { "google.protobuf.Any", "{\"@type\":\"type.googleapis.com/google.protobuf.Duration\",\"value\":\"1s\"}",
          "{\"@type\":\"type.googleapis.com/google.protobuf.Duration\",\"value\":\"1s\"}", NULL },
        { "google.protobuf.Any", "{\"@type\":\"type.googleapis.com/" CLUSTER "\",\"name\":\"a\"}",
          "{\"@type\":\"type.googleapis.com/" CLUSTER "\",\"name\":\"a\"}", NULL },
        { "google.protobuf.Any", "{\"@type\":\"type.googleapis.com/" CLUSTER "\",\"naem\":\"a\"}", NULL,
          "t:1:64: naem: unknown field (did you mean \"name\"?)\n" },
        { "google.protobuf.Any", "{\"@type\":\"type.googleapis.com/envoy.config.cluster.v3.Clutser\",\"name\":\"a\"}", NULL,
          "t:1:10: @type: unknown type \"type.googleapis.com/envoy.config.cluster.v3.Clutser\" (did you mean "
          "\"envoy.config.cluster.v3.Cluster\"?)\n" },
        { "google.protobuf.Any", "{\"@type\":\"x/q.Z\",\"value\":\"AAE=\"}", "{\"@type\":\"x/q.Z\",\"value\":\"AAE=\"}", NULL },
        { "google.protobuf.Any", "{\"name\":\"a\"}", NULL,
          "t:1:1: expected an object with \"@type\", such as \"type.googleapis.com/envoy.config.cluster.v3.Cluster\"\n" },
        { POD, "metadata: {name: a, labels: {app.kubernetes.io/name: 1, b: no}, creationTimestamp: null, generation: 3}\n",
          "{\"metadata\":{\"name\":\"a\",\"generation\":3,\"labels\":{\"app.kubernetes.io/name\":\"1\",\"b\":\"no\"}}}", NULL },
        { POD, "metadata: {labels: {app.kubernetes.io/name: [1]}}\n", NULL,
          "t:1:45: metadata.labels[app.kubernetes.io/name]: expected a string, got a list\n" },
        { POD,
          "spec: {containers: [{name: c, livenessProbe: {tcpSocket: {port: http}, httpGet: {port: 80}}, resources: {limits: {cpu: 0.5, "
          "memory: 64Mi}}}]}\n",
          "{\"spec\":{\"containers\":[{\"name\":\"c\",\"resources\":{\"limits\":{\"cpu\":\"0.5\",\"memory\":\"64Mi\"}},\"livenessProbe\":{"
          "\"httpGet\":{\"port\":80},"
          "\"tcpSocket\":{\"port\":\"http\"}}}]}}",
          NULL },
        { POD, "spec: {containers: [{resources: {limits: {memory: 64MB}}}]}\n", NULL,
          "t:1:51: spec.containers[0].resources.limits.memory: expected a quantity such as \"100m\" or \"64Mi\", got \"64MB\"\n" },
        { VS,
          "http: [{timeout: 1h30m, retries: {perTryTimeout: 250ms, retryOn: 5xx}, route: [{destination: {host: a, port: {number: "
          "80}}}]}]\n",
          "{\"http\":[{\"route\":[{\"destination\":{\"host\":\"a\",\"port\":{\"number\":80}}}],\"timeout\":\"5400s\",\"retries\":{"
          "\"perTryTimeout\":\"0.250s\","
          "\"retryOn\":\"5xx\"}}]}",
          NULL },
        { VS, "http: [{match: [{uri: /x}]}]\n", NULL,
          "t:1:23: http[0].match[0].uri: expected an object with \"exact\", \"prefix\" or \"regex\", got a string\n" },
        { VS, "hosts: a\n", NULL, "t:1:8: hosts: expected a list, got a string (is a \"- \" missing?)\n" },
        { VS, "http:\n- rout: []\n", NULL, "t:2:3: http[0].rout: unknown field (did you mean \"route\"?)\n" },
        { VS, "http:\n  route: []\n", NULL, "t:2:3: http: expected a list, got an object (is a \"- \" missing?)\n" },
        { VS, "http: [{match: [{uri: {prefix: /, exact: /}}]}]\n", NULL,
          "t:1:42: http[0].match[0].uri.exact: only one of \"prefix\" and \"exact\" can be set\n" },
        { VS, "http: [{timeout: 5 minutes}]\n", NULL,
          "t:1:18: http[0].timeout: expected a duration such as \"5s\", \"250ms\" or \"1h30m\", got \"5 minutes\"\n" },
        { VS, "http: [{timeout: 5}]\n", NULL,
          "t:1:18: http[0].timeout: expected a duration such as \"5s\", \"250ms\" or \"1h30m\", got \"5\"\n" },
        { "istio.security.v1beta1.PeerAuthentication", "portLevelMtls: {8080: {mode: STRICT}, 80: {mode: DISABLE}}\n",
          "{\"portLevelMtls\":{\"80\":{\"mode\":\"DISABLE\"},\"8080\":{\"mode\":\"STRICT\"}}}", NULL },
        { "istio.security.v1beta1.PeerAuthentication", "portLevelMtls: {http: {mode: STRICT}}\n", NULL,
          "t:1:17: portLevelMtls.http: expected a whole number, got a string \"http\"\n" },
        { "istio.networking.v1alpha3.ServiceEntry", "ports: [{number: 70000000000, name: http, protocol: HTTP}]\nresolution: dns\n", NULL,
          "t:1:18: ports[0].number: out of range: 70000000000 is not between 0 and 4294967295\nt:2:13: resolution: unknown value \"dns\" "
          "(did you "
          "mean \"DNS\"?)\n" },
        { "istio.networking.v1alpha3.Gateway", "selector: {a: , b: on}\n", "{\"selector\":{\"a\":\"\",\"b\":\"on\"}}", NULL },
        { "istio.mesh.v1alpha1.MeshConfig",
          "accessLogFile: /dev/stdout\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\nmesh_mTLS: {minProtocolVersion: TLSV1_3}\n",
          "{\"accessLogFile\":\"/dev/"
          "stdout\",\"outboundTrafficPolicy\":{\"mode\":\"REGISTRY_ONLY\"},\"meshMTLS\":{\"minProtocolVersion\":\"TLSV1_3\"}}",
          NULL },
        { "google.protobuf.FieldMask", "\"a.bC,d\"", "\"a.bC,d\"", NULL },
        { "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime", "\"2026-11-24T06:05:00.123456789Z\"", "\"2026-11-24T06:05:00.123456Z\"", NULL },
        { "k8s.io.apimachinery.pkg.runtime.RawExtension", "{\"a\":[1,{}]}", "{\"a\":[1,{}]}", NULL },
};

static void reading(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
                struct bench b;

                bench_up(&b);
                ProtobufCMessage *m = make(&b, cases[i].type, cases[i].text);

                if (cases[i].error) {
                        if (m)
                                fail_msg("accepted: %s", cases[i].text);
                        assert_string_equal(buf_z(&b.out), cases[i].error);
                } else {
                        if (!m)
                                fail_msg("%s: %s", cases[i].text, buf_z(&b.out));
                        b.out.n = 0;
                        pb_to_json(m, 0, &b.out);
                        assert_string_equal(buf_z(&b.out), cases[i].want);
                }
                bench_down(&b);
        }
}

/* All that is wrong is said, with the base's file, resource and path before it. */
static void all_errors(void **state)
{
        struct bench b;
        struct diag_at at = { .file = STR("f.yaml"), .resource = STR("Pod default/a"), .path = STR("spec") };

        bench_up(&b);
        struct pb_node *n = parse(&b, "name: [a]\ntype: X\n");

        assert_null(pb_from_node(type(CLUSTER), n, 0, &at, &b.a, &b.d));
        assert_int_equal(b.d.errors, 2);
        diags_format(&b.d, &b.out);
        assert_non_null(strstr(buf_z(&b.out), "f.yaml:1:7: Pod default/a: spec.name: expected a string, got a list\n"));
        assert_non_null(strstr(buf_z(&b.out), "f.yaml:2:7: Pod default/a: spec.type: unknown value \"X\""));
        diags_clear(&b.d);
        n = parse(&b, "name: a\nnext: b\n");
        assert_non_null(pb_from_node(type(CLUSTER), n, PB_UNKNOWN_WARN, &at, &b.a, &b.d));
        assert_int_equal(b.d.errors, 0);
        assert_int_equal(b.d.n, 1);
        bench_down(&b);
}

static void collect(void *arg, struct str path)
{
        buf_str(arg, path);
        buf_char(arg, ';');
}

static void comparing(void **state)
{
        static const char base[] = "{\"name\":\"l\",\"filterChains\":[{\"filters\":[{\"name\":\"f\",\"typedConfig\":{\"@type\":\"t/"
                                   "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\",\"cluster\":\"a\"}}]}],"
                                   "\"metadata\":{\"filterMetadata\":{\"x\":{\"k\":1},\"y\":{}}}}";
        static const char other[] = "{\"name\":\"m\",\"filterChains\":[{\"filters\":[{\"name\":\"f\",\"typedConfig\":{\"@type\":\"t/"
                                    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\",\"cluster\":\"b\"}}]},{}],"
                                    "\"metadata\":{\"filterMetadata\":{\"y\":{},\"x\":{\"k\":2}}}}";
        struct bench b;

        bench_up(&b);
        ProtobufCMessage *m = make(&b, LISTENER, base), *o = make(&b, LISTENER, other), *c = pb_clone_message(m, &b.a);

        assert_non_null(m);
        assert_non_null(o);
        assert_true(pb_equal(m, c));
        assert_true(pb_hash(m) == pb_hash(c));
        assert_false(pb_equal(m, o));
        assert_true(pb_hash(m) != pb_hash(o));
        b.out.n = 0;
        pb_diff(m, o, collect, &b.out);
        assert_string_equal(buf_z(&b.out),
                            "name;filter_chains[0].filters[0].typed_config.cluster;filter_chains[1];metadata.filter_metadata.x;");
        b.out.n = 0;
        pb_diff(m, c, collect, &b.out);
        assert_int_equal(b.out.n, 0);
        bench_down(&b);
}

static void *reader(void *arg)
{
        struct bench b;

        bench_up(&b);
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
                ProtobufCMessage *m = make(&b, cases[i].type, cases[i].text);

                if (!m != !cases[i].want)
                        return "differs";
                diags_clear(&b.d);
        }
        bench_down(&b);
        return NULL;
}

/* What is worked out about a type at its first use is shared by all threads. The first test here, so that it is the first use. */
static void threads(void **state)
{
        pthread_t t[8];

        for (size_t i = 0; i < ARRAY_LEN(t); i++)
                assert_int_equal(pthread_create(&t[i], NULL, reader, NULL), 0);
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                void *wrong;

                pthread_join(t[i], &wrong);
                assert_null(wrong);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(threads), cmocka_unit_test(reading), cmocka_unit_test(all_errors),
                                            cmocka_unit_test(comparing) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
