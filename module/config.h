/* The configuration of an instance, as it came across the ABI in JSON.
 *
 *   {"io_threads": 2, "loops": 1, "engine": "", "forward": [STANZA, ...], "warnings": ["...", ...]}
 *
 * A STANZA holds every option under its Corefile name (options.h lists them); absent ones get
 * CoreDNS's default; warnings are for people and ignored. stanza.c makes this JSON from a Corefile,
 * config.c reads it.
 *
 * Threads: none of its own; a struct config is immutable once parsed. Ownership: config_destroy
 * frees everything; of one that is shared config_leave does (config_share.h).
 */
#pragma once

#include "arena.h"

#include <forward/abi.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A domain name. wire is uncompressed, lower case, ends with the root label. */
struct config_name {
    const char *text; /**< "example.org." */
    const uint8_t *wire;
    uint32_t wire_len;
};

/** One upstream after expansion of files (case 18), default ports (21) and removal of duplicates
 * (20). */
struct config_to {
    const char *text;     /**< "127.0.0.1:53", spelled as CoreDNS's metrics label `to` has it */
    struct fwd_addr addr; /**< family 0 when text is a host name (needs resolving) */
    uint32_t proto;       /**< FWD_PROTO_UDP for dns, FWD_PROTO_TLS, FWD_PROTO_HTTPS */
    const char *tls_servername; /**< "" when none */
};

enum config_policy { POLICY_RANDOM, POLICY_ROUND_ROBIN, POLICY_SEQUENTIAL };

/** Set of RCODEs in the order given; bit n of mask is RCODE n (all named ones are below 32). */
struct config_rcodes {
    uint32_t mask;
    uint16_t *list;
    uint32_t count;
};

/** The options of a stanza but `except`. Stanzas that have them alike, next to each other in the file, share them. */
struct config_options {
    /* first what every query looks at */
    uint64_t max_concurrent; /**< 0 off */
    uint64_t read_timeout_ns;
    uint64_t retransmit_ns; /**< 0 off; see race.h */
    uint32_t max_fails;     /**< 0 never down, never probed */
    uint32_t max_connect_attempts;
    bool has_max_connect_attempts; /**< absent means 2 x upstreams, 0 means unlimited (case 31, 45)
                                    */
    bool force_tcp;
    bool prefer_udp;
    bool next_on_nodata;
    enum config_policy policy;
    struct config_rcodes next;
    struct config_rcodes failover;

    bool failfast; /**< failfast_all_unhealthy_upstreams */
    bool doh_get;  /**< doh_method GET */

    uint64_t expire_ns;
    uint64_t max_age_ns; /**< 0 none */
    uint64_t health_interval_ns;
    bool health_no_rec;
    struct config_name health_domain;

    uint64_t max_idle_conns; /**< 0 unlimited */
    uint32_t port_budget; /**< fresh UDP source ports per upstream and second; ours, default 1000, 0
                             = CoreDNS's pooling */

    /* ours as well: limits on connections, per upstream and per type as max_idle_conns; see options.c */
    uint32_t pipeline;  /**< exchanges in flight on one TCP or TLS connection, at least 1 */
    uint32_t max_conns; /**< 0 unlimited */
    uint32_t min_idle_conns;
    uint32_t max_conn_uses;  /**< 0 unlimited */
    uint32_t max_handshakes; /**< 0 unlimited; default 64 */
    uint32_t max_age_jitter; /**< per cent */
    uint64_t conn_wait_ns;   /**< 0 refuses at once */
    uint64_t connect_timeout_ns; /**< 0 adaptive (case 71) */
    uint64_t handshake_timeout_ns;
    uint64_t tcp_keepalive_ns; /**< 0 off */
    uint32_t padding;          /**< block length; 0 off */
    bool edns_keepalive;

    uint64_t resolve_interval_ns; /**< shortest time between two lookups of a host name; 0 looks once, as CoreDNS */
    uint64_t resolve_hold_ns;     /**< longest TTL that is believed; 0 any */

    bool has_source_address;
    struct fwd_addr source_address;

    bool has_tls;                      /**< a tls line was given (perhaps without files) */
    const char *tls_ca, *tls_cert, *tls_key; /**< NULL when not given */
    const char *tls_servername;        /**< "" when none */
    const char **resolver;             /**< IP or IP:port each, as given */
    uint32_t resolver_count;
};

struct config_stanza {
    struct config_name from;
    const struct config_name *except;
    uint32_t except_count;
    uint32_t to_count;
    const struct config_to *to; /**< may be shared, as options */
    const struct config_options *options;
};

enum { CONFIG_MAX_LOOPS = 256 };

struct config {
    uint32_t io_threads; /**< 0 = host-driven; default 2 with 4 cores and more, else 1 */
    uint32_t loops;      /**< host-driven: how many loops the host turns; default 1 */
    const char *engine;  /**< which instances share an engine; "" = host-driven none */
    struct config_stanza *stanzas;
    size_t stanza_count;
    struct arena arena; /**< all that is in the stanzas, and they */

    /* config_share.c's */
    uint32_t uses;
    const char *text; /**< what it was made from; NULL: not shared */
    size_t text_len;
};

/** Parses and validates JSON. On error nothing is returned and *error has text and JSON pointer.
 *  @return FWD_OK, FWD_ERR_CONFIG, FWD_ERR_NOMEM */
int config_parse(const char *json, size_t len, struct config **ret, struct fwd_error *error);

/** As config_parse, from JSON that is parsed already. */
int config_from_json(const json_t *root, struct config **ret, struct fwd_error *error);

/** The effective configuration as JSON (new reference), every option present; NULL when out of
 * memory. */
json_t *config_to_json(const struct config *config);

void config_destroy(struct config *config);
