/* exec and attach. exec is a `runc exec` of its own for each session: with pipes, or with a pseudo-terminal whose slave is the runtime's
 * controlling terminal, so that a resize of our master reaches the command through it. attach speaks to the container's shim. */
#include "base/mem.h"
#include "kube/streams.h"
#include "node/kubelet.h"

#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COMMAND_WORDS_MAX = 1024, CHUNK_BYTES = 32768, STDIN_HIGH_BYTES = 1 << 18, ATTACH_IN_MAX = SHIM_FRAME_MAX + 5 };

/* Refuses, or sends the 101 and says how to go on. */
static bool upgrade(struct http_stream *s, const struct http_head *m, struct kube_streams_choice *choice)
{
        struct http_head answer;

        http_head_init(&answer, http_stream_arena(s));
        if (!kube_streams_negotiate(m, KUBE_EXEC, &answer, choice)) {
                struct chain body = CHAIN_INIT;
                chain_str(&body, choice->text);
                http_answer_head(s, &answer, answer.status, "text/plain", &body);
                return false;
        }
        http_send_head(s, &answer, false);
        return true;
}

static bool running(struct ctr *c, struct http_stream *s)
{
        if (c->state != CTR_RUNNING)
                kubelet_refuse(s, 400, "container \"%s\" in pod \"%s\" is not running", c->name, c->pod->name);
        return c->state == CTR_RUNNING;
}

static struct kube_exec_opts options(const struct kube_query *q)
{
        struct kube_exec_opts o = { .in = kube_query_bool(q, "stdin"),
                                    .out = kube_query_bool(q, "stdout"),
                                    .err = kube_query_bool(q, "stderr"),
                                    .tty = kube_query_bool(q, "tty") };
        if (o.tty)
                o.err = false;
        return o;
}

/* ---- exec ---- */

struct session {
        struct loop *loop;
        struct kube_exec *e; /* NULL after its on_close */
        struct kube_exec_opts o;
        char *root, *id, *log; /* the runtime's folder, the container, the runtime's log of this session */
        char **command;
        size_t ncommand;
        struct loop_child *child;
        pid_t pid;
        int status;
        bool exited, finished;
        struct loop_watch out[2]; /* stdout and stderr; with a terminal: the master, and none */
        struct loop_watch in;     /* stdin; with a terminal: none (the master) */
        struct chain stdin_data;
        bool stdin_end;
        struct loop_task finish;
};

static void fd_end(struct session *x, struct loop_watch *w)
{
        int fd = w->fd;

        if (fd < 0)
                return;
        loop_unwatch(x->loop, w);
        close(fd);
        w->fd = -1;
}

static void session_free(struct session *x)
{
        if (x->e || x->child)
                return; /* somebody may still call */
        loop_undefer(x->loop, &x->finish);
        fd_end(x, &x->out[0]);
        fd_end(x, &x->out[1]);
        fd_end(x, &x->in);
        chain_fini(&x->stdin_data);
        unlink(x->log);
        for (size_t i = 0; i < x->ncommand; i++)
                free(x->command[i]);
        free(x->command);
        free(x->root);
        free(x->id);
        free(x->log);
        free(x);
}

/* Did the runtime itself fail (the command could not be started)? Then its log says why. */
static bool runtime_failed(struct session *x, struct buf *why)
{
        struct buf b = BUF_INIT;
        bool failed = false;

        if (buf_read_file(&b, x->log, 1 << 16) == 0 && b.n) {
                const char *msg = NULL;
                for (const char *p = buf_z(&b); (p = strstr(p, "\"msg\":\"")); p += 7)
                        msg = p + 7;
                failed = msg && strncmp(msg, "exec failed", 11) == 0;
                for (; failed && *msg && *msg != '"'; msg++) {
                        if (*msg == '\\' && msg[1])
                                msg++;
                        buf_char(why, *msg);
                }
        }
        buf_fini(&b);
        return failed;
}

