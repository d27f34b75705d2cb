/* Where the Corefile is read from, at the start and again for every reload.
 *
 * Threads: main only. Ownership: source_fini frees the text.
 */
#pragma once

#include "config.h"
#include "flags.h"

enum { SOURCE_HASH_MAX = 129 };

struct corefile_source {
    const struct module *module;
    const struct flags *flags;
    struct text text;
};

/** Reads and checks the Corefile. */
struct config *source_load(struct corefile_source *source, struct failure *failure);

/** Reads it and takes the SHA-512 of its tokens, imports included: comments and blanks do not
 * count. *ret_read is false when the failure was to read at all. */
bool source_hash(struct corefile_source *source, char hash[SOURCE_HASH_MAX], bool *ret_read,
                 struct failure *failure);

void source_fini(struct corefile_source *source);
