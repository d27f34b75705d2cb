/* From a Corefile to server blocks.
 *
 * Happy path: the module parses the file (fwd.corefile/1); of each block the keys are read, then its
 * directives in the order of readers, forward by the module again (fwd.forward/1); then what CoreDNS
 * checks across blocks. Failure modes: the first error in CoreDNS's order, in its words (cases 8 and
 * 13). CoreDNS takes each step over all blocks, we all steps with one block, which then need not be
 * kept: a failure therefore ends its step and those behind it for all blocks that follow, and one of
 * an earlier step there takes its place.
 */
#include "config.h"

#include "../../module/pages.h"
#include "block.h"
#include "overlap.h"

#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const directives_here[] = {
    "root",       "metadata", "reload", "bind",   "ready",   "health",
    "prometheus", "errors",   "log",    "dnstap", "forward",
};

/* What CoreDNS 1.14.7 has beyond these: a Corefile that uses one needs CoreDNS, in which the module
 * runs as well. */
static const char *const directives_coredns[] = {
    "geoip",      "cancel",      "proxyproto",  "quic",      "grpc_server", "https",
    "https3",     "timeouts",    "multisocket", "nsid",      "bufsize",     "debug",
    "trace",      "pprof",       "shed",        "local",     "dns64",       "any",
    "chaos",      "loadbalance", "tsig",        "rewrite",   "autopath",    "acl",
    "cache",      "header",      "dnssec",      "tls",       "minimal",     "template",
    "transfer",   "hosts",       "route53",     "azure",     "clouddns",    "k8s_external",
    "kubernetes", "file",        "auto",        "secondary", "etcd",        "loop",
    "grpc",       "erratic",     "whoami",      "on",        "sign",        "view",
    "nomad",
};

/** Points the error at its buffers. */
void module_error_init(struct module_error *error)
{
    *error = (struct module_error){
        .error = FWD_INIT(struct fwd_error),
    };
    error->error.msg = error->msg;
    error->error.msg_cap = sizeof(error->msg);
    error->error.file = error->file;
    error->error.file_cap = sizeof(error->file);
    error->error.pointer = error->pointer;
    error->error.pointer_cap = sizeof(error->pointer);
}

/** Copies the module's text. */
bool failure_from_module(struct failure *failure, const struct fwd_error *error)
{
    return failure_set(failure, "%s%s%s", error->msg, error->pointer[0] != '\0' ? " at " : "",
                       error->pointer);
}

static bool word_in(const char *const *words, size_t count, const char *word)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(words[i], word) == 0) {
            return true;
        }
    }
    return false;
}

/* What reading the blocks takes. */
struct loading {
    const struct module *module;
    const struct corefile *corefile;
    struct config *config;
    const char *default_port;
    unsigned steps;             /* those that are still to be taken with each block */
    struct failure *failure;    /* of the step behind them */
    struct text *warnings;      /* where the step at hand has its own */
    struct ifaddrs *interfaces; /* of this machine, once a bind line has asked */
};

static bool names_check(struct loading *loading, const struct block *block)
{
    for (size_t d = 0; d < block->directive_count; d++) {
        const char *name = block->directives[d].name;
        if (word_in(directives_here, sizeof(directives_here) / sizeof(char *), name)) {
            continue;
        }
        const struct fwd_token *token = &block->tokens[block->directives[d].first];
        bool known =
            word_in(directives_coredns, sizeof(directives_coredns) / sizeof(char *), name);
        return failure_set(
            loading->failure, "%s:%u - Error during parsing: Unknown directive '%s'%s%s%s",
            token->file, token->line, name, known ? "\n'" : "", known ? name : "",
            known ? "' is a plugin of CoreDNS: load forward.so in CoreDNS itself to have "
                    "both"
                  : "");
    }
    return true;
}

