/* Client queries: whatever is accepted as one has a whole question, and its own reflection with QR
 * set is an answer to it; with EDNS options added it is a query still, and the same one without
 * them.
 *
 * case 95: CoreDNS catches a panic and answers SERVFAIL; here nothing catches, so no message may lead
 * out of its bounds. The seeds are replayed as tests, under the sanitizers too. */
#include "edns.h"
#include "fuzz.h"
#include "wire.h"

#include <stdlib.h>
#include <string.h>

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

/** What edns_add has added to a query edns_remove takes out of its reflection. */
static void check_edns(const uint8_t *data, uint32_t size)
{
    static const struct edns both = {.block = 128, .keepalive = true};
    struct wire_query query;
    int32_t timeout;
    uint8_t *msg = malloc(size + edns_room(&both));
    require(msg != NULL);
    memcpy(msg, data, size);
    uint32_t len = edns_add(&both, msg, size);
    require(wire_query_parse(msg, len, &query) == 0);
    require(len == size || len % both.block == 0 || len == 65535);
    uint32_t added = len;
    if (added != size && edns_remove(&both, data, size, msg, &len, &timeout)) {
        require(len <= added);
        require(wire_query_parse(msg, len, &query) == 0);
    }
    free(msg);
}

/** One input: a message. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_query query;
    if (size > 65535 || wire_query_parse(data, (uint32_t)size, &query) != 0) {
        return 0;
    }
    require(query.qname_len >= 1 && query.qname_len <= WIRE_MAX_NAME);
    require(query.question_len == query.qname_len + 4 &&
            size >= (size_t)WIRE_HEADER + query.question_len);
    require(wire_name_len(data + WIRE_HEADER, (uint32_t)size - WIRE_HEADER) == query.qname_len);

    uint8_t *answer = malloc(size);
    uint32_t len = (uint32_t)size;
    require(answer != NULL);
    memcpy(answer, data, size);
    answer[2] |= 0x80;
    require(wire_answer_check(answer, &len, data, &query, query.id) == ANSWER_GOOD && len == size);
    require(memcmp(answer + WIRE_HEADER, data + WIRE_HEADER, size - WIRE_HEADER) == 0);
    require(wire_rcode(answer, len) < 4096);
    free(answer);
    check_edns(data, (uint32_t)size);
    return 0;
}
