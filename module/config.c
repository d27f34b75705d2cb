/* The configuration of an instance: JSON in, struct config out, and back.
 *
 * One table, `members`, names every member of a STANZA with the function that reads it and the one that writes it; what is absent
 * keeps CoreDNS's default.
 *
 * Happy path: load, walk the stanzas member by member, check what two members have to do with each other.
 * Failure modes: FWD_ERR_CONFIG with a text and the JSON pointer of the offending value for unknown members, wrong types and ranges;
 * FWD_ERR_NOMEM. Nothing is returned then.
 */
#include "config.h"

#include "error.h"
#include "gotext.h"
#include "hostport.h"
#include "name.h"
#include "rcode.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IO_THREADS_MAX 256
#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

/* Where the reader is: the JSON pointer of the value at hand. */
struct reader {
    struct fwd_error *error;
    char pointer[256];
    size_t pointer_len;
};

struct member {
    const char *name;
    size_t offset; /* of what read and write work on, in the struct at hand */
    int (*read)(struct reader *reader, const json_t *value, void *target);
    json_t *(*write)(const void *source);
};

static int fail(struct reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int fail(struct reader *reader, const char *format, ...)
{
    struct error_place place = {.pointer = reader->pointer};
    va_list args;

    va_start(args, format);
    (void)error_setv(reader->error, FWD_ERR_CONFIG, &place, format, args);
    va_end(args);
    return FWD_ERR_CONFIG;
}

static int out_of_memory(struct reader *reader)
{
    return error_set(reader->error, FWD_ERR_NOMEM, NULL, "out of memory");
}

/* Appends /KEY, escaped after RFC 6901. Returns the length to go back to. */
static size_t pointer_push(struct reader *reader, const char *key)
{
    size_t back = reader->pointer_len;
    size_t at = back;

    if (at + 4 < sizeof(reader->pointer)) {
        reader->pointer[at++] = '/';
    }
    for (; *key != '\0' && at + 3 < sizeof(reader->pointer); key++) {
        if (*key == '~' || *key == '/') {
            reader->pointer[at++] = '~';
            reader->pointer[at++] = *key == '~' ? '0' : '1';
        } else {
            reader->pointer[at++] = *key;
        }
    }
    reader->pointer[at] = '\0';
    reader->pointer_len = at;
    return back;
}

static size_t pointer_push_index(struct reader *reader, size_t index)
{
    char key[24];

    (void)snprintf(key, sizeof(key), "%zu", index);
    return pointer_push(reader, key);
}

static void pointer_pop(struct reader *reader, size_t back)
{
    reader->pointer_len = back;
    reader->pointer[back] = '\0';
}

/* --- single values ------------------------------------------------------------------------------------------------------------ */

static int string_get(struct reader *reader, const json_t *value, const char **ret)
{
    *ret = json_string_value(value);
    return *ret != NULL ? FWD_OK : fail(reader, "expected a string");
}

static int string_read(struct reader *reader, const json_t *value, void *target)
{
    char **slot = target;
    const char *text;
    char *copy;
    int status = string_get(reader, value, &text);

    if (status != FWD_OK) {
        return status;
    }
    copy = strdup(text);
    if (copy == NULL) {
        return out_of_memory(reader);
    }
    free(*slot);
    *slot = copy;
    return FWD_OK;
}

static json_t *string_write(const void *source)
{
    return json_string(*(char *const *)source);
}

static int bool_read(struct reader *reader, const json_t *value, void *target)
{
    if (!json_is_boolean(value)) {
        return fail(reader, "expected true or false");
    }
    *(bool *)target = json_is_true(value);
    return FWD_OK;
}

static json_t *bool_write(const void *source)
{
    return json_boolean(*(const bool *)source);
}

static int integer_get(struct reader *reader, const json_t *value, uint64_t max, uint64_t *ret)
{
    if (!json_is_integer(value)) {
        return fail(reader, "expected an integer");
    }
    if (json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max) {
        return fail(reader, "must be between 0 and %" PRIu64 ", not %" JSON_INTEGER_FORMAT, max,
                    json_integer_value(value));
    }
    *ret = (uint64_t)json_integer_value(value);
    return FWD_OK;
}

static int count_read(struct reader *reader, const json_t *value, void *target)
{
    return integer_get(reader, value, INT64_MAX, target);
}

static json_t *count_write(const void *source)
{
    return json_integer((json_int_t) * (const uint64_t *)source);
}

static int uint32_read(struct reader *reader, const json_t *value, void *target)
{
    uint64_t number = 0;
    int status = integer_get(reader, value, UINT32_MAX, &number);

    if (status == FWD_OK) {
        *(uint32_t *)target = (uint32_t)number;
    }
    return status;
}

static json_t *uint32_write(const void *source)
{
    return json_integer(*(const uint32_t *)source);
}

static int duration_read(struct reader *reader, const json_t *value, void *target)
{
    char reason[GOTEXT_REASON];
    const char *text = json_string_value(value);
    int64_t ns;

    if (text == NULL) {
        return fail(reader, "expected a duration such as \"10s\"");
    }
    if (gotext_duration(text, &ns, reason) != 0) {
        return fail(reader, "%s", reason);
    }
    if (ns < 0) {
        return fail(reader, "can't be negative: %s", text);
    }
    *(uint64_t *)target = (uint64_t)ns;
    return FWD_OK;
}

static json_t *duration_write(const void *source)
{
    char text[GOTEXT_DURATION];

    gotext_duration_print((int64_t) * (const uint64_t *)source, text);
    return json_string(text);
}

static void name_free(struct config_name *name)
{
    free(name->text);
    free(name->wire);
}

/* Returns false when out of memory; text is a valid name. */
static bool name_set(struct config_name *name, const char *text, const uint8_t *wire, size_t len)
{
    struct config_name fresh = {malloc(strlen(text) + 2), malloc(len), (uint32_t)len};

    if (fresh.text == NULL || fresh.wire == NULL) {
        name_free(&fresh);
        return false;
    }
    name_normalize(text, fresh.text);
    memcpy(fresh.wire, wire, len);
    name_free(name);
    *name = fresh;
    return true;
}

static int name_read(struct reader *reader, const json_t *value, void *target)
{
    uint8_t wire[NAME_WIRE_MAX];
    const char *text;
    size_t len;
    int status = string_get(reader, value, &text);

    if (status != FWD_OK) {
        return status;
    }
    if (name_to_wire(text, wire, &len) != 0) {
        return fail(reader, "'%s' is not a domain name", text);
    }
    return name_set(target, text, wire, len) ? FWD_OK : out_of_memory(reader);
}

static json_t *name_write(const void *source)
{
    return json_string(((const struct config_name *)source)->text);
}

/* --- arrays ------------------------------------------------------------------------------------------------------------------- */

/* Checks that value is an array and makes room for its elements: *ret_items, zeroed, is NULL for an empty one. */
static int array_open(struct reader *reader, const json_t *value, size_t size, void **ret_items)
{
    *ret_items = NULL;
    if (!json_is_array(value)) {
        return fail(reader, "expected an array");
    }
    if (json_array_size(value) == 0) {
        return FWD_OK;
    }
    *ret_items = calloc(json_array_size(value), size);
    return *ret_items != NULL ? FWD_OK : out_of_memory(reader);
}

/* Reads every element with read; *count grows with each begun, so that a destructor sees what there is. */
static int array_read(struct reader *reader, const json_t *value, size_t size,
                      int (*read)(struct reader *, const json_t *, void *), void **items,
                      uint32_t *count)
{
    const json_t *item;
    size_t i;
    int status = array_open(reader, value, size, items);

    for (i = 0; status == FWD_OK && i < json_array_size(value); i++) {
        size_t back = pointer_push_index(reader, i);

        item = json_array_get(value, i);
        *count = (uint32_t)(i + 1);
        status = read(reader, item, (char *)*items + i * size);
        pointer_pop(reader, back);
    }
    return status;
}

static json_t *array_write(const void *items, size_t count, size_t size,
                           json_t *(*write)(const void *))
{
    json_t *array = json_array();

    for (size_t i = 0; array != NULL && i < count; i++) {
        if (json_array_append_new(array, write((const char *)items + i * size)) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static int except_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_stanza *stanza = target;

    return array_read(reader, value, sizeof(*stanza->except), name_read, (void **)&stanza->except,
                      &stanza->except_count);
}

static json_t *except_write(const void *source)
{
    const struct config_stanza *stanza = source;

    return array_write(stanza->except, stanza->except_count, sizeof(*stanza->except), name_write);
}

static int rcode_read(struct reader *reader, const json_t *value, void *target)
{
    const char *text;
    int number;
    int status = string_get(reader, value, &text);

    if (status != FWD_OK) {
        return status;
    }
    number = rcode_number(text);
    if (number < 0) {
        return fail(reader, "%s is not a valid rcode", text);
    }
    *(uint16_t *)target = (uint16_t)number;
    return FWD_OK;
}

static json_t *rcode_write(const void *source)
{
    return json_string(rcode_mnemonic(*(const uint16_t *)source));
}

static int rcodes_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_rcodes *rcodes = target;
    int status = array_read(reader, value, sizeof(*rcodes->list), rcode_read,
                            (void **)&rcodes->list, &rcodes->count);

    for (uint32_t i = 0; status == FWD_OK && i < rcodes->count; i++) {
        rcodes->mask |= UINT32_C(1) << rcodes->list[i];
    }
    return status;
}

static int failover_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_rcodes *rcodes = target;
    int status = rcodes_read(reader, value, rcodes);

    if (status == FWD_OK && (rcodes->mask & 1) != 0) {
        return fail(reader, "NoError cannot be used in failover");
    }
    return status;
}

static json_t *rcodes_write(const void *source)
{
    const struct config_rcodes *rcodes = source;

    return array_write(rcodes->list, rcodes->count, sizeof(*rcodes->list), rcode_write);
}

static int resolver_item_read(struct reader *reader, const json_t *value, void *target)
{
    struct fwd_addr addr;
    struct hostport parts;
    const char *text;
    int status = string_get(reader, value, &text);

    if (status != FWD_OK) {
        return status;
    }
    if (hostport_split(text, &parts) != 0) {
        parts.host = (struct slice){text, strlen(text)};
    }
    if (!ip_parse(parts.host.text, parts.host.len, &addr)) {
        return fail(reader, "resolver must be an IP address or IP:port: \"%s\"", text);
    }
    return string_read(reader, value, target);
}

static int resolver_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_stanza *stanza = target;

    return array_read(reader, value, sizeof(*stanza->resolver), resolver_item_read,
                      (void **)&stanza->resolver, &stanza->resolver_count);
}

