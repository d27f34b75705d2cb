/* DNS over TLS: who is believed, what happens when a handshake or a connection goes wrong,
 * sessions, and what is told to the host.
 *
 * Happy path: an authority made for the test, an upstream with its certificate, `tls CA` and a
 * server name, a query, the good answer. Standards: RFC 7858, RFC 8310 (strict profile).
 */
#include "fixture.h"
#include "message.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- who is believed ------------------------------------------------------------------------------ */

/* cases 28, 64, 81: TLS 1.3, ALPN dot, SNI; TLS whatever was asked, and that is what the host is
 * told. */
START_TEST(right_name_cases_28_64_81)
{
    static const char *const options[] = {"", "force_tcp", "prefer_udp"};
    fixture_upstream(KIND_DOT, NULL);
    for (unsigned i = 0; i < 3; i++) {
        struct host *host = fixture_open(_i, options[i]);
        const struct outcome *outcome = host_ask(host, "right.test");
        ck_assert(outcome_good(outcome, "right.test"));
        ck_assert_uint_eq(outcome->proto, FWD_PROTO_TLS);
        outcome = host_ask_tcp(host, "tcp.test");
        ck_assert(outcome_good(outcome, "tcp.test"));
        ck_assert_uint_eq(outcome->proto, FWD_PROTO_TLS);
        host_wait_idle(host, 0, FWD_PROTO_TLS, 1);
        host_close(host);
    }
    struct tls_seen seen = tls_upstream_seen(up, 0);
    ck_assert_str_eq(seen.alpn, "dot");
    ck_assert_str_eq(seen.sni, SERVER_NAME);
    ck_assert_str_eq(seen.version, "TLSv1.3");
    ck_assert_uint_eq(tls_upstream_counts(up).opened, 3);
}
END_TEST

/* The name of one TO only; and without any name the address in the certificate, with no SNI (case
 * 28). */
START_TEST(names_and_addresses_case_28)
{
    static const char *const to[] = {"tls://127.0.0.1%%" SERVER_NAME ":%u", "tls://127.0.0.1:%u",
                                     "tls://127.0.0.1%%127.0.0.1:%u"};
    fixture_upstream(KIND_DOT, NULL);
    for (unsigned i = 0; i < 3; i++) {
        char text[96];
        (void)snprintf(text, sizeof(text), to[i], tls_upstream_port(up));
        struct host *host = host_open(_i, "forward . %s {\n tls %s\n}", text, authority.ca_file);
        ask_good(host, "named.test");
        ck_assert_str_eq(tls_upstream_seen(up, i).sni, i == 0 ? SERVER_NAME : "");
        host_close(host);
    }
}
END_TEST

/* The same over IPv6, as DoT and as DoH: ::1 is looked for in the certificate, and an address of
 * the other family is none. */
START_TEST(ipv6_case_28)
{
    bool https = _i / MODE_COUNT == 1;
    enum tls_kind kind = https ? KIND_DOH : KIND_DOT;
    struct certificate other_family = certificate_make(
        &(struct certificate_form){.common_name = "server", .alt_names = "IP:127.0.0.1,DNS:::1"},
        &authority.ca);
    fixture_upstream(kind, &(struct tls_setup){.ipv6 = true});
    struct host *host = host_open(_i % MODE_COUNT,
                                  "forward . %s%s {\n tls %s\n max_connect_attempts 1\n"
                                  " max_fails 0\n expire 0s\n}",
                                  https ? "https://" : "tls://", tls_upstream_addr(up),
                                  authority.ca_file);
    ask_good(host, "six.test");
    struct tls_seen seen = tls_upstream_seen(up, 0);
    ck_assert_str_eq(seen.sni, "");
    ck_assert_str_eq(seen.http.authority, https ? tls_upstream_addr(up) : "");
    host_close(host);
    tls_upstream_destroy(up);
    fixture_upstream(kind, &(struct tls_setup){.ipv6 = true, .certificate = &other_family});
    host = host_open(_i % MODE_COUNT,
                     "forward . %s%s {\n tls %s\n max_connect_attempts 1\n max_fails 0\n}",
                     https ? "https://" : "tls://", tls_upstream_addr(up), authority.ca_file);
    const struct outcome *outcome = host_ask(host, "four.test");
    ck_assert_int_eq(outcome->error, FWD_ERR_TLS_VERIFY);
    check_detail(outcome, "'::1'");
    check_detail(outcome, "IP address mismatch");
    host_close(host);
    certificate_free(&other_family);
}
END_TEST

