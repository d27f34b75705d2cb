/* Forward directives to JSON.
 *
 * Every option has a row in `options` with the function that reads its arguments into the JSON of the stanza. What is left out gets
 * its default, and the whole its last check, by a pass through config.c: there is one place for defaults.
 *
 * Happy path: FROM, TO, the block, the checks of the whole, in CoreDNS's order (case 16).
 * Failure modes: FWD_ERR_SYNTAX for what the dispenser finds, with file and line in the text; FWD_ERR_CONFIG for values, whose text has
 * none in CoreDNS, but *error has them apart. FWD_ERR_NOMEM. Nothing is returned then.
 */
#include "stanza.h"

#include "config.h"
#include "dispenser.h"
#include "error.h"
#include "gotext.h"
#include "hostport.h"
#include "name.h"
#include "path.h"
#include "rcode.h"
#include "target.h"
#include "tlsfiles.h"
#include "utf8.h"
#include "zone.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "plugin/forward: "
#define EXPIRE_DEFAULT INT64_C(10000000000)

/* A list of arguments; items is to be freed, the texts are the arena's. */
struct arguments {
    const char **items;
    size_t count;
};

struct parser {
    struct dispenser dispenser;
    struct arena arena;
    struct fwd_error *error;
    const char *root; /* directory for TLS files, or NULL */
    json_t *stanzas;
    json_t *warnings;
    /* the stanza at hand */
    json_t *stanza;
    int64_t expire_ns;
    int64_t max_age_ns;
    bool resolver;
    const char *tls_servername;
};

/* --- errors ------------------------------------------------------------------------------------------------------------------- */

static int out_of_memory(struct parser *parser)
{
    return error_set(parser->error, FWD_ERR_NOMEM, NULL, "out of memory");
}

/* Turns the outcome of a JSON or arena call into a status. */
static int stored(struct parser *parser, bool ok)
{
    return ok ? FWD_OK : out_of_memory(parser);
}

static int argument_error(struct parser *parser)
{
    return dispenser_argument_error(&parser->dispenser, PREFIX, parser->error);
}

/* An error without a position in its text. */
static int value_error(struct parser *parser, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int value_error(struct parser *parser, const char *format, ...)
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
    return error_set(parser->error, FWD_ERR_CONFIG, &place, PREFIX "%s", text);
}

/* --- arguments ---------------------------------------------------------------------------------------------------------------- */

static const char *value(const struct parser *parser)
{
    return dispenser_value(&parser->dispenser);
}

/* Steps to the option's argument. */
static int argument_next(struct parser *parser)
{
    return dispenser_next_arg(&parser->dispenser) ? FWD_OK : argument_error(parser);
}

static int argument_none(struct parser *parser)
{
    return dispenser_next_arg(&parser->dispenser) ? argument_error(parser) : FWD_OK;
}

/* The rest of the line up to an opening brace. */
static int arguments_read(struct parser *parser, struct arguments *ret)
{
    *ret = (struct arguments){0};
    while (dispenser_next_listed(&parser->dispenser)) {
        const char **items = realloc(ret->items, (ret->count + 1) * sizeof(*items));

        if (items == NULL) {
            free(ret->items);
            ret->items = NULL;
            return out_of_memory(parser);
        }
        ret->items = items;
        ret->items[ret->count++] = value(parser);
    }
    return FWD_OK;
}

/* As arguments_read; none is an error. */
static int arguments_some(struct parser *parser, struct arguments *ret)
{
    int status = arguments_read(parser, ret);

    return status == FWD_OK && ret->count == 0 ? argument_error(parser) : status;
}

static int set(struct parser *parser, const char *name, json_t *json)
{
    return stored(parser, json_object_set_new(parser->stanza, name, json) == 0);
}

