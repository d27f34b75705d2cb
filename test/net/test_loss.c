/* Datagrams that are lost: what the default schedule makes of them, and the option retransmit, which asks the next upstream while the first is still
 * listened to.
 *
 * Happy path: scripted upstreams are mute, slow or lossy; the answer that comes first, from whichever attempt, is the query's, exactly once, and
 * what else is out costs nothing afterwards.
 */
#include "fixture.h"
#include "message.h"
#include "suite.h"
#include "upstream.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MS UINT64_C(1000000)

static struct upstream *ups[2];
static const struct upstream_rule mute = {.drop = true};

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

static struct host *open_two(int mode, const char *options)
{
    return host_open(mode, "forward . %s %s {\n policy sequential\n %s\n}", upstream_addr(ups[0]), upstream_addr(ups[1]), options);
}

/* Queries but probes. */
static unsigned asked(struct upstream *of)
{
    unsigned count = 0;
    for (unsigned i = 0; i < upstream_counts(of).queries; i++) {
        count += upstream_seen(of, i).type == TYPE_A;
    }
    return count;
}

/* --- one loss ----------------------------------------------------------------------------------------------------- */

/* The next upstream is asked after the time given, not after read_timeout. */
START_TEST(next_upstream_answers)
{
    upstream_set(ups[0], &mute);
    struct host *host = open_two(_i, "retransmit 100ms");
    const struct outcome *outcome = host_ask(host, "lost.test");
    ck_assert(outcome_good(outcome, "lost.test"));
    ck_assert_str_eq(outcome->upstream, upstream_addr(ups[1]));
    ck_assert_uint_eq(outcome->attempts, 2);
    ck_assert_uint_ge(outcome->elapsed_ns, 100 * MS);
    ck_assert_uint_lt(outcome->elapsed_ns, 600 * MS);
    host_close(host);
}
END_TEST

/* Off, the schedule is CoreDNS's. */
START_TEST(off_by_default)
{
    upstream_set(ups[0], &mute);
    struct host *host = open_two(_i, "read_timeout 500ms");
    const struct outcome *outcome = host_ask(host, "lost.test");
    ck_assert(outcome_good(outcome, "lost.test"));
    ck_assert_uint_ge(outcome->elapsed_ns, 500 * MS);
    ck_assert_uint_eq(outcome->attempts, 2);
    host_close(host);
}
END_TEST

/* With one upstream it is asked again. */
static void drop_first(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    rule->drop = query->type == TYPE_A && query->number == 1;
}

START_TEST(same_upstream_answers)
{
    upstream_script(ups[0], drop_first, NULL);
    struct host *host = host_open(_i, "forward . %s {\n retransmit 100ms\n}", upstream_addr(ups[0]));
    const struct outcome *outcome = host_ask(host, "again.test");
    ck_assert(outcome_good(outcome, "again.test"));
    ck_assert_uint_eq(outcome->attempts, 2);
    ck_assert_uint_lt(outcome->elapsed_ns, 600 * MS);
    host_close(host);
}
END_TEST

/* The first attempt's answer is taken although others have been made since. */
START_TEST(late_answer_is_taken)
{
    struct upstream_rule slow = {.delay_ms = 400};
    upstream_set(ups[0], &slow);
    upstream_set(ups[1], &mute);
    struct host *host = open_two(_i, "retransmit 100ms\n max_connect_attempts 1");
    const struct outcome *outcome = host_ask(host, "late.test");
    ck_assert(outcome_good(outcome, "late.test"));
    ck_assert_str_eq(outcome->upstream, upstream_addr(ups[0]));
    ck_assert_uint_ge(outcome->attempts, 2);
    ck_assert_uint_ge(outcome->elapsed_ns, 400 * MS);
    ck_assert_uint_lt(outcome->elapsed_ns, 900 * MS);
    host_close(host);
}
END_TEST

/* --- the schedule ------------------------------------------------------------------------------------------------- */

