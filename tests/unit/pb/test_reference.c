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

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(istiod) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
