/* A race: the attempts of one query that are out at the same time (option `retransmit`).
 *
 * A query without it has one attempt at a time, and one owner at a time. With it several attempts may end on several threads at once, so whoever
 * deals with one holds the race's mutex; the query is freed when the host has its completion and neither an attempt nor the timer is out any more.
 *
 * Threads: any; race_unlock may free the query. The mutex is held over a whole step of the attempt loop: it comes before every lock of loops, conns
 * and pools, and no two are held together. It is held while the tap, the trace and the random source are called; nothing that a host may call
 * from there takes it. Ownership: a race stays with its slot of the slab until that is freed, since a late cancel may be reading its exchanges; an
 * attempt that is out holds the set of upstreams that it was made from. Limits: some 2.6 KiB per query in flight of an instance with the option.
 */
#pragma once

#include "query.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RACE_MAX = 8, RACE_MORE = RACE_MAX - 1 }; /* attempts out at once, the query's own included */

struct race {
    pthread_mutex_t mutex;
    struct query *query;

    /* guarded by mutex, as is the query's progress */
    struct timer timer; /* the next attempt */
    struct loop *loop;  /* of the timer */
    uint64_t interval_ns;
    bool armed;     /* the timer is queued, or about to fire */
    bool over;      /* the query has ended; what is still out only has to come back */
    bool delivered; /* the host has its completion */
    struct attempt more[RACE_MORE];
};

/** Starts the race of a new query and locks it. @param fire what the timer calls. @return NULL when out of memory: then there is one attempt at a time */
struct race *race_begin(struct query *q, void (*fire)(struct timer *timer));

static inline struct race *race_of(struct timer *timer)
{
    return (struct race *)((char *)timer - offsetof(struct race, timer));
}

/** Both do nothing for NULL. After race_unlock the query may be gone. */
void race_lock(struct race *race);
void race_unlock(struct race *race);

/** The first interval of a stanza; 0 ends the timer's work. Locked. */
void race_set_interval(struct race *race, uint64_t interval_ns);

/** Queues the timer unless it is queued, and doubles the interval up to a second. Locked. */
void race_arm(struct race *race, uint64_t now_ns);

/** An attempt that is not out, ready to be sent; NULL when all are. Locked. */
struct attempt *race_spare(struct race *race);

/** The n-th attempt of a race, from 0 to RACE_MAX - 1. */
struct attempt *race_attempt(struct race *race, uint32_t n);

/** True when an attempt at the query's present stanza is out. No for NULL. Locked. */
bool race_others(const struct query *q);

/** The query has ended: what is out is called back. Does nothing for NULL. Locked. */
void race_settle(struct race *race);

/** The host has its completion: frees the query now, or when the last attempt is back. */
void race_delivered(struct race *race);

/** Cancels the exchanges of a race whose query's word, with the canceled bit set, is this. Any thread, without the mutex. */
void race_cancel(struct race *race, uint64_t word);

/** Frees the memory. */
void race_free(struct race *race);
