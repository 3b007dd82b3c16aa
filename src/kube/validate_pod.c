/* What a pod may say. Volume sources that one machine cannot offer are refused by their names. */
#include "kube/validate.h"

#include "base/mem.h"

#include <stdlib.h>

static const struct {
        const char *name, *why; /* why NULL: supported */
} volume_sources[] = {
        { "emptyDir", NULL },
        { "configMap", NULL },
        { "secret", NULL },
        { "downwardAPI", NULL },
        { "projected", NULL },
        { "hostPath", "hostPath volumes are not supported: pods see nothing of the host; use a configMap, secret or emptyDir" },
        { "persistentVolumeClaim", "persistent volumes are not supported on this cluster" },
        { "ephemeral", "ephemeral volume claims are not supported on this cluster" },
        { "csi", "csi volumes are not supported on this cluster" },
        { "nfs", "nfs volumes are not supported on this cluster" },
        { "image", "image volumes are not supported on this cluster" },
        { "awsElasticBlockStore", "not supported on this cluster" },
        { "azureDisk", "not supported on this cluster" },
        { "azureFile", "not supported on this cluster" },
        { "cephfs", "not supported on this cluster" },
        { "cinder", "not supported on this cluster" },
        { "fc", "not supported on this cluster" },
        { "flexVolume", "not supported on this cluster" },
        { "flocker", "not supported on this cluster" },
        { "gcePersistentDisk", "not supported on this cluster" },
        { "gitRepo", "not supported on this cluster" },
        { "glusterfs", "not supported on this cluster" },
        { "iscsi", "not supported on this cluster" },
        { "photonPersistentDisk", "not supported on this cluster" },
        { "portworxVolume", "not supported on this cluster" },
        { "quobyte", "not supported on this cluster" },
        { "rbd", "not supported on this cluster" },
        { "scaleIO", "not supported on this cluster" },
        { "storageos", "not supported on this cluster" },
        { "vsphereVolume", "not supported on this cluster" },
};

static void items(struct check *c, const struct pb_node *list, const char *path)
{
        for (size_t i = 0; list && list->kind == PB_LIST && i < list->n; i++) {
                const char *base = PATH(c, "%s[%zu]", path, i);
                struct str file = pb_get_str(list->v[i], "path", STR(""));

                check_string(c, list->v[i], base, "path", NULL, true);
                if (str_starts(file, STR("/")))
                        check_invalid_text(c, PATH(c, "%s.path", base), file, "must be a relative path");
                else if (str_find(file, STR("..")) >= 0)
                        check_invalid_text(c, PATH(c, "%s.path", base), file, "must not contain '..'");
        }
}

static void projected(struct check *c, const struct pb_node *p, const char *base)
{
        const struct pb_node *sources = check_list(p, "sources");

        for (size_t i = 0; sources && i < sources->n; i++) {
                const char *at = PATH(c, "%s.sources[%zu]", base, i);
                const struct pb_node *s = sources->v[i];

                if (pb_get(s, "clusterTrustBundle"))
                        check_forbidden(c, PATH(c, "%s.clusterTrustBundle", at), "not supported on this cluster");
                items(c, pb_get_path(s, "configMap.items"), PATH(c, "%s.configMap.items", at));
                items(c, pb_get_path(s, "secret.items"), PATH(c, "%s.secret.items", at));
                items(c, pb_get_path(s, "downwardAPI.items"), PATH(c, "%s.downwardAPI.items", at));
                const struct pb_node *token = pb_get(s, "serviceAccountToken");
                if (token) {
                        check_string(c, token, PATH(c, "%s.serviceAccountToken", at), "path", NULL, true);
                        if (kube_int(token, "expirationSeconds", 3600) < 600)
                                check_invalid(c, PATH(c, "%s.serviceAccountToken.expirationSeconds", at),
                                              pb_get(token, "expirationSeconds"), "may not specify a duration less than 10 minutes");
                }
        }
}

