/* The stream of tokens that the Corefile parser reads: one token current, imports put in front of
 * what follows.
 *
 * Threads: one at a time. Ownership: the lists are freed by stream_fini; texts belong to an arena.
 */
#pragma once

#include "lexer.h"

struct stream {
    struct token_list past;    /**< the last one is current */
    struct token_list pending; /**< the last one is next */
};

/** Puts tokens in front of what is pending. @return false when out of memory */
bool stream_put(struct stream *stream, const struct token *tokens, size_t count);

/** Steps to the next token. @return false at the end, which leaves the current one */
bool stream_next(struct stream *stream);

/** Steps back by one. */
void stream_back(struct stream *stream);

/** Drops the current token. */
void stream_drop(struct stream *stream);

/** The current token, NULL before the first. */
struct token *stream_current(const struct stream *stream);

/** Whether the next token, if any, is on the current one's line. */
bool stream_next_same_line(const struct stream *stream);

/** Whether the current token is on a later line than the one before it. */
bool stream_new_line(const struct stream *stream);

void stream_fini(struct stream *stream);
