/* See filter_cors.h: preflights are answered here, responses to allowed origins are marked. The policy is the route's, else the virtual
 * host's; the newer place for it is typed_per_filter_config, which wins. */
#include "proxy/filter_cors.h"

#include "envoy/core.pb-c.h"
#include "envoy/filter_cors.pb-c.h"
#include "envoy/matcher.pb-c.h"
#include "envoy/route.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "proxy/ext.h"
#include "proxy/hcm.h"

struct cors_policy {
        struct string_match *origins;
        size_t norigins;
        struct str methods, headers, expose, max_age;
        bool credentials, private_network, forward_preflights;
        struct fraction enabled;
};

struct cors_state {
        const struct cors_policy *policy;
        struct str origin; /* an allowed one; "" not a CORS request */
};

static struct cors_policy *policy_new(struct config_mem *m, struct Xds__StringMatcher *const *v, size_t n, const struct diag_at *at,
                                      struct diags *d)
{
        struct cors_policy *c = ARENA_NEW(&m->arena, struct cors_policy);
        size_t before = d->errors;

        c->origins = arena_zalloc(&m->arena, (n + 1) * sizeof(*c->origins));
        c->norigins = n;
        for (size_t i = 0; i < n; i++) {
                struct diag_at here = at_path(&m->scratch, at, ".allow_origin_string_match[%zu]", i);

                string_match_build(m, &c->origins[i], v[i], &here, d);
        }
        return d->errors == before ? c : NULL;
}

static struct str keep(struct config_mem *m, const char *s)
{
        return arena_str(&m->arena, str_of(s));
}

/* The two messages have the same fields by the same names. */
#define POLICY_FIELDS(m, c, p)                                                                                                  \
        do {                                                                                                                    \
                (c)->methods = keep((m), (p)->allow_methods);                                                                   \
                (c)->headers = keep((m), (p)->allow_headers);                                                                   \
                (c)->expose = keep((m), (p)->expose_headers);                                                                   \
                (c)->max_age = keep((m), (p)->max_age);                                                                         \
                (c)->credentials = (p)->allow_credentials && (p)->allow_credentials->value;                                     \
                (c)->private_network = (p)->allow_private_network_access && (p)->allow_private_network_access->value;           \
                (c)->forward_preflights = !(p)->forward_not_matching_preflights || (p)->forward_not_matching_preflights->value; \
        } while (0)

struct cors_policy *cors_policy_build(struct config_mem *m, const struct Xds__CorsPolicy *p, const struct diag_at *at, struct diags *d)
{
        struct cors_policy *c = policy_new(m, p->allow_origin_string_match, p->n_allow_origin_string_match, at, d);

        if (!c)
                return NULL;
        POLICY_FIELDS(m, c, p);
        if (p->enabled_specifier_case == XDS__CORS_POLICY__ENABLED_SPECIFIER_FILTER_ENABLED)
                c->enabled = fraction_of_runtime(p->filter_enabled);
        return c;
}

static void *cors_build_route(struct server *s, struct config_mem *m, const ProtobufCMessage *config, const struct diag_at *at,
                              struct diags *d)
{
        const struct XdsCors__CorsPolicy *p = (const struct XdsCors__CorsPolicy *)config;
        struct cors_policy *c = policy_new(m, p->allow_origin_string_match, p->n_allow_origin_string_match, at, d);

        if (!c)
                return NULL;
        POLICY_FIELDS(m, c, p);
        c->enabled = fraction_of_runtime(p->filter_enabled);
        return c;
}

static void *cors_build(struct server *s, struct config_mem *m, const ProtobufCMessage *config, const struct diag_at *at, struct diags *d)
{
        return ARENA_NEW(&m->arena, struct cors_policy);
}

static bool origin_allowed(const struct cors_policy *c, struct str origin)
{
        for (size_t i = 0; i < c->norigins; i++)
                if ((c->origins[i].kind == STRING_EXACT && str_eqc(c->origins[i].text, "*")) || string_match(&c->origins[i], origin))
                        return true;
        return false;
}

static void common_headers(const struct cors_state *st, struct http_head *m)
{
        http_set_name(m, STR("access-control-allow-origin"), st->origin);
        if (st->policy->credentials)
                http_set_name(m, STR("access-control-allow-credentials"), STR("true"));
}

static void answer_preflight(struct hcm_stream *s, const struct cors_state *st, bool allowed)
{
        const struct cors_policy *c = st->policy;
        struct http_head *m = ARENA_NEW(s->arena, struct http_head);
        struct http_hdr *private = http_get_name(s->req, STR("access-control-request-private-network"));

        http_head_init(m, s->arena);
        m->status = 200;
        m->content_length = 0;
        if (allowed) {
                common_headers(st, m);
                if (c->methods.n)
                        http_set_name(m, STR("access-control-allow-methods"), c->methods);
                if (c->headers.n)
                        http_set_name(m, STR("access-control-allow-headers"), c->headers);
                if (c->max_age.n)
                        http_set_name(m, STR("access-control-max-age"), c->max_age);
                if (c->private_network && private && str_eqc(private->value, "true"))
                        http_set_name(m, STR("access-control-allow-private-network"), STR("true"));
        }
        s->si.response_code_details = STR("cors_response");
        s->state = HCM_ANSWERED;
        hcm_send_head(s, m, true);
}

static enum filter_step cors_on_request(const void *config, struct hcm_stream *s, void *state)
{
        struct cors_state *st = state;
        struct http_hdr *origin = http_get(s->req, HN_ORIGIN), *method;
        const struct route_filter_config *rc;
        const struct cors_policy *c;
        bool allowed;

        if (!origin || !origin->value.n || !s->pick.route)
                return FILTER_CONTINUE;
        rc = route_filter_config(s->table, &s->pick, STR("envoy.filters.http.cors"));
        c = rc && rc->config ? rc->config : s->pick.route->cors ? s->pick.route->cors : s->pick.route->vhost->cors;
        if (!c || !fraction_hit(c->enabled, s->random))
                return FILTER_CONTINUE;
        st->policy = c;
        allowed = origin_allowed(c, origin->value);
        method = str_eqc(s->req->method, "OPTIONS") ? http_get(s->req, HN_ACCESS_CONTROL_REQUEST_METHOD) : NULL;
        if (!allowed) {
                if (!method || !method->value.n || c->forward_preflights)
                        return FILTER_CONTINUE;
                answer_preflight(s, st, false);
                return FILTER_STOP;
        }
        st->origin = origin->value;
        if (!method || !method->value.n)
                return FILTER_CONTINUE;
        answer_preflight(s, st, true);
        return FILTER_STOP;
}

static void cors_on_response(const void *config, struct hcm_stream *s, void *state, struct http_head *resp)
{
        struct cors_state *st = state;

        if (!st->origin.n || str_eqc(s->si.response_code_details, "cors_response"))
                return;
        common_headers(st, resp);
        if (st->policy->expose.n)
                http_set_name(resp, STR("access-control-expose-headers"), st->policy->expose);
}

const struct http_filter http_filter_cors = {
        .type = "envoy.extensions.filters.http.cors.v3.Cors",
        .route_type = "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        .state_bytes = sizeof(struct cors_state),
        .build = cors_build,
        .build_route = cors_build_route,
        .on_request = cors_on_request,
        .on_response = cors_on_response,
};
