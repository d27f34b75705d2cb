/* Options of one hop, added and taken out.
 *
 * Happy path: the OPT is the last record of a query, or there is none and one is written behind the last record; the options go to its end, padding last
 * (RFC 8467 3). In the answer the same options are cut out of the OPT, or the OPT as a whole.
 *
 * Failure modes: what cannot be added to without harm is sent as it is. Names of an answer that lead into what is cut out make it malformed.
 */
#include "edns.h"

#include "wire.h"

#include <string.h>

enum {
    TYPE_SIG = 24,
    TYPE_OPT = 41,
    TYPE_TSIG = 250,
    OPTION_KEEPALIVE = 11,
    OPTION_PADDING = 12,
    OPTION_HEADER = 4,
    OPT_FIXED = 11, /* before its RDATA; the owner is the root */
    PAYLOAD = 1232, /* for an upstream that asks another one over UDP on our behalf */
    MAX_MESSAGE = UINT16_MAX,
};

/* The additional section of a message, as far as it matters here. */
struct view {
    uint32_t opt;   /* where the OPT begins, 0 when there is none */
    uint32_t end;   /* of the last record */
    uint32_t after; /* records behind the OPT */
    bool odd;       /* two OPTs, or one that is not the root's */
    bool is_signed; /* by TSIG or SIG(0): not an octet may change */
};

static void see(struct view *view, const uint8_t *msg, uint32_t at, uint16_t type, uint32_t after)
{
    if (type == TYPE_OPT) {
        view->odd |= view->opt != 0 || msg[at] != 0;
        view->opt = at;
        view->after = after;
    }
    view->is_signed |= type == TYPE_TSIG || type == TYPE_SIG;
}

static struct view view_of(const uint8_t *msg, uint32_t len)
{
    struct view view = {.end = wire_records(msg, len)};
    uint32_t before = (uint32_t)wire_u16(msg + 6) + wire_u16(msg + 8), count = before + wire_u16(msg + 10);
    for (uint32_t i = 0; i < count && view.end != 0; i++) {
        struct wire_rr rr;
        uint32_t at = view.end;
        view.end = wire_next_rr(msg, len, at, &rr);
        if (i >= before && view.end != 0) {
            see(&view, msg, at, rr.type, count - i - 1);
        }
    }
    return view;
}

/* Whether a query can be added to; what came back is left alone when its query was. */
static bool may_add(const uint8_t *msg, uint32_t len, const struct view *view)
{
    uint32_t most = len + OPT_FIXED + 2 * OPTION_HEADER;
    return view->end == len && !view->is_signed && !view->odd && view->after == 0 && wire_u16(msg + 10) < UINT16_MAX &&
           most <= MAX_MESSAGE;
}

static bool has_option(const uint8_t *msg, const struct view *view, uint16_t code)
{
    if (view->opt == 0) {
        return false;
    }
    uint32_t at = view->opt + OPT_FIXED, end = at + wire_u16(msg + at - 2);
    while (at < end && wire_u16(msg + at) != code) {
        at += OPTION_HEADER + (uint32_t)wire_u16(msg + at + 2);
    }
    return at < end;
}

/* Moves the options that stay to the front of the RDATA. @return where they end now */
static uint32_t drop_options(uint8_t *msg, uint32_t at, uint32_t end, bool padding, bool keepalive)
{
    uint32_t out = at;
    while (at < end) {
        uint16_t code = wire_u16(msg + at);
        uint32_t size = OPTION_HEADER + (uint32_t)wire_u16(msg + at + 2);
        if (!(padding && code == OPTION_PADDING) && !(keepalive && code == OPTION_KEEPALIVE)) {
            memmove(msg + out, msg + at, size);
            out += size;
        }
        at += size;
    }
    return out;
}

/* --- the way out -------------------------------------------------------------------------------------------------- */

