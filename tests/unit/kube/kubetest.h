/* A server without sockets: a store in a temporary folder, and requests as method, path and body. */
#ifndef KUBETEST_H
#define KUBETEST_H

#include "kube/api.h"
#include "kube/controllers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
        struct kube_store *store;
        struct kube_api api;
        struct arena a;
        char dir[64], path[96];
};

static inline struct pb_node *json(struct arena *a, const char *text)
{
        struct pb_node *n = NULL;
        struct diags d;

        diags_init(&d);
        if (!pb_parse_json(str_of(text), STR("test"), a, &n, &d))
                fail_msg("broken JSON in the test: %s", text);
        diags_fini(&d);
        return n;
}

static inline const char *text_of(struct arena *a, const struct pb_node *n)
{
        struct buf b = BUF_INIT;

        if (!n)
                return "(null)";
        pb_node_json(n, &b);
        const char *s = arena_cstr(a, buf_view(&b));
        buf_fini(&b);
        return s;
}

static inline void world_open(struct world *w)
{
        struct diags d;

        diags_init(&d);
        w->store = kube_store_open(w->path, NULL, &d);
        if (!w->store)
                fail_msg("no store: " STR_FMT, STR_ARG(d.n ? d.v[0].text : STR("?")));
        diags_fini(&d);
        kube_api_init(&w->api, w->store);
}

static inline struct world *world_new(void)
{
        struct world *w = calloc(1, sizeof(*w));

        strcpy(w->dir, "/tmp/kubetest.XXXXXX");
        if (!mkdtemp(w->dir))
                fail_msg("no temporary folder");
        snprintf(w->path, sizeof(w->path), "%s/store.db", w->dir);
        arena_init(&w->a, 65536);
        world_open(w);
        return w;
}

static inline void world_close(struct world *w)
{
        kube_api_fini(&w->api);
        kube_store_close(w->store);
        w->store = NULL;
}

static inline void world_free(struct world *w)
{
        char cmd[128];

        world_close(w);
        arena_fini(&w->a);
        snprintf(cmd, sizeof(cmd), "rm -rf %s", w->dir);
        if (system(cmd))
                fprintf(stderr, "%s stays\n", w->dir);
        free(w);
}

struct reply {
        int status;
        const char *text;
        struct pb_node *node;
        const char *warnings;
};

/* One request of an administrator, committed. `path` may carry a query. */
static inline struct reply ask_as(struct world *w, const char *method, const char *path, const char *type, const char *accept,
                                  const char *body)
{
        struct kube_req *r = ARENA_NEW(&w->a, struct kube_req);
        struct buf warn = BUF_INIT;
        struct diags d;
        ptrdiff_t q = str_chr(str_of(path), '?');
        struct reply out = { 0 };

        r->api = &w->api;
        r->a = &w->a;
        r->method = str_of(method);
        r->path_text = q < 0 ? str_of(path) : str_sub(str_of(path), 0, (size_t)q);
        r->query_text = q < 0 ? STR("") : str_sub(str_of(path), (size_t)q + 1, strlen(path));
        r->accept = str_of(accept);
        r->content_type = str_of(type);
        r->body = str_of(body ? body : "");
        r->user = (struct kube_user){ .name = STR("admin"), .groups = { STR("system:masters") }, .ngroups = 1 };
        if (kube_req_prepare(r))
                kube_req_handle(r);
        else
                kube_req_fail(r);
        kube_store_commit(w->store);
        for (unsigned i = 0; i < r->nwarnings; i++)
                buf_printf(&warn, "%s" STR_FMT, i ? "; " : "", STR_ARG(r->warnings[i]));
        out.status = r->status;
        out.text = arena_cstr(&w->a, buf_view(&r->out));
        out.warnings = arena_cstr(&w->a, buf_view(&warn));
        diags_init(&d);
        pb_parse_json(arena_str(&w->a, buf_view(&r->out)), STR("answer"), &w->a, &out.node, &d);
        diags_fini(&d);
        buf_fini(&warn);
        buf_fini(&r->out);
        return out;
}

static inline struct reply ask(struct world *w, const char *method, const char *path, const char *body)
{
        return ask_as(w, method, path, "application/json", "", body);
}

/* What the answer says at a dotted path; "" when there is nothing. */
static inline const char *at(struct world *w, struct reply r, const char *path)
{
        const struct pb_node *n = pb_get_path(r.node, path);

        return !n ? "" : n->kind == PB_MAP || n->kind == PB_LIST ? text_of(&w->a, n) : arena_cstr(&w->a, n->text);
}

#endif
