/* The I/O loop.
 *
 * Happy path of a turn: time-outs that are due are claimed under the lock and fired without it; epoll tells which sockets have something; each
 * conn reads its answer into the arena and its query is added to the batch; the host gets the batch; what was closed is freed.
 *
 * A sleeping loop is woken only for a deadline earlier than its own: it sleeps for a second at most, so callers of serve, whose time-outs
 * are longer, never pay a system call for it.
 *
 * Failure modes: epoll_wait is interrupted: the next turn goes on. A conn whose descriptor another thread may still be using (pins)
 * stays in the graveyard for another turn.
 */
#include "loop.h"

#include "conn.h"
#include "query.h"
#include "transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { MAX_SLEEP_NS = 1000000000, MS_NS = 1000000, WATCH_BIT = 1 };

static int watch(struct loop *loop, int fd)
{
    /* edge-triggered: neither counter is ever read, each write or expiry is one event */
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int loop_init(struct loop *loop, uint32_t index, bool host_driven, const struct services *services)
{
    *loop = (struct loop){.services = services, .index = index, .epoll_fd = -1, .wake_fd = -1, .timer_fd = -1};
    pthread_mutex_init(&loop->lock, NULL);
    pthread_mutexattr_t checked;
    pthread_mutexattr_init(&checked);
    pthread_mutexattr_settype(&checked, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&loop->turning, &checked);
    pthread_mutexattr_destroy(&checked);
    wheel_init(&loop->wheel, services_mono(services));
    loop->arena = malloc(ARENA_SIZE);
    loop->completions = calloc(LOOP_BATCH, QUERY_COMPLETION_MAX);
    if (loop->arena == NULL || loop->completions == NULL) {
        return FWD_ERR_NOMEM;
    }
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 || watch(loop, loop->wake_fd) != 0) {
        return FWD_ERR_SYSTEM;
    }
    if (host_driven) {
        loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (loop->timer_fd < 0 || watch(loop, loop->timer_fd) != 0) {
            return FWD_ERR_SYSTEM;
        }
    }
    return 0;
}

static void close_fd(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}

void loop_fini(struct loop *loop)
{
    close_fd(loop->timer_fd);
    close_fd(loop->wake_fd);
    close_fd(loop->epoll_fd);
    free(loop->completions);
    free(loop->arena);
    pthread_mutex_destroy(&loop->turning);
    pthread_mutex_destroy(&loop->lock);
}

void loop_wake(struct loop *loop)
{
    (void)eventfd_write(loop->wake_fd, 1);
}

bool loop_arm_locked(struct loop *loop, struct timer *timer, uint64_t deadline_ns)
{
    wheel_add(&loop->wheel, timer, deadline_ns);
    return deadline_ns < loop->wake_at_ns;
}

void loop_arm(struct loop *loop, struct timer *timer, uint64_t deadline_ns)
{
    pthread_mutex_lock(&loop->lock);
    bool wake = loop_arm_locked(loop, timer, deadline_ns);
    pthread_mutex_unlock(&loop->lock);
    if (wake) {
        loop_wake(loop);
    }
}

bool loop_disarm(struct loop *loop, struct timer *timer)
{
    pthread_mutex_lock(&loop->lock);
    bool queued = timer_queued(timer);
    wheel_remove(&loop->wheel, timer);
    pthread_mutex_unlock(&loop->lock);
    return queued;
}

void loop_end(struct loop *loop, struct exchange *x)
{
    pthread_mutex_lock(&loop->lock);
    x->ended_next = loop->ended;
    loop->ended = x;
    pthread_mutex_unlock(&loop->lock);
    loop_wake(loop);
}

/* Whoever is first to close a conn enters it into one list or the other. */
static bool begin_closing(struct loop *loop, struct conn *conn, bool doom)
{
    pthread_mutex_lock(&loop->lock);
    bool first = !conn->closing;
    conn->closing = true;
    conn->dead = true;
    if (first && doom) {
        conn->chain = loop->doomed;
        loop->doomed = conn;
    }
    pthread_mutex_unlock(&loop->lock);
    return first;
}

void loop_doom(struct loop *loop, struct conn *conn)
{
    struct transport *transport = conn->transport;
    bool awaited = !conn->one_shot && transport_lost(transport, conn);
    bool first = begin_closing(loop, conn, true);
    if (first && (awaited || transport->key.max_open > 0)) {
        loop_wake(loop); /* somebody waits for its place, or may come to wait for it */
    }
}

void loop_bury(struct loop *loop, struct conn *conn)
{
    if (!begin_closing(loop, conn, false)) {
        return;
    }
    conn->buried = true;
    conn->chain = loop->graveyard;
    loop->graveyard = conn;
    if (!conn->one_shot) {
        (void)transport_lost(conn->transport, conn);
    }
}

static void free_buried(struct loop *loop)
{
    struct conn *conn = loop->graveyard;
    loop->graveyard = NULL;
    while (conn != NULL) {
        struct conn *next = conn->chain;
        if (atomic_load_explicit(&conn->node.pins, memory_order_acquire) == 0) {
            conn_free(conn);
        } else {
            conn->chain = loop->graveyard;
            loop->graveyard = conn;
        }
        conn = next;
    }
}

uint8_t *loop_room(struct loop *loop)
{
    if (ARENA_SIZE - loop->arena_used < ARENA_NEED) {
        loop_flush(loop);
        loop->arena_used = 0;
    }
    return loop->arena + loop->arena_used;
}

void loop_flush(struct loop *loop)
{
    uint32_t count = loop->batch_len;
    if (count == 0) {
        return;
    }
    query_deliver(loop->batch, count, loop->completions);
    loop->batch_len = 0;
    loop->delivered += count;
}

