/* Host names as upstreams.
 *
 * Happy path: each name is looked up, and its addresses take its place among the TOs.
 *
 * Failure modes: a name without any address is an error, and the instance is not made (case 37).
 */
#include "resolve.h"

#include "error.h"
#include "hostport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- looking up --------------------------------------------------------------------------------------------------- */

static bool split_name(const struct config_to *to, struct host_name *ret)
{
    struct hostport parts;
    unsigned long port = hostport_split(to->text, &parts) == 0 ? strtoul(parts.port, NULL, 10) : 0;
    if (port == 0 || port > 65535 || parts.host.len >= sizeof(ret->name)) {
        return false;
    }
    (void)snprintf(ret->name, sizeof(ret->name), "%.*s", (int)parts.host.len, parts.host.text);
    return true;
}

static bool look_up(const struct config_stanza *stanza, struct host_name *host, char reason[2 * LOOKUP_WHY])
{
    struct lookup lookup;
    const char *to = stanza->to[host->to].text;
    if (!split_name(&stanza->to[host->to], host)) {
        (void)snprintf(reason, 2 * LOOKUP_WHY, "'%.150s' is neither an address nor a host name with a port", to);
        return false;
    }
    lookup_begin(&lookup, stanza, host->name, NULL, NULL);
    while (!lookup_turn(&lookup, LOOKUP_TIMEOUT_MS)) {
    }
    lookup_end(&lookup);
    host->addresses = lookup.found;
    host->ttl = lookup.ttl;
    (void)snprintf(reason, 2 * LOOKUP_WHY, "failed to resolve \"%.120s\": %s", host->name, lookup.why);
    return lookup.found.count > 0;
}

static uint32_t count_names(const struct config_stanza *stanza)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < stanza->to_count; i++) {
        count += stanza->to[i].addr.family == 0;
    }
    return count;
}

bool resolve_has_names(const struct config_stanza *stanza)
{
    return count_names(stanza) > 0;
}

int resolve_hosts(const struct config_stanza *stanza, const char *pointer, struct host_name **ret_hosts, uint32_t *ret_count,
                  struct fwd_error *error)
{
    struct error_place place = {.pointer = pointer};
    char reason[2 * LOOKUP_WHY];
    uint32_t names = count_names(stanza), found = 0;
    *ret_hosts = NULL;
    *ret_count = names;
    if (names == 0) {
        return FWD_OK;
    }
    struct host_name *hosts = calloc(names, sizeof(*hosts));
    if (hosts == NULL) {
        return error_set(error, FWD_ERR_NOMEM, &place, "%s", error_text(FWD_ERR_NOMEM));
    }
    for (uint32_t i = 0; i < stanza->to_count; i++) {
        if (stanza->to[i].addr.family != 0) {
            continue;
        }
        hosts[found].to = i;
        if (!look_up(stanza, &hosts[found++], reason)) {
            free(hosts);
            return error_set(error, FWD_ERR_CONFIG, &place, "plugin/forward: %s", reason);
        }
    }
    *ret_hosts = hosts;
    return FWD_OK;
}

/* --- the list ----------------------------------------------------------------------------------------------------- */

static bool has(const struct to_list *list, const char *text)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].text, text) == 0) {
            return true;
        }
    }
    return false;
}

/* @return false when out of memory */
static bool append(struct to_list *list, const struct config_to *like, const char *text, const struct fwd_addr *addr)
{
    if (has(list, text)) {
        return true;
    }
    struct config_to *items = realloc(list->items, (list->count + 1) * sizeof(*items));
    list->items = items != NULL ? items : list->items;
    text = items != NULL ? arena_copy(&list->arena, text, strlen(text)) : NULL;
    if (text == NULL) {
        return false;
    }
    items[list->count] = *like;
    items[list->count].text = text;
    items[list->count++].addr = *addr;
    return true;
}

static bool append_host(struct to_list *list, const struct config_to *like, const struct host_name *host)
{
    struct hostport parts;
    char ip[48];
    (void)hostport_split(like->text, &parts); /* it has been split before */
    for (uint32_t i = 0; i < host->addresses.count; i++) {
        struct fwd_addr addr = host->addresses.items[i];
        addr.port = (uint16_t)strtoul(parts.port, NULL, 10);
        ip_print(&addr, ip);
        char *text = hostport_join(ip, strlen(ip), parts.port);
        bool stored = text != NULL && append(list, like, text, &addr);
        free(text);
        if (!stored) {
            return false;
        }
    }
    return true;
}

int resolve_expand(const struct config_stanza *stanza, const struct host_name *hosts, struct to_list *ret)
{
    *ret = (struct to_list){.items = NULL};
    for (uint32_t i = 0; i < stanza->to_count; i++) {
        const struct config_to *to = &stanza->to[i];
        bool stored = to->addr.family != 0 ? append(ret, to, to->text, &to->addr) : append_host(ret, to, hosts++);
        if (!stored) {
            to_list_free(ret);
            return FWD_ERR_NOMEM;
        }
    }
    return FWD_OK;
}

void to_list_free(struct to_list *list)
{
    arena_free(&list->arena);
    free(list->items);
}

/* Puts the list in the place of the stanza's TOs. */
static bool replace(struct config_stanza *stanza, struct arena *arena, const struct to_list *list)
{
    struct config_to *to = arena_alloc(arena, list->count * sizeof(*to));
    bool ok = to != NULL;
    for (uint32_t i = 0; ok && i < list->count; i++) {
        to[i] = list->items[i];
        to[i].text = arena_copy(arena, to[i].text, strlen(to[i].text));
        ok = to[i].text != NULL;
    }
    if (ok) {
        stanza->to = to;
        stanza->to_count = list->count;
    }
    return ok;
}

int resolve_stanza(struct config_stanza *stanza, struct arena *arena, const char *pointer, struct fwd_error *error)
{
    struct error_place place = {.pointer = pointer};
    struct host_name *hosts;
    struct to_list list;
    uint32_t count;
    int r = resolve_hosts(stanza, pointer, &hosts, &count, error);
    if (r < 0 || count == 0) {
        return r;
    }
    r = resolve_expand(stanza, hosts, &list);
    free(hosts);
    if (r == FWD_OK) {
        r = replace(stanza, arena, &list) ? FWD_OK : FWD_ERR_NOMEM;
        to_list_free(&list);
    }
    return r == FWD_OK ? r : error_set(error, r, &place, "%s", error_text(r));
}
