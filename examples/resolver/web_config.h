/* The web configuration that `tls FILE` of prometheus names: who the address is, and who may come.
 *
 * Threads: any. Ownership: plain value; web_config_fini frees. Limits: of Prometheus's exporter
 * toolkit 0.17.1 what the members below hold; what else it has is an error that names it.
 * Standards: YAML 1.1 as libyaml reads it.
 */
#pragma once

#include "text.h"

/** What is asked of a client's certificate. */
enum web_clients { CLIENTS_ANY, CLIENTS_CERTIFIED, CLIENTS_VERIFIED_IF_CERTIFIED, CLIENTS_VERIFIED };

struct web_config {
    char *cert; /**< PEM, as are the other two; NULL: plain HTTP */
    char *key;
    char *ca; /**< that clients are verified with, or NULL */
    enum web_clients clients;
    char priorities[96]; /**< the versions of TLS, in GnuTLS's words */
};

/** Reads the file and those it names; relative names are relative to it. */
bool web_config_read(const char *path, struct web_config *ret, struct failure *failure);
void web_config_fini(struct web_config *config);
