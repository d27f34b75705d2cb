/* Reading a web configuration.
 *
 * Happy path: a mapping of sections; tls_server_config names certificate and key, which are read.
 * Failure modes: the toolkit's words, where it has some; a member that we do not have is an error
 * and never overlooked, as it may be one that keeps people out.
 */
#include "web_config.h"

#include <stdlib.h>

#ifdef HAVE_WEB_TLS

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { PEM_MAX = 1 << 20 };

static const char *const versions[] = {"TLS10", "TLS11", "TLS12", "TLS13"};

/* While it is read. */
struct reading {
    yaml_document_t document;
    const char *path;
    char *cert_file, *key_file, *ca_file;
    char *auth;
    unsigned least, most; /* of versions */
    struct web_config *config;
    struct failure *failure;
};

static const char *scalar(const yaml_node_t *node)
{
    return node != NULL && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value
                                                          : NULL;
}

static bool refuse(const struct reading *reading, const yaml_node_t *node, const char *what,
                   const char *name)
{
    return failure_set(reading->failure, "%s: line %zu: %s %s", reading->path,
                       node->start_mark.line + 1, what, name);
}

/* Calls member for each of a mapping; an absent value (null) is an empty mapping. */
static bool members_read(struct reading *reading, yaml_node_t *mapping,
                         bool (*member)(struct reading *reading, const char *name,
                                        yaml_node_t *value))
{
    if (mapping->type == YAML_SCALAR_NODE && mapping->data.scalar.length == 0) {
        return true;
    }
    if (mapping->type != YAML_MAPPING_NODE) {
        return refuse(reading, mapping, "expected a mapping", "");
    }
    for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top; pair++) {
        yaml_node_t *key = yaml_document_get_node(&reading->document, pair->key);
        yaml_node_t *value = yaml_document_get_node(&reading->document, pair->value);
        const char *name = scalar(key);
        if (name == NULL || value == NULL) {
            return refuse(reading, mapping, "expected names", "");
        }
        if (!member(reading, name, value)) {
            return false;
        }
    }
    return true;
}

static bool version_read(struct reading *reading, const yaml_node_t *value, unsigned *ret)
{
    const char *text = scalar(value);
    for (unsigned i = 0; text != NULL && i < sizeof(versions) / sizeof(*versions); i++) {
        if (strcmp(text, versions[i]) == 0) {
            *ret = i;
            return true;
        }
    }
    return failure_set(reading->failure, "unknown TLS version: %s", text != NULL ? text : "");
}

static bool tls_member(struct reading *reading, const char *name, yaml_node_t *value)
{
    struct web_config *config = reading->config;
    const struct {
        const char *name;
        char **text;
    } texts[] = {
        {"cert", &config->cert},          {"key", &config->key},
        {"client_ca", &config->ca},       {"cert_file", &reading->cert_file},
        {"key_file", &reading->key_file}, {"client_ca_file", &reading->ca_file},
        {"client_auth_type", &reading->auth},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        if (strcmp(name, texts[i].name) == 0) {
            const char *text = scalar(value);
            if (text == NULL) {
                return refuse(reading, value, "expected a text for", name);
            }
            free(*texts[i].text);
            *texts[i].text = text[0] != '\0' ? strdup(text) : NULL;
            return text[0] == '\0' || *texts[i].text != NULL ||
                   failure_set(reading->failure, "out of memory");
        }
    }
    if (strcmp(name, "min_version") == 0 || strcmp(name, "max_version") == 0) {
        return version_read(reading, value, name[1] == 'i' ? &reading->least : &reading->most);
    }
    return strcmp(name, "prefer_server_cipher_suites") == 0 || /* Go does not look at it either */
           refuse(reading, value, "fwd-resolver does not have tls_server_config's", name);
}

static bool http_member(struct reading *reading, const char *name, yaml_node_t *value)
{
    return strcmp(name, "http2") == 0 || /* what we speak is HTTP/1.1, which every client does */
           refuse(reading, value, "fwd-resolver does not have http_server_config's", name);
}

static bool section(struct reading *reading, const char *name, yaml_node_t *value)
{
    if (strcmp(name, "tls_server_config") == 0) {
        return members_read(reading, value, tls_member);
    }
    if (strcmp(name, "http_server_config") == 0) {
        return members_read(reading, value, http_member);
    }
    return refuse(reading, value, "fwd-resolver does not have the web configuration's", name);
}

static char *file_text(const char *path)
{
    FILE *in = fopen(path, "re");
    char *text = in != NULL ? malloc(PEM_MAX + 1) : NULL;
    if (text != NULL) {
        text[fread(text, 1, PEM_MAX, in)] = '\0';
        errno = ferror(in) != 0 ? EISDIR : 0;
    }
    if (in != NULL) {
        int saved = errno;
        (void)fclose(in);
        errno = saved;
    }
    if (text != NULL && errno != 0) {
        free(text);
        text = NULL;
    }
    return text;
}

