/* Addresses. An IPv4 address and its IPv6-mapped form (RFC 4291 §2.5.5.2) are the same address here: dual-stack sockets hand out the one,
 * people write the other. */
#include "net/addr.h"

#include "base/hash.h"

#include <arpa/inet.h>
#include <stdio.h>

bool addr_parse_ip(struct addr *a, struct str ip, uint16_t port)
{
        char z[INET6_ADDRSTRLEN + 1];
        struct addr r;

        memset(&r, 0, sizeof(r));
        if (ip.n >= 2 && ip.p[0] == '[' && ip.p[ip.n - 1] == ']') {
                ip = str_sub(ip, 1, ip.n - 2);
                if (str_chr(ip, ':') < 0)
                        return false;
        }
        if (ip.n == 0 || ip.n >= sizeof(z) || memchr(ip.p, '\0', ip.n))
                return false;
        memcpy(z, ip.p, ip.n);
        z[ip.n] = '\0';
        if (inet_pton(AF_INET, z, &r.v4.sin_addr) == 1) {
                r.v4.sin_family = AF_INET;
                r.v4.sin_port = htons(port);
                r.len = sizeof(r.v4);
        } else if (inet_pton(AF_INET6, z, &r.v6.sin6_addr) == 1) {
                r.v6.sin6_family = AF_INET6;
                r.v6.sin6_port = htons(port);
                r.len = sizeof(r.v6);
        } else {
                return false;
        }
        *a = r;
        return true;
}

bool addr_unix(struct addr *a, struct str path)
{
        struct addr r;
        bool abstract = path.n && path.p[0] == '@';

        if (path.n == 0 || (abstract && path.n == 1) || memchr(path.p, '\0', path.n) || path.n >= sizeof(r.un.sun_path))
                return false;
        memset(&r, 0, sizeof(r));
        r.un.sun_family = AF_UNIX;
        memcpy(r.un.sun_path, path.p, path.n);
        r.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n);
        if (abstract)
                r.un.sun_path[0] = '\0';
        else
                r.len++;
        *a = r;
        return true;
}

bool addr_parse(struct addr *a, struct str text)
{
        uint64_t port;

        if (str_starts(text, STR("unix:")))
                return addr_unix(a, str_sub(text, 5, text.n));
        if (text.n && (text.p[0] == '/' || text.p[0] == '@'))
                return addr_unix(a, text);
        ptrdiff_t colon = str_rchr(text, ':');
        if (colon <= 0)
                return false;
        struct str ip = str_sub(text, 0, (size_t)colon);
        if (!str_u64(str_sub(text, (size_t)colon + 1, text.n), &port) || port > 65535)
                return false;
        if (ip.p[0] != '[' && str_chr(ip, ':') >= 0) /* "::1:80" could mean two things */
                return false;
        return addr_parse_ip(a, ip, (uint16_t)port);
}

uint16_t addr_port(const struct addr *a)
{
        if (a->len && a->sa.sa_family == AF_INET)
                return ntohs(a->v4.sin_port);
        if (a->len && a->sa.sa_family == AF_INET6)
                return ntohs(a->v6.sin6_port);
        return 0;
}

void addr_set_port(struct addr *a, uint16_t port)
{
        if (a->len && a->sa.sa_family == AF_INET)
                a->v4.sin_port = htons(port);
        else if (a->len && a->sa.sa_family == AF_INET6)
                a->v6.sin6_port = htons(port);
}

static size_t unix_text(const struct addr *a, char *out)
{
        size_t n = a->len > offsetof(struct sockaddr_un, sun_path) ? a->len - offsetof(struct sockaddr_un, sun_path) : 0;

        if (n > sizeof(a->un.sun_path))
                n = sizeof(a->un.sun_path);
        if (n == 0) {
                strcpy(out, "-");
                return 1;
        }
        if (a->un.sun_path[0] != '\0')
                n = strnlen(a->un.sun_path, n);
        memcpy(out, a->un.sun_path, n);
        if (out[0] == '\0')
                out[0] = '@';
        out[n] = '\0';
        return n;
}

