/* Numbers, durations and quoting in Go's manner.
 *
 * Happy path: text in, number out. Failure modes: what Go refuses is refused with Go's text.
 * Quoting differs from Go's in one point: which of the rarer non-ASCII characters count as
 * printable is decided by a short table, not by all of Unicode's.
 */
#include "gotext.h"

#include "utf8.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define NS_MAX ((uint64_t)1 << 63) /* magnitude of the most negative duration */

static const char lower_hex[] = "0123456789abcdef";

static int number_fail(const char *function, const char *text, const char *why, char *reason)
{
    char quoted[GOTEXT_REASON / 2];

    if (reason != NULL) {
        (void)snprintf(reason, GOTEXT_REASON, "strconv.%s: parsing %s: %s", function,
                       gotext_quote(text, quoted, sizeof(quoted)), why);
    }
    return -1;
}

/* Reads decimal digits only. Returns 0, 1 for a syntax error, 2 when the value exceeds max before
 * one was met. */
static int digits_read(const char *text, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;

    if (*text == '\0') {
        return 1;
    }
    for (; *text != '\0'; text++) {
        uint64_t digit = (uint64_t)(*text - '0');

        if (*text < '0' || *text > '9') {
            return 1;
        }
        if (value > (max - digit) / 10) {
            return 2;
        }
        value = value * 10 + digit;
    }
    *ret = value;
    return 0;
}

/** strconv.Atoi. */
int gotext_atoi(const char *text, int64_t *ret, char reason[GOTEXT_REASON])
{
    const char *digits = text + (*text == '+' || *text == '-');
    bool negative = *text == '-';
    uint64_t value = 0;
    int status = digits_read(digits, UINT64_MAX, &value);

    if (status == 0 && value > (uint64_t)INT64_MAX + negative) {
        status = 2;
    }
    if (status != 0) {
        return number_fail("Atoi", text, status == 1 ? "invalid syntax" : "value out of range",
                           reason);
    }
    *ret = negative ? (int64_t)(0 - value) : (int64_t)value;
    return 0;
}

/** strconv.ParseUint with base 10 and 32 bits. */
int gotext_uint32(const char *text, uint32_t *ret, char reason[GOTEXT_REASON])
{
    uint64_t value = 0;
    int status = digits_read(text, UINT32_MAX, &value);

    if (status != 0) {
        return number_fail("ParseUint", text, status == 1 ? "invalid syntax" : "value out of range",
                           reason);
    }
    *ret = (uint32_t)value;
    return 0;
}

/* Package time has a quoting of its own: everything outside of printable ASCII becomes \xNN, octet
 * by octet. */
static char *time_quote(const char *text, size_t len, char *buf, size_t cap)
{
    size_t at = 0;

    buf[at++] = '"';
    for (size_t i = 0; i < len && at + 6 < cap; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c >= 0x80 || c < ' ') {
            buf[at++] = '\\';
            buf[at++] = 'x';
            buf[at++] = lower_hex[c >> 4];
            buf[at++] = lower_hex[c & 0xf];
        } else {
            if (c == '"' || c == '\\') {
                buf[at++] = '\\';
            }
            buf[at++] = (char)c;
        }
    }
    buf[at++] = '"';
    buf[at] = '\0';
    return buf;
}

static int duration_fail(const char *text, const char *what, char *reason)
{
    char quoted[GOTEXT_REASON / 2];

    if (reason != NULL) {
        (void)snprintf(reason, GOTEXT_REASON, "time: %s %s", what,
                       time_quote(text, strlen(text), quoted, sizeof(quoted)));
    }
    return -1;
}

static int unit_fail(const char *text, const char *unit, size_t unit_len, char *reason)
{
    char quoted[GOTEXT_REASON / 4];
    char what[GOTEXT_REASON / 2];

    (void)snprintf(what, sizeof(what), "unknown unit %s in duration",
                   time_quote(unit, unit_len, quoted, sizeof(quoted)));
    return duration_fail(text, what, reason);
}

/* The integer part. Returns -1 when it exceeds 2^63. */
static int integer_read(const char **text, uint64_t *ret)
{
    uint64_t value = 0;

    for (; **text >= '0' && **text <= '9'; (*text)++) {
        if (value > NS_MAX / 10) {
            return -1;
        }
        value = value * 10 + (uint64_t)(**text - '0');
        if (value > NS_MAX) {
            return -1;
        }
    }
    *ret = value;
    return 0;
}

