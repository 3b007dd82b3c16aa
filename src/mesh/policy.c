/* DestinationRule and Sidecar, read, and the order in which traffic policies override each other. */
#include "mesh/read.h"

static const struct mesh_policy policy_unset = {
        .connect_timeout_us = -1,
        .tcp_idle_us = -1,
        .tcp_max_duration_us = -1,
        .http_idle_us = -1,
        .max_connections = -1,
        .max_pending = -1,
        .max_requests = -1,
        .max_requests_per_connection = -1,
        .max_retries = -1,
        .max_streams = -1,
        .keepalive_probes = -1,
        .keepalive_time_s = -1,
        .keepalive_interval_s = -1,
        .use_client_protocol = -1,
};

static enum mesh_lb lb_of(struct str name)
{
        static const struct {
                const char *name;
                enum mesh_lb lb;
        } names[] = { { "ROUND_ROBIN", MESH_LB_ROUND_ROBIN },
                      { "LEAST_REQUEST", MESH_LB_LEAST_REQUEST },
                      { "LEAST_CONN", MESH_LB_LEAST_REQUEST },
                      { "RANDOM", MESH_LB_RANDOM },
                      { "PASSTHROUGH", MESH_LB_PASSTHROUGH } };

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (str_eqc(name, names[i].name))
                        return names[i].lb;
        return MESH_LB_UNSET;
}

static enum mesh_tls_mode client_tls(struct str mode)
{
        static const struct {
                const char *name;
                enum mesh_tls_mode mode;
        } names[] = { { "DISABLE", MESH_TLS_DISABLE },
                      { "SIMPLE", MESH_TLS_SIMPLE },
                      { "MUTUAL", MESH_TLS_MUTUAL },
                      { "ISTIO_MUTUAL", MESH_TLS_ISTIO_MUTUAL } };

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (str_eqc(mode, names[i].name))
                        return names[i].mode;
        return MESH_TLS_DISABLE;
}

static int64_t seconds(int64_t us)
{
        return us < 0 ? -1 : us / 1000000;
}

static struct mesh_policy read_policy(struct arena *a, const struct pb_node *n)
{
        struct mesh_policy p = policy_unset;
        const struct pb_node *pool = read_field(n, "connectionPool"), *tcp = read_field(pool, "tcp"), *http = read_field(pool, "http");
        const struct pb_node *ka = read_field(tcp, "tcpKeepalive"), *tls = read_field(n, "tls");
        struct str h2 = read_str(a, http, "h2UpgradePolicy");

        p.lb = lb_of(read_str(a, read_field(n, "loadBalancer"), "simple"));
        p.tls = tls ? client_tls(read_str(a, tls, "mode")) : MESH_TLS_NONE;
        p.connect_timeout_us = read_duration_us(tcp, "connectTimeout", -1);
        p.tcp_idle_us = read_duration_us(tcp, "idleTimeout", -1);
        p.tcp_max_duration_us = read_duration_us(tcp, "maxConnectionDuration", -1);
        p.max_connections = read_i64(tcp, "maxConnections", -1);
        p.keepalive = ka != NULL;
        p.keepalive_probes = read_i64(ka, "probes", -1);
        p.keepalive_time_s = seconds(read_duration_us(ka, "time", -1));
        p.keepalive_interval_s = seconds(read_duration_us(ka, "interval", -1));
        p.http_idle_us = read_duration_us(http, "idleTimeout", -1);
        p.max_pending = read_i64(http, "http1MaxPendingRequests", -1);
        p.max_requests = read_i64(http, "http2MaxRequests", -1);
        p.max_requests_per_connection = read_i64(http, "maxRequestsPerConnection", -1);
        p.max_retries = read_i64(http, "maxRetries", -1);
        p.max_streams = read_i64(http, "maxConcurrentStreams", -1);
        p.h2_upgrade = str_eqc(h2, "UPGRADE") ? 1 : str_eqc(h2, "DO_NOT_UPGRADE") ? 2 : 0;
        p.use_client_protocol = (int8_t)read_bool(http, "useClientProtocol");
        return p;
}

static struct mesh_policy_set read_policy_set(struct arena *a, const struct pb_node *n)
{
        struct mesh_policy_set s = { .all = read_policy(a, n) };
        struct pb_node **v = NULL;

        s.nports = read_list(n, "portLevelSettings", &v);
        s.ports = s.nports ? arena_zalloc(a, s.nports * sizeof(*s.ports)) : NULL;
        for (size_t i = 0; i < s.nports; i++) {
                s.ports[i].port = read_u32(read_field(v[i], "port"), "number");
                s.ports[i].policy = read_policy(a, v[i]);
        }
        return s;
}

