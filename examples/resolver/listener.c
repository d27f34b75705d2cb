/* Opening listening sockets.
 *
 * Happy path: probe the port alone (and choose one when it is 0), then bind one UDP and one TCP
 * socket per worker. Failure modes: each names protocol and address as Go does ("listen tcp
 * 127.0.0.1:53: bind: permission denied"). Without IPv6 in the kernel "all addresses" means those
 * of IPv4.
 */
#include "listener.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG = 1024, UDP_BUFFER = 1 << 20 };

/** Resolves numbers only. */
bool listener_resolve(const char *host, const char *port, union address *ret,
                      struct failure *failure)
{
    *ret = (union address){.any.sa_family = AF_UNSPEC};
    if (host[0] == '\0') {
        ret->in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
        address_set_port(ret, (uint16_t)atoi(port));
        return true;
    }
    const struct addrinfo hints = {
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
        .ai_socktype = SOCK_DGRAM,
    };
    struct addrinfo *found = NULL;
    int status = getaddrinfo(host, port, &hints, &found);
    if (status != 0) {
        return failure_set(failure, "listen on %s: %s", host, gai_strerror(status));
    }
    memcpy(ret, found->ai_addr,
           found->ai_addrlen < sizeof(*ret) ? found->ai_addrlen : sizeof(*ret));
    freeaddrinfo(found);
    return true;
}

/** Resolves names too. */
bool listener_lookup(const char *wanted, union address *ret, bool *ret_all, struct failure *failure)
{
    const char *colon = strrchr(wanted, ':');
    if (colon == NULL) {
        return failure_set(failure, "listen tcp: address %s: missing port in address", wanted);
    }
    bool brackets = wanted[0] == '[';
    char *host = strndup(wanted + brackets, (size_t)(colon - wanted) - 2u * brackets);
    if (host == NULL) {
        return failure_set(failure, "out of memory");
    }
    *ret_all = host[0] == '\0';
    const struct addrinfo hints = {
        .ai_flags = AI_PASSIVE,
        .ai_family = *ret_all ? AF_INET6 : AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
    };
    struct addrinfo *found = NULL;
    int status =
        getaddrinfo(*ret_all ? NULL : host, colon[1] != '\0' ? colon + 1 : "0", &hints, &found);
    free(host);
    if (status != 0) {
        return failure_set(failure, "listen tcp: lookup %s: %s", wanted, gai_strerror(status));
    }
    const struct addrinfo *chosen = found;
    for (const struct addrinfo *i = found; i != NULL && chosen->ai_family != AF_INET;
         i = i->ai_next) {
        chosen = i->ai_family == AF_INET ? i : chosen;
    }
    memcpy(ret, chosen->ai_addr, chosen->ai_addrlen);
    freeaddrinfo(found);
    return true;
}

static bool option_on(int fd, int level, int option)
{
    int on = 1;
    return setsockopt(fd, level, option, &on, sizeof(on)) == 0;
}

static int socket_fail(int fd, int type, const char *call, const union address *address, bool all,
                       struct failure *failure)
{
    char text[ADDRESS_TEXT_MAX];
    int saved = errno;
    address_print(address, all, text);
    char why[128];
    (void)snprintf(why, sizeof(why), "%s", strerror(saved));
    why[0] = why[0] >= 'A' && why[0] <= 'Z' ? (char)(why[0] + ('a' - 'A')) : why[0];
    failure_set(failure, "listen %s %s: %s: %s", type == SOCK_STREAM ? "tcp" : "udp", text, call,
                why);
    if (fd >= 0) {
        (void)close(fd);
    }
    return -1;
}

/* A bound socket; shared ones may be several on the address. */
static int socket_bind(int type, const union address *address, bool all, bool shared,
                       struct failure *failure)
{
    int family = address->any.sa_family;
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return socket_fail(fd, type, "socket", address, all, failure);
    }
    int only = !all; /* "all addresses" are those of IPv4 as well */
    if (family == AF_INET6) {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
    }
    /* On TCP, SO_REUSEADDR lets the port be taken while old connections linger in TIME_WAIT. */
    if ((type == SOCK_STREAM && !option_on(fd, SOL_SOCKET, SO_REUSEADDR)) ||
        (shared && !option_on(fd, SOL_SOCKET, SO_REUSEPORT))) {
        return socket_fail(fd, type, "setsockopt", address, all, failure);
    }
    if (bind(fd, &address->any, address_len(address)) != 0) {
        return socket_fail(fd, type, "bind", address, all, failure);
    }
    /* Only listening makes a conflict of TCP ports show, both sides having SO_REUSEADDR. */
    if (type == SOCK_STREAM && listen(fd, BACKLOG) != 0) {
        return socket_fail(fd, type, "bind", address, all, failure);
    }
    return fd;
}

