/* Finding and loading forward.so.
 *
 * Happy path: the first of -module, $FWD_MODULE, <executable>/../../module/forward.so and the
 * installed path that applies is opened, the entry asked for ABI major 1, and the tables checked
 * for every function that the daemon calls. Failure modes: no file, not a module, another ABI, a
 * table or function missing: each is one line that names the file.
 */
#include "module_load.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The directory of the running executable, without a slash at its end. */
static bool executable_directory(char *buffer, size_t cap)
{
    ssize_t len = readlink("/proc/self/exe", buffer, cap - 1);
    if (len <= 0) {
        return false;
    }
    buffer[len] = '\0';
    char *slash = strrchr(buffer, '/');
    if (slash == NULL) {
        return false;
    }
    *slash = '\0';
    return true;
}

static bool module_find(const char *wanted, char *path, size_t cap, struct failure *failure)
{
    const char *named = wanted != NULL ? wanted : getenv("FWD_MODULE");
    if (named != NULL && named[0] != '\0') {
        /* A name without a slash would make dlopen search the library path. */
        (void)snprintf(path, cap, "%s%s", strchr(named, '/') == NULL ? "./" : "", named);
        return true;
    }
    char directory[2048];
    if (executable_directory(directory, sizeof(directory))) {
        (void)snprintf(path, cap, "%s/../../module/forward.so", directory);
        if (access(path, R_OK) == 0) {
            return true;
        }
    }
    (void)snprintf(path, cap, "%s", MODULE_INSTALLED);
    if (access(path, R_OK) == 0) {
        return true;
    }
    return failure_set(failure,
                       "no forward.so found: not in the build tree, not at %s; "
                       "name it with -module or FWD_MODULE",
                       MODULE_INSTALLED);
}

static bool tables_take(struct module *module, struct failure *failure)
{
    if (!FWD_HAS(module->entry, get_interface) || !FWD_HAS(module->entry, strerror)) {
        return failure_set(failure, "%s: not a complete forward module", module->path);
    }
    module->forward = module->entry->get_interface(FWD_FORWARD_ID);
    module->corefile = module->entry->get_interface(FWD_COREFILE_ID);
    const struct fwd_forward *forward = module->forward;
    if (forward == NULL || !FWD_HAS(forward, corefile_to_json) || !FWD_HAS(forward, check) ||
        !FWD_HAS(forward, create) || !FWD_HAS(forward, start) || !FWD_HAS(forward, serve) ||
        !FWD_HAS(forward, stop) || !FWD_HAS(forward, destroy) || !FWD_HAS(forward, info) ||
        !FWD_HAS(forward, metrics)) {
        return failure_set(failure, "%s: no %s", module->path, FWD_FORWARD_ID);
    }
    if (module->corefile == NULL || !FWD_HAS(module->corefile, parse)) {
        return failure_set(failure, "%s: no %s", module->path, FWD_COREFILE_ID);
    }
    return true;
}

/** Finds, loads and checks the module. */
bool module_load(struct module *module, const char *path, struct failure *failure)
{
    char found[sizeof(module->path)];
    if (!module_find(path, found, sizeof(found), failure)) {
        return false;
    }
    (void)strcpy(module->path, found);
    void *handle = dlopen(module->path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        return failure_set(failure, "cannot load the module: %s", dlerror());
    }
    const struct fwd_module *(*entry)(uint32_t) = NULL;
    *(void **)&entry = dlsym(handle, "fwd_module_entry");
    if (entry == NULL) {
        (void)dlclose(handle);
        return failure_set(failure, "%s: not a forward module (no fwd_module_entry)", module->path);
    }
    module->entry = entry(FWD_ABI_MAJOR);
    if (module->entry == NULL) {
        (void)dlclose(handle);
        return failure_set(failure, "%s: does not speak ABI major %d", module->path, FWD_ABI_MAJOR);
    }
    return tables_take(module, failure);
}
