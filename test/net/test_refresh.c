/* Host names that are looked up again (resolve_interval). */
#include "authority.h"
#include "message.h"
#include "names.h"
#include "suite.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/** Asks until a query reaches the upstream; none may fail meanwhile. */
static void ask_until_at(struct upstream *up)
{
    unsigned before = seen(up);
    for (unsigned i = 0; i < 5000 && seen(up) == before; i++) {
        ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
        host_work(host, 1);
    }
    ck_assert_uint_gt(seen(up), before);
}

/** The times between the questions for A, in ms: the shortest. */
static unsigned shortest_gap(void)
{
    uint64_t last = 0, shortest = UINT64_MAX;
    for (unsigned i = 0; i < seen(names); i++) {
        struct upstream_seen query = upstream_seen(names, i);
        if (query.type == TYPE_A) {
            shortest = last > 0 && query.at_ns - last < shortest ? query.at_ns - last : shortest;
            last = query.at_ns;
        }
    }
    return shortest == UINT64_MAX ? 0 : (unsigned)(shortest / 1000000);
}

/** True when a name was asked for in the last ms milliseconds. */
static bool is_asked(unsigned ms)
{
    struct timespec now;
    uint64_t at_ns = upstream_seen(names, seen(names) - 1).at_ns;
    clock_gettime(CLOCK_MONOTONIC, &now); /* after that, or a question could come in between */
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    return now_ns - at_ns < ms * 1000000ull;
}

/* When the TTL has ended the name is looked up again, not before, and queries go over to the new
 * address; none is lost. */
START_TEST(queries_go_over)
{
    say("127.0.0.1", 1);
    host = open_host(_i, "resolve_interval 50ms");
    ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
    ck_assert_uint_eq(seen(one), 1);
    say("127.0.0.2", 1);
    ask_until_at(two);
    unsigned left = seen(one);
    for (unsigned i = 0; i < 20; i++) {
        ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
    }
    ck_assert_uint_eq(seen(one), left);
    ck_assert_uint_ge(shortest_gap(), 1000);
    char addr[64];
    snprintf(addr, sizeof(addr), "\"addr\":\"%s\"", upstream_addr(two));
    ck_assert(info_says(addr));
    snprintf(addr, sizeof(addr), "\"addr\":\"%s\"", upstream_addr(one));
    ck_assert(!info_says(addr));
    ck_assert(info_says("\"name\":\"a.test\",\"addresses\":1,\"lookups\":1,\"failures\":0"));
    ck_assert(host_metric(host, "fwd_host_lookups_total") == 1);
    ck_assert_uint_eq(logged("3 forward: .: 1 upstreams from now on: 127.0.0.2:"), 1);
    host_close(host);
}
END_TEST

/* A TTL of 0 is bounded by resolve_interval; resolve_hold bounds a long one. */
START_TEST(bounds)
{
    static const struct {
        const char *options;
        uint32_t ttl;
    } rows[] = {{"resolve_interval 200ms", 0},
                {"resolve_interval 100ms\n resolve_hold 200ms", 3600},
                {"resolve_interval 200ms\n resolve_hold 100ms", 3600},
                {"resolve_interval 200ms", 0x80000000}};
    for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct upstream *last = names;
        names = upstream_create();
        say("127.0.0.1", rows[i].ttl);
        host = open_host(_i, rows[i].options);
        work_until(host, seen(names) >= 6);
        ck_assert_uint_ge(shortest_gap(), 200);
        host_close(host);
        upstream_destroy(last);
    }
}
END_TEST

/* Whatever goes wrong the old address stays in use; one line says so, lookups are made ever more
 * seldom, and when it is over the name is followed again. */