static void volume(struct check *c, const struct pb_node *v, const char *base)
{
        unsigned n = 0;

        check_string(c, v, base, "name", kube_check_dns_label, true);
        for (size_t i = 0; i < ARRAY_LEN(volume_sources); i++) {
                const struct pb_node *s = pb_get(v, volume_sources[i].name);
                const char *at = PATH(c, "%s.%s", base, volume_sources[i].name);

                if (!s)
                        continue;
                if (n++)
                        check_forbidden(c, at, "may not specify more than 1 volume type");
                if (volume_sources[i].why)
                        check_forbidden(c, at, volume_sources[i].why);
                if (!strcmp(volume_sources[i].name, "configMap"))
                        check_string(c, s, at, "name", NULL, true);
                else if (!strcmp(volume_sources[i].name, "secret"))
                        check_string(c, s, at, "secretName", NULL, true);
                items(c, pb_get(s, "items"), PATH(c, "%s.items", at));
                projected(c, s, at);
        }
        if (!n)
                check_required(c, base, "must specify a volume type");
}

static bool has_named(const struct pb_node *list, struct str name)
{
        for (size_t i = 0; list && i < list->n; i++)
                if (str_eq(pb_get_str(list->v[i], "name", STR("")), name))
                        return true;
        return false;
}

static void volumes(struct check *c, const struct pb_node *list, const char *base)
{
        for (size_t i = 0; list && i < list->n; i++) {
                struct pb_node before = *list;
                struct str name = pb_get_str(list->v[i], "name", STR(""));

                before.n = i;
                volume(c, list->v[i], PATH(c, "%s.volumes[%zu]", base, i));
                if (name.n && has_named(&before, name))
                        check_duplicate(c, PATH(c, "%s.volumes[%zu].name", base, i), name);
        }
}

/* exec, httpGet, tcpSocket, grpc (or sleep, in a lifecycle hook): exactly one. */
static void handler(struct check *c, const struct pb_node *h, const char *base, bool hook)
{
        static const char *const kinds[] = { "exec", "httpGet", "tcpSocket", "grpc", "sleep" };
        unsigned n = 0;

        for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
                if (!pb_get(h, kinds[i]))
                        continue;
                if (n++)
                        check_forbidden(c, PATH(c, "%s.%s", base, kinds[i]), "may not specify more than 1 handler type");
        }
        if (!n)
                check_required(c, base, "must specify a handler type");
        const struct pb_node *exec = pb_get(h, "exec"), *http = pb_get(h, "httpGet"), *tcp = pb_get(h, "tcpSocket"),
                             *grpc = pb_get(h, "grpc");
        if (exec && (!check_list(exec, "command") || !check_list(exec, "command")->n))
                check_required(c, PATH(c, "%s.exec.command", base), "");
        if (http) {
                check_port_or_name(c, http, PATH(c, "%s.httpGet", base), "port", true);
                check_enum(c, http, PATH(c, "%s.httpGet", base), "scheme", "HTTP HTTPS");
        }
        if (tcp)
                check_port_or_name(c, tcp, PATH(c, "%s.tcpSocket", base), "port", true);
        if (grpc)
                check_port(c, grpc, PATH(c, "%s.grpc", base), "port", true);
}

static void probe(struct check *c, const struct pb_node *ct, const char *cbase, const char *which)
{
        static const char *const numbers[] = { "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold",
                                               "failureThreshold" };
        const struct pb_node *p = pb_get(ct, which);
        const char *base = PATH(c, "%s.%s", cbase, which);

        if (!p || p->kind != PB_MAP)
                return;
        handler(c, p, base, false);
        for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
                check_not_negative(c, p, base, numbers[i]);
        if (strcmp(which, "readinessProbe") && kube_int(p, "successThreshold", 1) != 1)
                check_invalid(c, PATH(c, "%s.successThreshold", base), pb_get(p, "successThreshold"), "must be 1");
}

static void ports(struct check *c, const struct pb_node *list, const char *cbase)
{
        for (size_t i = 0; list && i < list->n; i++) {
                const char *base = PATH(c, "%s.ports[%zu]", cbase, i);
                struct pb_node before = *list;
                struct str name = pb_get_str(list->v[i], "name", STR(""));

                before.n = i;
                check_port(c, list->v[i], base, "containerPort", true);
                if (kube_int(list->v[i], "hostPort", 0))
                        check_port(c, list->v[i], base, "hostPort", false);
                check_enum(c, list->v[i], base, "protocol", "SCTP TCP UDP");
                if (name.n && check_port_name(name))
                        check_invalid_text(c, PATH(c, "%s.name", base), name, check_port_name(name));
                else if (name.n && has_named(&before, name))
                        check_duplicate(c, PATH(c, "%s.name", base), name);
        }
}

