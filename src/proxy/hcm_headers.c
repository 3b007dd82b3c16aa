/* What happens to a head at the edge: who the client is, what it may claim about itself, and what the next hop is told
 * (Envoy's "HTTP header sanitizing"). The request's headers are walked once to learn and once to clean; nothing is formatted that is not
 * sent. */
#include "proxy/hcm.h"

#include "base/hash.h"
#include "net/tls.h"
#include "proxy/path.h"

#include <stdio.h>

enum {
        CLEAN_ALWAYS = 1,   /* hop-by-hop, and what only we may say */
        CLEAN_EXTERNAL = 2, /* from clients that are not internal */
        CLEAN_EDGE = 4,     /* from external clients at the first hop */
        CLEAN_NOT_UPGRADE = 8,
};

static const uint8_t clean_id[HN_COUNT] = {
        [HN_CONNECTION] = CLEAN_NOT_UPGRADE,
        [HN_UPGRADE] = CLEAN_NOT_UPGRADE,
        [HN_KEEP_ALIVE] = CLEAN_ALWAYS,
        [HN_PROXY_CONNECTION] = CLEAN_ALWAYS,
        [HN_TRANSFER_ENCODING] = CLEAN_ALWAYS,
        [HN_X_ENVOY_INTERNAL] = CLEAN_ALWAYS,
        [HN_X_ENVOY_DECORATOR_OPERATION] = CLEAN_EDGE,
        [HN_X_ENVOY_ORIGINAL_PATH] = CLEAN_EDGE,
        [HN_X_ENVOY_RETRY_ON] = CLEAN_EXTERNAL,
        [HN_X_ENVOY_MAX_RETRIES] = CLEAN_EXTERNAL,
        [HN_X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS] = CLEAN_EXTERNAL,
        [HN_X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS] = CLEAN_EXTERNAL,
        [HN_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS] = CLEAN_EXTERNAL,
};

static const struct {
        const char *name; /* after "x-envoy-" */
        uint8_t when;
} clean_name[] = {
        { "downstream-service-cluster", CLEAN_EDGE },
        { "downstream-service-node", CLEAN_EDGE },
        { "retriable-status-codes", CLEAN_EXTERNAL },
        { "retriable-header-names", CLEAN_EXTERNAL },
        { "retry-grpc-on", CLEAN_EXTERNAL },
        { "upstream-alt-stat-name", CLEAN_EXTERNAL },
        { "upstream-rq-timeout-alt-response", CLEAN_EXTERNAL },
        { "force-trace", CLEAN_EXTERNAL },
        { "ip-tags", CLEAN_EXTERNAL },
        { "original-url", CLEAN_EXTERNAL },
        { "hedge-on-per-try-timeout", CLEAN_EXTERNAL },
};

struct seen {
        unsigned referers;
        bool te, expect, underscore, force_trace;
        struct http_hdr *xff, *xfp;
        unsigned nxff;
};

static void look(struct http_head *m, struct seen *s)
{
        memset(s, 0, sizeof(*s));
        for (unsigned i = 0; i < m->n; i++) {
                struct http_hdr *h = &m->h[i];

                switch (h->id) {
                case HN_OTHER:
                        s->underscore |= str_chr(h->name, '_') >= 0;
                        s->force_trace |= str_eqc(h->name, "x-envoy-force-trace");
                        break;
                case HN_REFERER:
                        s->referers++;
                        break;
                case HN_TE:
                        s->te = true;
                        break;
                case HN_EXPECT:
                        s->expect = true;
                        break;
                case HN_X_FORWARDED_FOR:
                        if (!s->xff)
                                s->xff = h;
                        s->nxff++;
                        break;
                case HN_X_FORWARDED_PROTO:
                        if (!s->xfp)
                                s->xfp = h;
                        break;
                default:
                        break;
                }
        }
}

/* Several lines are one list (RFC 9110 §5.3). */
static void join_xff(struct http_head *m, struct seen *s)
{
        struct str v;

        if (s->nxff < 2)
                return;
        header_value(m, STR("x-forwarded-for"), HN_X_FORWARDED_FOR, m->arena, &v);
        http_set(m, HN_X_FORWARDED_FOR, v);
        s->xff = http_get(m, HN_X_FORWARDED_FOR);
        s->xfp = http_get(m, HN_X_FORWARDED_PROTO);
}

