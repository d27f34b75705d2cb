/* Unpredictable numbers for IDs, source choice and policies (RFC 5452 9.2).
 *
 * Threads: any; every thread has a buffer of its own. Limits: a failing source fails the caller, never a guessable number.
 */
#pragma once

#include "services.h"
#include <stddef.h>
#include <stdint.h>

/** A uniform 16-bit number. @return 0, or FWD_ERR_SYSTEM when the source failed (*ret untouched) */
int random_u16(const struct services *services, uint16_t *ret);

/** A uniform number below bound (1..65535), without modulo bias. Same return. */
int random_below(const struct services *services, uint16_t bound, uint16_t *ret);
