/* UTF-8 as Go's runes see it: any octet that is no part of a valid sequence is one invalid rune of
 * width 1.
 *
 * Threads: any. Ownership: results of utf8_clean live in the arena. Standards: RFC 3629.
 */
#pragma once

#include "arena.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_INVALID UINT32_MAX
#define UTF8_REPLACEMENT "\xef\xbf\xbd" /**< U+FFFD */

/** Decodes the first rune of text (len > 0). @return its width; *ret is the rune or UTF8_INVALID */
size_t utf8_decode(const char *text, size_t len, uint32_t *ret);

/** unicode.IsSpace. */
bool utf8_space(uint32_t rune);

/** Whether it fits into JSON as it is: UTF-8 without NUL. */
bool utf8_valid(const char *text, size_t len);

/** A copy of text with U+FFFD for every invalid octet, and for NUL: what fits into JSON. @return
 * NULL when out of memory */
char *utf8_clean(struct arena *arena, const char *text, size_t len);
