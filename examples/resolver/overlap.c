/* Ports and overlaps of server blocks.
 *
 * Happy path: first all ports, then every (zone, port, address) against those before it, as
 * CoreDNS's order of errors has it. Failure modes: `invalid port`, `already defined`, `zone overlap
 * listener capacity`, each in CoreDNS's words. Many zones stay cheap: the ones seen are kept in a
 * hash table by zone and port.
 */
#include "overlap.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct seen {
    const struct server_key *key;
    const char *host;
    struct seen *next;
};

struct seen_table {
    struct seen **slots;
    size_t mask;
    struct seen *pool;
    size_t used;
};

static bool port_check(const char *port, struct failure *failure)
{
    const char *digits = port + (*port == '-' || *port == '+');
    size_t len = strspn(digits, "0123456789");
    if (len == 0 || digits[len] != '\0') {
        return failure_set(failure, "lookup tcp/%s: unknown port", port);
    }
    if (*port == '-' || len > 9 || atoi(digits) > 65535) {
        return failure_set(failure, "address %s: invalid port", port);
    }
    return true;
}

static size_t key_hash(const struct server_key *key)
{
    size_t hash = 5381;
    for (const char *c = key->zone; *c != '\0'; c++) {
        hash = hash * 33 ^ (unsigned char)*c;
    }
    for (const char *c = key->port; *c != '\0'; c++) {
        hash = hash * 33 ^ (unsigned char)*c;
    }
    return hash;
}

static bool same_zone(const struct server_key *a, const struct server_key *b)
{
    return strcmp(a->zone, b->zone) == 0 && strcmp(a->port, b->port) == 0;
}

static void place_print(char *buffer, size_t cap, const struct server_key *key, const char *host)
{
    (void)snprintf(buffer, cap, "dns://%s:%s%s%s", key->zone, key->port,
                   host[0] != '\0' ? " on " : "", host);
}

/* Refuses what is there already, then what is there on wider or narrower addresses, else notes it.
 */
static bool seen_check(struct seen_table *table, const struct server_key *key, const char *host,
                       struct failure *failure)
{
    char here[NAME_TEXT_MAX + 128];
    place_print(here, sizeof(here), key, host);
    struct seen **slot = &table->slots[key_hash(key) & table->mask];
    const struct seen *bound = NULL;
    const struct seen *unbound = NULL;
    for (const struct seen *seen = *slot; seen != NULL; seen = seen->next) {
        if (!same_zone(seen->key, key)) {
            continue;
        }
        if (strcmp(seen->host, host) == 0) {
            return failure_set(failure, "cannot serve %s - it is already defined", here);
        }
        if (seen->host[0] == '\0') {
            unbound = seen;
        } else if (bound == NULL) {
            bound = seen; /* the list runs from the latest, which is the one CoreDNS names */
        }
    }
    const struct seen *other = host[0] == '\0' ? bound : unbound;
    if (other != NULL) {
        char there[NAME_TEXT_MAX + 128];
        place_print(there, sizeof(there), other->key, other->host);
        return failure_set(failure, "cannot serve %s - zone overlap listener capacity with %s",
                           here, there);
    }
    struct seen *entry = &table->pool[table->used++];
    *entry = (struct seen){.key = key, .host = host, .next = *slot};
    *slot = entry;
    return true;
}

static bool seen_check_all(struct seen_table *table, const struct config *config,
                           struct failure *failure)
{
    for (size_t s = 0; s < config->count; s++) {
        const struct server *server = &config->servers[s];
        for (size_t k = 0; k < server->key_count; k++) {
            for (size_t h = 0; h < server->hosts.count; h++) {
                if (!seen_check(table, &server->keys[k], server->hosts.hosts[h], failure)) {
                    return false;
                }
            }
        }
    }
    return true;
}

/** All checks. */
bool overlap_check(const struct config *config, struct failure *failure)
{
    size_t places = 0;
    for (size_t s = 0; s < config->count; s++) {
        const struct server *server = &config->servers[s];
        places += server->key_count * server->hosts.count;
        for (size_t k = 0; k < server->key_count && server->hosts.count > 0; k++) {
            if (!port_check(server->keys[k].port, failure)) {
                return false;
            }
        }
    }
    size_t slots = 16;
    while (slots < places) {
        slots *= 2;
    }
    struct seen_table table = {
        .slots = calloc(slots, sizeof(struct seen *)),
        .mask = slots - 1,
        .pool = calloc(places + 1, sizeof(struct seen)),
    };
    bool ok = table.slots != NULL && table.pool != NULL ? seen_check_all(&table, config, failure)
                                                        : failure_set(failure, "out of memory");
    free(table.slots);
    free(table.pool);
    return ok;
}
