/* The configuration of an instance: JSON in, struct config out, and back.
 *
 * One table, `members`, names every member of a STANZA with the function that reads it and the one
 * that writes it (config_values.c); what is absent keeps CoreDNS's default.
 *
 * Happy path: load, walk the stanzas member by member, check what two members have to do with each
 * other. Failure modes: FWD_ERR_CONFIG with a text and the JSON pointer of the offending value for
 * unknown members, wrong types and ranges; FWD_ERR_NOMEM. Nothing is returned then.
 */
#include "config.h"

#include "config_values.h"
#include "edns.h"
#include "error.h"
#include "gotext.h"
#include "reader.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IO_THREADS_MAX 256
#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

/* A stanza while it is read or written. */
struct draft {
    struct config_stanza stanza;
    struct config_options options;
};

/* What the last few stanzas had, for those after them that have the same. */
struct shares {
    struct {
        const json_t *json;
        const void *value; /* read from it */
    } known[8];
    size_t next;
};

struct sharing {
    struct shares options;
    struct shares to;
};

static const void *shares_find(const struct shares *shares, const json_t *json,
                               int (*alike)(const json_t *, const json_t *))
{
    for (size_t i = 0; i < COUNT(shares->known); i++) {
        if (shares->known[i].json != NULL && alike(shares->known[i].json, json)) {
            return shares->known[i].value;
        }
    }
    return NULL;
}

static void shares_add(struct shares *shares, const json_t *json, const void *value)
{
    size_t i = shares->next++ % COUNT(shares->known);

    shares->known[i].json = json;
    shares->known[i].value = value;
}

static int except_read(struct reader *reader, const json_t *value, void *target)
{
    struct config_stanza *stanza = target;

    return reader_array(reader, value, sizeof(*stanza->except), value_name_read, (void **)&stanza->except,
                        &stanza->except_count);
}

static json_t *except_write(const void *source)
{
    const struct config_stanza *stanza = source;

    return array_to_json(stanza->except, stanza->except_count, sizeof(*stanza->except), value_name_write);
}

static int to_read(struct reader *reader, const json_t *value, void *target)
{
    struct shares *shares = &((struct sharing *)reader->context)->to;
    struct config_stanza *stanza = target;
    int status;

    stanza->to = shares_find(shares, value, json_equal);
    if (stanza->to != NULL) {
        stanza->to_count = (uint32_t)json_array_size(value);
        return FWD_OK;
    }
    status = reader_array(reader, value, sizeof(*stanza->to), value_to_item_read, (void **)&stanza->to,
                          &stanza->to_count);
    if (status == FWD_OK && stanza->to != NULL) {
        shares_add(shares, value, stanza->to);
    }
    return status;
}

static json_t *to_write(const void *source)
{
    const struct config_stanza *stanza = source;

    return array_to_json(stanza->to, stanza->to_count, sizeof(*stanza->to), value_to_item_write);
}

#define STANZA offsetof(struct draft, stanza)
#define OPTIONS offsetof(struct draft, options)
#define AT(field) offsetof(struct draft, options.field)

