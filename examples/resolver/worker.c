/* A worker thread.
 *
 * Happy path: epoll says which socket has something; up to BATCH datagrams are read with one
 * recvmmsg, judged, and handed to the module in one serve per server block. Answers come in
 * answer_done when the worker turns the module's loop. Failure modes: what the module does not take is answered at
 * once; a worker that cannot watch a socket logs it and goes on.
 */
#include "worker.h"

#include "answer.h"
#include "clock.h"
#include "intake.h"
#include "log.h"
#include "service.h"
#include "tally.h"
#include "tcp_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { DATAGRAM_MAX = 4096, EVENTS = 64, INSTANCE_NEAR = 384 };

/* Datagrams of one recvmmsg. */
struct inbox {
    struct mmsghdr messages[BATCH];
    struct iovec data[BATCH];
    struct client clients[BATCH];
    struct address_control controls[BATCH];
    bool wildcard; /* how the messages are armed: with controls or without */
    uint8_t octets[BATCH][DATAGRAM_MAX];
};

/* Ends what the module did not take. */
static void verdicts_handle(struct worker *worker, int status, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        const struct fwd_query *query = &worker->queries[i];
        struct pending *pending = (struct pending *)(uintptr_t)query->token;
        if (status >= 0 && query->verdict == FWD_VERDICT_ACCEPTED) {
            continue; /* pending may be gone already */
        }
        struct ending ending = {.rcode = RCODE_SERVFAIL, .now_ns = clock_ns()};
        if (status < 0) {
            ending.error = worker->service->module->entry->strerror(status);
        } else if (query->verdict == FWD_VERDICT_NEXT) {
            ending.error = "plugin/forward: no next plugin found";
        } else if (query->verdict == FWD_VERDICT_RCODE) {
            ending.rcode = query->rcode;
            ending.error = query->detail;
        }
        answer_end(worker->outbox, pending, &ending);
    }
}

/* Hands the batch to the module, what follows each other for one server block at once. */
static void batch_serve(struct worker *worker)
{
    const struct fwd_forward *forward = worker->service->module->forward;
    uint32_t count = worker->batched;
    worker->batched = 0;
    for (uint32_t first = 0, end; first < count; first = end) {
        const struct server *server = worker->servers[first];
        for (end = first + 1; end < count && worker->servers[end] == server;) {
            end++;
        }
        int status = forward->serve(server->instance, &worker->queries[first], end - first);
        verdicts_handle(worker, status, first, end);
    }
}

/* One of very many instances is in no cache. The module keeps what a query looks at near its beginning. */
static void instance_fetch(const struct fwd_instance *instance)
{
    for (size_t at = 0; at < INSTANCE_NEAR; at += ZONE_LINE) {
        __builtin_prefetch((const char *)instance + at);
    }
}

static void batch_add(struct worker *worker, struct pending *pending)
{
    if (worker->batched == BATCH) {
        batch_serve(worker);
    }
    uint32_t i = worker->batched++;
    worker->servers[i] = pending->server;
    instance_fetch(pending->server->instance);
    worker->details[i][0] = '\0';
    worker->queries[i] = (struct fwd_query){
        .struct_size = sizeof(struct fwd_query),
        .flags = pending->conn != NULL ? FWD_QUERY_TCP : 0,
        .token = (uintptr_t)pending,
        .wire = pending->query.wire,
        .wire_len = pending->query.len,
        .client = address_to_abi(&pending->client.remote),
        .detail = worker->details[i],
        .detail_cap = DETAIL_MAX,
    };
}

static void reply_send(struct worker *worker, const struct port *port, const struct client *client,
                       struct tcp_conn *conn, const uint8_t *reply, uint32_t len)
{
    if (conn != NULL) {
        tcp_conn_end(conn, reply, len);
    } else if (len > 0) {
        outbox_queue(worker->outbox, port->fd, client, reply, len);
    }
}

/* CoreDNS counts what no server block takes under the zone "dropped". */
static void refusal_count(const struct worker *worker, const struct port *port,
                          const struct client *client, bool stream, const struct message *query,
                          uint32_t reply_len)
{
    if (port->site->dropped == NULL) {
        return;
    }
    const struct tally_event event = {
        .query = query,
        .stream = stream,
        .ipv6 = client->remote.any.sa_family == AF_INET6 &&
                !IN6_IS_ADDR_V4MAPPED(&client->remote.in6.sin6_addr),
        .rcode = RCODE_REFUSED,
        .replied = reply_len,
        .duration_ns = clock_ns() - worker->now_ns,
    };
    tally_count(port->site->dropped, &event);
}

