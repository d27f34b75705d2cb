/* Builds the module's own document from the tables that the code itself runs on: options,
 * metrics, errors.
 *
 * Happy path: the first call builds a JSON tree, prints it and keeps the text; later calls return
 * the same text. Key order is the order of insertion and nothing depends on the machine, so that
 * the build can print the same octets into forward.json.
 * Failure: out of memory leaves a constant document with name and version only, for the life of
 * the process.
 */
#include "describe.h"

#include "metrics_defs.h"
#include "options.h"

#include <forward/abi.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define HEAD                                                                                       \
    "\"describe_format\": \"1.0\", \"module\": {\"name\": \"forward\", \"version\": "              \
    "\"" FORWARD_VERSION "\"}"

static const char *text = "{" HEAD "}\n";
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const struct {
    const char *name;
    int code;
    const char *text;
} error_defs[] = {
#define FWD_ERROR(name, value, text) {#name, value, text},
#include "abi_errors.inc"
#undef FWD_ERROR
};

/* Options of the instance rather than of a stanza; no Corefile spelling. */
static const struct option_def instance_defs[] = {
    {"io_threads", "integer", "null", "0 to 256; absent: 2 with four cores and more, else 1",
     NULL, "I/O threads of the process; 0 lets the host drive the module with poll_fd and run.",
     "fwd"},
    {"loops", "integer", "1", "1 to 256", NULL,
     "With io_threads 0: how many loops the host turns, each by a thread of its own if it likes.",
     "fwd"},
    {"engine", "string", "\"\"", "any text", NULL,
     "Instances with the same engine, io_threads, loops and host services share loops, upstream connections and "
     "what is known of the upstreams' health. With I/O threads that goes for the empty name too; with io_threads 0 "
     "an instance without a name is by itself.",
     "fwd"},
    {"forward", "array", "[]", "objects, one for each forward directive in file order", NULL,
     "The stanzas, each with the options of config.stanza.", "CoreDNS"},
};

/* Appends item to array and returns 0; takes item in any case, so that calls can be chained without
 * cleanup. */
static int append(json_t *array, json_t *item)
{
    return item == NULL ? -1 : json_array_append_new(array, item);
}

static json_t *option_json(const struct option_def *def)
{
    json_t *value = json_loads(def->def, JSON_DECODE_ANY, NULL);

    /* A default that is not JSON text is shown as it is rather than lost. */
    if (value == NULL) {
        value = json_string(def->def);
    }
    return json_pack("{s:s, s:s, s:o, s:s?, s:s?, s:s?, s:s?}", "name", def->name, "type",
                     def->type, "default", value, "range", def->range, "corefile", def->corefile,
                     "help", def->help, "origin", def->origin);
}

static json_t *options_json(const struct option_def *defs, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++) {
        if (append(array, option_json(&defs[i])) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *errors_json(void)
{
    json_t *array = json_array();

    for (size_t i = 0; i < sizeof(error_defs) / sizeof(error_defs[0]); i++) {
        json_t *item = json_pack("{s:s, s:i, s:s}", "name", error_defs[i].name, "code",
                                 error_defs[i].code, "text", error_defs[i].text);
        if (append(array, item) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *metric_json(const struct metric_def *def)
{
    json_t *labels = json_array();

    for (size_t i = 0; i < sizeof(def->labels) / sizeof(def->labels[0]); i++) {
        if (def->labels[i] != NULL && append(labels, json_string(def->labels[i])) < 0) {
            json_decref(labels);
            return NULL;
        }
    }
    return json_pack("{s:s, s:s, s:o, s:s}", "name", def->name, "type", def->type, "labels", labels,
                     "help", def->help);
}

static json_t *metrics_json(void)
{
    json_t *array = json_array();

    for (size_t i = 0; i < metric_defs_count; i++) {
        if (append(array, metric_json(&metric_defs[i])) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *document(void)
{
    json_t *config =
        json_pack("{s:o, s:o}", "instance",
                  options_json(instance_defs, sizeof(instance_defs) / sizeof(instance_defs[0])),
                  "stanza", options_json(option_defs, option_defs_count));
    json_t *abi =
        json_pack("{s:i, s:i, s:[s, s, s]}", "major", FWD_ABI_MAJOR, "minor", FWD_ABI_MINOR,
                  "interfaces", FWD_FORWARD_ID, FWD_PROXIES_ID, FWD_COREFILE_ID);
    json_t *services =
        json_pack("{s:[], s:[s, s, s, s, s, s]}", "required", "optional", FWD_LOG_ID, FWD_CLOCK_ID,
                  FWD_RANDOM_ID, FWD_TAP_ID, FWD_TRACE_ID, FWD_THREAD_ID);

    return json_pack("{s:s, s:{s:s, s:s, s:s, s:s}, s:o, s:o, s:o, s:o, s:o, s:{s:i, s:i}}",
                     "describe_format", "1.0", "module", "name", "forward", "version",
                     FORWARD_VERSION, "license", "Apache-2.0", "summary",
                     "CoreDNS's forward plugin for any resolver process", "abi", abi, "services",
                     services, "config", config, "errors", errors_json(), "metrics", metrics_json(),
                     "limits", "max_upstreams", FWD_MAX_UPSTREAMS, "max_wire", FWD_MAX_WIRE);
}

static void build(void)
{
    json_t *root = document();
    char *dump = root == NULL ? NULL : json_dumps(root, JSON_INDENT(2));
    char *line;

    if (dump != NULL && asprintf(&line, "%s\n", dump) >= 0) {
        text = line;
    }
    free(dump);
    json_decref(root);
}

const char *describe_text(void)
{
    pthread_once(&once, build);
    return text;
}
