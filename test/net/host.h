/* A small host for the tests: loads the real forward.so, makes an instance from Corefile lines,
 * serves queries and keeps what became of each. It counts completions, so that a query that ends
 * twice, never, or from inside serve fails the test.
 *
 * Threads: host_send* from any thread; the waiting functions, host_open and host_close from one. In
 *   the other modes the waiting functions are the ones that call run.
 *
 * Ownership: outcomes belong to the host and live until host_close.
 */
#pragma once

#include <check.h>
#include <forward/abi.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Who runs the loop; behaviour tests are loop tests over the first two. With MODE_SHARED the host
 * turns SHARED_LOOPS loops, which all hosts of this mode share. */
enum mode { MODE_THREADS, MODE_HOST_DRIVEN, MODE_COUNT, MODE_SHARED = MODE_COUNT };
enum { SHARED_LOOPS = 2 };

/** Adds a test that runs once in each mode; _i is the mode. */
#define add_test(tcase, test) tcase_add_loop_test(tcase, test, 0, MODE_COUNT)

/** Lets the module work until something holds; fails the test when it does not within 5 s. */
#define work_until(host, condition)                                                                \
    do {                                                                                           \
        unsigned tries_ = 0;                                                                       \
        bool holds_;                                                                               \
        while (!(holds_ = (condition)) && tries_++ < 1000) {                                       \
            host_work(host, 5);                                                                    \
        }                                                                                          \
        ck_assert_msg(holds_, "%s does not hold within 5 s", #condition);                          \
    } while (0)

/** What became of one query. Read it only once it has ended. */
struct outcome {
    uint64_t token;
    uint64_t handle;
    uint32_t verdict;
    unsigned completions;
    bool ended;
    uint32_t kind; /**< 0 when serve ended it */
    uint32_t rcode;
    int32_t error;
    uint32_t proto;
    uint32_t attempts;
    uint64_t elapsed_ns;
    uint8_t *wire; /**< NULL when there is none */
    uint32_t wire_len;
    char detail[256];
    char upstream[64];
};

/** A service offered to the module; an array of them ends with a NULL id. */
struct service {
    const char *id;
    const void *table;
};

struct host {
    enum mode mode;
    const struct fwd_module *module;
    const struct fwd_forward *forward;
    const struct fwd_proxies *proxies;
    struct fwd_instance *instance;
    struct host_state *state;
};

/** A clock that stands still until it is told to move; clock_services offers it. */
struct fake_clock {
    struct fwd_clock table;
    _Atomic uint64_t now_ns;
};

void fake_clock_init(struct fake_clock *clock);
void fake_clock_advance(struct fake_clock *clock, uint64_t ms);

/** The module under test (environment FWD_MODULE); aborts the test when it cannot be loaded. */
const struct fwd_module *host_module(void);

/** Starts an instance of the forward lines given (printf style); fails the test on any error. */
struct host *host_open(enum mode mode, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
struct host *host_open_with(enum mode mode, const struct service *services, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Stops with this drain time, destroys, and fails the test unless every accepted query ended
 * exactly once. */
void host_close_drain(struct host *host, unsigned drain_ms);
void host_close(struct host *host);

/** Serves one question for an A record; ID and flags may be given. @return the query's token */
uint64_t host_send(struct host *host, const char *name);
uint64_t host_send_tcp(struct host *host, const char *name);
uint64_t host_send_wire(struct host *host, const uint8_t *wire, size_t len, uint32_t flags);
/** Serves count questions `prefixNUMBER.test` in one call of serve. @return the first token; the
 * others follow it */
uint64_t host_send_batch(struct host *host, const char *prefix, unsigned count);
/** One attempt on one upstream through fwd.proxy/1. */
uint64_t host_exchange(struct host *host, unsigned proxy, const char *name, uint32_t options);

/** What became of a query so far. */
const struct outcome *host_outcome(struct host *host, uint64_t token);
/** Waits for the end of a query and returns it; fails the test when it does not come within ms. */
const struct outcome *host_wait(struct host *host, uint64_t token, unsigned ms);
/** Waits until all queries sent so far have ended. */
void host_wait_all(struct host *host, unsigned ms);
/** Lets the module work for so long; for what has no event to wait for. */
void host_work(struct host *host, unsigned ms);

/** host_send and host_wait (10 s). */
const struct outcome *host_ask(struct host *host, const char *name);
const struct outcome *host_ask_tcp(struct host *host, const char *name);

/** True when the query ended with the good answer to its own question. */
bool outcome_good(const struct outcome *outcome, const char *name);

/** Queries that ended with a completion so far. */
unsigned host_completed(struct host *host);

/** Numbers of one upstream's pool. */
struct fwd_pool_stats host_pool(struct host *host, unsigned proxy, uint32_t proto);
/** Waits until a pool has this many idle connections (a completion may come before the return to
 * the pool). */
void host_wait_idle(struct host *host, unsigned proxy, uint32_t proto, unsigned idle);

/** Fails the test unless the text is in the outcome's detail, or unless it ended with this error as well. */
void check_detail(const struct outcome *outcome, const char *text);
void check_error(const struct outcome *outcome, int error, const char *text);

/** The number behind a key of info's first TCP pool. */
unsigned host_tcp_info(struct host *host, const char *key);

/** A counter of the metrics by the start of its line, such as
 * `coredns_proxy_conn_cache_hits_total{`: the sum over its series. */
double host_metric(struct host *host, const char *start);
/** The document of info; to be freed. */
char *host_info(struct host *host);

/** Entries of a directory: of /proc/self/fd or /proc/self/task, what this process has open or runs.
 */
unsigned count_entries(const char *path);
