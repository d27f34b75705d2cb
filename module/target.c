/* TO arguments.
 *
 * Happy path: refuse https paths, classify each argument (address, file, host name) and gather what
 * it stands for, dropping what was there already, then check protocols and TLS names in order. That
 * is CoreDNS's order of checks (case 16). Failure modes: CoreDNS's errors; a file that cannot be
 * opened is taken for a host name, one without name servers is skipped.
 *
 * CoreDNS drops %SCOPE of plain upstreams; here link-local addresses keep it, as they are of no use
 * without. It takes https3://IP for a plain upstream without an address; here that is an
 * unsupported protocol.
 */
#include "target.h"

#include "hostport.h"
#include "name.h"
#include "path.h"
#include "utf8.h"
#include "zone.h"

#include <errno.h>
#include <search.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_OCTETS 65535 /* a longer line ends a file (case 24) */

struct expander {
    struct arena *arena;
    struct target_list *list;
    const char *
        *hosts;     /* with scheme and %name; same indices as list->items, whose addr is compared */
    void *seen;     /* tree of the addresses in the list */
    size_t servers; /* name servers met in files */
    const char *refused; /* text of the first look-up that cannot succeed; told after all arguments
                            are classified */
    bool resolver;
    char *reason;
};

static int fail(struct expander *expander, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int fail(struct expander *expander, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(expander->reason, TARGET_REASON, format, args);
    va_end(args);
    return -1;
}

/* An error with text quoted at its end. */
static int fail_quoted(struct expander *expander, const char *what, const char *text)
{
    char quoted[TARGET_REASON / 2];

    return fail(expander, "%s: %s", what, gotext_quote(text, quoted, sizeof(quoted)));
}

/* Splits SCHEME://HOST%NAME:PORT into SCHEME://HOST:PORT and NAME, at the last % (case 25). */
static int name_split(struct arena *arena, const char *text, const char **ret_host,
                      const char **ret_name)
{
    const char *scheme = strstr(text, "://");
    const char *host = scheme != NULL ? scheme + 3 : text;
    const char *percent = strrchr(host, '%');
    const char *colon;
    size_t name_len;

    if (scheme == text) {
        text = host; /* an empty scheme is none */
    }
    *ret_host = text;
    *ret_name = "";
    if (percent == NULL) {
        return 0;
    }
    colon = strrchr(percent, ':');
    name_len = colon != NULL ? (size_t)(colon - percent) - 1 : strlen(percent + 1);
    if (colon != NULL && name_len > 0 && colon[-1] == ']') {
        name_len--;
    }
    *ret_host = arena_printf(arena, "%.*s%s%s", (int)(percent - text), text,
                             *host == '[' ? "]" : "", colon != NULL ? colon : "");
    *ret_name = arena_copy(arena, percent + 1, name_len);
    return *ret_host != NULL && *ret_name != NULL ? 0 : -2;
}

static bool scope_needed(const char *text, size_t len)
{
    const char *percent = memchr(text, '%', len);
    struct fwd_addr addr;

    return percent != NULL && percent[1] != '\0' &&
           ip_parse(text, (size_t)(percent - text), &addr) && ip_link_local(&addr);
}

/* What upstreams are compared by and reached at: no scheme, no %name, but a scope where it is
 * needed. */
static int address_find(struct arena *arena, const char *text, const char **ret_addr)
{
    const char *whole;
    const char *host;
    const char *name;
    struct hostport parts;

    if (strcmp(transport_split(text, &whole), "dns") == 0 && hostport_split(whole, &parts) == 0 &&
        scope_needed(parts.host.text, parts.host.len)) {
        *ret_addr = whole;
        return 0;
    }
    if (name_split(arena, text, &host, &name) != 0) {
        return -2;
    }
    (void)transport_split(host, ret_addr);
    return 0;
}

static int address_compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Adds an upstream unless its address is there. */
static int host_add(struct expander *expander, const char *text)
{
    struct target_list *list = expander->list;
    struct target *items;
    const char **hosts;
    const char *const *seen;
    const char *addr;

    if (text == NULL || address_find(expander->arena, text, &addr) != 0) {
        return -2;
    }
    seen = tsearch(addr, &expander->seen, address_compare);
    if (seen == NULL) {
        return -2;
    }
    if (*seen != addr) {
        return 0;
    }
    items = realloc(list->items, (list->count + 1) * sizeof(*items));
    if (items == NULL) {
        return -2;
    }
    list->items = items;
    hosts = realloc(expander->hosts, (list->count + 1) * sizeof(*hosts));
    if (hosts == NULL) {
        return -2;
    }
    expander->hosts = hosts;
    hosts[list->count] = text;
    items[list->count++] = (struct target){.addr = addr};
    return 0;
}

static char *join(struct arena *arena, const char *host, size_t len, const char *port)
{
    bool brackets = memchr(host, ':', len) != NULL;

    return arena_printf(arena, "%s%.*s%s:%s", brackets ? "[" : "", (int)len, host,
                        brackets ? "]" : "", port);
}

/* --- files --- */

/* The next field of a line, split at white space as strings.Fields does. */
static struct slice field_next(const char **line, const char *end)
{
    struct slice field = {*line, 0};

    while (*line < end) {
        uint32_t rune;
        size_t width = utf8_decode(*line, (size_t)(end - *line), &rune);

        if (!utf8_space(rune)) {
            field.len += width;
        } else if (field.len > 0) {
            break;
        }
        *line += width;
        if (field.len == 0) {
            field.text = *line;
        }
    }
    return field;
}

/* Adds the name server of one line, if it has one. Its scope goes unless it is needed; the port is
 * always 53 (case 24). */
static int line_add(struct expander *expander, const char *line, const char *end)
{
    struct slice keyword = field_next(&line, end);
    struct slice server = field_next(&line, end);
    char *host;
    char *percent;

    if (keyword.len != 10 || memcmp(keyword.text, "nameserver", 10) != 0 || server.len == 0) {
        return 0;
    }
    host = utf8_clean(expander->arena, server.text, server.len);
    if (host == NULL) {
        return -2;
    }
    expander->servers++;
    percent = strrchr(host, '%');
    if (percent != NULL && !scope_needed(host, strlen(host))) {
        *percent = '\0';
    }
    return host_add(expander, join(expander->arena, host, strlen(host), "53"));
}

/* Tries text as the name of a file in resolv.conf form. Returns 1 when it cannot be opened. */
static int file_add(struct expander *expander, const char *text)
{
    char reason[GOTEXT_REASON];
    size_t servers = expander->servers;
    const char *line;
    char *data;
    size_t len;
    int status = 0;
    int code = file_read(text, &data, &len, reason);

    if (code == ENOMEM) {
        return -2;
    }
    if (code != 0) {
        return strncmp(reason, "open ", 5) == 0
                   ? 1
                   : 0; /* what opens and cannot be read is empty, a directory for one */
    }
    for (line = data; status == 0 && line < data + len;) {
        const char *end = memchr(line, '\n', (size_t)(data + len - line));

        end = end != NULL ? end : data + len;
        if (end - line > LINE_MAX_OCTETS) {
            break;
        }
        status = line_add(expander, line, end);
        line = end + 1;
    }
    free(data);
    expander->list->arguments += expander->servers > servers;
    return status;
}

/* --- classes --- */

/* Go's net.isDomainName: what its resolver asks for at all (case 18). */
static bool lookup_allowed(const char *name)
{
    size_t len = strlen(name);
    size_t label = 0;
    bool letters = false;

    if (strcmp(name, ".") == 0) {
        return true;
    }
    if (len == 0 || len > 254 || (len == 254 && name[len - 1] != '.')) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool digit = c >= '0' && c <= '9';

        if (c == '.') {
            if (label == 0 || label > NAME_LABEL_MAX || name[i - 1] == '-') {
                return false;
            }
            label = 0;
            continue;
        }
        if (!digit && c != '_' && c != '-' && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z')) {
            return false;
        }
        if (c == '-' && label == 0) {
            return false;
        }
        letters = letters || !digit;
        label++;
    }
    return letters && name[len - 1] != '-' && label <= NAME_LABEL_MAX;
}

