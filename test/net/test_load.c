/* Faults under load: connections killed, upstreams restarted, instances exchanged while queries
 * run. Nothing that a live upstream could answer may be lost.
 *
 * Happy path: threads send at a steady rate, the fault goes on beside them, and in the end every
 * query has the good answer to its own name. In host-driven mode the test's thread runs the loop.
 */
#include "host.h"
#include "message.h"
#include "suite.h"
#include "upstream.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

enum { SENDERS = 2, RATE = 1000 };

struct sender {
    pthread_t thread;
    _Atomic(struct host *) *host;
    unsigned number, count;
    bool tcp;
};

static struct upstream *ups[2];
static atomic_uint finished; /* senders */

static void setup(void)
{
    ups[0] = upstream_create();
    ups[1] = upstream_create();
}

static void teardown(void)
{
    upstream_destroy(ups[0]);
    upstream_destroy(ups[1]);
}

/** Sends count queries, one a millisecond. */
static void *send_steadily(void *arg)
{
    struct sender *sender = arg;
    for (unsigned i = 0; i < sender->count; i++) {
        struct host *host = atomic_load(sender->host);
        (void)(sender->tcp ? host_send_tcp(host, "load.test") : host_send(host, "load.test"));
        nanosleep(&(struct timespec){.tv_nsec = 1000000000 / RATE}, NULL);
    }
    atomic_fetch_add(&finished, 1);
    return NULL;
}

static void start_senders(struct sender *senders, _Atomic(struct host *) *host, unsigned count,
                          bool tcp)
{
    atomic_store(&finished, 0);
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.host = host, .number = i, .count = count, .tcp = tcp};
        ck_assert_int_eq(pthread_create(&senders[i].thread, NULL, send_steadily, &senders[i]), 0);
    }
}

static void join_senders(struct sender *senders)
{
    for (unsigned i = 0; i < SENDERS; i++) {
        pthread_join(senders[i].thread, NULL);
    }
}

/** All queries of a host have the good answer. */
static void check_all_good(struct host *host, uint64_t count)
{
    for (uint64_t token = 1; token <= count; token++) {
        const struct outcome *outcome = host_outcome(host, token);
        ck_assert_msg(outcome_good(outcome, "load.test"),
                      "query %llu of %llu: verdict %u, kind %u, %u attempts: %s",
                      (unsigned long long)token, (unsigned long long)count, outcome->verdict,
                      outcome->kind, outcome->attempts, outcome->detail);
    }
}

/* cases 49, 78: one upstream kills all its connections again and again; one attempt is allowed. A
 * connection that is new when it is killed has no second chance with one attempt, so the default of
 * two applies here. */
static void check_kills(int mode, enum ending how)
{
    enum { COUNT = 800 };
    struct sender senders[SENDERS];
    struct upstream_rule slow = {.delay_ms = 2};
    upstream_set(ups[0], &slow);
    _Atomic(struct host *) host =
        host_open(mode, "forward . %s {\n max_connect_attempts 10\n}", upstream_addr(ups[0]));
    upstream_kill_every(ups[0], how, 40);
    start_senders(senders, &host, COUNT, true);
    host_work(host, COUNT * 1000 / RATE);
    join_senders(senders);
    upstream_kill_every(ups[0], END_NONE, 0);
    host_wait_all(host, 10000);
    check_all_good(host, SENDERS * COUNT);
    host_close(host);
}

START_TEST(connections_killed_by_fin_case_49_78)
{
    check_kills(_i, END_FIN);
}
END_TEST

START_TEST(connections_killed_by_rst_case_49_78)
{
    check_kills(_i, END_RST);
}
END_TEST

/* All connections of both upstreams are killed every 0.5 s: nothing is lost. @return how much longer the
 * slowest query that was hit took than the slowest of the others, in nanoseconds, at least 0 */
static uint64_t kill_latency(int mode, enum ending how)
{
    enum { COUNT = 2600 };
    struct sender senders[SENDERS];
    struct upstream_rule slow = {.delay_ms = 2};
    uint64_t calm_ns = 0, hit_ns = 0;
    unsigned hit = 0;
    _Atomic(struct host *) host =
        host_open(mode, "forward . %s %s", upstream_addr(ups[0]), upstream_addr(ups[1]));
    for (unsigned i = 0; i < 2; i++) {
        upstream_set(ups[i], &slow);
        upstream_kill_every(ups[i], how, 500);
    }
    start_senders(senders, &host, COUNT, true);
    while (atomic_load(&finished) < SENDERS) {
        host_work(host, 5);
    }
    join_senders(senders);
    host_wait_all(host, 10000);
    check_all_good(host, SENDERS * COUNT);
    for (uint64_t token = 1; token <= SENDERS * COUNT; token++) {
        const struct outcome *outcome = host_outcome(host, token);
        uint64_t *worst = outcome->attempts > 1 ? &hit_ns : &calm_ns;
        hit += outcome->attempts > 1;
        *worst = outcome->elapsed_ns > *worst ? outcome->elapsed_ns : *worst;
    }
    printf("# %u of %u hit, the slowest %.1f ms, of the others %.1f ms\n", hit, SENDERS * COUNT,
           (double)hit_ns / 1e6, (double)calm_ns / 1e6);
    ck_assert_uint_gt(hit, 0);
    host_close(host);
    return hit_ns > calm_ns ? hit_ns - calm_ns : 0;
}

