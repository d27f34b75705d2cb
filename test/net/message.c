/* DNS messages for the tests.
 *
 * Happy path: message_query makes a query, an upstream makes message_answer of it, the test asks
 * message_is_answer: the record's data is a hash of the name, so an answer that was crossed with
 * another query's shows.
 *
 * Failure modes: a buffer that is too small or a name that is no name is a defect of the test and
 * aborts.
 */
#include "message.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER 12
#define FLAG_QR 0x80
#define FLAG_TC 0x02
#define FLAG_RD 0x01
#define FLAG_RA 0x80

static const char *const bad_names[BAD_COUNT] = {
    [BAD_NONE] = "none",
    [BAD_WRONG_ID] = "wrong ID",
    [BAD_OTHER_QNAME] = "other QNAME",
    [BAD_OTHER_QTYPE] = "other QTYPE",
    [BAD_OTHER_QCLASS] = "other QCLASS",
    [BAD_QR_0] = "QR 0",
    [BAD_NO_QUESTION] = "no question",
    [BAD_THREE_OCTETS] = "3 octets",
    [BAD_EMPTY] = "0 octets",
    [BAD_POINTER_LOOP] = "compression loop",
    [BAD_RDLENGTH] = "RDLENGTH past the end",
    [BAD_TWO_QUESTIONS] = "two questions",
    [BAD_OPCODE] = "other opcode",
    [BAD_ELEVEN_OCTETS] = "11 octets",
    [BAD_HEADER_ONLY] = "header only",
    [BAD_CUT_QNAME] = "cut in QNAME",
    [BAD_CUT_QTYPE] = "cut in QTYPE",
    [BAD_CUT_RR_HEADER] = "cut in an RR header",
    [BAD_CUT_RDATA] = "cut in RDATA",
    [BAD_FORWARD_POINTER] = "forward pointer",
    [BAD_POINTER_PAST_END] = "pointer past the end",
    [BAD_LABEL_TYPE_01] = "label type 01",
    [BAD_LABEL_TYPE_10] = "label type 10",
    [BAD_NAME_TOO_LONG] = "name of 300 octets",
    [BAD_QDCOUNT_200] = "QDCOUNT 200",
    [BAD_ANCOUNT] = "ANCOUNT too large",
    [BAD_ARCOUNT] = "ARCOUNT too large",
    [BAD_QUESTION_POINTER] = "question name points at itself",
    [BAD_GARBAGE] = "garbage",
    [BAD_BARE_ERROR] = "error without question",
    [BAD_OTHER_CASE] = "other letter case",
};

const char *bad_name(enum bad bad)
{
    return bad_names[bad];
}

/** Stops a test that is itself defective. */
static void require(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "message: %s\n", what);
        abort();
    }
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

/** FNV-1a of a name as message_question gives it. */
static uint32_t name_hash(const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name != '\0'; name++) {
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    }
    return hash;
}

size_t message_query(uint8_t *buf, size_t cap, uint16_t id, const char *name, uint16_t type)
{
    require(strlen(name) + HEADER + 6 <= cap, "no room for a query");
    memset(buf, 0, HEADER);
    put16(buf, id);
    buf[2] = FLAG_RD;
    put16(buf + 4, 1);
    size_t at = HEADER;
    while (*name != '\0') {
        size_t label = strcspn(name, ".");
        require(label < 64 && (label > 0 || name[1] == '\0'), "not a name");
        if (label > 0) {
            buf[at++] = (uint8_t)label;
            memcpy(buf + at, name, label);
            at += label;
        }
        name += label + (name[label] == '.');
    }
    buf[at++] = 0;
    put16(buf + at, type);
    put16(buf + at + 2, CLASS_IN);
    return at + 4;
}

size_t message_question_end(const uint8_t *wire, size_t len)
{
    size_t at = HEADER;
    if (len < HEADER || get16(wire + 4) == 0) {
        return 0;
    }
    while (at < len && wire[at] != 0) {
        if (wire[at] > 63) {
            return 0;
        }
        at += 1u + wire[at];
    }
    return at + 5 <= len ? at + 5 : 0;
}

uint16_t message_question(const uint8_t *wire, size_t len, char *name, size_t cap)
{
    size_t end = message_question_end(wire, len);
    size_t out = 0;
    if (end == 0) {
        return 0;
    }
    for (size_t at = HEADER; wire[at] != 0; at += 1u + wire[at]) {
        require(out + wire[at] + 2 <= cap, "no room for a name");
        if (out > 0) {
            name[out++] = '.';
        }
        for (size_t i = 0; i < wire[at]; i++) {
            name[out++] = (char)tolower(wire[at + 1 + i]);
        }
    }
    name[out] = '\0';
    return (uint16_t)get16(wire + end - 4);
}

