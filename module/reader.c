/* Walking JSON configuration.
 *
 * Happy path: a table of members sends each value of an object to the function that reads it.
 * Failure modes: FWD_ERR_CONFIG with text and pointer for unknown members, wrong types and ranges;
 * FWD_ERR_NOMEM. A pointer that does not fit is cut.
 */
#include "reader.h"

#include "error.h"
#include "gotext.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/** Refuses the value at hand. */
int reader_fail(struct reader *reader, const char *format, ...)
{
    struct error_place place = {.pointer = reader->pointer};
    va_list args;

    va_start(args, format);
    (void)error_setv(reader->error, FWD_ERR_CONFIG, &place, format, args);
    va_end(args);
    return FWD_ERR_CONFIG;
}

/** Reports that memory is out. */
int reader_nomem(struct reader *reader)
{
    return error_set(reader->error, FWD_ERR_NOMEM, NULL, "out of memory");
}

/** Appends /KEY, escaped after RFC 6901. Returns the length to go back to. */
size_t reader_push(struct reader *reader, const char *key)
{
    size_t back = reader->pointer_len;
    size_t at = back;

    if (at + 4 < sizeof(reader->pointer)) {
        reader->pointer[at++] = '/';
    }
    for (; *key != '\0' && at + 3 < sizeof(reader->pointer); key++) {
        if (*key == '~' || *key == '/') {
            reader->pointer[at++] = '~';
            reader->pointer[at++] = *key == '~' ? '0' : '1';
        } else {
            reader->pointer[at++] = *key;
        }
    }
    reader->pointer[at] = '\0';
    reader->pointer_len = at;
    return back;
}

/** One step down, into an array. */
size_t reader_push_index(struct reader *reader, size_t index)
{
    char key[24];

    (void)snprintf(key, sizeof(key), "%zu", index);
    return reader_push(reader, key);
}

/** Back up. */
void reader_pop(struct reader *reader, size_t back)
{
    reader->pointer_len = back;
    reader->pointer[back] = '\0';
}

/** Text of a string. */
int reader_string(struct reader *reader, const json_t *value, const char **ret)
{
    *ret = json_string_value(value);
    return *ret != NULL ? FWD_OK : reader_fail(reader, "expected a string");
}

/** Reads a string. */
int member_read_string(struct reader *reader, const json_t *value, void *target)
{
    const char **slot = target;
    const char *text;
    int status = reader_string(reader, value, &text);

    if (status != FWD_OK) {
        return status;
    }
    *slot = *text == '\0' ? "" : arena_copy(reader->arena, text, strlen(text));
    return *slot != NULL ? FWD_OK : reader_nomem(reader);
}

/** Writes a string. */
json_t *member_write_string(const void *source)
{
    return json_string(*(char *const *)source);
}

/** Reads a boolean. */
int member_read_bool(struct reader *reader, const json_t *value, void *target)
{
    if (!json_is_boolean(value)) {
        return reader_fail(reader, "expected true or false");
    }
    *(bool *)target = json_is_true(value);
    return FWD_OK;
}

/** Writes a boolean. */
json_t *member_write_bool(const void *source)
{
    return json_boolean(*(const bool *)source);
}

/** An integer in its range. */
int reader_integer(struct reader *reader, const json_t *value, uint64_t max, uint64_t *ret)
{
    if (!json_is_integer(value)) {
        return reader_fail(reader, "expected an integer");
    }
    if (json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max) {
        return reader_fail(reader, "must be between 0 and %" PRIu64 ", not %" JSON_INTEGER_FORMAT,
                           max, json_integer_value(value));
    }
    *ret = (uint64_t)json_integer_value(value);
    return FWD_OK;
}

/** Reads a number of Go's type int, not negative. */
int member_read_count(struct reader *reader, const json_t *value, void *target)
{
    return reader_integer(reader, value, INT64_MAX, target);
}

/** Writes a number of Go's type int, not negative. */
json_t *member_write_count(const void *source)
{
    return json_integer((json_int_t) * (const uint64_t *)source);
}

