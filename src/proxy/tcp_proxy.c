/* The TCP proxy: a connection in, a connection to a host of a cluster out, and bytes both ways until both sides have said goodbye
 * (envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy).
 *
 * How bytes move. A small read goes through one buffer of the worker and is written at once; nothing is allocated unless the other side
 * does not take it all. When reads come back full, the direction changes to splice(2) through a pipe from the worker's pool, and changes
 * back when the stream thins out. Back-pressure is plain: a direction with unwritten bytes does not read.
 *
 * Half-close is kept: one side's end is passed on when everything before it has been written; the session ends when both have ended, or
 * when one breaks. */
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "proxy/access_log.h"
#include "proxy/cluster.h"
#include "proxy/ext.h"
#include "proxy/format.h"
#include "proxy/listener.h"
#include "proxy/network_filter.h"
#include "proxy/pipe_pool.h"
#include "proxy/server.h"
#include "proxy/support.h"
#include "proxy/worker.h"

#include "envoy/accesslog.pb-c.h"
#include "envoy/tcp_proxy.pb-c.h"
#include "envoy/type.pb-c.h"
#include "google/wrappers.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum { READS_A_TURN = 16, SPLICE_BYTES = PIPE_BYTES, FULL_READS_TO_SPLICE = 2, THIN_SPLICE_BYTES = 16384 };

enum {
        TS_CX_NO_ROUTE,
        TS_CX_RX_BYTES_TOTAL,
        TS_CX_TOTAL,
        TS_CX_TX_BYTES_TOTAL,
        TS_FLOW_PAUSED,
        TS_FLOW_RESUMED,
        TS_EARLY_DATA,
        TS_IDLE_TIMEOUT,
        TS_MAX_DURATION,
        TS_UPSTREAM_FLUSH_TOTAL,
        TS_CX_RX_BUFFERED,
        TS_CX_TX_BUFFERED,
        TS_UPSTREAM_FLUSH_ACTIVE,
        TS_COUNT
};

static const struct stat_def tcp_defs[TS_COUNT] = {
        [TS_CX_NO_ROUTE] = { "downstream_cx_no_route", STAT_COUNTER },
        [TS_CX_RX_BYTES_TOTAL] = { "downstream_cx_rx_bytes_total", STAT_COUNTER },
        [TS_CX_TOTAL] = { "downstream_cx_total", STAT_COUNTER },
        [TS_CX_TX_BYTES_TOTAL] = { "downstream_cx_tx_bytes_total", STAT_COUNTER },
        [TS_FLOW_PAUSED] = { "downstream_flow_control_paused_reading_total", STAT_COUNTER },
        [TS_FLOW_RESUMED] = { "downstream_flow_control_resumed_reading_total", STAT_COUNTER },
        [TS_EARLY_DATA] = { "early_data_received_count_total", STAT_COUNTER },
        [TS_IDLE_TIMEOUT] = { "idle_timeout", STAT_COUNTER },
        [TS_MAX_DURATION] = { "max_downstream_connection_duration", STAT_COUNTER },
        [TS_UPSTREAM_FLUSH_TOTAL] = { "upstream_flush_total", STAT_COUNTER },
        [TS_CX_RX_BUFFERED] = { "downstream_cx_rx_bytes_buffered", STAT_GAUGE },
        [TS_CX_TX_BUFFERED] = { "downstream_cx_tx_bytes_buffered", STAT_GAUGE },
        [TS_UPSTREAM_FLUSH_ACTIVE] = { "upstream_flush_active", STAT_GAUGE },
};

struct target {
        struct str name;
        uint32_t weight;
};

struct tcp_config {
        struct server *server;
        struct target *targets;
        size_t ntargets;
        uint64_t weight_sum;
        uint64_t idle_ms, max_ms, log_every_ms; /* 0: none */
        double max_jitter;                      /* percent */
        unsigned connect_attempts;
        bool log_on_connect;
        struct access_logs *logs;
        struct stat_scope *stats;
};

