/* One container's life: waiting -> starting (the shim creates it) -> running -> exited, and perhaps around again with the next attempt
 * number. Each attempt has folders of its own, so nothing of a run that ended is in the way of the next:
 *
 *      POD/ctr/NAME-N     bundle: config.json and the root; the shim removes it at the end
 *      RUN/ctr/UID/NAME-N what the shim says (shim.h); kept until the attempt after the next, so that a node that starts again can tell
 *      LOGS/NAME/N.log    its output; the current one and the one before */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/simple.h"
#include "node/pod.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BACKOFF_FIRST_S = 10, BACKOFF_MAX_S = 300, BACKOFF_FORGET_S = 600, MESSAGE_MAX = 4096 };

const struct pb_node *ctr_spec(const struct ctr *c)
{
        const struct pb_node *l = spec_list(c->pod->obj->node, c->kind == CTR_MAIN ? "spec.containers" : "spec.initContainers");

        return c->index < l->n ? l->v[c->index] : NULL;
}

static void on_backoff(struct loop_timer *t)
{
        struct ctr *c = t->arg;

        c->backoff_until_ms = 0;
        pod_touch(c->pod);
}

static void on_kill_timer(struct loop_timer *t)
{
        struct ctr *c = t->arg;

        LOG(LOG_INFO, "node", "%s/%s: container %s did not stop in its grace period: killed", c->pod->ns, c->pod->name, c->name);
        ctr_kill(c, SIGKILL);
}

void ctr_init(struct ctr *c, struct pod *p, enum ctr_kind kind, unsigned index)
{
        *c = (struct ctr){ .pod = p, .kind = kind, .index = index, .shim = { .fd = -1 }, .wait_reason = "ContainerCreating" };
        c->name = str_dup(spec_str(ctr_spec(c), "name"));
        c->backoff_timer = (struct loop_timer){ .fn = on_backoff, .arg = c };
        c->kill_timer = (struct loop_timer){ .fn = on_kill_timer, .arg = c };
        for (unsigned u = 0; u < PROBE_USES; u++)
                c->probe[u] = (struct probe){ .ctr = c, .use = (enum probe_use)u };
}

void ctr_end_fini(struct ctr_end *e)
{
        free(e->message);
        free(e->id);
        memset(e, 0, sizeof(*e));
}

static void hook_cancel(struct ctr *c)
{
        if (c->hook)
                exec_cancel(c->hook);
        if (c->hook_fetch)
                http_fetch_cancel(c->hook_fetch);
        c->hook = NULL;
        c->hook_fetch = NULL;
        c->hook_running = false;
}

/* Lets go of everything that could call back. */
static void ctr_quiet(struct ctr *c)
{
        struct loop *l = c->pod->node->loop;

        for (unsigned u = 0; u < PROBE_USES; u++)
                probe_stop(c, (enum probe_use)u);
        hook_cancel(c);
        loop_timer_stop(l, &c->kill_timer);
        loop_timer_stop(l, &c->backoff_timer);
        if (c->shim.fd >= 0) {
                int fd = c->shim.fd;
                loop_unwatch(l, &c->shim);
                close(fd);
                c->shim.fd = -1;
        }
}

void ctr_fini(struct ctr *c)
{
        ctr_quiet(c);
        if (c->launcher)
                loop_child_forget(c->launcher);
        free(c->name);
        free(c->id);
        free(c->dir);
        free(c->wait_message);
        ctr_end_fini(&c->end);
        ctr_end_fini(&c->last);
}

char *ctr_log_path(const struct ctr *c, unsigned attempt)
{
        return mem_printf("%s/%s/%u.log", c->pod->log_dir, c->name, attempt);
}

char *ctr_run_dir(const struct ctr *c, unsigned attempt)
{
        return mem_printf("%s/%s-%u", c->pod->ctr_dir, c->name, attempt);
}

static char *ctr_bundle(const struct ctr *c, unsigned attempt)
{
        return mem_printf("%s/ctr/%s-%u", c->pod->pod_dir, c->name, attempt);
}