static void session_finish(struct session *x)
{
        struct buf why = BUF_INIT;

        if (x->finished || !x->e || !x->exited)
                return;
        x->finished = true;
        if (runtime_failed(x, &why))
                kube_exec_fail(x->e, buf_view(&why));
        else
                kube_exec_finish(x->e, WIFEXITED(x->status) ? WEXITSTATUS(x->status) : 128 + WTERMSIG(x->status));
        buf_fini(&why);
}

static void out_read(struct session *x, int which)
{
        struct loop_watch *w = &x->out[which];

        while (w->fd >= 0 && x->e && !kube_exec_blocked(x->e)) {
                struct chain data = CHAIN_INIT;
                struct iovec room = chain_reserve(&data, CHUNK_BYTES / 2);
                ssize_t n = read(w->fd, room.iov_base, room.iov_len);
                if (n > 0) {
                        chain_commit(&data, (size_t)n);
                        kube_exec_write(x->e, which + 1, &data);
                        continue;
                }
                int err = errno;
                chain_fini(&data);
                if (n < 0 && (err == EAGAIN || err == EINTR)) {
                        if (!x->exited)
                                return;
                        fd_end(x, w); /* what it wrote before its end has been read */
                        break;
                }
                fd_end(x, w); /* a terminal says EIO when its last user is gone */
        }
        if (x->exited && x->out[0].fd < 0 && x->out[1].fd < 0)
                session_finish(x);
        else if (w->fd >= 0 && x->e && kube_exec_blocked(x->e))
                loop_watch_change(x->loop, w, LOOP_LEVEL); /* nothing until on_drain */
}

static void on_out(struct loop_watch *w, unsigned ready)
{
        struct session *x = w->arg;

        (void)ready;
        out_read(x, w == &x->out[1]);
}

static void on_drain(struct kube_exec *e, void *arg)
{
        struct session *x = arg;

        (void)e;
        for (int i = 0; i < 2; i++) {
                if (x->out[i].fd < 0)
                        continue;
                loop_watch_change(x->loop, &x->out[i], LOOP_READ | LOOP_LEVEL);
                out_read(x, i);
        }
}

static void on_finish(struct loop_task *t)
{
        struct session *x = t->arg;

        if (!x->e) {
                session_free(x);
                return;
        }
        out_read(x, 0);
        out_read(x, 1);
        if (x->out[0].fd < 0 && x->out[1].fd < 0)
                session_finish(x);
}

static void on_exit_of(void *arg, pid_t pid, int status)
{
        struct session *x = arg;

        (void)pid;
        x->child = NULL;
        x->exited = true;
        x->status = status;
        loop_defer(x->loop, &x->finish);
}

static int in_fd(const struct session *x)
{
        return x->o.tty ? x->out[0].fd : x->in.fd;
}

static void in_write(struct session *x)
{
        while (x->stdin_data.n && in_fd(x) >= 0) {
                struct str piece = chain_front(&x->stdin_data);
                ssize_t n = write(in_fd(x), piece.p, piece.n);
                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        break;
                if (n < 0) { /* it closed its side: nobody will read the rest */
                        chain_drop(&x->stdin_data, x->stdin_data.n);
                        x->stdin_end = true;
                        break;
                }
                chain_drop(&x->stdin_data, (size_t)n);
        }
        if (x->stdin_end && !x->stdin_data.n)
                fd_end(x, &x->in);
        struct loop_watch *w = x->o.tty ? &x->out[0] : &x->in;
        if (w->fd >= 0)
                loop_watch_change(x->loop, w, (x->o.tty ? LOOP_READ : 0u) | (x->stdin_data.n ? LOOP_WRITE : 0u) | LOOP_LEVEL);
        if (x->e && x->stdin_data.n > STDIN_HIGH_BYTES)
                kube_exec_pause_stdin(x->e);
        else if (x->e && x->stdin_data.n < STDIN_HIGH_BYTES / 2)
                kube_exec_resume_stdin(x->e);
}

static void on_in(struct loop_watch *w, unsigned ready)
{
        (void)ready;
        in_write(w->arg);
}

