/* What the kernel can refuse a new connection with: this program's own socket and bind stand before libc's, and fail on demand. The module, which
 * is loaded into it, calls them. Each shortage gives one clear error, costs no probe and no descriptor, and is survived: an idle connection or
 * the next upstream is used, and afterwards all is as before.
 */
#include "host.h"
#include "suite.h"
#include "upstream.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

static atomic_int socket_errno, bind_errno, calls;
static struct upstream *up;

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

static void setup(void)
{
    up = upstream_create();
}

static void teardown(void)
{
    upstream_destroy(up);
}

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
    begin(row);
    ck_assert(outcome_good(host_ask(host, "idle.test"), "idle.test"));
    atomic_store(row->call, 0);
    ck_assert_uint_eq(upstream_counts(up).opened, 1);
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
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