START_TEST(failure_keeps_the_addresses)
{
    static const struct upstream_rule rows[] = {
        {.rcode = SERVFAIL}, {.rcode = NXDOMAIN}, {.addresses = ""}, {.tc = true}, {.drop = true}};
    for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        say("127.0.0.1", 0);
        log_clear();
        host = open_host(_i, "resolve_interval 50ms");
        double before = host_metric(host, "fwd_host_lookup_failures_total");
        upstream_set(names, &rows[i]);
        unsigned failures = rows[i].drop ? 1 : 4;
        work_until(host, host_metric(host, "fwd_host_lookup_failures_total") >= before + failures);
        unsigned at_one = seen(one);
        ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
        ck_assert_uint_eq(seen(one), at_one + 1);
        ck_assert(info_says(rows[i].drop ? "\"failures\":1" : "\"failures\":4"));
        ck_assert_uint_eq(logged("2 forward: .: the addresses of a.test stay as they are: "), 1);
        ck_assert_uint_eq(logged("upstreams from now on"), 0);
        if (!rows[i].drop) { /* the fourth came 50 + 100 + 200 ms after the first */
            uint64_t last = upstream_seen(names, seen(names) - 1).at_ns;
            work_until(host, upstream_seen(names, seen(names) - 1).at_ns > last);
            ck_assert_uint_ge(upstream_seen(names, seen(names) - 1).at_ns - last, 390000000);
        }
        say("127.0.0.2", 0);
        ask_until_at(two);
        ck_assert_uint_eq(logged("3 forward: .: a.test is found again"), 1);
        host_close(host);
    }
}
END_TEST

/* Only the question for one kind of address is answered. */
static void answer_one_kind(void *arg, const struct upstream_seen *query,
                            struct upstream_rule *rule)
{
    if (query->type == *(const uint16_t *)arg) {
        rule->addresses = query->type == TYPE_A ? "127.0.0.2" : "::1";
    } else {
        *rule = (struct upstream_rule){.rcode = SERVFAIL};
    }
}

/* IPv6: the addresses of the kind whose question failed stay, the others are followed. */
START_TEST(one_kind_fails)
{
    static const uint16_t a = TYPE_A, aaaa = TYPE_AAAA;
    say("127.0.0.1 ::1", 0);
    host = open_host(_i, "resolve_interval 50ms\n policy round_robin");
    ck_assert_uint_eq(host->proxies->count(host->instance), 2);
    upstream_script(names, answer_one_kind, (void *)&a);
    ask_until_at(two);
    ask_until_at(six);
    ck_assert_uint_eq(host->proxies->count(host->instance), 2);
    upstream_script(names, NULL, NULL);
    say("::1", 0);
    work_until(host, host->proxies->count(host->instance) == 1);
    ask_until_at(six);
    say("127.0.0.1", 0);
    ask_until_at(one);
    work_until(host, !info_says("[::1]"));
    upstream_script(names, answer_one_kind, (void *)&aaaa);
    ask_until_at(six);
    ask_until_at(one);
    host_close(host);
}
END_TEST

/* Another order alone is no change. */
START_TEST(order_is_no_change)
{
    say("127.0.0.1 127.0.0.2", 0);
    host = open_host(_i, "resolve_interval 50ms");
    say("127.0.0.2 127.0.0.1", 0);
    unsigned before = seen(names);
    work_until(host, seen(names) >= before + 6);
    ck_assert_uint_eq(logged("upstreams from now on"), 0);
    host_close(host);
}
END_TEST

/* What stays keeps its connections; those to what is gone are closed. */
START_TEST(connections_stay)
{
    say("127.0.0.1 127.0.0.2", 0);
    host = open_host(_i, "resolve_interval 50ms\n policy round_robin\n force_tcp");
    for (unsigned i = 0; i < 4; i++) {
        ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
        host_wait_idle(host, 1, FWD_PROTO_TCP, 1); /* the first one goes to the second upstream */
        host_wait_idle(host, 0, FWD_PROTO_TCP, i > 0);
    }
    ck_assert_uint_eq(upstream_counts(one).open, 1);
    ck_assert_uint_eq(upstream_counts(two).open, 1);
    say("::1 127.0.0.1", 3600);
    ask_until_at(six);
    work_until(host, upstream_counts(two).open == 0);
    ask_until_at(one);
    ck_assert_uint_eq(upstream_counts(one).opened, 1);
    ck_assert_uint_eq(upstream_counts(one).open, 1);
    host_close(host);
}
END_TEST