static const char *env_name(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] == '=' || s.p[i] < 32 || s.p[i] > 126)
                        return "a valid environment variable name must consist only of printable ASCII characters other than '='";
        return NULL;
}

static void env(struct check *c, const struct pb_node *ct, const char *cbase)
{
        static const char *const kinds[] = { "fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef" };
        const struct pb_node *list = check_list(ct, "env");

        for (size_t i = 0; list && i < list->n; i++) {
                const char *base = PATH(c, "%s.env[%zu]", cbase, i);
                const struct pb_node *from = pb_get(list->v[i], "valueFrom");
                unsigned n = 0;

                check_string(c, list->v[i], base, "name", env_name, true);
                if (!from || from->kind != PB_MAP)
                        continue;
                for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
                        n += pb_get(from, kinds[k]) != NULL;
                if (!n)
                        check_invalid_text(c, PATH(c, "%s.valueFrom", base), STR(""),
                                           "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`");
                else if (n > 1)
                        check_invalid_text(c, PATH(c, "%s.valueFrom", base), STR(""),
                                           "may not have more than one field specified at a time");
                if (pb_get_str(list->v[i], "value", STR("")).n)
                        check_invalid_text(c, PATH(c, "%s.valueFrom", base), STR(""), "may not be specified when `value` is not empty");
                for (size_t k = 2; k < 4; k++)
                        if (pb_get(from, kinds[k]))
                                check_string(c, pb_get(from, kinds[k]), PATH(c, "%s.valueFrom.%s", base, kinds[k]), "key", NULL, true);
                if (pb_get(from, "fieldRef"))
                        check_string(c, pb_get(from, "fieldRef"), PATH(c, "%s.valueFrom.fieldRef", base), "fieldPath", NULL, true);
        }
}

static void mounts(struct check *c, const struct pb_node *ct, const char *cbase, const struct pb_node *vols)
{
        const struct pb_node *list = check_list(ct, "volumeMounts");

        for (size_t i = 0; list && i < list->n; i++) {
                const char *base = PATH(c, "%s.volumeMounts[%zu]", cbase, i);
                struct str name = pb_get_str(list->v[i], "name", STR("")), path = pb_get_str(list->v[i], "mountPath", STR(""));
                struct str sub = pb_get_str(list->v[i], "subPath", STR(""));

                check_string(c, list->v[i], base, "name", NULL, true);
                check_string(c, list->v[i], base, "mountPath", NULL, true);
                if (name.n && !has_named(vols, name))
                        check_not_found(c, PATH(c, "%s.name", base), name);
                for (size_t k = 0; k < i; k++)
                        if (path.n && str_eq(path, pb_get_str(list->v[k], "mountPath", STR(""))))
                                check_invalid_text(c, PATH(c, "%s.mountPath", base), path, "must be unique");
                if (str_starts(sub, STR("/")))
                        check_invalid_text(c, PATH(c, "%s.subPath", base), sub, "must be a relative path");
                else if (str_find(sub, STR("..")) >= 0)
                        check_invalid_text(c, PATH(c, "%s.subPath", base), sub, "must not contain '..'");
        }
}

/* A quantity in thousandths of its unit, enough to compare two; false when it is not one. */
static bool quantity(struct str s, double *out)
{
        static const struct {
                const char *suffix;
                double factor;
        } suffixes[] = { { "Ki", 1024. },
                         { "Mi", 1048576. },
                         { "Gi", 1073741824. },
                         { "Ti", 1099511627776. },
                         { "Pi", 1125899906842624. },
                         { "Ei", 1152921504606846976. },
                         { "n", 1e-9 },
                         { "u", 1e-6 },
                         { "m", 1e-3 },
                         { "k", 1e3 },
                         { "M", 1e6 },
                         { "G", 1e9 },
                         { "T", 1e12 },
                         { "P", 1e15 },
                         { "E", 1e18 } };
        char tmp[64], *end;

        if (!s.n || s.n >= sizeof(tmp))
                return false;
        memcpy(tmp, s.p, s.n);
        tmp[s.n] = 0;

        *out = strtod(tmp, &end);
        for (size_t i = 0; *end && i < ARRAY_LEN(suffixes); i++)
                if (!strcmp(end, suffixes[i].suffix)) {
                        *out *= suffixes[i].factor;
                        return true;
                }
        return !*end;
}

