/* Writers. A worker fills buffers of its own and hands them over once a turn, under the sink's lock, which the writer holds only to swap
 * the queue for an empty one: a stuck write(2) never holds a worker up. The writer lets lines gather for a few milliseconds when
 * they come thick, so that a busy proxy pays one write for many lines and one line alone is still out at once for whoever follows the log.
 */
#include "proxy/log_sink.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/access_log.h"
#include "proxy/server.h"
#include "proxy/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { GATHER_MS = 10, GATHER_BYTES = 65536, EXIT_FLUSH_S = 2 };

enum {
        FS_FLUSHED_BY_TIMER,
        FS_LINES_DROPPED,
        FS_REOPEN_FAILED,
        FS_WRITE_BUFFERED,
        FS_WRITE_COMPLETED,
        FS_WRITE_FAILED,
        FS_WRITE_TOTAL_BUFFERED
};

static const struct stat_def fs_defs[] = {
        { "flushed_by_timer", STAT_COUNTER },   { "lines_dropped", STAT_COUNTER },   { "reopen_failed", STAT_COUNTER },
        { "write_buffered", STAT_COUNTER },     { "write_completed", STAT_COUNTER }, { "write_failed", STAT_COUNTER },
        { "write_total_buffered", STAT_GAUGE },
};

struct log_sink {
        struct log_sinks *all;
        unsigned index;
        char *path;
        bool standard; /* stdout or stderr: never reopened */
        int fd;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        struct buf queue;            /* the lock's */
        bool sleeping, stop, reopen; /* the lock's */
};

struct log_sinks {
        struct server *server;
        struct stat_scope *scope;
        struct log_sink *v[LOG_SINKS_MAX];
        unsigned n;
};

struct log_buffers {
        struct worker *worker;
        struct loop_task task;
        struct {
                struct log_sink *sink;
                struct buf b;
        } v[LOG_SINKS_MAX];
};

struct log_sinks *log_sinks_new(struct server *s)
{
        struct log_sinks *l = MEM_NEW(struct log_sinks);

        l->server = s;
        l->scope = stats_scope(s->stats, STR("filesystem."), STR("filesystem."), NULL, 0, fs_defs, ARRAY_LEN(fs_defs));
        return l;
}

static int sink_open(const struct log_sink *s)
{
        if (strcmp(s->path, "/dev/stdout") == 0)
                return fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        if (strcmp(s->path, "/dev/stderr") == 0)
                return fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        return open(s->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
}

/* Writes all of it; a non-blocking standard output is waited for. */
static bool sink_write(int fd, struct str s)
{
        while (s.n) {
                ssize_t n = write(fd, s.p, s.n);

                if (n < 0 && errno == EAGAIN) {
                        struct pollfd p = { fd, POLLOUT, 0 };

                        poll(&p, 1, 1000);
                } else if (n < 0 && errno != EINTR) {
                        return false;
                } else if (n > 0) {
                        s = str_sub(s, (size_t)n, s.n);
                }
        }
        return true;
}

static void sink_reopen(struct log_sink *s, struct stats_local *st)
{
        int fd = sink_open(s);

        if (fd < 0) {
                stat_inc(st, stat_of(s->all->scope, FS_REOPEN_FAILED));
                LOG(LOG_ERROR, "access_log", "cannot reopen %s: %s; writing on to the old file", s->path, strerror(errno));
                return;
        }
        close(s->fd);
        s->fd = fd;
}

/* With the lock held: sleeps until there is something to do, then lets lines gather. */
static void sink_wait(struct log_sink *s, struct stats_local *st)
{
        struct timespec until;

        s->sleeping = true;
        while (!s->queue.n && !s->stop && !s->reopen)
                pthread_cond_wait(&s->wake, &s->lock);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += GATHER_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
                until.tv_sec++;
                until.tv_nsec -= 1000000000L;
        }
        s->sleeping = false;
        while (s->queue.n < GATHER_BYTES && !s->stop && !s->reopen)
                if (pthread_cond_timedwait(&s->wake, &s->lock, &until) == ETIMEDOUT) {
                        stat_inc(st, stat_of(s->all->scope, FS_FLUSHED_BY_TIMER));
                        break;
                }
}

static void *sink_main(void *arg)
{
        struct log_sink *s = arg;
        struct stats_local *st = stats_local_new(s->all->server->stats);
        struct buf out = BUF_INIT;
        bool stop = false;

        pthread_mutex_lock(&s->lock);
        while (!stop) {
                sink_wait(s, st);
                struct buf t = s->queue;
                bool reopen = s->reopen;

                s->queue = out;
                out = t;
                s->reopen = false;
                stop = s->stop;
                pthread_mutex_unlock(&s->lock);
                stat_add(st, stat_of(s->all->scope, FS_WRITE_TOTAL_BUFFERED), -(uint64_t)out.n);
                if (out.n)
                        stat_inc(st, stat_of(s->all->scope, sink_write(s->fd, buf_view(&out)) ? FS_WRITE_COMPLETED : FS_WRITE_FAILED));
                out.n = 0;
                if (out.cap > GATHER_BYTES * 2)
                        buf_fini(&out);
                if (reopen && !s->standard)
                        sink_reopen(s, st);
                pthread_mutex_lock(&s->lock);
                stop = stop && !s->queue.n;
        }
        pthread_mutex_unlock(&s->lock);
        buf_fini(&out);
        stats_local_free(st);
        return NULL;
}

