/* See retry.h. */
#include "proxy/retry.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "envoy/core.pb-c.h"
#include "envoy/previous_hosts.pb-c.h"
#include "envoy/route.pb-c.h"
#include "google/any.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "proxy/ext.h"

enum {
        RETRY_BASE_MS = 25, /* Envoy's upstream.base_retry_backoff_ms */
        RETRY_MAX_FACTOR = 10,
        RETRY_NUM_MAX = 1000,
};

static const struct {
        const char *name;
        uint32_t bit;
} retry_names[] = {
        { "5xx", RETRY_5XX },
        { "gateway-error", RETRY_GATEWAY_ERROR },
        { "connect-failure", RETRY_CONNECT_FAILURE },
        { "retriable-4xx", RETRY_4XX },
        { "refused-stream", RETRY_REFUSED_STREAM },
        { "retriable-status-codes", RETRY_STATUS_CODES },
        { "retriable-headers", RETRY_HEADERS },
        { "reset", RETRY_RESET },
        { "reset-before-request", RETRY_RESET_BEFORE_REQUEST },
        { "envoy-ratelimited", RETRY_ENVOY_RATELIMITED },
        { "http3-post-connect-failure", RETRY_HTTP3_POST_CONNECT_FAILURE },
        { "cancelled", RETRY_GRPC_CANCELLED },
        { "deadline-exceeded", RETRY_GRPC_DEADLINE_EXCEEDED },
        { "resource-exhausted", RETRY_GRPC_RESOURCE_EXHAUSTED },
        { "unavailable", RETRY_GRPC_UNAVAILABLE },
        { "internal", RETRY_GRPC_INTERNAL },
};

/* Adds what `text` names; *unknown is the first name that is none of ours. */
static uint32_t retry_on_parse(struct str text, struct str *unknown)
{
        struct str part;
        uint32_t on = 0;

        unknown->n = 0;
        while (str_next(&text, ',', &part)) {
                size_t i;

                part = str_trim(part);
                if (!part.n)
                        continue;
                for (i = 0; i < ARRAY_LEN(retry_names); i++)
                        if (str_eqc(part, retry_names[i].name)) {
                                on |= retry_names[i].bit;
                                break;
                        }
                if (i == ARRAY_LEN(retry_names) && !unknown->n)
                        *unknown = part;
        }
        return on;
}

static bool predicates_build(struct retry_policy *r, struct config_mem *m, const struct Xds__RetryPolicy *p, const struct diag_at *at,
                             struct diags *d)
{
        for (size_t i = 0; i < p->n_retry_host_predicate; i++) {
                const struct Xds__RetryPolicy__RetryHostPredicate *h = p->retry_host_predicate[i];
                struct diag_at here = at_path(&m->scratch, at, ".retry_host_predicate[%zu]", i);
                struct ext e = { 0 };

                if (h->config_type_case == XDS__RETRY_POLICY__RETRY_HOST_PREDICATE__CONFIG_TYPE_TYPED_CONFIG) {
                        if (!ext_read(h->typed_config, &m->scratch, &here, d, &e))
                                return false;
                        if (!str_eqc(e.type, "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate")) {
                                diag_add(d, DIAG_ERROR, NULL, &here, "retry predicate \"" STR_FMT "\" is not supported: use previous_hosts",
                                         STR_ARG(e.type));
                                return false;
                        }
                } else if (!h->name || strcmp(h->name, "envoy.retry_host_predicates.previous_hosts") != 0) {
                        diag_add(d, DIAG_ERROR, NULL, &here, "retry predicate \"%s\" is not supported: use previous_hosts",
                                 h->name ? h->name : "");
                        return false;
                }
                r->previous_hosts = true;
        }
        return true;
}

