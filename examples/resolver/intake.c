/* The first look at a message.
 *
 * Happy path: header, body, EDNS version, zone.
 * Failure modes: each has its reply: silence for answers and fragments, FORMERR, NOTIMP, BADVERS,
 * REFUSED.
 */
#include "intake.h"

enum { CLASS_IN = 1 };

static bool server_has_plugins(const struct server *server)
{
    return server->has_forward || server->has_log || server->errors.there ||
           server->endpoints.metrics != NULL || server->taps != NULL || server->metadata.count > 0;
}

/** Judges. */
enum intake intake_judge(const struct site *site, uint8_t *wire, uint32_t len,
                         struct message *ret_query, const struct zone **ret_zone,
                         uint8_t reply[REPLY_MAX], uint32_t *ret_len)
{
    switch (message_judge(wire, len)) {
    case VERDICT_SILENCE:
        return INTAKE_SILENCE;
    case VERDICT_FORMERR:
        *ret_len = reply_reject(wire, NULL, RCODE_FORMERR, reply);
        return INTAKE_REPLY;
    case VERDICT_NOTIMP:
        *ret_len = reply_reject(wire, NULL, RCODE_NOTIMP, reply);
        return INTAKE_REPLY;
    case VERDICT_SERVE:
        break;
    }
    if (!message_parse(ret_query, wire, len)) {
        *ret_len = reply_reject(wire, ret_query, RCODE_FORMERR, reply);
        return INTAKE_REPLY;
    }
    if (ret_query->qclass != CLASS_IN && !site->forwards) {
        *ret_len = reply_rcode(ret_query, RCODE_REFUSED, reply);
        return INTAKE_REFUSE;
    }
    if (ret_query->has_opt && (ret_query->opt_ttl >> 16 & 0xff) != 0) {
        *ret_len = reply_rcode(ret_query, RCODE_BADVERS, reply);
        return INTAKE_REPLY;
    }
    *ret_zone = zone_choose(&site->zones, wire + HEADER_LEN, ret_query->qtype == TYPE_DS);
    if (*ret_zone == NULL || !server_has_plugins((*ret_zone)->server)) {
        *ret_len = reply_rcode(ret_query, RCODE_REFUSED, reply);
        return INTAKE_REFUSE;
    }
    return INTAKE_SERVE;
}
