/* Corner cases 14 to 40: the forward stanza. Expectations were taken from CoreDNS 1.14.7, but where
 * a row says "ours": those differences have a reason, which COMPATIBILITY.md gives. */
#include "cases.h"
#include "net/certificate.h"
#include "suite.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))
#define FAIL "plugin/forward: "
#define HERE(line, text) FAIL "@/Corefile:" #line " - Error during parsing: " text
#define ONE "forward . 127.0.0.1 {\n" /* a stanza whose first option stands on line 3 */
#define END "\n}"
#define ARGUMENT(line, word)                                                                       \
    HERE(line, "Wrong argument count or unexpected line ending after '" word "'")
#define NOT_HOST(name) FAIL "failed to resolve \"" name "\": lookup " name ": no such host"

static const struct {
    const char *number;
    const char *text;
    const char *member; /* NULL: FROM and upstreams */
    const char *expected;
} rows[] = {
    {"case 14", "forward Example.ORG 127.0.0.1", NULL, "example.org. 127.0.0.1:53"},
    {"case 14", "forward example.org:54 127.0.0.1", NULL, "example.org. 127.0.0.1:53"},
    {"case 14", "forward a:-1 127.0.0.1", NULL, "a. 127.0.0.1:53"},
    {"case 14", "forward a:+1 127.0.0.1", NULL, "a. 127.0.0.1:53"},
    {"case 14", "forward 10.9.3.0/18 127.0.0.1", NULL, "0.9.10.in-addr.arpa. 127.0.0.1:53"},
    {"case 14", "forward 2001:db8::/31 127.0.0.1", NULL, "8.b.d.0.1.0.0.2.ip6.arpa. 127.0.0.1:53"},
    {"case 14", "forward 10.1.2.3/33 127.0.0.1", NULL, "10.1.2.3/33. 127.0.0.1:53"},
    {"case 14", ONE "except A.org b..c 10.0.0.0/15" END, "except",
     "[\"a.org.\",\"0.10.in-addr.arpa.\",\"1.10.in-addr.arpa.\"]"},
    {"case 14", ONE "except a\nexcept b" END, "except", "[\"a.\",\"b.\"]"},
    {"case 14", ONE "except" END, NULL, ARGUMENT(3, "except")},
    {"case 15", "forward a..b 127.0.0.1", NULL, FAIL "unable to normalize 'a..b'"},
    {"case 15", "forward a: 127.0.0.1", NULL, FAIL "unable to normalize 'a:'"},
    {"case 15", "forward ::/8 127.0.0.1", NULL, FAIL "unable to normalize '::/8'"},
    {"case 15", "forward", NULL, ARGUMENT(2, "forward")},
    {"case 15", "forward .", NULL, ARGUMENT(2, ".")},
    {"case 15", "forward {\n}", NULL, HERE(2, "Unexpected token '{', expecting argument")},
    {"case 16", "forward a..b", NULL, FAIL "unable to normalize 'a..b'"},
    {"case 16", "forward . {\nfoo\n}", NULL, ARGUMENT(2, ".")},
    {"case 16", "forward . nowhere/x https://1.1.1.1/x {\nfoo\n}", NULL,
     HERE(3, "unknown property 'foo'")},
    {"case 16", "forward . https://1.1.1.1/x {\nmax_age 1s\n}", NULL,
     FAIL "max_age (1s) must not be less than expire (10s)"},
    {"case 16", "forward . \"\" https://1.1.1.1/x", NULL,
     FAIL "paths are not allowed in HTTPS upstream addresses (the /dns-query path is used by "
          "default): https://1.1.1.1/x"},
    {"case 16", "forward . 127.1 quic://a.b", NULL,
     FAIL "not an IP address, file, or valid domain: \"quic://a.b\""},
    {"case 16", "forward . 127.1 quic://1.1.1.1", NULL, NOT_HOST("127.1")},
    {"case 16", "forward . quic://1.1.1.1\nforward . a..b", NULL,
     FAIL "'quic' is not supported as a destination protocol in forward: quic://1.1.1.1:853"},
    {"case 17", "forward . 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", NULL, NOT_HOST("1")},
    {"case 17", "forward . ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1", NULL,
     ". [::1]:53"},
    {"case 17", "forward . ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1", NULL,
     FAIL "more than 15 TOs configured: 16"},
    {"case 17",
     "forward . ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 @/empty.conf", NULL,
     ". [::1]:53"},
    {"case 17", "forward . @/many.conf", NULL,
     ". 10.0.0.1:53 10.0.0.2:53 10.0.0.3:53 10.0.0.4:53 10.0.0.5:53 10.0.0.6:53 10.0.0.7:53 "
     "10.0.0.8:53 10.0.0.9:53 10.0.0.10:53 10.0.0.11:53 10.0.0.12:53 10.0.0.13:53 10.0.0.14:53 "
     "10.0.0.15:53 10.0.0.16:53"},
    {"case 18", "forward . @/empty.conf 127.0.0.1 @/r.conf", NULL,
     ". 127.0.0.1:53 10.0.0.1:53 [::1]:53"},
    {"case 18", "forward . tls://@/r.conf quic://@/r.conf", NULL, ". 10.0.0.1:53 [::1]:53"},
    {"case 18", "forward . @ 127.0.0.1", NULL, ". 127.0.0.1:53"},
    {"case 18", "forward . 127.1", NULL, NOT_HOST("127.1")},
    {"case 18", "forward . 1.2.3", NULL, NOT_HOST("1.2.3")},
    {"case 18", "forward . /no/file", NULL, NOT_HOST("/no/file")},
    {"case 18", "forward . -a.org", NULL, NOT_HOST("-a.org")},
    {"case 18", "forward . a..b", NULL, FAIL "not an IP address, file, or valid domain: \"a..b\""},
    {"case 18", "forward . \"\"", NULL, FAIL "invalid address: \"\""},
    {"case 18", "forward . tls://", NULL, FAIL "invalid address: \"tls://\""},
    {"case 19", "forward . @/empty.conf", NULL, FAIL "no valid upstream addresses found"},
    {"case 20", "forward . 127.0.0.1 ::1 127.0.0.1:53 dns://127.0.0.1 tls://127.0.0.1:53", NULL,
     ". 127.0.0.1:53 [::1]:53"},
    {"case 20", "forward . ::1 0::1", NULL, ". [::1]:53 [0::1]:53"},
    {"case 20", "forward . 1.1.1.1 quic://1.1.1.1:53", NULL, ". 1.1.1.1:53"},
    {"case 20", "forward . tls://1.1.1.1%a tls://1.1.1.1%b", NULL, ". tls://1.1.1.1:853(a)"},
    {"case 21", "forward . 1.1.1.1 tls://1.1.1.1 https://1.1.1.1", NULL,
     ". 1.1.1.1:53 tls://1.1.1.1:853 https://1.1.1.1:443"},
    {"case 21", "forward . tls://[::1] tls://::2 [::3]:54", NULL,
     ". tls://[::1]:853 tls://[::2]:853 [::3]:54"},
    {"case 21", "forward . [::1 ]::2[ ::1:53 [127.0.0.1]:53", NULL,
     ". [::1]:53 [::2]:53 [::1:53]:53 [127.0.0.1]:53"},
    {"case 21", "forward . 127.0.0.1:99999 127.0.0.1:x 127.0.0.1:", NULL,
     ". 127.0.0.1:99999 127.0.0.1:x 127.0.0.1:"},
    {"case 22", "forward . grpc://1.1.1.1", NULL,
     FAIL "'grpc' is not supported as a destination protocol in forward: grpc://1.1.1.1:443"},
    {"case 22", "forward . unix:///x", NULL,
     FAIL "'unix' is not supported as a destination protocol in forward: unix:///x"},
    {"case 22 ours", "forward . https3://1.1.1.1", NULL,
     FAIL "'https3' is not supported as a destination protocol in forward: https3://1.1.1.1:443"},
    /* no schemes, but the host names http and DNS with odd ports, to be looked up */
    {"case 22", "forward . http://1.1.1.1", NULL, ". http://1.1.1.1"},
    {"case 22", "forward . DNS://1.1.1.1", NULL, ". DNS://1.1.1.1"},
    {"case 23", "forward . https://1.1.1.1/dns-query", NULL,
     FAIL "paths are not allowed in HTTPS upstream addresses (the /dns-query path is used by "
          "default): https://1.1.1.1/dns-query"},
    {"case 24", "forward . @/odd.conf", NULL,
     ". [1.1.1.1:5353]:53 1.1.1.1#c:53 [2001:db8::1]:53 name:53"},
    {"case 24 ours", "forward . @/scope.conf", NULL, ". [fe80::1%1]:53"},
    {"case 24", "forward . @/long.conf", NULL, ". 10.0.0.1:53"},
    {"case 25", "forward . tls://9.9.9.9%a.org tls://9.9.9.9%a.org:54 tls://[::1%b]:853", NULL,
     ". tls://9.9.9.9:853(a.org) tls://9.9.9.9:54(a.org) tls://[::1]:853(b)"},
    {"case 25", "forward . tls://9.9.9.9%a {\ntls_servername b\n}", NULL,
     FAIL "both forward ('b') and proxy level ('a') TLS servernames are set for upstream proxy "
          "'tls://9.9.9.9:853'"},
    {"case 25", "forward . 9.9.9.9%a https://9.9.9.10%a {\ntls_servername b\n}", NULL,
     ". 9.9.9.9:53 https://9.9.9.10:443"},
    {"case 25", "forward . tls://9.9.9.9%a {\ntls_servername \"\"\n}", NULL,
     ". tls://9.9.9.9:853(a)"},
    {"case 25", "forward . tls://::1%a.org:853", NULL, ". tls://[::1]:853(a.org:853)"},
    {"case 25", "forward . [::1]%a", NULL,
     FAIL "not an IP address, file, or valid domain: \"[::1]%a\""},
    {"case 25 ours", "forward . fe80::1%1 [fe80::2%1]:54 tls://fe80::3%a", NULL,
     ". [fe80::1%1]:53 [fe80::2%1]:54 tls://[fe80::3]:853(a)"},
    {"case 25 ours", "forward . ::1%lo%x", NULL, NOT_HOST("::1%lo")},
    {"case 25 ours", "forward . fe80::1%nonesuch", NULL,
     FAIL "'[fe80::1%nonesuch]:53' names no network interface of this machine"},
    {"case 27", ONE "tls" END, "tls", "[]"},
    {"case 27", ONE "tls ec.pem" END, "tls", "[\"@/ec.pem\"]"},
    {"case 27", ONE "tls @/ec.pem ec.key" END, "tls", "[\"@/ec.pem\",\"@/ec.key\"]"},
    {"case 27", ONE "tls ec.pem ec.key ec.pem" END, "tls",
     "[\"@/ec.pem\",\"@/ec.key\",\"@/ec.pem\"]"},
    {"case 27", ONE "tls ec.pem\ntls" END, "tls", "[]"},
    {"case 27", ONE "tls a b c d" END, NULL, ARGUMENT(3, "d")},
    {"case 27", ONE "tls none" END, NULL,
     FAIL "error reading @/none: open @/none: no such file or directory"},
    {"case 27", ONE "tls none ec.key" END, NULL,
     FAIL "could not load TLS cert: open @/none: no such file or directory"},
    {"case 27", ONE "tls empty.conf ec.key" END, NULL,
     FAIL "could not load TLS cert: tls: failed to find any PEM data in certificate input"},
    {"case 27", ONE "tls ec.pem empty.conf" END, NULL,
     FAIL "could not load TLS cert: tls: failed to find any PEM data in key input"},
    {"case 27", ONE "tls ec.key ec.pem" END, NULL,
     FAIL "could not load TLS cert: tls: failed to find certificate PEM data in certificate input, "
          "but did find a private key; PEM inputs may have been switched"},
    {"case 27", ONE "tls ec.pem ec.pem" END, NULL,
     FAIL "could not load TLS cert: tls: found a certificate rather than a key in the PEM for the "
          "private key"},
    {"case 27", ONE "tls other.pem ec.key" END, NULL,
     FAIL "could not load TLS cert: tls: failed to find \"CERTIFICATE\" PEM block in certificate "
          "input after skipping PEM blocks of the following types: [X509 CRL DH PARAMETERS]"},
    {"case 27", ONE "tls ec.pem other.pem" END, NULL,
     FAIL "could not load TLS cert: tls: failed to find PEM block with type ending in \"PRIVATE "
          "KEY\" in key input after skipping PEM blocks of the following types: [X509 CRL DH "
          "PARAMETERS]"},
    {"case 27", ONE "tls ec.key none" END, NULL,
     FAIL "could not load TLS cert: open @/none: no such file or directory"},
    {"case 27", ONE "tls @/" END, NULL, FAIL "error reading @/: read @: is a directory"},
    {"case 27", ONE "tls garbage.pem ec.key" END, NULL,
     FAIL "could not load TLS cert: x509: malformed certificate"},
    {"case 27", ONE "tls base64.pem ec.key" END, NULL,
     FAIL "could not load TLS cert: tls: failed to find any PEM data in certificate input"},
    {"case 27", ONE "tls ec.pem garbage.key" END, NULL,
     FAIL "could not load TLS cert: tls: failed to parse private key"},
    {"case 27", ONE "tls ec.pem stranger.key" END, NULL,
     FAIL "could not load TLS cert: tls: private key does not match public key"},
    {"case 27", ONE "tls ec.pem rsa.key" END, NULL,
     FAIL "could not load TLS cert: tls: private key type does not match public key type"},
    {"case 27", ONE "tls ec.pem x25519.key" END, NULL,
     FAIL "could not load TLS cert: tls: found unknown private key type in PKCS#8 wrapping"},
    {"case 27", ONE "tls ed448.pem ec.key" END, NULL,
     FAIL "could not load TLS cert: tls: unknown public key algorithm"},
    {"case 27", ONE "tls ed448.pem ed448.key" END, NULL,
     FAIL "could not load TLS cert: tls: failed to parse private key"},
    {"case 27", ONE "tls rsa.pem rsa.key" END, "tls", "[\"@/rsa.pem\",\"@/rsa.key\"]"},
    {"case 27", ONE "tls ed25519.pem ed25519.key" END, "tls",
     "[\"@/ed25519.pem\",\"@/ed25519.key\"]"},
    {"case 27 ours", ONE "tls garbage.pem" END, NULL,
     FAIL "could not read root certs: no certificate in @/garbage.pem"},
    {"case 27 ours", ONE "tls empty.conf" END, NULL,
     FAIL "could not read root certs: no certificate in @/empty.conf"},
    {"case 27", ONE "tls_servername" END, NULL, ARGUMENT(3, "tls_servername")},
    {"case 27", ONE "tls_servername a.org" END, "tls_servername", "\"a.org\""},
    {"case 29", ONE "expire 0s" END, "expire", "\"0s\""},
    {"case 29", ONE "expire 1m30s" END, "expire", "\"1m30s\""},
    {"case 29", ONE "expire -1s" END, NULL, FAIL "expire can't be negative: -1s"},
    {"case 29", ONE "expire 10" END, NULL, FAIL "time: missing unit in duration \"10\""},
    {"case 29", ONE "expire" END, NULL, ARGUMENT(3, "expire")},
    {"case 29", ONE "max_age 5s" END, NULL, FAIL "max_age (5s) must not be less than expire (10s)"},
    {"case 29", ONE "max_age 5s\nexpire 5s" END, "max_age", "\"5s\""},
    {"case 29", ONE "max_age -1s" END, NULL, FAIL "max_age can't be negative: -1s"},
    {"case 30", ONE "max_idle_conns +5" END, "max_idle_conns", "5"},
    {"case 30", ONE "max_idle_conns -5" END, NULL, FAIL "max_idle_conns can't be negative: -5"},
    {"case 31", ONE "max_fails -4" END, NULL,
     FAIL "strconv.ParseUint: parsing \"-4\": invalid syntax"},
    {"case 31", ONE "max_fails 4294967296" END, NULL,
     FAIL "strconv.ParseUint: parsing \"4294967296\": value out of range"},
    {"case 31", ONE "max_fails 1 2" END, NULL, HERE(3, "unknown property '2'")},
    {"case 31", ONE "max_connect_attempts 0" END, "max_connect_attempts", "0"},
    {"case 31", ONE END, "max_connect_attempts", "null"},
    {"case 31", ONE "max_connect_attempts +1" END, NULL,
     FAIL "strconv.ParseUint: parsing \"+1\": invalid syntax"},
    {"case 32", ONE "max_concurrent 1000" END, "max_concurrent", "1000"},
    {"case 32", ONE "max_concurrent -1" END, NULL, FAIL "max_concurrent can't be negative: -1"},
    {"case 32", ONE "max_concurrent many" END, NULL,
     FAIL "strconv.Atoi: parsing \"many\": invalid syntax"},
    {"case 33", ONE "read_timeout 0s" END, NULL, FAIL "read_timeout must be positive: 0s"},
    {"case 33", ONE "read_timeout 1500ms" END, "read_timeout", "\"1.5s\""},
    {"case 33", ONE "health_check 0s" END, "health_check",
     "{\"interval\":\"0s\",\"no_rec\":false,\"domain\":\".\"}"},
    {"case 33", ONE "health_check 1s domain A.org no_rec" END, "health_check",
     "{\"interval\":\"1s\",\"no_rec\":true,\"domain\":\"a.org.\"}"},
    {"case 33", ONE "health_check 1s rec" END, NULL, FAIL "health_check: unknown option rec"},
    {"case 33", ONE "health_check 1s domain a..b" END, NULL,
     FAIL "health_check: invalid domain name a..b"},
    {"case 33", ONE "health_check 1s domain" END, NULL, ARGUMENT(3, "domain")},
    {"case 33", ONE "health_check -1s" END, NULL,
     FAIL "health_check can't be negative: -1000000000"},
    {"case 34", ONE "health_check 1s no_rec domain a\nhealth_check 2s" END, "health_check",
     "{\"interval\":\"2s\",\"no_rec\":true,\"domain\":\".\"}"},
    {"case 35", ONE END, "policy", "\"random\""},
    {"case 35", ONE "policy round_robin" END, "policy", "\"round_robin\""},
    {"case 35", ONE "policy x" END, NULL, HERE(3, "unknown policy 'x'")},
    {"case 35", ONE "next nxdomain SERVFAIL\nnext notimpl" END, "next",
     "[\"NXDOMAIN\",\"SERVFAIL\",\"NOTIMP\"]"},
    {"case 35", ONE "next BADVERS" END, NULL, FAIL "BADVERS is not a valid rcode"},
    {"case 35", ONE "failover BADSIG" END, "failover", "[\"BADSIG\"]"},
    {"case 35", ONE "failover noerror" END, NULL, FAIL "NoError cannot be used in failover"},
    {"case 35", ONE "failover" END, NULL, ARGUMENT(3, "failover")},
    {"case 36", ONE "force_tcp" END, "force_tcp", "true"},
    {"case 36", ONE "prefer_udp" END, "prefer_udp", "true"},
    {"case 36", ONE "next_on_nodata" END, "next_on_nodata", "true"},
    {"case 36", ONE "failfast_all_unhealthy_upstreams" END, "failfast_all_unhealthy_upstreams",
     "true"},
    {"case 36", ONE "force_tcp x" END, NULL, ARGUMENT(3, "x")},
    {"case 36", ONE "failfast_all_unhealthy_upstreams x y" END, NULL, ARGUMENT(3, "y")},
    {"case 36", ONE "force_tcp {\n}" END, NULL,
     HERE(3, "Unexpected token '{', expecting argument")},
    {"case 37", ONE "resolver 1.1.1.1 [::1]:53 ::1" END, "resolver",
     "[\"1.1.1.1\",\"[::1]:53\",\"::1\"]"},
    {"case 37", ONE "resolver [::1]" END, NULL,
     FAIL "resolver must be an IP address or IP:port: \"[::1]\""},
    {"case 37", "forward . 127.1 {\nresolver 1.1.1.1\n}", NULL, ". 127.1:53"},
    {"case 37", "forward . dns.test tls://dns.test%n:54 https://dns.test", NULL,
     ". dns.test:53 tls://dns.test:54(n) https://dns.test:443"},
    {"case 38", ONE "source_address 192.0.2.1" END, "source_address", "\"192.0.2.1\""},
    {"case 38", ONE "source_address ::ffff:192.0.2.1" END, "source_address", "\"192.0.2.1\""},
    {"case 38", ONE "source_address 2001:DB8::1" END, "source_address", "\"2001:db8::1\""},
    {"case 38", ONE "source_address x" END, NULL, HERE(3, "invalid IP address: x")},
    {"case 39", ONE "expier 5s" END, NULL, HERE(3, "unknown property 'expier'")},
    {"case 40", "forward a 127.0.0.1\nforward b 127.0.0.2 {\nexcept c\n}\nforward c 127.0.0.3",
     NULL, "a. 127.0.0.1:53; b. 127.0.0.2:53; c. 127.0.0.3:53"},
    {"case 7", ONE "} . org 8.8.8.8", NULL, ". 127.0.0.1:53; org. 8.8.8.8:53"},
    {"case 7", "forward . 127.0.0.1 {\n{ except a.org b.org }\n}", NULL,
     HERE(3, "unknown property '{'")},
    {"case 10", "{$FORWARD} .", NULL, ARGUMENT(2, ".")},
    {"case 10", "{$FORWARD}", NULL, ARGUMENT(2, "{$FORWARD}")},
    {"ours", ONE "port_budget 0" END, "port_budget", "0"},
    {"ours", ONE "port_budget x" END, NULL,
     FAIL "strconv.ParseUint: parsing \"x\": invalid syntax"},
    {"ours", ONE "port_budget" END, NULL, ARGUMENT(3, "port_budget")},
    {"ours", ONE "retransmit 300ms" END, "retransmit", "\"300ms\""},
    {"ours", ONE "retransmit -1s" END, NULL, FAIL "retransmit can't be negative: -1s"},
    {"ours", ONE "retransmit" END, NULL, ARGUMENT(3, "retransmit")},
};

