/* See cluster_manager.h. Everything here runs on the main thread, but for the slot numbers, which the last user of a cluster gives back
 * from wherever it is. */
#include "proxy/cluster_manager.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/cluster_private.h"
#include "proxy/ext.h"
#include "proxy/server.h"
#include "proxy/support.h"
#include "proxy/worker.h"

#include "envoy/cluster.pb-c.h"
#include "envoy/core.pb-c.h"
#include "envoy/dns_cares.pb-c.h"
#include "envoy/endpoint.pb-c.h"
#include "google/any.pb-c.h"
#include "google/struct.pb-c.h"
#include "google/wrappers.pb-c.h"

#include <errno.h>
#include <stdlib.h>

enum { CM_ADDED, CM_MODIFIED, CM_REMOVED, CM_UPDATED, CM_UPDATE_OUT, CM_ACTIVE, CM_WARMING, CM_COUNT };

static const struct stat_def cm_defs[CM_COUNT] = {
        { "cluster_added", STAT_COUNTER },   { "cluster_modified", STAT_COUNTER },           { "cluster_removed", STAT_COUNTER },
        { "cluster_updated", STAT_COUNTER }, { "update_out_of_merge_window", STAT_COUNTER }, { "active_clusters", STAT_GAUGE },
        { "warming_clusters", STAT_GAUGE },
};

struct resolver {
        struct resolver *next;
        struct str key;
        struct dns *dns;
};

struct cluster_manager {
        struct server *server;
        struct stat_scope *scope;
        struct strmap active, warming; /* name -> struct cluster_main */
        bool changed;                  /* since the last snapshot */
        struct loop_task publish;      /* one snapshot for all clusters that become ready in a turn: each is as long as the list */
        uint64_t generation;
        struct snapshot *snapshot;
        struct resolver *resolvers;
        const struct eds_hooks *eds;
        void *eds_arg;
        void (*on_ready)(void *arg);
        void *on_ready_arg;
        pthread_mutex_t lock; /* of what follows */
        unsigned *free_index;
        size_t nfree, cap_free;
        unsigned next_index;
};

static void publish_task(struct loop_task *t)
{
        cluster_manager_publish(t->arg);
}

struct cluster_manager *cluster_manager_new(struct server *s)
{
        struct cluster_manager *m = MEM_NEW(struct cluster_manager);

        m->server = s;
        pthread_mutex_init(&m->lock, NULL);
        m->scope = stats_scope(s->stats, STR("cluster_manager."), STR("cluster_manager."), NULL, 0, cm_defs, CM_COUNT);
        m->snapshot = MEM_NEW(struct snapshot);
        m->snapshot->refs = 1;
        m->publish.fn = publish_task;
        m->publish.arg = m;
        return m;
}

struct loop *cluster_manager_loop(struct cluster_manager *m)
{
        return m->server->loop;
}

struct server *cluster_manager_server(struct cluster_manager *m)
{
        return m->server;
}

unsigned cluster_index_take(struct cluster_manager *m)
{
        unsigned i;

        pthread_mutex_lock(&m->lock);
        i = m->nfree ? m->free_index[--m->nfree] : m->next_index++;
        pthread_mutex_unlock(&m->lock);
        return i;
}

void cluster_index_give(struct cluster_manager *m, unsigned index)
{
        pthread_mutex_lock(&m->lock);
        VEC_PUSH(m->free_index, m->nfree, m->cap_free) = index;
        pthread_mutex_unlock(&m->lock);
}

static void count(struct cluster_main *c, unsigned row)
{
        stat_inc(c->manager->server->stats_main, cluster_stat(c->info, row));
}

/* Hosts. */

struct host_desc *cluster_main_desc(struct cluster_main *c, const struct addr *a)
{
        struct server *s = c->manager->server;
        struct cluster_main *before = strmap_get(&c->manager->active, c->info->name);
        struct host_desc *h = host_desc_new();
        const struct host_list *lists[] = { c->list, before && before != c ? before->list : NULL };