/* A query for DS is served by the parent's side, but counted for the closest zone that the server
 * block has, as in CoreDNS. */
static struct tally *tally_choose(const struct site *site, const struct zone *zone,
                                  const struct message *query)
{
    if (zone->tally != NULL && query->qtype == TYPE_DS) {
        const struct zone *closest = zone_choose(&site->zones, query->wire + HEADER_LEN, false);
        return closest->server == zone->server ? closest->tally : zone->tally;
    }
    return zone->tally;
}

/* A chain of plugins without forward ends with whatever is the last of it. */
static const char *chain_error(const struct server *server)
{
    return server->taps != NULL                ? "plugin/dnstap: no next plugin found"
           : server->has_log                   ? "plugin/log: no next plugin found"
           : server->errors.there              ? "plugin/errors: no next plugin found"
           : server->endpoints.metrics != NULL ? "plugin/prometheus: no next plugin found"
                                               : "plugin/metadata: no next plugin found";
}

/** Takes a query in. */
void worker_query(struct worker *worker, const struct port *port, const struct client *client,
                  struct tcp_conn *conn, uint8_t *wire, uint32_t len)
{
    struct message query;
    const struct zone *zone = NULL;
    uint8_t *reply = outbox_room(worker->outbox, REPLY_MAX);
    uint32_t reply_len = 0;
    switch (intake_judge(port->site, wire, len, &query, &zone, reply, &reply_len)) {
    case INTAKE_REFUSE:
        refusal_count(worker, port, client, conn != NULL, &query, reply_len);
        reply_send(worker, port, client, conn, reply, reply_len);
        return;
    case INTAKE_SILENCE:
    case INTAKE_REPLY:
        reply_send(worker, port, client, conn, reply, reply_len);
        return;
    case INTAKE_SERVE:
        break;
    }
    struct pending *pending = pending_take(&worker->slab, &query);
    if (pending == NULL) {
        reply_len = reply_rcode(&query, RCODE_SERVFAIL, reply);
        reply_send(worker, port, client, conn, reply, reply_len);
        return;
    }
    const struct server *server = zone->server;
    pending->server = server;
    pending->tally = tally_choose(port->site, zone, &query);
    pending->conn = conn;
    pending->port = port;
    pending->client = *client;
    pending->start_ns = worker->now_ns;
    if (server->taps != NULL) {
        pending->wall_ns = tap_now();
        answer_tap_query(pending);
    }
    if (server->instance != NULL) {
        batch_add(worker, pending);
        return;
    }
    const struct ending ending = {
        .rcode = RCODE_SERVFAIL,
        .error = chain_error(server),
        .now_ns = clock_ns(),
    };
    answer_end(worker->outbox, pending, &ending);
}

/** Serves and sends what has gathered. */
void worker_flush(struct worker *worker)
{
    batch_serve(worker);
    outbox_flush(worker->outbox);
}

/* The address that a datagram was sent to, where the socket itself does not say it. */
static void local_read(struct msghdr *header, union address *local)
{
    local->any.sa_family = AF_UNSPEC;
    struct cmsghdr *control = CMSG_FIRSTHDR(header);
    if (control == NULL) {
        return;
    }
    if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
        struct in_pktinfo info;
        memcpy(&info, CMSG_DATA(control), sizeof(info));
        local->in = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = info.ipi_addr};
    } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
        struct in6_pktinfo info;
        memcpy(&info, CMSG_DATA(control), sizeof(info));
        local->in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = info.ipi6_addr};
        if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) {
            local->in6.sin6_scope_id = info.ipi6_ifindex;
        }
    }
}

