/* A small host for the tests.
 *
 * Happy path: host_open loads the module, has it translate the Corefile lines, creates and starts
 * the instance; host_send numbers a query, writes down that it was sent and calls serve; done
 * copies what came into the query's outcome and wakes the waiter.
 *
 * Failure modes: everything unexpected fails the running test. Faults seen in done, which runs on
 * the module's threads, are kept and reported by host_close.
 */
#include "host.h"
#include "message.h"

#include <check.h>
#include <dirent.h>
#include <dlfcn.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CLIENT_ID 0x4321

struct host_state {
    const struct service *services;
    bool fake_time;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* guarded by mutex */
    struct outcome **outcomes; /* by token - 1 */
    uint64_t count, cap, accepted, ended;
    unsigned completed;
    char fault[160];
};

struct text {
    char *data;
    size_t len;
};

/* Set while this thread is inside serve: no completion may come then. */
static _Thread_local bool serving;

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- the clock ------------------------------------------------------------------------------- */

static uint64_t fake_now(void *arg)
{
    return atomic_load(&((struct fake_clock *)arg)->now_ns);
}

void fake_clock_init(struct fake_clock *clock)
{
    clock->table = (struct fwd_clock){.struct_size = sizeof(clock->table),
                                      .arg = clock,
                                      .mono_ns = fake_now,
                                      .real_ns = fake_now};
    atomic_init(&clock->now_ns, 1000000000000u);
}

void fake_clock_advance(struct fake_clock *clock, uint64_t ms)
{
    atomic_fetch_add(&clock->now_ns, ms * 1000000u);
}

/* --- callbacks ------------------------------------------------------------------------------- */

static void complete(struct host_state *state, const struct fwd_completion *completion)
{
    if (completion->token == 0 || completion->token > state->count) {
        snprintf(state->fault, sizeof(state->fault),
                 "completion of token %llu, which was never sent",
                 (unsigned long long)completion->token);
        return;
    }
    struct outcome *outcome = state->outcomes[completion->token - 1];
    if (++outcome->completions > 1 || outcome->ended) {
        snprintf(state->fault, sizeof(state->fault), "token %llu ended twice",
                 (unsigned long long)completion->token);
        return;
    }
    outcome->kind = completion->kind;
    outcome->rcode = completion->rcode;
    outcome->error = completion->error;
    outcome->proto = completion->proto;
    outcome->attempts = completion->attempts;
    outcome->elapsed_ns = completion->elapsed_ns;
    snprintf(outcome->detail, sizeof(outcome->detail), "%s",
             completion->detail ? completion->detail : "");
    snprintf(outcome->upstream, sizeof(outcome->upstream), "%s",
             completion->upstream ? completion->upstream : "");
    if (completion->wire != NULL) {
        outcome->wire = malloc(completion->wire_len + 1u);
        memcpy(outcome->wire, completion->wire, completion->wire_len);
        outcome->wire_len = completion->wire_len;
    }
    outcome->ended = true;
    state->ended++;
    state->completed++;
}

static void done(void *arg, const struct fwd_completion *completions, uint32_t count)
{
    struct host_state *state = arg;
    pthread_mutex_lock(&state->mutex);
    if (serving) {
        snprintf(state->fault, sizeof(state->fault), "done was called from inside serve");
    }
    const char *at = (const char *)completions;
    for (uint32_t i = 0; i < count; i++, at += completions->struct_size) {
        complete(state, (const struct fwd_completion *)at);
    }
    pthread_cond_broadcast(&state->changed);
    pthread_mutex_unlock(&state->mutex);
}

static const void *get_service(void *arg, const char *id)
{
    const struct host_state *state = arg;
    for (const struct service *service = state->services; service != NULL && service->id != NULL;
         service++) {
        if (strcmp(service->id, id) == 0) {
            return service->table;
        }
    }
    return NULL;
}

static int32_t sink(void *arg, const char *data, uint64_t len)
{
    struct text *text = arg;
    char *grown = realloc(text->data, text->len + len + 1);
    if (grown == NULL) {
        return FWD_ERR_NOMEM;
    }
    memcpy(grown + text->len, data, len);
    text->data = grown;
    text->len += len;
    text->data[text->len] = '\0';
    return FWD_OK;
}

