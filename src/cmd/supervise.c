/* The supervisor of one cluster: starts the API server and the node, says when they are ready, starts them again when they die, and takes
 * them down on SIGTERM. It holds the cluster's lock for as long as it lives. Nothing depends on it to keep working: when it is killed, its
 * children go on, and the next `postern up` takes over. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cmd/cluster.h"
#include "cmd/cmd.h"
#include "net/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RESTART_FIRST_MS = 50, RESTART_MAX_MS = 5000, STEADY_MS = 10000, STOP_MS = 20000, MAX_ARGS = 40 };

struct role {
        const char *name;
        struct supervisor *sup;
        const char *argv[MAX_ARGS];
        pid_t pid;
        struct loop_child *child;
        struct loop_watch ready;
        struct loop_timer restart;
        uint64_t started_ms;
        uint64_t backoff_ms;
        bool was_ready;
};

struct supervisor {
        struct loop *loop;
        struct cluster cluster;
        struct role apiserver, node;
        struct loop_timer kill;
        int report_fd;
        bool stopping;
};

static void role_start(struct role *r);

/* Tells `postern up`, as long as it listens. */
static void report(struct supervisor *s, const char *fmt, const char *what)
{
        if (s->report_fd >= 0 && dprintf(s->report_fd, fmt, what) < 0) {
                close(s->report_fd);
                s->report_fd = -1;
        }
}

static void on_ready(struct loop_watch *w, unsigned ready)
{
        struct role *r = w->arg;
        char c[64];
        ssize_t n = read(w->fd, c, sizeof(c));
        int fd = w->fd;

        (void)ready;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        loop_unwatch(r->sup->loop, w);
        close(fd);
        if (n <= 0)
                return;
        LOG(LOG_INFO, "supervisor", "%s is ready", r->name);
        report(r->sup, "ready %s\n", r->name);
        if (r == &r->sup->apiserver && !r->was_ready) {
                r->was_ready = true;
                role_start(&r->sup->node);
        }
        r->was_ready = true;
}

static void on_restart(struct loop_timer *t)
{
        role_start(t->arg);
}

static void on_exit_of(void *arg, pid_t pid, int status)
{
        struct role *r = arg;
        struct supervisor *s = r->sup;
        uint64_t lived = loop_now_ms(s->loop) - r->started_ms;

        (void)pid;
        r->child = NULL;
        r->pid = 0;
        if (r->ready.fd >= 0) {
                int fd = r->ready.fd;

                loop_unwatch(s->loop, &r->ready);
                close(fd);
        }
        if (s->stopping) {
                if (r == &s->node && s->apiserver.pid)
                        kill(s->apiserver.pid, SIGTERM);
                if (!s->node.pid && !s->apiserver.pid)
                        loop_stop(s->loop);
                return;
        }
        if (WIFSIGNALED(status))
                LOG(LOG_ERROR, "supervisor", "%s was killed by signal %d", r->name, WTERMSIG(status));
        else
                LOG(LOG_ERROR, "supervisor", "%s ended with status %d", r->name, WEXITSTATUS(status));
        if (!r->was_ready) { /* it never worked: trying again would hide why */
                report(s, "failed %s\n", r->name);
                s->stopping = true;
                if (s->node.pid || s->apiserver.pid) {
                        if (s->node.pid)
                                kill(s->node.pid, SIGTERM);
                        else
                                kill(s->apiserver.pid, SIGTERM);
                        return;
                }
                loop_stop(s->loop);
                return;
        }
        r->backoff_ms = lived > STEADY_MS || !r->backoff_ms ? RESTART_FIRST_MS : r->backoff_ms * 2;
        if (r->backoff_ms > RESTART_MAX_MS)
                r->backoff_ms = RESTART_MAX_MS;
        loop_timer_arm(s->loop, &r->restart, r->backoff_ms);
}

