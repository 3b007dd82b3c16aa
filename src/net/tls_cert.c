/* A small certificate authority: P-256 keys, X.509 version 3 (RFC 5280). Names go in as ASN.1 values, never through OpenSSL's configuration
 * syntax, in which a comma in a name would start another name. */
#include "base/buf.h"
#include "base/mem.h"
#include "net/tls.h"
#include "net/tls_ctx.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

enum { DAY_S = 86400, BACKDATE_S = 3600, SERIAL_BYTES = 16 };

static bool add_ext(X509 *x, int nid, void *value, bool critical)
{
        return X509_add1_ext_i2d(x, nid, value, critical, X509V3_ADD_DEFAULT) == 1;
}

static bool set_serial(X509 *x)
{
        unsigned char raw[SERIAL_BYTES];

        if (RAND_bytes(raw, sizeof(raw)) != 1)
                return false;
        raw[0] = (raw[0] & 0x7f) | 0x40; /* positive, and of full length */
        BIGNUM *n = BN_bin2bn(raw, sizeof(raw), NULL);
        bool ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));
        BN_free(n);
        return ok;
}

static bool add_name(X509_NAME *name, int nid, struct str v)
{
        return X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8, (const unsigned char *)v.p, (int)v.n, -1, 0) == 1;
}

static bool set_subject(X509 *x, const struct tls_cert_req *r)
{
        X509_NAME *name = X509_get_subject_name(x);
        bool ok = true;

        for (unsigned i = 0; ok && i < r->no; i++)
                ok = add_name(name, NID_organizationName, r->o[i]);
        return ok && (!r->cn.n || add_name(name, NID_commonName, r->cn));
}

static bool push_name(GENERAL_NAMES *names, int type, struct str v)
{
        GENERAL_NAME *g = GENERAL_NAME_new();

        if (!g)
                return false;
        if (type == GEN_IPADD) {
                char *z = str_dup(v);
                ASN1_OCTET_STRING *ip = a2i_IPADDRESS(z);

                free(z);
                if (ip)
                        GENERAL_NAME_set0_value(g, type, ip);
                if (ip && sk_GENERAL_NAME_push(names, g))
                        return true;
        } else {
                ASN1_IA5STRING *s = ASN1_IA5STRING_new();

                if (s && ASN1_STRING_set(s, v.p, (int)v.n)) {
                        GENERAL_NAME_set0_value(g, type, s);
                        if (sk_GENERAL_NAME_push(names, g))
                                return true;
                } else {
                        ASN1_IA5STRING_free(s);
                }
        }
        GENERAL_NAME_free(g);
        return false;
}

static bool add_sans(X509 *x, const struct tls_cert_req *r)
{
        GENERAL_NAMES *names = GENERAL_NAMES_new();
        bool ok = names != NULL;

        for (unsigned i = 0; ok && i < r->ndns; i++)
                ok = push_name(names, GEN_DNS, r->dns[i]);
        for (unsigned i = 0; ok && i < r->nip; i++)
                ok = push_name(names, GEN_IPADD, r->ip[i]);
        for (unsigned i = 0; ok && i < r->nuri; i++)
                ok = push_name(names, GEN_URI, r->uri[i]);
        if (ok && sk_GENERAL_NAME_num(names) > 0) /* RFC 5280 §4.2.1.6: critical when the subject is empty */
                ok = add_ext(x, NID_subject_alt_name, names, !r->cn.n && !r->no);
        GENERAL_NAMES_free(names);
        return ok;
}

static bool add_usage(X509 *x, const struct tls_cert_req *r)
{
        BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
        ASN1_BIT_STRING *ku = ASN1_BIT_STRING_new();
        EXTENDED_KEY_USAGE *eku = EXTENDED_KEY_USAGE_new();
        bool ok = bc && ku && eku;

        if (ok) {
                bc->ca = r->ca ? 0xff : 0;
                ASN1_BIT_STRING_set_bit(ku, 0, 1); /* digitalSignature */
                if (r->ca) {
                        ASN1_BIT_STRING_set_bit(ku, 5, 1); /* keyCertSign */
                        ASN1_BIT_STRING_set_bit(ku, 6, 1); /* cRLSign */
                }
                if (r->server)
                        sk_ASN1_OBJECT_push(eku, OBJ_nid2obj(NID_server_auth));
                if (r->client)
                        sk_ASN1_OBJECT_push(eku, OBJ_nid2obj(NID_client_auth));
                ok = add_ext(x, NID_basic_constraints, bc, true) && add_ext(x, NID_key_usage, ku, true) &&
                     ((!r->server && !r->client) || add_ext(x, NID_ext_key_usage, eku, false));
        }
        BASIC_CONSTRAINTS_free(bc);
        ASN1_BIT_STRING_free(ku);
        EXTENDED_KEY_USAGE_free(eku);
        return ok;
}

