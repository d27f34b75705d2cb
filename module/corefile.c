/* The Corefile parser: tokens grouped by server block and directive, imports and snippets expanded on the way.
 *
 * Happy path: lex the whole text; then, block by block, read keys, then directives, and append them to the JSON as they come.
 * An import replaces itself by tokens and reading goes on with those.
 * Failure modes: FWD_ERR_SYNTAX in CoreDNS's words; endless imports are found by looking at what a token was imported by, where
 * CoreDNS counts to a limit or hangs. FWD_ERR_NOMEM. Nothing is returned then.
 */
#include "corefile.h"

#include "error.h"
#include "path.h"
#include "stream.h"
#include "utf8.h"
#include "zone.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SNIPPET_IMPORTS_MAX 10000
#define FILE_IMPORTS_MAX 100000
#define IMPORT_DEPTH_TEXT "maximum %s import depth (10000) exceeded" /* one number for both, as in CoreDNS */

/* One expansion of an import; tokens point to theirs. */
struct origin {
    const char *name; /* of the file or snippet */
    bool snippet;
    const struct origin *parent; /* what the import was imported by */
};

struct snippet {
    const char *name;
    struct token *tokens; /* in the arena */
    size_t count;
    struct snippet *next;
};

struct parser {
    const char *filename;
    struct fwd_error *error;
    struct arena arena;
    struct stream stream;
    bool beyond; /* an import among the keys was the last thing, and brought nothing: there is no current token */
    bool eof;    /* the keys ended with the text */
    struct snippet *snippets;
    unsigned snippet_imports;
    unsigned file_imports;
    json_t *blocks;
    json_t *warnings;
    /* the block at hand */
    json_t *keys;
    json_t *directives;
    json_t *by_name; /* directives again, as an object */
    const char *first_key;
};

/* --- errors ------------------------------------------------------------------------------------------------------------------- */

static int out_of_memory(struct parser *parser)
{
    return error_set(parser->error, FWD_ERR_NOMEM, NULL, "out of memory");
}

static const char *value(const struct parser *parser)
{
    const struct token *token = stream_current(&parser->stream);

    return token == NULL || parser->beyond ? "" : token->text;
}

static struct error_place place_here(const struct parser *parser)
{
    const struct token *token = stream_current(&parser->stream);
    struct error_place place = {.file = parser->filename};

    if (token != NULL && !parser->beyond) {
        place.line = token->line;
        place.file = token->file != NULL ? token->file : parser->filename;
    }
    return place;
}