static void role_exec(struct role *r, int ready_fd)
{
        struct cluster *c = &r->sup->cluster;
        char fd_text[16];
        unsigned n = 0;
        sigset_t none;

        while (r->argv[n])
                n++;
        snprintf(fd_text, sizeof(fd_text), "%d", ready_fd);
        r->argv[n++] = "--ready-fd";
        r->argv[n++] = fd_text;
        r->argv[n] = NULL;
        fcntl(ready_fd, F_SETFD, 0);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        char *log = mem_printf(STR_FMT "/%s.log", STR_ARG(c->log_dir), r->name);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

        if (fd >= 0)
                dup2(fd, STDERR_FILENO);
        execv(cmd_self(), (char **)r->argv);
        fprintf(stderr, "postern: cannot execute %s: %s\n", cmd_self(), strerror(errno));
        _exit(127);
}

static void role_start(struct role *r)
{
        struct supervisor *s = r->sup;
        int p[2];

        if (pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0) {
                LOG(LOG_ERROR, "supervisor", "pipe: %s", strerror(errno));
                loop_timer_arm(s->loop, &r->restart, RESTART_MAX_MS);
                return;
        }
        pid_t pid = fork();

        if (pid == 0)
                role_exec(r, p[1]);
        close(p[1]);
        if (pid < 0) {
                LOG(LOG_ERROR, "supervisor", "fork: %s", strerror(errno));
                close(p[0]);
                loop_timer_arm(s->loop, &r->restart, RESTART_MAX_MS);
                return;
        }
        r->pid = pid;
        r->started_ms = loop_now_ms(s->loop);
        loop_watch(s->loop, &r->ready, p[0], LOOP_READ | LOOP_LEVEL, on_ready, r);
        r->child = loop_child_new(s->loop, pid, on_exit_of, r);
        char *file = mem_printf(STR_FMT "/%s.pid", STR_ARG(s->cluster.run_dir), r->name);
        struct buf b = BUF_INIT;

        buf_printf(&b, "%d\n", (int)pid);
        buf_write_file(&b, file, 0644);
        buf_fini(&b);
        free(file);
}

static void on_kill(struct loop_timer *t)
{
        struct supervisor *s = t->arg;

        LOG(LOG_WARN, "supervisor", "still running after %d s: killed", STOP_MS / 1000);
        if (s->node.pid)
                kill(s->node.pid, SIGKILL);
        if (s->apiserver.pid)
                kill(s->apiserver.pid, SIGKILL);
}

static void on_signal(void *arg, int signo)
{
        struct supervisor *s = arg;

        if (s->stopping)
                return;
        LOG(LOG_INFO, "supervisor", "signal %d: going down", signo);
        s->stopping = true;
        loop_timer_stop(s->loop, &s->node.restart);
        loop_timer_stop(s->loop, &s->apiserver.restart);
        if (s->node.pid)
                kill(s->node.pid, SIGTERM);
        else if (s->apiserver.pid)
                kill(s->apiserver.pid, SIGTERM);
        else
                loop_stop(s->loop);
        loop_timer_arm(s->loop, &s->kill, STOP_MS);
}

/* Processes of a supervisor that was killed go on without it. They are stopped here, by the pid files, before new ones take their places.
 */
static void stop_orphan(struct cluster *c, const char *role)
{
        char *file = mem_printf(STR_FMT "/%s.pid", STR_ARG(c->run_dir), role);
        struct buf b = BUF_INIT;
        uint64_t pid;

        if (buf_read_file(&b, file, 64) == 0 && str_u64(str_sub(buf_view(&b), 0, b.n ? b.n - 1 : 0), &pid) && pid > 1) {
                char *exe = mem_printf("/proc/%llu/cmdline", (unsigned long long)pid);
                struct buf cmdline = BUF_INIT;

                /* is it still ours? arguments are divided by NULs: "…postern\0apiserver\0" */
                if (buf_read_file(&cmdline, exe, 65536) == 0 && str_find(buf_view(&cmdline), str_of(role)) > 0 &&
                    str_find(buf_view(&cmdline), c->run_dir) > 0) {
                        LOG(LOG_INFO, "supervisor", "stopping %s %llu, left by an earlier supervisor", role, (unsigned long long)pid);
                        kill((pid_t)pid, SIGKILL);
                        for (int i = 0; i < 200 && kill((pid_t)pid, 0) == 0; i++)
                                nanosleep(&(struct timespec){ 0, 5000000 }, NULL);
                }
                buf_fini(&cmdline);
                free(exe);
        }
        buf_fini(&b);
        free(file);
}

