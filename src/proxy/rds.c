/* Route slots. A slot is found by name and source; configurations hold references to it, from any thread, and the last one that goes
 * tells the main thread, which alone subscribes and unsubscribes. */
#include "proxy/rds.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/ext.h"
#include "proxy/listener_manager.h"
#include "proxy/rds_manager.h"
#include "proxy/server.h"
#include "proxy/worker.h"

#include "envoy/core.pb-c.h"
#include "envoy/hcm.pb-c.h"
#include "envoy/route.pb-c.h"
#include "google/any.pb-c.h"

#include <stdlib.h>

static const struct stat_def rds_defs[RS_COUNT] = {
        [RS_CONFIG_RELOAD] = { "config_reload", STAT_COUNTER },     [RS_UPDATE_ATTEMPT] = { "update_attempt", STAT_COUNTER },
        [RS_UPDATE_EMPTY] = { "update_empty", STAT_COUNTER },       [RS_UPDATE_FAILURE] = { "update_failure", STAT_COUNTER },
        [RS_UPDATE_REJECTED] = { "update_rejected", STAT_COUNTER }, [RS_UPDATE_SUCCESS] = { "update_success", STAT_COUNTER },
};

struct rds_manager {
        struct server *server;
        struct rds_slot **v;
        size_t n, cap;
        unsigned *free_index;
        size_t nfree, cap_free;
        unsigned next_index;
        const struct rds_hooks *hooks;
        void *arg;
};

struct rds_manager *rds_manager_new(struct server *s)
{
        struct rds_manager *m = MEM_NEW(struct rds_manager);

        m->server = s;
        return m;
}

void rds_manager_hooks(struct rds_manager *m, const struct rds_hooks *h, void *arg)
{
        m->hooks = h;
        m->arg = arg;
}

/* Tables on their way to the workers. */

struct table_post {
        struct worker *worker;
        unsigned index;
        struct route_table *table;
};

static void table_post_run(void *arg)
{
        struct table_post *p = arg;
        struct worker *w = p->worker;
        const struct route_table *old;

        if (p->index >= w->nroutes) {
                size_t n = p->index + 8;

                w->routes = mem_realloc(w->routes, n * sizeof(*w->routes));
                memset(w->routes + w->nroutes, 0, (n - w->nroutes) * sizeof(*w->routes));
                w->nroutes = n;
        }
        old = w->routes[p->index];
        w->routes[p->index] = p->table;
        if (old)
                route_table_unref(old);
        free(p);
}

static void table_post(struct server *s, unsigned index, const struct route_table *t)
{
        for (unsigned i = 0; i < s->nworkers; i++) {
                struct table_post *p = MEM_NEW(struct table_post);

                p->worker = s->workers[i];
                p->index = index;
                p->table = t ? route_table_ref(t) : NULL;
                worker_post(p->worker, table_post_run, p);
        }
}

struct route_table *rds_slot_table(struct worker *w, const struct rds_slot *r)
{
        return r->index < w->nroutes ? (struct route_table *)w->routes[r->index] : NULL;
}

/* Slots. */

static void slot_free(struct rds_manager *m, struct rds_slot *r)
{
        struct server *s = m->server;

        if (r->sub && m->hooks)
                m->hooks->unsubscribe(m->arg, r);
        loop_timer_stop(s->loop, &r->timer);
        table_post(s, r->index, NULL);
        VEC_PUSH(m->free_index, m->nfree, m->cap_free) = r->index;
        for (size_t i = 0; i < m->n; i++)
                if (m->v[i] == r) {
                        m->v[i] = m->v[--m->n];
                        break;
                }
        if (r->proto_arena) {
                arena_fini(r->proto_arena);
                free(r->proto_arena);
        }
        stats_scope_unref(s->stats, r->stats);
        free((char *)r->name.p);
        free(r->version);
        free(r->file);
        free(r);
}

static void slot_gone(void *arg)
{
        struct rds_slot *r = arg;

        r->gone_posted = false;
        if (!atomic_load(&r->refs)) /* nobody asked for it meanwhile */
                slot_free(r->server->rds, r);
}

void rds_slot_unref(struct rds_slot *r)
{
        struct server *s;

        if (!r)
                return;
        s = r->server;
        if (atomic_fetch_sub(&r->refs, 1) == 1)
                loop_post(s->loop, slot_gone, r);
}

static void slot_ready(struct rds_slot *r)
{
        if (r->ready)
                return;
        r->ready = true;
        loop_timer_stop(r->server->loop, &r->timer);
        listener_manager_check(r->server->listeners);
}

static void timed_out(struct loop_timer *t)
{
        struct rds_slot *r = t->arg;

        LOG(LOG_WARN, "router", "route configuration %.*s: no answer from the control plane in time; going on without", STR_ARG(r->name));
        stat_inc(r->server->stats_main, stat_of(r->stats, RS_UPDATE_FAILURE));
        slot_ready(r);
}

static const char *file_of(const Xds__ConfigSource *cs)
{
        if (cs->config_source_specifier_case == XDS__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH)
                return cs->path;
        if (cs->config_source_specifier_case == XDS__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH_CONFIG_SOURCE)
                return cs->path_config_source->path;
        return NULL;
}

