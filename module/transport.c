/* Taking a connection, sending a query on it, waiting for one, and keeping the pools tidy.
 *
 * Happy path: the pool has a place on a conn, the exchange is armed on it and sent on the calling thread. Else a socket is opened first.
 *
 * Failure modes: a reused conn that turns out dead (before arming, or when sending) costs nothing: another is taken, at last a new one. No
 * new socket can be had (descriptors, ports): an idle one is used though the budget allowed a fresh one, else the exchange fails. The
 * limits of the pool are reached: the exchange waits in the pool's queue, with its timer on a loop, and goes on, on the thread of
 * whoever gives something back. An upstream that cannot be dialled ends those who wait for it too. A stopped transport fails everything (case 70).
 */
#include "transport.h"

#include "engine.h"
#include "loop.h"
#include "random.h"
#include "tls.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)
#define MS_NS UINT64_C(1000000)

enum {
    JANITOR_S = 10,     /* case 68 */
    UDP_MAX_AGE_S = 10, /* bounded life of a UDP socket when there is a port budget */
    UDP_MAX_USES = 100,
    DIAL_WEIGHT = 4, /* case 71 */
    CUT_S = 30,      /* one exchange per conn for so long after a peer cut several off */
    HTTPS_PLACES = 100, /* streams per connection, until the peer's SETTINGS say less */
    REFILL_RETRY_S = 1, /* after a conn that was of no use */
    REFILL_PAUSE_MS = 10,
    SHORTAGE_PAUSE_MS = 10, /* before the kernel is asked for a port again: each time it looks through all of them */
};

static void janitor_fire(struct timer *timer);
static void serve_next(struct transport *t, struct pool *pool);
static void refill_fire(struct timer *timer);

/* Has the refill timer fire soon, but not before refill_ns, unless it is about to, or nothing is to be kept ready. */
static void want_refill(struct transport *t)
{
    if (t->stream.limits.min_idle == 0 || atomic_load(&t->stopped) || atomic_exchange(&t->refilling, true)) {
        return;
    }
    (void)transport_ref(t);
    uint64_t soon = services_mono(&t->engine->services) + REFILL_PAUSE_MS * MS_NS;
    uint64_t not_before = atomic_load_explicit(&t->refill_ns, memory_order_relaxed);
    loop_arm(t->timer_loop, &t->refill, soon > not_before ? soon : not_before);
    if (atomic_load(&t->stopped) && loop_disarm(t->timer_loop, &t->refill)) {
        transport_unref(t);
    }
}

/* What can be kept idle at all: more would be closed and opened for ever. */
static uint32_t floor_of(const struct transport_key *key)
{
    uint64_t floor = key->expire_ns > 0 ? key->min_idle : 0;
    floor = key->max_idle > 0 && key->max_idle < floor ? key->max_idle : floor;
    return (uint32_t)(key->max_open > 0 && key->max_open < floor ? key->max_open : floor);
}

static struct pool_limits limits_of(const struct transport_key *key, bool udp)
{
    struct pool_limits limits = {
        .expire_ns = key->expire_ns,
        .max_age_ns = key->max_age_ns,
        .age_jitter = key->age_jitter,
        .max_idle = key->max_idle > UINT32_MAX ? UINT32_MAX : (uint32_t)key->max_idle,
        .min_idle = udp ? 0 : floor_of(key),
        .max_uses = key->max_uses,
        .max_open = key->max_open,
        .max_dialling = udp ? 0 : key->max_dialling,
        .never_wait = key->max_wait_ns == 0,
    };
    if (udp && key->port_budget > 0) {
        limits.fresh_per_s = key->port_budget;
        if (limits.max_uses == 0 || limits.max_uses > UDP_MAX_USES) {
            limits.max_uses = UDP_MAX_USES;
        }
        if (limits.max_age_ns == 0 || limits.max_age_ns > UDP_MAX_AGE_S * SECOND_NS) {
            limits.max_age_ns = UDP_MAX_AGE_S * SECOND_NS;
        }
    }
    return limits;
}

