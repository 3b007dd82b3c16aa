#include "test.h"

#include "pb/schema.h"

static struct pb_node *schema(struct bench *b, const char *name, enum pb_schema_kind kind)
{
        struct pb_schema_opts o = { .kind = kind, .ref_prefix = kind == PB_SCHEMA_V2 ? "#/definitions/" : "#/components/schemas/" };
        struct pb_node *n;

        b->out.n = 0;
        pb_schema_json(type(name), &o, &b->out);
        if (!pb_parse_json(buf_view(&b->out), STR("schema"), &b->a, &n, &b->d)) {
                diags_format(&b->d, &b->out);
                fail_msg("%s", buf_z(&b->out));
        }
        return n;
}

static const struct {
        const char *type;
        enum pb_schema_kind kind;
        const char *path, *want;
} cases[] = {
        { "istio.networking.v1alpha3.ServiceEntry", PB_SCHEMA_STRUCTURAL, "properties.resolution.enum",
          "[\"NONE\",\"STATIC\",\"DNS\",\"DNS_ROUND_ROBIN\",\"DYNAMIC_DNS\"]" },
        { "istio.networking.v1alpha3.ServiceEntry", PB_SCHEMA_STRUCTURAL, "properties.ports.items.properties.number.type", "\"integer\"" },
        { "istio.networking.v1alpha3.ServiceEntry", PB_SCHEMA_V2, "properties.hosts.description", "\"Its names.\"" },
        { "istio.networking.v1alpha3.ServiceEntry", PB_SCHEMA_V3, "properties.ports.items.$ref", NULL },
        { "istio.networking.v1alpha3.Gateway", PB_SCHEMA_V2, "properties.selector.additionalProperties", "{\"type\":\"string\"}" },
        { "istio.networking.v1alpha3.HTTPRetry", PB_SCHEMA_V3, "properties.retryIgnorePreviousHosts.nullable", "true" },
        { "istio.networking.v1alpha3.StringMatch", PB_SCHEMA_STRUCTURAL, "allOf",
          "[{\"oneOf\":[{\"not\":{\"anyOf\":[{\"required\":[\"exact\"]},{\"required\":[\"prefix\"]},{\"required\":[\"regex\"]}]}},{"
          "\"required\":[\"exact\"]},"
          "{\"required\":[\"prefix\"]},{\"required\":[\"regex\"]}]}]" },
        { "istio.networking.v1alpha3.StringMatch", PB_SCHEMA_V2, "allOf", NULL },
        { "istio.networking.v1alpha3.EnvoyFilter.Patch", PB_SCHEMA_STRUCTURAL, "properties.value.x-kubernetes-preserve-unknown-fields",
          "true" },
        { "k8s.io.api.core.v1.ServicePort", PB_SCHEMA_V2, "properties.targetPort.format", "\"int-or-string\"" },
        { "k8s.io.api.core.v1.ResourceRequirements", PB_SCHEMA_V3, "properties.limits.additionalProperties.oneOf",
          "[{\"type\":\"string\"},{\"type\":\"number\"}]" },
        { "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta", PB_SCHEMA_V2, "properties.creationTimestamp.format", "\"date-time\"" },
        { "k8s.io.api.core.v1.Secret", PB_SCHEMA_V2, "properties.data.additionalProperties.format", "\"byte\"" },
};

static void schemas(void **state)
{
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
                struct bench b;
                struct buf got = BUF_INIT;

                bench_up(&b);
                struct pb_node *n = pb_get_path(schema(&b, cases[i].type, cases[i].kind), cases[i].path);

                if (!n && cases[i].want)
                        fail_msg("no %s in %s", cases[i].path, buf_z(&b.out));
                if (n && cases[i].want) {
                        pb_node_json(n, &got);
                        assert_string_equal(buf_z(&got), cases[i].want);
                }
                buf_fini(&got);
                bench_down(&b);
        }
}

