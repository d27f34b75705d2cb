/* JSON to text.
 *
 * Happy path: octets are appended to a buffer that doubles. Failure modes: out of memory sets
 * failed, which is looked at once, at the end.
 */
#include "jsontext.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST 256

static void octets_add(struct jsontext *out, const char *octets, size_t len)
{
    if (out->cap - out->len < len) {
        size_t cap = out->cap > 0 ? 2 * out->cap : FIRST;
        char *data;

        while (cap - out->len < len) {
            cap *= 2;
        }
        data = realloc(out->data, cap);
        if (data == NULL) {
            out->failed = true;
            return;
        }
        out->data = data;
        out->cap = cap;
    }
    memcpy(out->data + out->len, octets, len);
    out->len += len;
}

/** A text. */
void jsontext_raw(struct jsontext *out, const char *text)
{
    octets_add(out, text, strlen(text));
}

/** Another's octets. */
void jsontext_append(struct jsontext *out, const struct jsontext *part)
{
    octets_add(out, part->data, part->len);
}

/** Quotes; what needs no escape is appended in one go. */
void jsontext_string(struct jsontext *out, const char *text)
{
    const char *from = text;

    octets_add(out, "\"", 1);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        char escape[8];

        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        octets_add(out, from, (size_t)(text - from));
        from = text + 1;
        (void)snprintf(escape, sizeof(escape), c < 0x20 ? "\\u%04x" : "\\%c", c);
        jsontext_raw(out, escape);
    }
    octets_add(out, from, (size_t)(text - from));
    octets_add(out, "\"", 1);
}

/** Digits. */
void jsontext_number(struct jsontext *out, uint32_t number)
{
    char digits[11];
    char *at = digits + sizeof(digits);

    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    octets_add(out, at, (size_t)(digits + sizeof(digits) - at));
}

/** Separates. */
void jsontext_comma(struct jsontext *out, size_t first)
{
    if (out->len > first) {
        octets_add(out, ",", 1);
    }
}

/** Frees. */
void jsontext_free(struct jsontext *out)
{
    free(out->data);
    *out = (struct jsontext){.data = NULL};
}
