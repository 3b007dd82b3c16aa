/* mesh_validate(): the rules of each kind. Single fields by table (check.c), relations between fields in code below. The rules are those of
 * Istio's own validation where it has one, because users move configurations in both directions. */
#include "mesh/check.h"

#include "base/mem.h"

#include <stdio.h>

/* --- ServiceEntry ------------------------------------------------------------------------------------------------------------------- */

static const struct rule_at service_entry[] = {
        { "spec.hosts", RULE_PRESENT, "at least one DNS name" },
        { "spec.hosts[]", RULE_HOST_NOT_ALL, NULL },
        { "spec.addresses[]", RULE_ADDRESS, NULL },
        { "spec.ports[].number", RULE_PRESENT, NULL },
        { "spec.ports[].number", RULE_PORT, NULL },
        { "spec.ports[].name", RULE_PRESENT, NULL },
        { "spec.ports[].name", RULE_LABEL, NULL },
        { "spec.ports[].protocol", RULE_PROTOCOL, NULL },
        { "spec.ports[].targetPort", RULE_PORT_OR_0, NULL },
        { "spec.location", RULE_ENUM, "MESH_EXTERNAL|MESH_INTERNAL" },
        { "spec.resolution", RULE_ENUM, "NONE|STATIC|DNS|DNS_ROUND_ROBIN|DYNAMIC_DNS" },
        { "spec.endpoints[].ports{}", RULE_PORT, NULL },
        { "spec.endpoints[].weight", RULE_COUNT, NULL },
        { "spec.exportTo[]", RULE_NAMESPACE, NULL },
};

static void entry_endpoint(struct check *c, const struct pb_node *e, const struct pb_node *spec, const char *path, struct str resolution)
{
        struct str address = read_str(&c->scratch, e, "address");
        const struct pb_node *ports = read_field(e, "ports"), *at = read_field(e, "address");
        struct pb_node **v = NULL;
        size_t n = read_list(spec, "ports", &v);
        bool dns = str_starts(resolution, STR("DNS"));

        if (!address.n) {
                if (!dns && !read_field(e, "network"))
                        check_error(c, e, path, "address is required");
                return;
        }
        if (str_starts(address, STR("unix://"))) {
                if (dns)
                        check_error(c, at, path, "a Unix socket cannot be resolved by DNS: use resolution STATIC");
                else if (ports)
                        check_error(c, ports, path, "a Unix socket has no ports: leave `ports` out");
                return;
        }
        if (!check_ip(address) && !dns)
                check_error(c, at, path,
                            "address \"" STR_FMT "\" is no IP address, which resolution STATIC needs: use an address, or resolution DNS",
                            STR_ARG(address));
        else if (!check_ip(address) && !check_host(address, false))
                check_error(c, at, path, "address \"" STR_FMT "\" is neither an IP address nor a DNS name", STR_ARG(address));
        for (size_t i = 0; ports && ports->kind == PB_MAP && i < ports->n; i++) {
                bool known = false;

                for (size_t j = 0; j < n; j++)
                        known |= str_eq(read_str(&c->scratch, v[j], "name"), ports->keys[i]);
                if (!known)
                        check_error(c, ports->v[i], path, "ports names \"" STR_FMT "\", which spec.ports does not have",
                                    STR_ARG(ports->keys[i]));
        }
}

static void entry_dns(struct check *c, const struct pb_node *spec, size_t nendpoints)
{
        struct pb_node **hosts = NULL;
        size_t n = read_list(spec, "hosts", &hosts);
        char path[64];

        for (size_t i = 0; i < n && !nendpoints && !read_field(spec, "workloadSelector"); i++) {
                snprintf(path, sizeof(path), "spec.hosts[%zu]", i);
                if (hosts[i]->text.n && hosts[i]->text.p[0] == '*')
                        check_error(c, hosts[i], path, "\"" STR_FMT "\" cannot be resolved by DNS: list endpoints, or use resolution NONE",
                                    STR_ARG(hosts[i]->text));
        }
}

static void entry_ports(struct check *c, const struct pb_node *spec, bool addresses)
{
        struct pb_node **v = NULL;
        size_t n = read_list(spec, "ports", &v);
        char path[64];

        if (!n)
                check_warn(c, spec, "spec.ports", "no port: nothing is admitted to these hosts until one is listed");
        for (size_t i = 0; i < n; i++) {
                struct str name = read_str(&c->scratch, v[i], "protocol");

                snprintf(path, sizeof(path), "spec.ports[%zu].protocol", i);
                if (mesh_protocol_parse(name) == MESH_TCP && !addresses)
                        check_warn(c, v[i], path,
                                   STR_FMT
                                   " without spec.addresses: nothing tells its connections apart from others on the same port, so all of "
                                   "them go to this host; list addresses, or use protocol TLS",
                                   STR_ARG(name));
        }
        check_unique(c, read_field(spec, "ports"), "spec.ports", "name");
        check_unique(c, read_field(spec, "ports"), "spec.ports", "number");
}

