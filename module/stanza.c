/* Forward directives to JSON.
 *
 * The options are read by stanza_options.c into the JSON of the stanza. What is left out gets its
 * default, and the whole its last check, by a pass through config.c: there is one place for
 * defaults.
 *
 * Happy path: FROM, TO, the block, the checks of the whole, in CoreDNS's order (case 16).
 * Failure modes: FWD_ERR_SYNTAX for what the dispenser finds, with file and line in the text;
 * FWD_ERR_CONFIG for values, whose text has none in CoreDNS, but *error has them apart.
 * FWD_ERR_NOMEM. Warnings of what stands before the error are returned all the same.
 */
#include "stanza.h"

#include "config.h"
#include "error.h"
#include "gotext.h"
#include "hostport.h"
#include "stanza_parser.h"
#include "target.h"
#include "utf8.h"
#include "zone.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPIRE_DEFAULT INT64_C(10000000000)

/* --- errors --- */

/** Reports that memory is out. */
int stanza_nomem(struct stanza_parser *parser)
{
    return error_set(parser->error, FWD_ERR_NOMEM, NULL, "out of memory");
}

/** Turns the outcome of a JSON or arena call into a status. */
int stanza_stored(struct stanza_parser *parser, bool ok)
{
    return ok ? FWD_OK : stanza_nomem(parser);
}

/** A missing or surplus argument. */
int stanza_argument_error(struct stanza_parser *parser)
{
    return dispenser_argument_error(&parser->dispenser, STANZA_PREFIX, parser->error);
}

/** An error without a position in its text. */
int stanza_error(struct stanza_parser *parser, const char *format, ...)
{
    const struct dispenser *dispenser = &parser->dispenser;
    const struct token *token = &dispenser->tokens[dispenser->next - 1];
    struct error_place place = {.file = token->file, .line = token->line};
    char text[TARGET_REASON];
    va_list args;

    if (place.file == NULL) {
        place.file = dispenser->filename;
    }
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return error_set(parser->error, FWD_ERR_CONFIG, &place, STANZA_PREFIX "%s", text);
}

/* --- arguments --- */

/** Text of the current token. */
const char *stanza_value(const struct stanza_parser *parser)
{
    return dispenser_value(&parser->dispenser);
}

/** Steps to the option's argument. */
int stanza_argument(struct stanza_parser *parser)
{
    return dispenser_next_arg(&parser->dispenser) ? FWD_OK : stanza_argument_error(parser);
}

/** The rest of the line up to an opening brace. */
int stanza_arguments(struct stanza_parser *parser, struct arguments *ret)
{
    *ret = (struct arguments){0};
    while (dispenser_next_listed(&parser->dispenser)) {
        const char **items = realloc(ret->items, (ret->count + 1) * sizeof(*items));

        if (items == NULL) {
            free(ret->items);
            ret->items = NULL;
            return stanza_nomem(parser);
        }
        ret->items = items;
        ret->items[ret->count++] = stanza_value(parser);
    }
    return FWD_OK;
}

/** As arguments_read; none is an error. */
int stanza_some_arguments(struct stanza_parser *parser, struct arguments *ret)
{
    int status = stanza_arguments(parser, ret);

    return status == FWD_OK && ret->count == 0 ? stanza_argument_error(parser) : status;
}

/** Sets a member of the stanza at hand. */
int stanza_set(struct stanza_parser *parser, const char *name, json_t *json)
{
    return stanza_stored(parser, json_object_set_new(parser->stanza, name, json) == 0);
}

/* --- stanzas --- */

static int from_read(struct stanza_parser *parser)
{
    char reason[GOTEXT_REASON];
    struct zone_list zones;
    json_t *warning;
    int status = stanza_argument(parser);

    if (status != FWD_OK) {
        return status;
    }
    status = zone_parse(&parser->arena, stanza_value(parser), &zones, reason);
    if (status == -1) {
        return stanza_error(parser, "unable to normalize '%s'", stanza_value(parser));
    }
    if (status != 0) {
        return stanza_nomem(parser);
    }
    if (zones.count > 1) {
        warning = json_sprintf("Unsupported CIDR notation: '%s' expands to multiple zones. Using "
                               "only '%s'.",
                               stanza_value(parser), zones.names[0]);
        status = stanza_stored(parser, json_array_append_new(parser->warnings, warning) == 0);
    }
    return status == FWD_OK ? stanza_set(parser, "from", json_string(zones.names[0])) : status;
}

static int max_age_check(struct stanza_parser *parser)
{
    char age[GOTEXT_DURATION];
    char expire[GOTEXT_DURATION];

    if (parser->max_age_ns == 0 || parser->max_age_ns >= parser->expire_ns) {
        return FWD_OK;
    }
    gotext_duration_print(parser->max_age_ns, age);
    gotext_duration_print(parser->expire_ns, expire);
    return stanza_error(parser, "max_age (%s) must not be less than expire (%s)", age, expire);
}

