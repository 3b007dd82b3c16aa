#include "proxy/listener_manager.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/sock.h"
#include "pb/pb.h"
#include "proxy/rds_manager.h"
#include "proxy/server.h"
#include "proxy/worker.h"

#include "envoy/listener.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum {
        LM_ADDED,
        LM_CREATE_FAILURE,
        LM_CREATE_SUCCESS,
        LM_IN_PLACE,
        LM_MODIFIED,
        LM_REMOVED,
        LM_STOPPED,
        LM_ACTIVE,
        LM_DRAINING,
        LM_WARMING,
        LM_WORKERS_STARTED,
        LM_COUNT
};

static const struct stat_def lm_defs[LM_COUNT] = {
        [LM_ADDED] = { "listener_added", STAT_COUNTER },
        [LM_CREATE_FAILURE] = { "listener_create_failure", STAT_COUNTER },
        [LM_CREATE_SUCCESS] = { "listener_create_success", STAT_COUNTER },
        [LM_IN_PLACE] = { "listener_in_place_updated", STAT_COUNTER },
        [LM_MODIFIED] = { "listener_modified", STAT_COUNTER },
        [LM_REMOVED] = { "listener_removed", STAT_COUNTER },
        [LM_STOPPED] = { "listener_stopped", STAT_COUNTER },
        [LM_ACTIVE] = { "total_listeners_active", STAT_GAUGE },
        [LM_DRAINING] = { "total_listeners_draining", STAT_GAUGE },
        [LM_WARMING] = { "total_listeners_warming", STAT_GAUGE },
        [LM_WORKERS_STARTED] = { "workers_started", STAT_GAUGE },
};

struct listener_manager {
        struct server *server;
        struct stat_scope *scope;
        struct listener_main **v; /* in order of arrival */
        size_t n, cap;
        bool started;
};

struct listener_manager *listener_manager_new(struct server *s)
{
        struct listener_manager *m = MEM_NEW(struct listener_manager);

        m->server = s;
        m->scope = stats_scope(s->stats, STR("listener_manager."), STR("listener_manager."), NULL, 0, lm_defs, LM_COUNT);
        return m;
}

static void count(struct listener_manager *m, unsigned row)
{
        stat_inc(m->server->stats_main, stat_of(m->scope, row));
}

static void gauges(struct listener_manager *m)
{
        uint64_t active = 0, warming = 0;

        for (size_t i = 0; i < m->n; i++) {
                active += m->v[i]->active != NULL;
                warming += m->v[i]->warming != NULL;
        }
        stat_set(m->server->stats_main, stat_of(m->scope, LM_ACTIVE), active);
        stat_set(m->server->stats_main, stat_of(m->scope, LM_WARMING), warming);
        stat_set(m->server->stats_main, stat_of(m->scope, LM_WORKERS_STARTED), m->started);
}

/* Sockets. */

static void fds_free(struct listener_manager *m, struct listener_main *l, unsigned naddr)
{
        if (!l->fds)
                return;
        for (unsigned i = 0; i < m->server->nworkers * naddr; i++)
                if (l->fds[i] >= 0)
                        close(l->fds[i]);
        free(l->fds);
        l->fds = NULL;
}

static int open_one(const struct listener_config *c, struct addr *a, unsigned worker, int first, int *out)
{
        struct sock_listen_opts o = { .backlog = c->backlog,
                                      .reuse_port = c->reuse_port && a->sa.sa_family != AF_UNIX,
                                      .transparent = c->transparent,
                                      .freebind = c->freebind };
        int fd;

        if (worker && !o.reuse_port)
                fd = fcntl(first, F_DUPFD_CLOEXEC, 3);
        else
                fd = sock_listen(a, &o);
        if (fd < 0)
                return worker && !o.reuse_port ? -errno : fd;
        if (!addr_port(a) && a->sa.sa_family != AF_UNIX)
                sock_local(fd, a); /* the others join this port */
        *out = fd;
        return 0;
}

/* One socket an address and worker: [worker * naddr + address]. */
static bool fds_open(struct listener_manager *m, struct listener_main *l, const struct listener_config *c, struct addr *bound,
                     const struct diag_at *at, struct diags *d)
{
        unsigned nw = m->server->nworkers;

        memcpy(bound, c->addr, sizeof(c->addr));
        l->fds = mem_alloc(nw * c->naddr * sizeof(int));
        for (unsigned i = 0; i < nw * c->naddr; i++)
                l->fds[i] = -1;
        for (unsigned a = 0; a < c->naddr; a++)
                for (unsigned w = 0; w < nw; w++) {
                        int rc = open_one(c, &bound[a], w, l->fds[a], &l->fds[w * c->naddr + a]);
                        char t[ADDR_TEXT_MAX];

                        if (!rc)
                                continue;
                        diag_add(d, DIAG_ERROR, NULL, at, "cannot bind '%.*s': %s", (int)addr_text(&c->addr[a], t), t, strerror(-rc));
                        fds_free(m, l, c->naddr);
                        return false;
                }
        return true;
}

