/* Domain names: text to wire form, and what CoreDNS takes for a name.
 *
 * Threads: any. Ownership: all buffers are the caller's. Limits: 255 octets of wire form, labels
 * of 63. Standards: RFC 1035 section 2.3.4 and 5.1 (\DDD and \X escapes), RFC 4343 (ASCII case
 * only).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_WIRE_MAX 255
#define NAME_LABEL_MAX 63

/** Lower-case uncompressed wire form of a name in text form; the final dot may be missing.
 *  @return 0, or -1 when text is no domain name (an empty one is none) */
int name_to_wire(const char *text, uint8_t wire[NAME_WIRE_MAX], size_t *ret_len);

/** Whether text is a domain name. */
bool name_valid(const char *text);

/** dns.IsFqdn: ends with a dot that is not escaped. */
bool name_fqdn(const char *text);

/** The name in lower case with a final dot (CoreDNS's Name.Normalize) into ret, of strlen(text) + 2
 * octets. */
void name_normalize(const char *text, char *ret);
