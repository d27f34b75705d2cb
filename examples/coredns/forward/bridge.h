/* Between Go and forward.so: what cgo cannot do itself (dlopen, calls through tables, callbacks
 * with a const argument), and no more.
 *
 * Threads: load and the texts any; the rest as abi.h says of the function that is called.
 * Ownership: a struct bridge_text is freed by whoever gets it; instances are ended by
 * bridge_destroy. C keeps no Go pointer: what is passed in is copied before the call returns.
 */
#pragma once

#include "abi.h"

/* Text that the module pushed, which may be NULL; and when status is negative the text of the
 * error, NULL when out of memory. */
struct bridge_text {
    char *data;
    char *error;
    uint64_t len;
    int32_t status;
};

/* One query: what goes into the module, and where its end is put down. Its address is the query's
 * token. From serve, if that accepts it, to being taken off bridge_ended it is the loop's; else Go's,
 * as handle and verdict always are. */
struct bridge_slot {
    struct bridge_slot *next; /* on bridge_ended */
    uint64_t index;           /* of the slot in Go that belongs to it */
    uint64_t handle;          /* of the accepted query */
    uint32_t verdict;         /* what serve said; with FWD_VERDICT_RCODE rcode and detail are set */
    uint32_t kind;
    uint32_t rcode;
    uint32_t proto;
    uint32_t wire_len;
    uint32_t wire_cap;
    uint32_t upstream_len;
    uint8_t *wire; /* kept from query to query */
    char upstream[64];
    char detail[256];
    uint8_t query[512]; /* room for the query, should it be as short as most */
};

/* The queries that have ended, the last one first; atomic. Go fetches them after whatever turns the
 * loop, so C never enters Go for a completion. */
extern struct bridge_slot *bridge_ended;

/* count slots with indices from first on, for ever; NULL when out of memory. */
struct bridge_slot *bridge_slots(uint64_t first, uint32_t count);

/* Gives the memory of a large answer back. */
void bridge_slot_shrink(struct bridge_slot *slot);

/* Services that only some instances want: each costs a call into Go per attempt. */
enum { BRIDGE_TAP = 1, BRIDGE_TRACE = 2 };

/* Loads the module; the same one again is no error. status < 0: the text says why not. */
struct bridge_text bridge_load(const char *path);

/* fwd.forward/1 of the loaded module. The error's text is that of struct fwd_error. */
struct bridge_text bridge_corefile_to_json(const struct fwd_token *tokens, uint32_t count,
                                           const char *root);
struct bridge_text bridge_check(const char *config, uint64_t len);
struct bridge_text bridge_create(const char *config, uint64_t len, uint32_t services,
                                 struct fwd_instance **ret);
struct bridge_text bridge_start(struct fwd_instance *instance);
struct bridge_text bridge_info(struct fwd_instance *instance);
struct bridge_text bridge_metrics(void);
int32_t bridge_poll_fd(struct fwd_instance *instance);
int32_t bridge_run(struct fwd_instance *instance);
int32_t bridge_stop(struct fwd_instance *instance, uint64_t drain_ns);
void bridge_destroy(struct fwd_instance *instance);
int32_t bridge_match(struct fwd_instance *instance, const uint8_t *qname, uint32_t len);
int32_t bridge_cancel(struct fwd_instance *instance, uint64_t handle);

/* One query; slot->query or other memory. @return as serve; below 0 the slot has no verdict */
int32_t bridge_serve(struct fwd_instance *instance, struct bridge_slot *slot, uint32_t flags,
                     const uint8_t *wire, uint32_t len);

/* Static text of an error number. */
const char *bridge_strerror(int32_t code);
