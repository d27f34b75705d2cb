/* Turns: exchanges that wait for a connection of a pool, and what ends their wait.
 *
 * A waiter's turn comes with a place: a pinned place on a conn, or a POOL_OPEN, the right to open one. It is served on the thread that gives it, one
 * after the other, also where serving one makes it another's turn.
 *
 * Threads: any. Ownership: a queued exchange is the queue's; whoever takes it out owns it (pool_unwait, and what the pool returns as a waiter).
 */
#pragma once

#include "exchange.h"

/** How the attempt to wait has gone. */
enum turn {
    TURN_AWAITED,  /**< it waits: x->end will be called, perhaps already, and x may not be touched any more */
    TURN_NOW,      /**< there is room after all */
    TURN_CANCELED, /**< it had been canceled */
};

/** Queues an exchange. @param again it has waited, and what it got was dead: it is the first, and its time goes on */
enum turn turn_await(struct transport *transport, struct exchange *x, uint32_t proto, bool again, uint64_t now_ns);

/** It is a waiter's turn. @param waiter NULL: nobody's @param conn where it has a pinned place; NULL: it has a POOL_OPEN */
void turn_give(struct pool_waiter *waiter, struct conn *conn);

/** Serves whoever else can be: on a shared conn that has room, or where something may be opened again. */
void turn_next(struct transport *transport, struct pool *pool);

/** The dial or handshake of a conn has failed. @return the exchanges that share its fate, chained by ended_next: they waited, and are the
 *  caller's now to end */
struct exchange *turn_dial_failed(struct transport *transport, struct conn *conn);
