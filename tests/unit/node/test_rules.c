/* The nftables scripts: their order and words. That the kernel takes them and that packets go where they should is shown by the system
 * tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "node/redirect.h"
#include "node/service.h"

#include <string.h>

struct annotation {
        const char *name, *value;
};

static struct str get(void *arg, const char *name)
{
        for (const struct annotation *a = arg; a->name; a++)
                if (strcmp(a->name, name) == 0)
                        return str_of(a->value);
        return (struct str){ NULL, 0 };
}

static void script(struct annotation *a, struct buf *out)
{
        struct buf error = BUF_INIT;

        if (!redirect_script(get, a, out, &error))
                fail_msg("%s", buf_z(&error));
        buf_fini(&error);
}

/* Each of the words in this order. */
static void in_order(const char *text, const char *const *words, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                const char *at = strstr(text, words[i]);
                if (!at)
                        fail_msg("\"%s\" is missing or too early in:\n%s", words[i], text);
                text = at + strlen(words[i]);
        }
}

static void test_defaults(void **state)
{
        static const char *const words[] = {
                "chain prerouting",          "tcp dport { 15008, 15020, 15021, 15090 } return",
                "redirect to :15006",        "chain output",
                "ip saddr 127.0.0.6 return", "ip daddr != 127.0.0.1 meta l4proto tcp tcp dport != 15008 meta skuid 1337 redirect to :15006",
                "meta skuid != 1337 return", "meta skuid 1337 return",
                "meta skgid 1337 return",    "ip daddr 127.0.0.1 return",
                "ip6 daddr ::1 return",      "redirect to :15001",
        };
        struct annotation none[] = { { NULL, NULL } };
        struct buf b = BUF_INIT;

        (void)state;
        script(none, &b);
        in_order(buf_z(&b), words, ARRAY_LEN(words));
        buf_fini(&b);
}

#define T "traffic.sidecar.istio.io/"

static void test_annotations(void **state)
{
        static const char *const words[] = { "iifname { \"eth1\" } return",
                                             "tcp dport { 80, 443 } redirect to :15006",
                                             "chain output",
                                             "tcp dport { 5432 } return",
                                             "ip daddr 10.0.0.0/8 return",
                                             "ip6 daddr fd00::/8 return",
                                             "tcp dport { 9000 } redirect to :15001",
                                             "ip daddr 192.0.2.0/24 meta l4proto tcp redirect to :15001" };
        struct annotation a[] = {
                { T "includeInboundPorts", "80, 443" },
                { T "excludeOutboundPorts", "5432" },
                { T "excludeOutboundIPRanges", "10.0.0.0/8,fd00::/8" },
                { T "includeOutboundIPRanges", "192.0.2.0/24" },
                { T "includeOutboundPorts", "9000" },
                { T "excludeInterfaces", "eth1" },
                { NULL, NULL },
        };
        struct annotation nothing_in[] = { { T "includeInboundPorts", "" }, { NULL, NULL } };
        struct buf b = BUF_INIT;

        (void)state;
        script(a, &b);
        in_order(buf_z(&b), words, ARRAY_LEN(words));
        assert_null(strstr(buf_z(&b), "  meta l4proto tcp redirect to :15001\n")); /* not everything */
        b.n = 0;
        script(nothing_in, &b);
        assert_null(strstr(strstr(buf_z(&b), "chain prerouting"), "  meta l4proto tcp redirect to :15006"));
        buf_fini(&b);
}

static void test_bad_annotations(void **state)
{
        static const char *const bad[][2] = {
                { T "includeInboundPorts", "http" },
                { T "excludeInboundPorts", "0" },
                { T "excludeOutboundPorts", "70000" },
                { T "includeOutboundIPRanges", "10.0.0.0/40" },
                { T "excludeOutboundIPRanges", "example.com" },
                { T "excludeInterfaces", "a b; flush ruleset" },
                { T "excludeInterfaces", "averylonginterfacename" },
                { "sidecar.istio.io/interceptionMode", "TPROXY" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
                struct annotation a[] = { { bad[i][0], bad[i][1] }, { NULL, NULL } };
                struct buf b = BUF_INIT, error = BUF_INIT;
                assert_false(redirect_script(get, a, &b, &error));
                assert_non_null(strstr(buf_z(&error), bad[i][0])); /* it names the annotation */
                buf_fini(&b);
                buf_fini(&error);
        }
}

static void test_wanted(void **state)
{
        struct annotation plain[] = { { "a", "b" }, { NULL, NULL } }, injected[] = { { "sidecar.istio.io/status", "{}" }, { NULL, NULL } };
        struct annotation off[] = { { "sidecar.istio.io/status", "{}" }, { "sidecar.istio.io/interceptionMode", "NONE" }, { NULL, NULL } };

        (void)state;
        assert_false(redirect_wanted(get, plain));
        assert_true(redirect_wanted(get, injected));
        assert_false(redirect_wanted(get, off));
}

static struct addr at(const char *ip, uint16_t port)
{
        struct addr a;

        assert_true(addr_parse_ip(&a, str_of(ip), port));
        return a;
}

static void test_services(void **state)
{
        struct addr two[] = { at("10.244.0.5", 8080), at("10.244.0.6", 8080) }, dns = at("10.96.0.10", 0);
        struct service_port v[] = {
                { .vip = at("10.96.0.20", 80), .endpoints = two, .nendpoints = 2 },
                { .vip = at("10.96.0.21", 53), .udp = true, .client_ip = true, .endpoints = two, .nendpoints = 1 },
                { .vip = at("10.96.0.22", 80) },
        };
        static const char *const words[] = {
                "delete table ip postern_services",
                "numgen random mod 2 map { 0 : 10.244.0.5 . 8080, 1 : 10.244.0.6 . 8080 }",
                "meta l4proto udp dnat ip to jhash ip saddr mod 1",
                "10.96.0.20 . tcp . 80 : goto port_0",
                "10.96.0.21 . udp . 53 : goto port_1",
                "10.244.0.5 . 10.244.0.5",
                "masquerade",
                "ip daddr != 10.96.0.10 ip daddr 10.96.0.0/16 meta l4proto tcp reject with tcp reset",
        };
        struct cidr range;
        struct buf b = BUF_INIT;

        (void)state;
        assert_true(cidr_parse(&range, STR("10.96.0.0/16")));
        service_script(v, ARRAY_LEN(v), &range, &dns, &b);
        in_order(buf_z(&b), words, ARRAY_LEN(words));
        assert_null(strstr(buf_z(&b), "10.96.0.22")); /* without endpoints: left to the refusal */
        buf_fini(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults), cmocka_unit_test(test_annotations), cmocka_unit_test(test_bad_annotations),
                cmocka_unit_test(test_wanted),   cmocka_unit_test(test_services),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