static char *put_decimal(char *p, unsigned v)
{
        char t[10];
        unsigned n = 0;

        do
                t[n++] = (char)('0' + v % 10);
        while (v /= 10);
        while (n)
                *p++ = t[--n];
        return p;
}

/* Every access log line has several of these; inet_ntop() goes by way of printf. */
static size_t v4_text(const uint8_t ip[4], char *out)
{
        char *p = out;

        for (unsigned i = 0; i < 4; i++) {
                if (i)
                        *p++ = '.';
                p = put_decimal(p, ip[i]);
        }
        *p = '\0';
        return (size_t)(p - out);
}

size_t addr_ip_text(const struct addr *a, char out[ADDR_TEXT_MAX])
{
        if (a->len && a->sa.sa_family == AF_INET) {
                return v4_text((const uint8_t *)&a->v4.sin_addr, out);
        } else if (a->len && a->sa.sa_family == AF_INET6) {
                if (IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr))
                        return v4_text(a->v6.sin6_addr.s6_addr + 12, out);
                inet_ntop(AF_INET6, &a->v6.sin6_addr, out, ADDR_TEXT_MAX);
        } else if (a->len && a->sa.sa_family == AF_UNIX) {
                return unix_text(a, out);
        } else {
                strcpy(out, "-");
        }
        return strlen(out);
}

size_t addr_text(const struct addr *a, char out[ADDR_TEXT_MAX])
{
        size_t n;

        if (!a->len || (a->sa.sa_family != AF_INET && a->sa.sa_family != AF_INET6))
                return addr_ip_text(a, out);
        bool brackets = a->sa.sa_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr);
        if (brackets) {
                out[0] = '[';
                inet_ntop(AF_INET6, &a->v6.sin6_addr, out + 1, ADDR_TEXT_MAX - 1);
                n = strlen(out);
                out[n++] = ']';
        } else {
                n = addr_ip_text(a, out);
        }
        out[n++] = ':';
        char *end = put_decimal(out + n, addr_port(a));

        *end = '\0';
        return (size_t)(end - out);
}

/* The 16 bytes of the IPv6 form; false: not an IP address. */
static bool ip_bytes(const struct addr *a, uint8_t out[16])
{
        if (a->len && a->sa.sa_family == AF_INET) {
                memset(out, 0, 10);
                out[10] = out[11] = 0xff;
                memcpy(out + 12, &a->v4.sin_addr, 4);
                return true;
        }
        if (a->len && a->sa.sa_family == AF_INET6) {
                memcpy(out, &a->v6.sin6_addr, 16);
                return true;
        }
        return false;
}

static bool is_v4(const uint8_t ip[16])
{
        static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

        return memcmp(ip, prefix, 12) == 0;
}

bool addr_ip_eq(const struct addr *a, const struct addr *b)
{
        uint8_t x[16], y[16];

        return ip_bytes(a, x) && ip_bytes(b, y) && memcmp(x, y, 16) == 0;
}

bool addr_eq(const struct addr *a, const struct addr *b)
{
        if (!a->len || !b->len)
                return a->len == b->len;
        if (a->sa.sa_family == AF_UNIX || b->sa.sa_family == AF_UNIX)
                return a->len == b->len && memcmp(&a->sa, &b->sa, a->len) == 0;
        return addr_port(a) == addr_port(b) && addr_ip_eq(a, b);
}

bool addr_is_loopback(const struct addr *a)
{
        uint8_t ip[16];

        if (a->len && a->sa.sa_family == AF_UNIX)
                return true;
        return ip_bytes(a, ip) && (is_v4(ip) ? ip[12] == 127 : IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)(const void *)ip));
}

