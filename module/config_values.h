/* The values in a stanza of the configuration, for config.c's tables of members.
 *
 * Threads: as reader.h. Ownership: what is read lies in the reader's arena. Each read function takes the
 * JSON and fills in what its target points to; each write function gives a new reference, NULL when out
 * of memory. Errors: as reader.h.
 */
#pragma once

#include "config.h"
#include "reader.h"

/** A member's value: what it is in struct config_stanza or config_options. */
#define CONFIG_VALUE(noun)                                                                         \
    int value_##noun##_read(struct reader *reader, const json_t *value, void *target);             \
    json_t *value_##noun##_write(const void *source)

CONFIG_VALUE(name);                 /* struct config_name */
CONFIG_VALUE(to_item);              /* struct config_to */
CONFIG_VALUE(rcodes);               /* struct config_rcodes */
CONFIG_VALUE(failover);             /* the same, without NOERROR */
CONFIG_VALUE(policy);               /* enum config_policy */
CONFIG_VALUE(doh_method);           /* bool: GET */
CONFIG_VALUE(attempts);             /* struct config_options: max_connect_attempts */
CONFIG_VALUE(resolver);             /* struct config_options: resolvers */
CONFIG_VALUE(source_address);       /* struct config_options: source_address */
CONFIG_VALUE(tls);                  /* struct config_options: tls */
CONFIG_VALUE(health);               /* struct config_options: health_* */
