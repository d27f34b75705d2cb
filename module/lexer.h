/* Corefile text to tokens, and the environment in tokens.
 *
 * Threads: any; one at a time per arena. Ownership: texts and lists live in the arena given.
 * Standards: coredns/caddy caddyfile/lexer.go and parse.go (corner cases 1-5, 9).
 */
#pragma once

#include "arena.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct origin;

struct token {
    const char *text;
    const char *file;            /**< NULL in the file that parsing started with */
    uint32_t line;               /**< that it starts on, from 1 */
    const struct origin *origin; /**< the import that it came by, for corefile.c; else NULL */
};

/** Grown by token_push. Zero-initialise; items is to be freed. */
struct token_list {
    struct token *items;
    size_t count;
    size_t cap;
};

/** @return false when out of memory */
bool token_push(struct token_list *list, struct token token);

/** Number of newlines in a token's text. */
uint32_t token_breaks(const struct token *token);

bool token_same_file(const struct token *a, const struct token *b);

/** Whether b, which follows a, is on the line that a ends on (case 6). */
bool token_same_line(const struct token *a, const struct token *b);

/** Appends the tokens of text to *list. What is not UTF-8, and NUL, is read as U+FFFD.
 *  @return false when out of memory */
bool lexer_run(struct arena *arena, const char *text, size_t len, const char *file,
               struct token_list *list);

/** Replaces {%NAME%}, then {$NAME}, by the environment's values (case 9).
 *  @return the text itself when there is nothing to replace; NULL when out of memory, or, with
 * *ret_endless set, when a value's own references never end */
const char *environment_expand(struct arena *arena, const char *text, bool *ret_endless);
