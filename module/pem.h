/* PEM blocks, found and decoded exactly as Go does it: what CoreDNS takes for one, and what it skips
 * without a word.
 *
 * Threads: any. Ownership: der is the caller's to free, label points into the data. Standards: Go
 * 1.26 encoding/pem Decode; RFC 7468, with the headers of RFC 1421.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pem_block {
    const char *label;
    size_t label_len;
    bool headers;
    uint8_t *der;
    size_t der_len;
};

/** Finds the next block between *at and end, and moves *at behind it.
 *  @return false when there is none, or out of memory */
bool pem_next(const char **at, const char *end, struct pem_block *ret);

/** True when the label is this, or with tail ends so. */
bool pem_labelled(const struct pem_block *block, const char *label, bool tail);
