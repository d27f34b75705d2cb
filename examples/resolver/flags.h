/* The command line, in the syntax of Go's flag package, which CoreDNS's operators know: one or two
 * dashes, -flag value or -flag=value, booleans without a value.
 *
 * Threads: main only. Ownership: values point into argv.
 */
#pragma once

#include <stdbool.h>

enum { FLAGS_WORKERS_MAX = 64 };

struct flags {
    const char *conf; /**< NULL: ./Corefile */
    const char *port; /**< default port of server blocks */
    const char *module;
    const char *user;
    unsigned workers; /**< 0: the daemon chooses */
    bool validate;
    bool json;
    bool quiet;
    bool version;
};

/** Parses. Anything but a well-formed line ends the process as Go's flag package does: a message,
 * the usage, exit status 2 (0 after -help). */
void flags_parse(struct flags *flags, int argc, char **argv);
