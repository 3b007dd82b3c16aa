/* The inside of an HTTP/1.1 connection, shared by h1.c (the socket, life and death), h1_recv.c and h1_send.c. */
#ifndef HTTP_H1_H
#define HTTP_H1_H

#include "http/codec.h"
#include "http/h1_parse.h"

enum h1_rx {
        RX_HEAD,
        RX_LENGTH, /* rx_left bytes of body to come */
        RX_CHUNKED,
        RX_TRAILERS,
        RX_UNTIL_CLOSE,
        RX_TUNNEL,       /* raw bytes after an upgrade or CONNECT */
        RX_WAIT_UPGRADE, /* server: the message is complete; what follows depends on our answer */
        RX_DONE,
};

enum h1_tx {
        TX_HEAD,
        TX_LENGTH,
        TX_CHUNKED,
        TX_UNTIL_CLOSE,
        TX_WAIT_UPGRADE, /* client: what is sent behind an upgrade or CONNECT is held until it is granted */
        TX_TUNNEL,
        TX_DONE,
};

struct h1_stream {
        struct http_stream base;
        struct http_head *head; /* being received */
        struct h1_parser p;
        struct buf partial; /* of a head or trailer section that did not come in one read */
        struct h1_chunk chunk;
        struct chain held; /* TX_WAIT_UPGRADE */
        uint64_t rx_left, tx_left;
        uint8_t rx, tx; /* enum h1_rx, h1_tx */
        uint8_t reset;  /* enum http_reset, when over by force */
        bool failed;    /* `reset` is set */
        bool paused;
        bool blocked; /* above the high mark */
        bool method_head, method_connect;
        bool no_body;  /* our message may carry none: data is dropped */
        bool http_10;  /* server: the request's version */
        bool end_owed; /* server: an upgrade was not granted: on_data(end) is owed */
        bool held_end;
        uint8_t interims; /* client: 1xx heads so far */
};

struct h1_linger {
        struct loop_timer timer;
        size_t budget;
};

struct h1_conn {
        struct http_conn base;
        struct h1_stream *s; /* the one exchange, or NULL */
        struct chain in, out;
        struct loop_task task;
        struct h1_linger *linger; /* after the last byte is out: waits for the peer to read it */
        bool dead;                /* ended: the task buries it */
        bool io_reset;            /* close with RST */
        bool sniff;               /* server: the HTTP/2 preface may still come */
        bool draining;            /* Connection: close on the next response; no further request */
        bool close_after;         /* when this stream is over */
        bool read_paused;
        bool shut_wanted, shut_done; /* tunnels: our FIN */
        bool connecting;             /* client: on_connect is awaited */
        bool eof;
};

static inline struct h1_conn *h1_of(struct http_conn *c)
{
        return (struct h1_conn *)c;
}

static inline struct h1_stream *h1_stream_of(struct http_stream *s)
{
        return (struct h1_stream *)s;
}

void h1_schedule(struct h1_conn *c);
void h1_kill(struct h1_conn *c, enum http_reset why, const char *error);

struct h1_stream *h1_stream_new(struct h1_conn *c);

/* h1_recv.c */
bool h1_process(struct h1_conn *c); /* parses what has been read; false: c became an HTTP/2 connection */
void h1_give_end(struct h1_stream *s);
void h1_new_head(struct h1_stream *s); /* to receive into */

/* h1_send.c */
void h1_send_head(struct http_stream *s, const struct http_head *m, bool end);
void h1_send_data(struct http_stream *s, struct chain *data, bool end);
void h1_send_trailers(struct http_stream *s, const struct http_head *t);

/* The memory of a connection that may become either. */
size_t h2_conn_bytes(void);
/* Makes an HTTP/2 server of the zeroed memory `mem`; io's ops are set, `first` is taken. */
void h2_server_begin(void *mem, struct conn *io, const struct http_opts *o, const struct http_conn_ops *ops, void *arg,
                     struct chain *first);

#endif
