/* The attempt loop.
 *
 * Happy path: serve finds the stanza, policy_order puts its upstreams in order, the first that is not down gets the query on the caller's thread; its
 * answer ends the query on an I/O thread.
 *
 * Failure modes: an attempt fails: its upstream is probed and the next one tried, until the answer comes, 5 s have passed (case 44) or
 * max_connect_attempts errors have been counted (45); then SERVFAIL with the last error. All are down: one random upstream is tried all the
 * same, or none with failfast (47). A stream conn that died while it was idle is replaced at no charge (49). Whatever fails before serve has
 * returned is worked off there; if nothing remains to be tried the verdict says so, and no completion comes.
 *
 * With `retransmit` (race.h) an attempt that has no answer in time is not given up: the next upstream is asked beside it, and the silent one is probed. An
 * attempt that then times out only counts; one that fails otherwise moves on at once, as ever. SERVFAIL comes when none is out any more.
 */
#include "forward.h"

#include "engine.h"
#include "error.h"
#include "health.h"
#include "instance.h"
#include "loop.h"
#include "match.h"
#include "policy.h"
#include "race.h"
#include "random.h"
#include "transport.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)

enum {
    BUDGET_S = 5,
    ATTEMPTS_PER_UPSTREAM = 2,
    MAX_RCODE_IN_MASK = 31,
    /* attempts that may fail at once in a row, where max_connect_attempts sets no limit: serve must not spin for 5 s */
    MAX_INSTANT_FAILURES = 64,
    MAX_FREE_RETRIES = 16,
};

/* What is to be done with a query next. */
enum step {
    STEP_NEXT_PROXY, /* choose an upstream, then send */
    STEP_SEND,       /* to the attempt's upstream */
    STEP_WAIT,       /* for the other attempts */
    STEP_END,        /* it has ended; *ret says how */
};

static void attempt_ended(struct exchange *x, const struct outcome *outcome, struct loop *loop);

static const struct services *services_of(const struct query *q)
{
    return &q->instance->services;
}

/* --- endings ------------------------------------------------------------------------------------------------------ */

static enum step end_with(struct query *q, uint32_t kind, uint32_t rcode, struct loop_done *ret)
{
    if (q->counted) {
        atomic_fetch_sub_explicit(&q->stanza->concurrent, 1, memory_order_relaxed);
        q->counted = false;
    }
    if (q->set != NULL) {
        stanza_leave(q->stanza, q->set);
        q->set = NULL;
    }
    *ret = (struct loop_done){.query = q, .kind = kind, .rcode = rcode};
    return STEP_END;
}

static enum step end_canceled(struct query *q, struct loop_done *ret)
{
    q->error = FWD_ERR_CANCELED;
    (void)snprintf(q->detail, sizeof(q->detail), "%s", error_text(FWD_ERR_CANCELED));
    return end_with(q, FWD_KIND_CANCELED, RCODE_SERVFAIL, ret);
}

/* Case 57: the last error, or that nothing could be tried. */
static enum step end_failed(struct query *q, struct loop_done *ret)
{
    if (q->error == FWD_OK) {
        q->error = FWD_ERR_NO_HEALTHY;
        (void)snprintf(q->detail, sizeof(q->detail), "%s", error_text(FWD_ERR_NO_HEALTHY));
    }
    return end_with(q, FWD_KIND_RCODE, RCODE_SERVFAIL, ret);
}

/* Nothing more is tried. What is out may still be answered. */
static enum step give_up(struct query *q, struct loop_done *ret)
{
    return race_others(q) ? STEP_WAIT : end_failed(q, ret);
}

static enum step end_answered(struct query *q, uint32_t kind, const struct outcome *outcome, uint32_t rcode,
                              struct loop_done *ret)
{
    end_with(q, kind, rcode, ret);
    ret->wire = outcome->wire;
    ret->wire_len = outcome->wire_len;
    return STEP_END;
}

/* --- one attempt -------------------------------------------------------------------------------------------------- */

