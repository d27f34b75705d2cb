/* TLS of a scripted upstream: its certificate, the versions and protocols that it has, and the
 * tickets that clients show it. Failure modes: what OpenSSL refuses aborts.
 */
#include "tls_inside.h"

#include <string.h>

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

void context_use(SSL_CTX *ctx, const struct certificate *certificate)
{
    upstream_require(SSL_CTX_use_certificate(ctx, certificate->cert) == 1, "certificate");
    upstream_require(SSL_CTX_use_PrivateKey(ctx, certificate->key) == 1, "key");
}

SSL_CTX *context_make(struct tls_upstream *up)
{
    const struct tls_setup *setup = &up->setup;
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    upstream_require(ctx != NULL, "SSL_CTX_new");
    context_use(ctx, setup->certificate);
    (void)SSL_CTX_set_min_proto_version(ctx, setup->min_version);
    (void)SSL_CTX_set_max_proto_version(ctx, setup->max_version);
    if (setup->max_version != 0 && setup->max_version < TLS1_2_VERSION) {
        upstream_require(SSL_CTX_set_cipher_list(ctx, "ALL:@SECLEVEL=0") == 1,
                "ciphers"); /* what is too old for OpenSSL's own level */
    }
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, up);
    SSL_CTX_set_client_hello_cb(ctx, look_at_hello, up);
    (void)SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"test", 4);
    if (setup->client_ca != NULL) {
        upstream_require(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), setup->client_ca->cert) == 1,
                "client CA");
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return ctx;
}
