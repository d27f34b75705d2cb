/* Loading forward.so and taking the tables that the daemon uses.
 *
 * Threads: main, once. Ownership: the module stays loaded until the process ends; the tables are
 * its own.
 */
#pragma once

#include "text.h"

#include <forward/abi.h>

struct module {
    char path[4096];
    const struct fwd_module *entry;
    const struct fwd_forward *forward;
    const struct fwd_corefile *corefile;
};

/** Loads from path, or when it is NULL from $FWD_MODULE, the build tree that the executable lies
 * in, or where meson installs it. */
bool module_load(struct module *module, const char *path, struct failure *failure);
