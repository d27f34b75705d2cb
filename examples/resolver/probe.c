/* Looking at /health.
 *
 * Happy path: connect, ask, read until the other side closes; the time goes into the histogram.
 * Failure modes: whatever fails, or takes more than 3 s, is counted and logged; more than 1 s is
 * logged.
 */
#include "probe.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

const double probe_times[PROBE_TIMES - 1] = {0.00025, 0.0025, 0.025, 0.25, 2.5};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed; /* on the monotonic clock */
static pthread_once_t once = PTHREAD_ONCE_INIT;
/* guarded by mutex */
static union address looked_at[PROBE_TARGETS];
static unsigned looked_at_count;
static struct probe_counts counts;
/* main's */
static pthread_t thread;
static bool running;

static void changed_create(void)
{
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

/* NULL, or what went wrong. */
static const char *target_ask(const union address *target)
{
    static const char request[] = "GET /health HTTP/1.1\r\nHost: localhost\r\n"
                                  "Connection: close\r\n\r\n";
    union address peer = *target;
    if (address_is_wildcard(&peer)) {
        if (peer.any.sa_family == AF_INET) {
            peer.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        } else {
            peer.in6.sin6_addr = in6addr_loopback;
        }
    }
    int fd = socket(peer.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = 3};
    const char *why = NULL;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0 ||
        connect(fd, &peer.any, address_len(&peer)) != 0 ||
        send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0) {
        why = strerror(errno);
    }
    char reply[512];
    ssize_t got = why == NULL ? recv(fd, reply, sizeof(reply), 0) : 0;
    if (why == NULL && got < 12) {
        why = got < 0 ? strerror(errno) : "no answer";
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return why;
}

static unsigned bucket_of(uint64_t ns)
{
    unsigned bucket = 0;
    for (uint64_t bound = 250000; bucket < PROBE_TIMES - 1 && ns > bound; bound *= 10) {
        bucket++;
    }
    return bucket;
}

static void target_probe(const union address *target)
{
    char text[ADDRESS_TEXT_MAX];
    address_print(target, false, text);
    uint64_t start = clock_ns();
    const char *why = target_ask(target);
    uint64_t elapsed = clock_ns() - start;
    if (why != NULL) {
        log_print(FWD_LEVEL_WARNING,
                  "plugin/health: Local health request to \"http://%s/health\" failed: %s", text,
                  why);
    } else if (elapsed > SECOND_NS) {
        log_print(FWD_LEVEL_WARNING,
                  "plugin/health: Local health request to \"http://%s/health\" took more than 1s: "
                  "%.3fs",
                  text, (double)elapsed / SECOND_NS);
    }
    (void)pthread_mutex_lock(&mutex);
    counts.times[bucket_of(elapsed)]++;
    counts.time_sum_ns += elapsed;
    counts.failures += why != NULL;
    (void)pthread_mutex_unlock(&mutex);
}

static void *probe_run(void *arg)
{
    (void)arg;
    uint64_t next = clock_ns() + SECOND_NS;
    (void)pthread_mutex_lock(&mutex);
    while (looked_at_count > 0) {
        const struct timespec until = {.tv_sec = (time_t)(next / SECOND_NS),
                                       .tv_nsec = (long)(next % SECOND_NS)};
        if (pthread_cond_timedwait(&changed, &mutex, &until) != ETIMEDOUT) {
            continue;
        }
        union address targets[PROBE_TARGETS];
        unsigned count = looked_at_count;
        memcpy(targets, looked_at, sizeof(targets));
        (void)pthread_mutex_unlock(&mutex);
        for (unsigned i = 0; i < count; i++) {
            target_probe(&targets[i]);
        }
        next = clock_ns() + SECOND_NS;
        (void)pthread_mutex_lock(&mutex);
    }
    (void)pthread_mutex_unlock(&mutex);
    return NULL;
}

/** Changes the targets. */
void probe_targets(const union address *targets, unsigned count)
{
    (void)pthread_once(&once, changed_create);
    (void)pthread_mutex_lock(&mutex);
    looked_at_count = count;
    memcpy(looked_at, targets, count * sizeof(*targets));
    (void)pthread_cond_signal(&changed);
    (void)pthread_mutex_unlock(&mutex);
    if (count > 0 && !running) {
        running = pthread_create(&thread, NULL, probe_run, NULL) == 0;
    } else if (count == 0 && running) {
        (void)pthread_join(thread, NULL);
        running = false;
    }
}

/** What was found so far. */
struct probe_counts probe_counts(void)
{
    (void)pthread_mutex_lock(&mutex);
    struct probe_counts now = counts;
    (void)pthread_mutex_unlock(&mutex);
    return now;
}
