/* What stanza.c and stanza_options.c share: the parser's state, and how it takes arguments and
 * refuses them.
 *
 * Threads: one at a time per parser. Ownership: the JSON values are references, borrowed but for
 * stanzas and warnings.
 */
#pragma once

#include "dispenser.h"

#include <forward/abi.h>
#include <jansson.h>

#define STANZA_PREFIX "plugin/forward: " /**< of every error, as CoreDNS puts it */

/** A list of arguments; items is to be freed, the texts are the arena's. */
struct arguments {
    const char **items;
    size_t count;
};

struct stanza_parser {
    struct dispenser dispenser;
    struct arena arena;
    struct fwd_error *error;
    const char *root; /* directory for TLS files, or NULL */
    json_t *stanzas;
    json_t *warnings;
    /* the stanza at hand */
    json_t *stanza;
    int64_t expire_ns;
    int64_t max_age_ns;
    bool resolver;
    const char *tls_servername;
};

/** @return FWD_ERR_NOMEM */
int stanza_nomem(struct stanza_parser *parser);

/** Turns the outcome of a JSON or arena call into a status. */
int stanza_stored(struct stanza_parser *parser, bool ok);

/** Missing or surplus argument at the current token. @return FWD_ERR_SYNTAX */
int stanza_argument_error(struct stanza_parser *parser);

/** Error about a value, whose text has no position. @return FWD_ERR_CONFIG */
int stanza_error(struct stanza_parser *parser, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** The current token's text. */
const char *stanza_value(const struct stanza_parser *parser);

/** Steps to the option's argument; it is an error if there is none. */
int stanza_argument(struct stanza_parser *parser);

/** The rest of the line up to an opening brace. To be freed in any case. */
int stanza_arguments(struct stanza_parser *parser, struct arguments *ret);

/** As stanza_arguments; none is an error. */
int stanza_some_arguments(struct stanza_parser *parser, struct arguments *ret);

/** Sets a member of the stanza at hand, stealing json; NULL counts as out of memory. */
int stanza_set(struct stanza_parser *parser, const char *name, json_t *json);

/** Reads the option that the current token names, with its arguments. */
int stanza_option(struct stanza_parser *parser);
