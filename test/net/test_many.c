/* Very many instances, and several of the same configuration: none notices the others, however they are made and destroyed. From 256 on their
 * memory comes from somewhere else, so most are tested on both sides of that. */
#include "message.h"
#include "plain.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 600, BEFORE = 300 /* more than lie apart */, STRIDE = 7, /* prime to MANY */ LINE = 128, PLACES = 200 };

/* Instances of one mode share an engine; descriptors do not suffice for one each. */
static const enum mode modes[] = {MODE_THREADS, MODE_SHARED};
enum { MODES = sizeof(modes) / sizeof(*modes) };

static struct host *hosts[MANY];

static struct host *open_plain(int mode)
{
    return host_open(modes[mode], "forward . %s", upstream_addr(up));
}

static void open_missing(int mode)
{
    for (unsigned i = 0; i < MANY; i++) {
        hosts[i] = hosts[i] != NULL ? hosts[i] : open_plain(mode);
        ck_assert_uint_eq((uintptr_t)hosts[i]->instance % LINE, 0);
    }
}

/* Closes count of them in a mixed order, beginning with the first one. */
static void close_mixed(unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        host_close(hosts[i * STRIDE % MANY]);
        hosts[i * STRIDE % MANY] = NULL;
    }
}

/* Every so manieth of those that there are answers, each its own query. */
static void ask_some(unsigned step)
{
    uint64_t tokens[MANY] = {0};
    char name[32];

    for (unsigned i = 0; i < MANY; i += step) {
        (void)snprintf(name, sizeof(name), "many%u.test", i);
        tokens[i] = hosts[i] != NULL ? host_send(hosts[i], name) : 0;
    }
    for (unsigned i = 0; i < MANY; i += step) {
        (void)snprintf(name, sizeof(name), "many%u.test", i);
        ck_assert(tokens[i] == 0 || outcome_good(host_wait(hosts[i], tokens[i], 10000), name));
    }
}

START_TEST(many_come_and_go)
{
    for (unsigned round = 0; round < 2; round++) {
        open_missing(_i);
        ask_some(5);
        close_mixed(0, MANY / 2);
        ask_some(3);
        open_missing(_i);
        ask_some(5);
        close_mixed(MANY / 3, MANY - MANY / 3);
        ask_some(1);
        close_mixed(0, MANY / 3);
    }
    ck_assert(upstream_wait_open(up, 0, 5000));
}
END_TEST

/* Those of a kind of which there are very many lie together, and whoever comes takes the room of who went. */
START_TEST(many_lie_together)
{
    enum { CHUNK = 2 << 20 };
    const void *left;

    open_missing(_i);
    for (unsigned i = BEFORE; i < MANY; i++) {
        ck_assert_uint_eq((uintptr_t)hosts[i]->instance / CHUNK, (uintptr_t)hosts[BEFORE]->instance / CHUNK);
    }
    left = hosts[MANY / 2]->instance;
    host_close(hosts[MANY / 2]);
    hosts[MANY / 2] = open_plain(_i);
    ck_assert_ptr_eq(hosts[MANY / 2]->instance, left);
    close_mixed(0, MANY);
}
END_TEST

/* --- the same configuration ---------------------------------------------------------------------------------------- */

/* Tokens are alike, so that an answer of the other one would show. */
START_TEST(answers_go_to_their_own_host)
{
    struct host *a = open_plain(_i);
    struct host *b = open_plain(_i);
    const struct outcome *of_a, *of_b;

    for (unsigned i = 0; i < 50; i++) {
        uint64_t token = host_send(a, "a.test");

        ck_assert_uint_eq(host_send(b, "b.test"), token);
        of_a = host_wait(a, token, 10000);
        of_b = host_wait(b, token, 10000);
        ck_assert(outcome_good(of_a, "a.test"));
        ck_assert(outcome_good(of_b, "b.test"));
    }
    ck_assert(outcome_good(host_ask(a, "alone.test"), "alone.test"));
    ck_assert_uint_eq(host_completed(a), 51);
    ck_assert_uint_eq(host_completed(b), 50);
    host_close(a);
    host_close(b);
}
END_TEST

