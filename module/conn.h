/* A connection: one socket to one upstream, with a table of the exchanges in flight on it.
 *
 *   CONNECTING -> (HANDSHAKE ->) READY -> closed by its loop
 *
 * Its loop owns it: only the loop's thread closes and frees it, at the end of a turn, when nobody pins it any more. Whoever takes a place on it from
 * the pool pins it until he has armed and sent. The table holds up to `limit` exchanges: one on UDP and plain streams, more where a
 * stream is pipelined or HTTP/2 multiplexes.
 *
 * Threads: as the comments below say. Standards: RFC 7766.
 */
#pragma once

#include "edns.h"
#include "exchange.h"
#include "pool.h"

#include <stdatomic.h>
#include <sys/types.h>

struct h2;
struct ssl_st;
struct transport;

enum conn_state { CONN_CONNECTING, CONN_HANDSHAKE, CONN_READY };

struct conn_ops {
    uint32_t proto;
    bool own_keys; /* send gives each exchange its key; the DNS ID is 0 */
    int socket_type;
    uint32_t epoll_events;
    /** Makes what the kind needs beyond a socket. May be NULL. @return 0 or an errno */
    int (*open)(struct conn *conn);
    /** Sends a query that has just been armed on a READY conn. Not the exchange but a copy of its message is sent: it may have ended already.
     *  @param frame two octets of length, then the message
     *  @param seq which arming it was
     *  @return 0 or an errno */
    int (*send)(struct conn *conn, uint8_t *frame, uint32_t len, struct exchange *x, uint32_t seq);
    /** Writes what send has left for cork_end. NULL where nothing is shared. conn->io held. @return 0 or an errno */
    int (*flush)(struct conn *conn);
    /** An armed exchange has ended without an answer and the conn lives on. Lock of the loop not held. May be NULL */
    void (*forget)(struct conn *conn, uint32_t key);
    /** Deals with an epoll event on the loop's thread. */
    void (*event)(struct conn *conn, uint32_t events);
    /** Says farewell where the kind has a farewell; the socket is closed next. May be NULL */
    void (*bye)(struct conn *conn);
    /** Frees what open made. May be NULL */
    void (*fini)(struct conn *conn);
};

extern const struct conn_ops conn_udp_ops;
extern const struct conn_ops conn_tcp_ops;
extern const struct conn_ops conn_tls_ops;
extern const struct conn_ops conn_https_ops;

struct conn {
    struct pool_node node; /* first member: the pool's view */
    const struct conn_ops *ops;
    struct transport *transport; /* holds a reference */
    struct loop *loop;
    int fd;
    bool one_shot; /* for a probe: never pooled */
    struct edns edns; /* what is added to its queries; set before conn_watch */

    /* guarded by loop->lock */
    enum conn_state state;
    bool dead;
    bool closing;   /* doomed or buried */
    int fail_errno; /* why it is dead */
    enum phase fail_phase; /* and when it died */
    struct exchange *exchanges;
    uint32_t in_flight;
    uint32_t seq;

    /* guarded by io: the stream's writing side, and both sides of TLS and HTTP/2. Taken before loop->lock, held over send and recv */
    pthread_mutex_t io;
    uint8_t *out; /* what the kernel has not taken yet, or has not been offered (cork.c) */
    uint32_t out_len;
    uint32_t out_count; /* messages of which something is in it, or was when it was last offered */
    struct ssl_st *ssl;
    struct h2 *h2;
    bool drained; /* the last recv emptied the socket */
    bool hung_up; /* the peer has: an EOF is to be read */
    char *why;    /* what the TLS or HTTP library says of a failure; written once, before conn_fail */

    /* the loop's thread only */
    bool buried;
    bool spare; /* dialled ahead of need: goes to the idle ones when it is ready */
    uint8_t *in; /* partial frame */
    uint32_t in_len;
    uint64_t dialled_ns;
    uint64_t heard_ns; /* when something last came */
    uint64_t acknowledged_ns; /* when the kernel was last told to acknowledge it at once */
    bool answered;     /* an exchange has been */
    struct conn *chain; /* doomed or graveyard */
};

/** Opens a socket, starts connecting, and pins the conn once. conn_watch follows. @return NULL with *ret_errno set when it could not */
struct conn *conn_open(struct transport *transport, const struct conn_ops *ops, struct loop *loop,
                       uint64_t now_ns, int *ret_errno);

/** Registers a new conn with its loop: events may come from here on. @return 0 or an errno */
int conn_watch(struct conn *conn);

/** Frees a conn that was not watched. */
void conn_drop(struct conn *conn);

/** Closes and frees. The loop's thread only, pins at 0. */
void conn_free(struct conn *conn);

