/* Domain names in text and wire form.
 *
 * Happy path: the Corefile's zones come in as text once, queries' names go out as text for the log.
 * Failure modes: an empty or overlong label, an overlong name or a broken escape is no name.
 */
#include "name.h"

#include <stdio.h>
#include <string.h>

/** ASCII lower case, whatever the locale. */
uint8_t octet_lower(uint8_t octet)
{
    return octet >= 'A' && octet <= 'Z' ? octet + ('a' - 'A') : octet;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* One octet of a label after unescaping; advances *text. -1 for a broken escape. */
static int octet_take(const char **text)
{
    const char *c = *text;
    if (*c != '\\') {
        *text = c + 1;
        return (uint8_t)*c;
    }
    if (is_digit(c[1]) && is_digit(c[2]) && is_digit(c[3])) {
        *text = c + 4;
        return (uint8_t)((c[1] - '0') * 100 + (c[2] - '0') * 10 + (c[3] - '0')); /* \\256 is \\000,
                                                                                  as in CoreDNS */
    }
    *text = c + 2;
    return c[1] != '\0' ? (uint8_t)c[1] : -1;
}

/** Text to wire. */
bool name_from_text(struct name *name, const char *text)
{
    unsigned len = 0;
    if (strcmp(text, ".") == 0) {
        text++;
    } else if (*text == '\0') {
        return false;
    }
    while (*text != '\0') {
        unsigned start = len++;
        while (*text != '\0' && *text != '.') {
            int octet = octet_take(&text);
            if (octet < 0 || len >= NAME_WIRE_MAX) {
                return false;
            }
            name->wire[len++] = octet_lower((uint8_t)octet);
        }
        unsigned label = len - start - 1;
        if (label == 0 || label > 63 || len >= NAME_WIRE_MAX) {
            return false;
        }
        name->wire[start] = (uint8_t)label;
        text += *text == '.';
    }
    name->wire[len++] = 0;
    name->len = (uint8_t)len;
    return true;
}

/** Wire to text. */
void name_to_text(const uint8_t *wire, char text[NAME_TEXT_MAX])
{
    char *out = text;
    if (*wire == 0) {
        *out++ = '.';
    }
    for (; *wire != 0; wire += *wire + 1) {
        for (unsigned i = 1; i <= *wire; i++) {
            uint8_t octet = octet_lower(wire[i]);
            if (octet < ' ' || octet > '~') {
                out += sprintf(out, "\\%03u", octet);
                continue;
            }
            if (strchr(". '@;()\"\\", octet) != NULL) {
                *out++ = '\\';
            }
            *out++ = (char)octet;
        }
        *out++ = '.';
    }
    *out = '\0';
}

/** Where the labels begin. */
unsigned name_labels(const uint8_t *wire, uint8_t offsets[NAME_LABELS_MAX])
{
    unsigned count = 0;
    for (unsigned at = 0; wire[at] != 0; at += wire[at] + 1u) {
        offsets[count++] = (uint8_t)at;
    }
    return count;
}

/** Compares label by label from the end. */
bool name_under(const uint8_t *name, const uint8_t *scope)
{
    uint8_t of_name[NAME_LABELS_MAX];
    uint8_t of_scope[NAME_LABELS_MAX];
    unsigned labels_name = name_labels(name, of_name);
    unsigned labels_scope = name_labels(scope, of_scope);
    if (labels_scope > labels_name) {
        return false;
    }
    if (labels_scope == 0) {
        return true;
    }
    const uint8_t *suffix = name + of_name[labels_name - labels_scope];
    for (;; suffix++, scope++) {
        if (octet_lower(*suffix) != octet_lower(*scope)) {
            return false;
        }
        if (*scope == 0) {
            return true;
        }
    }
}
