/* Files of a `tls` line.
 *
 * Happy path: every file is there, the first certificate parses and the private key is its own; one
 * certificate at least of the CA file parses. Failure modes: CoreDNS's errors, which are Go's, in
 * the order of its checks.
 */
#include "tlsfiles.h"

#include "path.h"
#include "pem.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CERTIFICATE "CERTIFICATE"
#define KEY "PRIVATE KEY"

struct file {
    char *data;
    size_t len;
};

/* A file's first block of a kind, and the labels of those that were met before it. */
struct search {
    bool found;
    struct pem_block block;
    size_t skipped;
    char labels[GOTEXT_REASON / 2]; /* with spaces between */
};

static bool is_key(const struct pem_block *block)
{
    return pem_labelled(block, KEY, false) || pem_labelled(block, " " KEY, true);
}

static bool is_certificate(const struct pem_block *block)
{
    return pem_labelled(block, CERTIFICATE, false);
}

static void block_skip(struct search *search, const struct pem_block *block)
{
    size_t at = strlen(search->labels);

    (void)snprintf(search->labels + at, sizeof(search->labels) - at, "%s%.*s",
                   search->skipped > 0 ? " " : "", (int)block->label_len, block->label);
    search->skipped++;
    free(block->der);
}

static void block_search(const struct file *file, bool (*wanted)(const struct pem_block *),
                         struct search *ret)
{
    const char *at = file->data;

    *ret = (struct search){.found = false};
    while (!ret->found && pem_next(&at, file->data + file->len, &ret->block)) {
        ret->found = wanted(&ret->block);
        if (!ret->found) {
            block_skip(ret, &ret->block);
        }
    }
}

static void no_certificate(const struct search *search, char *reason)
{
    size_t len = strlen(search->labels);

    if (search->skipped == 0) {
        (void)snprintf(reason, GOTEXT_REASON,
                       "tls: failed to find any PEM data in certificate input");
    } else if (search->skipped == 1 && len >= strlen(KEY) &&
               strcmp(search->labels + len - strlen(KEY), KEY) == 0) {
        (void)snprintf(reason, GOTEXT_REASON,
                       "tls: failed to find certificate PEM data in certificate input, but did "
                       "find a private key; PEM inputs may have been switched");
    } else {
        (void)snprintf(reason, GOTEXT_REASON,
                       "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after "
                       "skipping PEM blocks of the following types: [%s]",
                       search->labels);
    }
}

static void no_key(const struct search *search, char *reason)
{
    if (search->skipped == 0) {
        (void)snprintf(reason, GOTEXT_REASON, "tls: failed to find any PEM data in key input");
    } else if (search->skipped == 1 && strcmp(search->labels, CERTIFICATE) == 0) {
        (void)snprintf(reason, GOTEXT_REASON,
                       "tls: found a certificate rather than a key in the PEM for the private key");
    } else {
        (void)snprintf(reason, GOTEXT_REASON,
                       "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key "
                       "input after skipping PEM blocks of the following types: [%s]",
                       search->labels);
    }
}

/* True for a key on a curve that Go does not have. */
static bool curve_unknown(const EVP_PKEY *key)
{
    static const int known[] = {NID_X9_62_prime256v1, NID_secp384r1, NID_secp521r1, NID_secp224r1};
    char name[64] = "";
    bool found = EVP_PKEY_get_base_id(key) != EVP_PKEY_EC;

    if (!found) {
        (void)EVP_PKEY_get_group_name(key, name, sizeof(name), NULL);
    }
    for (size_t i = 0; !found && i < sizeof(known) / sizeof(known[0]); i++) {
        found = strcmp(name, OBJ_nid2sn(known[i])) == 0;
    }
    return !found;
}

/* The kinds of keys that Go's TLS has. */
static bool key_known(const EVP_PKEY *key)
{
    int kind = EVP_PKEY_get_base_id(key);

    return kind == EVP_PKEY_RSA || kind == EVP_PKEY_EC || kind == EVP_PKEY_ED25519;
}

/* NULL when it is none, with why in *ret_reason. */
static X509 *certificate_parse(const struct pem_block *block, const char **ret_reason)
{
    const unsigned char *at = block->der;
    X509 *certificate = d2i_X509(NULL, &at, (long)block->der_len);
    const EVP_PKEY *key = certificate != NULL ? X509_get0_pubkey(certificate) : NULL;

    if (certificate == NULL) {
        *ret_reason = "x509: malformed certificate";
        return NULL;
    }
    if (at == block->der + block->der_len && (key == NULL || !curve_unknown(key))) {
        return certificate;
    }
    *ret_reason = at != block->der + block->der_len ? "x509: trailing data"
                                                    : "x509: unsupported elliptic curve";
    X509_free(certificate);
    return NULL;
}

