/* One pod's life. pod_sync() goes down a list of steps; each either is done already, or does its part and lets the next one run, or waits
 * for something that will touch the pod again:
 *
 *      address and namespace -> redirection (before any process of the pod) -> volumes -> init containers in order -> containers in order
 *
 * A container waits for the one before it to have started (and for its postStart hook); those of an injected pod wait for the proxy to be
 * ready, so that an application never sees the mesh half up. Deletion turns the list around: containers, then sidecars, then everything is
 * removed and the API server is told. */
#include "node/pod.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/redirect.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { POD_RETRY_MS = 2000 };

static void pod_sync(struct pod *p);

static void on_sync(struct loop_task *t)
{
        pod_sync(t->arg);
}

static void on_retry(struct loop_timer *t)
{
        pod_sync(t->arg);
}

void pod_touch(struct pod *p)
{
        loop_defer(p->node->loop, &p->sync_task);
}

struct str pod_annotation(void *pod, const char *name)
{
        return spec_map_str(((struct pod *)pod)->obj->node, "metadata.annotations", str_of(name));
}

/* ---- what the other files ask of a pod ---- */

static const struct pb_node *env_object(void *arg, const char *kind, struct str name)
{
        struct pod *p = arg;

        return node_object(p->node, kind, str_of(p->ns), name);
}

static void env_services(void *arg, void (*add)(void *out, struct str name, struct str value), void *out)
{
        struct pod *p = arg;

        node_service_env(p->node, spec_bool(p->obj->node, "spec.enableServiceLinks", true) ? str_of(p->ns) : STR(""), add, out);
}

void pod_spec_env(struct pod *p, struct spec_env *env)
{
        *env = (struct spec_env){
                .arg = p,
                .object = env_object,
                .services = env_services,
                .node_name = str_of(p->node->node_name),
                .host_ip = p->node->host_ip,
                .pod_ip = p->ip_text,
                .node_cpu_milli = p->node->cpu_milli,
                .node_memory_bytes = p->node->memory_bytes,
        };
}

static bool volume_token(void *arg, struct str audience, int64_t expiration_s, struct str *token, struct buf *error)
{
        return token_get(arg, audience, expiration_s, token, error);
}

void pod_volume_ctx(struct pod *p, struct spec_env *env, struct volume_ctx *x)
{
        *x = (struct volume_ctx){ .disk_dir = p->disk_dir, .memory_dir = p->memory_dir, .env = env, .token = volume_token, .arg = p };
}

struct ctr *pod_ctr(struct pod *p, struct str name)
{
        for (size_t i = 0; i < p->n; i++)
                if (str_eqc(name, p->v[i].name))
                        return &p->v[i];
        return NULL;
}

/* ---- making ---- */

static void pod_containers(struct pod *p)
{
        const struct pb_node *init = spec_list(p->obj->node, "spec.initContainers"), *mains = spec_list(p->obj->node, "spec.containers");

        p->ninit = init->n;
        p->n = init->n + mains->n;
        p->v = mem_calloc(p->n + 1, sizeof(*p->v));
        for (size_t i = 0; i < p->n; i++) {
                bool is_init = i < p->ninit;
                enum ctr_kind kind = !is_init                                                   ? CTR_MAIN
                                     : str_eqc(spec_str(init->v[i], "restartPolicy"), "Always") ? CTR_SIDECAR
                                                                                                : CTR_INIT;
                ctr_init(&p->v[i], p, kind, (unsigned)(is_init ? i : i - p->ninit));
        }
}

struct pod *pod_new(struct node *n, struct kube_object *o)
{
        struct pod *p = MEM_NEW(struct pod);
        uint64_t started;

