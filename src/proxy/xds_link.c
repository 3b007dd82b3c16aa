/* Discovery. One ADS client for what comes by ADS, one file source a file. Their updates end in the same functions.
 *
 * An update is taken resource by resource, as Envoy does: a bad one is refused by name and its last good version stays; the good ones
 * beside it count. The text of the refusal names the resource and the field, because that is all that the person behind the control plane
 * sees. */
#include "proxy/xds_link.h"

#include "base/log.h"
#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/cluster_manager.h"
#include "proxy/ext.h"
#include "proxy/listener_manager.h"
#include "proxy/rds_manager.h"

#include "envoy/bootstrap.pb-c.h"
#include "envoy/cluster.pb-c.h"
#include "envoy/core.pb-c.h"
#include "envoy/endpoint.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "envoy/route.pb-c.h"
#include "google/any.pb-c.h"
#include "google/wrappers.pb-c.h"

#include <stdlib.h>

enum { TARGETS_MAX = 16, FILES_MAX = 64 };

enum { XS_ATTEMPT, XS_FAILURE, XS_REJECTED, XS_SUCCESS, XS_COUNT };

static const struct stat_def xds_defs[XS_COUNT] = {
        { "update_attempt", STAT_COUNTER },
        { "update_failure", STAT_COUNTER },
        { "update_rejected", STAT_COUNTER },
        { "update_success", STAT_COUNTER },
};

struct file_source {
        struct xds_link *x;
        enum xds_type type;
        char *path;
        struct xds_file *file;
        unsigned users;
        struct xds_sink sink;
};

struct source { /* of CDS or LDS */
        enum { SOURCE_NONE, SOURCE_ADS, SOURCE_FILE } kind;
        const char *path, *dir;
        unsigned timeout_ms;
        bool heard;
        char *version;
};

struct xds_link {
        struct server *server;
        struct arena arena;
        struct xds_client *client;
        struct xds_client_opts opts;
        struct str targets[TARGETS_MAX];
        struct xds_sink sink;
        struct source cds, lds;
        bool lds_asked;
        struct file_source *files[FILES_MAX];
        unsigned nfiles;
        struct stat_scope *cds_stats, *lds_stats;
};

/* Updates. */

static struct diag_at resource_at(struct arena *a, enum xds_type t, struct str name)
{
        static const char *const kinds[] = { "Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration", "Secret" };

        return (struct diag_at){ .resource = arena_printf(a, "%s " STR_FMT, kinds[t], STR_ARG(name)) };
}

static void apply_clusters(struct xds_link *x, struct xds_update *u, struct arena *a, struct diags *d)
{
        struct cluster_manager *m = x->server->clusters;
        struct strmap keep = STRMAP_INIT;
        struct str *gone = NULL;
        size_t n = 0, cap = 0;

        for (size_t i = 0; i < u->n; i++) {
                struct diag_at at = resource_at(a, XDS_CDS, u->v[i].name);

                if (!cluster_manager_set(m, (const Xds__Cluster *)u->v[i].msg, true, u->v[i].version.n ? u->v[i].version : u->version, &at,
                                         d))
                        u->v[i].refused = true;
                strmap_set(&keep, u->v[i].name, &keep);
        }
        for (size_t i = 0; i < u->nremoved; i++)
                cluster_manager_remove(m, u->removed[i]);
        if (u->full) {
                struct strmap *maps[] = { cluster_manager_active(m), cluster_manager_warming(m) };

                for (unsigned k = 0; k < 2; k++)
                        STRMAP_EACH (maps[k], it)
                                if (((struct cluster_main *)it->value)->dynamic && !strmap_has(&keep, it->key))
                                        VEC_PUSH(gone, n, cap) = arena_str(a, it->key);
                for (size_t i = 0; i < n; i++)
                        cluster_manager_remove(m, gone[i]);
        }
        free(gone);
        strmap_fini(&keep);
        cluster_manager_publish(m);
}

