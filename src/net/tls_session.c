/* One TLS connection. OpenSSL reads and writes through a BIO of ours: so that a broken socket gives EPIPE and no signal, that reads which
 * cannot succeed cost no system call, and that a full socket never makes SSL_write() ask to be repeated. */
#include "net/tls_session.h"

#include "base/arena.h"
#include "base/mem.h"
#include "net/tls_ctx.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>

struct tls_session {
        SSL *ssl;
        struct tls_ctx *ctx;
        char *error;
        char *verify_error;
        struct arena arena; /* for info */
        struct tls_info *info;
        bool shut;
};

/* ---- the BIO ---- */

static int bio_read(BIO *b, char *p, int n)
{
        BIO_clear_retry_flags(b);
        if (n <= 0)
                return 0;
        ssize_t k = conn_raw_recv(BIO_get_data(b), p, (size_t)n);
        if (k < 0 && errno == EAGAIN)
                BIO_set_retry_read(b);
        return (int)k;
}

static int bio_write(BIO *b, const char *p, int n)
{
        BIO_clear_retry_flags(b);
        return conn_raw_send(BIO_get_data(b), p, n > 0 ? (size_t)n : 0) ? n : -1;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
        return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP ? 1 : 0;
}

static BIO_METHOD *method;

static void make_method(void)
{
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "postern connection");
        if (!method)
                abort();
        BIO_meth_set_read(method, bio_read);
        BIO_meth_set_write(method, bio_write);
        BIO_meth_set_ctrl(method, bio_ctrl);
}

/* ---- life ---- */

struct tls_session *tls_session_new(struct tls_ctx *ctx, struct conn *c, struct str sni, struct str alpn)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        struct tls_session *s = MEM_NEW(struct tls_session);

        pthread_once(&once, make_method);
        s->ctx = tls_ctx_ref(ctx);
        s->ssl = SSL_new(ctx->ssl);
        BIO *b = BIO_new(method);
        if (!s->ssl || !b)
                abort(); /* out of memory */
        BIO_set_data(b, c);
        BIO_set_init(b, 1);
        SSL_set_bio(s->ssl, b, b);
        SSL_set_app_data(s->ssl, s);
        if (ctx->server) {
                SSL_set_accept_state(s->ssl);
                return s;
        }
        SSL_set_connect_state(s->ssl);
        struct addr ip;
        if (sni.n && !addr_parse_ip(&ip, sni, 0)) { /* RFC 6066 §3: no addresses */
                char *z = str_dup(sni);

                SSL_set_tlsext_host_name(s->ssl, z);
                free(z);
        }
        if (alpn.n) {
                struct str v[16], part;
                unsigned n = 0, bytes;

                while (n < ARRAY_LEN(v) && str_next(&alpn, ',', &part))
                        v[n++] = str_trim(part);
                unsigned char *w = tls_alpn_wire(v, n, &bytes);
                if (w)
                        SSL_set_alpn_protos(s->ssl, w, bytes);
                free(w);
        }
        return s;
}

void tls_session_free(struct tls_session *s)
{
        if (!s)
                return;
        SSL_free(s->ssl);
        tls_ctx_unref(s->ctx);
        arena_fini(&s->arena);
        free(s->error);
        free(s->verify_error);
        free(s);
        ERR_clear_error();
}

/* ---- errors ---- */

static char *cert_names(X509 *x)
{
        struct buf b = BUF_INIT;
        GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);

        for (int i = 0; i < sk_GENERAL_NAME_num(names) && b.n < 300; i++) {
                const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
                char ip[INET6_ADDRSTRLEN];

                if (g->type == GEN_IPADD) {
                        bool v6 = ASN1_STRING_length(g->d.ip) == 16;

                        if ((v6 || ASN1_STRING_length(g->d.ip) == 4) &&
                            inet_ntop(v6 ? AF_INET6 : AF_INET, ASN1_STRING_get0_data(g->d.ip), ip, sizeof(ip)))
                                buf_printf(&b, "%s%s", b.n ? ", " : "", ip);
                } else if (g->type == GEN_DNS || g->type == GEN_URI) {
                        buf_printf(&b, "%s%.*s", b.n ? ", " : "", ASN1_STRING_length(g->d.ia5),
                                   (const char *)ASN1_STRING_get0_data(g->d.ia5));
                }
        }
        GENERAL_NAMES_free(names);
        if (!b.n)
                buf_cstr(&b, "no names");
        return buf_take(&b);
}

