/* Ending queries.
 *
 * Happy path: a batch of completions comes in on an I/O thread; each becomes a datagram in the
 * thread's outbox or octets on its TCP connection; one flush at the end. Failure modes: no memory
 * for an outbox ends the batch without replies, and the clients ask again.
 */
#include "answer.h"

#include "clock.h"
#include "epoch.h"
#include "reply.h"
#include "tally.h"
#include "tcp_conn.h"

#include <pthread.h>

/* What is known of a query, whatever its end. */
static struct log_event event_of(const struct pending *pending)
{
    const union address *local = &pending->client.local;
    return (struct log_event){
        .query = &pending->query,
        .client = &pending->client.remote,
        .local = local->any.sa_family != AF_UNSPEC ? local : &pending->port->site->listener->bound,
        .stream = pending->conn != NULL,
        .metadata = scope_list_has(&pending->server->metadata, pending->query.wire + HEADER_LEN),
    };
}

/** Taps a query. */
void answer_tap_query(const struct pending *pending)
{
    const struct log_event event = event_of(pending);
    tap_client(pending->server->taps, &event, pending->wall_ns);
}

static void tap_reply(const struct pending *pending, const struct ending *ending,
                      const uint8_t *reply, uint32_t len)
{
    struct log_event event = event_of(pending);
    event.upstream = ending->upstream;
    event.rcode = ending->rcode;
    event.reply = reply;
    event.reply_len = len;
    tap_client(pending->server->taps, &event, pending->wall_ns);
}

/* The query is alive as long as attempts are made for it. */
static void service_tap(void *arg, const struct fwd_tap_event *tapped)
{
    const struct pending *pending = (const struct pending *)(uintptr_t)tapped->token;
    char upstream[ADDRESS_TEXT_MAX];
    union address remote;
    address_from_abi(&remote, &tapped->remote);
    address_print(&remote, false, upstream);
    struct log_event event = event_of(pending);
    event.upstream = upstream;
    tap_forwarder(pending->server->taps, &event, tapped);
}

const struct fwd_tap answer_tap_service = {.struct_size = sizeof(struct fwd_tap),
                                           .tap = service_tap};

/* CoreDNS's errors stands around its log, so its line comes second. */
static void log_ending(struct outbox *outbox, const struct pending *pending,
                       const struct ending *ending, const uint8_t *reply, uint32_t reply_len)
{
    const struct query_log *log = &pending->server->log;
    if (log->rule_count > 0) {
        struct log_event event = event_of(pending);
        event.upstream = ending->upstream;
        event.rcode = ending->rcode;
        event.reply = reply;
        event.reply_len = reply_len;
        event.duration_ns = ending->now_ns - pending->start_ns;
        query_log_answer(log, &event, outbox_lines(outbox));
    }
    if (ending->error != NULL) {
        error_log_write(&pending->server->errors, &pending->query, ending->rcode, ending->error,
                        ending->now_ns, outbox_lines(outbox));
    }
}

static void tally_ending(const struct pending *pending, const struct ending *ending)
{
    if (pending->tally == NULL) {
        return;
    }
    const struct tally_event event = {
        .query = &pending->query,
        .stream = pending->conn != NULL,
        .ipv6 = pending->client.remote.any.sa_family == AF_INET6 &&
                !IN6_IS_ADDR_V4MAPPED(&pending->client.remote.in6.sin6_addr),
        .forwarded = ending->wire != NULL,
        .rcode = ending->rcode,
        .replied = ending->wire_len,
        .duration_ns = ending->now_ns - pending->start_ns,
    };
    tally_count(pending->tally, &event);
}

/* The sockets of an address are alike to clients, so a thread sends all of a batch from one of
 * them, whichever worker's socket the queries came by. */
static int reply_socket(const struct outbox *outbox, const struct pending *pending)
{
    const struct listener *listener = pending->port->site->listener;
    return listener->udp[outbox_lane(outbox) % listener->workers];
}

