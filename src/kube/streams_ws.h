/* WebSocket framing (RFC 6455), server side, as far as channel protocols need it. Pure: bytes in, messages and frames out. */
#ifndef KUBE_STREAMS_WS_H
#define KUBE_STREAMS_WS_H

#include "base/buf.h"
#include "base/chain.h"

enum ws_opcode { WS_CONTINUATION = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

enum { WS_MESSAGE_MAX = 4 << 20, WS_OK = 1000, WS_PROTOCOL_ERROR = 1002, WS_TOO_BIG = 1009 };

struct ws {
        struct buf in;      /* bytes of an incomplete frame */
        struct buf message; /* fragments so far */
        bool in_message;
        bool closed; /* a close frame came */
};

/* Called for each whole data message, and for pings (opcode WS_PING: answer with a pong) and the close frame. */
typedef void ws_fn(void *arg, enum ws_opcode op, struct str payload);

/* Takes all of `data`. 0, or the close code of what the peer did wrong. */
int ws_feed(struct ws *w, struct chain *data, ws_fn *fn, void *arg);
void ws_fini(struct ws *w);
/* Appends a whole frame of `prefix` (n bytes, at most 8) and the payload, which is taken. */
void ws_frame(struct chain *out, enum ws_opcode op, const void *prefix, size_t nprefix, struct chain *payload);
void ws_close_frame(struct chain *out, int code);
/* Sec-WebSocket-Accept for a key (RFC 6455 §4.2.2): 28 characters and a NUL. */
void ws_accept(struct str key, char out[29]);

#endif
