/* Listener filters: what is found out about a connection before a filter chain is chosen. They run in order; the inspectors read ahead, and
 * the bytes they read go on to the chain's filter untouched.
 *
 * A connection that waits here holds what it sent so far (bounded by the inspectors' limits) and a timer. */
#include "base/clock.h"
#include "base/mem.h"
#include "proxy/http_inspector.h"
#include "proxy/inspector_stats.h"
#include "proxy/listener.h"
#include "proxy/server.h"
#include "proxy/tls_inspector.h"
#include "proxy/worker.h"

#include "envoy/listener.pb-c.h"
#include "envoy/type.pb-c.h"

#include <stdlib.h>

/* Linear copy of what was read, and room to put a hello's records together. */
enum { LINEAR_MAX = TLS_HELLO_MAX + 16384, SCRATCH_BYTES = LINEAR_MAX + TLS_HELLO_MAX };

struct pending_conn {
        struct pending_conn *next, **pprev;
        struct listener_worker *listener;
        struct conn *conn;
        struct chain first;
        unsigned filter; /* index of the one that runs */
        bool handed_over, over;
        bool restored;
        struct addr original_dst;
        struct str transport;
        struct tls_hello *hello; /* found; NULL: none */
        struct str alpn[TLS_HELLO_ALPN_MAX];
        unsigned nalpn;
        uint64_t id, start_real_us, start_us;
        struct loop_timer timer;
        struct loop_task reap;
};

enum step { STEP_NEXT, STEP_WAIT, STEP_CLOSE };

static void run(struct pending_conn *p);

static struct worker *worker_of(const struct pending_conn *p)
{
        return p->listener->worker;
}

static void count(const struct pending_conn *p, unsigned row)
{
        stat_inc(worker_of(p)->stats, stat_of(p->listener->stats, row));
}

static void reap(struct loop_task *t)
{
        struct pending_conn *p = t->arg;

        chain_fini(&p->first);
        free(p->hello);
        free(p);
}

static void unlink_from_listener(struct pending_conn *p)
{
        *p->pprev = p->next;
        if (p->next)
                p->next->pprev = p->pprev;
        stat_dec(worker_of(p)->stats, stat_of(p->listener->stats, LS_DOWNSTREAM_PRE_CX_ACTIVE));
}

static void link_to_listener(struct pending_conn *p, struct listener_worker *l)
{
        p->listener = l;
        p->next = l->pending;
        p->pprev = &l->pending;
        if (p->next)
                p->next->pprev = &p->next;
        l->pending = p;
        listener_worker_joined(l);
        stat_inc(l->worker->stats, stat_of(l->stats, LS_DOWNSTREAM_PRE_CX_ACTIVE));
}

/* The end of this object; the connection was handed on or closed. */
static void finish(struct pending_conn *p)
{
        struct listener_worker *l = p->listener;

        p->over = true;
        loop_timer_stop(worker_of(p)->loop, &p->timer);
        unlink_from_listener(p);
        p->reap.fn = reap;
        p->reap.arg = p;
        loop_defer(l->worker->loop, &p->reap);
        listener_worker_left(l);
}

static void close_pending(struct pending_conn *p)
{
        conn_close(p->conn, false);
        finish(p);
}

/* Predicates. */

static bool predicate(const Xds__ListenerFilterChainMatchPredicate *m, uint16_t port)
{
        switch (m->rule_case) {
        case XDS__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_OR_MATCH:
                for (size_t i = 0; i < m->or_match->n_rules; i++)
                        if (predicate(m->or_match->rules[i], port))
                                return true;
                return false;
        case XDS__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_AND_MATCH:
                for (size_t i = 0; i < m->and_match->n_rules; i++)
                        if (!predicate(m->and_match->rules[i], port))
                                return false;
                return true;
        case XDS__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_NOT_MATCH:
                return !predicate(m->not_match, port);
        case XDS__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_ANY_MATCH:
                return m->any_match;
        case XDS__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_DESTINATION_PORT_RANGE:
                return port >= m->destination_port_range->start && port < m->destination_port_range->end;
        default:
                return false;
        }
}

