/* Load balancing: priorities and panic first, then localities, then the policy. Envoy's arithmetic, because a mesh's users have tuned to
 * it.
 *
 * Weighted choice (round robin and least request with unequal weights) is earliest deadline first: each host is due again 1/weight after
 * its last turn. The heap is built when it is first needed and thrown away when the list of hosts changes. */
#include "base/hash.h"
#include "base/mem.h"
#include "proxy/cluster_private.h"
#include "proxy/worker.h"

#include <math.h>
#include <stdlib.h>

enum { PRIORITIES_MAX = 128 };

struct edf_entry {
        double due;
        uint64_t order;
        struct host *host;
};

/* Hosts to choose from with equal right: one priority, one availability, perhaps one locality. */
struct group {
        struct host **v;
        size_t n;
        bool equal;  /* all weights the same */
        size_t next; /* round robin */
        struct edf_entry *heap;
        size_t nheap;
        double now;
        uint64_t order;
};

struct locality {
        struct str region, zone, sub_zone;
        uint32_t weight;
        size_t total;
        struct group group[3]; /* HEALTHY, DEGRADED, all */
};

struct level { /* a priority */
        struct group group[3];
        struct locality *localities;
        size_t nlocalities, cap;
        double healthy_load, degraded_load; /* percent */
        bool panic;
};

enum { ALL = 2 };

struct lb {
        const struct cluster_info *info;
        struct level *levels;
        size_t nlevels;
        size_t nhosts;
};

struct lb *lb_new(const struct cluster_info *info)
{
        struct lb *l = MEM_NEW(struct lb);

        l->info = info;
        return l;
}

static void group_fini(struct group *g)
{
        free(g->v);
        free(g->heap);
}

static void levels_free(struct lb *l)
{
        for (size_t i = 0; i < l->nlevels; i++) {
                struct level *lv = &l->levels[i];

                for (unsigned k = 0; k < 3; k++)
                        group_fini(&lv->group[k]);
                for (size_t j = 0; j < lv->nlocalities; j++)
                        for (unsigned k = 0; k < 3; k++)
                                group_fini(&lv->localities[j].group[k]);
                free(lv->localities);
        }
        free(l->levels);
        l->levels = NULL;
        l->nlevels = 0;
}

void lb_free(struct lb *l)
{
        if (!l)
                return;
        levels_free(l);
        free(l);
}

static void group_add(struct group *g, struct host *h)
{
        if ((g->n & (g->n - 1)) == 0)
                g->v = mem_realloc(g->v, (g->n ? g->n * 2 : 1) * sizeof(struct host *));
        g->equal = g->n == 0 || (g->equal && g->v[0]->weight == h->weight);
        g->v[g->n++] = h;
}

static struct locality *locality_of(struct level *lv, const struct host_desc *d)
{
        for (size_t i = 0; i < lv->nlocalities; i++) {
                struct locality *lo = &lv->localities[i];

                if (str_eq(lo->region, d->region) && str_eq(lo->zone, d->zone) && str_eq(lo->sub_zone, d->sub_zone))
                        return lo;
        }
        struct locality *lo = &VEC_PUSH(lv->localities, lv->nlocalities, lv->cap);

        memset(lo, 0, sizeof(*lo));
        lo->region = d->region;
        lo->zone = d->zone;
        lo->sub_zone = d->sub_zone;
        lo->weight = d->locality_weight;
        return lo;
}

static double availability(const struct lb *l, size_t good, size_t total)
{
        return total ? fmin(100, (double)l->info->overprovisioning * (double)good / (double)total) : 0;
}

