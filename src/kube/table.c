/* Tables: `kubectl get` prints what the server puts into rows, so the columns here are the ones that users know. */
#include "kube/table.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>

/* ---- cells that many kinds have ---- */

/* A span of time as kubectl prints it: coarser as it grows. */
static void human_duration(int64_t s, struct buf *out)
{
        int64_t m = s / 60, h = m / 60, d = h / 24;

        if (s < -1)
                buf_cstr(out, "<invalid>");
        else if (s < 0)
                buf_cstr(out, "0s");
        else if (s < 120)
                buf_printf(out, "%llds", (long long)s);
        else if (m < 10)
                s % 60 ? buf_printf(out, "%lldm%llds", (long long)m, (long long)(s % 60)) : buf_printf(out, "%lldm", (long long)m);
        else if (m < 180)
                buf_printf(out, "%lldm", (long long)m);
        else if (h < 8)
                m % 60 ? buf_printf(out, "%lldh%lldm", (long long)h, (long long)(m % 60)) : buf_printf(out, "%lldh", (long long)h);
        else if (h < 48)
                buf_printf(out, "%lldh", (long long)h);
        else if (h < 192)
                h % 24 ? buf_printf(out, "%lldd%lldh", (long long)d, (long long)(h % 24)) : buf_printf(out, "%lldd", (long long)d);
        else if (d < 730)
                buf_printf(out, "%lldd", (long long)d);
        else if (d < 2920)
                d % 365 ? buf_printf(out, "%lldy%lldd", (long long)(d / 365), (long long)(d % 365))
                        : buf_printf(out, "%lldy", (long long)(d / 365));
        else
                buf_printf(out, "%lldy", (long long)(d / 365));
}

void table_age(struct kube_api *api, struct str rfc3339, struct buf *out)
{
        uint64_t then;

        if (!clock_parse_rfc3339(rfc3339, &then))
                buf_cstr(out, "<unknown>");
        else
                human_duration((int64_t)(api->now_us() / 1000000) - (int64_t)(then / 1000000), out);
}

void cell_age(struct row *r)
{
        table_age(r->api, pb_get_str(r->o->node, "metadata.creationTimestamp", STR("")), r->out);
}

static void cell_name(struct row *r)
{
        buf_str(r->out, r->o->name);
}

static const struct pb_node *at(struct row *r, const char *path)
{
        return pb_get_path(r->o->node, path);
}

static size_t count(const struct pb_node *n)
{
        return n && (n->kind == PB_LIST || n->kind == PB_MAP) ? n->n : 0;
}

static void join(struct buf *out, struct str s)
{
        if (out->n)
                buf_char(out, ',');
        buf_str(out, s);
}

static void labels_text(const struct pb_node *map, struct buf *out)
{
        for (size_t i = 0; map && map->kind == PB_MAP && i < map->n; i++) {
                join(out, map->keys[i]);
                buf_char(out, '=');
                buf_str(out, map->v[i]->text);
        }
        if (!out->n)
                buf_cstr(out, "<none>");
}

static void selector_text(const struct pb_node *sel, struct buf *out)
{
        const struct pb_node *me = pb_get(sel, "matchExpressions");
        struct buf b = BUF_INIT;

        if (count(pb_get(sel, "matchLabels")) || !count(me))
                labels_text(pb_get(sel, "matchLabels"), &b);
        for (size_t i = 0; i < count(me); i++) {
                struct str op = pb_get_str(me->v[i], "operator", STR("")), key = pb_get_str(me->v[i], "key", STR(""));
                const struct pb_node *v = pb_get(me->v[i], "values");

                join(&b, str_eqc(op, "DoesNotExist") ? STR("!") : STR(""));
                buf_str(&b, key);
                if (str_eqc(op, "In") || str_eqc(op, "NotIn")) {
                        buf_cstr(&b, str_eqc(op, "In") ? " in (" : " notin (");
                        for (size_t k = 0; k < count(v); k++)
                                buf_printf(&b, "%s" STR_FMT, k ? "," : "", STR_ARG(v->v[k]->text));
                        buf_char(&b, ')');
                }
        }
        buf_str(out, buf_view(&b));
        buf_fini(&b);
}

