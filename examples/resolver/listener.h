/* One listening address: a UDP and a TCP socket per worker, which share the address through
 * SO_REUSEPORT.
 *
 * Threads: opened and closed by main; the descriptors are then used by the workers and the module's
 * I/O threads. Ownership: reference-counted by the epochs that use it (main only), so a reload
 * keeps the sockets of an address that stays.
 */
#pragma once

#include "address.h"
#include "text.h"

#include <stdint.h>

struct listener {
    unsigned refs;
    union address wanted; /**< as configured; port 0 stays 0 here */
    union address bound;
    bool all;      /**< no bind directive: all addresses of both families */
    bool wildcard; /**< replies must say which address they leave from */
    unsigned workers;
    int *udp; /**< by worker */
    int *tcp;
};

/** The address of a host ("" for all) and a port. */
bool listener_resolve(const char *host, const char *port, union address *ret,
                      struct failure *failure);

/** The address of HOST:PORT, IPv4 before IPv6 as Go has it; without a host all addresses. */
bool listener_lookup(const char *wanted, union address *ret, bool *ret_all, struct failure *failure);

/** Opens the sockets. May bind is checked first without SO_REUSEPORT when alone is set, so that a
 * port which another process holds is an error even if that process would share it. */
struct listener *listener_open(const union address *address, bool all, unsigned workers, bool alone,
                               struct failure *failure);
/** A listening TCP socket of its own, for what is no DNS; -1 with the error in failure. */
int listener_stream(union address *address, bool all, struct failure *failure);
void listener_unref(struct listener *listener);
