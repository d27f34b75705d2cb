/* Lines about queries.
 *
 * Happy path: a format is cut into labels and literal text once, when the Corefile is read; a
 * query's line is their values one after the other. Failure modes: unknown properties and classes
 * are CoreDNS's errors; `consolidate` of errors is refused by name, as silently ignoring it would
 * flood a log that was meant to stay quiet.
 */
#include "query_log.h"

#include "directive.h"
#include "mnemonic.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_COMMON                                                                              \
    "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} "   \
    "{>rflags} {rsize} {duration}"
#define FORMAT_COMBINED FORMAT_COMMON " \"{>opcode}\""

static const char *const labels[] = {
    "{type}",  "{name}",  "{class}",    "{proto}",   "{size}", "{remote}",
    "{port}",  "{local}", "{>id}",      "{>opcode}", "{>do}",  "{>bufsize}",
    "{rcode}", "{rsize}", "{duration}", "{>rflags}", "{/",
};

static const char *label_find(const char *text, size_t len)
{
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        size_t want = strlen(labels[i]);
        bool metadata = labels[i][1] == '/';
        if ((metadata ? len >= want : len == want) && memcmp(labels[i], text, want) == 0) {
            return labels[i];
        }
    }
    return NULL;
}

static bool node_add(struct log_rule *rule, const char *label, const char *literal, size_t len)
{
    struct log_node *nodes = reallocarray(rule->nodes, rule->node_count + 1, sizeof(*nodes));
    if (nodes == NULL) {
        return false;
    }
    rule->nodes = nodes;
    struct log_node *node = &nodes[rule->node_count];
    *node = (struct log_node){.label = label};
    if (label == NULL) {
        node->literal = strndup(literal, len);
        if (node->literal == NULL) {
            return false;
        }
    }
    rule->node_count++;
    return true;
}

/* A label is what lies between a closing brace and the last opening brace before it; anything else
 * is literal. */
static bool format_parse(struct log_rule *rule, const char *format)
{
    const char *literal = format;
    for (const char *close = strchr(format, '}'); close != NULL; close = strchr(close + 1, '}')) {
        const char *open = memrchr(literal, '{', (size_t)(close - literal));
        const char *label = open != NULL ? label_find(open, (size_t)(close - open) + 1) : NULL;
        if (label == NULL) {
            continue;
        }
        if (open > literal && !node_add(rule, NULL, literal, (size_t)(open - literal))) {
            return false;
        }
        if (!node_add(rule, label, NULL, 0)) {
            return false;
        }
        literal = close + 1;
    }
    return *literal == '\0' || node_add(rule, NULL, literal, strlen(literal));
}

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
    bool ok = !expanded.failed && format_parse(rule, expanded.data);
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
        const json_t *token = json_array_get(directive->tokens, first + i);
        const char *scope = json_string_value(json_object_get(token, "text"));
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
bool log_parse(const json_t *tokens, struct query_log *ret, struct failure *failure)
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

/** Reads the errors line of a server block. */
bool errors_parse(const json_t *tokens, struct query_log *ret, struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "errors", tokens);
    while (directive_next(&directive)) {
        if (ret->errors) {
            return failure_set(failure, "plugin/errors: this plugin can only be used once per "
                                        "Server Block");
        }
        ret->errors = true;
        const char *file = directive_argument(&directive);
        if (file != NULL && directive_argument(&directive) != NULL) {
            while (directive_argument(&directive) != NULL) {
            }
            return directive_refuse_count(&directive, failure);
        }
        if (file != NULL && strcmp(file, "stdout") != 0) {
            return directive_refuse(&directive, failure, "invalid log file: %s", file);
        }
        while (directive_next_in_block(&directive)) {
            const char *option = directive_text(&directive);
            if (strcmp(option, "stacktrace") == 0 || strcmp(option, "consolidate") == 0) {
                return directive_refuse(
                    &directive, failure,
                    "'%s' is an option of CoreDNS's errors that fwd-resolver does not have",
                    option);
            }
            char expected[256];
            (void)snprintf(expected, sizeof(expected), "Unknown field %s", option);
            return directive_refuse_token(&directive, failure, expected);
        }
    }
    return true;
}

/** Frees the rules. */
void query_log_fini(struct query_log *log)
{
    for (size_t i = 0; i < log->rule_count; i++) {
        for (size_t n = 0; n < log->rules[i].node_count; n++) {
            free(log->rules[i].nodes[n].literal);
        }
        free(log->rules[i].nodes);
    }
    free(log->rules);
    *log = (struct query_log){0};
}

static bool name_under(const uint8_t *name, const uint8_t *scope)
{
    uint8_t of_name[NAME_LABELS_MAX];
    uint8_t of_scope[NAME_LABELS_MAX];
    unsigned labels_name = name_labels(name, of_name);
    unsigned labels_scope = name_labels(scope, of_scope);
    if (labels_scope > labels_name) {
        return false;
    }
    if (labels_scope == 0) {
        return true;
    }
    const uint8_t *suffix = name + of_name[labels_name - labels_scope];
    for (;; suffix++, scope++) {
        if (octet_lower(*suffix) != octet_lower(*scope)) {
            return false;
        }
        if (*scope == 0) {
            return true;
        }
    }
}