        h->addr = *a;
        for (unsigned k = 0; k < 2; k++)
                for (size_t i = 0; lists[k] && i < lists[k]->n && !h->stat_owner; i++)
                        if (addr_eq(&lists[k]->v[i]->addr, a) && lists[k]->v[i]->stat_owner) {
                                h->stat_owner = lists[k]->v[i]->stat_owner;
                                atomic_fetch_add(&h->stat_owner->refs, 1);
                        }
        if (!h->stat_owner) {
                h->stat_owner = MEM_NEW(struct stat_owner);
                h->stat_owner->refs = 1;
                h->stat_owner->base = stats_slots(s->stats, HS_COUNT);
        }
        h->stats = h->stat_owner->base;
        return h;
}

static struct str own_str(const char *c)
{
        return c && *c ? str_of(mem_strdup(c)) : (struct str){ 0 };
}

void host_desc_fill(struct host_desc *h, const struct Xds__LocalityLbEndpoints *loc, const struct Xds__LbEndpoint *ep)
{
        h->weight = ep->load_balancing_weight ? ep->load_balancing_weight->value : 1;
        h->priority = loc->priority;
        h->locality_weight = loc->load_balancing_weight ? loc->load_balancing_weight->value : 0;
        if (loc->locality) {
                h->region = own_str(loc->locality->region);
                h->zone = own_str(loc->locality->zone);
                h->sub_zone = own_str(loc->locality->sub_zone);
        }
        switch (ep->health_status) {
        case XDS__HEALTH_STATUS__UNHEALTHY:
        case XDS__HEALTH_STATUS__DRAINING:
        case XDS__HEALTH_STATUS__TIMEOUT:
                h->health = HEALTH_UNHEALTHY;
                h->failed_eds_health = true;
                break;
        case XDS__HEALTH_STATUS__DEGRADED:
                h->health = HEALTH_DEGRADED;
                break;
        default:
                h->health = HEALTH_HEALTHY;
        }
        if (ep->metadata) {
                h->metadata_arena = MEM_NEW(struct arena);
                arena_init(h->metadata_arena, 512);
                h->metadata = (const Xds__Metadata *)pb_clone_message(&ep->metadata->base, h->metadata_arena);
        }
}

static void membership_stats(struct cluster_main *c)
{
        struct stats_local *st = c->manager->server->stats_main;
        uint64_t healthy = 0, degraded = 0, heaviest = 0;

        for (size_t i = 0; c->list && i < c->list->n; i++) {
                const struct host_desc *h = c->list->v[i];

                healthy += h->health == HEALTH_HEALTHY;
                degraded += h->health == HEALTH_DEGRADED;
                if (h->weight > heaviest)
                        heaviest = h->weight;
        }
        stat_set(st, cluster_stat(c->info, CS_MEMBERSHIP_TOTAL), c->list ? c->list->n : 0);
        stat_set(st, cluster_stat(c->info, CS_MEMBERSHIP_HEALTHY), healthy);
        stat_set(st, cluster_stat(c->info, CS_MEMBERSHIP_DEGRADED), degraded);
        stat_set(st, cluster_stat(c->info, CS_MAX_HOST_WEIGHT), heaviest);
}

struct hosts_post {
        struct worker *worker;
        struct cluster_info *info;
        struct host_list *list;
};

static void hosts_post_run(void *arg)
{
        struct hosts_post *p = arg;

        cluster_hosts_apply(p->worker, p->info, p->list);
        host_list_unref(p->worker->server, p->list);
        cluster_info_unref(p->info);
        free(p);
}

