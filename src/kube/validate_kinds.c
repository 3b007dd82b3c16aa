/* What Services, workloads, ConfigMaps, Secrets and endpoints may say. */
#include "kube/validate.h"

#include "base/mem.h"

static bool immutable(struct check *c, const struct pb_node *now, const struct pb_node *old, const char *path)
{
        const struct pb_node *a = pb_get_path(now, path), *b = pb_get_path(old, path);

        if (!old || (!a && !b) || (a && b && pb_node_eq(a, b)))
                return true;
        check_invalid(c, path, a, "field is immutable");
        return false;
}

/* ---- services ---- */

static void service_ports(struct check *c, const struct pb_node *spec, bool required)
{
        const struct pb_node *ports = check_list(spec, "ports");

        if (required && (!ports || !ports->n))
                check_required(c, "spec.ports", "");
        for (size_t i = 0; ports && i < ports->n; i++) {
                const struct pb_node *p = ports->v[i];
                const char *base = PATH(c, "spec.ports[%zu]", i);
                struct str name = pb_get_str(p, "name", STR(""));

                check_port(c, p, base, "port", true);
                check_port_or_name(c, p, base, "targetPort", false);
                check_enum(c, p, base, "protocol", "SCTP TCP UDP");
                if (!name.n && ports->n > 1)
                        check_required(c, PATH(c, "%s.name", base), "");
                else if (name.n && kube_check_dns_label(name))
                        check_invalid_text(c, PATH(c, "%s.name", base), name, kube_check_dns_label(name));
                for (size_t k = 0; k < i; k++) {
                        const struct pb_node *q = ports->v[k];

                        if (name.n && str_eq(name, pb_get_str(q, "name", STR(""))))
                                check_duplicate(c, PATH(c, "%s.name", base), name);
                        if (kube_int(p, "port", 0) == kube_int(q, "port", -1) &&
                            str_eq(pb_get_str(p, "protocol", STR("TCP")), pb_get_str(q, "protocol", STR("TCP"))))
                                check_duplicate(c, base, pb_get_path(p, "port")->text);
                }
        }
}

