/* A scripted upstream.
 *
 * Happy path: one thread waits in epoll for datagrams, connections and frames; handle_query writes
 * each query down, has the pick function choose its rule, and schedules what the rule says as
 * actions (a datagram, octets on a connection, a close) with their times; the loop performs actions
 * that are due.
 *
 * Failure modes: a system call that fails where a test cannot go on aborts with its name. A
 * connection may be closed by a control function while its event waits in the loop's batch: such a
 * connection is only marked, and freed by the loop.
 */
#include "upstream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000u
#define HELD UINT64_MAX /* due when others have come */

struct stream {
    struct stream *next;
    int fd; /* -1: closed, to be freed by the loop */
    unsigned number;
    uint16_t port;
    size_t have;
    uint8_t in[2 + MESSAGE_MAX];
};

struct action {
    struct action *next;
    uint64_t due_ns;
    struct sockaddr_storage to; /* where a datagram goes */
    socklen_t to_size;
    unsigned stream;       /* the connection's number, 0 for a datagram */
    enum ending ending;    /* what follows the octets */
    size_t len;
    uint8_t data[];
};

struct upstream {
    pthread_t thread;
    int epoll_fd, wake_fd, udp_fd, listen_fd;
    struct sockaddr_storage self;
    char addr[64];

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* guarded by mutex */
    bool stopping;
    struct upstream_rule rule;
    upstream_pick_fn *pick;
    void *pick_arg;
    struct stream *streams;
    struct action *actions; /* by due_ns */
    unsigned held;          /* queries whose answers are */
    enum ending kill_how;
    uint64_t kill_interval_ns, kill_due_ns;
    struct upstream_seen *seen;
    unsigned seen_cap;
    struct upstream_counts counts;
    uint8_t port_used[65536 / 8];
};

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint16_t port_of(const struct sockaddr_storage *address)
{
    /* it stands in one place in both kinds */
    return ntohs(((const struct sockaddr_in *)address)->sin_port);
}

static struct sockaddr_storage address_of(const char *ip, uint16_t port)
{
    struct sockaddr_storage address = {.ss_family = AF_INET};
    struct sockaddr_in *in = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
    in->sin_port = htons(port);
    if (inet_pton(AF_INET, ip, &in->sin_addr) != 1) {
        address.ss_family = AF_INET6;
        (void)inet_pton(AF_INET6, ip, &in6->sin6_addr);
    }
    return address;
}

/** Stops the test when a system call fails on which it rests. */
static void require(bool holds, const char *what)
{
    if (!holds) {
        perror(what);
        abort();
    }
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);
    require(memory != NULL, "calloc");
    return memory;
}

/* --- actions --------------------------------------------------------------------------------- */

/** Schedules octets and what follows them. */
static void schedule(struct upstream *up, const struct action *like, uint64_t due_ns,
                     const uint8_t *data, size_t len, enum ending ending)
{
    struct action *action = allocate(sizeof(*action) + len);
    action->due_ns = due_ns;
    action->to = like->to;
    action->to_size = like->to_size;
    action->stream = like->stream;
    action->ending = ending;
    action->len = len;
    if (len > 0) {
        memcpy(action->data, data, len);
    }
    struct action **at = &up->actions;
    while (*at != NULL && (*at)->due_ns <= due_ns) {
        at = &(*at)->next;
    }
    action->next = *at;
    *at = action;
}

/** What is held is due before all else. */
static void release_held(struct upstream *up)
{
    struct action **at = &up->actions;
    while (*at != NULL && (*at)->due_ns != HELD) {
        at = &(*at)->next;
    }
    struct action *held = *at;
    *at = NULL;
    for (at = &held; *at != NULL; at = &(*at)->next) {
        (*at)->due_ns = 0;
    }
    *at = up->actions;
    up->actions = held;
    up->held = 0;
}

/** Closes a connection; the loop frees it. */
static void stream_close(struct upstream *up, struct stream *stream, enum ending how)
{
    if (stream->fd < 0) {
        return;
    }
    if (how == END_RST) {
        struct linger linger = {.l_onoff = 1};
        setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    }
    close(stream->fd);
    stream->fd = -1;
    up->counts.open--;
    pthread_cond_broadcast(&up->changed);
}

static void close_all(struct upstream *up, enum ending how)
{
    for (struct stream *stream = up->streams; stream != NULL; stream = stream->next) {
        stream_close(up, stream, how);
    }
}

