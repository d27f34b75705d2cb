/* JSON configuration: what is accepted, what is refused and where, and that the way back is a fixed
 * point. */
#include "config.h"
#include "error.h"
#include "options.h"
#include "suite.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))
#define TO "\"to\":[{\"addr\":\"127.0.0.1:53\"}]"
#define STANZA(members) "{\"forward\":[{" TO members "}]}"

static char message[256];
static char pointer[256];

static int parse(const char *json, struct config **ret)
{
    struct fwd_error error = FWD_INIT(struct fwd_error);

    error.msg = message;
    error.msg_cap = sizeof(message);
    error.pointer = pointer;
    error.pointer_cap = sizeof(pointer);
    message[0] = '\0';
    pointer[0] = '\0';
    return config_parse(json, strlen(json), ret, &error);
}

static const struct {
    const char *json;
    const char *message;
    const char *pointer;
} error_rows[] = {
    {"", "invalid JSON: '[' or '{' expected near end of file (line 1, column 0)", ""},
    {"[]", "expected an object", ""},
    {"{}", "no forward stanza", "/forward"},
    {"{\"forward\":[]}", "no forward stanza", "/forward"},
    {"{\"forward\":{}}", "expected an array", "/forward"},
    {"{\"forward\":[1]}", "expected an object", "/forward/0"},
    {"{\"forward\":[{}]}", "no valid upstream addresses found", "/forward/0/to"},
    {"{\"forward\":[{\"to\":[]}]}", "no valid upstream addresses found", "/forward/0/to"},
    {"{\"forward\":[{\"to\":[{}]}]}", "an upstream needs an addr", "/forward/0/to/0"},
    {"{\"forward\":[{\"to\":[{\"addr\":\"\"}]}]}", "an upstream needs an addr", "/forward/0/to/0"},
    {"{\"forward\":[{\"to\":[{\"addr\":1}]}]}", "expected a string", "/forward/0/to/0/addr"},
    {"{\"forward\":[{\"to\":[{\"addr\":\"1.1.1.1:53\",\"transport\":\"quic\"}]}]}",
     "unknown value 'quic'", "/forward/0/to/0/transport"},
    {"{\"forward\":[{\"to\":[{\"addr\":\"[fe80::1%nonesuch]:53\"}]}]}",
     "'[fe80::1%nonesuch]:53' names no network interface of this machine", "/forward/0/to/0/addr"},
    {"{\"io_threads\":-1}", "must be between 0 and 256, not -1", "/io_threads"},
    {"{\"io_threads\":257}", "must be between 0 and 256, not 257", "/io_threads"},
    {"{\"io_threads\":1.5}", "expected an integer", "/io_threads"},
    {"{\"a/b~c\":1}", "unknown option 'a/b~c'", "/a~1b~0c"},
    {STANZA(",\"expier\":\"5s\""), "unknown option 'expier'", "/forward/0/expier"},
    {STANZA(",\"expire\":5"), "expected a duration such as \"10s\"", "/forward/0/expire"},
    {STANZA(",\"expire\":\"5\""), "time: missing unit in duration \"5\"", "/forward/0/expire"},
    {STANZA(",\"expire\":\"-5s\""), "can't be negative: -5s", "/forward/0/expire"},
    {STANZA(",\"max_age\":\"5s\""), "max_age (5s) must not be less than expire (10s)",
     "/forward/0/max_age"},
    {STANZA(",\"read_timeout\":\"0s\""), "read_timeout must be positive: 0s",
     "/forward/0/read_timeout"},
    {STANZA(",\"padding\":4097"), "padding must not be more than 4096: 4097", "/forward/0/padding"},
    {STANZA(",\"edns_keepalive\":1"), "expected true or false", "/forward/0/edns_keepalive"},
    {STANZA(",\"from\":\"a..b\""), "'a..b' is not a domain name", "/forward/0/from"},
    {STANZA(",\"except\":[\"a\",1]"), "expected a string", "/forward/0/except/1"},
    {STANZA(",\"except\":\"a\""), "expected an array", "/forward/0/except"},
    {STANZA(",\"force_tcp\":1"), "expected true or false", "/forward/0/force_tcp"},
    {STANZA(",\"max_fails\":4294967296"), "must be between 0 and 4294967295, not 4294967296",
     "/forward/0/max_fails"},
    {STANZA(",\"policy\":\"Random\""), "unknown value 'Random'", "/forward/0/policy"},
    {STANZA(",\"next\":[\"BADVERS\"]"), "BADVERS is not a valid rcode", "/forward/0/next/0"},
    {STANZA(",\"failover\":[\"NOERROR\"]"), "NoError cannot be used in failover",
     "/forward/0/failover"},
    {STANZA(",\"tls\":[1]"), "expected a string", "/forward/0/tls/0"},
    {STANZA(",\"tls\":[\"a\",\"b\",\"c\",\"d\"]"),
     "expected null or an array of up to three file names", "/forward/0/tls"},
    {STANZA(",\"source_address\":\"x\""), "invalid IP address: x", "/forward/0/source_address"},
    {STANZA(",\"resolver\":[\"::1\",\"a\"]"), "resolver must be an IP address or IP:port: \"a\"",
     "/forward/0/resolver/1"},
    {STANZA(",\"health_check\":{\"domain\":\"..\"}"), "'..' is not a domain name",
     "/forward/0/health_check/domain"},
    {STANZA(",\"health_check\":{\"rec\":true}"), "unknown option 'rec'",
     "/forward/0/health_check/rec"},
    {"{\"forward\":[{" TO "},{\"to\":[{\"addr\":\"a:1\"}],\"policy\":1}]}", "expected a string",
     "/forward/1/policy"},
    {"{\"forward\":[{\"tls_servername\":\"a\",\"to\":[{\"addr\":\"1.1.1.1:853\","
     "\"transport\":\"tls\",\"tls_servername\":\"b\"}]}]}",
     "both forward ('a') and proxy level ('b') TLS servernames are set for upstream proxy "
     "'tls://1.1.1.1:853'",
     "/forward/0/tls_servername"},
    {"{\"forward\":[{\"tls_servername\":\"a\"," TO "},{\"tls_servername\":\"a\",\"to\":[{\"addr\":\"1.1.1.1:853\","
     "\"transport\":\"tls\",\"tls_servername\":\"b\"}]}]}",
     "both forward ('a') and proxy level ('b') TLS servernames are set for upstream proxy "
     "'tls://1.1.1.1:853'",
     "/forward/1/tls_servername"},
    {"{\"forward\":[{" TO ",\"policy\":\"random\"},{" TO ",\"policy\":\"random\",\"polcy\":1}]}",
     "unknown option 'polcy'", "/forward/1/polcy"},
};