/* The address `skip` places from the end of the list. *only: it is the whole list. */
static bool xff_address(const struct http_hdr *h, unsigned skip, struct addr *a, bool *only)
{
        struct str v;
        ptrdiff_t comma;

        if (!h)
                return false;
        v = h->value;
        for (unsigned i = 0; i < skip; i++) {
                comma = str_rchr(v, ',');
                if (comma < 0)
                        return false;
                v.n = (size_t)comma;
        }
        comma = str_rchr(v, ',');
        if (comma >= 0)
                v = str_sub(v, (size_t)comma + 1, v.n);
        *only = comma < 0 && !skip;
        v = str_trim(v);
        return addr_parse_ip(a, v, 0);
}

static bool is_internal(const struct hcm_config *c, const struct addr *a)
{
        if (a->sa.sa_family == AF_UNIX)
                return c->internal_unix;
        if (c->internal_private && addr_is_private(a))
                return true;
        for (size_t i = 0; i < c->ninternal; i++)
                if (cidr_has(&c->internal[i], a))
                        return true;
        return false;
}

static struct str ip_text(struct arena *a, const struct addr *addr)
{
        char text[ADDR_TEXT_MAX];

        return arena_str(a, str_make(text, addr_ip_text(addr, text)));
}

static void append_xff(struct hcm_stream *s, struct seen *seen, const struct addr *from)
{
        struct str ip;

        if (from->sa.sa_family != AF_INET && from->sa.sa_family != AF_INET6)
                return;
        ip = addr_is_loopback(from) ? s->cfg->server_address : ip_text(s->arena, from);
        if (seen->xff && seen->xff->value.n)
                seen->xff->value = arena_printf(s->arena, STR_FMT "," STR_FMT, STR_ARG(seen->xff->value), STR_ARG(ip));
        else
                http_set(s->req, HN_X_FORWARDED_FOR, ip);
}

/* Who the client is, and whether it may be believed. */
static void client(struct hcm_stream *s, struct seen *seen)
{
        const struct hcm_config *c = s->cfg;
        const struct conn_info *ci = &s->hc->d->info;
        const struct addr *final = NULL;
        bool trusted = false, only = false, tls = ci->tls != NULL;

        if (c->use_remote_address) {
                trusted = !seen->xff;
                if (c->xff_trusted_hops && xff_address(seen->xff, c->xff_trusted_hops - 1, &s->remote, &only))
                        final = &s->remote;
                if (!final)
                        final = ci->remote;
                if (!c->skip_xff_append)
                        append_xff(s, seen, ci->remote);
                if (!c->xff_trusted_hops || !http_get(s->req, HN_X_FORWARDED_PROTO))
                        http_set(s->req, HN_X_FORWARDED_PROTO, tls ? STR("https") : STR("http"));
                if (c->append_x_forwarded_port && (!c->xff_trusted_hops || !http_get(s->req, HN_X_FORWARDED_PORT)))
                        http_set(s->req, HN_X_FORWARDED_PORT, arena_printf(s->arena, "%u", addr_port(ci->local)));
        } else {
                if (xff_address(seen->xff, c->xff_trusted_hops, &s->remote, &only)) {
                        final = &s->remote;
                        trusted = only;
                }
                if (!seen->xfp)
                        http_add(s->req, HN_X_FORWARDED_PROTO, tls ? STR("https") : STR("http"));
        }
        s->internal = trusted && final && is_internal(c, final);
        s->edge = !s->internal && c->use_remote_address;
        if (!final)
                final = ci->remote;
        s->si.remote = final;
}

