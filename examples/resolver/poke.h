/* Making main look at what is due (control.h).
 *
 * Threads: any. The signal is for the process, and main alone waits for it.
 */
#pragma once

#include <signal.h>
#include <unistd.h>

#define SIGNAL_POKE SIGRTMIN

static inline void poke_main(void)
{
    (void)kill(getpid(), SIGNAL_POKE);
}