static json_t *resolver_write(const void *source)
{
    const struct config_stanza *stanza = source;

    return array_write(stanza->resolver, stanza->resolver_count, sizeof(*stanza->resolver),
                       string_write);
}

/* --- values with a form of their own ------------------------------------------------------------------------------------------ */

static int choice_read(struct reader *reader, const json_t *value, const char *const *names,
                       size_t count, size_t *ret)
{
    const char *text;
    int status = string_get(reader, value, &text);

    if (status != FWD_OK) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = i;
            return FWD_OK;
        }
    }
    return fail(reader, "unknown value '%s'", text);
}

static const char *const policies[] = {"random", "round_robin", "sequential"};

static int policy_read(struct reader *reader, const json_t *value, void *target)
{
    size_t index = 0;
    int status = choice_read(reader, value, policies, 3, &index);

    *(enum config_policy *)target = (enum config_policy)index;
    return status;
}

static json_t *policy_write(const void *source)
{
    return json_string(policies[*(const enum config_policy *)source]);
}

static const char *const doh_methods[] = {"POST", "GET"};

static int doh_method_read(struct reader *reader, const json_t *value, void *target)
{
    size_t index = 0;
    int status = choice_read(reader, value, doh_methods, 2, &index);

    *(bool *)target = index == 1;
    return status;
}

