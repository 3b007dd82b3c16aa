/* Against a DNS server of a few names, on a loopback UDP socket of the same loop. */
#include "net/dns.h"
#include "net/sock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct server {
        struct loop *l;
        struct loop_watch w;
        struct addr at;
        char text[ADDR_TEXT_MAX];
        unsigned asked;
        bool silent;
};

static const struct record {
        const char *name, *v4, *v6;
        unsigned ttl4, ttl6;
        int rcode;
} records[] = {
        { "both.test", "192.0.2.1", "2001:db8::1", 60, 30, 0 },
        { "four.test", "192.0.2.4", NULL, 90, 0, 0 },
        { "fails.test", NULL, NULL, 0, 0, 2 },
};

static void answer(struct server *s, uint8_t *q, ssize_t n, const struct addr *from)
{
        uint8_t r[512];
        char name[256];
        size_t at = 12, len = 0;

        while (at < (size_t)n && q[at]) {
                if (len)
                        name[len++] = '.';
                memcpy(name + len, q + at + 1, q[at]);
                len += q[at];
                at += 1u + q[at];
        }
        name[len] = '\0';
        bool v6 = q[at + 2] == 28;
        size_t question = at + 5;
        memcpy(r, q, question);
        r[2] = 0x81;
        r[3] = 0x80;
        memset(r + 4, 0, 8);
        r[5] = 1;
        const struct record *rec = NULL;
        for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++)
                if (strcmp(records[i].name, name) == 0)
                        rec = &records[i];
        const char *ip = !rec ? NULL : v6 ? rec->v6 : rec->v4;
        size_t out = question;
        if (!rec || rec->rcode)
                r[3] |= (uint8_t)(rec ? rec->rcode : 3);
        if (ip) {
                struct addr a;
                uint32_t ttl = v6 ? rec->ttl6 : rec->ttl4;
                const uint8_t head[] = {
                        0xc0,         12, 0,          v6 ? 28 : 1, 0, 1, (uint8_t)(ttl >> 24), (uint8_t)(ttl >> 16), (uint8_t)(ttl >> 8),
                        (uint8_t)ttl, 0,  v6 ? 16 : 4
                };

                assert_true(addr_parse_ip(&a, str_of(ip), 0));
                r[7] = 1;
                memcpy(r + out, head, sizeof(head));
                out += sizeof(head);
                memcpy(r + out, v6 ? (void *)&a.v6.sin6_addr : (void *)&a.v4.sin_addr, v6 ? 16 : 4);
                out += v6 ? 16 : 4;
        }
        assert_int_equal(sendto(s->w.fd, r, out, 0, &from->sa, from->len), out);
}

static void on_query(struct loop_watch *w, unsigned ready)
{
        struct server *s = w->arg;
        uint8_t q[512];
        struct addr from = { .len = sizeof(from.un) };
        ssize_t n = recvfrom(w->fd, q, sizeof(q), MSG_DONTWAIT, &from.sa, &from.len);

        if (n < 17)
                return;
        s->asked++;
        if (!s->silent)
                answer(s, q, n, &from);
}

static void server_start(struct server *s)
{
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        *s = (struct server){ .l = loop_new() };
        assert_true(addr_parse(&s->at, STR("127.0.0.1:0")));
        assert_int_equal(bind(fd, &s->at.sa, s->at.len), 0);
        assert_true(sock_local(fd, &s->at));
        addr_text(&s->at, s->text);
        assert_int_equal(loop_watch(s->l, &s->w, fd, LOOP_READ | LOOP_LEVEL, on_query, s), 0);
}

static void server_stop(struct server *s)
{
        int fd = s->w.fd;

        loop_unwatch(s->l, &s->w);
        close(fd);
        loop_free(s->l);
}

struct got {
        unsigned calls, n, ttl;
        bool ok, not_found;
        char first[ADDR_TEXT_MAX], last[ADDR_TEXT_MAX];
        const char *error;
};