static bool same_sockets(const struct listener_config *a, const struct listener_config *b)
{
        if (a->bind != b->bind || a->naddr != b->naddr || a->reuse_port != b->reuse_port || a->transparent != b->transparent ||
            a->freebind != b->freebind || a->backlog != b->backlog)
                return false;
        for (unsigned i = 0; i < a->naddr; i++)
                if (!addr_eq(&a->addr[i], &b->addr[i]))
                        return false;
        return true;
}

/* Posts. */

struct listener_post {
        struct worker *worker;
        struct listener_config *config;
        bool has_fds;
        int fds[LISTENER_ADDRESSES_MAX];
        char *remove;
};

static void listener_post_run(void *arg)
{
        struct listener_post *p = arg;

        if (p->remove)
                listener_worker_remove(p->worker, str_of(p->remove));
        else
                listener_worker_set(p->worker, p->config, p->has_fds ? p->fds : NULL);
        free(p->remove);
        free(p);
}

static bool waits(const struct listener_config *c)
{
        for (size_t i = 0; i <= c->nchains; i++) {
                const struct filter_chain *f = i < c->nchains ? c->chains[i] : c->fallback;

                for (size_t k = 0; f && k < f->nneeds; k++)
                        if (!f->needs[k]->ready)
                                return true;
        }
        return false;
}

static void activate(struct listener_manager *m, struct listener_main *l)
{
        struct listener_config *c = l->warming;

        if (l->active && l->active->hash_but_chains == c->hash_but_chains && !l->fds)
                count(m, LM_IN_PLACE);
        for (unsigned i = 0; i < m->server->nworkers; i++) {
                struct listener_post *p = MEM_NEW(struct listener_post);

                p->worker = m->server->workers[i];
                p->config = listener_config_ref(c);
                p->has_fds = l->fds != NULL;
                if (l->fds)
                        memcpy(p->fds, l->fds + i * c->naddr, c->naddr * sizeof(int));
                worker_post(p->worker, listener_post_run, p);
                count(m, LM_CREATE_SUCCESS);
        }
        free(l->fds);
        l->fds = NULL;
        listener_config_unref(l->active);
        l->active = c;
        l->warming = NULL;
        l->name = c->name;
        LOG(LOG_DEBUG, "config", "listener %.*s is active", STR_ARG(c->name));
}

void listener_manager_check(struct listener_manager *m)
{
        if (!m || !m->started)
                return;
        for (size_t i = 0; i < m->n; i++)
                if (m->v[i]->warming && !waits(m->v[i]->warming))
                        activate(m, m->v[i]);
        gauges(m);
        server_check_live(m->server);
}

void listener_manager_start(struct listener_manager *m)
{
        m->started = true;
        listener_manager_check(m);
}

bool listener_manager_ready(const struct listener_manager *m)
{
        if (!m->started)
                return false;
        for (size_t i = 0; i < m->n; i++)
                if (m->v[i]->warming)
                        return false;
        return true;
}

static struct listener_main *find(struct listener_manager *m, struct str name)
{
        for (size_t i = 0; i < m->n; i++)
                if (str_eq(m->v[i]->name, name))
                        return m->v[i];
        return NULL;
}

static bool address_taken(struct listener_manager *m, const struct listener_main *self, const struct listener_config *c,
                          const struct diag_at *at, struct diags *d)
{
        for (size_t i = 0; i < m->n; i++) {
                const struct listener_config *o = m->v[i]->warming ? m->v[i]->warming : m->v[i]->active;

                if (m->v[i] == self || !o)
                        continue;
                for (unsigned a = 0; a < c->naddr; a++)
                        for (unsigned b = 0; b < o->naddr; b++)
                                if (addr_eq(&c->addr[a], &o->addr[b]) && (addr_port(&c->addr[a]) || c->addr[a].sa.sa_family == AF_UNIX)) {
                                        char t[ADDR_TEXT_MAX];

                                        diag_add(d, DIAG_ERROR, NULL, at, "has duplicate address '%.*s' as existing listener '%.*s'",
                                                 (int)addr_text(&c->addr[a], t), t, STR_ARG(o->name));
                                        return true;
                                }
        }
        return false;
}

