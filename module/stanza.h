/* The forward directives of a server block to JSON configuration.
 *
 * Threads: any. Ownership: the result is a new reference. Limits: FWD_MAX_UPSTREAMS TO arguments
 * per stanza. Standards: CoreDNS 1.14.7 plugin/forward/setup.go (corner cases 14-40).
 */
#pragma once

#include <forward/abi.h>
#include <jansson.h>

/** Tokens, or text read with the Corefile's lexer, to {"forward": [STANZA, ...]}, every option
 * present, or with FWD_DIRECTIVE_BRIEF those that are set; "warnings" is there when there are some. Host names stay what they are. Reads the
 * resolv.conf and TLS files that are named.
 *  @param[out] ret with an error {"warnings"} alone, or NULL when there are none
 *  @return FWD_OK, FWD_ERR_ARG, FWD_ERR_SYNTAX and FWD_ERR_CONFIG with CoreDNS's text in *error,
 * FWD_ERR_NOMEM */
int stanza_parse(const struct fwd_directive *directive, json_t **ret, struct fwd_error *error);