/* ---- namespaces and nodes ---- */

static void node_status(struct row *r)
{
        const struct pb_node *cs = at(r, "status.conditions");
        const char *s = "Unknown";

        for (size_t i = 0; i < count(cs); i++)
                if (str_eqc(pb_get_str(cs->v[i], "type", STR("")), "Ready"))
                        s = str_eqc(pb_get_str(cs->v[i], "status", STR("")), "True") ? "Ready" : "NotReady";
        buf_cstr(r->out, s);
        if (kube_bool(r->o->node, "spec.unschedulable", false))
                buf_cstr(r->out, ",SchedulingDisabled");
}

static void node_roles(struct row *r)
{
        const struct pb_node *l = at(r, "metadata.labels");
        struct str prefix = STR("node-role.kubernetes.io/");

        for (size_t i = 0; i < count(l); i++)
                if (str_starts(l->keys[i], prefix))
                        join(r->out, str_sub(l->keys[i], prefix.n, l->keys[i].n));
        if (!r->out->n)
                buf_cstr(r->out, "<none>");
}

static void node_address(struct row *r, const char *type)
{
        const struct pb_node *as = at(r, "status.addresses");

        for (size_t i = 0; i < count(as); i++)
                if (str_eqc(pb_get_str(as->v[i], "type", STR("")), type)) {
                        buf_str(r->out, pb_get_str(as->v[i], "address", STR("")));
                        return;
                }
        buf_cstr(r->out, "<none>");
}

static void node_internal(struct row *r)
{
        node_address(r, "InternalIP");
}

static void node_external(struct row *r)
{
        node_address(r, "ExternalIP");
}

#define NAME                                                                                            \
        {                                                                                               \
                "Name", "string", 0, cell_name, NULL, "Name of the object, unique within its namespace" \
        }
#define AGE                                                                             \
        {                                                                               \
                "Age", "string", 0, cell_age, NULL, "Time since the object was created" \
        }

static const struct column namespace_columns[] = {
        NAME, { "Status", "string", 0, NULL, "status.phase", "Whether the namespace is active or going away" }, AGE
};

static const struct column node_columns[] = {
        NAME,
        { "Status", "string", 0, node_status, NULL, "Whether pods can run here" },
        { "Roles", "string", 0, node_roles, NULL, "From its node-role labels" },
        AGE,
        { "Version", "string", 0, NULL, "status.nodeInfo.kubeletVersion", "Version of the node agent" },
        { "Internal-IP", "string", 1, node_internal, NULL, "Address within the cluster" },
        { "External-IP", "string", 1, node_external, NULL, "Address outside of it" },
        { "OS-Image", "string", 1, NULL, "status.nodeInfo.osImage", "Operating system" },
        { "Kernel-Version", "string", 1, NULL, "status.nodeInfo.kernelVersion", "Kernel" },
        { "Container-Runtime", "string", 1, NULL, "status.nodeInfo.containerRuntimeVersion", "Container runtime" },
};

/* ---- services and endpoints ---- */

static void service_external(struct row *r)
{
        struct str type = pb_get_str(r->o->node, "spec.type", STR(""));
        const struct pb_node *in = at(r, "status.loadBalancer.ingress");

        if (str_eqc(type, "ExternalName")) {
                buf_str(r->out, pb_get_str(r->o->node, "spec.externalName", STR("")));
                return;
        }
        for (size_t i = 0; i < count(in); i++)
                join(r->out, pb_get_str(in->v[i], "ip", pb_get_str(in->v[i], "hostname", STR(""))));
        if (!r->out->n)
                buf_cstr(r->out, str_eqc(type, "LoadBalancer") ? "<pending>" : "<none>");
}

static void service_ports(struct row *r)
{
        const struct pb_node *ps = at(r, "spec.ports");

        for (size_t i = 0; i < count(ps); i++) {
                int64_t np = kube_int(ps->v[i], "nodePort", 0);

                join(r->out, pb_get_str(ps->v[i], "port", STR("")));
                if (np)
                        buf_printf(r->out, ":%lld", (long long)np);
                buf_printf(r->out, "/" STR_FMT, STR_ARG(pb_get_str(ps->v[i], "protocol", STR("TCP"))));
        }
        if (!r->out->n)
                buf_cstr(r->out, "<none>");
}

