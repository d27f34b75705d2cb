/* A worker's TCP side: accepting, reading, letting go.
 *
 * Threads: the worker's own only. Limits: TCP_CONNS_MAX connections per worker; the longest idle
 * one makes room.
 */
#pragma once

#include "worker.h"

enum { TCP_CONNS_MAX = 4096 };

bool tcp_server_init(struct worker *worker);
void tcp_server_accept(struct worker *worker, const struct port *port);

/** After an event, mail or a change of epoch: reads, lets queries in, sends, closes, whatever is
 * due. */
void tcp_server_handle(struct worker *worker, struct tcp_conn *conn, uint32_t events);

/** Once a second: closes what has been idle for too long. */
void tcp_server_tick(struct worker *worker, uint64_t now_ns);

/** Moves all connections over to the next epoch's ports. */
void tcp_server_succeed(struct worker *worker);

/** Frees what was closed in this turn. */
void tcp_server_bury(struct worker *worker);
void tcp_server_fini(struct worker *worker);
