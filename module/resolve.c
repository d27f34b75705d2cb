/* Host names as upstreams.
 *
 * Happy path: without `resolver` the system is asked (hosts file, resolv.conf); with it each resolver in turn, A and then AAAA, and the first that gives
 * any address wins. The addresses take the place of the name.
 *
 * Failure modes: as CoreDNS's (case 37): the RCODE is ignored, CNAMEs are not followed, a truncated reply is used as it is; after an A question
 * that failed AAAA is not asked of that resolver; an AAAA question that fails does not matter if there was an A. No address at all is
 * an error, and the instance is not made.
 */
#include "resolve.h"

#include "error.h"
#include "hostport.h"
#include "wire.h"

#include <ares.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 2000, TYPE_A = 1, TYPE_AAAA = 28, CLASS_IN = 1, REASON = 256, MAX_ADDRESSES = 64, NAME = 256 };

struct addresses {
    struct fwd_addr items[MAX_ADDRESSES];
    uint32_t count;
};

/** A question in flight. */
struct answer {
    bool done;
    bool received; /* a reply came, whatever its RCODE */
    int status;    /* of c-ares */
    uint16_t type;
    struct addresses *addresses;
};

static void add(struct addresses *list, uint8_t family, const void *ip)
{
    if (list->count < MAX_ADDRESSES) {
        struct fwd_addr *addr = &list->items[list->count++];
        *addr = (struct fwd_addr){.family = family};
        memcpy(addr->ip, ip, family == 4 ? 4 : 16);
    }
}

/* --- c-ares ------------------------------------------------------------------------------------------------------- */

static void library_init(void)
{
    (void)ares_library_init(ARES_LIB_INIT_ALL);
}

/* Turns the channel until *done. */
static void wait_for(ares_channel channel, const bool *done)
{
    while (!*done) {
        ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
        struct pollfd fds[ARES_GETSOCK_MAXNUM];
        int bits = ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM);
        nfds_t count = 0;
        for (int i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
            short events = (short)((ARES_GETSOCK_READABLE(bits, i) ? POLLIN : 0) | (ARES_GETSOCK_WRITABLE(bits, i) ? POLLOUT : 0));
            if (events != 0) {
                fds[count++] = (struct pollfd){.fd = sockets[i], .events = events};
            }
        }
        struct timeval longest = {.tv_sec = TIMEOUT_MS / 1000}, space;
        struct timeval *wait = ares_timeout(channel, &longest, &space);
        (void)poll(fds, count, (int)(wait->tv_sec * 1000 + wait->tv_usec / 1000 + 1));
        if (count == 0) {
            ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        }
        for (nfds_t i = 0; i < count; i++) {
            ares_process_fd(channel, (fds[i].revents & (POLLIN | POLLERR | POLLHUP)) != 0 ? fds[i].fd : ARES_SOCKET_BAD,
                            (fds[i].revents & POLLOUT) != 0 ? fds[i].fd : ARES_SOCKET_BAD);
        }
    }
}

static void take_records(struct answer *answer, const uint8_t *msg, uint32_t len)
{
    struct wire_rr rr;
    uint32_t at = wire_records(msg, len);
    for (uint32_t left = len >= WIRE_HEADER ? wire_u16(msg + 6) : 0; left > 0 && at != 0; left--) {
        at = wire_next_rr(msg, len, at, &rr);
        if (at == 0 || rr.type != answer->type || rr.rr_class != CLASS_IN) {
            continue;
        }
        if ((rr.type == TYPE_A && rr.rdata_len == 4) || (rr.type == TYPE_AAAA && rr.rdata_len == 16)) {
            add(answer->addresses, rr.type == TYPE_A ? 4 : 6, rr.rdata);
        }
    }
}

static void on_reply(void *arg, int status, int timeouts, unsigned char *msg, int len)
{
    struct answer *answer = arg;
    answer->done = true;
    answer->status = status;
    answer->received = msg != NULL;
    if (msg != NULL) {
        take_records(answer, msg, (uint32_t)len);
    }
}

