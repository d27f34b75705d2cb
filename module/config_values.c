/* The values in a stanza of the configuration that are more than a string, a number or a flag: each
 * has a function that reads it and one that writes it.
 *
 * Happy path: read checks the JSON and fills the member in, strings and arrays in the reader's arena.
 * Failure modes: FWD_ERR_CONFIG with a text at the reader's pointer for what is no such value;
 * FWD_ERR_NOMEM. Writing gives NULL when out of memory.
 */
#include "config_values.h"

#include "hostport.h"
#include "name.h"
#include "rcode.h"

#include <string.h>

/* text is a valid name. */
static int name_set(struct reader *reader, struct config_name *name, const char *text,
                    const uint8_t *wire, size_t len)
{
    char *copy = arena_alloc(reader->arena, strlen(text) + 2 + len);

    if (copy == NULL) {
        return reader_nomem(reader);
    }
    name_normalize(text, copy);
    name->text = copy;
    name->wire = memcpy(copy + strlen(copy) + 1, wire, len);
    name->wire_len = (uint32_t)len;
    return FWD_OK;
}

int value_name_read(struct reader *reader, const json_t *value, void *target)
{
    uint8_t wire[NAME_WIRE_MAX];
    const char *text;
    size_t len;
    int status = reader_string(reader, value, &text);

    if (status != FWD_OK) {
        return status;
    }
    if (name_to_wire(text, wire, &len) != 0) {
        return reader_fail(reader, "'%s' is not a domain name", text);
    }
    return name_set(reader, target, text, wire, len);
}

json_t *value_name_write(const void *source)
{
    return json_string(((const struct config_name *)source)->text);
}

static int rcode_read(struct reader *reader, const json_t *value, void *target)
{
    const char *text;
    int number;
    int status = reader_string(reader, value, &text);

    if (status != FWD_OK) {
        return status;
    }
    number = rcode_number(text);
    if (number < 0) {
        return reader_fail(reader, "%s is not a valid rcode", text);
    }
    *(uint16_t *)target = (uint16_t)number;
    return FWD_OK;
}

static json_t *rcode_write(const void *source)
{
    return json_string(rcode_mnemonic(*(const uint16_t *)source));
}

int value_rcodes_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_rcodes *rcodes = target;
    int status = reader_array(reader, value, sizeof(*rcodes->list), rcode_read,
                              (void **)&rcodes->list, &rcodes->count);

    for (uint32_t i = 0; status == FWD_OK && i < rcodes->count; i++) {
        rcodes->mask |= UINT32_C(1) << rcodes->list[i];
    }
    return status;
}

int value_failover_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_rcodes *rcodes = target;
    int status = value_rcodes_read(reader, value, rcodes);

    if (status == FWD_OK && (rcodes->mask & 1) != 0) {
        return reader_fail(reader, "NoError cannot be used in failover");
    }
    return status;
}

json_t *value_rcodes_write(const void *source)
{
    const struct config_rcodes *rcodes = source;

    return array_to_json(rcodes->list, rcodes->count, sizeof(*rcodes->list), rcode_write);
}

static int resolver_item_read(struct reader *reader, const json_t *value, void *target)
{
    struct fwd_addr addr;
    struct hostport parts;
    const char *text;
    int status = reader_string(reader, value, &text);

    if (status != FWD_OK) {
        return status;
    }
    if (hostport_split(text, &parts) != 0) {
        parts.host = (struct slice){text, strlen(text)};
    }
    if (!ip_parse(parts.host.text, parts.host.len, &addr)) {
        return reader_fail(reader, "resolver must be an IP address or IP:port: \"%s\"", text);
    }
    return member_read_string(reader, value, target);
}

int value_resolver_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_options *options = target;

    return reader_array(reader, value, sizeof(*options->resolver), resolver_item_read,
                        (void **)&options->resolver, &options->resolver_count);
}

json_t *value_resolver_write(const void *source)
{
    const struct config_options *options = source;

    return array_to_json(options->resolver, options->resolver_count, sizeof(*options->resolver),
                         member_write_string);
}

/* --- values with a form of their own --- */

static int choice_read(struct reader *reader, const json_t *value, const char *const *names,
                       size_t count, size_t *ret)
{
    const char *text;
    int status = reader_string(reader, value, &text);

    if (status != FWD_OK) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = i;
            return FWD_OK;
        }
    }
    return reader_fail(reader, "unknown value '%s'", text);
}

static const char *const policies[] = {"random", "round_robin", "sequential"};

int value_policy_read(struct reader *reader, const json_t *value, void *target)
{
    size_t index = 0;
    int status = choice_read(reader, value, policies, 3, &index);

    *(enum config_policy *)target = (enum config_policy)index;
    return status;
}

json_t *value_policy_write(const void *source)
{
    return json_string(policies[*(const enum config_policy *)source]);
}

static const char *const doh_methods[] = {"POST", "GET"};