static void on_master(struct loop_watch *w, unsigned ready)
{
        struct session *x = w->arg;

        if (ready & LOOP_WRITE)
                in_write(x);
        out_read(x, 0);
}

static void on_stdin(struct kube_exec *e, void *arg, struct chain *data, bool end)
{
        static const char end_of_transmission = 4;
        struct session *x = arg;

        (void)e;
        chain_move(&x->stdin_data, data);
        if (end && x->o.tty)
                chain_append(&x->stdin_data, &end_of_transmission, 1);
        else if (end)
                x->stdin_end = true;
        in_write(x);
}

static void on_resize(struct kube_exec *e, void *arg, unsigned columns, unsigned rows)
{
        struct session *x = arg;
        struct winsize w = { .ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows };

        (void)e;
        if (x->o.tty && x->out[0].fd >= 0)
                ioctl(x->out[0].fd, TIOCSWINSZ, &w);
}

static int spawn_runtime(struct session *x, const int fds[3], const char *tty)
{
        static char *const env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL };
        const char **argv = mem_calloc(x->ncommand + 16, sizeof(*argv));
        posix_spawn_file_actions_t fa;
        posix_spawnattr_t attr;
        sigset_t none;
        size_t n = 0;

        const char *head[] = { "runc", "--root", x->root, "--log", x->log, "--log-format", "json", "exec" };
        for (; n < ARRAY_LEN(head); n++)
                argv[n] = head[n];
        if (x->o.tty) {
                argv[n++] = "--tty";
                argv[n++] = "--env";
                argv[n++] = "TERM=xterm";
        }
        argv[n++] = x->id;
        memcpy(argv + n, x->command, x->ncommand * sizeof(*argv));
        sigemptyset(&none);
        posix_spawnattr_init(&attr);
        posix_spawnattr_setsigmask(&attr, &none);
        posix_spawnattr_setflags(&attr, (short)(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID));
        posix_spawn_file_actions_init(&fa);
        for (int i = 0; i < 3; i++) {
                if (tty) /* the first terminal that a session's leader opens is its controlling one */
                        posix_spawn_file_actions_addopen(&fa, i, tty, O_RDWR, 0);
                else if (fds[i] >= 0)
                        posix_spawn_file_actions_adddup2(&fa, fds[i], i);
                else
                        posix_spawn_file_actions_addopen(&fa, i, "/dev/null", O_RDWR, 0);
        }
        int err = posix_spawnp(&x->pid, "runc", &fa, &attr, (char *const *)argv, env);
        posix_spawn_file_actions_destroy(&fa);
        posix_spawnattr_destroy(&attr);
        free(argv);
        return err;
}

static int start_tty(struct session *x)
{
        char name[128];
        int master = -1, slave = -1, none[3] = { -1, -1, -1 };

        if (openpty(&master, &slave, NULL, NULL, NULL) < 0)
                return errno;
        fcntl(master, F_SETFD, FD_CLOEXEC);
        fcntl(slave, F_SETFD, FD_CLOEXEC);
        fcntl(master, F_SETFL, O_NONBLOCK);
        int err = ttyname_r(slave, name, sizeof(name));
        if (!err)
                err = spawn_runtime(x, none, name);
        if (err)
                close(master);
        else
                loop_watch(x->loop, &x->out[0], master, LOOP_READ | LOOP_LEVEL, on_master, x);
        close(slave);
        return err;
}