static void apply_endpoints(struct xds_link *x, struct xds_update *u, const char *file, struct arena *a, struct diags *d)
{
        struct strmap *maps[] = { cluster_manager_active(x->server->clusters), cluster_manager_warming(x->server->clusters) };
        struct cluster_main **hit = NULL;
        size_t n, cap = 0;

        for (size_t i = 0; i < u->n; i++) {
                struct diag_at at = resource_at(a, XDS_EDS, u->v[i].name);

                n = 0;
                for (unsigned k = 0; k < 2; k++)
                        STRMAP_EACH (maps[k], it) {
                                struct cluster_main *c = it->value;

                                if (c->info->type == CLUSTER_EDS && str_eq(c->eds_name, u->v[i].name))
                                        VEC_PUSH(hit, n, cap) = c;
                        }
                for (size_t k = 0; k < n; k++)
                        if (!cluster_manager_assign(hit[k], (const Xds__ClusterLoadAssignment *)u->v[i].msg, &at, d)) {
                                u->v[i].refused = true;
                                break;
                        }
        }
        free(hit);
}

static void apply_listeners(struct xds_link *x, struct xds_update *u, struct arena *a, struct diags *d)
{
        struct listener_manager *m = x->server->listeners;

        cluster_manager_publish(x->server->clusters);
        for (size_t i = 0; i < u->nremoved; i++)
                listener_manager_remove(m, u->removed[i]);
        for (size_t k = listener_manager_count(m); u->full && k-- > 0;) {
                struct listener_main *l = listener_manager_at(m, k);
                bool keep = !l->dynamic;

                for (size_t i = 0; i < u->n && !keep; i++)
                        keep = str_eq(u->v[i].name, l->name);
                if (!keep)
                        listener_manager_remove(m, arena_str(a, l->name));
        }
        for (size_t i = 0; i < u->n; i++) {
                struct diag_at at = resource_at(a, XDS_LDS, u->v[i].name);

                if (!listener_manager_set(m, (const Xds__Listener *)u->v[i].msg, true, u->v[i].version.n ? u->v[i].version : u->version,
                                          &at, d))
                        u->v[i].refused = true;
        }
}

static void apply_routes(struct xds_link *x, struct xds_update *u, const char *file, struct arena *a, struct diags *d)
{
        cluster_manager_publish(x->server->clusters);
        for (size_t i = 0; i < u->n; i++) {
                struct diag_at at = resource_at(a, XDS_RDS, u->v[i].name);

                if (!rds_manager_apply(x->server->rds, u->v[i].name, file, (const Xds__RouteConfiguration *)u->v[i].msg,
                                       u->v[i].version.n ? u->v[i].version : u->version, &at, d))
                        u->v[i].refused = true;
        }
        for (size_t i = 0; i < u->nremoved; i++)
                rds_manager_missing(x->server->rds, u->removed[i]);
}

static void source_heard(struct xds_link *x, struct source *s, struct stat_scope *st, const struct xds_update *u, const struct diags *d,
                         size_t errors)
{
        s->heard = true;
        stat_inc(x->server->stats_main, stat_of(st, XS_ATTEMPT));
        stat_inc(x->server->stats_main, stat_of(st, d->errors == errors ? XS_SUCCESS : XS_REJECTED));
        if (d->errors == errors) {
                free(s->version);
                s->version = str_dup(u->version);
        }
}

static void apply_any(struct xds_link *x, struct xds_update *u, const char *file, struct diags *d)
{
        size_t errors = d->errors;
        struct arena a;

        arena_init(&a, 4096);
        switch (u->type) {
        case XDS_CDS:
                apply_clusters(x, u, &a, d);
                source_heard(x, &x->cds, x->cds_stats, u, d, errors);
                if (cluster_manager_ready(x->server->clusters))
                        xds_link_clusters_ready(x);
                break;
        case XDS_EDS:
                apply_endpoints(x, u, file, &a, d);
                break;
        case XDS_LDS:
                apply_listeners(x, u, &a, d);
                source_heard(x, &x->lds, x->lds_stats, u, d, errors);
                break;
        case XDS_RDS:
                apply_routes(x, u, file, &a, d);
                break;
        default:
                break;
        }
        arena_fini(&a);
        server_check_live(x->server);
}

