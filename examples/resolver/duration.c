/* Durations.
 *
 * Happy path: sign, then number and unit again and again, summed up.
 * Failure modes: no number, no unit, an unknown unit, more than 64 bits: Go's error texts.
 */
#include "duration.h"

#include <stdio.h>
#include <string.h>

static const struct unit {
    const char *name;
    uint64_t ns;
} units[] = {
    {"ns", 1},           {"us", 1000},      {"\xc2\xb5s", 1000}, /* micro sign */
    {"\xce\xbcs", 1000},                                         /* Greek mu */
    {"ms", 1000000},     {"s", 1000000000}, {"m", 60000000000},  {"h", 3600000000000},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The digits in front as a number; *ret_overflow when it needs more than 63 bits. */
static const char *digits_read(const char *at, uint64_t *ret, bool *ret_overflow)
{
    for (*ret = 0; is_digit(*at); at++) {
        *ret_overflow |= *ret > (INT64_MAX - 9) / 10;
        *ret = *ret * 10 + (uint64_t)(*at - '0');
    }
    return at;
}

/* The decimals behind a point, in parts of *ret_scale; what is too fine is dropped. */
static const char *decimals_read(const char *at, uint64_t *ret, double *ret_scale)
{
    *ret = 0;
    for (*ret_scale = 1; is_digit(*at); at++) {
        if (*ret <= (INT64_MAX - 9) / 10) {
            *ret = *ret * 10 + (uint64_t)(*at - '0');
            *ret_scale *= 10;
        }
    }
    return at;
}

static const struct unit *unit_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strlen(units[i].name) == len && memcmp(units[i].name, name, len) == 0) {
            return &units[i];
        }
    }
    return NULL;
}

/** Reads. */
bool duration_parse(const char *text, int64_t *ret_ns, struct failure *failure)
{
    const char *at = text + (*text == '-' || *text == '+');
    if (strcmp(at, "0") == 0) {
        *ret_ns = 0;
        return true;
    }
    uint64_t sum = 0;
    bool bad = *at == '\0';
    while (!bad && *at != '\0') {
        uint64_t whole;
        uint64_t part = 0;
        double scale = 1;
        const char *start = at;
        at = digits_read(at, &whole, &bad);
        bool point = *at == '.';
        if (point) {
            at = decimals_read(at + 1, &part, &scale);
        }
        if (bad || at - start == point) { /* no digit at all */
            bad = true;
            break;
        }
        size_t len = strcspn(at, ".0123456789");
        const struct unit *unit = unit_find(at, len);
        if (len == 0) {
            return failure_set(failure, "time: missing unit in duration \"%s\"", text);
        }
        if (unit == NULL) {
            return failure_set(failure, "time: unknown unit \"%.*s\" in duration \"%s\"", (int)len,
                               at, text);
        }
        at += len;
        bad = whole > INT64_MAX / unit->ns;
        sum += whole * unit->ns + (uint64_t)((double)part * ((double)unit->ns / scale));
        bad |= sum > INT64_MAX;
    }
    if (bad) {
        return failure_set(failure, "time: invalid duration \"%s\"", text);
    }
    *ret_ns = *text == '-' ? -(int64_t)sum : (int64_t)sum;
    return true;
}

/* A number of units with as many decimals as are needed. */
static int amount_print(char *buffer, size_t cap, uint64_t ns, uint64_t unit, const char *name)
{
    char decimals[16] = "";
    unsigned part = (unsigned)(ns % unit);
    if (part != 0) {
        int width = unit == 1000 ? 3 : unit == 1000000 ? 6 : 9;
        for (; part % 10 == 0; part /= 10) {
            width--;
        }
        (void)snprintf(decimals, sizeof(decimals), ".%0*u", width, part);
    }
    return snprintf(buffer, cap, "%llu%s%s", (unsigned long long)(ns / unit), decimals, name);
}

/** Prints. */
void duration_print(int64_t ns, char buffer[DURATION_TEXT_MAX])
{
    uint64_t left = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;
    char *at = buffer;
    const char *end = buffer + DURATION_TEXT_MAX;
    if (ns < 0) {
        *at++ = '-';
    }
    if (left > 0 && left < 1000000000) {
        uint64_t unit = left < 1000 ? 1 : left < 1000000 ? 1000 : 1000000;
        (void)amount_print(at, (size_t)(end - at), left, unit,
                           unit == 1      ? "ns"
                           : unit == 1000 ? "\xc2\xb5s"
                                          : "ms");
        return;
    }
    uint64_t minutes = left / 60000000000;
    if (minutes >= 60) {
        at += snprintf(at, (size_t)(end - at), "%lluh", (unsigned long long)(minutes / 60));
    }
    if (minutes > 0) {
        at += snprintf(at, (size_t)(end - at), "%llum", (unsigned long long)(minutes % 60));
    }
    (void)amount_print(at, (size_t)(end - at), left % 60000000000, 1000000000, "s");
}
