/* Shared by the files of translate; nobody else includes it. */
#ifndef TRANSLATE_INTERNAL_H
#define TRANSLATE_INTERNAL_H

#include "translate/make.h"
#include "translate/translate.h"

#define LABEL_CANONICAL_NAME     "service.istio.io/canonical-name"
#define LABEL_CANONICAL_REVISION "service.istio.io/canonical-revision"

/* --- Cache ------------------------------------------------------------------------------------------------------------------------ */

/* A part is a packed message that goes into a repeated field of a larger one (a virtual host, a filter chain), or a whole resource. Both
 * are struct translate_resource; its name matters only for resources. */

struct key { /* what a part is made from: versions and a few strings, hashed into a fixed size */
        uint64_t v[12];
        size_t n;
        char kind;
};

void key_init(struct key *k, char kind);
void key_u64(struct key *k, uint64_t v);
void key_str(struct key *k, struct str s);
void key_identity(struct key *k, const struct translate_proxy *p); /* what the HTTP connection manager says about itself */

/* Parts in use by one scope (or one proxy): what keeps them in the cache. */
struct parts {
        struct translate_resource **v;
        size_t n, cap;
};

void parts_fini(struct parts *p);

struct translator {
        struct strmap cache;   /* key -> struct translate_resource, one reference */
        struct strmap scopes;  /* who sees the same -> struct scope */
        struct common *common; /* of the current mesh configuration */
        uint64_t round;        /* of translator_sweep() */
        uint64_t label_stamp;
        bool by_labels; /* under label_stamp: some resource selects proxies by their labels */
        struct buf buf;
        size_t sweep_at; /* number of parts */
        struct translator_stats stats;
};

/* The cached part, added to `into`; NULL when it must be made. */
struct translate_resource *cache_get(struct translator *t, const struct key *k, struct parts *into);
/* Packs `message`, caches it under `k` and adds it to `into`. */
struct translate_resource *cache_put(struct translator *t, const struct key *k, const char *name, const void *message, struct parts *into);
/* Forgets parts that nobody uses; unless `now`, only when there are many more than after the last time. */
void cache_sweep(struct translator *t, bool now);
/* A resource with `parts` in the repeated field number `field`: `head` holds the fields before it, `tail` those behind. Reused as long as
 * the pieces are the same. */
struct translate_resource *cache_join(struct translator *t, const char *name, const void *head, unsigned field, const struct parts *parts,
                                      const void *tail, struct parts *into);

/* --- What proxies share ------------------------------------------------------------------------------------------------------------ */

/* Messages that many parts contain, made once per mesh configuration. Read-only: parts point into it. */
struct common {
        struct arena arena;
        uint64_t version; /* of the configuration */
        Xds__AccessLog **access_log, **nr_access_log;
        size_t naccess_log; /* 0 or 1 */
        Xds__Filter *peer_exchange;
        XdsC__Filter **upstream_filters; /* one */
        Xds__CircuitBreakers *no_limits;
        Xds__TypedExtensionConfig *dns_resolver;
        Xds__RetryPolicy *retry; /* the default one */
        Xds__ConfigSource *ads;
        Xds__HttpFilter **http_out, **http_in; /* the HTTP filters of both sides */
        size_t nhttp_out, nhttp_in;
        Xds__ListenerFilter *tls_inspector, *http_inspector;
};

struct common *common_new(const struct mesh_config *config);
void common_free(struct common *c);

struct seen { /* one host that the proxies of a scope see */
        struct mesh_service *svc;
        const struct mesh_vs *vs; /* the VirtualService in force for it inside the mesh, or NULL */
};

struct use {                        /* a port of such a host */
        uint32_t port, seen, index; /* index: into svc->ports */
};

/* Proxies that see the same and are of the same kind: one set of outbound resources for all of them. */
struct scope {
        struct arena arena;           /* of `proxy` */
        struct translate_proxy proxy; /* one of them; its ip and id mean nothing here */
        struct mesh_snapshot *snap;   /* of the last build */
        uint64_t round;               /* of the last use */

        struct arena view_arena; /* of what follows */
        uint64_t view_stamp;
        bool allow_any;
        struct str policy; /* "meshConfig.outboundTrafficPolicy.mode", or that of a Sidecar */
        struct seen *seen; /* by host */
        size_t nseen;
        struct use *uses; /* by port, then host */
        size_t nuses;
        const struct mesh_vs **lone; /* VirtualServices with hosts that are in no registry */
        struct str *lone_host;
        size_t nlone;
        bool by_endpoints; /* some listener depends on endpoints (headless TCP services) */

        uint64_t stamp[TRANSLATE_TYPES];
        struct parts res[TRANSLATE_TYPES];   /* the resources, by name */
        struct parts parts[TRANSLATE_TYPES]; /* what they were joined from */
};

/* Everything that a maker needs. */
struct build {
        struct translator *t;
        struct scope *scope;
        struct mesh_snapshot *snap;
        const struct mesh_config *config;
        const struct translate_proxy *proxy;
        const struct common *common;
        struct diags *diags;  /* may be NULL */
        struct arena scratch; /* of one part at a time */
};

