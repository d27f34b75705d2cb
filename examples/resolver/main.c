/* fwd-resolver: a forwarding DNS server that loads forward.so and is driven by a Corefile.
 *
 * Happy path: read the flags, load the module, read the Corefile, open the sockets, become the user
 * asked for, serve; SIGUSR1 reloads, SIGTERM and SIGINT answer what is in flight and end with 0.
 * Failure modes: each is one line on stderr and exit status 1, worded as CoreDNS words it where it
 * has the same; a reload that fails is a line in the log, and the running configuration stays.
 */
#include "config.h"
#include "flags.h"
#include "log.h"
#include "module_load.h"
#include "service.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* What reading the Corefile needs, at start and at every reload. */
struct source_text {
    const char *conf; /* as -conf names it */
    struct text text;
};

static bool descriptor_read(int fd, struct text *text)
{
    char buffer[16384];
    for (;;) {
        ssize_t got = read(fd, buffer, sizeof(buffer));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got == 0 && !text->failed;
        }
        text_append(text, buffer, (size_t)got);
    }
}

/* Reads the Corefile; stdin is read once and kept, as a second time there would be nothing. */
static bool source_read(struct source_text *source, struct failure *failure)
{
    bool from_stdin = source->conf != NULL && strcmp(source->conf, "stdin") == 0;
    if (from_stdin && source->text.data != NULL) {
        return true;
    }
    const char *name = source->conf != NULL ? source->conf : "Corefile";
    int fd = from_stdin ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        char why[128];
        (void)snprintf(why, sizeof(why), "%s", strerror(errno));
        why[0] = why[0] >= 'A' && why[0] <= 'Z' ? (char)(why[0] + ('a' - 'A')) : why[0];
        return failure_set(failure, "loading Caddyfile via %s: open %s: %s",
                           source->conf != NULL ? "flag" : "default", name, why);
    }
    text_fini(&source->text);
    bool ok = descriptor_read(fd, &source->text);
    if (!from_stdin) {
        (void)close(fd);
    }
    return ok || failure_set(failure, "read %s: %s", name, strerror(errno));
}

static struct config *corefile_load(const struct module *module, struct source_text *source,
                                    const struct flags *flags, struct failure *failure)
{
    if (!source_read(source, failure)) {
        return NULL;
    }
    const char *name = source->conf != NULL ? source->conf : "Corefile";
    const struct corefile corefile = {
        .name = strcmp(name, "stdin") == 0 ? "/dev/stdin" : name,
        .text = source->text.data != NULL ? source->text.data : "",
        .len = source->text.len,
    };
    return config_load(module, &corefile, flags->port, failure);
}

/* Beyond the Corefile's text: does the module take the configuration, TLS files included? */
static bool instances_check(const struct module *module, const struct config *config,
                            struct failure *failure)
{
    for (size_t s = 0; s < config->count; s++) {
        if (config->servers[s].forward == NULL) {
            continue;
        }
        char *json = json_dumps(config->servers[s].forward, JSON_COMPACT);
        if (json == NULL) {
            return failure_set(failure, "out of memory");
        }
        struct module_error error;
        module_error_init(&error);
        int status = module->forward->check(json, strlen(json), &error.error);
        free(json);
        if (status < 0) {
            return failure_from_module(failure, &error.error);
        }
    }
    return true;
}

static bool validate(const struct module *module, struct source_text *source,
                     const struct flags *flags, struct failure *failure)
{
    struct config *config = corefile_load(module, source, flags, failure);
    bool ok = config != NULL && instances_check(module, config, failure);
    if (ok && flags->json) {
        json_t *json = config_to_json(config);
        ok = json != NULL && json_dumpf(json, stdout, JSON_INDENT(2)) == 0 &&
             putchar('\n') != EOF && fflush(stdout) == 0;
        json_decref(json);
        ok = ok || failure_set(failure, "cannot write the configuration");
    }
    config_destroy(config);
    return ok;
}

