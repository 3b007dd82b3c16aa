/* The API server's store: every object in memory, and in SQLite (WAL, synchronous=FULL) before a write is acknowledged.
 *
 * Writes of one loop turn are one transaction. A write takes effect in memory at once (later reads of the same turn see it), but it is
 * *pending* until kube_store_commit(): nobody outside may be told before. When the commit fails (full disk), memory goes back to what is
 * on disk, and every answer that depended on it becomes an error. Invariant: what a client was told is on disk; what watches saw is too.
 *
 * The resource version is one counter for everything, kept in the database. The last KUBE_HISTORY changes are kept for watches. */
#ifndef KUBE_STORE_H
#define KUBE_STORE_H

#include "base/diag.h"
#include "kube/kinds.h"
#include "pb/pb.h"

enum { KUBE_HISTORY = 16384 };

struct kube_store;

/* One version of one object: immutable, reference-counted. */
struct kobj {
        unsigned refs;
        unsigned bucket;
        uint64_t rv;
        struct arena arena;
        struct str ns, name, uid;
        struct pb_node *node; /* the whole object, in the storage version */
        struct str rest;      /* its JSON behind "apiVersion" and "kind": `"metadata":{…},…}` */
        unsigned nowners;     /* metadata.ownerReferences */
};

struct kobj *kobj_ref(struct kobj *o);
void kobj_unref(struct kobj *o);
/* The object as resource r (a version of its bucket) shows it. */
void kobj_json(const struct kobj *o, const struct kube_resource *r, struct buf *out);

enum kube_change_type { KUBE_ADDED, KUBE_MODIFIED, KUBE_DELETED };

struct kube_change {
        uint64_t rv;
        enum kube_change_type type;
        struct kobj *now;    /* DELETED: the last state, with the deletion's resource version */
        struct kobj *before; /* NULL for ADDED */
};

struct kube_store_ops {
        void (*on_dirty)(void *arg); /* the first write of a transaction: arrange for kube_store_commit() at the end of the turn */
        void *arg;
};

/* Opens or creates the database. NULL with a diagnostic that says what to do: a damaged file, one of another program, one that is in use.
 */
struct kube_store *kube_store_open(const char *path, const struct kube_store_ops *ops, struct diags *d);
void kube_store_close(struct kube_store *s);

uint64_t kube_store_rv(const struct kube_store *s); /* of the last change, pending ones included */
struct kobj *kube_store_get(const struct kube_store *s, unsigned bucket, struct str ns, struct str name); /* borrowed, or NULL */
/* Objects of a bucket in order of (namespace, name): *v points into the store, valid until the next write. ns.p NULL: all namespaces. */
size_t kube_store_range(const struct kube_store *s, unsigned bucket, struct str ns, struct kobj *const **v);
/* The same as references of the caller's, for those who write while they walk. Free with kube_store_list_free(). */
size_t kube_store_list(const struct kube_store *s, unsigned bucket, struct str ns, struct kobj ***v);
void kube_store_list_free(struct kobj **v, size_t n);
/* Is `uid` named by any object's ownerReferences? */
bool kube_store_has_dependents(const struct kube_store *s, struct str uid);
/* Does an object with this uid exist? */
struct kobj *kube_store_by_uid(const struct kube_store *s, struct str uid);

/* Writes: create or replace. Sets metadata.resourceVersion in `node` (which stays the caller's; the store keeps a copy). Returns the new
 * version, borrowed; NULL: the database refused, kube_store_error() says why. */
struct kobj *kube_store_put(struct kube_store *s, unsigned bucket, struct str ns, struct str name, struct pb_node *node, struct arena *a);
/* Removes. Returns the last state as watches see it (borrowed from the history), or NULL as above. */
struct kobj *kube_store_delete(struct kube_store *s, unsigned bucket, struct str ns, struct str name);

/* 0, or -1 when the transaction was rolled back. */
int kube_store_commit(struct kube_store *s);
/* Takes back what is pending. */
void kube_store_roll_back(struct kube_store *s);
bool kube_store_pending(const struct kube_store *s);
/* The database may grow to so many pages: for tests of a full disk. */
void kube_store_limit_pages(struct kube_store *s, unsigned pages);
/* Grows with every roll-back: whoever waits for a commit compares it with its value at the time of the write. */
unsigned kube_store_rollbacks(const struct kube_store *s);
const char *kube_store_error(const struct kube_store *s); /* "the disk is full …" */
bool kube_store_full(const struct kube_store *s);         /* was the last error for want of space? */

/* History. Changes have consecutive positions; kube_store_head() is one past the last committed one. */
uint64_t kube_store_head(const struct kube_store *s);
/* The change at `pos`; NULL: too old, or not committed. */
const struct kube_change *kube_store_change(const struct kube_store *s, uint64_t pos);
/* The position behind resource version rv: where a watch that has seen rv goes on. False: too old ("410 Gone"). */
bool kube_store_seek(const struct kube_store *s, uint64_t rv, uint64_t *pos);
/* The oldest resource version from which a watch can go on. */
uint64_t kube_store_oldest_rv(const struct kube_store *s);

#endif