/* Host and port of DoH requests: the server name if there is one, the port unless it is 443. */
static char *authority_of(const struct transport_key *key, const char *to)
{
    char text[320];
    bool named = key->tls != NULL && key->tls->name[0] != '\0';
    const char *port = strrchr(to, ':');
    int host_len = named ? (int)strlen(key->tls->name) : port != NULL ? (int)(port - to) : (int)strlen(to);
    const char *host = named ? key->tls->name : to;
    if (key->addr.port == 443) {
        (void)snprintf(text, sizeof(text), "%.*s", host_len, host);
    } else {
        (void)snprintf(text, sizeof(text), "%.*s:%u", host_len, host, (unsigned)key->addr.port);
    }
    return strdup(text);
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
    t->authority = authority_of(key, to);
    if (t->authority == NULL) {
        free(t);
        return NULL;
    }
    if (key->tls != NULL) {
        key->tls->users++; /* the engine's mutex is held */
    }
    atomic_store(&t->refs, 2); /* the creator and the janitor */
    struct pool_limits limits = limits_of(key, true);
    pool_init(&t->udp, &limits);
    limits = limits_of(key, false);
    pool_init(&t->stream, &limits);
    series_join(t->series, &t->books[0], &t->udp, FWD_PROTO_UDP);
    series_join(t->series, &t->books[1], &t->stream, key->proto == FWD_PROTO_UDP ? FWD_PROTO_TCP : key->proto);
    atomic_store(&t->dial_avg_ns, 15 * SECOND_NS);
    t->janitor.fire = janitor_fire;
    t->refill.fire = refill_fire;
    fault_book_init(&t->fault);
    t->timer_loop = engine_any_loop(engine);
    loop_arm(t->timer_loop, &t->janitor, services_mono(&engine->services) + JANITOR_S * SECOND_NS);
    want_refill(t);
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
    series_leave(transport->series, &transport->books[0]);
    series_leave(transport->series, &transport->books[1]);
    pool_fini(&transport->udp);
    pool_fini(&transport->stream);
    fault_book_fini(&transport->fault);
    if (transport->key.tls != NULL) {
        engine_leave_tls(transport->engine, transport->key.tls);
    }
    free(transport->authority);
    free(transport);
}

static void doom_all(struct pool_node *close)
{
    while (close != NULL) {
        struct conn *conn = (struct conn *)close;
        close = close->next;
        loop_doom(conn->loop, conn);
        conn_unpin(conn);
    }
}

/* Says when the limits do not fit the load. */
static void advise(struct transport *t, uint64_t now)
{
    struct pool *pools[] = {&t->udp, &t->stream};
    for (uint32_t i = 0; i < 2; i++) {
        struct pool_counts counts;
        pool_get_counts(pools[i], &counts);
        advice_on_pool(&t->advice[i], &t->engine->services, &t->key, &counts, t->series->to, i == 0 ? "udp" : "stream", now);
    }
}

static void janitor_fire(struct timer *timer)
{
    struct transport *t = (struct transport *)((char *)timer - offsetof(struct transport, janitor));
    uint64_t now = services_mono(&t->engine->services);
    uint64_t patience = transport_dial_timeout(t) + (t->key.tls != NULL ? transport_handshake_timeout(t) : 0);
    advise(t, now); /* before the sweep, which begins a new peak */
    doom_all(pool_sweep(&t->udp, now, 0));
    doom_all(pool_sweep(&t->stream, now, now > patience ? now - patience : 0));
    serve_next(t, &t->udp);
    serve_next(t, &t->stream);
    want_refill(t);
    loop_arm(t->timer_loop, timer, now + JANITOR_S * SECOND_NS);
    /* stopped meanwhile: then either transport_stop finds the timer queued, or it is taken out here */
    if (atomic_load(&t->stopped) && loop_disarm(t->timer_loop, timer)) {
        transport_unref(t);
    }
}