/* The filters. */

static enum step original_dst(struct pending_conn *p)
{
        if (!p->restored && sock_original_dst(conn_fd(p->conn), &p->original_dst))
                p->restored = true;
        return STEP_NEXT;
}

/* All that was read, in one piece. */
static struct str linear(struct pending_conn *p)
{
        struct worker *w = worker_of(p);
        struct str front = chain_front(&p->first);

        if (front.n == p->first.n)
                return front;
        if (!w->scratch)
                w->scratch = mem_alloc(SCRATCH_BYTES);
        return str_make((char *)w->scratch, chain_peek(&p->first, w->scratch, LINEAR_MAX));
}

static enum step tls_inspect(struct pending_conn *p, const struct listener_filter *f)
{
        struct worker *w = worker_of(p);
        struct tls_inspector_stats *st = &w->server->inspectors->tls;
        struct str seen = linear(p);
        struct tls_hello *h;

        if (!seen.n)
                return STEP_WAIT;
        if ((unsigned char)seen.p[0] != 22) {
                stat_inc(w->stats, st->tls_not_found);
                return STEP_NEXT;
        }
        if (!w->scratch)
                w->scratch = mem_alloc(SCRATCH_BYTES);
        h = mem_alloc(sizeof(*h));
        enum tls_hello_result r = tls_hello_parse(seen.p, seen.n, f->max_hello, w->scratch + LINEAR_MAX, h);

        if (r == TLS_HELLO_OK) {
                p->hello = h;
                p->transport = STR("tls");
                for (unsigned i = 0; i < h->nalpn; i++)
                        p->alpn[i] = str_of(h->alpn[i]);
                p->nalpn = h->nalpn;
                stat_inc(w->stats, st->tls_found);
                stat_inc(w->stats, h->sni_len ? st->sni_found : st->sni_not_found);
                stat_inc(w->stats, h->nalpn ? st->alpn_found : st->alpn_not_found);
                stat_record(w->stats, st->bytes_processed, seen.n);
                return STEP_NEXT;
        }
        free(h);
        switch (r) {
        case TLS_HELLO_MORE:
                return STEP_WAIT;
        case TLS_HELLO_TOO_LARGE:
                stat_inc(w->stats, st->client_hello_too_large);
                /* fall through */
        case TLS_HELLO_BAD:
                if (f->close_on_bad_hello) {
                        stat_inc(w->stats, st->tls_not_found);
                        return STEP_CLOSE;
                }
                /* fall through */
        default:
                stat_inc(w->stats, st->tls_not_found);
                return STEP_NEXT;
        }
}

static enum step http_look(struct pending_conn *p)
{
        struct worker *w = worker_of(p);
        struct http_inspector_stats *st = &w->server->inspectors->http;

        if (p->transport.n && !str_eqc(p->transport, "raw_buffer"))
                return STEP_NEXT;
        if (!p->first.n)
                return STEP_WAIT;
        switch (http_inspect(linear(p))) {
        case HTTP_INSPECT_MORE:
                return STEP_WAIT;
        case HTTP_INSPECT_10:
                p->alpn[0] = STR("http/1.0");
                stat_inc(w->stats, st->http10_found);
                break;
        case HTTP_INSPECT_11:
                p->alpn[0] = STR("http/1.1");
                stat_inc(w->stats, st->http11_found);
                break;
        case HTTP_INSPECT_2:
                p->alpn[0] = STR("h2c");
                stat_inc(w->stats, st->http2_found);
                break;
        default:
                stat_inc(w->stats, st->http_not_found);
                return STEP_NEXT;
        }
        p->nalpn = 1;
        return STEP_NEXT;
}

static enum step step(struct pending_conn *p)
{
        const struct listener_filter *f = &p->listener->config->filters[p->filter];
        const struct addr *local = p->restored ? &p->original_dst : conn_local(p->conn);

