/* The `log` directive: one line per query that a rule selects.
 *
 * Threads: rules are made by main and then read by all; formatting needs no lock. Ownership:
 * query_log_fini frees the rules.
 */
#pragma once

#include "log_format.h"
#include "name.h"
#include "text.h"

struct tokens;

struct log_rule {
    struct name scope;
    unsigned classes; /**< of CLASS_* */
    struct log_format format;
};

struct query_log {
    struct log_rule *rules;
    size_t rule_count;
};

bool log_parse(const struct tokens *tokens, struct query_log *ret, struct failure *failure);
void query_log_fini(struct query_log *log);

/** Appends the line of the first rule whose scope holds the name, if its classes hold the answer's.
 */
void query_log_answer(const struct query_log *log, const struct log_event *event,
                      struct text *lines);
