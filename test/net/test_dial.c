/* Opening TCP connections: how long it may take, how many at once, and who waits for one that never answers; keeping them alive.
 *
 * Happy path: a listener whose backlog is full stands for an upstream that is not there.
 */
#include "message.h"
#include "plain.h"
#include "suite.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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
    work_until(host, host_tcp_info(host, "dialling") == 1);
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
    ck_assert_uint_eq(host_tcp_info(host, "dialling"), 2);
    ck_assert_uint_eq(host_tcp_info(host, "waiting"), 8);
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
    ck_assert_uint_eq(host_tcp_info(host, "waits"), QUERIES - 4);
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
    ck_assert_uint_eq(host_tcp_info(host, "dials"), 2);
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
    work_until(host, host_tcp_info(host, "dialling") == 3);
    host_close(host);
    deaf_close();
}
END_TEST

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

int main(void)
{
    Suite *suite = suite_create("dial");
    TCase *tcase = tcase_create("dial");
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, connect_timeout);
    add_test(tcase, dial_timeout_adapts_case_71);
    add_test(tcase, max_handshakes);
    add_test(tcase, black_hole_does_not_hold_waiters);
    add_test(tcase, waiters_fail_with_the_dial);
    add_test(tcase, conn_wait_0_refuses_at_max_handshakes);
    add_test(tcase, spare_connections_at_max_handshakes);
    add_test(tcase, stop_while_spares_dial);
    add_test(tcase, tcp_keepalive);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
