/* Detaching and failing exchanges, and what errno means.
 *
 * Happy path: conn_match detaches the exchange that an answer belongs to. Failure modes: a time-out, a dead conn or a cancel detaches it
 * with an error; whoever detaches it finishes it, and nobody else can. If all that came was an error reply without its question, that is the answer.
 */
#include "exchange.h"

#include "conn.h"
#include "loop.h"
#include "transport.h"

#include <errno.h>

enum { ERROR_GRACE_NS = 100000000 };

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

void exchange_keep_error_locked(struct exchange *x, uint16_t flags, uint64_t now_ns)
{
    if (x->bare_flags != 0) {
        return;
    }
    x->bare_flags = flags; /* QR is set, so not 0 */
    uint64_t until = now_ns + ERROR_GRACE_NS;
    if (until < timer_deadline(&x->timer)) {
        struct loop *loop = x->conn->loop;
        wheel_remove(&loop->wheel, &x->timer);
        (void)loop_arm_locked(loop, &x->timer, until);
    }
}

void exchange_fail_locked(struct exchange *x, int error, int sys_errno, enum phase phase, uint64_t now_ns)
{
    struct conn *conn = x->conn;
    exchange_detach(x);
    bool answered = x->bare_flags != 0 && error != FWD_ERR_CANCELED;
    x->outcome = (struct outcome){
        .error = answered ? FWD_OK : error,
        .sys_errno = sys_errno,
        .phase = phase,
        .proto = conn->ops->proto,
        .elapsed_ns = now_ns - x->started_ns,
    };
    x->ended_on = conn;
    conn_pin(conn); /* until exchange_finish */
}

/* Takes x out of loop if it is in flight or waiting there and still the one that is meant. @return true when it will be ended by loop */
static bool detach_canceled(struct exchange *x, uint64_t word, struct loop *loop)
{
    bool detached = false;
    uint64_t now = services_mono(loop->services);
    pthread_mutex_lock(&loop->lock);
    /* Armings on another loop set `home` under that loop's lock before they look at the bit. The bit was set before `home` is read here, so if
     * home is still this loop, no arming elsewhere can go on to write what is read here. */
    if (atomic_load(&x->home) == loop && atomic_load(x->word) == word) {
        if (x->conn != NULL) {
            exchange_fail_locked(x, FWD_ERR_CANCELED, 0, PHASE_READ, now);
            detached = true;
        } else if (x->queue != NULL && pool_unwait(x->queue, &x->waiter)) {
            exchange_unwait_locked(x, FWD_ERR_CANCELED, now);
            detached = true;
        }
        if (detached) {
            x->ended_next = loop->ended;
            loop->ended = x;
        }
    }
    pthread_mutex_unlock(&loop->lock);
    return detached;
}

void exchange_unwait_locked(struct exchange *x, int error, uint64_t now_ns)
{
    struct loop *loop = atomic_load(&x->home);
    wheel_remove(&loop->wheel, &x->timer);
    x->queue = NULL;
    x->ended_on = NULL;
    x->outcome = (struct outcome){
        .error = error,
        .phase = PHASE_WAIT,
        .proto = x->proto,
        .elapsed_ns = now_ns - x->wait_since_ns,
    };
}

void exchange_cancel(struct exchange *x, uint64_t word)
{
    struct loop *loop = atomic_load(&x->home);
    while (loop != NULL && atomic_load(x->word) == word) {
        if (detach_canceled(x, word, loop)) {
            loop_wake(loop);
            return;
        }
        struct loop *now_on = atomic_load(&x->home);
        if (now_on == loop) {
            return;
        }
        loop = now_on;
    }
}

/* An exchange has ended without an answer: what becomes of its conn. One that still dials, and whose query had no more time, goes on and is the
 * next one's. On a conn for one exchange at a time a late answer must not meet a later
 * query, so it is closed (case 79). A shared one goes on, unless nothing at all has come since the exchange was sent: then it is dead, and
 * what else is on it is tried elsewhere. */
static void exchange_left(struct exchange *x, struct conn *conn)
{
    bool timed_out = x->outcome.error == FWD_ERR_TIMEOUT;
    if (timed_out && x->outcome.phase != PHASE_READ) {
        if (!conn_was_given_time(conn, x->outcome.phase)) {
            conn_release(conn, true, services_mono(conn->loop->services));
            return;
        }
        transport_observe_dial(conn->transport, services_mono(conn->loop->services) - conn->dialled_ns);
    }
    if (conn->node.shareable && !(timed_out && (x->outcome.phase != PHASE_READ || conn->heard_ns < x->started_ns))) {
        bool forgotten = conn->ops->forget != NULL; /* then no late answer can come, and the conn is as good as before */
        if (forgotten) {
            conn->ops->forget(conn, x->key);
        }
        conn_release(conn, forgotten, services_mono(conn->loop->services));
        return;
    }
    conn_fail(conn, timed_out ? ETIMEDOUT : ECANCELED, x->outcome.phase);
}

/* Nothing but an error without its question came: here is the question. */
static void restore_question(struct exchange *x, struct loop *loop)
{
    uint8_t *room = loop_room(loop);
    x->outcome.wire = room;
    x->outcome.wire_len = wire_restore_question(room, x->bare_flags, x->wire, &x->query);
    loop_keep(loop, x->outcome.wire_len);
}

void exchange_finish(struct exchange *x, struct loop *loop)
{
    struct conn *conn = x->ended_on;
    x->ended_on = NULL;
    if (conn == NULL) {
        x->end(x, &x->outcome, loop);
        return;
    }
    if (x->want_local) {
        conn_local_addr(conn, &x->outcome.local);
    }
    if (x->outcome.why == NULL) {
        x->outcome.why = conn->why;
    }
    if (!x->placeless) {
        exchange_left(x, conn);
    }
    x->placeless = false;
    if (x->outcome.error == FWD_OK) {
        restore_question(x, loop);
    }
    x->end(x, &x->outcome, loop);
    conn_unpin(conn);
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
    case ECANCELED:
        return FWD_ERR_CANCELED;
    case EBADMSG:
        return FWD_ERR_BAD_REPLY;
    case EPROTO:
        return FWD_ERR_TLS_HANDSHAKE;
    case EKEYREJECTED:
        return FWD_ERR_TLS_VERIFY;
    case EPROTONOSUPPORT:
        return FWD_ERR_HTTP;
    default:
        return FWD_ERR_SEND;
    }
}

const char *exchange_shortage(int sys_errno)
{
    switch (sys_errno) {
    case EMFILE:
        return "too many open files";
    case ENFILE:
        return "too many open files in system";
    case ENOBUFS:
        return "no buffer space available";
    case ENOMEM:
        return "cannot allocate memory";
    case EADDRNOTAVAIL:
        return "cannot assign requested address";
    case EADDRINUSE:
        return "address already in use";
    case EAGAIN:
        return "no free local port";
    default:
        return NULL;
    }
}
