/* Limits on connections, and what happens when the machine has no more to give. */
#include "host.h"
#include "message.h"
#include "network.h"
#include "suite.h"
#include "upstream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct upstream *up;
static struct fake_clock fake;
static struct service fake_services[] = {{FWD_CLOCK_ID, &fake.table}, {NULL, NULL}};

static void setup(void)
{
    up = upstream_create();
    fake_clock_init(&fake);
}

static void teardown(void)
{
    upstream_destroy(up);
}

static void set_delay(unsigned ms)
{
    upstream_set(up, &(struct upstream_rule){.delay_ms = ms});
}

static void set_mute(void)
{
    upstream_set(up, &(struct upstream_rule){.drop = true});
}

/** The number behind a key of info's first TCP pool. */
static unsigned tcp_info(struct host *host, const char *key)
{
    char quoted[64];
    char *info = host_info(host);
    (void)snprintf(quoted, sizeof(quoted), "\"%s\":", key);
    char *pool = strstr(info, "\"tcp\":{");
    ck_assert_ptr_nonnull(pool);
    char *at = strstr(pool, quoted);
    ck_assert_ptr_nonnull(at);
    unsigned value = (unsigned)strtoul(at + strlen(quoted), NULL, 10);
    free(info);
    return value;
}

static void check_error(const struct outcome *outcome, int error, const char *text)
{
    ck_assert_int_eq(outcome->error, error);
    ck_assert_msg(strstr(outcome->detail, text) != NULL, "\"%s\" is not in \"%s\"", text, outcome->detail);
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
        ck_assert_uint_le(tcp_info(host, "open"), LIMIT);
        host_work(host, 2);
    }
    for (unsigned i = 0; i < QUERIES; i++) {
        ck_assert_int_eq(host_outcome(host, first + i)->error, FWD_OK);
    }
    ck_assert_uint_eq(upstream_counts(up).opened, LIMIT);
    ck_assert_uint_ge(tcp_info(host, "waits"), QUERIES - LIMIT);
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
        ck_assert_uint_le(tcp_info(host, "open"), LIMIT);
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
    ck_assert_uint_eq(tcp_info(host, "refused"), 1);
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
    ck_assert_uint_eq(tcp_info(host, "waiting"), 0);
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
    ck_assert_uint_eq(tcp_info(host, "waiting"), 3);
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
    ck_assert_uint_eq(tcp_info(host, "waiting"), 498);
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
    ck_assert_uint_ge(tcp_info(host, "waits"), QUERIES / 2);
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
    unsigned dials = tcp_info(host, "dials");
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
    set_delay(100);
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

/* Dialling ------------------------------------------------------------------------------------------------------------ */

/** A listener whose backlog is full, so that the kernel answers no SYN. */
static struct {
    int listener, filler[16];
    char text[32];
} deaf;

static void deaf_open(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    deaf.listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(deaf.listener, (struct sockaddr *)&at, len), 0);
    ck_assert_int_eq(listen(deaf.listener, 0), 0);
    ck_assert_int_eq(getsockname(deaf.listener, (struct sockaddr *)&at, &len), 0);
    for (unsigned i = 0; i < 16; i++) {
        deaf.filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(deaf.filler[i], (struct sockaddr *)&at, len);
    }
    (void)snprintf(deaf.text, sizeof(deaf.text), "127.0.0.1:%u", ntohs(at.sin_port));
}

static void deaf_close(void)
{
    for (unsigned i = 0; i < 16; i++) {
        (void)close(deaf.filler[i]);
    }
    (void)close(deaf.listener);
}

START_TEST(connect_timeout)
{
    deaf_open();
    struct host *host = host_open(
        _i, "forward . %s {\n force_tcp\n connect_timeout 300ms\n max_connect_attempts 1\n max_fails 0\n}", deaf.text);
    const struct outcome *outcome = host_ask(host, "deaf.test");
    check_error(outcome, FWD_ERR_TIMEOUT, "dial tcp");
    ck_assert_uint_ge(outcome->elapsed_ns, 290000000u);
    ck_assert_uint_lt(outcome->elapsed_ns, 4500000000u);
    host_close(host);
    deaf_close();
}
END_TEST

/* case 71: the average of 15 s falls by a quarter with every dial that takes no time, UDP's too; the
 * time-out of the next dial is twice the average, 30 s at most and 1 s at least, within the query's 5 s. */
