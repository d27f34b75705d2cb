/* Datagrams on their way to clients, gathered so that many leave with one system call, and the log
 * lines about them.
 *
 * Threads: one outbox per thread. Ownership: what is queued stays the caller's until the flush,
 * except what was built in outbox_room. Limits: OUTBOX_MESSAGES datagrams at a time.
 */
#pragma once

#include "pending.h"
#include "text.h"

enum { OUTBOX_MESSAGES = 64, OUTBOX_ROOM = 3 * 65536 };

struct outbox;

/** lane tells threads apart that may send from the same address: each takes a socket of its own. */
struct outbox *outbox_create(unsigned lane);
unsigned outbox_lane(const struct outbox *outbox);

/** Flushes and frees; NULL is allowed. */
void outbox_destroy(struct outbox *outbox);

/** Room for a reply of at most need octets, valid until the flush. May flush what is queued. */
uint8_t *outbox_room(struct outbox *outbox, uint32_t need);

/** Queues a datagram. Octets that lie in outbox_room are kept there. */
void outbox_queue(struct outbox *outbox, int fd, const struct client *client, const uint8_t *data,
                  uint32_t len);

/** Log lines to be written at the flush. */
struct text *outbox_lines(struct outbox *outbox);

/** Sends and logs everything. */
void outbox_flush(struct outbox *outbox);