static uint32_t proto_for(const struct attempt *a)
{
    const struct query *q = a->query;
    const struct config_options *config = q->stanza->options;
    uint32_t options = q->options;
    if (config->force_tcp || a->retry_tcp || (options & FWD_EXCHANGE_FORCE_TCP) != 0) {
        return FWD_PROTO_TCP; /* case 50: force_tcp beats prefer_udp */
    }
    if (config->prefer_udp || (options & FWD_EXCHANGE_PREFER_UDP) != 0) {
        return FWD_PROTO_UDP;
    }
    return q->client_tcp ? FWD_PROTO_TCP : FWD_PROTO_UDP;
}

static void note_error(struct query *q, const struct outcome *outcome)
{
    q->error = outcome->error;
    q->proto = outcome->proto;
    fault_print(outcome, q->proxy->text, q->detail, sizeof(q->detail));
    fault_note(&q->proxy->transport->fault, outcome, q->detail, services_real(services_of(q)));
}

/* Cases 51 and 82: one event for the query as the client sent it, one for the answer, both after the attempt. */
static void tap_attempt(const struct query *q, const struct outcome *outcome, uint64_t now_real)
{
    const struct fwd_tap *tap = services_of(q)->tap;
    struct fwd_tap_event event = {
        .struct_size = sizeof(event),
        .kind = FWD_TAP_FORWARDER_QUERY,
        .token = q->token,
        .wire = q->first.x.wire,
        .wire_len = q->first.x.wire_len,
        .proto = outcome->proto,
        .query_time_ns = q->real_ns,
        .client = q->client,
        .local = outcome->local,
        .remote = q->proxy->transport->key.addr,
    };
    tap->tap(tap->arg, &event);
    if (outcome->error == FWD_OK) {
        event.kind = FWD_TAP_FORWARDER_RESPONSE;
        event.wire = outcome->wire;
        event.wire_len = outcome->wire_len;
        event.response_time_ns = now_real;
        tap->tap(tap->arg, &event);
    }
}

static void trace_attempt(const struct query *q, const struct outcome *outcome, uint32_t rcode, uint64_t now_real)
{
    const struct fwd_trace *trace = services_of(q)->trace;
    struct fwd_span span = {
        .struct_size = sizeof(span),
        .proto = outcome->proto,
        .token = q->token,
        .start_ns = now_real - outcome->elapsed_ns,
        .end_ns = now_real,
        .upstream = q->proxy->text,
        .rcode = rcode,
        .error = outcome->error,
    };
    trace->span(trace->arg, &span);
}

static void report_attempt(const struct query *q, const struct outcome *outcome, uint32_t rcode)
{
    const struct services *services = services_of(q);
    if (services->tap == NULL && services->trace == NULL) {
        return;
    }
    uint64_t now = services_real(services);
    if (services->tap != NULL) {
        tap_attempt(q, outcome, now);
    }
    if (services->trace != NULL) {
        trace_attempt(q, outcome, rcode, now);
    }
}

/* --- the list of upstreams ---------------------------------------------------------------------------------------- */

static uint64_t max_attempts(const struct query *q)
{
    const struct config_options *config = q->stanza->options;
    uint64_t max = (uint64_t)ATTEMPTS_PER_UPSTREAM * q->set->count;
    if (config->has_max_connect_attempts) {
        return config->max_connect_attempts;
    }
    return config->retransmit_ns > 0 && max < RACE_MAX ? RACE_MAX : max; /* several may be lost in the time of one */
}

static bool out_of_attempts(const struct query *q)
{
    uint64_t max = max_attempts(q);
    return max > 0 && q->errors >= max;
}

static bool is_down(const struct fwd_proxy *proxy)
{
    return health_down(proxy->health, proxy->stanza->options->max_fails);
}

static struct fwd_proxy *any_proxy(const struct query *q)
{
    uint16_t n = 0;
    (void)random_below(services_of(q), (uint16_t)q->set->count, &n);
    return q->set->items[n];
}

/* The next upstream to try (cases 46, 47); NULL when all are down and failfast is set. */
static struct fwd_proxy *next_proxy(struct query *q)
{
    uint32_t count = q->set->count;
    for (;;) {
        if (q->at >= count) {
            q->at = 0;
            q->fails = 0;
        }
        struct fwd_proxy *proxy = q->set->items[q->order[q->at++]];
        if (!is_down(proxy)) {
            return proxy;
        }
        if (++q->fails >= count) {
            atomic_fetch_add_explicit(&totals.healthcheck_broken, 1, memory_order_relaxed);
            return q->stanza->options->failfast ? NULL : any_proxy(q);
        }
    }
}