/* Intervals double up to a second, upstreams go round, and SERVFAIL comes at 5 s (case 44). */
START_TEST(schedule_case_44)
{
    static const unsigned due_ms[] = {0, 100, 300, 700, 1500, 2500, 3500, 4500};
    upstream_set(ups[0], &mute);
    upstream_set(ups[1], &mute);
    struct host *host = open_two(_i, "retransmit 100ms\n max_fails 0");
    const struct outcome *outcome = host_ask(host, "mute.test");
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_int_eq(outcome->error, FWD_ERR_TIMEOUT);
    ck_assert_uint_ge(outcome->elapsed_ns, 4900 * MS);
    ck_assert_uint_le(outcome->elapsed_ns, 5500 * MS);
    ck_assert_uint_eq(outcome->attempts, 8);
    uint64_t start = upstream_seen(ups[0], 0).at_ns;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t at = upstream_seen(ups[i % 2], i / 2).at_ns - start;
        ck_assert_msg(at + 20 * MS >= due_ms[i] * MS && at <= (due_ms[i] + 400) * MS, "attempt %u after %llu ms", i,
                      (unsigned long long)(at / MS));
    }
    host_close(host);
}
END_TEST

/* No more than 8 are out at once, however short the time. */
START_TEST(eight_at_once)
{
    upstream_set(ups[0], &mute);
    upstream_set(ups[1], &mute);
    struct host *host = open_two(_i, "retransmit 1ms\n read_timeout 5s\n max_fails 0");
    ck_assert_uint_eq(host_ask(host, "mute.test")->attempts, 8);
    host_close(host);
}
END_TEST

/* An upstream that says no is not waited for, whatever else is out: the next is asked at once. */
START_TEST(refused_moves_on_at_once)
{
    upstream_down(ups[0]);
    struct host *host = open_two(_i, "retransmit 2s");
    const struct outcome *outcome = host_ask(host, "refused.test");
    ck_assert(outcome_good(outcome, "refused.test"));
    ck_assert_uint_lt(outcome->elapsed_ns, 1000 * MS);
    host_close(host);
}
END_TEST

/* cases 45, 57: what the last one says is the error, and none is out when it comes. */
START_TEST(all_refuse_case_45)
{
    upstream_down(ups[0]);
    upstream_down(ups[1]);
    struct host *host = open_two(_i, "retransmit 500ms\n max_connect_attempts 3\n max_fails 0");
    const struct outcome *outcome = host_ask(host, "refused.test");
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_int_eq(outcome->error, FWD_ERR_REFUSED);
    ck_assert_uint_eq(outcome->attempts, 3);
    ck_assert_uint_lt(outcome->elapsed_ns, 400 * MS);
    host_close(host);
}
END_TEST

/* case 53: a silent upstream is probed although others answer in its place, is down in the end, and costs no query time any more. */
START_TEST(silent_upstream_goes_down_case_53)
{
    upstream_set(ups[0], &mute);
    struct host *host = open_two(_i, "retransmit 50ms\n max_fails 1\n health_check 50ms");
    ck_assert(outcome_good(host_ask(host, "lost.test"), "lost.test"));
    work_until(host, host->proxies->down(host->proxies->at(host->instance, 0)) == 1);
    const struct outcome *outcome = host_ask(host, "lost.test");
    ck_assert(outcome_good(outcome, "lost.test"));
    ck_assert_uint_eq(outcome->attempts, 1);
    ck_assert_uint_eq(asked(ups[0]), 1);
    host_close(host);
}
END_TEST

/* --- several out -------------------------------------------------------------------------------------------------- */

/* case 50: an answer with TC is asked for again over TCP although another attempt is out. */
START_TEST(truncated_answer_case_50)
{
    struct upstream_rule tc = {.tc = true, .delay_ms = 200};
    upstream_set(ups[0], &tc);
    upstream_set(ups[1], &mute);
    struct host *host = open_two(_i, "retransmit 100ms\n prefer_udp");
    const struct outcome *outcome = host_ask(host, "cut.test");
    ck_assert(outcome_good(outcome, "cut.test"));
    ck_assert_uint_eq(outcome->proto, FWD_PROTO_TCP);
    host_close(host);
}
END_TEST

