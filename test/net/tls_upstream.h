/* A scripted upstream with connections that carry many queries: over TCP, over TLS, and over HTTPS;
 * it shakes hands, answers, closes and goes wrong as it is told to.
 *
 * Threads: each has one of its own, so it must be made inside the (forked) test. All functions may
 * be called from any thread, except from inside a pick function. Ownership: tls_upstream_destroy
 * ends the thread and frees everything; setups and rules are copied, the strings in them are not.
 * Standards: RFC 7766, RFC 7858, RFC 8446, RFC 8484.
 */
#pragma once

#include "certificate.h"
#include "http_server.h"
#include "upstream.h"

struct tls_upstream;

enum tls_kind { KIND_TCP, KIND_DOT, KIND_DOH };

/** What does not change while it runs. */
struct tls_setup {
    enum tls_kind kind;
    const struct certificate *certificate;
    const struct certificate
        *client_ca; /**< asks for a certificate by this issuer, and wants one; NULL does not ask */
    int min_version, max_version; /**< TLS1_*_VERSION; 0 for OpenSSL's own limits */
    const char *alpn;      /**< the one protocol it has; NULL the right one, "" it knows no ALPN */
    unsigned stall_flight; /**< from this one of its flights on, counted from 1, nothing is sent */
    bool stall_half;       /**< but half of that flight is */
    unsigned stall_conn;   /**< only on this connection; 0 on all */
    unsigned hello_ms;     /**< the first flight of each handshake takes its thread so long */
    bool any_address;      /**< reachable at all of 127/8 */
    bool ipv6;             /**< at ::1 instead */
    bool limit_streams;
    unsigned max_streams; /**< of SETTINGS, with limit_streams */
};

/** What is done with one query. All zero: the good answer at once. */
struct tls_rule {
    unsigned delay_ms;
    unsigned hold; /**< answers wait until so many are held on the connection; then the last goes
                      first */
    bool drop;
    unsigned rcode;
    size_t pad;          /**< size of a TXT record added to the answer */
    bool opt;            /**< the answer has an OPT ... */
    const uint8_t *options; /**< ... with these options */
    size_t options_len;
    enum ending instead; /**< closed without an answer */
    enum ending after;   /**< closed after the answer ... */
    unsigned after_ms;   /**< ... so much later */
    bool notify;         /**< with a close_notify first */
    bool apart;          /**< not over HTTP: length and message of the answer leave in a write each */
    bool half_record;    /**< of the answer only half a record is sent; then FIN */
    bool garbage;        /**< octets that are no TLS record instead of the answer */
    bool renegotiate;    /**< asked for before the answer (TLS 1.2) */
    struct http_form http;
};

/** One query that came. */
struct tls_seen {
    unsigned number; /**< from 1 */
    unsigned conn;   /**< from 1 */
    uint16_t id, type;
    bool no_rd;
    char name[256];
    uint8_t wire[1024]; /**< cut off if longer */
    size_t wire_len;
    bool resumed;
    char version[16];
    char alpn[16];
    char sni[128];
    char client[64];          /**< common name of the client's certificate */
    struct http_request http; /**< without wire */
};

typedef void tls_pick_fn(void *arg, const struct tls_seen *query, struct tls_rule *rule);

/** Totals since tls_upstream_create. */
struct tls_counts {
    unsigned opened, open;
    unsigned handshakes, resumed; /**< completed; with a session of before */
    unsigned tickets, twice;      /**< TLS 1.3 tickets offered; those offered before */
    unsigned queries;
    unsigned reads;              /**< how often octets came: records over TLS */
    unsigned together;           /**< most queries that one connection had unanswered at once */
    unsigned resets;             /**< streams that the client gave up, on connections still open */
    unsigned closed_with_notify; /**< connections that the client ended with close_notify */
};

struct tls_upstream *tls_upstream_create(const struct tls_setup *setup);
void tls_upstream_destroy(struct tls_upstream *up);

/** "127.0.0.1:PORT" or "[::1]:PORT" */
const char *tls_upstream_addr(const struct tls_upstream *up);
unsigned tls_upstream_port(const struct tls_upstream *up);

void tls_upstream_set(struct tls_upstream *up, const struct tls_rule *rule);
void tls_upstream_script(struct tls_upstream *up, tls_pick_fn *pick, void *arg);

/** Shows another certificate in handshakes to come. */
void tls_upstream_show(struct tls_upstream *up, const struct certificate *certificate);

/** Closes all connections now, or every interval_ms, those that wait to be accepted among them. */
void tls_upstream_kill(struct tls_upstream *up, enum ending how);
void tls_upstream_kill_every(struct tls_upstream *up, enum ending how, unsigned interval_ms);

struct tls_counts tls_upstream_counts(struct tls_upstream *up);
/** The query with this index from 0; aborts when there is none. */
struct tls_seen tls_upstream_seen(struct tls_upstream *up, unsigned index);
