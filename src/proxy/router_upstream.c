/* The router's attempts: a host, a connection from its pool, a stream, and what happens on it. See router.h.
 *
 * The upstream stream's callbacks come with the hcm_stream as argument. When the downstream goes first, the upstream stream is handed to
 * the pool (http_pool_discard), so that no callback finds a stream that is gone. */
#include "proxy/hcm.h"

static void rq_stat(struct hcm_stream *s, unsigned row)
{
        stat_inc(s->worker->stats, cluster_stat(s->router.cluster->info, row));
}

static bool tried_before(void *arg, const struct host *h)
{
        const struct router *r = arg;

        for (unsigned i = 0; i < r->ntried; i++)
                if (addr_eq(r->tried[i], h->addr))
                        return true;
        return false;
}

static struct host *pick_host(struct hcm_stream *s)
{
        struct router *r = &s->router;
        const struct cluster_info *info = r->cluster->info;
        struct lb_ctx ctx = { .downstream = &s->hc->d->info };

        if (info->use_http_header) {
                struct http_hdr *h = http_get_name(s->req,
                                                   info->http_header_name.n ? info->http_header_name : STR("x-envoy-original-dst-host"));

                if (h)
                        ctx.original_dst_header = h->value;
        }
        if (r->retried && r->retry.policy && r->retry.policy->previous_hosts) {
                ctx.reject = tried_before;
                ctx.arg = r;
                ctx.attempts = r->retry.policy->host_attempts;
        }
        return cluster_pick_host(r->cluster, &ctx);
}

static enum http_version protocol_of(const struct hcm_stream *s)
{
        switch (s->router.http->protocol) {
        case CLUSTER_HTTP1:
                return HTTP_1_1;
        case CLUSTER_HTTP2:
                return HTTP_2;
        default:
                return s->req->version == HTTP_2 ? HTTP_2 : HTTP_1_1;
        }
}

static void on_wait_ready(struct pool_wait *w, struct pool_conn *c)
{
        struct hcm_stream *s = w->arg;

        s->router.a.waiting = false;
        s->router.a.conn = c;
        router_on_ready(s);
}

static void on_wait_failed(struct pool_wait *w, enum pool_failure why, struct str text)
{
        struct hcm_stream *s = w->arg;

        s->router.a.waiting = false;
        switch (why) {
        case POOL_CONNECT_TIMEOUT:
                router_on_failure(s, ROUTER_CONNECT_TIMEOUT, text);
                break;
        case POOL_FULL:
                router_on_failure(s, ROUTER_OVERFLOW, STR(""));
                break;
        default:
                router_on_failure(s, ROUTER_CONNECT_FAILURE, text);
        }
}

void router_attempt(struct hcm_stream *s)
{
        struct router *r = &s->router;
        struct attempt *a = &r->a;
        struct pool_conn *c = NULL;
        struct host *h = pick_host(s);

        memset(a, 0, sizeof(*a));
        if (!h) {
                rq_stat(s, CS_UPSTREAM_CX_NONE_HEALTHY);
                rq_stat(s, CS_UPSTREAM_RQ_5XX);
                rq_stat(s, CS_UPSTREAM_RQ_COMPLETED);
                hcm_local_reply(s, 503, STR("no healthy upstream"), STR("no_healthy_upstream"), RF_UH, NULL);
                return;
        }
        if (s->si.host)
                host_unref(s->si.host);
        s->si.host = host_ref(h);
        s->si.upstream_remote = h->addr;
        a->host = h;
        if (r->ntried < ROUTER_TRIED_MAX) {
                struct addr *copy = arena_dup(s->arena, h->addr, sizeof(*h->addr));

                r->tried[r->ntried++] = copy;
        }
        r->protocol = protocol_of(s);
        r->attempts++;
        s->si.attempts = r->attempts;
        a->started_us = loop_now_us(s->worker->loop);
        a->wait = (struct pool_wait){ .ready = on_wait_ready, .failed = on_wait_failed, .arg = s };
        switch (http_pool_get(h, r->protocol, (enum priority)s->pick.route->priority, &a->wait, &c)) {
        case POOL_READY:
                a->conn = c;
                router_on_ready(s);
                break;
        case POOL_WAITING:
                a->waiting = true;
                break;
        case POOL_OVERFLOW:
                router_on_failure(s, ROUTER_OVERFLOW, STR(""));
                break;
        }
}

static void us_on_head(struct http_stream *us, void *arg, struct http_head *m, bool end)
{
        struct hcm_stream *s = arg;

        if (m->status >= 200 || m->status == 101)
                s->router.a.got_end = end;
        router_on_head(s, m, end);
}

