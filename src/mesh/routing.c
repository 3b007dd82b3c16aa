/* VirtualService and Gateway, read: host names made full, gateway names made "namespace/name", every default filled in. */
#include "mesh/read.h"

static struct mesh_string_match string_match(struct arena *a, const struct pb_node *n)
{
        static const struct {
                const char *field;
                enum mesh_match_kind kind;
        } kinds[] = { { "exact", MESH_MATCH_EXACT }, { "prefix", MESH_MATCH_PREFIX }, { "regex", MESH_MATCH_REGEX } };
        struct mesh_string_match m = { 0 };

        if (!n)
                return m;
        m.kind = MESH_MATCH_PRESENT; /* {}: only there */
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
                if (!read_field(n, kinds[i].field))
                        continue;
                m.kind = kinds[i].kind;
                m.value = read_str(a, n, kinds[i].field);
        }
        return m;
}

static struct mesh_named_match *named_matches(struct arena *a, const struct pb_node *map, size_t *n)
{
        struct mesh_named_match *out;

        *n = 0;
        if (!map || map->kind != PB_MAP || !map->n)
                return NULL;
        out = arena_zalloc(a, map->n * sizeof(*out));
        for (size_t i = 0; i < map->n; i++) {
                struct mesh_named_match x = { arena_str(a, map->keys[i]), string_match(a, map->v[i]) };
                size_t j = *n;

                for (; j > 0 && str_cmp(out[j - 1].name, x.name) > 0; j--)
                        out[j] = out[j - 1];
                out[j] = x;
                ++*n;
        }
        return out;
}

/* "mesh" stays; "name" is of this namespace; "./name" too. */
static struct str *gateway_names(struct arena *a, const struct pb_node *map, struct str ns, size_t *n)
{
        struct str *v = read_strs(a, map, "gateways", n);

        for (size_t i = 0; i < *n; i++) {
                ptrdiff_t slash = str_chr(v[i], '/');

                if (str_eqc(v[i], "mesh"))
                        continue;
                if (slash < 0)
                        v[i] = arena_printf(a, STR_FMT "/" STR_FMT, STR_ARG(ns), STR_ARG(v[i]));
                else if (slash == 1 && v[i].p[0] == '.')
                        v[i] = arena_printf(a, STR_FMT STR_FMT, STR_ARG(ns), STR_ARG(str_sub(v[i], 1, v[i].n)));
        }
        return v;
}

static void read_headers(struct arena *a, const struct pb_node *headers, struct mesh_headers *h)
{
        const struct pb_node *req = read_field(headers, "request"), *resp = read_field(headers, "response");

        h->req_set = read_pairs(a, read_field(req, "set"), &h->nreq_set);
        h->req_add = read_pairs(a, read_field(req, "add"), &h->nreq_add);
        h->req_remove = read_strs(a, req, "remove", &h->nreq_remove);
        h->resp_set = read_pairs(a, read_field(resp, "set"), &h->nresp_set);
        h->resp_add = read_pairs(a, read_field(resp, "add"), &h->nresp_add);
        h->resp_remove = read_strs(a, resp, "remove", &h->nresp_remove);
}

static struct mesh_destination *destinations(struct arena *a, const struct pb_node *route, struct str ns, struct str domain, size_t *n)
{
        struct pb_node **v = NULL;
        struct mesh_destination *out;

        *n = read_list(route, "route", &v);
        out = *n ? arena_zalloc(a, *n * sizeof(*out)) : NULL;
        for (size_t i = 0; i < *n; i++) {
                const struct pb_node *d = read_field(v[i], "destination");

                out[i].host = mesh_host_resolve(read_str(a, d, "host"), ns, domain, a);
                out[i].subset = read_str(a, d, "subset");
                out[i].port = read_u32(read_field(d, "port"), "number");
                out[i].weight = read_u32(v[i], "weight");
                read_headers(a, read_field(v[i], "headers"), &out[i].headers);
        }
        return out;
}

