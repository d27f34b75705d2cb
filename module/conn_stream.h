/* Streams of framed DNS messages, shared by TCP and TLS: two octets of length before every message (RFC 1035 4.2.2, RFC 7858 3.3).
 *
 * Threads: conn_stream_send any; conn_stream_event the loop's. Standards: RFC 7766.
 */
#pragma once

#include "conn.h"

#include <sys/types.h>

/** How octets pass: plainly, or through TLS. Each returns a count, 0 for the peer's end of the stream (read), or a negated errno; -EAGAIN when it
 *  must wait. conn->io is held. */
struct stream_io {
    int (*handshake)(struct conn *conn); /**< goes on with it: 0 done, else a negated errno. NULL where there is none */
    ssize_t (*read)(struct conn *conn, uint8_t *buf, size_t len);
    ssize_t (*write)(struct conn *conn, const uint8_t *buf, size_t len);
    bool (*holds)(const struct conn *conn); /**< whether it has octets of the socket that read has not returned. NULL where it never has */
};

/** Writes octets, or keeps them for when the kernel takes more. conn->io held. @return 0 or an errno */
int conn_stream_put(struct conn *conn, const struct stream_io *io, const uint8_t *data, uint32_t len);

/** Writes what is kept. conn->io held. @return 0 or an errno */
int conn_stream_push(struct conn *conn, const struct stream_io *io);

/** Sends a framed message: conn_ops.send of TCP and TLS. */
int conn_stream_send(struct conn *conn, const struct stream_io *io, const uint8_t *frame, uint32_t len);

/** The epoll events of a framed stream. */
void conn_stream_event(struct conn *conn, const struct stream_io *io, uint32_t events);

/** Begins with an event: goes on with connecting and handshake, or with what the kernel had not taken. @return true when there may be something to
 *  read; false when it is not ready yet or has failed (conn_fail has been called) */
bool conn_stream_begin(struct conn *conn, const struct stream_io *io, uint32_t events);

/** Whether another read may return something: the socket has not been emptied, or octets of it are held. conn->io held. */
static inline bool conn_stream_more(const struct conn *conn, const struct stream_io *io)
{
    return !conn->drained || (io->holds != NULL && io->holds(conn));
}

/** Acknowledges at once what has come. A server with Nagle's algorithm on keeps what it would send next until then, and the kernel would wait for
 *  the next query, or 40 ms, to say so. */
void conn_stream_acknowledge(struct conn *conn);

/** The same if an exchange waits for what may be kept back. With many in flight the next query will say soon what has come, and the server's answers
 *  travel together meanwhile, so then it is not said each time. */
void conn_stream_acknowledge_awaited(struct conn *conn);

/** Plain reads and writes of the socket, keeping conn->drained. */
ssize_t conn_stream_recv(struct conn *conn, uint8_t *buf, size_t len);
ssize_t conn_stream_transmit(struct conn *conn, const uint8_t *buf, size_t len);