static const char *port_default(const char *transport)
{
    static const char *const ports[][2] = {
        {"dns", "53"}, {"tls", "853"}, {"https", "443"}, {"quic", "853"}, {"grpc", "443"},
    };

    for (size_t i = 0; i < sizeof(ports) / sizeof(*ports); i++) {
        if (strcmp(ports[i][0], transport) == 0) {
            return ports[i][1];
        }
    }
    return "443";
}

/* text without any brackets at its ends, as a set of characters (case 21). */
static char *brackets_trim(struct arena *arena, const char *text, size_t len)
{
    while (len > 0 && (*text == '[' || *text == ']')) {
        text++;
        len--;
    }
    while (len > 0 && (text[len - 1] == '[' || text[len - 1] == ']')) {
        len--;
    }
    return arena_copy(arena, text, len);
}

/* A host name, to be looked up by others. */
static int name_add(struct expander *expander, const char *text)
{
    const char *host;
    const char *server_name;
    const char *rest;
    const char *transport;
    struct hostport parts;
    struct fwd_addr addr;
    char *name;
    char quoted[TARGET_REASON / 4];

    if (name_split(expander->arena, text, &host, &server_name) != 0) {
        return -2;
    }
    transport = transport_split(host, &rest);
    if (hostport_split(rest, &parts) != 0) {
        parts = (struct hostport){{rest, strlen(rest)}, port_default(transport)};
    }
    name = brackets_trim(expander->arena, parts.host.text, parts.host.len);
    if (name == NULL) {
        return -2;
    }
    if ((strcmp(transport, "dns") != 0 && strcmp(transport, "tls") != 0 &&
         strcmp(transport, "https") != 0) ||
        !name_valid(name) || ip_parse(name, strlen(name), &addr)) {
        return fail_quoted(expander, "not an IP address, file, or valid domain", text);
    }
    expander->list->arguments++;
    if (!expander->resolver && expander->refused == NULL && !lookup_allowed(name)) {
        expander->refused =
            arena_printf(expander->arena, "failed to resolve %s: lookup %s: no such host",
                         gotext_quote(name, quoted, sizeof(quoted)), name);
        return expander->refused != NULL ? 0 : -2;
    }
    name = *server_name != '\0'
               ? arena_printf(expander->arena, "%s%%%s:%s", name, server_name, parts.port)
               : join(expander->arena, name, strlen(name), parts.port);
    if (name == NULL) {
        return -2;
    }
    return host_add(expander, arena_printf(expander->arena, "%s://%s", transport, name));
}

