/* DNS queries as bytes on the wire. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "node/dnsanswer.h"

#include <ldns/ldns.h>
#include <stdio.h>
#include <stdlib.h>

static enum dns_lookup lookup(void *arg, struct str name, enum dns_kind kind, struct dns_found *found)
{
        struct addr ip;

        (void)arg;
        (void)kind;
        found->ttl_s = 5;
        if (str_ends(name, STR("elsewhere.test")))
                return DNS_ELSEWHERE;
        if (str_eqc(name, "web.shop.svc.cluster.local")) {
                found->exists = true;
                addr_parse_ip(&ip, STR("10.96.0.20"), 0);
                dns_found_add(found, DNS_A, &ip, STR(""), 0);
        } else if (str_eqc(name, "many.test")) {
                found->exists = true;
                for (int i = 1; i < 200; i++) {
                        char text[32];
                        int n = snprintf(text, sizeof(text), "10.0.0.%d", i);
                        addr_parse_ip(&ip, str_make(text, (size_t)n), 0);
                        dns_found_add(found, DNS_A, &ip, STR(""), 0);
                }
        } else if (str_eqc(name, "_http._tcp.web.test")) {
                found->exists = true;
                dns_found_add(found, DNS_SRV, NULL, STR("web.test"), 80);
        } else if (str_eqc(name, "alias.test")) {
                found->exists = true;
                dns_found_add(found, DNS_CNAME, NULL, STR("real.test"), 0);
        }
        return DNS_OURS;
}

static const struct dns_zone zone = { NULL, lookup, "cluster.local" };

static size_t query(const char *name, ldns_rr_type type, unsigned edns, uint8_t **wire)
{
        ldns_pkt *p = ldns_pkt_query_new(ldns_dname_new_frm_str(name), type, LDNS_RR_CLASS_IN, LDNS_RD);
        size_t n = 0;

        ldns_pkt_set_id(p, 0x1234);
        if (edns)
                ldns_pkt_set_edns_udp_size(p, (uint16_t)edns);
        assert_int_equal(ldns_pkt2wire(wire, p, &n), LDNS_STATUS_OK);
        ldns_pkt_free(p);
        return n;
}

static ldns_pkt *ask(const char *name, ldns_rr_type type, unsigned edns, bool tcp)
{
        uint8_t *wire = NULL;
        size_t n = query(name, type, edns, &wire);
        struct buf out = BUF_INIT;
        ldns_pkt *answer = NULL;

        assert_int_equal(dns_answer(wire, n, &zone, tcp, &out), DNS_ANSWER);
        assert_int_equal(ldns_wire2pkt(&answer, (const uint8_t *)out.p, out.n), LDNS_STATUS_OK);
        assert_int_equal(ldns_pkt_id(answer), 0x1234);
        assert_true(ldns_pkt_qr(answer));
        assert_true(tcp || out.n <= (edns ? edns : 512));
        buf_fini(&out);
        free(wire);
        return answer;
}

static void test_answers(void **state)
{
        static const struct {
                const char *name;
                ldns_rr_type type;
                ldns_pkt_rcode rcode;
                unsigned answers;
        } t[] = {
                { "web.shop.svc.cluster.local.", LDNS_RR_TYPE_A, LDNS_RCODE_NOERROR, 1 },
                { "WEB.Shop.svc.CLUSTER.local.", LDNS_RR_TYPE_A, LDNS_RCODE_NOERROR, 1 },
                { "web.shop.svc.cluster.local.", LDNS_RR_TYPE_AAAA, LDNS_RCODE_NOERROR, 0 },
                { "web.shop.svc.cluster.local.", LDNS_RR_TYPE_MX, LDNS_RCODE_NOERROR, 0 },
                { "none.svc.cluster.local.", LDNS_RR_TYPE_A, LDNS_RCODE_NXDOMAIN, 0 },
                { "_http._tcp.web.test.", LDNS_RR_TYPE_SRV, LDNS_RCODE_NOERROR, 1 },
                { "alias.test.", LDNS_RR_TYPE_A, LDNS_RCODE_NOERROR, 1 },
                { "web.shop.svc.cluster.local.", LDNS_RR_TYPE_AXFR, LDNS_RCODE_REFUSED, 0 },
                { "web.shop.svc.cluster.local.", LDNS_RR_TYPE_ANY, LDNS_RCODE_REFUSED, 0 },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                ldns_pkt *a = ask(t[i].name, t[i].type, 0, false);
                if (ldns_pkt_get_rcode(a) != t[i].rcode || ldns_pkt_ancount(a) != t[i].answers)
                        fail_msg("%s: rcode %d, %u answers", t[i].name, (int)ldns_pkt_get_rcode(a), ldns_pkt_ancount(a));
                if (t[i].rcode != LDNS_RCODE_REFUSED && !t[i].answers)
                        assert_int_equal(ldns_pkt_nscount(a), 1); /* a denial carries the zone's SOA */
                ldns_pkt_free(a);
        }
}

