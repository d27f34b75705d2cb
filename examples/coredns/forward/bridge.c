// clang-format off
//go:build cgo && linux
/* clang-format on */

/* The C side of the plugin.
 *
 * Happy path: bridge_load finds the module's tables once; the other functions call through them and
 * turn sinks and error buffers into texts. done puts a batch of completions down for Go to fetch;
 * log, tap and trace, which are rare, go on to the exported Go functions.
 *
 * Failure modes: no such file, no such symbol, another ABI, a function missing in a table: a text
 * that names it. Out of memory while a text grows: FWD_ERR_NOMEM. A second module in one process is
 * refused, since instances of the first may live.
 */
#include "bridge.h"

#include "_cgo_export.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct fwd_module *module;
static const struct fwd_forward *forward;

enum { ERROR_ROOM = 4096, RCODE_SERVFAIL = 2 };

static struct bridge_text failure(int32_t status, const char *before, const char *text)
{
    struct bridge_text ret = {.status = status};
    size_t room = strlen(before) + strlen(text) + 1;
    ret.error = malloc(room);
    if (ret.error != NULL) {
        (void)snprintf(ret.error, room, "%s%s", before, text);
    }
    return ret;
}

/* --- loading
 * ------------------------------------------------------------------------------------------------------
 */

#define TEXT_OF(number) #number
#define TEXT(macro) TEXT_OF(macro)

#define NEED(table, fn)                                                                            \
    if (!FWD_HAS(table, fn)) {                                                                     \
        return #fn;                                                                                \
    }

/* The name of the first function that the module is too old for, or NULL. */
static const char *missing_function(const struct fwd_forward *table)
{
    NEED(table, corefile_to_json)
    NEED(table, check)
    NEED(table, create)
    NEED(table, start)
    NEED(table, match)
    NEED(table, serve)
    NEED(table, cancel)
    NEED(table, poll_fd)
    NEED(table, run)
    NEED(table, stop)
    NEED(table, destroy)
    NEED(table, info)
    NEED(table, metrics)
    return NULL;
}

/* Finds the tables behind an entry. @return NULL, or what is wrong, in two parts */
static const char *find_tables(const struct fwd_module *(*entry)(uint32_t), const char **ret_what)
{
    static const char version[] = "ABI " TEXT(FWD_ABI_MAJOR) "." TEXT(FWD_ABI_MINOR);
    const struct fwd_module *found = entry(FWD_ABI_MAJOR);
    *ret_what = version;
    if (found == NULL || !FWD_HAS(found, get_interface)) {
        return "it does not implement ";
    }
    const struct fwd_forward *table = found->get_interface(FWD_FORWARD_ID);
    *ret_what = table != NULL ? missing_function(table) : FWD_FORWARD_ID;
    if (*ret_what != NULL) {
        return "it is too old, it lacks ";
    }
    *ret_what = "another module";
    if (module != NULL && module != found) {
        return "the process has already loaded ";
    }
    module = found;
    forward = table;
    return NULL;
}

struct bridge_text bridge_load(const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        return failure(FWD_ERR_NOTFOUND, "", dlerror());
    }
    const struct fwd_module *(*entry)(uint32_t) = NULL;
    *(void **)&entry = dlsym(handle, "fwd_module_entry");
    const char *what = "fwd_module_entry";
    const char *problem =
        entry != NULL ? find_tables(entry, &what) : "it is no forward.so, it lacks ";
    if (problem != NULL) {
        (void)dlclose(handle);
        return failure(FWD_ERR_ABI, problem, what);
    }
    return (struct bridge_text){.status = FWD_OK};
}

const char *bridge_strerror(int32_t code)
{
    return module->strerror(code);
}

/* --- texts
 * --------------------------------------------------------------------------------------------------------
 */

static int32_t keep(void *arg, const char *data, uint64_t len)
{
    struct bridge_text *text = arg;
    char *grown = realloc(text->data, text->len + len);
    if (grown == NULL) {
        return FWD_ERR_NOMEM;
    }
    memcpy(grown + text->len, data, len);
    text->data = grown;
    text->len += len;
    return FWD_OK;
}

/* What a call gave: its text, and that of its error. */
static struct bridge_text outcome(struct bridge_text text, int32_t status, const char *message)
{
    if (status < 0) {
        text.error = failure(status, "", message[0] != '\0' ? message : bridge_strerror(status)).error;
    }
    text.status = status;
    return text;
}

