/* A DNS client on a loop (c-ares). Results are addresses with the smallest TTL of the answer; /etc/hosts counts. */
#ifndef NET_DNS_H
#define NET_DNS_H

#include "net/addr.h"
#include "net/loop.h"

struct dns;
struct dns_query;

enum dns_family { DNS_AUTO /* IPv6, and IPv4 when it has none, as Envoy's AUTO */, DNS_V4_ONLY, DNS_V6_ONLY, DNS_V4_PREFERRED, DNS_ALL };

struct dns_result {
        bool ok;              /* false: `error` says why */
        const char *error;    /* "no such host", "timed out", ... */
        bool not_found;       /* NXDOMAIN or no address, as opposed to a failure to ask */
        const struct addr *v; /* port 0 */
        unsigned n;
        unsigned ttl_s;
};

/* servers: "10.0.0.1:53" texts; none: /etc/resolv.conf. NULL with errno on failure. */
struct dns *dns_new(struct loop *l, const struct str *servers, unsigned nservers, bool use_tcp, bool no_search);
void dns_free(struct dns *d); /* pending queries end without a callback */
/* fn is called once, never from inside dns_resolve(). An IP literal resolves to itself. */
struct dns_query *dns_resolve(struct dns *d, struct str name, enum dns_family f, void (*fn)(void *arg, const struct dns_result *r),
                              void *arg);
void dns_cancel(struct dns_query *q); /* no callback afterwards */

#endif