START_TEST(error_case)
{
    struct config *config = NULL;

    ck_assert_int_eq(parse(error_rows[_i].json, &config), FWD_ERR_CONFIG);
    ck_assert_ptr_null(config);
    ck_assert_str_eq(message, error_rows[_i].message);
    ck_assert_str_eq(pointer, error_rows[_i].pointer);
}
END_TEST

START_TEST(defaults)
{
    struct config *config;
    const struct config_stanza *stanza;

    ck_assert_int_eq(parse(STANZA(""), &config), FWD_OK);
    ck_assert_uint_ge(config->io_threads, 1);
    ck_assert_uint_eq(config->stanza_count, 1);
    stanza = &config->stanzas[0];
    ck_assert_str_eq(stanza->from.text, ".");
    ck_assert_uint_eq(stanza->from.wire_len, 1);
    ck_assert_uint_eq(stanza->to_count, 1);
    ck_assert_str_eq(stanza->to[0].text, "127.0.0.1:53");
    ck_assert_uint_eq(stanza->to[0].addr.family, 4);
    ck_assert_uint_eq(stanza->to[0].addr.port, 53);
    ck_assert_uint_eq(stanza->to[0].proto, FWD_PROTO_UDP);
    ck_assert_uint_eq(stanza->options->expire_ns, UINT64_C(10000000000));
    ck_assert_uint_eq(stanza->options->read_timeout_ns, UINT64_C(2000000000));
    ck_assert_uint_eq(stanza->options->health_interval_ns, UINT64_C(500000000));
    ck_assert_uint_eq(stanza->options->max_fails, 2);
    ck_assert_uint_eq(stanza->options->port_budget, 1000);
    ck_assert_uint_eq(stanza->options->max_handshakes, 64);
    ck_assert(!stanza->options->has_max_connect_attempts);
    ck_assert(!stanza->options->has_tls);
    config_destroy(config);
}
END_TEST

