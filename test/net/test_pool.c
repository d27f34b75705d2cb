/* The pool through the ABI: order, limits, ports, what makes a connection stale, what is shared.
 *
 * Tests of times run under a clock that stands still until the test moves it, so the module's own
 * time-outs never interfere.
 */
#include "message.h"
#include "plain.h"
#include "suite.h"

#include <stdio.h>
#include <string.h>

/** Asks one query and waits until its connection is idle again. @return the source port or
 * connection number that it used */
static unsigned ask_over(struct host *host, uint32_t proto, unsigned idle)
{
    const struct outcome *outcome =
        proto == FWD_PROTO_TCP ? host_ask_tcp(host, "pool.test") : host_ask(host, "pool.test");
    ck_assert(outcome_good(outcome, "pool.test"));
    ck_assert_uint_eq(outcome->proto, proto);
    host_wait_idle(host, 0, proto, idle);
    struct upstream_seen seen = upstream_seen(up, upstream_counts(up).queries - 1);
    return proto == FWD_PROTO_TCP ? seen.conn : seen.port;
}

/** Has count queries in flight at once, so that count connections are opened, and waits until they
 * are done. */
static void ask_at_once(struct host *host, uint32_t proto, unsigned count)
{
    struct upstream_rule together = {.hold = count};
    upstream_set(up, &together);
    for (unsigned i = 0; i < count; i++) {
        (void)(proto == FWD_PROTO_TCP ? host_send_tcp(host, "pool.test")
                                      : host_send(host, "pool.test"));
    }
    host_wait_all(host, 10000);
    upstream_set(up, &(struct upstream_rule){0});
}

/* --- order ----------------------------------------------------------------------------------- */

static void check_fifo(int mode, uint32_t proto)
{
    unsigned order[3];
    struct host *host = host_open(mode, "forward . %s {\n port_budget 0\n}", upstream_addr(up));
    ask_at_once(host, proto, 3);
    host_wait_idle(host, 0, proto, 3);
    for (unsigned i = 0; i < 3; i++) {
        order[i] = ask_over(host, proto, 3);
    }
    ck_assert(order[0] != order[1] && order[1] != order[2] && order[2] != order[0]);
    for (unsigned i = 0; i < 9; i++) {
        ck_assert_uint_eq(ask_over(host, proto, 3), order[i % 3]);
    }
    host_close(host);
}

/* case 65: what was given back first is taken first. */
START_TEST(fifo_of_udp_ports_case_65)
{
    check_fifo(_i, FWD_PROTO_UDP);
}
END_TEST

START_TEST(fifo_of_tcp_connections_case_65)
{
    check_fifo(_i, FWD_PROTO_TCP);
}
END_TEST

/* --- times ----------------------------------------------------------------------------------- */

static void check_expire(int mode, uint32_t proto)
{
    struct host *host = host_open_with(
        mode, fake_services, "forward . %s {\n port_budget 0\n expire 7s\n}", upstream_addr(up));
    unsigned first = ask_over(host, proto, 1);
    fake_clock_advance(&fake, 7000);
    ck_assert_uint_eq(ask_over(host, proto, 1), first);
    fake_clock_advance(&fake, 7001);
    ck_assert_uint_ne(ask_over(host, proto, 1), first);
    struct fwd_pool_stats stats = host_pool(host, 0, proto);
    ck_assert_uint_eq(stats.expired, 1);
    ck_assert_uint_eq(stats.hits, 1);
    ck_assert_uint_eq(stats.misses, 2);
    host_close(host);
}

/* case 66: idle for longer than expire, strictly: closed on take. */
START_TEST(expire_udp_case_66)
{
    check_expire(_i, FWD_PROTO_UDP);
}
END_TEST

START_TEST(expire_tcp_case_66)
{
    check_expire(_i, FWD_PROTO_TCP);
}
END_TEST

/* case 66: max_age closes what is old although it is in use. */
START_TEST(max_age_case_66)
{
    struct host *host =
        host_open_with(_i, fake_services,
                       "forward . %s {\n port_budget 0\n expire 5s\n max_age 12s\n force_tcp\n}",
                       upstream_addr(up));
    unsigned first = ask_over(host, FWD_PROTO_TCP, 1);
    for (unsigned i = 0; i < 3; i++) {
        fake_clock_advance(&fake, 4000);
        ck_assert_uint_eq(ask_over(host, FWD_PROTO_TCP, 1), first);
    }
    fake_clock_advance(&fake, 1);
    ck_assert_uint_ne(ask_over(host, FWD_PROTO_TCP, 1), first);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_TCP).aged, 1);
    host_close(host);
}
END_TEST

