/* EDNS options of one hop: padding of queries (RFC 7830, RFC 8467) and edns-tcp-keepalive (RFC
 * 7828), as the server sees them, and an answer in which the client sees nothing of them.
 *
 * Happy path: a query without OPT, an upstream that has an OPT with options in its answer, the
 * answer without it. The octets of each case are tested in unit/test_edns.c.
 */
#include "fixture.h"
#include "message.h"
#include "suite.h"

#include <string.h>

enum { KINDS = 3, VARIANTS = KINDS * MODE_COUNT, COOKIE = 10, KEEPALIVE = 11, PADDING = 12 };

static const uint8_t cookie[] = {0, COOKIE, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8};
/* a cookie, a TIMEOUT of 300 ms, padding */
static const uint8_t answered[] = {0, COOKIE, 0, 2, 'a', 'b', 0, KEEPALIVE, 0, 2, 0, 3, 0, PADDING, 0, 1, 0};

static enum tls_kind kind_of(int variant)
{
    return (enum tls_kind)(variant / MODE_COUNT);
}

static uint32_t proto_of(int variant)
{
    static const uint32_t protos[] = {FWD_PROTO_TCP, FWD_PROTO_TLS, FWD_PROTO_HTTPS};
    return protos[kind_of(variant)];
}

/** An upstream that answers with an OPT, and an instance. */
static struct host *open_pair(int variant, const char *more)
{
    fixture_upstream(kind_of(variant), NULL);
    tls_upstream_set(up, &(struct tls_rule){
                             .opt = true, .options = answered, .options_len = sizeof(answered)});
    return fixture_open(variant % MODE_COUNT, more);
}

/** Whether a query that came has an option; it is the last record's. */
static bool has_option(const struct tls_seen *seen, unsigned code)
{
    size_t at = message_question_end(seen->wire, seen->wire_len) + 11;
    while (at < seen->wire_len && message_id(seen->wire + at) != code) {
        at += 4u + message_id(seen->wire + at + 2);
    }
    return at < seen->wire_len;
}

/** Asks, with an OPT or without; the client must get the good answer with `options` or no OPT. */
static void ask_and_compare(struct host *host, bool opt, const void *options, size_t len)
{
    uint8_t query[512], expected[600];
    size_t query_len = message_query(query, sizeof(query), 77, "edns.test", TYPE_A);
    size_t expected_len = message_answer(expected, sizeof(expected), query, query_len, NOERROR, 0);
    if (opt) {
        query_len = message_add_opt(query, sizeof(query), query_len, cookie, sizeof(cookie));
        expected_len = message_add_opt(expected, sizeof(expected), expected_len, options, len);
    }
    const struct outcome *outcome =
        host_wait(host, host_send_wire(host, query, query_len, 0), 10000);
    ck_assert_msg(outcome->wire_len == expected_len, "kind %u, %u octets, not %zu: %s",
                  outcome->kind, outcome->wire_len, expected_len, outcome->detail);
    ck_assert_mem_eq(outcome->wire, expected, expected_len);
}

/* Queries over TLS and HTTPS are of one length whatever their names; over TCP they are not padded.
 * The client gets no OPT if it sent none, and no padding if it did. */
START_TEST(padding)
{
    struct host *host = open_pair(_i, "padding 128");
    bool padded = kind_of(_i) != KIND_TCP;
    ask_and_compare(host, true, answered, padded ? 12 : sizeof(answered));
    struct tls_seen seen = tls_upstream_seen(up, 0);
    ck_assert(has_option(&seen, COOKIE) && !has_option(&seen, KEEPALIVE));
    ck_assert_int_eq(has_option(&seen, PADDING), padded);
    if (padded) {
        ask_and_compare(host, false, NULL, 0);
        ck_assert_uint_eq(seen.wire_len, 128);
        seen = tls_upstream_seen(up, 1);
        ck_assert_uint_eq(seen.wire_len, 128);
        ck_assert(has_option(&seen, PADDING));
    }
    host_close(host);
}
END_TEST

/* Without the options queries leave and answers come as they are, the ID apart. */
START_TEST(off_by_default)
{
    struct host *host = open_pair(_i, "");
    uint8_t query[512];
    size_t len = message_query(query, sizeof(query), 77, "edns.test", TYPE_A);
    const struct outcome *outcome = host_wait(host, host_send_wire(host, query, len, 0), 10000);
    struct tls_seen seen = tls_upstream_seen(up, 0);
    ck_assert_uint_eq(seen.wire_len, len);
    ck_assert_mem_eq(seen.wire + 2, query + 2, len - 2);
    ck_assert_mem_eq(outcome->wire + outcome->wire_len - sizeof(answered), answered,
                     sizeof(answered));
    host_close(host);
}
END_TEST

