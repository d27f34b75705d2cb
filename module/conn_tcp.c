/* DNS over TCP (RFC 7766): two octets of length before every message.
 *
 * Happy path: length and message leave in one send (RFC 7766 8); the answer is read into the arena, its frame found, matched, and the conn goes
 * back to the pool. A frame that arrives in pieces waits in conn->in.
 *
 * Failure modes: EOF or an error on an idle conn takes it out of the pool at once; on one in flight it ends the exchange, stale if the
 * conn had been reused and nothing of the answer had come. An answer that comes together with the EOF is used first. Frames with another ID are
 * skipped (case 77); one with our ID that is no answer to our question ends the connection. Octets left over after the answer mean that
 * the peer is out of step: the conn is closed, not pooled.
 */
#include "conn.h"
#include "loop.h"
#include "transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { FRAME_HEADER = 2 };

/* Sends what an earlier send left over. The loop's thread alone does this; the buffer is out of the conn meanwhile, so no lock is held.
 * @return 0 or an errno */
static int push_out(struct conn *conn)
{
    pthread_mutex_lock(&conn->loop->lock);
    uint8_t *out = conn->out;
    uint32_t len = conn->out_len;
    conn->out = NULL;
    pthread_mutex_unlock(&conn->loop->lock);
    if (out == NULL) {
        return 0;
    }
    int err = 0;
    uint32_t at = 0;
    while (at < len && err == 0) {
        ssize_t n = send(conn->fd, out + at, len - at, MSG_NOSIGNAL);
        if (n >= 0) {
            at += (uint32_t)n;
        } else if (errno != EINTR) {
            err = errno;
        }
    }
    if (err != EAGAIN) {
        free(out);
        return err;
    }
    memmove(out, out + at, len - at);
    pthread_mutex_lock(&conn->loop->lock);
    conn->out = out;
    conn->out_len = len - at;
    pthread_mutex_unlock(&conn->loop->lock);
    return 0;
}

/* Leaves what the kernel did not take to the loop. */
static int leave_rest(struct conn *conn, const uint8_t *rest, uint32_t len)
{
    uint8_t *out = malloc(len);
    if (out == NULL) {
        return ENOMEM;
    }
    memcpy(out, rest, len);
    pthread_mutex_lock(&conn->loop->lock);
    conn->out = out;
    conn->out_len = len;
    pthread_mutex_unlock(&conn->loop->lock);
    /* room may have come back before the buffer was there: have epoll look again, or the edge is lost */
    struct epoll_event event = {.events = conn->ops->epoll_events, .data.ptr = conn};
    return epoll_ctl(conn->loop->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event) == 0 ? 0 : errno;
}

static int tcp_send(struct conn *conn, struct exchange *x)
{
    uint8_t *frame = x->wire - FRAME_HEADER;
    uint32_t len = x->wire_len + FRAME_HEADER;
    wire_put_u16(frame, (uint16_t)x->wire_len);
    ssize_t n = send(conn->fd, frame, len, MSG_NOSIGNAL);
    if (n == (ssize_t)len) {
        return 0;
    }
    if (n < 0 && errno != EAGAIN) {
        return errno;
    }
    uint32_t sent = n > 0 ? (uint32_t)n : 0;
    return leave_rest(conn, frame + sent, len - sent);
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

/* @return 0 or an errno */
static int connected(struct conn *conn)
{
    int err = 0;
    socklen_t len = sizeof(err);
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0) {
        err = errno;
    }
    if (err != 0) {
        return err;
    }
    uint64_t now = services_mono(conn->loop->services);
    transport_observe_dial(conn->transport, now - conn->dialled_ns);
    struct exchange *x;
    while ((x = next_unsent(conn, now)) != NULL) {
        err = conn->ops->send(conn, x);
        if (err != 0) {
            return err;
        }
    }
    return 0;
}

