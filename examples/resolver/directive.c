/* The cursor over a directive's tokens.
 *
 * Happy path: next() to the directive's own token, arguments, then its block.
 * Failure modes: an unclosed block simply ends with the tokens (case 7); the errors it words are
 * CoreDNS's (case 13).
 */
#include "directive.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const json_t *token_at(const struct directive *directive, size_t index)
{
    return json_array_get(directive->tokens, index);
}

static const char *token_string(const json_t *token, const char *member)
{
    const char *value = json_string_value(json_object_get(token, member));
    return value != NULL ? value : "";
}

/** Places the cursor before the first token. */
void directive_init(struct directive *directive, const char *name, const json_t *tokens)
{
    *directive = (struct directive){.name = name, .tokens = tokens};
    directive->count = json_array_size(tokens);
    directive->cursor = SIZE_MAX;
}

/** Text of the current token, "" when there is none. */
const char *directive_text(const struct directive *directive)
{
    return token_string(token_at(directive, directive->cursor), "text");
}

/** Steps to the next token wherever it stands. */
bool directive_next(struct directive *directive)
{
    if (directive->cursor + 1 >= directive->count) { /* SIZE_MAX + 1 is 0 */
        return false;
    }
    directive->cursor++;
    return true;
}

/** Steps to the next token if it is on the same line. A token that holds line ends ends lines
 * further down. */
bool directive_next_argument(struct directive *directive)
{
    if (directive->cursor == SIZE_MAX || directive->cursor + 1 >= directive->count) {
        return false;
    }
    const json_t *here = token_at(directive, directive->cursor);
    const json_t *next = token_at(directive, directive->cursor + 1);
    json_int_t line = json_integer_value(json_object_get(here, "line"));
    for (const char *c = token_string(here, "text"); *c != '\0'; c++) {
        line += *c == '\n';
    }
    if (strcmp(token_string(here, "file"), token_string(next, "file")) != 0 ||
        line != json_integer_value(json_object_get(next, "line"))) {
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
    const json_t *token = token_at(directive, directive->cursor);
    return failure_set(failure, "plugin/%s: %s:%lld - Error during parsing: %s", directive->name,
                       token_string(token, "file"),
                       (long long)json_integer_value(json_object_get(token, "line")), text);
}

/** The error about an unexpected token. */
bool directive_refuse_token(const struct directive *directive, struct failure *failure,
                            const char *expected)
{
    const json_t *token = token_at(directive, directive->cursor);
    return failure_set(failure,
                       "plugin/%s: %s:%lld - Syntax error: Unexpected token '%s', expecting '%s'",
                       directive->name, token_string(token, "file"),
                       (long long)json_integer_value(json_object_get(token, "line")),
                       token_string(token, "text"), expected);
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
