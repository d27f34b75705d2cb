/* An arena of growing blocks.
 *
 * Happy path: a pointer moves up in the newest block. What does not fit gets a new block, twice as
 * large as the one before, up to a limit: there may be a hundred thousand small arenas, or one large
 * one. Failure modes: NULL when malloc fails; what was handed out stays valid.
 */
#include "arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_FIRST 256
#define BLOCK_LARGEST 65536

struct arena_block {
    struct arena_block *next;
    size_t used;
    size_t size;
    alignas(max_align_t) char data[];
};

/** Aligned memory. */
void *arena_alloc(struct arena *arena, size_t size)
{
    struct arena_block *block = arena->head;
    void *ret;

    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    if (block == NULL || block->size - block->used < size) {
        size_t room = block == NULL ? BLOCK_FIRST : 2 * block->size;

        room = room < BLOCK_LARGEST ? room : BLOCK_LARGEST;
        room = room < size ? size : room;
        block = malloc(sizeof(*block) + room);
        if (block == NULL) {
            return NULL;
        }
        *block = (struct arena_block){.next = arena->head, .size = room};
        arena->head = block;
    }
    ret = block->data + block->used;
    size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    block->used = size < block->size - block->used ? block->used + size : block->size;
    return ret;
}

/** Memory of zeros. */
void *arena_zeroed(struct arena *arena, size_t count, size_t size)
{
    void *ret = size == 0 || count <= SIZE_MAX / size ? arena_alloc(arena, count * size) : NULL;

    return ret != NULL ? memset(ret, 0, count * size) : NULL;
}

/** A copy ended with NUL. */
char *arena_copy(struct arena *arena, const char *text, size_t len)
{
    char *ret = arena_alloc(arena, len + 1);

    if (ret != NULL) {
        memcpy(ret, text, len);
        ret[len] = '\0';
    }
    return ret;
}

/** Formatted text. */
char *arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    char *ret;
    int len;

    va_start(args, format);
    len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ret = len < 0 ? NULL : arena_alloc(arena, (size_t)len + 1);
    if (ret != NULL) {
        va_start(args, format);
        (void)vsnprintf(ret, (size_t)len + 1, format, args);
        va_end(args);
    }
    return ret;
}

/** Frees all blocks. */
void arena_free(struct arena *arena)
{
    struct arena_block *block = arena->head;

    while (block != NULL) {
        struct arena_block *next = block->next;

        free(block);
        block = next;
    }
    arena->head = NULL;
}
