/* See router.h. What a user sees when an upstream fails (status, body, flags, details) is Envoy's, word for word: people grep for it. */
#include "proxy/hcm.h"

#include "base/mem.h"
#include "envoy/filter_router.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "proxy/ext.h"
#include "proxy/format.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUTER_BODY_LIMIT = 1 << 20 };

static const struct {
        const char *text;
        uint32_t flag;
        int status;
        enum retry_reset retry;
} failures[] = {
        [ROUTER_CONNECT_FAILURE] = { "remote connection failure", RF_UF, 503, RETRY_BY_CONNECT_FAILURE },
        [ROUTER_CONNECT_TIMEOUT] = { "connection timeout", RF_UF, 503, RETRY_BY_CONNECT_FAILURE },
        [ROUTER_CONNECTION_TERMINATION] = { "connection termination", RF_UC, 503, RETRY_BY_RESET },
        [ROUTER_REMOTE_RESET] = { "remote reset", RF_UR, 503, RETRY_BY_RESET },
        [ROUTER_REMOTE_REFUSED] = { "remote refused stream reset", RF_UR, 503, RETRY_BY_REFUSED },
        [ROUTER_LOCAL_RESET] = { "local reset", RF_LR, 503, RETRY_BY_RESET },
        [ROUTER_OVERFLOW] = { "overflow", RF_UO, 503, RETRY_BY_OVERFLOW },
        [ROUTER_PROTOCOL_ERROR] = { "protocol error", RF_UPE, 502, RETRY_BY_RESET },
};

static void rq_stat(struct hcm_stream *s, unsigned row)
{
        stat_inc(s->worker->stats, cluster_stat(s->router.cluster->info, row));
}

/* cluster.<name>.upstream_rq_<code>, made the first time that a worker sees the code. */
struct code_stats {
        stat_id *class[6];
};

static void code_stats_free(void *p)
{
        struct code_stats *c = p;

        for (size_t i = 0; i < ARRAY_LEN(c->class); i++)
                free(c->class[i]);
        free(c);
}

static stat_id code_stat(struct hcm_stream *s, int code)
{
        struct cluster *c = s->router.cluster;
        struct code_stats *cs = c->http;
        unsigned k = (unsigned)code / 100, i = (unsigned)code % 100;

        if (k < 1 || k > 5)
                return 0;
        if (!cs) {
                cs = MEM_NEW(struct code_stats);
                c->http = cs;
                c->http_free = code_stats_free;
        }
        if (!cs->class[k])
                cs->class[k] = mem_calloc(100, sizeof(stat_id));
        if (!cs->class[k][i]) {
                char digits[8];
                int n = snprintf(digits, sizeof(digits), "%d", code);
                struct stat_tag tags[2] = { { "envoy.cluster_name", c->info->alt_stat_name },
                                            { "envoy.response_code", str_make(digits, (size_t)n) } };
                struct str name = arena_printf(s->arena, "cluster." STR_FMT ".upstream_rq_%d", STR_ARG(c->info->alt_stat_name), code);

                cs->class[k][i] = stats_dynamic(s->worker->stats, name, STAT_COUNTER, STR("cluster.upstream_rq"), tags, 2);
        }
        return cs->class[k][i];
}

static void charge(struct hcm_stream *s, int code)
{
        static const unsigned class[] = { CS_UPSTREAM_RQ_1XX, CS_UPSTREAM_RQ_2XX, CS_UPSTREAM_RQ_3XX, CS_UPSTREAM_RQ_4XX,
                                          CS_UPSTREAM_RQ_5XX };

        if (code >= 100 && code < 600)
                rq_stat(s, class[code / 100 - 1]);
        rq_stat(s, CS_UPSTREAM_RQ_COMPLETED);
        if (s->cfg->router.dynamic_stats)
                stat_inc(s->worker->stats, code_stat(s, code));
}

/* Requests */

static void on_timeout(struct loop_timer *t);
static void on_per_try(struct loop_timer *t);
static void on_per_try_idle(struct loop_timer *t);
static void on_backoff(struct loop_timer *t);
static void on_max_duration(struct loop_timer *t);

static void timer(struct loop_timer *t, void (*fn)(struct loop_timer *), void *arg)
{
        t->fn = fn;
        t->arg = arg;
}