void check_service_entry(struct check *c, const struct pb_node *spec)
{
        struct str resolution = read_str(&c->scratch, spec, "resolution");
        struct pb_node **v = NULL;
        size_t n = read_list(spec, "endpoints", &v), naddresses;
        struct str *addresses = read_strs(&c->scratch, spec, "addresses", &naddresses);
        char path[64];

        if (!resolution.n)
                resolution = STR("NONE");
        entry_ports(c, spec, naddresses > 0);
        check_unique(c, read_field(spec, "hosts"), "spec.hosts", NULL);
        if (str_eqc(resolution, "NONE") && n)
                check_error(c, v[0], "spec.endpoints", "endpoints are not used with resolution NONE: remove them, or use STATIC or DNS");
        if (str_eqc(resolution, "STATIC") && !n && !read_field(spec, "workloadSelector"))
                check_error(c, spec, "spec.endpoints", "resolution STATIC needs endpoints or a workloadSelector");
        if (str_eqc(resolution, "DNS_ROUND_ROBIN") && n > 1)
                check_error(c, v[1], "spec.endpoints", "resolution DNS_ROUND_ROBIN takes at most one endpoint");
        if (n && read_field(spec, "workloadSelector"))
                check_error(c, read_field(spec, "workloadSelector"), "spec.workloadSelector",
                            "only one of endpoints and workloadSelector may be set");
        if (str_starts(resolution, STR("DNS")))
                entry_dns(c, spec, n);
        for (size_t i = 0; i < naddresses; i++) {
                snprintf(path, sizeof(path), "spec.addresses[%zu]", i);
                if (str_chr(addresses[i], '/') >= 0 && str_starts(resolution, STR("DNS")))
                        check_error(c, spec, path, "a network (" STR_FMT ") is for resolution NONE or STATIC only", STR_ARG(addresses[i]));
        }
        for (size_t i = 0; i < n; i++) {
                snprintf(path, sizeof(path), "spec.endpoints[%zu]", i);
                entry_endpoint(c, v[i], spec, path, resolution);
        }
}

/* --- Gateway ------------------------------------------------------------------------------------------------------------------------ */

static const struct rule_at gateway[] = {
        { "spec.servers", RULE_PRESENT, "a Gateway without servers listens nowhere" },
        { "spec.servers[].port", RULE_PRESENT, NULL },
        { "spec.servers[].port.number", RULE_PRESENT, NULL },
        { "spec.servers[].port.number", RULE_PORT, NULL },
        { "spec.servers[].port.name", RULE_PRESENT, NULL },
        { "spec.servers[].port.protocol", RULE_PRESENT, NULL },
        { "spec.servers[].port.protocol", RULE_PROTOCOL, NULL },
        { "spec.servers[].hosts", RULE_PRESENT, NULL },
        { "spec.servers[].hosts[]", RULE_GATEWAY_HOST, NULL },
        { "spec.servers[].tls.mode", RULE_ENUM, "PASSTHROUGH|SIMPLE|MUTUAL|AUTO_PASSTHROUGH|ISTIO_MUTUAL|OPTIONAL_MUTUAL" },
        { "spec.servers[].tls.minProtocolVersion", RULE_ENUM, "TLS_AUTO|TLSV1_0|TLSV1_1|TLSV1_2|TLSV1_3" },
        { "spec.servers[].tls.maxProtocolVersion", RULE_ENUM, "TLS_AUTO|TLSV1_0|TLSV1_1|TLSV1_2|TLSV1_3" },
};