/* --- stanzas ------------------------------------------------------------------------------------------------------ */

static bool over_limit(struct query *q)
{
    struct stanza *stanza = q->stanza;
    uint64_t max = stanza->options->max_concurrent;
    if (max == 0) {
        return false;
    }
    q->counted = true; /* first, whatever follows (case 43) */
    return (uint64_t)(atomic_fetch_add_explicit(&stanza->concurrent, 1, memory_order_relaxed) + 1) > max;
}

static void forget_progress(struct query *q)
{
    q->at = q->fails = q->failovers = 0;
    q->errors = 0;
    q->error = FWD_OK;
    q->detail[0] = '\0';
}

/* Writes the policy's order of the stanza's upstreams, into memory of its own where there are many. */
static int put_in_order(struct query *q)
{
    struct stanza *stanza = q->stanza;
    if (q->set->count > QUERY_FEW) {
        uint8_t *many = realloc(q->order != q->few ? q->order : NULL, QUERY_MAX_UPSTREAMS);
        if (many == NULL) {
            return FWD_ERR_NOMEM;
        }
        q->order = many;
    }
    return policy_order(stanza->options->policy, &stanza->turn, services_of(q), q->set->count, q->order);
}

/* Begins with a stanza: it has its own budget, as each forward has in CoreDNS's chain. */
static enum step enter_stanza(struct query *q, struct stanza *stanza, struct loop_done *ret)
{
    const struct config_options *config = stanza->options;
    forget_progress(q);
    q->stanza = stanza;
    if (over_limit(q)) {
        q->error = FWD_ERR_MAX_CONCURRENT;
        (void)snprintf(q->detail, sizeof(q->detail), "concurrent queries exceeded maximum %llu",
                       (unsigned long long)config->max_concurrent);
        atomic_fetch_add_explicit(&totals.max_concurrent_rejects, 1, memory_order_relaxed);
        return end_with(q, FWD_KIND_RCODE, RCODE_REFUSED, ret);
    }
    q->set = stanza_take(stanza);
    int r = put_in_order(q);
    if (r < 0) {
        q->error = r;
        (void)snprintf(q->detail, sizeof(q->detail), "choosing an upstream: %s", error_text(r));
        return end_failed(q, ret);
    }
    q->limit_ns = q->now_ns + BUDGET_S * SECOND_NS;
    if (q->race != NULL) {
        race_set_interval(q->race, config->retransmit_ns);
    }
    return STEP_NEXT_PROXY;
}

static bool is_last_stanza(const struct query *q)
{
    return q->stanza->index + 1 == q->instance->stanza_count;
}

/* Case 56: hands the query to the next forward; the end of the chain is the host's. */
static enum step leave_stanza(struct query *q, const struct outcome *outcome, uint32_t rcode, struct loop_done *ret)
{
    struct stanza *next = match_find(q->instance, q->stanza->index + 1, q->first.x.wire + WIRE_HEADER,
                                     q->first.x.query.qname_len);
    if (next == NULL) {
        return end_answered(q, FWD_KIND_NEXT, outcome, rcode, ret);
    }
    struct loop_done unused;
    end_with(q, FWD_KIND_NEXT, 0, &unused);
    return enter_stanza(q, next, ret);
}

/* --- what an attempt led to --------------------------------------------------------------------------------------- */

static bool in_set(const struct config_rcodes *set, uint32_t rcode)
{
    return rcode <= MAX_RCODE_IN_MASK && (set->mask >> rcode & 1) != 0;
}

static bool goes_to_next(const struct query *q, const struct outcome *outcome, uint32_t rcode)
{
    const struct config_options *config = q->stanza->options;
    if (q->single || is_last_stanza(q)) {
        return false;
    }
    return in_set(&config->next, rcode) ||
           (config->next_on_nodata && rcode == RCODE_NOERROR && wire_answer_empty(outcome->wire));
}