/* Probes are as CoreDNS's, with nothing added (cases 83, 84). */
START_TEST(probes_cases_83_84)
{
    struct host *host =
        open_pair(_i, "padding 128\n edns_keepalive\n health_check 20ms\n max_connect_attempts 1");
    tls_upstream_script(up, pick_probes, NULL);
    ck_assert_uint_eq(host_ask(host, "sick.test")->kind, FWD_KIND_RCODE);
    work_until(host, tls_upstream_counts(up).queries == 2);
    ck_assert_uint_eq(tls_upstream_seen(up, 1).wire_len, 17);
    host_close(host);
}
END_TEST

/* RFC 7828: the question is asked over TCP and TLS, never over HTTPS (RFC 8484); what the server
 * says is not the client's. */
START_TEST(keepalive_is_asked_for)
{
    struct host *host = open_pair(_i, "edns_keepalive");
    bool asked = kind_of(_i) != KIND_DOH;
    ask_and_compare(host, true, asked ? "\0\12\0\2ab\0\14\0\1" : (const char *)answered,
                    asked ? 11 : sizeof(answered));
    struct tls_seen seen = tls_upstream_seen(up, 0);
    ck_assert_int_eq(has_option(&seen, KEEPALIVE), asked);
    ck_assert(!has_option(&seen, PADDING));
    host_close(host);
}
END_TEST

static struct fake_clock fake;

/* The server's TIMEOUT bounds how long a connection may stay idle; so does `expire`, whichever is
 * less. */
START_TEST(keepalive_bounds_idle_time)
{
    static const struct service services[] = {{FWD_CLOCK_ID, &fake.table}, {NULL, NULL}};
    static const char *const options[] = {"edns_keepalive", "edns_keepalive\n expire 200ms"};
    fake_clock_init(&fake);
    fixture_upstream(kind_of(_i), NULL);
    tls_upstream_set(up, &(struct tls_rule){
                             .opt = true, .options = answered, .options_len = sizeof(answered)});
    for (unsigned i = 0; i < 2; i++) {
        struct host *host = fixture_open_with(_i % MODE_COUNT, services, options[i]);
        unsigned before = tls_upstream_counts(up).opened;
        for (unsigned late = 0; late < 2; late++) {
            ask_good(host, "idle.test");
            host_wait_idle(host, 0, proto_of(_i), 1);
            fake_clock_advance(&fake, i == 0 ? 290 : 190);
            ask_good(host, "soon.test");
            host_wait_idle(host, 0, proto_of(_i), 1);
            ck_assert_uint_eq(tls_upstream_counts(up).opened, before + 1 + late);
            fake_clock_advance(&fake, i == 0 ? 310 : 210);
        }
        host_close(host);
    }
}
END_TEST

static const uint8_t leave[] = {0, KEEPALIVE, 0, 2, 0, 0};

/** All answers on the first connection say that it is to be closed, and come when four are due. */
static void first_says_leave(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    *rule = (struct tls_rule){0};
    if (query->conn == 1) {
        *rule = (struct tls_rule){
            .hold = 4, .opt = true, .options = leave, .options_len = sizeof(leave)};
    }
}

/* TIMEOUT 0: nothing more is sent on the connection; what is in flight is answered, then we close
 * it. */
START_TEST(keepalive_of_nothing)
{
    struct host *host = open_pair(_i, "edns_keepalive\n pipeline 4\n max_connect_attempts 1");
    tls_upstream_script(up, first_says_leave, NULL);
    ask_batch(host, "leave", 4);
    ck_assert_uint_eq(tls_upstream_counts(up).opened, 1);
    work_until(host, tls_upstream_counts(up).open == 0);
    ask_good(host, "next.test");
    ck_assert_uint_eq(tls_upstream_counts(up).opened, 2);
    ck_assert_uint_eq(tls_upstream_seen(up, 4).conn, 2);
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("edns");
    TCase *tcase = tcase_create("edns");
    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_add_loop_test(tcase, padding, 0, VARIANTS);
    tcase_add_loop_test(tcase, off_by_default, 0, VARIANTS);
    tcase_add_loop_test(tcase, probes_cases_83_84, 0, VARIANTS);
    tcase_add_loop_test(tcase, keepalive_is_asked_for, 0, VARIANTS);
    tcase_add_loop_test(tcase, keepalive_bounds_idle_time, 0, 2 * MODE_COUNT); /* TCP and TLS */
    tcase_add_loop_test(tcase, keepalive_of_nothing, 0, 2 * MODE_COUNT);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
