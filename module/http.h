/* DNS over HTTPS on nghttp2: requests out, answers in, octet streams on both sides left to the caller.
 *
 * Threads: none of its own; the conn's io mutex guards a struct h2. Ownership: owns its session and streams. Limits: answers of at most 65,535 octets;
 * nghttp2's own limits on settings, resets and acknowledgements. Standards: RFC 8484, RFC 9113; CoreDNS case 90.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct h2;

/** One stream that has ended. */
struct h2_result {
    struct h2_result *next;
    int32_t stream_id;
    bool refused;  /**< the server did not work on it: may be repeated elsewhere at no charge */
    char why[96];  /**< what is wrong with the response; "" when it carries a message */
    uint32_t age;  /**< seconds, to be taken off the TTLs (RFC 8484 5.1) */
    uint32_t len;
    uint8_t body[]; /**< the message */
};

/** What a request looks like. */
struct h2_target {
    const char *authority;
    bool get; /**< GET with ?dns=, else POST */
};

/** @return NULL when out of memory */
struct h2 *h2_create(void);
void h2_destroy(struct h2 *h2);

/** Queues a request. @return the stream's ID, or -1 when this connection takes no more */
int32_t h2_submit(struct h2 *h2, const struct h2_target *target, const uint8_t *msg, uint32_t len);

/** Gives a stream up. */
void h2_cancel(struct h2 *h2, int32_t stream_id);

/** Takes in what came. @return 0, or -1 when the peer breaks the protocol and the connection must be closed */
int h2_feed(struct h2 *h2, const uint8_t *data, uint32_t len);

/** What is to be sent next, in buf. @return octets, 0 when nothing is */
uint32_t h2_pull(struct h2 *h2, uint8_t *buf, uint32_t cap);

/** The peer has broken the protocol, and the farewell that says so has been pulled: nothing more will come of this connection. */
bool h2_broken(const struct h2 *h2);

/** Takes the results so far; the caller frees each with free(). Order of arrival. */
struct h2_result *h2_results(struct h2 *h2);

/** Streams that the peer lets us have at once; 0 once it has said GOAWAY or the stream IDs run out. */
uint32_t h2_capacity(const struct h2 *h2);
