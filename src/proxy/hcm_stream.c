/* A request's way through the connection manager. See hcm.h.
 *
 * The order is Envoy's: the head is cleaned, the route is found, the filters run, the router forwards; an answer made here (a local reply)
 * goes back through the same filters as one from the upstream. The stream ends in on_close, which comes once; the access log is written
 * there. */
#include "proxy/hcm.h"

#include "base/clock.h"
#include "base/hash.h"
#include "net/tls.h"
#include "proxy/format.h"

static uint64_t now_us(const struct hcm_stream *s)
{
        return loop_now_us(s->worker->loop);
}

static void idle_touch(struct hcm_stream *s)
{
        if (s->idle_ms)
                loop_timer_arm(s->worker->loop, &s->idle, s->idle_ms);
}

/* Filters */

static void *state_of(const struct hcm_stream *s, const struct hcm_filter *f)
{
        return f->filter->state_bytes ? s->filter_state + f->state_at : NULL;
}

static bool filter_off(const struct hcm_stream *s, const struct hcm_filter *f)
{
        const struct route_filter_config *c;

        if (!f->disabled && !s->pick.route)
                return false;
        c = s->pick.route ? route_filter_config(s->table, &s->pick, f->name) : NULL;
        return c ? c->disabled : f->disabled;
}

static void to_router(struct hcm_stream *s)
{
        const struct route *r = s->pick.route;

        s->state = HCM_ROUTING;
        hcm_stat(s, HCM_RQ_TOTAL);
        if (!r) {
                hcm_stat(s, HCM_NO_ROUTE);
                hcm_local_reply(s, 404, STR(""), STR("route_not_found"), RF_NR, NULL);
                return;
        }
        switch (r->action) {
        case ROUTE_FORWARD:
                router_start(s, s->req_end && !s->held.n && !s->held_trailers);
                if (s->router.cluster && (s->held.n || (s->held_end && !s->req_end)))
                        router_data(s, &s->held, s->req_end && !s->held_trailers);
                if (s->router.cluster && s->held_trailers)
                        router_trailers(s, s->held_trailers);
                break;
        default:
                hcm_direct_response(s);
        }
}

static void run_filters(struct hcm_stream *s)
{
        while (s->at < s->cfg->nfilters) {
                const struct hcm_filter *f = &s->cfg->filters[s->at++];

                if (!f->filter->on_request || filter_off(s, f))
                        continue;
                if (f->filter->on_request(f->config, s, state_of(s, f)) == FILTER_STOP) {
                        s->waits = s->state == HCM_FILTERING;
                        return;
                }
        }
        to_router(s);
}

void hcm_continue(struct hcm_stream *s)
{
        if (!s->waits || s->state != HCM_FILTERING)
                return;
        s->waits = false;
        run_filters(s);
        if (s->state == HCM_ROUTING)
                hcm_resume(s);
}

/* Routing */

static void set_cluster(struct hcm_stream *s, struct cluster *c)
{
        struct cluster *old = s->cluster;

        s->cluster = c ? cluster_ref(c) : NULL;
        s->si.cluster = c ? c->info : NULL;
        if (old)
                cluster_unref(old);
}

bool hcm_stream_route(struct hcm_stream *s)
{
        const struct conn_info *ci = &s->hc->d->info;
        struct route_input in = {
                .head = s->req,
                .random = s->random,
                .tls = ci->tls != NULL,
                .tls_presented = ci->tls && ci->tls->peer_subject.n,
                .tls_validated = ci->tls && ci->tls->peer_verified,
                .internal = s->internal,
        };

        if (!s->table || !route_table_pick(s->table, &in, &s->pick)) {
                memset(&s->pick, 0, sizeof(s->pick));
                return false;
        }
        set_cluster(s, s->pick.route->action == ROUTE_FORWARD ? cluster_get(s->worker, s->pick.cluster) : NULL);
        s->si.route_name = s->pick.route->name;
        s->si.virtual_host_name = s->pick.route->vhost->name;
        s->si.route_metadata = s->pick.route->metadata;
        return true;
}

