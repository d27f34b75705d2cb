/* The Corefile parser: tokens grouped by server block and directive, imports and snippets expanded
 * on the way.
 *
 * Happy path: lex the whole text; then, block by block, read keys, then directives, and append them
 * to the JSON as they come. An import replaces itself by tokens and reading goes on with those.
 * Failure modes: FWD_ERR_SYNTAX in CoreDNS's words; endless imports are found by looking at what a
 * token was imported by, where CoreDNS counts to a limit or hangs. FWD_ERR_NOMEM.
 */
#include "corefile.h"

#include "corefile_parser.h"
#include "utf8.h"
#include "zone.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t corefile_tokens_max = (size_t)2 << 20;

/* --- errors --- */

/** Reports that memory is out. */
int corefile_nomem(struct corefile_parser *parser)
{
    return error_set(parser->error, FWD_ERR_NOMEM, NULL, "out of memory");
}

/** Text of the current token. */
const char *corefile_value(const struct corefile_parser *parser)
{
    const struct token *token = stream_current(&parser->stream);

    return token == NULL || parser->beyond ? "" : token->text;
}

/** File and line of the current token. */
struct error_place corefile_place(const struct corefile_parser *parser)
{
    const struct token *token = stream_current(&parser->stream);
    struct error_place place = {.file = parser->filename};

    if (token != NULL && !parser->beyond) {
        place.line = token->line;
        place.file = token->file != NULL ? token->file : parser->filename;
    }
    return place;
}

/** An error at the current token. */
int corefile_fail(struct corefile_parser *parser, const char *format, ...)
{
    struct error_place place = corefile_place(parser);
    char text[2048];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return error_set(parser->error, FWD_ERR_SYNTAX, &place, "%s:%u - Error during parsing: %s",
                     place.file, place.line, text);
}

static int unexpected(struct corefile_parser *parser, const char *expected)
{
    struct error_place place = corefile_place(parser);

    return error_set(parser->error, FWD_ERR_SYNTAX, &place,
                     "%s:%u - Syntax error: Unexpected token '%s', expecting '%s'", place.file,
                     place.line, corefile_value(parser), expected);
}

/** The environment in text. *ret is set on FWD_OK. */
int corefile_expand(struct corefile_parser *parser, const char *text, const char **ret)
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
    return endless ? corefile_fail(parser, "environment variables in '%s' expand without end", text)
                   : corefile_nomem(parser);
}

/* --- JSON --- */

/* A string for JSON. File names may hold what is not UTF-8, and so may texts that were cut to fit.
 */
static json_t *text_to_json(struct corefile_parser *parser, const char *text)
{
    json_t *ret = json_string(text);

    return ret != NULL ? ret : json_string(utf8_clean(&parser->arena, text, strlen(text)));
}

/* The name of the current token's file as JSON, one value for all tokens of the file: they may be
 * millions. Borrowed. */
static json_t *file_to_json(struct corefile_parser *parser, const char *file)
{
    if (parser->file != file) {
        json_decref(parser->file_json);
        parser->file = file;
        parser->file_json = text_to_json(parser, file);
    }
    return parser->file_json;
}

