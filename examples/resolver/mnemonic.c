/* Tables of names.
 *
 * Happy path: a look-up in a sorted or a small table. Failure modes: an unknown number is printed
 * as such (RFC 3597).
 */
#include "mnemonic.h"

#include <stdio.h>
#include <stdlib.h>

struct mnemonic {
    uint16_t number;
    const char *name;
};

/* Ascending, for bsearch. */
static const struct mnemonic types[] = {
    {0, "None"},     {1, "A"},           {2, "NS"},           {3, "MD"},         {4, "MF"},
    {5, "CNAME"},    {6, "SOA"},         {7, "MB"},           {8, "MG"},         {9, "MR"},
    {10, "NULL"},    {12, "PTR"},        {13, "HINFO"},       {14, "MINFO"},     {15, "MX"},
    {16, "TXT"},     {17, "RP"},         {18, "AFSDB"},       {19, "X25"},       {20, "ISDN"},
    {21, "RT"},      {23, "NSAP-PTR"},   {24, "SIG"},         {25, "KEY"},       {26, "PX"},
    {27, "GPOS"},    {28, "AAAA"},       {29, "LOC"},         {30, "NXT"},       {31, "EID"},
    {32, "NIMLOC"},  {33, "SRV"},        {34, "ATMA"},        {35, "NAPTR"},     {36, "KX"},
    {37, "CERT"},    {39, "DNAME"},      {41, "OPT"},         {42, "APL"},       {43, "DS"},
    {44, "SSHFP"},   {45, "IPSECKEY"},   {46, "RRSIG"},       {47, "NSEC"},      {48, "DNSKEY"},
    {49, "DHCID"},   {50, "NSEC3"},      {51, "NSEC3PARAM"},  {52, "TLSA"},      {53, "SMIMEA"},
    {55, "HIP"},     {56, "NINFO"},      {57, "RKEY"},        {58, "TALINK"},    {59, "CDS"},
    {60, "CDNSKEY"}, {61, "OPENPGPKEY"}, {62, "CSYNC"},       {63, "ZONEMD"},    {64, "SVCB"},
    {65, "HTTPS"},   {99, "SPF"},        {100, "UINFO"},      {101, "UID"},      {102, "GID"},
    {103, "UNSPEC"}, {104, "NID"},       {105, "L32"},        {106, "L64"},      {107, "LP"},
    {108, "EUI48"},  {109, "EUI64"},     {128, "NXNAME"},     {249, "TKEY"},     {250, "TSIG"},
    {251, "IXFR"},   {252, "AXFR"},      {253, "MAILB"},      {254, "MAILA"},    {255, "ANY"},
    {256, "URI"},    {257, "CAA"},       {258, "AVC"},        {260, "AMTRELAY"}, {261, "RESINFO"},
    {32768, "TA"},   {32769, "DLV"},     {65535, "Reserved"},
};

static const struct mnemonic classes[] = {
    {1, "IN"}, {2, "CS"}, {3, "CH"}, {4, "HS"}, {254, "NONE"}, {255, "ANY"},
};

static const struct mnemonic rcodes[] = {
    {0, "NOERROR"},  {1, "FORMERR"},    {2, "SERVFAIL"}, {3, "NXDOMAIN"},  {4, "NOTIMP"},
    {5, "REFUSED"},  {6, "YXDOMAIN"},   {7, "YXRRSET"},  {8, "NXRRSET"},   {9, "NOTAUTH"},
    {10, "NOTZONE"}, {11, "DSOTYPENI"}, {16, "BADSIG"},  {17, "BADKEY"},   {18, "BADTIME"},
    {19, "BADMODE"}, {20, "BADNAME"},   {21, "BADALG"},  {22, "BADTRUNC"}, {23, "BADCOOKIE"},
};

static int mnemonic_compare(const void *a, const void *b)
{
    return ((const struct mnemonic *)a)->number - ((const struct mnemonic *)b)->number;
}

static const char *mnemonic_find(const struct mnemonic *table, size_t count, unsigned number,
                                 const char *prefix, char buffer[MNEMONIC_MAX])
{
    const struct mnemonic key = {.number = (uint16_t)number};
    const struct mnemonic *row = bsearch(&key, table, count, sizeof(*table), mnemonic_compare);
    if (row != NULL) {
        return row->name;
    }
    (void)snprintf(buffer, MNEMONIC_MAX, "%s%u", prefix, number & 0xffffu);
    return buffer;
}

/** Name of a type. */
const char *type_name(uint16_t type, char buffer[MNEMONIC_MAX])
{
    return mnemonic_find(types, sizeof(types) / sizeof(types[0]), type, "TYPE", buffer);
}

/** Name of a class. */
const char *class_name(uint16_t qclass, char buffer[MNEMONIC_MAX])
{
    return mnemonic_find(classes, sizeof(classes) / sizeof(classes[0]), qclass, "CLASS", buffer);
}

/** Name of an RCODE. */
const char *rcode_name(unsigned rcode, char buffer[MNEMONIC_MAX])
{
    return mnemonic_find(rcodes, sizeof(rcodes) / sizeof(rcodes[0]), rcode, "", buffer);
}
