/* A server block of fwd.corefile/1: the zones of its keys, and the tokens of its directives.
 *
 * Threads: none of its own. Ownership: texts stay the document's; one struct block serves for block after
 * block, and block_fini frees its lists.
 */
#pragma once

#include "directive.h"
#include "jsonscan.h"

/** A zone of a key. */
struct block_zone {
    const char *zone; /**< NULL: the key is none */
    const char *port;
    const char *transport;
    const char *reason; /**< why it is none */
};

struct block_directive {
    const char *name;
    size_t first; /**< of the block's tokens, the name itself */
    size_t count;
};

struct block {
    struct block_zone *zones;
    size_t zone_count;
    size_t zone_room;
    size_t key_count;
    struct block_directive *directives;
    size_t directive_count;
    size_t directive_room;
    struct fwd_token *tokens;
    size_t token_count;
    size_t token_room;
    bool failed; /**< out of memory */
};

/** Reads the next value of the document. @return false when it is no block, or when out of memory */
bool block_read(struct block *block, struct jsonscan *scan);

/** The tokens of the directive of that name. @return false when the block has none */
bool block_directive(const struct block *block, const char *name, struct tokens *ret);
void block_fini(struct block *block);
