/* Lanes.
 *
 * Happy path: the first call of a thread takes the next number.
 * Failure modes: none; a thread too many is told so, and its users share or drop.
 */
#include "lane.h"

#include <stdatomic.h>

static atomic_uint lane_next;
static _Thread_local unsigned lane_taken; /* the lane + 1 */

/** The calling thread's lane. */
unsigned lane_mine(void)
{
    if (lane_taken == 0) {
        unsigned lane = atomic_fetch_add(&lane_next, 1);
        lane_taken = (lane < LANES ? lane : LANES) + 1;
    }
    return lane_taken - 1;
}
