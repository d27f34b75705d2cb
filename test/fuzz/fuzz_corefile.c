/* A Corefile, and each forward directive in it. What the stanza parser makes must be what config.c
 * accepts.
 *
 * Files are only named relative to a directory that is not there, so that an input reaches nothing
 * outside of the parsers; absolute names can still be written, which is why inputs with /dev/ and
 * /proc/ are left out.
 */
#include "config.h"
#include "corefile_tree.h"
#include "fuzz.h"
#include "stanza.h"

#include <stdlib.h>
#include <string.h>

static char message[1024];
static struct fwd_error error = {
    .struct_size = sizeof(error), .msg = message, .msg_cap = sizeof(message)};

static void forward_parse(const json_t *item, uint32_t flags)
{
    struct fwd_directive directive = FWD_INIT(struct fwd_directive);
    struct fwd_token *list = corefile_tokens(item, &directive.token_count);
    struct config *config;
    json_t *json = NULL;
    char *text;

    directive.tokens = list;
    directive.flags = flags;
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
    int status;

    if (memmem(data, size, "/dev", 4) != NULL || memmem(data, size, "/proc", 5) != NULL) {
        return 0;
    }
    json = corefile_tree((const char *)data, size, "/nonesuch/Corefile", &status, &error);
    json_array_foreach(json_object_get(json, "blocks"), i, block)
    {
        json_array_foreach(json_object_get(block, "directives"), j, directive)
        {
            forward_parse(directive, 0);
            forward_parse(directive, FWD_DIRECTIVE_BRIEF);
        }
    }
    json_decref(json);
    return 0;
}
