/* What a dnstap line says. Threads: made by main, then read by all. Ownership: tap_config_fini. */
#pragma once

#include "directive.h"
#include "log_format.h"

enum { TAP_QUEUE = 10000, TAP_QUEUE_MAX = 4096, TAP_BUFFER = 1 << 20, TAP_BUFFER_MAX = 1024 };

enum tap_transport { TAP_UNIX, TAP_TCP, TAP_TLS };

struct tap_config {
    char *endpoint; /**< a path, or HOST:PORT */
    enum tap_transport transport;
    bool listen;     /**< readers come to us */
    bool skipverify; /**< of TLS: the collector's certificate is not verified, a reader may have none */
    char *cert;      /**< of a TLS listener, as are the other two; NULL without `tls` */
    char *key;
    char *ca;     /**< that readers' certificates are verified with; NULL when they need none */
    bool full;    /**< with the messages themselves */
    long buffers; /**< of TAP_BUFFER octets, for the TCP socket */
    long queues;  /**< of TAP_QUEUE messages */
    char *identity;
    char *version;
    bool has_extra;
    struct log_format extra;
};

/** Reads one line and its block; the cursor is at its name. */
bool tap_config_read(struct tap_config *config, struct directive *directive,
                     struct failure *failure);
void tap_config_fini(struct tap_config *config);
