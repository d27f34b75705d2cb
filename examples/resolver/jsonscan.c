/* Reading JSON without a tree.
 *
 * Happy path: `for (bool more = jsonscan_enter(s, '['); more; more = jsonscan_next(s))` reads a value each time.
 * Failure modes: a text that ends too soon, or in which something else stands, sets broken; every loop ends
 * then, and the caller looks at it once, at the end.
 */
#include "jsonscan.h"

#include <string.h>

/** Gives up. */
void jsonscan_break(struct jsonscan *scan)
{
    scan->broken = true;
    scan->at = scan->end;
}

/* The next octet that is no space, NUL at the end. */
static char peek(struct jsonscan *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\n' || *scan->at == '\r')) {
        scan->at++;
    }
    return scan->at < scan->end ? *scan->at : '\0';
}

static bool take(struct jsonscan *scan, char wanted)
{
    if (peek(scan) != wanted) {
        return false;
    }
    scan->at++;
    return true;
}

/** Looks. */
bool jsonscan_is(struct jsonscan *scan, char first)
{
    return peek(scan) == first;
}

/** Enters. */
bool jsonscan_enter(struct jsonscan *scan, char bracket)
{
    if (!take(scan, bracket)) {
        jsonscan_break(scan);
        return false;
    }
    return !take(scan, bracket == '[' ? ']' : '}');
}

/** Goes on. */
bool jsonscan_next(struct jsonscan *scan)
{
    if (take(scan, ',')) {
        return true;
    }
    if (!take(scan, ']') && !take(scan, '}')) {
        jsonscan_break(scan);
    }
    return false;
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c != '\0' ? strchr(digits, c >= 'A' && c <= 'F' ? c + ('a' - 'A') : c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* Four digits behind \u, or -1. */
static int32_t unit_read(const char *at, const char *end)
{
    int32_t unit = 0;
    if (end - at < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(at[i]);
        if (digit < 0) {
            return -1;
        }
        unit = unit * 16 + digit;
    }
    return unit;
}

/* The code point of the \u at hand, perhaps of a pair of them. @return 0 when it is none, or NUL */
static uint32_t point_read(struct jsonscan *scan)
{
    int32_t unit = unit_read(scan->at + 2, scan->end);
    if (unit < 0 || (unit >= 0xdc00 && unit < 0xe000)) {
        return 0;
    }
    scan->at += 6;
    if (unit < 0xd800 || unit >= 0xe000) {
        return (uint32_t)unit;
    }
    if (scan->end - scan->at < 6 || scan->at[0] != '\\' || scan->at[1] != 'u') {
        return 0;
    }
    int32_t low = unit_read(scan->at + 2, scan->end);
    scan->at += 6;
    return low >= 0xdc00 && low < 0xe000 ? 0x10000 + (((uint32_t)unit - 0xd800) << 10) + ((uint32_t)low - 0xdc00) : 0;
}

static char *point_write(char *to, uint32_t point)
{
    static const unsigned char leads[] = {0, 0xc0, 0xe0, 0xf0};
    int more = (point >= 0x80) + (point >= 0x800) + (point >= 0x10000);
    *to++ = (char)(leads[more] | point >> (6 * more));
    while (more-- > 0) {
        *to++ = (char)(0x80 | (point >> (6 * more) & 0x3f));
    }
    return to;
}

/* Decodes the escape at hand, which is longer than what it stands for. @return NULL when it is none */
static char *escape_read(struct jsonscan *scan, char *to)
{
    static const char escapes[] = "\"\\/bfnrt";
    static const char meant[] = "\"\\/\b\f\n\r\t";
    if (scan->end - scan->at < 2) {
        return NULL;
    }
    if (scan->at[1] == 'u') {
        uint32_t point = point_read(scan);
        return point != 0 ? point_write(to, point) : NULL;
    }
    const char *at = memchr(escapes, scan->at[1], sizeof(escapes) - 1);
    if (at == NULL) {
        return NULL;
    }
    scan->at += 2;
    *to++ = meant[at - escapes];
    return to;
}

/** Decodes. */
const char *jsonscan_string(struct jsonscan *scan, size_t *ret_len)
{
    *ret_len = 0;
    if (!take(scan, '"')) {
        jsonscan_break(scan);
        return "";
    }
    char *from = scan->at;
    char *to = from;
    while (to != NULL && scan->at < scan->end && *scan->at != '"') {
        if (*scan->at == '\\') {
            to = escape_read(scan, to);
        } else if ((unsigned char)*scan->at < ' ') {
            to = NULL;
        } else {
            *to++ = *scan->at++;
        }
    }
    if (to == NULL || scan->at == scan->end) {
        jsonscan_break(scan);
        return "";
    }
    scan->at++;
    *to = '\0'; /* at the quote's place, or before it */
    *ret_len = (size_t)(to - from);
    return from;
}

/** Reads a name. */
const char *jsonscan_name(struct jsonscan *scan)
{
    size_t len;
    const char *name = jsonscan_string(scan, &len);
    if (!take(scan, ':')) {
        jsonscan_break(scan);
    }
    return name;
}

/** Counts up. */
uint32_t jsonscan_number(struct jsonscan *scan)
{
    uint64_t number = 0;
    bool any = false;
    for (char c = peek(scan); c >= '0' && c <= '9' && number <= UINT32_MAX;
         c = scan->at < scan->end ? *scan->at : '\0') {
        number = number * 10 + (uint64_t)(c - '0');
        any = true;
        scan->at++;
    }
    if (!any || number > UINT32_MAX) {
        jsonscan_break(scan);
        return 0;
    }
    return (uint32_t)number;
}

static void string_skip(struct jsonscan *scan)
{
    for (scan->at++; scan->at < scan->end && *scan->at != '"'; scan->at++) {
        if (*scan->at == '\\' && ++scan->at == scan->end) {
            break;
        }
    }
    if (scan->at == scan->end) {
        jsonscan_break(scan);
        return;
    }
    scan->at++;
}

static void brackets_skip(struct jsonscan *scan)
{
    size_t depth = 0;
    while (scan->at < scan->end) {
        char c = *scan->at;
        if (c == '"') {
            string_skip(scan);
            continue;
        }
        scan->at++;
        depth += c == '[' || c == '{';
        depth -= c == ']' || c == '}';
        if (depth == 0) {
            return;
        }
    }
    jsonscan_break(scan);
}

/** Skips. */
void jsonscan_skip(struct jsonscan *scan)
{
    char first = peek(scan);
    if (first == '"') {
        string_skip(scan);
        return;
    }
    if (first == '[' || first == '{') {
        brackets_skip(scan);
        return;
    }
    const char *from = scan->at;
    while (scan->at < scan->end && memchr(" \t\n\r,:\"[]{}", *scan->at, 11) == NULL) {
        scan->at++;
    }
    if (scan->at == from) {
        jsonscan_break(scan);
    }
}

/** Ends. */
bool jsonscan_end(struct jsonscan *scan)
{
    (void)peek(scan);
    if (scan->at < scan->end) {
        jsonscan_break(scan);
    }
    return !scan->broken;
}
