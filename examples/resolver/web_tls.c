/* HTTPS.
 *
 * Happy path: certificate, key and authorities go to libmicrohttpd; after the handshake the client's
 * certificate is verified here, as the library only asks for it. Failure modes: a pair that does not
 * fit is an error when it is read; without GnuTLS or libyaml the option is refused by name.
 */
#include "web_tls.h"

#ifdef HAVE_WEB_TLS

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <string.h>

static gnutls_datum_t datum(const char *text)
{
    return (gnutls_datum_t){.data = (unsigned char *)(uintptr_t)text,
                            .size = (unsigned)strlen(text)};
}

static bool pair_check(const struct web_config *config, struct failure *failure)
{
    gnutls_certificate_credentials_t credentials;
    gnutls_datum_t cert = datum(config->cert);
    gnutls_datum_t key = datum(config->key);
    int status = gnutls_certificate_allocate_credentials(&credentials);
    if (status == GNUTLS_E_SUCCESS) {
        status = gnutls_certificate_set_x509_key_mem(credentials, &cert, &key, GNUTLS_X509_FMT_PEM);
        gnutls_certificate_free_credentials(credentials);
    }
    return status >= 0 ||
           failure_set(failure, "failed to load X509KeyPair: %s", gnutls_strerror(status));
}

/** Reads. */
bool web_tls_read(const char *path, struct web_config *ret, struct failure *failure)
{
    if (!web_config_read(path, ret, failure)) {
        return false;
    }
    if (ret->cert == NULL || pair_check(ret, failure)) {
        return true;
    }
    web_config_fini(ret);
    return false;
}

/** For the daemon. */
unsigned web_tls_options(const struct web_config *config,
                         struct MHD_OptionItem ret[WEB_TLS_OPTIONS])
{
    size_t count = 0;
    if (config->cert != NULL) {
        ret[count++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, config->cert};
        ret[count++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, config->key};
        ret[count++] = (struct MHD_OptionItem){
            MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)config->priorities};
    }
    if (config->ca != NULL) {
        ret[count++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_TRUST, 0, config->ca};
    }
    ret[count] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    return config->cert != NULL ? MHD_USE_TLS : 0;
}

static bool certificate_verify(gnutls_session_t session)
{
    gnutls_typed_vdata_st purpose = {
        .type = GNUTLS_DT_KEY_PURPOSE_OID,
        .data = (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT,
    };
    unsigned status = GNUTLS_CERT_INVALID;
    return gnutls_certificate_verify_peers(session, &purpose, 1, &status) == GNUTLS_E_SUCCESS &&
           status == 0;
}

/** After the handshake. */
bool web_tls_welcome(const struct web_config *config, struct MHD_Connection *connection)
{
    if (config->cert == NULL || config->clients == CLIENTS_ANY) {
        return true;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (info == NULL) {
        return false;
    }
    gnutls_session_t session = info->tls_session;
    unsigned count = 0;
    bool shown = gnutls_certificate_get_peers(session, &count) != NULL && count > 0;
    if (!shown || config->clients == CLIENTS_CERTIFIED) {
        return shown || config->clients == CLIENTS_VERIFIED_IF_CERTIFIED;
    }
    return certificate_verify(session);
}

#else

bool web_tls_read(const char *path, struct web_config *ret, struct failure *failure)
{
    return failure_set(failure, "fwd-resolver was built without GnuTLS or libyaml");
}

unsigned web_tls_options(const struct web_config *config,
                         struct MHD_OptionItem ret[WEB_TLS_OPTIONS])
{
    ret[0] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    return 0;
}

bool web_tls_welcome(const struct web_config *config, struct MHD_Connection *connection)
{
    return true;
}

#endif
