/* Corner cases 1 to 13: the Corefile's grammar. Expectations were taken from CoreDNS 1.14.7. */
#include "cases.h"
#include "suite.h"

#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))
#define HERE(line, text) "@/Corefile:" #line " - Error during parsing: " text

static const struct {
    const char *number;
    const char *corefile;
    const char *expected;
} rows[] = {
    {"case 1", "\xef\xbb\xbf. {\nlog\n}\n", ".{log[log]}"},
    {"case 2", ". {\r\nlo\rg a\r\n}\r\n", ".{log[log a]}"},
    {"case 3", "# x\n. {\nforward . 127.0.0.1#8.8.8.8 9.9.9.9 # 1.1.1.1\n}",
     ".{forward[forward . 127.0.0.1 9.9.9.9]}"},
    {"case 4", "\".\" \"{\"\nlog \"a b\" \"c\"d \"\\\"\\n\"\n\"}\"", ".{log[log a b c d \"\\n]}"},
    {"case 4", ". {\n\"import\" snip\n}", HERE(2, "File to import not found: snip")},
    {"case 4", ". {\nlog \"a", "@/Corefile:2 - Syntax error: Unexpected token 'a', expecting '}'"},
    {"case 5", ".\xc2\xa0{\nlog\xe3\x80\x80x\n}", ".{log[log x]}"},
    {"case 6", ". {\nlog \"a\nb\" c\nerrors\n}", ".{log[log a\nb c] errors[errors]}"},
    {"case 6", ". {\nlog {$NEWLINE} c\nd e\n}", ".{log[log x\ny c] d[d e]}"},
    {"case 6", ". {\nlog {$NEWLINE}\nd e\n}", ".{log[log x\ny d e]}"},
    {"case 6", ". {\nforward . 1.1.1.1 {\nimport @/except\nimport @/except\n}\n}",
     ".{forward[forward . 1.1.1.1 { except b.org except b.org }]}"},
    {"case 7", ". {\nlog {\na\n", HERE(3, "Unexpected EOF")},
    {"case 7", ". {\nlog a\n", "@/Corefile:2 - Syntax error: Unexpected token 'a', expecting '}'"},
    {"case 7", ". { forward . 1.1.1.1 }",
     HERE(1, "Unexpected '}' because no matching opening brace")},
    {"case 7", ". {\nlog\n}\n}\n", ".{log[log]}}{}"},
    {"case 7", ".\n{\nlog\n}\n", ".{log[log]}"},
    {"case 7", ". {\nforward . 1.1.1.1\n{\nexcept a\n}\n}",
     ".{forward[forward . 1.1.1.1 { except a }]}"},
    {"case 8", ". {\nforward a 1.1.1.1\nlog\nforward b 2.2.2.2\n}",
     ".{forward[forward a 1.1.1.1 forward b 2.2.2.2] log[log]}"},
    {"case 9", "{$ONE}.org {%ONE%}.net {$UNSET} {\nlog a{$ONE}b{%ONE%}c {$UNSET} {$}{$ONE}\n}",
     "1.org 1.net{log[log a1b1c  {$}{$ONE}]}"},
    {"case 9", "{%REF%} {\nlog {$PERCENT}\n}", "1{log[log {%ONE%}]}"},
    {"case 9", "{$SELF} {\n}", HERE(1, "environment variables in '{$SELF}' expand without end")},
    {"case 10", ". {\n{$LOG} x\n}", ".{log[{$LOG} x]}"},
    {"case 10", ". {\nlog {$BRACE}\n}", ".{log[log {]}"},
    {"case 10", ". {\n{$IMPORT} snip\n}", ".{import[{$IMPORT} snip]}"},
    {"case 10", "{$IMPORT} @/block\n", "imported.org{log[log]}"},
    {"case 11", ". {\nimport\n}",
     HERE(2, "Wrong argument count or unexpected line ending after 'import'")},
    {"case 11", ". {\nimport a b\n}",
     HERE(2, "Import takes only one argument (glob pattern or file)")},
    {"case 11", ". {\nimport \"\"\n}", HERE(2, "Import requires a non-empty filepath")},
    {"case 11", "(one) {\nlog\n}\n. {\nimport one\n}", ".{log[log]}"}, /* there is a file `one` */
    {"case 11", ". {\nimport one\n}", ".{errors[errors]}"},
    {"case 11", ". {\nimport g?ob\n}", ".{g1[g1]}"},
    {"case 11", ". {\nimport *.glob\n}", ".{g0[g0] gA[gA] ga[ga]}"}, /* .hidden too, by octets */
    {"case 11", ". {\nimport none*\n}", ".{}"},
    {"case 11", ". {\nimport none]\n}", ".{}"},
    {"case 11", ". {\nimport none\n}", HERE(2, "File to import not found: none")},
    {"case 11", ". {\nimport [\n}",
     HERE(2, "Failed to use import pattern [: syntax error in pattern")},
    {"case 11", ". {\nimport [a]\n}",
     HERE(2, "Glob pattern may only contain one wildcard (*), but has others: @/[a]")},
    {"case 11", ". {\nimport a*b*\n}",
     HERE(2, "Glob pattern may only contain one wildcard (*), but has others: @/a*b*")},
    {"case 11", ". {\nimport @\n}", HERE(2, "Could not import @: is a directory")},
    {"case 11", ". {\nimport self\n}",
     "@/self:1 - Error during parsing: maximum file import depth (10000) exceeded: @/self imports "
     "itself"},
    {"case 11", ". {\nimport sel?\n}",
     "@/self:1 - Error during parsing: maximum file import depth (10000) exceeded: @/self imports "
     "itself"},
    {"case 11", ". {\nimport nested\n}", ".{errors[errors] bind[bind x]}"},
    {"case 12", "(s) {\nlog\n}\n(s) {\nerrors\n}",
     HERE(4, "redeclaration of previously declared snippet s")},
    {"case 12", "(s) {\nlog\nimport s\n}",
     HERE(4, "maximum snippet import depth (10000) exceeded")},
    {"case 12", "(a) {\nimport b\n}\n(b) {\nimport a\n}\n. {\nimport a\n}",
     HERE(5, "maximum snippet import depth (10000) exceeded: a imports itself")},
    {"case 12", "({$ONE}) {\nlog\n}\n. {\nimport 1\n}", ".{log[log]}"},
    {"case 12", "() {\nlog\n}", ""},
    {"case 12", "(s)", "(s){}"},
    {"case 12", "(s) {\nlog", "@/Corefile:2 - Syntax error: Unexpected token 'log', expecting '}'"},
    {"case 12", "(s)\nlog", "@/Corefile:2 - Syntax error: Unexpected token 'log', expecting '{'"},
    {"case 13", ". {\nlog }\n}", HERE(2, "Unexpected '}' because no matching opening brace")},
    {"case 13", "a, {\n}", HERE(1, "Expected another address but had '{' - check for extra comma")},
    {"case 13", "a,", HERE(1, "Unexpected EOF")},
    {"case 13", "a,\nb c {\n}", "a b c{}"},
    {"case 13", "a b\nlog x\nerrors", "a b{log[log x] errors[errors]}"},
    {"case 13", ". {\nimport broken\n}", ".{log[log { a }]}"},
    {"case 14", "a..b: {\n}", "a..b:!expecting data after last colon: \"a..b:\"{}"},
    {"case 14", "a..b {\n}", "a..b!zone is not a valid domain name: a..b{}"},
};

