/* The options of a stanza.
 *
 * Every option has a row in `options` with the function that reads its arguments into the JSON of
 * the stanza; defaults are config.c's.
 *
 * Happy path: look the current token up, read its arguments. Failure modes: CoreDNS's errors, in
 * the order of its checks.
 */
#include "stanza_parser.h"

#include "edns.h"
#include "gotext.h"
#include "hostport.h"
#include "name.h"
#include "path.h"
#include "rcode.h"
#include "tlsfiles.h"
#include "utf8.h"
#include "zone.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int argument_none(struct stanza_parser *parser)
{
    return dispenser_next_arg(&parser->dispenser) ? stanza_argument_error(parser) : FWD_OK;
}

static int duration_argument(struct stanza_parser *parser, int64_t *ret)
{
    char reason[GOTEXT_REASON];
    int status = stanza_argument(parser);

    if (status == FWD_OK && gotext_duration(stanza_value(parser), ret, reason) != 0) {
        return stanza_error(parser, "%s", reason);
    }
    return status;
}

static json_t *duration_to_json(int64_t ns)
{
    char text[GOTEXT_DURATION];

    gotext_duration_print(ns, text);
    return json_string(text);
}

static int flag_read(struct stanza_parser *parser, const char *name)
{
    int status = argument_none(parser);

    return status == FWD_OK ? stanza_set(parser, name, json_true()) : status;
}

/* failfast takes RemainingArgs in CoreDNS, which leaves a brace for the block to stumble over. */
static int failfast_read(struct stanza_parser *parser, const char *name)
{
    bool more = false;

    while (dispenser_next_listed(&parser->dispenser)) {
        more = true;
    }
    return more ? stanza_argument_error(parser) : stanza_set(parser, name, json_true());
}

static int uint32_read(struct stanza_parser *parser, const char *name)
{
    char reason[GOTEXT_REASON];
    uint32_t number;
    int status = stanza_argument(parser);

    if (status != FWD_OK) {
        return status;
    }
    if (gotext_uint32(stanza_value(parser), &number, reason) != 0) {
        return stanza_error(parser, "%s", reason);
    }
    return stanza_set(parser, name, json_integer(number));
}

static int positive_uint32_read(struct stanza_parser *parser, const char *name)
{
    int status = uint32_read(parser, name);

    if (status == FWD_OK && strspn(stanza_value(parser), "0") == strlen(stanza_value(parser))) {
        return stanza_error(parser, "%s must be positive: %s", name, stanza_value(parser));
    }
    return status;
}

/* A number of at most `most`; the complaint about a greater one stands between its name and its value. */
static int small_read(struct stanza_parser *parser, const char *name, uint32_t most, const char *complaint)
{
    char reason[GOTEXT_REASON];
    uint32_t number;
    int status = uint32_read(parser, name);

    if (status == FWD_OK && (gotext_uint32(stanza_value(parser), &number, reason) != 0 || number > most)) {
        return stanza_error(parser, "%s %s: %s", name, complaint, stanza_value(parser));
    }
    return status;
}

static int percent_read(struct stanza_parser *parser, const char *name)
{
    return small_read(parser, name, 100, "is a percentage");
}

static int padding_read(struct stanza_parser *parser, const char *name)
{
    return small_read(parser, name, EDNS_MAX_BLOCK, "must not be more than 4096");
}

static int count_read(struct stanza_parser *parser, const char *name)
{
    char reason[GOTEXT_REASON];
    int64_t number;
    int status = stanza_argument(parser);

    if (status != FWD_OK) {
        return status;
    }
    if (gotext_atoi(stanza_value(parser), &number, reason) != 0) {
        return stanza_error(parser, "%s", reason);
    }
    if (number < 0) {
        return stanza_error(parser, "%s can't be negative: %" PRId64, name, number);
    }
    return stanza_set(parser, name, json_integer(number));
}

static int duration_read(struct stanza_parser *parser, const char *name, int64_t *ret)
{
    char text[GOTEXT_DURATION];
    int status = duration_argument(parser, ret);

    if (status == FWD_OK && *ret < 0) {
        gotext_duration_print(*ret, text);
        return stanza_error(parser, "%s can't be negative: %s", name, text);
    }
    return status == FWD_OK ? stanza_set(parser, name, duration_to_json(*ret)) : status;
}

static int expire_read(struct stanza_parser *parser, const char *name)
{
    return duration_read(parser, name, &parser->expire_ns);
}

static int max_age_read(struct stanza_parser *parser, const char *name)
{
    return duration_read(parser, name, &parser->max_age_ns);
}

static int plain_duration_read(struct stanza_parser *parser, const char *name)
{
    int64_t ns;

    return duration_read(parser, name, &ns);
}

