/* Objects of any shape through the model and the translation: checked, warned about, set, and translated for a sidecar and a gateway. */
#include "translate/translate.h"

static void build(struct translator *t, struct mesh_snapshot *s, bool gateway)
{
        struct mesh_label label = { STR("app"), STR("a") };
        struct translate_proxy p = { .role = gateway ? TRANSLATE_ROUTER : TRANSLATE_SIDECAR,
                                     .id = STR("a.n"),
                                     .ip = STR("10.0.0.1"),
                                     .ns = STR("n"),
                                     .domain = STR("n.svc.cluster.local"),
                                     .labels = { &label, 1 },
                                     .ipv4 = true };
        struct diags d;

        diags_init(&d);
        translate_config_unref(translate_build(t, s, &p, &d));
        diags_fini(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct arena a;
        struct diags d;
        struct pb_node **docs;
        size_t ndocs;

        arena_init(&a, 0);
        diags_init(&d);
        if (n < 16384 && pb_parse_yaml(str_make((const char *)data, n), STR("fuzz"), &a, &docs, &ndocs, &d)) {
                struct mesh *m = mesh_new();
                struct translator *t = translator_new();
                struct mesh_snapshot *s;

                for (size_t i = 0; i < ndocs; i++) {
                        mesh_unsupported(docs[i], STR("fuzz"), &d);
                        mesh_set(m, docs[i], &d);
                        s = mesh_snapshot(m);
                        mesh_references(s, docs[i], STR("fuzz"), &d);
                        if (i % 4 == 0) {
                                build(t, s, false);
                                build(t, s, true);
                        }
                        mesh_snapshot_unref(s);
                }
                s = mesh_snapshot(m);
                build(t, s, false);
                build(t, s, true);
                mesh_snapshot_unref(s);
                for (size_t i = 0; i < ndocs; i += 2)
                        mesh_delete(m, pb_get_str(docs[i], "kind", STR("")), pb_get_str(docs[i], "metadata.namespace", STR("default")),
                                    pb_get_str(docs[i], "metadata.name", STR("")));
                s = mesh_snapshot(m);
                build(t, s, false);
                translator_sweep(t);
                mesh_snapshot_unref(s);
                translator_free(t);
                mesh_free(m);
        }
        diags_fini(&d);
        arena_fini(&a);
        return 0;
}
