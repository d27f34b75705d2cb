/* The `bind` directive: which addresses a server block listens on.
 *
 * Threads: main only. Ownership: the list owns its strings.
 */
#pragma once

#include "text.h"

struct ifaddrs;
struct tokens;

struct host_list {
    char **hosts; /**< IP addresses as text, with %interface for link-local ones */
    size_t count;
};

bool host_list_add(struct host_list *list, const char *host);
void host_list_fini(struct host_list *list);

/** Reads all bind lines of a server block (tokens as fwd.corefile/1 gives them) and appends their
 * addresses. */
bool bind_parse(const struct tokens *tokens, const struct ifaddrs *interfaces,
                struct host_list *ret, struct failure *failure);