/* --- opening and closing --------------------------------------------------------------------- */

const struct fwd_module *host_module(void)
{
    const char *path = getenv("FWD_MODULE");
    ck_assert_msg(path != NULL, "FWD_MODULE is not set");
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(object != NULL, "%s", object == NULL ? dlerror() : "");
    const struct fwd_module *(*entry)(uint32_t);
    /* ISO C has no conversion from an object pointer; POSIX has it work like this. */
    *(void **)&entry = dlsym(object, "fwd_module_entry");
    ck_assert(entry != NULL);
    const struct fwd_module *module = entry(FWD_ABI_MAJOR);
    ck_assert_ptr_nonnull(module);
    return module;
}

/** Has the module translate the lines, and adds who runs the loop. */
static char *make_config(const struct host *host, const char *lines, struct fwd_error *error)
{
    struct fwd_directive directive = FWD_INIT(struct fwd_directive);
    struct text text = {0};
    directive.text = lines;
    directive.text_len = strlen(lines);
    directive.file = "Corefile";
    int32_t result = host->forward->corefile_to_json(&directive, sink, &text, error);
    ck_assert_msg(result == FWD_OK, "%s: %s", lines, error->msg);
    json_t *config = json_loadb(text.data, text.len, 0, NULL);
    ck_assert_msg(config != NULL, "not JSON: %s", text.data);
    free(text.data);
    json_object_set_new(config, "io_threads", json_integer(host->mode == MODE_THREADS ? 2 : 0));
    if (host->mode == MODE_SHARED) {
        json_object_set_new(config, "loops", json_integer(SHARED_LOOPS));
        json_object_set_new(config, "engine", json_string("shared"));
    }
    char *json = json_dumps(config, JSON_COMPACT);
    json_decref(config);
    return json;
}

static struct host *host_vopen(enum mode mode, const struct service *services, const char *format,
                               va_list args)
{
    char msg[512] = "", file[128] = "", pointer[128] = "", lines[8192];
    struct fwd_error error = {.struct_size = sizeof(error),
                              .msg_cap = sizeof(msg),
                              .file_cap = sizeof(file),
                              .pointer_cap = sizeof(pointer),
                              .msg = msg,
                              .file = file,
                              .pointer = pointer};
    pthread_condattr_t attr;
    struct host *host = calloc(1, sizeof(*host));
    struct host_state *state = calloc(1, sizeof(*state));
    host->mode = mode;
    host->state = state;
    state->services = services;
    pthread_mutex_init(&state->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&state->changed, &attr);
    pthread_condattr_destroy(&attr);
    state->fake_time = get_service(state, FWD_CLOCK_ID) != NULL;

    host->module = host_module();
    host->forward = host->module->get_interface(FWD_FORWARD_ID);
    host->proxies = host->module->get_interface(FWD_PROXIES_ID);
    ck_assert(host->forward != NULL && host->proxies != NULL);

    ck_assert_int_lt(vsnprintf(lines, sizeof(lines), format, args), (int)sizeof(lines));
    char *json = make_config(host, lines, &error);
    struct fwd_host services_and_done = {.struct_size = sizeof(services_and_done),
                                         .completion_size = sizeof(struct fwd_completion),
                                         .arg = state,
                                         .done = done,
                                         .get_service = get_service};
    int32_t result =
        host->forward->create(&services_and_done, json, strlen(json), &host->instance, &error);
    ck_assert_msg(result == FWD_OK, "create: %s at %s: %s", msg, pointer, json);
    free(json);
    result = host->forward->start(host->instance, &error);
    ck_assert_msg(result == FWD_OK, "start: %s", msg);
    return host;
}

struct host *host_open(enum mode mode, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct host *host = host_vopen(mode, NULL, format, args);
    va_end(args);
    return host;
}

struct host *host_open_with(enum mode mode, const struct service *services, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct host *host = host_vopen(mode, services, format, args);
    va_end(args);
    return host;
}

