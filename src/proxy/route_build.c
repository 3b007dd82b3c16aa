/* Building a route table from its message. Every field of the message is either honoured here or refused by name: what bears on where a
 * request goes is an error, so that the update is refused and the last good table stays. */
#include "proxy/route.h"

#include "base/mem.h"
#include "envoy/core.pb-c.h"
#include "envoy/route.pb-c.h"
#include "google/any.pb-c.h"
#include "google/wrappers.pb-c.h"
#include "pb/pb.h"
#include "proxy/ext.h"
#include "proxy/filter.h"
#include "proxy/filter_cors.h"
#include "proxy/format.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

enum {
        ROUTE_TIMEOUT_MS = 15000, /* Envoy's default */
        DIRECT_BODY_MAX = 4096,   /* max_direct_response_body_size_bytes' default */
};

struct build {
        struct server *server;
        struct config_mem *m;
        struct diags *d;
        struct route_table *t;
        uint32_t direct_body_max;
};

/* One scope's at: path + field. Only on the way to a diagnostic or into a sub-message that is there. */
#define AT(b, at, ...) at_path(&(b)->m->scratch, (at), __VA_ARGS__)

static struct str keep(struct build *b, const char *c)
{
        return c && *c ? arena_str(&b->m->arena, str_of(c)) : str_make("", 0);
}

static struct str keep_lower(struct build *b, const char *c)
{
        struct str s = keep(b, c);

        for (size_t i = 0; i < s.n; i++)
                ((char *)s.p)[i] = ascii_lower(s.p[i]);
        return s;
}

static void refuse(struct build *b, const struct diag_at *at, bool present, const char *field)
{
        struct diag_at here;

        if (!present)
                return;
        here = AT(b, at, ".%s", field);
        diag_add(b->d, DIAG_ERROR, NULL, &here, "%s is not supported", field);
}

static void free_format(void *p)
{
        format_free(p);
}

static struct format *compile(struct build *b, struct str text, const struct diag_at *at)
{
        struct format *f = format_compile(text, true, at, b->d);

        if (f)
                config_mem_on_free(b->m, free_format, f);
        return f;
}

static void filter_configs_build(struct build *b, struct route_filter_configs *c, size_t n,
                                 struct Xds__Route__TypedPerFilterConfigEntry **v, const struct diag_at *at)
{
        c->n = 0;
        c->v = n ? arena_zalloc(&b->m->arena, n * sizeof(*c->v)) : NULL;
        for (size_t i = 0; i < n; i++) {
                struct diag_at here = AT(b, at, ".typed_per_filter_config[\"%s\"]", v[i]->key ? v[i]->key : "");
                struct route_filter_config *x = &c->v[c->n];

                if (http_filter_route_config(b->server, b->m, v[i]->value, x, &here, b->d)) {
                        x->name = keep(b, v[i]->key);
                        c->n++;
                }
        }
}

/* protoc-c makes a type of its own for the entries of each map; they have the same shape. */
#define FILTER_CONFIGS(b, c, msg, at)                                    \
        filter_configs_build((b), (c), (msg)->n_typed_per_filter_config, \
                             (struct Xds__Route__TypedPerFilterConfigEntry **)(void *)(msg)->typed_per_filter_config, (at))