        *p = (struct pod){
                .node = n, .obj = kube_object_ref(o), .uid = str_dup(o->uid), .ns = str_dup(o->namespace_), .name = str_dup(o->name)
        };
        p->pod_dir = mem_printf("%s/pods/%s", n->state_dir, p->uid);
        p->disk_dir = mem_printf("%s/volumes", p->pod_dir);
        p->memory_dir = mem_printf("%s/volumes/%s", n->run_dir, p->uid);
        p->ctr_dir = mem_printf("%s/ctr/%s", n->run_dir, p->uid);
        p->log_dir = mem_printf("%s/logs/%s_%s_%s", n->state_dir, p->ns, p->name, p->uid);
        p->sync_task = (struct loop_task){ .fn = on_sync, .arg = p };
        p->retry = (struct loop_timer){ .fn = on_retry, .arg = p };
        p->phase = "Pending";
        p->start_us = clock_parse_rfc3339(spec_str(o->node, "status.startTime"), &started) ? started : clock_real_us();
        p->injected = redirect_wanted(pod_annotation, p);
        p->deleting = spec_str(o->node, "metadata.deletionTimestamp").n > 0;
        network_pod_netns(&n->net, str_of(p->uid), p->netns);
        pod_containers(p);
        struct str phase = spec_str(o->node, "status.phase");
        if (str_eqc(phase, "Succeeded") || str_eqc(phase, "Failed")) {
                p->finished = p->final_said = true; /* what the API server knows is all there is to say */
                p->phase = str_eqc(phase, "Failed") ? "Failed" : "Succeeded";
        } else {
                for (size_t i = 0; i < p->n; i++)
                        ctr_adopt(&p->v[i]);
        }
        pod_touch(p);
        return p;
}

void pod_free(struct pod *p)
{
        struct loop *l = p->node->loop;

        loop_undefer(l, &p->sync_task);
        loop_undefer(l, &p->status_task);
        loop_timer_stop(l, &p->retry);
        loop_timer_stop(l, &p->status_retry);
        for (size_t i = 0; i < p->n; i++)
                ctr_fini(&p->v[i]);
        tokens_free(p);
        events_free(p);
        STRMAP_EACH (&p->condition_times, e)
                free(e->value);
        strmap_fini(&p->condition_times);
        char *all[] = { p->uid,        p->ns,      p->name,    p->pod_dir,       p->disk_dir,
                        p->memory_dir, p->ctr_dir, p->log_dir, p->phase_message, p->status_sent };
        for (size_t i = 0; i < ARRAY_LEN(all); i++)
                free(all[i]);
        free(p->v);
        kube_object_unref(p->obj);
        free(p);
}

/* ---- sandbox ---- */

static void pod_sandbox_trouble(struct pod *p, const char *reason, const char *text)
{
        event_pod(p, NULL, true, reason, "%s", text);
        LOG(LOG_WARN, "node", "%s/%s: %s", p->ns, p->name, text);
        for (size_t i = 0; i < p->n; i++)
                if (p->v[i].state == CTR_WAITING)
                        ctr_wait(&p->v[i], i < p->ninit || !p->ninit ? "ContainerCreating" : "PodInitializing", NULL);
        loop_timer_arm(p->node->loop, &p->retry, POD_RETRY_MS);
}

static bool pod_sandbox(struct pod *p)
{
        struct buf error = BUF_INIT;
        int err = 0;

        if (p->network_up)
                return true;
        if (!p->have_ip) {
                err = ipam_get(&p->node->ipam, str_of(p->uid), &p->ip);
                if (err)
                        buf_printf(&error, "no address for the pod: %s", err == -ENOSPC ? "the pod range is used up" : strerror(-err));
                p->have_ip = err == 0;
        }
        if (!err) {
                addr_ip_text(&p->ip, p->ip_buf);
                p->ip_text = str_of(p->ip_buf);
                err = network_pod_add(&p->node->net, str_of(p->uid), &p->ip, &error);
        }
        if (!err && p->injected)
                err = redirect_apply(p->netns, pod_annotation, p, &error);
        if (err)
                pod_sandbox_trouble(p, "FailedCreatePodSandBox", buf_z(&error));
        p->network_up = err == 0;
        buf_fini(&error);
        status_touch(p);
        return p->network_up;
}