static void perform(struct upstream *up, const struct action *action)
{
    if (action->stream == 0) {
        (void)sendto(up->udp_fd, action->data, action->len, MSG_DONTWAIT,
                     (const struct sockaddr *)&action->to, action->to_size);
        return;
    }
    struct stream *stream = up->streams;
    while (stream != NULL && stream->number != action->stream) {
        stream = stream->next;
    }
    if (stream == NULL || stream->fd < 0) {
        return;
    }
    ssize_t sent = action->len == 0
                       ? 0
                       : send(stream->fd, action->data, action->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent != (ssize_t)action->len) {
        stream_close(up, stream, END_RST);
    } else if (action->ending != END_NONE) {
        stream_close(up, stream, action->ending);
    }
}

/** Performs what is due. @return milliseconds until the next thing is, -1 when there is none */
static int perform_due(struct upstream *up)
{
    uint64_t now = now_ns();
    while (up->actions != NULL && up->actions->due_ns <= now) {
        struct action *action = up->actions;
        up->actions = action->next;
        perform(up, action);
        free(action);
    }
    if (up->kill_interval_ns > 0 && up->kill_due_ns <= now) {
        close_all(up, up->kill_how);
        up->kill_due_ns = now + up->kill_interval_ns;
    }
    uint64_t next = up->kill_interval_ns > 0 ? up->kill_due_ns : UINT64_MAX;
    if (up->actions != NULL && up->actions->due_ns < next) {
        next = up->actions->due_ns;
    }
    return next == UINT64_MAX ? -1 : (int)((next - now + NS_PER_MS - 1) / NS_PER_MS);
}

/* --- queries --------------------------------------------------------------------------------- */

/** Schedules one message over UDP, or over TCP as a frame, cut as the rule says. */
static void schedule_message(struct upstream *up, const struct action *like, uint64_t due_ns,
                             const uint8_t *message, size_t len, const struct upstream_rule *rule)
{
    if (like->stream == 0) {
        schedule(up, like, due_ns, message, len, END_NONE);
        return;
    }
    uint8_t *frame = allocate(2 + len);
    frame[0] = (uint8_t)(len >> 8);
    frame[1] = (uint8_t)len;
    memcpy(frame + 2, message, len);
    size_t end = rule->stop_at > 0 && rule->stop_at < len + 2 ? rule->stop_at : len + 2;
    size_t chunk = rule->chunk > 0 ? rule->chunk : end;
    for (size_t at = 0; at < end; at += chunk) {
        size_t part = end - at < chunk ? end - at : chunk;
        schedule(up, like, due_ns, frame + at, part, at + part == end ? rule->after : END_NONE);
        due_ns += (uint64_t)rule->chunk_ms * NS_PER_MS;
    }
    free(frame);
}

/** Schedules all that the rule says. */
static void react(struct upstream *up, const struct action *like, const struct upstream_seen *query,
                  const struct upstream_rule *rule)
{
    static const struct upstream_rule plain;
    uint8_t *message = allocate(MESSAGE_MAX);
    uint64_t now = now_ns();
    if (like->stream != 0 && rule->instead != END_NONE) {
        schedule(up, like, now + (uint64_t)rule->delay_ms * NS_PER_MS, NULL, 0, rule->instead);
        goto out;
    }
    for (unsigned i = 0; i < rule->bad_count; i++) {
        size_t len = message_bad(message, MESSAGE_MAX, query->wire, query->wire_len, rule->bad);
        if (rule->bad == BAD_WRONG_ID) {
            message_set_id(message, (uint16_t)(query->id + 1 + i));
        } else if (rule->bad == BAD_BARE_ERROR && rule->rcode != 0) {
            message[3] = (uint8_t)((message[3] & 0xf0) | rule->rcode);
        }
        schedule_message(up, like, now, message, len, &plain);
    }
    if (!rule->drop && message_question_end(query->wire, query->wire_len) > 0) {
        bool cut = rule->tc && !query->tcp;
        size_t len = message_answer(message, MESSAGE_MAX, query->wire, query->wire_len, rule->rcode,
                                    cut ? 0 : rule->pad);
        if (rule->addresses != NULL && !cut) {
            len = message_addresses(message, MESSAGE_MAX, query->wire, query->wire_len, rule->rcode,
                                    rule->addresses, rule->ttl);
        }
        if (cut) {
            len = message_question_end(query->wire, query->wire_len);
            message[2] |= 0x02;
            memset(message + 6, 0, 6);
        }
        uint64_t due_ns = rule->hold > 1 ? HELD : now + (uint64_t)rule->delay_ms * NS_PER_MS;
        schedule_message(up, like, due_ns, message, len, rule);
    }
out:
    free(message);
}

