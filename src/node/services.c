/* Everything is computed anew at each change: a few hundred Services take less time than the kernel's transaction. */
#include "node/services.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/service.h"

#include <stdlib.h>

enum { SERVICES_RETRY_MS = 1000, SERVICES_ENDPOINTS_MAX = 4096 };

static bool is_v4_vip(struct str ip, struct addr *vip)
{
        return ip.n && !str_eqc(ip, "None") && addr_parse_ip(vip, ip, 0) && vip->sa.sa_family == AF_INET;
}

static bool slice_of(const struct kube_object *slice, struct str ns, struct str service)
{
        return str_eq(slice->namespace_, ns) &&
               str_eq(spec_map_str(slice->node, "metadata.labels", STR("kubernetes.io/service-name")), service);
}

/* ---- the table ---- */

struct table {
        struct node *node;
        struct arena arena;
        struct service_port *v;
        size_t n, cap;
};

struct collect {
        struct table *t;
        const struct kube_object *service;
        struct str port_name;
        struct addr *v;
        size_t n, cap;
};

/* The port of a slice that belongs to the Service's port: they share the name. 0: none. */
static uint16_t slice_port(const struct pb_node *slice, struct str name)
{
        const struct pb_node *ports = spec_list(slice, "ports");

        for (size_t i = 0; i < ports->n; i++)
                if (str_eq(spec_str(ports->v[i], "name"), name))
                        return (uint16_t)spec_int(ports->v[i], "port", 0);
        return 0;
}

static void collect_slice(void *arg, struct kube_object *slice)
{
        struct collect *c = arg;
        const struct pb_node *endpoints = spec_list(slice->node, "endpoints");
        bool unready_too = spec_bool(c->service->node, "spec.publishNotReadyAddresses", false);

        if (!slice_of(slice, c->service->namespace_, c->service->name))
                return;
        uint16_t port = slice_port(slice->node, c->port_name);
        for (size_t i = 0; port && i < endpoints->n && c->n < SERVICES_ENDPOINTS_MAX; i++) {
                const struct pb_node *addresses = spec_list(endpoints->v[i], "addresses");
                struct addr ip;
                if (!unready_too && !spec_bool(endpoints->v[i], "conditions.ready", true))
                        continue;
                if (addresses->n && addr_parse_ip(&ip, addresses->v[0]->text, port) && ip.sa.sa_family == AF_INET)
                        VEC_PUSH(c->v, c->n, c->cap) = ip;
        }
}

static void table_service(void *arg, struct kube_object *o)
{
        struct table *t = arg;
        const struct pb_node *ports = spec_list(o->node, "spec.ports");
        struct addr vip;

        if (!is_v4_vip(spec_str(o->node, "spec.clusterIP"), &vip) || str_eqc(spec_str(o->node, "spec.type"), "ExternalName"))
                return;
        if (addr_ip_eq(&vip, &t->node->net.dns))
                return; /* the node answers there itself */
        for (size_t i = 0; i < ports->n; i++) {
                struct collect c = { .t = t, .service = o, .port_name = spec_str(ports->v[i], "name") };
                struct str protocol = spec_str(ports->v[i], "protocol");
                int64_t port = spec_int(ports->v[i], "port", 0);
                if (port < 1 || port > 65535 || str_eqc(protocol, "SCTP"))
                        continue;
                kube_informer_each(t->node->slices, collect_slice, &c);
                addr_set_port(&vip, (uint16_t)port);
                VEC_PUSH(t->v, t->n, t->cap) = (struct service_port){
                        .vip = vip,
                        .udp = str_eqc(protocol, "UDP"),
                        .client_ip = str_eqc(spec_str(o->node, "spec.sessionAffinity"), "ClientIP"),
                        .endpoints = c.n ? arena_dup(&t->arena, c.v, c.n * sizeof(*c.v)) : NULL,
                        .nendpoints = c.n,
                };
                free(c.v);
        }
}

void services_apply(struct node *n)
{
        struct table t = { .node = n };
        struct buf error = BUF_INIT;

        if (n->closing || !kube_informer_synced(n->services) || !kube_informer_synced(n->slices)) {
                if (!n->closing)
                        loop_timer_arm(n->loop, &n->services_timer, 20);
                return;
        }
        arena_init(&t.arena, 4096);
        kube_informer_each(n->services, table_service, &t);
        if (service_apply(n->net.netns, t.v, t.n, &n->net.services, &n->net.dns, &error) < 0) {
                LOG(LOG_ERROR, "node", "the table of Services was not taken: %s", buf_z(&error));
                loop_timer_arm(n->loop, &n->services_timer, SERVICES_RETRY_MS);
        }
        buf_fini(&error);
        free(t.v);
        arena_fini(&t.arena);
}