/* Asks one question of the channel's server. @return true when a reply came */
static bool ask(ares_channel channel, const char *name, uint16_t type, struct addresses *addresses, int *ret_status)
{
    struct answer answer = {.type = type, .addresses = addresses};
    ares_query(channel, name, CLASS_IN, type, on_reply, &answer);
    wait_for(channel, &answer.done);
    *ret_status = answer.status;
    return answer.received;
}

/* --- resolvers of the stanza -------------------------------------------------------------------------------------- */

static int open_channel(const char *resolver, ares_channel *ret)
{
    struct ares_options options = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_IGNTC | ARES_FLAG_NOCHECKRESP,
        .timeout = TIMEOUT_MS,
        .tries = 1,
    };
    struct hostport parts;
    char server[80];
    int r = ares_init_options(ret, &options, ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
    if (r != ARES_SUCCESS || resolver == NULL) {
        return r;
    }
    if (hostport_split(resolver, &parts) != 0) {
        parts.host.text = resolver;
        parts.host.len = strlen(resolver);
        parts.port = "53";
    }
    /* brackets are for IPv6 only: c-ares takes "[127.0.0.1]:53" for a malformed string */
    bool six = memchr(parts.host.text, ':', parts.host.len) != NULL;
    (void)snprintf(server, sizeof(server), "%s%.*s%s:%.8s", six ? "[" : "", (int)parts.host.len, parts.host.text,
                   six ? "]" : "", parts.port);
    r = ares_set_servers_ports_csv(*ret, server);
    if (r != ARES_SUCCESS) {
        ares_destroy(*ret);
    }
    return r;
}

/* @return true when this resolver gave an address; its error, if there was one, stands in reason */
static bool ask_resolver(const char *resolver, const char *name, struct addresses *addresses, char *reason)
{
    ares_channel channel;
    int status = open_channel(resolver, &channel);
    if (status == ARES_SUCCESS) {
        bool received = ask(channel, name, TYPE_A, addresses, &status) && ask(channel, name, TYPE_AAAA, addresses, &status);
        ares_destroy(channel);
        if (received || addresses->count > 0) {
            return addresses->count > 0;
        }
    }
    (void)snprintf(reason, REASON, ": lookup at %.60s: %s", resolver, ares_strerror(status));
    return false;
}

static bool ask_resolvers(const struct config_stanza *stanza, const char *name, struct addresses *addresses, char *reason)
{
    char last[REASON] = "";
    for (uint32_t i = 0; i < stanza->resolver_count; i++) {
        if (ask_resolver(stanza->resolver[i], name, addresses, last)) {
            return true;
        }
    }
    (void)snprintf(reason, REASON, "no addresses found for \"%.100s\"%.130s", name, last);
    return false;
}

/* --- the system --------------------------------------------------------------------------------------------------- */

struct system_answer {
    bool done;
    int status;
    struct addresses *addresses;
};

static void on_addrinfo(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct system_answer *answer = arg;
    answer->done = true;
    answer->status = status;
    for (struct ares_addrinfo_node *node = info != NULL ? info->nodes : NULL; node != NULL; node = node->ai_next) {
        if (node->ai_family == AF_INET) {
            add(answer->addresses, 4, &((struct sockaddr_in *)node->ai_addr)->sin_addr);
        } else if (node->ai_family == AF_INET6) {
            add(answer->addresses, 6, &((struct sockaddr_in6 *)node->ai_addr)->sin6_addr);
        }
    }
    ares_freeaddrinfo(info);
}

static bool ask_system(const char *name, struct addresses *addresses, char *reason)
{
    struct system_answer answer = {.status = ARES_ENOMEM, .addresses = addresses};
    struct ares_options options = {.timeout = TIMEOUT_MS, .tries = 2, .lookups = (char[]){"fb"}};
    ares_channel channel;
    if (ares_init_options(&channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS) == ARES_SUCCESS) {
        const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC};
        ares_getaddrinfo(channel, name, NULL, &hints, on_addrinfo, &answer);
        wait_for(channel, &answer.done);
        ares_destroy(channel);
    }
    bool missing = answer.status == ARES_ENOTFOUND || answer.status == ARES_ENODATA || answer.status == ARES_ENONAME;
    if (addresses->count == 0) {
        (void)snprintf(reason, REASON, "lookup %.100s: %s", name, missing ? "no such host" : ares_strerror(answer.status));
    }
    return addresses->count > 0;
}

