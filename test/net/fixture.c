/* The fixture of the tests of streams. Failure modes: a question without a good answer fails the
 * test and says what came of it. */
#include "fixture.h"

#include "message.h"

#include <stdio.h>
#include <string.h>

struct authority authority;
struct tls_upstream *up, *other;

const int tls_versions[2] = {TLS1_2_VERSION, TLS1_3_VERSION};

static enum tls_kind up_kind;

void fixture_setup(void)
{
    authority_open(&authority);
    up = other = NULL;
}

void fixture_teardown(void)
{
    tls_upstream_destroy(up);
    tls_upstream_destroy(other);
    authority_close(&authority);
}

void fixture_upstream(enum tls_kind kind, const struct tls_setup *setup)
{
    up_kind = kind;
    up = authority_upstream(&authority, kind, setup);
}

struct host *fixture_open(int mode, const char *more)
{
    return fixture_open_with(mode, NULL, more);
}

struct host *fixture_open_with(int mode, const struct service *services, const char *more)
{
    static const char *const schemes[] = {
        [KIND_TCP] = "", [KIND_DOT] = "tls://", [KIND_DOH] = "https://"};
    return host_open_with(
        mode, services, "forward . %s%s {\n %s tls %s\n tls_servername " SERVER_NAME "\n %s\n}",
        schemes[up_kind], tls_upstream_addr(up), up_kind == KIND_TCP ? "force_tcp\n" : "",
        authority.ca_file, more);
}

void pick_probes(void *arg, const struct tls_seen *query, struct tls_rule *rule)
{
    rule->rcode = query->type == TYPE_NS ? REFUSED : NOERROR;
    rule->instead = query->type == TYPE_NS ? END_NONE : END_FIN;
}

static void check_good(const struct outcome *outcome, const char *name)
{
    ck_assert_msg(outcome_good(outcome, name), "%s: kind %u, error %d, %s", name, outcome->kind,
                  outcome->error, outcome->detail);
}

void ask_good(struct host *host, const char *name)
{
    check_good(host_ask(host, name), name);
}

void check_batch(struct host *host, const char *prefix, uint64_t first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "%s%u.test", prefix, i);
        check_good(host_outcome(host, first + i), name);
    }
}

void ask_batch(struct host *host, const char *prefix, unsigned count)
{
    uint64_t first = host_send_batch(host, prefix, count);
    host_wait_all(host, 20000);
    check_batch(host, prefix, first, count);
}

uint64_t fixture_best_ns(struct host *host, unsigned before)
{
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < before; i++) {
        ask_good(host, "before.test");
    }
    for (unsigned i = 0; i < 5; i++) {
        const struct outcome *outcome = host_ask(host, "timed.test");
        ck_assert(outcome_good(outcome, "timed.test"));
        best = outcome->elapsed_ns < best ? outcome->elapsed_ns : best;
    }
    return best;
}
