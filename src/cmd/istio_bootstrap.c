/* The node's identity and metadata follow Istio's agent, because control planes read them: LABELS, NAMESPACE, INSTANCE_IPS and so on select
 * what this proxy is told, and peers see some of them in x-envoy-peer-metadata. */
#include "cmd/istio_bootstrap.h"

#include "pb/pb.h"

#define ISTIO_COMPAT_VERSION "1.32.0" /* the API that this proxy speaks; control planes and peers read it */

static const char default_discovery[] = "istiod.istio-system.svc:15010";

static struct str var(const struct istio_env *e, const char *name, struct str otherwise)
{
        const char *v = e->get(e->arg, name);

        return v && *v ? str_of(v) : otherwise;
}

static struct pb_node *map(struct arena *a)
{
        return pb_new(a, PB_MAP, (struct str){ 0 });
}

static void put(struct arena *a, struct pb_node *m, const char *key, struct str v)
{
        if (v.n)
                pb_put_str(a, m, key, v);
}

/* A line of the downward API's file: key="value with \" and \\ escaped". */
static void read_labels(struct arena *a, struct str file, struct pb_node *into)
{
        struct str line;

        while (file.n && str_next(&file, '\n', &line)) {
                ptrdiff_t eq = str_chr(line, '=');
                struct buf v = BUF_INIT;

                if (eq <= 0)
                        continue;
                struct str raw = str_sub(line, (size_t)eq + 1, line.n);

                if (raw.n >= 2 && raw.p[0] == '"' && raw.p[raw.n - 1] == '"')
                        raw = str_sub(raw, 1, raw.n - 2);
                for (size_t i = 0; i < raw.n; i++) {
                        char c = raw.p[i];

                        if (c == '\\' && i + 1 < raw.n) {
                                c = raw.p[++i];
                                c = c == 'n' ? '\n' : c == 't' ? '\t' : c;
                        }
                        buf_char(&v, c);
                }
                pb_put(a, into, arena_str(a, str_sub(line, 0, (size_t)eq)), pb_new(a, PB_STRING, arena_str(a, buf_view(&v))));
                buf_fini(&v);
        }
}

/* ISTIO_META_X=text and ISTIO_METAJSON_X={...}, as the agent takes them. */
static void read_meta(struct arena *a, const struct istio_env *e, struct pb_node *meta, struct diags *d)
{
        static const struct str plain = { "ISTIO_META_", 11 }, json = { "ISTIO_METAJSON_", 15 };
        const char *pair;

        for (unsigned i = 0; (pair = e->at(e->arg, i)) != NULL; i++) {
                struct str s = str_of(pair);
                ptrdiff_t eq = str_chr(s, '=');
                struct str name = eq < 0 ? s : str_sub(s, 0, (size_t)eq), value = eq < 0 ? STR("") : str_sub(s, (size_t)eq + 1, s.n);
                struct pb_node *n;

                if (str_starts(name, json)) {
                        struct diag_at at = { .file = arena_str(a, name) };

                        if (pb_parse_json(value, at.file, a, &n, d))
                                pb_put(a, meta, str_sub(name, json.n, name.n), n);
                } else if (str_starts(name, plain) && value.n) {
                        pb_put(a, meta, str_sub(name, plain.n, name.n), pb_new(a, PB_STRING, value));
                }
        }
}

static struct pb_node *read_config(struct arena *a, const struct istio_env *e, struct diags *d)
{
        struct str text = var(e, "PROXY_CONFIG", STR("{}"));
        struct pb_node **docs;
        size_t n;

        if (!pb_parse_yaml(text, STR("PROXY_CONFIG"), a, &docs, &n, d))
                return NULL;
        return n && docs[0]->kind == PB_MAP ? docs[0] : map(a);
}

/* "5s", "1m30s", "1.5s" in whole seconds, rounded up. */
static bool seconds(struct str s, unsigned *out)
{
        double total = 0, v = 0, scale = 0;
        bool digits = false;

        for (size_t i = 0; i < s.n; i++) {
                char c = s.p[i];

                if (c >= '0' && c <= '9') {
                        v = scale > 0 ? v + (c - '0') * scale : v * 10 + (c - '0');
                        scale = scale > 0 ? scale / 10 : 0;
                        digits = true;
                } else if (c == '.' && scale <= 0) {
                        scale = 0.1;
                } else if (digits && (c == 's' || c == 'm' || c == 'h')) {
                        bool ms = c == 'm' && i + 1 < s.n && s.p[i + 1] == 's';

                        total += v * (ms ? 0.001 : c == 's' ? 1 : c == 'm' ? 60 : 3600);
                        i += ms;
                        v = scale = 0;
                        digits = false;
                } else {
                        return false;
                }
        }
        if (digits || total > 86400)
                return false;
        *out = (unsigned)(total + 0.999);
        return true;
}

