/* Patches: RFC 6902, RFC 7396 with its own examples, and the strategic merges that kubectl computes. */
#include "kubetest.h"

#include "base/mem.h"
#include "kube/patch.h"

static void merge(void **state)
{
        static const struct { /* RFC 7396, appendix A */
                const char *original, *patch, *want;
        } t[] = {
                { "{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}" },
                { "{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}" },
                { "{\"a\":\"b\"}", "{\"a\":null}", "{}" },
                { "{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}" },
                { "{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}" },
                { "{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}" },
                { "{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}" },
                { "{\"a\":\"foo\"}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}" },
                { "{\"e\":null}", "{\"a\":1}", "{\"a\":1,\"e\":null}" },
        };
        struct arena a;

        arena_init(&a, 0);
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct pb_node *got = kube_patch_merge(json(&a, t[i].original), json(&a, t[i].patch), &a);

                if (!pb_node_eq(got, json(&a, t[i].want)))
                        fail_msg("%s + %s = %s", t[i].original, t[i].patch, text_of(&a, got));
        }
        arena_fini(&a);
}

static void json_patch(void **state)
{
        static const struct {
                const char *original, *patch, *want; /* want NULL: refused */
        } t[] = {
                { "{\"foo\":\"bar\"}", "[{\"op\":\"add\",\"path\":\"/baz\",\"value\":\"q\"}]", "{\"foo\":\"bar\",\"baz\":\"q\"}" },
                { "{\"foo\":[\"a\",\"c\"]}", "[{\"op\":\"add\",\"path\":\"/foo/1\",\"value\":\"b\"}]", "{\"foo\":[\"a\",\"b\",\"c\"]}" },
                { "{\"foo\":[\"a\"]}", "[{\"op\":\"add\",\"path\":\"/foo/-\",\"value\":[1]}]", "{\"foo\":[\"a\",[1]]}" },
                { "{\"a\":1,\"b\":2}", "[{\"op\":\"remove\",\"path\":\"/a\"}]", "{\"b\":2}" },
                { "{\"l\":[1,2,3]}", "[{\"op\":\"remove\",\"path\":\"/l/1\"}]", "{\"l\":[1,3]}" },
                { "{\"a\":1}", "[{\"op\":\"replace\",\"path\":\"/a\",\"value\":2}]", "{\"a\":2}" },
                { "{\"a\":1}", "[{\"op\":\"replace\",\"path\":\"/b\",\"value\":2}]", NULL },
                { "{\"a\":{\"x\":1},\"b\":{}}", "[{\"op\":\"move\",\"from\":\"/a/x\",\"path\":\"/b/y\"}]", "{\"a\":{},\"b\":{\"y\":1}}" },
                { "{\"a\":{\"x\":1}}", "[{\"op\":\"copy\",\"from\":\"/a\",\"path\":\"/b\"}]", "{\"a\":{\"x\":1},\"b\":{\"x\":1}}" },
                { "{\"a\":{\"x\":1}}", "[{\"op\":\"move\",\"from\":\"/a\",\"path\":\"/a/b\"}]", NULL },
                { "{\"a\":1}", "[{\"op\":\"test\",\"path\":\"/a\",\"value\":1},{\"op\":\"add\",\"path\":\"/b\",\"value\":2}]",
                  "{\"a\":1,\"b\":2}" },
                { "{\"a\":1}", "[{\"op\":\"test\",\"path\":\"/a\",\"value\":2}]", NULL },
                { "{\"a/b\":1,\"m~n\":2}", "[{\"op\":\"remove\",\"path\":\"/a~1b\"},{\"op\":\"remove\",\"path\":\"/m~0n\"}]", "{}" },
                { "{\"a\":1}", "[{\"op\":\"remove\",\"path\":\"/b\"}]", NULL },
                { "{\"a\":[]}", "[{\"op\":\"add\",\"path\":\"/a/1\",\"value\":1}]", NULL },
                { "{\"a\":[1,2]}", "[{\"op\":\"add\",\"path\":\"/a/01\",\"value\":1}]", NULL },
                { "{\"a\":1}", "[{\"op\":\"add\",\"path\":\"a\",\"value\":1}]", NULL },
                { "{\"a\":1}", "[{\"op\":\"frob\",\"path\":\"/a\",\"value\":1}]", NULL },
                { "{\"a\":1}", "[{\"op\":\"add\",\"path\":\"/a\"}]", NULL },
                { "{\"a\":1}", "{}", NULL },
        };
        struct arena a;

        arena_init(&a, 0);
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct str why = STR("");
                struct pb_node *got = kube_patch_json(json(&a, t[i].original), json(&a, t[i].patch), &a, &why);

                if (t[i].want ? !got || !pb_node_eq(got, json(&a, t[i].want)) : got != NULL || !why.n)
                        fail_msg("%s + %s = %s (" STR_FMT ")", t[i].original, t[i].patch, text_of(&a, got), STR_ARG(why));
        }
        arena_fini(&a);
}

#define SPEC(containers) "{\"spec\":{\"containers\":" containers "}}"

