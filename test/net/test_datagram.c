/* Datagrams that are not the answer: each is waited past, within the attempt's time.
 *
 * Happy path: the upstream sends something wrong first and the good answer a little later; one
 * attempt is allowed, so the good answer can come only from waiting on.
 */
#include "message.h"
#include "plain.h"
#include "suite.h"

#include <stdio.h>

/* cases 54, 76: one of each kind (reliability: CoreDNS answers most of them with FORMERR, SERVFAIL
 * or the bad datagram itself). */
START_TEST(bad_datagram_then_the_good_one_case_54_76)
{
    enum bad bad = (enum bad)(_i / MODE_COUNT);
    struct upstream_rule rule = {.bad = bad, .bad_count = 1, .delay_ms = 5};
    upstream_set(up, &rule);
    struct host *host =
        host_open(_i % MODE_COUNT, "forward . %s {\n max_connect_attempts 1\n}", upstream_addr(up));
    const struct outcome *outcome = host_ask(host, "Datagram.test");
    ck_assert_msg(outcome_good(outcome, "Datagram.test"), "%s: kind %u, %s", bad_name(bad),
                  outcome->kind, outcome->detail);
    ck_assert_uint_eq(outcome->attempts, 1);
    ck_assert_uint_eq(upstream_counts(up).queries, 1);
    host_close(host);
}
END_TEST

/* --- errors without their question ------------------------------------------------------------ */

static const unsigned bare_rcodes[] = {FORMERR, SERVFAIL, NOTIMP, REFUSED};
enum { BARE_RCODES = sizeof(bare_rcodes) / sizeof(*bare_rcodes) };

static struct upstream_rule bare_error(unsigned rcode)
{
    return (struct upstream_rule){
        .drop = true, .bad = BAD_BARE_ERROR, .bad_count = 1, .rcode = rcode};
}

/* case 54: when nothing better has come after 100 ms it is the answer, with the client's question
 * and ID; CoreDNS answers FORMERR whatever the error was. An upstream that answers is not probed. */