/* Makes the first messages ready to be read into again. */
static void inbox_arm(struct inbox *inbox, unsigned count, bool wildcard)
{
    inbox->wildcard = wildcard;
    for (unsigned i = 0; i < count; i++) {
        inbox->data[i] = (struct iovec){inbox->octets[i], DATAGRAM_MAX};
        inbox->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &inbox->clients[i].remote,
            .msg_namelen = sizeof(inbox->clients[i].remote),
            .msg_iov = &inbox->data[i],
            .msg_iovlen = 1,
            .msg_control = wildcard ? &inbox->controls[i] : NULL,
            .msg_controllen = wildcard ? sizeof(inbox->controls[i]) : 0,
        };
    }
}

/* With very many zones the worker would wait for memory several times per query. */
static void zones_fetch(const struct zone_table *zones, const struct inbox *inbox, int count)
{
    struct namemap_hint hints[BATCH];
    if (count < 2 || !namemap_is_large(&zones->names)) {
        return;
    }
    for (int i = 0; i < count; i++) {
        uint32_t len = inbox->messages[i].msg_len;
        uint32_t header = len < HEADER_LEN ? len : HEADER_LEN;
        zone_hint(zones, inbox->octets[i] + header, len - header, &hints[i]);
    }
    zone_fetch(zones, hints, (uint32_t)count);
}

static void udp_read(struct worker *worker, const struct port *port)
{
    struct inbox *inbox = worker->inbox;
    bool wildcard = port->site->listener->wildcard;
    if (inbox->wildcard != wildcard) {
        inbox_arm(inbox, BATCH, wildcard);
    }
    int count = recvmmsg(port->fd, inbox->messages, BATCH, MSG_DONTWAIT, NULL);
    worker->now_ns = clock_ns();
    zones_fetch(&port->site->zones, inbox, count);
    for (int i = 0; i < count; i++) {
        local_read(&inbox->messages[i].msg_hdr, &inbox->clients[i].local);
        worker_query(worker, port, &inbox->clients[i], NULL, inbox->octets[i],
                     inbox->messages[i].msg_len);
    }
    if (count > 0) {
        inbox_arm(inbox, (unsigned)count, wildcard);
    }
    worker_flush(worker);
}

static void watch(struct worker *worker, int operation, struct port *port)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = port};
    if (epoll_ctl(worker->epoll_fd, operation, port->fd, &event) != 0) {
        log_print(FWD_LEVEL_ERROR, "cannot watch a listening socket: %s", strerror(errno));
    }
}

/* Has the module's loop wake this thread as the sockets do. */
static void module_watch(struct worker *worker, const struct epoch *epoch)
{
    const struct fwd_forward *forward = worker->service->module->forward;
    worker->instance = epoch_any_instance(epoch);
    int fd = worker->instance != NULL ? forward->poll_fd(worker->instance, worker->index) : -1;
    if (fd == worker->module_fd) {
        return;
    }
    if (worker->module_fd >= 0) { /* may be closed already */
        (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, worker->module_fd, NULL);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &worker->module};
    if (fd >= 0 && epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        log_print(FWD_LEVEL_ERROR, "cannot watch the module: %s", strerror(errno));
    }
    worker->module_fd = fd;
}

static void epoch_adopt(struct worker *worker, const struct epoch *epoch)
{
    size_t count;
    struct port *ports = epoch_ports(epoch, worker->index, &count);
    for (size_t i = 0; i < count; i++) {
        watch(worker, ports[i].adopted ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, &ports[i]);
    }
    if (worker->epoch != NULL) {
        ports = epoch_ports(worker->epoch, worker->index, &count);
        for (size_t i = 0; i < count; i++) {
            if (ports[i].successor == NULL) {
                watch(worker, EPOLL_CTL_DEL, &ports[i]);
            }
        }
        tcp_server_succeed(worker);
    }
    module_watch(worker, epoch);
    worker->epoch = epoch;
    service_acknowledge(worker->service);
}

/** Puts a connection into the worker's mail, once. */
void worker_mail(struct worker *worker, struct tcp_conn *conn)
{
    if (atomic_exchange(&conn->mailed, true)) {
        return;
    }
    tcp_conn_ref(conn);
    struct tcp_conn *head = atomic_load(&worker->mail);
    do {
        conn->mail_next = head;
    } while (!atomic_compare_exchange_weak(&worker->mail, &head, conn));
    if (head == NULL) {
        worker_wake(worker);
    }
}

/** Wakes. */
void worker_wake(struct worker *worker)
{
    (void)eventfd_write(worker->wake_fd, 1);
}

