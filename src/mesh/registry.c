/* What becomes a host of the registry, and what stands behind it: Service, ServiceEntry, Pod, EndpointSlice, Endpoints, WorkloadEntry. */
#include "mesh/read.h"

#include "base/mem.h"

/* Istio: appProtocol first, then the port name up to its first '-' ("grpc-web" is one word), then TCP for ports whose servers speak first.
 */
static enum mesh_protocol service_protocol(uint32_t number, struct str name, struct str transport, struct str app)
{
        static const struct {
                const char *name;
                enum mesh_protocol protocol;
        } apps[] = { { "kubernetes.io/h2c", MESH_HTTP2 }, { "kubernetes.io/ws", MESH_HTTP }, { "kubernetes.io/wss", MESH_HTTPS } };
        enum mesh_protocol p;
        ptrdiff_t dash;

        if (str_eq_nocase(transport, STR("UDP")))
                return MESH_UDP;
        for (size_t i = 0; app.n && i < ARRAY_LEN(apps); i++)
                if (str_eq_nocase(app, str_of(apps[i].name)))
                        return apps[i].protocol;
        if (app.n)
                name = app;
        if (str_starts_nocase(name, STR("grpc-web")))
                return MESH_GRPC_WEB;
        dash = str_chr(name, '-');
        p = mesh_protocol_parse(dash >= 0 ? str_sub(name, 0, (size_t)dash) : name);
        if (p == MESH_AUTO && (number == 25 || number == 53 || number == 3306 || number == 27017))
                return MESH_TCP;
        return p;
}

static void service_ports(struct arena *a, const struct pb_node *spec, struct mesh_service *s)
{
        struct pb_node **v = NULL;
        size_t n = read_list(spec, "ports", &v);

        s->ports = n ? arena_zalloc(a, n * sizeof(*s->ports)) : NULL;
        for (size_t i = 0; i < n; i++) {
                struct mesh_port *p = &s->ports[s->nports++];

                p->number = read_u32(v[i], "port");
                p->name = read_str(a, v[i], "name");
                p->target = read_u32(v[i], "targetPort");
                if (!p->target)
                        p->target_name = read_str(a, v[i], "targetPort");
                if (!p->target && !p->target_name.n)
                        p->target = p->number;
                p->protocol = service_protocol(p->number, p->name, read_str(a, v[i], "protocol"), read_str(a, v[i], "appProtocol"));
        }
}

struct mesh_service *read_service(struct arena *a, const struct pb_node *object, const struct mesh_meta *meta, struct str domain)
{
        const struct pb_node *spec = read_field(object, "spec"), *selector = read_field(spec, "selector");
        struct mesh_service *s;
        struct str ip = read_str(a, spec, "clusterIP"), list;
        const struct pb_node *annotations = read_field(read_field(object, "metadata"), "annotations");

        if (str_eqc(read_str(a, spec, "type"), "ExternalName"))
                return NULL;
        s = arena_zalloc(a, sizeof(*s));
        s->meta = meta;
        s->name = meta->name;
        s->ns = meta->ns;
        s->host = arena_printf(a, STR_FMT "." STR_FMT ".svc." STR_FMT, STR_ARG(meta->name), STR_ARG(meta->ns), STR_ARG(domain));
        s->version = meta->version << 16;
        s->headless = str_eqc(ip, "None");
        s->resolution = s->headless ? MESH_RES_NONE : MESH_RES_EDS;
        service_ports(a, spec, s);
        if (!s->headless) {
                s->addresses = read_strs(a, spec, "clusterIPs", &s->naddresses);
                if (!s->naddresses && ip.n) {
                        s->addresses = arena_dup(a, &ip, sizeof(ip));
                        s->naddresses = 1;
                }
        }
        s->selector = read_labels(a, selector);
        s->has_selector = s->selector.n > 0;
        list = read_str(a, annotations, "networking.istio.io/exportTo");
        s->export_to.everyone = true;
        if (list.n) {
                struct str *v = arena_alloc(a, (list.n + 1) * sizeof(*v)), part;
                size_t n = 0;

                while (str_next(&list, ',', &part))
                        v[n++] = str_trim(part);
                s->export_to = read_export_list(a, v, n);
        }
        return s;
}