void ctr_remove_files(struct ctr *c, unsigned attempt)
{
        char *run = ctr_run_dir(c, attempt), *bundle = ctr_bundle(c, attempt), *log = ctr_log_path(c, attempt);

        rootfs_remove(run);
        rootfs_remove(bundle);
        unlink(log);
        for (int i = 1; i < 3; i++) {
                char *old = mem_printf("%s.%d", log, i);
                unlink(old);
                free(old);
        }
        free(run);
        free(bundle);
        free(log);
}

void ctr_wait(struct ctr *c, const char *reason, const char *message)
{
        bool same = c->state == CTR_WAITING && strcmp(c->wait_reason, reason) == 0 &&
                    strcmp(c->wait_message ? c->wait_message : "", message ? message : "") == 0;

        if (same)
                return;
        free(c->wait_message);
        c->wait_message = message ? str_dup(str_sub(str_of(message), 0, MESSAGE_MAX)) : NULL;
        c->wait_reason = reason;
        c->state = CTR_WAITING;
        status_touch(c->pod);
}

/* ---- the end of a run ---- */

static void ctr_backoff(struct ctr *c)
{
        struct loop *l = c->pod->node->loop;
        uint64_t ran_s = c->end.finished_us > c->end.started_us && c->end.started_us ? (c->end.finished_us - c->end.started_us) / 1000000
                                                                                     : 0;

        if (ran_s >= BACKOFF_FORGET_S)
                c->backoff_s = 0;
        if (c->backoff_s) {
                c->backoff_until_ms = loop_now_ms(l) + (uint64_t)c->backoff_s * 1000;
                loop_timer_arm(l, &c->backoff_timer, (uint64_t)c->backoff_s * 1000);
        }
        /* The first restart comes at once; then 10 s, 20 s, ... */
        c->backoff_s = c->backoff_s ? c->backoff_s * 2 : BACKOFF_FIRST_S;
        if (c->backoff_s > BACKOFF_MAX_S)
                c->backoff_s = BACKOFF_MAX_S;
}

static void ctr_ended(struct ctr *c, const struct shim_status *st)
{
        ctr_quiet(c);
        ctr_end_fini(&c->end);
        c->end = (struct ctr_end){ .started_us = st->started_us,
                                   .finished_us = st->finished_us ? st->finished_us : clock_real_us(),
                                   .id = mem_strdup(c->id) };
        if (st->error) {
                c->end.exit_code = 128;
                c->end.reason = "StartError";
                c->end.message = str_dup(str_sub(str_of(st->error), 0, MESSAGE_MAX));
                event_pod(c->pod, c, true, "Failed", "Error: %s", st->error);
        } else if (!st->finished) {
                c->end.exit_code = 137;
                c->end.signal = SIGKILL;
                c->end.reason = "Error";
                c->end.message = mem_strdup("the container's supervisor (shim) was killed; its exit status is not known");
        } else {
                c->end.exit_code = st->exit_code;
                c->end.signal = st->signal;
                c->end.reason = st->oom ? "OOMKilled" : st->exit_code == 0 ? "Completed" : "Error";
        }
        c->state = CTR_EXITED;
        c->ready = c->started = c->stop_sent = false;
        LOG(LOG_INFO, "node", "%s/%s: container %s ended: %s, code %d", c->pod->ns, c->pod->name, c->name, c->end.reason, c->end.exit_code);
        ctr_backoff(c);
        status_touch(c->pod);
        pod_touch(c->pod);
}

static void on_shim(struct loop_watch *w, unsigned ready)
{
        struct ctr *c = w->arg;
        struct shim_status st;
        char drop[64];

        (void)ready;
        ssize_t n = recv(w->fd, drop, sizeof(drop), MSG_DONTWAIT);
        if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
                return;
        shim_status_read(c->dir, &st);
        if (!st.finished && c->id) {
                /* The shim is gone and said nothing: whatever still runs of the container has lost its streams. */
                const char *argv[] = { "runc", "--root", c->pod->node->runtime_root, "delete", "--force", c->id, NULL };
                pid_t pid;
                if (posix_spawnp(&pid, "runc", NULL, NULL, (char *const *)argv, environ) == 0)
                        waitpid(pid, NULL, 0);
        }
        ctr_ended(c, &st);
        shim_status_fini(&st);
}

