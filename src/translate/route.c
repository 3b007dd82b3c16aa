/* Routes: those of a VirtualService, in Istio's order and with its defaults, and the few that need none. */
#include "translate/internal.h"

#include "envoy/filter_cors.pb-c.h"
#include "envoy/matcher.pb-c.h"

#include "base/mem.h"

/* --- Matches --------------------------------------------------------------------------------------------------------------------- */

static Xds__RegexMatcher *regex(struct arena *a, struct str r)
{
        Xds__RegexMatcher *m = MAKE(a, xds__regex_matcher);

        m->regex = arena_cstr(a, r);
        return m;
}

static Xds__StringMatcher *string_matcher(struct arena *a, const struct mesh_string_match *m)
{
        Xds__StringMatcher *s = MAKE(a, xds__string_matcher);

        switch (m->kind) {
        case MESH_MATCH_PREFIX:
                s->match_pattern_case = XDS__STRING_MATCHER__MATCH_PATTERN_PREFIX;
                s->prefix = arena_cstr(a, m->value);
                break;
        case MESH_MATCH_REGEX:
                s->match_pattern_case = XDS__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX;
                s->safe_regex = regex(a, m->value);
                break;
        default:
                s->match_pattern_case = XDS__STRING_MATCHER__MATCH_PATTERN_EXACT;
                s->exact = arena_cstr(a, m->value);
        }
        return s;
}

/* Does it accept any value? An empty prefix and ".*" do. */
static bool any_value(const struct mesh_string_match *m)
{
        return m->kind == MESH_MATCH_PRESENT || (m->kind == MESH_MATCH_PREFIX && !m->value.n) ||
               (m->kind == MESH_MATCH_REGEX && str_eqc(m->value, ".*"));
}

static void add_header(struct arena *a, Xds__RouteMatch *out, struct str name, const struct mesh_string_match *m, bool invert)
{
        Xds__HeaderMatcher *h = MAKE(a, xds__header_matcher);

        h->name = arena_cstr(a, name);
        if (any_value(m)) {
                h->header_match_specifier_case = XDS__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PRESENT_MATCH;
                h->present_match = true;
        } else {
                h->header_match_specifier_case = XDS__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_STRING_MATCH;
                h->string_match = string_matcher(a, m);
                h->has_treat_missing_header_as_empty = h->treat_missing_header_as_empty = invert;
        }
        h->has_invert_match = h->invert_match = invert;
        out->headers[out->n_headers++] = h;
}

static void path_match(struct arena *a, Xds__RouteMatch *out, const struct mesh_string_match *uri)
{
        switch (uri->kind) {
        case MESH_MATCH_EXACT:
                out->path_specifier_case = XDS__ROUTE_MATCH__PATH_SPECIFIER_PATH;
                out->path = arena_cstr(a, uri->value);
                break;
        case MESH_MATCH_REGEX:
                out->path_specifier_case = XDS__ROUTE_MATCH__PATH_SPECIFIER_SAFE_REGEX;
                out->safe_regex = regex(a, uri->value);
                break;
        default:
                out->path_specifier_case = XDS__ROUTE_MATCH__PATH_SPECIFIER_PREFIX;
                out->prefix = uri->kind == MESH_MATCH_PREFIX ? arena_cstr(a, uri->value) : "/";
        }
}

