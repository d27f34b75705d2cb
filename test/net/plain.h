/* What tests with one plain upstream start from: the upstream, and a clock that stands still until the test moves it.
 *
 * Threads: one. Each test program that includes it has its own.
 */
#pragma once

#include "host.h"
#include "upstream.h"

static struct upstream *up;
static struct fake_clock fake;

/** For host_open_with. */
static const struct service fake_services[] __attribute__((unused)) = {{FWD_CLOCK_ID, &fake.table}, {NULL, NULL}};

/** For tcase_add_checked_fixture. */
static void setup(void)
{
    up = upstream_create();
    fake_clock_init(&fake);
}

static void teardown(void)
{
    upstream_destroy(up);
}

/** How long answers take from now on. */
static inline void set_delay(unsigned ms)
{
    upstream_set(up, &(struct upstream_rule){.delay_ms = ms});
}
