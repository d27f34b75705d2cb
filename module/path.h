/* File names as Go's path/filepath joins, cleans and matches them, and files read whole.
 *
 * Threads: any. Ownership: names live in the arena; file_read's data is the caller's to free.
 * Limits: files of up to FILE_MAX octets. Standards: Go 1.26 path/filepath Abs, Clean, Dir, Join,
 * Glob on Unix.
 */
#pragma once

#include "arena.h"
#include "gotext.h"

#include <stdbool.h>

#define FILE_MAX ((size_t)64 << 20)

/** filepath.Join(dir, name), cleaned. @return NULL when out of memory */
char *path_join(struct arena *arena, const char *dir, const char *name);

/** filepath.Abs. @return NULL when out of memory or without a working directory */
char *path_absolute(struct arena *arena, const char *path);

/** filepath.Dir of a cleaned path. @return NULL when out of memory */
char *path_dir(struct arena *arena, const char *path);

/** Names of files, in the order of their octets. */
struct path_list {
    const char **items; /**< to be freed; the names are the arena's */
    size_t count;
};

/** filepath.Glob. @return 0, -1 for a bad pattern, -2 when out of memory */
int path_glob(struct arena *arena, const char *pattern, struct path_list *ret);

/** Reads a file whole; *ret_data ends with NUL. @return 0, or errno with Go's text, such as "open
 * X: permission denied", in reason. A FIFO without a writer is empty rather than waited for. */
int file_read(const char *path, char **ret_data, size_t *ret_len, char reason[GOTEXT_REASON]);
