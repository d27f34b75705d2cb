/* Octets over TLS, for the framed stream (DoT) and for HTTP/2 (DoH).
 *
 * Threads: conn->io is held by the caller. Standards: RFC 7858, RFC 8446.
 */
#pragma once

#include "conn_stream.h"

extern const struct stream_io conn_tls_io;

/** Makes the SSL of a conn: conn_ops.open. @return 0 or an errno */
int conn_tls_open(struct conn *conn);

/** Says close_notify: conn_ops.bye. */
void conn_tls_bye(struct conn *conn);

/** Frees the SSL: conn_ops.fini. */
void conn_tls_fini(struct conn *conn);