static int duration_argument(struct parser *parser, int64_t *ret)
{
    char reason[GOTEXT_REASON];
    int status = argument_next(parser);

    if (status == FWD_OK && gotext_duration(value(parser), ret, reason) != 0) {
        return value_error(parser, "%s", reason);
    }
    return status;
}

static json_t *duration_to_json(int64_t ns)
{
    char text[GOTEXT_DURATION];

    gotext_duration_print(ns, text);
    return json_string(text);
}

/* --- options ------------------------------------------------------------------------------------------------------------------ */

static int flag_read(struct parser *parser, const char *name)
{
    int status = argument_none(parser);

    return status == FWD_OK ? set(parser, name, json_true()) : status;
}

/* failfast takes RemainingArgs in CoreDNS, which leaves a brace for the block to stumble over. */
static int failfast_read(struct parser *parser, const char *name)
{
    bool more = false;

    while (dispenser_next_listed(&parser->dispenser)) {
        more = true;
    }
    return more ? argument_error(parser) : set(parser, name, json_true());
}

static int uint32_read(struct parser *parser, const char *name)
{
    char reason[GOTEXT_REASON];
    uint32_t number;
    int status = argument_next(parser);

    if (status != FWD_OK) {
        return status;
    }
    if (gotext_uint32(value(parser), &number, reason) != 0) {
        return value_error(parser, "%s", reason);
    }
    return set(parser, name, json_integer(number));
}

static int count_read(struct parser *parser, const char *name)
{
    char reason[GOTEXT_REASON];
    int64_t number;
    int status = argument_next(parser);

    if (status != FWD_OK) {
        return status;
    }
    if (gotext_atoi(value(parser), &number, reason) != 0) {
        return value_error(parser, "%s", reason);
    }
    if (number < 0) {
        return value_error(parser, "%s can't be negative: %" PRId64, name, number);
    }
    return set(parser, name, json_integer(number));
}

static int duration_read(struct parser *parser, const char *name, int64_t *ret)
{
    char text[GOTEXT_DURATION];
    int status = duration_argument(parser, ret);

    if (status == FWD_OK && *ret < 0) {
        gotext_duration_print(*ret, text);
        return value_error(parser, "%s can't be negative: %s", name, text);
    }
    return status == FWD_OK ? set(parser, name, duration_to_json(*ret)) : status;
}

static int expire_read(struct parser *parser, const char *name)
{
    return duration_read(parser, name, &parser->expire_ns);
}

static int max_age_read(struct parser *parser, const char *name)
{
    return duration_read(parser, name, &parser->max_age_ns);
}

static int read_timeout_read(struct parser *parser, const char *name)
{
    char text[GOTEXT_DURATION];
    int64_t ns;
    int status = duration_argument(parser, &ns);

    if (status == FWD_OK && ns <= 0) {
        gotext_duration_print(ns, text);
        return value_error(parser, "read_timeout must be positive: %s", text);
    }
    return status == FWD_OK ? set(parser, name, duration_to_json(ns)) : status;
}

static int except_add(struct parser *parser, json_t *array, const char *argument)
{
    char reason[GOTEXT_REASON];
    struct zone_list zones;
    int status = zone_parse(&parser->arena, argument, &zones, reason);

    for (size_t i = 0; status == 0 && i < zones.count; i++) {
        status = json_array_append_new(array, json_string(zones.names[i])) == 0 ? 0 : -2;
    }
    return stored(parser, status != -2); /* what is no name vanishes (case 14) */
}

/* Items of several lines add up. */
static int except_read(struct parser *parser, const char *name)
{
    json_t *array = json_object_get(parser->stanza, name);
    struct arguments arguments;
    int status = arguments_some(parser, &arguments);

    if (status == FWD_OK && array == NULL) {
        array = json_array();
        status = set(parser, name, array);
    }
    for (size_t i = 0; status == FWD_OK && i < arguments.count; i++) {
        status = except_add(parser, array, arguments.items[i]);
    }
    free(arguments.items);
    return status;
}

