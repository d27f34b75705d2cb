/* Building replies.
 *
 * Happy path: an answer that needs no change is sent from where it lies; else it is copied, its OPT
 * edited in place, or the client's OPT appended. A copy is cut between records, so compression
 * pointers, which point backwards, stay valid. Failure modes: an answer whose records do not parse
 * is relayed as it is when it fits, else reduced to its question with TC. An answer signed with
 * TSIG is not edited, as its signature would break.
 */
#include "reply.h"

#include <string.h>

/* Options that CoreDNS echoes when it answers for itself: NSID, EXPIRE, COOKIE, TCP-KEEPALIVE,
 * PADDING. */
static bool option_echoed(uint16_t code)
{
    return code == 3 || (code >= 9 && code <= 12);
}

/* The client's OPT turned round, of at most room octets; without its options when these do not fit.
 */
static uint32_t opt_mirror(const struct message *query, unsigned rcode, uint8_t *out, uint32_t room)
{
    if (room < OPT_FIXED) {
        return 0;
    }
    out[0] = 0;
    put16(out + 1, TYPE_OPT);
    put16(out + 3, query->udp_size);
    put32(out + 5, (rcode >> 4) << 24 | (query->opt_ttl & 0xff00));
    uint32_t len = OPT_FIXED;
    const uint8_t *options = query->wire + query->opt_data;
    for (uint32_t at = 0; at < query->opt_length; at += 4u + get16(options + at + 2)) {
        uint32_t size = 4u + get16(options + at + 2);
        if (!option_echoed(get16(options + at))) {
            continue;
        }
        if (len + size > room) {
            len = OPT_FIXED;
            break;
        }
        memcpy(out + len, options + at, size);
        len += size;
    }
    put16(out + 9, len - OPT_FIXED);
    return len;
}

/** Our own reply. */
uint32_t reply_rcode(const struct message *query, unsigned rcode, uint8_t out[REPLY_MAX])
{
    const uint8_t *wire = query->wire;
    memcpy(out, wire, query->question_end);
    unsigned opcode = wire[2] >> 3 & 15;
    bool keep = opcode == OPCODE_QUERY; /* RD and CD are mirrored for queries only */
    out[2] = (uint8_t)(BIT_QR | opcode << 3 | (keep ? wire[2] & BIT_RD : 0));
    out[3] = (uint8_t)((keep ? wire[3] & BIT_CD : 0) | (rcode & 15));
    put16(out + 4, 1);
    memset(out + 6, 0, 6);
    uint32_t len = query->question_end;
    if (!query->has_opt) {
        return len;
    }
    put16(out + 10, 1);
    if (rcode == RCODE_BADVERS) { /* answered before the client's sizes and flags mean anything */
        const struct message bare = {.wire = wire, .has_opt = true};
        return len + opt_mirror(&bare, rcode, out + len, REPLY_MAX - len);
    }
    return len + opt_mirror(query, rcode, out + len, REPLY_MAX - len);
}

/** The reply to what is no proper query. */
uint32_t reply_reject(const uint8_t *wire, const struct message *parsed, unsigned rcode,
                      uint8_t out[REPLY_MAX])
{
    uint32_t len = HEADER_LEN;
    if (parsed != NULL && parsed->question_end != 0) {
        len = parsed->question_end;
    }
    memcpy(out, wire, len);
    out[2] = (uint8_t)((wire[2] & ~BIT_AA) | BIT_QR);
    out[3] = (uint8_t)((wire[3] & (BIT_RA | BIT_AD | BIT_CD)) | rcode);
    put16(out + 4, len > HEADER_LEN);
    memset(out + 6, 0, 6);
    return len;
}

/* What a walk over an answer's records found. */
struct layout {
    uint32_t end; /* where the last record that fits the limit ends */
    uint16_t counts[3];
    bool cut; /* not all records fit */
    bool parses;
    bool has_tsig;
    uint32_t opt_at; /* 0 when the answer has none */
    uint32_t opt_len;
    bool opt_kept; /* the OPT lies before the cut */
    uint32_t opt_type_at;
};

