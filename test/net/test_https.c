/* DNS over HTTPS: the requests as the server sees them, responses that are none, streams that are
 * refused, connections that leave.
 *
 * Happy path: an authority made for the test, an HTTP/2 server with its certificate, a query, the
 * good answer. Standards: RFC 8484, RFC 9113.
 */
#include "fixture.h"
#include "message.h"
#include "suite.h"

#include <stdio.h>
#include <string.h>

/* --- requests ------------------------------------------------------------------------------------- */

/* case 90: POST and GET as RFC 8484 has them, upstream ID 0, the client's own restored; case 81:
 * HTTPS is what the host is told. */
START_TEST(requests_cases_81_90)
{
    bool get = _i / MODE_COUNT == 1;
    fixture_upstream(KIND_DOH, NULL);
    struct host *host = fixture_open(_i % MODE_COUNT, get ? "doh_method GET" : "");
    const struct outcome *outcome = host_ask(host, "request.test");
    ck_assert_msg(outcome_good(outcome, "request.test"), "%s", outcome->detail);
    ck_assert_uint_eq(outcome->proto, FWD_PROTO_HTTPS);
    struct tls_seen seen = tls_upstream_seen(up, 0);
    char authority_text[64];
    (void)snprintf(authority_text, sizeof(authority_text), SERVER_NAME ":%u",
                   tls_upstream_port(up));
    ck_assert_str_eq(seen.alpn, "h2");
    ck_assert_str_eq(seen.name, "request.test");
    ck_assert_uint_eq(seen.id, 0);
    ck_assert_str_eq(seen.http.method, get ? "GET" : "POST");
    ck_assert_str_eq(seen.http.accept, "application/dns-message");
    ck_assert_str_eq(seen.http.content_type, "application/dns-message");
    ck_assert_str_eq(seen.http.authority, authority_text);
    if (get) {
        ck_assert_int_eq(strncmp(seen.http.path, "/dns-query?dns=", 15), 0);
        ck_assert_ptr_null(strpbrk(seen.http.path + 15, "=+/&"));
        ck_assert_uint_eq(seen.http.body_len, 0);
    } else {
        char length[16];
        (void)snprintf(length, sizeof(length), "%zu", seen.http.wire_len);
        ck_assert_str_eq(seen.http.path, "/dns-query");
        ck_assert_uint_eq(seen.http.body_len, seen.http.wire_len);
        ck_assert_str_eq(seen.http.content_length, length);
    }
    host_close(host);
}
END_TEST

/* GET of messages of every length modulo 3. */
START_TEST(get_of_all_lengths_case_90)
{
    static const char *const names[] = {"a.test", "ab.test", "abc.test", "abcd.test"};
    fixture_upstream(KIND_DOH, NULL);
    struct host *host = fixture_open(_i, "doh_method GET");
    for (unsigned i = 0; i < 4; i++) {
        ask_good(host, names[i]);
    }
    host_close(host);
}
END_TEST

/* --- responses ------------------------------------------------------------------------------------ */