static int rcode_add(struct parser *parser, json_t *array, const char *name, const char *argument)
{
    int number = rcode_number(argument);

    if (number < 0) {
        return value_error(parser, "%s is not a valid rcode", argument);
    }
    if (number == 0 && strcmp(name, "failover") == 0) {
        return value_error(parser, "NoError cannot be used in failover");
    }
    return stored(parser, json_array_append_new(array, json_string(rcode_mnemonic(number))) == 0);
}

/* next and failover; several lines add up. */
static int rcodes_read(struct parser *parser, const char *name)
{
    json_t *array = json_object_get(parser->stanza, name);
    struct arguments arguments;
    int status = arguments_some(parser, &arguments);

    if (status == FWD_OK && array == NULL) {
        array = json_array();
        status = set(parser, name, array);
    }
    for (size_t i = 0; status == FWD_OK && i < arguments.count; i++) {
        status = rcode_add(parser, array, name, arguments.items[i]);
    }
    free(arguments.items);
    return status;
}

static int health_domain_read(struct parser *parser, json_t *health)
{
    int status = argument_next(parser);
    char *name;

    if (status != FWD_OK) {
        return status;
    }
    if (!name_valid(value(parser))) {
        return value_error(parser, "health_check: invalid domain name %s", value(parser));
    }
    name = arena_alloc(&parser->arena, strlen(value(parser)) + 2);
    if (name == NULL) {
        return out_of_memory(parser);
    }
    name_normalize(value(parser), name);
    return stored(parser, json_object_set_new(health, "domain", json_string(name)) == 0);
}

static int health_option_read(struct parser *parser, json_t *health)
{
    if (strcmp(value(parser), "no_rec") == 0) {
        return stored(parser, json_object_set_new(health, "no_rec", json_true()) == 0);
    }
    if (strcmp(value(parser), "domain") == 0) {
        return health_domain_read(parser, health);
    }
    return value_error(parser, "health_check: unknown option %s", value(parser));
}

/* A later line resets the domain and keeps no_rec (case 34). */
static int health_check_read(struct parser *parser, const char *name)
{
    json_t *health = json_object_get(parser->stanza, name);
    int64_t ns;
    int status = duration_argument(parser, &ns);

    if (status != FWD_OK) {
        return status;
    }
    if (ns < 0) {
        return value_error(parser, "health_check can't be negative: %" PRId64, ns);
    }
    if (health == NULL) {
        health = json_object();
        status = set(parser, name, health);
    }
    if (status == FWD_OK) {
        status = stored(parser,
                        json_object_set_new(health, "interval", duration_to_json(ns)) == 0 &&
                            json_object_set_new(health, "domain", json_string(".")) == 0);
    }
    while (status == FWD_OK && dispenser_next_arg(&parser->dispenser)) {
        status = health_option_read(parser, health);
    }
    return status;
}

static int policy_read(struct parser *parser, const char *name)
{
    const char *text;
    int status = argument_next(parser);

    if (status != FWD_OK) {
        return status;
    }
    text = value(parser);
    if (strcmp(text, "random") != 0 && strcmp(text, "round_robin") != 0 &&
        strcmp(text, "sequential") != 0) {
        return dispenser_error(&parser->dispenser, PREFIX, parser->error, "unknown policy '%s'",
                               text);
    }
    return set(parser, name, json_string(text));
}

static int doh_method_read(struct parser *parser, const char *name)
{
    int status = argument_next(parser);

    if (status != FWD_OK) {
        return status;
    }
    if (strcmp(value(parser), "POST") != 0 && strcmp(value(parser), "GET") != 0) {
        return value_error(parser, "doh_method must be either POST or GET");
    }
    return set(parser, name, json_string(value(parser)));
}

