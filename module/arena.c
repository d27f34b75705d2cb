/* An arena of growing blocks.
 *
 * Happy path: a pointer moves up in the newest block. What does not fit gets a new block, of its
 * own size if it is large. Failure modes: NULL when malloc fails; what was handed out stays valid.
 */
#include "arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE 16384

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
    size_t room = size < BLOCK_SIZE ? BLOCK_SIZE : size;
    void *ret;

    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    if (block == NULL || block->size - block->used < size) {
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