static const struct response {
    struct http_form form;
    const char *reason; /* NULL: it is fine */
    int32_t error;
} responses[] = {
    {{.status = 404}, "HTTP status 404", FWD_ERR_HTTP},
    {{.status = 500}, "HTTP status 500", FWD_ERR_HTTP},
    {{.status = 302, .location = "https://127.0.0.1/elsewhere"}, "HTTP status 302", FWD_ERR_HTTP},
    {{.status = 204, .body = HTTP_BODY_NONE}, "empty body", FWD_ERR_HTTP},
    {{.media_type = "text/html"}, "media type", FWD_ERR_HTTP},
    {{.media_type = "application/dns-messages"}, "media type", FWD_ERR_HTTP},
    {{.media_type = ""}, "media type", FWD_ERR_HTTP},
    {{.encoding = "gzip"}, "content encoding", FWD_ERR_HTTP},
    {{.body = HTTP_BODY_NONE}, "empty body", FWD_ERR_HTTP},
    {{.body = HTTP_BODY_SHORT}, "no answer to the question", FWD_ERR_BAD_REPLY},
    {{.body = HTTP_BODY_HUGE}, "longer than 65535", FWD_ERR_HTTP},
    {{.body = HTTP_BODY_OPEN}, "timeout", FWD_ERR_TIMEOUT},
    {{.refusal = HTTP_RESETS}, "INTERNAL_ERROR", FWD_ERR_HTTP},
    {{.raw = {0, 0, 4, 0, 0, 255, 255, 255, 255, 'd', 'a', 't', 'a'}, .raw_len = 13},
     "HTTP/2 protocol error",
     FWD_ERR_HTTP}, /* DATA before HEADERS */
    {{.raw = {0, 0, 1, 9, 4, 255, 255, 255, 255, 0x88}, .raw_len = 10},
     "HTTP/2 protocol error",
     FWD_ERR_HTTP}, /* CONTINUATION of nothing */
    {{.raw = {0, 0, 4, 0, 0, 0, 0, 0x7f, 1, 'd', 'a', 't', 'a'}, .raw_len = 13},
     "HTTP/2 protocol error",
     FWD_ERR_HTTP}, /* DATA on a stream of no one */
    {{.raw = {0, 0, 5, 5, 4, 255, 255, 255, 255, 0, 0, 0, 2, 0x88}, .raw_len = 14},
     "HTTP/2 protocol error",
     FWD_ERR_HTTP}, /* PUSH_PROMISE, which is off */
    {{.raw = {0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0}, .raw_len = 9},
     "HTTP/2 protocol error",
     FWD_ERR_HTTP},                                       /* a frame of 16 MiB */
    {{.padding = 60000}, "headers longer", FWD_ERR_HTTP}, /* more headers than we take */
    {{.media_type = "Application/DNS-Message; charset=x"}, NULL, 0},
    {{.encoding = "identity"}, NULL, 0},
    {{.early_hints = true}, NULL, 0},
    {{.padding = 5000}, NULL, 0},
    {{.status = 203}, NULL, 0},
};

enum { RESPONSES = sizeof(responses) / sizeof(*responses) };

/** The first response is the wrong one; what follows is right. */
static void wrong_first(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    if (query->number == 1) {
        rule->http = ((const struct response *)arg)->form;
    }
}

/* A response that is no answer is an error that says why, of one attempt; the next is answered, and
 * the connection need not suffer. */
START_TEST(wrong_responses)
{
    const struct response *response = &responses[_i / MODE_COUNT];
    fixture_upstream(KIND_DOH, NULL);
    tls_upstream_script(up, wrong_first, (void *)response);
    struct host *host =
        fixture_open(_i % MODE_COUNT, "max_connect_attempts 1\n max_fails 0\n read_timeout 500ms");
    const struct outcome *outcome = host_ask(host, "wrong.test");
    if (response->reason == NULL) {
        ck_assert_msg(outcome_good(outcome, "wrong.test"), "response %d: %s", _i / MODE_COUNT,
                      outcome->detail);
    } else {
        ck_assert_msg(outcome->kind == FWD_KIND_RCODE, "response %d: kind %u", _i / MODE_COUNT,
                      outcome->kind);
        ck_assert_uint_eq(outcome->rcode, SERVFAIL);
        check_detail(outcome, " https ");
        check_detail(outcome, response->reason);
        ck_assert_msg(response->error == 0 || outcome->error == response->error, "error %d: %s",
                      outcome->error, outcome->detail);
    }
    ask_good(host, "right.test");
    host_close(host);
}
END_TEST

/** Whether every TTL of the one record in the answer is this. */
static uint32_t ttl_of(const struct outcome *outcome)
{
    size_t at =
        message_question_end(outcome->wire, outcome->wire_len) + 2 + 4; /* the owner is a pointer */
    const uint8_t *ttl = outcome->wire + at;
    return (uint32_t)ttl[0] << 24 | (uint32_t)ttl[1] << 16 | (uint32_t)ttl[2] << 8 | ttl[3];
}

