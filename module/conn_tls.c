/* DNS over TLS: the framed stream of conn_stream.c through OpenSSL.
 *
 * Happy path: the loop shakes hands as the socket allows; a query is written with SSL_write on the caller's thread, answers are read with SSL_read
 * on the loop's, both under conn->io. The BIO goes straight to send and recv, so no SIGPIPE can reach the host. OpenSSL keeps its
 * buffers while a conn is open: to release them after each answer and to get them again costs more than the octets of them that are ever touched.
 *
 * Failure modes: the handshake or the verification fails: conn->why says how, nothing has been sent (RFC 8310 6.6). close_notify, EOF and reset end the
 * stream as they do over TCP. What the kernel does not take waits in conn->out: an SSL_write may be repeated from there.
 */
#include "conn_tls.h"

#include "loop.h"
#include "tls.h"
#include "transport.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* --- the BIO ------------------------------------------------------------------------------------------------------ */

static int bio_read(BIO *bio, char *buf, int len)
{
    ssize_t n = conn_stream_recv(BIO_get_data(bio), (uint8_t *)buf, (size_t)len);
    BIO_clear_retry_flags(bio);
    if (n == -EAGAIN) {
        BIO_set_retry_read(bio);
    }
    errno = n < 0 ? (int)-n : 0;
    return n < 0 ? -1 : (int)n;
}

static int bio_write(BIO *bio, const char *buf, int len)
{
    ssize_t n = conn_stream_transmit(BIO_get_data(bio), (const uint8_t *)buf, (size_t)len);
    BIO_clear_retry_flags(bio);
    if (n == -EAGAIN) {
        BIO_set_retry_write(bio);
    }
    errno = n < 0 ? (int)-n : 0;
    return n < 0 ? -1 : (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "conn");
    if (bio_method != NULL) {
        (void)BIO_meth_set_read(bio_method, bio_read);
        (void)BIO_meth_set_write(bio_method, bio_write);
        (void)BIO_meth_set_ctrl(bio_method, bio_ctrl);
    }
}

int conn_tls_open(struct conn *conn)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, make_bio_method);
    conn->ssl = tls_client(conn->transport->key.tls, services_mono(conn->loop->services));
    BIO *bio = conn->ssl != NULL && bio_method != NULL ? BIO_new(bio_method) : NULL;
    if (bio == NULL) {
        ERR_clear_error();
        return ENOMEM;
    }
    BIO_set_data(bio, conn);
    BIO_set_init(bio, 1);
    SSL_set_bio(conn->ssl, bio, bio);
    return 0;
}

void conn_tls_bye(struct conn *conn)
{
    if (SSL_is_init_finished(conn->ssl)) {
        (void)SSL_shutdown(conn->ssl);
    }
    ERR_clear_error();
}

void conn_tls_fini(struct conn *conn)
{
    SSL_free(conn->ssl);
    conn->ssl = NULL;
}

/* Before each call into OpenSSL, so that what SSL_get_error sees is of that call. Clearing walks the whole queue, looking does not. */
static void forget_errors(void)
{
    if (ERR_peek_error() != 0) {
        ERR_clear_error();
    }
    errno = 0;
}

/* --- octets ------------------------------------------------------------------------------------------------------- */

static void explain(struct conn *conn)
{
    char why[TLS_WHY];
    tls_explain(conn->transport->key.tls, conn->ssl, why);
    if (conn->why == NULL) {
        conn->why = strdup(why);
    }
}

/* What an SSL function's failure means, as a negated errno; 0 is the end of the stream. */
static ssize_t failure(struct conn *conn, int result)
{
    int sys_errno = errno;
    switch (SSL_get_error(conn->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        ERR_clear_error();
        return -sys_errno;
    default:
        explain(conn);
        return -tls_errno(conn->ssl);
    }
}

int conn_tls_handshake(struct conn *conn)
{
    forget_errors();
    int r = SSL_do_handshake(conn->ssl);
    if (r == 1) {
        series_handshake(conn->transport->series, SSL_session_reused(conn->ssl) == 1);
        return 0;
    }
    ssize_t n = failure(conn, r);
    return n == 0 ? -ECONNRESET : (int)n; /* the peer left in the middle of it */
}

ssize_t conn_tls_read(struct conn *conn, uint8_t *buf, size_t len)
{
    forget_errors();
    uint64_t before = BIO_number_read(SSL_get_rbio(conn->ssl));
    int n = SSL_read(conn->ssl, buf, (int)len);
    if (n > 0) {
        return n;
    }
    ssize_t r = failure(conn, n);
    if (r == -EAGAIN && BIO_number_read(SSL_get_rbio(conn->ssl)) != before) {
        conn_stream_acknowledge(conn); /* tickets, which the first answer would wait for */
    }
    return r;
}

ssize_t conn_tls_write(struct conn *conn, const uint8_t *buf, size_t len)
{
    forget_errors();
    int n = SSL_write(conn->ssl, buf, (int)len);
    if (n > 0) {
        return n;
    }
    ssize_t r = failure(conn, n);
    return r == 0 ? -EPIPE : r;
}

bool conn_tls_holds(const struct conn *conn)
{
    return SSL_has_pending(conn->ssl) != 0;
}

static const struct stream_io dot_io = {
    .handshake = conn_tls_handshake,
    .read = conn_tls_read,
    .write = conn_tls_write,
    .holds = conn_tls_holds,
};

static int dot_send(struct conn *conn, uint8_t *frame, uint32_t len, struct exchange *x, uint32_t seq)
{
    return conn_stream_send(conn, &dot_io, frame, len);
}

static int dot_flush(struct conn *conn)
{
    return conn_stream_push(conn, &dot_io);
}

static void dot_event(struct conn *conn, uint32_t events)
{
    conn_stream_event(conn, &dot_io, events);
}

const struct conn_ops conn_tls_ops = {
    .proto = FWD_PROTO_TLS,
    .socket_type = SOCK_STREAM,
    .epoll_events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
    .open = conn_tls_open,
    .send = dot_send,
    .flush = dot_flush,
    .event = dot_event,
    .bye = conn_tls_bye,
    .fini = conn_tls_fini,
};
