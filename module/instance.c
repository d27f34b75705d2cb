/* Instances: from JSON to stanzas, start, intake, drain, end.
 *
 * Happy path: create parses the configuration and finds or makes the transports; start runs the engine's threads; serve enters; stop closes the
 * intake, waits until the last completion has been delivered; destroy lets go of transports and engine.
 *
 * Failure modes: a host name has no address, or there are too many upstreams: an error with its JSON pointer. Out of
 * memory half-way: what was built is taken down again. stop's time passes: what is left is canceled, and stop still waits for the
 * completions, which then need no network.
 */
#include "instance.h"

#include "advice.h"
#include "config_share.h"
#include "engine.h"
#include "error.h"
#include "match.h"
#include "pages.h"
#include "resolve.h"
#include "slab.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND_NS UINT64_C(1000000000)
#define DRAIN_LOOK_NS UINT64_C(50000000)

enum { MANY = 256 }; /* instances, from which on they lie on huge pages */

/* Instances with one stanza, as each of very many has. */
#define SINGLE (sizeof(struct fwd_instance) + sizeof(struct stanza))
static struct slab singles = SLAB_INIT(SINGLE);
static_assert(SINGLE % SLAB_ALIGN == 0, "pieces keep their alignment");
static atomic_uint living;

static int out_of_memory(struct fwd_error *error)
{
    return error_set(error, FWD_ERR_NOMEM, NULL, "%s", error_text(FWD_ERR_NOMEM));
}

int instance_count_supported(uint32_t count, const char *pointer, struct fwd_error *error)
{
    struct error_place place = {.pointer = pointer};
    if (count > QUERY_MAX_UPSTREAMS) {
        return error_set(error, FWD_ERR_UNSUPPORTED, &place, "more than %d upstreams after expansion: %u", QUERY_MAX_UPSTREAMS,
                         (unsigned)count);
    }
    return FWD_OK;
}

int instance_supported(const struct config *config, struct fwd_error *error)
{
    char pointer[64];
    int r = FWD_OK;
    for (size_t i = 0; r == FWD_OK && i < config->stanza_count; i++) {
        (void)snprintf(pointer, sizeof(pointer), "/forward/%zu/to", i);
        r = instance_count_supported(config->stanzas[i].to_count, pointer, error);
    }
    return r;
}

/* Looks host names up that are looked up once. */
static int resolve_names(struct config *config, struct fwd_error *error)
{
    char pointer[64];
    int r = FWD_OK;
    for (size_t i = 0; r == FWD_OK && i < config->stanza_count; i++) {
        (void)snprintf(pointer, sizeof(pointer), "/forward/%zu/to", i);
        if (config->stanzas[i].options->resolve_interval_ns == 0) {
            r = resolve_stanza(&config->stanzas[i], &config->arena, pointer, error);
        }
    }
    return r;
}

/* A stanza without its upstreams. */
static bool init_stanza(struct fwd_instance *instance, uint32_t index)
{
    struct stanza *stanza = &instance->stanzas[index];
    stanza->config = &instance->config->stanzas[index];
    stanza->options = stanza->config->options;
    stanza->instance = instance;
    stanza->index = index;
    instance->races |= stanza->options->retransmit_ns > 0;
    return match_add(stanza);
}

static int open_refresh(struct fwd_instance *instance, struct stanza *stanza, struct fwd_error *error)
{
    char pointer[64];
    (void)snprintf(pointer, sizeof(pointer), "/forward/%u/to", (unsigned)stanza->index);
    int r = refresh_create(stanza, pointer, &stanza->refresh, error);
    instance->refresh_count += r == FWD_OK;
    return r;
}

static int open_proxies(struct fwd_instance *instance, struct stanza *stanza, struct fwd_error *error)
{
    const struct config_stanza *config = stanza->config;
    if (resolve_has_names(config)) {
        return open_refresh(instance, stanza, error);
    }
    bool one = config->to_count == 1;
    struct fwd_proxy *proxies = one ? &stanza->only : arena_zeroed(&instance->arena, config->to_count, sizeof(*proxies));
    if (proxies == NULL) {
        return out_of_memory(error);
    }
    stanza->item = proxies;
    stanza->set.items = one ? &stanza->item : instance->proxies + instance->proxy_count;
    for (uint32_t i = 0; i < config->to_count; i++) {
        proxies[i].stanza = stanza;
        int r = proxy_open(&proxies[i], &config->to[i], error);
        if (r < 0) {
            return r;
        }
        instance->proxies[instance->proxy_count++] = &proxies[i];
        stanza->set.count++;
    }
    return 0;
}

