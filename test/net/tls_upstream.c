/* A scripted upstream over TCP, TLS and HTTPS.
 *
 * Happy path: one thread waits for connections and octets; TLS goes through a pair of memory BIOs,
 * so that every octet that leaves passes `transmit` and can be counted as a flight, cut or kept; a
 * whole query is written down, gets its rule from the pick function, and its reply waits in a list
 * until it is due.
 *
 * Failure modes: what the rules say. A connection on which anything else goes wrong is closed.
 * System calls on which a test rests abort.
 */
#include "tls_upstream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000u

enum { MAX_TICKETS = 4096, READ = 16 * 1024, MAX_LINKS = 4096 };

/* One connection. */
struct link {
    struct link *next;
    struct tls_upstream *up;
    unsigned number;
    int fd; /* -1: closed, to be freed by the loop */
    SSL *ssl;
    BIO *in, *out;
    struct http_server *http;
    bool ready, stalled;
    unsigned flights;
    unsigned unanswered;
    uint8_t *data; /* frames, not whole yet */
    size_t len;
};

struct reply {
    struct reply *next;
    unsigned conn;
    int32_t stream_id;
    uint64_t due_ns; /* UINT64_MAX: held */
    struct tls_rule rule;
    size_t len;
    uint8_t query[];
};

struct tls_upstream {
    pthread_t thread;
    int listen_fd, wake_fd;
    struct tls_setup setup;
    unsigned port;
    char addr[32];
    SSL_CTX *ctx;

    pthread_mutex_t mutex;
    /* guarded by mutex */
    bool stopping;
    bool kill_now;
    enum ending kill_how;
    uint64_t kill_interval_ns, kill_due_ns;
    struct tls_rule rule;
    tls_pick_fn *pick;
    void *pick_arg;
    struct link *links;
    struct reply *replies; /* newest first */
    struct tls_counts counts;
    struct tls_seen *seen;
    unsigned seen_cap;
    uint64_t tickets[MAX_TICKETS];
};

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void require(bool holds, const char *what)
{
    if (!holds) {
        perror(what);
        ERR_print_errors_fp(stderr);
        abort();
    }
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);
    require(memory != NULL, "calloc");
    return memory;
}

/* --- octets out
 * ---------------------------------------------------------------------------------------------------
 */

static void transmit(struct link *link, const uint8_t *data, size_t len)
{
    while (link->fd >= 0 && len > 0) {
        ssize_t n = send(link->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd poll_fd = {.fd = link->fd, .events = POLLOUT};
            n = poll(&poll_fd, 1, 2000) > 0 ? 0 : -1;
        }
        if (n < 0) {
            return;
        }
        data += n;
        len -= (size_t)n;
    }
}

/** Sends what TLS has made; in the handshake that is a flight. @param half only so much of it */
static void flush(struct link *link, bool half)
{
    const struct tls_setup *setup = &link->up->setup;
    uint8_t *data;
    size_t len = (size_t)BIO_get_mem_data(link->out, &data);
    if (len == 0) {
        return;
    }
    if (++link->flights == setup->stall_flight) {
        link->stalled = true;
        half = setup->stall_half;
    }
    if (!link->stalled || half) {
        transmit(link, data, half ? len / 2 : len);
    }
    (void)BIO_reset(link->out);
}

static void put(struct link *link, const uint8_t *data, size_t len, bool half)
{
    if (link->ssl == NULL) {
        transmit(link, data, half ? len / 2 : len);
        return;
    }
    (void)SSL_write(link->ssl, data, (int)len);
    flush(link, half);
}

static void put_http(struct link *link, bool half)
{
    const uint8_t *data;
    size_t len;
    while ((len = http_server_pull(link->http, &data)) > 0) {
        put(link, data, len, half);
    }
}

static void hang_up(struct link *link, enum ending how, bool notify)
{
    if (link->fd < 0) {
        return;
    }
    if (notify && link->ssl != NULL) {
        (void)SSL_shutdown(link->ssl);
        flush(link, false);
    }
    if (how == END_RST) {
        (void)setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1},
                         sizeof(struct linger));
    }
    (void)close(link->fd);
    link->fd = -1;
    link->up->counts.open--;
}