static bool cleaned(const struct hcm_stream *s, const struct http_hdr *h, unsigned when, bool drop_underscores)
{
        unsigned flags = clean_id[h->id];

        if (h->id == HN_OTHER) {
                if (drop_underscores && str_chr(h->name, '_') >= 0)
                        return true;
                if (h->name.n > 8 && memcmp(h->name.p, "x-envoy-", 8) == 0)
                        for (size_t i = 0; i < sizeof(clean_name) / sizeof(clean_name[0]); i++)
                                if (str_eqc(str_sub(h->name, 8, h->name.n), clean_name[i].name))
                                        flags = clean_name[i].when;
        }
        if (flags & when)
                return true;
        if ((when & CLEAN_EXTERNAL) && s->table)
                for (size_t i = 0; i < s->table->ninternal_only; i++)
                        if (str_eq(h->name, s->table->internal_only[i]))
                                return true;
        return false;
}

static void clean(struct hcm_stream *s)
{
        struct http_head *m = s->req;
        unsigned when = CLEAN_ALWAYS, n = 0;
        bool underscores = s->cfg->underscores == HCM_UNDERSCORES_DROP;

        if (!m->protocol.n)
                when |= CLEAN_NOT_UPGRADE;
        if (!s->internal)
                when |= CLEAN_EXTERNAL;
        if (s->edge)
                when |= CLEAN_EDGE;
        for (unsigned i = 0; i < m->n; i++)
                if (!cleaned(s, &m->h[i], when, underscores)) {
                        if (n != i)
                                m->h[n] = m->h[i];
                        n++;
                }
        m->n = n;
}

/* Only "trailers" concerns the next hop. */
static void clean_te(struct http_head *m)
{
        struct str v, part;
        bool trailers = false;

        if (!header_value(m, STR("te"), HN_TE, m->arena, &v))
                return;
        while (str_next(&v, ',', &part)) {
                ptrdiff_t semi = str_chr(part, ';');

                if (semi >= 0)
                        part.n = (size_t)semi;
                trailers |= str_eq_nocase(str_trim(part), STR("trailers"));
        }
        if (trailers)
                http_set(m, HN_TE, STR("trailers"));
        else
                http_remove(m, HN_TE);
}

static void clean_referer(struct http_head *m, unsigned count)
{
        struct str v = http_get(m, HN_REFERER)->value;
        ptrdiff_t sep = str_find(v, STR("://"));
        bool ok = count == 1 && sep > 0 && (size_t)sep + 3 < v.n && v.p[sep + 3] != '/';

        for (ptrdiff_t i = 0; ok && i < sep; i++)
                ok = ascii_lower(v.p[i]) >= 'a' && ascii_lower(v.p[i]) <= 'z';
        if (!ok)
                http_remove(m, HN_REFERER);
}

static void request_id(struct hcm_stream *s)
{
        struct http_hdr *h = http_get(s->req, HN_X_REQUEST_ID);

        if (s->cfg->generate_request_id && (!h || !h->value.n || (s->edge && !s->cfg->preserve_external_request_id))) {
                char *uuid = arena_alloc(s->arena, 37);

                rand_uuid4(uuid);
                http_set(s->req, HN_X_REQUEST_ID, str_make(uuid, 36));
                s->si.stream_id = str_make(uuid, 36);
        } else if (h) {
                s->si.stream_id = h->value;
        }
}

static void scheme(struct hcm_stream *s)
{
        struct http_head *m = s->req;
        struct http_hdr *xfp;

        if (s->cfg->scheme_overwrite.n) {
                m->scheme = s->cfg->scheme_overwrite;
                http_set(m, HN_X_FORWARDED_PROTO, m->scheme);
        }
        if (m->scheme.n)
                return;
        xfp = http_get(m, HN_X_FORWARDED_PROTO);
        if (xfp && (str_eqc(xfp->value, "http") || str_eqc(xfp->value, "https")))
                m->scheme = xfp->value;
        else
                m->scheme = s->hc->d->info.tls ? STR("https") : STR("http");
}

static void redirect_location(struct hcm_stream *s, struct http_head *resp)
{
        http_add(resp, HN_LOCATION, s->req->path);
}

static enum hcm_verdict answer(struct hcm_stream *s, int status, const char *details, uint32_t flags)
{
        hcm_local_reply(s, status, STR(""), str_of(details), flags, NULL);
        return HCM_ANSWER;
}

