/* Looking up one host name.
 *
 * Happy path: without `resolver` the system is asked (hosts file, resolv.conf); with it each resolver in turn, A and then AAAA, and the first
 * that gives any address wins.
 *
 * Failure modes: as CoreDNS's (case 37): the RCODE is ignored, CNAMEs are not followed, a truncated reply is used as it is; after an A question
 * that failed AAAA is not asked of that resolver; an AAAA question that fails does not matter if there was an A. No address at all: `why` says so.
 */
#include "lookup.h"

#include "hostport.h"
#include "wire.h"

#include <ares.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { TYPE_A = 1, TYPE_CNAME = 5, TYPE_AAAA = 28, CLASS_IN = 1 };

static void add(struct lookup *l, uint8_t family, const void *ip)
{
    if (l->found.count < LOOKUP_ADDRESSES) {
        struct fwd_addr *addr = &l->found.items[l->found.count++];
        *addr = (struct fwd_addr){.family = family};
        memcpy(addr->ip, ip, family == 4 ? 4 : 16);
    }
}

static bool has_family(const struct lookup *l, uint8_t family)
{
    for (uint32_t i = 0; i < l->found.count; i++) {
        if (l->found.items[i].family == family) {
            return true;
        }
    }
    return false;
}

static void note_ttl(struct lookup *l, uint32_t ttl)
{
    l->ttl = ttl < l->ttl ? ttl : l->ttl;
}

/* --- c-ares ------------------------------------------------------------------------------------------------------- */

static void library_init(void)
{
    (void)ares_library_init(ARES_LIB_INIT_ALL);
}

static void close_channel(struct lookup *l)
{
    if (l->channel != NULL) {
        ares_destroy(l->channel);
        l->channel = NULL;
    }
}

static int open_channel(struct lookup *l, struct ares_options *options, int mask)
{
    if (l->watch != NULL) {
        options->sock_state_cb = l->watch;
        options->sock_state_cb_data = l->watch_arg;
        mask |= ARES_OPT_SOCK_STATE_CB;
    }
    int r = ares_init_options(&l->channel, options, mask);
    if (r != ARES_SUCCESS) {
        l->channel = NULL;
    }
    return r;
}

uint32_t lookup_patience_ms(const struct lookup *l)
{
    struct timeval longest = {.tv_sec = LOOKUP_TIMEOUT_MS / 1000}, space;
    struct timeval *wait = ares_timeout(l->channel, &longest, &space);
    return (uint32_t)(wait->tv_sec * 1000 + wait->tv_usec / 1000 + 1);
}

static void process(struct lookup *l, uint32_t wait_ms)
{
    ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
    struct pollfd fds[ARES_GETSOCK_MAXNUM];
    uint32_t bits = (uint32_t)ares_getsock(l->channel, sockets, ARES_GETSOCK_MAXNUM);
    nfds_t count = 0;
    for (int i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
        /* c-ares's macros for these bits shift a signed 1 into the sign */
        short events = (short)((bits >> i & 1 ? POLLIN : 0) | (bits >> (i + ARES_GETSOCK_MAXNUM) & 1 ? POLLOUT : 0));
        if (events != 0) {
            fds[count++] = (struct pollfd){.fd = sockets[i], .events = events};
        }
    }
    uint32_t patience = lookup_patience_ms(l);
    (void)poll(fds, count, (int)(wait_ms < patience ? wait_ms : patience));
    ares_process_fd(l->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD); /* what has waited too long */
    for (nfds_t i = 0; i < count; i++) {
        ares_process_fd(l->channel, (fds[i].revents & (POLLIN | POLLERR | POLLHUP)) != 0 ? fds[i].fd : ARES_SOCKET_BAD,
                        (fds[i].revents & POLLOUT) != 0 ? fds[i].fd : ARES_SOCKET_BAD);
    }
}

/* --- resolvers of the stanza -------------------------------------------------------------------------------------- */

static void take_records(struct lookup *l, const uint8_t *msg, uint32_t len)
{
    struct wire_rr rr;
    uint32_t at = wire_records(msg, len);
    for (uint32_t left = len >= WIRE_HEADER ? wire_u16(msg + 6) : 0; left > 0 && at != 0; left--) {
        at = wire_next_rr(msg, len, at, &rr);
        if (at == 0 || rr.rr_class != CLASS_IN || (rr.type != l->asking && rr.type != TYPE_CNAME)) {
            continue;
        }
        note_ttl(l, rr.ttl);
        if ((rr.type == TYPE_A && rr.rdata_len == 4) || (rr.type == TYPE_AAAA && rr.rdata_len == 16)) {
            add(l, rr.type == TYPE_A ? 4 : 6, rr.rdata);
        }
    }
}

static bool says_none(const uint8_t *msg, uint32_t len)
{
    return len >= WIRE_HEADER && wire_rcode(msg, len) == 0 && (wire_u16(msg + 2) & WIRE_FLAG_TC) == 0;
}

static void on_reply(void *arg, int status, int timeouts, unsigned char *msg, int len)
{
    struct lookup *l = arg;
    bool none = false;
    l->answered = true;
    l->status = status;
    l->received = msg != NULL;
    if (msg != NULL) {
        take_records(l, msg, (uint32_t)len);
        none = says_none(msg, (uint32_t)len);
    }
    *(l->asking == TYPE_A ? &l->unsure4 : &l->unsure6) = !none && !has_family(l, l->asking == TYPE_A ? 4 : 6);
}

