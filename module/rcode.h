/* RCODE mnemonics as miekg/dns and so CoreDNS spell them.
 *
 * Threads: any. Standards: IANA DNS RCODEs; 16 is BADSIG, not BADVERS (case 35).
 */
#pragma once

/** The number of a mnemonic in any case (NOTIMPL is an alias of NOTIMP), or -1. */
int rcode_number(const char *mnemonic);

/** The mnemonic of a number, or NULL. */
const char *rcode_mnemonic(int number);
