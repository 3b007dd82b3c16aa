/* The event loop. Three choices shape it.
 *
 * Events name a descriptor, not a pointer: epoll hands back (generation, fd), and a table by fd finds the watch. So an event that was
 * already fetched when its watch was removed, or whose fd was closed and reused in the same turn, is dropped by a comparison, and watches
 * may live in memory that is freed right after loop_unwatch().
 *
 * A timer that is moved to a later time stays where it is in the wheel; its slot's turn finds that it is not due and moves it then. An
 * idle timeout that every request re-arms thus costs one store. (The slot is never later than due_ms: that is the invariant.)
 *
 * Deferred tasks run after all events of a turn: objects die there, when no frame and no fetched event can refer to them. */
#include "net/loop.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/wheel.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
        EVENTS_A_WAIT = 256,
        TASKS_A_TURN = 4096, /* a task that queues itself must not starve the sockets */
};

struct post {
        struct post *next;
        void (*fn)(void *arg);
        void *arg;
};

struct loop {
        int epfd;
        struct loop_watch **by_fd;
        size_t nby_fd;
        uint32_t generation;
        uint64_t now_ns;
        struct wheel wheel;
        struct loop_task *tasks, **tasks_end;
        struct loop_watch wake;
        _Atomic(struct post *) posts; /* newest first */
        atomic_bool stop;
};

static void set_now(struct loop *l)
{
        l->now_ns = clock_mono_ns();
}

uint64_t loop_now_ms(const struct loop *l)
{
        return l->now_ns / 1000000;
}

uint64_t loop_now_us(const struct loop *l)
{
        return l->now_ns / 1000;
}

static void on_wake(struct loop_watch *w, unsigned ready);

struct loop *loop_new(void)
{
        struct loop *l = MEM_NEW(struct loop);

        l->epfd = epoll_create1(EPOLL_CLOEXEC);
        l->tasks_end = &l->tasks;
        l->wake.fd = -1;
        set_now(l);
        wheel_init(&l->wheel, loop_now_ms(l));
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (l->epfd < 0 || fd < 0 || loop_watch(l, &l->wake, fd, LOOP_READ | LOOP_LEVEL, on_wake, l) < 0) {
                int e = errno;

                if (fd >= 0)
                        close(fd);
                if (l->epfd >= 0)
                        close(l->epfd);
                free(l->by_fd);
                free(l);
                errno = e;
                return NULL;
        }
        return l;
}

static void run_tasks(struct loop *l)
{
        for (unsigned i = 0; l->tasks && i < TASKS_A_TURN; i++) {
                struct loop_task *t = l->tasks;

                l->tasks = t->next;
                if (!l->tasks)
                        l->tasks_end = &l->tasks;
                t->next = NULL;
                t->queued = false;
                t->fn(t);
        }
}

static struct post *take_posts(struct loop *l)
{
        struct post *newest = atomic_exchange_explicit(&l->posts, NULL, memory_order_acquire);
        struct post *oldest = NULL;

        while (newest) {
                struct post *p = newest;

                newest = p->next;
                p->next = oldest;
                oldest = p;
        }
        return oldest;
}

void loop_free(struct loop *l)
{
        if (!l)
                return;
        run_tasks(l); /* what was closed in the last turn still has to be freed */
        for (struct post *p = take_posts(l), *next; p; p = next) {
                next = p->next;
                free(p);
        }
        int fd = l->wake.fd;
        loop_unwatch(l, &l->wake);
        close(fd);
        close(l->epfd);
        free(l->by_fd);
        free(l);
}

/* ---- descriptors ---- */

static uint32_t epoll_bits(unsigned want)
{
        uint32_t e = 0;

        if (want & LOOP_READ)
                e |= EPOLLIN | EPOLLRDHUP;
        if (want & LOOP_WRITE)
                e |= EPOLLOUT;
        if (!(want & LOOP_LEVEL))
                e |= EPOLLET;
        return e;
}

static unsigned ready_bits(uint32_t e)
{
        unsigned r = 0;

        if (e & (EPOLLIN | EPOLLRDHUP | EPOLLPRI))
                r |= LOOP_READ;
        if (e & EPOLLRDHUP)
                r |= LOOP_READ_END;
        if (e & EPOLLOUT)
                r |= LOOP_WRITE;
        if (e & (EPOLLHUP | EPOLLERR))
                r |= LOOP_HUP;
        return r;
}

int loop_watch(struct loop *l, struct loop_watch *w, int fd, unsigned want, void (*fn)(struct loop_watch *, unsigned), void *arg)
{
        assert(fd >= 0);
        if ((size_t)fd >= l->nby_fd) {
                size_t n = l->nby_fd ? l->nby_fd : 64;

                while (n <= (size_t)fd)
                        n *= 2;
                l->by_fd = mem_realloc(l->by_fd, n * sizeof(*l->by_fd));
                memset(l->by_fd + l->nby_fd, 0, (n - l->nby_fd) * sizeof(*l->by_fd));
                l->nby_fd = n;
        }
        *w = (struct loop_watch){ .fd = fd, .want = want, .fn = fn, .arg = arg, .generation = ++l->generation };
        struct epoll_event ev = { .events = epoll_bits(want), .data.u64 = (uint64_t)w->generation << 32 | (uint32_t)fd };
        if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev) < 0) {
                w->fd = -1;
                return -errno;
        }
        l->by_fd[fd] = w;
        return 0;
}