static void match_build(struct build *b, struct route *r, const struct Xds__RouteMatch *m, const struct diag_at *at)
{
        struct diag_at here;

        switch (m->path_specifier_case) {
        case XDS__ROUTE_MATCH__PATH_SPECIFIER_PREFIX:
                r->path_kind = ROUTE_PREFIX;
                r->path = keep(b, m->prefix);
                break;
        case XDS__ROUTE_MATCH__PATH_SPECIFIER_PATH:
                r->path_kind = ROUTE_PATH;
                r->path = keep(b, m->path);
                break;
        case XDS__ROUTE_MATCH__PATH_SPECIFIER_PATH_SEPARATED_PREFIX:
                r->path_kind = ROUTE_SEPARATED_PREFIX;
                r->path = keep(b, m->path_separated_prefix);
                if (r->path.n < 2 || r->path.p[0] != '/' || r->path.p[r->path.n - 1] == '/' || str_chr(r->path, '?') >= 0 ||
                    str_chr(r->path, '#') >= 0) {
                        here = AT(b, at, ".path_separated_prefix");
                        diag_add(b->d, DIAG_ERROR, NULL, &here, "must begin with \"/\", not end with it, and hold no \"?\" or \"#\"");
                }
                break;
        case XDS__ROUTE_MATCH__PATH_SPECIFIER_SAFE_REGEX:
                here = AT(b, at, ".safe_regex");
                r->path_kind = ROUTE_REGEX;
                r->regex = regex_build(b->m, m->safe_regex, &here, b->d);
                break;
        case XDS__ROUTE_MATCH__PATH_SPECIFIER_CONNECT_MATCHER:
                r->path_kind = ROUTE_CONNECT;
                break;
        case XDS__ROUTE_MATCH__PATH_SPECIFIER_PATH_MATCH_POLICY:
                refuse(b, at, true, "path_match_policy");
                break;
        default:
                diag_add(b->d, DIAG_ERROR, NULL, at,
                         "a route match needs one of prefix, path, path_separated_prefix, safe_regex or connect_matcher");
        }
        r->ignore_case = m->case_sensitive && !m->case_sensitive->value;
        if (m->n_headers) {
                here = AT(b, at, ".headers");
                header_matches_build(b->m, &r->headers, m->headers, m->n_headers, &here, b->d);
        }
        if (m->n_query_parameters) {
                here = AT(b, at, ".query_parameters");
                query_matches_build(b->m, &r->query, m->query_parameters, m->n_query_parameters, &here, b->d);
        }
        r->runtime = fraction_of_runtime(m->runtime_fraction);
        r->grpc = m->grpc != NULL;
        r->tls_presented = m->tls_context && m->tls_context->presented ? m->tls_context->presented->value : -1;
        r->tls_validated = m->tls_context && m->tls_context->validated ? m->tls_context->validated->value : -1;
        refuse(b, at, m->n_dynamic_metadata, "dynamic_metadata");
        refuse(b, at, m->n_filter_state, "filter_state");
}

static void weighted_build(struct build *b, struct route *r, const struct Xds__WeightedCluster *w, const struct diag_at *at)
{
        uint64_t total = 0;

        r->nweighted = w->n_clusters;
        r->weighted = w->n_clusters ? arena_zalloc(&b->m->arena, w->n_clusters * sizeof(*r->weighted)) : NULL;
        for (size_t i = 0; i < w->n_clusters; i++) {
                const struct Xds__WeightedCluster__ClusterWeight *c = w->clusters[i];
                struct diag_at here = AT(b, at, ".clusters[%zu]", i);
                struct route_weighted *x = &r->weighted[i];

                x->from_header = c->cluster_header && *c->cluster_header;
                x->cluster = x->from_header ? keep_lower(b, c->cluster_header) : keep(b, c->name);
                if (!x->cluster.n)
                        diag_add(b->d, DIAG_ERROR, NULL, &here, "name the cluster with name or cluster_header");
                else if (x->from_header && c->name && *c->name)
                        diag_add(b->d, DIAG_ERROR, NULL, &here, "only one of name and cluster_header may be set");
                total += c->weight ? c->weight->value : 0;
                x->upto = total;
                header_ops_build(b->m, &x->request, c->request_headers_to_add, c->n_request_headers_to_add, c->request_headers_to_remove,
                                 c->n_request_headers_to_remove, "request_headers", &here, b->d);
                header_ops_build(b->m, &x->response, c->response_headers_to_add, c->n_response_headers_to_add,
                                 c->response_headers_to_remove, c->n_response_headers_to_remove, "response_headers", &here, b->d);
                if (c->host_rewrite_specifier_case == XDS__WEIGHTED_CLUSTER__CLUSTER_WEIGHT__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL)
                        x->host_literal = keep(b, c->host_rewrite_literal);
                refuse(b, &here, c->metadata_match != NULL, "metadata_match");
                FILTER_CONFIGS(b, &x->filters, c, &here);
        }
        if (!total || total > UINT32_MAX)
                diag_add(b->d, DIAG_ERROR, NULL, at, "the sum of the weights must be from 1 to 4294967295");
        if (w->total_weight && w->total_weight->value != total)
                diag_add(b->d, DIAG_ERROR, NULL, at, "the weights add up to %llu, total_weight says %u", (unsigned long long)total,
                         w->total_weight->value);
        r->weight_total = total ? total : 1;
        if (w->random_value_specifier_case == XDS__WEIGHTED_CLUSTER__RANDOM_VALUE_SPECIFIER_HEADER_NAME)
                r->weight_header = keep_lower(b, w->header_name);
        refuse(b, at, w->random_value_specifier_case == XDS__WEIGHTED_CLUSTER__RANDOM_VALUE_SPECIFIER_USE_HASH_POLICY, "use_hash_policy");
}