static bool upgrade_allowed(const struct hcm_stream *s)
{
        const struct route *r = s->pick.route;
        struct str type = s->req->protocol.n ? s->req->protocol : STR("connect");

        for (size_t i = 0; r && i < r->nupgrades; i++)
                if (str_eq_nocase(r->upgrades[i].type, type))
                        return r->upgrades[i].enabled;
        for (size_t i = 0; i < s->cfg->nupgrades; i++)
                if (str_eq_nocase(s->cfg->upgrades[i].type, type))
                        return s->cfg->upgrades[i].enabled;
        return false;
}

static void on_idle(struct loop_timer *t)
{
        struct hcm_stream *s = t->arg;

        hcm_stat(s, HCM_DS_RQ_IDLE_TIMEOUT);
        hcm_local_reply(s, s->req_end ? 504 : 408, STR("stream timeout"), STR("stream_idle_timeout"), RF_SI, NULL);
}

static void on_request_timeout(struct loop_timer *t)
{
        struct hcm_stream *s = t->arg;

        if (s->state == HCM_READING_HEAD && !s->cfg->request_ms) {
                hcm_stat(s, HCM_DS_RQ_HEADER_TIMEOUT);
                hcm_local_reply(s, 408, STR("request header timeout"), STR("request_header_timeout"), 0, NULL);
                return;
        }
        hcm_stat(s, HCM_DS_RQ_TIMEOUT);
        hcm_local_reply(s, 408, STR("request timeout"), STR("request_overall_timeout"), 0, NULL);
}

static void on_max_stream(struct loop_timer *t)
{
        struct hcm_stream *s = t->arg;

        hcm_stat(s, HCM_DS_RQ_MAX_DURATION_REACHED);
        hcm_local_reply(s, s->state == HCM_READING_HEAD || !s->req_end ? 408 : 504, STR("downstream duration timeout"),
                        STR("max_duration_timeout"), RF_DT, NULL);
}

static void protocol_count(struct hcm_stream *s)
{
        if (s->req->version == HTTP_2)
                hcm_stat(s, HCM_DS_RQ_HTTP2_TOTAL);
        else
                hcm_stat(s, HCM_DS_RQ_HTTP1_TOTAL);
        s->si.protocol = s->req->version == HTTP_2 ? SP_HTTP2 : s->req->version == HTTP_1_0 ? SP_HTTP10 : SP_HTTP11;
}

static void request_complete(struct hcm_stream *s)
{
        s->req_end = true;
        s->si.t[ST_DS_RX_END] = now_us(s);
        loop_timer_stop(s->worker->loop, &s->request_timer);
}

/* "*.example.com" and such come with RDS: the table is the one of this moment, and the stream keeps it. */
static void take_table(struct hcm_stream *s)
{
        struct route_table *t = s->cfg->rds ? rds_slot_table(s->worker, s->cfg->rds) : s->cfg->table;

        s->table = t ? route_table_ref(t) : NULL;
}

static void ds_on_head(struct http_stream *ds, void *arg, struct http_head *m, bool end)
{
        struct hcm_stream *s = arg;

        if (s->hc->last == s)
                s->hc->last = NULL;
        if (s->resp_started) /* timed out while its head was on the way */
                return;
        s->req = m;
        s->si.request = m;
        s->head_method = str_eqc(m->method, "HEAD");
        s->grpc = http_is_grpc(m);
        protocol_count(s);
        if (!s->cfg->request_ms)
                loop_timer_stop(s->worker->loop, &s->request_timer);
        if (end)
                request_complete(s);
        s->state = HCM_FILTERING;
        take_table(s);
        if (hcm_request_headers(s) == HCM_ANSWER)
                return;
        hcm_stream_route(s);
        if (s->pick.route && s->pick.route->has_idle_timeout)
                s->idle_ms = s->pick.route->idle_timeout_ms;
        if (s->idle_ms)
                idle_touch(s);
        else
                loop_timer_stop(s->worker->loop, &s->idle);
        if (s->pick.route && (m->protocol.n || str_eqc(m->method, "CONNECT"))) {
                if (!upgrade_allowed(s)) {
                        hcm_stat(s, HCM_DS_RQ_WS_ON_NON_WS_ROUTE);
                        hcm_local_reply(s, 403, STR(""), STR("upgrade_failed"), 0, NULL);
                        return;
                }
                hcm_stat(s, HCM_CX_UPGRADES_TOTAL);
                s->upgraded = true;
        }
        if (s->cfg->tracing != HCM_TRACING_NONE)
                hcm_trace_begin(s);
        run_filters(s);
}