static bool key_read(struct loading *loading, struct server *server, const struct block_zone *zone)
{
    if (zone->reason != NULL) {
        return failure_set(loading->failure, "error inspecting server blocks: %s", zone->reason);
    }
    if (strcmp(zone->transport, "dns") != 0) {
        return failure_set(loading->failure,
                           "cannot serve %s://%s: fwd-resolver serves dns:// only",
                           zone->transport, zone->zone);
    }
    struct server_key *keys =
        reallocarray(server->keys, server->key_count + 1, sizeof(*server->keys));
    if (keys == NULL) {
        return failure_set(loading->failure, "out of memory");
    }
    server->keys = keys;
    struct server_key *key = &keys[server->key_count++];
    *key = (struct server_key){
        .zone = strdup(zone->zone),
        .port = strdup(zone->port[0] != '\0' ? zone->port : loading->default_port),
    };
    if (key->zone == NULL || key->port == NULL) {
        return failure_set(loading->failure, "out of memory");
    }
    struct name name;
    if (!name_from_text(&name, key->zone)) {
        return failure_set(loading->failure,
                           "error inspecting server blocks: zone is not a valid domain name: %s",
                           key->zone);
    }
    return true;
}

static bool keys_read(struct loading *loading, struct server *server, const struct block *block)
{
    for (size_t z = 0; z < block->zone_count; z++) {
        if (!key_read(loading, server, &block->zones[z])) {
            return false;
        }
    }
    return true;
}

static bool root_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                      struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "root", tokens);
    while (directive_next(&directive)) {
        if (!directive_next_argument(&directive)) {
            return directive_refuse_count(&directive, failure);
        }
        free(server->root);
        server->root = strdup(directive_text(&directive));
        if (server->root == NULL) {
            return failure_set(failure, "plugin/root: out of memory");
        }
    }
    struct stat status;
    if (server->root != NULL && stat(server->root, &status) != 0) {
        if (errno != ENOENT) {
            return directive_refuse(&directive, failure, "unable to access root path '%s': %s",
                                    server->root, strerror(errno));
        }
        text_printf(loading->warnings, "[WARNING] plugin/root: Root path does not exist: %s\n",
                    server->root);
    }
    return true;
}

static bool bind_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                      struct failure *failure)
{
    server->has_bind = true;
    if (loading->interfaces == NULL && getifaddrs(&loading->interfaces) != 0) {
        loading->interfaces = NULL; /* addresses still work */
    }
    return bind_parse(tokens, loading->interfaces, &server->hosts, failure);
}

/* Whether the daemon was built with an HTTP server. */
static bool http_check(const char *name, struct failure *failure)
{
#ifdef HAVE_MICROHTTPD
    return true;
#else
    return failure_set(failure, "plugin/%s: fwd-resolver was built without libmicrohttpd", name);
#endif
}

static bool errors_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                        struct failure *failure)
{
    return errors_parse(tokens, &server->errors, failure);
}

/** Whether a name is or lies below one of the list. */
bool scope_list_has(const struct scope_list *list, const uint8_t *name)
{
    for (size_t i = 0; i < list->count; i++) {
        if (name_under(name, list->names[i].wire)) {
            return true;
        }
    }
    return false;
}

static bool scope_add(struct scope_list *list, const struct name *name)
{
    struct name *names = reallocarray(list->names, list->count + 1, sizeof(*names));
    if (names == NULL) {
        return false;
    }
    list->names = names;
    list->names[list->count++] = *name;
    return true;
}

/* metadata [ZONES...], by default the server block's */
static bool metadata_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                          struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "metadata", tokens);
    (void)directive_next(&directive);
    bool ok = true;
    for (const char *zone; ok && (zone = directive_argument(&directive)) != NULL;) {
        struct name name;
        if (!name_from_text(&name, zone)) {
            return directive_refuse(&directive, failure, "'%s' is not a domain name", zone);
        }
        ok = scope_add(&server->metadata, &name);
    }
    if (directive_next_in_block(&directive) || directive_next(&directive)) {
        return directive_refuse_count(&directive, failure);
    }
    bool own = server->metadata.count == 0;
    for (size_t k = 0; ok && own && k < server->key_count; k++) {
        struct name name;
        ok = name_from_text(&name, server->keys[k].zone) && scope_add(&server->metadata, &name);
    }
    return ok || failure_set(failure, "plugin/metadata: out of memory");
}

