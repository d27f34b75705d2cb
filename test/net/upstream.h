/* A scripted upstream: a DNS server on a loopback port, UDP and TCP, that behaves as a rule says
 * and remembers what it saw.
 *
 * Threads: each upstream has one of its own, so it must be made inside the (forked) test. All
 *   functions may be called from any thread, except from inside a pick function.
 *
 * Ownership: upstream_destroy ends the thread and frees everything; rules are copied.
 *
 * Limits: answers are sent without queueing; one that the socket does not take at once ends the
 *   connection.
 *
 * Standards: RFC 1035 4.2, RFC 7766.
 */
#pragma once

#include "message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct upstream;

/** How a connection is closed. */
enum ending { END_NONE, END_FIN, END_RST };

/** What is done with one query. All zero: the good answer at once. */
struct upstream_rule {
    unsigned delay_ms;   /**< before the good answer */
    unsigned hold;       /**< the good answers come when so many are due, in order; 0, 1: each at once */
    bool drop;           /**< no good answer at all */
    unsigned rcode;      /**< of the answer, and of BAD_BARE_ERROR if not 0 */
    size_t pad;          /**< size of a TXT record added to it */
    bool tc;             /**< over UDP: no records and TC instead */
    const char *addresses; /**< records instead of the good one: those of the list, parted by blanks,
                              that are of the QTYPE's kind; the text must outlive the upstream */
    uint32_t ttl;          /**< of them, seconds */
    enum bad bad;        /**< kind of wrong message that comes before the good one */
    unsigned bad_count;  /**< how many of them; they come at once */
    unsigned chunk;      /**< over TCP: the frame comes in pieces of so many octets ... */
    unsigned chunk_ms;   /**< ... one piece each so many ms */
    size_t stop_at;      /**< over TCP: only so many octets of the frame (length field included) */
    enum ending instead; /**< over TCP: closed without an answer */
    enum ending after;   /**< over TCP: closed after the answer, or what stop_at left of it */
};

/** One query that came. */
struct upstream_seen {
    uint64_t at_ns;  /**< CLOCK_MONOTONIC */
    unsigned number; /**< of the query, from 1 */
    unsigned conn;   /**< number of the TCP connection from 1, 0 over UDP */
    bool tcp;
    uint16_t port; /**< the sender's */
    uint16_t id;
    uint16_t type;
    char name[256]; /**< lower case, no last dot */
    uint8_t *wire;  /**< the upstream's; valid until upstream_destroy */
    size_t wire_len;
};

/** Chooses the rule of one query by editing *rule, which comes in as the upstream's own. */
typedef void upstream_pick_fn(void *arg, const struct upstream_seen *query,
                              struct upstream_rule *rule);

/** Totals since upstream_create. */
struct upstream_counts {
    unsigned queries, udp, tcp; /**< queries: all, and by transport */
    unsigned opened;            /**< TCP connections accepted */
    unsigned open;              /**< TCP connections open now */
    unsigned ports;             /**< different UDP source ports */
};

/** Starts an upstream that answers, on 127.0.0.1; aborts on failure. */
struct upstream *upstream_create(void);
/** The same on any address of this machine and a certain port. @return NULL when it is taken */
struct upstream *upstream_create_at(const char *ip, uint16_t port);
void upstream_destroy(struct upstream *up);

/** "127.0.0.1:PORT"; the upstream's own. */
const char *upstream_addr(const struct upstream *up);
uint16_t upstream_port(const struct upstream *up);

void upstream_set(struct upstream *up, const struct upstream_rule *rule);
void upstream_script(struct upstream *up, upstream_pick_fn *pick, void *arg);

/** Down: connections are reset, new ones refused, datagrams bounced with ICMP port unreachable; the
 * port stays reserved. */
void upstream_down(struct upstream *up);
void upstream_up(struct upstream *up);
/** The same for TCP alone. */
void upstream_refuse_tcp(struct upstream *up);

/** Closes all connections now, those among them that wait to be accepted; or every interval_ms (0
 * ends that). */
void upstream_kill(struct upstream *up, enum ending how);
void upstream_kill_every(struct upstream *up, enum ending how, unsigned interval_ms);

struct upstream_counts upstream_counts(struct upstream *up);
/** The query with this index from 0; aborts when there is none. */
struct upstream_seen upstream_seen(struct upstream *up, unsigned index);

/** Waits until count queries came, or no more than `open` connections are left open. @return false
 * on time-out */
bool upstream_wait_seen(struct upstream *up, unsigned count, unsigned ms);
bool upstream_wait_open(struct upstream *up, unsigned open, unsigned ms);
