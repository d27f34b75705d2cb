/* DNS over TLS: what happens when a handshake or a connection goes wrong, sessions, limits. Who is
 * believed is in test_identity.c.
 *
 * Happy path: an upstream with a certificate, a query, the good answer. Standards: RFC 7858.
 */
#include "fixture.h"
#include "message.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- handshakes that fail ------------------------------------------------------------------------- */

/* TLS 1.2 is the floor (case 28). */
START_TEST(old_tls_case_28)
{
    fixture_upstream(KIND_DOT, &(struct tls_setup){.min_version = TLS1_VERSION,
                                                   .max_version = TLS1_1_VERSION});
    struct host *host = fixture_open(_i, "max_connect_attempts 1\n max_fails 0");
    const struct outcome *outcome = host_ask(host, "old.test");
    ck_assert_int_eq(outcome->error, FWD_ERR_TLS_HANDSHAKE);
    check_detail(outcome, "protocol version");
    host_close(host);
}
END_TEST

/* A server that is no TLS server at all. */
START_TEST(not_tls)
{
    fixture_upstream(KIND_TCP, NULL);
    struct host *host =
        host_open(_i, "forward . tls://%s {\n max_connect_attempts 1\n max_fails 0\n}",
                  tls_upstream_addr(up));
    const struct outcome *outcome = host_ask(host, "plain.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_RCODE);
    check_detail(outcome, "handshake tls ");
    host_close(host);
}
END_TEST

/* A server with another protocol on its mind refuses `dot`; one that knows no ALPN is fine. */
START_TEST(other_protocols)
{
    fixture_upstream(KIND_DOT, &(struct tls_setup){.alpn = "h2"});
    struct host *host = fixture_open(_i, "max_connect_attempts 1\n max_fails 0");
    const struct outcome *outcome = host_ask(host, "alpn.test");
    ck_assert_int_eq(outcome->error, FWD_ERR_TLS_HANDSHAKE);
    check_detail(outcome, "no application protocol");
    host_close(host);
    tls_upstream_destroy(up);
    fixture_upstream(KIND_DOT, &(struct tls_setup){.alpn = ""});
    host = fixture_open(_i, "");
    ask_good(host, "noalpn.test");
    host_close(host);
}
END_TEST

static const struct tls_setup stalls[] = {
    {.max_version = TLS1_3_VERSION, .stall_flight = 1},
    {.max_version = TLS1_3_VERSION, .stall_flight = 1, .stall_half = true},
    {.max_version = TLS1_2_VERSION, .stall_flight = 1},
    {.max_version = TLS1_2_VERSION, .stall_flight = 1, .stall_half = true},
    {.max_version = TLS1_2_VERSION, .stall_flight = 2},
    {.max_version = TLS1_2_VERSION, .stall_flight = 2, .stall_half = true},
};

enum { STALLS = sizeof(stalls) / sizeof(*stalls) };

/* A handshake that stalls, wherever it does, costs its handshake_timeout; then the next upstream is
 * asked. Nobody else waits with it. */
START_TEST(stalled_handshake)
{
    fixture_upstream(KIND_DOT, &stalls[_i / MODE_COUNT]);
    other = authority_upstream(&authority, KIND_DOT, NULL);
    struct host *host =
        host_open(_i % MODE_COUNT,
                  "forward slow.test tls://%s tls://%s {\n tls %s\n tls_servername " SERVER_NAME
                  "\n policy sequential\n handshake_timeout 300ms\n max_fails 0\n}\n"
                  "forward fast.test tls://%s {\n tls %s\n tls_servername " SERVER_NAME "\n}",
                  tls_upstream_addr(up), tls_upstream_addr(other), authority.ca_file,
                  tls_upstream_addr(other), authority.ca_file);
    uint64_t token = host_send(host, "a.slow.test");
    ask_good(host, "a.fast.test");
    ck_assert(!host_outcome(host, token)->ended ||
              host_outcome(host, token)->elapsed_ns >= 300000000u);
    const struct outcome *outcome = host_wait(host, token, 10000);
    ck_assert_msg(outcome_good(outcome, "a.slow.test"), "%s: attempts %u", outcome->detail,
                  outcome->attempts);
    ck_assert_str_eq(outcome->upstream, tls_upstream_addr(other));
    ck_assert_uint_eq(outcome->attempts, 2);
    ck_assert_uint_ge(outcome->elapsed_ns, 300000000u);
    ck_assert_uint_eq(tls_upstream_counts(up).queries, 0);
    host_close(host);
}
END_TEST

/* With nobody else to ask the error says where it stalled, and the query's budget ends it. */
START_TEST(stalled_handshake_alone)
{
    fixture_upstream(KIND_DOT, &stalls[_i % MODE_COUNT]);
    struct host *host =
        fixture_open(_i, "handshake_timeout 200ms\n max_connect_attempts 2\n max_fails 0");
    const struct outcome *outcome = host_ask(host, "alone.test");
    ck_assert_int_eq(outcome->error, FWD_ERR_TIMEOUT);
    check_detail(outcome, "handshake tls ");
    ck_assert_uint_ge(outcome->elapsed_ns, 400000000u);
    work_until(host, tls_upstream_counts(up).open == 0);
    host_close(host);
}
END_TEST

/* Cancel in the middle of a handshake: one end, and no connection stays behind. */
START_TEST(cancel_in_handshake)
{
    fixture_upstream(KIND_DOT, &stalls[0]);
    struct host *host = fixture_open(_i, "");
    uint64_t token = host_send(host, "cancel.test");
    work_until(host, tls_upstream_counts(up).opened == 1);
    ck_assert_int_eq(host->forward->cancel(host->instance, host_outcome(host, token)->handle),
                     FWD_OK);
    ck_assert_uint_eq(host_wait(host, token, 5000)->kind, FWD_KIND_CANCELED);
    work_until(host, tls_upstream_counts(up).open == 0);
    host_close(host);
}
END_TEST

/* --- connections that end ------------------------------------------------------------------------- */

/* case 78: a server that closes after each answer, by FIN, RST, or close_notify and FIN: no query
 * is lost, no error counted. */
START_TEST(closes_after_each_answer_case_78)
{
    static const struct tls_rule rules[] = {
        {.after = END_FIN}, {.after = END_FIN, .notify = true}, {.after = END_RST, .after_ms = 2}};
    fixture_upstream(KIND_DOT, NULL);
    tls_upstream_set(up, &rules[_i / MODE_COUNT]);
    /* a reset takes with it what has not been read yet: it comes a little later, when the
     * connection is idle or in use again */
    struct host *host = fixture_open(_i % MODE_COUNT, "max_fails 0\n max_connect_attempts 0");
    for (unsigned i = 0; i < 20; i++) {
        ask_good(host, "closing.test");
    }
    if (rules[_i / MODE_COUNT].after_ms == 0) {
        ck_assert_uint_eq(tls_upstream_counts(up).opened, 20);
        ck_assert(host_metric(host, "fwd_proxy_errors_total{") == 0);
    }
    host_close(host);
}
END_TEST

/* cases 49, 78: connections that die while they are idle cost nothing. */
START_TEST(idle_connections_die_cases_49_78)
{
    static const enum ending endings[] = {END_FIN, END_RST};
    fixture_upstream(KIND_DOT, NULL);
    /* the blow may fall in the middle of a handshake too, and that costs an attempt */
    struct host *host = fixture_open(_i % MODE_COUNT, "max_connect_attempts 4\n max_fails 0");
    for (unsigned round = 0; round < 3; round++) {
        (void)host_send_batch(host, "idle", 10);
        host_wait_all(host, 10000);
        tls_upstream_kill(up, endings[_i / MODE_COUNT]);
        ask_batch(host, "after", 10);
    }
    host_close(host);
}
END_TEST

/** The first query's answer comes as half a record, or as something that is none. */
static void break_first(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    if (query->number == 1) {
        *rule = *(const struct tls_rule *)arg;
    }
}

/* Half a record, octets that are no record, a request to renegotiate: the connection is given up,
 * the next attempt answers. */
START_TEST(broken_records)
{
    static struct tls_rule rules[] = {
        {.half_record = true}, {.garbage = true}, {.renegotiate = true}, {.instead = END_RST}};
    fixture_upstream(KIND_DOT, &(struct tls_setup){.max_version = TLS1_2_VERSION});
    tls_upstream_script(up, break_first, &rules[_i / MODE_COUNT]);
    struct host *host = fixture_open(_i % MODE_COUNT, "max_fails 0\n max_connect_attempts 2");
    ask_good(host, "broken.test");
    ask_good(host, "whole.test");
    host_close(host);
}
END_TEST

/* The greatest answers, many at once, through records of 16 KiB. */
START_TEST(greatest_answers)
{
    fixture_upstream(KIND_DOT, NULL);
    tls_upstream_set(up, &(struct tls_rule){.pad = 65000});
    struct host *host = fixture_open(_i, "");
    ask_batch(host, "great", 30);
    host_close(host);
}
END_TEST

/* A query that takes many records comes whole. */
START_TEST(great_query)
{
    static uint8_t query[MESSAGE_MAX];
    static uint8_t padding[60004] = {0, 12, 60000 >> 8, 60000 & 0xff};
    fixture_upstream(KIND_DOT, NULL);
    struct host *host = fixture_open(_i, "");
    size_t len = message_query(query, sizeof(query), 77, "great.test", TYPE_A);
    len = message_add_opt(query, sizeof(query), len, padding, sizeof(padding));
    for (unsigned i = 0; i < 3; i++) {
        const struct outcome *o = host_wait(host, host_send_wire(host, query, len, 0), 10000);
        ck_assert(message_is_answer(o->wire, o->wire_len, 77, "great.test"));
        struct tls_seen seen = tls_upstream_seen(up, i);
        ck_assert_uint_eq(seen.wire_len, len);
        ck_assert_mem_eq(seen.wire + 2, query + 2, sizeof(seen.wire) - 2);
    }
    host_close(host);
}
END_TEST

/* We say close_notify when we go. */
START_TEST(we_say_goodbye)
{
    fixture_upstream(KIND_DOT, NULL);
    struct host *host = fixture_open(_i, "");
    ask_good(host, "bye.test");
    host_wait_idle(host, 0, FWD_PROTO_TLS, 1);
    host_close(host);
    for (unsigned i = 0; i < 500 && tls_upstream_counts(up).open > 0; i++) {
        (void)usleep(10000);
    }
    ck_assert_uint_eq(tls_upstream_counts(up).closed_with_notify, 1);
}
END_TEST

/* A server that closes everything again and again: nothing is lost. */
START_TEST(closed_again_and_again)
{
    static const enum ending endings[] = {END_FIN, END_RST};
    fixture_upstream(KIND_DOT, NULL);
    tls_upstream_kill_every(up, endings[_i / MODE_COUNT], 150);
    struct host *host = fixture_open(_i % MODE_COUNT, "max_fails 0\n max_connect_attempts 0");
    while (tls_upstream_counts(up).opened < 40) {
        ask_batch(host, "again", 10);
    }
    host_close(host);
}
END_TEST

/* --- sessions ------------------------------------------------------------------------------------- */

/* Sessions are resumed, as the server sees it; a ticket of TLS 1.3 is shown once. */
START_TEST(sessions_are_resumed)
{
    fixture_upstream(KIND_DOT, &(struct tls_setup){.max_version = tls_versions[_i / MODE_COUNT]});
    struct host *host = fixture_open(_i % MODE_COUNT, "expire 0s");
    for (unsigned i = 0; i < 10; i++) {
        ask_good(host, "resume.test");
    }
    struct tls_counts counts = tls_upstream_counts(up);
    ck_assert_uint_eq(counts.handshakes, 10);
    ck_assert_uint_eq(counts.resumed, 9);
    ck_assert_uint_eq(counts.twice, 0);
    ck_assert_uint_eq(counts.tickets, _i / MODE_COUNT == 0 ? 0 : 9);
    host_close(host);
}
END_TEST

/* A burst of handshakes shares what tickets there are, and shows none twice. */
START_TEST(tickets_in_a_burst)
{
    fixture_upstream(KIND_DOT, NULL);
    struct host *host = fixture_open(_i, "expire 0s");
    for (unsigned i = 0; i < 4; i++) {
        (void)host_send_batch(host, "burst", 20);
        host_wait_all(host, 20000);
    }
    struct tls_counts counts = tls_upstream_counts(up);
    ck_assert_uint_eq(counts.twice, 0);
    ck_assert_uint_gt(counts.resumed, 0);
    host_close(host);
}
END_TEST

/* case 26: upstreams with the same name share their sessions, others do not. */
START_TEST(sessions_per_name_case_26)
{
    struct certificate both = certificate_make(
        &(struct certificate_form){.common_name = "both",
                                   .alt_names = "DNS:" SERVER_NAME ",DNS:two.test"},
        &authority.ca);
    fixture_upstream(KIND_DOT, &(struct tls_setup){.certificate = &both, .any_address = true});
    unsigned port = tls_upstream_port(up);
    struct host *host =
        host_open(_i,
                  "forward a.test tls://127.0.0.1%%" SERVER_NAME ":%u {\n tls %s\n}\n"
                  "forward b.test tls://127.0.0.2%%" SERVER_NAME ":%u {\n tls %s\n}\n"
                  "forward c.test tls://127.0.0.3%%two.test:%u {\n tls %s\n}",
                  port, authority.ca_file, port, authority.ca_file, port, authority.ca_file);
    static const char *const names[] = {"x.a.test", "x.b.test", "x.c.test"};
    for (unsigned i = 0; i < 3; i++) {
        ask_good(host, names[i]);
        ck_assert_int_eq(tls_upstream_seen(up, i).resumed, i == 1);
    }
    host_close(host);
    certificate_free(&both);
}
END_TEST

/* --- probes --------------------------------------------------------------------------------------- */

/* cases 83, 84: the probe goes over TLS on a connection of its own with the configured CA and name,
 * and any answer is health. */
START_TEST(probes_cases_83_84)
{
    fixture_upstream(KIND_DOT, NULL);
    tls_upstream_script(up, pick_probes, NULL);
    struct host *host =
        fixture_open(_i, "health_check 50ms no_rec domain probe.test\n max_connect_attempts 1");
    ck_assert_uint_eq(host_ask(host, "sick.test")->kind, FWD_KIND_RCODE);
    work_until(host, tls_upstream_counts(up).queries == 2);
    struct tls_seen probe = tls_upstream_seen(up, 1);
    ck_assert_uint_eq(probe.type, TYPE_NS);
    ck_assert_str_eq(probe.name, "probe.test");
    ck_assert_str_eq(probe.sni, SERVER_NAME);
    ck_assert(probe.no_rd);
    ck_assert_uint_eq(probe.conn, 2);
    work_until(host, host->proxies->fails(host->proxies->at(host->instance, 0)) == 0);
    work_until(host, tls_upstream_counts(up).open == 0);
    host_close(host);
}
END_TEST

/* --- limits --------------------------------------------------------------------------------------- */

/** Connections that dial or shake hands, by info. */
static unsigned dialling(struct host *host)
{
    static const char key[] = "\"dialling\":";
    unsigned sum = 0;
    char *info = host_info(host);
    for (const char *at = info; (at = strstr(at, key)) != NULL;) {
        at += strlen(key);
        sum += (unsigned)strtoul(at, NULL, 10);
    }
    free(info);
    return sum;
}

/* max_handshakes: a cold start with many queries, and a server that is slow with handshakes. Few are under way at once, and all
 * queries are answered, on far fewer connections. */
START_TEST(few_handshakes_at_once)
{
    enum { QUERIES = 200, LIMIT = 4 };
    fixture_upstream(KIND_DOT, &(struct tls_setup){.hello_ms = 5});
    struct host *host = fixture_open(_i, "max_handshakes 4");
    uint64_t first = host_send_batch(host, "cold", QUERIES);
    while (host_completed(host) < QUERIES) {
        ck_assert_uint_le(dialling(host), LIMIT);
        host_work(host, 2);
    }
    check_batch(host, "cold", first, QUERIES);
    ck_assert_uint_lt(tls_upstream_counts(up).opened, QUERIES / 2);
    host_close(host);
}
END_TEST

/* A black hole behind the TCP handshake: queries that wait for their turn to shake hands go on with those that do. */
START_TEST(stalled_handshakes_do_not_hold_waiters)
{
    enum { QUERIES = 200 };
    fixture_upstream(KIND_DOT, &stalls[0]);
    other = authority_upstream(&authority, KIND_DOT, NULL);
    struct host *host =
        host_open(_i,
                  "forward . tls://%s tls://%s {\n tls %s\n tls_servername " SERVER_NAME
                  "\n policy sequential\n handshake_timeout 200ms\n max_handshakes 4\n}",
                  tls_upstream_addr(up), tls_upstream_addr(other), authority.ca_file);
    uint64_t first = host_send_batch(host, "hole", QUERIES);
    host_wait_all(host, 10000);
    check_batch(host, "hole", first, QUERIES);
    for (unsigned i = 0; i < QUERIES; i++) {
        ck_assert_uint_eq(host_outcome(host, first + i)->attempts, 2);
        ck_assert_uint_lt(host_outcome(host, first + i)->elapsed_ns, 2000000000u);
    }
    host_close(host);
}
END_TEST

/* One handshake that stalls while others succeed costs its own query an attempt, and nobody else. */
START_TEST(stalled_handshake_among_good_ones)
{
    enum { QUERIES = 60 };
    fixture_upstream(KIND_DOT, &(struct tls_setup){.stall_flight = 1, .stall_conn = 1});
    tls_upstream_set(up, &(struct tls_rule){.delay_ms = 50});
    struct host *host = fixture_open(_i, "handshake_timeout 300ms\n max_handshakes 4\n max_conns 4\n"
                                         " max_connect_attempts 1\n max_fails 0");
    uint64_t first = host_send_batch(host, "among", QUERIES);
    host_wait_all(host, 10000);
    unsigned good = 0;
    for (unsigned i = 0; i < QUERIES; i++) {
        const struct outcome *outcome = host_outcome(host, first + i);
        good += outcome->error == FWD_OK;
        ck_assert_msg(outcome->error == FWD_OK || strncmp(outcome->detail, "handshake tls ", 14) == 0,
                      "%s", outcome->detail);
    }
    ck_assert_uint_eq(good, QUERIES - 1);
    host_close(host);
}
END_TEST

/* A handshake that its query leaves, since the time for all attempts is over, goes on; the next query has the connection. */
START_TEST(handshake_outlives_its_query)
{
    struct fake_clock fake;
    const struct service services[] = {{FWD_CLOCK_ID, &fake.table}, {NULL, NULL}};
    fake_clock_init(&fake);
    /* longer than a loop sleeps that does not know of the clock's jump */
    fixture_upstream(KIND_DOT, &(struct tls_setup){.stall_flight = 1, .stall_conn = 1, .hello_ms = 1500});
    struct host *host = fixture_open_with(_i, services, "handshake_timeout 4500ms\n max_fails 0");
    uint64_t token = host_send(host, "late.test");
    work_until(host, tls_upstream_counts(up).opened == 1);
    host_work(host, 50); /* we know that it is connected */
    fake_clock_advance(&fake, 4600);
    work_until(host, tls_upstream_counts(up).opened == 2);
    host_work(host, 50);
    fake_clock_advance(&fake, 500);
    const struct outcome *outcome = host_wait(host, token, 5000);
    ck_assert_int_eq(outcome->error, FWD_ERR_TIMEOUT);
    check_detail(outcome, "handshake tls ");
    ask_good(host, "next.test");
    ck_assert_uint_eq(tls_upstream_counts(up).opened, 2);
    host_close(host);
}
END_TEST

/* Who waits for a server that does not prove who it is learns the same reason. */
START_TEST(waiters_of_a_wrong_certificate)
{
    enum { QUERIES = 20 };
    struct certificate wrong = certificate_make(
        &(struct certificate_form){.common_name = "server", .alt_names = "DNS:two.test"},
        &authority.ca);
    fixture_upstream(KIND_DOT, &(struct tls_setup){.certificate = &wrong});
    struct host *host =
        fixture_open(_i, "max_handshakes 2\n max_connect_attempts 1\n max_fails 0");
    uint64_t first = host_send_batch(host, "wrong", QUERIES);
    host_wait_all(host, 10000);
    for (unsigned i = 0; i < QUERIES; i++) {
        const struct outcome *outcome = host_outcome(host, first + i);
        ck_assert_int_eq(outcome->error, FWD_ERR_TLS_VERIFY);
        check_detail(outcome, "handshake tls ");
        check_detail(outcome, "hostname mismatch");
    }
    ck_assert(_i != MODE_HOST_DRIVEN || tls_upstream_counts(up).opened == 2);
    host_close(host);
    certificate_free(&wrong);
}
END_TEST

/* max_idle_conns keeps its meaning. */
START_TEST(idle_limit_case_67)
{
    fixture_upstream(KIND_DOT, NULL);
    struct host *host = fixture_open(_i, "max_idle_conns 2");
    (void)host_send_batch(host, "limit", 10);
    host_wait_all(host, 10000);
    work_until(host, tls_upstream_counts(up).open == 2);
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_TLS).idle, 2);
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tls");
    TCase *tcase = tcase_create("tls");
    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    add_test(tcase, old_tls_case_28);
    add_test(tcase, not_tls);
    add_test(tcase, other_protocols);
    tcase_add_loop_test(tcase, stalled_handshake, 0, STALLS * MODE_COUNT);
    add_test(tcase, stalled_handshake_alone);
    add_test(tcase, cancel_in_handshake);
    tcase_add_loop_test(tcase, closes_after_each_answer_case_78, 0, 3 * MODE_COUNT);
    tcase_add_loop_test(tcase, idle_connections_die_cases_49_78, 0, 2 * MODE_COUNT);
    tcase_add_loop_test(tcase, broken_records, 0, 4 * MODE_COUNT);
    add_test(tcase, greatest_answers);
    add_test(tcase, great_query);
    add_test(tcase, we_say_goodbye);
    tcase_add_loop_test(tcase, closed_again_and_again, 0, 2 * MODE_COUNT);
    tcase_add_loop_test(tcase, sessions_are_resumed, 0, 2 * MODE_COUNT);
    add_test(tcase, tickets_in_a_burst);
    add_test(tcase, sessions_per_name_case_26);
    add_test(tcase, probes_cases_83_84);
    add_test(tcase, few_handshakes_at_once);
    add_test(tcase, stalled_handshakes_do_not_hold_waiters);
    add_test(tcase, stalled_handshake_among_good_ones);
    add_test(tcase, handshake_outlives_its_query);
    add_test(tcase, waiters_of_a_wrong_certificate);
    add_test(tcase, idle_limit_case_67);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