/* A query in flight ends at the upstream that it was sent to, and max_concurrent counts it on. */
START_TEST(in_flight_over_an_exchange)
{
    struct upstream_rule slow = {.delay_ms = 1500};
    say("127.0.0.1", 0);
    upstream_set(one, &slow);
    host = open_host(_i, "resolve_interval 50ms\n max_concurrent 2");
    uint64_t token = host_send(host, "slow.test");
    say("127.0.0.2", 0);
    work_until(host, logged("upstreams from now on") == 1);
    ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
    ck_assert_uint_eq(seen(two), 1);
    upstream_set(two, &slow);
    uint64_t second = host_send(host, "second.test");
    ck_assert_uint_eq(host_outcome(host, host_send(host, "third.test"))->rcode, REFUSED);
    ck_assert(outcome_good(host_wait(host, token, 5000), "slow.test"));
    ck_assert_uint_eq(seen(one), 1);
    ck_assert_str_eq(host_outcome(host, token)->upstream, upstream_addr(one));
    ck_assert(outcome_good(host_wait(host, second, 5000), "second.test"));
    upstream_set(two, &(struct upstream_rule){.drop = false});
    ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
    host_close(host);
}
END_TEST

/* fwd.proxy/1: a handle outlives its upstream, says that it is down, and is the same one when the
 * address comes back. */
START_TEST(handle_of_what_is_gone)
{
    struct fwd_pool_stats stats = FWD_INIT(struct fwd_pool_stats);
    say("127.0.0.1", 0);
    host = open_host(_i, "resolve_interval 50ms");
    struct fwd_proxy *proxy = host->proxies->at(host->instance, 0);
    ck_assert_int_eq(host->proxies->down(proxy), 0);
    say("127.0.0.2", 0);
    work_until(host, host->proxies->at(host->instance, 0) != proxy);
    host_work(host, 300); /* until it is closed */
    ck_assert_uint_eq(host->proxies->count(host->instance), 1);
    ck_assert_str_eq(host->proxies->addr(proxy), upstream_addr(one));
    ck_assert_int_eq(host->proxies->down(proxy), 1);
    ck_assert_uint_eq(host->proxies->fails(proxy), 0);
    ck_assert_int_eq(host->proxies->healthcheck(proxy), FWD_ERR_STATE);
    ck_assert_int_eq(host->proxies->pool_stats(proxy, FWD_PROTO_UDP, &stats), FWD_ERR_STATE);
    uint8_t wire[512];
    struct fwd_query query = FWD_INIT(struct fwd_query);
    query.wire = wire;
    query.wire_len = (uint32_t)message_query(wire, sizeof(wire), 1, "q.test", TYPE_A);
    ck_assert_int_eq(host->proxies->exchange(proxy, &query, 0), FWD_OK);
    ck_assert_uint_eq(query.verdict, FWD_VERDICT_RCODE);
    ck_assert_int_eq(query.error, FWD_ERR_STOPPED);
    say("127.0.0.1", 0);
    work_until(host, host->proxies->at(host->instance, 0) == proxy);
    ck_assert_int_eq(host->proxies->down(proxy), 0);
    ck_assert(outcome_good(host_wait(host, host_exchange(host, 0, "q.test", 0), 5000), "q.test"));
    host_close(host);
}
END_TEST

/* Each name of a stanza follows its own answers; fixed addresses stay where they are. */
static void answer_by_name(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    const char *const *lists = arg;
    rule->addresses = lists[query->name[0] == 'b'];
}

