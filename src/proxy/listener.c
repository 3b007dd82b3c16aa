/* A worker's listeners: accepting, handing connections to filter chains, draining.
 *
 * Who may go when: a connection belongs to its listener_worker, which stays until its last connection is gone, even when the configuration
 * has long dropped the listener. A connection's filter chain is referenced by the connection itself. */
#include "proxy/listener.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/access_log.h"
#include "proxy/server.h"
#include "proxy/worker.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

enum { ACCEPT_PAUSE_MS = 100, CLOSE_TURNS_MAX = 100 };

static void count(const struct listener_worker *l, unsigned row)
{
        stat_inc(l->worker->stats, stat_of(l->stats, row));
}

static void accept_resume(struct loop_timer *t)
{
        struct listener_worker *l = t->arg;

        for (unsigned i = 0; i < l->nwatch; i++)
                loop_watch_change(l->worker->loop, &l->watch[i], LOOP_READ | LOOP_LEVEL);
}

static void accept_pause(struct listener_worker *l, int err)
{
        LOG(LOG_ERROR, "conn_handler", "listener %.*s: accept: %s; pausing for %d ms", STR_ARG(l->config->name), strerror(err),
            ACCEPT_PAUSE_MS);
        for (unsigned i = 0; i < l->nwatch; i++)
                loop_watch_change(l->worker->loop, &l->watch[i], LOOP_LEVEL);
        loop_timer_arm(l->worker->loop, &l->pause_timer, ACCEPT_PAUSE_MS);
}

static bool over_limit(struct listener_worker *l)
{
        struct server *s = l->worker->server;

        if (s->max_connections && !l->config->ignore_global_limit &&
            atomic_load_explicit(&s->connections, memory_order_relaxed) >= s->max_connections) {
                count(l, LS_DOWNSTREAM_GLOBAL_CX_OVERFLOW);
                return true;
        }
        if (l->config->count && atomic_load_explicit(&l->config->count->n, memory_order_relaxed) >= l->config->max_connections) {
                count(l, LS_DOWNSTREAM_CX_OVERFLOW);
                return true;
        }
        return false;
}

static void on_accept(struct loop_watch *watch, unsigned ready)
{
        struct listener_worker *l = watch->arg;
        unsigned max = l->burst && l->burst < l->config->accept_max ? l->burst : l->burst ? l->config->accept_max : 1, n = 0;

        for (; n < max && watch->fd >= 0; n++) {
                struct addr peer;
                int fd = sock_accept(watch->fd, &peer);

                if (fd == -EAGAIN)
                        break;
                if (fd == -ECONNABORTED || fd == -EINTR)
                        continue;
                if (fd < 0) {
                        accept_pause(l, -fd);
                        return;
                }
                if (over_limit(l)) {
                        close(fd);
                        continue;
                }
                pending_conn_new(l, fd, &peer);
        }
        /* The socket is level-triggered: one accept an event is enough while connections come one by one, and saves the call that says
         * there are no more; when they come faster, more are taken at once. */
        l->burst = n == max ? (max < UINT_MAX / 2 ? max * 2 : max) : n ? n : 1;
}

/* Lookup by address. */

static struct str address_key(const struct addr *a, char t[ADDR_TEXT_MAX])
{
        return str_make(t, addr_text(a, t));
}

struct listener_worker *listener_for_address(struct worker *w, const struct addr *a)
{
        char t[ADDR_TEXT_MAX];
        struct listener_worker *l = strmap_get(&w->listener_by_addr, address_key(a, t));
        struct addr any;

        if (l)
                return l;
        if (a->sa.sa_family == AF_INET && addr_parse_ip(&any, STR("0.0.0.0"), addr_port(a)))
                l = strmap_get(&w->listener_by_addr, address_key(&any, t));
        if (!l && addr_parse_ip(&any, STR("::"), addr_port(a)))
                l = strmap_get(&w->listener_by_addr, address_key(&any, t));
        return l;
}

static void index_add(struct listener_worker *l)
{
        char t[ADDR_TEXT_MAX];

        for (unsigned i = 0; i < l->config->naddr; i++)
                strmap_set(&l->worker->listener_by_addr, address_key(&l->config->addr[i], t), l);
}

static void index_del(struct listener_worker *l)
{
        char t[ADDR_TEXT_MAX];

        for (unsigned i = 0; i < l->config->naddr; i++)
                if (strmap_get(&l->worker->listener_by_addr, address_key(&l->config->addr[i], t)) == l)
                        strmap_del(&l->worker->listener_by_addr, address_key(&l->config->addr[i], t));
}

