/* Dumps. Envoy prints messages under their fields' own names (static_clusters), where proto3-JSON says staticClusters; users' jq lines
 * depend on that, so the nodes are renamed by walking them together with the descriptors. */
#include "proxy/admin_dump.h"

#include "base/clock.h"
#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/cluster_manager.h"
#include "proxy/cluster_private.h"
#include "proxy/listener_manager.h"
#include "proxy/rds_manager.h"
#include "proxy/xds_link.h"

#include "envoy/bootstrap.pb-c.h"
#include "envoy/cluster.pb-c.h"
#include "envoy/core.pb-c.h"
#include "envoy/endpoint.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "envoy/route.pb-c.h"
#include "google/any.pb-c.h"
#include "google/struct.pb-c.h"
#include "google/wrappers.pb-c.h"

#include <regex.h>
#include <stdlib.h>

/* ---- names ---- */

static bool camel_is(struct str camel, const char *snake)
{
        size_t i = 0;
        bool up = false;

        for (; *snake; snake++) {
                if (*snake == '_') {
                        up = true;
                        continue;
                }
                char c = up && *snake >= 'a' && *snake <= 'z' ? (char)(*snake - 32) : *snake;

                up = false;
                if (i >= camel.n || camel.p[i++] != c)
                        return false;
        }
        return i == camel.n;
}

static const ProtobufCFieldDescriptor *field_of(const ProtobufCMessageDescriptor *t, struct str camel)
{
        for (unsigned i = 0; i < t->n_fields; i++)
                if (camel_is(camel, t->fields[i].name))
                        return &t->fields[i];
        return NULL;
}

static bool is_map_entry(const ProtobufCMessageDescriptor *t)
{
        size_t n = strlen(t->name);

        return t->n_fields == 2 && n > 5 && strcmp(t->name + n - 5, "Entry") == 0 && strcmp(t->fields[0].name, "key") == 0;
}

static void rename_fields(struct pb_node *n, const ProtobufCMessageDescriptor *t)
{
        if (!t || n->kind != PB_MAP || t == &gp__struct__descriptor || t == &gp__value__descriptor)
                return;
        if (t == &gp__any__descriptor) {
                for (size_t i = 0; i < n->n; i++)
                        if (str_eqc(n->keys[i], "@type"))
                                rename_fields(n, pb_type_url(n->v[i]->text));
                return;
        }
        for (size_t i = 0; i < n->n; i++) {
                const ProtobufCFieldDescriptor *f = field_of(t, n->keys[i]);
                const ProtobufCMessageDescriptor *sub = f && f->type == PROTOBUF_C_TYPE_MESSAGE ? f->descriptor : NULL;
                struct pb_node *v = n->v[i];

                if (!f)
                        continue;
                n->keys[i] = str_of(f->name);
                if (!sub)
                        continue;
                if (f->label == PROTOBUF_C_LABEL_REPEATED && is_map_entry(sub) && v->kind == PB_MAP) {
                        const ProtobufCFieldDescriptor *vf = &sub->fields[1];

                        for (size_t k = 0; k < v->n; k++)
                                rename_fields(v->v[k], vf->type == PROTOBUF_C_TYPE_MESSAGE ? vf->descriptor : NULL);
                } else if (v->kind == PB_LIST) {
                        for (size_t k = 0; k < v->n; k++)
                                rename_fields(v->v[k], sub);
                } else {
                        rename_fields(v, sub);
                }
        }
}

static struct pb_node *dump(struct arena *a, const ProtobufCMessage *m, const char *type)
{
        struct pb_node *n = pb_to_node(m, a), *r;

        rename_fields(n, m->descriptor);
        if (!type)
                return n;
        r = pb_new(a, PB_MAP, (struct str){ 0 }); /* "@type" comes first */
        pb_put_str(a, r, "@type", arena_printf(a, "type.googleapis.com/%s", type));
        for (size_t i = 0; i < n->n; i++)
                pb_put(a, r, n->keys[i], n->v[i]);
        return r;
}

/* ---- /config_dump ---- */

static struct pb_node *map(struct arena *a)
{
        return pb_new(a, PB_MAP, (struct str){ 0 });
}

static struct pb_node *list(struct arena *a)
{
        return pb_new(a, PB_LIST, (struct str){ 0 });
}