/* One direction. */
struct flow {
        struct chain held; /* read, and not yet taken by the other side */
        struct pipe pipe;  /* rd -1: none */
        uint8_t full_reads;
        bool splicing, paused, ended, closed; /* ended: the source's FIN; closed: passed on */
};

struct session {
        struct downstream *d;
        struct tcp_config *config;
        struct cluster *cluster; /* referenced */
        struct host *host;       /* referenced */
        struct conn *up;
        struct flow to_up, to_down;
        uint64_t connect_us;
        unsigned attempts;
        bool connected, over, pending_counted, rq_counted;
        struct buf reason;
        struct loop_timer idle, max, log;
        struct loop_task reap;
};

static void connect_upstream(struct session *s);

static void count(const struct session *s, unsigned row, uint64_t n)
{
        stat_add(s->d->worker->stats, stat_of(s->config->stats, row), n);
}

static void count_cluster(const struct session *s, unsigned row, uint64_t n)
{
        stat_add(s->d->worker->stats, cluster_stat(s->cluster->info, row), n);
}

/* ---- the end ---- */

static void reap(struct loop_task *t)
{
        struct session *s = t->arg;

        chain_fini(&s->to_up.held);
        chain_fini(&s->to_down.held);
        buf_fini(&s->reason);
        host_unref(s->host);
        cluster_unref(s->cluster);
        free(s);
}

static void pending_end(struct session *s)
{
        if (!s->pending_counted)
                return;
        s->pending_counted = false;
        count_cluster(s, CS_UPSTREAM_RQ_PENDING_ACTIVE, (uint64_t)-1);
        breaker_release(s->cluster->info, PRIO_DEFAULT, BREAKER_PENDING);
}

static void upstream_drop(struct session *s, bool by_peer, bool reset)
{
        if (!s->up)
                return;
        pending_end(s);
        if (s->rq_counted) {
                s->rq_counted = false;
                count_cluster(s, CS_UPSTREAM_RQ_ACTIVE, (uint64_t)-1);
                breaker_release(s->cluster->info, PRIO_DEFAULT, BREAKER_RQ);
                host_rq_end(s->host, true);
        }
        host_conn_closed(s->host, s->up, by_peer, s->connected, s->connect_us);
        breaker_release(s->cluster->info, PRIO_DEFAULT, BREAKER_CX);
        conn_close(s->up, reset);
        s->up = NULL;
}

static void bytes_settle(struct session *s)
{
        struct stream_info *si = &s->d->stream;

        si->bytes_received = conn_bytes_read(s->d->conn);
        si->bytes_sent = conn_bytes_written(s->d->conn);
        si->ds_wire_received = si->bytes_received;
        si->ds_wire_sent = si->bytes_sent;
        if (s->up) {
                si->us_wire_received = conn_bytes_read(s->up);
                si->us_wire_sent = conn_bytes_written(s->up);
        }
}

/* by_peer: the upstream ended it. Logs, closes both sides, gives everything back. */
static void finish(struct session *s, bool by_peer, bool reset)
{
        struct downstream *d = s->d;
        struct worker *w = d->worker;

        if (s->over)
                return;
        s->over = true;
        loop_timer_stop(w->loop, &s->idle);
        loop_timer_stop(w->loop, &s->max);
        loop_timer_stop(w->loop, &s->log);
        bytes_settle(s);
        count(s, TS_CX_RX_BYTES_TOTAL, d->stream.bytes_received);
        count(s, TS_CX_TX_BYTES_TOTAL, d->stream.bytes_sent);
        pipe_give(w->pipes, &s->to_up.pipe);
        pipe_give(w->pipes, &s->to_down.pipe);
        d->stream.t[ST_END] = clock_mono_us();
        access_logs_write(s->config->logs, w, &d->stream);
        upstream_drop(s, by_peer, reset && !by_peer);
        conn_close(d->conn, reset);
        d->session = NULL;
        downstream_done(d);
        s->reap.fn = reap;
        s->reap.arg = s;
        loop_defer(w->loop, &s->reap);
}

