/* UTF-8 decoding.
 *
 * Happy path: a valid sequence gives its rune. Failure modes: an octet outside of one is
 * UTF8_INVALID with width 1, whatever follows, so that a reader always advances. utf8_clean may run
 * out of memory.
 */
#include "utf8.h"

#include <string.h>

/** Decodes one rune; overlong forms, surrogates and values above U+10FFFF are invalid. */
size_t utf8_decode(const char *text, size_t len, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *in = (const unsigned char *)text;
    size_t width = in[0] < 0x80 ? 1 : in[0] < 0xc0 ? 0 : in[0] < 0xe0 ? 2 : in[0] < 0xf0 ? 3 : 4;
    uint32_t rune = in[0];

    *ret = UTF8_INVALID;
    if (width == 0 || width > len || in[0] > 0xf4) {
        return 1;
    }
    if (width > 1) {
        rune &= 0x7fu >> width;
    }
    for (size_t i = 1; i < width; i++) {
        if ((in[i] & 0xc0) != 0x80) {
            return 1;
        }
        rune = rune << 6 | (in[i] & 0x3fu);
    }
    if (rune < least[width] || rune > 0x10ffff || (rune >= 0xd800 && rune <= 0xdfff)) {
        return 1;
    }
    *ret = rune;
    return width;
}

/** White space as Go's unicode package defines it (case 5). */
bool utf8_space(uint32_t rune)
{
    return (rune >= 0x09 && rune <= 0x0d) || rune == 0x20 || rune == 0x85 || rune == 0xa0 ||
           rune == 0x1680 || (rune >= 0x2000 && rune <= 0x200a) || rune == 0x2028 ||
           rune == 0x2029 || rune == 0x202f || rune == 0x205f || rune == 0x3000;
}

/** Whether it is text without NUL. */
bool utf8_valid(const char *text, size_t len)
{
    while (len > 0) {
        uint32_t rune;
        size_t width = utf8_decode(text, len, &rune);

        if (rune == UTF8_INVALID || rune == 0) {
            return false;
        }
        text += width;
        len -= width;
    }
    return true;
}

/** Replaces what is not UTF-8. */
char *utf8_clean(struct arena *arena, const char *text, size_t len)
{
    size_t room = utf8_valid(text, len) ? len + 1 : 3 * len + 1;
    char *ret = len < SIZE_MAX / 4 ? arena_alloc(arena, room) : NULL;
    char *out = ret;

    if (ret == NULL) {
        return NULL;
    }
    if (room == len + 1) {
        memcpy(ret, text, len);
        ret[len] = '\0';
        return ret;
    }
    while (len > 0) {
        uint32_t rune;
        size_t width = utf8_decode(text, len, &rune);
        bool bad = rune == UTF8_INVALID || rune == 0;
        size_t put = bad ? 3 : width;

        memcpy(out, bad ? UTF8_REPLACEMENT : text, put);
        out += put;
        text += width;
        len -= width;
    }
    *out = '\0';
    return ret;
}
