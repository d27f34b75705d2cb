/* Random numbers: from the source and nothing else, none twice, an error when the source fails,
 * another sequence after fork. */
#include "random.h"

#include "suite.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static uint32_t counter;
static int32_t source_result;

/** Gives 0, 1, 2, ... as 16-bit numbers in the machine's order. */
static int32_t fill(void *arg, uint8_t *buf, uint32_t len)
{
    for (uint32_t i = 0; i + 1 < len; i += 2) {
        uint16_t value = (uint16_t)counter++;
        memcpy(buf + i, &value, 2);
    }
    return source_result;
}

static const struct fwd_random table = {.struct_size = sizeof(table), .fill = fill};
static const struct services kernel, host = {.random = &table};

/* Each number of the source is handed out exactly once. */
START_TEST(numbers_of_the_source)
{
    static unsigned seen[65536];
    uint16_t value;
    for (unsigned i = 0; i < 65536; i++) {
        ck_assert_int_eq(random_u16(&host, &value), 0);
        seen[value]++;
    }
    for (unsigned i = 0; i < 65536; i++) {
        ck_assert_uint_eq(seen[i], 1);
    }
}
END_TEST

START_TEST(failing_source)
{
    uint16_t value = 4711;
    source_result = -9;
    ck_assert_int_eq(random_u16(&host, &value), FWD_ERR_SYSTEM);
    ck_assert_int_eq(random_below(&host, 10, &value), FWD_ERR_SYSTEM);
    ck_assert_uint_eq(value, 4711);
    source_result = 0;
    ck_assert_int_eq(random_u16(&host, &value), 0);
}
END_TEST

/* Octets of one host's source are not given to another's. */
START_TEST(sources_are_not_mixed)
{
    uint16_t value;
    ck_assert_int_eq(random_u16(&kernel, &value), 0);
    uint32_t before = counter;
    ck_assert_int_eq(random_u16(&host, &value), 0);
    ck_assert_uint_gt(counter, before);
    ck_assert_uint_ge(value, before);
    ck_assert_uint_lt(value, counter);
}
END_TEST

/* Uniform below any bound: with 100,000 numbers no count is off by more than 6 standard deviations.
 */
START_TEST(below_is_uniform)
{
    static const uint16_t bounds[] = {1, 2, 3, 7, 15, 1000};
    for (size_t b = 0; b < sizeof(bounds) / sizeof(*bounds); b++) {
        static unsigned seen[1000];
        memset(seen, 0, sizeof(seen));
        for (unsigned i = 0; i < 100000; i++) {
            uint16_t value;
            ck_assert_int_eq(random_below(&kernel, bounds[b], &value), 0);
            ck_assert_uint_lt(value, bounds[b]);
            seen[value]++;
        }
        double mean = 100000.0 / bounds[b];
        for (unsigned i = 0; i < bounds[b]; i++) {
            double off = (double)seen[i] - mean;
            ck_assert_msg(off * off <= 36 * mean, "%u below %u came %u times", i, bounds[b],
                          seen[i]);
        }
    }
}
END_TEST

/* RFC 5452: a child does not repeat its parent's IDs. */
START_TEST(child_differs)
{
    uint16_t mine[32], theirs[32], value;
    int ends[2], status;
    ck_assert_int_eq(random_u16(&kernel, &value), 0);
    ck_assert_int_eq(pipe(ends), 0);
    pid_t child = fork();
    for (unsigned i = 0; i < 32; i++) {
        ck_assert_int_eq(random_u16(&kernel, &mine[i]), 0);
    }
    if (child == 0) {
        ssize_t sent = write(ends[1], mine, sizeof(mine));
        _exit(sent == sizeof(mine) ? 0 : 1);
    }
    ck_assert_int_eq(read(ends[0], theirs, sizeof(theirs)), sizeof(theirs));
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_mem_ne(mine, theirs, sizeof(mine));
    close(ends[0]);
    close(ends[1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("random");
    TCase *tcase = tcase_create("random");
    tcase_add_test(tcase, numbers_of_the_source);
    tcase_add_test(tcase, failing_source);
    tcase_add_test(tcase, sources_are_not_mixed);
    tcase_add_test(tcase, below_is_uniform);
    tcase_add_test(tcase, child_differs);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