static void ads_apply(void *arg, struct xds_update *u, struct diags *d)
{
        apply_any(arg, u, NULL, d);
}

static void source_timeout(struct xds_link *x, enum xds_type t)
{
        struct source *s = t == XDS_CDS ? &x->cds : &x->lds;

        if (s->heard)
                return;
        LOG(LOG_WARN, "config", "%s: no answer from the control plane in time; going on without", xds_type_name(t));
        stat_inc(x->server->stats_main, stat_of(t == XDS_CDS ? x->cds_stats : x->lds_stats, XS_FAILURE));
        if (x->server->opts.istio_role)
                return; /* a workload without configuration is not ready; it keeps waiting */
        s->heard = true;
        if (t == XDS_CDS && cluster_manager_ready(x->server->clusters))
                xds_link_clusters_ready(x);
        server_check_live(x->server);
}

static void ads_timeout(void *arg, enum xds_type t, struct str name)
{
        if (t == XDS_CDS || t == XDS_LDS)
                source_timeout(arg, t);
        /* Clusters and routes have timers of their own: Envoy's statistics are counted there. */
}

/* Files. */

static void file_apply(void *arg, struct xds_update *u, struct diags *d)
{
        struct file_source *f = arg;

        apply_any(f->x, u, f->type == XDS_RDS ? f->path : NULL, d);
}

static void file_timeout(void *arg, enum xds_type t, struct str name)
{
}

static struct file_source *file_open(struct xds_link *x, enum xds_type t, const char *path, const char *dir, const struct diag_at *at,
                                     struct diags *d)
{
        struct file_source *f;

        for (unsigned i = 0; i < x->nfiles; i++)
                if (x->files[i]->type == t && strcmp(x->files[i]->path, path) == 0) {
                        x->files[i]->users++;
                        return x->files[i];
                }
        if (x->nfiles == FILES_MAX) {
                diag_add(d, DIAG_ERROR, NULL, at, "more than %d configuration files are not supported", FILES_MAX);
                return NULL;
        }
        f = MEM_NEW(struct file_source);
        f->x = x;
        f->type = t;
        f->path = mem_strdup(path);
        f->users = 1;
        f->sink = (struct xds_sink){ .apply = file_apply, .on_timeout = file_timeout, .arg = f };
        f->file = xds_file_new(x->server->loop, t, str_of(path), dir ? str_of(dir) : (struct str){ 0 }, &f->sink);
        x->files[x->nfiles++] = f;
        return f;
}

static void file_close(struct xds_link *x, struct file_source *f)
{
        if (--f->users)
                return;
        for (unsigned i = 0; i < x->nfiles; i++)
                if (x->files[i] == f)
                        x->files[i] = x->files[--x->nfiles];
        xds_file_free(f->file);
        free(f->path);
        free(f);
}

/* Subscriptions of clusters and route slots. The pointer that they keep is the file source, or the link itself for ADS. */

