/* The life of queries and instances: cancel in every state, drain, stop, destroy, wrong order of
 * calls; and the services of a host. */
#include "message.h"
#include "plain.h"
#include "suite.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* --- cancel ---------------------------------------------------------------------------------- */

/** The handle of an ended query is not found, from the moment at which done has returned (another
 * thread may still be inside it). */
static void check_gone(struct host *host, const struct outcome *outcome)
{
    work_until(host, host->forward->cancel(host->instance, outcome->handle) == FWD_ERR_NOTFOUND);
}

static void check_canceled(struct host *host, uint64_t token)
{
    const struct outcome *outcome = host_outcome(host, token);
    ck_assert_uint_eq(outcome->verdict, FWD_VERDICT_ACCEPTED);
    ck_assert_uint_ne(outcome->handle, 0);
    ck_assert_int_eq(host->forward->cancel(host->instance, outcome->handle), FWD_OK);
    outcome = host_wait(host, token, 2000);
    ck_assert_uint_eq(outcome->kind, FWD_KIND_CANCELED);
    ck_assert_int_eq(outcome->error, FWD_ERR_CANCELED);
    check_gone(host, outcome);
}

/* A query that waits for an answer is ended by cancel, and its connection is not used again. */
START_TEST(cancel_waiting)
{
    struct upstream_rule mute = {.drop = true};
    upstream_set(up, &mute);
    struct host *host = host_open(_i, "forward . %s {\n port_budget 0\n}", upstream_addr(up));
    uint64_t udp = host_send(host, "cancel.test");
    uint64_t tcp = host_send_tcp(host, "cancel.test");
    host_work(host, 50);
    check_canceled(host, udp);
    check_canceled(host, tcp);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_UDP).idle, 0);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_TCP).idle, 0);
    ck_assert_uint_eq(host->proxies->fails(host->proxies->at(host->instance, 0)), 0);
    host_close(host);
}
END_TEST

/* The same at once after serve: over TCP the connection may still be coming. */
START_TEST(cancel_at_once)
{
    struct upstream_rule mute = {.drop = true};
    upstream_set(up, &mute);
    struct host *host = host_open(_i, "forward . %s", upstream_addr(up));
    for (unsigned i = 0; i < 100; i++) {
        check_canceled(host, i % 2 == 0 ? host_send_tcp(host, "atonce.test")
                                        : host_send(host, "atonce.test"));
    }
    host_close(host);
}
END_TEST

/* A canceled query that has moved on to its second upstream. */
START_TEST(cancel_after_failover)
{
    struct upstream *other = upstream_create();
    struct upstream_rule mute = {.drop = true};
    upstream_down(up);
    upstream_set(other, &mute);
    struct host *host = host_open(_i, "forward . %s %s {\n policy sequential\n}", upstream_addr(up),
                                  upstream_addr(other));
    uint64_t token = host_send(host, "failover.test");
    work_until(host, upstream_counts(other).queries > 0);
    check_canceled(host, token);
    host_close(host);
    upstream_destroy(other);
}
END_TEST

/* Cancel races with the answer: one end, whichever it is. */
START_TEST(cancel_races_with_the_answer)
{
    struct host *host = host_open(_i, "forward . %s", upstream_addr(up));
    for (unsigned i = 0; i < 500; i++) {
        uint64_t token =
            i % 2 == 0 ? host_send(host, "race.test") : host_send_tcp(host, "race.test");
        int32_t result = host->forward->cancel(host->instance, host_outcome(host, token)->handle);
        const struct outcome *outcome = host_wait(host, token, 5000);
        ck_assert(result == FWD_OK || result == FWD_ERR_NOTFOUND);
        ck_assert(outcome->kind == FWD_KIND_CANCELED || outcome_good(outcome, "race.test"));
        ck_assert(result == FWD_OK || outcome->kind == FWD_KIND_ANSWER);
    }
    host_close(host);
}
END_TEST

