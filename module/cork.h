/* What a batch of queries has for one shared connection leaves together.
 *
 * Threads: each has a cork of its own. Standards: RFC 7766 6.2.1.1, 8.
 */
#pragma once

#include <stdbool.h>

struct conn;

/** Begins a call of the host's. With several queries the calling thread keeps from here on what it sends on shared connections; not so in a call that the
 *  host makes from inside another one: that may be for an engine whose end nobody holds up. */
void cork_begin(bool several);

/** Ends it: what has been kept is sent. Until it returns the caller's instance, and so its engine, must not end. */
void cork_end(void);

/** Whether a message for this connection may wait for cork_end, which then calls the connection's flush. conn->io held. */
bool cork_hold(struct conn *conn);