static void duration_of(const struct pb_node *config, const char *key, unsigned otherwise, unsigned *out, struct diags *d)
{
        struct str v = pb_get_str(config, key, STR(""));
        struct diag_at at = { .file = STR("PROXY_CONFIG"), .path = str_of(key) };

        *out = otherwise;
        if (v.n && !seconds(v, out))
                diag_add(d, DIAG_ERROR, NULL, &at, "\"" STR_FMT "\" is not a duration of at most a day, such as 5s", STR_ARG(v));
}

static bool discovery(struct str address, struct str *host, unsigned *port, struct diags *d)
{
        ptrdiff_t colon = str_rchr(address, ':');
        struct diag_at at = { .file = STR("PROXY_CONFIG"), .path = STR("discoveryAddress") };
        uint64_t p = 0;

        *host = colon < 0 ? address : str_sub(address, 0, (size_t)colon);
        if (host->n > 2 && host->p[0] == '[')
                *host = str_sub(*host, 1, host->n - 2);
        if (colon <= 0 || !host->n || !str_u64(str_sub(address, (size_t)colon + 1, address.n), &p) || !p || p > 65535) {
                diag_add(d, DIAG_ERROR, NULL, &at, "\"" STR_FMT "\" is not HOST:PORT", STR_ARG(address));
                return false;
        }
        if (p == 15012) {
                diag_add(d, DIAG_ERROR, NULL, &at,
                         "port 15012 needs certificates, which this version does not have; use the plain port 15010");
                return false;
        }
        *port = (unsigned)p;
        return true;
}

static void cluster(struct buf *b, const char *name, const char *type, struct str host, unsigned port, bool h2)
{
        buf_printf(b, "{\"name\":\"%s\",\"type\":\"%s\",\"connect_timeout\":\"1s\",\"lb_policy\":\"ROUND_ROBIN\",", name, type);
        if (h2)
                buf_cstr(b, "\"dns_lookup_family\":\"V4_PREFERRED\",\"dns_refresh_rate\":\"60s\",\"respect_dns_ttl\":true,"
                            "\"upstream_connection_options\":{\"tcp_keepalive\":{\"keepalive_time\":300}},"
                            "\"typed_extension_protocol_options\":{\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\":{\"@type\":"
                            "\"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\","
                            "\"explicit_http_config\":{\"http2_protocol_options\":{}}}},");
        buf_printf(b,
                   "\"load_assignment\":{\"cluster_name\":\"%s\",\"endpoints\":[{\"lb_endpoints\":[{\"endpoint\":{\"address\":{\"socket_"
                   "address\":{\"address\":",
                   name);
        buf_json(b, host);
        buf_printf(b, ",\"port_value\":%u}}}}]}]}}", port);
}

static bool is_ip(struct str s)
{
        bool v4 = s.n > 0;

        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] == ':')
                        return true;
                v4 = v4 && ((s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '.');
        }
        return v4;
}

static struct pb_node *metadata(struct arena *a, const struct istio_env *e, struct str pod, struct str ns, struct str ip,
                                struct pb_node *config, struct diags *d)
{
        struct pb_node *m = map(a), *labels = map(a), *annotations = map(a);

        put(a, m, "CLUSTER_ID", STR("Kubernetes"));
        put(a, m, "MESH_ID", STR("cluster.local"));
        put(a, m, "ISTIO_VERSION", STR(ISTIO_COMPAT_VERSION));
        read_meta(a, e, m, d);
        put(a, m, "NAME", pod);
        put(a, m, "NAMESPACE", ns);
        put(a, m, "INSTANCE_IPS", var(e, "INSTANCE_IPS", ip));
        put(a, m, "SERVICE_ACCOUNT", var(e, "SERVICE_ACCOUNT", STR("")));
        put(a, m, "ENVOY_PROMETHEUS_PORT", STR("15090"));
        put(a, m, "ENVOY_STATUS_PORT", STR("15021"));
        read_labels(a, e->labels, labels);
        read_labels(a, e->annotations, annotations);
        if (labels->n)
                pb_put(a, m, STR("LABELS"), labels);
        if (annotations->n)
                pb_put(a, m, STR("ANNOTATIONS"), annotations);
        if (config->n)
                pb_put(a, m, STR("PROXY_CONFIG"), config);
        return m;
}