static bool pod_volumes(struct pod *p)
{
        struct spec_env env;
        struct volume_ctx x;
        struct buf error = BUF_INIT;

        pod_spec_env(p, &env);
        pod_volume_ctx(p, &env, &x);
        enum volume_result r = volume_sync(p->obj->node, &x, &error);
        if (r == VOLUME_FAILED && !p->volumes_ready)
                pod_sandbox_trouble(p, "FailedMount", buf_z(&error));
        else if (r == VOLUME_FAILED)
                event_pod(p, NULL, true, "FailedMount", "%s", buf_z(&error));
        buf_fini(&error);
        if (r == VOLUME_READY)
                p->volumes_ready = true;
        return p->volumes_ready;
}

void pod_config_changed(struct pod *p)
{
        if (p->volumes_ready && !p->deleting && !p->finished)
                pod_volumes(p);
        pod_touch(p);
}

static void pod_image_event(struct pod *p)
{
        struct buf images = BUF_INIT;
        struct strmap seen = STRMAP_INIT;

        if (p->image_event)
                return;
        p->image_event = true;
        for (size_t i = 0; i < p->n; i++) {
                struct str image = spec_str(ctr_spec(&p->v[i]), "image");
                if (image.n && !strmap_has(&seen, image)) {
                        buf_printf(&images, "%s\"" STR_FMT "\"", images.n ? ", " : "", STR_ARG(image));
                        strmap_set(&seen, image, p);
                }
        }
        if (images.n)
                event_pod(p, NULL, false, "ImageNameOnly",
                          "Image %s taken as a label only: containers run on this machine's own /usr, read-only", buf_z(&images));
        strmap_fini(&seen);
        buf_fini(&images);
}

/* ---- starting ---- */

static bool pod_restarts(const struct pod *p, const struct ctr *c)
{
        struct str policy = spec_str(p->obj->node, "spec.restartPolicy");

        if (p->deleting)
                return false;
        if (c->kind == CTR_SIDECAR)
                return true;
        if (c->kind == CTR_INIT)
                return c->end.exit_code != 0 && !str_eqc(policy, "Never");
        return str_eqc(policy, "Never") ? false : str_eqc(policy, "OnFailure") ? c->end.exit_code != 0 : true;
}

/* Starts the container if it is its time. */
static void pod_try_start(struct pod *p, struct ctr *c)
{
        bool again = c->state == CTR_EXITED;

        if (c->backoff_until_ms || (again && !pod_restarts(p, c)))
                return;
        ctr_start(c);
        if (c->state == CTR_WAITING) /* its configuration is not complete: look again later */
                loop_timer_arm(p->node->loop, &p->retry, POD_RETRY_MS);
}

static void pod_say_backoff(struct ctr *c)
{
        if (c->state != CTR_EXITED || !c->backoff_until_ms || c->backoff_said)
                return;
        c->backoff_said = true;
        event_pod(c->pod, c, true, "BackOff", "Back-off restarting failed container %s in pod %s_%s(%s)", c->name, c->pod->name, c->pod->ns,
                  c->pod->uid);
}

/* Is this container far enough for the next one to start? */
static bool pod_gate_open(const struct pod *p, const struct ctr *c)
{
        if (c->kind == CTR_INIT)
                return c->state == CTR_EXITED && c->end.exit_code == 0;
        if (c->kind == CTR_SIDECAR)
                return c->ever_started && (c->started || c->gate_passed);
        if (p->injected && strcmp(c->name, "istio-proxy") == 0)
                return c->gate_passed || (c->state == CTR_RUNNING && c->post_started && c->started && c->ready);
        return c->ever_started && (c->state != CTR_RUNNING || c->post_started) && c->state != CTR_STARTING;
}

static bool pod_init_failed(const struct pod *p, const struct ctr *c)
{
        return c->kind == CTR_INIT && c->state == CTR_EXITED && c->end.exit_code != 0 && !pod_restarts(p, c);
}

static void pod_finish(struct pod *p, const char *phase)
{
        if (p->finished)
                return;
        p->finished = true;
        p->phase = phase;
        status_touch(p);
}