static void files_make(void)
{
    cases_open();
    cases_file("except", "except b.org\n");
    cases_file("block", "imported.org {\nlog\n}\n");
    cases_file("one", "errors\n");
    cases_file("glob", "g1\n");
    cases_file("g.glob", "ga\n");
    cases_file("G.glob", "gA\n");
    cases_file(".glob", "g0\n");
    cases_file("self", "import sel*\n");
    cases_file("nested", "import one\nbind x\n");
    cases_file("broken", "log {\na\n");
    ck_assert_int_eq(setenv("ONE", "1", 1), 0);
    ck_assert_int_eq(setenv("REF", "{$ONE}", 1), 0);
    ck_assert_int_eq(setenv("PERCENT", "{%ONE%}", 1), 0);
    ck_assert_int_eq(setenv("SELF", "a{$SELF}", 1), 0);
    ck_assert_int_eq(setenv("NEWLINE", "x\ny", 1), 0);
    ck_assert_int_eq(setenv("BRACE", "{", 1), 0);
    ck_assert_int_eq(setenv("LOG", "log", 1), 0);
    ck_assert_int_eq(setenv("IMPORT", "import", 1), 0);
    ck_assert_int_eq(unsetenv("UNSET"), 0);
}

START_TEST(corefile_case)
{
    char *got = cases_corefile(rows[_i].corefile);
    char *expected = cases_text(rows[_i].expected);

    ck_assert_msg(strcmp(got, expected) == 0, "%s: %s\n got      %s\n expected %s", rows[_i].number,
                  rows[_i].corefile, got, expected);
    free(got);
    free(expected);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("corefile cases");
    TCase *tcase = tcase_create("corefile");

    tcase_add_checked_fixture(tcase, files_make, cases_close);
    tcase_add_loop_test(tcase, corefile_case, 0, COUNT(rows));
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
