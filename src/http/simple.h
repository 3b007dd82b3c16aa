/* HTTP for those who want a request answered and no protocol: the admin port, the API server, monitoring, probes, tests. */
#ifndef HTTP_SIMPLE_H
#define HTTP_SIMPLE_H

#include "http/http.h"

/* ---- answering ---- */

/* A whole response: status, content-type (NULL: none), body (copied; left out for HEAD requests by the codec). */
void http_answer(struct http_stream *s, int status, const char *type, struct str body);
/* The same with further header fields in `m` (m->status, content-type and content-length are set here). Takes `body`. */
void http_answer_head(struct http_stream *s, struct http_head *m, int status, const char *type, struct chain *body);
const char *http_reason(int status); /* "Not Found"; "Unknown" for numbers nobody registered */

/* Collects the request's body and calls fn once, when it is complete. Call it from on_head with that call's m and end. A body beyond
 * max_bytes is answered 413 (fn is not called); a client that goes away meanwhile ends it too (fn is not called). While collecting, the
 * stream's ops are the collector's; from fn on the stream has ops that ignore everything, and fn answers now or later: set your own ops
 * to hear of the client's going away, which is a must when the answer comes after fn returned. `body` lives as long as the stream. */
typedef void http_body_fn(struct http_stream *s, void *arg, struct http_head *m, struct str body);
void http_collect(struct http_stream *s, struct http_head *m, bool end, size_t max_bytes, http_body_fn *fn, void *arg);

/* Ops that ignore everything: for streams whose answer is out. */
extern const struct http_stream_ops http_ops_ignore;

/* ---- serving ---- */

/* A listener whose connections speak HTTP/1.1 or HTTP/2 and whose requests go to one function. */
struct http_service;

struct http_service_opts {
        const struct addr *listen;
        unsigned unix_mode;           /* of a Unix socket */
        struct tls_ctx *tls;          /* NULL: clear text; a reference is taken */
        size_t max_body_bytes;        /* 0: 1 MiB */
        unsigned idle_ms;             /* a connection without a request; 0: 60 s */
        unsigned head_ms;             /* a request whose head and body do not come; 0: 30 s */
        unsigned max_conns;           /* 0: 1024; more wait in the backlog */
        const struct http_opts *http; /* NULL: defaults, HTTP/1.0 accepted */
};

/* fn as in http_collect(); but with `streaming` set it is called at the head, with body "" (then fn deals with the body: http_collect() or
 * own ops). NULL with *err (negative errno) when the address cannot be listened on. */
struct http_service *http_service_new(struct loop *l, const struct http_service_opts *o, http_body_fn *fn, void *arg, int *err);
/* As on_head: the function is given whether the message is complete. */
typedef void http_head_fn(struct http_stream *s, void *arg, struct http_head *m, bool end);
struct http_service *http_service_new_streaming(struct loop *l, const struct http_service_opts *o, http_head_fn *fn, void *arg, int *err);
void http_service_free(struct http_service *s);  /* closes the listener and every connection */
void http_service_drain(struct http_service *s); /* closes the listener; connections end with their last request */
unsigned http_service_conns(const struct http_service *s);
const struct addr *http_service_addr(const struct http_service *s); /* as bound: the port that 0 became */

/* ---- fetching ---- */

/* One request on one connection of its own (HTTP/1.1, or HTTP/2 when ALPN or `h2` says so). */
struct http_fetch;

struct http_fetch_opts {
        const struct addr *to;
        struct tls_ctx *tls; /* NULL: clear text */
        struct str sni;
        const char *method;         /* NULL: GET */
        struct str authority, path; /* authority empty: the address; path empty: "/" */
        const struct http_hdr *headers;
        unsigned nheaders;
        struct str body;       /* copied */
        size_t max_body_bytes; /* of the response; 0: 1 MiB */
        unsigned timeout_ms;   /* of everything; 0: 10 s */
        bool h2;               /* prior knowledge */
};

/* m NULL: no answer, and `error` says why in words ("connection refused", "timed out after 1000 ms", "response larger than ..."). Called
 * once, deferred; the fetch is gone afterwards. */
typedef void http_fetch_fn(void *arg, const struct http_head *m, struct str body, const char *error);
struct http_fetch *http_fetch(struct loop *l, const struct http_fetch_opts *o, http_fetch_fn *fn, void *arg);
void http_fetch_cancel(struct http_fetch *f); /* fn is not called */

#endif
