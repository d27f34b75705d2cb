/* A timing wheel: what waits for a time-out lies in the slot of its tick.
 *
 * Threads: none of its own; the owner's lock guards a wheel. Ownership: timers are embedded in what waits. Limits: a tick is 2^23 ns
 * (8.4 ms); a timer never fires early, and at most one tick late. Add and remove are O(1).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { WHEEL_SLOTS = 1024, WHEEL_TICK_SHIFT = 23 };

struct timer {
    struct timer *prev, *next; /* prev is NULL when not queued; a chain of expired ones uses next alone */
    uint64_t tick;
    bool (*claim)(struct timer *timer); /* under the wheel's lock, as the timer expires; false: it does not fire. May be NULL */
    void (*fire)(struct timer *timer);  /* later, without the lock */
};

struct wheel {
    struct timer slots[WHEEL_SLOTS]; /* heads of circular lists */
    uint64_t occupied[WHEEL_SLOTS / 64];
    uint64_t tick; /* all timers of earlier ticks have expired */
    uint32_t count;
};

/** Empties the wheel and sets its time. */
void wheel_init(struct wheel *wheel, uint64_t now_ns);

/** Queues a timer that is not queued. A deadline that has passed expires with the next wheel_expire. */
void wheel_add(struct wheel *wheel, struct timer *timer, uint64_t deadline_ns);

/** Takes a timer out; no-op when it is not queued. */
void wheel_remove(struct wheel *wheel, struct timer *timer);

/** True while the timer waits in a wheel. */
static inline bool timer_queued(const struct timer *timer)
{
    return timer->prev != 0;
}

/** When a queued timer expires. */
static inline uint64_t timer_deadline(const struct timer *timer)
{
    return timer->tick << WHEEL_TICK_SHIFT;
}

/** When wheel_expire has something to do, at the earliest; UINT64_MAX when the wheel is empty. */
uint64_t wheel_next(const struct wheel *wheel);

/** Takes out all timers due at now_ns, calls claim for each, and returns those that are to fire chained by next, in order of their ticks. The caller calls
 *  fire for each after releasing the lock; timer_list_next walks the chain and unlinks as it goes. */
struct timer *wheel_expire(struct wheel *wheel, uint64_t now_ns);

/** Pops the first timer of a chain from wheel_expire; NULL at its end. */
struct timer *timer_list_next(struct timer **list);
