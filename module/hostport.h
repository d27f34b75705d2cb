/* HOST:PORT and IP addresses as Go's net package splits, joins and parses them.
 *
 * Threads: any. Ownership: slices point into the argument; hostport_join's result is the caller's
 * to free. Standards: Go 1.26 net.SplitHostPort, net.JoinHostPort, net.ParseIP; RFC 4291, RFC 6874
 * (scopes).
 */
#pragma once

#include <forward/abi.h>
#include <stdbool.h>
#include <stddef.h>

/** A part of a string. */
struct slice {
    const char *text;
    size_t len;
};

struct hostport {
    struct slice host; /**< without brackets */
    const char *port;  /**< up to the end of the string; may be empty */
};

/** net.SplitHostPort. @return 0, or -1 when text has no port or stray colons and brackets */
int hostport_split(const char *text, struct hostport *ret);

/** net.JoinHostPort: brackets around a host with colons. @return NULL when out of memory */
char *hostport_join(const char *host, size_t host_len, const char *port);

/** net.ParseIP: no scope, no leading zeros in IPv4; IPv4-mapped IPv6 becomes IPv4. Sets family and
 * ip of *ret only. */
bool ip_parse(const char *text, size_t len, struct fwd_addr *ret);

/** The address as net.IP prints it. */
void ip_print(const struct fwd_addr *addr, char ret[48]);

/** IPv6 link-local (fe80::/10): the only kind that needs a scope. */
bool ip_link_local(const struct fwd_addr *addr);

/** Result of hostport_address. */
enum hostport_kind {
    HOSTPORT_ADDRESS, /**< an IP address, with a port */
    HOSTPORT_NAME,    /**< not an IP address, or a port that is no number: needs looking up */
    HOSTPORT_SCOPE,   /**< a link-local address whose scope names no interface of this machine */
};

/** Reads IP:PORT, [IP6]:PORT or [IP6%SCOPE]:PORT. *ret is zeroed unless it is HOSTPORT_ADDRESS. */
enum hostport_kind hostport_address(const char *text, struct fwd_addr *ret);