static json_t *doh_method_write(const void *source)
{
    return json_string(doh_methods[*(const bool *)source]);
}

static int attempts_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_stanza *stanza = target;

    stanza->has_max_connect_attempts = !json_is_null(value);
    if (json_is_null(value)) {
        return FWD_OK;
    }
    return uint32_read(reader, value, &stanza->max_connect_attempts);
}

static json_t *attempts_write(const void *source)
{
    const struct config_stanza *stanza = source;

    return stanza->has_max_connect_attempts ? json_integer(stanza->max_connect_attempts)
                                            : json_null();
}

static int source_address_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_stanza *stanza = target;
    const char *text = json_string_value(value);

    if (json_is_null(value)) {
        return FWD_OK;
    }
    if (text == NULL || !ip_parse(text, strlen(text), &stanza->source_address)) {
        return fail(reader, "invalid IP address: %s", text != NULL ? text : "expected a string");
    }
    stanza->has_source_address = true;
    return FWD_OK;
}

static json_t *source_address_write(const void *source)
{
    const struct config_stanza *stanza = source;
    char text[48];

    if (!stanza->has_source_address) {
        return json_null();
    }
    ip_print(&stanza->source_address, text);
    return json_string(text);
}

/* null, or the arguments of the tls line: none, CA, CERT KEY, or CERT KEY CA (case 27). */
static int tls_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_stanza *stanza = target;
    char **const places[4][3] = {
        {NULL},
        {&stanza->tls_ca},
        {&stanza->tls_cert, &stanza->tls_key},
        {&stanza->tls_cert, &stanza->tls_key, &stanza->tls_ca},
    };
    size_t count = json_array_size(value);
    int status = FWD_OK;

    if (json_is_null(value)) {
        return FWD_OK;
    }
    if (!json_is_array(value) || count > 3) {
        return fail(reader, "expected null or an array of up to three file names");
    }
    stanza->has_tls = true;
    for (size_t i = 0; status == FWD_OK && i < count; i++) {
        size_t back = pointer_push_index(reader, i);

        status = string_read(reader, json_array_get(value, i), places[count][i]);
        pointer_pop(reader, back);
    }
    return status;
}

