/* Streams: frames that come in pieces, late, half, twice, with the wrong content, or not at all.
 *
 * Happy path: force_tcp, an upstream with a rule, a query, the good answer; where the rule makes an
 * answer impossible, the error and the number of attempts are looked at.
 */
#include "host.h"
#include "message.h"
#include "suite.h"
#include "upstream.h"

#include <stdio.h>

static struct upstream *up, *other;

static void setup(void)
{
    up = upstream_create();
    other = upstream_create();
}

static void teardown(void)
{
    upstream_destroy(up);
    upstream_destroy(other);
}

static struct host *open_one(int mode, const char *more)
{
    return host_open(mode, "forward . %s {\n force_tcp\n %s\n}", upstream_addr(up), more);
}

/** Pieces of 1 octet, 2 octets, ... by the query's number. */
static void in_pieces(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    rule->chunk = query->number;
    rule->chunk_ms = query->number <= 3 ? 1 : 0;
}

/* case 77: a frame that is cut anywhere is put together; the connection is used on. */
START_TEST(frames_in_pieces_case_77)
{
    upstream_script(up, in_pieces, NULL);
    struct host *host = open_one(_i, "max_connect_attempts 1");
    for (unsigned i = 0; i < 60; i++) {
        ck_assert(outcome_good(host_ask(host, "pieces.test"), "pieces.test"));
        host_wait_idle(host, 0, FWD_PROTO_TCP, 1);
    }
    ck_assert_uint_eq(upstream_counts(up).opened, 1);
    host_close(host);
}
END_TEST

/* A whole answer counts although the connection ends with it, by FIN or RST, and the connection is
 * not used again. */
START_TEST(answer_and_end_at_once)
{
    struct host *host = open_one(_i, "max_connect_attempts 1");
    struct upstream_rule rule = {.after = END_FIN};
    upstream_set(up, &rule);
    for (unsigned i = 0; i < 10; i++) {
        ck_assert(outcome_good(host_ask(host, "end.test"), "end.test"));
    }
    ck_assert_uint_eq(upstream_counts(up).opened, 10);
    host_close(host);
}
END_TEST

/** Breaks the first frame off, answers later ones. */
static void half_first(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    if (query->number == 1) {
        rule->stop_at = *(unsigned *)arg;
        rule->after = END_FIN;
    }
}

/* A connection that ends within a frame is an error of the attempt; the next attempt answers. */
START_TEST(half_frames)
{
    static unsigned cuts[] = {1, 2, 3, 13, 14, 30};
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
        struct upstream *fresh = upstream_create();
        upstream_script(fresh, half_first, &cuts[i]);
        struct host *host =
            host_open(_i, "forward . %s {\n force_tcp\n max_fails 0\n}", upstream_addr(fresh));
        const struct outcome *outcome = host_ask(host, "half.test");
        ck_assert_msg(outcome_good(outcome, "half.test"), "cut at %u: %s", cuts[i],
                      outcome->detail);
        ck_assert_uint_eq(outcome->attempts, 2);
        ck_assert_uint_eq(upstream_counts(fresh).opened, 2);
        host_close(host);
        upstream_destroy(fresh);
    }
}
END_TEST

/** Stops within the first frame, and says no more. */
static void stall_first(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    rule->stop_at = query->number == 1 ? 2 : 0;
}

/* A stalled frame costs its read_timeout, and what follows has another connection. */
START_TEST(stalled_frame)
{
    upstream_script(up, stall_first, NULL);
    struct host *host = open_one(_i, "read_timeout 200ms\n max_fails 0");
    const struct outcome *outcome = host_ask(host, "stall.test");
    ck_assert(outcome_good(outcome, "stall.test"));
    ck_assert_uint_eq(outcome->attempts, 2);
    ck_assert_uint_ge(outcome->elapsed_ns, 200000000u);
    ck_assert_uint_eq(upstream_counts(up).opened, 2);
    host_close(host);
}
END_TEST

