/* The resolver's choice of a zone, compared with a search through all of them; and what is fetched ahead for it, which must choose nothing else,
 * whatever octets a query has in the place of its name. */
#include "../../examples/resolver/zone.h"

#include "suite.h"
#include "walk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 6000, NAMES = 1024, BATCH = 64, JUNK_MOST = 300 };

struct server {
    int unused;
};

static struct zone_table table;
static struct server servers[MANY];
static struct name zones[MANY]; /* as the table has them */

/* Labels from so few that names meet zones, but not all do. */
static void random_name(struct random *random, unsigned labels, char text[NAME_TEXT_MAX])
{
    size_t at = 0;

    text[0] = '\0';
    for (unsigned i = 0; i < labels; i++) {
        at += (size_t)snprintf(text + at, NAME_TEXT_MAX - at, "%c%u.", 'a' + (int)below(random, 3), below(random, labels < 4 ? 30 : 2));
    }
    if (labels == 0) {
        strcpy(text, ".");
    }
}

/* Depths with gaps between them: 1, 2, 3, 5, 8 and 60, and few that have one more. */
static unsigned random_depth(struct random *random)
{
    static const unsigned depths[] = {1, 2, 2, 3, 3, 3, 3, 3, 5, 5, 8, 60};

    return depths[below(random, sizeof(depths) / sizeof(*depths))];
}

static void fill(struct random *random, bool with_root)
{
    char text[NAME_TEXT_MAX];

    ck_assert(zone_table_init(&table, MANY));
    if (with_root) {
        ck_assert(zone_table_add(&table, ".", &servers[0]));
        ck_assert(name_from_text(&zones[0], "."));
    }
    for (unsigned tries = 0; table.count < MANY && tries < 100 * MANY; tries++) {
        size_t at = table.count;

        random_name(random, random_depth(random), text);
        ck_assert(zone_table_add(&table, text, &servers[at]));
        ck_assert(table.count == at || name_from_text(&zones[at], text));
    }
    ck_assert_uint_eq(table.count, MANY);
    ck_assert(namemap_is_large(&table.names));
}

/* The index of the zone that serves a name, or -1. */
static int search(const struct name *name, bool is_ds)
{
    int chosen = -1;

    for (int i = 0; i < MANY; i++) {
        bool better = chosen < 0 || (is_ds && zones[chosen].len > 1 ? zones[i].len > 1 && zones[i].len < zones[chosen].len
                                                                    : zones[i].len > zones[chosen].len);

        if (better && zones[i].len <= name->len && name_under(name->wire, zones[i].wire)) {
            chosen = i;
        }
    }
    return chosen;
}

static void check_choice(const struct name *name, bool is_ds)
{
    int expected = search(name, is_ds);
    const struct zone *zone = zone_choose(&table, name->wire, is_ds);
    char text[NAME_TEXT_MAX];

    name_to_text(name->wire, text);
    ck_assert_msg(zone == (expected < 0 ? NULL : &table.zones[expected]), "%s, DS %d", text, is_ds);
    ck_assert(zone == NULL || zone->server == &servers[expected]);
}

/* A name at, below or beside a zone, in any letter case. */
static void random_query(struct random *random, struct name *name)
{
    char text[NAME_TEXT_MAX];
    unsigned more = below(random, 3);

    *name = zones[below(random, MANY)];
    if (below(random, 3) == 0) {
        random_name(random, below(random, 10), text);
        ck_assert(name_from_text(name, text));
    }
    while (more-- > 0 && name->len + 3 <= NAME_WIRE_MAX) {
        memmove(name->wire + 3, name->wire, name->len);
        memcpy(name->wire, "\2a1", 3);
        name->len += 3;
    }
    for (unsigned i = 0; i < name->len; i++) {
        uint8_t c = name->wire[i];

        name->wire[i] = c >= 'a' && c <= 'z' && below(random, 2) == 0 ? c & 0xdf : c;
    }
}

/* Case 93, of very many zones of several depths, with the root's zone and without it. */
START_TEST(choice_among_many_case_93)
{
    struct random random = {.state = walk.seed};
    struct name name;

    fill(&random, _i == 0);
    for (unsigned i = 0; i < NAMES; i++) {
        random_query(&random, &name);
        check_choice(&name, i % 2 == 0);
    }
    zone_table_fini(&table);
}
END_TEST

/* Whether a hint leads to a zone. */
static bool has_hint(const struct namemap_hint *hint, const struct zone *zone)
{
    for (unsigned i = 0; i < hint->count; i++) {
        uint32_t at = namemap_hinted(&table.names, hint, i);

        if (at != NAMEMAP_NONE && &table.zones[at] == zone) {
            return true;
        }
    }
    return false;
}