static void put(struct arena *a, struct pb_node *m, const char *key, struct pb_node *v)
{
        pb_put(a, m, str_of(key), v);
}

static void put_text(struct arena *a, struct pb_node *m, const char *key, struct str v)
{
        if (v.n)
                pb_put_str(a, m, key, arena_str(a, v));
}

static void put_time(struct arena *a, struct pb_node *m, const char *key, uint64_t us)
{
        char t[40];

        pb_put_str(a, m, key, arena_str(a, str_make(t, clock_rfc3339(us, 3, t))));
}

struct dumper {
        struct server *s;
        struct arena arena;
        regex_t *regex;
        bool include_eds;
        struct pb_node *configs;
};

static bool named(const struct dumper *d, struct str name)
{
        char *z;
        bool ok;

        if (!d->regex)
                return true;
        z = str_dup(name);
        ok = regexec(d->regex, z, 0, NULL, 0) == 0;
        free(z);
        return ok;
}

static struct pb_node *begin(struct dumper *d, const char *type)
{
        struct pb_node *m = map(&d->arena);

        pb_put_str(&d->arena, m, "@type", arena_printf(&d->arena, "type.googleapis.com/envoy.admin.v3.%s", type));
        pb_push(&d->arena, d->configs, m);
        return m;
}

static struct pb_node *cluster_entry(struct dumper *d, const struct cluster_main *c)
{
        struct arena *a = &d->arena;
        struct pb_node *e = map(a);

        if (c->dynamic)
                put_text(a, e, "version_info", c->version ? str_of(c->version) : (struct str){ 0 });
        put(a, e, "cluster", dump(a, &c->info->proto->base, "envoy.config.cluster.v3.Cluster"));
        put_time(a, e, "last_updated", c->updated_us);
        return e;
}

static void put_list(struct arena *a, struct pb_node *m, const char *key, struct pb_node *l)
{
        if (l->n)
                put(a, m, key, l);
}

static void dump_clusters(struct dumper *d)
{
        struct arena *a = &d->arena;
        struct pb_node *m = begin(d, "ClustersConfigDump"), *st = list(a), *dy = list(a), *wa = list(a);

        put_text(a, m, "version_info", xds_link_version(d->s->xds, XDS_CDS));
        STRMAP_EACH (cluster_manager_active(d->s->clusters), it) {
                struct cluster_main *c = it->value;

                if (named(d, c->info->name))
                        pb_push(a, c->dynamic ? dy : st, cluster_entry(d, c));
        }
        STRMAP_EACH (cluster_manager_warming(d->s->clusters), it) {
                struct cluster_main *c = it->value;

                if (named(d, c->info->name))
                        pb_push(a, wa, cluster_entry(d, c));
        }
        put_list(a, m, "static_clusters", st);
        put_list(a, m, "dynamic_active_clusters", dy);
        put_list(a, m, "dynamic_warming_clusters", wa);
}

static struct pb_node *listener_state(struct dumper *d, const struct listener_config *c, struct str version, uint64_t updated)
{
        struct arena *a = &d->arena;
        struct pb_node *e = map(a);

        put_text(a, e, "version_info", version);
        put(a, e, "listener", dump(a, &c->proto->base, "envoy.config.listener.v3.Listener"));
        put_time(a, e, "last_updated", updated);
        return e;
}

static void dump_listeners(struct dumper *d)
{
        struct arena *a = &d->arena;
        struct pb_node *m = begin(d, "ListenersConfigDump"), *st = list(a), *dy = list(a);

        put_text(a, m, "version_info", xds_link_version(d->s->xds, XDS_LDS));
        for (size_t i = 0; i < listener_manager_count(d->s->listeners); i++) {
                struct listener_main *l = listener_manager_at(d->s->listeners, i);
                struct str version = l->version ? str_of(l->version) : (struct str){ 0 };

                if (!named(d, l->name))
                        continue;
                if (!l->dynamic) {
                        pb_push(a, st, listener_state(d, l->active ? l->active : l->warming, (struct str){ 0 }, l->updated_us));
                        continue;
                }
                struct pb_node *e = map(a);

                put_text(a, e, "name", l->name);
                if (l->active)
                        put(a, e, "active_state", listener_state(d, l->active, version, l->updated_us));
                if (l->warming)
                        put(a, e, "warming_state", listener_state(d, l->warming, version, l->updated_us));
                pb_push(a, dy, e);
        }
        put_list(a, m, "static_listeners", st);
        put_list(a, m, "dynamic_listeners", dy);
}

