/* The wire view: what a forwarder must know of a DNS message, read in place with every bound checked.
 *
 * Threads: any, no state. Ownership: nothing is copied; struct wire_query holds offsets. Limits: messages up to 65,535 octets; work is
 * linear in the length (each compression pointer is followed at most 126 times and only backwards).
 * Standards: RFC 1035 4.1, RFC 5452 9.1 (what an answer must match), RFC 9267 (parser anti-patterns), RFC 9619.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    WIRE_HEADER = 12,
    WIRE_MAX_NAME = 255,
    WIRE_FLAG_QR = 0x8000,
    WIRE_FLAG_TC = 0x0200,
    WIRE_FLAG_RD = 0x0100,
};

enum wire_opcode { OPCODE_QUERY = 0, OPCODE_NOTIFY = 4 };

enum wire_rcode { RCODE_NOERROR = 0, RCODE_FORMERR = 1, RCODE_SERVFAIL = 2, RCODE_NOTIMP = 4, RCODE_REFUSED = 5 };

/** The question of a query. */
struct wire_query {
    uint16_t id;
    uint16_t flags;     /**< second 16 bits of the header */
    uint16_t qtype;
    uint16_t qclass;
    uint16_t qname_len; /**< of the uncompressed name at WIRE_HEADER, root label included */
    uint16_t question_len; /**< qname_len + 4 */
};

/** Why an answer is taken or not; the numbers index the drop counters. */
enum wire_answer {
    ANSWER_GOOD,
    ANSWER_SHORT,     /**< fewer than 12 octets */
    ANSWER_ID,        /**< another ID */
    ANSWER_NO_QR,     /**< a query */
    ANSWER_OPCODE,    /**< another opcode */
    ANSWER_QUESTION,  /**< none, several, or another question */
    ANSWER_MALFORMED, /**< a name, RR or count that does not hold */
    ANSWER_BARE,      /**< an error without its question: see exchange_keep_error_locked */
    ANSWER_KINDS,
};

static inline uint16_t wire_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void wire_put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/** Reads header and question and checks the rest of the message to its end.
 *  @return 0, or -1 when it is no query with one question (QR set, QDCOUNT not 1, or malformed) */
int wire_query_parse(const uint8_t *msg, uint32_t len, struct wire_query *ret);

/** Tells whether msg answers query under the given ID. What is cut off in a message that has TC set (servers that cut in the middle of a
 *  record) is taken off: *len shrinks to header and question, the counts become 0. An answer that repeats the question in another letter
 *  case gets the client's own case back (RFC 1035 2.3.3), so msg is written to. */
enum wire_answer wire_answer_check(uint8_t *msg, uint32_t *len, const uint8_t *query_msg,
                                   const struct wire_query *query, uint16_t id);

/** Writes the answer that an upstream meant that repeated nothing of the question: its flags, and the query's ID and question.
 *  @param msg room for WIRE_HEADER + question_len octets. @return its length */
uint32_t wire_restore_question(uint8_t *msg, uint16_t flags, const uint8_t *query_msg, const struct wire_query *query);

/** RCODE of the header, extended by the OPT record if there is one (RFC 6891 6.1.3). msg has passed wire_answer_check. */
uint32_t wire_rcode(const uint8_t *msg, uint32_t len);

/** One record, in place. */
struct wire_rr {
    uint16_t type;
    uint16_t rr_class;
    uint16_t rdata_len;
    uint32_t ttl; /* seconds; 0 when the top bit is set (RFC 2181 8) */
    const uint8_t *rdata;
};

/** Offset of the first record behind the one question; 0 when there is none. */
uint32_t wire_records(const uint8_t *msg, uint32_t len);

/** The record at `at`. @return the offset behind it, 0 when it does not hold */
uint32_t wire_next_rr(const uint8_t *msg, uint32_t len, uint32_t at, struct wire_rr *ret);

/** Takes seconds off the TTL of every record but OPT, not below 0 (RFC 8484 5.1). msg has passed wire_answer_check. */
void wire_age(uint8_t *msg, uint32_t len, uint32_t seconds);

/** Takes the octets from `from` to `to`, where a record begins or the last one ended, out of a message, and mends the compression pointers that lead
 *  behind them. msg has passed wire_answer_check. @param records how many follow
 *  @return false when a name leads into what is taken out, or does not hold any more: what msg holds then is of no use */
bool wire_cut(uint8_t *msg, uint32_t *len, uint32_t from, uint32_t to, uint32_t records);

/** True when the answer section is empty (case 56). */
static inline bool wire_answer_empty(const uint8_t *msg)
{
    return msg[6] == 0 && msg[7] == 0;
}

/** Length of the uncompressed name at p within max octets, root label included; 0 when it is malformed or compressed. */
uint32_t wire_name_len(const uint8_t *p, uint32_t max);