/* No upstream to be had: the reason that the configuration gives, else none. */
static void refuse(struct session *s, uint32_t flag)
{
        struct stream_info *si = &s->d->stream;
        const struct format *f = s->d->chain->reason;

        si->flags |= flag;
        if (!f && s->cluster)
                f = s->cluster->info->reason;
        if (f && !si->upstream_failure.n) {
                format_render(f, si, &s->reason);
                si->upstream_failure = buf_view(&s->reason);
        }
        finish(s, false, false);
}

/* ---- relaying ---- */

static void touch(struct session *s)
{
        if (s->config->idle_ms)
                loop_timer_arm(s->d->worker->loop, &s->idle, s->config->idle_ms);
}

enum moved { MOVED_AGAIN, MOVED_MORE, MOVED_BROKEN_FROM, MOVED_BROKEN_TO };

/* Writes what is held. */
static enum moved flush(struct session *s, struct flow *f, struct conn *to)
{
        if (f->held.n)
                switch (conn_write_chain(to, &f->held)) {
                case IO_OK:
                        break;
                case IO_AGAIN:
                        return MOVED_AGAIN;
                default:
                        return MOVED_BROKEN_TO;
                }
        while (f->pipe.rd >= 0 && f->pipe.n) {
                ssize_t n = splice(f->pipe.rd, NULL, conn_fd(to), NULL, f->pipe.n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

                if (n < 0 && errno == EAGAIN) {
                        conn_write_blocked(to);
                        return MOVED_AGAIN;
                }
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return MOVED_BROKEN_TO;
                f->pipe.n -= (size_t)n;
                conn_count_spliced(to, 0, (uint64_t)n);
        }
        return MOVED_MORE;
}

/* The second of the two ends is passed on by the close that follows at once. */
static enum moved pass_end(struct session *s, struct flow *f, struct conn *to)
{
        const struct flow *other = f == &s->to_up ? &s->to_down : &s->to_up;

        f->ended = true;
        if (other->closed)
                f->closed = true;
        if (!f->closed) {
                switch (conn_shutdown_write(to)) {
                case IO_AGAIN:
                        return MOVED_AGAIN;
                case IO_OK:
                        break;
                default:
                        return MOVED_BROKEN_TO;
                }
                f->closed = true;
        }
        return MOVED_AGAIN;
}

/* One read through the worker's buffer. */
static enum moved copy_once(struct session *s, struct flow *f, struct conn *from, struct conn *to)
{
        struct worker *w = s->d->worker;
        size_t n, done;

        switch (conn_read(from, w->relay, WORKER_RELAY_BYTES, &n)) {
        case IO_AGAIN:
                return MOVED_AGAIN;
        case IO_EOF:
                return pass_end(s, f, to);
        case IO_ERROR:
                return MOVED_BROKEN_FROM;
        default:
                break;
        }
        f->full_reads = n == WORKER_RELAY_BYTES ? f->full_reads + 1 : 0;
        if (f->full_reads >= FULL_READS_TO_SPLICE && conn_fd(from) >= 0 && conn_fd(to) >= 0) {
                f->splicing = true;
                f->full_reads = 0;
        }
        struct iovec iov = { w->relay, n };

        switch (conn_writev(to, &iov, 1, &done)) {
        case IO_OK:
        case IO_AGAIN:
                break;
        default:
                return MOVED_BROKEN_TO;
        }
        if (done < n) {
                chain_append(&f->held, w->relay + done, n - done);
                return flush(s, f, to);
        }
        return MOVED_MORE;
}

static enum moved splice_once(struct session *s, struct flow *f, struct conn *from, struct conn *to)
{
        ssize_t n;