static void ds_on_data(struct http_stream *ds, void *arg, struct chain *data, bool end)
{
        struct hcm_stream *s = arg;

        s->si.bytes_received += data->n;
        if (end)
                request_complete(s);
        if (s->resp_end || s->state == HCM_ANSWERED) {
                chain_fini(data);
                return;
        }
        idle_touch(s);
        for (size_t i = 0; i < s->cfg->nfilters; i++) {
                const struct hcm_filter *f = &s->cfg->filters[i];

                if (f->filter->on_request_data)
                        f->filter->on_request_data(f->config, s, state_of(s, f), data, end);
        }
        if (s->state == HCM_ROUTING) {
                router_data(s, data, end);
                return;
        }
        chain_move(&s->held, data);
        s->held_end |= end;
        if (!end)
                hcm_pause(s);
}

static void ds_on_trailers(struct http_stream *ds, void *arg, struct http_head *t)
{
        struct hcm_stream *s = arg;
        struct chain none = CHAIN_INIT;

        if (s->req && s->req->version != HTTP_2 && !s->cfg->h1_trailers) {
                ds_on_data(ds, arg, &none, true);
                return;
        }
        request_complete(s);
        if (s->resp_end || s->state == HCM_ANSWERED)
                return;
        idle_touch(s);
        if (s->state == HCM_ROUTING)
                router_trailers(s, t);
        else
                s->held_trailers = t;
}

static void ds_on_drain(struct http_stream *ds, void *arg)
{
        struct hcm_stream *s = arg;

        idle_touch(s);
        router_downstream_drained(s);
}

/* Responses */

static void response_done(struct hcm_stream *s)
{
        s->resp_end = true;
        s->si.t[ST_DS_TX_END] = s->si.t[ST_END] = now_us(s);
        loop_timer_stop(s->worker->loop, &s->idle);
        loop_timer_stop(s->worker->loop, &s->max_timer);
        loop_timer_stop(s->worker->loop, &s->request_timer);
        if (s->ds_paused)
                hcm_resume(s);
}

void hcm_send_interim(struct hcm_stream *s, struct http_head *m)
{
        struct http_head *copy;

        if (s->resp_started || !s->cfg->proxy_100_continue)
                return;
        copy = hcm_copy_head(s->arena, m);
        hcm_response_headers(s, copy, true);
        http_send_head(s->ds, copy, false);
}

static void count_response(struct hcm_stream *s, int status)
{
        static const unsigned class[] = { HCM_DS_RQ_1XX, HCM_DS_RQ_2XX, HCM_DS_RQ_3XX, HCM_DS_RQ_4XX, HCM_DS_RQ_5XX };

        if (status >= 100 && status < 600)
                hcm_stat(s, class[status / 100 - 1]);
        hcm_stat(s, HCM_DS_RQ_COMPLETED);
}

void hcm_send_head(struct hcm_stream *s, struct http_head *m, bool end)
{
        s->resp = m;
        s->resp_started = true;
        s->si.response = m;
        s->si.response_code = m->status;
        idle_touch(s);
        for (size_t i = s->cfg->nfilters; i-- > 0;) {
                const struct hcm_filter *f = &s->cfg->filters[i];

                if (f->filter->on_response && !filter_off(s, f))
                        f->filter->on_response(f->config, s, state_of(s, f), m);
        }
        hcm_response_headers(s, m, false);
        if (s->decorated || s->cfg->tracing != HCM_TRACING_NONE)
                hcm_trace_response(s, m);
        count_response(s, m->status);
        s->si.t[ST_DS_TX_BEG] = now_us(s);
        if (!s->req_end && !s->upgraded)
                hcm_stat(s, HCM_DS_RQ_RESPONSE_BEFORE_RQ_COMPLETE);
        if ((!s->req || s->req->version != HTTP_2) && m->status != 101 && (hcm_conn_should_close(s->hc) || (!s->req_end && !s->upgraded)))
                hcm_conn_drain(s->hc);
        if (end)
                response_done(s);
        http_send_head(s->ds, m, end);
}