int tls_session_on_verify(int ok, X509_STORE_CTX *store)
{
        SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
        struct tls_session *s = SSL_get_app_data(ssl);
        X509 *x = X509_STORE_CTX_get_current_cert(store);
        int err = X509_STORE_CTX_get_error(store);
        char subject[256] = "?";

        if (ok || !s || s->verify_error)
                return ok;
        if (x)
                X509_NAME_oneline(X509_get_subject_name(x), subject, sizeof(subject));
        if ((err == X509_V_ERR_HOSTNAME_MISMATCH || err == X509_V_ERR_IP_ADDRESS_MISMATCH) && x) {
                char *names = cert_names(x);

                s->verify_error = mem_printf("TLS: the certificate is for %s, not for %s", names, s->ctx->verify_host);
                free(names);
        } else {
                s->verify_error = mem_printf("TLS: %s (%s, depth %d)", X509_verify_cert_error_string(err), subject,
                                             X509_STORE_CTX_get_error_depth(store));
        }
        return ok;
}

void tls_session_fail(struct tls_session *s, const char *why)
{
        if (!s->error)
                s->error = mem_strdup(why);
}

const char *tls_session_error(const struct tls_session *s)
{
        return s->error;
}

enum { ALERT_REASON_BASE = 1000 }; /* OpenSSL: the reason of a received alert is 1000 + its number (RFC 8446 §6) */

static const char *alert_text(int alert)
{
        switch (alert) { /* newer than OpenSSL's own table */
        case 116:
                return "certificate required";
        case 120:
                return "no application protocol";
        default:
                return SSL_alert_desc_string_long(alert);
        }
}

static void note_error(struct tls_session *s, int kind, bool handshake)
{
        unsigned long e = ERR_peek_error();
        int reason = ERR_GET_REASON(e);

        if (s->error)
                return;
        if (s->verify_error) {
                s->error = s->verify_error;
                s->verify_error = NULL;
        } else if (kind == SSL_ERROR_ZERO_RETURN || (kind == SSL_ERROR_SYSCALL && !e) || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
                if (handshake)
                        s->error = mem_strdup("TLS: the peer closed the connection during the handshake");
        } else if (reason > ALERT_REASON_BASE && reason < ALERT_REASON_BASE + 256) {
                s->error = mem_printf("TLS: the peer refused: %s (alert %d)", alert_text(reason - ALERT_REASON_BASE),
                                      reason - ALERT_REASON_BASE);
        } else if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST || reason == SSL_R_PACKET_LENGTH_TOO_LONG) {
                s->error = mem_strdup("TLS: the peer does not speak TLS here");
        } else {
                const char *text = ERR_reason_error_string(e);

                s->error = mem_printf("TLS: %s", text ? text : "unknown error");
        }
        ERR_clear_error();
}

/* ---- input and output ---- */

enum io_result tls_session_handshake(struct tls_session *s)
{
        ERR_clear_error();
        errno = 0;
        int r = SSL_do_handshake(s->ssl);
        if (r == 1)
                return IO_OK;
        int kind = SSL_get_error(s->ssl, r);
        if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE)
                return IO_AGAIN;
        if (kind != SSL_ERROR_SYSCALL || ERR_peek_error() || errno == 0) /* else the socket's own error tells more */
                note_error(s, kind, true);
        return IO_ERROR;
}

enum io_result tls_session_read(struct tls_session *s, void *p, size_t cap, size_t *n)
{
        ERR_clear_error();
        errno = 0;
        int r = SSL_read_ex(s->ssl, p, cap, n);
        if (r == 1)
                return IO_OK;
        *n = 0;
        int kind = SSL_get_error(s->ssl, r);
        switch (kind) {
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE:
                return IO_AGAIN;
        case SSL_ERROR_ZERO_RETURN:
                return IO_EOF;
        case SSL_ERROR_SYSCALL:
                if (!ERR_peek_error() && errno == 0)
                        return IO_EOF;
                return IO_ERROR;
        default:
                note_error(s, kind, false);
                return IO_ERROR;
        }
}

