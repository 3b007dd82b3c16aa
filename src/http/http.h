/* HTTP messages and streams, the same for HTTP/1.1 and HTTP/2, server and client. This is the seam between codecs (h1.c, h2.c) and
 * everything that speaks HTTP: the proxy, the API server, the xDS client and server, the admin port.
 *
 * A connection owns its streams. A stream is one request and its response. The codec calls the stream's ops; the owner calls
 * http_send_*(). Calls may be made from inside callbacks. A stream is gone after on_close: the owner must drop its pointer then, and
 * on_close comes exactly once for every stream (never from inside the owner's own call: it is deferred). */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include "base/arena.h"
#include "base/chain.h"
#include "net/conn.h"

/* Header names that code asks for by number; http_names.def lists them: X(id, "wire-name"). 0 is every other name. */
enum http_name {
        HN_OTHER,
#define X(id, wire) HN_##id,
#include "http/http_names.def"
#undef X
        HN_COUNT
};

struct http_hdr {
        struct str name; /* lower case */
        struct str value;
        uint16_t id;    /* enum http_name */
        uint16_t flags; /* HTTP_HDR_* */
};

enum { HTTP_HDR_NEVER_INDEX = 1 };

enum http_version { HTTP_1_0, HTTP_1_1, HTTP_2 };

/* A header block, with what HTTP/2 calls pseudo-headers as fields. Strings live in `arena`, or are static, or in memory that
 * outlives the block. Order and duplicates are kept. */
struct http_head {
        struct arena *arena;
        struct str method, scheme, authority, path; /* requests; authority carries the Host header, which is not in h[] */
        struct str protocol;                        /* extended CONNECT (RFC 8441), or HTTP/1.1 Upgrade's first token when the
                                                     * message asks for (request) or grants (101) an upgrade */
        int status;                                 /* responses */
        enum http_version version;                  /* as received */
        struct http_hdr *h;
        unsigned n, cap;
        int64_t content_length; /* -1: not given */
        bool no_body;           /* as received: nothing follows (same as `end`) */
};

void http_head_init(struct http_head *m, struct arena *a);
enum http_name http_name_id(struct str lower_name);
struct str http_name_text(enum http_name id);
struct http_hdr *http_get(const struct http_head *m, enum http_name id);          /* first, or NULL */
struct http_hdr *http_get_name(const struct http_head *m, struct str lower_name); /* first, or NULL */
void http_add(struct http_head *m, enum http_name id, struct str value);          /* value must outlive m; copy with arena_str */
void http_add_name(struct http_head *m, struct str lower_name, struct str value);
void http_set(struct http_head *m, enum http_name id, struct str value); /* replaces all */
void http_set_name(struct http_head *m, struct str lower_name, struct str value);
unsigned http_remove(struct http_head *m, enum http_name id);
unsigned http_remove_name(struct http_head *m, struct str lower_name);

struct http_stream;
struct http_conn;

enum http_reset {
        HTTP_RESET_NONE,
        HTTP_RESET_LOCAL,       /* we gave up */
        HTTP_RESET_REMOTE,      /* RST_STREAM by the peer */
        HTTP_RESET_REFUSED,     /* REFUSED_STREAM, or beyond GOAWAY's last id: not processed, safe to retry */
        HTTP_RESET_PROTOCOL,    /* the peer broke the protocol; http_conn_error() says how */
        HTTP_RESET_CONN_CLOSED, /* connection ended under it */
        HTTP_RESET_CONN_FAILED, /* ... with an error, or never came up */
        HTTP_RESET_OVERFLOW,    /* headers beyond the limits */
};

struct http_stream_ops {
        /* Server: the request. Client: a response; interim ones (1xx but 101) come first, each through on_head with end false.
         * m lives in the stream's arena until on_close. */
        void (*on_head)(struct http_stream *s, void *arg, struct http_head *m, bool end);
        /* Body bytes: the callee takes what is in `data` (chain_move) or drops it. end: the message is complete. */
        void (*on_data)(struct http_stream *s, void *arg, struct chain *data, bool end);
        void (*on_trailers)(struct http_stream *s, void *arg, struct http_head *t); /* the message is complete */
        void (*on_drain)(struct http_stream *s, void *arg); /* what was queued to send fell to the low mark: go on sending */
        /* The last call. reset NONE: both directions ended properly. */
        void (*on_close)(struct http_stream *s, void *arg, enum http_reset reset);
};

/* Sending. `m` is serialised before the call returns. After an `end` nothing more may be sent. On an HTTP/1.1 connection the codec adds
 * Connection, Content-Length (from m->content_length, which `end` with -1 makes 0 where the method or status calls for one) and
 * Transfer-Encoding itself, and drops these and other connection-specific fields from m (RFC 9110 §7.6.1), except to carry an upgrade
 * that m->protocol names. Sending to a stream that was reset is allowed and does nothing. */
void http_send_head(struct http_stream *s, const struct http_head *m, bool end); /* also interim 1xx, with end false */
void http_send_data(struct http_stream *s, struct chain *data, bool end);        /* takes all of data */
void http_send_trailers(struct http_stream *s, const struct http_head *t);
void http_reset(struct http_stream *s, enum http_reset why); /* LOCAL, REFUSED, PROTOCOL, OVERFLOW; HTTP/1.1: closes the connection */
size_t http_unsent(const struct http_stream *s);             /* bytes queued and not yet given to the kernel, this stream's */
bool http_send_blocked(const struct http_stream *s);         /* above the high mark: wait for on_drain */

