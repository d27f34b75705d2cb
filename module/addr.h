/* IP addresses between the ABI's form, the kernel's form and text. Threads: any. */
#pragma once

#include <forward/abi.h>
#include <sys/socket.h>

/** Fills *ret from addr. @return its length, 0 when addr has no family */
socklen_t addr_to_sockaddr(const struct fwd_addr *addr, struct sockaddr_storage *ret);

/** Fills *ret from a socket address; family 0 when it is neither IPv4 nor IPv6. */
void addr_from_sockaddr(const struct sockaddr_storage *sockaddr, struct fwd_addr *ret);
