/* What the codecs share: the common beginnings of connections and streams, and the table through which http.h's functions reach the
 * codec that made them. For the files of this folder only. */
#ifndef HTTP_CODEC_H
#define HTTP_CODEC_H

#include "http/http.h"

struct http_codec {
        void (*send_head)(struct http_stream *s, const struct http_head *m, bool end);
        void (*send_data)(struct http_stream *s, struct chain *data, bool end);
        void (*send_trailers)(struct http_stream *s, const struct http_head *t);
        void (*reset)(struct http_stream *s, enum http_reset why);
        void (*pause)(struct http_stream *s, bool on);
        size_t (*unsent)(const struct http_stream *s);
        bool (*blocked)(const struct http_stream *s);
        struct http_stream *(*new_stream)(struct http_conn *c);
        bool (*can_stream)(const struct http_conn *c);
        unsigned (*streams)(const struct http_conn *c);
        void (*drain)(struct http_conn *c);
        void (*close)(struct http_conn *c);
        enum http_version version;
};

enum { HTTP_CONN_MAGIC = 0x68747063, HTTP_STREAM_MAGIC = 0x68747073 };

struct http_conn {
        uint32_t magic;
        bool server;
        const struct http_codec *codec;
        struct conn *io;
        struct loop *loop;
        const struct http_conn_ops *ops;
        void *arg;
        const char *error;  /* static, or io's text, or NULL */
        struct http_opts o; /* every default filled in */
};

struct http_stream {
        uint32_t magic;
        uint32_t id;
        struct http_conn *c;
        const struct http_stream_ops *ops;
        void *arg;
        struct arena arena;
};

void http_conn_init(struct http_conn *c, const struct http_codec *codec, struct conn *io, bool server, const struct http_opts *o,
                    const struct http_conn_ops *ops, void *arg);
void http_opts_defaults(struct http_opts *o);
bool http_io_open(struct conn *io); /* connected, and the handshake done */

/* Streams are recycled by thread, each with its arena's first block: `pool` is 0 for HTTP/1.1, 1 for HTTP/2, each of one size. The memory
 * is zeroed but for the arena; ops are those that ignore everything. */
struct http_stream *http_stream_get(struct http_conn *c, unsigned pool, size_t bytes);
void http_stream_put(struct http_stream *s, unsigned pool);

/* Field names that a message may not carry from one connection to the next (RFC 9110 §7.6.1), and those that the codec writes itself. */
bool http_name_is_hop(enum http_name id);
/* Drops the fields that m's Connection field nominates, as received. Fields that a proxy relies on cannot be nominated away: they stay. */
void http_drop_nominated(struct http_head *m);
/* Does the comma-separated list `v` hold `token` (case-insensitive)? */
bool http_list_has(struct str v, struct str token);
/* Is `a` a plausible authority (RFC 3986 §3.2 without userinfo)? Envoy's check. */
bool http_authority_ok(struct str a);

#endif