/** Appends a record owned by the question's name. */
static size_t append_record(uint8_t *buf, size_t at, size_t cap, unsigned type,
                            const uint8_t *rdata, size_t rdata_len)
{
    require(at + 12 + rdata_len <= cap, "no room for a record");
    put16(buf + at, 0xc000 | HEADER);
    put16(buf + at + 2, type);
    put16(buf + at + 4, CLASS_IN);
    put16(buf + at + 6, 0);
    put16(buf + at + 8, 60);
    put16(buf + at + 10, (unsigned)rdata_len);
    memcpy(buf + at + 12, rdata, rdata_len);
    return at + 12 + rdata_len;
}

size_t message_answer(uint8_t *buf, size_t cap, const uint8_t *query, size_t query_len,
                      unsigned rcode, size_t pad)
{
    char name[256] = "";
    size_t at = message_question_end(query, query_len);
    require(at > 0 && at <= cap, "answer to a query without a question");
    (void)message_question(query, query_len, name, sizeof(name));
    memcpy(buf, query, at);
    buf[2] = (uint8_t)(FLAG_QR | (query[2] & FLAG_RD));
    buf[3] = (uint8_t)(FLAG_RA | rcode);
    memset(buf + 4, 0, 8);
    put16(buf + 4, 1);
    if (rcode == NOERROR) {
        uint32_t hash = name_hash(name);
        uint8_t rdata[4] = {(uint8_t)(hash >> 24), (uint8_t)(hash >> 16), (uint8_t)(hash >> 8),
                            (uint8_t)hash};
        put16(buf + 6, 1);
        at = append_record(buf, at, cap, TYPE_A, rdata, sizeof(rdata));
    }
    if (pad > 0) {
        static const uint8_t zeros[MESSAGE_MAX];
        put16(buf + 10, 1);
        at = append_record(buf, at, cap, TYPE_TXT, zeros, pad);
    }
    return at;
}

size_t message_add_opt(uint8_t *buf, size_t cap, size_t len, const void *options,
                       size_t options_len)
{
    static const uint8_t fixed[9] = {0, 0, TYPE_OPT, 1400 >> 8, 1400 & 0xff};
    require(len + 11 + options_len <= cap, "no room for an OPT");
    memcpy(buf + len, fixed, sizeof(fixed));
    put16(buf + len + 9, (unsigned)options_len);
    memcpy(buf + len + 11, options, options_len);
    put16(buf + 10, get16(buf + 10) + 1);
    return len + 11 + options_len;
}

size_t message_addresses(uint8_t *buf, size_t cap, const uint8_t *query, size_t query_len,
                         unsigned rcode, const char *list, uint32_t ttl)
{
    char text[1024], name[256];
    uint16_t type = message_question(query, query_len, name, sizeof(name));
    int family = type == TYPE_AAAA ? AF_INET6 : AF_INET;
    size_t at = message_answer(buf, cap, query, query_len, SERVFAIL, 0);
    unsigned count = 0;
    require(strlen(list) < sizeof(text), "too many addresses");
    strcpy(text, list);
    for (char *save = NULL, *word = strtok_r(text, " ", &save); word != NULL;
         word = strtok_r(NULL, " ", &save)) {
        uint8_t ip[16];
        if ((type == TYPE_A || type == TYPE_AAAA) && inet_pton(family, word, ip) == 1) {
            size_t record = at;
            at = append_record(buf, at, cap, type, ip, family == AF_INET ? 4 : 16);
            put16(buf + record + 6, (uint16_t)(ttl >> 16));
            put16(buf + record + 8, (uint16_t)ttl);
            count++;
        }
    }
    buf[3] = (uint8_t)(FLAG_RA | rcode);
    put16(buf + 6, (uint16_t)count);
    return at;
}

bool message_is_answer(const uint8_t *wire, size_t len, uint16_t id, const char *name)
{
    uint8_t query[512];
    uint8_t expected[600];
    if (len < HEADER) {
        return false;
    }
    size_t query_len = message_query(query, sizeof(query), id, name, TYPE_A);
    query[2] = (uint8_t)((query[2] & ~FLAG_RD) | (wire[2] & FLAG_RD));
    size_t expected_len = message_answer(expected, sizeof(expected), query, query_len, 0, 0);
    if (len < expected_len) {
        return false;
    }
    /* The counts behind the answer section may differ: a padded answer is a good one too. */
    return memcmp(wire, expected, 10) == 0 &&
           memcmp(wire + HEADER, expected + HEADER, expected_len - HEADER) == 0;
}

/** Replaces the good answer's owner name, which is the pointer at `question`, by len octets. */
static size_t replace_owner(uint8_t *buf, size_t len, size_t question, const uint8_t *name,
                            size_t name_len)
{
    memmove(buf + question + name_len, buf + question + 2, len - question - 2);
    memcpy(buf + question, name, name_len);
    return len - 2 + name_len;
}