static bool same_hosts(const struct host_list *a, const struct host_list *b)
{
        if (!a || a->n != b->n)
                return false;
        for (size_t i = 0; i < a->n; i++) {
                const struct host_desc *x = a->v[i], *y = b->v[i];

                if (!addr_eq(&x->addr, &y->addr) || x->weight != y->weight || x->priority != y->priority || x->health != y->health ||
                    x->locality_weight != y->locality_weight || !str_eq(x->hostname, y->hostname) || !str_eq(x->region, y->region) ||
                    !str_eq(x->zone, y->zone) || !str_eq(x->sub_zone, y->sub_zone) || !x->metadata != !y->metadata ||
                    (x->metadata && !pb_equal(&x->metadata->base, &y->metadata->base)))
                        return false;
        }
        return true;
}

void cluster_main_set_hosts(struct cluster_main *c, struct host_list *l)
{
        struct cluster_shared *cs = cluster_shared(c->info);
        struct server *s = c->manager->server;
        struct host_list *old = c->list;

        if (same_hosts(c->list, l)) {
                count(c, CS_UPDATE_NO_REBUILD);
                host_list_unref(s, l);
                return;
        }
        l->version = ++c->list_version;
        c->list = l;
        pthread_mutex_lock(&cs->lock);
        cs->latest = host_list_ref(l);
        pthread_mutex_unlock(&cs->lock);
        if (old) { /* the lock's reference, and ours */
                host_list_unref(s, old);
                host_list_unref(s, old);
        }
        count(c, CS_MEMBERSHIP_CHANGE);
        membership_stats(c);
        for (unsigned i = 0; i < s->nworkers; i++) {
                struct hosts_post *p = MEM_NEW(struct hosts_post);

                p->worker = s->workers[i];
                p->info = cluster_info_ref(c->info);
                p->list = host_list_ref(l);
                worker_post(s->workers[i], hosts_post_run, p);
        }
}

/* Endpoints with addresses (STATIC, EDS) as a list; NULL with diagnostics. */
static struct host_list *list_from(struct cluster_main *c, const Xds__ClusterLoadAssignment *cla, const struct diag_at *at, struct diags *d)
{
        struct arena a;
        struct strmap seen = STRMAP_INIT;
        struct host_list *l;
        size_t n = 0, errors = d->errors;

        arena_init(&a, 1024);
        for (size_t i = 0; cla && i < cla->n_endpoints; i++)
                n += cla->endpoints[i]->n_lb_endpoints;
        l = host_list_new(n);
        for (size_t i = 0; cla && i < cla->n_endpoints; i++) {
                const Xds__LocalityLbEndpoints *loc = cla->endpoints[i];

                for (size_t j = 0; j < loc->n_lb_endpoints; j++) {
                        const Xds__LbEndpoint *ep = loc->lb_endpoints[j];
                        struct diag_at sub = at_path(&a, at, ".endpoints[%zu].lb_endpoints[%zu]", i, j);
                        struct diag_at where = at_path(&a, &sub, ".endpoint.address");
                        char text[ADDR_TEXT_MAX];
                        struct addr addr;

                        if (ep->host_identifier_case != XDS__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT) {
                                diag_add(d, DIAG_ERROR, NULL, &sub, "has no endpoint");
                                continue;
                        }
                        if (ep->load_balancing_weight && !ep->load_balancing_weight->value) {
                                where = at_path(&a, &sub, ".load_balancing_weight");
                                diag_add(d, DIAG_ERROR, NULL, &where, "must be 1 or more");
                                continue;
                        }
                        if (loc->priority > 127) {
                                where = at_path(&a, at, ".endpoints[%zu].priority", i);
                                diag_add(d, DIAG_ERROR, NULL, &where, "must be at most 127");
                                break;
                        }
                        if (!address_read(ep->endpoint->address, &addr, &where, d))
                                continue;
                        struct str key = str_make(text, addr_text(&addr, text));

                        if (strmap_has(&seen, key)) /* the first of equals counts, as in Envoy */
                                continue;
                        strmap_set(&seen, key, &seen);
                        struct host_desc *h = cluster_main_desc(c, &addr);

                        host_desc_fill(h, loc, ep);
                        h->hostname = own_str(ep->endpoint->hostname);
                        l->v[l->n++] = h;
                }
        }
        strmap_fini(&seen);
        arena_fini(&a);
        if (d->errors != errors) {
                host_list_unref(c->manager->server, l);
                return NULL;
        }
        return l;
}

