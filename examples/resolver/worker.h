/* One worker thread: it reads queries from its sockets, hands them to the module in batches, and
 * turns the module's loop of the same index, which brings the answers.
 *
 * Threads: each worker has its own epoll, sockets, TCP connections and slab; it shares nothing with
 * the others but the current epoch, which it looks at once per turn. Ownership: made, joined and
 * destroyed by the service. Going over to another epoch happens between two turns and is
 * acknowledged: then nothing of the worker points to the old one any more but queries in flight,
 * which the draining of its instances ends.
 */
#pragma once

#include "epoch.h"
#include "outbox.h"
#include "pending.h"
#include "reply.h"
#include "tcp_conn.h"

#include <pthread.h>

enum { BATCH = 64, DETAIL_MAX = 256 };

struct service;
struct inbox;

/** TCP connections of one worker. */
struct tcp_list {
    struct tcp_conn *first; /**< longest untouched */
    struct tcp_conn *last;
    unsigned count;
    struct tcp_conn *dead; /**< closed in this turn; events may still point to them */
    uint8_t *stream;       /**< where octets are read into */
    bool accept_paused;
};

struct worker {
    struct source wake;   /**< what the eventfd's events point to */
    struct source module; /**< what those of the module's loop point to */
    struct service *service;
    unsigned index;
    pthread_t thread;
    bool running;
    int epoll_fd;
    int wake_fd;
    const struct epoch *epoch;
    struct fwd_instance *instance; /**< any of the epoch: they share the loops; NULL: none */
    int module_fd;                 /**< of the loop; -1: none */
    struct pending_slab slab;
    struct outbox *outbox;
    struct inbox *inbox;
    struct tcp_list tcp;
    _Atomic(struct tcp_conn *) mail;

    /* the batch to be served next */
    uint32_t batched;
    const struct server *servers[BATCH]; /**< of each query */
    uint64_t now_ns; /**< when what is being handled was read */
    struct fwd_query queries[BATCH];
    char details[BATCH][DETAIL_MAX];
};

bool worker_init(struct worker *worker, struct service *service, unsigned index);
bool worker_start(struct worker *worker);
void worker_join(struct worker *worker);
void worker_fini(struct worker *worker);

/** Interrupts the wait of a worker. Any thread. */
void worker_wake(struct worker *worker);

/** Asks the worker to look at a connection. Any thread that has a reference. */
void worker_mail(struct worker *worker, struct tcp_conn *conn);

/** What a query that came in leads to. conn is NULL for UDP. The worker's own thread only. */
void worker_query(struct worker *worker, const struct port *port, const struct client *client,
                  struct tcp_conn *conn, uint8_t *wire, uint32_t len);

/** Hands over what is batched and sends what is queued. The worker's own thread only. */
void worker_flush(struct worker *worker);
