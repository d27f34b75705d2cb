/* Finding PEM blocks.
 *
 * Happy path: an END line, the last BEGIN line before it, perhaps headers, and base64 between them.
 * Failure modes: what is not well-formed is no block; the search goes on behind its END.
 */
#include "pem.h"

#include <stdlib.h>
#include <string.h>

#define BEGIN "-----BEGIN "
#define END "\n-----END "
#define DASHES "-----"

struct line {
    const char *text;
    size_t len;       /* without what stands at its end: carriage return, spaces, tabs */
    const char *next; /* the line after it */
};

static struct line line_at(const char *at, const char *end)
{
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    struct line line = {.text = at, .next = newline != NULL ? newline + 1 : end};
    const char *stop = newline != NULL ? newline : end;

    stop -= newline != NULL && stop > at && stop[-1] == '\r';
    while (stop > at && (stop[-1] == ' ' || stop[-1] == '\t')) {
        stop--;
    }
    line.len = (size_t)(stop - at);
    return line;
}

static const char *find(const char *at, const char *end, const char *text)
{
    return memmem(at, (size_t)(end - at), text, strlen(text));
}

/* The last BEGIN before stop. */
static const char *begin_before(const char *at, const char *stop)
{
    const char *last = NULL;

    for (const char *next = at; (next = find(next, stop, BEGIN)) != NULL; next++) {
        last = next;
    }
    return last;
}

static int digit_of(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = c != '\0' ? strchr(digits, c) : NULL;

    return found != NULL ? (int)(found - digits) : -1;
}

/* Base64 with its padding, white space anywhere. */
static bool body_decode(const char *at, const char *end, struct pem_block *ret)
{
    uint32_t bits = 0;
    unsigned count = 0;
    unsigned padding = 0;

    ret->der_len = 0;
    ret->der = malloc((size_t)(end - at) / 4 * 3 + 3);
    if (ret->der == NULL) {
        return false;
    }
    for (; at < end; at++) {
        if (strchr(" \t\r\n", *at) != NULL && *at != '\0') {
            continue;
        }
        int digit = *at == '=' ? 0 : digit_of(*at);

        padding += *at == '=';
        if (digit < 0 || (padding > 0 && *at != '=') || padding > 2) {
            break;
        }
        bits = bits << 6 | (uint32_t)digit;
        if (++count % 4 == 0) {
            for (unsigned i = 0; i < 3 - padding; i++) {
                ret->der[ret->der_len++] = (uint8_t)(bits >> (16 - 8 * i));
            }
        }
    }
    if (at == end && count % 4 == 0) {
        return true;
    }
    free(ret->der);
    ret->der = NULL;
    return false;
}

/* Behind END: the same label, and nothing more on the line. */
static bool trailer_matches(const char *at, const char *end, const struct pem_block *block)
{
    size_t len = block->label_len + strlen(DASHES);

    return (size_t)(end - at) >= len && memcmp(at, block->label, block->label_len) == 0 &&
           memcmp(at + block->label_len, DASHES, strlen(DASHES)) == 0 &&
           line_at(at + len, end).len == 0;
}

/* The block between a BEGIN and the END that stop points to. */
static bool block_read(const char *begin, const char *stop, const char *end, struct pem_block *ret)
{
    struct line line = line_at(begin + strlen(BEGIN), end);
    size_t dashes = strlen(DASHES);

    if (line.len < dashes || memcmp(line.text + line.len - dashes, DASHES, dashes) != 0) {
        return false;
    }
    *ret = (struct pem_block){.label = line.text, .label_len = line.len - dashes};
    const char *body = line.next;
    while (body < end && (line = line_at(body, end), memchr(line.text, ':', line.len) != NULL)) {
        ret->headers = true;
        body = line.next;
    }
    if (body >= end || (ret->headers && body > stop) ||
        !trailer_matches(stop + strlen(END), end, ret)) {
        return false;
    }
    return body_decode(body, body < stop ? stop : body, ret);
}

/** Finds the next block. */
bool pem_next(const char **at, const char *end, struct pem_block *ret)
{
    const char *stop;

    for (const char *from = *at; (stop = find(from, end, END)) != NULL;
         from = stop + strlen(END)) {
        const char *begin = begin_before(from, stop);

        if (begin == NULL || (begin > from && begin[-1] != '\n') ||
            !block_read(begin, stop, end, ret)) {
            continue;
        }
        *at = line_at(stop + 1, end).next;
        return true;
    }
    return false;
}

/** Compares the label. */
bool pem_labelled(const struct pem_block *block, const char *label, bool tail)
{
    size_t len = strlen(label);

    return (tail ? block->label_len >= len : block->label_len == len) &&
           memcmp(block->label + block->label_len - len, label, len) == 0;
}