        if (f->pipe.rd < 0 && !pipe_take(s->d->worker->pipes, &f->pipe)) {
                f->splicing = false;
                return MOVED_MORE;
        }
        n = splice(conn_fd(from), NULL, f->pipe.wr, NULL, SPLICE_BYTES, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n < 0 && errno == EINTR)
                return MOVED_MORE;
        if (n < 0 && errno == EAGAIN) {
                conn_read_blocked(from);
                f->splicing = false; /* thin: the next bytes are copied */
                return MOVED_AGAIN;
        }
        if (n < 0)
                return MOVED_BROKEN_FROM;
        if (n == 0)
                return pass_end(s, f, to);
        f->pipe.n += (size_t)n;
        conn_count_spliced(from, (uint64_t)n, 0);
        if (n < THIN_SPLICE_BYTES)
                f->splicing = false;
        return flush(s, f, to);
}

static void paused(struct session *s, struct flow *f, bool now)
{
        if (f->paused == now)
                return;
        f->paused = now;
        if (f == &s->to_up)
                count(s, now ? TS_FLOW_PAUSED : TS_FLOW_RESUMED, 1);
        else
                count_cluster(s, now ? CS_UPSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL : CS_UPSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL, 1);
}

/* Moves what can be moved in one direction. False: the session is over. */
static bool pump(struct session *s, struct flow *f)
{
        struct conn *from = f == &s->to_up ? s->d->conn : s->up, *to = f == &s->to_up ? s->up : s->d->conn;
        uint64_t before = conn_bytes_read(from) + conn_bytes_written(to);
        enum moved m = flush(s, f, to);
        unsigned n = 0;

        while (m == MOVED_MORE && !f->ended && n++ < READS_A_TURN)
                m = f->splicing ? splice_once(s, f, from, to) : copy_once(s, f, from, to);
        if (m == MOVED_MORE && f->ended)
                m = pass_end(s, f, to);
        if (conn_bytes_read(from) + conn_bytes_written(to) != before)
                touch(s);
        if (m == MOVED_BROKEN_FROM || m == MOVED_BROKEN_TO) {
                bool upstream = (m == MOVED_BROKEN_FROM) == (f == &s->to_down);

                if (upstream && conn_errno(s->up) == ECONNRESET)
                        s->d->stream.flags |= RF_UR;
                finish(s, upstream, conn_errno(upstream ? s->up : s->d->conn) == ECONNRESET);
                return false;
        }
        if (f->pipe.rd >= 0 && !f->pipe.n)
                pipe_give(s->d->worker->pipes, &f->pipe);
        paused(s, f, f->held.n || f->pipe.n);
        if (s->to_up.closed && s->to_down.closed) {
                finish(s, f == &s->to_down, false);
                return false;
        }
        if (m == MOVED_MORE && !f->ended) { /* more than one turn's share: the others first */
                conn_pause_read(from);
                conn_resume_read(from);
        }
        return true;
}

static void down_readable(struct conn *c, void *arg)
{
        struct session *s = arg;

        if (!s->over && s->connected)
                pump(s, &s->to_up);
}

static void down_writable(struct conn *c, void *arg)
{
        struct session *s = arg;

        if (!s->over && s->connected)
                pump(s, &s->to_down);
}

static const struct conn_ops down_ops = { .on_readable = down_readable, .on_writable = down_writable };

/* ---- the upstream connection ---- */

static void up_readable(struct conn *c, void *arg)
{
        struct session *s = arg;

        if (!s->over && s->connected)
                pump(s, &s->to_down);
}

static void up_writable(struct conn *c, void *arg)
{
        struct session *s = arg;

        if (!s->over && s->connected)
                pump(s, &s->to_up);
}

static void log_tick(struct loop_timer *t)
{
        struct session *s = t->arg;

        bytes_settle(s);
        access_logs_write(s->config->logs, s->d->worker, &s->d->stream);
        loop_timer_arm(s->d->worker->loop, t, s->config->log_every_ms);
}

static void up_connected(struct session *s)
{
        struct stream_info *si = &s->d->stream;

        si->t[ST_US_CX_END] = clock_mono_us();
        si->upstream_local = conn_local(s->up);
        si->upstream_remote = s->host->addr;
        si->upstream_conn_id = worker_conn_id(s->d->worker);
        si->upstream_failure = (struct str){ 0 };
        s->connected = true;
        pending_end(s);
        s->rq_counted = true;
        count_cluster(s, CS_UPSTREAM_RQ_TOTAL, 1);
        count_cluster(s, CS_UPSTREAM_RQ_ACTIVE, 1);
        host_rq_begin(s->host);
        if (s->config->log_on_connect)
                access_logs_write(s->config->logs, s->d->worker, si);
        if (s->config->log_every_ms)
                loop_timer_arm(s->d->worker->loop, &s->log, s->config->log_every_ms);
        touch(s);
        conn_resume_read(s->d->conn);
        pump(s, &s->to_up);
}

static void up_failed(struct session *s, int err)
{
        struct stream_info *si = &s->d->stream;
        bool more = s->attempts < s->config->connect_attempts;

        if (err != ETIMEDOUT) {
                s->reason.n = 0;
                buf_printf(&s->reason, "delayed connect error: %s", strerror(err));
                si->upstream_failure = buf_view(&s->reason);
        }
        if (!more) {
                count_cluster(s, CS_UPSTREAM_CX_CONNECT_ATTEMPTS_EXCEEDED, 1);
                si->flags |= RF_URX;
        }
        count_cluster(s, CS_UPSTREAM_RQ_PENDING_FAILURE_EJECT, 1);
        breaker_release(s->cluster->info, PRIO_DEFAULT, BREAKER_RQ);
        upstream_drop(s, err != ETIMEDOUT, false);
        si->flags |= RF_UF;
        if (more) {
                host_unref(s->host);
                s->host = NULL;
                connect_upstream(s);
                return;
        }
        finish(s, false, false);
}

static void up_on_connect(struct conn *c, void *arg, int err)
{
        struct session *s = arg;

        if (s->over)
                return;
        host_connect_done(s->host, c, err, s->connect_us);
        if (err)
                up_failed(s, err);
        else
                up_connected(s);
}

static const struct conn_ops up_ops = { .on_connect = up_on_connect, .on_readable = up_readable, .on_writable = up_writable };

/* Circuit breakers, in the order that Envoy's pool asks them. */
static bool admit(struct session *s)
{
        const struct cluster_info *c = s->cluster->info;

        if (!breaker_take(c, PRIO_DEFAULT, BREAKER_CX)) {
                count_cluster(s, CS_UPSTREAM_CX_OVERFLOW, 1);
                return false;
        }
        if (!breaker_take(c, PRIO_DEFAULT, BREAKER_PENDING)) {
                count_cluster(s, CS_UPSTREAM_RQ_PENDING_OVERFLOW, 1);
                breaker_release(c, PRIO_DEFAULT, BREAKER_CX);
                return false;
        }
        if (!breaker_take(c, PRIO_DEFAULT, BREAKER_RQ)) {
                count_cluster(s, CS_UPSTREAM_RQ_PENDING_OVERFLOW, 1);
                breaker_release(c, PRIO_DEFAULT, BREAKER_PENDING);
                breaker_release(c, PRIO_DEFAULT, BREAKER_CX);
                return false;
        }
        count_cluster(s, CS_UPSTREAM_RQ_PENDING_TOTAL, 1);
        count_cluster(s, CS_UPSTREAM_RQ_PENDING_ACTIVE, 1);
        s->pending_counted = true;
        return true;
}

static void connect_upstream(struct session *s)
{
        struct stream_info *si = &s->d->stream;
        struct lb_ctx ctx = { .downstream = &s->d->info };

        s->host = cluster_pick_host(s->cluster, &ctx);
        if (!s->host) {
                count_cluster(s, CS_UPSTREAM_CX_NONE_HEALTHY, 1);
                refuse(s, RF_UH);
                return;
        }
        si->host = s->host;
        if (!admit(s)) {
                si->host = NULL;
                refuse(s, RF_UO);
                return;
        }
        s->attempts++;
        si->attempts = s->attempts;
        s->connect_us = loop_now_us(s->d->worker->loop);
        if (!si->t[ST_US_CX_BEG])
                si->t[ST_US_CX_BEG] = clock_mono_us();
        s->up = host_connect(s->host, &up_ops, s);
}

/* ---- the session ---- */

static void idle_fired(struct loop_timer *t)
{
        struct session *s = t->arg;

        count(s, TS_IDLE_TIMEOUT, 1);
        finish(s, false, false);
}

static void max_fired(struct loop_timer *t)
{
        struct session *s = t->arg;

        count(s, TS_MAX_DURATION, 1);
        s->d->stream.flags |= RF_DT;
        finish(s, false, false);
}

static struct str choose(const struct tcp_config *c)
{
        uint64_t at;