static const char full[] =
    "{\"io_threads\":0,\"warnings\":[\"x\"],\"forward\":[{\"from\":\"Example.ORG\",\"to\":[{"
    "\"addr\":\"[fe80::1%1]:53\"},{\"addr\":\"9.9.9.9:853\",\"transport\":\"tls\","
    "\"tls_servername\":\"dns.quad9.net\"},{\"addr\":\"dns.test:443\",\"transport\":\"https\"}],"
    "\"except\":[\"A.example.org\"],\"force_tcp\":true,\"prefer_udp\":true,\"next_on_nodata\":true,"
    "\"failfast_all_unhealthy_upstreams\":true,\"expire\":\"90s\",\"max_age\":\"2m\","
    "\"read_timeout\":\"1.5s\",\"max_idle_conns\":9223372036854775807,\"max_fails\":0,"
    "\"max_concurrent\":7,\"max_connect_attempts\":0,\"health_check\":{\"interval\":\"1s\","
    "\"no_rec\":true,\"domain\":\"Up.test\"},\"policy\":\"sequential\",\"next\":[\"nxdomain\","
    "\"NOTIMPL\"],\"failover\":[\"BADCOOKIE\"],\"tls\":[\"cert\",\"key\",\"ca\"],"
    "\"tls_servername\":\"\",\"doh_method\":\"GET\",\"source_address\":\"::ffff:192.0.2.1\","
    "\"resolver\":[\"::1\",\"1.1.1.1:5353\"],\"port_budget\":0,\"retransmit\":\"300ms\"}]}";

START_TEST(every_option)
{
    struct config *config;
    const struct config_stanza *stanza;

    ck_assert_int_eq(parse(full, &config), FWD_OK);
    stanza = &config->stanzas[0];
    ck_assert_uint_eq(config->io_threads, 0);
    ck_assert_str_eq(stanza->from.text, "example.org.");
    ck_assert_mem_eq(stanza->from.wire, "\7example\3org", 13);
    ck_assert_uint_eq(stanza->to[0].addr.family, 6);
    ck_assert_uint_eq(stanza->to[0].addr.scope_id, 1);
    ck_assert_uint_eq(stanza->to[1].proto, FWD_PROTO_TLS);
    ck_assert_str_eq(stanza->to[1].tls_servername, "dns.quad9.net");
    ck_assert_uint_eq(stanza->to[2].proto, FWD_PROTO_HTTPS);
    ck_assert_uint_eq(stanza->to[2].addr.family, 0); /* a host name */
    ck_assert(stanza->options->has_max_connect_attempts && stanza->options->max_connect_attempts == 0);
    ck_assert_uint_eq(stanza->options->max_idle_conns, INT64_MAX);
    ck_assert_uint_eq(stanza->options->next.mask, 1u << 3 | 1u << 4);
    ck_assert_uint_eq(stanza->options->failover.list[0], 23);
    ck_assert_str_eq(stanza->options->tls_cert, "cert");
    ck_assert_str_eq(stanza->options->tls_key, "key");
    ck_assert_str_eq(stanza->options->tls_ca, "ca");
    ck_assert_uint_eq(stanza->options->source_address.family, 4);
    ck_assert(stanza->options->doh_get);
    ck_assert_uint_eq(stanza->options->retransmit_ns, 300000000);
    config_destroy(config);
}
END_TEST

/* Stanzas share what they have alike, and nothing else. */
START_TEST(shared_options)
{
    static const char json[] =
        "{\"forward\":[{\"from\":\"a\"," TO ",\"expire\":\"5s\",\"policy\":\"sequential\"},"
        "{\"policy\":\"sequential\",\"except\":[\"c.b\"],\"from\":\"b\"," TO ",\"expire\":\"5s\"},"
        "{\"from\":\"c\",\"to\":[{\"addr\":\"127.0.0.1:54\"}],\"expire\":\"5s\",\"policy\":\"sequential\"},"
        "{\"from\":\"d\"," TO ",\"expire\":\"5s\"},"
        "{\"from\":\"e\"," TO ",\"expire\":\"6s\",\"policy\":\"sequential\"}]}";
    struct config *config;
    const struct config_stanza *stanzas;

    ck_assert_int_eq(parse(json, &config), FWD_OK);
    stanzas = config->stanzas;
    ck_assert_ptr_eq(stanzas[1].options, stanzas[0].options);
    ck_assert_ptr_eq(stanzas[1].to, stanzas[0].to);
    ck_assert_uint_eq(stanzas[1].to_count, 1);
    ck_assert_str_eq(stanzas[1].from.text, "b.");
    ck_assert_uint_eq(stanzas[1].except_count, 1);
    ck_assert_uint_eq(stanzas[0].except_count, 0);
    ck_assert_ptr_eq(stanzas[2].options, stanzas[0].options);
    ck_assert_str_eq(stanzas[2].to[0].text, "127.0.0.1:54");
    ck_assert_uint_eq(stanzas[3].options->expire_ns, UINT64_C(5000000000));
    ck_assert_int_eq(stanzas[3].options->policy, POLICY_RANDOM);
    ck_assert_uint_eq(stanzas[4].options->expire_ns, UINT64_C(6000000000));
    ck_assert_int_eq(stanzas[4].options->policy, POLICY_SEQUENTIAL);
    config_destroy(config);
}
END_TEST