static void gateway_tls(struct check *c, const struct pb_node *server, const char *path)
{
        const struct pb_node *tls = read_field(server, "tls");
        struct str mode = read_str(&c->scratch, tls, "mode"), name = read_str(&c->scratch, read_field(server, "port"), "protocol");
        enum mesh_protocol p = mesh_protocol_parse(name);
        bool redirect = read_bool(tls, "httpsRedirect") == 1;
        bool files = read_field(tls, "serverCertificate") && read_field(tls, "privateKey");
        bool credential = read_field(tls, "credentialName") || read_field(tls, "credentialNames") || read_field(tls, "tlsCertificates");

        if (mesh_protocol_tls(p) && !tls)
                check_error(c, server, path, "protocol " STR_FMT " needs tls: add `tls: {mode: PASSTHROUGH}`, or certificates",
                            STR_ARG(name));
        if (mesh_protocol_http(p) && mode.n && !redirect)
                check_error(c, tls, path, "tls.mode " STR_FMT " has no meaning for protocol " STR_FMT ": use HTTPS or TLS", STR_ARG(mode),
                            STR_ARG(name));
        if (redirect && !mesh_protocol_http(p))
                check_error(c, tls, path, "tls.httpsRedirect is for plain HTTP servers: this one is " STR_FMT, STR_ARG(name));
        if ((str_eqc(mode, "SIMPLE") || str_eqc(mode, "MUTUAL") || str_eqc(mode, "OPTIONAL_MUTUAL")) && !files && !credential)
                check_error(c, tls, path, "tls.mode " STR_FMT " needs credentialName, or serverCertificate and privateKey", STR_ARG(mode));
        if (str_eqc(mode, "ISTIO_MUTUAL") && (files || credential))
                check_error(c, tls, path, "tls.mode ISTIO_MUTUAL uses the mesh's own certificates: remove the others");
}

void check_gateway(struct check *c, const struct pb_node *spec)
{
        struct pb_node **v = NULL;
        size_t n = read_list(spec, "servers", &v);
        struct strmap names = STRMAP_INIT;
        char path[64];

        if (!read_field(spec, "selector"))
                check_warn(c, spec, "spec.selector", "no selector: these servers open on every gateway of the mesh");
        for (size_t i = 0; i < n; i++) {
                struct str name = read_str(&c->scratch, read_field(v[i], "port"), "name");

                snprintf(path, sizeof(path), "spec.servers[%zu].tls", i);
                gateway_tls(c, v[i], path);
                snprintf(path, sizeof(path), "spec.servers[%zu].port.name", i);
                if (name.n && strmap_set(&names, name, (void *)1))
                        check_error(c, v[i], path, "\"" STR_FMT "\" is there twice: the names of a Gateway's ports must differ",
                                    STR_ARG(name));
        }
        strmap_fini(&names);
}

/* --- DestinationRule ----------------------------------------------------------------------------------------------------------------- */

#define POLICY(at)                                                                                                       \
        { at ".loadBalancer.simple", RULE_ENUM, "UNSPECIFIED|LEAST_CONN|RANDOM|PASSTHROUGH|ROUND_ROBIN|LEAST_REQUEST" }, \
                { at ".loadBalancer.warmup.duration", RULE_DURATION_MS, NULL },                                          \
                { at ".connectionPool.tcp.maxConnections", RULE_COUNT, NULL },                                           \
                { at ".connectionPool.tcp.connectTimeout", RULE_DURATION_MS, NULL },                                     \
                { at ".connectionPool.tcp.idleTimeout", RULE_DURATION, NULL },                                           \
                { at ".connectionPool.tcp.maxConnectionDuration", RULE_DURATION_MS, NULL },                              \
                { at ".connectionPool.tcp.tcpKeepalive.probes", RULE_COUNT, NULL },                                      \
                { at ".connectionPool.tcp.tcpKeepalive.time", RULE_DURATION, NULL },                                     \
                { at ".connectionPool.tcp.tcpKeepalive.interval", RULE_DURATION, NULL },                                 \
                { at ".connectionPool.http.http1MaxPendingRequests", RULE_COUNT, NULL },                                 \
                { at ".connectionPool.http.http2MaxRequests", RULE_COUNT, NULL },                                        \
                { at ".connectionPool.http.maxRequestsPerConnection", RULE_COUNT, NULL },                                \
                { at ".connectionPool.http.maxRetries", RULE_COUNT, NULL },                                              \
                { at ".connectionPool.http.maxConcurrentStreams", RULE_COUNT, NULL },                                    \
                { at ".connectionPool.http.idleTimeout", RULE_DURATION, NULL },                                          \
                { at ".connectionPool.http.h2UpgradePolicy", RULE_ENUM, "DEFAULT|DO_NOT_UPGRADE|UPGRADE" },              \
                { at ".outlierDetection.interval", RULE_DURATION_MS, NULL },                                             \
                { at ".outlierDetection.baseEjectionTime", RULE_DURATION_MS, NULL },                                     \
                { at ".outlierDetection.maxEjectionPercent", RULE_PERCENT, NULL },                                       \
                { at ".outlierDetection.minHealthPercent", RULE_PERCENT, NULL },                                         \
        {                                                                                                                \
                at ".tls.mode", RULE_ENUM, "DISABLE|SIMPLE|MUTUAL|ISTIO_MUTUAL"                                          \
        }

