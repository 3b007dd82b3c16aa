/* TLS by OpenSSL: contexts (immutable once built, reference-counted, shareable between threads) and what a handshake found. */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "base/diag.h"

struct tls_ctx;

enum tls_client_auth { TLS_CLIENT_NONE, TLS_CLIENT_OPTIONAL, TLS_CLIENT_REQUIRED };

struct tls_ctx_opts {
        bool server;
        struct str cert_pem, key_pem; /* chain, and its key; empty: none */
        struct str ca_pem;            /* roots; empty: no verification unless system_roots */
        bool system_roots;
        enum tls_client_auth client_auth; /* server */
        const struct str *alpn;           /* in order of preference */
        unsigned nalpn;
        int min_version, max_version; /* 0x0303 (TLS 1.2), 0x0304; 0: OpenSSL's default, at least 1.2 */
        struct str verify_host;       /* client: DNS name or address the certificate must carry; empty: not checked */
};

/* NULL with diagnostics on unusable PEM, a key that does not match, and so on. */
struct tls_ctx *tls_ctx_new(const struct tls_ctx_opts *o, struct diags *d);
struct tls_ctx *tls_ctx_ref(struct tls_ctx *t);
void tls_ctx_unref(struct tls_ctx *t);

struct tls_info {
        struct str alpn; /* chosen, or empty */
        struct str sni;  /* server: what the client asked for */
        const char *version, *cipher;
        struct str peer_subject;  /* RFC 2253 text of the peer certificate's subject, or empty */
        struct str peer_cn;       /* first common name */
        const struct str *peer_o; /* organisations, in order (Kubernetes groups) */
        unsigned npeer_o;
        const struct str *peer_uri_san, *peer_dns_san;
        unsigned npeer_uri_san, npeer_dns_san;
        bool peer_verified;
};

/* A throw-away certificate authority, for the API server, the offline Internet and tests. PEM out, appended to the buffers. */
struct tls_cert_req {
        struct str cn;
        const struct str *o;
        unsigned no;
        const struct str *dns;
        unsigned ndns;
        const struct str *ip; /* textual addresses */
        unsigned nip;
        const struct str *uri;
        unsigned nuri;
        bool ca, client, server;
        unsigned days; /* validity from an hour ago */
};

/* Makes a P-256 key and a certificate signed by issuer (both empty: self-signed). 0, or -1 with a diagnostic. */
int tls_cert_make(const struct tls_cert_req *r, struct str issuer_cert_pem, struct str issuer_key_pem, struct buf *cert_pem,
                  struct buf *key_pem, struct diags *d);

#endif
