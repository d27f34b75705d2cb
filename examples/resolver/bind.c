/* The `bind` directive.
 *
 * Happy path: an argument is an IP address or the name of an interface, which stands for all its
 * addresses; `except` in the block takes some of the same line out again. Failure modes: neither
 * address nor interface, nothing given, an unknown option: CoreDNS's texts, without a position as
 * there.
 */
#include "bind.h"

#include "directive.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

/** Appends a copy; false when out of memory. */
bool host_list_add(struct host_list *list, const char *host)
{
    char **hosts = reallocarray(list->hosts, list->count + 1, sizeof(*hosts));
    if (hosts == NULL) {
        return false;
    }
    list->hosts = hosts;
    list->hosts[list->count] = strdup(host);
    return list->hosts[list->count++] != NULL;
}

/** Frees the list. */
void host_list_fini(struct host_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->hosts[i]);
    }
    free(list->hosts);
    *list = (struct host_list){0};
}

static bool host_list_has(const struct host_list *list, const char *host)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->hosts[i], host) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_ip(const char *text)
{
    struct in6_addr address;
    return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

/* Appends the addresses of an interface; *ret_known tells whether there is one of that name. */
static bool interface_add(struct host_list *list, const struct ifaddrs *interfaces,
                          const char *name, bool *ret_known)
{
    *ret_known = false;
    for (const struct ifaddrs *i = interfaces; i != NULL; i = i->ifa_next) {
        if (strcmp(i->ifa_name, name) != 0) {
            continue;
        }
        *ret_known = true;
        int family = i->ifa_addr != NULL ? i->ifa_addr->sa_family : AF_UNSPEC;
        if (family != AF_INET && family != AF_INET6) {
            continue;
        }
        char host[NI_MAXHOST];
        socklen_t len =
            family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        if (getnameinfo(i->ifa_addr, len, host, sizeof(host), NULL, 0, NI_NUMERICHOST) == 0 &&
            !host_list_add(list, host)) {
            return false;
        }
    }
    return true;
}

/* The arguments as they stand; *list had none or gets these instead. */
static bool arguments_read(struct directive *directive, struct host_list *list, const char *none,
                           struct failure *failure)
{
    host_list_fini(list);
    for (const char *argument; (argument = directive_argument(directive)) != NULL;) {
        if (!host_list_add(list, argument)) {
            return failure_set(failure, "plugin/bind: out of memory");
        }
    }
    return list->count > 0 || failure_set(failure, "plugin/bind: %s", none);
}

/* The addresses that arguments stand for. */
static bool hosts_find(const struct host_list *arguments, const struct ifaddrs *interfaces,
                       struct host_list *list, struct failure *failure)
{
    for (size_t i = 0; i < arguments->count; i++) {
        const char *argument = arguments->hosts[i];
        bool known = false;
        bool added = interface_add(list, interfaces, argument, &known);
        if (added && !known) {
            if (!is_ip(argument)) {
                return failure_set(failure,
                                   "plugin/bind: not a valid IP address or interface name: \"%s\"",
                                   argument);
            }
            added = host_list_add(list, argument);
        }
        if (!added) {
            return failure_set(failure, "plugin/bind: out of memory");
        }
    }
    return true;
}

/* One line and its block, of which the last except counts. */
static bool line_read(struct directive *directive, struct host_list *hosts,
                      struct host_list *except, struct failure *failure)
{
    if (!arguments_read(directive, hosts, "at least one address or interface name is expected",
                        failure)) {
        return false;
    }
    while (directive_next_in_block(directive)) {
        if (strcmp(directive_text(directive), "except") != 0) {
            return failure_set(failure, "plugin/bind: invalid option \"%s\"",
                               directive_text(directive));
        }
        if (!arguments_read(
                directive, except,
                "at least one address or interface must be given to except subdirective",
                failure)) {
            return false;
        }
    }
    return true;
}

static bool line_parse(struct directive *directive, const struct ifaddrs *interfaces,
                       struct host_list *hosts, struct host_list *except, struct failure *failure)
{
    struct host_list arguments = {0};
    struct host_list excepted = {0};
    bool ok = line_read(directive, &arguments, &excepted, failure) &&
              hosts_find(&arguments, interfaces, hosts, failure) &&
              hosts_find(&excepted, interfaces, except, failure);
    host_list_fini(&arguments);
    host_list_fini(&excepted);
    return ok;
}

/** Reads the bind lines of a server block. */
bool bind_parse(const struct tokens *tokens, const struct ifaddrs *interfaces,
                struct host_list *ret, struct failure *failure)
{
    struct directive directive;
    directive_init(&directive, "bind", tokens);
    bool ok = true;
    while (ok && directive_next(&directive)) {
        struct host_list hosts = {0};
        struct host_list except = {0};
        ok = line_parse(&directive, interfaces, &hosts, &except, failure);
        for (size_t i = 0; ok && i < hosts.count; i++) {
            if (!host_list_has(&except, hosts.hosts[i]) && !host_list_add(ret, hosts.hosts[i])) {
                ok = failure_set(failure, "plugin/bind: out of memory");
            }
        }
        host_list_fini(&hosts);
        host_list_fini(&except);
    }
    return ok;
}
