/* The info document: what it says of an upstream before anything has happened, after failures of
 * attempts and of probes, and under load. */
#include "plain.h"
#include "suite.h"

#include <jansson.h>
#include <string.h>
#include <time.h>

static struct host *host;

/* The first upstream's part of the document; to be given back. */
static json_t *upstream_info(void)
{
    char *text = host_info(host);
    json_t *info = json_loads(text, 0, NULL);
    free(text);
    ck_assert_ptr_nonnull(info);
    json_t *upstream = json_incref(json_array_get(json_object_get(info, "upstreams"), 0));
    json_decref(info);
    return upstream;
}

/* A member of a member, such as "latency", "p50". */
static const json_t *member(const json_t *object, const char *name, const char *inner)
{
    const json_t *value = json_object_get(object, name);
    ck_assert_msg(value != NULL, "no %s", name);
    return inner != NULL ? json_object_get(value, inner) : value;
}

static void check_string(const json_t *value, const char *wanted)
{
    ck_assert_ptr_nonnull(value);
    ck_assert_str_eq(json_string_value(value), wanted);
}

/* The state, asked anew each time. */
static bool state_is(const char *wanted)
{
    json_t *upstream = upstream_info();
    bool same = strcmp(json_string_value(member(upstream, "state", NULL)), wanted) == 0;
    json_decref(upstream);
    return same;
}

static long long number(const char *name)
{
    json_t *upstream = upstream_info();
    long long value = json_integer_value(member(upstream, name, NULL));
    json_decref(upstream);
    return value;
}

START_TEST(nothing_has_happened)
{
    host = host_open(_i, "forward . %s", upstream_addr(up));
    json_t *upstream = upstream_info();
    check_string(member(upstream, "addr", NULL), upstream_addr(up));
    check_string(member(upstream, "state", NULL), "up");
    static const char *const none[] = {"last_error", "last_probe_error", "latency"};
    for (size_t i = 0; i < 3; i++) {
        ck_assert(json_is_null(member(upstream, none[i], NULL)));
    }
    static const char *const zero[] = {"fails", "probes", "in_flight", "ports"};
    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(json_integer_value(member(upstream, zero[i], NULL)), 0);
    }
    json_decref(upstream);
    host_close(host);
}
END_TEST

/* The error that the query ended with, its phase and time; no probe has been sent (max_fails 0). */
START_TEST(last_error)
{
    upstream_set(up, &(struct upstream_rule){.instead = END_FIN});
    host = host_open(_i, "forward . %s {\n force_tcp\n max_connect_attempts 1\n max_fails 0\n}",
                     upstream_addr(up));
    time_t before = time(NULL);
    const struct outcome *outcome = host_ask(host, "fails.test");
    json_t *upstream = upstream_info();
    const json_t *last = member(upstream, "last_error", NULL);
    check_string(member(last, "phase", NULL), "read");
    check_string(member(last, "proto", NULL), "tcp");
    check_string(member(last, "error", NULL), "closed");
    check_string(member(last, "text", NULL), outcome->detail);
    struct tm tm = {0};
    const char *at = json_string_value(member(last, "at", NULL));
    ck_assert_str_eq(strptime(at, "%Y-%m-%dT%H:%M:%S", &tm) + strlen(".000"), "Z");
    ck_assert_int_ge(timegm(&tm), before);
    ck_assert_int_le(timegm(&tm), time(NULL) + 1); /* time() may lag a tick behind the wall clock */
    ck_assert(json_is_null(member(upstream, "last_probe_error", NULL)));
    json_decref(upstream);
    host_close(host);
}
END_TEST

