/* Conversions of IP addresses.
 *
 * Happy path: a struct fwd_addr becomes a sockaddr for the kernel and back. Failure modes: other families give family 0.
 */
#include "addr.h"

#include <netinet/in.h>
#include <string.h>

socklen_t addr_to_sockaddr(const struct fwd_addr *addr, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (addr->family == 4) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(addr->port);
        memcpy(&v4->sin_addr, addr->ip, 4);
        return sizeof(*v4);
    }
    if (addr->family == 6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(addr->port);
        v6->sin6_scope_id = addr->scope_id;
        memcpy(&v6->sin6_addr, addr->ip, 16);
        return sizeof(*v6);
    }
    return 0;
}

void addr_from_sockaddr(const struct sockaddr_storage *sockaddr, struct fwd_addr *ret)
{
    *ret = (struct fwd_addr){0};
    if (sockaddr->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)sockaddr;
        ret->family = 4;
        ret->port = ntohs(v4->sin_port);
        memcpy(ret->ip, &v4->sin_addr, 4);
    } else if (sockaddr->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)sockaddr;
        ret->family = 6;
        ret->port = ntohs(v6->sin6_port);
        ret->scope_id = v6->sin6_scope_id;
        memcpy(ret->ip, &v6->sin6_addr, 16);
    }
}
