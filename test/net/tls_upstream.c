/* A scripted upstream over TCP, TLS and HTTPS.
 *
 * Happy path: one thread waits for connections and octets (tls_link.c), and for replies that are
 * due (tls_reply.c). Failure modes: system calls on which a test rests abort.
 */
#include "tls_inside.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LINKS = 4096 };

uint64_t upstream_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void upstream_require(bool holds, const char *what)
{
    if (!holds) {
        perror(what);
        ERR_print_errors_fp(stderr);
        abort();
    }
}

void *upstream_allocate(size_t size)
{
    void *memory = calloc(1, size);
    upstream_require(memory != NULL, "calloc");
    return memory;
}

static void *work(void *arg)
{
    struct tls_upstream *up = arg;
    static _Thread_local struct pollfd fds[2 + MAX_LINKS];
    static _Thread_local struct link *links[MAX_LINKS];
    pthread_mutex_lock(&up->mutex);
    while (!up->stopping) {
        nfds_t count = 0;
        int timeout = reply_perform_due(up);
        link_sweep(up, false);
        fds[0] = (struct pollfd){.fd = up->wake_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = up->listen_fd, .events = POLLIN};
        for (struct link *link = up->links; link != NULL && count < MAX_LINKS; link = link->next) {
            links[count] = link;
            fds[2 + count++] = (struct pollfd){.fd = link->fd, .events = POLLIN};
        }
        pthread_mutex_unlock(&up->mutex);
        (void)poll(fds, 2 + count, timeout);
        pthread_mutex_lock(&up->mutex);
        if (fds[0].revents != 0) {
            eventfd_t value;
            (void)eventfd_read(up->wake_fd, &value);
        }
        for (nfds_t i = 0; i < count; i++) {
            if (fds[2 + i].revents != 0) {
                link_receive(links[i]);
            }
        }
        if (fds[1].revents != 0) {
            (void)link_accept(up);
        }
    }
    pthread_mutex_unlock(&up->mutex);
    return NULL;
}

/* --- from outside ----------------------------------------------------------------------------- */

/** Listens on a port of the kernel's choice. */
static void listen_somewhere(struct tls_upstream *up)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } self = {.v4 = {.sin_family = AF_INET,
                     .sin_addr.s_addr =
                         htonl(up->setup.any_address ? INADDR_ANY : INADDR_LOOPBACK)}};
    if (up->setup.ipv6) {
        self.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    }
    socklen_t size = up->setup.ipv6 ? sizeof(self.v6) : sizeof(self.v4);
    up->listen_fd = socket(self.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    upstream_require(up->listen_fd >= 0 && bind(up->listen_fd, &self.any, size) == 0 &&
                         listen(up->listen_fd, 1024) == 0 &&
                         getsockname(up->listen_fd, &self.any, &size) == 0,
                     "listen");
    up->port = ntohs(up->setup.ipv6 ? self.v6.sin6_port : self.v4.sin_port);
    (void)snprintf(up->addr, sizeof(up->addr), "%s:%u", up->setup.ipv6 ? "[::1]" : "127.0.0.1",
                   up->port);
}

struct tls_upstream *tls_upstream_create(const struct tls_setup *setup)
{
    struct tls_upstream *up = upstream_allocate(sizeof(*up));
    up->setup = *setup;
    up->ctx = setup->kind != KIND_TCP ? context_make(up) : NULL;
    pthread_mutex_init(&up->mutex, NULL);
    up->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    upstream_require(up->wake_fd >= 0, "eventfd");
    listen_somewhere(up);
    upstream_require(pthread_create(&up->thread, NULL, work, up) == 0, "pthread_create");
    return up;
}

static void wake(struct tls_upstream *up)
{
    (void)eventfd_write(up->wake_fd, 1);
}

void tls_upstream_destroy(struct tls_upstream *up)
{
    if (up == NULL) {
        return;
    }
    pthread_mutex_lock(&up->mutex);
    up->stopping = true;
    pthread_mutex_unlock(&up->mutex);
    wake(up);
    pthread_join(up->thread, NULL);
    link_sweep(up, true);
    while (up->replies != NULL) {
        struct reply *reply = up->replies;
        up->replies = reply->next;
        free(reply);
    }
    (void)close(up->listen_fd);
    (void)close(up->wake_fd);
    pthread_mutex_destroy(&up->mutex);
    SSL_CTX_free(up->ctx);
    free(up->seen);
    free(up);
}

const char *tls_upstream_addr(const struct tls_upstream *up)
{
    return up->addr;
}

unsigned tls_upstream_port(const struct tls_upstream *up)
{
    return up->port;
}

void tls_upstream_set(struct tls_upstream *up, const struct tls_rule *rule)
{
    pthread_mutex_lock(&up->mutex);
    up->rule = *rule;
    pthread_mutex_unlock(&up->mutex);
}

void tls_upstream_script(struct tls_upstream *up, tls_pick_fn *pick, void *arg)
{
    pthread_mutex_lock(&up->mutex);
    up->pick = pick;
    up->pick_arg = arg;
    pthread_mutex_unlock(&up->mutex);
}

void tls_upstream_show(struct tls_upstream *up, const struct certificate *certificate)
{
    pthread_mutex_lock(&up->mutex);
    context_use(up->ctx, certificate);
    pthread_mutex_unlock(&up->mutex);
}

void tls_upstream_kill(struct tls_upstream *up, enum ending how)
{
    pthread_mutex_lock(&up->mutex);
    up->kill_now = true;
    up->kill_how = how;
    pthread_mutex_unlock(&up->mutex);
    wake(up);
}

void tls_upstream_kill_every(struct tls_upstream *up, enum ending how, unsigned interval_ms)
{
    pthread_mutex_lock(&up->mutex);
    up->kill_how = how;
    up->kill_interval_ns = (uint64_t)interval_ms * NS_PER_MS;
    up->kill_due_ns = upstream_now_ns() + up->kill_interval_ns;
    pthread_mutex_unlock(&up->mutex);
    wake(up);
}

struct tls_counts tls_upstream_counts(struct tls_upstream *up)
{
    pthread_mutex_lock(&up->mutex);
    struct tls_counts counts = up->counts;
    pthread_mutex_unlock(&up->mutex);
    return counts;
}

struct tls_seen tls_upstream_seen(struct tls_upstream *up, unsigned index)
{
    pthread_mutex_lock(&up->mutex);
    upstream_require(index < up->counts.queries, "tls_upstream_seen");
    struct tls_seen seen = up->seen[index];
    pthread_mutex_unlock(&up->mutex);
    return seen;
}