static void resources(struct check *c, const struct pb_node *ct, const char *cbase)
{
        const struct pb_node *limits = pb_get_path(ct, "resources.limits"), *requests = pb_get_path(ct, "resources.requests");

        for (size_t i = 0; requests && requests->kind == PB_MAP && i < requests->n; i++) {
                const char *key = arena_cstr(c->a, requests->keys[i]);
                const struct pb_node *limit = pb_get(limits, key);
                double req, lim;

                if (!quantity(requests->v[i]->text, &req))
                        continue;
                if (req < 0)
                        check_invalid(c, PATH(c, "%s.resources.requests[%s]", cbase, key), requests->v[i],
                                      "must be greater than or equal to 0");
                if (limit && quantity(limit->text, &lim) && req > lim)
                        check_invalid(c, PATH(c, "%s.resources.requests", cbase), requests->v[i],
                                      PATH(c, "must be less than or equal to %s limit of " STR_FMT, key, STR_ARG(limit->text)));
        }
}

static void container(struct check *c, const struct pb_node *ct, const char *base, const struct pb_node *vols, bool init)
{
        check_string(c, ct, base, "name", kube_check_dns_label, true);
        check_string(c, ct, base, "image", NULL, true);
        struct str image = pb_get_str(ct, "image", STR(""));
        if (image.n && !str_eq(image, str_trim(image)))
                check_invalid_text(c, PATH(c, "%s.image", base), image, "must not have leading or trailing whitespace");
        check_enum(c, ct, base, "imagePullPolicy", "Always IfNotPresent Never");
        check_enum(c, ct, base, "terminationMessagePolicy", "FallbackToLogsOnError File");
        if (init)
                check_enum(c, ct, base, "restartPolicy", "Always");
        else if (pb_get_str(ct, "restartPolicy", STR("")).n)
                check_forbidden(c, PATH(c, "%s.restartPolicy", base), "may not be set for non-init containers");
        bool sidecar = init && str_eqc(pb_get_str(ct, "restartPolicy", STR("")), "Always");
        static const char *const probes[] = { "livenessProbe", "readinessProbe", "startupProbe" };
        for (size_t i = 0; i < ARRAY_LEN(probes); i++) {
                if (init && !sidecar && pb_get(ct, probes[i]))
                        check_forbidden(c, PATH(c, "%s.%s", base, probes[i]),
                                        "may not be set for init containers without restartPolicy=Always");
                else
                        probe(c, ct, base, probes[i]);
        }
        if (pb_get_path(ct, "lifecycle.postStart"))
                handler(c, pb_get_path(ct, "lifecycle.postStart"), PATH(c, "%s.lifecycle.postStart", base), true);
        if (pb_get_path(ct, "lifecycle.preStop"))
                handler(c, pb_get_path(ct, "lifecycle.preStop"), PATH(c, "%s.lifecycle.preStop", base), true);
        ports(c, check_list(ct, "ports"), base);
        env(c, ct, base);
        mounts(c, ct, base, vols);
        resources(c, ct, base);
        const struct pb_node *sc = pb_get(ct, "securityContext");
        check_not_negative(c, sc, PATH(c, "%s.securityContext", base), "runAsUser");
        check_not_negative(c, sc, PATH(c, "%s.securityContext", base), "runAsGroup");
        if (check_list(ct, "volumeDevices") && check_list(ct, "volumeDevices")->n)
                check_forbidden(c, PATH(c, "%s.volumeDevices", base), "block devices are not supported on this cluster");
}

