/* The process's log: lines on stdout as CoreDNS writes them, "[INFO] text".
 *
 * Threads: any; a line is one write, so lines do not mix. Limits: a line is cut at 4,096 octets.
 */
#pragma once

#include <forward/abi.h>
#include <stddef.h>
#include <stdint.h>

/** One line; level is of enum fwd_level. */
void log_print(uint32_t level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** "INFO" and so on. */
const char *log_level_name(uint32_t level);

/** Whole lines that the caller composed. */
void log_write(const char *lines, size_t len);

/** The fwd.log/1 service that the module is given. */
extern const struct fwd_log log_service;