static json_t *tls_write(const void *source)
{
    const struct config_stanza *stanza = source;
    const char *files[] = {stanza->tls_cert, stanza->tls_key, stanza->tls_ca};
    json_t *array;

    if (!stanza->has_tls) {
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

/* --- objects ------------------------------------------------------------------------------------------------------------------ */

static const struct member *member_find(const struct member *members, size_t count,
                                        const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(members[i].name, name) == 0) {
            return &members[i];
        }
    }
    return NULL;
}

static int object_read(struct reader *reader, const json_t *value, const struct member *members,
                       size_t count, void *target)
{
    const char *name;
    json_t *item;

    if (!json_is_object(value)) {
        return fail(reader, "expected an object");
    }
    json_object_foreach((json_t *)value, name, item) {
        const struct member *member = member_find(members, count, name);
        size_t back = pointer_push(reader, name);
        int status = member != NULL ? member->read(reader, item, (char *)target + member->offset)
                                    : fail(reader, "unknown option '%s'", name);

        if (status != FWD_OK) {
            return status;
        }
        pointer_pop(reader, back);
    }
    return FWD_OK;
}

static json_t *object_write(const struct member *members, size_t count, const void *source)
{
    json_t *object = json_object();

    for (size_t i = 0; object != NULL && i < count; i++) {
        json_t *value;

        if (members[i].write == NULL) {
            continue; /* read only */
        }
        value = members[i].write((const char *)source + members[i].offset);
        if (json_object_set_new(object, members[i].name, value) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

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
    {"addr", offsetof(struct config_to, text), string_read, string_write},
    {"transport", offsetof(struct config_to, proto), transport_read, transport_write},
    {"tls_servername", offsetof(struct config_to, tls_servername), string_read, string_write},
};

static int to_item_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_to *to = target;
    int status;

    to->proto = FWD_PROTO_UDP;
    to->tls_servername = strdup("");
    if (to->tls_servername == NULL) {
        return out_of_memory(reader);
    }
    status = object_read(reader, value, to_members, COUNT(to_members), to);
    if (status != FWD_OK) {
        return status;
    }
    if (to->text == NULL || *to->text == '\0') {
        return fail(reader, "an upstream needs an addr");
    }
    if (hostport_address(to->text, &to->addr) == HOSTPORT_SCOPE) {
        (void)pointer_push(reader, "addr");
        return fail(reader, "'%s' names no network interface of this machine", to->text);
    }
    return FWD_OK;
}

static json_t *to_item_write(const void *source)
{
    return object_write(to_members, COUNT(to_members), source);
}

static int to_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_stanza *stanza = target;

    return array_read(reader, value, sizeof(*stanza->to), to_item_read, (void **)&stanza->to,
                      &stanza->to_count);
}

static json_t *to_write(const void *source)
{
    const struct config_stanza *stanza = source;

    return array_write(stanza->to, stanza->to_count, sizeof(*stanza->to), to_item_write);
}