static bool read_source(struct xds_link *x, const Xds__ConfigSource *cs, const struct diag_at *at, struct diags *d, struct source *out)
{
        out->timeout_ms = (unsigned)duration_ms(cs->initial_fetch_timeout, 15000, at, d);
        switch (cs->config_source_specifier_case) {
        case XDS__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS:
                out->kind = SOURCE_ADS;
                if (x->opts.ntargets)
                        return true;
                diag_add(d, DIAG_ERROR, NULL, at, "says ads, but the bootstrap has no dynamic_resources.ads_config");
                return false;
        case XDS__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH:
                out->kind = SOURCE_FILE;
                out->path = cs->path;
                return true;
        case XDS__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH_CONFIG_SOURCE:
                out->kind = SOURCE_FILE;
                out->path = cs->path_config_source->path;
                if (cs->path_config_source->watched_directory)
                        out->dir = cs->path_config_source->watched_directory->path;
                return true;
        case XDS__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_API_CONFIG_SOURCE:
                diag_add(d, DIAG_ERROR, NULL, at, "api_config_source is not supported here; use ads, with dynamic_resources.ads_config");
                return false;
        default:
                diag_add(d, DIAG_ERROR, NULL, at, "says no source that is supported: ads or path_config_source");
                return false;
        }
}

static void assign_known(struct xds_link *x, struct cluster_main *c, const struct diag_at *at)
{
        struct str value, version;
        uint64_t when;
        struct arena a;
        struct diags d;

        /* Another cluster, or an earlier version of this one, already asked: the answer is here. */
        if (!xds_client_get(x->client, XDS_EDS, c->eds_name, &value, &version, &when))
                return;
        arena_init(&a, 1024);
        diags_init(&d);
        const ProtobufCMessage *m = pb_unpack(&xds__cluster_load_assignment__descriptor, value.p, value.n, &a, NULL);

        if (m)
                cluster_manager_assign(c, (const Xds__ClusterLoadAssignment *)m, at, &d);
        diags_fini(&d);
        arena_fini(&a);
}

static bool eds_subscribe(void *arg, struct cluster_main *c, const struct diag_at *at, struct diags *d)
{
        struct xds_link *x = arg;
        struct source src = { 0 };
        struct arena a;
        bool ok;

        arena_init(&a, 256);
        struct diag_at sub = at_path(&a, at, ".eds_cluster_config.eds_config");

        ok = read_source(x, c->info->proto->eds_cluster_config->eds_config, &sub, d, &src);
        if (ok && src.kind == SOURCE_FILE) {
                c->eds_sub = file_open(x, XDS_EDS, src.path, src.dir, &sub, d);
                ok = c->eds_sub != NULL;
        } else if (ok) {
                c->eds_sub = x;
                xds_client_want(x->client, XDS_EDS, c->eds_name, 0);
                assign_known(x, c, at);
        }
        arena_fini(&a);
        return ok;
}

static void eds_unsubscribe(void *arg, struct cluster_main *c)
{
        struct xds_link *x = arg;

        if (c->eds_sub == x)
                xds_client_unwant(x->client, XDS_EDS, c->eds_name);
        else
                file_close(x, c->eds_sub);
        c->eds_sub = NULL;
}

static const struct eds_hooks eds = { eds_subscribe, eds_unsubscribe };

static bool rds_subscribe(void *arg, struct rds_slot *r, const struct Xds__ConfigSource *cs, const struct diag_at *at, struct diags *d)
{
        struct xds_link *x = arg;
        struct source src = { 0 };

        if (!read_source(x, cs, at, d, &src))
                return false;
        if (src.kind == SOURCE_FILE) {
                r->sub = file_open(x, XDS_RDS, src.path, src.dir, at, d);
        } else {
                r->sub = x;
                xds_client_want(x->client, XDS_RDS, r->name, 0);
        }
        return r->sub != NULL;
}

static void rds_unsubscribe(void *arg, struct rds_slot *r)
{
        struct xds_link *x = arg;

        if (r->sub == x)
                xds_client_unwant(x->client, XDS_RDS, r->name);
        else
                file_close(x, r->sub);
        r->sub = NULL;
}

static const struct rds_hooks rds = { rds_subscribe, rds_unsubscribe };

/* The bootstrap. */

