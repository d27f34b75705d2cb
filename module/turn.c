/* Waiting for a connection, and whose turn it is.
 *
 * Happy path: an exchange lies in the pool's queue, with its timer on a loop. Whoever gives something back gets the waiter whose turn that makes
 * it, and goes on with it on his own thread: on the conn that has room, or on one that is opened now.
 *
 * Failure modes: its time runs out first: it ends on its loop. It is canceled: exchange.c takes it out of the queue. No conn can be opened for it: it
 * ends with that, and the turn is the next one's. A dial fails that shows that theirs would fail too: all leave the queue.
 */
#include "turn.h"

#include "engine.h"
#include "loop.h"
#include "place.h"
#include "pursuit.h"
#include "transport.h"

#include <stddef.h>

static struct exchange *exchange_of(struct pool_waiter *waiter)
{
    return (struct exchange *)((char *)waiter - offsetof(struct exchange, waiter));
}

/* Its time ran out while it waited; false: its turn has come, and whoever serves it goes on. */
static bool wait_claim(struct timer *timer)
{
    struct exchange *x = (struct exchange *)((char *)timer - offsetof(struct exchange, timer));
    if (!pool_unwait(x->queue, &x->waiter)) {
        return false;
    }
    exchange_unwait_locked(x, FWD_ERR_TIMEOUT, services_mono(&x->transport->engine->services));
    return true;
}

static void wait_fire(struct timer *timer)
{
    struct exchange *x = (struct exchange *)((char *)timer - offsetof(struct exchange, timer));
    bool all = pool_all_open(transport_pool(x->transport, x->proto));
    x->outcome.why = all ? "all max_conns connections stayed in use" : "max_handshakes connections were being opened all the time";
    series_waited(x->transport->series, x->outcome.elapsed_ns);
    exchange_finish(x, atomic_load(&x->home));
}

enum turn turn_await(struct transport *t, struct exchange *x, uint32_t proto, bool again, uint64_t now)
{
    struct loop *loop = engine_loop(t->engine, atomic_fetch_add_explicit(&t->next_loop, 1, memory_order_relaxed));
    struct pool *pool = transport_pool(t, proto);
    uint64_t since = again ? x->wait_since_ns : now;
    uint64_t left_ns = x->limit_ns > since ? x->limit_ns - since : 0;
    uint64_t until = since + (t->key.max_wait_ns < left_ns ? t->key.max_wait_ns : left_ns);
    enum turn turn = TURN_CANCELED;
    bool wake = false;
    x->timer = (struct timer){.claim = wait_claim, .fire = wait_fire};
    x->transport = t;
    x->proto = proto;
    x->wait_since_ns = since;
    pthread_mutex_lock(&loop->lock);
    atomic_store(&x->home, loop); /* before the bit is read, as in conn_arm */
    if ((atomic_load(x->word) & 1) == 0) {
        turn = pool_wait(pool, &x->waiter, again) ? TURN_AWAITED : TURN_NOW;
    }
    if (turn == TURN_AWAITED) {
        x->queue = pool;
        wake = loop_arm_locked(loop, &x->timer, until);
    }
    pthread_mutex_unlock(&loop->lock);
    if (wake) {
        loop_wake(loop);
    }
    return turn;
}

/* Its turn has come, or none will: from here on this thread owns it. */
static void end_wait(struct exchange *x)
{
    struct loop *loop = atomic_load(&x->home);
    pthread_mutex_lock(&loop->lock);
    wheel_remove(&loop->wheel, &x->timer);
    x->queue = NULL;
    pthread_mutex_unlock(&loop->lock);
    series_waited(x->transport->series, services_mono(&x->transport->engine->services) - x->wait_since_ns);
}

/* Ends an exchange that was waiting; its loop reports it. */
static void end_waiter(struct exchange *x, const struct outcome *outcome)
{
    x->outcome = *outcome;
    x->ended_on = NULL;
    loop_end(atomic_load(&x->home), x);
}

/* Goes on with an exchange whose turn it is. @return a waiter whose turn that makes it, because nothing could be opened */
static struct pool_waiter *serve(struct transport *t, struct exchange *x, struct conn *conn)
{
    struct pool_waiter *next = NULL;
    struct place place = {.conn = conn, .reused = true};
    struct outcome outcome = {.proto = x->proto, .phase = PHASE_DIAL};
    end_wait(x);
    if (conn == NULL) {
        place = place_open(t, x->proto, false, services_mono(&t->engine->services), &next);
    }
    if (place.conn == NULL) {
        outcome.error = place.error;
        outcome.sys_errno = place.sys_errno;
        outcome.why = place.why;
        end_waiter(x, &outcome);
    } else if (!pursuit_run(t, x, x->proto, 0, &place, services_mono(&t->engine->services), &outcome)) {
        end_waiter(x, &outcome);
    }
    return next;
}

/* The waiters whose turn has come on this thread. What serving one sets free is another's turn: they are served one after the other here, not
 * each from inside the one before. */
static _Thread_local struct {
    struct pool_waiter *first, *last;
    bool serving;
} turns;

static void add_turn(struct pool_waiter *waiter, struct conn *conn)
{
    if (waiter == NULL) {
        return;
    }
    exchange_of(waiter)->granted = conn;
    waiter->next = NULL;
    *(turns.first != NULL ? &turns.last->next : &turns.first) = waiter;
    turns.last = waiter;
}

static void serve_turns(void)
{
    if (turns.serving) {
        return;
    }
    turns.serving = true;
    while (turns.first != NULL) {
        struct exchange *x = exchange_of(turns.first);
        struct transport *t = transport_ref(x->transport); /* x may end, and with it the last user */
        struct pool *pool = transport_pool(t, x->proto);
        turns.first = turns.first->next;
        x->waiter.next = NULL;
        add_turn(serve(t, x, x->granted), NULL);
        if (turns.first == NULL) {
            turn_next(t, pool);
        }
        transport_unref(t);
    }
    turns.serving = false;
}

void turn_next(struct transport *t, struct pool *pool)
{
    struct pool_node *node;
    struct pool_waiter *waiter = pool_next(pool, services_mono(&t->engine->services), &node);
    if (waiter != NULL) {
        turn_give(waiter, (struct conn *)node);
    }
}

void turn_give(struct pool_waiter *waiter, struct conn *conn)
{
    if (waiter != NULL) {
        add_turn(waiter, conn);
        serve_turns();
    }
}

struct exchange *turn_dial_failed(struct transport *transport, struct conn *conn)
{
    struct exchange *first = NULL, **last = &first;
    struct pool_waiter *waiter = pool_dial_failed(transport_pool(transport, conn->ops->proto), &conn->node);
    while (waiter != NULL) {
        struct exchange *x = exchange_of(waiter);
        waiter = waiter->next;
        x->waiter.next = NULL;
        end_wait(x);
        x->ended_next = NULL;
        *last = x;
        last = &x->ended_next;
    }
    return first;
}