/* {"text": ..., "file": ..., "line": ...} for the current token. */
static json_t *place_to_json(struct corefile_parser *parser, const char *text)
{
    struct error_place place = corefile_place(parser);
    json_t *object = json_object();

    if (object == NULL ||
        json_object_set_new_nocheck(object, "text", text_to_json(parser, text)) != 0 ||
        json_object_set_nocheck(object, "file", file_to_json(parser, place.file)) != 0 ||
        json_object_set_new_nocheck(object, "line", json_integer(place.line)) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *zones_to_json(struct corefile_parser *parser, const struct zone_list *zones)
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

static int key_add(struct corefile_parser *parser, const char *text)
{
    json_t *key = place_to_json(parser, text);
    char reason[GOTEXT_REASON];
    struct zone_list zones;
    int status = zone_parse_key(&parser->arena, text, &zones, reason);

    if (json_array_append_new(parser->keys, key) != 0 || status == -2 ||
        json_object_set_new(key, status == 0 ? "zones" : "error",
                            status == 0 ? zones_to_json(parser, &zones)
                                        : text_to_json(parser, reason)) != 0) {
        return corefile_nomem(parser);
    }
    if (json_array_size(parser->keys) == 1) {
        parser->first_key = text;
    }
    return FWD_OK;
}

/* The tokens of a directive in the block at hand, NULL when out of memory. */
static json_t *directive_tokens(struct corefile_parser *parser, const char *name)
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

/* --- grammar --- */

/* One key; a comma at its end asks for another. */
static int address(struct corefile_parser *parser, const char *text, bool *expecting)
{
    size_t len = strlen(text);

    *expecting = text[len - 1] == ',';
    if (*expecting) {
        text = arena_copy(&parser->arena, text, len - 1);
    }
    return text != NULL ? key_add(parser, text) : corefile_nomem(parser);
}

static int addresses(struct corefile_parser *parser)
{
    struct stream *stream = &parser->stream;
    bool expecting = false;

    for (;;) {
        const char *text;
        int status = corefile_expand(parser, corefile_value(parser), &text);

        if (status == FWD_OK && strcmp(text, "import") == 0 && stream_new_line(stream)) {
            status = corefile_import(parser);
            parser->beyond = status == FWD_OK && !stream_next(stream);
            if (status == FWD_OK) {
                continue;
            }
        }
        if (status == FWD_OK && strcmp(text, "{") == 0) {
            return expecting
                       ? corefile_fail(
                             parser,
                             "Expected another address but had '%s' - check for extra comma", text)
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
            return expecting ? corefile_fail(parser, "Unexpected EOF") : FWD_OK;
        }
        if (!expecting && stream_new_line(stream)) {
            return FWD_OK;
        }
    }
}

static int token_add(struct corefile_parser *parser, json_t *tokens)
{
    json_t *token = place_to_json(parser, corefile_value(parser));

    return json_array_append_new(tokens, token) == 0 ? FWD_OK : corefile_nomem(parser);
}

/* Expands the current token, which counts for what is on its line (case 6), and adds it. */
static int argument_add(struct corefile_parser *parser, json_t *tokens)
{
    struct token *token = stream_current(&parser->stream);
    int status = corefile_expand(parser, token->text, &token->text);

    return status == FWD_OK ? token_add(parser, tokens) : status;
}

/* One directive, up to the end of its line or block. */
static int directive(struct corefile_parser *parser)
{
    struct stream *stream = &parser->stream;
    json_t *tokens;
    unsigned nesting = 0;
    const char *name;
    int status = corefile_expand(parser, corefile_value(parser), &name);

    if (status != FWD_OK) {
        return status;
    }
    tokens = directive_tokens(parser, name);
    status = tokens != NULL ? token_add(parser, tokens) : corefile_nomem(parser);
    while (status == FWD_OK && stream_next(stream)) {
        const char *text = corefile_value(parser);

        if (strcmp(text, "{") == 0) {
            nesting++;
        } else if (nesting == 0 && stream_new_line(stream)) {
            stream_back(stream);
            break;
        } else if (strcmp(text, "}") == 0) {
            if (nesting-- == 0) {
                return corefile_fail(parser, "Unexpected '}' because no matching opening brace");
            }
        } else if (strcmp(text, "import") == 0 && stream_new_line(stream)) {
            status = corefile_import(parser);
            continue;
        }
        status = argument_add(parser, tokens);
    }
    return status == FWD_OK && nesting > 0 ? corefile_fail(parser, "Unexpected EOF") : status;
}

static int directives(struct corefile_parser *parser)
{
    int status = FWD_OK;

    while (status == FWD_OK && stream_next(&parser->stream) &&
           strcmp(corefile_value(parser), "}") != 0) {
        status = strcmp(corefile_value(parser), "import") == 0 ? corefile_import(parser)
                                                               : directive(parser);
    }
    return status;
}

/* A single server may do without braces. */
static int block_contents(struct corefile_parser *parser)
{
    bool braces = strcmp(corefile_value(parser), "{") == 0;
    int status;

    if (!braces) {
        stream_back(&parser->stream);
    }
    status = directives(parser);
    if (status == FWD_OK && braces && strcmp(corefile_value(parser), "}") != 0) {
        return unexpected(parser, "}");
    }
    return status;
}

/* The name of the snippet that the block at hand declares, or NULL. */
static const char *snippet_name(struct corefile_parser *parser)
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
static int snippet_check(struct corefile_parser *parser, const struct token *tokens, size_t count,
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
        status = corefile_expand(parser, tokens[i + 1].text, &argument);
        if (status != FWD_OK) {
            return status;
        }
        if (strcmp(argument, name) == 0) {
            return corefile_fail(parser, IMPORT_DEPTH_TEXT, "snippet");
        }
    }
    return FWD_OK;
}

/* Keeps the tokens up to the closing brace for later. */
static int snippet_read(struct corefile_parser *parser, const char *name)
{
    struct stream *stream = &parser->stream;
    struct snippet *snippet = arena_alloc(&parser->arena, sizeof(*snippet));
    size_t first = stream->past.count;
    unsigned nesting = 1;
    size_t count;
    int status;

    if (corefile_snippet(parser, name) != NULL) {
        return corefile_fail(parser, "redeclaration of previously declared snippet %s", name);
    }
    if (strcmp(corefile_value(parser), "{") != 0) {
        return unexpected(parser, "{");
    }
    while (nesting > 0 && stream_next(stream)) {
        nesting -= strcmp(corefile_value(parser), "}") == 0;
        nesting += strcmp(corefile_value(parser), "{") == 0;
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
        return corefile_nomem(parser);
    }
    memcpy(snippet->tokens, stream->past.items + first, count * sizeof(*snippet->tokens));
    parser->snippets = snippet;
    return FWD_OK;
}

/* One server block or snippet; its keys stay empty for a snippet. */
static int block_read(struct corefile_parser *parser)
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

/* A block without keys serves nothing, but a host looks at the names of its directives. */
static int block_add(struct corefile_parser *parser)
{
    json_t *block;

    if (json_array_size(parser->keys) == 0 && json_array_size(parser->directives) == 0) {
        return FWD_OK;
    }
    block = json_pack("{s:O, s:O}", "keys", parser->keys, "directives", parser->directives);
    return json_array_append_new(parser->blocks, block) == 0 ? FWD_OK : corefile_nomem(parser);
}

static int block(struct corefile_parser *parser)
{
    int status;

    parser->keys = json_array();
    parser->directives = json_array();
    parser->by_name = json_object();
    status = parser->keys != NULL && parser->directives != NULL && parser->by_name != NULL
                 ? block_read(parser)
                 : corefile_nomem(parser);
    if (status != FWD_ERR_NOMEM && block_add(parser) != FWD_OK) {
        status = FWD_ERR_NOMEM;
    }
    json_decref(parser->keys);
    json_decref(parser->directives);
    json_decref(parser->by_name);
    return status;
}

static int blocks(struct corefile_parser *parser, const char *text, size_t len)
{
    struct token_list tokens = {0};
    bool ok = lexer_run(&parser->arena, text, len, NULL, &tokens);
    int status = FWD_OK;

    if (ok && tokens.count > corefile_tokens_max) {
        status = corefile_fail(parser, "more than %zu tokens", corefile_tokens_max);
    } else if (!ok || !stream_put(&parser->stream, tokens.items, tokens.count)) {
        status = corefile_nomem(parser);
    }
    free(tokens.items);
    while (status == FWD_OK && stream_next(&parser->stream)) {
        status = block(parser);
    }
    return status;
}

/** A whole Corefile to JSON, or what stands before its first error. */
int corefile_read(const char *text, size_t len, const char *file, json_t **ret,
                  struct fwd_error *error)
{
    struct corefile_parser parser = {.filename = file, .error = error};
    json_t *root = json_pack("{s:[], s:[]}", "blocks", "warnings");
    int status;

    parser.blocks = json_object_get(root, "blocks");
    parser.warnings = json_object_get(root, "warnings");
    status = root != NULL ? blocks(&parser, text, len) : corefile_nomem(&parser);
    json_decref(parser.file_json);
    stream_fini(&parser.stream);
    arena_free(&parser.arena);
    if (status != FWD_OK && status != FWD_ERR_SYNTAX) {
        json_decref(root);
        return status;
    }
    *ret = root;
    return status;
}

/** A whole Corefile to JSON. */
int corefile_parse(const char *text, size_t len, const char *file, json_t **ret,
                   struct fwd_error *error)
{
    int status = corefile_read(text, len, file, ret, error);

    if (status == FWD_ERR_SYNTAX) {
        json_decref(*ret);
        *ret = NULL;
    }
    return status;
}
