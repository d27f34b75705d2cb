/* Certificates for the tests, made when they are needed: an authority, and what it signs, rightly
 * or wrongly.
 *
 * Threads: any; no shared state. Ownership: certificate_free frees key and certificate. Failures
 * abort: they are defects of the test. Standards: RFC 5280, RFC 6125.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>

/** A certificate and its private key (P-256, unless the form has another). */
struct certificate {
    X509 *cert;
    EVP_PKEY *key;
};

/** What a certificate says. */
struct certificate_form {
    const char *common_name;
    const char
        *alt_names; /**< as OpenSSL writes them: "DNS:one.test,IP:127.0.0.1"; NULL for none */
    int from_days, to_days; /**< validity, relative to now; both 0: from yesterday to tomorrow */
    bool authority;
    EVP_PKEY *key; /**< taken over; NULL: a fresh one */
};

/** Makes a certificate. @param issuer who signs it; NULL: itself */
struct certificate certificate_make(const struct certificate_form *form,
                                    const struct certificate *issuer);

void certificate_free(struct certificate *certificate);

/** Writes certificate and key as PEM; either file may be NULL. The file is replaced as a whole. */
void certificate_write(const struct certificate *certificate, const char *cert_file,
                       const char *key_file);
