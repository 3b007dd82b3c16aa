/* A pod's status as the API server is told: computed whole from what is, and sent when it differs from what was sent last. One request
 * a pod is under way at any time; what changes meanwhile goes with the next. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/pod.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- JSON ---- */

static void field(struct buf *b, const char *name, struct str value)
{
        buf_printf(b, "\"%s\":", name);
        buf_json(b, value);
}

static void field_time(struct buf *b, const char *name, uint64_t us)
{
        char text[40];

        clock_rfc3339(us, 0, text);
        buf_printf(b, "\"%s\":\"%s\"", name, text);
}

/* ---- containers ---- */

static void put_end(struct buf *b, const struct ctr_end *e)
{
        buf_printf(b, "\"terminated\":{\"exitCode\":%d,", e->exit_code);
        if (e->signal)
                buf_printf(b, "\"signal\":%d,", e->signal);
        field(b, "reason", str_of(e->reason));
        if (e->message) {
                buf_char(b, ',');
                field(b, "message", str_of(e->message));
        }
        buf_char(b, ',');
        field_time(b, "startedAt", e->started_us ? e->started_us : e->finished_us);
        buf_char(b, ',');
        field_time(b, "finishedAt", e->finished_us);
        if (e->id)
                buf_printf(b, ",\"containerID\":\"runc://%s\"", e->id);
        buf_char(b, '}');
}

static bool will_restart(const struct ctr *c)
{
        return c->state == CTR_EXITED && c->backoff_until_ms;
}

static void put_state(struct buf *b, const struct ctr *c)
{
        buf_cstr(b, "\"state\":{");
        if (will_restart(c)) {
                buf_cstr(b, "\"waiting\":{\"reason\":\"CrashLoopBackOff\",\"message\":");
                struct buf text = BUF_INIT;
                buf_printf(&text, "back-off %us restarting failed container=%s pod=%s_%s(%s)",
                           c->backoff_s > 10 ? c->backoff_s / 2 : c->backoff_s, c->name, c->pod->name, c->pod->ns, c->pod->uid);
                buf_json(b, buf_view(&text));
                buf_char(b, '}');
                buf_fini(&text);
        } else if (c->state == CTR_EXITED) {
                put_end(b, &c->end);
        } else if (c->state == CTR_RUNNING) {
                buf_cstr(b, "\"running\":{");
                field_time(b, "startedAt", c->started_us);
                buf_char(b, '}');
        } else {
                buf_cstr(b, "\"waiting\":{");
                field(b, "reason", c->state == CTR_STARTING ? STR("ContainerCreating") : str_of(c->wait_reason));
                if (c->wait_message && c->state == CTR_WAITING) {
                        buf_char(b, ',');
                        field(b, "message", str_of(c->wait_message));
                }
                buf_char(b, '}');
        }
        buf_cstr(b, "},\"lastState\":{");
        if (will_restart(c))
                put_end(b, &c->end);
        else if (c->has_last)
                put_end(b, &c->last);
        buf_char(b, '}');
}

static bool ctr_counts_ready(const struct ctr *c)
{
        return c->kind == CTR_INIT ? c->state == CTR_EXITED && c->end.exit_code == 0 : c->state == CTR_RUNNING && c->ready && !c->stopping;
}

static void put_container(struct buf *b, const struct ctr *c)
{
        struct str image = spec_str(ctr_spec(c), "image");

        buf_char(b, '{');
        field(b, "name", str_of(c->name));
        buf_printf(b, ",\"ready\":%s,\"started\":%s,\"restartCount\":%u,", ctr_counts_ready(c) ? "true" : "false",
                   c->state == CTR_RUNNING && c->started ? "true" : "false", c->attempt);
        field(b, "image", image);
        buf_cstr(b, ",\"imageID\":\"\",");
        if (c->id && c->ever_started)
                buf_printf(b, "\"containerID\":\"runc://%s\",", c->id);
        put_state(b, c);
        buf_char(b, '}');
}

static void put_containers(struct buf *b, const struct pod *p, const char *name, size_t from, size_t to)
{
        if (from == to)
                return;
        buf_printf(b, ",\"%s\":[", name);
        for (size_t i = from; i < to; i++) {
                if (i > from)
                        buf_char(b, ',');
                put_container(b, &p->v[i]);
        }
        buf_char(b, ']');
}

/* ---- conditions ---- */

