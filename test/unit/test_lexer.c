/* The lexer, by itself: one text, its tokens as TEXT@LINE. */
#include "lexer.h"
#include "suite.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

static const struct {
    const char *text;
    const char *tokens;
} rows[] = {
    {"", ""},
    {"  \t\r\n \n", ""},
    {"a b\nc", "a@1 b@1 c@2"},
    {"\xef\xbb\xbf"
     "a",
     "a@1"}, /* case 1 */
    {"a\xef\xbb\xbf", "a\xef\xbb\xbf@1"},
    {"a\rb \r\nc", "ab@1 c@2"}, /* case 2 */
    {"# x y\na", "a@2"},        /* case 3 */
    {"1.1.1.1#8.8.8.8 9.9.9.9", "1.1.1.1@1 9.9.9.9@1"},
    {"a #b c\nd", "a@1 d@2"},
    {"a#b\rc d", "a@1 d@1"},
    {"\"a b\" c", "a b@1 c@1"}, /* case 4 */
    {"\"a\"b", "a@1 b@1"},
    {"a\"b c\"", "a\"b@1 c\"@1"},
    {"\"a\\\"b\\n\"", "a\"b\\n@1"},
    {"\"a\nb\" c", "a\nb@1 c@2"},
    {"\"\"", "@1"},
    {"\"", ""},
    {"\"a", "a@1"},
    {"\"a\\", "a@1"},
    {"a\xc2\xa0"
     "b\xe3\x80\x80"
     "c\xe2\x80\xa8"
     "d",
     "a@1 b@1 c@1 d@1"}, /* case 5 */
    {"a\xff\xc3", "a\xef\xbf\xbd\xef\xbf\xbd@1"},
};

START_TEST(lexer_case)
{
    struct arena arena = {0};
    struct token_list list = {0};
    char text[512] = "";
    int at = 0;

    ck_assert(lexer_run(&arena, rows[_i].text, strlen(rows[_i].text), NULL, &list));
    for (size_t i = 0; i < list.count; i++) {
        at += snprintf(text + at, sizeof(text) - (size_t)at, "%s%s@%u", i > 0 ? " " : "",
                       list.items[i].text, list.items[i].line);
    }
    ck_assert_str_eq(text, rows[_i].tokens);
    free(list.items);
    arena_free(&arena);
}
END_TEST

START_TEST(nul_is_read_as_replacement)
{
    struct arena arena = {0};
    struct token_list list = {0};

    ck_assert(lexer_run(&arena, "a\0b", 3, NULL, &list));
    ck_assert_uint_eq(list.count, 1);
    ck_assert_str_eq(list.items[0].text, "a\xef\xbf\xbd"
                                         "b");
    free(list.items);
    arena_free(&arena);
}
END_TEST

static const struct {
    const char *text;
    const char *expanded; /* NULL: never ends */
} expand_rows[] = {
    {"none", "none"},           {"{$ONE}", "1"}, /* case 9 */
    {"{%ONE%}x{$ONE}", "1x1"},  {"{$UNSET}", ""},
    {"{$}{$ONE}", "{$}{$ONE}"}, {"{%%}{$ONE}", "{%%}1"},
    {"{$ONE", "{$ONE"},         {"{%REF%}", "1"}, /* the value {$ONE} is expanded, */
    {"{$PERCENT}", "{%ONE%}"},                    /* but not the other way round */
    {"{$SELF}", NULL},          {"{$TWICE}", NULL},
};

START_TEST(expand_case)
{
    struct arena arena = {0};
    bool endless;
    const char *ret;

    ck_assert_int_eq(setenv("ONE", "1", 1), 0);
    ck_assert_int_eq(setenv("REF", "{$ONE}", 1), 0);
    ck_assert_int_eq(setenv("PERCENT", "{%ONE%}", 1), 0);
    ck_assert_int_eq(setenv("SELF", "a{$SELF}", 1), 0);
    ck_assert_int_eq(setenv("TWICE", "{$TWICE}{$TWICE}", 1), 0);
    ck_assert_int_eq(unsetenv("UNSET"), 0);
    ret = environment_expand(&arena, expand_rows[_i].text, &endless);
    ck_assert_int_eq(endless, expand_rows[_i].expanded == NULL);
    if (!endless) {
        ck_assert_str_eq(ret, expand_rows[_i].expanded);
    }
    arena_free(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lexer");
    TCase *tcase = tcase_create("lexer");

    tcase_add_loop_test(tcase, lexer_case, 0, COUNT(rows));
    tcase_add_test(tcase, nul_is_read_as_replacement);
    tcase_add_loop_test(tcase, expand_case, 0, COUNT(expand_rows));
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
