/* Reads a ClientHello without touching it: is this TLS, which server name and which application protocols does it ask for?
 * (RFC 8446 §4.1.2, §5.1; RFC 6066 §3; RFC 7301 §3.1.) Bounded, incremental over records and reads; it owns nothing. */
#ifndef PROXY_TLS_INSPECTOR_H
#define PROXY_TLS_INSPECTOR_H

#include "base/str.h"

enum { TLS_HELLO_MAX = 65536, TLS_HELLO_ALPN_MAX = 64 };

enum tls_hello_result {
        TLS_HELLO_MORE, /* so far so good: bring more bytes */
        TLS_HELLO_OK,
        TLS_HELLO_NOT_TLS,   /* the first bytes are something else */
        TLS_HELLO_BAD,       /* begins as TLS, and breaks its rules */
        TLS_HELLO_TOO_LARGE, /* more than `max` bytes */
};

struct tls_hello {
        char sni[256]; /* lower case; sni_len 0: none */
        size_t sni_len;
        char alpn[TLS_HELLO_ALPN_MAX][256]; /* NUL-terminated; a protocol with a NUL in it is left out */
        unsigned nalpn;
};

/* `p` holds everything received so far, from the first byte. `scratch` of at least `max` bytes takes the hello when it spans records. */
enum tls_hello_result tls_hello_parse(const void *p, size_t n, size_t max, unsigned char *scratch, struct tls_hello *out);

#endif
