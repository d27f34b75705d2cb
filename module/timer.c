/* The timing wheel.
 *
 * Happy path: wheel_add puts a timer into the slot of its tick modulo WHEEL_SLOTS; most are removed again before they are due, because
 * the answer came. wheel_expire walks the slots since its last call and takes out what is due.
 *
 * Failure modes: deadlines beyond one turn of the wheel (8.6 s) share a slot with nearer ones: their full tick is compared, so they
 * stay. A clock that stands still or jumps back expires nothing; one that jumps far ahead expires everything that is due, once.
 */
#include "timer.h"

#include <stddef.h>

static uint64_t tick_of(uint64_t deadline_ns)
{
    return (deadline_ns + (1U << WHEEL_TICK_SHIFT) - 1) >> WHEEL_TICK_SHIFT; /* up: never early */
}

void wheel_init(struct wheel *wheel, uint64_t now_ns)
{
    for (uint32_t i = 0; i < WHEEL_SLOTS; i++) {
        wheel->slots[i].prev = wheel->slots[i].next = &wheel->slots[i];
    }
    for (uint32_t i = 0; i < WHEEL_SLOTS / 64; i++) {
        wheel->occupied[i] = 0;
    }
    wheel->tick = now_ns >> WHEEL_TICK_SHIFT;
    wheel->count = 0;
}

void wheel_add(struct wheel *wheel, struct timer *timer, uint64_t deadline_ns)
{
    uint64_t tick = tick_of(deadline_ns);
    if (tick <= wheel->tick) {
        tick = wheel->tick + 1;
    }
    uint32_t slot = tick % WHEEL_SLOTS;
    struct timer *head = &wheel->slots[slot];
    timer->tick = tick;
    timer->prev = head->prev;
    timer->next = head;
    head->prev->next = timer;
    head->prev = timer;
    wheel->occupied[slot / 64] |= UINT64_C(1) << (slot % 64);
    wheel->count++;
}

void wheel_remove(struct wheel *wheel, struct timer *timer)
{
    if (!timer_queued(timer)) {
        return;
    }
    timer->prev->next = timer->next;
    timer->next->prev = timer->prev;
    timer->prev = timer->next = NULL;
    wheel->count--;
    uint32_t slot = timer->tick % WHEEL_SLOTS;
    if (wheel->slots[slot].next == &wheel->slots[slot]) {
        wheel->occupied[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    }
}

uint64_t wheel_next(const struct wheel *wheel)
{
    if (wheel->count == 0) {
        return UINT64_MAX;
    }
    for (uint32_t step = 1; step <= WHEEL_SLOTS;) {
        uint32_t slot = (wheel->tick + step) % WHEEL_SLOTS;
        uint64_t bits = wheel->occupied[slot / 64] >> (slot % 64);
        if (bits != 0) {
            return (wheel->tick + step + (uint32_t)__builtin_ctzll(bits)) << WHEEL_TICK_SHIFT;
        }
        step += 64 - slot % 64;
    }
    return (wheel->tick + WHEEL_SLOTS) << WHEEL_TICK_SHIFT;
}

static void expire_slot(struct wheel *wheel, uint32_t slot, uint64_t tick, struct timer ***tail)
{
    struct timer *head = &wheel->slots[slot];
    for (struct timer *t = head->next, *next; t != head; t = next) {
        next = t->next;
        if (t->tick > tick) {
            continue; /* due in a later turn of the wheel */
        }
        wheel_remove(wheel, t);
        if (t->claim != NULL && !t->claim(t)) {
            continue;
        }
        **tail = t;
        *tail = &t->next;
    }
}

struct timer *wheel_expire(struct wheel *wheel, uint64_t now_ns)
{
    struct timer *list = NULL;
    struct timer **tail = &list;
    uint64_t tick = now_ns >> WHEEL_TICK_SHIFT;
    if (tick <= wheel->tick) {
        return list;
    }
    uint64_t steps = tick - wheel->tick;
    if (steps > WHEEL_SLOTS) {
        steps = WHEEL_SLOTS; /* one whole turn sees every slot */
    }
    uint64_t from = tick - steps;
    for (uint64_t t = from + 1; t <= tick && wheel->count > 0; t++) {
        uint32_t slot = t % WHEEL_SLOTS;
        if (wheel->occupied[slot / 64] & (UINT64_C(1) << (slot % 64))) {
            expire_slot(wheel, slot, tick, &tail);
        }
    }
    wheel->tick = tick;
    return list;
}

struct timer *timer_list_next(struct timer **list)
{
    struct timer *first = *list;
    if (first == NULL) {
        return NULL;
    }
    *list = first->next;
    first->next = NULL;
    return first;
}
