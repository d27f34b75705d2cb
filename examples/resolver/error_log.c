/* Lines about errors.
 *
 * Happy path: the first pattern that matches counts the error; the first error of a period tells
 * main (SIGNAL_POKE) when to write the count. Failure modes: a pattern that does not compile is an
 * error of the Corefile; one that takes too long on an error's text does not match it.
 */
#include "error_log.h"

#include "directive.h"
#include "duration.h"
#include "log.h"
#include "mnemonic.h"
#include "name.h"
#include "poke.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#endif

struct error_pattern {
    struct error_pattern *next;
    char *text;
    int64_t period_ns;
    uint32_t level;
    bool show_first;
    void *code;
    atomic_uint count;
    _Atomic uint64_t due_ns; /* UINT64_MAX: nothing counted */
};

#ifdef HAVE_PCRE2

static bool pattern_compile(struct error_pattern *pattern, char *why, size_t cap)
{
    int error;
    PCRE2_SIZE at;
    pattern->code =
        pcre2_compile((PCRE2_SPTR)pattern->text, PCRE2_ZERO_TERMINATED, 0, &error, &at, NULL);
    if (pattern->code == NULL) {
        (void)pcre2_get_error_message(error, (PCRE2_UCHAR *)why, cap);
    }
    return pattern->code != NULL;
}

static bool pattern_matches(const struct error_pattern *pattern, const char *text)
{
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    if (data == NULL) {
        return false;
    }
    /* 0: matched, the one pair of offsets was too few for the groups */
    bool matched =
        pcre2_match(pattern->code, (PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, 0, data, NULL) >= 0;
    pcre2_match_data_free(data);
    return matched;
}

static void pattern_release(struct error_pattern *pattern)
{
    pcre2_code_free(pattern->code);
}

#else

static bool pattern_compile(struct error_pattern *pattern, char *why, size_t cap)
{
    (void)snprintf(why, cap, "fwd-resolver was built without PCRE2");
    return false;
}

static bool pattern_matches(const struct error_pattern *pattern, const char *text)
{
    return false;
}

static void pattern_release(struct error_pattern *pattern)
{
}

#endif

static void pattern_free(struct error_pattern *pattern)
{
    pattern_release(pattern);
    free(pattern->text);
    free(pattern);
}

/* LEVEL, then show_first, both optional. */
static bool modifiers_read(struct directive *directive, struct error_pattern *pattern,
                           struct failure *failure)
{
    static const struct {
        const char *name;
        uint32_t level;
    } levels[] = {{"warning", FWD_LEVEL_WARNING},
                  {"error", FWD_LEVEL_ERROR},
                  {"info", FWD_LEVEL_INFO},
                  {"debug", FWD_LEVEL_DEBUG}};
    for (const char *word; (word = directive_argument(directive)) != NULL;) {
        uint32_t level = 0;
        for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
            level = strcmp(word, levels[i].name) == 0 ? levels[i].level : level;
        }
        if (level != 0 && pattern->level != 0) {
            return directive_refuse(directive, failure,
                                    "multiple log levels specified in consolidate");
        }
        if (level != 0 && pattern->show_first) {
            return directive_refuse(directive, failure,
                                    "log level must come before show_first in consolidate");
        }
        if (level == 0 && strcmp(word, "show_first") != 0) {
            return directive_refuse(directive, failure, "unknown option in consolidate: %s", word);
        }
        pattern->level = level != 0 ? level : pattern->level;
        pattern->show_first |= level == 0;
    }
    pattern->level = pattern->level != 0 ? pattern->level : FWD_LEVEL_ERROR;
    return true;
}

static bool pattern_fill(struct directive *directive, struct error_pattern *pattern,
                         struct failure *failure)
{
    const char *period = directive_argument(directive);
    struct failure why;
    if (!duration_parse(period, &pattern->period_ns, &why)) {
        return directive_refuse(directive, failure, "%.512s", why.text);
    }
    const char *text = directive_argument(directive);
    if (strlen(text) > ERROR_PATTERN_MAX) {
        return directive_refuse(directive, failure, "regex pattern too long: %zu > %d",
                                strlen(text), ERROR_PATTERN_MAX);
    }
    pattern->text = strdup(text);
    if (pattern->text == NULL) {
        return failure_set(failure, "plugin/errors: out of memory");
    }
    if (!pattern_compile(pattern, why.text, sizeof(why.text))) {
        return directive_refuse(directive, failure, "error parsing regexp: %.256s: `%.512s`",
                                why.text, text);
    }
    return modifiers_read(directive, pattern, failure);
}