static int start_pipes(struct session *x)
{
        int p[3][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
        bool want[3] = { x->o.in, x->o.out, x->o.err };
        int err = 0;

        for (int i = 0; i < 3 && !err; i++)
                if (want[i] && pipe2(p[i], O_CLOEXEC) < 0)
                        err = errno;
        int theirs[3] = { p[0][0], p[1][1], p[2][1] };
        if (!err)
                err = spawn_runtime(x, theirs, NULL);
        for (int i = 0; i < 3; i++) {
                int ours = i ? p[i][0] : p[i][1];
                if (theirs[i] >= 0)
                        close(theirs[i]);
                if (ours < 0)
                        continue;
                if (err) {
                        close(ours);
                        continue;
                }
                fcntl(ours, F_SETFL, O_NONBLOCK);
                if (i == 0)
                        loop_watch(x->loop, &x->in, ours, LOOP_LEVEL, on_in, x);
                else
                        loop_watch(x->loop, &x->out[i - 1], ours, LOOP_READ | LOOP_LEVEL, on_out, x);
        }
        return err;
}

static void on_ready(struct kube_exec *e, void *arg)
{
        struct session *x = arg;
        int err = x->o.tty ? start_tty(x) : start_pipes(x);

        if (err) {
                struct buf b = BUF_INIT;
                buf_printf(&b, "running the container runtime (runc): %s", strerror(err));
                x->finished = true;
                kube_exec_fail(e, buf_view(&b));
                buf_fini(&b);
                return;
        }
        x->child = loop_child_new(x->loop, x->pid, on_exit_of, x);
}

static void on_close(struct kube_exec *e, void *arg, bool lost)
{
        struct session *x = arg;

        (void)e;
        (void)lost;
        /* Its ends close: a command that writes gets SIGPIPE, one that reads sees the end, one on a terminal gets SIGHUP. One that does
         * none of these goes on, as with other kubelets. */
        x->e = NULL;
        fd_end(x, &x->out[0]);
        fd_end(x, &x->out[1]);
        fd_end(x, &x->in);
        session_free(x);
}

static const struct kube_exec_ops exec_ops = { on_ready, on_stdin, on_resize, on_drain, on_close };

void kubelet_exec(struct ctr *c, struct http_stream *s, struct http_head *m, const struct kube_query *q)
{
        static unsigned serial;
        struct kube_streams_choice choice;
        struct kube_exec_opts o = options(q);
        size_t words = 0;

        for (unsigned i = 0; i < q->n; i++)
                words += str_eqc(q->v[i].key, "command");
        if (!words || words > COMMAND_WORDS_MAX) {
                kubelet_refuse(s, 400, "%s", words ? "the command has too many words" : "you must specify at least 1 command to run");
                return;
        }
        if (!running(c, s) || !upgrade(s, m, &choice))
                return;
        struct session *x = MEM_NEW(struct session);
        *x = (struct session){ .loop = c->pod->node->loop,
                               .o = o,
                               .root = mem_strdup(c->pod->node->runtime_root),
                               .id = mem_strdup(c->id),
                               .in = { .fd = -1 },
                               .out = { { .fd = -1 }, { .fd = -1 } },
                               .finish = { .fn = on_finish, .arg = x } };
        x->log = mem_printf("%s/session-%u.log", c->dir, ++serial);
        x->command = mem_calloc(words, sizeof(*x->command));
        for (unsigned i = 0; i < q->n; i++)
                if (str_eqc(q->v[i].key, "command"))
                        x->command[x->ncommand++] = str_dup(q->v[i].value);
        x->e = kube_exec_new(s, &choice, &o, &exec_ops, x);
}

/* ---- attach ---- */

struct attach {
        struct loop *loop;
        struct kube_exec *e;
        char *dir;
        bool tty;
        struct loop_watch shim;
        struct buf in, out; /* from and to the shim */
};

static void attach_write(struct attach *a)
{
        while (a->out.n && a->shim.fd >= 0) {
                ssize_t n = send(a->shim.fd, a->out.p, a->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n <= 0)
                        break;
                buf_consume(&a->out, (size_t)n);
        }
        if (a->shim.fd >= 0)
                loop_watch_change(a->loop, &a->shim,
                                  (kube_exec_blocked(a->e) ? 0u : LOOP_READ) | (a->out.n ? LOOP_WRITE : 0u) | LOOP_LEVEL);
        if (a->out.n > STDIN_HIGH_BYTES)
                kube_exec_pause_stdin(a->e);
        else
                kube_exec_resume_stdin(a->e);
}

static void attach_end(struct attach *a)
{
        struct shim_status st;
        int fd = a->shim.fd;

        loop_unwatch(a->loop, &a->shim);
        close(fd);
        a->shim.fd = -1;
        shim_status_read(a->dir, &st);
        kube_exec_finish(a->e, st.finished ? st.exit_code : 0);
        shim_status_fini(&st);
}

static void attach_frames(struct attach *a)
{
        while (a->in.n >= 5) {
                const unsigned char *h = (const unsigned char *)a->in.p;
                uint32_t n = h[1] | (uint32_t)h[2] << 8 | (uint32_t)h[3] << 16 | (uint32_t)h[4] << 24;
                struct chain data = CHAIN_INIT;
                if (a->in.n < 5 + (size_t)n)
                        return;
                chain_append(&data, a->in.p + 5, n);
                kube_exec_write(a->e, h[0] == SHIM_STDERR ? 2 : 1, &data);
                buf_consume(&a->in, 5 + (size_t)n);
        }
}

static void on_attach_shim(struct loop_watch *w, unsigned ready)
{
        struct attach *a = w->arg;

        if (!a->e)
                return;
        if (ready & LOOP_WRITE)
                attach_write(a);
        if (!(ready & (LOOP_READ | LOOP_HUP)))
                return;
        buf_reserve(&a->in, CHUNK_BYTES);
        ssize_t n = recv(w->fd, a->in.p + a->in.n, CHUNK_BYTES, MSG_DONTWAIT);
        if (n > 0) {
                a->in.n += (size_t)n;
                attach_frames(a);
                attach_write(a); /* sets what is waited for, too */
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
                attach_end(a);
        }
}

static void on_attach_ready(struct kube_exec *e, void *arg)
{
        struct attach *a = arg;
        int fd = shim_connect(a->dir);

        if (fd < 0) {
                kube_exec_fail(e, STR("the container ended"));
                return;
        }
        loop_watch(a->loop, &a->shim, fd, LOOP_READ | LOOP_LEVEL, on_attach_shim, a);
        shim_frame_put(&a->out, SHIM_ATTACH, STR(""));
        attach_write(a);
}

static void on_attach_stdin(struct kube_exec *e, void *arg, struct chain *data, bool end)
{
        struct attach *a = arg;

        (void)e;
        while (data->n) {
                struct str piece = chain_front(data);
                piece = str_sub(piece, 0, SHIM_FRAME_MAX);
                shim_frame_put(&a->out, SHIM_STDIN, piece);
                chain_drop(data, piece.n);
        }
        if (end)
                shim_frame_put(&a->out, SHIM_STDIN, STR(""));
        attach_write(a);
}

static void on_attach_resize(struct kube_exec *e, void *arg, unsigned columns, unsigned rows)
{
        struct attach *a = arg;
        char size[4] = { (char)columns, (char)(columns >> 8), (char)rows, (char)(rows >> 8) };

        (void)e;
        shim_frame_put(&a->out, SHIM_RESIZE, str_make(size, 4));
        attach_write(a);
}

static void on_attach_drain(struct kube_exec *e, void *arg)
{
        (void)e;
        attach_write(arg);
}

static void on_attach_close(struct kube_exec *e, void *arg, bool lost)
{
        struct attach *a = arg;
        int fd = a->shim.fd;

        (void)e;
        (void)lost;
        if (fd >= 0) {
                loop_unwatch(a->loop, &a->shim);
                close(fd);
        }
        buf_fini(&a->in);
        buf_fini(&a->out);
        free(a->dir);
        free(a);
}

static const struct kube_exec_ops attach_ops = { on_attach_ready, on_attach_stdin, on_attach_resize, on_attach_drain, on_attach_close };

void kubelet_attach(struct ctr *c, struct http_stream *s, struct http_head *m, const struct kube_query *q)
{
        struct kube_streams_choice choice;
        struct kube_exec_opts o = options(q);

        if (!running(c, s) || !upgrade(s, m, &choice))
                return;
        struct attach *a = MEM_NEW(struct attach);
        *a = (struct attach){ .loop = c->pod->node->loop, .dir = mem_strdup(c->dir), .tty = o.tty, .shim = { .fd = -1 } };
        a->e = kube_exec_new(s, &choice, &o, &attach_ops, a);
}