struct routes_dump {
        struct dumper *d;
        struct pb_node *dynamic;
};

static void dump_route(void *arg, struct rds_slot *r)
{
        struct routes_dump *rd = arg;
        struct arena *a = &rd->d->arena;
        struct pb_node *e;

        if (!r->proto || !named(rd->d, r->name))
                return;
        e = map(a);
        put_text(a, e, "version_info", r->version ? str_of(r->version) : (struct str){ 0 });
        put(a, e, "route_config", dump(a, &r->proto->base, "envoy.config.route.v3.RouteConfiguration"));
        put_time(a, e, "last_updated", r->updated_us);
        pb_push(a, rd->dynamic, e);
}

/* Inline route configurations are inside their listeners: found by walking the dump of those. */
static void inline_routes(struct dumper *d, const struct pb_node *n, uint64_t updated, struct pb_node *out)
{
        if (n->kind == PB_LIST)
                for (size_t i = 0; i < n->n; i++)
                        inline_routes(d, n->v[i], updated, out);
        if (n->kind != PB_MAP)
                return;
        for (size_t i = 0; i < n->n; i++)
                if (str_eqc(n->keys[i], "route_config") && n->v[i]->kind == PB_MAP) {
                        struct pb_node *e = map(&d->arena), *rc = map(&d->arena);

                        if (!named(d, pb_get_str(n->v[i], "name", STR(""))))
                                continue;
                        pb_put_str(&d->arena, rc, "@type", STR("type.googleapis.com/envoy.config.route.v3.RouteConfiguration"));
                        for (size_t k = 0; k < n->v[i]->n; k++)
                                pb_put(&d->arena, rc, n->v[i]->keys[k], n->v[i]->v[k]);
                        put(&d->arena, e, "route_config", rc);
                        put_time(&d->arena, e, "last_updated", updated);
                        pb_push(&d->arena, out, e);
                } else {
                        inline_routes(d, n->v[i], updated, out);
                }
}

static void dump_routes(struct dumper *d)
{
        struct arena *a = &d->arena;
        struct pb_node *m = begin(d, "RoutesConfigDump"), *st = list(a);
        struct routes_dump rd = { d, list(a) };

        for (size_t i = 0; i < listener_manager_count(d->s->listeners); i++) {
                struct listener_main *l = listener_manager_at(d->s->listeners, i);

                if (l->active)
                        inline_routes(d, dump(a, &l->active->proto->base, NULL), l->updated_us, st);
        }
        rds_manager_each(d->s->rds, dump_route, &rd);
        put_list(a, m, "static_route_configs", st);
        put_list(a, m, "dynamic_route_configs", rd.dynamic);
}

static struct pb_node *number(struct arena *a, uint64_t v)
{
        return pb_new(a, PB_NUMBER, arena_printf(a, "%llu", (unsigned long long)v));
}

static struct pb_node *address(struct arena *a, const struct addr *ad)
{
        struct pb_node *m = map(a), *s = map(a);
        char t[ADDR_TEXT_MAX];

        if (ad->sa.sa_family == AF_UNIX) {
                pb_put_str(a, s, "path", arena_str(a, str_make(t, addr_text(ad, t))));
                put(a, m, "pipe", s);
                return m;
        }
        pb_put_str(a, s, "address", arena_str(a, str_make(t, addr_ip_text(ad, t))));
        put(a, s, "port_value", number(a, addr_port(ad)));
        put(a, m, "socket_address", s);
        return m;
}

static const char *health_name(const struct host_desc *h)
{
        return h->health == HEALTH_HEALTHY ? "HEALTHY" : h->health == HEALTH_DEGRADED ? "DEGRADED" : "UNHEALTHY";
}

static void put_locality(struct arena *a, struct pb_node *m, const struct host_desc *h)
{
        struct pb_node *l = map(a);

        put_text(a, l, "region", h->region);
        put_text(a, l, "zone", h->zone);
        put_text(a, l, "sub_zone", h->sub_zone);
        put(a, m, "locality", l);
}

static struct pb_node *endpoint(struct arena *a, const struct host_desc *h)
{
        struct pb_node *le = map(a), *ep = map(a), *lb = map(a), *lbs = list(a);

