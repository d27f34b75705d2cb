/* DNS over TLS: who is believed, who we are, and files that change.
 *
 * Happy path: an authority made for the test, an upstream with its certificate, `tls CA` and a
 * server name, a query, the good answer. Standards: RFC 7858, RFC 8310 (strict profile).
 */
#include "fixture.h"
#include "message.h"
#include "suite.h"

#include <stdio.h>
#include <string.h>

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

int main(void)
{
    Suite *suite = suite_create("identity");
    TCase *tcase = tcase_create("identity");
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
    add_test(tcase, new_authority_file);
    add_test(tcase, new_client_certificate);
    add_test(tcase, probes_verify);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
