/* Durations as Go's time package reads and prints them.
 *
 * Threads: any. Ownership: texts go into the caller's buffers. Limits: a signed 64-bit count of
 * nanoseconds, some 292 years. Standards: time.ParseDuration and Duration.String of Go.
 */
#pragma once

#include "text.h"

enum { DURATION_TEXT_MAX = 32 };

/** Reads "1h2m3.5s"; false with Go's error text in failure. */
bool duration_parse(const char *text, int64_t *ret_ns, struct failure *failure);

/** "1m30s", "1.5ms", "0s". */
void duration_print(int64_t ns, char buffer[DURATION_TEXT_MAX]);
