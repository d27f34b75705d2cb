/* Host names among the TOs of a stanza, and the upstreams that they stand for.
 *
 * Threads: any; resolve_hosts and resolve_stanza block for up to 2 s per question. Standards: CoreDNS case 37 (resolver), 20 (duplicates).
 */
#pragma once

#include "config.h"
#include "lookup.h"

/** A host name among the TOs. */
struct host_name {
    uint32_t to; /* which */
    char name[LOOKUP_NAME];
    struct addresses addresses;
    uint32_t ttl; /* of them, seconds */
};

struct to_list {
    struct config_to *items; /* their texts lie in the arena; other strings are the stanza's */
    uint32_t count;
    struct arena arena;
};

bool resolve_has_names(const struct config_stanza *stanza);

/** Looks all host names of a stanza up. @param ret_hosts for the caller to free; NULL when there is none. @param pointer JSON pointer of the TOs
 *  @return FWD_OK, FWD_ERR_CONFIG with CoreDNS's words, FWD_ERR_NOMEM */
int resolve_hosts(const struct config_stanza *stanza, const char *pointer, struct host_name **ret_hosts, uint32_t *ret_count,
                  struct fwd_error *error);

/** The TOs with each host name replaced by its addresses, without duplicates; to_list_free frees it. @param hosts in the order of the TOs
 *  @return FWD_OK or FWD_ERR_NOMEM */
int resolve_expand(const struct config_stanza *stanza, const struct host_name *hosts, struct to_list *ret);
void to_list_free(struct to_list *list);

/** Replaces every host name of a stanza by its addresses, in place. @param arena the configuration's @return as resolve_hosts */
int resolve_stanza(struct config_stanza *stanza, struct arena *arena, const char *pointer, struct fwd_error *error);
