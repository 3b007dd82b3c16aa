/* The small things that everything stands on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/base64.h"
#include "base/buf.h"
#include "base/chain.h"
#include "base/clock.h"
#include "base/diag.h"
#include "base/hash.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

static void test_numbers(void **state)
{
        static const struct {
                const char *text;
                bool ok;
                uint64_t v;
        } t[] = {
                { "0", true, 0 },
                { "18446744073709551615", true, UINT64_MAX },
                { "18446744073709551616", false, 0 },
                { "", false, 0 },
                { "+1", false, 0 },
                { " 1", false, 0 },
                { "1a", false, 0 },
        };
        int64_t i;

        (void)state;
        for (size_t k = 0; k < ARRAY_LEN(t); k++) {
                uint64_t v = 7;

                assert_int_equal(str_u64(str_of(t[k].text), &v), t[k].ok);
                assert_true(v == (t[k].ok ? t[k].v : 7));
        }
        assert_true(str_i64(STR("-9223372036854775808"), &i) && i == INT64_MIN);
        assert_false(str_i64(STR("9223372036854775808"), &i));
        assert_false(str_i64(STR("-"), &i));
}

static void test_parts(void **state)
{
        struct str rest = STR("a,,b"), part;
        const char *want[] = { "a", "", "b" };
        size_t n = 0;

        (void)state;
        while (str_next(&rest, ',', &part)) {
                assert_true(n < ARRAY_LEN(want) && str_eqc(part, want[n]));
                n++;
        }
        assert_int_equal(n, 3);
        assert_true(str_ends_nocase(STR("x.Example.COM"), STR(".example.com")));
        assert_int_equal(str_find(STR("abcabd"), STR("abd")), 3);
        assert_int_equal(str_distance(STR("rout"), STR("route"), 3), 1);
        assert_int_equal(str_distance(STR("hots"), STR("host"), 3), 1);
        assert_int_equal(str_distance(STR("abcdef"), STR("zzzzzz"), 3), 4);
}

static void test_arena(void **state)
{
        struct arena a;
        char *p[200];

        (void)state;
        arena_init(&a, 128);
        for (size_t i = 0; i < ARRAY_LEN(p); i++) {
                p[i] = arena_alloc(&a, 1 + i * 3);
                memset(p[i], (int)i, 1 + i * 3);
        }
        for (size_t i = 0; i < ARRAY_LEN(p); i++)
                for (size_t k = 0; k < 1 + i * 3; k++)
                        assert_int_equal((unsigned char)p[i][k], i);
        assert_true(str_eqc(arena_printf(&a, "%d-%s", 7, "x"), "7-x"));
        arena_reset(&a);
        assert_int_equal(a.used_bytes, 0);
        assert_non_null(arena_zalloc(&a, 10000));
        arena_fini(&a);
}

/* A chain must hold the same bytes as a plain buffer after any sequence of operations. */
static void test_chain_model(void **state)
{
        struct chain c = CHAIN_INIT, other = CHAIN_INIT;
        struct buf m = BUF_INIT, om = BUF_INIT;
        unsigned seed = 12345;

        (void)state;
        for (int step = 0; step < 4000; step++) {
                seed = seed * 1103515245u + 12345u;
                size_t n = seed >> 8 & 0x7fff;
                char data[1024];

                memset(data, (int)step, sizeof(data));
                switch (seed >> 28 & 7) {
                case 0:
                case 1:
                        chain_append(&c, data, n % sizeof(data));
                        buf_append(&m, data, n % sizeof(data));
                        break;
                case 2:
                        chain_drop(&c, n);
                        buf_consume(&m, n);
                        break;
                case 3: {
                        size_t k = n < m.n ? n : m.n;

                        chain_move_n(&other, &c, n);
                        buf_append(&om, m.p, k);
                        buf_consume(&m, k);
                        break;
                }
                case 4:
                        chain_move(&c, &other);
                        buf_append(&m, om.p, om.n);
                        om.n = 0;
                        break;
                case 5: {
                        struct iovec v = chain_reserve(&c, 100);
                        size_t k = n % 1024 < v.iov_len ? n % 1024 : v.iov_len;

                        memset(v.iov_base, 'r', k);
                        chain_commit(&c, k);
                        for (size_t i = 0; i < k; i++)
                                buf_char(&m, 'r');
                        break;
                }
                case 6:
                        chain_prepend(&c, data, n % 32);
                        if (n % 32) {
                                struct buf t = BUF_INIT;

                                buf_append(&t, data, n % 32);
                                buf_append(&t, m.p, m.n);
                                buf_fini(&m);
                                m = t;
                        }
                        break;
                default:
                        if (c.n > 200000) {
                                chain_fini(&c);
                                m.n = 0;
                        }
                }
                assert_int_equal(c.n, m.n);
                assert_int_equal(other.n, om.n);
                char *copy = mem_alloc(c.n);

                assert_int_equal(chain_peek(&c, copy, c.n), c.n);
                assert_true(!m.n || memcmp(copy, m.p, m.n) == 0);
                free(copy);
        }
        chain_fini(&c);
        chain_fini(&other);
        buf_fini(&m);
        buf_fini(&om);
        chain_thread_fini();
}