static bool rate_limit_build(struct retry_policy *r, struct config_mem *m, const struct Xds__RetryPolicy__RateLimitedRetryBackOff *b,
                             const struct diag_at *at, struct diags *d)
{
        struct diag_at here = at_path(&m->scratch, at, ".rate_limited_retry_back_off");

        if (!b->n_reset_headers) {
                diag_add(d, DIAG_ERROR, NULL, &here, "reset_headers is empty: name at least one");
                return false;
        }
        r->nreset = b->n_reset_headers;
        r->reset = arena_zalloc(&m->arena, r->nreset * sizeof(*r->reset));
        r->reset_max_ms = duration_ms(b->max_interval, 300000, &here, d);
        for (size_t i = 0; i < r->nreset; i++) {
                struct str name = arena_str(&m->arena, str_of(b->reset_headers[i]->name));

                for (size_t j = 0; j < name.n; j++)
                        ((char *)name.p)[j] = ascii_lower(name.p[j]);
                r->reset[i].name = name;
                r->reset[i].unix_timestamp = b->reset_headers[i]->format == XDS__RETRY_POLICY__RESET_HEADER_FORMAT__UNIX_TIMESTAMP;
        }
        return true;
}

struct retry_policy *retry_policy_build(struct config_mem *m, const struct Xds__RetryPolicy *p, const struct diag_at *at, struct diags *d)
{
        struct retry_policy *r = ARENA_NEW(&m->arena, struct retry_policy);
        struct diag_at here;
        struct str unknown;
        size_t before = d->errors;

        r->on = retry_on_parse(str_of(p->retry_on), &unknown);
        if (unknown.n) {
                here = at_path(&m->scratch, at, ".retry_on");
                diag_add(d, DIAG_WARNING, NULL, &here, "\"" STR_FMT "\" is no retry condition and is ignored, as Envoy does",
                         STR_ARG(unknown));
        }
        r->num = p->num_retries ? p->num_retries->value : 1;
        if (r->num > RETRY_NUM_MAX)
                r->num = RETRY_NUM_MAX;
        here = at_path(&m->scratch, at, ".per_try_timeout");
        r->per_try_timeout_ms = duration_ms(p->per_try_timeout, 0, &here, d);
        here = at_path(&m->scratch, at, ".per_try_idle_timeout");
        r->per_try_idle_timeout_ms = duration_ms(p->per_try_idle_timeout, 0, &here, d);
        r->base_ms = RETRY_BASE_MS;
        r->max_ms = RETRY_BASE_MS * RETRY_MAX_FACTOR;
        if (p->retry_back_off) {
                here = at_path(&m->scratch, at, ".retry_back_off.base_interval");
                r->base_ms = duration_ms(p->retry_back_off->base_interval, 0, &here, d);
                if (!r->base_ms) {
                        if (!p->retry_back_off->base_interval)
                                diag_add(d, DIAG_ERROR, NULL, &here, "base_interval is required");
                        r->base_ms = 1;
                }
                here = at_path(&m->scratch, at, ".retry_back_off.max_interval");
                r->max_ms = duration_ms(p->retry_back_off->max_interval, r->base_ms * RETRY_MAX_FACTOR, &here, d);
                if (r->max_ms < r->base_ms)
                        diag_add(d, DIAG_ERROR, NULL, &here, "max_interval is smaller than base_interval");
        }
        r->ncodes = p->n_retriable_status_codes;
        r->codes = r->ncodes ? arena_zalloc(&m->arena, r->ncodes * sizeof(*r->codes)) : NULL;
        for (size_t i = 0; i < r->ncodes; i++)
                r->codes[i] = (uint16_t)(p->retriable_status_codes[i] > 999 ? 0 : p->retriable_status_codes[i]);
        here = at_path(&m->scratch, at, ".retriable_headers");
        header_matches_build(m, &r->headers, p->retriable_headers, p->n_retriable_headers, &here, d);
        here = at_path(&m->scratch, at, ".retriable_request_headers");
        header_matches_build(m, &r->request_headers, p->retriable_request_headers, p->n_retriable_request_headers, &here, d);
        r->host_attempts = p->host_selection_retry_max_attempts > 0 && p->host_selection_retry_max_attempts < 100
                                   ? (unsigned)p->host_selection_retry_max_attempts
                           : p->host_selection_retry_max_attempts >= 100 ? 100
                                                                         : 1;
        predicates_build(r, m, p, at, d);
        if (p->rate_limited_retry_back_off)
                rate_limit_build(r, m, p->rate_limited_retry_back_off, at, d);
        if (p->retry_priority) {
                here = at_path(&m->scratch, at, ".retry_priority");
                diag_add(d, DIAG_ERROR, NULL, &here, "retry_priority \"%s\" is not supported",
                         p->retry_priority->name ? p->retry_priority->name : "");
        }
        if (p->n_retry_options_predicates) {
                here = at_path(&m->scratch, at, ".retry_options_predicates");
                diag_add(d, DIAG_ERROR, NULL, &here, "retry_options_predicates are not supported");
        }
        return d->errors == before ? r : NULL;
}

