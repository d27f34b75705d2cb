/* A whole Corefile as JSON: interface fwd.corefile/1.
 *
 *   {"blocks": [{"keys": [["Corefile", 1, ".:53", [".", "53", "dns"]]],
 *                "directives": [["forward", ["Corefile", 2, "forward", ".", "127.0.0.1"], ...]]}],
 *    "warnings": ["..."]}
 *
 * Blocks are in file order. A directive stands once per block, where it is first met, with the
 * tokens of all its lines (case 8); its name is expanded, its first token is as written (case 10).
 * After its name come its lines: each a file, a line, and the tokens that begin there.
 * Two tokens are on one line when their files are equal and the second's line is the first's plus
 * the newlines in the first's text (case 6). A key is its place and text, then its zones, several for
 * a CIDR notation, with port "" where none is given; or instead of them CoreDNS's error. A block without keys, which
 * serves nothing, is there when it has directives. Which directives exist is the host's to know.
 *
 * Threads: any. Ownership: the result is the caller's to free. Limits: TOKENS_MAX tokens, files of
 * FILE_MAX octets. Standards: coredns/caddy caddyfile/parse.go (corner cases 1-13).
 */
#pragma once

#include "jsontext.h"

#include <forward/abi.h>
#include <stddef.h>

/** Most tokens after all imports: snippets that import each other twice would fill any memory. A
 *  variable for the tests' sake. */
extern size_t corefile_tokens_max;

/** Parses text, which errors and relative imports call file. With FWD_ERR_SYNTAX *ret is what stands
 *  before the error, the block at hand included: CoreDNS complains of a directive that it does not
 *  know before it reads on.
 *  @return FWD_OK, FWD_ERR_SYNTAX with CoreDNS's text, file and line in *error, FWD_ERR_NOMEM */
int corefile_read(const char *text, size_t len, const char *file, struct jsontext *ret,
                  struct fwd_error *error);
