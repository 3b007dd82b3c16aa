/* The model: what the mesh is configured to be, from Kubernetes objects. Services and ServiceEntries become one registry of hosts,
 * Istio's resources become typed and resolved structs (short names and defaults filled in), and all of it is read through an immutable
 * snapshot. No clocks, no network: the same objects always make the same model.
 *
 * Kinds: Service, Endpoints, EndpointSlice, Pod, Namespace, ConfigMap (only the one that holds the mesh configuration), ServiceEntry,
 * Gateway, VirtualService, DestinationRule, Sidecar, WorkloadEntry (v1, v1beta1 and v1alpha3 alike). */
#ifndef MESH_MESH_H
#define MESH_MESH_H

#include "base/diag.h"
#include "base/hash.h"
#include "pb/pb.h"

/* --- What a single object says; no other object needed (for admission) --------------------------------------------------------- */

/* Semantic rules that a schema cannot express: hosts, ports, durations, protocols, weights, wildcards, what excludes what. False when at
 * least one error was added; warnings may be added in both cases. Kinds that the mesh does not use pass. `file` is for diagnostics. */
bool mesh_validate(const struct pb_node *object, struct str file, struct diags *d);
/* One warning for each field (or value) that Istio knows and this release does not honour, with its path and what happens instead. */
void mesh_unsupported(const struct pb_node *object, struct str file, struct diags *d);

/* --- The model ------------------------------------------------------------------------------------------------------------------ */

struct mesh;
struct mesh_snapshot;

enum mesh_result {
        MESH_IGNORED,   /* not a kind (or an object) that the mesh uses */
        MESH_UNCHANGED, /* the same content as before */
        MESH_CHANGED,
        MESH_REFUSED, /* mesh_validate() found errors; what was there before stays */
};

struct mesh *mesh_new(void);
void mesh_free(struct mesh *m); /* snapshots taken from it stay valid */
enum mesh_result mesh_set(struct mesh *m, const struct pb_node *object, struct diags *d);
enum mesh_result mesh_delete(struct mesh *m, struct str kind, struct str ns, struct str name);
/* The state now. Cheap when nothing changed since the last call (the same snapshot again). Release with mesh_snapshot_unref(). */
struct mesh_snapshot *mesh_snapshot(struct mesh *m);
struct mesh_snapshot *mesh_snapshot_ref(struct mesh_snapshot *s);
void mesh_snapshot_unref(struct mesh_snapshot *s);
/* Warnings for what `object` names and `s` does not hold: destinations, subsets, gateways. */
void mesh_references(const struct mesh_snapshot *s, const struct pb_node *object, struct str file, struct diags *d);

/* --- Its parts. All strings live as long as the object that holds them, which is as long as a snapshot refers to it. ---------------- */

struct mesh_label {
        struct str key, value;
};
struct mesh_labels {
        struct mesh_label *v;
        size_t n;
}; /* sorted by key */

/* Does every label of `want` occur in `have`? An empty `want` matches all. */
bool mesh_labels_match(const struct mesh_labels *want, const struct mesh_labels *have);
struct str mesh_labels_get(const struct mesh_labels *l, const char *key); /* {NULL,0}: absent */

struct mesh_export { /* exportTo */
        bool everyone, own, nobody;
        struct str *v; /* other namespaces */
        size_t n;
};

bool mesh_export_visible(const struct mesh_export *e, struct str owner_ns, struct str ns);

struct mesh_meta {
        struct str kind, ns, name;
        uint64_t version;   /* unique in the mesh; changes with the content */
        int64_t created_us; /* metadata.creationTimestamp; 0 unknown. The older wins a conflict. */
        struct str config;  /* "/apis/networking.istio.io/v1/namespaces/N/virtual-service/X", as Istio writes it in metadata */
};

enum mesh_protocol { MESH_AUTO, MESH_HTTP, MESH_HTTP2, MESH_GRPC, MESH_GRPC_WEB, MESH_HTTPS, MESH_TLS, MESH_TCP, MESH_UDP };

enum mesh_protocol mesh_protocol_parse(struct str name); /* Istio's names, any case; MESH_AUTO when unknown */
const char *mesh_protocol_name(enum mesh_protocol p);    /* "HTTP", …; "unsupported" for MESH_AUTO, as Istio has it */
static inline bool mesh_protocol_http(enum mesh_protocol p)
{
        return p >= MESH_HTTP && p <= MESH_GRPC_WEB;
}
static inline bool mesh_protocol_http2(enum mesh_protocol p)
{
        return p == MESH_HTTP2 || p == MESH_GRPC || p == MESH_GRPC_WEB;
}
static inline bool mesh_protocol_tls(enum mesh_protocol p)
{
        return p == MESH_HTTPS || p == MESH_TLS;
}

