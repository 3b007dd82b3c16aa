/* See http_pool.h. The trap is re-entry: opening a stream from a waiter's callback may call back into the pool, so lists are unlinked
 * before callbacks run and nothing is kept across them. A connection outlives its pool: when the host goes, its connections lose the pool
 * and end with what runs on them. */
#include "proxy/http_pool.h"

#include "base/clock.h"
#include "base/mem.h"
#include "proxy/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct http_pool {
        struct host *host; /* not referenced: the host owns the pool; connections hold references */
        enum http_version version;
        struct pool_conn *connecting, *idle, *busy, *draining;
        struct pool_wait *first, **last; /* in order */
        unsigned nwait, nconnecting, nconns;
};

struct host_pools {
        struct http_pool *v[2]; /* HTTP/1.1, HTTP/2 */
};

enum {
        IDLE_PEEK_MS = 1000,   /* an idle connection younger than this was seen by the loop just now */
        H2_PEER_STREAMS = 100, /* what a connection that is still coming up is expected to take */
};

static void count(const struct pool_conn *c, unsigned row)
{
        stat_inc(c->worker->stats, cluster_stat(c->host->cluster->info, row));
}

static void list_add(struct pool_conn **list, struct pool_conn *c)
{
        c->next = *list;
        c->pprev = list;
        if (*list)
                (*list)->pprev = &c->next;
        *list = c;
}

static void list_del(struct pool_conn *c)
{
        if (!c->pprev)
                return;
        *c->pprev = c->next;
        if (c->next)
                c->next->pprev = c->pprev;
        c->pprev = NULL;
        c->next = NULL;
}

static void conn_set_state(struct pool_conn *c, int state)
{
        struct http_pool *p = c->pool;

        list_del(c);
        if (p && c->state == POOL_CONNECTING && state != POOL_CONNECTING)
                p->nconnecting--;
        c->state = state;
        if (!p)
                return;
        switch (state) {
        case POOL_CONNECTING:
                p->nconnecting++;
                list_add(&p->connecting, c);
                break;
        case POOL_IDLE:
                list_add(&p->idle, c);
                break;
        case POOL_BUSY:
                list_add(&p->busy, c);
                break;
        default:
                list_add(&p->draining, c);
        }
}

static void wait_unlink(struct pool_wait *w)
{
        struct http_pool *p = w->pool;
        const struct cluster_info *info = p->host->cluster->info;

        *w->pprev = w->next;
        if (w->next)
                w->next->pprev = w->pprev;
        else
                p->last = w->pprev;
        w->pprev = NULL;
        w->pool = NULL;
        p->nwait--;
        breaker_release(info, w->priority, BREAKER_PENDING);
        stat_dec(p->host->cluster->worker->stats, cluster_stat(info, CS_UPSTREAM_RQ_PENDING_ACTIVE));
}

void http_pool_cancel(struct pool_wait *w)
{
        if (w->pool)
                wait_unlink(w);
}

/* What the callbacks queue again waits for the next connection. */
static void waiters_fail(struct http_pool *p, enum pool_failure why, struct str text)
{
        for (unsigned n = p->nwait; n && p->first; n--) {
                struct pool_wait *w = p->first;

                wait_unlink(w);
                stat_inc(p->host->cluster->worker->stats, cluster_stat(p->host->cluster->info, CS_UPSTREAM_RQ_PENDING_FAILURE_EJECT));
                w->failed(w, why, text);
        }
}

static bool conn_has_room(struct pool_conn *c)
{
        const struct cluster_http *h = cluster_http_of(c->host->cluster->info);

        if (!http_client_can_stream(c->http))
                return false;
        if (h->max_requests && c->requests >= h->max_requests)
                return false;
        return c->version != HTTP_2 || !h->h2_max_streams || http_conn_streams(c->http) < h->h2_max_streams;
}

