/* Domain names in text and wire form.
 *
 * Happy path: one pass over the text, a length octet per label. Failure modes: empty and overlong
 * labels, overlong names, an escape at the end, are refused; nothing is written past the buffer.
 */
#include "name.h"

#include <string.h>

static char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Reads one octet of a label, escaped or not. *ret_dot tells a label's end. Returns the width, 0
 * for an escape at the end. */
static size_t octet_read(const char *text, uint8_t *ret, bool *ret_dot)
{
    *ret_dot = text[0] == '.';
    *ret = (uint8_t)ascii_lower(text[0]);
    if (text[0] != '\\') {
        return 1;
    }
    if (digit(text[1]) && digit(text[2]) && digit(text[3])) {
        int value = (text[1] - '0') * 100 + (text[2] - '0') * 10 + (text[3] - '0');

        *ret = (uint8_t)ascii_lower((char)value); /* \256 and above wrap, as in miekg/dns */
        return 4;
    }
    *ret = (uint8_t)ascii_lower(text[1]);
    return text[1] == '\0' ? 0 : 2;
}

/** Text to lower-case wire form. */
int name_to_wire(const char *text, uint8_t wire[NAME_WIRE_MAX], size_t *ret_len)
{
    size_t start = 0; /* of the label: its length octet */
    size_t at = 1;

    if (strcmp(text, ".") == 0) {
        wire[0] = 0;
        *ret_len = 1;
        return 0;
    }
    if (*text == '\0') {
        return -1;
    }
    while (*text != '\0') {
        uint8_t octet = 0;
        bool dot = false;
        size_t width = octet_read(text, &octet, &dot);
        size_t label_len = at - start - 1;

        if (width == 0 || at >= NAME_WIRE_MAX || (dot && label_len == 0) ||
            (!dot && label_len == NAME_LABEL_MAX)) {
            return -1;
        }
        if (dot) {
            wire[start] = (uint8_t)label_len;
            start = at++;
        } else {
            wire[at++] = octet;
        }
        text += width;
    }
    if (at - start > 1) { /* the final dot was missing */
        wire[start] = (uint8_t)(at - start - 1);
        start = at++;
    }
    if (at > NAME_WIRE_MAX) {
        return -1;
    }
    wire[start] = 0;
    *ret_len = at;
    return 0;
}

/** Whether text is a domain name. */
bool name_valid(const char *text)
{
    uint8_t wire[NAME_WIRE_MAX];
    size_t len;

    return name_to_wire(text, wire, &len) == 0;
}

/** Whether text ends with an unescaped dot. */
bool name_fqdn(const char *text)
{
    size_t len = strlen(text);
    size_t escapes = 0;

    if (len == 0 || text[len - 1] != '.') {
        return false;
    }
    while (escapes + 1 < len && text[len - 2 - escapes] == '\\') {
        escapes++;
    }
    return escapes % 2 == 0;
}

/** Lower case and a final dot. */
void name_normalize(const char *text, char *ret)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++) {
        ret[i] = ascii_lower(text[i]);
    }
    memcpy(ret + len, name_fqdn(text) ? "" : ".", name_fqdn(text) ? 1 : 2);
}