/* Reads a file that was named; text given in its place is used without one. */
static bool named_read(const struct reading *reading, const char *member, const char *file,
                       char **text)
{
    char path[4096];
    if (file == NULL) {
        return true;
    }
    const char *slash = file[0] == '/' ? NULL : strrchr(reading->path, '/');
    (void)snprintf(path, sizeof(path), "%.*s%s",
                   slash != NULL ? (int)(slash + 1 - reading->path) : 0, reading->path, file);
    free(*text);
    *text = file_text(path);
    return *text != NULL || failure_set(reading->failure, "failed to read %s (%s): %s", member,
                                        path, strerror(errno));
}

static bool clients_read(const struct reading *reading)
{
    static const struct {
        const char *name;
        enum web_clients clients;
    } rows[] = {
        {"NoClientCert", CLIENTS_ANY},
        {"RequestClientCert", CLIENTS_ANY},
        {"RequireAnyClientCert", CLIENTS_CERTIFIED},
        {"RequireClientCert", CLIENTS_CERTIFIED},
        {"VerifyClientCertIfGiven", CLIENTS_VERIFIED_IF_CERTIFIED},
        {"RequireAndVerifyClientCert", CLIENTS_VERIFIED},
    };
    const char *auth = reading->auth != NULL ? reading->auth : rows[0].name;
    size_t i = 0;
    while (i < sizeof(rows) / sizeof(*rows) && strcmp(auth, rows[i].name) != 0) {
        i++;
    }
    if (i == sizeof(rows) / sizeof(*rows)) {
        return failure_set(reading->failure, "invalid ClientAuth: %s", auth);
    }
    if (i == 0 && reading->config->ca != NULL) {
        return failure_set(reading->failure,
                           "client CA's have been configured without a Client Auth Policy");
    }
    reading->config->clients = rows[i].clients;
    return rows[i].clients == CLIENTS_ANY || reading->config->ca != NULL ||
           failure_set(reading->failure, "fwd-resolver needs client_ca_file for %s", auth);
}

static void priorities_print(const struct reading *reading)
{
    static const char *const names[] = {"1.0", "1.1", "1.2", "1.3"};
    char *text = reading->config->priorities;
    size_t size = sizeof(reading->config->priorities);
    size_t len = (size_t)snprintf(text, size, "NORMAL:-VERS-ALL");
    for (unsigned i = reading->least; i <= reading->most; i++) {
        len += (size_t)snprintf(text + len, size - len, ":+VERS-TLS%s", names[i]);
    }
}

static bool contents_read(const struct reading *reading)
{
    struct web_config *config = reading->config;
    bool cert = reading->cert_file != NULL || config->cert != NULL;
    bool key = reading->key_file != NULL || config->key != NULL;
    bool ca = reading->ca_file != NULL || config->ca != NULL;
    if (!cert && !key && !ca && reading->auth == NULL) {
        return true; /* plain HTTP */
    }
    if (!cert || !key) {
        return failure_set(reading->failure, "missing one of %s or %s_file", cert ? "key" : "cert",
                           cert ? "key" : "cert");
    }
    priorities_print(reading);
    return named_read(reading, "cert_file", reading->cert_file, &config->cert) &&
           named_read(reading, "key_file", reading->key_file, &config->key) &&
           named_read(reading, "client_ca_file", reading->ca_file, &config->ca) &&
           clients_read(reading);
}

static bool document_read(struct reading *reading)
{
    yaml_node_t *root = yaml_document_get_root_node(&reading->document);
    return (root == NULL || members_read(reading, root, section)) && contents_read(reading);
}

static bool yaml_read(struct reading *reading, FILE *in)
{
    yaml_parser_t parser;
    if (yaml_parser_initialize(&parser) == 0) {
        return failure_set(reading->failure, "out of memory");
    }
    yaml_parser_set_input_file(&parser, in);
    bool ok = yaml_parser_load(&parser, &reading->document) == 1;
    if (ok) {
        ok = document_read(reading);
        yaml_document_delete(&reading->document);
    } else {
        (void)failure_set(reading->failure, "yaml: line %zu: %s", parser.problem_mark.line + 1,
                          parser.problem != NULL ? parser.problem : "cannot be read");
    }
    yaml_parser_delete(&parser);
    return ok;
}

/** Reads. */
bool web_config_read(const char *path, struct web_config *ret, struct failure *failure)
{
    *ret = (struct web_config){.clients = CLIENTS_ANY};
    struct reading reading = {
        .path = path, .least = 2, .most = 3, .config = ret, .failure = failure};
    FILE *in = fopen(path, "re");
    if (in == NULL) {
        return errno == ENOENT
                   ? failure_set(failure, "TLS config file does not exist: %s", path)
                   : failure_set(failure, "open %s: %s", path, strerror(errno));
    }
    bool ok = yaml_read(&reading, in);
    (void)fclose(in);
    free(reading.cert_file);
    free(reading.key_file);
    free(reading.ca_file);
    free(reading.auth);
    if (!ok) {
        web_config_fini(ret);
    }
    return ok;
}

#endif

/** Frees. */
void web_config_fini(struct web_config *config)
{
    free(config->cert);
    free(config->key);
    free(config->ca);
    *config = (struct web_config){.clients = CLIENTS_ANY};
}
