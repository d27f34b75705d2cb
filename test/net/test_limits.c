/* Limits on connections: how many, the queue of those who wait, connections kept ready, uses and age. */
#include "message.h"
#include "plain.h"
#include "suite.h"

#include <stdlib.h>
#include <string.h>

static void set_mute(void)
{
    upstream_set(up, &(struct upstream_rule){.drop = true});
}

/* max_conns and its queue --------------------------------------------------------------------------------------------- */

START_TEST(max_conns_holds)
{
    enum { QUERIES = 300, LIMIT = 5 };
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conns %d\n}", upstream_addr(up), LIMIT);
    set_delay(2);
    uint64_t first = host_send_batch(host, "limit", QUERIES);
    while (host_completed(host) < QUERIES) {
        ck_assert_uint_le(upstream_counts(up).open, LIMIT);
        ck_assert_uint_le(host_tcp_info(host, "open"), LIMIT);
        host_work(host, 2);
    }
    for (unsigned i = 0; i < QUERIES; i++) {
        ck_assert_int_eq(host_outcome(host, first + i)->error, FWD_OK);
    }
    ck_assert_uint_eq(upstream_counts(up).opened, LIMIT);
    ck_assert_uint_ge(host_tcp_info(host, "waits"), QUERIES - LIMIT);
    ck_assert(host_metric(host, "fwd_proxy_conn_waits_total{") >= QUERIES - LIMIT);
    ck_assert(host_metric(host, "fwd_proxy_conn_wait_seconds_count{") >= QUERIES - LIMIT);
    host_close(host);
}
END_TEST

/* The limit counts sockets: one that is being closed is not replaced before it is closed. */
START_TEST(max_conns_holds_under_churn)
{
    enum { QUERIES = 200, LIMIT = 3 };
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conns %d\n max_conn_uses 1\n}", upstream_addr(up), LIMIT);
    (void)host_send_batch(host, "churn", QUERIES);
    while (host_completed(host) < QUERIES) {
        ck_assert_uint_le(host_tcp_info(host, "open"), LIMIT);
        host_work(host, 2);
    }
    for (uint64_t token = 1; token <= QUERIES; token++) {
        ck_assert_int_eq(host_outcome(host, token)->error, FWD_OK);
    }
    ck_assert_uint_eq(upstream_counts(up).opened, QUERIES);
    host_close(host);
}
END_TEST

START_TEST(max_conns_of_udp)
{
    enum { QUERIES = 100 };
    struct host *host = host_open(_i, "forward . %s {\n max_conns 4\n}", upstream_addr(up));
    uint64_t first = host_send_batch(host, "udp", QUERIES);
    host_wait_all(host, 10000);
    for (unsigned i = 0; i < QUERIES; i++) {
        ck_assert_int_eq(host_outcome(host, first + i)->error, FWD_OK);
    }
    host_close(host);
}
END_TEST

START_TEST(waiters_are_served_in_order)
{
    enum { QUERIES = 50 };
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conns 1\n}", upstream_addr(up));
    (void)host_send_batch(host, "order", QUERIES);
    host_wait_all(host, 10000);
    for (unsigned i = 1; i < QUERIES; i++) {
        struct upstream_seen before = upstream_seen(up, i - 1), seen = upstream_seen(up, i);
        ck_assert_msg(strtoul(before.name + 5, NULL, 10) < strtoul(seen.name + 5, NULL, 10), "%s came before %s", before.name,
                      seen.name);
    }
    host_close(host);
}
END_TEST

/* Queries that queued while the only connection was being opened fill all of its places, not one. */
START_TEST(waiters_share_a_connection)
{
    enum { QUERIES = 40 };
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conns 1\n pipeline 8\n}", upstream_addr(up));
    set_delay(20);
    (void)host_send_batch(host, "share", QUERIES);
    host_wait_all(host, 10000);
    ck_assert_uint_eq(upstream_counts(up).opened, 1);
    ck_assert_uint_eq(upstream_counts(up).queries, QUERIES);
    host_close(host);
}
END_TEST

START_TEST(conn_wait_0_refuses)
{
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conns 1\n conn_wait 0s\n max_connect_attempts 1\n}",
                                  upstream_addr(up));
    set_delay(300);
    uint64_t first = host_send(host, "first.test");
    check_error(host_ask(host, "second.test"), FWD_ERR_EXHAUSTED, "max_conns");
    ck_assert(outcome_good(host_wait(host, first, 5000), "first.test"));
    ck_assert_uint_eq(host_tcp_info(host, "refused"), 1);
    host_close(host);
}
END_TEST