static void containers(struct check *c, const struct pb_node *spec, const char *base)
{
        static const char *const lists[] = { "containers", "initContainers" };
        const struct pb_node *vols = check_list(spec, "volumes"), *all[2];

        for (unsigned k = 0; k < 2; k++) {
                all[k] = check_list(spec, lists[k]);
                for (size_t i = 0; all[k] && i < all[k]->n; i++) {
                        const char *at = PATH(c, "%s.%s[%zu]", base, lists[k], i);
                        struct str name = pb_get_str(all[k]->v[i], "name", STR(""));
                        struct pb_node before = *all[k];

                        before.n = i;
                        container(c, all[k]->v[i], at, vols, k == 1);
                        if (name.n && (has_named(&before, name) || (k && has_named(all[0], name))))
                                check_duplicate(c, PATH(c, "%s.name", at), name);
                }
        }
        if (!all[0] || !all[0]->n)
                check_required(c, PATH(c, "%s.containers", base), "");
        if (check_list(spec, "ephemeralContainers") && check_list(spec, "ephemeralContainers")->n)
                check_forbidden(c, PATH(c, "%s.ephemeralContainers", base), "ephemeral containers are not supported on this cluster");
}

void validate_pod_spec(struct check *c, const struct pb_node *spec, const char *base)
{
        if (!spec || spec->kind != PB_MAP) {
                check_required(c, PATH(c, "%s.containers", base), "");
                return;
        }
        volumes(c, check_list(spec, "volumes"), base);
        containers(c, spec, base);
        check_enum(c, spec, base, "restartPolicy", "Always OnFailure Never");
        check_enum(c, spec, base, "dnsPolicy", "ClusterFirstWithHostNet ClusterFirst Default None");
        check_not_negative(c, spec, base, "terminationGracePeriodSeconds");
        check_string(c, spec, base, "serviceAccountName", kube_check_dns_subdomain, false);
        check_labels(c, pb_get(spec, "nodeSelector"), PATH(c, "%s.nodeSelector", base));
        check_string(c, spec, base, "hostname", kube_check_dns_label, false);
        check_string(c, spec, base, "subdomain", kube_check_dns_label, false);
        const struct pb_node *deadline = pb_get(spec, "activeDeadlineSeconds");
        if (deadline && kube_int(spec, "activeDeadlineSeconds", 1) < 1)
                check_invalid(c, PATH(c, "%s.activeDeadlineSeconds", base), deadline, "must be between 1 and 2147483647, inclusive");
        const struct pb_node *aliases = check_list(spec, "hostAliases");
        for (size_t i = 0; aliases && i < aliases->n; i++) {
                struct str ip = pb_get_str(aliases->v[i], "ip", STR(""));

                if (!check_is_ip(ip))
                        check_invalid_text(c, PATH(c, "%s.hostAliases[%zu].ip", base, i), ip,
                                           "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
        if (str_eqc(pb_get_str(spec, "dnsPolicy", STR("")), "None") &&
            (!pb_get_path(spec, "dnsConfig.nameservers") || !pb_get_path(spec, "dnsConfig.nameservers")->n))
                check_required(c, PATH(c, "%s.dnsConfig.nameservers", base),
                               "must provide at least one DNS nameserver when `dnsPolicy` is None");
}

/* ---- updates ---- */

/* Makes the few things that may change equal, so that anything left that differs is forbidden. */
static void level(struct check *c, struct pb_node *now, const struct pb_node *old, const char *list)
{
        const struct pb_node *a = check_list(now, list), *b = check_list(old, list);

        for (size_t i = 0; a && b && a->n == b->n && i < a->n; i++)
                if (pb_get(b->v[i], "image"))
                        pb_put(c->a, a->v[i], STR("image"), pb_clone(c->a, pb_get(b->v[i], "image")));
}

void validate_pod_update(struct check *c, const struct pb_node *now, const struct pb_node *old)
{
        static const char *const may_change[] = { "activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds" };
        struct pb_node *spec = pb_clone(c->a, pb_get(now, "spec"));
        const struct pb_node *before = pb_get(old, "spec");

        level(c, spec, before, "containers");
        level(c, spec, before, "initContainers");
        for (size_t i = 0; i < ARRAY_LEN(may_change); i++) {
                const struct pb_node *v = pb_get(before, may_change[i]);

                pb_del(spec, may_change[i]);
                if (v)
                        pb_put(c->a, spec, str_of(may_change[i]), pb_clone(c->a, v));
        }
        if (!pb_node_eq(spec, before))
                check_forbidden(c, "spec",
                                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
                                "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
                                "`spec.terminationGracePeriodSeconds`");
}
