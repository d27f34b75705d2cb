/* Readers that come to us: `dnstap listen`.
 *
 * Threads: started and stopped by main; accepts on a thread of its own, as a reader may take its
 * time to shake hands; listener_next by the sender's. Ownership: what listener_next returns is the
 * caller's.
 */
#pragma once

#include "tap_socket.h"

/** A reader that has shaken hands. */
struct tap_reader {
    struct tap_reader *next;
    struct tap_socket socket;
    struct fstrm_writer *writer;
};

struct tap_listener;

/** Opens the endpoint. @param generation of the configuration. @return NULL with the reason */
struct tap_listener *tap_listener_start(const struct tap_config *config, uint64_t generation,
                                        struct failure *failure);

/** Accepts no more; who was shaking hands is sent away. */
void tap_listener_stop(struct tap_listener *listener);

/** After stop: who has come and was not taken is sent away. */
void tap_listener_destroy(struct tap_listener *listener);

/** All who have come since the last call, linked by next; NULL when nobody has. */
struct tap_reader *tap_listener_next(struct tap_listener *listener);

/** Says good-bye. */
void tap_reader_destroy(struct tap_reader *reader);
