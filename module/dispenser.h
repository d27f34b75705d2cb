/* Tokens handed out one by one, with CoreDNS's rules of what is on the same line and in the same
 * block.
 *
 * Threads: one at a time. Ownership: borrows the tokens. Standards: coredns/caddy
 * caddyfile/dispenser.go (cases 6, 7, 13).
 */
#pragma once

#include "lexer.h"

struct fwd_error;

struct dispenser {
    const char *filename; /**< of tokens whose file is NULL */
    const struct token *tokens;
    size_t count;
    size_t next; /**< index after the current token; 0 before the first */
    unsigned nesting;
};

/** Steps to the next token. @return false at the end */
bool dispenser_next(struct dispenser *dispenser);

/** Steps to the next token if it is on the same line. */
bool dispenser_next_arg(struct dispenser *dispenser);

/** As dispenser_next_arg, but leaves a `{` alone. To be used where arguments are listed. */
bool dispenser_next_listed(struct dispenser *dispenser);

/** Steps to the next token inside of { }. @return false when there is no block or it has ended */
bool dispenser_next_block(struct dispenser *dispenser);

/** The current token's text, "" before the first. */
const char *dispenser_value(const struct dispenser *dispenser);

/** Error `FILE:LINE - Error during parsing: ...` about the current token, with prefix before it.
 * @return FWD_ERR_SYNTAX */
int dispenser_error(const struct dispenser *dispenser, const char *prefix, struct fwd_error *error,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));

/** Error about a missing argument after the current token. @return FWD_ERR_SYNTAX */
int dispenser_argument_error(const struct dispenser *dispenser, const char *prefix,
                             struct fwd_error *error);
