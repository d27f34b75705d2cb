/* What corefile_read makes, as a tree, for the tests of it.
 *
 * Ownership: results are new references, the tokens are to be freed and their texts the tree's.
 * Failure modes: a document that is no JSON ends the program.
 */
#pragma once

#include "corefile.h"

#include <forward/abi.h>
#include <jansson.h>
#include <stdlib.h>

/** The document, also of what stands before a syntax error; NULL with any other error. */
static inline json_t *corefile_tree(const char *text, size_t len, const char *file, int *ret_status,
                                    struct fwd_error *error)
{
    struct jsontext doc;
    json_t *tree;

    *ret_status = corefile_read(text, len, file, &doc, error);
    if (*ret_status != FWD_OK && *ret_status != FWD_ERR_SYNTAX) {
        return NULL;
    }
    tree = json_loadb(doc.data, doc.len, JSON_REJECT_DUPLICATES, NULL);
    if (tree == NULL) {
        abort();
    }
    jsontext_free(&doc);
    return tree;
}

/** A directive's tokens: [NAME, [FILE, LINE, TEXT...]...]. NULL when out of memory. */
static inline struct fwd_token *corefile_tokens(const json_t *directive, uint32_t *ret_count)
{
    struct fwd_token *tokens;
    uint32_t count = 0;

    for (size_t i = 1; i < json_array_size(directive); i++) {
        count += (uint32_t)json_array_size(json_array_get(directive, i)) - 2;
    }
    tokens = calloc(count + 1, sizeof(*tokens));
    *ret_count = count;
    count = 0;
    for (size_t i = 1; tokens != NULL && i < json_array_size(directive); i++) {
        const json_t *line = json_array_get(directive, i);

        for (size_t j = 2; j < json_array_size(line); j++) {
            tokens[count++] = (struct fwd_token){
                .struct_size = sizeof(*tokens),
                .text = json_string_value(json_array_get(line, j)),
                .text_len = (uint32_t)json_string_length(json_array_get(line, j)),
                .file = json_string_value(json_array_get(line, 0)),
                .line = (uint32_t)json_integer_value(json_array_get(line, 1)),
            };
        }
    }
    return tokens;
}
