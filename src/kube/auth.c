/* Tokens and permissions.
 *
 * Permissions are a short fixed table, not RBAC:
 *   system:masters                         everything
 *   system:nodes                           what a node needs: reads of pods and of what they mount, writes of statuses, events, tokens
 *   postern:controllers                    what a control plane needs: reads, and writes of statuses, ConfigMaps and events
 *   service account istiod                 the same, as a pod
 *   any authenticated service account      discovery, and questions about itself */
#include "kube/auth.h"

#include "base/base64.h"
#include "base/mem.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>

struct kube_tokens {
        EVP_PKEY *key;
        char *issuer;
        char kid[17];
};

enum { SIG_BYTES = 64, TOKEN_MAX_BYTES = 8192, CLOCK_SKEW_S = 10 };

static bool un_b64url(struct str in, struct arena *a, struct str *out)
{
        char *p = arena_alloc(a, in.n + 4);

        if (in.n % 4 == 1 || !base64_decode(in, BASE64_URL, p, &out->n))
                return false;
        p[out->n] = 0;
        out->p = p;
        return true;
}

/* ---- keys ---- */

bool kube_tokens_make_key(struct buf *pem)
{
        EVP_PKEY *key = EVP_EC_gen("P-256");
        BIO *b = BIO_new(BIO_s_mem());
        char *p;
        bool ok = key && b && PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) == 1;

        if (ok) {
                long n = BIO_get_mem_data(b, &p);

                buf_append(pem, p, (size_t)n);
        }
        BIO_free(b);
        EVP_PKEY_free(key);
        return ok;
}

struct kube_tokens *kube_tokens_new(struct str key_pem, struct str issuer, struct diags *d)
{
        struct diag_at at = { .resource = STR("service-account key") };
        BIO *b = BIO_new_mem_buf(key_pem.p, (int)key_pem.n);
        EVP_PKEY *key = b ? PEM_read_bio_PrivateKey(b, NULL, NULL, NULL) : NULL;

        BIO_free(b);
        if (!key || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC || EVP_PKEY_get_bits(key) != 256) {
                diag_add(d, DIAG_ERROR, "KUB0201", &at, "not a P-256 private key: remove the file, and the next start makes a new one");
                EVP_PKEY_free(key);
                return NULL;
        }
        struct kube_tokens *t = MEM_NEW(struct kube_tokens);
        t->key = key;
        t->issuer = str_dup(issuer);
        snprintf(t->kid, sizeof(t->kid), "%016llx", (unsigned long long)hash_bytes(key_pem.p, key_pem.n, 0));
        return t;
}

void kube_tokens_free(struct kube_tokens *t)
{
        if (!t)
                return;
        EVP_PKEY_free(t->key);
        free(t->issuer);
        free(t);
}

struct str kube_tokens_issuer(const struct kube_tokens *t)
{
        return str_of(t->issuer);
}

/* ---- signatures: JOSE wants r and s as 32 bytes each, OpenSSL gives DER ---- */

static bool sign(struct kube_tokens *t, struct str text, uint8_t out[SIG_BYTES])
{
        EVP_MD_CTX *m = EVP_MD_CTX_new();
        uint8_t der[128];
        size_t n = sizeof(der);
        const uint8_t *p = der;
        bool ok = m && EVP_DigestSignInit(m, NULL, EVP_sha256(), NULL, t->key) == 1 &&
                  EVP_DigestSign(m, der, &n, (const uint8_t *)text.p, text.n) == 1;
        ECDSA_SIG *sig = ok ? d2i_ECDSA_SIG(NULL, &p, (long)n) : NULL;

        ok = sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, 32) == 32 && BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + 32, 32) == 32;
        ECDSA_SIG_free(sig);
        EVP_MD_CTX_free(m);
        return ok;
}

static bool check_signature(struct kube_tokens *t, struct str text, struct str sig)
{
        const uint8_t *b = (const uint8_t *)sig.p;
        uint8_t *der = NULL;
        ECDSA_SIG *e = sig.n == SIG_BYTES ? ECDSA_SIG_new() : NULL;
        bool ok = false;

        if (!e || !ECDSA_SIG_set0(e, BN_bin2bn(b, 32, NULL), BN_bin2bn(b + 32, 32, NULL))) {
                ECDSA_SIG_free(e);
                return false;
        }
        int n = i2d_ECDSA_SIG(e, &der);
        EVP_MD_CTX *m = EVP_MD_CTX_new();
        if (n > 0 && m && EVP_DigestVerifyInit(m, NULL, EVP_sha256(), NULL, t->key) == 1)
                ok = EVP_DigestVerify(m, der, (size_t)n, (const uint8_t *)text.p, text.n) == 1;
        EVP_MD_CTX_free(m);
        OPENSSL_free(der);
        ECDSA_SIG_free(e);
        return ok;
}

/* ---- issuing ---- */

