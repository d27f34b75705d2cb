/* What crosses the module: queries and answers as bytes, verdicts, what a completion says.
 *
 * Happy path of each test: an upstream that answers, an instance, a query, a look at both ends. A
 * failure prints the differing value.
 */
#include "message.h"
#include "plain.h"
#include "suite.h"

#include <stdio.h>
#include <string.h>

static struct host *host;

/** A query with all that a forwarder must not touch: mixed case, an unknown type, EDNS with an
 * unknown option, and a TSIG (case 52). */
static size_t rich_query(uint8_t *wire, size_t cap)
{
    static const uint8_t more[] = {/* OPT, size 1232, DO, option 65001 */
                                   0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 7, 253, 233, 0, 3, 'a', 'b',
                                   'c',
                                   /* TSIG of the key k., with data that need not make sense here */
                                   1, 'k', 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4};
    size_t len = message_query(wire, cap, 0x1234, "MiXeD.CaSe.test", 65280);
    memcpy(wire + len, more, sizeof(more));
    wire[11] = 2;
    return len + sizeof(more);
}

static void check_relayed(uint32_t flags, bool tcp)
{
    uint8_t query[600], expected[600];
    size_t query_len = rich_query(query, sizeof(query));
    size_t expected_len = message_answer(expected, sizeof(expected), query, query_len, 0, 0);
    const struct outcome *outcome =
        host_wait(host, host_send_wire(host, query, query_len, flags), 5000);
    ck_assert_uint_eq(outcome->kind, FWD_KIND_ANSWER);

    struct upstream_seen seen = upstream_seen(up, 0);
    ck_assert_uint_eq(seen.tcp, tcp);
    ck_assert_uint_eq(seen.wire_len, query_len);
    ck_assert_mem_eq(seen.wire + 2, query + 2, query_len - 2);

    ck_assert_uint_eq(outcome->wire_len, expected_len);
    ck_assert_mem_eq(outcome->wire, expected, expected_len);
}

/* cases 52, 73: all but the ID goes up as it came, TSIG included, and the answer comes back under
 * the client's ID. */
START_TEST(relays_bytes_over_udp_case_52_73)
{
    host = host_open(_i, "forward . %s", upstream_addr(up));
    check_relayed(0, false);
    host_close(host);
}
END_TEST

START_TEST(relays_bytes_over_tcp_case_52_73)
{
    host = host_open(_i, "forward . %s", upstream_addr(up));
    check_relayed(FWD_QUERY_TCP, true);
    host_close(host);
}
END_TEST

/* case 73: IDs are not the client's, and differ from query to query. */
START_TEST(random_id_case_73)
{
    unsigned same = 0;
    host = host_open(_i, "forward . %s", upstream_addr(up));
    for (unsigned i = 0; i < 100; i++) {
        ck_assert(outcome_good(host_ask(host, "id.test"), "id.test"));
    }
    for (unsigned i = 0; i < 100; i++) {
        for (unsigned j = 0; j < i; j++) {
            same += upstream_seen(up, i).id == upstream_seen(up, j).id;
        }
    }
    /* 4,950 pairs in 65,536 IDs: 0.08 expected */
    ck_assert_uint_le(same, 3);
    host_close(host);
}
END_TEST

/* Answers as large as the transport carries come through whole. */
START_TEST(large_answers)
{
    static const size_t pads[] = {400, 1200, 4000, 16000, 65000};
    host = host_open(_i, "forward . %s", upstream_addr(up));
    for (size_t i = 0; i < sizeof(pads) / sizeof(*pads); i++) {
        struct upstream_rule rule = {.pad = pads[i]};
        upstream_set(up, &rule);
        const struct outcome *outcome = host_ask_tcp(host, "large.test");
        ck_assert(outcome_good(outcome, "large.test"));
        ck_assert_uint_gt(outcome->wire_len, pads[i]);
        if (pads[i] <= 4000) {
            outcome = host_ask(host, "large.test");
            ck_assert(outcome_good(outcome, "large.test"));
            ck_assert_uint_gt(outcome->wire_len, pads[i]);
        }
    }
    host_close(host);
}
END_TEST

