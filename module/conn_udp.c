/* DNS over UDP: one connected socket, one exchange at a time.
 *
 * Happy path: send on the caller's thread; the datagram that comes back is read into the arena, matched, and the socket goes back to the pool.
 *
 * Failure modes: a datagram that is not the answer (wrong ID, question or QR, malformed) is counted and waited past; so is whatever
 * arrives while nothing is in flight. An ICMP error ends the exchange. A send may report an ICMP error of the socket's previous use;
 * the transport then sends from another socket.
 */
#include "conn.h"
#include "loop.h"
#include "transport.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { MAX_DROPS = 64 };

static int udp_send(struct conn *conn, uint8_t *frame, uint32_t len, struct exchange *x, uint32_t seq)
{
    return conn_transmit(conn, frame + FRAME_HEADER, len - FRAME_HEADER) >= 0 ? 0 : errno;
}

/* Reads one datagram. @return ANSWER_GOOD with *ret_x, another ANSWER_* for a datagram that was dropped, -1 when there was none */
static int read_one(struct conn *conn, struct exchange **ret_x)
{
    struct loop *loop = conn->loop;
    uint8_t *room = loop_room(loop);
    ssize_t n = conn_receive(conn, room, FWD_MAX_WIRE);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            conn_fail(conn, errno, PHASE_READ);
        }
        return -1;
    }
    if (n < WIRE_HEADER) {
        series_drop(conn->transport->series, ANSWER_SHORT);
        return ANSWER_SHORT;
    }
    conn->heard_ns = services_mono(loop->services);
    enum wire_answer answer = conn_match(conn, wire_u16(room), room, (uint32_t)n, ret_x);
    if (answer == ANSWER_GOOD) {
        loop_keep(loop, (uint32_t)n);
    }
    return (int)answer;
}

/* Edge-triggered: after the answer nothing is looked for, which saves a system call for every query; a datagram that is left behind is
 * met, and dropped, before the next answer, whose arrival is another edge. */
static void udp_event(struct conn *conn, uint32_t events)
{
    for (int i = 0; i < MAX_DROPS; i++) {
        struct exchange *x;
        int answer = read_one(conn, &x);
        if (answer < 0) {
            return;
        }
        if (answer == ANSWER_GOOD) {
            conn_release(conn, true, conn->heard_ns);
            exchange_finish(x, conn->loop);
            return;
        }
    }
    /* a flood: let the others have their turn, and have epoll report this one again */
    struct epoll_event again = {.events = conn->ops->epoll_events, .data.ptr = conn};
    (void)epoll_ctl(conn->loop->epoll_fd, EPOLL_CTL_MOD, conn->fd, &again);
}

const struct conn_ops conn_udp_ops = {
    .proto = FWD_PROTO_UDP,
    .socket_type = SOCK_DGRAM,
    .epoll_events = EPOLLIN | EPOLLET,
    .send = udp_send,
    .event = udp_event,
};
