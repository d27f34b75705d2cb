/* Domain names and zones. */
#include "name.h"
#include "suite.h"
#include "zone.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

static const struct {
    const char *text;
    const char *wire; /* NULL: no name */
    size_t len;
} wire_rows[] = {
    {".", "", 1},
    {"A.Org", "\1a\3org", 7},
    {"a.org.", "\1a\3org", 7},
    {"a\\.b.", "\3a.b", 5},
    {"\\097.", "\1a", 3},
    {"\\065.", "\1a", 3}, /* 'A' */
    {"\\000.", "\1\0", 3},
    {"a\\\\.", "\2a\\", 4},
    {"*.b_c", "\1*\3b_c", 7},
    {"\xc3\xa9", "\2\xc3\xa9", 4},
    {"", NULL, 0},
    {"..", NULL, 0},
    {".a", NULL, 0},
    {"a..b", NULL, 0},
    {"a\\", NULL, 0},
};

START_TEST(wire_case)
{
    uint8_t wire[NAME_WIRE_MAX];
    size_t len = 0;
    int status = name_to_wire(wire_rows[_i].text, wire, &len);

    ck_assert_int_eq(status, wire_rows[_i].wire != NULL ? 0 : -1);
    if (status == 0) {
        ck_assert_uint_eq(len, wire_rows[_i].len);
        ck_assert_mem_eq(wire, wire_rows[_i].wire, len);
    }
}
END_TEST

START_TEST(lengths)
{
    char text[300];

    memset(text, 'a', sizeof(text));
    text[63] = '\0';
    ck_assert(name_valid(text));
    text[63] = 'a';
    text[64] = '\0';
    ck_assert(!name_valid(text));
    for (size_t i = 1; i < sizeof(text); i += 2) { /* one-letter labels: two octets each */
        text[i - 1] = 'a';
        text[i] = '.';
    }
    text[254] = '\0';
    ck_assert(name_valid(text)); /* 127 labels and the root are 255 octets */
    text[253] = '\0';
    ck_assert(name_valid(text));
    text[253] = '.';
    text[254] = 'a';
    text[255] = '\0';
    ck_assert(!name_valid(text));
}
END_TEST

START_TEST(normalized)
{
    char buf[32];

    name_normalize("A.Org", buf);
    ck_assert_str_eq(buf, "a.org.");
    name_normalize(".", buf);
    ck_assert_str_eq(buf, ".");
    name_normalize("a\\.", buf); /* the dot is escaped */
    ck_assert_str_eq(buf, "a\\..");
    name_normalize("a\\\\.", buf);
    ck_assert_str_eq(buf, "a\\\\.");
}
END_TEST

static const struct {
    const char *key;
    const char *zones; /* "TRANSPORT PORT ZONE..." */
    const char *error;
} zone_rows[] = {
    {".", "dns  .", NULL},
    {"A.org:1053", "dns 1053 a.org.", NULL},
    {"tls://a.org", "tls  a.org.", NULL},
    {"https3://a:1", "https3 1 a.", NULL},
    {"foo://a", "dns  foo://a.", NULL},
    {"a:-1", "dns -1 a.", NULL}, /* case 14 */
    {"a:+1", "dns 1 a.", NULL},
    {"a:007", "dns 7 a.", NULL},
    {"10.0.0.0/8", "dns  10.in-addr.arpa.", NULL},
    {"10.9.3.0/23:53", "dns 53 2.9.10.in-addr.arpa. 3.9.10.in-addr.arpa.", NULL},
    {"10.0.0.0/15", "dns  0.10.in-addr.arpa. 1.10.in-addr.arpa.", NULL},
    {"255.0.0.0/7", "dns  254.in-addr.arpa. 255.in-addr.arpa.", NULL},
    {"10.1.2.3/32", "dns  3.2.1.10.in-addr.arpa.", NULL},
    {"10.0.0.0/0", "dns  in-addr.arpa.", NULL},
    {"10.0.0.0/08", "dns  10.in-addr.arpa.", NULL},
    {"10.1.2.3/33", "dns  10.1.2.3/33.", NULL},
    {"2001:db8::/31", "dns  8.b.d.0.1.0.0.2.ip6.arpa. 9.b.d.0.1.0.0.2.ip6.arpa.", NULL},
    {"e000::/3", "dns  e.ip6.arpa. f.ip6.arpa.", NULL},
    {"2000::/0", "dns  ip6.arpa.", NULL},
    {"::/0", NULL, "invalid CIDR ::/0"},
    {"0::/8", NULL, "invalid CIDR 0::/8"},
    {"", NULL, "expecting data after last colon: \"\""},
    {"a:", NULL, "expecting data after last colon: \"a:\""},
    {":53", NULL, "zone is not a valid domain name: "},
    {"a..b", NULL, "zone is not a valid domain name: a..b"},
};

START_TEST(zone_case)
{
    struct arena arena = {0};
    struct zone_list zones;
    char reason[GOTEXT_REASON] = "";
    char text[512];
    int status = zone_parse_key(&arena, zone_rows[_i].key, &zones, reason);

    ck_assert_int_eq(status, zone_rows[_i].error != NULL ? -1 : 0);
    if (status != 0) {
        ck_assert_str_eq(reason, zone_rows[_i].error);
    } else {
        int at = snprintf(text, sizeof(text), "%s %s", zones.transport, zones.port);

        for (size_t i = 0; i < zones.count; i++) {
            at += snprintf(text + at, sizeof(text) - (size_t)at, " %s", zones.names[i]);
        }
        ck_assert_str_eq(text, zone_rows[_i].zones);
    }
    arena_free(&arena);
}
END_TEST

START_TEST(most_zones)
{
    struct arena arena = {0};
    struct zone_list zones;
    char reason[GOTEXT_REASON];

    ck_assert_int_eq(zone_parse(&arena, "128.0.0.0/1", &zones, reason), 0);
    ck_assert_uint_eq(zones.count, ZONES_MAX);
    ck_assert_str_eq(zones.names[0], "128.in-addr.arpa.");
    ck_assert_str_eq(zones.names[127], "255.in-addr.arpa.");
    arena_free(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("name");
    TCase *tcase = tcase_create("name");

    tcase_add_loop_test(tcase, wire_case, 0, COUNT(wire_rows));
    tcase_add_test(tcase, lengths);
    tcase_add_test(tcase, normalized);
    tcase_add_loop_test(tcase, zone_case, 0, COUNT(zone_rows));
    tcase_add_test(tcase, most_zones);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
