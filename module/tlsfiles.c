/* Files of a `tls` line.
 *
 * Happy path: every file is there and has PEM blocks of its kind. Failure modes: CoreDNS's errors.
 * Whether certificate and key belong together is for the TLS library to say when it loads them.
 */
#include "tlsfiles.h"

#include "path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads path and looks for a PEM block whose label ends with label. Returns 1 when there is none.
 */
static int pem_find(const char *path, const char *label, char reason[GOTEXT_REASON])
{
    char *data;
    size_t len;
    bool found = false;

    if (file_read(path, &data, &len, reason) != 0) {
        return -1;
    }
    for (const char *at = data; !found && (at = strstr(at, "-----BEGIN ")) != NULL; at++) {
        const char *end = strstr(at, "\n");
        const char *match = strstr(at, label);

        found = match != NULL && (end == NULL || match < end);
    }
    free(data);
    return found ? 0 : 1;
}

static int pair_check(const char *cert, const char *key, char *reason)
{
    char why[GOTEXT_REASON];
    char text[GOTEXT_REASON];
    int status = pem_find(cert, " CERTIFICATE-----", text);

    (void)snprintf(why, sizeof(why), "%s",
                   status > 0 ? "tls: failed to find any PEM data in certificate input" : text);
    if (status == 0) {
        status = pem_find(key, "PRIVATE KEY-----", text);
        (void)snprintf(why, sizeof(why), "%s",
                       status > 0 ? "tls: failed to find any PEM data in key input" : text);
    }
    if (status != 0) {
        (void)snprintf(reason, GOTEXT_REASON, "could not load TLS cert: %.*s", GOTEXT_REASON - 64,
                       why);
    }
    return status == 0 ? 0 : -1;
}

static int roots_check(const char *ca, char *reason)
{
    char text[GOTEXT_REASON];
    int status = pem_find(ca, " CERTIFICATE-----", text);

    if (status > 0) {
        (void)snprintf(reason, GOTEXT_REASON, "could not read root certs: no certificate in %.*s",
                       GOTEXT_REASON / 2, ca);
    } else if (status < 0) {
        (void)snprintf(reason, GOTEXT_REASON, "error reading %.*s: %.*s", GOTEXT_REASON / 3, ca,
                       GOTEXT_REASON / 2, text);
    }
    return status == 0 ? 0 : -1;
}

/** Checks the arguments of a `tls` line. */
int tlsfiles_check(const char *const *files, size_t count, char reason[GOTEXT_REASON])
{
    if (count >= 2 && pair_check(files[0], files[1], reason) != 0) {
        return -1;
    }
    return count % 2 == 1 ? roots_check(files[count - 1], reason) : 0;
}
