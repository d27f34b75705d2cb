/* Reading the process's directives.
 *
 * Happy path: an address, perhaps a block. Failure modes: CoreDNS's error texts (Go's net, time and
 * errors included); what CoreDNS has and this daemon has not is named as such.
 */
#include "endpoints.h"

#include "clock.h"
#include "directive.h"
#include "duration.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define RELOAD_LEAST_NS (2ll * SECOND_NS)
#define RELOAD_DEFAULT_NS (30ll * SECOND_NS)
#define JITTER_LEAST_NS (1ll * SECOND_NS)
#define JITTER_DEFAULT_NS (15ll * SECOND_NS)

/* net.SplitHostPort's judgement of an address. */
static bool address_check(const char *name, const char *address, struct failure *failure)
{
    const char *colon = strrchr(address, ':');
    const char *why = NULL;
    if (colon == NULL) {
        why = "missing port in address";
    } else if (address[0] == '[') {
        const char *close = strchr(address, ']');
        if (close == NULL) {
            why = "missing ']' in address";
        } else if (close[1] == '\0') {
            why = "missing port in address";
        } else if (close + 1 != colon) {
            why = close[1] == ':' ? "too many colons in address" : "missing port in address";
        } else if (memchr(address + 1, '[', (size_t)(colon - address - 1)) != NULL) {
            why = "unexpected '[' in address";
        }
    } else if (memchr(address, ':', (size_t)(colon - address)) != NULL) {
        why = "too many colons in address";
    } else if (strchr(address, '[') != NULL) {
        why = "unexpected '[' in address";
    } else if (strchr(address, ']') != NULL) {
        why = "unexpected ']' in address";
    }
    return why == NULL || failure_set(failure, "plugin/%s: address %s: %s", name, address, why);
}

/* The one argument that may follow: where to listen. */
static bool address_read(struct directive *directive, char **ret, const char *otherwise,
                         struct failure *failure)
{
    const char *argument = directive_argument(directive);
    const char *address = argument != NULL ? argument : otherwise;
    if (argument != NULL && directive_argument(directive) != NULL) {
        while (directive_argument(directive) != NULL) {
        }
        return directive_refuse_count(directive, failure);
    }
    if (!address_check(directive->name, address, failure)) {
        return false;
    }
    char *copy = strdup(address); /* address may be *ret itself */
    free(*ret);
    *ret = copy;
    return *ret != NULL || failure_set(failure, "plugin/%s: out of memory", directive->name);
}

/* The one argument that must follow, NULL when there is another number of them. */
static const char *single_read(struct directive *directive)
{
    const char *argument = directive_argument(directive);
    size_t more = 0;
    while (argument != NULL && directive_argument(directive) != NULL) {
        more++;
    }
    return more == 0 ? argument : NULL;
}

static bool once_refuse(const struct directive *directive, struct failure *failure)
{
    return failure_set(failure, "plugin/%s: this plugin can only be used once per Server Block",
                       directive->name);
}

/* tls FILE */
static bool metrics_tls_read(struct directive *directive, struct endpoints *ret,
                             struct failure *failure)
{
    if (ret->metrics_tls != NULL) {
        return directive_refuse(directive, failure, "tls block already specified");
    }
    const char *file = single_read(directive);
    if (file == NULL) {
        return directive_refuse_count(directive, failure);
    }
#ifdef HAVE_WEB_TLS
    ret->metrics_tls = strdup(file);
    return ret->metrics_tls != NULL || failure_set(failure, "plugin/prometheus: out of memory");
#else
    return directive_refuse(directive, failure,
                            "'tls': fwd-resolver was built without GnuTLS or libyaml");
#endif
}

/** prometheus [ADDR] { runtime_metrics, tls FILE } */
bool prometheus_parse(const struct tokens *tokens, struct endpoints *ret, struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "prometheus", tokens);
    while (directive_next(&directive)) {
        if (ret->metrics != NULL) {
            return once_refuse(&directive, failure);
        }
        if (!address_read(&directive, &ret->metrics, "localhost:9153", failure)) {
            return false;
        }
        while (directive_next_in_block(&directive)) {
            const char *option = directive_text(&directive);
            if (strcmp(option, "tls") == 0) {
                if (!metrics_tls_read(&directive, ret, failure)) {
                    return false;
                }
                continue;
            }
            if (strcmp(option, "runtime_metrics") != 0) { /* about Go's runtime: nothing to add */
                return directive_refuse(&directive, failure, "unknown option: %s", option);
            }
            if (directive_argument(&directive) != NULL) {
                return directive_refuse_count(&directive, failure);
            }
        }
    }
    return true;
}

