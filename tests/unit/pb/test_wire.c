#include "test.h"

#define CLUSTER  "envoy.config.cluster.v3.Cluster"
#define LISTENER "envoy.config.listener.v3.Listener"

/* Bytes that are no message of the type. */
static const struct {
        const char *type, *bytes;
        size_t n;
        const char *error;
} broken[] = {
        { CLUSTER,
          "\x0a\x05"
          "ab",
          4, "name: the bytes of field 1 are not a string (UTF-8 without NUL)\n" },
        { CLUSTER,
          "\x0a\x02"
          "a\0",
          4, "name: the bytes of field 1 are not a string (UTF-8 without NUL)\n" },
        { CLUSTER, "\x0a\x02\xc3\x28", 4, "name: the bytes of field 1 are not a string (UTF-8 without NUL)\n" },
        { CLUSTER, "\x08\x01", 2, "name: the bytes of field 1 are not a string (UTF-8 without NUL)\n" },
        { CLUSTER, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "not the bytes of a Cluster\n" },
        { CLUSTER, "\x00", 1, "not the bytes of a Cluster\n" },
        { "google.protobuf.Duration", "\x08\x80", 2, "seconds: the bytes of field 1 are not a value of its type\n" },
};

static void breaking(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
                struct bench b;

                bench_up(&b);
                assert_null(pb_unpack(type(broken[i].type), broken[i].bytes, broken[i].n, &b.a, &b.d));
                diags_format(&b.d, &b.out);
                assert_string_equal(buf_z(&b.out), broken[i].error);
                assert_null(pb_unpack(type(broken[i].type), broken[i].bytes, broken[i].n, &b.a, NULL));
                bench_down(&b);
        }
}

/* Structs in structs, deeper than any stack: refused, not run into. */
static void deep(void **state)
{
        struct bench b;
        struct buf in = BUF_INIT, out = BUF_INIT;

        bench_up(&b);
        for (int i = 0; i < 400; i++) { /* ListValue { values: Value { list_value: ... } } */
                out.n = 0;
                buf_char(&out, i % 2 ? 0x0a : 0x32);
                for (size_t n = in.n;; n >>= 7) {
                        buf_char(&out, (char)(n >= 0x80 ? n | 0x80 : n));
                        if (n < 0x80)
                                break;
                }
                buf_str(&out, buf_view(&in));
                struct buf t = in;

                in = out;
                out = t;
        }
        assert_null(pb_unpack(type("google.protobuf.ListValue"), in.p, in.n, &b.a, &b.d));
        diags_format(&b.d, &b.out);
        assert_non_null(strstr(buf_z(&b.out), "more than 100 levels deep"));
        buf_fini(&in);
        buf_fini(&out);
        bench_down(&b);
}

/* Our packer and unpacker against protobuf-c's own. */
static void both_ways(void **state)
{
        static const struct {
                const char *type, *text;
        } texts[] = {
                { CLUSTER,
                  "name: a\nconnectTimeout: 1.5s\nlbPolicy: RANDOM\nmetadata: {filterMetadata: {z: {a: [1, x, {y: null}]}, b: {}}}\n" },
                { LISTENER, "name: l\nuseOriginalDst: true\nfilterChains: [{filters: [{name: a}, {name: b}]}, {}]\n" },
                { "k8s.io.api.core.v1.Pod",
                  "metadata: {labels: {z: 1, a: 2}, generation: -5}\nspec: {terminationGracePeriodSeconds: 30}\n" },
        };

        for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
                struct bench b;
                struct buf w = BUF_INIT;

                bench_up(&b);
                ProtobufCMessage *m = make(&b, texts[i].type, texts[i].text);

                assert_non_null(m);
                pb_pack(m, &w);
                assert_int_equal(w.n, protobuf_c_message_get_packed_size(m));
                ProtobufCMessage *theirs = protobuf_c_message_unpack(m->descriptor, NULL, w.n, (uint8_t *)w.p);
                ProtobufCMessage *ours = pb_unpack(m->descriptor, w.p, w.n, &b.a, &b.d);

                assert_non_null(theirs);
                assert_true(pb_equal(m, theirs));
                assert_true(pb_equal(m, ours));
                protobuf_c_message_free_unpacked(theirs, NULL);
                /* Cut anywhere, it is either refused or a shorter message; never read past its end (the sanitizers look). */
                for (size_t n = 0; n < w.n; n++) {
                        char *cut = mem_dup(w.p, n);

                        pb_unpack(m->descriptor, cut, n, &b.a, NULL);
                        free(cut);
                }
                buf_fini(&w);
                bench_down(&b);
        }
}

