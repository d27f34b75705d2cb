/* A TLS identity: what an upstream must prove, what we show it, and the sessions that both remember.
 *
 * Shared by all upstreams of an engine with the same files, server name and protocol (case 26). Its SSL_CTX is made anew when one of the files has
 * changed; running connections keep theirs.
 *
 * Threads: any. Ownership: reference-counted. Standards: RFC 7858, RFC 8310 (strict profile), RFC 8446; CoreDNS cases 26-28.
 */
#pragma once

#include <forward/abi.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct config_stanza;
struct config_to;
struct ssl_ctx_st;
struct ssl_session_st;
struct ssl_st;

enum { TLS_SESSIONS = 8, TLS_WHY = 160 };

struct tls_settings {
    const char *ca, *cert, *key; /**< files; NULL for none */
    const char *name;            /**< to verify; "" verifies the address */
    struct fwd_addr addr;        /**< verified when there is no name, else ignored */
    uint32_t proto;              /**< FWD_PROTO_TLS or FWD_PROTO_HTTPS: decides the ALPN */
};

struct tls {
    struct tls *next; /* guarded by the engine's mutex, as is users */
    uint32_t users;
    char *ca, *cert, *key, *name;
    struct fwd_addr addr;
    uint32_t proto;

    pthread_mutex_t mutex;
    /* guarded by mutex */
    struct ssl_ctx_st *ctx;
    uint64_t stamp;      /* of the files, when ctx was made */
    uint64_t checked_ns; /* when the stamp was last looked at */
    struct ssl_session_st *sessions[TLS_SESSIONS];
    uint32_t session_count;
};

/** Loads the files. @param why TLS_WHY octets for what is wrong with them. @return NULL on failure */
struct tls *tls_create(const struct tls_settings *settings, char *why);

void tls_destroy(struct tls *tls);

/** True when tls was made from equal settings. */
bool tls_same(const struct tls *tls, const struct tls_settings *settings);

/** A client handshake to be: verification, server name and, if there is one, a remembered session are set.
 *  @param now_ns the clock, to look at the files at most once a second
 *  @return NULL when out of memory */
struct ssl_st *tls_client(struct tls *tls, uint64_t now_ns);

/** Says what went wrong in the last operation on ssl: the verification's reason with the name that was checked, or OpenSSL's. */
void tls_explain(const struct tls *tls, struct ssl_st *ssl, char why[TLS_WHY]);

/** The errno that stands for the failure: EKEYREJECTED for verification, else EPROTO. */
int tls_errno(struct ssl_st *ssl);
