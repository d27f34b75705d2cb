/* Growable text and failure texts.
 *
 * Happy path: append, use data, fini.
 * Failure modes: out of memory sets failed and keeps what was there; callers look at it once, at
 * the end.
 */
#include "text.h"

#include <forward/abi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool text_reserve(struct text *text, size_t more)
{
    size_t need = text->len + more + 1;
    if (need <= text->cap) {
        return true;
    }
    size_t cap = need < 256 ? 256 : need * 2;
    char *data = realloc(text->data, cap);
    if (data == NULL) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->cap = cap;
    return true;
}

/** Appends len octets. */
void text_append(struct text *text, const char *data, size_t len)
{
    if (!text_reserve(text, len)) {
        return;
    }
    memcpy(text->data + text->len, data, len);
    text->len += len;
    text->data[text->len] = '\0';
}

/** Appends formatted text. */
void text_printf(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (need < 0 || !text_reserve(text, (size_t)need)) {
        return;
    }
    va_start(args, format);
    (void)vsnprintf(text->data + text->len, (size_t)need + 1, format, args);
    va_end(args);
    text->len += (size_t)need;
}

/** Frees and empties. */
void text_fini(struct text *text)
{
    free(text->data);
    *text = (struct text){0};
}

/** The sink that the module's documents are read through. */
int32_t text_sink(void *arg, const char *data, uint64_t len)
{
    struct text *text = arg;
    text_append(text, data, len);
    return text->failed ? FWD_ERR_NOMEM : FWD_OK;
}

/** Says why. */
bool failure_set(struct failure *failure, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(failure->text, sizeof(failure->text), format, args);
    va_end(args);
    return false;
}
