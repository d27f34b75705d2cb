/* The queries that come to a scripted upstream, and what is done with them.
 *
 * Happy path: a query is written down, gets its rule from the pick function, and its reply waits in
 * a list until it is due. Failure modes: what the rules say.
 */
#include "tls_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tls_seen *remember(struct link *link, const uint8_t *wire, size_t len,
                                 const struct http_request *http)
{
    struct tls_upstream *up = link->up;
    if (up->counts.queries == up->seen_cap) {
        up->seen_cap = up->seen_cap == 0 ? 64 : up->seen_cap * 2;
        up->seen = realloc(up->seen, up->seen_cap * sizeof(*up->seen));
        upstream_require(up->seen != NULL, "realloc");
    }
    struct tls_seen *seen = &up->seen[up->counts.queries++];
    *seen = (struct tls_seen){.number = up->counts.queries,
                              .conn = link->number,
                              .id = message_id(wire),
                              .no_rd = (wire[2] & 1) == 0,
                              .wire_len = len};
    memcpy(seen->wire, wire, len < sizeof(seen->wire) ? len : sizeof(seen->wire));
    seen->type = message_question(wire, len, seen->name, sizeof(seen->name));
    if (http != NULL) {
        seen->http = *http;
        seen->http.wire = NULL;
    }
    if (link->ssl != NULL) {
        const unsigned char *alpn;
        unsigned alpn_len;
        SSL_get0_alpn_selected(link->ssl, &alpn, &alpn_len);
        (void)snprintf(seen->alpn, sizeof(seen->alpn), "%.*s", (int)alpn_len,
                       alpn != NULL ? (const char *)alpn : "");
        const char *sni = SSL_get_servername(link->ssl, TLSEXT_NAMETYPE_host_name);
        (void)snprintf(seen->sni, sizeof(seen->sni), "%s", sni != NULL ? sni : "");
        (void)snprintf(seen->version, sizeof(seen->version), "%s", SSL_get_version(link->ssl));
        seen->resumed = SSL_session_reused(link->ssl) == 1;
        X509 *client = SSL_get0_peer_certificate(link->ssl);
        if (client != NULL) {
            (void)X509_NAME_get_text_by_NID(X509_get_subject_name(client), NID_commonName,
                                            seen->client, sizeof(seen->client));
        }
    }
    return seen;
}

/** When so many are held on the connection they become due; the list has the newest first, and that
 * is the order in which they go. */
static void release_held(struct link *link, unsigned hold)
{
    unsigned held = 0;
    for (const struct reply *reply = link->up->replies; reply != NULL; reply = reply->next) {
        held += reply->conn == link->number && reply->due_ns == UINT64_MAX;
    }
    for (struct reply *reply = link->up->replies; reply != NULL && held >= hold;
         reply = reply->next) {
        if (reply->conn == link->number && reply->due_ns == UINT64_MAX) {
            reply->due_ns = 0;
        }
    }
}

void reply_on_message(struct link *link, int32_t stream_id, const uint8_t *wire, size_t len,
                       const struct http_request *http)
{
    struct tls_upstream *up = link->up;
    if (len < 12) {
        link_hang_up(link, END_RST, false);
        return;
    }
    const struct tls_seen *seen = remember(link, wire, len, http);
    struct reply *reply = upstream_allocate(sizeof(*reply) + len);
    reply->conn = link->number;
    reply->stream_id = stream_id;
    reply->rule = up->rule;
    reply->len = len;
    memcpy(reply->query, wire, len);
    if (up->pick != NULL) {
        up->pick(up->pick_arg, seen, &reply->rule);
    }
    reply->due_ns =
        reply->rule.hold > 1 ? UINT64_MAX : upstream_now_ns() + (uint64_t)reply->rule.delay_ms * NS_PER_MS;
    reply->next = up->replies;
    up->replies = reply;
    if (++link->unanswered > up->counts.together) {
        up->counts.together = link->unanswered;
    }
    if (reply->rule.hold > 1) {
        release_held(link, reply->rule.hold);
    }
}

