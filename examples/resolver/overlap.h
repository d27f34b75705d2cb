/* The checks that CoreDNS makes across server blocks, after all directives.
 *
 * Threads: main only.
 */
#pragma once

#include "config.h"

/** Ports are ports, no zone is served twice on one address, nor both on an address and on all of
 * them. */
bool overlap_check(const struct config *config, struct failure *failure);
