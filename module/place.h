/* A place on a connection: the right to one exchange there, whether the connection was in the pool or is opened for it.
 *
 * Threads: any. Ownership: whoever has a place holds a pin on its conn until he has armed and sent, or has given it up.
 * Standards: CoreDNS cases 63-70.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct conn;
struct pool_node;
struct pool_waiter;
struct transport;

/** A place on a pinned conn, or why there is none. */
struct place {
    struct conn *conn;
    bool reused;     /**< the conn came out of the pool */
    bool wait;       /**< a limit of the pool is reached: turn_await */
    int error;       /**< FWD_ERR_*, when there is neither conn nor wait */
    int sys_errno;   /**< behind the error, or 0 */
    const char *why; /**< static, or NULL */
};

/** Takes a place in the pool, or on a new conn. @param fresh only on a new one */
struct place place_take(struct transport *transport, uint32_t proto, bool fresh, uint64_t now_ns);

/** A POOL_OPEN is the caller's: opens a conn, or makes do with an idle one.
 *  @param[out] ret_next when neither can be had, the waiter whose turn that makes it, with a POOL_OPEN of its own; else NULL */
struct place place_open(struct transport *transport, uint32_t proto, bool fresh, uint64_t now_ns, struct pool_waiter **ret_next);

/** Opens a conn that is never pooled (case 83). */
struct place place_open_one_shot(struct transport *transport, uint32_t proto, uint64_t now_ns);

/** A POOL_OPEN is the caller's: opens a conn ahead of need. @return false when it could not be, and the POOL_OPEN stands */
bool place_open_spare(struct transport *transport, uint32_t proto, uint64_t now_ns);

/** Gives up a place on which nothing was sent. */
void place_leave(struct conn *conn);

/** Gives up a place on a conn that nobody shall have any more: its loop closes it. */
void place_discard(struct conn *conn);

/** Likewise a chain of pinned conns that the pool has let go. */
void place_discard_all(struct pool_node *nodes);
