/* What the kernel can refuse a new connection with: this program's own socket and bind stand before libc's, and fail on demand. The module, which
 * is loaded into it, calls them; and then the real want, of descriptors and, in a network of our own, of ports. Each shortage gives one clear
 * error, costs no probe and no descriptor, and is survived: an idle connection or the next upstream is used, and afterwards all is as before.
 */
#include "message.h"
#include "network.h"
#include "plain.h"
#include "suite.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_int socket_errno, bind_errno, calls;

int socket(int domain, int type, int protocol)
{
    int err = atomic_load(&socket_errno);
    if (err != 0) {
        atomic_fetch_add(&calls, 1);
        errno = err;
        return -1;
    }
    int (*next)(int, int, int);
    *(void **)&next = dlsym(RTLD_NEXT, "socket");
    return next(domain, type, protocol);
}

int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t len)
{
    int err = atomic_load(&bind_errno);
    if (err != 0) {
        atomic_fetch_add(&calls, 1);
        errno = err;
        return -1;
    }
    int (*next)(int, __CONST_SOCKADDR_ARG, socklen_t);
    *(void **)&next = dlsym(RTLD_NEXT, "bind");
    return next(fd, address, len);
}

static const struct shortage {
    atomic_int *call;
    int sys_errno;
    const char *options;
} shortages[] = {
    {&socket_errno, EMFILE, ""},
    {&socket_errno, ENFILE, ""},
    {&socket_errno, ENOBUFS, ""},
    {&socket_errno, ENOMEM, ""},
    {&bind_errno, EADDRINUSE, "source_address 127.0.0.1"},
    {&bind_errno, EADDRNOTAVAIL, "source_address 127.0.0.1"},
};
enum { ROWS = sizeof(shortages) / sizeof(*shortages) };

static void begin(const struct shortage *row)
{
    atomic_store(&calls, 0);
    atomic_store(row->call, row->sys_errno);
}

/* Nothing else can be used: one error per attempt, no more calls than attempts, and no probe is kicked. */
START_TEST(is_a_clear_error)
{
    const struct shortage *row = &shortages[_i / MODE_COUNT];
    struct host *host =
        host_open(_i % MODE_COUNT, "forward . %s {\n force_tcp\n max_connect_attempts 2\n %s\n}", upstream_addr(up), row->options);
    begin(row);
    const struct outcome *outcome = host_ask(host, "shortage.test");
    atomic_store(row->call, 0);
    ck_assert_int_eq(outcome->error, FWD_ERR_EXHAUSTED);
    ck_assert_msg(strstr(outcome->detail, upstream_addr(up)) != NULL, "%s", outcome->detail);
    int called = atomic_load(&calls);
    ck_assert(called == 1 || called == 2); /* after "cannot assign" the second attempt does not ask again so soon */
    ck_assert_uint_eq(host->proxies->fails(host->proxies->at(host->instance, 0)), 0);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_TCP).active, 0);
    if (row->sys_errno == EADDRNOTAVAIL) {
        host_work(host, 50); /* the kernel is not asked for a port again for 10 ms: it would look through all of them */
    }
    ck_assert(outcome_good(host_ask(host, "after.test"), "after.test"));
    host_close(host);
}
END_TEST

/* A connection that is idle serves although no new one can be had. */
START_TEST(idle_connection_is_used)
{
    const struct shortage *row = &shortages[_i / MODE_COUNT];
    struct host *host = host_open(_i % MODE_COUNT, "forward . %s {\n force_tcp\n %s\n}", upstream_addr(up), row->options);
    ck_assert(outcome_good(host_ask(host, "warm.test"), "warm.test"));
    host_wait_idle(host, 0, FWD_PROTO_TCP, 1);
    begin(row);
    ck_assert(outcome_good(host_ask(host, "idle.test"), "idle.test"));
    atomic_store(row->call, 0);
    ck_assert_uint_eq(upstream_counts(up).opened, 1);
    host_close(host);
}
END_TEST

/* --- no descriptors, no ports ------------------------------------------------------------------------------------- */

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

START_TEST(no_descriptor_is_a_clear_error)
{
    struct host *host = host_open(_i, "forward . %s {\n force_tcp\n max_connect_attempts 3\n}", upstream_addr(up));
    starve();
    const struct outcome *outcome = host_ask(host, "emfile.test");
    check_error(outcome, FWD_ERR_EXHAUSTED, "too many open files");
    ck_assert_uint_eq(host_tcp_info(host, "open"), 0);
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
    ck_assert_uint_ge(host_tcp_info(host, "shortages"), 2);
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
    Suite *suite = suite_create("shortage");
    TCase *tcase = tcase_create("shortage");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, is_a_clear_error, 0, ROWS * MODE_COUNT);
    tcase_add_loop_test(tcase, idle_connection_is_used, 0, ROWS * MODE_COUNT);
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
