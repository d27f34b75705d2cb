/* The running daemon.
 *
 * Happy path: open, start, perhaps reload, stop. A reload makes the new instances while the old
 * ones still answer, so the module hands the warm connections on; then every worker goes over, and
 * only then the old instances are drained. Failure modes: whatever fails before the workers go over
 * leaves the running epoch untouched.
 */
#include "service.h"

#include "answer.h"
#include "clock.h"
#include "flags.h"
#include "log.h"
#include "poke.h"

#include <malloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* SIGTERM to exit is to take 5 s at most: the drain, then a moment for TCP clients to take their
 * last answers. */
#define STOP_DRAIN_NS (4ull * SECOND_NS)
#define RELOAD_DRAIN_NS (6ull * SECOND_NS) /* no query lives longer */

/* arg is the server block's taps. */
static const void *service_get(void *arg, const char *id)
{
    if (strcmp(id, FWD_TAP_ID) == 0 && arg != NULL) {
        return &answer_tap_service;
    }
    return strcmp(id, FWD_LOG_ID) == 0 ? &log_service : NULL;
}

/* Half of the CPUs: the kernel's part of the work, most of it, and the neighbours have the others.
 * With a worker for each of two CPUs a query cost a sixth more, in wake-ups. */
static unsigned worker_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0) {
        return 1;
    }
    int count = CPU_COUNT(&set) / 2;
    return count < 1 ? 1 : count < FLAGS_WORKERS_MAX ? (unsigned)count : FLAGS_WORKERS_MAX;
}

/** Makes the workers. */
bool service_init(struct service *service, const struct module *module, unsigned workers,
                  struct failure *failure)
{
    *service = (struct service){.module = module, .host = FWD_INIT(struct fwd_host)};
    service->host.completion_size = sizeof(struct fwd_completion);
    service->host.done = answer_done;
    service->host.get_service = service_get;
    (void)pthread_mutex_init(&service->mutex, NULL);
    (void)pthread_cond_init(&service->changed, NULL);
    (void)pthread_mutex_init(&service->inspecting, NULL);
    web_init(&service->web, service);
    unsigned count = workers > 0 ? workers : worker_count();
    service->workers = calloc(count, sizeof(struct worker));
    if (service->workers == NULL) {
        return failure_set(failure, "out of memory");
    }
    for (; service->worker_count < count; service->worker_count++) {
        if (!worker_init(&service->workers[service->worker_count], service,
                         service->worker_count)) {
            service->worker_count++; /* what it has of itself is to be freed */
            return failure_set(failure, "cannot make a worker");
        }
    }
    return true;
}

/* Ends an epoch that never served. */
static void epoch_abandon(struct service *service, struct epoch *epoch)
{
    web_settle(&service->web, true);
    epoch_drain(epoch, service->module, 0);
    epoch_destroy(epoch);
}

/* Makes an epoch with instances that are not started yet. Takes config in any case. */
static struct epoch *epoch_open(struct service *service, struct config *config,
                                struct epoch *before, struct failure *failure)
{
    struct epoch *epoch = epoch_create(config, before, service->worker_count, failure);
    if (epoch == NULL) {
        config_destroy(config);
        return NULL;
    }
    if (!epoch_instances(epoch, service->module, &service->host, failure) ||
        !web_stage(&service->web, epoch->config, failure)) {
        epoch_abandon(service, epoch);
        return NULL;
    }
    return epoch;
}

/** Opens. */
bool service_open(struct service *service, struct config *config, struct failure *failure)
{
    struct epoch *epoch = epoch_open(service, config, NULL, failure);
    atomic_store(&service->epoch, epoch);
    return epoch != NULL;
}

/** Counts a worker. */
void service_acknowledge(struct service *service)
{
    (void)pthread_mutex_lock(&service->mutex);
    service->acknowledged++;
    (void)pthread_cond_signal(&service->changed);
    (void)pthread_mutex_unlock(&service->mutex);
}

static void acknowledged_wait(struct service *service)
{
    (void)pthread_mutex_lock(&service->mutex);
    while (service->acknowledged < service->worker_count) {
        (void)pthread_cond_wait(&service->changed, &service->mutex);
    }
    service->acknowledged = 0;
    (void)pthread_mutex_unlock(&service->mutex);
}