static void strategic(void **state)
{
        static const struct {
                const char *original, *patch, *want;
        } t[] = {
                /* lists merge by name */
                { SPEC("[{\"name\":\"a\",\"image\":\"x\"},{\"name\":\"b\",\"image\":\"y\"}]"), SPEC("[{\"name\":\"b\",\"image\":\"z\"}]"),
                  SPEC("[{\"name\":\"a\",\"image\":\"x\"},{\"name\":\"b\",\"image\":\"z\"}]") },
                /* a new element comes first, as in Kubernetes */
                { SPEC("[{\"name\":\"a\",\"image\":\"x\"}]"), SPEC("[{\"name\":\"c\",\"image\":\"z\"}]"),
                  SPEC("[{\"name\":\"c\",\"image\":\"z\"},{\"name\":\"a\",\"image\":\"x\"}]") },
                { SPEC("[{\"name\":\"a\"},{\"name\":\"b\"}]"), SPEC("[{\"name\":\"a\",\"$patch\":\"delete\"}]"),
                  SPEC("[{\"name\":\"b\"}]") },
                { SPEC("[{\"name\":\"a\"},{\"name\":\"b\"}]"), SPEC("[{\"$patch\":\"replace\"},{\"name\":\"c\"}]"),
                  SPEC("[{\"name\":\"c\"}]") },
                /* the order that the client wants */
                { SPEC("[{\"name\":\"a\"},{\"name\":\"b\"},{\"name\":\"c\"}]"),
                  "{\"spec\":{\"$setElementOrder/"
                  "containers\":[{\"name\":\"c\"},{\"name\":\"a\"}],\"containers\":[{\"name\":\"a\",\"image\":\"i\"}]}}",
                  SPEC("[{\"name\":\"b\"},{\"name\":\"c\"},{\"name\":\"a\",\"image\":\"i\"}]") },
                { SPEC("[{\"name\":\"a\"},{\"name\":\"b\"}]"),
                  "{\"spec\":{\"$setElementOrder/containers\":[{\"name\":\"b\"},{\"name\":\"a\"}]}}",
                  SPEC("[{\"name\":\"b\"},{\"name\":\"a\"}]") },
                /* nested lists, and lists that are replaced */
                { SPEC("[{\"name\":\"a\",\"env\":[{\"name\":\"E\",\"value\":\"1\"}],\"command\":[\"x\",\"y\"]}]"),
                  SPEC("[{\"name\":\"a\",\"env\":[{\"name\":\"F\",\"value\":\"2\"}],\"command\":[\"z\"]}]"),
                  SPEC("[{\"name\":\"a\",\"env\":[{\"name\":\"F\",\"value\":\"2\"},{\"name\":\"E\",\"value\":\"1\"}],\"command\":[\"z\"]}"
                       "]") },
                /* primitives */
                { "{\"metadata\":{\"finalizers\":[\"a\",\"b\"]}}", "{\"metadata\":{\"finalizers\":[\"c\"]}}",
                  "{\"metadata\":{\"finalizers\":[\"c\",\"a\",\"b\"]}}" },
                { "{\"metadata\":{\"finalizers\":[\"a\",\"b\"]}}", "{\"metadata\":{\"$deleteFromPrimitiveList/finalizers\":[\"a\"]}}",
                  "{\"metadata\":{\"finalizers\":[\"b\"]}}" },
                /* maps */
                { "{\"metadata\":{\"labels\":{\"a\":\"1\",\"b\":\"2\"}}}", "{\"metadata\":{\"labels\":{\"a\":null,\"c\":\"3\"}}}",
                  "{\"metadata\":{\"labels\":{\"b\":\"2\",\"c\":\"3\"}}}" },
                { "{\"metadata\":{\"labels\":{\"a\":\"1\"}}}", "{\"metadata\":{\"labels\":{\"$patch\":\"replace\",\"c\":\"3\"}}}",
                  "{\"metadata\":{\"labels\":{\"c\":\"3\"}}}" },
                /* retainKeys: a volume becomes another kind of volume */
                { "{\"spec\":{\"volumes\":[{\"name\":\"v\",\"emptyDir\":{}}]}}",
                  "{\"spec\":{\"volumes\":[{\"name\":\"v\",\"$retainKeys\":[\"name\",\"secret\"],\"secret\":{\"secretName\":\"s\"}}]}}",
                  "{\"spec\":{\"volumes\":[{\"name\":\"v\",\"secret\":{\"secretName\":\"s\"}}]}}" },
                /* refused */
                { SPEC("[{\"name\":\"a\"}]"), SPEC("[{\"image\":\"z\"}]"), NULL },
                { SPEC("[{\"name\":\"a\"}]"), SPEC("[{\"name\":\"a\",\"$patch\":\"frob\"}]"), NULL },
                { "{\"spec\":{}}", "{\"spec\":{\"$patch\":\"frob\"}}", NULL },
                { "{\"spec\":{\"volumes\":[{\"name\":\"v\"}]}}",
                  "{\"spec\":{\"volumes\":[{\"name\":\"v\",\"$retainKeys\":[\"name\"],\"emptyDir\":{}}]}}", NULL },
        };
        struct arena a;

        arena_init(&a, 0);
        kube_kinds_init();
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct str why = STR("");
                struct pb_node *got = kube_patch_strategic(json(&a, t[i].original), json(&a, t[i].patch),
                                                           pb_type(STR("k8s.io.api.core.v1.Pod")), &a, &why);

                if (t[i].want ? !got || !pb_node_eq(got, json(&a, t[i].want)) : got != NULL || !why.n)
                        fail_msg("%s + %s = %s (" STR_FMT ")", t[i].original, t[i].patch, text_of(&a, got), STR_ARG(why));
        }
        arena_fini(&a);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(merge), cmocka_unit_test(json_patch), cmocka_unit_test(strategic) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