static struct str take_header(struct http_head *req, struct str name)
{
        struct http_hdr *h = http_get_name(req, name);
        struct str v = h ? h->value : str_make(NULL, 0);

        if (h)
                http_remove_name(req, name);
        return v;
}

void retry_begin(struct retry_state *r, const struct retry_policy *p, struct http_head *req)
{
        struct http_hdr *on = NULL, *grpc_on = NULL, *max = NULL;
        struct str unknown;
        uint64_t n;
        bool special = false;

        memset(r, 0, sizeof(*r));
        r->policy = p;
        if (p) {
                r->on = p->on;
                r->left = p->num;
                r->interval_ms = p->base_ms;
        }
        for (unsigned i = 0; i < req->n && !special; i++)
                special = req->h[i].name.n > 8 && memcmp(req->h[i].name.p, "x-envoy-", 8) == 0;
        if (special) {
                on = http_get(req, HN_X_ENVOY_RETRY_ON);
                grpc_on = http_get_name(req, STR("x-envoy-retry-grpc-on"));
                max = http_get(req, HN_X_ENVOY_MAX_RETRIES);
        }
        /* The policy's conditions on the request do not bind what the request itself asks for. */
        if (p && p->request_headers.n && r->on && !header_matches_any(&p->request_headers, req))
                r->on = 0;
        if (on)
                r->on |= retry_on_parse(on->value, &unknown);
        if (grpc_on)
                r->on |= retry_on_parse(grpc_on->value, &unknown);
        if (r->on && !p) {
                r->left = 1;
                r->interval_ms = RETRY_BASE_MS;
        }
        if (r->on && max && str_u64(max->value, &n))
                r->left = n > RETRY_NUM_MAX ? RETRY_NUM_MAX : (unsigned)n;
        if (special) {
                http_remove(req, HN_X_ENVOY_RETRY_ON);
                http_remove(req, HN_X_ENVOY_MAX_RETRIES);
                take_header(req, STR("x-envoy-retry-grpc-on"));
                take_header(req, STR("x-envoy-hedge-on-per-try-timeout"));
                r->codes = take_header(req, STR("x-envoy-retriable-status-codes"));
                r->headers = take_header(req, STR("x-envoy-retriable-header-names"));
        }
        r->enabled = r->on != 0;
}

static bool code_listed(const struct retry_state *r, int status)
{
        struct str rest = r->codes, part;
        uint64_t v;

        for (size_t i = 0; r->policy && i < r->policy->ncodes; i++)
                if (r->policy->codes[i] == status)
                        return true;
        while (rest.p && str_next(&rest, ',', &part))
                if (str_u64(str_trim(part), &v) && v == (uint64_t)status)
                        return true;
        return false;
}

static bool header_listed(const struct retry_state *r, const struct http_head *resp)
{
        struct str rest = r->headers, part;

        if (r->policy && header_matches_any(&r->policy->headers, resp))
                return true;
        while (rest.p && str_next(&rest, ',', &part)) {
                part = str_trim(part);
                for (unsigned i = 0; part.n && i < resp->n; i++)
                        if (str_eq_nocase(resp->h[i].name, part))
                                return true;
        }
        return false;
}