void host_close_drain(struct host *host, unsigned drain_ms)
{
    struct host_state *state = host->state;
    int32_t result = host->forward->stop(host->instance, (uint64_t)drain_ms * 1000000u);
    ck_assert_msg(result == FWD_OK || result == FWD_ERR_STATE, "stop returned %d", result);
    unsigned after_stop = host_completed(host);
    host->forward->destroy(host->instance);
    ck_assert_msg(state->fault[0] == '\0', "%s", state->fault);
    ck_assert_msg(after_stop == state->completed, "completions came after stop had returned");
    for (uint64_t i = 0; i < state->count; i++) {
        struct outcome *outcome = state->outcomes[i];
        unsigned expected = outcome->verdict == FWD_VERDICT_ACCEPTED;
        ck_assert_msg(outcome->completions == expected, "token %llu: verdict %u, %u completions",
                      (unsigned long long)outcome->token, outcome->verdict, outcome->completions);
        free(outcome->wire);
        free(outcome);
    }
    free(state->outcomes);
    pthread_cond_destroy(&state->changed);
    pthread_mutex_destroy(&state->mutex);
    free(state);
    free(host);
}

void host_close(struct host *host)
{
    host_close_drain(host, 0);
}

/* --- sending --------------------------------------------------------------------------------- */

/** Makes the outcome of a query that is about to be sent. */
static struct outcome *outcome_create(struct host_state *state)
{
    struct outcome *outcome = calloc(1, sizeof(*outcome));
    pthread_mutex_lock(&state->mutex);
    if (state->count == state->cap) {
        state->cap = state->cap == 0 ? 64 : state->cap * 2;
        state->outcomes = realloc(state->outcomes, state->cap * sizeof(struct outcome *));
    }
    state->outcomes[state->count++] = outcome;
    outcome->token = state->count;
    pthread_mutex_unlock(&state->mutex);
    return outcome;
}

/** Writes down what serve said. */
static void take_verdict(struct host_state *state, struct outcome *outcome,
                         const struct fwd_query *query)
{
    pthread_mutex_lock(&state->mutex);
    outcome->verdict = query->verdict;
    outcome->handle = query->handle;
    if (query->verdict != FWD_VERDICT_ACCEPTED) {
        outcome->rcode = query->rcode;
        outcome->error = query->error;
        outcome->ended = true;
        state->ended++;
    }
    pthread_mutex_unlock(&state->mutex);
}

uint64_t host_send_wire(struct host *host, const uint8_t *wire, size_t len, uint32_t flags)
{
    struct outcome *outcome = outcome_create(host->state);
    uint64_t token = outcome->token;
    char detail[sizeof(outcome->detail)] = "";
    struct fwd_query query = {.struct_size = sizeof(query),
                              .flags = flags,
                              .token = token,
                              .wire = wire,
                              .wire_len = (uint32_t)len,
                              .detail = detail,
                              .detail_cap = sizeof(detail)};
    serving = true;
    int32_t result = host->forward->serve(host->instance, &query, 1);
    serving = false;
    if (result < 0) {
        query.verdict = FWD_VERDICT_NONE;
        query.error = result;
    }
    if (query.verdict == FWD_VERDICT_RCODE) {
        memcpy(outcome->detail, detail, sizeof(detail));
    }
    take_verdict(host->state, outcome, &query);
    return token;
}

static uint64_t send_name(struct host *host, const char *name, uint32_t flags)
{
    uint8_t wire[512];
    size_t len = message_query(wire, sizeof(wire), CLIENT_ID, name, TYPE_A);
    return host_send_wire(host, wire, len, flags);
}

uint64_t host_send(struct host *host, const char *name)
{
    return send_name(host, name, 0);
}

uint64_t host_send_tcp(struct host *host, const char *name)
{
    return send_name(host, name, FWD_QUERY_TCP);
}