static void http_matches(struct arena *a, const struct pb_node *route, struct str ns, struct mesh_http_route *out)
{
        struct pb_node **v = NULL;

        out->nmatch = read_list(route, "match", &v);
        out->match = out->nmatch ? arena_zalloc(a, out->nmatch * sizeof(*out->match)) : NULL;
        for (size_t i = 0; i < out->nmatch; i++) {
                struct mesh_http_match *m = &out->match[i];

                m->name = read_str(a, v[i], "name");
                m->stat_prefix = read_str(a, v[i], "statPrefix");
                m->uri = string_match(a, read_field(v[i], "uri"));
                m->scheme = string_match(a, read_field(v[i], "scheme"));
                m->method = string_match(a, read_field(v[i], "method"));
                m->authority = string_match(a, read_field(v[i], "authority"));
                m->headers = named_matches(a, read_field(v[i], "headers"), &m->nheaders);
                m->without = named_matches(a, read_field(v[i], "withoutHeaders"), &m->nwithout);
                m->query = named_matches(a, read_field(v[i], "queryParams"), &m->nquery);
                m->port = read_u32(v[i], "port");
                m->ignore_uri_case = read_bool(v[i], "ignoreUriCase") == 1;
                m->source_labels = read_labels(a, read_field(v[i], "sourceLabels"));
                m->source_ns = read_str(a, v[i], "sourceNamespace");
                m->gateways = gateway_names(a, v[i], ns, &m->ngateways);
        }
}

static void redirect_and_direct(struct arena *a, const struct pb_node *route, struct mesh_http_route *out)
{
        const struct pb_node *r = read_field(route, "redirect"), *d = read_field(route, "directResponse"), *body = read_field(d, "body");

        if (r) {
                struct str derive = read_str(a, r, "derivePort");

                out->redirect.on = true;
                out->redirect.uri = read_str(a, r, "uri");
                out->redirect.prefix_rewrite = read_str(a, r, "prefixRewrite");
                out->redirect.authority = read_str(a, r, "authority");
                out->redirect.scheme = read_str(a, r, "scheme");
                out->redirect.port = read_u32(r, "port");
                out->redirect.code = read_u32(r, "redirectCode");
                out->redirect.port_from_protocol = str_eqc(derive, "FROM_PROTOCOL_DEFAULT");
                out->redirect.port_from_request = str_eqc(derive, "FROM_REQUEST_PORT");
        }
        if (d) {
                out->direct.on = true;
                out->direct.status = read_u32(d, "status");
                out->direct.has_body = read_field(body, "string") != NULL;
                out->direct.body = read_str(a, body, "string");
        }
}

static struct str joined(struct arena *a, const struct pb_node *map, const char *field)
{
        size_t n;
        struct str *v = read_strs(a, map, field, &n), out = { 0 };

        for (size_t i = 0; i < n; i++)
                out = i ? arena_printf(a, STR_FMT "," STR_FMT, STR_ARG(out), STR_ARG(v[i])) : v[i];
        return out;
}

static struct mesh_cors *read_cors(struct arena *a, const struct pb_node *n)
{
        struct mesh_cors *c;
        struct pb_node **v = NULL;
        struct str *old;
        size_t nold, k;
        int64_t age;
        struct str unmatched;

        if (!n)
                return NULL;
        c = arena_zalloc(a, sizeof(*c));
        old = read_strs(a, n, "allowOrigin", &nold);
        k = read_list(n, "allowOrigins", &v);
        c->origins = k + nold ? arena_zalloc(a, (k + nold) * sizeof(*c->origins)) : NULL;
        for (size_t i = 0; i < k; i++)
                c->origins[c->norigins++] = string_match(a, v[i]);
        for (size_t i = 0; i < nold; i++)
                c->origins[c->norigins++] = (struct mesh_string_match){ MESH_MATCH_EXACT, old[i] };
        c->methods = joined(a, n, "allowMethods");
        c->headers = joined(a, n, "allowHeaders");
        c->expose = joined(a, n, "exposeHeaders");
        age = read_duration_us(n, "maxAge", -1);
        c->max_age_s = age < 0 ? -1 : age / 1000000;
        c->credentials = (int8_t)read_bool(n, "allowCredentials");
        unmatched = read_str(a, n, "unmatchedPreflights");
        c->forward_not_matching = str_eqc(unmatched, "FORWARD") ? 1 : str_eqc(unmatched, "IGNORE") ? 0 : -1;
        return c;
}

