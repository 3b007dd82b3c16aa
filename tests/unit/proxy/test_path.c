/* Path normalisation: what Envoy makes of each. */
#include "proxy/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct {
        const char *in, *want; /* want NULL: refused */
} normal[] = {
        { "/", "/" },
        { "/a/b", "/a/b" },
        { "/a/./b", "/a/b" },
        { "/a/../b", "/b" },
        { "/../../b", "/b" },
        { "/a/..", "/" },
        { "/a/.", "/a/" },
        { "/a/b/..", "/a/" },
        { "/a/%2e%2e/b", "/b" },
        { "/a/.%2E/b", "/b" },
        { "/a//../b", "/a/b" },
        { "/a\\b", "/a/b" },
        { "/%61%7E", "/a~" },
        { "/a%2Fb", "/a%2Fb" },
        { "/a%2fb?x=/../y", "/a%2fb?x=/../y" },
        { "/a/..?q=..", "/?q=.." },
        { "/...", "/..." },
        { "/.a", "/.a" },
        { "/a/..b/", "/a/..b/" },
        { "/%zz", "/%zz" },
        { "/%", "/%" },
        { "/a%00b", NULL },
        { "/a/%%32%65%%32%65/b", NULL },
        { "a/b", NULL },
        { "", NULL },
};

static void normalises(void **state)
{
        struct arena a;

        arena_init(&a, 0);
        for (size_t i = 0; i < sizeof(normal) / sizeof(normal[0]); i++) {
                struct str out;
                bool ok = path_normalize(&a, str_of(normal[i].in), &out);

                if (ok != (normal[i].want != NULL) || (ok && !str_eqc(out, normal[i].want)))
                        fail_msg("%s -> " STR_FMT ", not %s", normal[i].in, STR_ARG(ok ? out : STR("refused")),
                                 normal[i].want ? normal[i].want : "refused");
                if (ok) {
                        struct str again;

                        assert_true(path_normalize(&a, out, &again));
                        assert_true(str_eq(out, again));
                }
        }
        arena_fini(&a);
}

static void slashes(void **state)
{
        struct arena a;

        arena_init(&a, 0);
        assert_true(str_eqc(path_merge_slashes(&a, STR("//a///b//?x=//")), "/a/b/?x=//"));
        assert_true(str_eqc(path_merge_slashes(&a, STR("/a/b?x=//")), "/a/b?x=//"));
        assert_true(path_has_escaped_slashes(STR("/a%2fb")));
        assert_true(path_has_escaped_slashes(STR("/a%5C")));
        assert_false(path_has_escaped_slashes(STR("/a?x=%2f")));
        assert_false(path_has_escaped_slashes(STR("/a%2")));
        assert_true(str_eqc(path_unescape_slashes(&a, STR("/a%2Fb%5cc?%2f")), "/a/b\\c?%2f"));
        arena_fini(&a);
}

static const struct {
        const char *in, *host;
        unsigned port;
} hosts[] = {
        { "a:80", "a", 80 },         { "a", "a", 0 },     { "[::1]:443", "[::1]", 443 },
        { "[::1]", "[::1]", 0 },     { "::1", "::1", 0 }, { "a:", "a:", 0 },
        { "a:99999", "a:99999", 0 }, { "a:b", "a:b", 0 }, { "", "", 0 },
};

static void ports(void **state)
{
        for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
                unsigned port;
                struct str h = host_without_port(str_of(hosts[i].in), &port);

                assert_true(str_eqc(h, hosts[i].host));
                assert_int_equal(port, hosts[i].port);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(normalises), cmocka_unit_test(slashes), cmocka_unit_test(ports) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