/* Gives back what making an epoch took beyond what it keeps: of a hundred thousand stanzas most. */
static void memory_return(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

/** Starts. Each worker has the first epoch when it returns: the next one is told of the sockets as
 * changes to that. */
bool service_start(struct service *service, struct failure *failure)
{
    if (!epoch_start(atomic_load(&service->epoch), service->module, failure)) {
        return false;
    }
    for (unsigned i = 0; i < service->worker_count; i++) {
        if (!worker_start(&service->workers[i])) {
            return failure_set(failure, "cannot start a thread");
        }
    }
    acknowledged_wait(service);
    web_settle(&service->web, false);
    atomic_store(&service->web.ready, true);
    memory_return();
    return true;
}

static void workers_wake(struct service *service)
{
    for (unsigned i = 0; i < service->worker_count; i++) {
        worker_wake(&service->workers[i]);
    }
}

/* Makes all workers go over to an epoch and waits until they have. */
static void epoch_publish(struct service *service, struct epoch *epoch)
{
    (void)pthread_mutex_lock(&service->inspecting);
    atomic_store(&service->epoch, epoch);
    (void)pthread_mutex_unlock(&service->inspecting);
    workers_wake(service);
    acknowledged_wait(service);
}

/* Ends the workers' threads. */
static void workers_join(struct service *service)
{
    atomic_store(&service->stopping, true);
    workers_wake(service);
    for (unsigned i = 0; i < service->worker_count; i++) {
        worker_join(&service->workers[i]);
    }
}

static void *retire_run(void *arg)
{
    struct service *service = arg;
    epoch_drain(service->retiring, service->module, RELOAD_DRAIN_NS);
    atomic_store(&service->retired, true);
    poke_main();
    return NULL;
}

/* Joins the thread that drained the epoch before, and frees that epoch. */
static void retire_finish(struct service *service)
{
    if (service->retire_running) {
        (void)pthread_join(service->retire_thread, NULL);
        service->retire_running = false;
    }
    epoch_destroy(service->retiring);
    service->retiring = NULL;
    memory_return();
}

/** Whether a reload is not over yet. */
bool service_reloading(struct service *service)
{
    if (service->retiring != NULL && atomic_load(&service->retired)) {
        retire_finish(service);
    }
    return service->retiring != NULL;
}

/** Reloads. */
bool service_reload(struct service *service, struct config *config, struct failure *failure)
{
    struct epoch *before = atomic_load(&service->epoch);
    struct epoch *epoch = epoch_open(service, config, before, failure);
    if (epoch == NULL) {
        return false;
    }
    if (!epoch_start(epoch, service->module, failure)) {
        epoch_abandon(service, epoch);
        return false;
    }
    epoch_succeed(before, epoch);
    epoch_publish(service, epoch);
    web_settle(&service->web, false);
    service->retiring = before;
    atomic_store(&service->retired, false);
    service->retire_running =
        pthread_create(&service->retire_thread, NULL, retire_run, service) == 0;
    if (!service->retire_running) { /* then here, while signals wait */
        epoch_drain(before, service->module, RELOAD_DRAIN_NS);
        retire_finish(service);
    }
    return true;
}

/** The configuration. */
const struct config *service_config(const struct service *service)
{
    return atomic_load(&service->epoch)->config;
}

/** Holds. */
const struct epoch *service_hold(struct service *service)
{
    (void)pthread_mutex_lock(&service->inspecting);
    return atomic_load(&service->epoch);
}

/** Lets go. */
void service_let_go(struct service *service)
{
    (void)pthread_mutex_unlock(&service->inspecting);
}

/** Notes. */
void service_note_reload(struct service *service, const char *hash, bool ok)
{
    (void)pthread_mutex_lock(&service->inspecting);
    service->reloads_failed += !ok;
    (void)strcpy(service->reload_hash, hash);
    (void)pthread_mutex_unlock(&service->inspecting);
}

/** What is due. */
uint64_t service_due(const struct service *service)
{
    const struct config *config = service_config(service);
    uint64_t due = UINT64_MAX;
    for (size_t s = 0; s < config->count; s++) {
        uint64_t this = error_log_due(&config->servers[s].errors);
        due = this < due ? this : due;
    }
    return due;
}

/** Does it. */
void service_tick(struct service *service, uint64_t now_ns)
{
    const struct config *config = service_config(service);
    for (size_t s = 0; s < config->count; s++) {
        error_log_tick(&config->servers[s].errors, now_ns);
    }
}

/** Stops. */
void service_stop(struct service *service)
{
    struct epoch *last = atomic_load(&service->epoch);
    epoch_publish(service, &service->none);
    epoch_drain(last, service->module, STOP_DRAIN_NS);
    retire_finish(service);
    /* The workers' last turn: it closes the TCP connections whose answers have gone. */
    workers_join(service);
    web_fini(&service->web);
    atomic_store(&service->epoch, NULL);
    epoch_destroy(last);
}

/** Frees. */
void service_fini(struct service *service)
{
    workers_join(service);
    web_fini(&service->web);
    struct epoch *epoch = atomic_load(&service->epoch);
    if (epoch != NULL) { /* never quite started */
        epoch_drain(epoch, service->module, 0);
        epoch_destroy(epoch);
    }
    for (unsigned i = 0; i < service->worker_count; i++) {
        worker_fini(&service->workers[i]);
    }
    free(service->workers);
    (void)pthread_cond_destroy(&service->changed);
    (void)pthread_mutex_destroy(&service->mutex);
    (void)pthread_mutex_destroy(&service->inspecting);
}