static bool take_ms(struct http_head *req, enum http_name id, uint64_t *v)
{
        struct http_hdr *h = http_get(req, id);
        bool ok;

        if (!h)
                return false;
        ok = str_u64(h->value, v);
        http_remove(req, id);
        return ok;
}

/* "100m" and so on (gRPC over HTTP/2, Timeout). */
static bool grpc_timeout(const struct http_head *req, uint64_t *ms)
{
        static const struct {
                char unit;
                uint64_t mul, div;
        } units[] = { { 'H', 3600000, 1 }, { 'M', 60000, 1 }, { 'S', 1000, 1 }, { 'm', 1, 1 }, { 'u', 1, 1000 }, { 'n', 1, 1000000 } };
        struct http_hdr *h = http_get(req, HN_GRPC_TIMEOUT);
        uint64_t v;

        if (!h || h->value.n < 2 || h->value.n > 9 || !str_u64(str_sub(h->value, 0, h->value.n - 1), &v))
                return false;
        for (size_t i = 0; i < ARRAY_LEN(units); i++)
                if (units[i].unit == h->value.p[h->value.n - 1]) {
                        *ms = (v * units[i].mul + units[i].div - 1) / units[i].div;
                        return true;
                }
        return false;
}

static uint64_t grpc_bound(const struct http_head *req, uint64_t offset, uint64_t max)
{
        uint64_t t = 0;

        grpc_timeout(req, &t);
        if (offset < t)
                t -= offset;
        return max && (!t || t > max) ? max : t;
}

static void timeouts(struct hcm_stream *s)
{
        struct router *r = &s->router;
        const struct route *route = s->pick.route;
        struct http_head *req = s->req;
        const struct retry_policy *p = route->retry;
        uint64_t v, expected;
        struct http_hdr *h;

        r->timeout_ms = route->timeout_ms;
        if (s->grpc && route->has_max_grpc_timeout)
                r->timeout_ms = grpc_bound(req, route->grpc_timeout_offset_ms, route->max_grpc_timeout_ms);
        r->per_try_ms = p ? p->per_try_timeout_ms : 0;
        r->per_try_idle_ms = p ? p->per_try_idle_timeout_ms : 0;
        h = s->cfg->router.respect_expected_rq_timeout ? http_get(req, HN_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS) : NULL;
        if (h && str_u64(h->value, &v)) {
                r->timeout_ms = v;
                http_remove(req, HN_X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS);
        } else if (take_ms(req, HN_X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS, &v)) {
                r->timeout_ms = v;
        }
        if (take_ms(req, HN_X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS, &v))
                r->per_try_ms = v;
        if (r->timeout_ms && r->per_try_ms >= r->timeout_ms)
                r->per_try_ms = 0;
        expected = r->per_try_ms ? r->per_try_ms : r->timeout_ms;
        if (expected && !s->cfg->router.suppress_envoy_headers)
                http_set(req, HN_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, arena_printf(s->arena, "%llu", (unsigned long long)expected));
        if (s->grpc && expected && route->has_max_grpc_timeout)
                http_set(req, HN_GRPC_TIMEOUT,
                         arena_printf(s->arena, "%llum", (unsigned long long)(expected > 99999999 ? 99999999 : expected)));
        if (http_get_name(req, STR("x-envoy-upstream-rq-timeout-alt-response"))) {
                r->timeout_204 = true;
                http_remove_name(req, STR("x-envoy-upstream-rq-timeout-alt-response"));
        }
}

static void attempt_count(struct hcm_stream *s, unsigned n)
{
        struct str v = n < 10 ? str_make("0123456789" + n, 1) : arena_printf(s->arena, "%u", n);

        http_set(s->req, HN_X_ENVOY_ATTEMPT_COUNT, v);
}

/* x-envoy-attempt-count and x-envoy-overloaded of answers that the router makes itself. */
static void local_headers(struct hcm_stream *s, struct http_head *resp)
{
        if (s->pick.route->vhost->attempt_count_in_response)
                http_set(resp, HN_X_ENVOY_ATTEMPT_COUNT, arena_printf(s->arena, "%u", s->router.attempts));
}

static void overloaded_headers(struct hcm_stream *s, struct http_head *resp)
{
        if (!s->cfg->router.suppress_envoy_headers)
                http_set(resp, HN_X_ENVOY_OVERLOADED, STR("true"));
        local_headers(s, resp);
}

