/* An exchange: one attempt to get one query answered on one connection.
 *
 * Life: idle -> (waiting in a pool's queue ->) in flight -> ended. While it is in flight it lies in the table of its conn and its timer in the
 * wheel of the conn's loop, both under that loop's lock; whoever detaches it under the lock owns it, and calls `end` exactly once, on a
 * loop's thread. While it waits its timer lies in the wheel of `home`; whoever takes it out of the queue owns it.
 *
 * Threads: exchange_detach with the loop's lock; end on the I/O thread. Ownership: embedded in a query or a probe, which also holds the wire.
 */
#pragma once

#include "pool.h"
#include "timer.h"
#include "wire.h"

#include <forward/abi.h>
#include <stdatomic.h>
#include <stdbool.h>

struct conn;
struct exchange;
struct loop;
struct transport;

/** Where an attempt failed. */
enum phase { PHASE_WAIT, PHASE_DIAL, PHASE_HANDSHAKE, PHASE_WRITE, PHASE_READ };

/** How an exchange ended. */
struct outcome {
    int error;          /**< FWD_OK, or FWD_ERR_* */
    int sys_errno;      /**< errno behind the error, or 0 */
    enum phase phase;
    bool stale;         /**< the conn had been reused and died before it answered anything: retry at no charge (cases 49, 78) */
    bool shared;        /**< with stale: other exchanges were on the same conn */
    bool cut;           /**< the peer closed a new conn that had answered nothing: stale if it turns out to have closed others as well */
    uint32_t proto;     /**< FWD_PROTO_* really used */
    uint64_t elapsed_ns;
    uint8_t *wire;      /**< the answer, valid until the loop flushes; its ID is the exchange's */
    uint32_t wire_len;
    const char *why;       /**< what the TLS or HTTP library says, or NULL; valid during end */
    struct fwd_addr local; /**< our end of the socket; filled only when exchange.want_local is set */
};

typedef void (*exchange_end_fn)(struct exchange *x, const struct outcome *outcome, struct loop *loop);

struct exchange {
    /* the caller's part, set before transport_exchange */
    const uint8_t *wire; /**< the message; its ID is not used */
    uint32_t wire_len;
    struct wire_query query;
    uint64_t read_timeout_ns; /**< for the answer, from the moment of sending (case 72) */
    uint64_t limit_ns;        /**< absolute: no wait goes beyond it */
    bool any_reply;           /**< probes: whatever has a header with our ID is an answer (case 84) */
    bool want_local;
    bool fresh; /**< not on a pooled conn: the last one was stale. Reset when used */
    _Atomic uint64_t *word;          /**< bit 0: canceled; above it the generation of the memory. See exchange_cancel */
    _Atomic(struct loop *) home;     /**< the loop that it was last armed on */
    exchange_end_fn end;

    /* the conn's part, guarded by the lock of conn->loop */
    struct exchange *prev, *next;
    struct conn *conn;
    struct timer timer;
    uint64_t started_ns;
    uint32_t seq; /**< which arming this was, to tell it from a later use of the same memory */
    uint32_t key; /**< what its answer is found by: the DNS ID, or the HTTP/2 stream */
    uint16_t id;
    bool reused; /**< the conn came out of the pool */
    bool sent;
    uint16_t bare_flags; /* of an error without its question that came for it; 0 none */

    /* while it waits for a connection */
    struct pool_waiter waiter;
    struct pool *queue; /* NULL when it does not wait; guarded by the lock of home */
    struct transport *transport;
    struct conn *granted; /* its turn has come: on this conn, or NULL to open one */
    uint32_t proto;
    uint64_t wait_since_ns;

    /* between detaching and end */
    struct outcome outcome;
    struct conn *ended_on; /* where it failed; its place there is still taken ... */
    bool placeless;        /* ... unless it was waiting, and shares the fate of that conn's dial */
    struct exchange *ended_next;
};

/** Takes an exchange out of its conn's table and the wheel. Lock of conn->loop held. */
void exchange_detach(struct exchange *x);

/** Remembers an error reply that came without its question. A forger need not know the question for it, so the good answer has a while yet; whatever
 *  ends the exchange then, but a cancel, the error is its answer. Lock of conn->loop held; the loop's thread. */
void exchange_keep_error_locked(struct exchange *x, uint16_t flags, uint64_t now_ns);

/** Detaches and remembers how it ended; exchange_finish reports it. Lock held. */
void exchange_fail_locked(struct exchange *x, int error, int sys_errno, enum phase phase, uint64_t now_ns);

/** An exchange that has just been taken out of a pool's queue ends with an error. Lock of home held; exchange_finish follows. */
void exchange_unwait_locked(struct exchange *x, int error, uint64_t now_ns);

/** Lets go of the conn and calls end with the remembered outcome. No lock held, on a loop's thread. */
void exchange_finish(struct exchange *x, struct loop *loop);

/** Cancels an exchange from any thread. Bit 0 of *x->word is set already, so that no further arming succeeds; if the exchange is in flight it is
 *  detached and will be finished by its loop with FWD_ERR_CANCELED, else nothing is done: whoever is about to arm it will see the bit.
 *  x is memory that stays readable; @param word the value of *x->word that makes it the one that is meant. */
void exchange_cancel(struct exchange *x, uint64_t word);

/** FWD_ERR_* that stands for an errno of a socket call. */
int exchange_error_of(int sys_errno);

/** What this machine has run out of, in the words of Go's net package; NULL for any other errno. */
const char *exchange_shortage(int sys_errno);