/* Whether text, with any %name, is an IP address. */
static bool address_is(const char *text, size_t len)
{
    const char *percent = memrchr(text, '%', len);
    struct fwd_addr addr;

    return ip_parse(text, percent != NULL ? (size_t)(percent - text) : len, &addr);
}

static int file_or_name_add(struct expander *expander, const char *file, const char *text)
{
    int status = file_add(expander, file);

    return status == 1 ? name_add(expander, text) : status;
}

static int argument_add(struct expander *expander, const char *text)
{
    const char *rest;
    const char *transport = transport_split(text, &rest);
    struct hostport parts;
    char *host;

    if (*rest == '\0') {
        return fail_quoted(expander, "invalid address", text);
    }
    if (strcmp(transport, "unix") == 0) {
        expander->list->arguments++;
        return host_add(expander, text);
    }
    if (hostport_split(rest, &parts) == 0) {
        if (!address_is(parts.host.text, parts.host.len)) {
            return file_or_name_add(expander, rest, text);
        }
        expander->list->arguments++;
        return host_add(expander, text);
    }
    host = brackets_trim(expander->arena, rest, strlen(rest));
    if (host == NULL) {
        return -2;
    }
    if (!address_is(host, strlen(host))) {
        return file_or_name_add(expander, host, text);
    }
    expander->list->arguments++;
    host = join(expander->arena, host, strlen(host), port_default(transport));
    return host_add(
        expander, host != NULL ? arena_printf(expander->arena, "%s://%s", transport, host) : NULL);
}

/* --- checks --- */

/* Fills in the rest of an upstream from its text. */
static int target_finish(struct expander *expander, const char *text, const char *tls_servername,
                         struct target *target)
{
    const char *host;
    const char *name;
    const char *rest;

    if (name_split(expander->arena, text, &host, &name) != 0) {
        return -2;
    }
    target->transport = transport_split(host, &rest);
    target->tls_servername = "";
    if (strcmp(target->transport, "dns") != 0 && strcmp(target->transport, "tls") != 0 &&
        strcmp(target->transport, "https") != 0) {
        return fail(expander, "'%s' is not supported as a destination protocol in forward: %s",
                    target->transport, host);
    }
    if (strcmp(target->transport, "tls") == 0 && *name != '\0') {
        if (*tls_servername != '\0') {
            return fail(expander,
                        "both forward ('%s') and proxy level ('%s') TLS servernames are set for "
                        "upstream proxy '%s'",
                        tls_servername, name, host);
        }
        target->tls_servername = name;
    }
    return 0;
}

static int path_check(struct expander *expander, const char *text)
{
    const char *rest;

    if (strcmp(transport_split(text, &rest), "https") == 0 && strchr(rest, '/') != NULL) {
        return fail(
            expander,
            "paths are not allowed in HTTPS upstream addresses (the /dns-query path is used "
            "by default): %s",
            text);
    }
    return 0;
}

static void address_keep(void *addr)
{
    (void)addr; /* the arena's */
}

/** TO arguments to upstreams. */
int target_expand(struct arena *arena, const char *const *arguments, size_t count, bool resolver,
                  const char *tls_servername, struct target_list *ret, char reason[TARGET_REASON])
{
    struct expander expander = {
        .arena = arena, .list = ret, .resolver = resolver, .reason = reason};
    int status = 0;

    *ret = (struct target_list){0};
    for (size_t i = 0; status == 0 && i < count; i++) {
        status = path_check(&expander, arguments[i]);
    }
    for (size_t i = 0; status == 0 && i < count; i++) {
        status = argument_add(&expander, arguments[i]);
    }
    if (status == 0 && expander.refused != NULL) {
        status = fail(&expander, "%s", expander.refused);
    }
    if (status == 0 && ret->count == 0) {
        status = fail(&expander, "no valid upstream addresses found");
    }
    for (size_t i = 0; status == 0 && i < ret->count; i++) {
        status = target_finish(&expander, expander.hosts[i], tls_servername, &ret->items[i]);
    }
    tdestroy(expander.seen, address_keep);
    free(expander.hosts);
    return status;
}
