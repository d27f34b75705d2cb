/* Framed streams.
 *
 * Happy path: length and message leave in one write (RFC 7766 8); what comes is read into the arena, its frames found and matched, and the
 * place goes back to the pool. A frame that arrives in pieces waits in conn->in.
 *
 * Failure modes: EOF or an error on an idle conn takes it out of the pool at once; on one in use it ends what is in flight, stale if nothing of
 * an answer had come. An answer that comes together with the EOF is used first. Frames with another ID are skipped (case 77); one with our
 * ID that is no answer to our question ends the connection. Octets left over on a conn with nothing in flight mean that the peer is out of
 * step: the conn is closed, not pooled. A write that the kernel takes only in part is finished by the loop. Where several queries share the conn, those
 * of one batch wait for each other (cork.c).
 */
#include "conn_stream.h"

#include "cork.h"
#include "loop.h"
#include "transport.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    FEW_IN_FLIGHT = 8,
    ACKNOWLEDGE_NS = 1000 * 1000,
    KEPT_MAX = 16 * 1024, /* a TLS record: to keep more for it would win nothing */
};

/* --- octets ------------------------------------------------------------------------------------------------------- */

ssize_t conn_stream_recv(struct conn *conn, uint8_t *buf, size_t len)
{
    if (conn->drained) {
        return -EAGAIN;
    }
    ssize_t n;
    do {
        n = conn_receive(conn, buf, len);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        conn->drained = errno == EAGAIN;
        return -errno;
    }
    /* a short read has emptied the socket, unless the peer has hung up: then the EOF is still to be read */
    conn->drained = n > 0 && (size_t)n < len && !conn->hung_up;
    return n;
}