/* cases 59, 81: a completion names the upstream, the transport really used, the attempts. */
START_TEST(completion_fields_case_59_81)
{
    host = host_open(_i, "forward . %s", upstream_addr(up));
    const struct outcome *outcome = host_ask(host, "fields.test");
    ck_assert(outcome_good(outcome, "fields.test"));
    ck_assert_str_eq(outcome->upstream, upstream_addr(up));
    ck_assert_uint_eq(outcome->proto, FWD_PROTO_UDP);
    ck_assert_uint_eq(outcome->attempts, 1);
    ck_assert_uint_eq(outcome->rcode, NOERROR);
    ck_assert_uint_gt(outcome->elapsed_ns, 0);
    outcome = host_ask_tcp(host, "fields.test");
    ck_assert_uint_eq(outcome->proto, FWD_PROTO_TCP);
    host_close(host);
}
END_TEST

/* case 58: error RCODEs of an upstream are answers like others, and leave it healthy. */
START_TEST(rcodes_are_relayed_case_58)
{
    static const unsigned rcodes[] = {SERVFAIL, REFUSED, FORMERR, NOTIMP, NXDOMAIN};
    host = host_open(_i, "forward . %s", upstream_addr(up));
    for (size_t i = 0; i < sizeof(rcodes) / sizeof(*rcodes); i++) {
        struct upstream_rule rule = {.rcode = rcodes[i]};
        upstream_set(up, &rule);
        const struct outcome *outcome = host_ask(host, "rcode.test");
        ck_assert_uint_eq(outcome->kind, FWD_KIND_ANSWER);
        ck_assert_uint_eq(outcome->rcode, rcodes[i]);
        ck_assert_uint_eq(message_rcode(outcome->wire), rcodes[i]);
        ck_assert_uint_eq(outcome->attempts, 1);
    }
    ck_assert_uint_eq(upstream_counts(up).queries, sizeof(rcodes) / sizeof(*rcodes));
    ck_assert_uint_eq(host->proxies->fails(host->proxies->at(host->instance, 0)), 0);
    host_close(host);
}
END_TEST

/* cases 41, 42: FROM matches whole labels without regard to case, except takes names out. */
START_TEST(matching_case_41_42)
{
    static const struct {
        const char *name;
        bool matches;
    } rows[] = {
        {"example.org", true},
        {"EXAMPLE.org", true},
        {"a.example.org", true},
        {"b.a.eXample.Org", true},
        {"notexample.org", false},
        {"org", false},
        {"", false},
        {"example.org.net", false},
        {"x.example.org", false},
        {"a.b.X.example.org", false},
        {"xx.example.org", true},
        {"y.z.example.org", false},
        {"z.example.org", true},
    };
    host = host_open(_i, "forward example.org %s {\n except x.example.org Y.z.example.org\n}",
                     upstream_addr(up));
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        uint8_t wire[512];
        size_t len = message_query(wire, sizeof(wire), 1, rows[i].name, TYPE_A);
        const struct outcome *outcome = host_wait(host, host_send(host, rows[i].name), 5000);
        uint32_t expected = rows[i].matches ? FWD_VERDICT_ACCEPTED : FWD_VERDICT_NEXT;
        ck_assert_msg(outcome->verdict == expected, "%s: verdict %u", rows[i].name,
                      outcome->verdict);
        ck_assert_int_eq(host->forward->match(host->instance, wire + 12, (uint32_t)len - 16),
                         rows[i].matches);
    }
    host_close(host);
}
END_TEST

/* case 41: FROM itself is matched although an except covers it. */
START_TEST(from_is_never_excepted_case_41)
{
    host = host_open(_i, "forward example.org %s {\n except org\n}", upstream_addr(up));
    ck_assert(outcome_good(host_ask(host, "example.org"), "example.org"));
    ck_assert_uint_eq(host_outcome(host, host_send(host, "a.example.org"))->verdict,
                      FWD_VERDICT_NEXT);
    host_close(host);
}
END_TEST

/* case 40: stanzas are tried in file order. */
START_TEST(first_stanza_that_matches_case_40)
{
    struct upstream *other = upstream_create();
    host = host_open(_i, "forward a.test %s\nforward test %s\nforward b.test %s",
                     upstream_addr(other), upstream_addr(up), upstream_addr(other));
    ck_assert_str_eq(host_ask(host, "x.a.test")->upstream, upstream_addr(other));
    ck_assert_str_eq(host_ask(host, "x.b.test")->upstream, upstream_addr(up));
    ck_assert_str_eq(host_ask(host, "x.test")->upstream, upstream_addr(up));
    ck_assert_uint_eq(host_outcome(host, host_send(host, "x.example"))->verdict, FWD_VERDICT_NEXT);
    ck_assert_uint_eq(host->proxies->count(host->instance), 3);
    host_close(host);
    upstream_destroy(other);
}
END_TEST

