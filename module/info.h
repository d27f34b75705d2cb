/* What an instance says about itself: effective configuration and live state.
 *
 * Threads: any; numbers are read while they change, each for itself.
 */
#pragma once

#include <forward/abi.h>

struct fwd_instance;

/** Pushes the JSON document to sink. @return FWD_OK, FWD_ERR_NOMEM, or what sink returned */
int info_write(struct fwd_instance *instance, fwd_sink_fn sink, void *sink_arg);
