/* The wire view: what is a query, what is an answer to it, and that no octet beyond the end is
 * looked at. */
#include "wire.h"

#include "net/message.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ID 0x5a5a

static uint8_t query[512];
static uint32_t query_len;
static struct wire_query parsed;

static void setup(void)
{
    query_len = (uint32_t)message_query(query, sizeof(query), ID, "Www.Example.org", TYPE_A);
    ck_assert_int_eq(wire_query_parse(query, query_len, &parsed), 0);
}

/** Copies a message to memory that ends with it, so that the address sanitizer sees every octet too
 * many; then checks it. */
static enum wire_answer check_exact(const uint8_t *msg, uint32_t *len)
{
    uint8_t *copy = malloc(*len > 0 ? *len : 1);
    memcpy(copy, msg, *len);
    enum wire_answer result = wire_answer_check(copy, len, query, &parsed, ID);
    free(copy);
    return result;
}

static int parse_exact(const uint8_t *msg, uint32_t len)
{
    struct wire_query ignored;
    uint8_t *copy = malloc(len > 0 ? len : 1);
    memcpy(copy, msg, len);
    int result = wire_query_parse(copy, len, &ignored);
    free(copy);
    return result;
}

/** Appends one record to a message. @return the new length */
static uint32_t append(uint8_t *msg, uint32_t len, unsigned section, const void *owner,
                       uint32_t owner_len, unsigned type, unsigned class, const void *rdata,
                       uint32_t rdata_len)
{
    uint8_t *at = msg + len;
    memcpy(at, owner, owner_len);
    at += owner_len;
    memset(at, 0, 10);
    wire_put_u16(at, (uint16_t)type);
    wire_put_u16(at + 2, (uint16_t) class);
    wire_put_u16(at + 8, (uint16_t)rdata_len);
    memcpy(at + 10, rdata, rdata_len);
    msg[6 + 2 * section + 1]++;
    return len + owner_len + 10 + rdata_len;
}

/* --- queries --------------------------------------------------------------------------------- */

START_TEST(query_fields)
{
    ck_assert_uint_eq(parsed.id, ID);
    ck_assert_uint_eq(parsed.flags, WIRE_FLAG_RD);
    ck_assert_uint_eq(parsed.qtype, TYPE_A);
    ck_assert_uint_eq(parsed.qclass, CLASS_IN);
    ck_assert_uint_eq(parsed.qname_len, 17);
    ck_assert_uint_eq(parsed.question_len, 21);
}
END_TEST

/* RFC 1035 2.3.4: names of 255 octets are names, of 256 are not; labels of 63, not of 64. */
START_TEST(query_name_limits)
{
    for (uint32_t name_len = 250; name_len <= 260; name_len++) {
        uint8_t msg[400] = {0, 0, 1, 0, 0, 1};
        uint32_t at = 12, left = name_len - 1;
        while (left > 0) {
            /* never leaves a rest of 1, which would be an empty label */
            uint32_t label = left > 64 ? (left == 65 ? 62 : 63) : left - 1;
            msg[at] = (uint8_t)label;
            memset(msg + at + 1, 'a', label);
            at += label + 1;
            left -= label + 1;
        }
        msg[at + 2] = TYPE_A;
        msg[at + 4] = CLASS_IN;
        ck_assert_msg(parse_exact(msg, at + 5) == (name_len <= 255 ? 0 : -1), "name of %u octets",
                      name_len);
    }
    uint8_t label[200] = {0, 0, 1, 0, 0, 1, [12] = 64};
    ck_assert_int_eq(parse_exact(label, 12 + 65 + 5), -1);
}
END_TEST

/* Cut anywhere, it is no query. */
START_TEST(query_cut)
{
    for (uint32_t len = 0; len < query_len; len++) {
        ck_assert_msg(parse_exact(query, len) == -1, "%u octets", len);
    }
}
END_TEST

