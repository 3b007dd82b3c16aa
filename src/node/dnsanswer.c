/* What is refused before anybody looks a name up: answers sent to us (no loops), more or fewer than one question, classes other than IN,
 * opcodes other than QUERY. Types that we hold nothing of get "no data", zone transfers "refused". */
#include "node/dnsanswer.h"
#include "base/mem.h"

#include <ldns/ldns.h>
#include <stdio.h>
#include <stdlib.h>

enum { DNS_UDP_PLAIN = 512, DNS_UDP_OFFERED = 1232, DNS_UDP_MAX = 4096, DNS_NEGATIVE_TTL_S = 5 };

void dns_found_add(struct dns_found *f, enum dns_kind kind, const struct addr *ip, struct str name, uint16_t port)
{
        if (f->n >= DNS_RECORDS_MAX || name.n > DNS_NAME_MAX)
                return;
        struct dns_record *r = &VEC_PUSH(f->v, f->n, f->cap);
        *r = (struct dns_record){ .kind = kind, .port = port };
        if (ip)
                r->ip = *ip;
        memcpy(r->name, name.p ? name.p : "", name.n);
}

void dns_failure(const void *query, size_t n, unsigned rcode, struct buf *out)
{
        unsigned char h[12] = { 0 };

        if (n < 12)
                return;
        memcpy(h, query, 2);
        h[2] = (unsigned char)(0x80 | (((const unsigned char *)query)[2] & 0x79)); /* QR, opcode, RD */
        h[3] = (unsigned char)(0x80 | rcode);                                      /* RA */
        buf_append(out, h, sizeof(h));
}

bool dns_same_question(const void *query, size_t nquery, const void *answer, size_t nanswer)
{
        ldns_pkt *q = NULL, *a = NULL;
        bool same = false;

        if (ldns_wire2pkt(&q, query, nquery) == LDNS_STATUS_OK && ldns_wire2pkt(&a, answer, nanswer) == LDNS_STATUS_OK && ldns_pkt_qr(a) &&
            ldns_pkt_qdcount(q) == 1 && ldns_pkt_qdcount(a) == 1)
                same = ldns_rr_compare(ldns_rr_list_rr(ldns_pkt_question(q), 0), ldns_rr_list_rr(ldns_pkt_question(a), 0)) == 0;
        ldns_pkt_free(q);
        ldns_pkt_free(a);
        return same;
}

/* "name.example" from ldns' owner, lower case; false: longer than a name may be, or with bytes that no name of ours has. */
static bool plain_name(const ldns_rdf *owner, char out[DNS_NAME_MAX + 1])
{
        const uint8_t *p = ldns_rdf_data(owner);
        size_t n = ldns_rdf_size(owner), at = 0, k = 0;

        while (at < n && p[at]) {
                size_t label = p[at++];
                if (label > 63 || at + label > n || k + label + 1 > DNS_NAME_MAX)
                        return false;
                if (k)
                        out[k++] = '.';
                for (size_t i = 0; i < label; i++) {
                        char c = ascii_lower((char)p[at++]);
                        if (c <= ' ' || c == '.' || c == 127)
                                return false;
                        out[k++] = c;
                }
        }
        out[k] = 0;
        return true;
}

static ldns_rdf *name_rdf(const char *name)
{
        ldns_rdf *rdf = NULL;
        char dotted[DNS_NAME_MAX + 2];

        snprintf(dotted, sizeof(dotted), "%s.", name);
        return ldns_str2rdf_dname(&rdf, dotted) == LDNS_STATUS_OK ? rdf : NULL;
}

