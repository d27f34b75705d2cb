/* A host built against the header of another minor: HOST_HEADER is an older one (the last fields
 * of some structs do not exist yet), a newer one (structs and tables have grown; HOST_NEWER is
 * defined), or the current one for comparison.
 *
 * Every struct that crosses is allocated to its exact size, so that the address sanitizer catches
 * the module reaching past it; a newer host fills its grown tails with a pattern that the module
 * must neither read nor write.
 *
 * Happy path: each test loads the module, makes an instance with an upstream of its own, and ends
 * it.
 * Failure: a failed ck_assert names the field; the path of the module comes in FWD_MODULE.
 */
#include HOST_HEADER

#include "message.h"
#include "upstream.h"

#include <check.h>
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PATTERN UINT64_C(0xa5a5a5a5a5a5a5a5)
#define BATCH 3
#define WAIT_S 10

#ifdef HOST_NEWER
#define SET_LATER(object) ((object)->later = PATTERN)
#define CHECK_LATER(object)                                                                        \
    ck_assert_msg((object)->later == PATTERN, "the module wrote past ABI 1.0")
#else
#define SET_LATER(object) ((void)(object))
#define CHECK_LATER(object) ((void)(object))
#endif

/* One host with one instance; index of a query is its token. */
struct minor {
    const struct fwd_forward *forward;
    const struct fwd_proxies *proxies;
    struct fwd_instance *instance;
    struct upstream *upstream;
    bool threaded;

    pthread_mutex_t lock;
    pthread_cond_t ended;
    uint32_t count;       /* completions that came */
    const char *fault;    /* first thing found wrong in done */
    uint32_t kind[BATCH]; /* by token */
    bool good[BATCH];
};

static const char *const names[BATCH] = {"one.test", "two.test", "three.test"};

/* Zeroed memory of exactly this size. */
static void *exact(size_t size)
{
    void *memory = calloc(1, size);

    ck_assert_ptr_nonnull(memory);
    return memory;
}

static const struct fwd_module *load_module(void)
{
    const struct fwd_module *(*entry)(uint32_t);
    const char *path = getenv("FWD_MODULE");
    void *library;

    ck_assert_msg(path != NULL, "FWD_MODULE names the module");
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(library != NULL, "%s", dlerror());
    *(void **)&entry = dlsym(library, "fwd_module_entry");
    ck_assert(entry != NULL);
    ck_assert_ptr_null(entry(FWD_ABI_MAJOR + 1));
    ck_assert_ptr_nonnull(entry(FWD_ABI_MAJOR));
    return entry(FWD_ABI_MAJOR);
}

/* Looks at one completion; with an older header nothing beyond that header exists. */
static const char *completion_fault(const struct fwd_completion *completion)
{
    if (completion->struct_size != sizeof(*completion)) {
        return "stride of completions is not completion_size";
    }
    if (completion->token >= BATCH) {
        return "unknown token";
    }
#ifdef HOST_NEWER
    if (completion->later != 0) {
        return "a field that the module does not know is not zero";
    }
#endif
    return NULL;
}

static void done(void *arg, const struct fwd_completion *completions, uint32_t count)
{
    struct minor *minor = arg;

    pthread_mutex_lock(&minor->lock);
    for (uint32_t i = 0; i < count; i++) {
        const struct fwd_completion *completion = &completions[i];
        const char *fault = completion_fault(completion);
        if (fault != NULL) {
            minor->fault = fault;
            continue;
        }
        minor->kind[completion->token] = completion->kind;
        minor->good[completion->token] =
            completion->wire != NULL &&
            message_is_answer(completion->wire, completion->wire_len,
                              (uint16_t)(100 + completion->token), names[completion->token]);
    }
    minor->count += count;
    pthread_cond_signal(&minor->ended);
    pthread_mutex_unlock(&minor->lock);
}

static struct fwd_host *host_new(struct minor *minor)
{
    struct fwd_host *host = exact(sizeof(*host));

    host->struct_size = sizeof(*host);
    host->completion_size = sizeof(struct fwd_completion);
    host->arg = minor;
    host->done = done;
    SET_LATER(host);
    return host;
}

static int32_t create(struct minor *minor, const struct fwd_host *host, const char *config,
                      struct fwd_error *error)
{
    return minor->forward->create(host, config, strlen(config), &minor->instance, error);
}

static void setup(struct minor *minor, bool threaded)
{
    const struct fwd_module *module = load_module();
    char config[128];
    struct fwd_host *host;

    memset(minor, 0, sizeof(*minor));
    minor->threaded = threaded;
    pthread_mutex_init(&minor->lock, NULL);
    pthread_cond_init(&minor->ended, NULL);
    minor->upstream = upstream_create();
    minor->forward = module->get_interface(FWD_FORWARD_ID);
    minor->proxies = module->get_interface(FWD_PROXIES_ID);
    ck_assert_ptr_nonnull(minor->forward);
    ck_assert_ptr_nonnull(minor->proxies);
    (void)snprintf(
        config, sizeof(config),
        "{\"io_threads\": %d, \"forward\": [{\"from\": \".\", \"to\": [{\"addr\": \"%s\"}]}]}",
        threaded ? 1 : 0, upstream_addr(minor->upstream));

    host = host_new(minor);
    ck_assert_int_eq(create(minor, host, config, NULL), FWD_OK);
    CHECK_LATER(host);
    free(host); /* create has copied it */
    ck_assert_int_eq(minor->forward->start(minor->instance, NULL), FWD_OK);
}

