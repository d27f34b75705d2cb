/* Taking a connection, sending a query on it, and keeping the pools tidy.
 *
 * Happy path: the pool has an idle conn, the exchange is armed on it and sent on the calling thread. Else a socket is opened first.
 *
 * Failure modes: a reused conn that turns out dead (before arming, or when sending) costs nothing: another is taken, at last a new one. No
 * new socket can be had (descriptors, ports): an idle one is used though the budget allowed a fresh one, else the exchange fails. A
 * stopped transport fails everything (case 70).
 */
#include "transport.h"

#include "engine.h"
#include "loop.h"
#include "random.h"

#include <errno.h>
#include <stdlib.h>

#define SECOND_NS UINT64_C(1000000000)

enum {
    JANITOR_S = 10,     /* case 68 */
    UDP_MAX_AGE_S = 10, /* bounded life of a UDP socket when there is a port budget */
    UDP_MAX_USES = 100,
    DIAL_WEIGHT = 4, /* case 71 */
};

static void janitor_fire(struct timer *timer);

static struct pool_limits limits_of(const struct transport_key *key, bool udp)
{
    struct pool_limits limits = {
        .expire_ns = key->expire_ns,
        .max_age_ns = key->max_age_ns,
        .max_idle = key->max_idle > UINT32_MAX ? UINT32_MAX : (uint32_t)key->max_idle,
    };
    if (udp && key->port_budget > 0) {
        limits.fresh_per_s = key->port_budget;
        limits.max_uses = UDP_MAX_USES;
        if (limits.max_age_ns == 0 || limits.max_age_ns > UDP_MAX_AGE_S * SECOND_NS) {
            limits.max_age_ns = UDP_MAX_AGE_S * SECOND_NS;
        }
    }
    return limits;
}

struct transport *transport_create(struct engine *engine, const struct transport_key *key, const char *to)
{
    struct transport *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return NULL;
    }
    t->series = series_get(to);
    if (t->series == NULL) {
        free(t);
        return NULL;
    }
    t->key = *key;
    t->engine = engine;
    atomic_store(&t->refs, 2); /* the creator and the janitor */
    struct pool_limits limits = limits_of(key, true);
    pool_init(&t->udp, &limits);
    limits = limits_of(key, false);
    pool_init(&t->stream, &limits);
    atomic_store(&t->dial_avg_ns, 15 * SECOND_NS);
    t->janitor.fire = janitor_fire;
    t->janitor_loop = engine_any_loop(engine);
    loop_arm(t->janitor_loop, &t->janitor, services_mono(&engine->services) + JANITOR_S * SECOND_NS);
    return t;
}

struct transport *transport_ref(struct transport *transport)
{
    atomic_fetch_add_explicit(&transport->refs, 1, memory_order_relaxed);
    return transport;
}

