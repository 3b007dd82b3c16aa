/* What exec and port-forward share: one upgraded http_stream, spoken to through a WebSocket, SPDY, or SPDY inside a WebSocket. */
#ifndef KUBE_STREAMS_PRIVATE_H
#define KUBE_STREAMS_PRIVATE_H

#include "kube/streams.h"
#include "kube/streams_spdy.h"
#include "kube/streams_ws.h"

struct pipe_ops {
        void (*on_channel)(void *arg, struct str message); /* WebSocket channels: a data message with its channel byte */
        const struct spdy_ops *spdy;                       /* SPDY in any wrapping */
        void (*on_drain)(void *arg);
        void (*on_lost)(void *arg);  /* the peer ended its side, or broke the protocol: nothing more comes */
        void (*on_close)(void *arg); /* the last call */
};

struct pipe {
        struct http_stream *stream; /* NULL after its on_close */
        struct loop *loop;
        enum kube_streams_transport transport;
        const struct pipe_ops *ops;
        void *arg;
        struct ws ws;
        struct spdy spdy;
        struct chain out; /* SPDY frames on their way into `stream` or a WebSocket message */
        bool ended;       /* we sent the end */
        bool lost;
        struct loop_timer linger;
};

void pipe_start(struct pipe *p, struct http_stream *s, enum kube_streams_transport t, const struct pipe_ops *ops, void *arg);
void pipe_flush(struct pipe *p);                                           /* after spdy_*() calls that did not come from a callback */
void pipe_channel(struct pipe *p, uint8_t channel, struct chain *payload); /* a WebSocket message; takes payload */
void pipe_end(struct pipe *p); /* close frame, then FIN; a peer that does not answer is cut off */
void pipe_abort(struct pipe *p);
#endif
