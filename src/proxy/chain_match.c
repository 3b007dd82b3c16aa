/* The match tree. Nine levels, each with exact keys (or prefixes, or source types) and one branch for chains that say nothing at that
 * level. At each level the most specific branch is taken and the others are forgotten: Envoy does not go back, and neither do we, because a
 * configuration that relies on one behaviour breaks in silence under the other. */
#include "base/arena.h"
#include "base/mem.h"
#include "proxy/ext.h"
#include "proxy/listener.h"

#include "envoy/core.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "google/wrappers.pb-c.h"

#include <stdlib.h>

enum level { BY_PORT, BY_ADDRESS, BY_NAME, BY_TRANSPORT, BY_PROTOCOL, BY_DIRECT, BY_TYPE, BY_SOURCE, BY_SOURCE_PORT, LEVELS };

enum { CROSS_MAX = 200000 }; /* combinations of one chain's criteria */

struct node;

struct prefix {
        struct cidr cidr;
        struct node *to;
};

struct node {
        struct node *any;
        struct strmap *exact;    /* key -> node */
        struct prefix *prefixes; /* longest first */
        size_t nprefixes, cap;
        struct node **types;              /* [3], by ConnectionSourceType */
        const struct filter_chain *chain; /* at the end */
};

struct chain_match {
        struct arena arena;
        struct node root;
        struct node **cleanup; /* nodes that own memory outside of the arena */
        size_t n, cap;
};

struct chain_match *chain_match_new(void)
{
        struct chain_match *m = MEM_NEW(struct chain_match);

        arena_init(&m->arena, 2048);
        return m;
}

void chain_match_free(struct chain_match *m)
{
        if (!m)
                return;
        for (size_t i = 0; i < m->n; i++) {
                struct node *n = m->cleanup[i];

                if (n->exact)
                        strmap_fini(n->exact);
                free(n->prefixes);
        }
        free(m->cleanup);
        arena_fini(&m->arena);
        free(m);
}

static void remember(struct chain_match *m, struct node *n)
{
        if (!n->exact && !n->prefixes)
                VEC_PUSH(m->cleanup, m->n, m->cap) = n;
}

static struct node *child_any(struct chain_match *m, struct node *n)
{
        if (!n->any)
                n->any = arena_zalloc(&m->arena, sizeof(*n));
        return n->any;
}

static struct node *child_exact(struct chain_match *m, struct node *n, struct str key)
{
        struct node *to;

        if (!n->exact) {
                remember(m, n);
                n->exact = arena_zalloc(&m->arena, sizeof(*n->exact));
        }
        to = strmap_get(n->exact, key);
        if (!to) {
                to = arena_zalloc(&m->arena, sizeof(*to));
                strmap_set(n->exact, key, to);
        }
        return to;
}

static struct node *child_prefix(struct chain_match *m, struct node *n, const struct cidr *c)
{
        size_t at = 0;

        for (size_t i = 0; i < n->nprefixes; i++)
                if (n->prefixes[i].cidr.bits == c->bits && addr_ip_eq(&n->prefixes[i].cidr.base, &c->base))
                        return n->prefixes[i].to;
        remember(m, n);
        mem_grow((void **)&n->prefixes, &n->cap, n->nprefixes + 1, sizeof(*n->prefixes));
        while (at < n->nprefixes && n->prefixes[at].cidr.bits >= c->bits)
                at++;
        memmove(&n->prefixes[at + 1], &n->prefixes[at], (n->nprefixes - at) * sizeof(*n->prefixes));
        n->prefixes[at] = (struct prefix){ *c, arena_zalloc(&m->arena, sizeof(struct node)) };
        n->nprefixes++;
        return n->prefixes[at].to;
}

static struct node *child_type(struct chain_match *m, struct node *n, unsigned type)
{
        if (!n->types)
                n->types = arena_zalloc(&m->arena, 3 * sizeof(*n->types));
        if (!n->types[type])
                n->types[type] = arena_zalloc(&m->arena, sizeof(*n));
        return n->types[type];
}