static void service_ip(struct row *r)
{
        struct str ip = pb_get_str(r->o->node, "spec.clusterIP", STR(""));

        buf_str(r->out, ip.n ? ip : STR("<none>"));
}

static void service_selector(struct row *r)
{
        labels_text(at(r, "spec.selector"), r->out);
}

static const struct column service_columns[] = {
        NAME,
        { "Type", "string", 0, NULL, "spec.type", "How the service is reached" },
        { "Cluster-IP", "string", 0, service_ip, NULL, "Its address in the cluster" },
        { "External-IP", "string", 0, service_external, NULL, "Its addresses outside" },
        { "Port(s)", "string", 0, service_ports, NULL, "Its ports" },
        AGE,
        { "Selector", "string", 1, service_selector, NULL, "Labels of the pods behind it" },
};

enum { SHOWN = 3 }; /* endpoints before "+ N more..." */

static void endpoints_list(struct row *r)
{
        const struct pb_node *ss = at(r, "subsets");
        size_t n = 0;

        for (size_t s = 0; s < count(ss); s++) {
                const struct pb_node *as = pb_get(ss->v[s], "addresses"), *ps = pb_get(ss->v[s], "ports");

                for (size_t p = 0; p < count(ps) || (p == 0 && !count(ps)); p++)
                        for (size_t i = 0; i < count(as); i++) {
                                if (n++ >= SHOWN)
                                        continue;
                                join(r->out, pb_get_str(as->v[i], "ip", STR("")));
                                if (count(ps))
                                        buf_printf(r->out, ":" STR_FMT, STR_ARG(pb_get_str(ps->v[p], "port", STR(""))));
                        }
        }
        if (!n)
                buf_cstr(r->out, "<none>");
        else if (n > SHOWN)
                buf_printf(r->out, " + %zu more...", n - SHOWN);
}

static const struct column endpoints_columns[] = { NAME,
                                                   { "Endpoints", "string", 0, endpoints_list, NULL, "Addresses that are ready" },
                                                   AGE };

static void slice_ports(struct row *r)
{
        const struct pb_node *ps = at(r, "ports");

        for (size_t i = 0; i < count(ps) && i < SHOWN; i++)
                join(r->out, pb_get_str(ps->v[i], "port", STR("*")));
        if (count(ps) > SHOWN)
                buf_printf(r->out, " + %zu more...", count(ps) - SHOWN);
        if (!count(ps))
                buf_cstr(r->out, "<unset>");
}

static void slice_endpoints(struct row *r)
{
        const struct pb_node *es = at(r, "endpoints");
        size_t n = 0;

        for (size_t i = 0; i < count(es); i++) {
                const struct pb_node *as = pb_get(es->v[i], "addresses");

                for (size_t k = 0; k < count(as); k++)
                        if (n++ < SHOWN)
                                join(r->out, as->v[k]->text);
        }
        if (!n)
                buf_cstr(r->out, "<unset>");
        else if (n > SHOWN)
                buf_printf(r->out, " + %zu more...", n - SHOWN);
}

static const struct column slice_columns[] = {
        NAME,
        { "AddressType", "string", 0, NULL, "addressType", "IPv4, IPv6 or FQDN" },
        { "Ports", "string", 0, slice_ports, NULL, "Ports of the endpoints" },
        { "Endpoints", "string", 0, slice_endpoints, NULL, "Their addresses" },
        AGE,
};

/* ---- configuration ---- */

static void data_count(struct row *r)
{
        buf_printf(r->out, "%zu", count(at(r, "data")) + count(at(r, "binaryData")));
}

static void secrets_count(struct row *r)
{
        buf_printf(r->out, "%zu", count(at(r, "secrets")));
}

static const struct column configmap_columns[] = { NAME, { "Data", "integer", 0, data_count, NULL, "Number of keys" }, AGE };
static const struct column secret_columns[] = { NAME,
                                                { "Type", "string", 0, NULL, "type", "What the secret is for" },
                                                { "Data", "integer", 0, data_count, NULL, "Number of keys" },
                                                AGE };