bool cluster_manager_assign(struct cluster_main *c, const struct Xds__ClusterLoadAssignment *cla, const struct diag_at *at, struct diags *d)
{
        struct host_list *l = NULL;
        struct arena a;
        bool ok = true;

        count(c, CS_UPDATE_ATTEMPT);
        if (cla) {
                arena_init(&a, 512);
                ok = support_check(&cla->base, at, &a, d);
                arena_fini(&a);
        }
        if (ok)
                l = list_from(c, cla, at, d);
        if (!l) {
                count(c, CS_UPDATE_REJECTED);
                return false;
        }
        count(c, l->n ? CS_UPDATE_SUCCESS : CS_UPDATE_EMPTY);
        c->eds_heard = true;
        cluster_main_set_hosts(c, l);
        cluster_main_ready(c);
        return true;
}

/* Life of a cluster. */

static void main_free(struct cluster_main *c)
{
        struct cluster_manager *m = c->manager;

        if (c->eds_sub && m->eds)
                m->eds->unsubscribe(m->eds_arg, c);
        loop_timer_stop(m->server->loop, &c->init_timer);
        dns_cluster_free(c->dns);
        host_list_unref(m->server, c->list);
        if (c->info)
                c->info->main = NULL;
        cluster_info_unref(c->info);
        free(c->version);
        free(c);
}

static void gauges(struct cluster_manager *m)
{
        stat_set(m->server->stats_main, stat_of(m->scope, CM_ACTIVE), m->active.live);
        stat_set(m->server->stats_main, stat_of(m->scope, CM_WARMING), m->warming.live);
}

static void activate(struct cluster_main *c)
{
        struct cluster_manager *m = c->manager;
        struct cluster_main *old = strmap_set(&m->active, c->info->name, c);

        m->changed = true;
        if (old && old != c) {
                main_free(old);
                membership_stats(c);
        }
        gauges(m);
}

void cluster_main_ready(struct cluster_main *c)
{
        struct cluster_manager *m = c->manager;

        if (c->ready)
                return;
        c->ready = true;
        loop_timer_stop(m->server->loop, &c->init_timer);
        if (strmap_get(&m->warming, c->info->name) == c)
                strmap_del(&m->warming, c->info->name);
        activate(c);
        loop_defer(m->server->loop, &m->publish);
        if (!m->warming.live && m->on_ready)
                m->on_ready(m->on_ready_arg);
}

static void init_timeout(struct loop_timer *t)
{
        struct cluster_main *c = t->arg;

        LOG(LOG_WARN, "upstream", "cluster %.*s: no endpoints from the control plane in time; going on without", STR_ARG(c->info->name));
        stat_inc(c->manager->server->stats_main, cluster_stat(c->info, CS_UPDATE_FAILURE));
        cluster_main_ready(c);
}

static bool start_eds(struct cluster_main *c, const struct diag_at *at, struct diags *d)
{
        struct cluster_manager *m = c->manager;
        const Xds__Cluster__EdsClusterConfig *e = c->info->proto->eds_cluster_config;
        uint64_t wait = 15000;

        c->eds_name = e->service_name && e->service_name[0] ? str_of(e->service_name) : c->info->name;
        if (!e->eds_config) {
                struct arena a;

                arena_init(&a, 256);
                struct diag_at sub = at_path(&a, at, ".eds_cluster_config.eds_config");

                diag_add(d, DIAG_ERROR, NULL, &sub, "is missing");
                arena_fini(&a);
                return false;
        }
        wait = duration_ms(e->eds_config->initial_fetch_timeout, wait, at, d);
        if (!m->eds)
                return m->server->opts.mode == SERVER_VALIDATE;
        c->init_timer.fn = init_timeout;
        c->init_timer.arg = c;
        if (wait)
                loop_timer_arm(m->server->loop, &c->init_timer, wait);
        return m->eds->subscribe(m->eds_arg, c, at, d);
}

