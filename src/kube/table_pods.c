/* The pod table: its STATUS column is a small state machine that everybody reads dozens of times a day. */
#include "kube/table.h"

#include "base/mem.h"

static const struct pb_node *list_at(const struct pb_node *n, const char *path)
{
        const struct pb_node *l = pb_get_path(n, path);

        return l && l->kind == PB_LIST ? l : NULL;
}

static bool sidecar_init(const struct pb_node *pod, struct str name)
{
        const struct pb_node *l = list_at(pod, "spec.initContainers");

        for (size_t i = 0; l && i < l->n; i++)
                if (str_eq(pb_get_str(l->v[i], "name", STR("")), name))
                        return str_eqc(pb_get_str(l->v[i], "restartPolicy", STR("")), "Always");
        return false;
}

static void pod_ready(struct row *r)
{
        const struct pb_node *cs = list_at(r->o->node, "status.containerStatuses"), *want = list_at(r->o->node, "spec.containers");
        const struct pb_node *is = list_at(r->o->node, "status.initContainerStatuses");
        size_t ready = 0, total = want ? want->n : 0;

        for (size_t i = 0; cs && i < cs->n; i++)
                ready += kube_bool(cs->v[i], "ready", false);
        for (size_t i = 0; is && i < is->n; i++) {
                if (!sidecar_init(r->o->node, pb_get_str(is->v[i], "name", STR(""))))
                        continue;
                total++;
                ready += kube_bool(is->v[i], "ready", false);
        }
        buf_printf(r->out, "%zu/%zu", ready, total);
}

static void terminated_text(const struct pb_node *t, const char *prefix, struct buf *out)
{
        struct str reason = pb_get_str(t, "reason", STR(""));
        int64_t sig = kube_int(t, "signal", 0);

        out->n = 0;
        buf_cstr(out, prefix);
        if (reason.n)
                buf_str(out, reason);
        else if (sig)
                buf_printf(out, "Signal:%lld", (long long)sig);
        else
                buf_printf(out, "ExitCode:%lld", (long long)kube_int(t, "exitCode", 0));
}

/* True: an init container is what there is to tell. */
static bool init_text(const struct pb_node *pod, struct buf *out)
{
        const struct pb_node *is = list_at(pod, "status.initContainerStatuses"), *specs = list_at(pod, "spec.initContainers");

        for (size_t i = 0; is && i < is->n; i++) {
                const struct pb_node *c = is->v[i], *term = pb_get_path(c, "state.terminated");
                struct str waiting = pb_get_str(c, "state.waiting.reason", STR(""));

                if (term && kube_int(term, "exitCode", 1) == 0)
                        continue;
                if (sidecar_init(pod, pb_get_str(c, "name", STR(""))) && kube_bool(c, "started", false))
                        continue;
                if (term) {
                        terminated_text(term, "Init:", out);
                } else if (waiting.n && !str_eqc(waiting, "PodInitializing")) {
                        out->n = 0;
                        buf_printf(out, "Init:" STR_FMT, STR_ARG(waiting));
                } else {
                        out->n = 0;
                        buf_printf(out, "Init:%zu/%zu", i, specs ? specs->n : is->n);
                }
                return true;
        }
        return false;
}

static bool condition_true(const struct pb_node *pod, struct str type)
{
        const struct pb_node *cs = list_at(pod, "status.conditions");

        for (size_t i = 0; cs && i < cs->n; i++)
                if (str_eq(pb_get_str(cs->v[i], "type", STR("")), type))
                        return str_eqc(pb_get_str(cs->v[i], "status", STR("")), "True");
        return false;
}

