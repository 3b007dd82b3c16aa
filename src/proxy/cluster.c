/* A worker's clusters: made on first use, fed by the main thread's posts, torn down when the snapshot no longer has them. */
#include "proxy/cluster.h"

#include "base/log.h"
#include "base/mem.h"
#include "proxy/cluster_private.h"
#include "proxy/server.h"
#include "proxy/worker.h"

#include <errno.h>
#include <stdlib.h>

/* ORIGINAL_DST: one host for each destination, forgotten when it was not used for two rounds. */
struct dst_host {
        struct host *host;
        bool used;
};

struct cluster_own {
        struct cluster c;
        struct strmap dst; /* address bytes -> struct dst_host */
        struct loop_timer sweep;
};

static struct cluster_own *own(struct cluster *c)
{
        return CONTAINER_OF(c, struct cluster_own, c);
}

struct host *host_ref(struct host *h)
{
        h->refs++;
        return h;
}

void host_unref(struct host *h)
{
        if (!h || --h->refs)
                return;
        struct cluster *c = h->cluster;

        host_desc_unref(c->worker->server, (struct host_desc *)h->desc);
        free(h);
        cluster_unref(c);
}

static struct host *host_new(struct cluster *c, struct host_desc *d)
{
        struct host *h = MEM_NEW(struct host);

        h->refs = 1;
        h->cluster = cluster_ref(c);
        h->desc = host_desc_ref(d);
        h->addr = &d->addr;
        h->weight = d->weight;
        h->priority = d->priority;
        h->health = d->health;
        h->stats = d->stats;
        return h;
}

/* Out of the list: no new work; its pool finishes what runs. */
static void host_remove(struct host *h)
{
        void *pool = h->http_pool;

        h->removed = true;
        h->http_pool = NULL;
        if (pool)
                h->http_pool_drain(pool);
        host_unref(h);
}

struct cluster *cluster_ref(struct cluster *c)
{
        c->refs++;
        return c;
}

void cluster_unref(struct cluster *c)
{
        if (!c || --c->refs)
                return;
        if (c->http)
                c->http_free(c->http);
        lb_free(c->lb);
        cluster_info_unref(c->info);
        free(c->hosts);
        strmap_fini(&own(c)->dst);
        free(own(c));
}

static struct str addr_key(const struct addr *a)
{
        if (a->sa.sa_family == AF_INET) /* sin_zero is not part of an address */
                return str_make((const char *)&a->v4.sin_port, 6);
        return str_make((const char *)&a->sa, a->len);
}

static void hosts_set(struct cluster *c, const struct host_list *l)
{
        struct strmap old = STRMAP_INIT;
        struct host **v = mem_calloc(l->n ? l->n : 1, sizeof(*v));
        size_t n = 0;

        for (size_t i = 0; i < c->nhosts; i++)
                strmap_set(&old, addr_key(c->hosts[i]->addr), c->hosts[i]);
        for (size_t i = 0; i < l->n; i++) {
                struct host_desc *d = l->v[i];
                struct host *h = strmap_del(&old, addr_key(&d->addr));

                if (!h) {
                        v[n++] = host_new(c, d);
                        continue;
                }
                host_desc_ref(d);
                host_desc_unref(c->worker->server, (struct host_desc *)h->desc);
                h->desc = d;
                h->addr = &d->addr;
                h->weight = d->weight;
                h->priority = d->priority;
                h->health = d->health;
                h->stats = d->stats;
                v[n++] = h;
        }
        free(c->hosts);
        c->hosts = v;
        c->nhosts = n;
        c->hosts_version = l->version;
        lb_update(c->lb, c->hosts, c->nhosts);
        STRMAP_EACH (&old, it)
                host_remove(it->value);
        strmap_fini(&old);
}

static void dst_sweep(struct loop_timer *t)
{
        struct cluster_own *o = t->arg;

        STRMAP_EACH (&o->dst, it) {
                struct dst_host *d = it->value;

                if (d->used || d->host->refs > 1) {
                        d->used = false;
                        continue;
                }
                strmap_del(&o->dst, it->key);
                host_remove(d->host);
                free(d);
        }
        loop_timer_arm(o->c.worker->loop, t, cluster_shared(o->c.info)->cleanup_ms);
}

static struct cluster *cluster_new(struct worker *w, const struct cluster_info *info)
{
        struct cluster_own *o = MEM_NEW(struct cluster_own);
        struct host_list *l;