/* case 92, RFC 9619: exactly one question, QR 0, and the records that the counts promise. */
START_TEST(query_refused_case_92)
{
    static const struct {
        uint8_t offset, value;
    } rows[] = {{5, 0}, {5, 2}, {4, 1}, {2, 0x81}, {7, 1}, {9, 1}, {11, 1}, {10, 255}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        uint8_t msg[512];
        memcpy(msg, query, query_len);
        msg[rows[i].offset] = rows[i].value;
        ck_assert_msg(parse_exact(msg, query_len) == -1, "octet %u = %u", rows[i].offset,
                      rows[i].value);
    }
    query[12] = 0xc0;
    query[13] = 12;
    ck_assert_int_eq(parse_exact(query, query_len), -1);
}
END_TEST

/* --- answers --------------------------------------------------------------------------------- */

/* cases 54, 76: one of each kind of wrong answer. */
START_TEST(answer_kinds_case_54_76)
{
    static const enum wire_answer expected[BAD_COUNT] = {
        [BAD_NONE] = ANSWER_GOOD,
        [BAD_WRONG_ID] = ANSWER_ID,
        [BAD_OTHER_QNAME] = ANSWER_QUESTION,
        [BAD_OTHER_QTYPE] = ANSWER_QUESTION,
        [BAD_OTHER_QCLASS] = ANSWER_QUESTION,
        [BAD_QR_0] = ANSWER_NO_QR,
        [BAD_NO_QUESTION] = ANSWER_QUESTION,
        [BAD_THREE_OCTETS] = ANSWER_SHORT,
        [BAD_EMPTY] = ANSWER_SHORT,
        [BAD_POINTER_LOOP] = ANSWER_MALFORMED,
        [BAD_RDLENGTH] = ANSWER_MALFORMED,
        [BAD_TWO_QUESTIONS] = ANSWER_QUESTION,
        [BAD_OPCODE] = ANSWER_OPCODE,
        [BAD_ELEVEN_OCTETS] = ANSWER_SHORT,
        [BAD_HEADER_ONLY] = ANSWER_QUESTION,
        [BAD_CUT_QNAME] = ANSWER_QUESTION,
        [BAD_CUT_QTYPE] = ANSWER_QUESTION,
        [BAD_CUT_RR_HEADER] = ANSWER_MALFORMED,
        [BAD_CUT_RDATA] = ANSWER_MALFORMED,
        [BAD_FORWARD_POINTER] = ANSWER_MALFORMED,
        [BAD_POINTER_PAST_END] = ANSWER_MALFORMED,
        [BAD_LABEL_TYPE_01] = ANSWER_MALFORMED,
        [BAD_LABEL_TYPE_10] = ANSWER_MALFORMED,
        [BAD_NAME_TOO_LONG] = ANSWER_MALFORMED,
        [BAD_QDCOUNT_200] = ANSWER_QUESTION,
        [BAD_ANCOUNT] = ANSWER_MALFORMED,
        [BAD_ARCOUNT] = ANSWER_MALFORMED,
        [BAD_QUESTION_POINTER] = ANSWER_QUESTION,
        [BAD_GARBAGE] = ANSWER_QUESTION,
        [BAD_OTHER_CASE] = ANSWER_GOOD,
        [BAD_BARE_ERROR] = ANSWER_BARE,
    };
    uint8_t msg[1024];
    uint32_t len = (uint32_t)message_bad(msg, sizeof(msg), query, query_len, (enum bad)_i);
    enum wire_answer got = check_exact(msg, &len);
    if (_i == BAD_GARBAGE) {
        ck_assert_int_ne(got, ANSWER_GOOD);
        return;
    }
    ck_assert_msg(got == expected[_i], "%s: %d", bad_name((enum bad)_i), got);
}
END_TEST