#define ERROR_WITH(message)                                                                        \
    {                                                                                              \
        .struct_size = sizeof(struct fwd_error), .msg = (message), .msg_cap = sizeof(message)      \
    }

struct bridge_text bridge_corefile_to_json(const struct fwd_token *tokens, uint32_t count,
                                           const char *root)
{
    char message[ERROR_ROOM] = "";
    struct fwd_error error = ERROR_WITH(message);
    struct fwd_directive directive = FWD_INIT(struct fwd_directive);
    struct bridge_text text = {0};
    directive.tokens = tokens;
    directive.token_count = count;
    directive.root = root;
    directive.flags = FWD_DIRECTIVE_BRIEF;
    int32_t status = forward->corefile_to_json(&directive, keep, &text, &error);
    return outcome(text, status, message);
}

struct bridge_text bridge_check(const char *config, uint64_t len)
{
    char message[ERROR_ROOM] = "";
    struct fwd_error error = ERROR_WITH(message);
    int32_t status = forward->check(config, len, &error);
    return outcome((struct bridge_text){0}, status, message);
}

struct bridge_text bridge_info(struct fwd_instance *instance)
{
    struct bridge_text text = {0};
    int32_t status = forward->info(instance, keep, &text);
    return outcome(text, status, "");
}

struct bridge_text bridge_metrics(void)
{
    struct bridge_text text = {0};
    int32_t status = forward->metrics(NULL, FWD_METRICS_JSON, keep, &text);
    return outcome(text, status, "");
}

/* --- services
 * -----------------------------------------------------------------------------------------------------
 */

static void log_write(void *arg, uint32_t level, const char *msg, uint32_t len)
{
    (void)arg;
    fwdBridgeLog(level, (char *)msg, len);
}

static void tap(void *arg, const struct fwd_tap_event *event)
{
    (void)arg;
    fwdBridgeTap((struct fwd_tap_event *)event);
}

static void span(void *arg, const struct fwd_span *ended)
{
    (void)arg;
    fwdBridgeSpan((struct fwd_span *)ended);
}

/* Instances whose tables are the same share I/O threads and warm connections, so these are for the
 * whole process. */
static const struct fwd_log log_table = {.struct_size = sizeof(log_table), .write = log_write};
static const struct fwd_tap tap_table = {.struct_size = sizeof(tap_table), .tap = tap};
static const struct fwd_trace trace_table = {.struct_size = sizeof(trace_table), .span = span};

/* What the instance that this thread is creating wants. Not in fwd_host.arg: only instances with
 * the same arg share batches. */
static _Thread_local uint32_t wanted;

static const void *get_service(void *arg, const char *id)
{
    (void)arg;
    if (strcmp(id, FWD_LOG_ID) == 0) {
        return &log_table;
    }
    if (strcmp(id, FWD_TAP_ID) == 0 && (wanted & BRIDGE_TAP) != 0) {
        return &tap_table;
    }
    if (strcmp(id, FWD_TRACE_ID) == 0 && (wanted & BRIDGE_TRACE) != 0) {
        return &trace_table;
    }
    return NULL;
}

/* --- completions
 * --------------------------------------------------------------------------------------------------
 */

struct bridge_slot *bridge_ended;

struct bridge_slot *bridge_slots(uint64_t first, uint32_t count)
{
    struct bridge_slot *slots = calloc(count, sizeof(*slots));
    for (uint32_t i = 0; slots != NULL && i < count; i++) {
        slots[i].index = first + i;
    }
    return slots;
}

void bridge_slot_shrink(struct bridge_slot *slot)
{
    free(slot->wire);
    slot->wire = NULL;
    slot->wire_cap = 0;
}

static void keep_answer(struct bridge_slot *slot, const struct fwd_completion *completion)
{
    enum { LEAST = 512 };
    uint32_t len = completion->wire_len;
    if (len > slot->wire_cap) {
        uint32_t cap = len > LEAST ? len : LEAST;
        uint8_t *grown = realloc(slot->wire, cap);
        if (grown == NULL) {
            slot->kind = FWD_KIND_RCODE;
            slot->rcode = RCODE_SERVFAIL;
            (void)snprintf(slot->detail, sizeof(slot->detail), "%s",
                           bridge_strerror(FWD_ERR_NOMEM));
            return;
        }
        slot->wire = grown;
        slot->wire_cap = cap;
    }
    memcpy(slot->wire, completion->wire, len);
    slot->wire_len = len;
}

