/* TLS contexts. Everything that can be wrong with certificates and keys is found here, when the configuration is read, not at the first
 * handshake. */
#include "net/tls.h"

#include "base/mem.h"
#include "net/addr.h"
#include "net/tls_ctx.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdlib.h>

const char *tls_reason(void)
{
        unsigned long e = ERR_peek_error();
        const char *text = e ? ERR_reason_error_string(e) : NULL;

        ERR_clear_error();
        return text ? text : "no reason given";
}

static void complain(struct diags *d, const char *what, const char *why, const char *advice)
{
        if (d)
                diag_add(d, DIAG_ERROR, "PST0201", NULL, "%s: %s; %s", what, why, advice);
        ERR_clear_error();
}

unsigned char *tls_alpn_wire(const struct str *names, unsigned n, unsigned *bytes)
{
        size_t total = 0;

        for (unsigned i = 0; i < n; i++) {
                if (names[i].n == 0 || names[i].n > 255)
                        return NULL;
                total += 1 + names[i].n;
        }
        if (total > 65535)
                return NULL;
        unsigned char *w = mem_alloc(total), *p = w;
        for (unsigned i = 0; i < n; i++) {
                *p++ = (unsigned char)names[i].n;
                memcpy(p, names[i].p, names[i].n);
                p += names[i].n;
        }
        *bytes = (unsigned)total;
        return w;
}