/* CoreDNS's typing of an answer, reduced to the three classes. */
static unsigned answer_class(const struct log_event *event)
{
    const uint8_t *wire = event->reply;
    unsigned opcode = wire[2] >> 3 & 15;
    if (opcode != OPCODE_QUERY || event->query->qtype == TYPE_AXFR ||
        event->query->qtype == TYPE_IXFR) {
        return CLASS_ERROR;
    }
    uint16_t answers = get16(wire + 6);
    if (event->rcode == RCODE_NXDOMAIN) {
        return answers == 0 ? CLASS_DENIAL : CLASS_ERROR;
    }
    if (event->rcode != RCODE_NOERROR) {
        return CLASS_ERROR;
    }
    if (answers > 0) {
        return CLASS_SUCCESS;
    }
    uint32_t at = event->query->question_end; /* the answer repeats the question */
    for (uint16_t i = get16(wire + 8); i > 0; i--) {
        struct record record;
        if (!record_next(wire, event->reply_len, at, &record)) {
            break;
        }
        if (record.type == TYPE_SOA) {
            return CLASS_DENIAL;
        }
        at = record.end;
    }
    return CLASS_SUCCESS;
}

/* The IP address in brackets if it is IPv6, "-" when it is not known. */
static void address_append(struct text *line, const union address *address)
{
    char host[INET6_ADDRSTRLEN] = "-";
    struct fwd_addr plain = address_to_abi(address);
    if (address->any.sa_family != AF_UNSPEC) {
        (void)inet_ntop(plain.family == 4 ? AF_INET : AF_INET6, plain.ip, host, sizeof(host));
    }
    text_printf(line, strchr(host, ':') != NULL ? "[%s]" : "%s", host);
}

static void flags_append(struct text *line, const uint8_t *wire)
{
    static const struct {
        uint8_t octet;
        uint8_t bit;
        const char *name;
    } flags[] = {{2, BIT_QR, "qr"}, {2, BIT_AA, "aa"}, {2, BIT_TC, "tc"}, {2, BIT_RD, "rd"},
                 {3, BIT_RA, "ra"}, {3, BIT_Z, "z"},   {3, BIT_AD, "ad"}, {3, BIT_CD, "cd"}};
    const char *comma = "";
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if ((wire[flags[i].octet] & flags[i].bit) != 0) {
            text_printf(line, "%s%s", comma, flags[i].name);
            comma = ",";
        }
    }
}

/* Seconds with as many decimals as are needed. */
static void duration_append(struct text *line, uint64_t ns)
{
    char fraction[16];
    int len = snprintf(fraction, sizeof(fraction), ".%09u", (unsigned)(ns % 1000000000u));
    while (len > 0 && (fraction[len - 1] == '0' || fraction[len - 1] == '.')) {
        len--;
        if (fraction[len] == '.') {
            break;
        }
    }
    text_printf(line, "%llu%.*ss", (unsigned long long)(ns / 1000000000u), len, fraction);
}

static void label_append(struct text *line, const char *label, const struct log_event *event)
{
    const struct message *query = event->query;
    char buffer[MNEMONIC_MAX];
    char name[NAME_TEXT_MAX];
    if (strcmp(label, "{type}") == 0) {
        text_printf(line, "%s", type_name(query->qtype, buffer));
    } else if (strcmp(label, "{name}") == 0) {
        name_to_text(query->wire + HEADER_LEN, name);
        text_printf(line, "%s", name);
    } else if (strcmp(label, "{class}") == 0) {
        text_printf(line, "%s", class_name(query->qclass, buffer));
    } else if (strcmp(label, "{proto}") == 0) {
        text_printf(line, "%s", event->stream ? "tcp" : "udp");
    } else if (strcmp(label, "{size}") == 0) {
        text_printf(line, "%u", query->len);
    } else if (strcmp(label, "{remote}") == 0) {
        address_append(line, event->client);
    } else if (strcmp(label, "{port}") == 0) {
        text_printf(line, "%u", address_port(event->client));
    } else if (strcmp(label, "{local}") == 0) {
        address_append(line, event->local);
    } else if (strcmp(label, "{>id}") == 0) {
        text_printf(line, "%u", get16(query->wire));
    } else if (strcmp(label, "{>opcode}") == 0) {
        text_printf(line, "%u", query->wire[2] >> 3 & 15);
    } else if (strcmp(label, "{>do}") == 0) {
        text_printf(line, "%s", (query->opt_ttl & 0x8000) != 0 ? "true" : "false");
    } else if (strcmp(label, "{>bufsize}") == 0) {
        text_printf(line, "%u", message_reply_limit(query, event->stream));
    } else if (strcmp(label, "{rcode}") == 0) {
        text_printf(line, "%s", rcode_name(event->rcode, buffer));
    } else if (strcmp(label, "{rsize}") == 0) {
        text_printf(line, "%u", event->reply_len);
    } else if (strcmp(label, "{duration}") == 0) {
        duration_append(line, event->duration_ns);
    } else if (strcmp(label, "{>rflags}") == 0) {
        flags_append(line, event->reply);
    } else {
        text_append(line, "-", 1); /* metadata */
    }
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
        if (rule->classes != CLASS_ALL && (rule->classes & answer_class(event)) == 0) {
            return;
        }
        text_append(lines, "[INFO] ", 7);
        for (size_t n = 0; n < rule->node_count; n++) {
            const struct log_node *node = &rule->nodes[n];
            if (node->label != NULL) {
                label_append(lines, node->label, event);
            } else {
                text_append(lines, node->literal, strlen(node->literal));
            }
        }
        text_append(lines, "\n", 1);
        return;
    }
}

/** The line of a failed query. */
void query_log_error(const struct query_log *log, const struct message *query, unsigned rcode,
                     const char *text, struct text *lines)
{
    if (!log->errors || text == NULL || text[0] == '\0') {
        return;
    }
    char name[NAME_TEXT_MAX];
    char buffer[MNEMONIC_MAX];
    name_to_text(query->wire + HEADER_LEN, name);
    text_printf(lines, "[ERROR] plugin/errors: %u %s %s: %s\n", rcode, name,
                type_name(query->qtype, buffer), text);
}