/* More kinds of stanzas than are remembered. */
START_TEST(many_options)
{
    char json[4096] = "{\"forward\":[";
    size_t at = strlen(json);
    struct config *config;

    for (unsigned i = 0; i < 40; i++) {
        at += (size_t)snprintf(json + at, sizeof(json) - at, "%s{\"to\":[{\"addr\":\"127.0.0.1:%u\"}],\"max_fails\":%u}",
                               i > 0 ? "," : "", 1 + i % 20, i % 20);
    }
    (void)snprintf(json + at, sizeof(json) - at, "]}");
    ck_assert_int_eq(parse(json, &config), FWD_OK);
    for (unsigned i = 0; i < 40; i++) {
        ck_assert_uint_eq(config->stanzas[i].options->max_fails, i % 20);
        ck_assert_uint_eq(config->stanzas[i].to[0].addr.port, 1 + i % 20);
    }
    config_destroy(config);
}
END_TEST

START_TEST(fixed_point)
{
    const char *const inputs[] = {full, STANZA(""), STANZA(",\"tls\":[]"),
                                  STANZA(",\"tls\":[\"ca\"]"), STANZA(",\"tls\":[\"c\",\"k\"]")};

    for (int i = 0; i < COUNT(inputs); i++) {
        struct config *config;
        json_t *once;
        json_t *twice;
        char *text;

        ck_assert_int_eq(parse(inputs[i], &config), FWD_OK);
        once = config_to_json(config);
        config_destroy(config);
        text = json_dumps(once, 0);
        ck_assert_int_eq(parse(text, &config), FWD_OK);
        twice = config_to_json(config);
        ck_assert(json_equal(once, twice));
        config_destroy(config);
        free(text);
        json_decref(once);
        json_decref(twice);
    }
}
END_TEST

/* The option table and what config_to_json emits name the same members, in the same order, with the
 * same defaults. */
START_TEST(options_both_ways)
{
    struct config *config;
    json_t *json;
    json_t *stanza;
    json_t *value;
    const char *name;
    size_t at = 0;

    ck_assert_int_eq(parse(STANZA(""), &config), FWD_OK);
    json = config_to_json(config);
    stanza = json_array_get(json_object_get(json, "forward"), 0);
    json_object_foreach(stanza, name, value)
    {
        json_t *def;

        ck_assert_uint_lt(at, option_defs_count);
        ck_assert_str_eq(option_defs[at].name, name);
        def = json_loads(option_defs[at].def, JSON_DECODE_ANY, NULL);
        ck_assert_ptr_nonnull(def);
        ck_assert(strcmp(name, "to") == 0 || json_equal(def, value));
        json_decref(def);
        at++;
    }
    ck_assert_uint_eq(at, option_defs_count);
    json_decref(json);
    config_destroy(config);
}
END_TEST

/* error.c: nothing is written past the caller's struct_size, and NULL buffers are served. */
START_TEST(small_errors)
{
    char text[8];
    struct fwd_error error = {.struct_size = offsetof(struct fwd_error, msg), .msg_cap = 8};

    error.msg = text;
    text[0] = 'x';
    ck_assert_int_eq(error_set(&error, FWD_ERR_ARG, NULL, "%s", "hidden"), FWD_ERR_ARG);
    ck_assert_int_eq(error.code, FWD_ERR_ARG);
    ck_assert_int_eq(text[0], 'x');
    error.struct_size = sizeof(error);
    ck_assert_int_eq(error_set(&error, FWD_ERR_ARG, NULL, "%s", "longer than 8"), FWD_ERR_ARG);
    ck_assert_str_eq(text, "longer ");
    ck_assert_int_eq(error_set(NULL, FWD_ERR_ARG, NULL, "x"), FWD_ERR_ARG);
    ck_assert_str_eq(error_text(FWD_ERR_CONFIG), "the configuration is invalid");
    ck_assert_str_eq(error_text(12345), "unknown error");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *tcase = tcase_create("config");

    tcase_add_loop_test(tcase, error_case, 0, COUNT(error_rows));
    tcase_add_test(tcase, defaults);
    tcase_add_test(tcase, every_option);
    tcase_add_test(tcase, shared_options);
    tcase_add_test(tcase, many_options);
    tcase_add_test(tcase, fixed_point);
    tcase_add_test(tcase, options_both_ways);
    tcase_add_test(tcase, small_errors);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
