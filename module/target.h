/* The TO arguments of a stanza: addresses, files in resolv.conf form and host names, expanded to
 * upstreams.
 *
 * Threads: any. Ownership: everything lives in the arena given.
 * Standards: CoreDNS 1.14.7 plugin/forward/resolve.go and setup.go, plugin/pkg/parse/host.go
 * (corner cases 18-25).
 */
#pragma once

#include "arena.h"

#include <stdbool.h>
#include <stddef.h>

#define TARGET_REASON 2048 /**< octets of a reason buffer */

struct target {
    const char *addr; /**< HOST:PORT; host names are not looked up here */
    const char *transport;
    const char *tls_servername; /**< "" for none */
};

struct target_list {
    struct target *items; /**< to be freed; texts are the arena's */
    size_t count;
    size_t arguments; /**< TO arguments that are not empty files: what the limit of 15 is about
                         (case 17) */
};

/** Expands arguments; resolver tells whether the stanza names resolvers of its own, tls_servername
 * is the stanza's.
 *  @return 0, -1 with CoreDNS's text in reason, -2 when out of memory; *ret is to be freed in any
 * case */
int target_expand(struct arena *arena, const char *const *arguments, size_t count, bool resolver,
                  const char *tls_servername, struct target_list *ret, char reason[TARGET_REASON]);