static const struct rule_at destination_rule[] = {
        { "spec.host", RULE_PRESENT, "the host of a service, as the registry has it" },
        { "spec.host", RULE_HOST, NULL },
        { "spec.subsets[].name", RULE_PRESENT, NULL },
        { "spec.subsets[].name", RULE_LABEL, NULL },
        { "spec.exportTo[]", RULE_NAMESPACE, NULL },
        POLICY("spec.trafficPolicy"),
        { "spec.trafficPolicy.portLevelSettings[].port.number", RULE_PRESENT, NULL },
        { "spec.trafficPolicy.portLevelSettings[].port.number", RULE_PORT, NULL },
        POLICY("spec.trafficPolicy.portLevelSettings[]"),
        POLICY("spec.subsets[].trafficPolicy"),
        { "spec.subsets[].trafficPolicy.portLevelSettings[].port.number", RULE_PRESENT, NULL },
        { "spec.subsets[].trafficPolicy.portLevelSettings[].port.number", RULE_PORT, NULL },
        POLICY("spec.subsets[].trafficPolicy.portLevelSettings[]"),
};

static void client_tls(void *arg, const struct pb_node *tls, const struct pb_node *parent, const char *path)
{
        struct check *c = arg;
        struct str mode = read_str(&c->scratch, tls, "mode");
        bool credential = read_field(tls, "credentialName") != NULL;
        bool files = read_field(tls, "clientCertificate") && read_field(tls, "privateKey");
        bool any = credential || read_field(tls, "clientCertificate") || read_field(tls, "privateKey") || read_field(tls, "caCertificates");

        if (str_eqc(mode, "MUTUAL") && !credential && !files)
                check_error(c, tls, path, "mode MUTUAL needs credentialName, or clientCertificate and privateKey");
        if (str_eqc(mode, "ISTIO_MUTUAL") && any)
                check_error(c, tls, path, "mode ISTIO_MUTUAL uses the mesh's own certificates: remove the others");
        if (credential && (read_field(tls, "clientCertificate") || read_field(tls, "privateKey") || read_field(tls, "caCertificates")))
                check_error(c, tls, path, "credentialName and certificate files exclude each other: keep one");
}

void check_destination_rule(struct check *c, const struct pb_node *spec)
{
        static const char *const tls[] = { "trafficPolicy.tls", "trafficPolicy.portLevelSettings[].tls", "subsets[].trafficPolicy.tls",
                                           "subsets[].trafficPolicy.portLevelSettings[].tls" };
        struct pb_node **v = NULL;
        size_t n = read_list(spec, "subsets", &v);
        char path[64];

        for (size_t i = 0; i < ARRAY_LEN(tls); i++) {
                char pattern[96];
                struct pb_node root = { .kind = PB_MAP, .n = 1 }, *inner = (struct pb_node *)spec;
                struct str key = STR("spec");

                root.v = &inner;
                root.keys = &key;
                snprintf(pattern, sizeof(pattern), "spec.%s", tls[i]);
                walk(&root, pattern, false, client_tls, c);
        }
        check_unique(c, read_field(spec, "subsets"), "spec.subsets", "name");
        for (size_t i = 0; i < n; i++) {
                snprintf(path, sizeof(path), "spec.subsets[%zu].labels", i);
                if (!read_field(v[i], "labels"))
                        check_warn(c, v[i], path, "a subset without labels is all of the service");
        }
}

/* --- Sidecar ------------------------------------------------------------------------------------------------------------------------- */

static const struct rule_at sidecar[] = {
        { "spec.egress[].hosts", RULE_PRESENT, NULL },
        { "spec.egress[].hosts[]", RULE_SIDECAR_HOST, NULL },
        { "spec.egress[].port.number", RULE_PORT_OR_0, NULL },
        { "spec.egress[].port.protocol", RULE_PROTOCOL, NULL },
        { "spec.ingress[].port.number", RULE_PORT, NULL },
        { "spec.ingress[].port.protocol", RULE_PROTOCOL, NULL },
        { "spec.outboundTrafficPolicy.mode", RULE_ENUM, "REGISTRY_ONLY|ALLOW_ANY" },
};

void check_sidecar(struct check *c, const struct pb_node *spec)
{
        const struct pb_node *ws = read_field(spec, "workloadSelector");

        if (!spec || spec->kind != PB_MAP ||
            (!read_field(spec, "egress") && !read_field(spec, "ingress") && !read_field(spec, "outboundTrafficPolicy") &&
             !read_field(spec, "inboundConnectionPool")))
                check_error(c, spec, "spec", "a Sidecar without egress, ingress or outboundTrafficPolicy says nothing");
        if (ws && !read_field(ws, "labels"))
                check_warn(c, ws, "spec.workloadSelector", "no labels: it selects every workload of the namespace");
}

