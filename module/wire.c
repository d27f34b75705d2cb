/* Reading DNS messages in place.
 *
 * Happy path: wire_query_parse finds the question of a client's query; wire_answer_check compares ID, QR, opcode and question of what
 * came back and walks its records once. Nothing is decoded that need not be.
 *
 * Failure modes: whatever does not hold (a length past the end, a label of a reserved type, a compression pointer that does not point
 * strictly backwards, a name over 255 octets, a count with no record) makes the message malformed; the caller drops it and waits on.
 * An answer with TC set may be cut anywhere after its question.
 */
#include "wire.h"

#include <string.h>

enum { TYPE_A = 1, TYPE_OPT = 41, TYPE_AAAA = 28, CLASS_OPT_OFFSET = 2, MAX_POINTERS = 126 };

uint32_t wire_name_len(const uint8_t *p, uint32_t max)
{
    uint32_t i = 0;
    while (i < max && i < WIRE_MAX_NAME) {
        uint8_t label = p[i];
        if (label == 0) {
            return i + 1;
        }
        if (label > 63) {
            return 0;
        }
        i += 1U + label;
    }
    return 0;
}

/* Checks the name at `at` and returns the offset behind it, or 0. Every pointer must point before the place where the run of labels that
 * it ends began, so the walk always ends. */
static uint32_t skip_name(const uint8_t *msg, uint32_t len, uint32_t at)
{
    uint32_t end = 0, start = at, octets = 0;
    for (int pointers = 0;;) {
        if (at >= len) {
            return 0;
        }
        uint8_t label = msg[at];
        if (label == 0) {
            return end != 0 ? end : at + 1;
        }
        if (label >= 0xc0) {
            if (at + 1 >= len || ++pointers > MAX_POINTERS) {
                return 0;
            }
            uint32_t target = (uint32_t)(label & 0x3f) << 8 | msg[at + 1];
            if (end == 0) {
                end = at + 2;
            }
            if (target >= start || target < WIRE_HEADER) {
                return 0;
            }
            if (target == WIRE_HEADER && octets == 0) {
                /* the question's name, checked already; nearly every owner name is this pointer alone */
                return end;
            }
            at = start = target;
            continue;
        }
        if (label > 63) {
            return 0;
        }
        octets += 1U + label;
        if (octets + 1 > WIRE_MAX_NAME) {
            return 0;
        }
        at += 1U + label;
    }
}

/* How many names, possibly compressed, the RDATA of a type begins with, and after how many octets. Only the types of RFC 1035 (and those that
 * servers compressed before RFC 3597 forbade it) are looked into: their names are what a client would follow. */
static uint32_t names_in_rdata(uint16_t type, uint32_t *ret_offset)
{
    *ret_offset = 0;
    switch (type) {
    case 2:  /* NS */
    case 3:  /* MD */
    case 4:  /* MF */
    case 5:  /* CNAME */
    case 7:  /* MB */
    case 8:  /* MG */
    case 9:  /* MR */
    case 12: /* PTR */
    case 39: /* DNAME */
        return 1;
    case 6:  /* SOA */
    case 14: /* MINFO */
    case 17: /* RP */
        return 2;
    case 15: /* MX */
    case 18: /* AFSDB */
    case 21: /* RT */
    case 36: /* KX */
        *ret_offset = 2;
        return 1;
    case 33: /* SRV */
        *ret_offset = 6;
        return 1;
    default:
        return 0;
    }
}

static bool rdata_holds(const uint8_t *msg, uint16_t type, uint32_t at, uint32_t end)
{
    if (type == TYPE_A) {
        return end - at == 4;
    }
    if (type == TYPE_AAAA) {
        return end - at == 16;
    }
    if (type == TYPE_OPT) {
        while (at < end) {
            if (end - at < 4) {
                return false;
            }
            at += 4U + wire_u16(msg + at + 2);
        }
        return at == end;
    }
    uint32_t offset;
    uint32_t names = names_in_rdata(type, &offset);
    if (names == 0) {
        return true;
    }
    at += offset;
    for (; names > 0; names--) {
        at = at < end ? skip_name(msg, end, at) : 0;
        if (at == 0) {
            return false;
        }
    }
    return type == 6 ? end - at == 20 : at == end;
}

/* Checks the RR at `at` and returns the offset behind it, or 0; tells its type. */
static uint32_t skip_rr(const uint8_t *msg, uint32_t len, uint32_t at, uint16_t *ret_type)
{
    at = skip_name(msg, len, at);
    if (at == 0 || len - at < 10) {
        return 0;
    }
    *ret_type = wire_u16(msg + at);
    uint16_t qclass = wire_u16(msg + at + CLASS_OPT_OFFSET);
    uint32_t end = at + 10U + wire_u16(msg + at + 8);
    if (end > len) {
        return 0;
    }
    /* RDATA of length 0 stands for "no RDATA" in dynamic updates (RFC 2136 2.4); ANY and NONE classes likewise */
    if (end == at + 10 || qclass >= 254) {
        if (*ret_type != TYPE_OPT) {
            return end;
        }
    }
    return rdata_holds(msg, *ret_type, at + 10, end) ? end : 0;
}

