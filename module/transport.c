/* One upstream's pools: what is known about the upstream, and what keeps them tidy.
 *
 * Happy path: every ten seconds the janitor closes what is too old and says when the limits do not fit the load; below min_idle_conns the refill
 * timer opens what is missing. Exchanges go their way in pursuit.c.
 *
 * Failure modes: no conn can be opened ahead of need, or none comes to anything: the next attempt comes a second later. A stopped transport fails
 * everything (case 70).
 */
#include "transport.h"

#include "engine.h"
#include "loop.h"
#include "place.h"
#include "pursuit.h"
#include "tls.h"
#include "turn.h"

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
};

static void janitor_fire(struct timer *timer);
static void refill_fire(struct timer *timer);

void transport_want_refill(struct transport *t)
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
    transport_want_refill(t);
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
    place_discard_all(pool_sweep(&t->udp, now, 0));
    place_discard_all(pool_sweep(&t->stream, now, now > patience ? now - patience : 0));
    turn_next(t, &t->udp);
    turn_next(t, &t->stream);
    transport_want_refill(t);
    loop_arm(t->timer_loop, timer, now + JANITOR_S * SECOND_NS);
    /* stopped meanwhile: then either transport_stop finds the timer queued, or it is taken out here */
    if (atomic_load(&t->stopped) && loop_disarm(t->timer_loop, timer)) {
        transport_unref(t);
    }
}

void transport_stop(struct transport *transport)
{
    atomic_store(&transport->stopped, true);
    place_discard_all(pool_stop(&transport->udp));
    place_discard_all(pool_stop(&transport->stream));
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

bool transport_exchange(struct transport *transport, struct exchange *x, uint32_t proto, uint32_t flags, uint64_t now_ns,
                        struct outcome *ret_outcome)
{
    if (transport->key.proto != FWD_PROTO_UDP) {
        proto = transport->key.proto;
    }
    return pursuit_run(transport, x, proto, flags, NULL, now_ns, ret_outcome);
}

void transport_ready(struct transport *transport, struct conn *conn)
{
    turn_give(pool_ready(transport_pool(transport, conn->ops->proto), &conn->node), NULL);
    if (conn->spare) {
        conn->spare = false;
        conn_release(conn, true, services_mono(&transport->engine->services));
        transport_want_refill(transport); /* not all may have been opened at once */
    }
}

bool transport_lost(struct transport *transport, struct conn *conn)
{
    return pool_lost(transport_pool(transport, conn->ops->proto), &conn->node);
}

void transport_closed(struct transport *transport, struct conn *conn)
{
    turn_give(pool_closed(transport_pool(transport, conn->ops->proto), &conn->node), NULL);
    if (transport->stream.limits.min_idle > 0) {
        if (conn->heard_ns == 0) { /* it came to nothing; so will the next one, for a while */
            uint64_t now = services_mono(&transport->engine->services);
            atomic_store_explicit(&transport->refill_ns, now + REFILL_RETRY_S * SECOND_NS, memory_order_relaxed);
        }
        transport_want_refill(transport);
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
        opened = opened && place_open_spare(t, proto, services_mono(&t->engine->services));
        if (!opened) {
            turn_give(pool_open_failed(&t->stream), NULL);
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
        transport_want_refill(t);
    } else if (!atomic_load(&t->stopped) && !refill(t)) {
        atomic_store_explicit(&t->refill_ns, now + REFILL_RETRY_S * SECOND_NS, memory_order_relaxed);
        transport_want_refill(t);
    }
    transport_unref(t);
}
