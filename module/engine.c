/* Engines and their registry.
 *
 * Happy path: the first instance makes the engine, its start the threads; later instances share them; the last destroy joins.
 *
 * Failure modes: a thread cannot be started: those that run are kept if there is at least one, else start fails. Transports are looked up by
 * key, so equal upstreams share pools whatever stanza they stand in.
 */
#include "engine.h"

#include "config.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MS_NS = 1000000 };

static pthread_mutex_t engines_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct engine *engines;

/* With no thread and no user left, what was ended or doomed last is finished here; that may doom something on another loop in turn. */
static void settle(struct engine *engine)
{
    for (int round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < engine->loop_count; i++) {
            loop_turn(&engine->loops[i], 0);
        }
    }
}

static void engine_free(struct engine *engine)
{
    for (uint32_t i = 0; i < engine->loop_count; i++) {
        loop_fini(&engine->loops[i]);
    }
    query_slab_fini(&engine->slab);
    pthread_cond_destroy(&engine->drained);
    pthread_mutex_destroy(&engine->mutex);
    free(engine->threads);
    free(engine->loops);
    free(engine->name);
    free(engine);
}

static int engine_make(const struct services *services, const struct config *config, struct engine **ret)
{
    struct engine *engine = calloc(1, sizeof(*engine));
    if (engine == NULL) {
        return FWD_ERR_NOMEM;
    }
    bool host_driven = config->io_threads == 0;
    uint32_t loops = host_driven ? config->loops : config->io_threads;
    engine->refs = 1;
    engine->services = *services;
    engine->name = strdup(config->engine);
    engine->io_threads = config->io_threads;
    pthread_mutex_init(&engine->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->drained, &monotonic);
    pthread_condattr_destroy(&monotonic);
    query_slab_init(&engine->slab);
    engine->loops = calloc(loops, sizeof(*engine->loops));
    engine->threads = calloc(loops, sizeof(*engine->threads));
    int r = engine->name != NULL && engine->loops != NULL && engine->threads != NULL ? 0 : FWD_ERR_NOMEM;
    while (r == 0 && engine->loop_count < loops) {
        uint32_t i = engine->loop_count++;
        r = loop_init(&engine->loops[i], i, host_driven, &engine->services);
    }
    if (r < 0) {
        engine_free(engine);
        return r;
    }
    *ret = engine;
    return 0;
}

static bool serves(const struct engine *engine, const struct services *services, const struct config *config)
{
    bool host_driven = config->io_threads == 0;
    return engine->io_threads == config->io_threads && (!host_driven || engine->loop_count == config->loops) &&
           strcmp(engine->name, config->engine) == 0 && services_share_threads(&engine->services, services);
}

static struct engine *find_shared(const struct services *services, const struct config *config)
{
    bool alone = config->io_threads == 0 && config->engine[0] == '\0';
    struct engine *e = alone ? NULL : engines;
    while (e != NULL && !serves(e, services, config)) {
        e = e->next;
    }
    return e;
}

int engine_acquire(const struct services *services, const struct config *config, struct engine **ret)
{
    int r = 0;
    pthread_mutex_lock(&engines_mutex);
    struct engine *engine = find_shared(services, config);
    if (engine != NULL) {
        engine->refs++;
    } else {
        r = engine_make(services, config, &engine);
        if (r == 0) {
            engine->next = engines;
            engines = engine;
        }
    }
    pthread_mutex_unlock(&engines_mutex);
    if (r == 0) {
        *ret = engine;
    }
    return r;
}

static void *thread_main(void *arg)
{
    struct loop *loop = arg;
    const struct fwd_thread *hooks = loop->services->thread;
    char name[16];
    (void)snprintf(name, sizeof(name), "fwd-io-%u", (unsigned)loop->index % 1000);
    (void)pthread_setname_np(pthread_self(), name);
    if (hooks != NULL) {
        hooks->start(hooks->arg, name);
    }
    loop_run(loop);
    if (hooks != NULL) {
        hooks->stop(hooks->arg, name);
    }
    return NULL;
}