/** Writes a query down and has it answered. */
static void handle_query(struct upstream *up, const struct action *like, uint16_t port,
                         const uint8_t *wire, size_t len)
{
    if (up->counts.queries == up->seen_cap) {
        up->seen_cap = up->seen_cap == 0 ? 64 : up->seen_cap * 2;
        up->seen = realloc(up->seen, up->seen_cap * sizeof(*up->seen));
        require(up->seen != NULL, "realloc");
    }
    struct upstream_seen *query = &up->seen[up->counts.queries++];
    *query = (struct upstream_seen){.at_ns = now_ns(),
                                    .number = up->counts.queries,
                                    .conn = like->stream,
                                    .tcp = like->stream != 0,
                                    .port = port,
                                    .id = len >= 2 ? message_id(wire) : 0,
                                    .wire = allocate(len + 1),
                                    .wire_len = len};
    memcpy(query->wire, wire, len);
    query->type = message_question(wire, len, query->name, sizeof(query->name));
    if (query->tcp) {
        up->counts.tcp++;
    } else {
        up->counts.udp++;
        uint8_t bit = (uint8_t)(1u << (port % 8));
        up->counts.ports += (up->port_used[port / 8] & bit) == 0;
        up->port_used[port / 8] |= bit;
    }
    struct upstream_rule rule = up->rule;
    if (up->pick != NULL) {
        up->pick(up->pick_arg, query, &rule);
    }
    react(up, like, query, &rule);
    if (rule.hold > 1 && ++up->held >= rule.hold) {
        release_held(up);
    }
    pthread_cond_broadcast(&up->changed);
}

static void read_udp(struct upstream *up)
{
    static _Thread_local uint8_t wire[MESSAGE_MAX];
    struct action like = {0};
    like.to_size = sizeof(like.to);
    ssize_t len = recvfrom(up->udp_fd, wire, sizeof(wire), MSG_DONTWAIT,
                           (struct sockaddr *)&like.to, &like.to_size);
    /* An answer is not for us: our port was another test's source port a moment ago. */
    if (len >= 0 && !(len > 2 && (wire[2] & 0x80) != 0)) {
        handle_query(up, &like, port_of(&like.to), wire, (size_t)len);
    }
}

