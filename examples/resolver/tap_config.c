/* Reading a dnstap line.
 *
 * Happy path: perhaps `listen`, an endpoint, perhaps `full` and two multiples, perhaps a block.
 * Failure modes: CoreDNS's error texts. Files of `tls` are looked at when the listener starts.
 */
#include "tap_config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool set(char **ret, const char *value)
{
    free(*ret);
    *ret = strdup(value);
    return *ret != NULL;
}

static bool multiple_read(const struct directive *directive, const char *text, const char *name,
                          const char *unit, long max, long *ret, struct failure *failure)
{
    char *end;
    errno = 0;
    *ret = strtol(text, &end, 10);
    bool digits = *text != '\0' && (*text == '+' || *text == '-' || (*text >= '0' && *text <= '9'));
    if (!digits || *end != '\0' || end == text || errno != 0) {
        return directive_refuse(
            directive, failure, "dnstap: invalid %s \"%s\": strconv.Atoi: parsing \"%s\": %s", name,
            text, text, errno == ERANGE ? "value out of range" : "invalid syntax");
    }
    return (*ret >= 1 && *ret <= max) ||
           directive_refuse(directive, failure, "dnstap: %s must be between 1 and %ld (%s): %ld",
                            name, max, unit, *ret);
}

/* What url.Parse takes for the host of SCHEME://HOST:PORT; a port is digits or nothing. */
static bool host_set(struct tap_config *config, const char *url)
{
    char *host = strndup(url, strcspn(url, "/?#"));
    const char *port = host != NULL ? strrchr(host, ':') : NULL;
    bool bracket = host != NULL && strchr(host, ']') != NULL && port < strchr(host, ']');
    bool ok = host != NULL && (port == NULL || bracket || port[1 + strspn(port + 1, "0123456789")] == '\0');
    free(config->endpoint);
    config->endpoint = host;
    return ok;
}

static bool endpoint_read(struct tap_config *config, const struct directive *directive,
                          const char *endpoint, struct failure *failure)
{
    bool tls = strncmp(endpoint, "tls://", 6) == 0;
    if (tls || strncmp(endpoint, "tcp://", 6) == 0) {
        config->transport = tls ? TAP_TLS : TAP_TCP;
        return host_set(config, endpoint + 6) || directive_refuse_count(directive, failure);
    }
    size_t scheme = strncmp(endpoint, "unix://", 7) == 0 ? 7 : 0;
    return set(&config->endpoint, endpoint + scheme) ||
           failure_set(failure, "plugin/dnstap: out of memory");
}

static bool arguments_read(struct tap_config *config, struct directive *directive,
                           struct failure *failure)
{
    const char *all[5] = {NULL};
    size_t count = 0;
    for (const char *text; (text = directive_argument(directive)) != NULL; count++) {
        if (count < 5) {
            all[count] = text;
        }
    }
    if (count == 0) {
        return directive_refuse_count(directive, failure);
    }
    config->listen = strcmp(all[0], "listen") == 0;
    if (config->listen && count < 2) {
        return directive_refuse(directive, failure, "dnstap listen requires an endpoint argument");
    }
    const char *const *arguments = all + config->listen;
    if ((arguments[2] != NULL &&
         !multiple_read(directive, arguments[2], "MultipleTcpWriteBuf", "MiB units", TAP_BUFFER_MAX,
                        &config->buffers, failure)) ||
        (arguments[3] != NULL &&
         !multiple_read(directive, arguments[3], "MultipleQueue", "x10k messages", TAP_QUEUE_MAX,
                        &config->queues, failure))) {
        return false;
    }
    config->full = arguments[1] != NULL && strcmp(arguments[1], "full") == 0;
    return endpoint_read(config, directive, arguments[0], failure);
}

/* tls CERT KEY [CA] */
static bool tls_read(struct tap_config *config, struct directive *directive,
                     struct failure *failure)
{
    char **const members[] = {&config->cert, &config->key, &config->ca};
    size_t count = 0;
    if (!config->listen) {
        return directive_refuse(directive, failure, "tls directive only valid for listeners");
    }
    for (const char *file; (file = directive_argument(directive)) != NULL; count++) {
        if (count < 3 && !set(members[count], file)) {
            return failure_set(failure, "plugin/dnstap: out of memory");
        }
    }
    return count >= 2 ||
           directive_refuse(directive, failure, "tls requires cert and key file paths");
}

static bool option_read(struct tap_config *config, struct directive *directive,
                        struct failure *failure)
{
    const char *option = directive_text(directive);
    if (strcmp(option, "skipverify") == 0) {
        config->skipverify = true;
        return true;
    }
    if (strcmp(option, "tls") == 0) {
        return tls_read(config, directive, failure);
    }
    bool identity = strcmp(option, "identity") == 0;
    bool version = strcmp(option, "version") == 0;
    if (!identity && !version && strcmp(option, "extra") != 0) {
        return directive_refuse(directive, failure, "unknown property '%s'", option);
    }
    if (!directive_next_argument(directive)) {
        return directive_refuse_count(directive, failure);
    }
    const char *value = directive_text(directive);
    bool ok;
    if (identity || version) {
        ok = set(identity ? &config->identity : &config->version, value);
    } else {
        log_format_fini(&config->extra);
        config->has_extra = value[0] != '\0';
        ok = log_format_parse(&config->extra, value);
    }
    return ok || failure_set(failure, "plugin/dnstap: out of memory");
}

/** Reads. */
bool tap_config_read(struct tap_config *config, struct directive *directive,
                     struct failure *failure)
{
    *config = (struct tap_config){.buffers = 1, .queues = 1};
    if (!arguments_read(config, directive, failure)) {
        return false;
    }
    char host[256] = "";
    (void)gethostname(host, sizeof(host) - 1);
    if (!set(&config->identity, host) || !set(&config->version, "fwd-resolver-" PROJECT_VERSION)) {
        return failure_set(failure, "plugin/dnstap: out of memory");
    }
    while (directive_next_in_block(directive)) {
        if (!option_read(config, directive, failure)) {
            return false;
        }
    }
    return true;
}

/** Frees. */
void tap_config_fini(struct tap_config *config)
{
    free(config->endpoint);
    free(config->cert);
    free(config->key);
    free(config->ca);
    free(config->identity);
    free(config->version);
    log_format_fini(&config->extra);
}
