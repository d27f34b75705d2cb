/* Lanes: small numbers for the threads that answer queries, so that each can write to memory that
 * no other thread writes to.
 *
 * Threads: any; a thread keeps its lane until it ends, and no other ever gets it. Limits: LANES
 * threads; those that come later are told LANES.
 */
#pragma once

enum { LANES = 72 }; /* the most workers, and some I/O threads of the module */

unsigned lane_mine(void);
