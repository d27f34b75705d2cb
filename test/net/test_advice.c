/* Warnings about limits that do not fit the load, or each other. */
#include "log.h"
#include "message.h"
#include "plain.h"
#include "suite.h"

static const struct service hearing[] = {{FWD_CLOCK_ID, &fake.table}, {FWD_LOG_ID, &log_table}, {NULL, NULL}};

static struct host *open_hearing(int mode, const char *limits)
{
    return host_open_with(mode, hearing, "forward . %s {\n force_tcp\n %s\n}", upstream_addr(up), limits);
}

/** Has 150 queries in flight at once, and then the janitor look. */
static void burst(struct host *host)
{
    set_delay(100);
    (void)host_send_batch(host, "burst", 150);
    host_wait_all(host, 20000);
    work_until(host, host_tcp_info(host, "active") == 0);
    fake_clock_advance(&fake, 10500);
    host_work(host, 30);
}

static void check_advice(int mode, const char *limits, const char *advice)
{
    struct host *host = open_hearing(mode, limits);
    burst(host);
    work_until(host, logged(advice) == 1);
    burst(host); /* not again within a minute */
    ck_assert_uint_eq(logged(advice), 1);
    ck_assert_uint_eq(logged_at(FWD_LEVEL_WARNING), 1);
    host_close(host);
}

START_TEST(advice_on_idle_limit)
{
    check_advice(_i, "max_idle_conns 2\n expire 60s", "max_idle_conns 150 would keep them");
}
END_TEST

START_TEST(advice_on_max_conns)
{
    check_advice(_i, "max_conns 10\n expire 60s", "max_conns 150 would do");
}
END_TEST

START_TEST(advice_on_uses)
{
    check_advice(_i, "max_conn_uses 1\n expire 60s", "max_conn_uses 15 would");
}
END_TEST

START_TEST(advice_at_create)
{
    static const char *const pairs[][2] = {
        {"max_idle_conns 2\n max_conns 100", "max_idle_conns 2 is below max_conns 100"},
        {"max_idle_conns 2\n max_concurrent 1000", "max_idle_conns 2 is below max_concurrent 1000"},
        {"min_idle_conns 4\n max_idle_conns 2", "only 2 are kept ready"},
        {"min_idle_conns 4\n expire 0s", "min_idle_conns 4 has no effect"},
        {"max_age_jitter 10", "max_age_jitter 10 has no effect"},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
        struct host *host = open_hearing(_i, pairs[i][0]);
        ck_assert_uint_eq(logged(pairs[i][1]), 1);
        host_close(host);
    }
    log_clear();
    host_close(open_hearing(_i, "max_conns 100\n min_idle_conns 4\n max_age 1m\n max_age_jitter 10"));
    ck_assert_uint_eq(logged_at(FWD_LEVEL_WARNING), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("advice");
    TCase *tcase = tcase_create("advice");
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, advice_on_idle_limit);
    add_test(tcase, advice_on_max_conns);
    add_test(tcase, advice_on_uses);
    add_test(tcase, advice_at_create);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
