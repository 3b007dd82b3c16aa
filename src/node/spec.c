/* Kubernetes' rules for turning a container of a PodSpec into a process: environment in order with $(NAME) references, the security
 * context of the container over the pod's, limits to cgroup numbers. What differs from other nodes: images are labels, so a container must
 * say its command; and no capability is given that was not asked for. */
#include "node/spec.h"
#include "base/mem.h"
#include "node/quantity.h"

#include <stdio.h>
#include <stdlib.h>

enum { SPEC_VARS_MAX = 4096, SPEC_GROUPS_MAX = 32 };

/* ---- getters ---- */

int64_t spec_int(const struct pb_node *n, const char *dotted, int64_t otherwise)
{
        const struct pb_node *v = pb_get_path(n, dotted);
        int64_t i;

        return v && (v->kind == PB_NUMBER || v->kind == PB_STRING) && str_i64(v->text, &i) ? i : otherwise;
}

bool spec_bool(const struct pb_node *n, const char *dotted, bool otherwise)
{
        const struct pb_node *v = pb_get_path(n, dotted);

        return v && v->kind == PB_BOOL ? str_eqc(v->text, "true") : otherwise;
}

struct str spec_str(const struct pb_node *n, const char *dotted)
{
        const struct pb_node *v = pb_get_path(n, dotted);

        return v && (v->kind == PB_STRING || v->kind == PB_NUMBER) ? v->text : STR("");
}

const struct pb_node *spec_list(const struct pb_node *n, const char *dotted)
{
        static const struct pb_node empty = { .kind = PB_LIST };
        const struct pb_node *v = pb_get_path(n, dotted);

        return v && v->kind == PB_LIST ? v : &empty;
}

struct str spec_map_str(const struct pb_node *n, const char *dotted, struct str key)
{
        const struct pb_node *m = pb_get_path(n, dotted);

        for (size_t i = 0; m && m->kind == PB_MAP && i < m->n; i++)
                if (str_eq(m->keys[i], key) && m->v[i]->kind != PB_MAP && m->v[i]->kind != PB_LIST)
                        return m->v[i]->text;
        return (struct str){ NULL, 0 };
}

bool spec_base64(struct str text, struct buf *out)
{
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        uint32_t bits = 0;
        unsigned have = 0;

        while (text.n && text.p[text.n - 1] == '=')
                text.n--;
        for (size_t i = 0; i < text.n; i++) {
                const char *at = text.p[i] ? strchr(digits, text.p[i]) : NULL;
                if (!at)
                        return false;
                bits = bits << 6 | (uint32_t)(at - digits);
                have += 6;
                if (have >= 8) {
                        have -= 8;
                        buf_char(out, (char)(bits >> have));
                }
        }
        return have < 6;
}

/* ---- the downward API ---- */

static struct str map_as_lines(const struct pb_node *m, struct arena *a)
{
        struct buf b = BUF_INIT;

        for (size_t i = 0; m && m->kind == PB_MAP && i < m->n; i++) {
                buf_printf(&b, "%s" STR_FMT "=", i ? "\n" : "", STR_ARG(m->keys[i]));
                buf_json(&b, m->v[i]->text);
        }
        struct str text = arena_str(a, buf_view(&b));
        buf_fini(&b);
        return text;
}

bool spec_field(const struct pb_node *pod, const struct spec_env *env, struct str path, struct arena *a, struct str *value)
{
        static const char *const plain[] = { "metadata.name", "metadata.namespace", "metadata.uid", "spec.serviceAccountName",
                                             "spec.nodeName" };
        const struct {
                const char *path;
                struct str value;
        } ours[] = {
                { "status.hostIP", env->host_ip },
                { "status.hostIPs", env->host_ip },
                { "status.podIP", env->pod_ip },
                { "status.podIPs", env->pod_ip },
        };

        for (size_t i = 0; i < ARRAY_LEN(plain); i++)
                if (str_eqc(path, plain[i])) {
                        *value = spec_str(pod, plain[i]);
                        return true;
                }
        for (size_t i = 0; i < ARRAY_LEN(ours); i++)
                if (str_eqc(path, ours[i].path)) {
                        *value = ours[i].value;
                        return true;
                }
        for (int i = 0; i < 2; i++) {
                const char *map = i ? "metadata.annotations" : "metadata.labels";
                struct str rest;
                if (!str_starts(path, str_of(map)))
                        continue;
                rest = str_sub(path, strlen(map), path.n);
                if (!rest.n) {
                        *value = map_as_lines(pb_get_path(pod, map), a);
                        return true;
                }
                if (rest.n < 5 || !str_starts(rest, STR("['")) || !str_ends(rest, STR("']")))
                        return false;
                *value = spec_map_str(pod, map, str_sub(rest, 2, rest.n - 4));
                if (!value->p)
                        *value = STR("");
                return true;
        }
        return false;
}