static void write_json(struct buf *b, const struct istio_bootstrap *out, const struct pb_node *meta, struct str host, unsigned port)
{
        buf_cstr(b, "{\"node\":{\"id\":");
        buf_json(b, out->node_id);
        buf_cstr(b, ",\"cluster\":");
        buf_json(b, out->service_cluster);
        buf_cstr(b, ",\"metadata\":");
        pb_node_json(meta, b);
        buf_cstr(b, "},\"admin\":{\"address\":{\"socket_address\":{\"address\":\"127.0.0.1\",\"port_value\":15000}}},"
                    "\"dynamic_resources\":{"
                    "\"lds_config\":{\"ads\":{},\"initial_fetch_timeout\":\"0s\",\"resource_api_version\":\"V3\"},"
                    "\"cds_config\":{\"ads\":{},\"initial_fetch_timeout\":\"0s\",\"resource_api_version\":\"V3\"},"
                    "\"ads_config\":{\"api_type\":\"DELTA_GRPC\",\"set_node_on_first_message_only\":true,\"transport_api_version\":\"V3\","
                    "\"grpc_services\":[{\"envoy_grpc\":{\"cluster_name\":\"xds-grpc\"}}]}},"
                    "\"static_resources\":{\"clusters\":[");
        cluster(b, "prometheus_stats", "STATIC", STR("127.0.0.1"), 15000, false);
        buf_char(b, ',');
        cluster(b, "agent", "STATIC", STR("127.0.0.1"), 15020, false);
        buf_char(b, ',');
        cluster(b, "xds-grpc", is_ip(host) ? "STATIC" : "STRICT_DNS", host, port, true);
        buf_cstr(b, "]}}");
}

bool istio_bootstrap_make(const char *role, const char *domain, const char *service_cluster, const struct istio_env *env, struct arena *a,
                          struct istio_bootstrap *out, struct diags *d)
{
        struct str pod = var(env, "POD_NAME", STR("")), ns = var(env, "POD_NAMESPACE", STR("")), ip = var(env, "INSTANCE_IP", STR(""));
        struct pb_node *config = read_config(a, env, d), *meta;
        struct str host, workload, dom = domain && *domain ? str_of(domain) : (struct str){ 0 };
        struct diag_at at = { 0 };
        struct buf b = BUF_INIT;
        uint64_t n = 2;
        unsigned port;

        if (!pod.n || !ns.n || !ip.n) {
                diag_add(d, DIAG_ERROR, NULL, &at,
                         "the environment lacks %s: this mode is for pods of a mesh, where the injected container has it",
                         !pod.n  ? "POD_NAME"
                         : !ns.n ? "POD_NAMESPACE"
                                 : "INSTANCE_IP");
                return false;
        }
        if (!config || !discovery(pb_get_str(config, "discoveryAddress", str_of(default_discovery)), &host, &port, d))
                return false;
        if (!dom.n)
                dom = arena_printf(a, STR_FMT ".svc.cluster.local", STR_ARG(ns));
        meta = metadata(a, env, pod, ns, ip, config, d);
        workload = pb_get_str(meta, "WORKLOAD_NAME", pod);
        out->node_id = arena_printf(a, "%s~" STR_FMT "~" STR_FMT "." STR_FMT "~" STR_FMT, role, STR_ARG(ip), STR_ARG(pod), STR_ARG(ns),
                                    STR_ARG(dom));
        out->service_cluster = service_cluster && *service_cluster ? str_of(service_cluster)
                                                                   : arena_printf(a, STR_FMT "." STR_FMT, STR_ARG(workload), STR_ARG(ns));
        if (pb_get(config, "concurrency") && (!str_u64(pb_get(config, "concurrency")->text, &n) || n > 256)) {
                at = (struct diag_at){ .file = STR("PROXY_CONFIG"), .path = STR("concurrency") };
                diag_add(d, DIAG_ERROR, NULL, &at, "must be a number of threads, 0 (one for each CPU) to 256");
        }
        out->concurrency = (unsigned)n;
        duration_of(config, "drainDuration", 45, &out->drain_s, d);
        duration_of(config, "terminationDrainDuration", 5, &out->termination_drain_s, d);
        if (d->errors)
                return false;
        write_json(&b, out, meta, host, port);
        out->json = arena_str(a, buf_view(&b));
        buf_fini(&b);
        return true;
}