static uint32_t put_opt(uint8_t *msg, uint32_t at)
{
    memset(msg + at, 0, OPT_FIXED);
    wire_put_u16(msg + at + 1, TYPE_OPT);
    wire_put_u16(msg + at + 3, PAYLOAD);
    wire_put_u16(msg + 10, (uint16_t)(wire_u16(msg + 10) + 1));
    return at + OPT_FIXED;
}

static uint32_t put_option(uint8_t *msg, uint32_t at, uint16_t code, uint32_t size)
{
    wire_put_u16(msg + at, code);
    wire_put_u16(msg + at + 2, (uint16_t)size);
    memset(msg + at + OPTION_HEADER, 0, size);
    return at + OPTION_HEADER + size;
}

/* Octets that make a message of len, with the option's own header, a multiple of the block; as many as there is room for at the end. */
static uint32_t padding_for(uint32_t len, uint16_t block)
{
    uint32_t bare = len + OPTION_HEADER;
    uint32_t whole = (bare + block - 1) / block * block;
    return (whole > MAX_MESSAGE ? MAX_MESSAGE : whole) - bare;
}

uint32_t edns_add(const struct edns *edns, uint8_t *msg, uint32_t len)
{
    if (edns_off(edns)) {
        return len;
    }
    struct view view = view_of(msg, len);
    if (!may_add(msg, len, &view)) {
        return len;
    }
    bool keepalive = edns->keepalive && !has_option(msg, &view, OPTION_KEEPALIVE);
    uint32_t opt = view.opt != 0 ? view.opt : len;
    uint32_t at = view.opt != 0 ? drop_options(msg, opt + OPT_FIXED, len, edns->block > 0, false) : put_opt(msg, len);
    if (keepalive) {
        at = put_option(msg, at, OPTION_KEEPALIVE, 0);
    }
    if (edns->block > 0) {
        at = put_option(msg, at, OPTION_PADDING, padding_for(at, edns->block));
    }
    wire_put_u16(msg + opt + OPT_FIXED - 2, (uint16_t)(at - opt - OPT_FIXED));
    return at;
}

/* --- the way back ------------------------------------------------------------------------------------------------- */

static int32_t timeout_in(const uint8_t *msg, uint32_t at, uint32_t end)
{
    for (; at < end; at += OPTION_HEADER + (uint32_t)wire_u16(msg + at + 2)) {
        if (wire_u16(msg + at) == OPTION_KEEPALIVE && wire_u16(msg + at + 2) == 2) {
            return wire_u16(msg + at + OPTION_HEADER);
        }
    }
    return EDNS_NO_TIMEOUT;
}

static void drop_opt(uint8_t *msg, uint32_t at)
{
    uint8_t extended_rcode = msg[at + 5];
    if (extended_rcode != 0) {
        msg[3] = (uint8_t)((msg[3] & 0xf0) | RCODE_SERVFAIL);
    }
    wire_put_u16(msg + 10, (uint16_t)(wire_u16(msg + 10) - 1));
}

bool edns_remove(const struct edns *edns, const uint8_t *query, uint32_t query_len, uint8_t *msg, uint32_t *len, int32_t *ret_timeout)
{
    *ret_timeout = EDNS_NO_TIMEOUT;
    if (edns_off(edns)) {
        return true;
    }
    struct view asked = view_of(query, query_len), view = view_of(msg, *len);
    if (view.opt == 0 || view.is_signed || !may_add(query, query_len, &asked)) {
        return true;
    }
    if (view.odd) {
        return false;
    }
    uint32_t rdata = view.opt + OPT_FIXED, end = rdata + wire_u16(msg + rdata - 2), from = view.opt;
    if (edns->keepalive) {
        *ret_timeout = timeout_in(msg, rdata, end);
    }
    if (asked.opt == 0) {
        drop_opt(msg, view.opt);
    } else {
        bool padding = edns->block > 0 && !has_option(query, &asked, OPTION_PADDING);
        from = drop_options(msg, rdata, end, padding, edns->keepalive);
        wire_put_u16(msg + rdata - 2, (uint16_t)(from - rdata));
    }
    return wire_cut(msg, len, from, end, view.after);
}
