/* Tokens one by one.
 *
 * Happy path: an index moves over the tokens. Failure modes: none but the end of the tokens; the
 * error functions put CoreDNS's words around a text.
 */
#include "dispenser.h"

#include "error.h"

#include <stdio.h>
#include <string.h>

static const struct token *current(const struct dispenser *dispenser)
{
    return dispenser->next > 0 ? &dispenser->tokens[dispenser->next - 1] : NULL;
}

/** Next token. */
bool dispenser_next(struct dispenser *dispenser)
{
    if (dispenser->next == dispenser->count) {
        return false;
    }
    dispenser->next++;
    return true;
}

/** Next token of the line. */
bool dispenser_next_arg(struct dispenser *dispenser)
{
    const struct token *token = current(dispenser);

    if (dispenser->next == dispenser->count ||
        (token != NULL && !token_same_line(token, token + 1))) {
        return false;
    }
    dispenser->next++;
    return true;
}

/** Next token of the line that is no opening brace. */
bool dispenser_next_listed(struct dispenser *dispenser)
{
    if (!dispenser_next_arg(dispenser)) {
        return false;
    }
    if (strcmp(dispenser_value(dispenser), "{") == 0) {
        dispenser->next--;
        return false;
    }
    return true;
}

/** Next token of the block. */
bool dispenser_next_block(struct dispenser *dispenser)
{
    if (dispenser->nesting == 0) {
        if (!dispenser_next_arg(dispenser)) {
            return false; /* a block must open on the same line */
        }
        if (strcmp(dispenser_value(dispenser), "{") != 0) {
            dispenser->next--;
            return false;
        }
        dispenser->nesting++;
    }
    if (!dispenser_next(dispenser)) {
        return false;
    }
    if (strcmp(dispenser_value(dispenser), "}") == 0) {
        dispenser->nesting--;
        return false;
    }
    return true;
}

/** Text of the current token. */
const char *dispenser_value(const struct dispenser *dispenser)
{
    const struct token *token = current(dispenser);

    return token != NULL ? token->text : "";
}

/** Error at the current token. */
int dispenser_error(const struct dispenser *dispenser, const char *prefix, struct fwd_error *error,
                    const char *format, ...)
{
    const struct token *token = current(dispenser);
    struct error_place place = {.file = dispenser->filename};
    char text[2048];
    va_list args;

    if (token != NULL) {
        place.line = token->line;
        place.file = token->file != NULL ? token->file : dispenser->filename;
    }
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return error_set(error, FWD_ERR_SYNTAX, &place, "%s%s:%u - Error during parsing: %s", prefix,
                     place.file, place.line, text);
}

/** Missing or surplus argument. */
int dispenser_argument_error(const struct dispenser *dispenser, const char *prefix,
                             struct fwd_error *error)
{
    const char *value = dispenser_value(dispenser);

    if (strcmp(value, "{") == 0) {
        return dispenser_error(dispenser, prefix, error,
                               "Unexpected token '{', expecting argument");
    }
    return dispenser_error(dispenser, prefix, error,
                           "Wrong argument count or unexpected line ending after '%s'", value);
}
