/* Short processes inside a running container, by `runc exec`: probes and hooks. Its two outputs are one pipe, of which the first 10 KiB are
 * kept and the rest is read and dropped, so that a talkative command does not hang. */
#include "base/mem.h"
#include "node/pod.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXEC_OUTPUT_MAX = 10240 };

struct exec_job {
        struct loop *loop;
        struct loop_child *child;
        struct loop_watch out;
        struct loop_timer timeout;
        struct loop_task done;
        struct buf output;
        char *pid_file;
        pid_t pid;
        int code;
        bool timed_out;
        void (*fn)(void *arg, int code, struct str output);
        void *arg;
};

static void exec_free(struct exec_job *j)
{
        loop_timer_stop(j->loop, &j->timeout);
        loop_undefer(j->loop, &j->done);
        if (j->out.fd >= 0) {
                int fd = j->out.fd;
                loop_unwatch(j->loop, &j->out);
                close(fd);
        }
        unlink(j->pid_file);
        free(j->pid_file);
        buf_fini(&j->output);
        free(j);
}

static void exec_read(struct exec_job *j)
{
        char bytes[4096];
        ssize_t n;

        while ((n = read(j->out.fd, bytes, sizeof(bytes))) > 0) {
                size_t room = EXEC_OUTPUT_MAX - j->output.n;
                buf_append(&j->output, bytes, (size_t)n < room ? (size_t)n : room);
        }
        if (n == 0 || errno != EAGAIN) {
                int fd = j->out.fd;
                loop_unwatch(j->loop, &j->out);
                close(fd);
                j->out.fd = -1;
        }
}

static void on_exec_output(struct loop_watch *w, unsigned ready)
{
        (void)ready;
        exec_read(w->arg);
}

static void on_exec_done(struct loop_task *t)
{
        struct exec_job *j = t->arg;

        if (j->fn)
                j->fn(j->arg, j->timed_out ? -2 : j->code, buf_view(&j->output));
        exec_free(j);
}

static void on_exec_exit(void *arg, pid_t pid, int status)
{
        struct exec_job *j = arg;

        (void)pid;
        j->child = NULL;
        if (j->out.fd >= 0)
                exec_read(j);
        j->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (j->code == 255 && str_find(buf_view(&j->output), STR("exec failed")) >= 0)
                j->code = -1;
        loop_defer(j->loop, &j->done);
}

static void exec_kill(struct exec_job *j)
{
        struct buf b = BUF_INIT;
        uint64_t pid;

        /* The process is the runtime's child and not reaped while the runtime lives, so the number is still its own. */
        if (buf_read_file(&b, j->pid_file, 32) == 0 && str_u64(str_trim(buf_view(&b)), &pid) && pid > 1)
                kill((pid_t)pid, SIGKILL);
        else
                kill(j->pid, SIGKILL);
        buf_fini(&b);
}

static void on_exec_timeout(struct loop_timer *t)
{
        struct exec_job *j = t->arg;

        j->timed_out = true;
        if (j->child)
                exec_kill(j);
}

struct exec_job *exec_start(struct ctr *c, const char *const *args, size_t n, uint64_t timeout_ms,
                            void (*fn)(void *arg, int code, struct str output), void *arg)
{
        static unsigned serial;
        struct node *node = c->pod->node;
        struct exec_job *j = MEM_NEW(struct exec_job);
        const char **argv = mem_calloc(n + 8, sizeof(*argv));
        posix_spawn_file_actions_t fa;
        posix_spawnattr_t attr;
        sigset_t none;
        int pipe_fds[2];
        size_t k = 0;

        *j = (struct exec_job){ .loop = node->loop, .out = { .fd = -1 }, .fn = fn, .arg = arg };
        j->timeout = (struct loop_timer){ .fn = on_exec_timeout, .arg = j };
        j->done = (struct loop_task){ .fn = on_exec_done, .arg = j };
        j->pid_file = mem_printf("%s/exec-%u.pid", c->dir, ++serial);
        const char *head[] = { "runc", "--root", node->runtime_root, "exec", "--pid-file", j->pid_file, c->id };
        for (; k < ARRAY_LEN(head); k++)
                argv[k] = head[k];
        memcpy(argv + k, args, n * sizeof(*args));
        int err = pipe2(pipe_fds, O_CLOEXEC) < 0 ? errno : 0;
        if (!err) {
                sigemptyset(&none);
                posix_spawnattr_init(&attr);
                posix_spawnattr_setsigmask(&attr, &none);
                posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
                posix_spawn_file_actions_init(&fa);
                posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
                posix_spawn_file_actions_adddup2(&fa, pipe_fds[1], 1);
                posix_spawn_file_actions_adddup2(&fa, pipe_fds[1], 2);
                err = posix_spawnp(&j->pid, "runc", &fa, &attr, (char *const *)argv, environ);
                posix_spawn_file_actions_destroy(&fa);
                posix_spawnattr_destroy(&attr);
                close(pipe_fds[1]);
                fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK); /* ours only: the command's end is a plain pipe */
                loop_watch(j->loop, &j->out, pipe_fds[0], LOOP_READ | LOOP_LEVEL, on_exec_output, j);
        }
        free(argv);
        if (err) {
                buf_printf(&j->output, "runc: %s", strerror(err));
                j->code = -1;
                loop_defer(j->loop, &j->done);
                return j;
        }
        j->child = loop_child_new(j->loop, j->pid, on_exec_exit, j);
        if (timeout_ms)
                loop_timer_arm(j->loop, &j->timeout, timeout_ms);
        return j;
}

void exec_cancel(struct exec_job *j)
{
        j->fn = NULL; /* it frees itself when the runtime ended */
        if (j->child)
                exec_kill(j);
}