static bool reload_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                        struct failure *failure)
{
    return reload_parse(tokens, &server->endpoints, failure);
}

static bool ready_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                       struct failure *failure)
{
    return http_check("ready", failure) && ready_parse(tokens, &server->endpoints, failure);
}

static bool health_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                        struct failure *failure)
{
    return http_check("health", failure) && health_parse(tokens, &server->endpoints, failure);
}

static bool prometheus_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                            struct failure *failure)
{
    return http_check("prometheus", failure) &&
           prometheus_parse(tokens, &server->endpoints, failure);
}

static bool log_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                     struct failure *failure)
{
    server->has_log = true;
    return log_parse(tokens, &server->log, failure);
}

static bool dnstap_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                        struct failure *failure)
{
    return tap_parse(tokens, &server->taps, failure);
}

/* Most configurations have none, and are not worth reading for that. */
static void forward_warn(const char *forward, size_t len, struct text *warnings)
{
    static const char member[] = "\"warnings\":";
    if (len > 0 && memmem(forward, len, member, strlen(member)) != NULL) {
        json_t *document = json_loadb(forward, len, 0, NULL);
        size_t i;
        const json_t *warning;
        json_array_foreach(json_object_get(document, "warnings"), i, warning)
        {
            text_printf(warnings, "[WARNING] plugin/forward: %s\n", json_string_value(warning));
        }
        json_decref(document);
    }
}

static bool forward_read(struct loading *loading, struct server *server, const struct tokens *tokens,
                         struct failure *failure)
{
    struct fwd_directive directive = FWD_INIT(struct fwd_directive);
    directive.tokens = tokens->items;
    directive.token_count = (uint32_t)tokens->count;
    directive.root = server->root;
    directive.flags = loading->corefile->full ? 0 : FWD_DIRECTIVE_BRIEF;
    struct module_error error;
    module_error_init(&error);
    struct text *forwards = &loading->config->forwards;
    server->forward_at = forwards->len;
    int status =
        loading->module->forward->corefile_to_json(&directive, text_sink, forwards, &error.error);
    server->forward_len = forwards->len - server->forward_at;
    forward_warn(forwards->data + server->forward_at, server->forward_len, loading->warnings);
    server->has_forward = true;
    return status >= 0 || failure_from_module(failure, &error.error);
}

/* CoreDNS's order of plugins. */
static const struct reader {
    const char *name;
    bool (*read)(struct loading *loading, struct server *server, const struct tokens *tokens,
                 struct failure *failure);
} readers[] = {
    {"root", root_read},
    {"metadata", metadata_read},
    {"reload", reload_read},
    {"bind", bind_read},
    {"ready", ready_read},
    {"health", health_read},
    {"prometheus", prometheus_read},
    {"errors", errors_read},
    {"log", log_read},
    {"dnstap", dnstap_read},
    {"forward", forward_read},
};

/* The steps in CoreDNS's order: an unknown directive before a syntax error is what it complains of. The
 * module has parsed all blocks when the first one is read here. */
enum {
    STEP_NAMES,
    STEP_PARSE,
    STEP_KEYS,
    STEP_READERS,
    READERS = sizeof(readers) / sizeof(readers[0]),
    STEPS = STEP_READERS + READERS,
};

static bool step_take(struct loading *loading, struct server *server, const struct block *block,
                      unsigned step)
{
    struct tokens tokens;
    switch (step) {
    case STEP_NAMES:
        return names_check(loading, block);
    case STEP_PARSE:
        return true;
    case STEP_KEYS:
        return keys_read(loading, server, block);
    default:
        return !block_directive(block, readers[step - STEP_READERS].name, &tokens) ||
               readers[step - STEP_READERS].read(loading, server, &tokens, loading->failure);
    }
}

/* Takes the steps with a block as far as anything in it can still matter. One without keys serves
 * nothing, whatever is in it, as in CoreDNS. */