static void us_flow(struct hcm_stream *s)
{
        struct attempt *a = &s->router.a;

        if (a->us && !a->us_paused && hcm_blocked(s)) {
                a->us_paused = true;
                rq_stat(s, CS_UPSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
                http_pause(a->us);
        }
}

static void us_on_data(struct http_stream *us, void *arg, struct chain *data, bool end)
{
        struct hcm_stream *s = arg;
        struct attempt *a = &s->router.a;

        if (!s->si.t[ST_US_RX_BODY])
                s->si.t[ST_US_RX_BODY] = loop_now_us(s->worker->loop);
        if (end) {
                a->got_end = true;
                s->si.t[ST_US_RX_END] = loop_now_us(s->worker->loop);
        }
        if (s->router.per_try_idle_ms)
                loop_timer_arm(s->worker->loop, &s->router.per_try_idle, s->router.per_try_idle_ms);
        hcm_send_data(s, data, end);
        if (end)
                router_on_complete(s);
        else
                us_flow(s);
}

static void us_on_trailers(struct http_stream *us, void *arg, struct http_head *t)
{
        struct hcm_stream *s = arg;

        s->router.a.got_end = true;
        s->si.t[ST_US_RX_END] = loop_now_us(s->worker->loop);
        if (s->router.protocol != HTTP_2 && !s->router.http->h1_trailers) {
                struct chain none = CHAIN_INIT;

                hcm_send_data(s, &none, true);
        } else {
                hcm_send_trailers(s, t);
        }
        router_on_complete(s);
}

static void us_on_drain(struct http_stream *us, void *arg)
{
        struct hcm_stream *s = arg;

        rq_stat(s, CS_UPSTREAM_FLOW_CONTROL_DRAINED_TOTAL);
        hcm_resume(s);
}

/* The attempt gives back what it holds. `ok`: the host answered properly. */
static void attempt_release(struct hcm_stream *s, bool ok)
{
        struct attempt *a = &s->router.a;

        if (a->conn) {
                stat_dec(s->worker->stats, cluster_stat(s->router.cluster->info, CS_UPSTREAM_RQ_ACTIVE));
                breaker_release(s->router.cluster->info, (enum priority)s->pick.route->priority, BREAKER_RQ);
                host_rq_end(a->host, ok);
                a->conn = NULL;
        }
        if (a->host) {
                host_unref(a->host);
                a->host = NULL;
        }
}

static void us_on_close(struct http_stream *us, void *arg, enum http_reset reset)
{
        struct hcm_stream *s = arg;
        struct attempt *a = &s->router.a;
        struct pool_conn *c = a->conn;
        struct str text = reset == HTTP_RESET_PROTOCOL || reset == HTTP_RESET_OVERFLOW ? str_of(http_conn_error(c->http)) : STR("");
        bool done = a->got_end;

        a->us = NULL;
        if (!done && reset != HTTP_RESET_LOCAL)
                text = arena_str(s->arena, text);
        attempt_release(s, done && s->router.upstream_status < 500);
        http_pool_closed(c);
        if (done)
                return;
        switch (reset) {
        case HTTP_RESET_REFUSED:
                router_on_failure(s, ROUTER_REMOTE_REFUSED, STR(""));
                break;
        case HTTP_RESET_REMOTE:
                rq_stat(s, CS_UPSTREAM_RQ_RX_RESET);
                router_on_failure(s, ROUTER_REMOTE_RESET, STR(""));
                break;
        case HTTP_RESET_PROTOCOL:
        case HTTP_RESET_OVERFLOW:
                rq_stat(s, CS_UPSTREAM_CX_PROTOCOL_ERROR);
                router_on_failure(s, ROUTER_PROTOCOL_ERROR, STR(""));
                break;
        case HTTP_RESET_LOCAL:
                router_on_failure(s, ROUTER_LOCAL_RESET, STR(""));
                break;
        case HTTP_RESET_CONN_CLOSED:
                /* An HTTP/1.1 message that ends before its time is a broken message (RFC 9112 section 8). */
                router_on_failure(s, a->got_head && c->version != HTTP_2 ? ROUTER_PROTOCOL_ERROR : ROUTER_CONNECTION_TERMINATION, STR(""));
                break;
        default:
                router_on_failure(s, ROUTER_CONNECTION_TERMINATION, STR(""));
        }
}

static const struct http_stream_ops us_ops = {
        .on_head = us_on_head,
        .on_data = us_on_data,
        .on_trailers = us_on_trailers,
        .on_drain = us_on_drain,
        .on_close = us_on_close,
};

void router_attempt_drop(struct hcm_stream *s)
{
        struct attempt *a = &s->router.a;

        if (a->waiting) {
                http_pool_cancel(&a->wait);
                a->waiting = false;
                rq_stat(s, CS_UPSTREAM_RQ_CANCELLED);
        }
        if (a->us) {
                if (a->got_end && a->end_sent) { /* complete: its on_close is on the way */
                        http_pool_let_go(a->conn, a->us);
                } else {
                        rq_stat(s, CS_UPSTREAM_RQ_TX_RESET);
                        http_pool_discard(a->conn, a->us);
                }
                a->us = NULL;
        }
        if (a->host)
                attempt_release(s, a->got_end && s->router.upstream_status < 500);
}

static void attempt_info(struct hcm_stream *s, struct pool_conn *c)
{
        struct router *r = &s->router;
        struct stream_info *si = &s->si;

        r->local = c->local;
        si->upstream_local = &r->local;
        si->upstream_protocol = c->version == HTTP_2 ? SP_HTTP2 : SP_HTTP11;
        si->upstream_conn_id = c->id;
        si->upstream_tls = conn_tls_info(c->io);
        if (c->requests == 1) {
                si->t[ST_US_CX_BEG] = c->connect_us;
                si->t[ST_US_CX_END] = c->connected_us;
        }
        if (!si->t[ST_US_TX_BEG])
                si->t[ST_US_TX_BEG] = loop_now_us(s->worker->loop);
}

/* The head as this upstream's protocol wants it. */
static void send_head(struct hcm_stream *s, bool end)
{
        struct router *r = &s->router;
        struct http_head *m = s->req, copy;

        if (s->pick.route->host_kind == ROUTE_HOST_AUTO && r->a.host->desc->hostname.n)
                route_set_authority(m, r->a.host->desc->hostname, s->pick.route->append_x_forwarded_host && r->attempts == 1);
        r->upgrade_h1_h2 = r->upgrade_h2_h1 = false;
        if (s->upgraded && m->protocol.n && (m->version == HTTP_2) != (r->protocol == HTTP_2)) {
                copy = *m;
                if (r->protocol == HTTP_2) { /* RFC 8441 section 5: an Upgrade becomes an extended CONNECT */
                        r->upgrade_h1_h2 = true;
                        copy.method = STR("CONNECT");
                } else {
                        r->upgrade_h2_h1 = true;
                        copy.method = STR("GET");
                }
                copy.content_length = -1;
                m = &copy;
        }
        http_send_head(r->a.us, m, end);
}

void router_on_ready(struct hcm_stream *s)
{
        struct router *r = &s->router;
        struct attempt *a = &r->a;
        const struct cluster_info *info = r->cluster->info;
        enum priority prio = (enum priority)s->pick.route->priority;
        struct pool_conn *c = a->conn;

        if (!breaker_take(info, prio, BREAKER_RQ)) {
                a->conn = NULL;
                rq_stat(s, CS_UPSTREAM_RQ_PENDING_OVERFLOW);
                router_on_failure(s, ROUTER_OVERFLOW, STR(""));
                return;
        }
        a->us = http_pool_stream(c, &us_ops, s);
        rq_stat(s, CS_UPSTREAM_RQ_TOTAL);
        rq_stat(s, CS_UPSTREAM_RQ_ACTIVE);
        host_rq_begin(a->host);
        if (!a->us) { /* the pool said that there is room: the connection is on its way down */
                attempt_release(s, false);
                router_on_failure(s, ROUTER_CONNECTION_TERMINATION, STR(""));
                return;
        }
        attempt_info(s, c);
        a->head_sent = true;
        bool end = r->req_end && !r->body.n && !r->trailers;

        if (end) {
                a->end_sent = true;
                s->si.t[ST_US_TX_END] = loop_now_us(s->worker->loop);
        }
        send_head(s, end);
        if (!end)
                router_attempt_send(s);
        if (r->per_try_ms && r->req_end)
                loop_timer_arm(s->worker->loop, &r->per_try, r->per_try_ms);
        if (r->per_try_idle_ms)
                loop_timer_arm(s->worker->loop, &r->per_try_idle, r->per_try_idle_ms);
}

void router_attempt_send(struct hcm_stream *s)
{
        struct router *r = &s->router;
        struct attempt *a = &r->a;
        struct chain out = CHAIN_INIT;
        bool end = r->req_end && !r->trailers;

        if (!a->us || !a->head_sent || a->end_sent)
                return;
        if (r->keep_body) {
                chain_share(&out, &r->body, a->sent);
                a->sent = r->body.n;
        } else {
                chain_move(&out, &r->body);
        }
        if (out.n || end) {
                if (end)
                        a->end_sent = true;
                http_send_data(a->us, &out, end);
        }
        if (r->req_end && r->trailers) {
                a->end_sent = true;
                if (r->protocol == HTTP_2 || r->http->h1_trailers)
                        http_send_trailers(a->us, r->trailers);
                else
                        http_send_data(a->us, &out, true);
        }
        if (a->end_sent && a->us)
                s->si.t[ST_US_TX_END] = loop_now_us(s->worker->loop);
        if (a->us && http_send_blocked(a->us)) {
                rq_stat(s, CS_UPSTREAM_FLOW_CONTROL_BACKED_UP_TOTAL);
                hcm_pause(s);
        } else if (a->us) {
                hcm_resume(s);
        }
}
