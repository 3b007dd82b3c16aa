/* What a context is made of, for tls.c and tls_session.c. Not for others. */
#ifndef NET_TLS_CTX_H
#define NET_TLS_CTX_H

#include "net/tls.h"

#include <openssl/ssl.h>

struct tls_ctx {
        _Atomic unsigned refs;
        SSL_CTX *ssl;
        bool server, verifies;
        unsigned char *alpn; /* in wire form: length, name, ... */
        unsigned alpn_bytes;
        char *verify_host; /* NULL: not checked */
};

/* In tls_session.c: the callback that SSL_CTX_set_verify() takes; it notes why a certificate was refused. */
int tls_session_on_verify(int ok, X509_STORE_CTX *store);

/* Names in wire form; NULL when one is empty or longer than 255 bytes, or all are longer than 65535. */
unsigned char *tls_alpn_wire(const struct str *names, unsigned n, unsigned *bytes);

/* The topmost reason in OpenSSL's error queue of this thread, which it empties. Static storage, never NULL. */
const char *tls_reason(void);

#endif
