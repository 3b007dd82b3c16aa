/* Tokens of a pod's service account (TokenRequest), one for each audience and life time that its volumes name; renewed when four fifths of
 * the time are over. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/pod.h"

#include <stdlib.h>

enum { TOKEN_RETRY_MS = 2000, TOKENS_MAX = 16 };

struct pod_token {
        struct pod_token *next;
        struct pod *pod; /* NULL: the pod is gone, an answer is still to come */
        char *audience;
        int64_t expiration_s;
        char *text;  /* NULL: none yet */
        char *error; /* why the last request failed */
        bool asking;
        struct loop_timer renew;
};

static void token_free(struct pod_token *t)
{
        free(t->audience);
        free(t->text);
        free(t->error);
        free(t);
}

static void token_take(struct pod_token *t, const struct kube_response *r)
{
        struct loop *l = t->pod->node->loop;
        struct pb_node *root = NULL;
        struct arena a;
        struct diags d;
        uint64_t expires_us = 0, now = clock_real_us();

        arena_init(&a, 0);
        diags_init(&d);
        bool ok = r->status >= 200 && r->status < 300 && pb_parse_json(r->body, STR("TokenRequest"), &a, &root, &d);
        struct str text = ok ? spec_str(root, "status.token") : STR("");
        free(t->error);
        t->error = NULL;
        if (text.n) {
                free(t->text);
                t->text = str_dup(text);
                if (!clock_parse_rfc3339(spec_str(root, "status.expirationTimestamp"), &expires_us) || expires_us <= now)
                        expires_us = now + (uint64_t)t->expiration_s * 1000000;
                loop_timer_arm(l, &t->renew, (expires_us - now) / 1000 * 4 / 5);
        } else {
                t->error = mem_printf("token for service account: %d %s", r->status, r->error ? r->error : "");
                LOG(LOG_WARN, "node", "%s/%s: %s", t->pod->ns, t->pod->name, t->error);
                loop_timer_arm(l, &t->renew, TOKEN_RETRY_MS);
        }
        diags_fini(&d);
        arena_fini(&a);
}

static void on_token(void *arg, const struct kube_response *r)
{
        struct pod_token *t = arg;

        t->asking = false;
        if (!t->pod) {
                token_free(t);
                return;
        }
        token_take(t, r);
        pod_config_changed(t->pod);
}

static void token_ask(struct pod_token *t)
{
        struct pod *p = t->pod;
        struct str account = spec_str(p->obj->node, "spec.serviceAccountName");
        struct buf path = BUF_INIT, body = BUF_INIT;

        buf_printf(&path, "/api/v1/namespaces/%s/serviceaccounts/" STR_FMT "/token", p->ns, STR_ARG(account.n ? account : STR("default")));
        buf_cstr(&body, "{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"TokenRequest\",\"spec\":{");
        if (*t->audience) {
                buf_cstr(&body, "\"audiences\":[");
                buf_json(&body, str_of(t->audience));
                buf_cstr(&body, "],");
        }
        buf_printf(
                &body,
                "\"expirationSeconds\":%lld,\"boundObjectRef\":{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"name\":\"%s\",\"uid\":\"%s\"}}}",
                (long long)t->expiration_s, p->name, p->uid);
        t->asking = true;
        kube_request(p->node->client, "POST", buf_view(&path), STR("application/json"), buf_view(&body), on_token, t);
        buf_fini(&path);
        buf_fini(&body);
}

static void on_renew(struct loop_timer *timer)
{
        struct pod_token *t = timer->arg;

        if (!t->asking)
                token_ask(t);
}

bool token_get(struct pod *p, struct str audience, int64_t expiration_s, struct str *token, struct buf *error)
{
        struct pod_token *t = p->tokens;
        unsigned n = 0;

        for (; t; t = t->next, n++)
                if (str_eqc(audience, t->audience) && t->expiration_s == expiration_s)
                        break;
        if (!t) {
                if (n >= TOKENS_MAX) {
                        buf_cstr(error, "too many different service account tokens in one pod");
                        return false;
                }
                t = MEM_NEW(struct pod_token);
                *t = (struct pod_token){ .next = p->tokens, .pod = p, .audience = str_dup(audience), .expiration_s = expiration_s };
                t->renew = (struct loop_timer){ .fn = on_renew, .arg = t };
                p->tokens = t;
                token_ask(t);
        }
        if (!t->text && t->error)
                buf_cstr(error, t->error);
        *token = str_of(t->text);
        return t->text != NULL;
}

void tokens_free(struct pod *p)
{
        for (struct pod_token *t = p->tokens, *next; t; t = next) {
                next = t->next;
                loop_timer_stop(p->node->loop, &t->renew);
                t->pod = NULL;
                if (!t->asking)
                        token_free(t);
        }
        p->tokens = NULL;
}