static void cluster_build(struct build *b, struct route *r, const struct Xds__RouteAction *a, const struct diag_at *at)
{
        struct diag_at here;

        switch (a->cluster_specifier_case) {
        case XDS__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER:
                r->cluster_kind = ROUTE_CLUSTER;
                r->cluster = keep(b, a->cluster);
                if (!r->cluster.n) {
                        here = AT(b, at, ".cluster");
                        diag_add(b->d, DIAG_ERROR, NULL, &here, "the cluster's name is empty");
                }
                break;
        case XDS__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER_HEADER:
                r->cluster_kind = ROUTE_CLUSTER_HEADER;
                r->cluster = keep_lower(b, a->cluster_header);
                if (!r->cluster.n) {
                        here = AT(b, at, ".cluster_header");
                        diag_add(b->d, DIAG_ERROR, NULL, &here, "the header's name is empty");
                }
                break;
        case XDS__ROUTE_ACTION__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS:
                r->cluster_kind = ROUTE_CLUSTER_WEIGHTED;
                here = AT(b, at, ".weighted_clusters");
                weighted_build(b, r, a->weighted_clusters, &here);
                break;
        default:
                diag_add(b->d, DIAG_ERROR, NULL, at, "a route needs one of cluster, cluster_header or weighted_clusters");
        }
        switch (a->cluster_not_found_response_code) {
        case XDS__ROUTE_ACTION__CLUSTER_NOT_FOUND_RESPONSE_CODE__NOT_FOUND:
                r->cluster_not_found_status = 404;
                break;
        case XDS__ROUTE_ACTION__CLUSTER_NOT_FOUND_RESPONSE_CODE__INTERNAL_SERVER_ERROR:
                r->cluster_not_found_status = 500;
                break;
        default:
                r->cluster_not_found_status = 503;
        }
}

static void rewrite_build(struct build *b, struct route *r, const struct Xds__RouteAction *a, const struct diag_at *at)
{
        struct diag_at here;

        r->prefix_rewrite = keep(b, a->prefix_rewrite);
        if (a->regex_rewrite) {
                here = AT(b, at, ".regex_rewrite");
                if (r->prefix_rewrite.n)
                        diag_add(b->d, DIAG_ERROR, NULL, &here, "only one of prefix_rewrite and regex_rewrite may be set");
                regex_rewrite_build(b->m, &r->regex_rewrite, a->regex_rewrite, &here, b->d);
        }
        switch (a->host_rewrite_specifier_case) {
        case XDS__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL:
                r->host = keep(b, a->host_rewrite_literal);
                r->host_kind = r->host.n ? ROUTE_HOST_LITERAL : ROUTE_HOST_KEEP;
                break;
        case XDS__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_AUTO_HOST_REWRITE:
                r->host_kind = a->auto_host_rewrite->value ? ROUTE_HOST_AUTO : ROUTE_HOST_KEEP;
                break;
        case XDS__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_HEADER:
                r->host = keep_lower(b, a->host_rewrite_header);
                r->host_kind = r->host.n ? ROUTE_HOST_HEADER : ROUTE_HOST_KEEP;
                break;
        case XDS__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_PATH_REGEX:
                here = AT(b, at, ".host_rewrite_path_regex");
                r->host_kind = ROUTE_HOST_PATH_REGEX;
                regex_rewrite_build(b->m, &r->host_regex, a->host_rewrite_path_regex, &here, b->d);
                break;
        case XDS__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE:
                refuse(b, at, true, "host_rewrite");
                break;
        default:
                r->host_kind = ROUTE_HOST_KEEP;
        }
        r->append_x_forwarded_host = a->append_x_forwarded_host;
}

static uint64_t ms(struct build *b, const struct Gp__Duration *v, uint64_t otherwise, const struct diag_at *at, const char *field)
{
        struct diag_at here;

        if (!v)
                return otherwise;
        here = AT(b, at, ".%s", field);
        return duration_ms(v, otherwise, &here, b->d);
}