/* Handles of ended queries and made-up ones are not found. */
START_TEST(cancel_unknown)
{
    struct host *host = host_open(_i, "forward . %s", upstream_addr(up));
    static const uint64_t made_up[] = {0, 1, 2, UINT64_MAX, UINT64_C(1) << 32, UINT64_C(1) << 63};
    const struct outcome *outcome = host_ask(host, "unknown.test");
    check_gone(host, outcome);
    for (size_t i = 0; i < sizeof(made_up) / sizeof(*made_up); i++) {
        ck_assert_int_eq(host->forward->cancel(host->instance, made_up[i]), FWD_ERR_NOTFOUND);
    }
    host_close(host);
}
END_TEST

/* --- stop and destroy ------------------------------------------------------------------------ */

/* stop waits for what is in flight, for as long as it may. */
START_TEST(stop_drains)
{
    struct upstream_rule slow = {.delay_ms = 300};
    upstream_set(up, &slow);
    struct host *host = host_open(_i, "forward . %s", upstream_addr(up));
    for (unsigned i = 0; i < 20; i++) {
        (void)(i % 2 == 0 ? host_send(host, "drain.test") : host_send_tcp(host, "drain.test"));
    }
    ck_assert_int_eq(host->forward->stop(host->instance, 5000000000u), FWD_OK);
    for (uint64_t token = 1; token <= 20; token++) {
        ck_assert(outcome_good(host_outcome(host, token), "drain.test"));
    }
    host_close(host);
}
END_TEST

/* When the time has passed the rest is canceled. */
START_TEST(stop_cancels_the_rest)
{
    struct upstream_rule mute = {.drop = true};
    upstream_set(up, &mute);
    for (unsigned drain_ms = 0; drain_ms <= 100; drain_ms += 100) {
        struct host *host = host_open(_i, "forward . %s", upstream_addr(up));
        for (unsigned i = 0; i < 20; i++) {
            (void)(i % 2 == 0 ? host_send(host, "rest.test") : host_send_tcp(host, "rest.test"));
        }
        ck_assert_int_eq(host->forward->stop(host->instance, drain_ms * 1000000u), FWD_OK);
        for (uint64_t token = 1; token <= 20; token++) {
            ck_assert_uint_eq(host_outcome(host, token)->kind, FWD_KIND_CANCELED);
        }
        host_close(host);
    }
}
END_TEST

/* destroy alone does the same as stop at once, with hundreds in flight. */
START_TEST(destroy_with_many_in_flight)
{
    struct upstream_rule slow = {.delay_ms = 20};
    upstream_set(up, &slow);
    for (unsigned round = 0; round < 5; round++) {
        struct host *host = host_open(_i, "forward . %s", upstream_addr(up));
        (void)host_send_batch(host, "destroy", 400);
        for (unsigned i = 0; i < 50; i++) {
            (void)host_send_tcp(host, "destroy.test");
        }
        host_work(host, round * 6);
        host_close(host);
    }
}
END_TEST

/* Calls in the wrong state are errors, not accidents. */
START_TEST(wrong_state)
{
    struct host *host = host_open(_i, "forward . %s", upstream_addr(up));
    struct fwd_query query = FWD_INIT(struct fwd_query);
    uint8_t wire[64];
    query.wire = wire;
    query.wire_len = (uint32_t)message_query(wire, sizeof(wire), 1, "state.test", TYPE_A);
    ck_assert_int_eq(host->forward->start(host->instance, NULL), FWD_ERR_STATE);
    int32_t fd = host->forward->poll_fd(host->instance, 0);
    int32_t ran = host->forward->run(host->instance, 0);
    if (_i == MODE_THREADS) {
        ck_assert_int_eq(fd, FWD_ERR_STATE);
        ck_assert_int_eq(ran, FWD_ERR_STATE);
    } else {
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(ran, 0);
    }
    ck_assert_int_eq(host->forward->stop(host->instance, 0), FWD_OK);
    ck_assert_int_eq(host->forward->stop(host->instance, 0), FWD_ERR_STATE);
    ck_assert_int_eq(host->forward->serve(host->instance, &query, 1), FWD_ERR_STATE);
    ck_assert_uint_eq(query.verdict, FWD_VERDICT_NONE);
    ck_assert_int_eq(host->forward->start(host->instance, NULL), FWD_ERR_STATE);
    host_close(host);
}
END_TEST