/* --- the stanza --------------------------------------------------------------------------------------------------- */

/* The list of TOs that takes the place of the old one. */
struct expanded {
    struct config_to *items;
    uint32_t count;
    bool failed;
};

static bool has(const struct expanded *list, const char *text)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].text, text) == 0) {
            return true;
        }
    }
    return false;
}

/* Takes over text. */
static void append(struct expanded *list, const struct config_to *like, char *text, const struct fwd_addr *addr)
{
    if (text == NULL || has(list, text)) {
        list->failed |= text == NULL;
        free(text);
        return;
    }
    struct config_to *items = realloc(list->items, (list->count + 1) * sizeof(*items));
    char *name = strdup(like->tls_servername);
    if (items == NULL || name == NULL) {
        list->items = items != NULL ? items : list->items;
        list->failed = true;
        free(name);
        free(text);
        return;
    }
    list->items = items;
    items[list->count++] = (struct config_to){.text = text, .addr = *addr, .proto = like->proto, .tls_servername = name};
}

static void free_items(struct config_to *items, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        free(items[i].text);
        free(items[i].tls_servername);
    }
    free(items);
}

static bool lookup(const struct config_stanza *stanza, const struct config_to *to, struct expanded *list, char *reason)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct hostport parts;
    char name[NAME], detail[REASON] = "", ip[48];
    struct addresses addresses = {.count = 0};
    (void)pthread_once(&once, library_init);
    unsigned long port = hostport_split(to->text, &parts) == 0 ? strtoul(parts.port, NULL, 10) : 0;
    if (port == 0 || port > 65535 || parts.host.len >= sizeof(name)) {
        (void)snprintf(reason, REASON, "'%.150s' is neither an address nor a host name with a port", to->text);
        return false;
    }
    (void)snprintf(name, sizeof(name), "%.*s", (int)parts.host.len, parts.host.text);
    bool found = stanza->resolver_count > 0 ? ask_resolvers(stanza, name, &addresses, detail) : ask_system(name, &addresses, detail);
    if (!found) {
        (void)snprintf(reason, 2 * REASON, "failed to resolve \"%.120s\": %s", name, detail);
        return false;
    }
    for (uint32_t i = 0; i < addresses.count; i++) {
        addresses.items[i].port = (uint16_t)port;
        ip_print(&addresses.items[i], ip);
        append(list, to, hostport_join(ip, strlen(ip), parts.port), &addresses.items[i]);
    }
    return true;
}

int resolve_stanza(struct config_stanza *stanza, const char *pointer, struct fwd_error *error)
{
    struct expanded list = {.items = NULL};
    struct error_place place = {.pointer = pointer};
    bool names = false;
    for (uint32_t i = 0; i < stanza->to_count; i++) {
        names |= stanza->to[i].addr.family == 0;
    }
    if (!names) {
        return FWD_OK;
    }
    for (uint32_t i = 0; i < stanza->to_count; i++) {
        const struct config_to *to = &stanza->to[i];
        char reason[2 * REASON];
        if (to->addr.family != 0) {
            append(&list, to, strdup(to->text), &to->addr);
        } else if (!lookup(stanza, to, &list, reason)) {
            free_items(list.items, list.count);
            return error_set(error, FWD_ERR_CONFIG, &place, "plugin/forward: %s", reason);
        }
    }
    if (list.failed) {
        free_items(list.items, list.count);
        return error_set(error, FWD_ERR_NOMEM, &place, "%s", error_text(FWD_ERR_NOMEM));
    }
    free_items(stanza->to, stanza->to_count);
    stanza->to = list.items;
    stanza->to_count = list.count;
    return FWD_OK;
}