int value_doh_method_read(struct reader *reader, const json_t *value, void *target)
{
    size_t index = 0;
    int status = choice_read(reader, value, doh_methods, 2, &index);

    *(bool *)target = index == 1;
    return status;
}

json_t *value_doh_method_write(const void *source)
{
    return json_string(doh_methods[*(const bool *)source]);
}

int value_attempts_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_options *options = target;

    options->has_max_connect_attempts = !json_is_null(value);
    if (json_is_null(value)) {
        return FWD_OK;
    }
    return member_read_uint32(reader, value, &options->max_connect_attempts);
}

json_t *value_attempts_write(const void *source)
{
    const struct config_options *options = source;

    return options->has_max_connect_attempts ? json_integer(options->max_connect_attempts)
                                            : json_null();
}

int value_source_address_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_options *options = target;
    const char *text = json_string_value(value);

    if (json_is_null(value)) {
        return FWD_OK;
    }
    if (text == NULL || !ip_parse(text, strlen(text), &options->source_address)) {
        return reader_fail(reader, "invalid IP address: %s",
                           text != NULL ? text : "expected a string");
    }
    options->has_source_address = true;
    return FWD_OK;
}

json_t *value_source_address_write(const void *source)
{
    const struct config_options *options = source;
    char text[48];

    if (!options->has_source_address) {
        return json_null();
    }
    ip_print(&options->source_address, text);
    return json_string(text);
}

/* null, or the arguments of the tls line: none, CA, CERT KEY, or CERT KEY CA (case 27). */
int value_tls_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_options *options = target;
    const char **const places[4][3] = {
        {NULL},
        {&options->tls_ca},
        {&options->tls_cert, &options->tls_key},
        {&options->tls_cert, &options->tls_key, &options->tls_ca},
    };
    size_t count = json_array_size(value);
    int status = FWD_OK;

    if (json_is_null(value)) {
        return FWD_OK;
    }
    if (!json_is_array(value) || count > 3) {
        return reader_fail(reader, "expected null or an array of up to three file names");
    }
    options->has_tls = true;
    for (size_t i = 0; status == FWD_OK && i < count; i++) {
        size_t back = reader_push_index(reader, i);

        status = member_read_string(reader, json_array_get(value, i), places[count][i]);
        reader_pop(reader, back);
    }
    return status;
}

json_t *value_tls_write(const void *source)
{
    const struct config_options *options = source;
    const char *files[] = {options->tls_cert, options->tls_key, options->tls_ca};
    json_t *array;

    if (!options->has_tls) {
        return json_null();
    }
    array = json_array();
    for (size_t i = 0; array != NULL && i < 3; i++) {
        if (files[i] != NULL && json_array_append_new(array, json_string(files[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static const char *const transports[] = {"dns", "tls", "https"};
static const uint32_t transport_protos[] = {FWD_PROTO_UDP, FWD_PROTO_TLS, FWD_PROTO_HTTPS};

static int transport_read(struct reader *reader, const json_t *value, void *target)
{
    size_t index = 0;
    int status = choice_read(reader, value, transports, COUNT(transports), &index);

    *(uint32_t *)target = transport_protos[index];
    return status;
}

static json_t *transport_write(const void *source)
{
    size_t index = 0;

    while (transport_protos[index] != *(const uint32_t *)source) {
        index++;
    }
    return json_string(transports[index]);
}

static const struct member to_members[] = {
    {"addr", offsetof(struct config_to, text), member_read_string, member_write_string},
    {"transport", offsetof(struct config_to, proto), transport_read, transport_write},
    {"tls_servername", offsetof(struct config_to, tls_servername), member_read_string,
     member_write_string},
};

int value_to_item_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_to *to = target;
    int status;

    to->proto = FWD_PROTO_UDP;
    to->tls_servername = "";
    status = members_read(reader, value, to_members, COUNT(to_members), to);
    if (status != FWD_OK) {
        return status;
    }
    if (to->text == NULL || *to->text == '\0') {
        return reader_fail(reader, "an upstream needs an addr");
    }
    if (hostport_address(to->text, &to->addr) == HOSTPORT_SCOPE) {
        (void)reader_push(reader, "addr");
        return reader_fail(reader, "'%s' names no network interface of this machine", to->text);
    }
    return FWD_OK;
}

json_t *value_to_item_write(const void *source)
{
    return members_write(to_members, COUNT(to_members), source);
}

static const struct member health_members[] = {
    {"interval", offsetof(struct config_options, health_interval_ns), member_read_duration,
     member_write_duration},
    {"no_rec", offsetof(struct config_options, health_no_rec), member_read_bool, member_write_bool},
    {"domain", offsetof(struct config_options, health_domain), value_name_read, value_name_write},
};

int value_health_read(struct reader *reader, const json_t *value, void *target)
{
    return members_read(reader, value, health_members, COUNT(health_members), target);
}

json_t *value_health_write(const void *source)
{
    return members_write(health_members, COUNT(health_members), source);
}
