/* Numbers, durations and quoting against what Go 1.26 gives for the same texts. */
#include "gotext.h"
#include "suite.h"

#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

static const struct {
    const char *text;
    int64_t value;
    const char *error;
} atoi_rows[] = {
    {"0", 0, NULL},
    {"+5", 5, NULL}, /* case 31 */
    {"-0", 0, NULL},
    {"-4", -4, NULL},
    {"007", 7, NULL},
    {"9223372036854775807", INT64_MAX, NULL},
    {"-9223372036854775808", INT64_MIN, NULL},
    {"9223372036854775808", 0, "strconv.Atoi: parsing \"9223372036854775808\": value out of range"},
    {"9223372036854775808x", 0, "strconv.Atoi: parsing \"9223372036854775808x\": invalid syntax"},
    {"99999999999999999999x", 0,
     "strconv.Atoi: parsing \"99999999999999999999x\": value out of range"},
    {"", 0, "strconv.Atoi: parsing \"\": invalid syntax"},
    {"+", 0, "strconv.Atoi: parsing \"+\": invalid syntax"},
    {"0x10", 0, "strconv.Atoi: parsing \"0x10\": invalid syntax"},
    {"1_0", 0, "strconv.Atoi: parsing \"1_0\": invalid syntax"},
    {"1\n\"", 0, "strconv.Atoi: parsing \"1\\n\\\"\": invalid syntax"},
};

START_TEST(atoi_case)
{
    char reason[GOTEXT_REASON] = "";
    int64_t value = 0;
    int status = gotext_atoi(atoi_rows[_i].text, &value, reason);

    ck_assert_int_eq(status, atoi_rows[_i].error != NULL ? -1 : 0);
    ck_assert_int_eq(value, atoi_rows[_i].value);
    ck_assert_str_eq(reason, atoi_rows[_i].error != NULL ? atoi_rows[_i].error : "");
}
END_TEST

static const struct {
    const char *text;
    uint32_t value;
    const char *error;
} uint_rows[] = {
    {"0", 0, NULL},
    {"4294967295", UINT32_MAX, NULL},
    {"4294967296", 0, "strconv.ParseUint: parsing \"4294967296\": value out of range"},
    {"4294967296x", 0, "strconv.ParseUint: parsing \"4294967296x\": value out of range"},
    {"-4", 0, "strconv.ParseUint: parsing \"-4\": invalid syntax"}, /* case 31 */
    {"+1", 0, "strconv.ParseUint: parsing \"+1\": invalid syntax"},
    {"-0", 0, "strconv.ParseUint: parsing \"-0\": invalid syntax"},
    {"", 0, "strconv.ParseUint: parsing \"\": invalid syntax"},
};

START_TEST(uint_case)
{
    char reason[GOTEXT_REASON] = "";
    uint32_t value = 0;
    int status = gotext_uint32(uint_rows[_i].text, &value, reason);

    ck_assert_int_eq(status, uint_rows[_i].error != NULL ? -1 : 0);
    ck_assert_uint_eq(value, uint_rows[_i].value);
    ck_assert_str_eq(reason, uint_rows[_i].error != NULL ? uint_rows[_i].error : "");
}
END_TEST