        put(a, ep, "address", address(a, &h->addr));
        put_text(a, ep, "hostname", h->hostname);
        put(a, lb, "endpoint", ep);
        pb_put_str(a, lb, "health_status", str_of(health_name(h)));
        if (h->metadata)
                put(a, lb, "metadata", dump(a, &h->metadata->base, NULL));
        put(a, lb, "load_balancing_weight", number(a, h->weight));
        pb_push(a, lbs, lb);
        put_locality(a, le, h);
        put(a, le, "lb_endpoints", lbs);
        if (h->priority)
                put(a, le, "priority", number(a, h->priority));
        return le;
}

static void dump_endpoints(struct dumper *d)
{
        struct arena *a = &d->arena;
        struct pb_node *m = begin(d, "EndpointsConfigDump"), *st = list(a), *dy = list(a);

        STRMAP_EACH (cluster_manager_active(d->s->clusters), it) {
                struct cluster_main *c = it->value;
                bool eds = c->info->type == CLUSTER_EDS;
                struct pb_node *e = map(a), *cla = map(a), *eps = list(a);

                if (!named(d, c->info->name))
                        continue;
                pb_put_str(a, cla, "@type", STR("type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"));
                pb_put_str(a, cla, "cluster_name", arena_str(a, eds ? c->eds_name : c->info->name));
                for (size_t i = 0; c->list && i < c->list->n; i++)
                        pb_push(a, eps, endpoint(a, c->list->v[i]));
                put_list(a, cla, "endpoints", eps);
                put(a, e, "endpoint_config", cla);
                pb_push(a, eds ? dy : st, e);
        }
        put_list(a, m, "static_endpoint_configs", st);
        put_list(a, m, "dynamic_endpoint_configs", dy);
}

/* Keeps only the fields that a path names; paths are in terms of the entries of `resource`. */
static struct pb_node *masked(struct arena *a, const struct pb_node *n, struct str mask)
{
        struct pb_node *out = map(a);
        struct str rest = mask, path;

        if (n->kind != PB_MAP)
                return (struct pb_node *)n;
        while (str_next(&rest, ',', &path)) {
                struct str tail = path, head = path;
                struct pb_node *v;

                path = str_trim(path);
                if (!str_next(&tail, '.', &head))
                        continue;
                v = NULL;
                for (size_t i = 0; i < n->n; i++)
                        if (str_eq(n->keys[i], head))
                                v = n->v[i];
                if (!v)
                        continue;
                if (tail.p && tail.n)
                        v = masked(a, v, tail);
                pb_put(a, out, head, v);
        }
        for (size_t i = 0; i < n->n; i++)
                if (str_eqc(n->keys[i], "@type"))
                        pb_put(a, out, n->keys[i], n->v[i]);
        return out;
}

bool admin_config_dump(struct server *s, struct str resource, struct str mask, struct str name_regex, bool include_eds, struct buf *out,
                       struct buf *why)
{
        struct dumper d = { .s = s, .include_eds = include_eds };
        struct pb_node *root, *m;
        regex_t re;
        bool ok = true;

