/* The set of clusters by name, as a worker sees it: immutable, shared, reference-counted. The main thread makes a new one for every CDS
 * update and posts it. (Listeners and route tables have their own posts: a change to one does not rebuild the others.) */
#ifndef PROXY_SNAPSHOT_H
#define PROXY_SNAPSHOT_H

#include "base/hash.h"

#include <stdatomic.h>

struct cluster_info;

struct snapshot {
        _Atomic unsigned refs;
        uint64_t generation;
        struct strmap clusters; /* name -> struct cluster_info (referenced) */
};

struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s);
const struct cluster_info *snapshot_cluster(const struct snapshot *s, struct str name);

#endif