START_TEST(several_names)
{
    static const char *before[] = {"127.0.0.1", "127.0.0.1"}, *after[] = {"127.0.0.1", "::1"};
    upstream_script(names, answer_by_name, before);
    host = host_open_with(_i, with_log,
                          "forward . a.test:%u 127.0.0.2:%u b.test:%u {\n resolver %s\n "
                          "resolve_interval 50ms\n policy sequential\n}",
                          upstream_port(one), upstream_port(one), upstream_port(one),
                          upstream_addr(names));
    ck_assert_uint_eq(host->proxies->count(host->instance), 2); /* case 20 */
    upstream_script(names, answer_by_name, after);
    work_until(host, host->proxies->count(host->instance) == 3);
    ck_assert_str_eq(host->proxies->addr(host->proxies->at(host->instance, 0)), upstream_addr(one));
    ck_assert_str_eq(host->proxies->addr(host->proxies->at(host->instance, 1)), upstream_addr(two));
    ck_assert_str_eq(host->proxies->addr(host->proxies->at(host->instance, 2)), upstream_addr(six));
    ck_assert_ptr_null(host->proxies->at(host->instance, 3));
    host_close(host);
}
END_TEST

static const unsigned few = 1, many = 28;

/* More addresses than a stanza can have: the first 255 are used. */
START_TEST(too_many_upstreams)
{
    upstream_script(names, answer_many, (void *)&few);
    host = host_open_with(_i, with_log,
                          "forward . a.test b.test c.test d.test e.test f.test g.test h.test "
                          "i.test j.test {\n resolver %s\n "
                          "resolve_interval 50ms\n}",
                          upstream_addr(names));
    ck_assert_uint_eq(host->proxies->count(host->instance), 10);
    upstream_script(names, answer_many, (void *)&many);
    work_until(host, host->proxies->count(host->instance) == 255);
    ck_assert_uint_ge(logged("2 forward: .: only the first 255 of 280 upstreams are used"), 1);
    host_close(host);
}
END_TEST

static void answer_by_turns(void *arg, const struct upstream_seen *query,
                            struct upstream_rule *rule)
{
    rule->addresses = query->number / 2 % 2 == 0 ? "127.0.0.1 ::1" : "127.0.0.2 ::1";
}

