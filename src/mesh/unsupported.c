/* What Istio knows and this release does not do, field by field, so that nothing is dropped in silence: the warning says what happens
 * instead. A row goes away with the work that makes it untrue. */
#include "mesh/walk.h"

#include "base/mem.h"

#include <stdio.h>

struct row {
        const char *pattern;
        const char *values; /* only these values (separated by "|"); NULL: any */
        const char *instead;
};

static const struct row virtual_service[] = {
        { "spec.http[].mirror", NULL, "requests are not mirrored" },
        { "spec.http[].mirrors[]", NULL, "requests are not mirrored" },
        { "spec.http[].mirrorPercent", NULL, "requests are not mirrored" },
        { "spec.http[].mirrorPercentage", NULL, "requests are not mirrored" },
        { "spec.http[].fault", NULL, "no fault is injected" },
        { "spec.http[].delegate", NULL, "the delegate's routes are not used; write them here" },
        { "spec.http[].retries.retryRemoteLocalities", NULL, "retries do not prefer another locality" },
        { "spec.http[].directResponse.body.bytes", NULL, "the response has no body; use body.string" },
        { "spec.tcp[].match[].sourceSubnet", NULL, "the match ignores it" },
};

#define POLICY(at)                                                                                              \
        { at ".outlierDetection", NULL, "no host is ejected" },                                                 \
                { at ".loadBalancer.consistentHash", NULL, "the default load balancing is used" },              \
                { at ".loadBalancer.localityLbSetting", NULL, "all localities are used alike" },                \
                { at ".loadBalancer.zoneAwareLbSetting", NULL, "all zones are used alike" },                    \
                { at ".loadBalancer.warmup", NULL, "new hosts get their full share at once" },                  \
                { at ".loadBalancer.warmupDurationSecs", NULL, "new hosts get their full share at once" },      \
                { at ".connectionPool.tcp.maxConnectionDuration", NULL, "connections have no maximum age" },    \
                { at ".tunnel", NULL, "connections are not tunnelled" },                                        \
                { at ".proxyProtocol", NULL, "the PROXY protocol is not spoken to the hosts" },                 \
                { at ".retryBudget", NULL, "retries are bounded by connectionPool.http.maxRetries only" },      \
        {                                                                                                       \
                at ".tls.mode", "SIMPLE|MUTUAL|ISTIO_MUTUAL",                                                   \
                        "it needs certificates; connections to this host fail rather than go out in clear text" \
        }

static const struct row destination_rule[] = {
        POLICY("spec.trafficPolicy"),
        POLICY("spec.trafficPolicy.portLevelSettings[]"),
        POLICY("spec.subsets[].trafficPolicy"),
        POLICY("spec.subsets[].trafficPolicy.portLevelSettings[]"),
};

static const struct row gateway[] = {
        { "spec.servers[].bind", NULL, "the server listens on all addresses" },
        { "spec.servers[].defaultEndpoint", NULL, "it is not used" },
        { "spec.servers[].port.targetPort", NULL, "the server listens where the gateway's Service sends the port" },
        { "spec.servers[].tls.mode", "SIMPLE|MUTUAL|ISTIO_MUTUAL|OPTIONAL_MUTUAL", "it needs certificates; the server does not listen" },
        { "spec.servers[].tls.mode", "AUTO_PASSTHROUGH", "the server does not listen; use PASSTHROUGH" },
};

static const struct row service_entry[] = {
        { "spec.resolution", "DYNAMIC_DNS", "it is treated as NONE" },
        { "spec.subjectAltNames", NULL, "no certificate is checked, because no TLS is spoken yet" },
        { "spec.endpoints[].network", NULL, "the endpoint is reached directly" },
        { "spec.endpoints[].serviceAccount", NULL, "identities are not checked, because no TLS is spoken yet" },
};

static const struct row workload_entry[] = {
        { "spec.network", NULL, "the workload is reached directly" },
        { "spec.serviceAccount", NULL, "identities are not checked, because no TLS is spoken yet" },
};

static const struct row sidecar[] = {
        { "spec.ingress", NULL, "inbound listeners follow the Services of the workload" },
        { "spec.inboundConnectionPool", NULL, "inbound connections are not limited" },
        { "spec.egress[].port", NULL, "the hosts are visible on all their ports" },
        { "spec.egress[].bind", NULL, "no listener of its own is opened" },
        { "spec.egress[].captureMode", "IPTABLES|NONE", "traffic is always redirected" },
        { "spec.outboundTrafficPolicy.egressProxy", NULL, "unknown destinations are handled by mode alone" },
};

static const struct row service[] = {
        { "spec.type", "ExternalName", "the mesh does not know this host; declare a ServiceEntry for it" },
};

/* What the mesh configuration may say without a warning. */
static const char *const mesh_config_done[] = {
        "accessLogFile",
        "accessLogFormat",
        "accessLogEncoding",
        "outboundTrafficPolicy",
        "enableTracing",
        "defaultProviders",
        "trustDomain",
        "rootNamespace",
        "connectTimeout",
        "dnsRefreshRate",
        "protocolDetectionTimeout",
        "tcpKeepalive",
        "pathNormalization",
        "defaultConfig",
};

