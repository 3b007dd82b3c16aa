/* Against files that a real istiod wrote and Istio's list of fields, when they are there: $POSTERN_REFERENCE, or ../shared/reference beside
 * the source tree. */
#include "test.h"

#include <dirent.h>

static char *reference(const char *name)
{
        const char *dir = getenv("POSTERN_REFERENCE"), *root = getenv("POSTERN_SOURCE_ROOT");
        char *path = dir ? mem_printf("%s/%s", dir, name) : mem_printf("%s/../shared/reference/%s", root ? root : ".", name);
        FILE *f = fopen(path, "r");

        if (f) {
                fclose(f);
                return path;
        }
        free(path);
        print_message("skipped: no %s ($POSTERN_REFERENCE names the folder)\n", name);
        return NULL;
}

/* Where two trees differ first. */
static void where(const struct pb_node *a, const struct pb_node *b, struct buf *out)
{
        if (!a || !b || a->kind != b->kind || (a->kind != PB_LIST && a->kind != PB_MAP)) {
                buf_cstr(out, ": ");
                pb_node_json(a, out);
                buf_cstr(out, " and ");
                pb_node_json(b, out);
                return;
        }
        for (size_t i = 0; i < a->n + b->n; i++) {
                const struct pb_node *from = i < a->n ? a : b, *x = NULL, *y = NULL;
                size_t k = i < a->n ? i : i - a->n;
                char key[200] = "";

                if (a->kind == PB_LIST) {
                        x = k < a->n ? a->v[k] : NULL;
                        y = k < b->n ? b->v[k] : NULL;
                } else {
                        snprintf(key, sizeof(key), STR_FMT, STR_ARG(from->keys[k]));
                        x = pb_get(a, key);
                        y = pb_get(b, key);
                }
                if (!pb_node_eq(x, y)) {
                        buf_printf(out, ".%s[%zu]", key, k);
                        where(x, y, out);
                        return;
                }
        }
}

/* An object that the reader added nothing to and lost nothing of. Zero values that proto3 does not print may be missing on one side. */
static void check_file(const char *dir, const char *scenario, const char *proxy, const char *file, const char *type_name, size_t *seen)
{
        char *path = mem_printf("%s/%s/%s/%s.json", dir, scenario, proxy, file);
        struct buf text = BUF_INIT;
        struct bench b;
        struct pb_node *root;

        bench_up(&b);
        if (buf_read_file(&text, path, 10 << 20) == 0) {
                assert_true(pb_parse_json(buf_view(&text), str_of(path), &b.a, &root, &b.d));
                for (size_t i = 0; i < root->n; i++) {
                        struct diag_at at = { .file = str_of(path) };
                        ProtobufCMessage *m = pb_from_node(type(type_name), root->v[i], 0, &at, &b.a, &b.d);
                        struct buf wire = BUF_INIT;

                        if (!m)
                                continue;
                        ++*seen;
                        if (!pb_node_eq(pb_to_node(m, &b.a), root->v[i])) {
                                where(root->v[i], pb_to_node(m, &b.a), &b.out);
                                fail_msg("%s[%zu]%s", path, i, buf_z(&b.out));
                        }
                        pb_pack(m, &wire);
                        assert_true(pb_equal(m, pb_unpack(m->descriptor, wire.p, wire.n, &b.a, &b.d)));
                        buf_fini(&wire);
                }
                if (b.d.errors) {
                        diags_format(&b.d, &b.out);
                        fail_msg("%s", buf_z(&b.out));
                }
        }
        buf_fini(&text);
        free(path);
        bench_down(&b);
}

static void istiod(void **state)
{
        static const struct {
                const char *file, *type;
        } kinds[] = {
                { "listeners", "envoy.config.listener.v3.Listener" },
                { "routes", "envoy.config.route.v3.RouteConfiguration" },
                { "clusters", "envoy.config.cluster.v3.Cluster" },
                { "endpoints", "envoy.config.endpoint.v3.ClusterLoadAssignment" },
        };
        char *dir = reference("istiod");
        size_t seen = 0;

        if (!dir)
                skip();
        DIR *d = opendir(dir);

        for (struct dirent *e; d && (e = readdir(d));)
                for (size_t i = 0; e->d_name[0] != '.' && i < ARRAY_LEN(kinds) * 2; i++)
                        check_file(dir, e->d_name, i % 2 ? "sidecar" : "egressgateway", kinds[i / 2].file, kinds[i / 2].type, &seen);
        assert_true(seen > 100);
        if (d)
                closedir(d);
        free(dir);
}