/* Load goes to the lowest priority as far as its health reaches, then to the next: healthy hosts of all priorities first, then degraded. */
static void distribute(struct lb *l)
{
        double total = 0, left = 100;
        bool all_panic = l->nlevels > 0;
        size_t hosts = 0;

        for (size_t i = 0; i < l->nlevels; i++) {
                struct level *lv = &l->levels[i];

                lv->healthy_load = availability(l, lv->group[HEALTH_HEALTHY].n, lv->group[ALL].n);
                lv->degraded_load = availability(l, lv->group[HEALTH_DEGRADED].n, lv->group[ALL].n);
                total += lv->healthy_load + lv->degraded_load;
                hosts += lv->group[ALL].n;
        }
        total = fmin(100, total);
        for (size_t i = 0; i < l->nlevels; i++) {
                struct level *lv = &l->levels[i];
                double healthy = lv->group[ALL].n ? 100.0 * (double)(lv->group[HEALTH_HEALTHY].n + lv->group[HEALTH_DEGRADED].n) /
                                                            (double)lv->group[ALL].n
                                                  : 0;

                lv->panic = total < 100 && healthy < l->info->panic_threshold;
                all_panic = all_panic && (lv->panic || !lv->group[ALL].n);
        }
        for (unsigned k = 0; k < 2; k++)
                for (size_t i = 0; i < l->nlevels; i++) {
                        double *load = k ? &l->levels[i].degraded_load : &l->levels[i].healthy_load;
                        double share = total > 0 ? round(*load * 100 / total) : 0;

                        *load = fmin(left, share);
                        left -= *load;
                }
        if (l->nlevels && left > 0 && total > 0) /* rounding */
                l->levels[0].healthy_load += left;
        if (total <= 0 && l->nlevels)
                l->levels[0].healthy_load = 100;
        if (all_panic && hosts)
                for (size_t i = 0; i < l->nlevels; i++) {
                        l->levels[i].healthy_load = 100.0 * (double)l->levels[i].group[ALL].n / (double)hosts;
                        l->levels[i].degraded_load = 0;
                }
}

void lb_update(struct lb *l, struct host *const *hosts, size_t n)
{
        const struct cluster_shared *cs = cluster_shared(l->info);
        unsigned top = 0;

        levels_free(l);
        l->nhosts = n;
        for (size_t i = 0; i < n; i++)
                if (hosts[i]->priority > top && hosts[i]->priority < PRIORITIES_MAX)
                        top = hosts[i]->priority;
        l->nlevels = top + 1;
        l->levels = mem_calloc(l->nlevels, sizeof(*l->levels));
        for (size_t i = 0; i < n; i++) {
                struct host *h = hosts[i];
                struct level *lv = &l->levels[h->priority < PRIORITIES_MAX ? h->priority : PRIORITIES_MAX - 1];
                struct locality *lo = cs->locality_weighted ? locality_of(lv, h->desc) : NULL;

                group_add(&lv->group[ALL], h);
                if (h->health != HEALTH_UNHEALTHY)
                        group_add(&lv->group[h->health], h);
                if (lo) {
                        group_add(&lo->group[ALL], h);
                        if (h->health != HEALTH_UNHEALTHY)
                                group_add(&lo->group[h->health], h);
                }
        }
        for (size_t i = 0; i < l->nlevels; i++)
                for (unsigned k = 0; k < 3; k++)
                        if (l->levels[i].group[k].n) /* workers do not begin with the same host */
                                l->levels[i].group[k].next = rand_u64() % l->levels[i].group[k].n;
        distribute(l);
}

/* The heap. */

static bool sooner(const struct edf_entry *a, const struct edf_entry *b)
{
        return a->due < b->due || (a->due == b->due && a->order < b->order);
}

static void heap_down(struct group *g, size_t i)
{
        for (;;) {
                size_t least = i;

                for (size_t c = 2 * i + 1; c <= 2 * i + 2 && c < g->nheap; c++)
                        if (sooner(&g->heap[c], &g->heap[least]))
                                least = c;
                if (least == i)
                        return;
                struct edf_entry t = g->heap[i];

                g->heap[i] = g->heap[least];
                g->heap[least] = t;
                i = least;
        }
}

static double effective_weight(const struct cluster_info *c, const struct host *h)
{
        double w = h->weight ? h->weight : 1;

        if (c->lb == LB_LEAST_REQUEST && c->active_request_bias > 0)
                w /= pow((double)h->rq_active + 1, c->active_request_bias);
        return w;
}

static struct host *edf_pick(const struct cluster_info *c, struct group *g)
{
        if (!g->heap) {
                g->heap = mem_calloc(g->n, sizeof(*g->heap));
                g->nheap = g->n;
                for (size_t i = 0; i < g->n; i++) {
                        struct host *h = g->v[(g->next + i) % g->n];

                        g->heap[i] = (struct edf_entry){ 1 / effective_weight(c, h), g->order++, h };
                }
                for (size_t i = g->n; i-- > 0;)
                        heap_down(g, i);
        }
        struct edf_entry *e = &g->heap[0];
        struct host *h = e->host;

