/* A hierarchical timer wheel with slots of one millisecond, for loop.c. Levels of 256, 64, 64, 64, 64 slots reach 49 days; timers of the
 * coarser levels trickle down as their time comes near. Arming, moving and stopping are O(1). */
#ifndef NET_WHEEL_H
#define NET_WHEEL_H

#include "net/loop.h"

enum { WHEEL_LEVELS = 5, WHEEL_SLOTS0 = 256, WHEEL_SLOTS = 64 };

struct wheel {
        uint64_t now_ms; /* everything before and at this time has fired */
        struct loop_timer *slot0[WHEEL_SLOTS0];
        struct loop_timer *slot[WHEEL_LEVELS - 1][WHEEL_SLOTS];
        uint64_t used0[WHEEL_SLOTS0 / 64]; /* a bit a slot; may be set for an empty slot, never clear for a used one */
        uint64_t used[WHEEL_LEVELS - 1];
};

void wheel_init(struct wheel *w, uint64_t now_ms);
void wheel_arm(struct wheel *w, struct loop_timer *t, uint64_t due_ms);
void wheel_stop(struct loop_timer *t);
uint64_t wheel_next(struct wheel *w); /* when wheel_run() has something to do next; UINT64_MAX: nothing armed */
void wheel_run(struct wheel *w, uint64_t now_ms);

#endif