static void steps_take(struct loading *loading, const struct block *block,
                       struct text warnings[STEPS])
{
    unsigned own = block->key_count > 0 ? STEPS : STEP_NAMES + 1;
    struct server *server = NULL;
    if (own == STEPS && loading->steps > STEP_KEYS) {
        server = &loading->config->servers[loading->config->count++];
    }
    for (unsigned step = 0; step < loading->steps && step < own; step++) {
        loading->warnings = &warnings[step];
        if (!step_take(loading, server, block, step)) {
            loading->steps = step;
        }
    }
}

/* What CoreDNS warns of goes to stderr: stdout may be the JSON of -validate. It does not come to the steps
 * behind one that failed. */
static void warnings_print(const struct loading *loading, struct text warnings[STEPS])
{
    for (unsigned step = 0; step < STEPS; step++) {
        if (step <= loading->steps && warnings[step].data != NULL) {
            (void)fputs(warnings[step].data, stderr);
        }
        text_fini(&warnings[step]);
    }
}

static struct config *config_create(size_t room)
{
    struct config *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        return NULL;
    }
    config->servers = pages_zeroed(alignof(struct server), (room + 1) * sizeof(*config->servers));
    if (config->servers == NULL) {
        free(config);
        return NULL;
    }
    return config;
}

/* How many values the array that comes has. */
static size_t values_count(const struct jsonscan *scan)
{
    struct jsonscan ahead = *scan;
    size_t count = 0;
    for (bool more = jsonscan_enter(&ahead, '['); more; more = jsonscan_next(&ahead)) {
        jsonscan_skip(&ahead);
        count++;
    }
    return count;
}

static bool loading_fail(struct loading *loading, const char *why)
{
    loading->steps = 0;
    return failure_set(loading->failure, "%s: %s", loading->corefile->name, why);
}

static bool blocks_read(struct loading *loading, struct jsonscan *scan,
                        struct text warnings[STEPS])
{
    struct block block = {0};
    loading->config = config_create(values_count(scan));
    bool ok = loading->config != NULL;
    for (bool more = ok && jsonscan_enter(scan, '['); more; more = ok && jsonscan_next(scan)) {
        ok = block_read(&block, scan);
        if (ok) {
            steps_take(loading, &block, warnings);
        }
    }
    block_fini(&block);
    return ok || scan->broken || loading_fail(loading, "out of memory");
}

static void warnings_read(struct jsonscan *scan, struct text *warnings)
{
    for (bool more = jsonscan_enter(scan, '['); more; more = jsonscan_next(scan)) {
        size_t len;
        text_printf(warnings, "[WARNING] %s\n", jsonscan_string(scan, &len));
    }
}

static void document_read(struct loading *loading, const struct text *json,
                          struct text warnings[STEPS])
{
    struct jsonscan scan = {.at = json->data, .end = json->data + json->len};
    for (bool more = jsonscan_enter(&scan, '{'); more; more = jsonscan_next(&scan)) {
        const char *name = jsonscan_name(&scan);
        if (strcmp(name, "blocks") == 0 && loading->config == NULL) {
            if (!blocks_read(loading, &scan, warnings)) {
                return;
            }
        } else if (strcmp(name, "warnings") == 0) {
            warnings_read(&scan, &warnings[STEP_NAMES]);
        } else {
            jsonscan_skip(&scan);
        }
    }
    if (!jsonscan_end(&scan)) {
        (void)loading_fail(loading, "the module's tree is no JSON");
    }
}

/* The module's document, which holds what stands before a syntax error, too. */
static void corefile_read(struct loading *loading)
{
    const struct corefile *corefile = loading->corefile;
    struct text json = {0};
    struct text warnings[STEPS] = {0};
    struct module_error error;
    module_error_init(&error);
    int status = loading->module->corefile->parse(corefile->text, corefile->len, corefile->name,
                                                  text_sink, &json, &error.error);
    if (status < 0) {
        loading->steps = status == FWD_ERR_SYNTAX ? STEP_PARSE : 0;
        failure_from_module(loading->failure, &error.error);
    }
    if (loading->steps > 0) {
        document_read(loading, &json, warnings);
    }
    text_fini(&json);
    warnings_print(loading, warnings);
}