        if (name_regex.n) {
                char *z = str_dup(name_regex);

                ok = name_regex.n < 512 && regcomp(&re, z, REG_EXTENDED | REG_NOSUB) == 0;
                free(z);
                if (!ok) {
                        buf_printf(why, "Error while parsing name_regex from " STR_FMT "\n", STR_ARG(name_regex));
                        return false;
                }
                d.regex = &re;
        }
        arena_init(&d.arena, 65536);
        root = map(&d.arena);
        d.configs = list(&d.arena);
        if (!name_regex.n) {
                m = begin(&d, "BootstrapConfigDump");
                put(&d.arena, m, "bootstrap", dump(&d.arena, &s->bootstrap->base, NULL));
                put_time(&d.arena, m, "last_updated", s->started_real_us);
        }
        dump_clusters(&d);
        if (include_eds || str_ends(resource, STR("endpoint_configs")))
                dump_endpoints(&d);
        dump_listeners(&d);
        begin(&d, "ScopedRoutesConfigDump");
        dump_routes(&d);
        begin(&d, "SecretsConfigDump");
        if (resource.n) {
                struct pb_node *found = list(&d.arena);
                bool known = false;
                char *key = arena_cstr(&d.arena, resource);

                for (size_t i = 0; i < d.configs->n; i++) {
                        struct pb_node *v = pb_get(d.configs->v[i], key);

                        for (size_t k = 0; v && v->kind == PB_LIST && k < v->n; k++)
                                pb_push(&d.arena, found, mask.n ? masked(&d.arena, v->v[k], mask) : v->v[k]);
                        known = known || (v && v->kind == PB_LIST);
                }
                static const char *const fields[] = { "static_clusters",       "dynamic_active_clusters", "dynamic_warming_clusters",
                                                      "static_listeners",      "dynamic_listeners",       "static_route_configs",
                                                      "dynamic_route_configs", "static_endpoint_configs", "dynamic_endpoint_configs",
                                                      "static_secrets",        "dynamic_active_secrets",  "dynamic_warming_secrets" };

                for (size_t i = 0; i < ARRAY_LEN(fields); i++)
                        known = known || str_eqc(resource, fields[i]);
                if (!known) {
                        buf_printf(why, STR_FMT " not found in config dump\n", STR_ARG(resource));
                        ok = false;
                }
                d.configs = found;
        } else if (mask.n) {
                for (size_t i = 0; i < d.configs->n; i++)
                        d.configs->v[i] = masked(&d.arena, d.configs->v[i], mask);
        }
        if (ok) {
                put(&d.arena, root, "configs", d.configs);
                pb_node_json_indent(root, 1, out);
                buf_char(out, '\n');
        }
        arena_fini(&d.arena);
        if (d.regex)
                regfree(d.regex);
        return ok;
}

/* ---- /clusters ---- */

static const struct {
        const char *name;
        enum host_stat stat;
        bool gauge;
} host_rows[] = {
        { "cx_active", HS_CX_ACTIVE, true },    { "cx_connect_fail", HS_CX_CONNECT_FAIL, false },
        { "cx_total", HS_CX_TOTAL, false },     { "rq_active", HS_RQ_ACTIVE, true },
        { "rq_error", HS_RQ_ERROR, false },     { "rq_success", HS_RQ_SUCCESS, false },
        { "rq_timeout", HS_RQ_TIMEOUT, false }, { "rq_total", HS_RQ_TOTAL, false },
};

static void cluster_text(struct server *s, const struct cluster_main *c, struct buf *out)
{
        struct str name = c->info->name;
        static const char *const prio[] = { "default", "high" };

        buf_printf(out, STR_FMT "::observability_name::" STR_FMT "\n", STR_ARG(name), STR_ARG(c->info->alt_stat_name));
        for (unsigned p = 0; p < PRIO_COUNT; p++) {
                const struct breakers *b = &c->info->breakers[p];

                buf_printf(out, STR_FMT "::%s_priority::max_connections::%u\n", STR_ARG(name), prio[p], b->max[BREAKER_CX]);
                buf_printf(out, STR_FMT "::%s_priority::max_pending_requests::%u\n", STR_ARG(name), prio[p], b->max[BREAKER_PENDING]);
                buf_printf(out, STR_FMT "::%s_priority::max_requests::%u\n", STR_ARG(name), prio[p], b->max[BREAKER_RQ]);
                buf_printf(out, STR_FMT "::%s_priority::max_retries::%u\n", STR_ARG(name), prio[p], b->max[BREAKER_RETRIES]);
        }
        buf_printf(out, STR_FMT "::added_via_api::%s\n", STR_ARG(name), c->dynamic ? "true" : "false");
        if (c->info->type == CLUSTER_EDS)
                buf_printf(out, STR_FMT "::eds_service_name::" STR_FMT "\n", STR_ARG(name), STR_ARG(c->eds_name));
        for (size_t i = 0; c->list && i < c->list->n; i++) {
                const struct host_desc *h = c->list->v[i];
                char t[ADDR_TEXT_MAX];
                struct str ad = str_make(t, addr_text(&h->addr, t));

                for (unsigned k = 0; k < ARRAY_LEN(host_rows); k++)
                        buf_printf(out, STR_FMT "::" STR_FMT "::%s::%llu\n", STR_ARG(name), STR_ARG(ad), host_rows[k].name,
                                   (unsigned long long)stats_read(s->stats, h->stats + host_rows[k].stat));
                buf_printf(out, STR_FMT "::" STR_FMT "::hostname::" STR_FMT "\n", STR_ARG(name), STR_ARG(ad), STR_ARG(h->hostname));
                buf_printf(out, STR_FMT "::" STR_FMT "::health_flags::%s\n", STR_ARG(name), STR_ARG(ad),
                           h->health == HEALTH_HEALTHY    ? "healthy"
                           : h->health == HEALTH_DEGRADED ? "/degraded_eds_health"
                                                          : "/failed_eds_health");
                buf_printf(out, STR_FMT "::" STR_FMT "::weight::%u\n", STR_ARG(name), STR_ARG(ad), h->weight);
                buf_printf(out, STR_FMT "::" STR_FMT "::region::" STR_FMT "\n", STR_ARG(name), STR_ARG(ad), STR_ARG(h->region));
                buf_printf(out, STR_FMT "::" STR_FMT "::zone::" STR_FMT "\n", STR_ARG(name), STR_ARG(ad), STR_ARG(h->zone));
                buf_printf(out, STR_FMT "::" STR_FMT "::sub_zone::" STR_FMT "\n", STR_ARG(name), STR_ARG(ad), STR_ARG(h->sub_zone));
                buf_printf(out, STR_FMT "::" STR_FMT "::canary::false\n", STR_ARG(name), STR_ARG(ad));
                buf_printf(out, STR_FMT "::" STR_FMT "::priority::%u\n", STR_ARG(name), STR_ARG(ad), h->priority);
                buf_printf(out, STR_FMT "::" STR_FMT "::success_rate::-1\n", STR_ARG(name), STR_ARG(ad));
                buf_printf(out, STR_FMT "::" STR_FMT "::local_origin_success_rate::-1\n", STR_ARG(name), STR_ARG(ad));
        }
}

