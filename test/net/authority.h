/* What the tests of encrypted upstreams start from: a directory with an authority's certificate,
 * and servers that it vouches for.
 *
 * Threads: one. Ownership: authority_close removes the directory and frees the certificates.
 */
#pragma once

#include "tls_upstream.h"

#define SERVER_NAME "one.test"

struct authority {
    char directory[64];
    char ca_file[96];
    struct certificate ca;
    struct certificate server; /**< for SERVER_NAME, 127.0.0.1 and ::1 */
};

void authority_open(struct authority *authority);
void authority_close(struct authority *authority);

/** A path in the directory; the caller's until the next call but seven. */
const char *authority_path(const struct authority *authority, const char *file);

/** An upstream of a kind with the authority's certificate. @param more what else it is like; NULL
 * for nothing */
struct tls_upstream *authority_upstream(const struct authority *authority, enum tls_kind kind,
                                        const struct tls_setup *more);