void hcm_send_data(struct hcm_stream *s, struct chain *data, bool end)
{
        s->si.bytes_sent += data->n;
        idle_touch(s);
        for (size_t i = s->cfg->nfilters; i-- > 0;) {
                const struct hcm_filter *f = &s->cfg->filters[i];

                if (f->filter->on_response_data)
                        f->filter->on_response_data(f->config, s, state_of(s, f), data, end);
        }
        if (end)
                response_done(s);
        http_send_data(s->ds, data, end);
}

void hcm_send_trailers(struct hcm_stream *s, struct http_head *t)
{
        struct chain none = CHAIN_INIT;

        s->si.response_trailers = hcm_copy_head(s->arena, t);
        for (size_t i = s->cfg->nfilters; i-- > 0;) {
                const struct hcm_filter *f = &s->cfg->filters[i];

                if (f->filter->on_response_trailers)
                        f->filter->on_response_trailers(f->config, s, state_of(s, f), t);
        }
        response_done(s);
        if (s->req->version == HTTP_2 || s->cfg->h1_trailers)
                http_send_trailers(s->ds, t);
        else
                http_send_data(s->ds, &none, true);
}

void hcm_reset(struct hcm_stream *s, struct str details, uint32_t flags)
{
        s->si.flags |= flags;
        if (details.n)
                s->si.response_code_details = details;
        response_done(s);
        http_reset(s->ds, HTTP_RESET_LOCAL);
}

void hcm_pause(struct hcm_stream *s)
{
        if (s->ds_paused || s->req_end)
                return;
        s->ds_paused = true;
        http_pause(s->ds);
}

void hcm_resume(struct hcm_stream *s)
{
        if (!s->ds_paused)
                return;
        s->ds_paused = false;
        http_resume(s->ds);
}

bool hcm_blocked(const struct hcm_stream *s)
{
        return http_send_blocked(s->ds);
}

/* The end */

static void downstream_gone(struct hcm_stream *s, enum http_reset reset)
{
        if (reset == HTTP_RESET_NONE || s->resp_end)
                return;
        switch (reset) {
        case HTTP_RESET_CONN_CLOSED:
        case HTTP_RESET_CONN_FAILED:
                s->si.flags |= RF_DC;
                s->si.response_code_details = STR("downstream_remote_disconnect");
                break;
        case HTTP_RESET_REMOTE:
        case HTTP_RESET_REFUSED:
                hcm_stat(s, HCM_DS_RQ_RX_RESET);
                s->si.flags |= RF_DR;
                s->si.response_code_details = STR("http2.remote_reset");
                break;
        case HTTP_RESET_PROTOCOL:
        case HTTP_RESET_OVERFLOW:
                hcm_stat(s, HCM_CX_PROTOCOL_ERROR);
                s->si.flags |= RF_DPE;
                if (!s->si.response_code_details.n)
                        s->si.response_code_details = s->si.protocol == SP_HTTP2 ? STR("http2.protocol_error") : STR("http1.codec_error");
                break;
        default:
                hcm_stat(s, HCM_DS_RQ_TX_RESET);
        }
}