/* Life and death. */

static void close_due(struct loop_timer *t);
static void reap_listener(struct loop_task *t);

static struct listener_worker *listener_new(struct worker *w, struct listener_config *c)
{
        struct listener_worker *l = MEM_NEW(struct listener_worker);

        l->worker = w;
        l->config = c;
        l->stats = c->stats;
        l->name = (struct str){ str_dup(c->name), c->name.n };
        l->pause_timer.fn = accept_resume;
        l->pause_timer.arg = l;
        l->drain_timer.fn = close_due;
        l->drain_timer.arg = l;
        l->reap.fn = reap_listener;
        l->reap.arg = l;
        for (unsigned i = 0; i < LISTENER_ADDRESSES_MAX; i++)
                l->watch[i].fd = -1;
        l->next = w->listeners;
        l->pprev = &w->listeners;
        if (l->next)
                l->next->pprev = &l->next;
        w->listeners = l;
        return l;
}

static void stop_accepting(struct listener_worker *l, int *keep)
{
        loop_timer_stop(l->worker->loop, &l->pause_timer);
        for (unsigned i = 0; i < l->nwatch; i++) {
                int fd = l->watch[i].fd;

                loop_unwatch(l->worker->loop, &l->watch[i]);
                if (keep)
                        keep[i] = fd;
                else
                        close(fd);
                l->watch[i].fd = -1;
        }
        l->nwatch = 0;
}

static void start_accepting(struct listener_worker *l, const int *fds)
{
        for (unsigned i = 0; i < l->config->naddr; i++) {
                int rc = loop_watch(l->worker->loop, &l->watch[i], fds[i], LOOP_READ | LOOP_LEVEL, on_accept, l);

                if (rc) {
                        LOG(LOG_ERROR, "conn_handler", "listener %.*s: cannot watch its socket: %s", STR_ARG(l->config->name),
                            strerror(-rc));
                        close(fds[i]);
                        continue;
                }
                l->nwatch = i + 1;
        }
}

static void reap_listener(struct loop_task *t)
{
        struct listener_worker *l = t->arg;

        if (l->nconns)
                return;
        loop_timer_stop(l->worker->loop, &l->drain_timer);
        *l->pprev = l->next;
        if (l->next)
                l->next->pprev = l->pprev;
        listener_config_unref(l->config);
        free((char *)l->name.p);
        free(l);
}

void listener_worker_joined(struct listener_worker *l)
{
        l->nconns++;
        if (l->config->count)
                atomic_fetch_add_explicit(&l->config->count->n, 1, memory_order_relaxed);
}

void listener_worker_left(struct listener_worker *l)
{
        l->nconns--;
        if (l->config->count)
                atomic_fetch_sub_explicit(&l->config->count->n, 1, memory_order_relaxed);
        if (l->retired && !l->nconns)
                loop_defer(l->worker->loop, &l->reap);
}

static const struct chain_filter *terminal(const struct downstream *d)
{
        return &d->chain->filters[d->chain->nfilters - 1];
}

/* Tells a connection to end when it can, and notes when it must. */
static void drain_conn(struct downstream *d)
{
        struct listener_worker *l = d->listener;
        uint64_t ms = (uint64_t)l->worker->server->opts.drain_time_s * 1000;

        if (d->draining)
                return;
        d->draining = true;
        d->close_at_ms = loop_now_ms(l->worker->loop) + ms;
        if (!loop_timer_armed(&l->drain_timer))
                loop_timer_arm(l->worker->loop, &l->drain_timer, ms);
        if (terminal(d)->def->drain)
                terminal(d)->def->drain(terminal(d)->config, d);
}

static void close_due(struct loop_timer *t)
{
        struct listener_worker *l = t->arg;
        uint64_t now = loop_now_ms(l->worker->loop), next = 0;

        for (struct downstream *d = l->conns, *after; d; d = after) {
                after = d->next;
                if (!d->draining)
                        continue;
                if (d->close_at_ms <= now)
                        terminal(d)->def->close(terminal(d)->config, d);
                else if (!next || d->close_at_ms < next)
                        next = d->close_at_ms;
        }
        if (next)
                loop_timer_arm(l->worker->loop, t, next - now);
}

static bool has_chain(const struct listener_config *c, const struct filter_chain *f)
{
        if (c->fallback == f)
                return true;
        for (size_t i = 0; i < c->nchains; i++)
                if (c->chains[i] == f)
                        return true;
        return false;
}

static void drain_conns(struct listener_worker *l, const struct listener_config *unless)
{
        for (struct downstream *d = l->conns, *after; d; d = after) {
                after = d->next;
                if (!unless || !has_chain(unless, d->chain))
                        drain_conn(d);
        }
}

