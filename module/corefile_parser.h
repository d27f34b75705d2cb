/* What corefile.c and corefile_import.c share: the parser's state, where it is, and its errors.
 *
 * Threads: one at a time per parser. Ownership: texts and snippets live in the arena.
 */
#pragma once

#include "corefile.h"
#include "error.h"
#include "jsontext.h"
#include "stream.h"

#include <jansson.h>

#define IMPORT_DEPTH_TEXT                                                                          \
    "maximum %s import depth (10000) exceeded" /**< one number, as CoreDNS                         \
                                                */

struct snippet {
    const char *name;
    struct token *tokens; /* in the arena */
    size_t count;
    struct snippet *next;
};

/* All lines of a directive in the block at hand. */
struct directive {
    struct jsontext lines; /* `NAME, [FILE, LINE, TEXT...` of the document, the last line open */
    const char *file;      /* of the last line; NULL before the first */
    uint32_t line;
};

struct corefile_parser {
    const char *filename;
    struct fwd_error *error;
    struct arena arena;
    struct stream stream;
    bool beyond; /* an import among the keys was the last thing, and brought nothing: there is no
                    current token */
    bool eof;    /* the keys ended with the text */
    struct snippet *snippets;
    unsigned snippet_imports;
    unsigned file_imports;
    struct jsontext out;
    size_t blocks_start; /* where in out the first block begins */
    json_t *warnings;
    /* the block at hand */
    size_t keys_start; /* where in out its first key begins */
    size_t key_count;
    const char *first_key;
    struct directive *directives; /* those beyond the count are kept for the next block */
    size_t directive_count;
    size_t directive_cap;
    json_t *by_name; /* name to index of directives */
};

/** @return FWD_ERR_NOMEM */
int corefile_nomem(struct corefile_parser *parser);

/** The current token's text, "" where there is none. */
const char *corefile_value(const struct corefile_parser *parser);

/** File and line of the current token. */
struct error_place corefile_place(const struct corefile_parser *parser);

/** Error `FILE:LINE - Error during parsing: ...` at the current token. @return FWD_ERR_SYNTAX */
int corefile_fail(struct corefile_parser *parser, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** The environment in text, as UTF-8. *ret is set on FWD_OK. */
int corefile_expand(struct corefile_parser *parser, const char *text, const char **ret);

/** The snippet of that name, or NULL. */
const struct snippet *corefile_snippet(const struct corefile_parser *parser, const char *name);

/** Replaces `import ARGUMENT`, of which "import" is current, by what it names. Then the token
 *  before it is current. */
int corefile_import(struct corefile_parser *parser);