static void request_done(struct hcm_stream *s)
{
        struct router *r = &s->router;

        r->req_end = true;
        r->req_done_us = loop_now_us(s->worker->loop);
        if (r->timeout_ms && !r->started)
                loop_timer_arm(s->worker->loop, &r->timeout, r->timeout_ms);
        if (r->per_try_ms && r->a.us && !r->a.got_head)
                loop_timer_arm(s->worker->loop, &r->per_try, r->per_try_ms);
}

static uint64_t stream_max(const struct hcm_stream *s)
{
        const struct route *route = s->pick.route;
        uint64_t max = route->has_max_stream_duration ? route->max_stream_duration_ms : s->router.http->max_stream_ms;

        if (s->grpc && route->has_grpc_timeout_header_max) {
                uint64_t t;

                if (grpc_timeout(s->req, &t))
                        max = grpc_bound(s->req, route->grpc_timeout_header_offset_ms, route->grpc_timeout_header_max_ms);
        }
        return max;
}

void router_start(struct hcm_stream *s, bool end)
{
        struct router *r = &s->router;
        const struct route *route = s->pick.route;
        bool envoy_headers = !s->cfg->router.suppress_envoy_headers;
        uint64_t max;

        r->s = s;
        if (!s->cluster) {
                hcm_stat(s, HCM_NO_CLUSTER);
                hcm_local_reply(s, route->cluster_not_found_status, STR(""), STR("cluster_not_found"), RF_NC, NULL);
                return;
        }
        r->cluster = s->cluster;
        r->http = cluster_http_of(s->cluster->info);
        timer(&r->timeout, on_timeout, s);
        timer(&r->per_try, on_per_try, s);
        timer(&r->per_try_idle, on_per_try_idle, s);
        timer(&r->backoff, on_backoff, s);
        timer(&r->max_duration, on_max_duration, s);
        r->body_limit = s->table && route->body_limit != UINT64_MAX ? route->body_limit : ROUTER_BODY_LIMIT;
        timeouts(s);
        if (route->vhost->attempt_count_in_request)
                attempt_count(s, 1);
        route_finalize_request(s->table, &s->pick, s->req, &s->si, envoy_headers);
        retry_begin(&r->retry, route->retry, s->req);
        r->keep_body = r->retry.enabled && !s->upgraded && !end;
        max = stream_max(s);
        if (max)
                loop_timer_arm(s->worker->loop, &r->max_duration, max);
        if (end)
                request_done(s);
        router_attempt(s);
}

/* A retry buffer that is full is given up, and the request goes on without a way back. */
static void forget_body(struct hcm_stream *s)
{
        struct router *r = &s->router;

        if (!r->keep_body)
                return;
        r->keep_body = false;
        r->retry.enabled = false;
        if (r->a.us && r->a.head_sent) {
                chain_drop(&r->body, r->a.sent);
                r->a.sent = 0;
        }
}

void router_data(struct hcm_stream *s, struct chain *data, bool end)
{
        struct router *r = &s->router;

        if (!r->cluster) {
                chain_fini(data);
                return;
        }
        if (r->keep_body && r->body.n + data->n > r->body_limit) {
                rq_stat(s, CS_RETRY_OR_SHADOW_ABANDONED);
                forget_body(s);
        }
        chain_move(&r->body, data);
        if (end)
                request_done(s);
        if (r->a.us && r->a.head_sent)
                router_attempt_send(s);
        else if (r->body.n >= r->body_limit && !end)
                hcm_pause(s);
        if (r->per_try_idle_ms && r->a.us)
                loop_timer_arm(s->worker->loop, &r->per_try_idle, r->per_try_idle_ms);
}

void router_trailers(struct hcm_stream *s, struct http_head *t)
{
        if (!s->router.cluster)
                return;
        s->router.trailers = t;
        request_done(s);
        router_attempt_send(s);
}

