/* Reading the Corefile.
 *
 * Happy path: open, read to the end, let the module parse.
 * Failure modes: a file that cannot be read is worded as CoreDNS words it. stdin is read once and
 * kept, as a second time there would be nothing.
 */
#include "corefile_source.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

static bool source_read(struct corefile_source *source, struct failure *failure)
{
    const char *conf = source->flags->conf;
    bool from_stdin = conf != NULL && strcmp(conf, "stdin") == 0;
    if (from_stdin && source->text.data != NULL) {
        return true;
    }
    const char *name = conf != NULL ? conf : "Corefile";
    int fd = from_stdin ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        char why[128];
        (void)snprintf(why, sizeof(why), "%s", strerror(errno));
        why[0] = why[0] >= 'A' && why[0] <= 'Z' ? (char)(why[0] + ('a' - 'A')) : why[0];
        return failure_set(failure, "loading Caddyfile via %s: open %s: %s",
                           conf != NULL ? "flag" : "default", name, why);
    }
    text_fini(&source->text);
    bool ok = descriptor_read(fd, &source->text);
    if (!from_stdin) {
        (void)close(fd);
    }
    return ok || failure_set(failure, "read %s: %s", name, strerror(errno));
}

static struct corefile source_corefile(const struct corefile_source *source)
{
    const char *name = source->flags->conf != NULL ? source->flags->conf : "Corefile";
    return (struct corefile){
        .name = strcmp(name, "stdin") == 0 ? "/dev/stdin" : name,
        .text = source->text.data != NULL ? source->text.data : "",
        .len = source->text.len,
        .full = source->flags->validate && source->flags->json,
    };
}

/* What can be read again need not be kept. */
static void source_forget(struct corefile_source *source)
{
    if (source->flags->conf == NULL || strcmp(source->flags->conf, "stdin") != 0) {
        text_fini(&source->text);
    }
}

/** Loads. */
struct config *source_load(struct corefile_source *source, struct failure *failure)
{
    if (!source_read(source, failure)) {
        return NULL;
    }
    const struct corefile corefile = source_corefile(source);
    struct config *config = config_load(source->module, &corefile, source->flags->port, failure);
    source_forget(source);
    return config;
}

/** Hashes. */
bool source_hash(struct corefile_source *source, char hash[SOURCE_HASH_MAX], bool *ret_read,
                 struct failure *failure)
{
    *ret_read = source_read(source, failure);
    if (!*ret_read) {
        return false;
    }
    const struct corefile corefile = source_corefile(source);
    struct text tree = {0};
    struct module_error error;
    module_error_init(&error);
    int status = source->module->corefile->parse(corefile.text, corefile.len, corefile.name,
                                                 text_sink, &tree, &error.error);
    if (status < 0) {
        text_fini(&tree);
        return failure_from_module(failure, &error.error);
    }
    unsigned char digest[SHA512_DIGEST_LENGTH];
    (void)SHA512((const unsigned char *)tree.data, tree.len, digest);
    text_fini(&tree);
    source_forget(source);
    for (size_t i = 0; i < sizeof(digest); i++) {
        (void)snprintf(hash + 2 * i, 3, "%02x", digest[i]);
    }
    return true;
}

/** Frees. */
void source_fini(struct corefile_source *source)
{
    text_fini(&source->text);
}