/* What is to be said once every block has been read. */
static bool config_complete(struct config *config, const struct corefile *corefile,
                            struct failure *failure)
{
    if (config == NULL || config->count == 0) {
        return failure_set(failure, "%s: no server block, nothing to serve", corefile->name);
    }
    for (size_t s = 0; s < config->count; s++) { /* without bind: all addresses */
        struct server *server = &config->servers[s];
        if (!server->has_bind && !host_list_add(&server->hosts, "")) {
            return failure_set(failure, "out of memory");
        }
    }
    return overlap_check(config, failure);
}

/** Reads and checks a Corefile. */
struct config *config_load(const struct module *module, const struct corefile *corefile,
                           const char *default_port, struct failure *failure)
{
    struct loading loading = {
        .module = module,
        .corefile = corefile,
        .default_port = default_port,
        .steps = STEPS,
        .failure = failure,
    };
    corefile_read(&loading);
    freeifaddrs(loading.interfaces);
    if (loading.steps < STEPS || !config_complete(loading.config, corefile, failure)) {
        config_destroy(loading.config);
        return NULL;
    }
    return loading.config;
}

/** Frees a configuration. */
void config_destroy(struct config *config)
{
    if (config == NULL) {
        return;
    }
    for (size_t s = 0; s < config->count; s++) {
        struct server *server = &config->servers[s];
        for (size_t k = 0; k < server->key_count; k++) {
            free(server->keys[k].zone);
            free(server->keys[k].port);
        }
        free(server->keys);
        host_list_fini(&server->hosts);
        free(server->root);
        tap_fini(server->taps);
        query_log_fini(&server->log);
        error_log_fini(&server->errors);
        free(server->metadata.names);
        endpoints_fini(&server->endpoints);
    }
    text_fini(&config->forwards);
    free(config->servers);
    free(config);
}

/** The zones of the block's keys. */
json_t *zones_to_json(const struct server *server)
{
    json_t *zones = json_array();
    for (size_t k = 0; k < server->key_count; k++) {
        json_array_append_new(zones, json_string(server->keys[k].zone));
    }
    return zones;
}

/** HOST:PORT for every address and every port of the block's keys, each once. */
json_t *listen_to_json(const struct server *server)
{
    json_t *listen = json_array();
    for (size_t k = 0; k < server->key_count; k++) {
        bool repeated = false;
        for (size_t before = 0; before < k; before++) {
            repeated |= strcmp(server->keys[before].port, server->keys[k].port) == 0;
        }
        for (size_t h = 0; h < server->hosts.count && !repeated; h++) {
            const char *host = server->hosts.hosts[h];
            json_array_append_new(listen,
                                  json_sprintf(strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s",
                                               host, server->keys[k].port));
        }
    }
    return listen;
}

/* The stanzas of a block, every option with its value: the Corefile was loaded in full. */
static json_t *forward_to_json(const struct config *config, const struct server *server)
{
    json_t *root = server->has_forward
                       ? json_loadb(config->forwards.data + server->forward_at,
                                    server->forward_len, 0, NULL)
                       : NULL;
    json_t *stanzas = json_incref(json_object_get(root, "forward"));
    json_decref(root);
    return stanzas != NULL ? stanzas : json_array();
}

/** The effective configuration. */
json_t *config_to_json(const struct config *config)
{
    json_t *servers = json_array();
    for (size_t s = 0; s < config->count; s++) {
        const struct server *server = &config->servers[s];
        json_array_append_new(servers,
                              json_pack("{s:o, s:o, s:o}", "zones", zones_to_json(server), "listen",
                                        listen_to_json(server), "forward",
                                        forward_to_json(config, server)));
    }
    return json_pack("{s:o}", "servers", servers);
}