static void teardown(struct minor *minor)
{
    ck_assert_int_eq(minor->forward->stop(minor->instance, 0), FWD_OK);
    minor->forward->destroy(minor->instance);
    upstream_destroy(minor->upstream);
    pthread_cond_destroy(&minor->ended);
    pthread_mutex_destroy(&minor->lock);
}

/* Waits until count completions came. */
static void wait_threaded(struct minor *minor, uint32_t count)
{
    struct timespec until;
    int status = 0;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&minor->lock);
    while (minor->count < count && status == 0) {
        status = pthread_cond_timedwait(&minor->ended, &minor->lock, &until);
    }
    pthread_mutex_unlock(&minor->lock);
}

static void wait_driven(struct minor *minor, uint32_t count)
{
    struct pollfd fd = {.fd = minor->forward->poll_fd(minor->instance, 0), .events = POLLIN};
    time_t until = time(NULL) + WAIT_S;

    ck_assert_int_ge(fd.fd, 0);
    while (minor->count < count && time(NULL) < until) {
        (void)poll(&fd, 1, 1000);
        ck_assert_int_ge(minor->forward->run(minor->instance, 0), 0);
    }
}

static void wait_for(struct minor *minor, uint32_t count)
{
    minor->threaded ? wait_threaded(minor, count) : wait_driven(minor, count);
    ck_assert_uint_eq(minor->count, count);
    ck_assert_msg(minor->fault == NULL, "%s", minor->fault);
}

/* A batch of queries in memory of exactly its size; wires[i] is MESSAGE_SMALL octets. */
#define MESSAGE_SMALL 64
static struct fwd_query *batch_new(uint8_t wires[BATCH][MESSAGE_SMALL])
{
    struct fwd_query *batch = exact(BATCH * sizeof(*batch));

    for (unsigned i = 0; i < BATCH; i++) {
        batch[i].struct_size = sizeof(*batch);
        batch[i].token = i;
        batch[i].wire = wires[i];
        batch[i].wire_len =
            (uint32_t)message_query(wires[i], MESSAGE_SMALL, (uint16_t)(100 + i), names[i], TYPE_A);
        SET_LATER(&batch[i]);
    }
    return batch;
}

/* A batch and its completions keep to the host's strides; loop test over the two modes. */
START_TEST(batch)
{
    struct minor minor;
    uint8_t wires[BATCH][MESSAGE_SMALL];
    struct fwd_query *queries;

    setup(&minor, _i == 0);
    queries = batch_new(wires);
    ck_assert_int_eq(minor.forward->serve(minor.instance, queries, BATCH), FWD_OK);
    for (unsigned i = 0; i < BATCH; i++) {
        ck_assert_uint_eq(queries[i].verdict, FWD_VERDICT_ACCEPTED);
        ck_assert_uint_ne(queries[i].handle, 0);
        CHECK_LATER(&queries[i]);
    }
    free(queries); /* the wire was copied, nothing points here any more */
    memset(wires, 0, sizeof(wires));

    wait_for(&minor, BATCH);
    for (unsigned i = 0; i < BATCH; i++) {
        ck_assert_uint_eq(minor.kind[i], FWD_KIND_ANSWER);
        ck_assert_msg(minor.good[i], "wrong answer to %s", names[i]);
    }
    teardown(&minor);
}
END_TEST

/* A query that is refused at once has its verdict, and its text only where the caller has room for
 * one. */
START_TEST(verdict)
{
    struct minor minor;
    struct fwd_query *query = exact(sizeof(*query));
    static const uint8_t header_only[12] = {0, 1, 1, 0, 0, 1};

    setup(&minor, false);
    query->struct_size = sizeof(*query);
    query->wire = header_only;
    query->wire_len = sizeof(header_only);
    SET_LATER(query);
    ck_assert_int_eq(minor.forward->serve(minor.instance, query, 1), FWD_OK);
    ck_assert_uint_eq(query->verdict, FWD_VERDICT_RCODE);
    ck_assert_uint_eq(query->rcode, FORMERR);
    ck_assert_int_eq(query->error, FWD_ERR_BAD_QUERY);
    CHECK_LATER(query);
    free(query);
    teardown(&minor);
}
END_TEST

/* The error goes into a struct of the caller's minor. */
START_TEST(error_struct)
{
    struct minor minor = {.forward = load_module()->get_interface(FWD_FORWARD_ID)};
    struct fwd_host *host = host_new(&minor);
    struct fwd_error *error = exact(sizeof(*error));
    char *msg = exact(24);

    error->struct_size = sizeof(*error);
    error->msg = msg;
    error->msg_cap = 24;
    SET_LATER(error);
    ck_assert_int_eq(create(&minor, host, "{\"forward\": 1}", error), FWD_ERR_CONFIG);
    ck_assert_int_eq(error->code, FWD_ERR_CONFIG);
    ck_assert_uint_gt(strlen(msg), 0);
    ck_assert_ptr_null(minor.instance);
    CHECK_LATER(error);
    free(msg);
    free(error);
    free(host);
}
END_TEST