static int positive_duration_read(struct stanza_parser *parser, const char *name)
{
    char text[GOTEXT_DURATION];
    int64_t ns;
    int status = duration_argument(parser, &ns);

    if (status == FWD_OK && ns <= 0) {
        gotext_duration_print(ns, text);
        return stanza_error(parser, "%s must be positive: %s", name, text);
    }
    return status == FWD_OK ? stanza_set(parser, name, duration_to_json(ns)) : status;
}

static int except_add(struct stanza_parser *parser, json_t *array, const char *argument)
{
    char reason[GOTEXT_REASON];
    struct zone_list zones;
    int status = zone_parse(&parser->arena, argument, &zones, reason);

    for (size_t i = 0; status == 0 && i < zones.count; i++) {
        status = json_array_append_new(array, json_string(zones.names[i])) == 0 ? 0 : -2;
    }
    return stanza_stored(parser, status != -2); /* what is no name vanishes (case 14) */
}

/* Items of several lines add up. */
static int except_read(struct stanza_parser *parser, const char *name)
{
    json_t *array = json_object_get(parser->stanza, name);
    struct arguments arguments;
    int status = stanza_some_arguments(parser, &arguments);

    if (status == FWD_OK && array == NULL) {
        array = json_array();
        status = stanza_set(parser, name, array);
    }
    for (size_t i = 0; status == FWD_OK && i < arguments.count; i++) {
        status = except_add(parser, array, arguments.items[i]);
    }
    free(arguments.items);
    return status;
}

static int rcode_add(struct stanza_parser *parser, json_t *array, const char *name,
                     const char *argument)
{
    int number = rcode_number(argument);

    if (number < 0) {
        return stanza_error(parser, "%s is not a valid rcode", argument);
    }
    if (number == 0 && strcmp(name, "failover") == 0) {
        return stanza_error(parser, "NoError cannot be used in failover");
    }
    return stanza_stored(parser,
                         json_array_append_new(array, json_string(rcode_mnemonic(number))) == 0);
}

/* next and failover; several lines add up. */
static int rcodes_read(struct stanza_parser *parser, const char *name)
{
    json_t *array = json_object_get(parser->stanza, name);
    struct arguments arguments;
    int status = stanza_some_arguments(parser, &arguments);

    if (status == FWD_OK && array == NULL) {
        array = json_array();
        status = stanza_set(parser, name, array);
    }
    for (size_t i = 0; status == FWD_OK && i < arguments.count; i++) {
        status = rcode_add(parser, array, name, arguments.items[i]);
    }
    free(arguments.items);
    return status;
}

static int health_domain_read(struct stanza_parser *parser, json_t *health)
{
    int status = stanza_argument(parser);
    char *name;

    if (status != FWD_OK) {
        return status;
    }
    if (!name_valid(stanza_value(parser))) {
        return stanza_error(parser, "health_check: invalid domain name %s", stanza_value(parser));
    }
    name = arena_alloc(&parser->arena, strlen(stanza_value(parser)) + 2);
    if (name == NULL) {
        return stanza_nomem(parser);
    }
    name_normalize(stanza_value(parser), name);
    return stanza_stored(parser, json_object_set_new(health, "domain", json_string(name)) == 0);
}

static int health_option_read(struct stanza_parser *parser, json_t *health)
{
    if (strcmp(stanza_value(parser), "no_rec") == 0) {
        return stanza_stored(parser, json_object_set_new(health, "no_rec", json_true()) == 0);
    }
    if (strcmp(stanza_value(parser), "domain") == 0) {
        return health_domain_read(parser, health);
    }
    return stanza_error(parser, "health_check: unknown option %s", stanza_value(parser));
}

/* A later line resets the domain and keeps no_rec (case 34). */
static int health_check_read(struct stanza_parser *parser, const char *name)
{
    json_t *health = json_object_get(parser->stanza, name);
    int64_t ns;
    int status = duration_argument(parser, &ns);

    if (status != FWD_OK) {
        return status;
    }
    if (ns < 0) {
        return stanza_error(parser, "health_check can't be negative: %" PRId64, ns);
    }
    if (health == NULL) {
        health = json_object();
        status = stanza_set(parser, name, health);
    }
    if (status == FWD_OK) {
        status = stanza_stored(parser,
                               json_object_set_new(health, "interval", duration_to_json(ns)) == 0 &&
                                   json_object_set_new(health, "domain", json_string(".")) == 0);
    }
    while (status == FWD_OK && dispenser_next_arg(&parser->dispenser)) {
        status = health_option_read(parser, health);
    }
    return status;
}

static int policy_read(struct stanza_parser *parser, const char *name)
{
    const char *text;
    int status = stanza_argument(parser);

    if (status != FWD_OK) {
        return status;
    }
    text = stanza_value(parser);
    if (strcmp(text, "random") != 0 && strcmp(text, "round_robin") != 0 &&
        strcmp(text, "sequential") != 0) {
        return dispenser_error(&parser->dispenser, STANZA_PREFIX, parser->error,
                               "unknown policy '%s'", text);
    }
    return stanza_set(parser, name, json_string(text));
}