/* consolidate DURATION REGEXP [LEVEL] [show_first] */
static bool consolidate_read(struct directive *directive, struct error_log *log,
                             struct failure *failure)
{
    struct directive ahead = *directive;
    size_t count = 0;
    while (directive_argument(&ahead) != NULL) {
        count++;
    }
    if (count < 2 || count > 4) {
        return directive_refuse_count(&ahead, failure);
    }
    struct error_pattern *pattern = calloc(1, sizeof(*pattern));
    if (pattern == NULL) {
        return failure_set(failure, "plugin/errors: out of memory");
    }
    atomic_init(&pattern->due_ns, UINT64_MAX);
    if (!pattern_fill(directive, pattern, failure)) {
        pattern_free(pattern);
        return false;
    }
    struct error_pattern **end = &log->patterns;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = pattern;
    return true;
}

/** Reads the errors line of a server block. */
bool errors_parse(const struct tokens *tokens, struct error_log *ret, struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "errors", tokens);
    while (directive_next(&directive)) {
        if (ret->there) {
            return failure_set(failure, "plugin/errors: this plugin can only be used once per "
                                        "Server Block");
        }
        ret->there = true;
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
            if (strcmp(option, "stacktrace") == 0) {
                continue; /* of panics, which there are none */
            }
            if (strcmp(option, "consolidate") == 0) {
                if (!consolidate_read(&directive, ret, failure)) {
                    return false;
                }
                continue;
            }
            char expected[256];
            (void)snprintf(expected, sizeof(expected), "Unknown field %s", option);
            return directive_refuse_token(&directive, failure, expected);
        }
    }
    return true;
}

/* Counts an error. The first of a period is to be written all the same with show_first. */
static bool pattern_count(struct error_pattern *pattern, uint64_t now_ns)
{
    if (atomic_fetch_add(&pattern->count, 1) > 0) {
        return false;
    }
    atomic_store(&pattern->due_ns, now_ns + (uint64_t)pattern->period_ns);
    poke_main();
    return pattern->show_first;
}

/** The line of a failed query. */
void error_log_write(const struct error_log *log, const struct message *query, unsigned rcode,
                     const char *text, uint64_t now_ns, struct text *lines)
{
    if (!log->there || text == NULL || text[0] == '\0') {
        return;
    }
    uint32_t level = FWD_LEVEL_ERROR;
    for (struct error_pattern *pattern = log->patterns; pattern != NULL; pattern = pattern->next) {
        if (pattern_matches(pattern, text)) {
            if (!pattern_count(pattern, now_ns)) {
                return;
            }
            level = pattern->level;
            break;
        }
    }
    if (level == FWD_LEVEL_DEBUG) {
        return;
    }
    char name[NAME_TEXT_MAX];
    char buffer[MNEMONIC_MAX];
    name_to_text(query->wire + HEADER_LEN, name);
    text_printf(lines, "[%s] plugin/errors: %u %s %s: %s\n", log_level_name(level), rcode, name,
                type_name(query->qtype, buffer), text);
}

static void pattern_report(struct error_pattern *pattern)
{
    atomic_store(&pattern->due_ns, UINT64_MAX);
    unsigned count = atomic_exchange(&pattern->count, 0);
    if (count == 0 || (count == 1 && pattern->show_first) || pattern->level == FWD_LEVEL_DEBUG) {
        return;
    }
    char period[DURATION_TEXT_MAX];
    duration_print(pattern->period_ns, period);
    log_print(pattern->level, "plugin/errors: %u errors like '%s' occurred in last %s", count,
              pattern->text, period);
}

/** The earliest. */
uint64_t error_log_due(const struct error_log *log)
{
    uint64_t due = UINT64_MAX;
    for (struct error_pattern *pattern = log->patterns; pattern != NULL; pattern = pattern->next) {
        uint64_t this = atomic_load(&pattern->due_ns);
        due = this < due ? this : due;
    }
    return due;
}

/** Reports. */
void error_log_tick(const struct error_log *log, uint64_t now_ns)
{
    for (struct error_pattern *pattern = log->patterns; pattern != NULL; pattern = pattern->next) {
        if (atomic_load(&pattern->due_ns) <= now_ns) {
            pattern_report(pattern);
        }
    }
}

/** Reports and frees. */
void error_log_fini(struct error_log *log)
{
    while (log->patterns != NULL) {
        struct error_pattern *pattern = log->patterns;
        log->patterns = pattern->next;
        pattern_report(pattern);
        pattern_free(pattern);
    }
    *log = (struct error_log){0};
}