/* --- queries and replies
 * ------------------------------------------------------------------------------------------ */

static struct tls_seen *remember(struct link *link, const uint8_t *wire, size_t len,
                                 const struct http_request *http)
{
    struct tls_upstream *up = link->up;
    if (up->counts.queries == up->seen_cap) {
        up->seen_cap = up->seen_cap == 0 ? 64 : up->seen_cap * 2;
        up->seen = realloc(up->seen, up->seen_cap * sizeof(*up->seen));
        require(up->seen != NULL, "realloc");
    }
    struct tls_seen *seen = &up->seen[up->counts.queries++];
    *seen = (struct tls_seen){.number = up->counts.queries,
                              .conn = link->number,
                              .id = message_id(wire),
                              .no_rd = (wire[2] & 1) == 0};
    seen->type = message_question(wire, len, seen->name, sizeof(seen->name));
    if (http != NULL) {
        seen->http = *http;
        seen->http.wire = NULL;
    }
    if (link->ssl != NULL) {
        const unsigned char *alpn;
        unsigned alpn_len;
        SSL_get0_alpn_selected(link->ssl, &alpn, &alpn_len);
        (void)snprintf(seen->alpn, sizeof(seen->alpn), "%.*s", (int)alpn_len,
                       alpn != NULL ? (const char *)alpn : "");
        const char *sni = SSL_get_servername(link->ssl, TLSEXT_NAMETYPE_host_name);
        (void)snprintf(seen->sni, sizeof(seen->sni), "%s", sni != NULL ? sni : "");
        (void)snprintf(seen->version, sizeof(seen->version), "%s", SSL_get_version(link->ssl));
        seen->resumed = SSL_session_reused(link->ssl) == 1;
        X509 *client = SSL_get0_peer_certificate(link->ssl);
        if (client != NULL) {
            (void)X509_NAME_get_text_by_NID(X509_get_subject_name(client), NID_commonName,
                                            seen->client, sizeof(seen->client));
        }
    }
    return seen;
}

/** When so many are held on the connection they become due; the list has the newest first, and that
 * is the order in which they go. */
static void release_held(struct link *link, unsigned hold)
{
    unsigned held = 0;
    for (const struct reply *reply = link->up->replies; reply != NULL; reply = reply->next) {
        held += reply->conn == link->number && reply->due_ns == UINT64_MAX;
    }
    for (struct reply *reply = link->up->replies; reply != NULL && held >= hold;
         reply = reply->next) {
        if (reply->conn == link->number && reply->due_ns == UINT64_MAX) {
            reply->due_ns = 0;
        }
    }
}

static void on_message(struct link *link, int32_t stream_id, const uint8_t *wire, size_t len,
                       const struct http_request *http)
{
    struct tls_upstream *up = link->up;
    if (len < 12) {
        hang_up(link, END_RST, false);
        return;
    }
    const struct tls_seen *seen = remember(link, wire, len, http);
    struct reply *reply = allocate(sizeof(*reply) + len);
    reply->conn = link->number;
    reply->stream_id = stream_id;
    reply->rule = up->rule;
    reply->len = len;
    memcpy(reply->query, wire, len);
    if (up->pick != NULL) {
        up->pick(up->pick_arg, seen, &reply->rule);
    }
    reply->due_ns =
        reply->rule.hold > 1 ? UINT64_MAX : now_ns() + (uint64_t)reply->rule.delay_ms * NS_PER_MS;
    reply->next = up->replies;
    up->replies = reply;
    if (++link->unanswered > up->counts.together) {
        up->counts.together = link->unanswered;
    }
    if (reply->rule.hold > 1) {
        release_held(link, reply->rule.hold);
    }
}

static void on_request(void *arg, const struct http_request *request)
{
    on_message(arg, request->stream_id, request->wire, request->wire_len, request);
}