/** Ends one query. */
void answer_end(struct outbox *outbox, struct pending *pending, const struct ending *ending)
{
    const struct message *query = &pending->query;
    const uint8_t *reply = ending->wire;
    uint32_t len;
    uint8_t *room = outbox_room(outbox, ending->wire_len + REPLY_MAX);
    if (ending->wire != NULL) {
        bool copied;
        uint32_t limit = message_reply_limit(query, pending->conn != NULL);
        len = reply_answer(query, ending->wire, ending->wire_len, limit, room, &copied);
        reply = copied ? room : reply;
        log_ending(outbox, pending, ending, ending->wire, ending->wire_len);
    } else {
        len = reply_rcode(query, ending->rcode, room);
        reply = room;
        log_ending(outbox, pending, ending, reply, query->question_end);
    }
    tally_ending(pending, ending);
    if (pending->server->taps != NULL) {
        tap_reply(pending, ending, reply, len);
    }
    if (pending->conn != NULL) {
        tcp_conn_end(pending->conn, reply, len);
    } else {
        outbox_queue(outbox, reply_socket(outbox, pending), &pending->client, reply, len);
    }
    pending_release(pending);
}

static pthread_key_t outbox_key;
static pthread_once_t outbox_once = PTHREAD_ONCE_INIT;
static atomic_uint outbox_count;

static void outbox_key_destroy(void *outbox)
{
    outbox_destroy(outbox);
}

static void outbox_key_create(void)
{
    (void)pthread_key_create(&outbox_key, outbox_key_destroy);
}

/** Lends an outbox. */
void answer_lend_outbox(struct outbox *outbox)
{
    (void)pthread_once(&outbox_once, outbox_key_create);
    (void)pthread_setspecific(outbox_key, outbox);
}

/* The calling thread's outbox. */
static struct outbox *outbox_mine(void)
{
    (void)pthread_once(&outbox_once, outbox_key_create);
    struct outbox *outbox = pthread_getspecific(outbox_key);
    if (outbox == NULL) {
        outbox = outbox_create(atomic_fetch_add(&outbox_count, 1));
        if (outbox != NULL && pthread_setspecific(outbox_key, outbox) != 0) {
            outbox_destroy(outbox);
            return NULL;
        }
    }
    return outbox;
}

/** Takes a batch from the module. */
void answer_done(void *arg, const struct fwd_completion *completions, uint32_t count)
{
    (void)arg;
    struct outbox *outbox = outbox_mine();
    uint64_t now = clock_ns();
    for (uint32_t i = 0; i < count; i++) {
        const struct fwd_completion *completion = &completions[i];
        struct pending *pending = (struct pending *)(uintptr_t)completion->token;
        if (outbox == NULL) {
            if (pending->conn != NULL) {
                tcp_conn_end(pending->conn, NULL, 0);
            }
            pending_release(pending);
            continue;
        }
        struct ending ending = {
            .rcode = completion->rcode, .upstream = completion->upstream, .now_ns = now};
        switch (completion->kind) {
        case FWD_KIND_ANSWER:
        case FWD_KIND_NEXT: /* nothing follows forward here: the answer that led to next stands */
            ending.wire = completion->wire;
            ending.wire_len = completion->wire_len;
            break;
        case FWD_KIND_RCODE:
            ending.error = completion->detail;
            break;
        default: /* cancelled by a stop whose time had passed, or of a kind to come */
            ending.rcode = RCODE_SERVFAIL;
            ending.error = completion->detail;
            break;
        }
        if (completion->kind == FWD_KIND_NEXT && completion->wire == NULL) {
            ending.rcode = RCODE_SERVFAIL;
            ending.error = "plugin/forward: no next plugin found";
        }
        answer_end(outbox, pending, &ending);
    }
    if (outbox != NULL) {
        outbox_flush(outbox);
    }
}