/* Joins relative names to the root; the last line wins (case 27). */
static int tls_add(struct parser *parser, const char *name, struct arguments *arguments)
{
    char reason[GOTEXT_REASON];
    json_t *array = json_array();
    int status = set(parser, name, array);

    if (status == FWD_OK && arguments->count > 3) {
        return argument_error(parser);
    }
    for (size_t i = 0; status == FWD_OK && i < arguments->count; i++) {
        const char *file = arguments->items[i];

        if (file[0] != '/' && parser->root != NULL && *parser->root != '\0') {
            file = path_join(&parser->arena, parser->root, file);
        }
        if (file != NULL) {
            file = utf8_clean(&parser->arena, file, strlen(file));
        }
        arguments->items[i] = file;
        status = stored(parser, file != NULL &&
                                    json_array_append_new(array, json_string(file)) == 0);
    }
    if (status == FWD_OK && tlsfiles_check(arguments->items, arguments->count, reason) != 0) {
        return value_error(parser, "%s", reason);
    }
    return status;
}

static int tls_read(struct parser *parser, const char *name)
{
    struct arguments arguments;
    int status = arguments_read(parser, &arguments);

    if (status == FWD_OK) {
        status = tls_add(parser, name, &arguments);
    }
    free(arguments.items);
    return status;
}

static int tls_servername_read(struct parser *parser, const char *name)
{
    int status = argument_next(parser);

    parser->tls_servername = value(parser);
    return status == FWD_OK ? set(parser, name, json_string(value(parser))) : status;
}

static int resolver_add(struct parser *parser, json_t *array, const char *argument)
{
    char quoted[GOTEXT_REASON];
    struct hostport parts;
    struct fwd_addr addr;

    if (hostport_split(argument, &parts) != 0) {
        parts.host = (struct slice){argument, strlen(argument)};
    }
    if (!ip_parse(parts.host.text, parts.host.len, &addr)) {
        return value_error(parser, "resolver must be an IP address or IP:port: %s",
                           gotext_quote(argument, quoted, sizeof(quoted)));
    }
    return stored(parser, json_array_append_new(array, json_string(argument)) == 0);
}

static int resolver_read(struct parser *parser, const char *name)
{
    json_t *array = json_array();
    struct arguments arguments;
    int status = set(parser, name, array);
    int read = arguments_some(parser, &arguments);

    status = status == FWD_OK ? read : status;
    for (size_t i = 0; status == FWD_OK && i < arguments.count; i++) {
        status = resolver_add(parser, array, arguments.items[i]);
    }
    free(arguments.items);
    parser->resolver = true;
    return status;
}

static int source_address_read(struct parser *parser, const char *name)
{
    struct fwd_addr addr;
    char text[48];
    int status = argument_next(parser);

    if (status != FWD_OK) {
        return status;
    }
    if (!ip_parse(value(parser), strlen(value(parser)), &addr)) {
        return dispenser_error(&parser->dispenser, PREFIX, parser->error,
                               "invalid IP address: %s", value(parser));
    }
    ip_print(&addr, text);
    return set(parser, name, json_string(text));
}

static const struct option {
    const char *name;
    int (*read)(struct parser *parser, const char *name);
} options[] = {
    {"except", except_read},
    {"max_fails", uint32_read},
    {"max_connect_attempts", uint32_read},
    {"health_check", health_check_read},
    {"force_tcp", flag_read},
    {"prefer_udp", flag_read},
    {"tls", tls_read},
    {"tls_servername", tls_servername_read},
    {"expire", expire_read},
    {"max_age", max_age_read},
    {"max_idle_conns", count_read},
    {"read_timeout", read_timeout_read},
    {"doh_method", doh_method_read},
    {"policy", policy_read},
    {"max_concurrent", count_read},
    {"next", rcodes_read},
    {"next_on_nodata", flag_read},
    {"failfast_all_unhealthy_upstreams", failfast_read},
    {"failover", rcodes_read},
    {"resolver", resolver_read},
    {"source_address", source_address_read},
    {"port_budget", uint32_read},
};