static void timeouts_build(struct build *b, struct route *r, const struct Xds__RouteAction *a, const struct diag_at *at)
{
        const struct Xds__RouteAction__MaxStreamDuration *m = a->max_stream_duration;

        r->timeout_ms = ms(b, a->timeout, ROUTE_TIMEOUT_MS, at, "timeout");
        r->has_idle_timeout = a->idle_timeout != NULL;
        r->idle_timeout_ms = ms(b, a->idle_timeout, 0, at, "idle_timeout");
        r->has_max_grpc_timeout = a->max_grpc_timeout != NULL;
        r->max_grpc_timeout_ms = ms(b, a->max_grpc_timeout, 0, at, "max_grpc_timeout");
        r->grpc_timeout_offset_ms = ms(b, a->grpc_timeout_offset, 0, at, "grpc_timeout_offset");
        if (m) {
                r->has_max_stream_duration = m->max_stream_duration != NULL;
                r->max_stream_duration_ms = ms(b, m->max_stream_duration, 0, at, "max_stream_duration.max_stream_duration");
                r->has_grpc_timeout_header_max = m->grpc_timeout_header_max != NULL;
                r->grpc_timeout_header_max_ms = ms(b, m->grpc_timeout_header_max, 0, at, "max_stream_duration.grpc_timeout_header_max");
                r->grpc_timeout_header_offset_ms = ms(b, m->grpc_timeout_header_offset, 0, at,
                                                      "max_stream_duration.grpc_timeout_header_offset");
        }
}

static void hash_build(struct build *b, struct route *r, const struct Xds__RouteAction *a, const struct diag_at *at)
{
        struct diag_at here;

        if (!a->n_hash_policy)
                return;
        here = AT(b, at, ".hash_policy");
        diag_add(b->d, DIAG_WARNING, NULL, &here,
                 "hash policies matter to ring-hash and Maglev load balancing, which are not supported: ignored");
        r->hash = arena_zalloc(&b->m->arena, a->n_hash_policy * sizeof(*r->hash));
        for (size_t i = 0; i < a->n_hash_policy; i++) {
                const struct Xds__RouteAction__HashPolicy *p = a->hash_policy[i];
                struct route_hash *h = &r->hash[r->nhash];

                h->terminal = p->terminal;
                switch (p->policy_specifier_case) {
                case XDS__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_HEADER:
                        h->kind = ROUTE_HASH_HEADER;
                        h->name = keep_lower(b, p->header->header_name);
                        break;
                case XDS__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_COOKIE:
                        h->kind = ROUTE_HASH_COOKIE;
                        h->name = keep(b, p->cookie->name);
                        break;
                case XDS__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_CONNECTION_PROPERTIES:
                        h->kind = ROUTE_HASH_SOURCE_IP;
                        break;
                case XDS__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_QUERY_PARAMETER:
                        h->kind = ROUTE_HASH_QUERY;
                        h->name = keep(b, p->query_parameter->name);
                        break;
                default:
                        here = AT(b, at, ".hash_policy[%zu]", i);
                        diag_add(b->d, DIAG_ERROR, NULL, &here, "this kind of hash policy is not supported");
                        continue;
                }
                r->nhash++;
        }
}

static void upgrades_build(struct build *b, struct route *r, const struct Xds__RouteAction *a, const struct diag_at *at)
{
        r->upgrades = a->n_upgrade_configs ? arena_zalloc(&b->m->arena, a->n_upgrade_configs * sizeof(*r->upgrades)) : NULL;
        for (size_t i = 0; i < a->n_upgrade_configs; i++) {
                const struct Xds__RouteAction__UpgradeConfig *u = a->upgrade_configs[i];
                struct diag_at here = AT(b, at, ".upgrade_configs[%zu]", i);

                r->upgrades[i].type = keep_lower(b, u->upgrade_type);
                r->upgrades[i].enabled = !u->enabled || u->enabled->value;
                if (u->connect_config)
                        diag_add(b->d, DIAG_ERROR, NULL, &here, "connect_config (ending CONNECT here, as a TCP tunnel) is not supported");
                r->nupgrades++;
        }
}

