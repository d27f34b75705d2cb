/* Host names as upstreams: how they are looked up when the instance is made. test_refresh.c has how they are looked up again. */
#include "message.h"
#include "names.h"
#include "network.h"
#include "suite.h"

#include <stdio.h>
#include <string.h>

static const unsigned many = 28;

/* case 37: A and then AAAA, both kinds of addresses are used. Without resolve_interval that was
 * all, whatever the TTL. */
START_TEST(looked_up_once_by_default_case_37)
{
    struct fake_clock clock;
    struct service services[] = {{FWD_CLOCK_ID, &clock.table}, {NULL, NULL}};
    fake_clock_init(&clock);
    say("127.0.0.1 ::1", 1);
    host = host_open_with(_i, services, "forward . a.test:%u {\n resolver %s\n}",
                          upstream_port(one), upstream_addr(names));
    ck_assert_uint_eq(host->proxies->count(host->instance), 2);
    ck_assert_uint_eq(seen(names), 2);
    ck_assert_uint_eq(upstream_seen(names, 0).type, TYPE_A);
    ck_assert_uint_eq(upstream_seen(names, 1).type, TYPE_AAAA);
    ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
    fake_clock_advance(&clock, 3600 * 1000);
    host_work(host, 100);
    ck_assert_uint_eq(seen(names), 2);
    host_close(host);
}
END_TEST

/* case 37: each instance looks for itself, also when another one has the same configuration. */
START_TEST(looked_up_for_each_instance_case_37)
{
    static const char *const intervals[] = {"", "resolve_interval 1h"};
    const char *addresses[] = {"127.0.0.1", "127.0.0.2", "127.0.0.1"};
    struct upstream *const there[] = {one, two, one};
    struct host *hosts[3];
    for (unsigned i = 0; i < 2; i++) {
        unsigned before = seen(names);
        for (unsigned j = 0; j < 3; j++) {
            say(addresses[j], 3600);
            hosts[j] = open_host(_i, intervals[i]);
            ck_assert_uint_eq(seen(names) - before, 2 * (j + 1));
        }
        for (unsigned j = 0; j < 3; j++) {
            const struct outcome *outcome = host_ask(hosts[j], "q.test");
            ck_assert(outcome_good(outcome, "q.test"));
            ck_assert_str_eq(outcome->upstream, upstream_addr(there[j]));
            host_close(hosts[j]);
        }
    }
}
END_TEST

/* case 37: a resolver is an address or an address with a port; without one it is asked at 53. */
START_TEST(resolver_spellings_case_37)
{
    static const struct {
        const char *ip, *resolver;
    } rows[] = {
        {"127.0.0.1", "127.0.0.1"},
        {"127.0.0.1", "127.0.0.1:53"},
        {"::1", "::1"},
        {"::1", "[::1]:53"},
    };
    if (!network_own()) {
        return;
    }
    struct upstream *answers = upstream_create_at("127.0.0.1", 5353);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct upstream *server = upstream_create_at(rows[i].ip, 53);
        upstream_set(server, &(struct upstream_rule){.addresses = "127.0.0.1", .ttl = 60});
        host = host_open(_i, "forward . a.test:5353 {\n resolver %s\n}", rows[i].resolver);
        ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
        ck_assert_uint_eq(seen(server), 2); /* A and AAAA */
        host_close(host);
        upstream_destroy(server);
    }
    upstream_destroy(answers);
}
END_TEST