static void *send_many(void *arg)
{
    for (unsigned i = 0; i < 1000; i++) {
        (void)host_send(host, "q.test");
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    return NULL;
}

/** Under load, with an exchange for every lookup, no query is lost. */
static void exchange_under_load(enum mode mode, const char *options)
{
    pthread_t threads[2];
    upstream_script(names, answer_by_turns, NULL);
    host = open_host(mode, options);
    for (unsigned i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, send_many, NULL);
    }
    for (unsigned i = 0; i < 100; i++) {
        host_work(host, 5);
        struct fwd_proxy *proxy = host->proxies->at(host->instance, 0);
        ck_assert_uint_eq(host->proxies->fails(proxy), 0);
        ck_assert(info_says("[::1]"));
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    host_wait_all(host, 5000);
    for (uint64_t token = 1; token <= 2000; token++) {
        ck_assert(outcome_good(host_outcome(host, token), "q.test"));
    }
    ck_assert_uint_ge(logged("upstreams from now on"), 3);
    host_close(host);
}

START_TEST(exchanges_under_load)
{
    exchange_under_load(_i, "resolve_interval 10ms");
}
END_TEST

/* Attempts that are made beside each other hold the sets that they were sent from. */
START_TEST(exchanges_with_retransmit)
{
    struct upstream_rule slow = {.delay_ms = 30};
    upstream_set(one, &slow);
    upstream_set(two, &slow);
    exchange_under_load(_i, "resolve_interval 10ms\n retransmit 10ms");
    ck_assert_uint_gt(seen(one) + seen(two) + seen(six), 2000);
}
END_TEST

/* stop and destroy do not wait for a lookup, in whatever state it is. */
START_TEST(end_during_a_lookup)
{
    unsigned fds = 0;
    for (unsigned i = 0; i < 40; i++) {
        say("127.0.0.1", 0);
        host = open_host(_i, "resolve_interval 10ms");
        unsigned before = seen(names);
        if (i % 4 == 0) {
            upstream_set(names, &(struct upstream_rule){.drop = true});
            work_until(host, seen(names) > before);
        } else {
            host_work(host, i % 20);
        }
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        host_close(host);
        clock_gettime(CLOCK_MONOTONIC, &to);
        long took_ms = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
        ck_assert_int_lt(took_ms, 1000);
        fds = i == 0 ? count_entries("/proc/self/fd") : fds;
        ck_assert_uint_eq(count_entries("/proc/self/fd"), fds);
    }
}
END_TEST

/* A new instance is made before the old one ends: connections stay, and it follows the name. */
START_TEST(reload)
{
    say("127.0.0.1", 0);
    struct host *old = open_host(_i, "resolve_interval 50ms\n force_tcp");
    host = old;
    ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
    host_wait_idle(host, 0, FWD_PROTO_TCP, 1);
    host = open_host(_i, "resolve_interval 50ms\n force_tcp");
    host_close(old);
    ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
    ck_assert_uint_eq(upstream_counts(one).opened, _i == MODE_THREADS ? 1 : 2);
    say("127.0.0.2", 0);
    ask_until_at(two);
    host_close(host);
}
END_TEST

/* New upstreams that cannot be opened (here for want of the CA's file) leave the old ones in use;
 * it is tried again. */
START_TEST(upstream_cannot_be_opened)
{
    struct authority authority;
    char moved[128];
    authority_open(&authority);
    snprintf(moved, sizeof(moved), "%s.moved", authority.ca_file);
    say("127.0.0.1", 0);
    host = host_open_with(_i, with_log,
                          "forward . tls://a.test:%u {\n resolver %s\n resolve_interval 50ms\n "
                          "tls %s\n}",
                          upstream_port(one), upstream_addr(names), authority.ca_file);
    ck_assert_int_eq(rename(authority.ca_file, moved), 0);
    say("127.0.0.2", 0);
    work_until(host, logged("the new ones cannot be opened: ") == 1);
    unsigned before = seen(names);
    work_until(host, seen(names) >= before + 4);
    ck_assert_uint_eq(logged("the new ones cannot be opened: "), 1);
    ck_assert(info_says(upstream_addr(one)));
    say("127.0.0.2", 3600); /* no further lookup brings it about */
    work_until(host, !is_asked(200));
    ck_assert_int_eq(rename(moved, authority.ca_file), 0);
    work_until(host, info_says(upstream_addr(two)));
    ck_assert_uint_eq(logged("upstreams from now on"), 1);
    host_close(host);
    authority_close(&authority);
}
END_TEST

/* Options without effect are told. */
START_TEST(advice)
{
    host = host_open_with(_i, with_log,
                          "forward . %s {\n resolve_interval 50ms\n}\n"
                          "forward b.test %s {\n resolve_hold 1s\n}",
                          upstream_addr(one), upstream_addr(one));
    ck_assert_uint_eq(logged("2 forward: .: resolve_interval has no effect: "), 1);
    ck_assert_uint_eq(logged("2 forward: b.test.: resolve_hold has no effect without "), 1);
    ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("refresh");
    TCase *tcase = tcase_create("refresh");
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, queries_go_over);
    add_test(tcase, bounds);
    add_test(tcase, failure_keeps_the_addresses);
    add_test(tcase, one_kind_fails);
    add_test(tcase, order_is_no_change);
    add_test(tcase, connections_stay);
    add_test(tcase, in_flight_over_an_exchange);
    add_test(tcase, handle_of_what_is_gone);
    add_test(tcase, several_names);
    add_test(tcase, too_many_upstreams);
    add_test(tcase, exchanges_under_load);
    add_test(tcase, exchanges_with_retransmit);
    add_test(tcase, end_during_a_lookup);
    add_test(tcase, reload);
    add_test(tcase, upstream_cannot_be_opened);
    add_test(tcase, advice);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
