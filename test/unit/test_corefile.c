/* The JSON of a Corefile, beyond what the corner cases say. */
#include "corefile_tree.h"
#include "lexer.h"
#include "suite.h"

#include <stdio.h>
#include <string.h>

static char message[512];
static char file[256];
static struct fwd_error error = {
    .struct_size = sizeof(error),
    .msg = message,
    .msg_cap = sizeof(message),
    .file = file,
    .file_cap = sizeof(file),
};

static json_t *parse(const char *text)
{
    int status;
    json_t *json = corefile_tree(text, strlen(text), "Corefile", &status, &error);

    if (status != FWD_OK) {
        json_decref(json);
        json = NULL;
    }
    return json;
}

/* Single quotes stand for double ones. */
static const char whole[] =
    "{'blocks':[{'keys':["
    "['Corefile',1,'tls://A.org:853',['a.org.','853','tls']],"
    "['Corefile',1,'10.0.0.0/15',['0.10.in-addr.arpa.','','dns'],['1.10.in-addr.arpa.','','dns']],"
    "['Corefile',1,'a..b','zone is not a valid domain name: a..b']],"
    "'directives':[['log',['Corefile',2,'log','x'],['Corefile',4,'log']],"
    "['errors',['Corefile',3,'errors']]]}],"
    "'warnings':['No files matching import glob pattern: nonesuch*']}";

START_TEST(whole_document)
{
    char text[sizeof(whole)];
    json_t *expected;
    json_t *json;

    memcpy(text, whole, sizeof(whole));
    for (char *at = text; (at = strchr(at, '\'')) != NULL;) {
        *at = '"';
    }
    expected = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(expected);
    json = parse("tls://A.org:853 10.0.0.0/15 a..b {\nlog x\nerrors\nlog\nimport nonesuch*\n}\n");
    ck_assert(json_equal(json, expected));
    json_decref(json);
    json_decref(expected);
}
END_TEST

START_TEST(empty_ones)
{
    const char *const texts[] = {"", " \n", "# only a comment", "\xef\xbb\xbf", "\"\""};

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        json_t *json = parse(texts[i]);

        ck_assert_ptr_nonnull(json);
        ck_assert_uint_eq(json_array_size(json_object_get(json, "blocks")), 0);
        json_decref(json);
    }
}
END_TEST

START_TEST(error_has_its_place)
{
    ck_assert_ptr_null(parse("a {\nlog\n\nerrors }\n}"));
    ck_assert_int_eq(error.code, FWD_ERR_SYNTAX);
    ck_assert_uint_eq(error.line, 4);
    ck_assert_str_eq(file, "Corefile");
    ck_assert_str_eq(message, "Corefile:4 - Error during parsing: Unexpected '}' because no "
                              "matching opening brace");
}
END_TEST

/* case 8: what stands before an error is there for the host to look at, a block without keys too. */
START_TEST(beginning_comes_with_an_error)
{
    static const char text[] = "{\nlog\n}\na {\nfoo x\nerrors }\n}";
    int status;
    json_t *json = corefile_tree(text, strlen(text), "Corefile", &status, &error);
    json_t *blocks;

    ck_assert_int_eq(status, FWD_ERR_SYNTAX);
    blocks = json_object_get(json, "blocks");
    ck_assert_uint_eq(json_array_size(blocks), 2);
    ck_assert_uint_eq(json_array_size(json_object_get(json_array_get(blocks, 0), "keys")), 0);
    ck_assert_uint_eq(json_array_size(json_object_get(json_array_get(blocks, 0), "directives")), 1);
    ck_assert_uint_eq(json_array_size(json_object_get(json_array_get(blocks, 1), "directives")), 2);
    json_decref(json);
}
END_TEST

START_TEST(environment_that_is_no_utf8)
{
    json_t *json;

    ck_assert_int_eq(setenv("RAW",
                            "\xff"
                            "a",
                            1),
                     0);
    json = parse("{$RAW} {\n{$RAW} {$RAW}\n}");
    ck_assert_ptr_nonnull(json);
    json_decref(json);
}
END_TEST

/* What JSON must escape, and a line that an import has twice: its tokens stand one after the other. */
START_TEST(odd_texts)
{
    json_t *json = parse("(s) {\nlog \"a\\\"b\\\\c\n\td\x01\"\n}\n. {\nimport s\nimport s\n}");
    json_t *expected = json_loads("[\"log\", [\"Corefile\", 2, \"log\", \"a\\\"b\\\\\\\\c\\n\\td\\u0001\", \"log\", "
                                  "\"a\\\"b\\\\\\\\c\\n\\td\\u0001\"]]",
                                  0, NULL);
    const json_t *block = json_array_get(json_object_get(json, "blocks"), 0);

    ck_assert_ptr_nonnull(expected);
    ck_assert(json_equal(json_array_get(json_object_get(block, "directives"), 0), expected));
    json_decref(expected);
    json_decref(json);
}
END_TEST

/* Snippets that double each other: 2^n tokens stop at a limit, in bounded time and memory. */
START_TEST(expansion_is_bounded)
{
    char *text;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    ck_assert_ptr_nonnull(out);
    corefile_tokens_max = 50000;
    (void)fprintf(out, "(s0) {\n");
    for (int i = 0; i < 2000; i++) {
        (void)fprintf(out, "log\n");
    }
    (void)fprintf(out, "}\n");
    for (int i = 1; i < 20; i++) {
        (void)fprintf(out, "(s%d) {\nimport s%d\nimport s%d\n}\n", i, i - 1, i - 1);
    }
    (void)fprintf(out, ". {\nimport s19\n}\n");
    (void)fclose(out);
    ck_assert_ptr_null(parse(text));
    ck_assert_int_eq(error.code, FWD_ERR_SYNTAX);
    ck_assert_ptr_nonnull(strstr(message, "after imports"));
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("corefile");
    TCase *tcase = tcase_create("corefile");

    tcase_add_test(tcase, whole_document);
    tcase_add_test(tcase, empty_ones);
    tcase_add_test(tcase, error_has_its_place);
    tcase_add_test(tcase, beginning_comes_with_an_error);
    tcase_add_test(tcase, environment_that_is_no_utf8);
    tcase_add_test(tcase, odd_texts);
    tcase_add_test(tcase, expansion_is_bounded);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
