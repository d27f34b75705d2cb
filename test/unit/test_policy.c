/* The three policies. */
#include "policy.h"

#include "suite.h"

#include <string.h>

static const struct services kernel;
static atomic_uint turn;

/** Fails unless order is a permutation of 0..count-1. */
static void check_permutation(const uint8_t *order, uint32_t count)
{
    uint32_t seen = 0;
    for (uint32_t i = 0; i < count; i++) {
        seen |= 1u << order[i];
    }
    ck_assert_uint_eq(seen, (1u << count) - 1);
}

/* case 60: every permutation of three is as likely as the next; one and two work too. */
START_TEST(random_case_60)
{
    unsigned seen[3][3][3] = {0};
    uint8_t order[15];
    for (uint32_t count = 1; count <= 15; count++) {
        ck_assert_int_eq(policy_order(POLICY_RANDOM, &turn, &kernel, count, order), 0);
        check_permutation(order, count);
    }
    for (unsigned i = 0; i < 6000; i++) {
        ck_assert_int_eq(policy_order(POLICY_RANDOM, &turn, &kernel, 3, order), 0);
        check_permutation(order, 3);
        seen[order[0]][order[1]][order[2]]++;
    }
    for (unsigned a = 0; a < 3; a++) {
        for (unsigned b = 0; b < 3; b++) {
            /* 1,000 expected; 6 standard deviations are 175 */
            ck_assert(a == b || (seen[a][b][3 - a - b] > 825 && seen[a][b][3 - a - b] < 1175));
        }
    }
}
END_TEST

/* case 61: the first query begins with the second upstream; the rest follow in configured order. */
START_TEST(round_robin_case_61)
{
    static const uint8_t expected[4][3] = {{1, 0, 2}, {2, 0, 1}, {0, 1, 2}, {1, 0, 2}};
    uint8_t order[3];
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(policy_order(POLICY_ROUND_ROBIN, &turn, &kernel, 3, order), 0);
        ck_assert_mem_eq(order, expected[i], 3);
    }
    ck_assert_int_eq(policy_order(POLICY_ROUND_ROBIN, &turn, &kernel, 1, order), 0);
    ck_assert_uint_eq(order[0], 0);
}
END_TEST

/* The counter wraps without a gap in the order's validity. */
START_TEST(round_robin_wraps)
{
    uint8_t order[15];
    atomic_store(&turn, UINT32_MAX - 3);
    for (unsigned i = 0; i < 8; i++) {
        ck_assert_int_eq(policy_order(POLICY_ROUND_ROBIN, &turn, &kernel, 15, order), 0);
        check_permutation(order, 15);
    }
}
END_TEST

START_TEST(sequential_case_62)
{
    static const uint8_t expected[15] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    uint8_t order[15];
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(policy_order(POLICY_SEQUENTIAL, &turn, &kernel, 15, order), 0);
        ck_assert_mem_eq(order, expected, 15);
    }
}
END_TEST

static int32_t source_fails(void *arg, uint8_t *buf, uint32_t len)
{
    return FWD_ERR_SYSTEM;
}

START_TEST(random_source_fails)
{
    static const struct fwd_random table = {.struct_size = sizeof(table), .fill = source_fails};
    static const struct services host = {.random = &table};
    uint8_t order[3];
    ck_assert_int_lt(policy_order(POLICY_RANDOM, &turn, &host, 3, order), 0);
    ck_assert_int_eq(policy_order(POLICY_SEQUENTIAL, &turn, &host, 3, order), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("policy");
    TCase *tcase = tcase_create("policy");
    tcase_add_test(tcase, random_case_60);
    tcase_add_test(tcase, round_robin_case_61);
    tcase_add_test(tcase, round_robin_wraps);
    tcase_add_test(tcase, sequential_case_62);
    tcase_add_test(tcase, random_source_fails);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