static const struct member members[] = {
    {"from", offsetof(struct draft, stanza.from), value_name_read, value_name_write},
    {"to", STANZA, to_read, to_write},
    {"except", STANZA, except_read, except_write},
    {"force_tcp", AT(force_tcp), member_read_bool, member_write_bool},
    {"prefer_udp", AT(prefer_udp), member_read_bool, member_write_bool},
    {"next_on_nodata", AT(next_on_nodata), member_read_bool, member_write_bool},
    {"failfast_all_unhealthy_upstreams", AT(failfast), member_read_bool, member_write_bool},
    {"expire", AT(expire_ns), member_read_duration, member_write_duration},
    {"max_age", AT(max_age_ns), member_read_duration, member_write_duration},
    {"read_timeout", AT(read_timeout_ns), member_read_duration, member_write_duration},
    {"max_idle_conns", AT(max_idle_conns), member_read_count, member_write_count},
    {"max_fails", AT(max_fails), member_read_uint32, member_write_uint32},
    {"max_concurrent", AT(max_concurrent), member_read_count, member_write_count},
    {"max_connect_attempts", OPTIONS, value_attempts_read, value_attempts_write},
    {"health_check", OPTIONS, value_health_read, value_health_write},
    {"policy", AT(policy), value_policy_read, value_policy_write},
    {"next", AT(next), value_rcodes_read, value_rcodes_write},
    {"failover", AT(failover), value_failover_read, value_rcodes_write},
    {"tls", OPTIONS, value_tls_read, value_tls_write},
    {"tls_servername", AT(tls_servername), member_read_string, member_write_string},
    {"doh_method", AT(doh_get), value_doh_method_read, value_doh_method_write},
    {"source_address", OPTIONS, value_source_address_read, value_source_address_write},
    {"resolver", OPTIONS, value_resolver_read, value_resolver_write},
    {"resolve_interval", AT(resolve_interval_ns), member_read_duration, member_write_duration},
    {"resolve_hold", AT(resolve_hold_ns), member_read_duration, member_write_duration},
    {"port_budget", AT(port_budget), member_read_uint32, member_write_uint32},
    {"pipeline", AT(pipeline), member_read_uint32, member_write_uint32},
    {"max_conns", AT(max_conns), member_read_uint32, member_write_uint32},
    {"min_idle_conns", AT(min_idle_conns), member_read_uint32, member_write_uint32},
    {"max_conn_uses", AT(max_conn_uses), member_read_uint32, member_write_uint32},
    {"max_handshakes", AT(max_handshakes), member_read_uint32, member_write_uint32},
    {"max_age_jitter", AT(max_age_jitter), member_read_uint32, member_write_uint32},
    {"conn_wait", AT(conn_wait_ns), member_read_duration, member_write_duration},
    {"connect_timeout", AT(connect_timeout_ns), member_read_duration, member_write_duration},
    {"handshake_timeout", AT(handshake_timeout_ns), member_read_duration, member_write_duration},
    {"tcp_keepalive", AT(tcp_keepalive_ns), member_read_duration, member_write_duration},
    {"edns_keepalive", AT(edns_keepalive), member_read_bool, member_write_bool},
    {"padding", AT(padding), member_read_uint32, member_write_uint32},
    {"retransmit", AT(retransmit_ns), member_read_duration, member_write_duration},
};

#define ROOT {".", (const uint8_t[1]){0}, 1}

/* CoreDNS's defaults, and ours where CoreDNS has none. All stanzas without options share them. */
static const struct config_options defaults = {
    .read_timeout_ns = 2 * SECOND,
    .max_fails = 2,
    .expire_ns = 10 * SECOND,
    .health_interval_ns = 500 * MILLISECOND,
    .health_domain = ROOT,
    .port_budget = 1000,
    .pipeline = 1,
    .max_handshakes = 64,
    .conn_wait_ns = 5 * SECOND,
    .handshake_timeout_ns = 2 * SECOND,
    .tls_servername = "",
};