static void udp_tune(int fd, const union address *address)
{
    int size = UDP_BUFFER; /* as much of it as net.core.rmem_max allows */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    if (!address_is_wildcard(address)) {
        return;
    }
    if (address->any.sa_family == AF_INET) {
        (void)option_on(fd, IPPROTO_IP, IP_PKTINFO);
    } else {
        (void)option_on(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO);
    }
}

/* Binds both protocols for a moment, alone. A port 0 becomes the port that the kernel chose. */
static bool port_probe(union address *address, bool all, struct failure *failure)
{
    int tries = address_port(address) == 0 ? 16 : 1;
    for (; tries > 0; tries--) {
        union address chosen = *address;
        int tcp = socket_bind(SOCK_STREAM, address, all, false, failure);
        if (tcp < 0) {
            return false;
        }
        socklen_t len = sizeof(chosen);
        int udp = -1;
        if (getsockname(tcp, &chosen.any, &len) == 0) {
            udp = socket_bind(SOCK_DGRAM, &chosen, all, false, failure);
        }
        (void)close(tcp);
        if (udp >= 0) {
            (void)close(udp);
            *address = chosen;
            return true;
        }
    }
    return false;
}

static bool family_missing(const union address *address)
{
    int fd = socket(address->any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        (void)close(fd);
    }
    return fd < 0 && errno == EAFNOSUPPORT;
}

/** Opens one socket. */
int listener_stream(union address *address, bool all, struct failure *failure)
{
    if (all && family_missing(address)) {
        uint16_t port = address_port(address);
        address->in = (struct sockaddr_in){.sin_family = AF_INET};
        address_set_port(address, port);
    }
    return socket_bind(SOCK_STREAM, address, all, false, failure);
}

/** Opens an address. */
struct listener *listener_open(const union address *address, bool all, unsigned workers, bool alone,
                               struct failure *failure)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    int *fds = malloc(2 * workers * sizeof(int));
    if (listener == NULL || fds == NULL) {
        free(listener);
        free(fds);
        failure_set(failure, "out of memory");
        return NULL;
    }
    memset(fds, -1, 2 * workers * sizeof(int));
    *listener = (struct listener){
        .refs = 1,
        .wanted = *address,
        .bound = *address,
        .all = all,
        .wildcard = address_is_wildcard(address),
        .workers = workers,
        .udp = fds,
        .tcp = fds + workers,
    };
    if (all && family_missing(address)) {
        uint16_t port = address_port(address);
        listener->bound.in = (struct sockaddr_in){.sin_family = AF_INET};
        address_set_port(&listener->bound, port);
    }
    bool ok = !alone || port_probe(&listener->bound, all, failure);
    for (unsigned i = 0; ok && i < workers; i++) {
        listener->tcp[i] = socket_bind(SOCK_STREAM, &listener->bound, all, true, failure);
        if (listener->tcp[i] >= 0) {
            listener->udp[i] = socket_bind(SOCK_DGRAM, &listener->bound, all, true, failure);
        }
        ok = listener->udp[i] >= 0;
        if (ok) {
            udp_tune(listener->udp[i], &listener->bound);
        }
    }
    if (!ok) {
        listener_unref(listener);
        return NULL;
    }
    return listener;
}

/** Closes the sockets when the last epoch lets go. */
void listener_unref(struct listener *listener)
{
    if (listener == NULL || --listener->refs > 0) {
        return;
    }
    for (unsigned i = 0; i < 2 * listener->workers; i++) {
        if (listener->udp[i] >= 0) { /* both arrays are one allocation */
            (void)close(listener->udp[i]);
        }
    }
    free(listener->udp);
    free(listener);
}