/* What is counted is each one's own: one query in flight is the most for both (case 50). */
START_TEST(limits_are_their_own)
{
    struct host *pair[2];

    set_delay(200);
    for (unsigned i = 0; i < 2; i++) {
        pair[i] = host_open(modes[_i], "forward . %s {\n max_concurrent 1\n}", upstream_addr(up));
    }
    for (unsigned i = 0; i < 2; i++) {
        uint64_t first = host_send(pair[i], "limit.test");

        ck_assert_uint_eq(host_outcome(pair[i], first)->verdict, FWD_VERDICT_ACCEPTED);
        ck_assert_uint_ne(host_outcome(pair[i], host_send(pair[i], "limit.test"))->verdict, FWD_VERDICT_ACCEPTED);
    }
    for (unsigned i = 0; i < 2; i++) {
        ck_assert(outcome_good(host_wait(pair[i], 1, 10000), "limit.test"));
        host_close(pair[i]);
    }
}
END_TEST

/* The configuration in the document of info; to be freed. */
static char *config_of(struct host *host)
{
    char *info = host_info(host);
    char *config = strstr(info, "\"config\":");
    char *end = config != NULL ? strstr(config, ",\"upstreams\":") : NULL;

    ck_assert_ptr_nonnull(end);
    config = strndup(config, (size_t)(end - config));
    free(info);
    return config;
}

/* It serves by its configuration, which says the same as before. */
static void check_unchanged(struct host *host, const char *before)
{
    char *config = config_of(host);

    ck_assert_str_eq(config, before);
    ck_assert(outcome_good(host_ask(host, "after.test"), "after.test"));
    ck_assert_uint_eq(host_outcome(host, host_send(host, "a.no.test"))->verdict, FWD_VERDICT_NEXT);
    free(config);
}

/* Whichever of them goes first, with queries in flight: the other ones go on. */
START_TEST(others_outlive_it)
{
    for (unsigned goes = 0; goes < 3; goes++) {
        struct host *three[3];
        char *config;
        uint64_t token;

        set_delay(50);
        for (unsigned i = 0; i < 3; i++) {
            three[i] = host_open(modes[_i], "forward . %s {\n except no.test\n max_fails 7\n}", upstream_addr(up));
        }
        config = config_of(three[0]);
        ck_assert_ptr_nonnull(strstr(config, "no.test."));
        (void)host_send_batch(three[goes], "goes", 20);
        token = host_send(three[(goes + 1) % 3], "stays.test");
        host_close(three[goes]);
        ck_assert(outcome_good(host_wait(three[(goes + 1) % 3], token, 10000), "stays.test"));
        set_delay(0);
        for (unsigned i = (goes + 1) % 3; i != goes; i = (i + 1) % 3) {
            check_unchanged(three[i], config);
            host_close(three[i]);
        }
        free(config);
    }
}
END_TEST

/* More configurations than are remembered: whichever are forgotten meanwhile, those that have them go on, and those that come find their own. */
START_TEST(more_configurations_than_are_remembered)
{
    struct host *again[PLACES];

    for (unsigned i = 0; i < PLACES; i++) {
        hosts[i] = host_open(modes[_i], "forward . %s {\n except no.test n%u.test\n}", upstream_addr(up), i);
    }
    for (unsigned i = 0; i < PLACES; i++) {
        again[i] = host_open(modes[_i], "forward . %s {\n except no.test n%u.test\n}", upstream_addr(up), i);
    }
    for (unsigned i = 0; i < PLACES; i++) {
        struct host *pair[2] = {i % 2 == 0 ? hosts[i] : again[i], i % 2 == 0 ? again[i] : hosts[i]};
        char *config = config_of(pair[0]);
        char name[32];

        host_close(pair[0]);
        (void)snprintf(name, sizeof(name), "n%u.test", i);
        ck_assert_uint_eq(host_outcome(pair[1], host_send(pair[1], name))->verdict, FWD_VERDICT_NEXT);
        check_unchanged(pair[1], config);
        host_close(pair[1]);
        free(config);
    }
}
END_TEST

