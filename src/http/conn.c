/* http.h's functions: each goes to the codec that made the stream or the connection. And what the codecs share. */
#include "http/codec.h"

#include "http/simple.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

const struct http_stream_ops http_ops_ignore = { 0 };

void http_opts_defaults(struct http_opts *o)
{
        if (!o->max_head_bytes)
                o->max_head_bytes = 60 * 1024;
        if (!o->max_headers)
                o->max_headers = 100;
        if (!o->high_mark)
                o->high_mark = 1024 * 1024;
        if (!o->low_mark || o->low_mark >= o->high_mark)
                o->low_mark = o->high_mark / 2;
        if (!o->h2_max_streams)
                o->h2_max_streams = 1024;
        if (!o->h2_initial_window)
                o->h2_initial_window = 256 * 1024;
        if (!o->h2_conn_window)
                o->h2_conn_window = 1024 * 1024;
}

void http_conn_init(struct http_conn *c, const struct http_codec *codec, struct conn *io, bool server, const struct http_opts *o,
                    const struct http_conn_ops *ops, void *arg)
{
        c->magic = HTTP_CONN_MAGIC;
        c->server = server;
        c->codec = codec;
        c->io = io;
        c->loop = conn_loop(io);
        c->ops = ops;
        c->arg = arg;
        c->error = NULL;
        c->o = o ? *o : (struct http_opts){ 0 };
        http_opts_defaults(&c->o);
}

/* ---- recycled streams ---- */

enum { POOLS = 2, KEEP_STREAMS = 64, KEEP_ARENA_BYTES = 8192, ARENA_BYTES = 4096 };

struct spare {
        struct spare *next;
};

/* The link overlays the stream's first bytes; its arena stays. */
static _Thread_local struct {
        struct spare *first;
        unsigned n;
} pools[POOLS];

struct http_stream *http_stream_get(struct http_conn *c, unsigned pool, size_t bytes)
{
        struct http_stream *s = (struct http_stream *)(void *)pools[pool].first;
        struct arena a;

        if (s) {
                pools[pool].first = pools[pool].first->next;
                pools[pool].n--;
                a = s->arena;
        } else {
                s = mem_alloc(bytes);
                arena_init(&a, ARENA_BYTES);
        }
        memset((void *)s, 0, bytes);
        s->magic = HTTP_STREAM_MAGIC;
        s->c = c;
        s->ops = &http_ops_ignore;
        s->arena = a;
        return s;
}

void http_stream_put(struct http_stream *s, unsigned pool)
{
        s->magic = 0;
        if (pools[pool].n >= KEEP_STREAMS) {
                arena_fini(&s->arena);
                free(s);
                return;
        }
        arena_reset(&s->arena);
        if (s->arena.end - s->arena.cur > KEEP_ARENA_BYTES)
                arena_fini(&s->arena);
        struct spare *f = (struct spare *)(void *)s;

        f->next = pools[pool].first;
        pools[pool].first = f;
        pools[pool].n++;
}

void http_thread_fini(void)
{
        for (unsigned i = 0; i < POOLS; i++) {
                while (pools[i].first) {
                        struct http_stream *s = (struct http_stream *)(void *)pools[i].first;

                        pools[i].first = pools[i].first->next;
                        arena_fini(&s->arena);
                        free(s);
                }
                pools[i].n = 0;
        }
}

bool http_io_open(struct conn *io)
{
        return conn_fd(io) >= 0 || conn_tls_info(io);
}

static void check_stream(const struct http_stream *s)
{
        if (s->magic != HTTP_STREAM_MAGIC)
                __builtin_trap();
}

static void check_conn(const struct http_conn *c)
{
        if (c->magic != HTTP_CONN_MAGIC)
                __builtin_trap();
}

void http_send_head(struct http_stream *s, const struct http_head *m, bool end)
{
        check_stream(s);
        s->c->codec->send_head(s, m, end);
}

void http_send_data(struct http_stream *s, struct chain *data, bool end)
{
        check_stream(s);
        s->c->codec->send_data(s, data, end);
        chain_fini(data);
}

void http_send_trailers(struct http_stream *s, const struct http_head *t)
{
        check_stream(s);
        s->c->codec->send_trailers(s, t);
}

void http_reset(struct http_stream *s, enum http_reset why)
{
        check_stream(s);
        s->c->codec->reset(s, why);
}

size_t http_unsent(const struct http_stream *s)
{
        check_stream(s);
        return s->c->codec->unsent(s);
}

bool http_send_blocked(const struct http_stream *s)
{
        check_stream(s);
        return s->c->codec->blocked(s);
}

void http_pause(struct http_stream *s)
{
        check_stream(s);
        s->c->codec->pause(s, true);
}

void http_resume(struct http_stream *s)
{
        check_stream(s);
        s->c->codec->pause(s, false);
}

struct arena *http_stream_arena(struct http_stream *s)
{
        check_stream(s);
        return &s->arena;
}

struct http_conn *http_stream_conn(struct http_stream *s)
{
        check_stream(s);
        return s->c;
}

void http_stream_set_ops(struct http_stream *s, const struct http_stream_ops *ops, void *arg)
{
        check_stream(s);
        s->ops = ops;
        s->arg = arg;
}

uint32_t http_stream_id(const struct http_stream *s)
{
        check_stream(s);
        return s->id;
}

struct http_stream *http_client_stream(struct http_conn *c, const struct http_stream_ops *ops, void *arg)
{
        check_conn(c);
        assert(!c->server);
        struct http_stream *s = c->codec->new_stream(c);

        if (s)
                http_stream_set_ops(s, ops, arg);
        return s;
}

bool http_client_can_stream(const struct http_conn *c)
{
        check_conn(c);
        return c->codec->can_stream(c);
}

unsigned http_conn_streams(const struct http_conn *c)
{
        check_conn(c);
        return c->codec->streams(c);
}

enum http_version http_conn_version(const struct http_conn *c)
{
        check_conn(c);
        return c->codec->version;
}

void http_conn_drain(struct http_conn *c)
{
        check_conn(c);
        c->codec->drain(c);
}

void http_conn_close(struct http_conn *c)
{
        check_conn(c);
        c->codec->close(c);
}

struct conn *http_conn_io(struct http_conn *c)
{
        check_conn(c);
        return c->io;
}

const char *http_conn_error(const struct http_conn *c)
{
        check_conn(c);
        return c->error ? c->error : "";
}