static bool records_hold(const uint8_t *msg, uint32_t len, uint32_t at)
{
    uint32_t count = (uint32_t)wire_u16(msg + 6) + wire_u16(msg + 8) + wire_u16(msg + 10);
    uint16_t type;
    for (; count > 0; count--) {
        at = skip_rr(msg, len, at, &type);
        if (at == 0) {
            return false;
        }
    }
    return true;
}

int wire_query_parse(const uint8_t *msg, uint32_t len, struct wire_query *ret)
{
    if (len < WIRE_HEADER) {
        return -1;
    }
    uint16_t flags = wire_u16(msg + 2);
    if ((flags & WIRE_FLAG_QR) != 0 || wire_u16(msg + 4) != 1) {
        return -1;
    }
    uint32_t name = wire_name_len(msg + WIRE_HEADER, len - WIRE_HEADER);
    if (name == 0 || len - WIRE_HEADER - name < 4) {
        return -1;
    }
    uint32_t end = WIRE_HEADER + name;
    if (!records_hold(msg, len, end + 4)) {
        return -1;
    }
    *ret = (struct wire_query){
        .id = wire_u16(msg),
        .flags = flags,
        .qtype = wire_u16(msg + end),
        .qclass = wire_u16(msg + end + 2),
        .qname_len = (uint16_t)name,
        .question_len = (uint16_t)(name + 4),
    };
    return 0;
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

/* Compares two names of the same length without regard to case. Label lengths are below 'A', so octets can be compared alike. */
static bool same_name(const uint8_t *a, const uint8_t *b, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        if (a[i] != b[i] && lower(a[i]) != lower(b[i])) {
            return false;
        }
    }
    return true;
}

static bool same_question(const uint8_t *msg, uint32_t len, const uint8_t *query_msg,
                          const struct wire_query *query)
{
    if (wire_u16(msg + 4) != 1 || len - WIRE_HEADER < query->question_len) {
        return false;
    }
    return memcmp(msg + WIRE_HEADER + query->qname_len, query_msg + WIRE_HEADER + query->qname_len, 4) == 0 &&
           same_name(msg + WIRE_HEADER, query_msg + WIRE_HEADER, query->qname_len);
}

/* FORMERR, SERVFAIL, NOTIMP or REFUSED and nothing else, as servers send that did not read as far as the question or do not care to repeat it. An OPT
 * record may be there. */
static bool bare_error(const uint8_t *msg)
{
    static const uint8_t none[6];
    const uint32_t errors = 1U << RCODE_FORMERR | 1U << RCODE_SERVFAIL | 1U << RCODE_NOTIMP | 1U << RCODE_REFUSED;
    return memcmp(msg + 4, none, sizeof(none)) == 0 && (errors >> (msg[3] & 0x0f) & 1) != 0;
}

enum wire_answer wire_answer_check(uint8_t *msg, uint32_t *len, const uint8_t *query_msg,
                                   const struct wire_query *query, uint16_t id)
{
    if (*len < WIRE_HEADER) {
        return ANSWER_SHORT;
    }
    if (wire_u16(msg) != id) {
        return ANSWER_ID;
    }
    uint16_t flags = wire_u16(msg + 2);
    if ((flags & WIRE_FLAG_QR) == 0) {
        return ANSWER_NO_QR;
    }
    if ((flags & 0x7800) != (query->flags & 0x7800)) {
        return ANSWER_OPCODE;
    }
    if (!same_question(msg, *len, query_msg, query)) {
        return bare_error(msg) ? ANSWER_BARE : ANSWER_QUESTION;
    }
    uint32_t end = WIRE_HEADER + query->question_len;
    if (!records_hold(msg, *len, end)) {
        if ((flags & WIRE_FLAG_TC) == 0) {
            return ANSWER_MALFORMED;
        }
        memset(msg + 6, 0, 6);
        *len = end;
    }
    memcpy(msg + WIRE_HEADER, query_msg + WIRE_HEADER, query->qname_len);
    return ANSWER_GOOD;
}

uint32_t wire_restore_question(uint8_t *msg, uint16_t flags, const uint8_t *query_msg, const struct wire_query *query)
{
    static const uint8_t one_question[8] = {0, 1};
    uint32_t len = WIRE_HEADER + query->question_len;
    memcpy(msg, query_msg, len);
    wire_put_u16(msg + 2, flags);
    memcpy(msg + 4, one_question, sizeof(one_question));
    return len;
}

