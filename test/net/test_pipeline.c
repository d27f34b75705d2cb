/* Pipelining over TCP and TLS: several queries in flight on one connection, answers in any order,
 * and connections that die under them.
 *
 * Happy path: `pipeline N`, an upstream that holds its answers until so many are together and then
 * gives the last one first. Standards: RFC 7766 6.2.1.1, RFC 7858 3.3.
 */
#include "fixture.h"
#include "message.h"
#include "suite.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

enum { VARIANTS = 2 * MODE_COUNT }; /* TCP and TLS, in each mode */

static uint32_t proto_of(int variant)
{
    return variant / MODE_COUNT == 0 ? FWD_PROTO_TCP : FWD_PROTO_TLS;
}

/** An upstream, and an instance that forwards to it. */
static struct host *open_pair(int variant, const char *more)
{
    fixture_upstream(proto_of(variant) == FWD_PROTO_TLS ? KIND_DOT : KIND_TCP, NULL);
    return fixture_open(variant % MODE_COUNT, more);
}

/* Sixteen queries at once on one connection, while it dials and when it is there; the last is
 * answered first. */
START_TEST(any_order)
{
    struct host *host = open_pair(_i, "pipeline 16");
    tls_upstream_set(up, &(struct tls_rule){.hold = 16});
    for (unsigned round = 0; round < 5; round++) {
        ask_batch(host, "order", 16);
        host_wait_idle(host, 0, proto_of(_i), 1);
    }
    struct tls_counts counts = tls_upstream_counts(up);
    ck_assert_uint_eq(counts.opened, 1);
    ck_assert_uint_eq(counts.together, 16);
    host_close(host);
}
END_TEST

/* What one call of serve brings for a connection leaves in one write, over TLS in one record. */
START_TEST(one_write_for_a_batch)
{
    struct host *host = open_pair(_i, "pipeline 16");
    ask_good(host, "first.test");
    host_wait_idle(host, 0, proto_of(_i), 1);
    unsigned before = tls_upstream_counts(up).reads;
    ask_batch(host, "write", 16);
    struct tls_counts counts = tls_upstream_counts(up);
    ck_assert_uint_eq(counts.reads, before + 1);
    ck_assert_uint_eq(counts.opened, 1);
    host_close(host);
}
END_TEST

static void some_are_slow(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    rule->delay_ms = strncmp(query->name, "slow", 4) == 0 ? 10 : 0;
}

/* The server has Nagle's algorithm on: its second answer leaves when the first one is acknowledged,
 * which the kernel puts off for 40 ms where nothing else is to be sent. */
START_TEST(nagle)
{
    uint64_t best_ns = UINT64_MAX;
    struct host *host = open_pair(_i, "pipeline 4");
    tls_upstream_script(up, some_are_slow, NULL);
    for (unsigned i = 0; i < 40; i++) { /* at first the kernel puts nothing off */
        ask_good(host, "quick.test");
    }
    for (unsigned round = 0; round < 5; round++) {
        uint64_t slow = host_send(host, "slow.test");
        ask_good(host, "quick.test");
        const struct outcome *outcome = host_wait(host, slow, 5000);
        ck_assert(outcome_good(outcome, "slow.test"));
        best_ns = outcome->elapsed_ns < best_ns ? outcome->elapsed_ns : best_ns;
    }
    ck_assert_uint_lt(best_ns, 35000000);
    host_close(host);
}
END_TEST

/* The same within one answer, also where there is one query at a time: the message leaves when the
 * length has been acknowledged. */
START_TEST(nagle_within_an_answer)
{
    struct host *host = open_pair(_i, "");
    tls_upstream_set(up, &(struct tls_rule){.apart = true});
    ck_assert_uint_lt(fixture_best_ns(host, 40), 35000000);
    host_close(host);
}
END_TEST

/* More connections than a batch gathers for. */
START_TEST(many_connections_in_a_batch)
{
    struct host *host = open_pair(_i, "pipeline 2");
    tls_upstream_set(up, &(struct tls_rule){.delay_ms = 50});
    for (unsigned round = 0; round < 3; round++) {
        ask_batch(host, "connections", 64);
    }
    ck_assert_uint_ge(tls_upstream_counts(up).opened, 32);
    host_close(host);
}
END_TEST

/* The connection has been reset, and nobody has noticed yet: the batch cannot be written, and is
 * sent on another one at no charge (case 49). */