static const Xds__Cluster *static_cluster(const Xds__Bootstrap *b, const char *name)
{
        for (size_t i = 0; b->static_resources && i < b->static_resources->n_clusters; i++)
                if (b->static_resources->clusters[i]->name && strcmp(b->static_resources->clusters[i]->name, name) == 0)
                        return b->static_resources->clusters[i];
        return NULL;
}

static void add_target(struct xds_link *x, const Xds__Address *a)
{
        if (!a || x->opts.ntargets == TARGETS_MAX)
                return;
        if (a->address_case == XDS__ADDRESS__ADDRESS_PIPE && a->pipe->path) {
                x->targets[x->opts.ntargets++] = arena_printf(&x->arena, "unix:%s", a->pipe->path);
        } else if (a->address_case == XDS__ADDRESS__ADDRESS_SOCKET_ADDRESS && a->socket_address->address) {
                bool v6 = strchr(a->socket_address->address, ':') != NULL;

                x->targets[x->opts.ntargets++] = arena_printf(&x->arena, v6 ? "[%s]:%u" : "%s:%u", a->socket_address->address,
                                                              a->socket_address->port_value);
        }
}

static bool read_ads(struct xds_link *x, const Xds__Bootstrap *b, const Xds__ApiConfigSource *ads, struct diags *d)
{
        struct diag_at at = { .path = STR("dynamic_resources.ads_config") };
        const Xds__GrpcService__EnvoyGrpc *g = NULL;
        const Xds__Cluster *c;

        switch (ads->api_type) {
        case XDS__API_CONFIG_SOURCE__API_TYPE__GRPC:
        case XDS__API_CONFIG_SOURCE__API_TYPE__AGGREGATED_GRPC:
                break;
        case XDS__API_CONFIG_SOURCE__API_TYPE__DELTA_GRPC:
        case XDS__API_CONFIG_SOURCE__API_TYPE__AGGREGATED_DELTA_GRPC:
                x->opts.delta = true;
                break;
        default:
                diag_add(d, DIAG_ERROR, NULL, &at, "api_type must be GRPC or DELTA_GRPC");
                return false;
        }
        if (ads->n_grpc_services && ads->grpc_services[0]->target_specifier_case == XDS__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC)
                g = ads->grpc_services[0]->envoy_grpc;
        if (!g || !g->cluster_name) {
                diag_add(d, DIAG_ERROR, NULL, &at, "grpc_services[0].envoy_grpc.cluster_name is missing");
                return false;
        }
        c = static_cluster(b, g->cluster_name);
        if (!c) {
                diag_add(d, DIAG_ERROR, NULL, &at, "grpc_services[0].envoy_grpc: unknown cluster '%s'", g->cluster_name);
                return false;
        }
        for (size_t i = 0; c->load_assignment && i < c->load_assignment->n_endpoints; i++)
                for (size_t j = 0; j < c->load_assignment->endpoints[i]->n_lb_endpoints; j++) {
                        const Xds__LbEndpoint *ep = c->load_assignment->endpoints[i]->lb_endpoints[j];

                        if (ep->host_identifier_case == XDS__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT)
                                add_target(x, ep->endpoint->address);
                }
        if (!x->opts.ntargets) {
                diag_add(d, DIAG_ERROR, NULL, &at, "cluster '%s' of the control plane has no endpoint", g->cluster_name);
                return false;
        }
        x->opts.targets = x->targets;
        x->opts.authority = g->authority ? str_of(g->authority) : (struct str){ 0 };
        if (ads->grpc_services[0]->n_initial_metadata) {
                size_t n = ads->grpc_services[0]->n_initial_metadata;
                struct {
                        struct str name, value;
                } *md = arena_zalloc(&x->arena, n * sizeof(*md));

                for (size_t i = 0; i < n; i++) {
                        md[i].name = str_of(ads->grpc_services[0]->initial_metadata[i]->key);
                        md[i].value = str_of(ads->grpc_services[0]->initial_metadata[i]->value);
                }
                x->opts.metadata = (const void *)md;
                x->opts.nmetadata = (unsigned)n;
        }
        return true;
}