START_TEST(conn_wait_is_honoured)
{
    struct host *host =
        host_open(_i, "forward . %s {\n force_tcp\n max_conns 1\n conn_wait 200ms\n max_connect_attempts 1\n read_timeout 4s\n}",
                  upstream_addr(up));
    set_mute();
    (void)host_send(host, "first.test");
    const struct outcome *outcome = host_ask(host, "second.test");
    check_error(outcome, FWD_ERR_TIMEOUT, "wait tcp");
    ck_assert_uint_ge(outcome->elapsed_ns, 190000000u);
    ck_assert_uint_eq(host_tcp_info(host, "waiting"), 0);
    host_close_drain(host, 1);
}
END_TEST

START_TEST(waiter_is_canceled)
{
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conns 1\n}", upstream_addr(up));
    set_delay(300);
    uint64_t tokens[4];
    for (unsigned i = 0; i < 4; i++) {
        tokens[i] = host_send(host, "cancel.test");
    }
    ck_assert_uint_eq(host_tcp_info(host, "waiting"), 3);
    ck_assert_int_eq(host->forward->cancel(host->instance, host_outcome(host, tokens[2])->handle), FWD_OK);
    ck_assert_uint_eq(host_wait(host, tokens[2], 5000)->kind, FWD_KIND_CANCELED);
    host_wait_all(host, 10000);
    ck_assert_int_eq(host_outcome(host, tokens[3])->error, FWD_OK);
    ck_assert_uint_eq(upstream_counts(up).queries, 3);
    host_close(host);
}
END_TEST

START_TEST(stop_with_waiters)
{
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conns 2\n}", upstream_addr(up));
    set_mute();
    (void)host_send_batch(host, "stop", 500);
    ck_assert_uint_eq(host_tcp_info(host, "waiting"), 498);
    host_close_drain(host, 1); /* every query ends exactly once */
    ck_assert(upstream_wait_open(up, 0, 5000));
}
END_TEST

/** Closes each connection instead of answering its first query, for the first queries. */
static void die_first(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    rule->instead = query->number <= 3 ? END_RST : END_NONE;
}

START_TEST(waiters_survive_a_dying_connection)
{
    struct host *host =
        host_open(_i, "forward . %s {\n force_tcp\n max_conns 1\n max_connect_attempts 5\n max_fails 0\n}", upstream_addr(up));
    upstream_script(up, die_first, NULL);
    (void)host_send_batch(host, "dying", 20);
    host_wait_all(host, 10000);
    for (uint64_t token = 1; token <= 20; token++) {
        ck_assert_int_eq(host_outcome(host, token)->error, FWD_OK);
    }
    host_close(host);
}
END_TEST

/* As many as a busy server may ever see; each one ends, and without help of anybody's clock. */
START_TEST(ten_thousand_waiters)
{
    enum { QUERIES = 10000 };
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conns 16\n}", upstream_addr(up));
    set_delay(100);
    for (unsigned i = 0; i < 10; i++) {
        (void)host_send_batch(host, "many", QUERIES / 10);
    }
    ck_assert_uint_ge(host_tcp_info(host, "waits"), QUERIES / 2);
    upstream_set(up, &(struct upstream_rule){0});
    host_wait_all(host, 25000);
    unsigned good = 0;
    for (uint64_t token = 1; token <= QUERIES; token++) {
        const struct outcome *outcome = host_outcome(host, token);
        good += outcome->error == FWD_OK;
        ck_assert_msg(outcome->error == FWD_OK || strncmp(outcome->detail, "wait ", 5) == 0, "%s", outcome->detail);
    }
    ck_assert_uint_ge(good, QUERIES / 10);
    ck_assert_uint_eq(upstream_counts(up).opened, 16);
    host_close(host);
}
END_TEST

/* Spare connections --------------------------------------------------------------------------------------------------- */

