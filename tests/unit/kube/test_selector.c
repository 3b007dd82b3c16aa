/* Selectors, names, paths and queries: words of a request. */
#include "kubetest.h"

#include "base/mem.h"
#include "kube/request.h"

static void labels(void **state)
{
        static const struct {
                const char *selector, *labels;
                int want; /* 1 matches, 0 does not, -1: not a selector */
        } t[] = {
                { "", "{}", 1 },
                { "a=b", "{\"a\":\"b\"}", 1 },
                { "a==b", "{\"a\":\"b\"}", 1 },
                { "a=b", "{\"a\":\"c\"}", 0 },
                { "a=b", "{}", 0 },
                { "a!=b", "{}", 1 },
                { "a!=b", "{\"a\":\"b\"}", 0 },
                { "a", "{\"a\":\"\"}", 1 },
                { "!a", "{\"a\":\"\"}", 0 },
                { "!a", "{}", 1 },
                { "a in (x,y)", "{\"a\":\"y\"}", 1 },
                { "a in (x, y),b=1", "{\"a\":\"y\",\"b\":\"2\"}", 0 },
                { "a notin (x,y)", "{\"a\":\"z\"}", 1 },
                { "a notin (x,y)", "{}", 1 },
                { "a=", "{\"a\":\"\"}", 1 },
                { "n>3", "{\"n\":\"4\"}", 1 },
                { "n<3", "{\"n\":\"4\"}", 0 },
                { "istio.io/rev=a, app in (b)", "{\"istio.io/rev\":\"a\",\"app\":\"b\"}", 1 },
                { "a=b=c", "{}", -1 },
                { "a in x", "{}", -1 },
                { "a in (x", "{}", -1 },
                { ",", "{}", -1 },
                { "a,", "{}", -1 },
                { "a!b", "{}", -1 },
                { "n>x", "{}", -1 },
                { "a/b/c=d", "{}", -1 },
                { "-a=b", "{}", -1 },
        };
        struct arena a;

        arena_init(&a, 0);
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct kube_selector s;
                struct str why = STR("");
                bool ok = kube_labels_parse(str_of(t[i].selector), &a, &s, &why);
                int got = !ok ? -1 : kube_labels_match(&s, json(&a, t[i].labels));

                if (got != t[i].want || (!ok && !why.n))
                        fail_msg("\"%s\" on %s: %d, not %d", t[i].selector, t[i].labels, got, t[i].want);
        }
        arena_fini(&a);
}

static void fields(void **state)
{
        static const char pod[] =
                "{\"metadata\":{\"name\":\"p\",\"namespace\":\"n\"},\"spec\":{\"nodeName\":\"x,y\"},\"status\":{\"phase\":\"Running\"}}";
        static const struct {
                const char *selector;
                int want;
        } t[] = {
                { "metadata.name=p", 1 },      { "metadata.name!=p", 0 },        { "metadata.namespace=n,status.phase=Running", 1 },
                { "status.phase==Failed", 0 }, { "spec.nodeName=x\\,y", 1 },     { "spec.foo=1", -1 },
                { "metadata.name", -1 },       { "spec.hostNetwork=false", -1 }, { "", 1 },
        };
        struct arena a;

        arena_init(&a, 0);
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct kube_selector s;
                struct str why = STR("");
                bool ok = kube_fields_parse(str_of(t[i].selector), "spec.nodeName status.phase", &a, &s, &why);
                int got = !ok ? -1 : kube_fields_match(&s, json(&a, pod));

                if (got != t[i].want)
                        fail_msg("\"%s\": %d, not %d", t[i].selector, got, t[i].want);
        }
        arena_fini(&a);
}

static void names(void **state)
{
        assert_null(kube_check_dns_label(STR("a-b1")));
        assert_non_null(kube_check_dns_label(STR("A")));
        assert_non_null(kube_check_dns_label(STR("a.b")));
        assert_null(kube_check_dns_subdomain(STR("a.b-c.d")));
        assert_non_null(kube_check_dns_subdomain(STR("a..b")));
        assert_non_null(kube_check_dns_subdomain(STR("")));
        assert_null(kube_check_dns1035_label(STR("a1")));
        assert_non_null(kube_check_dns1035_label(STR("1a")));
        assert_null(kube_check_qualified_name(STR("istio.io/rev")));
        assert_non_null(kube_check_qualified_name(STR("/rev")));
        assert_non_null(kube_check_label_value(STR("a b")));
}

static void paths(void **state)
{
        static const struct {
                const char *path;
                bool ok;
                const char *group, *version, *resource, *ns, *name, *sub;
        } t[] = {
                { "/api/v1/pods", true, "", "v1", "pods", "", "", "" },
                { "/api/v1/namespaces", true, "", "v1", "namespaces", "", "", "" },
                { "/api/v1/namespaces/n", true, "", "v1", "namespaces", "", "n", "" },
                { "/api/v1/namespaces/n/status", true, "", "v1", "namespaces", "", "n", "status" },
                { "/api/v1/namespaces/n/finalize", true, "", "v1", "namespaces", "", "n", "finalize" },
                { "/api/v1/namespaces/n/pods/p/exec", true, "", "v1", "pods", "n", "p", "exec" },
                { "/apis/apps/v1/namespaces/n/deployments/d/scale", true, "apps", "v1", "deployments", "n", "d", "scale" },
                { "/apis/apps/v1/deployments/", true, "apps", "v1", "deployments", "", "", "" },
                { "/api/v1/namespaces/n/pods/a%20b", true, "", "v1", "pods", "n", "a b", "" },
                { "/api/v1/namespaces/n/pods/..", false, 0 },
                { "/api/v1/namespaces/n/pods/%2e%2e/log", false, 0 },
                { "/api/v1/namespaces/n/pods/a%2fb", false, 0 },
                { "/api/v1/namespaces//pods", false, 0 },
                { "/api/v1/namespaces/n/pods/%zz", false, 0 },
                { "/api/v1/namespaces/n/pods/%00", false, 0 },
                { "/api/v1/namespaces/n/pods/a/b/c", false, 0 },
                { "api", false, 0 },
        };
        struct arena a;
        struct kube_path p;

        arena_init(&a, 0);
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                bool ok = kube_path_parse(str_of(t[i].path), &a, &p);

                if (ok != t[i].ok)
                        fail_msg("%s: %d", t[i].path, ok);
                if (ok && !(str_eqc(p.group, t[i].group) && str_eqc(p.version, t[i].version) && str_eqc(p.resource, t[i].resource) &&
                            str_eqc(p.ns, t[i].ns) && str_eqc(p.name, t[i].name) && str_eqc(p.sub, t[i].sub)))
                        fail_msg("%s: read as something else", t[i].path);
        }
        arena_fini(&a);
}

static void queries(void **state)
{
        struct arena a;
        struct kube_query q;

        arena_init(&a, 0);
        assert_true(kube_query_parse(STR("a=1&b=x%20y+z&c&a=2&watch=true&d=0"), &a, &q));
        assert_true(str_eqc(kube_query_get(&q, "a"), "1"));
        assert_true(str_eqc(kube_query_get(&q, "b"), "x y z"));
        assert_true(kube_query_get(&q, "c").p != NULL);
        assert_null(kube_query_get(&q, "zz").p);
        assert_true(kube_query_bool(&q, "watch"));
        assert_false(kube_query_bool(&q, "d"));
        assert_false(kube_query_parse(STR("a=%"), &a, &q));
        arena_fini(&a);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(labels), cmocka_unit_test(fields), cmocka_unit_test(names),
                                            cmocka_unit_test(paths), cmocka_unit_test(queries) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
