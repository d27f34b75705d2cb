/* fwd-resolver: a forwarding DNS server that loads forward.so and is driven by a Corefile.
 *
 * Happy path: read the flags, load the module, read the Corefile, open the sockets, become the user
 * asked for, serve; SIGUSR1 reloads, SIGTERM and SIGINT answer what is in flight and end with 0.
 * Failure modes: each is one line on stderr and exit status 1, worded as CoreDNS words it where it
 * has the same; a reload that fails is a line in the log, and the running configuration stays.
 */
#include "control.h"
#include "corefile_source.h"
#include "flags.h"
#include "log.h"
#include "module_load.h"
#include "service.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Beyond the Corefile's text: does the module take the configuration, TLS files included? */
static bool instances_check(const struct module *module, const struct config *config,
                            struct failure *failure)
{
    for (size_t s = 0; s < config->count; s++) {
        const struct server *server = &config->servers[s];
        if (!server->has_forward) {
            continue;
        }
        struct module_error error;
        module_error_init(&error);
        int status = module->forward->check(config->forwards.data + server->forward_at,
                                            server->forward_len, &error.error);
        if (status < 0) {
            return failure_from_module(failure, &error.error);
        }
    }
    return true;
}

static bool validate(struct corefile_source *source, struct failure *failure)
{
    struct config *config = source_load(source, failure);
    bool ok = config != NULL && instances_check(source->module, config, failure);
    if (ok && source->flags->json) {
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

static bool serve(struct corefile_source *source, struct failure *failure)
{
    sigset_t signals;
    control_signals(&signals);
    descriptors_raise();

    struct config *config = source_load(source, failure);
    if (config == NULL) {
        return false;
    }
    struct service service;
    bool ok = service_init(&service, source->module, source->flags->workers, failure);
    if (!ok) {
        config_destroy(config);
    }
    ok = ok && service_open(&service, config, failure) &&
         user_become(source->flags->user, failure) && service_start(&service, failure);
    if (ok) {
        if (!source->flags->quiet) {
            banner_print(&service);
        }
        control_run(&service, source, &signals);
        service_stop(&service);
    }
    service_fini(&service);
    return ok;
}

/* glibc goes through its fast bins for every allocation above 1 KiB, which was a tenth of the start with
 * a hundred thousand server blocks. What a thread needs again soon comes from its own cache. */
static void memory_tune(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MXFAST, 0);
#endif
}

int main(int argc, char **argv)
{
    memory_tune();
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
    struct corefile_source source = {.module = &module, .flags = &flags};
    bool ok = module_load(&module, flags.module, &failure) &&
              (flags.validate ? validate(&source, &failure) : serve(&source, &failure));
    source_fini(&source);
    if (!ok) {
        (void)fprintf(stderr, "%s\n", failure.text);
    }
    return ok ? 0 : 1;
}