/* What two members have to do with each other. */
static int stanza_check(struct reader *reader, const struct config_stanza *stanza)
{
    const struct config_options *options = stanza->options;
    char age[GOTEXT_DURATION];
    char expire[GOTEXT_DURATION];

    if (options->max_age_ns > 0 && options->max_age_ns < options->expire_ns) {
        (void)reader_push(reader, "max_age");
        gotext_duration_print((int64_t)options->max_age_ns, age);
        gotext_duration_print((int64_t)options->expire_ns, expire);
        return reader_fail(reader, "max_age (%s) must not be less than expire (%s)", age, expire);
    }
    if (options->read_timeout_ns == 0) {
        (void)reader_push(reader, "read_timeout");
        return reader_fail(reader, "read_timeout must be positive: 0s");
    }
    if (options->pipeline == 0) {
        (void)reader_push(reader, "pipeline");
        return reader_fail(reader, "pipeline must be positive: 0");
    }
    if (options->max_age_jitter > 100) {
        (void)reader_push(reader, "max_age_jitter");
        return reader_fail(reader, "max_age_jitter is a percentage: %" PRIu32, options->max_age_jitter);
    }
    if (options->padding > EDNS_MAX_BLOCK) {
        (void)reader_push(reader, "padding");
        return reader_fail(reader, "padding must not be more than %d: %" PRIu32, EDNS_MAX_BLOCK, options->padding);
    }
    if (options->handshake_timeout_ns == 0) {
        (void)reader_push(reader, "handshake_timeout");
        return reader_fail(reader, "handshake_timeout must be positive: 0s");
    }
    if (options->max_conns > 0 && options->min_idle_conns > options->max_conns) {
        (void)reader_push(reader, "min_idle_conns");
        return reader_fail(reader, "min_idle_conns (%" PRIu32 ") must not be more than max_conns (%" PRIu32 ")",
                           options->min_idle_conns, options->max_conns);
    }
    if (stanza->to_count == 0) {
        (void)reader_push(reader, "to");
        return reader_fail(reader, "no valid upstream addresses found");
    }
    for (uint32_t i = 0; i < stanza->to_count; i++) {
        const struct config_to *to = &stanza->to[i];

        if (*options->tls_servername != '\0' && *to->tls_servername != '\0') {
            (void)reader_push(reader, "tls_servername");
            return reader_fail(
                reader,
                "both forward ('%s') and proxy level ('%s') TLS servernames are set for "
                "upstream proxy 'tls://%s'",
                options->tls_servername, to->tls_servername, to->text);
        }
    }
    return FWD_OK;
}

/* How a member is named that a stanza never shares. */
static bool is_own(const char *name)
{
    return strcmp(name, "from") == 0 || strcmp(name, "to") == 0 || strcmp(name, "except") == 0;
}

static size_t options_count(const json_t *stanza)
{
    size_t own = (json_object_get(stanza, "from") != NULL) + (json_object_get(stanza, "to") != NULL) +
                 (json_object_get(stanza, "except") != NULL);

    return json_object_size(stanza) - own;
}

/* Whether two stanzas have their options written alike. */
static int options_alike(const json_t *a, const json_t *b)
{
    const char *name;
    json_t *value;

    if (options_count(a) != options_count(b)) {
        return 0;
    }
    json_object_foreach((json_t *)a, name, value)
    {
        if (!is_own(name) && !json_equal(value, json_object_get(b, name))) {
            return 0;
        }
    }
    return 1;
}

static const struct config_options *options_keep(struct reader *reader, const json_t *value,
                                                 const struct config_options *options)
{
    struct config_options *copy = arena_alloc(reader->arena, sizeof(*copy));

    if (copy != NULL) {
        *copy = *options;
        shares_add(&((struct sharing *)reader->context)->options, value, copy);
    }
    return copy;
}

/* What other stanzas have too; NULL when it is to be read. */
static const struct config_options *options_find(struct reader *reader, const json_t *value)
{
    const struct sharing *sharing = reader->context;

    return options_count(value) > 0 ? shares_find(&sharing->options, value, options_alike)
                                    : &defaults;
}

static int stanza_read(struct reader *reader, const json_t *value, void *target)
{
    const struct config_options *like = options_find(reader, value);
    struct draft draft = {.stanza.from = ROOT, .options = defaults};
    int status;

    draft.stanza.options = like != NULL ? like : &draft.options;
    status = members_read_if(reader, value, members, COUNT(members), &draft, like != NULL ? is_own : NULL);
    if (status == FWD_OK) {
        status = stanza_check(reader, &draft.stanza);
    }
    if (status == FWD_OK && like == NULL) {
        draft.stanza.options = options_keep(reader, value, &draft.options);
        status = draft.stanza.options != NULL ? FWD_OK : reader_nomem(reader);
    }
    *(struct config_stanza *)target = draft.stanza;
    return status;
}

