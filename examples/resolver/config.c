/* From a Corefile to server blocks.
 *
 * Happy path: the module parses the file (fwd.corefile/1); the keys are read, then directive by
 * directive over all blocks root, bind, errors, log and forward, the last by the module again
 * (fwd.forward/1); then what CoreDNS checks across blocks. Failure modes: the first error in that
 * order, worded as CoreDNS words it (cases 8 and 13).
 */
#include "config.h"

#include "../../module/pages.h"
#include "directive.h"
#include "overlap.h"

#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What reading the directives takes. */
struct loading {
    const struct module *module;
    const struct corefile *corefile;
    struct ifaddrs *interfaces; /* of this machine, once a bind line has asked */
};

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

static bool directives_check(const json_t *blocks, struct failure *failure)
{
    size_t b;
    size_t d;
    const json_t *block;
    const json_t *directive;
    json_array_foreach(blocks, b, block)
    {
        json_array_foreach(json_object_get(block, "directives"), d, directive)
        {
            const char *name = json_string_value(json_array_get(directive, 0));
            if (word_in(directives_here, sizeof(directives_here) / sizeof(char *), name)) {
                continue;
            }
            const json_t *line = json_array_get(directive, 1);
            bool known =
                word_in(directives_coredns, sizeof(directives_coredns) / sizeof(char *), name);
            return failure_set(
                failure, "%s:%lld - Error during parsing: Unknown directive '%s'%s%s%s",
                json_string_value(json_array_get(line, 0)),
                (long long)json_integer_value(json_array_get(line, 1)), name,
                known ? "\n'" : "", known ? name : "",
                known ? "' is a plugin of CoreDNS: load forward.so in CoreDNS itself to have "
                        "both"
                      : "");
        }
    }
    return true;
}

static bool key_read(struct server *server, const json_t *zone, const char *default_port,
                     struct failure *failure)
{
    const char *text = json_string_value(json_array_get(zone, 0));
    const char *port = json_string_value(json_array_get(zone, 1));
    const char *transport = json_string_value(json_array_get(zone, 2));
    if (transport != NULL && strcmp(transport, "dns") != 0) {
        return failure_set(failure, "cannot serve %s://%s: fwd-resolver serves dns:// only",
                           transport, text);
    }
    struct server_key *keys =
        reallocarray(server->keys, server->key_count + 1, sizeof(*server->keys));
    if (keys == NULL) {
        return failure_set(failure, "out of memory");
    }
    server->keys = keys;
    struct server_key *key = &keys[server->key_count++];
    *key = (struct server_key){
        .zone = strdup(text),
        .port = strdup(port != NULL && port[0] != '\0' ? port : default_port),
    };
    if (key->zone == NULL || key->port == NULL) {
        return failure_set(failure, "out of memory");
    }
    struct name name;
    if (!name_from_text(&name, key->zone)) {
        return failure_set(failure,
                           "error inspecting server blocks: zone is not a valid domain name: %s",
                           key->zone);
    }
    return true;
}