static const struct member health_members[] = {
    {"interval", offsetof(struct config_stanza, health_interval_ns), duration_read,
     duration_write},
    {"no_rec", offsetof(struct config_stanza, health_no_rec), bool_read, bool_write},
    {"domain", offsetof(struct config_stanza, health_domain), name_read, name_write},
};

static int health_read(struct reader *reader, const json_t *value, void *target)
{
    return object_read(reader, value, health_members, COUNT(health_members), target);
}

static json_t *health_write(const void *source)
{
    return object_write(health_members, COUNT(health_members), source);
}

#define AT(field) offsetof(struct config_stanza, field)

static const struct member members[] = {
    {"from", AT(from), name_read, name_write},
    {"to", 0, to_read, to_write},
    {"except", 0, except_read, except_write},
    {"force_tcp", AT(force_tcp), bool_read, bool_write},
    {"prefer_udp", AT(prefer_udp), bool_read, bool_write},
    {"next_on_nodata", AT(next_on_nodata), bool_read, bool_write},
    {"failfast_all_unhealthy_upstreams", AT(failfast), bool_read, bool_write},
    {"expire", AT(expire_ns), duration_read, duration_write},
    {"max_age", AT(max_age_ns), duration_read, duration_write},
    {"read_timeout", AT(read_timeout_ns), duration_read, duration_write},
    {"max_idle_conns", AT(max_idle_conns), count_read, count_write},
    {"max_fails", AT(max_fails), uint32_read, uint32_write},
    {"max_concurrent", AT(max_concurrent), count_read, count_write},
    {"max_connect_attempts", 0, attempts_read, attempts_write},
    {"health_check", 0, health_read, health_write},
    {"policy", AT(policy), policy_read, policy_write},
    {"next", AT(next), rcodes_read, rcodes_write},
    {"failover", AT(failover), failover_read, rcodes_write},
    {"tls", 0, tls_read, tls_write},
    {"tls_servername", AT(tls_servername), string_read, string_write},
    {"doh_method", AT(doh_get), doh_method_read, doh_method_write},
    {"source_address", 0, source_address_read, source_address_write},
    {"resolver", 0, resolver_read, resolver_write},
    {"port_budget", AT(port_budget), uint32_read, uint32_write},
};

/* CoreDNS's defaults, and ours where CoreDNS has none. Returns false when out of memory. */
static bool stanza_init(struct config_stanza *stanza)
{
    static const uint8_t root[1] = {0};

    stanza->expire_ns = 10 * SECOND;
    stanza->read_timeout_ns = 2 * SECOND;
    stanza->health_interval_ns = 500 * MILLISECOND;
    stanza->max_fails = 2;
    stanza->port_budget = 1000;
    stanza->tls_servername = strdup("");
    return stanza->tls_servername != NULL && name_set(&stanza->from, ".", root, 1) &&
           name_set(&stanza->health_domain, ".", root, 1);
}

/* What two members have to do with each other. */
static int stanza_check(struct reader *reader, const struct config_stanza *stanza)
{
    char age[GOTEXT_DURATION];
    char expire[GOTEXT_DURATION];

    if (stanza->max_age_ns > 0 && stanza->max_age_ns < stanza->expire_ns) {
        (void)pointer_push(reader, "max_age");
        gotext_duration_print((int64_t)stanza->max_age_ns, age);
        gotext_duration_print((int64_t)stanza->expire_ns, expire);
        return fail(reader, "max_age (%s) must not be less than expire (%s)", age, expire);
    }
    if (stanza->read_timeout_ns == 0) {
        (void)pointer_push(reader, "read_timeout");
        return fail(reader, "read_timeout must be positive: 0s");
    }
    if (stanza->to_count == 0) {
        (void)pointer_push(reader, "to");
        return fail(reader, "no valid upstream addresses found");
    }
    for (uint32_t i = 0; i < stanza->to_count; i++) {
        const struct config_to *to = &stanza->to[i];

        if (*stanza->tls_servername != '\0' && *to->tls_servername != '\0') {
            (void)pointer_push(reader, "tls_servername");
            return fail(reader,
                        "both forward ('%s') and proxy level ('%s') TLS servernames are set for "
                        "upstream proxy 'tls://%s'",
                        stanza->tls_servername, to->tls_servername, to->text);
        }
    }
    return FWD_OK;
}