/** Faults of the question and the header. @return the new length, 0 when bad is none of them */
static size_t spoil_question(uint8_t *buf, size_t len, size_t question, enum bad bad)
{
    switch (bad) {
    case BAD_WRONG_ID:
        buf[1] ^= 1;
        return len;
    case BAD_OTHER_QNAME:
        buf[HEADER + 1] = buf[HEADER + 1] == 'x' ? 'y' : 'x';
        return len;
    case BAD_OTHER_QTYPE:
        put16(buf + question - 4, 28);
        return len;
    case BAD_OTHER_QCLASS:
        put16(buf + question - 2, 3);
        return len;
    case BAD_QR_0:
        buf[2] &= (uint8_t)~FLAG_QR;
        return len;
    case BAD_NO_QUESTION:
        memset(buf + 4, 0, 8);
        return HEADER;
    case BAD_BARE_ERROR:
        memset(buf + 4, 0, 8);
        buf[3] = (uint8_t)((buf[3] & 0xf0) | REFUSED);
        return HEADER;
    case BAD_TWO_QUESTIONS:
        put16(buf + 4, 2);
        memcpy(buf + question, buf + HEADER, question - HEADER);
        put16(buf + 6, 0);
        return question + question - HEADER;
    case BAD_OPCODE:
        buf[2] |= 2 << 3;
        return len;
    case BAD_HEADER_ONLY:
        return HEADER;
    case BAD_CUT_QNAME:
        return HEADER + 2;
    case BAD_CUT_QTYPE:
        return question - 3;
    case BAD_QDCOUNT_200:
        put16(buf + 4, 200);
        return len;
    case BAD_QUESTION_POINTER:
        put16(buf + HEADER, 0xc000 | HEADER);
        put16(buf + HEADER + 2, TYPE_A);
        put16(buf + HEADER + 4, CLASS_IN);
        put16(buf + 6, 0);
        return HEADER + 6;
    case BAD_OTHER_CASE:
        for (size_t i = HEADER; i < question - 5; i++) {
            buf[i] = isalpha(buf[i]) ? buf[i] ^ 0x20 : buf[i];
        }
        return len;
    case BAD_GARBAGE:
        for (size_t i = 4; i < len; i++) {
            buf[i] = (uint8_t)(i * 151 + 77);
        }
        return len;
    default:
        return 0;
    }
}

/** Faults of the answer section. @return the new length, 0 when bad is none of them */
static size_t spoil_record(uint8_t *buf, size_t len, size_t question, enum bad bad)
{
    uint8_t name[300];
    switch (bad) {
    case BAD_POINTER_LOOP:
        put16(buf + question, 0xc000 | (unsigned)question);
        return len;
    case BAD_FORWARD_POINTER:
        put16(buf + question, 0xc000 | (unsigned)(question + 4));
        return len;
    case BAD_POINTER_PAST_END:
        put16(buf + question, 0xffff);
        return len;
    case BAD_LABEL_TYPE_01:
    case BAD_LABEL_TYPE_10:
        buf[question] = bad == BAD_LABEL_TYPE_01 ? 0x41 : 0x81;
        return len;
    case BAD_NAME_TOO_LONG:
        memset(name, 'a', sizeof(name));
        for (size_t i = 0; i < 299; i += 23) {
            name[i] = 22;
        }
        name[299] = 0;
        return replace_owner(buf, len, question, name, sizeof(name));
    case BAD_RDLENGTH:
        put16(buf + question + 10, 400);
        return len;
    case BAD_CUT_RR_HEADER:
        return question + 7;
    case BAD_CUT_RDATA:
        return len - 2;
    case BAD_ANCOUNT:
        put16(buf + 6, 7);
        return len;
    case BAD_ARCOUNT:
        put16(buf + 10, 9);
        return len;
    default:
        return 0;
    }
}

size_t message_bad(uint8_t *buf, size_t cap, const uint8_t *query, size_t query_len, enum bad bad)
{
    size_t len = message_answer(buf, cap, query, query_len, 0, 0);
    size_t question = message_question_end(query, query_len);
    require(len + 300 <= cap && question > HEADER + 8, "no room for a bad answer");
    if (bad == BAD_NONE) {
        return len;
    }
    if (bad == BAD_EMPTY) {
        return 0;
    }
    if (bad == BAD_THREE_OCTETS || bad == BAD_ELEVEN_OCTETS) {
        return bad == BAD_THREE_OCTETS ? 3 : 11;
    }
    /* The record's data is wrong in every bad answer, so that one which is let through is noticed.
     * Another letter case is no fault. */
    buf[len - 1] ^= bad == BAD_OTHER_CASE ? 0 : 0xff;
    size_t spoilt = spoil_question(buf, len, question, bad);
    if (spoilt == 0) {
        spoilt = spoil_record(buf, len, question, bad);
    }
    require(spoilt > 0, "unknown kind of bad answer");
    return spoilt;
}

uint16_t message_id(const uint8_t *wire)
{
    return (uint16_t)get16(wire);
}

void message_set_id(uint8_t *wire, uint16_t id)
{
    put16(wire, id);
}

unsigned message_rcode(const uint8_t *wire)
{
    return wire[3] & 15u;
}

bool message_tc(const uint8_t *wire)
{
    return (wire[2] & FLAG_TC) != 0;
}