struct mesh_endpoint read_workload(struct arena *a, const struct pb_node *spec, const struct mesh_meta *meta)
{
        struct mesh_endpoint e = { 0 };

        e.address = read_str(a, spec, "address");
        e.ports = read_pairs(a, read_field(spec, "ports"), &e.nports);
        e.labels = read_labels(a, read_field(spec, "labels"));
        e.weight = read_u32(spec, "weight");
        e.locality = read_str(a, spec, "locality");
        e.service_account = read_str(a, spec, "serviceAccount");
        e.workload = meta->name;
        return e;
}

static enum mesh_resolution entry_resolution(struct str name)
{
        static const struct {
                const char *name;
                enum mesh_resolution r;
        } names[] = { { "STATIC", MESH_RES_STATIC }, { "DNS", MESH_RES_DNS }, { "DNS_ROUND_ROBIN", MESH_RES_DNS_ROUND_ROBIN } };

        for (size_t i = 0; i < ARRAY_LEN(names); i++)
                if (str_eqc(name, names[i].name))
                        return names[i].r;
        return MESH_RES_NONE;
}

struct mesh_service *read_service_entry(struct arena *a, const struct pb_node *object, const struct mesh_meta *meta, size_t *n)
{
        const struct pb_node *spec = read_field(object, "spec"), *selector = read_field(spec, "workloadSelector");
        struct mesh_service base = { .meta = meta, .ns = meta->ns, .from_entry = true }, *out;
        struct pb_node **v = NULL;
        struct str *hosts = read_strs(a, spec, "hosts", n);
        size_t k;

        base.external = !str_eqc(read_str(a, spec, "location"), "MESH_INTERNAL");
        base.resolution = entry_resolution(read_str(a, spec, "resolution"));
        base.addresses = read_strs(a, spec, "addresses", &base.naddresses);
        base.sans = read_strs(a, spec, "subjectAltNames", &base.nsans);
        base.export_to = read_export(a, spec);
        base.has_selector = selector != NULL;
        base.selector = read_labels(a, read_field(selector, "labels"));
        k = read_list(spec, "ports", &v);
        base.ports = k ? arena_zalloc(a, k * sizeof(*base.ports)) : NULL;
        for (size_t i = 0; i < k; i++) {
                base.ports[i] = read_port(a, v[i]);
                if (!base.ports[i].target)
                        base.ports[i].target = base.ports[i].number;
        }
        base.nports = k;
        k = read_list(spec, "endpoints", &v);
        base.endpoints = k ? arena_zalloc(a, k * sizeof(*base.endpoints)) : NULL;
        for (size_t i = 0; i < k; i++)
                base.endpoints[i] = read_workload(a, v[i], meta);
        base.nendpoints = k;
        out = *n ? arena_alloc(a, *n * sizeof(*out)) : NULL;
        for (size_t i = 0; i < *n; i++) {
                out[i] = base;
                out[i].host = out[i].name = hosts[i];
                out[i].version = (meta->version << 16) | (i & 0xffff);
        }
        return out;
}

/* The Deployment behind "web-5d4f8c7b9-" and so on: Istio's workload name. */
static struct str pod_workload(struct arena *a, const struct pb_node *metadata, const struct mesh_pod *pod)
{
        struct pb_node **v = NULL;
        size_t n = read_list(metadata, "ownerReferences", &v);
        struct str hash = mesh_labels_get(&pod->labels, "pod-template-hash");

        for (size_t i = 0; i < n; i++) {
                struct str name = read_str(a, v[i], "name");

                if (read_bool(v[i], "controller") != 1)
                        continue;
                if (str_eqc(read_str(a, v[i], "kind"), "ReplicaSet") && hash.n && name.n > hash.n + 1 && str_ends(name, hash) &&
                    name.p[name.n - hash.n - 1] == '-')
                        return str_sub(name, 0, name.n - hash.n - 1);
                return name;
        }
        return pod->meta.name;
}

