/* What all connections have in common: opening, arming, matching answers, giving back, failing.
 *
 * Happy path: conn_open makes a connected non-blocking socket; conn_arm puts an exchange into its table; the answer comes, conn_match
 * detaches the exchange, conn_release gives its place back to the pool.
 *
 * Failure modes: the socket fails (conn_fail): whatever is in flight on it ends with the error, marked stale when the conn had been
 * reused and had answered nothing of it; a taker who has not armed yet finds the conn dead. Descriptors or memory run out: conn_open says
 * so and nothing is left behind. A dial or handshake fails, and the upstream shows no other sign of life: who waits for a conn of it fails likewise.
 */
#include "conn.h"

#include "addr.h"
#include "loop.h"
#include "transport.h"
#include "turn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    KEEPALIVE_UNIT_NS = 100 * 1000 * 1000, /* of TIMEOUT */
    OTHERS_NS = 20 * 1000 * 1000,          /* in which a server closes all its connections */
};

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

static void set_keepalive(int fd, uint64_t idle_ns)
{
    int seconds = idle_ns / 1000000000 > 0 ? (int)(idle_ns / 1000000000) : 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
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
        if (transport->key.keepalive_ns > 0) {
            set_keepalive(fd, transport->key.keepalive_ns);
        }
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

static int make(struct conn *conn, struct transport *transport, const struct conn_ops *ops, struct loop *loop, uint64_t now_ns)
{
    int err = 0;
    bool pending;
    conn->ops = ops;
    conn->loop = loop;
    conn->dialled_ns = now_ns;
    conn->node.limit = transport_places(transport, ops->proto);
    conn->fd = open_socket(transport, ops, &pending, &err);
    if (conn->fd < 0) {
        return err;
    }
    conn->state = pending ? CONN_CONNECTING : ops->open != NULL ? CONN_HANDSHAKE : CONN_READY;
    conn->transport = transport_ref(transport);
    pthread_mutex_init(&conn->io, NULL);
    conn_pin(conn);
    return ops->open != NULL ? ops->open(conn) : 0;
}

void conn_drop(struct conn *conn)
{
    if (conn->fd >= 0) {
        if (conn->ops->fini != NULL) {
            conn->ops->fini(conn);
        }
        (void)close(conn->fd);
        pthread_mutex_destroy(&conn->io);
        if (conn->node.counted) {
            transport_closed(conn->transport, conn);
        }
        transport_unref(conn->transport);
    }
    free(conn->why);
    free(conn->out);
    free(conn->in);
    free(conn);
}

struct conn *conn_open(struct transport *transport, const struct conn_ops *ops, struct loop *loop,
                       uint64_t now_ns, int *ret_errno)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL) {
        *ret_errno = ENOMEM;
        return NULL;
    }
    int err = make(conn, transport, ops, loop, now_ns);
    if (err != 0) {
        conn_drop(conn); /* as far as it came */
        *ret_errno = err;
        return NULL;
    }
    return conn;
}