static enum step after_answer(struct attempt *a, const struct outcome *outcome, struct loop_done *ret)
{
    struct query *q = a->query;
    uint32_t rcode = wire_rcode(outcome->wire, outcome->wire_len);
    const struct config_options *config = q->stanza->options;
    wire_put_u16(outcome->wire, q->client_id);
    q->error = FWD_OK;
    q->proto = outcome->proto;
    series_duration(q->proxy->transport->series, rcode, outcome->elapsed_ns);
    report_attempt(q, outcome, rcode);
    bool truncated = (wire_u16(outcome->wire + 2) & WIRE_FLAG_TC) != 0;
    if (truncated && outcome->proto == FWD_PROTO_UDP && (config->prefer_udp || (q->options & FWD_EXCHANGE_PREFER_UDP) != 0)) {
        a->retry_tcp = true;
        return STEP_SEND;
    }
    if (!q->single && in_set(&config->failover, rcode) && ++q->failovers < q->set->count) {
        return STEP_NEXT_PROXY;
    }
    if (goes_to_next(q, outcome, rcode)) {
        return leave_stanza(q, outcome, rcode, ret);
    }
    return end_answered(q, FWD_KIND_ANSWER, outcome, rcode, ret);
}

static bool time_is_up(const struct query *q)
{
    return q->now_ns >= q->limit_ns;
}

static enum step after_error(struct attempt *a, const struct outcome *outcome, struct loop_done *ret)
{
    struct query *q = a->query;
    if (outcome->error == FWD_ERR_CANCELED) {
        return end_canceled(q, ret);
    }
    if (outcome->stale && !time_is_up(q) && a->free_retries < MAX_FREE_RETRIES) {
        series_stale(q->proxy->transport->series);
        a->free_retries++;
        a->x.fresh = !outcome->shared; /* a conn of its own cannot be stale; a shared one may be cut off again */
        return STEP_SEND;
    }
    note_error(q, outcome);
    series_error(q->proxy->transport->series, outcome->error);
    report_attempt(q, outcome, RCODE_SERVFAIL);
    /* what this machine lacks says nothing about the upstream */
    bool ours = outcome->error == FWD_ERR_EXHAUSTED || outcome->phase == PHASE_WAIT;
    if (q->stanza->options->max_fails > 0 && !ours) {
        health_check(q->proxy->health); /* case 53 */
    }
    q->errors++;
    if (q->single || out_of_attempts(q) || q->fails >= q->set->count) {
        return give_up(q, ret);
    }
    if (outcome->error == FWD_ERR_TIMEOUT && race_others(q)) {
        return STEP_WAIT; /* another has been started in its place */
    }
    return STEP_NEXT_PROXY;
}

static enum step choose_proxy(struct attempt *a, struct loop_done *ret)
{
    struct query *q = a->query;
    if (time_is_up(q) || out_of_attempts(q)) {
        return give_up(q, ret);
    }
    a->proxy = next_proxy(q);
    if (a->proxy == NULL) {
        return give_up(q, ret);
    }
    a->retry_tcp = false;
    return STEP_SEND;
}

static void go_out(struct attempt *a)
{
    a->stanza = a->query->stanza;
    a->set = a->query->set;
    a->out = true;
    if (a->query->race != NULL) {
        stanza_hold(a->stanza, a->set);
    }
}

static void come_back(struct attempt *a)
{
    a->out = false;
    if (a->query->race != NULL) {
        stanza_leave(a->stanza, a->set);
    }
}

static bool send_attempt(struct attempt *a, struct outcome *ret)
{
    struct query *q = a->query;
    q->proxy = a->proxy;
    q->attempts++;
    a->x.limit_ns = q->limit_ns;
    a->x.read_timeout_ns = q->stanza->options->read_timeout_ns;
    go_out(a); /* before it can end elsewhere */
    return transport_exchange(a->proxy->transport, &a->x, proto_for(a), 0, q->now_ns, ret);
}

/* Takes steps until the attempt is in flight or others are waited for (true; without a race q may not be touched any more), or the query has
 * ended (false; *ret). */
