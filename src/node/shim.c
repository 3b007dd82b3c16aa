/* One thread, poll(2), no allocation in the long run, because there is one of these a container. The order of things that must not go
 * wrong: the lock is taken before anything else, so "no lock" always means "no shim"; the container is created (by the runtime, whose child
 * becomes ours, because we are the subreaper) with our pipes; its end is on disk before the shim lets go of the lock.
 *
 * An attached client that does not read is dropped: neither the log nor the container waits for it. */
#include "node/shim.h"
#include "base/clock.h"
#include "base/mem.h"
#include "node/ctrlog.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { SHIM_CLIENTS = 8, SHIM_DRAIN_MS = 1000, SHIM_STDIN_MAX = 1 << 20 };

struct shim_client {
        int fd; /* -1: free */
        bool attached;
        struct buf in;
};

struct shim {
        const struct shim_opts *o;
        int lock_fd, listen_fd, signal_fd;
        int out[2];    /* what we read: stdout, stderr; with a terminal, its master and -1 */
        int in_fd;     /* what we write: stdin or the master; -1 */
        struct buf in; /* for in_fd */
        bool in_end;
        struct ctrlog log;
        struct shim_client client[SHIM_CLIENTS];
        pid_t pid;
        bool reaped;
        int wait_status;
        struct buf status;
        char cgroup_events[256]; /* file that counts this container's out-of-memory kills */
};

/* ---- files of the folder ---- */

static char *in_dir(const char *dir, const char *name)
{
        return mem_printf("%s/%s", dir, name);
}

static void status_write(struct shim *s)
{
        char *path = in_dir(s->o->dir, "status"), *made = in_dir(s->o->dir, "status.new");
        int fd = open(made, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

        if (fd >= 0) {
                if (write(fd, s->status.p, s->status.n) == (ssize_t)s->status.n)
                        rename(made, path);
                close(fd);
        }
        free(path);
        free(made);
}

void shim_status_read(const char *dir, struct shim_status *st)
{
        char *path = in_dir(dir, "status");
        struct buf b = BUF_INIT;
        struct str text, line, key;
        int64_t v;

        *st = (struct shim_status){ .known = buf_read_file(&b, path, 1 << 16) == 0 };
        for (text = buf_view(&b); text.n && str_next(&text, '\n', &line);) {
                if (!str_next(&line, ' ', &key))
                        continue;
                if (str_eqc(key, "error")) {
                        free(st->error);
                        st->error = str_dup(line);
                        continue;
                }
                if (!str_i64(line, &v))
                        continue;
                if (str_eqc(key, "pid"))
                        st->pid = (int)v;
                else if (str_eqc(key, "started_us"))
                        st->started_us = (uint64_t)v;
                else if (str_eqc(key, "exit_code"))
                        st->exit_code = (int)v;
                else if (str_eqc(key, "signal"))
                        st->signal = (int)v;
                else if (str_eqc(key, "oom"))
                        st->oom = v != 0;
                else if (str_eqc(key, "finished_us")) {
                        st->finished_us = (uint64_t)v;
                        st->finished = true;
                }
        }
        buf_fini(&b);
        free(path);
}

void shim_status_fini(struct shim_status *st)
{
        free(st->error);
        st->error = NULL;
}

bool shim_alive(const char *dir)
{
        char *path = in_dir(dir, "lock");
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        free(path);
        if (fd < 0)
                return false;
        bool alive = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
        close(fd);
        return alive;
}

/* A socket's path may be longer than sun_path holds; the folder's descriptor makes it short. */
static int sock_address(const char *dir, struct sockaddr_un *un, int *dir_fd)
{
        *dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (*dir_fd < 0)
                return -errno;
        *un = (struct sockaddr_un){ .sun_family = AF_UNIX };
        snprintf(un->sun_path, sizeof(un->sun_path), "/proc/self/fd/%d/sock", *dir_fd);
        return 0;
}

int shim_connect(const char *dir)
{
        struct sockaddr_un un;
        int dir_fd, err = sock_address(dir, &un, &dir_fd);

        if (err)
                return err;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
                err = -errno;
                if (fd >= 0)
                        close(fd);
        }
        close(dir_fd);
        return err ? err : fd;
}