/* Finds the OPT, which decides how much room the rest has, and the TSIG. */
static void layout_survey(struct layout *layout, const uint8_t *wire, uint32_t len)
{
    uint32_t at = name_skip(wire, len, HEADER_LEN);
    if (get16(wire + 4) != 1 || at == 0 || len - at < 4) {
        return;
    }
    at += 4;
    layout->end = at;
    uint32_t before = (uint32_t)get16(wire + 6) + get16(wire + 8);
    uint32_t total = before + get16(wire + 10);
    for (uint32_t i = 0; i < total; i++) {
        struct record record;
        if (!record_next(wire, len, at, &record)) {
            return;
        }
        if (i >= before && record.type == TYPE_OPT) {
            layout->opt_at = record.at;
            layout->opt_len = record.end - record.at;
            layout->opt_type_at = record.type_at;
        }
        layout->has_tsig |= record.type == TYPE_TSIG && i + 1 == total;
        at = record.end;
    }
    layout->parses = true;
}

/* Chooses the records that fit, in order, keeping room for the OPT. */
static void layout_cut(struct layout *layout, const uint8_t *wire, uint32_t len, uint32_t limit,
                       uint32_t opt_room)
{
    for (unsigned section = 0; section < 3; section++) {
        uint16_t count = get16(wire + 6 + 2 * section);
        for (uint16_t i = 0; i < count; i++) {
            struct record record;
            if (layout->cut || !record_next(wire, len, layout->end, &record)) {
                layout->cut = true;
                return;
            }
            bool is_opt = layout->opt_at != 0 && record.at == layout->opt_at;
            uint32_t room = layout->opt_kept || is_opt ? 0 : opt_room;
            if (record.end + room > limit) {
                layout->cut = true;
                return;
            }
            layout->opt_kept |= is_opt;
            layout->end = record.end;
            layout->counts[section]++;
        }
    }
}

/* The upstream's OPT as the client may have it: the client's size, version 0, no reserved flags,
 * the client's DO. */
static void opt_edit(const struct message *query, uint8_t *type_at)
{
    uint32_t ttl = get32(type_at + 4);
    put16(type_at + 2, query->udp_size);
    put32(type_at + 4, (ttl & 0xff00ff00) | (query->opt_ttl & 0x8000));
}

/** The upstream's answer for this client. */
uint32_t reply_answer(const struct message *query, const uint8_t *wire, uint32_t len,
                      uint32_t limit, uint8_t *out, bool *ret_copied)
{
    *ret_copied = false;
    if (!query->has_opt && len <= limit) {
        return len;
    }
    struct layout layout = {0};
    layout_survey(&layout, wire, len);
    if (len <= limit && (layout.has_tsig || !layout.parses)) {
        return len;
    }
    *ret_copied = true;
    if (!layout.parses) {
        uint32_t end = layout.end != 0 ? layout.end : HEADER_LEN;
        memcpy(out, wire, end);
        out[2] |= BIT_TC;
        put16(out + 4, layout.end != 0);
        memset(out + 6, 0, 6);
        return end;
    }

    uint8_t opt[REPLY_MAX];
    uint32_t opt_len = 0; /* of an OPT to append when no OPT lies before the cut */
    if (layout.opt_at == 0 && query->has_opt) {
        opt_len = opt_mirror(query, 0, opt,
                             limit - layout.end < REPLY_MAX ? limit - layout.end : REPLY_MAX);
    }
    layout_cut(&layout, wire, len, limit, layout.opt_at != 0 ? layout.opt_len : opt_len);

    memcpy(out, wire, layout.end);
    uint32_t end = layout.end;
    if (layout.opt_at != 0 && !layout.opt_kept && end + layout.opt_len <= limit) {
        memcpy(out + end, wire + layout.opt_at, layout.opt_len);
        layout.opt_type_at = layout.opt_type_at - layout.opt_at + end;
        end += layout.opt_len;
        layout.opt_kept = true;
        layout.counts[2]++;
    } else if (opt_len != 0) {
        memcpy(out + end, opt, opt_len);
        end += opt_len;
        layout.counts[2]++;
    }
    if (layout.opt_kept && query->has_opt) {
        opt_edit(query, out + layout.opt_type_at);
    }
    if (layout.cut) {
        out[2] |= BIT_TC;
    }
    for (unsigned section = 0; section < 3; section++) {
        put16(out + 6 + 2 * section, layout.counts[section]);
    }
    return end;
}
