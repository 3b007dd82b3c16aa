#include "cmd/kubesync.h"

#include "base/clock.h"
#include "base/mem.h"
#include "kube/client.h"

#include <stdlib.h>

struct kubesync {
        struct loop *loop;
        struct kube_client *client;
        struct arena arena;
};

struct kubesync *kubesync_new(struct str config, struct str context, struct diags *d)
{
        struct kubesync *k = MEM_NEW(struct kubesync);
        struct kube_client_config c = { 0 };

        arena_init(&k->arena, 0);
        k->loop = loop_new();
        if (kube_client_config_load(config, context, &k->arena, &c, d))
                k->client = kube_client_new(k->loop, &c, d);
        if (!k->client) {
                kubesync_free(k);
                return NULL;
        }
        return k;
}

void kubesync_free(struct kubesync *k)
{
        if (!k)
                return;
        if (k->client)
                kube_client_free(k->client);
        loop_free(k->loop);
        arena_fini(&k->arena);
        free(k);
}

struct waiting {
        struct kubesync_answer *out;
        struct arena *arena;
        bool done;
};

static void on_response(void *arg, const struct kube_response *r)
{
        struct waiting *w = arg;
        struct kubesync_answer *out = w->out;
        struct diags d;

        w->done = true;
        if (!out)
                return;
        out->status = r->status;
        for (unsigned i = 0; i < r->nwarnings && out->nwarnings < ARRAY_LEN(out->warnings); i++)
                out->warnings[out->nwarnings++] = arena_str(w->arena, r->warnings[i]);
        if (!r->status) {
                out->text = arena_str(w->arena, str_of(r->error ? r->error : "no answer"));
                return;
        }
        diags_init(&d);
        struct str text = arena_str(w->arena, r->body);

        if (!text.n || !pb_parse_json(text, STR(""), w->arena, &out->body, &d))
                out->body = NULL;
        if (r->status / 100 != 2)
                out->text = out->body ? pb_get_str(out->body, "message", text) : text;
        diags_fini(&d);
}

bool kubesync_do(struct kubesync *k, const char *method, struct str path, const char *content_type, const struct pb_node *body,
                 unsigned timeout_ms, struct arena *a, struct kubesync_answer *out)
{
        struct waiting *w = MEM_NEW(struct waiting);
        struct buf text = BUF_INIT;
        uint64_t until = clock_mono_ms() + timeout_ms;

        *out = (struct kubesync_answer){ 0 };
        *w = (struct waiting){ out, a, false };
        if (body)
                pb_node_json(body, &text);
        kube_request(k->client, method, path, body ? str_of(content_type) : STR(""), buf_view(&text), on_response, w);
        buf_fini(&text);
        while (!w->done && clock_mono_ms() < until)
                loop_turn(k->loop, (int)(until - clock_mono_ms()));
        if (!w->done) {
                w->out = NULL; /* a late answer finds nobody; `w` stays for it until the client goes */
                out->text = arena_printf(a, "no answer within %u s", timeout_ms / 1000);
                return false;
        }
        free(w);
        return out->status / 100 == 2;
}

void kubesync_pause(struct kubesync *k, unsigned ms)
{
        uint64_t until = clock_mono_ms() + ms;

        for (uint64_t now; (now = clock_mono_ms()) < until;)
                loop_turn(k->loop, (int)(until - now));
}

static const struct {
        const char *kind, *plural;
        bool namespaced;
} kinds[] = {
        { "Namespace", "namespaces", false },
        { "ConfigMap", "configmaps", true },
        { "Secret", "secrets", true },
        { "ServiceAccount", "serviceaccounts", true },
        { "Service", "services", true },
        { "Deployment", "deployments", true },
        { "Pod", "pods", true },
        { "Node", "nodes", false },
};

struct str kubesync_path(const struct pb_node *object, bool named, struct arena *a)
{
        struct str version = pb_get_str(object, "apiVersion", STR("v1")), kind = pb_get_str(object, "kind", STR(""));
        struct str ns = pb_get_str(object, "metadata.namespace", STR("default")), name = pb_get_str(object, "metadata.name", STR(""));

        for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
                if (!str_eqc(kind, kinds[i].kind))
                        continue;
                struct str root = arena_printf(a, "/%s/" STR_FMT, str_chr(version, '/') < 0 ? "api" : "apis", STR_ARG(version));
                struct str dir = kinds[i].namespaced ? arena_printf(a, STR_FMT "/namespaces/" STR_FMT "/%s", STR_ARG(root), STR_ARG(ns),
                                                                    kinds[i].plural)
                                                     : arena_printf(a, STR_FMT "/%s", STR_ARG(root), kinds[i].plural);

                return named ? arena_printf(a, STR_FMT "/" STR_FMT, STR_ARG(dir), STR_ARG(name)) : dir;
        }
        return STR("");
}