/* The digits after the point: value / scale. Digits beyond 63 bits are skipped. */
static uint64_t fraction_read(const char **text, double *ret_scale)
{
    uint64_t value = 0;
    bool full = false;

    *ret_scale = 1;
    for (; **text >= '0' && **text <= '9'; (*text)++) {
        uint64_t next = value * 10 + (uint64_t)(**text - '0');

        full = full || value > (NS_MAX - 1) / 10 || next > NS_MAX;
        if (!full) {
            value = next;
            *ret_scale *= 10;
        }
    }
    return value;
}

static uint64_t unit_find(const char *name, size_t len)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {
        {"ns", 1},
        {"us", 1000},
        {"\xc2\xb5s", 1000}, /* U+00B5, micro sign */
        {"\xce\xbcs", 1000}, /* U+03BC, Greek letter mu */
        {"ms", 1000000},
        {"s", 1000000000},
        {"m", UINT64_C(60) * 1000000000},
        {"h", UINT64_C(3600) * 1000000000},
    };

    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        if (strlen(units[i].name) == len && memcmp(units[i].name, name, len) == 0) {
            return units[i].ns;
        }
    }
    return 0;
}

/* One "1.5h" of a duration; moves *at behind it and adds it to *sum. */
static int term_read(const char *text, const char **at, uint64_t *sum, char *reason)
{
    const char *start = *at;
    const char *unit;
    uint64_t value = 0;
    uint64_t fraction = 0;
    uint64_t ns;
    double scale = 1;
    bool digits;
    size_t unit_len;

    if (*start != '.' && (*start < '0' || *start > '9')) {
        return duration_fail(text, "invalid duration", reason);
    }
    if (integer_read(at, &value) != 0) {
        return duration_fail(text, "invalid duration", reason);
    }
    digits = *at != start;
    if (**at == '.') {
        const char *point = ++*at;

        fraction = fraction_read(at, &scale);
        digits = digits || *at != point;
    }
    if (!digits) {
        return duration_fail(text, "invalid duration", reason);
    }
    unit = *at;
    unit_len = strcspn(unit, ".0123456789");
    if (unit_len == 0) {
        return duration_fail(text, "missing unit in duration", reason);
    }
    *at += unit_len;
    ns = unit_find(unit, unit_len);
    if (ns == 0) {
        return unit_fail(text, unit, unit_len, reason);
    }
    if (value > NS_MAX / ns) {
        return duration_fail(text, "invalid duration", reason);
    }
    value *= ns;
    if (fraction > 0) {
        value += (uint64_t)((double)fraction * ((double)ns / scale));
    }
    if (value > NS_MAX || *sum + value > NS_MAX) {
        return duration_fail(text, "invalid duration", reason);
    }
    *sum += value;
    return 0;
}

/** time.ParseDuration. */
int gotext_duration(const char *text, int64_t *ret, char reason[GOTEXT_REASON])
{
    const char *at = text + (*text == '+' || *text == '-');
    bool negative = *text == '-';
    uint64_t sum = 0;

    if (strcmp(at, "0") == 0) {
        *ret = 0;
        return 0;
    }
    if (*at == '\0') {
        return duration_fail(text, "invalid duration", reason);
    }
    while (*at != '\0') {
        if (term_read(text, &at, &sum, reason) != 0) {
            return -1;
        }
    }
    if (!negative && sum == NS_MAX) {
        return duration_fail(text, "invalid duration", reason);
    }
    *ret = negative ? (int64_t)(0 - sum) : (int64_t)sum;
    return 0;
}

/* Prints value / 10^precision without trailing zeros. */
static void decimal_print(uint64_t value, int precision, const char *unit, char *buf, size_t cap)
{
    uint64_t scale = 1;
    char fraction[16];
    int len = 0;

    for (int i = 0; i < precision; i++) {
        scale *= 10;
    }
    if (value % scale != 0) {
        len = snprintf(fraction, sizeof(fraction), ".%0*" PRIu64, precision, value % scale);
        while (fraction[len - 1] == '0') {
            len--;
        }
    }
    (void)snprintf(buf, cap, "%" PRIu64 "%.*s%s", value / scale, len, len > 0 ? fraction : "",
                   unit);
}