/* cases 55, 56: failover and next while another attempt is out; its late answer is nobody's. */
START_TEST(failover_and_next_cases_55_56)
{
    struct upstream_rule refused = {.rcode = REFUSED, .delay_ms = 150}, slow = {.rcode = NXDOMAIN, .delay_ms = 400};
    upstream_set(ups[0], &refused);
    upstream_set(ups[1], &slow);
    struct host *host = open_two(_i, "retransmit 100ms\n failover REFUSED\n max_fails 0");
    const struct outcome *outcome = host_ask(host, "over.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_ANSWER);
    ck_assert(outcome->rcode == NXDOMAIN || outcome->rcode == REFUSED);
    host_close(host);

    struct upstream *last = upstream_create();
    host = host_open(_i, "forward . %s %s {\n policy sequential\n retransmit 100ms\n next REFUSED\n max_fails 0\n}\nforward . %s {\n max_concurrent 1\n}",
                     upstream_addr(ups[0]), upstream_addr(ups[1]), upstream_addr(last));
    for (unsigned i = 0; i < 3; i++) {
        outcome = host_ask(host, "next.test");
        ck_assert(outcome_good(outcome, "next.test"));
        ck_assert_str_eq(outcome->upstream, upstream_addr(last));
    }
    host_close(host);
    upstream_destroy(last);
}
END_TEST

/* case 43: a query counts once, however many attempts it makes. */
START_TEST(max_concurrent_case_43)
{
    upstream_set(ups[0], &mute);
    struct host *host = open_two(_i, "retransmit 20ms\n max_concurrent 1\n max_fails 0");
    for (unsigned i = 0; i < 10; i++) {
        ck_assert(outcome_good(host_ask(host, "count.test"), "count.test"));
    }
    host_close(host);
}
END_TEST

/* cases 51, 80: each attempt that ends counts; one that another overtook does not. */
START_TEST(metrics_cases_51_80)
{
    upstream_set(ups[0], &mute);
    struct host *host = open_two(_i, "retransmit 50ms\n max_fails 0");
    for (unsigned i = 0; i < 5; i++) {
        ck_assert(outcome_good(host_ask(host, "metric.test"), "metric.test"));
    }
    ck_assert_double_eq(host_metric(host, "coredns_proxy_request_duration_seconds_count"), 5);
    ck_assert_double_eq(host_metric(host, "fwd_proxy_errors_total{"), 0);
    ck_assert_double_eq(host_metric(host, "fwd_proxy_retransmits_total{"), 5);
    host_close(host);
}
END_TEST

/* A query with several attempts out is canceled at once, and only once. */
START_TEST(cancel_with_several_out)
{
    upstream_set(ups[0], &mute);
    upstream_set(ups[1], &mute);
    struct host *host = open_two(_i, "retransmit 20ms\n max_fails 0");
    uint64_t tokens[20];
    for (unsigned i = 0; i < 20; i++) {
        tokens[i] = host_send(host, "cancel.test");
    }
    work_until(host, asked(ups[0]) + asked(ups[1]) >= 80);
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_int_eq(host->forward->cancel(host->instance, host_outcome(host, tokens[i])->handle), FWD_OK);
        ck_assert_int_ne(host->forward->cancel(host->instance, host_outcome(host, tokens[i])->handle), FWD_OK);
    }
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_uint_eq(host_wait(host, tokens[i], 1000)->kind, FWD_KIND_CANCELED);
    }
    host_close(host);
}
END_TEST

/* Stop cancels what is left; destroy finds nothing out. */
START_TEST(stop_with_several_out)
{
    upstream_set(ups[0], &mute);
    upstream_set(ups[1], &mute);
    struct host *host = open_two(_i, "retransmit 10ms");
    (void)host_send_batch(host, "stop", 100);
    work_until(host, asked(ups[0]) + asked(ups[1]) >= 300);
    host_close_drain(host, 1);
}
END_TEST