/* Each query in flight is a socket: as many as the hard limit allows. */
static void descriptors_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool user_become(const char *name, struct failure *failure)
{
    if (name == NULL) {
        return true;
    }
    errno = 0;
    const struct passwd *user = getpwnam(name);
    if (user == NULL) {
        return failure_set(failure, "user %s: %s", name,
                           errno != 0 ? strerror(errno) : "no such user");
    }
    if (geteuid() == user->pw_uid) {
        return true;
    }
    if (initgroups(name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
        setuid(user->pw_uid) != 0) {
        return failure_set(failure, "cannot become user %s: %s", name, strerror(errno));
    }
    return true;
}

static void version_print(struct text *out, const struct module *module)
{
    text_printf(out, "fwd-resolver-%s\nlinux/%s", PROJECT_VERSION, PROJECT_CPU);
    if (module != NULL) {
        text_printf(out, ", module ABI %u.%u, %s", module->entry->abi_version >> 16,
                    module->entry->abi_version & 0xffff, module->path);
    }
    text_append(out, "\n", 1);
}

static void banner_print(const struct service *service)
{
    struct text out = {0};
    epoch_print(atomic_load(&service->epoch), &out);
    version_print(&out, service->module);
    if (out.data != NULL) {
        log_write(out.data, out.len);
    }
    text_fini(&out);
}

static void reload(struct service *service, struct source_text *source, const struct flags *flags)
{
    log_print(FWD_LEVEL_INFO, "SIGUSR1: Reloading");
    struct failure failure;
    struct config *config = corefile_load(service->module, source, flags, &failure);
    if (config == NULL || !service_reload(service, config, &failure)) {
        log_print(FWD_LEVEL_ERROR, "SIGUSR1: %s", failure.text);
        log_print(FWD_LEVEL_ERROR, "SIGUSR1: the configuration stays as it was");
        return;
    }
    log_print(FWD_LEVEL_INFO, "Reloading complete");
}

/* Waits for signals until one says to end. A reload that comes while one is under way waits for its
 * end (SIGUSR2). */
static void signals_serve(struct service *service, struct source_text *source,
                          const struct flags *flags, const sigset_t *signals)
{
    bool wanted = false;
    for (;;) {
        int number = 0;
        if (sigwait(signals, &number) != 0) {
            continue;
        }
        if (number == SIGTERM || number == SIGINT) {
            log_print(FWD_LEVEL_INFO, "%s: Shutting down servers then terminating",
                      number == SIGTERM ? "SIGTERM" : "SIGINT");
            return;
        }
        wanted |= number == SIGUSR1;
        if (!service_reloading(service) && wanted) {
            wanted = false;
            reload(service, source, flags);
        }
    }
}

static bool serve(const struct module *module, struct source_text *source,
                  const struct flags *flags, struct failure *failure)
{
    sigset_t signals;
    (void)sigemptyset(&signals);
    const int numbers[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        (void)sigaddset(&signals, numbers[i]);
    }
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL); /* inherited by all threads to come */
    (void)signal(SIGPIPE, SIG_IGN);
    descriptors_raise();

    struct config *config = corefile_load(module, source, flags, failure);
    if (config == NULL) {
        return false;
    }
    struct service service;
    bool ok = service_init(&service, module, failure);
    if (!ok) {
        config_destroy(config);
    }
    ok = ok && service_open(&service, config, failure) && user_become(flags->user, failure) &&
         service_start(&service, failure);
    if (ok) {
        if (!flags->quiet) {
            banner_print(&service);
        }
        signals_serve(&service, source, flags, &signals);
        service_stop(&service);
    }
    service_fini(&service);
    return ok;
}

int main(int argc, char **argv)
{
    struct flags flags;
    flags_parse(&flags, argc, argv);
    if (flags.version) {
        struct text out = {0};
        version_print(&out, NULL);
        (void)fputs(out.data != NULL ? out.data : "", stdout);
        text_fini(&out);
        return 0;
    }
    struct failure failure = {.text = ""};
    struct module module;
    struct source_text source = {.conf = flags.conf};
    bool ok = module_load(&module, flags.module, &failure) &&
              (flags.validate ? validate(&module, &source, &flags, &failure)
                              : serve(&module, &source, &flags, &failure));
    text_fini(&source.text);
    if (!ok) {
        (void)fprintf(stderr, "%s\n", failure.text);
    }
    return ok ? 0 : 1;
}