/* The same with fetching ahead. What is fetched is what will be chosen, but for the few zones that lie in the slots of others. */
START_TEST(fetched_ahead)
{
    struct random random = {.state = walk.seed};
    struct name names[BATCH];
    struct namemap_hint hints[BATCH];
    unsigned chosen = 0, hinted = 0;

    fill(&random, _i == 0);
    for (unsigned i = 0; i < NAMES; i += BATCH) {
        for (unsigned j = 0; j < BATCH; j++) {
            random_query(&random, &names[j]);
            zone_hint(&table, names[j].wire, names[j].len, &hints[j]);
            ck_assert_uint_le(hints[j].count, NAMEMAP_HINTS);
        }
        zone_fetch(&table, hints, BATCH);
        for (unsigned j = 0; j < BATCH; j++) {
            const struct zone *zone = zone_choose(&table, names[j].wire, false);

            check_choice(&names[j], j % 2 == 0);
            if (zone != NULL && *zone->name != 0) {
                chosen++;
                hinted += has_hint(&hints[j], zone);
            }
        }
    }
    ck_assert_uint_gt(chosen, NAMES / 4);
    ck_assert_uint_gt(hinted, chosen / 4 * 3);
    zone_table_fini(&table);
}
END_TEST

static const struct {
    const char *octets;
    uint32_t len;
} broken[] = {
    {"", 0},
    {"\1", 1},
    {"\1a", 2},
    {"\77a", 2},
    {"\300\14", 2},
    {"\300\14\0\0\1\0\1", 7},
    {"\377", 1},
    {"\2a1\300\14", 5},
};

/* Octets of any length in the place of a name; memory is of their length, so that reading beyond it shows. */
static void hint_junk(const void *octets, uint32_t len, struct namemap_hint *ret)
{
    uint8_t *exact = malloc(len > 0 ? len : 1);

    ck_assert_ptr_nonnull(exact);
    memcpy(exact, octets, len);
    memset(ret, 0xff, sizeof(*ret));
    zone_hint(&table, exact + (len > 0 ? 0 : 1), len, ret);
    ck_assert_uint_le(ret->count, NAMEMAP_HINTS);
    for (unsigned i = 0; i < ret->count; i++) {
        ck_assert_uint_le(ret->slots[i], table.names.mask);
    }
    zone_fetch(&table, ret, 1);
    free(exact);
}

START_TEST(hints_of_junk)
{
    struct random random = {.state = walk.seed};
    struct namemap_hint hint;
    struct name name;
    uint8_t octets[JUNK_MOST];

    fill(&random, true);
    for (unsigned i = 0; i < sizeof(broken) / sizeof(*broken); i++) {
        hint_junk(broken[i].octets, broken[i].len, &hint);
        ck_assert_uint_eq(hint.count, 0);
    }
    for (uint32_t len = 0; len <= JUNK_MOST; len++) {
        for (unsigned round = 0; round < 30; round++) { /* of all octets, and of such as labels begin with */
            for (uint32_t i = 0; i < len; i++) {
                octets[i] = (uint8_t)below(&random, round % 3 == 0 ? 256 : round % 3 == 1 ? 64 : 3);
            }
            hint_junk(octets, len, &hint);
        }
        for (uint32_t i = 0; i < len; i++) { /* labels without an end, as many as there is room for */
            octets[i] = 1;
        }
        hint_junk(octets, len, &hint);
        ck_assert_uint_eq(hint.count, 0);
    }
    for (unsigned i = 0; i < NAMES; i++) { /* names that are cut off */
        random_query(&random, &name);
        hint_junk(name.wire, below(&random, name.len), &hint);
        ck_assert_uint_eq(hint.count, 0);
    }
    zone_table_fini(&table);
}
END_TEST

/* A zone of 127 labels, which is all that a name has room for. */
START_TEST(deepest_zone)
{
    char text[NAME_TEXT_MAX] = "";
    struct namemap_hint hint;
    struct name name;

    for (int i = 0; i < 127; i++) {
        memcpy(text + 2 * i, "a.", 3);
    }
    ck_assert(name_from_text(&name, text));
    ck_assert(zone_table_init(&table, 2));
    ck_assert(zone_table_add(&table, text, &servers[0]));
    ck_assert(zone_table_add(&table, text + 2, &servers[1]));
    zone_hint(&table, name.wire, name.len, &hint);
    ck_assert_uint_eq(hint.count, 2);
    zone_fetch(&table, &hint, 1);
    ck_assert_ptr_eq(zone_choose(&table, name.wire, false)->server, &servers[0]);
    ck_assert_ptr_eq(zone_choose(&table, name.wire, true)->server, &servers[1]);
    ck_assert_ptr_eq(zone_choose(&table, name.wire + 2, false)->server, &servers[1]);
    ck_assert_ptr_null(zone_choose(&table, name.wire + 4, false));
    zone_table_fini(&table);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("zone");
    TCase *tcase = tcase_create("zone");

    walk_read(argc, argv);
    tcase_add_loop_test(tcase, choice_among_many_case_93, 0, 2);
    tcase_add_loop_test(tcase, fetched_ahead, 0, 2);
    tcase_add_test(tcase, hints_of_junk);
    tcase_add_test(tcase, deepest_zone);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
