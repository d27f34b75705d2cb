/* The smallest host of forward.so: forwards one query and prints what came of it.
 *
 *   minimal forward.so 'forward . 9.9.9.9' www.example.org
 *
 * Happy path: load, take the table, translate the Corefile line, create, start, serve one query,
 * wait for its completion. Failure modes: every step that fails prints the module's own words and
 * ends with 1.
 */
#include <dlfcn.h>
#include <forward/abi.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* What the module's thread leaves for main. */
struct result {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    int done;
    uint32_t kind, rcode, len;
    uint8_t wire[FWD_MAX_WIRE];
    char detail[256];
};

/* A sink takes a document piece by piece; this one keeps it as a string. */
struct document {
    char text[16384];
    size_t len;
};

static int32_t keep(void *arg, const char *data, uint64_t len)
{
    struct document *document = arg;
    if (len >= sizeof(document->text) - document->len) {
        return FWD_ERR_NOMEM;
    }
    memcpy(document->text + document->len, data, len);
    document->len += len;
    return FWD_OK;
}

/* Runs on an I/O thread of the module. What the completions point to ends with this call, so it is
 * copied. */
static void done(void *arg, const struct fwd_completion *completions, uint32_t count)
{
    struct result *result = arg;
    (void)count; /* one query was served, so one ends */
    pthread_mutex_lock(&result->mutex);
    result->kind = completions->kind;
    result->rcode = completions->rcode;
    if (completions->wire != NULL) {
        memcpy(result->wire, completions->wire, completions->wire_len);
        result->len = completions->wire_len;
    }
    if (completions->detail != NULL) {
        snprintf(result->detail, sizeof(result->detail), "%s", completions->detail);
    }
    result->done = 1;
    pthread_cond_signal(&result->ended);
    pthread_mutex_unlock(&result->mutex);
}

/* A query for the A records of a name: header, labels, type, class. */
static uint32_t query_build(uint8_t wire[300], const char *name)
{
    memcpy(wire, (const uint8_t[12]){0x12, 0x34, 1, 0, 0, 1}, 12);
    uint32_t at = 12;
    while (*name != '\0' && at < 260) {
        size_t label = strcspn(name, ".");
        if (label == 0 || label > 63 || at + label > 260) {
            return 0;
        }
        wire[at++] = (uint8_t)label;
        memcpy(wire + at, name, label);
        at += (uint32_t)label;
        name += label + (name[label] == '.');
    }
    memcpy(wire + at, (const uint8_t[5]){0, 0, 1, 0, 1}, 5);
    return at + 5;
}

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

int main(int argc, char **argv)
{
    uint8_t wire[300];
    uint32_t len = argc == 4 ? query_build(wire, argv[3]) : 0;
    if (len == 0) {
        return fail("usage", "minimal MODULE 'forward FROM TO...' NAME");
    }
    void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    const struct fwd_module *(*entry)(uint32_t) = NULL;
    if (handle == NULL || (*(void **)&entry = dlsym(handle, "fwd_module_entry")) == NULL) {
        return fail(argv[1], dlerror());
    }
    const struct fwd_module *module = entry(FWD_ABI_MAJOR);
    const struct fwd_forward *forward = module ? module->get_interface(FWD_FORWARD_ID) : NULL;
    if (forward == NULL) {
        return fail(argv[1], "does not speak this ABI");
    }

    char text[512] = "";
    struct fwd_error error = FWD_INIT(struct fwd_error);
    error.msg = text;
    error.msg_cap = sizeof(text);
    struct fwd_directive directive = FWD_INIT(struct fwd_directive);
    directive.text = argv[2];
    directive.text_len = strlen(argv[2]);
    directive.file = "argument";
    static struct document config;
    static struct result result = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};
    struct fwd_host host = FWD_INIT(struct fwd_host);
    host.completion_size = sizeof(struct fwd_completion);
    host.arg = &result;
    host.done = done;
    struct fwd_instance *instance = NULL;
    if (forward->corefile_to_json(&directive, keep, &config, &error) < 0 ||
        forward->create(&host, config.text, config.len, &instance, &error) < 0 ||
        forward->start(instance, &error) < 0) {
        return fail("configuration", text);
    }

    struct fwd_query query = FWD_INIT(struct fwd_query);
    query.wire = wire;
    query.wire_len = len;
    int status = forward->serve(instance, &query, 1);
    if (status < 0 || query.verdict != FWD_VERDICT_ACCEPTED) {
        return fail("serve", status < 0 ? module->strerror(status) : "not accepted");
    }
    pthread_mutex_lock(&result.mutex);
    while (!result.done) {
        pthread_cond_wait(&result.ended, &result.mutex);
    }
    pthread_mutex_unlock(&result.mutex);
    forward->destroy(instance);

    if (result.kind != FWD_KIND_ANSWER) {
        return fail("no answer", result.detail);
    }
    printf("%u octets, rcode %u, %u answers\n", result.len, result.rcode,
           result.wire[6] << 8 | result.wire[7]);
    return 0;
}
