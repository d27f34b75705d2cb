/* What main does while the daemon runs: signals, the reload directive, what is due at some time.
 *
 * Threads: main only. SIGUSR1 reloads, SIGUSR2 prints how the upstreams are, SIGTERM and SIGINT end
 * the daemon; SIGNAL_POKE makes it look again at what is due.
 */
#pragma once

#include "corefile_source.h"
#include "service.h"

#include <signal.h>

/** Blocks the signals in the calling thread, and so in all that it starts from then on. */
void control_signals(sigset_t *ret_signals);

/** Serves until a signal ends it; the lameduck time has passed when it returns. */
void control_run(struct service *service, struct corefile_source *source, const sigset_t *signals);