/** time.Duration.String. */
void gotext_duration_print(int64_t ns, char ret[GOTEXT_DURATION])
{
    const uint64_t minute = UINT64_C(60) * 1000000000;
    uint64_t left = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    char seconds[GOTEXT_DURATION];
    const char *sign = ns < 0 ? "-" : "";

    if (left == 0) {
        (void)snprintf(ret, GOTEXT_DURATION, "0s");
        return;
    }
    if (left < 1000) {
        decimal_print(left, 0, "ns", seconds, sizeof(seconds));
    } else if (left < 1000000) {
        decimal_print(left, 3, "\xc2\xb5s", seconds, sizeof(seconds));
    } else if (left < 1000000000) {
        decimal_print(left, 6, "ms", seconds, sizeof(seconds));
    } else {
        decimal_print(left % minute, 9, "s", seconds, sizeof(seconds));
    }
    left /= minute;
    if (left == 0) {
        (void)snprintf(ret, GOTEXT_DURATION, "%s%.24s", sign, seconds);
    } else if (left < 60) {
        (void)snprintf(ret, GOTEXT_DURATION, "%s%um%.24s", sign, (unsigned)left, seconds);
    } else {
        (void)snprintf(ret, GOTEXT_DURATION, "%s%" PRIu64 "h%um%.14s", sign, left / 60,
                       (unsigned)(left % 60), seconds);
    }
}

/* Not printable by strconv.IsPrint, of what may be met in configuration files: controls, all spaces
 * but U+0020, format characters, surrogates' neighbours, private use, noncharacters. */
static bool rune_hidden(uint32_t rune)
{
    static const uint32_t ranges[][2] = {
        {0x7f, 0xa0},     {0xad, 0xad},        {0x600, 0x605},   {0x61c, 0x61c},   {0x6dd, 0x6dd},
        {0x70f, 0x70f},   {0x1680, 0x1680},    {0x180e, 0x180e}, {0x2000, 0x200f}, {0x2028, 0x202f},
        {0x205f, 0x206f}, {0x3000, 0x3000},    {0xd800, 0xf8ff}, {0xfeff, 0xfeff}, {0xfff0, 0xfffb},
        {0xfffe, 0xffff}, {0xe0000, 0x10ffff},
    };

    for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
        if (rune >= ranges[i][0] && rune <= ranges[i][1]) {
            return true;
        }
    }
    return rune < ' ';
}

/* One character as strconv.Quote has it. */
static void rune_quote(uint32_t rune, const char *text, size_t width, char out[16])
{
    static const char named[] = "abtnvfr"; /* \a is 7 ... \r is 13 */

    if (rune == UTF8_INVALID) {
        (void)snprintf(out, 16, "\\x%02x", (unsigned char)*text);
    } else if (rune == '"' || rune == '\\') {
        (void)snprintf(out, 16, "\\%c", (char)rune);
    } else if (rune >= 7 && rune <= 13) {
        (void)snprintf(out, 16, "\\%c", named[rune - 7]);
    } else if (!rune_hidden(rune)) {
        (void)snprintf(out, 16, "%.*s", (int)width, text);
    } else if (rune < 0x80) {
        (void)snprintf(out, 16, "\\x%02x", (unsigned)rune);
    } else if (rune < 0x10000) {
        (void)snprintf(out, 16, "\\u%04x", (unsigned)rune);
    } else {
        (void)snprintf(out, 16, "\\U%08x", (unsigned)rune);
    }
}

/** strconv.Quote. */
char *gotext_quote(const char *text, char *buf, size_t cap)
{
    size_t len = strlen(text);
    size_t at = 0;

    buf[at++] = '"';
    while (len > 0) {
        char out[16];
        uint32_t rune;
        size_t width = utf8_decode(text, len, &rune);
        size_t out_len;

        rune_quote(rune, text, width, out);
        out_len = strlen(out);
        if (at + out_len + 2 > cap) {
            break;
        }
        memcpy(buf + at, out, out_len);
        at += out_len;
        text += width;
        len -= width;
    }
    buf[at++] = '"';
    buf[at] = '\0';
    return buf;
}
