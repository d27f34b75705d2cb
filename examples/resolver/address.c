/* Socket addresses.
 *
 * Happy path and failure modes: pure functions; an unknown family prints as nothing.
 */
#include "address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

/** Length for the socket calls. */
socklen_t address_len(const union address *address)
{
    return address->any.sa_family == AF_INET ? sizeof(address->in) : sizeof(address->in6);
}

/** Same family, IP address, scope and port. */
bool address_equal(const union address *a, const union address *b)
{
    if (a->any.sa_family != b->any.sa_family || address_port(a) != address_port(b)) {
        return false;
    }
    if (a->any.sa_family == AF_INET) {
        return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    }
    return memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0 &&
           a->in6.sin6_scope_id == b->in6.sin6_scope_id;
}

/** Whether a socket bound to it takes packets for any local address. */
bool address_is_wildcard(const union address *address)
{
    return address->any.sa_family == AF_INET ? address->in.sin_addr.s_addr == INADDR_ANY
                                             : IN6_IS_ADDR_UNSPECIFIED(&address->in6.sin6_addr);
}

/** Port in host byte order. */
uint16_t address_port(const union address *address)
{
    return ntohs(address->any.sa_family == AF_INET ? address->in.sin_port : address->in6.sin6_port);
}

/** Sets the port. */
void address_set_port(union address *address, uint16_t port)
{
    if (address->any.sa_family == AF_INET) {
        address->in.sin_port = htons(port);
    } else {
        address->in6.sin6_port = htons(port);
    }
}

/** Prints the IP address with its scope. */
void address_print_host(const union address *address, char buffer[ADDRESS_TEXT_MAX])
{
    if (address->any.sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &address->in.sin_addr, buffer, ADDRESS_TEXT_MAX);
        return;
    }
    (void)inet_ntop(AF_INET6, &address->in6.sin6_addr, buffer, ADDRESS_TEXT_MAX);
    char scope[IF_NAMESIZE];
    if (address->in6.sin6_scope_id != 0 &&
        if_indextoname(address->in6.sin6_scope_id, scope) != NULL) {
        size_t len = strlen(buffer);
        (void)snprintf(buffer + len, ADDRESS_TEXT_MAX - len, "%%%s", scope);
    }
}

/** Prints HOST:PORT. */
void address_print(const union address *address, bool all, char buffer[ADDRESS_TEXT_MAX])
{
    char host[ADDRESS_TEXT_MAX - 8] = "";
    if (!all) {
        char text[ADDRESS_TEXT_MAX];
        address_print_host(address, text);
        (void)snprintf(host, sizeof(host), strchr(text, ':') != NULL ? "[%s]" : "%s", text);
    }
    (void)snprintf(buffer, ADDRESS_TEXT_MAX, "%s:%u", host, address_port(address));
}

/** The ABI's form. */
struct fwd_addr address_to_abi(const union address *address)
{
    struct fwd_addr out = {.port = address_port(address)};
    if (address->any.sa_family == AF_INET) {
        out.family = 4;
        memcpy(out.ip, &address->in.sin_addr, 4);
    } else if (IN6_IS_ADDR_V4MAPPED(&address->in6.sin6_addr)) {
        out.family = 4;
        memcpy(out.ip, address->in6.sin6_addr.s6_addr + 12, 4);
    } else {
        out.family = 6;
        out.scope_id = address->in6.sin6_scope_id;
        memcpy(out.ip, &address->in6.sin6_addr, 16);
    }
    return out;
}

/** The socket address of an ABI's. */
void address_from_abi(union address *ret, const struct fwd_addr *address)
{
    *ret = (union address){.any.sa_family = AF_UNSPEC};
    if (address->family == 4) {
        ret->in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(address->port)};
        memcpy(&ret->in.sin_addr, address->ip, 4);
    } else if (address->family == 6) {
        ret->in6 = (struct sockaddr_in6){
            .sin6_family = AF_INET6,
            .sin6_port = htons(address->port),
            .sin6_scope_id = address->scope_id,
        };
        memcpy(&ret->in6.sin6_addr, address->ip, 16);
    }
}