/* An octet every 50 ms does not hold a query beyond its time, nor the ones after it. */
START_TEST(slow_drip)
{
    struct upstream_rule drip = {.chunk = 1, .chunk_ms = 50};
    upstream_set(up, &drip);
    struct host *host = host_open(
        _i,
        "forward . %s %s {\n force_tcp\n policy sequential\n read_timeout 300ms\n max_fails 0\n}",
        upstream_addr(up), upstream_addr(other));
    for (unsigned i = 0; i < 3; i++) {
        const struct outcome *outcome = host_ask(host, "drip.test");
        ck_assert(outcome_good(outcome, "drip.test"));
        ck_assert_str_eq(outcome->upstream, upstream_addr(other));
        ck_assert_uint_lt(outcome->elapsed_ns, 1500000000u);
    }
    host_close(host);
}
END_TEST

/* case 77: messages with a wrong ID are skipped until the time is over. */
START_TEST(wrong_ids_on_a_stream_case_77)
{
    struct upstream_rule rule = {.bad = BAD_WRONG_ID, .bad_count = 5, .delay_ms = 20};
    upstream_set(up, &rule);
    struct host *host = open_one(_i, "max_connect_attempts 1");
    ck_assert(outcome_good(host_ask(host, "wrongid.test"), "wrongid.test"));
    host_close(host);
}
END_TEST

/** One wrong message before the first answer only. */
static void bad_first(void *arg, const struct upstream_seen *query, struct upstream_rule *rule)
{
    if (query->number == 1) {
        rule->bad = *(enum bad *)arg;
        rule->bad_count = 1;
        rule->delay_ms = 20;
    }
}

/* An octet a second: SERVFAIL within 5 s where there is nobody else, the other's answer after read_timeout where
 * there is, both for many queries at once, and every connection of it is closed. */
START_TEST(octet_a_second)
{
    struct upstream_rule drip = {.chunk = 1, .chunk_ms = 1000};
    upstream_set(up, &drip);
    struct host *host = open_one(_i, "max_fails 0");
    struct host *both = host_open(_i, "forward . %s %s {\n force_tcp\n policy sequential\n max_fails 0\n}", upstream_addr(up),
                                  upstream_addr(other));
    for (unsigned i = 0; i < 20; i++) {
        (void)host_send(host, "drip.test");
        (void)host_send(both, "drip.test");
    }
    for (uint64_t token = 1; token <= 20; token++) {
        const struct outcome *outcome = host_wait(both, token, 8000);
        ck_assert(outcome_good(outcome, "drip.test"));
        ck_assert_uint_ge(outcome->elapsed_ns, 2000000000u);
        ck_assert_uint_lt(outcome->elapsed_ns, 3000000000u);
    }
    for (uint64_t token = 1; token <= 20; token++) {
        const struct outcome *outcome = host_wait(host, token, 8000);
        ck_assert_uint_eq(outcome->rcode, SERVFAIL);
        ck_assert_int_eq(outcome->error, FWD_ERR_TIMEOUT);
        ck_assert_uint_lt(outcome->elapsed_ns, 5500000000u);
    }
    host_close(both);
    host_close(host);
    ck_assert(upstream_wait_open(up, 0, 1000));
}
END_TEST

/* Whatever comes wrong on a stream, the client gets the good answer, and so do those after it. */
START_TEST(bad_messages_on_a_stream)
{
    enum bad bad = (enum bad)(_i / MODE_COUNT);
    upstream_script(up, bad_first, &bad);
    struct host *host = open_one(_i % MODE_COUNT, "max_fails 0");
    for (unsigned i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof(name), "Stream%u.test", i);
        const struct outcome *outcome = host_ask(host, name);
        ck_assert_msg(outcome_good(outcome, name), "%s: %s: kind %u, %s", bad_name(bad), name,
                      outcome->kind, outcome->detail);
    }
    host_close(host);
}
END_TEST