static void ctr_gates(struct ctr *c)
{
        const struct pb_node *spec = ctr_spec(c);

        c->started = c->started || !pb_get(spec, "startupProbe");
        c->ready = c->started && (c->ready || !pb_get(spec, "readinessProbe"));
        if (!c->started) {
                probe_start(c, PROBE_STARTUP);
                return;
        }
        probe_start(c, PROBE_READINESS);
        probe_start(c, PROBE_LIVENESS);
}

/* Takes up the connection to a shim that lives. False: it does not. */
static bool ctr_watch(struct ctr *c)
{
        int fd = shim_connect(c->dir);

        if (fd < 0)
                return false;
        if (loop_watch(c->pod->node->loop, &c->shim, fd, LOOP_READ | LOOP_LEVEL, on_shim, c) < 0) {
                close(fd);
                c->shim.fd = -1;
                return false;
        }
        return true;
}

/* ---- hooks ---- */

static void hook_done(struct ctr *c, bool ok, struct str why)
{
        bool pre_stop = c->stopping;

        c->hook = NULL;
        c->hook_fetch = NULL;
        c->hook_running = false;
        if (!ok)
                event_pod(c->pod, c, true, pre_stop ? "FailedPreStopHook" : "FailedPostStartHook", "%s failed: " STR_FMT,
                          pre_stop ? "PreStopHook" : "PostStartHook", STR_ARG(str_sub(why, 0, 512)));
        if (pre_stop) {
                c->stop_sent = true;
                ctr_kill(c, SIGTERM);
        } else if (ok) {
                c->post_started = true;
        } else {
                ctr_stop(c, "FailedPostStartHook", spec_int(c->pod->obj->node, "spec.terminationGracePeriodSeconds", 30) * 1000ull);
        }
        pod_touch(c->pod);
}

static void on_hook_exec(void *arg, int code, struct str output)
{
        char text[64];

        snprintf(text, sizeof(text), "command exited with %d", code);
        hook_done(arg, code == 0, code < 0 && output.n ? output : str_of(text));
}

static void on_hook_fetch(void *arg, const struct http_head *m, struct str body, const char *error)
{
        char text[64];

        (void)body;
        snprintf(text, sizeof(text), "HTTP status %d", m ? m->status : 0);
        hook_done(arg, m && m->status >= 200 && m->status < 400, str_of(m ? text : error));
}

static void on_hook_sleep(void *arg, int code, struct str output)
{
        (void)code;
        (void)output;
        hook_done(arg, true, STR(""));
}

struct hook_fetch_job {
        struct loop *loop;
        struct http_fetch_opts o;
        struct ctr *c;
};

static int hook_fetch_start(void *arg)
{
        struct hook_fetch_job *j = arg;

        j->c->hook_fetch = http_fetch(j->loop, &j->o, on_hook_fetch, j->c);
        return 0;
}

static bool hook_http(struct ctr *c, const struct pb_node *get, uint64_t timeout_ms)
{
        struct hook_fetch_job j = { c->pod->node->loop, { .path = spec_str(get, "path"), .timeout_ms = (unsigned)timeout_ms }, c };
        struct addr to = c->pod->ip;
        int64_t port = spec_int(get, "port", 0);
        const struct pb_node *ports = spec_list(ctr_spec(c), "ports");

        for (size_t i = 0; i < ports->n; i++)
                if (str_eq(spec_str(ports->v[i], "name"), spec_str(get, "port")))
                        port = spec_int(ports->v[i], "containerPort", 0);
        if (port < 1 || port > 65535)
                return false;
        addr_set_port(&to, (uint16_t)port);
        j.o.to = &to;
        return netns_run(c->pod->node->net.netns, hook_fetch_start, &j) == 0 && c->hook_fetch;
}

