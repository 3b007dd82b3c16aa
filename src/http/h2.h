/* The inside of an HTTP/2 connection, shared by h2.c (life and death, the socket), h2_recv.c and h2_send.c. */
#ifndef HTTP_H2_H
#define HTTP_H2_H

#include "http/codec.h"

#include <nghttp2/nghttp2.h>

enum { H2_COPY_BYTES = 2048 }; /* smaller DATA is copied, so that it does not pin a slab */

struct h2_stream {
        struct http_stream base;
        struct h2_stream *next, **pprev; /* of the connection's streams, or of its closed ones */
        struct h2_stream *next_ready;
        struct http_head *head, *trailers; /* received */
        struct chain in, out;
        struct http_head *tx_trailers;
        struct str protocol; /* client: of the upgrade asked for */
        size_t head_bytes;
        unsigned head_fields;
        uint8_t why; /* enum http_reset, once closed */
        uint8_t interims;
        bool listed_ready;
        bool announced;              /* server: on_stream was called */
        bool head_ready, head_given; /* given: the final one */
        bool rx_end, end_given;
        bool tx_head, tx_end, tx_done; /* done: END_STREAM is framed */
        bool deferred;                 /* nghttp2 waits for nghttp2_session_resume_data() */
        bool paused, blocked, drained;
        bool closed; /* nghttp2 knows it no more */
        bool remote_reset;
        bool method_head, upgrade;
        bool overflow;
};

struct h2_conn {
        struct http_conn base;
        nghttp2_session *session;
        struct chain in, out;
        struct loop_task task;
        struct h2_stream *streams, *closed, *ready, **ready_end;
        unsigned nstreams;
        uint32_t opened, data_sent, priorities, window_updates, empties;
        bool dead, receiving, connecting, eof;
        bool goaway; /* client: no new streams */
        bool draining, drain_final;
        bool drains; /* some stream's on_drain is due */
};

static inline struct h2_conn *h2_of(struct http_conn *c)
{
        return (struct h2_conn *)c;
}

static inline struct h2_stream *h2_stream_of(struct http_stream *s)
{
        return (struct h2_stream *)s;
}

void h2_schedule(struct h2_conn *c);                /* turn() at the end of the loop's turn */
void h2_kill(struct h2_conn *c, const char *error); /* at the end of the turn */
struct h2_stream *h2_stream_new(struct h2_conn *c);
void h2_set_ready(struct h2_conn *c, struct h2_stream *s);                         /* something is to be told to its owner */
void h2_close_stream(struct h2_conn *c, struct h2_stream *s, enum http_reset why); /* without a word to the peer */
void h2_abort_stream(struct h2_conn *c, struct h2_stream *s, enum http_reset why); /* with RST_STREAM */

/* h2_recv.c */
void h2_recv_callbacks(nghttp2_session_callbacks *cb);
void h2_deliver_all(struct h2_conn *c);
void h2_announce(struct h2_conn *c, struct h2_stream *s); /* server: on_stream, once */
bool h2_all_told(const struct h2_stream *s);

/* h2_send.c */
void h2_send_callbacks(nghttp2_session_callbacks *cb);
void h2_send_head(struct http_stream *hs, const struct http_head *m, bool end);
void h2_send_data(struct http_stream *hs, struct chain *data, bool end);
void h2_send_trailers(struct http_stream *hs, const struct http_head *t);

#endif