static ldns_rr *record_rr(const struct dns_record *r, const ldns_rdf *owner, uint32_t ttl)
{
        static const ldns_rr_type types[] = { LDNS_RR_TYPE_A, LDNS_RR_TYPE_AAAA, LDNS_RR_TYPE_SRV, LDNS_RR_TYPE_CNAME, LDNS_RR_TYPE_PTR };
        ldns_rr *rr = ldns_rr_new();
        ldns_rdf *data = NULL;

        ldns_rr_set_owner(rr, ldns_rdf_clone(owner));
        ldns_rr_set_type(rr, types[r->kind]);
        ldns_rr_set_class(rr, LDNS_RR_CLASS_IN);
        ldns_rr_set_ttl(rr, ttl);
        if (r->kind == DNS_A) {
                data = ldns_rdf_new_frm_data(LDNS_RDF_TYPE_A, 4, &r->ip.v4.sin_addr);
        } else if (r->kind == DNS_AAAA) {
                data = ldns_rdf_new_frm_data(LDNS_RDF_TYPE_AAAA, 16, &r->ip.v6.sin6_addr);
        } else {
                if (r->kind == DNS_SRV) {
                        ldns_rr_push_rdf(rr, ldns_native2rdf_int16(LDNS_RDF_TYPE_INT16, 0));
                        ldns_rr_push_rdf(rr, ldns_native2rdf_int16(LDNS_RDF_TYPE_INT16, 100));
                        ldns_rr_push_rdf(rr, ldns_native2rdf_int16(LDNS_RDF_TYPE_INT16, r->port));
                }
                data = name_rdf(r->name);
        }
        if (!data) {
                ldns_rr_free(rr);
                return NULL;
        }
        ldns_rr_push_rdf(rr, data);
        return rr;
}

static void push_soa(ldns_pkt *answer, const char *zone)
{
        struct buf text = BUF_INIT;
        ldns_rr *rr = NULL;

        buf_printf(&text, "%s. %d IN SOA ns.dns.%s. hostmaster.%s. 1 7200 1800 86400 %d", zone, DNS_NEGATIVE_TTL_S, zone, zone,
                   DNS_NEGATIVE_TTL_S);
        if (ldns_rr_new_frm_str(&rr, buf_z(&text), 0, NULL, NULL) == LDNS_STATUS_OK)
                ldns_pkt_push_rr(answer, LDNS_SECTION_AUTHORITY, rr);
        buf_fini(&text);
}

static ldns_pkt *answer_begin(const ldns_pkt *query, const ldns_rr *question, bool authoritative)
{
        ldns_pkt *a = ldns_pkt_new();

        ldns_pkt_set_id(a, ldns_pkt_id(query));
        ldns_pkt_set_qr(a, true);
        ldns_pkt_set_aa(a, authoritative);
        ldns_pkt_set_rd(a, ldns_pkt_rd(query));
        ldns_pkt_set_ra(a, true);
        ldns_pkt_push_rr(a, LDNS_SECTION_QUESTION, ldns_rr_clone(question));
        if (ldns_pkt_edns(query))
                ldns_pkt_set_edns_udp_size(a, DNS_UDP_OFFERED);
        return a;
}

static void put_wire(ldns_pkt *a, size_t max, struct buf *out)
{
        uint8_t *wire = NULL;
        size_t n = 0;

        if (ldns_pkt2wire(&wire, a, &n) != LDNS_STATUS_OK)
                return;
        if (n > max) { /* the client asks again over TCP */
                ldns_rr_list_deep_free(ldns_pkt_answer(a));
                ldns_pkt_set_answer(a, ldns_rr_list_new());
                ldns_pkt_set_ancount(a, 0);
                ldns_pkt_set_tc(a, true);
                free(wire);
                wire = NULL;
                if (ldns_pkt2wire(&wire, a, &n) != LDNS_STATUS_OK)
                        return;
        }
        buf_append(out, wire, n);
        free(wire);
}

static bool kind_of(ldns_rr_type type, enum dns_kind *kind)
{
        static const struct {
                ldns_rr_type type;
                enum dns_kind kind;
        } known[] = { { LDNS_RR_TYPE_A, DNS_A },
                      { LDNS_RR_TYPE_AAAA, DNS_AAAA },
                      { LDNS_RR_TYPE_SRV, DNS_SRV },
                      { LDNS_RR_TYPE_CNAME, DNS_CNAME },
                      { LDNS_RR_TYPE_PTR, DNS_PTR } };

        for (size_t i = 0; i < ARRAY_LEN(known); i++)
                if (known[i].type == type) {
                        *kind = known[i].kind;
                        return true;
                }
        return false;
}