static int fail(struct parser *parser, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int fail(struct parser *parser, const char *format, ...)
{
    struct error_place place = place_here(parser);
    char text[2048];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return error_set(parser->error, FWD_ERR_SYNTAX, &place, "%s:%u - Error during parsing: %s",
                     place.file, place.line, text);
}

static int unexpected(struct parser *parser, const char *expected)
{
    struct error_place place = place_here(parser);

    return error_set(parser->error, FWD_ERR_SYNTAX, &place,
                     "%s:%u - Syntax error: Unexpected token '%s', expecting '%s'", place.file,
                     place.line, value(parser), expected);
}

/* The environment in text. *ret is set on FWD_OK. */
static int expand(struct parser *parser, const char *text, const char **ret)
{
    bool endless;
    const char *expanded = environment_expand(&parser->arena, text, &endless);

    if (expanded != NULL && expanded != text) {
        expanded = utf8_clean(&parser->arena, expanded, strlen(expanded));
    }
    if (expanded != NULL) {
        *ret = expanded;
        return FWD_OK;
    }
    return endless ? fail(parser, "environment variables in '%s' expand without end", text)
                   : out_of_memory(parser);
}

/* --- JSON --------------------------------------------------------------------------------------------------------------------- */

/* A string for JSON. File names may hold what is not UTF-8, and so may texts that were cut to fit. */
static json_t *text_to_json(struct parser *parser, const char *text)
{
    json_t *ret = json_string(text);

    return ret != NULL ? ret : json_string(utf8_clean(&parser->arena, text, strlen(text)));
}

static json_t *place_to_json(struct parser *parser, const char *text)
{
    struct error_place place = place_here(parser);
    json_t *object = json_object();

    if (object == NULL || json_object_set_new(object, "text", text_to_json(parser, text)) != 0 ||
        json_object_set_new(object, "file", text_to_json(parser, place.file)) != 0 ||
        json_object_set_new(object, "line", json_integer(place.line)) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *zones_to_json(struct parser *parser, const struct zone_list *zones)
{
    json_t *array = json_array();

    for (size_t i = 0; array != NULL && i < zones->count; i++) {
        json_t *name = text_to_json(parser, zones->names[i]);
        json_t *zone = json_pack("{s:o, s:s, s:s}", "zone", name, "port", zones->port, "transport",
                                 zones->transport);

        if (json_array_append_new(array, zone) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static int key_add(struct parser *parser, const char *text)
{
    json_t *key = place_to_json(parser, text);
    char reason[GOTEXT_REASON];
    struct zone_list zones;
    int status = zone_parse_key(&parser->arena, text, &zones, reason);

    if (json_array_append_new(parser->keys, key) != 0 || status == -2 ||
        json_object_set_new(key, status == 0 ? "zones" : "error",
                            status == 0 ? zones_to_json(parser, &zones) : text_to_json(parser, reason)) != 0) {
        return out_of_memory(parser);
    }
    if (json_array_size(parser->keys) == 1) {
        parser->first_key = text;
    }
    return FWD_OK;
}

/* The tokens of a directive in the block at hand, NULL when out of memory. */
static json_t *directive_tokens(struct parser *parser, const char *name)
{
    json_t *tokens = json_object_get(parser->by_name, name);
    json_t *directive;

    if (tokens != NULL) {
        return tokens;
    }
    tokens = json_array();
    if (json_object_set_new(parser->by_name, name, tokens) != 0) {
        return NULL;
    }
    directive = json_pack("{s:s, s:O}", "name", name, "tokens", tokens);
    return json_array_append_new(parser->directives, directive) == 0 ? tokens : NULL;
}

/* --- imports ------------------------------------------------------------------------------------------------------------------ */

static const struct snippet *snippet_find(const struct parser *parser, const char *name)
{
    const struct snippet *snippet = parser->snippets;

    while (snippet != NULL && strcmp(snippet->name, name) != 0) {
        snippet = snippet->next;
    }
    return snippet;
}

/* Makes the record of an expansion. One that an expansion of the same name led to would never end. */
static int origin_make(struct parser *parser, const struct origin *parent, bool snippet,
                       const char *name, const struct origin **ret)
{
    struct origin *origin = arena_alloc(&parser->arena, sizeof(*origin));

    for (const struct origin *at = parent; at != NULL; at = at->parent) {
        if (at->snippet == snippet && strcmp(at->name, name) == 0) {
            return fail(parser, IMPORT_DEPTH_TEXT ": %s imports itself",
                        snippet ? "snippet" : "file", name);
        }
    }
    if (origin == NULL) {
        return out_of_memory(parser);
    }
    *origin = (struct origin){name, snippet, parent};
    *ret = origin;
    return FWD_OK;
}

static int snippet_import(struct parser *parser, const struct snippet *snippet,
                          const struct origin *parent, struct token_list *imported)
{
    const struct origin *origin;
    int status;

    if (parser->snippet_imports++ >= SNIPPET_IMPORTS_MAX) {
        return fail(parser, IMPORT_DEPTH_TEXT, "snippet");
    }
    status = origin_make(parser, parent, true, snippet->name, &origin);
    for (size_t i = 0; status == FWD_OK && i < snippet->count; i++) {
        struct token token = snippet->tokens[i];

        token.origin = origin;
        status = token_push(imported, token) ? FWD_OK : out_of_memory(parser);
    }
    return status;
}

static int file_import(struct parser *parser, const char *name, const struct origin *parent,
                       struct token_list *imported)
{
    const char *file = path_absolute(&parser->arena, name);
    const struct origin *origin;
    char reason[GOTEXT_REASON];
    size_t first = imported->count;
    char *text;
    size_t len;
    bool ok;
    int status = file != NULL ? origin_make(parser, parent, false, file, &origin)
                              : out_of_memory(parser);

    if (status != FWD_OK) {
        return status;
    }
    status = file_read(file, &text, &len, reason);
    if (status != 0) {
        return fail(parser, "Could not import %s: %s", name,
                    status == EISDIR ? "is a directory" : reason);
    }
    ok = lexer_run(&parser->arena, text, len, file, imported);
    free(text);
    for (size_t i = first; i < imported->count; i++) {
        imported->items[i].origin = origin;
    }
    return ok ? FWD_OK : out_of_memory(parser);
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
static int import_find(struct parser *parser, const char *argument, struct path_list *ret)
{
    const char *file = path_absolute(&parser->arena, place_here(parser).file);
    const char *dir = file != NULL ? path_dir(&parser->arena, file) : NULL;
    const char *pattern = argument;
    json_t *warning;
    int status;

    if (argument[0] != '/' && dir != NULL) {
        pattern = path_join(&parser->arena, dir, argument);
    }
    if (dir == NULL || pattern == NULL) {
        return out_of_memory(parser);
    }
    if (occurrences(pattern, '*') > 1 || occurrences(pattern, '?') > 1 ||
        (strchr(pattern, '[') != NULL && strchr(pattern, ']') != NULL)) {
        return fail(parser,
                    "Glob pattern may only contain one wildcard (*), but has others: %s", pattern);
    }
    status = path_glob(&parser->arena, pattern, ret);
    if (status == -2) {
        return out_of_memory(parser);
    }
    if (status != 0) {
        return fail(parser, "Failed to use import pattern %s: syntax error in pattern", argument);
    }
    if (ret->count > 0) {
        return FWD_OK;
    }
    if (strpbrk(pattern, "*?[]") == NULL) {
        return fail(parser, "File to import not found: %s", argument);
    }
    warning = json_sprintf("No files matching import glob pattern: %s", argument);
    return json_array_append_new(parser->warnings, warning) == 0 ? FWD_OK : out_of_memory(parser);
}

static int files_import(struct parser *parser, const char *argument, const struct origin *parent,
                        struct token_list *imported)
{
    struct path_list files = {0};
    int status;

    if (parser->file_imports++ >= FILE_IMPORTS_MAX) {
        return fail(parser, IMPORT_DEPTH_TEXT, "file");
    }
    status = import_find(parser, argument, &files);
    for (size_t i = 0; status == FWD_OK && i < files.count; i++) {
        status = file_import(parser, files.items[i], parent, imported);
    }
    free(files.items);
    return status;
}

/* Replaces `import ARGUMENT`, of which "import" is current, by what it names. Then the token before it is current. */
static int import(struct parser *parser)
{
    const struct origin *parent = stream_current(&parser->stream)->origin;
    struct stream *stream = &parser->stream;
    const struct snippet *snippet;
    struct token_list imported = {0};
    const char *argument;
    int status;

    if (!stream_next_same_line(stream)) {
        return fail(parser, "Wrong argument count or unexpected line ending after '%s'",
                    value(parser));
    }
    (void)stream_next(stream);
    status = expand(parser, value(parser), &argument);
    if (status != FWD_OK) {
        return status;
    }
    if (*argument == '\0') {
        return fail(parser, "Import requires a non-empty filepath");
    }
    if (stream_next_same_line(stream)) {
        (void)stream_next(stream);
        return fail(parser, "Import takes only one argument (glob pattern or file)");
    }
    snippet = snippet_find(parser, argument);
    status = snippet != NULL ? snippet_import(parser, snippet, parent, &imported)
                             : files_import(parser, argument, parent, &imported);
    if (status == FWD_OK &&
        stream->past.count + stream->pending.count + imported.count > TOKENS_MAX) {
        status = fail(parser, "more than %zu tokens after imports", TOKENS_MAX);
    }
    if (status == FWD_OK) {
        stream_drop(stream);
        stream_drop(stream);
        status = stream_put(stream, imported.items, imported.count) ? FWD_OK
                                                                    : out_of_memory(parser);
    }
    free(imported.items);
    return status;
}

/* --- grammar ------------------------------------------------------------------------------------------------------------------ */

/* One key; a comma at its end asks for another. */
static int address(struct parser *parser, const char *text, bool *expecting)
{
    size_t len = strlen(text);

    *expecting = text[len - 1] == ',';
    if (*expecting) {
        text = arena_copy(&parser->arena, text, len - 1);
    }
    return text != NULL ? key_add(parser, text) : out_of_memory(parser);
}

static int addresses(struct parser *parser)
{
    struct stream *stream = &parser->stream;
    bool expecting = false;

    for (;;) {
        const char *text;
        int status = expand(parser, value(parser), &text);

        if (status == FWD_OK && strcmp(text, "import") == 0 && stream_new_line(stream)) {
            status = import(parser);
            parser->beyond = status == FWD_OK && !stream_next(stream);
            if (status == FWD_OK) {
                continue;
            }
        }
        if (status == FWD_OK && strcmp(text, "{") == 0) {
            return expecting ? fail(parser,
                                    "Expected another address but had '%s' - check for extra comma",
                                    text)
                             : FWD_OK;
        }
        if (status == FWD_OK && *text != '\0') {
            status = address(parser, text, &expecting);
        }
        if (status != FWD_OK) {
            return status;
        }
        if (!stream_next(stream)) {
            parser->eof = true;
            return expecting ? fail(parser, "Unexpected EOF") : FWD_OK;
        }
        if (!expecting && stream_new_line(stream)) {
            return FWD_OK;
        }
    }
}

static int token_add(struct parser *parser, json_t *tokens)
{
    json_t *token = place_to_json(parser, value(parser));

    return json_array_append_new(tokens, token) == 0 ? FWD_OK : out_of_memory(parser);
}

/* Expands the current token, which counts for what is on its line (case 6), and adds it. */
static int argument_add(struct parser *parser, json_t *tokens)
{
    struct token *token = stream_current(&parser->stream);
    int status = expand(parser, token->text, &token->text);

    return status == FWD_OK ? token_add(parser, tokens) : status;
}

/* One directive, up to the end of its line or block. */
static int directive(struct parser *parser)
{
    struct stream *stream = &parser->stream;
    json_t *tokens;
    unsigned nesting = 0;
    const char *name;
    int status = expand(parser, value(parser), &name);

    if (status != FWD_OK) {
        return status;
    }
    tokens = directive_tokens(parser, name);
    status = tokens != NULL ? token_add(parser, tokens) : out_of_memory(parser);
    while (status == FWD_OK && stream_next(stream)) {
        const char *text = value(parser);

        if (strcmp(text, "{") == 0) {
            nesting++;
        } else if (nesting == 0 && stream_new_line(stream)) {
            stream_back(stream);
            break;
        } else if (strcmp(text, "}") == 0) {
            if (nesting-- == 0) {
                return fail(parser, "Unexpected '}' because no matching opening brace");
            }
        } else if (strcmp(text, "import") == 0 && stream_new_line(stream)) {
            status = import(parser);
            continue;
        }
        status = argument_add(parser, tokens);
    }
    return status == FWD_OK && nesting > 0 ? fail(parser, "Unexpected EOF") : status;
}

static int directives(struct parser *parser)
{
    int status = FWD_OK;

    while (status == FWD_OK && stream_next(&parser->stream) && strcmp(value(parser), "}") != 0) {
        status = strcmp(value(parser), "import") == 0 ? import(parser) : directive(parser);
    }
    return status;
}

/* A single server may do without braces. */
static int block_contents(struct parser *parser)
{
    bool braces = strcmp(value(parser), "{") == 0;
    int status;

    if (!braces) {
        stream_back(&parser->stream);
    }
    status = directives(parser);
    if (status == FWD_OK && braces && strcmp(value(parser), "}") != 0) {
        return unexpected(parser, "}");
    }
    return status;
}

/* The name of the snippet that the block at hand declares, or NULL. */
static const char *snippet_name(struct parser *parser)
{
    const char *key = parser->first_key;
    size_t len;

    if (json_array_size(parser->keys) != 1) {
        return NULL;
    }
    len = strlen(key);
    return len >= 2 && key[0] == '(' && key[len - 1] == ')'
               ? arena_copy(&parser->arena, key + 1, len - 2)
               : NULL;
}

/* A snippet that imports itself is refused even when nobody uses it. */
static int snippet_check(struct parser *parser, const struct token *tokens, size_t count,
                         const char *name)
{
    for (size_t i = 0; i + 1 < count; i++) {
        bool line_start = i == 0 || !token_same_file(&tokens[i - 1], &tokens[i]) ||
                          tokens[i - 1].line != tokens[i].line;
        const char *argument;
        int status;

        if (!line_start || strcmp(tokens[i].text, "import") != 0) {
            continue;
        }
        status = expand(parser, tokens[i + 1].text, &argument);
        if (status != FWD_OK) {
            return status;
        }
        if (strcmp(argument, name) == 0) {
            return fail(parser, IMPORT_DEPTH_TEXT, "snippet");
        }
    }
    return FWD_OK;
}

/* Keeps the tokens up to the closing brace for later. */
static int snippet_read(struct parser *parser, const char *name)
{
    struct stream *stream = &parser->stream;
    struct snippet *snippet = arena_alloc(&parser->arena, sizeof(*snippet));
    size_t first = stream->past.count;
    unsigned nesting = 1;
    size_t count;
    int status;

    if (snippet_find(parser, name) != NULL) {
        return fail(parser, "redeclaration of previously declared snippet %s", name);
    }
    if (strcmp(value(parser), "{") != 0) {
        return unexpected(parser, "{");
    }
    while (nesting > 0 && stream_next(stream)) {
        nesting -= strcmp(value(parser), "}") == 0;
        nesting += strcmp(value(parser), "{") == 0;
    }
    if (nesting > 0) {
        return unexpected(parser, "}");
    }
    count = stream->past.count - first - 1;
    status = snippet_check(parser, stream->past.items + first, count, name);
    if (status != FWD_OK) {
        return status;
    }
    if (snippet != NULL) {
        *snippet = (struct snippet){name, NULL, count, parser->snippets};
        snippet->tokens = arena_alloc(&parser->arena, count * sizeof(*snippet->tokens));
    }
    if (snippet == NULL || snippet->tokens == NULL) {
        return out_of_memory(parser);
    }
    memcpy(snippet->tokens, stream->past.items + first, count * sizeof(*snippet->tokens));
    parser->snippets = snippet;
    return FWD_OK;
}

/* One server block or snippet; its keys stay empty for a snippet. */
static int block_read(struct parser *parser)
{
    const char *name;
    int status = addresses(parser);

    if (status != FWD_OK || parser->eof) {
        return status;
    }
    name = snippet_name(parser);
    if (name == NULL) {
        return block_contents(parser);
    }
    json_array_clear(parser->keys);
    return snippet_read(parser, name);
}

static int block_add(struct parser *parser)
{
    json_t *block;

    if (json_array_size(parser->keys) == 0) {
        return FWD_OK;
    }
    block = json_pack("{s:O, s:O}", "keys", parser->keys, "directives", parser->directives);
    return json_array_append_new(parser->blocks, block) == 0 ? FWD_OK : out_of_memory(parser);
}

static int block(struct parser *parser)
{
    int status;

    parser->keys = json_array();
    parser->directives = json_array();
    parser->by_name = json_object();
    status = parser->keys != NULL && parser->directives != NULL && parser->by_name != NULL
                 ? block_read(parser)
                 : out_of_memory(parser);
    if (status == FWD_OK) {
        status = block_add(parser);
    }
    json_decref(parser->keys);
    json_decref(parser->directives);
    json_decref(parser->by_name);
    return status;
}

static int blocks(struct parser *parser, const char *text, size_t len)
{
    struct token_list tokens = {0};
    bool ok = lexer_run(&parser->arena, text, len, NULL, &tokens);
    int status = FWD_OK;

    if (ok && tokens.count > TOKENS_MAX) {
        status = fail(parser, "more than %zu tokens", TOKENS_MAX);
    } else if (!ok || !stream_put(&parser->stream, tokens.items, tokens.count)) {
        status = out_of_memory(parser);
    }
    free(tokens.items);
    while (status == FWD_OK && stream_next(&parser->stream)) {
        status = block(parser);
    }
    return status;
}

/** A whole Corefile to JSON. */
int corefile_parse(const char *text, size_t len, const char *file, json_t **ret,
                   struct fwd_error *error)
{
    struct parser parser = {.filename = file, .error = error};
    json_t *root = json_pack("{s:[], s:[]}", "blocks", "warnings");
    int status;

    parser.blocks = json_object_get(root, "blocks");
    parser.warnings = json_object_get(root, "warnings");
    status = root != NULL ? blocks(&parser, text, len) : out_of_memory(&parser);
    stream_fini(&parser.stream);
    arena_free(&parser.arena);
    if (status != FWD_OK) {
        json_decref(root);
        return status;
    }
    *ret = root;
    return FWD_OK;
}
