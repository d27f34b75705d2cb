/* Control.
 *
 * Happy path: wait for a signal or for the next thing that is due, do it, wait again.
 * Failure modes: a reload that fails is a line in the log, and the running configuration stays. A
 * reload that comes while one is under way waits for its end.
 */
#include "control.h"

#include "clock.h"
#include "duration.h"
#include "info_page.h"
#include "log.h"
#include "poke.h"

#include <string.h>

struct control {
    struct service *service;
    struct corefile_source *source;
    const sigset_t *signals;
    bool wanted; /* a reload, by signal */
    /* the reload directive */
    int64_t interval_ns; /* 0: not there */
    uint64_t next_ns;
    char hash[SOURCE_HASH_MAX];
};

/** Blocks. */
void control_signals(sigset_t *ret_signals)
{
    (void)sigemptyset(ret_signals);
    const int numbers[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP, SIGNAL_POKE};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        (void)sigaddset(ret_signals, numbers[i]);
    }
    (void)pthread_sigmask(SIG_BLOCK, ret_signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

/* A signal, or 0 when the deadline (UINT64_MAX: none) has come. */
static int signal_wait(const sigset_t *signals, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX) {
        int number = 0;
        return sigwait(signals, &number) == 0 ? number : 0;
    }
    uint64_t now = clock_ns();
    uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
    const struct timespec patience = {
        .tv_sec = (time_t)(left / SECOND_NS),
        .tv_nsec = (long)(left % SECOND_NS),
    };
    int number = sigtimedwait(signals, NULL, &patience);
    return number > 0 ? number : 0;
}

/* Begins to watch the Corefile of the configuration that runs now. The last directive counts, as
 * there is one process. */
static void watch_begin(struct control *control)
{
    const struct config *config = service_config(control->service);
    control->interval_ns = 0;
    for (size_t s = 0; s < config->count; s++) {
        int64_t interval = config->servers[s].endpoints.reload_ns;
        control->interval_ns = interval != 0 ? interval : control->interval_ns;
    }
    if (control->interval_ns == 0) {
        return;
    }
    control->next_ns = clock_ns() + (uint64_t)control->interval_ns;
    struct failure failure;
    bool read;
    if (!source_hash(control->source, control->hash, &read, &failure)) {
        control->hash[0] = '\0'; /* changed since: the next look reloads */
        return;
    }
    log_print(FWD_LEVEL_INFO, "plugin/reload: Running configuration SHA512 = %s", control->hash);
}

static bool reload(struct control *control, struct failure *failure)
{
    struct config *config = source_load(control->source, failure);
    return config != NULL && service_reload(control->service, config, failure);
}

static void reload_tell(struct control *control)
{
    watch_begin(control);
    log_print(FWD_LEVEL_INFO, "Reloading complete");
}

static void reload_by_signal(struct control *control)
{
    log_print(FWD_LEVEL_INFO, "SIGUSR1: Reloading");
    struct failure failure;
    if (!reload(control, &failure)) {
        log_print(FWD_LEVEL_ERROR, "SIGUSR1: %s", failure.text);
        log_print(FWD_LEVEL_ERROR, "SIGUSR1: the configuration stays as it was");
        return;
    }
    reload_tell(control);
}

/* Looks at the Corefile and reloads when its tokens are others. A file that led to nothing is not
 * tried again until it changes. */
static void watch_look(struct control *control)
{
    control->next_ns = clock_ns() + (uint64_t)control->interval_ns;
    struct failure failure;
    char hash[SOURCE_HASH_MAX];
    bool read;
    if (!source_hash(control->source, hash, &read, &failure)) {
        if (read) {
            log_print(FWD_LEVEL_WARNING, "plugin/reload: Corefile parse failed: %s", failure.text);
        }
        return;
    }
    if (strcmp(hash, control->hash) == 0) {
        return;
    }
    (void)strcpy(control->hash, hash);
    log_print(FWD_LEVEL_INFO, "Reloading");
    bool ok = reload(control, &failure);
    service_note_reload(control->service, hash, ok);
    if (!ok) {
        log_print(FWD_LEVEL_ERROR, "plugin/reload: Corefile changed but reload failed: %s",
                  failure.text);
        return;
    }
    reload_tell(control);
}

static void info_print(struct service *service)
{
    struct text out = {0};
    info_page_text(service, &out);
    if (out.data != NULL) {
        log_write(out.data, out.len);
    }
    text_fini(&out);
}

/* Answers on for the longest lameduck time, not ready any more, so that who balances the load can
 * go elsewhere. Another SIGTERM or SIGINT cuts it short. */
static void lameduck_wait(struct control *control)
{
    const struct config *config = service_config(control->service);
    int64_t longest = 0;
    for (size_t s = 0; s < config->count; s++) {
        int64_t lameduck = config->servers[s].endpoints.lameduck_ns;
        longest = lameduck > longest ? lameduck : longest;
    }
    if (longest <= 0) {
        return;
    }
    char text[DURATION_TEXT_MAX];
    duration_print(longest, text);
    log_print(FWD_LEVEL_INFO, "plugin/health: Going into lameduck mode for %s", text);
    uint64_t end = clock_ns() + (uint64_t)longest;
    while (clock_ns() < end) {
        int number = signal_wait(control->signals, end);
        if (number == SIGTERM || number == SIGINT) {
            return;
        }
        if (number == SIGUSR2) {
            info_print(control->service);
        }
    }
}

static uint64_t due(const struct control *control)
{
    uint64_t next = service_due(control->service);
    if (control->interval_ns != 0 && control->next_ns < next) {
        next = control->next_ns;
    }
    return next;
}

/** Serves. */
void control_run(struct service *service, struct corefile_source *source, const sigset_t *signals)
{
    struct control control = {.service = service, .source = source, .signals = signals};
    watch_begin(&control);
    for (;;) {
        int number = signal_wait(signals, due(&control));
        if (number == SIGTERM || number == SIGINT) {
            log_print(FWD_LEVEL_INFO, "%s: Shutting down servers then terminating",
                      number == SIGTERM ? "SIGTERM" : "SIGINT");
            break;
        }
        if (number == SIGUSR2) {
            info_print(service);
        }
        control.wanted |= number == SIGUSR1;
        service_tick(service, clock_ns());
        if (service_reloading(service)) {
            if (control.next_ns <= clock_ns()) { /* soon again */
                control.next_ns = clock_ns() + SECOND_NS;
            }
            continue;
        }
        if (control.wanted) {
            control.wanted = false;
            reload_by_signal(&control);
        } else if (control.interval_ns != 0 && control.next_ns <= clock_ns()) {
            watch_look(&control);
        }
    }
    atomic_store(&service->web.ready, false);
    lameduck_wait(&control);
}
