/* Numbers, durations and quoting as Go's strconv and time packages read and print them, error texts
 * included: operators see CoreDNS's words, and what CoreDNS accepts is accepted.
 *
 * Threads: any. Ownership: all buffers are the caller's. Limits: error texts are cut to
 * GOTEXT_REASON octets. Standards: Go 1.26 strconv.Atoi, strconv.ParseUint, strconv.Quote,
 * time.ParseDuration, time.Duration.String.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define GOTEXT_REASON 1024 /**< octets of a reason buffer */
#define GOTEXT_DURATION 32 /**< octets that hold any printed duration */

/** strconv.Atoi of a 64-bit Go. @return 0, or -1 with Go's text in reason (which may be NULL). */
int gotext_atoi(const char *text, int64_t *ret, char reason[GOTEXT_REASON]);

/** strconv.ParseUint(text, 10, 32). @return 0, or -1 with Go's text in reason. */
int gotext_uint32(const char *text, uint32_t *ret, char reason[GOTEXT_REASON]);

/** time.ParseDuration, in nanoseconds. @return 0, or -1 with Go's text in reason. */
int gotext_duration(const char *text, int64_t *ret, char reason[GOTEXT_REASON]);

/** time.Duration.String. */
void gotext_duration_print(int64_t ns, char ret[GOTEXT_DURATION]);

/** strconv.Quote (fmt's %q) into a buffer of cap octets, cut to fit. @return buf */
char *gotext_quote(const char *text, char *buf, size_t cap);