static void http_route(struct arena *a, const struct pb_node *n, struct str ns, struct str domain, struct mesh_http_route *out)
{
        const struct pb_node *rw = read_field(n, "rewrite"), *re = read_field(rw, "uriRegexRewrite"), *retries = read_field(n, "retries");

        out->name = read_str(a, n, "name");
        http_matches(a, n, ns, out);
        out->route = destinations(a, n, ns, domain, &out->nroute);
        redirect_and_direct(a, n, out);
        if (rw) {
                out->rewrite.on = true;
                out->rewrite.uri = read_str(a, rw, "uri");
                out->rewrite.authority = read_str(a, rw, "authority");
                out->rewrite.regex = read_str(a, re, "match");
                out->rewrite.regex_with = read_str(a, re, "rewrite");
        }
        out->timeout_us = read_duration_us(n, "timeout", -1);
        out->has_timeout = out->timeout_us >= 0;
        if (retries) {
                out->retries.on = true;
                out->retries.attempts = (int32_t)read_i64(retries, "attempts", -1);
                out->retries.per_try_us = read_duration_us(retries, "perTryTimeout", -1);
                out->retries.backoff_us = read_duration_us(retries, "backoff", -1);
                out->retries.retry_on = read_str(a, retries, "retryOn");
                out->retries.ignore_previous_hosts_off = read_bool(retries, "retryIgnorePreviousHosts") == 0;
        }
        read_headers(a, read_field(n, "headers"), &out->headers);
        out->cors = read_cors(a, read_field(n, "corsPolicy"));
}

static struct mesh_l4_route *l4_routes(struct arena *a, const struct pb_node *spec, const char *field, struct str ns, struct str domain,
                                       size_t *n)
{
        struct pb_node **v = NULL;
        struct mesh_l4_route *out;

        *n = read_list(spec, field, &v);
        out = *n ? arena_zalloc(a, *n * sizeof(*out)) : NULL;
        for (size_t i = 0; i < *n; i++) {
                struct pb_node **m = NULL;

                out[i].route = destinations(a, v[i], ns, domain, &out[i].nroute);
                out[i].nmatch = read_list(v[i], "match", &m);
                out[i].match = out[i].nmatch ? arena_zalloc(a, out[i].nmatch * sizeof(*out[i].match)) : NULL;
                for (size_t j = 0; j < out[i].nmatch; j++) {
                        struct mesh_l4_match *x = &out[i].match[j];

                        x->sni = read_strs(a, m[j], "sniHosts", &x->nsni);
                        x->subnets = read_strs(a, m[j], "destinationSubnets", &x->nsubnets);
                        x->port = read_u32(m[j], "port");
                        x->source_labels = read_labels(a, read_field(m[j], "sourceLabels"));
                        x->source_ns = read_str(a, m[j], "sourceNamespace");
                        x->gateways = gateway_names(a, m[j], ns, &x->ngateways);
                }
        }
        return out;
}

static bool looks_at_source(const struct mesh_vs *vs)
{
        for (size_t i = 0; i < vs->nhttp; i++)
                for (size_t j = 0; j < vs->http[i].nmatch; j++)
                        if (vs->http[i].match[j].source_labels.n || vs->http[i].match[j].source_ns.n)
                                return true;
        for (size_t k = 0; k < vs->ntls + vs->ntcp; k++) {
                const struct mesh_l4_route *r = k < vs->ntls ? &vs->tls[k] : &vs->tcp[k - vs->ntls];

                for (size_t j = 0; j < r->nmatch; j++)
                        if (r->match[j].source_labels.n || r->match[j].source_ns.n)
                                return true;
        }
        return false;
}

