/* A DoH server's octets after decryption, cut anywhere: whatever they are, the HTTP/2 session lives or says that it is broken; every request ends at most
 * once; a response that carries a message has the limits that http.h promises.
 */
#include "fuzz.h"
#include "http.h"

#include <stdlib.h>
#include <string.h>

enum { REQUESTS = 3, MAX_BODY = 65535 };

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

/** Takes what has ended. */
static void take(struct h2 *h2, const int32_t *ids, unsigned *ended)
{
    for (struct h2_result *result = h2_results(h2); result != NULL;) {
        struct h2_result *next = result->next;
        unsigned known = 0;
        for (unsigned i = 0; i < REQUESTS; i++) {
            if (ids[i] == result->stream_id) {
                require(++ended[i] == 1);
                known++;
            }
        }
        require(known == 1);
        require(memchr(result->why, '\0', sizeof(result->why)) != NULL);
        require(result->len <= MAX_BODY);
        require(result->why[0] != '\0' ? result->len == 0 : result->len > 0 && !result->refused);
        free(result);
        result = next;
    }
}

static void pull(struct h2 *h2)
{
    uint8_t out[100];
    for (unsigned i = 0; i < 10000 && h2_pull(h2, out, sizeof(out)) > 0; i++) {
    }
}

/** One input: an octet of choices (GET, a stream given up, the size of pieces), then the octets. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t message[] = "\0\0\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1";
    int32_t ids[REQUESTS];
    unsigned ended[REQUESTS] = {0};
    if (size == 0) {
        return 0;
    }
    struct h2 *h2 = h2_create();
    require(h2 != NULL);
    const struct h2_target target = {.authority = "one.test", .get = (data[0] & 1) != 0};
    size_t piece = (data[0] & 4) != 0 ? 1 : (data[0] & 8) != 0 ? 9 : 16384;
    for (unsigned i = 0; i < REQUESTS; i++) {
        ids[i] = h2_submit(h2, &target, message, sizeof(message) - 1);
        require(ids[i] > 0);
    }
    pull(h2);
    bool given_up = (data[0] & 2) != 0;
    for (size_t at = 1; at < size && !h2_broken(h2); at += piece) {
        size_t len = size - at < piece ? size - at : piece;
        if (h2_feed(h2, data + at, (uint32_t)len) != 0) {
            break;
        }
        if (given_up && at > size / 2) {
            h2_cancel(h2, ids[1]);
            given_up = false;
        }
        pull(h2);
        take(h2, ids, ended);
        require(h2_capacity(h2) > 0 || h2_submit(h2, &target, message, sizeof(message) - 1) == -1);
    }
    take(h2, ids, ended);
    h2_destroy(h2);
    return 0;
}