static void check_dial_timeout(int mode, unsigned dials, unsigned timeout_ms)
{
    deaf_open(); /* over UDP nobody listens there: refused at once */
    struct host *host = host_open_with(mode, fake_services, "forward . %s {\n max_connect_attempts 1\n max_fails 0\n}", deaf.text);
    for (unsigned i = 0; i < dials; i++) {
        check_error(host_ask(host, "dial.test"), FWD_ERR_REFUSED, "udp");
    }
    uint64_t token = host_send_tcp(host, "deaf.test");
    work_until(host, tcp_info(host, "dialling") == 1);
    fake_clock_advance(&fake, timeout_ms - 20);
    host_work(host, 50);
    ck_assert(!host_outcome(host, token)->ended);
    fake_clock_advance(&fake, 40);
    check_error(host_wait(host, token, 5000), FWD_ERR_TIMEOUT, "dial tcp");
    host_close(host);
    deaf_close();
}

START_TEST(dial_timeout_adapts_case_71)
{
    check_dial_timeout(_i, 0, 5000); /* 30 s */
    check_dial_timeout(_i, 7, 4004); /* 2 * 15 s * 0.75^7 */
    check_dial_timeout(_i, 9, 2252); /* 2 * 15 s * 0.75^9 */
    check_dial_timeout(_i, 10, 1000); /* the average is 0.84 s now */
}
END_TEST

START_TEST(max_handshakes)
{
    deaf_open();
    struct host *host = host_open(
        _i, "forward . %s {\n force_tcp\n max_handshakes 2\n max_connect_attempts 1\n max_fails 0\n}", deaf.text);
    (void)host_send_batch(host, "deaf", 10);
    ck_assert_uint_eq(tcp_info(host, "dialling"), 2);
    ck_assert_uint_eq(tcp_info(host, "waiting"), 8);
    host_close_drain(host, 1);
    deaf_close();
}
END_TEST

/* A black hole, and more queries than may dial: none of them waits for its turn to dial in vain, all go on to the next upstream
 * when the first dial has timed out. */
START_TEST(black_hole_does_not_hold_waiters)
{
    enum { QUERIES = 200 };
    deaf_open();
    struct host *host = host_open(
        _i, "forward . %s %s {\n policy sequential\n force_tcp\n connect_timeout 200ms\n max_handshakes 4\n}", deaf.text,
        upstream_addr(up));
    (void)host_send_batch(host, "hole", QUERIES);
    host_wait_all(host, 10000);
    for (uint64_t token = 1; token <= QUERIES; token++) {
        const struct outcome *outcome = host_outcome(host, token);
        ck_assert_msg(outcome->error == FWD_OK, "%s", outcome->detail);
        ck_assert_uint_eq(outcome->attempts, 2);
        ck_assert_str_eq(outcome->upstream, upstream_addr(up));
        ck_assert_uint_lt(outcome->elapsed_ns, 1500000000u);
    }
    ck_assert_uint_eq(tcp_info(host, "waits"), QUERIES - 4);
    host_close(host);
    deaf_close();
}
END_TEST

/* Who waits fails as the dial does, in the same words. */
START_TEST(waiters_fail_with_the_dial)
{
    enum { QUERIES = 20 };
    deaf_open();
    struct host *host = host_open(
        _i, "forward . %s {\n force_tcp\n connect_timeout 200ms\n max_handshakes 2\n max_connect_attempts 1\n}", deaf.text);
    (void)host_send_batch(host, "deaf", QUERIES);
    host_wait_all(host, 10000);
    for (uint64_t token = 1; token <= QUERIES; token++) {
        check_error(host_outcome(host, token), FWD_ERR_TIMEOUT, "dial tcp");
        ck_assert_uint_eq(host_outcome(host, token)->attempts, 1);
    }
    ck_assert_uint_eq(tcp_info(host, "dials"), 2);
    ck_assert(host_metric(host, "fwd_proxy_errors_total{") >= QUERIES);
    host_close(host);
    deaf_close();
}
END_TEST