void admin_clusters_text(struct server *s, struct str filter, struct buf *out)
{
        STRMAP_EACH (cluster_manager_active(s->clusters), it)
                if (!filter.n || str_find(it->key, filter) >= 0)
                        cluster_text(s, it->value, out);
}

static struct pb_node *host_status(struct server *s, struct arena *a, const struct host_desc *h)
{
        struct pb_node *m = map(a), *stats = list(a), *health = map(a);

        put(a, m, "address", address(a, &h->addr));
        for (unsigned k = 0; k < ARRAY_LEN(host_rows); k++) {
                struct pb_node *x = map(a);
                uint64_t v = stats_read(s->stats, h->stats + host_rows[k].stat);

                if (host_rows[k].gauge)
                        pb_put_str(a, x, "type", STR("GAUGE"));
                if (v)
                        pb_put_str(a, x, "value", arena_printf(a, "%llu", (unsigned long long)v));
                pb_put_str(a, x, "name", str_of(host_rows[k].name));
                pb_push(a, stats, x);
        }
        put(a, m, "stats", stats);
        pb_put_str(a, health, "eds_health_status", str_of(health_name(h)));
        put(a, m, "health_status", health);
        put(a, m, "weight", number(a, h->weight));
        put_text(a, m, "hostname", h->hostname);
        if (h->priority)
                put(a, m, "priority", number(a, h->priority));
        put_locality(a, m, h);
        return m;
}

static struct pb_node *breaker_json(struct arena *a, const struct cluster_info *c)
{
        struct pb_node *m = map(a), *l = list(a);

        for (unsigned p = 0; p < PRIO_COUNT; p++) {
                struct pb_node *t = map(a);
                const struct breakers *b = &c->breakers[p];

                if (p)
                        pb_put_str(a, t, "priority", STR("HIGH"));
                put(a, t, "max_connections", number(a, b->max[BREAKER_CX]));
                put(a, t, "max_pending_requests", number(a, b->max[BREAKER_PENDING]));
                put(a, t, "max_requests", number(a, b->max[BREAKER_RQ]));
                put(a, t, "max_retries", number(a, b->max[BREAKER_RETRIES]));
                pb_push(a, l, t);
        }
        put(a, m, "thresholds", l);
        return m;
}