bool addr_is_any(const struct addr *a)
{
        static const uint8_t zero[16];
        uint8_t ip[16];

        return ip_bytes(a, ip) && (is_v4(ip) ? memcmp(ip + 12, zero, 4) == 0 : memcmp(ip, zero, 16) == 0);
}

bool addr_is_private(const struct addr *a)
{
        uint8_t ip[16];

        if (addr_is_loopback(a))
                return true;
        if (!ip_bytes(a, ip))
                return false;
        if (!is_v4(ip))
                return (ip[0] & 0xfe) == 0xfc;
        return ip[12] == 10 || (ip[12] == 172 && (ip[13] & 0xf0) == 16) || (ip[12] == 192 && ip[13] == 168);
}

uint64_t addr_hash(const struct addr *a)
{
        uint8_t key[18];

        if (!ip_bytes(a, key))
                return hash_bytes(&a->sa, a->len, hash_secret());
        uint16_t port = addr_port(a);
        memcpy(key + 16, &port, 2);
        return hash_bytes(key, sizeof(key), hash_secret());
}

/* ---- prefixes ---- */

static uint8_t *host_bytes(struct addr *a, unsigned *bits)
{
        if (a->sa.sa_family == AF_INET) {
                *bits = 32;
                return (uint8_t *)&a->v4.sin_addr;
        }
        *bits = 128;
        return (uint8_t *)&a->v6.sin6_addr;
}

bool cidr_make(struct cidr *c, struct str ip, unsigned bits)
{
        struct cidr r = { .bits = bits };
        unsigned max;

        if (!addr_parse_ip(&r.base, ip, 0))
                return false;
        uint8_t *b = host_bytes(&r.base, &max);
        if (bits > max)
                return false;
        for (unsigned i = 0; i < max / 8; i++) {
                unsigned keep = bits > i * 8 ? bits - i * 8 : 0;

                if (keep < 8)
                        b[i] &= (uint8_t)(0xff00 >> keep);
        }
        *c = r;
        return true;
}

bool cidr_parse(struct cidr *c, struct str text)
{
        ptrdiff_t slash = str_chr(text, '/');
        uint64_t bits;
        struct addr a;

        if (slash >= 0) {
                struct str n = str_sub(text, (size_t)slash + 1, text.n);

                return n.n <= 3 && str_u64(n, &bits) && bits <= 128 && cidr_make(c, str_sub(text, 0, (size_t)slash), (unsigned)bits);
        }
        return addr_parse_ip(&a, text, 0) && cidr_make(c, text, a.sa.sa_family == AF_INET ? 32 : 128);
}

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
        if (memcmp(a, b, bits / 8) != 0)
                return false;
        return bits % 8 == 0 || ((a[bits / 8] ^ b[bits / 8]) & (0xff00 >> (bits % 8)) & 0xff) == 0;
}

/* As bits of the 16-byte form. An IPv6 prefix shorter than 96 that happens to cover the mapped range does not mean IPv4: ::/0 is not
 * 0.0.0.0/0. */
static bool cidr_bytes(const struct cidr *c, uint8_t out[16], unsigned *bits)
{
        *bits = c->bits + (c->base.len && c->base.sa.sa_family == AF_INET ? 96 : 0);
        return ip_bytes(&c->base, out);
}

bool cidr_has(const struct cidr *c, const struct addr *a)
{
        uint8_t x[16], y[16];
        unsigned bits;

        if (!cidr_bytes(c, x, &bits) || !ip_bytes(a, y) || (is_v4(x) && bits >= 96) != is_v4(y))
                return false;
        return same_bits(x, y, bits);
}

bool cidr_overlaps(const struct cidr *a, const struct cidr *b)
{
        uint8_t x[16], y[16];
        unsigned xb, yb;

        if (!cidr_bytes(a, x, &xb) || !cidr_bytes(b, y, &yb) || (is_v4(x) && xb >= 96) != (is_v4(y) && yb >= 96))
                return false;
        return same_bits(x, y, xb < yb ? xb : yb);
}
