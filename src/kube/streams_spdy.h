/* SPDY/3.1 framing, server side, as far as kubectl's streams need it. Pure: bytes in, events and bytes out.
 *
 * There is no flow control by WINDOW_UPDATE: kubectl's library neither sends nor obeys it (it would wait for ever); the TCP connection
 * beneath holds both sides back. */
#ifndef KUBE_STREAMS_SPDY_H
#define KUBE_STREAMS_SPDY_H

#include "base/buf.h"
#include "base/chain.h"

#include <zlib.h>

enum { SPDY_STREAMS_MAX = 256, SPDY_DATA_MAX = 1 << 20, SPDY_CONTROL_MAX = 1 << 16, SPDY_HEADERS_MAX = 1 << 16, SPDY_FIN = 1 };

struct spdy_header {
        struct str name, value; /* names lower case */
};

struct spdy_ops {
        /* A stream begins. False refuses it. */
        bool (*on_stream)(void *arg, uint32_t id, const struct spdy_header *h, unsigned n);
        void (*on_data)(void *arg, uint32_t id, struct str data, bool fin);
        void (*on_reset)(void *arg, uint32_t id);
        void (*on_goaway)(void *arg);
};

struct spdy {
        struct buf in;
        struct chain *out; /* frames to send are appended here */
        z_stream inflate, deflate;
        bool broken;
        uint32_t last_id;
};

void spdy_init(struct spdy *s, struct chain *out);
void spdy_fini(struct spdy *s);
/* Takes all of `data`. False when the peer broke the protocol: the connection has to end. */
bool spdy_feed(struct spdy *s, struct chain *data, const struct spdy_ops *ops, void *arg);
void spdy_data(struct spdy *s, uint32_t id, struct chain *data, bool fin); /* takes data; cuts it into frames */
void spdy_reset(struct spdy *s, uint32_t id, uint32_t status);

#endif
