/* Columns of the tables that `kubectl get` prints. Internal to table*.c. */
#ifndef KUBE_TABLE_H
#define KUBE_TABLE_H

#include "kube/api.h"

struct row {
        struct kube_api *api;
        const struct kobj *o;
        struct buf *out; /* the cell's text: quoted by the caller, unless the column is a number */
};

struct column {
        const char *name, *type;     /* type: "string", "integer", "date" (printed as an age) */
        int priority;                /* 1: only with -o wide */
        void (*cell)(struct row *r); /* NULL: the value at `path` */
        const char *path;
        const char *description;
};

struct table {
        const struct column *c;
        unsigned n;
};

const struct table *table_of(const struct kube_resource *res);
void table_age(struct kube_api *api, struct str rfc3339, struct buf *out);
void cell_age(struct row *r);

extern const struct table table_pods;

#endif