static void test_long_answers(void **state)
{
        ldns_pkt *a = ask("many.test.", LDNS_RR_TYPE_A, 0, false);

        (void)state;
        assert_true(ldns_pkt_tc(a));
        assert_int_equal(ldns_pkt_ancount(a), 0);
        ldns_pkt_free(a);
        a = ask("many.test.", LDNS_RR_TYPE_A, 4096, false);
        assert_false(ldns_pkt_tc(a));
        assert_int_equal(ldns_pkt_ancount(a), 199);
        assert_true(ldns_pkt_edns(a));
        ldns_pkt_free(a);
        a = ask("many.test.", LDNS_RR_TYPE_A, 0, true);
        assert_int_equal(ldns_pkt_ancount(a), 199);
        ldns_pkt_free(a);
}

static void test_not_ours(void **state)
{
        uint8_t *wire = NULL;
        size_t n = query("www.elsewhere.test.", LDNS_RR_TYPE_A, 0, &wire);
        struct buf out = BUF_INIT;

        (void)state;
        assert_int_equal(dns_answer(wire, n, &zone, false, &out), DNS_FORWARD);
        assert_int_equal(out.n, 0);
        assert_int_equal(dns_answer(wire, 11, &zone, false, &out), DNS_DROP);
        wire[2] |= 0x80; /* an answer: never answered, or two servers talk for ever */
        assert_int_equal(dns_answer(wire, n, &zone, false, &out), DNS_DROP);
        wire[2] = 0x28; /* opcode UPDATE */
        assert_int_equal(dns_answer(wire, n, &zone, false, &out), DNS_ANSWER);
        assert_int_equal(out.p[3] & 15, LDNS_RCODE_NOTIMPL);
        out.n = 0;
        wire[2] = 1;
        assert_int_equal(dns_answer(wire, n - 3, &zone, false, &out), DNS_ANSWER); /* cut short */
        assert_int_equal(out.p[3] & 15, LDNS_RCODE_FORMERR);
        out.n = 0;
        wire[5] = 2; /* two questions, of which one is there */
        assert_int_equal(dns_answer(wire, n, &zone, false, &out), DNS_ANSWER);
        assert_int_equal(out.p[3] & 15, LDNS_RCODE_FORMERR);
        buf_fini(&out);
        free(wire);
}

static void test_same_question(void **state)
{
        uint8_t *a = NULL, *b = NULL, *c = NULL;
        size_t na = query("a.test.", LDNS_RR_TYPE_A, 0, &a), nb = query("A.test.", LDNS_RR_TYPE_A, 1232, &b),
               nc = query("b.test.", LDNS_RR_TYPE_A, 0, &c);

        (void)state;
        b[2] |= 0x80;
        c[2] |= 0x80;
        assert_true(dns_same_question(a, na, b, nb));
        assert_false(dns_same_question(a, na, c, nc));
        assert_false(dns_same_question(a, na, a, na)); /* a query is no answer */
        assert_false(dns_same_question(a, na, b, 5));
        free(a);
        free(b);
        free(c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_answers),
                cmocka_unit_test(test_long_answers),
                cmocka_unit_test(test_not_ours),
                cmocka_unit_test(test_same_question),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
