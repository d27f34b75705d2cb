/* Formats with labels, "{remote} {name} {/forward/upstream}", as CoreDNS's log and dnstap have
 * them.
 *
 * Threads: made by main, then read by all without a lock. Ownership: log_format_fini frees. Limits:
 * of metadata there are forward/upstream, log/type and log/class, in server blocks with the
 * metadata directive, as in CoreDNS; others print "-".
 */
#pragma once

#include "address.h"
#include "message.h"
#include "text.h"

struct log_node {
    const char *label; /**< one of the known labels, or NULL for literal text */
    char *literal;     /**< with the label of metadata its name */
};

struct log_format {
    struct log_node *nodes;
    size_t count;
};

/** What there is to say about a query. */
struct log_event {
    const struct message *query;
    const union address *client;
    const union address *local; /**< of family AF_UNSPEC when not known */
    bool stream;
    bool metadata;        /**< collected for this query */
    const char *upstream; /**< NULL when none was asked */
    unsigned rcode;
    const uint8_t *reply; /**< as the chain made it; NULL when there is none to speak of */
    uint32_t reply_len;
    uint64_t duration_ns;
};

/** False when out of memory. */
bool log_format_parse(struct log_format *format, const char *text);
void log_format_append(const struct log_format *format, const struct log_event *event,
                       struct text *line);
void log_format_fini(struct log_format *format);
