/* Growable text, and the one line that says why something could not be done.
 *
 * Threads: none of its own. Ownership: text_fini frees. Limits: a failure's text is cut at
 * FAILURE_MAX octets.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *data; /**< NUL-terminated once anything was appended, else NULL */
    size_t len;
    size_t cap;
    bool failed; /**< out of memory: what was appended since is lost */
};

void text_append(struct text *text, const char *data, size_t len);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_fini(struct text *text);

/** A fwd_sink_fn that appends to the struct text at arg. */
int32_t text_sink(void *arg, const char *data, uint64_t len);

enum { FAILURE_MAX = 2048 };

struct failure {
    char text[FAILURE_MAX];
};

/** Writes the text and returns false, so that `return failure_set(...)` reads well. */
bool failure_set(struct failure *failure, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