/* One chain's criteria, checked and in the form of the tree's keys. */
struct criteria {
        struct cidr *cidr[LEVELS];
        struct str *key[LEVELS];
        size_t n[LEVELS];
        unsigned type;
};

static bool read_prefixes(struct criteria *c, enum level lv, Xds__CidrRange *const *v, size_t n, const char *field, struct arena *a,
                          const struct diag_at *at, struct diags *d)
{
        c->cidr[lv] = arena_zalloc(a, n * sizeof(struct cidr));
        c->n[lv] = n;
        for (size_t i = 0; i < n; i++) {
                unsigned bits = v[i]->prefix_len ? v[i]->prefix_len->value : 0;

                if (!v[i]->address_prefix || !cidr_make(&c->cidr[lv][i], str_of(v[i]->address_prefix), bits)) {
                        struct diag_at sub = at_path(a, at, ".filter_chain_match.%s[%zu]", field, i);

                        diag_add(d, DIAG_ERROR, NULL, &sub, "invalid ip/mask combo '%s/%u' (format is <ip>/<# mask bits>)",
                                 v[i]->address_prefix ? v[i]->address_prefix : "", bits);
                        return false;
                }
        }
        return true;
}

static struct str lower(struct arena *a, const char *s)
{
        struct str l = arena_str(a, str_of(s));

        for (size_t i = 0; i < l.n; i++)
                ((char *)l.p)[i] = ascii_lower(l.p[i]);
        return l;
}

/* "*.example.com" is kept as ".example.com", which no exact name can be. */
static bool read_names(struct criteria *c, const Xds__FilterChainMatch *p, struct arena *a, const struct diag_at *at, struct diags *d)
{
        c->key[BY_NAME] = arena_zalloc(a, p->n_server_names * sizeof(struct str));
        c->n[BY_NAME] = p->n_server_names;
        for (size_t i = 0; i < p->n_server_names; i++) {
                struct str name = lower(a, p->server_names[i]);

                if (str_starts(name, STR("*.")) && name.n > 2)
                        name = str_sub(name, 1, name.n);
                if (!name.n || str_chr(name, '*') >= 0) {
                        struct diag_at sub = at_path(a, at, ".filter_chain_match.server_names[%zu]", i);

                        diag_add(d, DIAG_ERROR, NULL, &sub, "\"%s\": partial wildcards are not supported in server_names",
                                 p->server_names[i]);
                        return false;
                }
                c->key[BY_NAME][i] = name;
        }
        return true;
}

static struct str port_key(struct arena *a, uint32_t port)
{
        uint16_t v = (uint16_t)port;

        return str_make(arena_dup(a, &v, sizeof(v)), sizeof(v));
}

