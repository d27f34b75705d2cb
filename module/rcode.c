/* RCODE mnemonics: a table, searched in line. Failure modes: none; what is not in it is reported as
 * such. */
#include "rcode.h"

#include <stddef.h>
#include <strings.h>

static const struct {
    const char *mnemonic;
    int number;
} rcodes[] = {
    {"NOERROR", 0},  {"FORMERR", 1},    {"SERVFAIL", 2}, {"NXDOMAIN", 3},  {"NOTIMP", 4},
    {"REFUSED", 5},  {"YXDOMAIN", 6},   {"YXRRSET", 7},  {"NXRRSET", 8},   {"NOTAUTH", 9},
    {"NOTZONE", 10}, {"DSOTYPENI", 11}, {"BADSIG", 16},  {"BADKEY", 17},   {"BADTIME", 18},
    {"BADMODE", 19}, {"BADNAME", 20},   {"BADALG", 21},  {"BADTRUNC", 22}, {"BADCOOKIE", 23},
    {"NOTIMPL", 4},
};

/** Mnemonic to number. */
int rcode_number(const char *mnemonic)
{
    for (size_t i = 0; i < sizeof(rcodes) / sizeof(*rcodes); i++) {
        if (strcasecmp(mnemonic, rcodes[i].mnemonic) == 0) {
            return rcodes[i].number;
        }
    }
    return -1;
}

/** Number to mnemonic. */
const char *rcode_mnemonic(int number)
{
    for (size_t i = 0; i < sizeof(rcodes) / sizeof(*rcodes); i++) {
        if (number == rcodes[i].number) {
            return rcodes[i].mnemonic;
        }
    }
    return NULL;
}
