/* Probing.
 *
 * Happy path: an attempt failed, health_check sends `<domain> IN NS` on a connection of its own; anything with a header that comes back sets
 * fails to 0 and probing ends (case 84).
 *
 * Failure modes: no answer within a second, or any I/O error: fails goes up by one, never wrapping (case 85), and the probe is sent again
 * after the interval. The last user leaves: the probe in flight is canceled, the waiting timer taken out, and the state is freed when
 * neither can come back.
 */
#include "health.h"

#include "engine.h"
#include "loop.h"
#include "transport.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)

enum {
    TYPE_NS = 2,
    CLASS_IN = 1,
    MIN_INTERVAL_NS = 10000000, /* `health_check 0s` must not spin (case 88) */
    PROBE_LIMIT_S = 3,          /* to dial, to shake hands and to read */
};

static void probe_end(struct exchange *x, const struct outcome *outcome, struct loop *loop);
static void probe_again(struct timer *timer);

static void health_unref(struct health *h)
{
    if (atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) == 1) {
        engine_leave_transport(h->engine, h->transport);
        fault_book_fini(&h->fault);
        free(h);
    }
}

static void write_probe(struct health *h, const struct config_name *domain)
{
    uint8_t *msg = h->probe;
    wire_put_u16(msg + 2, h->no_rec ? 0 : WIRE_FLAG_RD);
    wire_put_u16(msg + 4, 1);
    memcpy(msg + WIRE_HEADER, domain->wire, domain->wire_len);
    wire_put_u16(msg + WIRE_HEADER + domain->wire_len, TYPE_NS);
    wire_put_u16(msg + WIRE_HEADER + domain->wire_len + 2, CLASS_IN);
    h->probe_len = WIRE_HEADER + domain->wire_len + 4;
}

static struct health *health_make(struct engine *engine, struct transport *transport, const struct config_options *options)
{
    struct health *h = calloc(1, sizeof(*h));
    if (h == NULL) {
        return NULL;
    }
    h->engine = engine;
    h->transport = transport;
    h->interval_ns = options->health_interval_ns;
    h->proto = options->force_tcp ? FWD_PROTO_TCP : FWD_PROTO_UDP;
    h->no_rec = options->health_no_rec;
    atomic_store(&h->refs, 1);
    fault_book_init(&h->fault);
    write_probe(h, &options->health_domain);
    h->again.fire = probe_again;
    h->x.wire = h->probe;
    h->x.wire_len = h->probe_len;
    h->x.read_timeout_ns = SECOND_NS;
    h->x.any_reply = true;
    h->x.word = &h->word;
    h->x.end = probe_end;
    return h;
}

static bool same_settings(const struct health *h, const struct config_options *options)
{
    const struct config_name *domain = &options->health_domain;
    return h->interval_ns == options->health_interval_ns && h->no_rec == options->health_no_rec &&
           h->proto == (options->force_tcp ? FWD_PROTO_TCP : FWD_PROTO_UDP) &&
           h->probe_len == WIRE_HEADER + domain->wire_len + 4 &&
           memcmp(h->probe + WIRE_HEADER, domain->wire, domain->wire_len) == 0;
}

struct health *health_use(struct engine *engine, struct transport *transport, const struct config_options *options)
{
    bool found = false;
    pthread_mutex_lock(&engine->mutex);
    struct health *h = transport->healths;
    while (h != NULL && !same_settings(h, options)) {
        h = h->next;
    }
    found = h != NULL;
    if (!found) {
        h = health_make(engine, transport, options);
        if (h != NULL) {
            h->next = transport->healths;
            transport->healths = h;
        }
    }
    if (h != NULL) {
        h->users++;
    }
    pthread_mutex_unlock(&engine->mutex);
    if (found) {
        engine_leave_transport(engine, transport); /* the found one has its own use */
    }
    return h;
}

void health_leave(struct health *health)
{
    struct engine *engine = health->engine;
    pthread_mutex_lock(&engine->mutex);
    bool last = --health->users == 0;
    if (last) {
        struct health **at = &health->transport->healths;
        while (*at != health) {
            at = &(*at)->next;
        }
        *at = health->next;
    }
    pthread_mutex_unlock(&engine->mutex);
    if (!last) {
        return;
    }
    atomic_store(&health->stopped, true);
    atomic_store(&health->word, 1);
    exchange_cancel(&health->x, 1);
    if (loop_disarm(engine_any_loop(engine), &health->again)) {
        health_unref(health);
    }
    health_unref(health);
}

static void note_fault(struct health *h, const struct outcome *outcome)
{
    char text[FAULT_TEXT];
    fault_print(outcome, h->transport->series->to, text, sizeof(text));
    fault_note(&h->fault, outcome, text, services_real(&h->engine->services));
}

static void probe_failed(struct health *h, const struct outcome *outcome)
{
    if (atomic_load(&h->stopped)) {
        health_unref(h);
        return;
    }
    note_fault(h, outcome);
    uint32_t fails = atomic_load(&h->fails);
    if (fails < UINT32_MAX && outcome->error != FWD_ERR_EXHAUSTED) { /* what this machine lacks says nothing about the upstream */
        atomic_store(&h->fails, fails + 1); /* the probe loop is the only writer */
    }
    series_health_failure(h->transport->series);
    struct loop *loop = engine_any_loop(h->engine);
    uint64_t wait = h->interval_ns > MIN_INTERVAL_NS ? h->interval_ns : MIN_INTERVAL_NS;
    loop_arm(loop, &h->again, services_mono(&h->engine->services) + wait);
    /* stopped meanwhile: either health_leave found the timer queued, or it is taken out here */
    if (atomic_load(&h->stopped) && loop_disarm(loop, &h->again)) {
        health_unref(h);
    }
}

static void send_probe(struct health *h)
{
    struct outcome outcome;
    atomic_fetch_add_explicit(&h->probes, 1, memory_order_relaxed);
    uint64_t now = services_mono(&h->engine->services);
    h->x.limit_ns = now + PROBE_LIMIT_S * SECOND_NS;
    if (!transport_exchange(h->transport, &h->x, h->proto, EXCHANGE_ONE_SHOT, now, &outcome)) {
        probe_failed(h, &outcome);
    }
}

static void probe_end(struct exchange *x, const struct outcome *outcome, struct loop *loop)
{
    struct health *h = (struct health *)((char *)x - offsetof(struct health, x));
    if (outcome->error != FWD_OK) {
        probe_failed(h, outcome);
        return;
    }
    atomic_store(&h->fails, 0);
    atomic_store(&h->probing, false);
    health_unref(h);
}

static void probe_again(struct timer *timer)
{
    send_probe((struct health *)((char *)timer - offsetof(struct health, again)));
}

void health_check(struct health *health)
{
    if (atomic_load_explicit(&health->probing, memory_order_relaxed) || atomic_exchange(&health->probing, true)) {
        return;
    }
    atomic_fetch_add(&health->refs, 1);
    send_probe(health);
}