static void answer(struct link *link, const struct reply *reply)
{
    const struct tls_rule *rule = &reply->rule;
    uint8_t *frame = allocate(2 + MESSAGE_MAX);
    size_t len =
        message_answer(frame + 2, MESSAGE_MAX, reply->query, reply->len, rule->rcode, rule->pad);
    frame[0] = (uint8_t)(len >> 8);
    frame[1] = (uint8_t)len;
    if (link->http != NULL) {
        unsigned resets = http_server_resets(link->http);
        http_server_respond(link->http, reply->stream_id, &rule->http, frame + 2, len);
        put_http(link, rule->half_record);
        link->up->counts.resets += http_server_resets(link->http) - resets;
    } else {
        put(link, frame, 2 + len, rule->half_record);
    }
    free(frame);
}

/** A reply that is but the end of the connection. */
static void schedule_end(struct link *link, const struct tls_rule *rule)
{
    struct reply *reply = allocate(sizeof(*reply));
    reply->conn = link->number;
    reply->rule = (struct tls_rule){.instead = rule->after, .notify = rule->notify};
    reply->due_ns = now_ns() + (uint64_t)rule->after_ms * NS_PER_MS;
    reply->next = link->up->replies;
    link->up->replies = reply;
    link->unanswered++;
}

static void perform(struct link *link, const struct reply *reply)
{
    const struct tls_rule *rule = &reply->rule;
    link->unanswered--;
    if (rule->instead != END_NONE) {
        hang_up(link, rule->instead, rule->notify);
        return;
    }
    if (rule->renegotiate) {
        (void)SSL_renegotiate(link->ssl);
        (void)SSL_do_handshake(link->ssl);
        flush(link, false);
    }
    if (rule->garbage) {
        uint8_t noise[64];
        memset(noise, 0xaa, sizeof(noise));
        transmit(link, noise, sizeof(noise));
    } else if (!rule->drop) {
        answer(link, reply);
    }
    if (rule->after_ms > 0 && rule->after != END_NONE) {
        schedule_end(link, rule);
    } else if (rule->half_record || rule->after != END_NONE) {
        hang_up(link, rule->after == END_RST ? END_RST : END_FIN, rule->notify);
    }
}

static struct link *find(struct tls_upstream *up, unsigned number)
{
    struct link *link = up->links;
    while (link != NULL && (link->number != number || link->fd < 0)) {
        link = link->next;
    }
    return link;
}

/** Performs the first in the list that is due. @return false when none is */
static bool perform_one(struct tls_upstream *up, uint64_t now)
{
    struct reply **at = &up->replies;
    while (*at != NULL && (*at)->due_ns > now) {
        at = &(*at)->next;
    }
    struct reply *reply = *at;
    if (reply == NULL) {
        return false;
    }
    *at = reply->next;
    struct link *link = find(up, reply->conn);
    if (link != NULL) {
        perform(link, reply);
    }
    free(reply);
    return true;
}

/** @return milliseconds until something is due, -1 when nothing will be */
static int perform_due(struct tls_upstream *up)
{
    uint64_t now = now_ns(), next = UINT64_MAX;
    if (up->kill_now || (up->kill_interval_ns > 0 && up->kill_due_ns <= now)) {
        for (struct link *link = up->links; link != NULL; link = link->next) {
            hang_up(link, up->kill_how, false);
        }
        up->kill_now = false;
        up->kill_due_ns = now + up->kill_interval_ns;
    }
    while (perform_one(up, now)) {
    }
    next = up->kill_interval_ns > 0 ? up->kill_due_ns : UINT64_MAX;
    for (const struct reply *reply = up->replies; reply != NULL; reply = reply->next) {
        next = reply->due_ns < next ? reply->due_ns : next;
    }
    return next == UINT64_MAX ? -1 : next <= now ? 0 : (int)((next - now) / NS_PER_MS) + 1;
}

/* --- octets in
 * ----------------------------------------------------------------------------------------------------
 */

static void take_frames(struct link *link, const uint8_t *data, size_t len)
{
    link->data = realloc(link->data, link->len + len);
    require(link->data != NULL, "realloc");
    memcpy(link->data + link->len, data, len);
    link->len += len;
    size_t at = 0;
    while (link->fd >= 0 && link->len - at >= 2) {
        size_t size = message_id(link->data + at);
        if (link->len - at - 2 < size) {
            break;
        }
        on_message(link, 0, link->data + at + 2, size, NULL);
        at += 2 + size;
    }
    link->len -= at;
    memmove(link->data, link->data + at, link->len);
}