static void ask(struct lookup *l, uint16_t type)
{
    l->asking = type;
    l->answered = false;
    ares_query(l->channel, l->name, CLASS_IN, type, on_reply, l);
}

static int open_resolver(struct lookup *l, const char *resolver)
{
    struct ares_options options = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_IGNTC | ARES_FLAG_NOCHECKRESP,
        .timeout = LOOKUP_TIMEOUT_MS,
        .tries = 1,
    };
    struct hostport parts;
    char server[80];
    int r = open_channel(l, &options, ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
    if (r != ARES_SUCCESS) {
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
    return ares_set_servers_ports_csv(l->channel, server);
}

/* Begins with the resolver whose turn it is; without one the lookup is over. */
static void ask_resolver(struct lookup *l)
{
    const struct config_stanza *stanza = l->stanza;
    close_channel(l);
    l->unsure4 = l->unsure6 = true;
    if (l->resolver == stanza->options->resolver_count) {
        l->over = true;
        char last[LOOKUP_WHY];
        memcpy(last, l->why, sizeof(last));
        (void)snprintf(l->why, sizeof(l->why), "no addresses found for \"%.100s\"%.130s", l->name, last);
        return;
    }
    l->received = false;
    l->asking = 0;
    l->answered = true;
    l->status = open_resolver(l, stanza->options->resolver[l->resolver]);
    if (l->status == ARES_SUCCESS) {
        ask(l, TYPE_A);
    }
}

/* The question to a resolver has ended. */
static void after_question(struct lookup *l)
{
    if (l->asking == TYPE_A && l->received) {
        ask(l, TYPE_AAAA);
    } else if (l->found.count > 0) {
        l->over = true;
    } else {
        if (!l->received) { /* this error outlives later empty answers */
            (void)snprintf(l->why, sizeof(l->why), ": lookup at %.60s: %s", l->stanza->options->resolver[l->resolver],
                           ares_strerror(l->status));
        }
        l->resolver++;
        ask_resolver(l);
    }
}

/* --- the system --------------------------------------------------------------------------------------------------- */

static void take_nodes(struct lookup *l, const struct ares_addrinfo *info)
{
    for (struct ares_addrinfo_node *node = info->nodes; node != NULL; node = node->ai_next) {
        note_ttl(l, node->ai_ttl > 0 ? (uint32_t)node->ai_ttl : 0);
        if (node->ai_family == AF_INET) {
            add(l, 4, &((struct sockaddr_in *)node->ai_addr)->sin_addr);
        } else if (node->ai_family == AF_INET6) {
            add(l, 6, &((struct sockaddr_in6 *)node->ai_addr)->sin6_addr);
        }
    }
    for (struct ares_addrinfo_cname *cname = info->cnames; cname != NULL; cname = cname->next) {
        note_ttl(l, cname->ttl > 0 ? (uint32_t)cname->ttl : 0);
    }
}

static void on_addrinfo(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct lookup *l = arg;
    l->answered = true;
    l->status = status;
    if (info != NULL) {
        take_nodes(l, info);
        ares_freeaddrinfo(info);
    }
    /* c-ares does not say of which family a question failed, only that one got no answer */
    l->unsure4 = timeouts > 0 && !has_family(l, 4);
    l->unsure6 = timeouts > 0 && !has_family(l, 6);
}

static void ask_system(struct lookup *l)
{
    const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC};
    struct ares_options options = {.timeout = LOOKUP_TIMEOUT_MS, .tries = 2, .lookups = (char[]){"fb"}};
    l->answered = true;
    l->status = open_channel(l, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS);
    if (l->status == ARES_SUCCESS) {
        l->answered = false;
        ares_getaddrinfo(l->channel, l->name, NULL, &hints, on_addrinfo, l);
    }
}

static void after_system(struct lookup *l)
{
    bool missing = l->status == ARES_ENOTFOUND || l->status == ARES_ENODATA || l->status == ARES_ENONAME;
    (void)snprintf(l->why, sizeof(l->why), "lookup %.100s: %s", l->name, missing ? "no such host" : ares_strerror(l->status));
    l->over = true;
}

/* ------------------------------------------------------------------------------------------------------------------ */

void lookup_begin(struct lookup *l, const struct config_stanza *stanza, const char *name, lookup_watch_fn *watch, void *watch_arg)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, library_init);
    *l = (struct lookup){.stanza = stanza, .watch = watch, .watch_arg = watch_arg, .ttl = UINT32_MAX};
    (void)snprintf(l->name, sizeof(l->name), "%s", name);
    if (stanza->options->resolver_count > 0) {
        ask_resolver(l);
    } else {
        ask_system(l);
    }
}

bool lookup_turn(struct lookup *l, uint32_t wait_ms)
{
    if (!l->answered) {
        process(l, wait_ms);
    }
    while (l->answered && !l->over) {
        if (l->stanza->options->resolver_count > 0) {
            after_question(l);
        } else {
            after_system(l);
        }
    }
    return l->over;
}

void lookup_end(struct lookup *l)
{
    close_channel(l);
}