static void ignore_done(void *arg, const struct fwd_completion *completions, uint32_t count)
{
}

/* create, no start, destroy; destroy of nothing. */
START_TEST(never_started)
{
    const struct fwd_forward *forward = host_module()->get_interface(FWD_FORWARD_ID);
    struct fwd_host fwd_host = FWD_INIT(struct fwd_host);
    char json[128];
    fwd_host.completion_size = sizeof(struct fwd_completion);
    fwd_host.done = ignore_done;
    int len = snprintf(json, sizeof(json),
                       "{\"io_threads\":%d,\"forward\":[{\"from\":\".\",\"to\":[{\"addr\":\"%s\","
                       "\"transport\":\"dns\"}]}]}",
                       _i == 0 ? 1 : 0, upstream_addr(up));
    struct fwd_instance *instance = NULL;
    ck_assert_int_eq(forward->create(&fwd_host, json, (uint64_t)len, &instance, NULL), FWD_OK);
    struct fwd_query query = FWD_INIT(struct fwd_query);
    uint8_t wire[64];
    query.wire = wire;
    query.wire_len = (uint32_t)message_query(wire, sizeof(wire), 1, "never.test", TYPE_A);
    ck_assert_int_eq(forward->serve(instance, &query, 1), FWD_ERR_STATE);
    ck_assert_int_eq(forward->poll_fd(instance, 0), FWD_ERR_STATE);
    forward->destroy(instance);
    forward->destroy(NULL);
}
END_TEST

/* Instances come and go: descriptors and threads are as before. */
START_TEST(nothing_is_left_behind)
{
    unsigned fds = 0, threads = 0;
    for (unsigned round = 0; round < 6; round++) {
        struct host *host =
            host_open(_i, "forward . %s {\n health_check 20ms\n}", upstream_addr(up));
        for (unsigned i = 0; i < 20; i++) {
            (void)(i % 2 == 0 ? host_send(host, "left.test") : host_send_tcp(host, "left.test"));
        }
        host_wait_all(host, 5000);
        host_close(host);
        ck_assert(upstream_wait_open(up, 0, 5000));
        if (round == 0) {
            fds = count_entries("/proc/self/fd");
            threads = count_entries("/proc/self/task");
        }
        ck_assert_uint_eq(count_entries("/proc/self/fd"), fds);
        ck_assert_uint_eq(count_entries("/proc/self/task"), threads);
    }
}
END_TEST

/* With io_threads 0 no thread is started, and nothing happens but inside run. */
START_TEST(host_driven_has_no_threads)
{
    unsigned threads = count_entries("/proc/self/task");
    struct host *host = host_open(MODE_HOST_DRIVEN, "forward . %s", upstream_addr(up));
    uint64_t token = host_send(host, "driven.test");
    ck_assert(upstream_wait_seen(up, 1, 5000));
    struct pollfd poll_fd = {.fd = host->forward->poll_fd(host->instance, 0), .events = POLLIN};
    ck_assert_int_eq(poll(&poll_fd, 1, 5000), 1);
    ck_assert(!host_outcome(host, token)->ended);
    ck_assert_uint_eq(count_entries("/proc/self/task"), threads);
    unsigned delivered = 0;
    for (unsigned i = 0; i < 100 && delivered == 0; i++) {
        int32_t ran = host->forward->run(host->instance, 0);
        ck_assert_int_ge(ran, 0);
        delivered += (unsigned)ran;
        if (delivered == 0) {
            (void)poll(&poll_fd, 1, 100);
        }
    }
    ck_assert_uint_eq(delivered, 1);
    ck_assert(outcome_good(host_outcome(host, token), "driven.test"));
    host_close(host);
}
END_TEST

