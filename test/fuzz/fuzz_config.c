/* JSON configuration: whatever is accepted must come back the same. */
#include "config.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

/** One input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char message[256];
    char pointer[64];
    struct fwd_error error = FWD_INIT(struct fwd_error);
    struct config *config = NULL;
    json_t *once;
    json_t *twice;
    char *text;

    error.msg = message;
    error.msg_cap = sizeof(message);
    error.pointer = pointer;
    error.pointer_cap = sizeof(pointer);
    if (config_parse((const char *)data, size, &config, &error) != FWD_OK) {
        return 0;
    }
    once = config_to_json(config);
    config_destroy(config);
    text = json_dumps(once, 0);
    if (text == NULL || config_parse(text, strlen(text), &config, &error) != FWD_OK) {
        abort();
    }
    twice = config_to_json(config);
    config_destroy(config);
    if (!json_equal(once, twice)) {
        abort();
    }
    free(text);
    json_decref(once);
    json_decref(twice);
    return 0;
}