static int stanza_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_stanza *stanza = target;
    int status;

    if (!stanza_init(stanza)) {
        return out_of_memory(reader);
    }
    status = object_read(reader, value, members, COUNT(members), stanza);
    return status == FWD_OK ? stanza_check(reader, stanza) : status;
}

static json_t *stanza_write(const void *source)
{
    return object_write(members, COUNT(members), source);
}

static void stanza_fini(struct config_stanza *stanza)
{
    for (uint32_t i = 0; i < stanza->to_count; i++) {
        free(stanza->to[i].text);
        free(stanza->to[i].tls_servername);
    }
    for (uint32_t i = 0; i < stanza->except_count; i++) {
        name_free(&stanza->except[i]);
    }
    for (uint32_t i = 0; i < stanza->resolver_count; i++) {
        free(stanza->resolver[i]);
    }
    name_free(&stanza->from);
    name_free(&stanza->health_domain);
    free(stanza->to);
    free(stanza->except);
    free(stanza->resolver);
    free(stanza->next.list);
    free(stanza->failover.list);
    free(stanza->tls_ca);
    free(stanza->tls_cert);
    free(stanza->tls_key);
    free(stanza->tls_servername);
}

/* --- the whole ---------------------------------------------------------------------------------------------------------------- */

static int io_threads_read(struct reader *reader, const json_t *value, void *target)
{
    uint64_t number = 0;
    int status = integer_get(reader, value, IO_THREADS_MAX, &number);

    *(uint32_t *)target = (uint32_t)number;
    return status;
}

static int stanzas_read(struct reader *reader, const json_t *value, void *target)
{
    struct config *config = target;
    uint32_t count = 0;
    int status = array_read(reader, value, sizeof(*config->stanzas), stanza_read,
                            (void **)&config->stanzas, &count);

    config->stanza_count = count;
    return status;
}

static json_t *stanzas_write(const void *source)
{
    const struct config *config = source;

    return array_write(config->stanzas, config->stanza_count, sizeof(*config->stanzas),
                       stanza_write);
}

static int warnings_read(struct reader *reader, const json_t *value, void *target)
{
    return json_is_array(value) ? FWD_OK : fail(reader, "expected an array");
}

static const struct member config_members[] = {
    {"io_threads", offsetof(struct config, io_threads), io_threads_read, uint32_write},
    {"forward", 0, stanzas_read, stanzas_write},
    {"warnings", 0, warnings_read, NULL},
};

static uint32_t io_threads_default(void)
{
    return sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 1;
}

static int config_read(struct reader *reader, const json_t *root, struct config *config)
{
    int status = object_read(reader, root, config_members, COUNT(config_members), config);

    if (status != FWD_OK) {
        return status;
    }
    if (config->stanza_count == 0) {
        (void)pointer_push(reader, "forward");
        return fail(reader, "no forward stanza");
    }
    return FWD_OK;
}

/** Parsed JSON to struct config. */
int config_from_json(const json_t *root, struct config **ret, struct fwd_error *error)
{
    struct reader reader = {.error = error};
    struct config *config = calloc(1, sizeof(*config));
    int status;

    if (config == NULL) {
        return out_of_memory(&reader);
    }
    config->io_threads = io_threads_default();
    status = config_read(&reader, root, config);
    if (status != FWD_OK) {
        config_destroy(config);
        return status;
    }
    *ret = config;
    return FWD_OK;
}

/** JSON text to struct config. */
int config_parse(const char *json, size_t len, struct config **ret, struct fwd_error *error)
{
    struct reader reader = {.error = error};
    json_error_t json_error;
    json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &json_error);
    int status;

    if (root == NULL) {
        return json_error_code(&json_error) == json_error_out_of_memory
                   ? out_of_memory(&reader)
                   : fail(&reader, "invalid JSON: %s (line %d, column %d)", json_error.text,
                          json_error.line, json_error.column);
    }
    status = config_from_json(root, ret, error);
    json_decref(root);
    return status;
}

/** The effective configuration, every member present. */
json_t *config_to_json(const struct config *config)
{
    return object_write(config_members, COUNT(config_members), config);
}

/** Frees everything; NULL is allowed. */
void config_destroy(struct config *config)
{
    if (config == NULL) {
        return;
    }
    for (size_t i = 0; i < config->stanza_count; i++) {
        stanza_fini(&config->stanzas[i]);
    }
    free(config->stanzas);
    free(config);
}