static void answer(struct link *link, const struct reply *reply)
{
    const struct tls_rule *rule = &reply->rule;
    uint8_t *frame = upstream_allocate(2 + MESSAGE_MAX);
    size_t len =
        message_answer(frame + 2, MESSAGE_MAX, reply->query, reply->len, rule->rcode, rule->pad);
    if (rule->opt) {
        len = message_add_opt(frame + 2, MESSAGE_MAX, len, rule->options, rule->options_len);
    }
    frame[0] = (uint8_t)(len >> 8);
    frame[1] = (uint8_t)len;
    if (link->http != NULL) {
        unsigned resets = http_server_resets(link->http);
        http_server_respond(link->http, reply->stream_id, &rule->http, frame + 2, len);
        link_put_http(link, rule->half_record);
        link->up->counts.resets += http_server_resets(link->http) - resets;
    } else {
        size_t first = rule->apart ? 2 : 0;
        if (first > 0) {
            link_put(link, frame, first, false);
        }
        link_put(link, frame + first, 2 + len - first, rule->half_record);
    }
    free(frame);
}

/** A reply that is but the end of the connection. */
static void schedule_end(struct link *link, const struct tls_rule *rule)
{
    struct reply *reply = upstream_allocate(sizeof(*reply));
    reply->conn = link->number;
    reply->rule = (struct tls_rule){.instead = rule->after, .notify = rule->notify};
    reply->due_ns = upstream_now_ns() + (uint64_t)rule->after_ms * NS_PER_MS;
    reply->next = link->up->replies;
    link->up->replies = reply;
    link->unanswered++;
}

static void perform(struct link *link, const struct reply *reply)
{
    const struct tls_rule *rule = &reply->rule;
    link->unanswered--;
    if (rule->instead != END_NONE) {
        link_hang_up(link, rule->instead, rule->notify);
        return;
    }
    if (rule->renegotiate) {
        (void)SSL_renegotiate(link->ssl);
        (void)SSL_do_handshake(link->ssl);
        link_flush(link, false);
    }
    if (rule->garbage) {
        uint8_t noise[64];
        memset(noise, 0xaa, sizeof(noise));
        link_transmit(link, noise, sizeof(noise));
    } else if (!rule->drop) {
        answer(link, reply);
    }
    if (rule->after_ms > 0 && rule->after != END_NONE) {
        schedule_end(link, rule);
    } else if (rule->half_record || rule->after != END_NONE) {
        link_hang_up(link, rule->after == END_RST ? END_RST : END_FIN, rule->notify);
    }
}

static struct link *find(struct tls_upstream *up, unsigned number)
{
    struct link *link = up->links;
    while (link != NULL && (link->number != number || link->fd < 0)) {
        link = link->next;
    }
    return link;
}

/** Performs the first in the list that is due. @return false when none is */
static bool perform_one(struct tls_upstream *up, uint64_t now)
{
    struct reply **at = &up->replies;
    while (*at != NULL && (*at)->due_ns > now) {
        at = &(*at)->next;
    }
    struct reply *reply = *at;
    if (reply == NULL) {
        return false;
    }
    *at = reply->next;
    struct link *link = find(up, reply->conn);
    if (link != NULL) {
        perform(link, reply);
    }
    free(reply);
    return true;
}

/** @return milliseconds until something is due, -1 when nothing will be */
int reply_perform_due(struct tls_upstream *up)
{
    uint64_t now = upstream_now_ns(), next = UINT64_MAX;
    if (up->kill_now || (up->kill_interval_ns > 0 && up->kill_due_ns <= now)) {
        while (link_accept(up)) {
        }
        for (struct link *link = up->links; link != NULL; link = link->next) {
            link_hang_up(link, up->kill_how, false);
        }
        up->kill_now = false;
        up->kill_due_ns = now + up->kill_interval_ns;
    }
    while (perform_one(up, now)) {
    }
    next = up->kill_interval_ns > 0 ? up->kill_due_ns : UINT64_MAX;
    for (const struct reply *reply = up->replies; reply != NULL; reply = reply->next) {
        next = reply->due_ns < next ? reply->due_ns : next;
    }
    return next == UINT64_MAX ? -1 : next <= now ? 0 : (int)((next - now) / NS_PER_MS) + 1;
}