static bool run(struct attempt *a, enum step step, struct loop_done *ret)
{
    struct query *q = a->query;
    for (uint32_t instant = 0;; instant++) {
        if (step == STEP_NEXT_PROXY) {
            step = instant <= MAX_INSTANT_FAILURES ? choose_proxy(a, ret) : give_up(q, ret);
        }
        if (step != STEP_SEND) {
            return step == STEP_WAIT;
        }
        struct outcome outcome;
        if (send_attempt(a, &outcome)) {
            return true;
        }
        come_back(a);
        q->now_ns = services_mono(services_of(q));
        step = after_error(a, &outcome, ret);
    }
}

/* Runs an attempt of a race and sets the time for the next. Locked. @return as run */
static bool run_race(struct attempt *a, enum step step, struct loop_done *ret)
{
    struct query *q = a->query;
    if (!run(a, step, ret)) {
        race_settle(q->race);
        return false;
    }
    if (!q->single) {
        race_arm(q->race, q->now_ns);
    }
    return true;
}

static enum step after_attempt(struct attempt *a, const struct outcome *outcome, struct loop_done *ret)
{
    struct query *q = a->query;
    q->proxy = a->proxy;
    q->now_ns = services_mono(services_of(q));
    return outcome->error == FWD_OK ? after_answer(a, outcome, ret) : after_error(a, outcome, ret);
}

/* As attempt_ended. An attempt that comes back when the query has ended or has gone on to another stanza changes nothing. */
static void race_attempt_ended(struct attempt *a, const struct outcome *outcome, struct loop *loop)
{
    struct query *q = a->query;
    struct race *race = q->race;
    struct loop_done done;
    race_lock(race);
    come_back(a);
    bool late = race->over || a->stanza != q->stanza;
    bool ended = !late && !run_race(a, after_attempt(a, outcome, &done), &done);
    race_unlock(race);
    if (ended) {
        loop_done(loop, &done);
    }
}

static void attempt_ended(struct exchange *x, const struct outcome *outcome, struct loop *loop)
{
    struct attempt *a = (struct attempt *)((char *)x - offsetof(struct attempt, x));
    struct loop_done done;
    if (a->query->race != NULL) {
        race_attempt_ended(a, outcome, loop);
    } else if (!run(a, after_attempt(a, outcome, &done), &done)) {
        loop_done(loop, &done);
    }
}

/* Has every upstream probed that has been asked and is silent. Locked. */
static void probe_silent(struct race *race)
{
    if (race->query->stanza->options->max_fails == 0) {
        return;
    }
    for (uint32_t i = 0; i < RACE_MAX; i++) {
        const struct attempt *a = race_attempt(race, i);
        if (a->out && a->stanza == race->query->stanza) {
            health_check(a->proxy->health);
        }
    }
}

/* The time for an answer has passed: another attempt is made, while those that are out are still listened to. */
static void retransmit(struct timer *timer)
{
    struct race *race = race_of(timer);
    struct query *q = race->query;
    struct loop *loop = race->loop;
    struct loop_done done;
    bool ended = false;
    race_lock(race);
    race->armed = false;
    struct attempt *a = race->over ? NULL : race_spare(race);
    if (a != NULL) {
        q->now_ns = services_mono(services_of(q));
        probe_silent(race);
        ended = !run_race(a, STEP_NEXT_PROXY, &done);
        if (a->out) {
            series_retransmit(a->proxy->transport->series);
        }
    }
    race_unlock(race);
    if (ended) {
        loop_done(loop, &done);
    }
}

/* --- the way in --------------------------------------------------------------------------------------------------- */

static void verdict(struct fwd_query *query, uint32_t rcode, int error, const char *detail)
{
    query->verdict = FWD_VERDICT_RCODE;
    query->rcode = rcode;
    query->error = error;
    if (FWD_COVERS(query, detail_cap) && query->detail != NULL && query->detail_cap > 0) {
        (void)snprintf(query->detail, query->detail_cap, "%s", detail);
    }
}

/* Opcodes that a forwarder has no business relaying (UPDATE and the like) get NOTIMP here as well as in the listeners. */
static bool opcode_allowed(const struct wire_query *parsed)
{
    uint16_t opcode = parsed->flags >> 11 & 0xf;
    return opcode == OPCODE_QUERY || opcode == OPCODE_NOTIFY;
}