/** The first query gets no answer, and each fifth. */
static void tls_mute(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    rule->drop = query->type == TYPE_A && query->number % 5 == 1;
    rule->delay_ms = 10;
}

/* Over TLS, one at a time and pipelined, and HTTPS: the second attempt may be on the connection of the first, which is then freed of it and goes on. */
START_TEST(encrypted)
{
    static const struct {
        enum tls_kind kind;
        const char *options;
    } rows[] = {{KIND_DOT, "retransmit 50ms"}, {KIND_DOT, "retransmit 50ms\n pipeline 8"}, {KIND_DOH, "retransmit 50ms"}};
    fixture_setup();
    fixture_upstream(rows[_i / MODE_COUNT].kind, NULL);
    tls_upstream_script(up, tls_mute, NULL);
    struct host *host = fixture_open(_i % MODE_COUNT, rows[_i / MODE_COUNT].options);
    const struct outcome *outcome = host_ask(host, "mute.test");
    ck_assert(outcome_good(outcome, "mute.test"));
    ck_assert_uint_ge(outcome->attempts, 2);
    ck_assert_uint_lt(outcome->elapsed_ns, 1900 * MS);
    for (unsigned round = 0; round < 5; round++) {
        ask_batch(host, "mute", 20);
    }
    host_close(host);
    fixture_teardown();
}
END_TEST

/* --- under load --------------------------------------------------------------------------------------------------- */

/* Delays about the interval, so that answers, other attempts' answers, timers and cancels meet in every order. */
static void around_the_interval(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    unsigned short *seed = arg;
    rule->delay_ms = (unsigned)nrand48(seed) % 60;
    rule->drop = query->type == TYPE_A && nrand48(seed) % 5 == 0;
}

struct sender {
    pthread_t thread;
    struct host *host;
    bool cancels;
};

static void *send_and_cancel(void *arg)
{
    struct sender *sender = arg;
    struct host *host = sender->host;
    for (unsigned i = 0; i < 400; i++) {
        uint64_t token = i % 4 == 3 ? host_send_tcp(host, "race.test") : host_send(host, "race.test");
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (sender->cancels && i % 8 == 0) {
            (void)host->forward->cancel(host->instance, host_outcome(host, token)->handle);
        }
    }
    return NULL;
}

/* Exactly one completion each (host_close looks), and the good answer unless it was canceled. */
START_TEST(attempts_race)
{
    struct sender senders[3];
    unsigned short seeds[2][3] = {{1}, {2}};
    upstream_script(ups[0], around_the_interval, seeds[0]);
    upstream_script(ups[1], around_the_interval, seeds[1]);
    struct host *host = host_open(_i, "forward . %s %s {\n retransmit 20ms\n}", upstream_addr(ups[0]), upstream_addr(ups[1]));
    for (unsigned i = 0; i < 3; i++) {
        senders[i] = (struct sender){.host = host, .cancels = i == 2};
        ck_assert_int_eq(pthread_create(&senders[i].thread, NULL, send_and_cancel, &senders[i]), 0);
    }
    host_work(host, 500);
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(senders[i].thread, NULL);
    }
    host_wait_all(host, 10000);
    unsigned canceled = 0;
    for (uint64_t token = 1; token <= 1200; token++) {
        const struct outcome *outcome = host_outcome(host, token);
        canceled += outcome->kind == FWD_KIND_CANCELED;
        ck_assert_msg(outcome->kind == FWD_KIND_CANCELED || outcome_good(outcome, "race.test"), "query %llu: kind %u, %u attempts, %llu ms: %s",
                      (unsigned long long)token, outcome->kind, outcome->attempts, (unsigned long long)(outcome->elapsed_ns / MS),
                      outcome->detail);
    }
    ck_assert_uint_le(canceled, 50);
    host_close(host);
}
END_TEST

/* --- 30 % each way ------------------------------------------------------------------------------------------------ */

enum { QUERIES = 400, LOSS_PERCENT = 30 };

