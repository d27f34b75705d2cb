/* A JSON text read from its start to its end, value by value: no tree is made, which for very many server
 * blocks would take more time and memory than what is read from it.
 *
 * Threads: none of its own. Ownership: strings are decoded where they stand, so the text changes, and what
 * is read lasts as long as it. Any octets may be read; but that they are UTF-8 is not looked at.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jsonscan {
    char *at;
    char *end;
    bool broken; /**< something else stood there than was asked for; nothing more is read */
};

/** Whether the next value begins with this octet: `[`, `{`, `"`. */
bool jsonscan_is(struct jsonscan *scan, char first);

/** Enters an array or object. @return whether it has anything in it */
bool jsonscan_enter(struct jsonscan *scan, char bracket);

/** Behind a value in an array or object. @return whether another one follows; if not, it has been left */
bool jsonscan_next(struct jsonscan *scan);

/** Reads a string, without NUL. @return "" when broken */
const char *jsonscan_string(struct jsonscan *scan, size_t *ret_len);

/** Reads an object's member's name and its colon. */
const char *jsonscan_name(struct jsonscan *scan);

/** Reads digits. */
uint32_t jsonscan_number(struct jsonscan *scan);

/** Goes over one value. Of a number or a word it is not looked at what it is, and of brackets not which. */
void jsonscan_skip(struct jsonscan *scan);

/** What was read is not what was expected. */
void jsonscan_break(struct jsonscan *scan);

/** Nothing but space is left; else broken. */
bool jsonscan_end(struct jsonscan *scan);