START_TEST(conn_wait_0_refuses_at_max_handshakes)
{
    deaf_open();
    struct host *host =
        host_open(_i, "forward . %s {\n force_tcp\n max_handshakes 1\n conn_wait 0s\n max_connect_attempts 1\n}", deaf.text);
    (void)host_send(host, "first.test");
    check_error(host_ask(host, "second.test"), FWD_ERR_EXHAUSTED, "max_handshakes");
    host_close_drain(host, 1);
    deaf_close();
}
END_TEST

/* A limit on dials delays spare connections, and no more. */
START_TEST(spare_connections_at_max_handshakes)
{
    struct host *host = host_open(_i, "forward . %s {\n min_idle_conns 16\n max_handshakes 2\n}", upstream_addr(up));
    host_wait_idle(host, 0, FWD_PROTO_TCP, 16);
    host_close(host);
}
END_TEST

/* Stop with spare connections half open leaves nothing behind (the sanitizer says so). */
START_TEST(stop_while_spares_dial)
{
    deaf_open();
    struct host *host = host_open(_i, "forward . %s {\n min_idle_conns 3\n}", deaf.text);
    work_until(host, tcp_info(host, "dialling") == 3);
    host_close(host);
    deaf_close();
}
END_TEST

/* Advice -------------------------------------------------------------------------------------------------------------- */

/** The lines that the module logged. */
static struct {
    struct fwd_log table;
    pthread_mutex_t mutex;
    unsigned warnings;
    char text[4096];
} heard = {.mutex = PTHREAD_MUTEX_INITIALIZER};
static struct service hearing[] = {{FWD_CLOCK_ID, &fake.table}, {FWD_LOG_ID, &heard.table}, {NULL, NULL}};

static void hear(void *arg, uint32_t level, const char *line, uint32_t len)
{
    (void)arg;
    pthread_mutex_lock(&heard.mutex);
    heard.warnings += level == FWD_LEVEL_WARNING;
    size_t used = strlen(heard.text);
    (void)snprintf(heard.text + used, sizeof(heard.text) - used, "%.*s\n", (int)len, line);
    pthread_mutex_unlock(&heard.mutex);
}

static struct host *open_hearing(int mode, const char *limits)
{
    heard.table = (struct fwd_log){.struct_size = sizeof(heard.table), .write = hear};
    return host_open_with(mode, hearing, "forward . %s {\n force_tcp\n %s\n}", upstream_addr(up), limits);
}

static unsigned warned(const char *text)
{
    pthread_mutex_lock(&heard.mutex);
    unsigned count = strstr(heard.text, text) != NULL ? heard.warnings : 0;
    pthread_mutex_unlock(&heard.mutex);
    return count;
}

/** Has 150 queries in flight at once, and then the janitor look. */
static void burst(struct host *host)
{
    set_delay(100);
    (void)host_send_batch(host, "burst", 150);
    host_wait_all(host, 20000);
    work_until(host, tcp_info(host, "active") == 0);
    fake_clock_advance(&fake, 10500);
    host_work(host, 30);
}

static void check_advice(int mode, const char *limits, const char *advice)
{
    struct host *host = open_hearing(mode, limits);
    burst(host);
    work_until(host, warned(advice) == 1);
    burst(host); /* not again within a minute */
    ck_assert_uint_eq(warned(advice), 1);
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
        ck_assert_uint_gt(warned(pairs[i][1]), 0);
        host_close(host);
    }
    heard.warnings = 0;
    host_close(open_hearing(_i, "max_conns 100\n min_idle_conns 4\n max_age 1m\n max_age_jitter 10"));
    ck_assert_uint_eq(heard.warnings, 0);
}
END_TEST

/* Exhaustion ---------------------------------------------------------------------------------------------------------- */

static struct rlimit full;

/** From here on no descriptor can be had. */
static void starve(void)
{
    int fd = open("/dev/null", O_RDONLY);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &full), 0);
    struct rlimit none = {.rlim_cur = (rlim_t)fd, .rlim_max = full.rlim_max};
    (void)close(fd);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
}

static void feed(void)
{
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &full), 0);
}

/* How many of our connections to the upstream have a keepalive timer running: "tr" of /proc/net/tcp is 02. */
static unsigned keepalive_timers(void)
{
    char line[256];
    unsigned count = 0, remote_port, state, timer;
    unsigned port = (unsigned)strtoul(strrchr(upstream_addr(up), ':') + 1, NULL, 10);
    FILE *file = fopen("/proc/net/tcp", "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, " %*u: %*8x:%*x %*8x:%x %x %*x:%*x %x:", &remote_port, &state, &timer) == 3) {
            count += remote_port == port && state == 1 && timer == 2;
        }
    }
    (void)fclose(file);
    return count;
}

