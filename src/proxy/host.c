/* Descriptions of hosts and lists of them: made by the main thread, read by all. */
#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/cluster_private.h"
#include "proxy/server.h"

#include <stdlib.h>

struct host_desc *host_desc_new(void)
{
        struct host_desc *h = MEM_NEW(struct host_desc);

        h->refs = 1;
        h->weight = 1;
        return h;
}

struct host_desc *host_desc_ref(struct host_desc *h)
{
        atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
        return h;
}

void host_desc_unref(struct server *s, struct host_desc *h)
{
        if (!h || atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) != 1)
                return;
        if (h->stat_owner && atomic_fetch_sub_explicit(&h->stat_owner->refs, 1, memory_order_acq_rel) == 1) {
                stats_slots_free(s->stats, h->stat_owner->base, HS_COUNT);
                free(h->stat_owner);
        }
        free((void *)h->hostname.p);
        free((void *)h->region.p);
        free((void *)h->zone.p);
        free((void *)h->sub_zone.p);
        if (h->metadata_arena) {
                arena_fini(h->metadata_arena);
                free(h->metadata_arena);
        }
        free(h);
}

struct host_list *host_list_new(size_t n)
{
        struct host_list *l = MEM_NEW(struct host_list);

        l->refs = 1;
        l->v = mem_calloc(n ? n : 1, sizeof(struct host_desc *));
        return l;
}

struct host_list *host_list_ref(struct host_list *l)
{
        if (l)
                atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
        return l;
}

void host_list_unref(struct server *s, struct host_list *l)
{
        if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
                return;
        for (size_t i = 0; i < l->n; i++)
                host_desc_unref(s, l->v[i]);
        free(l->v);
        free(l);
}

struct host_list *cluster_latest(const struct cluster_info *ci)
{
        struct cluster_shared *c = cluster_shared(ci);
        struct host_list *l;

        pthread_mutex_lock(&c->lock);
        l = host_list_ref(c->latest);
        pthread_mutex_unlock(&c->lock);
        return l;
}