/* case 29: expire 0 means never reused, even within the same nanosecond. */
START_TEST(expire_0_case_29)
{
    struct host *host = host_open_with(
        _i, fake_services, "forward . %s {\n expire 0s\n force_tcp\n}", upstream_addr(up));
    for (unsigned i = 0; i < 4; i++) {
        ck_assert(outcome_good(host_ask(host, "never.test"), "never.test"));
    }
    ck_assert_uint_eq(upstream_counts(up).opened, 4);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_TCP).hits, 0);
    host_close(host);
}
END_TEST

/* case 68: the janitor closes what nobody takes, every 10 s. */
START_TEST(janitor_case_68)
{
    struct host *host =
        host_open_with(_i, fake_services, "forward . %s {\n force_tcp\n}", upstream_addr(up));
    ask_at_once(host, FWD_PROTO_TCP, 3);
    host_wait_idle(host, 0, FWD_PROTO_TCP, 3);
    fake_clock_advance(&fake, 9000);
    host_work(host, 50);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_TCP).idle, 3);
    fake_clock_advance(&fake, 11500);
    host_wait_idle(host, 0, FWD_PROTO_TCP, 0);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_TCP).expired, 3);
    work_until(host, upstream_counts(up).open == 0);
    host_close(host);
}
END_TEST

/* --- limits ---------------------------------------------------------------------------------- */

/* cases 30, 63, 67: over max_idle_conns what comes back is closed; UDP and TCP are counted apart.
 */
START_TEST(max_idle_conns_case_30_63_67)
{
    struct host *host =
        host_open(_i, "forward . %s {\n port_budget 0\n max_idle_conns 2\n}", upstream_addr(up));
    ask_at_once(host, FWD_PROTO_TCP, 5);
    host_wait_idle(host, 0, FWD_PROTO_TCP, 2);
    work_until(host, upstream_counts(up).open == 2);
    ask_at_once(host, FWD_PROTO_UDP, 4);
    host_wait_idle(host, 0, FWD_PROTO_UDP, 2);
    struct fwd_pool_stats tcp = host_pool(host, 0, FWD_PROTO_TCP),
                          udp = host_pool(host, 0, FWD_PROTO_UDP);
    ck_assert_uint_eq(tcp.overflow, 3);
    ck_assert_uint_eq(tcp.misses, 5);
    ck_assert_uint_eq(tcp.active, 0);
    ck_assert_uint_eq(udp.overflow, 2);
    ck_assert_uint_eq(udp.misses, 4);
    host_close(host);
}
END_TEST

/* case 67: 0 is no limit. */
START_TEST(unlimited_idle_case_67)
{
    struct host *host = host_open(_i, "forward . %s {\n port_budget 0\n}", upstream_addr(up));
    ask_at_once(host, FWD_PROTO_TCP, 40);
    ask_at_once(host, FWD_PROTO_UDP, 40);
    host_wait_idle(host, 0, FWD_PROTO_TCP, 40);
    host_wait_idle(host, 0, FWD_PROTO_UDP, 40);
    host_close(host);
}
END_TEST

/* case 66: hits and misses are counted per transport, and are CoreDNS's series. */
START_TEST(hits_and_misses_case_66)
{
    struct host *host = host_open(_i, "forward . %s {\n port_budget 0\n}", upstream_addr(up));
    for (unsigned i = 0; i < 5; i++) {
        (void)ask_over(host, FWD_PROTO_TCP, 1);
    }
    struct fwd_pool_stats stats = host_pool(host, 0, FWD_PROTO_TCP);
    ck_assert_uint_eq(stats.misses, 1);
    ck_assert_uint_eq(stats.hits, 4);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_UDP).misses, 0);
    ck_assert(host_metric(host, "coredns_proxy_conn_cache_hits_total{") >= 4);
    ck_assert(host_metric(host, "coredns_proxy_conn_cache_misses_total{") >= 1);
    host_close(host);
}
END_TEST