static bool start(struct cluster_main *c, const struct diag_at *at, struct diags *d)
{
        struct host_list *l;

        switch (c->info->type) {
        case CLUSTER_STATIC:
                l = list_from(c, c->info->proto->load_assignment, at, d);
                if (!l)
                        return false;
                cluster_main_set_hosts(c, l);
                cluster_main_ready(c);
                return true;
        case CLUSTER_STRICT_DNS:
        case CLUSTER_LOGICAL_DNS:
                c->dns = dns_cluster_new(c, at, d);
                return c->dns != NULL;
        case CLUSTER_EDS:
                return start_eds(c, at, d);
        default:
                cluster_main_ready(c);
                return true;
        }
}

bool cluster_manager_set(struct cluster_manager *m, const struct Xds__Cluster *proto, bool dynamic, struct str version,
                         const struct diag_at *at, struct diags *d)
{
        struct str name = str_of(proto->name);
        struct cluster_main *active = strmap_get(&m->active, name), *warming = strmap_get(&m->warming, name), *c;
        struct cluster_main *now = warming ? warming : active;
        struct cluster_info *info;
        struct diag_at sub;
        struct arena a;

        if (now && !now->dynamic && dynamic) { /* Envoy: static clusters cannot be changed; the message is skipped */
                LOG(LOG_WARN, "upstream", "cluster %.*s is static: the dynamic one of that name is ignored", STR_ARG(name));
                return true;
        }
        if (now && !dynamic) {
                diag_add(d, DIAG_ERROR, NULL, at, "there are two clusters named \"" STR_FMT "\"", STR_ARG(name));
                return false;
        }
        if (now && pb_hash(&proto->base) == cluster_shared(now->info)->hash && pb_equal(&proto->base, &now->info->proto->base)) {
                free(now->version);
                now->version = str_dup(version);
                return true;
        }
        info = cluster_info_build(m->server, proto, at, d);
        if (!info)
                return false;
        c = MEM_NEW(struct cluster_main);
        c->manager = m;
        c->info = info;
        c->dynamic = dynamic;
        c->version = str_dup(version);
        c->updated_us = clock_real_us();
        info->main = c;
        arena_init(&a, 256);
        sub = at_path(&a, at, ".load_assignment");
        if (info->type != CLUSTER_STATIC)
                sub = *at;
        if (warming) {
                strmap_del(&m->warming, name);
                main_free(warming);
        }
        strmap_set(&m->warming, name, c);
        if (!start(c, &sub, d)) {
                strmap_del(&m->warming, name);
                main_free(c);
                arena_fini(&a);
                gauges(m);
                return false;
        }
        arena_fini(&a);
        stat_inc(m->server->stats_main, stat_of(m->scope, now ? CM_MODIFIED : CM_ADDED));
        gauges(m);
        if (c->dns)
                dns_cluster_start(c->dns);
        return true;
}

bool cluster_manager_remove(struct cluster_manager *m, struct str name)
{
        struct cluster_main *active = strmap_get(&m->active, name), *warming = strmap_get(&m->warming, name);

        if ((!active || !active->dynamic) && !warming)
                return false;
        if (warming) {
                strmap_del(&m->warming, name);
                main_free(warming);
        }
        if (active && active->dynamic) {
                strmap_del(&m->active, name);
                main_free(active);
                m->changed = true;
        }
        stat_inc(m->server->stats_main, stat_of(m->scope, CM_REMOVED));
        gauges(m);
        if (!m->warming.live && m->on_ready)
                m->on_ready(m->on_ready_arg);
        return true;
}

/* Snapshots. */

struct snapshot_post {
        struct worker *worker;
        struct snapshot *snapshot;
};

static void snapshot_post_run(void *arg)
{
        struct snapshot_post *p = arg;

        worker_snapshot_set(p->worker, p->snapshot);
        free(p);
}