/* RFC 1035 2.3.3: another letter case is the same name; the client gets its own back. */
START_TEST(answer_case_is_restored)
{
    uint8_t msg[512];
    uint32_t len = (uint32_t)message_bad(msg, sizeof(msg), query, query_len, BAD_OTHER_CASE);
    ck_assert_mem_ne(msg + 12, query + 12, parsed.qname_len);
    ck_assert_int_eq(wire_answer_check(msg, &len, query, &parsed, ID), ANSWER_GOOD);
    ck_assert_mem_eq(msg + 12, query + 12, parsed.qname_len);
}
END_TEST

/* Without TC an answer that is cut anywhere is none; with TC (servers that cut within a record)
 * what is whole is kept: the question. */
START_TEST(answer_cut)
{
    uint8_t msg[512];
    uint32_t whole = (uint32_t)message_answer(msg, sizeof(msg), query, query_len, 0, 40);
    for (uint32_t cut = 0; cut < whole; cut++) {
        uint32_t len = cut;
        ck_assert_msg(check_exact(msg, &len) != ANSWER_GOOD, "%u octets", cut);
    }
    msg[2] |= WIRE_FLAG_TC >> 8;
    for (uint32_t cut = 0; cut <= whole; cut++) {
        uint8_t copy[512];
        uint32_t len = cut;
        memcpy(copy, msg, whole);
        enum wire_answer got = wire_answer_check(copy, &len, query, &parsed, ID);
        if (cut < 12u + parsed.question_len) {
            ck_assert_int_ne(got, ANSWER_GOOD);
        } else if (cut < whole) {
            ck_assert_int_eq(got, ANSWER_GOOD);
            ck_assert_uint_eq(len, 12u + parsed.question_len);
            ck_assert_mem_eq(copy + 6, "\0\0\0\0\0", 6);
        } else {
            ck_assert_int_eq(got, ANSWER_GOOD);
            ck_assert_uint_eq(len, whole);
        }
    }
}
END_TEST

/* Names inside RDATA are looked into where they may be compressed; RDATA of other types is opaque
 * (RFC 3597). */