/* tcp_keepalive has the kernel probe an idle connection; without it there is no such timer. */
START_TEST(tcp_keepalive)
{
    static const char *const options[] = {"", "tcp_keepalive 7s"};
    for (unsigned i = 0; i < 2; i++) {
        struct host *host = host_open(_i, "forward . %s {\n force_tcp\n %s\n}", upstream_addr(up), options[i]);
        ck_assert(outcome_good(host_ask(host, "alive.test"), "alive.test"));
        host_wait_idle(host, 0, FWD_PROTO_TCP, 1);
        work_until(host, keepalive_timers() == i); /* a timer of the last segment may still be running */
        host_close(host);
    }
}
END_TEST

START_TEST(no_descriptor_is_a_clear_error)
{
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_connect_attempts 3\n}", upstream_addr(up));
    starve();
    const struct outcome *outcome = host_ask(host, "emfile.test");
    check_error(outcome, FWD_ERR_EXHAUSTED, "too many open files");
    ck_assert_uint_eq(tcp_info(host, "open"), 0);
    feed();
    /* it was this machine's fault, so nobody is down */
    ck_assert_uint_eq(host->proxies->fails(host->proxies->at(host->instance, 0)), 0);
    ck_assert(outcome_good(host_ask(host, "emfile.test"), "emfile.test"));
    host_close(host);
}
END_TEST

START_TEST(no_descriptor_idle_is_used)
{
    struct host *host = host_open_with(_i, fake_services, "forward . %s {\n port_budget 2\n max_connect_attempts 1\n}",
                                       upstream_addr(up));
    for (unsigned i = 0; i < 6; i++) { /* spends the budget, so that some stay idle */
        ck_assert(outcome_good(host_ask(host, "spend.test"), "spend.test"));
    }
    work_until(host, host_pool(host, 0, FWD_PROTO_UDP).idle > 0);
    fake_clock_advance(&fake, 1000);
    starve();
    ck_assert(outcome_good(host_ask(host, "idle.test"), "idle.test"));
    feed();
    host_close(host);
}
END_TEST

START_TEST(no_descriptor_next_upstream_is_used)
{
    struct upstream *other = upstream_create();
    struct host *host = host_open(_i, "forward . %s %s {\n force_tcp\n policy sequential\n}", upstream_addr(up), upstream_addr(other));
    struct fwd_proxy *second = host->proxies->at(host->instance, 1);
    uint64_t warm = host_exchange(host, 1, "warm.test", FWD_EXCHANGE_FORCE_TCP);
    ck_assert_ptr_nonnull(second);
    ck_assert(outcome_good(host_wait(host, warm, 5000), "warm.test"));
    host_wait_idle(host, 1, FWD_PROTO_TCP, 1);
    starve();
    ck_assert(outcome_good(host_ask(host, "next.test"), "next.test"));
    feed();
    ck_assert_uint_eq(upstream_counts(other).queries, 2);
    host_close(host);
    upstream_destroy(other);
}
END_TEST

/* Those who wait are not all told that nothing can be opened while there is a connection that will serve them. */
START_TEST(no_descriptor_waiters_stay)
{
    enum { QUERIES = 100 };
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_conns 2\n max_conn_uses 60\n}", upstream_addr(up));
    set_delay(50);
    (void)host_send_batch(host, "stay", QUERIES);
    work_until(host, upstream_counts(up).open == 2);
    starve();
    host_wait_all(host, 10000);
    feed();
    unsigned good = 0;
    for (uint64_t token = 1; token <= QUERIES; token++) {
        good += host_outcome(host, token)->error == FWD_OK;
    }
    ck_assert_uint_eq(good, QUERIES);
    host_close(host);
}
END_TEST

static bool write_to(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) {
        (void)close(fd);
    }
    return written;
}

/** A network of our own, with few ports. @return false where that is not allowed */
static bool few_ports(void)
{
    if (!network_own()) {
        return false;
    }
    ck_assert(write_to("/proc/sys/net/ipv4/tcp_tw_reuse", "0"));
    return true;
}

