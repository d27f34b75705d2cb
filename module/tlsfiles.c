/* Files of a `tls` line.
 *
 * Happy path: every file is there and has a PEM block of its kind. Failure modes: CoreDNS's errors,
 * which are Go's. What is inside the blocks, and whether certificate and key belong together, is
 * for the TLS library to say when it loads them.
 */
#include "tlsfiles.h"

#include "path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEGIN "-----BEGIN "
#define CERTIFICATE "CERTIFICATE"
#define KEY "PRIVATE KEY"

/* What a file was searched for and what was met before that. */
struct search {
    const char *label;
    bool whole; /* the label is to be equal, not to end so */
    bool found;
    size_t skipped;
    char labels[GOTEXT_REASON / 2]; /* of all that was skipped, with spaces between */
};

static bool ends_with(const char *text, size_t len, const char *end)
{
    size_t end_len = strlen(end);

    return len >= end_len && memcmp(text + len - end_len, end, end_len) == 0;
}

static void block_skip(struct search *search, const char *label, size_t len)
{
    size_t at = strlen(search->labels);

    (void)snprintf(search->labels + at, sizeof(search->labels) - at, "%s%.*s",
                   search->skipped > 0 ? " " : "", (int)len, label);
    search->skipped++;
}

/* Looks at the blocks of a PEM file in turn. A block starts a line and has an end. */
static void blocks_search(const char *data, struct search *search)
{
    for (const char *at = data; !search->found && (at = strstr(at, BEGIN)) != NULL; at++) {
        const char *label = at + strlen(BEGIN);
        const char *stop = strstr(label, "-----");
        const char *line = strchr(label, '\n');
        const char *end = stop != NULL ? strstr(stop, "\n-----END ") : NULL;
        size_t len;

        if ((at > data && at[-1] != '\n') || end == NULL || line == NULL || line < stop ||
            strncmp(end + 10, label, (size_t)(stop - label) + 5) != 0) {
            continue;
        }
        len = (size_t)(stop - label);
        search->found = search->whole
                            ? len == strlen(search->label) && ends_with(label, len, search->label)
                            : ends_with(label, len, search->label);
        if (!search->found) {
            block_skip(search, label, len);
        }
        at = end;
    }
}

static int cert_check(const char *data, char *reason)
{
    struct search search = {.label = CERTIFICATE, .whole = true};

    blocks_search(data, &search);
    if (search.found) {
        return 0;
    }
    if (search.skipped == 0) {
        (void)snprintf(reason, GOTEXT_REASON,
                       "tls: failed to find any PEM data in certificate input");
    } else if (search.skipped == 1 && ends_with(search.labels, strlen(search.labels), KEY)) {
        (void)snprintf(reason, GOTEXT_REASON,
                       "tls: failed to find certificate PEM data in certificate input, but did "
                       "find a private key; PEM inputs may have been switched");
    } else {
        (void)snprintf(reason, GOTEXT_REASON,
                       "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after "
                       "skipping PEM blocks of the following types: [%s]",
                       search.labels);
    }
    return -1;
}

static int key_check(const char *data, char *reason)
{
    struct search search = {.label = KEY};

    blocks_search(data, &search);
    if (search.found) {
        return 0;
    }
    if (search.skipped == 0) {
        (void)snprintf(reason, GOTEXT_REASON, "tls: failed to find any PEM data in key input");
    } else if (search.skipped == 1 && strcmp(search.labels, CERTIFICATE) == 0) {
        (void)snprintf(reason, GOTEXT_REASON,
                       "tls: found a certificate rather than a key in the PEM for the private key");
    } else {
        (void)snprintf(reason, GOTEXT_REASON,
                       "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key "
                       "input after skipping PEM blocks of the following types: [%s]",
                       search.labels);
    }
    return -1;
}

/* Both files are read before either is looked at. */
static int pair_check(const char *cert, const char *key, char *reason)
{
    char why[GOTEXT_REASON];
    char *cert_data = NULL;
    char *key_data = NULL;
    size_t len;
    bool ok = file_read(cert, &cert_data, &len, why) == 0 &&
              file_read(key, &key_data, &len, why) == 0 && cert_check(cert_data, why) == 0 &&
              key_check(key_data, why) == 0;

    free(cert_data);
    free(key_data);
    if (!ok) {
        (void)snprintf(reason, GOTEXT_REASON, "could not load TLS cert: %.*s", GOTEXT_REASON - 64,
                       why);
    }
    return ok ? 0 : -1;
}

static int roots_check(const char *ca, char *reason)
{
    struct search search = {.label = CERTIFICATE, .whole = true};
    struct arena arena = {0};
    const char *path = ca[0] == '/' ? path_absolute(&arena, ca) : path_join(&arena, ".", ca);
    char text[GOTEXT_REASON] = "out of memory";
    char *data = NULL;
    size_t len;
    int status = path != NULL ? file_read(path, &data, &len, text) : -1;

    if (status == 0) {
        blocks_search(data, &search);
        (void)snprintf(reason, GOTEXT_REASON, "could not read root certs: no certificate in %.*s",
                       GOTEXT_REASON / 2, ca);
    } else {
        (void)snprintf(reason, GOTEXT_REASON, "error reading %.*s: %.*s", GOTEXT_REASON / 3, ca,
                       GOTEXT_REASON / 2, text);
    }
    free(data);
    arena_free(&arena);
    return search.found ? 0 : -1;
}

/** Checks the arguments of a `tls` line. */
int tlsfiles_check(const char *const *files, size_t count, char reason[GOTEXT_REASON])
{
    if (count >= 2 && pair_check(files[0], files[1], reason) != 0) {
        return -1;
    }
    return count % 2 == 1 ? roots_check(files[count - 1], reason) : 0;
}