/* --- ports ----------------------------------------------------------------------------------- */

/** How often two queries in a row came from one port. */
static unsigned repeats(unsigned count)
{
    unsigned same = 0;
    for (unsigned i = 1; i < count; i++) {
        same += upstream_seen(up, i).port == upstream_seen(up, i - 1).port;
    }
    return same;
}

/* RFC 5452 9.2: with the default budget a quiet client gets a port of its own for every query. */
START_TEST(fresh_port_for_every_query)
{
    enum { QUERIES = 300 };
    struct host *host = host_open(_i, "forward . %s", upstream_addr(up));
    for (unsigned i = 0; i < QUERIES; i++) {
        ck_assert(outcome_good(host_ask(host, "port.test"), "port.test"));
    }
    /* 300 of 28,232 ports: 1.6 repetitions expected */
    ck_assert_uint_ge(upstream_counts(up).ports, QUERIES - 12);
    ck_assert_uint_le(repeats(QUERIES), 1);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_UDP).idle, 0);
    host_close(host);
}
END_TEST

/* With the budget spent the ports go round, and still never twice in a row. The clock stands still:
 * the budget does not grow. */
START_TEST(ports_go_round_beyond_the_budget)
{
    enum { QUERIES = 200, BUDGET = 10 };
    struct host *host = host_open_with(_i, fake_services, "forward . %s {\n port_budget %d\n}",
                                       upstream_addr(up), BUDGET);
    for (unsigned i = 0; i < QUERIES; i++) {
        ck_assert(outcome_good(host_ask(host, "port.test"), "port.test"));
    }
    ck_assert_uint_eq(repeats(QUERIES), 0);
    ck_assert_uint_ge(upstream_counts(up).ports, 2);
    ck_assert_uint_le(upstream_counts(up).ports, BUDGET + 5);
    host_close(host);
}
END_TEST

/* port_budget 0 is CoreDNS's behaviour: one port for as long as it is busy. */
START_TEST(no_budget_keeps_one_port)
{
    struct host *host =
        host_open_with(_i, fake_services, "forward . %s {\n port_budget 0\n}", upstream_addr(up));
    for (unsigned i = 0; i < 60; i++) {
        ck_assert(outcome_good(host_ask(host, "life.test"), "life.test"));
        fake_clock_advance(&fake, 5000);
    }
    ck_assert_uint_eq(upstream_counts(up).ports, 1);
    host_close(host);
}
END_TEST

/* The budget is a rate: below it every query has a port of its own, for as long as one likes; above it those that there are go round. */
START_TEST(budget_is_per_second)
{
    struct host *host =
        host_open_with(_i, fake_services, "forward . %s {\n port_budget 10\n}", upstream_addr(up));
    for (unsigned i = 0; i < 40; i++) {
        ck_assert(outcome_good(host_ask(host, "life.test"), "life.test"));
        fake_clock_advance(&fake, 110);
    }
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_UDP).misses, 40);
    ck_assert_uint_ge(upstream_counts(up).ports, 36); /* two sockets may get one port, one after the other */
    for (unsigned i = 0; i < 200; i++) {
        ck_assert(outcome_good(host_ask(host, "life.test"), "life.test"));
        fake_clock_advance(&fake, 10);
    }
    ck_assert_uint_ge(upstream_counts(up).ports, 42);
    ck_assert_uint_le(upstream_counts(up).ports, 60);
    host_close(host);
}
END_TEST

/* max_idle_conns 1 with no budget left is the one case in which a port may follow itself. */
START_TEST(one_idle_socket_may_repeat)
{
    struct host *host =
        host_open_with(_i, fake_services, "forward . %s {\n port_budget 1\n max_idle_conns 1\n}",
                       upstream_addr(up));
    for (unsigned i = 0; i < 20; i++) {
        ck_assert(outcome_good(host_ask(host, "one.test"), "one.test"));
    }
    ck_assert_uint_le(upstream_counts(up).ports, 3);
    host_close(host);
}
END_TEST

/* --- stale connections ----------------------------------------------------------------------- */

/* cases 49, 78: connections that died while idle are replaced at no charge: one attempt is allowed,
 * and it is enough. */