/* up, probing, down and up again; what went wrong last is remembered. */
START_TEST(states_and_last_probe_error)
{
    upstream_set(up, &(struct upstream_rule){.instead = END_FIN});
    host = host_open(_i,
                     "forward . %s {\n force_tcp\n max_connect_attempts 1\n max_fails 2\n "
                     "health_check 50ms\n}",
                     upstream_addr(up));
    ck_assert(state_is("up"));
    (void)host_ask(host, "fails.test");
    work_until(host, state_is("probing"));
    work_until(host, state_is("down"));
    upstream_set(up, &(struct upstream_rule){0});
    work_until(host, state_is("up"));
    json_t *upstream = upstream_info();
    const json_t *last = member(upstream, "last_probe_error", NULL);
    check_string(member(last, "phase", NULL), "read");
    check_string(member(last, "error", NULL), "closed");
    ck_assert_int_ge(json_integer_value(member(upstream, "probes", NULL)), 4);
    ck_assert_int_eq(json_integer_value(member(upstream, "fails", NULL)), 0);
    json_decref(upstream);
    host_close(host);
}
END_TEST

/* Three exchanges share a connection; the connection has one port, and is idle afterwards. */
START_TEST(in_flight_and_ports)
{
    host = host_open(_i, "forward . %s {\n force_tcp\n pipeline 8\n}", upstream_addr(up));
    (void)host_ask(host, "first.test");
    upstream_set(up, &(struct upstream_rule){.drop = true});
    uint64_t first = host_send_batch(host, "waits", 3);
    ck_assert_int_eq(number("in_flight"), 3);
    ck_assert_int_eq(number("ports"), 1);
    for (uint64_t token = first; token < first + 3; token++) {
        (void)host->forward->cancel(host->instance, host_outcome(host, token)->handle);
    }
    host_wait_all(host, 5000);
    work_until(host, number("in_flight") == 0);
    host_close(host);
}
END_TEST

/* Nothing stays in the books of connections that die with exchanges on them. */
START_TEST(in_flight_after_deaths)
{
    host = host_open(_i, "forward . %s {\n force_tcp\n pipeline 4\n max_fails 0\n}", upstream_addr(up));
    upstream_set(up, &(struct upstream_rule){.delay_ms = 5});
    upstream_kill_every(up, END_RST, 7);
    (void)host_send_batch(host, "dies", 200);
    host_wait_all(host, 20000);
    upstream_kill_every(up, END_RST, 0);
    work_until(host, number("in_flight") == 0);
    host_close(host);
}
END_TEST

static void check_quantile(const json_t *latency, const char *name, double least)
{
    const json_t *quantile = member(latency, name, NULL);
    double from = json_real_value(member(quantile, "from", NULL));
    double to = json_real_value(member(quantile, "to", NULL));
    double value = json_real_value(member(quantile, "value", NULL));
    ck_assert_double_le(from, value);
    ck_assert_double_le(value, to);
    ck_assert_double_eq_tol(to, 2 * from, 1e-12);
    ck_assert_double_ge(to, least);
}

START_TEST(quantiles_of_latency)
{
    enum { QUERIES = 20, DELAY_MS = 5 };
    host = host_open(_i, "forward . %s", upstream_addr(up));
    upstream_set(up, &(struct upstream_rule){.delay_ms = DELAY_MS});
    (void)host_send_batch(host, "slow", QUERIES);
    host_wait_all(host, 5000);
    json_t *upstream = upstream_info();
    const json_t *latency = member(upstream, "latency", NULL);
    ck_assert_int_eq(json_integer_value(member(latency, "count", NULL)), QUERIES);
    ck_assert_double_ge(json_real_value(member(latency, "mean", NULL)), DELAY_MS / 1e3);
    static const char *const names[] = {"p50", "p90", "p99"};
    for (size_t i = 0; i < 3; i++) {
        check_quantile(latency, names[i], DELAY_MS / 1e3);
    }
    json_decref(upstream);
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("info");
    TCase *tcase = tcase_create("info");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, nothing_has_happened);
    add_test(tcase, last_error);
    add_test(tcase, states_and_last_probe_error);
    add_test(tcase, in_flight_and_ports);
    add_test(tcase, in_flight_after_deaths);
    add_test(tcase, quantiles_of_latency);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
