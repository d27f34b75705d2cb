/* The connection to a dnstap collector, or of a reader that came to us, as fstrm reads and writes it.
 *
 * Threads: the sender's; tap_socket_break by main. Ownership: plain value. Limits: TAP_PATIENCE_S
 * to connect and for every step of reading and writing.
 */
#pragma once

#include "tap_tls.h"

#include <fstrm.h>
#include <stdatomic.h>

enum { TAP_PATIENCE_S = 4, TAP_HOST = 256 };

struct tap_socket {
    const struct tap_config *config;
    SSL_CTX *tls_ctx; /**< a TLS listener's; NULL for all else */
    atomic_int fd;    /**< -1 when closed; what a listener has accepted before the writer is opened */
    SSL *tls;
    char why[256]; /**< it could not be opened */
};

/** A writer on it, not open yet; NULL when out of memory. */
struct fstrm_writer *tap_socket_writer(struct tap_socket *sock);

/** Makes the sender's waits end. */
void tap_socket_break(struct tap_socket *sock);