bool spec_resource(const struct pb_node *c, const struct spec_env *env, struct str resource, struct str divisor, struct arena *a,
                   struct str *value)
{
        bool cpu = str_ends(resource, STR(".cpu"));
        char dotted[64];
        int64_t milli, unit = 1000;

        if (!(str_starts(resource, STR("limits.")) || str_starts(resource, STR("requests."))) || resource.n > 40)
                return false;
        snprintf(dotted, sizeof(dotted), "resources." STR_FMT, STR_ARG(resource));
        if (!quantity_parse(spec_str(c, dotted), &milli)) {
                if (str_starts(resource, STR("requests.")))
                        milli = 0;
                else if (cpu)
                        milli = env->node_cpu_milli;
                else
                        milli = env->node_memory_bytes * 1000;
        }
        if (divisor.n && !str_eqc(divisor, "0") && (!quantity_parse(divisor, &unit) || unit <= 0))
                return false;
        *value = arena_printf(a, "%lld", (long long)((milli + unit - 1) / unit));
        return true;
}

/* ---- environment ---- */

struct vars {
        struct arena *a;
        const char **v;
        size_t n, cap;
};

static size_t vars_find(const struct vars *vars, struct str name)
{
        for (size_t i = 0; i < vars->n; i++)
                if (strncmp(vars->v[i], name.p, name.n) == 0 && vars->v[i][name.n] == '=')
                        return i;
        return vars->n;
}

static void vars_set(void *out, struct str name, struct str value)
{
        struct vars *vars = out;
        size_t at = vars_find(vars, name);
        const char *text = arena_printf(vars->a, STR_FMT "=" STR_FMT, STR_ARG(name), STR_ARG(value)).p;

        if (memchr(value.p ? value.p : "", 0, value.n) || vars->n >= SPEC_VARS_MAX)
                return; /* a NUL cannot be carried by an environment */
        if (at < vars->n)
                vars->v[at] = text;
        else
                VEC_PUSH(vars->v, vars->n, vars->cap) = text;
}

struct str spec_expand(struct str text, const char *const *v, size_t n, struct arena *a)
{
        struct buf b = BUF_INIT;

        if (str_chr(text, '$') < 0)
                return arena_str(a, text);
        for (size_t i = 0; i < text.n; i++) {
                struct str rest = str_sub(text, i, text.n);
                ptrdiff_t end;
                if (str_starts(rest, STR("$$"))) {
                        buf_char(&b, '$');
                        i++;
                } else if (str_starts(rest, STR("$(")) && (end = str_chr(rest, ')')) > 0) {
                        struct str name = str_sub(rest, 2, (size_t)end - 2);
                        const char *value = NULL;
                        for (size_t k = 0; k < n && !value; k++) {
                                struct str var = str_of(v[k]); /* the name may hold a NUL, so no strncmp() */
                                if (str_starts(var, name) && var.n > name.n && var.p[name.n] == '=')
                                        value = var.p + name.n + 1;
                        }
                        if (value)
                                buf_cstr(&b, value);
                        else
                                buf_str(&b, str_sub(rest, 0, (size_t)end + 1));
                        i += (size_t)end;
                } else {
                        buf_char(&b, text.p[i]);
                }
        }
        struct str out = arena_str(a, buf_view(&b));
        buf_fini(&b);
        return out;
}

