/* fwd-resolver -validate -json for many Corefiles in one process.
 *
 * One request a line on stdin, {"File": NAME, "Text": BASE64}, one answer a line on stdout,
 * {"error": TEXT} or {"servers": [...]}, as the oracle beside it does for CoreDNS; the latter with
 * a member "check" when the module refuses later what the Corefile's reader took. The code is the
 * daemon's own: config_load, then the module's check.
 *
 * Happy path: read a line, decode, load, print. Failure modes: a request that is no JSON ends the
 * program with 2.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

/* Decodes base64 in place of a fresh buffer, which the caller frees. */
static char *decode(const char *text, size_t *ret_len)
{
    char *data = malloc(strlen(text) + 1);
    unsigned bits = 0;
    int count = 0;

    *ret_len = 0;
    for (; data != NULL && digit(*text) >= 0; text++) {
        bits = bits << 6 | (unsigned)digit(*text);
        count += 6;
        if (count >= 8) {
            count -= 8;
            data[(*ret_len)++] = (char)(bits >> count);
        }
    }
    return data;
}

static bool instances_check(const struct module *module, const struct config *config,
                            struct failure *failure)
{
    for (size_t s = 0; s < config->count; s++) {
        const struct server *server = &config->servers[s];
        struct module_error error;
        int status;

        if (!server->has_forward) {
            continue;
        }
        module_error_init(&error);
        status = module->forward->check(config->forwards.data + server->forward_at,
                                            server->forward_len, &error.error);
        if (status < 0) {
            return failure_from_module(failure, &error.error);
        }
    }
    return true;
}

static json_t *answer(const struct module *module, const struct corefile *corefile)
{
    struct failure failure = {.text = ""};
    struct config *config = config_load(module, corefile, "53", &failure);
    json_t *json;

    if (config == NULL) {
        return json_pack("{s:o}", "error",
                         json_stringn_nocheck(failure.text, strlen(failure.text)));
    }
    json = config_to_json(config);
    if (!instances_check(module, config, &failure)) {
        (void)json_object_set_new(json, "check", json_string(failure.text));
    }
    config_destroy(config);
    return json;
}

int main(int argc, char **argv)
{
    struct module module;
    struct failure failure = {.text = ""};
    char *line = NULL;
    size_t cap = 0;

    if (!module_load(&module, argc > 1 ? argv[1] : NULL, &failure)) {
        (void)fprintf(stderr, "%s\n", failure.text);
        return 2;
    }
    while (getline(&line, &cap, stdin) > 0) {
        json_t *request = json_loads(line, 0, NULL);
        struct corefile corefile = {
            .name = json_string_value(json_object_get(request, "File")),
            .full = true,
        };
        const char *text = json_string_value(json_object_get(request, "Text"));
        json_t *reply;
        char *data;

        if (corefile.name == NULL || text == NULL) {
            return 2;
        }
        data = decode(text, &corefile.len);
        corefile.text = data;
        reply = answer(&module, &corefile);
        (void)json_dumpf(reply, stdout, JSON_COMPACT);
        (void)putchar('\n');
        (void)fflush(stdout);
        free(data);
        json_decref(reply);
        json_decref(request);
    }
    free(line);
    return 0;
}
