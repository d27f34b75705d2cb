/* DNS messages for the tests: queries, answers whose data proves which question they answer, and
 * answers that are wrong in one way.
 *
 * Deliberately independent of module/wire.c, so that a fault there is not repeated here.
 *
 * Threads: any; no state.
 *
 * Ownership: all buffers are the caller's.
 *
 * Limits: a message fits MESSAGE_MAX octets.
 *
 * Standards: RFC 1035 4.1, RFC 6891.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MESSAGE_MAX 65535
#define TYPE_A 1
#define TYPE_NS 2
#define TYPE_TXT 16
#define TYPE_AAAA 28
#define TYPE_OPT 41
#define CLASS_IN 1

/** RCODEs that the tests use by name. */
enum { NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED };

/** What is wrong with a message made by message_bad. */
enum bad {
    BAD_NONE,
    BAD_WRONG_ID,
    BAD_OTHER_QNAME,
    BAD_OTHER_QTYPE,
    BAD_OTHER_QCLASS,
    BAD_QR_0,
    BAD_NO_QUESTION, /**< QDCOUNT 0 and no question */
    BAD_THREE_OCTETS,
    BAD_EMPTY,        /**< a datagram of no octets */
    BAD_POINTER_LOOP, /**< owner name points at itself */
    BAD_RDLENGTH,     /**< past the end of the message */
    BAD_TWO_QUESTIONS,
    BAD_OPCODE,        /**< STATUS */
    BAD_ELEVEN_OCTETS, /**< one short of a header */
    BAD_HEADER_ONLY,   /**< QDCOUNT 1 but the header is all */
    BAD_CUT_QNAME,
    BAD_CUT_QTYPE,
    BAD_CUT_RR_HEADER,
    BAD_CUT_RDATA,
    BAD_FORWARD_POINTER,
    BAD_POINTER_PAST_END,
    BAD_LABEL_TYPE_01,
    BAD_LABEL_TYPE_10,
    BAD_NAME_TOO_LONG, /**< an owner name of 300 octets */
    BAD_QDCOUNT_200,
    BAD_ANCOUNT, /**< promises more records than there are */
    BAD_ARCOUNT,
    BAD_QUESTION_POINTER, /**< the question's name is a pointer to itself */
    BAD_GARBAGE,          /**< the right ID and QR, then noise */
    BAD_OTHER_CASE, /**< the question in other letter case; not wrong, but not what was asked either
                     */
    BAD_BARE_ERROR, /**< a header with REFUSED, and nothing else; over a stream it is an answer */
    BAD_COUNT
};

/** Name of a kind, for failure messages. */
const char *bad_name(enum bad bad);

/** Builds a query with RD; name in dotted text, with or without the last dot.
 *  @return its length; aborts on a name that does not fit (a defect of the test) */
size_t message_query(uint8_t *buf, size_t cap, uint16_t id, const char *name, uint16_t type);

/** Builds the good answer to query: one A record whose data is the hash of the lower-cased QNAME.
 *  @param rcode  its RCODE; other than NOERROR leaves the record out
 *  @param pad  octets of an additional TXT record, 0 for none, so that answers of any size can be
 * had */
size_t message_answer(uint8_t *buf, size_t cap, const uint8_t *query, size_t query_len,
                      unsigned rcode, size_t pad);

/** Appends an OPT record with these options. @return the new length */
size_t message_add_opt(uint8_t *buf, size_t cap, size_t len, const void *options,
                       size_t options_len);

/** Builds an answer with the addresses of the list, parted by blanks, that are of the QTYPE's kind.
 *  @param ttl  of the records, seconds */
size_t message_addresses(uint8_t *buf, size_t cap, const uint8_t *query, size_t query_len,
                         unsigned rcode, const char *list, uint32_t ttl);

/** Builds an answer to query that is wrong in the way given. */
size_t message_bad(uint8_t *buf, size_t cap, const uint8_t *query, size_t query_len, enum bad bad);

/** Tells whether wire is the good answer to a question for name with this ID. */
bool message_is_answer(const uint8_t *wire, size_t len, uint16_t id, const char *name);

uint16_t message_id(const uint8_t *wire);
void message_set_id(uint8_t *wire, uint16_t id);
unsigned message_rcode(const uint8_t *wire);
bool message_tc(const uint8_t *wire);

/** Length of header and question, 0 when there is no whole question. */
size_t message_question_end(const uint8_t *wire, size_t len);

/** The QNAME of a message in lower-case dotted text without the last dot ("" for the root).
 *  @return QTYPE, 0 when there is no whole question */
uint16_t message_question(const uint8_t *wire, size_t len, char *name, size_t cap);