static void take(struct link *link, const uint8_t *data, size_t len)
{
    if (link->http == NULL) {
        take_frames(link, data, len);
        return;
    }
    unsigned resets = http_server_resets(link->http);
    bool good = http_server_feed(link->http, data, len);
    link->up->counts.resets += http_server_resets(link->http) - resets;
    put_http(link, false);
    if (!good) {
        hang_up(link, END_FIN, false);
    }
}

static void become_ready(struct link *link)
{
    struct tls_upstream *up = link->up;
    link->ready = true;
    up->counts.handshakes++;
    up->counts.resumed += SSL_session_reused(link->ssl) == 1;
    if (up->setup.kind == KIND_DOH) {
        link->http = http_server_create(
            up->setup.limit_streams ? (int64_t)up->setup.max_streams : -1, on_request, link);
        put_http(link, false);
    }
}

/** Lets TLS work on what came. */
static void advance(struct link *link)
{
    uint8_t data[READ];
    int n = 1;
    ERR_clear_error();
    if (!link->ready) {
        n = SSL_do_handshake(link->ssl);
        flush(link, false);
        if (n == 1 && !link->stalled) {
            become_ready(link);
        }
    }
    while (link->fd >= 0 && link->ready && (n = SSL_read(link->ssl, data, sizeof(data))) > 0) {
        take(link, data, (size_t)n);
    }
    if (link->fd < 0 || link->stalled) {
        return;
    }
    flush(link, false);
    int error = n > 0 ? SSL_ERROR_NONE : SSL_get_error(link->ssl, n);
    if (error == SSL_ERROR_ZERO_RETURN) {
        link->up->counts.closed_with_notify++;
    }
    if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ) {
        hang_up(link, END_FIN, false);
    }
}

static void receive(struct link *link)
{
    uint8_t data[READ];
    ssize_t n = link->fd >= 0 ? recv(link->fd, data, sizeof(data), MSG_DONTWAIT) : -1;
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        hang_up(link, END_FIN, false);
    } else if (n > 0 && link->ssl == NULL) {
        take(link, data, (size_t)n);
    } else if (n > 0 && !link->stalled) {
        (void)BIO_write(link->in, data, (int)n);
        advance(link);
    }
}

