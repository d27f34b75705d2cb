/* The table of stanza options: one row each, read by the Corefile parser's tests, by describe() and by the reference. */
#pragma once

#include <stddef.h>

struct option_def {
    const char *name;     /**< Corefile and JSON name */
    const char *type;     /**< "string", "name", "duration", "integer", "boolean", "array", "object" */
    const char *def;      /**< default, as JSON text */
    const char *range;    /**< in words */
    const char *corefile; /**< spelling, e.g. "health_check DURATION [no_rec] [domain FQDN]" */
    const char *help;
    const char *origin; /**< "CoreDNS" or "fwd" */
};

extern const struct option_def option_defs[];
extern const size_t option_defs_count;
