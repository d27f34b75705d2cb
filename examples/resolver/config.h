/* A Corefile as the daemon uses it: server blocks with their zones, addresses, logs and forward
 * configuration.
 *
 * Threads: made by main, then read by all. Ownership: config_destroy frees everything, instances
 * must be gone by then. Limits: only plain DNS is served; keys of other transports are refused by
 * name.
 */
#pragma once

#include "bind.h"
#include "endpoints.h"
#include "error_log.h"
#include "module_load.h"
#include "name.h"
#include "query_log.h"
#include "tap.h"

#include <jansson.h>
#include <stdalign.h>

/** One key of a server block. */
struct server_key {
    char *zone; /**< normalised: lower case, final dot */
    char *port; /**< as the Corefile or -dns.port gives it; a number up to 65535 once config_load
                   has returned */
};

/** Names that something is for. */
struct scope_list {
    struct name *names;
    size_t count;
};
bool scope_list_has(const struct scope_list *list, const uint8_t *name);

enum { SERVER_LINE = 64 };

struct server {
    /* first what every query looks at, in one line of cache */
    alignas(SERVER_LINE) struct fwd_instance *instance; /**< NULL until the service makes it */
    struct tap *taps; /**< the lines of dnstap */
    bool has_forward;
    bool has_log;
    bool has_bind;
    struct query_log log;
    struct error_log errors;
    struct server_key *keys;

    size_t key_count;
    struct host_list hosts; /**< "" alone stands for all addresses */
    char *root;
    struct scope_list metadata; /**< names that metadata is collected for */
    struct endpoints endpoints;
    size_t forward_at; /**< where the configuration of its instance begins in the forwards */
    size_t forward_len;
};

struct config {
    struct server *servers;
    size_t count;
    struct text forwards; /**< configurations of all instances, JSON one behind the other; gone once
                             those are made */
};

/** Where a Corefile comes from. */
struct corefile {
    const char *name; /**< as errors print it */
    const char *text;
    size_t len;
    bool full; /**< every option of forward, for config_to_json, not only what is set */
};

/** Reads and checks a Corefile, in CoreDNS's order and words. Nothing is opened on the network. */
struct config *config_load(const struct module *module, const struct corefile *corefile,
                           const char *default_port, struct failure *failure);
void config_destroy(struct config *config);

/** The effective configuration of a Corefile that was loaded in full:
 * {"servers":[{"zones","listen","forward"}]}; NULL when out of memory. */
json_t *config_to_json(const struct config *config);

/** A server block's zones, and the addresses that it listens on, as arrays of strings. */
json_t *zones_to_json(const struct server *server);
json_t *listen_to_json(const struct server *server);

/** A module error as one line. */
bool failure_from_module(struct failure *failure, const struct fwd_error *error);

/** Room for a module error, tied to the struct fwd_error that is passed. */
struct module_error {
    struct fwd_error error;
    char msg[FAILURE_MAX];
    char file[1024];
    char pointer[512];
};
void module_error_init(struct module_error *error);