uint32_t wire_rcode(const uint8_t *msg, uint32_t len)
{
    uint32_t rcode = msg[3] & 0x0f;
    uint32_t before = (uint32_t)wire_u16(msg + 6) + wire_u16(msg + 8);
    uint32_t extra = wire_u16(msg + 10);
    if (extra == 0) {
        return rcode;
    }
    uint32_t at = wire_records(msg, len);
    for (uint32_t i = 0; i < before + extra && at != 0; i++) {
        uint32_t owner = at;
        uint16_t type;
        at = skip_rr(msg, len, at, &type);
        if (at != 0 && i >= before && type == TYPE_OPT && msg[owner] == 0) {
            return (uint32_t)msg[owner + 5] << 4 | rcode;
        }
    }
    return rcode;
}

uint32_t wire_records(const uint8_t *msg, uint32_t len)
{
    if (len < WIRE_HEADER || wire_u16(msg + 4) != 1) {
        return 0;
    }
    uint32_t at = skip_name(msg, len, WIRE_HEADER);
    return at != 0 && len - at >= 4 ? at + 4 : 0;
}

uint32_t wire_next_rr(const uint8_t *msg, uint32_t len, uint32_t at, struct wire_rr *ret)
{
    uint32_t fixed = skip_name(msg, len, at);
    at = fixed != 0 ? skip_rr(msg, len, at, &ret->type) : 0;
    if (at != 0) {
        ret->rr_class = wire_u16(msg + fixed + 2);
        ret->ttl = (uint32_t)wire_u16(msg + fixed + 4) << 16 | wire_u16(msg + fixed + 6);
        ret->ttl = ret->ttl > INT32_MAX ? 0 : ret->ttl;
        ret->rdata_len = wire_u16(msg + fixed + 8);
        ret->rdata = msg + fixed + 10;
    }
    return at;
}

static void age_ttl(uint8_t *ttl, uint32_t seconds)
{
    uint32_t value = (uint32_t)wire_u16(ttl) << 16 | wire_u16(ttl + 2);
    value = value > seconds ? value - seconds : 0;
    wire_put_u16(ttl, (uint16_t)(value >> 16));
    wire_put_u16(ttl + 2, (uint16_t)value);
}

void wire_age(uint8_t *msg, uint32_t len, uint32_t seconds)
{
    uint32_t count = (uint32_t)wire_u16(msg + 6) + wire_u16(msg + 8) + wire_u16(msg + 10);
    uint32_t at = wire_records(msg, len);
    for (; count > 0 && at != 0; count--) {
        uint32_t fixed = skip_name(msg, len, at);
        uint16_t type;
        at = skip_rr(msg, len, at, &type);
        if (at != 0 && type != TYPE_OPT) {
            age_ttl(msg + fixed + 4, seconds);
        }
    }
}

struct cut {
    uint32_t from, to;
};

/* Mends the name at `at`, which stands where it is to stay. @return the offset behind it, 0 when it leads into the cut */
static uint32_t mend_name(uint8_t *msg, uint32_t at, const struct cut *cut)
{
    for (; msg[at] != 0; at += 1U + msg[at]) {
        if (msg[at] < 0xc0) {
            continue;
        }
        uint32_t target = wire_u16(msg + at) & 0x3fff;
        if (target >= cut->to) {
            wire_put_u16(msg + at, (uint16_t)(0xc000 | (target - (cut->to - cut->from))));
        }
        return target < cut->from || target >= cut->to ? at + 2 : 0;
    }
    return at + 1;
}

/* The same for the names of a record. */
static uint32_t mend_rr(uint8_t *msg, uint32_t at, const struct cut *cut)
{
    at = mend_name(msg, at, cut);
    if (at == 0) {
        return 0;
    }
    uint32_t offset, size = wire_u16(msg + at + 8), end = at + 10 + size;
    bool looked_into = size > 0 && wire_u16(msg + at + CLASS_OPT_OFFSET) < 254; /* as in skip_rr */
    uint32_t names = looked_into ? names_in_rdata(wire_u16(msg + at), &offset) : 0;
    at += 10;
    if (names > 0) {
        at += offset;
    }
    for (; names > 0 && at != 0; names--) {
        at = mend_name(msg, at, cut);
    }
    return at != 0 ? end : 0;
}

bool wire_cut(uint8_t *msg, uint32_t *len, uint32_t from, uint32_t to, uint32_t records)
{
    const struct cut cut = {from, to};
    memmove(msg + from, msg + to, *len - to);
    *len -= to - from;
    uint32_t at = from;
    for (; records > 0 && at != 0; records--) {
        at = mend_rr(msg, at, &cut);
    }
    /* names of a malicious message may have run through the cut, or lead into RDATA that is not looked into */
    return at != 0 && records_hold(msg, *len, wire_records(msg, *len));
}