static void service_ip(struct check *c, const struct pb_node *o, const struct pb_node *old)
{
        struct str ip = pb_get_str(o, "spec.clusterIP", STR("")), was = pb_get_str(old, "spec.clusterIP", STR(""));
        const struct pb_node *ips = pb_get_path(o, "spec.clusterIPs");
        bool external = str_eqc(pb_get_str(o, "spec.type", STR("")), "ExternalName");

        if (external) {
                if (ip.n && !str_eqc(ip, "None"))
                        check_forbidden(c, "spec.clusterIPs[0]", "may not be set when `type` is 'ExternalName'");
                return;
        }
        if (was.n && !str_eq(was, ip) && !str_eqc(pb_get_str(old, "spec.type", STR("")), "ExternalName")) {
                check_invalid(c, "spec.clusterIPs[0]", ips, "may not change once set");
                return;
        }
        if (!ip.n || str_eqc(ip, "None"))
                return;
        if (!check_is_ip(ip))
                check_invalid_text(c, "spec.clusterIPs[0]", ip, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        else if (!kube_service_ip_in_range(c->api, ip))
                check_invalid(c, "spec.clusterIPs", ips,
                              PATH(c, "failed to allocate IP " STR_FMT ": the provided IP is not in the valid range for this cluster",
                                   STR_ARG(ip)));
        else if (!kube_service_ip_free(c->api, ip, pb_get_str(o, "metadata.namespace", STR("")), pb_get_str(o, "metadata.name", STR(""))))
                check_invalid(c, "spec.clusterIPs", ips,
                              PATH(c, "failed to allocate IP " STR_FMT ": provided IP is already allocated", STR_ARG(ip)));
        if (ips && ips->kind == PB_LIST && ips->n && !str_eq(ips->v[0]->text, ip))
                check_invalid_text(c, "spec.clusterIPs[0]", ips->v[0]->text, "must match `clusterIP`");
        if (ips && ips->kind == PB_LIST && ips->n > 1)
                check_forbidden(c, "spec.clusterIPs[1]", "dual-stack services are not supported on this cluster");
}

void validate_service(struct check *c, const struct pb_node *o, const struct pb_node *old)
{
        const struct pb_node *spec = pb_get(o, "spec");
        struct str type = pb_get_str(spec, "type", STR(""));
        bool headless = str_eqc(pb_get_str(spec, "clusterIP", STR("")), "None"), external = str_eqc(type, "ExternalName");

        service_ports(c, spec, !headless && !external);
        check_enum(c, spec, "spec", "type", "ClusterIP ExternalName LoadBalancer NodePort");
        check_enum(c, spec, "spec", "sessionAffinity", "ClientIP None");
        check_enum(c, spec, "spec", "internalTrafficPolicy", "Cluster Local");
        check_enum(c, spec, "spec", "externalTrafficPolicy", "Cluster Local");
        check_enum(c, spec, "spec", "ipFamilyPolicy", "SingleStack PreferDualStack RequireDualStack");
        if (str_eqc(pb_get_str(spec, "ipFamilyPolicy", STR("")), "RequireDualStack"))
                check_invalid_text(c, "spec.ipFamilyPolicy", STR("RequireDualStack"), "Cluster is not configured for dual-stack services");
        check_labels(c, pb_get(spec, "selector"), "spec.selector");
        if (external)
                check_string(c, spec, "spec", "externalName", kube_check_dns_subdomain, true);
        if (headless && !str_eqc(type, "ClusterIP"))
                check_invalid_text(c, "spec.clusterIPs[0]", STR("None"),
                                   PATH(c, "may not be set to 'None' for " STR_FMT " services", STR_ARG(type)));
        const struct pb_node *ips = check_list(spec, "externalIPs");
        for (size_t i = 0; ips && i < ips->n; i++)
                check_forbidden(c, PATH(c, "spec.externalIPs[%zu]", i), "external addresses are not supported on this cluster");
        service_ip(c, o, old);
}

/* ---- Deployments and ReplicaSets ---- */

/* Percent or number; the value through *v. */
static bool int_or_percent(const struct pb_node *n, int64_t *v)
{
        struct str s = n ? n->text : STR("");

        if (str_ends(s, STR("%")))
                s.n--;
        else if (n && n->kind == PB_STRING)
                return false;
        return str_i64(s, v);
}

static void rolling(struct check *c, const struct pb_node *spec)
{
        static const char *const keys[] = { "maxUnavailable", "maxSurge" };
        const struct pb_node *r = pb_get_path(spec, "strategy.rollingUpdate");
        int64_t v[2] = { 0, 0 };

        check_enum(c, pb_get(spec, "strategy"), "spec.strategy", "type", "Recreate RollingUpdate");
        if (!str_eqc(pb_get_str(spec, "strategy.type", STR("")), "RollingUpdate")) {
                if (r && r->kind == PB_MAP)
                        check_forbidden(c, "spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'");
                return;
        }
        for (unsigned i = 0; i < 2; i++) {
                const struct pb_node *n = pb_get(r, keys[i]);

                if (n && !int_or_percent(n, &v[i]))
                        check_invalid(c, PATH(c, "spec.strategy.rollingUpdate.%s", keys[i]), n,
                                      "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
                                      "regex used for validation is '[0-9]+%')");
                else if (v[i] < 0)
                        check_invalid(c, PATH(c, "spec.strategy.rollingUpdate.%s", keys[i]), n, "must be greater than or equal to 0");
        }
        if (!v[0] && !v[1])
                check_invalid(c, "spec.strategy.rollingUpdate.maxUnavailable", pb_get(r, "maxUnavailable"),
                              "may not be 0 when `maxSurge` is 0");
}

void validate_workload(struct check *c, const struct pb_node *o, const struct pb_node *old, bool deployment)
{
        const struct pb_node *spec = pb_get(o, "spec"), *selector = pb_get(spec, "selector"),
                             *labels = pb_get_path(spec, "template.metadata.labels");
        struct kube_selector s;
        struct str why;

        check_not_negative(c, spec, "spec", "replicas");
        check_not_negative(c, spec, "spec", "minReadySeconds");
        check_not_negative(c, spec, "spec", "revisionHistoryLimit");
        check_not_negative(c, spec, "spec", "progressDeadlineSeconds");
        if (!selector || selector->kind != PB_MAP)
                check_required(c, "spec.selector", "");
        else if (!kube_labels_from_node(selector, c->a, &s, &why))
                check_invalid(c, "spec.selector", selector, arena_cstr(c->a, why));
        else if (!s.n)
                check_invalid(c, "spec.selector", selector, "empty selector is invalid for deployment");
        else if (!kube_labels_match(&s, labels))
                check_invalid(c, "spec.template.metadata.labels", labels, "`selector` does not match template `labels`");
        check_labels(c, labels, "spec.template.labels");
        validate_pod_spec(c, pb_get_path(spec, "template.spec"), "spec.template.spec");
        struct str restart = pb_get_str(spec, "template.spec.restartPolicy", STR("Always"));
        if (!str_eqc(restart, "Always"))
                check_unsupported(c, "spec.template.spec.restartPolicy", restart, "Always");
        if (deployment)
                rolling(c, spec);
        if (old)
                immutable(c, o, old, "spec.selector");
}

/* ---- ConfigMaps and Secrets ---- */

static const char *config_key(struct str s)
{
        if (s.n > 253)
                return "must be no more than 253 characters";
        for (size_t i = 0; i < s.n; i++) {
                char ch = s.p[i];

                if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '-' || ch == '_' ||
                      ch == '.'))
                        return "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
                               "'KEY_NAME',  or 'key-name', "
                               "regex used for validation is '[-._a-zA-Z0-9]+')";
        }
        if (!s.n || str_eqc(s, ".") || str_starts(s, STR("..")))
                return "must not be '.' or start with '..'";
        return NULL;
}