static int doh_method_read(struct stanza_parser *parser, const char *name)
{
    int status = stanza_argument(parser);

    if (status != FWD_OK) {
        return status;
    }
    if (strcmp(stanza_value(parser), "POST") != 0 && strcmp(stanza_value(parser), "GET") != 0) {
        return stanza_error(parser, "doh_method must be either POST or GET");
    }
    return stanza_set(parser, name, json_string(stanza_value(parser)));
}

/* Joins relative names to the root; the last line wins (case 27). */
static int tls_add(struct stanza_parser *parser, const char *name, struct arguments *arguments)
{
    char reason[GOTEXT_REASON];
    json_t *array = json_array();
    int status = stanza_set(parser, name, array);

    if (status == FWD_OK && arguments->count > 3) {
        return stanza_argument_error(parser);
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
        status = stanza_stored(parser, file != NULL &&
                                           json_array_append_new(array, json_string(file)) == 0);
    }
    if (status == FWD_OK && tlsfiles_check(arguments->items, arguments->count, reason) != 0) {
        return stanza_error(parser, "%s", reason);
    }
    return status;
}

static int tls_read(struct stanza_parser *parser, const char *name)
{
    struct arguments arguments;
    int status = stanza_arguments(parser, &arguments);

    if (status == FWD_OK) {
        status = tls_add(parser, name, &arguments);
    }
    free(arguments.items);
    return status;
}

static int tls_servername_read(struct stanza_parser *parser, const char *name)
{
    int status = stanza_argument(parser);

    parser->tls_servername = stanza_value(parser);
    return status == FWD_OK ? stanza_set(parser, name, json_string(stanza_value(parser))) : status;
}

static int resolver_add(struct stanza_parser *parser, json_t *array, const char *argument)
{
    char quoted[GOTEXT_REASON];
    struct hostport parts;
    struct fwd_addr addr;

    if (hostport_split(argument, &parts) != 0) {
        parts.host = (struct slice){argument, strlen(argument)};
    }
    if (!ip_parse(parts.host.text, parts.host.len, &addr)) {
        return stanza_error(parser, "resolver must be an IP address or IP:port: %s",
                            gotext_quote(argument, quoted, sizeof(quoted)));
    }
    return stanza_stored(parser, json_array_append_new(array, json_string(argument)) == 0);
}

static int resolver_read(struct stanza_parser *parser, const char *name)
{
    json_t *array = json_array();
    struct arguments arguments;
    int status = stanza_set(parser, name, array);
    int read = stanza_some_arguments(parser, &arguments);

    status = status == FWD_OK ? read : status;
    for (size_t i = 0; status == FWD_OK && i < arguments.count; i++) {
        status = resolver_add(parser, array, arguments.items[i]);
    }
    free(arguments.items);
    parser->resolver = true;
    return status;
}

static int source_address_read(struct stanza_parser *parser, const char *name)
{
    struct fwd_addr addr;
    char text[48];
    int status = stanza_argument(parser);

    if (status != FWD_OK) {
        return status;
    }
    if (!ip_parse(stanza_value(parser), strlen(stanza_value(parser)), &addr)) {
        return dispenser_error(&parser->dispenser, STANZA_PREFIX, parser->error,
                               "invalid IP address: %s", stanza_value(parser));
    }
    ip_print(&addr, text);
    return stanza_set(parser, name, json_string(text));
}

static const struct option {
    const char *name;
    int (*read)(struct stanza_parser *parser, const char *name);
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
    {"read_timeout", positive_duration_read},
    {"doh_method", doh_method_read},
    {"policy", policy_read},
    {"max_concurrent", count_read},
    {"next", rcodes_read},
    {"next_on_nodata", flag_read},
    {"failfast_all_unhealthy_upstreams", failfast_read},
    {"failover", rcodes_read},
    {"resolver", resolver_read},
    {"source_address", source_address_read},
    {"resolve_interval", plain_duration_read},
    {"resolve_hold", plain_duration_read},
    {"port_budget", uint32_read},
    {"pipeline", positive_uint32_read},
    {"max_conns", uint32_read},
    {"min_idle_conns", uint32_read},
    {"max_conn_uses", uint32_read},
    {"max_handshakes", uint32_read},
    {"max_age_jitter", percent_read},
    {"conn_wait", plain_duration_read},
    {"connect_timeout", plain_duration_read},
    {"handshake_timeout", positive_duration_read},
    {"tcp_keepalive", plain_duration_read},
    {"edns_keepalive", flag_read},
    {"padding", padding_read},
    {"retransmit", plain_duration_read},
};

/** Reads the option that the current token names. */
int stanza_option(struct stanza_parser *parser)
{
    for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
        if (strcmp(options[i].name, stanza_value(parser)) == 0) {
            return options[i].read(parser, options[i].name);
        }
    }
    return dispenser_error(&parser->dispenser, STANZA_PREFIX, parser->error,
                           "unknown property '%s'", stanza_value(parser));
}