static void forward_build(struct build *b, struct route *r, const struct Xds__RouteAction *a, const struct Xds__VirtualHost *vh,
                          const struct diag_at *at)
{
        struct diag_at here;

        r->action = ROUTE_FORWARD;
        cluster_build(b, r, a, at);
        rewrite_build(b, r, a, at);
        timeouts_build(b, r, a, at);
        hash_build(b, r, a, at);
        upgrades_build(b, r, a, at);
        r->priority = a->priority == XDS__ROUTING_PRIORITY__HIGH;
        if (a->retry_policy) {
                here = AT(b, at, ".retry_policy");
                r->retry = retry_policy_build(b->m, a->retry_policy, &here, b->d);
        } else {
                r->retry = r->vhost->retry;
        }
        if (a->cors) {
                here = AT(b, at, ".cors");
                r->cors = cors_policy_build(b->m, a->cors, &here, b->d);
        }
        refuse(b, at, a->metadata_match != NULL, "metadata_match");
        refuse(b, at, a->n_request_mirror_policies != 0, "request_mirror_policies");
        refuse(b, at, a->hedge_policy != NULL, "hedge_policy");
        refuse(b, at, a->retry_policy_typed_config != NULL, "retry_policy_typed_config");
        refuse(b, at, a->internal_redirect_policy != NULL, "internal_redirect_policy");
        refuse(b, at, a->early_data_policy != NULL, "early_data_policy");
        refuse(b, at, a->path_rewrite_policy != NULL, "path_rewrite_policy");
        refuse(b, at, a->path_rewrite && *a->path_rewrite, "path_rewrite");
        refuse(b, at, a->flush_timeout != NULL, "flush_timeout");
        (void)vh;
}

static void redirect_build(struct build *b, struct route *r, const struct Xds__RedirectAction *a, const struct diag_at *at)
{
        static const int status[] = { 301, 302, 303, 307, 308 };
        struct route_redirect *d = &r->redirect;
        struct diag_at here;

        r->action = ROUTE_REDIRECT;
        d->status = (unsigned)a->response_code < ARRAY_LEN(status) ? status[a->response_code] : 301;
        d->host = keep(b, a->host_redirect);
        if (a->scheme_rewrite_specifier_case == XDS__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_HTTPS_REDIRECT && a->https_redirect)
                d->scheme = STR("https");
        else if (a->scheme_rewrite_specifier_case == XDS__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_SCHEME_REDIRECT)
                d->scheme = keep_lower(b, a->scheme_redirect);
        if (a->port_redirect > 65535) {
                here = AT(b, at, ".port_redirect");
                diag_add(b->d, DIAG_ERROR, NULL, &here, "%u is not a port: at most 65535", a->port_redirect);
        }
        d->port = a->port_redirect;
        d->strip_query = a->strip_query;
        switch (a->path_rewrite_specifier_case) {
        case XDS__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PATH_REDIRECT:
                d->path = keep(b, a->path_redirect);
                d->path_has_query = str_chr(d->path, '?') >= 0;
                break;
        case XDS__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PREFIX_REWRITE:
                d->has_prefix_rewrite = a->prefix_rewrite && *a->prefix_rewrite;
                d->prefix_rewrite = keep(b, a->prefix_rewrite);
                break;
        case XDS__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_REGEX_REWRITE:
                here = AT(b, at, ".regex_rewrite");
                regex_rewrite_build(b->m, &d->regex, a->regex_rewrite, &here, b->d);
                break;
        default:
                break;
        }
}

static void data_source(struct build *b, const struct Xds__DataSource *s, struct str *out, const struct diag_at *at)
{
        struct buf file = BUF_INIT;
        const char *env;
        int err;

        switch (s->specifier_case) {
        case XDS__DATA_SOURCE__SPECIFIER_INLINE_STRING:
                *out = keep(b, s->inline_string);
                break;
        case XDS__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
                *out = arena_str(&b->m->arena, str_make((const char *)s->inline_bytes.data, s->inline_bytes.len));
                break;
        case XDS__DATA_SOURCE__SPECIFIER_FILENAME:
                err = buf_read_file(&file, s->filename, b->direct_body_max);
                if (err)
                        diag_add(b->d, DIAG_ERROR, NULL, at, "cannot read %s: %s", s->filename,
                                 err == -EFBIG ? "it is larger than max_direct_response_body_size_bytes" : strerror(-err));
                else
                        *out = arena_str(&b->m->arena, buf_view(&file));
                buf_fini(&file);
                break;
        case XDS__DATA_SOURCE__SPECIFIER_ENVIRONMENT_VARIABLE:
                env = getenv(s->environment_variable);
                if (!env)
                        diag_add(b->d, DIAG_ERROR, NULL, at, "environment variable %s is not set", s->environment_variable);
                else
                        *out = keep(b, env);
                break;
        default:
                diag_add(b->d, DIAG_ERROR, NULL, at, "give one of inline_string, inline_bytes, filename or environment_variable");
        }
        if (out->n > b->direct_body_max)
                diag_add(b->d, DIAG_ERROR, NULL, at, "the body has %zu bytes, more than max_direct_response_body_size_bytes (%u)", out->n,
                         b->direct_body_max);
}

