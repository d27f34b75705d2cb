/* Several attempts of one query at once.
 *
 * Happy path: race_begin with the query; the timer starts another attempt while the first is still listened to; the first good answer ends the
 * query, race_settle calls the others back, and when they are, and the host has its answer, the query is freed.
 *
 * Failure modes: an attempt that ends after the query has, by its answer, its failure or the call, finds `over` and changes nothing. The timer may be
 * about to fire when it is taken out: then it finds the same. Out of memory: the query makes one attempt at a time.
 */
#include "race.h"

#include "loop.h"

#include <stdlib.h>

#define SECOND_NS UINT64_C(1000000000)

/* Type-stable: made on the first use of a slot, and kept by it. */
static struct race *race_make(struct query *q)
{
    struct race *race = calloc(1, sizeof(*race));
    if (race == NULL) {
        return NULL;
    }
    pthread_mutex_init(&race->mutex, NULL);
    race->query = q;
    for (uint32_t i = 0; i < RACE_MORE; i++) {
        race->more[i].query = q;
        race->more[i].x.word = &q->word;
    }
    atomic_store(&q->kept_race, race);
    return race;
}

struct race *race_begin(struct query *q, void (*fire)(struct timer *timer))
{
    struct race *race = atomic_load(&q->kept_race);
    if (race == NULL) {
        race = race_make(q);
    }
    if (race == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&race->mutex);
    race->timer = (struct timer){.fire = fire};
    race->armed = race->over = race->delivered = false;
    q->race = race;
    return race;
}

void race_lock(struct race *race)
{
    if (race != NULL) {
        pthread_mutex_lock(&race->mutex);
    }
}

struct attempt *race_attempt(struct race *race, uint32_t n)
{
    return n == 0 ? &race->query->first : &race->more[n - 1];
}

static bool all_back(struct race *race)
{
    for (uint32_t i = 0; i < RACE_MAX; i++) {
        if (race_attempt(race, i)->out) {
            return false;
        }
    }
    return !race->armed;
}

void race_unlock(struct race *race)
{
    if (race == NULL) {
        return;
    }
    bool gone = race->delivered && all_back(race);
    pthread_mutex_unlock(&race->mutex);
    if (gone) {
        query_drop(race->query); /* whoever was last; nobody else can come */
    }
}

void race_set_interval(struct race *race, uint64_t interval_ns)
{
    race->interval_ns = interval_ns;
}

void race_arm(struct race *race, uint64_t now_ns)
{
    uint64_t interval = race->interval_ns;
    if (interval == 0 || race->armed) {
        return;
    }
    if (interval < SECOND_NS) {
        race->interval_ns = 2 * interval < SECOND_NS ? 2 * interval : SECOND_NS;
    }
    race->armed = true;
    race->loop = atomic_load(&race->query->first.x.home); /* where it was first sent: most likely the same thread */
    loop_arm(race->loop, &race->timer, now_ns + interval);
}

struct attempt *race_spare(struct race *race)
{
    const struct exchange *first = &race->query->first.x;
    for (uint32_t i = 0; i < RACE_MAX; i++) {
        struct attempt *a = race_attempt(race, i);
        if (!a->out) {
            a->x.wire = first->wire;
            a->x.wire_len = first->wire_len;
            a->x.query = first->query;
            a->x.want_local = first->want_local;
            a->x.end = first->end;
            a->x.fresh = false;
            a->free_retries = 0;
            return a;
        }
    }
    return NULL;
}

bool race_others(const struct query *q)
{
    for (uint32_t i = 0; q->race != NULL && i < RACE_MAX; i++) {
        const struct attempt *a = race_attempt(q->race, i);
        if (a->out && a->stanza == q->stanza) {
            return true;
        }
    }
    return false;
}

void race_cancel(struct race *race, uint64_t word)
{
    for (uint32_t i = 0; i < RACE_MORE; i++) {
        exchange_cancel(&race->more[i].x, word);
    }
}

void race_settle(struct race *race)
{
    if (race == NULL) {
        return;
    }
    struct query *q = race->query;
    uint64_t word = atomic_fetch_or(&q->word, 1) | 1; /* so that none is sent again either */
    race->over = true;
    for (uint32_t i = 0; i < RACE_MAX; i++) {
        struct attempt *a = race_attempt(race, i);
        if (a->out) {
            exchange_cancel(&a->x, word);
        }
    }
    if (race->armed && loop_disarm(race->loop, &race->timer)) {
        race->armed = false;
    }
}

void race_delivered(struct race *race)
{
    race_lock(race);
    race->delivered = true;
    race_unlock(race);
}

void race_free(struct race *race)
{
    if (race != NULL) {
        pthread_mutex_destroy(&race->mutex);
        free(race);
    }
}
