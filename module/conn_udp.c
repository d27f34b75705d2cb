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

static int udp_send(struct conn *conn, struct exchange *x)
{
    return send(conn->fd, x->wire, x->wire_len, MSG_NOSIGNAL) >= 0 ? 0 : errno;
}

static void udp_event(struct conn *conn, uint32_t events)
{
    struct loop *loop = conn->loop;
    uint8_t *room = loop_room(loop);
    ssize_t n = recv(conn->fd, room, FWD_MAX_WIRE, 0);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            conn_fail(conn, errno, PHASE_READ, false);
        }
        return;
    }
    struct exchange *x;
    if (conn_match(conn, room, (uint32_t)n, &x) != ANSWER_GOOD) {
        return; /* level-triggered: what else is queued brings another event */
    }
    loop_keep(loop, (uint32_t)n);
    conn_release(conn);
    exchange_finish(x, loop);
}

const struct conn_ops conn_udp_ops = {
    .proto = FWD_PROTO_UDP,
    .limit = 1,
    .socket_type = SOCK_DGRAM,
    .epoll_events = EPOLLIN,
    .send = udp_send,
    .event = udp_event,
};
