/* The `errors` directive: a line per query that failed, or one per period for many that are alike.
 *
 * Threads: made by main; error_log_write from any thread, without a lock; error_log_tick by main.
 * Ownership: error_log_fini writes what was counted last, and frees. Limits: patterns are PCRE2's,
 * of which Go's syntax is nearly a part; ERROR_PATTERN_MAX octets each.
 */
#pragma once

#include "message.h"
#include "text.h"

struct tokens;

enum { ERROR_PATTERN_MAX = 10000 };

struct error_log {
    bool there;
    struct error_pattern *patterns;
};

bool errors_parse(const struct tokens *tokens, struct error_log *ret, struct failure *failure);

/** Appends "[ERROR] plugin/errors: RCODE NAME TYPE: TEXT", or counts it with its like. */
void error_log_write(const struct error_log *log, const struct message *query, unsigned rcode,
                     const char *text, uint64_t now_ns, struct text *lines);

/** When the next count is to be written, UINT64_MAX when none is. */
uint64_t error_log_due(const struct error_log *log);

/** Writes the counts whose time has come. */
void error_log_tick(const struct error_log *log, uint64_t now_ns);

void error_log_fini(struct error_log *log);