static const struct column sa_columns[] = { NAME, { "Secrets", "integer", 0, secrets_count, NULL, "Number of secrets" }, AGE };

/* ---- events ---- */

static void event_seen(struct row *r, const char *key)
{
        struct str t = pb_get_str(r->o->node, key, STR(""));

        if (!t.n)
                t = pb_get_str(r->o->node, "eventTime", STR(""));
        if (!t.n)
                t = pb_get_str(r->o->node, "metadata.creationTimestamp", STR(""));
        table_age(r->api, t, r->out);
}

static void event_last(struct row *r)
{
        event_seen(r, "lastTimestamp");
}

static void event_first(struct row *r)
{
        event_seen(r, "firstTimestamp");
}

static void event_object(struct row *r)
{
        struct str kind = pb_get_str(r->o->node, "involvedObject.kind", STR(""));

        for (size_t i = 0; i < kind.n; i++)
                buf_char(r->out, ascii_lower(kind.p[i]));
        buf_printf(r->out, "/" STR_FMT, STR_ARG(pb_get_str(r->o->node, "involvedObject.name", STR(""))));
}

static void event_source(struct row *r)
{
        struct str host = pb_get_str(r->o->node, "source.host", STR(""));

        buf_str(r->out, pb_get_str(r->o->node, "source.component", pb_get_str(r->o->node, "reportingComponent", STR(""))));
        if (host.n)
                buf_printf(r->out, ", " STR_FMT, STR_ARG(host));
}

static void event_count(struct row *r)
{
        buf_printf(r->out, "%lld", (long long)kube_int(r->o->node, "count", 1));
}

static const struct column event_columns[] = {
        { "Last Seen", "string", 0, event_last, NULL, "Time since it happened last" },
        { "Type", "string", 0, NULL, "type", "Normal or Warning" },
        { "Reason", "string", 0, NULL, "reason", "Why, in one word" },
        { "Object", "string", 0, event_object, NULL, "What it is about" },
        { "Subobject", "string", 1, NULL, "involvedObject.fieldPath", "Which part of it" },
        { "Source", "string", 1, event_source, NULL, "Who says so" },
        { "Message", "string", 0, NULL, "message", "In words" },
        { "First Seen", "string", 1, event_first, NULL, "Time since it happened first" },
        { "Count", "integer", 1, event_count, NULL, "How often" },
        { "Name", "string", 1, cell_name, NULL, "Name of the event" },
};

/* ---- workloads ---- */

static void containers_text(struct row *r, const char *key)
{
        const struct pb_node *cs = at(r, "spec.template.spec.containers");

        for (size_t i = 0; i < count(cs); i++)
                join(r->out, pb_get_str(cs->v[i], key, STR("")));
}

static void template_names(struct row *r)
{
        containers_text(r, "name");
}

static void template_images(struct row *r)
{
        containers_text(r, "image");
}

static void workload_selector(struct row *r)
{
        selector_text(at(r, "spec.selector"), r->out);
}

static void deployment_ready(struct row *r)
{
        buf_printf(r->out, "%lld/%lld", (long long)kube_int(r->o->node, "status.readyReplicas", 0),
                   (long long)kube_int(r->o->node, "spec.replicas", 0));
}

static void status_number(struct row *r, const char *path)
{
        buf_printf(r->out, "%lld", (long long)kube_int(r->o->node, path, 0));
}

static void deployment_updated(struct row *r)
{
        status_number(r, "status.updatedReplicas");
}

static void deployment_available(struct row *r)
{
        status_number(r, "status.availableReplicas");
}

static void rs_desired(struct row *r)
{
        status_number(r, "spec.replicas");
}

static void rs_current(struct row *r)
{
        status_number(r, "status.replicas");
}

static void rs_ready(struct row *r)
{
        status_number(r, "status.readyReplicas");
}