void transport_stop(struct transport *transport)
{
    atomic_store(&transport->stopped, true);
    doom_all(pool_stop(&transport->udp));
    doom_all(pool_stop(&transport->stream));
    if (loop_disarm(transport->timer_loop, &transport->janitor)) {
        transport_unref(transport);
    }
    if (loop_disarm(transport->timer_loop, &transport->refill)) {
        transport_unref(transport);
    }
    engine_wake_all(transport->engine); /* the doomed conns hold descriptors */
    transport_unref(transport);
}

uint64_t transport_dial_timeout(struct transport *transport)
{
    uint64_t avg = atomic_load_explicit(&transport->dial_avg_ns, memory_order_relaxed);
    uint64_t timeout = avg < SECOND_NS ? SECOND_NS : avg >= 15 * SECOND_NS ? 30 * SECOND_NS : 2 * avg;
    uint64_t limit = transport->key.connect_timeout_ns;
    return limit > 0 && limit < timeout ? limit : timeout;
}

uint64_t transport_handshake_timeout(const struct transport *transport)
{
    return transport->key.handshake_timeout_ns;
}

uint64_t transport_least_patience(const struct transport *transport, enum phase phase)
{
    uint64_t limit = phase == PHASE_HANDSHAKE ? transport->key.handshake_timeout_ns : transport->key.connect_timeout_ns;
    return limit > 0 && limit < SECOND_NS ? limit : SECOND_NS;
}

uint32_t transport_places(struct transport *transport, uint32_t proto)
{
    if (proto == FWD_PROTO_UDP) {
        return 1;
    }
    if (proto == FWD_PROTO_HTTPS) {
        return HTTPS_PLACES; /* whoever speaks HTTP/2 can have several at once: being cut off says nothing about that */
    }
    uint64_t cut = atomic_load_explicit(&transport->cut_ns, memory_order_relaxed);
    if (cut != 0 && services_mono(&transport->engine->services) - cut < CUT_S * SECOND_NS) {
        return 1;
    }
    return transport->key.places;
}

void transport_note_cut(struct transport *transport)
{
    atomic_store_explicit(&transport->cut_ns, services_mono(&transport->engine->services), memory_order_relaxed);
}

void transport_note_close(struct transport *transport, uint64_t now_ns)
{
    atomic_store_explicit(&transport->closed_ns, now_ns, memory_order_relaxed);
}

bool transport_closed_since(const struct transport *transport, uint64_t since_ns)
{
    return atomic_load_explicit(&transport->closed_ns, memory_order_relaxed) > since_ns;
}

bool transport_has_others(struct transport *transport, uint32_t proto)
{
    struct pool_counts counts;
    pool_get_counts(transport_pool(transport, proto), &counts);
    return counts.open > counts.closing;
}

void transport_observe_dial(struct transport *transport, uint64_t took_ns)
{
    /* two threads may lose one another's observation: it is an average */
    int64_t avg = (int64_t)atomic_load_explicit(&transport->dial_avg_ns, memory_order_relaxed);
    avg += ((int64_t)took_ns - avg) / DIAL_WEIGHT;
    atomic_store_explicit(&transport->dial_avg_ns, (uint64_t)avg, memory_order_relaxed);
}

/* --- places ------------------------------------------------------------------------------------------------------- */

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

/* A pinned place on a conn, or why there is none. */
struct place {
    struct conn *conn;
    bool reused;
    bool wait;
    int error;
    int sys_errno;
    const char *why; /* static, or NULL */
};

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
        atomic_store_explicit(&shortage->until_ns, now + SHORTAGE_PAUSE_MS * MS_NS, memory_order_relaxed);
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

static void serve_open(struct pool_waiter *waiter);