static void pod_stop_all(struct pod *p, const char *why, uint64_t grace_ms, bool sidecars)
{
        for (size_t i = p->n; i-- > 0;)
                if ((p->v[i].kind == CTR_SIDECAR) == sidecars)
                        ctr_stop(&p->v[i], why, grace_ms);
}

static bool pod_any_alive(const struct pod *p, bool sidecars)
{
        for (size_t i = 0; i < p->n; i++)
                if ((p->v[i].kind == CTR_SIDECAR) == sidecars && (p->v[i].state == CTR_RUNNING || p->v[i].state == CTR_STARTING))
                        return true;
        return false;
}

bool pod_stopped(const struct pod *p)
{
        return !pod_any_alive(p, false) && !pod_any_alive(p, true);
}

/* True when every main container ended for good. */
static bool pod_ran_out(const struct pod *p)
{
        for (size_t i = p->ninit; i < p->n; i++)
                if (p->v[i].state != CTR_EXITED || pod_restarts(p, &p->v[i]))
                        return false;
        return p->n > p->ninit;
}

static void pod_run(struct pod *p)
{
        bool open = true, out = pod_ran_out(p);

        for (size_t i = 0; i < p->n && !out; i++) {
                struct ctr *c = &p->v[i];
                if (pod_init_failed(p, c)) {
                        pod_stop_all(p, "InitFailed", 30000, true);
                        pod_finish(p, "Failed");
                        return;
                }
                bool done_init = c->kind == CTR_INIT && c->state == CTR_EXITED && c->end.exit_code == 0;
                bool may = i >= p->ninit || c->kind == CTR_SIDECAR || !p->mains_begun;
                pod_say_backoff(c);
                if ((open || c->ever_started) && may && !done_init && (c->state == CTR_WAITING || c->state == CTR_EXITED))
                        pod_try_start(p, c);
                else if (!open && c->state == CTR_WAITING)
                        ctr_wait(c, p->ninit ? "PodInitializing" : "ContainerCreating", NULL);
                if (open && i >= p->ninit)
                        p->mains_begun = true;
                if (pod_gate_open(p, c))
                        c->gate_passed = true;
                else
                        open = false;
        }
        if (!out)
                return;
        if (pod_any_alive(p, true)) {
                pod_stop_all(p, "Completed", (uint64_t)spec_int(p->obj->node, "spec.terminationGracePeriodSeconds", 30) * 1000, true);
                return;
        }
        bool failed = false;
        for (size_t i = p->ninit; i < p->n; i++)
                failed |= p->v[i].end.exit_code != 0;
        pod_finish(p, failed ? "Failed" : "Succeeded");
}

/* ---- ending ---- */

static void on_deleted(void *arg, const struct kube_response *r)
{
        char *uid = ((char **)arg)[0];
        struct node *n = ((struct node **)arg)[1];
        struct pod *p = strmap_get(&n->by_uid, str_of(uid));

        if (p && !(r->status >= 200 && r->status < 300) && r->status != 404 && r->status != 409) {
                LOG(LOG_WARN, "node", "%s/%s: deleting the object: %d %s", p->ns, p->name, r->status, r->error ? r->error : "");
                p->delete_sent = false;
                loop_timer_arm(n->loop, &p->retry, POD_RETRY_MS);
        }
        free(uid);
        free(arg);
}

/* Tells the API server that nothing of the pod is left. */
static void pod_confirm(struct pod *p)
{
        struct buf path = BUF_INIT, body = BUF_INIT;
        void **arg;

        if (p->delete_sent || p->gone || p->status_busy)
                return;
        p->delete_sent = true;
        arg = mem_calloc(2, sizeof(*arg));
        arg[0] = mem_strdup(p->uid);
        arg[1] = p->node;
        buf_printf(&path, "/api/v1/namespaces/%s/pods/%s", p->ns, p->name);
        buf_printf(&body, "{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\",\"gracePeriodSeconds\":0,\"preconditions\":{\"uid\":\"%s\"}}",
                   p->uid);
        kube_request(p->node->client, "DELETE", buf_view(&path), STR("application/json"), buf_view(&body), on_deleted, arg);
        buf_fini(&path);
        buf_fini(&body);
}

