/* An authority of the tests. Failure modes: what cannot be made aborts. */
#include "authority.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void authority_open(struct authority *authority)
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(authority->directory, sizeof(authority->directory), "%s/fwd-test-XXXXXX",
                   base != NULL ? base : "/tmp");
    if (mkdtemp(authority->directory) == NULL) {
        perror(authority->directory);
        abort();
    }
    authority->ca = certificate_make(
        &(struct certificate_form){.common_name = "test CA", .authority = true}, NULL);
    authority->server = certificate_make(
        &(struct certificate_form){.common_name = "server",
                                   .alt_names = "DNS:" SERVER_NAME ",IP:127.0.0.1,IP:::1"},
        &authority->ca);
    (void)snprintf(authority->ca_file, sizeof(authority->ca_file), "%s/ca.pem",
                   authority->directory);
    certificate_write(&authority->ca, authority->ca_file, NULL);
}

void authority_close(struct authority *authority)
{
    DIR *dir = opendir(authority->directory);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] != '.') {
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    (void)rmdir(authority->directory);
    certificate_free(&authority->ca);
    certificate_free(&authority->server);
}

const char *authority_path(const struct authority *authority, const char *file)
{
    static char paths[8][160];
    static unsigned next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, sizeof(paths[0]), "%s/%s", authority->directory, file);
    return path;
}

struct tls_upstream *authority_upstream(const struct authority *authority, enum tls_kind kind,
                                        const struct tls_setup *more)
{
    struct tls_setup setup = more != NULL ? *more : (struct tls_setup){0};
    setup.kind = kind;
    if (setup.certificate == NULL) {
        setup.certificate = &authority->server;
    }
    return tls_upstream_create(&setup);
}
