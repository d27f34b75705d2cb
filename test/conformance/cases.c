/* Running table rows through the parsers.
 *
 * Happy path: build the strings that the tables hold. Failure modes: a failed check ends the test.
 */
#include "cases.h"

#include "corefile_tree.h"
#include "stanza.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/fwd-cases-XXXXXX";
static char message[4096];

/** Scratch directory. */
void cases_open(void)
{
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

/** Removes the scratch directory, which has no directories in it. */
void cases_close(void)
{
    DIR *stream = opendir(dir);
    struct dirent *entry;

    ck_assert_ptr_nonnull(stream);
    while ((entry = readdir(stream)) != NULL) {
        (void)unlinkat(dirfd(stream), entry->d_name, 0);
    }
    (void)closedir(stream);
    ck_assert_int_eq(rmdir(dir), 0);
}

/** Replaces @. */
char *cases_text(const char *text)
{
    char *ret;
    size_t len;
    FILE *stream = open_memstream(&ret, &len);

    ck_assert_ptr_nonnull(stream);
    for (; *text != '\0'; text++) {
        if (*text == '@') {
            (void)fputs(dir, stream);
        } else {
            (void)fputc(*text, stream);
        }
    }
    (void)fclose(stream);
    return ret;
}

/** A file in the scratch directory. */
void cases_file(const char *name, const char *text)
{
    char path[256];
    char *replaced = cases_text(text);
    FILE *stream;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    stream = fopen(path, "w");
    ck_assert_ptr_nonnull(stream);
    (void)fputs(replaced, stream);
    (void)fclose(stream);
    free(replaced);
}

static struct fwd_error error_make(void)
{
    struct fwd_error error = FWD_INIT(struct fwd_error);

    error.msg = message;
    error.msg_cap = sizeof(message);
    return error;
}

/* Returns the parsed Corefile, or NULL with the error in message. */
static json_t *corefile_load(const char *text)
{
    struct fwd_error error = error_make();
    char *replaced = cases_text(text);
    char *file = cases_text("@/Corefile");
    int status;
    json_t *json = corefile_tree(replaced, strlen(replaced), file, &status, &error);

    ck_assert(status == FWD_OK || status == FWD_ERR_SYNTAX);
    free(replaced);
    free(file);
    if (status != FWD_OK) {
        json_decref(json);
        return NULL;
    }
    return json;
}

static const char *text_of(const json_t *object, const char *member)
{
    return json_string_value(json_object_get(object, member));
}

static void block_print(FILE *out, const json_t *block)
{
    json_t *keys = json_object_get(block, "keys");
    json_t *directives = json_object_get(block, "directives");
    const json_t *item;
    size_t i;

    json_array_foreach(keys, i, item)
    {
        const char *problem = json_string_value(json_array_get(item, 3));

        (void)fprintf(out, "%s%s", i > 0 ? " " : "", json_string_value(json_array_get(item, 2)));
        if (problem != NULL) {
            (void)fprintf(out, "!%s", problem);
        }
    }
    (void)fputc('{', out);
    json_array_foreach(directives, i, item)
    {
        uint32_t count;
        struct fwd_token *tokens = corefile_tokens(item, &count);

        ck_assert_ptr_nonnull(tokens);
        (void)fprintf(out, "%s%s[", i > 0 ? " " : "", json_string_value(json_array_get(item, 0)));
        for (uint32_t j = 0; j < count; j++) {
            (void)fprintf(out, "%s%s", j > 0 ? " " : "", tokens[j].text);
        }
        (void)fputc(']', out);
        free(tokens);
    }
    (void)fputc('}', out);
}

/** A Corefile's blocks or its error. */
char *cases_corefile(const char *text)
{
    json_t *json = corefile_load(text);
    json_t *block;
    char *ret;
    size_t len;
    size_t i;
    FILE *out;

    if (json == NULL) {
        return strdup(message);
    }
    out = open_memstream(&ret, &len);
    ck_assert_ptr_nonnull(out);
    json_array_foreach(json_object_get(json, "blocks"), i, block)
    {
        block_print(out, block);
    }
    (void)fclose(out);
    json_decref(json);
    return ret;
}

/* Hands the tokens of the first block's forward directive on. Returns the JSON, or NULL with the
 * error in message. */
static json_t *forward_load(const json_t *corefile)
{
    struct fwd_error error = error_make();
    const json_t *block = json_array_get(json_object_get(corefile, "blocks"), 0);
    const json_t *item = json_array_get(json_object_get(block, "directives"), 0);
    struct fwd_directive directive = FWD_INIT(struct fwd_directive);
    struct fwd_token *list = corefile_tokens(item, &directive.token_count);
    json_t *ret = NULL;
    char *root = cases_text("@");

    ck_assert_ptr_nonnull(list);
    directive.tokens = list;
    directive.root = root;
    if (stanza_parse(&directive, &ret, &error) != FWD_OK) {
        json_decref(ret); /* warnings */
        ret = NULL;
    }
    free(list);
    free(root);
    return ret;
}

static char *stanzas_print(json_t *stanzas)
{
    const json_t *stanza;
    const json_t *to;
    char *ret;
    size_t len;
    size_t i;
    size_t j;
    FILE *out = open_memstream(&ret, &len);

    ck_assert_ptr_nonnull(out);
    json_array_foreach(stanzas, i, stanza)
    {
        (void)fprintf(out, "%s%s", i > 0 ? "; " : "", text_of(stanza, "from"));
        json_array_foreach(json_object_get(stanza, "to"), j, to)
        {
            const char *transport = text_of(to, "transport");
            bool plain = strcmp(transport, "dns") == 0;

            (void)fprintf(out, " %s%s%s", plain ? "" : transport, plain ? "" : "://",
                          text_of(to, "addr"));
            if (*text_of(to, "tls_servername") != '\0') {
                (void)fprintf(out, "(%s)", text_of(to, "tls_servername"));
            }
        }
    }
    (void)fclose(out);
    return ret;
}

/** Forward directives, or their error. */
char *cases_stanza(const char *text, const char *member)
{
    char *corefile_text;
    json_t *corefile;
    json_t *json;
    json_t *stanzas;
    char *ret;

    ck_assert_int_gt(asprintf(&corefile_text, ". {\n%s\n}\n", text), 0);
    corefile = corefile_load(corefile_text);
    free(corefile_text);
    json = corefile != NULL ? forward_load(corefile) : NULL;
    json_decref(corefile);
    if (json == NULL) {
        return strdup(message);
    }
    stanzas = json_object_get(json, "forward");
    ret = member == NULL
              ? stanzas_print(stanzas)
              : json_dumps(
                    json_object_get(json_array_get(stanzas, json_array_size(stanzas) - 1), member),
                    JSON_ENCODE_ANY | JSON_COMPACT);
    json_decref(json);
    return ret;
}