static void claims(struct kube_tokens *t, const struct kube_api *api, const struct kube_token_req *q, struct buf *b)
{
        long long now = (long long)(api->now_us() / 1000000);
        char jti[37];

        rand_uuid4(jti);
        buf_cstr(b, "{\"aud\":[");
        for (size_t i = 0; i < q->naudiences; i++) {
                if (i)
                        buf_char(b, ',');
                buf_json(b, q->audiences[i]);
        }
        if (!q->naudiences)
                buf_json(b, str_of(t->issuer));
        buf_printf(b, "],\"exp\":%lld,\"iat\":%lld,\"nbf\":%lld,\"jti\":\"%s\",\"iss\":", now + (long long)q->ttl_s, now, now, jti);
        buf_json(b, str_of(t->issuer));
        buf_printf(b,
                   ",\"kubernetes.io\":{\"namespace\":\"" STR_FMT "\",\"serviceaccount\":{\"name\":\"" STR_FMT "\",\"uid\":\"" STR_FMT
                   "\"}",
                   STR_ARG(q->account->ns), STR_ARG(q->account->name), STR_ARG(q->account->uid));
        if (q->pod)
                buf_printf(b, ",\"pod\":{\"name\":\"" STR_FMT "\",\"uid\":\"" STR_FMT "\"}", STR_ARG(q->pod->name), STR_ARG(q->pod->uid));
        buf_printf(b, "},\"sub\":\"system:serviceaccount:" STR_FMT ":" STR_FMT "\"}", STR_ARG(q->account->ns), STR_ARG(q->account->name));
}

struct str kube_tokens_issue(struct kube_tokens *t, const struct kube_api *api, const struct kube_token_req *q, struct arena *a)
{
        struct buf text = BUF_INIT, part = BUF_INIT;
        uint8_t sig[SIG_BYTES];
        struct str out = STR("");

        buf_printf(&part, "{\"alg\":\"ES256\",\"kid\":\"%s\"}", t->kid);
        base64url_print(&text, part.p, part.n);
        buf_char(&text, '.');
        part.n = 0;
        claims(t, api, q, &part);
        base64url_print(&text, part.p, part.n);
        if (sign(t, buf_view(&text), sig)) {
                buf_char(&text, '.');
                base64url_print(&text, sig, sizeof(sig));
                out = arena_str(a, buf_view(&text));
        }
        buf_fini(&text);
        buf_fini(&part);
        return out;
}

/* ---- verifying ---- */

static bool audience_ok(struct kube_tokens *t, const struct pb_node *aud, const struct str *want, size_t n)
{
        struct str own = str_of(t->issuer);

        if (!n) {
                want = &own;
                n = 1;
        }
        for (size_t i = 0; aud && aud->kind == PB_LIST && i < aud->n; i++)
                for (size_t k = 0; k < n; k++)
                        if (str_eq(aud->v[i]->text, want[k]))
                                return true;
        return aud && aud->kind == PB_STRING && str_eq(aud->text, want[0]);
}

static bool still_there(const struct kube_api *api, const struct pb_node *k, struct kube_user *u, struct arena *a, struct str *why)
{
        struct str ns = pb_get_str(k, "namespace", STR("")), sa = pb_get_str(k, "serviceaccount.name", STR("")),
                   pod = pb_get_str(k, "pod.name", STR(""));
        const struct kobj *account = kube_store_get(api->store, kube_b.serviceaccounts, ns, sa);

        if (!account || !str_eq(account->uid, pb_get_str(k, "serviceaccount.uid", STR("")))) {
                *why = STR("the token's service account has been deleted");
                return false;
        }
        if (pod.n) {
                const struct kobj *p = kube_store_get(api->store, kube_b.pods, ns, pod);

                if (!p || !str_eq(p->uid, pb_get_str(k, "pod.uid", STR("")))) {
                        *why = STR("the token's pod has been deleted");
                        return false;
                }
                u->pod_name = arena_str(a, p->name);
                u->pod_uid = arena_str(a, p->uid);
                u->node_name = arena_str(a, pb_get_str(p->node, "spec.nodeName", STR("")));
        }
        u->name = arena_printf(a, "system:serviceaccount:" STR_FMT ":" STR_FMT, STR_ARG(ns), STR_ARG(sa));
        u->uid = arena_str(a, account->uid);
        u->groups[0] = STR("system:serviceaccounts");
        u->groups[1] = arena_printf(a, "system:serviceaccounts:" STR_FMT, STR_ARG(ns));
        u->groups[2] = STR("system:authenticated");
        u->ngroups = 3;
        return true;
}

bool kube_tokens_verify(struct kube_tokens *t, const struct kube_api *api, struct str token, const struct str *audiences, size_t naudiences,
                        struct arena *a, struct kube_user *u, struct str *why)
{
        ptrdiff_t dot = str_rchr(token, '.'), first = str_chr(token, '.');
        struct str head, body, sig;
        struct pb_node *h = NULL, *c = NULL;
        struct diags d;
        int64_t now = (int64_t)(api->now_us() / 1000000);

