/* The timing wheel: never early, at most a tick late, whatever the distance; and what a clock that
 * jumps does to it. */
#include "timer.h"

#include "suite.h"

#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)
#define TICK (UINT64_C(1) << WHEEL_TICK_SHIFT)

struct entry {
    struct timer timer; /* first member */
    uint64_t deadline, fired_at;
    unsigned claimed, fired;
};

static struct wheel wheel;
static unsigned fired;

static bool claim(struct timer *timer)
{
    ((struct entry *)timer)->claimed++;
    return true;
}

static void fire(struct timer *timer)
{
    struct entry *entry = (struct entry *)timer;
    ck_assert_uint_eq(entry->claimed, ++entry->fired);
    fired++;
}

static void setup(void)
{
    fired = 0;
    wheel_init(&wheel, 100 * SECOND);
}

static void add(struct entry *entry, uint64_t deadline)
{
    entry->timer.claim = claim;
    entry->timer.fire = fire;
    entry->deadline = deadline;
    wheel_add(&wheel, &entry->timer, deadline);
}

/** Expires and fires; checks that nothing fires early. @return how many fired */
static unsigned expire(uint64_t now)
{
    unsigned before = fired;
    struct timer *list = wheel_expire(&wheel, now), *timer;
    while ((timer = timer_list_next(&list)) != NULL) {
        ck_assert(!timer_queued(timer));
        ck_assert(((struct entry *)timer)->deadline <= now);
        ((struct entry *)timer)->fired_at = now;
        timer->fire(timer);
    }
    return fired - before;
}

/* Many timers, a clock that goes in small steps: each fires once, within a tick of its deadline. */
START_TEST(on_time)
{
    enum { COUNT = 500 };
    static struct entry entries[COUNT];
    unsigned seed = 1;
    uint64_t now = 100 * SECOND;
    for (unsigned i = 0; i < COUNT; i++) {
        add(&entries[i],
            now + (uint64_t)(rand_r(&seed) % 20000) * MS + (uint64_t)(rand_r(&seed) % 1000000));
    }
    for (; now <= 121 * SECOND; now += 3 * MS) {
        (void)expire(now);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        ck_assert_uint_eq(entries[i].fired, 1);
        ck_assert_uint_le(entries[i].fired_at - entries[i].deadline, TICK + 3 * MS);
    }
    ck_assert_uint_eq(wheel.count, 0);
    ck_assert(wheel_next(&wheel) == UINT64_MAX);
}
END_TEST

/* A loop that sleeps until wheel_next and no longer misses nothing, and ends. */
START_TEST(next_is_enough)
{
    enum { COUNT = 200 };
    static struct entry entries[COUNT];
    unsigned seed = 2, wakes = 0;
    uint64_t now = 100 * SECOND;
    for (unsigned i = 0; i < COUNT; i++) {
        add(&entries[i], now + (uint64_t)(rand_r(&seed) % 60000) * MS);
    }
    while (fired < COUNT) {
        uint64_t next = wheel_next(&wheel);
        ck_assert(next > now || now == 100 * SECOND);
        now = next > now ? next : now + 1;
        (void)expire(now);
        ck_assert_uint_lt(++wakes, 4 * COUNT);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        ck_assert_uint_eq(entries[i].fired, 1);
    }
}
END_TEST

START_TEST(removed_does_not_fire)
{
    static struct entry entries[3];
    for (unsigned i = 0; i < 3; i++) {
        add(&entries[i], 101 * SECOND);
    }
    wheel_remove(&wheel, &entries[1].timer);
    wheel_remove(&wheel, &entries[1].timer);
    ck_assert(!timer_queued(&entries[1].timer));
    ck_assert_uint_eq(expire(102 * SECOND), 2);
    ck_assert_uint_eq(entries[1].fired, 0);
    add(&entries[1], 103 * SECOND);
    ck_assert_uint_eq(expire(104 * SECOND), 1);
}
END_TEST

/* A deadline that has passed fires with the next expiry that sees another tick. */
START_TEST(deadline_in_the_past)
{
    static struct entry entry;
    add(&entry, 1);
    ck_assert_uint_eq(expire(100 * SECOND + 2 * TICK), 1);
}
END_TEST

/* Standing still and going back expire nothing; a leap expires everything due, once. */
START_TEST(jumping_clock)
{
    static struct entry entries[3];
    add(&entries[0], 105 * SECOND);
    add(&entries[1], 1000 * SECOND);
    add(&entries[2], 100000 * SECOND);
    ck_assert_uint_eq(expire(100 * SECOND), 0);
    ck_assert_uint_eq(expire(50 * SECOND), 0);
    ck_assert_uint_eq(expire(1), 0);
    ck_assert_uint_eq(expire(5000 * SECOND), 2);
    ck_assert_uint_eq(expire(99999 * SECOND), 0);
    ck_assert_uint_eq(expire(100001 * SECOND), 1);
}
END_TEST

/* Timers of one slot but different turns are told apart. */
START_TEST(turns_of_the_wheel)
{
    static struct entry entries[10];
    uint64_t turn = TICK * WHEEL_SLOTS, base = 100 * SECOND + 10 * TICK;
    for (unsigned i = 0; i < 10; i++) {
        add(&entries[i], base + i * turn);
    }
    for (unsigned i = 0; i < 10; i++) {
        ck_assert_uint_eq(expire(base + i * turn - TICK), 0);
        ck_assert_uint_eq(expire(base + i * turn + TICK), 1);
        ck_assert_uint_eq(entries[i].fired, 1);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("timer");
    TCase *tcase = tcase_create("timer");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, on_time);
    tcase_add_test(tcase, next_is_enough);
    tcase_add_test(tcase, removed_does_not_fire);
    tcase_add_test(tcase, deadline_in_the_past);
    tcase_add_test(tcase, jumping_clock);
    tcase_add_test(tcase, turns_of_the_wheel);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
