/* Port-forward: each of the client's connections becomes one to 127.0.0.1 (then ::1) inside the pod's own namespace. */
#include "base/log.h"
#include "base/mem.h"
#include "kube/streams.h"
#include "node/kubelet.h"

#include <stdio.h>
#include <stdlib.h>

enum { FORWARD_HIGH_BYTES = 1 << 20, FORWARD_CONNECT_MS = 10000 };

struct forward_session {
        struct node *node;
        struct kube_forward *f;
        char netns[NETNS_PATH_MAX];
};

struct forward_conn {
        struct forward_session *session;
        struct kube_forward_conn *client; /* NULL after its on_close */
        struct conn *pod;
        struct chain to_pod;
        uint16_t port;
        bool v6, connected, client_end, pod_end, shut;
};

static void pod_connect(struct forward_conn *c);

static void to_pod(struct forward_conn *c)
{
        if (!c->connected)
                return;
        enum io_result r = conn_write_chain(c->pod, &c->to_pod);
        if (r == IO_OK && c->client_end && !c->shut)
                c->shut = conn_shutdown_write(c->pod) == IO_OK;
        if (c->client && c->to_pod.n > FORWARD_HIGH_BYTES)
                kube_forward_conn_pause(c->client);
        else if (c->client)
                kube_forward_conn_resume(c->client);
}

static void from_pod(struct forward_conn *c)
{
        while (c->client && !c->pod_end && !kube_forward_conn_blocked(c->client)) {
                struct chain data = CHAIN_INIT;
                size_t n;
                enum io_result r = conn_read_chain(c->pod, &data, 1 << 16, &n);
                if (r == IO_AGAIN)
                        return;
                c->pod_end = r != IO_OK;
                kube_forward_conn_send(c->client, &data, c->pod_end);
        }
}

static void on_pod_connect(struct conn *conn, void *arg, int err)
{
        struct forward_conn *c = arg;

        if (!err) {
                c->connected = true;
                to_pod(c);
                from_pod(c);
                return;
        }
        if (!c->v6) {
                c->v6 = true;
                c->pod = NULL;
                conn_close(conn, false);
                pod_connect(c);
                return;
        }
        char text[160];
        int n = snprintf(text, sizeof(text), "failed to connect to localhost:%u inside the pod: %.100s", c->port, conn_error_text(conn));
        if (c->client)
                kube_forward_conn_fail(c->client, str_make(text, (size_t)n));
}

static void on_pod_readable(struct conn *conn, void *arg)
{
        (void)conn;
        from_pod(arg);
}

static void on_pod_writable(struct conn *conn, void *arg)
{
        (void)conn;
        to_pod(arg);
}

static int pod_connect_inside(void *arg)
{
        static const struct conn_ops ops = { on_pod_connect, on_pod_readable, on_pod_writable };
        struct forward_conn *c = arg;
        struct conn_connect_opts o = { .timeout_ms = FORWARD_CONNECT_MS };
        struct addr to;

        addr_parse_ip(&to, c->v6 ? STR("::1") : STR("127.0.0.1"), c->port);
        c->pod = conn_connect(c->session->node->loop, &to, &o, &ops, c);
        return 0;
}

static void pod_connect(struct forward_conn *c)
{
        if (netns_run(c->session->netns, pod_connect_inside, c) < 0 && c->client)
                kube_forward_conn_fail(c->client, STR("the pod's network namespace is gone"));
}

static void on_client_data(struct kube_forward_conn *client, void *arg, struct chain *data, bool end)
{
        struct forward_conn *c = arg;

        (void)client;
        chain_move(&c->to_pod, data);
        c->client_end |= end;
        to_pod(c);
}

static void on_client_drain(struct kube_forward_conn *client, void *arg)
{
        (void)client;
        from_pod(arg);
}

static void on_client_close(struct kube_forward_conn *client, void *arg)
{
        struct forward_conn *c = arg;

        (void)client;
        c->client = NULL;
        conn_close(c->pod, false);
        chain_fini(&c->to_pod);
        free(c);
}

static void on_connection(struct kube_forward *f, void *arg, struct kube_forward_conn *client, uint16_t port)
{
        static const struct kube_forward_conn_ops ops = { on_client_data, on_client_drain, on_client_close };
        struct forward_conn *c = MEM_NEW(struct forward_conn);

        (void)f;
        *c = (struct forward_conn){ .session = arg, .client = client, .port = port };
        kube_forward_conn_set_ops(client, &ops, c);
        pod_connect(c);
}

static void on_session_close(struct kube_forward *f, void *arg)
{
        (void)f;
        free(arg);
}

void kubelet_forward(struct pod *p, struct http_stream *s, struct http_head *m)
{
        static const struct kube_forward_ops ops = { on_connection, on_session_close };
        struct kube_streams_choice choice;
        struct http_head answer;

        if (!p->network_up) {
                kubelet_refuse(s, 400, "unable to forward port because pod is not running");
                return;
        }
        http_head_init(&answer, http_stream_arena(s));
        if (!kube_streams_negotiate(m, KUBE_PORT_FORWARD, &answer, &choice)) {
                struct chain body = CHAIN_INIT;
                chain_str(&body, choice.text);
                http_answer_head(s, &answer, answer.status, "text/plain", &body);
                return;
        }
        http_send_head(s, &answer, false);
        struct forward_session *x = MEM_NEW(struct forward_session);
        x->node = p->node;
        snprintf(x->netns, sizeof(x->netns), "%s", p->netns);
        x->f = kube_forward_new(s, &choice, &ops, x);
}