/* ALPN with no common name goes on without one, as Envoy does. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned inlen, void *arg)
{
        const struct tls_ctx *t = arg;

        for (unsigned i = 0; i < t->alpn_bytes; i += 1u + t->alpn[i]) {
                for (unsigned k = 0; k < inlen; k += 1u + in[k]) {
                        if (in[k] == t->alpn[i] && k + 1u + in[k] <= inlen && memcmp(in + k + 1, t->alpn + i + 1, in[k]) == 0) {
                                *out = in + k + 1;
                                *outlen = in[k];
                                return SSL_TLSEXT_ERR_OK;
                        }
                }
        }
        return SSL_TLSEXT_ERR_NOACK;
}

/* Without this, OpenSSL would ask for the passphrase on the terminal. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
        return 0;
}

static bool load_cert(SSL_CTX *ctx, struct str pem, struct diags *d)
{
        BIO *b = BIO_new_mem_buf(pem.p, (int)pem.n);
        X509 *x = PEM_read_bio_X509(b, NULL, no_passphrase, NULL);
        bool ok = x && SSL_CTX_use_certificate(ctx, x) == 1;

        X509_free(x);
        if (!ok)
                complain(d, "certificate", tls_reason(), "give a PEM text that starts with the leaf certificate");
        while (ok && (x = PEM_read_bio_X509(b, NULL, no_passphrase, NULL))) {
                if (SSL_CTX_add0_chain_cert(ctx, x) != 1) {
                        complain(d, "certificate chain", tls_reason(), "check the certificates after the first");
                        X509_free(x);
                        ok = false;
                }
        }
        if (ok && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE && ERR_peek_last_error()) {
                complain(d, "certificate chain", tls_reason(), "check the certificates after the first");
                ok = false;
        }
        ERR_clear_error();
        BIO_free(b);
        return ok;
}

static bool load_key(SSL_CTX *ctx, struct str pem, struct diags *d)
{
        BIO *b = BIO_new_mem_buf(pem.p, (int)pem.n);
        EVP_PKEY *k = PEM_read_bio_PrivateKey(b, NULL, no_passphrase, NULL);
        bool ok = false;

        BIO_free(b);
        if (!k)
                complain(d, "private key", tls_reason(), "give an unencrypted PEM key");
        else if (SSL_CTX_use_PrivateKey(ctx, k) != 1 || SSL_CTX_check_private_key(ctx) != 1)
                complain(d, "private key", tls_reason(), "give the key that the certificate was made for");
        else
                ok = true;
        EVP_PKEY_free(k);
        return ok;
}

static bool load_roots(SSL_CTX *ctx, struct str pem, bool server, struct diags *d)
{
        BIO *b = BIO_new_mem_buf(pem.p, (int)pem.n);
        X509_STORE *store = SSL_CTX_get_cert_store(ctx);
        unsigned n = 0;
        X509 *x;

        while ((x = PEM_read_bio_X509(b, NULL, no_passphrase, NULL))) {
                n += X509_STORE_add_cert(store, x) == 1;
                if (server)
                        SSL_CTX_add_client_CA(ctx, x);
                X509_free(x);
        }
        BIO_free(b);
        bool broken = ERR_peek_last_error() && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE;
        if (broken || n == 0) {
                complain(d, "root certificates", broken ? tls_reason() : "no certificate in it", "give one or more PEM certificates");
                return false;
        }
        ERR_clear_error();
        return true;
}

static bool set_verification(struct tls_ctx *t, const struct tls_ctx_opts *o, struct diags *d)
{
        int mode = SSL_VERIFY_NONE;

        if (o->ca_pem.n && !load_roots(t->ssl, o->ca_pem, o->server, d))
                return false;
        if (o->system_roots && SSL_CTX_set_default_verify_paths(t->ssl) != 1) {
                complain(d, "system roots", tls_reason(), "install the package ca-certificates");
                return false;
        }
        if (!o->server)
                t->verifies = o->ca_pem.n || o->system_roots;
        else
                t->verifies = o->client_auth != TLS_CLIENT_NONE;
        if (o->server && t->verifies && !o->ca_pem.n && !o->system_roots) {
                complain(d, "client certificates", "asked for, but there are no roots to check them with", "give root certificates");
                return false;
        }
        if (t->verifies)
                mode = SSL_VERIFY_PEER | (o->client_auth == TLS_CLIENT_REQUIRED ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
        SSL_CTX_set_verify(t->ssl, mode, tls_session_on_verify);
        if (o->verify_host.n && t->verifies) {
                X509_VERIFY_PARAM *p = SSL_CTX_get0_param(t->ssl);
                struct addr ip;

                t->verify_host = str_dup(o->verify_host);
                X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
                int ok = addr_parse_ip(&ip, o->verify_host, 0) ? X509_VERIFY_PARAM_set1_ip_asc(p, t->verify_host)
                                                               : X509_VERIFY_PARAM_set1_host(p, t->verify_host, 0);
                if (ok != 1) {
                        complain(d, "name to verify", tls_reason(), "give a host name or an address");
                        return false;
                }
        }
        return true;
}

static bool set_protocol(struct tls_ctx *t, const struct tls_ctx_opts *o, struct diags *d)
{
        static const unsigned char session_context[] = "postern";

        SSL_CTX_set_mode(t->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        /* A peer that closes without close_notify is at its end, as elsewhere; message framing finds truncation. */
        SSL_CTX_set_options(t->ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
        SSL_CTX_set_read_ahead(t->ssl, 1);
        SSL_CTX_set_session_cache_mode(t->ssl, SSL_SESS_CACHE_OFF); /* tickets carry the state */
        SSL_CTX_set_session_id_context(t->ssl, session_context, sizeof(session_context) - 1);
        if (SSL_CTX_set_min_proto_version(t->ssl, o->min_version ? o->min_version : TLS1_2_VERSION) != 1 ||
            SSL_CTX_set_max_proto_version(t->ssl, o->max_version) != 1) {
                complain(d, "TLS version", "not supported", "use TLS 1.2 or 1.3");
                return false;
        }
        if (!o->nalpn)
                return true;
        t->alpn = tls_alpn_wire(o->alpn, o->nalpn, &t->alpn_bytes);
        if (!t->alpn) {
                complain(d, "ALPN", "a protocol name is empty or too long", "use names of 1 to 255 bytes");
                return false;
        }
        if (o->server)
                SSL_CTX_set_alpn_select_cb(t->ssl, on_alpn, t);
        else
                SSL_CTX_set_alpn_protos(t->ssl, t->alpn, t->alpn_bytes);
        return true;
}

struct tls_ctx *tls_ctx_new(const struct tls_ctx_opts *o, struct diags *d)
{
        struct tls_ctx *t = MEM_NEW(struct tls_ctx);

        atomic_init(&t->refs, 1);
        t->server = o->server;
        t->ssl = SSL_CTX_new(o->server ? TLS_server_method() : TLS_client_method());
        if (!t->ssl) {
                complain(d, "TLS", tls_reason(), "check OpenSSL's configuration");
                goto fail;
        }
        if (o->server && !o->cert_pem.n) {
                complain(d, "certificate", "a server needs one", "give a certificate and its key");
                goto fail;
        }
        if (o->cert_pem.n && (!load_cert(t->ssl, o->cert_pem, d) || !load_key(t->ssl, o->key_pem, d)))
                goto fail;
        if (!set_verification(t, o, d) || !set_protocol(t, o, d))
                goto fail;
        return t;
fail:
        tls_ctx_unref(t);
        return NULL;
}

struct tls_ctx *tls_ctx_ref(struct tls_ctx *t)
{
        atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
        return t;
}

void tls_ctx_unref(struct tls_ctx *t)
{
        if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
                return;
        SSL_CTX_free(t->ssl);
        free(t->alpn);
        free(t->verify_host);
        free(t);
}