        if (f->disabled && predicate(f->disabled, local ? addr_port(local) : 0))
                return STEP_NEXT;
        switch (f->kind) {
        case LF_ORIGINAL_DST:
                return original_dst(p);
        case LF_TLS_INSPECTOR:
                return tls_inspect(p, f);
        default:
                return http_look(p);
        }
}

/* On to the filter chain, or to the listener that the original destination belongs to. */
static void proceed(struct pending_conn *p)
{
        struct listener_worker *l = p->listener;
        struct inspected in = { .conn = p->conn,
                                .first = &p->first,
                                .restored = p->restored,
                                .original_dst = p->original_dst,
                                .transport = p->transport,
                                .alpn = p->alpn,
                                .nalpn = p->nalpn,
                                .id = p->id,
                                .start_real_us = p->start_real_us,
                                .start_us = p->start_us };

        if (p->hello)
                in.sni = str_make(p->hello->sni, p->hello->sni_len);
        if (l->config->use_original_dst && p->restored && !p->handed_over) {
                struct listener_worker *to = listener_for_address(l->worker, &p->original_dst);

                if (to && to != l) {
                        loop_timer_stop(l->worker->loop, &p->timer);
                        unlink_from_listener(p);
                        link_to_listener(p, to);
                        listener_worker_left(l);
                        p->handed_over = true;
                        p->filter = 0;
                        run(p);
                        return;
                }
        }
        downstream_new(l, &in);
        finish(p);
}

static void timed_out(struct loop_timer *t)
{
        struct pending_conn *p = t->arg;

        count(p, LS_DOWNSTREAM_PRE_CX_TIMEOUT);
        if (p->listener->config->continue_on_timeout)
                proceed(p);
        else
                close_pending(p);
}

static void run(struct pending_conn *p)
{
        const struct listener_config *c = p->listener->config;

        for (; p->filter < c->nfilters; p->filter++)
                switch (step(p)) {
                case STEP_WAIT:
                        if (c->filters_timeout_ms && !loop_timer_armed(&p->timer))
                                loop_timer_arm(worker_of(p)->loop, &p->timer, c->filters_timeout_ms);
                        return;
                case STEP_CLOSE:
                        count(p, LS_DOWNSTREAM_LISTENER_FILTER_ERROR);
                        close_pending(p);
                        return;
                default:
                        break;
                }
        proceed(p);
}

static void on_readable(struct conn *c, void *arg)
{
        struct pending_conn *p = arg;
        size_t n;

        while (!p->over && p->filter < p->listener->config->nfilters) {
                switch (conn_read_chain(c, &p->first, LINEAR_MAX - p->first.n < 16384 ? LINEAR_MAX - p->first.n : 16384, &n)) {
                case IO_OK:
                        run(p);
                        if (!p->over && p->conn == c && p->first.n >= LINEAR_MAX) { /* no filter may want so much */
                                count(p, LS_DOWNSTREAM_LISTENER_FILTER_ERROR);
                                close_pending(p);
                        }
                        break;
                case IO_AGAIN:
                        return;
                case IO_EOF:
                        count(p, LS_DOWNSTREAM_LISTENER_FILTER_REMOTE_CLOSE);
                        close_pending(p);
                        return;
                default:
                        count(p, LS_DOWNSTREAM_LISTENER_FILTER_ERROR);
                        close_pending(p);
                        return;
                }
        }
}

static const struct conn_ops pending_ops = { .on_readable = on_readable };

void pending_conn_new(struct listener_worker *l, int fd, const struct addr *peer)
{
        struct pending_conn *p = MEM_NEW(struct pending_conn);

        p->timer.fn = timed_out;
        p->timer.arg = p;
        p->start_real_us = clock_real_us();
        p->start_us = clock_mono_us();
        p->id = worker_conn_id(l->worker);
        link_to_listener(p, l);
        p->conn = conn_accepted(l->worker->loop, fd, peer, NULL, &pending_ops, p);
        run(p);
}

void pending_conns_close(struct listener_worker *l)
{
        while (l->pending)
                close_pending(l->pending);
}
