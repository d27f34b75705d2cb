/* Sharing configurations among instances.
 *
 * Happy path: of a hundred thousand server blocks most say the same; the first one's JSON is read, and kept beside what it means, so that the others are only
 * compared with it. A small table finds it by the hash of its text.
 *
 * Failure modes: two texts want the same place: the older one is used no further, and its instances keep it. A long text, or one for which there is no
 * memory, is not shared: then each instance reads its own.
 */
#include "config_share.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES = 64, TEXT_MAX = 4096 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct config *known[PLACES]; /* no uses of their own */

/* FNV-1a. */
static struct config **place_of(const char *json, size_t len)
{
    uint32_t hash = 0x811c9dc5;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ (uint8_t)json[i]) * 0x01000193;
    }
    return &known[(hash ^ hash >> 15) % PLACES];
}

const struct config *config_find(const char *json, size_t len)
{
    if (len > TEXT_MAX) {
        return NULL;
    }
    struct config **place = place_of(json, len);
    pthread_mutex_lock(&mutex);
    struct config *config = *place;
    if (config != NULL && config->text_len == len && memcmp(config->text, json, len) == 0) {
        config->uses++;
    } else {
        config = NULL;
    }
    pthread_mutex_unlock(&mutex);
    return config;
}

const struct config *config_share(struct config *config, const char *json, size_t len)
{
    config->uses = 1;
    config->text = json != NULL && len <= TEXT_MAX ? arena_copy(&config->arena, json, len) : NULL;
    config->text_len = len;
    if (config->text != NULL) {
        pthread_mutex_lock(&mutex);
        *place_of(json, len) = config;
        pthread_mutex_unlock(&mutex);
    }
    return config;
}

void config_leave(const struct config *config)
{
    struct config *used = (struct config *)config; /* what is counted is not what is read */
    if (used == NULL) {
        return;
    }
    pthread_mutex_lock(&mutex);
    bool last = --used->uses == 0;
    if (last && used->text != NULL) {
        struct config **place = place_of(used->text, used->text_len);
        *place = *place == used ? NULL : *place;
    }
    pthread_mutex_unlock(&mutex);
    if (last) {
        config_destroy(used);
    }
}