/* Starts the hook. False: there is none (or none that can be run). */
static bool hook_start(struct ctr *c, const char *which, uint64_t timeout_ms)
{
        const struct pb_node *hook = pb_get(pb_get(ctr_spec(c), "lifecycle"), which), *exec = pb_get(hook, "exec"),
                             *get = pb_get(hook, "httpGet");
        const struct pb_node *sleep = pb_get(hook, "sleep"), *command = spec_list(exec, "command");

        if (exec && command->n) {
                const char **args = mem_calloc(command->n, sizeof(*args));
                for (size_t i = 0; i < command->n; i++)
                        args[i] = str_dup(command->v[i]->text);
                c->hook = exec_start(c, args, command->n, timeout_ms, on_hook_exec, c);
                for (size_t i = 0; i < command->n; i++)
                        free((char *)args[i]);
                free(args);
        } else if (sleep) {
                char seconds[24];
                snprintf(seconds, sizeof(seconds), "%lld", (long long)spec_int(sleep, "seconds", 1));
                const char *args[] = { "/bin/sleep", seconds };
                c->hook = exec_start(c, args, 2, timeout_ms, on_hook_sleep, c);
        } else if (!get || !hook_http(c, get, timeout_ms)) {
                return false;
        }
        c->hook_running = true;
        return true;
}

/* ---- running ---- */

static void ctr_running(struct ctr *c, const struct shim_status *st, bool adopted)
{
        c->state = CTR_RUNNING;
        c->started_us = st->started_us;
        c->ever_started = true;
        free(c->wait_message);
        c->wait_message = NULL;
        if (adopted) {
                c->post_started = true;
        } else {
                event_pod(c->pod, c, false, "Started", "Started container %s", c->name);
                c->post_started = !hook_start(c, "postStart", 3600000);
        }
        ctr_gates(c);
        status_touch(c->pod);
        if (c->stopping) {
                c->stopping = false;
                ctr_stop(c, c->kill_reason, c->grace_ms);
        }
}

static void on_launched(void *arg, pid_t pid, int status)
{
        struct ctr *c = arg;
        struct shim_status st;

        (void)pid;
        c->launcher = NULL;
        shim_status_read(c->dir, &st);
        if (!st.known && !st.error)
                st.error = mem_printf("the container's supervisor (shim) could not be run: status %d", status);
        if (!st.error && !st.finished && ctr_watch(c)) {
                ctr_running(c, &st, false);
        } else {
                shim_status_fini(&st);
                shim_status_read(c->dir, &st); /* it may have ended meanwhile */
                c->ever_started = true;
                if (!st.error)
                        event_pod(c->pod, c, false, "Started", "Started container %s", c->name);
                ctr_ended(c, &st);
        }
        shim_status_fini(&st);
        pod_touch(c->pod);
}

static bool ctr_spawn_shim(struct ctr *c, const char *bundle, const char *log, const struct oci_container *o)
{
        struct node *n = c->pod->node;
        const struct pb_node *spec = ctr_spec(c);
        char *binary = mem_printf("%s/bin/postern", n->base.dir);
        const char *argv[24] = { binary,     "shim", "--dir",          c->dir,          "--id",  c->id,
                                 "--bundle", bundle, "--runtime-root", n->runtime_root, "--log", log };
        unsigned k = 12;
        posix_spawn_file_actions_t fa;
        posix_spawnattr_t attr;
        sigset_t none;
        pid_t pid;

        if (!o->no_cgroup) {
                argv[k++] = "--cgroup";
                argv[k++] = o->cgroup;
        }
        if (spec_bool(spec, "stdin", false))
                argv[k++] = "--stdin";
        if (spec_bool(spec, "stdinOnce", false))
                argv[k++] = "--stdin-once";
        if (o->tty)
                argv[k++] = "--tty";
        static char *const env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
        sigemptyset(&none);
        posix_spawnattr_init(&attr);
        posix_spawnattr_setsigmask(&attr, &none);
        posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
        posix_spawn_file_actions_init(&fa);
        posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
        int err = posix_spawn(&pid, binary, &fa, &attr, (char *const *)argv, env);
        posix_spawn_file_actions_destroy(&fa);
        posix_spawnattr_destroy(&attr);
        if (err)
                LOG(LOG_ERROR, "node", "%s: %s", binary, strerror(err));
        else
                c->launcher = loop_child_new(n->loop, pid, on_launched, c);
        free(binary);
        return err == 0;
}