static struct str in_run(struct supervisor *s, const char *file)
{
        return arena_printf(&s->cluster.arena, STR_FMT "/%s", STR_ARG(s->cluster.run_dir), file);
}

static void set_roles(struct supervisor *s, const char *listen, bool offline)
{
        struct cluster *c = &s->cluster;
        const char *apiserver[] = { cmd_self(),
                                    "apiserver",
                                    "--state",
                                    c->state_dir.p,
                                    "--pki",
                                    c->pki_dir.p,
                                    "--listen",
                                    listen,
                                    "--port-file",
                                    c->port_file.p,
                                    "--unix",
                                    in_run(s, "apiserver.sock").p,
                                    "--node-netns",
                                    c->netns.p,
                                    "--node-listen",
                                    "10.244.0.1:6443",
                                    "--node-socket",
                                    in_run(s, "node.sock").p,
                                    NULL };
        const char *node[] = { cmd_self(),
                               "node",
                               "--name",
                               c->name.p,
                               "--kubeconfig",
                               arena_printf(&c->arena, STR_FMT "/node.kubeconfig", STR_ARG(c->pki_dir)).p,
                               offline ? "--offline" : NULL,
                               NULL };

        s->apiserver = (struct role){
                .name = "apiserver", .sup = s, .ready.fd = -1, .restart = { .fn = on_restart, .arg = &s->apiserver }
        };
        s->node = (struct role){ .name = "node", .sup = s, .ready.fd = -1, .restart = { .fn = on_restart, .arg = &s->node } };
        memcpy(s->apiserver.argv, apiserver, sizeof(apiserver));
        memcpy(s->node.argv, node, sizeof(node));
}

static int run_supervise(struct cmd_args *a)
{
        static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
        struct supervisor s = { .report_fd = -1 };
        long fd = -1;

        if (!cmd_number(a, "report-fd", 3, 1 << 20, &fd) || !cluster_init(&s.cluster, cmd_value(a, "name", "default")))
                return CMD_USAGE;
        s.report_fd = (int)fd;
        if (fd >= 0)
                fcntl(s.report_fd, F_SETFD, FD_CLOEXEC);
        int lock = cluster_lock(&s.cluster);

        if (lock < 0)
                return cmd_error("cluster \"%s\" has a supervisor already", s.cluster.name.p);
        stop_orphan(&s.cluster, "node");
        stop_orphan(&s.cluster, "apiserver");
        s.loop = loop_new();
        s.kill = (struct loop_timer){ .fn = on_kill, .arg = &s };
        set_roles(&s, cmd_value(a, "listen", "127.0.0.1:0"), cmd_flag(a, "offline"));

        struct loop_signal *sig = loop_signal_new(s.loop, signals, ARRAY_LEN(signals), on_signal, &s);

        role_start(&s.apiserver);
        loop_run(s.loop);
        loop_signal_free(sig);
        loop_free(s.loop);
        close(lock);
        cluster_fini(&s.cluster);
        return CMD_OK;
}

static const struct cmd_opt opts[] = {
        { "name", 0, "NAME", "the cluster's name", false },
        { "offline", 0, NULL, "play the Internet", false },
        { "listen", 0, "ADDR:PORT", "where the API server listens", false },
        { "report-fd", 0, "FD", "where to tell what is ready", false },
        { 0 },
};

const struct cmd cmd_supervise = {
        .name = "supervise",
        .summary = "run the processes of a cluster (started by up)",
        .operands = "",
        .description = "Runs the API server and the node of one cluster, and starts them again when they die.",
        .opts = opts,
        .run = run_supervise,
        .hidden = true,
        .max_operands = 0,
};