/* One whose JSON is too long to be remembered. */
START_TEST(long_configuration)
{
    char except[7000] = "";
    struct host *pair[2];
    char *config;

    for (size_t i = 0, at = 0; i < 100; i++) {
        at += (size_t)snprintf(except + at, sizeof(except) - at, " an-excepted-zone-with-a-long-name-that-ends-in-%zu.no.test", i);
    }
    for (unsigned i = 0; i < 2; i++) {
        pair[i] = host_open(modes[_i], "forward . %s {\n except no.test%s\n}", upstream_addr(up), except);
    }
    config = config_of(pair[0]);
    ck_assert_uint_gt(strlen(config), 4096);
    host_close(pair[0]);
    check_unchanged(pair[1], config);
    host_close(pair[1]);
    free(config);
}
END_TEST

/* --- stanzas of all kinds ------------------------------------------------------------------------------------------ */

/* Server blocks, and how each name ends: a for an answer, t for one over TCP, n when no stanza takes it. */
static const struct {
    const char *lines; /* @ is the upstream */
    const char *ends;  /* of example.test, no.example.test, other.net */
} kinds[] = {
    {"forward . @", "aaa"},
    {"forward . @ {\n next NOERROR\n}", "aaa"},
    {"forward . @ {\n except no.example.test\n}", "ana"},
    {"forward example.test @", "aan"},
    {"forward example.test @ {\n except no.example.test\n next NOERROR\n}", "ann"},
    {"forward . @ tls://@ {\n policy sequential\n}", "aaa"},
    {"forward example.test @\nforward other.net @", "aaa"},
    {"forward no.example.test @ {\n force_tcp\n}\nforward . @", "ata"},
    {"forward . @ {\n next NOERROR\n}\nforward . @ {\n force_tcp\n}", "ttt"},
    {"forward . @ {\n next NOERROR\n}\nforward . @ {\n next NOERROR\n}", "aaa"},
    {"forward . @ {\n except example.test\n}\nforward no.example.test @", "naa"},
};
enum { KINDS = sizeof(kinds) / sizeof(*kinds), OF_ALL_KINDS = 300 / KINDS * KINDS };

static struct host *open_kind(int mode, const char *lines)
{
    char text[256];
    size_t at = 0;

    for (; *lines != '\0'; lines++) {
        if (*lines == '@') {
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%s", upstream_addr(up));
        } else {
            text[at++] = *lines;
        }
        ck_assert_uint_lt(at, sizeof(text));
    }
    text[at] = '\0';
    return host_open(modes[mode], "%s", text);
}

static void check_kind(struct host *host, const char *lines, const char *ends)
{
    static const char *const names[] = {"example.test", "no.example.test", "other.net"};

    for (unsigned i = 0; i < 3; i++) {
        const struct outcome *outcome = host_ask(host, names[i]);
        bool as_said = ends[i] == 'n' ? outcome->verdict == FWD_VERDICT_NEXT
                                      : outcome_good(outcome, names[i]) && (outcome->proto == FWD_PROTO_TCP) == (ends[i] == 't');

        ck_assert_msg(as_said, "%s: %s, verdict %u", lines, names[i], outcome->verdict);
    }
}

/* Some of each before there are many, and some after. */
START_TEST(stanzas_of_all_kinds)
{
    for (unsigned i = 0; i < OF_ALL_KINDS; i++) {
        hosts[i] = open_kind(_i, kinds[i % KINDS].lines);
        if (i < 2 * KINDS || i >= OF_ALL_KINDS - 2 * KINDS) {
            check_kind(hosts[i], kinds[i % KINDS].lines, kinds[i % KINDS].ends);
        }
    }
    for (unsigned i = 0; i < OF_ALL_KINDS; i++) {
        host_close(hosts[i * STRIDE % OF_ALL_KINDS]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("many");
    TCase *tcase = tcase_create("many");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, many_come_and_go, 0, MODES);
    tcase_add_loop_test(tcase, many_lie_together, 0, MODES);
    tcase_add_loop_test(tcase, answers_go_to_their_own_host, 0, MODES);
    tcase_add_loop_test(tcase, limits_are_their_own, 0, MODES);
    tcase_add_loop_test(tcase, others_outlive_it, 0, MODES);
    tcase_add_loop_test(tcase, more_configurations_than_are_remembered, 0, MODES);
    tcase_add_loop_test(tcase, long_configuration, 0, MODES);
    tcase_add_loop_test(tcase, stanzas_of_all_kinds, 0, MODES);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
