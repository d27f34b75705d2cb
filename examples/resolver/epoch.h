/* One generation of the configuration: the server blocks, their instances, and which zones each
 * listening address has.
 *
 * A reload makes a new epoch beside the old one; workers go over to it between two turns of their
 * loops (worker.h). Threads: made and destroyed by main, read by workers and I/O threads meanwhile.
 * Ownership: the epoch owns its configuration and instances and shares listeners with the epochs
 * before and after it.
 */
#pragma once

#include "config.h"
#include "listener.h"
#include "source.h"
#include "zone.h"

struct site {
    struct listener *listener;
    struct zone_table zones;
    struct tally *dropped; /**< of queries that no server block takes; NULL: not counted */
    bool forwards; /**< some server block here forwards: other classes than IN are let in (case 92)
                    */
};

/** A listening socket of one worker in one epoch. */
struct port {
    struct source source;
    int fd;
    const struct site *site;
    bool adopted;           /**< the epoch before had the socket too */
    struct port *successor; /**< the same socket in the epoch after this one; NULL when it goes */
};

struct epoch {
    struct config *config; /**< NULL in the epoch without addresses that ends the service */
    struct site *sites;
    size_t site_count;
    struct port *ports; /**< per worker site_count UDP sockets, then as many TCP ones */
    unsigned workers;
};

/** Opens what is to be listened on; addresses that before has are taken over. Takes config when it
 * succeeds. */
struct epoch *epoch_create(struct config *config, struct epoch *before, unsigned workers,
                           struct failure *failure);

/** The address as metrics name it: "dns://127.0.0.1:53", "dns://:53" for all. */
enum { SITE_LABEL_MAX = ADDRESS_TEXT_MAX + 8 };
void site_label(const struct site *site, char label[SITE_LABEL_MAX]);

/** Makes the instances for a host whose arg is the server block's taps, for its services. They share
 * loops, one for each worker to turn. */
bool epoch_instances(struct epoch *epoch, const struct module *module, const struct fwd_host *host,
                     struct failure *failure);
/** Starts them, and the taps. */
bool epoch_start(struct epoch *epoch, const struct module *module, struct failure *failure);

/** An instance, for what all of them share; NULL when nothing is forwarded. */
struct fwd_instance *epoch_any_instance(const struct epoch *epoch);

/** Ties the sockets of two epochs together, before the workers are told of the second. */
void epoch_succeed(struct epoch *before, struct epoch *after);

/** Stops all instances within drain_ns altogether and destroys them. */
void epoch_drain(struct epoch *epoch, const struct module *module, uint64_t drain_ns);

/** Frees; closes the listeners that no other epoch has. The instances must be gone. */
void epoch_destroy(struct epoch *epoch);

/** What CoreDNS prints when it has started: ".:53 on 127.0.0.1" for every zone and address. */
void epoch_print(const struct epoch *epoch, struct text *out);

struct port *epoch_ports(const struct epoch *epoch, unsigned worker, size_t *ret_count);