int loop_watch_change(struct loop *l, struct loop_watch *w, unsigned want)
{
        struct epoll_event ev = { .events = epoll_bits(want), .data.u64 = (uint64_t)w->generation << 32 | (uint32_t)w->fd };

        assert(w->fd >= 0);
        if (w->want == want && (want & LOOP_LEVEL))
                return 0; /* edge-triggered: the call asks for the present state again */
        w->want = want;
        return epoll_ctl(l->epfd, EPOLL_CTL_MOD, w->fd, &ev) < 0 ? -errno : 0;
}

void loop_unwatch(struct loop *l, struct loop_watch *w)
{
        if (w->fd < 0 || !w->fn)
                return;
        if ((size_t)w->fd < l->nby_fd && l->by_fd[w->fd] == w) {
                l->by_fd[w->fd] = NULL;
                epoll_ctl(l->epfd, EPOLL_CTL_DEL, w->fd, NULL);
        }
        w->fd = -1;
}

void loop_unwatch_close(struct loop *l, struct loop_watch *w)
{
        int fd = w->fd;

        if (fd < 0)
                return;
        /* Should a child between fork(2) and exec(2) hold a copy of it, its events are dropped by their generation. */
        if (w->fn && (size_t)fd < l->nby_fd && l->by_fd[fd] == w)
                l->by_fd[fd] = NULL;
        w->fd = -1;
        close(fd);
}

/* ---- timers ---- */

void loop_timer_arm(struct loop *l, struct loop_timer *t, uint64_t ms)
{
        /* The clock is cut to whole milliseconds: one more, so that it is never early. */
        wheel_arm(&l->wheel, t, loop_now_ms(l) + ms + 1);
}

void loop_timer_stop(struct loop *l, struct loop_timer *t)
{
        wheel_stop(t);
}

/* ---- tasks, messages ---- */

void loop_defer(struct loop *l, struct loop_task *t)
{
        if (t->queued)
                return;
        t->queued = true;
        t->next = NULL;
        *l->tasks_end = t;
        l->tasks_end = &t->next;
}

void loop_undefer(struct loop *l, struct loop_task *t)
{
        if (!t->queued)
                return;
        for (struct loop_task **p = &l->tasks; *p; p = &(*p)->next) {
                if (*p != t)
                        continue;
                *p = t->next;
                if (!t->next)
                        l->tasks_end = p;
                break;
        }
        t->next = NULL;
        t->queued = false;
}

static void wake_up(struct loop *l)
{
        uint64_t one = 1;
        ssize_t n;

        do
                n = write(l->wake.fd, &one, sizeof(one));
        while (n < 0 && errno == EINTR); /* EAGAIN: the counter is full, so it wakes anyway */
}

void loop_post(struct loop *l, void (*fn)(void *arg), void *arg)
{
        struct post *p = mem_alloc(sizeof(*p));

        *p = (struct post){ atomic_load_explicit(&l->posts, memory_order_relaxed), fn, arg };
        while (!atomic_compare_exchange_weak_explicit(&l->posts, &p->next, p, memory_order_release, memory_order_relaxed))
                ;
        /* Only the first of a batch wakes; but p must not be looked at any more: the loop may have run and freed it. So the wake-up
         * is unconditional: a write to an eventfd is cheap beside a message between threads. */
        wake_up(l);
}

static void on_wake(struct loop_watch *w, unsigned ready)
{
        struct loop *l = w->arg;
        uint64_t n;

        if (read(w->fd, &n, sizeof(n)) < 0 && errno != EAGAIN && errno != EINTR)
                abort();
        for (struct post *p = take_posts(l), *next; p; p = next) {
                next = p->next;
                p->fn(p->arg);
                free(p);
        }
}

void loop_stop(struct loop *l)
{
        int e = errno;

        atomic_store(&l->stop, true);
        wake_up(l);
        errno = e;
}

/* ---- turns ---- */

static int wait_ms(struct loop *l, int timeout_ms)
{
        if (l->tasks)
                return 0;
        uint64_t next = wheel_next(&l->wheel);
        uint64_t now = loop_now_ms(l);
        if (next == UINT64_MAX)
                return timeout_ms;
        uint64_t in = next > now ? next - now : 0;
        if (in > 3600000)
                in = 3600000;
        return timeout_ms < 0 || in < (uint64_t)timeout_ms ? (int)in : timeout_ms;
}

void loop_turn(struct loop *l, int timeout_ms)
{
        struct epoll_event ev[EVENTS_A_WAIT];

        set_now(l);
        int n = epoll_wait(l->epfd, ev, EVENTS_A_WAIT, wait_ms(l, timeout_ms));
        set_now(l);
        assert(n >= 0 || errno == EINTR);
        for (int i = 0; i < n; i++) {
                uint32_t fd = (uint32_t)ev[i].data.u64;
                uint32_t generation = (uint32_t)(ev[i].data.u64 >> 32);
                struct loop_watch *w = fd < l->nby_fd ? l->by_fd[fd] : NULL;

                if (w && w->generation == generation)
                        w->fn(w, ready_bits(ev[i].events));
        }
        wheel_run(&l->wheel, loop_now_ms(l));
        run_tasks(l);
}

void loop_run(struct loop *l)
{
        while (!atomic_load_explicit(&l->stop, memory_order_relaxed))
                loop_turn(l, -1);
        atomic_store(&l->stop, false);
}