/* Stops taking requests; closes when nothing runs. */
static void conn_retire(struct pool_conn *c)
{
        if (c->state == POOL_DRAINING)
                return;
        conn_set_state(c, POOL_DRAINING);
        if (!http_conn_streams(c->http)) {
                c->closing_local = true;
                http_conn_close(c->http);
        }
}

static void serve(struct http_pool *p);
static void grow(struct http_pool *p);

static void on_idle_timeout(struct loop_timer *t)
{
        struct pool_conn *c = t->arg;

        count(c, CS_UPSTREAM_CX_IDLE_TIMEOUT);
        conn_retire(c);
}

static void on_max_duration(struct loop_timer *t)
{
        struct pool_conn *c = t->arg;

        count(c, CS_UPSTREAM_CX_MAX_DURATION_REACHED);
        conn_retire(c);
}

static void conn_became_idle(struct pool_conn *c)
{
        const struct cluster_http *h = cluster_http_of(c->host->cluster->info);

        if (h->idle_ms && !http_conn_streams(c->http))
                loop_timer_arm(c->worker->loop, &c->idle, h->idle_ms);
        c->idle_since_ms = loop_now_ms(c->worker->loop);
}

static void on_http_idle(struct http_conn *hc, void *arg)
{
        struct pool_conn *c = arg;
        const struct cluster_http *h = cluster_http_of(c->host->cluster->info);

        if (c->state == POOL_CONNECTING)
                return;
        if (c->state == POOL_DRAINING || !c->pool || (h->max_requests && c->requests >= h->max_requests) || !http_client_can_stream(hc)) {
                c->closing_local = true;
                http_conn_close(hc);
                return;
        }
        conn_became_idle(c);
        if (c->state == POOL_BUSY)
                conn_set_state(c, POOL_IDLE);
        serve(c->pool);
}

static void on_http_goaway(struct http_conn *hc, void *arg)
{
        struct pool_conn *c = arg;

        if (c->state == POOL_CONNECTING)
                return; /* on_connect or on_close follows */
        if (c->version == HTTP_2)
                count(c, CS_UPSTREAM_CX_CLOSE_NOTIFY);
        conn_retire(c);
}

/* What Envoy's transports call it; a handshake's own words when there was one. */
static struct str connect_error(struct pool_conn *c, int err)
{
        static __thread char text[160];

        if (err == ETIMEDOUT)
                return str_make("", 0);
        if (conn_is_tls(c->io))
                return str_of(conn_error_text(c->io));
        snprintf(text, sizeof(text), "delayed connect error: %s", strerror(err));
        return str_of(text);
}

static void on_http_connect(struct http_conn *hc, void *arg, int err)
{
        struct pool_conn *c = arg;
        struct http_pool *p = c->pool;

        host_connect_done(c->host, c->io, err, c->started_us);
        if (err) {
                if (p) {
                        struct str text = connect_error(c, err);

                        conn_set_state(c, POOL_DRAINING);
                        waiters_fail(p, err == ETIMEDOUT ? POOL_CONNECT_TIMEOUT : POOL_CONNECT_FAILED, text);
                }
                return;
        }
        c->was_up = true;
        c->connected_us = loop_now_us(c->worker->loop);
        c->local = *conn_local(c->io);
        if (!p) {
                c->closing_local = true;
                http_conn_close(hc);
                return;
        }
        conn_set_state(c, POOL_IDLE);
        conn_became_idle(c);
        serve(p);
}

static void on_http_close(struct http_conn *hc, void *arg)
{
        struct pool_conn *c = arg;
        struct http_pool *p = c->pool;
        struct host *h = c->host;

        loop_timer_stop(c->worker->loop, &c->idle);
        loop_timer_stop(c->worker->loop, &c->max_duration);
        conn_set_state(c, POOL_DRAINING);
        list_del(c);
        host_conn_closed(h, c->io, !c->closing_local, http_conn_streams(hc) != 0, c->started_us);
        if (c->breaker)
                breaker_release(h->cluster->info, PRIO_DEFAULT, BREAKER_CX);
        free(c);
        if (p) {
                p->nconns--;
                if (p->nwait)
                        grow(p);
        }
        host_unref(h);
}