static void on_cleaned(void *arg, pid_t pid, int status)
{
        (void)arg;
        (void)pid;
        (void)status;
}

/* Removes what the pod has on this machine. Large folders take their time, so a child process empties them. */
static void pod_clean(struct pod *p)
{
        const char *dirs[] = { p->pod_dir, p->ctr_dir, p->log_dir };

        if (p->cleaned)
                return;
        p->cleaned = true;
        network_pod_del(&p->node->net, str_of(p->uid));
        ipam_free(&p->node->ipam, str_of(p->uid));
        pid_t pid = fork();
        if (pid > 0)
                loop_child_new(p->node->loop, pid, on_cleaned, NULL);
        if (pid > 0)
                return;
        volume_remove(p->disk_dir, p->memory_dir);
        for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
                rootfs_remove(dirs[i]);
        if (pid == 0)
                _exit(0);
}

static uint64_t pod_grace_ms(struct pod *p)
{
        int64_t grace = spec_int(p->obj->node, "metadata.deletionGracePeriodSeconds",
                                 spec_int(p->obj->node, "spec.terminationGracePeriodSeconds", 30));
        uint64_t now = loop_now_ms(p->node->loop);

        if (p->gone)
                return 0;
        if (!p->stop_deadline_ms || now + (uint64_t)grace * 1000 < p->stop_deadline_ms)
                p->stop_deadline_ms = now + (uint64_t)(grace < 0 ? 0 : grace) * 1000;
        return p->stop_deadline_ms > now ? p->stop_deadline_ms - now : 1;
}

static void pod_end(struct pod *p)
{
        if (!pod_stopped(p)) {
                uint64_t grace = pod_grace_ms(p);
                pod_stop_all(p, "Deleted", grace, false);
                if (!pod_any_alive(p, false))
                        pod_stop_all(p, "Deleted", grace, true);
                status_touch(p);
                return;
        }
        if (!p->gone) {
                if (!p->final_said) { /* the last word on exit codes, before the object goes */
                        p->final_said = true;
                        status_touch(p);
                        return;
                }
                if (!p->status_busy && !p->status_task.queued) {
                        pod_clean(p);
                        pod_confirm(p);
                }
                return;
        }
        pod_clean(p);
        strmap_del(&p->node->by_uid, str_of(p->uid));
        pod_free(p);
}

static void pod_sync(struct pod *p)
{
        struct buf why = BUF_INIT;

        if (p->deleting || p->gone) {
                pod_end(p);
                return;
        }
        if (p->finished)
                return;
        if (!spec_supported(p->obj->node, &why)) {
                event_pod(p, NULL, true, "Unsupported", "%s", buf_z(&why));
                p->phase_reason = "Unsupported";
                free(p->phase_message);
                p->phase_message = buf_take(&why);
                pod_finish(p, "Failed");
                return;
        }
        buf_fini(&why);
        if (!pod_sandbox(p))
                return;
        pod_image_event(p);
        if (p->volumes_ready || pod_volumes(p))
                pod_run(p);
        status_touch(p);
}

/* ---- what happens to the object ---- */

static bool same_field(const struct kube_object *a, const struct kube_object *b, const char *dotted)
{
        const struct pb_node *x = pb_get_path(a->node, dotted), *y = pb_get_path(b->node, dotted);

        return x == y || (x && y && pb_node_eq(x, y));
}

void pod_update(struct pod *p, struct kube_object *o)
{
        struct kube_object *old = p->obj;

        p->obj = kube_object_ref(o);
        bool meta = !same_field(old, o, "metadata.labels") || !same_field(old, o, "metadata.annotations");
        kube_object_unref(old);
        if (spec_str(o->node, "metadata.deletionTimestamp").n)
                p->deleting = true;
        if (meta)
                pod_config_changed(p);
        pod_touch(p);
}

void pod_gone(struct pod *p)
{
        p->gone = true;
        pod_touch(p);
}