void shim_frame_put(struct buf *b, enum shim_frame type, struct str payload)
{
        uint32_t n = (uint32_t)payload.n;
        char head[5] = { (char)type, (char)n, (char)(n >> 8), (char)(n >> 16), (char)(n >> 24) };

        buf_append(b, head, sizeof(head));
        buf_str(b, payload);
}

int shim_kill(const char *dir, int signo)
{
        int fd = shim_connect(dir);
        struct buf b = BUF_INIT;
        char one = (char)signo;

        if (fd < 0)
                return fd;
        shim_frame_put(&b, SHIM_KILL, str_make(&one, 1));
        int err = send(fd, b.p, b.n, MSG_NOSIGNAL) == (ssize_t)b.n ? 0 : -EIO;
        buf_fini(&b);
        close(fd);
        return err;
}

/* ---- the runtime ---- */

/* runc with `args` behind the common ones; standard streams as given (-1: /dev/null). Its exit status; the container's end may be seen
 * on the way and is kept. */
static int runtime(struct shim *s, const char *const *args, int in, int out, int err)
{
        char *log = in_dir(s->o->dir, "runtime.log");
        const char *argv[24] = { "runc", "--root", s->o->runtime_root, "--log", log, "--log-format", "json" };
        unsigned n = 7;
        posix_spawn_file_actions_t fa;
        posix_spawnattr_t attr;
        sigset_t none;
        pid_t pid;
        int status = -1;

        while (*args)
                argv[n++] = *args++;
        argv[n] = NULL;
        sigemptyset(&none);
        posix_spawnattr_init(&attr);
        posix_spawnattr_setsigmask(&attr, &none);
        posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
        posix_spawn_file_actions_init(&fa);
        int fds[] = { in, out, err };
        for (int i = 0; i < 3; i++) {
                if (fds[i] >= 0)
                        posix_spawn_file_actions_adddup2(&fa, fds[i], i);
                else
                        posix_spawn_file_actions_addopen(&fa, i, "/dev/null", O_RDWR, 0);
        }
        if (posix_spawnp(&pid, "runc", &fa, &attr, (char *const *)argv, environ) != 0)
                goto out;
        for (;;) {
                int st;
                pid_t who = waitpid(-1, &st, 0);
                if (who < 0 && errno == EINTR)
                        continue;
                if (who < 0)
                        break;
                if (who == pid) {
                        status = WIFEXITED(st) ? WEXITSTATUS(st) : -1;
                        break;
                }
                if (s->pid && who == s->pid) {
                        s->reaped = true;
                        s->wait_status = st;
                }
        }
out:
        posix_spawn_file_actions_destroy(&fa);
        posix_spawnattr_destroy(&attr);
        free(log);
        return status;
}

/* The runtime's last error, from its log: the "msg" of the last line, unescaped, without the runtime's own preamble. */
static void runtime_error(struct shim *s, struct buf *out)
{
        char *path = in_dir(s->o->dir, "runtime.log");
        struct buf b = BUF_INIT;

        buf_read_file(&b, path, 1 << 20);
        const char *text = buf_z(&b), *msg = NULL;
        for (const char *p = text; (p = strstr(p, "\"msg\":\"")); p += 7)
                msg = p + 7;
        if (!msg)
                buf_cstr(out, "the container runtime (runc) could not be run");
        for (; msg && *msg && *msg != '"'; msg++) {
                if (*msg == '\\' && msg[1])
                        msg++;
                buf_char(out, *msg == '\n' ? ' ' : *msg);
        }
        buf_fini(&b);
        free(path);
}

/* With a terminal the runtime sends us its master end through a socket. */
static int console_listen(struct shim *s, char **path)
{
        struct sockaddr_un un = { .sun_family = AF_UNIX };

        *path = mem_printf("/tmp/.postern-console-%d", getpid());
        snprintf(un.sun_path, sizeof(un.sun_path), "%s", *path);
        unlink(*path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && (bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || chmod(*path, 0600) < 0 || listen(fd, 1) < 0)) {
                close(fd);
                fd = -1;
        }
        return fd;
}