#define TEMPLATE_COLUMNS                                                                \
        { "Containers", "string", 1, template_names, NULL, "Names of the containers" }, \
                { "Images", "string", 1, template_images, NULL, "Their images" },       \
        {                                                                               \
                "Selector", "string", 1, workload_selector, NULL, "Labels of its pods"  \
        }

static const struct column deployment_columns[] = {
        NAME,
        { "Ready", "string", 0, deployment_ready, NULL, "Pods that are ready, of those wanted" },
        { "Up-to-date", "integer", 0, deployment_updated, NULL, "Pods of the newest template" },
        { "Available", "integer", 0, deployment_available, NULL, "Pods ready for long enough" },
        AGE,
        TEMPLATE_COLUMNS,
};

static const struct column rs_columns[] = {
        NAME,
        { "Desired", "integer", 0, rs_desired, NULL, "Pods wanted" },
        { "Current", "integer", 0, rs_current, NULL, "Pods that exist" },
        { "Ready", "integer", 0, rs_ready, NULL, "Pods that are ready" },
        AGE,
        TEMPLATE_COLUMNS,
};

/* ---- definitions and Istio's kinds ---- */

static const struct column crd_columns[] = { NAME, { "Created At", "date", 0, NULL, "metadata.creationTimestamp", "When it was made" } };
static const struct column age_only[] = { NAME, AGE };
static const struct column se_columns[] = { NAME,
                                            { "Hosts", "string", 0, NULL, "spec.hosts", "The hosts of this entry" },
                                            { "Location", "string", 0, NULL, "spec.location", "Inside the mesh or outside" },
                                            { "Resolution", "string", 0, NULL, "spec.resolution", "How endpoints are found" },
                                            AGE };
static const struct column vs_columns[] = { NAME,
                                            { "Gateways", "string", 0, NULL, "spec.gateways",
                                              "Gateways and sidecars that apply the routes" },
                                            { "Hosts", "string", 0, NULL, "spec.hosts", "The hosts that traffic is sent to" },
                                            AGE };
static const struct column dr_columns[] = { NAME, { "Host", "string", 0, NULL, "spec.host", "The service that the rule is about" }, AGE };
static const struct column we_columns[] = { NAME, AGE, { "Address", "string", 0, NULL, "spec.address", "Address of the workload" } };
static const struct column ap_columns[] = { NAME, { "Action", "string", 0, NULL, "spec.action", "What the policy does" }, AGE };
static const struct column pa_columns[] = { NAME, { "Mode", "string", 0, NULL, "spec.mtls.mode", "The mTLS mode" }, AGE };

static const struct {
        const char *bucket;
        struct table t;
} tables[] = {
        { "namespaces", { namespace_columns, ARRAY_LEN(namespace_columns) } },
        { "nodes", { node_columns, ARRAY_LEN(node_columns) } },
        { "services", { service_columns, ARRAY_LEN(service_columns) } },
        { "endpoints", { endpoints_columns, ARRAY_LEN(endpoints_columns) } },
        { "endpointslices.discovery.k8s.io", { slice_columns, ARRAY_LEN(slice_columns) } },
        { "configmaps", { configmap_columns, ARRAY_LEN(configmap_columns) } },
        { "secrets", { secret_columns, ARRAY_LEN(secret_columns) } },
        { "serviceaccounts", { sa_columns, ARRAY_LEN(sa_columns) } },
        { "events", { event_columns, ARRAY_LEN(event_columns) } },
        { "deployments.apps", { deployment_columns, ARRAY_LEN(deployment_columns) } },
        { "replicasets.apps", { rs_columns, ARRAY_LEN(rs_columns) } },
        { "customresourcedefinitions.apiextensions.k8s.io", { crd_columns, ARRAY_LEN(crd_columns) } },
        { "serviceentries.networking.istio.io", { se_columns, ARRAY_LEN(se_columns) } },
        { "virtualservices.networking.istio.io", { vs_columns, ARRAY_LEN(vs_columns) } },
        { "destinationrules.networking.istio.io", { dr_columns, ARRAY_LEN(dr_columns) } },
        { "workloadentries.networking.istio.io", { we_columns, ARRAY_LEN(we_columns) } },
        { "authorizationpolicies.security.istio.io", { ap_columns, ARRAY_LEN(ap_columns) } },
        { "peerauthentications.security.istio.io", { pa_columns, ARRAY_LEN(pa_columns) } },
};

