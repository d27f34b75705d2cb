/* Forward directives as text and as tokens of hosts, and the option table against the parser. */
#include "config.h"
#include "options.h"
#include "stanza.h"
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

static json_t *parse_text(const char *text)
{
    struct fwd_directive directive = FWD_INIT(struct fwd_directive);
    json_t *json = NULL;

    directive.text = text;
    directive.text_len = strlen(text);
    directive.file = "Corefile";
    (void)stanza_parse(&directive, &json, &error);
    return json;
}

START_TEST(text)
{
    json_t *json;

    ck_assert_int_eq(setenv("UPSTREAM", "127.0.0.1", 1), 0);
    json = parse_text("forward . {$UPSTREAM} {\n expire 5s\n}\nforward b 127.0.0.2\n");
    ck_assert_ptr_nonnull(json);
    ck_assert_uint_eq(json_array_size(json_object_get(json, "forward")), 2);
    ck_assert_ptr_null(json_object_get(json, "io_threads"));
    ck_assert_ptr_null(json_object_get(json, "warnings"));
    json_decref(json);
}
END_TEST

START_TEST(text_errors)
{
    ck_assert_ptr_null(parse_text("forward . 127.0.0.1 {\nexpire 5\n}"));
    ck_assert_int_eq(error.code, FWD_ERR_CONFIG);
    ck_assert_uint_eq(error.line, 2); /* although the text has no position */
    ck_assert_str_eq(file, "Corefile");
    ck_assert_str_eq(message, "plugin/forward: time: missing unit in duration \"5\"");
    ck_assert_ptr_null(parse_text("forward . 127.0.0.1 {\npadding 4097\n}"));
    ck_assert_str_eq(message, "plugin/forward: padding must not be more than 4096: 4097");
    ck_assert_ptr_null(parse_text("forward . 127.0.0.1 {\nmax_age_jitter 101\n}"));
    ck_assert_str_eq(message, "plugin/forward: max_age_jitter is a percentage: 101");
    ck_assert_ptr_null(parse_text("log"));
    ck_assert_int_eq(error.code, FWD_ERR_SYNTAX);
    ck_assert_str_eq(message, "Corefile:1 - Error during parsing: Unknown directive 'log'");
    ck_assert_ptr_null(parse_text(""));
    ck_assert_ptr_null(parse_text("forward . 127.0.0.1 {\nexpire 5s"));
    ck_assert_ptr_null(parse_text("forward . 127.0.0.1 {"));
}
END_TEST

/* A host of a newer minor has larger tokens. */
START_TEST(tokens_of_another_size)
{
    struct {
        struct fwd_token token;
        uint64_t later;
    } tokens[3] = {0};
    const char *const texts[] = {"forward", ".xxx", "127.0.0.1"};
    struct fwd_directive directive = FWD_INIT(struct fwd_directive);
    json_t *json = NULL;

    for (size_t i = 0; i < 3; i++) {
        tokens[i].token.struct_size = sizeof(tokens[i]);
        tokens[i].token.text = texts[i];
        tokens[i].token.text_len = i == 1 ? 1 : (uint32_t)strlen(texts[i]);
        tokens[i].token.file = "f";
        tokens[i].token.line = 1;
        tokens[i].later = UINT64_MAX;
    }
    directive.tokens = &tokens[0].token;
    directive.token_count = 3;
    ck_assert_int_eq(stanza_parse(&directive, &json, &error), FWD_OK);
    json_decref(json);
    tokens[2].token.struct_size = 8;
    ck_assert_int_eq(stanza_parse(&directive, &json, &error), FWD_ERR_ARG);
    directive.struct_size = 8;
    ck_assert_int_eq(stanza_parse(&directive, &json, &error), FWD_ERR_ARG);
}
END_TEST

/* CoreDNS warns of a FROM as soon as it has read it, whatever it finds further down. */
START_TEST(warnings_before_an_error)
{
    static const char *const rows[] = {
        "forward 10.0.0.0/15 127.0.0.1 {\nexpire 5\n}",
        "forward 10.0.0.0/15 127.0.0.1 {\nexpire 5s",
        "forward 10.0.0.0/15 127.0.0.1 {\nmax_age 1s\n}",
        "forward 10.0.0.0/15 127.0.0.1\nforward . 127.0.0.1:x:y",
    };
    static const char warning[] = "Unsupported CIDR notation: '10.0.0.0/15' expands to multiple "
                                  "zones. Using only '0.10.in-addr.arpa.'.";

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        error.code = FWD_OK;
        json_t *json = parse_text(rows[i]);
        ck_assert_int_lt(error.code, FWD_OK);
        ck_assert_uint_eq(json_object_size(json), 1);
        json_t *warnings = json_object_get(json, "warnings");
        ck_assert_uint_eq(json_array_size(warnings), 1);
        ck_assert_str_eq(json_string_value(json_array_get(warnings, 0)), warning);
        json_decref(json);
    }
}
END_TEST

/* What comes out goes into config_parse unchanged, and comes back the same; host names and odd
 * ports too. */
START_TEST(accepted_by_config)
{
    json_t *json =
        parse_text("forward 10.0.0.0/15 1.1.1.1:x dns.test tls://a.test%b 1.1.1.1:70000 {\n"
                   "next nxdomain\nhealth_check 1s no_rec\n}");
    struct config *config;
    json_t *again;
    char *dump;

    ck_assert_ptr_nonnull(json);
    ck_assert_uint_eq(json_array_size(json_object_get(json, "warnings")), 1);
    dump = json_dumps(json, 0);
    ck_assert_int_eq(config_parse(dump, strlen(dump), &config, &error), FWD_OK);
    again = config_to_json(config);
    ck_assert(json_equal(json_object_get(json, "forward"), json_object_get(again, "forward")));
    config_destroy(config);
    free(dump);
    json_decref(json);
    json_decref(again);
}
END_TEST

/* Every option of the table is known to the parser by its name, and nothing else is. */
START_TEST(options_are_known)
{
    for (size_t i = 0; i < option_defs_count; i++) {
        const char *name = option_defs[i].name;
        char line[256];
        json_t *json;

        if (strcmp(name, "from") == 0 || strcmp(name, "to") == 0) {
            continue;
        }
        ck_assert_int_eq(strncmp(option_defs[i].corefile, name, strlen(name)), 0);
        (void)snprintf(line, sizeof(line), "forward . 127.0.0.1 {\n%s\n}", name);
        json = parse_text(line);
        ck_assert(json != NULL || strstr(message, "unknown property") == NULL);
        json_decref(json);
        (void)snprintf(line, sizeof(line), "forward . 127.0.0.1 {\n%.*s\n}", (int)strlen(name) - 1,
                       name);
        ck_assert_ptr_null(parse_text(line));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stanza");
    TCase *tcase = tcase_create("stanza");

    tcase_add_test(tcase, text);
    tcase_add_test(tcase, text_errors);
    tcase_add_test(tcase, tokens_of_another_size);
    tcase_add_test(tcase, warnings_before_an_error);
    tcase_add_test(tcase, accepted_by_config);
    tcase_add_test(tcase, options_are_known);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
