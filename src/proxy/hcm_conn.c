/* A downstream connection in the hands of the HTTP connection manager: its codec, how long it may idle and live, how it drains. */
#include "proxy/hcm.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/tls.h"

#include <stdlib.h>

static void conn_stat(struct hcm_conn *c, unsigned row)
{
        stat_inc(c->worker->stats, stat_of(c->cfg->stats, row));
}

static void gauge_down(struct hcm_conn *c, unsigned row)
{
        stat_dec(c->worker->stats, stat_of(c->cfg->stats, row));
}

bool hcm_conn_should_close(const struct hcm_conn *c)
{
        return c->draining || c->d->draining || c->worker->draining ||
               (c->cfg->max_requests_per_connection && c->requests >= c->cfg->max_requests_per_connection);
}

void hcm_conn_drain(struct hcm_conn *c)
{
        if (c->draining)
                return;
        c->draining = true;
        if (c->cfg->max_requests_per_connection && c->requests >= c->cfg->max_requests_per_connection)
                conn_stat(c, HCM_CX_MAX_REQUESTS_REACHED);
        http_conn_drain(c->http);
}

static void see_protocol(struct hcm_conn *c)
{
        if (c->seen_protocol)
                return;
        c->seen_protocol = true;
        c->version = http_conn_version(c->http);
        conn_stat(c, c->version == HTTP_2 ? HCM_CX_HTTP2_TOTAL : HCM_CX_HTTP1_TOTAL);
        conn_stat(c, c->version == HTTP_2 ? HCM_CX_HTTP2_ACTIVE : HCM_CX_HTTP1_ACTIVE);
}

static void idle_arm(struct hcm_conn *c)
{
        if (c->cfg->idle_ms)
                loop_timer_arm(c->worker->loop, &c->idle, c->cfg->idle_ms);
}

static void on_idle_timeout(struct loop_timer *t)
{
        struct hcm_conn *c = t->arg;

        conn_stat(c, HCM_CX_IDLE_TIMEOUT);
        if (c->version == HTTP_2)
                hcm_conn_drain(c);
        else
                http_conn_close(c->http);
}

static void on_max_duration(struct loop_timer *t)
{
        struct hcm_conn *c = t->arg;

        conn_stat(c, HCM_CX_MAX_DURATION_REACHED);
        hcm_conn_drain(c);
        if (!http_conn_streams(c->http) && c->version != HTTP_2)
                http_conn_close(c->http);
        else
                loop_timer_arm(c->worker->loop, &c->drain, c->cfg->drain_ms);
}

static void on_drain_timeout(struct loop_timer *t)
{
        struct hcm_conn *c = t->arg;

        http_conn_close(c->http);
}

static void on_stream(struct http_conn *hc, void *arg, struct http_stream *ds)
{
        struct hcm_conn *c = arg;

        see_protocol(c);
        loop_timer_stop(c->worker->loop, &c->idle);
        hcm_stream_new(c, ds);
        if (c->version == HTTP_2 && hcm_conn_should_close(c))
                hcm_conn_drain(c);
}

static void on_conn_idle(struct http_conn *hc, void *arg)
{
        idle_arm(arg);
}

static void on_refused(struct http_conn *hc, void *arg, struct http_stream *ds, int status, const char *details)
{
        see_protocol(arg);
        hcm_stream_refused(arg, ds, status, details);
}

static void on_close(struct http_conn *hc, void *arg)
{
        struct hcm_conn *c = arg;
        struct loop *l = c->worker->loop;
        struct conn *io = http_conn_io(hc);

        loop_timer_stop(l, &c->idle);
        loop_timer_stop(l, &c->max_duration);
        loop_timer_stop(l, &c->drain);
        gauge_down(c, HCM_CX_ACTIVE);
        if (c->seen_protocol)
                gauge_down(c, c->version == HTTP_2 ? HCM_CX_HTTP2_ACTIVE : HCM_CX_HTTP1_ACTIVE);
        conn_stat(c, HCM_CX_DESTROY);
        conn_stat(c, c->closing || c->draining ? HCM_CX_DESTROY_LOCAL : HCM_CX_DESTROY_REMOTE);
        if (io) {
                stat_add(c->worker->stats, stat_of(c->cfg->stats, HCM_CX_RX_BYTES_TOTAL), conn_bytes_read(io));
                stat_add(c->worker->stats, stat_of(c->cfg->stats, HCM_CX_TX_BYTES_TOTAL), conn_bytes_written(io));
        }
        stat_record(c->worker->stats, stat_of(c->cfg->stats, HCM_CX_LENGTH_MS), (loop_now_us(l) - c->opened_us) / 1000);
        c->d->session = NULL;
        downstream_done(c->d);
        free(c);
}

static const struct http_conn_ops conn_ops = {
        .on_stream = on_stream,
        .on_idle = on_conn_idle,
        .on_close = on_close,
        .on_refused = on_refused,
};

static void hcm_open(void *config, struct downstream *d, struct chain *first)
{
        const struct hcm_config *cfg = config;
        struct hcm_conn *c = MEM_NEW(struct hcm_conn);

        c->d = d;
        c->cfg = cfg;
        c->worker = d->worker;
        c->opened_us = loop_now_us(d->worker->loop);
        c->idle.fn = on_idle_timeout;
        c->max_duration.fn = on_max_duration;
        c->drain.fn = on_drain_timeout;
        c->idle.arg = c->max_duration.arg = c->drain.arg = c;
        d->session = c;
        conn_stat(c, HCM_CX_TOTAL);
        conn_stat(c, HCM_CX_ACTIVE);
        if (d->info.tls)
                conn_stat(c, HCM_CX_SSL_TOTAL);
        switch (cfg->codec) {
        case HCM_HTTP1:
                c->http = http_server_h1(d->conn, &cfg->opts, &conn_ops, c, first);
                break;
        case HCM_HTTP2:
                c->http = http_server_h2(d->conn, &cfg->opts, &conn_ops, c, first);
                break;
        case HCM_AUTO:
                c->http = http_server_auto(d->conn, &cfg->opts, &conn_ops, c, first);
                break;
        }
        idle_arm(c);
        if (cfg->max_connection_ms)
                loop_timer_arm(c->worker->loop, &c->max_duration, cfg->max_connection_ms);
}

static void hcm_drain(void *config, struct downstream *d)
{
        struct hcm_conn *c = d->session;

        if (!c)
                return;
        conn_stat(c, HCM_CX_DRAIN_CLOSE);
        if (c->version == HTTP_2)
                hcm_conn_drain(c); /* HTTP/1.1 is told with its next answer: closing now could cross a request on its way */
}

static void hcm_close(void *config, struct downstream *d)
{
        struct hcm_conn *c = d->session;

        if (!c)
                return;
        c->closing = true;
        http_conn_close(c->http);
}

const struct network_filter network_filter_hcm = {
        .name = "envoy.filters.network.http_connection_manager",
        .type = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        .terminal = true,
        .build = hcm_config_build,
        .free = hcm_config_free,
        .open = hcm_open,
        .drain = hcm_drain,
        .close = hcm_close,
};