static void retire(struct listener_worker *l)
{
        index_del(l);
        l->retired = true;
        pending_conns_close(l);
        drain_conns(l, NULL);
        if (!l->nconns)
                loop_defer(l->worker->loop, &l->reap);
}

static struct listener_worker *listener_find(struct worker *w, struct str name)
{
        for (struct listener_worker *l = w->listeners; l; l = l->next)
                if (!l->retired && str_eq(l->config->name, name))
                        return l;
        return NULL;
}

void listener_worker_set(struct worker *w, struct listener_config *c, const int *fds)
{
        struct listener_worker *old = listener_find(w, c->name), *l;
        int kept[LISTENER_ADDRESSES_MAX];

        if (old && !fds && old->config->hash_but_chains == c->hash_but_chains) {
                struct listener_config *before = old->config;

                old->config = c;
                old->stats = c->stats;
                drain_conns(old, c);
                listener_config_unref(before);
                return;
        }
        if (old) {
                bool keep = !fds && old->nwatch == c->naddr;

                stop_accepting(old, keep ? kept : NULL);
                if (keep)
                        fds = kept;
                retire(old);
        }
        l = listener_new(w, c);
        index_add(l);
        if (fds && c->bind)
                start_accepting(l, fds);
}

void listener_worker_remove(struct worker *w, struct str name)
{
        struct listener_worker *l = listener_find(w, name);

        if (!l)
                return;
        stop_accepting(l, NULL);
        retire(l);
}

void worker_listeners_drain(struct worker *w, bool inbound_only)
{
        w->draining = true;
        for (struct listener_worker *l = w->listeners; l; l = l->next)
                if (!inbound_only || l->config->inbound)
                        drain_conns(l, NULL);
}

void worker_listeners_stop(struct worker *w, bool inbound_only)
{
        for (struct listener_worker *l = w->listeners; l; l = l->next)
                if (!inbound_only || l->config->inbound)
                        stop_accepting(l, NULL);
}

size_t worker_connections(const struct worker *w)
{
        size_t n = 0;

        for (const struct listener_worker *l = w->listeners; l; l = l->next)
                n += l->nconns;
        return n;
}

/* A filter may let go of its connection at once or, as HTTP does, at the end of the turn: every one is told first, then the loop turns
 * until all are gone. */
static void close_conns(struct worker *w)
{
        for (struct listener_worker *l = w->listeners, *after; l; l = after) {
                after = l->next; /* a retired listener goes with its last connection */
                stop_accepting(l, NULL);
                pending_conns_close(l);
                for (struct downstream *d = l->conns, *next; d; d = next) {
                        next = d->next;
                        terminal(d)->def->close(terminal(d)->config, d);
                }
        }
        for (int i = 0; i < CLOSE_TURNS_MAX && worker_connections(w); i++)
                loop_turn(w->loop, 0);
}

void worker_listeners_fini(struct worker *w)
{
        close_conns(w);
        for (struct listener_worker *l = w->listeners, *next; l; l = next) {
                next = l->next;
                if (l->conns) {
                        LOG(LOG_CRITICAL, "conn_handler", "filter %s did not close its connection", terminal(l->conns)->def->name);
                        abort();
                }
                if (!l->retired)
                        retire(l);
        }
        strmap_fini(&w->listener_by_addr);
        free(w->scratch);
        w->scratch = NULL;
}

/* Connections. */

static void downstream_reap(struct loop_task *t)
{
        struct downstream *d = t->arg;

        filter_chain_unref(d->chain);
        free(d->original_dst);
        free(d->strings);
        free(d);
}

void downstream_done(struct downstream *d)
{
        struct listener_worker *l = d->listener;
        struct worker *w = d->worker;

        if (d->done)
                return;
        d->done = true;
        if (!d->stream.t[ST_END])
                d->stream.t[ST_END] = clock_mono_us();
        for (unsigned i = 0; i + 1 < d->chain->nfilters; i++)
                if (d->chain->filters[i].def->on_done)
                        d->chain->filters[i].def->on_done(d->chain->filters[i].config, d);
        access_logs_write(l->config->logs, w, &d->stream);
        count(l, LS_DOWNSTREAM_CX_DESTROY);
        stat_dec(w->stats, stat_of(l->stats, LS_DOWNSTREAM_CX_ACTIVE));
        stat_record(w->stats, stat_of(l->stats, LS_DOWNSTREAM_CX_LENGTH_MS), (d->stream.t[ST_END] - d->stream.t[ST_START]) / 1000);
        atomic_fetch_sub_explicit(&w->server->connections, 1, memory_order_relaxed);
        *d->pprev = d->next;
        if (d->next)
                d->next->pprev = d->pprev;
        listener_worker_left(l);
        d->reap.fn = downstream_reap;
        d->reap.arg = d;
        loop_defer(w->loop, &d->reap);
}