/** Reads a number of 32 bits. */
int member_read_uint32(struct reader *reader, const json_t *value, void *target)
{
    uint64_t number = 0;
    int status = reader_integer(reader, value, UINT32_MAX, &number);

    if (status == FWD_OK) {
        *(uint32_t *)target = (uint32_t)number;
    }
    return status;
}

/** Writes a number of 32 bits. */
json_t *member_write_uint32(const void *source)
{
    return json_integer(*(const uint32_t *)source);
}

/** Reads a duration, not negative. */
int member_read_duration(struct reader *reader, const json_t *value, void *target)
{
    char reason[GOTEXT_REASON];
    const char *text = json_string_value(value);
    int64_t ns;

    if (text == NULL) {
        return reader_fail(reader, "expected a duration such as \"10s\"");
    }
    if (gotext_duration(text, &ns, reason) != 0) {
        return reader_fail(reader, "%s", reason);
    }
    if (ns < 0) {
        return reader_fail(reader, "can't be negative: %s", text);
    }
    *(uint64_t *)target = (uint64_t)ns;
    return FWD_OK;
}

/** Writes a duration, not negative. */
json_t *member_write_duration(const void *source)
{
    char text[GOTEXT_DURATION];

    gotext_duration_print((int64_t) * (const uint64_t *)source, text);
    return json_string(text);
}

/* Checks that value is an array and makes room for its elements: *ret_items, zeroed, is NULL for an
 * empty one. */
static int array_open(struct reader *reader, const json_t *value, size_t size, void **ret_items)
{
    *ret_items = NULL;
    if (!json_is_array(value)) {
        return reader_fail(reader, "expected an array");
    }
    if (json_array_size(value) == 0) {
        return FWD_OK;
    }
    *ret_items = arena_zeroed(reader->arena, json_array_size(value), size);
    return *ret_items != NULL ? FWD_OK : reader_nomem(reader);
}

/** Reads every element with read. */
int reader_array(struct reader *reader, const json_t *value, size_t size,
                 int (*read)(struct reader *, const json_t *, void *), void **items,
                 uint32_t *count)
{
    const json_t *item;
    size_t i;
    int status = array_open(reader, value, size, items);

    for (i = 0; status == FWD_OK && i < json_array_size(value); i++) {
        size_t back = reader_push_index(reader, i);

        item = json_array_get(value, i);
        *count = (uint32_t)(i + 1);
        status = read(reader, item, (char *)*items + i * size);
        reader_pop(reader, back);
    }
    return status;
}

/** The other way round. */
json_t *array_to_json(const void *items, size_t count, size_t size, json_t *(*write)(const void *))
{
    json_t *array = json_array();

    for (size_t i = 0; array != NULL && i < count; i++) {
        if (json_array_append_new(array, write((const char *)items + i * size)) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static const struct member *member_find(const struct member *members, size_t count,
                                        const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(members[i].name, name) == 0) {
            return &members[i];
        }
    }
    return NULL;
}

/** Those members of an object that are wanted. */
int members_read_if(struct reader *reader, const json_t *value, const struct member *members,
                    size_t count, void *target, bool (*wanted)(const char *name))
{
    const char *name;
    json_t *item;

    if (!json_is_object(value)) {
        return reader_fail(reader, "expected an object");
    }
    json_object_foreach((json_t *)value, name, item)
    {
        if (wanted != NULL && !wanted(name)) {
            continue;
        }
        const struct member *member = member_find(members, count, name);
        size_t back = reader_push(reader, name);
        int status = member != NULL ? member->read(reader, item, (char *)target + member->offset)
                                    : reader_fail(reader, "unknown option '%s'", name);

        if (status != FWD_OK) {
            return status;
        }
        reader_pop(reader, back);
    }
    return FWD_OK;
}

/** Every member of an object. */
int members_read(struct reader *reader, const json_t *value, const struct member *members,
                 size_t count, void *target)
{
    return members_read_if(reader, value, members, count, target, NULL);
}

/** The other way round. */
json_t *members_write(const struct member *members, size_t count, const void *source)
{
    json_t *object = json_object();

    for (size_t i = 0; object != NULL && i < count; i++) {
        json_t *value;

        if (members[i].write == NULL) {
            continue; /* read only */
        }
        value = members[i].write((const char *)source + members[i].offset);
        if (json_object_set_new(object, members[i].name, value) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}