static int console_receive(int lfd)
{
        char data[64], control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
        struct iovec iov = { data, sizeof(data) };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
        struct pollfd wait = { lfd, POLLIN, 0 };
        int master = -1;

        if (poll(&wait, 1, 1000) != 1)
                return -1;
        int fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
                return -1;
        if (recvmsg(fd, &m, MSG_CMSG_CLOEXEC) > 0) {
                struct cmsghdr *c = CMSG_FIRSTHDR(&m);
                if (c && c->cmsg_type == SCM_RIGHTS)
                        memcpy(&master, CMSG_DATA(c), sizeof(master));
        }
        close(fd);
        return master;
}

static bool container_create(struct shim *s)
{
        char *pid_file = in_dir(s->o->dir, "pid"), *console = NULL;
        int out[2] = { -1, -1 }, err[2] = { -1, -1 }, in[2] = { -1, -1 }, lfd = -1;
        const char *args[12] = { "create", "--bundle", s->o->bundle, "--pid-file", pid_file };
        unsigned n = 5;
        bool ok = false;

        if (s->o->tty) {
                lfd = console_listen(s, &console);
                args[n++] = "--console-socket";
                args[n++] = console;
        } else if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0 || (s->o->open_stdin && pipe2(in, O_CLOEXEC) < 0)) {
                goto out;
        }
        args[n++] = s->o->id;
        args[n] = NULL;
        if (runtime(s, args, in[0], out[1], err[1]) != 0)
                goto out;
        if (s->o->tty) {
                s->out[0] = console_receive(lfd);
                s->in_fd = s->o->open_stdin ? s->out[0] : -1;
        } else {
                s->out[0] = out[0];
                s->out[1] = err[0];
                s->in_fd = in[1];
                out[0] = err[0] = in[1] = -1;
        }
        struct buf b = BUF_INIT;
        uint64_t pid;
        if (buf_read_file(&b, pid_file, 32) == 0 && str_u64(str_trim(buf_view(&b)), &pid)) {
                s->pid = (pid_t)pid;
                ok = s->out[0] >= 0;
        }
        buf_fini(&b);
out:
        for (int i = 0; i < 2; i++) {
                close(out[i]);
                close(err[i]);
                close(in[i]);
        }
        if (lfd >= 0)
                close(lfd);
        if (console)
                unlink(console);
        free(console);
        free(pid_file);
        return ok;
}

static void container_delete(struct shim *s)
{
        const char *args[] = { "delete", "--force", s->o->id, NULL };

        runtime(s, args, -1, -1, -1);
}

/* ---- out of memory ---- */

static void cgroup_find(struct shim *s)
{
        static const char *const places[] = { "/sys/fs/cgroup%s/memory.events", "/sys/fs/cgroup/memory%s/memory.oom_control" };

        for (unsigned i = 0; s->o->cgroup && i < ARRAY_LEN(places); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
                snprintf(s->cgroup_events, sizeof(s->cgroup_events), places[i], s->o->cgroup);
#pragma GCC diagnostic pop
                if (access(s->cgroup_events, R_OK) == 0)
                        return;
        }
        s->cgroup_events[0] = 0;
}

static bool cgroup_oom(const struct shim *s)
{
        struct buf b = BUF_INIT;
        struct str text, line, key;
        uint64_t n = 0;

        if (s->cgroup_events[0])
                buf_read_file(&b, s->cgroup_events, 4096);
        for (text = buf_view(&b); text.n && str_next(&text, '\n', &line);)
                if (str_next(&line, ' ', &key) && str_eqc(key, "oom_kill") && str_u64(line, &n))
                        break;
        buf_fini(&b);
        return n > 0;
}

/* ---- clients ---- */

static void client_drop(struct shim_client *c)
{
        close(c->fd);
        c->fd = -1;
        c->attached = false;
        buf_fini(&c->in);
}

static void client_frame(struct shim *s, struct shim_client *c, unsigned type, struct str p)
{
        const unsigned char *b = (const unsigned char *)p.p;

        switch (type) {
        case SHIM_STDIN:
                if (!p.n)
                        s->in_end = s->o->stdin_once;
                else if (s->in_fd >= 0 && s->in.n + p.n <= SHIM_STDIN_MAX)
                        buf_str(&s->in, p);
                break;
        case SHIM_RESIZE:
                if (p.n == 4 && s->o->tty && s->out[0] >= 0) {
                        struct winsize w = { .ws_col = (unsigned short)(b[0] | b[1] << 8), .ws_row = (unsigned short)(b[2] | b[3] << 8) };
                        ioctl(s->out[0], TIOCSWINSZ, &w);
                }
                break;
        case SHIM_KILL:
                if (p.n == 1 && s->pid && !s->reaped)
                        kill(s->pid, b[0]);
                break;
        case SHIM_ATTACH:
                c->attached = true;
                break;
        default:
                break;
        }
}