START_TEST(error_without_question_is_the_answer_case_54_58)
{
    unsigned rcode = bare_rcodes[_i / MODE_COUNT];
    struct upstream_rule rule = bare_error(rcode);
    char name[32];
    upstream_set(up, &rule);
    struct host *host = host_open(_i % MODE_COUNT, "forward . %s", upstream_addr(up));
    const struct outcome *outcome = host_ask(host, "Bare.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_ANSWER);
    ck_assert_uint_eq(outcome->rcode, rcode);
    ck_assert_uint_eq(message_rcode(outcome->wire), rcode);
    ck_assert_uint_eq(message_question(outcome->wire, outcome->wire_len, name, sizeof(name)),
                      TYPE_A);
    ck_assert_str_eq(name, "bare.test");
    ck_assert_mem_eq(outcome->wire + 12, "\4Bare\4test", 11);
    ck_assert_uint_eq(message_question_end(outcome->wire, outcome->wire_len), outcome->wire_len);
    ck_assert_uint_eq(outcome->attempts, 1);
    ck_assert_uint_ge(outcome->elapsed_ns, 100000000u);
    ck_assert_uint_lt(outcome->elapsed_ns, 1000000000u);
    host_work(host, 50);
    ck_assert_uint_eq(upstream_counts(up).queries, 1);
    rule = (struct upstream_rule){0};
    upstream_set(up, &rule);
    ck_assert(outcome_good(host_ask(host, "after.test"), "after.test"));
    host_close(host);
}
END_TEST

/* case 55: failover takes it for what it is. */
START_TEST(error_without_question_fails_over_case_55)
{
    struct upstream *other = upstream_create();
    struct upstream_rule rule = bare_error(REFUSED);
    upstream_set(up, &rule);
    struct host *host =
        host_open(_i, "forward . %s %s {\n policy sequential\n failover REFUSED\n}",
                  upstream_addr(up), upstream_addr(other));
    const struct outcome *outcome = host_ask(host, "bare.test");
    ck_assert(outcome_good(outcome, "bare.test"));
    ck_assert_uint_eq(outcome->attempts, 2);
    host_close(host);
    upstream_destroy(other);
}
END_TEST

/* The time that a better answer has does not make an attempt longer than read_timeout. On a busy
 * machine the error itself may come later than that. */
START_TEST(error_without_question_waits_no_longer_than_read_timeout)
{
    struct upstream_rule rule = bare_error(REFUSED);
    bool in_time = false;
    upstream_set(up, &rule);
    struct host *host =
        host_open(_i, "forward . %s {\n read_timeout 30ms\n max_fails 0\n}", upstream_addr(up));
    for (unsigned i = 0; i < 20 && !in_time; i++) {
        const struct outcome *outcome = host_ask(host, "bare.test");
        in_time = outcome->rcode == REFUSED && outcome->attempts == 1 &&
                  outcome->elapsed_ns >= 30000000 && outcome->elapsed_ns < 95000000;
    }
    ck_assert(in_time);
    host_close(host);
}
END_TEST

/* --- many ------------------------------------------------------------------------------------- */

/* The same on a socket that is used again and again, with all kinds mixed. */
static void all_kinds(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    rule->bad = (enum bad)(query->number % BAD_COUNT);
    rule->bad_count = 1 + query->number % 3;
    rule->delay_ms = 1;
}

START_TEST(bad_datagrams_on_reused_sockets)
{
    upstream_script(up, all_kinds, NULL);
    struct host *host = host_open(_i, "forward . %s {\n max_connect_attempts 1\n port_budget 0\n}",
                                  upstream_addr(up));
    for (unsigned i = 0; i < 100; i++) {
        char name[32];
        snprintf(name, sizeof(name), "reused%u.test", i);
        ck_assert_msg(outcome_good(host_ask(host, name), name), "%s", name);
    }
    host_close(host);
}
END_TEST

/* 200 datagrams with wrong IDs before the right one do no harm. */
START_TEST(spray_of_wrong_ids)
{
    struct upstream_rule rule = {.bad = BAD_WRONG_ID, .bad_count = 200, .delay_ms = 30};
    upstream_set(up, &rule);
    struct host *host =
        host_open(_i, "forward . %s {\n max_connect_attempts 1\n}", upstream_addr(up));
    for (unsigned i = 0; i < 10; i++) {
        ck_assert(outcome_good(host_ask(host, "spray.test"), "spray.test"));
    }
    host_close(host);
}
END_TEST

/** Sends wrong datagrams over and over. */
static void keep_sending(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    rule->drop = true;
    rule->bad = BAD_OTHER_QNAME;
    rule->bad_count = 50;
}

/* case 72: what is dropped does not extend the attempt, and the error says what kept coming. */
START_TEST(bad_datagrams_do_not_extend_the_attempt_case_72)
{
    upstream_script(up, keep_sending, NULL);
    struct host *host = host_open(
        _i, "forward . %s {\n max_connect_attempts 1\n read_timeout 300ms\n max_fails 0\n}",
        upstream_addr(up));
    const struct outcome *outcome = host_ask(host, "extend.test");
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_int_eq(outcome->error, FWD_ERR_TIMEOUT);
    ck_assert_uint_ge(outcome->elapsed_ns, 300000000u);
    ck_assert_uint_lt(outcome->elapsed_ns, 1500000000u);
    host_close(host);
}
END_TEST

/* The same answer twice: one completion, and the second copy is not taken for the next query's
 * answer. */
START_TEST(duplicated_answers)
{
    struct upstream_rule rule = {.bad = BAD_NONE, .bad_count = 2};
    upstream_set(up, &rule);
    struct host *host = host_open(_i, "forward . %s {\n port_budget 0\n max_connect_attempts 1\n}",
                                  upstream_addr(up));
    for (unsigned i = 0; i < 50; i++) {
        char name[32];
        snprintf(name, sizeof(name), "twice%u.test", i);
        ck_assert(outcome_good(host_ask(host, name), name));
    }
    host_close(host);
}
END_TEST

/** Delays by a hash of the number, so that answers come in another order than the questions. */
static void shuffle(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    rule->delay_ms = query->number * 7919u % 50;
}

/* Many in flight and answers in any order: each query gets its own. */
START_TEST(answers_are_not_crossed)
{
    upstream_script(up, shuffle, NULL);
    struct host *host =
        host_open(_i, "forward . %s {\n max_connect_attempts 1\n}", upstream_addr(up));
    uint64_t first = host_send_batch(host, "crossed", 300);
    host_wait_all(host, 10000);
    for (unsigned i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof(name), "crossed%u.test", i);
        ck_assert_msg(outcome_good(host_outcome(host, first + i), name), "%s", name);
    }
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("datagram");
    TCase *tcase = tcase_create("datagram");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, bad_datagram_then_the_good_one_case_54_76, MODE_COUNT,
                        BAD_COUNT * MODE_COUNT);
    tcase_add_loop_test(tcase, error_without_question_is_the_answer_case_54_58, 0,
                        BARE_RCODES * MODE_COUNT);
    add_test(tcase, error_without_question_fails_over_case_55);
    add_test(tcase, error_without_question_waits_no_longer_than_read_timeout);
    add_test(tcase, bad_datagrams_on_reused_sockets);
    add_test(tcase, spray_of_wrong_ids);
    add_test(tcase, bad_datagrams_do_not_extend_the_attempt_case_72);
    add_test(tcase, duplicated_answers);
    add_test(tcase, answers_are_not_crossed);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