START_TEST(batch_on_dead_connection_case_49)
{
    struct host *host = open_pair(_i, "pipeline 16\n max_connect_attempts 1\n max_fails 0");
    ask_good(host, "first.test");
    host_wait_idle(host, 0, proto_of(_i), 1);
    tls_upstream_kill(up, END_RST);
    while (tls_upstream_counts(up).open > 0) { /* a host that turns the loop does not here */
        sched_yield();
    }
    ask_batch(host, "dead", 16);
    ck_assert(host_metric(host, "fwd_proxy_errors_total{") == 0);
    ck_assert_uint_eq(tls_upstream_counts(up).opened, 2);
    host_close(host);
}
END_TEST

/* The limit per connection is kept: twelve queries and a limit of four make three connections. */
START_TEST(limit_per_connection)
{
    struct host *host = open_pair(_i, "pipeline 4");
    tls_upstream_set(up, &(struct tls_rule){.delay_ms = 300});
    ask_batch(host, "limit", 12);
    struct tls_counts counts = tls_upstream_counts(up);
    ck_assert_uint_eq(counts.opened, 3);
    ck_assert_uint_eq(counts.together, 4);
    host_close(host);
}
END_TEST

/* Without the option there is one query at a time, as with CoreDNS. */
START_TEST(off_by_default)
{
    struct host *host = open_pair(_i, "");
    tls_upstream_set(up, &(struct tls_rule){.delay_ms = 50});
    ask_batch(host, "single", 8);
    struct tls_counts counts = tls_upstream_counts(up);
    ck_assert_uint_eq(counts.opened, 8);
    ck_assert_uint_eq(counts.together, 1);
    host_close(host);
}
END_TEST

/** The first connection keeps everything to itself. */
static void first_is_mute(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    rule->drop = query->conn == 1;
}

/* A connection dies with queries in flight: all of them are answered elsewhere, and it costs none
 * of them an attempt. */
START_TEST(death_retries_elsewhere)
{
    static const enum ending endings[] = {END_FIN, END_RST};
    struct host *host = open_pair(_i / 2, "pipeline 32\n max_connect_attempts 1\n max_fails 0");
    tls_upstream_script(up, first_is_mute, NULL);
    uint64_t first = host_send_batch(host, "death", 32);
    work_until(host, tls_upstream_counts(up).queries == 32);
    tls_upstream_kill(up, endings[_i % 2]);
    host_wait_all(host, 20000);
    check_batch(host, "death", first, 32);
    ck_assert(host_metric(host, "fwd_proxy_errors_total{") == 0);
    ck_assert(host_metric(host, "fwd_proxy_stale_retries_total{") >= 32);
    host_close(host);
}
END_TEST

/* A server that closes all connections at once, one that it has answered on among them, means none
 * of the queries: also on a new connection, where nothing has been answered yet, a query is asked
 * again at no charge (case 78). */
START_TEST(closed_together_case_78)
{
    static const enum ending endings[] = {END_FIN, END_RST};
    struct host *host = open_pair(_i / 2, "max_connect_attempts 1\n max_fails 0");
    ask_good(host, "before.test");
    host_wait_idle(host, 0, proto_of(_i / 2), 1);
    tls_upstream_set(up, &(struct tls_rule){.drop = true});
    uint64_t first = host_send_batch(host, "together", 4);
    work_until(host, tls_upstream_counts(up).queries == 5);
    ck_assert_uint_eq(tls_upstream_counts(up).opened, 4);
    tls_upstream_set(up, &(struct tls_rule){0});
    tls_upstream_kill(up, endings[_i % 2]);
    host_wait_all(host, 20000);
    check_batch(host, "together", first, 4);
    ck_assert(host_metric(host, "fwd_proxy_errors_total{") == 0);
    host_close(host);
}
END_TEST

/* The same in the middle of a handshake. */
START_TEST(closed_together_in_handshake_case_78)
{
    static const enum ending endings[] = {END_FIN, END_RST};
    fixture_upstream(KIND_DOT, &(struct tls_setup){.stall_flight = 1, .stall_conn = 2});
    struct host *host =
        fixture_open(_i / 2, "max_connect_attempts 1\n max_fails 0\n handshake_timeout 10s");
    ask_good(host, "before.test");
    host_wait_idle(host, 0, FWD_PROTO_TLS, 1);
    tls_upstream_set(up, &(struct tls_rule){.drop = true});
    uint64_t first = host_send_batch(host, "together", 2);
    work_until(host, tls_upstream_counts(up).opened == 2 && tls_upstream_counts(up).queries == 2);
    tls_upstream_set(up, &(struct tls_rule){0});
    tls_upstream_kill(up, endings[_i % 2]);
    host_wait_all(host, 20000);
    check_batch(host, "together", first, 2);
    host_close(host);
}
END_TEST

