/* The Corefile lexer.
 *
 * Happy path: runes in, tokens out, texts copied into the arena. Failure modes: out of memory.
 * There is no syntax error at this level: an open quote ends with the text.
 */
#include "lexer.h"

#include "utf8.h"

#include <stdlib.h>
#include <string.h>

#define EXPANSIONS_MAX 256                /* replacements per token */
#define EXPANDED_MAX ((size_t)256 * 1024) /* octets of a token that still has references */

/* The token being read. */
struct lexer {
    const char *text;
    size_t len;
    uint32_t line;
    char *value; /* room for the whole rest of the text */
    size_t value_len;
    uint32_t value_line;
};

/** Appends a token. */
bool token_push(struct token_list *list, struct token token)
{
    if (list->count == list->cap) {
        size_t cap = list->cap > 0 ? 2 * list->cap : 16;
        struct token *items = realloc(list->items, cap * sizeof(*items));

        if (items == NULL) {
            return false;
        }
        list->items = items;
        list->cap = cap;
    }
    list->items[list->count++] = token;
    return true;
}

/** Newlines in a token. */
uint32_t token_breaks(const struct token *token)
{
    uint32_t count = 0;

    for (const char *at = strchr(token->text, '\n'); at != NULL; at = strchr(at + 1, '\n')) {
        count++;
    }
    return count;
}

/** Whether two tokens are from one file. */
bool token_same_file(const struct token *a, const struct token *b)
{
    return a->file == b->file ||
           (a->file != NULL && b->file != NULL && strcmp(a->file, b->file) == 0);
}

/** Same file, and the line that a ends on. */
bool token_same_line(const struct token *a, const struct token *b)
{
    return a->line + token_breaks(a) == b->line && token_same_file(a, b);
}

static void value_add(struct lexer *lexer, uint32_t rune, const char *text, size_t width)
{
    if (rune == UTF8_INVALID || rune == 0) {
        text = UTF8_REPLACEMENT;
        width = 3;
    }
    memcpy(lexer->value + lexer->value_len, text, width);
    lexer->value_len += width;
}

/* Reads up to the closing quote or the end. Returns whether there was one. */
static bool quoted_read(struct lexer *lexer)
{
    bool escaped = false;

    while (lexer->len > 0) {
        const char *text = lexer->text;
        uint32_t rune;
        size_t width = utf8_decode(text, lexer->len, &rune);

        lexer->text += width;
        lexer->len -= width;
        if (!escaped && rune == '"') {
            return true;
        }
        if (!escaped && rune == '\\') {
            escaped = true;
            continue;
        }
        lexer->line += rune == '\n';
        if (escaped && rune != '"') {
            value_add(lexer, '\\', "\\", 1);
        }
        value_add(lexer, rune, text, width);
        escaped = false;
    }
    return false;
}

/* Reads one token. Returns false at the end of the text. */
static bool token_read(struct lexer *lexer)
{
    bool comment = false;

    lexer->value_len = 0;
    while (lexer->len > 0) {
        const char *text = lexer->text;
        uint32_t rune;
        size_t width = utf8_decode(text, lexer->len, &rune);

        lexer->text += width;
        lexer->len -= width;
        if (rune == '\r') {
            continue;
        }
        if (utf8_space(rune)) {
            if (rune == '\n') {
                lexer->line++;
                comment = false;
            }
            if (lexer->value_len > 0) {
                return true;
            }
            continue;
        }
        comment = comment || rune == '#';
        if (comment) {
            continue;
        }
        if (lexer->value_len == 0) {
            lexer->value_line = lexer->line;
            if (rune == '"') {
                return quoted_read(lexer) || lexer->value_len > 0;
            }
        }
        value_add(lexer, rune, text, width);
    }
    return lexer->value_len > 0;
}

/** Text to tokens. */
bool lexer_run(struct arena *arena, const char *text, size_t len, const char *file,
               struct token_list *list)
{
    static const char bom[] = "\xef\xbb\xbf";
    struct lexer lexer = {.text = text, .len = len, .line = 1};
    bool ok = true;

    lexer.value = len < SIZE_MAX / 4 ? malloc(3 * len + 1) : NULL;
    if (lexer.value == NULL) {
        return false;
    }
    if (len >= 3 && memcmp(text, bom, 3) == 0) {
        lexer.text += 3;
        lexer.len -= 3;
    }
    while (ok && token_read(&lexer)) {
        struct token token = {.file = file, .line = lexer.value_line};

        token.text = arena_copy(arena, lexer.value, lexer.value_len);
        ok = token.text != NULL && token_push(list, token);
    }
    free(lexer.value);
    return ok;
}

/* text with every occurrence of ref[0..ref_len) replaced by value. */
static char *replace_all(struct arena *arena, const char *text, const char *ref, size_t ref_len,
                         const char *value)
{
    size_t value_len = strlen(value);
    size_t count = 0;
    const char *at;
    char *ret;
    char *out;

    for (at = text; (at = memmem(at, strlen(at), ref, ref_len)) != NULL; at += ref_len) {
        count++;
    }
    ret = arena_alloc(arena, strlen(text) + count * value_len + 1);
    if (ret == NULL) {
        return NULL;
    }
    out = ret;
    while ((at = memmem(text, strlen(text), ref, ref_len)) != NULL) {
        memcpy(out, text, (size_t)(at - text));
        memcpy(out + (at - text), value, value_len);
        out += (size_t)(at - text) + value_len;
        text = at + ref_len;
    }
    memcpy(out, text, strlen(text) + 1);
    return ret;
}

/* One style of reference: from open (2 octets) to close. */
static const char *references_expand(struct arena *arena, const char *text, const char *open,
                                     const char *close, bool *ret_endless)
{
    for (unsigned rounds = 0; text != NULL; rounds++) {
        const char *start = strstr(text, open);
        const char *end = start != NULL ? strstr(start, close) : NULL;
        const char *value;
        char *name;

        if (end == NULL || end <= start + 2) {
            return text;
        }
        name = arena_copy(arena, start + 2, (size_t)(end - start) - 2);
        if (name == NULL) {
            return NULL;
        }
        value = getenv(name);
        if (rounds == EXPANSIONS_MAX || strlen(text) > EXPANDED_MAX) {
            *ret_endless = true;
            return NULL;
        }
        text = replace_all(arena, text, start, (size_t)(end - start) + strlen(close),
                           value != NULL ? value : "");
    }
    return NULL;
}

/** Environment references in a token. */
const char *environment_expand(struct arena *arena, const char *text, bool *ret_endless)
{
    *ret_endless = false;
    text = references_expand(arena, text, "{%", "%}", ret_endless);
    return text != NULL ? references_expand(arena, text, "{$", "}", ret_endless) : NULL;
}
