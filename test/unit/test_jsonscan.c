/* JSON read without a tree, and the resolver's server blocks read so: every prefix of a document and every change of one octet is read to
 * its end. Texts lie in memory of their length, so that reading or writing beyond it shows. */
#include "../../examples/resolver/block.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

/* A text to scan, which is to be freed. */
static char *scan_init(struct jsonscan *scan, const char *text, size_t len)
{
    char *exact = malloc(len > 0 ? len : 1);

    ck_assert_ptr_nonnull(exact);
    memcpy(exact, text, len);
    *scan = (struct jsonscan){.at = exact, .end = exact + len};
    return exact;
}

/* Strings, and what each stands for; NULL: it is none. */
static const struct {
    const char *text;
    const char *string;
} strings[] = {
    {"\"\"", ""},
    {" \t\r\n\"a b\" ", "a b"},
    {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
    {"\"\\u0001\\u007F\"", "\x01\x7f"},
    {"\"\\u00e9\\u20ac\\ud83d\\ude00x\"", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80x"},
    {"\"\xc3\xa9\"", "\xc3\xa9"},
    {"", NULL},
    {"1", NULL},
    {"\"", NULL},
    {"\"a", NULL},
    {"\"a\\\"", NULL},
    {"\"\\", NULL},
    {"\"\\x\"", NULL},
    {"\"\\u12\"", NULL},
    {"\"\\u00g0\"", NULL},
    {"\"\\u0000\"", NULL},
    {"\"\\ud83d\"", NULL},
    {"\"\\ud83d\\n1234\"", NULL},
    {"\"\\ud83d\\u0041\"", NULL},
    {"\"\\ude00\"", NULL},
    {"\"a\nb\"", NULL},
    {"\"a\" b", NULL},
};

START_TEST(string_case)
{
    struct jsonscan scan;
    char *text = scan_init(&scan, strings[_i].text, strlen(strings[_i].text));
    size_t len;
    const char *string = jsonscan_string(&scan, &len);

    ck_assert_int_eq(jsonscan_end(&scan), strings[_i].string != NULL);
    if (strings[_i].string != NULL) {
        ck_assert_str_eq(string, strings[_i].string);
        ck_assert_uint_eq(len, strlen(string));
    }
    free(text);
}
END_TEST

static const struct {
    const char *text;
    int64_t number; /* -1: it is none */
} numbers[] = {{"0", 0}, {" 4294967295 ", 4294967295}, {"4294967296", -1}, {"99999999999999999999999", -1}, {"-1", -1}, {"1.5", -1}, {"", -1}, {"x", -1}};

START_TEST(number_case)
{
    struct jsonscan scan;
    char *text = scan_init(&scan, numbers[_i].text, strlen(numbers[_i].text));
    uint32_t number = jsonscan_number(&scan);

    ck_assert_int_eq(jsonscan_end(&scan), numbers[_i].number >= 0);
    if (numbers[_i].number >= 0) {
        ck_assert_uint_eq(number, numbers[_i].number);
    }
    free(text);
}
END_TEST

/* Arrays, and how many values they have; -1: it is none. */
static const struct {
    const char *text;
    int count;
} arrays[] = {
    {"[]", 0},    {" [ \n] \t", 0},          {"[1]", 1},  {"[ 1 , \"a\" ,null,[2,[3]], {\"b\":4} ]", 5}, {"[\"]\",[\"[\"],[\"\\\"]\"],\"\\\\\"]", 4},
    {"", -1},     {"1", -1},                 {"]", -1},   {"[", -1},                                     {"[1", -1},
    {"[1]]", -1}, {"[,1]", -1},              {"[1,]", -1}, {"[1 2]", -1},                                {"[\"a\\\"]", -1},
    {"[[]", -1},  {"[{\"a\":\"]}\"}", -1},   {"[\"\\", -1},
};

START_TEST(array_case)
{
    struct jsonscan scan;
    char *text = scan_init(&scan, arrays[_i].text, strlen(arrays[_i].text));
    int count = 0;

    for (bool more = jsonscan_enter(&scan, '['); more; more = jsonscan_next(&scan)) {
        jsonscan_skip(&scan);
        count++;
    }
    ck_assert_int_eq(jsonscan_end(&scan), arrays[_i].count >= 0);
    if (arrays[_i].count >= 0) {
        ck_assert_int_eq(count, arrays[_i].count);
    }
    free(text);
}
END_TEST

/* An array of blocks as text: for each its zones, then its directives with their tokens as TEXT@LINE. */
static bool blocks_print(const char *json, size_t len, char out[1024])
{
    struct jsonscan scan;
    char *text = scan_init(&scan, json, len);
    struct block block = {0};
    int at = 0;
    *out = '\0';

    for (bool more = jsonscan_enter(&scan, '['); more && block_read(&block, &scan); more = jsonscan_next(&scan)) {
        at += snprintf(out + at, 1024 - (size_t)at, "%zu:", block.key_count);
        for (size_t z = 0; z < block.zone_count; z++) {
            const struct block_zone *zone = &block.zones[z];
            at += zone->reason != NULL ? snprintf(out + at, 1024 - (size_t)at, " !%s", zone->reason)
                                       : snprintf(out + at, 1024 - (size_t)at, " %s %s %s", zone->transport, zone->zone, zone->port);
        }
        for (size_t d = 0; d < block.directive_count; d++) {
            struct tokens tokens;
            ck_assert(block_directive(&block, block.directives[d].name, &tokens));
            at += snprintf(out + at, 1024 - (size_t)at, " (%s", block.directives[d].name);
            for (size_t t = 0; t < tokens.count; t++) {
                ck_assert_uint_eq(tokens.items[t].text_len, strlen(tokens.items[t].text));
                at += snprintf(out + at, 1024 - (size_t)at, " %s@%s:%u", tokens.items[t].text, tokens.items[t].file, tokens.items[t].line);
            }
            at += snprintf(out + at, 1024 - (size_t)at, ")");
        }
        at += snprintf(out + at, 1024 - (size_t)at, ";");
    }
    bool whole = jsonscan_end(&scan);
    block_fini(&block);
    free(text);
    return whole;
}

#define DOCUMENT \
    "[{\"keys\":[[\"f\\\"\",1,\"a b\",[\"a.\",\"53\",\"dns\"],[\"b.\",\"\",\"tls\"]],[\"f\",1,\"(\",\"no zone\"]]," \
    "\"directives\":[[\"forward\",[\"f\",2,\"forward\",\".\",\"{\"],[\"g\",3,\"\"]],[\"log\",[\"f\",4,\"log\"]]]},{\"other\":[1,{}],\"keys\":[],\"directives\":[]},{}]"

static const struct {
    const char *json;
    const char *blocks; /* NULL: it is broken */
} documents[] = {
    {DOCUMENT, "2: dns a. 53 tls b.  !no zone (forward forward@f:2 .@f:2 {@f:2 @g:3) (log log@f:4);0:;0:;"},
    {"[[]]", NULL},
    {"[{\"keys\":[[1,2,3,[]]]}]", NULL},
    {"[{\"keys\":[[1,2,3,[\"a.\",\"53\"]]]}]", NULL},
    {"[{\"keys\":[[1,2,3,[\"a.\",\"53\",\"dns\",\"x\"]]]}]", NULL},
    {"[{\"keys\":1}]", NULL},
    {"[{\"keys\"}]", NULL},
    {"[{\"directives\":[[\"log\"]]}]", NULL},
    {"[{\"directives\":[[\"log\",[\"f\",1]]]}]", NULL},
    {"[{\"directives\":[[\"log\",[\"f\",-1,\"log\"]]]}]", NULL},
    {"[{\"directives\":[[\"log\",[\"f\",1,2]]]}]", NULL},
    {"[{\"directives\":[[]]}]", NULL},
};

START_TEST(document_case)
{
    char out[1024];

    ck_assert_int_eq(blocks_print(documents[_i].json, strlen(documents[_i].json), out), documents[_i].blocks != NULL);
    if (documents[_i].blocks != NULL) {
        ck_assert_str_eq(out, documents[_i].blocks);
    }
}
END_TEST

/* No prefix passes for the whole. */
START_TEST(document_prefix)
{
    char out[1024];

    for (size_t len = 0; len < strlen(DOCUMENT); len++) {
        ck_assert(!blocks_print(DOCUMENT, len, out));
    }
}
END_TEST

/* Whatever octet is another: no more blocks are read than were counted, as the daemon makes room for these. */
START_TEST(document_changed)
{
    char json[] = DOCUMENT;

    for (size_t i = 0; i < strlen(DOCUMENT); i++) {
        for (int c = 0; c < 256; c++) {
            struct jsonscan scan;
            struct block block = {0};
            size_t count = 0;
            size_t read = 0;

            json[i] = (char)c;
            char *text = scan_init(&scan, json, strlen(DOCUMENT));
            for (bool more = jsonscan_enter(&scan, '['); more; more = jsonscan_next(&scan)) {
                jsonscan_skip(&scan);
                count++;
            }
            scan = (struct jsonscan){.at = text, .end = scan.end};
            for (bool more = jsonscan_enter(&scan, '['); more && block_read(&block, &scan); more = jsonscan_next(&scan)) {
                read++;
            }
            ck_assert_uint_le(read, count);
            block_fini(&block);
            free(text);
        }
        json[i] = DOCUMENT[i];
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jsonscan");
    TCase *tcase = tcase_create("jsonscan");

    tcase_add_loop_test(tcase, string_case, 0, COUNT(strings));
    tcase_add_loop_test(tcase, number_case, 0, COUNT(numbers));
    tcase_add_loop_test(tcase, array_case, 0, COUNT(arrays));
    tcase_add_loop_test(tcase, document_case, 0, COUNT(documents));
    tcase_add_test(tcase, document_prefix);
    tcase_add_test(tcase, document_changed);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
