/* A client's TCP connection.
 *
 * Happy path: an answer goes straight into the socket from the thread that has it.
 * Failure modes: what the socket does not take is kept, up to a limit, and the worker told to wait
 * for room; a socket error marks the connection broken, and the worker closes it. A late answer
 * finds it closed and is dropped.
 */
#include "tcp_conn.h"

#include "clock.h"
#include "worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/** Makes a connection with the worker's reference. */
struct tcp_conn *tcp_conn_create(struct worker *worker, int fd, const struct client *client)
{
    struct tcp_conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL) {
        (void)close(fd);
        return NULL;
    }
    conn->source.kind = SOURCE_TCP_CONN;
    conn->worker = worker;
    conn->client = *client;
    conn->fd = fd;
    atomic_init(&conn->refs, 1);
    (void)pthread_mutex_init(&conn->mutex, NULL);
    return conn;
}

/** One more user. */
void tcp_conn_ref(struct tcp_conn *conn)
{
    atomic_fetch_add_explicit(&conn->refs, 1, memory_order_relaxed);
}

/** One user less; the last one frees. */
void tcp_conn_unref(struct tcp_conn *conn)
{
    if (atomic_fetch_sub_explicit(&conn->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    (void)pthread_mutex_destroy(&conn->mutex);
    free(conn->in);
    free(conn->out);
    free(conn);
}

/** Counts a query in. */
uint32_t tcp_conn_begin(struct tcp_conn *conn)
{
    tcp_conn_ref(conn);
    (void)pthread_mutex_lock(&conn->mutex);
    uint32_t in_flight = ++conn->in_flight;
    (void)pthread_mutex_unlock(&conn->mutex);
    return in_flight;
}

/* Keeps the octets of a message (length prefix and reply) from `sent` on. */
static void keep_locked(struct tcp_conn *conn, const uint8_t prefix[2], const uint8_t *reply,
                        uint32_t len, size_t sent)
{
    uint32_t left = (uint32_t)(len + 2 - sent);
    if (conn->out_len + left > TCP_OUT_MAX) {
        conn->broken = true; /* a reader as slow as this gets no more */
        return;
    }
    if (conn->out_at > 0) {
        memmove(conn->out, conn->out + conn->out_at, conn->out_len);
        conn->out_at = 0;
    }
    uint8_t *out = realloc(conn->out, conn->out_len + left);
    if (out == NULL) {
        conn->broken = true;
        return;
    }
    conn->out = out;
    for (; sent < 2; sent++) {
        out[conn->out_len++] = prefix[sent];
    }
    uint32_t rest = len - (uint32_t)(sent - 2);
    memcpy(out + conn->out_len, reply + (sent - 2), rest);
    conn->out_len += rest;
}

/* Sends at once if nothing waits before it, and keeps what does not go. */
static void send_locked(struct tcp_conn *conn, const uint8_t *reply, uint32_t len)
{
    if (conn->fd < 0 || conn->broken || len == 0) {
        return;
    }
    uint8_t prefix[2];
    put16(prefix, len);
    ssize_t sent = 0;
    if (conn->out_len == 0) {
        struct iovec parts[2] = {
            {.iov_base = prefix, .iov_len = 2},
            {.iov_base = (void *)(uintptr_t)reply, .iov_len = len},
        };
        const struct msghdr header = {.msg_iov = parts, .msg_iovlen = 2};
        sent = sendmsg(conn->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            conn->broken = true;
            return;
        }
        sent = sent < 0 ? 0 : sent;
    }
    if ((size_t)sent < len + 2u) {
        keep_locked(conn, prefix, reply, len, (size_t)sent);
    }
}

/** Ends a counted query. */
void tcp_conn_end(struct tcp_conn *conn, const uint8_t *reply, uint32_t len)
{
    (void)pthread_mutex_lock(&conn->mutex);
    send_locked(conn, reply, len);
    conn->in_flight--;
    conn->answered_ns = clock_ns();
    bool tell = conn->fd >= 0 && (conn->wants_worker || conn->broken || conn->out_len > 0);
    (void)pthread_mutex_unlock(&conn->mutex);
    if (tell) {
        worker_mail(conn->worker, conn);
    }
    tcp_conn_unref(conn);
}

/** A reply of the worker's own. */
void tcp_conn_reply(struct tcp_conn *conn, const uint8_t *reply, uint32_t len)
{
    (void)pthread_mutex_lock(&conn->mutex);
    send_locked(conn, reply, len);
    (void)pthread_mutex_unlock(&conn->mutex);
}

/** Sends leftovers. */
struct tcp_state tcp_conn_flush(struct tcp_conn *conn, bool wants_worker)
{
    (void)pthread_mutex_lock(&conn->mutex);
    while (conn->fd >= 0 && !conn->broken && conn->out_len > 0) {
        ssize_t sent =
            send(conn->fd, conn->out + conn->out_at, conn->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            conn->broken = errno != EAGAIN && errno != EINTR;
            break;
        }
        conn->out_at += (uint32_t)sent;
        conn->out_len -= (uint32_t)sent;
    }
    if (conn->out_len == 0) {
        free(conn->out);
        conn->out = NULL;
        conn->out_at = 0;
    }
    struct tcp_state state = {
        .full = conn->in_flight >= TCP_IN_FLIGHT || conn->out_len > TCP_OUT_PAUSE,
        .in_flight = conn->in_flight,
        .out_len = conn->out_len,
        .answered_ns = conn->answered_ns,
        .broken = conn->broken,
    };
    conn->wants_worker = wants_worker || state.full;
    (void)pthread_mutex_unlock(&conn->mutex);
    return state;
}

/** Closes. */
void tcp_conn_close(struct tcp_conn *conn)
{
    (void)pthread_mutex_lock(&conn->mutex);
    (void)close(conn->fd);
    conn->fd = -1;
    (void)pthread_mutex_unlock(&conn->mutex);
}
