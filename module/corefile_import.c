/* Imports in a Corefile: snippets, files, globs.
 *
 * Happy path: find what the argument names, put its tokens in the place of the import.
 * Failure modes: CoreDNS's errors. Each token knows the import that it came by, so that an import
 * which leads to itself is an error at once, where CoreDNS counts to a limit or hangs.
 */
#include "corefile_parser.h"

#include "path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SNIPPET_IMPORTS_MAX 10000
#define FILE_IMPORTS_MAX 100000

/* One expansion of an import; tokens point to theirs. */
struct origin {
    const char *name; /* of the file or snippet */
    bool snippet;
    const struct origin *parent; /* what the import was imported by */
};

/** A snippet by its name. */
const struct snippet *corefile_snippet(const struct corefile_parser *parser, const char *name)
{
    const struct snippet *snippet = parser->snippets;

    while (snippet != NULL && strcmp(snippet->name, name) != 0) {
        snippet = snippet->next;
    }
    return snippet;
}

/* Makes the record of an expansion. One that an expansion of the same name led to would never end.
 */
static int origin_make(struct corefile_parser *parser, const struct origin *parent, bool snippet,
                       const char *name, const struct origin **ret)
{
    struct origin *origin = arena_alloc(&parser->arena, sizeof(*origin));

    for (const struct origin *at = parent; at != NULL; at = at->parent) {
        if (at->snippet == snippet && strcmp(at->name, name) == 0) {
            return corefile_fail(parser, IMPORT_DEPTH_TEXT ": %s imports itself",
                                 snippet ? "snippet" : "file", name);
        }
    }
    if (origin == NULL) {
        return corefile_nomem(parser);
    }
    *origin = (struct origin){name, snippet, parent};
    *ret = origin;
    return FWD_OK;
}

static int snippet_import(struct corefile_parser *parser, const struct snippet *snippet,
                          const struct origin *parent, struct token_list *imported)
{
    const struct origin *origin = NULL;
    int status;

    if (parser->snippet_imports++ >= SNIPPET_IMPORTS_MAX) {
        return corefile_fail(parser, IMPORT_DEPTH_TEXT, "snippet");
    }
    status = origin_make(parser, parent, true, snippet->name, &origin);
    for (size_t i = 0; status == FWD_OK && i < snippet->count; i++) {
        struct token token = snippet->tokens[i];

        token.origin = origin;
        status = token_push(imported, token) ? FWD_OK : corefile_nomem(parser);
    }
    return status;
}

static int file_import(struct corefile_parser *parser, const char *name,
                       const struct origin *parent, struct token_list *imported)
{
    const char *file = path_absolute(&parser->arena, name);
    const struct origin *origin = NULL;
    char reason[GOTEXT_REASON];
    size_t first = imported->count;
    char *text;
    size_t len;
    bool ok;
    int status =
        file != NULL ? origin_make(parser, parent, false, file, &origin) : corefile_nomem(parser);

    if (status != FWD_OK) {
        return status;
    }
    status = file_read(file, &text, &len, reason);
    if (status == ENOMEM) {
        return corefile_nomem(parser);
    }
    if (status != 0) {
        return corefile_fail(parser, "Could not import %s: %s", name,
                             status == EISDIR ? "is a directory" : reason);
    }
    ok = lexer_run(&parser->arena, text, len, file, imported);
    free(text);
    for (size_t i = first; i < imported->count; i++) {
        imported->items[i].origin = origin;
    }
    return ok ? FWD_OK : corefile_nomem(parser);
}

static unsigned occurrences(const char *text, char c)
{
    unsigned count = 0;

    for (; *text != '\0'; text++) {
        count += *text == c;
    }
    return count;
}

/* The files that an import's argument names, relative to the file of the token at hand. */
static int import_find(struct corefile_parser *parser, const char *argument, struct path_list *ret)
{
    const char *file = path_absolute(&parser->arena, corefile_place(parser).file);
    const char *dir = file != NULL ? path_dir(&parser->arena, file) : NULL;
    const char *pattern = argument;
    json_t *warning;
    int status;

    if (argument[0] != '/' && dir != NULL) {
        pattern = path_join(&parser->arena, dir, argument);
    }
    if (dir == NULL || pattern == NULL) {
        return corefile_nomem(parser);
    }
    if (occurrences(pattern, '*') > 1 || occurrences(pattern, '?') > 1 ||
        (strchr(pattern, '[') != NULL && strchr(pattern, ']') != NULL)) {
        return corefile_fail(
            parser, "Glob pattern may only contain one wildcard (*), but has others: %s", pattern);
    }
    status = path_glob(&parser->arena, pattern, ret);
    if (status == -2) {
        return corefile_nomem(parser);
    }
    if (status != 0) {
        return corefile_fail(parser, "Failed to use import pattern %s: syntax error in pattern",
                             argument);
    }
    if (ret->count > 0) {
        return FWD_OK;
    }
    if (strpbrk(pattern, "*?[]") == NULL) {
        return corefile_fail(parser, "File to import not found: %s", argument);
    }
    warning = json_sprintf("No files matching import glob pattern: %s", argument);
    return json_array_append_new(parser->warnings, warning) == 0 ? FWD_OK : corefile_nomem(parser);
}

static int files_import(struct corefile_parser *parser, const char *argument,
                        const struct origin *parent, struct token_list *imported)
{
    struct path_list files = {0};
    int status;

    if (parser->file_imports++ >= FILE_IMPORTS_MAX) {
        return corefile_fail(parser, IMPORT_DEPTH_TEXT, "file");
    }
    status = import_find(parser, argument, &files);
    for (size_t i = 0; status == FWD_OK && i < files.count; i++) {
        status = file_import(parser, files.items[i], parent, imported);
    }
    free(files.items);
    return status;
}

/** Replaces `import ARGUMENT`, of which "import" is current, by what it names. Then the token
 * before it is current. */
int corefile_import(struct corefile_parser *parser)
{
    const struct origin *parent = stream_current(&parser->stream)->origin;
    struct stream *stream = &parser->stream;
    const struct snippet *snippet;
    struct token_list imported = {0};
    const char *argument;
    int status;

    if (!stream_next_same_line(stream)) {
        return corefile_fail(parser, "Wrong argument count or unexpected line ending after '%s'",
                             corefile_value(parser));
    }
    (void)stream_next(stream);
    status = corefile_expand(parser, corefile_value(parser), &argument);
    if (status != FWD_OK) {
        return status;
    }
    if (*argument == '\0') {
        return corefile_fail(parser, "Import requires a non-empty filepath");
    }
    if (stream_next_same_line(stream)) {
        (void)stream_next(stream);
        return corefile_fail(parser, "Import takes only one argument (glob pattern or file)");
    }
    snippet = corefile_snippet(parser, argument);
    status = snippet != NULL ? snippet_import(parser, snippet, parent, &imported)
                             : files_import(parser, argument, parent, &imported);
    if (status == FWD_OK &&
        stream->past.count + stream->pending.count + imported.count > corefile_tokens_max) {
        status = corefile_fail(parser, "more than %zu tokens after imports", corefile_tokens_max);
    }
    if (status == FWD_OK) {
        stream_drop(stream);
        stream_drop(stream);
        status =
            stream_put(stream, imported.items, imported.count) ? FWD_OK : corefile_nomem(parser);
    }
    free(imported.items);
    return status;
}