/* cases 52, 74: what does not parse is FORMERR at once: no attempt, no socket, no probe. */
START_TEST(malformed_query_case_52_74)
{
    uint8_t good[64], wire[64];
    size_t len = message_query(good, sizeof(good), 7, "malformed.test", TYPE_A);
    host = host_open(_i, "forward . %s", upstream_addr(up));
    for (unsigned kind = 0; kind < 6; kind++) {
        size_t cut = len;
        memcpy(wire, good, len);
        switch (kind) {
        case 0: /* QDCOUNT 0 */
            wire[5] = 0;
            cut = 12;
            break;
        case 1: /* QDCOUNT 2 */
            wire[5] = 2;
            break;
        case 2: /* cut in the question */
            cut = len - 3;
            break;
        case 3: /* a pointer loop as name */
            wire[12] = 0xc0;
            wire[13] = 12;
            break;
        case 4: /* a record that is not there */
            wire[11] = 1;
            break;
        default: /* QR */
            wire[2] |= 0x80;
            break;
        }
        const struct outcome *outcome = host_outcome(host, host_send_wire(host, wire, cut, 0));
        ck_assert_msg(outcome->verdict == FWD_VERDICT_RCODE, "kind %u: verdict %u", kind,
                      outcome->verdict);
        ck_assert_uint_eq(outcome->rcode, FORMERR);
        ck_assert_int_eq(outcome->error, FWD_ERR_BAD_QUERY);
        ck_assert_uint_gt(strlen(outcome->detail), 0);
    }
    ck_assert_uint_eq(host_pool(host, 0, FWD_PROTO_UDP).misses, 0);
    ck_assert_uint_eq(upstream_counts(up).queries, 0);
    host_close(host);
}
END_TEST

/* One call of serve with many queries: each gets its own answer. */
START_TEST(batch)
{
    host = host_open(_i, "forward . %s", upstream_addr(up));
    uint64_t first = host_send_batch(host, "batch", 200);
    host_wait_all(host, 10000);
    for (unsigned i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof(name), "batch%u.test", i);
        ck_assert_msg(outcome_good(host_outcome(host, first + i), name), "%s", name);
    }
    host_close(host);
}
END_TEST

/* fwd.proxy/1 exchange: one attempt on the upstream named, whatever the policy and without
 * failover. */
START_TEST(exchange_is_one_attempt)
{
    struct upstream *other = upstream_create();
    host = host_open(_i, "forward . %s %s {\n policy sequential\n}", upstream_addr(up),
                     upstream_addr(other));
    const struct outcome *outcome = host_wait(host, host_exchange(host, 1, "one.test", 0), 5000);
    ck_assert(outcome_good(outcome, "one.test"));
    ck_assert_str_eq(outcome->upstream, upstream_addr(other));
    outcome = host_wait(host, host_exchange(host, 1, "one.test", FWD_EXCHANGE_FORCE_TCP), 5000);
    ck_assert_uint_eq(outcome->proto, FWD_PROTO_TCP);
    upstream_down(other);
    outcome = host_wait(host, host_exchange(host, 1, "two.test", 0), 5000);
    ck_assert_uint_eq(outcome->kind, FWD_KIND_RCODE);
    ck_assert_int_eq(outcome->error, FWD_ERR_REFUSED);
    ck_assert_uint_eq(outcome->attempts, 1);
    ck_assert_uint_eq(upstream_counts(up).queries, 0);
    host_close(host);
    upstream_destroy(other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("relay");
    TCase *tcase = tcase_create("relay");
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, relays_bytes_over_udp_case_52_73);
    add_test(tcase, relays_bytes_over_tcp_case_52_73);
    add_test(tcase, random_id_case_73);
    add_test(tcase, large_answers);
    add_test(tcase, completion_fields_case_59_81);
    add_test(tcase, rcodes_are_relayed_case_58);
    add_test(tcase, matching_case_41_42);
    add_test(tcase, from_is_never_excepted_case_41);
    add_test(tcase, first_stanza_that_matches_case_40);
    add_test(tcase, malformed_query_case_52_74);
    add_test(tcase, batch);
    add_test(tcase, exchange_is_one_attempt);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