static void on_result(void *arg, const struct dns_result *r)
{
        struct got *g = arg;

        g->calls++;
        g->ok = r->ok;
        g->n = r->n;
        g->ttl = r->ttl_s;
        g->not_found = r->not_found;
        g->error = r->error;
        if (r->n) {
                addr_ip_text(&r->v[0], g->first);
                addr_ip_text(&r->v[r->n - 1], g->last);
        }
}

static void test_families(void **state)
{
        static const struct {
                const char *name;
                enum dns_family family;
                unsigned n, ttl;
                const char *first, *last, *error;
                bool not_found;
        } t[] = {
                { "both.test", DNS_V4_ONLY, 1, 60, "192.0.2.1", "192.0.2.1", NULL, false },
                { "both.test", DNS_V6_ONLY, 1, 30, "2001:db8::1", "2001:db8::1", NULL, false },
                { "both.test", DNS_AUTO, 1, 30, "2001:db8::1", "2001:db8::1", NULL, false },
                { "both.test", DNS_V4_PREFERRED, 1, 60, "192.0.2.1", "192.0.2.1", NULL, false },
                { "both.test", DNS_ALL, 2, 30, "2001:db8::1", "192.0.2.1", NULL, false },
                { "four.test", DNS_AUTO, 1, 90, "192.0.2.4", "192.0.2.4", NULL, false },
                { "four.test", DNS_V6_ONLY, 0, 0, NULL, NULL, "no such host", true },
                { "none.test", DNS_AUTO, 0, 0, NULL, NULL, "no such host", true },
                { "fails.test", DNS_V4_ONLY, 0, 0, NULL, NULL, "no DNS server gave an answer", false },
                { "192.0.2.77", DNS_AUTO, 1, UINT32_MAX, "192.0.2.77", "192.0.2.77", NULL, false },
                { "::1", DNS_V4_ONLY, 1, UINT32_MAX, "::1", "::1", NULL, false },
                { "", DNS_AUTO, 0, 0, NULL, NULL, "not a host name", true },
                { "a..b", DNS_AUTO, 0, 0, NULL, NULL, "not a host name", true },
        };
        struct server s;

        server_start(&s);
        struct str where = str_of(s.text);
        struct dns *d = dns_new(s.l, &where, 1, false, true);
        assert_non_null(d);
        for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
                struct got g = { 0 };

                assert_non_null(dns_resolve(d, str_of(t[i].name), t[i].family, on_result, &g));
                assert_int_equal(g.calls, 0);
                while (!g.calls)
                        loop_turn(s.l, -1);
                if (g.n != t[i].n || g.ok != (t[i].n > 0) || g.ttl != t[i].ttl || g.not_found != t[i].not_found)
                        fail_msg("%s (%zu): n %u ttl %u error %s", t[i].name, i, g.n, g.ttl, g.error);
                if (t[i].n) {
                        assert_string_equal(g.first, t[i].first);
                        assert_string_equal(g.last, t[i].last);
                } else {
                        assert_string_equal(g.error, t[i].error);
                }
        }
        dns_free(d);
        server_stop(&s);
}

static void test_cancel_and_free(void **state)
{
        struct server s;
        struct got g = { 0 };

        server_start(&s);
        struct str where = str_of(s.text);
        struct dns *d = dns_new(s.l, &where, 1, false, true);
        dns_cancel(dns_resolve(d, STR("both.test"), DNS_ALL, on_result, &g));
        dns_cancel(dns_resolve(d, STR("192.0.2.1"), DNS_ALL, on_result, &g));
        dns_cancel(NULL);
        while (s.asked < 2)
                loop_turn(s.l, -1);
        loop_turn(s.l, 10);
        s.silent = true;
        dns_resolve(d, STR("both.test"), DNS_ALL, on_result, &g);
        dns_resolve(d, STR("192.0.2.1"), DNS_ALL, on_result, &g);
        dns_free(d);
        loop_turn(s.l, 0);
        assert_int_equal(g.calls, 0);
        server_stop(&s);
        dns_free(NULL);
        struct loop *l = loop_new();
        struct str junk = STR("dns.example");
        assert_null(dns_new(l, &junk, 1, false, false));
        loop_free(l);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_families), cmocka_unit_test(test_cancel_and_free) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