/** Closes without an answer to queries of one name. */
static void poison(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    rule->instead = strcmp(query->name, "poison.test") == 0 ? END_FIN : END_NONE;
}

/* A query for which the server closes the connection, and no other: each of its two attempts is
 * one on a reused connection, which is free, and one on a new one (cases 45, 49). */
START_TEST(closed_for_one_query_cases_45_49)
{
    struct host *host = open_pair(_i, "max_connect_attempts 2\n max_fails 0");
    tls_upstream_script(up, poison, NULL);
    ask_batch(host, "before", 3);
    struct tls_counts before = tls_upstream_counts(up);
    unsigned attempts = 2 + (before.open < 2 ? before.open : 2);
    host_wait_idle(host, 0, proto_of(_i), before.open);
    const struct outcome *outcome = host_ask(host, "poison.test");
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_uint_eq(outcome->attempts, attempts);
    ck_assert_uint_eq(tls_upstream_counts(up).queries, before.queries + attempts);
    host_close(host);
}
END_TEST

/** Closes after the answer to each third query. */
static void every_third(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    rule->after = query->number % 3 == 0 ? END_FIN : END_NONE;
}

/* A server that takes a few queries per connection and closes on the rest, again and again: nothing
 * is lost. */
START_TEST(peer_closes_early)
{
    struct host *host = open_pair(_i, "pipeline 10\n max_connect_attempts 0\n max_fails 0");
    tls_upstream_script(up, every_third, NULL);
    for (unsigned round = 0; round < 5; round++) {
        ask_batch(host, "early", 30);
    }
    host_close(host);
}
END_TEST

/* The server closes everything again and again, by FIN or RST. */
START_TEST(closed_again_and_again)
{
    static const enum ending endings[] = {END_FIN, END_RST};
    struct host *host = open_pair(_i / 2, "pipeline 20\n max_connect_attempts 0\n max_fails 0");
    tls_upstream_kill_every(up, endings[_i % 2], 150);
    while (tls_upstream_counts(up).opened < 6) {
        ask_batch(host, "again", 20);
    }
    host_close(host);
}
END_TEST

/** The first query gets no answer. */
static void first_query_is_mute(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    rule->drop = query->number == 1;
}

/* A query that is not answered costs its own time only, and the others nothing: the connection that
 * answers them goes on. */
START_TEST(one_is_mute)
{
    struct host *host = open_pair(_i, "pipeline 8\n read_timeout 400ms\n max_fails 0");
    tls_upstream_script(up, first_query_is_mute, NULL);
    uint64_t mute = host_send(host, "mute.test");
    work_until(host, tls_upstream_counts(up).queries == 1);
    for (unsigned i = 0; i < 20; i++) {
        const struct outcome *outcome = host_ask(host, "loud.test");
        ck_assert_msg(outcome_good(outcome, "loud.test"), "%s", outcome->detail);
    }
    const struct outcome *outcome = host_wait(host, mute, 10000);
    ck_assert_msg(outcome_good(outcome, "mute.test"), "%s", outcome->detail);
    ck_assert_uint_eq(outcome->attempts, 2);
    /* the connection is closed only if the mute query was the last on it when its time was over */
    ck_assert_uint_le(tls_upstream_counts(up).opened, 2);
    host_close(host);
}
END_TEST

/** The first two queries come too late. */
static void two_are_late(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    rule->delay_ms = query->number <= 2 ? 500 : 0;
}

/* An answer that comes when its query has given up is nobody's. */
START_TEST(late_answers)
{
    struct host *host = open_pair(_i, "pipeline 8\n read_timeout 200ms\n max_fails 0");
    tls_upstream_script(up, two_are_late, NULL);
    uint64_t first = host_send_batch(host, "late", 2);
    for (unsigned i = 0; i < 40; i++) {
        ck_assert(outcome_good(host_ask(host, "prompt.test"), "prompt.test"));
        host_work(host, 15);
    }
    host_wait_all(host, 10000);
    check_batch(host, "late", first, 2);
    host_close(host);
}
END_TEST

/* Nothing at all comes any more: the connection is dead for all on it, and they are answered on
 * another within their time. */
