/* What a batch of queries has for one shared connection leaves together.
 *
 * Threads: each has a cork of its own. Standards: RFC 7766 6.2.1.1, 8.
 */
#pragma once

#include <stdbool.h>

struct conn;

/** From here on the calling thread keeps what it sends on shared connections. @return false when it does so already: then the end is not the caller's */
bool cork_begin(void);

/** Sends what has been kept. */
void cork_end(void);

/** Whether a message for this connection may wait for cork_end, which then calls the connection's flush. conn->io held. */
bool cork_hold(struct conn *conn);