START_TEST(answer_rdata)
{
    static const struct {
        unsigned type;
        const char *rdata;
        uint32_t len;
        bool good;
    } rows[] = {
        {1, "\1\2\3\4", 4, true},
        {1, "\1\2\3", 3, false},
        {28, "0123456789abcdef", 16, true},
        {28, "0123456789abcde", 15, false},
        {5, "\1a\xc0\x0c", 4, true},
        {5, "\1a\xc0\x0cz", 5, false},
        {5, "\1a", 2, false},
        {5, "\xff\xff", 2, false},
        {15, "\0\1\1a\0", 5, true},
        {15, "\0", 1, false},
        {33, "123456\1a\0", 9, true},
        {33, "123456\1a", 8, false},
        {6, "\0\0aaaabbbbccccddddeeee", 22, true},
        {6, "\0\0aaaabbbbccccddddeee", 21, false},
        {16, "\xff\xff\xff", 3, true},
        {65280, "\xc0\xff", 2, true},
        {46, "\xc0\xff\1", 3, true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        uint8_t msg[512];
        uint32_t len = (uint32_t)message_answer(msg, sizeof(msg), query, query_len, 0, 0);
        len = append(msg, len, 0, "\xc0\x0c", 2, rows[i].type, 1, rows[i].rdata, rows[i].len);
        ck_assert_msg((check_exact(msg, &len) == ANSWER_GOOD) == rows[i].good, "row %zu", i);
    }
}
END_TEST

/* A chain of pointers that runs backwards is legal, and its length bounded. */
START_TEST(answer_pointer_chain)
{
    uint8_t msg[4096];
    uint32_t len = (uint32_t)message_answer(msg, sizeof(msg), query, query_len, 0, 0);
    uint32_t last = 12;
    for (int i = 0; i < 200; i++) {
        uint8_t owner[2];
        uint32_t here = len;
        wire_put_u16(owner, (uint16_t)(0xc000 | last));
        len = append(msg, len, 0, owner, 2, 16, 1, "\0", 1);
        last = here;
        uint32_t copy = len;
        enum wire_answer got = check_exact(msg, &copy);
        ck_assert_msg(i > 120 || got == ANSWER_GOOD, "chain of %d", i);
    }
    ck_assert_int_eq(check_exact(msg, &len), ANSWER_MALFORMED);
}
END_TEST

/* RFC 6891 6.1.3: the upper bits of the RCODE come from OPT. */
START_TEST(extended_rcode)
{
    uint8_t msg[512];
    uint32_t len = (uint32_t)message_answer(msg, sizeof(msg), query, query_len, 0, 0);
    ck_assert_uint_eq(wire_rcode(msg, len), 0);
    uint32_t opt = len;
    len = append(msg, len, 2, "", 1, 41, 1232, "\0\12\0\2ab", 6);
    ck_assert_int_eq(check_exact(msg, &len), ANSWER_GOOD);
    msg[opt + 5] = 1;
    ck_assert_uint_eq(wire_rcode(msg, len), 16);
    msg[3] = (uint8_t)(msg[3] | 7);
    ck_assert_uint_eq(wire_rcode(msg, len), 23);
    msg[len - 3] = 3; /* the option's length runs past the record */
    ck_assert_int_eq(check_exact(msg, &len), ANSWER_MALFORMED);
}
END_TEST

/* Whatever octets come, nothing is read past the end, and what is accepted has the question's ID
 * and flags. */
START_TEST(random_octets)
{
    unsigned seed = 7;
    uint8_t msg[512];
    uint32_t whole = (uint32_t)message_answer(msg, sizeof(msg), query, query_len, 0, 60);
    for (int round = 0; round < 100000; round++) {
        uint8_t copy[512];
        uint32_t len = whole - (uint32_t)(rand_r(&seed) % 4 == 0 ? rand_r(&seed) % (int)whole : 0);
        memcpy(copy, msg, whole);
        for (int i = rand_r(&seed) % 4; i >= 0; i--) {
            copy[rand_r(&seed) % (int)whole] = (uint8_t)rand_r(&seed);
        }
        uint32_t before = len;
        if (check_exact(copy, &len) == ANSWER_GOOD) {
            ck_assert_uint_le(len, before);
            ck_assert_uint_eq(wire_u16(copy), ID);
            (void)wire_rcode(copy, len);
        }
        (void)parse_exact(copy, before);
    }
}
END_TEST

/* wire_name_len: uncompressed only. */
START_TEST(name_len)
{
    ck_assert_uint_eq(wire_name_len((const uint8_t *)"", 1), 1);
    ck_assert_uint_eq(wire_name_len((const uint8_t *)"\1a", 3), 3);
    ck_assert_uint_eq(wire_name_len((const uint8_t *)"\1a", 2), 0);
    ck_assert_uint_eq(wire_name_len((const uint8_t *)"\2a", 3), 0);
    ck_assert_uint_eq(wire_name_len((const uint8_t *)"\xc0\x0c", 2), 0);
    ck_assert_uint_eq(wire_name_len((const uint8_t *)"", 0), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wire");
    TCase *tcase = tcase_create("wire");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, query_fields);
    tcase_add_test(tcase, query_name_limits);
    tcase_add_test(tcase, query_cut);
    tcase_add_test(tcase, query_refused_case_92);
    tcase_add_loop_test(tcase, answer_kinds_case_54_76, 0, BAD_COUNT);
    tcase_add_test(tcase, answer_case_is_restored);
    tcase_add_test(tcase, answer_cut);
    tcase_add_test(tcase, answer_rdata);
    tcase_add_test(tcase, answer_pointer_chain);
    tcase_add_test(tcase, extended_rcode);
    tcase_add_test(tcase, random_octets);
    tcase_add_test(tcase, name_len);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
