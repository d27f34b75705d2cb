/* Reading a server block.
 *
 * Happy path: {"keys": [[FILE, LINE, TEXT, [ZONE, PORT, TRANSPORT]...]...],
 * "directives": [[NAME, [FILE, LINE, TOKEN...]...]...]} is read in one go; instead of its zones a key may have the reason why it is none.
 * Failure modes: the document is another one, which breaks the scan; out of memory.
 */
#include "block.h"

#include <stdlib.h>
#include <string.h>

/* Room for one more. @return NULL when out of memory */
static void *list_add(void *items, size_t *count, size_t *room, size_t size)
{
    if (*count == *room) {
        size_t more = *room > 0 ? 2 * *room : 8;
        items = reallocarray(items, more, size);
        if (items == NULL) {
            return NULL;
        }
        *room = more;
    }
    (*count)++;
    return items;
}

static struct block_zone *zone_add(struct block *block)
{
    struct block_zone *zones = list_add(block->zones, &block->zone_count, &block->zone_room, sizeof(*zones));
    if (zones == NULL) {
        block->failed = true;
        return NULL;
    }
    block->zones = zones;
    zones[block->zone_count - 1] = (struct block_zone){0};
    return &zones[block->zone_count - 1];
}

static struct block_directive *directive_add(struct block *block)
{
    struct block_directive *directives =
        list_add(block->directives, &block->directive_count, &block->directive_room, sizeof(*directives));
    if (directives == NULL) {
        block->failed = true;
        return NULL;
    }
    block->directives = directives;
    return &directives[block->directive_count - 1];
}

static struct fwd_token *token_add(struct block *block)
{
    struct fwd_token *tokens = list_add(block->tokens, &block->token_count, &block->token_room, sizeof(*tokens));
    if (tokens == NULL) {
        block->failed = true;
        return NULL;
    }
    block->tokens = tokens;
    return &tokens[block->token_count - 1];
}

static void demand(struct jsonscan *scan, bool ok)
{
    if (!ok) {
        jsonscan_break(scan);
    }
}

/* The next string of the array that we are in. */
static const char *string_next(struct jsonscan *scan)
{
    size_t len;
    demand(scan, jsonscan_next(scan));
    return jsonscan_string(scan, &len);
}

static void zone_read(struct block *block, struct jsonscan *scan)
{
    struct block_zone *zone = zone_add(block);
    size_t len;
    if (zone == NULL) {
        return;
    }
    if (jsonscan_is(scan, '"')) {
        zone->reason = jsonscan_string(scan, &len);
        return;
    }
    demand(scan, jsonscan_enter(scan, '['));
    zone->zone = jsonscan_string(scan, &len);
    zone->port = string_next(scan);
    zone->transport = string_next(scan);
    demand(scan, !jsonscan_next(scan));
}

static void key_read(struct block *block, struct jsonscan *scan)
{
    unsigned at = 0; /* FILE, LINE and TEXT are not needed */
    for (bool more = jsonscan_enter(scan, '['); more && !block->failed; more = jsonscan_next(scan)) {
        if (at++ < 3) {
            jsonscan_skip(scan);
        } else {
            zone_read(block, scan);
        }
    }
    block->key_count++;
}

/* Reads FILE, LINE, TOKEN... */
static void line_read(struct block *block, struct jsonscan *scan)
{
    size_t len;
    demand(scan, jsonscan_enter(scan, '['));
    const char *file = jsonscan_string(scan, &len);
    demand(scan, jsonscan_next(scan));
    uint32_t line = jsonscan_number(scan);
    while (!block->failed && jsonscan_next(scan)) {
        const char *text = jsonscan_string(scan, &len);
        struct fwd_token *token = token_add(block);
        if (token != NULL) {
            *token = (struct fwd_token)FWD_INIT(struct fwd_token);
            token->file = file;
            token->line = line;
            token->text = text;
            token->text_len = (uint32_t)len;
        }
    }
}

static void directive_read(struct block *block, struct jsonscan *scan)
{
    struct block_directive *directive = directive_add(block);
    size_t len;
    if (directive == NULL) {
        return;
    }
    demand(scan, jsonscan_enter(scan, '['));
    *directive = (struct block_directive){.name = jsonscan_string(scan, &len), .first = block->token_count};
    while (!block->failed && jsonscan_next(scan)) {
        line_read(block, scan);
    }
    directive->count = block->token_count - directive->first;
    demand(scan, directive->count > 0);
}

/** Reads one. */
bool block_read(struct block *block, struct jsonscan *scan)
{
    block->zone_count = block->key_count = block->directive_count = block->token_count = 0;
    for (bool more = jsonscan_enter(scan, '{'); more && !block->failed; more = jsonscan_next(scan)) {
        const char *name = jsonscan_name(scan);
        bool keys = strcmp(name, "keys") == 0;
        if (!keys && strcmp(name, "directives") != 0) {
            jsonscan_skip(scan);
            continue;
        }
        for (bool inner = jsonscan_enter(scan, '['); inner && !block->failed; inner = jsonscan_next(scan)) {
            (keys ? key_read : directive_read)(block, scan);
        }
    }
    return !scan->broken && !block->failed;
}

/** Finds one. */
bool block_directive(const struct block *block, const char *name, struct tokens *ret)
{
    for (size_t d = 0; d < block->directive_count; d++) {
        const struct block_directive *directive = &block->directives[d];
        if (strcmp(directive->name, name) == 0) {
            *ret = (struct tokens){.items = block->tokens + directive->first, .count = directive->count};
            return true;
        }
    }
    return false;
}

/** Frees. */
void block_fini(struct block *block)
{
    free(block->zones);
    free(block->directives);
    free(block->tokens);
}
