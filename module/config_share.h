/* Configurations that several instances have in common: those whose JSON is the same.
 *
 * Threads: any. Ownership: each instance has a use of its configuration; it goes with the last one.
 */
#pragma once

#include "config.h"

/** A use of the configuration that was made from this text, or NULL when none is known. */
const struct config *config_find(const char *json, size_t len);

/** Makes a new configuration known, if there is memory for that. Nothing may write to it from here on.
 *  @param json what it was made from; NULL keeps it the caller's alone
 *  @return the same one, of which the caller has a use */
const struct config *config_share(struct config *config, const char *json, size_t len);

/** A use less. NULL is allowed. */
void config_leave(const struct config *config);
