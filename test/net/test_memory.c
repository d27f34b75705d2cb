/* Memory runs out: the n-th allocation of the module fails, for every n from its first to its last, once or for good, through the Corefile, create, start,
 * serve, run, stop and destroy.
 *
 * The module is linked into this program with its allocators wrapped (--wrap), which works with the sanitizers too. The host drives the loop, so all
 * that the module does is on the test's thread, and only what it asks for fails.
 *
 * Happy path: each call succeeds or says that it could not; each query ends exactly once; with memory back the next query has its answer; and when
 * the instance is gone no descriptor is left (nor memory: LeakSanitizer looks).
 */
#include "message.h"
#include "suite.h"
#include "upstream.h"

#include <dirent.h>
#include <errno.h>
#include <forward/abi.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { QUERIES = 4, CLIENT_ID = 0x1234, PATIENCE_MS = 8000 };

/* --- the allocator ------------------------------------------------------------------------------------------------ */

static _Thread_local bool inside; /* a call of the module */
static struct {
    unsigned calls, nth; /* 0: none fails */
    bool for_good;
    unsigned failed;
} memory;

static bool fails(void)
{
    if (!inside || memory.nth == 0) {
        return false;
    }
    memory.calls++;
    if (memory.calls != memory.nth && !(memory.for_good && memory.calls > memory.nth)) {
        return false;
    }
    memory.failed++;
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
char *__real_strdup(const char *text);
FILE *__real_open_memstream(char **text, size_t *len);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
char *__wrap_strdup(const char *text);
int __wrap_asprintf(char **ret, const char *format, ...) __attribute__((format(printf, 2, 3)));
FILE *__wrap_open_memstream(char **text, size_t *len);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

int __wrap_asprintf(char **ret, const char *format, ...)
{
    if (fails()) {
        *ret = NULL;
        return -1;
    }
    va_list args;
    va_start(args, format);
    int len = vasprintf(ret, format, args);
    va_end(args);
    return len;
}

FILE *__wrap_open_memstream(char **text, size_t *len)
{
    return fails() ? NULL : __real_open_memstream(text, len);
}

/** A call of the module. */
#define IN(call) (inside = true, call_result = (call), inside = false, call_result)
static int32_t call_result;

/* --- a host ------------------------------------------------------------------------------------------------------- */

static const struct fwd_forward *forward;
static struct upstream *ups[2];
static char json[4096];
static size_t json_len;
static struct {
    unsigned ended;
    bool good;
} ends[QUERIES + 2]; /* by token, from 1 */

static void destroy(struct fwd_instance *instance)
{
    inside = true;
    forward->destroy(instance);
    inside = false;
}

static void done(void *arg, const struct fwd_completion *completions, uint32_t count)
{
    inside = false;
    for (uint32_t i = 0; i < count; i++) {
        const struct fwd_completion *c = &completions[i];
        ends[c->token].ended++;
        ends[c->token].good = c->kind == FWD_KIND_ANSWER && message_is_answer(c->wire, c->wire_len, CLIENT_ID, "memory.test");
    }
    inside = true;
}

static int32_t sink(void *arg, const char *data, uint64_t len)
{
    inside = false;
    ck_assert_uint_lt(json_len + len, sizeof(json));
    memcpy(json + json_len, data, len);
    json_len += len;
    inside = true;
    return 0;
}

/* Plain UDP, TCP and a message that needs memory of its own. @return false when the query was refused at once */
static bool serve_one(struct fwd_instance *instance, uint64_t token, bool tcp, bool large)
{
    uint8_t wire[1024];
    size_t len = message_query(wire, sizeof(wire), CLIENT_ID, "memory.test", TYPE_A);
    if (large) { /* an OPT with an option of 500 octets */
        static const uint8_t opt[] = {0, 0, 41, 4, 208, 0, 0, 0, 0, 1, 248, 0, 10, 1, 244};
        memcpy(wire + len, opt, sizeof(opt));
        memset(wire + len + sizeof(opt), 7, 500);
        len += sizeof(opt) + 500;
        wire[11] = 1;
    }
    struct fwd_query query = {
        .struct_size = sizeof(query), .flags = tcp ? FWD_QUERY_TCP : 0, .token = token, .wire = wire, .wire_len = (uint32_t)len};
    ck_assert_int_eq(IN(forward->serve(instance, &query, 1)), FWD_OK);
    if (query.verdict != FWD_VERDICT_ACCEPTED) {
        ends[token].ended++;
    }
    return query.verdict == FWD_VERDICT_ACCEPTED;
}

static void run_until_ended(struct fwd_instance *instance, uint64_t first, uint64_t last)
{
    for (unsigned ms = 0; ms < PATIENCE_MS * 4; ms++) {
        bool all = true;
        for (uint64_t token = first; token <= last; token++) {
            all = all && ends[token].ended > 0;
        }
        if (all) {
            return;
        }
        ck_assert_int_ge(IN(forward->run(instance, 0)), 0);
        nanosleep(&(struct timespec){.tv_nsec = 250000}, NULL);
    }
    ck_abort_msg("a query has not ended: allocation %u%s", memory.nth, memory.for_good ? " and all after it" : "");
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    ck_assert_ptr_nonnull(directory);
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

/* --- a life ------------------------------------------------------------------------------------------------------- */

static const char *const scenes[] = {
    "max_fails 0",
    "force_tcp\n min_idle_conns 1\n max_conns 2\n health_check 10ms",
    "retransmit 10ms\n policy sequential",
};
enum { SCENES = sizeof(scenes) / sizeof(*scenes) };

/* Every call says whether it could. @return the instance, NULL when it could not be had */
static struct fwd_instance *make(const char *options)
{
    char lines[512], message[256] = "", pointer[64] = "";
    struct fwd_error error = {.struct_size = sizeof(error), .msg = message, .msg_cap = sizeof(message), .pointer = pointer, .pointer_cap = sizeof(pointer)};
    (void)snprintf(lines, sizeof(lines), "forward . %s %s {\n except a.test b.test\n read_timeout 100ms\n %s\n}", upstream_addr(ups[0]),
                   upstream_addr(ups[1]), options);
    struct fwd_directive directive = FWD_INIT(struct fwd_directive);
    directive.text = lines;
    directive.text_len = strlen(lines);
    directive.file = "Corefile";
    json_len = 0;
    if (IN(forward->corefile_to_json(&directive, sink, NULL, &error)) != FWD_OK) {
        return NULL;
    }
    ck_assert_int_eq(json[0], '{');
    char config[sizeof(json) + 32];
    int len = snprintf(config, sizeof(config), "{\"io_threads\":0,%.*s", (int)json_len - 1, json + 1);
    struct fwd_host host = {.struct_size = sizeof(host), .completion_size = sizeof(struct fwd_completion), .done = done};
    struct fwd_instance *instance = NULL;
    if (IN(forward->create(&host, config, (size_t)len, &instance, &error)) != FWD_OK) {
        ck_assert_ptr_null(instance);
        return NULL;
    }
    if (IN(forward->start(instance, &error)) != FWD_OK) {
        destroy(instance);
        return NULL;
    }
    return instance;
}

/* @return how many allocations failed */
static unsigned live(const char *options, unsigned nth, bool for_good)
{
    memset(ends, 0, sizeof(ends));
    memset(&memory, 0, sizeof(memory));
    memory.nth = nth;
    memory.for_good = for_good;
    unsigned descriptors = open_descriptors();
    struct fwd_instance *instance = make(options);
    if (instance == NULL) {
        ck_assert_uint_gt(memory.failed, 0);
    } else {
        for (uint64_t token = 1; token <= QUERIES; token++) {
            (void)serve_one(instance, token, token % 2 == 0, token > 2);
        }
        run_until_ended(instance, 1, QUERIES);
        unsigned failed = memory.failed;
        memory.nth = 0;
        (void)serve_one(instance, QUERIES + 1, false, false);
        run_until_ended(instance, QUERIES + 1, QUERIES + 1);
        for (uint64_t token = 1; token <= QUERIES + 1; token++) {
            ck_assert_msg(ends[token].ended == 1, "query %u ended %u times", (unsigned)token, ends[token].ended);
            ck_assert_msg(ends[token].good || (failed > 0 && token <= QUERIES), "query %u has no answer: allocation %u%s", (unsigned)token, nth,
                          for_good ? " and all after it" : "");
        }
        memory.nth = nth;
        ck_assert_int_eq(IN(forward->stop(instance, 1000000000)), FWD_OK);
        destroy(instance);
    }
    for (unsigned ms = 0; ms < 1000 && open_descriptors() != descriptors; ms++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* the upstreams' ends of connections are in this process too */
    }
    ck_assert_uint_eq(open_descriptors(), descriptors);
    return memory.failed;
}

START_TEST(every_allocation_fails)
{
    bool for_good = _i % 2 != 0;
    const char *options = scenes[_i / 2];
    struct upstream_rule pieces = {.chunk = 20, .chunk_ms = 1}; /* frames in pieces are kept in memory */
    upstream_set(ups[0], &pieces);
    forward = fwd_module_entry(FWD_ABI_MAJOR)->get_interface(FWD_FORWARD_ID);
    json_set_alloc_funcs(__wrap_malloc, free);
    ck_assert_uint_eq(live(options, 0, false), 0);
    unsigned nth = 1;
    while (live(options, nth, for_good) > 0) {
        nth++;
    }
    ck_assert_uint_gt(nth, 100); /* or nothing was tested */
    printf("# scene %d: %u allocations\n", _i / 2, nth - 1);
}
END_TEST

static void setup(void)
{
    ups[0] = upstream_create();
    ups[1] = upstream_create();
}

static void teardown(void)
{
    upstream_destroy(ups[0]);
    upstream_destroy(ups[1]);
}

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *tcase = tcase_create("memory");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, every_allocation_fails, 0, SCENES * 2);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
