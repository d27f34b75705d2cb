/* Lines about queries.
 *
 * Happy path: the first rule whose scope holds a query's name decides; its format makes the line.
 * Failure modes: unknown properties and classes are CoreDNS's errors.
 */
#include "query_log.h"

#include "answer_type.h"
#include "directive.h"

#include <stdlib.h>
#include <string.h>

#define FORMAT_COMMON                                                                              \
    "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} "   \
    "{>rflags} {rsize} {duration}"
#define FORMAT_COMBINED FORMAT_COMMON " \"{>opcode}\""

/* {common} and {combined} stand for whole formats. */
static void format_expand(struct text *out, const char *format)
{
    static const char *const names[][2] = {{"{common}", FORMAT_COMMON},
                                           {"{combined}", FORMAT_COMBINED}};
    while (*format != '\0') {
        size_t taken = 0;
        for (size_t i = 0; i < 2 && taken == 0; i++) {
            size_t len = strlen(names[i][0]);
            if (strncmp(format, names[i][0], len) == 0) {
                text_append(out, names[i][1], strlen(names[i][1]));
                taken = len;
            }
        }
        if (taken == 0) {
            text_append(out, format, 1);
            taken = 1;
        }
        format += taken;
    }
}

static bool rule_add(struct query_log *log, const char *scope, const char *format,
                     const struct directive *directive, struct failure *failure)
{
    struct log_rule *rules = reallocarray(log->rules, log->rule_count + 1, sizeof(*rules));
    if (rules == NULL) {
        return failure_set(failure, "plugin/log: out of memory");
    }
    log->rules = rules;
    struct log_rule *rule = &rules[log->rule_count++];
    *rule = (struct log_rule){.classes = CLASS_ALL};
    if (!name_from_text(&rule->scope, scope)) {
        return directive_refuse(directive, failure, "'%s' is not a domain name", scope);
    }
    struct text expanded = {0};
    format_expand(&expanded, format);
    bool ok = !expanded.failed && log_format_parse(&rule->format, expanded.data);
    text_fini(&expanded);
    return ok || failure_set(failure, "plugin/log: out of memory");
}

static bool class_read(struct directive *directive, unsigned *classes, struct failure *failure)
{
    static const struct {
        const char *name;
        unsigned bits;
    } names[] = {{"all", CLASS_ALL},
                 {"success", CLASS_SUCCESS},
                 {"denial", CLASS_DENIAL},
                 {"error", CLASS_ERROR}};
    const char *word = directive_argument(directive);
    if (word == NULL) {
        return directive_refuse_count(directive, failure);
    }
    for (; word != NULL; word = directive_argument(directive)) {
        unsigned bits = 0;
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            bits |= strcmp(word, names[i].name) == 0 ? names[i].bits : 0;
        }
        if (bits == 0) {
            return failure_set(failure, "plugin/log: invalid Class: %s", word);
        }
        *classes |= bits;
    }
    return true;
}

/* One log line: names, perhaps a format behind them, perhaps a block with classes. */
static bool log_line_parse(struct directive *directive, struct query_log *log,
                           struct failure *failure)
{
    size_t first = directive->cursor + 1;
    size_t count = 0;
    while (directive_argument(directive) != NULL) {
        count++;
    }
    size_t before = log->rule_count;
    const char *format = FORMAT_COMMON;
    if (count > 1 && strchr(directive_text(directive), '{') != NULL) {
        format = directive_text(directive);
        count--;
    }
    if (count == 0 && !rule_add(log, ".", format, directive, failure)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const char *scope = directive->tokens->items[first + i].text;
        if (!rule_add(log, scope, format, directive, failure)) {
            return false;
        }
    }
    unsigned classes = 0;
    while (directive_next_in_block(directive)) {
        if (strcmp(directive_text(directive), "class") != 0) {
            return directive_refuse(directive, failure, "unknown property '%s'",
                                    directive_text(directive));
        }
        if (!class_read(directive, &classes, failure)) {
            return false;
        }
    }
    for (size_t i = before; classes != 0 && i < log->rule_count; i++) {
        log->rules[i].classes = classes;
    }
    return true;
}

/** Reads the log lines of a server block. */
bool log_parse(const struct tokens *tokens, struct query_log *ret, struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "log", tokens);
    while (directive_next(&directive)) {
        if (!log_line_parse(&directive, ret, failure)) {
            return false;
        }
    }
    return true;
}

/** Frees the rules. */
void query_log_fini(struct query_log *log)
{
    for (size_t i = 0; i < log->rule_count; i++) {
        log_format_fini(&log->rules[i].format);
    }
    free(log->rules);
    *log = (struct query_log){0};
}

/** The line of an answered query. */
void query_log_answer(const struct query_log *log, const struct log_event *event,
                      struct text *lines)
{
    for (size_t i = 0; i < log->rule_count; i++) {
        const struct log_rule *rule = &log->rules[i];
        if (!name_under(event->query->wire + HEADER_LEN, rule->scope.wire)) {
            continue;
        }
        if (rule->classes != CLASS_ALL &&
            (rule->classes & answer_class_of(answer_type_of(event->query, event->rcode,
                                                            event->reply, event->reply_len))) ==
                0) {
            return;
        }
        text_append(lines, "[INFO] ", 7);
        log_format_append(&rule->format, event, lines);
        text_append(lines, "\n", 1);
        return;
    }
}
