/* See wheel.h. Slots are lists; a timer knows the pointer that points at it, so it can leave without knowing its slot. That is why the
 * bitmaps are only hints: leaving does not clear them, looking for the next used slot does. */
#include "net/wheel.h"

#include <assert.h>

enum { SHIFT0 = 8, SHIFT = 6 };
static const uint64_t REACH_MS = (uint64_t)1 << (SHIFT0 + SHIFT * (WHEEL_LEVELS - 1));

static unsigned level_shift(unsigned level) /* level 1 .. */
{
        return SHIFT0 + SHIFT * (level - 1);
}

void wheel_init(struct wheel *w, uint64_t now_ms)
{
        *w = (struct wheel){ .now_ms = now_ms };
}

static void link_at(struct loop_timer **head, struct loop_timer *t)
{
        t->next = *head;
        t->pprev = head;
        if (t->next)
                t->next->pprev = &t->next;
        *head = t;
}

static void unlink_timer(struct loop_timer *t)
{
        if (!t->pprev)
                return;
        *t->pprev = t->next;
        if (t->next)
                t->next->pprev = t->pprev;
        t->next = NULL;
        t->pprev = NULL;
}

static void insert(struct wheel *w, struct loop_timer *t)
{
        uint64_t due = t->due_ms > w->now_ms ? t->due_ms : w->now_ms + 1;
        uint64_t in = due - w->now_ms;

        if (in >= REACH_MS) { /* beyond the last level: looked at again on the way */
                in = REACH_MS - 1;
                due = w->now_ms + in;
        }
        if (in < WHEEL_SLOTS0) {
                unsigned i = due % WHEEL_SLOTS0;

                w->used0[i / 64] |= (uint64_t)1 << (i % 64);
                link_at(&w->slot0[i], t);
                return;
        }
        unsigned level = 1;
        while (level < WHEEL_LEVELS - 1 && in >> level_shift(level + 1))
                level++;
        unsigned i = (due >> level_shift(level)) % WHEEL_SLOTS;
        w->used[level - 1] |= (uint64_t)1 << i;
        link_at(&w->slot[level - 1][i], t);
}

void wheel_arm(struct wheel *w, struct loop_timer *t, uint64_t due_ms)
{
        if (t->due_ms && t->pprev && due_ms >= t->due_ms) {
                t->due_ms = due_ms; /* its slot's turn will move it */
                return;
        }
        unlink_timer(t);
        t->due_ms = due_ms;
        insert(w, t);
}

void wheel_stop(struct loop_timer *t)
{
        unlink_timer(t);
        t->due_ms = 0;
}

static uint64_t next_of_level0(struct wheel *w)
{
        for (unsigned d = 1; d <= WHEEL_SLOTS0;) {
                unsigned i = (unsigned)((w->now_ms + d) % WHEEL_SLOTS0);
                uint64_t word = w->used0[i / 64] >> (i % 64);

                if (!word) { /* to the start of the next word */
                        d += 64 - i % 64;
                        continue;
                }
                unsigned skip = (unsigned)__builtin_ctzll(word);
                d += skip;
                i += skip;
                if (d > WHEEL_SLOTS0)
                        break;
                if (w->slot0[i])
                        return w->now_ms + d;
                w->used0[i / 64] &= ~((uint64_t)1 << (i % 64));
        }
        return UINT64_MAX;
}

/* When the next used slot of a coarse level has to be taken apart. The slot of the present moment has been, so what is in it now is a
 * whole round away. */
static uint64_t next_of_level(struct wheel *w, unsigned level)
{
        uint64_t unit = w->now_ms >> level_shift(level);

        for (unsigned d = 1; d <= WHEEL_SLOTS && w->used[level - 1]; d++) {
                unsigned i = (unsigned)((unit + d) % WHEEL_SLOTS);

                if (!(w->used[level - 1] >> i & 1))
                        continue;
                if (w->slot[level - 1][i])
                        return (unit + d) << level_shift(level);
                w->used[level - 1] &= ~((uint64_t)1 << i);
        }
        return UINT64_MAX;
}

uint64_t wheel_next(struct wheel *w)
{
        uint64_t next = next_of_level0(w);

        for (unsigned level = 1; level < WHEEL_LEVELS; level++) {
                uint64_t t = next_of_level(w, level);

                if (t < next)
                        next = t;
        }
        return next;
}

static void take(struct loop_timer **slot, struct loop_timer **list)
{
        *list = *slot;
        *slot = NULL;
        if (*list)
                (*list)->pprev = list;
}

/* Everything that is due at w->now_ms. */
static void run_now(struct wheel *w)
{
        struct loop_timer *list;

        for (unsigned level = WHEEL_LEVELS - 1; level >= 1; level--) {
                unsigned shift = level_shift(level);

                if (w->now_ms & (((uint64_t)1 << shift) - 1))
                        continue;
                take(&w->slot[level - 1][(w->now_ms >> shift) % WHEEL_SLOTS], &list);
                while (list) {
                        struct loop_timer *t = list;

                        unlink_timer(t);
                        if (t->due_ms <= w->now_ms)
                                link_at(&w->slot0[w->now_ms % WHEEL_SLOTS0], t);
                        else
                                insert(w, t);
                }
        }
        take(&w->slot0[w->now_ms % WHEEL_SLOTS0], &list);
        while (list) {
                struct loop_timer *t = list;

                unlink_timer(t);
                if (t->due_ms > w->now_ms) {
                        insert(w, t);
                        continue;
                }
                t->due_ms = 0;
                t->fn(t);
        }
}

void wheel_run(struct wheel *w, uint64_t now_ms)
{
        while (w->now_ms < now_ms) {
                uint64_t next = wheel_next(w);

                if (next > now_ms) {
                        w->now_ms = now_ms;
                        return;
                }
                w->now_ms = next;
                run_now(w);
        }
}