        if (c->ntargets == 1)
                return c->targets[0].name;
        at = rand_u64() % c->weight_sum;
        for (size_t i = 0; i < c->ntargets; i++) {
                if (at < c->targets[i].weight)
                        return c->targets[i].name;
                at -= c->targets[i].weight;
        }
        return c->targets[c->ntargets - 1].name;
}

static void tcp_open(void *config, struct downstream *d, struct chain *first)
{
        struct tcp_config *c = config;
        struct session *s = MEM_NEW(struct session);
        struct cluster *cl;

        s->d = d;
        s->config = c;
        s->to_up.pipe.rd = s->to_down.pipe.rd = -1;
        s->idle.fn = idle_fired;
        s->max.fn = max_fired;
        s->log.fn = log_tick;
        s->idle.arg = s->max.arg = s->log.arg = s;
        d->session = s;
        chain_move(&s->to_up.held, first);
        conn_pause_read(d->conn); /* until there is somewhere to write to */
        conn_set_ops(d->conn, &down_ops, s);
        count(s, TS_CX_TOTAL, 1);
        if (c->max_ms) {
                double jitter = c->max_jitter > 0 ? rand_unit() * c->max_jitter / 100 : 0;

                loop_timer_arm(d->worker->loop, &s->max, c->max_ms + (uint64_t)((double)c->max_ms * jitter));
        }
        cl = cluster_get(d->worker, choose(c));
        if (!cl) {
                count(s, TS_CX_NO_ROUTE, 1);
                refuse(s, RF_NC);
                return;
        }
        s->cluster = cluster_ref(cl);
        d->stream.cluster = cl->info;
        connect_upstream(s);
}

static void tcp_close(void *config, struct downstream *d)
{
        if (d->session)
                finish(d->session, false, false);
}

/* ---- configuration ---- */

static void tcp_free(void *config)
{
        struct tcp_config *c = config;

        if (!c)
                return;
        access_logs_free(c->logs);
        stats_scope_unref(c->server->stats, c->stats);
        free(c->targets);
        free(c);
}

static bool read_targets(struct filter_build *b, struct tcp_config *c, const Xds__TcpProxy *p)
{
        struct diag_at at;

        switch (p->cluster_specifier_case) {
        case XDS__TCP_PROXY__CLUSTER_SPECIFIER_CLUSTER:
                c->targets = mem_calloc(1, sizeof(*c->targets));
                c->targets[0] = (struct target){ arena_str(b->arena, str_of(p->cluster)), 1 };
                c->ntargets = 1;
                c->weight_sum = 1;
                return true;
        case XDS__TCP_PROXY__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS:
                c->ntargets = p->weighted_clusters->n_clusters;
                c->targets = mem_calloc(c->ntargets ? c->ntargets : 1, sizeof(*c->targets));
                for (size_t i = 0; i < c->ntargets; i++) {
                        const Xds__TcpProxy__WeightedCluster__ClusterWeight *w = p->weighted_clusters->clusters[i];

                        at = filter_path(b, ".weighted_clusters.clusters[%zu]", i);
                        if (!w->name || !w->name[0] || !w->weight) {
                                diag_add(b->diags, DIAG_ERROR, NULL, &at, "needs a name and a weight of 1 or more");
                                return false;
                        }
                        c->targets[i] = (struct target){ arena_str(b->arena, str_of(w->name)), w->weight };
                        c->weight_sum += w->weight;
                }
                at = filter_path(b, ".weighted_clusters.clusters");
                if (!c->ntargets || c->weight_sum > UINT32_MAX)
                        diag_add(b->diags, DIAG_ERROR, NULL, &at, c->ntargets ? "the weights together must be less than 2^32" : "is empty");
                return c->ntargets && c->weight_sum <= UINT32_MAX;
        default:
                at = filter_path(b, ".cluster");
                diag_add(b->diags, DIAG_ERROR, NULL, &at, "is missing: give cluster or weighted_clusters");
                return false;
        }
}

static void *tcp_build(struct filter_build *b, const ProtobufCMessage *m)
{
        const Xds__TcpProxy *p = (const Xds__TcpProxy *)m;
        struct tcp_config *c = MEM_NEW(struct tcp_config);
        size_t errors = b->diags->errors;
        struct stat_tag tag;
        struct diag_at at = filter_path(b, ".idle_timeout");

        c->server = b->server;
        support_check(m, &b->at, b->arena, b->diags);
        if (!p->stat_prefix || !p->stat_prefix[0]) {
                struct diag_at sub = filter_path(b, ".stat_prefix");

                diag_add(b->diags, DIAG_ERROR, NULL, &sub, "is missing");
        } else {
                tag = (struct stat_tag){ "envoy.tcp_prefix", str_of(p->stat_prefix) };
                c->stats = stats_scope(b->server->stats, arena_printf(b->arena, "tcp.%s.", p->stat_prefix), STR("tcp."), &tag, 1, tcp_defs,
                                       TS_COUNT);
        }
        read_targets(b, c, p);
        c->idle_ms = duration_ms(p->idle_timeout, 3600 * 1000, &at, b->diags);
        at = filter_path(b, ".max_downstream_connection_duration");
        c->max_ms = duration_ms(p->max_downstream_connection_duration, 0, &at, b->diags);
        if (p->max_downstream_connection_duration_jitter_percentage)
                c->max_jitter = p->max_downstream_connection_duration_jitter_percentage->value;
        c->connect_attempts = p->max_connect_attempts ? p->max_connect_attempts->value : 1;
        at = filter_path(b, ".max_connect_attempts");
        if (!c->connect_attempts)
                diag_add(b->diags, DIAG_ERROR, NULL, &at, "must be 1 or more");
        at = filter_path(b, ".access_log_flush_interval");
        c->log_every_ms = duration_ms(
                p->access_log_options ? p->access_log_options->access_log_flush_interval : p->access_log_flush_interval, 0, &at, b->diags);
        c->log_on_connect = p->access_log_options ? p->access_log_options->flush_access_log_on_connected : p->flush_access_log_on_connected;
        at = filter_path(b, ".access_log");
        c->logs = access_logs_build(b->server, p->access_log, p->n_access_log, &at, b->diags);
        if (b->diags->errors != errors) {
                tcp_free(c);
                return NULL;
        }
        return c;
}

const struct network_filter network_filter_tcp_proxy = {
        .name = "envoy.filters.network.tcp_proxy",
        .type = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        .terminal = true,
        .build = tcp_build,
        .free = tcp_free,
        .open = tcp_open,
        .close = tcp_close,
};
