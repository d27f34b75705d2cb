/* An I/O loop: one epoll, one wheel, the connections registered with it, and what their turn finished.
 *
 * One thread runs a loop, or with io_threads 0 the host does, one turn at a time. Answers are read into the arena and stay there until
 * the turn's completions have been delivered.
 *
 * Threads: loop_run_*, loop_done, loop_bury and arena_* on the loop's thread; the rest any. The lock is a leaf: no system call, callback or other lock
 * under it. Ownership: a conn belongs to its loop from creation; only the loop closes and frees it.
 */
#pragma once

#include "services.h"
#include "timer.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct conn;
struct exchange;
struct query;

enum {
    LOOP_EVENTS = 256,
    LOOP_BATCH = 256,                /* completions delivered at once */
    ARENA_SIZE = 512 * 1024,
    ARENA_NEED = 2 * (65535 + 2),    /* room for a partial frame and the next read */
};

/** One finished query, until it is delivered. */
struct loop_done {
    struct query *query;
    uint32_t kind;
    uint32_t rcode;
    uint8_t *wire;
    uint32_t wire_len;
};

/** Something other than a conn whose descriptors a loop watches. */
struct loop_watch {
    void (*event)(struct loop_watch *watch); /* on the loop's thread */
};

struct loop {
    const struct services *services;
    uint32_t index;
    int epoll_fd;
    int wake_fd;  /* eventfd */
    int timer_fd; /* timerfd, host-driven only; else -1 */

    pthread_mutex_t lock;
    /* guarded by lock */
    struct wheel wheel;
    uint64_t wake_at_ns;      /* when the loop looks at the wheel next */
    uint64_t alarm_ns;        /* when the timerfd rings, host-driven only */
    struct conn *doomed;      /* handed over for closing */
    struct exchange *ended;   /* ended by another thread (cancel); finished here */
    bool quit;

    pthread_mutex_t turning; /* host-driven: held by the thread that is the loop's for a turn; taken before any other lock of the module */

    /* the loop's thread only */
    struct conn *graveyard; /* closed at the end of the turn, when nobody can hold them any more */
    uint8_t *arena;
    uint32_t arena_used;
    struct loop_done batch[LOOP_BATCH];
    uint32_t batch_len;
    uint8_t *completions; /* the batch in the host's layout */
    uint64_t delivered;
};

/** @return 0, FWD_ERR_SYSTEM or FWD_ERR_NOMEM */
int loop_init(struct loop *loop, uint32_t index, bool host_driven, const struct services *services);

/** All conns must be gone or doomed. */
void loop_fini(struct loop *loop);

/** Thread body: turns until loop_quit. */
void loop_run(struct loop *loop);

/** Makes loop_run return after its turn. */
void loop_quit(struct loop *loop);

/** One turn. @param max_sleep_ns how long to wait for events at most; 0 only looks. @return how many events there were, LOOP_EVENTS at most */
int loop_turn(struct loop *loop, uint64_t max_sleep_ns);

/** One turn of a host-driven loop: looks, and sets the timerfd for the next time-out. Any thread; a second one waits for the first one's turn.
 *  @return how many completions were delivered; FWD_ERR_STATE from inside a completion */
int loop_turn_for_host(struct loop *loop);

/** Queues a timer. Lock held. @return true when the loop sleeps past the deadline and loop_wake must be called after unlocking */
bool loop_arm_locked(struct loop *loop, struct timer *timer, uint64_t deadline_ns);

/** Queues a timer, with lock and wake-up. */
void loop_arm(struct loop *loop, struct timer *timer, uint64_t deadline_ns);

/** Takes a timer out. @return true when it was queued: it will not fire */
bool loop_disarm(struct loop *loop, struct timer *timer);

/** Ends the loop's sleep. */
void loop_wake(struct loop *loop);

/** Has the loop close a conn, which the caller has pinned, and end what is in flight on it. Any thread. */
void loop_doom(struct loop *loop, struct conn *conn);

/** Has the loop finish an exchange that another thread has ended; its outcome is set. Any thread. */
void loop_end(struct loop *loop, struct exchange *x);

/** Closes a conn at the end of the turn. Loop's thread. */
void loop_bury(struct loop *loop, struct conn *conn);

/** Has the loop call the watch when a descriptor is ready; it may still be called once more in the turn in which events becomes 0. Loop's thread.
 *  @param events EPOLL*; 0 ends it, before the descriptor is closed */
void loop_watch_fd(struct loop *loop, struct loop_watch *watch, int fd, uint32_t events);

/** Room for one read, ARENA_NEED octets; delivers the batch first when the arena is full. */
uint8_t *loop_room(struct loop *loop);

/** Keeps the first n octets of the room until the batch is delivered. */
static inline void loop_keep(struct loop *loop, uint32_t n)
{
    loop->arena_used += n;
}

/** Adds a finished query to the batch; delivers it when it is full or the next one has another host. */
void loop_done(struct loop *loop, const struct loop_done *done);

/** Calls the host with the batch. */
void loop_flush(struct loop *loop);