/* What keeps certificate and key from being used together, or NULL. */
static const char *keys_compare(X509 *certificate, const EVP_PKEY *private)
{
    EVP_PKEY *public = X509_get0_pubkey(certificate);

    if (private != NULL && EVP_PKEY_get_base_id(private) == EVP_PKEY_X25519) {
        return "tls: found unknown private key type in PKCS#8 wrapping";
    }
    if (private == NULL || !key_known(private) || curve_unknown(private)) {
        return "tls: failed to parse private key";
    }
    if (public == NULL || !key_known(public)) {
        return "tls: unknown public key algorithm";
    }
    if (EVP_PKEY_get_base_id(public) != EVP_PKEY_get_base_id(private)) {
        return "tls: private key type does not match public key type";
    }
    return EVP_PKEY_eq(public, private) == 1 ? NULL : "tls: private key does not match public key";
}

static const char *blocks_compare(const struct pem_block *cert, const struct pem_block *key)
{
    const char *reason;
    X509 *certificate = certificate_parse(cert, &reason);

    if (certificate == NULL) {
        return reason;
    }
    const unsigned char *at = key->der;
    EVP_PKEY *private = d2i_AutoPrivateKey(NULL, &at, (long)key->der_len);
    reason = keys_compare(certificate, private);
    EVP_PKEY_free(private);
    X509_free(certificate);
    return reason;
}

static bool contents_check(const struct file *cert, const struct file *key, char *reason)
{
    struct search certs;
    struct search keys;
    const char *why = NULL;

    block_search(cert, is_certificate, &certs);
    block_search(key, is_key, &keys);
    if (!certs.found) {
        no_certificate(&certs, reason);
    } else if (!keys.found) {
        no_key(&keys, reason);
    } else if ((why = blocks_compare(&certs.block, &keys.block)) != NULL) {
        (void)snprintf(reason, GOTEXT_REASON, "%s", why);
    }
    if (certs.found) {
        free(certs.block.der);
    }
    if (keys.found) {
        free(keys.block.der);
    }
    return certs.found && keys.found && why == NULL;
}

/* Both files are read before either is looked at. */
static int pair_check(const char *cert_path, const char *key_path, char *reason)
{
    char why[GOTEXT_REASON];
    struct file cert = {0};
    struct file key = {0};
    bool ok = file_read(cert_path, &cert.data, &cert.len, why) == 0 &&
              file_read(key_path, &key.data, &key.len, why) == 0 &&
              contents_check(&cert, &key, why);

    free(cert.data);
    free(key.data);
    if (!ok) {
        (void)snprintf(reason, GOTEXT_REASON, "could not load TLS cert: %.*s", GOTEXT_REASON - 64,
                       why);
    }
    return ok ? 0 : -1;
}

/* What is no certificate among the roots is skipped. */
static bool roots_any(const struct file *file)
{
    struct pem_block block;
    const char *at = file->data;
    bool any = false;

    while (!any && pem_next(&at, file->data + file->len, &block)) {
        const char *reason;
        X509 *certificate = is_certificate(&block) && !block.headers
                                ? certificate_parse(&block, &reason)
                                : NULL;

        any = certificate != NULL;
        X509_free(certificate);
        free(block.der);
    }
    return any;
}

static int roots_check(const char *ca, char *reason)
{
    struct arena arena = {0};
    const char *path = ca[0] == '/' ? path_absolute(&arena, ca) : path_join(&arena, ".", ca);
    char text[GOTEXT_REASON] = "out of memory";
    struct file file = {0};
    int status = path != NULL ? file_read(path, &file.data, &file.len, text) : -1;

    if (status != 0) {
        (void)snprintf(reason, GOTEXT_REASON, "error reading %.*s: %.*s", GOTEXT_REASON / 3, ca,
                       GOTEXT_REASON / 2, text);
    } else if (!roots_any(&file)) {
        status = -1;
        (void)snprintf(reason, GOTEXT_REASON, "could not read root certs: no certificate in %.*s",
                       GOTEXT_REASON / 2, ca);
    }
    free(file.data);
    arena_free(&arena);
    return status == 0 ? 0 : -1;
}

/** Checks the arguments of a `tls` line. */
int tlsfiles_check(const char *const *files, size_t count, char reason[GOTEXT_REASON])
{
    int status = count >= 2 ? pair_check(files[0], files[1], reason) : 0;

    if (status == 0 && count % 2 == 1) {
        status = roots_check(files[count - 1], reason);
    }
    ERR_clear_error(); /* this thread may be the host's, and use the library */
    return status;
}
