/* Getting an exchange on its way.
 *
 * Happy path: a place on a conn is taken, the exchange is armed there under a random ID, and its message is sent on the calling thread.
 *
 * Failure modes: a reused conn turns out dead, before arming or when sending: it costs nothing, a new one is taken. There is no place: the
 * exchange waits for one (turn.c), or fails, and place.c says why.
 */
#include "pursuit.h"

#include "conn.h"
#include "engine.h"
#include "place.h"
#include "random.h"
#include "transport.h"
#include "turn.h"

/* How an attempt has gone. */
enum pursuit {
    IN_FLIGHT, /* or waits */
    FAILED,
    AGAIN,
};

/* Arms under a random ID that no other exchange on the conn has. @return <0 an error of the random source */
static int arm(struct conn *conn, struct exchange *x, struct frame *frame, bool reused, uint64_t now, enum conn_armed *ret,
               uint32_t *ret_seq)
{
    do {
        x->id = 0; /* of DoH (RFC 8484 4.1) */
        int r = conn->ops->own_keys ? 0 : random_u16(conn->loop->services, &x->id);
        if (r < 0) {
            return r;
        }
        wire_put_u16(frame->data + FRAME_HEADER, x->id);
        *ret = conn_arm(conn, x, reused, now, ret_seq);
    } while (*ret == ARMED_ID_TAKEN);
    return 0;
}

/* Arms and sends on a place. AGAIN: it was on a reused conn that had died. */
static enum pursuit exchange_framed(const struct place *place, struct exchange *x, struct frame *frame, uint64_t now,
                                    struct outcome *ret)
{
    struct conn *conn = place->conn;
    enum conn_armed armed;
    uint32_t seq;
    int r = arm(conn, x, frame, place->reused, now, &armed, &seq);
    if (r < 0 || armed == ARMED_CANCELED) {
        place_leave(conn);
        ret->error = r < 0 ? r : FWD_ERR_CANCELED;
        return FAILED;
    }
    if (armed == ARMED_WAIT) {
        conn_unpin(conn);
        return IN_FLIGHT;
    }
    if (armed == ARMED_SEND) {
        int err = conn->ops->send(conn, frame->data, frame->len, x, seq);
        if (err == 0 || !conn_disarm(conn, x, seq, err)) {
            conn_unpin(conn);
            return IN_FLIGHT; /* or the loop has ended it meanwhile */
        }
        ret->sys_errno = err;
        ret->phase = PHASE_WRITE;
    } else {
        ret->sys_errno = conn->fail_errno;
    }
    place_discard(conn);
    ret->error = exchange_error_of(ret->sys_errno);
    return place->reused ? AGAIN : FAILED;
}

static enum pursuit exchange_on(const struct place *place, struct exchange *x, uint64_t now, struct outcome *ret)
{
    struct frame frame;
    if (!frame_init(&frame, &place->conn->edns, x->wire, x->wire_len)) {
        place_leave(place->conn);
        ret->error = FWD_ERR_NOMEM;
        return FAILED;
    }
    enum pursuit attempt = exchange_framed(place, x, &frame, now, ret);
    frame_fini(&frame);
    return attempt;
}

static enum pursuit wait_for_place(struct transport *t, struct exchange *x, uint32_t proto, bool again, uint64_t now, struct outcome *ret)
{
    switch (turn_await(t, x, proto, again, now)) {
    case TURN_AWAITED:
        return IN_FLIGHT;
    case TURN_NOW:
        return AGAIN;
    default:
        ret->error = FWD_ERR_CANCELED;
        return FAILED;
    }
}

bool pursuit_run(struct transport *t, struct exchange *x, uint32_t proto, uint32_t flags, const struct place *first, uint64_t start,
                 struct outcome *ret)
{
    const struct services *services = &t->engine->services;
    bool turn = first != NULL;
    bool fresh = x->fresh;
    x->fresh = false;
    for (uint64_t now = start;; now = services_mono(services)) {
        *ret = (struct outcome){.proto = proto, .phase = PHASE_DIAL};
        struct place place = first != NULL                      ? *first
                             : (flags & EXCHANGE_ONE_SHOT) != 0 ? place_open_one_shot(t, proto, now)
                                                                : place_take(t, proto, fresh, now);
        first = NULL;
        enum pursuit attempt = FAILED;
        if (place.wait) {
            attempt = wait_for_place(t, x, proto, turn, now, ret);
            fresh = false;
        } else if (place.conn != NULL) {
            attempt = exchange_on(&place, x, now, ret);
            /* what else is idle is probably as dead as this one; a new conn cannot be stale, so this ends */
            fresh = true;
        } else {
            ret->error = place.error;
            ret->sys_errno = place.sys_errno;
            ret->why = place.why;
        }
        if (attempt == IN_FLIGHT) {
            return true;
        }
        if (attempt == FAILED) {
            ret->elapsed_ns = services_mono(services) - start;
            return false;
        }
    }
}