/* RFC 8484 5.1: Age is taken off the TTLs, down to nothing. */
START_TEST(age)
{
    fixture_upstream(KIND_DOH, NULL);
    struct host *host = fixture_open(_i, "");
    const struct outcome *fresh = host_ask(host, "age.test");
    ck_assert(outcome_good(fresh, "age.test"));
    uint32_t ttl = ttl_of(fresh);
    ck_assert_uint_gt(ttl, 7);
    tls_upstream_set(up, &(struct tls_rule){.http = {.age = "7"}});
    ck_assert_uint_eq(ttl_of(host_ask(host, "age.test")), ttl - 7);
    tls_upstream_set(up, &(struct tls_rule){.http = {.age = "99999999999999999999"}});
    ck_assert_uint_eq(ttl_of(host_ask(host, "age.test")), 0);
    tls_upstream_set(up, &(struct tls_rule){.http = {.age = "-1"}});
    ck_assert_uint_eq(ttl_of(host_ask(host, "age.test")), ttl);
    host_close(host);
}
END_TEST

/* read_timeout holds for DoH too; the stream is given up, the connection serves the next. */
START_TEST(read_timeout)
{
    fixture_upstream(KIND_DOH, NULL);
    struct host *host = fixture_open(_i, "read_timeout 300ms\n max_connect_attempts 1\n max_fails 0");
    ask_good(host, "before.test");
    tls_upstream_set(up, &(struct tls_rule){.drop = true});
    const struct outcome *outcome = host_ask(host, "mute.test");
    ck_assert_int_eq(outcome->error, FWD_ERR_TIMEOUT);
    ck_assert_uint_ge(outcome->elapsed_ns, 300000000u);
    ck_assert_uint_lt(outcome->elapsed_ns, 4000000000u);
    tls_upstream_set(up, &(struct tls_rule){0});
    ask_good(host, "after.test");
    host_close(host);
}
END_TEST

