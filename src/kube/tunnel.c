/* logs, exec, attach and port-forward: the request goes to the node's socket and the answer comes back, byte for byte. Upgraded connections
 * (WebSocket, SPDY) are not looked into: what kubectl and the node agree on is theirs. Each direction stops reading while the other side's
 * send buffer is full, so that a fast `kubectl logs` of a slow terminal holds at most a buffer. */
#include "kube/server.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>

enum { CONNECT_TIMEOUT_MS = 5000, TUNNELS_MAX = 1024 };

struct kube_tunnel {
        struct kube_apiserver *s;
        struct kube_tunnel *next, **pprev;
        struct kube_call *call;
        struct http_stream *client, *node; /* NULL: gone */
        struct http_conn *conn;            /* to the node */
        bool answered;                     /* the node's head went to the client */
        bool client_ended, node_ended;     /* nothing more comes from there */
        struct loop_task free_task;
        char *error;
};

static unsigned count(const struct kube_apiserver *s)
{
        unsigned n = 0;

        for (const struct kube_tunnel *t = s->tunnels; t; t = t->next)
                n++;
        return n;
}

static void on_free(struct loop_task *task)
{
        struct kube_tunnel *t = task->arg;

        free(t->error);
        free(t);
}

/* Frees the tunnel when neither side can call it any more. */
static void settle(struct kube_tunnel *t)
{
        if (t->client || t->node || t->conn || t->free_task.queued)
                return;
        if (t->pprev) {
                *t->pprev = t->next;
                if (t->next)
                        t->next->pprev = t->pprev;
                t->pprev = NULL;
        }
        loop_defer(t->s->loop, &t->free_task);
}

static void close_node(struct kube_tunnel *t)
{
        if (t->conn)
                http_conn_close(t->conn);
}

/* The node cannot be asked: an error in Kubernetes' form. */
static void refuse(struct kube_tunnel *t, const char *why)
{
        struct kube_call *c = t->call;

        if (!t->client || t->answered)
                return;
        t->answered = true;
        t->client = NULL;
        kube_req_error(&c->r, 500, "InternalError", "the node's agent cannot be reached at " STR_FMT ": %s", STR_ARG(t->s->api.node_socket),
                       why);
        kube_req_fail(&c->r);
        kube_server_answer(c);
}

/* ---- from the client ---- */

static void client_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        struct kube_tunnel *t = arg;

        t->client_ended |= end;
        if (!t->node) {
                chain_fini(data);
                return;
        }
        http_send_data(t->node, data, end);
        if (!end && http_send_blocked(t->node))
                http_pause(s);
}

static void client_drain(struct http_stream *s, void *arg)
{
        struct kube_tunnel *t = arg;

        if (t->node)
                http_resume(t->node);
}

static void client_close(struct http_stream *s, void *arg, enum http_reset reset)
{
        struct kube_tunnel *t = arg;

        t->client = NULL;
        close_node(t);
        settle(t);
}

static const struct http_stream_ops client_ops = { .on_data = client_data, .on_drain = client_drain, .on_close = client_close };

/* ---- from the node ---- */

static void copy_headers(const struct http_head *from, struct http_head *to, bool upgrade)
{
        static const char *const kept[] = { "content-type",
                                            "x-stream-protocol-version",
                                            "sec-websocket-accept",
                                            "sec-websocket-protocol",
                                            "sec-websocket-extensions",
                                            "sec-websocket-key",
                                            "sec-websocket-version",
                                            "origin" };

        for (unsigned i = 0; i < from->n; i++)
                for (size_t k = 0; k < ARRAY_LEN(kept); k++)
                        if (str_eqc(from->h[i].name, kept[k]))
                                http_add_name(to, from->h[i].name, from->h[i].value);
        to->protocol = upgrade ? from->protocol : STR("");
}

static void node_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct kube_tunnel *t = arg;
        struct http_head out;

        if (!t->client || (m->status < 200 && m->status != 101))
                return;
        t->call->r.status = m->status;
        kube_server_head(t->call, &out);
        copy_headers(m, &out, m->status == 101);
        out.status = m->status;
        out.content_length = m->content_length;
        t->answered = true;
        t->node_ended = end;
        http_send_head(t->client, &out, end);
}

