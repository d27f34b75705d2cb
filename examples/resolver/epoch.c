/* Generations of the configuration.
 *
 * Happy path: server blocks are grouped by the address they listen on, sockets opened or taken
 * over, instances created and started; later drained and freed. Failure modes: a bind or create
 * error leaves nothing behind; sockets taken over stay with the epoch before.
 */
#include "epoch.h"

#include "clock.h"
#include "tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The site of an address, made when it is the first of it. */
static struct site *site_take(struct epoch *epoch, const struct epoch *before,
                              const union address *wanted, bool all, struct failure *failure)
{
    for (size_t g = 0; g < epoch->site_count; g++) {
        if (address_equal(&epoch->sites[g].listener->wanted, wanted)) {
            return &epoch->sites[g];
        }
    }
    struct listener *listener = NULL;
    bool port_ours = false;
    for (size_t g = 0; before != NULL && g < before->site_count; g++) {
        struct listener *there = before->sites[g].listener;
        port_ours |= address_port(&there->bound) == address_port(wanted);
        if (address_equal(&there->wanted, wanted)) {
            listener = there;
            listener->refs++;
            break;
        }
    }
    for (size_t g = 0; g < epoch->site_count; g++) {
        port_ours |= address_port(&epoch->sites[g].listener->bound) == address_port(wanted);
    }
    if (listener == NULL) {
        listener = listener_open(wanted, all, epoch->workers, !port_ours, failure);
    }
    if (listener == NULL) {
        return NULL;
    }
    struct site *site = &epoch->sites[epoch->site_count++];
    *site = (struct site){.listener = listener};
    return site;
}

/* Calls visit for every key and address of every server block. */
static bool places_visit(struct epoch *epoch, const struct epoch *before,
                         bool (*visit)(struct epoch *epoch, const struct epoch *before,
                                       const struct server *server, const struct server_key *key,
                                       const char *host, struct failure *failure),
                         struct failure *failure)
{
    for (size_t s = 0; s < epoch->config->count; s++) {
        const struct server *server = &epoch->config->servers[s];
        for (size_t k = 0; k < server->key_count; k++) {
            for (size_t h = 0; h < server->hosts.count; h++) {
                if (!visit(epoch, before, server, &server->keys[k], server->hosts.hosts[h],
                           failure)) {
                    return false;
                }
            }
        }
    }
    return true;
}

static bool place_listen(struct epoch *epoch, const struct epoch *before,
                         const struct server *server, const struct server_key *key,
                         const char *host, struct failure *failure)
{
    union address wanted;
    if (!listener_resolve(host, key->port, &wanted, failure)) {
        return false;
    }
    struct site *site = site_take(epoch, before, &wanted, host[0] == '\0', failure);
    if (site == NULL) {
        return false;
    }
    site->zones.count++; /* until the table is made */
    site->forwards |= server->has_forward;
    return true;
}

static bool place_add(struct epoch *epoch, const struct epoch *before, const struct server *server,
                      const struct server_key *key, const char *host, struct failure *failure)
{
    union address wanted;
    struct site *site = NULL;
    if (listener_resolve(host, key->port, &wanted, failure)) {
        site = site_take(epoch, before, &wanted, host[0] == '\0', failure);
    }
    if (site == NULL) {
        return false;
    }
    return zone_table_add(&site->zones, key->zone, server) || failure_set(failure, "out of memory");
}

static size_t places_count(const struct config *config)
{
    size_t count = 0;
    for (size_t s = 0; s < config->count; s++) {
        count += config->servers[s].key_count * config->servers[s].hosts.count;
    }
    return count;
}

static bool ports_make(struct epoch *epoch)
{
    epoch->ports = calloc(2 * epoch->site_count * epoch->workers + 1, sizeof(struct port));
    if (epoch->ports == NULL) {
        return false;
    }
    struct port *port = epoch->ports;
    for (unsigned w = 0; w < epoch->workers; w++) {
        for (size_t g = 0; g < 2 * epoch->site_count; g++) {
            bool tcp = g >= epoch->site_count;
            struct site *site = &epoch->sites[g % epoch->site_count];
            *port++ = (struct port){
                .source.kind = tcp ? SOURCE_TCP_LISTEN : SOURCE_UDP,
                .fd = tcp ? site->listener->tcp[w] : site->listener->udp[w],
                .site = site,
            };
        }
    }
    return true;
}

/** Prints. */
void site_label(const struct site *site, char label[SITE_LABEL_MAX])
{
    char text[ADDRESS_TEXT_MAX];
    address_print(&site->listener->bound, site->listener->all, text);
    (void)snprintf(label, SITE_LABEL_MAX, "dns://%s", text);
}

