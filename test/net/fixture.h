/* What the tests of streams that carry many queries start from: an authority, an upstream, an
 * instance that forwards to it, and questions that must be answered well.
 *
 * Threads: one. Ownership: fixture_teardown destroys the upstreams; hosts are the test's to close.
 */
#pragma once

#include "authority.h"
#include "host.h"

extern struct authority authority;
extern struct tls_upstream *up, *other; /**< the test's to create; NULL when there is none */
extern const int tls_versions[2]; /* those that are spoken, of OpenSSL */

/** For tcase_add_checked_fixture. */
void fixture_setup(void);
void fixture_teardown(void);

/** Makes `up`. @param setup what it is like but for kind and certificate; NULL for nothing else */
void fixture_upstream(enum tls_kind kind, const struct tls_setup *setup);

/** An instance that forwards everything to `up` and knows its CA and name. @param more lines */
struct host *fixture_open(int mode, const char *more);
struct host *fixture_open_with(int mode, const struct service *services, const char *more);

/** A tls_pick_fn: queries of the test fail, probes get a refusal. */
void pick_probes(void *arg, const struct tls_seen *query, struct tls_rule *rule);

/** Asks, and fails the test unless the answer is the good one. */
void ask_good(struct host *host, const char *name);

/** Asks for `prefixNUMBER.test` in one call of serve; all must be answered well. */
void ask_batch(struct host *host, const char *prefix, unsigned count);
/** The same of a batch that has been sent, beginning with token `first`, and has ended. */
void check_batch(struct host *host, const char *prefix, uint64_t first, unsigned count);

/** The least time that one of five questions takes, asked one after the other after so many others:
 * to a new connection the kernel puts no acknowledgement off. */
uint64_t fixture_best_ns(struct host *host, unsigned before);