static const struct http_conn_ops pool_conn_ops = {
        .on_goaway = on_http_goaway,
        .on_idle = on_http_idle,
        .on_close = on_http_close,
        .on_connect = on_http_connect,
};

static void conn_timer(struct loop_timer *t, void (*fn)(struct loop_timer *), void *arg)
{
        t->fn = fn;
        t->arg = arg;
}

static void conn_open(struct http_pool *p, bool breaker)
{
        static const struct conn_ops none;
        const struct cluster_info *info = p->host->cluster->info;
        const struct cluster_http *h = cluster_http_of(info);
        struct pool_conn *c = MEM_NEW(struct pool_conn);

        c->pool = p;
        c->host = host_ref(p->host);
        c->worker = p->host->cluster->worker;
        c->version = p->version;
        c->breaker = breaker;
        c->started_us = clock_mono_us();
        c->connect_us = loop_now_us(c->worker->loop);
        c->id = worker_conn_id(c->worker);
        conn_timer(&c->idle, on_idle_timeout, c);
        conn_timer(&c->max_duration, on_max_duration, c);
        c->io = host_connect(p->host, &none, c);
        if (p->version == HTTP_2)
                c->http = http_client_h2(c->io, &h->h2, &pool_conn_ops, c);
        else
                c->http = http_client_h1(c->io, &h->h1, &pool_conn_ops, c);
        p->nconns++;
        conn_set_state(c, POOL_CONNECTING);
        count(c, p->version == HTTP_2 ? CS_UPSTREAM_CX_HTTP2_TOTAL : CS_UPSTREAM_CX_HTTP1_TOTAL);
        if (h->max_connection_ms)
                loop_timer_arm(c->worker->loop, &c->max_duration, h->max_connection_ms);
}

/* As many connections under way as the queue needs. At the circuit breaker's limit a pool without any connection still gets one, or its
 * queue would wait for ever. */
static void grow(struct http_pool *p)
{
        const struct cluster_info *info = p->host->cluster->info;
        unsigned each = p->version == HTTP_2 ? H2_PEER_STREAMS : 1;

        while (p->nconnecting * each < p->nwait) {
                bool ok = breaker_take(info, PRIO_DEFAULT, BREAKER_CX);

                if (!ok) {
                        stat_inc(p->host->cluster->worker->stats, cluster_stat(info, CS_UPSTREAM_CX_OVERFLOW));
                        if (p->nconns)
                                return;
                }
                conn_open(p, ok);
        }
}

static struct pool_conn *take(struct http_pool *p)
{
        struct pool_conn *c;

        while ((c = p->idle)) {
                if (!conn_has_room(c)) {
                        if (http_conn_streams(c->http) && c->version == HTTP_2)
                                conn_set_state(c, POOL_BUSY); /* full for now */
                        else
                                conn_retire(c);
                        continue;
                }
                if (!http_conn_streams(c->http) && loop_now_ms(c->worker->loop) - c->idle_since_ms >= IDLE_PEEK_MS &&
                    conn_peer_gone(c->io)) {
                        conn_retire(c);
                        continue;
                }
                return c;
        }
        return NULL;
}

static void serve(struct http_pool *p)
{
        while (p->first) {
                struct pool_conn *c = take(p);
                struct pool_wait *w = p->first;

                if (!c)
                        break;
                wait_unlink(w);
                w->ready(w, c);
        }
        if (p->nwait)
                grow(p);
}

struct http_stream *http_pool_stream(struct pool_conn *c, const struct http_stream_ops *ops, void *arg)
{
        struct http_stream *s = http_client_stream(c->http, ops, arg);