/* A trailing dot in a server name, and one in other letters, change nothing. */
START_TEST(name_with_a_dot)
{
    static const char *const names[] = {"one.test.", "ONE.test"};
    fixture_upstream(KIND_DOT, NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct host *host = host_open(_i, "forward . tls://%s {\n tls %s\n tls_servername %s\n}",
                                      tls_upstream_addr(up), authority.ca_file, names[i]);
        ask_good(host, "dot.test");
        host_close(host);
    }
}
END_TEST

/* What is wrong with a server, and OpenSSL's words for it. */
static const struct bad_server {
    const char *alt_names;
    int from_days, to_days;
    bool self_signed, other_authority, by_address;
    const char *reason;
} bad_servers[] = {
    {.alt_names = "DNS:two.test", .reason = "hostname mismatch"},
    {.alt_names = "DNS:*.one.test", .reason = "hostname mismatch"},
    {.alt_names = "IP:127.0.0.1", .reason = "hostname mismatch"},
    {.alt_names = NULL, .reason = "hostname mismatch"}, /* the common name does not count */
    {.alt_names = "DNS:" SERVER_NAME,
     .from_days = -9,
     .to_days = -2,
     .reason = "certificate has expired"},
    {.alt_names = "DNS:" SERVER_NAME,
     .from_days = 2,
     .to_days = 9,
     .reason = "certificate is not yet valid"},
    {.alt_names = "DNS:" SERVER_NAME, .self_signed = true, .reason = "self-signed certificate"},
    {.alt_names = "DNS:" SERVER_NAME,
     .other_authority = true,
     .reason = "unable to get local issuer certificate"},
    {.alt_names = "IP:127.0.0.2", .by_address = true, .reason = "IP address mismatch"},
    {.alt_names = "DNS:127.0.0.1", .by_address = true, .reason = "IP address mismatch"},
};

enum { BAD_SERVERS = sizeof(bad_servers) / sizeof(*bad_servers) };

/* A server that does not prove who it is gets no query, and the error names the upstream, the name
 * that was checked and the reason. */
