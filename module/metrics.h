/* All series of the process as one document.
 *
 * Threads: any. Standards: Prometheus text format 0.0.4; CoreDNS's coredns_forward_* and coredns_proxy_* families.
 */
#pragma once

#include <forward/abi.h>
#include <jansson.h>

struct series;

/** Pushes the document to sink. @return FWD_OK, FWD_ERR_ARG for an unknown format, FWD_ERR_NOMEM, or what sink returned */
int metrics_write(uint32_t format, fwd_sink_fn sink, void *sink_arg);

/** The histogram of the waits for a connection (new reference); NULL when nothing has waited, or out of memory. */
json_t *metrics_waited(const struct series *series);
