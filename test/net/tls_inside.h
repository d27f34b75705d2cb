/* What the files of tls_upstream share: its state, its connections, its replies.
 *
 * Threads: the upstream's own, with its mutex held, unless a comment says otherwise. Ownership: the
 * upstream owns links and replies; tls_upstream_destroy frees them.
 */
#pragma once

#include "tls_upstream.h"

#include <pthread.h>

#define NS_PER_MS 1000000u

enum { MAX_TICKETS = 4096 };

/* One connection. */
struct link {
    struct link *next;
    struct tls_upstream *up;
    unsigned number;
    int fd; /* -1: closed, to be freed by the loop */
    SSL *ssl;
    BIO *in, *out;
    struct http_server *http;
    bool ready, stalled;
    unsigned flights;
    unsigned unanswered;
    uint8_t *data; /* frames, not whole yet */
    size_t len;
};

/* An answer that is to be given, or the end of a connection. */
struct reply {
    struct reply *next;
    unsigned conn;
    int32_t stream_id;
    uint64_t due_ns; /* UINT64_MAX: held */
    struct tls_rule rule;
    size_t len;
    uint8_t query[];
};

struct tls_upstream {
    pthread_t thread;
    int listen_fd, wake_fd;
    struct tls_setup setup;
    unsigned port;
    char addr[32];
    SSL_CTX *ctx;

    pthread_mutex_t mutex;
    /* guarded by mutex */
    bool stopping;
    bool kill_now;
    enum ending kill_how;
    uint64_t kill_interval_ns, kill_due_ns;
    struct tls_rule rule;
    tls_pick_fn *pick;
    void *pick_arg;
    struct link *links;
    struct reply *replies; /* newest first */
    struct tls_counts counts;
    struct tls_seen *seen;
    unsigned seen_cap;
    uint64_t tickets[MAX_TICKETS];
};

/** Aborts when something does not hold on which a test rests. */
void upstream_require(bool holds, const char *what);
/** Zeroed memory. */
void *upstream_allocate(size_t size);
uint64_t upstream_now_ns(void);

/* tls_context.c */

/** The server's side of TLS as the setup has it. Before the thread runs. */
SSL_CTX *context_make(struct tls_upstream *up);
void context_use(SSL_CTX *ctx, const struct certificate *certificate);

/* tls_link.c */

/** Takes the connection that waits. @return false when none does */
bool link_accept(struct tls_upstream *up);
/** Works on what came. */
void link_receive(struct link *link);
/** Sends octets through TLS where there is TLS. @param half only the first half of the record */
void link_put(struct link *link, const uint8_t *data, size_t len, bool half);
/** Sends what HTTP/2 has to say. */
void link_put_http(struct link *link, bool half);
/** Sends octets as they are. */
void link_transmit(struct link *link, const uint8_t *data, size_t len);
/** Sends what TLS has made by itself. */
void link_flush(struct link *link, bool half);
/** Closes; the loop frees. @param notify with a close_notify first */
void link_hang_up(struct link *link, enum ending how, bool notify);
/** Frees the closed ones, or all. */
void link_sweep(struct tls_upstream *up, bool all);

/* tls_reply.c */

/** A whole query: written down, its reply put in the list. @param http NULL over TCP and TLS */
void reply_on_message(struct link *link, int32_t stream_id, const uint8_t *wire, size_t len,
                      const struct http_request *http);
/** Gives what is due. @return milliseconds until something else is, -1 when nothing will be */
int reply_perform_due(struct tls_upstream *up);