void admin_clusters_json(struct server *s, struct buf *out)
{
        struct arena a;
        struct pb_node *root, *l;

        arena_init(&a, 65536);
        root = map(&a);
        l = list(&a);
        STRMAP_EACH (cluster_manager_active(s->clusters), it) {
                struct cluster_main *c = it->value;
                struct pb_node *m = map(&a), *hosts = list(&a);

                pb_put_str(&a, m, "name", arena_str(&a, c->info->name));
                if (c->dynamic)
                        put(&a, m, "added_via_api", pb_new(&a, PB_BOOL, STR("true")));
                for (size_t i = 0; c->list && i < c->list->n; i++)
                        pb_push(&a, hosts, host_status(s, &a, c->list->v[i]));
                put_list(&a, m, "host_statuses", hosts);
                put(&a, m, "circuit_breakers", breaker_json(&a, c->info));
                pb_put_str(&a, m, "observability_name", arena_str(&a, c->info->alt_stat_name));
                if (c->info->type == CLUSTER_EDS)
                        pb_put_str(&a, m, "eds_service_name", arena_str(&a, c->eds_name));
                pb_push(&a, l, m);
        }
        put(&a, root, "cluster_statuses", l);
        pb_node_json_indent(root, 1, out);
        buf_char(out, '\n');
        arena_fini(&a);
}

/* ---- /listeners, /server_info ---- */

void admin_listeners_text(struct server *s, struct buf *out)
{
        for (size_t i = 0; i < listener_manager_count(s->listeners); i++) {
                struct listener_main *l = listener_manager_at(s->listeners, i);

                for (unsigned k = 0; l->active && k < l->active->naddr; k++) {
                        char t[ADDR_TEXT_MAX];

                        buf_printf(out, STR_FMT "::%.*s\n", STR_ARG(l->name), (int)addr_text(&l->bound[k], t), t);
                }
        }
}

void admin_listeners_json(struct server *s, struct buf *out)
{
        struct arena a;
        struct pb_node *root, *ls;

        arena_init(&a, 4096);
        root = map(&a);
        ls = list(&a);
        for (size_t i = 0; i < listener_manager_count(s->listeners); i++) {
                struct listener_main *l = listener_manager_at(s->listeners, i);
                struct pb_node *m = map(&a), *more = list(&a);

                if (!l->active)
                        continue;
                pb_put_str(&a, m, "name", arena_str(&a, l->name));
                put(&a, m, "local_address", address(&a, &l->bound[0]));
                for (unsigned k = 1; k < l->active->naddr; k++)
                        pb_push(&a, more, address(&a, &l->bound[k]));
                put_list(&a, m, "additional_local_addresses", more);
                pb_push(&a, ls, m);
        }
        put(&a, root, "listener_statuses", ls);
        pb_node_json_indent(root, 1, out);
        buf_char(out, '\n');
        arena_fini(&a);
}

const char *server_state_name(const struct server *s)
{
        if (s->health_failed || s->draining)
                return "DRAINING";
        if (s->live)
                return "LIVE";
        return cluster_manager_ready(s->clusters) ? "INITIALIZING" : "PRE_INITIALIZING";
}

void admin_server_info(struct server *s, struct buf *out)
{
        struct arena a;
        struct pb_node *m, *o;
        struct str up;

        arena_init(&a, 4096);
        m = map(&a);
        o = map(&a);
        up = arena_printf(&a, "%llus", (unsigned long long)((clock_real_us() - s->started_real_us) / 1000000));
        pb_put_str(&a, m, "version", STR("postern/" POSTERN_VERSION "/Clean/RELEASE/OpenSSL"));
        pb_put_str(&a, m, "state", str_of(server_state_name(s)));
        pb_put_str(&a, m, "uptime_current_epoch", up);
        pb_put_str(&a, m, "uptime_all_epochs", up);
        pb_put_str(&a, m, "hot_restart_version", STR("disabled"));
        put(&a, o, "concurrency", number(&a, s->nworkers));
        put_text(&a, o, "config_path", s->opts.config_path);
        put_text(&a, o, "service_cluster", s->opts.service_cluster);
        put_text(&a, o, "service_node", s->opts.service_node);
        pb_put_str(&a, o, "drain_time", arena_printf(&a, "%us", s->opts.drain_time_s));
        pb_put_str(&a, o, "parent_shutdown_time", arena_printf(&a, "%us", s->opts.parent_shutdown_time_s));
        pb_put_str(&a, o, "drain_strategy", s->opts.drain_immediately ? STR("Immediate") : STR("Gradual"));
        put(&a, m, "command_line_options", o);
        put(&a, m, "node", dump(&a, &s->node->base, NULL));
        pb_node_json_indent(m, 1, out);
        buf_char(out, '\n');
        arena_fini(&a);
}
