/* Names: hosts with wildcards, short names, labels, visibility. Istio's rules, which decide whether two resources mean the same thing:
 * a mistake here is a rule that silently never applies. */
#include "mesh/mesh.h"

bool mesh_labels_match(const struct mesh_labels *want, const struct mesh_labels *have)
{
        size_t j = 0;

        for (size_t i = 0; i < want->n; i++) {
                while (j < have->n && str_cmp(have->v[j].key, want->v[i].key) < 0)
                        j++;
                if (j == have->n || !str_eq(have->v[j].key, want->v[i].key) || !str_eq(have->v[j].value, want->v[i].value))
                        return false;
        }
        return true;
}

struct str mesh_labels_get(const struct mesh_labels *l, const char *key)
{
        struct str k = str_of(key);

        for (size_t i = 0; i < l->n; i++)
                if (str_eq(l->v[i].key, k))
                        return l->v[i].value;
        return (struct str){ 0 };
}

bool mesh_export_visible(const struct mesh_export *e, struct str owner_ns, struct str ns)
{
        if (e->nobody)
                return false;
        if (e->everyone || (e->own && str_eq(owner_ns, ns)))
                return true;
        for (size_t i = 0; i < e->n; i++)
                if (str_eq(e->v[i], ns))
                        return true;
        return false;
}

bool mesh_host_covers(struct str pattern, struct str host)
{
        if (pattern.n == 0 || host.n == 0)
                return false;
        if (pattern.p[0] != '*')
                return str_eq(pattern, host);
        if (pattern.n == 1)
                return true;
        /* "*.a.b" covers "x.a.b", "x.y.a.b", "*.x.a.b" and itself, not "a.b". */
        if (host.p[0] == '*')
                return host.n >= pattern.n && str_ends(str_sub(host, 1, host.n), str_sub(pattern, 1, pattern.n));
        return host.n >= pattern.n && str_ends(host, str_sub(pattern, 1, pattern.n));
}

struct str mesh_host_resolve(struct str host, struct str ns, struct str domain, struct arena *a)
{
        if (host.n == 0 || str_chr(host, '.') >= 0 || str_eqc(host, "*"))
                return arena_str(a, host);
        return arena_printf(a, STR_FMT "." STR_FMT ".svc." STR_FMT, STR_ARG(host), STR_ARG(ns), STR_ARG(domain));
}

static const struct {
        const char *name;
        enum mesh_protocol protocol;
} protocols[] = {
        { "HTTP", MESH_HTTP },   { "HTTP2", MESH_HTTP2 }, { "GRPC", MESH_GRPC }, { "GRPC-WEB", MESH_GRPC_WEB },
        { "HTTPS", MESH_HTTPS }, { "TLS", MESH_TLS },     { "TCP", MESH_TCP },   { "UDP", MESH_UDP },
        { "MONGO", MESH_TCP },   { "MYSQL", MESH_TCP },   { "REDIS", MESH_TCP },
};

enum mesh_protocol mesh_protocol_parse(struct str name)
{
        for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
                if (str_eq_nocase(name, str_of(protocols[i].name)))
                        return protocols[i].protocol;
        return MESH_AUTO;
}

const char *mesh_protocol_name(enum mesh_protocol p)
{
        for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
                if (protocols[i].protocol == p)
                        return protocols[i].name;
        return "unsupported";
}