        if (!s)
                return NULL;
        c->requests++;
        loop_timer_stop(c->worker->loop, &c->idle);
        if (c->state == POOL_IDLE && !conn_has_room(c))
                conn_set_state(c, POOL_BUSY);
        return s;
}

/* Takes idle or busy pools apart from a host that left; called once (host.http_pool_drain). */
static void pools_drain(void *arg)
{
        struct host_pools *hp = arg;

        for (size_t i = 0; i < ARRAY_LEN(hp->v); i++) {
                struct http_pool *p = hp->v[i];

                if (!p)
                        continue;
                waiters_fail(p, POOL_HOST_GONE, STR(""));
                struct pool_conn **lists[] = { &p->connecting, &p->idle, &p->busy, &p->draining };

                for (size_t k = 0; k < ARRAY_LEN(lists); k++)
                        while (*lists[k]) {
                                struct pool_conn *c = *lists[k];

                                list_del(c);
                                c->pool = NULL;
                                if (c->state == POOL_CONNECTING || !http_conn_streams(c->http)) {
                                        c->closing_local = true;
                                        http_conn_close(c->http);
                                } else {
                                        c->state = POOL_DRAINING;
                                }
                        }
                free(p);
        }
        free(hp);
}

static struct http_pool *pool_of(struct host *h, enum http_version version)
{
        struct host_pools *hp = h->http_pool;
        unsigned i = version == HTTP_2;

        if (!hp) {
                hp = MEM_NEW(struct host_pools);
                h->http_pool = hp;
                h->http_pool_drain = pools_drain;
        }
        if (!hp->v[i]) {
                struct http_pool *p = MEM_NEW(struct http_pool);

                p->host = h;
                p->version = version == HTTP_2 ? HTTP_2 : HTTP_1_1;
                p->last = &p->first;
                hp->v[i] = p;
        }
        return hp->v[i];
}

enum pool_result http_pool_get(struct host *h, enum http_version version, enum priority prio, struct pool_wait *w, struct pool_conn **out)
{
        struct http_pool *p = pool_of(h, version);
        const struct cluster_info *info = h->cluster->info;
        struct stats_local *st = h->cluster->worker->stats;

        if (!p->first) {
                struct pool_conn *c = take(p);

                if (c) {
                        *out = c;
                        return POOL_READY;
                }
        }
        if (!breaker_take(info, prio, BREAKER_PENDING)) {
                stat_inc(st, cluster_stat(info, CS_UPSTREAM_RQ_PENDING_OVERFLOW));
                return POOL_OVERFLOW;
        }
        stat_inc(st, cluster_stat(info, CS_UPSTREAM_RQ_PENDING_TOTAL));
        stat_inc(st, cluster_stat(info, CS_UPSTREAM_RQ_PENDING_ACTIVE));
        w->pool = p;
        w->priority = prio;
        w->next = NULL;
        w->pprev = p->last;
        *p->last = w;
        p->last = &w->next;
        p->nwait++;
        grow(p);
        return POOL_WAITING;
}

static void discard_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
}

static void discard_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        chain_fini(data);
}

static void discard_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
}

static void discard_close(struct http_stream *s, void *arg, enum http_reset reset)
{
        http_pool_closed(arg);
}

void http_pool_closed(struct pool_conn *c)
{
        if (c->version != HTTP_2 || c->state != POOL_BUSY || !c->pool || !conn_has_room(c))
                return;
        conn_set_state(c, POOL_IDLE);
        serve(c->pool);
}

static const struct http_stream_ops discard_ops = {
        .on_head = discard_head,
        .on_data = discard_data,
        .on_trailers = discard_trailers,
        .on_close = discard_close,
};

void http_pool_let_go(struct pool_conn *c, struct http_stream *us)
{
        http_stream_set_ops(us, &discard_ops, c);
}

void http_pool_discard(struct pool_conn *c, struct http_stream *us)
{
        http_pool_let_go(c, us);
        http_reset(us, HTTP_RESET_LOCAL);
}