static void direct_build(struct build *b, struct route *r, const struct Xds__DirectResponseAction *a, const struct diag_at *at)
{
        struct diag_at here;

        r->action = ROUTE_DIRECT;
        r->direct_status = (int)a->status;
        if (a->status < 200 || a->status > 599) {
                here = AT(b, at, ".status");
                diag_add(b->d, DIAG_ERROR, NULL, &here, "%u is not a final status: from 200 to 599", a->status);
        }
        if (a->body) {
                here = AT(b, at, ".body");
                data_source(b, a->body, &r->direct_body, &here);
        }
        if (a->body_format) {
                struct str text = str_make("", 0);

                here = AT(b, at, ".body_format");
                r->direct_content_type = keep(b, a->body_format->content_type);
                if (a->body_format->format_case == XDS__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT)
                        text = str_of(a->body_format->text_format);
                else if (a->body_format->format_case == XDS__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT_SOURCE)
                        data_source(b, a->body_format->text_format_source, &text, &here);
                else
                        diag_add(b->d, DIAG_ERROR, NULL, &here, "only text_format and text_format_source are supported here");
                if (text.n)
                        r->direct_format = compile(b, text, &here);
        }
}

static void reason_build(struct build *b, struct route *r, const struct diag_at *at)
{
        const struct Gp__Struct *s = metadata_struct(r->metadata, "postern");
        struct diag_at here;

        if (!s)
                return;
        struct str text = struct_str(s, "reason");
        if (!text.n)
                return;
        here = AT(b, at, ".metadata.filter_metadata[\"postern\"].reason");
        r->reason = compile(b, text, &here);
}

static void route_build(struct build *b, struct route *r, const struct Xds__Route *p, const struct Xds__VirtualHost *vh,
                        const struct diag_at *at)
{
        static const struct Xds__RouteMatch no_match = XDS__ROUTE_MATCH__INIT;
        struct diag_at here = AT(b, at, ".match");

        r->name = keep(b, p->name);
        r->body_limit = UINT64_MAX;
        match_build(b, r, p->match ? p->match : &no_match, &here);
        switch (p->action_case) {
        case XDS__ROUTE__ACTION_ROUTE:
                here = AT(b, at, ".route");
                forward_build(b, r, p->route, vh, &here);
                break;
        case XDS__ROUTE__ACTION_REDIRECT:
                here = AT(b, at, ".redirect");
                redirect_build(b, r, p->redirect, &here);
                break;
        case XDS__ROUTE__ACTION_DIRECT_RESPONSE:
                here = AT(b, at, ".direct_response");
                direct_build(b, r, p->direct_response, &here);
                break;
        default:
                diag_add(b->d, DIAG_ERROR, NULL, at, "a route needs one of route, redirect or direct_response");
        }
        if (p->metadata) {
                r->metadata = (const struct Xds__Metadata *)pb_clone_message(&p->metadata->base, &b->m->arena);
                reason_build(b, r, at);
        }
        if (p->decorator) {
                r->decorator = keep(b, p->decorator->operation);
                r->decorator_propagate = !p->decorator->propagate || p->decorator->propagate->value;
        }
        if (p->n_request_headers_to_add || p->n_request_headers_to_remove)
                header_ops_build(b->m, &r->request, p->request_headers_to_add, p->n_request_headers_to_add, p->request_headers_to_remove,
                                 p->n_request_headers_to_remove, "request_headers", at, b->d);
        if (p->n_response_headers_to_add || p->n_response_headers_to_remove)
                header_ops_build(b->m, &r->response, p->response_headers_to_add, p->n_response_headers_to_add,
                                 p->response_headers_to_remove, p->n_response_headers_to_remove, "response_headers", at, b->d);
        if (p->n_typed_per_filter_config)
                FILTER_CONFIGS(b, &r->filters, p, at);
        if (p->request_body_buffer_limit)
                r->body_limit = p->request_body_buffer_limit->value;
        else if (p->per_request_buffer_limit_bytes)
                r->body_limit = p->per_request_buffer_limit_bytes->value;
        else
                r->body_limit = r->vhost->body_limit;
}

static struct route *tls_redirect(struct build *b, struct route_vhost *v)
{
        struct route *r = ARENA_NEW(&b->m->arena, struct route);

        r->vhost = v;
        r->action = ROUTE_REDIRECT;
        r->redirect.status = 301;
        r->redirect.scheme = STR("https");
        r->body_limit = UINT64_MAX;
        return r;
}

