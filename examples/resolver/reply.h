/* The reply to a client: one of our own, or the upstream's answer made to fit the client (cases 92
 * and 94).
 *
 * Threads: none of its own. Ownership: out is the caller's. Standards: RFC 1035 4.1, RFC 2181 9,
 * RFC 6891.
 */
#pragma once

#include "message.h"

#include <stddef.h>

/** Room that a reply of our own may need: the question, and the client's OPT with the options that
 * are echoed. */
enum { REPLY_MAX = 1024 };

/** A reply without records to a query that parsed, with the client's OPT mirrored. @return octets
 * in out */
uint32_t reply_rcode(const struct message *query, unsigned rcode, uint8_t out[REPLY_MAX]);

/** FORMERR or NOTIMP to a message that was rejected by its header, or whose body does not decode
 * (then with as much of the question as did). @return octets in out */
uint32_t reply_reject(const uint8_t *wire, const struct message *parsed, unsigned rcode,
                      uint8_t out[REPLY_MAX]);

/** Makes an upstream's answer fit the client: OPT as the client may have it, cut with TC when it is
 * larger than limit.
 *  @param out room for len + REPLY_MAX octets
 *  @return octets of the reply, which is in out, or in wire itself when *ret_copied is false:
 * nothing had to change */
uint32_t reply_answer(const struct message *query, const uint8_t *wire, uint32_t len,
                      uint32_t limit, uint8_t *out, bool *ret_copied);
