/* Regular expressions, as RE2 would have them. */
#include "envoy/matcher.pb-c.h"
#include "proxy/match.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct {
        const char *pattern, *in, *substitution, *want;
} replaced[] = {
        { "a", "banana", "o", "bonono" }, { "^/x/(.*)$", "/x/y/z", "/\\1!", "/y/z!" }, { "x", "abc", "y", "abc" },
        { "b*", "abbc", "-", "-a-c-" },   { "(a)|(b)", "b", "[\\1\\2]", "[b]" },       { "a", "a", "\\\\0", "\\0" },
        { "(?i)A", "aA", "x", "xx" },
};

static void replaces(void **state)
{
        for (size_t i = 0; i < sizeof(replaced) / sizeof(replaced[0]); i++) {
                struct Xds__RegexMatcher p = XDS__REGEX_MATCHER__INIT;
                struct diag_at at = { 0 };
                struct config_mem m;
                struct regex *r;
                struct diags d;
                struct str got;

                config_mem_init(&m);
                diags_init(&d);
                p.regex = (char *)replaced[i].pattern;
                r = regex_build(&m, &p, &at, &d);
                assert_non_null(r);
                got = regex_replace_all(r, str_of(replaced[i].in), str_of(replaced[i].substitution), &m.arena);
                if (!str_eqc(got, replaced[i].want))
                        fail_msg("%s in %s: " STR_FMT ", not %s", replaced[i].pattern, replaced[i].in, STR_ARG(got), replaced[i].want);
                config_mem_fini(&m);
                diags_fini(&d);
        }
        regex_thread_fini();
}

/* A pattern that takes for ever by back-tracking ends as no match. */
static void bounded(void **state)
{
        struct Xds__RegexMatcher p = XDS__REGEX_MATCHER__INIT;
        struct diag_at at = { 0 };
        struct config_mem m;
        struct diags d;
        struct regex *r;
        char text[64];

        config_mem_init(&m);
        diags_init(&d);
        p.regex = "(a+)+b";
        r = regex_build(&m, &p, &at, &d);
        assert_non_null(r);
        memset(text, 'a', sizeof(text));
        assert_false(regex_full_match(r, str_make(text, sizeof(text))));
        config_mem_fini(&m);
        diags_fini(&d);
        regex_thread_fini();
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(replaces), cmocka_unit_test(bounded) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