static void accept_link(struct tls_upstream *up)
{
    int fd = accept4(up->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    struct link *link = allocate(sizeof(*link));
    link->up = up;
    link->fd = fd;
    link->number = ++up->counts.opened;
    link->next = up->links;
    up->links = link;
    up->counts.open++;
    if (up->setup.kind != KIND_TCP) {
        link->ssl = SSL_new(up->ctx);
        link->in = BIO_new(BIO_s_mem());
        link->out = BIO_new(BIO_s_mem());
        require(link->ssl != NULL && link->in != NULL && link->out != NULL, "SSL_new");
        (void)BIO_set_mem_eof_return(link->in, -1);
        SSL_set_bio(link->ssl, link->in, link->out);
        SSL_set_accept_state(link->ssl);
    }
}

static void sweep(struct tls_upstream *up, bool all)
{
    struct link **at = &up->links;
    while (*at != NULL) {
        struct link *link = *at;
        if (!all && link->fd >= 0) {
            at = &link->next;
            continue;
        }
        *at = link->next;
        hang_up(link, END_FIN, false);
        http_server_destroy(link->http);
        SSL_free(link->ssl);
        free(link->data);
        free(link);
    }
}

static void *work(void *arg)
{
    struct tls_upstream *up = arg;
    static _Thread_local struct pollfd fds[2 + MAX_LINKS];
    static _Thread_local struct link *links[MAX_LINKS];
    pthread_mutex_lock(&up->mutex);
    while (!up->stopping) {
        nfds_t count = 0;
        int timeout = perform_due(up);
        sweep(up, false);
        fds[0] = (struct pollfd){.fd = up->wake_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = up->listen_fd, .events = POLLIN};
        for (struct link *link = up->links; link != NULL && count < MAX_LINKS; link = link->next) {
            links[count] = link;
            fds[2 + count++] = (struct pollfd){.fd = link->fd, .events = POLLIN};
        }
        pthread_mutex_unlock(&up->mutex);
        (void)poll(fds, 2 + count, timeout);
        pthread_mutex_lock(&up->mutex);
        if (fds[0].revents != 0) {
            eventfd_t value;
            (void)eventfd_read(up->wake_fd, &value);
        }
        for (nfds_t i = 0; i < count; i++) {
            if (fds[2 + i].revents != 0) {
                receive(links[i]);
            }
        }
        if (fds[1].revents != 0) {
            accept_link(up);
        }
    }
    pthread_mutex_unlock(&up->mutex);
    return NULL;
}

/* --- TLS
 * ----------------------------------------------------------------------------------------------------------
 */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *arg)
{
    const struct tls_upstream *up = arg;
    unsigned char own[32];
    const char *alpn = up->setup.alpn != NULL       ? up->setup.alpn
                       : up->setup.kind == KIND_DOH ? "h2"
                                                    : "dot";
    own[0] = (unsigned char)strlen(alpn);
    memcpy(own + 1, alpn, own[0]);
    unsigned char *chosen;
    if (own[0] == 0 || SSL_select_next_proto(&chosen, out_len, own, own[0] + 1u, in, in_len) !=
                           OPENSSL_NPN_NEGOTIATED) {
        return own[0] == 0 ? SSL_TLSEXT_ERR_NOACK : SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    for (const unsigned char *at = in; at < in + in_len;
         at += *at + 1) { /* `out` must outlive this function */
        if (*at == *out_len && memcmp(at + 1, alpn, *at) == 0) {
            *out = at + 1;
        }
    }
    return SSL_TLSEXT_ERR_OK;
}

/** Counts the tickets that come in ClientHellos (extension pre_shared_key, first identity). */
static int look_at_hello(SSL *ssl, int *alert, void *arg)
{
    struct tls_upstream *up = arg;
    const unsigned char *data;
    size_t len;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_psk, &data, &len) != 1 || len < 4) {
        return SSL_CLIENT_HELLO_SUCCESS;
    }
    uint64_t hash = 14695981039346656037u;
    size_t size = message_id(data + 2);
    for (size_t i = 0; i < size && 4 + i < len; i++) {
        hash = (hash ^ data[4 + i]) * 1099511628211u;
    }
    for (unsigned i = 0; i < up->counts.tickets && i < MAX_TICKETS; i++) {
        up->counts.twice += up->tickets[i] == hash;
    }
    if (up->counts.tickets < MAX_TICKETS) {
        up->tickets[up->counts.tickets] = hash;
    }
    up->counts.tickets++;
    return SSL_CLIENT_HELLO_SUCCESS;
}

static void use_certificate(SSL_CTX *ctx, const struct certificate *certificate)
{
    require(SSL_CTX_use_certificate(ctx, certificate->cert) == 1, "certificate");
    require(SSL_CTX_use_PrivateKey(ctx, certificate->key) == 1, "key");
}

static SSL_CTX *make_ctx(struct tls_upstream *up)
{
    const struct tls_setup *setup = &up->setup;
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    require(ctx != NULL, "SSL_CTX_new");
    use_certificate(ctx, setup->certificate);
    (void)SSL_CTX_set_min_proto_version(ctx, setup->min_version);
    (void)SSL_CTX_set_max_proto_version(ctx, setup->max_version);
    if (setup->max_version != 0 && setup->max_version < TLS1_2_VERSION) {
        require(SSL_CTX_set_cipher_list(ctx, "ALL:@SECLEVEL=0") == 1,
                "ciphers"); /* what is too old for OpenSSL's own level */
    }
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, up);
    SSL_CTX_set_client_hello_cb(ctx, look_at_hello, up);
    (void)SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"test", 4);
    if (setup->client_ca != NULL) {
        require(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), setup->client_ca->cert) == 1,
                "client CA");
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return ctx;
}

/* --- from outside
 * -------------------------------------------------------------------------------------------------
 */