static void unknown(void **state)
{
        struct bench b;
        struct buf again = BUF_INIT;
        /* name "a", field 1000 varint 7, an Any-typed extension with field 999 inside */
        static const char any[] = "\x0a\x01"
                                  "a"
                                  "\xc0\x3e\x07";

        bench_up(&b);
        ProtobufCMessage *m = pb_unpack(type(CLUSTER), any, sizeof(any) - 1, &b.a, &b.d);

        assert_non_null(m);
        diags_format(&b.d, &b.out);
        assert_string_equal(buf_z(&b.out), "warning: unknown field number 1000 of envoy.config.cluster.v3.Cluster\n");
        pb_pack(m, &again);
        assert_int_equal(again.n, sizeof(any) - 1);
        assert_memory_equal(again.p, any, again.n);
        diags_clear(&b.d);

        struct buf w = BUF_INIT;

        buf_cstr(&w, "\x0a\x21x/envoy.config.cluster.v3.Cluster");
        buf_char(&w, 0x12);
        buf_char(&w, sizeof(any) - 1);
        buf_append(&w, any, sizeof(any) - 1);
        assert_non_null(pb_unpack(type("google.protobuf.Any"), w.p, w.n, &b.a, &b.d));
        assert_int_equal(b.d.n, 1);
        buf_fini(&w);
        buf_fini(&again);
        bench_down(&b);
}

/* The last of a oneof counts; a submessage that comes twice is merged; lists come packed or not. */
static void merging(void **state)
{
        struct bench b;
        static const char value[] = "\x1a\x01x\x20\x01"; /* string_value "x", bool_value true */

        bench_up(&b);
        ProtobufCMessage *m = pb_unpack(type("google.protobuf.Value"), value, sizeof(value) - 1, &b.a, &b.d);

        assert_non_null(m);
        pb_to_json(m, 0, &b.out);
        assert_string_equal(buf_z(&b.out), "true");

        /* Cluster.connect_timeout = 4, {seconds: 5} then {nanos: 128} */
        static const char twice[] = "\x22\x02\x08\x05\x22\x03\x10\x80\x01";

        m = pb_unpack(type(CLUSTER), twice, sizeof(twice) - 1, &b.a, &b.d);
        assert_non_null(m);
        b.out.n = 0;
        pb_to_json(m, 0, &b.out);
        assert_string_equal(buf_z(&b.out), "{\"connectTimeout\":\"5.000000128s\"}");

        /* OutlierDetection.outlier_detection_http_error_codes = 10: 500 alone, then 501 and 502 packed */
        static const char codes[] = "\x50\xf4\x03\x52\x04\xf5\x03\xf6\x03";

        m = pb_unpack(type("istio.networking.v1alpha3.OutlierDetection"), codes, sizeof(codes) - 1, &b.a, &b.d);
        assert_non_null(m);
        b.out.n = 0;
        pb_to_json(m, 0, &b.out);
        assert_string_equal(buf_z(&b.out), "{\"outlierDetectionHttpErrorCodes\":[500,501,502]}");
        bench_down(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(breaking), cmocka_unit_test(deep),    cmocka_unit_test(both_ways),
                cmocka_unit_test(unknown),  cmocka_unit_test(merging),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
