/* HOST:PORT and IP addresses.
 *
 * Happy path: slices of the argument, no allocation. Failure modes: what Go's functions refuse is
 * refused; the texts of those refusals never reach an operator in CoreDNS, so there are none here.
 */
#include "hostport.h"

#include "gotext.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** net.SplitHostPort. */
int hostport_split(const char *text, struct hostport *ret)
{
    const char *colon = strrchr(text, ':');
    const char *close;

    if (colon == NULL) {
        return -1;
    }
    ret->port = colon + 1;
    if (text[0] != '[') {
        ret->host = (struct slice){text, (size_t)(colon - text)};
        return strchr(text, ':') != colon || strpbrk(text, "[]") != NULL ? -1 : 0;
    }
    close = strchr(text, ']');
    if (close == NULL || close + 1 != colon || strchr(text + 1, '[') != NULL ||
        strchr(close + 1, ']') != NULL) {
        return -1;
    }
    ret->host = (struct slice){text + 1, (size_t)(close - text - 1)};
    return 0;
}

/** net.JoinHostPort. */
char *hostport_join(const char *host, size_t host_len, const char *port)
{
    bool brackets = memchr(host, ':', host_len) != NULL;
    char *ret;

    if (asprintf(&ret, "%s%.*s%s:%s", brackets ? "[" : "", (int)host_len, host, brackets ? "]" : "",
                 port) < 0) {
        return NULL;
    }
    return ret;
}

/** net.ParseIP. */
bool ip_parse(const char *text, size_t len, struct fwd_addr *ret)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char buf[INET6_ADDRSTRLEN];
    uint8_t ip[16] = {0};

    if (len >= sizeof(buf) || memchr(text, '\0', len) != NULL) {
        return false;
    }
    memcpy(buf, text, len);
    buf[len] = '\0';
    if (inet_pton(AF_INET, buf, ip) == 1) {
        ret->family = 4;
    } else if (inet_pton(AF_INET6, buf, ip) == 1) {
        ret->family = 6;
    } else {
        return false;
    }
    memset(ret->ip, 0, sizeof(ret->ip));
    if (ret->family == 6 && memcmp(ip, mapped, sizeof(mapped)) == 0) {
        ret->family = 4;
        memcpy(ret->ip, ip + sizeof(mapped), 4);
    } else {
        memcpy(ret->ip, ip, ret->family == 4 ? 4 : 16);
    }
    return true;
}

/** The address as net.IP prints it. */
void ip_print(const struct fwd_addr *addr, char ret[48])
{
    if (inet_ntop(addr->family == 4 ? AF_INET : AF_INET6, addr->ip, ret, 48) == NULL) {
        ret[0] = '\0';
    }
}

/** Whether addr lies in fe80::/10. */
bool ip_link_local(const struct fwd_addr *addr)
{
    return addr->family == 6 && addr->ip[0] == 0xfe && (addr->ip[1] & 0xc0) == 0x80;
}

/* An empty port is 0, as in Go; service names are not looked up. */
static bool port_parse(const char *text, uint16_t *ret)
{
    int64_t value = 0;

    if (*text != '\0' && gotext_atoi(text, &value, NULL) != 0) {
        return false;
    }
    *ret = (uint16_t)value;
    return value >= 0 && value <= UINT16_MAX;
}

static uint32_t scope_parse(const char *text, size_t len)
{
    char name[IF_NAMESIZE];
    uint32_t index;

    if (len == 0 || len >= sizeof(name)) {
        return 0;
    }
    memcpy(name, text, len);
    name[len] = '\0';
    return gotext_uint32(name, &index, NULL) == 0 ? index : if_nametoindex(name);
}

/** IP:PORT with an optional scope. */
enum hostport_kind hostport_address(const char *text, struct fwd_addr *ret)
{
    struct fwd_addr addr = {0};
    struct hostport parts;
    const char *percent;
    size_t ip_len;

    memset(ret, 0, sizeof(*ret));
    if (hostport_split(text, &parts) != 0 || !port_parse(parts.port, &addr.port)) {
        return HOSTPORT_NAME;
    }
    percent = memchr(parts.host.text, '%', parts.host.len);
    ip_len = percent != NULL ? (size_t)(percent - parts.host.text) : parts.host.len;
    if (!ip_parse(parts.host.text, ip_len, &addr)) {
        return HOSTPORT_NAME;
    }
    if (percent != NULL && ip_link_local(&addr)) {
        addr.scope_id = scope_parse(percent + 1, parts.host.len - ip_len - 1);
        if (addr.scope_id == 0) {
            return HOSTPORT_SCOPE;
        }
    }
    *ret = addr;
    return HOSTPORT_ADDRESS;
}
