/* A worker's TCP side.
 *
 * Happy path: octets are read into one buffer of the worker's; whole messages go to the module from
 * there, and only the rest is kept with the connection, so an idle one costs little. Failure modes:
 * too many queries in flight, or answers that are not read, stop the reading; silence for ten
 * seconds, a broken socket or too much unread ends the connection. Out of descriptors: the longest
 * idle connection goes, else accepting pauses.
 */
#include "tcp_server.h"

#include "clock.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { STREAM_SIZE = 2 * (MESSAGE_MAX + 2), ACCEPT_BURST = 64 };

static void list_remove(struct tcp_list *list, struct tcp_conn *conn)
{
    *(conn->prev != NULL ? &conn->prev->next : &list->first) = conn->next;
    *(conn->next != NULL ? &conn->next->prev : &list->last) = conn->prev;
    list->count--;
}

static void list_append(struct tcp_list *list, struct tcp_conn *conn)
{
    conn->prev = list->last;
    conn->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = conn;
    list->last = conn;
    list->count++;
}

static void conn_touch(struct tcp_list *list, struct tcp_conn *conn, uint64_t now_ns)
{
    conn->touched_ns = now_ns;
    list_remove(list, conn);
    list_append(list, conn);
}

static void conn_end(struct worker *worker, struct tcp_conn *conn)
{
    tcp_conn_close(conn);
    list_remove(&worker->tcp, conn);
    conn->next = worker->tcp.dead;
    worker->tcp.dead = conn;
}

/** Room for reading. */
bool tcp_server_init(struct worker *worker)
{
    worker->tcp.stream = malloc(STREAM_SIZE);
    return worker->tcp.stream != NULL;
}

/* Closes the longest untouched connection that waits for nothing. */
static bool idle_evict(struct worker *worker)
{
    for (struct tcp_conn *conn = worker->tcp.first; conn != NULL; conn = conn->next) {
        struct tcp_state state = tcp_conn_flush(conn, false);
        if (state.in_flight == 0 && state.out_len == 0) {
            conn_end(worker, conn);
            return true;
        }
    }
    return false;
}

static void interest_set(struct worker *worker, struct tcp_conn *conn, uint32_t interest)
{
    if (conn->interest == interest) {
        return;
    }
    struct epoll_event event = {.events = interest, .data.ptr = conn};
    (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
    conn->interest = interest;
}

static void conn_add(struct worker *worker, const struct port *port, int fd,
                     const struct client *client)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct tcp_conn *conn = tcp_conn_create(worker, fd, client);
    if (conn == NULL) {
        return;
    }
    conn->port = port;
    conn->interest = EPOLLIN;
    conn->touched_ns = clock_ns();
    list_append(&worker->tcp, conn);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        conn_end(worker, conn);
    }
}

static void accept_pause(struct worker *worker, const struct port *port)
{
    struct epoll_event event = {.data.ptr = (void *)(uintptr_t)port};
    (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_MOD, port->fd, &event);
    worker->tcp.accept_paused = true;
}

/** Accepts some connections. */
void tcp_server_accept(struct worker *worker, const struct port *port)
{
    for (int i = 0; i < ACCEPT_BURST; i++) {
        struct client client = {.remote.any.sa_family = AF_UNSPEC};
        socklen_t len = sizeof(client.remote);
        int fd = accept4(port->fd, &client.remote.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if ((errno == EMFILE || errno == ENFILE) && !idle_evict(worker)) {
                accept_pause(worker, port);
            }
            return;
        }
        if (worker->tcp.count >= TCP_CONNS_MAX && !idle_evict(worker)) {
            (void)close(fd);
            continue;
        }
        len = sizeof(client.local);
        if (getsockname(fd, &client.local.any, &len) != 0) {
            client.local.any.sa_family = AF_UNSPEC;
        }
        conn_add(worker, port, fd, &client);
    }
}

/* Lets whole messages in until the connection has enough in flight. @return octets used up */
static uint32_t messages_take(struct worker *worker, struct tcp_conn *conn, uint8_t *octets,
                              uint32_t len)
{
    uint32_t at = 0;
    while (len - at >= 2) {
        uint32_t message = get16(octets + at);
        if (len - at - 2 < message) {
            break;
        }
        if (tcp_conn_begin(conn) > TCP_IN_FLIGHT) {
            tcp_conn_end(conn, NULL, 0);
            break;
        }
        worker_query(worker, conn->port, &conn->client, conn, octets + at + 2, message);
        at += 2 + message;
    }
    return at;
}

/* Keeps what is not used up for the next time. */
static bool rest_keep(struct tcp_conn *conn, const uint8_t *octets, uint32_t len)
{
    if (len == 0) {
        free(conn->in);
        conn->in = NULL;
        conn->in_len = 0;
        return true;
    }
    uint8_t *in = realloc(conn->in, len);
    if (in == NULL) {
        return false;
    }
    memcpy(in, octets, len);
    conn->in = in;
    conn->in_len = len;
    return true;
}

