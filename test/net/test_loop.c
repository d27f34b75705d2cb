/* The attempt loop of a query: policies, failover, its cap and its budget, upstreams that are down,
 * choice of the transport.
 *
 * Happy path of each test: upstreams with a rule each, an instance, a query, and a count of what
 * every upstream saw.
 */
#include "host.h"
#include "message.h"
#include "suite.h"
#include "upstream.h"

#include <stdio.h>
#include <string.h>

static struct upstream *ups[3];

static void setup_upstreams(void)
{
    for (unsigned i = 0; i < 3; i++) {
        ups[i] = upstream_create();
    }
}

static void teardown_upstreams(void)
{
    for (unsigned i = 0; i < 3; i++) {
        upstream_destroy(ups[i]);
    }
}

/** How many queries for a name an upstream saw; probes ask for another one. */
static unsigned count_name(struct upstream *up, const char *name)
{
    unsigned count = 0;
    for (unsigned i = 0; i < upstream_counts(up).queries; i++) {
        count += strcmp(upstream_seen(up, i).name, name) == 0;
    }
    return count;
}

static void wait_down(struct host *host, unsigned proxy, int down)
{
    work_until(host, host->proxies->down(host->proxies->at(host->instance, proxy)) == down);
}

/* --- policies -------------------------------------------------------------------------------- */

/* case 60: random uses all upstreams, never the same order for long. */
START_TEST(random_policy_case_60)
{
    struct host *host = host_open(_i, "forward . %s %s %s", upstream_addr(ups[0]),
                                  upstream_addr(ups[1]), upstream_addr(ups[2]));
    for (unsigned i = 0; i < 90; i++) {
        ck_assert(outcome_good(host_ask(host, "random.test"), "random.test"));
    }
    for (unsigned i = 0; i < 3; i++) {
        /* 30 expected; below 8 once in a million runs */
        ck_assert_uint_ge(upstream_counts(ups[i]).queries, 8);
    }
    host_close(host);
}
END_TEST

/* case 61: round_robin starts at index 1, and what follows a failed upstream is in configured
 * order. */
START_TEST(round_robin_policy_case_61)
{
    static const unsigned order[] = {1, 2, 0, 1, 2, 0};
    struct host *host =
        host_open(_i, "forward . %s %s %s {\n policy round_robin\n max_fails 0\n}",
                  upstream_addr(ups[0]), upstream_addr(ups[1]), upstream_addr(ups[2]));
    for (unsigned i = 0; i < 6; i++) {
        ck_assert_str_eq(host_ask(host, "robin.test")->upstream, upstream_addr(ups[order[i]]));
    }
    upstream_down(ups[1]);
    const struct outcome *outcome = host_ask(host, "robin.test");
    ck_assert_str_eq(outcome->upstream, upstream_addr(ups[0]));
    ck_assert_uint_eq(outcome->attempts, 2);
    host_close(host);
}
END_TEST

/* case 62: sequential uses the first that is not down. */
START_TEST(sequential_policy_case_62)
{
    struct host *host = host_open(
        _i,
        "forward . %s %s %s {\n policy sequential\n max_fails 1\n health_check 50ms\n force_tcp\n}",
        upstream_addr(ups[0]), upstream_addr(ups[1]), upstream_addr(ups[2]));
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_str_eq(host_ask(host, "sequential.test")->upstream, upstream_addr(ups[0]));
    }
    upstream_down(ups[0]);
    ck_assert_str_eq(host_ask(host, "sequential.test")->upstream, upstream_addr(ups[1]));
    wait_down(host, 0, 1);
    const struct outcome *outcome = host_ask(host, "sequential.test");
    ck_assert_str_eq(outcome->upstream, upstream_addr(ups[1]));
    ck_assert_uint_eq(outcome->attempts, 1);
    upstream_up(ups[0]);
    wait_down(host, 0, 0);
    ck_assert_str_eq(host_ask(host, "sequential.test")->upstream, upstream_addr(ups[0]));
    host_close(host);
}
END_TEST

/* --- failover -------------------------------------------------------------------------------- */

