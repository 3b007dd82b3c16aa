/* What a route does to a message on its way: headers, host, path, Location. See route.h. */
#include "proxy/path.h"
#include "proxy/route.h"

#include <stdio.h>

void route_set_authority(struct http_head *req, struct str host, bool append_forwarded)
{
        http_set_name(req, STR("x-envoy-original-host"), req->authority);
        if (append_forwarded && req->authority.n) {
                struct http_hdr *h = http_get(req, HN_X_FORWARDED_HOST);

                if (h)
                        h->value = arena_printf(req->arena, STR_FMT "," STR_FMT, STR_ARG(h->value), STR_ARG(req->authority));
                else
                        http_add(req, HN_X_FORWARDED_HOST, req->authority);
        }
        req->authority = host;
}

/* The part of the path that the match consumed. */
static struct str matched(const struct route *r, struct str path)
{
        switch (r->path_kind) {
        case ROUTE_PREFIX:
        case ROUTE_SEPARATED_PREFIX:
                return str_sub(path, 0, r->path.n);
        default:
                return path_only(path);
        }
}

static struct str rewritten(const struct route *r, struct arena *a, struct str path, bool has_prefix, struct str prefix,
                            const struct regex_rewrite *regex)
{
        if (has_prefix) {
                struct str m = matched(r, path);

                return arena_printf(a, STR_FMT STR_FMT, STR_ARG(prefix), STR_ARG(str_sub(path, m.n, path.n)));
        }
        if (regex->regex) {
                struct str p = path_only(path), to = regex_replace_all(regex->regex, p, regex->substitution, a);

                return arena_printf(a, STR_FMT STR_FMT, STR_ARG(to), STR_ARG(str_sub(path, p.n, path.n)));
        }
        return path;
}

static void rewrite_path(const struct route *r, struct http_head *req, bool envoy_headers)
{
        struct str old = req->path;

        if (!r->prefix_rewrite.n && !r->regex_rewrite.regex)
                return;
        req->path = rewritten(r, req->arena, old, r->prefix_rewrite.n != 0, r->prefix_rewrite, &r->regex_rewrite);
        if (!req->path.n || req->path.p[0] != '/')
                req->path = arena_printf(req->arena, "/" STR_FMT, STR_ARG(req->path));
        if (envoy_headers)
                http_set(req, HN_X_ENVOY_ORIGINAL_PATH, old);
}

static void rewrite_host(const struct route_pick *p, struct http_head *req)
{
        const struct route *r = p->route;
        struct str v;

        if (p->weighted && p->weighted->host_literal.n) {
                route_set_authority(req, p->weighted->host_literal, r->append_x_forwarded_host);
                return;
        }
        switch (r->host_kind) {
        case ROUTE_HOST_LITERAL:
                route_set_authority(req, r->host, r->append_x_forwarded_host);
                break;
        case ROUTE_HOST_HEADER: {
                struct http_hdr *h = http_get_name(req, r->host);

                if (h && h->value.n)
                        route_set_authority(req, h->value, r->append_x_forwarded_host);
                break;
        }
        case ROUTE_HOST_PATH_REGEX:
                v = regex_replace_all(r->host_regex.regex, path_only(req->path), r->host_regex.substitution, req->arena);
                route_set_authority(req, v, r->append_x_forwarded_host);
                break;
        case ROUTE_HOST_AUTO:
        case ROUTE_HOST_KEEP:
                break;
        }
}

static void mutate(const struct route_table *t, const struct route_pick *p, struct http_head *m, const struct stream_info *si, bool request)
{
        const struct header_ops *v[4];
        unsigned n = 0;

        /* The least specific wins by coming last, unless most_specific_header_mutations_wins. */
        if (p->weighted)
                v[n++] = request ? &p->weighted->request : &p->weighted->response;
        v[n++] = request ? &p->route->request : &p->route->response;
        v[n++] = request ? p->route->vhost->request : p->route->vhost->response;
        v[n++] = request ? &t->request : &t->response;
        for (unsigned i = 0; i < n; i++) {
                const struct header_ops *o = v[t->most_specific_wins ? n - 1 - i : i];

                if (o->nadd || o->nremove)
                        header_ops_apply(o, m, si);
        }
}

void route_finalize_request(const struct route_table *t, const struct route_pick *p, struct http_head *req, const struct stream_info *si,
                            bool envoy_headers)
{
        mutate(t, p, req, si, true);
        rewrite_host(p, req);
        rewrite_path(p->route, req, envoy_headers);
}

void route_finalize_response(const struct route_table *t, const struct route_pick *p, struct http_head *resp, const struct stream_info *si)
{
        mutate(t, p, resp, si, false);
}

/* The request's host for a Location: without a port that a new scheme or port makes wrong. */
static struct str redirect_host(struct http_head *req, struct str scheme, bool new_port)
{
        const struct http_hdr *proto = http_get(req, HN_X_FORWARDED_PROTO);
        unsigned port;
        struct str host = host_without_port(req->authority, &port);
        bool drop = new_port;

        if (!port)
                return req->authority;
        if (proto && !str_eq(scheme, proto->value))
                drop |= (str_eqc(proto->value, "https") && port == 443) || (str_eqc(proto->value, "http") && port == 80);
        return drop ? host : req->authority;
}

struct str route_redirect_uri(const struct route *r, struct http_head *req)
{
        const struct route_redirect *d = &r->redirect;
        struct str scheme = d->scheme.n ? d->scheme : req->scheme, host, path;
        char port[16] = "";

        if (!scheme.n)
                scheme = STR("http");
        host = d->host.n ? d->host : redirect_host(req, scheme, d->port != 0);
        if (d->port)
                snprintf(port, sizeof(port), ":%u", d->port);
        path = req->path;
        if (d->path.n) {
                ptrdiff_t q = str_chr(path, '?');

                if (d->path_has_query || q < 0)
                        path = d->path;
                else
                        path = arena_printf(req->arena, STR_FMT STR_FMT, STR_ARG(d->path), STR_ARG(str_sub(path, (size_t)q, path.n)));
        } else {
                path = rewritten(r, req->arena, path, d->has_prefix_rewrite, d->prefix_rewrite, &d->regex);
        }
        if (d->strip_query && !d->path_has_query) {
                ptrdiff_t q = str_chr(path, '?');

                if (q >= 0)
                        path.n = (size_t)q;
        }
        return arena_printf(req->arena, STR_FMT "://" STR_FMT "%s" STR_FMT, STR_ARG(scheme), STR_ARG(host), port, STR_ARG(path));
}