static bool read_criteria(struct criteria *c, const Xds__FilterChainMatch *p, struct arena *a, const struct diag_at *at, struct diags *d)
{
        if (p->destination_port) {
                if (p->destination_port->value < 1 || p->destination_port->value > 65535) {
                        struct diag_at sub = at_path(a, at, ".filter_chain_match.destination_port");

                        diag_add(d, DIAG_ERROR, NULL, &sub, "%u is not a port (1 to 65535)", p->destination_port->value);
                        return false;
                }
                c->key[BY_PORT] = arena_zalloc(a, sizeof(struct str));
                c->key[BY_PORT][0] = port_key(a, p->destination_port->value);
                c->n[BY_PORT] = 1;
        }
        if (p->transport_protocol && p->transport_protocol[0]) {
                c->key[BY_TRANSPORT] = arena_zalloc(a, sizeof(struct str));
                c->key[BY_TRANSPORT][0] = str_of(p->transport_protocol);
                c->n[BY_TRANSPORT] = 1;
        }
        c->key[BY_PROTOCOL] = arena_zalloc(a, p->n_application_protocols * sizeof(struct str));
        c->n[BY_PROTOCOL] = p->n_application_protocols;
        for (size_t i = 0; i < p->n_application_protocols; i++)
                c->key[BY_PROTOCOL][i] = str_of(p->application_protocols[i]);
        c->key[BY_SOURCE_PORT] = arena_zalloc(a, p->n_source_ports * sizeof(struct str));
        c->n[BY_SOURCE_PORT] = p->n_source_ports;
        for (size_t i = 0; i < p->n_source_ports; i++) {
                if (p->source_ports[i] < 1 || p->source_ports[i] > 65535) {
                        struct diag_at sub = at_path(a, at, ".filter_chain_match.source_ports[%zu]", i);

                        diag_add(d, DIAG_ERROR, NULL, &sub, "%u is not a port (1 to 65535)", p->source_ports[i]);
                        return false;
                }
                c->key[BY_SOURCE_PORT][i] = port_key(a, p->source_ports[i]);
        }
        c->type = (unsigned)p->source_type < 3 ? (unsigned)p->source_type : 0;
        return read_names(c, p, a, at, d) &&
               read_prefixes(c, BY_ADDRESS, p->prefix_ranges, p->n_prefix_ranges, "prefix_ranges", a, at, d) &&
               read_prefixes(c, BY_DIRECT, p->direct_source_prefix_ranges, p->n_direct_source_prefix_ranges, "direct_source_prefix_ranges",
                             a, at, d) &&
               read_prefixes(c, BY_SOURCE, p->source_prefix_ranges, p->n_source_prefix_ranges, "source_prefix_ranges", a, at, d);
}

/* Every combination of the criteria gets its path. False: another chain ends there already. */
static bool insert(struct chain_match *m, struct node *n, unsigned level, const struct criteria *c, const struct filter_chain *chain)
{
        bool ok = true;

        if (level == LEVELS) {
                if (n->chain)
                        return false;
                n->chain = chain;
                return true;
        }
        if (level == BY_TYPE)
                return insert(m, child_type(m, n, c->type), level + 1, c, chain);
        if (!c->n[level])
                return insert(m, child_any(m, n), level + 1, c, chain);
        for (size_t i = 0; i < c->n[level] && ok; i++)
                ok = insert(m, c->cidr[level] ? child_prefix(m, n, &c->cidr[level][i]) : child_exact(m, n, c->key[level][i]), level + 1, c,
                            chain);
        return ok;
}

bool chain_match_add(struct chain_match *m, const struct filter_chain *chain, const struct diag_at *at, struct diags *d)
{
        static const Xds__FilterChainMatch none = XDS__FILTER_CHAIN_MATCH__INIT;
        const Xds__FilterChainMatch *p = chain->proto->filter_chain_match ? chain->proto->filter_chain_match : &none;
        struct criteria c = { 0 };
        struct arena a;
        size_t cross = 1;
        bool ok;

        arena_init(&a, 1024);
        ok = read_criteria(&c, p, &a, at, d);
        for (unsigned i = 0; ok && i < LEVELS; i++) {
                cross *= c.n[i] ? c.n[i] : 1;
                if (cross > CROSS_MAX) {
                        struct diag_at sub = at_path(&a, at, ".filter_chain_match");

                        diag_add(d, DIAG_ERROR, NULL, &sub, "makes more than %d combinations; divide it into several chains", CROSS_MAX);
                        ok = false;
                }
        }
        if (ok && !insert(m, &m->root, 0, &c, chain)) {
                struct diag_at sub = at_path(&a, at, ".filter_chain_match");

                diag_add(d, DIAG_ERROR, NULL, &sub,
                         "filter chain '" STR_FMT "' has the same matching rules defined as another filter chain", STR_ARG(chain->name));
                ok = false;
        }
        arena_fini(&a);
        return ok;
}