/* A client that sends such paths is not to be trusted with the connection. */
static enum hcm_verdict bad_path(struct hcm_stream *s)
{
        hcm_stat(s, HCM_DS_RQ_FAILED_PATH_NORMALIZATION);
        if (s->req->version != HTTP_2)
                hcm_conn_drain(s->hc);
        return answer(s, 400, "path_normalization_failed", 0);
}

static enum hcm_verdict path(struct hcm_stream *s)
{
        const struct hcm_config *c = s->cfg;
        struct http_head *m = s->req;
        bool unescaped = false;

        if (!m->path.n)
                return str_eqc(m->method, "CONNECT") ? HCM_GO_ON : answer(s, 404, "missing_path_rejected", 0);
        if (m->path.p[0] != '/') {
                hcm_stat(s, HCM_DS_RQ_NON_RELATIVE_PATH);
                return answer(s, 404, "absolute_path_rejected", 0);
        }
        if (c->slashes != HCM_SLASHES_KEEP && path_has_escaped_slashes(m->path)) {
                m->path = path_unescape_slashes(s->arena, m->path);
                if (c->slashes == HCM_SLASHES_REJECT)
                        return bad_path(s);
                unescaped = true;
        }
        if (c->normalize_path) {
                struct str n;

                if (!path_normalize(s->arena, m->path, &n))
                        return bad_path(s);
                m->path = n;
        }
        if (c->merge_slashes)
                m->path = path_merge_slashes(s->arena, m->path);
        if (unescaped && c->slashes == HCM_SLASHES_REDIRECT) {
                hcm_stat(s, HCM_DS_RQ_REDIRECTED_NORMALIZED_PATH);
                hcm_local_reply(s, 307, STR(""), STR("path_normalization_failed"), 0, redirect_location);
                return HCM_ANSWER;
        }
        return HCM_GO_ON;
}

static void host(struct hcm_stream *s)
{
        const struct hcm_config *c = s->cfg;
        struct http_head *m = s->req;
        struct str bare;
        unsigned port;

        if (!c->strip_any_port && !c->strip_matching_port && !c->strip_trailing_dot)
                return;
        bare = host_without_port(m->authority, &port);
        if (c->strip_trailing_dot && bare.n > 1 && bare.p[bare.n - 1] == '.') {
                struct str tail = str_sub(m->authority, bare.n, m->authority.n);

                bare.n--;
                m->authority = tail.n ? arena_printf(s->arena, STR_FMT STR_FMT, STR_ARG(bare), STR_ARG(tail)) : bare;
                bare = host_without_port(m->authority, &port);
        }
        if (port && !str_eqc(m->method, "CONNECT") &&
            (c->strip_any_port || (c->strip_matching_port && port == addr_port(s->hc->d->info.local))))
                m->authority = bare;
}

/* Envoy's codecs refuse it before the request exists: the log shows none. */
static enum hcm_verdict underscore(struct hcm_stream *s)
{
        bool h2 = s->req->version == HTTP_2;

        s->si.request = NULL;
        if (!h2)
                hcm_conn_drain(s->hc);
        hcm_local_reply(s, 400, STR("Bad Request"), h2 ? STR("http2.unexpected_underscore") : STR("http1.unexpected_underscore"), RF_DPE,
                        NULL);
        return HCM_ANSWER;
}

enum hcm_verdict hcm_request_headers(struct hcm_stream *s)
{
        const struct hcm_config *c = s->cfg;
        struct http_head *m = s->req;
        struct seen seen;