static json_t *stanza_write(const void *source)
{
    const struct config_stanza *stanza = source;
    const struct draft draft = {.stanza = *stanza, .options = *stanza->options};

    return members_write(members, COUNT(members), &draft);
}

/* --- the whole --- */

static int io_threads_read(struct reader *reader, const json_t *value, void *target)
{
    uint64_t number = 0;
    int status = reader_integer(reader, value, IO_THREADS_MAX, &number);

    *(uint32_t *)target = (uint32_t)number;
    return status;
}

static int loops_read(struct reader *reader, const json_t *value, void *target)
{
    uint64_t number = 0;
    int status = reader_integer(reader, value, CONFIG_MAX_LOOPS, &number);

    if (status == FWD_OK && number == 0) {
        return reader_fail(reader, "must be at least 1");
    }
    *(uint32_t *)target = (uint32_t)number;
    return status;
}

static int stanzas_read(struct reader *reader, const json_t *value, void *target)
{
    struct config *config = target;
    uint32_t count = 0;
    int status = reader_array(reader, value, sizeof(*config->stanzas), stanza_read,
                              (void **)&config->stanzas, &count);

    config->stanza_count = count;
    return status;
}

static json_t *stanzas_write(const void *source)
{
    const struct config *config = source;

    return array_to_json(config->stanzas, config->stanza_count, sizeof(*config->stanzas),
                         stanza_write);
}

static int warnings_read(struct reader *reader, const json_t *value, void *target)
{
    (void)target;
    return json_is_array(value) ? FWD_OK : reader_fail(reader, "expected an array");
}

static const struct member config_members[] = {
    {"io_threads", offsetof(struct config, io_threads), io_threads_read, member_write_uint32},
    {"loops", offsetof(struct config, loops), loops_read, member_write_uint32},
    {"engine", offsetof(struct config, engine), member_read_string, member_write_string},
    {"forward", 0, stanzas_read, stanzas_write},
    {"warnings", 0, warnings_read, NULL},
};

/* Two threads are worth their wake-ups only where the host's own leave two cores to them. */
static uint32_t io_threads_default(void)
{
    static atomic_uint known; /* asking opens a file, which a hundred thousand server blocks notice */
    uint32_t threads = atomic_load_explicit(&known, memory_order_relaxed);

    if (threads == 0) {
        threads = sysconf(_SC_NPROCESSORS_ONLN) > 3 ? 2 : 1;
        atomic_store_explicit(&known, threads, memory_order_relaxed);
    }
    return threads;
}

static int config_read(struct reader *reader, const json_t *root, struct config *config)
{
    int status = members_read(reader, root, config_members, COUNT(config_members), config);

    if (status != FWD_OK) {
        return status;
    }
    if (config->stanza_count == 0) {
        (void)reader_push(reader, "forward");
        return reader_fail(reader, "no forward stanza");
    }
    return FWD_OK;
}

/** Parsed JSON to struct config. */
int config_from_json(const json_t *root, struct config **ret, struct fwd_error *error)
{
    struct sharing sharing = {0};
    struct reader reader = {.error = error, .context = &sharing};
    struct config *config = calloc(1, sizeof(*config));
    int status;

    if (config == NULL) {
        return reader_nomem(&reader);
    }
    reader.arena = &config->arena;
    config->io_threads = io_threads_default();
    config->loops = 1;
    config->engine = "";
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
        /* jansson has no text for most of its failed allocations */
        return json_error_code(&json_error) == json_error_out_of_memory || *json_error.text == '\0'
                   ? reader_nomem(&reader)
                   : reader_fail(&reader, "invalid JSON: %s (line %d, column %d)", json_error.text,
                                 json_error.line, json_error.column);
    }
    status = config_from_json(root, ret, error);
    json_decref(root);
    return status;
}

/** The effective configuration, every member present. */
json_t *config_to_json(const struct config *config)
{
    return members_write(config_members, COUNT(config_members), config);
}

/** Frees everything; NULL is allowed. */
void config_destroy(struct config *config)
{
    if (config == NULL) {
        return;
    }
    arena_free(&config->arena);
    free(config);
}
