/* Domain names: text to wire form and back.
 *
 * Threads: none of its own. Limits: a name has at most NAME_WIRE_MAX octets (RFC 1035 2.3.4), its
 * text NAME_TEXT_MAX. Standards: RFC 1035 3.1 and 5.1, RFC 4343 (case).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { NAME_WIRE_MAX = 255, NAME_TEXT_MAX = 1024, NAME_LABELS_MAX = 128 };

struct name {
    uint8_t wire[NAME_WIRE_MAX];
    uint8_t len;
};

/** Lower-cases; a missing final dot is added. False for what is no domain name. */
bool name_from_text(struct name *name, const char *text);

/** Writes the name in lower case, escaped as in a zone file, with its final dot; NUL-terminated. */
void name_to_text(const uint8_t *wire, char text[NAME_TEXT_MAX]);

/** Offsets of the labels, without the root's. @return how many */
unsigned name_labels(const uint8_t *wire, uint8_t offsets[NAME_LABELS_MAX]);

/** Whether a name is the scope or lies below it. */
bool name_under(const uint8_t *name, const uint8_t *scope);

uint8_t octet_lower(uint8_t octet);
