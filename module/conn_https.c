/* DNS over HTTPS: many exchanges on one connection, each a stream.
 *
 * Happy path: a query is submitted and written on its caller's thread; the loop feeds what comes to the HTTP/2 session and matches each response by
 * its stream. The upstream's ID is 0 (RFC 8484 4.1).
 *
 * Failure modes: the server does not choose h2: the error says so. A bad response fails its own exchange, the connection lives on. A refused stream, and
 * one that this connection does not take any more (GOAWAY), is tried elsewhere at no charge. A broken session closes the connection, and what
 * is on it is tried elsewhere. An exchange that is given up resets its stream.
 */
#include "conn_tls.h"
#include "cork.h"
#include "http.h"
#include "loop.h"
#include "tls.h"
#include "transport.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { PULL = 16 * 1024 };

static int https_handshake(struct conn *conn);

static const struct stream_io https_io = {
    .handshake = https_handshake,
    .read = conn_tls_read,
    .write = conn_tls_write,
    .holds = conn_tls_holds,
};

static int https_open(struct conn *conn)
{
    int err = conn_tls_open(conn);
    if (err != 0) {
        return err;
    }
    conn->h2 = h2_create();
    return conn->h2 != NULL ? 0 : ENOMEM;
}

static void https_fini(struct conn *conn)
{
    h2_destroy(conn->h2);
    conn_tls_fini(conn);
}

/* Writes what the session has to say. io held. */
static int flush_locked(struct conn *conn)
{
    uint8_t buf[PULL];
    uint32_t n;
    int err = 0;
    while (err == 0 && (n = h2_pull(conn->h2, buf, sizeof(buf))) > 0) {
        err = conn_stream_put(conn, &https_io, buf, n);
    }
    return err;
}

static int https_handshake(struct conn *conn)
{
    int r = conn_tls_handshake(conn);
    if (r != 0) {
        return r;
    }
    const unsigned char *protocol;
    unsigned len;
    SSL_get0_alpn_selected(conn->ssl, &protocol, &len);
    if (len != 2 || memcmp(protocol, "h2", 2) != 0) {
        conn->why = strdup("the server does not speak HTTP/2");
        return -EPROTONOSUPPORT;
    }
    return -flush_locked(conn);
}

static int https_send(struct conn *conn, uint8_t *frame, uint32_t len, struct exchange *x, uint32_t seq)
{
    const struct h2_target target = {.authority = conn->transport->authority, .get = conn->transport->key.doh_get};
    pthread_mutex_lock(&conn->io);
    int32_t id = h2_submit(conn->h2, &target, frame + FRAME_HEADER, len - FRAME_HEADER);
    /* the answer cannot be read before io is given up, so its key is there in time */
    bool alive = id >= 0 && conn_rekey(conn, x, seq, (uint32_t)id);
    if (id >= 0 && !alive) {
        h2_cancel(conn->h2, id);
    }
    int err = id >= 0 && !cork_hold(conn) ? flush_locked(conn) : 0;
    pthread_mutex_unlock(&conn->io);
    if (id < 0) {
        pool_retire(transport_pool(conn->transport, FWD_PROTO_HTTPS), &conn->node);
        conn_refuse(conn, x, seq);
    }
    return err;
}

static void https_forget(struct conn *conn, uint32_t key)
{
    pthread_mutex_lock(&conn->io);
    h2_cancel(conn->h2, (int32_t)key);
    int err = flush_locked(conn);
    pthread_mutex_unlock(&conn->io);
    if (err != 0) {
        conn_break(conn, err);
    }
}

/* A response that carries a message: copied into the arena, where answers wait for their delivery. */
static void take_message(struct conn *conn, const struct h2_result *result)
{
    struct loop *loop = conn->loop;
    uint8_t *room = loop_room(loop);
    struct exchange *x;
    memcpy(room, result->body, result->len);
    if (result->len < WIRE_HEADER || conn_match(conn, (uint32_t)result->stream_id, room, result->len, &x) != ANSWER_GOOD) {
        conn_fail_one(conn, (uint32_t)result->stream_id, FWD_ERR_BAD_REPLY, "no answer to the question");
        return;
    }
    loop_keep(loop, result->len);
    if (result->age > 0) {
        wire_age(x->outcome.wire, x->outcome.wire_len, result->age);
    }
    conn_release(conn, true, conn->heard_ns);
    exchange_finish(x, loop);
}

static void take_results(struct conn *conn, struct h2_result *results)
{
    while (results != NULL) {
        struct h2_result *result = results;
        results = result->next;
        if (result->refused) {
            conn_refuse_key(conn, (uint32_t)result->stream_id);
        } else if (result->why[0] != '\0') {
            conn_fail_one(conn, (uint32_t)result->stream_id, FWD_ERR_HTTP, result->why);
        } else {
            take_message(conn, result);
        }
        free(result);
    }
}

/* What one read has brought. */
struct reading {
    struct h2_result *results;
    uint32_t capacity; /* exchanges that the conn takes by now */
    bool more;         /* another read may bring something */
};

/* One read. @return octets, 0 for the end of the stream, or a negated errno */
static ssize_t read_once(struct conn *conn, struct reading *ret)
{
    uint8_t *room = loop_room(conn->loop);
    pthread_mutex_lock(&conn->io);
    ssize_t n = conn_tls_read(conn, room, PULL);
    if (n > 0) {
        conn->heard_ns = services_mono(conn->loop->services);
        int err = h2_feed(conn->h2, room, (uint32_t)n) == 0 ? flush_locked(conn) : EPROTONOSUPPORT;
        err = err == 0 && h2_broken(conn->h2) ? EPROTONOSUPPORT : err;
        if (err == EPROTONOSUPPORT && conn->why == NULL) {
            conn->why = strdup("HTTP/2 protocol error");
        }
        n = err == 0 ? n : -err;
    }
    ret->results = h2_results(conn->h2);
    ret->capacity = h2_capacity(conn->h2);
    ret->more = n > 0 && conn_stream_more(conn, &https_io);
    pthread_mutex_unlock(&conn->io);
    return n;
}

static void read_all(struct conn *conn)
{
    struct pool *pool = transport_pool(conn->transport, FWD_PROTO_HTTPS);
    struct reading r;
    ssize_t n;
    do {
        n = read_once(conn, &r);
        if (r.capacity == 0) {
            pool_retire(pool, &conn->node);
        } else {
            pool_set_limit(pool, &conn->node, r.capacity);
        }
        take_results(conn, r.results);
    } while (r.more);
    if (n <= 0 && n != -EAGAIN) {
        conn_fail(conn, (int)-n, PHASE_READ);
        return;
    }
    conn_stream_acknowledge_awaited(conn); /* the HEADERS of a response, or one of several */
}

static void https_event(struct conn *conn, uint32_t events)
{
    if (conn_stream_begin(conn, &https_io, events)) {
        read_all(conn);
    }
}

const struct conn_ops conn_https_ops = {
    .proto = FWD_PROTO_HTTPS,
    .own_keys = true,
    .socket_type = SOCK_STREAM,
    .epoll_events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
    .open = https_open,
    .send = https_send,
    .flush = flush_locked,
    .forget = https_forget,
    .event = https_event,
    .bye = conn_tls_bye,
    .fini = https_fini,
};