static inline void conn_pin(struct conn *conn)
{
    atomic_fetch_add_explicit(&conn->node.pins, 1, memory_order_relaxed);
}

static inline void conn_unpin(struct conn *conn)
{
    pool_unpin(&conn->node);
}

/** send and recv, without SIGPIPE. They are no points of cancellation, which would cost two atomic operations each time and which nobody needs here. */
ssize_t conn_transmit(const struct conn *conn, const uint8_t *data, size_t len);
ssize_t conn_receive(const struct conn *conn, uint8_t *room, size_t len);

/** What became of an exchange that was to be armed. */
enum conn_armed {
    ARMED_SEND,     /**< in the table; the caller sends it now, through ops->send */
    ARMED_WAIT,     /**< in the table; sent by the loop when the conn is ready */
    ARMED_DEAD,     /**< the conn died meanwhile; the caller still owns the exchange */
    ARMED_CANCELED, /**< the query was canceled; the caller still owns the exchange and his place on the conn */
    ARMED_ID_TAKEN, /**< another exchange on this conn has the ID; choose another */
};

/** Puts an exchange with a new ID into the table and starts its timer. The caller owns the exchange and has a pinned place on the conn; with
 *  ARMED_SEND and ARMED_WAIT the exchange may end at any moment. @param[out] ret_seq which arming it is */
enum conn_armed conn_arm(struct conn *conn, struct exchange *x, bool reused, uint64_t now_ns, uint32_t *ret_seq);

/** Takes back an exchange whose send failed, and marks the conn dead. @param seq from conn_arm
 *  @return false when the loop has ended it already: nothing of it may be touched */
bool conn_disarm(struct conn *conn, struct exchange *x, uint32_t seq, int sys_errno);

/** Marks the conn dead, to be failed and closed by its loop. The caller has it pinned. Any thread. */
void conn_break(struct conn *conn, int sys_errno);

/** Whether it has been handed over for closing. The caller has it pinned. Any thread. */
bool conn_is_closing(struct conn *conn);

/** Changes what the answer to an armed exchange is found by. @return false when it has ended */
bool conn_rekey(struct conn *conn, struct exchange *x, uint32_t seq, uint32_t key);

enum { FRAME_HEADER = 2, FRAME_INLINE = 512 };

/** The copy of a message that leaves: framed, with an ID and EDNS options of its own. */
struct frame {
    uint8_t *data; /**< space, or allocated */
    uint32_t len;
    uint8_t space[FRAME_HEADER + FRAME_INLINE];
};

/** @return false when out of memory */
bool frame_init(struct frame *frame, const struct edns *edns, const uint8_t *msg, uint32_t len);
void frame_fini(struct frame *frame);

/** The exchange with this key, or NULL. Lock held. */
struct exchange *conn_find_locked(struct conn *conn, uint32_t key);

/** What one message, which came at conn->heard_ns, means: finds the exchange with this key and checks it. With ANSWER_GOOD the exchange is detached, its outcome set, and it is in
 *  *ret; else the drop is counted. Loop's thread, no lock held. */
enum wire_answer conn_match(struct conn *conn, uint32_t key, uint8_t *msg, uint32_t len, struct exchange **ret);

/** Gives back the place of an exchange that has ended. Loop's thread.
 *  @param success it was answered in full
 *  @param now_ns the clock; after conn_match heard_ns will do */
void conn_release(struct conn *conn, bool success, uint64_t now_ns);

/** The connection is there (after the handshake, if there is one): sends what waits. Loop's thread. @return 0 or an errno */
int conn_become_ready(struct conn *conn);

/** Starts the handshake's time for what waits. Loop's thread. */
void conn_begin_handshake(struct conn *conn);

/** Whether a dial or handshake has gone on for so long that a time-out says something about the upstream. Else its query had little time left. */
bool conn_was_given_time(const struct conn *conn, enum phase phase);

/** The socket failed: ends all its exchanges and closes it; where it was a dial that failed, perhaps also those who wait for a conn. Loop's thread.
 *  @param sys_errno 0 means the peer closed it, EBADMSG that what it sent is no answer */
void conn_fail(struct conn *conn, int sys_errno, enum phase phase);

/** As conn_fail, for one exchange of a shared conn, which lives on. Loop's thread, no lock held. @param why kept by the conn */
void conn_fail_one(struct conn *conn, uint32_t key, int error, const char *why);

/** The peer did not work on an exchange: it ends as stale, to be repeated elsewhere at no charge; the conn lives on. Loop's thread. */
void conn_refuse_key(struct conn *conn, uint32_t key);

/** The same for an exchange that could not be sent. Any thread. */
void conn_refuse(struct conn *conn, struct exchange *x, uint32_t seq);

/** Local address of the socket. */
void conn_local_addr(const struct conn *conn, struct fwd_addr *ret);