/* Lookup. */

static const struct node *by_key(const struct node *n, struct str key)
{
        const struct node *to = n->exact && key.n ? strmap_get(n->exact, key) : NULL;

        return to ? to : n->any;
}

static const struct node *by_prefix(const struct node *n, const struct addr *a)
{
        for (size_t i = 0; a && i < n->nprefixes; i++)
                if (cidr_has(&n->prefixes[i].cidr, a))
                        return n->prefixes[i].to;
        return n->any;
}

static const struct node *by_name(const struct node *n, struct str sni)
{
        const struct node *to = NULL;

        if (!n->exact || !sni.n)
                return n->any;
        if (sni.p[0] != '.')
                to = strmap_get(n->exact, sni);
        for (size_t i = 1; !to && i + 1 < sni.n; i++)
                if (sni.p[i] == '.')
                        to = strmap_get(n->exact, str_sub(sni, i, sni.n));
        return to ? to : n->any;
}

static const struct node *by_protocol(const struct node *n, const struct chain_lookup *q)
{
        for (unsigned i = 0; n->exact && i < q->nalpn; i++) {
                const struct node *to = strmap_get(n->exact, q->alpn[i]);

                if (to)
                        return to;
        }
        return n->any;
}

/* Envoy's idea of a loopback address here: 127.0.0.1 and ::1 themselves, not the rest of 127.0.0.0/8. */
static bool is_the_loopback(const struct addr *a)
{
        if (a->sa.sa_family == AF_INET)
                return a->v4.sin_addr.s_addr == htonl(INADDR_LOOPBACK);
        return a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

static const struct node *by_type(const struct node *n, const struct chain_lookup *q)
{
        bool local = q->remote && (is_the_loopback(q->remote) || (q->local && addr_ip_eq(q->remote, q->local)));

        if (!n->types)
                return NULL;
        if (n->types[local ? XDS__FILTER_CHAIN_MATCH__CONNECTION_SOURCE_TYPE__SAME_IP_OR_LOOPBACK
                           : XDS__FILTER_CHAIN_MATCH__CONNECTION_SOURCE_TYPE__EXTERNAL])
                return n->types[local ? XDS__FILTER_CHAIN_MATCH__CONNECTION_SOURCE_TYPE__SAME_IP_OR_LOOPBACK
                                      : XDS__FILTER_CHAIN_MATCH__CONNECTION_SOURCE_TYPE__EXTERNAL];
        return n->types[XDS__FILTER_CHAIN_MATCH__CONNECTION_SOURCE_TYPE__ANY];
}

static const struct node *by_port(const struct node *n, const struct addr *a)
{
        uint16_t port = a ? addr_port(a) : 0;

        return by_key(n, port ? str_make((const char *)&port, sizeof(port)) : (struct str){ 0 });
}

const struct filter_chain *chain_match_find(const struct chain_match *m, const struct chain_lookup *q)
{
        const struct node *n = &m->root;

        for (unsigned level = 0; n && level < LEVELS; level++)
                switch ((enum level)level) {
                case BY_PORT:
                        n = by_port(n, q->local);
                        break;
                case BY_ADDRESS:
                        n = by_prefix(n, q->local);
                        break;
                case BY_NAME:
                        n = by_name(n, q->sni);
                        break;
                case BY_TRANSPORT:
                        n = by_key(n, q->transport.n ? q->transport : STR("raw_buffer"));
                        break;
                case BY_PROTOCOL:
                        n = by_protocol(n, q);
                        break;
                case BY_DIRECT:
                        n = by_prefix(n, q->direct_remote);
                        break;
                case BY_TYPE:
                        n = by_type(n, q);
                        break;
                case BY_SOURCE:
                        n = by_prefix(n, q->remote);
                        break;
                default:
                        n = by_port(n, q->remote);
                }
        return n ? n->chain : NULL;
}
