/* Answers: what is accepted answers the question, is accepted again as it then is, and once more
 * without the EDNS options that belong to one hop. */
#include "edns.h"
#include "fuzz.h"
#include "wire.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

/** Takes the options out of an accepted answer. */
static void check_edns(const uint8_t *query_msg, uint32_t query_len, const struct wire_query *query,
                       uint8_t *answer, uint32_t len)
{
    static const struct edns both = {.block = 128, .keepalive = true};
    int32_t timeout;
    uint32_t left = len;
    if (edns_remove(&both, query_msg, query_len, answer, &left, &timeout)) {
        require(left <= len && timeout >= EDNS_NO_TIMEOUT && timeout <= 65535);
        len = left;
        require(wire_answer_check(answer, &left, query_msg, query, query->id) == ANSWER_GOOD);
        require(left == len);
    }
}

/** One input: the length of a query (one octet), the query, and what came for it. A query that is
 * none is replaced by a plain one. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t plain[] = "\x12\x34\1\0\0\1\0\0\0\0\0\0\3www\7example\3org\0\0\1\0\1";
    const uint8_t *query_msg = plain;
    uint32_t query_size = sizeof(plain) - 1;
    struct wire_query query;
    if (size == 0) {
        return 0;
    }
    size_t query_len = data[0];
    data++;
    size--;
    if (query_len <= size && wire_query_parse(data, (uint32_t)query_len, &query) == 0) {
        query_msg = data;
        query_size = (uint32_t)query_len;
        data += query_len;
        size -= query_len;
    } else {
        require(wire_query_parse(plain, sizeof(plain) - 1, &query) == 0);
    }
    if (size > 65535) {
        return 0;
    }
    uint8_t *answer = malloc(size + 1);
    uint32_t len = (uint32_t)size;
    require(answer != NULL);
    memcpy(answer, data, size);
    if (wire_answer_check(answer, &len, query_msg, &query, query.id) == ANSWER_GOOD) {
        uint32_t question_end = WIRE_HEADER + query.question_len, again = len;
        require(len <= size && len >= question_end);
        require(wire_u16(answer) == query.id && (wire_u16(answer + 2) & WIRE_FLAG_QR) != 0);
        for (uint32_t i = WIRE_HEADER; i < question_end; i++) {
            require(answer[i] == query_msg[i] && tolower(data[i]) == tolower(query_msg[i]));
        }
        /* nothing but the question's letter case is changed, unless the end was cut off, for which
         * TC stands */
        require(len == size
                    ? memcmp(answer + question_end, data + question_end, size - question_end) == 0
                    : len == question_end && (wire_u16(answer + 2) & WIRE_FLAG_TC) != 0);
        require(wire_answer_check(answer, &again, query_msg, &query, query.id) == ANSWER_GOOD &&
                again == len);
        require(wire_rcode(answer, len) < 4096);
        check_edns(query_msg, query_size, &query, answer, len);
    }
    free(answer);
    return 0;
}