static void test_map(void **state)
{
        struct strmap m = STRMAP_INIT;
        char key[32];

        (void)state;
        for (intptr_t i = 1; i <= 3000; i++) {
                snprintf(key, sizeof(key), "key-%d", (int)i);
                assert_null(strmap_set(&m, str_of(key), (void *)i));
        }
        for (intptr_t i = 1; i <= 3000; i += 2) {
                snprintf(key, sizeof(key), "key-%d", (int)i);
                assert_int_equal((intptr_t)strmap_del(&m, str_of(key)), i);
        }
        for (intptr_t i = 1; i <= 3000; i++) {
                snprintf(key, sizeof(key), "key-%d", (int)i);
                assert_int_equal((intptr_t)strmap_get(&m, str_of(key)), i % 2 ? 0 : i);
        }
        assert_int_equal(m.live, 1500);
        strmap_sort(&m);
        struct str last = STR("");

        STRMAP_EACH (&m, e) {
                assert_true(str_cmp(last, e->key) < 0);
                last = e->key;
        }
        assert_true(strmap_has(&m, STR("key-2")));
        strmap_fini(&m);
}

static void test_json_text(void **state)
{
        static const struct {
                struct str in;
                const char *want;
        } t[] = {
                { STR("plain"), "\"plain\"" },  { STR("a\"b\\c\n"), "\"a\\\"b\\\\c\\n\"" },
                { STR("\x01"), "\"\\u0001\"" }, { STR("\xc3\xa9"), "\"\xc3\xa9\"" },
                { STR("\xc3"), "\"\\ufffd\"" }, { STR("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\"" },
        };
        struct buf b = BUF_INIT;

        (void)state;
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                b.n = 0;
                buf_json(&b, t[i].in);
                assert_string_equal(buf_z(&b), t[i].want);
        }
        buf_fini(&b);
}

static void test_base64(void **state)
{
        static const struct {
                struct str plain;
                const char *standard, *url;
        } t[] = {
                /* RFC 4648 §10, and the characters in which the alphabets differ */
                { STR(""), "", "" },
                { STR("f"), "Zg==", "Zg" },
                { STR("fo"), "Zm8=", "Zm8" },
                { STR("foobar"), "Zm9vYmFy", "Zm9vYmFy" },
                { STR("\xfb\xff\xfe"), "+//+", "-__-" },
        };
        char out[16];
        size_t n;

        (void)state;
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct buf a = BUF_INIT, b = BUF_INIT;

                base64_print(&a, t[i].plain.p, t[i].plain.n);
                base64url_print(&b, t[i].plain.p, t[i].plain.n);
                assert_string_equal(buf_z(&a), t[i].standard);
                assert_string_equal(buf_z(&b), t[i].url);
                assert_true(base64_decode(str_of(t[i].url), BASE64_URL, out, &n) && str_eq(str_make(out, n), t[i].plain));
                buf_fini(&a);
                buf_fini(&b);
        }
        assert_false(base64_decode(STR("-__-"), BASE64_STANDARD, out, &n));
        assert_false(base64_decode(STR("+//+"), BASE64_URL, out, &n));
        assert_true(base64_decode(STR("+__-"), BASE64_STANDARD | BASE64_URL, out, &n));
        assert_false(base64_decode(STR("Zg=="), BASE64_STANDARD, out, &n));
        assert_false(base64_decode(str_make("Z\0", 2), BASE64_STANDARD, out, &n));
}

static void test_time(void **state)
{
        static const struct {
                const char *text;
                bool ok;
                uint64_t us;
        } t[] = {
                { "1970-01-01T00:00:00Z", true, 0 },
                { "2024-06-20T21:19:40.721Z", true, 1718918380721000u },
                { "2024-06-20T23:19:40.721+02:00", true, 1718918380721000u },
                { "2024-06-20 21:19:40", false, 0 },
                { "2024-13-20T21:19:40Z", false, 0 },
                { "x", false, 0 },
        };
        char out[40], http[30];

        (void)state;
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                uint64_t us = 0;

                assert_int_equal(clock_parse_rfc3339(str_of(t[i].text), &us), t[i].ok);
                if (t[i].ok)
                        assert_true(us == t[i].us);
        }
        clock_rfc3339(1718918380721000u, 3, out);
        assert_string_equal(out, "2024-06-20T21:19:40.721Z");
        clock_http_date(784111777, http);
        assert_string_equal(http, "Sun, 06 Nov 1994 08:49:37 GMT");
}

static void test_diags(void **state)
{
        struct diags d;
        struct buf b = BUF_INIT;
        struct diag_at at = { .file = STR("virtualservice.yaml"), .line = 14, .column = 9, .path = STR("spec.http[0].rout") };

        (void)state;
        diags_init(&d);
        diag_add(&d, DIAG_ERROR, NULL, &at, "unknown field (did you mean \"%s\"?)", "route");
        diags_format(&d, &b);
        assert_string_equal(buf_z(&b), "virtualservice.yaml:14:9: spec.http[0].rout: unknown field (did you mean \"route\"?)\n");
        assert_int_equal(d.errors, 1);
        for (int i = 0; i < 200; i++)
                diag_add(&d, DIAG_WARNING, "PST0001", NULL, "again");
        assert_int_equal(d.n, 100);
        assert_int_equal(d.dropped, 101);
        diags_fini(&d);
        buf_fini(&b);
}

static void test_random(void **state)
{
        char a[37], b[37];

        (void)state;
        rand_uuid4(a);
        rand_uuid4(b);
        assert_int_equal(strlen(a), 36);
        assert_int_equal(a[14], '4');
        assert_true(strchr("89ab", a[19]) != NULL);
        assert_string_not_equal(a, b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_numbers),     cmocka_unit_test(test_parts), cmocka_unit_test(test_arena),
                cmocka_unit_test(test_chain_model), cmocka_unit_test(test_map),   cmocka_unit_test(test_json_text),
                cmocka_unit_test(test_base64),      cmocka_unit_test(test_time),  cmocka_unit_test(test_diags),
                cmocka_unit_test(test_random),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
