/* One connection with a codec on one end and the fuzzer's bytes on the other. */
#ifndef FUZZ_HTTP_PEER_H
#define FUZZ_HTTP_PEER_H

#include "http/simple.h"
#include "net/loop.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static struct http_conn *peer_conn;
static unsigned peer_begun, peer_ended;

static void peer_count_end(struct http_stream *s, void *arg, enum http_reset why)
{
        peer_ended++;
}

/* Every request is answered with its own body and trailers. */
static void peer_on_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct http_head h;

        http_head_init(&h, http_stream_arena(s));
        h.status = m->protocol.n ? 101 : 200;
        h.protocol = m->protocol;
        h.content_length = m->content_length;
        http_send_head(s, &h, end && m->content_length <= 0 && !m->protocol.n);
}

static void peer_on_data(struct http_stream *s, void *arg, struct chain *d, bool end)
{
        http_send_data(s, d, end);
}

static void peer_on_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        http_send_trailers(s, t);
}

static const struct http_stream_ops peer_stream_ops = {
        .on_head = peer_on_head,
        .on_data = peer_on_data,
        .on_trailers = peer_on_trailers,
        .on_close = peer_count_end,
};
static const struct http_stream_ops peer_client_ops = { .on_close = peer_count_end };

static void peer_on_stream(struct http_conn *c, void *arg, struct http_stream *s)
{
        peer_begun++;
        http_stream_set_ops(s, &peer_stream_ops, NULL);
}

static void peer_on_close(struct http_conn *c, void *arg)
{
        peer_conn = NULL;
}

static const struct http_conn_ops peer_ops = { .on_stream = peer_on_stream, .on_close = peer_on_close };
static const struct conn_ops peer_no_ops;

/* Opens a socket pair; the fuzzer's end is *fd. */
static struct conn *peer_open(struct loop *l, int *fd)
{
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds))
                abort();
        *fd = fds[1];
        return conn_accepted(l, fds[0], NULL, NULL, &peer_no_ops, NULL);
}

static void peer_turns(struct loop *l, int n)
{
        while (n--)
                loop_turn(l, 0);
}

/* Sends everything in pieces of `step`, reads what comes back, ends; every stream must have ended by then. */
static void peer_feed(struct loop *l, int fd, const uint8_t *d, size_t n, size_t step)
{
        char t[4096];

        while (n && peer_conn) {
                ssize_t k = send(fd, d, n < step ? n : step, MSG_NOSIGNAL);

                peer_turns(l, 2);
                while (recv(fd, t, sizeof(t), 0) > 0)
                        ;
                if (k > 0) {
                        d += k;
                        n -= (size_t)k;
                } else {
                        break;
                }
        }
        peer_turns(l, 4);
        close(fd);
        peer_turns(l, 4);
        if (peer_conn)
                http_conn_close(peer_conn);
        peer_turns(l, 4);
        if (peer_conn || peer_begun != peer_ended)
                abort();
        peer_begun = peer_ended = 0;
}

#endif
