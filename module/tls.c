/* TLS identities on OpenSSL.
 *
 * Happy path: tls_create loads CA, certificate and key into an SSL_CTX; tls_client makes an SSL of it that verifies the peer by the subject
 * alternative names against the server name, or against the address when there is no name (case 28), and resumes a session if one is
 * remembered. Sessions that servers hand out are kept, newest first; a TLS 1.3 ticket is used once.
 *
 * Failure modes: a file cannot be read or parsed: an error that names it. A file changes while we run: new handshakes use the new one; if it is broken they go on
 * with the old one. Verification fails: tls_explain names what was checked and why it failed.
 */
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_FRAGMENT = 4096 }; /* a ClientHello with a session ticket is not cut: some servers do not take that */

static int new_session(SSL *ssl, SSL_SESSION *session);

static void library_error(char *why, const char *what, const char *file)
{
    char text[TLS_WHY] = "unknown error";
    unsigned long code = ERR_peek_last_error();
    if (code != 0) {
        const char *reason = ERR_reason_error_string(code);
        (void)snprintf(text, sizeof(text), "%s", reason != NULL ? reason : "unknown error");
    }
    ERR_clear_error();
    (void)snprintf(why, TLS_WHY, "%s %.80s: %.60s", what, file, text);
}

static bool load_files(SSL_CTX *ctx, const struct tls *tls, char *why)
{
    if (tls->ca == NULL) {
        (void)SSL_CTX_set_default_verify_paths(ctx); /* without system CAs nothing verifies; that is then the error */
    } else if (SSL_CTX_load_verify_file(ctx, tls->ca) != 1) {
        library_error(why, "CA file", tls->ca);
        return false;
    }
    if (tls->cert == NULL) {
        return true;
    }
    if (SSL_CTX_use_certificate_chain_file(ctx, tls->cert) != 1) {
        library_error(why, "certificate file", tls->cert);
        return false;
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, tls->key, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(ctx) != 1) {
        library_error(why, "key file", tls->key);
        return false;
    }
    return true;
}

static SSL_CTX *make_ctx(const struct tls *tls, char *why)
{
    static const unsigned char dot[] = "\3dot", h2[] = "\2h2";
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL) {
        library_error(why, "TLS", "");
        return NULL;
    }
    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    /* a peer that closes without close_notify between messages has closed, no more (case 78) */
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    /* a buffer of this size is kept while a connection is open, and what is sent is small */
    (void)SSL_CTX_set_max_send_fragment(ctx, MAX_FRAGMENT);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    /* whatever is in the CA file is trusted, an intermediate authority too, as it is in Go */
    (void)X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, new_session);
    bool doh = tls->proto == FWD_PROTO_HTTPS;
    if (SSL_CTX_set_alpn_protos(ctx, doh ? h2 : dot, doh ? 3 : 4) != 0 || !load_files(ctx, tls, why)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

static uint64_t stamp_file(uint64_t stamp, const char *file)
{
    struct stat st;
    if (file == NULL || stat(file, &st) != 0) {
        return stamp;
    }
    uint64_t parts[] = {(uint64_t)st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        stamp = (stamp ^ parts[i]) * UINT64_C(1099511628211);
    }
    return stamp;
}

static uint64_t stamp_files(const struct tls *tls)
{
    return stamp_file(stamp_file(stamp_file(UINT64_C(14695981039346656037), tls->ca), tls->cert), tls->key);
}

static char *copy(const char *text, bool *failed)
{
    char *result = text != NULL ? strdup(text) : NULL;
    *failed |= text != NULL && result == NULL;
    return result;
}

struct tls *tls_create(const struct tls_settings *settings, char *why)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    if (tls == NULL) {
        (void)snprintf(why, TLS_WHY, "out of memory");
        return NULL;
    }
    bool failed = false;
    pthread_mutex_init(&tls->mutex, NULL);
    tls->ca = copy(settings->ca, &failed);
    tls->cert = copy(settings->cert, &failed);
    tls->key = copy(settings->key, &failed);
    tls->name = copy(settings->name, &failed);
    size_t name_len = tls->name != NULL ? strlen(tls->name) : 0;
    if (name_len > 1 && tls->name[name_len - 1] == '.') {
        tls->name[name_len - 1] = '\0'; /* certificates and SNI have none (RFC 6066 3) */
    }
    tls->proto = settings->proto;
    tls->addr = settings->addr;
    tls->stamp = stamp_files(tls);
    if (failed) {
        (void)snprintf(why, TLS_WHY, "out of memory");
    } else {
        tls->ctx = make_ctx(tls, why);
    }
    if (tls->ctx == NULL) {
        tls_destroy(tls);
        return NULL;
    }
    return tls;
}

static void drop_sessions(struct tls *tls)
{
    while (tls->session_count > 0) {
        SSL_SESSION_free(tls->sessions[--tls->session_count]);
    }
}

void tls_destroy(struct tls *tls)
{
    drop_sessions(tls);
    SSL_CTX_free(tls->ctx);
    pthread_mutex_destroy(&tls->mutex);
    free(tls->ca);
    free(tls->cert);
    free(tls->key);
    free(tls->name);
    free(tls);
}