void read_pod(struct arena *a, const struct pb_node *object, struct mesh_pod *out)
{
        const struct pb_node *metadata = read_field(object, "metadata"), *spec = read_field(object, "spec");
        struct pb_node **c = NULL, **p = NULL;
        size_t n = read_list(spec, "containers", &c), total = 0;

        out->ip = read_str(a, read_field(object, "status"), "podIP");
        out->service_account = read_str(a, spec, "serviceAccountName");
        out->node = read_str(a, spec, "nodeName");
        out->labels = read_labels(a, read_field(metadata, "labels"));
        out->workload = pod_workload(a, metadata, out);
        for (size_t i = 0; i < n; i++)
                total += read_list(c[i], "ports", &p);
        out->ports = total ? arena_zalloc(a, total * sizeof(*out->ports)) : NULL;
        for (size_t i = 0; i < n; i++) {
                size_t k = read_list(c[i], "ports", &p);

                for (size_t j = 0; j < k; j++) {
                        out->ports[out->nports].name = read_str(a, p[j], "name");
                        out->ports[out->nports++].number = read_u32(p[j], "containerPort");
                }
        }
}

static void slice_ports(struct arena *a, const struct pb_node *from, struct mesh_slice *s)
{
        struct pb_node **v = NULL;
        size_t n = read_list(from, "ports", &v);

        s->ports = n ? arena_zalloc(a, n * sizeof(*s->ports)) : NULL;
        for (size_t i = 0; i < n; i++) {
                s->ports[s->nports].name = read_str(a, v[i], "name");
                s->ports[s->nports++].number = read_u32(v[i], "port");
        }
}

struct mesh_slice *read_endpoint_slice(struct arena *a, const struct pb_node *object, const struct mesh_meta *meta)
{
        struct mesh_slice *s = arena_zalloc(a, sizeof(*s));
        struct pb_node **v = NULL;
        size_t n = read_list(object, "endpoints", &v), total = 0;

        s->meta = *meta;
        s->service = read_str(a, read_field(read_field(object, "metadata"), "labels"), "kubernetes.io/service-name");
        slice_ports(a, object, s);
        for (size_t i = 0; i < n; i++) {
                struct pb_node **addr = NULL;

                total += read_list(v[i], "addresses", &addr);
        }
        s->v = total ? arena_zalloc(a, total * sizeof(*s->v)) : NULL;
        for (size_t i = 0; i < n; i++) {
                size_t k;
                struct str *addresses = read_strs(a, v[i], "addresses", &k);
                struct str pod = read_str(a, read_field(v[i], "targetRef"), "name");
                /* "unknown" is ready, as EndpointSlice's API says. */
                bool ready = read_bool(read_field(v[i], "conditions"), "ready") != 0;

                for (size_t j = 0; j < k; j++) {
                        s->v[s->n].address = addresses[j];
                        s->v[s->n].pod = pod;
                        s->v[s->n++].ready = ready;
                }
        }
        return s;
}

static void subset_addresses(struct arena *a, const struct pb_node *subset, const char *field, bool ready, struct mesh_slice *s)
{
        struct pb_node **v = NULL;
        size_t n = read_list(subset, field, &v);

        for (size_t i = 0; i < n; i++) {
                s->v[s->n].address = read_str(a, v[i], "ip");
                s->v[s->n].pod = read_str(a, read_field(v[i], "targetRef"), "name");
                s->v[s->n++].ready = ready;
        }
}

struct mesh_slice *read_endpoints(struct arena *a, const struct pb_node *object, const struct mesh_meta *meta, size_t *n)
{
        struct pb_node **v = NULL, **x = NULL;
        struct mesh_slice *out;

        *n = read_list(object, "subsets", &v);
        out = *n ? arena_zalloc(a, *n * sizeof(*out)) : NULL;
        for (size_t i = 0; i < *n; i++) {
                size_t total = read_list(v[i], "addresses", &x) + read_list(v[i], "notReadyAddresses", &x);

                out[i].meta = *meta;
                out[i].service = meta->name;
                out[i].legacy = true;
                slice_ports(a, v[i], &out[i]);
                out[i].v = total ? arena_zalloc(a, total * sizeof(*out[i].v)) : NULL;
                subset_addresses(a, v[i], "addresses", true, &out[i]);
                subset_addresses(a, v[i], "notReadyAddresses", false, &out[i]);
        }
        return out;
}
