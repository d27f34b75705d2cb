/* HTTPS on GnuTLS, which is libmicrohttpd's library.
 *
 * Threads: reading and options by main; welcome by the thread that serves the address. Ownership:
 * the configuration's texts are used until the daemon has started. Standards: RFC 8446, RFC 5246.
 */
#pragma once

#include "web_config.h"

#include <microhttpd.h>

enum { WEB_TLS_OPTIONS = 5 };

/** Reads a web configuration and sees whether certificate and key go together. */
bool web_tls_read(const char *path, struct web_config *ret, struct failure *failure);

/** What the daemon is started with; no options without a certificate. @return flags */
unsigned web_tls_options(const struct web_config *config,
                         struct MHD_OptionItem ret[WEB_TLS_OPTIONS]);

/** Whether the client has shown the certificate that is asked for. */
bool web_tls_welcome(const struct web_config *config, struct MHD_Connection *connection);