        o->c.refs = 1;
        o->c.worker = w;
        o->c.info = cluster_info_ref(info);
        o->c.lb = lb_new(info);
        o->sweep.fn = dst_sweep;
        o->sweep.arg = o;
        if (info->type == CLUSTER_ORIGINAL_DST)
                loop_timer_arm(w->loop, &o->sweep, cluster_shared(info)->cleanup_ms);
        l = cluster_latest(info);
        if (l) {
                hosts_set(&o->c, l);
                host_list_unref(w->server, l);
        }
        return &o->c;
}

/* Leaves the worker: hosts drain, and the object goes with its last user. */
static void cluster_retire(struct cluster *c)
{
        struct cluster_own *o = own(c);

        c->removed = true;
        loop_timer_stop(c->worker->loop, &o->sweep);
        for (size_t i = 0; i < c->nhosts; i++)
                host_remove(c->hosts[i]);
        c->nhosts = 0;
        lb_update(c->lb, NULL, 0);
        STRMAP_EACH (&o->dst, it) {
                host_remove(((struct dst_host *)it->value)->host);
                free(it->value);
        }
        strmap_fini(&o->dst);
        cluster_unref(c);
}

struct cluster *cluster_get(struct worker *w, struct str name)
{
        const struct cluster_info *info = w->snapshot ? snapshot_cluster(w->snapshot, name) : NULL;

        if (!info)
                return NULL;
        if (info->index >= w->nclusters) {
                size_t n = info->index + 16;

                w->clusters = mem_realloc(w->clusters, n * sizeof(*w->clusters));
                memset(w->clusters + w->nclusters, 0, (n - w->nclusters) * sizeof(*w->clusters));
                w->nclusters = n;
        }
        if (!w->clusters[info->index])
                w->clusters[info->index] = cluster_new(w, info);
        return w->clusters[info->index];
}

void cluster_hosts_apply(struct worker *w, const struct cluster_info *info, struct host_list *l)
{
        struct cluster *c = info->index < w->nclusters ? w->clusters[info->index] : NULL;

        if (c && c->info == info && l->version > c->hosts_version)
                hosts_set(c, l);
}

void worker_snapshot_set(struct worker *w, struct snapshot *s)
{
        struct snapshot *old = w->snapshot;

        w->snapshot = s;
        for (size_t i = 0; i < w->nclusters; i++) {
                struct cluster *c = w->clusters[i];

                if (c && snapshot_cluster(s, c->info->name) != c->info) {
                        w->clusters[i] = NULL;
                        cluster_retire(c);
                }
        }
        snapshot_unref(old);
}

void worker_clusters_fini(struct worker *w)
{
        for (size_t i = 0; i < w->nclusters; i++)
                if (w->clusters[i])
                        cluster_retire(w->clusters[i]);
        free(w->clusters);
        w->clusters = NULL;
        w->nclusters = 0;
        snapshot_unref(w->snapshot);
        w->snapshot = NULL;
}

bool cluster_is_warming(const struct cluster *c)
{
        return c->info->type != CLUSTER_ORIGINAL_DST && c->hosts_version == 0;
}

static struct host *dst_pick(struct cluster *c, const struct lb_ctx *ctx)
{
        struct cluster_own *o = own(c);
        struct dst_host *d;
        struct addr a;

        if (c->info->use_http_header && ctx && ctx->original_dst_header.n) {
                if (!addr_parse(&a, ctx->original_dst_header) || !addr_port(&a)) {
                        stat_inc(c->worker->stats, cluster_stat(c->info, CS_ORIGINAL_DST_HOST_INVALID));
                        return NULL;
                }
        } else if (ctx && ctx->downstream && ctx->downstream->local_restored) {
                a = *ctx->downstream->local;
        } else {
                return NULL;
        }
        if (c->info->upstream_port_override)
                addr_set_port(&a, c->info->upstream_port_override);
        d = strmap_get(&o->dst, addr_key(&a));
        if (!d) {
                struct host_desc *desc = host_desc_new();

                desc->addr = a;
                d = MEM_NEW(struct dst_host);
                d->host = host_new(c, desc);
                host_desc_unref(c->worker->server, desc);
                strmap_set(&o->dst, addr_key(&a), d);
        }
        d->used = true;
        return d->host;
}

struct host *cluster_pick_host(struct cluster *c, const struct lb_ctx *ctx)
{
        struct host *h;

        if (c->removed)
                return NULL;
        h = c->info->type == CLUSTER_ORIGINAL_DST ? dst_pick(c, ctx) : lb_pick(c->lb, c, ctx);
        return h ? host_ref(h) : NULL;
}

static void count_host(struct host *h, enum host_stat s, uint64_t n)
{
        if (h->stats)
                stat_add(h->cluster->worker->stats, h->stats + s, n);
}