void cluster_manager_publish(struct cluster_manager *m)
{
        struct snapshot *s;

        if (!m->changed)
                return;
        m->changed = false;
        s = MEM_NEW(struct snapshot);
        s->refs = 1;
        s->generation = ++m->generation;
        STRMAP_EACH (&m->active, it) {
                struct cluster_main *c = it->value;

                strmap_set(&s->clusters, it->key, cluster_info_ref(c->info));
        }
        snapshot_unref(m->snapshot);
        m->snapshot = s;
        for (unsigned i = 0; i < m->server->nworkers; i++) {
                struct snapshot_post *p = MEM_NEW(struct snapshot_post);

                p->worker = m->server->workers[i];
                p->snapshot = snapshot_ref(s);
                worker_post(p->worker, snapshot_post_run, p);
        }
}

struct snapshot *cluster_manager_snapshot(struct cluster_manager *m)
{
        return snapshot_ref(m->snapshot);
}

/* Resolvers. */

static struct str resolver_text(struct arena *a, const Xds__Address *ad, const struct diag_at *at, struct diags *d)
{
        struct addr x;
        char t[ADDR_TEXT_MAX];

        if (!address_read(ad, &x, at, d))
                return (struct str){ 0 };
        if (!addr_port(&x))
                addr_set_port(&x, 53);
        return arena_str(a, str_make(t, addr_text(&x, t)));
}

struct dns *cluster_manager_dns(struct cluster_manager *m, const struct Xds__Cluster *p, const struct diag_at *at, struct diags *d)
{
        const Xds__TypedExtensionConfig *t = p->typed_dns_resolver_config;
        struct buf key = BUF_INIT;
        struct str servers[8];
        unsigned n = 0;
        bool tcp = p->use_tcp_for_dns_lookups, no_search = false;
        struct resolver *r = NULL;
        struct arena a;
        size_t errors = d->errors;

        arena_init(&a, 512);
        if (t) {
                struct diag_at sub = at_path(&a, at, ".typed_dns_resolver_config.typed_config");
                struct ext e;

                if (!ext_read(t->typed_config, &a, &sub, d, &e))
                        goto out;
                if (e.msg->descriptor != &xds__cares_dns_resolver_config__descriptor) {
                        diag_add(d, DIAG_ERROR, NULL, &sub, "DNS resolver \"" STR_FMT "\" is not supported", STR_ARG(e.type));
                        goto out;
                }
                const Xds__CaresDnsResolverConfig *c = (const Xds__CaresDnsResolverConfig *)e.msg;

                for (size_t i = 0; i < c->n_resolvers && n < ARRAY_LEN(servers); i++) {
                        struct diag_at ra = at_path(&a, &sub, ".resolvers[%zu]", i);

                        servers[n++] = resolver_text(&a, c->resolvers[i], &ra, d);
                }
                if (c->dns_resolver_options) {
                        tcp = tcp || c->dns_resolver_options->use_tcp_for_dns_lookups;
                        no_search = c->dns_resolver_options->no_default_search_domain;
                }
        }
        if (d->errors != errors)
                goto out;
        buf_printf(&key, "%d%d", tcp, no_search);
        for (unsigned i = 0; i < n; i++)
                buf_printf(&key, "," STR_FMT, STR_ARG(servers[i]));
        for (r = m->resolvers; r && !str_eq(r->key, buf_view(&key)); r = r->next)
                ;
        if (!r) {
                struct dns *dns = dns_new(m->server->loop, servers, n, tcp, no_search);

                if (!dns) {
                        diag_add(d, DIAG_ERROR, NULL, at, "cannot start a DNS resolver: %s", strerror(errno));
                        goto out;
                }
                r = MEM_NEW(struct resolver);
                r->key = (struct str){ str_dup(buf_view(&key)), key.n };
                r->dns = dns;
                r->next = m->resolvers;
                m->resolvers = r;
        }
out:
        buf_fini(&key);
        arena_fini(&a);
        return r ? r->dns : NULL;
}

