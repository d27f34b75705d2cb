/* A fast responder: answers every query with one A record over UDP and pipelined TCP, at as little
 * CPU as can be had.
 *
 *   responder [-t THREADS] [-d DELAY_US] ADDRESS...
 *
 * Happy path: prints one line "ready ADDRESS:PORT ..." with a port of its own choice for each
 * address (the same over UDP and TCP), then answers. A line on stdin is answered with one line of
 * totals as JSON, since the start or the last such line; end of file ends it, so that it never
 * outlives the script that started it. Every thread has sockets of its own (SO_REUSEPORT). With a
 * delay, answers wait in a ring: all delays are equal, so the ring is in order.
 *
 * Failure modes: what is no query is ignored; a connection whose peer does not read its answers is
 * closed; a full ring drops.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, QUERY_MAX = 512, RECORD = 16, RING = 1 << 16, STREAM_IN = 8192, ADDRESSES = 16 };

enum kind { KIND_UDP, KIND_LISTEN, KIND_STREAM };

struct source {
    enum kind kind;
    int fd;
    unsigned users; /* of a stream: 1 while it is open, and 1 for every delayed answer */
    bool closed;
    size_t have;
    uint8_t in[]; /* of a stream */
};

struct delayed {
    uint64_t due_ns;
    struct source *source;
    struct sockaddr_in to;
    uint16_t len;
    uint8_t data[2 + QUERY_MAX + RECORD];
};

struct worker {
    pthread_t thread;
    int epoll_fd;
    struct delayed *ring;
    uint32_t head, tail;
    /* Counted by the worker, read by the main thread: relaxed atomics would cost nothing less. */
    uint64_t udp, tcp, opened;
    uint32_t ports[65536];
};

static uint64_t delay_ns;

static void require(bool holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void count(uint64_t *counter)
{
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

/** Turns the query in buf into its answer; what follows the question is cut off. @return its
 * length, 0 for what is no query */
static size_t answer(uint8_t *buf, size_t len)
{
    static const uint8_t record[RECORD] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1};
    static const uint8_t counts[8] = {0, 1, 0, 1, 0, 0, 0, 0};
    size_t at = 12;
    if (len < 17 || len > QUERY_MAX || (buf[2] & 0x80) != 0 || buf[5] != 1) {
        return 0;
    }
    while (at < len && buf[at] != 0) {
        at += 1u + buf[at];
    }
    if (at + 5 > len) {
        return 0;
    }
    at += 5;
    buf[2] |= 0x80;
    buf[3] = 0x80;
    memcpy(buf + 4, counts, sizeof(counts));
    memcpy(buf + at, record, sizeof(record));
    return at + sizeof(record);
}

/** Drops one use; the last one frees. An open stream has one use of its own. */
static void stream_release(struct source *stream)
{
    stream->users--;
    if (stream->users == 0) {
        free(stream);
    }
}

static void stream_close(struct source *stream)
{
    close(stream->fd);
    stream->closed = true;
    stream_release(stream);
}

/** Puts an answer into the ring. */
static void delay(struct worker *worker, struct source *source, const struct sockaddr_in *to,
                  const uint8_t *data, size_t len)
{
    if (worker->tail - worker->head == RING) {
        return;
    }
    struct delayed *delayed = &worker->ring[worker->tail++ % RING];
    delayed->due_ns = now_ns() + delay_ns;
    delayed->source = source;
    delayed->len = (uint16_t)len;
    memcpy(delayed->data, data, len);
    if (to != NULL) {
        delayed->to = *to;
    } else {
        source->users++;
    }
}

/** Sends what is due. @return milliseconds until the next is, -1 when there is none */
static int send_delayed(struct worker *worker)
{
    uint64_t now = worker->head == worker->tail ? 0 : now_ns();
    while (worker->head != worker->tail) {
        struct delayed *delayed = &worker->ring[worker->head % RING];
        if (delayed->due_ns > now) {
            return (int)((delayed->due_ns - now + 999999) / 1000000);
        }
        worker->head++;
        struct source *source = delayed->source;
        if (source->kind == KIND_UDP) {
            (void)sendto(source->fd, delayed->data, delayed->len, MSG_DONTWAIT,
                         (struct sockaddr *)&delayed->to, sizeof(delayed->to));
            continue;
        }
        bool failed = !source->closed && send(source->fd, delayed->data, delayed->len,
                                              MSG_DONTWAIT | MSG_NOSIGNAL) != delayed->len;
        stream_release(source);
        if (failed) {
            stream_close(source);
        }
    }
    return -1;
}

static void read_udp(struct worker *worker, struct source *source)
{
    static _Thread_local uint8_t data[BATCH][QUERY_MAX + RECORD];
    static _Thread_local struct sockaddr_in from[BATCH];
    struct mmsghdr in[BATCH], out[BATCH];
    struct iovec vectors[BATCH], replies[BATCH];
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){data[i], QUERY_MAX};
        in[i].msg_hdr = (struct msghdr){.msg_name = &from[i],
                                        .msg_namelen = sizeof(from[i]),
                                        .msg_iov = &vectors[i],
                                        .msg_iovlen = 1};
    }
    int got = recvmmsg(source->fd, in, BATCH, MSG_DONTWAIT, NULL);
    int ready = 0;
    for (int i = 0; i < got; i++) {
        size_t len = answer(data[i], in[i].msg_len);
        if (len == 0) {
            continue;
        }
        count(&worker->udp);
        worker->ports[ntohs(from[i].sin_port)]++;
        if (delay_ns > 0) {
            delay(worker, source, &from[i], data[i], len);
            continue;
        }
        replies[ready] = (struct iovec){data[i], len};
        out[ready] = (struct mmsghdr){.msg_hdr = {.msg_name = &from[i],
                                                  .msg_namelen = sizeof(from[i]),
                                                  .msg_iov = &replies[ready],
                                                  .msg_iovlen = 1}};
        ready++;
    }
    for (int sent = 0; sent < ready;) {
        int now_sent = sendmmsg(source->fd, out + sent, (unsigned)(ready - sent), 0);
        sent += now_sent > 0 ? now_sent : 1;
    }
}

