/* The socket under fstrm.
 *
 * Happy path: connect, or take what a listener has accepted, then over TLS its handshake, then
 * fstrm's handshake and frames.
 * Failure modes: each is fstrm_res_failure, whereupon the sender closes and tries again later; what
 * kept it from opening is in why.
 */
#include "tap_socket.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static void fd_prepare(const struct tap_config *config, int fd)
{
    const struct timeval patience = {.tv_sec = TAP_PATIENCE_S};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (config->transport != TAP_UNIX) {
        int size = (int)(config->buffers < 1024 ? config->buffers * TAP_BUFFER : INT32_MAX);
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
}

static int fd_connect(const struct tap_config *config, const struct sockaddr *address,
                      socklen_t len)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    fd_prepare(config, fd);
    if (connect(fd, address, len) == 0) {
        return fd;
    }
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return -1;
}

static int unix_connect(const struct tap_config *config)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(config->endpoint) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    (void)strcpy(address.sun_path, config->endpoint);
    return fd_connect(config, (const struct sockaddr *)&address, sizeof(address));
}

/* Splits HOST:PORT. */
static bool host_port(const char *endpoint, char host[TAP_HOST], const char **ret_port)
{
    const char *colon = strrchr(endpoint, ':');
    if (colon == NULL) {
        return false;
    }
    bool brackets = endpoint[0] == '[' && colon > endpoint && colon[-1] == ']';
    (void)snprintf(host, TAP_HOST, "%.*s", (int)(colon - endpoint) - 2 * brackets,
                   endpoint + brackets);
    *ret_port = colon + 1;
    return true;
}

static int tcp_connect(const struct tap_config *config, char host[TAP_HOST])
{
    const char *port;
    if (!host_port(config->endpoint, host, &port)) {
        errno = EDESTADDRREQ;
        return -1;
    }
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host[0] != '\0' ? host : NULL, port, &hints, &found) != 0) {
        errno = EHOSTUNREACH;
        return -1;
    }
    int fd = -1;
    for (const struct addrinfo *i = found; i != NULL && fd < 0; i = i->ai_next) {
        fd = fd_connect(config, i->ai_addr, i->ai_addrlen);
    }
    int saved = errno;
    freeaddrinfo(found);
    errno = saved;
    return fd;
}

/* Connects, and over TLS shakes hands. */
static bool dial(struct tap_socket *sock)
{
    const struct tap_config *config = sock->config;
    bool local = config->transport == TAP_UNIX;
    char host[TAP_HOST] = "";
    int fd = local ? unix_connect(config) : tcp_connect(config, host);
    if (fd < 0) {
        (void)snprintf(sock->why, sizeof(sock->why), "dial %s %s: connect: %s",
                       local ? "unix" : "tcp", config->endpoint, strerror(errno));
        return false;
    }
    atomic_store(&sock->fd, fd);
    if (config->transport == TAP_TLS) {
        sock->tls = tap_tls_dial(config, fd, host, sock->why, sizeof(sock->why));
    }
    return config->transport != TAP_TLS || sock->tls != NULL;
}

/* The other side came to us. */
static bool greet(struct tap_socket *sock)
{
    int fd = atomic_load(&sock->fd);
    fd_prepare(sock->config, fd);
    if (sock->tls_ctx != NULL) {
        sock->tls = tap_tls_accept(sock->tls_ctx, fd, sock->why, sizeof(sock->why));
    }
    return sock->tls_ctx == NULL || sock->tls != NULL;
}

static fstrm_res socket_close(void *arg);

static fstrm_res socket_open(void *arg)
{
    struct tap_socket *sock = arg;
    if (!(sock->config->listen ? greet(sock) : dial(sock))) {
        (void)socket_close(sock);
        return fstrm_res_failure;
    }
    (void)snprintf(sock->why, sizeof(sock->why), "no dnstap reader at %s", sock->config->endpoint);
    return fstrm_res_success;
}

static fstrm_res socket_close(void *arg)
{
    struct tap_socket *sock = arg;
    if (sock->tls != NULL) {
        (void)SSL_shutdown(sock->tls);
        SSL_free(sock->tls);
        sock->tls = NULL;
    }
    int fd = atomic_exchange(&sock->fd, -1);
    if (fd >= 0) {
        (void)close(fd);
    }
    return fstrm_res_success;
}

static fstrm_res socket_read(void *arg, void *data, size_t count)
{
    const struct tap_socket *sock = arg;
    if (sock->tls != NULL) {
        return tap_tls_read(sock->tls, data, count) ? fstrm_res_success : fstrm_res_failure;
    }
    ssize_t got = recv(atomic_load(&sock->fd), data, count, MSG_WAITALL);
    return got == (ssize_t)count ? fstrm_res_success : fstrm_res_failure;
}

static fstrm_res socket_write(void *arg, const struct iovec *iov, int count)
{
    const struct tap_socket *sock = arg;
    int fd = atomic_load(&sock->fd);
    if (sock->tls != NULL) {
        return tap_tls_write(sock->tls, iov, count) ? fstrm_res_success : fstrm_res_failure;
    }
    for (int i = 0; i < count;) {
        const struct msghdr header = {
            .msg_iov = (struct iovec *)(uintptr_t)&iov[i],
            .msg_iovlen = (size_t)(count - i),
        };
        ssize_t sent = sendmsg(fd, &header, MSG_NOSIGNAL);
        if (sent < 0) {
            return fstrm_res_failure;
        }
        for (; i < count && (size_t)sent >= iov[i].iov_len; i++) {
            sent -= (ssize_t)iov[i].iov_len;
        }
        while (i < count && sent > 0) { /* one that went in part */
            ssize_t more = send(fd, (const char *)iov[i].iov_base + sent,
                                iov[i].iov_len - (size_t)sent, MSG_NOSIGNAL);
            if (more < 0) {
                return fstrm_res_failure;
            }
            sent += more;
            if ((size_t)sent == iov[i].iov_len) {
                sent = 0;
                i++;
            }
        }
    }
    return fstrm_res_success;
}

static fstrm_res socket_destroy(void *arg)
{
    return fstrm_res_success;
}

/** Makes a writer. */
struct fstrm_writer *tap_socket_writer(struct tap_socket *sock)
{
    static const char content[] = "protobuf:dnstap.Dnstap";
    struct fstrm_writer_options *options = fstrm_writer_options_init();
    (void)fstrm_writer_options_add_content_type(options, content, sizeof(content) - 1);
    struct fstrm_rdwr *rdwr = fstrm_rdwr_init(sock);
    fstrm_rdwr_set_open(rdwr, socket_open);
    fstrm_rdwr_set_close(rdwr, socket_close);
    fstrm_rdwr_set_read(rdwr, socket_read);
    fstrm_rdwr_set_write(rdwr, socket_write);
    fstrm_rdwr_set_destroy(rdwr, socket_destroy);
    struct fstrm_writer *writer = fstrm_writer_init(options, &rdwr);
    fstrm_writer_options_destroy(&options);
    return writer;
}

/** Breaks. */
void tap_socket_break(struct tap_socket *sock)
{
    int fd = atomic_load(&sock->fd);
    if (fd >= 0) {
        (void)shutdown(fd, SHUT_RDWR);
    }
}