struct tls_upstream *tls_upstream_create(const struct tls_setup *setup)
{
    struct sockaddr_in self = {.sin_family = AF_INET,
                               .sin_addr.s_addr =
                                   htonl(setup->any_address ? INADDR_ANY : INADDR_LOOPBACK)};
    socklen_t size = sizeof(self);
    struct tls_upstream *up = allocate(sizeof(*up));
    up->setup = *setup;
    up->ctx = setup->kind != KIND_TCP ? make_ctx(up) : NULL;
    pthread_mutex_init(&up->mutex, NULL);
    up->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    up->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    require(up->wake_fd >= 0 && up->listen_fd >= 0, "socket");
    require(bind(up->listen_fd, (struct sockaddr *)&self, size) == 0 &&
                listen(up->listen_fd, 1024) == 0,
            "bind");
    require(getsockname(up->listen_fd, (struct sockaddr *)&self, &size) == 0, "getsockname");
    up->port = ntohs(self.sin_port);
    (void)snprintf(up->addr, sizeof(up->addr), "127.0.0.1:%u", up->port);
    require(pthread_create(&up->thread, NULL, work, up) == 0, "pthread_create");
    return up;
}

static void wake(struct tls_upstream *up)
{
    (void)eventfd_write(up->wake_fd, 1);
}

void tls_upstream_destroy(struct tls_upstream *up)
{
    if (up == NULL) {
        return;
    }
    pthread_mutex_lock(&up->mutex);
    up->stopping = true;
    pthread_mutex_unlock(&up->mutex);
    wake(up);
    pthread_join(up->thread, NULL);
    sweep(up, true);
    while (up->replies != NULL) {
        struct reply *reply = up->replies;
        up->replies = reply->next;
        free(reply);
    }
    (void)close(up->listen_fd);
    (void)close(up->wake_fd);
    pthread_mutex_destroy(&up->mutex);
    SSL_CTX_free(up->ctx);
    free(up->seen);
    free(up);
}

const char *tls_upstream_addr(const struct tls_upstream *up)
{
    return up->addr;
}

unsigned tls_upstream_port(const struct tls_upstream *up)
{
    return up->port;
}

void tls_upstream_set(struct tls_upstream *up, const struct tls_rule *rule)
{
    pthread_mutex_lock(&up->mutex);
    up->rule = *rule;
    pthread_mutex_unlock(&up->mutex);
}

void tls_upstream_script(struct tls_upstream *up, tls_pick_fn *pick, void *arg)
{
    pthread_mutex_lock(&up->mutex);
    up->pick = pick;
    up->pick_arg = arg;
    pthread_mutex_unlock(&up->mutex);
}

void tls_upstream_show(struct tls_upstream *up, const struct certificate *certificate)
{
    pthread_mutex_lock(&up->mutex);
    use_certificate(up->ctx, certificate);
    pthread_mutex_unlock(&up->mutex);
}

void tls_upstream_kill(struct tls_upstream *up, enum ending how)
{
    pthread_mutex_lock(&up->mutex);
    up->kill_now = true;
    up->kill_how = how;
    pthread_mutex_unlock(&up->mutex);
    wake(up);
}

void tls_upstream_kill_every(struct tls_upstream *up, enum ending how, unsigned interval_ms)
{
    pthread_mutex_lock(&up->mutex);
    up->kill_how = how;
    up->kill_interval_ns = (uint64_t)interval_ms * NS_PER_MS;
    up->kill_due_ns = now_ns() + up->kill_interval_ns;
    pthread_mutex_unlock(&up->mutex);
    wake(up);
}

struct tls_counts tls_upstream_counts(struct tls_upstream *up)
{
    pthread_mutex_lock(&up->mutex);
    struct tls_counts counts = up->counts;
    pthread_mutex_unlock(&up->mutex);
    return counts;
}

struct tls_seen tls_upstream_seen(struct tls_upstream *up, unsigned index)
{
    pthread_mutex_lock(&up->mutex);
    require(index < up->counts.queries, "tls_upstream_seen");
    struct tls_seen seen = up->seen[index];
    pthread_mutex_unlock(&up->mutex);
    return seen;
}