static int option_read(struct parser *parser)
{
    for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
        if (strcmp(options[i].name, value(parser)) == 0) {
            return options[i].read(parser, options[i].name);
        }
    }
    return dispenser_error(&parser->dispenser, PREFIX, parser->error, "unknown property '%s'",
                           value(parser));
}

/* --- stanzas ------------------------------------------------------------------------------------------------------------------ */

static int from_read(struct parser *parser)
{
    char reason[GOTEXT_REASON];
    struct zone_list zones;
    json_t *warning;
    int status = argument_next(parser);

    if (status != FWD_OK) {
        return status;
    }
    status = zone_parse(&parser->arena, value(parser), &zones, reason);
    if (status == -1) {
        return value_error(parser, "unable to normalize '%s'", value(parser));
    }
    if (status != 0) {
        return out_of_memory(parser);
    }
    if (zones.count > 1) {
        warning = json_sprintf("Unsupported CIDR notation: '%s' expands to multiple zones. Using "
                               "only '%s'.",
                               value(parser), zones.names[0]);
        status = stored(parser, json_array_append_new(parser->warnings, warning) == 0);
    }
    return status == FWD_OK ? set(parser, "from", json_string(zones.names[0])) : status;
}

static int max_age_check(struct parser *parser)
{
    char age[GOTEXT_DURATION];
    char expire[GOTEXT_DURATION];

    if (parser->max_age_ns == 0 || parser->max_age_ns >= parser->expire_ns) {
        return FWD_OK;
    }
    gotext_duration_print(parser->max_age_ns, age);
    gotext_duration_print(parser->expire_ns, expire);
    return value_error(parser, "max_age (%s) must not be less than expire (%s)", age, expire);
}

static int targets_add(struct parser *parser, const struct target_list *targets)
{
    json_t *array = json_array();
    int status = set(parser, "to", array);

    for (size_t i = 0; status == FWD_OK && i < targets->count; i++) {
        const struct target *target = &targets->items[i];
        json_t *to = json_pack("{s:s, s:s, s:s}", "addr", target->addr, "transport",
                               target->transport, "tls_servername", target->tls_servername);

        status = stored(parser, json_array_append_new(array, to) == 0);
    }
    return status;
}

static int to_expand(struct parser *parser, const struct arguments *to, size_t *ret_arguments)
{
    struct target_list targets;
    char reason[TARGET_REASON];
    int status = target_expand(&parser->arena, to->items, to->count, parser->resolver,
                               parser->tls_servername, &targets, reason);

    if (status == 0) {
        status = targets_add(parser, &targets);
    } else {
        status = status == -1 ? value_error(parser, "%s", reason) : out_of_memory(parser);
    }
    *ret_arguments = targets.arguments;
    free(targets.items);
    return status;
}