static struct route_domains *domains_of(struct route_domains **v, size_t *n, size_t len)
{
        size_t at = 0;

        while (at < *n && (*v)[at].len > len)
                at++;
        if (at < *n && (*v)[at].len == len)
                return &(*v)[at];
        *v = mem_realloc(*v, (*n + 1) * sizeof(**v));
        memmove(*v + at + 1, *v + at, (*n - at) * sizeof(**v));
        (*n)++;
        (*v)[at] = (struct route_domains){ .len = len, .map = STRMAP_INIT };
        return &(*v)[at];
}

static void domain_add(struct build *b, struct route_vhost *v, const char *domain, const struct diag_at *at)
{
        struct route_table *t = b->t;
        struct strmap *map;
        struct str s = str_of(domain);
        char lower[512];

        if (!s.n || s.n > sizeof(lower)) {
                diag_add(b->d, DIAG_ERROR, NULL, at, "a domain must have from 1 to %zu characters", sizeof(lower));
                return;
        }
        for (size_t i = 0; i < s.n; i++)
                lower[i] = ascii_lower(s.p[i]);
        s.p = lower;
        if (str_eqc(s, "*")) {
                if (t->any)
                        diag_add(b->d, DIAG_ERROR, NULL, at, "only a single wildcard domain \"*\" is permitted in route \"" STR_FMT "\"",
                                 STR_ARG(t->name));
                else
                        t->any = v;
                return;
        }
        if (s.p[0] == '*') {
                s = str_sub(s, 1, s.n);
                map = &domains_of(&t->suffix, &t->nsuffix, s.n)->map;
        } else if (s.p[s.n - 1] == '*') {
                s.n--;
                map = &domains_of(&t->prefix, &t->nprefix, s.n)->map;
        } else {
                map = &t->exact;
        }
        if (strmap_has(map, s)) {
                diag_add(b->d, DIAG_ERROR, NULL, at,
                         "only unique values for domains are permitted: \"%s\" is already a domain of virtual host \"" STR_FMT "\"", domain,
                         STR_ARG(((struct route_vhost *)strmap_get(map, s))->name));
                return;
        }
        strmap_set(map, s, v);
}

static const struct header_ops no_ops;

static const struct header_ops *vhost_ops(struct build *b, Xds__HeaderValueOption *const *add, size_t nadd, char *const *remove,
                                          size_t nremove, const char *field, const struct diag_at *at)
{
        struct header_ops *o;

        if (!nadd && !nremove)
                return &no_ops;
        o = ARENA_NEW(&b->m->arena, struct header_ops);
        header_ops_build(b->m, o, (struct Xds__HeaderValueOption *const *)add, nadd, remove, nremove, field, at, b->d);
        return o;
}

static void vhost_build(struct build *b, struct route_vhost *v, const struct Xds__VirtualHost *p, const struct diag_at *at)
{
        struct diag_at here;

        v->name = keep(b, p->name);
        v->require_tls = (enum route_tls)p->require_tls;
        if (v->require_tls)
                v->tls_redirect = tls_redirect(b, v);
        v->attempt_count_in_request = p->include_request_attempt_count;
        v->attempt_count_in_response = p->include_attempt_count_in_response;
        v->body_limit = p->request_body_buffer_limit        ? p->request_body_buffer_limit->value
                        : p->per_request_buffer_limit_bytes ? p->per_request_buffer_limit_bytes->value
                                                            : UINT64_MAX;
        v->request = vhost_ops(b, p->request_headers_to_add, p->n_request_headers_to_add, p->request_headers_to_remove,
                               p->n_request_headers_to_remove, "request_headers", at);
        v->response = vhost_ops(b, p->response_headers_to_add, p->n_response_headers_to_add, p->response_headers_to_remove,
                                p->n_response_headers_to_remove, "response_headers", at);
        if (p->retry_policy) {
                here = AT(b, at, ".retry_policy");
                v->retry = retry_policy_build(b->m, p->retry_policy, &here, b->d);
        }
        if (p->cors) {
                here = AT(b, at, ".cors");
                v->cors = cors_policy_build(b->m, p->cors, &here, b->d);
        }
        if (p->n_typed_per_filter_config)
                FILTER_CONFIGS(b, &v->filters, p, at);
        refuse(b, at, p->n_virtual_clusters != 0, "virtual_clusters");
        refuse(b, at, p->hedge_policy != NULL, "hedge_policy");
        refuse(b, at, p->retry_policy_typed_config != NULL, "retry_policy_typed_config");
        refuse(b, at, p->n_request_mirror_policies != 0, "request_mirror_policies");
        refuse(b, at, p->include_is_timeout_retry_header, "include_is_timeout_retry_header");
        if (!p->n_domains)
                diag_add(b->d, DIAG_ERROR, NULL, at, "a virtual host needs at least one domain");
        for (size_t i = 0; i < p->n_domains; i++) {
                here = *at;
                if (b->d->errors < b->d->max)
                        here = AT(b, at, ".domains[%zu]", i);
                domain_add(b, v, p->domains[i], &here);
        }
        v->routes = p->n_routes ? arena_zalloc(&b->m->arena, p->n_routes * sizeof(*v->routes)) : NULL;
        for (size_t i = 0; i < p->n_routes; i++) {
                struct route *r = ARENA_NEW(&b->m->arena, struct route);

                here = AT(b, at, ".routes[%zu]", i);
                r->vhost = v;
                route_build(b, r, p->routes[i], p, &here);
                v->routes[v->nroutes++] = r;
        }
}