void read_destination_rule(struct arena *a, const struct pb_node *object, struct str domain, struct mesh_dr *out)
{
        const struct pb_node *spec = read_field(object, "spec"), *selector = read_field(spec, "workloadSelector");
        struct pb_node **v = NULL;

        out->host = mesh_host_resolve(read_str(a, spec, "host"), out->meta.ns, domain, a);
        out->policy = read_policy_set(a, read_field(spec, "trafficPolicy"));
        out->has_policy = read_field(spec, "trafficPolicy") != NULL;
        out->nsubsets = read_list(spec, "subsets", &v);
        out->subsets = out->nsubsets ? arena_zalloc(a, out->nsubsets * sizeof(*out->subsets)) : NULL;
        for (size_t i = 0; i < out->nsubsets; i++) {
                out->subsets[i].name = read_str(a, v[i], "name");
                out->subsets[i].labels = read_labels(a, read_field(v[i], "labels"));
                out->subsets[i].policy = read_policy_set(a, read_field(v[i], "trafficPolicy"));
        }
        out->export_to = read_export(a, spec);
        out->has_selector = selector != NULL;
        out->selector = read_labels(a, read_field(selector, "matchLabels"));
}

static void override(struct mesh_policy *to, const struct mesh_policy *by)
{
#define TAKE(field, unset)        \
        if (by->field != (unset)) \
        to->field = by->field
        TAKE(lb, MESH_LB_UNSET);
        TAKE(tls, MESH_TLS_NONE);
        TAKE(connect_timeout_us, -1);
        TAKE(tcp_idle_us, -1);
        TAKE(tcp_max_duration_us, -1);
        TAKE(http_idle_us, -1);
        TAKE(max_connections, -1);
        TAKE(max_pending, -1);
        TAKE(max_requests, -1);
        TAKE(max_requests_per_connection, -1);
        TAKE(max_retries, -1);
        TAKE(max_streams, -1);
        TAKE(h2_upgrade, 0);
        TAKE(use_client_protocol, -1);
#undef TAKE
        if (by->keepalive) {
                to->keepalive = true;
                to->keepalive_probes = by->keepalive_probes;
                to->keepalive_time_s = by->keepalive_time_s;
                to->keepalive_interval_s = by->keepalive_interval_s;
        }
}

/* A port's settings replace those of the whole host: fields they leave out get defaults, not the host's values (Istio's documented rule).
 */
static void apply(struct mesh_policy *out, const struct mesh_policy_set *set, uint32_t port)
{
        override(out, &set->all);
        for (size_t i = 0; i < set->nports; i++) {
                if (set->ports[i].port != port)
                        continue;
                *out = policy_unset;
                override(out, &set->ports[i].policy);
        }
}

void mesh_policy_for(const struct mesh_dr *dr, const struct mesh_subset *subset, uint32_t port, struct mesh_policy *out)
{
        *out = policy_unset;
        if (!dr)
                return;
        apply(out, &dr->policy, port);
        if (subset)
                apply(out, &subset->policy, port);
}

const struct mesh_subset *mesh_subset_find(const struct mesh_dr *dr, struct str name)
{
        for (size_t i = 0; dr && i < dr->nsubsets; i++)
                if (str_eq(dr->subsets[i].name, name))
                        return &dr->subsets[i];
        return NULL;
}

void read_sidecar(struct arena *a, const struct pb_node *object, struct mesh_sidecar *out)
{
        const struct pb_node *spec = read_field(object, "spec"), *selector = read_field(spec, "workloadSelector");
        const struct pb_node *policy = read_field(spec, "outboundTrafficPolicy");
        struct pb_node **v = NULL;

        out->has_selector = selector != NULL;
        out->selector = read_labels(a, read_field(selector, "labels"));
        out->has_policy = policy != NULL;
        out->allow_any = str_eqc(read_str(a, policy, "mode"), "ALLOW_ANY");
        out->negress = read_list(spec, "egress", &v);
        out->egress = out->negress ? arena_zalloc(a, out->negress * sizeof(*out->egress)) : NULL;
        for (size_t i = 0; i < out->negress; i++) {
                struct mesh_sidecar_egress *e = &out->egress[i];
                const struct pb_node *port = read_field(v[i], "port");
                struct str *hosts = read_strs(a, v[i], "hosts", &e->nhosts);

                e->has_port = port != NULL;
                e->port = read_port(a, port);
                e->bind = read_str(a, v[i], "bind");
                e->hosts = e->nhosts ? arena_zalloc(a, e->nhosts * sizeof(*e->hosts)) : NULL;
                for (size_t j = 0; j < e->nhosts; j++) {
                        ptrdiff_t slash = str_chr(hosts[j], '/');
                        struct str ns = slash < 0 ? STR("*") : str_sub(hosts[j], 0, (size_t)slash);

                        e->hosts[j].ns = str_eqc(ns, ".") ? out->meta.ns : ns;
                        e->hosts[j].host = slash < 0 ? hosts[j] : str_sub(hosts[j], (size_t)slash + 1, hosts[j].n);
                }
        }
}
