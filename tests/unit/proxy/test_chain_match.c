/* Filter chain match: which chain, and that there is no way back from the most specific branch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/listener.h"

#include "envoy/accesslog.pb-c.h"
#include "envoy/listener.pb-c.h"

#include <stdlib.h>

enum { CHAINS_MAX = 8 };

struct table {
        struct arena arena;
        struct filter_chain chain[CHAINS_MAX];
        unsigned n;
        struct chain_match *m;
        struct diags d;
};

/* One chain a line of YAML: its filter_chain_match. False: refused. */
static bool add(struct table *t, const char *match)
{
        struct filter_chain *c = &t->chain[t->n++];
        struct diag_at at = { .path = STR("filter_chains[0]") };
        struct pb_node **docs;
        size_t n;
        Xds__FilterChain *p = ARENA_NEW(&t->arena, Xds__FilterChain);

        xds__filter_chain__init(p);
        assert_true(pb_parse_yaml(str_of(match), STR("t"), &t->arena, &docs, &n, &t->d));
        p->filter_chain_match = (Xds__FilterChainMatch *)pb_from_node(&xds__filter_chain_match__descriptor, docs[0], 0, &at, &t->arena,
                                                                      &t->d);
        assert_non_null(p->filter_chain_match);
        c->proto = p;
        return chain_match_add(t->m, c, &at, &t->d);
}

static void start(struct table *t)
{
        memset(t, 0, sizeof(*t));
        arena_init(&t->arena, 4096);
        diags_init(&t->d);
        t->m = chain_match_new();
}

static void end(struct table *t)
{
        chain_match_free(t->m);
        diags_fini(&t->d);
        arena_fini(&t->arena);
}

/* "local remote sni transport alpn": '-' is nothing. The index of the chain, or -1. */
static int find(struct table *t, const char *query)
{
        struct str rest = str_of(query), part[5] = { 0 }, alpn;
        struct addr local, remote;
        struct chain_lookup q = { 0 };

        for (unsigned i = 0; i < 5; i++) {
                str_next(&rest, ' ', &part[i]);
                if (str_eqc(part[i], "-"))
                        part[i] = (struct str){ 0 };
        }
        assert_true(addr_parse(&local, part[0]) && addr_parse(&remote, part[1]));
        q = (struct chain_lookup){ .local = &local, .remote = &remote, .direct_remote = &remote, .sni = part[2], .transport = part[3] };
        alpn = part[4];
        if (alpn.n) {
                q.alpn = &alpn;
                q.nalpn = 1;
        }
        const struct filter_chain *c = chain_match_find(t->m, &q);

        return c ? (int)(c - t->chain) : -1;
}

struct want {
        const char *query;
        int chain;
};

static void check(const char *const *chains, const struct want *w)
{
        struct table t;

        start(&t);
        for (; *chains; chains++)
                assert_true(add(&t, *chains));
        for (; w->query; w++) {
                int got = find(&t, w->query);

                if (got != w->chain)
                        print_message("%s: %d, not %d\n", w->query, got, w->chain);
                assert_int_equal(got, w->chain);
        }
        end(&t);
}

static void test_names(void **state)
{
        static const char *const chains[] = { "server_names: [a.b.org]", "server_names: ['*.b.org', x.org]", "server_names: ['*.org']",
                                              "{}", NULL };
        static const struct want w[] = {
                { "10.0.0.1:80 10.0.0.2:9 a.b.org tls -", 0 },   { "10.0.0.1:80 10.0.0.2:9 c.b.org tls -", 1 },
                { "10.0.0.1:80 10.0.0.2:9 d.c.b.org tls -", 1 }, { "10.0.0.1:80 10.0.0.2:9 x.org tls -", 1 },
                { "10.0.0.1:80 10.0.0.2:9 b.org tls -", 2 },     { "10.0.0.1:80 10.0.0.2:9 org tls -", 3 },
                { "10.0.0.1:80 10.0.0.2:9 .b.org tls -", 2 },    { "10.0.0.1:80 10.0.0.2:9 a.com tls -", 3 },
                { "10.0.0.1:80 10.0.0.2:9 - - -", 3 },           { NULL, 0 },
        };

        check(chains, w);
}