static void containers_text(const struct pb_node *pod, struct buf *out)
{
        const struct pb_node *cs = list_at(pod, "status.containerStatuses");
        bool running = false;

        for (size_t i = cs ? cs->n : 0; i-- > 0;) {
                const struct pb_node *c = cs->v[i], *term = pb_get_path(c, "state.terminated");
                struct str waiting = pb_get_str(c, "state.waiting.reason", STR(""));

                if (waiting.n) {
                        out->n = 0;
                        buf_str(out, waiting);
                } else if (term) {
                        terminated_text(term, "", out);
                } else if (kube_bool(c, "ready", false) && pb_get_path(c, "state.running")) {
                        running = true;
                }
        }
        if (str_eqc(buf_view(out), "Completed") && running) {
                out->n = 0;
                buf_cstr(out, condition_true(pod, STR("Ready")) ? "Running" : "NotReady");
        }
}

static void pod_status(struct row *r)
{
        const struct pb_node *pod = r->o->node;
        struct str reason = pb_get_str(pod, "status.reason", STR(""));

        buf_str(r->out, pb_get_str(pod, "status.phase", STR("Unknown")));
        if (reason.n) {
                r->out->n = 0;
                buf_str(r->out, reason);
        }
        if (!init_text(pod, r->out))
                containers_text(pod, r->out);
        if (pb_get_path(pod, "metadata.deletionTimestamp")) {
                struct str phase = pb_get_str(pod, "status.phase", STR(""));

                if (!str_eqc(phase, "Succeeded") && !str_eqc(phase, "Failed")) {
                        r->out->n = 0;
                        buf_cstr(r->out, str_eqc(reason, "NodeLost") ? "Unknown" : "Terminating");
                }
        }
}

static void pod_restarts(struct row *r)
{
        const struct pb_node *cs = list_at(r->o->node, "status.containerStatuses");
        struct str last = STR("");
        int64_t n = 0;

        for (size_t i = 0; cs && i < cs->n; i++) {
                struct str t = pb_get_str(cs->v[i], "lastState.terminated.finishedAt", STR(""));

                n += kube_int(cs->v[i], "restartCount", 0);
                if (str_cmp(t, last) > 0)
                        last = t;
        }
        buf_printf(r->out, "%lld", (long long)n);
        if (n && last.n) {
                buf_cstr(r->out, " (");
                table_age(r->api, last, r->out);
                buf_cstr(r->out, " ago)");
        }
}

static void or_none(struct row *r, const char *path)
{
        struct str s = pb_get_str(r->o->node, path, STR(""));

        buf_str(r->out, s.n ? s : STR("<none>"));
}

static void pod_ip(struct row *r)
{
        or_none(r, "status.podIP");
}

static void pod_node(struct row *r)
{
        or_none(r, "spec.nodeName");
}

static void pod_nominated(struct row *r)
{
        or_none(r, "status.nominatedNodeName");
}

static void pod_gates(struct row *r)
{
        const struct pb_node *gates = list_at(r->o->node, "spec.readinessGates");
        size_t n = 0;

        for (size_t i = 0; gates && i < gates->n; i++)
                n += condition_true(r->o->node, pb_get_str(gates->v[i], "conditionType", STR("")));
        if (gates && gates->n)
                buf_printf(r->out, "%zu/%zu", n, gates->n);
        else
                buf_cstr(r->out, "<none>");
}

static void pod_name(struct row *r)
{
        buf_str(r->out, r->o->name);
}

static const struct column columns[] = {
        { "Name", "string", 0, pod_name, NULL, "Name of the pod, unique within its namespace" },
        { "Ready", "string", 0, pod_ready, NULL, "Containers that are ready, of all" },
        { "Status", "string", 0, pod_status, NULL, "What the pod is doing" },
        { "Restarts", "string", 0, pod_restarts, NULL, "How often its containers were started again" },
        { "Age", "string", 0, cell_age, NULL, "Time since the pod was created" },
        { "IP", "string", 1, pod_ip, NULL, "Its address" },
        { "Node", "string", 1, pod_node, NULL, "Where it runs" },
        { "Nominated Node", "string", 1, pod_nominated, NULL, "Where it will run after preemption" },
        { "Readiness Gates", "string", 1, pod_gates, NULL, "Extra conditions for being ready" },
};

const struct table table_pods = { columns, ARRAY_LEN(columns) };
