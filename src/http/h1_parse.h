/* HTTP/1.1 message syntax (RFC 9112), strictly: bytes in, a head or chunk boundaries out. No I/O and no connection here.
 *
 * The parser works on a contiguous run of bytes that begins with the message, and is fed the same run again, longer, until it is done.
 * Whole lines are parsed once; a line that has not ended is only searched for its end. Everything that two recipients could read
 * differently is refused: bare CR or LF, line folding, space before the colon, control bytes, more than one framing. */
#ifndef HTTP_H1_PARSE_H
#define HTTP_H1_PARSE_H

#include "http/http.h"

enum h1_result { H1_MORE, H1_DONE, H1_FAIL };

enum h1_kind { H1_REQUEST, H1_RESPONSE, H1_TRAILERS };

struct h1_limits {
        size_t max_bytes;
        unsigned max_headers;
        bool accept_http_10;
        bool custom_methods;
};

/* A head in the making. Offsets are from the start of the run. */
struct h1_parser {
        enum h1_kind kind;
        bool first_done; /* the request or status line is parsed */
        bool chunked, te_seen;
        bool close, keep_alive;  /* Connection: close, keep-alive */
        bool connection_upgrade; /* Connection: upgrade */
        bool nominates;          /* Connection names fields of this hop only */
        bool host_seen;
        uint8_t blank_lines; /* before a request line */
        enum http_version version;
        int status;
        size_t at;      /* start of the first line that is not parsed; on DONE the head's length */
        size_t scanned; /* no LF from `at` up to here */
        size_t target_off, target_n;
        int64_t content_length; /* -1: none */
        struct str upgrade;     /* first token of Upgrade, as offset until DONE */
        /* FAIL: how the server answers, and Envoy's name for it. */
        int answer;
        const char *details;
};

void h1_parser_init(struct h1_parser *p, enum h1_kind kind);

/* Parses on. `base[0..n)` must begin with the same bytes as in the call before; names are lower-cased in place. Fields go to m->h with
 * offsets for pointers until DONE: then copy the first p->at bytes to where they stay and call h1_parser_finish() with that place.
 * For H1_TRAILERS the run begins behind the last chunk. */
enum h1_result h1_parse(struct h1_parser *p, const struct h1_limits *l, char *base, size_t n, struct http_head *m);

/* Turns offsets into pointers and fills in method, authority, path, scheme, protocol, status, content_length. False: the target or the
 * authority is refused, with p->answer and p->details set. `secure` gives the scheme of origin-form targets. */
bool h1_parser_finish(struct h1_parser *p, char *base, struct http_head *m, bool absolute_url, bool secure);

/* ---- chunked coding (RFC 9112 §7.1) ---- */

enum h1_chunk_event {
        H1_CHUNK_MORE, /* needs more bytes */
        H1_CHUNK_DATA, /* p->left data bytes follow: take some, count them off p->left, and feed the rest */
        H1_CHUNK_LAST, /* the last chunk: the trailer section follows */
        H1_CHUNK_FAIL,
};

struct h1_chunk {
        uint8_t state, digits;
        uint16_t ext_bytes; /* all extensions of the message so far: at most 4096 */
        uint64_t left;
};

enum h1_chunk_event h1_chunk_feed(struct h1_chunk *p, const char *d, size_t n, size_t *used);

bool h1_method_known(struct str m);

#endif
