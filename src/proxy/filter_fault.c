/* Fault injection: delays and aborts, by percentage, for testing how callers cope (envoy.extensions.filters.http.fault.v3.HTTPFault). */
#include "proxy/hcm.h"

#include "base/hash.h"
#include "base/mem.h"
#include "envoy/fault_common.pb-c.h"
#include "envoy/filter_fault.pb-c.h"
#include "envoy/type.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "proxy/ext.h"

struct fault {
        bool delays, aborts, delay_by_header, abort_by_header;
        uint64_t delay_ms;
        struct fraction delay_share, abort_share;
        int status;
        int grpc_status; /* -1: none */
        struct str upstream_cluster;
        struct header_matches headers;
        uint32_t max_active; /* 0: no limit */
        _Atomic uint32_t active;
};

struct fault_state {
        struct loop_timer timer;
        struct fault *fault; /* the one in force; NULL: none */
        bool counted;
};

static void *fault_build(struct server *srv, struct config_mem *m, const ProtobufCMessage *config, const struct diag_at *at,
                         struct diags *d)
{
        const struct Xds__HTTPFault *p = (const struct Xds__HTTPFault *)config;
        struct fault *f = ARENA_NEW(&m->arena, struct fault);
        size_t before = d->errors;
        struct diag_at here;

        f->grpc_status = -1;
        if (p->delay) {
                here = at_path(&m->scratch, at, ".delay");
                f->delays = p->delay->percentage != NULL;
                f->delay_share = fraction_of(p->delay->percentage);
                f->delay_by_header = p->delay->fault_delay_secifier_case == XDS__FAULT_DELAY__FAULT_DELAY_SECIFIER_HEADER_DELAY;
                if (p->delay->fault_delay_secifier_case == XDS__FAULT_DELAY__FAULT_DELAY_SECIFIER_FIXED_DELAY)
                        f->delay_ms = duration_ms(p->delay->fixed_delay, 0, &here, d);
                else if (!f->delay_by_header)
                        diag_add(d, DIAG_ERROR, NULL, &here, "give one of fixed_delay and header_delay");
        }
        if (p->abort) {
                here = at_path(&m->scratch, at, ".abort");
                f->aborts = p->abort->percentage != NULL;
                f->abort_share = fraction_of(p->abort->percentage);
                switch (p->abort->error_type_case) {
                case XDS__FAULT_ABORT__ERROR_TYPE_HTTP_STATUS:
                        f->status = (int)p->abort->http_status;
                        if (p->abort->http_status < 200 || p->abort->http_status > 599)
                                diag_add(d, DIAG_ERROR, NULL, &here, "http_status must be from 200 to 599");
                        break;
                case XDS__FAULT_ABORT__ERROR_TYPE_GRPC_STATUS:
                        f->status = 200;
                        f->grpc_status = (int)p->abort->grpc_status;
                        break;
                case XDS__FAULT_ABORT__ERROR_TYPE_HEADER_ABORT:
                        f->abort_by_header = true;
                        break;
                default:
                        diag_add(d, DIAG_ERROR, NULL, &here, "give one of http_status, grpc_status and header_abort");
                }
        }
        f->upstream_cluster = arena_str(&m->arena, str_of(p->upstream_cluster));
        here = at_path(&m->scratch, at, ".headers");
        header_matches_build(m, &f->headers, p->headers, p->n_headers, &here, d);
        f->max_active = p->max_active_faults ? p->max_active_faults->value : 0;
        if (p->response_rate_limit) {
                here = at_path(&m->scratch, at, ".response_rate_limit");
                diag_add(d, DIAG_ERROR, NULL, &here, "response_rate_limit is not supported");
        }
        if (p->n_downstream_nodes) {
                here = at_path(&m->scratch, at, ".downstream_nodes");
                diag_add(d, DIAG_ERROR, NULL, &here, "downstream_nodes is not supported");
        }
        return d->errors == before ? f : NULL;
}

/* What a header may ask for: its share is capped by the configured one. */
static struct fraction header_share(const struct hcm_stream *s, struct str name, struct fraction cap)
{
        struct http_hdr *h = http_get_name(s->req, name);
        uint64_t v;

        if (h && str_u64(h->value, &v) && v < cap.numerator)
                cap.numerator = (uint32_t)v;
        return cap;
}

