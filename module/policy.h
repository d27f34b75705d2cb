/* Policies: in which order the upstreams of a stanza are tried.
 *
 * Threads: any. Standards: CoreDNS cases 60-62.
 */
#pragma once

#include "config.h"
#include "services.h"

#include <stdatomic.h>

/** Writes the order of count (1..255) upstreams into order.
 *  @param turn the stanza's counter, used by round_robin
 *  @return 0, or an error of the random source */
int policy_order(enum config_policy policy, atomic_uint *turn, const struct services *services,
                 uint32_t count, uint8_t *order);