static bool keys_read(struct server *server, const json_t *block, const char *default_port,
                      struct failure *failure)
{
    size_t k;
    const json_t *key;
    json_array_foreach(json_object_get(block, "keys"), k, key)
    {
        for (size_t z = 3; z < json_array_size(key); z++) {
            const json_t *zone = json_array_get(key, z);
            if (json_is_string(zone)) {
                return failure_set(failure, "error inspecting server blocks: %s",
                                   json_string_value(zone));
            }
            if (!key_read(server, zone, default_port, failure)) {
                return false;
            }
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
        (void)fprintf(stderr, "[WARNING] plugin/root: Root path does not exist: %s\n",
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

/* What CoreDNS warns of goes to stderr: stdout may be the JSON of -validate. */
static void warnings_print(const json_t *document, const char *prefix)
{
    size_t i;
    const json_t *warning;
    json_array_foreach(json_object_get(document, "warnings"), i, warning)
    {
        (void)fprintf(stderr, "[WARNING] %s%s\n", prefix, json_string_value(warning));
    }
}

/* Prints the warnings of a configuration; most have none, and are not worth reading for that. */
static void forward_warn(const struct text *forward)
{
    static const char member[] = "\"warnings\":";
    if (forward->len > 0 && memmem(forward->data, forward->len, member, strlen(member)) != NULL) {
        json_t *document = json_loadb(forward->data, forward->len, 0, NULL);
        warnings_print(document, "plugin/forward: ");
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
    int status = loading->module->forward->corefile_to_json(&directive, text_sink, &server->forward,
                                                            &error.error);
    forward_warn(&server->forward);
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

enum { READERS = sizeof(readers) / sizeof(readers[0]) };

/* A block's directives in the order of readers, NULL for those that it does not have. */
struct found {
    const json_t *directives[READERS];
};

static void directives_find(struct found *ret, const json_t *block)
{
    size_t i;
    const json_t *directive;
    json_array_foreach(json_object_get(block, "directives"), i, directive)
    {
        const char *name = json_string_value(json_array_get(directive, 0));
        size_t r = 0;
        while (r < READERS && strcmp(readers[r].name, name) != 0) {
            r++;
        }
        ret->directives[r] = directive; /* directives_check has let none pass that is not there */
    }
}

static bool directive_read(struct loading *loading, const struct reader *reader,
                           struct server *server, const json_t *directive, struct failure *failure)
{
    struct tokens tokens;
    if (!tokens_read(&tokens, directive)) {
        return failure_set(failure, "out of memory");
    }
    bool ok = reader->read(loading, server, &tokens, failure);
    tokens_fini(&tokens);
    return ok;
}

static bool directives_read(struct loading *loading, struct config *config,
                            const struct found *found, struct failure *failure)
{
    for (size_t r = 0; r < READERS; r++) {
        for (size_t s = 0; s < config->count; s++) {
            const json_t *directive = found[s].directives[r];
            if (directive != NULL && !directive_read(loading, &readers[r], &config->servers[s],
                                                     directive, failure)) {
                return false;
            }
        }
    }
    return true;
}

static bool blocks_read(struct loading *loading, struct config *config, const json_t *blocks,
                        const char *default_port, struct failure *failure)
{
    struct found *found = calloc(config->count, sizeof(*found));
    bool ok = found != NULL || failure_set(failure, "out of memory");
    for (size_t s = 0; ok && s < config->count; s++) {
        const json_t *block = json_array_get(blocks, s);
        ok = keys_read(&config->servers[s], block, default_port, failure);
        directives_find(&found[s], block);
    }
    ok = ok && directives_read(loading, config, found, failure);
    free(found);
    for (size_t s = 0; ok && s < config->count; s++) { /* without bind: all addresses */
        struct server *server = &config->servers[s];
        if (!server->has_bind && !host_list_add(&server->hosts, "")) {
            ok = failure_set(failure, "out of memory");
        }
    }
    return ok && overlap_check(config, failure);
}

/* The module's tree. On a syntax error it is what stands before the error, and *ret_ok is false. */
static json_t *corefile_parse(const struct module *module, const struct corefile *corefile,
                              bool *ret_ok, struct failure *failure)
{
    struct text json = {0};
    struct module_error error;
    module_error_init(&error);
    int status = module->corefile->parse(corefile->text, corefile->len, corefile->name, text_sink,
                                         &json, &error.error);
    json_t *tree = json_loadb(json.data != NULL ? json.data : "", json.len, 0, NULL);
    text_fini(&json);
    *ret_ok = status >= 0 && tree != NULL;
    if (status < 0) {
        failure_from_module(failure, &error.error);
    } else if (tree == NULL) {
        failure_set(failure, "%s: the module's tree is no JSON", corefile->name);
    }
    return tree;
}

static struct config *config_create(size_t count)
{
    struct config *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        return NULL;
    }
    config->count = count;
    config->servers = pages_zeroed(alignof(struct server), (count + 1) * sizeof(*config->servers));
    if (config->servers == NULL) {
        free(config);
        return NULL;
    }
    return config;
}

/* Drops the blocks that have no keys, whatever is in them, as CoreDNS does. */
static void keyless_drop(json_t *blocks)
{
    for (size_t b = json_array_size(blocks); b-- > 0;) {
        if (json_array_size(json_object_get(json_array_get(blocks, b), "keys")) == 0) {
            (void)json_array_remove(blocks, b);
        }
    }
}

/** Reads and checks a Corefile. */
struct config *config_load(const struct module *module, const struct corefile *corefile,
                           const char *default_port, struct failure *failure)
{
    bool parsed = false;
    json_t *tree = corefile_parse(module, corefile, &parsed, failure);
    json_t *blocks = json_object_get(tree, "blocks");
    warnings_print(tree, "");
    /* An unknown directive before a syntax error is what CoreDNS complains of. */
    if (!directives_check(blocks, failure) || !parsed) {
        json_decref(tree);
        return NULL;
    }
    keyless_drop(blocks);
    struct config *config = config_create(json_array_size(blocks));
    bool ok = config != NULL || failure_set(failure, "out of memory");
    if (ok && config->count == 0) {
        ok = failure_set(failure, "%s: no server block, nothing to serve", corefile->name);
    }
    struct loading loading = {.module = module, .corefile = corefile};
    ok = ok && blocks_read(&loading, config, blocks, default_port, failure);
    freeifaddrs(loading.interfaces);
    json_decref(tree);
    if (!ok) {
        config_destroy(config);
        return NULL;
    }
    return config;
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
        text_fini(&server->forward);
    }
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
static json_t *forward_to_json(const struct server *server)
{
    json_t *root = json_loadb(server->forward.data != NULL ? server->forward.data : "",
                              server->forward.len, 0, NULL);
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
                                        forward_to_json(server)));
    }
    return json_pack("{s:o}", "servers", servers);
}