bool listener_manager_set(struct listener_manager *m, const struct Xds__Listener *p, bool dynamic, struct str version,
                          const struct diag_at *at, struct diags *d)
{
        struct listener_main *l = p->name && p->name[0] ? find(m, str_of(p->name)) : NULL;
        const struct listener_config *now = l ? (l->warming ? l->warming : l->active) : NULL;
        struct listener_config *c;
        struct addr bound[LISTENER_ADDRESSES_MAX];
        bool keep;

        if (l && (!l->dynamic || !dynamic)) {
                if (dynamic) {
                        LOG(LOG_WARN, "config", "listener %s is static: the dynamic one of that name is ignored", p->name);
                        return true;
                }
                diag_add(d, DIAG_ERROR, NULL, at, "there are two listeners named \"%s\"", p->name);
                return false;
        }
        if (now && now->hash == pb_hash(&p->base) && pb_equal(&now->proto->base, &p->base)) {
                free(l->version);
                l->version = str_dup(version);
                return true;
        }
        c = listener_config_build(m->server, p, now, at, d);
        if (!c || address_taken(m, l, c, at, d)) {
                count(m, LM_CREATE_FAILURE);
                listener_config_unref(c);
                return false;
        }
        keep = l && l->active && same_sockets(l->active, c);
        if (l && l->warming && !keep)
                fds_free(m, l, l->warming->naddr);
        if (!l) {
                l = MEM_NEW(struct listener_main);
                l->dynamic = dynamic;
                l->name = c->name;
        } else if (keep) {
                fds_free(m, l, l->warming ? l->warming->naddr : 0);
        }
        if (c->bind && !keep && m->server->opts.mode == SERVER_SERVE && !fds_open(m, l, c, bound, at, d)) {
                count(m, LM_CREATE_FAILURE);
                listener_config_unref(c);
                if (!l->active && !l->warming)
                        free(l);
                return false;
        }
        if (!keep)
                memcpy(l->bound, c->bind && m->server->opts.mode == SERVER_SERVE ? bound : c->addr, sizeof(l->bound));
        if (!l->active && !l->warming) {
                VEC_PUSH(m->v, m->n, m->cap) = l;
                count(m, LM_ADDED);
        } else {
                count(m, LM_MODIFIED);
        }
        if (l->warming && l->name.p == l->warming->name.p)
                l->name = c->name;
        listener_config_unref(l->warming);
        l->warming = c;
        free(l->version);
        l->version = str_dup(version);
        l->updated_us = clock_real_us();
        listener_manager_check(m);
        return true;
}

static void listener_main_free(struct listener_manager *m, struct listener_main *l)
{
        if (l->warming)
                fds_free(m, l, l->warming->naddr);
        listener_config_unref(l->warming);
        listener_config_unref(l->active);
        free(l->version);
        free(l->error);
        free(l->error_version);
        free(l);
}

bool listener_manager_remove(struct listener_manager *m, struct str name)
{
        struct listener_main *l = find(m, name);

        if (!l || !l->dynamic)
                return false;
        for (unsigned i = 0; l->active && i < m->server->nworkers; i++) {
                struct listener_post *p = MEM_NEW(struct listener_post);

                p->worker = m->server->workers[i];
                p->remove = str_dup(name);
                worker_post(p->worker, listener_post_run, p);
        }
        for (size_t i = 0; i < m->n; i++)
                if (m->v[i] == l) {
                        memmove(&m->v[i], &m->v[i + 1], (m->n - i - 1) * sizeof(*m->v));
                        m->n--;
                        break;
                }
        listener_main_free(m, l);
        count(m, LM_REMOVED);
        gauges(m);
        return true;
}

struct drain_post {
        struct worker *worker;
        bool inbound_only, stop;
};

static void drain_post_run(void *arg)
{
        struct drain_post *p = arg;

        if (p->stop)
                worker_listeners_stop(p->worker, p->inbound_only);
        worker_listeners_drain(p->worker, p->inbound_only);
        free(p);
}

void listener_manager_drain(struct listener_manager *m, bool inbound_only, bool stop_accepting)
{
        for (unsigned i = 0; i < m->server->nworkers; i++) {
                struct drain_post *p = MEM_NEW(struct drain_post);

                p->worker = m->server->workers[i];
                p->inbound_only = inbound_only;
                p->stop = stop_accepting;
                worker_post(p->worker, drain_post_run, p);
        }
        if (stop_accepting)
                for (size_t i = 0; i < m->n; i++)
                        count(m, LM_STOPPED);
}

size_t listener_manager_count(const struct listener_manager *m)
{
        return m->n;
}

struct listener_main *listener_manager_at(const struct listener_manager *m, size_t i)
{
        return m->v[i];
}

void listener_manager_free(struct listener_manager *m)
{
        if (!m)
                return;
        for (size_t i = 0; i < m->n; i++)
                listener_main_free(m, m->v[i]);
        stats_scope_unref(m->server->stats, m->scope);
        free(m->v);
        free(m);
}
