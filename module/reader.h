/* Walking JSON configuration: typed values, tables of members, and the JSON pointer of where one
 * is.
 *
 * Threads: one at a time per reader. Ownership: what is read lies in the reader's arena; results of
 * the write functions are new references, NULL when out of memory. Standards: RFC 6901 (JSON pointer).
 */
#pragma once

#include "arena.h"

#include <forward/abi.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Where the reader is. All reading functions return FWD_OK, or FWD_ERR_CONFIG or FWD_ERR_NOMEM
 * with *error filled in. */
struct reader {
    struct fwd_error *error;
    struct arena *arena;
    void *context; /**< for the read functions of whoever reads */
    char pointer[256];
    size_t pointer_len;
};

/** One member of an object. */
struct member {
    const char *name;
    size_t offset; /**< of what read and write work on, in the struct at hand */
    int (*read)(struct reader *reader, const json_t *value, void *target);
    json_t *(*write)(const void *source); /**< NULL for what is only read */
};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/** Error about the value at hand. @return FWD_ERR_CONFIG */
int reader_fail(struct reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** @return FWD_ERR_NOMEM */
int reader_nomem(struct reader *reader);

/** Appends a step to the pointer. @return what reader_pop goes back to */
size_t reader_push(struct reader *reader, const char *key);
size_t reader_push_index(struct reader *reader, size_t index);
void reader_pop(struct reader *reader, size_t back);

/** The text of a string, owned by value. */
int reader_string(struct reader *reader, const json_t *value, const char **ret);

/** An integer from 0 to max. */
int reader_integer(struct reader *reader, const json_t *value, uint64_t max, uint64_t *ret);

/** Reads every element of an array into *items, zeroed elements of size octets (NULL for an empty
 * array). */
int reader_array(struct reader *reader, const json_t *value, size_t size,
                 int (*read)(struct reader *, const json_t *, void *), void **items,
                 uint32_t *count);

/** The other way round. */
json_t *array_to_json(const void *items, size_t count, size_t size, json_t *(*write)(const void *));

/** Reads the members of an object; others are errors, those absent leave target as it is. */
int members_read(struct reader *reader, const json_t *value, const struct member *members,
                 size_t count, void *target);

/** The same, but passes over the members that are not wanted, unless that is NULL. */
int members_read_if(struct reader *reader, const json_t *value, const struct member *members,
                    size_t count, void *target, bool (*wanted)(const char *name));

/** Writes all members. */
json_t *members_write(const struct member *members, size_t count, const void *source);

/* For tables. const char *; bool; uint64_t up to INT64_MAX; uint32_t; uint64_t in nanoseconds.
 */
int member_read_string(struct reader *reader, const json_t *value, void *target);
json_t *member_write_string(const void *source);
int member_read_bool(struct reader *reader, const json_t *value, void *target);
json_t *member_write_bool(const void *source);
int member_read_count(struct reader *reader, const json_t *value, void *target);
json_t *member_write_count(const void *source);
int member_read_uint32(struct reader *reader, const json_t *value, void *target);
json_t *member_write_uint32(const void *source);
int member_read_duration(struct reader *reader, const json_t *value, void *target);
json_t *member_write_duration(const void *source);