void read_virtual_service(struct arena *a, const struct pb_node *object, struct str domain, struct mesh_vs *out)
{
        const struct pb_node *spec = read_field(object, "spec");
        struct pb_node **v = NULL;

        out->hosts = read_strs(a, spec, "hosts", &out->nhosts);
        for (size_t i = 0; i < out->nhosts; i++)
                out->hosts[i] = mesh_host_resolve(out->hosts[i], out->meta.ns, domain, a);
        out->gateways = gateway_names(a, spec, out->meta.ns, &out->ngateways);
        if (!out->ngateways) {
                out->gateways = arena_alloc(a, sizeof(*out->gateways));
                out->gateways[0] = STR("mesh");
                out->ngateways = 1;
        }
        for (size_t i = 0; i < out->ngateways; i++)
                out->on_mesh |= str_eqc(out->gateways[i], "mesh");
        out->nhttp = read_list(spec, "http", &v);
        out->http = out->nhttp ? arena_zalloc(a, out->nhttp * sizeof(*out->http)) : NULL;
        for (size_t i = 0; i < out->nhttp; i++)
                http_route(a, v[i], out->meta.ns, domain, &out->http[i]);
        out->tls = l4_routes(a, spec, "tls", out->meta.ns, domain, &out->ntls);
        out->tcp = l4_routes(a, spec, "tcp", out->meta.ns, domain, &out->ntcp);
        out->export_to = read_export(a, spec);
        out->by_source = looks_at_source(out);
}

static enum mesh_tls_mode tls_mode(struct arena *a, const struct pb_node *tls)
{
        static const struct {
                const char *name;
                enum mesh_tls_mode mode;
        } modes[] = { { "PASSTHROUGH", MESH_TLS_PASSTHROUGH },
                      { "SIMPLE", MESH_TLS_SIMPLE },
                      { "MUTUAL", MESH_TLS_MUTUAL },
                      { "AUTO_PASSTHROUGH", MESH_TLS_AUTO_PASSTHROUGH },
                      { "ISTIO_MUTUAL", MESH_TLS_ISTIO_MUTUAL },
                      { "OPTIONAL_MUTUAL", MESH_TLS_OPTIONAL_MUTUAL } };
        struct str name = read_str(a, tls, "mode");

        if (!tls || (!name.n && read_bool(tls, "httpsRedirect") == 1))
                return MESH_TLS_NONE;
        for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
                if (str_eqc(name, modes[i].name))
                        return modes[i].mode;
        return MESH_TLS_PASSTHROUGH;
}

void read_gateway(struct arena *a, const struct pb_node *object, struct mesh_gateway *out)
{
        const struct pb_node *spec = read_field(object, "spec");
        struct pb_node **v = NULL;

        out->selector = read_labels(a, read_field(spec, "selector"));
        out->nservers = read_list(spec, "servers", &v);
        out->servers = out->nservers ? arena_zalloc(a, out->nservers * sizeof(*out->servers)) : NULL;
        for (size_t i = 0; i < out->nservers; i++) {
                struct mesh_gateway_server *s = &out->servers[i];
                const struct pb_node *tls = read_field(v[i], "tls");
                struct str *hosts = read_strs(a, v[i], "hosts", &s->nhosts);

                s->port = read_port(a, read_field(v[i], "port"));
                s->bind = read_str(a, v[i], "bind");
                s->name = read_str(a, v[i], "name");
                s->tls = tls_mode(a, tls);
                s->https_redirect = read_bool(tls, "httpsRedirect") == 1;
                s->hosts = s->nhosts ? arena_zalloc(a, s->nhosts * sizeof(*s->hosts)) : NULL;
                for (size_t j = 0; j < s->nhosts; j++) {
                        ptrdiff_t slash = str_chr(hosts[j], '/');
                        struct str ns = slash < 0 ? STR("*") : str_sub(hosts[j], 0, (size_t)slash);

                        s->hosts[j].ns = str_eqc(ns, ".") ? out->meta.ns : ns;
                        s->hosts[j].host = slash < 0 ? hosts[j] : str_sub(hosts[j], (size_t)slash + 1, hosts[j].n);
                }
        }
}