static Xds__RouteMatch *route_match(struct arena *a, const struct mesh_http_match *m)
{
        Xds__RouteMatch *out = MAKE(a, xds__route_match);

        if (!m) {
                path_match(a, out, &(struct mesh_string_match){ 0 });
                return out;
        }
        path_match(a, out, &m->uri);
        out->case_sensitive = make_bool(a, !m->ignore_uri_case);
        out->headers = MAKE_LIST(a, m->nheaders + m->nwithout + 3);
        for (size_t i = 0; i < m->nheaders; i++)
                add_header(a, out, m->headers[i].name, &m->headers[i].m, false);
        for (size_t i = 0; i < m->nwithout; i++)
                add_header(a, out, m->without[i].name, &m->without[i].m, true);
        if (m->method.kind)
                add_header(a, out, STR(":method"), &m->method, false);
        if (m->authority.kind)
                add_header(a, out, STR(":authority"), &m->authority, false);
        if (m->scheme.kind)
                add_header(a, out, STR(":scheme"), &m->scheme, false);
        out->query_parameters = MAKE_LIST(a, m->nquery);
        for (size_t i = 0; i < m->nquery; i++) {
                Xds__QueryParameterMatcher *q = MAKE(a, xds__query_parameter_matcher);

                q->name = arena_cstr(a, m->query[i].name);
                if (any_value(&m->query[i].m)) {
                        q->query_parameter_match_specifier_case =
                                XDS__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_PRESENT_MATCH;
                        q->present_match = true;
                } else {
                        q->query_parameter_match_specifier_case =
                                XDS__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_STRING_MATCH;
                        q->string_match = string_matcher(a, &m->query[i].m);
                }
                out->query_parameters[out->n_query_parameters++] = q;
        }
        return out;
}

/* Whose proxy, at which gateway and port: decided here, not by the proxy. */
static bool match_applies(const struct build *b, const struct mesh_http_match *m, const struct route_query *q)
{
        if (m->port && m->port != q->port)
                return false;
        if (!gateway_listed(m->gateways, m->ngateways, q->gateway))
                return false;
        if (m->source_ns.n && !str_eq(m->source_ns, b->proxy->ns))
                return false;
        return mesh_labels_match(&m->source_labels, &b->proxy->labels);
}

bool l4_match_applies(const struct build *b, const struct mesh_l4_match *m, const struct route_query *q)
{
        if (m->port && m->port != q->port)
                return false;
        if (!gateway_listed(m->gateways, m->ngateways, q->gateway))
                return false;
        if (m->source_ns.n && !str_eq(m->source_ns, b->proxy->ns))
                return false;
        return mesh_labels_match(&m->source_labels, &b->proxy->labels);
}

/* --- Actions --------------------------------------------------------------------------------------------------------------------- */

uint32_t destination_port(const struct build *b, const struct mesh_destination *d, uint32_t listen_port)
{
        const struct seen *x;

        if (d->port)
                return d->port;
        x = scope_find(b->scope, d->host);
        return x && x->svc->nports == 1 ? x->svc->ports[0].number : listen_port;
}

static void add_option(struct arena *a, Xds__HeaderValueOption **v, size_t *n, const struct mesh_label *l, bool append)
{
        Xds__HeaderValueOption *o = MAKE(a, xds__header_value_option);

        o->header = MAKE(a, xds__header_value);
        o->header->key = arena_cstr(a, l->key);
        o->header->value = arena_cstr(a, l->value);
        o->has_append_action = !append; /* APPEND_IF_EXISTS_OR_ADD is the enum's zero */
        o->append_action = append ? XDS__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__APPEND_IF_EXISTS_OR_ADD
                                  : XDS__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS_OR_ADD;
        v[(*n)++] = o;
}

static bool is_authority(struct str name)
{
        return str_eq_nocase(name, STR("host")) || str_eq_nocase(name, STR(":authority"));
}

static Xds__HeaderValueOption **options(struct arena *a, const struct mesh_label *set, size_t nset, const struct mesh_label *add,
                                        size_t nadd, size_t *n)
{
        Xds__HeaderValueOption **v = MAKE_LIST(a, nset + nadd);

        *n = 0;
        for (size_t i = 0; i < nset; i++)
                if (!is_authority(set[i].key))
                        add_option(a, v, n, &set[i], false);
        for (size_t i = 0; i < nadd; i++)
                add_option(a, v, n, &add[i], true);
        return v;
}

