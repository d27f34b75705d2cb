/* Health: what a probe looks like, what it makes of an answer, when an upstream is down, when
 * probing ends. */
#include "message.h"
#include "plain.h"
#include "suite.h"

#include <string.h>

static struct host *host;

static struct fwd_proxy *proxy(void)
{
    return host->proxies->at(host->instance, 0);
}

static unsigned count_probes(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < upstream_counts(up).queries; i++) {
        count += upstream_seen(up, i).type == TYPE_NS;
    }
    return count;
}

/** Lets the module work until so many probes came. */
static void wait_probes(unsigned count)
{
    work_until(host, count_probes() >= count);
}

static void wait_fails(unsigned low, unsigned high)
{
    work_until(host, host->proxies->fails(proxy()) >= low && host->proxies->fails(proxy()) <= high);
}

/* case 83: a probe asks for NS, on a connection of its own, over the upstream's transport. */
START_TEST(probe_form_case_83)
{
    static const struct {
        const char *options, *name;
        bool rd, tcp;
    } rows[] = {
        {"", "", true, false},
        {"health_check 1s no_rec", "", false, false},
        {"health_check 1s domain Example.org", "example.org", true, false},
        {"health_check 1s no_rec domain a.example.org\n force_tcp", "a.example.org", false, true},
        {"prefer_udp", "", true, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        unsigned before = upstream_counts(up).queries;
        host = host_open(_i, "forward . %s {\n %s\n}", upstream_addr(up), rows[i].options);
        (void)host_ask(
            host, "before.test"); /* leaves a connection in the pool that the probe must not take */
        struct upstream_seen first = upstream_seen(up, before);
        ck_assert_int_eq(host->proxies->healthcheck(proxy()), FWD_OK);
        wait_probes((unsigned)i + 1);
        struct upstream_seen seen = upstream_seen(up, before + 1);
        ck_assert_uint_eq(seen.type, TYPE_NS);
        ck_assert_str_eq(seen.name, rows[i].name);
        ck_assert_int_eq(seen.tcp, rows[i].tcp);
        ck_assert_uint_eq(seen.wire[2] & 1, rows[i].rd);
        if (rows[i].tcp) {
            ck_assert_uint_ne(seen.conn, first.conn);
        } else {
            ck_assert_uint_ne(seen.port, first.port);
        }
        host_close(host);
    }
}
END_TEST

/* case 84: whatever has a header is a sign of life: any RCODE, a body that does not parse, another
 * question. */
START_TEST(any_answer_is_healthy_case_84)
{
    static const struct upstream_rule rules[] = {
        {.rcode = SERVFAIL},
        {.rcode = REFUSED},
        {.drop = true, .bad = BAD_NO_QUESTION, .bad_count = 1},
        {.drop = true, .bad = BAD_HEADER_ONLY, .bad_count = 1},
        {.tc = true},
    };
    struct upstream_rule mute = {.instead = END_FIN, .drop = true};
    for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++) {
        upstream_set(up, &mute);
        host = host_open(_i,
                         "forward . %s {\n max_connect_attempts 1\n force_tcp\n health_check 20ms "
                         "domain health.test\n}",
                         upstream_addr(up));
        (void)host_ask(host, "dead.test");
        wait_fails(1, 1000);
        upstream_set(up, &rules[i]);
        wait_fails(0, 0);
        host_close(host);
    }
}
END_TEST

/* cases 85, 86, 87: failed probes count up at the interval, more than max_fails of them mean down,
 * one answer resets; client answers do not count. */
START_TEST(fails_and_down_case_85_86_87)
{
    struct upstream_rule closing = {.instead = END_FIN};
    upstream_set(up, &closing);
    host = host_open(
        _i,
        "forward . %s {\n force_tcp\n max_fails 3\n health_check 30ms\n max_connect_attempts 1\n}",
        upstream_addr(up));
    ck_assert_uint_eq(host->proxies->fails(proxy()), 0);
    (void)host_ask(host, "fails.test");
    wait_fails(2, 3);
    ck_assert_int_eq(host->proxies->down(proxy()), 0);
    wait_fails(4, 1000);
    ck_assert_int_eq(host->proxies->down(proxy()), 1);
    upstream_set(up, &(struct upstream_rule){0});
    wait_fails(0, 0);
    ck_assert_int_eq(host->proxies->down(proxy()), 0);
    ck_assert(outcome_good(host_ask(host, "fails.test"), "fails.test"));
    host_close(host);
}
END_TEST

/* case 87: however many errors ask for a probe, one loop of probes runs; it ends with the first
 * answer. */
START_TEST(one_probe_loop_case_87)
{
    struct upstream_rule slow = {.delay_ms = 150};
    upstream_set(up, &slow);
    host = host_open(_i, "forward . %s {\n health_check 20ms\n}", upstream_addr(up));
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_int_eq(host->proxies->healthcheck(proxy()), FWD_OK);
    }
    host_work(host, 500);
    ck_assert_uint_eq(count_probes(), 1);
    upstream_set(up, &(struct upstream_rule){0});
    ck_assert_int_eq(host->proxies->healthcheck(proxy()), FWD_OK);
    wait_probes(2);
    host_close(host);
}
END_TEST

/* case 88: stop ends the loop; `health_check 0s` does not make it spin. */
START_TEST(probes_end_with_the_instance_case_88)
{
    struct upstream_rule closing = {.instead = END_FIN};
    upstream_set(up, &closing);
    host = host_open(_i, "forward . %s {\n force_tcp\n health_check 0s\n max_connect_attempts 1\n}",
                     upstream_addr(up));
    (void)host_ask(host, "stop.test");
    wait_probes(3);
    unsigned before = count_probes();
    host_work(host, 300);
    ck_assert_uint_le(count_probes() - before, 60);
    host_close(host);
    /* What was sent before the end may still be read; a loop that goes on would never leave 200 ms
     * without a probe. */
    for (unsigned i = 0; i < 5; i++) {
        before = upstream_counts(up).queries;
        if (!upstream_wait_seen(up, before + 1, 200)) {
            break;
        }
    }
    ck_assert(!upstream_wait_seen(up, before + 1, 200));
}
END_TEST

/* A probe that nobody answers fails after a second. */
START_TEST(mute_upstream_fails_after_a_second_case_83)
{
    struct upstream_rule mute = {.drop = true};
    upstream_set(up, &mute);
    host = host_open(_i, "forward . %s {\n health_check 20ms\n}", upstream_addr(up));
    ck_assert_int_eq(host->proxies->healthcheck(proxy()), FWD_OK);
    host_work(host, 700);
    ck_assert_uint_eq(host->proxies->fails(proxy()), 0);
    wait_fails(1, 1);
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("health");
    TCase *tcase = tcase_create("health");
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, probe_form_case_83);
    add_test(tcase, any_answer_is_healthy_case_84);
    add_test(tcase, fails_and_down_case_85_86_87);
    add_test(tcase, one_probe_loop_case_87);
    add_test(tcase, probes_end_with_the_instance_case_88);
    add_test(tcase, mute_upstream_fails_after_a_second_case_83);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