START_TEST(min_idle_conns_are_kept)
{
    struct host *host = host_open(_i, "forward . %s {\n min_idle_conns 4\n}", upstream_addr(up));
    host_wait_idle(host, 0, FWD_PROTO_TCP, 4);
    ck_assert(outcome_good(host_ask_tcp(host, "spare.test"), "spare.test"));
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_TCP).misses, 0);
    upstream_kill(up, END_FIN);
    work_until(host, upstream_counts(up).opened >= 8 && host_pool(host, 0, FWD_PROTO_TCP).idle == 4);
    host_close(host);
    ck_assert(upstream_wait_open(up, 0, 5000));
}
END_TEST

/* An upstream that is down is not dialled in a loop, and neither is one whose connections cannot be kept. */
static void check_no_loop(int mode, const char *limits)
{
    struct host *host = host_open(mode, "forward . %s {\n min_idle_conns 4\n %s\n}", upstream_addr(up), limits);
    host_work(host, 700);
    unsigned dials = host_tcp_info(host, "dials");
    ck_assert_msg(dials <= 4 * 3, "%u dials", dials);
    host_close(host);
}

START_TEST(spare_connections_to_nobody)
{
    upstream_refuse_tcp(up);
    check_no_loop(_i, "");
}
END_TEST

START_TEST(spare_connections_that_cannot_be_kept)
{
    check_no_loop(_i, "expire 0s");
    check_no_loop(_i, "max_idle_conns 2");
}
END_TEST

START_TEST(max_conn_uses)
{
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conn_uses 3\n}", upstream_addr(up));
    for (unsigned i = 0; i < 9; i++) {
        ck_assert(outcome_good(host_ask(host, "uses.test"), "uses.test"));
        host_wait_idle(host, 0, FWD_PROTO_TCP, i % 3 == 2 ? 0 : 1);
    }
    ck_assert_uint_eq(upstream_counts(up).opened, 3);
    ck_assert(host_metric(host, "fwd_proxy_conn_closes_total{") >= 3);
    host_close(host);
}
END_TEST

/* On a pipelined connection too, however many are on it at once. */
START_TEST(max_conn_uses_of_shared)
{
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conn_uses 5\n pipeline 100\n}", upstream_addr(up));
    set_delay(20);
    (void)host_send_batch(host, "uses", 40);
    host_wait_all(host, 10000);
    unsigned per_conn[64] = {0};
    for (unsigned i = 0; i < upstream_counts(up).queries; i++) {
        ck_assert_uint_le(++per_conn[upstream_seen(up, i).conn % 64], 5);
    }
    host_close(host);
}
END_TEST

/* A burst's connections do not all end in one second. */
START_TEST(max_age_jitter)
{
    enum { CONNS = 40 };
    struct host *host = host_open_with(
        _i, fake_services, "forward . %s {\n force_tcp\n expire 100s\n max_age 100s\n max_age_jitter 50\n}", upstream_addr(up));
    upstream_set(up, &(struct upstream_rule){.hold = CONNS});
    (void)host_send_batch(host, "age", CONNS);
    host_wait_all(host, 10000);
    host_wait_idle(host, 0, FWD_PROTO_TCP, CONNS);
    fake_clock_advance(&fake, 45000);
    host_work(host, 50);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_TCP).idle, CONNS);
    fake_clock_advance(&fake, 30000);
    work_until(host, host_pool(host, 0, FWD_PROTO_TCP).aged > 0);
    ck_assert_uint_gt(host_pool(host, 0, FWD_PROTO_TCP).idle, 0);
    fake_clock_advance(&fake, 26000);
    host_wait_idle(host, 0, FWD_PROTO_TCP, 0);
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("limits");
    TCase *tcase = tcase_create("limits");
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, max_conns_holds);
    add_test(tcase, max_conns_holds_under_churn);
    add_test(tcase, max_conns_of_udp);
    add_test(tcase, waiters_are_served_in_order);
    add_test(tcase, waiters_share_a_connection);
    add_test(tcase, conn_wait_0_refuses);
    add_test(tcase, conn_wait_is_honoured);
    add_test(tcase, waiter_is_canceled);
    add_test(tcase, stop_with_waiters);
    add_test(tcase, waiters_survive_a_dying_connection);
    add_test(tcase, ten_thousand_waiters);
    add_test(tcase, min_idle_conns_are_kept);
    add_test(tcase, spare_connections_to_nobody);
    add_test(tcase, spare_connections_that_cannot_be_kept);
    add_test(tcase, max_conn_uses);
    add_test(tcase, max_conn_uses_of_shared);
    add_test(tcase, max_age_jitter);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
