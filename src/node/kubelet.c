/* The API's front: which pod and container a request means. */
#include "node/kubelet.h"
#include "base/mem.h"

#include <stdlib.h>

struct kubelet {
        struct node *node;
        struct http_service *service;
};

void kubelet_refuse(struct http_stream *s, int status, const char *fmt, ...)
{
        struct kube_error e = { 0 };
        struct buf text = BUF_INIT, json = BUF_INIT;
        va_list ap;

        va_start(ap, fmt);
        buf_vprintf(&text, fmt, ap);
        va_end(ap);
        kube_error_set(&e, http_stream_arena(s), status, status == 404 ? "NotFound" : "BadRequest", "%s", buf_z(&text));
        kube_error_json(&e, &json);
        http_answer(s, status, "application/json", buf_view(&json));
        buf_fini(&text);
        buf_fini(&json);
}

/* The pod of that name; of two (one going, one coming), the one that comes. */
static struct pod *find_pod(struct node *n, struct str ns, struct str name)
{
        struct pod *found = NULL;

        STRMAP_EACH (&n->by_uid, e) {
                struct pod *p = e->value;
                if (str_eqc(ns, p->ns) && str_eqc(name, p->name) && (!found || found->deleting || found->gone))
                        found = p;
        }
        return found;
}

static void on_request(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        static const char *const verbs[] = { "containerLogs", "exec", "attach", "portForward" };
        struct kubelet *k = arg;
        struct arena *a = http_stream_arena(s);
        struct str rest = m->path, path;
        struct kube_path parts;
        struct kube_query q;
        unsigned verb = 0;

        (void)end;
        str_next(&rest, '?', &path);
        if (!kube_path_parse(path, a, &parts) || !kube_query_parse(rest.p ? rest : STR(""), a, &q)) {
                kubelet_refuse(s, 400, "the path or query is malformed");
                return;
        }
        while (verb < ARRAY_LEN(verbs) && (!parts.nseg || !str_eqc(parts.seg[0], verbs[verb])))
                verb++;
        if (verb == ARRAY_LEN(verbs) || parts.nseg != (verb == 3 ? 3u : 4u)) {
                kubelet_refuse(s, 404, "not found");
                return;
        }
        struct pod *p = find_pod(k->node, parts.seg[1], parts.seg[2]);
        if (!p) {
                kubelet_refuse(s, 404, "pod \"" STR_FMT "\" is not on this node", STR_ARG(str_sub(parts.seg[2], 0, 253)));
                return;
        }
        if (verb == 3) {
                kubelet_forward(p, s, m);
                return;
        }
        struct ctr *c = pod_ctr(p, parts.seg[3]);
        if (!c) {
                kubelet_refuse(s, 404, "container " STR_FMT " is not valid for pod %s", STR_ARG(str_sub(parts.seg[3], 0, 253)), p->name);
                return;
        }
        if (verb == 0)
                kubelet_logs(c, s, &q);
        else if (verb == 1)
                kubelet_exec(c, s, m, &q);
        else
                kubelet_attach(c, s, m, &q);
}

struct kubelet *kubelet_new(struct node *n, struct diags *d)
{
        struct kubelet *k = MEM_NEW(struct kubelet);
        char *path = mem_printf("%s/node.sock", n->run_dir);
        struct addr at;
        int err = 0;

        k->node = n;
        if (addr_unix(&at, str_of(path))) {
                struct http_service_opts o = { .listen = &at, .unix_mode = 0600 };
                k->service = http_service_new_streaming(n->loop, &o, on_request, k, &err);
        }
        if (!k->service) {
                diag_add(d, DIAG_ERROR, NULL, NULL, "%s: %s", path, err ? strerror(-err) : "the path is too long for a socket");
                free(k);
                k = NULL;
        }
        free(path);
        return k;
}

void kubelet_free(struct kubelet *k)
{
        if (!k)
                return;
        http_service_free(k->service);
        free(k);
}
