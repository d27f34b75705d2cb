/* Padding and keepalive, added and taken out: what leaves is as RFC 7828, 7830 and 8467 have it, what comes back is what the client would have
 * got without them, and what may not be touched is not. */
#include "edns.h"
#include "wire.h"

#include "net/message.h"
#include "suite.h"

#include <stdlib.h>
#include <string.h>

enum { KEEPALIVE = 11, PADDING = 12, COOKIE = 10, TYPE_SIG = 24, TYPE_TSIG = 250, CAP = 65535 + 64 };

static const struct edns padding = {.block = 128}, keepalive = {.keepalive = true}, both = {.block = 128, .keepalive = true};

static uint8_t query[CAP], answer[CAP], whole[CAP];
static uint32_t query_len, answer_len, whole_len;

static uint32_t put_record(uint8_t *msg, uint32_t at, const char *owner, uint32_t owner_len, uint16_t type, const void *rdata,
                           uint32_t len)
{
    memcpy(msg + at, owner, owner_len);
    at += owner_len;
    memset(msg + at, 0, 10);
    wire_put_u16(msg + at, type);
    wire_put_u16(msg + at + 2, CLASS_IN);
    wire_put_u16(msg + at + 8, (uint16_t)len);
    memcpy(msg + at + 10, rdata, len);
    wire_put_u16(msg + 10, (uint16_t)(wire_u16(msg + 10) + 1));
    return at + 10 + len;
}

static void add_opt(uint8_t *msg, uint32_t *len, const void *options, uint32_t options_len)
{
    *len = (uint32_t)message_add_opt(msg, CAP, *len, options, options_len);
}

static void make_query(void)
{
    query_len = (uint32_t)message_query(query, sizeof(query), 7, "www.example", TYPE_A);
}

static void make_answer(void)
{
    answer_len = (uint32_t)message_answer(answer, sizeof(answer), query, query_len, NOERROR, 0);
}

/** Adds to a copy of the query. @return its length; `whole` holds it */
static uint32_t add(const struct edns *edns)
{
    memcpy(whole, query, query_len);
    whole_len = edns_add(edns, whole, query_len);
    struct wire_query parsed;
    ck_assert_uint_le(whole_len, query_len + edns_room(edns));
    ck_assert_int_eq(wire_query_parse(whole, whole_len, &parsed), 0);
    return whole_len;
}

/** Takes out of a copy of the answer. @return the timeout; `whole` holds what is left */
static int32_t cut(const struct edns *edns)
{
    int32_t timeout;
    memcpy(whole, answer, answer_len);
    whole_len = answer_len;
    ck_assert(edns_remove(edns, query, query_len, whole, &whole_len, &timeout));
    return timeout;
}

static void ck_whole_is(const uint8_t *msg, uint32_t len)
{
    ck_assert_uint_eq(whole_len, len);
    ck_assert_mem_eq(whole, msg, len);
}

/* --- the way out -------------------------------------------------------------------------------------------------- */

/* RFC 8467 4.1: whatever its length, a query becomes a multiple of the block, and not one block more than it must be. */
START_TEST(padded_to_blocks)
{
    static const uint16_t blocks[] = {1, 2, 128, 468, EDNS_MAX_BLOCK};
    char name[200] = "";
    for (unsigned i = 0; i < 180; i++) {
        const struct edns edns = {.block = blocks[i % 5]};
        name[i] = i % 50 == 49 ? '.' : 'x';
        query_len = (uint32_t)message_query(query, sizeof(query), 7, name, TYPE_A);
        ck_assert_uint_eq(add(&edns) % edns.block, 0);
        ck_assert_uint_lt(whole_len, query_len + 11 + 4 + edns.block);
        ck_assert_mem_eq(whole, query, 10);
        ck_assert_mem_eq(whole + 12, query + 12, query_len - 12);
    }
}
END_TEST

/* The OPT that a query did not have: the root's, version 0, no flag; the options in order, padding last and of zeros (RFC 8467 3, RFC 7830 3). */
START_TEST(opt_that_was_not_there)
{
    static const uint8_t head[] = {0, 0, TYPE_OPT, 1232 >> 8, 1232 & 255, 0, 0, 0, 0};
    make_query();
    ck_assert_uint_eq(add(&both), 128);
    const uint8_t *opt = whole + query_len;
    ck_assert_uint_eq(wire_u16(whole + 10), 1);
    ck_assert_mem_eq(opt, head, sizeof(head));
    ck_assert_uint_eq(wire_u16(opt + 9), 128 - query_len - 11);
    ck_assert_uint_eq(wire_u16(opt + 11), KEEPALIVE);
    ck_assert_uint_eq(wire_u16(opt + 13), 0); /* RFC 7828 3.2.1 */
    ck_assert_uint_eq(wire_u16(opt + 15), PADDING);
    ck_assert_uint_eq(wire_u16(opt + 17), 128 - query_len - 19);
    for (const uint8_t *at = opt + 19; at < whole + 128; at++) {
        ck_assert_uint_eq(*at, 0);
    }
    (void)add(&keepalive);
    ck_assert_uint_eq(whole_len, query_len + 15);
}
END_TEST

