/* Certificates for the tests.
 *
 * Happy path: a fresh P-256 key (or the form's), a version 3 certificate with the form's names and dates, signed by
 * the issuer. Failure modes: whatever OpenSSL refuses aborts with its reason.
 */
#include "certificate.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

enum { DAY = 24 * 60 * 60 };

static void require(bool holds)
{
    if (!holds) {
        ERR_print_errors_fp(stderr);
        abort();
    }
}

static void add_extension(X509 *cert, X509 *issuer, int kind, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, kind, value);
    require(extension != NULL && X509_add_ext(cert, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static void set_serial(X509 *cert)
{
    unsigned char octets[16];
    BIGNUM *number = BN_new();
    require(RAND_bytes(octets, sizeof(octets)) == 1 &&
            BN_bin2bn(octets, sizeof(octets), number) != NULL);
    require(BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != NULL);
    BN_free(number);
}

struct certificate certificate_make(const struct certificate_form *form,
                                    const struct certificate *issuer)
{
    struct certificate made = {
        .cert = X509_new(),
        .key = form->key != NULL ? form->key : EVP_EC_gen("P-256"),
    };
    require(made.cert != NULL && made.key != NULL);
    X509 *issuing = issuer != NULL ? issuer->cert : made.cert;
    bool dated = form->from_days != 0 || form->to_days != 0;
    set_serial(made.cert);
    require(X509_set_version(made.cert, 2) == 1 && X509_set_pubkey(made.cert, made.key) == 1);
    require(X509_gmtime_adj(X509_getm_notBefore(made.cert),
                            (long)(dated ? form->from_days : -1) * DAY) != NULL);
    require(X509_gmtime_adj(X509_getm_notAfter(made.cert),
                            (long)(dated ? form->to_days : 1) * DAY) != NULL);
    X509_NAME *name = X509_get_subject_name(made.cert);
    require(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                       (const unsigned char *)form->common_name, -1, -1, 0) == 1);
    require(X509_set_issuer_name(made.cert, X509_get_subject_name(issuing)) == 1);
    add_extension(made.cert, issuing, NID_basic_constraints,
                  form->authority ? "critical,CA:TRUE" : "CA:FALSE");
    add_extension(made.cert, issuing, NID_subject_key_identifier, "hash");
    if (form->alt_names != NULL) {
        add_extension(made.cert, issuing, NID_subject_alt_name, form->alt_names);
    }
    require(X509_sign(made.cert, issuer != NULL ? issuer->key : made.key, EVP_sha256()) > 0);
    return made;
}

void certificate_free(struct certificate *certificate)
{
    X509_free(certificate->cert);
    EVP_PKEY_free(certificate->key);
    *certificate = (struct certificate){0};
}

static FILE *open_new(const char *file, char *space, size_t cap)
{
    require(snprintf(space, cap, "%s.new", file) < (int)cap);
    FILE *out = fopen(space, "w");
    require(out != NULL);
    return out;
}

void certificate_write(const struct certificate *certificate, const char *cert_file,
                       const char *key_file)
{
    char space[512];
    if (cert_file != NULL) {
        FILE *out = open_new(cert_file, space, sizeof(space));
        require(PEM_write_X509(out, certificate->cert) == 1 && fclose(out) == 0 &&
                rename(space, cert_file) == 0);
    }
    if (key_file != NULL) {
        FILE *out = open_new(key_file, space, sizeof(space));
        require(PEM_write_PrivateKey(out, certificate->key, NULL, NULL, 0, NULL, NULL) == 1);
        require(fclose(out) == 0 && rename(space, key_file) == 0);
    }
}
