/* One client's TCP connection (RFC 7766): queries pipelined in, answers out in whatever order they
 * come.
 *
 * Threads: the worker that accepted it reads and closes; answers are written by whichever thread
 * has them, under the mutex. Ownership: reference-counted: one for the worker, one per query in
 * flight, one while in the worker's mail. Limits: TCP_IN_FLIGHT queries, TCP_OUT_MAX octets of
 * unread answers, TCP_IDLE_NS without a query. Lock order: the mutex is a leaf.
 */
#pragma once

#include "pending.h"
#include "source.h"

#include <pthread.h>

#define TCP_IDLE_NS (10ull * 1000000000ull) /* CoreDNS's idle time-out */
enum {
    TCP_IN_FLIGHT = 256,
    TCP_OUT_PAUSE = 64 * 1024, /**< so much unread: no more queries are read */
    TCP_OUT_MAX = 1 << 20,     /**< so much unread: the connection is closed */
};

struct worker;

struct tcp_conn {
    struct source source;
    struct worker *worker;
    struct client client;

    /* the worker's alone */
    struct tcp_conn *prev; /**< in the worker's list, longest untouched first */
    struct tcp_conn *next;
    uint64_t touched_ns;
    const struct port *port; /**< NULL when its address is listened on no more */
    uint8_t *in;             /**< octets of queries that are not complete or not yet let in */
    uint32_t in_len;
    uint32_t interest; /**< epoll events asked for */
    bool eof;

    atomic_uint refs;
    atomic_bool mailed;
    struct tcp_conn *mail_next;

    pthread_mutex_t mutex;
    /* guarded by mutex */
    int fd; /**< -1 when closed */
    bool broken;
    bool wants_worker; /**< the next ending tells the worker */
    uint32_t in_flight;
    uint64_t answered_ns;
    uint8_t *out; /**< octets that the socket did not take */
    uint32_t out_at;
    uint32_t out_len;
};

/** What a worker needs to know to go on with a connection. */
struct tcp_state {
    bool full; /**< no more queries are to be read for now */
    uint32_t in_flight;
    uint32_t out_len;
    uint64_t answered_ns;
    bool broken;
};

/** Takes fd. NULL when out of memory, fd is closed then. */
struct tcp_conn *tcp_conn_create(struct worker *worker, int fd, const struct client *client);
void tcp_conn_ref(struct tcp_conn *conn);
void tcp_conn_unref(struct tcp_conn *conn);

/** Counts a query in and takes a reference for it. @return queries in flight now */
uint32_t tcp_conn_begin(struct tcp_conn *conn);

/** Sends the answer of a query that tcp_conn_begin counted and gives its reference back; len 0
 * sends nothing. */
void tcp_conn_end(struct tcp_conn *conn, const uint8_t *reply, uint32_t len);

/** Sends a reply to what was not counted. Worker only. */
void tcp_conn_reply(struct tcp_conn *conn, const uint8_t *reply, uint32_t len);

/** Sends what is left over, and tells how things stand. Endings from now on are told to the worker
 * when it wants that, or when the state is one in which nothing more is read. Worker only. */
struct tcp_state tcp_conn_flush(struct tcp_conn *conn, bool wants_worker);

/** Closes the socket; answers that still come are dropped. Worker only. */
void tcp_conn_close(struct tcp_conn *conn);
