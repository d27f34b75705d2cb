/* A DoT or DoH server for the bench, on the tests' scripted upstream: it counts handshakes, and can close all its connections again and again.
 *
 *   tls_server tls|https CLOSE_MS CA_FILE     (0 never closes)
 *
 * Happy path: writes its authority's certificate to CA_FILE, prints its port, then for each line on stdin its counts as JSON, until stdin ends.
 * Failure modes: wrong arguments end it with 2.
 */
#include "authority.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fprintf(stderr, "usage: tls_server tls|https CLOSE_MS CA_FILE\n");
        return 2;
    }
    struct authority authority;
    authority_open(&authority);
    certificate_write(&authority.ca, argv[3], NULL);
    struct tls_upstream *up = authority_upstream(&authority, strcmp(argv[1], "https") == 0 ? KIND_DOH : KIND_DOT, NULL);
    unsigned close_ms = (unsigned)strtoul(argv[2], NULL, 10);
    if (close_ms > 0) {
        tls_upstream_kill_every(up, END_FIN, close_ms);
    }
    (void)printf("%u\n", tls_upstream_port(up));
    (void)fflush(stdout);
    for (int c; (c = getchar()) != EOF;) {
        struct tls_counts counts = tls_upstream_counts(up);
        (void)printf("{\"queries\": %u, \"opened\": %u, \"open\": %u, \"handshakes\": %u, \"resumed\": %u, \"together\": %u}\n",
                     counts.queries, counts.opened, counts.open, counts.handshakes, counts.resumed, counts.together);
        (void)fflush(stdout);
    }
    tls_upstream_destroy(up);
    authority_close(&authority);
    return 0;
}
