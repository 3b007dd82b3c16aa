/* gRPC over HTTP/2: length-prefixed messages, deadlines, status in trailers. One call is one stream; unary calls are streams with one
 * message each way. No compression: the peer is told so, and a compressed message ends the call with INTERNAL.
 *
 * A call is gone after on_end: drop the pointer then. on_end comes exactly once, deferred, also after grpc_cancel() and grpc_finish(). */
#ifndef HTTP_GRPC_H
#define HTTP_GRPC_H

#include "http/http.h"

enum grpc_status {
        GRPC_OK = 0,
        GRPC_CANCELLED = 1,
        GRPC_UNKNOWN = 2,
        GRPC_INVALID_ARGUMENT = 3,
        GRPC_DEADLINE_EXCEEDED = 4,
        GRPC_NOT_FOUND = 5,
        GRPC_ALREADY_EXISTS = 6,
        GRPC_PERMISSION_DENIED = 7,
        GRPC_RESOURCE_EXHAUSTED = 8,
        GRPC_FAILED_PRECONDITION = 9,
        GRPC_ABORTED = 10,
        GRPC_OUT_OF_RANGE = 11,
        GRPC_UNIMPLEMENTED = 12,
        GRPC_INTERNAL = 13,
        GRPC_UNAVAILABLE = 14,
        GRPC_DATA_LOSS = 15,
        GRPC_UNAUTHENTICATED = 16,
};

const char *grpc_status_name(int status); /* "UNAVAILABLE"; "UNKNOWN" for numbers outside the table */

struct grpc_call;

struct grpc_ops {
        /* One whole message; `msg` is valid during the call only. */
        void (*on_message)(struct grpc_call *g, void *arg, struct str msg);
        /* Server: the client sends no more (half-closed). Answer, then grpc_finish(). May be NULL on a client, where it never comes. */
        void (*on_half_close)(struct grpc_call *g, void *arg);
        /* Sending is possible again after grpc_blocked(). May be NULL. */
        void (*on_drain)(struct grpc_call *g, void *arg);
        /* The last call. Client: the server's status, or one made up for a broken stream or connection (UNAVAILABLE, CANCELLED,
         * INTERNAL...) with `text` saying what happened. Server: OK when our status went out, CANCELLED when the client went away before.
         */
        void (*on_end)(struct grpc_call *g, void *arg, int status, struct str text);
};

struct grpc_opts {
        size_t max_message_bytes;       /* received; 0: 64 MiB; larger ends the call with RESOURCE_EXHAUSTED */
        unsigned timeout_ms;            /* client: sent as grpc-timeout and enforced here; 0: none */
        const struct http_hdr *headers; /* client: further request headers (names in lower case) */
        unsigned nheaders;
};

/* A client call on an HTTP/2 client connection: `path` is "/package.Service/Method", `authority` the server's name. NULL when the
 * connection takes no new stream now. */
struct grpc_call *grpc_call_new(struct http_conn *c, struct str authority, struct str path, const struct grpc_opts *o,
                                const struct grpc_ops *ops, void *arg);
void grpc_call_half_close(struct grpc_call *g); /* client: no more messages from us */

/* Server: takes over a stream from its on_head, with that call's m and end. Anything but a POST with content-type application/grpc is
 * answered (415, 405) and NULL returned: the stream is then no longer the caller's concern. */
struct grpc_call *grpc_accept(struct http_stream *s, const struct http_head *m, bool end, const struct grpc_opts *o,
                              const struct grpc_ops *ops, void *arg);
/* Server: ends the call. Nothing may be sent after it. */
void grpc_finish(struct grpc_call *g, int status, struct str text);

void grpc_send(struct grpc_call *g, struct str msg); /* one message, copied */
bool grpc_blocked(const struct grpc_call *g);        /* above the high mark: wait for on_drain */
size_t grpc_unsent(const struct grpc_call *g);
void grpc_pause(struct grpc_call *g); /* no on_message until grpc_resume(); the window closes on the peer meanwhile */
void grpc_resume(struct grpc_call *g);
void grpc_cancel(struct grpc_call *g); /* resets the stream; on_end(CANCELLED) follows */
/* A header of the call: server: the request's; client: the response's (NULL before it came). */
struct http_hdr *grpc_metadata(const struct grpc_call *g, struct str lower_name);
struct http_conn *grpc_conn(const struct grpc_call *g);

#endif