static void count(struct host *h, unsigned row, uint64_t n)
{
        stat_add(h->cluster->worker->stats, cluster_stat(h->cluster->info, row), n);
}

struct conn *host_connect(struct host *h, const struct conn_ops *ops, void *arg)
{
        const struct cluster_info *c = h->cluster->info;
        struct conn_connect_opts o = { 0 };

        o.timeout_ms = c->connect_timeout_ms;
        /* A source of the other family cannot be bound: leave the choice to the kernel, as Envoy does. */
        if (c->has_source && c->source.sa.sa_family == h->addr->sa.sa_family)
                o.source = &c->source;
        if (c->keepalive.on)
                o.keepalive = &c->keepalive;
        count(h, CS_UPSTREAM_CX_TOTAL, 1);
        count(h, CS_UPSTREAM_CX_ACTIVE, 1);
        count_host(h, HS_CX_TOTAL, 1);
        count_host(h, HS_CX_ACTIVE, 1);
        h->cx_active++;
        return conn_connect(h->cluster->worker->loop, h->addr, &o, ops, arg);
}

void host_connect_done(struct host *h, struct conn *c, int err, uint64_t started_us)
{
        struct worker *w = h->cluster->worker;

        if (!err) {
                stat_record(w->stats, cluster_stat(h->cluster->info, CS_UPSTREAM_CX_CONNECT_MS),
                            (loop_now_us(w->loop) - started_us) / 1000);
                return;
        }
        count(h, err == ETIMEDOUT ? CS_UPSTREAM_CX_CONNECT_TIMEOUT : CS_UPSTREAM_CX_CONNECT_FAIL, 1);
        if (err == ETIMEDOUT) /* Envoy counts a timeout as a failure too */
                count(h, CS_UPSTREAM_CX_CONNECT_FAIL, 1);
        count_host(h, HS_CX_CONNECT_FAIL, 1);
}

void host_conn_closed(struct host *h, struct conn *c, bool by_peer, bool active_rq, uint64_t started_us)
{
        struct worker *w = h->cluster->worker;

        count(h, CS_UPSTREAM_CX_DESTROY, 1);
        count(h, by_peer ? CS_UPSTREAM_CX_DESTROY_REMOTE : CS_UPSTREAM_CX_DESTROY_LOCAL, 1);
        if (active_rq) {
                count(h, CS_UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ, 1);
                count(h, by_peer ? CS_UPSTREAM_CX_DESTROY_REMOTE_WITH_ACTIVE_RQ : CS_UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ, 1);
        }
        count(h, CS_UPSTREAM_CX_ACTIVE, (uint64_t)-1);
        count(h, CS_UPSTREAM_CX_RX_BYTES_TOTAL, conn_bytes_read(c));
        count(h, CS_UPSTREAM_CX_TX_BYTES_TOTAL, conn_bytes_written(c));
        stat_record(w->stats, cluster_stat(h->cluster->info, CS_UPSTREAM_CX_LENGTH_MS), (loop_now_us(w->loop) - started_us) / 1000);
        count_host(h, HS_CX_ACTIVE, (uint64_t)-1);
        h->cx_active--;
}

void host_rq_begin(struct host *h)
{
        h->rq_active++;
        count_host(h, HS_RQ_ACTIVE, 1);
        count_host(h, HS_RQ_TOTAL, 1);
}

void host_rq_end(struct host *h, bool ok)
{
        h->rq_active--;
        count_host(h, HS_RQ_ACTIVE, (uint64_t)-1);
        count_host(h, ok ? HS_RQ_SUCCESS : HS_RQ_ERROR, 1);
}

bool breaker_take(const struct cluster_info *c, enum priority p, enum breaker_kind k)
{
        struct breakers *b = &c->breakers[p];

        if (b->max[k] == UINT32_MAX)
                return true;
        if (atomic_fetch_add_explicit(&b->now[k], 1, memory_order_relaxed) < b->max[k])
                return true;
        atomic_fetch_sub_explicit(&b->now[k], 1, memory_order_relaxed);
        return false;
}

void breaker_release(const struct cluster_info *c, enum priority p, enum breaker_kind k)
{
        struct breakers *b = &c->breakers[p];

        if (b->max[k] != UINT32_MAX)
                atomic_fetch_sub_explicit(&b->now[k], 1, memory_order_relaxed);
}

bool breaker_open(const struct cluster_info *c, enum priority p, enum breaker_kind k)
{
        const struct breakers *b = &c->breakers[p];

        return b->max[k] != UINT32_MAX && atomic_load_explicit(&b->now[k], memory_order_relaxed) >= b->max[k];
}