/* case 54: an error without its question is the answer: nobody but the peer can have sent it. */
START_TEST(error_without_question_on_a_stream_case_54)
{
    static const unsigned rcodes[] = {FORMERR, SERVFAIL, NOTIMP, REFUSED};
    struct upstream_rule rule = {.drop = true, .bad = BAD_BARE_ERROR, .bad_count = 1};
    struct host *host = open_one(_i, "max_fails 0");
    for (size_t i = 0; i < sizeof(rcodes) / sizeof(*rcodes); i++) {
        rule.rcode = rcodes[i];
        upstream_set(up, &rule);
        const struct outcome *outcome = host_ask(host, "Bare.test");
        ck_assert_uint_eq(outcome->kind, FWD_KIND_ANSWER);
        ck_assert_uint_eq(outcome->rcode, rcodes[i]);
        ck_assert_uint_eq(outcome->attempts, 1);
        ck_assert_uint_eq(message_question_end(outcome->wire, outcome->wire_len), outcome->wire_len);
    }
    host_close(host);
}
END_TEST

/* An answer that comes twice does not become the next query's. */
START_TEST(duplicated_answers_on_a_stream)
{
    struct upstream_rule rule = {.bad = BAD_NONE, .bad_count = 1};
    upstream_set(up, &rule);
    struct host *host = open_one(_i, "max_connect_attempts 1");
    for (unsigned i = 0; i < 30; i++) {
        char name[32];
        snprintf(name, sizeof(name), "double%u.test", i);
        const struct outcome *outcome = host_ask(host, name);
        ck_assert_msg(outcome_good(outcome, name), "%s: %s", name, outcome->detail);
    }
    host_close(host);
}
END_TEST

/* A query on a connection that the upstream never answers on: others have connections of their own.
 */
START_TEST(mute_connection_does_not_block_others)
{
    struct upstream_rule mute = {.drop = true};
    upstream_set(up, &mute);
    struct host *host = open_one(_i, "read_timeout 2s\n max_fails 0");
    uint64_t first = host_send(host, "mute.test");
    work_until(host, upstream_counts(up).queries == 1);
    upstream_set(up, &(struct upstream_rule){0});
    const struct outcome *outcome = host_ask(host, "loud.test");
    ck_assert(outcome_good(outcome, "loud.test"));
    ck_assert_uint_lt(outcome->elapsed_ns, 1000000000u);
    ck_assert(outcome_good(host_wait(host, first, 10000), "mute.test"));
    host_close(host);
}
END_TEST

/* TCP refused, UDP alive: an upstream that cannot do TCP is an error of that attempt only. */
START_TEST(tcp_refused)
{
    upstream_refuse_tcp(up);
    struct host *host = host_open(_i, "forward . %s %s {\n policy sequential\n}", upstream_addr(up),
                                  upstream_addr(other));
    const struct outcome *outcome = host_ask_tcp(host, "refused.test");
    ck_assert(outcome_good(outcome, "refused.test"));
    ck_assert_str_eq(outcome->upstream, upstream_addr(other));
    outcome = host_ask(host, "refused.test");
    ck_assert_str_eq(outcome->upstream, upstream_addr(up));
    host_close(host);
}
END_TEST

/* Queries and answers of the greatest length go through, many at once. */
START_TEST(greatest_messages)
{
    struct upstream_rule rule = {.pad = 65000};
    upstream_set(up, &rule);
    struct host *host = open_one(_i, "");
    uint64_t first = host_send_batch(host, "great", 50);
    host_wait_all(host, 20000);
    for (unsigned i = 0; i < 50; i++) {
        char name[32];
        snprintf(name, sizeof(name), "great%u.test", i);
        const struct outcome *outcome = host_outcome(host, first + i);
        ck_assert_msg(outcome_good(outcome, name), "%s: kind %u, %s", name, outcome->kind,
                      outcome->detail);
    }
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stream");
    TCase *tcase = tcase_create("stream");
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, frames_in_pieces_case_77);
    add_test(tcase, answer_and_end_at_once);
    add_test(tcase, half_frames);
    add_test(tcase, stalled_frame);
    add_test(tcase, slow_drip);
    add_test(tcase, octet_a_second);
    add_test(tcase, wrong_ids_on_a_stream_case_77);
    tcase_add_loop_test(tcase, bad_messages_on_a_stream, MODE_COUNT, BAD_BARE_ERROR * MODE_COUNT);
    add_test(tcase, error_without_question_on_a_stream_case_54);
    add_test(tcase, duplicated_answers_on_a_stream);
    add_test(tcase, mute_connection_does_not_block_others);
    add_test(tcase, tcp_refused);
    add_test(tcase, greatest_messages);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
