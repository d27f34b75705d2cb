/* A Corefile, and each forward directive in it. What the stanza parser makes must be what config.c
 * accepts.
 *
 * Files are only named relative to a directory that is not there, so that an input reaches nothing
 * outside of the parsers; absolute names can still be written, which is why inputs with /dev/ and
 * /proc/ are left out.
 */
#include "config.h"
#include "corefile.h"
#include "fuzz.h"
#include "stanza.h"

#include <stdlib.h>
#include <string.h>

static char message[1024];
static struct fwd_error error = {
    .struct_size = sizeof(error), .msg = message, .msg_cap = sizeof(message)};

static struct fwd_token *tokens_make(const json_t *tokens)
{
    size_t count = json_array_size(tokens);
    struct fwd_token *list = calloc(count + 1, sizeof(*list));

    for (size_t i = 0; list != NULL && i < count; i++) {
        const json_t *token = json_array_get(tokens, i);

        list[i].struct_size = sizeof(*list);
        list[i].text = json_string_value(json_object_get(token, "text"));
        list[i].text_len = (uint32_t)strlen(list[i].text);
        list[i].file = json_string_value(json_object_get(token, "file"));
        list[i].line = (uint32_t)json_integer_value(json_object_get(token, "line"));
    }
    return list;
}

static void forward_parse(const json_t *tokens)
{
    struct fwd_directive directive = FWD_INIT(struct fwd_directive);
    struct fwd_token *list = tokens_make(tokens);
    struct config *config;
    json_t *json = NULL;
    char *text;

    directive.tokens = list;
    directive.token_count = (uint32_t)json_array_size(tokens);
    if (list == NULL || stanza_parse(&directive, &json, &error) != FWD_OK) {
        free(list);
        json_decref(json);
        return;
    }
    text = json_dumps(json, 0);
    if (text == NULL || config_parse(text, strlen(text), &config, &error) != FWD_OK) {
        abort();
    }
    config_destroy(config);
    free(text);
    free(list);
    json_decref(json);
}

/** One input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = NULL;
    const json_t *block;
    const json_t *directive;
    size_t i;
    size_t j;

    if (memmem(data, size, "/dev", 4) != NULL || memmem(data, size, "/proc", 5) != NULL) {
        return 0;
    }
    if (corefile_parse((const char *)data, size, "/nonesuch/Corefile", &json, &error) != FWD_OK) {
        return 0;
    }
    json_array_foreach(json_object_get(json, "blocks"), i, block)
    {
        json_array_foreach(json_object_get(block, "directives"), j, directive)
        {
            forward_parse(json_object_get(directive, "tokens"));
        }
    }
    json_decref(json);
    return 0;
}