/* --- WorkloadEntry, mesh configuration ----------------------------------------------------------------------------------------------- */

static const struct rule_at workload_entry[] = {
        { "spec.ports{}", RULE_PORT, NULL },
        { "spec.weight", RULE_COUNT, NULL },
};

static const struct rule_at mesh_config[] = {
        { "accessLogEncoding", RULE_ENUM, "TEXT|JSON" },
        { "outboundTrafficPolicy.mode", RULE_ENUM, "REGISTRY_ONLY|ALLOW_ANY" },
        { "pathNormalization.normalization", RULE_ENUM, "DEFAULT|NONE|BASE|MERGE_SLASHES|DECODE_AND_MERGE_SLASHES" },
        { "connectTimeout", RULE_DURATION_MS, NULL },
        { "dnsRefreshRate", RULE_DURATION_MS, NULL },
        { "protocolDetectionTimeout", RULE_DURATION, NULL },
        { "tcpKeepalive.time", RULE_DURATION, NULL },
        { "tcpKeepalive.interval", RULE_DURATION, NULL },
        { "defaultConfig.tracing.sampling", RULE_PERCENT, NULL },
};

void check_mesh_config(struct check *c, const struct pb_node *object)
{
        const struct pb_node *text = read_field(read_field(object, "data"), "mesh");
        const ProtobufCMessageDescriptor *type = pb_type(STR("istio.mesh.v1alpha1.MeshConfig"));
        struct diag_at base = { .file = STR("data.mesh"), .resource = c->resource };
        struct pb_node **docs = NULL;
        size_t n = 0, errors = c->d->errors;

        if (!text || !text->text.n)
                return;
        if (!pb_parse_yaml(text->text, STR("data.mesh"), &c->scratch, &docs, &n, c->d) || !n) {
                c->errors += c->d->errors - errors;
                return;
        }
        if (docs[0]->kind != PB_MAP) {
                check_error(c, text, "data.mesh", "an object with the fields of MeshConfig is needed here");
                return;
        }
        if (type)
                pb_from_node(type, docs[0], 0, &base, &c->scratch, c->d);
        c->errors += c->d->errors - errors;
        check_rules(c, docs[0], mesh_config, ARRAY_LEN(mesh_config));
}

/* --- All ------------------------------------------------------------------------------------------------------------------------------ */

extern const struct rule_at check_virtual_service_rules[];
extern const size_t check_virtual_service_nrules;

bool mesh_validate(const struct pb_node *object, struct str file, struct diags *d)
{
        const struct {
                const char *kind;
                const struct rule_at *rules;
                size_t n;
                void (*more)(struct check *c, const struct pb_node *spec);
        } kinds[] = {
                { "ServiceEntry", service_entry, ARRAY_LEN(service_entry), check_service_entry },
                { "Gateway", gateway, ARRAY_LEN(gateway), check_gateway },
                { "VirtualService", check_virtual_service_rules, check_virtual_service_nrules, check_virtual_service },
                { "DestinationRule", destination_rule, ARRAY_LEN(destination_rule), check_destination_rule },
                { "Sidecar", sidecar, ARRAY_LEN(sidecar), check_sidecar },
                { "WorkloadEntry", workload_entry, ARRAY_LEN(workload_entry), NULL },
        };
        struct str kind = pb_get_str(object, "kind", STR("")), group = pb_get_str(object, "apiVersion", STR(""));
        struct check c = { .d = d, .file = file };
        bool config = str_eqc(kind, "ConfigMap") && str_eqc(pb_get_str(object, "metadata.name", STR("")), "istio") &&
                      str_eqc(pb_get_str(object, "metadata.namespace", STR("")), "istio-system");

        arena_init(&c.scratch, 1024);
        c.resource = walk_resource(&c.scratch, object);
        for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
                if (!str_eqc(kind, kinds[i].kind) || !str_starts(group, STR("networking.istio.io/")))
                        continue;
                if (!read_field(object, "spec"))
                        check_error(&c, object, "spec", "spec is required");
                check_rules(&c, object, kinds[i].rules, kinds[i].n);
                if (kinds[i].more)
                        kinds[i].more(&c, read_field(object, "spec"));
        }
        if (config)
                check_mesh_config(&c, object);
        arena_fini(&c.scratch);
        return c.errors == 0;
}