static void node_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        struct kube_tunnel *t = arg;

        t->node_ended |= end;
        if (!t->client) {
                chain_fini(data);
                return;
        }
        http_send_data(t->client, data, end);
        if (!end && http_send_blocked(t->client))
                http_pause(s);
}

static void node_drain(struct http_stream *s, void *arg)
{
        struct kube_tunnel *t = arg;

        if (t->client)
                http_resume(t->client);
}

static void node_close(struct http_stream *s, void *arg, enum http_reset reset)
{
        struct kube_tunnel *t = arg;

        t->node = NULL;
        refuse(t, t->error ? t->error : t->conn ? http_conn_error(t->conn) : "the connection ended");
        if (t->client && !t->node_ended)
                http_reset(t->client, HTTP_RESET_LOCAL); /* cut short: the client must not take it for the end */
        close_node(t);
        settle(t);
}

static const struct http_stream_ops node_ops = {
        .on_head = node_head, .on_data = node_data, .on_drain = node_drain, .on_close = node_close
};

static void conn_closed(struct http_conn *c, void *arg)
{
        struct kube_tunnel *t = arg;

        t->conn = NULL;
        settle(t);
}

static void conn_connected(struct http_conn *c, void *arg, int err)
{
        struct kube_tunnel *t = arg;

        if (err && !t->error)
                t->error = mem_strdup(http_conn_error(c));
}

static const struct http_conn_ops conn_ops = { .on_connect = conn_connected, .on_close = conn_closed };

/* ---- what to ask ---- */

static bool has_container(const struct pb_node *pod, const char *list, struct str name)
{
        const struct pb_node *l = pb_get_path(pod, list);

        for (size_t i = 0; l && l->kind == PB_LIST && i < l->n; i++)
                if (str_eq(pb_get_str(l->v[i], "name", STR("")), name))
                        return true;
        return false;
}

static struct str container_names(const struct pb_node *pod, struct arena *a)
{
        const struct pb_node *l = pb_get_path(pod, "spec.containers");
        struct buf b = BUF_INIT;

        for (size_t i = 0; l && l->kind == PB_LIST && i < l->n; i++)
                buf_printf(&b, "%s" STR_FMT, i ? " " : "", STR_ARG(pb_get_str(l->v[i], "name", STR(""))));
        struct str out = arena_str(a, buf_view(&b));
        buf_fini(&b);
        return out;
}

static bool pick_container(struct kube_req *r, const struct pb_node *pod, struct str *name)
{
        const struct pb_node *l = pb_get_path(pod, "spec.containers");

        *name = kube_query_get(r->query, "container");
        if (!name->n && l && l->n == 1)
                *name = pb_get_str(l->v[0], "name", STR(""));
        if (!name->n)
                return kube_req_error(r, 400, "BadRequest",
                                      "a container name must be specified for pod " STR_FMT ", choose one of: [" STR_FMT "]",
                                      STR_ARG(r->path.name), STR_ARG(container_names(pod, r->a)));
        if (!has_container(pod, "spec.containers", *name) && !has_container(pod, "spec.initContainers", *name))
                return kube_req_error(r, 400, "BadRequest", "container " STR_FMT " is not valid for pod " STR_FMT, STR_ARG(*name),
                                      STR_ARG(r->path.name));
        return true;
}

/* The query without `container`, which is in the node's path. */
static struct str node_query(const struct kube_req *r)
{
        struct str rest = r->query_text, part;
        struct buf b = BUF_INIT;

        while (rest.n && str_next(&rest, '&', &part))
                if (!str_starts(part, STR("container=")) && part.n)
                        buf_printf(&b, "%c" STR_FMT, b.n ? '&' : '?', STR_ARG(part));
        struct str out = arena_str(r->a, buf_view(&b));
        buf_fini(&b);
        return out;
}