START_TEST(wrong_certificates)
{
    const struct bad_server *bad = &bad_servers[_i / MODE_COUNT];
    struct certificate stranger = certificate_make(
        &(struct certificate_form){.common_name = "other CA", .authority = true}, NULL);
    struct certificate_form form = {.common_name = SERVER_NAME,
                                    .alt_names = bad->alt_names,
                                    .from_days = bad->from_days,
                                    .to_days = bad->to_days};
    struct certificate shown = certificate_make(&form, bad->self_signed       ? NULL
                                                       : bad->other_authority ? &stranger
                                                                              : &authority.ca);
    fixture_upstream(KIND_DOT, &(struct tls_setup){.certificate = &shown});
    struct host *host =
        host_open(_i % MODE_COUNT,
                  "forward . tls://%s {\n tls %s\n %s\n max_connect_attempts 2\n max_fails 0\n}",
                  tls_upstream_addr(up), authority.ca_file,
                  bad->by_address ? "" : "tls_servername " SERVER_NAME);
    const struct outcome *outcome = host_ask(host, "wrong.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_RCODE);
    ck_assert_uint_eq(outcome->rcode, SERVFAIL);
    ck_assert_int_eq(outcome->error, FWD_ERR_TLS_VERIFY);
    check_detail(outcome, "handshake tls ");
    check_detail(outcome, tls_upstream_addr(up));
    check_detail(outcome, bad->by_address ? "'127.0.0.1'" : "'" SERVER_NAME "'");
    check_detail(outcome, bad->reason);
    ck_assert_uint_eq(tls_upstream_counts(up).queries, 0);
    host_close(host);
    certificate_free(&shown);
    certificate_free(&stranger);
}
END_TEST

/* Without `tls` the system's authorities are believed, and ours is not one of them. */
START_TEST(system_authorities)
{
    fixture_upstream(KIND_DOT, NULL);
    struct host *host = host_open(_i,
                                  "forward . tls://%s {\n tls_servername " SERVER_NAME
                                  "\n max_connect_attempts 1\n max_fails 0\n}",
                                  tls_upstream_addr(up));
    ck_assert_int_eq(host_ask(host, "system.test")->error, FWD_ERR_TLS_VERIFY);
    host_close(host);
}
END_TEST

/* A file of authorities may hold one that somebody else signed, or the server's own certificate: it
 * is trusted all the same, as Go does. */
START_TEST(intermediate_authority)
{
    struct certificate middle = certificate_make(
        &(struct certificate_form){.common_name = "middle CA", .authority = true}, &authority.ca);
    struct certificate shown = certificate_make(
        &(struct certificate_form){.common_name = "server", .alt_names = "DNS:" SERVER_NAME},
        &middle);
    certificate_write(&middle, authority_path(&authority, "middle.pem"), NULL);
    fixture_upstream(KIND_DOT, &(struct tls_setup){.certificate = &shown});
    struct host *host =
        host_open(_i, "forward . tls://%s {\n tls %s\n tls_servername " SERVER_NAME "\n}",
                  tls_upstream_addr(up), authority_path(&authority, "middle.pem"));
    ask_good(host, "middle.test");
    host_close(host);
    certificate_free(&shown);
    certificate_free(&middle);
}
END_TEST

/* --- client certificates -------------------------------------------------------------------------- */

static void write_client(const char *common_name)
{
    struct certificate client =
        certificate_make(&(struct certificate_form){.common_name = common_name}, &authority.ca);
    certificate_write(&client, authority_path(&authority, "client.pem"),
                      authority_path(&authority, "client.key"));
    certificate_free(&client);
}

static const int tls_versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

START_TEST(client_certificate)
{
    write_client("we");
    fixture_upstream(KIND_DOT, &(struct tls_setup){.client_ca = &authority.ca,
                                                .max_version = tls_versions[_i / MODE_COUNT]});
    struct host *host = host_open(
        _i % MODE_COUNT, "forward . tls://%s {\n tls %s %s %s\n tls_servername " SERVER_NAME "\n}",
        tls_upstream_addr(up), authority_path(&authority, "client.pem"),
        authority_path(&authority, "client.key"), authority.ca_file);
    ask_good(host, "client.test");
    ck_assert_str_eq(tls_upstream_seen(up, 0).client, "we");
    host_close(host);
}
END_TEST

/* Wanted by the server and not there: an error that says so; TLS 1.3 servers say it only after the
 * handshake. */
START_TEST(client_certificate_missing)
{
    fixture_upstream(KIND_DOT, &(struct tls_setup){.client_ca = &authority.ca,
                                                .max_version = tls_versions[_i / MODE_COUNT]});
    struct host *host = fixture_open(_i % MODE_COUNT, "max_connect_attempts 1\n max_fails 0");
    const struct outcome *outcome = host_ask(host, "noclient.test");
    ck_assert_uint_eq(outcome->kind, FWD_KIND_RCODE);
    ck_assert_int_eq(outcome->error, FWD_ERR_TLS_HANDSHAKE);
    check_detail(outcome, _i / MODE_COUNT == 0 ? "handshake failure" : "certificate required");
    ck_assert_uint_eq(tls_upstream_counts(up).queries, 0);
    host_close(host);
}
END_TEST

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

/* --- files that change ---------------------------------------------------------------------------- */

/* A new authority's certificate in the file is believed without a restart, and what the old one
 * vouched for no longer, sessions included. */
START_TEST(new_authority_file)
{
    struct certificate new_ca = certificate_make(
        &(struct certificate_form){.common_name = "new CA", .authority = true}, NULL);
    struct certificate shown = certificate_make(
        &(struct certificate_form){.common_name = "server", .alt_names = "DNS:" SERVER_NAME},
        &new_ca);
    fixture_upstream(KIND_DOT, NULL);
    struct host *host = fixture_open(_i, "expire 0s\n max_fails 0\n max_connect_attempts 1");
    ask_good(host, "old.test");
    certificate_write(&new_ca, authority.ca_file, NULL);
    work_until(host, host_ask(host, "until.test")->error == FWD_ERR_TLS_VERIFY);
    tls_upstream_show(up, &shown);
    work_until(host, host_ask(host, "new.test")->error == FWD_OK);
    host_close(host);
    certificate_free(&new_ca);
    certificate_free(&shown);
}
END_TEST

/* A new client certificate is shown; a file that is broken for a while changes nothing. */
START_TEST(new_client_certificate)
{
    write_client("first");
    fixture_upstream(KIND_DOT, &(struct tls_setup){.client_ca = &authority.ca});
    struct host *host = host_open(
        _i, "forward . tls://%s {\n tls %s %s %s\n tls_servername " SERVER_NAME "\n expire 0s\n}",
        tls_upstream_addr(up), authority_path(&authority, "client.pem"),
        authority_path(&authority, "client.key"), authority.ca_file);
    ask_good(host, "first.test");
    FILE *broken = fopen(authority_path(&authority, "client.pem"), "w");
    ck_assert_int_eq(fclose(broken), 0);
    host_work(host, 1100); /* files are looked at once a second */
    ask_good(host, "broken.test");
    ck_assert_str_eq(tls_upstream_seen(up, 1).client, "first");
    write_client("second");
    unsigned last = 1;
    for (unsigned i = 0; i < 400 && strcmp(tls_upstream_seen(up, last).client, "second") != 0;
         i++) {
        ask_good(host, "second.test");
        last++;
        host_work(host, 10);
    }
    ck_assert_str_eq(tls_upstream_seen(up, last).client, "second");
    host_close(host);
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

/* A server whose certificate is wrong is down, until it is right. */
START_TEST(probes_verify)
{
    struct certificate wrong = certificate_make(
        &(struct certificate_form){.common_name = "server", .alt_names = "DNS:two.test"},
        &authority.ca);
    fixture_upstream(KIND_DOT, &(struct tls_setup){.certificate = &wrong});
    struct host *host = fixture_open(_i, "health_check 20ms\n max_fails 1\n max_connect_attempts 1");
    ck_assert_int_eq(host_ask(host, "down.test")->error, FWD_ERR_TLS_VERIFY);
    struct fwd_proxy *proxy = host->proxies->at(host->instance, 0);
    work_until(host, host->proxies->fails(proxy) > 1);
    tls_upstream_show(up, &authority.server);
    work_until(host, host->proxies->fails(proxy) == 0);
    ask_good(host, "up.test");
    host_close(host);
    certificate_free(&wrong);
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
    add_test(tcase, right_name_cases_28_64_81);
    add_test(tcase, names_and_addresses_case_28);
    tcase_add_loop_test(tcase, ipv6_case_28, 0, 2 * MODE_COUNT);
    add_test(tcase, name_with_a_dot);
    tcase_add_loop_test(tcase, wrong_certificates, 0, BAD_SERVERS * MODE_COUNT);
    add_test(tcase, system_authorities);
    add_test(tcase, intermediate_authority);
    tcase_add_loop_test(tcase, client_certificate, 0, 2 * MODE_COUNT);
    tcase_add_loop_test(tcase, client_certificate_missing, 0, 2 * MODE_COUNT);
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
    add_test(tcase, we_say_goodbye);
    tcase_add_loop_test(tcase, closed_again_and_again, 0, 2 * MODE_COUNT);
    tcase_add_loop_test(tcase, sessions_are_resumed, 0, 2 * MODE_COUNT);
    add_test(tcase, tickets_in_a_burst);
    add_test(tcase, sessions_per_name_case_26);
    add_test(tcase, new_authority_file);
    add_test(tcase, new_client_certificate);
    add_test(tcase, probes_cases_83_84);
    add_test(tcase, probes_verify);
    add_test(tcase, few_handshakes_at_once);
    add_test(tcase, stalled_handshakes_do_not_hold_waiters);
    add_test(tcase, stalled_handshake_among_good_ones);
    add_test(tcase, handshake_outlives_its_query);
    add_test(tcase, waiters_of_a_wrong_certificate);
    add_test(tcase, idle_limit_case_67);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
