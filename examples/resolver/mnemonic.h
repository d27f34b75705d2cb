/* Names of RR types, classes and RCODEs as CoreDNS's log prints them.
 *
 * Threads: any. Ownership: buffers are the caller's. Standards: IANA's DNS parameters.
 */
#pragma once

#include <stdint.h>

enum { MNEMONIC_MAX = 16 };

/** The name, or for a number without one the text in buffer: TYPE65280, CLASS7, 23. */
const char *type_name(uint16_t type, char buffer[MNEMONIC_MAX]);
const char *class_name(uint16_t qclass, char buffer[MNEMONIC_MAX]);
const char *rcode_name(unsigned rcode, char buffer[MNEMONIC_MAX]);
