/* Carrying frames.
 *
 * Happy path: every answering thread has a ring of its own; the sender empties them and writes
 * many frames at once. When all are empty it sleeps, and who fills one then wakes it.
 * Failure modes: while there is no connection frames are dropped, counted, and told every 10 s, at
 * which time a connection is tried again; a collector that does not read makes the rings full.
 */
#include "tap_sender.h"

#include "clock.h"
#include "lane.h"
#include "log.h"
#include "tap_socket.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { SENDER_BATCH = 64, SENDER_RETRY_S = 10 };

struct tap_sender {
    const struct tap_config *config;
    pthread_t thread;
    int wake_fd;
    atomic_bool asleep;
    atomic_bool stopping;
    _Atomic(struct ring *) rings[LANES]; /* each made by its lane's thread */
    _Atomic uint64_t dropped;
    struct tap_socket socket;

    /* the thread's own */
    struct fstrm_writer *writer; /* NULL: not connected */
    uint64_t told;               /* of what was dropped */
    uint64_t look_ns;            /* when to tell and to try again */
    unsigned failures;           /* of writing in a row */
};

static _Atomic uint64_t dropped_total;

static void drop(struct tap_sender *sender)
{
    atomic_fetch_add_explicit(&sender->dropped, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&dropped_total, 1, memory_order_relaxed);
}

/** All senders' drops. */
uint64_t sender_dropped(void)
{
    return atomic_load_explicit(&dropped_total, memory_order_relaxed);
}

static struct ring *ring_mine(struct tap_sender *sender)
{
    unsigned lane = lane_mine();
    if (lane == LANES) {
        return NULL;
    }
    struct ring *ring = atomic_load_explicit(&sender->rings[lane], memory_order_relaxed);
    if (ring == NULL) {
        ring = ring_create((size_t)sender->config->queues * TAP_QUEUE);
        atomic_store(&sender->rings[lane], ring);
    }
    return ring;
}

/** Takes a frame. */
void sender_put(struct tap_sender *sender, struct frame frame)
{
    struct ring *ring = ring_mine(sender);
    if (ring == NULL || !ring_push(ring, frame)) {
        free(frame.data);
        drop(sender);
        return;
    }
    /* Against the sender's setting asleep and then looking once more: one of the two sees it. */
    if (atomic_load(&sender->asleep) && atomic_exchange(&sender->asleep, false)) {
        (void)eventfd_write(sender->wake_fd, 1);
    }
}

static void disconnect(struct tap_sender *sender)
{
    if (sender->writer != NULL) {
        (void)fstrm_writer_destroy(&sender->writer); /* says good-bye if it was open */
        sender->writer = NULL;
    }
}

static bool connect_try(struct tap_sender *sender)
{
    sender->writer = tap_socket_writer(&sender->socket);
    if (sender->writer != NULL && fstrm_writer_open(sender->writer) == fstrm_res_success) {
        return true;
    }
    disconnect(sender);
    return false;
}

static void frames_write(struct tap_sender *sender, const struct iovec *frames, int count)
{
    if (sender->writer != NULL &&
        fstrm_writer_writev(sender->writer, frames, count) == fstrm_res_success) {
        sender->failures = 0;
        return;
    }
    for (int i = 0; i < count; i++) {
        drop(sender);
    }
    if (sender->writer != NULL) {
        disconnect(sender);
        if (sender->failures++ == 0 && !atomic_load(&sender->stopping)) {
            (void)connect_try(sender); /* at once, but once only */
        }
    }
}

/* Writes what the rings hold now; false when that was nothing. */
static bool rings_empty(struct tap_sender *sender)
{
    bool any = false;
    for (unsigned lane = 0; lane < LANES; lane++) {
        struct ring *ring = atomic_load_explicit(&sender->rings[lane], memory_order_acquire);
        struct iovec frames[SENDER_BATCH];
        int count = 0;
        struct frame frame;
        while (ring != NULL && count < SENDER_BATCH && ring_pop(ring, &frame)) {
            frames[count++] = (struct iovec){.iov_base = frame.data, .iov_len = frame.len};
        }
        if (count > 0) {
            frames_write(sender, frames, count);
            any = true;
        }
        for (int i = 0; i < count; i++) {
            free(frames[i].iov_base);
        }
    }
    return any;
}

/* Every 10 s: tells what was dropped, tries to connect again. */
static void look(struct tap_sender *sender)
{
    uint64_t now = clock_ns();
    if (now < sender->look_ns) {
        return;
    }
    sender->look_ns = now + SENDER_RETRY_S * (uint64_t)SECOND_NS;
    uint64_t dropped = atomic_load(&sender->dropped);
    if (dropped > sender->told) {
        log_print(FWD_LEVEL_WARNING, "plugin/dnstap: Dropped dnstap messages: %llu",
                  (unsigned long long)(dropped - sender->told));
        sender->told = dropped;
    }
    if (sender->writer == NULL) {
        (void)connect_try(sender);
    }
}

static void sleep_until_filled(struct tap_sender *sender)
{
    atomic_store(&sender->asleep, true);
    if (rings_empty(sender) || atomic_load(&sender->stopping)) {
        atomic_store(&sender->asleep, false);
        return;
    }
    /* Connected and with nothing to tell there is nothing to do until somebody wakes it. */
    bool waits = sender->writer == NULL || atomic_load(&sender->dropped) > sender->told;
    struct pollfd wake = {.fd = sender->wake_fd, .events = POLLIN};
    (void)poll(&wake, 1, waits ? SENDER_RETRY_S * 1000 : -1);
    eventfd_t value;
    (void)eventfd_read(sender->wake_fd, &value);
    atomic_store(&sender->asleep, false);
}

static void *sender_run(void *arg)
{
    struct tap_sender *sender = arg;
    if (!connect_try(sender)) {
        log_print(FWD_LEVEL_ERROR, "plugin/dnstap: No connection to dnstap endpoint: %s",
                  sender->socket.why);
    }
    sender->look_ns = clock_ns() + SENDER_RETRY_S * (uint64_t)SECOND_NS;
    while (!atomic_load(&sender->stopping)) {
        if (!rings_empty(sender)) {
            sleep_until_filled(sender);
        }
        look(sender);
    }
    while (sender->writer != NULL && rings_empty(sender)) {
    }
    disconnect(sender);
    return NULL;
}

static void sender_free(struct tap_sender *sender)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        ring_destroy(atomic_load(&sender->rings[lane]));
    }
    if (sender->wake_fd >= 0) {
        (void)close(sender->wake_fd);
    }
    free(sender);
}

/** Starts. */
struct tap_sender *sender_start(const struct tap_config *config)
{
    struct tap_sender *sender = calloc(1, sizeof(*sender));
    if (sender == NULL) {
        return NULL;
    }
    sender->config = config;
    sender->socket.config = config;
    atomic_init(&sender->socket.fd, -1);
    sender->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (sender->wake_fd < 0 || pthread_create(&sender->thread, NULL, sender_run, sender) != 0) {
        sender_free(sender);
        return NULL;
    }
    return sender;
}

/** Stops. */
void sender_stop(struct tap_sender *sender)
{
    if (sender == NULL) {
        return;
    }
    atomic_store(&sender->stopping, true);
    (void)eventfd_write(sender->wake_fd, 1);
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    if (pthread_timedjoin_np(sender->thread, NULL, &until) != 0) {
        tap_socket_break(&sender->socket);
        (void)pthread_join(sender->thread, NULL);
    }
    sender_free(sender);
}
