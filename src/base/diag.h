/* Diagnostics: what is wrong with a configuration, where, and what to do about it. Collected, never printed on the spot. */
#ifndef BASE_DIAG_H
#define BASE_DIAG_H

#include "base/arena.h"
#include "base/buf.h"

enum diag_severity { DIAG_INFO, DIAG_WARNING, DIAG_ERROR };

struct diag {
        enum diag_severity severity;
        const char *code;      /* stable, such as "PST0103"; or NULL */
        struct str file;       /* "" when the input has no file */
        unsigned line, column; /* from 1; 0: unknown */
        struct str resource;   /* "Gateway default/egress", or "" */
        struct str path;       /* "spec.http[0].route", or "" */
        struct str text;       /* one sentence: what is wrong, then what to do */
};

struct diags {
        struct arena arena;
        struct diag *v;
        size_t n, cap;
        size_t errors;
        size_t max; /* more than this are counted in `dropped`; default 100 */
        size_t dropped;
};

void diags_init(struct diags *d);
void diags_fini(struct diags *d);
void diags_clear(struct diags *d);

/* Where a diagnostic points. Any part may be empty. Copied. */
struct diag_at {
        struct str file, resource, path;
        unsigned line, column;
};

void diag_add(struct diags *d, enum diag_severity sev, const char *code, const struct diag_at *at, const char *fmt, ...)
        __attribute__((format(printf, 5, 6)));

/* "virtualservice.yaml:14:9: spec.http[0].rout: unknown field (did you mean \"route\"?)"; no newline. */
void diag_format(const struct diag *g, struct buf *out);
void diags_format(const struct diags *d, struct buf *out); /* one a line */

#endif
