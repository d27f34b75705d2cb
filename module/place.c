/* Places on connections: found in the pool, opened, given up.
 *
 * Happy path: the pool has a place on a conn, and it is the caller's. Else a socket is opened, and entered into the pool's books before any event
 * can come.
 *
 * Failure modes: no new socket can be had (descriptors, ports): an idle one is used though the budget allowed a fresh one, else there is no
 * place, and `why` says what is short; the kernel is not asked for a port again at once. The limits of the pool are reached: `wait` is set, or, where
 * nothing waits, the place is refused. A stopped pool has none (case 70).
 */
#include "place.h"

#include "conn.h"
#include "engine.h"
#include "loop.h"
#include "random.h"
#include "transport.h"
#include "turn.h"

#include <errno.h>

enum {
    SHORTAGE_PAUSE_NS = 10000000, /* before the kernel is asked for a port again: each time it looks through all of them */
};

static const struct conn_ops *ops_of(uint32_t proto)
{
    switch (proto) {
    case FWD_PROTO_UDP:
        return &conn_udp_ops;
    case FWD_PROTO_TLS:
        return &conn_tls_ops;
    case FWD_PROTO_HTTPS:
        return &conn_https_ops;
    default:
        return &conn_tcp_ops;
    }
}

enum kind { KIND_POOLED, KIND_SPARE, KIND_ONE_SHOT };

/* The kernel has just said that all ports towards this upstream are taken. */
static bool no_port_yet(struct transport *t, uint32_t proto, uint64_t now, int *ret_errno)
{
    struct shortage *shortage = &t->shortages[proto == FWD_PROTO_UDP];
    if (now >= atomic_load_explicit(&shortage->until_ns, memory_order_relaxed)) {
        return false;
    }
    *ret_errno = atomic_load_explicit(&shortage->sys_errno, memory_order_relaxed);
    return true;
}

static void note_shortage(struct transport *t, uint32_t proto, uint64_t now, int sys_errno)
{
    struct shortage *shortage = &t->shortages[proto == FWD_PROTO_UDP];
    if (sys_errno == EADDRNOTAVAIL || sys_errno == EAGAIN) {
        atomic_store_explicit(&shortage->sys_errno, sys_errno, memory_order_relaxed);
        atomic_store_explicit(&shortage->until_ns, now + SHORTAGE_PAUSE_NS, memory_order_relaxed);
    }
}

/* Padding hides lengths, so where everything can be read there is none (RFC 7830 6); keepalive is of framed streams (RFC 7828 3, RFC 8484 8). */
static struct edns edns_of(const struct transport_key *key, uint32_t proto)
{
    return (struct edns){
        .block = proto == FWD_PROTO_TLS || proto == FWD_PROTO_HTTPS ? key->padding : 0,
        .keepalive = key->edns_keepalive && (proto == FWD_PROTO_TCP || proto == FWD_PROTO_TLS),
    };
}

/* Opens a conn and enters it into the pool's books before any event can come. For all but ONE_SHOT a POOL_OPEN is the caller's. */
static struct conn *open_conn(struct transport *t, uint32_t proto, enum kind kind, uint64_t now, int *ret_errno)
{
    if (no_port_yet(t, proto, now, ret_errno)) {
        return NULL;
    }
    uint32_t n = atomic_fetch_add_explicit(&t->next_loop, 1, memory_order_relaxed);
    struct conn *conn = conn_open(t, ops_of(proto), engine_loop(t->engine, n), now, ret_errno);
    if (proto == FWD_PROTO_UDP || conn == NULL) {
        transport_observe_dial(t, services_mono(&t->engine->services) - now);
    }
    if (conn == NULL) {
        note_shortage(t, proto, now, *ret_errno);
        return NULL;
    }
    conn->one_shot = kind == KIND_ONE_SHOT;
    if (kind != KIND_ONE_SHOT) {
        conn->edns = edns_of(&t->key, proto); /* a probe has nothing to hide, and ends with its connection */
    }
    conn->spare = kind == KIND_SPARE;
    uint16_t random = 0;
    if (t->key.age_jitter > 0) {
        (void)random_u16(&t->engine->services, &random); /* without it the age is the full one */
    }
    struct pool *pool = transport_pool(t, proto);
    if (kind != KIND_ONE_SHOT) {
        enum pool_adopted how = kind == KIND_SPARE ? ADOPT_SPARE : proto == FWD_PROTO_UDP ? ADOPT_READY : ADOPT_DIALLING;
        pool_adopt(pool, &conn->node, how, now, random);
    }
    int err = conn_watch(conn);
    if (err == 0) {
        return conn;
    }
    *ret_errno = err;
    if (kind != KIND_ONE_SHOT) {
        pool_disown(pool, &conn->node);
    }
    conn_drop(conn);
    return NULL;
}