/* Which queries had an attempt that got through both ways. */
static struct lossy {
    unsigned short seed[3];
    atomic_bool through[QUERIES];
} lossy[2];

static void lose(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    struct lossy *path = arg;
    bool there = erand48(path->seed) * 100 >= LOSS_PERCENT, back = erand48(path->seed) * 100 >= LOSS_PERCENT;
    unsigned n;
    rule->drop = !there || !back;
    if (!rule->drop && sscanf(query->name, "loss%u.test", &n) == 1 && n < QUERIES) {
        atomic_store(&path->through[n], true);
    }
}

/* @return how many of QUERIES were answered. Each must be that an attempt got through for in time, and none may have more than one answer. */
static unsigned answered(int mode, const char *options)
{
    for (unsigned i = 0; i < 2; i++) {
        memset(&lossy[i], 0, sizeof(lossy[i]));
        lossy[i].seed[0] = (unsigned short)(4711 + i);
        upstream_script(ups[i], lose, &lossy[i]);
    }
    struct host *host = host_open(mode, "forward . %s %s {\n %s\n}", upstream_addr(ups[0]), upstream_addr(ups[1]), options);
    uint64_t first = host_send_batch(host, "loss", QUERIES);
    host_wait_all(host, 10000);
    unsigned count = 0;
    for (unsigned i = 0; i < QUERIES; i++) {
        char name[32];
        const struct outcome *outcome = host_outcome(host, first + i);
        snprintf(name, sizeof(name), "loss%u.test", i);
        bool good = outcome_good(outcome, name);
        ck_assert_msg(good == (lossy[0].through[i] || lossy[1].through[i]), "%s: kind %u after %u attempts: %s", name, outcome->kind,
                      outcome->attempts, outcome->detail);
        ck_assert_uint_le(outcome->elapsed_ns, 5500 * MS);
        count += good;
    }
    host_close(host);
    return count;
}

/* CoreDNS's schedule makes three attempts in 5 s: 1 - 0.51^3 = 87 % are answered. */
START_TEST(default_schedule_case_44)
{
    unsigned count = answered(_i, "max_fails 0");
    printf("# default: %u of %u answered\n", count, QUERIES);
    ck_assert_uint_ge(count, QUERIES * 80 / 100);
    ck_assert_uint_le(count, QUERIES * 93 / 100);
}
END_TEST

/* Eight attempts: 1 - 0.51^8 = 99.5 %. */
START_TEST(retransmit_schedule)
{
    unsigned count = answered(_i, "retransmit 100ms");
    printf("# retransmit 100ms: %u of %u answered\n", count, QUERIES);
    ck_assert_uint_ge(count, QUERIES * 98 / 100);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loss");
    TCase *tcase = tcase_create("loss");
    tcase_set_timeout(tcase, 30);
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, next_upstream_answers);
    add_test(tcase, off_by_default);
    add_test(tcase, same_upstream_answers);
    add_test(tcase, late_answer_is_taken);
    add_test(tcase, schedule_case_44);
    add_test(tcase, eight_at_once);
    add_test(tcase, refused_moves_on_at_once);
    add_test(tcase, all_refuse_case_45);
    add_test(tcase, silent_upstream_goes_down_case_53);
    add_test(tcase, truncated_answer_case_50);
    add_test(tcase, failover_and_next_cases_55_56);
    add_test(tcase, max_concurrent_case_43);
    add_test(tcase, metrics_cases_51_80);
    add_test(tcase, cancel_with_several_out);
    add_test(tcase, stop_with_several_out);
    tcase_add_loop_test(tcase, encrypted, 0, 3 * MODE_COUNT);
    add_test(tcase, default_schedule_case_44);
    add_test(tcase, retransmit_schedule);
    suite_add_tcase(suite, tcase);
    TCase *load = tcase_create("load");
    tcase_set_timeout(load, 30);
    tcase_add_checked_fixture(load, setup, teardown);
    add_test(load, attempts_race);
    suite_add_tcase(suite, load);
    return suite_run(suite);
}