/* Instances of one engine have the same loops: whoever turns them brings the answers of all. */
START_TEST(shared_loops)
{
    struct host *a = host_open(MODE_SHARED, "forward . %s", upstream_addr(up));
    struct host *b = host_open(MODE_SHARED, "forward . %s", upstream_addr(up));
    struct host *alone = host_open(MODE_HOST_DRIVEN, "forward . %s", upstream_addr(up));
    for (uint32_t i = 0; i < SHARED_LOOPS; i++) {
        int32_t fd = a->forward->poll_fd(a->instance, i);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(b->forward->poll_fd(b->instance, i), fd);
        ck_assert_int_ne(alone->forward->poll_fd(alone->instance, 0), fd);
    }
    ck_assert_int_eq(a->forward->poll_fd(a->instance, SHARED_LOOPS), FWD_ERR_ARG);
    ck_assert_int_eq(a->forward->run(a->instance, SHARED_LOOPS), FWD_ERR_ARG);
    ck_assert_int_eq(alone->forward->poll_fd(alone->instance, 1), FWD_ERR_ARG);
    for (unsigned i = 0; i < 10; i++) {
        uint64_t token = host_send(b, "shared.test");
        work_until(a, host_outcome(b, token)->ended);
        ck_assert(outcome_good(host_outcome(b, token), "shared.test"));
    }
    host_close(alone);
    host_close(a);
    ck_assert(outcome_good(host_ask(b, "after.test"), "after.test"));
    host_close(b);
}
END_TEST

/* Connections outlive the instance that opened them, as with I/O threads (case 96). */
START_TEST(shared_loops_keep_connections)
{
    struct host *host = host_open(MODE_SHARED, "forward . %s", upstream_addr(up));
    for (unsigned i = 0; i < 5; i++) {
        ck_assert(outcome_good(host_ask_tcp(host, "warm.test"), "warm.test"));
        struct host *next = host_open(MODE_SHARED, "forward . %s {\n max_fails %u\n}", upstream_addr(up), i);
        host_close(host);
        host = next;
    }
    host_close(host);
    ck_assert_uint_eq(upstream_counts(up).opened, 1);
}
END_TEST

static struct {
    const struct fwd_forward *forward;
    struct fwd_instance *instance;
    int32_t ran;
    unsigned completions;
} nested;

static void run_in_done(void *arg, const struct fwd_completion *completions, uint32_t count)
{
    nested.completions += count;
    nested.ran = nested.forward->run(nested.instance, 0);
}

/* run from inside done is refused instead of waiting for itself. */
START_TEST(run_inside_done)
{
    struct fwd_host fwd_host = FWD_INIT(struct fwd_host);
    char json[128];
    fwd_host.completion_size = sizeof(struct fwd_completion);
    fwd_host.done = run_in_done;
    int len = snprintf(json, sizeof(json), "{\"io_threads\":0,\"forward\":[{\"from\":\".\",\"to\":[{\"addr\":\"%s\"}]}]}",
                       upstream_addr(up));
    nested.forward = host_module()->get_interface(FWD_FORWARD_ID);
    ck_assert_int_eq(nested.forward->create(&fwd_host, json, (uint64_t)len, &nested.instance, NULL), FWD_OK);
    ck_assert_int_eq(nested.forward->start(nested.instance, NULL), FWD_OK);
    struct fwd_query query = FWD_INIT(struct fwd_query);
    uint8_t wire[64];
    query.wire = wire;
    query.wire_len = (uint32_t)message_query(wire, sizeof(wire), 1, "nested.test", TYPE_A);
    ck_assert_int_eq(nested.forward->serve(nested.instance, &query, 1), FWD_OK);
    struct pollfd fd = {.fd = nested.forward->poll_fd(nested.instance, 0), .events = POLLIN};
    for (unsigned i = 0; i < 100 && nested.completions == 0; i++) {
        (void)poll(&fd, 1, 100);
        ck_assert_int_ge(nested.forward->run(nested.instance, 0), 0);
    }
    ck_assert_uint_eq(nested.completions, 1);
    ck_assert_int_eq(nested.ran, FWD_ERR_STATE);
    nested.forward->destroy(nested.instance);
}
END_TEST