struct xds_link *xds_link_new(struct server *s, struct diags *d)
{
        struct xds_link *x = MEM_NEW(struct xds_link);
        const Xds__Bootstrap__DynamicResources *r = s->bootstrap->dynamic_resources;
        size_t errors = d->errors;
        struct diag_at at;

        arena_init(&x->arena, 1024);
        x->server = s;
        x->cds_stats = stats_scope(s->stats, STR("cluster_manager.cds."), STR("cluster_manager.cds."), NULL, 0, xds_defs, XS_COUNT);
        x->lds_stats = stats_scope(s->stats, STR("listener_manager.lds."), STR("listener_manager.lds."), NULL, 0, xds_defs, XS_COUNT);
        x->opts.node = s->node;
        x->opts.state_path = s->opts.state_path;
        if (r && r->ads_config)
                read_ads(x, s->bootstrap, r->ads_config, d);
        if (d->errors == errors && r && r->cds_config) {
                at = (struct diag_at){ .path = STR("dynamic_resources.cds_config") };
                read_source(x, r->cds_config, &at, d, &x->cds);
        }
        if (d->errors == errors && r && r->lds_config) {
                at = (struct diag_at){ .path = STR("dynamic_resources.lds_config") };
                read_source(x, r->lds_config, &at, d, &x->lds);
        }
        if (d->errors != errors) {
                xds_link_free(x);
                return NULL;
        }
        if (s->opts.mode == SERVER_SERVE) {
                x->sink = (struct xds_sink){ .apply = ads_apply, .on_timeout = ads_timeout, .arg = x };
                if (x->opts.ntargets)
                        x->client = xds_client_new(s->loop, &x->opts, &x->sink);
                cluster_manager_eds(s->clusters, &eds, x);
                rds_manager_hooks(s->rds, &rds, x);
        }
        return x;
}

static void ask(struct xds_link *x, enum xds_type t, struct source *s)
{
        struct diags d;
        struct diag_at at = { 0 };

        switch (s->kind) {
        case SOURCE_ADS:
                xds_client_want(x->client, t, STR(""), s->timeout_ms);
                break;
        case SOURCE_FILE:
                diags_init(&d);
                file_open(x, t, s->path, s->dir, &at, &d);
                diags_fini(&d);
                break;
        default:
                s->heard = true;
        }
}

void xds_link_start(struct xds_link *x)
{
        ask(x, XDS_CDS, &x->cds);
        if (x->cds.heard && cluster_manager_ready(x->server->clusters))
                xds_link_clusters_ready(x);
}

void xds_link_clusters_ready(struct xds_link *x)
{
        if (x->lds_asked || !x->cds.heard)
                return;
        x->lds_asked = true;
        cluster_manager_publish(x->server->clusters);
        listener_manager_start(x->server->listeners);
        ask(x, XDS_LDS, &x->lds);
        server_check_live(x->server);
}

bool xds_link_ready(const struct xds_link *x)
{
        return x->cds.heard && x->lds.heard;
}

const struct xds_client *xds_link_client(const struct xds_link *x)
{
        return x->client;
}

struct str xds_link_version(const struct xds_link *x, enum xds_type t)
{
        const struct source *s = t == XDS_CDS ? &x->cds : &x->lds;

        return s->version ? str_of(s->version) : (struct str){ 0 };
}

void xds_link_free(struct xds_link *x)
{
        if (!x)
                return;
        while (x->nfiles) {
                x->files[0]->users = 1;
                file_close(x, x->files[0]);
        }
        xds_client_free(x->client);
        stats_scope_unref(x->server->stats, x->cds_stats);
        stats_scope_unref(x->server->stats, x->lds_stats);
        free(x->cds.version);
        free(x->lds.version);
        arena_fini(&x->arena);
        free(x);
}
