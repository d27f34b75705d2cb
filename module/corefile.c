/* The Corefile parser: tokens grouped by server block and directive, imports and snippets expanded
 * on the way.
 *
 * Happy path: lex the whole text; then, block by block, read keys, which are written to the JSON as
 * they come, then directives, whose lines are gathered by name and written at the block's end. An import replaces itself by tokens and reading goes on with those.
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
static void text_write(struct corefile_parser *parser, struct jsontext *out, const char *text)
{
    size_t len = strlen(text);
    const char *clean = utf8_valid(text, len) ? text : utf8_clean(&parser->arena, text, len);

    if (clean == NULL) {
        out->failed = true;
        return;
    }
    jsontext_string(out, clean);
}

/* `[FILE, LINE` for the current token. */
static void place_write(struct corefile_parser *parser, struct jsontext *out)
{
    struct error_place place = corefile_place(parser);

    jsontext_raw(out, "[");
    text_write(parser, out, place.file);
    jsontext_raw(out, ",");
    jsontext_number(out, place.line);
}

static void zones_write(struct corefile_parser *parser, const struct zone_list *zones)
{
    struct jsontext *out = &parser->out;

    for (size_t i = 0; i < zones->count; i++) {
        const char *const parts[] = {zones->names[i], zones->port, zones->transport};

        for (size_t p = 0; p < 3; p++) {
            jsontext_raw(out, p == 0 ? ",[" : ",");
            text_write(parser, out, parts[p]);
        }
        jsontext_raw(out, "]");
    }
}

static int key_add(struct corefile_parser *parser, const char *text)
{
    struct jsontext *out = &parser->out;
    char reason[GOTEXT_REASON];
    struct zone_list zones;
    int status = zone_parse_key(&parser->arena, text, &zones, reason);

    if (status == -2) {
        return corefile_nomem(parser);
    }
    jsontext_comma(out, parser->keys_start);
    place_write(parser, out);
    jsontext_raw(out, ",");
    text_write(parser, out, text);
    if (status == 0) {
        zones_write(parser, &zones);
    } else {
        jsontext_raw(out, ",");
        text_write(parser, out, reason);
    }
    jsontext_raw(out, "]");
    if (parser->key_count++ == 0) {
        parser->first_key = text;
    }
    return out->failed ? corefile_nomem(parser) : FWD_OK;
}

static struct directive *directive_add(struct corefile_parser *parser)
{
    if (parser->directive_count == parser->directive_cap) {
        size_t cap = parser->directive_cap > 0 ? 2 * parser->directive_cap : 8;
        struct directive *grown = realloc(parser->directives, cap * sizeof(*grown));

        if (grown == NULL) {
            return NULL;
        }
        memset(grown + parser->directive_cap, 0, (cap - parser->directive_cap) * sizeof(*grown));
        parser->directives = grown;
        parser->directive_cap = cap;
    }
    return &parser->directives[parser->directive_count++];
}

/* A directive of the block at hand, NULL when out of memory. */
static struct directive *directive_take(struct corefile_parser *parser, const char *name)
{
    const json_t *index = json_object_get(parser->by_name, name);
    struct directive *directive;

    if (index != NULL) {
        return &parser->directives[json_integer_value(index)];
    }
    if (json_object_set_new(parser->by_name, name,
                            json_integer((json_int_t)parser->directive_count)) != 0) {
        return NULL;
    }
    directive = directive_add(parser);
    if (directive != NULL) {
        directive->file = NULL;
        directive->lines.len = 0;
        text_write(parser, &directive->lines, name);
    }
    return directive;
}