static bool fail(struct spec_error *e, const char *reason, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool fail(struct spec_error *e, const char *reason, const char *fmt, ...)
{
        va_list ap;

        e->reason = reason;
        va_start(ap, fmt);
        buf_vprintf(&e->text, fmt, ap);
        va_end(ap);
        return false;
}

#define CONFIG_ERROR "CreateContainerConfigError"

/* The value of one key of a ConfigMap or Secret. p NULL: no such key. */
static struct str data_key(const struct pb_node *object, bool secret, struct str key, struct arena *a)
{
        struct str v = spec_map_str(object, "data", key);
        bool coded = secret;

        if (!v.p && !secret) {
                v = spec_map_str(object, "binaryData", key);
                coded = true;
        }
        if (!v.p || !coded)
                return v;
        struct buf b = BUF_INIT;
        struct str out = { NULL, 0 };
        if (spec_base64(v, &b))
                out = arena_str(a, buf_view(&b));
        buf_fini(&b);
        return out;
}

static bool env_key_ref(const struct pb_node *ref, bool secret, const struct spec_env *env, struct str name, struct vars *vars,
                        struct spec_error *e)
{
        const char *kind = secret ? "Secret" : "ConfigMap", *lower = secret ? "secret" : "configmap";
        struct str object_name = spec_str(ref, "name"), key = spec_str(ref, "key");
        const struct pb_node *object = env->object(env->arg, kind, object_name);
        bool optional = spec_bool(ref, "optional", false);

        if (!object)
                return optional || fail(e, CONFIG_ERROR, "%s \"" STR_FMT "\" not found", lower, STR_ARG(object_name));
        struct str v = data_key(object, secret, key, vars->a);
        if (!v.p)
                return optional ||
                       fail(e, CONFIG_ERROR, "couldn't find key " STR_FMT " in %s " STR_FMT, STR_ARG(key), kind, STR_ARG(object_name));
        vars_set(vars, name, v);
        return true;
}

static bool env_value_from(const struct pb_node *pod, const struct pb_node *c, const struct pb_node *from, const struct spec_env *env,
                           struct str name, struct vars *vars, struct spec_error *e)
{
        const struct pb_node *ref;
        struct str value;

        if ((ref = pb_get(from, "fieldRef"))) {
                if (!spec_field(pod, env, spec_str(ref, "fieldPath"), vars->a, &value))
                        return fail(e, CONFIG_ERROR, "env %.*s: fieldPath \"" STR_FMT "\" is not supported", STR_ARG(name),
                                    STR_ARG(spec_str(ref, "fieldPath")));
                vars_set(vars, name, value);
                return true;
        }
        if ((ref = pb_get(from, "resourceFieldRef"))) {
                if (!spec_resource(c, env, spec_str(ref, "resource"), spec_str(ref, "divisor"), vars->a, &value))
                        return fail(e, CONFIG_ERROR, "env %.*s: resource \"" STR_FMT "\" is not supported", STR_ARG(name),
                                    STR_ARG(spec_str(ref, "resource")));
                vars_set(vars, name, value);
                return true;
        }
        if ((ref = pb_get(from, "configMapKeyRef")))
                return env_key_ref(ref, false, env, name, vars, e);
        if ((ref = pb_get(from, "secretKeyRef")))
                return env_key_ref(ref, true, env, name, vars, e);
        return fail(e, CONFIG_ERROR, "env %.*s: valueFrom names no source that this node knows", STR_ARG(name));
}

static bool env_from(const struct pb_node *item, const struct spec_env *env, struct vars *vars, struct spec_error *e)
{
        bool secret = pb_get(item, "secretRef") != NULL;
        const struct pb_node *ref = pb_get(item, secret ? "secretRef" : "configMapRef");
        struct str name = spec_str(ref, "name"), prefix = spec_str(item, "prefix");
        const struct pb_node *object = env->object(env->arg, secret ? "Secret" : "ConfigMap", name), *data = pb_get(object, "data");

        if (!object)
                return spec_bool(ref, "optional", false) ||
                       fail(e, CONFIG_ERROR, "%s \"" STR_FMT "\" not found", secret ? "secret" : "configmap", STR_ARG(name));
        for (size_t i = 0; data && data->kind == PB_MAP && i < data->n; i++) {
                struct str v = data_key(object, secret, data->keys[i], vars->a);
                if (v.p && str_chr(data->keys[i], '=') < 0)
                        vars_set(vars, arena_printf(vars->a, STR_FMT STR_FMT, STR_ARG(prefix), STR_ARG(data->keys[i])), v);
        }
        return true;
}

static bool environment(const struct pb_node *pod, const struct pb_node *c, const struct spec_env *env, struct vars *vars,
                        struct spec_error *e)
{
        const struct pb_node *from = spec_list(c, "envFrom"), *list = spec_list(c, "env");

        vars_set(vars, STR("PATH"), STR("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/postern/bin"));
        vars_set(vars, STR("HOSTNAME"), spec_str(pod, "spec.hostname").n ? spec_str(pod, "spec.hostname") : spec_str(pod, "metadata.name"));
        env->services(env->arg, vars_set, vars);
        for (size_t i = 0; i < from->n; i++)
                if (!env_from(from->v[i], env, vars, e))
                        return false;
        for (size_t i = 0; i < list->n; i++) {
                struct str name = spec_str(list->v[i], "name");
                const struct pb_node *value_from = pb_get(list->v[i], "valueFrom");
                if (!name.n || str_chr(name, '=') >= 0)
                        return fail(e, CONFIG_ERROR, "env[%zu]: \"" STR_FMT "\" cannot name a variable", i, STR_ARG(name));
                if (value_from && value_from->kind == PB_MAP) {
                        if (!env_value_from(pod, c, value_from, env, name, vars, e))
                                return false;
                } else {
                        vars_set(vars, name, spec_expand(spec_str(list->v[i], "value"), vars->v, vars->n, vars->a));
                }
        }
        return true;
}

/* ---- command, user, rights ---- */

static bool command(const struct pb_node *c, struct oci_container *out, struct arena *a, struct spec_error *e)
{
        const struct pb_node *command = spec_list(c, "command"), *args = spec_list(c, "args");
        struct str image = spec_str(c, "image");
        const char **v;

        if (!command->n)
                return fail(e, CONFIG_ERROR,
                            "container \"" STR_FMT "\" has no command: images are not pulled here (\"" STR_FMT
                            "\" is a label only), so an image's own entrypoint "
                            "is not known; set command",
                            STR_ARG(spec_str(c, "name")), STR_ARG(image));
        v = arena_alloc(a, (command->n + args->n) * sizeof(*v));
        for (size_t i = 0; i < command->n + args->n; i++) {
                struct str word = i < command->n ? command->v[i]->text : args->v[i - command->n]->text;
                v[i] = spec_expand(word, out->env, out->nenv, a).p;
        }
        out->args = v;
        out->nargs = command->n + args->n;
        return true;
}

/* A field of the container's security context, or else of the pod's. */
static const struct pb_node *security(const struct pb_node *pod, const struct pb_node *c, const char *field)
{
        const struct pb_node *own = pb_get(pb_get(c, "securityContext"), field);

        return own && own->kind != PB_NULL ? own : pb_get(pb_get_path(pod, "spec.securityContext"), field);
}

static bool identity(const struct pb_node *pod, const struct pb_node *c, struct oci_container *out, struct arena *a, struct spec_error *e)
{
        const struct pb_node *user = security(pod, c, "runAsUser"), *group = security(pod, c, "runAsGroup"),
                             *non_root = security(pod, c, "runAsNonRoot");
        const struct pb_node *more = spec_list(pod, "spec.securityContext.supplementalGroups");
        int64_t fs_group = spec_int(pod, "spec.securityContext.fsGroup", -1), uid = 0, gid = 0;

        if (user && (!str_i64(user->text, &uid) || uid < 0 || uid > 0xfffffffell))
                return fail(e, CONFIG_ERROR, "securityContext.runAsUser: \"" STR_FMT "\" is not a user id", STR_ARG(user->text));
        if (group && (!str_i64(group->text, &gid) || gid < 0 || gid > 0xfffffffell))
                return fail(e, CONFIG_ERROR, "securityContext.runAsGroup: \"" STR_FMT "\" is not a group id", STR_ARG(group->text));
        if (non_root && str_eqc(non_root->text, "true") && uid == 0)
                return fail(e, CONFIG_ERROR, "container has runAsNonRoot and would run as root: set securityContext.runAsUser");
        out->uid = (uint32_t)uid;
        out->gid = (uint32_t)gid;
        uint32_t *groups = arena_alloc(a, (SPEC_GROUPS_MAX + 1) * sizeof(*groups));
        for (size_t i = 0; i < more->n && i < SPEC_GROUPS_MAX; i++) {
                int64_t g;
                if (str_i64(more->v[i]->text, &g) && g >= 0 && g <= 0xfffffffell)
                        groups[out->ngroups++] = (uint32_t)g;
        }
        if (fs_group >= 0)
                groups[out->ngroups++] = (uint32_t)fs_group;
        out->groups = groups;
        return true;
}

static bool rights(const struct pb_node *pod, const struct pb_node *c, struct oci_container *out, struct arena *a, struct spec_error *e)
{
        const struct pb_node *add = spec_list(c, "securityContext.capabilities.add"), *seccomp = security(pod, c, "seccompProfile");
        const char **caps = arena_alloc(a, (add->n + 1) * sizeof(*caps));

        if (spec_bool(c, "securityContext.privileged", false))
                return fail(e, CONFIG_ERROR, "securityContext.privileged is not offered: a privileged container would be the host");
        for (size_t i = 0; i < add->n; i++) {
                bool refused;
                const char *cap = oci_capability(add->v[i]->text, &refused);
                if (!cap)
                        return fail(e, CONFIG_ERROR, "securityContext.capabilities.add: \"" STR_FMT "\" %s", STR_ARG(add->v[i]->text),
                                    refused ? "is not offered: it reaches beyond the pod" : "is not a capability");
                caps[out->ncaps++] = cap;
        }
        out->caps = caps;
        out->read_only_root = spec_bool(c, "securityContext.readOnlyRootFilesystem", false);
        out->new_privileges = spec_bool(c, "securityContext.allowPrivilegeEscalation", false);
        struct str type = spec_str(seccomp, "type");
        if (str_eqc(type, "Localhost"))
                return fail(e, CONFIG_ERROR, "securityContext.seccompProfile.type Localhost is not offered; use RuntimeDefault");
        out->unconfined = str_eqc(type, "Unconfined");
        return true;
}

static bool limit(const struct pb_node *c, const char *dotted, int64_t *milli, struct spec_error *e)
{
        struct str text = spec_str(c, dotted);

        *milli = 0;
        if (text.n && (!quantity_parse(text, milli) || *milli < 0))
                return fail(e, CONFIG_ERROR, "%s: \"" STR_FMT "\" is not a quantity such as 500m or 128Mi", dotted, STR_ARG(text));
        return true;
}

static bool resources(const struct pb_node *c, struct oci_container *out, struct spec_error *e)
{
        int64_t cpu, memory, request;

        if (!limit(c, "resources.limits.cpu", &cpu, e) || !limit(c, "resources.limits.memory", &memory, e) ||
            !limit(c, "resources.requests.cpu", &request, e))
                return false;
        out->memory_bytes = memory / 1000;
        if (out->memory_bytes && out->memory_bytes < 6 << 20)
                return fail(e, CONFIG_ERROR, "resources.limits.memory: at least 6Mi is needed to start a container");
        out->cpu_quota_us = cpu ? cpu * 100 : 0; /* 1000m is 100 ms of each 100 ms */
        if (out->cpu_quota_us && out->cpu_quota_us < 1000)
                out->cpu_quota_us = 1000; /* the kernel's smallest */
        if (!request)
                request = cpu;
        out->cpu_shares = request * 1024 / 1000;
        if (out->cpu_shares < 2)
                out->cpu_shares = 2;
        if (out->cpu_shares > 262144)
                out->cpu_shares = 262144;
        out->pids_max = 8192;
        out->oom_score_adj = out->memory_bytes ? 500 : 900;
        return true;
}

bool spec_container(const struct pb_node *pod, const struct pb_node *c, const struct spec_env *env, struct arena *a,
                    struct oci_container *out, struct spec_error *e)
{
        struct vars vars = { .a = a };
        struct str cwd = spec_str(c, "workingDir");
        bool ok = identity(pod, c, out, a, e) && environment(pod, c, env, &vars, e);

        if (ok) {
                if (vars_find(&vars, STR("HOME")) == vars.n)
                        vars_set(&vars, STR("HOME"), out->uid == 0 ? STR("/root") : STR("/home/app"));
                out->env = arena_dup(a, vars.v, vars.n * sizeof(*vars.v));
                out->nenv = vars.n;
        }
        free(vars.v);
        if (!ok || !command(c, out, a, e) || !rights(pod, c, out, a, e) || !resources(c, out, e))
                return false;
        if (cwd.n && cwd.p[0] != '/')
                return fail(e, CONFIG_ERROR, "workingDir \"" STR_FMT "\" is not an absolute path", STR_ARG(cwd));
        out->cwd = cwd.n ? arena_cstr(a, cwd) : "/";
        out->tty = spec_bool(c, "tty", false);
        return true;
}

/* ---- what is not offered ---- */

bool spec_supported(const struct pb_node *pod, struct buf *error)
{
        static const char *const flags[] = { "spec.hostNetwork", "spec.hostPID", "spec.hostIPC", "spec.shareProcessNamespace" };
        static const char *const lists[] = { "spec.containers", "spec.initContainers" };

        for (size_t i = 0; i < ARRAY_LEN(flags); i++)
                if (spec_bool(pod, flags[i], false)) {
                        buf_printf(error, "%s is not offered by this node", flags[i]);
                        return false;
                }
        for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
                const struct pb_node *l = spec_list(pod, lists[i]);
                for (size_t k = 0; k < l->n; k++) {
                        static const char *const probes[] = { "startupProbe.grpc", "readinessProbe.grpc", "livenessProbe.grpc" };
                        for (size_t p = 0; p < ARRAY_LEN(probes); p++)
                                if (pb_get_path(l->v[k], probes[p])) {
                                        buf_printf(error, "%s[%zu].%s is not offered by this node; use httpGet, tcpSocket or exec",
                                                   lists[i], k, probes[p]);
                                        return false;
                                }
                        if (spec_list(l->v[k], "volumeDevices")->n) {
                                buf_printf(error, "%s[%zu].volumeDevices is not offered by this node", lists[i], k);
                                return false;
                        }
                }
        }
        return true;
}