static struct str node_path(struct kube_req *r)
{
        const struct kobj *pod = kube_store_get(r->api->store, kube_b.pods, r->path.ns, r->path.name);
        struct str container = STR("");
        const char *verb = str_eqc(r->path.sub, "log")      ? "containerLogs"
                           : str_eqc(r->path.sub, "exec")   ? "exec"
                           : str_eqc(r->path.sub, "attach") ? "attach"
                                                            : "portForward";

        if (!pod) {
                kube_req_not_found(r, r->res, r->path.name);
                return STR("");
        }
        if (strcmp(verb, "portForward") && !pick_container(r, pod->node, &container))
                return STR("");
        if (!pb_get_str(pod->node, "spec.nodeName", STR("")).n) {
                kube_req_error(r, 400, "BadRequest", "pod " STR_FMT " does not have a host assigned", STR_ARG(r->path.name));
                return STR("");
        }
        if (!r->api->node_socket.n) {
                kube_req_error(r, 503, "ServiceUnavailable", "this server was started without --node-socket: there is no node to ask");
                return STR("");
        }
        struct str phase = pb_get_str(pod->node, "status.phase", STR(""));
        if (strcmp(verb, "containerLogs") && (str_eqc(phase, "Succeeded") || str_eqc(phase, "Failed"))) {
                kube_req_error(r, 500, "InternalError", "cannot %s in or to a pod that has completed; current phase is " STR_FMT,
                               !strcmp(verb, "portForward") ? "port-forward" : verb, STR_ARG(phase));
                return STR("");
        }
        return arena_printf(r->a, "/%s/" STR_FMT "/" STR_FMT "%s" STR_FMT STR_FMT, verb, STR_ARG(r->path.ns), STR_ARG(r->path.name),
                            container.n ? "/" : "", STR_ARG(container), STR_ARG(node_query(r)));
}

/* ---- beginning ---- */

static const struct conn_ops io_ops = { 0 }; /* the HTTP client puts its own in place */

static void ask(struct kube_tunnel *t, const struct http_head *m, struct str path, bool end)
{
        struct http_head out;

        http_head_init(&out, t->call->r.a);
        out.method = m->method;
        out.scheme = STR("http");
        out.authority = STR("node");
        out.path = path;
        out.content_length = m->content_length;
        copy_headers(m, &out, m->protocol.n > 0);
        http_send_head(t->node, &out, end && !m->protocol.n);
}

void kube_tunnel_start(struct kube_call *c, struct http_head *m, bool end)
{
        struct str path = node_path(&c->r);
        struct addr at;

        if (path.n && count(c->s) >= TUNNELS_MAX)
                kube_req_error(&c->r, 429, "TooManyRequests", "no more than %d streams at a time", TUNNELS_MAX);
        else if (path.n && !addr_unix(&at, c->s->api.node_socket))
                kube_req_error(&c->r, 500, "InternalError", "the node socket's path is too long");
        if (c->r.err.code) {
                kube_req_fail(&c->r);
                kube_server_answer(c);
                return;
        }
        struct kube_tunnel *t = MEM_NEW(struct kube_tunnel);
        struct conn_connect_opts o = { .timeout_ms = CONNECT_TIMEOUT_MS };
        t->s = c->s;
        t->call = c;
        t->client = c->stream;
        t->free_task = (struct loop_task){ .fn = on_free, .arg = t };
        t->next = c->s->tunnels;
        t->pprev = &c->s->tunnels;
        if (t->next)
                t->next->pprev = &t->next;
        c->s->tunnels = t;
        http_stream_set_ops(t->client, &client_ops, t);
        t->conn = http_client_h1(conn_connect(c->s->loop, &at, &o, &io_ops, t), NULL, &conn_ops, t);
        t->node = http_client_stream(t->conn, &node_ops, t);
        ask(t, m, path, end);
}

void kube_tunnel_end_all(struct kube_apiserver *s)
{
        struct kube_tunnel *next;

        for (struct kube_tunnel *t = s->tunnels; t; t = next) {
                next = t->next;
                close_node(t);
        }
}
