/* Socket addresses of both families.
 *
 * Threads: any. Ownership: plain values.
 */
#pragma once

#include <forward/abi.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

enum { ADDRESS_TEXT_MAX = 96 };

union address {
    struct sockaddr any; /**< sa_family is AF_UNSPEC when the address is not known */
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

/** Room for the control message that names our address of a datagram. */
struct address_control {
    _Alignas(struct cmsghdr) char octets[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

socklen_t address_len(const union address *address);
bool address_equal(const union address *a, const union address *b);
bool address_is_wildcard(const union address *address);
uint16_t address_port(const union address *address);
void address_set_port(union address *address, uint16_t port);

/** As Go's net package prints a listening address: "127.0.0.1:53", "[::1]:53", ":53" for all. */
void address_print(const union address *address, bool all, char buffer[ADDRESS_TEXT_MAX]);
void address_print_host(const union address *address, char buffer[ADDRESS_TEXT_MAX]);

/** For the ABI; an IPv4 address mapped into IPv6 becomes IPv4 again. */
struct fwd_addr address_to_abi(const union address *address);
void address_from_abi(union address *ret, const struct fwd_addr *address);
