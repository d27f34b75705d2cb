/* The pursuit of an exchange: from no place at all, or from one that it has got, until its message is sent.
 *
 * Threads: any. Ownership: the exchange is the caller's until it is on its way; a place that is given is taken over.
 */
#pragma once

#include "exchange.h"
#include "place.h"

/** Goes on until the exchange is in flight, waits, or has failed.
 *  @param flags EXCHANGE_*
 *  @param first a place that is there already, or NULL
 *  @param start_ns when it began; elapsed_ns of a failure counts from it
 *  @return as transport_exchange */
bool pursuit_run(struct transport *transport, struct exchange *x, uint32_t proto, uint32_t flags, const struct place *first, uint64_t start_ns,
                 struct outcome *ret_outcome);