static bool site_tally(struct site *site)
{
    char label[SITE_LABEL_MAX];
    char text[NAME_TEXT_MAX];
    site_label(site, label);
    site->dropped = tally_take(label, "dropped");
    bool ok = site->dropped != NULL;
    for (size_t i = 0; ok && i < site->zones.count; i++) {
        struct zone *zone = &site->zones.zones[i];
        if (zone->server->endpoints.metrics != NULL) {
            name_to_text(zone->name, text);
            zone->tally = tally_take(label, text);
            ok = zone->tally != NULL;
        }
    }
    return ok;
}

/* Counts are kept as soon as anybody may ask for them. */
static bool tallies_take(struct epoch *epoch)
{
    bool wanted = false;
    for (size_t s = 0; s < epoch->config->count; s++) {
        wanted |= epoch->config->servers[s].endpoints.metrics != NULL;
    }
    for (size_t g = 0; wanted && g < epoch->site_count; g++) {
        if (!site_tally(&epoch->sites[g])) {
            return false;
        }
    }
    return true;
}

static bool epoch_fill(struct epoch *epoch, const struct epoch *before, struct failure *failure)
{
    epoch->sites = calloc(places_count(epoch->config) + 1, sizeof(struct site));
    if (epoch->sites == NULL) {
        return failure_set(failure, "out of memory");
    }
    if (!places_visit(epoch, before, place_listen, failure)) {
        return false;
    }
    for (size_t g = 0; g < epoch->site_count; g++) {
        struct zone_table *zones = &epoch->sites[g].zones;
        if (!zone_table_init(zones, zones->count)) {
            return failure_set(failure, "out of memory");
        }
    }
    return places_visit(epoch, before, place_add, failure) &&
           ((ports_make(epoch) && tallies_take(epoch)) || failure_set(failure, "out of memory"));
}

/** Makes an epoch. */
struct epoch *epoch_create(struct config *config, struct epoch *before, unsigned workers,
                           struct failure *failure)
{
    struct epoch *epoch = calloc(1, sizeof(*epoch));
    if (epoch == NULL) {
        failure_set(failure, "out of memory");
        return NULL;
    }
    epoch->config = config;
    epoch->workers = workers;
    if (!epoch_fill(epoch, before, failure)) {
        epoch->config = NULL; /* stays the caller's */
        epoch_destroy(epoch);
        return NULL;
    }
    return epoch;
}

/* Makes an instance from the module's own configuration and what that does not say: the workers turn
 * the module's loops. */
static bool instance_make(struct server *server, const char *forward, struct text *json,
                          const struct module *module, const struct fwd_host *host,
                          unsigned workers, struct failure *failure)
{
    json->len = 0;
    text_printf(json, "{\"io_threads\":0,\"loops\":%u,\"engine\":\"workers\",", workers);
    text_append(json, forward + 1, server->forward_len - 1); /* less its { */
    if (json->failed) {
        return failure_set(failure, "out of memory");
    }
    struct fwd_host own = *host;
    own.arg = server->taps; /* alike for most: then they share batches of completions */
    struct module_error error;
    module_error_init(&error);
    int status =
        module->forward->create(&own, json->data, json->len, &server->instance, &error.error);
    return status >= 0 || failure_from_module(failure, &error.error);
}

/** Creates instances. */
bool epoch_instances(struct epoch *epoch, const struct module *module, const struct fwd_host *host,
                     struct failure *failure)
{
    struct config *config = epoch->config;
    struct text json = {0};
    bool ok = true;
    for (size_t s = 0; ok && s < config->count; s++) {
        struct server *server = &config->servers[s];
        ok = !server->has_forward ||
             instance_make(server, config->forwards.data + server->forward_at, &json, module, host,
                           epoch->workers, failure);
    }
    text_fini(&json);
    text_fini(&config->forwards);
    return ok;
}

/** Finds one. */
struct fwd_instance *epoch_any_instance(const struct epoch *epoch)
{
    for (size_t s = 0; epoch->config != NULL && s < epoch->config->count; s++) {
        if (epoch->config->servers[s].instance != NULL) {
            return epoch->config->servers[s].instance;
        }
    }
    return NULL;
}

/** Starts instances. */
bool epoch_start(struct epoch *epoch, const struct module *module, struct failure *failure)
{
    static uint64_t generations; /* main's */
    uint64_t generation = ++generations;
    for (size_t s = 0; s < epoch->config->count; s++) {
        struct server *server = &epoch->config->servers[s];
        if (!tap_start(server->taps, generation, failure)) {
            return false;
        }
        struct module_error error;
        module_error_init(&error);
        if (server->instance != NULL &&
            module->forward->start(server->instance, &error.error) < 0) {
            return failure_from_module(failure, &error.error);
        }
    }
    return true;
}