struct place place_open(struct transport *t, uint32_t proto, bool fresh, uint64_t now, struct pool_waiter **ret_next)
{
    struct place place = {0};
    struct pool *pool = transport_pool(t, proto);
    *ret_next = NULL;
    place.conn = open_conn(t, proto, KIND_POOLED, now, &place.sys_errno);
    if (place.conn != NULL) {
        if (place.conn->node.shareable) {
            turn_next(t, pool);
        }
        return place;
    }
    struct pool_node *node = fresh ? NULL : pool_take_instead(pool);
    if (node != NULL) {
        return (struct place){.conn = (struct conn *)node, .reused = true};
    }
    place.error = exchange_error_of(place.sys_errno);
    place.why = exchange_shortage(place.sys_errno);
    *ret_next = pool_open_failed(pool);
    return place;
}

struct place place_take(struct transport *t, uint32_t proto, bool fresh, uint64_t now)
{
    struct place place = {0};
    struct pool_waiter *next;
    struct pool_node *node, *close;
    enum pool_take what = pool_take(transport_pool(t, proto), now, fresh, &node, &close);
    place_discard_all(close);
    switch (what) {
    case POOL_HIT:
        place = (struct place){.conn = (struct conn *)node, .reused = true};
        break;
    case POOL_OPEN:
        place = place_open(t, proto, fresh, now, &next);
        turn_give(next, NULL);
        break;
    case POOL_WAIT:
        place.wait = true;
        return place;
    case POOL_REFUSED:
        place.error = FWD_ERR_EXHAUSTED;
        place.why = pool_all_open(transport_pool(t, proto)) ? "max_conns connections are in use" : "max_handshakes connections are being opened";
        return place;
    case POOL_STOPPED:
        place.error = FWD_ERR_STOPPED;
        return place;
    }
    if (atomic_load_explicit(&transport_pool(t, proto)->low, memory_order_relaxed)) {
        transport_want_refill(t);
    }
    return place;
}

struct place place_open_one_shot(struct transport *t, uint32_t proto, uint64_t now)
{
    struct place place = {0};
    place.conn = open_conn(t, proto, KIND_ONE_SHOT, now, &place.sys_errno);
    if (place.conn == NULL) {
        place.error = exchange_error_of(place.sys_errno);
        place.why = exchange_shortage(place.sys_errno);
    }
    return place;
}

bool place_open_spare(struct transport *t, uint32_t proto, uint64_t now)
{
    int err;
    struct conn *conn = open_conn(t, proto, KIND_SPARE, now, &err);
    if (conn != NULL) {
        conn_unpin(conn);
    }
    return conn != NULL;
}

void place_discard(struct conn *conn)
{
    loop_doom(conn->loop, conn);
    conn_unpin(conn);
}

void place_discard_all(struct pool_node *nodes)
{
    while (nodes != NULL) {
        struct conn *conn = (struct conn *)nodes;
        nodes = nodes->next;
        place_discard(conn);
    }
}

void place_leave(struct conn *conn)
{
    if (!conn->node.shareable) {
        place_discard(conn);
        return;
    }
    struct pool_waiter *waiter;
    struct transport *t = conn->transport;
    enum pool_gave gave = pool_give(transport_pool(t, conn->ops->proto), &conn->node, true, services_mono(&t->engine->services), &waiter);
    if (gave == GAVE_WAITER) {
        turn_give(waiter, conn); /* takes over the pool's pin */
    } else if (gave == GAVE_CLOSE) {
        loop_doom(conn->loop, conn);
    }
    conn_unpin(conn);
}