static int targets_add(struct stanza_parser *parser, const struct target_list *targets)
{
    json_t *array = json_array();
    int status = stanza_set(parser, "to", array);

    for (size_t i = 0; status == FWD_OK && i < targets->count; i++) {
        const struct target *target = &targets->items[i];
        struct fwd_addr addr;
        json_t *to;

        if (hostport_address(target->addr, &addr) == HOSTPORT_SCOPE) {
            return stanza_error(parser, "'%s' names no network interface of this machine",
                                target->addr);
        }
        to = json_pack("{s:s}", "addr", target->addr);
        if (strcmp(target->transport, "dns") != 0) {
            status = stanza_stored(
                parser, json_object_set_new(to, "transport", json_string(target->transport)) == 0);
        }
        if (status == FWD_OK && *target->tls_servername != '\0') {
            json_t *name = json_string(target->tls_servername);

            status = stanza_stored(parser, json_object_set_new(to, "tls_servername", name) == 0);
        }
        if (json_array_append_new(array, to) != 0) {
            status = stanza_nomem(parser);
        }
    }
    return status;
}

static int to_expand(struct stanza_parser *parser, const struct arguments *to,
                     size_t *ret_arguments)
{
    struct target_list targets;
    char reason[TARGET_REASON];
    int status = target_expand(&parser->arena, to->items, to->count, parser->resolver,
                               parser->tls_servername, &targets, reason);

    if (status == 0) {
        status = targets_add(parser, &targets);
    } else {
        status = status == -1 ? stanza_error(parser, "%s", reason) : stanza_nomem(parser);
    }
    *ret_arguments = targets.arguments;
    free(targets.items);
    return status;
}

/* One stanza, of which the directive's name is current. */
static int stanza_read(struct stanza_parser *parser, size_t *ret_arguments)
{
    struct arguments to = {0};
    int status = from_read(parser);

    if (status == FWD_OK) {
        status = stanza_some_arguments(parser, &to);
    }
    while (status == FWD_OK && dispenser_next_block(&parser->dispenser)) {
        status = stanza_option(parser);
    }
    if (status == FWD_OK) {
        status = max_age_check(parser);
    }
    if (status == FWD_OK) {
        status = to_expand(parser, &to, ret_arguments);
    }
    free(to.items);
    return status;
}

/* All stanzas; the limit of TO arguments comes last (case 16), so its first violation is kept in
 * *ret_excess. */
static int stanzas_read(struct stanza_parser *parser, size_t *ret_excess)
{
    int status = FWD_OK;

    while (status == FWD_OK && dispenser_next(&parser->dispenser)) {
        size_t arguments = 0;

        parser->expire_ns = EXPIRE_DEFAULT;
        parser->max_age_ns = 0;
        parser->resolver = false;
        parser->tls_servername = "";
        parser->stanza = json_object();
        status = stanza_stored(parser, json_array_append_new(parser->stanzas, parser->stanza) == 0);
        if (status == FWD_OK) {
            status = stanza_read(parser, &arguments);
        }
        if (*ret_excess == 0 && arguments > FWD_MAX_UPSTREAMS) {
            *ret_excess = arguments;
        }
    }
    return status;
}

/* Checks the whole and, unless it is to be brief, fills in the defaults. */
static int config_fill(struct stanza_parser *parser, bool brief, json_t **ret)
{
    json_t *root = json_pack("{s:O}", "forward", parser->stanzas);
    struct config *config = NULL;
    int status =
        root != NULL ? config_from_json(root, &config, parser->error) : stanza_nomem(parser);

    if (status == FWD_OK && !brief) {
        json_decref(root);
        root = config_to_json(config);
        (void)json_object_del(root, "io_threads");
        (void)json_object_del(root, "loops");
        (void)json_object_del(root, "engine");
    }
    config_destroy(config);
    if (status == FWD_OK && json_array_size(parser->warnings) > 0) {
        status = stanza_stored(parser, json_object_set(root, "warnings", parser->warnings) == 0);
    }
    if (status == FWD_OK && root != NULL) {
        *ret = root;
        return FWD_OK;
    }
    json_decref(root);
    return status != FWD_OK ? status : stanza_nomem(parser);
}

/* The warnings alone, for what comes to an error; NULL when there are none. */
static json_t *warnings_document(const struct stanza_parser *parser)
{
    return json_array_size(parser->warnings) > 0 ? json_pack("{s:O}", "warnings", parser->warnings)
                                                 : NULL;
}

