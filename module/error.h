/* Filling the caller's struct fwd_error.
 *
 * Threads: any. Ownership: all buffers are the caller's. Limits: texts are cut to fit.
 */
#pragma once

#include <forward/abi.h>
#include <stdarg.h>
#include <stdint.h>

/** Where in the input an error lies; all members may be NULL or 0. */
struct error_place {
    const char *file;    /**< Corefile name as errors print it */
    uint32_t line;       /**< from 1 */
    const char *pointer; /**< JSON pointer (RFC 6901) */
};

/** Writes code, place and the formatted text into *error and returns code.
 *  error may be NULL, or of an older minor: nothing is written past its struct_size. */
int error_set(struct fwd_error *error, int code, const struct error_place *place,
              const char *format, ...) __attribute__((format(printf, 4, 5)));
int error_setv(struct fwd_error *error, int code, const struct error_place *place,
               const char *format, va_list args);

/** Static text of an error number, never NULL. */
const char *error_text(int code);