/* The rest. */

struct cluster_main *cluster_manager_get(struct cluster_manager *m, struct str name)
{
        return strmap_get(&m->active, name);
}

struct strmap *cluster_manager_active(struct cluster_manager *m)
{
        return &m->active;
}

struct strmap *cluster_manager_warming(struct cluster_manager *m)
{
        return &m->warming;
}

bool cluster_manager_ready(const struct cluster_manager *m)
{
        return m->warming.live == 0;
}

void cluster_manager_on_ready(struct cluster_manager *m, void (*fn)(void *arg), void *arg)
{
        m->on_ready = fn;
        m->on_ready_arg = arg;
}

void cluster_manager_eds(struct cluster_manager *m, const struct eds_hooks *hooks, void *arg)
{
        m->eds = hooks;
        m->eds_arg = arg;
}

void cluster_manager_refresh_stats(struct cluster_manager *m)
{
        static const struct {
                enum breaker_kind kind;
                unsigned open[PRIO_COUNT], remaining[PRIO_COUNT];
        } map[] = {
                { BREAKER_CX, { CS_CB_DEFAULT_CX_OPEN, CS_CB_HIGH_CX_OPEN }, { CS_CB_DEFAULT_REMAINING_CX, CS_CB_HIGH_REMAINING_CX } },
                { BREAKER_PENDING,
                  { CS_CB_DEFAULT_RQ_PENDING_OPEN, CS_CB_HIGH_RQ_PENDING_OPEN },
                  { CS_CB_DEFAULT_REMAINING_PENDING, CS_CB_HIGH_REMAINING_PENDING } },
                { BREAKER_RQ, { CS_CB_DEFAULT_RQ_OPEN, CS_CB_HIGH_RQ_OPEN }, { CS_CB_DEFAULT_REMAINING_RQ, CS_CB_HIGH_REMAINING_RQ } },
                { BREAKER_RETRIES,
                  { CS_CB_DEFAULT_RQ_RETRY_OPEN, CS_CB_HIGH_RQ_RETRY_OPEN },
                  { CS_CB_DEFAULT_REMAINING_RETRIES, CS_CB_HIGH_REMAINING_RETRIES } },
        };
        struct stats_local *st = m->server->stats_main;

        STRMAP_EACH (&m->active, it) {
                const struct cluster_info *c = ((struct cluster_main *)it->value)->info;

                for (unsigned p = 0; p < PRIO_COUNT; p++)
                        for (unsigned i = 0; i < ARRAY_LEN(map); i++) {
                                const struct breakers *b = &c->breakers[p];
                                uint32_t now = b->now[map[i].kind], max = b->max[map[i].kind];

                                if (max == UINT32_MAX && !b->track_remaining)
                                        continue; /* never opens: the slots stay untouched */
                                if (breaker_open(c, p, map[i].kind) || stats_read(m->server->stats, cluster_stat(c, map[i].open[p])))
                                        stat_set(st, cluster_stat(c, map[i].open[p]), breaker_open(c, p, map[i].kind));
                                if (b->track_remaining)
                                        stat_set(st, cluster_stat(c, map[i].remaining[p]), max > now ? max - now : 0);
                        }
        }
}

void cluster_manager_free(struct cluster_manager *m)
{
        if (!m)
                return;
        STRMAP_EACH (&m->warming, it)
                main_free(it->value);
        STRMAP_EACH (&m->active, it)
                main_free(it->value);
        if (m->server->loop)
                loop_undefer(m->server->loop, &m->publish);
        strmap_fini(&m->warming);
        strmap_fini(&m->active);
        snapshot_unref(m->snapshot);
        while (m->resolvers) {
                struct resolver *r = m->resolvers;

                m->resolvers = r->next;
                dns_free(r->dns);
                free((void *)r->key.p);
                free(r);
        }
        stats_scope_unref(m->server->stats, m->scope);
        free(m->free_index);
        pthread_mutex_destroy(&m->lock);
        free(m);
}