static void test_prefixes(void **state)
{
        static const char *const chains[] = {
                "prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]",
                "prefix_ranges: [{address_prefix: 10.1.0.0, prefix_len: 16}, {address_prefix: 'fd00::', prefix_len: 8}]",
                "prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 32}]", NULL
        };
        static const struct want w[] = {
                { "10.9.9.9:1 1.1.1.1:1 - - -", 0 },  { "10.1.9.9:1 1.1.1.1:1 - - -", 1 },    { "10.1.2.3:1 1.1.1.1:1 - - -", 2 },
                { "11.1.2.3:1 1.1.1.1:1 - - -", -1 }, { "[fd12::1]:1 [fd12::2]:1 - - -", 1 }, { NULL, 0 },
        };

        check(chains, w);
}

static void test_no_way_back(void **state)
{
        static const char *const chains[] = { "{destination_port: 80, server_names: [a.org]}", "server_names: [b.org]",
                                              "{transport_protocol: raw_buffer, application_protocols: [h2c]}", NULL };
        static const struct want w[] = {
                { "1.1.1.1:80 2.2.2.2:1 a.org tls -", 0 },
                { "1.1.1.1:80 2.2.2.2:1 b.org tls -", -1 }, /* port 80 leads to the first chain's branch, and stays there */
                { "1.1.1.1:81 2.2.2.2:1 b.org tls -", 1 },
                { "1.1.1.1:81 2.2.2.2:1 - - h2c", 2 },
                { "1.1.1.1:81 2.2.2.2:1 - - -", -1 },
                { NULL, 0 },
        };

        check(chains, w);
}

static void test_sources(void **state)
{
        static const char *const chains[] = { "source_type: SAME_IP_OR_LOOPBACK", "source_type: EXTERNAL",
                                              "source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]", NULL };
        static const struct want w[] = {
                { "1.1.1.1:80 1.1.1.1:9 - - -", 0 },
                { "1.1.1.1:80 127.0.0.1:9 - - -", 0 },
                { "1.1.1.1:80 127.0.0.2:9 - - -", 1 },
                { "1.1.1.1:80 10.0.0.1:9 - - -", 1 },
                { NULL, 0 },
        };

        check(chains, w);
}

static void test_source_ports(void **state)
{
        static const char *const chains[] = { "{source_ports: [1, 2], source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}",
                                              "source_ports: [3]", "{}", NULL };
        static const struct want w[] = {
                { "1.1.1.1:80 10.0.0.1:2 - - -", 0 },
                { "1.1.1.1:80 10.0.0.1:3 - - -", -1 },
                { "1.1.1.1:80 11.0.0.1:3 - - -", 1 },
                { "1.1.1.1:80 11.0.0.1:4 - - -", 2 },
                { NULL, 0 },
        };

        check(chains, w);
}

static void test_refused(void **state)
{
        static const struct {
                const char *first, *second, *says;
        } cases[] = {
                { "server_names: [a.org]", "server_names: [A.ORG]", "same matching rules" },
                { "{}", "{}", "same matching rules" },
                { "server_names: [a.org]", "server_names: ['*']", "partial wildcards" },
                { "server_names: [a.org]", "server_names: ['a.*']", "partial wildcards" },
                { "{}", "{destination_port: 0}", "not a port" },
                { "{}", "{source_ports: [70000]}", "not a port" },
                { "{}", "prefix_ranges: [{address_prefix: 10.0.0.1, prefix_len: 33}]", "invalid ip/mask" },
        };

        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
                struct table t;

                start(&t);
                assert_true(add(&t, cases[i].first));
                assert_false(add(&t, cases[i].second));
                assert_true(str_find(t.d.v[0].text, str_of(cases[i].says)) >= 0);
                end(&t);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names),   cmocka_unit_test(test_prefixes),     cmocka_unit_test(test_no_way_back),
                cmocka_unit_test(test_sources), cmocka_unit_test(test_source_ports), cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