/* cases 49, 78: a query that was hit costs 20 ms more at most. What is at fault is so every time; a thread
 * that a busy machine does not run for so long is not. */
static void check_kill_latency(int mode, enum ending how)
{
    enum { TRIES = 3, MOST_NS = 20000000 };
    uint64_t more_ns = kill_latency(mode, how);
    for (unsigned i = 1; i < TRIES && more_ns > MOST_NS; i++) {
        more_ns = kill_latency(mode, how);
    }
    ck_assert_uint_le(more_ns, MOST_NS);
}

START_TEST(kill_latency_fin_case_49_78)
{
    check_kill_latency(_i, END_FIN);
}
END_TEST

START_TEST(kill_latency_rst_case_49_78)
{
    check_kill_latency(_i, END_RST);
}
END_TEST

/* Upstreams restart in turn, so that one is alive at any time, and known to be: one that is taken for
 * down is asked only when the other one is, too. */
static void check_restarts(int mode, bool tcp)
{
    enum { COUNT = 1200, ROUNDS = 6 };
    struct sender senders[SENDERS];
    _Atomic(struct host *) host = host_open(
        mode,
        "forward . %s %s {\n read_timeout 300ms\n health_check 50ms\n max_connect_attempts 12\n}",
        upstream_addr(ups[0]), upstream_addr(ups[1]));
    start_senders(senders, &host, COUNT, tcp);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct host *at = atomic_load(&host);
        struct fwd_proxy *proxy = at->proxies->at(at->instance, round % 2);
        upstream_down(ups[round % 2]);
        host_work(at, 150);
        upstream_up(ups[round % 2]);
        work_until(at, at->proxies->fails(proxy) == 0);
        host_work(at, 50);
    }
    host_work(host, 200);
    join_senders(senders);
    host_wait_all(host, 20000);
    check_all_good(host, SENDERS * COUNT);
    host_close(host);
}

START_TEST(upstreams_restart_udp)
{
    check_restarts(_i, false);
}
END_TEST

START_TEST(upstreams_restart_tcp)
{
    check_restarts(_i, true);
}
END_TEST

/* case 96: instances are exchanged under load, new before old ends; the old one drains. Nothing is
 * lost, connections stay warm. */
static void check_reload(enum mode mode)
{
    enum { COUNT = 1000, RELOADS = 8 };
    struct sender senders[SENDERS];
    struct host *old[RELOADS];
    _Atomic(struct host *) host =
        host_open(mode, "forward . %s {\n force_tcp\n}", upstream_addr(ups[0]));
    start_senders(senders, &host, COUNT, false);
    for (unsigned i = 0; i < RELOADS; i++) {
        old[i] = host;
        host_work(old[i], 100);
        atomic_store(&host,
                     host_open(mode, "forward . %s {\n force_tcp\n max_concurrent %u\n}",
                               upstream_addr(ups[0]), 5000 + i));
        /* A sender may have read the old one just before: it is stopped one exchange later. */
        if (i > 0) {
            ck_assert_int_eq(old[i - 1]->forward->stop(old[i - 1]->instance, 5000000000u), FWD_OK);
        }
    }
    join_senders(senders);
    host_wait_all(host, 10000);
    uint64_t sum = 0;
    for (unsigned i = 0; i <= RELOADS; i++) {
        struct host *each = i < RELOADS ? old[i] : host;
        host_wait_all(each, 10000);
        check_all_good(each, host_completed(each));
        sum += host_completed(each);
        host_close(each);
    }
    ck_assert_uint_eq(sum, SENDERS * COUNT);
    /* some for each query that is out at the same time, far from one for each query; that none is lost by a reload alone is shown in
     * test_life.c */
    ck_assert_uint_lt(upstream_counts(ups[0]).opened, SENDERS * COUNT / 4);
}

START_TEST(reload_under_load_case_96)
{
    check_reload(MODE_THREADS);
}
END_TEST

/* A host's thread for each loop that old and new instance share; it turns an instance that stays. */
struct turner {
    pthread_t thread;
    struct host *host;
    uint32_t loop;
    atomic_bool *end;
};

static void *turn(void *arg)
{
    struct turner *turner = arg;
    const struct host *host = turner->host;
    struct pollfd fd = {.fd = host->forward->poll_fd(host->instance, turner->loop), .events = POLLIN};
    while (!atomic_load(turner->end)) {
        (void)poll(&fd, 1, 20);
        ck_assert_int_ge(host->forward->run(host->instance, turner->loop), 0);
    }
    return NULL;
}