void router_downstream_drained(struct hcm_stream *s)
{
        struct attempt *a = &s->router.a;

        if (!a->us || !a->us_paused)
                return;
        a->us_paused = false;
        rq_stat(s, CS_UPSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
        http_resume(a->us);
}

/* Retries */

enum retry_verdict { RETRY_NO, RETRY_YES, RETRY_LIMIT, RETRY_OVERFLOW };

static void retry_slot_release(struct hcm_stream *s)
{
        struct router *r = &s->router;

        if (!r->retry_slot)
                return;
        r->retry_slot = false;
        breaker_release(r->cluster->info, (enum priority)s->pick.route->priority, BREAKER_RETRIES);
}

/* `wanted`: the policy covers this outcome. With RETRY_YES the attempt is gone and the next one is planned. */
static enum retry_verdict retry_plan(struct hcm_stream *s, bool wanted)
{
        struct router *r = &s->router;
        uint64_t wait;

        retry_slot_release(s);
        if (!wanted) {
                if (r->retried)
                        rq_stat(s, CS_UPSTREAM_RQ_RETRY_SUCCESS);
                return RETRY_NO;
        }
        if (!r->retry.left) {
                rq_stat(s, CS_UPSTREAM_RQ_RETRY_LIMIT_EXCEEDED);
                return RETRY_LIMIT;
        }
        r->retry.left--;
        if (!breaker_take(r->cluster->info, (enum priority)s->pick.route->priority, BREAKER_RETRIES)) {
                rq_stat(s, CS_UPSTREAM_RQ_RETRY_OVERFLOW);
                return RETRY_OVERFLOW;
        }
        r->retry_slot = true;
        r->retried = true;
        rq_stat(s, CS_UPSTREAM_RQ_RETRY);
        rq_stat(s, r->retry.after_ms ? CS_UPSTREAM_RQ_RETRY_BACKOFF_RATELIMITED : CS_UPSTREAM_RQ_RETRY_BACKOFF_EXPONENTIAL);
        loop_timer_stop(s->worker->loop, &r->per_try);
        loop_timer_stop(s->worker->loop, &r->per_try_idle);
        router_attempt_drop(s);
        wait = retry_backoff_ms(&r->retry);
        loop_timer_arm(s->worker->loop, &r->backoff, wait ? wait : 1);
        return RETRY_YES;
}

static void on_backoff(struct loop_timer *t)
{
        struct hcm_stream *s = t->arg;
        struct router *r = &s->router;

        if (s->pick.route->vhost->attempt_count_in_request)
                attempt_count(s, r->attempts + 1);
        router_attempt(s);
}

/* Responses */

static void started(struct hcm_stream *s)
{
        struct router *r = &s->router;

        r->started = true;
        retry_slot_release(s);
        loop_timer_stop(s->worker->loop, &r->per_try);
        if (r->keep_body) {
                forget_body(s);
                router_attempt_send(s);
        }
}

static void upgrade_translate(struct hcm_stream *s, struct http_head *m)
{
        struct router *r = &s->router;

        if (r->upgrade_h1_h2 && m->status == 200) {
                m->status = 101;
                m->protocol = s->req->protocol;
                m->content_length = -1;
        } else if (r->upgrade_h2_h1 && m->status == 101) {
                m->status = 200;
                m->protocol = str_make(NULL, 0);
                m->content_length = -1;
        }
}

static void service_time(struct hcm_stream *s, struct http_head *m)
{
        uint64_t ms = (loop_now_us(s->worker->loop) - s->router.req_done_us) / 1000;

        http_set(m, HN_X_ENVOY_UPSTREAM_SERVICE_TIME,
                 ms < 10 ? str_make("0123456789" + ms, 1) : arena_printf(s->arena, "%llu", (unsigned long long)ms));
}

static void interim(struct hcm_stream *s, struct http_head *m)
{
        struct router *r = &s->router;

        charge(s, m->status);
        r->retry.enabled = false;
        if (r->interim_sent || m->status == 102)
                return;
        r->interim_sent = true;
        hcm_send_interim(s, m);
}

void router_on_head(struct hcm_stream *s, struct http_head *m, bool end)
{
        struct router *r = &s->router;
        struct http_head *copy;
        bool retry;

        if (m->status < 200 && m->status != 101) {
                interim(s, m);
                return;
        }
        r->a.got_head = true;
        r->upstream_status = m->status;
        s->si.t[ST_US_RX_BEG] = loop_now_us(s->worker->loop);
        if (end)
                s->si.t[ST_US_RX_END] = s->si.t[ST_US_RX_BEG];
        if (r->retry.enabled || r->retried) {
                uint32_t flag = 0;

                retry = retry_wants_response(&r->retry, m);
                switch (retry_plan(s, retry)) {
                case RETRY_YES:
                        charge(s, m->status);
                        return;
                case RETRY_LIMIT:
                        flag = RF_URX;
                        break;
                case RETRY_OVERFLOW:
                        flag = RF_UO;
                        break;
                default:
                        break;
                }
                s->si.flags |= flag;
        }
        charge(s, m->status);
        started(s);
        copy = hcm_copy_head(s->arena, m);
        upgrade_translate(s, copy);
        if (r->req_done_us && !s->cfg->router.suppress_envoy_headers)
                service_time(s, copy);
        if (s->pick.route->vhost->attempt_count_in_response)
                http_set(copy, HN_X_ENVOY_ATTEMPT_COUNT, arena_printf(s->arena, "%u", r->attempts));
        s->si.response_code_details = STR("via_upstream");
        s->si.response_code = copy->status;
        route_finalize_response(s->table, &s->pick, copy, &s->si);
        if (r->per_try_idle_ms && !end)
                loop_timer_arm(s->worker->loop, &r->per_try_idle, r->per_try_idle_ms);
        hcm_send_head(s, copy, end);
        if (end)
                router_on_complete(s);
}

void router_on_complete(struct hcm_stream *s)
{
        struct router *r = &s->router;

        if (!r->cluster)
                return;
        loop_timer_stop(s->worker->loop, &r->timeout);
        loop_timer_stop(s->worker->loop, &r->per_try_idle);
        loop_timer_stop(s->worker->loop, &r->max_duration);
        if (r->req_done_us)
                stat_record(s->worker->stats, cluster_stat(r->cluster->info, CS_UPSTREAM_RQ_TIME),
                            (loop_now_us(s->worker->loop) - r->req_done_us) / 1000);
        /* The upstream answered in full and does not wait for the rest of the request: neither do we. */
        if (r->a.us && !r->a.end_sent) {
                http_pool_discard(r->a.conn, r->a.us);
                r->a.us = NULL;
                router_attempt_drop(s);
        }
}

static struct str details_text(struct hcm_stream *s, enum router_failure why, struct str transport)
{
        struct str d = arena_printf(s->arena, "%s{%s%s" STR_FMT "}",
                                    s->router.started ? "upstream_reset_after_response_started" : "upstream_reset_before_response_started",
                                    failures[why].text, transport.n ? "|" : "", STR_ARG(transport));

        for (size_t i = 0; i < d.n; i++)
                if (d.p[i] == ' ' || d.p[i] == '\t')
                        ((char *)d.p)[i] = '_';
        return d;
}

void router_on_failure(struct hcm_stream *s, enum router_failure why, struct str transport)
{
        struct router *r = &s->router;
        bool sent = r->a.head_sent;
        struct str body;

        if (!r->cluster || s->resp_end)
                return;
        transport = arena_str(s->arena, transport);
        if (transport.n)
                s->si.upstream_failure = transport;
        if (!r->started && (r->retry.enabled || r->retried)) {
                bool want = retry_wants_reset(&r->retry, failures[why].retry, sent);

                if (want) {
                        switch (retry_plan(s, true)) {
                        case RETRY_YES:
                                return;
                        case RETRY_LIMIT:
                                s->si.flags |= RF_URX;
                                break;
                        case RETRY_OVERFLOW:
                                s->si.flags |= RF_UO;
                                break;
                        default:
                                break;
                        }
                }
        }
        retry_slot_release(s);
        router_attempt_drop(s);
        if (!r->started)
                charge(s, failures[why].status);
        /* Why the transport failed is for the log: the body would tell the world about the inside. */
        body = arena_printf(s->arena, "upstream connect error or disconnect/reset before headers. %sreset reason: %s",
                            r->attempts > 1 ? "retried and the latest " : "", failures[why].text);
        hcm_local_reply(s, failures[why].status, body, details_text(s, why, transport), failures[why].flag,
                        why == ROUTER_OVERFLOW ? overloaded_headers : local_headers);
}

static void time_out(struct hcm_stream *s, const char *details, uint32_t flag)
{
        struct router *r = &s->router;
        int status = r->timeout_204 ? 204 : 504;

        retry_slot_release(s);
        router_attempt_drop(s);
        if (!r->started)
                charge(s, status);
        hcm_local_reply(s, status, status == 204 ? STR("") : STR("upstream request timeout"), str_of(details), flag, local_headers);
}

static void count_timeout(struct hcm_stream *s, unsigned row)
{
        struct router *r = &s->router;

        if (r->a.got_head)
                return;
        rq_stat(s, row);
        if (r->a.host)
                stat_inc(s->worker->stats, r->a.host->stats + HS_RQ_TIMEOUT);
}

static void on_timeout(struct loop_timer *t)
{
        struct hcm_stream *s = t->arg;

        count_timeout(s, CS_UPSTREAM_RQ_TIMEOUT);
        loop_timer_stop(s->worker->loop, &s->router.backoff);
        time_out(s, "response_timeout", RF_UT);
}

static void try_timed_out(struct hcm_stream *s, const char *details, unsigned row)
{
        struct router *r = &s->router;

        count_timeout(s, row);
        if (!r->started && retry_wants_reset(&r->retry, RETRY_BY_PER_TRY_TIMEOUT, r->a.head_sent)) {
                switch (retry_plan(s, true)) {
                case RETRY_YES:
                        return;
                case RETRY_LIMIT:
                        s->si.flags |= RF_URX;
                        break;
                case RETRY_OVERFLOW:
                        s->si.flags |= RF_UO;
                        break;
                default:
                        break;
                }
        }
        time_out(s, details, RF_UT);
}

static void on_per_try(struct loop_timer *t)
{
        try_timed_out(t->arg, "upstream_per_try_timeout", CS_UPSTREAM_RQ_PER_TRY_TIMEOUT);
}

static void on_per_try_idle(struct loop_timer *t)
{
        try_timed_out(t->arg, "upstream_per_try_idle_timeout", CS_UPSTREAM_RQ_PER_TRY_IDLE_TIMEOUT);
}

static void on_max_duration(struct loop_timer *t)
{
        struct hcm_stream *s = t->arg;
        struct router *r = &s->router;

        rq_stat(s, CS_UPSTREAM_RQ_MAX_DURATION_REACHED);
        loop_timer_stop(s->worker->loop, &r->backoff);
        retry_slot_release(s);
        router_attempt_drop(s);
        if (!r->started)
                charge(s, 504);
        hcm_local_reply(s, 504, STR("upstream max stream duration reached"), STR("upstream_max_stream_duration_reached"), RF_UMSDR,
                        local_headers);
}

void router_end(struct hcm_stream *s)
{
        struct router *r = &s->router;
        struct loop *l = s->worker->loop;

        if (!r->cluster)
                return;
        loop_timer_stop(l, &r->timeout);
        loop_timer_stop(l, &r->per_try);
        loop_timer_stop(l, &r->per_try_idle);
        loop_timer_stop(l, &r->backoff);
        loop_timer_stop(l, &r->max_duration);
        retry_slot_release(s);
        router_attempt_drop(s);
        chain_fini(&r->body);
        r->cluster = NULL;
}

/* Configuration */

static void *router_build(struct server *srv, struct config_mem *m, const ProtobufCMessage *config, const struct diag_at *at,
                          struct diags *d)
{
        const struct Xds__Router *p = (const struct Xds__Router *)config;
        struct router_config *c = ARENA_NEW(&m->arena, struct router_config);
        struct {
                bool present;
                const char *name;
        } refused[] = {
                { p->n_upstream_log != 0, "upstream_log" },
                { p->n_strict_check_headers != 0, "strict_check_headers" },
                { p->n_upstream_http_filters != 0, "upstream_http_filters" },
                { p->upstream_log_options != NULL, "upstream_log_options" },
                { p->suppress_grpc_request_failure_code_stats, "suppress_grpc_request_failure_code_stats" },
        };

        c->dynamic_stats = !p->dynamic_stats || p->dynamic_stats->value;
        c->suppress_envoy_headers = p->suppress_envoy_headers;
        c->respect_expected_rq_timeout = p->respect_expected_rq_timeout;
        for (size_t i = 0; i < ARRAY_LEN(refused); i++)
                if (refused[i].present) {
                        struct diag_at here = at_path(&m->scratch, at, ".%s", refused[i].name);

                        diag_add(d, DIAG_ERROR, NULL, &here, "%s is not supported", refused[i].name);
                }
        return c;
}

const struct http_filter http_filter_router = {
        .type = "envoy.extensions.filters.http.router.v3.Router",
        .build = router_build,
};
