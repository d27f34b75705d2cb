/* What all connections have in common: opening, arming, matching answers, giving back, failing.
 *
 * Happy path: conn_open makes a connected non-blocking socket; conn_arm puts an exchange into its table; the answer comes, conn_match
 * detaches the exchange, conn_release gives the conn back to the pool.
 *
 * Failure modes: the socket fails (conn_fail): whatever is in flight on it ends with the error, marked stale when the conn had been
 * reused and had answered nothing; a conn that fails between take and arm is only marked dead, and its taker hands it over. Descriptors
 * or memory run out: conn_open says so and nothing is left behind.
 */
#include "conn.h"

#include "addr.h"
#include "loop.h"
#include "transport.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static int bind_source(int fd, const struct fwd_addr *source)
{
    /* leaves the choice of the port to connect, so that one source address can use a port towards several upstreams */
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){1}, sizeof(int));
    struct sockaddr_storage sa;
    socklen_t len = addr_to_sockaddr(source, &sa);
    return bind(fd, (struct sockaddr *)&sa, len) == 0 ? 0 : errno;
}

/* Opens a socket and connects it. @return the descriptor, or -1 with *ret_errno; *ret_pending when the connect goes on */
static int open_socket(const struct transport *transport, const struct conn_ops *ops, bool *ret_pending, int *ret_errno)
{
    struct sockaddr_storage sa;
    socklen_t len = addr_to_sockaddr(&transport->key.addr, &sa);
    int fd = socket(sa.ss_family, ops->socket_type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        *ret_errno = errno;
        return -1;
    }
    int err = 0;
    if (transport->key.source.family != 0) {
        err = bind_source(fd, &transport->key.source);
    }
    if (err == 0 && ops->socket_type == SOCK_STREAM) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    }
    *ret_pending = false;
    if (err == 0 && connect(fd, (struct sockaddr *)&sa, len) != 0) {
        *ret_pending = errno == EINPROGRESS;
        err = *ret_pending ? 0 : errno;
    }
    if (err != 0) {
        (void)close(fd);
        *ret_errno = err;
        return -1;
    }
    return fd;
}

struct conn *conn_open(struct transport *transport, const struct conn_ops *ops, struct loop *loop,
                       uint64_t now_ns, int *ret_errno)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL) {
        *ret_errno = ENOMEM;
        return NULL;
    }
    bool pending;
    int fd = open_socket(transport, ops, &pending, ret_errno);
    if (fd < 0) {
        goto fail_socket;
    }
    conn->ops = ops;
    conn->loop = loop;
    conn->fd = fd;
    conn->state = pending ? CONN_CONNECTING : CONN_READY;
    conn->dialled_ns = now_ns;
    conn->transport = transport_ref(transport);
    atomic_store_explicit(&conn->pins, 1, memory_order_relaxed);
    struct epoll_event event = {.events = ops->epoll_events, .data.ptr = conn};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        *ret_errno = errno;
        goto fail_epoll;
    }
    return conn;

fail_epoll:
    (void)close(fd);
    transport_unref(transport);
fail_socket:
    free(conn);
    return NULL;
}

