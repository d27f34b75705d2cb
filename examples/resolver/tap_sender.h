/* The thread that carries frames from the answering threads to a dnstap collector, or to the readers
 * that have come to us.
 *
 * Threads: sender_put from any, without waiting; the rest by main. Ownership: frames are malloc'ed
 * and the sender's once taken. Limits: TAP_QUEUE messages per answering thread, times the
 * directive's multiple.
 */
#pragma once

#include "ring.h"
#include "tap_config.h"

struct tap_sender;

/** Starts the thread; NULL when it cannot be. A listener that cannot be opened is only logged, as in
 * CoreDNS. @param generation of the configuration, to tell a reload from two lines alike */
struct tap_sender *sender_start(const struct tap_config *config, uint64_t generation);

/** Ends it, with what is queued written if that takes no more than a second; NULL is allowed. */
void sender_stop(struct tap_sender *sender);

/** Takes a frame, or drops and counts it. */
void sender_put(struct tap_sender *sender, struct frame frame);

/** Dropped since the process began. */
uint64_t sender_dropped(void);
