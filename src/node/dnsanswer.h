/* One DNS query to one answer: a pure function over a zone of callbacks, so that the parser can be fuzzed without a cluster. ldns reads and
 * writes the wire format. */
#ifndef NODE_DNSANSWER_H
#define NODE_DNSANSWER_H

#include "base/buf.h"
#include "net/addr.h"

enum { DNS_QUERY_MAX = 4096, DNS_NAME_MAX = 255, DNS_RECORDS_MAX = 256 };

enum dns_kind { DNS_A, DNS_AAAA, DNS_SRV, DNS_CNAME, DNS_PTR };

struct dns_record {
        enum dns_kind kind;
        struct addr ip;              /* A, AAAA */
        uint16_t port;               /* SRV */
        char name[DNS_NAME_MAX + 1]; /* SRV: target; CNAME, PTR */
};

struct dns_found {
        bool exists; /* false: NXDOMAIN */
        uint32_t ttl_s;
        struct dns_record *v;
        size_t n, cap;
};

void dns_found_add(struct dns_found *f, enum dns_kind kind, const struct addr *ip, struct str name, uint16_t port);

enum dns_lookup { DNS_OURS /* `found` is the answer */, DNS_ELSEWHERE /* somebody else knows: forward */, DNS_REFUSED };

struct dns_zone {
        void *arg;
        /* `name`: lower case, without the last dot. All records of the name that bear on `kind` (CNAME always does). */
        enum dns_lookup (*lookup)(void *arg, struct str name, enum dns_kind kind, struct dns_found *found);
        const char *soa; /* the zone that denials are signed with: "cluster.local" */
};

enum dns_verdict { DNS_DROP /* not a query: say nothing */, DNS_ANSWER /* `out` */, DNS_FORWARD };

/* Over UDP a long answer is cut (TC). Appends to `out`. */
enum dns_verdict dns_answer(const void *query, size_t n, const struct dns_zone *z, bool tcp, struct buf *out);
/* A failure (SERVFAIL 2, REFUSED 5, ...) to this query, by its header alone. */
void dns_failure(const void *query, size_t n, unsigned rcode, struct buf *out);
/* Does the answer belong to the query (same question)? For answers of other servers. */
bool dns_same_question(const void *query, size_t nquery, const void *answer, size_t nanswer);

#endif