/* Server names, one of which may have its last dot still. */
static bool same_name(const char *own, const char *name)
{
    size_t len = strlen(own);
    return strncmp(own, name, len) == 0 && (name[len] == '\0' || (len > 0 && strcmp(name + len, ".") == 0));
}

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool tls_same(const struct tls *tls, const struct tls_settings *settings)
{
    /* without a name the address is what is verified, so it is part of the identity */
    return tls->proto == settings->proto && same_name(tls->name, settings->name) && same_text(tls->ca, settings->ca) &&
           same_text(tls->cert, settings->cert) && same_text(tls->key, settings->key) &&
           (settings->name[0] != '\0' || memcmp(tls->addr.ip, settings->addr.ip, sizeof(tls->addr.ip)) == 0);
}

/* Looks at the files once a second at most. Lock held. */
static void refresh_locked(struct tls *tls, uint64_t now_ns)
{
    if (now_ns - tls->checked_ns < 1000000000 && tls->checked_ns != 0) {
        return;
    }
    tls->checked_ns = now_ns;
    uint64_t stamp = stamp_files(tls);
    if (stamp == tls->stamp) {
        return;
    }
    char why[TLS_WHY];
    SSL_CTX *ctx = make_ctx(tls, why);
    if (ctx != NULL) { /* a file half written: the next look will find it whole */
        SSL_CTX_free(tls->ctx);
        tls->ctx = ctx;
        tls->stamp = stamp;
        drop_sessions(tls);
    }
}

static SSL_SESSION *take_session_locked(struct tls *tls)
{
    if (tls->session_count == 0) {
        return NULL;
    }
    SSL_SESSION *session = tls->sessions[tls->session_count - 1];
    if (SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION) {
        tls->session_count--; /* single use (RFC 8446 C.4) */
    } else {
        (void)SSL_SESSION_up_ref(session);
    }
    return session;
}

static int new_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *tls = SSL_get_app_data(ssl);
    if (SSL_SESSION_is_resumable(session) == 0) {
        return 0;
    }
    pthread_mutex_lock(&tls->mutex);
    if (SSL_get_SSL_CTX(ssl) != tls->ctx) { /* verified by files that have changed since */
        pthread_mutex_unlock(&tls->mutex);
        return 0;
    }
    if (tls->session_count == TLS_SESSIONS) {
        SSL_SESSION_free(tls->sessions[0]);
        memmove(tls->sessions, tls->sessions + 1, (TLS_SESSIONS - 1) * sizeof(tls->sessions[0]));
        tls->session_count--;
    }
    tls->sessions[tls->session_count++] = session;
    pthread_mutex_unlock(&tls->mutex);
    return 1; /* the reference is ours now */
}

static bool is_address(const char *name)
{
    unsigned char ip[16];
    return inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1;
}

/* What the certificate must say: subject alternative names only, never the common name (RFC 8310 8.1). */
static bool set_peer(SSL *ssl, const struct tls *tls)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (tls->name[0] == '\0') {
        return X509_VERIFY_PARAM_set1_ip(param, tls->addr.ip, tls->addr.family == 4 ? 4 : 16) == 1;
    }
    if (is_address(tls->name)) {
        return X509_VERIFY_PARAM_set1_ip_asc(param, tls->name) == 1;
    }
    return X509_VERIFY_PARAM_set1_host(param, tls->name, 0) == 1 && SSL_set_tlsext_host_name(ssl, tls->name) == 1;
}

struct ssl_st *tls_client(struct tls *tls, uint64_t now_ns)
{
    pthread_mutex_lock(&tls->mutex);
    refresh_locked(tls, now_ns);
    SSL *ssl = SSL_new(tls->ctx);
    SSL_SESSION *session = ssl != NULL ? take_session_locked(tls) : NULL;
    pthread_mutex_unlock(&tls->mutex);
    if (ssl == NULL) {
        return NULL;
    }
    SSL_set_app_data(ssl, tls);
    SSL_set_connect_state(ssl);
    if (session != NULL) {
        (void)SSL_set_session(ssl, session);
        SSL_SESSION_free(session);
    }
    if (!set_peer(ssl, tls)) {
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

static const char *checked_name(const struct tls *tls, char *space, size_t len)
{
    if (tls->name[0] != '\0') {
        return tls->name;
    }
    return inet_ntop(tls->addr.family == 4 ? AF_INET : AF_INET6, tls->addr.ip, space, (socklen_t)len);
}

void tls_explain(const struct tls *tls, struct ssl_st *ssl, char why[TLS_WHY])
{
    long result = SSL_get_verify_result(ssl);
    if (result != X509_V_OK) {
        char address[INET6_ADDRSTRLEN];
        (void)snprintf(why, TLS_WHY, "certificate for '%.60s': %s", checked_name(tls, address, sizeof(address)),
                       X509_verify_cert_error_string(result));
    } else {
        unsigned long code = ERR_peek_last_error();
        const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
        if (tls->proto == FWD_PROTO_HTTPS && ERR_GET_REASON(code) == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL) {
            reason = "the server does not speak HTTP/2";
        }
        (void)snprintf(why, TLS_WHY, "%s", reason != NULL ? reason : "connection closed");
    }
    ERR_clear_error();
}

int tls_errno(struct ssl_st *ssl)
{
    return SSL_get_verify_result(ssl) != X509_V_OK ? EKEYREJECTED : EPROTO;
}