/* NAME.key and, unless it is for a key that signs nothing, NAME.pem; takes the key. */
static void pair_file(const char *name, EVP_PKEY *key, bool certified)
{
    struct certificate issuer = certificate_make(&(struct certificate_form){.common_name = "CA"}, NULL);
    struct certificate_form form = {.common_name = "case 27", .key = key};
    char files[2][64];

    ck_assert_ptr_nonnull(key);
    (void)snprintf(files[0], sizeof(files[0]), "@/%s.pem", name);
    (void)snprintf(files[1], sizeof(files[1]), "@/%s.key", name);
    struct certificate pair = certified ? certificate_make(&form, &issuer)
                                        : (struct certificate){.key = key};
    char *cert_path = cases_text(files[0]);
    char *key_path = cases_text(files[1]);
    certificate_write(&pair, certified ? cert_path : NULL, key_path);
    certificate_free(&pair);
    certificate_free(&issuer);
    free(cert_path);
    free(key_path);
}

static void files_make(void)
{
    static char text[70000];

    cases_open();
    cases_file("empty.conf", "# nothing\nsearch a b\n");
    cases_file("r.conf", "search a\nnameserver 10.0.0.1 # x\n nameserver\t::1\r\noptions ndots:5\n"
                         "nameserver\n");
    cases_file("odd.conf", "nameserver 1.1.1.1:5353\nnameserver 1.1.1.1#c\n"
                           "nameserver 2001:db8::1%eth0\nnameserver name\n");
    cases_file("scope.conf", "nameserver fe80::1%1\n");
    cases_file("other.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
                            "-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n");
    cases_file("garbage.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    cases_file("garbage.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    cases_file("base64.pem", "-----BEGIN CERTIFICATE-----\nMII!\n-----END CERTIFICATE-----\n");
    pair_file("ec", EVP_EC_gen("P-256"), true);
    pair_file("stranger", EVP_EC_gen("P-256"), true);
    pair_file("rsa", EVP_RSA_gen(2048), true);
    pair_file("ed25519", EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), true);
    pair_file("ed448", EVP_PKEY_Q_keygen(NULL, NULL, "ED448"), true);
    pair_file("x25519", EVP_PKEY_Q_keygen(NULL, NULL, "X25519"), false);
    text[0] = '\0';
    for (int i = 1; i <= 16; i++) {
        (void)sprintf(text + strlen(text), "nameserver 10.0.0.%d\n", i);
    }
    cases_file("many.conf", text);
    (void)sprintf(text, "nameserver 10.0.0.1\n#%065535d\nnameserver 10.0.0.2\n", 0);
    cases_file("long.conf", text);
    ck_assert_int_eq(setenv("FORWARD", "forward", 1), 0);
}

START_TEST(stanza_case)
{
    char *got = cases_stanza(rows[_i].text, rows[_i].member);
    char *expected = cases_text(rows[_i].expected);

    ck_assert_msg(strcmp(got, expected) == 0, "%s: %s\n got      %s\n expected %s", rows[_i].number,
                  rows[_i].text, got, expected);
    free(got);
    free(expected);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stanza cases");
    TCase *tcase = tcase_create("stanza");

    tcase_add_unchecked_fixture(tcase, files_make, cases_close);
    tcase_add_loop_test(tcase, stanza_case, 0, COUNT(rows));
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