static const struct {
        const char *kind, *type;
} kinds[] = {
        { "VirtualService", "istio.networking.v1alpha3.VirtualService" },
        { "DestinationRule", "istio.networking.v1alpha3.DestinationRule" },
        { "ServiceEntry", "istio.networking.v1alpha3.ServiceEntry" },
        { "Gateway", "istio.networking.v1alpha3.Gateway" },
        { "Sidecar", "istio.networking.v1alpha3.Sidecar" },
        { "WorkloadEntry", "istio.networking.v1alpha3.WorkloadEntry" },
        { "WorkloadGroup", "istio.networking.v1alpha3.WorkloadGroup" },
        { "EnvoyFilter", "istio.networking.v1alpha3.EnvoyFilter" },
        { "ProxyConfig", "istio.networking.v1beta1.ProxyConfig" },
        { "PeerAuthentication", "istio.security.v1beta1.PeerAuthentication" },
        { "RequestAuthentication", "istio.security.v1beta1.RequestAuthentication" },
        { "AuthorizationPolicy", "istio.security.v1beta1.AuthorizationPolicy" },
        { "Telemetry", "istio.telemetry.v1alpha1.Telemetry" },
        { "WasmPlugin", "istio.extensions.v1alpha1.WasmPlugin" },
        { "TrafficExtension", "istio.extensions.v1alpha1.TrafficExtension" },
};

/* A value of the row's type. */
static const char *sample(struct str type, struct str first_enum, char *out)
{
        if (first_enum.n) {
                sprintf(out, "\"" STR_FMT "\"", STR_ARG(first_enum));
                return out;
        }
        return str_eqc(type, "string") ? "\"1s\"" : str_eqc(type, "boolean") ? "true" : str_eqc(type, "object") ? "{}" : "1";
}

/* {"a":[{"b":VALUE}]} for "a[].b". */
static void nest(struct str path, const char *value, struct buf *out)
{
        struct str rest = path, part;
        char closers[64];
        size_t n = 0;

        while (str_next(&rest, '.', &part)) {
                bool list = str_ends(part, STR("[]")), map = str_ends(part, STR("{*}"));

                buf_printf(out, "{\"" STR_FMT "\":%s",
                           STR_ARG(str_sub(part, 0,
                                           part.n - (list  ? 2
                                                     : map ? 3
                                                           : 0))),
                           list  ? "["
                           : map ? "{\"1\":"
                                 : "");
                closers[n++] = '}';
                if (list || map)
                        closers[n++] = list ? ']' : '}';
        }
        buf_cstr(out, value);
        while (n)
                buf_char(out, closers[--n]);
}

static void one_value(struct bench *b, const char *kind_type, struct str path, struct str type_name, struct str value, struct str line)
{
        char text[200];
        struct buf json = BUF_INIT;

        nest(path, sample(type_name, value, text), &json);
        if (!make(b, kind_type, buf_z(&json)))
                fail_msg(STR_FMT ": %s: %s", STR_ARG(line), buf_z(&json), buf_z(&b->out));
        buf_fini(&json);
}

/* Every leaf of Istio's API takes a value of its type, and each of its enum's names. */
static void istio_fields(void **state)
{
        char *path = reference("istio-fields.tsv");
        struct buf text = BUF_INIT;
        struct bench b;
        size_t rows = 0;

        if (!path)
                skip();
        assert_int_equal(buf_read_file(&text, path, 1 << 20), 0);
        bench_up(&b);
        struct str rest = buf_view(&text), line;

        while (str_next(&rest, '\n', &line)) {
                struct str cols = line, kind, field, type_name, values, value;
                const char *full = NULL;

                if (!line.n)
                        continue;
                assert_true(str_next(&cols, '\t', &kind) && str_next(&cols, '\t', &field) && str_next(&cols, '\t', &type_name) &&
                            str_next(&cols, '\t', &values));
                for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
                        if (str_eqc(kind, kinds[i].kind))
                                full = kinds[i].type;
                assert_non_null(full);
                for (rows++; str_next(&values, '|', &value);)
                        one_value(&b, full, field, type_name, value, line);
        }
        assert_int_equal(rows, 730);
        buf_fini(&text);
        free(path);
        bench_down(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(istiod), cmocka_unit_test(istio_fields) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
