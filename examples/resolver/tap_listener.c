/* Accepting dnstap readers.
 *
 * Happy path: accept, TLS if it is to be, fstrm's handshake, and the reader waits for the sender to
 * take it. Failure modes: a reader that does not come to terms within TAP_PATIENCE_S a step is a
 * warning, and gone; so is what accept refuses, after a pause.
 */
#include "tap_listener.h"

#include "log.h"
#include "tap_port.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPT_PAUSE_MS = 100 };

struct tap_listener {
    const struct tap_config *config;
    struct tap_port *port;
    SSL_CTX *tls;
    pthread_t thread;
    int stop_fd;
    _Atomic(struct tap_reader *) ready; /* newest first */
    pthread_mutex_t mutex;
    /* guarded by mutex */
    struct tap_reader *greeted; /* NULL, or who is shaking hands */
    bool stopping;
};

/** Ends it. */
void tap_reader_destroy(struct tap_reader *reader)
{
    if (reader->writer != NULL) {
        (void)fstrm_writer_destroy(&reader->writer); /* closes what it has opened */
    }
    int fd = atomic_exchange(&reader->socket.fd, -1);
    if (fd >= 0) {
        (void)close(fd);
    }
    free(reader);
}

static struct tap_reader *reader_create(const struct tap_listener *listener, int fd)
{
    struct tap_reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL) {
        (void)close(fd);
        return NULL;
    }
    reader->socket.config = listener->config;
    reader->socket.tls_ctx = listener->tls;
    atomic_init(&reader->socket.fd, fd);
    reader->writer = tap_socket_writer(&reader->socket);
    return reader;
}

/* From here on stop can break it, or has come before. */
static bool greeting_begin(struct tap_listener *listener, struct tap_reader *reader)
{
    (void)pthread_mutex_lock(&listener->mutex);
    bool stopping = listener->stopping;
    listener->greeted = reader;
    (void)pthread_mutex_unlock(&listener->mutex);
    return !stopping;
}

static void greeting_end(struct tap_listener *listener)
{
    (void)pthread_mutex_lock(&listener->mutex);
    listener->greeted = NULL;
    (void)pthread_mutex_unlock(&listener->mutex);
}

static void reader_add(struct tap_listener *listener, struct tap_reader *reader)
{
    reader->next = atomic_load(&listener->ready);
    while (!atomic_compare_exchange_weak(&listener->ready, &reader->next, reader)) {
    }
}

static void reader_greet(struct tap_listener *listener, int fd)
{
    struct tap_reader *reader = reader_create(listener, fd);
    if (reader == NULL) {
        return;
    }
    bool ok = greeting_begin(listener, reader) && reader->writer != NULL &&
              fstrm_writer_open(reader->writer) == fstrm_res_success;
    greeting_end(listener);
    if (ok) {
        reader_add(listener, reader);
        return;
    }
    log_print(FWD_LEVEL_WARNING, "plugin/dnstap: Error creating encoder for dnstap client: %s",
              reader->socket.why);
    tap_reader_destroy(reader);
}

static void *listener_run(void *arg)
{
    struct tap_listener *listener = arg;
    struct pollfd fds[] = {
        {.fd = tap_port_fd(listener->port), .events = POLLIN},
        {.fd = listener->stop_fd, .events = POLLIN},
    };
    for (;;) {
        (void)poll(fds, 2, -1);
        if (fds[1].revents != 0) {
            return NULL;
        }
        int fd = accept4(fds[0].fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            reader_greet(listener, fd);
        } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            log_print(FWD_LEVEL_WARNING, "plugin/dnstap: Error accepting dnstap connection: %s",
                      strerror(errno));
            (void)poll(&fds[1], 1, ACCEPT_PAUSE_MS);
        }
    }
}

static void listener_free(struct tap_listener *listener)
{
    tap_port_drop(listener->port);
    SSL_CTX_free(listener->tls);
    if (listener->stop_fd >= 0) {
        (void)close(listener->stop_fd);
    }
    (void)pthread_mutex_destroy(&listener->mutex);
    free(listener);
}

/* What the thread needs. */
static bool listener_open(struct tap_listener *listener, uint64_t generation,
                          struct failure *failure)
{
    const struct tap_config *config = listener->config;
    if (config->transport == TAP_TLS) {
        listener->tls = tap_tls_listen(config, failure);
        if (listener->tls == NULL) {
            return false;
        }
    }
    listener->port = tap_port_take(config, generation, failure);
    if (listener->port == NULL) {
        return false;
    }
    listener->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return (listener->stop_fd >= 0 &&
            pthread_create(&listener->thread, NULL, listener_run, listener) == 0) ||
           failure_set(failure, "cannot start a thread");
}

/** Starts. */
struct tap_listener *tap_listener_start(const struct tap_config *config, uint64_t generation,
                                        struct failure *failure)
{
    struct tap_listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL) {
        (void)failure_set(failure, "out of memory");
        return NULL;
    }
    listener->config = config;
    listener->stop_fd = -1;
    (void)pthread_mutex_init(&listener->mutex, NULL);
    if (!listener_open(listener, generation, failure)) {
        listener_free(listener);
        return NULL;
    }
    return listener;
}

/** Takes who has come. */
struct tap_reader *tap_listener_next(struct tap_listener *listener)
{
    return atomic_exchange(&listener->ready, NULL);
}

/** Stops. */
void tap_listener_stop(struct tap_listener *listener)
{
    (void)pthread_mutex_lock(&listener->mutex);
    listener->stopping = true;
    if (listener->greeted != NULL) {
        tap_socket_break(&listener->greeted->socket);
    }
    (void)pthread_mutex_unlock(&listener->mutex);
    (void)eventfd_write(listener->stop_fd, 1);
    (void)pthread_join(listener->thread, NULL);
}

/** Frees. */
void tap_listener_destroy(struct tap_listener *listener)
{
    for (struct tap_reader *reader = tap_listener_next(listener); reader != NULL;) {
        struct tap_reader *next = reader->next;
        tap_reader_destroy(reader);
        reader = next;
    }
    listener_free(listener);
}