static void mail_read(struct worker *worker)
{
    eventfd_t value;
    (void)eventfd_read(worker->wake_fd, &value);
    worker->now_ns = clock_ns();
    struct tcp_conn *conn = atomic_exchange(&worker->mail, NULL);
    while (conn != NULL) {
        struct tcp_conn *next = conn->mail_next;
        atomic_store(&conn->mailed, false);
        tcp_server_handle(worker, conn, 0);
        tcp_conn_unref(conn);
        conn = next;
    }
}

static void event_handle(struct worker *worker, const struct epoll_event *event)
{
    struct source *source = event->data.ptr;
    switch (source->kind) {
    case SOURCE_WAKE:
        mail_read(worker);
        break;
    case SOURCE_MODULE:
        if (worker->instance != NULL) {
            (void)worker->service->module->forward->run(worker->instance, worker->index);
        }
        break;
    case SOURCE_UDP:
        udp_read(worker, (struct port *)source);
        break;
    case SOURCE_TCP_LISTEN:
        tcp_server_accept(worker, (struct port *)source);
        break;
    case SOURCE_TCP_CONN:
        worker->now_ns = clock_ns();
        tcp_server_handle(worker, (struct tcp_conn *)source, event->events);
        break;
    }
}

static void *worker_run(void *arg)
{
    struct worker *worker = arg;
    uint64_t tick_ns = 0;
    answer_lend_outbox(worker->outbox);
    while (!atomic_load(&worker->service->stopping)) {
        struct epoch *epoch = atomic_load(&worker->service->epoch);
        if (epoch != worker->epoch) {
            epoch_adopt(worker, epoch);
        }
        struct epoll_event events[EVENTS];
        bool ticks = worker->tcp.count > 0 || worker->tcp.accept_paused;
        int count = epoll_wait(worker->epoll_fd, events, EVENTS, ticks ? 1000 : -1);
        for (int i = 0; i < count; i++) {
            event_handle(worker, &events[i]);
        }
        uint64_t now = ticks ? clock_ns() : 0;
        if (ticks && now >= tick_ns) {
            tick_ns = now + SECOND_NS;
            tcp_server_tick(worker, now);
        }
        tcp_server_bury(worker);
    }
    answer_lend_outbox(NULL);
    return NULL;
}

/** Makes a worker. */
bool worker_init(struct worker *worker, struct service *service, unsigned index)
{
    *worker = (struct worker){.service = service, .index = index, .wake.kind = SOURCE_WAKE,
                              .module.kind = SOURCE_MODULE, .module_fd = -1};
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    worker->outbox = outbox_create(index);
    worker->inbox = calloc(1, sizeof(struct inbox));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &worker->wake};
    if (!tcp_server_init(worker) || worker->epoll_fd < 0 || worker->wake_fd < 0 ||
        worker->outbox == NULL || worker->inbox == NULL) {
        return false;
    }
    inbox_arm(worker->inbox, BATCH, false);
    return epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, worker->wake_fd, &event) == 0;
}

/** Starts the thread. */
bool worker_start(struct worker *worker)
{
    worker->running = pthread_create(&worker->thread, NULL, worker_run, worker) == 0;
    if (worker->running) {
        char name[16];
        (void)snprintf(name, sizeof(name), "worker-%u", worker->index);
        (void)pthread_setname_np(worker->thread, name);
    }
    return worker->running;
}

/** Waits for the thread's end. */
void worker_join(struct worker *worker)
{
    if (worker->running) {
        (void)pthread_join(worker->thread, NULL);
        worker->running = false;
    }
}

/** Frees a worker whose thread has ended. */
void worker_fini(struct worker *worker)
{
    struct tcp_conn *conn = atomic_exchange(&worker->mail, NULL);
    while (conn != NULL) {
        struct tcp_conn *next = conn->mail_next;
        tcp_conn_unref(conn);
        conn = next;
    }
    tcp_server_fini(worker);
    outbox_destroy(worker->outbox);
    free(worker->inbox);
    pending_slab_fini(&worker->slab);
    if (worker->epoll_fd >= 0) {
        (void)close(worker->epoll_fd);
    }
    if (worker->wake_fd >= 0) {
        (void)close(worker->wake_fd);
    }
}