/* Takes the complete frames out of data. @return octets used; *ret_bad when a frame breaks the connection */
static uint32_t take_frames(struct conn *conn, uint8_t *data, uint32_t len, struct exchange **ret_answered, bool *ret_bad)
{
    uint32_t at = 0;
    while (len - at >= FRAME_HEADER) {
        uint32_t size = wire_u16(data + at);
        if (len - at - FRAME_HEADER < size) {
            break;
        }
        struct exchange *x;
        enum wire_answer answer = conn_match(conn, data + at + FRAME_HEADER, size, &x);
        at += FRAME_HEADER + size;
        if (answer == ANSWER_GOOD) {
            x->ended_next = *ret_answered;
            *ret_answered = x;
        } else if (answer != ANSWER_ID) {
            *ret_bad = true;
            break;
        }
    }
    return at;
}

/* Remembers a partial frame for the next event. */
static int keep_partial(struct conn *conn, const uint8_t *data, uint32_t len)
{
    uint8_t *in = NULL;
    if (len > 0) {
        in = malloc(len);
        if (in == NULL) {
            return ENOMEM;
        }
        memcpy(in, data, len);
    }
    free(conn->in);
    conn->in = in;
    conn->in_len = len;
    return 0;
}

struct reading {
    struct exchange *answered;
    bool again; /* more may be there */
    bool empty; /* nothing was there */
    bool closed;
    int err;     /* with closed: errno, 0 for EOF */
};

/* One read behind what is left of the last one, and the frames in it. */
static void read_once(struct conn *conn, struct reading *r)
{
    struct loop *loop = conn->loop;
    uint8_t *room = loop_room(loop);
    uint32_t have = conn->in_len;
    if (have > 0) {
        memcpy(room, conn->in, have);
    }
    uint32_t space = FRAME_HEADER + FWD_MAX_WIRE;
    ssize_t n = recv(conn->fd, room + have, space, 0);
    r->again = n == (ssize_t)space || (n < 0 && errno == EINTR);
    if (n <= 0) {
        r->empty = n < 0 && errno == EAGAIN;
        r->closed = n == 0 || (!r->empty && errno != EINTR);
        r->err = n == 0 ? 0 : errno;
        return;
    }
    uint32_t len = have + (uint32_t)n;
    loop_keep(loop, len);
    bool bad = false;
    uint32_t used = take_frames(conn, room, len, &r->answered, &bad);
    int err = bad ? EBADMSG : keep_partial(conn, room + used, len - used);
    if (err != 0) {
        r->closed = true;
        r->again = false;
        r->err = err;
    }
}

static void finish_all(struct exchange *answered, struct loop *loop)
{
    while (answered != NULL) {
        struct exchange *x = answered;
        answered = x->ended_next;
        exchange_finish(x, loop);
    }
}

static void read_all(struct conn *conn, bool hung_up)
{
    struct loop *loop = conn->loop;
    struct reading r = {0};
    do {
        read_once(conn, &r);
        /* a short read has emptied the socket, unless the peer has hung up: then the EOF is still to be read */
    } while (r.again || (hung_up && !r.closed && !r.empty));
    if (r.closed) {
        conn_fail(conn, r.err, PHASE_READ, r.answered != NULL);
    } else if (r.answered != NULL && conn->in_len > 0) {
        conn_fail(conn, EBADMSG, PHASE_READ, true);
    } else if (r.answered != NULL) {
        conn_release(conn);
    }
    finish_all(r.answered, loop);
}

static void tcp_event(struct conn *conn, uint32_t events)
{
    pthread_mutex_lock(&conn->loop->lock);
    bool connecting = conn->state == CONN_CONNECTING;
    pthread_mutex_unlock(&conn->loop->lock);
    int err = 0;
    if (connecting) {
        if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) {
            return;
        }
        err = connected(conn);
    } else if ((events & EPOLLOUT) != 0) {
        err = push_out(conn);
    }
    if (err != 0) {
        conn_fail(conn, err, connecting ? PHASE_DIAL : PHASE_WRITE, false);
        return;
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        read_all(conn, (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
    }
}

const struct conn_ops conn_tcp_ops = {
    .proto = FWD_PROTO_TCP,
    .limit = 1,
    .socket_type = SOCK_STREAM,
    .epoll_events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
    .send = tcp_send,
    .event = tcp_event,
};