/* Flow control towards the peer: no on_data after pause until resume. (HTTP/2: the window is not given back meanwhile.) */
void http_pause(struct http_stream *s);
void http_resume(struct http_stream *s);

struct arena *http_stream_arena(struct http_stream *s);
struct http_conn *http_stream_conn(struct http_stream *s);
void http_stream_set_ops(struct http_stream *s, const struct http_stream_ops *ops, void *arg);
uint32_t http_stream_id(const struct http_stream *s);

/* Options with Envoy's names and defaults (Http1ProtocolOptions, Http2ProtocolOptions). All sizes in bytes. Copied by the connection;
 * NULL: all defaults. */
struct http_opts {
        size_t max_head_bytes;      /* 0: 61440 (60 KiB) requests and responses */
        unsigned max_headers;       /* 0: 100 */
        size_t high_mark, low_mark; /* per stream send buffer; 0: 1 MiB and half of it */
        bool accept_http_10;        /* server: answer HTTP/1.0, otherwise 426 */
        bool absolute_url;          /* server h1: accept absolute-form (RFC 9112 §3.2.2); the scheme and authority come from it */
        uint32_t h2_max_streams;    /* 0: 1024 server */
        uint32_t h2_initial_window, h2_conn_window; /* 0: 256 KiB and 1 MiB */
        bool h2_connect_protocol;                   /* RFC 8441 */
        bool keep_header_case;                      /* h1 sending: Title-Case instead of lower case ("Proper-Case-Words") */
        bool custom_methods;                        /* server h1: methods beyond the registered ones that Envoy knows, otherwise 400 */
};

struct http_conn_ops {
        /* Server: a request begins: its first byte is here (HTTP/2: its HEADERS frame). Set the stream's ops here with
         * http_stream_set_ops(); arm a timer for its head. A request that turns out to be broken gets on_refused and on_close(PROTOCOL or
         * OVERFLOW) without an on_head. */
        void (*on_stream)(struct http_conn *c, void *arg, struct http_stream *s);
        /* Client: the peer takes no new streams (GOAWAY, Connection: close, EOF); existing ones go on. Server: peer said GOAWAY. */
        void (*on_goaway)(struct http_conn *c, void *arg);
        /* Server: the last open stream ended; for idle timeouts and drain. Client: the same. */
        void (*on_idle)(struct http_conn *c, void *arg);
        /* The last call; the connection's memory goes at the end of the turn. All streams have had on_close. */
        void (*on_close)(struct http_conn *c, void *arg);
        /* Server: a request that the codec itself refuses (400, 431, 426, ...), before it answers; for access logs and counters.
         * `details` is Envoy's string, such as "http1.codec_error" or "low_version". The owner may answer here in its own way, with
         * http_send_head() and so on; else the codec sends `status` with its reason as text/plain. The connection closes after it
         * (HTTP/2: a broken stream is only reset, and `status` is 0). May be NULL. */
        void (*on_refused)(struct http_conn *c, void *arg, struct http_stream *s, int status, const char *details);
        /* Client made before its connection was up: it is now (err 0), or it failed: http_conn_error() says why, and on_close follows.
         * May be NULL. Not called when the connection was up already. */
        void (*on_connect)(struct http_conn *c, void *arg, int err);
};

/* Take over an established connection (conn_set_ops is called; c is owned from now on). `first` may hold bytes already read. */
struct http_conn *http_server_h1(struct conn *c, const struct http_opts *o, const struct http_conn_ops *ops, void *arg,
                                 struct chain *first);
struct http_conn *http_server_h2(struct conn *c, const struct http_opts *o, const struct http_conn_ops *ops, void *arg,
                                 struct chain *first);
/* Looks at the first bytes: the HTTP/2 preface (RFC 9113 §3.4) or HTTP/1; with TLS, ALPN decides. Envoy's codec AUTO. */
struct http_conn *http_server_auto(struct conn *c, const struct http_opts *o, const struct http_conn_ops *ops, void *arg,
                                   struct chain *first);
/* Clients may be made before the connection is up (right after conn_connect()): streams may begin and wait. */
struct http_conn *http_client_h1(struct conn *c, const struct http_opts *o, const struct http_conn_ops *ops, void *arg);
struct http_conn *http_client_h2(struct conn *c, const struct http_opts *o, const struct http_conn_ops *ops, void *arg);

/* A new request on a client connection; NULL when it takes none now (h1: one at a time; h2: the peer's MAX_CONCURRENT_STREAMS; after
 * goaway). */
struct http_stream *http_client_stream(struct http_conn *c, const struct http_stream_ops *ops, void *arg);
bool http_client_can_stream(const struct http_conn *c);
unsigned http_conn_streams(const struct http_conn *c); /* open now */
enum http_version http_conn_version(const struct http_conn *c);
/* Graceful end: GOAWAY (h2: first with the highest id, then for real after a round trip), or Connection: close on the next response;
 * closes when the last stream ends. */
void http_conn_drain(struct http_conn *c);
void http_conn_close(struct http_conn *c); /* now; streams get on_close(LOCAL) */
struct conn *http_conn_io(struct http_conn *c);
const char *http_conn_error(const struct http_conn *c); /* why it ended, or "" */

/* Frees what the codecs keep for reuse on this thread. At thread exit. */
void http_thread_fini(void);

#endif
