/* Reading a container's log: the rotated files oldest first, then the current one, and with `follow` what is appended, until the container
 * ends. A client that does not read holds up its own stream only: nothing is read from disk while its send buffer is full. */
#include "base/clock.h"
#include "base/mem.h"
#include "node/ctrlog.h"
#include "node/kubelet.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 65536, FOLLOW_CHECK_MS = 250, TURN_BYTES = 1 << 20, ROTATED_FILES = 2 };

struct logs {
        struct http_stream *s;
        struct node *node;
        struct loop *loop;
        char *uid, *name; /* of pod and container: they may go while we read */
        unsigned attempt;
        char *path;   /* of the current file */
        int file;     /* 2, 1: rotated ones; 0: the current one; -1: not open yet */
        bool drained; /* the open file was renamed, and is read once more to its end */
        int fd;
        struct buf in;
        bool follow, timestamps, ended, at_line_start, want[2];
        uint64_t since_us, limit_bytes, skip_bytes;
        struct loop_watch inotify;
        struct loop_timer timer;
        struct loop_task pump_task;
};

static void logs_pump(struct logs *l);

/* ---- where to begin ---- */

static char *file_path(const struct logs *l, int file)
{
        return file ? mem_printf("%s.%d", l->path, file) : mem_strdup(l->path);
}

/* Is the record that ends before `line_end` one that ends a line (F)? Only its tag is looked at. */
static bool ends_line(const char *record, size_t n)
{
        struct ctrlog_record r;

        return !ctrlog_parse(str_make(record, n), &r) || !r.partial;
}

/* Goes back from the end of the file until `*want` lines are behind. True: *offset is where the first of them begins. */
static bool back(int fd, uint64_t *want, uint64_t *offset, bool newest)
{
        struct stat st;
        uint64_t at, line_end;
        struct buf b = BUF_INIT; /* the bytes from `at` to `line_end` */
        bool first = newest;

        if (fstat(fd, &st) < 0)
                return false;
        at = line_end = (uint64_t)st.st_size;
        for (;;) {
                char *nl = b.n > 1 ? memrchr(b.p, '\n', b.n - 1) : NULL;
                if (!nl && at) {
                        char block[READ_BYTES];
                        size_t n = at < sizeof(block) ? (size_t)at : sizeof(block);
                        struct buf joined = BUF_INIT;
                        if (pread(fd, block, n, (off_t)(at - n)) != (ssize_t)n || b.n > READ_BYTES * 4)
                                break;
                        buf_append(&joined, block, n);
                        buf_append(&joined, b.p, b.n);
                        buf_fini(&b);
                        b = joined;
                        at -= n;
                        continue;
                }
                size_t from = nl ? (size_t)(nl + 1 - b.p) : 0;
                if (b.n > from && (first || ends_line(b.p + from, b.n - from - (b.p[b.n - 1] == '\n')))) {
                        if (!*want) {
                                *offset = line_end;
                                buf_fini(&b);
                                return true;
                        }
                        --*want;
                }
                first = false;
                if (!nl)
                        break; /* the start of the file */
                b.n = from;
                line_end = at + from;
        }
        buf_fini(&b);
        return false;
}

/* Chooses file and offset for the last `lines` lines. */
static void logs_tail(struct logs *l, uint64_t lines)
{
        for (int file = 0; file < CTRLOG_FILES; file++) {
                char *path = file_path(l, file);
                int fd = open(path, O_RDONLY | O_CLOEXEC);
                uint64_t offset = 0;
                bool found;
                free(path);
                if (fd < 0)
                        return;
                l->file = file;
                found = back(fd, &lines, &offset, file == 0);
                close(fd);
                l->skip_bytes = found ? offset : 0;
                if (found)
                        return;
        }
}

/* ---- writing ---- */

static void logs_free(struct logs *l)
{
        loop_timer_stop(l->loop, &l->timer);
        loop_undefer(l->loop, &l->pump_task);
        if (l->inotify.fd >= 0) {
                int fd = l->inotify.fd;
                loop_unwatch(l->loop, &l->inotify);
                close(fd);
        }
        if (l->fd >= 0)
                close(l->fd);
        buf_fini(&l->in);
        free(l->uid);
        free(l->name);
        free(l->path);
        free(l);
}