/* Signals are the host's: they are blocked before the threads exist, so that none can reach them. */
static int start_threads(struct engine *engine)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = 0;
    while (r == 0 && engine->threads_started < engine->io_threads) {
        uint32_t i = engine->threads_started;
        if (pthread_create(&engine->threads[i], NULL, thread_main, &engine->loops[i]) != 0) {
            r = FWD_ERR_SYSTEM;
        } else {
            engine->threads_started++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

int engine_start(struct engine *engine)
{
    int r = 0;
    pthread_mutex_lock(&engines_mutex);
    if (!engine->running) {
        r = start_threads(engine);
        if (r == 0 && engine->io_threads == 0) {
            engine_turn(engine); /* sets the timerfds */
        }
        engine->running = r == 0;
    }
    pthread_mutex_unlock(&engines_mutex);
    return r;
}

void engine_release(struct engine *engine)
{
    pthread_mutex_lock(&engines_mutex);
    bool last = --engine->refs == 0;
    if (last) {
        struct engine **at = &engines;
        while (*at != engine) {
            at = &(*at)->next;
        }
        *at = engine->next;
    }
    pthread_mutex_unlock(&engines_mutex);
    if (!last) {
        return;
    }
    for (uint32_t i = 0; i < engine->threads_started; i++) {
        loop_quit(&engine->loops[i]);
    }
    for (uint32_t i = 0; i < engine->threads_started; i++) {
        pthread_join(engine->threads[i], NULL);
    }
    settle(engine);
    engine_free(engine);
}

void engine_turn(struct engine *engine)
{
    for (uint32_t i = 0; i < engine->loop_count; i++) {
        (void)loop_turn_for_host(&engine->loops[i]);
    }
}

void engine_wait(struct engine *engine, uint64_t max_sleep_ns)
{
    struct pollfd fds[CONFIG_MAX_LOOPS];
    for (uint32_t i = 0; i < engine->loop_count; i++) {
        fds[i] = (struct pollfd){.fd = engine->loops[i].epoll_fd, .events = POLLIN};
    }
    (void)poll(fds, engine->loop_count, (int)((max_sleep_ns + MS_NS - 1) / MS_NS));
}

void engine_wake_all(struct engine *engine)
{
    for (uint32_t i = 0; i < engine->loop_count; i++) {
        loop_wake(&engine->loops[i]);
    }
}

static struct transport **bucket_of(struct engine *engine, const struct transport_key *key)
{
    const uint8_t *octets = (const uint8_t *)key;
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */
    for (size_t i = 0; i < sizeof(*key); i++) {
        h = (h ^ octets[i]) * UINT64_C(1099511628211);
    }
    return &engine->transports[h % ENGINE_BUCKETS];
}

struct transport *engine_use_transport(struct engine *engine, const struct transport_key *key, const char *to)
{
    pthread_mutex_lock(&engine->mutex);
    struct transport **bucket = bucket_of(engine, key);
    struct transport *t = *bucket;
    while (t != NULL && memcmp(&t->key, key, sizeof(*key)) != 0) {
        t = t->next_in_bucket;
    }
    if (t == NULL) {
        t = transport_create(engine, key, to);
        if (t != NULL) {
            t->next_in_bucket = *bucket;
            *bucket = t;
        }
    }
    if (t != NULL) {
        t->users++;
    }
    pthread_mutex_unlock(&engine->mutex);
    return t;
}

void engine_leave_transport(struct engine *engine, struct transport *transport)
{
    pthread_mutex_lock(&engine->mutex);
    bool last = --transport->users == 0;
    if (last) {
        struct transport **at = bucket_of(engine, &transport->key);
        while (*at != transport) {
            at = &(*at)->next_in_bucket;
        }
        *at = transport->next_in_bucket;
    }
    pthread_mutex_unlock(&engine->mutex);
    if (last) {
        transport_stop(transport);
    }
}

struct tls *engine_use_tls(struct engine *engine, const struct tls_settings *settings, char *why)
{
    pthread_mutex_lock(&engine->mutex);
    struct tls *tls = engine->identities;
    while (tls != NULL && !tls_same(tls, settings)) {
        tls = tls->next;
    }
    if (tls == NULL) {
        tls = tls_create(settings, why);
        if (tls != NULL) {
            tls->next = engine->identities;
            engine->identities = tls;
        }
    }
    if (tls != NULL) {
        tls->users++;
    }
    pthread_mutex_unlock(&engine->mutex);
    return tls;
}

void engine_leave_tls(struct engine *engine, struct tls *tls)
{
    pthread_mutex_lock(&engine->mutex);
    bool last = --tls->users == 0;
    if (last) {
        struct tls **at = &engine->identities;
        while (*at != tls) {
            at = &(*at)->next;
        }
        *at = tls->next;
    }
    pthread_mutex_unlock(&engine->mutex);
    if (last) {
        tls_destroy(tls);
    }
}