/* --- services -------------------------------------------------------------------------------- */

static struct {
    atomic_uint log, clock, random, tap_queries, tap_responses, spans, span_errors, starts, stops;
    atomic_bool random_fails, bad_event;
    struct upstream *up;
} called;

static void count_log(void *arg, uint32_t level, const char *msg, uint32_t len)
{
    called.log++;
    called.bad_event |=
        arg != &called || strlen(msg) != len || level < FWD_LEVEL_ERROR || level > FWD_LEVEL_DEBUG;
}

static uint64_t count_clock(void *arg)
{
    struct timespec ts;
    called.clock++;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int32_t count_random(void *arg, uint8_t *buf, uint32_t len)
{
    static atomic_uint state = 1;
    if (called.random_fails) {
        return FWD_ERR_SYSTEM;
    }
    called.random++;
    for (uint32_t i = 0; i < len; i++) {
        buf[i] = (uint8_t)(atomic_fetch_add(&state, 1) * 2654435761u >> 17);
    }
    return FWD_OK;
}

static void count_tap(void *arg, const struct fwd_tap_event *event)
{
    *(event->kind == FWD_TAP_FORWARDER_QUERY ? &called.tap_queries : &called.tap_responses) += 1;
    char remote[32];
    snprintf(remote, sizeof(remote), "%u.%u.%u.%u:%u", event->remote.ip[0], event->remote.ip[1],
             event->remote.ip[2], event->remote.ip[3], event->remote.port);
    called.bad_event |= event->struct_size < FWD_TAP_EVENT_MIN_SIZE || event->token == 0 ||
                        event->wire_len < 12 || message_id(event->wire) != 0x4321 ||
                        strcmp(remote, upstream_addr(called.up)) != 0 || event->local.port == 0 ||
                        event->query_time_ns == 0 ||
                        (event->kind == FWD_TAP_FORWARDER_RESPONSE &&
                         event->response_time_ns < event->query_time_ns);
}

static void count_span(void *arg, const struct fwd_span *span)
{
    called.spans++;
    called.span_errors += span->error != FWD_OK;
    called.bad_event |= span->token == 0 || span->end_ns < span->start_ns ||
                        strcmp(span->upstream, upstream_addr(called.up)) != 0;
}

static void count_start(void *arg, const char *name)
{
    called.starts++;
    called.bad_event |= strncmp(name, "fwd-io-", 7) != 0;
}

static void count_stop(void *arg, const char *name)
{
    called.stops++;
}

#define TABLE(type, ...)                                                                           \
    {                                                                                              \
        .struct_size = sizeof(struct type), .arg = &called, __VA_ARGS__                            \
    }
static const struct fwd_log log_table = TABLE(fwd_log, .write = count_log);
static const struct fwd_clock clock_table =
    TABLE(fwd_clock, .mono_ns = count_clock, .real_ns = count_clock);
static const struct fwd_random random_table = TABLE(fwd_random, .fill = count_random);
static const struct fwd_tap tap_table = TABLE(fwd_tap, .tap = count_tap);
static const struct fwd_trace trace_table = TABLE(fwd_trace, .span = count_span);
static const struct fwd_thread thread_table =
    TABLE(fwd_thread, .start = count_start, .stop = count_stop);
static const struct service all_services[] = {
    {FWD_LOG_ID, &log_table},
    {FWD_CLOCK_ID, &clock_table},
    {FWD_RANDOM_ID, &random_table},
    {FWD_TAP_ID, &tap_table},
    {FWD_TRACE_ID, &trace_table},
    {FWD_THREAD_ID, &thread_table},
    {NULL, NULL},
};

/* cases 51, 82: every service that is offered is used; tap and trace get each attempt, the failed
 * ones too. */
START_TEST(services_are_called_case_51_82)
{
    struct upstream_rule closing = {.instead = END_FIN};
    called.up = up;
    struct host *host = host_open_with(
        _i, all_services,
        "forward . %s {\n max_connect_attempts 2\n max_fails 1\n health_check 20ms\n}",
        upstream_addr(up));
    for (unsigned i = 0; i < 3; i++) {
        ck_assert(outcome_good(host_ask(host, "services.test"), "services.test"));
    }
    ck_assert_uint_eq(called.tap_queries, 3);
    ck_assert_uint_eq(called.tap_responses, 3);
    ck_assert_uint_eq(called.spans, 3);
    ck_assert_uint_eq(called.span_errors, 0);
    upstream_set(up, &closing);
    ck_assert_uint_eq(host_ask_tcp(host, "services.test")->attempts, 2);
    ck_assert_uint_eq(called.tap_queries, 5);
    ck_assert_uint_eq(called.tap_responses, 3);
    ck_assert_uint_eq(called.spans, 5);
    ck_assert_uint_eq(called.span_errors, 2);
    host_close(host);
    ck_assert_uint_gt(called.clock, 0);
    ck_assert_uint_gt(called.random, 0);
    ck_assert_uint_eq(called.starts, _i == MODE_THREADS ? 2 : 0);
    ck_assert_uint_eq(called.stops, called.starts);
    ck_assert(!called.bad_event);
}
END_TEST

/* A random source that fails fails the query; nothing is sent under an ID that could be guessed. */
START_TEST(failing_random_source)
{
    called.up = up;
    called.random_fails = true;
    struct host *host = host_open_with(_i, all_services, "forward . %s", upstream_addr(up));
    const struct outcome *outcome = host_ask(host, "random.test");
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_int_ne(outcome->error, FWD_OK);
    ck_assert_uint_eq(upstream_counts(up).queries, 0);
    called.random_fails = false;
    ck_assert(outcome_good(host_ask(host, "random.test"), "random.test"));
    host_close(host);
}
END_TEST

/* --- exhaustion ------------------------------------------------------------------------------ */

/* No descriptors left: errors, however many attempts are allowed, without spinning or falling over,
 * and recovery at once. */
START_TEST(descriptors_exhausted)
{
    struct rlimit old, none;
    struct host *host = host_open(_i, "forward . %s {\n max_connect_attempts %u\n max_fails 0\n}",
                                  upstream_addr(up), 20000);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = old.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    const struct outcome *outcome = host_ask(host, "nofile.test");
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_int_eq(outcome->error, FWD_ERR_EXHAUSTED);
    ck_assert(outcome_good(host_ask(host, "nofile.test"), "nofile.test"));
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("life");
    TCase *tcase = tcase_create("life");
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, cancel_waiting);
    add_test(tcase, cancel_at_once);
    add_test(tcase, cancel_after_failover);
    add_test(tcase, cancel_races_with_the_answer);
    add_test(tcase, cancel_unknown);
    add_test(tcase, stop_drains);
    add_test(tcase, stop_cancels_the_rest);
    add_test(tcase, destroy_with_many_in_flight);
    add_test(tcase, wrong_state);
    add_test(tcase, never_started);
    add_test(tcase, nothing_is_left_behind);
    tcase_add_test(tcase, host_driven_has_no_threads);
    tcase_add_test(tcase, shared_loops);
    tcase_add_test(tcase, shared_loops_keep_connections);
    tcase_add_test(tcase, run_inside_done);
    add_test(tcase, services_are_called_case_51_82);
    add_test(tcase, failing_random_source);
    add_test(tcase, descriptors_exhausted);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