/* Server name and protocols, copied into one allocation. */
static void keep_strings(struct downstream *d, const struct inspected *in)
{
        size_t n = in->sni.n + in->nalpn * sizeof(struct str);
        struct str *alpn;
        char *p;

        for (unsigned i = 0; i < in->nalpn; i++)
                n += in->alpn[i].n;
        if (!n)
                return;
        d->strings = mem_alloc(n);
        alpn = (struct str *)d->strings;
        p = d->strings + in->nalpn * sizeof(struct str);
        for (unsigned i = 0; i < in->nalpn; i++) {
                memcpy(p, in->alpn[i].p, in->alpn[i].n);
                alpn[i] = str_make(p, in->alpn[i].n);
                p += in->alpn[i].n;
        }
        if (in->sni.n)
                memcpy(p, in->sni.p, in->sni.n);
        d->info.alpn = alpn;
        d->info.nalpn = in->nalpn;
        d->info.sni = str_make(p, in->sni.n);
}

static void fill(struct downstream *d, struct listener_worker *l, const struct inspected *in)
{
        d->worker = l->worker;
        d->listener = l;
        d->conn = in->conn;
        d->original_dst = in->restored ? mem_dup(&in->original_dst, sizeof(in->original_dst)) : NULL;
        d->info.id = in->id;
        d->info.worker = l->worker;
        d->info.remote = conn_peer(in->conn);
        d->info.direct_local = conn_local(in->conn);
        d->info.local = in->restored ? d->original_dst : d->info.direct_local;
        d->info.local_restored = in->restored;
        d->info.transport_protocol = in->transport.n ? in->transport : STR("raw_buffer");
        d->info.inbound = l->config->inbound;
        d->info.outbound = l->config->outbound;
        d->info.listener_name = l->name;
        d->stream.conn = &d->info;
        d->stream.start_real_us = in->start_real_us;
        d->stream.t[ST_START] = in->start_us;
        keep_strings(d, in);
}

/* No filter takes it: logged and closed. */
static void refuse(struct downstream *d, struct inspected *in)
{
        d->stream.t[ST_END] = clock_mono_us();
        access_logs_write(d->listener->config->logs, d->worker, &d->stream);
        conn_close(in->conn, false);
        free(d->original_dst);
        free(d->strings);
        free(d);
}

void downstream_new(struct listener_worker *l, struct inspected *in)
{
        struct downstream *d = MEM_NEW(struct downstream);
        struct chain_lookup q;
        const struct filter_chain *c;

        fill(d, l, in);
        q = (struct chain_lookup){ .local = d->info.local,
                                   .remote = d->info.remote,
                                   .direct_remote = d->info.remote,
                                   .sni = d->info.sni,
                                   .transport = d->info.transport_protocol,
                                   .alpn = d->info.alpn,
                                   .nalpn = d->info.nalpn };
        c = chain_match_find(l->config->match, &q);
        if (!c)
                c = l->config->fallback;
        if (!c) {
                count(l, LS_NO_FILTER_CHAIN_MATCH);
                d->stream.flags |= RF_NR;
                d->stream.response_code_details = STR("filter_chain_not_found");
                refuse(d, in);
                return;
        }
        if (!c->nfilters) { /* a chain without filters closes what matches it */
                refuse(d, in);
                return;
        }
        d->chain = filter_chain_ref(c);
        d->info.filter_chain_name = c->name;
        count(l, LS_DOWNSTREAM_CX_TOTAL);
        stat_inc(l->worker->stats, stat_of(l->stats, LS_DOWNSTREAM_CX_ACTIVE));
        atomic_fetch_add_explicit(&l->worker->server->connections, 1, memory_order_relaxed);
        d->next = l->conns;
        d->pprev = &l->conns;
        if (d->next)
                d->next->pprev = &d->next;
        l->conns = d;
        listener_worker_joined(l);
        for (unsigned i = 0; i + 1 < c->nfilters; i++)
                if (c->filters[i].def->on_open)
                        c->filters[i].def->on_open(c->filters[i].config, d);
        const struct chain_filter *t = terminal(d);

        t->def->open(t->config, d, in->first);
        if (!d->done && l->retired) /* the listener went while this one was inspected */
                drain_conn(d);
}
