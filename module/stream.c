/* The parser's stream of tokens: two stacks, so that an import costs what it brings and not what
 * follows it.
 *
 * Happy path: tokens move from pending to past. Failure modes: stream_put may run out of memory; it
 * makes the room that stream_next needs, so that only it can fail.
 */
#include "stream.h"

#include <stdlib.h>
#include <string.h>

static bool list_reserve(struct token_list *list, size_t count)
{
    struct token *items;

    if (count <= list->cap) {
        return true;
    }
    count += count / 2;
    items = realloc(list->items, count * sizeof(*items));
    if (items == NULL) {
        return false;
    }
    list->items = items;
    list->cap = count;
    return true;
}

/** Puts tokens in front. Either stack gets room for all there is. */
bool stream_put(struct stream *stream, const struct token *tokens, size_t count)
{
    size_t total = stream->past.count + stream->pending.count + count;

    if (!list_reserve(&stream->past, total) || !list_reserve(&stream->pending, total)) {
        return false;
    }
    while (count-- > 0) {
        stream->pending.items[stream->pending.count++] = tokens[count];
    }
    return true;
}

/** Next token. */
bool stream_next(struct stream *stream)
{
    if (stream->pending.count == 0) {
        return false;
    }
    stream->past.items[stream->past.count++] = stream->pending.items[--stream->pending.count];
    return true;
}

/** One back. */
void stream_back(struct stream *stream)
{
    stream->pending.items[stream->pending.count++] = stream->past.items[--stream->past.count];
}

/** Forgets the current token. */
void stream_drop(struct stream *stream)
{
    stream->past.count--;
}

/** The current token. */
struct token *stream_current(const struct stream *stream)
{
    return stream->past.count > 0 ? &stream->past.items[stream->past.count - 1] : NULL;
}

/** Whether an argument follows. */
bool stream_next_same_line(const struct stream *stream)
{
    return stream->past.count > 0 && stream->pending.count > 0 &&
           token_same_line(stream_current(stream),
                           &stream->pending.items[stream->pending.count - 1]);
}

/** Whether the current token begins a line. "Later" is by number: a snippet from further up does
 * not begin one. */
bool stream_new_line(const struct stream *stream)
{
    const struct token *now = stream_current(stream);

    if (stream->past.count < 2) {
        return true;
    }
    return !token_same_file(now - 1, now) || now[-1].line + token_breaks(now - 1) < now->line;
}

/** Frees the stacks. */
void stream_fini(struct stream *stream)
{
    free(stream->past.items);
    free(stream->pending.items);
}