struct mesh_port {
        uint32_t number, target; /* target 0: by name, or as `number` */
        struct str name, target_name;
        enum mesh_protocol protocol;
};

enum mesh_resolution { MESH_RES_EDS, MESH_RES_NONE, MESH_RES_STATIC, MESH_RES_DNS, MESH_RES_DNS_ROUND_ROBIN };

struct mesh_endpoint {
        struct str address;       /* an IP address, a host name, or "unix:///path" */
        struct mesh_label *ports; /* port name -> decimal */
        size_t nports;
        struct mesh_labels labels;
        uint32_t weight; /* 0: unset, which counts as 1 */
        struct str locality, service_account, workload;
};

/* One host of the registry. */
struct mesh_service {
        const struct mesh_meta *meta; /* the Service or ServiceEntry that declares it */
        struct str host;              /* "curl.curl.svc.cluster.local", "httpbin.org", "*.example.com" */
        struct str name, ns;          /* as Istio names it: the Service's name; for a ServiceEntry the host itself */
        uint64_t version;             /* unique per content: meta->version mixed with the host's position */
        bool external;                /* location MESH_EXTERNAL */
        bool from_entry;              /* a ServiceEntry */
        bool headless;                /* a Service with clusterIP None */
        enum mesh_resolution resolution;
        struct mesh_port *ports;
        size_t nports;
        struct str *addresses; /* cluster IPs, or ServiceEntry addresses (may have a "/len") */
        size_t naddresses;
        struct mesh_endpoint *endpoints; /* ServiceEntry endpoints */
        size_t nendpoints;
        struct mesh_labels selector; /* Service selector or workloadSelector */
        bool has_selector;
        struct str *sans;
        size_t nsans;
        struct mesh_export export_to;
};

enum mesh_match_kind { MESH_MATCH_NONE, MESH_MATCH_EXACT, MESH_MATCH_PREFIX, MESH_MATCH_REGEX, MESH_MATCH_PRESENT };
struct mesh_string_match {
        enum mesh_match_kind kind;
        struct str value;
};
struct mesh_named_match {
        struct str name;
        struct mesh_string_match m;
};

struct mesh_http_match {
        struct str name, stat_prefix;
        struct mesh_string_match uri, scheme, method, authority;
        struct mesh_named_match *headers, *without, *query;
        size_t nheaders, nwithout, nquery;
        uint32_t port;
        bool ignore_uri_case;
        struct mesh_labels source_labels;
        struct str source_ns;
        struct str *gateways; /* resolved like those of the VirtualService */
        size_t ngateways;
};

struct mesh_headers { /* headers: { request|response: { set, add, remove } } */
        struct mesh_label *req_set, *req_add, *resp_set, *resp_add;
        size_t nreq_set, nreq_add, nresp_set, nresp_add;
        struct str *req_remove, *resp_remove;
        size_t nreq_remove, nresp_remove;
};

struct mesh_destination {
        struct str host; /* fully qualified */
        struct str subset;
        uint32_t port; /* 0: unset */
        uint32_t weight;
        struct mesh_headers headers;
};

struct mesh_cors {
        struct mesh_string_match *origins;
        size_t norigins;
        struct str methods, headers, expose; /* joined by "," */
        int64_t max_age_s;                   /* -1: unset */
        int8_t credentials;                  /* -1: unset */
        int8_t forward_not_matching;         /* -1: unset */
};

struct mesh_http_route {
        struct str name;
        struct mesh_http_match *match;
        size_t nmatch;
        struct mesh_destination *route;
        size_t nroute;
        struct {
                bool on;
                struct str uri, authority, scheme, prefix_rewrite;
                uint32_t port, code;
                bool port_from_protocol, port_from_request;
        } redirect;
        struct {
                bool on;
                uint32_t status;
                struct str body;
                bool has_body;
        } direct;
        struct {
                bool on;
                struct str uri, authority, regex, regex_with;
        } rewrite;
        bool has_timeout;
        int64_t timeout_us;
        struct {
                bool on, ignore_previous_hosts_off;
                int32_t attempts; /* -1: unset */
                int64_t per_try_us, backoff_us;
                struct str retry_on;
        } retries;
        struct mesh_headers headers;
        struct mesh_cors *cors; /* or NULL */
};