static int32_t sink(void *arg, const char *data, uint64_t len)
{
    *(uint64_t *)arg += data != NULL ? len : 0;
    return FWD_OK;
}

/* An array of tokens is walked with the caller's stride. */
START_TEST(tokens)
{
    const struct fwd_forward *forward = load_module()->get_interface(FWD_FORWARD_ID);
    static const char *const words[] = {"forward", ".", "127.0.0.1:1053"};
    struct fwd_directive *directive = exact(sizeof(*directive));
    struct fwd_token *array = exact(3 * sizeof(*array));
    uint64_t total = 0;

    for (unsigned i = 0; i < 3; i++) {
        array[i].struct_size = sizeof(*array);
        array[i].line = 1;
        array[i].text = words[i];
        array[i].text_len = (uint32_t)strlen(words[i]);
        array[i].file = "Corefile";
        SET_LATER(&array[i]);
    }
    directive->struct_size = sizeof(*directive);
    directive->tokens = array;
    directive->token_count = 3;
    SET_LATER(directive);
    ck_assert_int_eq(forward->corefile_to_json(directive, sink, &total, NULL), FWD_OK);
    ck_assert_uint_gt(total, 0);
    free(array);
    free(directive);
}
END_TEST

/* The pool's numbers go no further than the caller's struct. */
START_TEST(pool_stats)
{
    struct minor minor;
    struct fwd_pool_stats *stats = exact(sizeof(*stats));

    setup(&minor, false);
    stats->struct_size = sizeof(*stats);
    SET_LATER(stats);
    ck_assert_uint_eq(minor.proxies->count(minor.instance), 1);
    ck_assert_int_eq(
        minor.proxies->pool_stats(minor.proxies->at(minor.instance, 0), FWD_PROTO_UDP, stats),
        FWD_OK);
    ck_assert_uint_eq(stats->hits, 0);
    CHECK_LATER(stats);
    free(stats);
    teardown(&minor);
}
END_TEST

/* Below the least size of ABI 1.0 nothing is touched. */
START_TEST(too_small)
{
    struct minor minor;
    struct minor other = {0};
    uint8_t wires[BATCH][MESSAGE_SMALL];
    struct fwd_query *queries = batch_new(wires);
    struct fwd_pool_stats stats = {.struct_size = FWD_POOL_STATS_MIN_SIZE - 1};
    struct fwd_host *host;

    setup(&minor, false);
    queries->struct_size = FWD_QUERY_MIN_SIZE - 1;
    ck_assert_int_eq(minor.forward->serve(minor.instance, queries, 1), FWD_ERR_ABI);
    queries->struct_size = 0;
    ck_assert_int_eq(minor.forward->serve(minor.instance, queries, BATCH), FWD_ERR_ABI);
    ck_assert_uint_eq(queries->verdict, FWD_VERDICT_NONE);
    ck_assert_int_eq(
        minor.proxies->pool_stats(minor.proxies->at(minor.instance, 0), FWD_PROTO_UDP, &stats),
        FWD_ERR_ABI);

    other.forward = minor.forward;
    host = host_new(&other);
    host->completion_size = FWD_COMPLETION_MIN_SIZE - 1;
    ck_assert_int_eq(create(&other, host, "{}", NULL), FWD_ERR_ABI);
    host->completion_size = sizeof(struct fwd_completion);
    host->struct_size = FWD_HOST_MIN_SIZE - 1;
    ck_assert_int_eq(create(&other, host, "{}", NULL), FWD_ERR_ABI);
    ck_assert_ptr_null(other.instance);
    free(host);
    free(queries);
    teardown(&minor);
}
END_TEST

/* A function is there, or is reported absent. */
START_TEST(functions)
{
    const struct fwd_module *module = load_module();
    const struct fwd_forward *forward = module->get_interface(FWD_FORWARD_ID);
    const struct fwd_proxies *proxies = module->get_interface(FWD_PROXIES_ID);

    ck_assert(FWD_HAS(module, get_interface));
    ck_assert(FWD_HAS(forward, run));
    ck_assert(FWD_HAS(proxies, pool_stats));
    ck_assert_ptr_null(module->get_interface("fwd.forward/2"));
#ifdef HOST_NEWER
    ck_assert(!FWD_HAS(module, later));
    ck_assert(!FWD_HAS(forward, later));
    ck_assert(!FWD_HAS(proxies, later));
#endif
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("minor");
    TCase *tests = tcase_create("minor");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, batch, 0, 2);
    tcase_add_test(tests, verdict);
    tcase_add_test(tests, error_struct);
    tcase_add_test(tests, tokens);
    tcase_add_test(tests, pool_stats);
    tcase_add_test(tests, too_small);
    tcase_add_test(tests, functions);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
