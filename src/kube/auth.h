/* Who asks: service-account tokens (JWT, ES256, RFC 7519 and RFC 7518 §3.4), bound to a pod or to the account alone. */
#ifndef KUBE_AUTH_H
#define KUBE_AUTH_H

#include "kube/api.h"

struct kube_tokens;

/* NULL with a diagnostic when the PEM is not a P-256 key. */
struct kube_tokens *kube_tokens_new(struct str key_pem, struct str issuer, struct diags *d);
void kube_tokens_free(struct kube_tokens *t);
/* A new P-256 private key as PEM, appended. */
bool kube_tokens_make_key(struct buf *pem);

struct kube_token_req {
        const struct kobj *account, *pod; /* pod NULL: bound to the account only */
        const struct str *audiences;      /* none: the server itself */
        size_t naudiences;
        int64_t ttl_s;
};

struct str kube_tokens_issue(struct kube_tokens *t, const struct kube_api *api, const struct kube_token_req *q, struct arena *a);
/* Checks signature, time, audience (one of `audiences`; none: the server's own), and that account and pod still exist with the same uids.
 */
bool kube_tokens_verify(struct kube_tokens *t, const struct kube_api *api, struct str token, const struct str *audiences, size_t naudiences,
                        struct arena *a, struct kube_user *u, struct str *why);
struct str kube_tokens_issuer(const struct kube_tokens *t);

#endif
