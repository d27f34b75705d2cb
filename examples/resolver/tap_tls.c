/* TLS under dnstap.
 *
 * Happy path: a context is made for the listener or for the one connection, the handshake done on
 * the blocking descriptor, whose time-outs hold here too. Failure modes: each is a reason in words:
 * that of the verification if that is what failed.
 */
#include "tap_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

enum { TLS_RECORD = 16384 };

static const char *library_reason(void)
{
    unsigned long code = ERR_peek_error(); /* the first one says what, the later ones where */
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    if (ERR_SYSTEM_ERROR(code)) {
        return strerror(ERR_GET_REASON(code));
    }
    if (reason != NULL) {
        return reason;
    }
    return errno == EAGAIN ? "i/o timeout" : "connection closed";
}

static SSL_CTX *context_make(const SSL_METHOD *method)
{
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (ctx != NULL) {
        (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
        SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
        /* an intermediate authority that is trusted ends the chain, as in Go */
        (void)X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
    }
    return ctx;
}

/* The file that cannot be used, or NULL. */
static const char *files_load(SSL_CTX *ctx, const struct tap_config *config)
{
    if (SSL_CTX_use_certificate_chain_file(ctx, config->cert) != 1) {
        return config->cert;
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, config->key, SSL_FILETYPE_PEM) != 1) {
        return config->key;
    }
    if (config->ca != NULL && SSL_CTX_load_verify_file(ctx, config->ca) != 1) {
        return config->ca;
    }
    return NULL;
}

/** For a listener. */
SSL_CTX *tap_tls_listen(const struct tap_config *config, struct failure *failure)
{
    SSL_CTX *ctx = context_make(TLS_server_method());
    const char *file = ctx != NULL ? files_load(ctx, config) : "TLS";
    if (file != NULL) {
        (void)failure_set(failure, "%s: %s", file, library_reason());
        SSL_CTX_free(ctx);
        return NULL;
    }
    if (config->ca != NULL) {
        SSL_CTX_set_verify(
            ctx, SSL_VERIFY_PEER | (config->skipverify ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT), NULL);
    }
    (void)SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"dnstap", 6);
    return ctx;
}

/* Ends a handshake that came to nothing. */
static SSL *refuse(SSL *ssl, char *why, size_t size)
{
    bool verifies = ssl != NULL && (SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0;
    long verified = verifies ? SSL_get_verify_result(ssl) : X509_V_OK;
    (void)snprintf(why, size, "tls: %s",
                   verified != X509_V_OK ? X509_verify_cert_error_string(verified)
                                         : library_reason());
    SSL_free(ssl);
    return NULL;
}

static bool name_set(SSL *ssl, const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    }
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

/** Towards a collector. */
SSL *tap_tls_dial(const struct tap_config *config, int fd, const char *host, char *why, size_t size)
{
    SSL_CTX *ctx = context_make(TLS_client_method());
    SSL *ssl = NULL;
    if (ctx != NULL) {
        (void)SSL_CTX_set_default_verify_paths(ctx);
        SSL_CTX_set_verify(ctx, config->skipverify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
        ssl = SSL_new(ctx);
        SSL_CTX_free(ctx); /* ssl has its own use of it */
    }
    if (ssl == NULL || !name_set(ssl, host) || SSL_set_fd(ssl, fd) != 1 || SSL_connect(ssl) != 1) {
        return refuse(ssl, why, size);
    }
    return ssl;
}

/** With a reader. */
SSL *tap_tls_accept(SSL_CTX *ctx, int fd, char *why, size_t size)
{
    ERR_clear_error();
    SSL *ssl = SSL_new(ctx);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 || SSL_accept(ssl) != 1) {
        return refuse(ssl, why, size);
    }
    return ssl;
}

/** Reads. */
bool tap_tls_read(SSL *ssl, void *data, size_t count)
{
    ERR_clear_error();
    for (size_t at = 0, got = 0; at < count; at += got) {
        if (SSL_read_ex(ssl, (char *)data + at, count - at, &got) != 1) {
            return false;
        }
    }
    return true;
}

static bool all_write(SSL *ssl, const char *data, size_t count)
{
    size_t sent = 0;
    return count == 0 || (SSL_write_ex(ssl, data, count, &sent) == 1 && sent == count);
}

/** Writes, in records as full as can be. */
bool tap_tls_write(SSL *ssl, const struct iovec *iov, int count)
{
    char record[TLS_RECORD];
    size_t len = 0;
    ERR_clear_error();
    for (int i = 0; i < count; i++) {
        const char *data = iov[i].iov_base;
        size_t left = iov[i].iov_len;
        while (left > 0) {
            size_t part = left < sizeof(record) - len ? left : sizeof(record) - len;
            memcpy(record + len, data, part);
            len += part;
            data += part;
            left -= part;
            if (len == sizeof(record)) {
                if (!all_write(ssl, record, len)) {
                    return false;
                }
                len = 0;
            }
        }
    }
    return all_write(ssl, record, len);
}