/* What else the client's OPT says stays; options of its own that we would add are not there twice. */
START_TEST(opt_that_was_there)
{
    static const uint8_t options[] = {0, COOKIE, 0, 2, 'a', 'b', 0, PADDING, 0, 3, 0, 0, 0, 0, KEEPALIVE, 0, 0};
    make_query();
    uint32_t opt = query_len;
    add_opt(query, &query_len, options, sizeof(options));
    query[opt + 7] = 0x80; /* DO */
    ck_assert_uint_eq(add(&both), 128);
    ck_assert_uint_eq(wire_u16(whole + 10), 1);
    ck_assert_mem_eq(whole + opt, query + opt, 9);
    ck_assert_mem_eq(whole + opt + 11, options, 6);
    ck_assert_mem_eq(whole + opt + 17, options + 13, 4);
    ck_assert_uint_eq(wire_u16(whole + opt + 21), PADDING);
    ck_assert_uint_eq(opt + 25 + wire_u16(whole + opt + 23), 128);
    (void)add(&keepalive);
    ck_whole_is(query, query_len);
}
END_TEST

/* Nothing is added to a signed message, to one whose OPT is not last, to one with octets behind it, with two OPTs, or where there is no room. */
START_TEST(left_as_they_are)
{
    for (unsigned i = 0; i < 6; i++) {
        make_query();
        if (i > 0 && i < 5) {
            add_opt(query, &query_len, "", 0);
        }
        if (i < 2) {
            query_len = put_record(query, query_len, "", 1, i == 0 ? TYPE_TSIG : TYPE_SIG, "sig", 3);
        } else if (i == 2) {
            query_len = put_record(query, query_len, "", 1, TYPE_TXT, "\1x", 2);
        } else if (i == 3) {
            query[query_len++] = 0;
        } else if (i == 4) {
            add_opt(query, &query_len, "", 0);
        } else {
            query_len = put_record(query, query_len, "", 1, TYPE_TXT, whole, 65535 - query_len - 11 - 18);
        }
        (void)add(&both);
        ck_whole_is(query, query_len);
    }
}
END_TEST

/* Near the greatest length there are as many octets of padding as there is room for. */
START_TEST(no_longer_than_a_message_can_be)
{
    make_query();
    query_len = put_record(query, query_len, "", 1, TYPE_TXT, whole, 65535 - query_len - 11 - 40);
    ck_assert_uint_eq(query_len, 65535 - 40);
    ck_assert_uint_eq(add(&(struct edns){.block = EDNS_MAX_BLOCK}), 65535);
}
END_TEST

/* --- the way back ------------------------------------------------------------------------------------------------- */

static const uint8_t answered[] = {0, KEEPALIVE, 0, 2, 1, 44, 0, COOKIE, 0, 2, 'c', 'd', 0, PADDING, 0, 5, 0, 0, 0, 0, 0};

/* A client that sent no OPT gets none; what the server says of idle connections is heard only where it was asked. */
START_TEST(no_opt_for_who_sent_none)
{
    make_query();
    make_answer();
    uint8_t plain[512];
    uint32_t plain_len = answer_len;
    memcpy(plain, answer, answer_len);
    add_opt(answer, &answer_len, answered, sizeof(answered));
    ck_assert_int_eq(cut(&both), 300);
    ck_whole_is(plain, plain_len);
    ck_assert_int_eq(cut(&padding), EDNS_NO_TIMEOUT);
    ck_whole_is(plain, plain_len);
}
END_TEST

/* One that sent an OPT gets the server's, without padding and keepalive; padding it gets if it has padded itself. */
START_TEST(only_what_was_asked_for)
{
    static const uint8_t own_padding[] = {0, PADDING, 0, 0};
    for (unsigned i = 0; i < 2; i++) {
        make_query();
        make_answer();
        uint32_t opt = answer_len;
        add_opt(query, &query_len, own_padding, i == 0 ? 0 : sizeof(own_padding));
        add_opt(answer, &answer_len, answered, sizeof(answered));
        ck_assert_int_eq(cut(&both), 300);
        uint32_t left = i == 0 ? 6 : 6 + 9;
        ck_assert_uint_eq(whole_len, opt + 11 + left);
        ck_assert_uint_eq(wire_u16(whole + opt + 9), left);
        ck_assert_mem_eq(whole, answer, opt + 9);
        ck_assert_mem_eq(whole + opt + 11, answered + 6, left);
    }
    ck_assert_int_eq(cut(&padding), EDNS_NO_TIMEOUT); /* keepalive was not ours to ask for: relayed */
    ck_whole_is(answer, answer_len);
}
END_TEST