/* A server that chooses HTTP/1.1, or nothing, gets no request, and the error says what it lacks. */
START_TEST(no_http2)
{
    static const char *const protocols[] = {"http/1.1", ""};
    fixture_upstream(KIND_DOH, &(struct tls_setup){.alpn = protocols[_i / MODE_COUNT]});
    struct host *host = fixture_open(_i % MODE_COUNT, "max_connect_attempts 1\n max_fails 0");
    const struct outcome *outcome = host_ask(host, "old.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_RCODE);
    check_detail(outcome, "handshake https ");
    check_detail(outcome, "the server does not speak HTTP/2");
    ck_assert_uint_eq(tls_upstream_counts(up).queries, 0);
    host_close(host);
}
END_TEST

/* The certificate is looked at as with DoT. */
START_TEST(verifies)
{
    struct certificate wrong = certificate_make(
        &(struct certificate_form){.common_name = "server", .alt_names = "DNS:two.test"},
        &authority.ca);
    fixture_upstream(KIND_DOH, &(struct tls_setup){.certificate = &wrong});
    struct host *host = fixture_open(_i, "max_connect_attempts 1\n max_fails 0");
    const struct outcome *outcome = host_ask(host, "verify.test");
    ck_assert_int_eq(outcome->error, FWD_ERR_TLS_VERIFY);
    check_detail(outcome, "'" SERVER_NAME "': hostname mismatch");
    ck_assert_uint_eq(tls_upstream_counts(up).queries, 0);
    host_close(host);
    certificate_free(&wrong);
}
END_TEST

/* --- streams -------------------------------------------------------------------------------------- */

/* Many streams on one connection, answered in any order. */
START_TEST(many_streams)
{
    fixture_upstream(KIND_DOH, NULL);
    tls_upstream_set(up, &(struct tls_rule){.hold = 50});
    struct host *host = fixture_open(_i, "");
    for (unsigned round = 0; round < 3; round++) {
        ask_batch(host, "many", 50);
    }
    struct tls_counts counts = tls_upstream_counts(up);
    ck_assert_uint_eq(counts.opened, 1);
    ck_assert_uint_eq(counts.together, 50);
    host_close(host);
}
END_TEST

/* The streams of one call of serve leave in one record. */
START_TEST(one_record_for_a_batch)
{
    fixture_upstream(KIND_DOH, NULL);
    struct host *host = fixture_open(_i, "");
    ask_batch(host, "before", 1);
    host_wait_idle(host, 0, FWD_PROTO_HTTPS, 1);
    unsigned before = tls_upstream_counts(up).reads;
    ask_batch(host, "record", 20);
    struct tls_counts counts = tls_upstream_counts(up);
    ck_assert_uint_eq(counts.opened, 1);
    ck_assert_uint_lt(counts.reads, before + 4); /* and what HTTP/2 itself has to say */
    host_close(host);
}
END_TEST

/* The server writes HEADERS and DATA apart and has Nagle's algorithm on: DATA leaves when HEADERS
 * are acknowledged, which the kernel puts off for 40 ms. */
START_TEST(nagle)
{
    fixture_upstream(KIND_DOH, NULL);
    struct host *host = fixture_open(_i, "");
    ck_assert_uint_lt(fixture_best_ns(host, 40), 35000000);
    host_close(host);
}
END_TEST

/* The server's limit on streams is obeyed once it is known; what it refuses before that is asked
 * again at no charge. */
START_TEST(stream_limits)
{
    static const unsigned limits[] = {1, 2, 100};
    unsigned limit = limits[_i / MODE_COUNT];
    fixture_upstream(KIND_DOH, &(struct tls_setup){.limit_streams = true, .max_streams = limit});
    struct host *host = fixture_open(_i % MODE_COUNT, "max_connect_attempts 1\n max_fails 0");
    ask_good(host, "first.test");
    tls_upstream_set(up, &(struct tls_rule){.delay_ms = 20});
    ask_batch(host, "limit", 12);
    ck_assert_uint_le(tls_upstream_counts(up).together, limit);
    ck_assert_uint_le(tls_upstream_counts(up).opened, limit == 1 ? 12 : limit == 2 ? 6 : 1);
    host_close(host);
}
END_TEST

/* A cold start against a server of one stream: nothing is lost although the limit is not known yet.
 */
START_TEST(stream_limit_unknown)
{
    fixture_upstream(KIND_DOH, &(struct tls_setup){.limit_streams = true, .max_streams = 1});
    struct host *host = fixture_open(_i, "max_fails 0");
    ask_batch(host, "cold", 12);
    host_close(host);
}
END_TEST

/* A server that allows no stream at all: an end within the budget, and no storm of connections. */
START_TEST(no_streams)
{
    fixture_upstream(KIND_DOH, &(struct tls_setup){.limit_streams = true, .max_streams = 0});
    struct host *host = fixture_open(_i, "max_connect_attempts 2\n max_fails 0\n read_timeout 500ms");
    const struct outcome *outcome = host_ask(host, "nostream.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_RCODE);
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_uint_le(tls_upstream_counts(up).opened, 64);
    host_close(host);
}
END_TEST

/** The first queries are refused, each once. */
static void refuse_first(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    if (query->number <= 5) {
        rule->http.refusal = *(const enum http_refusal *)arg;
    }
}

/* RST_STREAM REFUSED_STREAM, and a GOAWAY that leaves streams out: asked again elsewhere, and no
 * attempt is counted. */
START_TEST(refused_streams)
{
    static enum http_refusal refusals[] = {HTTP_REFUSES, HTTP_LEAVES_BEFORE};
    fixture_upstream(KIND_DOH, NULL);
    tls_upstream_script(up, refuse_first, &refusals[_i / MODE_COUNT]);
    struct host *host = fixture_open(_i % MODE_COUNT, "max_connect_attempts 1\n max_fails 0");
    ask_good(host, "refused.test");
    ask_batch(host, "refused", 10);
    ck_assert(host_metric(host, "fwd_proxy_errors_total{") == 0);
    host_close(host);
}
END_TEST

/* A GOAWAY that covers everything: what is in flight is answered there, what follows goes to
 * another connection, the old one is closed. */
START_TEST(goaway_after)
{
    fixture_upstream(KIND_DOH, NULL);
    tls_upstream_set(up, &(struct tls_rule){.http = {.refusal = HTTP_LEAVES_AFTER}});
    struct host *host = fixture_open(_i, "max_connect_attempts 1\n max_fails 0");
    for (unsigned i = 0; i < 5; i++) {
        ask_good(host, "goaway.test");
        work_until(host, tls_upstream_counts(up).open == 0);
    }
    ck_assert_uint_eq(tls_upstream_counts(up).opened, 5);
    host_close(host);
}
END_TEST

/* A connection that dies with streams on it: they are answered elsewhere. */
START_TEST(death_with_streams_case_78)
{
    static const enum ending endings[] = {END_FIN, END_RST};
    fixture_upstream(KIND_DOH, NULL);
    tls_upstream_set(up, &(struct tls_rule){.drop = true});
    struct host *host = fixture_open(_i % MODE_COUNT, "max_connect_attempts 1\n max_fails 0");
    uint64_t first = host_send_batch(host, "death", 20);
    work_until(host, tls_upstream_counts(up).queries == 20);
    tls_upstream_set(up, &(struct tls_rule){0});
    tls_upstream_kill(up, endings[_i / MODE_COUNT]);
    host_wait_all(host, 20000);
    check_batch(host, "death", first, 20);
    host_close(host);
}
END_TEST

/* The server closes everything again and again. */
START_TEST(closed_again_and_again)
{
    fixture_upstream(KIND_DOH, NULL);
    tls_upstream_kill_every(up, _i / MODE_COUNT == 0 ? END_FIN : END_RST, 150);
    struct host *host = fixture_open(_i % MODE_COUNT, "max_connect_attempts 0\n max_fails 0");
    while (tls_upstream_counts(up).opened < 6) {
        ask_batch(host, "again", 20);
    }
    host_close(host);
}
END_TEST

/* Great answers need more than the first windows of flow control. */
START_TEST(greatest_answers)
{
    fixture_upstream(KIND_DOH, NULL);
    tls_upstream_set(up, &(struct tls_rule){.pad = 65000});
    struct host *host = fixture_open(_i, "");
    for (unsigned round = 0; round < 3; round++) {
        ask_batch(host, "great", 40);
    }
    host_close(host);
}
END_TEST

/* A canceled query resets its stream, and only that. */
START_TEST(cancel_resets_the_stream)
{
    fixture_upstream(KIND_DOH, NULL);
    struct host *host = fixture_open(_i, "");
    ask_good(host, "before.test");
    tls_upstream_set(up, &(struct tls_rule){.drop = true});
    uint64_t token = host_send(host, "cancel.test");
    work_until(host, tls_upstream_counts(up).queries == 2);
    tls_upstream_set(up, &(struct tls_rule){0});
    ck_assert_int_eq(host->forward->cancel(host->instance, host_outcome(host, token)->handle),
                     FWD_OK);
    ck_assert_uint_eq(host_wait(host, token, 5000)->kind, FWD_KIND_CANCELED);
    work_until(host, tls_upstream_counts(up).resets == 1);
    ask_good(host, "after.test");
    ck_assert_uint_eq(tls_upstream_counts(up).opened, 1);
    host_close(host);
}
END_TEST

/* Cancel before the handshake is through leaves nothing odd behind: the connection serves the next
 * query. */
START_TEST(cancel_in_handshake)
{
    fixture_upstream(KIND_DOH, NULL);
    struct host *host = fixture_open(_i, "");
    for (unsigned i = 0; i < 10; i++) {
        uint64_t token = host_send(host, "cancel.test");
        (void)host->forward->cancel(host->instance, host_outcome(host, token)->handle);
        (void)host_wait(host, token, 5000);
        ask_good(host, "next.test");
    }
    host_close(host);
}
END_TEST

/* --- probes --------------------------------------------------------------------------------------- */

static void probes_only(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    rule->http.status = query->type == TYPE_NS ? 200 : 500;
}

/* case 89: the probe is a POST, on a connection of its own, with the configured CA and name. */
START_TEST(probes_case_89)
{
    fixture_upstream(KIND_DOH, NULL);
    tls_upstream_script(up, probes_only, NULL);
    struct host *host =
        fixture_open(_i, "health_check 50ms domain probe.test\n max_connect_attempts 1");
    ck_assert_int_eq(host_ask(host, "sick.test")->error, FWD_ERR_HTTP);
    work_until(host, tls_upstream_counts(up).queries == 2);
    struct tls_seen probe = tls_upstream_seen(up, 1);
    ck_assert_uint_eq(probe.type, TYPE_NS);
    ck_assert_str_eq(probe.sni, SERVER_NAME);
    ck_assert_str_eq(probe.http.method, "POST");
    ck_assert_str_eq(probe.http.content_type, "application/dns-message");
    ck_assert_uint_eq(probe.conn, 2);
    work_until(host, host->proxies->fails(host->proxies->at(host->instance, 0)) == 0);
    work_until(host,
               tls_upstream_counts(up).open ==
                   1); /* the probe's is gone; the query's, which had a bad answer only, is not */
    host_close(host);
}
END_TEST

/* A server that answers 500 to the probe too is down. */
START_TEST(probe_fails_on_status)
{
    fixture_upstream(KIND_DOH, NULL);
    tls_upstream_set(up, &(struct tls_rule){.http = {.status = 500}});
    struct host *host = fixture_open(_i, "health_check 20ms\n max_connect_attempts 1");
    struct fwd_proxy *proxy = host->proxies->at(host->instance, 0);
    ck_assert_int_eq(host_ask(host, "sick.test")->error, FWD_ERR_HTTP);
    work_until(host, host->proxies->fails(proxy) > 2);
    tls_upstream_set(up, &(struct tls_rule){0});
    work_until(host, host->proxies->fails(proxy) == 0);
    ask_good(host, "well.test");
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("https");
    TCase *tcase = tcase_create("https");
    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_add_loop_test(tcase, requests_cases_81_90, 0, 2 * MODE_COUNT);
    add_test(tcase, get_of_all_lengths_case_90);
    tcase_add_loop_test(tcase, wrong_responses, 0, RESPONSES * MODE_COUNT);
    add_test(tcase, age);
    add_test(tcase, read_timeout);
    tcase_add_loop_test(tcase, no_http2, 0, 2 * MODE_COUNT);
    add_test(tcase, verifies);
    add_test(tcase, many_streams);
    tcase_add_loop_test(tcase, one_record_for_a_batch, 0, MODE_COUNT);
    add_test(tcase, nagle);
    tcase_add_loop_test(tcase, stream_limits, 0, 3 * MODE_COUNT);
    add_test(tcase, stream_limit_unknown);
    add_test(tcase, no_streams);
    tcase_add_loop_test(tcase, refused_streams, 0, 2 * MODE_COUNT);
    add_test(tcase, goaway_after);
    tcase_add_loop_test(tcase, death_with_streams_case_78, 0, 2 * MODE_COUNT);
    tcase_add_loop_test(tcase, closed_again_and_again, 0, 2 * MODE_COUNT);
    add_test(tcase, greatest_answers);
    add_test(tcase, cancel_resets_the_stream);
    add_test(tcase, cancel_in_handshake);
    add_test(tcase, probes_case_89);
    add_test(tcase, probe_fails_on_status);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