static void hosts_text(struct pod *p, struct str hostname, struct buf *out)
{
        const struct pb_node *aliases = spec_list(p->obj->node, "spec.hostAliases");
        struct str sub = spec_str(p->obj->node, "spec.subdomain");

        buf_cstr(out, "# made by postern\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        buf_printf(out, STR_FMT "\t", STR_ARG(p->ip_text));
        if (sub.n)
                buf_printf(out, STR_FMT "." STR_FMT ".%s.svc.%s\t", STR_ARG(hostname), STR_ARG(sub), p->ns, p->node->domain);
        buf_printf(out, STR_FMT "\n", STR_ARG(hostname));
        for (size_t i = 0; i < aliases->n; i++) {
                const struct pb_node *names = spec_list(aliases->v[i], "hostnames");
                buf_str(out, spec_str(aliases->v[i], "ip"));
                for (size_t k = 0; k < names->n; k++)
                        buf_printf(out, "%s" STR_FMT, k ? " " : "\t", STR_ARG(names->v[k]->text));
                buf_char(out, '\n');
        }
}

static void resolv_text(struct pod *p, struct buf *out)
{
        const struct pb_node *config = pb_get_path(p->obj->node, "spec.dnsConfig");
        const struct pb_node *servers = spec_list(config, "nameservers"), *searches = spec_list(config, "searches"),
                             *options = spec_list(config, "options");
        bool none = str_eqc(spec_str(p->obj->node, "spec.dnsPolicy"), "None");
        char dns[ADDR_TEXT_MAX];

        addr_ip_text(&p->node->net.dns, dns);
        if (!none)
                buf_printf(out, "nameserver %s\n", dns);
        for (size_t i = 0; i < servers->n; i++)
                buf_printf(out, "nameserver " STR_FMT "\n", STR_ARG(servers->v[i]->text));
        if (!none || searches->n)
                buf_cstr(out, "search");
        if (!none)
                buf_printf(out, " %s.svc.%s svc.%s %s", p->ns, p->node->domain, p->node->domain, p->node->domain);
        for (size_t i = 0; i < searches->n; i++)
                buf_printf(out, " " STR_FMT, STR_ARG(searches->v[i]->text));
        buf_cstr(out, !none || searches->n ? "\n" : "");
        if (!none || options->n)
                buf_cstr(out, none ? "options" : "options ndots:5");
        for (size_t i = 0; i < options->n; i++) {
                struct str name = spec_str(options->v[i], "name"), value = spec_str(options->v[i], "value");
                buf_printf(out, " " STR_FMT "%s" STR_FMT, STR_ARG(name), value.n ? ":" : "", STR_ARG(value));
        }
        buf_cstr(out, !none || options->n ? "\n" : "");
}

/* Describes the container and writes root and configuration. False: `e`. */
static bool ctr_prepare(struct ctr *c, const char *bundle, struct oci_container *o, struct arena *a, struct spec_error *e)
{
        struct pod *p = c->pod;
        struct node *n = p->node;
        const struct pb_node *pod = p->obj->node, *spec = ctr_spec(c);
        struct buf hosts = BUF_INIT, resolv = BUF_INIT, json = BUF_INIT;
        struct spec_env env;
        struct volume_ctx x;
        char netns[NETNS_PATH_MAX];
        struct str hostname = spec_str(pod, "spec.hostname").n ? spec_str(pod, "spec.hostname") : str_of(p->name);

        hostname = str_sub(hostname, 0, 63);
        pod_spec_env(p, &env);
        pod_volume_ctx(p, &env, &x);
        if (!spec_container(pod, spec, &env, a, o, e))
                return false;
        o->nmounts = n->base.nmounts;
        struct oci_mount *mounts = arena_dup(a, n->base.mounts, n->base.nmounts * sizeof(*mounts));
        if (!volume_mounts(pod, spec, &x, o->env, o->nenv, a, &mounts, &o->nmounts, e))
                return false;
        netns_path(p->netns, netns);
        o->mounts = mounts;
        o->rootfs = arena_printf(a, "%s/rootfs", bundle).p;
        o->hostname = arena_cstr(a, hostname);
        o->netns_path = arena_cstr(a, str_of(netns));
        o->cgroup = arena_printf(a, "/postern/%s/%s/%s-%u", n->name, p->uid, c->name, c->attempt).p;
        o->no_cgroup = n->no_cgroup;
        hosts_text(p, hostname, &hosts);
        resolv_text(p, &resolv);
        struct rootfs_opts ro = {
                .hostname = o->hostname, .hosts = buf_view(&hosts), .resolv_conf = buf_view(&resolv), .uid = o->uid, .gid = o->gid
        };
        rootfs_remove(bundle);
        e->reason = "CreateContainerError";
        bool ok = rootfs_make(o->rootfs, &ro, &e->text) == 0;
        if (ok) {
                char *path = mem_printf("%s/config.json", bundle);
                int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
                oci_config(o, &json);
                ok = fd >= 0 && write(fd, json.p, json.n) == (ssize_t)json.n;
                if (!ok)
                        buf_printf(&e->text, "%s: %s", path, strerror(errno));
                if (fd >= 0)
                        close(fd);
                free(path);
        }
        buf_fini(&hosts);
        buf_fini(&resolv);
        buf_fini(&json);
        return ok;
}

static void ctr_next_attempt(struct ctr *c)
{
        struct pod *p = c->pod;

        if (c->state == CTR_EXITED) {
                ctr_end_fini(&c->last);
                c->last = c->end;
                c->has_last = true;
                memset(&c->end, 0, sizeof(c->end));
                c->attempt++;
        }
        if (c->attempt >= 2)
                ctr_remove_files(c, c->attempt - 2);
        free(c->id);
        free(c->dir);
        c->id = mem_printf("%s.%s.%u", p->uid, c->name, c->attempt);
        c->dir = ctr_run_dir(c, c->attempt);
        c->started = c->ready = c->post_started = c->stopping = c->stop_sent = false;
        c->kill_reason = NULL;
        c->backoff_said = false;
}

void ctr_start(struct ctr *c)
{
        struct spec_error e = { 0 };
        struct oci_container o = { 0 };
        struct arena a;

        arena_init(&a, 8192);
        ctr_next_attempt(c);
        c->state = CTR_WAITING;
        char *bundle = ctr_bundle(c, c->attempt), *log = ctr_log_path(c, c->attempt),
             *log_dir = mem_printf("%s/%s", c->pod->log_dir, c->name);
        rootfs_remove(c->dir);
        bool ok = ctr_prepare(c, bundle, &o, &a, &e);
        if (ok && (rootfs_mkdirs(c->dir, 0700) < 0 || rootfs_mkdirs(log_dir, 0755) < 0)) {
                buf_printf(&e.text, "%s: %s", c->dir, strerror(errno));
                ok = false;
        }
        if (ok && !ctr_spawn_shim(c, bundle, log, &o)) {
                buf_cstr(&e.text, "the container's supervisor (shim) could not be run");
                ok = false;
        }
        if (ok) {
                c->state = CTR_STARTING;
                event_pod(c->pod, c, false, "Created", "Created container: %s", c->name);
                status_touch(c->pod);
        } else {
                rootfs_remove(bundle);
                event_pod(c->pod, c, true, "Failed", "Error: %s", buf_z(&e.text));
                ctr_wait(c, e.reason, buf_z(&e.text));
        }
        free(bundle);
        free(log);
        free(log_dir);
        buf_fini(&e.text);
        arena_fini(&a);
}

/* ---- adopting ---- */

static const struct pb_node *ctr_api_status(const struct ctr *c)
{
        const struct pb_node *l = spec_list(c->pod->obj->node,
                                            c->kind == CTR_MAIN ? "status.containerStatuses" : "status.initContainerStatuses");

        for (size_t i = 0; i < l->n; i++)
                if (str_eqc(spec_str(l->v[i], "name"), c->name))
                        return l->v[i];
        return NULL;
}

static bool ctr_find_attempt(struct ctr *c, unsigned *attempt)
{
        DIR *d = opendir(c->pod->ctr_dir);
        size_t n = strlen(c->name);
        bool found = false;

        for (struct dirent *e; d && (e = readdir(d));) {
                uint64_t k;
                if (strncmp(e->d_name, c->name, n) != 0 || e->d_name[n] != '-' || !str_u64(str_of(e->d_name + n + 1), &k) || k > 1000000)
                        continue;
                if (!found || k > *attempt)
                        *attempt = (unsigned)k;
                found = true;
        }
        if (d)
                closedir(d);
        return found;
}

static void ctr_adopt_last(struct ctr *c)
{
        struct shim_status st;

        if (!c->attempt)
                return;
        char *dir = ctr_run_dir(c, c->attempt - 1);
        shim_status_read(dir, &st);
        if (st.finished) {
                c->last = (struct ctr_end){ .exit_code = st.exit_code,
                                            .signal = st.signal,
                                            .started_us = st.started_us,
                                            .finished_us = st.finished_us,
                                            .reason = st.oom         ? "OOMKilled"
                                                      : st.exit_code ? "Error"
                                                                     : "Completed" };
                c->last.id = mem_printf("%s.%s.%u", c->pod->uid, c->name, c->attempt - 1);
                c->has_last = true;
        }
        shim_status_fini(&st);
        free(dir);
}

void ctr_adopt(struct ctr *c)
{
        const struct pb_node *api = ctr_api_status(c);
        struct shim_status st;

        c->attempt = (unsigned)spec_int(api, "restartCount", 0);
        if (!ctr_find_attempt(c, &c->attempt)) {
                if (spec_str(api, "containerID").n)
                        c->attempt++; /* it ran before the machine started again */
                return;
        }
        c->id = mem_printf("%s.%s.%u", c->pod->uid, c->name, c->attempt);
        c->dir = ctr_run_dir(c, c->attempt);
        ctr_adopt_last(c);
        shim_status_read(c->dir, &st);
        /* what was ready stays so until a probe says no: the death of a node must not take an endpoint away */
        if (c->attempt == (unsigned)spec_int(api, "restartCount", 0)) {
                c->started = spec_bool(api, "started", false);
                c->ready = spec_bool(api, "ready", false);
        }
        if (!st.finished && !st.error && shim_alive(c->dir) && ctr_watch(c)) {
                ctr_running(c, &st, true);
                LOG(LOG_INFO, "node", "%s/%s: container %s runs on", c->pod->ns, c->pod->name, c->name);
        } else {
                c->ever_started = true;
                ctr_ended(c, &st);
        }
        shim_status_fini(&st);
}

/* ---- stopping ---- */

void ctr_kill(struct ctr *c, int signo)
{
        struct buf b = BUF_INIT;
        char one = (char)signo;

        if (c->shim.fd < 0)
                return;
        shim_frame_put(&b, SHIM_KILL, str_make(&one, 1));
        if (send(c->shim.fd, b.p, b.n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)b.n)
                LOG(LOG_WARN, "node", "%s/%s: container %s: signal %d not delivered: %s", c->pod->ns, c->pod->name, c->name, signo,
                    strerror(errno));
        buf_fini(&b);
}

void ctr_stop(struct ctr *c, const char *why, uint64_t grace_ms)
{
        struct loop *l = c->pod->node->loop;

        loop_timer_stop(l, &c->backoff_timer);
        c->backoff_until_ms = 0;
        if (c->state != CTR_RUNNING && c->state != CTR_STARTING)
                return;
        if (c->stopping && loop_now_ms(l) + grace_ms >= c->stop_at_ms)
                return;
        bool again = c->stopping;
        c->stopping = true;
        c->kill_reason = why;
        c->grace_ms = grace_ms;
        c->stop_at_ms = loop_now_ms(l) + grace_ms;
        if (c->state == CTR_STARTING)
                return; /* ctr_running() comes back here */
        for (unsigned u = 0; u < PROBE_USES; u++)
                probe_stop(c, (enum probe_use)u);
        if (grace_ms == 0) {
                ctr_kill(c, SIGKILL);
                return;
        }
        loop_timer_arm(l, &c->kill_timer, grace_ms);
        if (again)
                return;
        event_pod(c->pod, c, false, "Killing", "Stopping container %s", c->name);
        hook_cancel(c);
        if (!hook_start(c, "preStop", grace_ms)) {
                c->stop_sent = true;
                ctr_kill(c, SIGTERM);
        }
}