/* ---- endpoints for DNS ---- */

struct endpoints_walk {
        struct str ns, service;
        void (*fn)(void *arg, const struct services_endpoint *e);
        void *arg;
};

static void walk_slice(void *arg, struct kube_object *slice)
{
        struct endpoints_walk *w = arg;
        const struct pb_node *endpoints = spec_list(slice->node, "endpoints");

        if (!slice_of(slice, w->ns, w->service))
                return;
        for (size_t i = 0; i < endpoints->n; i++) {
                const struct pb_node *addresses = spec_list(endpoints->v[i], "addresses");
                struct services_endpoint e = { .hostname = spec_str(endpoints->v[i], "hostname"),
                                               .ready = spec_bool(endpoints->v[i], "conditions.ready", true) };
                for (size_t k = 0; k < addresses->n; k++)
                        if (addr_parse_ip(&e.ip, addresses->v[k]->text, 0))
                                w->fn(w->arg, &e);
        }
}

void services_endpoints(struct node *n, struct str ns, struct str service, void (*fn)(void *arg, const struct services_endpoint *e),
                        void *arg)
{
        struct endpoints_walk w = { ns, service, fn, arg };

        kube_informer_each(n->slices, walk_slice, &w);
}

/* ---- variables of pods ---- */

struct env_walk {
        struct str ns;
        void (*add)(void *out, struct str name, struct str value);
        void *out;
        struct arena arena;
};

static void env_add(struct env_walk *w, const char *prefix, const char *suffix, struct str value)
{
        w->add(w->out, arena_printf(&w->arena, "%s%s", prefix, suffix), value);
}

static void env_port(struct env_walk *w, const char *name, struct str ip, const struct pb_node *port, bool first)
{
        struct str protocol = spec_str(port, "protocol"), number = spec_str(port, "port"), port_name = spec_str(port, "name");
        bool udp = str_eqc(protocol, "UDP");
        struct str url = arena_printf(&w->arena, "%s://" STR_FMT ":" STR_FMT, udp ? "udp" : "tcp", STR_ARG(ip), STR_ARG(number));
        const char *base = arena_printf(&w->arena, "%s_PORT_" STR_FMT "_%s", name, STR_ARG(number), udp ? "UDP" : "TCP").p;

        if (first) {
                env_add(w, name, "_SERVICE_PORT", number);
                env_add(w, name, "_PORT", url);
        }
        if (port_name.n) {
                struct str key = arena_printf(&w->arena, "_SERVICE_PORT_" STR_FMT, STR_ARG(port_name));
                for (char *p = (char *)key.p; *p; p++)
                        *p = *p == '-' || *p == '.' ? '_' : (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
                env_add(w, name, key.p, number);
        }
        env_add(w, base, "", url);
        env_add(w, base, "_PROTO", udp ? STR("udp") : STR("tcp"));
        env_add(w, base, "_PORT", number);
        env_add(w, base, "_ADDR", ip);
}

static void env_service(void *arg, struct kube_object *o)
{
        struct env_walk *w = arg;
        bool api = str_eqc(o->namespace_, "default") && str_eqc(o->name, "kubernetes");
        const struct pb_node *ports = spec_list(o->node, "spec.ports");
        struct str ip = spec_str(o->node, "spec.clusterIP");
        struct addr vip;

        if (!is_v4_vip(ip, &vip) || !(api || str_eq(o->namespace_, w->ns)))
                return;
        char *name = (char *)arena_str(&w->arena, o->name).p;
        for (char *p = name; *p; p++)
                *p = *p == '-' ? '_' : (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
        env_add(w, name, "_SERVICE_HOST", ip);
        for (size_t i = 0; i < ports->n; i++)
                env_port(w, name, ip, ports->v[i], i == 0);
}

void node_service_env(struct node *n, struct str ns, void (*add)(void *out, struct str name, struct str value), void *out)
{
        struct env_walk w = { .ns = ns, .add = add, .out = out };

        arena_init(&w.arena, 4096);
        kube_informer_each(n->services, env_service, &w);
        arena_fini(&w.arena);
}