static const struct {
        const char *kind, *group;
        const struct row *rows; /* NULL: the whole kind */
        size_t n;
        const char *instead;
} kinds[] = {
        { "VirtualService", "networking.istio.io/", virtual_service, ARRAY_LEN(virtual_service), NULL },
        { "DestinationRule", "networking.istio.io/", destination_rule, ARRAY_LEN(destination_rule), NULL },
        { "Gateway", "networking.istio.io/", gateway, ARRAY_LEN(gateway), NULL },
        { "ServiceEntry", "networking.istio.io/", service_entry, ARRAY_LEN(service_entry), NULL },
        { "WorkloadEntry", "networking.istio.io/", workload_entry, ARRAY_LEN(workload_entry), NULL },
        { "Sidecar", "networking.istio.io/", sidecar, ARRAY_LEN(sidecar), NULL },
        { "Service", "v1", service, ARRAY_LEN(service), NULL },
        { "PeerAuthentication", "security.istio.io/", NULL, 0, "traffic inside the mesh stays in clear text and is not authenticated" },
        { "AuthorizationPolicy", "security.istio.io/", NULL, 0, "nothing is denied by it" },
        { "RequestAuthentication", "security.istio.io/", NULL, 0, "tokens are not checked" },
        { "Telemetry", "telemetry.istio.io/", NULL, 0, "logs, metrics and traces follow meshConfig" },
        { "EnvoyFilter", "networking.istio.io/", NULL, 0, "the generated configuration is not patched" },
        { "ProxyConfig", "networking.istio.io/", NULL, 0, "proxies start with meshConfig.defaultConfig" },
        { "WorkloadGroup", "networking.istio.io/", NULL, 0, "no WorkloadEntry is made from it" },
        { "WasmPlugin", "extensions.istio.io/", NULL, 0, "the plugin does not run" },
        { "TrafficExtension", "extensions.istio.io/", NULL, 0, "the extension does not run" },
};

struct context {
        struct diags *d;
        struct str file, resource;
        const struct row *row;
};

static void warn(struct context *c, const struct pb_node *n, const char *path, const char *what, const char *instead)
{
        struct diag_at at = {
                .file = c->file, .resource = c->resource, .path = str_of(path), .line = n ? n->line : 0, .column = n ? n->column : 0
        };

        diag_add(c->d, DIAG_WARNING, "PST0303", &at, "%s is not in this release: %s", what, instead);
}

static bool listed(const char *list, struct str v)
{
        struct str rest = str_of(list), part;

        while (str_next(&rest, '|', &part))
                if (str_eq(part, v))
                        return true;
        return false;
}

static void found(void *arg, const struct pb_node *n, const struct pb_node *parent, const char *path)
{
        struct context *c = arg;
        const char *field = strrchr(path, '.');
        char what[160];

        if (c->row->values && !listed(c->row->values, n->text))
                return;
        if (c->row->values)
                snprintf(what, sizeof(what), "%s " STR_FMT, field ? field + 1 : path, STR_ARG(n->text));
        else
                snprintf(what, sizeof(what), "%s", field ? field + 1 : path);
        warn(c, n, path, what, c->row->instead);
}

static void mesh_config(struct context *c, const struct pb_node *object, struct arena *a)
{
        const struct pb_node *text = read_field(read_field(object, "data"), "mesh");
        struct pb_node **docs = NULL;
        struct diags ignored; /* mesh_validate() has said it */
        size_t n = 0;

        diags_init(&ignored);
        if (text && text->text.n && pb_parse_yaml(text->text, STR("data.mesh"), a, &docs, &n, &ignored) && n && docs[0]->kind == PB_MAP) {
                for (size_t i = 0; i < docs[0]->n; i++) {
                        bool done = false;
                        char name[128];

                        for (size_t j = 0; j < ARRAY_LEN(mesh_config_done); j++)
                                done |= str_eqc(docs[0]->keys[i], mesh_config_done[j]);
                        snprintf(name, sizeof(name), STR_FMT, STR_ARG(docs[0]->keys[i]));
                        if (!done)
                                warn(c, docs[0]->v[i], name, name, "it has no effect");
                }
        }
        diags_fini(&ignored);
}

void mesh_unsupported(const struct pb_node *object, struct str file, struct diags *d)
{
        struct str kind = pb_get_str(object, "kind", STR("")), group = pb_get_str(object, "apiVersion", STR(""));
        struct context c = { .d = d, .file = file };
        struct arena a;

        arena_init(&a, 1024);
        c.resource = walk_resource(&a, object);
        for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
                if (!str_eqc(kind, kinds[i].kind) || !str_starts(group, str_of(kinds[i].group)))
                        continue;
                if (!kinds[i].rows)
                        warn(&c, object, "", kinds[i].kind, kinds[i].instead);
                for (size_t j = 0; j < kinds[i].n; j++) {
                        c.row = &kinds[i].rows[j];
                        walk(object, c.row->pattern, false, found, &c);
                }
        }
        if (str_eqc(kind, "ConfigMap") && str_eqc(pb_get_str(object, "metadata.name", STR("")), "istio") &&
            str_eqc(pb_get_str(object, "metadata.namespace", STR("")), "istio-system")) {
                c.file = STR("data.mesh");
                mesh_config(&c, object, &a);
        }
        arena_fini(&a);
}
