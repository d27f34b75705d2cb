/* The files of a `tls` line: read and parsed when the Corefile is, so that a missing one, or a key
 * that is not the certificate's, is an error at start and leaves a running configuration alone.
 *
 * Threads: any. Ownership: nothing is kept. Standards: CoreDNS 1.14.7 plugin/pkg/tls (corner case
 * 27); RFC 7468.
 */
#pragma once

#include "gotext.h"

/** Checks none, CA, CERT KEY or CERT KEY CA. @return 0, or -1 with CoreDNS's text in reason */
int tlsfiles_check(const char *const *files, size_t count, char reason[GOTEXT_REASON]);