static void client_read(struct shim *s, struct shim_client *c)
{
        char bytes[16384];
        ssize_t n = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0) {
                client_drop(c);
                return;
        }
        buf_append(&c->in, bytes, (size_t)n);
        while (c->in.n >= 5) {
                const unsigned char *h = (const unsigned char *)c->in.p;
                uint32_t len = h[1] | (uint32_t)h[2] << 8 | (uint32_t)h[3] << 16 | (uint32_t)h[4] << 24;
                if (len > SHIM_FRAME_MAX) {
                        client_drop(c);
                        return;
                }
                if (c->in.n < 5 + len)
                        return;
                client_frame(s, c, h[0], str_make(c->in.p + 5, len));
                buf_consume(&c->in, 5 + len);
        }
}

static void clients_accept(struct shim *s)
{
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
                return;
        for (int i = 0; i < SHIM_CLIENTS; i++)
                if (s->client[i].fd < 0) {
                        s->client[i].fd = fd;
                        return;
                }
        close(fd);
}

static void clients_send(struct shim *s, enum shim_frame type, struct str bytes)
{
        struct buf b = BUF_INIT;

        for (int i = 0; i < SHIM_CLIENTS; i++) {
                struct shim_client *c = &s->client[i];
                if (c->fd < 0 || !c->attached)
                        continue;
                if (!b.n)
                        shim_frame_put(&b, type, bytes);
                if (send(c->fd, b.p, b.n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)b.n)
                        client_drop(c);
        }
        buf_fini(&b);
}

/* ---- the loop ---- */

static void output_read(struct shim *s, int which)
{
        char bytes[32768];
        ssize_t n = read(s->out[which], bytes, sizeof(bytes));

        if (n < 0 && errno == EINTR)
                return;
        if (n <= 0) { /* a terminal says EIO when its last user is gone */
                if (s->in_fd == s->out[which])
                        s->in_fd = -1;
                close(s->out[which]);
                s->out[which] = -1;
                return;
        }
        ctrlog_write(&s->log, which ? CTRLOG_STDERR : CTRLOG_STDOUT, str_make(bytes, (size_t)n));
        clients_send(s, which ? SHIM_STDERR : SHIM_STDOUT, str_make(bytes, (size_t)n));
}

static void input_write(struct shim *s)
{
        ssize_t n = s->in.n ? write(s->in_fd, s->in.p, s->in.n) : 0;

        if (n > 0)
                buf_consume(&s->in, (size_t)n);
        if ((n < 0 && errno != EAGAIN && errno != EINTR) || (s->in_end && !s->in.n && !s->o->tty)) {
                close(s->in_fd);
                s->in_fd = -1;
        }
}

static void children_reap(struct shim *s)
{
        struct signalfd_siginfo info;
        int st;

        while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info))
                ;
        for (pid_t who; (who = waitpid(-1, &st, WNOHANG)) > 0;)
                if (who == s->pid) {
                        s->reaped = true;
                        s->wait_status = st;
                }
}

static void serve(struct shim *s)
{
        /* A short container may have ended while the runtime was still starting it. */
        uint64_t give_up_ms = s->reaped ? clock_mono_ms() + SHIM_DRAIN_MS : 0;

        while (!s->reaped || ((s->out[0] >= 0 || s->out[1] >= 0) && clock_mono_ms() < give_up_ms)) {
                struct pollfd p[5 + SHIM_CLIENTS] = {
                        { s->signal_fd, POLLIN, 0 },
                        { s->listen_fd, POLLIN, 0 },
                        { s->out[0], POLLIN, 0 },
                        { s->out[1], POLLIN, 0 },
                        { s->in.n || s->in_end ? s->in_fd : -1, POLLOUT, 0 },
                };
                for (int i = 0; i < SHIM_CLIENTS; i++)
                        p[5 + i] = (struct pollfd){ s->client[i].fd, POLLIN, 0 };
                if (poll(p, ARRAY_LEN(p), s->reaped ? 100 : -1) < 0 && errno != EINTR)
                        break;
                for (int i = 0; i < 2; i++)
                        if (p[2 + i].revents && s->out[i] >= 0)
                                output_read(s, i);
                if (p[4].revents && s->in_fd >= 0)
                        input_write(s);
                for (int i = 0; i < SHIM_CLIENTS; i++)
                        if (p[5 + i].revents && s->client[i].fd >= 0)
                                client_read(s, &s->client[i]);
                if (p[1].revents)
                        clients_accept(s);
                if (p[0].revents)
                        children_reap(s);
                if (s->reaped && !give_up_ms)
                        give_up_ms = clock_mono_ms() + SHIM_DRAIN_MS;
        }
}