/* Every $ref of every schema is in the closure. */
static void refs_of(struct pb_node *n, const char *prefix, struct buf *all, size_t *count)
{
        struct pb_node *ref = pb_get(n, "$ref");

        if (ref && ref->kind == PB_STRING) {
                struct buf want = BUF_INIT;

                assert_true(str_starts(ref->text, str_of(prefix)));
                buf_printf(&want, ";" STR_FMT ";", STR_ARG(str_sub(ref->text, strlen(prefix), ref->text.n)));
                if (!strstr(buf_z(all), buf_z(&want)))
                        fail_msg("%s is not among the definitions", buf_z(&want));
                buf_fini(&want);
                ++*count;
        }
        for (size_t i = 0; i < n->n; i++)
                refs_of(n->v[i], prefix, all, count);
}

static void closure(void **state)
{
        const ProtobufCMessageDescriptor *roots[] = { type("k8s.io.api.core.v1.Pod"), type("istio.networking.v1alpha3.VirtualService") };
        struct bench b;
        struct buf all = BUF_INIT;
        size_t n, count = 0;

        bench_up(&b);
        const ProtobufCMessageDescriptor **v = pb_schema_closure(roots, 2, &n);

        assert_true(n > 50);
        for (size_t i = 0; i < n; i++) {
                buf_char(&all, ';');
                pb_schema_name(v[i], &all);
                buf_char(&all, ';');
        }
        for (size_t i = 0; i < n; i++) {
                refs_of(schema(&b, v[i]->name, PB_SCHEMA_V2), "#/definitions/", &all, &count);
                refs_of(schema(&b, v[i]->name, PB_SCHEMA_V3), "#/components/schemas/", &all, &count);
        }
        assert_true(count > 100);
        free(v);
        buf_fini(&all);
        bench_down(&b);
}

static void patch_extra(void *arg, const ProtobufCMessageDescriptor *t, const ProtobufCFieldDescriptor *f, const char *json_name,
                        struct buf *out)
{
        if (!strcmp(json_name, "containers"))
                buf_cstr(out, ",\"x-kubernetes-patch-merge-key\":\"name\"");
}

static void objects(void **state)
{
        static const struct pb_schema_object pod = { "", "v1", "Pod", NULL, false },
                                             gw = { "networking.istio.io", "v1", "Gateway", NULL, true };
        struct pb_schema_object p = pod, g = gw;
        struct bench b;

        bench_up(&b);
        p.type = type("k8s.io.api.core.v1.Pod");
        g.type = type("istio.networking.v1alpha3.Gateway");
        for (enum pb_schema_kind k = PB_SCHEMA_V2; k <= PB_SCHEMA_STRUCTURAL; k++) {
                struct pb_schema_opts o = { .kind = k, .ref_prefix = "#/d/", .extra = patch_extra };
                struct pb_node *n;

                for (int i = 0; i < 4; i++) {
                        b.out.n = 0;
                        (i < 2 ? pb_schema_object_json : pb_schema_list_json)(i % 2 ? &p : &g, &o, &b.out);
                        assert_true(pb_parse_json(buf_view(&b.out), STR("s"), &b.a, &n, &b.d));
                        assert_non_null(pb_get_path(n, "properties.apiVersion"));
                        assert_non_null(pb_get_path(n, "properties.metadata"));
                        assert_non_null(pb_get_path(n, i < 2 ? "properties.spec" : "properties.items.items.$ref"));
                        assert_true(k == PB_SCHEMA_STRUCTURAL || pb_get(n, "x-kubernetes-group-version-kind"));
                }
        }
        b.out.n = 0;
        pb_schema_object_name(&p, false, &b.out);
        buf_char(&b.out, ' ');
        pb_schema_object_name(&g, true, &b.out);
        assert_string_equal(buf_z(&b.out), "io.k8s.api.core.v1.Pod io.istio.networking.v1.GatewayList");
        struct pb_schema_opts o = { .kind = PB_SCHEMA_V2, .ref_prefix = "#/d/", .extra = patch_extra };

        b.out.n = 0;
        pb_schema_json(type("k8s.io.api.core.v1.PodSpec"), &o, &b.out);
        assert_non_null(strstr(buf_z(&b.out), "\"x-kubernetes-patch-merge-key\":\"name\"}"));
        bench_down(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(schemas), cmocka_unit_test(closure), cmocka_unit_test(objects) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
