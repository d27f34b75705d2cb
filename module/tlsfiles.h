/* The files of a `tls` line: read and looked at when the Corefile is, so that a missing one is an
 * error at start.
 *
 * Threads: any. Ownership: nothing is kept. Standards: CoreDNS 1.14.7 plugin/pkg/tls (corner case
 * 27); RFC 7468.
 */
#pragma once

#include "gotext.h"

/** Checks none, CA, CERT KEY or CERT KEY CA. @return 0, or -1 with CoreDNS's text in reason */
int tlsfiles_check(const char *const *files, size_t count, char reason[GOTEXT_REASON]);
