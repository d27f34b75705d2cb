/* dnstap.
 *
 * Happy path: a message becomes a protobuf frame, which goes to the sender of every dnstap line of
 * the server block. Failure modes: out of memory: that message is not tapped; a daemon built
 * without fstrm or protobuf-c refuses the directive.
 */
#include "tap.h"

#include <stdlib.h>
#include <time.h>

#ifdef HAVE_DNSTAP

#include "dnstap.pb-c.h"
#include "tap_sender.h"

#include <string.h>

struct tap {
    struct tap *next;
    struct tap_config config;
    struct tap_sender *sender;
};

/** Reads. */
bool tap_parse(const struct tokens *tokens, struct tap **ret, struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "dnstap", tokens);
    while (directive_next(&directive)) {
        struct tap *tap = calloc(1, sizeof(*tap));
        if (tap == NULL) {
            return failure_set(failure, "plugin/dnstap: out of memory");
        }
        *ret = tap;
        ret = &tap->next;
        if (!tap_config_read(&tap->config, &directive, failure)) {
            return false;
        }
    }
    return true;
}

/** Starts. */
bool tap_start(struct tap *list, uint64_t generation, struct failure *failure)
{
    for (struct tap *tap = list; tap != NULL; tap = tap->next) {
        tap->sender = sender_start(&tap->config, generation);
        if (tap->sender == NULL) {
            return failure_set(failure, "plugin/dnstap: cannot start a thread");
        }
    }
    return true;
}

/** Ends. */
void tap_fini(struct tap *list)
{
    while (list != NULL) {
        struct tap *tap = list;
        list = tap->next;
        sender_stop(tap->sender);
        tap_config_fini(&tap->config);
        free(tap);
    }
}

static ProtobufCBinaryData octets(const void *data, size_t len)
{
    return (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)data, .len = len};
}

/* Wraps a message as one line of the directive has it, and hands it over. */
static void message_put(struct tap *tap, Dnstap__Message *message, const struct log_event *event)
{
    Dnstap__Dnstap wrapped = DNSTAP__DNSTAP__INIT;
    wrapped.type = DNSTAP__DNSTAP__TYPE__MESSAGE;
    wrapped.message = message;
    wrapped.has_identity = true;
    wrapped.identity = octets(tap->config.identity, strlen(tap->config.identity));
    wrapped.has_version = true;
    wrapped.version = octets(tap->config.version, strlen(tap->config.version));
    struct text extra = {0};
    if (tap->config.has_extra) {
        log_format_append(&tap->config.extra, event, &extra);
        wrapped.has_extra = true;
        wrapped.extra = octets(extra.data, extra.len);
    }
    size_t len = dnstap__dnstap__get_packed_size(&wrapped);
    uint8_t *data = malloc(len);
    if (data != NULL) {
        (void)dnstap__dnstap__pack(&wrapped, data);
        sender_put(tap->sender, (struct frame){.data = data, .len = len});
    }
    text_fini(&extra);
}

/* To each line its own: with the messages themselves or without. */
static void message_put_all(struct tap *list, Dnstap__Message *message,
                            const struct log_event *event)
{
    bool query = message->has_query_message;
    bool response = message->has_response_message;
    for (struct tap *tap = list; tap != NULL; tap = tap->next) {
        message->has_query_message = query && tap->config.full;
        message->has_response_message = response && tap->config.full;
        message_put(tap, message, event);
    }
}

static void query_time_set(Dnstap__Message *message, uint64_t ns)
{
    message->has_query_time_sec = message->has_query_time_nsec = true;
    message->query_time_sec = ns / 1000000000;
    message->query_time_nsec = (uint32_t)(ns % 1000000000);
}

static void response_time_set(Dnstap__Message *message, uint64_t ns)
{
    message->has_response_time_sec = message->has_response_time_nsec = true;
    message->response_time_sec = ns / 1000000000;
    message->response_time_nsec = (uint32_t)(ns % 1000000000);
}

static void family_set(Dnstap__Message *message, const struct fwd_addr *address)
{
    message->has_socket_family = true;
    message->socket_family =
        address->family == 4 ? DNSTAP__SOCKET_FAMILY__INET : DNSTAP__SOCKET_FAMILY__INET6;
}