ssize_t conn_stream_transmit(struct conn *conn, const uint8_t *buf, size_t len)
{
    ssize_t n;
    do {
        n = conn_transmit(conn, buf, len);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int conn_stream_push(struct conn *conn, const struct stream_io *io)
{
    while (conn->out_len > 0) {
        ssize_t n = io->write(conn, conn->out, conn->out_len);
        if (n < 0) {
            return n == -EAGAIN ? 0 : (int)-n;
        }
        conn->out_len -= (uint32_t)n;
        memmove(conn->out, conn->out + n, conn->out_len);
    }
    free(conn->out);
    conn->out = NULL;
    conn->out_count = 0;
    return 0;
}

static int keep_rest(struct conn *conn, const uint8_t *rest, uint32_t len)
{
    uint8_t *out = realloc(conn->out, (size_t)conn->out_len + len);
    if (out == NULL) {
        return ENOMEM;
    }
    memcpy(out + conn->out_len, rest, len);
    conn->out = out;
    conn->out_len += len;
    conn->out_count++;
    return 0;
}

int conn_stream_put(struct conn *conn, const struct stream_io *io, const uint8_t *data, uint32_t len)
{
    uint32_t at = 0;
    if (conn->out_len > 0) {
        int err = keep_rest(conn, data, len);
        return err != 0 ? err : conn_stream_push(conn, io);
    }
    while (at < len) {
        ssize_t n = io->write(conn, data + at, len - at);
        if (n == -EAGAIN) {
            break;
        }
        if (n < 0) {
            return (int)-n;
        }
        at += (uint32_t)n;
    }
    return at < len ? keep_rest(conn, data + at, len - at) : 0;
}

int conn_stream_send(struct conn *conn, const struct stream_io *io, const uint8_t *frame, uint32_t len)
{
    pthread_mutex_lock(&conn->io);
    bool keep = conn->node.shareable && conn->out_len < KEPT_MAX && cork_hold(conn);
    int err = keep ? keep_rest(conn, frame, len) : conn_stream_put(conn, io, frame, len);
    pthread_mutex_unlock(&conn->io);
    return err;
}

/* --- coming up ---------------------------------------------------------------------------------------------------- */

static int socket_error(struct conn *conn)
{
    int err = 0;
    socklen_t len = sizeof(err);
    return getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 ? err : errno;
}

static int shake_hands(struct conn *conn, const struct stream_io *io)
{
    pthread_mutex_lock(&conn->io);
    int r = io->handshake(conn);
    pthread_mutex_unlock(&conn->io);
    return -r;
}

/* @return 1 ready, 0 not yet, -1 failed */
static int come_up(struct conn *conn, const struct stream_io *io, uint32_t events)
{
    int err = 0;
    enum phase phase = PHASE_DIAL;
    if (conn->state == CONN_CONNECTING) {
        if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) {
            return 0;
        }
        err = socket_error(conn);
        if (err == 0 && io->handshake != NULL) {
            conn_begin_handshake(conn);
        }
    }
    if (err == 0 && io->handshake != NULL) {
        phase = PHASE_HANDSHAKE;
        err = shake_hands(conn, io);
        if (err == EAGAIN) {
            return 0;
        }
    }
    if (err == 0) {
        phase = PHASE_WRITE;
        err = conn_become_ready(conn);
    }
    if (err != 0) {
        conn_fail(conn, err, phase);
        return -1;
    }
    return 1;
}

/* Only the loop's thread changes the state, so it may read it without the lock. */
bool conn_stream_begin(struct conn *conn, const struct stream_io *io, uint32_t events)
{
    bool ready = conn->state == CONN_READY;
    pthread_mutex_lock(&conn->io);
    conn->drained = false;
    conn->hung_up = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    int err = ready && conn->out_len > 0 ? conn_stream_push(conn, io) : 0;
    pthread_mutex_unlock(&conn->io);
    if (err != 0) {
        conn_fail(conn, err, PHASE_WRITE);
        return false;
    }
    return ready || come_up(conn, io, events) > 0;
}

/* --- frames ------------------------------------------------------------------------------------------------------- */

struct reading {
    struct exchange *answered;
    uint32_t answers;
    bool unsent; /* octets wait to be written */
    bool ended;  /* the stream */
    int err;     /* with ended: errno, 0 for EOF */
};

/* Takes the complete frames out of data. @return octets used */
static uint32_t take_frames(struct conn *conn, uint8_t *data, uint32_t len, struct reading *r)
{
    uint32_t at = 0;
    while (len - at >= FRAME_HEADER) {
        uint32_t size = wire_u16(data + at);
        if (len - at - FRAME_HEADER < size) {
            break;
        }
        uint8_t *msg = data + at + FRAME_HEADER;
        struct exchange *x;
        enum wire_answer answer = size < WIRE_HEADER ? ANSWER_SHORT : conn_match(conn, wire_u16(msg), msg, size, &x);
        at += FRAME_HEADER + size;
        if (answer == ANSWER_GOOD) {
            x->ended_next = r->answered;
            r->answered = x;
            r->answers++;
        } else if (answer != ANSWER_ID) {
            r->ended = true;
            r->err = EBADMSG;
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

/* One read behind what is left of the last one, and the frames in it. @return true when there may be more */
static bool read_once(struct conn *conn, const struct stream_io *io, struct reading *r)
{
    struct loop *loop = conn->loop;
    uint8_t *room = loop_room(loop);
    uint32_t have = conn->in_len;
    if (have > 0) {
        memcpy(room, conn->in, have);
    }
    pthread_mutex_lock(&conn->io);
    ssize_t n = io->read(conn, room + have, FRAME_HEADER + FWD_MAX_WIRE);
    bool more = conn_stream_more(conn, io);
    r->unsent = conn->out_len > 0;
    pthread_mutex_unlock(&conn->io);
    if (n == -EAGAIN) {
        return false;
    }
    if (n <= 0) {
        r->ended = true;
        r->err = (int)-n;
        return false;
    }
    uint32_t len = have + (uint32_t)n;
    loop_keep(loop, len);
    conn->heard_ns = services_mono(loop->services);
    uint32_t used = take_frames(conn, room, len, r);
    int err = r->ended ? 0 : keep_partial(conn, room + used, len - used);
    if (err != 0) {
        r->ended = true;
        r->err = err;
    }
    return more && !r->ended;
}

static uint32_t in_flight_on(struct conn *conn)
{
    pthread_mutex_lock(&conn->loop->lock);
    uint32_t count = conn->in_flight;
    pthread_mutex_unlock(&conn->loop->lock);
    return count;
}

/* The last answer has come, but octets are left over on one side: the peer is out of step. */
static bool out_of_step(struct conn *conn, const struct reading *r)
{
    bool unsent = r->unsent && !conn->node.shareable; /* on a shared one they may be a batch's that has not been sent yet */
    return (conn->in_len > 0 || unsent) && in_flight_on(conn) == 0;
}

void conn_stream_acknowledge(struct conn *conn)
{
    conn->acknowledged_ns = conn->heard_ns;
    (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_QUICKACK, &(int){1}, sizeof(int));
}

void conn_stream_acknowledge_awaited(struct conn *conn)
{
    uint32_t count = in_flight_on(conn);
    if (count > 0 && (count <= FEW_IN_FLIGHT || conn->heard_ns - conn->acknowledged_ns >= ACKNOWLEDGE_NS)) {
        conn_stream_acknowledge(conn);
    }
}

/* Before the next read: it may need the room in which the answers lie. */
static void finish_answered(struct reading *r, struct loop *loop)
{
    while (r->answered != NULL) {
        struct exchange *x = r->answered;
        r->answered = x->ended_next;
        exchange_finish(x, loop);
    }
}

static void read_all(struct conn *conn, const struct stream_io *io)
{
    struct reading r = {0};
    bool more;
    do {
        more = read_once(conn, io, &r);
        finish_answered(&r, conn->loop);
    } while (more);
    if (r.ended) {
        conn_fail(conn, r.err, PHASE_READ);
    } else if (r.answers > 0 && out_of_step(conn, &r)) {
        conn_fail(conn, EBADMSG, PHASE_READ);
    } else {
        if (conn->in_len > 0 || (r.answers > 0 && conn->node.shareable)) { /* half an answer, or one of several */
            conn_stream_acknowledge_awaited(conn);
        }
        for (; r.answers > 0; r.answers--) {
            conn_release(conn, true, conn->heard_ns);
        }
    }
}

void conn_stream_event(struct conn *conn, const struct stream_io *io, uint32_t events)
{
    if (conn_stream_begin(conn, io, events)) {
        read_all(conn, io);
    }
}

/* --- plain TCP ---------------------------------------------------------------------------------------------------- */

static const struct stream_io plain = {.read = conn_stream_recv, .write = conn_stream_transmit};

static int tcp_send(struct conn *conn, uint8_t *frame, uint32_t len, struct exchange *x, uint32_t seq)
{
    return conn_stream_send(conn, &plain, frame, len);
}

static int tcp_flush(struct conn *conn)
{
    return conn_stream_push(conn, &plain);
}

static void tcp_event(struct conn *conn, uint32_t events)
{
    conn_stream_event(conn, &plain, events);
}

const struct conn_ops conn_tcp_ops = {
    .proto = FWD_PROTO_TCP,
    .socket_type = SOCK_STREAM,
    .epoll_events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
    .send = tcp_send,
    .flush = tcp_flush,
    .event = tcp_event,
};
