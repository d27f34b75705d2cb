/* Sending for several queries at once.
 *
 * Happy path: serve gets a batch; queries that go to one connection gather in what that has to write, and leave with one system call, over TLS in one
 * record: half of what a query costs over an encrypted connection is per record.
 *
 * Failure modes: the connection cannot be written to: it is closed by its loop, and what was in flight on it is tried elsewhere, as if it had died a
 * moment later. More connections than the cork knows: the others are written to at once. Somebody else has something to send meanwhile: he finds
 * octets waiting and sends them with his.
 */
#include "cork.h"

#include "conn.h"
#include "loop.h"

#include <stdint.h>

enum { CONNS = 16 };

static _Thread_local struct {
    uint32_t calls; /* one inside the other */
    bool several;   /* of the outermost */
    uint32_t count;
    struct conn *conns[CONNS]; /* pinned */
} cork;

void cork_begin(bool several)
{
    if (cork.calls++ == 0) {
        cork.several = several;
    }
}

bool cork_hold(struct conn *conn)
{
    if (cork.calls != 1 || !cork.several) {
        return false;
    }
    for (uint32_t i = 0; i < cork.count; i++) {
        if (cork.conns[i] == conn) {
            return true;
        }
    }
    if (cork.count == CONNS) {
        return false;
    }
    conn_pin(conn);
    cork.conns[cork.count++] = conn;
    return true;
}

static void flush(struct conn *conn)
{
    struct loop *loop = conn->loop;
    pthread_mutex_lock(&conn->io);
    int err = conn->ops->flush(conn);
    pthread_mutex_unlock(&conn->io);
    if (err != 0) {
        conn_break(conn, err);
    }
    bool closing = conn_is_closing(conn);
    conn_unpin(conn);
    if (closing) {
        loop_wake(loop); /* it may have waited for that */
    }
}

void cork_end(void)
{
    if (--cork.calls > 0) {
        return;
    }
    for (uint32_t i = 0; i < cork.count; i++) {
        flush(cork.conns[i]);
    }
    cork.count = 0;
}
