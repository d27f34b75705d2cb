/* Octets over TLS, for the framed stream (DoT) and for HTTP/2 (DoH).
 *
 * Threads: conn->io is held by the caller. Standards: RFC 7858, RFC 8446.
 */
#pragma once

#include "conn_stream.h"

/** The parts of a stream_io. conn_tls_read returns -EAGAIN, and asks for quick acknowledgement, after tickets only. */
int conn_tls_handshake(struct conn *conn);
ssize_t conn_tls_read(struct conn *conn, uint8_t *buf, size_t len);
ssize_t conn_tls_write(struct conn *conn, const uint8_t *buf, size_t len);
bool conn_tls_holds(const struct conn *conn);

/** Makes the SSL of a conn: conn_ops.open. @return 0 or an errno */
int conn_tls_open(struct conn *conn);

/** Says close_notify: conn_ops.bye. */
void conn_tls_bye(struct conn *conn);

/** Frees the SSL: conn_ops.fini. */
void conn_tls_fini(struct conn *conn);