static void query_address_set(Dnstap__Message *message, const struct fwd_addr *address)
{
    if (address->family == 0) {
        return;
    }
    family_set(message, address);
    message->has_query_address = message->has_query_port = true;
    message->query_address = octets(address->ip, address->family == 4 ? 4 : 16);
    message->query_port = address->port;
}

static void response_address_set(Dnstap__Message *message, const struct fwd_addr *address)
{
    family_set(message, address);
    message->has_response_address = message->has_response_port = true;
    message->response_address = octets(address->ip, address->family == 4 ? 4 : 16);
    message->response_port = address->port;
}

/** A client's query or the reply to it. */
void tap_client(struct tap *list, const struct log_event *event, uint64_t query_time_ns)
{
    Dnstap__Message message = DNSTAP__MESSAGE__INIT;
    const struct fwd_addr client = address_to_abi(event->client);
    message.type = event->reply == NULL ? DNSTAP__MESSAGE__TYPE__CLIENT_QUERY
                                        : DNSTAP__MESSAGE__TYPE__CLIENT_RESPONSE;
    message.has_socket_protocol = true;
    message.socket_protocol =
        event->stream ? DNSTAP__SOCKET_PROTOCOL__TCP : DNSTAP__SOCKET_PROTOCOL__UDP;
    query_address_set(&message, &client);
    query_time_set(&message, query_time_ns);
    if (event->reply == NULL) {
        message.has_query_message = true;
        message.query_message = octets(event->query->wire, event->query->len);
    } else {
        response_time_set(&message, tap_now());
        message.has_response_message = true;
        message.response_message = octets(event->reply, event->reply_len);
    }
    struct log_event unanswered =
        *event; /* in extra, labels of the reply print "-" as in CoreDNS */
    unanswered.reply = NULL;
    message_put_all(list, &message, &unanswered);
}

static Dnstap__SocketProtocol protocol_of(uint32_t proto)
{
    switch (proto) {
    case FWD_PROTO_TCP:
        return DNSTAP__SOCKET_PROTOCOL__TCP;
    case FWD_PROTO_TLS:
        return DNSTAP__SOCKET_PROTOCOL__DOT;
    case FWD_PROTO_HTTPS:
        return DNSTAP__SOCKET_PROTOCOL__DOH;
    default:
        return DNSTAP__SOCKET_PROTOCOL__UDP;
    }
}

/** A message to or from an upstream. */
void tap_forwarder(struct tap *list, const struct log_event *event,
                   const struct fwd_tap_event *tapped)
{
    Dnstap__Message message = DNSTAP__MESSAGE__INIT;
    if (tapped->kind == FWD_TAP_FORWARDER_QUERY) {
        message.type = DNSTAP__MESSAGE__TYPE__FORWARDER_QUERY;
        message.has_query_message = true;
        message.query_message = octets(tapped->wire, tapped->wire_len);
    } else if (tapped->kind == FWD_TAP_FORWARDER_RESPONSE) {
        message.type = DNSTAP__MESSAGE__TYPE__FORWARDER_RESPONSE;
        message.has_response_message = true;
        message.response_message = octets(tapped->wire, tapped->wire_len);
        response_time_set(&message, tapped->response_time_ns);
    } else {
        return;
    }
    message.has_socket_protocol = true;
    message.socket_protocol = protocol_of(tapped->proto);
    query_address_set(&message, &tapped->local);
    response_address_set(&message, &tapped->remote);
    query_time_set(&message, tapped->query_time_ns);
    message_put_all(list, &message, event);
}

/** Counts. */
uint64_t tap_dropped(void)
{
    return sender_dropped();
}

#else

bool tap_parse(const struct tokens *tokens, struct tap **ret, struct failure *failure)
{
    return failure_set(failure,
                       "plugin/dnstap: fwd-resolver was built without libfstrm and protobuf-c");
}

bool tap_start(struct tap *list, uint64_t generation, struct failure *failure)
{
    return true;
}

void tap_fini(struct tap *list)
{
}

void tap_client(struct tap *list, const struct log_event *event, uint64_t query_time_ns)
{
}

void tap_forwarder(struct tap *list, const struct log_event *event,
                   const struct fwd_tap_event *tapped)
{
}

uint64_t tap_dropped(void)
{
    return 0;
}

#endif

/** The wall clock. */
uint64_t tap_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