enum io_result tls_session_write(struct tls_session *s, const void *p, size_t len, size_t *n)
{
        ERR_clear_error();
        errno = 0;
        int r = SSL_write_ex(s->ssl, p, len, n);
        if (r == 1)
                return IO_OK;
        *n = 0;
        int kind = SSL_get_error(s->ssl, r);
        if (kind != SSL_ERROR_SYSCALL)
                note_error(s, kind, false);
        return IO_ERROR;
}

void tls_session_shutdown(struct tls_session *s)
{
        if (s->shut || !SSL_is_init_finished(s->ssl))
                return;
        s->shut = true;
        ERR_clear_error();
        SSL_shutdown(s->ssl);
        ERR_clear_error();
}

/* ---- what was agreed ---- */

static struct str asn1_text(struct arena *a, const ASN1_STRING *v)
{
        unsigned char *utf8 = NULL;
        int n = ASN1_STRING_to_UTF8(&utf8, v);
        struct str r = n > 0 ? arena_str(a, str_make((char *)utf8, (size_t)n)) : (struct str){ "", 0 };

        OPENSSL_free(utf8);
        return r;
}

static const struct str *name_entries(struct arena *a, const X509_NAME *name, int nid, unsigned *count)
{
        int total = X509_NAME_entry_count(name);
        struct str *v = arena_alloc(a, (size_t)(total ? total : 1) * sizeof(*v));

        *count = 0;
        for (int i = -1; (i = X509_NAME_get_index_by_NID((X509_NAME *)name, nid, i)) >= 0;)
                v[(*count)++] = asn1_text(a, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i)));
        return v;
}

static void read_sans(struct tls_session *s, X509 *x, struct tls_info *t)
{
        GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
        int n = sk_GENERAL_NAME_num(names);

        if (n > 0) {
                struct str *uri = arena_alloc(&s->arena, (size_t)n * sizeof(*uri));
                struct str *dns = arena_alloc(&s->arena, (size_t)n * sizeof(*dns));

                t->peer_uri_san = uri;
                t->peer_dns_san = dns;
                for (int i = 0; i < n; i++) {
                        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

                        if (g->type == GEN_URI)
                                uri[t->npeer_uri_san++] = asn1_text(&s->arena, g->d.ia5);
                        else if (g->type == GEN_DNS)
                                dns[t->npeer_dns_san++] = asn1_text(&s->arena, g->d.ia5);
                }
        }
        GENERAL_NAMES_free(names);
}

static void read_peer(struct tls_session *s, struct tls_info *t)
{
        X509 *x = SSL_get0_peer_certificate(s->ssl);

        if (!x)
                return;
        const X509_NAME *name = X509_get_subject_name(x);
        BIO *b = BIO_new(BIO_s_mem());
        char *p;
        if (b && X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253) >= 0) {
                long n = BIO_get_mem_data(b, &p);

                t->peer_subject = arena_str(&s->arena, str_make(p, n > 0 ? (size_t)n : 0));
        }
        BIO_free(b);
        unsigned ncn;
        const struct str *cn = name_entries(&s->arena, name, NID_commonName, &ncn);
        if (ncn)
                t->peer_cn = cn[0];
        t->peer_o = name_entries(&s->arena, name, NID_organizationName, &t->npeer_o);
        read_sans(s, x, t);
        t->peer_verified = s->ctx->verifies && SSL_get_verify_result(s->ssl) == X509_V_OK;
        ERR_clear_error();
}

const struct tls_info *tls_session_info(struct tls_session *s)
{
        if (s->info)
                return s->info;
        if (!SSL_is_init_finished(s->ssl))
                return NULL;
        arena_init(&s->arena, 1024);
        struct tls_info *t = ARENA_NEW(&s->arena, struct tls_info);
        const unsigned char *alpn;
        unsigned nalpn;
        SSL_get0_alpn_selected(s->ssl, &alpn, &nalpn);
        t->alpn = arena_str(&s->arena, str_make((const char *)alpn, nalpn));
        const char *sni = SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name);
        t->sni = arena_str(&s->arena, sni ? str_of(sni) : STR(""));
        t->version = SSL_get_version(s->ssl);
        t->cipher = SSL_get_cipher_name(s->ssl);
        read_peer(s, t);
        s->info = t;
        return t;
}
