/* Detaching and failing exchanges, and what errno means.
 *
 * Happy path: conn_match detaches the exchange that an answer belongs to. Failure modes: a time-out, a dead conn or a cancel detaches it
 * with an error; whoever detaches it finishes it, and nobody else can.
 */
#include "exchange.h"

#include "conn.h"
#include "loop.h"

#include <errno.h>

void exchange_detach(struct exchange *x)
{
    struct conn *conn = x->conn;
    *(x->prev != NULL ? &x->prev->next : &conn->exchanges) = x->next;
    if (x->next != NULL) {
        x->next->prev = x->prev;
    }
    conn->in_flight--;
    wheel_remove(&conn->loop->wheel, &x->timer);
    x->prev = x->next = NULL;
    x->conn = NULL;
}

void exchange_fail_locked(struct exchange *x, int error, int sys_errno, enum phase phase, uint64_t now_ns)
{
    struct conn *conn = x->conn;
    exchange_detach(x);
    x->outcome = (struct outcome){
        .error = error,
        .sys_errno = sys_errno,
        .phase = phase,
        .proto = conn->ops->proto,
        .elapsed_ns = now_ns - x->started_ns,
    };
}

/* Takes x out of loop if it is in flight there and still the one that is meant. @return its conn, which the caller owns now */
static struct conn *detach_canceled(struct exchange *x, uint64_t word, struct loop *loop)
{
    struct conn *conn = NULL;
    uint64_t now = services_mono(loop->services);
    pthread_mutex_lock(&loop->lock);
    /* Armings on another loop set `home` under that loop's lock before they look at the bit. The bit was set before `home` is read here, so if
     * home is still this loop, no arming elsewhere can go on to write x->conn. */
    if (atomic_load(&x->home) == loop && atomic_load(x->word) == word && x->conn != NULL) {
        conn = x->conn;
        exchange_fail_locked(x, FWD_ERR_CANCELED, 0, PHASE_READ, now);
        conn->dead = conn->dead || conn->ops->limit == 1;
        x->ended_next = loop->ended;
        loop->ended = x;
    }
    pthread_mutex_unlock(&loop->lock);
    return conn;
}

void exchange_cancel(struct exchange *x, uint64_t word)
{
    struct loop *loop = atomic_load(&x->home);
    struct conn *conn = NULL;
    while (loop != NULL && atomic_load(x->word) == word) {
        conn = detach_canceled(x, word, loop);
        struct loop *now_on = atomic_load(&x->home);
        if (conn != NULL || now_on == loop) {
            break;
        }
        loop = now_on;
    }
    if (conn != NULL) {
        if (conn->ops->limit == 1) {
            loop_doom(loop, conn);
        }
        loop_wake(loop);
    }
}

int exchange_error_of(int sys_errno)
{
    switch (sys_errno) {
    case 0:
        return FWD_ERR_CLOSED;
    case ECONNREFUSED:
        return FWD_ERR_REFUSED;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case EINVAL: /* a link-local address without scope */
    case EAFNOSUPPORT:
        return FWD_ERR_UNREACHABLE;
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
        return FWD_ERR_RESET;
    case ETIMEDOUT:
        return FWD_ERR_TIMEOUT;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EADDRNOTAVAIL:
    case EADDRINUSE:
    case EAGAIN: /* a UDP connect without a free port */
        return FWD_ERR_EXHAUSTED;
    case EBADMSG:
        return FWD_ERR_BAD_REPLY;
    default:
        return FWD_ERR_SEND;
    }
}
