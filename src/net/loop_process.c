/* Signals and children as loop events: signalfd(2) and pidfd_open(2), so that nothing runs in a signal handler and no SIGCHLD has to be
 * shared between users. */
#include "base/mem.h"
#include "net/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct loop_signal {
        struct loop *loop;
        struct loop_watch watch;
        struct loop_task gone;
        bool freed;
        void (*fn)(void *arg, int signo);
        void *arg;
};

static void on_signal(struct loop_watch *w, unsigned ready)
{
        struct loop_signal *s = w->arg;
        struct signalfd_siginfo si;

        while (!s->freed && read(w->fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
                s->fn(s->arg, (int)si.ssi_signo);
}

struct loop_signal *loop_signal_new(struct loop *l, const int *signals, unsigned n, void (*fn)(void *arg, int signo), void *arg)
{
        sigset_t set;

        sigemptyset(&set);
        for (unsigned i = 0; i < n; i++)
                sigaddset(&set, signals[i]);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
        if (fd < 0)
                return NULL;
        struct loop_signal *s = MEM_NEW(struct loop_signal);
        s->loop = l;
        s->fn = fn;
        s->arg = arg;
        int r = loop_watch(l, &s->watch, fd, LOOP_READ | LOOP_LEVEL, on_signal, s);
        if (r < 0) {
                close(fd);
                free(s);
                errno = -r;
                return NULL;
        }
        return s;
}

static void signal_gone(struct loop_task *t)
{
        free(t->arg);
}

void loop_signal_free(struct loop_signal *s)
{
        if (!s || s->freed)
                return;
        int fd = s->watch.fd;
        s->freed = true; /* perhaps from inside fn: the memory goes at the end of the turn */
        loop_unwatch(s->loop, &s->watch);
        close(fd);
        s->gone = (struct loop_task){ .fn = signal_gone, .arg = s };
        loop_defer(s->loop, &s->gone);
}

struct loop_child {
        struct loop *loop;
        struct loop_watch watch;
        pid_t pid;
        void (*fn)(void *arg, pid_t pid, int status);
        void *arg;
};

static void child_free(struct loop_child *c)
{
        int fd = c->watch.fd;

        loop_unwatch(c->loop, &c->watch);
        close(fd);
        free(c);
}

static void on_child(struct loop_watch *w, unsigned ready)
{
        struct loop_child *c = w->arg;
        void (*fn)(void *, pid_t, int) = c->fn;
        void *arg = c->arg;
        pid_t pid = c->pid;
        int status = 0;
        pid_t r;

        do
                r = waitpid(pid, &status, WNOHANG);
        while (r < 0 && errno == EINTR);
        if (r == 0)
                return;
        child_free(c);
        fn(arg, pid, status);
}

struct loop_child *loop_child_new(struct loop *l, pid_t pid, void (*fn)(void *arg, pid_t pid, int status), void *arg)
{
        int fd = (int)syscall(SYS_pidfd_open, pid, 0); /* close-on-exec by itself */

        if (fd < 0)
                return NULL;
        struct loop_child *c = MEM_NEW(struct loop_child);
        *c = (struct loop_child){ .loop = l, .pid = pid, .fn = fn, .arg = arg };
        int r = loop_watch(l, &c->watch, fd, LOOP_READ | LOOP_LEVEL, on_child, c);
        if (r < 0) {
                close(fd);
                free(c);
                errno = -r;
                return NULL;
        }
        return c;
}

void loop_child_forget(struct loop_child *c)
{
        if (c)
                child_free(c);
}
