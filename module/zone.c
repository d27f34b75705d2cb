/* Zones in the Corefile.
 *
 * Happy path: strip scheme and port, then either one name or the reverse zones of a network.
 * Failure modes: CoreDNS's errors for what is no name; a CIDR notation that does not parse is a
 * name (`10.1.2.3/33`).
 */
#include "zone.h"

#include "hostport.h"
#include "name.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct network {
    uint8_t ip[16];
    unsigned octets; /* 4 or 16 */
    unsigned ones;   /* prefix length */
};

/** Scheme and rest. */
const char *transport_split(const char *text, const char **ret_rest)
{
    static const char *const schemes[] = {"tls", "dns", "quic", "grpc", "https3", "https", "unix"};

    for (size_t i = 0; i < sizeof(schemes) / sizeof(*schemes); i++) {
        size_t len = strlen(schemes[i]);

        if (strncmp(text, schemes[i], len) == 0 && strncmp(text + len, "://", 3) == 0) {
            *ret_rest = text + len + 3;
            return schemes[i];
        }
    }
    *ret_rest = text;
    return "dns";
}

/* net.ParseCIDR: ADDRESS/DIGITS. The address is masked. */
static bool network_parse(const char *text, struct network *ret)
{
    const char *slash = strchr(text, '/');
    struct fwd_addr addr;
    uint32_t ones;

    if (slash == NULL || !ip_parse(text, (size_t)(slash - text), &addr) ||
        gotext_uint32(slash + 1, &ones, NULL) != 0) {
        return false;
    }
    ret->octets = addr.family == 4 ? 4 : 16;
    if (addr.family == 4 && memchr(text, ':', (size_t)(slash - text)) != NULL) {
        ret->octets = 16; /* IPv4-mapped: an IPv6 network to Go, which refuses it further on */
    }
    if (ones > 8 * ret->octets) {
        return false;
    }
    ret->ones = ones;
    memset(ret->ip, 0, sizeof(ret->ip));
    for (unsigned bit = 0; bit < ones; bit++) {
        ret->ip[bit / 8] |= (uint8_t)(addr.ip[bit / 8] & (0x80u >> bit % 8));
    }
    return true;
}

/* The reverse zone of a network whose prefix ends at a label. */
static char *reverse_name(struct arena *arena, const struct network *network)
{
    char text[96];
    int at = 0;

    if (network->octets == 4) {
        for (unsigned i = network->ones / 8; i-- > 0;) {
            at += snprintf(text + at, sizeof(text) - (size_t)at, "%u.", network->ip[i]);
        }
        return arena_printf(arena, "%.*sin-addr.arpa.", at, text);
    }
    for (unsigned i = network->ones / 4; i-- > 0;) {
        unsigned nibble = i % 2 == 0 ? network->ip[i / 2] >> 4 : network->ip[i / 2] & 0xf;

        at += snprintf(text + at, sizeof(text) - (size_t)at, "%x.", nibble);
    }
    return arena_printf(arena, "%.*sip6.arpa.", at, text);
}

/* All reverse zones that make up a network: a prefix that ends inside a label needs several. */
static int network_expand(struct arena *arena, struct network *network, struct zone_list *ret)
{
    unsigned label = network->octets == 4 ? 8 : 4;
    unsigned spare = (label - network->ones % label) % label;
    unsigned last = 0; /* octet that counts up */
    unsigned step = 0;

    if (spare > 0) {
        last = network->ones / 8;
        network->ones += spare;
        step = 1u << (7 - (network->ones - 1) % 8);
    }
    for (unsigned i = 0; i < 1u << spare; i++) {
        ret->names[i] = reverse_name(arena, network);
        if (ret->names[i] == NULL) {
            return -2;
        }
        ret->count = i + 1;
        network->ip[last] = (uint8_t)(network->ip[last] + step);
    }
    return 0;
}

/* The length of text without its port; whatever Atoi takes behind the last colon is one. */
static size_t port_split(const char *text, char port[24])
{
    const char *colon = strrchr(text, ':');
    int64_t number;

    port[0] = '\0';
    if (colon == NULL || gotext_atoi(colon + 1, &number, NULL) != 0) {
        return strlen(text);
    }
    (void)snprintf(port, 24, "%" PRId64, number);
    return (size_t)(colon - text);
}

/* plugin.SplitHostPort, with the names normalised. */
static int host_parse(struct arena *arena, const char *text, struct zone_list *ret, char *reason)
{
    size_t text_len = strlen(text);
    size_t len = port_split(text, ret->port);
    struct network network;
    char *host = arena_copy(arena, text, len);
    char *name;

    ret->count = 0;
    if (host == NULL) {
        return -2;
    }
    if (text_len == 0 || text[text_len - 1] == ':') {
        char quoted[GOTEXT_REASON / 2];

        (void)snprintf(reason, GOTEXT_REASON, "expecting data after last colon: %s",
                       gotext_quote(text, quoted, sizeof(quoted)));
        return -1;
    }
    if (len > 255) {
        (void)snprintf(reason, GOTEXT_REASON, "specified zone is too long: %zu > 255", len);
        return -1;
    }
    if (!name_valid(host)) {
        (void)snprintf(reason, GOTEXT_REASON, "zone is not a valid domain name: %s", host);
        return -1;
    }
    if (network_parse(host, &network)) {
        if (host[0] == ':' || (host[0] == '0' && strchr(host, ':') != NULL)) {
            (void)snprintf(reason, GOTEXT_REASON, "invalid CIDR %s", host);
            return -1;
        }
        return network_expand(arena, &network, ret);
    }
    name = arena_alloc(arena, len + 2);
    if (name == NULL) {
        return -2;
    }
    name_normalize(host, name);
    ret->names[ret->count++] = name;
    return 0;
}

/** A key, FROM or except item. */
int zone_parse(struct arena *arena, const char *key, struct zone_list *ret,
               char reason[GOTEXT_REASON])
{
    const char *rest;

    ret->transport = transport_split(key, &rest);
    return host_parse(arena, rest, ret, reason);
}

/** A server block's key: its names must still be names once they have their final dot. */
int zone_parse_key(struct arena *arena, const char *key, struct zone_list *ret,
                   char reason[GOTEXT_REASON])
{
    static const size_t longest = 255;
    int status = zone_parse(arena, key, ret, reason);

    for (size_t i = 0; status == 0 && i < ret->count; i++) {
        size_t len = strlen(ret->names[i]);

        if (len > longest) {
            (void)snprintf(reason, GOTEXT_REASON, "specified zone is too long: %zu > 255", len);
            status = -1;
        }
    }
    return status;
}