static size_t keys(struct check *c, const struct pb_node *map, const char *path)
{
        size_t total = 0;

        for (size_t i = 0; map && map->kind == PB_MAP && i < map->n; i++) {
                const char *bad = config_key(map->keys[i]);

                if (bad)
                        check_invalid_text(c, PATH(c, "%s[" STR_FMT "]", path, STR_ARG(map->keys[i])), map->keys[i], bad);
                total += map->v[i]->text.n;
        }
        return total;
}

static void need_key(struct check *c, const struct pb_node *o, const char *key)
{
        if (!pb_get(pb_get(o, "data"), key))
                check_required(c, PATH(c, "data[%s]", key), "");
}

void validate_config(struct check *c, const struct pb_node *o, const struct pb_node *old, bool secret)
{
        enum { MAX = 1 << 20 };
        size_t total = keys(c, pb_get(o, "data"), "data");
        struct str type = pb_get_str(o, "type", STR(""));

        if (secret) {
                total = total / 4 * 3; /* base64 */
        } else {
                const struct pb_node *bin = pb_get(o, "binaryData");

                total += keys(c, bin, "binaryData") / 4 * 3;
                for (size_t i = 0; bin && bin->kind == PB_MAP && i < bin->n; i++)
                        if (pb_get(pb_get(o, "data"), arena_cstr(c->a, bin->keys[i])))
                                check_invalid(c, PATH(c, "data[" STR_FMT "]", STR_ARG(bin->keys[i])), NULL,
                                              "duplicate of key present in binaryData");
        }
        if (total > MAX)
                check_too_long(c, secret ? "data" : "", MAX);
        if (secret && str_eqc(type, "kubernetes.io/tls")) {
                need_key(c, o, "tls.crt");
                need_key(c, o, "tls.key");
        } else if (secret && str_eqc(type, "kubernetes.io/dockerconfigjson")) {
                need_key(c, o, ".dockerconfigjson");
        }
        if (old && secret)
                immutable(c, o, old, "type");
        if (old && kube_bool(old, "immutable", false)) {
                if (!kube_bool(o, "immutable", false))
                        check_forbidden(c, "immutable", "field is immutable when `immutable` is set");
                const struct pb_node *a = pb_get(o, "data"), *b = pb_get(old, "data");
                if ((a || b) && !(a && b && pb_node_eq(a, b)))
                        check_forbidden(c, "data", "field is immutable when `immutable` is set");
        }
}

/* ---- endpoints ---- */

static void addresses(struct check *c, const struct pb_node *list, const char *path)
{
        for (size_t i = 0; list && i < list->n; i++) {
                struct str ip = pb_get_str(list->v[i], "ip", STR(""));

                if (!check_is_ip(ip))
                        check_invalid_text(c, PATH(c, "%s[%zu].ip", path, i), ip,
                                           "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
}

static void endpoint_ports(struct check *c, const struct pb_node *ports, const char *path)
{
        for (size_t i = 0; ports && i < ports->n; i++) {
                const char *base = PATH(c, "%s[%zu]", path, i);

                check_port(c, ports->v[i], base, "port", true);
                check_enum(c, ports->v[i], base, "protocol", "SCTP TCP UDP");
        }
}

void validate_endpoints(struct check *c, const struct pb_node *o)
{
        const struct pb_node *subsets = check_list(o, "subsets");

        for (size_t i = 0; subsets && i < subsets->n; i++) {
                const struct pb_node *s = subsets->v[i], *up = check_list(s, "addresses"), *down = check_list(s, "notReadyAddresses");

                if ((!up || !up->n) && (!down || !down->n))
                        check_required(c, PATH(c, "subsets[%zu]", i), "must specify `addresses` or `notReadyAddresses`");
                addresses(c, up, PATH(c, "subsets[%zu].addresses", i));
                addresses(c, down, PATH(c, "subsets[%zu].notReadyAddresses", i));
                endpoint_ports(c, check_list(s, "ports"), PATH(c, "subsets[%zu].ports", i));
        }
}

void validate_endpointslice(struct check *c, const struct pb_node *o, const struct pb_node *old)
{
        const struct pb_node *eps = check_list(o, "endpoints");
        struct str type = pb_get_str(o, "addressType", STR(""));

        if (!type.n)
                check_required(c, "addressType", "");
        else
                check_enum(c, o, NULL, "addressType", "FQDN IPv4 IPv6");
        if (old)
                immutable(c, o, old, "addressType");
        for (size_t i = 0; eps && i < eps->n; i++) {
                const struct pb_node *as = check_list(eps->v[i], "addresses");

                if (!as || !as->n)
                        check_required(c, PATH(c, "endpoints[%zu].addresses", i), "must contain at least 1 address");
                for (size_t k = 0; as && k < as->n; k++)
                        if (!str_eqc(type, "FQDN") && !check_is_ip(as->v[k]->text))
                                check_invalid(c, PATH(c, "endpoints[%zu].addresses[%zu]", i, k), as->v[k],
                                              "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
        endpoint_ports(c, check_list(o, "ports"), "ports");
}