static uint64_t delay_of(const struct fault *f, struct hcm_stream *s)
{
        struct fraction share = f->delay_share;
        uint64_t ms = f->delay_ms;

        if (!f->delays)
                return 0;
        if (f->delay_by_header) {
                struct http_hdr *h = http_get_name(s->req, STR("x-envoy-fault-delay-request"));

                if (!h || !str_u64(h->value, &ms))
                        return 0;
                share = header_share(s, STR("x-envoy-fault-delay-request-percentage"), share);
        }
        return share.numerator && fraction_hit(share, rand_u64()) ? ms : 0;
}

static bool aborted(struct hcm_stream *s, const struct fault *f)
{
        struct fraction share = f->abort_share;
        uint64_t status = (uint64_t)f->status, grpc = (uint64_t)f->grpc_status;
        bool has_grpc = f->grpc_status >= 0;

        if (!f->aborts)
                return false;
        if (f->abort_by_header) {
                struct http_hdr *h = http_get_name(s->req, STR("x-envoy-fault-abort-request"));
                struct http_hdr *g = http_get_name(s->req, STR("x-envoy-fault-abort-grpc-request"));

                status = 0;
                if (h && !(str_u64(h->value, &status) && status >= 200 && status < 600))
                        status = 0;
                has_grpc = !status && g && str_u64(g->value, &grpc) && grpc <= 16;
                if (!status && !has_grpc)
                        return false;
                share = header_share(s, STR("x-envoy-fault-abort-request-percentage"), share);
        }
        if (!share.numerator || !fraction_hit(share, rand_u64()))
                return false;
        if (has_grpc) {
                struct http_head *m = ARENA_NEW(s->arena, struct http_head);

                http_head_init(m, s->arena);
                m->status = 200;
                http_set(m, HN_CONTENT_TYPE, STR("application/grpc"));
                http_set(m, HN_GRPC_STATUS, arena_printf(s->arena, "%llu", (unsigned long long)grpc));
                http_set(m, HN_GRPC_MESSAGE, STR("fault filter abort"));
                s->si.flags |= RF_FI;
                s->si.response_code_details = STR("fault_filter_abort");
                s->state = HCM_ANSWERED;
                hcm_send_head(s, m, true);
                return true;
        }
        hcm_local_reply(s, (int)status, STR("fault filter abort"), STR("fault_filter_abort"), RF_FI, NULL);
        return true;
}

static void settle(struct fault_state *st)
{
        if (st->counted)
                st->fault->active--;
        st->counted = false;
}

static void on_delay_over(struct loop_timer *t)
{
        struct hcm_stream *s = t->arg;
        struct fault_state *st = CONTAINER_OF(t, struct fault_state, timer);

        if (s->resp_started)
                return;
        if (aborted(s, st->fault))
                return;
        settle(st);
        hcm_continue(s);
}

static enum filter_step fault_on_request(const void *config, struct hcm_stream *s, void *state)
{
        struct fault_state *st = state;
        const struct route_filter_config *rc = s->pick.route ? route_filter_config(s->table, &s->pick, STR("envoy.filters.http.fault"))
                                                             : NULL;
        struct fault *f = rc && rc->config ? rc->config : (struct fault *)config;
        uint64_t ms;

        if (!f->delays && !f->aborts)
                return FILTER_CONTINUE;
        if (f->upstream_cluster.n && !str_eq(f->upstream_cluster, s->pick.cluster))
                return FILTER_CONTINUE;
        if (f->headers.n && !header_matches_all(&f->headers, s->req))
                return FILTER_CONTINUE;
        if (f->max_active && f->active >= f->max_active)
                return FILTER_CONTINUE;
        st->fault = f;
        ms = delay_of(f, s);
        if (ms) {
                f->active++;
                st->counted = true;
                s->si.flags |= RF_DI;
                st->timer.fn = on_delay_over;
                st->timer.arg = s;
                loop_timer_arm(s->worker->loop, &st->timer, ms);
                return FILTER_STOP;
        }
        return aborted(s, f) ? FILTER_STOP : FILTER_CONTINUE;
}

static void fault_on_end(const void *config, struct hcm_stream *s, void *state)
{
        struct fault_state *st = state;

        loop_timer_stop(s->worker->loop, &st->timer);
        settle(st);
}

const struct http_filter http_filter_fault = {
        .type = "envoy.extensions.filters.http.fault.v3.HTTPFault",
        .route_type = "envoy.extensions.filters.http.fault.v3.HTTPFault",
        .state_bytes = sizeof(struct fault_state),
        .build = fault_build,
        .build_route = fault_build,
        .on_request = fault_on_request,
        .on_end = fault_on_end,
};