/* RFC 7828 3.1: TIMEOUT has two octets; 0 is a time too. */
START_TEST(timeouts)
{
    static const struct {
        uint8_t option[8];
        uint32_t len;
        int32_t timeout;
    } cases[] = {
        {{0, KEEPALIVE, 0, 2, 0, 0}, 6, 0},
        {{0, KEEPALIVE, 0, 2, 255, 255}, 6, 65535},
        {{0, KEEPALIVE, 0, 0}, 4, EDNS_NO_TIMEOUT},
        {{0, KEEPALIVE, 0, 1, 9}, 5, EDNS_NO_TIMEOUT},
        {{0, KEEPALIVE, 0, 3, 9, 9, 9}, 7, EDNS_NO_TIMEOUT},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        make_query();
        make_answer();
        add_opt(answer, &answer_len, cases[i].option, cases[i].len);
        ck_assert_int_eq(cut(&keepalive), cases[i].timeout);
    }
}
END_TEST

/* An RCODE that needs the OPT (BADVERS) does not become NOERROR without it. */
START_TEST(extended_rcode)
{
    make_query();
    make_answer();
    uint32_t opt = answer_len;
    add_opt(answer, &answer_len, "", 0);
    answer[opt + 5] = 1;
    (void)cut(&padding);
    ck_assert_uint_eq(whole[3] & 15, SERVFAIL);
    ck_assert_uint_eq(wire_rcode(whole, whole_len), SERVFAIL);
}
END_TEST

/* Records behind the OPT move, and with them what their names point at. */
START_TEST(names_behind_the_opt)
{
    make_query();
    make_answer();
    uint32_t opt = answer_len;
    add_opt(answer, &answer_len, answered, sizeof(answered));
    uint32_t name = answer_len;
    answer_len = put_record(answer, answer_len, "\2ns\xc0\x0c", 5, TYPE_A, "\1\2\3\4", 4);
    char pointer[] = {(char)0xc0, (char)name};
    answer_len = put_record(answer, answer_len, pointer, 2, TYPE_A, "\5\6\7\10", 4);
    answer_len = put_record(answer, answer_len, pointer, 2, TYPE_NS, pointer, 2);
    (void)cut(&both);
    ck_assert_uint_eq(whole_len, answer_len - 11 - sizeof(answered));
    ck_assert_uint_eq(wire_u16(whole + 10), 3);
    ck_assert_mem_eq(whole + opt, answer + name, 19);
    ck_assert_uint_eq(wire_u16(whole + opt + 19), 0xc000 | opt);
    ck_assert_uint_eq(wire_u16(whole + whole_len - 2), 0xc000 | opt);
    struct wire_query parsed;
    ck_assert_int_eq(wire_query_parse(query, query_len, &parsed), 0);
    ck_assert_int_eq(wire_answer_check(whole, &whole_len, query, &parsed, 7), ANSWER_GOOD);
}
END_TEST

/* A name that leads into the OPT, and a second OPT: no good. */
START_TEST(refused_answers)
{
    int32_t timeout;
    make_query();
    make_answer();
    char pointer[] = {(char)0xc0, (char)answer_len};
    uint32_t bare = answer_len;
    add_opt(answer, &answer_len, answered, sizeof(answered));
    answer_len = put_record(answer, answer_len, pointer, 2, TYPE_A, "\1\2\3\4", 4);
    ck_assert(!edns_remove(&both, query, query_len, answer, &answer_len, &timeout));
    make_answer();
    ck_assert_uint_eq(answer_len, bare);
    add_opt(answer, &answer_len, "", 0);
    add_opt(answer, &answer_len, "", 0);
    ck_assert(!edns_remove(&both, query, query_len, answer, &answer_len, &timeout));
}
END_TEST

/* Signed messages are nobody's to change; and where nothing was added nothing is taken out. */
START_TEST(untouched_answers)
{
    make_query();
    make_answer();
    add_opt(answer, &answer_len, answered, sizeof(answered));
    ck_assert_int_eq(cut(&(struct edns){0}), EDNS_NO_TIMEOUT);
    ck_whole_is(answer, answer_len);
    query_len = put_record(query, query_len, "", 1, TYPE_TSIG, "sig", 3);
    (void)cut(&both);
    ck_whole_is(answer, answer_len);
    make_query();
    answer_len = put_record(answer, answer_len, "", 1, TYPE_TSIG, "sig", 3);
    (void)cut(&both);
    ck_whole_is(answer, answer_len);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("edns");
    TCase *tcase = tcase_create("edns");
    tcase_add_test(tcase, padded_to_blocks);
    tcase_add_test(tcase, opt_that_was_not_there);
    tcase_add_test(tcase, opt_that_was_there);
    tcase_add_test(tcase, left_as_they_are);
    tcase_add_test(tcase, no_longer_than_a_message_can_be);
    tcase_add_test(tcase, no_opt_for_who_sent_none);
    tcase_add_test(tcase, only_what_was_asked_for);
    tcase_add_test(tcase, timeouts);
    tcase_add_test(tcase, extended_rcode);
    tcase_add_test(tcase, names_behind_the_opt);
    tcase_add_test(tcase, refused_answers);
    tcase_add_test(tcase, untouched_answers);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