/* Text, what it prints as, or the error. */
static const struct {
    const char *text;
    const char *printed;
    const char *error;
} duration_rows[] = {
    {"0", "0s", NULL},
    {"-0", "0s", NULL},
    {"+0", "0s", NULL},
    {"10s", "10s", NULL},
    {"500ms", "500ms", NULL},
    {"90s", "1m30s", NULL},
    {"1h2m3s", "1h2m3s", NULL},
    {"3s2m1h", "1h2m3s", NULL},
    {".5s", "500ms", NULL},
    {"1.s", "1s", NULL},
    {"1.5h", "1h30m0s", NULL},
    {"1\xc2\xb5s", "1\xc2\xb5s", NULL},
    {"1\xce\xbcs", "1\xc2\xb5s", NULL},
    {"1us", "1\xc2\xb5s", NULL},
    {"1500ns", "1.5\xc2\xb5s", NULL},
    {"-1.5s", "-1.5s", NULL},
    {"1.0000000001s", "1s", NULL},
    {"9223372036854775807ns", "2562047h47m16.854775807s", NULL},
    {"-9223372036854775808ns", "-2562047h47m16.854775808s", NULL},
    {"0.00000000000000000000000001h", "0s", NULL},
    {"9223372036854775808ns", NULL, "time: invalid duration \"9223372036854775808ns\""},
    {"2562048h", NULL, "time: invalid duration \"2562048h\""},
    {"", NULL, "time: invalid duration \"\""},
    {"-", NULL, "time: invalid duration \"-\""},
    {"x", NULL, "time: invalid duration \"x\""},
    {".s", NULL, "time: invalid duration \".s\""},
    {"10", NULL, "time: missing unit in duration \"10\""},
    {"1h1", NULL, "time: missing unit in duration \"1h1\""},
    {"1d", NULL, "time: unknown unit \"d\" in duration \"1d\""},
    {"1 s", NULL, "time: unknown unit \" s\" in duration \"1 s\""},
    {"1\xc3\xa9", NULL, "time: unknown unit \"\\xc3\\xa9\" in duration \"1\\xc3\\xa9\""},
    {"1\"", NULL, "time: unknown unit \"\\\"\" in duration \"1\\\"\""},
};

START_TEST(duration_case)
{
    char reason[GOTEXT_REASON] = "";
    char printed[GOTEXT_DURATION];
    int64_t ns = 0;
    int status = gotext_duration(duration_rows[_i].text, &ns, reason);

    ck_assert_int_eq(status, duration_rows[_i].error != NULL ? -1 : 0);
    if (status != 0) {
        ck_assert_str_eq(reason, duration_rows[_i].error);
        return;
    }
    gotext_duration_print(ns, printed);
    ck_assert_str_eq(printed, duration_rows[_i].printed);
}
END_TEST

static const struct {
    const char *text;
    const char *quoted;
} quote_rows[] = {
    {"", "\"\""},
    {"a b", "\"a b\""},
    {"a\"\\", "\"a\\\"\\\\\""},
    {"\a\b\f\n\r\t\v", "\"\\a\\b\\f\\n\\r\\t\\v\""},
    {"\x01\x7f", "\"\\x01\\x7f\""},
    {"\xc3\xa9", "\"\xc3\xa9\""},
    {"\xff", "\"\\xff\""},
    {"\xc2\xa0", "\"\\u00a0\""},
    {"\xf3\xa0\x80\x81", "\"\\U000e0001\""},
    {"\xed\xa0\x80", "\"\\xed\\xa0\\x80\""},
};

START_TEST(quote_case)
{
    char buf[64];

    ck_assert_str_eq(gotext_quote(quote_rows[_i].text, buf, sizeof(buf)), quote_rows[_i].quoted);
}
END_TEST

START_TEST(long_texts_are_cut)
{
    char text[5000];
    char buf[16];
    char reason[GOTEXT_REASON];
    int64_t value;

    memset(text, '\n', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    ck_assert_str_eq(gotext_quote(text, buf, sizeof(buf)), "\"\\n\\n\\n\\n\\n\\n\"");
    ck_assert_int_eq(gotext_atoi(text, &value, reason), -1);
    ck_assert_uint_lt(strlen(reason), sizeof(reason));
    ck_assert_int_eq(gotext_duration(text, &value, reason), -1);
    text[0] = '1';
    ck_assert_int_eq(gotext_duration(text, &value, reason), -1);
    ck_assert_uint_lt(strlen(reason), sizeof(reason));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gotext");
    TCase *tcase = tcase_create("gotext");

    tcase_add_loop_test(tcase, atoi_case, 0, COUNT(atoi_rows));
    tcase_add_loop_test(tcase, uint_case, 0, COUNT(uint_rows));
    tcase_add_loop_test(tcase, duration_case, 0, COUNT(duration_rows));
    tcase_add_loop_test(tcase, quote_case, 0, COUNT(quote_rows));
    tcase_add_test(tcase, long_texts_are_cut);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
