#include "base/clock.h"
#include "base/hash.h"
#include "net/loop.h"
#include "net/wheel.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the wheel, by itself: time is what we say ---- */

enum { TIMERS = 2000 };

struct probe {
        struct loop_timer t;
        uint64_t fired_at, want;
        struct wheel *w;
};

static void on_probe(struct loop_timer *t)
{
        struct probe *p = t->arg;

        assert_int_equal(p->fired_at, 0);
        p->fired_at = p->w->now_ms;
}

/* Timers from 1 ms to 30 days fire exactly when due, whatever the steps in which time passes, and whether they were moved or not. */
static void test_wheel(void **state)
{
        static struct wheel w;
        struct probe *p = calloc(TIMERS, sizeof(*p));
        uint64_t start = 123456789, now = start;

        wheel_init(&w, now);
        for (int i = 0; i < TIMERS; i++) {
                p[i] = (struct probe){ .t = { .fn = on_probe, .arg = &p[i] }, .w = &w };
                uint64_t reach = (uint64_t)1 << (1 + rand_u64() % 31);
                p[i].want = now + 1 + rand_u64() % reach;
                if (i % 3 == 0) /* moved later */
                        wheel_arm(&w, &p[i].t, now + 1 + (p[i].want - now) / 2);
                if (i % 3 == 1) /* moved earlier */
                        wheel_arm(&w, &p[i].t, p[i].want + rand_u64() % 100000);
                wheel_arm(&w, &p[i].t, p[i].want);
        }
        for (int i = 7; i < TIMERS; i += 10) {
                wheel_stop(&p[i].t);
                p[i].want = 0;
        }
        uint64_t next;
        while ((next = wheel_next(&w)) != UINT64_MAX) {
                assert_true(next > now);
                now = next + (rand_u64() % 4 ? 0 : rand_u64() % 5000);
                wheel_run(&w, now);
                assert_int_equal(w.now_ms, now);
        }
        for (int i = 0; i < TIMERS; i++) {
                if (p[i].fired_at != p[i].want)
                        fail_msg("timer %d: wanted %llu, fired %llu", i, (unsigned long long)(p[i].want - start),
                                 (unsigned long long)(p[i].fired_at - start));
                assert_false(loop_timer_armed(&p[i].t));
        }
        free(p);
}

/* Beyond the wheel's reach (49 days). */
static void test_wheel_far(void **state)
{
        static struct wheel w;
        uint64_t now = 1000, far = now + (uint64_t)200 * 86400 * 1000;
        struct probe p = { .t = { .fn = on_probe, .arg = &p }, .w = &w };

        wheel_init(&w, now);
        wheel_arm(&w, &p.t, far);
        for (unsigned steps = 0; !p.fired_at; steps++) {
                assert_true(steps < 100);
                wheel_run(&w, wheel_next(&w));
        }
        assert_int_equal(p.fired_at, far);
}

/* ---- the loop ---- */

struct counter {
        struct loop *l;
        struct loop_timer t, other;
        struct loop_task task;
        unsigned fired;
        int order[16];
        unsigned n;
};

static void on_rearm(struct loop_timer *t)
{
        struct counter *c = t->arg;

        if (++c->fired < 3)
                loop_timer_arm(c->l, t, 1);
        else
                loop_timer_stop(c->l, &c->other);
}

static void on_never(struct loop_timer *t)
{
        fail();
}

static void test_timer(void **state)
{
        struct counter c = { .l = loop_new() };

        c.t = (struct loop_timer){ .fn = on_rearm, .arg = &c };
        c.other = (struct loop_timer){ .fn = on_never, .arg = &c };
        uint64_t start = clock_mono_us();
        loop_turn(c.l, 0);
        loop_timer_arm(c.l, &c.t, 5);
        loop_timer_arm(c.l, &c.other, 60000);
        while (loop_timer_armed(&c.other))
                loop_turn(c.l, -1);
        assert_int_equal(c.fired, 3);
        assert_true(clock_mono_us() - start >= 7000);
        loop_free(c.l);
}

static void on_task_again(struct loop_task *t)
{
        struct counter *c = t->arg;

        c->order[c->n++] = 1;
}

static void on_task_first(struct loop_task *t)
{
        struct counter *c = t->arg;

        c->order[c->n++] = 0;
        t->fn = on_task_again;
        loop_defer(c->l, t);
}

static void on_task_two(struct loop_task *t)
{
        struct counter *c = t->arg;

        c->order[c->n++] = 2;
}

static void test_defer(void **state)
{
        struct counter c = { .l = loop_new() };
        struct loop_task two = { .fn = on_task_two, .arg = &c }, three = { .fn = on_task_two, .arg = &c };

        c.task = (struct loop_task){ .fn = on_task_first, .arg = &c };
        loop_defer(c.l, &c.task);
        loop_defer(c.l, &c.task);
        loop_defer(c.l, &three);
        loop_undefer(c.l, &three);
        loop_defer(c.l, &two);
        loop_turn(c.l, -1);
        assert_int_equal(c.n, 3);
        assert_true(c.order[0] == 0 && c.order[1] == 2 && c.order[2] == 1);
        loop_free(c.l);
}