uint64_t host_send_batch(struct host *host, const char *prefix, unsigned count)
{
    struct fwd_query *queries = calloc(count, sizeof(*queries));
    struct outcome **outcomes = calloc(count, sizeof(struct outcome *));
    uint8_t(*wires)[300] = calloc(count, sizeof(*wires));
    for (unsigned i = 0; i < count; i++) {
        char name[280];
        snprintf(name, sizeof(name), "%s%u.test", prefix, i);
        outcomes[i] = outcome_create(host->state);
        queries[i] = (struct fwd_query){.struct_size = sizeof(*queries),
                                        .token = outcomes[i]->token,
                                        .wire = wires[i],
                                        .wire_len = (uint32_t)message_query(
                                            wires[i], sizeof(wires[i]), CLIENT_ID, name, TYPE_A)};
    }
    uint64_t first = outcomes[0]->token;
    serving = true;
    int32_t result = host->forward->serve(host->instance, queries, count);
    serving = false;
    ck_assert_int_eq(result, FWD_OK);
    for (unsigned i = 0; i < count; i++) {
        take_verdict(host->state, outcomes[i], &queries[i]);
    }
    free(queries);
    free(outcomes);
    free(wires);
    return first;
}

uint64_t host_exchange(struct host *host, unsigned proxy, const char *name, uint32_t options)
{
    uint8_t wire[512];
    struct outcome *outcome = outcome_create(host->state);
    uint64_t token = outcome->token;
    struct fwd_query query = FWD_INIT(struct fwd_query);
    query.token = token;
    query.wire = wire;
    query.wire_len = (uint32_t)message_query(wire, sizeof(wire), CLIENT_ID, name, TYPE_A);
    serving = true;
    int32_t result =
        host->proxies->exchange(host->proxies->at(host->instance, proxy), &query, options);
    serving = false;
    ck_assert_int_eq(result, FWD_OK);
    take_verdict(host->state, outcome, &query);
    return token;
}

/* --- waiting --------------------------------------------------------------------------------- */

/** Waits for something to change, or lets the module work, until end_ns at most. Called and returns
 * with the mutex held. */
static void wait_step(struct host *host, uint64_t end_ns)
{
    struct host_state *state = host->state;
    uint64_t now = now_ns();
    uint64_t left = end_ns > now ? end_ns - now : 0;
    if (host->mode == MODE_THREADS) {
        struct timespec until = {.tv_sec = (time_t)(end_ns / 1000000000u),
                                 .tv_nsec = (long)(end_ns % 1000000000u)};
        pthread_cond_timedwait(&state->changed, &state->mutex, &until);
        return;
    }
    pthread_mutex_unlock(&state->mutex);
    /* The descriptor knows nothing of a clock that the test moves. */
    uint64_t most = state->fake_time && left > 5000000u ? 5000000u : left;
    struct pollfd fds[SHARED_LOOPS];
    uint32_t loops = host->mode == MODE_SHARED ? SHARED_LOOPS : 1;
    for (uint32_t i = 0; i < loops; i++) {
        fds[i] = (struct pollfd){.fd = host->forward->poll_fd(host->instance, i), .events = POLLIN};
        ck_assert_int_ge(fds[i].fd, 0);
    }
    (void)poll(fds, loops, (int)(most / 1000000u) + 1);
    for (uint32_t i = 0; i < loops; i++) {
        ck_assert_int_ge(host->forward->run(host->instance, i), 0);
    }
    pthread_mutex_lock(&state->mutex);
}

const struct outcome *host_outcome(struct host *host, uint64_t token)
{
    pthread_mutex_lock(&host->state->mutex);
    const struct outcome *outcome = host->state->outcomes[token - 1];
    pthread_mutex_unlock(&host->state->mutex);
    return outcome;
}

const struct outcome *host_wait(struct host *host, uint64_t token, unsigned ms)
{
    uint64_t end = now_ns() + (uint64_t)ms * 1000000u;
    const struct outcome *outcome = host_outcome(host, token);
    pthread_mutex_lock(&host->state->mutex);
    while (!outcome->ended && now_ns() < end) {
        wait_step(host, end);
    }
    bool ended = outcome->ended;
    pthread_mutex_unlock(&host->state->mutex);
    ck_assert_msg(ended, "query %llu did not end within %u ms", (unsigned long long)token, ms);
    return outcome;
}