        look(m, &seen);
        if (seen.underscore && c->underscores == HCM_UNDERSCORES_REJECT)
                return underscore(s);
        if (seen.expect && !c->proxy_100_continue && str_eq_nocase(http_get(m, HN_EXPECT)->value, STR("100-continue"))) {
                struct http_head go;

                http_head_init(&go, s->arena);
                go.status = 100;
                http_send_head(s->ds, &go, false);
                http_remove(m, HN_EXPECT);
        }
        if (!m->authority.n)
                return answer(s, 400, "missing_host_header", RF_DPE);
        if (path(s) == HCM_ANSWER)
                return HCM_ANSWER;
        host(s);
        if (seen.referers)
                clean_referer(m, seen.referers);
        if (seen.te && !m->protocol.n)
                clean_te(m);
        look(m, &seen);
        join_xff(m, &seen);
        client(s, &seen);
        clean(s);
        s->request_id_in_response = c->request_id_in_response || (seen.force_trace && s->internal);
        if (s->internal)
                http_add(m, HN_X_ENVOY_INTERNAL, STR("true"));
        if (c->user_agent.n) {
                struct http_hdr *ua = http_get(m, HN_USER_AGENT);

                http_set_name(m, STR("x-envoy-downstream-service-cluster"), c->user_agent);
                if (!ua || !ua->value.n)
                        http_set(m, HN_USER_AGENT, c->user_agent);
        }
        if (c->via.n) {
                struct http_hdr *v = http_get(m, HN_VIA);

                if (v)
                        v->value = arena_printf(s->arena, STR_FMT ", " STR_FMT, STR_ARG(v->value), STR_ARG(c->via));
                else
                        http_add(m, HN_VIA, c->via);
        }
        if (s->edge && s->si.remote->sa.sa_family != AF_UNIX)
                http_set(m, HN_X_ENVOY_EXTERNAL_ADDRESS, ip_text(s->arena, s->si.remote));
        request_id(s);
        scheme(s);
        return HCM_GO_ON;
}

void hcm_response_headers(struct hcm_stream *s, struct http_head *m, bool interim)
{
        const struct hcm_config *c = s->cfg;
        unsigned n = 0;

        for (unsigned i = 0; i < m->n; i++) {
                unsigned f = clean_id[m->h[i].id];

                if (m->h[i].id && m->h[i].id != HN_X_ENVOY_INTERNAL &&
                    ((f & CLEAN_ALWAYS) || ((f & CLEAN_NOT_UPGRADE) && m->status != 101)))
                        continue;
                if (n != i)
                        m->h[n] = m->h[i];
                n++;
        }
        m->n = n;
        if (interim)
                return;
        if (!http_get(m, HN_DATE))
                http_add(m, HN_DATE, hcm_http_date(s));
        if (c->server_header == HCM_SERVER_OVERWRITE || (c->server_header == HCM_SERVER_APPEND_IF_ABSENT && !http_get(m, HN_SERVER)))
                http_set(m, HN_SERVER, c->server_name);
        if (s->request_id_in_response) {
                struct http_hdr *h = http_get(s->req, HN_X_REQUEST_ID);

                if (h)
                        http_set(m, HN_X_REQUEST_ID, h->value);
        }
        if (c->via.n) {
                struct http_hdr *v = http_get(m, HN_VIA);

                if (v)
                        v->value = arena_printf(s->arena, STR_FMT ", " STR_FMT, STR_ARG(v->value), STR_ARG(c->via));
                else
                        http_add(m, HN_VIA, c->via);
        }
}

/* One allocation for the array, one for all the bytes. Known names are static and are not copied. */
struct http_head *hcm_copy_head(struct arena *a, const struct http_head *m)
{
        struct http_head *c = arena_dup(a, m, sizeof(*m));
        size_t bytes = m->protocol.n;
        char *p;

        c->arena = a;
        c->cap = m->n + 8;
        c->h = arena_alloc(a, c->cap * sizeof(*c->h));
        for (unsigned i = 0; i < m->n; i++)
                bytes += m->h[i].value.n + (m->h[i].id ? 0 : m->h[i].name.n);
        p = arena_alloc(a, bytes + 1);
        for (unsigned i = 0; i < m->n; i++) {
                struct http_hdr *h = &c->h[i];

                *h = m->h[i];
                if (h->id) {
                        h->name = http_name_text(h->id);
                } else {
                        memcpy(p, h->name.p, h->name.n);
                        h->name.p = p;
                        p += h->name.n;
                }
                memcpy(p, h->value.p, h->value.n);
                h->value.p = p;
                p += h->value.n;
        }
        if (m->protocol.n) {
                memcpy(p, m->protocol.p, m->protocol.n);
                c->protocol.p = p;
        }
        return c;
}