static void check_idle_killed(int mode, enum ending how)
{
    struct host *host = host_open(mode, "forward . %s {\n force_tcp\n max_connect_attempts 1\n}",
                                  upstream_addr(up));
    for (unsigned round = 0; round < 5; round++) {
        ask_at_once(host, FWD_PROTO_TCP, 8);
        upstream_kill(up, how);
        ask_at_once(host, FWD_PROTO_TCP, 8);
    }
    for (uint64_t token = 1; token <= 80; token++) {
        const struct outcome *outcome = host_outcome(host, token);
        ck_assert_msg(outcome_good(outcome, "pool.test"), "query %llu: %s",
                      (unsigned long long)token, outcome->detail);
    }
    ck_assert_uint_eq(host->proxies->fails(host->proxies->at(host->instance, 0)), 0);
    host_close(host);
}

START_TEST(idle_connections_closed_by_fin_case_49_78)
{
    check_idle_killed(_i, END_FIN);
}
END_TEST

START_TEST(idle_connections_closed_by_rst_case_49_78)
{
    check_idle_killed(_i, END_RST);
}
END_TEST

/** Closes a connection instead of answering its second query. */
static void close_second(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    rule->instead = query->number == 2 ? *(enum ending *)arg : END_NONE;
}

/* cases 49, 78: the same when the connection dies with the query on it, before any octet of an
 * answer. */
static void check_dies_with_query(int mode, enum ending how)
{
    upstream_script(up, close_second, &how);
    struct host *host = host_open(mode, "forward . %s {\n force_tcp\n max_connect_attempts 1\n}",
                                  upstream_addr(up));
    (void)ask_over(host, FWD_PROTO_TCP, 1);
    ck_assert(outcome_good(host_ask(host, "pool.test"), "pool.test"));
    ck_assert_uint_eq(upstream_counts(up).queries, 3);
    ck_assert_uint_eq(upstream_counts(up).opened, 2);
    host_close(host);
}

START_TEST(reused_connection_closed_by_fin_case_49_78)
{
    check_dies_with_query(_i, END_FIN);
}
END_TEST

START_TEST(reused_connection_closed_by_rst_case_49_78)
{
    check_dies_with_query(_i, END_RST);
}
END_TEST

/* case 78: on a new connection the same is an error. */
START_TEST(new_connection_closed_case_78)
{
    struct upstream_rule closing = {.instead = END_FIN};
    upstream_set(up, &closing);
    struct host *host =
        host_open(_i, "forward . %s {\n force_tcp\n max_connect_attempts 1\n max_fails 0\n}",
                  upstream_addr(up));
    const struct outcome *outcome = host_ask(host, "new.test");
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_int_eq(outcome->error, FWD_ERR_CLOSED);
    ck_assert_uint_eq(upstream_counts(up).opened, 1);
    host_close(host);
}
END_TEST

/** Answers the first query together with the second, the others at once. */
static void first_too_late(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    rule->hold = query->number <= 2 ? 2 : 0;
}

/* case 79: a socket on which an answer is outstanding is closed, so that the late answer meets
 * nobody. */
START_TEST(timed_out_socket_is_closed_case_79)
{
    upstream_script(up, first_too_late, NULL);
    struct host *host = host_open_with(_i, fake_services,
                                       "forward . %s {\n port_budget 0\n read_timeout 200ms\n "
                                       "max_connect_attempts 1\n max_fails 0\n}",
                                       upstream_addr(up));
    uint64_t late = host_send(host, "late.test");
    work_until(host, upstream_counts(up).queries == 1);
    fake_clock_advance(&fake, 210);
    ck_assert_int_eq(host_wait(host, late, 5000)->error, FWD_ERR_TIMEOUT);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_UDP).idle, 0);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert(outcome_good(host_ask(host, "late.test"), "late.test"));
    }
    ck_assert_uint_ne(upstream_seen(up, 0).port, upstream_seen(up, 1).port);
    host_close(host);
}
END_TEST

/* --- sharing --------------------------------------------------------------------------------- */

/* Two instances with the same upstream use one pool, and a reload (new before old ends) keeps warm
 * connections. */