static char **names(struct arena *a, const struct str *v, size_t n)
{
        char **out = MAKE_LIST(a, n);

        for (size_t i = 0; i < n; i++)
                out[i] = arena_cstr(a, v[i]);
        return out;
}

/* Setting Host is a rewrite of the authority, which has a field of its own. */
static struct str authority_set(const struct mesh_headers *h)
{
        for (size_t i = 0; i < h->nreq_set; i++)
                if (is_authority(h->req_set[i].key))
                        return h->req_set[i].value;
        return (struct str){ 0 };
}

/* Both struct Xds__Route and struct Xds__WeightedCluster__ClusterWeight have these members. */
#define SET_HEADERS(a, to, h)                                                                                            \
        do {                                                                                                             \
                (to)->request_headers_to_add = options(a, (h)->req_set, (h)->nreq_set, (h)->req_add, (h)->nreq_add,      \
                                                       &(to)->n_request_headers_to_add);                                 \
                (to)->response_headers_to_add = options(a, (h)->resp_set, (h)->nresp_set, (h)->resp_add, (h)->nresp_add, \
                                                        &(to)->n_response_headers_to_add);                               \
                (to)->request_headers_to_remove = names(a, (h)->req_remove, (h)->nreq_remove);                           \
                (to)->n_request_headers_to_remove = (h)->nreq_remove;                                                    \
                (to)->response_headers_to_remove = names(a, (h)->resp_remove, (h)->nresp_remove);                        \
                (to)->n_response_headers_to_remove = (h)->nresp_remove;                                                  \
        } while (0)