static void watch(struct worker *worker, struct source *source)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};
    require(epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) == 0, "epoll_ctl");
}

static struct source *source_create(enum kind kind, int fd, size_t room)
{
    struct source *source = calloc(1, sizeof(*source) + room);
    require(source != NULL, "calloc");
    source->kind = kind;
    source->fd = fd;
    source->users = 1;
    return source;
}

static void accept_streams(struct worker *worker, const struct source *listener)
{
    int fd;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        count(&worker->opened);
        watch(worker, source_create(KIND_STREAM, fd, STREAM_IN));
    }
}

static void read_stream(struct worker *worker, struct source *stream)
{
    static _Thread_local uint8_t out[STREAM_IN * 2];
    ssize_t got = recv(stream->fd, stream->in + stream->have, STREAM_IN - stream->have, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) {
            stream_close(stream);
        }
        return;
    }
    stream->have += (size_t)got;
    size_t at = 0, filled = 0;
    while (stream->have - at >= 2) {
        size_t len = (size_t)stream->in[at] << 8 | stream->in[at + 1];
        if (stream->have - at < 2 + len) {
            break;
        }
        memcpy(out + filled + 2, stream->in + at + 2, len);
        at += 2 + len;
        size_t reply = answer(out + filled + 2, len);
        if (reply == 0) {
            continue;
        }
        count(&worker->tcp);
        out[filled] = (uint8_t)(reply >> 8);
        out[filled + 1] = (uint8_t)reply;
        if (delay_ns > 0) {
            delay(worker, stream, NULL, out + filled, 2 + reply);
        } else {
            filled += 2 + reply;
        }
    }
    stream->have -= at;
    memmove(stream->in, stream->in + at, stream->have);
    if (stream->have == STREAM_IN ||
        (filled > 0 &&
         send(stream->fd, out, filled, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)filled)) {
        stream_close(stream);
    }
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    struct epoll_event events[BATCH];
    for (;;) {
        int ready = epoll_wait(worker->epoll_fd, events, BATCH, send_delayed(worker));
        for (int i = 0; i < ready; i++) {
            struct source *source = events[i].data.ptr;
            if (source->kind == KIND_UDP) {
                read_udp(worker, source);
            } else if (source->kind == KIND_LISTEN) {
                accept_streams(worker, source);
            } else {
                read_stream(worker, source);
            }
        }
    }
    return NULL;
}

