/* Reading a client's query.
 *
 * Happy path: judge the header, walk the question and the few records, remember the OPT.
 * Failure modes: every bound is checked; what does not decode is reported, never followed.
 */
#include "message.h"

#include "name.h"

#include <string.h>

/** Big-endian access. */
uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

/** Big-endian access. */
uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/** Big-endian access. */
void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/** Big-endian access. */
void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value);
}

/** The policy on the header: one question, at most the records that a NOTIFY, an IXFR or EDNS with
 * TSIG carries. */
enum verdict message_judge(const uint8_t *wire, uint32_t len)
{
    if (len < HEADER_LEN || (wire[2] & BIT_QR) != 0) {
        return VERDICT_SILENCE;
    }
    unsigned opcode = wire[2] >> 3 & 15;
    if (opcode != OPCODE_QUERY && opcode != OPCODE_NOTIFY) {
        return VERDICT_NOTIMP;
    }
    if (get16(wire + 4) != 1 || get16(wire + 6) > 1 || get16(wire + 8) > 1 ||
        get16(wire + 10) > 2) {
        return VERDICT_FORMERR;
    }
    return VERDICT_SERVE;
}

/** Skips a name; a compression pointer ends it. */
uint32_t name_skip(const uint8_t *wire, uint32_t len, uint32_t at)
{
    while (at < len) {
        uint8_t label = wire[at];
        if (label == 0) {
            return at + 1;
        }
        if ((label & 0xc0) == 0xc0) {
            return at + 2 <= len ? at + 2 : 0;
        }
        if ((label & 0xc0) != 0) {
            return 0;
        }
        at += label + 1u;
    }
    return 0;
}

/** Finds the bounds of one record. */
bool record_next(const uint8_t *wire, uint32_t len, uint32_t at, struct record *ret)
{
    uint32_t type_at = name_skip(wire, len, at);
    if (type_at == 0 || len - type_at < 10) {
        return false;
    }
    uint16_t length = get16(wire + type_at + 8);
    if (len - type_at - 10 < length) {
        return false;
    }
    *ret = (struct record){
        .at = at,
        .type_at = type_at,
        .data = type_at + 10,
        .end = type_at + 10 + length,
        .type = get16(wire + type_at),
        .length = length,
    };
    return true;
}

/* The question: an uncompressed name, type and class. */
static bool question_parse(struct message *message)
{
    const uint8_t *wire = message->wire;
    uint32_t at = HEADER_LEN;
    while (at < message->len && wire[at] != 0) {
        if ((wire[at] & 0xc0) != 0) {
            return false;
        }
        at += wire[at] + 1u;
    }
    at++;
    if (at + 4 > message->len || at - HEADER_LEN > NAME_WIRE_MAX) {
        return false;
    }
    message->qtype = get16(wire + at);
    message->qclass = get16(wire + at + 2);
    message->question_end = (uint16_t)(at + 4);
    return true;
}

static bool options_fit(const uint8_t *options, uint32_t len)
{
    uint32_t at = 0;
    while (at < len) {
        if (len - at < 4 || len - at - 4 < get16(options + at + 2)) {
            return false;
        }
        at += 4u + get16(options + at + 2);
    }
    return true;
}

/** Reads the question and the records behind it. */
bool message_parse(struct message *message, uint8_t *wire, uint32_t len)
{
    *message = (struct message){.wire = wire, .len = len};
    if (!question_parse(message)) {
        return false;
    }
    uint32_t at = message->question_end;
    for (uint32_t section = 6; section <= 10; section += 2) {
        uint32_t promised = get16(wire + section);
        uint32_t found = 0;
        for (; found < promised && at < len; found++) {
            struct record record;
            if (!record_next(wire, len, at, &record)) {
                return false;
            }
            if (section == 10 && record.type == TYPE_OPT) {
                if (!options_fit(wire + record.data, record.length)) {
                    return false;
                }
                message->has_opt = true;
                message->udp_size = get16(wire + record.type_at + 2);
                message->opt_ttl = get32(wire + record.type_at + 4);
                message->opt_data = (uint16_t)record.data;
                message->opt_length = record.length;
            }
            at = record.end;
        }
        put16(wire + section, found);
    }
    message->len = at; /* octets behind the last record are not part of the query */
    return true;
}

/** RFC 6891 6.2.3: a size below 512 counts as 512. */
uint32_t message_reply_limit(const struct message *message, bool stream)
{
    if (stream) {
        return MESSAGE_MAX;
    }
    return message->has_opt && message->udp_size > UDP_LEAST ? message->udp_size : UDP_LEAST;
}
