/* A client and a server of either protocol on the two ends of a socket pair, in one loop; a server that behaves by path. */
#ifndef TEST_HTTP_EXCHANGE_H
#define TEST_HTTP_EXCHANGE_H

#include "base/buf.h"
#include "base/mem.h"
#include "http/simple.h"
#include "net/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { TURNS_MAX = 20000 };

struct pair {
        struct loop *loop;
        bool h2;
        struct http_conn *client, *server;
        int raw; /* the other end, when only one is a codec */
        unsigned client_closed, server_closed, idle, goaway, refused, server_streams, server_ended;
        int refused_status;
        char refused_details[64];
        struct http_opts opts;
        bool server_paused; /* streams begin paused */
        size_t server_got;
        enum http_reset server_reset;
        struct http_stream *server_stream;
};

/* One request seen from the client. */
struct call {
        struct http_stream *s;
        int status, interims;
        bool end, closed, has_trailers;
        enum http_reset reset;
        struct buf body, headers, trailers;
        unsigned heads;
        bool accept_pause;
        size_t drains;
        char protocol[32];
};

void pair_open(struct pair *p, bool h2);          /* both ends; p->opts may be set before */
void pair_open_server(struct pair *p, int which); /* 0 h1, 1 h2, 2 auto; the client end is p->raw */
void pair_open_client(struct pair *p, bool h2);   /* the server end is p->raw */
void pair_close(struct pair *p);
void pair_until(struct pair *p, bool *flag); /* turns until *flag; fails after too many */
void pair_settle(struct pair *p);            /* turns until nothing happens */

void call_begin(struct pair *p, struct call *c, const char *method, const char *path, int64_t content_length, bool end,
                const char *extra_name, const char *extra_value);
void call_send(struct call *c, const char *text, bool end);
void call_free(struct call *c);

/* Raw bytes: send, and read what is there after the loop settled. */
void raw_send(struct pair *p, const char *wire, size_t n);
struct str raw_read(struct pair *p, struct buf *b);

#endif
