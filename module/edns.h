/* EDNS options between us and an upstream: padding (RFC 7830, RFC 8467) and edns-tcp-keepalive (RFC 7828).
 *
 * Both belong to one hop: they are added to the copy of a query that leaves, and taken out of the answer to it, so that the client sees what it would
 * have seen without them. The query as the client sent it tells what is to be taken out; nothing else is remembered.
 *
 * Threads: any, no state. Standards: RFC 6891, RFC 7828, RFC 7830, RFC 8467 4.1.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/** What is added to the queries of one connection. All zero: nothing. */
struct edns {
    uint16_t block; /**< queries are padded to a multiple of so many octets; 0 not at all */
    bool keepalive; /**< the server is asked how long it keeps an idle connection */
};

enum { EDNS_MAX_BLOCK = 4096, EDNS_NO_TIMEOUT = -1 };

static inline bool edns_off(const struct edns *edns)
{
    return edns->block == 0 && !edns->keepalive;
}

/** Most octets that edns_add adds: an OPT record, two options, less than a block. */
static inline uint32_t edns_room(const struct edns *edns)
{
    return edns_off(edns) ? 0 : 11U + 4 + 4 + edns->block;
}

/** Adds the options to a query; one without OPT gets one. A query that is signed (TSIG, SIG(0)), or whose OPT is not the last thing in it, stays as it is.
 *  @param msg what wire_query_parse has taken, with edns_room octets more behind it
 *  @return its length now, 65,535 at most */
uint32_t edns_add(const struct edns *edns, uint8_t *msg, uint32_t len);

/** Takes out of an answer what is there because of edns_add: the OPT if the query had none, padding if the query had none, and keepalive. An RCODE for which
 *  the header has no room without OPT becomes SERVFAIL.
 *  @param query the query before edns_add
 *  @param msg the answer; has passed wire_answer_check
 *  @param[out] ret_timeout for how long the server keeps an idle connection, in units of 100 ms; EDNS_NO_TIMEOUT when it does not say
 *  @return false when it has two OPTs, or names of it lead into what is to be taken out: it is malformed then */
bool edns_remove(const struct edns *edns, const uint8_t *query, uint32_t query_len, uint8_t *msg, uint32_t *len, int32_t *ret_timeout);
