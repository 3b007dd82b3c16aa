/* Header blocks: names by number, set, remove, order. */
#include "base/mem.h"
#include "http/codec.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_names(void **state)
{
        for (unsigned i = 1; i < HN_COUNT; i++)
                assert_int_equal(http_name_id(http_name_text((enum http_name)i)), i);
        static const char *other[] = { "", "a", "x-", "hosts", "content-lengt", "content-lengthy", "Host", "x-b3-spanie" };

        for (size_t i = 0; i < ARRAY_LEN(other); i++)
                assert_int_equal(http_name_id(str_of(other[i])), HN_OTHER);
}

static struct str joined(struct arena *a, const struct http_head *m)
{
        struct buf b = BUF_INIT;

        for (unsigned i = 0; i < m->n; i++)
                buf_printf(&b, STR_FMT "=" STR_FMT ";", STR_ARG(m->h[i].name), STR_ARG(m->h[i].value));
        struct str s = arena_str(a, buf_view(&b));

        buf_fini(&b);
        return s;
}

static void test_edit(void **state)
{
        struct arena a;
        struct http_head m;

        arena_init(&a, 0);
        http_head_init(&m, &a);
        for (int i = 0; i < 50; i++)
                http_add_name(&m, STR("x-many"), arena_printf(&a, "%d", i));
        assert_int_equal(m.n, 50);
        assert_int_equal(http_remove_name(&m, STR("x-many")), 50);
        http_add(&m, HN_VIA, STR("1"));
        http_add_name(&m, STR("x-a"), STR("2"));
        http_add(&m, HN_VIA, STR("3"));
        http_add_name(&m, STR("x-b"), STR("4"));
        http_add_name(&m, STR("x-a"), STR("5"));
        http_set(&m, HN_VIA, STR("6"));
        assert_true(str_eqc(joined(&a, &m), "via=6;x-a=2;x-b=4;x-a=5;"));
        http_set_name(&m, STR("x-a"), STR("7"));
        assert_true(str_eqc(joined(&a, &m), "via=6;x-a=7;x-b=4;"));
        http_set_name(&m, STR("server"), STR("8"));
        assert_int_equal(http_get(&m, HN_SERVER)->id, HN_SERVER);
        assert_int_equal(http_remove(&m, HN_VIA), 1);
        assert_null(http_get(&m, HN_VIA));
        assert_null(http_get_name(&m, STR("none")));
        assert_true(str_eqc(joined(&a, &m), "x-a=7;x-b=4;server=8;"));
        arena_fini(&a);
}

static void test_lists(void **state)
{
        assert_true(http_list_has(STR("a, Close ,b"), STR("close")));
        assert_false(http_list_has(STR("a, closed"), STR("close")));
        assert_false(http_list_has(STR(""), STR("close")));
        assert_true(http_authority_ok(STR("[::1]:80")));
        assert_true(http_authority_ok(STR("a_b.example:80")));
        assert_false(http_authority_ok(STR("a b")));
        assert_false(http_authority_ok(STR("a\"b")));
        assert_false(http_authority_ok(STR("a/b")));
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_names), cmocka_unit_test(test_edit), cmocka_unit_test(test_lists) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