/** After the upstreams have their ports. */
static void leave_ports(void)
{
    ck_assert(write_to("/proc/sys/net/ipv4/ip_local_port_range", "21000 21007"));
}

static void check_no_port(int mode, const char *more)
{
    if (!few_ports()) {
        return;
    }
    struct upstream *one = upstream_create(), *two = upstream_create();
    leave_ports();
    struct host *host = host_open(mode, "forward one.test %s {\n expire 0s\n force_tcp\n max_connect_attempts 2\n %s\n}\n"
                                        "forward two.test %s %s {\n expire 0s\n force_tcp\n policy sequential\n %s\n}",
                                  upstream_addr(one), more, upstream_addr(one), upstream_addr(two), more);
    for (unsigned i = 0; i < 8; i++) {
        ck_assert(outcome_good(host_ask(host, "a.one.test"), "a.one.test"));
    }
    /* all ports towards the first are in TIME_WAIT; those towards the second are not */
    ck_assert(upstream_wait_open(one, 0, 5000));
    check_error(host_ask(host, "a.one.test"), FWD_ERR_EXHAUSTED, "cannot assign requested address");
    ck_assert_uint_eq(host->proxies->fails(host->proxies->at(host->instance, 0)), 0);
    ck_assert(outcome_good(host_ask(host, "a.two.test"), "a.two.test"));
    ck_assert_uint_ge(tcp_info(host, "shortages"), 2);
    ck_assert(host_metric(host, "fwd_proxy_conn_shortages_total{") >= 2);
    host_close(host);
    upstream_destroy(one);
    upstream_destroy(two);
}

START_TEST(no_port)
{
    check_no_port(_i, "");
}
END_TEST

START_TEST(no_port_of_source_address)
{
    check_no_port(_i, "source_address 127.0.0.1");
}
END_TEST

START_TEST(no_udp_port)
{
    if (!few_ports()) {
        return;
    }
    struct upstream *one = upstream_create();
    leave_ports();
    struct host *host = host_open(_i, "forward . %s {\n max_connect_attempts 2\n read_timeout 4s\n}", upstream_addr(one));
    upstream_set(one, &(struct upstream_rule){.delay_ms = 500});
    uint64_t first = host_send_batch(host, "udp", 12);
    host_wait_all(host, 10000);
    unsigned good = 0;
    for (unsigned i = 0; i < 12; i++) {
        const struct outcome *outcome = host_outcome(host, first + i);
        good += outcome->error == FWD_OK;
        ck_assert(outcome->error == FWD_OK || outcome->error == FWD_ERR_EXHAUSTED);
    }
    ck_assert_uint_ge(good, 7);
    ck_assert_uint_lt(good, 12);
    host_close(host);
    upstream_destroy(one);
}
END_TEST

/* An address that is not this machine's. */
START_TEST(foreign_source_address)
{
    struct host *host =
        host_open(_i, "forward . %s {\n source_address 192.0.2.1\n max_connect_attempts 2\n}", upstream_addr(up));
    check_error(host_ask(host, "foreign.test"), FWD_ERR_EXHAUSTED, "cannot assign requested address");
    check_error(host_ask_tcp(host, "foreign.test"), FWD_ERR_EXHAUSTED, "cannot assign requested address");
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
    add_test(tcase, connect_timeout);
    add_test(tcase, dial_timeout_adapts_case_71);
    add_test(tcase, max_handshakes);
    add_test(tcase, black_hole_does_not_hold_waiters);
    add_test(tcase, waiters_fail_with_the_dial);
    add_test(tcase, conn_wait_0_refuses_at_max_handshakes);
    add_test(tcase, spare_connections_at_max_handshakes);
    add_test(tcase, stop_while_spares_dial);
    add_test(tcase, advice_on_idle_limit);
    add_test(tcase, advice_on_max_conns);
    add_test(tcase, advice_on_uses);
    add_test(tcase, advice_at_create);
    add_test(tcase, tcp_keepalive);
    add_test(tcase, no_descriptor_is_a_clear_error);
    add_test(tcase, no_descriptor_idle_is_used);
    add_test(tcase, no_descriptor_next_upstream_is_used);
    add_test(tcase, no_descriptor_waiters_stay);
    add_test(tcase, no_port);
    add_test(tcase, no_port_of_source_address);
    add_test(tcase, no_udp_port);
    add_test(tcase, foreign_source_address);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
