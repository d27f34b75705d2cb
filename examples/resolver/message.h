/* The view of a client's query: what the host must know to choose a zone and to build a reply of
 * its own.
 *
 * Threads: none of its own. Ownership: a view into the caller's octets. Limits: wire of at most
 * 65,535 octets. Standards: RFC 1035 4.1, RFC 6891 6.1.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    HEADER_LEN = 12,
    MESSAGE_MAX = 65535,
    UDP_LEAST = 512, /**< what every client takes (RFC 1035 4.2.1) */
    OPT_FIXED = 11,  /**< an OPT record without options */
    TYPE_NS = 2,
    TYPE_SOA = 6,
    TYPE_OPT = 41,
    TYPE_DS = 43,
    TYPE_TSIG = 250,
    TYPE_IXFR = 251,
    TYPE_AXFR = 252,
};

enum { OPCODE_QUERY = 0, OPCODE_NOTIFY = 4 };

enum {
    RCODE_NOERROR = 0,
    RCODE_FORMERR = 1,
    RCODE_SERVFAIL = 2,
    RCODE_NXDOMAIN = 3,
    RCODE_NOTIMP = 4,
    RCODE_REFUSED = 5,
    RCODE_BADVERS = 16,
};

/* Bits of octets 2 and 3 of the header. */
enum { BIT_QR = 0x80, BIT_AA = 0x04, BIT_TC = 0x02, BIT_RD = 0x01 };
enum { BIT_RA = 0x80, BIT_Z = 0x40, BIT_AD = 0x20, BIT_CD = 0x10 };

struct message {
    const uint8_t *wire;
    uint32_t len;
    uint16_t question_end; /**< 0 when the question does not parse */
    uint16_t qtype;
    uint16_t qclass;
    bool has_opt;
    uint16_t udp_size;   /**< as advertised */
    uint32_t opt_ttl;    /**< extended RCODE, version, flags */
    uint16_t opt_data;   /**< offset of the options */
    uint16_t opt_length; /**< octets of options */
};

/** What the header alone decides (cases 91 and 92). */
enum verdict {
    VERDICT_SERVE,
    VERDICT_SILENCE,
    VERDICT_FORMERR,
    VERDICT_NOTIMP,
};

enum verdict message_judge(const uint8_t *wire, uint32_t len);

/** Reads a query that was judged VERDICT_SERVE. Records that the header promises and the message
 * ends before are taken out of the counts (case 92: CoreDNS forwards such a query without them).
 * False when the body does not decode; question_end then tells how far it did. */
bool message_parse(struct message *message, uint8_t *wire, uint32_t len);

/** One resource record, found by record_next. */
struct record {
    uint32_t at; /**< where its owner begins */
    uint32_t type_at;
    uint32_t data; /**< where its RDATA begins */
    uint32_t end;
    uint16_t type;
    uint16_t length;
};

/** The record that begins at `at`. False when it does not fit the message. */
bool record_next(const uint8_t *wire, uint32_t len, uint32_t at, struct record *ret);

/** End of the name at `at`, 0 when it does not fit the message. */
uint32_t name_skip(const uint8_t *wire, uint32_t len, uint32_t at);

uint16_t get16(const uint8_t *at);
uint32_t get32(const uint8_t *at);
void put16(uint8_t *at, uint32_t value);
void put32(uint8_t *at, uint32_t value);

/** The largest reply that the client takes. */
uint32_t message_reply_limit(const struct message *message, bool stream);