static void finish(struct shim *s)
{
        int signo = WIFSIGNALED(s->wait_status) ? WTERMSIG(s->wait_status) : 0;
        int code = signo ? 128 + signo : WEXITSTATUS(s->wait_status);

        ctrlog_close(&s->log);
        buf_printf(&s->status, "exit_code %d\nsignal %d\noom %d\nfinished_us %llu\n", code, signo, cgroup_oom(s),
                   (unsigned long long)clock_real_us());
        container_delete(s);
        status_write(s);
}

static bool setup(struct shim *s)
{
        struct sockaddr_un un;
        sigset_t mask;
        char *path = in_dir(s->o->dir, "lock");
        int dir_fd;

        s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        free(path);
        if (s->lock_fd < 0 || flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
                return false;
        sigemptyset(&mask);
        sigaddset(&mask, SIGCHLD);
        sigprocmask(SIG_BLOCK, &mask, NULL);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        s->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        if (s->signal_fd < 0 || sock_address(s->o->dir, &un, &dir_fd) < 0)
                return false;
        s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        bool ok = s->listen_fd >= 0 && bind(s->listen_fd, (struct sockaddr *)&un, sizeof(un)) == 0 && listen(s->listen_fd, 8) == 0;
        close(dir_fd);
        return ok && ctrlog_open(&s->log, s->o->log, 0) == 0;
}

/* Everything up to a running container. False: `status` says why. */
static bool start(struct shim *s)
{
        const char *args[] = { "start", s->o->id, NULL };
        struct buf why = BUF_INIT;
        bool ok = false;

        if (!setup(s)) {
                buf_printf(&why, "setting up %s: %s", s->o->dir, strerror(errno));
                goto out;
        }
        if (!container_create(s) || runtime(s, args, -1, -1, -1) != 0) {
                runtime_error(s, &why);
                container_delete(s);
                goto out;
        }
        if (s->in_fd >= 0 && !s->o->tty)
                fcntl(s->in_fd, F_SETFL, O_NONBLOCK);
        cgroup_find(s);
        buf_printf(&s->status, "pid %d\nstarted_us %llu\n", s->pid, (unsigned long long)clock_real_us());
        ok = true;
out:
        if (!ok) {
                buf_cstr(&s->status, "error ");
                buf_str(&s->status, buf_view(&why));
                buf_char(&s->status, '\n');
        }
        status_write(s);
        buf_fini(&why);
        return ok;
}

int shim_run(const struct shim_opts *o)
{
        struct shim s = { .o = o, .lock_fd = -1, .listen_fd = -1, .signal_fd = -1, .out = { -1, -1 }, .in_fd = -1 };
        int ready[2];
        char answer = 1;

        for (int i = 0; i < SHIM_CLIENTS; i++)
                s.client[i].fd = -1;
        if (pipe2(ready, O_CLOEXEC) < 0)
                return 1;
        pid_t child = fork();
        if (child < 0)
                return 1;
        if (child > 0) {
                close(ready[1]);
                if (read(ready[0], &answer, 1) != 1)
                        answer = 1;
                return answer;
        }
        close(ready[0]);
        setsid();
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        for (int fd = 0; fd < 3; fd++)
                dup2(null, fd);
        bool ok = start(&s);
        answer = ok ? 0 : 1;
        ssize_t told = write(ready[1], &answer, 1);
        close(ready[1]);
        if (ok) {
                serve(&s);
                finish(&s);
        }
        return told == 1 && ok ? 0 : 1;
}
