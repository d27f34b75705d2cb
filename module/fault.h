/* The last failure of its kind at an upstream: what an operator asks for first.
 *
 * Threads: any. Ownership: embedded in a transport (attempts) and in a health state (probes). Written where something has failed already;
 * an answered query does not come near it.
 */
#pragma once

#include "exchange.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum { FAULT_TEXT = 224 };

struct fault {
    int error; /**< FWD_ERR_*; FWD_OK when nothing has failed yet */
    enum phase phase;
    uint32_t proto;      /**< FWD_PROTO_* */
    uint64_t elapsed_ns; /**< what the attempt took */
    uint64_t real_ns;    /**< when it ended; Unix time */
    char text[FAULT_TEXT];
};

struct fault_book {
    pthread_mutex_t mutex; /* leaf */
    struct fault last;
};

void fault_book_init(struct fault_book *book);
void fault_book_fini(struct fault_book *book);

/** Words a failed attempt: phase, transport, upstream, cause, time taken; cut to fit. @param to the upstream's name */
void fault_print(const struct outcome *outcome, const char *to, char *text, size_t size);

/** Keeps it. @param text its words */
void fault_note(struct fault_book *book, const struct outcome *outcome, const char *text, uint64_t real_ns);

/** The last one. */
void fault_get(struct fault_book *book, struct fault *ret);

/** The words for where it failed and over what, such as "handshake", "tls". */
const char *fault_phase(enum phase phase);
const char *fault_proto(uint32_t proto);