struct mesh_l4_match {
        struct str *sni, *subnets, *gateways;
        size_t nsni, nsubnets, ngateways;
        uint32_t port;
        struct mesh_labels source_labels;
        struct str source_ns;
};

struct mesh_l4_route { /* tls[] and tcp[] */
        struct mesh_l4_match *match;
        size_t nmatch;
        struct mesh_destination *route;
        size_t nroute;
};

struct mesh_vs {
        struct mesh_meta meta;
        struct str *hosts; /* fully qualified */
        size_t nhosts;
        struct str *gateways; /* "mesh" or "namespace/name"; never empty */
        size_t ngateways;
        bool on_mesh; /* "mesh" is among them */
        struct mesh_http_route *http;
        size_t nhttp;
        struct mesh_l4_route *tls, *tcp;
        size_t ntls, ntcp;
        struct mesh_export export_to;
        bool by_source; /* some match looks at the source's labels or namespace */
};

enum mesh_tls_mode {
        MESH_TLS_NONE,
        MESH_TLS_PASSTHROUGH,
        MESH_TLS_SIMPLE,
        MESH_TLS_MUTUAL,
        MESH_TLS_AUTO_PASSTHROUGH,
        MESH_TLS_ISTIO_MUTUAL,
        MESH_TLS_OPTIONAL_MUTUAL,
        MESH_TLS_DISABLE
};

struct mesh_gateway_server {
        struct mesh_port port;
        struct str bind, name;
        struct {
                struct str ns, host;
        } * hosts; /* ns: "*", "." resolved, or a namespace */
        size_t nhosts;
        enum mesh_tls_mode tls;
        bool https_redirect;
};

struct mesh_gateway {
        struct mesh_meta meta;
        struct mesh_labels selector;
        struct mesh_gateway_server *servers;
        size_t nservers;
};

enum mesh_lb { MESH_LB_UNSET, MESH_LB_ROUND_ROBIN, MESH_LB_LEAST_REQUEST, MESH_LB_RANDOM, MESH_LB_PASSTHROUGH };

struct mesh_policy { /* trafficPolicy: -1 is unset everywhere */
        enum mesh_lb lb;
        enum mesh_tls_mode tls;
        int64_t connect_timeout_us, tcp_idle_us, tcp_max_duration_us, http_idle_us;
        int64_t max_connections, max_pending, max_requests, max_requests_per_connection, max_retries, max_streams;
        int64_t keepalive_probes, keepalive_time_s, keepalive_interval_s;
        bool keepalive;
        int8_t h2_upgrade; /* 0 default, 1 upgrade, 2 do not */
        int8_t use_client_protocol;
};

struct mesh_port_policy {
        uint32_t port;
        struct mesh_policy policy;
};
struct mesh_policy_set {
        struct mesh_policy all;
        struct mesh_port_policy *ports;
        size_t nports;
};

struct mesh_subset {
        struct str name;
        struct mesh_labels labels;
        struct mesh_policy_set policy;
};

struct mesh_dr {
        struct mesh_meta meta;
        struct str host; /* fully qualified */
        struct mesh_policy_set policy;
        bool has_policy;
        struct mesh_subset *subsets;
        size_t nsubsets;
        struct mesh_export export_to;
        struct mesh_labels selector; /* workloadSelector */
        bool has_selector;
};

struct mesh_sidecar {
        struct mesh_meta meta;
        struct mesh_labels selector;
        bool has_selector;
        bool has_policy, allow_any; /* outboundTrafficPolicy */
        struct mesh_sidecar_egress {
                bool has_port;
                struct mesh_port port;
                struct str bind;
                struct {
                        struct str ns, host;
                } * hosts;
                size_t nhosts;
        } * egress;
        size_t negress;
};

struct mesh_pod {
        struct mesh_meta meta;
        struct str ip, service_account, node, workload, owner;
        struct mesh_labels labels;
        struct mesh_port *ports; /* containers' ports, for named target ports: number and name */
        size_t nports;
};

