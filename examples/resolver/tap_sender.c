/* Carrying frames.
 *
 * Happy path: every answering thread has a ring of its own; the sender empties them and writes
 * many frames at once. When all are empty it sleeps, and who fills one then wakes it.
 * Failure modes: while there is no connection frames are dropped, counted, and told every 10 s, at
 * which time a connection is tried again; a collector that does not read makes the rings full. A
 * reader that came to us and takes nothing for TAP_PATIENCE_S is sent away; where there is none,
 * nothing is lost.
 */
#include "tap_sender.h"

#include "clock.h"
#include "lane.h"
#include "log.h"
#include "tap_listener.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { SENDER_BATCH = 64, SENDER_RETRY_S = 10, BREAK_EVERY_MS = 20 };

struct tap_sender {
    const struct tap_config *config;
    pthread_t thread;
    int wake_fd;
    atomic_bool asleep;
    atomic_bool stopping;
    _Atomic(struct ring *) rings[LANES]; /* each made by its lane's thread */
    _Atomic uint64_t dropped;
    struct tap_socket socket;
    struct tap_listener *listener; /* NULL: we go to the collector */
    pthread_mutex_t mutex;
    struct tap_socket *busy; /* what the thread may be waiting for; guarded by mutex */

    /* the thread's own */
    struct fstrm_writer *writer; /* NULL: not connected */
    struct tap_reader *readers;  /* who came to us */
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

/* Before a wait and, with NULL, after it: sender_stop can cut it short. */
static void busy_set(struct tap_sender *sender, struct tap_socket *socket)
{
    (void)pthread_mutex_lock(&sender->mutex);
    sender->busy = socket;
    (void)pthread_mutex_unlock(&sender->mutex);
}

/* Says good-bye if it was open. */
static void writer_end(struct tap_sender *sender, struct fstrm_writer **writer,
                       struct tap_socket *socket)
{
    if (*writer != NULL) {
        busy_set(sender, socket);
        (void)fstrm_writer_destroy(writer);
        busy_set(sender, NULL);
        *writer = NULL;
    }
}

static void disconnect(struct tap_sender *sender)
{
    writer_end(sender, &sender->writer, &sender->socket);
}

static bool connect_try(struct tap_sender *sender)
{
    busy_set(sender, &sender->socket);
    sender->writer = tap_socket_writer(&sender->socket);
    bool open = sender->writer != NULL && fstrm_writer_open(sender->writer) == fstrm_res_success;
    busy_set(sender, NULL);
    if (!open) {
        disconnect(sender);
    }
    return open;
}

static bool writer_write(struct tap_sender *sender, struct fstrm_writer *writer,
                         struct tap_socket *socket, const struct iovec *frames, int count)
{
    busy_set(sender, socket);
    bool written = fstrm_writer_writev(writer, frames, count) == fstrm_res_success;
    busy_set(sender, NULL);
    return written;
}

static void reader_end(struct tap_sender *sender, struct tap_reader **at)
{
    struct tap_reader *reader = *at;
    *at = reader->next;
    writer_end(sender, &reader->writer, &reader->socket);
    tap_reader_destroy(reader);
}

/* To all who have come. */
static void readers_write(struct tap_sender *sender, const struct iovec *frames, int count)
{
    struct tap_reader **at = &sender->readers;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = sender->listener != NULL ? tap_listener_next(sender->listener) : NULL;
    for (at = &sender->readers; *at != NULL;) {
        struct tap_reader *reader = *at;
        if (writer_write(sender, reader->writer, &reader->socket, frames, count)) {
            at = &reader->next;
        } else {
            reader_end(sender, at);
        }
    }
}

static void frames_write(struct tap_sender *sender, const struct iovec *frames, int count)
{
    if (sender->config->listen) {
        readers_write(sender, frames, count);
        return;
    }
    if (sender->writer != NULL &&
        writer_write(sender, sender->writer, &sender->socket, frames, count)) {
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
    if (sender->writer == NULL && !sender->config->listen) {
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
    bool lost = sender->writer == NULL && !sender->config->listen;
    bool waits = lost || atomic_load(&sender->dropped) > sender->told;
    struct pollfd wake = {.fd = sender->wake_fd, .events = POLLIN};
    (void)poll(&wake, 1, waits ? SENDER_RETRY_S * 1000 : -1);
    eventfd_t value;
    (void)eventfd_read(sender->wake_fd, &value);
    atomic_store(&sender->asleep, false);
}

static void *sender_run(void *arg)
{
    struct tap_sender *sender = arg;
    if (!sender->config->listen && !connect_try(sender)) {
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
    while ((sender->writer != NULL || sender->config->listen) && rings_empty(sender)) {
    }
    disconnect(sender);
    while (sender->readers != NULL) {
        reader_end(sender, &sender->readers);
    }
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
    if (sender->listener != NULL) {
        tap_listener_destroy(sender->listener);
    }
    (void)pthread_mutex_destroy(&sender->mutex);
    free(sender);
}

static void listen_try(struct tap_sender *sender, uint64_t generation)
{
    const struct tap_config *config = sender->config;
    struct failure failure;
    if (config->transport == TAP_TLS && config->cert == NULL) {
        log_print(FWD_LEVEL_WARNING, "plugin/dnstap: TLS listener requires cert and key files");
        return;
    }
    sender->listener = tap_listener_start(config, generation, &failure);
    if (sender->listener == NULL) {
        log_print(FWD_LEVEL_ERROR, "plugin/dnstap: Failed to start dnstap listener: %s",
                  failure.text);
    }
}

/** Starts. */
struct tap_sender *sender_start(const struct tap_config *config, uint64_t generation)
{
    struct tap_sender *sender = calloc(1, sizeof(*sender));
    if (sender == NULL) {
        return NULL;
    }
    sender->config = config;
    sender->socket.config = config;
    atomic_init(&sender->socket.fd, -1);
    (void)pthread_mutex_init(&sender->mutex, NULL);
    if (config->listen) {
        listen_try(sender, generation);
    }
    sender->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (sender->wake_fd < 0 || pthread_create(&sender->thread, NULL, sender_run, sender) != 0) {
        if (sender->listener != NULL) {
            tap_listener_stop(sender->listener);
        }
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
    if (sender->listener != NULL) {
        tap_listener_stop(sender->listener); /* first: who comes now is the next configuration's */
    }
    atomic_store(&sender->stopping, true);
    (void)eventfd_write(sender->wake_fd, 1);
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    while (pthread_timedjoin_np(sender->thread, NULL, &until) != 0) {
        (void)pthread_mutex_lock(&sender->mutex);
        if (sender->busy != NULL) {
            tap_socket_break(sender->busy);
        }
        (void)pthread_mutex_unlock(&sender->mutex);
        until.tv_nsec += BREAK_EVERY_MS * 1000000;
        until.tv_sec += until.tv_nsec / SECOND_NS;
        until.tv_nsec %= SECOND_NS;
    }
    sender_free(sender);
}