/* A condition's lastTransitionTime is when it last became what it is. After a restart of the node the API server's word counts. */
static const char *since(struct pod *p, const char *type, const char *status)
{
        const struct pb_node *old = spec_list(p->obj->node, "status.conditions");
        char key[96], now[40], *time;

        snprintf(key, sizeof(key), "%s=%s", type, status);
        time = strmap_get(&p->condition_times, str_of(key));
        if (time)
                return time;
        clock_rfc3339(clock_real_us(), 0, now);
        for (size_t i = 0; i < old->n; i++)
                if (str_eqc(spec_str(old->v[i], "type"), type) && str_eqc(spec_str(old->v[i], "status"), status))
                        snprintf(now, sizeof(now), STR_FMT, STR_ARG(spec_str(old->v[i], "lastTransitionTime")));
        snprintf(key, sizeof(key), "%s=%s", type, strcmp(status, "True") == 0 ? "False" : "True");
        free(strmap_del(&p->condition_times, str_of(key)));
        snprintf(key, sizeof(key), "%s=%s", type, status);
        time = mem_strdup(now);
        strmap_set(&p->condition_times, str_of(key), time);
        return time;
}

static void put_condition(struct buf *b, struct pod *p, const char *type, bool yes, const char *reason, struct str message)
{
        const char *status = yes ? "True" : "False";

        buf_printf(b, "%s{\"type\":\"%s\",\"status\":\"%s\",\"lastProbeTime\":null,\"lastTransitionTime\":\"%s\"",
                   b->p[b->n - 1] == '[' ? "" : ",", type, status, since(p, type, status));
        if (!yes && reason) {
                buf_char(b, ',');
                field(b, "reason", str_of(reason));
                buf_char(b, ',');
                field(b, "message", message);
        }
        buf_char(b, '}');
}

/* Conditions of others (PodScheduled, readiness gates) are kept as they are. */
static void put_foreign_conditions(struct buf *b, const struct pod *p)
{
        static const char *const ours[] = { "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady" };
        const struct pb_node *old = spec_list(p->obj->node, "status.conditions");

        for (size_t i = 0; i < old->n; i++) {
                bool mine = false;
                for (size_t k = 0; k < ARRAY_LEN(ours); k++)
                        mine |= str_eqc(spec_str(old->v[i], "type"), ours[k]);
                if (mine)
                        continue;
                if (b->p[b->n - 1] != '[')
                        buf_char(b, ',');
                pb_node_json(old->v[i], b);
        }
}

static void not_ready_text(const struct pod *p, bool init, struct buf *out)
{
        for (size_t i = init ? 0 : p->ninit; i < (init ? p->ninit : p->n); i++)
                if (!ctr_counts_ready(&p->v[i]))
                        buf_printf(out, "%s%s", out->n ? " " : "", p->v[i].name);
}

static bool gates_ready(const struct pod *p)
{
        const struct pb_node *gates = spec_list(p->obj->node, "spec.readinessGates"),
                             *conditions = spec_list(p->obj->node, "status.conditions");

        for (size_t i = 0; i < gates->n; i++) {
                bool ok = false;
                for (size_t k = 0; k < conditions->n; k++)
                        if (str_eq(spec_str(conditions->v[k], "type"), spec_str(gates->v[i], "conditionType")))
                                ok = str_eqc(spec_str(conditions->v[k], "status"), "True");
                if (!ok)
                        return false;
        }
        return true;
}

static void put_conditions(struct buf *b, struct pod *p)
{
        struct buf init = BUF_INIT, mains = BUF_INIT, text = BUF_INIT;
        bool initialized = true, ready = !p->finished;

        for (size_t i = 0; i < p->ninit; i++) {
                const struct ctr *c = &p->v[i];
                initialized &= c->kind == CTR_INIT ? c->state == CTR_EXITED && c->end.exit_code == 0 : c->gate_passed;
                ready &= c->kind == CTR_INIT || ctr_counts_ready(c);
        }
        for (size_t i = p->ninit; i < p->n; i++)
                ready &= ctr_counts_ready(&p->v[i]);
        not_ready_text(p, true, &init);
        not_ready_text(p, false, &mains);
        buf_cstr(b, ",\"conditions\":[");
        put_foreign_conditions(b, p);
        put_condition(b, p, "PodReadyToStartContainers", p->network_up && !p->finished, NULL, STR(""));
        buf_printf(&text, "containers with incomplete status: [%s]", buf_z(&init));
        put_condition(b, p, "Initialized", initialized, "ContainersNotInitialized", buf_view(&text));
        text.n = 0;
        buf_printf(&text, "containers with unready status: [%s]", buf_z(&mains));
        const char *reason = p->finished && strcmp(p->phase, "Succeeded") == 0 ? "PodCompleted"
                             : p->finished                                     ? "PodFailed"
                                                                               : "ContainersNotReady";
        put_condition(b, p, "ContainersReady", ready, reason, p->finished ? STR("") : buf_view(&text));
        bool gates = gates_ready(p);
        put_condition(b, p, "Ready", ready && gates, ready ? "ReadinessGatesNotReady" : reason,
                      ready         ? STR("a readiness gate's condition is not True")
                      : p->finished ? STR("")
                                    : buf_view(&text));
        buf_char(b, ']');
        buf_fini(&init);
        buf_fini(&mains);
        buf_fini(&text);
}

