/* A connection: one socket to one upstream, with a table of the exchanges in flight on it.
 *
 *   CONNECTING -> (HANDSHAKE ->) READY -> closed by its loop
 *
 * Owner: while idle the pool; between take and arm the taker; from the moment of arming its loop's thread. UDP and one-at-a-time TCP have
 * at most one exchange in the table; the table is a list, so that a conn with ops->limit above 1 can carry more.
 *
 * Threads: as the owner rule says; `pins` counts the callers who may still use fd, so the loop closes it only at 0. Standards: RFC 7766.
 */
#pragma once

#include "exchange.h"
#include "pool.h"

#include <stdatomic.h>

struct transport;

enum conn_state { CONN_CONNECTING, CONN_HANDSHAKE, CONN_READY };

struct conn_ops {
    uint32_t proto;
    uint32_t limit; /**< exchanges in flight at most */
    int socket_type;
    uint32_t epoll_events;
    /** Sends the exchange that the caller has just armed on a READY conn. @return 0 or an errno; nothing may be touched after 0 */
    int (*send)(struct conn *conn, struct exchange *x);
    /** Deals with an epoll event on the loop's thread. */
    void (*event)(struct conn *conn, uint32_t events);
};

extern const struct conn_ops conn_udp_ops;
extern const struct conn_ops conn_tcp_ops;

struct conn {
    struct pool_node node; /* first member: the pool's view */
    const struct conn_ops *ops;
    struct transport *transport; /* holds a reference */
    struct loop *loop;
    int fd;
    bool one_shot; /* for a probe: never pooled */
    atomic_uint pins;

    /* guarded by loop->lock */
    enum conn_state state;
    bool dead;
    int fail_errno; /* why */
    struct exchange *exchanges;
    uint32_t in_flight;
    uint32_t seq;
    uint8_t *out; /* rest of a partial write, while the loop is not sending it */
    uint32_t out_len;

    /* the loop's thread only */
    bool buried;
    uint8_t *in;   /* partial frame */
    uint32_t in_len;
    uint64_t dialled_ns;
    struct conn *chain; /* doomed or graveyard */
};

/** Opens a socket and starts connecting; registers it with a loop.
 *  @return NULL with *ret_errno set when it could not */
struct conn *conn_open(struct transport *transport, const struct conn_ops *ops, struct loop *loop,
                       uint64_t now_ns, int *ret_errno);

/** Closes and frees. The loop's thread only, pins at 0. */
void conn_free(struct conn *conn);

/** What became of an exchange that was to be armed. */
enum conn_armed {
    ARMED_SEND,     /**< in the table; the caller sends it now, through ops->send */
    ARMED_WAIT,     /**< in the table; sent by the loop when the conn is ready */
    ARMED_DEAD,     /**< the conn died meanwhile; the caller still owns both */
    ARMED_CANCELED, /**< the query was canceled; the caller still owns both */
    ARMED_ID_TAKEN, /**< another exchange on this conn has the ID; choose another */
};

/** Writes the exchange's ID into its message, puts it into the table and starts its timer. The caller owns conn and exchange. */
enum conn_armed conn_arm(struct conn *conn, struct exchange *x, bool reused, uint64_t now_ns);

/** Takes back an exchange whose send failed. @param seq exchange.seq after conn_arm
 *  @return false when the loop has ended it already: nothing of it may be touched */
bool conn_disarm(struct conn *conn, struct exchange *x, uint32_t seq);

/** The exchange with this ID, or NULL. Lock held. */
struct exchange *conn_find_locked(struct conn *conn, uint16_t id);

/** What one datagram or frame means: finds its exchange and checks it. With ANSWER_GOOD the exchange is detached, its outcome set, and it is in
 *  *ret; else the drop is counted. Loop's thread, no lock held. */
enum wire_answer conn_match(struct conn *conn, uint8_t *msg, uint32_t len, struct exchange **ret);

/** An answer came in full: gives the conn back to the pool, or closes it. Loop's thread. */
void conn_release(struct conn *conn);

/** The socket failed: ends all its exchanges and closes it. Loop's thread.
 *  @param sys_errno 0 means the peer closed it, EBADMSG that what it sent is no answer
 *  @param owned the caller has just taken an answer from it, so nobody else holds it */
void conn_fail(struct conn *conn, int sys_errno, enum phase phase, bool owned);

/** Local address of the socket. */
void conn_local_addr(const struct conn *conn, struct fwd_addr *ret);
