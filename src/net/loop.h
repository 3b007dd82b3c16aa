/* An event loop on epoll: one thread, its descriptors, timers, deferred work and messages from other threads.
 *
 * Descriptors are edge-triggered and registered once for both directions: an owner remembers readiness until read or write says
 * EAGAIN (conn.h does that for streams). No callback may free the object it was called for while its own frames are on the stack;
 * loop_defer() runs a task at the end of the turn, which is where objects die. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include "base/str.h"

#include <sys/types.h>

struct loop;

enum {
        LOOP_READ = 1,
        LOOP_WRITE = 2,
        LOOP_HUP = 4,
        LOOP_LEVEL = 8,     /* level-triggered; for accept sockets and simple readers */
        LOOP_READ_END = 16, /* reported only, with LOOP_READ: the peer will send no more (its FIN is in) */
};

struct loop_watch {
        int fd;                                           /* -1: not registered (so is a zeroed watch) */
        unsigned want;                                    /* LOOP_* given to loop_watch() */
        void (*fn)(struct loop_watch *w, unsigned ready); /* ready: LOOP_READ | LOOP_WRITE | LOOP_HUP (error or hang-up) */
        void *arg;
        uint32_t generation; /* the loop's: a stale event of the same turn is dropped */
};

struct loop_timer {
        struct loop_timer *next, **pprev; /* the loop's */
        uint64_t due_ms;                  /* monotonic; 0: not armed */
        void (*fn)(struct loop_timer *t);
        void *arg;
};

struct loop_task {
        struct loop_task *next; /* the loop's */
        bool queued;
        void (*fn)(struct loop_task *t);
        void *arg;
};

struct loop *loop_new(void);
void loop_free(struct loop *l);
void loop_run(struct loop *l);                  /* until loop_stop() */
void loop_turn(struct loop *l, int timeout_ms); /* one turn, waiting at most so long (-1: until something happens); for tests */
void loop_stop(struct loop *l);                 /* thread-safe, also from a signal handler */
uint64_t loop_now_ms(const struct loop *l);     /* monotonic, read once a turn */
uint64_t loop_now_us(const struct loop *l);

/* Registers w->fd. 0, or -errno. The watch stays in the caller's memory until loop_unwatch(). */
int loop_watch(struct loop *l, struct loop_watch *w, int fd, unsigned want, void (*fn)(struct loop_watch *, unsigned), void *arg);
int loop_watch_change(struct loop *l, struct loop_watch *w, unsigned want);
void loop_unwatch(struct loop *l, struct loop_watch *w); /* does not close the fd; harmless when not registered */
/* Closes the fd too. epoll(7) lets go of it by itself then, which saves a system call; not for an fd of which there is a duplicate. */
void loop_unwatch_close(struct loop *l, struct loop_watch *w);

/* Arms, or moves, the timer: fires once, no earlier than `ms` from now (granularity 1 ms up to 1 s, coarser beyond: at most 1 %
 * late). Re-arming to a later time is O(1) and touches nothing: use it for idle timeouts on every request. */
void loop_timer_arm(struct loop *l, struct loop_timer *t, uint64_t ms);
void loop_timer_stop(struct loop *l, struct loop_timer *t);
static inline bool loop_timer_armed(const struct loop_timer *t)
{
        return t->due_ms != 0;
}

/* At the end of this turn, once, in order; queueing a queued task does nothing. */
void loop_defer(struct loop *l, struct loop_task *t);
void loop_undefer(struct loop *l, struct loop_task *t);

/* From any thread: fn(arg) runs on the loop's thread, in order of posting. */
void loop_post(struct loop *l, void (*fn)(void *arg), void *arg);

/* Signals as events, by signalfd; blocks them in the calling thread (call before starting others). */
struct loop_signal;
struct loop_signal *loop_signal_new(struct loop *l, const int *signals, unsigned n, void (*fn)(void *arg, int signo), void *arg);
void loop_signal_free(struct loop_signal *s);

/* A child's end, by pidfd. `status` is as from waitpid(2). The object frees itself after fn; loop_child_forget() lets go earlier. */
struct loop_child;
struct loop_child *loop_child_new(struct loop *l, pid_t pid, void (*fn)(void *arg, pid_t pid, int status), void *arg);
void loop_child_forget(struct loop_child *c);

#endif
