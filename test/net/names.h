/* What tests of host names as upstreams start from: a name server (a scripted upstream that answers with addresses), and upstreams on
 * 127.0.0.1, 127.0.0.2 and ::1 that share a port, as all addresses of a name do.
 *
 * Threads: one. Each test program that includes it has its own.
 */
#pragma once

#include "host.h"
#include "log.h"
#include "upstream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct upstream *names, *one, *two, *six;
static struct host *host;
static const struct service with_log[] = {{FWD_LOG_ID, &log_table}, {NULL, NULL}};

/** For tcase_add_checked_fixture. */
static inline void setup(void)
{
    names = upstream_create();
    for (unsigned tries = 0; six == NULL; tries++) {
        ck_assert_uint_lt(tries, 100);
        upstream_destroy(one);
        upstream_destroy(two);
        one = upstream_create();
        two = upstream_create_at("127.0.0.2", upstream_port(one));
        six = two != NULL ? upstream_create_at("::1", upstream_port(one)) : NULL;
    }
}

static inline void teardown(void)
{
    upstream_destroy(names);
    upstream_destroy(one);
    upstream_destroy(two);
    upstream_destroy(six);
}

/** What the name server says from now on. */
static inline void say(const char *addresses, uint32_t ttl)
{
    upstream_set(names, &(struct upstream_rule){.addresses = addresses, .ttl = ttl});
}

/** An instance that forwards everything to a.test, with more options. */
static inline struct host *open_host(enum mode mode, const char *options)
{
    return host_open_with(mode, with_log, "forward . a.test:%u {\n resolver %s\n %s\n}",
                          upstream_port(one), upstream_addr(names), options);
}

/** How many queries came. */
static inline unsigned seen(struct upstream *up)
{
    return upstream_counts(up).queries;
}

/** Whether the instance's document has the text. */
static inline bool info_says(const char *text)
{
    char *info = host_info(host);
    bool found = strstr(info, text) != NULL;
    free(info);
    return found;
}

/* The names a.test to j.test have so many addresses each. */
static inline void answer_many(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    static _Thread_local char list[512];
    unsigned count = *(const unsigned *)arg;
    list[0] = '\0';
    for (unsigned i = 1; i <= count; i++) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof(list) - at, "127.0.%u.%u ", query->name[0] - 'a' + 10u, i);
    }
    rule->addresses = list;
}
