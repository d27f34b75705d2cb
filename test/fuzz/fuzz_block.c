/* The document of fwd.corefile/1 as fwd-resolver reads it: any octets as a server block, and what jansson
 * takes for JSON value by value, which must come out as jansson has it.
 */
#include "../../examples/resolver/block.h"
#include "fuzz.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static char *text_copy(const uint8_t *data, size_t size)
{
    char *text = malloc(size > 0 ? size : 1); /* exactly as long, so that the sanitizer sees a step beyond */
    if (text != NULL && size > 0) {
        memcpy(text, data, size);
    }
    return text;
}

static void read_as_blocks(char *text, size_t size)
{
    struct jsonscan scan = {.at = text, .end = text + size};
    struct block block = {0};
    struct tokens tokens;
    while (block_read(&block, &scan)) {
        (void)block_directive(&block, "forward", &tokens);
    }
    block_fini(&block);
}

static void demand(int holds)
{
    if (!holds) {
        abort();
    }
}

static void compare(struct jsonscan *scan, const json_t *value);

static void compare_array(struct jsonscan *scan, const json_t *array)
{
    size_t i = 0;
    for (bool more = jsonscan_enter(scan, '['); more; more = jsonscan_next(scan)) {
        compare(scan, json_array_get(array, i++));
    }
    demand(i == json_array_size(array));
}

static void compare_object(struct jsonscan *scan, const json_t *object)
{
    size_t members = 0;
    for (bool more = jsonscan_enter(scan, '{'); more; more = jsonscan_next(scan)) {
        compare(scan, json_object_get(object, jsonscan_name(scan)));
        members++;
    }
    demand(members == json_object_size(object));
}

static void compare_string(struct jsonscan *scan, const json_t *string)
{
    size_t len;
    const char *text = jsonscan_string(scan, &len);
    demand(len == json_string_length(string) && memcmp(text, json_string_value(string), len) == 0);
}

static void compare(struct jsonscan *scan, const json_t *value)
{
    demand(value != NULL && !scan->broken);
    if (json_is_array(value)) {
        compare_array(scan, value);
    } else if (json_is_object(value)) {
        compare_object(scan, value);
    } else if (json_is_string(value)) {
        compare_string(scan, value);
    } else {
        jsonscan_skip(scan);
    }
}

/** One input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = text_copy(data, size);
    json_t *value = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (text != NULL && value != NULL) {
        struct jsonscan scan = {.at = text, .end = text + size};
        compare(&scan, value);
        demand(jsonscan_end(&scan));
        memcpy(text, data, size); /* strings are decoded in place */
    }
    json_decref(value);
    if (text != NULL) {
        read_as_blocks(text, size);
    }
    free(text);
    return 0;
}