enum { ROUTES_MAX = 4096 }; /* of one virtual host */

void build_warn(const struct build *b, const struct mesh_meta *about, const char *path, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));
void scope_view(struct build *b);                                        /* (re)computes what the scope sees */
struct seen *scope_find(const struct scope *s, struct str host);         /* or NULL */
bool gateway_listed(const struct str *names, size_t n, struct str name); /* empty list: yes */

/* --- Makers: each adds to scope->res[type] (and ->parts[type]) or to what it is given ----------------------------------------------- */

struct own_port { /* a port of the proxy's own workload */
        const struct mesh_service *svc;
        const struct mesh_port *port;
        uint32_t target;
        struct mesh_service **all; /* every Service with this target port; svc is the first */
        size_t nall;
};

/* In order of target port; at most one each. */
struct own_port *own_ports(const struct build *b, struct arena *a, size_t *n);
uint32_t own_target(const struct build *b, const struct mesh_port *port); /* 0: a name that no container has */

char *cluster_name(struct arena *a, const char *direction, uint32_t port, struct str subset, struct str host);
void clusters_outbound(struct build *b);
void clusters_inbound(struct build *b, const struct own_port *own, size_t n, struct parts *res);
void endpoints_outbound(struct build *b);
void listeners_outbound(struct build *b); /* sidecars */
/* Does this port get listeners of its own addresses rather than a share in the one for any address? */
bool listens_apart(const struct mesh_service *svc, enum mesh_protocol p);
void keep_parts(struct parts *to, struct parts *from); /* moves */
void listener_inbound(struct build *b, const struct own_port *own, size_t n, struct parts *res);
void routes_outbound(struct build *b);
void listeners_gateway(struct build *b); /* routers */
void routes_gateway(struct build *b);
Xds__FilterChain *chain_new(struct arena *a);
/* The address for all connections of the proxy's families: "0.0.0.0" and, as an additional one, "::". */
const char *any_address(const struct build *b);
void also_ipv6(const struct build *b, struct arena *a, Xds__Listener *l, uint32_t port);
void chain_match(struct arena *a, Xds__FilterChain *c, const struct str *sni, size_t nsni, const struct str *ranges, size_t nranges);
/* The endpoints of a service's port for a subset (NULL: all), grouped by locality. */
Xds__ClusterLoadAssignment *endpoints_inline(const struct build *b, struct arena *a, const char *name, const struct mesh_service *svc,
                                             const struct mesh_port *port, const struct mesh_subset *subset);

/* Filters and what goes into them (filter.c). */
Xds__Filter *filter_tcp(const struct build *b, struct arena *a, const char *stat_prefix, const char *cluster, bool log, int64_t idle_us);
Xds__Filter *filter_tcp_routed(const struct build *b, struct arena *a, const struct mesh_destination *d, size_t n, uint32_t listen_port,
                               const struct mesh_meta *from);
enum hcm_side { HCM_OUTBOUND, HCM_INBOUND, HCM_GATEWAY };
Xds__Filter *filter_hcm(const struct build *b, struct arena *a, enum hcm_side side, const char *stat_prefix, const char *rds,
                        Xds__RouteConfiguration *routes);
void filter_list(struct arena *a, Xds__FilterChain *c, Xds__Filter *first, Xds__Filter *second); /* second may be NULL */
/* Why nothing is behind a connection or a request; port 0: any. */
struct str reason_tcp(const struct build *b, struct arena *a, uint32_t port, bool by_name);
struct str reason_http(const struct build *b, struct arena *a, uint32_t port);

/* Routes of one VirtualService (route.c). */
struct route_query {
        struct str gateway; /* "mesh", or "namespace/name" */
        uint32_t port;      /* as a match names it: the service's, or the Gateway server's */
};
size_t routes_of(const struct build *b, struct arena *a, const struct mesh_vs *vs, const struct route_query *q, Xds__Route **out,
                 size_t max);
Xds__Route *route_default(const struct build *b, struct arena *a, const struct mesh_service *svc, uint32_t port);
Xds__Route *route_all_to(const struct build *b, struct arena *a, const char *name, char *cluster); /* no retries */
Xds__Route *route_all_refused(struct arena *a, const char *name, uint32_t status);
uint32_t destination_port(const struct build *b, const struct mesh_destination *d, uint32_t listen_port);
/* Does an L4 match concern this proxy, gateway and port? */
bool l4_match_applies(const struct build *b, const struct mesh_l4_match *m, const struct route_query *q);
/* What the routes of a VirtualService depend on besides the VirtualService itself, for cache keys. */
void key_destinations(const struct build *b, struct key *k, const struct mesh_vs *vs);
Xds__VirtualHost *vhost_make(struct arena *a, const char *name, struct str *domains, size_t n);
Xds__RouteConfiguration *route_config_tail(struct arena *a);

#endif
