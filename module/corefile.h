/* A whole Corefile as JSON: interface fwd.corefile/1.
 *
 *   {"blocks": [{"keys": [{"text": ".:53", "file": "Corefile", "line": 1,
 *                          "zones": [{"zone": ".", "port": "53", "transport": "dns"}]}],
 *                "directives": [{"name": "forward",
 *                                "tokens": [{"text": "forward", "file": "Corefile", "line": 2},
 * ...]}]}], "warnings": ["..."]}
 *
 * Blocks are in file order. A directive stands once per block, where it is first met, with the
 * tokens of all its lines (case 8); its name is expanded, its first token is as written (case 10).
 * Two tokens are on one line when their files are equal and the second's line is the first's plus
 * the newlines in the first's text (case 6). A key has either zones, several for a CIDR notation,
 * with port "" where none is given, or "error" with CoreDNS's text. A block without keys, which
 * serves nothing, is there when it has directives. Which directives exist is the host's to know.
 *
 * Threads: any. Ownership: the result is a new reference. Limits: TOKENS_MAX tokens, files of
 * FILE_MAX octets. Standards: coredns/caddy caddyfile/parse.go (corner cases 1-13).
 */
#pragma once

#include <forward/abi.h>
#include <jansson.h>
#include <stddef.h>

/** Most tokens after all imports: snippets that import each other twice would fill any memory. A
 *  variable for the tests' sake. */
extern size_t corefile_tokens_max;

/** Parses text, which errors and relative imports call file.
 *  @return FWD_OK, FWD_ERR_SYNTAX with CoreDNS's text, file and line in *error, FWD_ERR_NOMEM */
int corefile_parse(const char *text, size_t len, const char *file, json_t **ret,
                   struct fwd_error *error);

/** As corefile_parse; but with FWD_ERR_SYNTAX *ret is what stands before the error, the block at hand
 *  included: CoreDNS complains of a directive that it does not know before it reads on. */
int corefile_read(const char *text, size_t len, const char *file, json_t **ret,
                  struct fwd_error *error);