/* A mute upstream costs its read_timeout, no more. */
START_TEST(failover_within_read_timeout)
{
    struct upstream_rule mute = {.drop = true};
    upstream_set(ups[0], &mute);
    struct host *host =
        host_open(_i, "forward . %s %s {\n policy sequential\n read_timeout 300ms\n}",
                  upstream_addr(ups[0]), upstream_addr(ups[1]));
    const struct outcome *outcome = host_ask(host, "failover.test");
    ck_assert(outcome_good(outcome, "failover.test"));
    ck_assert_uint_eq(outcome->attempts, 2);
    ck_assert_uint_ge(outcome->elapsed_ns, 300000000u);
    ck_assert_uint_lt(outcome->elapsed_ns, 1500000000u);
    host_close(host);
}
END_TEST

/* A refused datagram is known at once: no wait. */
START_TEST(failover_when_refused)
{
    upstream_down(ups[0]);
    struct host *host = host_open(_i, "forward . %s %s {\n policy sequential\n}",
                                  upstream_addr(ups[0]), upstream_addr(ups[1]));
    const struct outcome *outcome = host_ask(host, "refused.test");
    ck_assert(outcome_good(outcome, "refused.test"));
    ck_assert_uint_lt(outcome->elapsed_ns, 1000000000u);
    outcome = host_ask_tcp(host, "refused.test");
    ck_assert(outcome_good(outcome, "refused.test"));
    ck_assert_uint_lt(outcome->elapsed_ns, 1000000000u);
    host_close(host);
}
END_TEST

/* case 53: an error moves on to the next upstream and has the failed one probed. */
START_TEST(error_kicks_a_probe_case_53)
{
    struct upstream_rule closing = {.instead = END_FIN};
    upstream_set(ups[0], &closing);
    struct host *host = host_open(_i, "forward . %s %s {\n policy sequential\n force_tcp\n}",
                                  upstream_addr(ups[0]), upstream_addr(ups[1]));
    const struct outcome *outcome = host_ask(host, "probe.test");
    ck_assert(outcome_good(outcome, "probe.test"));
    ck_assert_str_eq(outcome->upstream, upstream_addr(ups[1]));
    ck_assert_uint_eq(outcome->attempts, 2);
    work_until(host, upstream_counts(ups[0]).queries >= 2);
    ck_assert_uint_eq(upstream_seen(ups[0], 1).type, TYPE_NS);
    ck_assert_uint_eq(count_name(ups[1], "probe.test"), 1);
    ck_assert_uint_eq(upstream_counts(ups[1]).queries, 1);
    host_close(host);
}
END_TEST