void conn_free(struct conn *conn)
{
    /* a child of fork may hold the descriptor too, and epoll would go on reporting it */
    (void)epoll_ctl(conn->loop->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    (void)close(conn->fd);
    transport_unref(conn->transport);
    free(conn->out);
    free(conn->in);
    free(conn);
}

struct exchange *conn_find_locked(struct conn *conn, uint16_t id)
{
    struct exchange *x = conn->exchanges;
    while (x != NULL && x->id != id) {
        x = x->next;
    }
    return x;
}

/* The exchange's timer ran out: claimed under the lock, so that neither an answer nor a cancel can end it as well. */
static void timeout_claim(struct timer *timer)
{
    struct exchange *x = (struct exchange *)((char *)timer - offsetof(struct exchange, timer));
    struct conn *conn = x->conn;
    enum phase phase = x->sent ? PHASE_READ : conn->state == CONN_HANDSHAKE ? PHASE_HANDSHAKE : PHASE_DIAL;
    exchange_fail_locked(x, FWD_ERR_TIMEOUT, ETIMEDOUT, phase, x->started_ns);
    conn->dead = conn->dead || conn->ops->limit == 1;
    x->ended_on = conn;
}

static void timeout_fire(struct timer *timer)
{
    struct exchange *x = (struct exchange *)((char *)timer - offsetof(struct exchange, timer));
    struct conn *conn = x->ended_on;
    struct loop *loop = conn->loop;
    uint64_t now = services_mono(loop->services);
    x->outcome.elapsed_ns = now - x->started_ns;
    if (x->outcome.phase != PHASE_READ) {
        transport_observe_dial(conn->transport, now - conn->dialled_ns);
    }
    if (conn->ops->limit == 1) {
        /* never given back: a late answer must not be read by a later query (case 79) */
        loop_bury(loop, conn);
    }
    exchange_finish(x, loop);
}

enum conn_armed conn_arm(struct conn *conn, struct exchange *x, bool reused, uint64_t now_ns)
{
    struct loop *loop = conn->loop;
    enum conn_armed result = ARMED_DEAD;
    bool wake = false;
    x->timer = (struct timer){.claim = timeout_claim, .fire = timeout_fire};
    x->reused = reused;
    x->prev = NULL;
    wire_put_u16(x->wire, x->id);

    pthread_mutex_lock(&loop->lock);
    /* before the bit is read: a cancel that sets it now finds this loop, or is seen here */
    atomic_store(&x->home, loop);
    if ((atomic_load(x->word) & 1) != 0) {
        result = ARMED_CANCELED;
    } else if (conn_find_locked(conn, x->id) != NULL) {
        result = ARMED_ID_TAKEN;
    } else if (!conn->dead) {
        bool ready = conn->state == CONN_READY;
        uint64_t deadline = now_ns + (ready ? x->read_timeout_ns : transport_dial_timeout(conn->transport));
        result = ready ? ARMED_SEND : ARMED_WAIT;
        x->started_ns = now_ns;
        x->sent = ready;
        x->seq = ++conn->seq;
        x->conn = conn;
        x->next = conn->exchanges;
        if (x->next != NULL) {
            x->next->prev = x;
        }
        conn->exchanges = x;
        conn->in_flight++;
        wake = loop_arm_locked(loop, &x->timer, deadline < x->limit_ns ? deadline : x->limit_ns);
    }
    pthread_mutex_unlock(&loop->lock);
    if (wake) {
        loop_wake(loop);
    }
    return result;
}

bool conn_disarm(struct conn *conn, struct exchange *x, uint32_t seq)
{
    pthread_mutex_lock(&conn->loop->lock);
    struct exchange *in_table = conn->exchanges;
    while (in_table != NULL && in_table != x) {
        in_table = in_table->next;
    }
    bool mine = in_table != NULL && x->seq == seq;
    if (mine) {
        exchange_detach(x);
        conn->dead = true;
    }
    pthread_mutex_unlock(&conn->loop->lock);
    return mine;
}

static enum wire_answer check(const struct exchange *x, uint8_t *msg, uint32_t *len)
{
    if (x->any_reply) {
        return *len < WIRE_HEADER ? ANSWER_SHORT : ANSWER_GOOD;
    }
    return wire_answer_check(msg, len, x->wire, &x->query, x->id);
}

enum wire_answer conn_match(struct conn *conn, uint8_t *msg, uint32_t len, struct exchange **ret)
{
    enum wire_answer result = ANSWER_SHORT;
    struct exchange *x = NULL;
    if (len >= WIRE_HEADER) {
        uint64_t now = services_mono(conn->loop->services);
        pthread_mutex_lock(&conn->loop->lock);
        x = conn_find_locked(conn, wire_u16(msg));
        result = x != NULL ? check(x, msg, &len) : ANSWER_ID;
        if (result == ANSWER_GOOD) {
            exchange_detach(x);
            x->outcome = (struct outcome){
                .proto = conn->ops->proto,
                .elapsed_ns = now - x->started_ns,
                .wire = msg,
                .wire_len = len,
            };
        }
        pthread_mutex_unlock(&conn->loop->lock);
    }
    if (result != ANSWER_GOOD) {
        series_drop(conn->transport->series, result);
        return result;
    }
    if (x->want_local) {
        conn_local_addr(conn, &x->outcome.local);
    }
    *ret = x;
    return ANSWER_GOOD;
}

void conn_release(struct conn *conn)
{
    struct pool *pool = transport_pool(conn->transport, conn->ops->proto);
    if (conn->one_shot || !pool_give(pool, &conn->node, services_mono(conn->loop->services))) {
        loop_bury(conn->loop, conn);
    }
}

void conn_fail(struct conn *conn, int sys_errno, enum phase phase, bool owned)
{
    struct loop *loop = conn->loop;
    uint64_t now = services_mono(loop->services);
    bool was_idle = pool_seize(transport_pool(conn->transport, conn->ops->proto), &conn->node);
    struct exchange *failed = NULL;
    pthread_mutex_lock(&loop->lock);
    conn->dead = true;
    conn->fail_errno = sys_errno;
    while (conn->exchanges != NULL) {
        struct exchange *x = conn->exchanges;
        exchange_fail_locked(x, exchange_error_of(sys_errno), sys_errno, phase, now);
        x->outcome.stale = x->reused && conn->in_len == 0 && sys_errno != EBADMSG;
        x->ended_next = failed;
        failed = x;
    }
    pthread_mutex_unlock(&loop->lock);
    if (owned || was_idle || failed != NULL) {
        loop_bury(loop, conn);
    }
    if (phase == PHASE_DIAL) {
        transport_observe_dial(conn->transport, now - conn->dialled_ns);
    }
    while (failed != NULL) {
        struct exchange *x = failed;
        failed = x->ended_next;
        if (x->want_local) {
            conn_local_addr(conn, &x->outcome.local);
        }
        exchange_finish(x, loop);
    }
}

void conn_local_addr(const struct conn *conn, struct fwd_addr *ret)
{
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof(sa);
    (void)getsockname(conn->fd, (struct sockaddr *)&sa, &len);
    addr_from_sockaddr(&sa, ret);
}
