/* Zones as CoreDNS reads them from server block keys, FROM and except: scheme, port, reverse CIDR
 * notation.
 *
 * Threads: any. Ownership: names live in the arena given.
 * Standards: CoreDNS 1.14.7 plugin/normalize.go, plugin/pkg/cidr, core/dnsserver/register.go
 * (corner case 14).
 */
#pragma once

#include "arena.h"
#include "gotext.h"

/** Most zones that one CIDR notation expands to: 2^7 for IPv4. */
#define ZONES_MAX 128

struct zone_list {
    const char *transport; /**< "dns", "tls", "quic", "grpc", "https3", "https", "unix" */
    char port[24];         /**< "" when there is none */
    size_t count;
    char *names[ZONES_MAX]; /**< lower case, with the final dot */
};

/** The scheme in front of text, "dns" when there is none; *ret_rest is what follows it. */
const char *transport_split(const char *text, const char **ret_rest);

/** Reads a key. @return 0, -1 with CoreDNS's text in reason, -2 when out of memory */
int zone_parse(struct arena *arena, const char *key, struct zone_list *ret,
               char reason[GOTEXT_REASON]);

/** As zone_parse, with the stricter check that CoreDNS makes of server block keys. */
int zone_parse_key(struct arena *arena, const char *key, struct zone_list *ret,
                   char reason[GOTEXT_REASON]);