/* Appends one record as the client wants it. False: the limit is reached. */
static bool put_record(struct logs *l, const struct ctrlog_record *r, struct chain *out)
{
        size_t before = out->n;

        if (!l->want[r->stream] || r->time_us < l->since_us)
                return true;
        if (l->timestamps && l->at_line_start) {
                chain_str(out, r->time);
                chain_append(out, " ", 1);
        }
        chain_str(out, r->text);
        if (!r->partial)
                chain_append(out, "\n", 1);
        l->at_line_start = !r->partial;
        size_t added = out->n - before;
        if (!l->limit_bytes)
                return true;
        if (added >= l->limit_bytes) {
                struct chain keep = CHAIN_INIT;
                chain_move_n(&keep, out, before + l->limit_bytes);
                chain_drop(out, out->n);
                chain_move(out, &keep);
                return false;
        }
        l->limit_bytes -= added;
        return true;
}

static void logs_end(struct logs *l, struct chain *out)
{
        l->ended = true;
        http_send_data(l->s, out, true);
}

/* Is the run whose log this is still going? */
static bool still_running(const struct logs *l)
{
        struct pod *p = strmap_get(&l->node->by_uid, str_of(l->uid));
        struct ctr *c = p ? pod_ctr(p, str_of(l->name)) : NULL;

        return c && c->attempt == l->attempt && (c->state == CTR_RUNNING || c->state == CTR_STARTING);
}

/* Opens the next file. False: there is none now. */
/* Which file what is open has become, for the writer renames while it is read: 0 the current one; -1: it is gone. */
static int file_index(struct logs *l)
{
        struct stat have, there;

        if (fstat(l->fd, &have) < 0)
                return -1;
        for (int i = 0; i <= ROTATED_FILES; i++) {
                char *path = file_path(l, i);
                bool same = stat(path, &there) == 0 && there.st_ino == have.st_ino;

                free(path);
                if (same)
                        return i;
        }
        return -1;
}

static bool next_file(struct logs *l)
{
        if (l->fd >= 0) {
                int at = file_index(l);

                if (at == 0)
                        return false;
                if (!l->drained) { /* written to its end only now that it is renamed: what came since the last read is still to be read */
                        l->drained = true;
                        return true;
                }
                close(l->fd);
                l->fd = -1;
                l->file = at < 0 ? ROTATED_FILES : at - 1;
        }
        l->drained = false;
        for (; l->file >= 0 && l->fd < 0; l->file -= l->fd < 0) {
                char *path = file_path(l, l->file);
                l->fd = open(path, O_RDONLY | O_CLOEXEC);
                free(path);
                if (l->fd >= 0)
                        break;
        }
        if (l->fd < 0) {
                l->file = 0;
                return false;
        }
        if (l->skip_bytes)
                lseek(l->fd, (off_t)l->skip_bytes, SEEK_SET);
        l->skip_bytes = 0;
        return true;
}

/* Takes whole lines out of l->in. False: the limit is reached. */
static bool take_lines(struct logs *l, struct chain *out)
{
        size_t at = 0;
        bool more = true;

        while (more) {
                char *nl = l->in.n > at ? memchr(l->in.p + at, '\n', l->in.n - at) : NULL;
                struct ctrlog_record r;
                if (!nl)
                        break;
                if (ctrlog_parse(str_make(l->in.p + at, (size_t)(nl - l->in.p) - at), &r))
                        more = put_record(l, &r, out);
                at = (size_t)(nl + 1 - l->in.p);
        }
        buf_consume(&l->in, at);
        return more;
}

static void logs_pump(struct logs *l)
{
        size_t turn = 0;

        while (!l->ended && !http_send_blocked(l->s)) {
                struct chain out = CHAIN_INIT;
                bool running = still_running(l); /* before reading: what is written after this is seen by the next look */
                ssize_t n = 0;
                if (l->fd >= 0) {
                        buf_reserve(&l->in, READ_BYTES);
                        n = read(l->fd, l->in.p + l->in.n, READ_BYTES);
                }
                if (n > 0) {
                        l->in.n += (size_t)n;
                        turn += (size_t)n;
                        if (!take_lines(l, &out))
                                logs_end(l, &out);
                        else if (out.n)
                                http_send_data(l->s, &out, false);
                        if (turn >= TURN_BYTES) { /* others want their turn too */
                                loop_timer_arm(l->loop, &l->timer, 1);
                                return;
                        }
                        continue;
                }
                if (next_file(l))
                        continue;
                if (!l->follow || !running)
                        logs_end(l, &out);
                else
                        loop_timer_arm(l->loop, &l->timer, FOLLOW_CHECK_MS);
                return;
        }
}

static void on_timer(struct loop_timer *t)
{
        logs_pump(t->arg);
}

static void on_pump(struct loop_task *t)
{
        logs_pump(t->arg);
}

static void on_inotify(struct loop_watch *w, unsigned ready)
{
        struct logs *l = w->arg;
        char drop[4096];

        (void)ready;
        while (read(w->fd, drop, sizeof(drop)) > 0)
                ;
        loop_defer(l->loop, &l->pump_task);
}