struct log_sink *log_sink_get(struct log_sinks *l, const char *path, const struct diag_at *at, struct diags *d)
{
        struct log_sink *s;
        pthread_attr_t attr;
        int rc;

        for (unsigned i = 0; i < l->n; i++)
                if (strcmp(l->v[i]->path, path) == 0)
                        return l->v[i];
        if (l->n == LOG_SINKS_MAX) {
                diag_add(d, DIAG_ERROR, NULL, at, "more than %d access log files are not supported", LOG_SINKS_MAX);
                return NULL;
        }
        s = MEM_NEW(struct log_sink);
        s->all = l;
        s->path = mem_strdup(path);
        s->standard = strcmp(path, "/dev/stdout") == 0 || strcmp(path, "/dev/stderr") == 0;
        s->fd = sink_open(s);
        if (s->fd < 0) {
                diag_add(d, DIAG_ERROR, NULL, at, "unable to open file '%s': %s", path, strerror(errno));
                goto fail;
        }
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->wake, NULL);
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 65536);
        rc = pthread_create(&s->thread, &attr, sink_main, s);
        pthread_attr_destroy(&attr);
        if (rc) {
                diag_add(d, DIAG_ERROR, NULL, at, "cannot start a writer for %s: %s", path, strerror(rc));
                close(s->fd);
                goto fail;
        }
        s->index = l->n;
        l->v[l->n++] = s;
        return s;
fail:
        free(s->path);
        free(s);
        return NULL;
}

static void sink_wake(struct log_sink *s, bool *flag)
{
        pthread_mutex_lock(&s->lock);
        *flag = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
}

void log_sinks_reopen(struct log_sinks *l)
{
        for (unsigned i = 0; i < l->n; i++)
                sink_wake(l->v[i], &l->v[i]->reopen);
}

void log_sinks_free(struct log_sinks *l)
{
        struct timespec until;

        if (!l)
                return;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += EXIT_FLUSH_S;
        for (unsigned i = 0; i < l->n; i++)
                sink_wake(l->v[i], &l->v[i]->stop);
        for (unsigned i = 0; i < l->n; i++) {
                struct log_sink *s = l->v[i];

                /* A writer that its disk holds up is left behind: the process is about to end, and takes it along. */
                if (pthread_timedjoin_np(s->thread, NULL, &until) != 0) {
                        pthread_detach(s->thread);
                        continue;
                }
                close(s->fd);
                buf_fini(&s->queue);
                pthread_mutex_destroy(&s->lock);
                pthread_cond_destroy(&s->wake);
                free(s->path);
                free(s);
        }
        stats_scope_unref(l->server->stats, l->scope);
        free(l);
}

static unsigned lines_in(struct str s)
{
        unsigned n = 0;

        for (size_t i = 0; i < s.n; i++)
                n += s.p[i] == '\n';
        return n ? n : 1;
}

static void buffers_flush(struct log_buffers *b)
{
        struct worker *w = b->worker;

        for (unsigned i = 0; i < LOG_SINKS_MAX && b->v[i].sink; i++) {
                struct log_sink *s = b->v[i].sink;
                struct buf *mine = &b->v[i].b;
                bool took = false, wake = false;
                size_t n = mine->n;

                if (!n)
                        continue;
                pthread_mutex_lock(&s->lock);
                if (s->queue.n + n <= LOG_QUEUE_BYTES) {
                        took = true;
                        if (!s->queue.n && s->queue.cap < mine->cap) {
                                struct buf t = s->queue; /* nothing waits: swap instead of copying */

                                s->queue = *mine;
                                *mine = t;
                        } else {
                                buf_str(&s->queue, buf_view(mine));
                        }
                        wake = s->sleeping || s->queue.n >= GATHER_BYTES;
                        s->sleeping = false; /* woken once is enough */
                }
                pthread_mutex_unlock(&s->lock);
                if (wake) /* not under the lock, for which the writer would have to wait */
                        pthread_cond_signal(&s->wake);
                if (took) {
                        stat_inc(w->stats, stat_of(s->all->scope, FS_WRITE_BUFFERED));
                        stat_add(w->stats, stat_of(s->all->scope, FS_WRITE_TOTAL_BUFFERED), n);
                } else {
                        stat_add(w->stats, stat_of(s->all->scope, FS_LINES_DROPPED), lines_in(buf_view(mine)));
                }
                mine->n = 0;
                if (mine->cap > GATHER_BYTES)
                        buf_fini(mine);
        }
}

static void buffers_task(struct loop_task *t)
{
        buffers_flush(t->arg);
}

struct log_buffers *log_buffers_new(struct worker *w)
{
        struct log_buffers *b = MEM_NEW(struct log_buffers);

        b->worker = w;
        b->task.fn = buffers_task;
        b->task.arg = b;
        return b;
}

void log_buffers_free(struct log_buffers *b)
{
        if (!b)
                return;
        loop_undefer(b->worker->loop, &b->task);
        buffers_flush(b);
        for (unsigned i = 0; i < LOG_SINKS_MAX; i++)
                buf_fini(&b->v[i].b);
        free(b);
}

struct buf *log_buffer(struct worker *w, struct log_sink *s)
{
        struct log_buffers *b = w->logs;

        /* Sinks are numbered in the order they were made; a worker may meet a later one first. */
        for (unsigned i = 0; i <= s->index; i++)
                if (!b->v[i].sink)
                        b->v[i].sink = s->all->v[i];
        loop_defer(w->loop, &b->task);
        return &b->v[s->index].b;
}