void host_wait_all(struct host *host, unsigned ms)
{
    struct host_state *state = host->state;
    uint64_t end = now_ns() + (uint64_t)ms * 1000000u;
    pthread_mutex_lock(&state->mutex);
    while (state->ended < state->count && now_ns() < end) {
        wait_step(host, end);
    }
    uint64_t left = state->count - state->ended;
    pthread_mutex_unlock(&state->mutex);
    ck_assert_msg(left == 0, "%llu queries did not end within %u ms", (unsigned long long)left, ms);
}

void host_work(struct host *host, unsigned ms)
{
    uint64_t end = now_ns() + (uint64_t)ms * 1000000u;
    pthread_mutex_lock(&host->state->mutex);
    while (now_ns() < end) {
        wait_step(host, end);
    }
    pthread_mutex_unlock(&host->state->mutex);
}

const struct outcome *host_ask(struct host *host, const char *name)
{
    return host_wait(host, host_send(host, name), 10000);
}

const struct outcome *host_ask_tcp(struct host *host, const char *name)
{
    return host_wait(host, host_send_tcp(host, name), 10000);
}

/* --- reading --------------------------------------------------------------------------------- */

bool outcome_good(const struct outcome *outcome, const char *name)
{
    return outcome->ended && outcome->kind == FWD_KIND_ANSWER && outcome->error == FWD_OK &&
           outcome->wire != NULL &&
           message_is_answer(outcome->wire, outcome->wire_len, CLIENT_ID, name);
}

void check_detail(const struct outcome *outcome, const char *text)
{
    ck_assert_msg(strstr(outcome->detail, text) != NULL, "'%s' is not in: %s", text,
                  outcome->detail);
}

void check_error(const struct outcome *outcome, int error, const char *text)
{
    ck_assert_int_eq(outcome->error, error);
    check_detail(outcome, text);
}

unsigned host_completed(struct host *host)
{
    pthread_mutex_lock(&host->state->mutex);
    unsigned completed = host->state->completed;
    pthread_mutex_unlock(&host->state->mutex);
    return completed;
}

struct fwd_pool_stats host_pool(struct host *host, unsigned proxy, uint32_t proto)
{
    struct fwd_pool_stats stats = FWD_INIT(struct fwd_pool_stats);
    struct fwd_proxy *at = host->proxies->at(host->instance, proxy);
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(host->proxies->pool_stats(at, proto, &stats), FWD_OK);
    return stats;
}

void host_wait_idle(struct host *host, unsigned proxy, uint32_t proto, unsigned idle)
{
    for (unsigned i = 0; i < 5000 && host_pool(host, proxy, proto).idle != idle; i++) {
        host_work(host, 1);
    }
    ck_assert_uint_eq(host_pool(host, proxy, proto).idle, idle);
}

double host_metric(struct host *host, const char *start)
{
    struct text text = {0};
    double sum = 0;
    ck_assert_int_eq(host->forward->metrics(host->instance, FWD_METRICS_PROMETHEUS, sink, &text),
                     FWD_OK);
    for (char *save = NULL, *line = strtok_r(text.data, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, start, strlen(start)) == 0) {
            const char *value = strrchr(line, ' ');
            sum += value != NULL ? strtod(value, NULL) : 0;
        }
    }
    free(text.data);
    return sum;
}

char *host_info(struct host *host)
{
    struct text text = {0};
    ck_assert_int_eq(host->forward->info(host->instance, sink, &text), FWD_OK);
    return text.data;
}

unsigned host_tcp_info(struct host *host, const char *key)
{
    char quoted[64];
    char *info = host_info(host);
    (void)snprintf(quoted, sizeof(quoted), "\"%s\":", key);
    char *pool = strstr(info, "\"tcp\":{");
    ck_assert_ptr_nonnull(pool);
    char *at = strstr(pool, quoted);
    ck_assert_ptr_nonnull(at);
    unsigned value = (unsigned)strtoul(at + strlen(quoted), NULL, 10);
    free(info);
    return value;
}

unsigned count_entries(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count;
}