/* ---- the whole ---- */

static const char *phase_of(const struct pod *p)
{
        if (p->finished)
                return p->phase;
        for (size_t i = p->ninit; i < p->n; i++)
                if (!p->v[i].ever_started)
                        return "Pending";
        return "Running";
}

static const char *qos_of(const struct pod *p)
{
        bool any = false, guaranteed = true;

        for (size_t i = 0; i < p->n; i++) {
                const struct pb_node *r = pb_get(ctr_spec(&p->v[i]), "resources");
                struct str lc = spec_str(r, "limits.cpu"), lm = spec_str(r, "limits.memory"), rc = spec_str(r, "requests.cpu"),
                           rm = spec_str(r, "requests.memory");
                any |= lc.n || lm.n || rc.n || rm.n;
                guaranteed &= lc.n && lm.n && (!rc.n || str_eq(rc, lc)) && (!rm.n || str_eq(rm, lm));
        }
        return !any ? "BestEffort" : guaranteed ? "Guaranteed" : "Burstable";
}

void status_json(struct pod *p, struct buf *b)
{
        buf_printf(b, "{\"status\":{\"phase\":\"%s\",", phase_of(p));
        field_time(b, "startTime", p->start_us);
        buf_printf(b, ",\"hostIP\":\"" STR_FMT "\",\"hostIPs\":[{\"ip\":\"" STR_FMT "\"}],\"qosClass\":\"%s\"", STR_ARG(p->node->host_ip),
                   STR_ARG(p->node->host_ip), qos_of(p));
        if (p->have_ip)
                buf_printf(b, ",\"podIP\":\"%s\",\"podIPs\":[{\"ip\":\"%s\"}]", p->ip_buf, p->ip_buf);
        if (p->phase_reason) {
                buf_char(b, ',');
                field(b, "reason", str_of(p->phase_reason));
                buf_char(b, ',');
                field(b, "message", str_of(p->phase_message));
        }
        put_conditions(b, p);
        put_containers(b, p, "initContainerStatuses", 0, p->ninit);
        put_containers(b, p, "containerStatuses", p->ninit, p->n);
        buf_cstr(b, "}}");
}

struct status_request {
        struct node *node;
        char *uid, *json;
};

static void status_send(struct pod *p);

static void on_status_answer(void *arg, const struct kube_response *r)
{
        struct status_request *q = arg;
        struct pod *p = q->node->closing ? NULL : strmap_get(&q->node->by_uid, str_of(q->uid));

        if (p) {
                p->status_busy = false;
                if (r->status >= 200 && r->status < 300) {
                        free(p->status_sent);
                        p->status_sent = q->json;
                        q->json = NULL;
                        status_send(p); /* what changed meanwhile */
                } else if (r->status != 404 && r->status != 409) {
                        LOG(LOG_WARN, "node", "%s/%s: the API server did not take the status: %d %s", p->ns, p->name, r->status,
                            r->error ? r->error : "");
                        if (r->status >= 400)
                                LOG(LOG_WARN, "node", STR_FMT, STR_ARG(str_sub(r->body, 0, 512)));
                        loop_timer_arm(p->node->loop, &p->status_retry, 1000);
                }
                if (p->deleting || p->gone)
                        pod_touch(p);
        }
        free(q->uid);
        free(q->json);
        free(q);
}

static void status_send(struct pod *p)
{
        struct buf path = BUF_INIT, body = BUF_INIT;

        if (p->status_busy || p->gone || p->delete_sent || p->node->closing)
                return;
        status_json(p, &body);
        if (p->status_sent && str_eqc(buf_view(&body), p->status_sent)) {
                buf_fini(&body);
                return;
        }
        struct status_request *q = MEM_NEW(struct status_request);
        *q = (struct status_request){ p->node, mem_strdup(p->uid), str_dup(buf_view(&body)) };
        p->status_busy = true;
        buf_printf(&path, "/api/v1/namespaces/%s/pods/%s/status", p->ns, p->name);
        kube_request(p->node->client, "PATCH", buf_view(&path), STR("application/merge-patch+json"), buf_view(&body), on_status_answer, q);
        buf_fini(&path);
        buf_fini(&body);
}

static void on_status_task(struct loop_task *t)
{
        struct pod *p = t->arg;

        status_send(p);
        if ((p->deleting || p->gone) && !p->status_busy)
                pod_touch(p);
}

static void on_status_retry(struct loop_timer *t)
{
        status_send(t->arg);
}

void status_touch(struct pod *p)
{
        p->status_task.fn = on_status_task;
        p->status_task.arg = p;
        p->status_retry.fn = on_status_retry;
        p->status_retry.arg = p;
        loop_defer(p->node->loop, &p->status_task);
}