static bool lameduck_read(struct directive *directive, struct endpoints *ret,
                          struct failure *failure)
{
    const char *argument = single_read(directive);
    if (argument == NULL) {
        return directive_refuse_count(directive, failure);
    }
    struct failure why;
    if (!duration_parse(argument, &ret->lameduck_ns, &why)) {
        return failure_set(failure,
                           "plugin/health: unable to parse lameduck duration value: '%s' : %.512s",
                           argument, why.text);
    }
    return true;
}

/** health [ADDR] { lameduck DURATION } */
bool health_parse(const struct tokens *tokens, struct endpoints *ret, struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "health", tokens);
    while (directive_next(&directive)) {
        const char *otherwise = ret->health != NULL ? ret->health : ":8080";
        if (!address_read(&directive, &ret->health, otherwise, failure)) {
            return false;
        }
        while (directive_next_in_block(&directive)) {
            if (strcmp(directive_text(&directive), "lameduck") != 0) {
                return directive_refuse(&directive, failure, "unknown property '%s'",
                                        directive_text(&directive));
            }
            if (!lameduck_read(&directive, ret, failure)) {
                return false;
            }
        }
    }
    return true;
}

/** ready [ADDR] { monitor until-ready|continuously }: what is ready here stays so. */
bool ready_parse(const struct tokens *tokens, struct endpoints *ret, struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "ready", tokens);
    while (directive_next(&directive)) {
        if (ret->ready != NULL) {
            return once_refuse(&directive, failure);
        }
        if (!address_read(&directive, &ret->ready, ":8181", failure)) {
            return false;
        }
        while (directive_next_in_block(&directive)) {
            if (strcmp(directive_text(&directive), "monitor") != 0) {
                return directive_refuse(&directive, failure, "unknown property '%s'",
                                        directive_text(&directive));
            }
            const char *type = single_read(&directive);
            if (type == NULL) {
                return directive_refuse_count(&directive, failure);
            }
            if (strcmp(type, "until-ready") != 0 && strcmp(type, "continuously") != 0) {
                return directive_refuse(&directive, failure, "monitor type '%s' not supported",
                                        type);
            }
        }
    }
    return true;
}

/* Up to half the jitter more or less, so that many daemons do not look at once. */
static int64_t jitter_apply(int64_t interval, int64_t jitter)
{
    if (jitter > interval / 2) {
        jitter = interval / 2;
    }
    uint64_t random = 0;
    if (jitter == 0 || getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random)) {
        return interval;
    }
    return interval + (int64_t)(random % (uint64_t)jitter) - jitter / 2;
}

/** reload [INTERVAL] [JITTER] */
bool reload_parse(const struct tokens *tokens, struct endpoints *ret, struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "reload", tokens);
    (void)directive_next(&directive);
    int64_t values[2] = {RELOAD_DEFAULT_NS, JITTER_DEFAULT_NS};
    const char *texts[2] = {NULL, NULL};
    size_t count = 0;
    for (const char *text; (text = directive_argument(&directive)) != NULL; count++) {
        if (count < 2) {
            texts[count] = text;
        }
    }
    if (count > 2) {
        return directive_refuse_count(&directive, failure);
    }
    struct failure why;
    if (texts[0] != NULL && !duration_parse(texts[0], &values[0], &why)) {
        return failure_set(failure, "plugin/reload: %.512s", why.text);
    }
    if (values[0] < RELOAD_LEAST_NS) {
        return failure_set(failure, "plugin/reload: interval value must be greater or equal to 2s");
    }
    if (texts[1] != NULL && !duration_parse(texts[1], &values[1], &why)) {
        return failure_set(failure, "plugin/reload: %.512s", why.text);
    }
    if (values[1] != 0 && values[1] < JITTER_LEAST_NS) {
        return failure_set(failure,
                           "plugin/reload: jitter value must be 0 or greater or equal to 1s");
    }
    ret->reload_ns = jitter_apply(values[0], values[1]);
    return true;
}

/** Frees. */
void endpoints_fini(struct endpoints *endpoints)
{
    free(endpoints->metrics);
    free(endpoints->metrics_tls);
    free(endpoints->health);
    free(endpoints->ready);
    *endpoints = (struct endpoints){0};
}