/* A POOL_OPEN is ours: opens, or makes do with an idle conn. When neither can be had *ret_next is the waiter whose turn that makes it. */
static struct place open_place(struct transport *t, uint32_t proto, bool fresh, uint64_t now, struct pool_waiter **ret_next)
{
    struct place place = {0};
    struct pool *pool = transport_pool(t, proto);
    *ret_next = NULL;
    place.conn = open_conn(t, proto, KIND_POOLED, now, &place.sys_errno);
    if (place.conn != NULL) {
        if (place.conn->node.shareable) {
            serve_next(t, pool);
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

/* Which limit it is that is reached: of open connections, or of those being opened. */
static bool all_open(struct pool *pool)
{
    struct pool_counts counts;
    pool_get_counts(pool, &counts);
    return pool->limits.max_open > 0 && counts.open >= pool->limits.max_open;
}

static struct place take_place(struct transport *t, uint32_t proto, bool fresh, uint64_t now)
{
    struct place place = {0};
    struct pool_waiter *next;
    struct pool_node *node, *close;
    enum pool_take what = pool_take(transport_pool(t, proto), now, fresh, &node, &close);
    doom_all(close);
    switch (what) {
    case POOL_HIT:
        place = (struct place){.conn = (struct conn *)node, .reused = true};
        break;
    case POOL_OPEN:
        place = open_place(t, proto, fresh, now, &next);
        serve_open(next);
        break;
    case POOL_WAIT:
        place.wait = true;
        return place;
    case POOL_REFUSED:
        place.error = FWD_ERR_EXHAUSTED;
        place.why = all_open(transport_pool(t, proto)) ? "max_conns connections are in use" : "max_handshakes connections are being opened";
        return place;
    case POOL_STOPPED:
        place.error = FWD_ERR_STOPPED;
        return place;
    }
    if (atomic_load_explicit(&transport_pool(t, proto)->low, memory_order_relaxed)) {
        want_refill(t);
    }
    return place;
}

static struct place open_one_shot(struct transport *t, uint32_t proto, uint64_t now)
{
    struct place place = {0};
    place.conn = open_conn(t, proto, KIND_ONE_SHOT, now, &place.sys_errno);
    if (place.conn == NULL) {
        place.error = exchange_error_of(place.sys_errno);
        place.why = exchange_shortage(place.sys_errno);
    }
    return place;
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

static struct exchange *exchange_of(struct pool_waiter *waiter)
{
    return (struct exchange *)((char *)waiter - offsetof(struct exchange, waiter));
}

/* Its time ran out while it waited; false: its turn has come, and whoever serves it goes on. */
static bool wait_claim(struct timer *timer)
{
    struct exchange *x = (struct exchange *)((char *)timer - offsetof(struct exchange, timer));
    if (!pool_unwait(x->queue, &x->waiter)) {
        return false;
    }
    exchange_unwait_locked(x, FWD_ERR_TIMEOUT, services_mono(&x->transport->engine->services));
    return true;
}

static void wait_fire(struct timer *timer)
{
    struct exchange *x = (struct exchange *)((char *)timer - offsetof(struct exchange, timer));
    bool all = all_open(transport_pool(x->transport, x->proto));
    x->outcome.why = all ? "all max_conns connections stayed in use" : "max_handshakes connections were being opened all the time";
    series_waited(x->transport->series, x->outcome.elapsed_ns);
    exchange_finish(x, atomic_load(&x->home));
}

enum pursuit { IN_FLIGHT, FAILED, AGAIN };

/* Queues an exchange. AGAIN: there is room after all. @param again it has waited, and what it got was dead: it is the first, and its time goes on */
static enum pursuit wait_turn(struct transport *t, struct exchange *x, uint32_t proto, bool again, uint64_t now,
                              struct outcome *ret)
{
    struct loop *loop = engine_loop(t->engine, atomic_fetch_add_explicit(&t->next_loop, 1, memory_order_relaxed));
    struct pool *pool = transport_pool(t, proto);
    uint64_t since = again ? x->wait_since_ns : now;
    uint64_t left_ns = x->limit_ns > since ? x->limit_ns - since : 0;
    uint64_t until = since + (t->key.max_wait_ns < left_ns ? t->key.max_wait_ns : left_ns);
    enum pursuit result = FAILED;
    bool wake = false;
    x->timer = (struct timer){.claim = wait_claim, .fire = wait_fire};
    x->transport = t;
    x->proto = proto;
    x->wait_since_ns = since;
    pthread_mutex_lock(&loop->lock);
    atomic_store(&x->home, loop); /* before the bit is read, as in conn_arm */
    if ((atomic_load(x->word) & 1) != 0) {
        ret->error = FWD_ERR_CANCELED;
    } else if (!pool_wait(pool, &x->waiter, again)) {
        result = AGAIN;
    } else {
        x->queue = pool;
        wake = loop_arm_locked(loop, &x->timer, until);
        result = IN_FLIGHT;
    }
    pthread_mutex_unlock(&loop->lock);
    if (wake) {
        loop_wake(loop);
    }
    return result;
}

/* Its turn has come: from here on this thread owns it. */
static void end_wait(struct exchange *x)
{
    struct loop *loop = atomic_load(&x->home);
    pthread_mutex_lock(&loop->lock);
    wheel_remove(&loop->wheel, &x->timer);
    x->queue = NULL;
    pthread_mutex_unlock(&loop->lock);
    series_waited(x->transport->series, services_mono(&x->transport->engine->services) - x->wait_since_ns);
}

/* --- exchanging --------------------------------------------------------------------------------------------------- */

/* The caller does not want the conn any more, and nobody else shall. */
static void discard(struct conn *conn)
{
    loop_doom(conn->loop, conn);
    conn_unpin(conn);
}

/* Gives up a place before anything was sent on it. */
static void leave_place(struct conn *conn)
{
    if (!conn->node.shareable) {
        discard(conn);
        return;
    }
    struct pool_waiter *waiter;
    struct transport *t = conn->transport;
    enum pool_gave gave = pool_give(transport_pool(t, conn->ops->proto), &conn->node, true, services_mono(&t->engine->services), &waiter);
    if (gave == GAVE_WAITER) {
        transport_serve_on(t, waiter, conn); /* takes over the pool's pin */
    } else if (gave == GAVE_CLOSE) {
        loop_doom(conn->loop, conn);
    }
    conn_unpin(conn);
}

/* Arms under a random ID that no other exchange on the conn has. @return <0 an error of the random source */
static int arm(struct conn *conn, struct exchange *x, struct frame *frame, bool reused, uint64_t now, enum conn_armed *ret,
               uint32_t *ret_seq)
{
    do {
        x->id = 0; /* of DoH (RFC 8484 4.1) */
        int r = conn->ops->own_keys ? 0 : random_u16(conn->loop->services, &x->id);
        if (r < 0) {
            return r;
        }
        wire_put_u16(frame->data + FRAME_HEADER, x->id);
        *ret = conn_arm(conn, x, reused, now, ret_seq);
    } while (*ret == ARMED_ID_TAKEN);
    return 0;
}

/* Arms and sends on a place. AGAIN: it was on a reused conn that had died. */
static enum pursuit exchange_framed(const struct place *place, struct exchange *x, struct frame *frame, uint64_t now,
                                    struct outcome *ret)
{
    struct conn *conn = place->conn;
    enum conn_armed armed;
    uint32_t seq;
    int r = arm(conn, x, frame, place->reused, now, &armed, &seq);
    if (r < 0 || armed == ARMED_CANCELED) {
        leave_place(conn);
        ret->error = r < 0 ? r : FWD_ERR_CANCELED;
        return FAILED;
    }
    if (armed == ARMED_WAIT) {
        conn_unpin(conn);
        return IN_FLIGHT;
    }
    if (armed == ARMED_SEND) {
        int err = conn->ops->send(conn, frame->data, frame->len, x, seq);
        if (err == 0 || !conn_disarm(conn, x, seq, err)) {
            conn_unpin(conn);
            return IN_FLIGHT; /* or the loop has ended it meanwhile */
        }
        ret->sys_errno = err;
        ret->phase = PHASE_WRITE;
    } else {
        ret->sys_errno = conn->fail_errno;
    }
    discard(conn);
    ret->error = exchange_error_of(ret->sys_errno);
    return place->reused ? AGAIN : FAILED;
}

static enum pursuit exchange_on(const struct place *place, struct exchange *x, uint64_t now, struct outcome *ret)
{
    struct frame frame;
    if (!frame_init(&frame, &place->conn->edns, x->wire, x->wire_len)) {
        leave_place(place->conn);
        ret->error = FWD_ERR_NOMEM;
        return FAILED;
    }
    enum pursuit attempt = exchange_framed(place, x, &frame, now, ret);
    frame_fini(&frame);
    return attempt;
}

/* Goes on until the exchange is in flight, waits, or has failed. @param first a place that is there already, or NULL */
static bool pursue(struct transport *t, struct exchange *x, uint32_t proto, uint32_t flags, const struct place *first,
                   uint64_t start, struct outcome *ret)
{
    const struct services *services = &t->engine->services;
    bool turn = first != NULL;
    bool fresh = x->fresh;
    x->fresh = false;
    for (uint64_t now = start;; now = services_mono(services)) {
        *ret = (struct outcome){.proto = proto, .phase = PHASE_DIAL};
        struct place place = first != NULL                         ? *first
                             : (flags & EXCHANGE_ONE_SHOT) != 0 ? open_one_shot(t, proto, now)
                                                                   : take_place(t, proto, fresh, now);
        first = NULL;
        enum pursuit attempt = FAILED;
        if (place.wait) {
            attempt = wait_turn(t, x, proto, turn, now, ret);
            fresh = false;
        } else if (place.conn != NULL) {
            attempt = exchange_on(&place, x, now, ret);
            /* what else is idle is probably as dead as this one; a new conn cannot be stale, so this ends */
            fresh = true;
        } else {
            ret->error = place.error;
            ret->sys_errno = place.sys_errno;
            ret->why = place.why;
        }
        if (attempt == IN_FLIGHT) {
            return true;
        }
        if (attempt == FAILED) {
            ret->elapsed_ns = services_mono(services) - start;
            return false;
        }
    }
}

bool transport_exchange(struct transport *transport, struct exchange *x, uint32_t proto, uint32_t flags, uint64_t now_ns,
                        struct outcome *ret_outcome)
{
    if (transport->key.proto != FWD_PROTO_UDP) {
        proto = transport->key.proto;
    }
    return pursue(transport, x, proto, flags, NULL, now_ns, ret_outcome);
}

/* Ends an exchange that was waiting; its loop reports it. */
static void end_waiter(struct exchange *x, const struct outcome *outcome)
{
    x->outcome = *outcome;
    x->ended_on = NULL;
    loop_end(atomic_load(&x->home), x);
}

/* Goes on with an exchange whose turn it is. @return a waiter whose turn that makes it, because nothing could be opened */
static struct pool_waiter *serve(struct transport *t, struct exchange *x, struct conn *conn)
{
    struct pool_waiter *next = NULL;
    struct place place = {.conn = conn, .reused = true};
    struct outcome outcome = {.proto = x->proto, .phase = PHASE_DIAL};
    end_wait(x);
    if (conn == NULL) {
        place = open_place(t, x->proto, false, services_mono(&t->engine->services), &next);
    }
    if (place.conn == NULL) {
        outcome.error = place.error;
        outcome.sys_errno = place.sys_errno;
        outcome.why = place.why;
        end_waiter(x, &outcome);
    } else if (!pursue(t, x, x->proto, 0, &place, services_mono(&t->engine->services), &outcome)) {
        end_waiter(x, &outcome);
    }
    return next;
}

/* The waiters whose turn has come on this thread. What serving one sets free is another's turn: they are served one after the other here, not
 * each from inside the one before. */
static _Thread_local struct {
    struct pool_waiter *first, *last;
    bool serving;
} turns;

static void add_turn(struct pool_waiter *waiter, struct conn *conn)
{
    if (waiter == NULL) {
        return;
    }
    exchange_of(waiter)->granted = conn;
    waiter->next = NULL;
    *(turns.first != NULL ? &turns.last->next : &turns.first) = waiter;
    turns.last = waiter;
}

static void serve_turns(void)
{
    if (turns.serving) {
        return;
    }
    turns.serving = true;
    while (turns.first != NULL) {
        struct exchange *x = exchange_of(turns.first);
        struct transport *t = transport_ref(x->transport); /* x may end, and with it the last user */
        struct pool *pool = transport_pool(t, x->proto);
        turns.first = turns.first->next;
        x->waiter.next = NULL;
        add_turn(serve(t, x, x->granted), NULL);
        if (turns.first == NULL) {
            serve_next(t, pool);
        }
        transport_unref(t);
    }
    turns.serving = false;
}

/* Serves whoever else can be: on a shared conn that has room, or where something may be opened again. */
static void serve_next(struct transport *t, struct pool *pool)
{
    struct pool_node *node;
    struct pool_waiter *waiter = pool_next(pool, services_mono(&t->engine->services), &node);
    if (waiter != NULL) {
        add_turn(waiter, (struct conn *)node);
        serve_turns();
    }
}

static void serve_open(struct pool_waiter *waiter)
{
    if (waiter != NULL) {
        add_turn(waiter, NULL);
        serve_turns();
    }
}

void transport_serve_on(struct transport *transport, struct pool_waiter *waiter, struct conn *conn)
{
    add_turn(waiter, conn);
    serve_turns();
}

void transport_ready(struct transport *transport, struct conn *conn)
{
    serve_open(pool_ready(transport_pool(transport, conn->ops->proto), &conn->node));
    if (conn->spare) {
        conn->spare = false;
        conn_release(conn, true, services_mono(&transport->engine->services));
        want_refill(transport); /* not all may have been opened at once */
    }
}

struct exchange *transport_dial_failed(struct transport *transport, struct conn *conn)
{
    struct exchange *first = NULL, **last = &first;
    struct pool_waiter *waiter = pool_dial_failed(transport_pool(transport, conn->ops->proto), &conn->node);
    while (waiter != NULL) {
        struct exchange *x = exchange_of(waiter);
        waiter = waiter->next;
        x->waiter.next = NULL;
        end_wait(x);
        x->ended_next = NULL;
        *last = x;
        last = &x->ended_next;
    }
    return first;
}

bool transport_lost(struct transport *transport, struct conn *conn)
{
    return pool_lost(transport_pool(transport, conn->ops->proto), &conn->node);
}

void transport_closed(struct transport *transport, struct conn *conn)
{
    serve_open(pool_closed(transport_pool(transport, conn->ops->proto), &conn->node));
    if (transport->stream.limits.min_idle > 0) {
        if (conn->heard_ns == 0) { /* it came to nothing; so will the next one, for a while */
            uint64_t now = services_mono(&transport->engine->services);
            atomic_store_explicit(&transport->refill_ns, now + REFILL_RETRY_S * SECOND_NS, memory_order_relaxed);
        }
        want_refill(transport);
    }
}

/* --- spare connections -------------------------------------------------------------------------------------------- */

/* Opens what is missing of min_idle. @return false when one could not be opened */
static bool refill(struct transport *t)
{
    uint32_t proto = t->key.proto == FWD_PROTO_UDP ? FWD_PROTO_TCP : t->key.proto;
    uint32_t missing = pool_missing(&t->stream);
    bool opened = true;
    for (; missing > 0; missing--) {
        int err;
        uint64_t now = services_mono(&t->engine->services);
        struct conn *conn = opened ? open_conn(t, proto, KIND_SPARE, now, &err) : NULL;
        if (conn != NULL) {
            conn_unpin(conn);
        } else {
            opened = false;
            serve_open(pool_open_failed(&t->stream));
        }
    }
    return opened;
}

static void refill_fire(struct timer *timer)
{
    struct transport *t = (struct transport *)((char *)timer - offsetof(struct transport, refill));
    uint64_t now = services_mono(&t->engine->services);
    atomic_store(&t->refilling, false);
    if (now < atomic_load_explicit(&t->refill_ns, memory_order_relaxed)) {
        want_refill(t);
    } else if (!atomic_load(&t->stopped) && !refill(t)) {
        atomic_store_explicit(&t->refill_ns, now + REFILL_RETRY_S * SECOND_NS, memory_order_relaxed);
        want_refill(t);
    }
    transport_unref(t);
}
