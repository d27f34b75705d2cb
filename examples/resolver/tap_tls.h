/* TLS under dnstap, towards a collector or with the readers that come to us.
 *
 * Threads: one at a time for each SSL; a context is shared. Ownership: the caller's. Limits: TLS 1.2
 * at least. Standards: RFC 8446; Go's crypto/tls in what is verified.
 */
#pragma once

#include "tap_config.h"
#include "text.h"

#include <openssl/ssl.h>
#include <sys/uio.h>

/** What a listener shows and asks of readers. @return NULL with the reason in failure */
SSL_CTX *tap_tls_listen(const struct tap_config *config, struct failure *failure);

/** Shakes hands on a connected descriptor. @param host what the collector's certificate is to be
 * for. @return NULL with the reason in why */
SSL *tap_tls_dial(const struct tap_config *config, int fd, const char *host, char *why, size_t size);
SSL *tap_tls_accept(SSL_CTX *ctx, int fd, char *why, size_t size);

/** All of it or nothing. */
bool tap_tls_read(SSL *ssl, void *data, size_t count);
bool tap_tls_write(SSL *ssl, const struct iovec *iov, int count);