static void fill(ldns_pkt *a, const ldns_rr *question, const struct dns_found *f, bool known, enum dns_kind kind, const char *soa)
{
        size_t put = 0;

        for (size_t i = 0; i < f->n; i++) {
                if (!known || (f->v[i].kind != kind && f->v[i].kind != DNS_CNAME))
                        continue;
                ldns_rr *rr = record_rr(&f->v[i], ldns_rr_owner(question), f->ttl_s);
                if (rr && ldns_pkt_push_rr(a, LDNS_SECTION_ANSWER, rr))
                        put++;
        }
        if (!f->exists)
                ldns_pkt_set_rcode(a, LDNS_RCODE_NXDOMAIN);
        if (!put)
                push_soa(a, soa);
}

static enum dns_verdict answer_question(const ldns_pkt *query, const ldns_rr *question, const struct dns_zone *z, size_t max,
                                        struct buf *out)
{
        ldns_rr_type type = ldns_rr_get_type(question);
        struct dns_found found = { 0 };
        char name[DNS_NAME_MAX + 1];
        enum dns_kind kind = DNS_A;
        bool known = kind_of(type, &kind);
        enum dns_lookup where = DNS_REFUSED;

        if (ldns_rr_get_class(question) == LDNS_RR_CLASS_IN && type != LDNS_RR_TYPE_AXFR && type != LDNS_RR_TYPE_IXFR &&
            type != LDNS_RR_TYPE_ANY && plain_name(ldns_rr_owner(question), name))
                where = z->lookup(z->arg, str_of(name), kind, &found);
        if (where == DNS_ELSEWHERE) {
                free(found.v);
                return DNS_FORWARD;
        }
        ldns_pkt *a = answer_begin(query, question, where == DNS_OURS);
        if (where == DNS_OURS)
                fill(a, question, &found, known, kind, z->soa);
        else
                ldns_pkt_set_rcode(a, LDNS_RCODE_REFUSED);
        put_wire(a, max, out);
        ldns_pkt_free(a);
        free(found.v);
        return out->n ? DNS_ANSWER : DNS_DROP;
}

enum dns_verdict dns_answer(const void *bytes, size_t n, const struct dns_zone *z, bool tcp, struct buf *out)
{
        ldns_pkt *query = NULL;
        size_t max = DNS_UDP_PLAIN;
        enum dns_verdict v;

        if (n < 12 || n > DNS_QUERY_MAX || (((const unsigned char *)bytes)[2] & 0x80))
                return DNS_DROP;
        if (ldns_wire2pkt(&query, bytes, n) != LDNS_STATUS_OK) {
                dns_failure(bytes, n, LDNS_RCODE_FORMERR, out);
                return DNS_ANSWER;
        }
        if (ldns_pkt_get_opcode(query) != LDNS_PACKET_QUERY || ldns_pkt_qdcount(query) != 1 || ldns_pkt_ancount(query) != 0) {
                dns_failure(bytes, n, ldns_pkt_get_opcode(query) == LDNS_PACKET_QUERY ? LDNS_RCODE_FORMERR : LDNS_RCODE_NOTIMPL, out);
                ldns_pkt_free(query);
                return DNS_ANSWER;
        }
        if (ldns_pkt_edns(query) && ldns_pkt_edns_udp_size(query) > max)
                max = ldns_pkt_edns_udp_size(query) < DNS_UDP_MAX ? ldns_pkt_edns_udp_size(query) : DNS_UDP_MAX;
        v = answer_question(query, ldns_rr_list_rr(ldns_pkt_question(query), 0), z, tcp ? 65535 : max, out);
        ldns_pkt_free(query);
        return v;
}