/* Adds the current token to its line, which is the last one or new. */
static int token_add(struct corefile_parser *parser, struct directive *directive)
{
    struct error_place place = corefile_place(parser);
    struct jsontext *out = &directive->lines;

    if (directive->file != place.file || directive->line != place.line) {
        jsontext_raw(out, directive->file != NULL ? "]," : ",");
        place_write(parser, out);
        directive->file = place.file;
        directive->line = place.line;
    }
    jsontext_raw(out, ",");
    text_write(parser, out, corefile_value(parser));
    return out->failed ? corefile_nomem(parser) : FWD_OK;
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

/* Expands the current token, which counts for what is on its line (case 6), and adds it. */
static int argument_add(struct corefile_parser *parser, struct directive *directive)
{
    struct token *token = stream_current(&parser->stream);
    int status = corefile_expand(parser, token->text, &token->text);

    return status == FWD_OK ? token_add(parser, directive) : status;
}

/* One directive, up to the end of its line or block. */
static int directive_read(struct corefile_parser *parser)
{
    struct stream *stream = &parser->stream;
    struct directive *directive;
    unsigned nesting = 0;
    const char *name;
    int status = corefile_expand(parser, corefile_value(parser), &name);

    if (status != FWD_OK) {
        return status;
    }
    directive = directive_take(parser, name);
    status = directive != NULL ? token_add(parser, directive) : corefile_nomem(parser);
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
        status = argument_add(parser, directive);
    }
    return status == FWD_OK && nesting > 0 ? corefile_fail(parser, "Unexpected EOF") : status;
}

static int directives(struct corefile_parser *parser)
{
    int status = FWD_OK;

    while (status == FWD_OK && stream_next(&parser->stream) &&
           strcmp(corefile_value(parser), "}") != 0) {
        status = strcmp(corefile_value(parser), "import") == 0 ? corefile_import(parser)
                                                               : directive_read(parser);
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

    if (parser->key_count != 1) {
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
    parser->key_count = 0;
    parser->out.len = parser->keys_start;
    return snippet_read(parser, name);
}

/* Ends the block in the document. One without keys serves nothing, but a host looks at the names of
 * its directives. */
static void block_write(struct corefile_parser *parser, size_t start)
{
    struct jsontext *out = &parser->out;

    if (parser->key_count == 0 && parser->directive_count == 0) {
        out->len = start;
        return;
    }
    jsontext_raw(out, "],\"directives\":[");
    for (size_t i = 0; i < parser->directive_count; i++) {
        const struct jsontext *lines = &parser->directives[i].lines;

        jsontext_raw(out, i > 0 ? ",[" : "[");
        jsontext_append(out, lines);
        jsontext_raw(out, "]]");
    }
    jsontext_raw(out, "]}");
}

static int block(struct corefile_parser *parser)
{
    struct jsontext *out = &parser->out;
    size_t start = out->len;
    int status;

    jsontext_comma(out, parser->blocks_start);
    jsontext_raw(out, "{\"keys\":[");
    parser->keys_start = out->len;
    parser->key_count = 0;
    parser->directive_count = 0;
    (void)json_object_clear(parser->by_name);
    status = block_read(parser);
    if (status == FWD_ERR_NOMEM) {
        return status;
    }
    block_write(parser, start);
    return out->failed ? corefile_nomem(parser) : status;
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

static void document_end(struct corefile_parser *parser)
{
    char *warnings = json_dumps(parser->warnings, JSON_COMPACT);

    jsontext_raw(&parser->out, "],\"warnings\":");
    if (warnings != NULL) {
        jsontext_raw(&parser->out, warnings);
    }
    parser->out.failed |= warnings == NULL;
    free(warnings);
    jsontext_raw(&parser->out, "}");
}

static void parser_fini(struct corefile_parser *parser)
{
    for (size_t i = 0; i < parser->directive_cap; i++) {
        jsontext_free(&parser->directives[i].lines);
    }
    free(parser->directives);
    json_decref(parser->by_name);
    json_decref(parser->warnings);
    stream_fini(&parser->stream);
    arena_free(&parser->arena);
}

/** A whole Corefile to JSON, or what stands before its first error. */
int corefile_read(const char *text, size_t len, const char *file, struct jsontext *ret,
                  struct fwd_error *error)
{
    struct corefile_parser parser = {.filename = file, .error = error};
    int status;

    parser.by_name = json_object();
    parser.warnings = json_array();
    jsontext_raw(&parser.out, "{\"blocks\":[");
    parser.blocks_start = parser.out.len;
    status = parser.by_name != NULL && parser.warnings != NULL ? blocks(&parser, text, len)
                                                               : corefile_nomem(&parser);
    document_end(&parser);
    if (parser.out.failed) {
        status = corefile_nomem(&parser);
    }
    parser_fini(&parser);
    if (status != FWD_OK && status != FWD_ERR_SYNTAX) {
        jsontext_free(&parser.out);
        return status;
    }
    *ret = parser.out;
    return status;
}