static bool hosts_file_knows_localhost(void)
{
    char line[512];
    bool found = false;
    FILE *file = fopen("/etc/hosts", "r");
    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
        found = line[0] != '#' && strstr(line, "localhost") != NULL;
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

/* Without `resolver` the system is asked; what its hosts file says has no TTL. */
START_TEST(system_resolver)
{
    if (!hosts_file_knows_localhost()) {
        fprintf(stderr, "SKIPPED: this machine has no hosts file with localhost\n");
        return;
    }
    host = host_open_with(_i, with_log,
                          "forward . localhost:%u {\n resolve_interval 50ms\n policy sequential\n}",
                          upstream_port(one));
    work_until(host, host_metric(host, "fwd_host_lookups_total") >= 3);
    ck_assert(outcome_good(host_ask(host, "q.test"), "q.test"));
    ck_assert(info_says("\"name\":\"localhost\""));
    ck_assert_uint_eq(logged("forward:"), 0);
    host_close(host);
}
END_TEST

static void no_completion(void *arg, const struct fwd_completion *completions, uint32_t count)
{
    ck_abort_msg("a completion of an instance that was never made");
}

/* case 37: at the start every name must be found, looked up again or not; and there the limit of
 * upstreams is an error. */
START_TEST(create_fails_case_37)
{
    static const char *intervals[] = {"0s", "1s"};
    const struct fwd_forward *forward = host_module()->get_interface(FWD_FORWARD_ID);
    for (unsigned i = 0; i < 4; i++) {
        char config[1024], msg[256] = "", pointer[64] = "";
        struct fwd_error error = FWD_INIT(struct fwd_error);
        struct fwd_host with = {.struct_size = sizeof(with),
                                .completion_size = sizeof(struct fwd_completion),
                                .done = no_completion};
        struct fwd_instance *instance = NULL;
        error.msg = msg;
        error.msg_cap = sizeof(msg);
        error.pointer = pointer;
        error.pointer_cap = sizeof(pointer);
        upstream_set(names, &(struct upstream_rule){.rcode = NXDOMAIN});
        upstream_script(names, i < 2 ? NULL : answer_many, (void *)&many);
        snprintf(config, sizeof(config),
                 "{\"io_threads\": %u, \"forward\": [{\"from\": \".\", \"to\": ["
                 "{\"addr\": \"a.test:53\"}, "
                 "{\"addr\": \"b.test:53\"}, {\"addr\": \"c.test:53\"}, {\"addr\": \"d.test:53\"}, "
                 "{\"addr\": \"e.test:53\"}, {\"addr\": \"f.test:53\"}, {\"addr\": \"g.test:53\"}, "
                 "{\"addr\": \"h.test:53\"}, {\"addr\": \"i.test:53\"}, "
                 "{\"addr\": \"j.test:53\"}], "
                 "\"resolver\": [\"%s\"], \"resolve_interval\": \"%s\"}]}",
                 _i == MODE_THREADS ? 2 : 0, upstream_addr(names), intervals[i % 2]);
        int32_t result = forward->create(&with, config, strlen(config), &instance, &error);
        ck_assert_int_eq(result, i < 2 ? FWD_ERR_CONFIG : FWD_ERR_UNSUPPORTED);
        ck_assert_str_eq(msg, i < 2 ? "plugin/forward: failed to resolve \"a.test\": "
                                      "no addresses found for \"a.test\""
                                    : "more than 255 upstreams after expansion: 280");
        ck_assert_str_eq(pointer, "/forward/0/to");
    }
}
END_TEST

/* What the interface of a link-local address is, is looked up for each instance too, also when another one has the same configuration. */
START_TEST(scope_looked_up_for_each_instance)
{
    static const char config[] = "{\"io_threads\":0,\"forward\":[{\"from\":\".\",\"to\":[{\"addr\":\"[fe80::1%lo]:53\"}]}]}";
    const struct fwd_forward *forward = host_module()->get_interface(FWD_FORWARD_ID);
    struct fwd_host with = {.struct_size = sizeof(with), .completion_size = sizeof(struct fwd_completion), .done = no_completion};
    struct fwd_instance *first = NULL, *second = NULL;
    if (!network_own()) {
        return;
    }
    ck_assert_int_eq(forward->create(&with, config, strlen(config), &first, NULL), FWD_OK);
    network_rename("lo", "gone");
    ck_assert_int_eq(forward->create(&with, config, strlen(config), &second, NULL), FWD_ERR_CONFIG);
    forward->destroy(first);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lookup");
    TCase *tcase = tcase_create("lookup");
    tcase_add_checked_fixture(tcase, setup, teardown);
    add_test(tcase, looked_up_once_by_default_case_37);
    add_test(tcase, looked_up_for_each_instance_case_37);
    add_test(tcase, resolver_spellings_case_37);
    add_test(tcase, system_resolver);
    add_test(tcase, create_fails_case_37);
    tcase_add_test(tcase, scope_looked_up_for_each_instance);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