        g->now = e->due;
        e->due = g->now + 1 / effective_weight(c, h);
        e->order = g->order++;
        heap_down(g, 0);
        return h;
}

static struct host *group_pick(const struct cluster_info *c, struct group *g)
{
        struct host *best;

        if (!g->n)
                return NULL;
        if (g->n == 1)
                return g->v[0];
        switch (c->lb) {
        case LB_RANDOM:
                return g->v[rand_u64() % g->n];
        case LB_LEAST_REQUEST:
                if (!g->equal)
                        return edf_pick(c, g);
                best = g->v[rand_u64() % g->n];
                for (unsigned i = 1; i < c->choice_count; i++) {
                        struct host *h = g->v[rand_u64() % g->n];

                        if (h->rq_active < best->rq_active)
                                best = h;
                }
                return best;
        default:
                if (!g->equal)
                        return edf_pick(c, g);
                g->next = g->next + 1 < g->n ? g->next + 1 : 0;
                return g->v[g->next];
        }
}

/* By weight times how much of the locality is up (with overprovisioning). */
static struct group *locality_pick(const struct lb *l, struct level *lv, unsigned kind)
{
        double sum = 0, at;

        for (size_t i = 0; i < lv->nlocalities; i++) {
                const struct locality *lo = &lv->localities[i];

                if (lo->group[kind].n)
                        sum += lo->weight * availability(l, lo->group[kind].n, lo->group[ALL].n);
        }
        if (sum <= 0)
                return NULL;
        at = rand_unit() * sum;
        for (size_t i = 0; i < lv->nlocalities; i++) {
                struct locality *lo = &lv->localities[i];

                if (!lo->group[kind].n)
                        continue;
                at -= lo->weight * availability(l, lo->group[kind].n, lo->group[ALL].n);
                if (at < 0)
                        return &lo->group[kind];
        }
        return NULL;
}

static struct host *level_pick(const struct lb *l, struct level *lv, unsigned kind, struct cluster *c)
{
        struct group *g = &lv->group[lv->panic ? ALL : kind];

        if (lv->panic && g->n)
                stat_inc(c->worker->stats, cluster_stat(l->info, CS_LB_HEALTHY_PANIC));
        if (lv->nlocalities && !lv->panic) {
                struct group *lo = locality_pick(l, lv, kind);

                if (lo)
                        g = lo;
        }
        return group_pick(l->info, g);
}

static struct host *pick_once(struct lb *l, struct cluster *c, uint32_t tried)
{
        double at = l->nlevels == 1 && l->levels[0].healthy_load >= 100 ? 0 : rand_unit() * 100;
        size_t untried = 0;

        /* previous_priorities: what was tried gives its share to the first level that was not. */
        if (tried)
                for (untried = 0; untried < l->nlevels; untried++)
                        if (untried >= 32 || !(tried >> untried & 1))
                                break;
        for (unsigned kind = HEALTH_HEALTHY; kind <= HEALTH_DEGRADED; kind++)
                for (size_t i = 0; i < l->nlevels; i++) {
                        struct level *lv = &l->levels[i];
                        double load = kind == HEALTH_HEALTHY ? lv->healthy_load : lv->degraded_load;

                        if (load <= 0 || at >= load) {
                                at -= load > 0 ? load : 0;
                                continue;
                        }
                        if (i < 32 && tried >> i & 1 && untried < l->nlevels)
                                lv = &l->levels[untried];
                        return level_pick(l, lv, kind, c);
                }
        return l->nlevels ? level_pick(l, &l->levels[0], HEALTH_HEALTHY, c) : NULL;
}

struct host *lb_pick(struct lb *l, struct cluster *c, const struct lb_ctx *ctx)
{
        struct host *h;
        unsigned n = 0;

        if (!l->nhosts)
                return NULL;
        do {
                h = pick_once(l, c, ctx ? ctx->tried_priorities : 0);
        } while (h && ctx && ctx->reject && n++ < ctx->attempts && ctx->reject(ctx->arg, h));
        return h;
}