void loop_done(struct loop *loop, const struct loop_done *done)
{
    if (loop->batch_len == LOOP_BATCH ||
        (loop->batch_len > 0 && !query_same_host(loop->batch[0].query, done->query))) {
        loop_flush(loop);
    }
    loop->batch[loop->batch_len++] = *done;
}

/* What other threads and the clock have brought. */
struct errands {
    struct timer *timers;
    struct conn *doomed;
    struct exchange *ended;
    uint64_t sleep_ns;
};

static void collect(struct loop *loop, uint64_t max_sleep_ns, struct errands *ret)
{
    uint64_t now = services_mono(loop->services);
    pthread_mutex_lock(&loop->lock);
    ret->timers = wheel_expire(&loop->wheel, now);
    ret->doomed = loop->doomed;
    ret->ended = loop->ended;
    loop->doomed = NULL;
    loop->ended = NULL;
    uint64_t next = wheel_next(&loop->wheel);
    if (next > now + max_sleep_ns) {
        next = now + max_sleep_ns;
    }
    bool busy = ret->timers != NULL || ret->doomed != NULL || ret->ended != NULL || loop->quit;
    if (busy) {
        next = now;
    }
    loop->wake_at_ns = next;
    pthread_mutex_unlock(&loop->lock);
    ret->sleep_ns = next > now ? next - now : 0;
}

static void bury_all(struct loop *loop, struct conn *doomed)
{
    while (doomed != NULL) {
        struct conn *conn = doomed;
        doomed = conn->chain;
        conn->buried = true;
        conn->chain = loop->graveyard;
        loop->graveyard = conn;
        conn_fail(conn, conn->fail_errno != 0 ? conn->fail_errno : ECANCELED, PHASE_WRITE); /* what shares it */
    }
}

static void run_errands(struct loop *loop, struct errands *errands)
{
    struct timer *timer;
    while ((timer = timer_list_next(&errands->timers)) != NULL) {
        timer->fire(timer);
    }
    while (errands->ended != NULL) {
        struct exchange *x = errands->ended;
        errands->ended = x->ended_next;
        exchange_finish(x, loop);
    }
    bury_all(loop, errands->doomed);
}

/* What the turn itself has doomed, so that it is closed in the same turn. */
static struct conn *take_doomed(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct conn *doomed = loop->doomed;
    loop->doomed = NULL;
    pthread_mutex_unlock(&loop->lock);
    return doomed;
}

/* epoll keeps the pointer to a watch with its lowest bit set: that tells it from a conn. */
void loop_watch_fd(struct loop *loop, struct loop_watch *watch, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = (char *)watch + WATCH_BIT};
    if (events == 0) {
        (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, &event);
    } else if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0) {
        (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event); /* unwatched, it times out */
    }
}

static void dispatch(struct loop *loop, const struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        if (((uintptr_t)events[i].data.ptr & WATCH_BIT) != 0) {
            struct loop_watch *watch = (struct loop_watch *)((char *)events[i].data.ptr - WATCH_BIT);
            watch->event(watch);
            continue;
        }
        struct conn *conn = events[i].data.ptr;
        if (conn != NULL && !conn->buried) {
            conn->ops->event(conn, events[i].events);
        }
    }
}

int loop_turn(struct loop *loop, uint64_t max_sleep_ns)
{
    struct errands errands;
    collect(loop, max_sleep_ns, &errands);
    run_errands(loop, &errands);
    struct epoll_event events[LOOP_EVENTS];
    int timeout = (int)((errands.sleep_ns + MS_NS - 1) / MS_NS);
    if (loop->graveyard != NULL && timeout > 1) {
        timeout = 1; /* what was pinned a moment ago */
    }
    int count = epoll_wait(loop->epoll_fd, events, LOOP_EVENTS, timeout);
    dispatch(loop, events, count);
    loop_flush(loop);
    loop->arena_used = 0;
    bury_all(loop, take_doomed(loop));
    free_buried(loop);
    return count;
}

/* Host-driven: the timerfd makes poll_fd readable when the wheel is due. It is set only when it would ring too late or has rung, so a busy host
 * pays for it once a second. */
static void set_alarm(struct loop *loop)
{
    uint64_t now = services_mono(loop->services);
    pthread_mutex_lock(&loop->lock);
    uint64_t next = wheel_next(&loop->wheel);
    if (next > now + MAX_SLEEP_NS) {
        next = now + MAX_SLEEP_NS;
    }
    bool set = loop->alarm_ns <= now || loop->alarm_ns > next;
    if (set) {
        loop->alarm_ns = next;
    }
    loop->wake_at_ns = loop->alarm_ns;
    pthread_mutex_unlock(&loop->lock);
    if (set) {
        uint64_t ns = next > now ? next - now : 1;
        struct itimerspec when = {.it_value = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)}};
        (void)timerfd_settime(loop->timer_fd, 0, &when, NULL);
    }
}

/* All that is there, as the host may watch edge-triggered: whatever comes after the last look is an edge again. */
int loop_turn_for_host(struct loop *loop)
{
    if (pthread_mutex_lock(&loop->turning) != 0) {
        return FWD_ERR_STATE;
    }
    uint64_t before = loop->delivered;
    while (loop_turn(loop, 0) == LOOP_EVENTS) {
    }
    set_alarm(loop);
    int delivered = (int)(loop->delivered - before);
    pthread_mutex_unlock(&loop->turning);
    return delivered;
}

void loop_run(struct loop *loop)
{
    for (bool quit = false; !quit;) {
        loop_turn(loop, MAX_SLEEP_NS);
        pthread_mutex_lock(&loop->lock);
        quit = loop->quit;
        pthread_mutex_unlock(&loop->lock);
    }
}

void loop_quit(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->quit = true;
    pthread_mutex_unlock(&loop->lock);
    loop_wake(loop);
}
