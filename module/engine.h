/* The engine: I/O loops, their threads, the registry of transports and health states, and the memory of queries.
 *
 * Instances with the same host services and the same settings share one engine, so a reload keeps threads and warm connections. A host-driven
 * instance without a name for its engine has one of its own.
 *
 * Threads: engine_acquire, engine_start, engine_release any (a process-wide mutex); the rest any. Ownership: reference-counted by instances.
 */
#pragma once

#include "health.h"
#include "loop.h"
#include "query.h"
#include "services.h"
#include "tls.h"
#include "transport.h"

#include <pthread.h>

enum { ENGINE_BUCKETS = 1024 };

struct config;

struct engine {
    struct engine *next; /* guarded by the process-wide mutex, as are refs and running */
    uint32_t refs;
    bool running;
    struct services services;
    char *name;
    uint32_t io_threads; /* 0: host-driven */

    uint32_t loop_count;
    uint32_t threads_started;
    struct loop *loops;
    pthread_t *threads;

    struct query_slab slab;

    pthread_mutex_t mutex; /* taken before any other lock but the process-wide one */
    pthread_cond_t drained;
    atomic_uint drainers; /* who waits for drained */
    struct transport *transports[ENGINE_BUCKETS];
    struct tls *identities;
};

/** An engine for these settings, made on first use. @return FWD_OK, FWD_ERR_NOMEM, FWD_ERR_SYSTEM */
int engine_acquire(const struct services *services, const struct config *config, struct engine **ret);

/** Starts the threads unless they run. @return FWD_OK, FWD_ERR_SYSTEM */
int engine_start(struct engine *engine);

/** Drops a reference; the last one joins the threads and frees everything. */
void engine_release(struct engine *engine);

/** The loop for the n-th of something. */
static inline struct loop *engine_loop(struct engine *engine, uint32_t n)
{
    return &engine->loops[n % engine->loop_count];
}

static inline struct loop *engine_any_loop(struct engine *engine)
{
    return &engine->loops[0];
}

/** Host-driven: turns every loop once. */
void engine_turn(struct engine *engine);

/** Host-driven: waits until a loop has something to do, for max_sleep_ns at most. */
void engine_wait(struct engine *engine, uint64_t max_sleep_ns);

/** Wakes all loops. */
void engine_wake_all(struct engine *engine);

/** The transport with this key, made on first use, with one more user. NULL when out of memory. */
struct transport *engine_use_transport(struct engine *engine, const struct transport_key *key, const char *to);

/** The TLS identity with these settings, made on first use, with one more user. @param why TLS_WHY octets. @return NULL with *why */
struct tls *engine_use_tls(struct engine *engine, const struct tls_settings *settings, char *why);
void engine_leave_tls(struct engine *engine, struct tls *tls);

/** One user less; the last one stops it. */
void engine_leave_transport(struct engine *engine, struct transport *transport);
