/* The end of a query: build the reply, send it the way the client came, log it.
 *
 * Threads: a worker for what ended at once, the module's I/O threads for the rest, each with its
 * own outbox.
 */
#pragma once

#include "outbox.h"

#include <forward/abi.h>

struct ending {
    unsigned rcode;
    const uint8_t *wire; /**< the upstream's answer, or NULL: a reply of our own with rcode */
    uint32_t wire_len;
    const char *error;    /**< for the errors directive, or NULL */
    const char *upstream; /**< asked last, or NULL */
    uint64_t now_ns;
};

/** Replies and gives the record back. wire must stay valid until the outbox is flushed. */
void answer_end(struct outbox *outbox, struct pending *pending, const struct ending *ending);

/** The fwd.tap/1 service: messages to and from upstreams, for the dnstap of the server block whose
 * query they are about. */
extern const struct fwd_tap answer_tap_service;

/** Tells the taps of a query that came in. */
void answer_tap_query(const struct pending *pending);

/** Makes the calling thread's answers leave by an outbox that it has already; NULL takes it back
 * before the thread ends. */
void answer_lend_outbox(struct outbox *outbox);

/** A fwd_done_fn. */
void answer_done(void *arg, const struct fwd_completion *completions, uint32_t count);