static void ds_on_close(struct http_stream *ds, void *arg, enum http_reset reset)
{
        struct hcm_stream *s = arg;
        struct loop *l = s->worker->loop;

        if (s->hc->last == s)
                s->hc->last = NULL;
        downstream_gone(s, reset);
        loop_timer_stop(l, &s->idle);
        loop_timer_stop(l, &s->request_timer);
        loop_timer_stop(l, &s->max_timer);
        s->state = HCM_ANSWERED;
        if (!s->si.t[ST_END])
                s->si.t[ST_END] = now_us(s);
        if (s->router.cluster)
                router_attempt_drop(s);
        stat_dec(s->worker->stats, stat_of(s->cfg->stats, HCM_DS_RQ_ACTIVE));
        stat_record(s->worker->stats, stat_of(s->cfg->stats, HCM_DS_RQ_TIME), stream_us(&s->si, ST_START, ST_END) / 1000);
        for (size_t i = 0; i < s->cfg->nfilters; i++) {
                const struct hcm_filter *f = &s->cfg->filters[i];

                if (f->filter->on_log && s->req)
                        f->filter->on_log(f->config, s, state_of(s, f));
                if (f->filter->on_end)
                        f->filter->on_end(f->config, s, state_of(s, f));
        }
        if (s->cfg->logs)
                access_logs_write(s->cfg->logs, s->worker, &s->si);
        router_end(s);
        set_cluster(s, NULL);
        if (s->si.host)
                host_unref(s->si.host);
        chain_fini(&s->held);
        if (s->table)
                route_table_unref(s->table);
}

static const struct http_stream_ops ds_ops = {
        .on_head = ds_on_head,
        .on_data = ds_on_data,
        .on_trailers = ds_on_trailers,
        .on_drain = ds_on_drain,
        .on_close = ds_on_close,
};

static void timer(struct loop_timer *t, void (*fn)(struct loop_timer *), void *arg)
{
        t->fn = fn;
        t->arg = arg;
}

void hcm_stream_new(struct hcm_conn *c, struct http_stream *ds)
{
        const struct hcm_config *cfg = c->cfg;
        struct arena *a = http_stream_arena(ds);
        struct hcm_stream *s = arena_zalloc(a, sizeof(*s) + cfg->filter_state_bytes);

        s->hc = c;
        s->cfg = cfg;
        s->worker = c->worker;
        s->ds = ds;
        s->arena = a;
        s->filter_state = (char *)(s + 1);
        s->random = rand_u64();
        s->idle_ms = cfg->stream_idle_ms;
        s->si.conn = &c->d->info;
        s->si.remote = c->d->info.remote;
        s->si.protocol = c->version == HTTP_2 ? SP_HTTP2 : SP_HTTP11;
        s->si.start_real_us = clock_real_us();
        s->si.t[ST_START] = now_us(s);
        timer(&s->idle, on_idle, s);
        timer(&s->request_timer, on_request_timeout, s);
        timer(&s->max_timer, on_max_stream, s);
        http_stream_set_ops(ds, &ds_ops, s);
        c->last = s;
        c->requests++;
        hcm_stat(s, HCM_DS_RQ_TOTAL);
        hcm_stat(s, HCM_DS_RQ_ACTIVE);
        if (cfg->request_ms)
                loop_timer_arm(s->worker->loop, &s->request_timer, cfg->request_ms);
        else if (cfg->request_headers_ms)
                loop_timer_arm(s->worker->loop, &s->request_timer, cfg->request_headers_ms);
        if (cfg->max_stream_ms)
                loop_timer_arm(s->worker->loop, &s->max_timer, cfg->max_stream_ms);
        idle_touch(s);
}

void hcm_stream_refused(struct hcm_conn *c, struct http_stream *ds, int status, const char *details)
{
        struct hcm_stream *s = c->last;
        bool no_host = strcmp(details, "missing_host_header") == 0;

        stat_inc(c->worker->stats, stat_of(c->cfg->stats, HCM_CX_PROTOCOL_ERROR));
        if (!s || s->ds != ds)
                return;
        s->si.protocol = http_conn_version(c->http) == HTTP_2 ? SP_HTTP2 : SP_HTTP11;
        if (!no_host)
                s->si.flags |= RF_DPE;
        s->si.response_code_details = arena_str(s->arena, str_of(details));
        if (status == 431)
                hcm_stat(s, HCM_DS_RQ_TOO_LARGE);
        if (!status)
                return;
        hcm_local_reply(s, status, no_host ? STR("") : str_of(hcm_status_text(status)), s->si.response_code_details, s->si.flags, NULL);
}