const struct table *table_of(const struct kube_resource *res)
{
        static const struct table plain = { age_only, ARRAY_LEN(age_only) };

        if (res->bucket_id == kube_b.pods && *res->bucket)
                return &table_pods;
        for (size_t i = 0; i < ARRAY_LEN(tables); i++)
                if (!strcmp(res->bucket, tables[i].bucket))
                        return &tables[i].t;
        return &plain;
}

/* ---- writing ---- */

static void cell(const struct column *c, struct row *r, struct buf *out)
{
        const struct pb_node *n = c->cell ? NULL : at(r, c->path);

        r->out->n = 0;
        if (c->cell)
                c->cell(r);
        else if (n && (n->kind == PB_LIST || n->kind == PB_MAP))
                pb_node_json(n, r->out);
        else if (n && n->kind != PB_NULL)
                buf_str(r->out, n->text);
        if (!strcmp(c->type, "integer"))
                buf_str(out, r->out->n ? buf_view(r->out) : STR("0"));
        else
                buf_json(out, buf_view(r->out));
}

static void columns_json(const struct table *t, struct buf *out)
{
        buf_cstr(out, "\"columnDefinitions\":[");
        for (unsigned i = 0; i < t->n; i++) {
                const struct column *c = &t->c[i];

                buf_printf(out, "%s{\"name\":\"%s\",\"type\":\"%s\",\"format\":\"%s\",\"description\":\"%s\",\"priority\":%d}",
                           i ? "," : "", c->name, c->type, i == 0 && !strcmp(c->name, "Name") ? "name" : "", c->description, c->priority);
        }
        buf_char(out, ']');
}

static void row_json(const struct kube_view_opts *v, struct kube_api *api, const struct table *t, const struct kobj *o, struct buf *out)
{
        struct buf text = BUF_INIT;
        struct row r = { api, o, &text };
        const char *version = v->table_v1beta1 ? "v1beta1" : "v1";

        buf_cstr(out, "{\"cells\":[");
        for (unsigned i = 0; i < t->n; i++) {
                if (i)
                        buf_char(out, ',');
                cell(&t->c[i], &r, out);
        }
        buf_char(out, ']');
        if (v->include == KUBE_ROW_METADATA) {
                buf_printf(out, ",\"object\":{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/%s\",\"metadata\":", version);
                pb_node_json(pb_get(o->node, "metadata"), out);
                buf_char(out, '}');
        } else if (v->include == KUBE_ROW_OBJECT) {
                buf_cstr(out, ",\"object\":");
                kobj_json(o, v->res, out);
        } else {
                buf_cstr(out, ",\"object\":null");
        }
        buf_char(out, '}');
        buf_fini(&text);
}

static void begin(const struct kube_view_opts *v, const struct table *t, struct str meta, struct buf *out)
{
        buf_printf(out, "{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/%s\",\"metadata\":" STR_FMT ",",
                   v->table_v1beta1 ? "v1beta1" : "v1", STR_ARG(meta));
        columns_json(t, out);
        buf_cstr(out, ",\"rows\":[");
}

void kube_table_list(const struct kube_req *r, struct kobj *const *v, size_t n, struct str list_meta_json, struct buf *out)
{
        const struct table *t = table_of(r->res);

        begin(&r->view, t, list_meta_json, out);
        for (size_t i = 0; i < n; i++) {
                if (i)
                        buf_char(out, ',');
                row_json(&r->view, r->api, t, v[i], out);
        }
        buf_cstr(out, "]}\n");
}

void kube_table_one(const struct kube_view_opts *v, struct kube_api *api, const struct kobj *o, struct buf *out)
{
        const struct table *t = table_of(v->res);
        char meta[64];

        snprintf(meta, sizeof(meta), "{\"resourceVersion\":\"%llu\"}", (unsigned long long)o->rv);
        begin(v, t, str_of(meta), out);
        row_json(v, api, t, o, out);
        buf_cstr(out, "]}");
}