static void free_plain(void *p)
{
        free(p);
}

struct route_table *route_table_build(struct server *s, const struct Xds__RouteConfiguration *rc, const struct diag_at *at, struct diags *d)
{
        struct route_table *t = MEM_NEW(struct route_table);
        struct build b = { .server = s, .m = &t->mem, .d = d, .t = t };
        size_t before = d->errors;

        atomic_init(&t->refs, 1);
        config_mem_init(&t->mem);
        t->name = keep(&b, rc->name);
        t->ignore_port = rc->ignore_port_in_host_matching;
        t->ignore_path_parameters = rc->ignore_path_parameters_in_path_matching;
        t->most_specific_wins = rc->most_specific_header_mutations_wins;
        t->validate_clusters_set = rc->validate_clusters != NULL;
        t->validate_clusters = rc->validate_clusters && rc->validate_clusters->value;
        b.direct_body_max = rc->max_direct_response_body_size_bytes ? rc->max_direct_response_body_size_bytes->value : DIRECT_BODY_MAX;
        header_ops_build(b.m, &t->request, rc->request_headers_to_add, rc->n_request_headers_to_add, rc->request_headers_to_remove,
                         rc->n_request_headers_to_remove, "request_headers", at, d);
        header_ops_build(b.m, &t->response, rc->response_headers_to_add, rc->n_response_headers_to_add, rc->response_headers_to_remove,
                         rc->n_response_headers_to_remove, "response_headers", at, d);
        t->internal_only = arena_zalloc(&t->mem.arena, (rc->n_internal_only_headers + 1) * sizeof(*t->internal_only));
        for (size_t i = 0; i < rc->n_internal_only_headers; i++)
                t->internal_only[t->ninternal_only++] = keep_lower(&b, rc->internal_only_headers[i]);
        if (rc->n_typed_per_filter_config)
                FILTER_CONFIGS(&b, &t->filters, rc, at);
        if (rc->metadata)
                t->metadata = (const struct Xds__Metadata *)pb_clone_message(&rc->metadata->base, &t->mem.arena);
        refuse(&b, at, rc->n_cluster_specifier_plugins != 0, "cluster_specifier_plugins");
        refuse(&b, at, rc->n_request_mirror_policies != 0, "request_mirror_policies");
        refuse(&b, at, rc->vhost_header && *rc->vhost_header, "vhost_header");
        t->vhosts = arena_zalloc(&t->mem.arena, (rc->n_virtual_hosts + 1) * sizeof(*t->vhosts));
        for (size_t i = 0; i < rc->n_virtual_hosts; i++) {
                struct diag_at here = AT(&b, at, ".virtual_hosts[%zu]", i);
                struct route_vhost *v = ARENA_NEW(&t->mem.arena, struct route_vhost);

                vhost_build(&b, v, rc->virtual_hosts[i], &here);
                t->vhosts[t->nvhosts++] = v;
                if (t->mem.scratch.used_bytes > 1 << 20)
                        config_mem_built(&t->mem);
        }
        config_mem_on_free(&t->mem, free_plain, t->suffix);
        config_mem_on_free(&t->mem, free_plain, t->prefix);
        config_mem_built(&t->mem);
        if (d->errors == before)
                return t;
        route_table_unref(t);
        return NULL;
}