void conn_free(struct conn *conn)
{
    if (conn->ops->bye != NULL && conn->fail_errno == 0) {
        conn->ops->bye(conn);
    }
    /* a child of fork may hold the descriptor too, and epoll would go on reporting it */
    (void)epoll_ctl(conn->loop->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    conn_drop(conn);
}

int conn_watch(struct conn *conn)
{
    struct epoll_event event = {.events = conn->ops->epoll_events, .data.ptr = conn};
    return epoll_ctl(conn->loop->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) == 0 ? 0 : errno;
}

ssize_t conn_transmit(const struct conn *conn, const uint8_t *data, size_t len)
{
    return syscall(SYS_sendto, conn->fd, data, len, MSG_NOSIGNAL, NULL, 0);
}

ssize_t conn_receive(const struct conn *conn, uint8_t *room, size_t len)
{
    return syscall(SYS_recvfrom, conn->fd, room, len, 0, NULL, NULL);
}

bool frame_init(struct frame *frame, const struct edns *edns, const uint8_t *msg, uint32_t len)
{
    uint32_t room = len + edns_room(edns);
    frame->data = room <= FRAME_INLINE ? frame->space : malloc(FRAME_HEADER + room);
    if (frame->data == NULL) {
        return false;
    }
    memcpy(frame->data + FRAME_HEADER, msg, len);
    len = edns_off(edns) ? len : edns_add(edns, frame->data + FRAME_HEADER, len);
    wire_put_u16(frame->data, (uint16_t)len);
    frame->len = FRAME_HEADER + len;
    return true;
}

void frame_fini(struct frame *frame)
{
    if (frame->data != frame->space) {
        free(frame->data);
    }
}

struct exchange *conn_find_locked(struct conn *conn, uint32_t key)
{
    struct exchange *x = conn->exchanges;
    while (x != NULL && x->key != key) {
        x = x->next;
    }
    return x;
}

static struct exchange *exchange_of(struct timer *timer)
{
    return (struct exchange *)((char *)timer - offsetof(struct exchange, timer));
}

/* The exchange's timer ran out: claimed under the lock, so that neither an answer nor a cancel can end it as well. */
static bool timeout_claim(struct timer *timer)
{
    struct exchange *x = exchange_of(timer);
    enum phase phase = x->sent                                    ? PHASE_READ
                       : x->conn->state == CONN_HANDSHAKE ? PHASE_HANDSHAKE
                                                                  : PHASE_DIAL;
    exchange_fail_locked(x, FWD_ERR_TIMEOUT, ETIMEDOUT, phase, x->started_ns);
    return true;
}

static void timeout_fire(struct timer *timer)
{
    struct exchange *x = exchange_of(timer);
    struct loop *loop = x->ended_on->loop;
    x->outcome.elapsed_ns = services_mono(loop->services) - x->started_ns;
    exchange_finish(x, loop);
}

/* How long from now an exchange has that is armed in this state. Lock held. */
static uint64_t patience_locked(const struct conn *conn, const struct exchange *x)
{
    switch (conn->state) {
    case CONN_READY:
        return x->read_timeout_ns;
    case CONN_HANDSHAKE:
        return transport_handshake_timeout(conn->transport);
    default:
        return transport_dial_timeout(conn->transport);
    }
}

/* The loop was quicker: a new conn has failed before its exchange was armed. It ends there, with the reason, as if it had been in the table. */
static void arm_dead_locked(struct conn *conn, struct exchange *x, uint64_t now_ns)
{
    struct loop *loop = conn->loop;
    x->outcome = (struct outcome){
        .error = exchange_error_of(conn->fail_errno),
        .sys_errno = conn->fail_errno,
        .phase = conn->fail_phase,
        .proto = conn->ops->proto,
        .elapsed_ns = now_ns - conn->dialled_ns,
    };
    x->ended_on = conn;
    conn_pin(conn); /* until exchange_finish */
    x->ended_next = loop->ended;
    loop->ended = x;
}

enum conn_armed conn_arm(struct conn *conn, struct exchange *x, bool reused, uint64_t now_ns, uint32_t *ret_seq)
{
    struct loop *loop = conn->loop;
    enum conn_armed result = ARMED_DEAD;
    bool wake = false;
    x->timer = (struct timer){.claim = timeout_claim, .fire = timeout_fire};
    x->reused = reused;
    x->prev = NULL;
    x->bare_flags = 0;
    x->key = x->id;

    pthread_mutex_lock(&loop->lock);
    /* before the bit is read: a cancel that sets it now finds this loop, or is seen here */
    atomic_store(&x->home, loop);
    if ((atomic_load(x->word) & 1) != 0) {
        result = ARMED_CANCELED;
    } else if (!conn->ops->own_keys && conn_find_locked(conn, x->key) != NULL) {
        result = ARMED_ID_TAKEN;
    } else if (!conn->dead) {
        bool ready = conn->state == CONN_READY;
        uint64_t deadline = now_ns + patience_locked(conn, x);
        result = ready ? ARMED_SEND : ARMED_WAIT;
        x->started_ns = now_ns;
        x->sent = ready;
        x->seq = *ret_seq = ++conn->seq;
        x->conn = conn;
        x->next = conn->exchanges;
        if (x->next != NULL) {
            x->next->prev = x;
        }
        conn->exchanges = x;
        conn->in_flight++;
        wake = loop_arm_locked(loop, &x->timer, deadline < x->limit_ns ? deadline : x->limit_ns);
    } else if (!reused) {
        arm_dead_locked(conn, x, now_ns);
        result = ARMED_WAIT;
        wake = true;
    }
    pthread_mutex_unlock(&loop->lock);
    if (wake) {
        loop_wake(loop);
    }
    return result;
}

/* x when it is still in the table by that arming, else NULL. */
static struct exchange *armed_locked(struct conn *conn, struct exchange *x, uint32_t seq)
{
    struct exchange *in_table = conn->exchanges;
    while (in_table != NULL && in_table != x) {
        in_table = in_table->next;
    }
    return in_table != NULL && x->seq == seq ? x : NULL;
}

static void die_locked(struct conn *conn, int sys_errno, enum phase phase)
{
    if (!conn->dead) {
        conn->dead = true;
        conn->fail_errno = sys_errno;
        conn->fail_phase = phase;
    }
}

bool conn_disarm(struct conn *conn, struct exchange *x, uint32_t seq, int sys_errno)
{
    pthread_mutex_lock(&conn->loop->lock);
    bool mine = armed_locked(conn, x, seq) != NULL;
    if (mine) {
        exchange_detach(x);
        die_locked(conn, sys_errno, PHASE_WRITE);
    }
    pthread_mutex_unlock(&conn->loop->lock);
    return mine;
}

void conn_break(struct conn *conn, int sys_errno)
{
    pthread_mutex_lock(&conn->loop->lock);
    die_locked(conn, sys_errno, PHASE_WRITE);
    pthread_mutex_unlock(&conn->loop->lock);
    loop_doom(conn->loop, conn);
}

bool conn_is_closing(struct conn *conn)
{
    pthread_mutex_lock(&conn->loop->lock);
    bool closing = conn->closing;
    pthread_mutex_unlock(&conn->loop->lock);
    return closing;
}

bool conn_rekey(struct conn *conn, struct exchange *x, uint32_t seq, uint32_t key)
{
    pthread_mutex_lock(&conn->loop->lock);
    bool there = armed_locked(conn, x, seq) != NULL;
    if (there) {
        x->key = key;
    }
    pthread_mutex_unlock(&conn->loop->lock);
    return there;
}

/* @param[out] ret_timeout as edns_remove has it */
static enum wire_answer check(const struct conn *conn, const struct exchange *x, uint8_t *msg, uint32_t *len, int32_t *ret_timeout)
{
    *ret_timeout = EDNS_NO_TIMEOUT;
    if (x->any_reply) {
        return *len < WIRE_HEADER ? ANSWER_SHORT : ANSWER_GOOD;
    }
    enum wire_answer answer = wire_answer_check(msg, len, x->wire, &x->query, x->id);
    bool as_asked = answer != ANSWER_GOOD || edns_off(&conn->edns) || edns_remove(&conn->edns, x->wire, x->wire_len, msg, len, ret_timeout);
    return as_asked ? answer : ANSWER_MALFORMED;
}

/* RFC 7828 3.2.2: the server closes the conn when it has been idle for so long; 0: it wants no more queries on it. */
static void heed_timeout(struct conn *conn, int32_t timeout)
{
    struct pool *pool = transport_pool(conn->transport, conn->ops->proto);
    if (timeout == 0) {
        pool_retire(pool, &conn->node);
    } else if (timeout != EDNS_NO_TIMEOUT) {
        pool_bound_idle(pool, &conn->node, (uint64_t)timeout * KEEPALIVE_UNIT_NS);
    }
}

enum wire_answer conn_match(struct conn *conn, uint32_t key, uint8_t *msg, uint32_t len, struct exchange **ret)
{
    uint64_t now = conn->heard_ns;
    int32_t timeout = EDNS_NO_TIMEOUT;
    pthread_mutex_lock(&conn->loop->lock);
    struct exchange *x = conn_find_locked(conn, key);
    enum wire_answer result = x != NULL ? check(conn, x, msg, &len, &timeout) : ANSWER_ID;
    if (result == ANSWER_GOOD) {
        conn->answered = true;
        exchange_detach(x);
        x->outcome = (struct outcome){
            .proto = conn->ops->proto,
            .elapsed_ns = now > x->started_ns ? now - x->started_ns : 0, /* it may have been sent since */
            .wire = msg,
            .wire_len = len,
        };
    } else if (result == ANSWER_BARE) {
        exchange_keep_error_locked(x, wire_u16(msg + 2), now);
    }
    pthread_mutex_unlock(&conn->loop->lock);
    if (result != ANSWER_GOOD) {
        series_drop(conn->transport->series, result);
        return result;
    }
    heed_timeout(conn, timeout);
    if (x->want_local) {
        conn_local_addr(conn, &x->outcome.local);
    }
    *ret = x;
    return ANSWER_GOOD;
}

void conn_release(struct conn *conn, bool success, uint64_t now_ns)
{
    struct transport *transport = conn->transport;
    if (conn->one_shot) {
        loop_bury(conn->loop, conn);
        return;
    }
    struct pool_waiter *waiter;
    switch (pool_give(transport_pool(transport, conn->ops->proto), &conn->node, success, now_ns, &waiter)) {
    case GAVE_KEPT:
        break;
    case GAVE_WAITER:
        turn_give(waiter, conn);
        break;
    case GAVE_CLOSE:
        loop_bury(conn->loop, conn);
        break;
    }
}

/* Marks the next exchange that waited for the connection as sent and starts its read time. */
static struct exchange *next_unsent(struct conn *conn, uint64_t now_ns)
{
    struct loop *loop = conn->loop;
    pthread_mutex_lock(&loop->lock);
    conn->state = CONN_READY;
    struct exchange *x = conn->exchanges;
    while (x != NULL && x->sent) {
        x = x->next;
    }
    if (x != NULL) {
        uint64_t deadline = now_ns + x->read_timeout_ns;
        x->sent = true;
        wheel_remove(&loop->wheel, &x->timer);
        (void)loop_arm_locked(loop, &x->timer, deadline < x->limit_ns ? deadline : x->limit_ns);
    }
    pthread_mutex_unlock(&loop->lock);
    return x;
}

static int send_copy(struct conn *conn, struct exchange *x)
{
    struct frame frame;
    if (!frame_init(&frame, &conn->edns, x->wire, x->wire_len)) {
        return ENOMEM;
    }
    wire_put_u16(frame.data + FRAME_HEADER, x->id);
    int err = conn->ops->send(conn, frame.data, frame.len, x, x->seq);
    frame_fini(&frame);
    return err;
}

int conn_become_ready(struct conn *conn)
{
    uint64_t now = services_mono(conn->loop->services);
    transport_observe_dial(conn->transport, now - conn->dialled_ns);
    struct exchange *x;
    while ((x = next_unsent(conn, now)) != NULL) {
        /* it may be canceled meanwhile, but only this thread finishes it, so its message stays readable */
        int err = send_copy(conn, x);
        if (err != 0) {
            return err;
        }
    }
    if (!conn->one_shot) {
        transport_ready(conn->transport, conn);
    }
    return 0;
}

void conn_begin_handshake(struct conn *conn)
{
    struct loop *loop = conn->loop;
    uint64_t until = services_mono(loop->services) + transport_handshake_timeout(conn->transport);
    pthread_mutex_lock(&loop->lock);
    conn->state = CONN_HANDSHAKE;
    for (struct exchange *x = conn->exchanges; x != NULL; x = x->next) {
        wheel_remove(&loop->wheel, &x->timer);
        (void)loop_arm_locked(loop, &x->timer, until < x->limit_ns ? until : x->limit_ns);
    }
    pthread_mutex_unlock(&loop->lock);
}

static bool closed_by_peer(int sys_errno)
{
    return sys_errno == 0 || sys_errno == ECONNRESET || sys_errno == EPIPE;
}

/* Detaches everything in flight, to be finished by the caller. */
static struct exchange *fail_all(struct conn *conn, int sys_errno, enum phase phase)
{
    struct loop *loop = conn->loop;
    uint64_t now = services_mono(loop->services);
    struct exchange *failed = NULL;
    pthread_mutex_lock(&conn->io);
    uint32_t unwritten = conn->out_count;
    pthread_mutex_unlock(&conn->io);
    pthread_mutex_lock(&loop->lock);
    die_locked(conn, sys_errno, phase);
    bool several = conn->in_flight > 1;
    bool written = conn->in_flight > unwritten;
    /* a write that fails with a time-out shows a connection that died while it was idle */
    bool mute = sys_errno == ETIMEDOUT && conn->fail_phase != PHASE_WRITE;
    bool silent = conn->in_len == 0 && sys_errno != EBADMSG && !mute && sys_errno != ECANCELED;
    if (conn->answered && closed_by_peer(sys_errno)) {
        transport_note_close(conn->transport, now);
    }
    while (conn->exchanges != NULL) {
        struct exchange *x = conn->exchanges;
        exchange_fail_locked(x, exchange_error_of(sys_errno), sys_errno, x->sent || phase == PHASE_HANDSHAKE ? phase : PHASE_DIAL, now);
        /* on a shared conn the death of the conn says nothing about any one exchange: each is tried again */
        x->outcome.stale = x->sent && silent && (x->reused || several);
        x->outcome.shared = conn->node.shareable;
        x->outcome.cut = !x->outcome.stale && silent && closed_by_peer(sys_errno) && !conn->one_shot;
        x->ended_next = failed;
        failed = x;
    }
    pthread_mutex_unlock(&loop->lock);
    if (several && silent && written) { /* else it cannot have been cut off for that */
        transport_note_cut(conn->transport);
    }
    return failed;
}

bool conn_was_given_time(const struct conn *conn, enum phase phase)
{
    uint64_t took_ns = services_mono(conn->loop->services) - conn->dialled_ns;
    return took_ns >= transport_least_patience(conn->transport, phase);
}

/* Whether a conn has failed because its upstream cannot be dialled. What this machine lacks says nothing about that. */
static bool dial_failed(const struct conn *conn, int sys_errno, enum phase phase)
{
    int error = exchange_error_of(sys_errno);
    if ((phase != PHASE_DIAL && phase != PHASE_HANDSHAKE) || error == FWD_ERR_CANCELED || error == FWD_ERR_EXHAUSTED) {
        return false;
    }
    return error != FWD_ERR_TIMEOUT || conn_was_given_time(conn, phase);
}

/* Those who wait for a conn end as if they had dialled this one. @param failed what was in flight on it; they come after that */
static void share_fate(struct conn *conn, int sys_errno, enum phase phase, struct exchange **failed)
{
    if (!dial_failed(conn, sys_errno, phase)) {
        return;
    }
    uint64_t now = services_mono(conn->loop->services);
    while (*failed != NULL) {
        failed = &(*failed)->ended_next;
    }
    *failed = turn_dial_failed(conn->transport, conn);
    for (struct exchange *x = *failed; x != NULL; x = x->ended_next) {
        x->outcome = (struct outcome){
            .error = exchange_error_of(sys_errno),
            .sys_errno = sys_errno,
            .phase = phase,
            .shared = true,
            .cut = closed_by_peer(sys_errno),
            .proto = conn->ops->proto,
            .elapsed_ns = now - x->wait_since_ns,
        };
        x->ended_on = conn;
        x->placeless = true;
        conn_pin(conn); /* until exchange_finish */
    }
}

static void finish_cut(struct timer *timer)
{
    struct exchange *x = exchange_of(timer);
    struct conn *conn = x->ended_on;
    x->outcome.stale = transport_closed_since(conn->transport, conn->dialled_ns);
    exchange_finish(x, conn->loop);
}

/* A server that restarts, or closes all connections when their time is over, means none of the exchanges on them. That it is one is known when it has
 * closed a connection that it had answered on; the event of that one may come a moment after this one's. */
static void await_others(struct exchange *x, struct conn *conn)
{
    struct loop *loop = conn->loop;
    x->timer = (struct timer){.fire = finish_cut};
    if (transport_closed_since(conn->transport, conn->dialled_ns) || !transport_has_others(conn->transport, conn->ops->proto)) {
        finish_cut(&x->timer);
    } else {
        loop_arm(loop, &x->timer, services_mono(loop->services) + OTHERS_NS);
    }
}

void conn_fail(struct conn *conn, int sys_errno, enum phase phase)
{
    struct loop *loop = conn->loop;
    struct exchange *failed = fail_all(conn, sys_errno, phase);
    share_fate(conn, sys_errno, phase, &failed);
    loop_bury(loop, conn);
    if (phase == PHASE_DIAL) {
        transport_observe_dial(conn->transport, services_mono(loop->services) - conn->dialled_ns);
    }
    while (failed != NULL) {
        struct exchange *x = failed;
        failed = x->ended_next;
        if (x->outcome.cut) {
            await_others(x, conn);
        } else {
            exchange_finish(x, loop);
        }
    }
}

void conn_fail_one(struct conn *conn, uint32_t key, int error, const char *why)
{
    struct loop *loop = conn->loop;
    uint64_t now = services_mono(loop->services);
    pthread_mutex_lock(&loop->lock);
    struct exchange *x = conn_find_locked(conn, key);
    if (x != NULL) {
        exchange_fail_locked(x, error, 0, PHASE_READ, now);
    }
    pthread_mutex_unlock(&loop->lock);
    if (x != NULL) {
        x->outcome.why = why;
        exchange_finish(x, loop);
    }
}

static void refuse_locked(struct exchange *x, uint64_t now_ns)
{
    exchange_fail_locked(x, FWD_ERR_CLOSED, 0, PHASE_READ, now_ns);
    x->outcome.stale = true;
    x->outcome.shared = true;
}

void conn_refuse_key(struct conn *conn, uint32_t key)
{
    struct loop *loop = conn->loop;
    uint64_t now = services_mono(loop->services);
    pthread_mutex_lock(&loop->lock);
    struct exchange *x = conn_find_locked(conn, key);
    if (x != NULL) {
        refuse_locked(x, now);
    }
    pthread_mutex_unlock(&loop->lock);
    if (x != NULL) {
        exchange_finish(x, loop);
    }
}

void conn_refuse(struct conn *conn, struct exchange *x, uint32_t seq)
{
    struct loop *loop = conn->loop;
    uint64_t now = services_mono(loop->services);
    pthread_mutex_lock(&loop->lock);
    bool mine = armed_locked(conn, x, seq) != NULL;
    if (mine) {
        refuse_locked(x, now);
    }
    pthread_mutex_unlock(&loop->lock);
    if (mine) {
        loop_end(loop, x);
    }
}

void conn_local_addr(const struct conn *conn, struct fwd_addr *ret)
{
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof(sa);
    (void)getsockname(conn->fd, (struct sockaddr *)&sa, &len);
    addr_from_sockaddr(&sa, ret);
}
