/* The document of /metrics: the module's series, CoreDNS's server series, the process's.
 *
 * Threads: any. Standards: Prometheus text exposition format 0.0.4.
 */
#pragma once

#include "text.h"

struct service;

void scrape_write(struct service *service, struct text *out);