static struct rds_slot *slot_new(struct rds_manager *m, struct str name, const char *file)
{
        struct rds_slot *r = MEM_NEW(struct rds_slot);
        struct buf prefix = BUF_INIT;
        struct stat_tag tag = { "envoy.rds_route_config", name };

        r->server = m->server;
        r->index = m->nfree ? m->free_index[--m->nfree] : m->next_index++;
        r->name = (struct str){ str_dup(name), name.n };
        r->file = file ? mem_strdup(file) : NULL;
        r->timer.fn = timed_out;
        r->timer.arg = r;
        buf_printf(&prefix, "rds." STR_FMT ".", STR_ARG(name));
        r->stats = stats_scope(m->server->stats, buf_view(&prefix), STR("rds."), &tag, 1, rds_defs, RS_COUNT);
        buf_fini(&prefix);
        VEC_PUSH(m->v, m->n, m->cap) = r;
        return r;
}

struct rds_slot *rds_slot_get(struct server *s, const struct Xds__Rds *rds, const struct diag_at *at, struct diags *d)
{
        struct rds_manager *m = s->rds;
        struct str name = rds->route_config_name ? str_of(rds->route_config_name) : (struct str){ 0 };
        const char *file;
        struct rds_slot *r;
        uint64_t wait;

        if (!name.n || !rds->config_source) {
                diag_add(d, DIAG_ERROR, NULL, at, name.n ? "config_source is missing" : "route_config_name is missing");
                return NULL;
        }
        file = file_of(rds->config_source);
        for (size_t i = 0; i < m->n; i++) {
                r = m->v[i];
                if (str_eq(r->name, name) && (r->file == NULL) == (file == NULL) && (!file || strcmp(file, r->file) == 0)) {
                        atomic_fetch_add(&r->refs, 1);
                        return r;
                }
        }
        wait = duration_ms(rds->config_source->initial_fetch_timeout, 15000, at, d);
        r = slot_new(m, name, file);
        r->refs = 1;
        if (s->opts.mode == SERVER_VALIDATE) {
                r->ready = true;
                return r;
        }
        stat_inc(s->stats_main, stat_of(r->stats, RS_UPDATE_ATTEMPT));
        if (!m->hooks || !m->hooks->subscribe(m->arg, r, rds->config_source, at, d)) {
                if (!m->hooks)
                        diag_add(d, DIAG_ERROR, NULL, at,
                                 "there is no source of route configurations: dynamic_resources.ads_config is missing");
                slot_free(m, r);
                return NULL;
        }
        if (wait)
                loop_timer_arm(s->loop, &r->timer, wait);
        return r;
}

bool rds_manager_apply(struct rds_manager *m, struct str name, const char *file, const struct Xds__RouteConfiguration *rc,
                       struct str version, const struct diag_at *at, struct diags *d)
{
        for (size_t i = 0; i < m->n; i++) {
                struct rds_slot *r = m->v[i];
                struct route_table *t;
                struct arena *a;

                if (!str_eq(r->name, name) || (r->file == NULL) != (file == NULL) || (file && strcmp(file, r->file) != 0))
                        continue;
                if (r->proto && pb_equal(&r->proto->base, &rc->base)) {
                        free(r->version);
                        r->version = str_dup(version);
                        slot_ready(r);
                        continue;
                }
                t = route_table_build(m->server, rc, at, d);
                if (!t) {
                        stat_inc(m->server->stats_main, stat_of(r->stats, RS_UPDATE_REJECTED));
                        return false;
                }
                a = MEM_NEW(struct arena);
                arena_init(a, 2048);
                r->proto = (const Xds__RouteConfiguration *)pb_clone_message(&rc->base, a);
                if (r->proto_arena) {
                        arena_fini(r->proto_arena);
                        free(r->proto_arena);
                }
                r->proto_arena = a;
                free(r->version);
                r->version = str_dup(version);
                r->updated_us = clock_real_us();
                table_post(m->server, r->index, t);
                route_table_unref(t);
                stat_inc(m->server->stats_main, stat_of(r->stats, RS_UPDATE_SUCCESS));
                stat_inc(m->server->stats_main, stat_of(r->stats, RS_CONFIG_RELOAD));
                slot_ready(r);
        }
        return true;
}

void rds_manager_missing(struct rds_manager *m, struct str name)
{
        for (size_t i = 0; i < m->n; i++)
                if (str_eq(m->v[i]->name, name) && !m->v[i]->file) {
                        stat_inc(m->server->stats_main, stat_of(m->v[i]->stats, RS_UPDATE_EMPTY));
                        slot_ready(m->v[i]);
                }
}

void rds_manager_each(struct rds_manager *m, void (*fn)(void *arg, struct rds_slot *r), void *arg)
{
        for (size_t i = 0; i < m->n; i++)
                fn(arg, m->v[i]);
}

void rds_manager_free(struct rds_manager *m)
{
        if (!m)
                return;
        m->server->nworkers = 0; /* they are gone: nothing to post to */
        while (m->n)
                slot_free(m, m->v[m->n - 1]);
        free(m->v);
        free(m->free_index);
        free(m);
}
