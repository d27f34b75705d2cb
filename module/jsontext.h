/* JSON written straight to text, for documents of millions of values: a tree of them costs a hundred
 * times their octets.
 *
 * Threads: one at a time per text. Ownership: jsontext_free frees data. Limits: what is written is
 * the caller's to nest rightly. Standards: RFC 8259.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jsontext {
    char *data; /**< NULL when nothing was written; not ended with NUL */
    size_t len;
    size_t cap;
    bool failed; /**< out of memory: what was written since is lost */
};

/** What is JSON already. */
void jsontext_raw(struct jsontext *out, const char *text);
void jsontext_append(struct jsontext *out, const struct jsontext *part);

/** A string, which must be UTF-8. */
void jsontext_string(struct jsontext *out, const char *text);

void jsontext_number(struct jsontext *out, uint32_t number);

/** A comma, unless it is the first value after first. */
void jsontext_comma(struct jsontext *out, size_t first);

void jsontext_free(struct jsontext *out);