/* Room for the upstreams of all stanzas. */
static bool make_proxies(struct fwd_instance *instance)
{
    const struct config *config = instance->config;
    size_t proxies = 0;
    for (size_t i = 0; i < config->stanza_count; i++) {
        proxies += config->stanzas[i].to_count;
    }
    bool one = proxies == 1 && config->stanza_count == 1;
    instance->proxies = one ? &instance->stanzas[0].item : arena_zeroed(&instance->arena, proxies, sizeof(*instance->proxies));
    return instance->proxies != NULL;
}

static int open_stanzas(struct fwd_instance *instance, struct fwd_error *error)
{
    if (!make_proxies(instance) || !match_init(instance)) {
        return out_of_memory(error);
    }
    instance->stanza_count = (uint32_t)instance->config->stanza_count;
    for (uint32_t i = instance->stanza_count; i-- > 0;) {
        if (!init_stanza(instance, i)) {
            return out_of_memory(error);
        }
    }
    for (uint32_t i = 0; i < instance->stanza_count; i++) {
        int r = open_proxies(instance, &instance->stanzas[i], error);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static struct fwd_instance *take_room(size_t stanzas)
{
    bool many = atomic_fetch_add(&living, 1) >= MANY;
    struct fwd_instance *instance = NULL;
    if (many && stanzas == 1) {
        instance = slab_take(&singles);
    } else {
        instance = pages_zeroed(alignof(struct fwd_instance), sizeof(*instance) + stanzas * sizeof(*instance->stanzas));
    }
    if (instance == NULL) {
        atomic_fetch_sub(&living, 1);
        return NULL;
    }
    instance->in_slab = many && stanzas == 1;
    return instance;
}

static void give_room(struct fwd_instance *instance)
{
    atomic_fetch_sub(&living, 1);
    if (instance->in_slab) {
        slab_give(&singles, instance);
    } else {
        free(instance);
    }
}

static void instance_free(struct fwd_instance *instance)
{
    for (uint32_t i = 0; i < instance->proxy_count; i++) {
        proxy_close(instance->proxies[i]);
    }
    for (uint32_t i = 0; i < instance->stanza_count; i++) {
        refresh_destroy(instance->stanzas[i].refresh);
    }
    if (instance->engine != NULL) {
        engine_release(instance->engine);
    }
    match_fini(instance);
    arena_free(&instance->arena);
    config_leave(instance->config);
    give_room(instance);
}

static bool has_scopes(const struct config_stanza *stanza)
{
    if (stanza->options->source_address.scope_id != 0) {
        return true;
    }
    for (uint32_t i = 0; i < stanza->to_count; i++) {
        if (stanza->to[i].addr.scope_id != 0) {
            return true;
        }
    }
    return false;
}

/* What names of hosts and interfaces stand for is each instance's own: it may be something else by now. */
static bool has_names(const struct config *config)
{
    for (size_t i = 0; i < config->stanza_count; i++) {
        if (resolve_has_names(&config->stanzas[i]) || has_scopes(&config->stanzas[i])) {
            return true;
        }
    }
    return false;
}

/* The configuration with its host names looked up. */
static int read_config(const char *json, size_t len, const struct config **ret, struct fwd_error *error)
{
    struct config *config;
    int r = config_parse(json, len, &config, error);
    if (r < 0) {
        return r;
    }
    bool own = has_names(config);
    r = resolve_names(config, error);
    if (r == 0) {
        r = instance_supported(config, error);
    }
    if (r < 0) {
        config_destroy(config);
        return r;
    }
    *ret = config_share(config, own ? NULL : json, len);
    return FWD_OK;
}

/* The same, and not read again if another instance has it. */
static int use_config(const char *json, size_t len, const struct config **ret, struct fwd_error *error)
{
    *ret = config_find(json, len);
    return *ret != NULL ? FWD_OK : read_config(json, len, ret, error);
}

int instance_create(const struct fwd_host *host, const char *json, size_t len, struct fwd_instance **ret,
                    struct fwd_error *error)
{
    const struct config *config;
    int r = use_config(json, len, &config, error);
    if (r < 0) {
        return r;
    }
    struct fwd_instance *instance = take_room(config->stanza_count);
    if (instance == NULL) {
        config_leave(config);
        return out_of_memory(error);
    }
    instance->config = config;
    memcpy(&instance->host, host, host->struct_size < sizeof(*host) ? host->struct_size : sizeof(*host));
    services_get(&instance->services, host);
    r = engine_acquire(&instance->services, config, &instance->engine);
    if (r < 0) {
        (void)error_set(error, r, NULL, "%s", error_text(r));
        goto fail;
    }
    r = open_stanzas(instance, error);
    if (r < 0) {
        goto fail;
    }
    for (uint32_t i = 0; i < instance->stanza_count; i++) {
        advice_on_stanza(&instance->services, instance->stanzas[i].config);
    }
    *ret = instance;
    return FWD_OK;

fail:
    instance_free(instance);
    return r;
}

int instance_start(struct fwd_instance *instance, struct fwd_error *error)
{
    if (atomic_load(&instance->state) != INSTANCE_CREATED) {
        return error_set(error, FWD_ERR_STATE, NULL, "start: the instance has been started before");
    }
    int r = engine_start(instance->engine);
    if (r < 0) {
        return error_set(error, r, NULL, "start: the I/O threads cannot be started: %s", error_text(r));
    }
    for (uint32_t i = 0; i < instance->stanza_count && instance->refresh_count > 0; i++) {
        if (instance->stanzas[i].refresh != NULL) {
            atomic_fetch_add(&instance->busy, 1);
            refresh_start(instance->stanzas[i].refresh);
        }
    }
    atomic_store(&instance->state, INSTANCE_STARTED);
    return FWD_OK;
}

bool instance_enter(struct fwd_instance *instance, uint32_t count)
{
    atomic_fetch_add(&instance->in_flight, count);
    if (atomic_load(&instance->state) == INSTANCE_STARTED) {
        return true;
    }
    for (uint32_t i = 0; i < count; i++) {
        instance_leave(instance);
    }
    return false;
}

static void count_down(const struct fwd_instance *instance, atomic_uint *count)
{
    struct engine *engine = instance->engine; /* outlives the instance: whoever waits holds a reference */
    if (atomic_fetch_sub(count, 1) == 1 && atomic_load(&engine->drainers) > 0) {
        pthread_mutex_lock(&engine->mutex);
        pthread_cond_broadcast(&engine->drained);
        pthread_mutex_unlock(&engine->mutex);
        if (engine->io_threads == 0) {
            engine_wake_all(engine);
        }
    }
}

void instance_leave(struct fwd_instance *instance)
{
    count_down(instance, &instance->in_flight);
}

void instance_rest(struct fwd_instance *instance)
{
    count_down(instance, &instance->busy);
}

static bool is_drained(struct fwd_instance *instance)
{
    return atomic_load(&instance->in_flight) == 0 && atomic_load(&instance->busy) == 0;
}

/* Waits until nothing is in flight. @return false when the time has passed; UINT64_MAX waits for ever */
static bool wait_drained(struct fwd_instance *instance, uint64_t wait_ns)
{
    struct engine *engine = instance->engine;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    bool forever = wait_ns > 3600 * SECOND_NS;
    if (!forever) {
        uint64_t ns = (uint64_t)until.tv_nsec + wait_ns;
        until.tv_sec += (time_t)(ns / SECOND_NS);
        until.tv_nsec = (long)(ns % SECOND_NS);
    }
    int r = 0;
    pthread_mutex_lock(&engine->mutex);
    atomic_fetch_add(&engine->drainers, 1);
    while (!is_drained(instance) && r != ETIMEDOUT) {
        r = forever ? pthread_cond_wait(&engine->drained, &engine->mutex)
                    : pthread_cond_timedwait(&engine->drained, &engine->mutex, &until);
    }
    atomic_fetch_sub(&engine->drainers, 1);
    pthread_mutex_unlock(&engine->mutex);
    return is_drained(instance);
}

/* Host-driven: perhaps nobody else turns the loops, so the caller of stop does. Somebody else may also take the wake-up that tells of the end,
 * so it never sleeps long. */
static bool turn_until_drained(struct fwd_instance *instance, uint64_t wait_ns)
{
    struct engine *engine = instance->engine;
    uint64_t start = services_mono(&engine->services);
    atomic_fetch_add(&engine->drainers, 1);
    for (;;) {
        engine_turn(engine);
        uint64_t waited = services_mono(&engine->services) - start;
        if (is_drained(instance) || waited >= wait_ns) {
            break;
        }
        uint64_t left = wait_ns - waited;
        engine_wait(engine, left < DRAIN_LOOK_NS ? left : DRAIN_LOOK_NS);
    }
    atomic_fetch_sub(&engine->drainers, 1);
    return is_drained(instance);
}

int instance_cancel(struct fwd_instance *instance, uint64_t handle)
{
    return query_cancel(&instance->engine->slab, instance, handle) ? FWD_OK : FWD_ERR_NOTFOUND;
}

int instance_stop(struct fwd_instance *instance, uint64_t drain_ns)
{
    int started = INSTANCE_STARTED;
    if (!atomic_compare_exchange_strong(&instance->state, &started, INSTANCE_DRAINING)) {
        return FWD_ERR_STATE;
    }
    for (uint32_t i = 0; i < instance->stanza_count && instance->refresh_count > 0; i++) {
        if (instance->stanzas[i].refresh != NULL) {
            refresh_stop(instance->stanzas[i].refresh);
        }
    }
    bool (*drain)(struct fwd_instance *, uint64_t) = instance->engine->io_threads > 0 ? wait_drained : turn_until_drained;
    if (!drain(instance, drain_ns)) {
        query_cancel_all(&instance->engine->slab, instance);
        (void)drain(instance, UINT64_MAX);
    }
    atomic_store(&instance->state, INSTANCE_STOPPED);
    return FWD_OK;
}

void instance_destroy(struct fwd_instance *instance)
{
    if (instance == NULL) {
        return;
    }
    (void)instance_stop(instance, 0);
    instance_free(instance);
}

/* The loop that the host turns. @return NULL with *ret_error */
static struct loop *driven_loop(struct fwd_instance *instance, uint32_t loop, int *ret_error)
{
    struct engine *engine = instance->engine;
    if (engine->io_threads > 0 || atomic_load(&instance->state) == INSTANCE_CREATED) {
        *ret_error = FWD_ERR_STATE;
        return NULL;
    }
    *ret_error = FWD_ERR_ARG;
    return loop < engine->loop_count ? &engine->loops[loop] : NULL;
}

int instance_poll_fd(struct fwd_instance *instance, uint32_t loop)
{
    int r;
    const struct loop *driven = driven_loop(instance, loop, &r);
    return driven != NULL ? driven->epoll_fd : r;
}

int instance_run(struct fwd_instance *instance, uint32_t loop)
{
    int r;
    struct loop *driven = driven_loop(instance, loop, &r);
    return driven != NULL ? loop_turn_for_host(driven) : r;
}

uint32_t instance_proxies(struct fwd_instance *instance)
{
    uint32_t count = instance->proxy_count;
    for (uint32_t i = 0; i < instance->stanza_count && instance->refresh_count > 0; i++) {
        struct stanza *stanza = &instance->stanzas[i];
        if (stanza->refresh != NULL) {
            struct proxy_set *set = stanza_take(stanza);
            count += set->count;
            stanza_leave(stanza, set);
        }
    }
    return count;
}

struct fwd_proxy *instance_proxy(struct fwd_instance *instance, uint32_t index)
{
    struct fwd_proxy *proxy = NULL;
    if (instance->refresh_count == 0) {
        return index < instance->proxy_count ? instance->proxies[index] : NULL;
    }
    for (uint32_t i = 0; proxy == NULL && i < instance->stanza_count; i++) {
        struct stanza *stanza = &instance->stanzas[i];
        struct proxy_set *set = stanza_take(stanza);
        if (index < set->count) {
            proxy = set->items[index];
        } else {
            index -= set->count;
        }
        stanza_leave(stanza, set);
    }
    return proxy;
}