static bool add_key_ids(X509 *x, X509 *issuer)
{
        X509V3_CTX v3;
        bool ok = true;

        X509V3_set_ctx(&v3, issuer, x, NULL, NULL, 0);
        static const struct {
                int nid;
                const char *value;
        } ids[] = { { NID_subject_key_identifier, "hash" }, { NID_authority_key_identifier, "keyid" } };
        for (size_t i = 0; ok && i < ARRAY_LEN(ids); i++) {
                X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &v3, ids[i].nid, ids[i].value);

                ok = e && X509_add_ext(x, e, -1) == 1;
                X509_EXTENSION_free(e);
        }
        return ok;
}

static X509 *build(const struct tls_cert_req *r, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
        X509 *x = X509_new();

        if (!x)
                return NULL;
        long days = r->days ? (long)r->days : 1;
        bool ok = X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x) && set_subject(x, r) &&
                  X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer) : X509_get_subject_name(x)) == 1 &&
                  X509_gmtime_adj(X509_getm_notBefore(x), -(long)BACKDATE_S) &&
                  X509_time_adj_ex(X509_getm_notAfter(x), (int)days, 0, NULL) && X509_set_pubkey(x, key) == 1 && add_usage(x, r) &&
                  add_sans(x, r) && add_key_ids(x, issuer ? issuer : x) && X509_sign(x, issuer_key ? issuer_key : key, EVP_sha256()) > 0;
        if (ok)
                return x;
        X509_free(x);
        return NULL;
}

static bool write_pem(X509 *x, EVP_PKEY *key, struct buf *cert_pem, struct buf *key_pem)
{
        BIO *c = BIO_new(BIO_s_mem()), *k = BIO_new(BIO_s_mem());
        bool ok = c && k && PEM_write_bio_X509(c, x) == 1 && PEM_write_bio_PrivateKey(k, key, NULL, NULL, 0, NULL, NULL) == 1;

        if (ok) {
                char *p;
                long n = BIO_get_mem_data(c, &p);

                buf_append(cert_pem, p, (size_t)n);
                n = BIO_get_mem_data(k, &p);
                buf_append(key_pem, p, (size_t)n);
        }
        BIO_free(c);
        BIO_free(k);
        return ok;
}

int tls_cert_make(const struct tls_cert_req *r, struct str issuer_cert_pem, struct str issuer_key_pem, struct buf *cert_pem,
                  struct buf *key_pem, struct diags *d)
{
        EVP_PKEY *key = EVP_EC_gen("P-256"), *issuer_key = NULL;
        X509 *issuer = NULL, *x = NULL;
        bool ok = key != NULL;
        const char *what = "certificate";

        ERR_clear_error();
        if (ok && (issuer_cert_pem.n || issuer_key_pem.n)) {
                BIO *b = BIO_new_mem_buf(issuer_cert_pem.p, (int)issuer_cert_pem.n);
                issuer = PEM_read_bio_X509(b, NULL, NULL, (void *)"");
                BIO_free(b);
                b = BIO_new_mem_buf(issuer_key_pem.p, (int)issuer_key_pem.n);
                issuer_key = PEM_read_bio_PrivateKey(b, NULL, NULL, (void *)"");
                BIO_free(b);
                what = "issuer's certificate and key";
                ok = issuer && issuer_key && X509_check_private_key(issuer, issuer_key) == 1;
        }
        if (ok) {
                what = "certificate";
                x = build(r, key, issuer, issuer_key);
                ok = x && write_pem(x, key, cert_pem, key_pem);
        }
        if (!ok && d)
                diag_add(d, DIAG_ERROR, "PST0202", NULL, "cannot make the certificate for \"" STR_FMT "\": %s: %s", STR_ARG(r->cn), what,
                         tls_reason());
        ERR_clear_error();
        X509_free(x);
        X509_free(issuer);
        EVP_PKEY_free(issuer_key);
        EVP_PKEY_free(key);
        return ok ? 0 : -1;
}
