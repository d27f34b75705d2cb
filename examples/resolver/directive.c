/* The cursor over a directive's tokens.
 *
 * Happy path: next() to the directive's own token, arguments, then its block.
 * Failure modes: an unclosed block simply ends with the tokens (case 7); the errors it words are
 * CoreDNS's (case 13).
 */
#include "directive.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The current token; one of empty texts before the first. */
static const struct fwd_token *token_here(const struct directive *directive)
{
    static const struct fwd_token none = {.text = "", .file = ""};
    return directive->cursor < directive->tokens->count
               ? &directive->tokens->items[directive->cursor]
               : &none;
}

/** Places the cursor before the first token. */
void directive_init(struct directive *directive, const char *name, const struct tokens *tokens)
{
    *directive = (struct directive){.name = name, .tokens = tokens, .cursor = SIZE_MAX};
}

/** Text of the current token, "" when there is none. */
const char *directive_text(const struct directive *directive)
{
    return token_here(directive)->text;
}

/** Steps to the next token wherever it stands. */
bool directive_next(struct directive *directive)
{
    if (directive->cursor + 1 >= directive->tokens->count) { /* SIZE_MAX + 1 is 0 */
        return false;
    }
    directive->cursor++;
    return true;
}

/** Steps to the next token if it is on the same line. A token that holds line ends ends lines
 * further down. */
bool directive_next_argument(struct directive *directive)
{
    if (directive->cursor == SIZE_MAX || directive->cursor + 1 >= directive->tokens->count) {
        return false;
    }
    const struct fwd_token *here = token_here(directive);
    const struct fwd_token *next = here + 1;
    uint32_t line = here->line;
    for (const char *c = here->text; *c != '\0'; c++) {
        line += *c == '\n';
    }
    if (strcmp(here->file, next->file) != 0 || line != next->line) {
        return false;
    }
    directive->cursor++;
    return true;
}

/** Steps into the block or through it; false at its end or when there is none. */
bool directive_next_in_block(struct directive *directive)
{
    if (directive->in_block) {
        if (!directive_next(directive)) {
            return false;
        }
        directive->in_block = strcmp(directive_text(directive), "}") != 0;
        return directive->in_block;
    }
    if (!directive_next_argument(directive)) {
        return false;
    }
    if (strcmp(directive_text(directive), "{") != 0) {
        directive->cursor--;
        return false;
    }
    if (!directive_next(directive) || strcmp(directive_text(directive), "}") == 0) {
        return false;
    }
    directive->in_block = true;
    return true;
}

/** The next argument, or NULL. */
const char *directive_argument(struct directive *directive)
{
    if (!directive_next_argument(directive)) {
        return NULL;
    }
    if (strcmp(directive_text(directive), "{") == 0) {
        directive->cursor--;
        return NULL;
    }
    return directive_text(directive);
}

/** An error at the current token. */
bool directive_refuse(const struct directive *directive, struct failure *failure,
                      const char *format, ...)
{
    char text[FAILURE_MAX / 2];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    const struct fwd_token *token = token_here(directive);
    return failure_set(failure, "plugin/%s: %s:%u - Error during parsing: %s", directive->name,
                       token->file, token->line, text);
}

/** The error about an unexpected token. */
bool directive_refuse_token(const struct directive *directive, struct failure *failure,
                            const char *expected)
{
    const struct fwd_token *token = token_here(directive);
    return failure_set(failure,
                       "plugin/%s: %s:%u - Syntax error: Unexpected token '%s', expecting '%s'",
                       directive->name, token->file, token->line,
                       token->text, expected);
}

/** The error about the number of arguments. */
bool directive_refuse_count(const struct directive *directive, struct failure *failure)
{
    const char *text = directive_text(directive);
    if (strcmp(text, "{") == 0) {
        return directive_refuse(directive, failure, "Unexpected token '{', expecting argument");
    }
    return directive_refuse(directive, failure,
                            "Wrong argument count or unexpected line ending after '%s'", text);
}