/* case 45: without max_connect_attempts every upstream is tried exactly twice. */
START_TEST(default_cap_case_45)
{
    struct upstream_rule closing = {.instead = END_FIN};
    upstream_set(ups[0], &closing);
    upstream_set(ups[1], &closing);
    struct host *host = host_open(_i, "forward . %s %s {\n force_tcp\n max_fails 0\n}",
                                  upstream_addr(ups[0]), upstream_addr(ups[1]));
    const struct outcome *outcome = host_ask(host, "cap.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_RCODE);
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_int_eq(outcome->error, FWD_ERR_CLOSED);
    ck_assert_uint_eq(outcome->attempts, 4);
    ck_assert_uint_eq(upstream_counts(ups[0]).queries, 2);
    ck_assert_uint_eq(upstream_counts(ups[1]).queries, 2);
    ck_assert_ptr_nonnull(strstr(outcome->detail, upstream_addr(ups[0])) != NULL
                              ? outcome->detail
                              : strstr(outcome->detail, upstream_addr(ups[1])));
    host_close(host);
}
END_TEST

/* cases 31, 45: an explicit cap counts errors; */
START_TEST(explicit_cap_case_45)
{
    struct upstream_rule closing = {.instead = END_RST};
    upstream_set(ups[0], &closing);
    for (unsigned cap = 1; cap <= 5; cap += 2) {
        struct host *host =
            host_open(_i, "forward . %s {\n force_tcp\n max_fails 0\n max_connect_attempts %u\n}",
                      upstream_addr(ups[0]), cap);
        unsigned before = upstream_counts(ups[0]).queries;
        ck_assert_uint_eq(host_ask(host, "cap.test")->attempts, cap);
        ck_assert_uint_eq(upstream_counts(ups[0]).queries - before, cap);
        host_close(host);
    }
}
END_TEST

/* cases 31, 44: 0 means no cap: attempts go on until the 5 s are over. */
START_TEST(no_cap_case_31_44)
{
    struct upstream_rule mute = {.drop = true};
    upstream_set(ups[0], &mute);
    struct host *host = host_open(
        _i, "forward . %s {\n max_fails 0\n max_connect_attempts 0\n read_timeout 400ms\n}",
        upstream_addr(ups[0]));
    const struct outcome *outcome = host_ask(host, "nocap.test");
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_uint_ge(outcome->attempts, 9);
    ck_assert_uint_le(outcome->attempts, 14);
    ck_assert_uint_ge(outcome->elapsed_ns, 4900000000u);
    ck_assert_uint_le(outcome->elapsed_ns, 5600000000u);
    host_close(host);
}
END_TEST

/* case 44: three mute upstreams; CoreDNS ends at 6.0 s because it looks at the clock between
 * attempts only, we end at 5 s. */
START_TEST(budget_case_44)
{
    struct upstream_rule mute = {.drop = true};
    for (unsigned i = 0; i < 3; i++) {
        upstream_set(ups[i], &mute);
    }
    struct host *host = host_open(_i, "forward . %s %s %s", upstream_addr(ups[0]),
                                  upstream_addr(ups[1]), upstream_addr(ups[2]));
    const struct outcome *outcome = host_ask(host, "budget.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_RCODE);
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_int_eq(outcome->error, FWD_ERR_TIMEOUT);
    ck_assert_uint_eq(outcome->attempts, 3);
    ck_assert_uint_ge(outcome->elapsed_ns, 4900000000u);
    ck_assert_uint_le(outcome->elapsed_ns, 5500000000u);
    host_close(host);
}
END_TEST

/** Closes the first connection, answers on the others. */
static void fail_first(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    if (query->number == 1) {
        rule->instead = END_FIN;
    }
}

/* case 46: after the last upstream comes the first again. */
START_TEST(wrap_case_46)
{
    upstream_script(ups[0], fail_first, NULL);
    struct host *host =
        host_open(_i, "forward . %s {\n force_tcp\n max_fails 0\n}", upstream_addr(ups[0]));
    const struct outcome *outcome = host_ask(host, "wrap.test");
    ck_assert(outcome_good(outcome, "wrap.test"));
    ck_assert_uint_eq(outcome->attempts, 2);
    host_close(host);
}
END_TEST

/* case 47: all are down: one of them is tried all the same, once. */
START_TEST(all_down_case_47)
{
    struct upstream_rule closing = {.instead = END_FIN};
    upstream_set(ups[0], &closing);
    upstream_set(ups[1], &closing);
    struct host *host =
        host_open(_i, "forward . %s %s {\n force_tcp\n max_fails 1\n health_check 50ms\n}",
                  upstream_addr(ups[0]), upstream_addr(ups[1]));
    (void)host_ask(host, "first.test");
    wait_down(host, 0, 1);
    wait_down(host, 1, 1);
    const struct outcome *outcome = host_ask(host, "alldown.test");
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_uint_eq(outcome->attempts, 1);
    ck_assert_uint_eq(count_name(ups[0], "alldown.test") + count_name(ups[1], "alldown.test"), 1);
    ck_assert(host_metric(host, "coredns_forward_healthcheck_broken_total") >= 1);
    host_close(host);
}
END_TEST

/* case 48: max_fails 0: never down, never probed. */
START_TEST(max_fails_0_case_48)
{
    struct upstream_rule closing = {.instead = END_FIN};
    upstream_set(ups[0], &closing);
    struct host *host =
        host_open(_i, "forward . %s {\n force_tcp\n max_fails 0\n health_check 20ms\n}",
                  upstream_addr(ups[0]));
    for (unsigned i = 0; i < 5; i++) {
        (void)host_ask(host, "nofails.test");
    }
    host_work(host, 200);
    ck_assert_uint_eq(count_name(ups[0], "nofails.test"), upstream_counts(ups[0]).queries);
    ck_assert_int_eq(host->proxies->down(host->proxies->at(host->instance, 0)), 0);
    host_close(host);
}
END_TEST

/* case 43: more than max_concurrent are refused at once, do no harm to the upstream, and are not
 * counted on. */
START_TEST(max_concurrent_case_43)
{
    struct upstream_rule slow = {.delay_ms = 300};
    uint64_t tokens[6];
    upstream_set(ups[0], &slow);
    struct host *host =
        host_open(_i, "forward . %s {\n max_concurrent 4\n}", upstream_addr(ups[0]));
    for (unsigned i = 0; i < 6; i++) {
        tokens[i] = host_send(host, "many.test");
    }
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(host_outcome(host, tokens[i])->verdict, FWD_VERDICT_ACCEPTED);
    }
    for (unsigned i = 4; i < 6; i++) {
        const struct outcome *outcome = host_outcome(host, tokens[i]);
        ck_assert_uint_eq(outcome->verdict, FWD_VERDICT_RCODE);
        ck_assert_uint_eq(outcome->rcode, REFUSED);
        ck_assert_int_eq(outcome->error, FWD_ERR_MAX_CONCURRENT);
        ck_assert_ptr_nonnull(strstr(outcome->detail, "concurrent queries exceeded maximum 4"));
    }
    host_wait_all(host, 5000);
    ck_assert(outcome_good(host_ask(host, "many.test"), "many.test"));
    ck_assert(host_metric(host, "coredns_forward_max_concurrent_rejects_total") >= 2);
    ck_assert_uint_eq(upstream_counts(ups[0]).queries, 5);
    host_close(host);
}
END_TEST

/* case 55: a matching RCODE moves on, at most once per upstream; then the last answer is the
 * answer. */
START_TEST(failover_case_55)
{
    struct upstream_rule servfail = {.rcode = SERVFAIL}, refused = {.rcode = REFUSED};
    upstream_set(ups[0], &servfail);
    upstream_set(ups[1], &refused);
    struct host *host =
        host_open(_i, "forward . %s %s %s {\n policy sequential\n failover SERVFAIL REFUSED\n}",
                  upstream_addr(ups[0]), upstream_addr(ups[1]), upstream_addr(ups[2]));
    const struct outcome *outcome = host_ask(host, "failover.test");
    ck_assert(outcome_good(outcome, "failover.test"));
    ck_assert_uint_eq(outcome->attempts, 3);
    upstream_set(ups[2], &refused);
    outcome = host_ask(host, "failover.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_ANSWER);
    ck_assert_uint_eq(outcome->rcode, REFUSED);
    ck_assert_uint_eq(outcome->attempts, 3);
    ck_assert_uint_eq(upstream_counts(ups[0]).queries, 2);
    host_close(host);
}
END_TEST

/* case 56: next hands the query to the next stanza that matches; at the end of the chain it is the
 * answer that counts. */
START_TEST(next_case_56)
{
    struct upstream_rule nxdomain = {.rcode = NXDOMAIN};
    upstream_set(ups[0], &nxdomain);
    struct host *host =
        host_open(_i,
                  "forward . %s {\n next NXDOMAIN\n}\nforward other.test %s\nforward . %s {\n next "
                  "NXDOMAIN\n}",
                  upstream_addr(ups[0]), upstream_addr(ups[1]), upstream_addr(ups[2]));
    const struct outcome *outcome = host_ask(host, "next.test");
    ck_assert(outcome_good(outcome, "next.test"));
    ck_assert_str_eq(outcome->upstream, upstream_addr(ups[2]));
    ck_assert_uint_eq(upstream_counts(ups[1]).queries, 0);
    upstream_set(ups[2], &nxdomain);
    outcome = host_ask(host, "next.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_ANSWER);
    ck_assert_uint_eq(outcome->rcode, NXDOMAIN);
    host_close(host);
}
END_TEST

/* case 80: the duration of an exchange is observed on success only, under its RCODE. */
START_TEST(durations_case_80)
{
    struct upstream_rule nxdomain = {.rcode = NXDOMAIN};
    char count[160];
    struct host *host = host_open(_i, "forward . %s {\n max_connect_attempts 1\n max_fails 0\n}",
                                  upstream_addr(ups[0]));
    (void)host_ask(host, "duration.test");
    upstream_set(ups[0], &nxdomain);
    (void)host_ask(host, "duration.test");
    (void)host_ask(host, "duration.test");
    upstream_down(ups[0]);
    (void)host_ask(host, "duration.test");
    ck_assert_double_eq(host_metric(host, "coredns_proxy_request_duration_seconds_count"), 3);
    snprintf(count, sizeof(count),
             "coredns_proxy_request_duration_seconds_count{proxy_name=\"forward\",to=\"%s\",rcode="
             "\"NXDOMAIN\"}",
             upstream_addr(ups[0]));
    ck_assert_double_eq(host_metric(host, count), 2);
    host_close(host);
}
END_TEST

/* --- transport ------------------------------------------------------------------------------- */

/* case 50: which transport is used, and what becomes of TC. */
START_TEST(transport_choice_case_50)
{
    static const struct {
        const char *options;
        bool client_tcp, tc;
        unsigned udp, tcp;
        bool whole; /* the answer is whole */
    } rows[] = {
        {"", false, false, 1, 0, true},
        {"", true, false, 0, 1, true},
        {"", false, true, 1, 0, false},
        {"prefer_udp", false, false, 1, 0, true},
        {"prefer_udp", true, false, 1, 0, true},
        {"prefer_udp", true, true, 1, 1, true},
        {"prefer_udp", false, true, 1, 1, true},
        {"force_tcp", false, true, 0, 1, true},
        {"force_tcp", true, true, 0, 1, true},
        {"force_tcp\n prefer_udp", false, true, 0, 1, true},
        {"prefer_udp\n force_tcp", true, true, 0, 1, true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct upstream_rule rule = {.tc = rows[i].tc};
        struct upstream_counts before = upstream_counts(ups[0]);
        upstream_set(ups[0], &rule);
        struct host *host =
            host_open(_i, "forward . %s {\n %s\n}", upstream_addr(ups[0]), rows[i].options);
        const struct outcome *outcome = rows[i].client_tcp ? host_ask_tcp(host, "transport.test")
                                                           : host_ask(host, "transport.test");
        struct upstream_counts after = upstream_counts(ups[0]);
        ck_assert_msg(
            after.udp - before.udp == rows[i].udp && after.tcp - before.tcp == rows[i].tcp,
            "row %zu: %u over UDP, %u over TCP", i, after.udp - before.udp, after.tcp - before.tcp);
        ck_assert_uint_eq(outcome->kind, FWD_KIND_ANSWER);
        ck_assert_msg(message_tc(outcome->wire) == !rows[i].whole, "row %zu: TC", i);
        ck_assert_msg(outcome_good(outcome, "transport.test") == rows[i].whole, "row %zu: answer",
                      i);
        host_close(host);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loop");
    TCase *tcase = tcase_create("loop");
    tcase_add_checked_fixture(tcase, setup_upstreams, teardown_upstreams);
    add_test(tcase, random_policy_case_60);
    add_test(tcase, round_robin_policy_case_61);
    add_test(tcase, sequential_policy_case_62);
    add_test(tcase, failover_within_read_timeout);
    add_test(tcase, failover_when_refused);
    add_test(tcase, error_kicks_a_probe_case_53);
    add_test(tcase, default_cap_case_45);
    add_test(tcase, explicit_cap_case_45);
    add_test(tcase, no_cap_case_31_44);
    add_test(tcase, budget_case_44);
    add_test(tcase, wrap_case_46);
    add_test(tcase, all_down_case_47);
    add_test(tcase, max_fails_0_case_48);
    add_test(tcase, max_concurrent_case_43);
    add_test(tcase, failover_case_55);
    add_test(tcase, next_case_56);
    add_test(tcase, durations_case_80);
    add_test(tcase, transport_choice_case_50);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