/* Whether a whole message was kept because there was no room for it. */
static bool message_waits(const struct tcp_conn *conn)
{
    return conn->in_len >= 2 && conn->in_len - 2 >= get16(conn->in);
}

/* A client with Nagle's algorithm on that writes length and message apart sends the message when the
 * length is acknowledged, which the kernel would put off for some 40 ms. */
static void half_acknowledge(const struct tcp_conn *conn)
{
    int on = 1;
    if (conn->in_len > 0 && !message_waits(conn)) {
        (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
    }
}

/* Reads what there is, behind what was kept, and takes the messages. False when the connection is
 * at its end. */
static bool conn_read(struct worker *worker, struct tcp_conn *conn, bool readable)
{
    uint8_t *stream = worker->tcp.stream;
    uint32_t len = conn->in_len;
    if (len > 0) {
        memcpy(stream, conn->in, len);
    }
    if (readable && !conn->eof && len < STREAM_SIZE) {
        ssize_t got = recv(conn->fd, stream + len, STREAM_SIZE - len, 0);
        if (got < 0 && errno != EAGAIN && errno != EINTR) {
            return false;
        }
        conn->eof = got == 0;
        len += got > 0 ? (uint32_t)got : 0;
    }
    uint32_t used = messages_take(worker, conn, stream, len);
    if (used > 0) {
        conn_touch(&worker->tcp, conn, clock_ns());
    }
    if (!rest_keep(conn, stream + used, len - used)) {
        return false;
    }
    half_acknowledge(conn);
    return true;
}

/** Does what is due on a connection. */
void tcp_server_handle(struct worker *worker, struct tcp_conn *conn, uint32_t events)
{
    if (conn->fd < 0) {
        return;
    }
    bool readable = (events & EPOLLIN) != 0;
    if ((events & (EPOLLERR | EPOLLHUP)) != 0 && !readable) {
        conn_end(worker, conn);
        return;
    }
    if (conn->port != NULL && (readable || message_waits(conn)) &&
        !conn_read(worker, conn, readable)) {
        conn_end(worker, conn);
        return;
    }
    worker_flush(worker);
    bool waits = conn->port != NULL && message_waits(conn);
    bool last = (conn->eof || conn->port == NULL) && !waits;
    struct tcp_state state = tcp_conn_flush(conn, last);
    if (state.broken || (last && state.in_flight == 0 && state.out_len == 0)) {
        conn_end(worker, conn);
        return;
    }
    if (waits && !state.full) { /* room came before anyone was told to say so */
        worker_mail(worker, conn);
    }
    bool reads = !conn->eof && conn->port != NULL && !state.full;
    interest_set(worker, conn, (reads ? EPOLLIN : 0u) | (state.out_len > 0 ? EPOLLOUT : 0u));
}

/** Closes the idle ones. */
void tcp_server_tick(struct worker *worker, uint64_t now_ns)
{
    struct tcp_conn *conn = worker->tcp.first;
    while (conn != NULL && conn->touched_ns + TCP_IDLE_NS <= now_ns) {
        struct tcp_state state = tcp_conn_flush(conn, conn->eof || conn->port == NULL);
        if (state.in_flight > 0 || state.answered_ns + TCP_IDLE_NS > now_ns) {
            conn_touch(&worker->tcp, conn, state.in_flight > 0 ? now_ns : state.answered_ns);
        } else {
            conn_end(worker, conn);
        }
        conn = worker->tcp.first;
    }
    if (worker->tcp.accept_paused) {
        worker->tcp.accept_paused = false;
        size_t count;
        struct port *ports = epoch_ports(worker->epoch, worker->index, &count);
        for (size_t i = count / 2; i < count; i++) {
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = &ports[i]};
            (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_MOD, ports[i].fd, &event);
        }
    }
}

/** Goes over to the next epoch; connections of an address that is gone end after their last answer.
 */
void tcp_server_succeed(struct worker *worker)
{
    struct tcp_conn *next = NULL;
    for (struct tcp_conn *conn = worker->tcp.first; conn != NULL; conn = next) {
        next = conn->next;
        conn->port = conn->port != NULL ? conn->port->successor : NULL;
        if (conn->port == NULL) {
            tcp_server_handle(worker, conn, 0);
        }
    }
}

/** Lets go of what was closed. */
void tcp_server_bury(struct worker *worker)
{
    while (worker->tcp.dead != NULL) {
        struct tcp_conn *conn = worker->tcp.dead;
        worker->tcp.dead = conn->next;
        tcp_conn_unref(conn);
    }
}

/** Ends all connections. */
void tcp_server_fini(struct worker *worker)
{
    while (worker->tcp.first != NULL) {
        conn_end(worker, worker->tcp.first);
    }
    tcp_server_bury(worker);
    free(worker->tcp.stream);
}
