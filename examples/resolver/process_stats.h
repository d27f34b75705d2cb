/* The process_* series that every Prometheus client library has: CPU, memory, descriptors, network.
 *
 * Threads: any. Limits: what /proc does not tell is left out.
 */
#pragma once

#include "text.h"

void process_stats_write(struct text *out);