START_TEST(instances_share_connections)
{
    struct host *old = host_open(MODE_THREADS, "forward . %s {\n force_tcp\n}", upstream_addr(up));
    (void)ask_over(old, FWD_PROTO_TCP, 1);
    struct host *new = host_open(MODE_THREADS, "forward . %s {\n force_tcp\n policy sequential\n}",
                                 upstream_addr(up));
    (void)ask_over(new, FWD_PROTO_TCP, 1);
    host_close(old);
    (void)ask_over(new, FWD_PROTO_TCP, 1);
    ck_assert_uint_eq(upstream_counts(up).opened, 1);
    ck_assert_uint_eq(host_pool(new, 0, FWD_PROTO_TCP).hits, 2);
    host_close(new);
    ck_assert(upstream_wait_open(up, 0, 5000));
}
END_TEST

/* Limits are part of the identity: another expire has a pool of its own. */
START_TEST(other_limits_are_not_shared)
{
    struct host *one = host_open(MODE_THREADS, "forward . %s {\n force_tcp\n}", upstream_addr(up));
    (void)ask_over(one, FWD_PROTO_TCP, 1);
    struct host *two =
        host_open(MODE_THREADS, "forward . %s {\n force_tcp\n expire 20s\n}", upstream_addr(up));
    (void)ask_over(two, FWD_PROTO_TCP, 1);
    ck_assert_uint_eq(upstream_counts(up).opened, 2);
    host_close(two);
    host_close(one);
}
END_TEST

/* Stanzas of one instance with the same upstream share as well. */
START_TEST(stanzas_share_connections)
{
    struct host *host =
        host_open(_i, "forward a.test %s {\n force_tcp\n}\nforward b.test %s {\n force_tcp\n}",
                  upstream_addr(up), upstream_addr(up));
    ck_assert(outcome_good(host_ask(host, "x.a.test"), "x.a.test"));
    host_wait_idle(host, 0, FWD_PROTO_TCP, 1);
    ck_assert(outcome_good(host_ask(host, "x.b.test"), "x.b.test"));
    ck_assert_uint_eq(upstream_counts(up).opened, 1);
    host_close(host);
}
END_TEST

/* case 70: after stop nothing is taken any more, and idle connections are closed. */
START_TEST(stopped_pool_case_70)
{
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n}", upstream_addr(up));
    (void)ask_over(host, FWD_PROTO_TCP, 1);
    struct fwd_query query = FWD_INIT(struct fwd_query);
    uint8_t wire[64];
    query.wire = wire;
    query.wire_len = (uint32_t)message_query(wire, sizeof(wire), 1, "stopped.test", TYPE_A);
    ck_assert_int_eq(host->forward->stop(host->instance, 0), FWD_OK);
    ck_assert_int_eq(host->forward->serve(host->instance, &query, 1), FWD_ERR_STATE);
    ck_assert_int_eq(host->proxies->exchange(host->proxies->at(host->instance, 0), &query, 0),
                     FWD_ERR_STATE);
    host_close(host);
    ck_assert(upstream_wait_open(up, 0, 5000));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *tcase = tcase_create("pool");
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, fifo_of_udp_ports_case_65);
    add_test(tcase, fifo_of_tcp_connections_case_65);
    add_test(tcase, expire_udp_case_66);
    add_test(tcase, expire_tcp_case_66);
    add_test(tcase, max_age_case_66);
    add_test(tcase, expire_0_case_29);
    add_test(tcase, janitor_case_68);
    add_test(tcase, max_idle_conns_case_30_63_67);
    add_test(tcase, unlimited_idle_case_67);
    add_test(tcase, hits_and_misses_case_66);
    add_test(tcase, fresh_port_for_every_query);
    add_test(tcase, ports_go_round_beyond_the_budget);
    add_test(tcase, no_budget_keeps_one_port);
    add_test(tcase, budget_is_per_second);
    add_test(tcase, one_idle_socket_may_repeat);
    add_test(tcase, idle_connections_closed_by_fin_case_49_78);
    add_test(tcase, idle_connections_closed_by_rst_case_49_78);
    add_test(tcase, reused_connection_closed_by_fin_case_49_78);
    add_test(tcase, reused_connection_closed_by_rst_case_49_78);
    add_test(tcase, new_connection_closed_case_78);
    add_test(tcase, timed_out_socket_is_closed_case_79);
    tcase_add_test(tcase, instances_share_connections);
    tcase_add_test(tcase, other_limits_are_not_shared);
    add_test(tcase, stanzas_share_connections);
    add_test(tcase, stopped_pool_case_70);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