struct mesh_slice { /* one EndpointSlice, or one subset of an Endpoints object */
        struct mesh_meta meta;
        struct str service; /* the Service's name, same namespace */
        struct {
                struct str name;
                uint32_t number;
        } * ports;
        size_t nports;
        struct {
                struct str address, pod;
                bool ready;
        } * v;
        size_t n;
        bool legacy; /* from Endpoints: used only when the Service has no EndpointSlice */
};

struct mesh_workload {
        struct mesh_meta meta;
        struct mesh_endpoint endpoint;
};

struct mesh_config { /* meshConfig, with Istio's defaults */
        uint64_t version;
        struct str trust_domain, root_ns, domain, cluster_id;
        bool allow_any;                                       /* outboundTrafficPolicy.mode */
        bool normalize_path, merge_slashes, unescape_slashes; /* pathNormalization */
        bool metrics;                                         /* defaultProviders.metrics names prometheus */
        bool enable_tracing;
        double sampling;              /* percent */
        struct str access_log_file;   /* "": no access log */
        struct str access_log_format; /* text format with its newline; "" with json: see below */
        bool access_log_json;
        struct pb_node *access_log_json_format; /* or NULL: Istio's default members */
        int64_t connect_timeout_us, dns_refresh_us, protocol_detection_us;
        bool tcp_keepalive;
        int64_t keepalive_probes, keepalive_time_s, keepalive_interval_s; /* -1: unset */
};

extern const struct mesh_config mesh_config_default;

/* Everything, sorted. Several services may share a host; not everything is visible to everybody. */
struct mesh_snapshot {
        unsigned refs;
        uint64_t version; /* of the whole model */
        const struct mesh_config *config;
        struct mesh_service **services; /* by host; the cluster's own before ServiceEntries; by age */
        size_t nservices;
        struct mesh_vs **vs; /* by age, then namespace and name */
        size_t nvs;
        struct mesh_gateway **gateways; /* likewise */
        size_t ngateways;
        struct mesh_dr **dr; /* by host and namespace */
        size_t ndr;
        struct mesh_sidecar **sidecars;
        size_t nsidecars;
        struct mesh_pod **pods;
        size_t npods;
        struct mesh_slice **slices; /* by namespace and service */
        size_t nslices;
        struct mesh_workload **workloads;
        size_t nworkloads;
        struct mesh_store *store; /* of mesh.c: keeps the objects alive */
        uint64_t services_version, vs_version, gateways_version, dr_version, sidecars_version, endpoints_version;
        /* change with any object of the kind; endpoints: slices, pods, WorkloadEntries */
};

/* The services with exactly this host, oldest first. */
struct mesh_service **mesh_services_of(const struct mesh_snapshot *s, struct str host, size_t *n);
/* The one that namespace `ns` sees (its own namespace first, then the oldest visible); NULL: none. */
struct mesh_service *mesh_service_find(const struct mesh_snapshot *s, struct str host, struct str ns);
struct mesh_pod *mesh_pod_by_ip(const struct mesh_snapshot *s, struct str ip);
struct mesh_pod *mesh_pod_find(const struct mesh_snapshot *s, struct str ns, struct str name);
/* EndpointSlices of a Service (or what its Endpoints say, when it has none); NULL when there are none of either. */
struct mesh_slice **mesh_slices_of(const struct mesh_snapshot *s, const struct mesh_service *svc, size_t *n);
/* The DestinationRule for `host` as a client in `ns` with `labels` sees it: its own namespace's, then the service's, then the root
 * namespace's. */
struct mesh_dr *mesh_dr_find(const struct mesh_snapshot *s, struct str host, struct str service_ns, struct str ns,
                             const struct mesh_labels *labels);
/* The policy in force on `port` for `subset` (NULL: none): subset over rule, port level over both. */
void mesh_policy_for(const struct mesh_dr *dr, const struct mesh_subset *subset, uint32_t port, struct mesh_policy *out);
const struct mesh_subset *mesh_subset_find(const struct mesh_dr *dr, struct str name);
struct mesh_sidecar *mesh_sidecar_find(const struct mesh_snapshot *s, struct str ns, const struct mesh_labels *labels);
/* Does the wildcard (or plain) host `pattern` cover `host`, which may be a wildcard itself? "*", "*.a.b". */
bool mesh_host_covers(struct str pattern, struct str host);
/* A name without a dot made a full one ("curl" -> "curl.<ns>.svc.<domain>"), as Istio does; any other stays as it is. */
struct str mesh_host_resolve(struct str host, struct str ns, struct str domain, struct arena *a);

#endif