static void on_drain(struct http_stream *s, void *arg)
{
        (void)s;
        logs_pump(arg);
}

static void on_close(struct http_stream *s, void *arg, enum http_reset reset)
{
        (void)s;
        (void)reset;
        logs_free(arg);
}

static void on_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        (void)s;
        (void)arg;
        (void)end;
        chain_drop(data, data->n);
}

static const struct http_stream_ops log_ops = { .on_data = on_data, .on_drain = on_drain, .on_close = on_close };

/* ---- the request ---- */

static bool number(const struct kube_query *q, const char *key, bool *given, uint64_t *v)
{
        struct str text = kube_query_get(q, key);

        *given = text.n > 0;
        return !text.n || str_u64(text, v);
}

/* The query's options. NULL, or what is wrong. */
static const char *logs_options(struct logs *l, const struct kube_query *q, uint64_t *tail, bool *have_tail)
{
        struct str since_time = kube_query_get(q, "sinceTime"), stream = kube_query_get(q, "stream");
        uint64_t seconds = 0;
        bool have_since, have_limit;

        if (!number(q, "tailLines", have_tail, tail))
                return "tailLines must be a whole number, 0 or more";
        if (!number(q, "sinceSeconds", &have_since, &seconds) || (have_since && seconds < 1))
                return "sinceSeconds must be 1 or more";
        if (!number(q, "limitBytes", &have_limit, &l->limit_bytes) || (have_limit && l->limit_bytes < 1))
                return "limitBytes must be 1 or more";
        if (since_time.n && have_since)
                return "at most one of sinceTime and sinceSeconds may be given";
        if (since_time.n && !clock_parse_rfc3339(since_time, &l->since_us))
                return "sinceTime must be a time as in RFC 3339";
        uint64_t now = clock_real_us();
        if (have_since)
                l->since_us = seconds < now / 1000000 ? now - seconds * 1000000 : 0;
        l->follow = kube_query_bool(q, "follow");
        l->timestamps = kube_query_bool(q, "timestamps");
        l->want[CTRLOG_STDOUT] = !str_eqc(stream, "Stderr");
        l->want[CTRLOG_STDERR] = !str_eqc(stream, "Stdout");
        return NULL;
}

static void logs_follow(struct logs *l)
{
        int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

        /* Without inotify (its instances are limited) the timer alone finds what is new. */
        if (fd < 0)
                return;
        if (inotify_add_watch(fd, l->path, IN_MODIFY | IN_MOVE_SELF) < 0 ||
            loop_watch(l->loop, &l->inotify, fd, LOOP_READ | LOOP_LEVEL, on_inotify, l) < 0) {
                l->inotify.fd = -1;
                close(fd);
        }
}

void kubelet_logs(struct ctr *c, struct http_stream *s, const struct kube_query *q)
{
        bool previous = kube_query_bool(q, "previous"), have_tail;
        struct http_head head;
        uint64_t tail = 0;

        if (previous && !c->attempt) {
                kubelet_refuse(s, 400, "previous terminated container \"%s\" in pod \"%s\" not found", c->name, c->pod->name);
                return;
        }
        if (!previous && !c->ever_started && c->state != CTR_EXITED && !c->attempt) {
                kubelet_refuse(s, 400, "container \"%s\" in pod \"%s\" is waiting to start: %s", c->name, c->pod->name,
                               c->wait_message ? c->wait_message : c->wait_reason);
                return;
        }
        struct logs *l = MEM_NEW(struct logs);
        *l = (struct logs){ .s = s,
                            .node = c->pod->node,
                            .loop = c->pod->node->loop,
                            .fd = -1,
                            .file = CTRLOG_FILES - 1,
                            .at_line_start = true,
                            .inotify = { .fd = -1 },
                            .timer = { .fn = on_timer, .arg = l },
                            .pump_task = { .fn = on_pump, .arg = l } };
        l->attempt = previous ? c->attempt - 1 : c->attempt;
        l->uid = mem_strdup(c->pod->uid);
        l->name = mem_strdup(c->name);
        l->path = ctr_log_path(c, l->attempt);
        const char *wrong = logs_options(l, q, &tail, &have_tail);
        if (wrong) {
                kubelet_refuse(s, 400, "%s", wrong);
                logs_free(l);
                return;
        }
        if (have_tail)
                logs_tail(l, tail);
        if (l->follow)
                logs_follow(l);
        http_head_init(&head, http_stream_arena(s));
        head.status = 200;
        http_add_name(&head, STR("content-type"), STR("text/plain"));
        http_stream_set_ops(s, &log_ops, l);
        http_send_head(s, &head, false);
        loop_defer(l->loop, &l->pump_task);
}
