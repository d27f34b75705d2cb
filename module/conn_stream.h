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
};

/** Writes octets, or keeps them for when the kernel takes more. conn->io held. @return 0 or an errno */
int conn_stream_put(struct conn *conn, const struct stream_io *io, const uint8_t *data, uint32_t len);

/** Writes what was kept. conn->io held. @return 0 or an errno */
int conn_stream_push(struct conn *conn, const struct stream_io *io);

/** Sends a framed message: conn_ops.send of TCP and TLS. */
int conn_stream_send(struct conn *conn, const struct stream_io *io, const uint8_t *frame, uint32_t len);

/** The epoll events of a framed stream. */
void conn_stream_event(struct conn *conn, const struct stream_io *io, uint32_t events);

/** What connecting and handshake have come to after an event. @return 1 ready, 0 not yet, -1 failed (conn_fail has been called) */
int conn_stream_progress(struct conn *conn, const struct stream_io *io, uint32_t events);

/** Plain reads and writes of the socket, keeping conn->drained. */
ssize_t conn_stream_recv(struct conn *conn, uint8_t *buf, size_t len);
ssize_t conn_stream_transmit(struct conn *conn, const uint8_t *buf, size_t len);

enum {
    STREAM_EVENTS = (int)(0x001 | 0x004 | 0x2000 | (1U << 31)), /* EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET */
    STREAM_HUNG_UP = 0x2000 | 0x010 | 0x008,                    /* EPOLLRDHUP | EPOLLHUP | EPOLLERR */
};
