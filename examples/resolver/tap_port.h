/* Where a dnstap listener listens.
 *
 * Threads: main; the descriptor is then the listener's thread's. Ownership: counted by the
 * configurations that have it, so a reload keeps the socket of an endpoint that stays; the last one
 * closes it and removes a Unix socket's file.
 */
#pragma once

#include "tap_config.h"

struct tap_port;

/** Opens the endpoint, or takes over what an earlier generation of the configuration has open; one
 * that this generation has is an error. */
struct tap_port *tap_port_take(const struct tap_config *config, uint64_t generation,
                               struct failure *failure);
int tap_port_fd(const struct tap_port *port);
void tap_port_drop(struct tap_port *port);
