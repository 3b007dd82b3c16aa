#include "net/addr.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_parse(void **state)
{
        static const struct {
                const char *in, *out; /* out NULL: refused */
        } t[] = {
                { "10.0.0.1:80", "10.0.0.1:80" },
                { "[::1]:80", "[::1]:80" },
                { "[fd00:0::2]:65535", "[fd00::2]:65535" },
                { "[::ffff:1.2.3.4]:5", "1.2.3.4:5" },
                { "unix:/run/x.sock", "/run/x.sock" },
                { "/run/x.sock", "/run/x.sock" },
                { "@abstract", "@abstract" },
                { "unix:@abstract", "@abstract" },
                { "0.0.0.0:0", "0.0.0.0:0" },
                { "", NULL },
                { ":80", NULL },
                { "10.0.0.1", NULL },
                { "10.0.0.1:", NULL },
                { "10.0.0.1:65536", NULL },
                { "10.0.0.1:-1", NULL },
                { "10.0.0.1:8o", NULL },
                { "::1:80", NULL },
                { "[10.0.0.1]:80", NULL },
                { "[::1:80", NULL },
                { "010.0.0.1:80", NULL },
                { "host:80", NULL },
                { "unix:", NULL },
                { "@", NULL },
        };

        for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
                struct addr a = { .len = 0 };
                char text[ADDR_TEXT_MAX];
                bool ok = addr_parse(&a, str_of(t[i].in));

                if (ok != (t[i].out != NULL))
                        fail_msg("%s: %s", t[i].in, ok ? "accepted" : "refused");
                if (!ok)
                        continue;
                assert_int_equal(addr_text(&a, text), strlen(t[i].out));
                assert_string_equal(text, t[i].out);
        }
}

static void test_unix_length(void **state)
{
        char path[200];
        struct addr a;

        memset(path, 'x', sizeof(path));
        path[0] = '/';
        assert_true(addr_unix(&a, str_make(path, 107)));
        assert_false(addr_unix(&a, str_make(path, 108)));
        assert_false(addr_unix(&a, str_make("/a\0b", 4)));
}

static struct addr ip(const char *s)
{
        struct addr a = { .len = 0 };

        assert_true(addr_parse_ip(&a, str_of(s), 7));
        return a;
}

static void test_kinds(void **state)
{
        static const struct {
                const char *ip;
                bool loopback, any, private;
        } t[] = {
                { "127.0.0.1", true, false, true },    { "::1", true, false, true },          { "::ffff:127.1.2.3", true, false, true },
                { "0.0.0.0", false, true, false },     { "::", false, true, false },          { "10.1.2.3", false, false, true },
                { "172.15.0.1", false, false, false }, { "172.16.0.1", false, false, true },  { "172.31.255.255", false, false, true },
                { "172.32.0.1", false, false, false }, { "192.168.0.1", false, false, true }, { "192.169.0.1", false, false, false },
                { "fd00::1", false, false, true },     { "fe00::1", false, false, false },    { "8.8.8.8", false, false, false },
        };

        for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
                struct addr a = ip(t[i].ip);

                if (addr_is_loopback(&a) != t[i].loopback || addr_is_any(&a) != t[i].any || addr_is_private(&a) != t[i].private)
                        fail_msg("%s", t[i].ip);
        }
        struct addr x = ip("1.2.3.4"), y = ip("::ffff:1.2.3.4"), none = { .len = 0 };
        assert_true(addr_eq(&x, &y));
        assert_int_equal(addr_hash(&x), addr_hash(&y));
        addr_set_port(&y, 8);
        assert_int_equal(addr_port(&y), 8);
        assert_false(addr_eq(&x, &y));
        assert_true(addr_ip_eq(&x, &y));
        assert_false(addr_eq(&x, &none));
        assert_true(addr_eq(&none, &none));
        char text[ADDR_TEXT_MAX];
        addr_text(&none, text);
        assert_string_equal(text, "-");
}

static void test_cidr(void **state)
{
        static const struct {
                const char *cidr, *ip;
                int has; /* -1: the prefix is refused */
        } t[] = {
                { "10.0.0.0/8", "10.255.0.1", 1 },
                { "10.0.0.0/8", "11.0.0.1", 0 },
                { "10.1.2.3/8", "10.255.0.1", 1 },
                { "0.0.0.0/0", "1.2.3.4", 1 },
                { "0.0.0.0/0", "::1", 0 },
                { "::/0", "::1", 1 },
                { "::/0", "1.2.3.4", 0 },
                { "10.0.0.7", "10.0.0.7", 1 },
                { "10.0.0.7", "10.0.0.6", 0 },
                { "10.0.0.4/30", "10.0.0.7", 1 },
                { "10.0.0.4/30", "10.0.0.8", 0 },
                { "10.0.0.0/8", "::ffff:10.1.1.1", 1 },
                { "fd00:1::/33", "fd00:1:7fff::1", 1 },
                { "fd00:1::/33", "fd00:1:8000::1", 0 },
                { "10.0.0.0/33", NULL, -1 },
                { "::/129", NULL, -1 },
                { "10.0.0.0/", NULL, -1 },
                { "/8", NULL, -1 },
                { "10.0.0.0/-1", NULL, -1 },
                { "10.0.0/8", NULL, -1 },
        };

        for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
                struct cidr c;
                bool ok = cidr_parse(&c, str_of(t[i].cidr));

                if (ok != (t[i].has >= 0))
                        fail_msg("%s", t[i].cidr);
                if (!ok)
                        continue;
                struct addr a = ip(t[i].ip);
                if (cidr_has(&c, &a) != t[i].has)
                        fail_msg("%s in %s", t[i].ip, t[i].cidr);
        }
        struct cidr a, b, c;
        assert_true(cidr_parse(&a, STR("10.0.0.0/8")) && cidr_parse(&b, STR("10.2.0.0/16")) && cidr_parse(&c, STR("10.3.0.0/16")));
        assert_true(cidr_overlaps(&a, &b) && cidr_overlaps(&b, &a));
        assert_false(cidr_overlaps(&b, &c));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parse),
                cmocka_unit_test(test_unix_length),
                cmocka_unit_test(test_kinds),
                cmocka_unit_test(test_cidr),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