/* Parses the query. @return true, or false with the verdict written */
static bool accept(struct fwd_query *query, struct wire_query *ret)
{
    query->verdict = FWD_VERDICT_NONE;
    query->handle = 0;
    query->rcode = RCODE_NOERROR;
    query->error = FWD_OK;
    if (query->wire == NULL || query->wire_len > FWD_MAX_WIRE || wire_query_parse(query->wire, query->wire_len, ret) != 0) {
        verdict(query, RCODE_FORMERR, FWD_ERR_BAD_QUERY, error_text(FWD_ERR_BAD_QUERY));
        return false;
    }
    if (!opcode_allowed(ret)) {
        verdict(query, RCODE_NOTIMP, FWD_ERR_BAD_QUERY, "opcode not implemented");
        return false;
    }
    return true;
}

static struct query *make_query(struct fwd_instance *instance, struct fwd_query *query, const struct wire_query *parsed)
{
    struct query *q = query_alloc(&instance->engine->slab, instance, query->wire, query->wire_len);
    if (q == NULL) {
        verdict(query, RCODE_SERVFAIL, FWD_ERR_NOMEM, error_text(FWD_ERR_NOMEM));
        return NULL;
    }
    const struct services *services = &instance->services;
    q->first.x.query = *parsed;
    q->first.x.end = attempt_ended;
    q->first.x.want_local = services->tap != NULL;
    q->token = query->token;
    q->client = query->client;
    q->client_id = parsed->id;
    q->client_tcp = (query->flags & FWD_QUERY_TCP) != 0;
    q->start_ns = q->now_ns = services_mono(services);
    if (services->tap != NULL || services->trace != NULL) {
        q->real_ns = services_real(services);
    }
    if (instance->races) {
        (void)race_begin(q, retransmit); /* without memory for it there is one attempt at a time */
    }
    return q;
}

/* Runs a new query as far as it goes on this thread and writes the verdict. */
static void launch(struct query *q, enum step step, struct loop_done *done, struct fwd_query *query)
{
    struct query_slab *slab = &q->instance->engine->slab;
    struct race *race = q->race;
    query->handle = query_handle(q); /* before it can end elsewhere */
    bool accepted = race != NULL ? run_race(&q->first, step, done) : run(&q->first, step, done);
    race_unlock(race);
    if (accepted) {
        query->verdict = FWD_VERDICT_ACCEPTED;
        return;
    }
    query->handle = 0;
    verdict(query, done->rcode, q->error, q->detail);
    query_free(slab, q);
}

void forward_serve(struct fwd_instance *instance, struct fwd_query *query)
{
    struct wire_query parsed;
    if (!accept(query, &parsed)) {
        return;
    }
    struct stanza *stanza = match_find(instance, 0, query->wire + WIRE_HEADER, parsed.qname_len);
    if (stanza == NULL) {
        query->verdict = FWD_VERDICT_NEXT; /* case 42 */
        return;
    }
    struct query *q = make_query(instance, query, &parsed);
    if (q != NULL) {
        struct loop_done done;
        launch(q, enter_stanza(q, stanza, &done), &done, query);
    }
}

void forward_exchange(struct fwd_proxy *proxy, struct fwd_query *query, uint32_t options)
{
    struct wire_query parsed;
    if (!accept(query, &parsed)) {
        return;
    }
    struct proxy_set *set = proxy_hold(proxy);
    if (set == NULL) {
        verdict(query, RCODE_SERVFAIL, FWD_ERR_STOPPED, error_text(FWD_ERR_STOPPED));
        return;
    }
    struct query *q = make_query(proxy->stanza->instance, query, &parsed);
    if (q == NULL) {
        stanza_leave(proxy->stanza, set);
        return;
    }
    struct loop_done done;
    q->single = true;
    q->options = options;
    q->stanza = proxy->stanza;
    q->set = set;
    q->first.proxy = proxy;
    q->limit_ns = q->start_ns + BUDGET_S * SECOND_NS;
    launch(q, STEP_SEND, &done, query);
}
