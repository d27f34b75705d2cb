/* Looking up the addresses of one host name, on c-ares.
 *
 * A lookup never waits by itself: lookup_turn deals with what has come and says whether it has ended. Its sockets are shown to whoever
 * wants to watch them.
 *
 * Threads: one at a time. Ownership: from lookup_begin to lookup_end it holds a c-ares channel with its sockets. Limits: 64 addresses;
 * 2 s per question. Standards: CoreDNS case 37.
 */
#pragma once

#include "config.h"

struct ares_channeldata;

enum { LOOKUP_ADDRESSES = 64, LOOKUP_WHY = 256, LOOKUP_NAME = 256, LOOKUP_TIMEOUT_MS = 2000 };

struct addresses {
    struct fwd_addr items[LOOKUP_ADDRESSES]; /* without port */
    uint32_t count;
};

/** Called when a socket of the lookup is to be watched for reading or writing, or for neither any more. */
typedef void lookup_watch_fn(void *arg, int fd, int readable, int writable);

struct lookup {
    const struct config_stanza *stanza; /* its resolvers; with none the system's */
    lookup_watch_fn *watch;
    void *watch_arg;
    char name[LOOKUP_NAME];
    struct ares_channeldata *channel; /* NULL between resolvers */
    uint32_t resolver;
    uint16_t asking; /* TYPE_A, TYPE_AAAA; 0 when the system does both */
    bool answered;   /* the question has ended */
    bool received;   /* a reply came, whatever its RCODE */
    int status;      /* of c-ares */
    bool over;

    /* the result */
    struct addresses found;
    uint32_t ttl;          /* seconds, the shortest of the records; 0 when there is none, as in a hosts file */
    bool unsure4, unsure6; /* none was found, but not because the answer was that there is none */
    char why[LOOKUP_WHY];  /* when nothing was found, in CoreDNS's words */
};

/** Sends the first question. @param watch may be NULL */
void lookup_begin(struct lookup *lookup, const struct config_stanza *stanza, const char *name, lookup_watch_fn *watch, void *watch_arg);

/** Waits for at most wait_ms, and goes on with what has come. @return true when it has ended: the result is there */
bool lookup_turn(struct lookup *lookup, uint32_t wait_ms);

/** How long until lookup_turn must be called though no socket has anything, milliseconds. */
uint32_t lookup_patience_ms(const struct lookup *lookup);

/** Closes its sockets. The result stays. */
void lookup_end(struct lookup *lookup);