/** Binds a socket of one type. @return it, or -1 when the port is taken */
static int bind_socket(int type, const struct sockaddr_in *self)
{
    const int on = 1, room = 1 << 23;
    int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    require(fd >= 0, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (type == SOCK_DGRAM &&
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) != 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    }
    if (bind(fd, (const struct sockaddr *)self, sizeof(*self)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/** Opens one address in one worker; *self gets its port. */
static void open_address(struct worker *worker, struct sockaddr_in *self)
{
    int udp = -1, tcp = -1;
    for (int tries = 0; tries < 100 && tcp < 0; tries++) {
        struct sockaddr_in bound = *self;
        socklen_t size = sizeof(bound);
        udp = bind_socket(SOCK_DGRAM, &bound);
        require(udp >= 0, "bind");
        getsockname(udp, (struct sockaddr *)&bound, &size);
        tcp = bind_socket(SOCK_STREAM, &bound);
        if (tcp < 0) {
            close(udp);
        } else {
            *self = bound;
        }
    }
    require(tcp >= 0 && listen(tcp, 4096) == 0, "listen");
    watch(worker, source_create(KIND_UDP, udp, 0));
    watch(worker, source_create(KIND_LISTEN, tcp, 0));
}

struct totals {
    uint64_t udp, tcp, opened, ports[65536];
};

static void sum(const struct worker *workers, int threads, struct totals *totals)
{
    memset(totals, 0, sizeof(*totals));
    for (int i = 0; i < threads; i++) {
        totals->udp += __atomic_load_n(&workers[i].udp, __ATOMIC_RELAXED);
        totals->tcp += __atomic_load_n(&workers[i].tcp, __ATOMIC_RELAXED);
        totals->opened += __atomic_load_n(&workers[i].opened, __ATOMIC_RELAXED);
        for (int port = 0; port < 65536; port++) {
            totals->ports[port] += workers[i].ports[port];
        }
    }
}

/** Prints what came since the last time: queries, connections, and how well the source ports are
 * spread. */
static void report(const struct totals *now, const struct totals *before)
{
    uint64_t udp = now->udp - before->udp, distinct = 0;
    double bits = 0;
    for (int port = 0; port < 65536; port++) {
        uint64_t used = now->ports[port] - before->ports[port];
        distinct += used > 0;
        if (used > 0 && udp > 0) {
            double share = (double)used / (double)udp;
            bits -= share * log2(share);
        }
    }
    printf("{\"udp\":%llu,\"tcp\":%llu,\"opened\":%llu,\"ports\":%llu,\"port_bits\":%.2f}\n",
           (unsigned long long)udp, (unsigned long long)(now->tcp - before->tcp),
           (unsigned long long)(now->opened - before->opened), (unsigned long long)distinct, bits);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct totals now, before;
    struct sockaddr_in self[ADDRESSES];
    int threads = 1, option, addresses = 0;
    while ((option = getopt(argc, argv, "t:d:")) != -1) {
        if (option == 't') {
            threads = atoi(optarg);
        } else if (option == 'd') {
            delay_ns = strtoull(optarg, NULL, 10) * 1000;
        } else {
            threads = 0;
        }
    }
    for (; optind < argc && addresses < ADDRESSES; optind++, addresses++) {
        self[addresses] = (struct sockaddr_in){.sin_family = AF_INET};
        threads = inet_pton(AF_INET, argv[optind], &self[addresses].sin_addr) == 1 ? threads : 0;
    }
    if (threads < 1 || addresses == 0) {
        fprintf(stderr, "usage: responder [-t THREADS] [-d DELAY_US] ADDRESS...\n");
        return 1;
    }
    struct worker *workers = calloc((size_t)threads, sizeof(*workers));
    require(workers != NULL, "calloc");
    for (int i = 0; i < threads; i++) {
        workers[i].epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        workers[i].ring = delay_ns > 0 ? calloc(RING, sizeof(*workers[i].ring)) : NULL;
        for (int a = 0; a < addresses; a++) {
            open_address(&workers[i], &self[a]);
        }
    }
    for (int i = 0; i < threads; i++) {
        require(pthread_create(&workers[i].thread, NULL, run, &workers[i]) == 0, "pthread_create");
    }
    printf("ready");
    for (int a = 0; a < addresses; a++) {
        char text[INET_ADDRSTRLEN];
        printf(" %s:%u", inet_ntop(AF_INET, &self[a].sin_addr, text, sizeof(text)),
               ntohs(self[a].sin_port));
    }
    printf("\n");
    fflush(stdout);
    for (char line[64]; fgets(line, sizeof(line), stdin) != NULL;) {
        sum(workers, threads, &now);
        report(&now, &before);
        before = now;
    }
    return 0;
}
