/* The running daemon: workers, the current epoch, reload and end.
 *
 * Threads: main controls it; workers read `epoch` and acknowledge it. Ownership: owns the workers
 * and the epochs.
 */
#pragma once

#include "corefile_source.h"
#include "module_load.h"
#include "web.h"
#include "worker.h"

#include <pthread.h>
#include <stdatomic.h>

struct service {
    const struct module *module;
    struct worker *workers;
    unsigned worker_count;
    struct fwd_host host;

    _Atomic(struct epoch *) epoch;
    struct epoch none;    /**< without any address: the last one */
    atomic_bool stopping; /**< workers end */

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* guarded by mutex */
    unsigned acknowledged; /**< workers that have gone over to the epoch */

    struct web web;
    pthread_mutex_t inspecting; /**< held while somebody looks at the current epoch */
    /* guarded by inspecting */
    uint64_t reloads_failed;
    char reload_hash[SOURCE_HASH_MAX]; /**< of the last reload by the reload directive */

    /* the old epoch of a reload drains in a thread of its own, so that signals are still heard */
    pthread_t retire_thread;
    struct epoch *retiring;
    bool retire_running;
    atomic_bool retired;
};

/** Makes the workers. @param workers 0: half of the CPUs that the process may use, at least one */
bool service_init(struct service *service, const struct module *module, unsigned workers,
                  struct failure *failure);

/** Opens the sockets and makes the instances, then starts them and the workers. Takes config in any
 * case. */
bool service_open(struct service *service, struct config *config, struct failure *failure);
bool service_start(struct service *service, struct failure *failure);

/** Goes over to another configuration without losing a query. On failure all stays as it was. Takes
 * config in any case. */
bool service_reload(struct service *service, struct config *config, struct failure *failure);

/** Whether the configuration before a reload still drains. Main is sent SIGNAL_POKE when that ends.
 */
bool service_reloading(struct service *service);

/** Answers what is in flight, for some seconds at most, and ends everything. */
void service_stop(struct service *service);
void service_fini(struct service *service);

/** The current configuration. Main only. */
const struct config *service_config(const struct service *service);

/** The current epoch, which stays what it is until service_let_go. Any thread. */
const struct epoch *service_hold(struct service *service);
void service_let_go(struct service *service);

/** How a reload by the reload directive ended, for the metrics. */
void service_note_reload(struct service *service, const char *hash, bool ok);

/** When service_tick has something to do, UINT64_MAX when it has nothing. Main only. */
uint64_t service_due(const struct service *service);
void service_tick(struct service *service, uint64_t now_ns);

/** A worker has gone over to the current epoch. */
void service_acknowledge(struct service *service);