static bool grpc_wanted(uint32_t on, const struct http_head *resp)
{
        static const struct {
                uint32_t bit;
                uint64_t code;
        } map[] = {
                { RETRY_GRPC_CANCELLED, 1 }, { RETRY_GRPC_DEADLINE_EXCEEDED, 4 }, { RETRY_GRPC_RESOURCE_EXHAUSTED, 8 },
                { RETRY_GRPC_INTERNAL, 13 }, { RETRY_GRPC_UNAVAILABLE, 14 },
        };
        struct http_hdr *h = http_get(resp, HN_GRPC_STATUS);
        uint64_t code;

        if (!h || !str_u64(h->value, &code))
                return false;
        for (size_t i = 0; i < ARRAY_LEN(map); i++)
                if ((on & map[i].bit) && code == map[i].code)
                        return true;
        return false;
}

/* Retry-After and its kin: how long the upstream asks us to wait. */
static void rate_limit_read(struct retry_state *r, const struct http_head *resp)
{
        r->after_ms = 0;
        for (size_t i = 0; r->policy && i < r->policy->nreset; i++) {
                struct http_hdr *h = http_get_name(resp, r->policy->reset[i].name);
                uint64_t v;

                if (!h || !str_u64(str_trim(h->value), &v))
                        continue;
                if (r->policy->reset[i].unix_timestamp) {
                        uint64_t now = (uint64_t)clock_real_s();

                        if (v <= now)
                                continue;
                        v -= now;
                }
                if (v > r->policy->reset_max_ms / 1000)
                        continue;
                r->after_ms = v * 1000;
                return;
        }
}

bool retry_wants_response(struct retry_state *r, const struct http_head *resp)
{
        const uint32_t grpc = RETRY_GRPC_CANCELLED | RETRY_GRPC_DEADLINE_EXCEEDED | RETRY_GRPC_RESOURCE_EXHAUSTED | RETRY_GRPC_UNAVAILABLE |
                              RETRY_GRPC_INTERNAL;
        int s = resp->status;
        bool want;

        if (!r->enabled)
                return false;
        if (http_get_name(resp, STR("x-envoy-ratelimited")))
                return (r->on & RETRY_ENVOY_RATELIMITED) != 0;
        want = ((r->on & RETRY_5XX) && s >= 500 && s < 600) || ((r->on & RETRY_GATEWAY_ERROR) && s >= 502 && s <= 504) ||
               ((r->on & RETRY_4XX) && s == 409) || ((r->on & RETRY_STATUS_CODES) && code_listed(r, s)) ||
               ((r->on & RETRY_HEADERS) && header_listed(r, resp)) || ((r->on & grpc) && grpc_wanted(r->on, resp));
        if (want)
                rate_limit_read(r, resp);
        return want;
}

bool retry_wants_reset(const struct retry_state *r, enum retry_reset why, bool sent)
{
        if (!r->enabled || why == RETRY_BY_OVERFLOW)
                return false;
        if (r->on & (RETRY_RESET | RETRY_5XX | RETRY_GATEWAY_ERROR))
                return true;
        if ((r->on & RETRY_RESET_BEFORE_REQUEST) && !sent && why != RETRY_BY_PER_TRY_TIMEOUT)
                return true;
        if ((r->on & RETRY_CONNECT_FAILURE) && why == RETRY_BY_CONNECT_FAILURE)
                return true;
        return (r->on & RETRY_REFUSED_STREAM) && why == RETRY_BY_REFUSED;
}

uint64_t retry_backoff_ms(struct retry_state *r)
{
        uint64_t max = r->policy ? r->policy->max_ms : RETRY_BASE_MS * RETRY_MAX_FACTOR, now = r->interval_ms;

        if (r->after_ms)
                return r->after_ms + rand_u64() % (r->after_ms / 2 + 1);
        r->interval_ms = now * 2 > max ? max : now * 2;
        return now ? rand_u64() % now : 0;
}