START_TEST(silent_connection)
{
    struct host *host = open_pair(_i, "pipeline 8\n read_timeout 300ms\n max_fails 0");
    tls_upstream_script(up, first_is_mute, NULL);
    ask_batch(host, "silent", 8);
    work_until(host, tls_upstream_counts(up).open == 1);
    host_close(host);
}
END_TEST

/* Cancel takes one query out of a shared connection; what else is on it is answered there. */
START_TEST(cancel_one_of_many)
{
    struct host *host = open_pair(_i, "pipeline 8");
    tls_upstream_set(up, &(struct tls_rule){.hold = 8});
    uint64_t first = host_send_batch(host, "cancel", 7);
    work_until(host, tls_upstream_counts(up).queries == 7);
    ck_assert_int_eq(host->forward->cancel(host->instance, host_outcome(host, first)->handle),
                     FWD_OK);
    ck_assert_uint_eq(host_wait(host, first, 5000)->kind, FWD_KIND_CANCELED);
    ck_assert(outcome_good(host_ask(host, "eighth.test"), "eighth.test"));
    host_wait_all(host, 10000);
    ck_assert_uint_eq(tls_upstream_counts(up).opened, 1);
    host_close(host);
}
END_TEST

/* Cases 66 to 69 hold for shared connections: max_idle_conns, expire and max_age. */
START_TEST(pool_rules_cases_66_67_69)
{
    struct host *host = open_pair(_i, "pipeline 4\n max_idle_conns 1");
    tls_upstream_set(up, &(struct tls_rule){.delay_ms = 100});
    ask_batch(host, "rules", 12);
    work_until(host, tls_upstream_counts(up).open == 1);
    ck_assert_uint_eq(host_pool(host, 0, proto_of(_i)).idle, 1);
    host_close(host);
    tls_upstream_destroy(up);
    host = open_pair(_i, "pipeline 4\n expire 100ms");
    ask_batch(host, "old", 4);
    unsigned opened = tls_upstream_counts(up).opened;
    host_work(host, 200);
    ask_batch(host, "new", 1);
    ck_assert_uint_gt(tls_upstream_counts(up).opened, opened);
    host_close(host);
}
END_TEST

/* Great answers and small ones through one another. */
START_TEST(greatest_answers)
{
    struct host *host = open_pair(_i, "pipeline 20");
    tls_upstream_set(up, &(struct tls_rule){.pad = 60000});
    ask_batch(host, "great", 40);
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pipeline");
    TCase *tcase = tcase_create("pipeline");
    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_add_loop_test(tcase, any_order, 0, VARIANTS);
    tcase_add_loop_test(tcase, one_write_for_a_batch, 0, VARIANTS);
    tcase_add_loop_test(tcase, nagle, 0, VARIANTS);
    tcase_add_loop_test(tcase, nagle_within_an_answer, 0, VARIANTS);
    tcase_add_loop_test(tcase, many_connections_in_a_batch, 0, VARIANTS);
    tcase_add_loop_test(tcase, batch_on_dead_connection_case_49, 0, VARIANTS);
    tcase_add_loop_test(tcase, limit_per_connection, 0, VARIANTS);
    tcase_add_loop_test(tcase, off_by_default, 0, VARIANTS);
    tcase_add_loop_test(tcase, death_retries_elsewhere, 0, 2 * VARIANTS);
    tcase_add_loop_test(tcase, closed_together_case_78, 0, 2 * VARIANTS);
    tcase_add_loop_test(tcase, closed_together_in_handshake_case_78, 0, 2 * MODE_COUNT);
    tcase_add_loop_test(tcase, closed_for_one_query_cases_45_49, 0, VARIANTS);
    tcase_add_loop_test(tcase, peer_closes_early, 0, VARIANTS);
    tcase_add_loop_test(tcase, closed_again_and_again, 0, 2 * VARIANTS);
    tcase_add_loop_test(tcase, one_is_mute, 0, VARIANTS);
    tcase_add_loop_test(tcase, late_answers, 0, VARIANTS);
    tcase_add_loop_test(tcase, silent_connection, 0, VARIANTS);
    tcase_add_loop_test(tcase, cancel_one_of_many, 0, VARIANTS);
    tcase_add_loop_test(tcase, pool_rules_cases_66_67_69, 0, VARIANTS);
    tcase_add_loop_test(tcase, greatest_answers, 0, VARIANTS);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
