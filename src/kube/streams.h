/* The byte protocols that kubectl exec, attach, cp and port-forward speak after an upgrade, server side: SPDY/3.1 (kubectl before 1.31, and
 * the fallback of later ones), WebSocket channels (v5.channel.k8s.io, v4.channel.k8s.io), and SPDY/3.1 inside a WebSocket
 * (SPDY/3.1+portforward.k8s.io). All run over one http_stream after its 101: the node's, which the API server tunnels to byte for byte.
 *
 *     on_head:  kube_streams_negotiate(m, KUBE_EXEC, &answer, &choice)
 *                 false: answer is a refusal: http_answer_head(s, &answer, answer.status, "text/plain", choice.text)
 *                 true:  http_send_head(s, &answer, false); kube_exec_new(s, &choice, ...)
 *
 * A session takes over the stream's ops and is gone after its on_close, which comes exactly once, deferred. */
#ifndef KUBE_STREAMS_H
#define KUBE_STREAMS_H

#include "http/http.h"

enum kube_streams_kind { KUBE_EXEC /* and attach */, KUBE_PORT_FORWARD };

enum kube_streams_transport { KUBE_SPDY, KUBE_WEBSOCKET, KUBE_SPDY_IN_WEBSOCKET };

struct kube_streams_choice {
        enum kube_streams_kind kind;
        enum kube_streams_transport transport;
        unsigned version; /* of channel.k8s.io: 1 to 5; port-forward: 1 */
        struct str text;  /* refusals: a sentence for the body (static) */
};

/* Decides from an upgrade request's head. True: `answer` is the 101 to send. False: answer->status is the refusal (400, 403) and
 * choice->text says why. `answer` must be initialised (http_head_init) and is filled in; strings live in its arena. */
bool kube_streams_negotiate(const struct http_head *req, enum kube_streams_kind kind, struct http_head *answer,
                            struct kube_streams_choice *choice);

/* --- exec, attach ------------------------------------------------------------------------------------------------------------------ */

struct kube_exec;

struct kube_exec_ops {
        /* The client's streams are all there: start the process. Once. */
        void (*on_ready)(struct kube_exec *e, void *arg);
        /* Takes what is in data. end: the client closed its side of stdin. */
        void (*on_stdin)(struct kube_exec *e, void *arg, struct chain *data, bool end);
        void (*on_resize)(struct kube_exec *e, void *arg, unsigned columns, unsigned rows);
        void (*on_drain)(struct kube_exec *e, void *arg); /* after kube_exec_blocked(): go on writing */
        /* The last call: after kube_exec_finish() when all is sent, or earlier: the client went away (`lost`). */
        void (*on_close)(struct kube_exec *e, void *arg, bool lost);
};

struct kube_exec_opts {
        bool in, out, err, tty;    /* from the request's stdin, stdout, stderr, tty; with tty there is no separate stderr */
        unsigned ready_timeout_ms; /* for the client to open its streams; 0: 30 s */
};

struct kube_exec *kube_exec_new(struct http_stream *s, const struct kube_streams_choice *c, const struct kube_exec_opts *o,
                                const struct kube_exec_ops *ops, void *arg);
void kube_exec_write(struct kube_exec *e, int fd,
                     struct chain *data); /* fd 1 or 2; takes data; dropped when the client did not ask for it */
bool kube_exec_blocked(const struct kube_exec *e);
void kube_exec_pause_stdin(struct kube_exec *e); /* no on_stdin until resumed; the client is held back */
void kube_exec_resume_stdin(struct kube_exec *e);
/* The process ended with this code (128+n: by signal n). Sends the Status and ends the session once everything is out. */
void kube_exec_finish(struct kube_exec *e, int exit_code);
/* It did not start, or something else failed: the text that kubectl prints behind "error: ". */
void kube_exec_fail(struct kube_exec *e, struct str message);
void kube_exec_abort(struct kube_exec *e); /* now; on_close(lost) follows */

/* --- port-forward -------------------------------------------------------------------------------------------------------------------- */

struct kube_forward;      /* the session */
struct kube_forward_conn; /* one forwarded connection, a duplex byte stream */

struct kube_forward_ops {
        /* A client connection to `port`: call kube_forward_conn_set_ops() here. */
        void (*on_connection)(struct kube_forward *f, void *arg, struct kube_forward_conn *c, uint16_t port);
        void (*on_close)(struct kube_forward *f, void *arg); /* the last call, after every connection's on_close */
};

struct kube_forward_conn_ops {
        void (*on_data)(struct kube_forward_conn *c, void *arg, struct chain *data, bool end); /* from the client */
        void (*on_drain)(struct kube_forward_conn *c, void *arg);
        void (*on_close)(struct kube_forward_conn *c, void *arg); /* the last call */
};

struct kube_forward *kube_forward_new(struct http_stream *s, const struct kube_streams_choice *c, const struct kube_forward_ops *ops,
                                      void *arg);
void kube_forward_abort(struct kube_forward *f);

void kube_forward_conn_set_ops(struct kube_forward_conn *c, const struct kube_forward_conn_ops *ops, void *arg);
void kube_forward_conn_send(struct kube_forward_conn *c, struct chain *data, bool end); /* takes data */
bool kube_forward_conn_blocked(const struct kube_forward_conn *c);
void kube_forward_conn_pause(struct kube_forward_conn *c);
void kube_forward_conn_resume(struct kube_forward_conn *c);
/* The text goes to the error stream and the connection ends: "dial tcp4 127.0.0.1:81: connect: connection refused". */
void kube_forward_conn_fail(struct kube_forward_conn *c, struct str message);

#endif