void transport_unref(struct transport *transport)
{
    if (atomic_fetch_sub_explicit(&transport->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    pool_fini(&transport->udp);
    pool_fini(&transport->stream);
    free(transport);
}

static void doom_all(struct pool_node *close)
{
    while (close != NULL) {
        struct conn *conn = (struct conn *)close;
        close = close->next;
        loop_doom(conn->loop, conn);
    }
}

static void janitor_fire(struct timer *timer)
{
    struct transport *t = (struct transport *)((char *)timer - offsetof(struct transport, janitor));
    uint64_t now = services_mono(&t->engine->services);
    doom_all(pool_sweep(&t->udp, now));
    doom_all(pool_sweep(&t->stream, now));
    loop_arm(t->janitor_loop, timer, now + JANITOR_S * SECOND_NS);
    /* stopped meanwhile: then either transport_stop finds the timer queued, or it is taken out here */
    if (atomic_load(&t->stopped) && loop_disarm(t->janitor_loop, timer)) {
        transport_unref(t);
    }
}

void transport_stop(struct transport *transport)
{
    atomic_store(&transport->stopped, true);
    doom_all(pool_stop(&transport->udp));
    doom_all(pool_stop(&transport->stream));
    if (loop_disarm(transport->janitor_loop, &transport->janitor)) {
        transport_unref(transport);
    }
    engine_wake_all(transport->engine); /* the doomed conns hold descriptors */
    transport_unref(transport);
}

uint64_t transport_dial_timeout(struct transport *transport)
{
    uint64_t avg = atomic_load_explicit(&transport->dial_avg_ns, memory_order_relaxed);
    if (avg < SECOND_NS) {
        return SECOND_NS;
    }
    return avg >= 15 * SECOND_NS ? 30 * SECOND_NS : 2 * avg;
}

void transport_observe_dial(struct transport *transport, uint64_t took_ns)
{
    /* two threads may lose one another's observation: it is an average */
    int64_t avg = (int64_t)atomic_load_explicit(&transport->dial_avg_ns, memory_order_relaxed);
    avg += ((int64_t)took_ns - avg) / DIAL_WEIGHT;
    atomic_store_explicit(&transport->dial_avg_ns, (uint64_t)avg, memory_order_relaxed);
}

static const struct conn_ops *ops_of(uint32_t proto)
{
    return proto == FWD_PROTO_UDP ? &conn_udp_ops : &conn_tcp_ops;
}

/* A pinned conn that the caller owns, or NULL. */
struct taken {
    struct conn *conn;
    bool reused;
    bool stopped;
    int sys_errno;
};

static struct conn *open_conn(struct transport *t, uint32_t proto, uint64_t now, int *ret_errno)
{
    uint32_t n = atomic_fetch_add_explicit(&t->next_loop, 1, memory_order_relaxed);
    struct conn *conn = conn_open(t, ops_of(proto), engine_loop(t->engine, n), now, ret_errno);
    if (proto == FWD_PROTO_UDP || conn == NULL) {
        transport_observe_dial(t, services_mono(&t->engine->services) - now);
    }
    return conn;
}

static struct conn *reuse(struct pool_node *node)
{
    struct conn *conn = (struct conn *)node;
    atomic_fetch_add_explicit(&conn->pins, 1, memory_order_relaxed);
    return conn;
}

static struct taken take(struct transport *t, uint32_t proto, bool fresh, uint64_t now)
{
    struct taken taken = {0};
    struct pool *pool = transport_pool(t, proto);
    struct pool_node *node, *close;
    enum pool_take what = pool_take(pool, now, fresh, &node, &close);
    doom_all(close);
    if (what == POOL_STOPPED) {
        taken.stopped = true;
    } else if (what == POOL_HIT) {
        taken.conn = reuse(node);
        taken.reused = true;
    } else {
        taken.conn = open_conn(t, proto, now, &taken.sys_errno);
        if (taken.conn != NULL) {
            pool_adopt(&taken.conn->node, now);
        } else if ((node = fresh ? NULL : pool_take_instead(pool)) != NULL) {
            taken.conn = reuse(node);
            taken.reused = true;
        } else if (fresh) {
            pool_open_failed(pool);
        }
    }
    if (!taken.stopped) {
        series_cache(t->series, proto, taken.reused);
    }
    return taken;
}

static struct taken open_one_shot(struct transport *t, uint32_t proto, uint64_t now)
{
    struct taken taken = {0};
    taken.conn = open_conn(t, proto, now, &taken.sys_errno);
    if (taken.conn != NULL) {
        taken.conn->one_shot = true;
    }
    return taken;
}

static void unpin(struct conn *conn)
{
    atomic_fetch_sub_explicit(&conn->pins, 1, memory_order_release);
}

/* The caller owns conn and does not want it. */
static void discard(struct conn *conn)
{
    loop_doom(conn->loop, conn);
    unpin(conn);
}

enum attempt { IN_FLIGHT, FAILED, AGAIN };

/* Arms and sends on a taken conn. AGAIN: it was a reused one that had died. */
static enum attempt exchange_on(const struct taken *taken, struct exchange *x, uint64_t now, struct outcome *ret)
{
    struct conn *conn = taken->conn;
    enum conn_armed armed;
    do {
        int r = random_u16(conn->loop->services, &x->id);
        if (r < 0) {
            discard(conn);
            ret->error = r;
            return FAILED;
        }
        armed = conn_arm(conn, x, taken->reused, now);
    } while (armed == ARMED_ID_TAKEN);

    if (armed == ARMED_WAIT) {
        unpin(conn);
        return IN_FLIGHT;
    }
    if (armed == ARMED_SEND) {
        uint32_t seq = x->seq;
        int err = conn->ops->send(conn, x);
        if (err == 0) {
            unpin(conn);
            return IN_FLIGHT;
        }
        if (!conn_disarm(conn, x, seq)) {
            unpin(conn);
            return IN_FLIGHT; /* its end came from elsewhere */
        }
        ret->sys_errno = err;
        ret->phase = PHASE_WRITE;
    } else if (armed == ARMED_CANCELED) {
        discard(conn);
        ret->error = FWD_ERR_CANCELED;
        return FAILED;
    } else {
        ret->sys_errno = conn->fail_errno;
        ret->phase = PHASE_DIAL;
    }
    discard(conn);
    ret->error = exchange_error_of(ret->sys_errno);
    return taken->reused ? AGAIN : FAILED;
}

bool transport_exchange(struct transport *transport, struct exchange *x, uint32_t proto, uint32_t flags,
                        struct outcome *ret_outcome)
{
    const struct services *services = &transport->engine->services;
    uint64_t start = services_mono(services);
    bool fresh = x->fresh;
    x->fresh = false;
    for (uint64_t now = start;; now = services_mono(services)) {
        *ret_outcome = (struct outcome){.proto = proto};
        struct taken taken = (flags & EXCHANGE_ONE_SHOT) != 0 ? open_one_shot(transport, proto, now)
                                                              : take(transport, proto, fresh, now);
        enum attempt attempt = FAILED;
        if (taken.conn != NULL) {
            attempt = exchange_on(&taken, x, now, ret_outcome);
        } else {
            ret_outcome->phase = PHASE_DIAL;
            ret_outcome->sys_errno = taken.sys_errno;
            ret_outcome->error = taken.stopped ? FWD_ERR_STOPPED : exchange_error_of(taken.sys_errno);
        }
        if (attempt == IN_FLIGHT) {
            return true;
        }
        if (attempt == FAILED) {
            ret_outcome->elapsed_ns = services_mono(services) - start;
            return false;
        }
        /* what else is idle is probably as dead as this one; a new conn cannot be stale, so this ends */
        fresh = true;
    }
}
