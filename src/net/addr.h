/* Socket addresses and prefixes: IPv4, IPv6, Unix. Values; no ownership. */
#ifndef NET_ADDR_H
#define NET_ADDR_H

#include "base/str.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

struct addr {
        union {
                struct sockaddr sa;
                struct sockaddr_in v4;
                struct sockaddr_in6 v6;
                struct sockaddr_un un;
        };
        socklen_t len; /* 0: none */
};

enum { ADDR_TEXT_MAX = 128 };

bool addr_parse_ip(struct addr *a, struct str ip, uint16_t port); /* "10.0.0.1", "::1", "[::1]" */
bool addr_parse(struct addr *a, struct str text);                 /* "10.0.0.1:80", "[::1]:80", "unix:/path", "/path" */
bool addr_unix(struct addr *a, struct str path);                  /* '@' first: abstract */
uint16_t addr_port(const struct addr *a);
void addr_set_port(struct addr *a, uint16_t port);
size_t addr_text(const struct addr *a, char out[ADDR_TEXT_MAX]);    /* "10.0.0.1:80", "[::1]:80", path; "-" when none */
size_t addr_ip_text(const struct addr *a, char out[ADDR_TEXT_MAX]); /* without the port and brackets */
bool addr_eq(const struct addr *a, const struct addr *b);           /* port too; ::ffff:1.2.3.4 equals 1.2.3.4 */
bool addr_ip_eq(const struct addr *a, const struct addr *b);
bool addr_is_loopback(const struct addr *a);
bool addr_is_any(const struct addr *a);
bool addr_is_private(const struct addr *a); /* RFC 1918, RFC 4193, loopback: what Envoy calls internal */
uint64_t addr_hash(const struct addr *a);

struct cidr {
        struct addr base; /* host bits zero */
        unsigned bits;
};

bool cidr_parse(struct cidr *c, struct str text); /* "10.0.0.0/8", or an address alone */
bool cidr_make(struct cidr *c, struct str ip, unsigned bits);
bool cidr_has(const struct cidr *c, const struct addr *a);
bool cidr_overlaps(const struct cidr *a, const struct cidr *b);

#endif