START_TEST(reload_under_load_with_a_thread_per_loop_case_96)
{
    atomic_bool end = false;
    struct turner turners[SHARED_LOOPS];
    struct host *keeper = host_open(MODE_SHARED, "forward . %s", upstream_addr(ups[1]));
    for (uint32_t i = 0; i < SHARED_LOOPS; i++) {
        turners[i] = (struct turner){.host = keeper, .loop = i, .end = &end};
        ck_assert_int_eq(pthread_create(&turners[i].thread, NULL, turn, &turners[i]), 0);
    }
    check_reload(MODE_SHARED);
    atomic_store(&end, true);
    for (uint32_t i = 0; i < SHARED_LOOPS; i++) {
        pthread_join(turners[i].thread, NULL);
    }
    host_close(keeper);
}
END_TEST

/* Several threads serve one instance at full speed: batches, UDP and TCP mixed. */
static void *send_batches(void *arg)
{
    struct sender *sender = arg;
    for (unsigned i = 0; i < sender->count; i++) {
        struct host *host = atomic_load(sender->host);
        (void)host_send_batch(host, "mixed", 8);
        (void)host_send_tcp(host, "mixed0.test");
        if (i % 16 == 0) {
            nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        }
    }
    return NULL;
}

START_TEST(many_threads_at_full_speed)
{
    enum { COUNT = 100, THREADS = 4 };
    struct sender senders[THREADS];
    _Atomic(struct host *) host =
        host_open(_i, "forward . %s %s", upstream_addr(ups[0]), upstream_addr(ups[1]));
    for (unsigned i = 0; i < THREADS; i++) {
        senders[i] = (struct sender){.host = &host, .count = COUNT};
        ck_assert_int_eq(pthread_create(&senders[i].thread, NULL, send_batches, &senders[i]), 0);
    }
    host_work(host, 300);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(senders[i].thread, NULL);
    }
    host_wait_all(host, 20000);
    ck_assert_uint_eq(host_completed(host), THREADS * COUNT * 9);
    for (uint64_t token = 1; token <= THREADS * COUNT * 9; token++) {
        ck_assert_uint_eq(host_outcome(host, token)->kind, FWD_KIND_ANSWER);
    }
    host_close(host);
}
END_TEST

/* case 43: 50 times what max_concurrent allows, from several threads: exactly the surplus is refused, at
 * once, and when the flood is over the next query is served as ever. */
static void *flood(void *arg)
{
    struct sender *sender = arg;
    for (unsigned i = 0; i < sender->count; i++) {
        (void)host_send_batch(atomic_load(sender->host), "flood", 50);
    }
    return NULL;
}

START_TEST(flood_case_43)
{
    enum { THREADS = 4, BATCHES = 25, LIMIT = 100, ROUNDS = 3, TOTAL = THREADS * BATCHES * 50 };
    struct sender senders[THREADS];
    struct upstream_rule slow = {.delay_ms = 400};
    _Atomic(struct host *) host = host_open(_i, "forward . %s %s {\n max_concurrent %d\n}",
                                            upstream_addr(ups[0]), upstream_addr(ups[1]), LIMIT);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t before = host_completed(host);
        upstream_set(ups[0], &slow);
        upstream_set(ups[1], &slow);
        for (unsigned i = 0; i < THREADS; i++) {
            senders[i] = (struct sender){.host = &host, .count = BATCHES};
            ck_assert_int_eq(pthread_create(&senders[i].thread, NULL, flood, &senders[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            pthread_join(senders[i].thread, NULL);
        }
        host_wait_all(host, 10000);
        uint64_t first = round * (TOTAL + 1) + 1;
        unsigned refused = 0;
        for (uint64_t token = first; token < first + TOTAL; token++) {
            const struct outcome *outcome = host_outcome(host, token);
            bool over = outcome->verdict == FWD_VERDICT_RCODE;
            refused += over;
            ck_assert_uint_eq(over ? outcome->rcode : FWD_KIND_ANSWER,
                              over ? (unsigned)REFUSED : outcome->kind);
        }
        ck_assert_uint_ge(refused, 1);
        ck_assert_uint_ge(TOTAL - refused, LIMIT);
        ck_assert_uint_eq(host_completed(host) - before, TOTAL - refused);
        upstream_set(ups[0], &(struct upstream_rule){0});
        upstream_set(ups[1], &(struct upstream_rule){0});
        const struct outcome *outcome = host_ask(host, "after.test");
        ck_assert(outcome_good(outcome, "after.test"));
        ck_assert_uint_eq(outcome->attempts, 1);
    }
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("load");
    TCase *tcase = tcase_create("load");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, connections_killed_by_fin_case_49_78);
    add_test(tcase, connections_killed_by_rst_case_49_78);
    add_test(tcase, kill_latency_fin_case_49_78);
    add_test(tcase, kill_latency_rst_case_49_78);
    add_test(tcase, upstreams_restart_udp);
    add_test(tcase, upstreams_restart_tcp);
    tcase_add_test(tcase, reload_under_load_case_96);
    tcase_add_test(tcase, reload_under_load_with_a_thread_per_loop_case_96);
    add_test(tcase, many_threads_at_full_speed);
    add_test(tcase, flood_case_43);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