struct pair {
        struct loop *l;
        struct loop_watch w[2];
        int peer[2];
        unsigned events;
};

static void on_pair(struct loop_watch *w, unsigned ready)
{
        struct pair *p = w->arg;

        p->events++;
        assert_true(ready & LOOP_READ);
        /* Whichever comes first closes both, and makes a new socket that takes one of the numbers: its watch must not see the other's
         * event. */
        for (int i = 0; i < 2; i++) {
                int fd = p->w[i].fd;

                loop_unwatch(p->l, &p->w[i]);
                close(fd);
        }
        int sv[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
        assert_int_equal(loop_watch(p->l, &p->w[0], sv[0], LOOP_READ, on_pair, p), 0);
        assert_int_equal(loop_watch(p->l, &p->w[1], sv[1], LOOP_READ, on_pair, p), 0);
}

static void test_stale_event(void **state)
{
        struct pair p = { .l = loop_new() };

        for (int i = 0; i < 2; i++) {
                int sv[2];

                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
                assert_int_equal(loop_watch(p.l, &p.w[i], sv[0], LOOP_READ, on_pair, &p), 0);
                p.peer[i] = sv[1];
                assert_int_equal(write(sv[1], "x", 1), 1);
        }
        loop_turn(p.l, -1);
        assert_int_equal(p.events, 1);
        loop_turn(p.l, 0);
        assert_int_equal(p.events, 1);
        for (int i = 0; i < 2; i++) {
                int fd = p.w[i].fd;

                loop_unwatch(p.l, &p.w[i]);
                loop_unwatch(p.l, &p.w[i]);
                close(fd);
                close(p.peer[i]);
        }
        struct loop_watch zero = { 0 };
        loop_unwatch(p.l, &zero);
        loop_free(p.l);
}

enum { THREADS = 4, POSTS = 2000 };

struct poster {
        struct loop *l;
        unsigned id;
        unsigned *seen, *total;
};

struct note {
        struct poster *by;
        unsigned seq;
};

static void on_note(void *arg)
{
        struct note *n = arg;

        assert_int_equal(n->by->seen[n->by->id]++, n->seq);
        if (++*n->by->total == THREADS * POSTS)
                loop_stop(n->by->l);
        free(n);
}

static void *post_many(void *arg)
{
        struct poster *p = arg;

        for (unsigned i = 0; i < POSTS; i++) {
                struct note *n = malloc(sizeof(*n));

                *n = (struct note){ p, i };
                loop_post(p->l, on_note, n);
        }
        return NULL;
}

static void test_post(void **state)
{
        struct loop *l = loop_new();
        unsigned seen[THREADS] = { 0 }, total = 0;
        struct poster p[THREADS];
        pthread_t th[THREADS];

        for (unsigned i = 0; i < THREADS; i++) {
                p[i] = (struct poster){ l, i, seen, &total };
                pthread_create(&th[i], NULL, post_many, &p[i]);
        }
        loop_run(l);
        for (unsigned i = 0; i < THREADS; i++)
                pthread_join(th[i], NULL);
        assert_int_equal(total, THREADS * POSTS);
        loop_free(l);
}

struct process {
        struct loop *l;
        int signo, status;
        struct loop_signal *s;
};

static void on_signo(void *arg, int signo)
{
        struct process *p = arg;

        p->signo = signo;
        loop_signal_free(p->s);
        loop_stop(p->l);
}

static void on_exit_of(void *arg, pid_t pid, int status)
{
        struct process *p = arg;

        p->status = status;
        loop_stop(p->l);
}

static void test_process(void **state)
{
        struct process p = { .l = loop_new() };
        int usr1 = SIGUSR1;

        p.s = loop_signal_new(p.l, &usr1, 1, on_signo, &p);
        assert_non_null(p.s);
        raise(SIGUSR1);
        loop_run(p.l);
        assert_int_equal(p.signo, SIGUSR1);

        pid_t pid = fork();
        if (pid == 0)
                _exit(42);
        assert_non_null(loop_child_new(p.l, pid, on_exit_of, &p));
        loop_run(p.l);
        assert_true(WIFEXITED(p.status) && WEXITSTATUS(p.status) == 42);
        assert_null(loop_child_new(p.l, pid, on_exit_of, &p));
        assert_int_equal(errno, ESRCH);

        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid = fork();
        if (pid == 0) {
                char c;

                close(fds[1]);
                _exit(read(fds[0], &c, 1) == 0 ? 0 : 1);
        }
        struct loop_child *c = loop_child_new(p.l, pid, on_exit_of, &p);
        loop_child_forget(c);
        close(fds[0]);
        close(fds[1]);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        loop_free(p.l);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_wheel),   cmocka_unit_test(test_wheel_far),   cmocka_unit_test(test_timer),
                cmocka_unit_test(test_defer),   cmocka_unit_test(test_stale_event), cmocka_unit_test(test_post),
                cmocka_unit_test(test_process),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
