/* The lines that the module logs, kept for the test to look at.
 *
 * Threads: any.
 */
#pragma once

#include <forward/abi.h>

extern const struct fwd_log log_table; /**< for FWD_LOG_ID */

/** How often the text stands in the log; each line begins with its level and a blank. */
unsigned logged(const char *text);

/** How many lines have a level, FWD_LEVEL_*. */
unsigned logged_at(uint32_t level);

/** Forgets all lines. */
void log_clear(void);