        memset(u, 0, sizeof(*u));
        *why = STR("the token is not one of this server's");
        if (!t || token.n > TOKEN_MAX_BYTES || first <= 0 || dot <= first)
                return false;
        if (!un_b64url(str_sub(token, 0, (size_t)first), a, &head) ||
            !un_b64url(str_sub(token, (size_t)first + 1, (size_t)(dot - first - 1)), a, &body) ||
            !un_b64url(str_sub(token, (size_t)dot + 1, token.n), a, &sig) || !check_signature(t, str_sub(token, 0, (size_t)dot), sig))
                return false;
        diags_init(&d);
        bool ok = pb_parse_json(head, STR("token"), a, &h, &d) && pb_parse_json(body, STR("token"), a, &c, &d) &&
                  str_eqc(pb_get_str(h, "alg", STR("")), "ES256") && str_eqc(pb_get_str(c, "iss", STR("")), t->issuer);
        diags_fini(&d);
        if (!ok)
                return false;
        if (kube_int(c, "exp", 0) + CLOCK_SKEW_S < now || kube_int(c, "nbf", INT64_MAX) - CLOCK_SKEW_S > now) {
                *why = STR("the token has expired");
                return false;
        }
        if (!audience_ok(t, pb_get(c, "aud"), audiences, naudiences)) {
                *why = STR("the token is for another audience");
                return false;
        }
        return still_there(api, pb_get(c, "kubernetes.io"), u, a, why);
}

/* ---- permissions ---- */

#define READ  "get list watch"
#define WRITE "get list watch create update patch delete deletecollection"

static const struct rule {
        const char *group_or_user; /* a group, or "user:…" */
        const char *api_group;     /* "*": any, "*.istio.io": Istio's */
        const char *resources;     /* "pods pods/status", "*": any, sub-resources not included */
        const char *verbs;
} rules[] = {
        { "system:nodes", "", "pods services endpoints configmaps secrets nodes namespaces serviceaccounts", READ },
        { "system:nodes", "discovery.k8s.io", "endpointslices", READ },
        { "system:nodes", "*.istio.io", "*", READ },
        { "system:nodes", "", "nodes", "create update patch" },
        { "system:nodes", "", "nodes/status pods/status", "get update patch" },
        { "system:nodes", "", "pods", "delete" },
        { "system:nodes", "", "pods/eviction", "create" },
        { "system:nodes", "", "events", "create update patch get list" },
        { "system:nodes", "", "serviceaccounts/token", "create" },
        { "system:nodes", "authentication.k8s.io", "tokenreviews", "create" },
        { "system:nodes", "authorization.k8s.io", "subjectaccessreviews", "create" },
#define CONTROL_PLANE(who)                                                                                              \
        { who, "", "pods services endpoints configmaps secrets nodes namespaces serviceaccounts events", READ },        \
                { who, "apps", "deployments replicasets", READ }, { who, "discovery.k8s.io", "endpointslices", READ },  \
                { who, "apiextensions.k8s.io", "customresourcedefinitions", READ }, { who, "*.istio.io", "*", READ },   \
                { who, "*.istio.io", "*/status", "get update patch" }, { who, "*.istio.io", "workloadentries", WRITE }, \
                { who, "", "configmaps", "create update patch" }, { who, "", "events", "create update patch" },         \
                { who, "authentication.k8s.io", "tokenreviews", "create" },                                             \
        {                                                                                                               \
                who, "authorization.k8s.io", "subjectaccessreviews", "create"                                           \
        }
        CONTROL_PLANE("postern:controllers"),
        CONTROL_PLANE("user:system:serviceaccount:istio-system:istiod"),
        { "system:authenticated", "authentication.k8s.io", "selfsubjectreviews", "create" },
        { "system:authenticated", "authorization.k8s.io", "selfsubjectaccessreviews", "create" },
};

static bool word_in(const char *words, struct str w)
{
        struct str rest = str_of(words), part;

        while (str_next(&rest, ' ', &part))
                if (str_eq(part, w))
                        return true;
        return false;
}

static bool resource_in(const char *words, struct str resource, struct str sub)
{
        struct str rest = str_of(words), part;

        while (str_next(&rest, ' ', &part)) {
                ptrdiff_t slash = str_chr(part, '/');
                struct str res = slash < 0 ? part : str_sub(part, 0, (size_t)slash),
                           s = slash < 0 ? STR("") : str_sub(part, (size_t)slash + 1, part.n);

                if ((str_eqc(res, "*") || str_eq(res, resource)) && str_eq(s, sub))
                        return true;
        }
        return false;
}

static bool group_matches(const char *rule_group, struct str group)
{
        if (!strcmp(rule_group, "*"))
                return true;
        return *rule_group == '*' ? str_ends(group, str_of(rule_group + 1)) : str_eqc(group, rule_group);
}

bool kube_may(const struct kube_api *api, const struct kube_user *u, const char *verb, struct str group, struct str resource,
              struct str sub, struct str ns, struct str name)
{
        if (kube_user_in_group(u, "system:masters"))
                return true;
        for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
                const struct rule *r = &rules[i];
                bool mine = strncmp(r->group_or_user, "user:", 5) ? kube_user_in_group(u, r->group_or_user)
                                                                  : str_eqc(u->name, r->group_or_user + 5);

                if (mine && group_matches(r->api_group, group) && word_in(r->verbs, str_of(verb)) &&
                    resource_in(r->resources, resource, sub))
                        return true;
        }
        return false;
}
