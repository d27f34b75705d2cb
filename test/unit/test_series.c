/* Histograms of a series: into which bucket an observation goes, and how far a quantile can be from
 * the truth. */
#include "series.h"

#include "suite.h"

#define MS UINT64_C(1000000)

static struct histogram_sum durations(const struct series *series)
{
    struct histogram_sum sum = {.count = 0};
    series_add_duration(series, 0, &sum);
    return sum;
}

START_TEST(no_observation)
{
    uint64_t from, to;
    struct histogram_sum sum = durations(series_get("none.test:53"));
    ck_assert_uint_eq(sum.count, 0);
    ck_assert_uint_eq(histogram_quantile(&sum, 0.5, &from, &to), 0);
}
END_TEST

/* A bound belongs to the bucket below it, as Prometheus's `le` says (case 80). */
START_TEST(bounds_of_buckets)
{
    struct series *series = series_get("bounds.test:53");
    series_duration(series, 0, 250000);
    series_duration(series, 0, 250001);
    series_duration(series, 0, 8192 * MS);
    series_duration(series, 0, 8192 * MS + 1);
    struct histogram_sum sum = durations(series);
    ck_assert_uint_eq(sum.count, 4);
    ck_assert_uint_eq(sum.buckets[0], 1);
    ck_assert_uint_eq(sum.buckets[1], 1);
    ck_assert_uint_eq(sum.buckets[SERIES_BUCKETS - 1], 1);
    ck_assert_uint_eq(sum.buckets[SERIES_BUCKETS], 1);
    uint64_t from, to;
    ck_assert_uint_eq(histogram_quantile(&sum, 0.25, &from, &to), 250000);
    ck_assert_uint_eq(from, 0);
    ck_assert_uint_eq(to, 250000);
    ck_assert_uint_eq(histogram_quantile(&sum, 1, &from, &to), 8192 * MS);
    ck_assert_uint_eq(from, 8192 * MS);
    ck_assert_uint_eq(to, UINT64_MAX);
}
END_TEST

/* The true quantile of 1 to 1000 ms lies in the bucket, and so does what is said to be it; where a bucket's observations lie evenly the two are
 * the same. */
START_TEST(quantiles_of_known_times)
{
    struct series *series = series_get("known.test:53");
    for (uint64_t i = 1; i <= 1000; i++) {
        series_duration(series, 0, i * MS);
    }
    struct histogram_sum sum = durations(series);
    static const struct {
        double q;
        uint64_t from_ms, to_ms;
    } rows[] = {{0.5, 256, 512}, {0.9, 512, 1024}, {0.99, 512, 1024}, {0.001, 0, 1}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        uint64_t from, to;
        uint64_t value = histogram_quantile(&sum, rows[i].q, &from, &to);
        uint64_t truth = (uint64_t)(rows[i].q * 1000) * MS;
        ck_assert_uint_le(from, truth);
        ck_assert_uint_ge(to, truth);
        ck_assert_uint_le(from, value);
        ck_assert_uint_ge(to, value);
        ck_assert_uint_ge(from, rows[i].from_ms * MS);
        ck_assert_uint_le(to, rows[i].to_ms * MS);
    }
    uint64_t from, to;
    ck_assert_uint_eq(histogram_quantile(&sum, 0.5, &from, &to), 500 * MS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("series");
    TCase *tcase = tcase_create("series");
    tcase_add_test(tcase, no_observation);
    tcase_add_test(tcase, bounds_of_buckets);
    tcase_add_test(tcase, quantiles_of_known_times);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
