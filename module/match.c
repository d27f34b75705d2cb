/* Matching a name with the FROMs and exceptions of an instance's stanzas.
 *
 * Happy path: the first stanza takes whatever comes, and there is nothing to compare. Else each zone at or above the name is looked up, and of the
 * stanzas that match the first in the file is taken, whatever their number.
 *
 * Failure modes: out of memory when the tables are made. A name that is none matches nothing.
 */
#include "match.h"

#include "wire.h"

enum { FETCHED = 64 }; /* queries of a batch that are looked at ahead */

/* --- tables ------------------------------------------------------------------------------------------------------- */

/* The stanza takes whatever comes: then there is nothing to compare. */
static bool takes_all(const struct config_stanza *stanza)
{
    return stanza->from.wire_len == 1 && stanza->except_count == 0;
}

bool match_init(struct fwd_instance *instance)
{
    const struct config *config = instance->config;
    if (config->stanza_count == 1 && takes_all(&config->stanzas[0])) {
        return true;
    }
    if (!namemap_init(&instance->index, config->stanza_count)) {
        return false;
    }
    instance->index.items = (const char *)instance->stanzas;
    instance->index.item_size = sizeof(*instance->stanzas);
    return true;
}

static bool add_excepts(struct stanza *stanza)
{
    const struct config_stanza *config = stanza->config;
    if (config->except_count == 0) {
        return true;
    }
    stanza->except = arena_zeroed(&stanza->instance->arena, 1, sizeof(*stanza->except));
    if (stanza->except == NULL || !namemap_init(stanza->except, config->except_count)) {
        return false;
    }
    for (uint32_t i = config->except_count; i-- > 0;) {
        namemap_add(stanza->except, i, config->except[i].wire, config->except[i].wire_len);
    }
    return true;
}

bool match_add(struct stanza *stanza)
{
    struct fwd_instance *instance = stanza->instance;
    const struct config_stanza *config = stanza->config;
    instance->first_all |= stanza->index == 0 && takes_all(config);
    if (instance->index.slots != NULL) {
        namemap_add(&instance->index, stanza->index, config->from.wire, config->from.wire_len);
    }
    return add_excepts(stanza);
}

void match_fini(struct fwd_instance *instance)
{
    for (uint32_t i = 0; i < instance->stanza_count; i++) {
        if (instance->stanzas[i].except != NULL) {
            namemap_fini(instance->stanzas[i].except);
        }
    }
    namemap_fini(&instance->index);
}

/* --- looking up --------------------------------------------------------------------------------------------------- */

static bool excepted(const struct stanza *stanza, const struct suffixes *name)
{
    if (stanza->except == NULL || name->len == stanza->config->from.wire_len) {
        return false; /* FROM itself is always allowed */
    }
    for (uint32_t i = 0; i < name->count; i++) {
        if (namemap_find(stanza->except, name, i) != NAMEMAP_NONE) {
            return true;
        }
    }
    return false;
}

/* Of each zone at or above the name the first stanza that matches; of those the first in the file. */
static uint32_t match(const struct fwd_instance *instance, uint32_t from, const struct suffixes *name)
{
    uint32_t best = instance->stanza_count;
    for (uint32_t i = 0; i < name->count; i++) {
        uint32_t at = namemap_find(&instance->index, name, i);
        while (at < best && (at < from || excepted(&instance->stanzas[at], name))) {
            at = namemap_next(&instance->index, at);
        }
        best = at < best ? at : best;
    }
    return best;
}

struct stanza *match_find(struct fwd_instance *instance, uint32_t from, const uint8_t *qname, uint32_t len)
{
    struct suffixes name;
    if (from == 0 && instance->first_all) { /* as most instances say: then there is nothing to compare */
        return &instance->stanzas[0];
    }
    if (instance->index.slots == NULL || !suffixes_init(&name, qname, len)) {
        return NULL;
    }
    uint32_t found = match(instance, from, &name);
    return found < instance->stanza_count ? &instance->stanzas[found] : NULL;
}

/* Nothing has been checked yet. */
static void hint(const struct fwd_instance *instance, const struct fwd_query *query, struct namemap_hint *ret)
{
    struct suffixes name;
    ret->count = 0;
    if (query->wire == NULL || query->wire_len <= WIRE_HEADER) {
        return;
    }
    const uint8_t *qname = query->wire + WIRE_HEADER;
    if (suffixes_init(&name, qname, wire_name_len(qname, query->wire_len - WIRE_HEADER))) {
        namemap_hint(&instance->index, &name, ret);
    }
}

void match_fetch(const struct fwd_instance *instance, const struct fwd_query *queries, uint32_t count)
{
    struct namemap_hint hints[FETCHED];
    if (count < 2 || !namemap_is_large(&instance->index)) {
        return;
    }
    count = count < FETCHED ? count : FETCHED;
    for (uint32_t i = 0; i < count; i++) {
        hint(instance, (const struct fwd_query *)((const char *)queries + (size_t)i * queries->struct_size), &hints[i]);
    }
    namemap_fetch(&instance->index, hints, count);
}
