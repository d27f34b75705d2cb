/* The `log` and `errors` directives: one line per query that a rule selects, one per query that
 * failed.
 *
 * Threads: rules are made by main and then read by all; formatting needs no lock. Ownership:
 * query_log_fini frees the rules. Limits: metadata labels ({/plugin/name}) print "-", as in a
 * CoreDNS without the metadata plugin.
 */
#pragma once

#include "address.h"
#include "message.h"
#include "name.h"
#include "text.h"

#include <jansson.h>

/** Classes of an answer, as bits. */
enum { CLASS_SUCCESS = 1, CLASS_DENIAL = 2, CLASS_ERROR = 4, CLASS_ALL = 7 };

struct log_node {
    const char *label; /**< one of the known labels, or NULL for literal text */
    char *literal;
};

struct log_rule {
    struct name scope;
    unsigned classes;
    struct log_node *nodes;
    size_t node_count;
};

struct query_log {
    struct log_rule *rules;
    size_t rule_count;
    bool errors; /**< the errors directive is there */
};

/** What there is to say about an answered query. */
struct log_event {
    const struct message *query;
    const union address *client;
    const union address *local; /**< of family AF_UNSPEC when not known */
    bool stream;
    unsigned rcode;
    const uint8_t
        *reply; /**< the reply as the chain made it; its flags and records are looked at */
    uint32_t reply_len;
    uint64_t duration_ns;
};

bool log_parse(const json_t *tokens, struct query_log *ret, struct failure *failure);
bool errors_parse(const json_t *tokens, struct query_log *ret, struct failure *failure);
void query_log_fini(struct query_log *log);

/** Appends the line of the first rule whose scope holds the name, if its classes hold the answer's.
 */
void query_log_answer(const struct query_log *log, const struct log_event *event,
                      struct text *lines);

/** Appends "[ERROR] plugin/errors: RCODE NAME TYPE: TEXT". */
void query_log_error(const struct query_log *log, const struct message *query, unsigned rcode,
                     const char *text, struct text *lines);
