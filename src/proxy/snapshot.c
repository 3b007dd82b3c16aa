#include "proxy/snapshot.h"

#include "base/mem.h"
#include "proxy/cluster.h"

#include <stdlib.h>

struct snapshot *snapshot_ref(struct snapshot *s)
{
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
        return s;
}

void snapshot_unref(struct snapshot *s)
{
        if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
                return;
        STRMAP_EACH (&s->clusters, it)
                cluster_info_unref(it->value);
        strmap_fini(&s->clusters);
        free(s);
}

const struct cluster_info *snapshot_cluster(const struct snapshot *s, struct str name)
{
        return strmap_get(&s->clusters, name);
}
