/* File names and files.
 *
 * Happy path: strings in an arena. Failure modes: out of memory; file_read reports the system's
 * error in Go's words, EFBIG above its limit, and what a glob cannot read is left out, as in Go.
 */
#include "path.h"

#include "utf8.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* filepath.Clean in place: no "//", ".", or ".." that can be resolved. */
static char *clean(char *path)
{
    bool rooted = path[0] == '/';
    size_t keep = rooted; /* what ".." cannot remove */
    size_t out = rooted;
    const char *in = path + rooted;

    while (*in != '\0') {
        size_t len = strcspn(in, "/");

        if (len == 2 && in[0] == '.' && in[1] == '.' && out > keep) {
            while (out > keep && path[--out] != '/') {
            }
        } else if (len == 0 || (len == 1 && in[0] == '.') ||
                   (len == 2 && in[0] == '.' && in[1] == '.' && rooted)) {
            /* nothing to add */
        } else {
            bool up = len == 2 && in[0] == '.' && in[1] == '.';

            if (out > rooted) {
                path[out++] = '/';
            }
            memmove(path + out, in, len);
            out += len;
            keep = up ? out : keep;
        }
        in += len;
        in += *in == '/';
    }
    if (out == 0) {
        path[out++] = '.';
    }
    path[out] = '\0';
    return path;
}

/** Joined and cleaned. */
char *path_join(struct arena *arena, const char *dir, const char *name)
{
    char *ret = arena_printf(arena, "%s%s%s", dir, *dir != '\0' && *name != '\0' ? "/" : "", name);

    return ret != NULL && *ret != '\0' ? clean(ret) : ret;
}

/** Absolute and cleaned. */
char *path_absolute(struct arena *arena, const char *path)
{
    char cwd[PATH_MAX];

    if (path[0] == '/') {
        return path_join(arena, path, "");
    }
    return getcwd(cwd, sizeof(cwd)) != NULL ? path_join(arena, cwd, path) : NULL;
}

/** All but the last element. */
char *path_dir(struct arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *ret;

    if (slash == NULL) {
        return arena_copy(arena, ".", 1);
    }
    ret = arena_copy(arena, path, (size_t)(slash - path) + 1);
    return ret != NULL ? clean(ret) : NULL;
}

/* One name against one pattern element. Classes never come here: a lone bracket is a bad pattern.
 */
static bool element_match(const char *pattern, const char *name)
{
    for (; *pattern != '\0'; pattern++) {
        uint32_t rune;

        if (*pattern == '*') {
            do {
                if (element_match(pattern + 1, name)) {
                    return true;
                }
            } while (*name++ != '\0');
            return false;
        }
        if (*name == '\0') {
            return false;
        }
        if (*pattern == '?') {
            name += utf8_decode(name, strlen(name), &rune);
            continue;
        }
        pattern += *pattern == '\\';
        if (*pattern != *name++) {
            return false;
        }
    }
    return *name == '\0';
}

static bool pattern_bad(const char *pattern)
{
    for (; *pattern != '\0'; pattern++) {
        if (*pattern == '[' || (*pattern == '\\' && *++pattern == '\0')) {
            return true;
        }
    }
    return false;
}

static bool pattern_magic(const char *pattern)
{
    return strpbrk(pattern, "*?[\\") != NULL;
}

static bool list_add(struct path_list *list, const char *name)
{
    const char **items = realloc(list->items, (list->count + 1) * sizeof(*items));

    if (items == NULL || name == NULL) {
        list->items = items != NULL ? items : list->items;
        return false;
    }
    list->items = items;
    list->items[list->count++] = name;
    return true;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Adds dir's entries that match pattern, sorted. */
static int dir_glob(struct arena *arena, const char *dir, const char *pattern,
                    struct path_list *list)
{
    size_t first = list->count;
    struct dirent *entry;
    DIR *stream = opendir(dir);
    bool ok = true;

    if (stream == NULL) {
        return 0;
    }
    while (ok && (entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            element_match(pattern, entry->d_name)) {
            ok = list_add(list, path_join(arena, dir, entry->d_name));
        }
    }
    (void)closedir(stream);
    if (list->count > first) {
        qsort(list->items + first, list->count - first, sizeof(*list->items), name_compare);
    }
    return ok ? 0 : -2;
}

static int glob_add(struct arena *arena, const char *pattern, struct path_list *list)
{
    const char *slash = strrchr(pattern, '/');
    const char *name = slash != NULL ? slash + 1 : pattern;
    struct path_list dirs = {0};
    struct stat st;
    char *dir;
    int status;

    if (!pattern_magic(pattern)) {
        return lstat(pattern, &st) != 0 || list_add(list, pattern) ? 0 : -2;
    }
    dir = slash == NULL      ? arena_copy(arena, ".", 1)
          : slash == pattern ? arena_copy(arena, "/", 1)
                             : arena_copy(arena, pattern, (size_t)(slash - pattern));
    if (dir == NULL) {
        return -2;
    }
    if (!pattern_magic(dir)) {
        return dir_glob(arena, dir, name, list);
    }
    status = glob_add(arena, dir, &dirs);
    for (size_t i = 0; status == 0 && i < dirs.count; i++) {
        status = dir_glob(arena, dirs.items[i], name, list);
    }
    free(dirs.items);
    return status;
}

/** The files that a pattern names. */
int path_glob(struct arena *arena, const char *pattern, struct path_list *ret)
{
    struct path_list list = {0};
    int status = pattern_bad(pattern) ? -1 : glob_add(arena, pattern, &list);

    if (status != 0) {
        free(list.items);
        return status;
    }
    *ret = list;
    return 0;
}

/* Go's PathError: the operation, the file and the system's text, which Go has in lower case. */
static int read_fail(const char *operation, const char *path, int code, char *reason)
{
    char text[128];
    const char *message = strerror_r(code, text, sizeof(text));

    (void)snprintf(reason, GOTEXT_REASON, "%s %s: %c%s", operation, path, message[0] | 0x20,
                   message + 1);
    return code;
}

static int fd_read(int fd, char **ret_data, size_t *ret_len)
{
    size_t cap = 4096;
    size_t len = 0;
    char *data = malloc(cap);
    int status = data != NULL ? 0 : ENOMEM;

    while (status == 0) {
        ssize_t got = read(fd, data + len, cap - len - 1);

        if (got == 0) {
            data[len] = '\0';
            *ret_data = data;
            *ret_len = len;
            return 0;
        }
        if (got < 0) {
            status = errno == EINTR ? 0 : errno;
            continue;
        }
        len += (size_t)got;
        if (len > FILE_MAX) {
            status = EFBIG;
        } else if (cap - len < 2) {
            char *more = realloc(data, 2 * cap);

            data = more != NULL ? more : data;
            cap = more != NULL ? 2 * cap : cap;
            status = more != NULL ? 0 : ENOMEM;
        }
    }
    free(data);
    return status;
}

/** A file, whole. */
int file_read(const char *path, char **ret_data, size_t *ret_len, char reason[GOTEXT_REASON])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int status;

    if (fd < 0) {
        return read_fail("open", path, errno, reason);
    }
    (void)fcntl(fd, F_SETFL, 0);
    status = fd_read(fd, ret_data, ret_len);
    (void)close(fd);
    return status != 0 ? read_fail("read", path, status, reason) : 0;
}