static void watch(struct upstream *up, int fd, void *what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    require(epoll_ctl(up->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

/** Takes the connection that waits. @return false when none does */
static bool accept_stream(struct upstream *up)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);
    int fd = accept4(up->listen_fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    struct stream *stream = allocate(sizeof(*stream));
    stream->fd = fd;
    stream->number = ++up->counts.opened;
    stream->port = port_of(&peer);
    stream->next = up->streams;
    up->streams = stream;
    up->counts.open++;
    watch(up, fd, stream);
    pthread_cond_broadcast(&up->changed);
    return true;
}

static void read_stream(struct upstream *up, struct stream *stream)
{
    if (stream->fd < 0) {
        return;
    }
    ssize_t got = recv(stream->fd, stream->in + stream->have, sizeof(stream->in) - stream->have, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) {
            stream_close(up, stream, END_FIN);
        }
        return;
    }
    stream->have += (size_t)got;
    size_t at = 0;
    while (stream->have - at >= 2) {
        size_t len = message_id(stream->in + at);
        if (stream->have - at < 2 + len) {
            break;
        }
        struct action like = {.stream = stream->number};
        handle_query(up, &like, stream->port, stream->in + at + 2, len);
        at += 2 + len;
    }
    memmove(stream->in, stream->in + at, stream->have - at);
    stream->have -= at;
}

/* --- the loop -------------------------------------------------------------------------------- */

static void free_closed(struct upstream *up)
{
    struct stream **at = &up->streams;
    while (*at != NULL) {
        struct stream *stream = *at;
        if (stream->fd >= 0) {
            at = &stream->next;
            continue;
        }
        *at = stream->next;
        free(stream);
    }
}

static void *run(void *arg)
{
    struct upstream *up = arg;
    struct epoll_event events[64];
    pthread_mutex_lock(&up->mutex);
    while (!up->stopping) {
        free_closed(up);
        int timeout = perform_due(up);
        pthread_mutex_unlock(&up->mutex);
        int count = epoll_wait(up->epoll_fd, events, 64, timeout);
        pthread_mutex_lock(&up->mutex);
        for (int i = 0; i < count; i++) {
            void *what = events[i].data.ptr;
            uint64_t ignored;
            if (what == &up->wake_fd) {
                (void)!read(up->wake_fd, &ignored, sizeof(ignored));
            } else if (what == &up->udp_fd) {
                read_udp(up);
            } else if (what == &up->listen_fd) {
                (void)accept_stream(up);
            } else {
                read_stream(up, what);
            }
        }
    }
    pthread_mutex_unlock(&up->mutex);
    return NULL;
}

static void wake(struct upstream *up)
{
    uint64_t one = 1;
    (void)!write(up->wake_fd, &one, sizeof(one));
}

/** Binds both sockets to an address. @return false when one of them is taken */
static bool bind_to(struct upstream *up, const struct sockaddr_storage *self)
{
    const int on = 1;
    socklen_t size = sizeof(*self);
    up->udp_fd = socket(self->ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    up->listen_fd = socket(self->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    require(up->udp_fd >= 0 && up->listen_fd >= 0, "socket");
    setsockopt(up->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(up->udp_fd, (const struct sockaddr *)self, size) == 0 &&
        bind(up->listen_fd, (const struct sockaddr *)self, size) == 0) {
        up->self = *self;
        return true;
    }
    close(up->udp_fd);
    close(up->listen_fd);
    return false;
}

/** Binds both sockets to one port that is free for both. The port is bound by number, so that it
 * stays ours while not listening. */
static void bind_anywhere(struct upstream *up)
{
    for (int tries = 0; tries < 100; tries++) {
        struct sockaddr_storage self = address_of("127.0.0.1", 0);
        socklen_t size = sizeof(self);
        int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        require(bind(probe, (struct sockaddr *)&self, size) == 0, "bind");
        getsockname(probe, (struct sockaddr *)&self, &size);
        close(probe);
        if (bind_to(up, &self)) {
            return;
        }
    }
    require(false, "no port is free over UDP and TCP");
}

/** From bound sockets to a running upstream. */
static struct upstream *start(struct upstream *up, const char *ip)
{
    const int room = 1 << 22;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&up->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&up->mutex, NULL);
    snprintf(up->addr, sizeof(up->addr), strchr(ip, ':') != NULL ? "[%s]:%u" : "%s:%u", ip,
             port_of(&up->self));
    up->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    up->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    require(up->epoll_fd >= 0 && up->wake_fd >= 0, "epoll_create1");
    (void)setsockopt(up->udp_fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    require(listen(up->listen_fd, 1024) == 0, "listen");
    watch(up, up->wake_fd, &up->wake_fd);
    watch(up, up->udp_fd, &up->udp_fd);
    watch(up, up->listen_fd, &up->listen_fd);
    require(pthread_create(&up->thread, NULL, run, up) == 0, "pthread_create");
    return up;
}

struct upstream *upstream_create(void)
{
    struct upstream *up = allocate(sizeof(*up));
    bind_anywhere(up);
    return start(up, "127.0.0.1");
}

struct upstream *upstream_create_at(const char *ip, uint16_t port)
{
    struct upstream *up = allocate(sizeof(*up));
    struct sockaddr_storage self = address_of(ip, port);
    if (!bind_to(up, &self)) {
        free(up);
        return NULL;
    }
    return start(up, ip);
}

void upstream_destroy(struct upstream *up)
{
    if (up == NULL) {
        return;
    }
    pthread_mutex_lock(&up->mutex);
    up->stopping = true;
    pthread_mutex_unlock(&up->mutex);
    wake(up);
    pthread_join(up->thread, NULL);
    close_all(up, END_FIN);
    free_closed(up);
    while (up->actions != NULL) {
        struct action *action = up->actions;
        up->actions = action->next;
        free(action);
    }
    for (unsigned i = 0; i < up->counts.queries; i++) {
        free(up->seen[i].wire);
    }
    free(up->seen);
    close(up->udp_fd);
    close(up->listen_fd);
    close(up->wake_fd);
    close(up->epoll_fd);
    pthread_cond_destroy(&up->changed);
    pthread_mutex_destroy(&up->mutex);
    free(up);
}

/* --- control --------------------------------------------------------------------------------- */

const char *upstream_addr(const struct upstream *up)
{
    return up->addr;
}

uint16_t upstream_port(const struct upstream *up)
{
    return port_of(&up->self);
}

void upstream_set(struct upstream *up, const struct upstream_rule *rule)
{
    pthread_mutex_lock(&up->mutex);
    up->rule = *rule;
    pthread_mutex_unlock(&up->mutex);
}

void upstream_script(struct upstream *up, upstream_pick_fn *pick, void *arg)
{
    pthread_mutex_lock(&up->mutex);
    up->pick = pick;
    up->pick_arg = arg;
    pthread_mutex_unlock(&up->mutex);
}

static void refuse_tcp_locked(struct upstream *up)
{
    shutdown(up->listen_fd, SHUT_RDWR);
    epoll_ctl(up->epoll_fd, EPOLL_CTL_DEL, up->listen_fd, NULL);
    close_all(up, END_RST);
}

void upstream_refuse_tcp(struct upstream *up)
{
    pthread_mutex_lock(&up->mutex);
    refuse_tcp_locked(up);
    pthread_mutex_unlock(&up->mutex);
}

void upstream_down(struct upstream *up)
{
    /* A UDP socket that is connected elsewhere takes no datagram of ours: the kernel answers them
     * with port unreachable. */
    struct sockaddr_storage elsewhere = up->self;
    ((struct sockaddr_in *)&elsewhere)->sin_port = htons(9);
    pthread_mutex_lock(&up->mutex);
    refuse_tcp_locked(up);
    require(connect(up->udp_fd, (struct sockaddr *)&elsewhere, sizeof(elsewhere)) == 0, "connect");
    pthread_mutex_unlock(&up->mutex);
}

void upstream_up(struct upstream *up)
{
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    pthread_mutex_lock(&up->mutex);
    require(connect(up->udp_fd, &nobody, sizeof(nobody)) == 0, "connect");
    require(listen(up->listen_fd, 1024) == 0, "listen");
    epoll_ctl(up->epoll_fd, EPOLL_CTL_DEL, up->listen_fd, NULL);
    watch(up, up->listen_fd, &up->listen_fd);
    pthread_mutex_unlock(&up->mutex);
}

void upstream_kill(struct upstream *up, enum ending how)
{
    pthread_mutex_lock(&up->mutex);
    while (accept_stream(up)) {
    }
    close_all(up, how);
    pthread_mutex_unlock(&up->mutex);
}

void upstream_kill_every(struct upstream *up, enum ending how, unsigned interval_ms)
{
    pthread_mutex_lock(&up->mutex);
    up->kill_how = how;
    up->kill_interval_ns = (uint64_t)interval_ms * NS_PER_MS;
    up->kill_due_ns = now_ns() + up->kill_interval_ns;
    pthread_mutex_unlock(&up->mutex);
    wake(up);
}

struct upstream_counts upstream_counts(struct upstream *up)
{
    pthread_mutex_lock(&up->mutex);
    struct upstream_counts counts = up->counts;
    pthread_mutex_unlock(&up->mutex);
    return counts;
}

struct upstream_seen upstream_seen(struct upstream *up, unsigned index)
{
    pthread_mutex_lock(&up->mutex);
    require(index < up->counts.queries, "upstream_seen: no such query");
    struct upstream_seen seen = up->seen[index];
    pthread_mutex_unlock(&up->mutex);
    return seen;
}

/** Waits until *count is at least (or at most) bound. */
static bool wait_count(struct upstream *up, const unsigned *count, unsigned bound, bool at_least,
                       unsigned ms)
{
    uint64_t end = now_ns() + (uint64_t)ms * NS_PER_MS;
    struct timespec until = {.tv_sec = (time_t)(end / 1000000000u),
                             .tv_nsec = (long)(end % 1000000000u)};
    int error = 0;
    pthread_mutex_lock(&up->mutex);
    while ((at_least ? *count < bound : *count > bound) && error == 0) {
        error = pthread_cond_timedwait(&up->changed, &up->mutex, &until);
    }
    pthread_mutex_unlock(&up->mutex);
    return error == 0;
}

bool upstream_wait_seen(struct upstream *up, unsigned count, unsigned ms)
{
    return wait_count(up, &up->counts.queries, count, true, ms);
}

bool upstream_wait_open(struct upstream *up, unsigned open, unsigned ms)
{
    return wait_count(up, &up->counts.open, open, false, ms);
}