/** Finds every socket's place in the next epoch. */
void epoch_succeed(struct epoch *before, struct epoch *after)
{
    for (unsigned w = 0; w < before->workers && w < after->workers; w++) {
        size_t old_count;
        size_t new_count;
        struct port *old = epoch_ports(before, w, &old_count);
        struct port *new = epoch_ports(after, w, &new_count);
        for (size_t o = 0; o < old_count; o++) {
            for (size_t n = 0; n < new_count; n++) {
                if (old[o].fd == new[n].fd) {
                    old[o].successor = &new[n];
                    new[n].adopted = true;
                }
            }
        }
    }
}

/** Ends all instances; what one needs of the time is not the next one's. */
void epoch_drain(struct epoch *epoch, const struct module *module, uint64_t drain_ns)
{
    uint64_t deadline = clock_ns() + drain_ns;
    for (size_t s = 0; s < epoch->config->count; s++) {
        struct server *server = &epoch->config->servers[s];
        if (server->instance == NULL) {
            continue;
        }
        uint64_t now = clock_ns();
        (void)module->forward->stop(server->instance, now < deadline ? deadline - now : 0);
        module->forward->destroy(server->instance);
        server->instance = NULL;
    }
}

/** Frees an epoch. */
void epoch_destroy(struct epoch *epoch)
{
    if (epoch == NULL) {
        return;
    }
    for (size_t g = 0; g < epoch->site_count; g++) {
        listener_unref(epoch->sites[g].listener);
        zone_table_fini(&epoch->sites[g].zones);
    }
    free(epoch->sites);
    free(epoch->ports);
    config_destroy(epoch->config);
    free(epoch);
}

/** A worker's sockets. */
struct port *epoch_ports(const struct epoch *epoch, unsigned worker, size_t *ret_count)
{
    *ret_count = worker < epoch->workers ? 2 * epoch->site_count : 0;
    return epoch->ports + worker * *ret_count;
}

static int zone_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* RFC 1035's preferred syntax; reverse zones are let pass. */
static bool zone_preferred(const char *zone)
{
    size_t len = strlen(zone);
    static const char *const reverse[] = {".in-addr.arpa.", ".ip6.arpa."};
    for (size_t i = 0; i < 2; i++) {
        size_t suffix = strlen(reverse[i]);
        if (len >= suffix && strcmp(zone + len - suffix, reverse[i]) == 0) {
            return true;
        }
    }
    if (strcmp(zone, ".") == 0) {
        return true;
    }
    bool start = true;
    for (const char *c = zone; *c != '\0'; c++) {
        bool letter = *c >= 'a' && *c <= 'z';
        bool inner = (*c >= '0' && *c <= '9') || (*c == '-' && c[1] != '.');
        if (*c == '.' ? start : !letter && (start || !inner)) {
            return false;
        }
        start = *c == '.';
    }
    return true;
}

static void site_print(const struct site *site, char **zones, size_t count, struct text *out)
{
    const struct listener *listener = site->listener;
    char host[ADDRESS_TEXT_MAX];
    address_print_host(&listener->bound, host);
    qsort(zones, count, sizeof(*zones), zone_compare);
    for (size_t z = 0; z < count; z++) {
        if (!zone_preferred(zones[z])) {
            text_printf(out, "Warning: Domain \"%s\" does not follow RFC1035 preferred syntax\n",
                        zones[z]);
        }
        text_printf(out, "%s:%u%s%s\n", zones[z], address_port(&listener->bound),
                    listener->all ? "" : " on ", listener->all ? "" : host);
    }
}

/** The start-up lines. */
void epoch_print(const struct epoch *epoch, struct text *out)
{
    char **zones = calloc(places_count(epoch->config) + 1, sizeof(*zones));
    if (zones == NULL) {
        return;
    }
    for (size_t g = 0; g < epoch->site_count; g++) {
        const struct zone_table *table = &epoch->sites[g].zones;
        size_t count = 0;
        char name[NAME_TEXT_MAX];
        for (size_t i = 0; i < table->count; i++) {
            name_to_text(table->zones[i].name, name);
            zones[count] = strdup(name);
            count += zones[count] != NULL;
        }
        site_print(&epoch->sites[g], zones, count, out);
        for (size_t z = 0; z < count; z++) {
            free(zones[z]);
        }
    }
    free(zones);
}