/* One stanza, of which the directive's name is current. */
static int stanza_read(struct parser *parser, size_t *ret_arguments)
{
    struct arguments to = {0};
    int status = from_read(parser);

    if (status == FWD_OK) {
        status = arguments_some(parser, &to);
    }
    while (status == FWD_OK && dispenser_next_block(&parser->dispenser)) {
        status = option_read(parser);
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

/* All stanzas; the limit of TO arguments comes last (case 16), so its first violation is kept in *ret_excess. */
static int stanzas_read(struct parser *parser, size_t *ret_excess)
{
    int status = FWD_OK;

    while (status == FWD_OK && dispenser_next(&parser->dispenser)) {
        size_t arguments = 0;

        parser->expire_ns = EXPIRE_DEFAULT;
        parser->max_age_ns = 0;
        parser->resolver = false;
        parser->tls_servername = "";
        parser->stanza = json_object();
        status = stored(parser, json_array_append_new(parser->stanzas, parser->stanza) == 0);
        if (status == FWD_OK) {
            status = stanza_read(parser, &arguments);
        }
        if (*ret_excess == 0 && arguments > FWD_MAX_UPSTREAMS) {
            *ret_excess = arguments;
        }
    }
    return status;
}

/* Fills in the defaults and checks the whole. */
static int config_fill(struct parser *parser, json_t **ret)
{
    json_t *root = json_pack("{s:O}", "forward", parser->stanzas);
    struct config *config = NULL;
    json_t *full;
    int status = root != NULL ? config_from_json(root, &config, parser->error)
                              : out_of_memory(parser);

    json_decref(root);
    if (status != FWD_OK) {
        return status;
    }
    full = config_to_json(config);
    config_destroy(config);
    if (full == NULL || (json_array_size(parser->warnings) > 0 &&
                         json_object_set(full, "warnings", parser->warnings) != 0)) {
        json_decref(full);
        return out_of_memory(parser);
    }
    (void)json_object_del(full, "io_threads");
    *ret = full;
    return FWD_OK;
}

static int directive_read(struct parser *parser, json_t **ret)
{
    size_t excess = 0;
    int status;

    parser->stanzas = json_array();
    parser->warnings = json_array();
    status = stored(parser, parser->stanzas != NULL && parser->warnings != NULL);
    if (status == FWD_OK) {
        status = stanzas_read(parser, &excess);
    }
    if (status == FWD_OK && excess > 0) {
        status = value_error(parser, "more than %d TOs configured: %zu", FWD_MAX_UPSTREAMS, excess);
    }
    if (status == FWD_OK) {
        status = config_fill(parser, ret);
    }
    json_decref(parser->stanzas);
    json_decref(parser->warnings);
    return status;
}

/* --- input -------------------------------------------------------------------------------------------------------------------- */

/* Copies the host's tokens; *list gets them. The file that errors of no token name is the first token's. */
static int tokens_copy(struct parser *parser, const struct fwd_directive *directive,
                       struct token_list *list)
{
    const char *at = (const char *)directive->tokens;

    for (uint32_t i = 0; i < directive->token_count; i++) {
        const struct fwd_token *from = (const struct fwd_token *)at;
        struct token token = {.file = from->file, .line = from->line};

        if (from->struct_size < FWD_TOKEN_MIN_SIZE || (from->text == NULL && from->text_len > 0)) {
            return error_set(parser->error, FWD_ERR_ARG, NULL, "token %u is not filled in", i);
        }
        token.text = utf8_clean(&parser->arena, from->text_len > 0 ? from->text : "",
                                from->text_len);
        if (token.text == NULL || !token_push(list, token)) {
            return out_of_memory(parser);
        }
        at += from->struct_size;
    }
    return FWD_OK;
}

/* Reads text as a server block's would be; the environment is expanded. */
static int text_lex(struct parser *parser, const struct fwd_directive *directive,
                    struct token_list *list)
{
    bool endless = false;

    if (!lexer_run(&parser->arena, directive->text, directive->text_len, NULL, list)) {
        return out_of_memory(parser);
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
            return out_of_memory(parser);
        }
        token->text = text;
    }
    return FWD_OK;
}

static int input_read(struct parser *parser, const struct fwd_directive *directive,
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
    struct parser parser = {.error = error};
    struct token_list list = {0};
    int status;

    if (directive->struct_size < FWD_DIRECTIVE_MIN_SIZE ||
        (directive->tokens == NULL && directive->text == NULL)) {
        return error_set(error, FWD_ERR_ARG, NULL, "a directive needs tokens or text");
    }
    parser.root = directive->root;
    parser.dispenser.filename = directive->file != NULL ? directive->file : "Corefile";
    status = input_read(&parser, directive, &list);
    if (status == FWD_OK) {
        parser.dispenser.tokens = list.items;
        parser.dispenser.count = list.count;
        status = directive_read(&parser, ret);
    }
    free(list.items);
    arena_free(&parser.arena);
    return status;
}