/* Text must close its last block: what parsed a whole Corefile into tokens has seen to that. */
static int directive_read(struct stanza_parser *parser, const struct fwd_directive *directive,
                          json_t **ret)
{
    size_t excess = 0;
    int status;

    parser->stanzas = json_array();
    parser->warnings = json_array();
    status = stanza_stored(parser, parser->stanzas != NULL && parser->warnings != NULL);
    if (status == FWD_OK) {
        status = stanzas_read(parser, &excess);
    }
    if (status == FWD_OK && directive->tokens == NULL && parser->dispenser.nesting > 0) {
        status =
            dispenser_error(&parser->dispenser, STANZA_PREFIX, parser->error, "Unexpected EOF");
    }
    if (status == FWD_OK && excess > 0) {
        status =
            stanza_error(parser, "more than %d TOs configured: %zu", FWD_MAX_UPSTREAMS, excess);
    }
    if (status == FWD_OK) {
        status = config_fill(parser, (directive->flags & FWD_DIRECTIVE_BRIEF) != 0, ret);
    }
    if (status != FWD_OK) {
        *ret = warnings_document(parser);
    }
    json_decref(parser->stanzas);
    json_decref(parser->warnings);
    return status;
}

/* --- input --- */

/* Copies the host's tokens; *list gets them. The file that errors of no token name is the first
 * token's. */
static int tokens_copy(struct stanza_parser *parser, const struct fwd_directive *directive,
                       struct token_list *list)
{
    const char *at = (const char *)directive->tokens;

    for (uint32_t i = 0; i < directive->token_count; i++) {
        const struct fwd_token *from = (const struct fwd_token *)at;
        struct token token = {.file = from->file, .line = from->line};

        if (from->struct_size < FWD_TOKEN_MIN_SIZE || (from->text == NULL && from->text_len > 0)) {
            return error_set(parser->error, FWD_ERR_ARG, NULL, "token %u is not filled in", i);
        }
        token.text =
            utf8_clean(&parser->arena, from->text_len > 0 ? from->text : "", from->text_len);
        if (token.text == NULL || !token_push(list, token)) {
            return stanza_nomem(parser);
        }
        at += from->struct_size;
    }
    return FWD_OK;
}

/* Reads text as a server block's would be; the environment is expanded. */
static int text_lex(struct stanza_parser *parser, const struct fwd_directive *directive,
                    struct token_list *list)
{
    bool endless = false;

    if (!lexer_run(&parser->arena, directive->text, directive->text_len, NULL, list)) {
        return stanza_nomem(parser);
    }
    for (size_t i = 0; i < list->count; i++) {
        struct token *token = &list->items[i];
        const char *text = environment_expand(&parser->arena, token->text, &endless);

        if (endless) {
            struct error_place place = {parser->dispenser.filename, token->line, NULL};

            return error_set(parser->error, FWD_ERR_SYNTAX, &place,
                             "%s:%u - Error during parsing: environment variables in '%s' expand "
                             "without end",
                             place.file, place.line, token->text);
        }
        if (text != NULL && text != token->text) {
            text = utf8_clean(&parser->arena, text, strlen(text));
        }
        if (text == NULL) {
            return stanza_nomem(parser);
        }
        token->text = text;
    }
    return FWD_OK;
}

static int input_read(struct stanza_parser *parser, const struct fwd_directive *directive,
                      struct token_list *list)
{
    int status = directive->tokens != NULL ? tokens_copy(parser, directive, list)
                                           : text_lex(parser, directive, list);

    if (status != FWD_OK) {
        return status;
    }
    if (list->count == 0 || strcmp(list->items[0].text, "forward") != 0) {
        struct error_place place = {.file = parser->dispenser.filename};

        if (directive->tokens != NULL && list->count > 0) {
            return FWD_OK; /* spelled otherwise in the Corefile, as {$FWD} */
        }
        place.line = list->count > 0 ? list->items[0].line : 0;
        return error_set(parser->error, FWD_ERR_SYNTAX, &place,
                         "%s:%u - Error during parsing: Unknown directive '%s'", place.file,
                         place.line, list->count > 0 ? list->items[0].text : "");
    }
    return FWD_OK;
}

/** Forward directives to JSON. */
int stanza_parse(const struct fwd_directive *directive, json_t **ret, struct fwd_error *error)
{
    struct stanza_parser parser = {.error = error};
    struct token_list list = {0};
    int status;

    *ret = NULL;
    if (directive->struct_size < FWD_DIRECTIVE_MIN_SIZE ||
        (directive->tokens == NULL && directive->text == NULL)) {
        return error_set(error, FWD_ERR_ARG, NULL, "a directive needs tokens or text");
    }
    if ((directive->flags & ~(uint32_t)FWD_DIRECTIVE_BRIEF) != 0) {
        return error_set(error, FWD_ERR_ARG, NULL, "unknown flags of a directive: %u",
                         directive->flags);
    }
    parser.root = directive->root;
    parser.dispenser.filename = directive->file != NULL ? directive->file : "Corefile";
    status = input_read(&parser, directive, &list);
    parser.dispenser.tokens = list.items;
    parser.dispenser.count = list.count;
    if (status == FWD_OK) {
        status = directive_read(&parser, directive, ret);
    }
    free(list.items);
    arena_free(&parser.arena);
    return status;
}
