/* The connections of a scripted upstream: octets out and in, through TLS and HTTP/2.
 *
 * Happy path: TLS goes through a pair of memory BIOs, so that every octet that leaves passes
 * `link_transmit` and can be counted as a flight, cut or kept; what comes is read until no more
 * comes, and whole queries go to reply_on_message.
 *
 * Failure modes: a connection on which anything goes wrong is closed.
 */
#include "tls_inside.h"

#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ = 16 * 1024 };

/* --- octets out ------------------------------------------------------------------------------- */

void link_transmit(struct link *link, const uint8_t *data, size_t len)
{
    while (link->fd >= 0 && len > 0) {
        ssize_t n = send(link->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd poll_fd = {.fd = link->fd, .events = POLLOUT};
            n = poll(&poll_fd, 1, 2000) > 0 ? 0 : -1;
        }
        if (n < 0) {
            return;
        }
        data += n;
        len -= (size_t)n;
    }
}

/** Sends what TLS has made; in the handshake that is a flight. @param half only so much of it */
void link_flush(struct link *link, bool half)
{
    const struct tls_setup *setup = &link->up->setup;
    uint8_t *data;
    size_t len = (size_t)BIO_get_mem_data(link->out, &data);
    if (len == 0) {
        return;
    }
    bool stalls = setup->stall_conn == 0 || setup->stall_conn == link->number;
    if (++link->flights == setup->stall_flight && stalls) {
        link->stalled = true;
        half = setup->stall_half;
    }
    if (link->flights == 1 && !link->stalled) {
        pthread_mutex_unlock(&link->up->mutex); /* it can be asked for its counts meanwhile */
        (void)usleep(setup->hello_ms * 1000);
        pthread_mutex_lock(&link->up->mutex);
    }
    if (!link->stalled || half) {
        link_transmit(link, data, half ? len / 2 : len);
    }
    (void)BIO_reset(link->out);
}

void link_put(struct link *link, const uint8_t *data, size_t len, bool half)
{
    if (link->ssl == NULL) {
        link_transmit(link, data, half ? len / 2 : len);
        return;
    }
    (void)SSL_write(link->ssl, data, (int)len);
    link_flush(link, half);
}

void link_put_http(struct link *link, bool half)
{
    const uint8_t *data;
    size_t len;
    while ((len = http_server_pull(link->http, &data)) > 0) {
        link_put(link, data, len, half);
    }
}

void link_hang_up(struct link *link, enum ending how, bool notify)
{
    if (link->fd < 0) {
        return;
    }
    if (notify && link->ssl != NULL) {
        (void)SSL_shutdown(link->ssl);
        link_flush(link, false);
    }
    if (how == END_RST) {
        (void)setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1},
                         sizeof(struct linger));
    }
    (void)close(link->fd);
    link->fd = -1;
    link->up->counts.open--;
}

/* --- octets in -------------------------------------------------------------------------------- */

static void on_request(void *arg, const struct http_request *request)
{
    reply_on_message(arg, request->stream_id, request->wire, request->wire_len, request);
}

static void take_frames(struct link *link, const uint8_t *data, size_t len)
{
    link->data = realloc(link->data, link->len + len);
    upstream_require(link->data != NULL, "realloc");
    memcpy(link->data + link->len, data, len);
    link->len += len;
    size_t at = 0;
    while (link->fd >= 0 && link->len - at >= 2) {
        size_t size = message_id(link->data + at);
        if (link->len - at - 2 < size) {
            break;
        }
        reply_on_message(link, 0, link->data + at + 2, size, NULL);
        at += 2 + size;
    }
    link->len -= at;
    memmove(link->data, link->data + at, link->len);
}

static void take(struct link *link, const uint8_t *data, size_t len)
{
    link->up->counts.reads++;
    if (link->http == NULL) {
        take_frames(link, data, len);
        return;
    }
    unsigned resets = http_server_resets(link->http);
    bool good = http_server_feed(link->http, data, len);
    link->up->counts.resets += http_server_resets(link->http) - resets;
    link_put_http(link, false);
    if (!good) {
        link_hang_up(link, END_FIN, false);
    }
}

static void become_ready(struct link *link)
{
    struct tls_upstream *up = link->up;
    link->ready = true;
    up->counts.handshakes++;
    up->counts.resumed += SSL_session_reused(link->ssl) == 1;
    if (up->setup.kind == KIND_DOH) {
        link->http = http_server_create(
            up->setup.limit_streams ? (int64_t)up->setup.max_streams : -1, on_request, link);
        link_put_http(link, false);
    }
}

/** Lets TLS work on what came. */
static void advance(struct link *link)
{
    uint8_t data[READ];
    int n = 1;
    ERR_clear_error();
    if (!link->ready) {
        n = SSL_do_handshake(link->ssl);
        link_flush(link, false);
        if (n == 1 && !link->stalled) {
            become_ready(link);
        }
    }
    while (link->fd >= 0 && link->ready && (n = SSL_read(link->ssl, data, sizeof(data))) > 0) {
        take(link, data, (size_t)n);
    }
    if (link->fd < 0 || link->stalled) {
        return;
    }
    link_flush(link, false);
    int error = n > 0 ? SSL_ERROR_NONE : SSL_get_error(link->ssl, n);
    if (error == SSL_ERROR_ZERO_RETURN) {
        link->up->counts.closed_with_notify++;
    }
    if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ) {
        link_hang_up(link, END_FIN, false);
    }
}

void link_receive(struct link *link)
{
    uint8_t data[READ];
    ssize_t n = link->fd >= 0 ? recv(link->fd, data, sizeof(data), MSG_DONTWAIT) : -1;
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        link_hang_up(link, END_FIN, false);
    } else if (n > 0 && link->ssl == NULL) {
        take(link, data, (size_t)n);
    } else if (n > 0 && !link->stalled) {
        (void)BIO_write(link->in, data, (int)n);
        advance(link);
    }
}

bool link_accept(struct tls_upstream *up)
{
    int fd = accept4(up->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return false;
    }
    struct link *link = upstream_allocate(sizeof(*link));
    link->up = up;
    link->fd = fd;
    link->number = ++up->counts.opened;
    link->next = up->links;
    up->links = link;
    up->counts.open++;
    if (up->setup.kind != KIND_TCP) {
        link->ssl = SSL_new(up->ctx);
        link->in = BIO_new(BIO_s_mem());
        link->out = BIO_new(BIO_s_mem());
        upstream_require(link->ssl != NULL && link->in != NULL && link->out != NULL, "SSL_new");
        (void)BIO_set_mem_eof_return(link->in, -1);
        SSL_set_bio(link->ssl, link->in, link->out);
        SSL_set_accept_state(link->ssl);
    }
    return true;
}

void link_sweep(struct tls_upstream *up, bool all)
{
    struct link **at = &up->links;
    while (*at != NULL) {
        struct link *link = *at;
        if (!all && link->fd >= 0) {
            at = &link->next;
            continue;
        }
        *at = link->next;
        link_hang_up(link, END_FIN, false);
        http_server_destroy(link->http);
        SSL_free(link->ssl);
        free(link->data);
        free(link);
    }
}
