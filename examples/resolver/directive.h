/* A cursor over the tokens of one directive: what may follow on its line, what stands in its block.
 *
 * Its rules are those of CoreDNS's dispenser (cases 6 and 7): a line ends where file or line number
 * changes, arguments end at `{`, a block opens on the directive's line and does not nest. Threads:
 * none of its own. Ownership: the tokens are the block's and their texts the document's, which must
 * both outlive the cursor.
 */
#pragma once

#include "text.h"

#include <forward/abi.h>

/** All tokens of a directive in a server block. */
struct tokens {
    const struct fwd_token *items;
    size_t count;
};

struct directive {
    const char *name;
    const struct tokens *tokens;
    size_t cursor; /**< the current token; count when there is none yet */
    bool in_block;
};

void directive_init(struct directive *directive, const char *name, const struct tokens *tokens);

const char *directive_text(const struct directive *directive);
bool directive_next(struct directive *directive);
bool directive_next_argument(struct directive *directive);
bool directive_next_in_block(struct directive *directive);

/** The next argument before `{` or the line's end; NULL when there is none. */
const char *directive_argument(struct directive *directive);

/** "plugin/NAME: FILE:LINE - Error during parsing: ..."; false, as failure_set. */
bool directive_refuse(const struct directive *directive, struct failure *failure,
                      const char *format, ...) __attribute__((format(printf, 3, 4)));

/** CoreDNS's complaint about a token that stands where another was to be. */
bool directive_refuse_token(const struct directive *directive, struct failure *failure,
                            const char *expected);

/** CoreDNS's complaint about a wrong number of arguments. */
bool directive_refuse_count(const struct directive *directive, struct failure *failure);
