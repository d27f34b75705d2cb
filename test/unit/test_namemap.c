/* Zones above a name: which are found, and in which order. */
#include "namemap.h"
#include "suite.h"

#include <stdio.h>
#include <string.h>

enum { MANY = 5000 };

static uint8_t wires[MANY][16];

/* The suffixes of a name of the zones below. */
static struct suffixes suffixes_of(const char *wire, uint32_t len)
{
    struct suffixes ret;

    ck_assert(suffixes_init(&ret, (const uint8_t *)wire, len));
    return ret;
}

#define SUFFIXES(wire) suffixes_of(wire, sizeof(wire))

/* What is found of a name, as text: the values of each suffix, shortest first. */
static void check(const struct namemap *map, struct suffixes name, const char *expected)
{
    char found[128] = "";
    size_t at = 0;

    for (uint32_t i = 0; i < name.count; i++) {
        uint32_t value = namemap_find(map, &name, i);

        for (; value != NAMEMAP_NONE; value = namemap_next(map, value)) {
            at += (size_t)snprintf(found + at, sizeof(found) - at, "%u@%u ", value, i);
        }
    }
    ck_assert_str_eq(found, expected);
}

START_TEST(suffixes_of_a_name)
{
    struct suffixes name = SUFFIXES("\1A\2bC");

    ck_assert_uint_eq(name.count, 3);
    ck_assert_uint_eq(name.at[0], 5);
    ck_assert_uint_eq(name.at[1], 2);
    ck_assert_uint_eq(name.at[2], 0);
    ck_assert_mem_eq(name.wire, "\1a\2bc", 6);
}
END_TEST

START_TEST(zones_above_a_name)
{
    static const char *const keys[] = {"\3org", "", "\1a\3org", "\3org", "\1b\1a\3org", "\1a\3org"};
    struct namemap map;

    ck_assert(namemap_init(&map, 6));
    for (uint32_t i = 6; i-- > 0;) {
        namemap_add(&map, i, (const uint8_t *)keys[i], (uint32_t)strlen(keys[i]) + 1);
    }
    check(&map, SUFFIXES(""), "1@0 ");
    check(&map, SUFFIXES("\3ORG"), "1@0 0@1 3@1 ");
    check(&map, SUFFIXES("\1c\1b\1A\3org"), "1@0 0@1 3@1 2@2 5@2 4@3 ");
    check(&map, SUFFIXES("\1b\3org"), "1@0 0@1 3@1 ");
    check(&map, SUFFIXES("\4xorg"), "1@0 ");
    namemap_fini(&map);
}
END_TEST

START_TEST(very_many_zones)
{
    struct namemap map;
    char name[16];
    char expected[16];

    ck_assert(namemap_init(&map, MANY));
    for (uint32_t i = MANY; i-- > 0;) {
        int len = snprintf(name, sizeof(name), "z%u", i);

        wires[i][0] = (uint8_t)len;
        memcpy(wires[i] + 1, name, (size_t)len + 1);
        namemap_add(&map, i, wires[i], (uint32_t)len + 2);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        (void)snprintf(expected, sizeof(expected), "%u@1 ", i);
        check(&map, suffixes_of((const char *)wires[i], (uint32_t)strlen((const char *)wires[i]) + 1), expected);
    }
    check(&map, SUFFIXES("\5z5000"), "");
    namemap_fini(&map);
}
END_TEST

/* Names about the length up to which the map has room for them itself. */
START_TEST(long_names)
{
    static const char at[] = "\14abcdefghijkl\14abcdefghijkl";
    static const char above[] = "\14abcdefghijkl\15abcdefghijklm";
    static const char other[] = "\14abcdefghijkl\15abcdefghijklx";
    struct namemap map;

    ck_assert(namemap_init(&map, 3));
    namemap_add(&map, 2, (const uint8_t *)above, sizeof(above));
    namemap_add(&map, 1, (const uint8_t *)at, sizeof(at));
    namemap_add(&map, 0, (const uint8_t *)above, sizeof(above));
    check(&map, SUFFIXES(at), "1@2 ");
    check(&map, SUFFIXES(above), "0@2 2@2 ");
    check(&map, SUFFIXES(other), "");
    namemap_fini(&map);
}
END_TEST

/* A name of 127 labels, and its longest zones. */
START_TEST(deepest_name)
{
    uint8_t wire[255];
    struct namemap map;

    for (int i = 0; i < 254; i += 2) {
        wire[i] = 1;
        wire[i + 1] = 'a';
    }
    wire[254] = 0;
    ck_assert(namemap_init(&map, 3));
    namemap_add(&map, 2, wire + 2, 253);
    namemap_add(&map, 1, wire, 255);
    namemap_add(&map, 0, wire + 254, 1);
    check(&map, suffixes_of((const char *)wire, 255), "0@0 2@126 1@127 ");
    namemap_fini(&map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("namemap");
    TCase *tcase = tcase_create("namemap");

    tcase_add_test(tcase, suffixes_of_a_name);
    tcase_add_test(tcase, zones_above_a_name);
    tcase_add_test(tcase, very_many_zones);
    tcase_add_test(tcase, long_names);
    tcase_add_test(tcase, deepest_name);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