static void put_down(struct bridge_slot *slot, const struct fwd_completion *completion)
{
    slot->kind = completion->kind;
    slot->rcode = completion->rcode;
    slot->proto = completion->proto;
    slot->wire_len = 0;
    slot->upstream_len = 0;
    if (completion->upstream != NULL) {
        size_t len = strlen(completion->upstream);
        slot->upstream_len =
            (uint32_t)(len < sizeof(slot->upstream) ? len : sizeof(slot->upstream));
        memcpy(slot->upstream, completion->upstream, slot->upstream_len);
    }
    slot->detail[0] = '\0';
    if (completion->detail != NULL) {
        (void)snprintf(slot->detail, sizeof(slot->detail), "%s", completion->detail);
    }
    if (completion->wire != NULL) {
        keep_answer(slot, completion);
    }
}

/* What a turn of the loop finished: put down, hung in as one piece. */
static void done(void *arg, const struct fwd_completion *completions, uint32_t count)
{
    (void)arg;
    struct bridge_slot *first = NULL;
    struct bridge_slot *last = (struct bridge_slot *)(uintptr_t)completions[0].token;
    for (uint32_t i = 0; i < count; i++) {
        struct bridge_slot *slot = (struct bridge_slot *)(uintptr_t)completions[i].token;
        put_down(slot, &completions[i]);
        slot->next = first;
        first = slot;
    }
    struct bridge_slot *head = __atomic_load_n(&bridge_ended, __ATOMIC_RELAXED);
    do {
        last->next = head;
    } while (!__atomic_compare_exchange_n(&bridge_ended, &head, first, 1, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
}

/* --- instances
 * ----------------------------------------------------------------------------------------------------
 */

struct bridge_text bridge_create(const char *config, uint64_t len, uint32_t services,
                                 struct fwd_instance **ret)
{
    char message[ERROR_ROOM] = "";
    struct fwd_error error = ERROR_WITH(message);
    struct fwd_host host = FWD_INIT(struct fwd_host);
    host.completion_size = sizeof(struct fwd_completion);
    host.done = done;
    host.get_service = get_service;
    wanted = services;
    int32_t status = forward->create(&host, config, len, ret, &error);
    return outcome((struct bridge_text){0}, status, message);
}

struct bridge_text bridge_start(struct fwd_instance *instance)
{
    char message[ERROR_ROOM] = "";
    struct fwd_error error = ERROR_WITH(message);
    int32_t status = forward->start(instance, &error);
    return outcome((struct bridge_text){0}, status, message);
}

int32_t bridge_poll_fd(struct fwd_instance *instance)
{
    return forward->poll_fd(instance, 0);
}

int32_t bridge_run(struct fwd_instance *instance)
{
    return forward->run(instance, 0);
}

int32_t bridge_stop(struct fwd_instance *instance, uint64_t drain_ns)
{
    return forward->stop(instance, drain_ns);
}

void bridge_destroy(struct fwd_instance *instance)
{
    forward->destroy(instance);
}

int32_t bridge_match(struct fwd_instance *instance, const uint8_t *qname, uint32_t len)
{
    return forward->match(instance, qname, len);
}

int32_t bridge_cancel(struct fwd_instance *instance, uint64_t handle)
{
    return forward->cancel(instance, handle);
}

int32_t bridge_serve(struct fwd_instance *instance, struct bridge_slot *slot, uint32_t flags,
                     const uint8_t *wire, uint32_t len)
{
    struct fwd_query query = FWD_INIT(struct fwd_query);
    char detail[sizeof(slot->detail)];
    detail[0] = '\0';
    query.token = (uint64_t)(uintptr_t)slot;
    query.flags = flags;
    query.wire = wire;
    query.wire_len = len;
    query.detail = detail;
    query.detail_cap = sizeof(detail);
    int32_t status = forward->serve(instance, &query, 1);
    if (status < 0) {
        return status;
    }
    slot->verdict = query.verdict;
    slot->handle = query.handle;
    if (query.verdict == FWD_VERDICT_RCODE) { /* no completion will come */
        slot->rcode = query.rcode;
        memcpy(slot->detail, detail, sizeof(detail));
    }
    return status;
}