static struct mesh_headers both_headers(struct arena *a, const struct mesh_headers *x, const struct mesh_headers *y)
{
        struct mesh_headers h;

#define BOTH(field)                                                        \
        h.n##field = x->n##field + y->n##field;                            \
        h.field = arena_alloc(a, h.n##field * sizeof(*h.field) + 1);       \
        if (x->n##field)                                                   \
                memcpy(h.field, x->field, x->n##field * sizeof(*h.field)); \
        if (y->n##field)                                                   \
        memcpy(h.field + x->n##field, y->field, y->n##field * sizeof(*h.field))
        BOTH(req_set);
        BOTH(req_add);
        BOTH(req_remove);
        BOTH(resp_set);
        BOTH(resp_add);
        BOTH(resp_remove);
#undef BOTH
        return h;
}

/* "503" among the conditions is a status code, which Envoy wants in a list of its own. */
static void retry_conditions(struct arena *a, Xds__RetryPolicy *r, struct str on)
{
        struct str part, kept = { 0 };
        uint64_t code;

        r->retriable_status_codes = arena_alloc(a, (on.n + 1) * sizeof(uint32_t));
        while (str_next(&on, ',', &part)) {
                part = str_trim(part);
                if (str_u64(part, &code) && code >= 100 && code <= 599) {
                        r->retriable_status_codes[r->n_retriable_status_codes++] = (uint32_t)code;
                        part = STR("retriable-status-codes");
                        if (str_find(kept, part) >= 0)
                                continue;
                }
                kept = kept.n ? arena_printf(a, STR_FMT "," STR_FMT, STR_ARG(kept), STR_ARG(part)) : part;
        }
        r->retry_on = arena_cstr(a, kept);
}

static Xds__RetryPolicy *retry_policy(const struct build *b, struct arena *a, const struct mesh_http_route *route)
{
        Xds__RetryPolicy *r;

        if (!route || !route->retries.on)
                return b->common->retry;
        if (route->retries.attempts <= 0)
                return NULL;
        r = arena_dup(a, b->common->retry, sizeof(*r));
        r->num_retries = make_u32(a, (uint32_t)route->retries.attempts);
        if (route->retries.retry_on.n)
                retry_conditions(a, r, route->retries.retry_on);
        if (route->retries.per_try_us > 0)
                r->per_try_timeout = make_us(a, route->retries.per_try_us);
        if (route->retries.backoff_us > 0) {
                r->retry_back_off = MAKE(a, xds__retry_policy__retry_back_off);
                r->retry_back_off->base_interval = make_us(a, route->retries.backoff_us);
        }
        if (route->retries.ignore_previous_hosts_off)
                r->n_retry_host_predicate = 0;
        return r;
}

static void rewrite(struct arena *a, Xds__RouteAction *out, const struct mesh_http_route *route, const struct mesh_http_match *m)
{
        struct str authority = authority_set(&route->headers);

        if (route->rewrite.regex.n) {
                out->regex_rewrite = MAKE(a, xds__regex_match_and_substitute);
                out->regex_rewrite->pattern = regex(a, route->rewrite.regex);
                out->regex_rewrite->substitution = arena_cstr(a, route->rewrite.regex_with);
        } else if (route->rewrite.uri.n && m && m->uri.kind == MESH_MATCH_REGEX) {
                /* The whole path matched: all of it is replaced. */
                out->regex_rewrite = MAKE(a, xds__regex_match_and_substitute);
                out->regex_rewrite->pattern = regex(a, m->uri.value);
                out->regex_rewrite->substitution = arena_cstr(a, route->rewrite.uri);
        } else if (route->rewrite.uri.n) {
                out->prefix_rewrite = arena_cstr(a, route->rewrite.uri);
        }
        if (route->rewrite.authority.n)
                authority = route->rewrite.authority;
        if (authority.n) {
                out->host_rewrite_specifier_case = XDS__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL;
                out->host_rewrite_literal = arena_cstr(a, authority);
        }
}

static void weighted(const struct build *b, struct arena *a, Xds__RouteAction *out, const struct mesh_http_route *route, uint32_t port)
{
        Xds__WeightedCluster *w = MAKE(a, xds__weighted_cluster);

        w->clusters = MAKE_LIST(a, route->nroute);
        for (size_t i = 0; i < route->nroute; i++) {
                const struct mesh_destination *d = &route->route[i];
                struct str authority = authority_set(&d->headers);
                Xds__WeightedCluster__ClusterWeight *c;

                if (!d->weight)
                        continue;
                c = MAKE(a, xds__weighted_cluster__cluster_weight);
                c->name = cluster_name(a, "outbound", destination_port(b, d, port), d->subset, d->host);
                c->weight = make_u32(a, d->weight);
                SET_HEADERS(a, c, &d->headers);
                if (authority.n) {
                        c->host_rewrite_specifier_case = XDS__WEIGHTED_CLUSTER__CLUSTER_WEIGHT__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL;
                        c->host_rewrite_literal = arena_cstr(a, authority);
                }
                w->clusters[w->n_clusters++] = c;
        }
        out->cluster_specifier_case = XDS__ROUTE_ACTION__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS;
        out->weighted_clusters = w;
}

static Xds__RouteAction *action_new(const struct build *b, struct arena *a, const struct mesh_http_route *route)
{
        Xds__RouteAction *out = MAKE(a, xds__route_action);

        out->timeout = make_us(a, route && route->has_timeout ? route->timeout_us : 0);
        out->max_grpc_timeout = out->timeout;
        out->retry_policy = retry_policy(b, a, route);
        return out;
}

static void set_cluster(Xds__RouteAction *out, char *name)
{
        out->cluster_specifier_case = XDS__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER;
        out->cluster = name;
}

static Xds__RedirectAction *redirect(struct arena *a, const struct mesh_http_route *route, uint32_t port)
{
        static const struct {
                uint32_t code;
                Xds__RedirectAction__RedirectResponseCode wire;
        } codes[] = { { 302, XDS__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__FOUND },
                      { 303, XDS__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__SEE_OTHER },
                      { 307, XDS__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__TEMPORARY_REDIRECT },
                      { 308, XDS__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__PERMANENT_REDIRECT } };
        Xds__RedirectAction *r = MAKE(a, xds__redirect_action);

        if (route->redirect.authority.n)
                r->host_redirect = arena_cstr(a, route->redirect.authority);
        if (route->redirect.prefix_rewrite.n) {
                r->path_rewrite_specifier_case = XDS__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PREFIX_REWRITE;
                r->prefix_rewrite = arena_cstr(a, route->redirect.prefix_rewrite);
        } else if (route->redirect.uri.n) {
                r->path_rewrite_specifier_case = XDS__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PATH_REDIRECT;
                r->path_redirect = arena_cstr(a, route->redirect.uri);
        }
        if (route->redirect.scheme.n) {
                r->scheme_rewrite_specifier_case = XDS__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_SCHEME_REDIRECT;
                r->scheme_redirect = arena_cstr(a, route->redirect.scheme);
        }
        r->port_redirect = route->redirect.port;
        if (route->redirect.port_from_request)
                r->port_redirect = port;
        if (route->redirect.port_from_protocol && route->redirect.scheme.n)
                r->port_redirect = str_eqc(route->redirect.scheme, "https") ? 443 : 80;
        r->has_port_redirect = r->port_redirect != 0;
        for (size_t i = 0; i < ARRAY_LEN(codes); i++)
                if (codes[i].code == route->redirect.code) {
                        r->has_response_code = true;
                        r->response_code = codes[i].wire;
                }
        return r;
}

static Xds__DirectResponseAction *direct_response(struct arena *a, uint32_t status, const struct str *body)
{
        Xds__DirectResponseAction *d = MAKE(a, xds__direct_response_action);

        d->has_status = true;
        d->status = status;
        if (body) {
                d->body = MAKE(a, xds__data_source);
                d->body->specifier_case = XDS__DATA_SOURCE__SPECIFIER_INLINE_STRING;
                d->body->inline_string = arena_cstr(a, *body);
        }
        return d;
}

static void cors(struct arena *a, Xds__Route *out, const struct mesh_cors *c)
{
        XdsCors__CorsPolicy *p;
        Xds__Route__TypedPerFilterConfigEntry *e;
        Xds__RuntimeFractionalPercent *always;

        if (!c)
                return;
        p = MAKE(a, xds_cors__cors_policy);
        p->allow_origin_string_match = MAKE_LIST(a, c->norigins);
        for (size_t i = 0; i < c->norigins; i++)
                p->allow_origin_string_match[p->n_allow_origin_string_match++] = string_matcher(a, &c->origins[i]);
        if (c->methods.n)
                p->allow_methods = arena_cstr(a, c->methods);
        if (c->headers.n)
                p->allow_headers = arena_cstr(a, c->headers);
        if (c->expose.n)
                p->expose_headers = arena_cstr(a, c->expose);
        if (c->max_age_s >= 0)
                p->max_age = (char *)arena_printf(a, "%lld", (long long)c->max_age_s).p;
        if (c->credentials >= 0)
                p->allow_credentials = make_bool(a, c->credentials);
        if (c->forward_not_matching >= 0)
                p->forward_not_matching_preflights = make_bool(a, c->forward_not_matching);
        always = MAKE(a, xds__runtime_fractional_percent);
        always->default_value = MAKE(a, xds__fractional_percent);
        always->default_value->has_numerator = true;
        always->default_value->numerator = 100;
        p->filter_enabled = always;
        e = MAKE(a, xds__route__typed_per_filter_config_entry);
        e->key = "envoy.filters.http.cors";
        e->value = make_any(a, p);
        out->typed_per_filter_config = MAKE_LIST(a, 1);
        out->typed_per_filter_config[0] = e;
        out->n_typed_per_filter_config = 1;
}

/* "host:port/path*" for one destination, the VirtualService's name for several: what Istio calls the operation. */
static Xds__Decorator *decorator(const struct build *b, struct arena *a, const Xds__Route *r, struct str vs_name,
                                 const struct mesh_destination *d, uint32_t port)
{
        Xds__Decorator *out = MAKE(a, xds__decorator);
        const char *path = "/*";

        switch (r->match->path_specifier_case) {
        case XDS__ROUTE_MATCH__PATH_SPECIFIER_PREFIX:
                path = arena_printf(a, "%s*", r->match->prefix).p;
                break;
        case XDS__ROUTE_MATCH__PATH_SPECIFIER_PATH:
                path = r->match->path;
                break;
        case XDS__ROUTE_MATCH__PATH_SPECIFIER_SAFE_REGEX:
                path = r->match->safe_regex->regex;
                break;
        default:
                break;
        }
        if (d)
                out->operation = (char *)arena_printf(a, STR_FMT ":%u%s", STR_ARG(d->host), destination_port(b, d, port), path).p;
        else
                out->operation = (char *)arena_printf(a, STR_FMT ":%u%s", STR_ARG(vs_name), port, path).p;
        return out;
}

static void forward(const struct build *b, struct arena *a, Xds__Route *out, const struct mesh_vs *vs, const struct mesh_http_route *route,
                    const struct mesh_http_match *m, uint32_t port)
{
        struct mesh_headers h = route->headers;
        const struct mesh_destination *only = route->nroute == 1 ? &route->route[0] : NULL;

        out->action_case = XDS__ROUTE__ACTION_ROUTE;
        out->route = action_new(b, a, route);
        rewrite(a, out->route, route, m);
        if (only) {
                struct str authority = authority_set(&only->headers);

                set_cluster(out->route, cluster_name(a, "outbound", destination_port(b, only, port), only->subset, only->host));
                h = both_headers(a, &route->headers, &only->headers);
                if (authority.n && !out->route->host_rewrite_specifier_case) {
                        out->route->host_rewrite_specifier_case = XDS__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL;
                        out->route->host_rewrite_literal = arena_cstr(a, authority);
                }
        } else {
                weighted(b, a, out->route, route, port);
        }
        SET_HEADERS(a, out, &h);
        out->decorator = decorator(b, a, out, vs->meta.name, only, port);
}

static Xds__Route *route_make(const struct build *b, struct arena *a, const struct mesh_vs *vs, const struct mesh_http_route *route,
                              const struct mesh_http_match *m, uint32_t port)
{
        Xds__Route *out = MAKE(a, xds__route);

        out->match = route_match(a, m);
        if (m && m->name.n)
                out->name = (char *)arena_printf(a, STR_FMT "%s" STR_FMT, STR_ARG(route->name), route->name.n ? "." : "", STR_ARG(m->name))
                                    .p;
        else if (route->name.n)
                out->name = arena_cstr(a, route->name);
        if (m && m->stat_prefix.n)
                out->stat_prefix = arena_cstr(a, m->stat_prefix);
        make_origin(a, &out->metadata, vs->meta.config);
        if (route->redirect.on) {
                out->action_case = XDS__ROUTE__ACTION_REDIRECT;
                out->redirect = redirect(a, route, port);
        } else if (route->direct.on) {
                out->action_case = XDS__ROUTE__ACTION_DIRECT_RESPONSE;
                out->direct_response = direct_response(a, route->direct.status, route->direct.has_body ? &route->direct.body : NULL);
        } else {
                forward(b, a, out, vs, route, m, port);
        }
        if (out->action_case != XDS__ROUTE__ACTION_ROUTE) {
                SET_HEADERS(a, out, &route->headers);
                out->decorator = decorator(b, a, out, vs->meta.name, NULL, port);
        }
        cors(a, out, route->cors);
        return out;
}

/* Does nothing behind this route get a request any more? */
static bool catches_all(const struct mesh_http_match *m)
{
        return !m || ((!m->uri.kind || (m->uri.kind == MESH_MATCH_PREFIX && str_eqc(m->uri.value, "/"))) && !m->nheaders && !m->nwithout &&
                      !m->nquery && !m->method.kind && !m->authority.kind && !m->scheme.kind);
}

size_t routes_of(const struct build *b, struct arena *a, const struct mesh_vs *vs, const struct route_query *q, Xds__Route **out,
                 size_t max)
{
        size_t n = 0;

        for (size_t i = 0; i < vs->nhttp; i++) {
                const struct mesh_http_route *r = &vs->http[i];

                if (!r->nroute && !r->redirect.on && !r->direct.on)
                        continue; /* a delegate: reported when it was applied */
                if (!r->nmatch) {
                        if (n < max)
                                out[n++] = route_make(b, a, vs, r, NULL, q->port);
                        return n;
                }
                for (size_t j = 0; j < r->nmatch; j++) {
                        if (!match_applies(b, &r->match[j], q))
                                continue;
                        if (n < max)
                                out[n++] = route_make(b, a, vs, r, &r->match[j], q->port);
                        if (catches_all(&r->match[j]))
                                return n;
                }
        }
        return n;
}

/* --- Routes without a VirtualService ---------------------------------------------------------------------------------------------------
 */

Xds__Route *route_all_to(const struct build *b, struct arena *a, const char *name, char *cluster)
{
        Xds__Route *r = MAKE(a, xds__route);

        r->name = (char *)name;
        r->match = route_match(a, NULL);
        r->action_case = XDS__ROUTE__ACTION_ROUTE;
        r->route = action_new(b, a, NULL);
        r->route->retry_policy = NULL;
        set_cluster(r->route, cluster);
        return r;
}

Xds__Route *route_all_refused(struct arena *a, const char *name, uint32_t status)
{
        Xds__Route *r = MAKE(a, xds__route);

        r->name = (char *)name;
        r->match = route_match(a, NULL);
        r->action_case = XDS__ROUTE__ACTION_DIRECT_RESPONSE;
        r->direct_response = direct_response(a, status, NULL);
        return r;
}

Xds__Route *route_default(const struct build *b, struct arena *a, const struct mesh_service *svc, uint32_t port)
{
        Xds__Route *r = route_all_to(b, a, "default", cluster_name(a, "outbound", port, STR(""), svc->host));
        struct mesh_destination d = { .host = svc->host, .port = port };

        r->route->retry_policy = b->common->retry;
        r->decorator = decorator(b, a, r, STR(""), &d, port);
        return r;
}

/* --- Cache keys
 * -------------------------------------------------------------------------------------------------------------------------------- */

void key_destinations(const struct build *b, struct key *k, const struct mesh_vs *vs)
{
        key_u64(k, vs->meta.version);
        if (vs->by_source) {
                key_str(k, b->proxy->ns);
                for (size_t i = 0; i < b->proxy->labels.n; i++) {
                        key_str(k, b->proxy->labels.v[i].key);
                        key_str(k, b->proxy->labels.v[i].value);
                }
        }
        for (size_t i = 0; i < vs->nhttp; i++)
                for (size_t j = 0; j < vs->http[i].nroute; j++) {
                        const struct seen *x = vs->http[i].route[j].port ? NULL : scope_find(b->scope, vs->http[i].route[j].host);

                        key_u64(k, x ? x->svc->version : 0);
                }
        for (size_t i = 0; i < vs->ntls + vs->ntcp; i++) {
                const struct mesh_l4_route *r = i < vs->ntls ? &vs->tls[i] : &vs->tcp[i - vs->ntls];

                for (size_t j = 0; j < r->nroute; j++) {
                        const struct seen *x = scope_find(b->scope, r->route[j].host);
                        const struct mesh_dr *dr = x ? mesh_dr_find(b->snap, x->svc->host, x->svc->ns, b->proxy->ns, &b->proxy->labels)
                                                     : NULL;

                        key_u64(k, x ? x->svc->version : 0);
                        key_u64(k, dr ? dr->meta.version : 0);
                }
        }
}
