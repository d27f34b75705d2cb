/* Typing answers.
 *
 * Happy path: one walk over the records notes what the rules ask for, the rules are CoreDNS's in
 * its order. Failure modes: an answer whose records do not parse is judged by those that do.
 */
#include "answer_type.h"

#include <time.h>

enum { OPCODE_UPDATE = 5, TYPE_RRSIG = 46, RRSIG_TIMES = 8 };

struct findings {
    bool soa;
    bool ns;
    bool with_do;
    bool expired; /* some signature is not valid now */
};

/* Whether now lies in a signature's time, in serial number arithmetic (RFC 4034 3.1.5). */
static bool signature_valid(const uint8_t *data, int64_t now)
{
    const int64_t era = (int64_t)1 << 31;
    int64_t end = get32(data);
    int64_t begin = get32(data + 4);
    begin += (begin - now) / era * era;
    end += (end - now) / era * era;
    return begin <= now && now <= end;
}

static void record_note(struct findings *found, const uint8_t *reply, const struct record *record,
                        bool authority, int64_t now)
{
    found->soa |= authority && record->type == TYPE_SOA;
    found->ns |= authority && record->type == TYPE_NS;
    if (record->type == TYPE_OPT) {
        found->with_do |= (get32(reply + record->type_at + 4) & 0x8000) != 0;
    } else if (record->type == TYPE_RRSIG && record->length >= RRSIG_TIMES + 8) {
        found->expired |= !signature_valid(reply + record->data + RRSIG_TIMES, now);
    }
}

static struct findings records_walk(const struct message *query, const uint8_t *reply, uint32_t len)
{
    struct findings found = {0};
    int64_t now = (int64_t)time(NULL);
    uint32_t at = query->question_end; /* the answer repeats the question */
    for (unsigned section = 0; section < 3; section++) {
        for (uint16_t i = get16(reply + 6 + 2 * section); i > 0; i--) {
            struct record record;
            if (!record_next(reply, len, at, &record)) {
                return found;
            }
            record_note(&found, reply, &record, section == 1, now);
            at = record.end;
        }
    }
    return found;
}

/** Types. */
enum answer_type answer_type_of(const struct message *query, unsigned rcode, const uint8_t *reply,
                                uint32_t len)
{
    unsigned opcode = reply[2] >> 3 & 15;
    if (opcode == OPCODE_UPDATE) {
        return ANSWER_UPDATE;
    }
    if (opcode == OPCODE_NOTIFY || query->qtype == TYPE_AXFR || query->qtype == TYPE_IXFR) {
        return ANSWER_META;
    }
    const struct findings found = records_walk(query, reply, len);
    bool answers = get16(reply + 6) > 0;
    if (found.with_do && found.expired) {
        return ANSWER_OTHERERROR;
    }
    switch (rcode) {
    case RCODE_NOERROR:
        return answers     ? ANSWER_NOERROR
               : found.soa ? ANSWER_NODATA
               : found.ns  ? ANSWER_DELEGATION
                           : ANSWER_NOERROR;
    case RCODE_NXDOMAIN:
        return answers ? ANSWER_OTHERERROR : ANSWER_NXDOMAIN;
    case RCODE_SERVFAIL:
    case RCODE_NOTIMP:
        return ANSWER_SERVERERROR;
    default:
        return ANSWER_OTHERERROR;
    }
}

/** Metadata log/type. */
const char *answer_type_name(enum answer_type type)
{
    static const char *const names[] = {
        [ANSWER_NOERROR] = "NOERROR",         [ANSWER_NXDOMAIN] = "NXDOMAIN",
        [ANSWER_SERVERERROR] = "SERVERERROR", [ANSWER_NODATA] = "NODATA",
        [ANSWER_DELEGATION] = "DELEGATION",   [ANSWER_META] = "META",
        [ANSWER_UPDATE] = "UPDATE",           [ANSWER_OTHERERROR] = "OTHERERROR",
    };
    return names[type];
}

/** Classifies. */
unsigned answer_class_of(enum answer_type type)
{
    switch (type) {
    case ANSWER_NOERROR:
    case ANSWER_DELEGATION:
        return CLASS_SUCCESS;
    case ANSWER_NXDOMAIN:
    case ANSWER_NODATA:
        return CLASS_DENIAL;
    default:
        return CLASS_ERROR;
    }
}

/** Metadata log/class. */
const char *answer_class_name(unsigned answer_class)
{
    return answer_class == CLASS_SUCCESS  ? "success"
           : answer_class == CLASS_DENIAL ? "denial"
                                          : "error";
}
