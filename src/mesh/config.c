/* The mesh configuration: the YAML text under `mesh` in ConfigMap istio-system/istio. */
#include "mesh/read.h"

#include "base/mem.h"

#define TEXT(lit)                      \
        {                              \
                (lit), sizeof(lit) - 1 \
        }

const struct mesh_config mesh_config_default = {
        .version = 1,
        .trust_domain = TEXT("cluster.local"),
        .root_ns = TEXT("istio-system"),
        .domain = TEXT("cluster.local"),
        .cluster_id = TEXT("Kubernetes"),
        .allow_any = true,
        .normalize_path = true,
        .sampling = 1,
        .access_log_format = TEXT(
                "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% "
                "%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% "
                "%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" "
                "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% "
                "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"),
        .connect_timeout_us = 10 * 1000000,
        .dns_refresh_us = 60 * 1000000,
        .keepalive_probes = -1,
        .keepalive_time_s = -1,
        .keepalive_interval_s = -1,
};

static int64_t seconds(const struct pb_node *map, const char *field)
{
        int64_t us = read_duration_us(map, field, -1);

        return us < 0 ? -1 : us / 1000000;
}

static void read_normalization(struct arena *a, const struct pb_node *mesh, struct mesh_config *c)
{
        struct str n = read_str(a, read_field(mesh, "pathNormalization"), "normalization");

        if (str_eqc(n, "NONE"))
                c->normalize_path = false;
        c->merge_slashes = str_eqc(n, "MERGE_SLASHES") || str_eqc(n, "DECODE_AND_MERGE_SLASHES");
        c->unescape_slashes = str_eqc(n, "DECODE_AND_MERGE_SLASHES");
}

static void read_access_log(struct arena *a, const struct pb_node *mesh, struct mesh_config *c, struct diags *d)
{
        struct str format = read_str(a, mesh, "accessLogFormat");

        c->access_log_file = read_str(a, mesh, "accessLogFile");
        c->access_log_json = str_eqc(read_str(a, mesh, "accessLogEncoding"), "JSON");
        if (c->access_log_json) {
                c->access_log_format = (struct str){ 0 };
                if (format.n)
                        pb_parse_json(format, STR("meshConfig.accessLogFormat"), a, &c->access_log_json_format, d);
        } else if (format.n) {
                c->access_log_format = format.p[format.n - 1] == '\n' ? format : arena_printf(a, STR_FMT "\n", STR_ARG(format));
        }
}

bool read_mesh_config(struct arena *a, const struct pb_node *object, struct str file, struct mesh_config *c, struct diags *d)
{
        struct pb_node **providers;
        struct str text = read_str(a, read_field(object, "data"), "mesh");
        struct pb_node **docs = NULL;
        size_t ndocs = 0, errors = d->errors;
        const struct pb_node *mesh, *ka, *tracing;
        struct str s;

        *c = mesh_config_default;
        if (text.n && !pb_parse_yaml(text, file, a, &docs, &ndocs, d))
                return false;
        mesh = ndocs ? docs[0] : NULL;
        read_access_log(a, mesh, c, d);
        read_normalization(a, mesh, c);
        s = read_str(a, mesh, "trustDomain");
        if (s.n)
                c->trust_domain = s;
        s = read_str(a, mesh, "rootNamespace");
        if (s.n)
                c->root_ns = s;
        s = read_str(a, read_field(mesh, "outboundTrafficPolicy"), "mode");
        if (s.n)
                c->allow_any = str_eqc(s, "ALLOW_ANY");
        else if (read_field(mesh, "outboundTrafficPolicy"))
                c->allow_any = false; /* REGISTRY_ONLY is the enum's zero */
        for (size_t i = 0, n = read_list(read_field(mesh, "defaultProviders"), "metrics", &providers); i < n; i++)
                c->metrics |= str_eqc(providers[i]->text, "prometheus");
        c->enable_tracing = read_bool(mesh, "enableTracing") == 1;
        tracing = read_field(read_field(mesh, "defaultConfig"), "tracing");
        c->sampling = read_double(tracing, "sampling", c->sampling);
        c->connect_timeout_us = read_duration_us(mesh, "connectTimeout", c->connect_timeout_us);
        c->dns_refresh_us = read_duration_us(mesh, "dnsRefreshRate", c->dns_refresh_us);
        c->protocol_detection_us = read_duration_us(mesh, "protocolDetectionTimeout", 0);
        ka = read_field(mesh, "tcpKeepalive");
        if (ka) {
                c->tcp_keepalive = true;
                c->keepalive_probes = read_i64(ka, "probes", -1);
                c->keepalive_time_s = seconds(ka, "time");
                c->keepalive_interval_s = seconds(ka, "interval");
        }
        return d->errors == errors;
}
