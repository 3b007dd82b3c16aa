/* The words of a request: its path, its query, and the error that answers it. Pure functions over an arena. */
#ifndef KUBE_REQUEST_H
#define KUBE_REQUEST_H

#include "base/arena.h"
#include "base/buf.h"
#include "pb/pb.h"

enum {
        KUBE_QUERY_MAX = 256,       /* parameters */
        KUBE_PATH_MAX_BYTES = 8192, /* path and query together; exec carries its command there */
        KUBE_BODY_MAX_BYTES = 3 << 20,
};

/* application/x-www-form-urlencoded, in order, with duplicates (exec's command=…&command=…). */
struct kube_query {
        struct {
                struct str key, value;
        } v[KUBE_QUERY_MAX];
        unsigned n;
        struct str raw;
};

/* False: a broken %-escape or too many parameters. Strings live in `a`, or are parts of `text`. */
bool kube_query_parse(struct str text, struct arena *a, struct kube_query *q);
struct str kube_query_get(const struct kube_query *q, const char *key); /* the first; {NULL,0} when absent */
/* Kubernetes' bool: absent, "0" and "false" are false; anything else is true. */
bool kube_query_bool(const struct kube_query *q, const char *key);
/* %XX decoding; plus: '+' is a space. False when broken or when a NUL comes out. */
bool kube_unescape(struct str in, bool plus, struct arena *a, struct str *out);

/* "/api/v1/namespaces/NS/pods/NAME/SUB", "/apis/G/V/…". */
struct kube_path {
        bool resource_path; /* false: discovery, health, OpenAPI, …: only seg[] is set */
        struct str seg[12]; /* decoded */
        unsigned nseg;
        struct str group, version, resource, ns, name, sub;
        bool has_ns; /* "…/namespaces/NS/…" was there */
};

/* False: broken escapes, "." or ".." or empty segments, a slash inside a segment, too many segments. */
bool kube_path_parse(struct str path, struct arena *a, struct kube_path *p);

/* A Kubernetes Status in the making. */
struct kube_cause {
        struct str reason, message, field;
};

struct kube_error {
        int code;           /* 0: no error */
        const char *reason; /* "NotFound" */
        struct str message;
        struct str name, group, kind, uid; /* details; `kind` is a resource name, as Kubernetes has it */
        struct kube_cause *causes;
        size_t ncauses, cap_causes;
        unsigned retry_after_s;
};

void kube_error_set(struct kube_error *e, struct arena *a, int code, const char *reason, const char *fmt, ...)
        __attribute__((format(printf, 5, 6)));
void kube_error_cause(struct kube_error *e, struct arena *a, const char *reason, struct str field, struct str message);
/* The Status object as JSON. */
void kube_error_json(const struct kube_error *e, struct buf *out);
/* The Status of a success that has nothing else to say (deletions): details name the object. */
void kube_success_json(struct str name, struct str group, struct str kind, struct str uid, struct buf *out);

#endif
