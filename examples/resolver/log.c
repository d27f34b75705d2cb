/* Writing log lines.
 *
 * Happy path: compose, one write(2).
 * Failure modes: a full or closed stdout loses lines; the daemon goes on answering.
 */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/** Name of a level. */
const char *log_level_name(uint32_t level)
{
    switch (level) {
    case FWD_LEVEL_ERROR:
        return "ERROR";
    case FWD_LEVEL_WARNING:
        return "WARNING";
    case FWD_LEVEL_DEBUG:
        return "DEBUG";
    default:
        return "INFO";
    }
}

/** Writes as much as stdout takes. */
void log_write(const char *lines, size_t len)
{
    while (len > 0) {
        ssize_t written = write(STDOUT_FILENO, lines, len);
        if (written <= 0) {
            return;
        }
        lines += written;
        len -= (size_t)written;
    }
}

/** One line. */
void log_print(uint32_t level, const char *format, ...)
{
    char line[4096];
    int len = snprintf(line, sizeof(line), "[%s] ", log_level_name(level));
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + len, sizeof(line) - (size_t)len, format, args);
    va_end(args);
    if (more < 0) {
        return;
    }
    len += more;
    if ((size_t)len > sizeof(line) - 2) {
        len = sizeof(line) - 2;
    }
    line[len++] = '\n';
    log_write(line, (size_t)len);
}

static void service_write(void *arg, uint32_t level, const char *msg, uint32_t len)
{
    (void)arg;
    if (level != FWD_LEVEL_DEBUG) { /* CoreDNS shows these with the debug plugin only */
        log_print(level, "plugin/forward: %.*s", (int)len, msg);
    }
}

const struct fwd_log log_service = {.struct_size = sizeof(struct fwd_log), .write = service_write};
