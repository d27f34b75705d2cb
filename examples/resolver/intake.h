/* The first look at a client's message: reject, refuse, or find the server block that serves it
 * (cases 91 to 93).
 *
 * Threads: any. Ownership: views only.
 */
#pragma once

#include "epoch.h"
#include "message.h"
#include "reply.h"

enum intake { INTAKE_SERVE, INTAKE_REPLY, INTAKE_REFUSE, INTAKE_SILENCE };

/** Judges a message, which may be edited in place.
 *  INTAKE_SERVE: *ret_query and *ret_zone are set. INTAKE_REPLY: reply holds *ret_len octets to
 * be sent back. INTAKE_REFUSE: so it does, and *ret_query is set: the query counts as dropped. */
enum intake intake_judge(const struct site *site, uint8_t *wire, uint32_t len,
                         struct message *ret_query, const struct zone **ret_zone,
                         uint8_t reply[REPLY_MAX], uint32_t *ret_len);
