/* Looking up host names among the TOs, once, when an instance is made.
 *
 * Threads: any; blocks for up to 2 s per question. Ownership: replaces stanza->to. Standards: CoreDNS case 37 (resolver), 20 (duplicates).
 */
#pragma once

#include "config.h"

/** Replaces every host name of a stanza by its addresses, in place and without duplicates.
 *  @return FWD_OK, FWD_ERR_CONFIG with CoreDNS's words, FWD_ERR_NOMEM. @param pointer JSON pointer of the stanza */
int resolve_stanza(struct config_stanza *stanza, const char *pointer, struct fwd_error *error);
