/* Filling the caller's struct fwd_error.
 *
 * Happy path: error_set formats the text straight into the caller's buffers, cutting it to fit.
 * Failure modes: none. A NULL error, NULL buffers, buffers of no octets and a struct of an older
 * minor are all served as far as they go; the code is returned in any case, so that `return
 * error_set(...)` is the usual way out of a function.
 */
#include "error.h"

#include <stdio.h>
#include <string.h>

/* Copies text into a buffer of cap octets, cut to fit and ended with NUL. */
static void text_put(char *buf, uint32_t cap, const char *text)
{
    if (buf != NULL && cap > 0) {
        (void)snprintf(buf, cap, "%s", text != NULL ? text : "");
    }
}

/** As error_set, with a va_list. */
int error_setv(struct fwd_error *error, int code, const struct error_place *place,
               const char *format, va_list args)
{
    static const struct error_place nowhere;

    if (error == NULL) {
        return code;
    }
    if (place == NULL) {
        place = &nowhere;
    }
    if (FWD_COVERS(error, code)) {
        error->code = code;
    }
    if (FWD_COVERS(error, line)) {
        error->line = place->line;
    }
    if (FWD_COVERS(error, msg) && error->msg != NULL && error->msg_cap > 0) {
        (void)vsnprintf(error->msg, error->msg_cap, format, args);
    }
    if (FWD_COVERS(error, file)) {
        text_put(error->file, error->file_cap, place->file);
    }
    if (FWD_COVERS(error, pointer)) {
        text_put(error->pointer, error->pointer_cap, place->pointer);
    }
    return code;
}

/** Fills *error as far as it reaches and returns code. */
int error_set(struct fwd_error *error, int code, const struct error_place *place,
              const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)error_setv(error, code, place, format, args);
    va_end(args);
    return code;
}

/** Static text of an error number; an unknown number has one too. */
const char *error_text(int code)
{
    switch (code) {
#define FWD_ERROR(name, value, text)                                                               \
    case value:                                                                                    \
        return text;
#include "abi_errors.inc"
#undef FWD_ERROR
    default:
        return "unknown error";
    }
}
